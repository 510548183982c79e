"""Working hours, and deadlines in them. Pure: the time is always given.

A working day runs from one wall-clock time to another in the organization's zone. What passes in between is counted
in real time, so that a night in which the clock changes has its real length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MIDNIGHT = time(0)
FARTHEST = timedelta(days=36525)
"""The latest deadline: 100 years, as the longest duration in the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Working hours. ``days``: 0 is Monday; at least one. ``opens`` is before ``closes``, where 00:00 is the end of
    the day. ``holidays``: days off; ``yearly``: (month, day) of those that come every year."""

    days: frozenset[int]
    opens: time
    closes: time
    zone: tzinfo
    holidays: frozenset[date] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        if not self.days or (self.closes != MIDNIGHT and self.opens >= self.closes):
            raise ValueError("working hours of no length")

    def open_at(self, at: datetime) -> bool:
        """Return whether ``at`` (aware) is within working hours."""
        day = at.astimezone(self.zone).date()
        return any(
            begin <= at < end for begin, end in (self._of(d) for d in (day, day - timedelta(days=1))) if begin < end
        )

    def working_deadline(self, start: datetime, length: timedelta, *, within: bool = False) -> datetime:
        """Return the first moment, in UTC, at which ``length`` of working time has passed since ``start``, at most
        FARTHEST later. With ``within`` it is the first one in working hours: not the moment at which they end."""
        start, left = start.astimezone(UTC), max(length, timedelta())
        if not left and not within:
            return start
        for begin, end in self._spans(start):
            passed = end - max(begin, start)
            if passed > left or (passed == left and not within):
                return max(begin, start) + left
            left -= passed
        return start + FARTHEST

    def worked(self, start: datetime, end: datetime) -> timedelta:
        """Return the working time between two moments."""
        some = timedelta()
        for begin, close in self._spans(start):
            if begin >= end:
                break
            some += min(close, end) - max(begin, start)
        return some

    def _spans(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield open spans, in UTC, that end after ``start`` and at most FARTHEST later."""
        day, done = start.astimezone(self.zone).date(), start
        for n in range(-1, FARTHEST.days - 1):
            begin, end = self._of(day + timedelta(days=n))
            if begin < end and end > done:  # a date that a zone leaves out has the hours of the next one
                yield begin, end
                done = end

    def _of(self, day: date) -> tuple[datetime, datetime]:
        """Return when that day's work begins and ends, in UTC; equal on a day off."""
        begin = datetime.combine(day, self.opens, self.zone).astimezone(UTC)
        if day.weekday() not in self.days or day in self.holidays or (day.month, day.day) in self.yearly:
            return begin, begin
        last = day + timedelta(days=1) if self.closes == MIDNIGHT else day
        return begin, datetime.combine(last, self.closes, self.zone).astimezone(UTC)


def parse_days(text: str) -> frozenset[int]:
    """Parse "mon-fri", "mon, wed, sat-sun" or "monday-friday". Raises ValueError."""
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        a = _day(first.strip())
        b = _day(last.strip()) if dash else a
        days.update(range(a, b + 1) if a <= b else (*range(a, 7), *range(b + 1)))
    return frozenset(days)


def _day(name: str) -> int:
    if len(name) >= 3:
        for n, day in enumerate(DAYS):
            if day.startswith(name):
                return n
    raise ValueError(name)


def parse_time(text: str) -> time:
    """Parse "08:00"; "24:00" is midnight at the end of the day. Raises ValueError."""
    hour, colon, minute = text.partition(":")
    if not (colon and hour.isascii() and hour.isdigit() and minute.isascii() and minute.isdigit() and len(minute) == 2):
        raise ValueError(text)
    return MIDNIGHT if text == "24:00" else time(int(hour), int(minute))
