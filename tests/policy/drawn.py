"""Hypothesis strategies for policies and messages."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

from hypothesis import strategies as st

from smtpguard.policy.counted import Live
from smtpguard.policy.engine import Plan, RuleSet
from smtpguard.policy.facts import FACTS, Count, Fact, Facts, Source, Type, Unknown, Value
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.grammar import ConditionNames, condition
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Quorum, Scope

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
LISTS = ("news", "offers")
WORDS = ("a", "b", "c")
NETWORKS = ("192.0.2.0/25", "192.0.2.7", "2001:db8::/32")
ADDRESSES = ("192.0.2.7", "192.0.2.200", "2001:db8::1", "198.51.100.1")
ASKED = [f for f in FACTS.values() if f.source is not Source.LIVE]
KNOWN = ConditionNames()

# Hypothesis validates each strategy that it has not seen before, so these are made once.
_numbers = st.integers(0, 6)
EVERY = tuple(sorted(FACTS))
_thens = st.sampled_from([Action.CONFIRM, Action.HOLD, Action.DEFER, Action.REJECT])
_modes = st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE])
_scopes = st.sampled_from(list(Scope))
_answers = st.sampled_from([Action.HOLD, Action.DEFER])
_chances = st.integers(0, 9999)
_some_words = st.frozensets(st.sampled_from(WORDS))
_some_lists = st.frozensets(st.sampled_from(LISTS))
_blurs = st.sampled_from(["same", "same", "unknown", "wide"])
_truth = st.booleans()
_selectors = st.sampled_from([None, None, None, *Selector])
_maybes = st.sampled_from([0, 0, 3])
_mailings = st.sampled_from(["", "mailing"])


def raw_conditions(fact: Fact) -> st.SearchStrategy[object]:
    """A condition on ``fact`` as written in a policy."""
    return _raw_conditions(fact.name)


@cache
def _raw_conditions(name: str) -> st.SearchStrategy[object]:
    fact = FACTS[name]
    window = " in 1h" if fact.windowed else ""
    match fact.type:
        case Type.TRUTH:
            return st.booleans()
        case Type.WORD:
            words = fact.words or tuple(f"{w}@example.com" for w in WORDS)
            return st.lists(st.sampled_from(words), min_size=1, max_size=2)
        case Type.NETWORK:
            return st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=2)
        case Type.WORDS:
            listed = st.lists(st.sampled_from(fact.words or WORDS), min_size=1, max_size=2)
            patterns = [] if fact.words else [st.just({"matches": "[ab]"})]
            return st.one_of(st.sampled_from(["any", "none"]), listed, *patterns)
        case Type.SHARE:
            return st.sampled_from([f"{c}{window}" for c in (">= 0.5", "< 0.5", "> 0", "between 25 % and 75 %")])
    compared = st.builds(lambda op, n: f"{op} {n}{window}", st.sampled_from([">=", ">", "<", "<=", "=="]), _numbers)
    between = st.builds(lambda a, b: f"between {min(a, b)} and {max(a, b)}{window}", _numbers, _numbers)
    return st.one_of(compared, between)


@cache
def _facts_of(among: tuple[str, ...], least: int, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(among), min_size=least, max_size=most, unique=True)


@cache
def rules(name: str = "rule", among: tuple[str, ...] = EVERY) -> st.SearchStrategy[Rule]:
    """``among``: the facts that they ask."""
    return _rules(name, among)


@st.composite
def _rules(draw: st.DrawFn, name: str, among: tuple[str, ...]) -> Rule:
    def some(least: int, most: int, every: bool) -> tuple:  # type: ignore[type-arg]
        facts = draw(_facts_of(among, least, most))
        return tuple(
            condition(FACTS[f], draw(raw_conditions(FACTS[f])), every=every, known=KNOWN) for f in facts
        )  # fmt: skip

    then = draw(_thens)
    return Rule(
        rule_id=name,
        then=then,
        when=some(1, 3, False),
        unless=some(0, 2, True),
        mode=draw(_modes),
        scope=draw(_scopes) if then.waits else Scope.ALL,
        expires=then is Action.CONFIRM and draw(_truth),
    )


@cache
def rule_sets(most: int = 5, among: tuple[str, ...] = EVERY) -> st.SearchStrategy[RuleSet]:
    return _rule_sets(st.integers(0, most), among)


@st.composite
def _rule_sets(draw: st.DrawFn, counts: st.SearchStrategy[int], among: tuple[str, ...]) -> RuleSet:
    count = draw(counts)
    return RuleSet(
        rules=tuple(draw(rules(f"rule-{n}", among)) for n in range(count)),
        sha256="0" * 64,
        quorums={"news": Quorum(groups=("editors",), list="news")},
        approvals=Quorum(groups=("communications",)),
        freeze_answer=draw(_answers),
    )


def with_rule(ruleset: RuleSet, rule: Rule) -> RuleSet:
    return replace(ruleset, rules=(*ruleset.rules, rule))


def values(fact: Fact) -> st.SearchStrategy[Value]:
    """A known value of the fact."""
    return _values(fact.name)


@cache
def _values(name: str) -> st.SearchStrategy[Value]:
    fact = FACTS[name]
    match fact.type:
        case Type.TRUTH:
            return st.booleans()
        case Type.WORD:
            return st.sampled_from(fact.words or tuple(f"{w}@example.com" for w in WORDS))
        case Type.NETWORK:
            return st.sampled_from(ADDRESSES)
        case Type.WORDS:
            return st.frozensets(st.sampled_from(WORDS))
        case Type.SHARE:
            return st.sampled_from([Count(n / 4, n / 4) for n in range(5)])
    return st.builds(Count.exactly, _numbers)


def _some(fact: Fact, chance: random.Random) -> Value:
    match fact.type:
        case Type.TRUTH:
            return chance.random() < 0.5
        case Type.WORD:
            return chance.choice(fact.words or tuple(f"{w}@example.com" for w in WORDS))
        case Type.NETWORK:
            return chance.choice(ADDRESSES)
        case Type.WORDS:
            return frozenset(w for w in WORDS if chance.random() < 0.5)
        case Type.SHARE:
            return Count.exactly(chance.randrange(5) / 4)
    return Count.exactly(chance.randrange(7))


def asked(*rulesets: RuleSet) -> list[str]:
    """The facts that the rules use, in order."""
    named = {c.fact.name for rules in rulesets for rule in rules.rules for c in rule.conditions}
    return [f.name for f in ASKED if f.name in named]


@st.composite
def facts(draw: st.DrawFn, *rulesets: RuleSet) -> Facts:
    """All facts, known. Facts that no rule uses are derived from one random number: drawing each would take most of the
    time."""
    chance = random.Random(draw(_chances))
    some = {f.name: _some(f, chance) for f in ASKED}
    return Facts(
        values={**some, **{name: draw(values(FACTS[name])) for name in asked(*rulesets)}},
        evidence={"message.looks": ("a mark",)},
        lists=draw(_some_lists),
        senders=frozenset({"a@example.com"}),
        thread="thread",
    )


def with_values(known: Facts, values: Mapping[str, Value]) -> Facts:
    """The same message with these values added."""
    return replace(known, values={**known.values, **values})


@st.composite
def blurred(draw: st.DrawFn, known: Facts, *rulesets: RuleSet) -> Facts:
    """The same message with some values unknown, some counts widened to intervals, and some sets known in part."""
    less: dict[str, Value] = {}
    for name in asked(*rulesets):
        value = known.values[name]
        how = draw(_blurs)
        if how == "unknown":
            less[name] = Unknown(why="nobody answered")
        elif how == "wide" and isinstance(value, Count):
            less[name] = Count(max(0, value.low - draw(_numbers)), value.high + draw(_numbers))
        elif how == "wide" and isinstance(value, frozenset):
            less[name] = Unknown(why="not all was read", known=value & draw(_some_words))
    return with_values(known, less)


@st.composite
def lives(draw: st.DrawFn, plan: Plan) -> Live:
    """What the admission saw: all counts that the plan asked for, and perhaps a freeze."""
    selector = draw(_selectors)
    value = {
        Selector.LIST: "news",
        Selector.SENDER: "a@example.com",
        Selector.MAILING: "mailing",
        Selector.THREAD: "other",
    }
    freezes = () if selector is None else (
        Freeze(freeze_id="F", selector=selector, value=value.get(selector, ""), reason="a fire", by="omar", at=NOW),
    )  # fmt: skip
    return Live(
        now=NOW,
        freezes=freezes,
        counts={ask: draw(_numbers) for ask in plan.asks},
        maybe={ask: draw(_maybes) for ask in plan.asks},
        mailing_id=draw(_mailings),
        approved=draw(_truth),
    )
