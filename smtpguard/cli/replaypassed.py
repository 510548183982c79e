"""smtpguard replay --passed: walk through the journal of a period, judge each message under two policies, passed ones
too, and report: first the sums, then examples.

Sums are kept as messages come, so memory does not grow with their number. Output that follows the sums is spooled to a file if it is large.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import click

from smtpguard.admission.recorded import Recorded
from smtpguard.app.clock import SystemClock
from smtpguard.app.explaining import indexed
from smtpguard.app.files import parse_policy
from smtpguard.app.lists import built_registry
from smtpguard.app.replaydiff import CompiledPolicy
from smtpguard.app.replayed import Effect, Judgement, Replay, recorded
from smtpguard.cli.context import CannotRun, Context, progress
from smtpguard.cli.holdrow import plain
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.database.access import Progress
from smtpguard.guard.inforce import InForce
from smtpguard.journal.scan import verdicts
from smtpguard.lists.digest import Digester
from smtpguard.locale.phrase import many
from smtpguard.policy.freezing import FREEZE
from smtpguard.policy.parse import Policy
from smtpguard.policy.rule import FIXED
from smtpguard.policy.verdict import Action, Mode
from smtpguard.store.store import Store

_MEMORY = 1 << 20
"""The octets of examples that are kept in memory."""
_MOST_NAMED = 8
_MOST_MAILINGS = 10_000
_MODES = {Mode.ENFORCE: "", Mode.OBSERVE: " (observes)", Mode.APPROVED: " (approved)"}
_UNKNOWNS = {"copies": "other copies of its mailing", "people": "those who decide on its mailing"}


async def report(context: Context, walk: Replaying, *, limit: int | None, names: bool) -> PassedSums:
    """Print the report. ``limit``: the most examples, None for all. ``names``: whether addresses and subjects are shown. Raises CannotRun
    if nothing was decided in that period."""
    return await (_rows(context, walk, names) if context.json else _lines(context, walk, limit, names))


async def _rows(context: Context, walk: Replaying, names: bool) -> PassedSums:
    tally, named = PassedSums(), False
    async for one in _differing(walk, tally):
        if names and not named:
            await context.journal_export(walk.store, what="replay")  # names from the journal are shown
            named = True
        context.print_json(_row(one, names=names))
    return tally


async def _lines(context: Context, walk: Replaying, limit: int | None, names: bool) -> PassedSums:
    tally = PassedSums()
    with ExitStack() as undo:
        files = {a: undo.enter_context(SpooledTemporaryFile(_MEMORY, "w+", encoding="utf-8")) for a in _SHOWN_FIRST}
        examples = _Examples(files, limit)
        with progress("Replaying") as moved:
            async for one in _differing(walk, tally, moved):
                examples.add(one.answer, _example(one, names=names))
        groups = [group for answer in _SHOWN_FIRST for group in tally.groups[answer].values()]
        if names and (examples.any or any(group.messages > 1 for group in groups)):
            await context.journal_export(walk.store, what="replay")  # names from the journal are shown
        for line in tally.lines(walk, names=names):
            click.echo(line)
        for line in examples.lines():
            click.echo(line)
    return tally


async def _differing(walk: Replaying, tally: PassedSums, moved: Progress | None = None) -> AsyncIterator[Compared]:
    """Yield the messages that the two policies decide differently, and add up all."""
    async for one in walk.passed(moved):
        tally.add(one)
        if one.answer is not Answer.SAME:
            yield one
    if not tally.count(*Answer):
        raise CannotRun("the journal has no verdict from that time")


class _Examples:
    """The single messages to show. ``limit``: the most of each answer, None for all."""

    def __init__(self, files: Mapping[Answer, IO[str]], limit: int | None) -> None:
        self._files, self._limit = files, limit
        self._counts: Counter[Answer] = Counter()

    @property
    def any(self) -> bool:
        return bool(self._counts) and self._limit != 0

    def add(self, answer: Answer, lines: Iterator[str]) -> None:
        self._counts[answer] += 1
        if self._limit is not None and self._counts[answer] > self._limit:
            return
        self._files[answer].write("\n".join(lines) + "\n\n")

    def lines(self) -> Iterator[str]:
        """Yield the lines, those of certain differences first. The empty line after each message in the files is left out."""
        shown = 0
        for file in self._files.values():
            file.seek(0)
            for line in file:
                if shown == self._limit:
                    break
                if line == "\n":
                    shown += 1
                else:
                    yield line.rstrip("\n")
        if shown < self._counts.total():
            yield f"{shown:,} of {self._counts.total():,} are shown: --limit N or --all shows more"


def _example(one: Compared, *, names: bool) -> Iterator[str]:
    message = one.message
    people = f"to {many(message.total, 'recipient')}"
    if names and message.clear is not None:
        subject, sender = (next(iter(message.names(role)), "") for role in ("subject", "from"))
        people = f'"{subject}", from {sender or "no sender"} {people}'
    yield plain(f"{message.time:%Y-%m-%d %H:%M} {message.id}: {one.way}  {people}")
    yield from (f"  {rule}" for rule in one.rules)
    if one.answer is Answer.MAYBE:
        yield from (f"    {what}: {why}" for what, why in _unknowns(one).items())


def _row(one: Compared, *, names: bool) -> dict[str, Any]:
    message = one.message
    subject, sender = (next(iter(message.names(role)), None) if names else None for role in ("subject", "from"))
    facts = {**one.was.depends_on, **one.will.depends_on}
    return {
        "message": message.id,
        "at": message.time,
        "subject": subject,
        "from": sender,
        "recipients": message.total,
        "lists": sorted(message.lists),
        "mailing": message.mailing or None,
        "answer": one.answer.value,
        "in_force": _thought(one.was),
        "file": _thought(one.will),
        "hangs_on": [{"fact": fact, "why": why} for fact, why in facts.items()],
    }


def _thought(thought: Judgement) -> dict[str, Any]:
    """Return the JSON object of a result. ``action`` in it is null if it is uncertain; then ``actions`` has all possible ones."""
    actions = [action.word for action in sorted(thought.actions)]
    return {
        "action": actions[0] if thought.certain else None,
        "actions": actions,
        "rules": labels(thought),
        "perhaps": sorted(perhaps.rule.rule_id for perhaps in thought.perhaps),
    }


class Answer(enum.Enum):
    SAME = "same"
    OTHER_RULES = "other-rules"
    OTHERWISE = "otherwise"
    MAYBE = "maybe"


_SHOWN_FIRST = (Answer.OTHERWISE, Answer.MAYBE, Answer.OTHER_RULES)


class Compared:
    """A message with its result under the policy in force (recorded if it was in force then), and under the other one. ``rules``: those
    that make the difference, or may, each with its sign. ``way``: "from -> to"."""

    def __init__(self, message: Recorded, was: Judgement, will: Judgement) -> None:
        self.message, self.was, self.will = message, was, will
        self.answer, self.way, self.rules = self._difference(was, will)

    @staticmethod
    def _difference(was: Judgement, will: Judgement) -> tuple[Answer, str, tuple[str, ...]]:
        signed = tuple(_signed(was, will))
        if was.doubts_like(will):
            return Answer.SAME, _words(was.actions), ()
        if was.actions.isdisjoint(will.actions):
            fixed = tuple(f"- {rule}" for rule in was.rules if rule in FIXED)  # of copies that waited with others
            return Answer.OTHERWISE, f"{_words(was.actions)} -> {_words(will.actions)}", signed or fixed
        if was.certain and will.certain:
            return Answer.OTHER_RULES if signed else Answer.SAME, _words(was.actions), signed
        if was.certain:
            way = f"{_words(was.actions)}, may be {_words(will.actions - was.actions)}"
        else:
            way = f"{_words(was.actions)} -> {_words(will.actions)}"
        return Answer.MAYBE, way, tuple(_doubted(was, will)) or signed


def labels(thought: Judgement) -> list[str]:
    """Return the labels of the policy's own rules that certainly hit."""
    return sorted(rule + _MODES[effect.mode] for rule, effect in _own(thought).items())


