"""Take mentions from outside: fetch feeds, and serve the webhook of media monitoring.

Feeds are fetched from the hosts that the settings name and nowhere else, bounded in octets and time. A name is resolved once, every
address of it is checked, and the connection goes to a checked address, so that no later answer of DNS leads elsewhere. Redirects are
not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from smtpguard.app.files import webhook_secret
from smtpguard.config.settings import Settings
from smtpguard.config.web import Feed
from smtpguard.database.errors import StoreError
from smtpguard.journal.clock import Clock
from smtpguard.observe.webhooks import HEADER, genuine
from smtpguard.returns.mentions import Mention, of_request

if TYPE_CHECKING:
    import ssl

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

log = logging.getLogger(__name__)

PATH = "/api/mentions"
MOST_BODY = 256 << 10
PARSE_SECONDS = 20.0
PARSER = (sys.executable, "-P", "-m", "smtpguard.returns")
MOST_OCTETS = 2 << 20
FETCH_SECONDS = 20.0
_TCP = 6  # getaddrinfo's protocol
_EMBEDDING = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("::/96"),
)

Take = Callable[[Sequence[Mention]], Awaitable[int]]
Get = Callable[[str], Awaitable[tuple[bytes, str]]]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotFetched(Exception):
    """A feed could not be fetched. The message says why, in a phrase."""


async def resolved(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=_TCP)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def is_public(address: str) -> bool:
    """Return whether an IP address is public. An address that embeds another (RFC 4291, RFC 6052, RFC 3056, RFC 4380) is public
    only if it is IPv4-mapped and the IPv4 address is."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None or any(ip in network for network in _EMBEDDING):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def fetch(
    url: str,
    *,
    resolve: Resolve = resolved,
    allowed: Callable[[str], bool] = is_public,
    most: int = MOST_OCTETS,
    seconds: float = FETCH_SECONDS,
    verify: ssl.SSLContext | None = None,
) -> tuple[bytes, str]:
    """Fetch a feed. Returns its body and Content-Type. ``allowed``: says whether an address may be connected to. Raises
    NotFetched."""
    import httpx2

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    if parts.scheme != "https" or not host:
        raise NotFetched("it is no https url")
    try:
        async with asyncio.timeout(seconds):
            addresses = await resolve(host, port)
            if not addresses or not all(map(allowed, addresses)):
                raise NotFetched("its name leads to an address that is not public")
            chosen = addresses[0]
            literal = f"[{chosen}]" if ":" in chosen else chosen
            there = urlunsplit(("https", f"{literal}:{port}", parts.path or "/", parts.query, ""))
            options: dict[str, Any] = {"verify": verify} if verify is not None else {}
            async with httpx2.AsyncClient(
                timeout=seconds, follow_redirects=False, trust_env=False, **options
            ) as client:
                headers = {
                    "Host": parts.netloc.rpartition("@")[2],
                    "User-Agent": "smtpguard",
                    "Accept-Encoding": "identity",
                }
                async with client.stream("GET", there, headers=headers, extensions={"sni_hostname": host}) as answer:
                    if answer.status_code != 200:
                        raise NotFetched(f"it answers {answer.status_code}")
                    if answer.headers.get("content-encoding", "identity").lower() != "identity":
                        raise NotFetched("it is packed, which was not asked for")
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > most:
                            raise NotFetched(f"it is larger than {most >> 10} KiB")
                    return bytes(body), answer.headers.get("content-type", "")
    except TimeoutError:
        raise NotFetched("no answer in time") from None
    except OSError as error:
        raise NotFetched(error.strerror or type(error).__name__) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise NotFetched(type(error).__name__) from None


class Feeds:
    """The feeds in the settings. ``take``: stores mentions, and returns how many were new; ``get``: fetches a URL."""

    def __init__(
        self, settings: Settings, take: Take, clock: Clock, *, get: Get = fetch, parse_seconds: float = PARSE_SECONDS
    ) -> None:
        self._settings, self._take, self._clock, self._get = settings, take, clock, get
        self._parse_seconds = parse_seconds

    async def read(self) -> None:
        """Read all feeds once. A feed that cannot be read is logged, and the others are read. Raises StoreError."""
        if importlib.util.find_spec("feedparser") is None:  # an extra
            log.error("mentions: feeds are not read without feedparser: pip install smtpguard[feeds]")
            return
        for feed in self._settings.mentions.feeds:
            try:
                await self._take(await self._one(feed))
            except NotFetched as why:
                log.warning("mentions: the feed %s cannot be read: %s", feed.name, why)

    async def _one(self, feed: Feed) -> list[Mention]:
        body, kind = await self._get(feed.url)
        head = {"kind": kind, "source": feed.name, "now": self._clock.now().isoformat()}
        answer = await self._parsed(json.dumps(head).encode() + b"\n" + body)
        return [Mention(**{**one, "at": datetime.fromisoformat(one["at"])}) for one in json.loads(answer)]

    async def _parsed(self, request: bytes) -> bytes:
        """Parse a feed in a process that can be killed: what is hostile in one can take a library hours."""
        try:
            process = await asyncio.create_subprocess_exec(
                *PARSER,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise NotFetched(error.strerror or type(error).__name__) from None
        try:
            async with asyncio.timeout(self._parse_seconds):
                answer, _ = await process.communicate(request)
        except TimeoutError:
            raise NotFetched("it takes too long to read") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode:
            raise NotFetched("it is no feed")
        return answer


def routes(settings: Settings, take: Take, clock: Clock) -> list[BaseRoute]:
    """Return the route of the webhook, none if the settings have no webhook. Raises CannotStart."""
    wanted = settings.mentions.webhook
    if wanted is None:
        return []
    secret = webhook_secret(wanted.secret_file)

    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def problem(status: int, text: str) -> Response:
        return JSONResponse({"problem": text}, status_code=status)

    async def endpoint(request: Request) -> Response:
        body = bytearray()
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BODY:
                    return problem(413, f"at most {MOST_BODY} octets")
        except ClientDisconnect:
            return problem(400, "it was cut off")
        now = clock.now()
        if not genuine(secret, request.headers.get(HEADER, ""), bytes(body), int(now.timestamp())):
            return problem(401, f"{HEADER} is not right")
        try:
            found = of_request(wanted.name, json.loads(body), now)
        except (ValueError, RecursionError) as why:
            return problem(422, str(why)[:200])
        try:
            new = await take(found)
        except StoreError as error:
            return problem(503, f"nothing was stored: {type(error).__name__}")
        return JSONResponse({"new": new})

    return [Route(PATH, endpoint, methods=["POST"])]
