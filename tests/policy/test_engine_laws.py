"""Laws of the engine, on generated policies and messages.

For single cases, see test_engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.policy.condition import PENDING, UNKNOWN, YES, Answer
from smtpguard.policy.confirming import or_held
from smtpguard.policy.counted import APPROVED
from smtpguard.policy.engine import Bounds, RuleSet, decide
from smtpguard.policy.facts import FACTS, Count, Facts, Source, Unknown, Value, Within
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.grammar import condition
from smtpguard.policy.rule import Rule, soften
from smtpguard.policy.verdict import Action, Mode, Scope, Verdict
from tests.policy import drawn
from tests.policy.drawn import NOW, with_values

LAW = settings(max_examples=100, deadline=None)


def strength(verdict: Verdict) -> tuple[Action, bool]:
    return verdict.action, verdict.action is not Action.RELAY and verdict.scope is Scope.ALL


def outcome(verdict: Verdict) -> object:
    return verdict.action, verdict.scope, verdict.observed, verdict.quorum, verdict.freeze_id, verdict.policy_sha256


@LAW
@given(st.data())
def test_adding_a_rule_never_loosens(data: st.DataObject) -> None:
    rules = data.draw(drawn.rule_sets())
    more = drawn.with_rule(rules, data.draw(drawn.rules("another")))
    facts = data.draw(drawn.facts(more))
    live = data.draw(drawn.lives(more.plan(facts)))
    before, after = decide(rules, facts, live), decide(more, facts, live)
    assert strength(after) >= strength(before)
    assert after.observed >= before.observed


@LAW
@given(st.data())
def test_a_confirm_rule_never_loosens(data: st.DataObject) -> None:
    rules = data.draw(drawn.rule_sets())
    asking = replace(data.draw(drawn.rules("asking")), then=Action.CONFIRM)
    more = drawn.with_rule(rules, asking)
    facts = data.draw(drawn.facts(more))
    facts = data.draw(drawn.blurred(facts, more))
    live = data.draw(drawn.lives(more.plan(facts)))
    before, after = decide(rules, facts, live), decide(more, facts, live)
    assert strength(after) >= strength(before)
    if after.action is Action.CONFIRM:
        with_values = (
            facts.values[name] for name in ("sender.proven", "sender.internal", "message.automatic", "stream")
        )
        assert tuple(with_values) == (True, True, False, frozenset())
        assert {hit.action for hit in after.hits if hit.mode is Mode.ENFORCE} <= {Action.CONFIRM}
        assert after.quorum, "approvers decide if the writer does not answer"
    assert not (before.action is Action.RELAY and after.action > Action.HOLD)


@LAW
@given(st.data())
def test_earlier_messages_change_no_verdict(data: st.DataObject) -> None:
    """The same whether the rules have judged other messages before, or none."""
    named = ("login", "mailing.customers", "message.labels", "message.size_mb", "recipients.domains", "sender.address")
    rules = data.draw(drawn.rule_sets(among=data.draw(st.sampled_from([drawn.EVERY, named, named]))))
    for known in data.draw(st.lists(drawn.facts(rules), min_size=1, max_size=4)):
        known = data.draw(drawn.blurred(known, rules))
        plan, fresh = rules.plan(known), replace(rules).plan(known)
        other = replace(rules)
        for shorter, without in (("_worded", ()), ("_sized", ()), ("_questions", other._questions_of_subject)):
            object.__setattr__(other, shorter, without)
        live = data.draw(drawn.lives(plan))
        for same in (fresh, other.plan(known)):
            assert (plan.pending, plan.certain, plan.reckoned.hanging, plan.asks, plan.questions) == (
                same.pending, same.certain, same.reckoned.hanging, same.asks, same.questions
            )  # fmt: skip
            assert plan.close(live) == same.close(live)
            assert plan.close(live, misses=True) == same.close(live, misses=True)


@LAW
@given(st.data())
def test_the_same_facts_give_the_same_verdict(data: st.DataObject) -> None:
    rules = data.draw(drawn.rule_sets())
    facts = data.draw(drawn.facts(rules))
    facts = data.draw(drawn.blurred(facts, rules))
    live = data.draw(drawn.lives(rules.plan(facts)))
    assert decide(rules, facts, live) == decide(replace(rules), replace(facts, values=dict(facts.values)), live)


@LAW
@given(st.data())
def test_unknown_facts_never_loosen(data: st.DataObject) -> None:
    """A verdict with less knowledge is never laxer than the verdict on the truth, except that an uncertain reject
    becomes a defer."""
    rules = data.draw(drawn.rule_sets())
    truth = data.draw(drawn.facts(rules))
    live = data.draw(drawn.lives(rules.plan(truth)))
    known, doubted = decide(rules, truth, live), decide(rules, data.draw(drawn.blurred(truth, rules)), live)
    action, whole = strength(known)
    assert strength(doubted) >= (soften(action), whole)
    assert doubted.observed >= soften(known.observed)


@pytest.mark.parametrize("every", [False, True], ids=["when", "unless"])
@pytest.mark.parametrize("raw", ["any", "none", ["a"], ["a", "b"], {"matches": "[ab]"}], ids=str)
def test_a_part_of_a_set_decides_what_no_further_word_changes(raw: object, every: bool) -> None:
    asked = condition(FACTS["message.marks"], raw, every=every, known=drawn.KNOWN)
    sets = [frozenset(some) for n in range(4) for some in combinations(drawn.WORDS, n)]
    for known in sets:
        answers = {asked.test(whole) for whole in sets if whole >= known}
        decided = answers.pop() if known and len(answers) == 1 and known != frozenset(drawn.WORDS) else None
        answer = asked.test(Unknown(why="not all was read", known=known))
        assert answer is UNKNOWN or answer in {asked.test(whole) for whole in sets if whole >= known}
        if decided is not None:
            assert answer is decided


@LAW
@given(st.data())
def test_the_order_of_reading_does_not_matter(data: st.DataObject) -> None:
    rules = data.draw(drawn.rule_sets())
    truth = data.draw(drawn.blurred(data.draw(drawn.facts(rules)), rules))
    live = data.draw(drawn.lives(rules.plan(truth)))
    whole = decide(rules, truth, live)
    known = replace(truth, values={n: v for n, v in truth.values.items() if FACTS[n].source is Source.ENVELOPE})
    for _ in range(10):
        plan = rules.plan(known)
        if not plan.pending:
            break
        (source,) = plan.pending
        asked = {source, *data.draw(st.frozensets(st.sampled_from([Source.HEADERS, Source.TEXT, Source.ORIGIN])))}
        known = with_values(known, {n: v for n, v in truth.values.items() if FACTS[n].source in asked})
    else:
        pytest.fail("it never came to an end")
    verdict = plan.close(live, misses=True)
    assert outcome(verdict) == outcome(whole)
    assert {h.rule for h in verdict.hits} <= {h.rule for h in whole.hits}
    named = [*(h.rule for h in verdict.hits if h.rule != "freeze"), *(m.rule for m in verdict.misses), *verdict.skipped]
    assert sorted(named) == sorted(r.rule_id for r in rules.rules), "every rule is named once"
    if verdict.action is Action.HOLD and verdict.freeze_id is None:
        assert plan.expects_hold or plan.asks or plan.rests, "only counts and freezes hold unexpectedly"


def unasked(rule: Rule) -> Answer:
    """A replacement that has no recorded answers."""
    return PENDING


def may_be(bounds: Bounds) -> set[Action]:
    stricter = (rule.strength(answer)[0] for rule in bounds.pending if not rule.observes for answer in (YES, UNKNOWN))
    return {bounds.least.action, *(max(bounds.least.action, action) for action in stricter)}


def recorded(data: st.DataObject) -> tuple[RuleSet, dict[str, Value], Verdict, Facts]:
    """A rule set, its slots' values, the verdict on them, and the facts."""
    rules = data.draw(drawn.rule_sets())
    facts = data.draw(drawn.blurred(data.draw(drawn.facts(rules)), rules))
    live = replace(data.draw(drawn.lives(rules.plan(facts))), freezes=())
    plan = rules.plan(facts)
    values = {**rules._by_slot(plan.known), **plan.answers(live), APPROVED: live.approved}
    return rules, values, decide(rules, facts, live), facts


