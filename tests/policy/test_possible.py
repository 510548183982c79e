"""Rules that no message can hit, found by trying values. A rule that can hit is never reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.policy.condition import YES
from smtpguard.policy.facts import FACTS, Count, Type, Value
from smtpguard.policy.grammar import ConditionNames, condition
from smtpguard.policy.implication import _possible, can_be, can_hit, can_meet
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action
from tests.every import every

KNOWN = ConditionNames(words={"recipients.lists": ("press", "news"), "recipients.audience": ("customers", "staff")})


def rule(when: dict[str, Any], unless: dict[str, Any] | None = None) -> Rule:
    return Rule(
        rule_id="one",
        then=Action.HOLD,
        when=tuple(condition(FACTS[name], raw, every=False, known=KNOWN) for name, raw in when.items()),
        unless=tuple(condition(FACTS[name], raw, every=True, known=KNOWN) for name, raw in (unless or {}).items()),
    )


@pytest.mark.parametrize(
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
    assert not can_hit(rule(when, unless))
    assert can_meet(rule(when)) is bool(unless)


@every(
    ("when", "unless"),
    [
        ({}, {}),
        ({"recipients.total": "<= 1"}, {}),
        ({"recipients.internal": ">= 0", "recipients.total": ">= 0", "recipients.outside": ">= 2"}, {}),
        ({"recipients.customers": ">= 5", "mailing.customers": ">= 0", "mailing.ever": "<= 6"}, {}),
        ({"recipients.share": ">= 100 %"}, {}),
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
    assert can_hit(rule(when, unless))
    assert all(map(can_be, rule(when).when))


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
    made = rule({name: f"{operator} {n}" for name, (operator, n) in conditions.items()})
    if _possible(values) and made.answer(values) is YES:
        assert can_hit(made)
