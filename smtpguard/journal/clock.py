"""The clock, and how far it is believed: the one answer to whether the time has come to end, give up or erase something.

Entries and people get the time of the wall clock. For a day after that clock jumped forward, so that somebody may correct
it, what ends by itself goes by the time that has passed by the monotonic clock. Pure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

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


class SteadyClock:
    """Of one process. ``ahead``: by how much the clock has jumped forward, while it is not believed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at, self._tick = clock.now(), clock.monotonic()  # a time before, by both
        self._doubted: float | None = None  # since when, by the monotonic clock
        self._far = False  # that time is of an entry long before: the clock is believed once it is within PAUSE
        self.ahead = timedelta(0)

    def learn(self, known: datetime | None, since: datetime | None) -> None:
        """At a start. ``known``: when the journal's newest entry was made, but for those of the last day: an earlier start may
        have had the same wrong clock. ``since``: when the first of these was made."""
        wall, tick = self._clock.now(), self._clock.monotonic()
        if known is not None and wall - known > PAUSE:
            self._at, self._far = known, True
            self._tick = self._doubted = tick - (wall - min(since or wall, wall)).total_seconds()

    @property
    def jumped(self) -> bool:
        """Whether the clock jumped forward by more than a day, less than a day ago, and was not set back: it may be wrong.
        A smaller jump, as after a pause of the machine, erases things at most a day early."""
        self.passed()
        return self.ahead > DOUBT

    def has_come(self, until: datetime, since: datetime) -> bool:
        """Whether the time of what began at ``since`` is over. What began after the jump goes by the clock that it has."""
        now = self.passed()
        return now >= until or (since > now and self._clock.now() >= until)

    def passed(self) -> datetime:
        """The time by which things end."""
        return self._look(log.warning)

    def watch(self) -> None:
        """Notice a jump, for processes that are forked from this one, and leave it to these to log it."""
        self._look(log.debug)

    def _look(self, say: Callable[..., None]) -> datetime:
        wall, tick = self._clock.now(), self._clock.monotonic()
        expected = self._at + timedelta(seconds=tick - self._tick)
        ahead = wall - expected
        if ahead > (PAUSE if self._far else JUMP):
            moved = abs(ahead - self.ahead) > JUMP
            if self._doubted is None or (self.ahead and moved):
                self._doubted = tick
            if tick - self._doubted < DOUBT.total_seconds():
                if moved:
                    self.ahead = ahead
                    say(
                        "the clock has jumped by %s: until it is set back, or for a day, deadlines ignore the jump, and after more than a day nothing is erased",
                        ahead,
                    )
                return expected
            say("the clock jumped by %s a day ago: it counts now", ahead)
        elif ahead < -JUMP:
            say(
                "the clock was set back by %s: releases, retries, pauses and ends of freezes wait as much longer",
                -ahead,
            )
        self._at, self._tick, self._doubted, self._far, self.ahead = wall, tick, None, False, timedelta(0)
        return wall
