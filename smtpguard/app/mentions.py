"""What is said outside comes in: feeds that are read every so often, and the signed requests of media monitoring."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from smtpguard.app.files import webhook_secret
from smtpguard.config.listeners import Feed
from smtpguard.config.settings import Settings
from smtpguard.database.errors import StoreError
from smtpguard.journal.clock import Clock
from smtpguard.observe.webhooks import HEADER, genuine
from smtpguard.returns.model import Mention, of_feed, of_request
from smtpguard.returns.service import NotFetched, fetch

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

log = logging.getLogger(__name__)

PATH = "/api/mentions"
MOST_BODY = 256 << 10
PARSE_SECONDS = 20.0

Take = Callable[[Sequence[Mention]], Awaitable[int]]
Get = Callable[[str], Awaitable[tuple[bytes, str]]]


class Feeds:
    """Of the settings. ``take``: stores what is new."""

    def __init__(self, settings: Settings, take: Take, clock: Clock, *, get: Get = fetch) -> None:
        self._settings, self._take, self._clock, self._get = settings, take, clock, get

    async def read(self) -> None:
        """All of them once. One that cannot be read says so in the log, and the others are read. Raises StoreError."""
        try:
            import feedparser  # noqa: F401 - an extra
        except ImportError:
            log.error("mentions: feeds are not read without feedparser: pip install smtpguard[feeds]")
            return
        for feed in self._settings.mentions.feeds:
            try:
                await self._take(await self._one(feed))
            except NotFetched as why:
                log.warning("mentions: the feed %s cannot be read: %s", feed.name, why)

    async def _one(self, feed: Feed) -> list[Mention]:
        body, kind = await self._get(feed.url)
        try:
            async with asyncio.timeout(PARSE_SECONDS):
                found = await asyncio.to_thread(_parsed, body, kind)
        except TimeoutError:
            raise NotFetched("it takes too long to read") from None
        except Exception as error:  # whatever a feed makes of the library
            raise NotFetched(f"it is no feed ({type(error).__name__})") from None
        made = of_feed(feed.name, found, self._clock.now())
        if not made and found.get("bozo"):
            raise NotFetched("it is no feed")
        return made


def _parsed(body: bytes, kind: str) -> Any:
    """Octets alone: what looks like an address is never fetched."""
    import io

    import feedparser

    return feedparser.parse(io.BytesIO(body), response_headers={"content-type": kind} if kind else {})


def routes(settings: Settings, take: Take, clock: Clock) -> list[BaseRoute]:
    """Where media monitoring sends what it finds; none where the settings name nobody. Raises CannotStart."""
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
