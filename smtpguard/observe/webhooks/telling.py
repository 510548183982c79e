"""Which hook is told what, and when: in the journal's order, each entry until it is taken, with longer and longer pauses.

An entry that a hook does not take for a day, or answers 410 to, is told no more: that is journalled, and the hook goes on with
the next. A hook that was never told anything begins with what happens from now on. One lease a hook: several nodes share the
work, and one that was too slow cannot move the cursor. Never here: what is told (payload), one attempt (sending).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from smtpguard.audit.chain import Clear, Entry
from smtpguard.audit.event import Event, Kind
from smtpguard.audit.told import Place
from smtpguard.observe.webhooks.payload import KINDS, Allowed, Told, Topic, payload, topic_of
from smtpguard.observe.webhooks.sending import Sender

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
LEASE_SECONDS = 120.0
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 3600.0
GIVE_UP = timedelta(days=1)
SCAN = 50  # entries told in one lease at most
BEHIND = 10_000  # entries passed over before the cursor is moved for their sake


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """``name``: what its cursor is kept under, and what people see of it. ``secret``: for the signature."""

    name: str
    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    topics: frozenset[Topic]
    allowed: Allowed = field(default_factory=Allowed)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for topic in Topic if topic in self.topics for kind in KINDS[topic])


class Cursors(Protocol):
    """Where each hook is, in the store."""

    async def at(self, name: str) -> Place:
        """One that is not known yet stands at the journal's end, from now on."""

    async def news(
        self, after: int, kinds: Sequence[Kind], limit: int
    ) -> tuple[Sequence[tuple[Entry, Clear | None]], int]:
        """Entries of these kinds, in order, after that one; and up to which entry that is all there is."""

    async def history(self, id: str) -> Told: ...

    async def lease(self, name: str, until: datetime) -> Place | None:
        """None while somebody else has it."""

    async def settle(
        self, name: str, place: Place, events: Sequence[Event] = (), *, keep_until: datetime | None = None
    ) -> bool:
        """Write where it is now, with what is journalled of it, and let go of it, or keep it until then. False: the lease was lost, nothing was written."""


class Clock(Protocol):
    def now(self) -> datetime: ...


class Teller:
    """For all hooks of an installation. Raises nothing of a hook's; the store's errors go to whoever runs it."""

    def __init__(self, hooks: Sequence[Hook], cursors: Cursors, sender: Sender, clock: Clock) -> None:
        self._hooks = tuple(hooks)
        self._cursors, self._sender, self._clock = cursors, sender, clock

    async def run(self, *, unreachable: Callable[[Exception], bool]) -> None:
        """For ever. ``unreachable``: whether an error is the store's being away, which is waited out."""
        async with asyncio.TaskGroup() as tasks:
            for hook in self._hooks:
                tasks.create_task(self._serve(hook, unreachable))

    async def _serve(self, hook: Hook, unreachable: Callable[[Exception], bool]) -> None:
        while True:
            try:
                told = await self.tell(hook)
            except Exception as error:
                if not unreachable(error):
                    raise
                log.warning("webhook %s: the store does not answer: %s", hook.name, type(error).__name__)
                told = 0
            if not told:
                await asyncio.sleep(POLL_SECONDS)

    async def tell(self, hook: Hook) -> int:
        """What there is to tell it now; returns how many it took."""
        place, now = await self._cursors.at(hook.name), self._clock.now()
        if place.next_at is not None and now < place.next_at:
            return 0
        news, through = await self._cursors.news(place.told, hook.kinds, SCAN)
        if not self._worth(hook, news) and through - place.told < BEHIND:
            return 0
        leased = await self._cursors.lease(hook.name, now + timedelta(seconds=LEASE_SECONDS))
        if leased is None:
            return 0
        if leased.told != place.told:  # somebody else was there meanwhile
            await self._cursors.settle(hook.name, leased)
            return 0
        return await self._told(hook, leased, news, through)

    async def _told(self, hook: Hook, place: Place, news: Sequence[tuple[Entry, Clear | None]], through: int) -> int:
        """One after the other, each settled before the next is sent."""
        taken = 0
        for entry, clear in news:
            if topic_of(entry) not in hook.topics:
                continue
            place = await self._one(hook, place, entry, clear)
            if place.told < entry.seq:  # it was not taken, or the lease is lost
                return taken
            taken += 1
        await self._cursors.settle(hook.name, Place(told=max(place.told, through), lease=place.lease))
        return taken

    async def _one(self, hook: Hook, place: Place, entry: Entry, clear: Clear | None) -> Place:
        history = await self._cursors.history(entry.id)
        answered = await self._sender.send(
            hook.url, hook.secret, payload(entry, clear, history, hook.allowed), self._clock.now()
        )
        now = self._clock.now()
        since = place.failing_since or now
        events: tuple[Event, ...] = ()
        after = Place(told=entry.seq, lease=place.lease)
        if answered.problem and (answered.gone or now - since >= GIVE_UP):
            events = (self._dead(hook, place, entry, answered.problem, now),)
        elif answered.problem:
            pause = max(answered.wait, min(FIRST_PAUSE * 2 ** min(place.attempts, 20), LONGEST_PAUSE))
            log.warning("webhook %s: %s, again in %.0f s", hook.name, answered.problem, pause)
            after = Place(
                told=place.told,
                attempts=place.attempts + 1,
                failing_since=since,
                next_at=now + timedelta(seconds=pause),
                lease=place.lease,
            )
        keep = now + timedelta(seconds=LEASE_SECONDS) if after.told == entry.seq else None
        written = await self._cursors.settle(hook.name, after, events, keep_until=keep)
        return after if written else place

    def _dead(self, hook: Hook, place: Place, entry: Entry, problem: str, now: datetime) -> Event:
        topic = topic_of(entry)
        data = {"hook": hook.name, "type": topic.value if topic else None, "entry": entry.seq, "problem": problem,
                "attempts": place.attempts + 1}  # fmt: skip
        return Event(kind=Kind.WEBHOOK, id=entry.id, at=now, data=data)

    def _worth(self, hook: Hook, news: Sequence[tuple[Entry, Clear | None]]) -> bool:
        return any(topic_of(entry) in hook.topics for entry, _ in news)
