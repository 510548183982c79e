"""The middleware that every request passes before a page, and every response after it.

On the way in, the host must be right (421). The session authenticates the person; under /mine/ the signed link in the path
does. A request other than GET or HEAD must come from our own form: its token is bound to the session, and Origin and
Sec-Fetch-Site are checked if the browser sends them. On the way out, the middleware sets the security headers that the page
has not set itself. Requests of the API carry their own credentials: their cookies are not read.

A page finds in ``request.state``: ``person`` (None if nobody is signed in), ``account``, ``link``, ``csrf``, ``form``
(of a POST, read once here), ``client``, ``token``.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import FormData, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smtpguard.accounts.model import Account, Role
from smtpguard.console import rendering
from smtpguard.console.people.sessions import Sessions
from smtpguard.console.services import Person
from smtpguard.database.errors import CommitUnknown, PolicyUnreadable, StoreError
from smtpguard.journal.clock import Clock
from smtpguard.mail.envelope import client_address, within
from smtpguard.notices.links import Links

log = logging.getLogger(__name__)

API = "/api/"
STATIC = "/static/"
MINE = "/mine/"
REFRESH = "hx-request"  # htmx sets it on each of its requests; here those are pages that refresh themselves
SAFE = frozenset({"GET", "HEAD"})
MOST_FIELDS = 2000
"""The most fields of one form."""
MOST_PART = 64 << 20
"""The most octets of one field. A message to try may be as large as a held one."""
MOST_FORM = 80 << 20
"""The most octets of a form from a person who is signed in."""
MOST_FROM_NOBODY = 64 << 10
"""The most octets of a form without a session: there are only short ones."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a browser sends "Origin: null" with our own forms
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The console's address for browsers.

    ``url``: without a final slash. ``hosts``: every valid Host. ``proxies``: the networks that may name the client
    (X-Forwarded-For). ``secure``: whether it is HTTPS. ``origins``: every valid Origin.
    """

    url: str
    hosts: frozenset[str] = frozenset()
    proxies: Sequence[IPv4Network | IPv6Network] = ()
    secure: bool = field(init=False)
    origins: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        usual = {"https": ":443", "http": ":80"}.get(parts.scheme, "")  # browsers leave it out (RFC 9110 section 7.2)
        hosts = frozenset(h.lower().removesuffix(usual) for h in {*self.hosts, parts.netloc})
        object.__setattr__(self, "secure", parts.scheme == "https")
        object.__setattr__(self, "hosts", hosts)
        object.__setattr__(self, "origins", frozenset(f"{parts.scheme}://{host}" for host in hosts))

    def cookie(self, name: str) -> str:
        """Return the full name of a cookie. With the prefix, browsers accept it only from this host, and only over HTTPS
        (RFC 6265bis section 4.1.3)."""
        return f"__Host-{name}" if self.secure else name

    def client(self, scope: Scope) -> str:
        """Return the client's address, "" for none; behind our proxies, the last address that is not one of them."""
        peer = (scope.get("client") or ("", 0))[0]
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        for address in [*reversed(forwarded.split(",")), ""] if forwarded else []:
            if not within(peer, self.proxies) or not address.strip():
                break
            peer = address.strip()
        return peer if client_address(peer) is not None else ""


class ConsoleMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        *,
        site: Site,
        sessions: Sessions,
        links: Links,
        clock: Clock,
        secret: bytes,
        required: frozenset[Role] = frozenset(),
    ) -> None:
        """``required``: the roles that need a second factor when signing in with a password."""
        self._app = app
        self._site, self._sessions, self._links, self._clock = site, sessions, links, clock
        self._key = hmac.digest(secret, b"smtpguard console form token", "sha256")
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        cookies = Cookies(self._site)
        scope["state"] = {**scope.get("state", {}), "cookies": cookies}

        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._finish(scope, message, cookies)
            await send(message)

        try:
            try:
                refused = await self._admit(scope, receive, cookies)
            except StoreError as error:
                refused = await _failed(Request(scope, receive), error)
                refused.headers["retry-after"] = "5"
            await (refused or self._app)(scope, receive, sending)
        except ClientDisconnect:  # nobody is left to be answered
            pass
        except Exception as error:
            if begun:
                raise
            await (await _failed(Request(scope, receive), error))(scope, receive, sending)
        finally:
            await scope["state"].get("form", FormData()).close()  # else an uploaded file stays open

    async def _admit(self, scope: Scope, receive: Receive, cookies: Cookies) -> Response | None:
        """Fill the state. Return an answer if the request must not go on."""
        request, state = Request(scope, receive), scope["state"]
        state |= {"person": None, "account": None, "link": None, "csrf": "", "token": "", "form": FormData(), "how": "",
                  "client": self._site.client(scope)}  # fmt: skip
        if request.headers.get("host", "").lower() not in self._site.hosts:
            return PlainTextResponse(f"There is no such host here: the console is at {self._site.url}\n", 421)
        if {"content-length", "transfer-encoding"} <= set(request.headers):  # only one holds: RFC 9112 section 6.3
            return PlainTextResponse("A request has one length\n", 400, {"connection": "close"})
        if request.url.path.startswith(API):
            return None
        if has_nul(scope):
            return PlainTextResponse("No address has a NUL\n", 400)
        if request.url.path.startswith(STATIC):
            return None
        await self._authenticate(request, state)
        if state["token"]:
            state["csrf"] = self._form_token(f"session {state['token']}")
        else:
            visit = cookies.read(request, "smtpguard-visit")
            if not visit or len(visit) > 100:
                visit = secrets.token_urlsafe(16)
                cookies.set("smtpguard-visit", visit)
            state["csrf"] = self._form_token(f"visit {visit}")
        if self._must_set_up(request, state):
            return rendering.see_other("/me/factor")
        if request.method in SAFE:
            return None
        return await self._read_form(request, state)

    async def _authenticate(self, request: Request, state: dict[str, Any]) -> None:
        """Put the person into the state: by the signed link under /mine/, else by the session's cookie."""
        path = request.url.path
        if path.startswith(MINE):
            link = self._links.read(path[len(MINE) :].partition("/")[0], self._clock.now())
            if link is not None:
                state |= {"link": link, "person": Person(address=link.address)}
            return
        token = state["cookies"].read(request, "smtpguard")
        refreshes_itself = request.headers.get(REFRESH) == "true"  # this shows no activity of the person
        found = await self._sessions.find(token, active=not refreshes_itself) if 0 < len(token) <= 100 else None
        if found is not None:
            state |= {"token": token, "account": found[1], "person": Person.of(found[1]), "how": found[0].how}

    async def _read_form(self, request: Request, state: dict[str, Any]) -> Response | None:
        """Read the form into the state. Return an answer unless it is one of our forms, sent by the person it was shown to."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if (origin is not None and origin.lower() not in self._site.origins) or site not in (None, "same-origin"):
            return await _refused(request, 403)
        length = request.headers.get("content-length", "")
        most = MOST_FORM if state["account"] is not None else MOST_FROM_NOBODY
        if not length.isdecimal() or len(length) > 12 or int(length) > most:
            return await _refused(request, 413 if length else 411)
        try:
            state["form"] = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_PART)
        except HTTPException as error:
            return await _refused(request, error.status_code)
        if any("\0" in text for item in state["form"].multi_items() for text in item if isinstance(text, str)):
            return PlainTextResponse("A field must not contain a NUL\n", 400)
        token = request.headers.get("x-csrf-token") or state["form"].get("csrf") or ""
        if not isinstance(token, str) or not hmac.compare_digest(token.encode(), state["csrf"].encode()):
            if request.url.path.startswith(("/login", "/logout", MINE)):
                return await _refused(request, 403)
            if state["account"] is None:
                return rendering.see_other("/login", next=self._came_from(request), ended="1")
            return await rendering.page(request, "error.html", 403, problem="earlier", back=self._came_from(request))
        return None

    def _came_from(self, request: Request) -> str:
        """Return the path of the page with the form. The browser keeps what was typed there (console.js)."""
        parts = urlsplit(request.headers.get("referer", ""))
        ours = f"{parts.scheme}://{parts.netloc}".lower() in self._site.origins
        return safe_path(parts.path + (f"?{parts.query}" if parts.query else "")) if ours else "/"

    def _must_set_up(self, request: Request, state: dict[str, Any]) -> bool:
        """Return whether the person must set up a second factor, which their role needs, before any other page is allowed."""
        account: Account | None = state["account"]
        if account is None or state["how"] != "password" or not account.lacks_factor(self._required):
            return False
        return not request.url.path.startswith(("/me/factor", "/me/language", "/logout"))

    def _form_token(self, bound_to: str) -> str:
        return hmac.new(self._key, bound_to.encode(), "sha256").hexdigest()[:40]

    def _finish(self, scope: Scope, message: Message, cookies: Cookies) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        for name, value in HEADERS.items():
            if name == "cache-control" and scope["path"].startswith(STATIC):
                continue
            headers.setdefault(name, value)
        if self._site.secure:
            headers.setdefault("strict-transport-security", "max-age=31536000")
        for line in cookies.lines:
            headers.append("set-cookie", line)


class Cookies:
    """The cookies of a request, and those to set with the answer; a page has them as ``request.state.cookies``."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.lines: list[str] = []

    def read(self, request: Request, name: str) -> str:
        return request.cookies.get(self._site.cookie(name), "")

    def set(self, name: str, value: str, *, seconds: int | None = None) -> None:
        """Set a cookie for this host only, which scripts cannot read. Browsers send it when a person follows a link to us, but
        not with another site's form."""
        life = "" if seconds is None else f"; Max-Age={seconds}"
        secure = "; Secure" if self._site.secure else ""
        self.lines.append(f"{self._site.cookie(name)}={value}; Path=/{life}; HttpOnly; SameSite=Lax{secure}")

    def drop(self, name: str) -> None:
        self.set(name, "", seconds=0)


