"""The pages for sign-in and sign-out, and for a person's own account: password, language, second factor."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from smtpguard.accounts.model import Account, Role
from smtpguard.console.people.accounts import Accounts
from smtpguard.console.people.credentials import BadPassword, NotPossible, TooManyHashes, WrongSecret, qr_svg
from smtpguard.console.people.middleware import Cookies, Site, safe_path
from smtpguard.console.people.signing import (
    NotAuthenticated,
    Proven,
    RateLimit,
    SignedIn,
    Signing,
    SignInRefused,
    TooManyAttempts,
)
from smtpguard.console.rendering import form, page, see_other, services_of, speech
from smtpguard.console.services import NotSignedIn
from smtpguard.database.errors import Outage, StoreError
from smtpguard.locale import languages
from smtpguard.locale.phrase import N_, Said
from smtpguard.locale.speech import language_name
from smtpguard.mail.address import BadAddress

if TYPE_CHECKING:  # slow to import
    from smtpguard.console.people.oidc import Provider

log = logging.getLogger(__name__)

MARK_SECONDS = 180 * 86400
"""How long a browser stays marked as its owner's."""
ATTEMPT_SECONDS = 600
"""How long a browser keeps the sealed state of a sign-on."""
ISSUER = "smtpguard"
"""The name of the account in an authenticator."""
NO_PASSWORD = N_("This account has no password: it uses single sign-on.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPages:
    """``provider``: None if there is no single sign-on. ``own``: limits attempts at the own password while signed in.
    ``required``: the roles that must have a second factor."""

    accounts: Accounts
    signing: Signing
    site: Site
    provider: Provider | None
    own: RateLimit
    required: frozenset[Role]
    _away: Outage = field(init=False, default_factory=partial(Outage, log, "single sign-on cannot begin"))
    _unproven: Outage = field(init=False, default_factory=partial(Outage, log, "single sign-on"))

    def routes(self) -> list[Route]:
        found = [
            Route("/login", self.login, methods=["GET"]),
            Route("/login", self.sign_in, methods=["POST"]),
            Route("/logout", self.sign_out, methods=["POST"]),
            Route("/me", self._account_page, methods=["GET"]),
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
                Route("/login/sso/back", self.returned, methods=["GET"]),
                Route("/login/sso/back", self.finish, methods=["POST"]),
            ]
        return found

    # -- in and out

    async def login(self, request: Request) -> Response:
        then = safe_path(request.query_params.get("next"))
        if request.state.person is not None:
            return see_other(then)
        return await self._login_page(
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
                mark=request.cookies.get(self.site.cookie("smtpguard-known"), ""),
                before=request.state.token,
            )
        except SignInRefused:
            return await self._login_page(request, then, 401, said="refused")
        except TooManyAttempts as wait:
            minutes = max(1, math.ceil(wait.seconds / 60))
            answer = await self._login_page(request, then, 429, said="wait", minutes=minutes)
            answer.headers["retry-after"] = str(math.ceil(wait.seconds))
            return answer
        return self._signed_in(request, done, then)

    async def sign_out(self, request: Request) -> Response:
        if request.state.account is not None:
            await self.signing.sign_out(request.state.token, request.state.account, client=request.state.client)
        return self._signed_out(request)

    async def to_provider(self, request: Request) -> Response:
        then = safe_path(request.query_params.get("next"))
        if (where := await self._begin_sign_on(request, then)) is None:
            return await self._login_page(request, then, 503, said="no provider")
        return RedirectResponse(where, status_code=303)

    async def _begin_sign_on(self, request: Request, then: str, *, moves: str = "") -> str | None:
        """Begin a sign-on. Nothing is stored: the browser gets the sealed state. Return the URL of the provider, None if it does
        not answer."""
        try:
            where, sealed = await self._provider().begin(then, moves=moves)
        except NotAuthenticated as why:
            self._away.report(why)
            return None
        self._away.end()
        request.state.cookies.set("smtpguard-sso", sealed, seconds=ATTEMPT_SECONDS)
        return where

    async def move(self, request: Request) -> Response:
        """Change from a password to single sign-on: the provider proves that it is the same person."""
        account = _account(request)
        if account.subject or not account.password:
            return await self._account_page(request, 409, problem=NO_PASSWORD)
        if (where := await self._begin_sign_on(request, "/me", moves=account.account_id)) is None:
            problem = N_("Single sign-on does not answer. Try again, or sign in with a password.")
            return await self._account_page(request, 503, problem=problem)
        return await page(request, "to-provider.html", where=where)

    async def _finish_move(self, request: Request, proven: Proven) -> Response:
        account = _account(request)
        try:
            same = self.accounts.canonical(proven.address) == account.address
        except BadAddress:
            same = False
        if not same:
            return await self._account_page(
                request, 409, problem=N_("Single sign-on has another address for you: nothing was changed.")
            )
        try:
            await self.accounts.to_single_sign_on(account, by=account.address, subject=proven.subject)
        except NotPossible as why:
            return await self._account_page(request, 409, problem=why.why)
        return self._signed_out(request, linked="1")

    async def returned(self, request: Request) -> Response:
        """Show a form that continues the sign-on: the provider redirects the browser here, and a GET must not sign anybody in."""
        given = {name: request.query_params.get(name, "")[:4000] for name in ("code", "state", "iss", "error")}
        return await page(request, "signing-back.html", given=given)

    async def finish(self, request: Request) -> Response:
        provider = self._provider()
        request.state.cookies.drop("smtpguard-sso")
        try:
            if error := _text(request, "error"):
                raise NotAuthenticated(f"the provider said {error[:60]!r}")
            sealed = request.cookies.get(self.site.cookie("smtpguard-sso"), "")
            proven, then, moves = await provider.finish(
                sealed, code=_text(request, "code"), state=_text(request, "state"), issuer=_text(request, "iss")
            )
            if moves:
                if request.state.account is None or request.state.account.account_id != moves:
                    raise NotAuthenticated("the person who began the move is not signed in any more")
                return await self._finish_move(request, proven)
            done = await self.signing.by_provider(
                proven,
                provider.roles(proven.groups),
                client=request.state.client,
                before=request.state.token,
                asked=_policy_claims(request),
            )
        except NotAuthenticated as why:
            self._unproven.report(why)
            return await self._login_page(request, "/", 401, said="not by provider")
        except SignInRefused:
            return await self._login_page(request, "/", 401, said="not by provider")
        return self._signed_in(request, done, safe_path(then))

    # -- the own account

    async def language(self, request: Request) -> Response:
        account = _account(request)
        try:
            await self.accounts.set_language(account, _text(request, "language"))
        except NotPossible as why:
            return await self._account_page(request, 400, problem=why.why)
        return see_other("/me", done="done")

    async def password(self, request: Request) -> Response:
        account, new, said = _account(request), _text(request, "new"), speech(request)
        if not account.password:
            return await self._account_page(request, 400, problem=NO_PASSWORD)
        if not await self._password_is_right(account, _text(request, "current")):
            return await self._account_page(request, 403, wrong={"current": said("That is not your password.")})
        if new != _text(request, "again"):
            return await self._account_page(
                request, 400, wrong={"again": said("The two new passwords are not the same.")}
            )
        try:
            await self.accounts.set_password(account, new, by=account.address)
        except BadPassword as why:
            return await self._account_page(request, 400, wrong={"new": said.say(why.why)})
        return self._signed_out(request, changed="1")

    async def factor(self, request: Request) -> Response:
        account = _account(request)
        return await self._factor_page(request, account, self.accounts.factors.new_secret())

    async def confirm(self, request: Request) -> Response:
        account, sealed, said = _account(request), _text(request, "sealed"), speech(request)
        if not await self._password_is_right(account, _text(request, "password")):
            return await self._factor_page(
                request, account, sealed, 403, wrong={"password": said("That is not your password.")}
            )
        try:
            codes = await self.accounts.confirm_factor(account, sealed, _text(request, "code"), by=account.address)
        except NotPossible as why:
            return await self._factor_page(request, account, sealed, 400, wrong={"code": said.say(why.why)})
        request.state.cookies.drop("smtpguard")
        return await page(request, "recovery-codes.html", codes=codes)

    async def factor_off(self, request: Request) -> Response:
        account, said = _account(request), speech(request)
        if not await self._password_is_right(account, _text(request, "password")):
            return await self._account_page(request, 403, wrong={"password": said("That is not your password.")})
        if not self.required.isdisjoint(account.roles):
            return await self._account_page(
                request, 409, problem=N_("Your role requires a second factor: set up another one instead.")
            )
        try:
            await self.accounts.drop_factor(account, by=account.address)
        except NotPossible as why:
            return await self._account_page(request, 400, problem=why.why)
        return self._signed_out(request, changed="1")

    # -- shared

    async def _login_page(
        self, request: Request, then: str, status: int = 200, *, said: str, minutes: int = 0
    ) -> Response:
        title = self.provider.trusted.title if self.provider else ""
        return await page(
            request, "login.html", status, then=then, said=said, sso=self.provider is not None, sso_title=title,
            minutes=minutes, address=_text(request, "address"),
        )  # fmt: skip

    def _signed_in(self, request: Request, done: SignedIn, then: str) -> Response:
        cookies: Cookies = request.state.cookies
        cookies.set("smtpguard", done.token)
        cookies.set("smtpguard-known", done.mark, seconds=MARK_SECONDS)
        return see_other(then)

    def _signed_out(self, request: Request, **why: str) -> Response:
        request.state.cookies.drop("smtpguard")
        return see_other("/login", **why)

    async def _account_page(
        self, request: Request, status: int = 200, *, problem: Said = "", wrong: Mapping[str, str] | None = None
    ) -> Response:
        return await page(
            request,
            "me.html",
            status,
            wrong=wrong,
            account=_account(request),
            problem=problem,
            sso=self.provider is not None,
            languages=[(language, language_name(language)) for language in languages()],
        )

    async def _factor_page(
        self, request: Request, account: Account, sealed: str, status: int = 200, *,
        wrong: Mapping[str, str] | None = None,
    ) -> Response:  # fmt: skip
        if not account.password:
            return await self._account_page(request, 400, problem=NO_PASSWORD)
        try:
            uri = self.accounts.factors.uri(sealed, address=account.address, issuer=ISSUER)
        except WrongSecret:
            return await self._factor_page(request, account, self.accounts.factors.new_secret(), status, wrong=wrong)
        plain = self.accounts.factors.unsealed(sealed)
        return await page(
            request, "second-factor.html", status, wrong=wrong, qr=qr_svg(uri), uri=uri, sealed=sealed, required=account.lacks_factor(self.required),
            secret=" ".join(plain[n : n + 4] for n in range(0, len(plain), 4)),
        )  # fmt: skip

    async def _password_is_right(self, account: Account, password: str) -> bool:
        """Return whether it is the account's password, asked for again. The attempts are limited: a person at an unlocked browser
        must not guess it."""
        if self.own.wait(account.account_id) > 0:
            return False
        self.own.take(account.account_id)
        try:
            right = await self.accounts.passwords.is_right(account.password, password)
        except TooManyHashes:
            return False
        if right:
            self.own.give_back(account.account_id)
        return right

    def _provider(self) -> Provider:
        assert self.provider is not None, "a route without a provider"
        return self.provider


def _account(request: Request) -> Account:
    """Return the account that is signed in. Raises NotSignedIn."""
    found: Account | None = request.state.account
    if found is None:
        raise NotSignedIn
    return found


def _policy_claims(request: Request) -> frozenset[str]:
    """Return the groups at the provider that the policy names for approvers; none if the policy cannot be read."""
    try:
        return frozenset().union(*services_of(request).in_force.claims.values())
    except StoreError:
        return frozenset()


def _text(request: Request, name: str) -> str:
    value = form(request).get(name, "")
    return value if isinstance(value, str) else ""
