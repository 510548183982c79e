"""The laws of the engine, on policies and messages drawn at random.

Its particulars, on rules of our own: test_engine.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.policy.engine import decide
from smtpguard.policy.facts import FACTS, Count, Facts, Source, Unknown
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.policy.rule import soften
from smtpguard.policy.verdict import Action, Scope, Verdict
from tests.policy import drawn
from tests.policy.drawn import NOW, told

LAW = settings(max_examples=150, deadline=None)


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
def test_the_same_facts_give_the_same_verdict(data: st.DataObject) -> None:
    rules = data.draw(drawn.rule_sets())
    facts = data.draw(drawn.facts(rules))
    facts = data.draw(drawn.blurred(facts, rules))
    live = data.draw(drawn.lives(rules.plan(facts)))
    assert decide(rules, facts, live) == decide(replace(rules), replace(facts, values=dict(facts.values)), live)


@LAW
@given(st.data())
def test_what_is_not_known_never_relays_where_it_could_change_the_outcome(data: st.DataObject) -> None:
    """Whatever the truth turns out to be, less knowledge is no laxer than it, a reject aside, which doubt makes a defer."""
    rules = data.draw(drawn.rule_sets())
    truth = data.draw(drawn.facts(rules))
    live = data.draw(drawn.lives(rules.plan(truth)))
    known, doubted = decide(rules, truth, live), decide(rules, data.draw(drawn.blurred(truth, rules)), live)
    action, whole = strength(known)
    assert strength(doubted) >= (soften(action), whole)
    assert doubted.observed >= soften(known.observed)


@LAW
@given(st.data())
def test_an_order_of_asking_makes_no_difference(data: st.DataObject) -> None:
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
        known = told(known, {n: v for n, v in truth.values.items() if FACTS[n].source in asked})
    else:
        pytest.fail("it never came to an end")
    verdict = plan.close(live, misses=True)
    assert outcome(verdict) == outcome(whole)
    assert {h.rule for h in verdict.hits} <= {h.rule for h in whole.hits}
    named = [*(h.rule for h in verdict.hits if h.rule != "freeze"), *(m.rule for m in verdict.misses), *verdict.skipped]
    assert sorted(named) == sorted(r.rule_id for r in rules.rules), "every rule is named once"
    if verdict.action is Action.HOLD and verdict.freeze_id is None:
        assert plan.expects_hold or plan.asks or plan.rests, (
            "only counts and freezes hold what was not expected to be held"
        )


@LAW
@given(st.data())
def test_the_answers_alone_make_the_verdict(data: st.DataObject) -> None:
    """Whoever has them without the facts closes with the same engine."""
    rules = data.draw(drawn.rule_sets())
    facts = data.draw(drawn.blurred(data.draw(drawn.facts(rules)), rules))
    live = replace(data.draw(drawn.lives(rules.plan(facts))), freezes=())
    whole = decide(rules, facts, live)
    told = zip(rules._slots, rules.plan(facts)._told(live), strict=True)
    values = {slot: value if value is not None else Unknown(why="") for slot, value in told}
    alone = rules.judged([rule.answer(values) for rule in rules.rules], values)
    assert (alone.action, alone.observed) == (whole.action, whole.observed)
    assert {hit.rule for hit in whole.hits} <= {hit.rule for hit in alone.hits}, "nothing is skipped that is answered"


_anything = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.integers(), st.floats(), st.frozensets(st.text(max_size=3), max_size=2),
    st.builds(Count, st.floats(), st.floats()), st.just(Unknown(why="")), st.lists(st.integers(), max_size=2),
)  # fmt: skip


@LAW
@given(st.data())
def test_no_facts_raise(data: st.DataObject) -> None:
    """Values of the wrong kind are a fault of ours: they are unknown, and never an exception."""
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
