"""What the engine asks for and decides, on a few rules and messages: sources, unknown facts, exceptions, counts,
freezes.

For its laws, see test_engine_laws.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

from smtpguard.policy.counted import Ask, Live
from smtpguard.policy.engine import RuleSet, decide
from smtpguard.policy.facts import FACTS, Count, Facts, Source, Unknown, Value
from smtpguard.policy.freezing import DEFERRED, HELD, Freeze, Selector
from smtpguard.policy.grammar import condition
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Quorum, Scope
from tests.policy.drawn import KNOWN, NOW, with_values

LIVE = Live(now=NOW)


def rule(name: str, when: dict[str, object], then: Action = Action.HOLD, **more: object) -> Rule:
    unless = more.pop("unless", {})
    assert isinstance(unless, dict)
    return Rule(
        rule_id=name,
        then=then,
        when=tuple(condition(FACTS[f], raw, every=False, known=KNOWN) for f, raw in when.items()),
        unless=tuple(condition(FACTS[f], raw, every=True, known=KNOWN) for f, raw in unless.items()),
        **more,  # type: ignore[arg-type]
    )


def ruleset(*rules: Rule, **more: object) -> RuleSet:
    return RuleSet(rules=rules, approvals=Quorum(groups=("communications",)), **more)  # type: ignore[arg-type]


SENDER: dict[str, Value] = {"sender.address": "a@example.com"}
TO_A_LIST = {**SENDER, "recipients.list_addresses": Count(1, 1)}
TO_NOBODY = {**SENDER, "recipients.list_addresses": Count(0, 0)}
TEXT_RULE = rule("text", {"message.looks": "internal", "recipients.list_addresses": "any"})
ORIGIN_RULE = rule("origin", {"sender.is_writer": False, "recipients.list_addresses": "any"})


def test_headers_are_always_read() -> None:
    """The plan always asks for the header, since a freeze by sender needs From."""
    assert ruleset().plan(Facts()).pending == {Source.HEADERS}


def test_text_is_not_read_if_no_rule_depends_on_it() -> None:
    plan = ruleset(TEXT_RULE, ORIGIN_RULE).plan(Facts(values=TO_NOBODY))
    assert plan.pending == frozenset()
    verdict = plan.close(LIVE, misses=True)
    assert verdict.action is Action.RELAY
    assert [m.rule for m in verdict.misses] == ["text", "origin"]
    assert verdict.misses[0].reason is not None
    assert verdict.misses[0].reason.observed == "0"


def test_cheap_sources_are_read_first() -> None:
    rules = ruleset(ORIGIN_RULE, TEXT_RULE)
    known = Facts(values=TO_A_LIST)
    assert rules.plan(known).pending == {Source.TEXT}
    plan = rules.plan(with_values(known, {"message.looks": "internal"}))
    assert plan.pending == frozenset()
    verdict = plan.close(LIVE, misses=True)
    assert (verdict.action, verdict.skipped) == (Action.HOLD, ("origin",))


def test_a_stricter_rules_source_is_read() -> None:
    stricter = rule("strict", {"sender.is_writer": False}, Action.REJECT)
    plan = ruleset(TEXT_RULE, stricter).plan(Facts(values={**TO_A_LIST, "message.looks": "internal"}))
    assert plan.pending == {Source.ORIGIN}


def test_an_observing_rules_source_is_read() -> None:
    observing = replace(ORIGIN_RULE, mode=Mode.OBSERVE)
    rules = ruleset(TEXT_RULE, observing)
    plan = rules.plan(Facts(values={**TO_A_LIST, "message.looks": "internal"}))
    assert plan.pending == {Source.ORIGIN}
    verdict = decide(rules, Facts(values={**TO_A_LIST, "message.looks": "mailing", "sender.is_writer": False}), LIVE)
    assert (verdict.action, verdict.observed) == (Action.RELAY, Action.HOLD)


def test_with_a_part_held_a_rule_on_the_whole_is_still_evaluated() -> None:
    part = rule("part", {"recipients.list_addresses": "any"}, scope=Scope.CUSTOMERS)
    plan = ruleset(part, TEXT_RULE).plan(Facts(values=TO_A_LIST))
    assert plan.pending == {Source.TEXT}
    rules, facts = ruleset(part, TEXT_RULE), Facts(values={**TO_A_LIST, "message.looks": "mailing"})
    assert decide(rules, facts, LIVE).scope is Scope.CUSTOMERS


def test_with_a_part_held_a_weaker_rule_on_the_whole_is_evaluated() -> None:
    """A weaker rule for the whole message is asked too: otherwise the colleagues' part would be sent, which that rule
    holds."""
    part = rule("part", {"recipients.list_addresses": "any"}, scope=Scope.CUSTOMERS)
    rules = ruleset(part, rule("whole", {"message.looks": "internal"}, Action.CONFIRM))
    assert rules.plan(Facts(values=TO_A_LIST)).pending == {Source.TEXT}
    verdict = decide(rules, Facts(values={**TO_A_LIST, "message.looks": "internal"}), LIVE)
    assert (verdict.action, verdict.scope) == (Action.HOLD, Scope.ALL)


def test_a_reject_that_depends_on_an_unknown_defers() -> None:
    strict = rule("strict", {"sender.is_writer": False}, Action.REJECT)
    facts = Facts(values={**SENDER, "sender.is_writer": Unknown(why="DNS did not answer")})
    verdict = decide(ruleset(strict), facts, LIVE)
    assert verdict.action is Action.DEFER
    assert verdict.hits[0].uncertain
    assert verdict.unknown == (("sender.is_writer", "DNS did not answer"),)


def test_a_source_never_read_is_unknown() -> None:
    verdict = decide(ruleset(TEXT_RULE), Facts(values=TO_A_LIST), LIVE)
    assert verdict.action is Action.HOLD
    assert verdict.unknown == (("message.looks", "it was not asked for"),)


def test_an_interval_around_a_limit_is_reported_as_unknown() -> None:
    many = rule("many", {"recipients.customers": ">= 2"})
    facts = Facts(
        values={**SENDER, "recipients.customers": Count(0, 3)}, evidence={"recipients.customers": ("no index of news",)}
    )
    verdict = decide(ruleset(many), facts, LIVE)
    assert verdict.action is Action.HOLD
    assert verdict.unknown == (("recipients.customers", "known only to be 0 to 3; no index of news"),)
    assert decide(ruleset(rule("more", {"recipients.customers": ">= 20"})), facts, LIVE).action is Action.RELAY


def test_a_known_exception_avoids_reading_the_text() -> None:
    excepted = rule("text", {"message.looks": "internal"}, unless={"recipients.lists": ["news"]})
    plan = ruleset(excepted).plan(Facts(values={**SENDER, "recipients.lists": frozenset({"news"})}))
    assert plan.pending == frozenset()
    assert plan.close(LIVE).action is Action.RELAY


def test_an_exception_on_a_set_must_hold_for_all() -> None:
    excepted = rule("list", {"recipients.list_addresses": "any"}, unless={"recipients.lists": ["news"]})
    both = Facts(values={**TO_A_LIST, "recipients.lists": frozenset({"news", "offers"})})
    assert decide(ruleset(excepted), both, LIVE).action is Action.HOLD
    none = Facts(values={**TO_A_LIST, "recipients.lists": frozenset()})
    assert decide(ruleset(excepted), none, LIVE).action is Action.HOLD


def test_counts_come_from_the_store() -> None:
    busy = rule("busy", {"sender.customers": ">= 300 in 1h"})
    rules = ruleset(busy)
    plan = rules.plan(Facts(values=SENDER))
    question = Ask(fact="sender.customers", key="a@example.com", window_seconds=3600)
    assert plan.asks == (question,)
    assert not plan.expects_hold, "few are held by counts; their content is stored only then"
    assert plan.close(replace(LIVE, counts={question: 300})).action is Action.HOLD
    assert plan.close(replace(LIVE, counts={question: 299})).action is Action.RELAY
    unanswered = plan.close(LIVE)
    assert unanswered.action is Action.HOLD
    assert unanswered.unknown == (("sender.customers", "it was not counted"),)


def test_a_count_is_asked_for_even_if_its_rule_is_decided() -> None:
    """A count is asked for even if the rule does not depend on it: this message must be counted, or the next count
    would be too low."""
    both = rule("both", {"recipients.list_addresses": "any", "sender.customers": ">= 300 in 1h"})
    plan = ruleset(both).plan(Facts(values=TO_NOBODY))
    assert [a.fact for a in plan.asks] == ["sender.customers"]


def test_an_unknown_sender_is_not_counted() -> None:
    busy = rule("busy", {"sender.customers": ">= 300 in 1h"})
    for address in (Unknown(why="two From fields"), ""):
        plan = ruleset(busy).plan(Facts(values={"sender.address": address}))
        assert plan.asks == ()
        assert plan.close(LIVE).action is Action.HOLD


def test_a_mailing_is_counted_if_it_may_reach_a_customer() -> None:
    many = ruleset(rule("many", {"mailing.customers": ">= 20"}))
    nobody = many.plan(Facts(values={**SENDER, "recipients.customers": Count(0, 0)}))
    assert nobody.asks == ()
    plan = many.plan(Facts(values={**SENDER, "recipients.customers": Count(0, 1)}))
    (asked,) = plan.asks
    assert (asked.fact, asked.key, asked.window_seconds) == ("mailing.customers", "", 86_400)
    assert plan.close(replace(LIVE, counts={asked: 19})).action is Action.RELAY
    assert plan.close(replace(LIVE, counts={asked: 20})).action is Action.HOLD
    (hit,) = plan.close(replace(LIVE, counts={asked: 5}, maybe={asked: 30})).hits
    assert hit.uncertain
    assert hit.reasons[0].observed == "5 to 35"


def test_a_share_is_counted_per_list_and_the_largest_counts() -> None:
    much = ruleset(rule("much", {"mailing.share": ">= 0.25"}))
    sizes = {"news": Count(400, 400), "offers": Count(100, math.inf)}
    plan = much.plan(Facts(values=SENDER, sizes=sizes))
    news, offers = sorted(plan.asks, key=lambda a: a.key)
    assert plan.close(replace(LIVE, counts={news: 99, offers: 0})).action is Action.RELAY
    assert plan.close(replace(LIVE, counts={news: 100, offers: 0})).action is Action.HOLD
    (hit,) = plan.close(replace(LIVE, counts={news: 0, offers: 25})).hits
    assert hit.uncertain, "the list's size is unknown"
    assert much.plan(Facts(values=SENDER)).asks == ()


def test_a_count_that_cannot_change_the_verdict_is_not_asked_for() -> None:
    storm = ruleset(rule("storm", {"thread.replies": ">= 5 in 10m", "recipients.reach": ">= 100"}))
    few = Facts(values={**SENDER, "recipients.reach": Count(3, 3)}, threads=("<t>",))
    assert storm.plan(few).asks == ()
    (asked,) = storm.plan(with_values(few, {"recipients.reach": Count(100, 100)})).asks
    assert asked.key == "<t>"


def test_an_approved_mailing_passes() -> None:
    unapproved = rule("unapproved", {"mailing.approved": False})
    facts = Facts(values=SENDER)
    assert decide(ruleset(unapproved), facts, LIVE).action is Action.HOLD
    assert decide(ruleset(unapproved), facts, replace(LIVE, approved=True)).action is Action.RELAY


def test_the_quorum_includes_every_list() -> None:
    news = Quorum(groups=("editors",), list="news")
    rules = ruleset(TEXT_RULE, quorums={"news": news})
    facts = Facts(values={**TO_A_LIST, "message.looks": "internal"}, lists=frozenset({"news", "offers", "third"}))
    default = rules.approvals
    assert decide(rules, facts, LIVE).quorum == (news, default)
    assert decide(rules, replace(facts, lists=frozenset()), LIVE).quorum == (default,)
    assert decide(rules, Facts(values=TO_NOBODY), LIVE).quorum == ()


def freeze(selector: Selector, value: str = "") -> Live:
    stopped = Freeze(
        freeze_id="F",
        selector=selector,
        value=value,
        reason="a fire",
        by="omar",
        at=NOW,
        until=NOW + timedelta(hours=1),
    )
    return Live(now=NOW, freezes=(stopped,))


def test_a_freeze_that_may_apply_stops() -> None:
    rules = ruleset()
    doubtful = Facts(values={"sender.address": Unknown(why="two From"), "recipients.lists": Unknown(why="no index")})
    clear = Facts(values={**SENDER, "recipients.lists": frozenset()})
    for live in (freeze(Selector.LIST, "news"), freeze(Selector.SENDER, "b@example.com")):
        verdict = decide(rules, doubtful, live)
        assert (verdict.action, verdict.hits[0].uncertain) == (Action.HOLD, True)
        assert decide(rules, clear, live).action is Action.RELAY


def test_the_guards_own_freeze_always_defers() -> None:
    """A freeze that the guard set itself defers, whatever the settings and other freezes say: no decision could release
    a hold later."""
    [stopped] = freeze(Selector.ALL).freezes
    guards = replace(stopped, freeze_id="G", defers=True)
    for freezes in ((guards,), (stopped, guards), (guards, stopped)):
        verdict = decide(ruleset(), Facts(values=TO_A_LIST), Live(now=NOW, freezes=freezes))
        assert (verdict.action, verdict.hits[0].rule) == (Action.DEFER, "freeze")


def test_a_freeze_holds_although_the_policy_observes() -> None:
    strict = rule("strict", {"recipients.list_addresses": "any"}, Action.REJECT)
    facts, live = Facts(values=TO_A_LIST), freeze(Selector.ALL)
    assert decide(ruleset(replace(strict, mode=Mode.OBSERVE)), facts, live).action is Action.HOLD
    assert decide(ruleset(strict), facts, live).action is Action.REJECT
    assert decide(ruleset(freeze_answer=Action.DEFER), facts, live).action is Action.DEFER


def test_the_reason_of_a_freeze_is_given_if_it_surely_applies() -> None:
    def said(facts: Facts, live: Live, answer: Action = Action.HOLD) -> str:
        return decide(ruleset(freeze_answer=answer), facts, live).hits[0].reasons[0].public

    live = freeze(Selector.ALL)
    assert said(Facts(values=TO_A_LIST), live) == f"{HELD} The reason given: {live.freezes[0].reason}."
    assert said(Facts(values=TO_A_LIST), live, Action.DEFER) == DEFERRED
    doubtful = Facts(values={"sender.address": Unknown(why="two From")})
    assert said(doubtful, freeze(Selector.SENDER, "b@example.com")) == HELD
