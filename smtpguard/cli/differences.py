"""Sum up where two policies decide differently on recorded messages: the beginning of ``smtpguard replay --passed``.

The sums are kept as messages come, so memory does not grow with their number.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from smtpguard.cli.holdrow import plain
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.rule import FIXED
from smtpguard.policy.verdict import Action, Mode

if TYPE_CHECKING:
    from smtpguard.app.replayed import Effect, Judgement
    from smtpguard.app.replaying import Apart, Compared

_MOST_NAMED = 8
_MOST_MAILINGS = 10_000
_MODES = {Mode.ENFORCE: "", Mode.OBSERVE: " (observes)", Mode.APPROVED: " (approved)"}
_DOES = {Mode.ENFORCE: "enforced", Mode.OBSERVE: "observes", Mode.APPROVED: "approved"}
_HANGS = {"copies": "other copies of its mailing", "people": "those who decide on its mailing"}


class Answer(enum.Enum):
    SAME = "same"
    OTHER_RULES = "other-rules"
    OTHERWISE = "otherwise"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Difference:
    """One message. ``rules``: those that make the difference, or may, each with its sign. ``way``: "from -> to"."""

    answer: Answer
    way: str
    rules: tuple[str, ...] = ()

    @classmethod
    def of(cls, one: Compared) -> Difference:
        was, will = one.was, one.will
        signed = tuple(_signed(was, will))
        if was.doubts_like(will):
            return cls(Answer.SAME, _words(was.actions))
        if was.actions.isdisjoint(will.actions):
            fixed = tuple(f"- {rule}" for rule in was.rules if rule in FIXED)  # of copies that waited with others
            return cls(Answer.OTHERWISE, f"{_words(was.actions)} -> {_words(will.actions)}", signed or fixed)
        if was.certain and will.certain:
            return cls(Answer.OTHER_RULES if signed else Answer.SAME, _words(was.actions), signed)
        return cls(Answer.MAYBE, _maybe(was, will), tuple(_doubted(was, will)) or signed)


def labels(thought: Judgement) -> list[str]:
    """Labels of the policy's own rules that certainly hit."""
    return sorted(rule + _MODES[effect.mode] for rule, effect in _own(thought).items())


def _own(thought: Judgement) -> dict[str, Effect]:
    return {rule: effect for rule, effect in thought.rules.items() if rule not in FIXED and rule != FREEZE}


def hangs(one: Compared) -> dict[str, str]:
    """What is unknown, in words -> why."""
    return {_HANGS.get(name, name): why for name, why in {**one.was.hangs, **one.will.hangs}.items()}


def _signed(was: Judgement, will: Judgement) -> Iterator[str]:
    """Rules that hit under one policy and certainly not under the other (-, +), or have another action there (~)."""
    before, after = _own(was), _own(will)
    for sign, mine, others, other in (("-", before, after, will), ("+", after, before, was)):
        doubted = {perhaps.rule.rule_id for perhaps in other.perhaps}
        for rule, effect in mine.items():
            if rule not in others and rule not in doubted:
                yield f"{sign} {rule}{_MODES[effect.mode]}"
    for rule in sorted(before.keys() & after.keys()):
        old, new = before[rule], after[rule]
        if old.mode is not new.mode:
            yield f"~ {rule}: {_DOES[old.mode]} -> {_DOES[new.mode]}"
        elif old.action is not None and old.action is not new.action:
            yield f"~ {rule}: {old.action.word} -> {new.action.word if new.action is not None else ''}"


def _doubted(was: Judgement, will: Judgement) -> Iterator[str]:
    """Rules that may make the difference."""
    known = [{(perhaps.rule.rule_id, perhaps.rule.sense) for perhaps in thought.perhaps} for thought in (was, will)]
    for thought, others in zip((was, will), reversed(known), strict=True):
        least = min(thought.actions)
        for perhaps in thought.perhaps:
            named = perhaps.rule.rule_id, perhaps.rule.sense
            if named not in others and any(action > least for action in perhaps.actions):
                yield f"? {perhaps.rule.rule_id}"


def _maybe(was: Judgement, will: Judgement) -> str:
    if was.certain:
        return f"{_words(was.actions)}, may be {_words(will.actions - was.actions)}"
    return f"{_words(was.actions)} -> {_words(will.actions)}"


def _words(actions: Iterable[Action]) -> str:
    return " or ".join(action.word for action in sorted(actions))


