"""Breakers: how much of what comes back after a mailing stops the rest of it.

">= 0.1% after 500" is a share of those who have it, once so many do; ">= 20 in 10m" a number in a time. What counts is said in
returns.model. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from smtpguard.config.problem import Invalid
from smtpguard.config.quantity import from_text
from smtpguard.config.rate import window

EXPECTED = 'a bound like ">= 0.1% after 500" or ">= 20 in 10m"'
_LIMIT = re.compile(
    r">=\s*(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(?P<share>%)?(?:\s+in\s+(?P<window>[0-9]\S*(?:\s[a-z]+)?))?(?:\s+after\s+(?P<after>[0-9]{1,9}))?\s*\Z"
)
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
    """``lists``: what trips one stops all that goes to the lists of the mailing, not the mailing alone."""

    each: tuple[Breaker, ...] = ()
    lists: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What may stop the rest of a mailing. ``people``: who surely have it; ``enforce``: whether anything is stopped, or only noted."""

    breakers: Breakers
    people: int
    enforce: bool
    new_id: Callable[[], str]


def limit(text: str) -> Limit:
    """Raises Invalid."""
    found = _LIMIT.match(text.strip())
    if found is None:
        raise Invalid(f'"{text}" is no bound of a breaker', EXPECTED)
    least, share = Fraction(found["number"]), bool(found["share"])
    if not least or (share and least > 100) or (not share and least.denominator > 1):
        raise Invalid(f'"{text}" is no bound of a breaker', "more than 0 people, or a share of up to 100%")
    return Limit(
        text=" ".join(text.split()),
        least=least / 100 if share else least,
        share=share,
        window_seconds=window(found["window"]) if found["window"] else 0,
        after=int(found["after"] or 0),
    )


LimitField = Annotated[
    Limit,
    BeforeValidator(from_text(limit, EXPECTED, kept=(Limit,), what="no bound of a breaker")),
    WithJsonSchema({"type": "string", "description": EXPECTED, "examples": [">= 0.1% after 500", ">= 20 in 10m"]}),
]
