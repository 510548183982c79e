"""A rule: its conditions and its action.

It hits if every condition of ``when`` says yes and not every condition of ``unless`` does. If that depends on an
unknown fact, it takes effect all the same, a reject then as a defer: our own failure is never a 5xx.

Once a rule with ``stop`` took effect in a conversation, it goes on taking effect in it for that long. One reply begins
the stop: it is counted under the rule and the conversation, and a later reply that finds it counted meets a stopped
conversation. Replies that are stopped do not prolong it. A message that is no reply, or that the rule's other
conditions do not select, is not stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from smtpguard.config.durations import in_short
from smtpguard.locale.phrase import N_, Phrase
from smtpguard.policy.condition import NO, PENDING, UNKNOWN, YES, Answer, Condition
from smtpguard.policy.counted import RESTS, Ask, Live
from smtpguard.policy.facts import Count, Facts, Source, Unknown, Value
from smtpguard.policy.verdict import Action, Hit, Miss, Mode, Reason, Scope

Strength = tuple[Action, bool]
"""Strictness: the action, then whether it takes the whole message."""

AUTOMATIC = "automatic-to-list"
STREAM = "stream-limit"
IN_DOUBT = "in-doubt-retry"
RETURNS = "returns-to-list"
WAITS, COPIES, STAGES, REJECTED = "mailing-held", "mailing-stored", "mailing-stages", "mailing-rejected"
ASKED, ASTRAY = "approval-asked", "correction-astray"
AIMS: Mapping[str, str] = {
    AUTOMATIC: N_("Automatic replies and bounces never go to a list"),
    STREAM: N_("A stream stays below its limit"),
    IN_DOUBT: N_("An earlier attempt may have reached the list already"),
    RETURNS: N_("Reports of failed delivery never go to a customer list"),
    WAITS: N_("A mailing that is held waits as one"),
    COPIES: N_("Enough copies of it are stored"),
    STAGES: N_("It is sent in stages"),
    REJECTED: N_("A mailing that was rejected goes to no one"),
    ASKED: N_("It was sent for approval beforehand"),
    ASTRAY: N_("A correction goes once, and only to the people that it is for"),
}
"""What the built-in rules are for: rules that are in no policy (admission.builtinrules, admission.mailingverdict)."""
FIXED = frozenset(AIMS)
"""Their ids, which a policy's own rules must not use."""

REPLIES = "thread.replies"
"""The fact that a rule with a stop asks for."""
STOPPED = Phrase("So many answered this conversation in a short time that it rests for a while.")
_ANY = Count(float("inf"), float("inf"))

