"""Whether one condition implies another, whether one rule is at least as strict as another, also if the facts of a message
shift one way, and whether any message can hit a rule. Pure.

Answers are ordered no, unknown, yes. A condition implies another if the other's answer is never below its own, whatever
the value of the fact. False means "cannot be shown".

Whether a message can hit a rule is found by trying the values at which one of its conditions changes its answer. A rule
has few conditions and each has few such values, so all their combinations can be tried, except those that no message
has: two recipients cannot be three colleagues. Patterns, and rules with too many combinations, are taken to be possible.

Facts shift if a count rises, another recipient turns out to be a customer or a list, or an origin is proven or no longer
proven. ``unless``: the condition is of an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from math import inf, isfinite, prod

from smtpguard.mail.envelope import Network
from smtpguard.policy.condition import (
    YES,
    Condition,
    Empty,
    EveryWord,
    InNetwork,
    Range,
    SetMatches,
    SomeWord,
    Truth,
    Word,
    WordMatches,
)
from smtpguard.policy.facts import FACTS, OF_LETTERS, SIZE, Count, Part, Source, Type, Value, named
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Scope
from smtpguard.reading.marks import KINDS


def implies(one: Condition, other: Condition) -> bool:
    """Return whether one condition implies another. Both must be on the same fact and, if it is counted, over the
    same time; else the result is False."""
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
        case Range(), Range():
            return one.implies(other)
    return False


def _narrower(one: Condition, other: Condition) -> bool:
    """Return whether the one is a count over the same time, of fewer lists or one mailing, or that must be further
    above the usual."""
    if not (isinstance(one, Range) and isinstance(other, Range)):
        return False
    if (one.fact, one.window_seconds) != (other.fact, other.window_seconds):
        return False
    if other.lists is not None and (one.lists is None or not one.lists <= other.lists):
        return False
    if other.same and not one.same:
        return False
    # The usual number is counted like the number itself: for the same mailing alone it is mostly 0.
    if other.usual is not None and (
        one.usual is None or one.usual.times < other.usual.times or one.same is not other.same
    ):
        return False
    return one.implies(other)


def added(old: Sequence[Condition], new: Sequence[Condition]) -> tuple[Condition, ...]:
    """Return the conditions of ``new`` that the conditions of ``old`` together do not imply."""
    return tuple(c for c in new if not any(implies(before, c) for before in old))


def excepted(old: Sequence[Condition], new: Sequence[Condition]) -> tuple[Condition, ...]:
    """Return the conditions of the exception ``old`` that the exception ``new`` no longer has; if ``old`` is empty,
    all of ``new``."""
    if not new:
        return ()
    if not old:
        return tuple(new)
    return tuple(c for c in old if not any(implies(after, c) for after in new))


def rule_implies(new: Rule, old: Rule) -> bool:
    """Return whether ``new`` takes effect wherever ``old`` did, at least as strictly, also on unknown facts."""
    if old.stop_seconds and (new.rule_id != old.rule_id or new.stop_seconds < old.stop_seconds):
        return False
    if old.mode is Mode.ENFORCE and new.mode is not Mode.ENFORCE:
        return False
    if new.then < old.then or (new.scope is Scope.CUSTOMERS and old.scope is Scope.ALL):
        return False
    if old.then is Action.CONFIRM is new.then:
        shorter = new.within_seconds == old.within_seconds or 0 < new.within_seconds < old.within_seconds
        if not shorter or new.expires < old.expires:  # others may decide then only if they could before
            return False
    return not added(old.when, new.when) and not excepted(old.unless, new.unless)


_PATIENCE = 50_000
_OTHER = "something else"
_NUMBERS = (Type.COUNT, Type.SHARE)
_PATTERNS = (WordMatches, SetMatches)


def can_hit(rule: Rule) -> bool:
    return _any(rule.when, () if any(isinstance(c, _PATTERNS) for c in rule.unless) else rule.unless)


def can_meet(rule: Rule) -> bool:
    """Return whether any message meets its ``when``, regardless of exceptions."""
    return _any(rule.when, ())


def can_be(condition: Condition) -> bool:
    return _any([condition], ())


def _any(when: Iterable[Condition], unless: Sequence[Condition]) -> bool:
    asked = [c for c in when if not isinstance(c, _PATTERNS)]
    slots: dict[str, list[Condition]] = {}
    for one in (*asked, *unless):
        slots.setdefault(one.slot, []).append(one)
    ranges = [c for c in (*asked, *unless) if isinstance(c, Range)]
    numbers = {
        type_: {n for c in ranges if c.fact.type is type_ for n in (c.least, c.most) if isfinite(n)}
        for type_ in _NUMBERS
    }
    tries = {slot: _tries(some, numbers.get(some[0].fact.type, ())) for slot, some in slots.items()}
    if prod(map(len, tries.values())) > _PATIENCE:
        return True
    for combination in product(*tries.values()):
        values = dict(zip(tries, combination, strict=True))
        if (
            all(c.answer(values) is YES for c in asked)
            and not (unless and all(c.answer(values) is YES for c in unless))
            and _possible(values)
        ):
            return True
    return False


def _tries(conditions: Sequence[Condition], numbers: Collection[float]) -> list[Value]:
    """Values of one fact that produce every possible answer. ``numbers``: the bounds of all facts of its type in the
    rule, since facts may depend on each other."""
    fact = conditions[0].fact
    match fact.type:
        case Type.TRUTH:
            return [True, False]
        case Type.WORD:
            words = {word for c in conditions if isinstance(c, Word) for word in c.words}
            return [*sorted(words), *(fact.words or (_OTHER,))]
        case Type.NETWORK:
            networks = [network for c in conditions if isinstance(c, InNetwork) for network in c.networks]
            return [*dict.fromkeys(address for network in networks for address in _edges(network)), _OTHER]
        case Type.WORDS:
            words = {word for c in conditions if isinstance(c, SomeWord | EveryWord) for word in c.words}
            return [frozenset(), *(frozenset({word}) for word in (*sorted(words), _OTHER)), frozenset({*words, _OTHER})]
        case Type.COUNT | Type.SHARE:
            if fact.type is Type.COUNT and fact.name != SIZE:
                bounds = {0.0, 1.0, *(n + d for n in numbers for d in (-1, 0, 1))}
                return [Count.exactly(n) for n in sorted(bounds) if n >= 0]
            most = 1.0 if fact.type is Type.SHARE else max(numbers, default=0) + 1
            ends = sorted({0.0, most, *numbers})
            between = [(low + high) / 2 for low, high in pairwise(ends)]  # these are no whole numbers
            return [Count.exactly(n) for n in (*ends, *between)]


def _edges(network: Network) -> Iterator[str]:
    """Yield the first and last address of a network, and their neighbours outside."""
    first, last, most = int(network[0]), int(network[-1]), 1 << network.max_prefixlen
    kind = type(network[0])
    yield from (str(kind(n)) for n in (first - 1, first, last, last + 1) if 0 <= n < most)


def _count(values: Mapping[str, Value], name: str, otherwise: float) -> float:
    value = values.get(name)
    return value.low if isinstance(value, Count) else otherwise


def _no_more(less: str, more: str) -> Callable[[Mapping[str, Value]], bool]:
    return lambda values: _count(values, less, 0) <= _count(values, more, float("inf"))


def _touches(count: str) -> Callable[[Mapping[str, Value]], bool]:
    """A person reached on a list implies a touched list."""
    return lambda values: (
        _count(values, count, 0) == 0 or frozenset() not in (values.get("recipients.lists"), values.get("recipients.audience"))
    )  # fmt: skip


_LAWS: Sequence[Callable[[Mapping[str, Value]], bool]] = (
    lambda values: _count(values, "recipients.total", 1) >= 1,
    *(_no_more(fact.name, fact.at_most) for fact in FACTS.values() if fact.at_most),
    *(_no_more(fact.own, fact.name) for fact in FACTS.values() if fact.own),
    *(_touches(f"recipients.{kind}") for kind in ("list_addresses", "members", "customers", "undisclosed")),
)
"""Invariants of every message."""


def _possible(values: Mapping[str, Value]) -> bool:
    return all(law(values) for law in _LAWS)


_COUNTS = ("recipients.", "mailing.", "list.", "sender.", "thread.")
_GROW = named(lambda f: f.type is Type.WORDS and Part.MEMBERSHIP in f.parts and f.source is not Source.ORIGIN)
"""Sets of properties of the lists touched, which grow with another list."""
_OF_COLLEAGUES = frozenset({"contradiction", *(kind.name for kind in KINDS.values() if kind.group == "people")})
"""Marks of colleagues among the recipients, and of what contradicts them."""
FALL = frozenset({"recipients.internal", "recipients.outside"})
"""Counts that fall when another recipient turns out to be a list, or on one."""


def stricter_if_higher(condition: Condition, unless: bool) -> bool:
    """Return whether the rule gets no looser if the count rises."""
    return isinstance(condition, Range) and (-condition.least if unless else condition.most) == inf


def stricter_if_lower(condition: Condition, unless: bool) -> bool:
    """Return whether the rule gets no looser if the count falls."""
    return isinstance(condition, Range) and (condition.most if unless else -condition.least) == inf


def _stricter_if_true(condition: Condition, unless: bool) -> bool:
    """Return whether the rule gets no looser if the condition becomes true."""
    return isinstance(condition, Truth) and condition.wanted is not unless


def _stricter_if_false(condition: Condition, unless: bool) -> bool:
    """Return whether the rule gets no looser if the condition becomes false."""
    return isinstance(condition, Truth) and condition.wanted is unless


def stricter_by_touch(condition: Condition, unless: bool) -> bool:
    """Return whether a rule gets no looser if a recipient turns out to be on a list, or to be a list address. Then
    there are more lists, audiences and counts, not more colleagues or people outside, no stream, and possibly no
    longer correspondence or a writer of all lists. It may answer all its customers, now that it has any, or no
    longer."""
    name, is_none = condition.fact.name, isinstance(condition, Empty) and condition.wanted
    if name in _GROW:
        return is_none is unless
    if name == "stream":
        return is_none is not unless
    if name == "message.answers":
        return False
    if name in ("message.correspondence", "sender.is_writer"):
        return _stricter_if_false(condition, unless)
    if name in FALL:
        return stricter_if_lower(condition, unless)
    if name.startswith(_COUNTS) and condition.fact.number and name != "recipients.total":
        return stricter_if_higher(condition, unless)
    return True


def stricter_by_proof(condition: Condition, unless: bool) -> bool:
    """Return whether a rule gets no looser if a message provably comes from the origin of a list. Then it may be a
    mailing, which is no letter, and be automatic."""
    if condition.fact.name == "message.looks":
        return isinstance(condition, Word) and ("mailing" in condition.words) is not unless
    if condition.fact.name in ("sender.proven", "message.automatic"):
        return _stricter_if_true(condition, unless)
    return condition.fact.name not in OF_LETTERS


def stricter_by_list(condition: Condition, unless: bool) -> bool:
    """Return whether a rule gets no looser if a colleague's address among the recipients is a list's. Then it looks
    less internal, and may look like a mailing, which is no letter."""
    if condition.fact.name == "message.marks":
        return isinstance(condition, SomeWord) and not unless and condition.words.isdisjoint(_OF_COLLEAGUES)
    if condition.fact.name != "message.looks":
        return condition.fact.name not in OF_LETTERS
    looks = ("mailing", "unclear", "internal")[:: 1 if unless else -1]
    return isinstance(condition, Word) and all(
        after in condition.words for before, after in pairwise(looks) if before in condition.words
    )


def stricter_by_doubt(condition: Condition, unless: bool) -> bool:
    """Return whether a rule gets no looser if nothing proves the origin of a message any more, or its writer is none."""
    name = condition.fact.name
    if name == "stream":
        return (isinstance(condition, Empty) and condition.wanted) is not unless
    if name == "message.looks":
        if not isinstance(condition, Word):
            return False
        return condition.words <= {"mailing"} if unless else "mailing" not in condition.words
    if name in ("sender.proven", "sender.is_writer", "message.automatic"):
        return _stricter_if_false(condition, unless)
    return name not in OF_LETTERS or stricter_if_higher(condition, unless)
