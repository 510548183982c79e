"""The middleware that every request passes before a page, and every response after it.

In: the host must be right (421). The session authenticates the person; under /mine/ the signed link in the path does. A
request other than GET or HEAD must come from our own form: its token is bound to the session, and Origin and
Sec-Fetch-Site are checked where a browser sends them. Out: the security headers that the page has not set itself.
Requests of the API carry their own credentials and pass without a look at cookies. Beside it: the limit of attempts.

A page finds in ``request.state``: ``person`` (None if nobody is signed in), ``account``, ``link``, ``csrf``, ``form``
(of a POST, read once here), ``client``, ``token``.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import FormData, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smtpguard.accounts.model import Account, Role, Session
from smtpguard.config.web import ConsoleSession
from smtpguard.console import rendering
from smtpguard.console.services import Person
from smtpguard.database.errors import CommitUnknown, PolicyUnreadable, StoreError
from smtpguard.journal.clock import Clock
from smtpguard.mail.envelope import client_address, within
from smtpguard.notices.links import Links
from smtpguard.store.nouns import People

log = logging.getLogger(__name__)

API = "/api/"
STATIC = "/static/"
MINE = "/mine/"
REFRESH = "hx-request"  # htmx sets it on each of its requests; here those are pages that refresh themselves
SAFE = frozenset({"GET", "HEAD"})
MOST_FIELDS = 2000
MOST_PART = 64 << 20  # octets of one field; a message to try may be as large as a held one
MOST_FORM = 80 << 20
MOST_FROM_NOBODY = 64 << 10  # without a session there are only short forms

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
    """The console's address for browsers. ``url``: without a final slash. ``hosts``: every valid Host. ``proxies``: who
    may name the client (X-Forwarded-For)."""

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
        """With the prefix browsers accept it only from this host, and only over HTTPS (RFC 6265bis section 4.1.3)."""
        return f"__Host-{name}" if self.secure else name

    def client(self, scope: Scope) -> str:
        """The client's address; behind our proxies, the last address that is not one of them."""
        peer = (scope.get("client") or ("", 0))[0]
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        for address in [*reversed(said.split(",")), ""] if said else []:
            if not within(peer, self.proxies) or not address.strip():
                break
            peer = address.strip()
        return peer if client_address(peer) is not None else ""


class ConsoleMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        *,
        place: Site,
        sessions: Sessions,
        links: Links,
        clock: Clock,
        secret: bytes,
        required: frozenset[Role] = frozenset(),
    ) -> None:
        """``required``: the roles that need a second factor when signing in with a password."""
        self._app = app
        self._place, self._sessions, self._links, self._clock = place, sessions, links, clock
        self._key = hmac.digest(secret, b"smtpguard console form token", "sha256")
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        cookies = Cookies()
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
        """Fills the state; returns an answer if the request must not go on."""
        request, state = Request(scope, receive), scope["state"]
        state |= {"person": None, "account": None, "link": None, "csrf": "", "token": "", "form": FormData(), "how": "",
                  "client": self._place.client(scope)}  # fmt: skip
        if request.headers.get("host", "").lower() not in self._place.hosts:
            return PlainTextResponse(f"There is no such host here: the console is at {self._place.url}\n", 421)
        if request.url.path.startswith(API):
            return None
        if has_nul(scope):
            return PlainTextResponse("No address has a NUL\n", 400)
        if request.url.path.startswith(STATIC):
            return None
        given = request.cookies
        await self._who(request, given, state)
        if state["token"]:
            state["csrf"] = self._proof(f"session {state['token']}")
        else:
            visit = given.get(self._place.cookie("smtpguard-visit"), "")
            if not visit or len(visit) > 100:
                visit = secrets.token_urlsafe(16)
                cookies.set(self._place, "smtpguard-visit", visit)
            state["csrf"] = self._proof(f"visit {visit}")
        if self._must_set_up(request, state):
            return rendering.see_other("/me/factor")
        if request.method in SAFE:
            return None
        return await self._proven(request, state)

    async def _who(self, request: Request, given: Mapping[str, str], state: dict[str, Any]) -> None:
        path = request.url.path
        if path.startswith(MINE):
            link = self._links.read(path[len(MINE) :].partition("/")[0], self._clock.now())
            if link is not None:
                state |= {"link": link, "person": Person(address=link.address)}
            return
        token = given.get(self._place.cookie("smtpguard"), "")
        looks_again = request.headers.get(REFRESH) == "true"  # by itself, which shows no activity of the person
        found = await self._sessions.find(token, active=not looks_again) if 0 < len(token) <= 100 else None
        if found is not None:
            state |= {"token": token, "account": found[1], "person": Person.of(found[1]), "how": found[0].how}

    async def _proven(self, request: Request, state: dict[str, Any]) -> Response | None:
        """Check that one of our forms was sent by the person it was shown to."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if (origin is not None and origin.lower() not in self._place.origins) or site not in (None, "same-origin"):
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
        told = request.headers.get("x-csrf-token") or state["form"].get("csrf") or ""
        if not isinstance(told, str) or not hmac.compare_digest(told.encode(), state["csrf"].encode()):
            if state["account"] is None and not request.url.path.startswith(("/login", "/logout", MINE)):
                return rendering.see_other("/login", next=self._came_from(request), ended="1")
            return await _refused(request, 403)
        return None

    def _came_from(self, request: Request) -> str:
        """The page with the form. The browser keeps what was typed there (console.js)."""
        parts = urlsplit(request.headers.get("referer", ""))
        there = f"{parts.scheme}://{parts.netloc}".lower() in self._place.origins
        return safe_path(parts.path + (f"?{parts.query}" if parts.query else "")) if there else "/"

    def _must_set_up(self, request: Request, state: dict[str, Any]) -> bool:
        """Whether the person's role needs a second factor and they have none: then no other page is allowed."""
        account: Account | None = state["account"]
        if account is None or state["how"] != "password" or not account.lacks_factor(self._required):
            return False
        return not request.url.path.startswith(("/me/factor", "/me/language", "/logout", STATIC))

    def _proof(self, of: str) -> str:
        return hmac.new(self._key, of.encode(), "sha256").hexdigest()[:40]

    def _finish(self, scope: Scope, message: Message, cookies: Cookies) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        for name, value in HEADERS.items():
            if name == "cache-control" and scope["path"].startswith(STATIC):
                continue
            headers.setdefault(name, value)
        if self._place.secure:
            headers.setdefault("strict-transport-security", "max-age=31536000")
        for line in cookies.lines:
            headers.append("set-cookie", line)


class Cookies:
    """Cookies to set with the answer; a page has them as ``request.state.cookies``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def set(self, place: Site, name: str, value: str, *, seconds: int | None = None) -> None:
        """For this host only, without access by scripts; sent when a person follows a link to us, but not with another
        site's form."""
        life = "" if seconds is None else f"; Max-Age={seconds}"
        secure = "; Secure" if place.secure else ""
        self.lines.append(f"{place.cookie(name)}={value}; Path=/{life}; HttpOnly; SameSite=Lax{secure}")

    def drop(self, place: Site, name: str) -> None:
        self.set(place, name, "", seconds=0)


def has_nul(scope: Scope) -> bool:
    """Nothing has such a name, and PostgreSQL refuses it."""
    return "\0" in scope["path"] or b"%00" in scope["query_string"]


def safe_path(wanted: object) -> str:
    """A path of ours to go on to; "/" for anything that might lead elsewhere."""
    if not isinstance(wanted, str) or not wanted.startswith("/") or wanted.startswith(("//", "/\\")):
        return "/"
    if len(wanted) > 500 or "\\" in wanted or not wanted.isascii() or not wanted.isprintable():
        return "/"
    parts = urlsplit(wanted)
    return "/" if parts.scheme or parts.netloc or parts.path.startswith(("/login", "/logout", "//")) else wanted


