"""What one policy would have made of messages that were decided on under another, from their entries in the journal alone.

The rules are asked as ever, and the engine closes; but what is not kept is neither a yes nor the doubt that stands still: of every
message there is what is certain, and what may be. The policy is taken to be in force from the first message on, and messages are
given in their order, since what would have been held or refused of one bears on the next. Nobody can know what people would have
decided on what was never held: it waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from smtpguard.admission.recordedfacts import REJECTED as REFUSED
from smtpguard.admission.recordedfacts import WAITING
from smtpguard.admission.standing import NEVER_COVERED
from smtpguard.gathering.streams import FACT as OF_STREAMS
from smtpguard.hindsight.answers import DECIDED, Answers, Perhaps
from smtpguard.hindsight.compiledpolicy import CompiledPolicy
from smtpguard.hindsight.divergence import Divergence
from smtpguard.hindsight.passed import Sums
from smtpguard.hindsight.policydiff import WHO, PolicyDiff
from smtpguard.hindsight.recalled import NOT_KEPT, OLD, Recalled, Told, Window
from smtpguard.policy.counted import APPROVED
from smtpguard.policy.facts import Count
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import ASKED, AUTOMATIC, IN_DOUBT, STAGES, STREAM, WAITS
from smtpguard.policy.verdict import Action, Mode
from smtpguard.policy.window import LONGEST_SECONDS

COPIES = "copies"
"""What a verdict hangs on beside facts: other copies of the same mailing, which may wait."""
PEOPLE = "people"
"""... what people had decided about it."""
HELD_TOO = "they may wait, and it with them"
_FIXED = {AUTOMATIC: Action.REJECT, STREAM: Action.DEFER, IN_DOUBT: Action.HOLD}
_ADDRESSES = Window("recipients.list_addresses", "recipients.list_addresses")
_AUTOMATIC = Window("message.automatic", "message.automatic")
_CUSTOMERS = Window("recipients.customers", "recipients.customers")
_REACH = Window("recipients.reach", "recipients.reach")
_STREAM = Window("stream", "stream")


class Effect(NamedTuple):
    """Of a rule that hit; ``action``: None where its policy is not there any more to say it."""

    mode: Mode
    action: Action | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """``actions``: all that it may have come to; one where it is certain. ``rules``: those that certainly hit.
    ``perhaps``: those that may. ``hangs``: fact, COPIES or PEOPLE to why it is not known, of all that ``actions`` hang on."""

    actions: frozenset[Action]
    rules: Mapping[str, Effect]
    perhaps: tuple[Perhaps, ...] = ()
    hangs: Mapping[str, str] = field(default_factory=dict)

    @property
    def certain(self) -> bool:
        return len(self.actions) == 1

    def doubts_like(self, other: Thought) -> bool:
        """Whether both hang on the same answers to the same questions about what was not kept: whatever they are, both come to the
        same."""
        mine, its = (
            {(p.rule.rule_id, p.rule.sense, p.rule.then, p.rule.mode) for p in t.perhaps} for t in (self, other)
        )
        whys = (
            why
            for thought in (self, other)
            for doubts in (thought.hangs, *(p.doubts for p in thought.perhaps))
            for why in doubts.values()
        )
        return (
            self.actions == other.actions
            and self.rules == other.rules
            and mine == its
            and all(why in NOT_KEPT for why in whys)
        )


def recall(message: Recalled, then: CompiledPolicy | None, sums: Sums) -> None:
    """With the policy that it was decided under (None: it is not there any more). Of entries from before facts were kept ``sums`` is
    to meet all of a day before, in order."""
    if then is not None:
        message.under(expands=bool(then.policy.expansions), asked=then.counts, avoid=then.avoid)
    if message.decided and message.facts is None and message.mailing:
        message.come = sums.add(message.mailing, message.count("customers").high, message.at)


def recorded(message: Recalled, then: CompiledPolicy | None) -> Thought:
    """What the policy of then did."""
    by_mode = ((message.observed, Mode.OBSERVE), (message.approved, Mode.APPROVED), (message.enforced, Mode.ENFORCE))
    rules = {
        rule: Effect(mode, then.action(rule, message) if then is not None else None)
        for names, mode in by_mode
        for rule in sorted(names)
    }
    return Thought(actions=frozenset({message.action}), rules=rules)


class Replay:
    """The messages of a time under one policy. ``copies``: so many of one mailing are stored."""

    def __init__(self, ground: CompiledPolicy, *, copies: int) -> None:
        self.ground = ground
        self._trail = Divergence(copies=copies)

    def judge(self, message: Recalled, shift: PolicyDiff) -> Thought:
        """``shift``: from the policy that it was decided under to this one."""
        if ASKED in message.enforced:  # a test of a mailing, which is held whatever the rules say
            return recorded(message, shift.then)
        answers = Answers(self.ground, shift, self._trail, message)
        case = _Case(self.ground, shift, self._trail, message, answers)
        self._remember(case)
        return Thought(
            actions=frozenset(case.actions),
            rules={hit.rule: Effect(hit.mode, hit.action) for hit in answers.least.hits},
            perhaps=tuple(answers.perhaps),
            hangs=case.hangs if len(case.actions) > 1 else {},
        )

    def _remember(self, case: _Case) -> None:
        """What it means for the next."""
        message, answers, trail = case.message, case.answers, self._trail
        waiting = trail.waiting(message)
        alike = case.actions == {message.action} and answers.own == message.own and not answers.maybe
        if not alike or waiting is not None:
            trail.otherwise(message, answers.sizes if Action.HOLD in case.actions else None)
        held = Action.HOLD in case.actions
        trail.came(message, held=held, addressed=bool(message.count("list_addresses").high))
        counted = {action <= Action.HOLD for action in case.actions}
        if held and waiting is not None and waiting.full:
            counted.add(False)
        trail.counted(message, fewer=message.counted and False in counted, more=not message.counted and True in counted)
        relayed = message.action is Action.RELAY
        passes = {action is Action.RELAY for action in case.actions}
        trail.let_through(message, fewer=relayed and False in passes, more=not relayed and True in passes)
        if case.shift.moved(message):
            trail.moved(message, case.reach)


class _Case:
    """All that one verdict may come to: what the rules say, then what stands in no policy, then what its mailing makes of it."""

    def __init__(
        self, ground: CompiledPolicy, shift: PolicyDiff, trail: Divergence, message: Recalled, answers: Answers
    ) -> None:
        self.ground, self.shift, self.trail, self.message, self.answers = ground, shift, trail, message, answers
        self.hangs: dict[str, str] = {}
        least = answers.least.action
        self.actions = {least}
        for one in answers.perhaps:
            stricter = {max(least, action) for action in one.actions} - {least}
            if stricter:
                self.actions |= stricter
                self.hangs.update(one.doubts)
        self._freeze()
        if ground.in_force.enforce:
            self._to_a_list()
            self._of_a_stream()
            self._of_a_mailing()
        if trail.repeats(message) and min(self.actions) <= Action.HOLD:
            self._may({Action.HOLD}, COPIES, "the same message may be held already")

    @property
    def reach(self) -> float:
        """People at most."""
        reach = self.answers.told(_REACH).value
        return reach.high if isinstance(reach, Count) else math.inf

    def _at_least(self, action: Action) -> None:
        self.actions = {max(a, action) for a in self.actions}

    def _may(self, actions: Iterable[Action], fact: str, why: str) -> None:
        more = set(actions) - self.actions
        if more:
            self.actions |= more
            self.hangs.setdefault(fact, why)

    # what stands in no policy

    def _freeze(self) -> None:
        if FREEZE in self.message.enforced and self.shift.moved(self.message):
            self._may({max(a, self._freeze_action()) for a in self.actions}, "recipients.lists", WHO)
        elif FREEZE in self.message.enforced:
            self._at_least(self._freeze_action())

    def _freeze_action(self) -> Action:
        alone = not self.message.own and self.message.action in (Action.HOLD, Action.DEFER)
        return self.message.action if alone else self.ground.in_force.rules.freeze_answer

    def _to_a_list(self) -> None:
        """No automatic reply goes to a list, and nothing that may have reached it already."""
        told, then, relayed = (
            self.answers.told(_ADDRESSES),
            self.message.count("list_addresses"),
            Action.RELAY in self.actions,
        )
        if isinstance(told.value, Count) and not told.value.high:
            return
        if AUTOMATIC in self.message.hits and not told.vague:
            self._at_least(Action.REJECT)
        elif AUTOMATIC in self.message.hits:
            self._may((max(a, Action.REJECT) for a in self.actions), _ADDRESSES.fact, told.vague)
        elif not then.low and not self._written_by_somebody():  # it was to no list then, so nobody asked
            self._may((max(a, Action.REJECT) for a in self.actions), "message.automatic", OLD)
        if IN_DOUBT in self.message.hits and relayed:
            self.actions = {Action.HOLD if a is Action.RELAY else a for a in self.actions}
        asked = then.low and not self.message.own and FREEZE not in self.message.enforced
        if relayed and not asked and self.trail.tried(self.message):
            self._may({Action.HOLD}, COPIES, "an earlier attempt may have reached the list")

    def _written_by_somebody(self) -> bool:
        """Whether it is surely no automatic reply, and not a bounce."""
        told = self.answers.told(_AUTOMATIC)
        return told == Told(False) and any(self.message.names("reverse_path"))

    def _of_a_stream(self) -> None:
        limited = self.ground.limited
        if not limited:
            return
        told = self.answers.told(_STREAM)
        if isinstance(told.value, frozenset) and not told.vague and limited.isdisjoint(told.value):
            return
        if (
            told.vague
            or self.shift.limits(self.message)
            or any(self.trail.drift(self.message, OF_STREAMS, LONGEST_SECONDS))
        ):
            more = {max(a, Action.DEFER) for a in self.actions}
            self._may(more, OF_STREAMS, told.vague or "how much came of the stream is not kept")
        elif STREAM in self.message.hits:
            self._at_least(Action.DEFER)

    # as one of a mailing

    def _of_a_mailing(self) -> None:
        """What people decided about its mailing, and what waits of it."""
        message = self.message
        if not message.mailing:
            if Action.RELAY in self.actions and (self.trail.by_reach or self.trail.lost):
                self._may({Action.HOLD}, COPIES, HELD_TOO)
            return
        waiting = self.trail.waiting(message)
        if waiting is None and self._as_it_went():
            self.actions = {message.action}
            return
        decided = [message.stood(name) for name in (WAITING, REFUSED, APPROVED)]
        waits, refused, granted = (bool(one) for one in decided)
        if None in decided:
            self._may(
                {Action.RELAY, Action.HOLD, Action.DEFER, Action.REJECT},
                PEOPLE,
                "what they had decided was not kept then",
            )
        elif waiting is not None and (refused or granted):
            turns = {Action.DEFER} if self.ground.in_force.stages else set()
            self._may({Action.RELAY, Action.HOLD, Action.REJECT} | turns, PEOPLE, DECIDED)
            self.hangs.pop(APPROVED, None)
        else:
            stands = [self._stands(a, waits=waits, refused=refused, granted=granted) for a in self.actions]
            self.actions = set().union(*stands)

    def _as_it_went(self) -> bool:
        """Whether all is as it was when its mailing was looked at, and so would have gone as it went."""
        then, message = self.shift.then, self.message
        if then is None or not then.in_force.enforce or not self.answers.unchanged(then):
            return False
        actions = {action for name in message.own if (action := then.action(name, message)) is not None}
        fixed = {action for name, action in _FIXED.items() if name in message.enforced}
        freeze = {self._freeze_action()} if FREEZE in message.enforced else set()
        return self.actions == {max(actions | fixed | freeze, default=Action.RELAY)}

    def _stands(self, action: Action, *, waits: bool, refused: bool, granted: bool) -> set[Action]:
        """What the mailing makes of one action (admission.standing)."""
        message, waiting = self.message, self.trail.waiting(self.message)
        customers = self.answers.told(_CUSTOMERS).value
        nobody = isinstance(customers, Count) and not customers.high
        if action is Action.RELAY and message.streams:
            return {action}
        if action is Action.RELAY and nobody and not waits and not (waiting is not None and waiting.by_reach):
            return {action}
        if refused:
            return {Action.REJECT, action} if action is Action.RELAY and nobody else {Action.REJECT}
        if granted and action <= Action.HOLD:
            return self._granted(action)
        if action is not Action.RELAY:
            return {action}
        if waiting is not None:
            return self._relayed_or_held(waiting.by_reach if nobody else waiting.by_size)
        if WAITS in message.hits:
            return {Action.HOLD}
        then = self.shift.then
        as_then = then is not None and then.in_force.enforce and not message.own
        return self._relayed_or_held(waits and not as_then)

    def _relayed_or_held(self, maybe: bool) -> set[Action]:
        if not maybe:
            return {Action.RELAY}
        self.hangs.setdefault(COPIES, HELD_TOO)
        return {Action.RELAY, Action.HOLD}

    def _granted(self, action: Action) -> set[Action]:
        """People have allowed its mailing to pass, in its turn, by the rules that they saw. What else would hold it they had not
        seen."""
        message, then = self.message, self.shift.then
        if STAGES in message.hits:
            passes = {Action.DEFER}
        elif message.approved or (not message.own and message.action is Action.RELAY):
            passes = {Action.RELAY}
        else:
            passes = {Action.RELAY, Action.DEFER}
            self.hangs.setdefault(PEOPLE, "whether it would have had to wait for its turn is not kept")
        if action is Action.RELAY:
            return passes
        holding = self.answers.own | self.answers.maybe
        if not holding or not NEVER_COVERED.isdisjoint(message.enforced):
            return {action}
        if holding <= message.approved:
            return passes
        if then is not None and not self.answers.own <= then.by_id.keys():
            return {action}
        self.hangs.setdefault(PEOPLE, "they may have allowed it")
        return passes | {action}
