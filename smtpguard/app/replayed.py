"""Replay recorded messages under another policy, from their journal entries alone.

The engine gets the recorded facts (``RuleSet.bounds``); an unknown fact leaves its rules pending. So each message has a
certain result or a set of possible ones. What no policy declares is taken as recorded. Where the verdict within the
mailing depends on something unknown, every possible answer is tried (admission.mailingverdict.mailing_effect). The policy counts as
in force from the first message on. Messages come in their order, since a hold or a rejection affects the following
ones. A mailing that was never held counts as waiting, since the decision of its approvers cannot be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import NamedTuple

from smtpguard.admission.builtinrules import WANTED, fixed
from smtpguard.admission.mailingverdict import NEVER_COVERED, MailingEffect, mailing_effect
from smtpguard.admission.recorded import ANY, CONFIRMED, NOT_KEPT, OLD, REJECTED, WAITING, Recorded
from smtpguard.app.replaydiff import WHY, CompiledPolicy, Divergence, PolicyDiff
from smtpguard.config.durations import LONGEST_SECONDS
from smtpguard.gathering.streams import FACT as OF_STREAMS
from smtpguard.mail.address import Address
from smtpguard.policy import confirming
from smtpguard.policy.condition import NO, PENDING, UNKNOWN, YES, Answer
from smtpguard.policy.counted import APPROVED, COUNTED
from smtpguard.policy.facts import FACTS, OF_MAILINGS, Count, Part, Type, Unknown, Value, Within
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import ASKED, ASTRAY, AUTOMATIC, IN_DOUBT, REPLIES, RETURNS, STAGES, STREAM, WAITS, Rule
from smtpguard.policy.verdict import Action, Mode, Scope, Verdict

COPIES = "copies"
"""What a verdict may depend on beside facts: other copies of the same mailing, which may wait."""
PEOPLE = "people"
"""What a verdict may depend on beside facts: the decisions of people about the mailing."""
HELD_TOO = "they may be held, and this message with them"
DRIFT = "earlier messages would have been counted differently"
DECIDED = "their decision cannot be known"
OFTEN = "the journal does not record how often its writer was asked"
RESTED = "the journal does not record whether its conversation was stopped"

_HOT = Count(math.inf, math.inf)
_SHARE = Count(0, 1)
_NO, _YES, _BOTH = frozenset({False}), frozenset({True}), frozenset({True, False})
Answered = tuple[frozenset[bool], str, str]
"""The possible answers to a question. If there are two, also the fact that it depends on, and why that is unknown."""
_SURELY_NOT: Answered = (_NO, "", "")


class Effect(NamedTuple):
    """The hit of a rule. ``action``, ``scope``: None if its policy is no longer kept."""

    mode: Mode
    action: Action | None
    scope: Scope | None

    def changes(self, new: Effect) -> Iterator[str]:
        """Yield what a hit of the same rule does otherwise: "from -> to"."""
        if self.mode is not new.mode:
            yield f"{_DOES[self.mode]} -> {_DOES[new.mode]}"
            return
        if self.action is not None and new.action is not None and self.action is not new.action:
            yield f"{self.action.word} -> {new.action.word}"
        if self.scope is not None and new.scope is not None and self.scope is not new.scope:
            yield f"scope: {self.scope.value} -> {new.scope.value}"


_DOES = {Mode.ENFORCE: "enforced", Mode.OBSERVE: "observes", Mode.APPROVED: "approved"}


def effects(verdict: Verdict) -> dict[str, Effect]:
    return {hit.rule: Effect(hit.mode, hit.action, hit.scope) for hit in verdict.hits}


@dataclass(frozen=True, slots=True)
class PossibleHit:
    """A rule that may hit. ``doubts``: the facts that it depends on, and why each is unknown."""

    rule: Rule
    doubts: Mapping[str, str]

    @property
    def actions(self) -> frozenset[Action]:
        return frozenset() if self.rule.observes else frozenset(self.rule.strength(a)[0] for a in (YES, UNKNOWN))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The result of a message under a policy. ``actions``: all possible ones; one if the result is certain. ``rules``: those that
    certainly hit. ``perhaps``: those that may. ``depends_on``: the facts, COPIES or PEOPLE that ``actions`` depend on, and why each is
    unknown."""

    actions: frozenset[Action]
    rules: Mapping[str, Effect]
    perhaps: tuple[PossibleHit, ...] = ()
    depends_on: Mapping[str, str] = field(default_factory=dict)

    @property
    def certain(self) -> bool:
        return len(self.actions) == 1

    def doubts_like(self, other: Judgement) -> bool:
        """Return whether both depend on the same answers to the same questions about what was not kept. If so, both give the same
        result, whatever the answers are."""
        mine, its = (
            {(p.rule.rule_id, p.rule.sense, p.rule.then, p.rule.mode) for p in t.perhaps} for t in (self, other)
        )
        whys = (
            why
            for thought in (self, other)
            for doubts in (thought.depends_on, *(p.doubts for p in thought.perhaps))
            for why in doubts.values()
        )
        return (
            self.actions == other.actions
            and self.rules == other.rules
            and mine == its
            and all(why in NOT_KEPT for why in whys)
        )