def _own(thought: Judgement) -> dict[str, Effect]:
    return {rule: effect for rule, effect in thought.rules.items() if rule not in FIXED and rule != FREEZE}


def _unknowns(one: Compared) -> dict[str, str]:
    """Return why each unknown thing that the results depend on is unknown, by its name in words."""
    return {_UNKNOWNS.get(name, name): why for name, why in {**one.was.depends_on, **one.will.depends_on}.items()}


def _signed(was: Judgement, will: Judgement) -> Iterator[str]:
    """Yield the rules that hit under one policy and certainly not under the other (-, +), or have another action there (~)."""
    before, after = _own(was), _own(will)
    for sign, mine, others, other in (("-", before, after, will), ("+", after, before, was)):
        doubted = {perhaps.rule.rule_id for perhaps in other.perhaps}
        for rule, effect in mine.items():
            if rule not in others and rule not in doubted:
                yield f"{sign} {rule}{_MODES[effect.mode]}"
    for rule in sorted(before.keys() & after.keys()):
        yield from (f"~ {rule}: {change}" for change in before[rule].changes(after[rule]))


def _doubted(was: Judgement, will: Judgement) -> Iterator[str]:
    """Yield the rules that may make the difference."""
    known = [{(perhaps.rule.rule_id, perhaps.rule.sense) for perhaps in thought.perhaps} for thought in (was, will)]
    for thought, others in zip((was, will), reversed(known), strict=True):
        least = min(thought.actions)
        for perhaps in thought.perhaps:
            named = perhaps.rule.rule_id, perhaps.rule.sense
            if named not in others and any(action > least for action in perhaps.actions):
                yield f"? {perhaps.rule.rule_id}"


