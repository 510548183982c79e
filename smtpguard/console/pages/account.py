"""The pages for sign-in and sign-out, and for a person's own account: password, language, second factor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from smtpguard.accounts.model import Account
from smtpguard.console.people.credentials import BadPassword, NotPossible, WrongSecret, qr_svg
from smtpguard.console.people.middleware import Cookies, safe_path
from smtpguard.console.people.signing import (
    SIGN_ON_SECONDS,
    NotAuthenticated,
    Proven,
    SignedIn,
    SignInRefused,
    TooManyAttempts,
)
from smtpguard.console.rendering import form, page, see_other, services_of, speech
from smtpguard.console.services import NotSignedIn, Routes
from smtpguard.database.errors import StoreError
from smtpguard.locale import languages
from smtpguard.locale.phrase import N_, Said
from smtpguard.locale.speech import language_name
from smtpguard.mail.address import BadAddress

if TYPE_CHECKING:  # slow to import
    from smtpguard.console.people.oidc import Provider

MARK_SECONDS = 180 * 86400
"""How long a browser stays marked as its owner's."""
ISSUER = "smtpguard"
"""The name of the account in an authenticator."""
NO_PASSWORD = N_("This account has no password: it uses single sign-on.")

ROUTES = Routes()


# -- in and out


@ROUTES.get("/login", anyone=True)
async def login(request: Request) -> Response:
    then = safe_path(request.query_params.get("next"))
    if request.state.person is not None:
        return see_other(then)
    return await _login_page(
        request,
        then,
        said=next((each for each in ("changed", "ended", "link", "linked") if each in request.query_params), ""),
    )


@ROUTES.post("/login", anyone=True)
async def sign_in(request: Request) -> Response:
    then = safe_path(_text(request, "next"))
    try:
        done = await services_of(request).signing.by_password(
            _text(request, "address"),
            _text(request, "password"),
            _text(request, "code"),
            client=request.state.client,
            mark=request.state.cookies.read(request, "smtpguard-known"),
            before=request.state.token,
        )
    except SignInRefused:
        return await _login_page(request, then, 401, said="refused")
    except TooManyAttempts as wait:
        minutes = max(1, math.ceil(wait.seconds / 60))
        answer = await _login_page(request, then, 429, said="wait", minutes=minutes)
        answer.headers["retry-after"] = str(math.ceil(wait.seconds))
        return answer
    return _signed_in(request, done, then)


@ROUTES.post("/logout", anyone=True)
async def sign_out(request: Request) -> Response:
    if request.state.account is not None:
        await services_of(request).signing.sign_out(
            request.state.token, request.state.account, client=request.state.client
        )
    return _signed_out(request)


@ROUTES.get("/login/sso", anyone=True)
async def to_provider(request: Request) -> Response:
    then = safe_path(request.query_params.get("next"))
    if (where := await _begin_sign_on(request, then)) is None:
        return await _login_page(request, then, 503, said="no provider")
    return RedirectResponse(where, status_code=303)


async def _begin_sign_on(request: Request, then: str, *, moves: str = "") -> str | None:
    """Begin a sign-on. Nothing is stored: the browser gets the sealed state. Return the URL of the provider, None if it does
    not answer."""
    provider = _provider(request)
    try:
        where, sealed = await provider.begin(then, moves=moves)
    except NotAuthenticated as why:
        provider.away.report(why)
        return None
    provider.away.end()
    request.state.cookies.set("smtpguard-sso", sealed, seconds=SIGN_ON_SECONDS)
    return where


@ROUTES.post("/me/sso")
async def move(request: Request) -> Response:
    """Change from a password to single sign-on: the provider proves that it is the same person."""
    _provider(request)
    account = _account(request)
    if account.subject or not account.password:
        return await account_page(request, 409, problem=NO_PASSWORD)
    if (where := await _begin_sign_on(request, "/me", moves=account.account_id)) is None:
        problem = N_("Single sign-on does not answer. Try again, or sign in with a password.")
        return await account_page(request, 503, problem=problem)
    return await page(request, "to-provider.html", where=where)


async def _finish_move(request: Request, proven: Proven) -> Response:
    account = _account(request)
    try:
        same = services_of(request).accounts.canonical(proven.address) == account.address
    except BadAddress:
        same = False
    if not same:
        return await account_page(
            request, 409, problem=N_("Single sign-on has another address for you: nothing was changed.")
        )
    try:
        await services_of(request).accounts.to_single_sign_on(account, by=account.address, subject=proven.subject)
    except NotPossible as why:
        return await account_page(request, 409, problem=why.why)
    return _signed_out(request, linked="1")


@ROUTES.get("/login/sso/back", anyone=True)
async def returned(request: Request) -> Response:
    """Show a form that continues the sign-on: the provider redirects the browser here, and a GET must not sign anybody in."""
    _provider(request)
    given = {name: request.query_params.get(name, "")[:4000] for name in ("code", "state", "iss", "error")}
    return await page(request, "signing-back.html", given=given)