@dataclass(slots=True)
class Group:
    """Messages with the same difference: by which rules, on which lists ("" for none), and what it depends on, with
    why."""

    messages: int = 0
    mailings: set[str] = field(default_factory=set)  # at most _MOST_MAILINGS
    rules: Counter[str] = field(default_factory=Counter)
    lists: Counter[str] = field(default_factory=Counter)
    senders: Counter[str] = field(default_factory=Counter)
    hangs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, one: Compared, parted: Difference) -> None:
        self.messages += 1
        if one.message.mailing and len(self.mailings) < _MOST_MAILINGS:
            self.mailings.add(one.message.mailing)
        self.rules.update(parted.rules)
        self.lists.update(sorted(one.message.lists) or [""])
        sender = next(iter(one.message.names("from")), "") or "nobody named"
        if sender in self.senders or len(self.senders) < _MOST_MAILINGS:
            self.senders[sender] += 1
        self.hangs.update(hangs(one).items())


@dataclass(slots=True)
class Tally:
    """``looser``: number of messages certainly decided less strictly. ``watching``: observing rules of the file -> for
    how many messages it is unknown whether they would hit."""

    messages: int = 0
    same: int = 0
    other_rules: Group = field(default_factory=Group)
    otherwise: dict[str, Group] = field(default_factory=dict)
    maybe: dict[str, Group] = field(default_factory=dict)
    watching: Counter[str] = field(default_factory=Counter)
    looser: int = 0

    @property
    def moved(self) -> int:
        """The number of messages that are certainly decided differently."""
        return sum(group.messages for group in self.otherwise.values())

    def add(self, one: Compared, parted: Difference) -> None:
        self.messages += 1
        match parted.answer:
            case Answer.SAME:
                self.same += 1
            case Answer.OTHER_RULES:
                self.other_rules.add(one, parted)
            case Answer.OTHERWISE:
                self.looser += max(one.will.actions) < min(one.was.actions)
                self.otherwise.setdefault(parted.way, Group()).add(one, parted)
            case Answer.MAYBE:
                self.maybe.setdefault(parted.way, Group()).add(one, parted)
        if one.will.perhaps:
            known = {perhaps.rule.sense for perhaps in one.was.perhaps}
            rules = (perhaps.rule for perhaps in one.will.perhaps if perhaps.rule.observes)
            self.watching.update(r.rule_id for r in rules if r.sense not in known and r.rule_id not in one.was.rules)

    def lines(self, since: datetime, until: datetime | None, apart: Apart, *, names: bool = True) -> Iterator[str]:
        """The sums, largest first. ``names``: whether senders are shown."""
        perhaps = sum(group.messages for group in self.maybe.values())
        time = (
            f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
            if until
            else f"since {since:%Y-%m-%d %H:%M} UTC"
        )
        yield (
            f"{_messages(self.messages)} {time}: {self.same:,} as now, {self.other_rules.messages:,} by other rules, "
            f"{self.moved:,} otherwise, {perhaps:,} may be otherwise"
        )
        for groups in (self.otherwise, self.maybe):
            for way, group in sorted(groups.items(), key=lambda item: -item[1].messages):
                yield from _lines(way, group, names=names)
        if self.other_rules.messages:
            yield from _lines("as now, by other rules", self.other_rules, names=names)
        for rule, n in sorted(self.watching.items()):
            yield f"{rule} only observes: whether it would have seen something in {_messages(n)} hangs on what was not kept"
        if apart.again:
            yield f"left out: {apart.again:,} {'retry' if apart.again == 1 else 'retries'} of what was held already"
        if apart.undecided:
            yield f"left out: {apart.undecided:,} on which nothing could be decided then"


def _messages(n: int) -> str:
    return f"{n:,} message{'s' * (n != 1)}"


def _lines(way: str, group: Group, *, names: bool) -> Iterator[str]:
    yield f"{way}: {group.messages:,}{_of_mailings(group)}"
    for rule, n in group.rules.most_common():
        yield f"  {n:>7,}  {rule}"
    for (what, why), n in group.hangs.most_common(_MOST_NAMED):
        yield f"  {n:>7,}  hang on {what}: {why}"
    named = [f"{name or 'no list'} {n:,}" for name, n in group.lists.most_common(_MOST_NAMED)]
    if any(group.lists):
        others = len(group.lists) - len(named)
        yield f"           lists: {', '.join(named)}" + (f", and {others} more" if others else "")
    if names and group.messages > 1:
        named = [f"{plain(who)} {n:,}" for who, n in group.senders.most_common(_MOST_NAMED)]
        others = len(group.senders) - len(named)
        yield f"           senders: {', '.join(named)}" + (f", and {others} more" if others else "")


def _of_mailings(group: Group) -> str:
    """The number of mailings, each of which needs one decision."""
    n = len(group.mailings)
    if n <= 1 and group.messages <= 1:
        return ""
    if n == _MOST_MAILINGS:
        return f", of {n:,} mailings or more"
    return f", of {n:,} mailing{'s' * (n != 1)}" if n else ""
