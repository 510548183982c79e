"""The sieve never drops a rule that may hit, and of a thousand rules drops those for other lists."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.policy.condition import NO
from smtpguard.policy.engine import RuleIndex
from smtpguard.policy.facts import FACTS, Count, Facts, Value
from smtpguard.policy.grammar import ConditionNames, condition
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action
from tests.policy.drawn import asked, blurred, facts, rule_sets


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_rules_that_may_hit_are_kept(data: st.DataObject) -> None:
    rules = data.draw(rule_sets(8))
    known: Facts = data.draw(blurred(data.draw(facts(rules)), rules))
    some = {name: known.values[name] for name in asked(rules) if data.draw(st.booleans())}
    slots = sorted({c.slot for rule in rules.rules for c in rule.conditions})
    left = list(RuleIndex(rules.rules, slots).left([some.get(slot) for slot in slots]))
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
        return list(sieve.left(values))

    assert left("internal", Count.exactly(2000), frozenset({"list7", "list500"})) == [7, 500]
    assert left("internal", Count.exactly(8), frozenset({"list7", "list500"})) == [7]
    assert left("mailing", Count.exactly(2000), frozenset({"list7"})) == []
    assert left(None, Count.exactly(3), None) == [0, 1, 2]
