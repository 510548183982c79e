"""Decide from facts, in two steps: plan with what is known, and list what else must be asked; close with the counts
and freezes that the admission read.

``decide`` is both in one. An index skips rules that a message cannot hit. All rules are read and the strictest action
wins, so adding a rule never loosens a verdict. A rule that could not make it stricter any more is skipped rather than
asked for; observing rules are always answered. Pure, total, deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain

from smtpguard.mail.constant import constant, maker
from smtpguard.policy import confirming, counted
from smtpguard.policy.condition import NO, PENDING, UNKNOWN, Answer, Condition, EveryWord, Range, SomeWord, Word
from smtpguard.policy.confirming import ConfirmModel
from smtpguard.policy.counted import Ask, Live
from smtpguard.policy.facts import FACTS, NONE, OF_LETTERS, ONLY_HEADERS, SIZE, Count, Facts, Source, Unknown, Value
from smtpguard.policy.freezing import Freeze, frozen
from smtpguard.policy.rule import NOT_ASKED, Rule, Strength, is_stopped
from smtpguard.policy.verdict import Action, Hit, Miss, Mode, Quorum, Scope, Verdict

_NOT_GATHERED = Unknown(why="it was not determined")
_LOOSEST: Strength = (Action.RELAY, False)
_PRICES = (Source.HEADERS, Source.TEXT, Source.ORIGIN)


_REMEMBERED = 1024
_ANYONE = _OTHER_WORD = "\0"
_OTHER_WORDS = frozenset({_OTHER_WORD})
_NOBODY = Facts()
_NO_PAUSES: Mapping[str, tuple[Ask, ...]] = {}

Values = tuple[Value | None, ...]
"""A value for each slot of the rules, None if it was not asked for yet."""
Given = tuple[tuple[str, Value], ...]
"""Pairs of a slot and its value, for the values that the admission gives."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reckoning:
    """The rules' answers to some values, for any message with them. ``answers``: of the rules that do not surely
    miss. ``settled``: the hits of rules that are not pending, in words. ``holding``: the slots of each pending rule
    that would hold. ``confirming``: whether the strictest certain rule, or a pending one, asks the writer.
    ``pending``: the cheapest source that any of them needs. ``values``: by slot."""

    answers: tuple[tuple[Rule, Answer], ...]
    certain: Strength
    hanging: frozenset[str]
    holding: tuple[frozenset[str], ...]
    confirming: bool
    pending: frozenset[Source]
    settled: tuple[Hit | None, ...]
    unknown: Mapping[str, str]
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """The questions to the admission about messages with one subject. ``questions``: the asks of each slot;
    ``uncounted``: the values that need none; ``given``: those of each slot that the admission gives. ``open``: the
    slots in neither, which depend on facts that were not asked for yet. ``lazy``: whether a slot is asked for only if
    a rule needs it. ``asks``: each once."""

    questions: Mapping[str, tuple[Ask, ...]]
    uncounted: Mapping[str, Value]
    given: Values
    open: frozenset[str]
    lazy: bool
    asks: tuple[Ask, ...]