def _words(actions: Iterable[Action]) -> str:
    return " or ".join(action.word for action in sorted(actions))


@dataclass(slots=True)
class Alike:
    """Messages with the same difference, counted by rules, lists ("" for none) and senders. ``missing``: what they depend on, and why
    it is unknown."""

    messages: int = 0
    mailings: set[str] = field(default_factory=set)  # at most _MOST_MAILINGS
    rules: Counter[str] = field(default_factory=Counter)
    lists: Counter[str] = field(default_factory=Counter)
    senders: Counter[str] = field(default_factory=Counter)
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, one: Compared) -> None:
        self.messages += 1
        if one.message.mailing and len(self.mailings) < _MOST_MAILINGS:
            self.mailings.add(one.message.mailing)
        self.rules.update(one.rules)
        self.lists.update(sorted(one.message.lists) or [""])
        sender = next(iter(one.message.names("from")), "") or "nobody named"
        if sender in self.senders or len(self.senders) < _MOST_MAILINGS:
            self.senders[sender] += 1
        self.missing.update(_unknowns(one).items())


@dataclass(slots=True)
class PassedSums:
    """The sums of a replay. ``groups``: for each answer, by "from -> to". ``looser``: the number of messages that are certainly decided
    less strictly. ``watching``: for how many messages it is unknown whether they would hit, by observing rule of the file."""

    groups: dict[Answer, dict[str, Alike]] = field(default_factory=lambda: {answer: {} for answer in Answer})
    watching: Counter[str] = field(default_factory=Counter)
    looser: int = 0

    def count(self, *answers: Answer) -> int:
        return sum(group.messages for answer in answers for group in self.groups[answer].values())

    @property
    def moved(self) -> int:
        """The number of messages that are certainly decided differently."""
        return self.count(Answer.OTHERWISE)

    def add(self, one: Compared) -> None:
        other_action = one.answer in (Answer.OTHERWISE, Answer.MAYBE)
        way = one.way if other_action else "as now, by other rules"
        group = self.groups[one.answer].setdefault(way, Alike())
        if one.answer is Answer.SAME:
            group.messages += 1
        else:
            group.add(one)
        self.looser += one.answer is Answer.OTHERWISE and max(one.will.actions) < min(one.was.actions)
        if one.will.perhaps:
            known = {perhaps.rule.sense for perhaps in one.was.perhaps}
            rules = (perhaps.rule for perhaps in one.will.perhaps if perhaps.rule.observes)
            self.watching.update(r.rule_id for r in rules if r.sense not in known and r.rule_id not in one.was.rules)

    def lines(self, walk: Replaying, *, names: bool) -> Iterator[str]:
        """Yield the sums, the largest first. ``names``: whether senders are shown."""
        begun, until = f"{walk.since:%Y-%m-%d %H:%M}", walk.until
        time = f"from {begun} to {until:%Y-%m-%d %H:%M} UTC" if until else f"since {begun} UTC"
        yield (
            f"{many(self.count(*Answer), 'message')} {time}: {self.count(Answer.SAME):,} as now, "
            f"{self.count(Answer.OTHER_RULES):,} by other rules, {self.moved:,} otherwise, "
            f"{self.count(Answer.MAYBE):,} may be otherwise"
        )
        for answer in _SHOWN_FIRST:
            for way, group in sorted(self.groups[answer].items(), key=lambda item: -item[1].messages):
                yield from _group_lines(way, group, names=names)
        for rule, n in sorted(self.watching.items()):
            yield f"{rule} only observes: whether it would have seen something in {many(n, 'message')} hangs on what was not kept"
        if walk.again:
            yield f"left out: {walk.again:,} {'retry' if walk.again == 1 else 'retries'} of what was held already"
        if walk.undecided:
            yield f"left out: {walk.undecided:,} on which nothing could be decided then"


