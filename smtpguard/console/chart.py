"""A line that climbs, as SVG: how many people a mailing has reached over time. Drawn on the server, no script.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from smtpguard.console.ports import Grown

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 24, 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """``sent`` and ``held``: paths. ``across``: (y, number) of each line across; ``along``: (x, time) below, to be told with
    seconds where ``brief``."""

    sent: str
    held: str
    across: tuple[tuple[float, int], ...]
    along: tuple[tuple[float, datetime], ...]
    brief: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    floor: int = HEIGHT - BOTTOM


def drawn(points: Sequence[Grown]) -> Chart | None:
    """None where there is nothing to draw."""
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
        """In steps: between two points nobody was added."""
        steps = [f"M{x(points[0].at)} {y(0)}", f"V{y(values[0])}"]
        steps += [f"H{x(point.at)}V{y(value)}" for point, value in zip(points[1:], values[1:], strict=True)]
        return "".join([*steps, f"H{WIDTH - RIGHT}"])

    return Chart(
        sent=path([p.sent for p in points]),
        held=path([p.held for p in points]) if any(p.held for p in points) else "",
        across=tuple((y(n), n) for n in sorted({0, top // 2, top})),
        along=tuple((x(first + length * part), first + length * part) for part in (0, 0.5, 1)),
        brief=length < timedelta(minutes=10),
    )


def _round_up(n: int) -> int:
    """To a number that reads well: 1, 2 or 5 with noughts."""
    tens = int(10 ** math.floor(math.log10(n)))
    return next(step * tens for step in (1, 2, 5, 10) if step * tens >= n)
