"""The clock, and how far it is believed: the one answer to whether the time has come to end, give up or erase something.

Entries and people get the time of the wall clock. For a day after that clock jumped forward, so that somebody may correct
it, what ends by itself goes by the time that has passed by the monotonic clock. Pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

log = logging.getLogger(__name__)

JUMP = timedelta(minutes=5)
DOUBT = timedelta(days=1)
"""For how long a clock that jumped forward is not believed. After a jump of more than this nothing is erased meanwhile."""
PAUSE = timedelta(days=7)
"""If the journal has nothing of so long before a start, the clock may have jumped meanwhile."""


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC, for the journal and for people."""

    def monotonic(self) -> float:
        """Seconds, for timeouts."""


class _Jump(NamedTuple):
    """Forward. ``tick``: when, by the monotonic clock. ``before``: the time at the jump."""

    tick: float
    before: datetime
    size: timedelta


class SteadyClock:
    """A Clock of one process that also knows how far it is believed. Each jump forward counts a day after it."""

    def __init__(self, clock: Clock) -> None:
        self.now, self.monotonic = clock.now, clock.monotonic
        self._at, self._tick = clock.now(), clock.monotonic()  # a time before, by both
        self._jumps: tuple[_Jump, ...] = ()  # that do not count yet
        self._said = timedelta(0)
        self._near = JUMP
        """Nearer than this to the time that has passed, the clock is believed."""

    def learn(self, known: datetime | None, since: datetime | None) -> None:
        """At a start. ``known``: when the journal's newest entry was made, but for those of the last day: an earlier start may
        have had the same wrong clock. ``since``: when the first of these was made."""
        wall, tick = self.now(), self.monotonic()
        since = min(since or wall, wall)
        if known is not None and since - known > PAUSE:
            self._at, self._tick, self._near = wall, tick, PAUSE
            self._jumps = (_Jump(tick - (wall - since).total_seconds(), known, since - known),)

    @property
    def ahead(self) -> timedelta:
        """By how much the clock has jumped forward, as far as that does not count yet."""
        return sum((jump.size for jump in self._jumps), timedelta(0))

    @property
    def jumped(self) -> bool:
        """Whether the clock jumped forward by more than a day, less than a day ago, and was not set back: it may be wrong.
        A smaller jump, as after a pause of the machine, erases things at most a day early."""
        self.passed()
        return self.ahead > DOUBT

    def has_come(self, until: datetime, since: datetime) -> bool:
        """Whether the time of what began at ``since`` is over. What began after a jump goes by the clock that it has."""
        now = self.passed()
        return now + sum((jump.size for jump in self._jumps if jump.before < since), timedelta(0)) >= until

    def passed(self) -> datetime:
        """The time by which things end."""
        return self._look(log.warning)

    def watch(self) -> None:
        """Notice a jump, for processes that are forked from this one, and leave it to these to log it."""
        self._look(log.debug)

    def _look(self, say: Callable[..., None]) -> datetime:
        wall, tick = self.now(), self.monotonic()
        before = self._at + timedelta(seconds=tick - self._tick)
        self._at, self._tick = wall, tick
        step = wall - before
        left = self.ahead + step
        if step > JUMP:
            self._jumps += (_Jump(tick, before, step),)
        elif step < -JUMP and left > self._near:
            self._jumps = (_Jump(tick, self._jumps[0].before, left),)
        elif step < -JUMP:
            self._jumps = ()
            if left < -JUMP:
                say(
                    "the clock was set back by %s: releases, retries, pauses and ends of freezes wait as much longer",
                    -left,
                )
        while self._jumps and tick - self._jumps[0].tick >= DOUBT.total_seconds():
            (over, *_), self._jumps = self._jumps, self._jumps[1:]
            say("the clock jumped by %s a day ago: it counts now", over.size)
            self._said = self.ahead
        if self.ahead not in (self._said, timedelta(0)):
            say(
                "the clock has jumped by %s: until it is set back, or for a day, deadlines ignore the jump, and after more than a day nothing is erased",
                self.ahead,
            )
        self._said = self.ahead
        if not self._jumps:
            self._near = JUMP
        return wall - self.ahead
