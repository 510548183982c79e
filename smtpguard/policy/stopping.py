"""Stopped conversations: once a rule with ``stop`` took effect in a conversation, it goes on taking effect in it for
that long.

One reply begins the stop: it is counted under the rule and the conversation, and a later reply that finds it counted
meets a stopped conversation. Replies that are stopped do not prolong it, so it ends by itself. A message that is no
reply, or that the rule's other conditions do not select, is not stopped. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from smtpguard.locale.phrase import Phrase
from smtpguard.policy.condition import NO, UNKNOWN, YES, Answer
from smtpguard.policy.counted import RESTS, Ask, Live
from smtpguard.policy.facts import Count, Facts, Value
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Hit, Mode, Reason, Verdict

REPLIES = "thread.replies"
PUBLIC = Phrase("So many answered this conversation in a short time that it rests for a while.")
_ANY = Count(float("inf"), float("inf"))


def pauses(rules: Sequence[Rule], facts: Facts) -> Mapping[str, tuple[Ask, ...]]:
    """The asks for each of these rules with a stop that may still take effect."""
    if not facts.threads:
        return {}
    return {
        rule.rule_id: tuple(
            Ask(fact=RESTS, key=f"{rule.rule_id} {thread}", window_seconds=rule.stop_seconds)
            for thread in facts.threads
        )
        for rule in rules
    }


def rests(asks: Sequence[Ask], live: Live) -> bool:
    """Whether an earlier reply has begun a stop."""
    return any(live.counts.get(ask, 0) > 1 for ask in asks)


def stopped(rule: Rule, values: Mapping[str, Value]) -> tuple[Answer, Hit | None]:
    """The rule's answer in a stopped conversation: as if the count of replies were as high as ever."""
    slots = [c.slot for c in rule.when if c.fact.name == REPLIES]
    answer = rule.answer({**values, **dict.fromkeys(slots, _ANY)})
    if answer is NO:
        return answer, None
    hit = rule.hit(answer, values, Facts())
    reasons = tuple(_because(rule) if r.fact == REPLIES else r for r in hit.reasons)
    return (YES if answer is YES else UNKNOWN), replace(hit, reasons=reasons)


def begun(asks: Mapping[str, tuple[Ask, ...]], verdict: Verdict, live: Live) -> tuple[Ask, ...]:
    """The stops that this message begins: for rules that certainly took effect, in conversations that are not stopped
    yet."""
    hits = {h.rule for h in verdict.hits if h.mode is not Mode.APPROVED and not h.uncertain}
    return tuple(ask for rule, some in asks.items() if rule in hits and not rests(some, live) for ask in some)


def _because(rule: Rule) -> Reason:
    limit = next(c.limit for c in rule.when if c.fact.name == REPLIES)
    return Reason(
        fact=REPLIES,
        observed="at rest",
        limit=limit,
        public=PUBLIC,
        detail=f"the conversation rests for {rule.stop_seconds} s since this rule took effect in it",
    )
