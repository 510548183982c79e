"""Whether a condition keeps its rule as strict if the facts of a message shift one way: a count rises, another recipient
turns out to be a customer or a list, an origin is proven or no longer proven. ``unless``: it is a condition of an exception. Pure.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf

from smtpguard.policy.condition import Condition, Empty, Range, SomeWord, Truth, Word
from smtpguard.policy.facts import OF_LETTERS, Part, Source, Type, named
from smtpguard.reading.looks import KINDS

_COUNTS = ("recipients.", "mailing.", "list.", "sender.", "thread.")
_GROW = named(lambda f: f.type is Type.WORDS and Part.MEMBERSHIP in f.parts and f.source is not Source.ORIGIN)
"""Sets of properties of the lists touched, which grow with another list."""
_OF_COLLEAGUES = frozenset({"contradiction", *(kind.name for kind in KINDS.values() if kind.group == "people")})
"""Marks of colleagues among the recipients, and of what contradicts them."""
FALL = frozenset({"recipients.internal", "recipients.outside"})
"""Counts that fall when another recipient turns out to be a list, or on one."""


def rises(condition: Condition, unless: bool) -> bool:
    """Whether the rule gets no looser if the count rises."""
    return isinstance(condition, Range) and (-condition.least if unless else condition.most) == inf


def falls(condition: Condition, unless: bool) -> bool:
    """Whether the rule gets no looser if the count falls."""
    return isinstance(condition, Range) and (condition.most if unless else -condition.least) == inf


def _comes(condition: Condition, unless: bool) -> bool:
    """Whether the rule gets no looser if it becomes true."""
    return isinstance(condition, Truth) and condition.wanted is not unless


def _goes(condition: Condition, unless: bool) -> bool:
    """Whether the rule gets no looser if it becomes false."""
    return isinstance(condition, Truth) and condition.wanted is unless


def stricter_by_touch(condition: Condition, unless: bool) -> bool:
    """Whether a rule gets no looser if a recipient turns out to be on a list, or to be a list address. Then there are
    more lists, audiences and counts, not more colleagues or people outside, no stream, and possibly no longer
    correspondence or a writer of all lists. It may answer all its customers, now that it has any, or no longer."""
    name, is_none = condition.fact.name, isinstance(condition, Empty) and condition.wanted
    if name in _GROW:
        return is_none is unless
    if name == "stream":
        return is_none is not unless
    if name == "message.answers":
        return False
    if name in ("message.correspondence", "sender.is_writer"):
        return _goes(condition, unless)
    if name in FALL:
        return falls(condition, unless)
    if name.startswith(_COUNTS) and condition.fact.number and name != "recipients.total":
        return rises(condition, unless)
    return True


def stricter_by_proof(condition: Condition, unless: bool) -> bool:
    """Whether a rule gets no looser if a message provably comes from the origin of a list. Then it may be a mailing,
    which is no letter, and be automatic."""
    if condition.fact.name == "message.looks":
        return isinstance(condition, Word) and ("mailing" in condition.words) is not unless
    if condition.fact.name in ("sender.proven", "message.automatic"):
        return _comes(condition, unless)
    return condition.fact.name not in OF_LETTERS


def stricter_by_list(condition: Condition, unless: bool) -> bool:
    """Whether a rule gets no looser if a colleague's address among the recipients is a list's. Then it looks less
    internal, and may look like a mailing, which is no letter."""
    if condition.fact.name == "message.marks":
        return isinstance(condition, SomeWord) and not unless and condition.words.isdisjoint(_OF_COLLEAGUES)
    if condition.fact.name != "message.looks":
        return condition.fact.name not in OF_LETTERS
    looks = ("mailing", "unclear", "internal")[:: 1 if unless else -1]
    return isinstance(condition, Word) and all(
        after in condition.words for before, after in pairwise(looks) if before in condition.words
    )


def stricter_by_doubt(condition: Condition, unless: bool) -> bool:
    """Whether a rule gets no looser if nothing proves the origin of a message any more, or its writer is none."""
    name = condition.fact.name
    if name == "stream":
        return (isinstance(condition, Empty) and condition.wanted) is not unless
    if name == "message.looks":
        if not isinstance(condition, Word):
            return False
        return condition.words <= {"mailing"} if unless else "mailing" not in condition.words
    if name in ("sender.proven", "sender.is_writer", "message.automatic"):
        return _goes(condition, unless)
    return name not in OF_LETTERS or rises(condition, unless)