def recorded(message: Recorded, then: CompiledPolicy | None) -> Judgement:
    """Return the recorded result. ``then``: the policy that it was decided under, None if it is no longer kept."""
    by_mode = ((message.observed, Mode.OBSERVE), (message.approved, Mode.APPROVED), (message.enforced, Mode.ENFORCE))
    rules = {
        rule: Effect(mode, *(then.does(rule, message) if then is not None else (None, None)))
        for names, mode in by_mode
        for rule in sorted(names)
    }
    return Judgement(actions=frozenset({message.action}), rules=rules)


class Replay:
    """A replay of the messages of a period under one policy. ``copies``: the most copies of one mailing that are stored."""

    def __init__(self, compiled: CompiledPolicy, *, copies: int) -> None:
        self.compiled = compiled
        self._divergence = Divergence(copies=copies)
        self._diffs: dict[str, PolicyDiff] = {}

    def judge(self, message: Recorded, then: CompiledPolicy | None) -> Judgement:
        """Return the result of the next message. ``then``: the policy that it was decided under, None if it is no longer kept."""
        if ASKED in message.enforced:  # a preapproval, which is held whatever the rules say
            return recorded(message, then)
        if message.policy not in self._diffs:
            self._diffs[message.policy] = PolicyDiff(then, self.compiled)
        answers = _Answers(self._diffs[message.policy], self._divergence, message)
        case = _Case(answers)
        self._remember(case)
        return Judgement(
            actions=frozenset(case.actions),
            rules=effects(answers.least),
            perhaps=answers.perhaps,
            depends_on=case.depends_on if len(case.actions) > 1 else {},
        )

    def _remember(self, case: _Case) -> None:
        """Note the effect of a message on later ones."""
        message, answers, divergence = case.message, case.answers, self._divergence
        waiting = divergence.waiting(message)
        alike = case.actions == {message.action} and answers.own == message.own and not answers.maybe
        if not alike or waiting is not None:
            divergence.note_otherwise(message, answers.sizes if any(a.waits for a in case.actions) else None)
        held = any(action.waits for action in case.actions)
        divergence.note_arrival(message, held=held, addressed=bool(message.count("list_addresses").high))
        counted = {action <= Action.HOLD for action in case.actions}
        if held and waiting is not None and waiting.full:
            counted.add(False)
        divergence.counted(
            message, fewer=message.counted and False in counted, more=not message.counted and True in counted
        )
        relayed = message.action <= Action.CONFIRM  # a message whose writer is asked counts as if it had passed
        passes = {action <= Action.CONFIRM for action in case.actions}
        divergence.note_passed(message, fewer=relayed and False in passes, more=not relayed and True in passes)
        if case.diff.moved(message):
            divergence.moved(message, case.reach)


