"""How an approval is given and takes effect, as the policy declares it: by mail too, in stages, and for copies that differ
in a share of their words.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

SHARE = 0.05
"""The default share of words in which a copy may differ."""
REST = 0.0
"""As a step: all remaining people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """``steps``: how many people each stage takes: a number, a share of the whole below 1, and ``REST`` at the end.

    ``pause_seconds``: the pause between two; None: until a person resumes. ``refused``, ``reported``: the share of the
    people reached that stops the release.
    """

    steps: tuple[float, ...]
    pause_seconds: int | None = 1800
    refused: float = 0.05
    reported: float = 0.005


class ByAddress(enum.Enum):
    """How a message to the address of a list with stages is approved: the relay expands it to everybody at once, so it
    cannot be sent in stages."""

    CONFIRM = "confirm"  # the approver confirms that it reaches all of them at once
    REFUSE = "refuse"  # it cannot be approved: it must be sent as single copies


SORTS: Mapping[str, str] = {"complaints": "complaint", "bounces": "bounce", "replies": "reply", "unsubscribes": "unsubscribe"}  # fmt: skip
"""Keys of the policy, and the sort of return that each counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """``least``: so many people, or of ``share`` such a part of those who have it. ``window_seconds``: in so long, 0 for in all.
    ``after``: as soon as so many have it."""

    text: str
    least: Fraction
    share: bool = False
    window_seconds: int = 0
    after: int = 0

    def trips(self, counted: int, people: int) -> bool:
        """``counted``: how many people have a return of this sort; ``people``: how many certainly have the mailing."""
        if not counted or people < self.after:
            return False
        return counted >= (self.least * people if self.share else self.least)

    def covers(self, other: Limit) -> bool:
        """Whether it surely trips wherever ``other`` does."""
        longer = not self.window_seconds or (0 < other.window_seconds <= self.window_seconds)
        return self.share is other.share and self.least <= other.least and self.after <= other.after and longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """``name``: the key of the policy."""

    name: str
    limit: Limit

    @property
    def sort(self) -> str:
        return SORTS[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakers:
    """``lists``: a breaker that trips stops all mail to the lists of the mailing, not the mailing alone."""

    each: tuple[Breaker, ...] = ()
    lists: bool = False

    @classmethod
    def over(cls, some: Iterable[Breakers]) -> Breakers:
        """All breakers of ``some`` together; the first that trips stops the mailing."""
        every = tuple(some)
        each = dict.fromkeys(breaker for one in every for breaker in one.each)
        return cls(each=tuple(each), lists=any(one.lists for one in every))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What may stop the rest of a mailing. ``people``: how many certainly have it; ``enforce``: whether it is stopped, or
    only noted."""

    breakers: Breakers
    people: int
    enforce: bool
    new_id: Callable[[], str]
