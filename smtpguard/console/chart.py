"""The geometry of charts, which templates draw as SVG without a script: the people that a mailing has reached, bars by day, and lanes
of events over time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Generic, TypeVar

from smtpguard.mailings.model import GrowthPoint

WIDTH, HEIGHT, LOW = 720, 260, 190
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 24, 34
_LANES = 4
_TITLES = 110  # width of the lanes' titles

At = TypeVar("At", date, datetime)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame(Generic[At]):
    """What every chart has. ``across``: (y, number) of each horizontal line; ``along``: (x, time or day, text-anchor) of each label on
    the axis. ``brief``: whether times are shown with seconds."""

    along: tuple[tuple[float, At, str], ...]
    across: tuple[tuple[float, int], ...] = ()
    brief: bool = False
    width: int = WIDTH
    height: int = LOW
    left: int = LEFT
    right: int = WIDTH - RIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart(Frame[datetime]):
    """The growth of a mailing. ``sent`` and ``held``: SVG paths, "" for none."""

    sent: str
    held: str
    height: int = HEIGHT


def growth_chart(points: Sequence[GrowthPoint]) -> Chart | None:
    """Return the chart of a mailing's growth, None if there is nothing to draw."""
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
        """Return a step line: between two points the number does not change."""
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
    """Return the labels for the beginning, the middle and the end."""
    parts = ((0, "start"), (0.5, "middle"), (1, "end"))
    return tuple((x(first + length * part), first + length * part, anchor) for part, anchor in parts)


def _round_up(n: int, steps: Sequence[int] = (1, 2, 5, 10)) -> int:
    """Round up to one of ``steps`` times a power of ten."""
    tens = int(10 ** math.floor(math.log10(n)))
    return next(step * tens for step in steps if step * tens >= n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars(Frame[At]):
    """One bar for each day, its series stacked. ``pieces``: (number of the series, x, y, width, height) of each rectangle."""

    pieces: tuple[tuple[int, float, float, float, float], ...]


def stacked_bars(days: Sequence[tuple[At, Sequence[int]]]) -> Bars[At] | None:
    """Return stacked bars, None if all numbers are 0. ``days``: each day with the numbers of its series, the lowest series first."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes(Frame[datetime]):
    """Events by time, in lanes. ``marks``: (x, lane) of each event, each place once; ``centres``: the y of each lane; ``days``: whether
    times are shown with the day; ``tall``: the height of a mark."""

    marks: tuple[tuple[float, int], ...]
    centres: tuple[float, ...]
    days: bool
    left: int = _TITLES
    tall: int = 24


def lanes(happened: Sequence[tuple[datetime, int]], first: datetime, last: datetime) -> Lanes | None:
    """Return the chart of events, None if ``first`` is not before ``last``. ``happened``: time and lane of each event; those before
    ``first`` or after ``last`` are not drawn."""
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
