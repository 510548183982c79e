"""The pages for sign-in and sign-out, for a person's own account (password, language, second factor), and for admins, the
People page: accounts and their roles."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from smtpguard.accounts.model import Account, Role
from smtpguard.console import labels
from smtpguard.console.people.accounts import (
    Accounts,
    BadPassword,
    NotPossible,
    TooManyHashes,
    WrongSecret,
    qr_svg,
)
from smtpguard.console.people.middleware import Cookies, RateLimit, Site, safe_path
from smtpguard.console.people.signing import NotAuthenticated, Proven, SignedIn, Signing, SignInRefused, TooManyAttempts
from smtpguard.console.rendering import page, see_other, services_of, speech, text_of
from smtpguard.console.services import NotSignedIn, for_roles
from smtpguard.database.errors import Outage, StoreError
from smtpguard.locale import languages
from smtpguard.locale.phrase import N_, Phrase, Said
from smtpguard.locale.speech import language_name
from smtpguard.mail.address import BadAddress

if TYPE_CHECKING:  # slow to import
    from smtpguard.console.people.oidc import Provider

log = logging.getLogger(__name__)

KNOWN_SECONDS = 180 * 86400
ATTEMPT_SECONDS = 600
ISSUER = "smtpguard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """``provider``: None without single sign-on. ``own``: attempts at the own password while signed in. ``required``: the
    roles that must have a second factor."""

    accounts: Accounts
    signing: Signing
    place: Site
    provider: Provider | None
    own: RateLimit
    required: frozenset[Role]
    _away: Outage = field(init=False, default_factory=partial(Outage, log, "single sign-on cannot begin"))
    _unproven: Outage = field(init=False, default_factory=partial(Outage, log, "single sign-on"))

    def routes(self) -> list[Route]:
        found = [
            Route("/login", self.door, methods=["GET"]),
            Route("/login", self.sign_in, methods=["POST"]),
            Route("/logout", self.sign_out, methods=["POST"]),
            Route("/me", self._me, methods=["GET"]),
            Route("/me/language", self.language, methods=["POST"]),
            Route("/me/password", self.password, methods=["POST"]),
            Route("/me/factor", self.factor, methods=["GET"]),
            Route("/me/factor", self.confirm, methods=["POST"]),
            Route("/me/factor/off", self.factor_off, methods=["POST"]),
        ]
        if self.provider is not None:
            found += [
                Route("/login/sso", self.to_provider, methods=["GET"]),
                Route("/me/sso", self.move, methods=["POST"]),
                Route("/login/sso/back", self.back, methods=["GET"]),
                Route("/login/sso/back", self.finish, methods=["POST"]),
            ]
        return found

    # -- in and out

    async def door(self, request: Request) -> Response:
        then = safe_path(request.query_params.get("next"))
        if request.state.person is not None:
            return see_other(then)
        return await self._door(
            request,
            then,
            said=next((each for each in ("changed", "ended", "link", "linked") if each in request.query_params), ""),
        )

    async def sign_in(self, request: Request) -> Response:
        then = safe_path(_text(request, "next"))
        try:
            done = await self.signing.by_password(
                _text(request, "address"),
                _text(request, "password"),
                _text(request, "code"),
                client=request.state.client,
                known=request.cookies.get(self.place.cookie("smtpguard-known"), ""),
                before=request.state.token,
            )
        except SignInRefused:
            return await self._door(request, then, 401, said="refused")
        except TooManyAttempts as wait:
            return await self._wait(request, then, wait)
        return self._in(request, done, then)

    async def sign_out(self, request: Request) -> Response:
        if request.state.account is not None:
            await self.signing.out(request.state.token, request.state.account, client=request.state.client)
        return self._out(request)

    async def to_provider(self, request: Request) -> Response:
        then = safe_path(request.query_params.get("next"))
        if (where := await self._begun(request, then)) is None:
            return await self._door(request, then, 503, said="no provider")
        return RedirectResponse(where, status_code=303)

    async def _begun(self, request: Request, then: str, *, moves: str = "") -> str | None:
        """Begins a sign-on: nothing is stored, the browser gets the sealed state. Returns the URL of the provider, None if
        it does not answer."""
        try:
            where, sealed = await self._provider().begin(then, moves=moves)
        except NotAuthenticated as why:
            self._away.report(why)
            return None
        self._away.end()
        self._cookies(request).set(self.place, "smtpguard-sso", sealed, seconds=ATTEMPT_SECONDS)
        return where

    async def move(self, request: Request) -> Response:
        """Change from a password to single sign-on: the provider proves that it is the same person."""
        account = _account(request)
        if account.subject or not account.password:
            return await self._me(request, 409, problem=N_("This account has no password: it uses single sign-on."))
        if (where := await self._begun(request, "/me", moves=account.account_id)) is None:
            problem = N_("Single sign-on does not answer. Try again, or sign in with a password.")
            return await self._me(request, 503, problem=problem)
        return await page(request, "to-provider.html", where=where)

    async def _moved(self, request: Request, proven: Proven) -> Response:
        account = _account(request)
        try:
            same = self.accounts.canonical(proven.address) == account.address
        except BadAddress:
            same = False
        if not same:
            return await self._me(
                request, 409, problem=N_("Single sign-on has another address for you: nothing was changed.")
            )
        try:
            await self.accounts.to_single_sign_on(account, by=account.address, subject=proven.subject)
        except NotPossible as why:
            return await self._me(request, 409, problem=why.why)
        return self._out(request, linked="1")

    async def back(self, request: Request) -> Response:
        """The provider redirects the browser here. A form continues, since a GET must not sign anybody in."""
        given = {name: request.query_params.get(name, "")[:4000] for name in ("code", "state", "iss", "error")}
        return await page(request, "signing-back.html", given=given)

    async def finish(self, request: Request) -> Response:
        provider, cookies = self._provider(), self._cookies(request)
        cookies.drop(self.place, "smtpguard-sso")
        try:
            if error := _text(request, "error"):
                raise NotAuthenticated(f"the provider said {error[:60]!r}")
            sealed = request.cookies.get(self.place.cookie("smtpguard-sso"), "")
            moves = provider.moves(sealed)
            proven, then = await provider.finish(
                sealed, code=_text(request, "code"), state=_text(request, "state"), issuer=_text(request, "iss")
            )
            if moves:
                if request.state.account is None or request.state.account.account_id != moves:
                    raise NotAuthenticated("the person who began the move is not signed in any more")
                return await self._moved(request, proven)
            done = await self.signing.by_provider(
                proven,
                provider.roles(proven.groups),
                client=request.state.client,
                before=request.state.token,
                asked=_asked(request),
            )
        except NotAuthenticated as why:
            self._unproven.report(why)
            return await self._door(request, "/", 401, said="not by provider")
        except SignInRefused:
            return await self._door(request, "/", 401, said="not by provider")
        return self._in(request, done, safe_path(then))

    # -- the own account

    async def language(self, request: Request) -> Response:
        account = _account(request)
        try:
            await self.accounts.set_language(account, _text(request, "language"))
        except NotPossible as why:
            return await self._me(request, 400, problem=why.why)
        return see_other("/me", done="done")

    async def password(self, request: Request) -> Response:
        account, new, said = _account(request), _text(request, "new"), speech(request)
        if not account.password:
            return await self._me(request, 400, problem=N_("This account has no password: it uses single sign-on."))
        if not await self._right(account, _text(request, "current")):
            return await self._me(request, 403, wrong={"current": said("That is not your password.")})
        if new != _text(request, "again"):
            return await self._me(request, 400, wrong={"again": said("The two new passwords are not the same.")})
        try:
            await self.accounts.set_password(account, new, by=account.address)
        except BadPassword as why:
            return await self._me(request, 400, wrong={"new": said.say(why.why)})
        return self._out(request, changed="1")

    async def factor(self, request: Request) -> Response:
        account = _account(request)
        return await self._factor(request, account, self.accounts.factors.made())

    async def confirm(self, request: Request) -> Response:
        account, sealed, said = _account(request), _text(request, "sealed"), speech(request)
        if not await self._right(account, _text(request, "password")):
            return await self._factor(
                request, account, sealed, 403, wrong={"password": said("That is not your password.")}
            )
        try:
            codes = await self.accounts.confirm_factor(account, sealed, _text(request, "code"), by=account.address)
        except NotPossible as why:
            return await self._factor(request, account, sealed, 400, wrong={"code": said.say(why.why)})
        self._cookies(request).drop(self.place, "smtpguard")
        return await page(request, "recovery-codes.html", codes=codes)

    async def factor_off(self, request: Request) -> Response:
        account, said = _account(request), speech(request)
        if not await self._right(account, _text(request, "password")):
            return await self._me(request, 403, wrong={"password": said("That is not your password.")})
        if not self.required.isdisjoint(account.roles):
            return await self._me(
                request, 409, problem=N_("Your role requires a second factor: set up another one instead.")
            )
        try:
            await self.accounts.drop_factor(account, by=account.address)
        except NotPossible as why:
            return await self._me(request, 400, problem=why.why)
        return self._out(request, changed="1")

    # -- shared

    async def _door(self, request: Request, then: str, status: int = 200, *, said: str, minutes: int = 0) -> Response:
        title = self.provider.trusted.title if self.provider else ""
        return await page(
            request, "login.html", status, then=then, said=said, sso=self.provider is not None, sso_title=title,
            minutes=minutes, address=_text(request, "address"),
        )  # fmt: skip

    async def _wait(self, request: Request, then: str, wait: TooManyAttempts) -> Response:
        answer = await self._door(request, then, 429, said="wait", minutes=max(1, math.ceil(wait.seconds / 60)))
        answer.headers["retry-after"] = str(math.ceil(wait.seconds))
        return answer

    def _in(self, request: Request, done: SignedIn, then: str) -> Response:
        cookies = self._cookies(request)
        cookies.set(self.place, "smtpguard", done.token)
        cookies.set(self.place, "smtpguard-known", done.known, seconds=KNOWN_SECONDS)
        return see_other(then)

    def _out(self, request: Request, **why: str) -> Response:
        self._cookies(request).drop(self.place, "smtpguard")
        return see_other("/login", **why)

    async def _me(
        self, request: Request, status: int = 200, *, problem: Said = "", wrong: Mapping[str, str] | None = None
    ) -> Response:
        sso = self.provider is not None
        return await page(
            request,
            "me.html",
            status,
            wrong=wrong,
            account=_account(request),
            problem=problem,
            sso=sso,
            languages=[(language, language_name(language)) for language in languages()],
        )

    async def _factor(
        self, request: Request, account: Account, sealed: str, status: int = 200, *,
        wrong: Mapping[str, str] | None = None,
    ) -> Response:  # fmt: skip
        if not account.password:
            return await self._me(request, 400, problem=N_("This account has no password: it uses single sign-on."))
        try:
            uri = self.accounts.factors.uri(sealed, address=account.address, issuer=ISSUER)
        except WrongSecret:
            sealed = self.accounts.factors.made()
            uri = self.accounts.factors.uri(sealed, address=account.address, issuer=ISSUER)
        plain = self.accounts.factors.plain(sealed)
        return await page(
            request, "second-factor.html", status, wrong=wrong, qr=qr_svg(uri), uri=uri, sealed=sealed, required=account.lacks_factor(self.required),
            secret=" ".join(plain[n : n + 4] for n in range(0, len(plain), 4)),
        )  # fmt: skip

    async def _right(self, account: Account, password: str) -> bool:
        """Ask for the account's password again: a person at an unlocked browser must not guess it."""
        if self.own.wait(account.account_id) > 0:
            return False
        self.own.take(account.account_id)
        try:
            right = await self.accounts.passwords.right(account.password, password)
        except TooManyHashes:
            return False
        if right:
            self.own.give_back(account.account_id)
        return right

    def _provider(self) -> Provider:
        assert self.provider is not None, "a route without a provider"
        return self.provider

    def _cookies(self, request: Request) -> Cookies:
        found: Cookies = request.state.cookies
        return found


