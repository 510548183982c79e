"""Deliver journal entries to webhooks: in the journal's order, each until it is accepted, with growing pauses.

An entry that a hook does not accept for a day, or answers 410 to, is given up: that is journalled, and the hook goes on
with the next. A new hook begins with the entries from now on. There is one lease for each hook: several nodes share the
work, and a node that was too slow cannot move the cursor.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from smtpguard import __version__
from smtpguard.database.access import Clock
from smtpguard.database.errors import StoreError
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Event, Kind
from smtpguard.observe.webhooks.payload import (
    KINDS,
    Allowed,
    Cursor,
    Format,
    News,
    Told,
    Topic,
    payload,
    shaped,
    topic_of,
)
from smtpguard.observe.webhooks.rows import Cursors

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
ERROR_SECONDS = 60.0  # after an internal error
LEASE_SECONDS = 120.0
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 3600.0
GIVE_UP = timedelta(days=1)
SCAN = 200  # entries read at once
BEHIND_SECONDS = 600.0  # from this age on it is logged


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """``name``: of its cursor, shown to people. ``secret``: for the signature."""

    name: str
    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    topics: frozenset[Topic]
    allowed: Allowed = field(default_factory=Allowed)
    form: Format = Format.JSON

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for topic in Topic if topic in self.topics for kind in KINDS[topic])


class Dispatcher:
    """For all hooks of an installation. ``tell`` raises the store's errors, and no error of a hook."""

    def __init__(self, hooks: Sequence[Hook], cursors: Cursors, sender: Sender, clock: Clock) -> None:
        self._hooks = tuple(hooks)
        self._cursors, self._sender, self._clock = cursors, sender, clock
        self._said: dict[str, datetime] = {}  # when it was last logged that a hook is behind

    async def run(self) -> None:
        """Never returns. While the store is unavailable it waits."""
        async with asyncio.TaskGroup() as tasks:
            for hook in self._hooks:
                tasks.create_task(self._serve(hook))

    async def _serve(self, hook: Hook) -> None:
        while True:
            try:
                told = await self.tell(hook)
            except StoreError as error:
                log.warning("webhook %s: the store does not answer: %s", hook.name, type(error).__name__)
                told = 0
            except Exception:  # an internal error must stop neither mail nor the other hooks
                log.exception("webhook %s", hook.name)
                await asyncio.sleep(ERROR_SECONDS)
                continue
            if not told:
                await asyncio.sleep(POLL_SECONDS)

    async def tell(self, hook: Hook) -> int:
        """Send it what is due; returns the number of entries that are done."""
        place, now = await self._cursors.at(hook.name), self._clock.now()
        if place.next_at is not None and now < place.next_at:
            return 0
        while not (wanted := self._wanted(hook, news := await self._cursors.news(place.told, hook.kinds, SCAN))):
            if news.through > place.told:
                if not await self._cursors.pass_over(hook.name, place, news.through):
                    return 0
                place = Cursor(told=news.through, lease=place.lease)
            if news.through >= news.end:
                return 0
        self._say_how_far(hook, place, wanted[0][0], news, now)
        leased = await self._cursors.lease(hook.name, place, now + timedelta(seconds=LEASE_SECONDS))
        return await self._told(hook, leased, wanted, news.through) if leased is not None else 0

    async def _told(self, hook: Hook, place: Cursor, wanted: Told, through: int) -> int:
        """One after the other, each settled before the next is sent."""
        taken = 0
        for entry, clear in wanted:
            place = await self._one(hook, place, entry, clear)
            if place.told < entry.seq:  # it was not accepted, or the lease is lost
                return taken
            taken += 1
        await self._cursors.settle(hook.name, Cursor(told=max(place.told, through), lease=place.lease))
        return taken

    async def _one(self, hook: Hook, place: Cursor, entry: Entry, clear: Clear | None) -> Cursor:
        answered = await self._sent(hook, entry, clear)
        now = self._clock.now()
        since = place.failing_since or now
        events: tuple[Event, ...] = ()
        after = Cursor(told=entry.seq, lease=place.lease)
        if answered.problem and (answered.gone or now - since >= GIVE_UP):
            events = (self._dead(hook, place, entry, answered.problem, now),)
        elif answered.problem:
            pause = max(answered.wait, min(FIRST_PAUSE * 2 ** min(place.attempts, 20), LONGEST_PAUSE))
            log.warning("webhook %s: %s, again in %.0f s", hook.name, answered.problem, pause)
            after = Cursor(
                told=place.told,
                attempts=place.attempts + 1,
                failing_since=since,
                next_at=now + timedelta(seconds=pause),
                lease=place.lease,
            )
        keep = now + timedelta(seconds=LEASE_SECONDS) if after.told == entry.seq else None
        written = await self._cursors.settle(hook.name, after, events, keep_until=keep)
        return after if written else place

    def _dead(self, hook: Hook, place: Cursor, entry: Entry, problem: str, now: datetime) -> Event:
        topic = topic_of(entry)
        data = {"hook": hook.name, "type": topic.value if topic else None, "entry": entry.seq, "problem": problem,
                "attempts": place.attempts + 1}  # fmt: skip
        return Event(kind=Kind.WEBHOOK, id=entry.id, at=now, data=data)

    async def _sent(self, hook: Hook, entry: Entry, clear: Clear | None) -> Answered:
        """An entry for which no payload can be made is skipped: the hook goes on with the next."""
        history = await self._cursors.history(entry.id)
        try:
            told = payload(entry, clear, history, hook.allowed)
        except Exception as error:
            log.exception("webhook %s: entry %d of the journal cannot be sent", hook.name, entry.seq)
            return Answered(problem=type(error).__name__, gone=True)
        return await self._sender.send(hook.url, hook.secret, told, self._clock.now(), hook.form)

    def _wanted(self, hook: Hook, news: News) -> Told:
        return [(entry, clear) for entry, clear in news.entries if topic_of(entry) in hook.topics]

    def _say_how_far(self, hook: Hook, place: Cursor, first: Entry, news: News, now: datetime) -> None:
        """Log that it is behind, at intervals."""
        if (now - first.time).total_seconds() < BEHIND_SECONDS:
            self._said.pop(hook.name, None)
            return
        said = self._said.get(hook.name)
        if said is None or (now - said).total_seconds() >= BEHIND_SECONDS:
            self._said[hook.name] = now
            log.warning(
                "webhook %s is behind: %d entries of the journal, since %s",
                hook.name,
                news.end - place.told,
                first.time,
            )


