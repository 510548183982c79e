"""Whether one condition implies another, and whether one rule is at least as strict as another, for every message.

Answers are ordered no, unknown, yes. A condition implies another if the other's answer is never below its own, whatever
the value of the fact. False means "cannot be shown".
"""

from __future__ import annotations

from collections.abc import Sequence

from smtpguard.policy.condition import (
    AtLeast,
    AtMost,
    Between,
    Condition,
    Empty,
    EveryWord,
    SetMatches,
    SomeWord,
    Truth,
    Word,
    WordMatches,
)
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Scope


def implies(one: Condition, other: Condition) -> bool:
    """Both must be on the same fact and, if it is counted, over the same time; else the result is False."""
    if one.slot != other.slot:
        return _narrower(one, other)
    if one.sense == other.sense:
        return True
    match one, other:
        case Truth(), Truth():
            return one.wanted is other.wanted
        case Word(), Word():
            return one.words <= other.words
        case Word(), WordMatches():
            return all(other.pattern.search(word) for word in one.words)
        case SomeWord(), SomeWord():
            return one.words <= other.words
        case EveryWord(), EveryWord() | SomeWord():
            return one.words <= other.words
        case (SomeWord() | EveryWord() | SetMatches(), Empty()):
            return not other.wanted
        case AtLeast(), AtLeast():
            return _above(one.n, one.beyond, other)
        case Between(), AtLeast():
            return _above(one.least, False, other)
        case AtMost(), AtMost():
            return _below(one.n, one.below, other)
        case Between(), AtMost():
            return _below(one.most, False, other)
        case Between(), Between():
            return other.least <= one.least and one.most <= other.most
    return False


def _narrower(one: Condition, other: Condition) -> bool:
    """A count over the same time, of fewer lists or one mailing, or that must be further above the usual."""
    if not (isinstance(one, AtLeast) and isinstance(other, AtLeast)):
        return False
    if (one.fact, one.window_seconds) != (other.fact, other.window_seconds):
        return False
    if other.lists is not None and (one.lists is None or not one.lists <= other.lists):
        return False
    if other.same and not one.same:
        return False
    if other.usual is not None and (one.usual is None or one.usual.times < other.usual.times):
        return False
    return _above(one.n, one.beyond, other)


def _above(n: float, beyond: bool, other: AtLeast) -> bool:
    return n > other.n or (n == other.n and (beyond or not other.beyond))


def _below(n: float, below: bool, other: AtMost) -> bool:
    return n < other.n or (n == other.n and (below or not other.below))


def added(old: Sequence[Condition], new: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions of ``new`` that the conditions of ``old`` together do not imply."""
    return tuple(c for c in new if not any(implies(before, c) for before in old))


def excepted(old: Sequence[Condition], new: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions of the exception ``old`` that the exception ``new`` no longer has; if ``old`` is empty, all of
    ``new``."""
    if not new:
        return ()
    if not old:
        return tuple(new)
    return tuple(c for c in old if not any(implies(after, c) for after in new))


def rule_implies(new: Rule, old: Rule) -> bool:
    """Whether ``new`` takes effect wherever ``old`` did, at least as strictly, also on unknown facts."""
    if old.stop_seconds and (new.rule_id != old.rule_id or new.stop_seconds < old.stop_seconds):
        return False
    if old.mode is Mode.ENFORCE and new.mode is not Mode.ENFORCE:
        return False
    if new.then < old.then or (new.scope is Scope.CUSTOMERS and old.scope is Scope.ALL):
        return False
    if old.then is Action.CONFIRM is new.then and not _asks_no_longer(new, old):
        return False
    return not added(old.when, new.when) and not excepted(old.unless, new.unless)


def _asks_no_longer(new: Rule, old: Rule) -> bool:
    """Whether the writer is asked for no longer time, and others may decide then only if they could before."""
    shorter = new.within_seconds == old.within_seconds or 0 < new.within_seconds < old.within_seconds
    return shorter and new.expires >= old.expires
