"""Conditions: one small class each, which tests one fact and answers yes, no or unknown, with a reason.

A count is an interval, so a limit inside it is unknown; narrowing the interval never turns a yes into a no. Over a set
a condition of ``when`` means any member, one of ``unless`` means all. Every answer is total: a value of the wrong kind
is unknown.

``sentence`` says of a fact what was observed, never which list or why a list is special: membership of a list for Ramadan greetings is
itself to be protected, so lists, audiences, sensitivities and topics are not named.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, ClassVar, Protocol

from smtpguard.locale.phrase import Amount, Phrase, Span
from smtpguard.mail.envelope import Network, within
from smtpguard.policy.facts import FACTS, NONE, Count, Fact, Type, Unknown, Usual, Value, Within
from smtpguard.policy.verdict import Reason

UNCHECKED = Phrase("Something about it could not be checked, so people have to look at it.")


def sentence(fact: str, value: Value, window_seconds: int = 0) -> Phrase:
    """Return one sentence. A value that a fact cannot have is described as one that could not be checked."""
    seen = None if isinstance(value, Unknown) else _observed(fact, value)
    if seen is None:
        return UNCHECKED
    if window_seconds:
        return Phrase("{observed} in {time}.", observed=seen, time=Span(window_seconds))
    return Phrase("{observed}.", observed=seen)


def _observed(name: str, value: Value) -> Phrase | None:
    fact = FACTS.get(name)
    if fact is None:
        return None
    says, key = fact.says, ""
    match value:
        case bool() if fact.type is Type.TRUTH:
            key = "yes" if value else "no"
        case Count() if fact.number:
            if value != NONE or "none" not in says:
                return _counted(says["many"], amount(value, share=fact.type is Type.SHARE))
            key = "none"
        case frozenset() if fact.type is Type.WORDS:
            key = "some" if value else "none"
        case str() if fact.type in (Type.WORD, Type.NETWORK):
            key = value if value in fact.words and value in says else "any"
    text = says.get(key)
    return Phrase(text) if isinstance(text, str) else None


def _counted(form: str | tuple[str, str], n: Amount) -> Phrase:
    return Phrase(form, n=n) if isinstance(form, str) else Phrase.counted(*form, n)


def amount(count: Count, *, share: bool) -> Amount:
    """Return a count as an amount, a share as percent."""
    return Amount(100 * count.low, 100 * count.high, percent=True) if share else Amount(count.low, count.high)


def percent(share: Count) -> str:
    """Return the observed value of a condition on a share: "25 %", "between 10 and 50 %"."""
    low, high = 100 * share.low, 100 * share.high
    return f"{low:.3g} %" if share.exact else f"between {low:.3g} and {high:.3g} %"


class Answer(enum.IntEnum):
    """PENDING: the fact has not been asked for yet."""

    NO = 0
    YES = 1
    UNKNOWN = 2
    PENDING = 3


NO, YES, UNKNOWN, PENDING = Answer.NO, Answer.YES, Answer.UNKNOWN, Answer.PENDING


class Pattern(Protocol):
    """A compiled google-re2 pattern: linear in the text."""

    def search(self, text: str) -> object | None: ...


SAME = " with the same mailing"
"""The ending of the slot of a count of copies of the message's own mailing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition(ABC):
    """``limit`` is the condition as it is written. ``window_seconds``: 0 if the fact is not counted over time.

    ``usual``: the count must also be above the usual; ``lists``: those that are counted, None for all; ``same``: only
    copies of the message's own mailing are counted. ``slot`` names its value among all values of a message: the fact,
    and what narrows it.
    """

    fact: Fact
    limit: str
    window_seconds: int = 0
    window: str = ""
    usual: Usual | None = None
    lists: frozenset[str] | None = None
    same: bool = False
    slot: str = field(init=False)

    def __post_init__(self) -> None:
        slot = f"{self.fact.name} in {self.window_seconds}" if self.window_seconds else self.fact.name
        if self.usual is not None:
            slot += f" from {self.usual.least:g} and x{self.usual.times:g}"
        if self.lists is not None:
            slot += f" of {' '.join(sorted(self.lists))}"
        if self.same:
            slot += SAME
        object.__setattr__(self, "slot", slot)

    def in_words(self) -> str:
        """Return the fact and the condition: "recipients.list_addresses is any"."""
        is_word = self.limit[:1].isalnum() and not isinstance(self, WordMatches | SetMatches)
        return f"{self.fact.name} {'is ' if is_word else ''}{self.limit}"

    @property
    def sense(self) -> Hashable:
        """Return its meaning, independent of notation: conditions of equal sense always give the same answer."""
        own = (f.name for f in fields(self) if f.name not in _WRITTEN)
        return (
            type(self).__name__,
            self.slot,
            *(self.limit if name == "pattern" else getattr(self, name) for name in own),
        )

    of: ClassVar[type]
    """The type of the values that it can answer for."""

    def test(self, value: Value) -> Answer:
        """Return the answer for a known value, or for Unknown."""
        if type(value) is not self.of:
            return UNKNOWN
        return YES if self._is_met(value) else NO

    @abstractmethod
    def _is_met(self, value: Any) -> bool: ...

    def answer(self, values: Mapping[str, Value]) -> Answer:
        value = values.get(self.slot)
        return PENDING if value is None else self.test(value)

    def reason(self, value: Value, evidence: tuple[str, ...] = ()) -> Reason:
        """Return the reason for its answer, with the public sentence and the private detail."""
        if isinstance(value, Within):
            value = value.count
        elif isinstance(value, Unknown) and self.test(value) is not UNKNOWN:
            value = value.known
        observed = journal_text(self.fact, value)
        name = f"{self.fact.name} in {self.window}" if self.window else self.fact.name
        parts = [f"{name} is {observed}, the condition {self.limit}", *evidence[:20]]
        return Reason(
            fact=self.fact.name,
            observed=observed,
            limit=self.limit,
            public=sentence(self.fact.name, value, self.window_seconds),
            detail="; ".join(parts),
        )