def _account(request: Request) -> Account:
    """The account that is signed in. Raises NotSignedIn."""
    found: Account | None = request.state.account
    if found is None:
        raise NotSignedIn
    return found


def _asked(request: Request) -> frozenset[str]:
    """The groups at the provider by which the policy says who decides; none where that cannot be read."""
    try:
        return frozenset().union(*services_of(request).in_force.claims.values())
    except StoreError:
        return frozenset()


def _text(request: Request, name: str) -> str:
    value = request.state.form.get(name, "")
    return value if isinstance(value, str) else ""


CHANGES = ("roles", "disable", "enable", "password", "factor-off", "delete", "sso")
_LETTERS = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789"


def new_password() -> str:
    """A first password, which the owner then changes: 95 bits, without ambiguous letters."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


@dataclass(frozen=True, slots=True)
class Administering:
    accounts: Accounts
    sso: bool = False
    """Whether there is single sign-on."""

    def routes(self) -> list[Route]:
        only = for_roles(Role.ADMIN)
        changes = [
            Route(f"/people/{{account_id}}/{change}", only(partial(self.change, change)), methods=["POST"])
            for change in CHANGES
        ]
        return [
            Route("/people", only(self._shown), methods=["GET"]),
            Route("/people", only(self.add), methods=["POST"]),
            *changes,
        ]

    async def add(self, request: Request) -> Response:
        form = request.state.form
        address, sso = text_of(form, "address"), form.get("sso") == "yes"
        password = "" if sso else new_password()
        try:
            made = await self.accounts.add(
                address, roles=_chosen(request), password=password, name=text_of(form, "name", 200),
                by=request.state.person.address,
            )  # fmt: skip
        except BadAddress:
            return await self._shown(request, 400, wrong={"address": speech(request)(N_("Not an address."))})
        except NotPossible as why:
            return await self._shown(request, 409, wrong={"address": speech(request).say(why.why)})
        return await self._answer_after_change(request, made, password)

    async def change(self, change: str, request: Request) -> Response:
        everybody = await self.accounts.people.everybody()
        account = next((a for a in everybody if a.account_id == request.path_params["account_id"]), None)
        if account is None:
            raise HTTPException(404)
        try:
            password = await self._changed(change, account, request)
        except NotPossible as why:
            return await self._shown(request, 409, problem=why.why)
        return await self._answer_after_change(request, account, password)

    async def _answer_after_change(self, request: Request, account: Account, password: str) -> Response:
        if password:
            return await self._shown(request, made=account, password=password)
        return see_other("/people", done="done")

    async def _changed(self, change: str, account: Account, request: Request) -> str:
        """Returns the password that was generated for the account, "" if none was."""
        by, roles = request.state.person.address, _chosen(request)
        own = account.address == by
        match change:
            case "roles":
                if own and Role.ADMIN not in roles:
                    raise NotPossible(
                        Phrase("You cannot take the admin's role from yourself: another admin must do it.")
                    )
                await self.accounts.set_roles(account, roles, by=by)
            case "disable":
                if own:
                    raise NotPossible(Phrase("You cannot disable your own account: another admin must do it."))
                await self.accounts.disable(account, by=by)
            case "enable":
                await self.accounts.enable(account, by=by)
            case "password":
                password = new_password()
                await self.accounts.set_password(account, password, by=by)
                return password
            case "factor-off":
                await self.accounts.drop_factor(account, by=by)
            case "delete":
                if own:
                    raise NotPossible(Phrase("You cannot delete your own account: another admin must do it."))
                if request.state.form.get("sure") != "yes":
                    raise NotPossible(Phrase("Confirm it: a deleted account cannot be restored."))
                await self.accounts.delete(account, by=by)
            case "sso":
                if not self.sso:
                    raise NotPossible(Phrase("There is no single sign-on here."))
                await self.accounts.to_single_sign_on(account, by=by)
        return ""

    async def _shown(
        self, request: Request, status: int = 200, *, problem: Said = "",
        made: Account | None = None, password: str = "", wrong: Mapping[str, str] | None = None,
    ) -> Response:  # fmt: skip
        everybody = await self.accounts.people.everybody()
        gaps = [(labels.GAPS[each.gap.value], each) for each in services_of(request).in_force.unseated(everybody)]
        return await page(
            request, "people.html", status, everybody=everybody, roles=list(Role), sso=self.sso, gaps=gaps,
            problem=problem, wrong=wrong, made=made, password=password, mine=request.state.person.address,
        )  # fmt: skip


def _chosen(request: Request) -> list[Role]:
    wanted = request.state.form.getlist("roles")
    return [role for role in Role if role.value in wanted]