def some_of(data: st.DataObject, values: Mapping[str, Value]) -> dict[str, Value]:
    """The values with some removed, and some counts reduced to bounds."""
    found: dict[str, Value] = {}
    for slot, value in values.items():
        how = data.draw(st.sampled_from(["known", "bounds", "gone"]))
        if how == "known":
            found[slot] = value
        elif how == "bounds" and isinstance(value, Count):
            less, more = data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
            found[slot] = Within(Count(max(0, value.low - less), value.high + more))
    return found


@LAW
@given(st.data())
def test_recorded_values_give_their_verdict(data: st.DataObject) -> None:
    rules, values, verdict, facts = recorded(data)
    missing = {slot: Unknown(why="") for slot in rules._slots}
    bounds = rules.bounds(missing | values, unasked)
    assert not bounds.pending
    least = or_held(bounds.least, facts)
    assert (least.action, least.observed) == (verdict.action, verdict.observed)
    assert {hit.rule for hit in verdict.hits} <= {hit.rule for hit in bounds.least.hits}


@LAW
@given(st.data())
def test_partial_values_give_the_verdict_or_leave_it_open(data: st.DataObject) -> None:
    rules, values, *_ = recorded(data)
    values = {slot: Unknown(why="") for slot in rules._slots} | values
    verdict = rules.bounds(values, unasked).least
    bounds = rules.bounds(some_of(data, values), unasked)
    assert verdict.action in may_be(bounds)
    hits = {hit.rule for hit in bounds.least.hits}
    assert hits <= {hit.rule for hit in verdict.hits} <= hits | {rule.rule_id for rule in bounds.pending}