async def _refused(request: Request, status: int) -> Response:
    return await rendering.page(request, "error.html", status, problem=status)


async def _failed(request: Request, error: Exception) -> Response:
    """An error page with all headers. A page that could not be journalled is not shown. After an error of our own it is
    not known whether something was done before it."""
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


WRITE_SECONDS = 60.0


class Sessions:
    """By a token that only the browser has. Viewing a page writes nothing to the store: the time of last use is kept in
    memory and written every minute, so a killed process loses at most a minute of it."""

    def __init__(self, people: People, clock: Clock, lifetimes: ConsoleSession) -> None:
        """``lifetimes``: ``idle``: since the last request; ``longest``: since signing in, whatever happens."""
        self._people, self._clock = people, clock
        self._idle, self._longest = timedelta(seconds=lifetimes.idle), timedelta(seconds=lifetimes.longest)
        self._seen: dict[str, datetime] = {}

    def made(self, account_id: str, *, how: str) -> tuple[str, Session]:
        """A new token, and the session to store for it."""
        token, now = secrets.token_urlsafe(32), self._clock.now()
        return token, Session(token=hashed(token), account_id=account_id, started_at=now, seen_at=now, how=how)

    async def find(self, token: str, *, active: bool = True) -> tuple[Session, Account] | None:
        """The session of this token, with its account. ``active``: a person made the request; a page that refreshes
        itself does not keep a session alive. Raises StoreError."""
        key = hashed(token)
        found = await self._people.session(key)
        if found is None:
            self._seen.pop(key, None)
            return None
        session, account = found
        now = self._clock.now()
        seen = max(session.seen_at, self._seen.get(key, session.seen_at))
        if account.disabled or now >= session.started_at + self._longest or now >= seen + self._idle:
            return None
        if not active:
            return session, account
        self._seen[key] = now
        return replace(session, seen_at=now), account

    async def write(self) -> None:
        """Write the times of last use, and delete ended sessions. Raises StoreError; then nothing is lost."""
        seen, now = dict(self._seen), self._clock.now()
        await self._people.seen(seen, started_before=now - self._longest, seen_before=now - self._idle)
        for token, at in seen.items():
            if self._seen.get(token) == at:
                del self._seen[token]


def hashed(token: str) -> str:
    """The stored hash. A token is random enough to need no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


MOST_KEYS = 20_000


class RateLimit:
    """``most`` attempts in ``seconds`` for each key, in a sliding window, bounded in memory. Each console process has its
    own, lost when it ends: they slow down guessing, and prove nothing. A refused attempt does not count, so clients that keep trying do
    not delay those that wait."""

    def __init__(self, clock: Clock, *, most: int, seconds: float) -> None:
        self._clock, self._most, self._seconds = clock, most, seconds
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until this key may try, 0 for now."""
        tries = self._of(key)
        return 0.0 if len(tries) < self._most else tries[0] + self._seconds - self._clock.monotonic()

    def take(self, key: str) -> None:
        """Count an attempt before its result is known, so that many at once gain nothing."""
        tries = self._tries[key] = self._of(key)
        tries.append(self._clock.monotonic())
        self._tries.move_to_end(key)
        while len(self._tries) > MOST_KEYS:
            self._tries.popitem(last=False)

    def give_back(self, key: str) -> None:
        """The attempt was right, and does not count."""
        tries = self._tries.get(key)
        if tries:
            tries.pop()

    def _of(self, key: str) -> deque[float]:
        tries = self._tries.get(key) or deque()  # kept only once it counts: a refused client may name any account
        end = self._clock.monotonic() - self._seconds
        while tries and tries[0] <= end:
            tries.popleft()
        return tries
