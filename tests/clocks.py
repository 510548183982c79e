"""Clocks that move only when the test says so, so that the speed of the machine has no effect."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MONDAY = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@dataclass
class Clock:
    """guard.ports.Clock, from a Monday morning on. ``monotonic`` moves with it."""

    at: datetime = MONDAY
    ticks: float = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.ticks

    def pass_(self, **time: float) -> None:
        self.at += timedelta(**time)
        self.ticks += timedelta(**time).total_seconds()


class Seconds:
    """A monotonic clock: set ``now``."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
