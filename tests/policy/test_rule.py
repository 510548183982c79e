"""Rules: those of equal sense answer alike, the sieve drops none that may hit, one that no message can hit is found, and which holds a
freeze stops.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.holds.model import held_up_by
from smtpguard.policy.approvals import Groups
from smtpguard.policy.condition import NO, YES
from smtpguard.policy.engine import RuleIndex
from smtpguard.policy.facts import FACTS, Count, Facts, Type, Value
from smtpguard.policy.freezing import Freeze, Selectable, Selector, stopped_by
from smtpguard.policy.grammar import ConditionNames, condition
from smtpguard.policy.implication import _possible, can_be, can_hit, can_meet
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Scope
from tests.every import every
from tests.holds.test_model import NOON, hold
from tests.policy import drawn
from tests.policy.drawn import asked, blurred, facts, rule_sets

KNOWN = ConditionNames(
    groups=Groups(
        people={"one": frozenset({"eva@example.com"}), "more": frozenset({"eva@example.com", "bo@example.com"})}
    )
)


def rule(when: dict[str, Any], unless: dict[str, Any] | None = None, **more: Any) -> Rule:
    def made(raw: dict[str, Any], every: bool) -> tuple[Any, ...]:
        return tuple(condition(FACTS[f], value, every=every, known=KNOWN) for f, value in raw.items())

    values: dict[str, Any] = {"rule_id": "a", "then": Action.HOLD} | more
    return Rule(when=made(when, False), unless=made(unless or {}, True), **values)


TO_A_LIST = rule({"recipients.list_addresses": "any", "message.looks": ["internal", "unclear"]})

ALIKE = {
    "another order": rule({"message.looks": ["unclear", "internal"], "recipients.list_addresses": "any"}),
    "another spelling": rule({"recipients.list_addresses": ">= 1", "message.looks": ["internal", "unclear"]}),
    "another name, and something else to do": replace(
        TO_A_LIST, rule_id="b", then=Action.REJECT, mode=Mode.OBSERVE, scope=Scope.CUSTOMERS, description="Never", explain=True
    ),
}  # fmt: skip
OTHERS = {
    "another limit": (rule({"recipients.total": ">= 2"}), rule({"recipients.total": ">= 3"})),
    "beyond the same limit": (rule({"recipients.total": ">= 2"}), rule({"recipients.total": "> 2"})),
    "another fact": (rule({"recipients.total": ">= 2"}), rule({"recipients.reach": ">= 2"})),
    "another time": (rule({"sender.customers": ">= 2 in 1h"}), rule({"sender.customers": ">= 2 in 2h"})),
    "another pattern": (rule({"sender.address": {"matches": "a"}}), rule({"sender.address": {"matches": "b"}})),
    "a group with others in it": (rule({"sender.address": {"group": "one"}}), rule({"sender.address": {"group": "more"}})),
    "the same as an exception": (
        rule({"recipients.total": ">= 2", "recipients.lists": "any"}),
        rule({"recipients.total": ">= 2"}, {"recipients.lists": "any"}),
    ),
    "any word, and every word": (rule({"recipients.total": 1}, {"recipients.lists": ["a"]}), rule({"recipients.total": 1}, {"recipients.lists": {"matches": "a"}})),
    "a rest under another name": (
        rule({"thread.replies": ">= 3 in 10m"}, stop_seconds=60),
        rule({"thread.replies": ">= 3 in 10m"}, stop_seconds=60, rule_id="b"),
    ),
    "no rest": (rule({"thread.replies": ">= 3 in 10m"}), rule({"thread.replies": ">= 3 in 10m"}, stop_seconds=60)),
}  # fmt: skip


@every("name", ALIKE)
def test_equal_rules_have_equal_sense(name: str) -> None:
    assert ALIKE[name].sense == TO_A_LIST.sense


@every("name", OTHERS)
def test_different_rules_have_different_sense(name: str) -> None:
    one, other = OTHERS[name]
    assert one.sense != other.sense


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_rules_of_equal_sense_answer_alike(data: st.DataObject) -> None:
    """Rules of equal sense answer alike. There are few conditions to draw from, so two often have the same sense."""
    when = st.fixed_dictionaries(
        {}, optional={"recipients.total": st.sampled_from(["any", ">= 1", "> 1", 1, "== 1"]), "message.looks": st.sampled_from(["internal", ["internal"]])}
    ).filter(bool)  # fmt: skip
    one, other = rule(data.draw(when)), rule(data.draw(when), rule_id="b")
    facts = data.draw(drawn.facts())
    if one.sense == other.sense:
        assert one.answer(facts.values) is other.answer(facts.values)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_rules_that_may_hit_are_kept(data: st.DataObject) -> None:
    rules = data.draw(rule_sets(8))
    known: Facts = data.draw(blurred(data.draw(facts(rules)), rules))
    some = {name: known.values[name] for name in asked(rules) if data.draw(st.booleans())}
    slots = sorted({c.slot for rule in rules.rules for c in rule.conditions})
    left = list(RuleIndex(rules.rules, slots).may_hit([some.get(slot) for slot in slots]))
    assert left == sorted(set(left))
    assert {n for n, rule in enumerate(rules.rules) if rule.answer(some) is not NO} <= set(left)


def test_of_a_thousand_rules_few_are_kept() -> None:
    known = ConditionNames(words={"recipients.lists": tuple(f"list{n}" for n in range(1000))})

    def of_list(n: int) -> Rule:
        when = {"recipients.lists": [f"list{n}"], "recipients.customers": f">= {n + 1}", "message.looks": "internal"}
        conditions = tuple(condition(FACTS[name], raw, every=False, known=known) for name, raw in when.items())
        return Rule(rule_id=f"r{n}", then=Action.HOLD, when=conditions)

    rules = [of_list(n) for n in range(1000)]
    slots = ("message.looks", "recipients.customers", "recipients.lists")
    sieve = RuleIndex(rules, slots)

    def left(*values: Value | None) -> list[int]:
        return list(sieve.may_hit(values))

    assert left("internal", Count.exactly(2000), frozenset({"list7", "list500"})) == [7, 500]
    assert left("internal", Count.exactly(8), frozenset({"list7", "list500"})) == [7]
    assert left("mailing", Count.exactly(2000), frozenset({"list7"})) == []
    assert left(None, Count.exactly(3), None) == [0, 1, 2]


KEPT: dict[str, Any] = {"lists": ("news",), "mailing_id": "M1", "thread": "<1@example.com>"}


def freeze(selector: Selector, value: str = "", *, id: str = "F1", hours: int | None = None) -> Freeze:
    until = NOON + timedelta(hours=hours) if hours is not None else None
    return Freeze(freeze_id=id, selector=selector, value=value, reason="a fire", by="root", at=NOON, until=until)


@every(
    ("one", "stops"),
    [
        (freeze(Selector.ALL), True),
        (freeze(Selector.LIST, "news"), True),
        (freeze(Selector.LIST, "ramadan"), False),
        (freeze(Selector.SENDER, "anna@example.com"), True),
        (freeze(Selector.SENDER, "ulf@example.com"), False),
        (freeze(Selector.MAILING, "M1"), True),
        (freeze(Selector.MAILING, "M2"), False),
        (freeze(Selector.MAILING, ""), False),
        (freeze(Selector.THREAD, "<1@example.com>"), True),
        (freeze(Selector.THREAD, "<2@example.com>"), False),
        (freeze(Selector.ALL, hours=1), True),
        (freeze(Selector.ALL, hours=0), True),  # until it is lifted
    ],
)
def test_each_selector_stops_what_it_selects(one: Freeze, stops: bool) -> None:
    assert bool(held_up_by(hold(**KEPT), (one,))) is stops


def test_a_freeze_of_a_sender_stops_the_account_of_that_name() -> None:
    """A login without a domain, or with any, is no address; and its From may be another's."""
    account = Selectable(senders=frozenset({"bo@example.com", "login anna"}))
    assert freeze(Selector.SENDER, "anna@example.com").stops(account)
    assert not freeze(Selector.SENDER, "ann@example.com").stops(account)