class _Answers:
    """The answers of all rules of the other policy on one message."""

    def __init__(self, diff: PolicyDiff, divergence: Divergence, message: Recorded) -> None:
        self.compiled = compiled = diff.other
        self.diff, self.divergence, self.message = diff, divergence, message
        rules, values = compiled.policy.rules, {}
        self._uncounted = rules.uncounted(message.subject(compiled.lists))
        self._why: dict[str, str] = {}
        for slot, (fact, seconds) in compiled.asked_slots.items():
            value, why = self.value_of(slot, fact, seconds)
            if why:
                self._why[slot] = why
            if value is not None:
                values[slot] = value
        bounds = rules.bounds(values, self._answered)
        self.least = bounds.least
        """The verdict with only the rules that certainly hit."""
        hits = {hit.rule for hit in self.least.hits}
        doubted = [
            PossibleHit(rule, {c.fact.name: self._why[c.slot] for c in rule.doubts(values) if c.slot in self._why})
            for rule in bounds.pending
        ]
        known = hits | {one.rule.rule_id for one in doubted}
        doubted += [
            PossibleHit(rule, {REPLIES: RESTED})
            for rule in rules.rules
            if rule.stop_seconds and rule.rule_id not in known and self._may_rest(rule, values)
        ]
        self.perhaps = tuple(doubted)
        self._hitting = [rule for rule in rules.rules if rule.rule_id in hits and not rule.observes]

    @property
    def own(self) -> frozenset[str]:
        """The enforced rules that certainly hit."""
        return frozenset(rule.rule_id for rule in self._hitting)

    @property
    def maybe(self) -> frozenset[str]:
        """The enforced rules that may hit."""
        return frozenset(one.rule.rule_id for one in self.perhaps if not one.rule.observes)

    @property
    def sizes(self) -> frozenset[str]:
        """The facts about the size of its mailing that the rules which hit, or may, ask for."""
        rules = (*self._hitting, *(one.rule for one in self.perhaps if not one.rule.observes))
        return OF_MAILINGS.intersection(c.fact.name for rule in rules for c in rule.conditions)

    def unchanged(self, then: CompiledPolicy) -> bool:
        """Return whether exactly the same rules hit as then, with the same actions."""
        if self.own != self.message.own or self.maybe:
            return False
        return all(r.rule_id in then.by_id and then.by_id[r.rule_id].then is r.then for r in self._hitting)

    def _may_rest(self, rule: Rule, values: Mapping[str, Value]) -> bool:
        """Return whether a rule with a stop that does not hit by its count may hit because the conversation is stopped."""
        if self.message.is_no_reply or self._answered(rule) is NO:
            return False
        hot = dict.fromkeys((c.slot for c in rule.when if c.fact.name == REPLIES), _HOT)
        return rule.answer({**values, **hot}) is not NO

    def _answered(self, rule: Rule) -> Answer:
        """Return the recorded answer of a rule with the same sense, if all that it asks would have been the same, else
        PENDING."""
        then = self.diff.then
        if then is None or not all(self._same(c.slot, c.fact.name, c.window_seconds) for c in rule.conditions):
            return PENDING
        answers = (then.answered(old, self.message) for old in then.by_sense.get(rule.sense, ()))
        return next((answer for answer in answers if answer is not None), PENDING)

    def _same(self, slot: str, fact: str, seconds: int) -> bool:
        if fact == APPROVED:
            return self.divergence.waiting(self.message) is None or not self.message.stood(APPROVED)
        if self.diff.why(fact, self.message):
            return False
        counts = fact in COUNTED and slot not in self._uncounted
        return not counts or not any(self.divergence.drift(self.message, fact, seconds))

    def fact(self, name: str) -> tuple[Value | None, str]:
        """Return the value of a fact that is not counted over messages, and why it is unknown (``value_of``)."""
        return self.value_of(name, name, 0)

    def value_of(self, slot: str, fact: str, seconds: int) -> tuple[Value | None, str]:
        """Return the value that the guard would have known under this policy, after all earlier messages; and why it is unknown, or
        only bounds are known."""
        message, why = self.message, self.diff.why(fact, self.message)
        if fact == APPROVED:
            return self._approved()
        value = self.diff.derived(fact, message) if why else message.value(slot)
        if fact not in COUNTED:
            if value is None and not why:
                return None, message.why_not(fact)
            return value, why if value is None or isinstance(value, Within) else ""
        if not why:
            if slot in self._uncounted:
                return self._uncounted[slot], ""
            value, why = self._counted(slot, fact, seconds, value)
        return self._drifted(fact, seconds, value, why)

    def _approved(self) -> tuple[Value | None, str]:
        granted = self.message.stood(APPROVED)
        if granted and self.divergence.waiting(self.message) is not None:
            return None, DECIDED
        return granted, ""

    def _counted(self, slot: str, fact: str, seconds: int, value: Value | None) -> tuple[Value | None, str]:
        """Return the recorded count; bounds for a count that no rule asked for."""
        message = self.message
        if value is not None:
            return value, ""
        why = message.why_not(fact)
        if not FACTS[fact].number:
            return None, why
        low, high = self.own_count(fact)
        if slot == fact or slot == f"{fact} in {seconds}":
            for other, count in message.windows(fact):
                if other < seconds:
                    low = max(low, count.low)
                else:
                    high = min(high, count.high)
        return Within(Count(low, max(low, high))), why

    def own_count(self, fact: str) -> Count:
        """Return bounds of a count: at least the message's own, without an upper bound."""
        message, row = self.message, FACTS[fact]
        if row.type is Type.SHARE:
            share = message.value(row.own) if row.own and message.exact else None
            return Count(share.low, 1) if isinstance(share, Count) else _SHARE
        if fact == "sender.customers":
            return Count(message.count("customers").low, math.inf)
        return Count(message.count(row.own.partition(".")[2]).low, math.inf) if row.own else ANY

    def _drifted(self, fact: str, seconds: int, value: Value | None, why: str) -> tuple[Value | None, str]:
        count = value.count if isinstance(value, Within) else value
        if not isinstance(count, Count):
            if value is None or isinstance(value, Unknown):
                return value, why
            return (None, DRIFT) if any(self.divergence.drift(self.message, fact, seconds)) else (value, why)
        fewer, more = self.divergence.drift(self.message, fact, seconds)
        if not (fewer or more):
            return value, why
        own, (low, high), share = self.own_count(fact), count, FACTS[fact].type is Type.SHARE
        if fewer:
            low = min(low, own.low if share else max(own.low, low - fewer))
        if more:
            high = own.high if share else max(high, own.low) + more
        return Within(Count(low, high)), DRIFT