@LAW
@given(st.data())
def test_more_knowledge_only_narrows(data: st.DataObject) -> None:
    rules, values, *_ = recorded(data)
    less = some_of(data, values)
    more = less | {slot: values[slot] for slot in values if data.draw(st.booleans())}
    assert may_be(rules.bounds(more, unasked)) <= may_be(rules.bounds(less, unasked))
    before, after = (rules.bounds(some, unasked) for some in (less, more))
    assert {hit.rule for hit in before.least.hits} <= {hit.rule for hit in after.least.hits}
    assert {rule.rule_id for rule in after.pending} <= {rule.rule_id for rule in before.pending}


@LAW
@given(st.data())
def test_adding_a_rule_loosens_no_bound(data: st.DataObject) -> None:
    rules, values, *_ = recorded(data)
    more, known = drawn.with_rule(rules, data.draw(drawn.rules("another"))), some_of(data, values)
    before, after = may_be(rules.bounds(known, unasked)), may_be(more.bounds(known, unasked))
    assert min(after) >= min(before)
    assert max(after) >= max(before)


_anything = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.integers(), st.floats(), st.frozensets(st.text(max_size=3), max_size=2),
    st.builds(Count, st.floats(), st.floats()), st.just(Unknown(why="")),
)  # fmt: skip


@LAW
@given(st.data())
def test_no_value_raises(data: st.DataObject) -> None:
    """Values of wrong types become unknown, and raise nothing."""
    rules = data.draw(drawn.rule_sets())
    values = data.draw(st.dictionaries(st.one_of(st.sampled_from(sorted(FACTS)), st.text(max_size=5)), _anything))
    facts = Facts(values=values)
    plan = rules.plan(facts)
    verdict = plan.close(data.draw(drawn.lives(plan)))
    assert verdict.action in Action


@LAW
@given(st.data())
def test_a_freeze_stops_and_never_loosens(data: st.DataObject) -> None:
    rules = data.draw(drawn.rule_sets())
    facts = data.draw(drawn.facts(rules))
    live = replace(data.draw(drawn.lives(rules.plan(facts))), freezes=())
    everything = Freeze(freeze_id="F", selector=Selector.ALL, value="", reason="a fire", by="omar", at=NOW)
    free, frozen = decide(rules, facts, live), decide(rules, facts, replace(live, freezes=(everything,)))
    assert frozen.action == max(free.action, rules.freeze_answer)
    assert frozen.freeze_id == "F"
    assert frozen.hits[0].rule == "freeze"