def _each_once(questions: Mapping[str, tuple[Ask, ...]]) -> tuple[Ask, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(questions.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of a verdict. ``least``: the verdict if none of the rules ``pending`` hits."""

    least: Verdict
    pending: tuple[Rule, ...]


@dataclass(kw_only=True)
class RuleSet:
    """The rules of one policy, compiled. Nothing of it changes afterwards.

    ``quorums``: by list, if it has its own; otherwise ``approvals``. ``freeze_answer``: HOLD or DEFER.
    """

    rules: tuple[Rule, ...]
    sha256: str = ""
    approvals: Quorum
    quorums: Mapping[str, Quorum] = field(default_factory=dict)
    freeze_answer: Action = Action.HOLD
    confirming: ConfirmModel = field(default_factory=ConfirmModel)

    def __post_init__(self) -> None:
        conditions = [c for rule in self.rules for c in rule.conditions]
        slots = {c.slot: c.fact.name for c in conditions}
        envelope = {c.slot for c in conditions if c.fact.source is Source.ENVELOPE}
        live = {c.slot: c for c in conditions if c.fact.name in counted.COUNTED}
        # the slots whose values are gathered, and those that the admission gives
        gathered = self._gathered = tuple(sorted(s for s in slots if s not in live and s != counted.APPROVED))
        self._given = tuple(sorted(slots.keys() - gathered))
        self._slots = {slot: slots[slot] for slot in (*gathered, *self._given)}
        self._not_asked: dict[str, Value] = dict.fromkeys(self._slots, NOT_ASKED)
        # if they were not gathered: unknown for a fact of the envelope, else not asked for
        self._ungathered = tuple(_NOT_GATHERED if slot in envelope else None for slot in gathered)
        self._counted = tuple(live[slot] for slot in sorted(live))
        self._asked = frozenset(c.fact.name for c in self._counted)
        # counts that are asked for only if a rule still needs them
        self._lazy = frozenset(slot for slot, c in live.items() if counted.COUNTED[c.fact.name].lazy)
        self._worded = tuple(self._by_words(gathered, conditions))
        self._sized = tuple(self._by_size(gathered, conditions))
        self._sieve = RuleIndex(self.rules, tuple(self._slots))
        self._stops = tuple(rule for rule in self.rules if rule.stop_seconds)
        # the rules that call a person
        self.alarms = tuple(rule for rule in self.rules if rule.alarm)
        # whether any rule asks if a message is automatic, and whether any counts first contacts
        self.asks_automatic = "message.automatic" in self._slots
        self.counts_letters = not OF_LETTERS.isdisjoint(self._asked)
        # nearly every message has the same values as an earlier one
        self._questions = lru_cache(maxsize=_REMEMBERED)(self._questions_for)
        self._of_anyone = lru_cache(maxsize=_REMEMBERED)(self._questions_of_subject)
        self._reckoned = lru_cache(maxsize=_REMEMBERED)(self._reckon)
        self._judged = lru_cache(maxsize=_REMEMBERED)(self._judge_given)

    def plan(self, known: Facts) -> Plan:
        """Return the answers with what is known, and what they still depend on."""
        values = known.values
        asked = self._questions(counted.Subject.of(known))
        given = asked.given
        if asked.open:
            given = tuple(values.get(slot) if slot in asked.open else asked.uncounted.get(slot) for slot in self._given)
        slots = same = tuple(map(values.get, self._gathered, self._ungathered)) + given
        for place, words in self._worded:
            value = slots[place]
            if value and (
                words.isdisjoint(value) if type(value) is frozenset else type(value) is str and value not in words
            ):
                same = (*same[:place], _OTHER_WORDS if type(value) is frozenset else _OTHER_WORD, *same[place + 1 :])
        for place, least in self._sized:
            value = slots[place]
            if type(value) is Count and value.high < least:
                same = (*same[:place], NONE, *same[place + 1 :])
        reckoned = self._reckoned(same)
        questions, asks = asked.questions, asked.asks
        if asked.lazy:
            wanted = {slot for rule, a in reckoned.answers if a is PENDING for slot in self._lazy & rule.slots}
            questions = {slot: each for slot, each in questions.items() if slot not in self._lazy or slot in wanted}
            asks = _each_once(questions)
        pauses = _NO_PAUSES
        if self._stops and known.threads:
            hanging = {rule.rule_id for rule, a in reckoned.answers if a is PENDING}
            pauses = {rule.rule_id: rule.pauses(known.threads) for rule in self._stops if rule.rule_id in hanging}
        # always the header: a freeze of a sender or a thread looks at it
        pending = reckoned.pending if "sender.address" in values else ONLY_HEADERS
        if not pending and reckoned.confirming:
            pending = _cheapest({source for name, source in confirming.NEEDED.items() if name not in values})
        settled, evidence = reckoned.settled, known.evidence
        if evidence and not pending and any(settled) and not evidence.keys().isdisjoint(self._slots.values()):
            settled = self._in_words(reckoned.answers, self._by_slot(slots), known)
        return _new_plan(
            rules=self,
            facts=known,
            known=slots,
            reckoned=reckoned,
            pending=pending,
            questions=questions,
            pauses=pauses,
            asks=asks,
            settled=settled,
        )

    @staticmethod
    def _by_words(slots: Sequence[str], conditions: Sequence[Condition]) -> Iterator[tuple[int, frozenset[str]]]:
        """Yield the place of each fact that is only compared with words, and these words. A value that has none of
        them gives the same answers as any other, and no reason shows it: all conditions say no."""
        for place, slot in enumerate(slots):
            mine = [c for c in conditions if c.slot == slot]
            if mine[0].fact.words or mine[0].fact.noun:
                continue
            words = [c.words for c in mine if isinstance(c, Word | SomeWord | EveryWord)]
            if len(words) == len(mine):
                yield place, frozenset().union(*words)

    @staticmethod
    def _by_size(slots: Sequence[str], conditions: Sequence[Condition]) -> Iterator[tuple[int, float]]:
        """Yield the place of the size, and its limit, if it matters only from that limit on: for all smaller messages
        the conditions say no."""
        limits = [c.least if isinstance(c, Range) else 0 for c in conditions if c.slot == SIZE]
        if limits and min(limits) > 0:
            yield slots.index(SIZE), min(limits)

    def _questions_for(self, subject: counted.Subject) -> Asked:
        """Return the questions about a message. They are worked out once for all senders, and the sender's key is put
        in."""
        sender = subject.sender
        if not sender or not isinstance(sender, str):
            return self._of_anyone(subject)
        some = self._of_anyone(subject._replace(sender=_ANYONE))
        if not any(ask.key == _ANYONE for ask in some.asks):
            return some
        questions = {
            slot: tuple([ask._replace(key=sender) if ask.key == _ANYONE else ask for ask in asks])
            for slot, asks in some.questions.items()
        }
        return replace(some, questions=questions, asks=_each_once(questions))

    def _questions_of_subject(self, subject: counted.Subject) -> Asked:
        questions, told = counted.questions_of(self._counted, subject)
        return Asked(
            questions=questions,
            uncounted=told,
            given=tuple(map(told.get, self._given)),
            open=frozenset(self._given).difference(questions, told, (counted.APPROVED,)),
            lazy=not self._lazy.isdisjoint(questions),
            asks=_each_once(questions),
        )

    def _by_slot(self, known: Values) -> dict[str, Value]:
        return {slot: value for slot, value in zip(self._slots, known, strict=True) if value is not None}

    def _reckon(self, known: Values) -> Reckoning:
        values = self._by_slot(known)
        left = [self.rules[n] for n in self._sieve.may_hit(known)]
        answers = tuple((rule, answer) for rule in left if (answer := rule.answer(values)) is not NO)
        certain = _LOOSEST
        for rule, answer in answers:
            if answer is not PENDING and not rule.observes:
                certain = max(certain, rule.strength(answer))
        hanging = [r for r, answer in answers if answer is PENDING and _may_change(certain, r)]
        return Reckoning(
            answers=answers,
            certain=certain,
            hanging=frozenset(rule.rule_id for rule in hanging),
            holding=tuple(r.slots for r in hanging if r.then.waits and not r.observes),
            confirming=certain[0] is Action.CONFIRM
            or (certain[0] is Action.RELAY and any(r.then is Action.CONFIRM and not r.observes for r in hanging)),
            pending=_cheapest({rule.waits_for(values) for rule in hanging}),
            settled=self._in_words(answers, values, _NOBODY),
            unknown={self._slots[slot]: value.why for slot, value in values.items() if isinstance(value, Unknown)},
            values=values,
        )

    def _in_words(
        self, answers: Iterable[tuple[Rule, Answer]], values: Mapping[str, Value], facts: Facts
    ) -> tuple[Hit | None, ...]:
        return tuple(None if answer is PENDING else rule.hit(answer, values, facts) for rule, answer in answers)

    def _judge_given(self, reckoned: Reckoning, given: Given, lists: frozenset[str]) -> Verdict:
        return self._judge(reckoned, {**reckoned.values, **dict(given)}, lists)

    def _judge(
        self,
        reckoned: Reckoning,
        known: Mapping[str, Value],
        lists: frozenset[str],
        settled: Sequence[Hit | None] | None = None,
        facts: Facts = _NOBODY,
        rests: frozenset[str] = frozenset(),
        freeze: tuple[Freeze, Hit] | None = None,
        misses: bool = False,
    ) -> Verdict:
        """Return the verdict on a message of which these values are ``known``, by slot. A rule that could not make it
        stricter is still answered if the admission happens to know all its facts. ``rests``: the rules that are
        stopped in its conversation; ``freeze``: the freeze that stops it, whatever the rules say; ``misses``: include
        why each other rule did not hit."""
        values = {**self._not_asked, **known}
        hits: list[Hit] = [freeze[1]] if freeze is not None else []
        skipped: list[str] = []
        doubts: dict[str, str] = {}
        for (rule, answer), words in zip(reckoned.answers, settled or reckoned.settled, strict=True):
            if answer is PENDING:
                answer = rule.answer(values if rule.rule_id in reckoned.hanging else known)
                if answer is PENDING:
                    skipped.append(rule.rule_id)
                    continue
                if answer is NO and rule.rule_id in rests:
                    answer, words = rule.stopped(values)
                elif answer is not NO:
                    words = rule.hit(answer, values, facts)
            if answer is UNKNOWN:
                doubts.update((c.fact.name, self._why(c.slot, values, facts)) for c in rule.doubts(values))
            if words is not None:
                hits.append(words)
        enforced = max((h.action for h in hits if h.mode is Mode.ENFORCE), default=Action.RELAY)
        doubts.update(reckoned.unknown)
        return _new_verdict(
            action=enforced,
            hits=tuple(hits),
            misses=self._misses(hits, skipped, values, facts) if misses else (),
            skipped=tuple(skipped),
            unknown=tuple(sorted(doubts.items())),
            policy_sha256=self.sha256,
            quorum=self.quorum(lists) if enforced.waits else (),
            observed=max((h.action for h in hits if h.mode is Mode.OBSERVE), default=Action.RELAY),
            freeze_id=freeze[0].freeze_id if freeze is not None else None,
        )

    def _misses(
        self, hits: Iterable[Hit], skipped: Iterable[str], values: Mapping[str, Value], facts: Facts
    ) -> tuple[Miss, ...]:
        named = {hit.rule for hit in hits} | set(skipped)
        return tuple(rule.miss(values, facts) for rule in self.rules if rule.rule_id not in named)

    def uncounted(self, subject: counted.Subject) -> Mapping[str, Value]:
        """Return the values of counted facts that need no count for this message, by slot."""
        return self._questions(subject).uncounted

    def bounds(self, values: Mapping[str, Value], answered: Callable[[Rule], Answer]) -> Bounds:
        """Return the bounds of the verdict while only these values are known, by slot, counts included. An absent
        value was known when the rules were answered: so it is pending, not unknown. ``answered``: the recorded answer
        of a pending rule; PENDING if there is none."""
        known = tuple(map(values.get, self._slots))
        reckoned = self._reckoned(known)
        answers = [(r, answered(r) if a is PENDING else a) for r, a in reckoned.answers]
        certain = tuple((rule, answer) for rule, answer in answers if answer not in (NO, PENDING))
        settled = replace(reckoned, answers=certain, settled=self._in_words(certain, reckoned.values, _NOBODY))
        return Bounds(
            least=self._judge(settled, reckoned.values, frozenset()),
            pending=tuple(rule for rule, answer in answers if answer is PENDING),
        )

    def _why(self, slot: str, values: Mapping[str, Value], facts: Facts) -> str:
        value = values.get(slot, NOT_ASKED)
        if isinstance(value, Unknown):
            return value.why
        evidence = facts.evidence.get(self._slots[slot], ())
        return "; ".join((f"known only to be {value}", *evidence[:5]))

    def counts(self, fact: str) -> bool:
        """Return whether any rule asks for this count."""
        return fact in self._asked

    def purposes(self, language: str = "en") -> Mapping[str, str]:
        """Return the description of each rule, in this language if it has one."""
        return {rule.rule_id: rule.descriptions.get(language, rule.description) for rule in self.rules}

    def asking(self, verdict: Verdict) -> tuple[int, bool]:
        """Return for how many seconds only its writer is asked, and whether it expires then: the shortest time of the
        rules that ask, and whether any of them lets it expire."""
        asking = {hit.rule for hit in verdict.hits if hit.mode is Mode.ENFORCE and hit.action is Action.CONFIRM}
        rules = [rule for rule in self.rules if rule.rule_id in asking]
        usual = self.confirming.within
        return min((rule.within_seconds or usual for rule in rules), default=usual), any(r.expires for r in rules)

    def groups_asked(self) -> frozenset[str]:
        """Return every group that may decide on anything, at any hour."""
        return frozenset().union(*(q.all_groups for q in (self.approvals, *self.quorums.values())))

    def quorum(self, lists: Iterable[str], beside: Iterable[Quorum] = ()) -> tuple[Quorum, ...]:
        """Return the quorums to release a hold that touches these lists: all of theirs, and those ``beside`` them."""
        asked = [self.quorum_of(name) for name in sorted(lists)] or [self.approvals]
        return tuple(dict.fromkeys((*beside, *asked)))

    def quorum_of(self, name: str) -> Quorum:
        """Return the quorum of a list."""
        return self.quorums.get(name, self.approvals)


def _may_change(certain: Strength, rule: Rule) -> bool:
    """Return whether a pending rule may still change the verdict: its action, or what the message waits with. A
    weaker rule that keeps the whole message back (confirm) widens a hold of the customers' part alone."""
    action, whole = certain
    widens = action.waits and not whole and rule.then.waits and rule.scope is Scope.ALL
    return rule.observes or rule.strength() > certain or widens


def _cheapest(sources: Set[Source]) -> frozenset[Source]:
    """Return the cheapest source that can be asked for before the admission, none if there is none."""
    return frozenset([source for source in _PRICES if source in sources][:1])


@constant
class Plan:
    """``pending``: the cheapest source that the outcome still depends on (HEADERS, TEXT or ORIGIN), one at a time; ask
    it and plan again until it is empty. Facts that are pending at ``close`` count as unknown."""

    rules: RuleSet
    facts: Facts
    known: Values
    reckoned: Reckoning
    pending: frozenset[Source]
    questions: Mapping[str, tuple[Ask, ...]]
    pauses: Mapping[str, tuple[Ask, ...]]
    """The asks of each rule with a stop that say whether the conversation is stopped."""
    asks: tuple[Ask, ...]
    """The counts to read, and to count this message in, whatever the outcome of the rules that use them."""
    settled: tuple[Hit | None, ...] = field(repr=False, compare=False)
    """The hits of rules that are not pending, in words: made here, outside the admission's lock."""

    @property
    def certain(self) -> Strength:
        return self.reckoned.certain

    @property
    def rests(self) -> tuple[Ask, ...]:
        """Return further asks, to be counted only if ``stops`` says so."""
        return tuple(chain.from_iterable(self.pauses.values()))

    def stops(self, verdict: Verdict, live: Live) -> tuple[Ask, ...]:
        """Return the stops that this message begins: for rules that certainly took effect, in conversations that are
        not stopped yet."""
        if not self.pauses:
            return ()
        hits = {hit.rule for hit in verdict.hits if hit.mode is not Mode.APPROVED and not hit.uncertain}
        begun = (asks for rule, asks in self.pauses.items() if rule in hits and not is_stopped(asks, live))
        return tuple(chain.from_iterable(begun))

    @property
    def may_ask_writer(self) -> bool:
        """Return whether its rules can at most ask its writer."""
        return self.reckoned.confirming

    @property
    def lets_pass(self) -> bool:
        """Return whether its rules let it pass, whatever their counts are, and do not ask its writer."""
        return not self.reckoned.confirming and self.reckoned.certain[0] is Action.RELAY and not self.expects_hold

    @property
    def expects_hold(self) -> bool:
        """Return whether its rules can still come to a hold, except by counts, by which few messages are held. Then
        its content is stored first; if it turns out to be missing, another round is needed."""
        if self.certain[0] is not Action.RELAY:
            return self.certain[0].waits
        return any(map(self.questions.keys().isdisjoint, self.reckoned.holding))

    def answers(self, live: Live) -> Mapping[str, Value]:
        """Return what the admission counted, by slot."""
        return {slot: counted.value_of(asks, live, self.facts) for slot, asks in self.questions.items()}

    def close(self, live: Live, answers: Mapping[str, Value] | None = None, *, misses: bool = False) -> Verdict:
        """Return the verdict, with the counts, approvals and freezes of the admission. ``answers``: its counts, if
        they are known already. ``misses``: include why the other rules did not hit, which is not stored."""
        answers = self.answers(live) if answers is None else answers
        given, lists = (*answers.items(), (counted.APPROVED, live.approved)), self.facts.lists
        if not (misses or live.freezes or self.pauses or self.facts.evidence):
            return confirming.or_held(self.rules._judged(self.reckoned, given, lists), self.facts)
        rests = frozenset(rule for rule, asks in self.pauses.items() if is_stopped(asks, live))
        freeze = frozen(self.facts, live.freezes, self.rules.freeze_answer, mailing=live.mailing_id)
        # a miss tells the very value of a word or size that decides nothing
        known = {**(self.rules._by_slot(self.known) if misses else self.reckoned.values), **dict(given)}
        verdict = self.rules._judge(self.reckoned, known, lists, self.settled, self.facts, rests, freeze, misses)
        return confirming.or_held(verdict, self.facts)


_new_plan, _new_verdict = maker(Plan), maker(Verdict)


def decide(rules: RuleSet, facts: Facts, live: Live) -> Verdict:
    """Plan and close in one, for callers that have all facts."""
    return rules.plan(facts).close(live, misses=True)


assert set(counted.COUNTED) | {counted.APPROVED} == {f.name for f in FACTS.values() if f.source is Source.LIVE}


class _Slot:
    """The conditions on one slot."""

    def __init__(self) -> None:
        self.worded: dict[type, tuple[int, dict[str, int]]] = {}
        """By the type of value: the rules that ask for words, and those for each word."""
        self.others: dict[Hashable, tuple[Condition, int]] = {}

    def add(self, condition: Condition, bit: int) -> None:
        if isinstance(condition, Word | SomeWord):
            kind = str if isinstance(condition, Word) else frozenset
            all_, by_word = self.worded.get(kind, (0, {}))
            for word in condition.words:
                by_word[word] = by_word.get(word, 0) | bit
            self.worded[kind] = (all_ | bit, by_word)
            return
        first, bits = self.others.get(condition.sense, (condition, 0))
        self.others[condition.sense] = (first, bits | bit)

    def missed(self, value: Value) -> int:
        """Return the rules that surely miss with this value, as bits."""
        missed = 0
        worded = self.worded.get(type(value))
        if worded is not None:
            all_, by_word = worded
            for word in (value,) if isinstance(value, str) else value if isinstance(value, frozenset) else ():
                all_ &= ~by_word.get(word, 0)
            missed = all_
        for condition, bits in self.others.values():
            if condition.test(value) is NO:
                missed |= bits
        return missed


class RuleIndex:
    def __init__(self, rules: Sequence[Rule], slots: Sequence[str]) -> None:
        """``slots``: in the order of the values."""
        self._all = (1 << len(rules)) - 1
        made = {slot: _Slot() for slot in slots}
        for n, rule in enumerate(rules):
            for condition in rule.when:
                made[condition.slot].add(condition, 1 << n)
        self._slots = tuple(made.values())

    def may_hit(self, values: Sequence[Value | None]) -> Iterator[int]:
        """Yield the places of the rules that may hit, in order."""
        left = self._all
        for slot, value in zip(self._slots, values, strict=True):
            if value is not None and left:
                left &= ~slot.missed(value)
        while left:
            bit = left & -left
            yield bit.bit_length() - 1
            left ^= bit