def test_an_empty_value_selects_nothing() -> None:
    for selector in (Selector.MAILING, Selector.THREAD, Selector.LIST):
        assert held_up_by(hold(), (freeze(selector),)) == ()


def test_all_matching_freezes_are_returned() -> None:
    three = (
        freeze(Selector.ALL, id="F1"),
        freeze(Selector.LIST, "ramadan", id="F2"),
        freeze(Selector.LIST, "news", id="F3"),
    )
    stopped = stopped_by(three, Selectable(frozenset({"news"})))
    assert [f.freeze_id for f in stopped] == ["F1", "F3"]


KNOWN_NAMES = ConditionNames(
    words={"recipients.lists": ("press", "news"), "recipients.audience": ("customers", "staff")}
)


def parsed_rule(when: dict[str, Any], unless: dict[str, Any] | None = None) -> Rule:
    return Rule(
        rule_id="one",
        then=Action.HOLD,
        when=tuple(condition(FACTS[name], raw, every=False, known=KNOWN_NAMES) for name, raw in when.items()),
        unless=tuple(
            condition(FACTS[name], raw, every=True, known=KNOWN_NAMES) for name, raw in (unless or {}).items()
        ),
    )


@every(
    ("when", "unless"),
    [
        ({"recipients.total": "none"}, {}),
        ({"recipients.customers": "< 0"}, {}),
        ({"recipients.share": "> 1"}, {}),
        ({"recipients.list_addresses": ">= 3", "recipients.total": "< 3"}, {}),
        ({"recipients.customers": ">= 10", "mailing.customers": "between 1 and 9"}, {}),
        ({"recipients.customers": "any", "recipients.lists": "none"}, {}),
        ({"recipients.list_addresses": "any"}, {"recipients.lists": "any"}),
        ({"message.looks": ["internal", "unclear"]}, {"message.looks": ["internal", "mailing", "unclear"]}),
        ({"recipients.total": ">= 5"}, {"recipients.total": ">= 3"}),
        ({"message.automatic": True}, {"message.automatic": True}),
        ({"thread.replies": ">= 5 in 1h"}, {"thread.replies": "> 2 in 1h"}),
    ],
)
def test_impossible_rules_are_found(when: dict[str, Any], unless: dict[str, Any]) -> None:
    assert not can_hit(parsed_rule(when, unless))
    assert can_meet(parsed_rule(when)) is bool(unless)