SECONDS = 15.0
CONNECT_SECONDS = 5.0
MOST_WAIT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """``problem``: "" if it was accepted. ``gone``: the receiver wants no more (410). ``wait``: the pause that it asked
    for. ``reply``: if it was asked for."""

    problem: str = ""
    gone: bool = False
    wait: float = 0.0
    reply: bytes = b""


class Sender:
    """``http``: a client for tests. The library is imported at the first attempt: most processes never send."""

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._seconds, self._connect_seconds = seconds, min(connect_seconds, seconds)
        self._http = http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def send(
        self, url: str, secret: bytes, payload: Mapping[str, Any], now: datetime, form: Format = Format.JSON
    ) -> Answered:
        body = json.dumps(shaped(payload, form), ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "Smtpguard-Id": str(payload["id"]),
            HEADER: signed(secret, int(now.timestamp()), body),
        }
        return await self.post(url, body, headers)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, most: int = 0) -> Answered:
        """Total: any error is an answer. It does not contain the url, which may hold a secret. ``most``: octets of a
        reply to be read; 0: it does not matter."""
        import httpx2

        if self._http is None:
            timeout = httpx2.Timeout(self._seconds, connect=self._connect_seconds)
            self._http = httpx2.AsyncClient(timeout=timeout, follow_redirects=False)
        headers = {"User-Agent": f"smtpguard/{__version__}", **headers}
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._http.stream("POST", url, content=body, headers=headers) as answer,
            ):
                answered, reply = _read(answer), b""
                if most and not answered.problem:
                    async for some in answer.aiter_bytes():
                        reply += some
                        if len(reply) > most:
                            return Answered(problem="its reply is too long")
                return replace(answered, reply=reply)
        except (TimeoutError, httpx2.TimeoutException):
            return Answered(problem="no answer in time")
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            return Answered(problem=type(error).__name__)


def _read(answer: httpx2.Response) -> Answered:
    """By the status."""
    if answer.is_success:
        return Answered()
    asked = answer.headers.get("retry-after", "")
    wait = min(float(asked), MOST_WAIT) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0.0
    return Answered(problem=f"HTTP {answer.status_code}", gone=answer.status_code == 410, wait=wait)


# Signature of a webhook: HMAC-SHA256 over the time and the body, in one header.
#
# Smtpguard-Signature: t=1767225600,v1=5257a869e7...


HEADER = "Smtpguard-Signature"
TOLERANCE_SECONDS = 300
"""The difference between ``t`` and its own clock that a receiver should allow, so that a recorded request cannot be
replayed."""


def signed(secret: bytes, at: int, body: bytes) -> str:
    """The header's value."""
    return f"t={at},v1={hmac.new(secret, b'%d.' % at + body, 'sha256').hexdigest()}"


def genuine(secret: bytes, header: str, body: bytes, now: int) -> bool:
    """The receiver's check. One valid v1 of several is enough, so that a secret can be changed."""
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t" and value.isdecimal()]
    if len(times) != 1 or abs(now - int(times[0])) > TOLERANCE_SECONDS:
        return False
    right = signed(secret, int(times[0]), body).partition("v1=")[2]
    return any(hmac.compare_digest(value.encode(), right.encode()) for name, _, value in pairs if name == "v1")
