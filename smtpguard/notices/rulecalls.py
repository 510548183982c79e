"""Rules that call a person: the journal entry of a call, from which the alarms take it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from smtpguard.gathering.gather import Gathered
from smtpguard.journal.event import Event, Kind
from smtpguard.policy import counted
from smtpguard.policy.condition import NO
from smtpguard.policy.counted import Live, Questions, list_of
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Verdict

AGAIN_SECONDS = 30.0


@dataclass(slots=True)
class CallTimes:
    """When each rule was last journalled, in this process: another may have journalled it too."""

    _said: dict[tuple[str, ...], datetime] = field(default_factory=dict)

    def first(self, key: tuple[str, ...], now: datetime) -> bool:
        last = self._said.get(key)
        if last is not None and abs((now - last).total_seconds()) < AGAIN_SECONDS:
            return False
        self._said[key] = now
        return True


def calling(
    verdict: Verdict, gathered: Gathered, questions: Questions, live: Live, called: CallTimes
) -> Iterator[Event]:
    """An entry for each rule with ``then: alarm`` that hit, at most one in half a minute: for each list that it is
    about, the number of its people that were counted."""
    hits = {hit.rule for hit in verdict.hits}
    for rule in gathered.in_force.rules.alarms if hits else ():
        if rule.rule_id not in hits:
            continue
        lists = _lists(rule, questions, live, gathered)
        if called.first((rule.rule_id, *sorted(lists)), live.now):
            data = {"rule": rule.rule_id, "lists": lists}
            private = {"from": (gathered.sender.claimed,)} if gathered.sender.claimed else {}
            yield Event(kind=Kind.ALARM, id=gathered.transaction.id, at=live.now, data=data, private=private)


def _lists(rule: Rule, questions: Questions, live: Live, gathered: Gathered) -> dict[str, int]:
    found: dict[str, int] = {}
    for condition in rule.when:
        for ask in questions.get(condition.slot, ()) if condition.fact.by_list else ():
            if condition.test(counted.answered([ask], live, gathered.facts)) is not NO:
                name = list_of(ask.key)
                found[name] = max(found.get(name, 0), live.counts.get(ask, 0))
    return found
