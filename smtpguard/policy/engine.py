"""From facts to a verdict, in two steps: plan what is known and say what else must be asked; close with what the admission
saw. ``decide`` is the two in one.

All rules are read and the strictest action wins, so adding a rule never loosens a verdict. A rule that could not make it
stricter any more is skipped rather than asked for; observing rules are always answered. Pure, total, deterministic.
Never here: what one rule says (rule), or what is done about it (guard.dispose).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from smtpguard.policy import counted
from smtpguard.policy.admission import Ask, Freeze, Live, Selector
from smtpguard.policy.condition import NO, PENDING, UNKNOWN, Answer
from smtpguard.policy.facts import FACTS, Facts, Source, Unknown, Value
from smtpguard.policy.rule import Rule, Strength
from smtpguard.policy.verdict import Action, Hit, Miss, Mode, Quorum, Reason, Scope, Verdict

FREEZE = "freeze"
"""The id of the hit that a freeze makes; no rule may have it."""

_NOT_GATHERED = Unknown(why="it was not gathered")
_NOT_ASKED = Unknown(why="it was not asked for")
_LOOSEST: Strength = (Action.RELAY, False)
_PRICES = (Source.HEADERS, Source.TEXT, Source.ORIGIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """The rules of one policy, ready to be asked.

    ``quorums``: what a list's approvals ask for; ``approvals`` where a list says nothing. ``freeze_answer``: HOLD or DEFER.
    """

    rules: tuple[Rule, ...]
    sha256: str = ""
    quorums: Mapping[str, Quorum] = field(default_factory=dict)
    approvals: Quorum | None = None
    freeze_answer: Action = Action.HOLD
    _envelope: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _counted: tuple[tuple[str, str, int], ...] = field(init=False, repr=False, compare=False)
    _slots: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        conditions = [c for rule in self.rules for c in rule.conditions]
        slots = {c.slot: c.fact.name for c in conditions}
        envelope = {c.slot for c in conditions if c.fact.source is Source.ENVELOPE}
        live = {(c.slot, c.fact.name, c.window_seconds) for c in conditions if c.fact.name in counted.COUNTED}
        object.__setattr__(self, "_slots", dict(sorted(slots.items())))
        object.__setattr__(self, "_envelope", tuple(sorted(envelope)))
        object.__setattr__(self, "_counted", tuple(sorted(live)))

    def plan(self, known: Facts) -> Plan:
        """How far the rules come with what is known, and what they still hang on."""
        values = dict(known.values)
        for slot in self._envelope:
            if values.get(slot) is None:
                values[slot] = _NOT_GATHERED
        asks: dict[str, Ask] = {}
        # whatever the rules do: a freeze of a sender or a thread looks at the header
        headers = values.get("sender.address") is None
        for slot, fact, window in self._counted:
            question = counted.ask(fact, window, known)
            if isinstance(question, Ask):
                asks[slot] = question
                values.pop(slot, None)  # a count is the ledger's to say
            elif question is not None:
                values[slot] = question
        values.pop(counted.APPROVED, None)
        answers = tuple(rule.answer(values) for rule in self.rules)
        certain = _LOOSEST
        for rule, answer in zip(self.rules, answers, strict=True):
            if answer is not NO and answer is not PENDING and not rule.observes:
                certain = max(certain, rule.strength(answer))
        hanging = [
            rule
            for rule, answer in zip(self.rules, answers, strict=True)
            if answer is PENDING and (rule.observes or rule.strength() > certain)
        ]
        sources = {rule.waits_for(values) for rule in hanging}
        if headers:
            sources.add(Source.HEADERS)
        pending = frozenset([source for source in _PRICES if source in sources][:1])
        return Plan(
            rules=self, facts=known, values=values, answers=answers, hanging=frozenset(r.rule_id for r in hanging),
            certain=certain, pending=pending, questions=asks,
        )  # fmt: skip

    def quorum(self, lists: Iterable[str]) -> tuple[Quorum, ...]:
        """What must be satisfied to release a hold that touches these lists: all of theirs."""
        asked = [self.quorums.get(name, self.approvals) for name in sorted(lists)] or [self.approvals]
        return tuple(dict.fromkeys(q for q in asked if q is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``pending``: the cheapest source that the outcome still hangs on (HEADERS, TEXT or ORIGIN), one at a time; ask it and
    plan again until it is empty. What is pending at ``close`` counts as unknown."""

    rules: RuleSet
    facts: Facts
    values: Mapping[str, Value]
    answers: tuple[Answer, ...]
    hanging: frozenset[str]
    certain: Strength
    pending: frozenset[Source]
    questions: Mapping[str, Ask]
    _settled: list[Hit | Miss | None] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.pending:  # what is settled is put in words here, outside the admission's lock
            self._settled.extend(self._settle())

    @property
    def asks(self) -> tuple[Ask, ...]:
        """The counts to read, and to count this message in, whatever becomes of the rules that look at them."""
        return tuple(dict.fromkeys(self.questions.values()))

    @property
    def may_hold(self) -> bool:
        """Whether its rules can still come to a hold, so that content is to be kept first. A freeze may hold anything."""
        if self.certain[0] is Action.HOLD:
            return True
        return self.certain[0] < Action.HOLD and any(
            r.then is Action.HOLD and not r.observes for r in self.rules.rules if r.rule_id in self.hanging
        )

    def close(self, live: Live) -> Verdict:
        """The verdict, with the counts, approvals and freezes of the admission."""
        values = self._with(live)
        hits: list[Hit] = []
        misses: list[Miss] = []
        skipped: list[str] = []
        doubts: dict[str, str] = {}
        for rule, answer, settled in zip(self.rules.rules, self.answers, self._settled or self._settle(), strict=True):
            if answer is PENDING:
                if rule.rule_id not in self.hanging:
                    skipped.append(rule.rule_id)
                    continue
                answer = rule.answer(values)
                settled = self._put(rule, answer, values)
            if answer is UNKNOWN:
                doubts.update((c.fact.name, self._why(c.slot, values)) for c in rule.doubts(values))
            if isinstance(settled, Hit):
                hits.append(settled)
            elif settled is not None:
                misses.append(settled)
        frozen = self._frozen(live)
        if frozen is not None:
            hits.insert(0, frozen[1])
        enforced = max((h.action for h in hits if h.mode is Mode.ENFORCE), default=Action.RELAY)
        doubts.update(
            (name, value.why) for slot, name in self.rules._slots.items()
            if isinstance(value := self.values.get(slot), Unknown)
        )  # fmt: skip
        return Verdict(
            action=enforced,
            hits=tuple(hits),
            misses=tuple(misses),
            skipped=tuple(skipped),
            unknown=tuple(sorted(doubts.items())),
            policy_sha256=self.rules.sha256,
            quorum=self.rules.quorum(self.facts.lists) if enforced is Action.HOLD else (),
            observed=max((h.action for h in hits if h.mode is Mode.OBSERVE), default=Action.RELAY),
            freeze_id=frozen[0].freeze_id if frozen is not None else None,
        )

    def _with(self, live: Live) -> Mapping[str, Value]:
        """All values: those of the admission filled in, and what nobody asked for made unknown."""
        values = dict(self.values)
        for slot, question in self.questions.items():
            values[slot] = counted.answered(question, live)
        values[counted.APPROVED] = bool(self.facts.mailing) and self.facts.mailing in live.approved
        for slot in self.rules._slots:
            if values.get(slot) is None:
                values[slot] = _NOT_ASKED
        return values

    def _settle(self) -> list[Hit | Miss | None]:
        return [
            None if answer is PENDING else self._put(rule, answer, self.values)
            for rule, answer in zip(self.rules.rules, self.answers, strict=True)
        ]

    def _put(self, rule: Rule, answer: Answer, values: Mapping[str, Value]) -> Hit | Miss:
        if answer is NO:
            return rule.miss(values, self.facts, counted.NOTES)
        return rule.hit(answer, values, self.facts, counted.NOTES)

    def _why(self, slot: str, values: Mapping[str, Value]) -> str:
        value = values.get(slot, _NOT_ASKED)
        if isinstance(value, Unknown):
            return value.why
        evidence = self.facts.evidence.get(self.rules._slots[slot], ())
        return "; ".join((f"known only to be {value}", *evidence[:5]))

    def _frozen(self, live: Live) -> tuple[Freeze, Hit] | None:
        """The first freeze that stops it, or that nobody can say does not."""
        if not live.freezes:
            return None
        facts = self.facts
        for sure in (True, False):
            for freeze in live.freezes:
                stops = freeze.stops(
                    lists=facts.lists, senders=facts.senders, mailing=facts.mailing, thread=facts.thread, now=live.now
                )
                if stops if sure else self._may_stop(freeze, live):
                    return freeze, self._freeze_hit(freeze, uncertain=not sure)
        return None

    def _may_stop(self, freeze: Freeze, live: Live) -> bool:
        if freeze.until is not None and live.now >= freeze.until:
            return False
        fact = {Selector.SENDER: "sender.address", Selector.LIST: "recipients.lists", Selector.THREAD: "sender.address"}
        name = fact.get(freeze.selector)
        return name is not None and isinstance(self.facts.values.get(name, _NOT_ASKED), Unknown)

    def _freeze_hit(self, freeze: Freeze, *, uncertain: bool) -> Hit:
        what = " ".join(part for part in (freeze.selector.value, freeze.value) if part)
        reason = Reason(
            fact=FREEZE,
            observed=what,
            limit="",
            public="Mail is being stopped at the moment, and waits until people let it go on.",
            detail=f"frozen ({what}) by {freeze.by} at {freeze.at:%Y-%m-%dT%H:%M:%SZ}: {freeze.reason}",
        )
        return Hit(
            rule=FREEZE,
            action=self.rules.freeze_answer,
            description="A freeze is in force",
            scope=Scope.ALL,
            reasons=(reason,),
            uncertain=uncertain,
        )


def decide(rules: RuleSet, facts: Facts, live: Live) -> Verdict:
    """Plan and close in one, for everybody who has all facts at hand."""
    return rules.plan(facts).close(live)


assert set(counted.COUNTED) | {counted.APPROVED} == {f.name for f in FACTS.values() if f.source is Source.LIVE}