_WRITTEN = frozenset(f.name for f in fields(Condition))


def journal_text(fact: Fact, value: Value) -> str:
    """Return a value as the journal shows it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case Unknown():
            return f"unknown ({value.why})"
        case Count():
            return percent(value) if fact.type is Type.SHARE else str(value)
        case frozenset():
            return ", ".join(sorted(map(str, value))) or "none"
    return "unknown"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth(Condition):
    """``true`` or ``false``."""

    of = bool
    wanted: bool

    def _is_met(self, value: bool) -> bool:
        return value is self.wanted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Word(Condition):
    of = str
    words: frozenset[str]

    def _is_met(self, value: str) -> bool:
        return value in self.words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordMatches(Condition):
    """``{matches: PATTERN}`` on a word."""

    of = str
    pattern: Pattern

    def _is_met(self, value: str) -> bool:
        return self.pattern.search(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OfSet(Condition):
    """A condition on a set of words."""

    of = frozenset

    def test(self, value: Value) -> Answer:
        """Return the answer. Of a set of which only a part is known, it is the one that no further word can change."""
        if type(value) is frozenset:
            return YES if self._is_met(value) else NO
        if type(value) is not Unknown or not value.known:
            return UNKNOWN
        answer = YES if self._is_met(value.known) else NO
        return answer if answer is self._stays else UNKNOWN

    @property
    @abstractmethod
    def _stays(self) -> Answer:
        """The answer for a set with a word that stays, whatever words are added."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SomeWord(OfSet):
    """Any member is one of the words."""

    _stays = YES
    words: frozenset[str]

    def _is_met(self, value: frozenset[str]) -> bool:
        return not value.isdisjoint(self.words)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EveryWord(OfSet):
    """In ``unless``: the set has members, and all are among the words."""

    _stays = NO
    words: frozenset[str]

    def _is_met(self, value: frozenset[str]) -> bool:
        return bool(value) and value <= self.words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetMatches(OfSet):
    """``{matches: PATTERN}`` on a set: any member, or with ``every`` all of them if there are any."""

    pattern: Pattern
    every: bool

    @property
    def _stays(self) -> Answer:
        return NO if self.every else YES

    def _is_met(self, value: frozenset[str]) -> bool:
        found = (self.pattern.search(str(word)) is not None for word in value)
        return bool(value) and (all(found) if self.every else any(found))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InNetwork(Condition):
    of = str
    networks: tuple[Network, ...]

    def _is_met(self, value: str) -> bool:
        return within(value, self.networks)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Empty(OfSet):
    """``none`` (``wanted`` true) or ``any`` on a set."""

    wanted: bool

    @property
    def _stays(self) -> Answer:
        return NO if self.wanted else YES

    def _is_met(self, value: frozenset[str]) -> bool:
        return (not value) is self.wanted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Range(Condition):
    """``>= n``, ``> n`` (``beyond``), ``<= n``, ``< n`` (``below``), and ``between a and b``, both inclusive. ``== n`` is
    between n and n; of a count, ``none`` is ``== 0`` and ``any`` is ``>= 1``."""

    of = Count
    least: float = -inf
    most: float = inf
    beyond: bool = False
    below: bool = False

    def test(self, value: Value) -> Answer:
        """Return the answer. It is PENDING for a count of which only the bounds are known, unless these decide."""
        if type(value) is Within:
            return PENDING if (answer := self.test(value.count)) is UNKNOWN else answer
        if type(value) is not Count:
            return UNKNOWN
        if self._is_met(value):
            return YES
        return UNKNOWN if self._reaches(value.high) and self._keeps_to(value.low) else NO

    def _is_met(self, value: Count) -> bool:
        return self._reaches(value.low) and self._keeps_to(value.high)

    def _reaches(self, n: float) -> bool:
        return n > self.least or (n == self.least and not self.beyond)

    def _keeps_to(self, n: float) -> bool:
        return n < self.most or (n == self.most and not self.below)

    def implies(self, other: Range) -> bool:
        """Return whether it is a part of the other."""
        return (self.least, self.beyond) >= (other.least, other.beyond) and (-self.most, self.below) >= (
            -other.most,
            other.below,
        )