@ROUTES.post("/login/sso/back", anyone=True)
async def finish(request: Request) -> Response:
    provider = _provider(request)
    request.state.cookies.drop("smtpguard-sso")
    try:
        if error := _text(request, "error"):
            raise NotAuthenticated(f"the provider said {error[:60]!r}")
        sealed = request.state.cookies.read(request, "smtpguard-sso")
        proven, then, moves = await provider.finish(
            sealed, code=_text(request, "code"), state=_text(request, "state"), issuer=_text(request, "iss")
        )
        if moves:
            if request.state.account is None or request.state.account.account_id != moves:
                raise NotAuthenticated("the person who began the move is not signed in any more")
            return await _finish_move(request, proven)
        done = await services_of(request).signing.by_provider(
            proven,
            provider.roles(proven.groups),
            client=request.state.client,
            before=request.state.token,
            asked=_policy_claims(request),
        )
    except NotAuthenticated as why:
        provider.unproven.report(why)
        return await _login_page(request, "/", 401, said="not by provider")
    except SignInRefused:
        return await _login_page(request, "/", 401, said="not by provider")
    return _signed_in(request, done, safe_path(then))


# -- the own account


@ROUTES.post("/me/language")
async def language(request: Request) -> Response:
    account = _account(request)
    try:
        await services_of(request).accounts.set_language(account, _text(request, "language"))
    except NotPossible as why:
        return await account_page(request, 400, problem=why.why)
    return see_other("/me", done="done")


@ROUTES.post("/me/password")
async def password(request: Request) -> Response:
    account, new, said = _account(request), _text(request, "new"), speech(request)
    if not account.password:
        return await account_page(request, 400, problem=NO_PASSWORD)
    if not await services_of(request).signing.is_own_password(account, _text(request, "current")):
        return await account_page(request, 403, wrong={"current": said("That is not your password.")})
    if new != _text(request, "again"):
        return await account_page(request, 400, wrong={"again": said("The two new passwords are not the same.")})
    try:
        await services_of(request).accounts.set_password(account, new, by=account.address)
    except BadPassword as why:
        return await account_page(request, 400, wrong={"new": said.say(why.why)})
    return _signed_out(request, changed="1")


@ROUTES.get("/me/factor")
async def factor(request: Request) -> Response:
    account = _account(request)
    return await _factor_page(request, account, services_of(request).accounts.factors.new_secret())


@ROUTES.post("/me/factor")
async def confirm(request: Request) -> Response:
    account, sealed, said = _account(request), _text(request, "sealed"), speech(request)
    if not await services_of(request).signing.is_own_password(account, _text(request, "password")):
        return await _factor_page(request, account, sealed, 403, wrong={"password": said("That is not your password.")})
    try:
        codes = await services_of(request).accounts.confirm_factor(
            account, sealed, _text(request, "code"), by=account.address
        )
    except NotPossible as why:
        return await _factor_page(request, account, sealed, 400, wrong={"code": said.say(why.why)})
    request.state.cookies.drop("smtpguard")
    return await page(request, "recovery-codes.html", codes=codes)


@ROUTES.post("/me/factor/off")
async def factor_off(request: Request) -> Response:
    account, said = _account(request), speech(request)
    if not await services_of(request).signing.is_own_password(account, _text(request, "password")):
        return await account_page(request, 403, wrong={"password": said("That is not your password.")})
    if not services_of(request).signing.required.isdisjoint(account.roles):
        return await account_page(
            request, 409, problem=N_("Your role requires a second factor: set up another one instead.")
        )
    try:
        await services_of(request).accounts.drop_factor(account, by=account.address)
    except NotPossible as why:
        return await account_page(request, 400, problem=why.why)
    return _signed_out(request, changed="1")


# -- shared


async def _login_page(request: Request, then: str, status: int = 200, *, said: str, minutes: int = 0) -> Response:
    provider = services_of(request).provider
    title = provider.trusted.title if provider else ""
    return await page(
        request, "login.html", status, then=then, said=said, sso=provider is not None, sso_title=title,
        minutes=minutes, address=_text(request, "address"),
    )  # fmt: skip


def _signed_in(request: Request, done: SignedIn, then: str) -> Response:
    cookies: Cookies = request.state.cookies
    cookies.set("smtpguard", done.token)
    cookies.set("smtpguard-known", done.mark, seconds=MARK_SECONDS)
    return see_other(then)


def _signed_out(request: Request, **why: str) -> Response:
    request.state.cookies.drop("smtpguard")
    return see_other("/login", **why)


@ROUTES.get("/me")
async def account_page(
    request: Request, status: int = 200, *, problem: Said = "", wrong: Mapping[str, str] | None = None
) -> Response:
    return await page(
        request,
        "me.html",
        status,
        wrong=wrong,
        account=_account(request),
        problem=problem,
        sso=services_of(request).provider is not None,
        languages=[(language, language_name(language)) for language in languages()],
    )


async def _factor_page(
    request: Request, account: Account, sealed: str, status: int = 200, *,
    wrong: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    if not account.password:
        return await account_page(request, 400, problem=NO_PASSWORD)
    try:
        uri = services_of(request).accounts.factors.uri(sealed, address=account.address, issuer=ISSUER)
    except WrongSecret:
        return await _factor_page(
            request, account, services_of(request).accounts.factors.new_secret(), status, wrong=wrong
        )
    plain = services_of(request).accounts.factors.unsealed(sealed)
    return await page(
        request, "second-factor.html", status, wrong=wrong, qr=qr_svg(uri), uri=uri, sealed=sealed, required=account.lacks_factor(services_of(request).signing.required),
        secret=" ".join(plain[n : n + 4] for n in range(0, len(plain), 4)),
    )  # fmt: skip


def _provider(request: Request) -> Provider:
    found = services_of(request).provider
    if found is None:
        raise HTTPException(404)
    return found


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
