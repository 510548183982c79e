"""What the rules of one policy answer about a message that is remembered: yes, no, or unknown where that is certain, and else that
they may, and on what that hangs.

A rule that stands unchanged was asked then, by the policy of then, and what it said is known without the facts. Any other is asked
now, of what is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smtpguard.hindsight.compiledpolicy import CompiledPolicy
from smtpguard.hindsight.divergence import Divergence
from smtpguard.hindsight.policydiff import PolicyDiff
from smtpguard.hindsight.recalled import OLD, Recalled, Told, Window, vague
from smtpguard.policy.condition import NO, UNKNOWN, YES, Answer
from smtpguard.policy.counted import APPROVED, COUNTED
from smtpguard.policy.facts import OF_MAILINGS, Count, Value
from smtpguard.policy.rule import Rule
from smtpguard.policy.stopping import REPLIES
from smtpguard.policy.verdict import Action, Verdict

DRIFT = "earlier messages would have been counted otherwise"
DECIDED = "what they would have decided then, nobody knows"
RESTS = "whether its conversation rested is not kept"
_HOT = Count(float("inf"), float("inf"))


@dataclass(frozen=True, slots=True)
class Perhaps:
    """A rule that may hit. ``doubts``: fact to why it is not known, of those that it hangs on."""

    rule: Rule
    doubts: Mapping[str, str]

    @property
    def actions(self) -> frozenset[Action]:
        """What it comes to if it does."""
        return frozenset() if self.rule.observes else frozenset(self.rule.strength(a)[0] for a in (YES, UNKNOWN))


class Answers:
    """Of all rules of ``ground`` about one message, which was decided on under the policy that ``shift`` comes from."""

    def __init__(self, ground: CompiledPolicy, shift: PolicyDiff, trail: Divergence, message: Recalled) -> None:
        self._shift, self._trail, self._message = shift, trail, message
        self._values: dict[str, Value] = {}
        self._vague: dict[str, str] = {}
        self.perhaps: list[Perhaps] = []
        questions = zip(ground.rules, shift.alike, strict=True)
        answers = [self._answer(rule, asked, alike) for (rule, asked), alike in questions]
        self.least: Verdict = ground.in_force.rules.judged(answers, self._values)
        """With those rules alone that certainly hit."""
        hits = {hit.rule for hit in self.least.hits}
        self._hitting = [rule for rule in ground.in_force.rules.rules if rule.rule_id in hits and not rule.observes]

    @property
    def own(self) -> frozenset[str]:
        """The rules that certainly hit and are enforced."""
        return frozenset(rule.rule_id for rule in self._hitting)

    @property
    def maybe(self) -> frozenset[str]:
        """The enforced rules that may hit."""
        return frozenset(one.rule.rule_id for one in self.perhaps if not one.rule.observes)

    @property
    def sizes(self) -> frozenset[str]:
        """What the rules that hold it, or may, ask of the size of its mailing."""
        rules = (*self._hitting, *(one.rule for one in self.perhaps if not one.rule.observes))
        return OF_MAILINGS.intersection(c.fact.name for rule in rules for c in rule.conditions)

    def unchanged(self, then: CompiledPolicy) -> bool:
        """Whether just those rules hit that hit then, and want the same."""
        if self.own != self._message.own or self.maybe:
            return False
        return all(r.rule_id in then.by_id and then.by_id[r.rule_id].then is r.then for r in self._hitting)

    def _answer(self, rule: Rule, asked: Sequence[Window], alike: Sequence[Rule]) -> Answer:
        """NO where it may hit; then it is among ``perhaps``."""
        answer = self._then(asked, alike)
        if answer is None:
            answer, doubts = self._now(rule, asked)
            if doubts:
                self.perhaps.append(Perhaps(rule, doubts))
                return NO
        return answer

    def _then(self, asked: Sequence[Window], alike: Sequence[Rule]) -> Answer | None:
        """What a rule of the same sense answered then, where the other policy would have asked it of the same."""
        then = self._shift.then
        if then is None or not alike or not all(map(self._same, asked)):
            return None
        answers = (then.answered(old, self._message) for old in alike)
        return next((answer for answer in answers if answer is not None), None)

    def _same(self, asked: Window) -> bool:
        if asked.fact == APPROVED:
            return self._trail.waiting(self._message) is None or self._message.stood(APPROVED) is False
        if asked.fact in COUNTED and any(self._trail.drift(self._message, asked.fact, asked.seconds)):
            return False
        return self._shift.same(asked, self._message)

    def _now(self, rule: Rule, asked: Sequence[Window]) -> tuple[Answer, Mapping[str, str]]:
        for one in asked:
            if one.slot not in self._values:
                told = self.told(one)
                self._values[one.slot] = told.value
                if told.vague:
                    self._vague[one.slot] = told.vague
        answer = rule.answer(self._values)
        if answer is NO and rule.stop_seconds:
            hot = dict.fromkeys((c.slot for c in rule.when if c.fact.name == REPLIES), _HOT)
            return NO, {} if rule.answer({**self._values, **hot}) is NO else {REPLIES: RESTS}
        if answer is not UNKNOWN:
            return answer, {}
        doubts = {c.fact.name: self._vague[c.slot] for c in rule.doubts(self._values) if c.slot in self._vague}
        return answer, doubts

    def told(self, asked: Window) -> Told:
        """What the guard would have known by this policy, after all that went before."""
        message = self._message
        if asked.fact == APPROVED:
            return self._approved()
        told = self._shift.told(asked, message)
        if asked.fact not in COUNTED or not isinstance(told.value, Count):
            return told
        fewer, more = self._trail.drift(message, asked.fact, asked.seconds)
        if not (fewer or more):
            return told
        own, (low, high) = message.of_itself(asked.fact), told.value
        if fewer:
            low = min(low, own.low if asked.fact == "mailing.share" else max(own.low, low - fewer))
        if more:
            high = own.high if asked.fact == "mailing.share" else max(high, own.low) + more
        return vague(DRIFT, Count(low, high))

    def _approved(self) -> Told:
        granted = self._message.stood(APPROVED)
        if granted and self._trail.waiting(self._message) is not None:
            return vague(DECIDED)
        return vague(OLD) if granted is None else Told(granted)