def _group_lines(way: str, group: Alike, *, names: bool) -> Iterator[str]:
    yield f"{way}: {group.messages:,}{_of_mailings(group)}"
    for rule, n in group.rules.most_common():
        yield f"  {n:>7,}  {rule}"
    for (what, why), n in group.missing.most_common(_MOST_NAMED):
        yield f"  {n:>7,}  hang on {what}: {why}"
    if any(group.lists):
        yield _most("lists", group.lists)
    if names and group.messages > 1:
        yield _most("senders", group.senders)


def _most(what: str, counts: Counter[str]) -> str:
    named = [f"{plain(name) or 'no list'} {n:,}" for name, n in counts.most_common(_MOST_NAMED)]
    others = len(counts) - len(named)
    return f"           {what}: {', '.join(named)}" + (f", and {others} more" if others else "")


def _of_mailings(group: Alike) -> str:
    """Return in words the number of mailings, each of which needs one decision."""
    n = len(group.mailings)
    if n <= 1 and group.messages <= 1:
        return ""
    if n == _MOST_MAILINGS:
        return f", of {n:,} mailings or more"
    return f", of {many(n, 'mailing')}" if n else ""


class Replaying:
    """One walk through the journal of a period that compares two policies. ``before``: the policy in force. ``until``: None for now.
    ``undo`` removes indexes that it makes. It counts the entries that are not compared: ``again``, retries of held messages, and
    ``undecided``, internal errors. Raises CannotStart."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        digester: Digester,
        before: Policy,
        other: Policy,
        since: datetime,
        until: datetime | None,
        undo: AsyncExitStack,
    ) -> None:
        self.since, self.until = since, until
        self.again = self.undecided = 0
        self.store, self._settings, self._digester = store, settings, digester
        self._before = _compiled(settings, before, digester)
        there, its_digester = indexed(settings, other, undo)
        self._other = _compiled(there, other, its_digester)
        self._kept: dict[str, CompiledPolicy | None] = {before.sha256: self._before}

    async def passed(self, progress: Progress | None = None) -> AsyncIterator[Compared]:
        """Yield the messages, in order. Raises StoreError."""
        await self.store.journal.catch_up()
        copies = self._settings.hold.copies
        before, other = (Replay(compiled, copies=copies) for compiled in (self._before, self._other))
        async for page in verdicts(self.store, self.since, self.until or datetime.now(UTC), progress):
            for entry, clear in page:
                message = Recorded(entry, clear)
                then = await self._then(message.policy)
                if not message.decided or message.again:
                    self.undecided += not message.decided
                    self.again += message.again
                    continue
                was = recorded(message, then) if then is self._before else before.judge(message, then)
                yield Compared(message, was, other.judge(message, then))

    async def _then(self, sha256: str) -> CompiledPolicy | None:
        """Return the policy with this SHA-256; None if it is no longer kept, or its version is too old to read."""
        if sha256 not in self._kept:
            try:
                policy = parse_policy(self._settings, await self.store.policies.documents(sha256))
            except (KeyError, Broken):
                self._kept[sha256] = None
            else:
                self._kept[sha256] = _compiled(self._settings, policy, self._digester)
        return self._kept[sha256]


def _compiled(settings: Settings, policy: Policy, digester: Digester) -> CompiledPolicy:
    return CompiledPolicy(InForce.of(policy, built_registry(settings, policy, digester, SystemClock())))