@every(
    ("when", "unless"),
    [
        ({}, {}),
        ({"recipients.total": "<= 1"}, {}),
        ({"recipients.internal": ">= 0", "recipients.total": ">= 0", "recipients.outside": ">= 2"}, {}),
        ({"recipients.customers": ">= 5", "mailing.customers": ">= 0", "mailing.ever": "<= 6"}, {}),
        ({"recipients.share": ">= 100 %"}, {}),
        ({"recipients.members": ">= 2", "recipients.total": 1}, {}),  # an alias of two customers
        ({"recipients.undisclosed": ">= 50", "recipients.total": 1}, {}),  # a list's address in Bcc
        ({"recipients.lists": ["press", "news"]}, {"recipients.lists": "press"}),  # the exception needs press alone
        ({"recipients.total": ">= 3"}, {"recipients.total": ">= 5"}),
        ({"recipients.total": ">= 5"}, {"recipients.total": ">= 3", "sender.proven": True}),
        ({"thread.replies": ">= 5 in 1h"}, {"thread.replies": "> 2 in 2h"}),
        ({"sender.address": {"matches": "^a"}}, {"sender.address": {"matches": "^a"}}),  # patterns are not compared
        ({"sender.address": "a@example.com"}, {"sender.address": ["b@example.com"]}),
        ({"message.topics": "any"}, {"message.topics": ["pork"]}),
    ],
)
def test_possible_rules_are_not_reported(when: dict[str, Any], unless: dict[str, Any]) -> None:
    assert can_hit(parsed_rule(when, unless))
    assert all(map(can_be, parsed_rule(when).when))


_COUNTS = [name for name, fact in FACTS.items() if fact.type is Type.COUNT and not fact.windowed and name != "message.size_mb"]  # fmt: skip


@given(
    conditions=st.dictionaries(
        st.sampled_from(_COUNTS),
        st.tuples(st.sampled_from([">=", "<=", ">", "<"]), st.integers(0, 6)),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
)
def test_a_rule_that_a_message_meets_is_never_called_impossible(
    conditions: dict[str, tuple[str, int]], data: st.DataObject
) -> None:
    values: dict[str, Value] = {name: Count.exactly(data.draw(st.integers(0, 8))) for name in conditions}
    made = parsed_rule({name: f"{operator} {n}" for name, (operator, n) in conditions.items()})
    if _possible(values) and made.answer(values) is YES:
        assert can_hit(made)
