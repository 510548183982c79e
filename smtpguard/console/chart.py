"""Charts as SVG, drawn on the server without a script: a line for the people a mailing has reached, bars, one a day,
and lanes of events over time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Generic, TypeVar

from smtpguard.mailings.model import Grown

WIDTH, HEIGHT, LOW = 720, 260, 190
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 24, 34

At = TypeVar("At", date, datetime)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame(Generic[At]):
    """What every chart has. ``across``: (y, number) of each horizontal line; ``along``: (x, time or day, text-anchor) on
    the axis, times shown with seconds if ``brief``."""

    along: tuple[tuple[float, At, str], ...]
    across: tuple[tuple[float, int], ...] = ()
    brief: bool = False
    width: int = WIDTH
    height: int = LOW
    left: int = LEFT
    right: int = WIDTH - RIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart(Frame[datetime]):
    """``sent`` and ``held``: paths."""

    sent: str
    held: str
    height: int = HEIGHT


def drawn(points: Sequence[Grown]) -> Chart | None:
    """None if there is nothing to draw."""
    if not points:
        return None
    first, last = points[0].at, points[-1].at
    length = max(last - first, timedelta(minutes=1))
    top = _round_up(max(max(p.sent, p.held) for p in points) or 1)

    def x(at: datetime) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * ((at - first) / length), 1)

    def y(n: int) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (n / top), 1)

    def path(values: Sequence[int]) -> str:
        """A step line: between two points the number does not change."""
        steps = [f"M{x(points[0].at)} {y(0)}", f"V{y(values[0])}"]
        steps += [f"H{x(point.at)}V{y(value)}" for point, value in zip(points[1:], values[1:], strict=True)]
        return "".join([*steps, f"H{WIDTH - RIGHT}"])

    return Chart(
        sent=path([p.sent for p in points]),
        held=path([p.held for p in points]) if any(p.held for p in points) else "",
        across=tuple((y(n), n) for n in sorted({0, top // 2, top})),
        along=_along(x, first, length),
        brief=length < timedelta(minutes=10),
    )


def _along(
    x: Callable[[datetime], float], first: datetime, length: timedelta
) -> tuple[tuple[float, datetime, str], ...]:
    """The beginning, the middle and the end."""
    parts = ((0, "start"), (0.5, "middle"), (1, "end"))
    return tuple((x(first + length * part), first + length * part, anchor) for part, anchor in parts)


def _round_up(n: int, steps: Sequence[int] = (1, 2, 5, 10)) -> int:
    """Round up to one of ``steps`` times a power of ten."""
    tens = int(10 ** math.floor(math.log10(n)))
    return next(step * tens for step in steps if step * tens >= n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars(Frame[At]):
    """One bar a day, its series stacked. ``pieces``: (series, from 0 on, x, y, width, height) of each rectangle."""

    pieces: tuple[tuple[int, float, float, float, float], ...]


def stacked(days: Sequence[tuple[At, Sequence[int]]]) -> Bars[At] | None:
    """By day the numbers of its series, lowest first. None if all are 0."""
    top = max((sum(values) for _, values in days), default=0)
    if not top:
        return None
    most, height = _round_up(top, (1, 2, 3, 4, 6, 8, 10)), LOW - TOP - BOTTOM
    room = (WIDTH - LEFT - RIGHT) / len(days)
    pieces, width = [], round(0.8 * room, 1)
    for n, (_, values) in enumerate(days):
        x, below = round(LEFT + n * room + 0.1 * room, 1), 0
        for series, value in enumerate(values):
            if value:
                low, high = (round(LOW - BOTTOM - height * v / most, 1) for v in (below, below + value))
                pieces.append((series, x, high, width, round(max(low - high, 0.5), 1)))
                below += value
    ends = {0: "start", len(days) // 2: "middle", len(days) - 1: "end"}
    return Bars(
        pieces=tuple(pieces),
        across=tuple((round(LOW - BOTTOM - height * n / most, 1), n) for n in sorted({0, most // 2, most})),
        along=tuple(
            (round(LEFT + (n + {"start": 0, "middle": 0.5, "end": 1}[anchor]) * room, 1), days[n][0], anchor)
            for n, anchor in ends.items()
        ),
    )


_LANES, _TITLES = 4, 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes(Frame[datetime]):
    """Events by time, in lanes. ``marks``: (x, lane), each once; ``centres``: the y of each lane; ``days``: times are
    shown with the day."""

    marks: tuple[tuple[float, int], ...]
    centres: tuple[float, ...]
    days: bool
    left: int = _TITLES
    tall: int = 24


def lanes(happened: Sequence[tuple[datetime, int]], first: datetime, last: datetime) -> Lanes | None:
    """``happened``: time and lane of each event; those before ``first`` or after ``last`` are not drawn. None if
    ``first`` is not before ``last``."""
    length = last - first
    if length <= timedelta(0):
        return None
    room = (LOW - BOTTOM - 8) / _LANES

    def x(at: datetime) -> float:
        return round(_TITLES + 6 + (WIDTH - RIGHT - _TITLES - 12) * ((at - first) / length), 1)

    return Lanes(
        marks=tuple(dict.fromkeys((x(at), lane) for at, lane in happened if first <= at <= last)),
        centres=tuple(round(8 + room * (n + 0.5), 1) for n in range(_LANES)),
        along=_along(x, first, length),
        brief=length < timedelta(minutes=10),
        days=length > timedelta(hours=20),
    )
