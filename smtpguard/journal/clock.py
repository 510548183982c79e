"""The clock, and how far it is believed. It decides whether the time has come to end, give up or erase something.

Entries and people get the time of the wall clock. For a day after that clock jumped forward, deadlines go by the time that has
passed by the monotonic clock, so that somebody can correct the clock. With PostgreSQL all hosts go by its server's clock. Pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

log = logging.getLogger(__name__)

JUMP = timedelta(minutes=5)
"""A larger step of the clock than this, against the monotonic clock, is a jump."""
DOUBT = timedelta(days=1)
"""The time for which a jump forward does not count. After a jump of more than this nothing is erased meanwhile."""
PAUSE = timedelta(days=7)
"""If the journal has no entry of this time before a start, the clock may have jumped meanwhile."""


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC, for the journal and for people."""

    def monotonic(self) -> float:
        """Seconds, for timeouts."""


class _Jump(NamedTuple):
    """A jump forward by ``size``. ``tick``: its time by the monotonic clock. ``before``: the wall clock's time just before it."""

    tick: float
    before: datetime
    size: timedelta


class SteadyClock:
    """A Clock of one process that notices jumps. Each jump forward counts a day after it."""

    def __init__(self, clock: Clock) -> None:
        self._host = clock
        self.now, self.monotonic = clock.now, clock.monotonic
        self._at, self._tick = clock.now(), clock.monotonic()  # an earlier time, by both clocks
        self._jumps: tuple[_Jump, ...] = ()  # the jumps that do not count yet
        self._logged = timedelta(0)  # the jump that was logged last
        self._near = JUMP
        """The clock is believed if it differs by less than this from the time that has passed."""

    def server_said(self, at: datetime, asked: float) -> None:
        """Go by the database server's clock, as all hosts of its store do: the time is now what it says, and what has passed since by
        the monotonic clock. The server said ``at``; it was asked at ``asked`` by that clock, so its time is later by up to this delay.
        If the host's clock differs by more than a jump, one of the two is wrong: nothing changes, and nothing is written."""
        tick = self.monotonic()
        now = min(max(self.now(), at), at + timedelta(seconds=tick - asked))
        if abs(now - self._host.now()) <= JUMP:
            zero = now - timedelta(seconds=tick)
            self.now = lambda: zero + timedelta(seconds=self.monotonic())

    def learn(self, known: datetime | None, since: datetime | None) -> None:
        """Notice a jump before this start, by the journal. ``known``: the time of its newest entry but for those of the last day:
        an earlier start may have had the same wrong clock. ``since``: the time of the first of those."""
        wall, tick = self.now(), self.monotonic()
        since = min(since or wall, wall)
        if known is not None and since - known > PAUSE:
            self._at, self._tick, self._near = wall, tick, PAUSE
            self._jumps = (_Jump(tick - (wall - since).total_seconds(), known, since - known),)

    @property
    def ahead(self) -> timedelta:
        """The sum of the jumps forward that do not count yet."""
        return sum((jump.size for jump in self._jumps), timedelta(0))

    @property
    def jumped(self) -> bool:
        """Whether the clock jumped forward by more than a day, less than a day ago, and was not set back, so that it may be
        wrong. After a smaller jump, as after a pause of the machine, things are erased at most a day early."""
        self.passed()
        return self.ahead > DOUBT

    def has_come(self, until: datetime, since: datetime) -> bool:
        """Return whether ``until``, the end of what began at ``since``, has come. A jump before ``since`` counts at once."""
        now = self.passed()
        return now + sum((jump.size for jump in self._jumps if jump.before < since), timedelta(0)) >= until

    def passed(self) -> datetime:
        """Return the time by which things end, and log jumps."""
        return self._look(log.warning)

    def watch(self) -> None:
        """Notice jumps for the processes that are forked from this one, and leave it to these to log them."""
        self._look(log.debug)

    def _look(self, write: Callable[..., None]) -> datetime:
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
                write(
                    "the clock was set back by %s: releases, retries, pauses and ends of freezes wait as much longer",
                    -left,
                )
        while self._jumps and tick - self._jumps[0].tick >= DOUBT.total_seconds():
            (over, *_), self._jumps = self._jumps, self._jumps[1:]
            write("the clock jumped by %s a day ago: it counts now", over.size)
            self._logged = self.ahead
        if self.ahead not in (self._logged, timedelta(0)):
            write(
                "the clock has jumped by %s: until it is set back, or for a day, deadlines ignore the jump, and after more than a day nothing is erased",
                self.ahead,
            )
        self._logged = self.ahead
        if not self._jumps:
            self._near = JUMP
        return wall - self.ahead