def has_nul(scope: Scope) -> bool:
    """Return whether a path or query has a NUL. Nothing has such a name, and PostgreSQL refuses it."""
    return "\0" in scope["path"] or b"%00" in scope["query_string"]


def safe_path(wanted: object) -> str:
    """Return ``wanted`` if it is a path of ours to go on to, and "/" if it might lead elsewhere."""
    if not isinstance(wanted, str) or not wanted.startswith("/") or wanted.startswith(("//", "/\\")):
        return "/"
    if len(wanted) > 500 or "\\" in wanted or not wanted.isascii() or not wanted.isprintable():
        return "/"
    parts = urlsplit(wanted)
    return "/" if parts.scheme or parts.netloc or parts.path.startswith(("/login", "/logout", "//")) else wanted


async def _refused(request: Request, status: int) -> Response:
    return await rendering.page(request, "error.html", status, problem=status)


async def _failed(request: Request, error: Exception) -> Response:
    """Return an error page. A page that could not be journalled is not shown. After an error of our own it is not known
    whether something was done before it."""
    kind = request.url.path.split("/")[1]  # the rest may be a signed link
    if isinstance(error, PolicyUnreadable):
        log.warning("/%s: %s", kind, error)
        return await rendering.page(request, "error.html", 503, problem="policy")
    if isinstance(error, CommitUnknown):
        log.warning("/%s: the store: it is not known whether it was written", kind)
        return await rendering.page(request, "error.html", 503, problem="unknown")
    if isinstance(error, StoreError):
        log.warning("/%s: the store: %s", kind, error)
        return await _refused(request, 503)
    log.error("/%s failed: %s", kind, type(error).__name__, exc_info=error)
    return await _refused(request, 500)