_COST = {source: rank for rank, source in enumerate(Source)}
_Tests = tuple[tuple[str, Callable[[Value], Answer]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    rule_id: str
    then: Action
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()
    description: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)  # by language
    mode: Mode = Mode.ENFORCE
    scope: Scope = Scope.ALL
    explain: bool = False
    alarm: bool = False
    """Whether it calls a person, and does nothing else: it observes."""
    stop_seconds: int = 0
    """How long a conversation is stopped once the rule has taken effect in it."""
    within_seconds: int = 0
    """The seconds for which a rule asks the writer; 0 for the policy's default."""
    expires: bool = False
    """Whether an unconfirmed message expires then, without a decision of others."""
    slots: frozenset[str] = field(init=False, repr=False, compare=False)
    """The slots of its conditions."""
    _when: _Tests = field(init=False, repr=False, compare=False)
    _unless: _Tests = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", frozenset(c.slot for c in self.conditions))
        object.__setattr__(self, "_when", tuple((c.slot, c.test) for c in self.when))
        object.__setattr__(self, "_unless", tuple((c.slot, c.test) for c in self.unless))

    @property
    def observes(self) -> bool:
        return self.mode is Mode.OBSERVE

    @property
    def calls(self) -> bool:
        """Return whether it is one that calls a person, be it that it only observes."""
        return self.then is Action.RELAY

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (*self.when, *self.unless)

    @property
    def sense(self) -> Hashable:
        """Return its meaning: rules of equal sense give equal answers, whatever their id and action. One with a stop
        depends on where it took effect itself, and so on its id."""
        own = (self.rule_id, self.stop_seconds) if self.stop_seconds else ()
        return frozenset(c.sense for c in self.when), frozenset(c.sense for c in self.unless), own

    def strength(self, answer: Answer = YES) -> Strength:
        """Return its strictness if it takes effect with this answer."""
        return (soften(self.then) if answer is UNKNOWN else self.then, self.scope is Scope.ALL)

    def answer(self, values: Mapping[str, Value]) -> Answer:
        """Return NO, YES, UNKNOWN, or PENDING: more facts may still change it."""
        hit = _every(self._when, values)
        if hit is NO or not self._unless:
            return hit
        excepted = _every(self._unless, values)
        if excepted is YES:
            return NO
        if excepted is NO:
            return hit
        return excepted if excepted > hit else hit

    def waits_for(self, values: Mapping[str, Value]) -> Source:
        """Return the cheapest source that a pending answer depends on."""
        waiting = [c.fact.source for c in self.when if values.get(c.slot) is None]
        if self.unless and _every(self._unless, values) is PENDING:
            waiting += [c.fact.source for c in self.unless if values.get(c.slot) is None]
        return min(waiting, key=_COST.__getitem__, default=Source.LIVE)

    def hit(self, answer: Answer, values: Mapping[str, Value], facts: Facts) -> Hit:
        """Return its effect: with the reasons of ``when``, and the exceptions that could not be answered."""
        unclear = [c for c in self.unless if c.test(_value(c, values)) is UNKNOWN] if answer is UNKNOWN else []
        return Hit(
            rule=self.rule_id,
            action=self.strength(answer)[0],
            mode=self.mode,
            description=self.description,
            scope=self.scope,
            reasons=tuple(_reason(c, values, facts) for c in (*self.when, *unclear)),
            uncertain=answer is UNKNOWN,
            explain=self.explain,
        )

    def miss(self, values: Mapping[str, Value], facts: Facts) -> Miss:
        """Return its miss: because of the first condition that said no, or of an exception."""
        for because in self.when:
            if because.answer(values) is NO:
                break
        else:
            if not self.unless:
                return Miss(rule=self.rule_id)
            because = self.unless[0]
        name = because.fact.name
        if name not in facts.evidence:
            return _plain_miss(self.rule_id, because, _value(because, values))
        return Miss(rule=self.rule_id, reason=_reason(because, values, facts))

    def pauses(self, threads: Iterable[str]) -> tuple[Ask, ...]:
        """Return the asks whether it has stopped the conversations that a message belongs to. Each reply counts
        itself. What it stops while it only observes is counted apart: once it is enforced, no conversation rests
        because of that."""
        name = f"{self.rule_id}:observed" if self.observes else self.rule_id  # no id has a colon
        return tuple(Ask(RESTS, f"{name} {thread}", self.stop_seconds) for thread in threads)

    def stopped(self, values: Mapping[str, Value]) -> tuple[Answer, Hit | None]:
        """Return its answer in a conversation that it has stopped: as if the count of replies were as high as ever."""
        slots = [c.slot for c in self.when if c.fact.name == REPLIES]
        answer = self.answer({**values, **dict.fromkeys(slots, _ANY)})
        if answer is NO:
            return answer, None
        hit = self.hit(answer, values, Facts())
        because = Reason(
            fact=REPLIES,
            observed="at rest",
            limit=next(c.limit for c in self.when if c.fact.name == REPLIES),
            public=STOPPED,
            detail=f"the conversation rests for {in_short(self.stop_seconds)} since this rule took effect in it",
        )
        reasons = tuple(because if reason.fact == REPLIES else reason for reason in hit.reasons)
        return (YES if answer is YES else UNKNOWN), replace(hit, reasons=reasons)

    def doubts(self, values: Mapping[str, Value]) -> list[Condition]:
        """Return the conditions that could not be answered."""
        return [c for c in self.conditions if c.answer(values) in (UNKNOWN, PENDING)]


def is_stopped(pauses: Iterable[Ask], live: Live) -> bool:
    """Return whether an earlier reply has begun a stop."""
    return any(live.counts.get(ask, 0) > 1 for ask in pauses)


def soften(action: Action) -> Action:
    """Return the action if it depends on something unknown."""
    return Action.DEFER if action is Action.REJECT else action


def _every(tests: _Tests, values: Mapping[str, Value]) -> Answer:
    """Three-valued AND with PENDING: a NO ends it, and a pending condition may still become a NO."""
    answer = YES
    for slot, test in tests:
        value = values.get(slot)
        found = PENDING if value is None else test(value)
        if found is NO:
            return NO
        if found > answer:
            answer = found
    return answer


def _value(condition: Condition, values: Mapping[str, Value]) -> Value:
    return values.get(condition.slot, NOT_ASKED)


NOT_ASKED = Unknown(why="it was not asked for")


@lru_cache(maxsize=4096)
def _plain_miss(rule_id: str, condition: Condition, value: Value) -> Miss:
    """Cached: nearly every rule misses nearly every message, for the same few reasons."""
    return Miss(rule=rule_id, reason=_plain_reason(condition, value))


# for the copies of a mailing, which differ in few facts
_plain_reason = lru_cache(maxsize=4096)(Condition.reason)
_shown_reason = lru_cache(maxsize=512)(Condition.reason)


def _reason(condition: Condition, values: Mapping[str, Value], facts: Facts) -> Reason:
    value, evidence = _value(condition, values), tuple(facts.evidence.get(condition.fact.name) or ())
    return _shown_reason(condition, value, evidence) if evidence else _plain_reason(condition, value)
