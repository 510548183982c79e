"""Breakers: how much of what comes back after a mailing stops the rest of it.

">= 0.1% after 500" is a share of those who have it, once so many do; ">= 20 in 10m" a number in a time. What counts is said in
returns.model. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

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
        """``counted``: people of whom it came back; ``people``: who surely have it."""
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