class _Case:
    """All possible results of one verdict: by the rules, then by the built-in rules, then by its mailing."""

    def __init__(self, answers: _Answers) -> None:
        self.answers, self.compiled, self.diff = answers, answers.compiled, answers.diff
        self.divergence, self.message = answers.divergence, answers.message
        self.depends_on: dict[str, str] = {}
        least = answers.least.action
        self.actions = {least}
        for one in answers.perhaps:
            stricter = {max(least, action) for action in one.actions} - {least}
            if stricter:
                self.actions |= stricter
                self.depends_on.update(one.doubts)
        self._confirm_or_hold()
        self._apply_freeze()
        if self.compiled.policy.enforce:
            self._apply_builtin_rules()
            self._apply_mailing()
            self._limit_confirmations()
        if self.divergence.may_be_retry(self.message) and min(self.actions) <= Action.HOLD:
            self._may({Action.HOLD}, COPIES, "the same message may be held already")

    @property
    def reach(self) -> float:
        """The most people that it may go to."""
        return self._at_most("recipients.reach")

    def _at_most(self, fact: str) -> float:
        value, _ = self.answers.fact(fact)
        value = value.count if isinstance(value, Within) else value
        return value.high if isinstance(value, Count) else math.inf

    def _may(self, actions: Iterable[Action], fact: str, why: str) -> None:
        more = set(actions) - self.actions
        if more:
            self.actions |= more
            self.depends_on.setdefault(fact, why)

    def _confirm_or_hold(self) -> None:
        """Replace a confirmation by a hold if the facts say that nobody can be asked."""
        if Action.CONFIRM not in self.actions:
            return
        answers = {name: self.answers.fact(name) for name in (*confirming.NEEDED, "recipients.sensitivity")}
        known = {name: value for name, (value, _) in answers.items() if value is not None}
        if confirming.why_not(known) is None:
            return
        missing = {name: why for name, (value, why) in answers.items() if value is None}
        if missing:
            self.actions.add(Action.HOLD)
            self.depends_on.update(missing)
        else:
            self.actions = {Action.HOLD if action is Action.CONFIRM else action for action in self.actions}

    def _limit_confirmations(self) -> None:
        """Also try a hold for a writer who was asked too often: how often is not recorded."""
        if Action.CONFIRM not in self.actions or self.message.action is Action.CONFIRM:
            return
        if self.message.action is Action.RELAY and self.message.stood(CONFIRMED):
            self.actions = {Action.RELAY if action is Action.CONFIRM else action for action in self.actions}
        elif not self.message.tellable:
            self.actions = {Action.HOLD if action is Action.CONFIRM else action for action in self.actions}
        else:
            self._may({Action.HOLD}, confirming.FACT, OFTEN)

    def _apply_freeze(self) -> None:
        if FREEZE not in self.message.enforced:
            return
        if self.diff.moved(self.message):
            stopped = {max(a, self._freeze_action()) for a in self.actions}
            self._may(stopped, "recipients.lists", WHY[Part.MEMBERSHIP])
        else:
            least = self._freeze_action()
            self.actions = {max(a, least) for a in self.actions}

    def _freeze_action(self) -> Action:
        alone = not self.message.own and self.message.action in (Action.HOLD, Action.DEFER)
        return self.message.action if alone else self.compiled.policy.rules.freeze_answer

    def _apply_builtin_rules(self) -> None:
        """Apply the built-in rules, with every possible answer to what is unknown."""
        options = self._automatic(), self._returns(), self._over_limit(), self._in_doubt()
        found = {
            max(
                (
                    action,
                    *(WANTED[rule] for rule in fixed(action, automatic=auto, returns=to, over=over, in_doubt=doubt)),
                )
            )
            for action in self.actions
            for auto, to, over, doubt in product(*(answers for answers, _, _ in options))
        }
        if found != self.actions:
            for answers, fact, why in options:
                if len(answers) > 1:
                    self.depends_on.setdefault(fact, why)
        self.actions = found

    @property
    def _to_no_list(self) -> bool:
        return not self._at_most("recipients.list_addresses")

    def _automatic(self) -> Answered:
        """Answer whether it is an automatic reply to a list address."""
        _, why = self.answers.fact("recipients.list_addresses")
        if self._to_no_list:
            return _SURELY_NOT
        if AUTOMATIC in self.message.hits:
            return (_BOTH if why else _YES), "recipients.list_addresses", why
        asked = self.message.count("list_addresses").low or self._written_by_somebody()
        return (_NO if asked else _BOTH), "message.automatic", OLD

    def _written_by_somebody(self) -> bool:
        """Return whether it is surely neither an automatic reply nor a bounce."""
        automatic, _ = self.answers.fact("message.automatic")
        return automatic is False and any(self.message.names("reverse_path"))

    def _returns(self) -> Answered:
        """Answer whether reports on it go to a customer list, against the policy."""
        message, registry, fact = self.message, self.compiled.registry, "recipients.list_addresses"
        if message.data.get("expanded_from"):
            return _SURELY_NOT
        if message.clear is not None:  # else it is erased
            paths = [path for text in message.names("reverse_path") if (path := Address.parse_any(text)) is not None]
            delimiters, fact = registry.digester.delimiters, "sender.is_writer"
            lists = {name for path in paths for name in registry.lists_behind(path, path.canonical(delimiters))}
            if not lists:
                return _SURELY_NOT
            writer = next(iter(message.names("from")), "")
            if any(writer not in registry.lists[name].writers for name in lists):
                return _YES, "", ""
        why = self.diff.why(fact, message)
        return (_BOTH if why else _YES if RETURNS in message.hits else _NO), fact, why

    def _over_limit(self) -> Answered:
        """Answer whether a stream that it uses is above its limit."""
        message, why = self.message, self.diff.why("stream", self.message)
        value = self.diff.derived("stream", message) if why else frozenset(message.streams)
        if isinstance(value, frozenset) and self.compiled.limited.isdisjoint(value):
            return _SURELY_NOT
        if why or self.diff.limits(message) or any(self.divergence.drift(message, OF_STREAMS, LONGEST_SECONDS)):
            return _BOTH, OF_STREAMS, why or "the journal does not record the stream's volume"
        return (_YES if STREAM in message.hits else _NO), "", ""

    def _in_doubt(self) -> Answered:
        """Answer whether the relay may have taken it before, to a list address."""
        message = self.message
        if self._to_no_list:
            return _SURELY_NOT
        if IN_DOUBT in message.hits:
            return _YES, "", ""
        asked = message.count("list_addresses").low and not message.own and FREEZE not in message.enforced
        tried = not asked and self.divergence.may_have_gone_to_list(message)
        return (_BOTH if tried else _NO), COPIES, "an earlier attempt may have reached the list"

    def _apply_mailing(self) -> None:
        """Apply the decisions on its mailing, and the waiting copies of it."""
        message, waiting = self.message, self.divergence.waiting(self.message)
        if not message.mailing:
            if Action.RELAY in self.actions and (self.divergence.by_reach or self.divergence.lost):
                self._may({Action.HOLD}, COPIES, HELD_TOO)
            return
        if waiting is None and self._is_as_recorded():
            self.actions = {message.action}
            return
        if ASTRAY in message.enforced:  # people had allowed the text for others alone
            self.actions = {max(action, Action.HOLD) for action in self.actions}
        waits, refused, granted = (message.stood(name) for name in (WAITING, REJECTED, APPROVED))
        confirmed = message.stood(CONFIRMED)
        if waiting is not None and (refused or granted):
            turns = {Action.DEFER} if any(one.stages for one in self.compiled.policy.lists.values()) else set()
            self._may({Action.RELAY, Action.HOLD, Action.REJECT} | turns, PEOPLE, DECIDED)
            self.depends_on.pop(APPROVED, None)
        else:
            stands = [
                self._mailing_actions(
                    a, waits=waits, refused=refused, granted=granted or (confirmed and a < Action.HOLD)
                )
                for a in self.actions
            ]
            self.actions = set().union(*stands)

    def _is_as_recorded(self) -> bool:
        """Return whether everything is as it was recorded, so that the mailing's effect is as recorded."""
        then, message = self.diff.then, self.message
        if then is None or not then.policy.enforce or not self.answers.unchanged(then):
            return False
        actions = {action for name in message.own if (action := then.does(name, message)[0]) is not None}
        built_in = {action for name, action in WANTED.items() if name in message.enforced}
        freeze = {self._freeze_action()} if FREEZE in message.enforced else set()
        return self.actions == {max(actions | built_in | freeze, default=Action.RELAY)}

    def _mailing_actions(self, action: Action, *, waits: bool, refused: bool, granted: bool) -> set[Action]:
        """Return what the mailing may make of an action, with every possible answer to what is unknown."""
        message, nobody = self.message, not self._at_most("recipients.customers")
        found: set[Action] = set()
        holds, covers = self._may_wait(nobody, waits), self._covers(action) if granted else _NO
        for wait, cover in product(holds, covers):
            beside = bool(message.streams) or (nobody and not wait)
            taken = mailing_effect(
                action, beside=beside, refused=partial(bool, refused), covered=partial(bool, cover), waits=wait
            )
            match taken:
                case MailingEffect.PASSES:
                    found.add(Action.RELAY)
                case MailingEffect.REFUSED:
                    found.add(Action.REJECT)
                case MailingEffect.COVERED:
                    found |= self._stage_actions()
                case MailingEffect.WAITS:
                    found.add(Action.CONFIRM if message.action is Action.CONFIRM else Action.HOLD)
                case MailingEffect.OWN:
                    found.add(action)
        if len(found) > 1:
            fact, why = (COPIES, HELD_TOO) if len(holds) > 1 else (PEOPLE, "they may have allowed it")
            self.depends_on.setdefault(fact, why)
        return found

    def _may_wait(self, nobody: bool, waits: bool) -> frozenset[bool]:
        """Return the possible answers to whether it waits with other copies."""
        message, waiting, then = self.message, self.divergence.waiting(self.message), self.diff.then
        if waiting is not None:
            return _BOTH if (waiting.by_reach if nobody else waiting.by_size) else _NO
        if WAITS in message.hits:
            return _YES
        as_then = then is not None and then.policy.enforce and not message.own
        return _BOTH if waits and not as_then else _NO

    def _covers(self, action: Action) -> frozenset[bool]:
        """Return the possible answers to whether an approval covers it, by the rules that the approvers saw: no others may hold it."""
        message, then = self.message, self.diff.then
        if action is Action.RELAY:
            return _YES
        holding = self.answers.own | self.answers.maybe
        if not holding or not NEVER_COVERED.isdisjoint(message.enforced):
            return _NO
        if holding <= message.approved:
            return _YES
        if then is not None and not self.answers.own <= then.by_id.keys():
            return _NO
        return _BOTH

    def _stage_actions(self) -> set[Action]:
        """Return the possible actions on an approved message: it is deferred if its stage had no room."""
        message = self.message
        if STAGES in message.hits:
            return {Action.DEFER}
        if message.approved or (not message.own and message.action is Action.RELAY):
            return {Action.RELAY}
        self.depends_on.setdefault(PEOPLE, "the journal does not record whether its stage was open")
        return {Action.RELAY, Action.DEFER}
