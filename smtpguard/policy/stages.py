"""How an approval takes effect, as the policy declares it: in stages, for copies that differ in a share of their
words, and until a breaker trips. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from smtpguard.locale.phrase import Amount, Listed, Phrase, Span

SHARE = 0.05
"""The default share of words in which a copy may differ."""
REST = 0.0
"""A step that takes all remaining people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Stages of a release. ``steps``: how many people each stage takes: a number, a share of the whole below 1, and
    ``REST`` at the end.

    ``pause_seconds``: the pause between two; None: until a person resumes. ``refused``, ``reported``: the share of
    the people reached that stops the release.
    """

    steps: tuple[float, ...]
    pause_seconds: int | None = 1800
    refused: float = 0.05
    reported: float = 0.005

    @property
    def portions(self) -> Phrase:
        """ "50 people, 1 % of all, the rest"."""
        return Phrase("{sentences}", sentences=Listed(tuple(map(_portion, self.steps))))

    @property
    def sentence(self) -> Phrase:
        if self.pause_seconds is None:
            return Phrase("It is sent in stages: {steps}. An approver opens each further stage.", steps=self.portions)
        pause = Span(self.pause_seconds)
        return Phrase("It is sent in stages: {steps}, with pauses of {time}.", steps=self.portions, time=pause)


def _portion(step: float) -> Phrase:
    if step == REST:
        return Phrase("the rest")
    if step < 1:
        return Phrase("{share} of all", share=Amount(step * 100, step * 100, percent=True))
    return Phrase.counted("{n} person", "{n} people", int(step))


SORTS: Mapping[str, str] = {"complaints": "complaint", "bounces": "bounce", "replies": "reply", "unsubscribes": "unsubscribe"}  # fmt: skip
"""The sort of return that each key of the policy counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit of returns. ``least``: so many people, or with ``share`` such a part of those who have the mailing.
    ``window_seconds``: the time in which they are counted, 0 for all. ``after``: it holds as soon as so many have the
    mailing."""

    text: str
    least: Fraction
    share: bool
    window_seconds: int
    after: int = 0

    def trips(self, counted: int, people: int) -> bool:
        """Return whether the limit is reached. ``counted``: how many people have a return of this sort; ``people``:
        how many certainly have the mailing."""
        if not counted or people < self.after:
            return False
        return counted >= (self.least * people if self.share else self.least)

    def covers(self, other: Limit) -> bool:
        """Return whether it surely trips wherever ``other`` does."""
        longer = not self.window_seconds or (0 < other.window_seconds <= self.window_seconds)
        return self.share is other.share and self.least <= other.least and self.after <= other.after and longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A limit that stops a mailing. ``name``: the key of the policy."""

    name: str
    limit: Limit

    @property
    def sort(self) -> str:
        return SORTS[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakers:
    """The breakers of a mailing. ``lists``: a breaker that trips stops all mail to the lists of the mailing, not the
    mailing alone."""

    each: tuple[Breaker, ...] = ()
    lists: bool = False

    @classmethod
    def merged(cls, some: Iterable[Breakers]) -> Breakers:
        """Return all breakers of ``some`` together. The first that trips stops the mailing."""
        every = tuple(some)
        each = dict.fromkeys(breaker for one in every for breaker in one.each)
        return cls(each=tuple(each), lists=any(one.lists for one in every))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What may stop the rest of a mailing. ``people``: how many certainly have it; ``enforce``: whether it is
    stopped, or only noted."""

    breakers: Breakers
    people: int
    enforce: bool
    new_id: Callable[[], str]
