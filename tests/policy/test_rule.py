"""The sense of a rule: rules of equal sense answer alike, however they are written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.policy.facts import FACTS
from smtpguard.policy.grammar import ConditionNames, condition
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Scope
from tests.policy import drawn

KNOWN = ConditionNames(
    groups={"one": frozenset({"eva@example.com"}), "more": frozenset({"eva@example.com", "bo@example.com"})}
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


@pytest.mark.parametrize("name", ALIKE)
def test_equal_rules_have_equal_sense(name: str) -> None:
    assert ALIKE[name].sense == TO_A_LIST.sense


@pytest.mark.parametrize("name", OTHERS)
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
