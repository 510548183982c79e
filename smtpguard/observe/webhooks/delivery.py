"""Deliver journal entries to webhooks: in the journal's order, each until it is accepted, with growing pauses.

An entry that a hook does not accept for a day, or answers 410 to, is given up: that is journalled, and the hook goes on
with the next. A new hook begins with the entries from now on. There is one lease for each hook: several nodes share the
work, and a node that was too slow cannot move the cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Event, Kind
from smtpguard.observe.cursor import Cursor, News
from smtpguard.observe.webhooks.payload import KINDS, Allowed, Format, Told, Topic, payload, topic_of
from smtpguard.observe.webhooks.sending import Answered, Sender

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


class Cursors(Protocol):
    """The hooks' cursors in the store."""

    async def at(self, name: str) -> Cursor:
        """A new one starts at the journal's end."""

    async def news(self, after: int, kinds: Sequence[Kind], limit: int) -> News:
        """Entries after that one, at most ``limit``."""

    async def history(self, id: str) -> Told: ...

    async def pass_over(self, name: str, place: Cursor, through: int) -> bool:
        """Move it to ``through``, since nothing up to there is to be sent. False: it is leased, or was since ``place``
        was read."""

    async def lease(self, name: str, until: datetime) -> Cursor | None:
        """None while another process has it."""

    async def settle(
        self, name: str, place: Cursor, events: Sequence[Event] = (), *, keep_until: datetime | None = None
    ) -> bool:
        """Write the new place with its events, and release the lease, or keep it until then. False: the lease was lost,
        nothing was written."""


class Clock(Protocol):
    def now(self) -> datetime: ...


class Dispatcher:
    """For all hooks of an installation. ``tell`` raises the store's errors, and no error of a hook."""

    def __init__(self, hooks: Sequence[Hook], cursors: Cursors, sender: Sender, clock: Clock) -> None:
        self._hooks = tuple(hooks)
        self._cursors, self._sender, self._clock = cursors, sender, clock
        self._said: dict[str, datetime] = {}  # when it was last logged that a hook is behind

    async def run(self, *, unreachable: Callable[[Exception], bool]) -> None:
        """Forever. ``unreachable``: whether an error means that the store is unavailable, which is waited out."""
        async with asyncio.TaskGroup() as tasks:
            for hook in self._hooks:
                tasks.create_task(self._serve(hook, unreachable))

    async def _serve(self, hook: Hook, unreachable: Callable[[Exception], bool]) -> None:
        while True:
            try:
                told = await self.tell(hook)
            except Exception as error:
                if not unreachable(error):  # an internal error must stop neither mail nor the other hooks
                    log.exception("webhook %s", hook.name)
                    await asyncio.sleep(ERROR_SECONDS)
                    continue
                log.warning("webhook %s: the store does not answer: %s", hook.name, type(error).__name__)
                told = 0
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
        leased = await self._cursors.lease(hook.name, now + timedelta(seconds=LEASE_SECONDS))
        if leased is None:
            return 0
        if leased.told != place.told:  # another process was faster
            await self._cursors.settle(hook.name, leased)
            return 0
        return await self._told(hook, leased, wanted, news.through)

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
