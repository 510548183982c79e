"""smtpguard replay --passed: every message of a period, passed ones too, from the journal: first the sums, then
examples.

Output that follows the sums is spooled to a file if it is large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any

import click

from smtpguard.cli.audit import progress
from smtpguard.cli.context import CannotRun, Context
from smtpguard.cli.differences import Answer, Difference, Tally, hangs, labels
from smtpguard.cli.holdrow import plain
from smtpguard.journal.event import Event, Kind

if TYPE_CHECKING:
    from smtpguard.app.replayed import Judgement
    from smtpguard.app.replaying import Compared, Replaying
    from smtpguard.journal.scan import Progress
    from smtpguard.store.store import Store

SHOWN = 20
SINCE = "7d"
_MEMORY = 1 << 20
_SHOWN_FIRST = (Answer.OTHERWISE, Answer.MAYBE, Answer.OTHER_RULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """``until``: None for now. ``limit``: of examples; None: all. ``names``: whether addresses and subjects are shown."""

    since: datetime
    until: datetime | None
    limit: int | None
    names: bool


async def tell(context: Context, store: Store, walk: Replaying, asked: Asked) -> Tally:
    """Print the report. Raises CannotRun if nothing was decided in that period."""
    return await (_rows if context.json else _lines)(context, store, walk, asked)


async def _rows(context: Context, store: Store, walk: Replaying, asked: Asked) -> Tally:
    tally, named = Tally(), False
    async for one, parted in _parted(walk, asked, tally):
        if asked.names and not named:
            await _names_are_shown(context, store)
            named = True
        context.say(_row(one, parted, names=asked.names))
    return tally


async def _lines(context: Context, store: Store, walk: Replaying, asked: Asked) -> Tally:
    tally = Tally()
    with ExitStack() as undo:
        files = {a: undo.enter_context(SpooledTemporaryFile(_MEMORY, "w+", encoding="utf-8")) for a in _SHOWN_FIRST}
        examples = _Examples(files, asked.limit)
        with progress("Replaying") as moved:
            async for one, parted in _parted(walk, asked, tally, moved):
                examples.add(parted.answer, _example(one, parted, names=asked.names))
        several = (*tally.otherwise.values(), *tally.maybe.values(), tally.other_rules)
        if asked.names and (examples.any or any(group.messages > 1 for group in several)):
            await _names_are_shown(context, store)
        for line in tally.lines(asked.since, asked.until, walk.apart, names=asked.names):
            click.echo(line)
        for line in examples.lines():
            click.echo(line)
    return tally


async def _parted(
    walk: Replaying, asked: Asked, tally: Tally, moved: Progress | None = None
) -> AsyncIterator[tuple[Compared, Difference]]:
    """Yield the messages that the two policies decide differently, and add up all."""
    async for one in walk.passed(asked.since, asked.until or datetime.now(UTC), moved):
        parted = Difference.of(one)
        tally.add(one, parted)
        if parted.answer is not Answer.SAME:
            yield one, parted
    if not tally.messages:
        raise CannotRun("the journal has no verdict from that time")


async def _names_are_shown(context: Context, store: Store) -> None:
    """Journal that names from the journal are shown."""
    private = {"actor": (context.user,)}
    await store.journal.record(
        [Event(kind=Kind.EXPORTED, id="journal", at=store.now(), data={"what": "replay"}, private=private)]
    )


class _Examples:
    """Single messages to show: of each answer at most ``limit`` (None: all)."""

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
        """Certain differences first. Input has an empty line after each message, which is left out."""
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


def _example(one: Compared, parted: Difference, *, names: bool) -> Iterator[str]:
    message = one.message
    people = f"to {message.total:,} recipient{'s' * (message.total != 1)}"
    if names and message.clear is not None:
        subject, sender = (next(iter(message.names(role)), "") for role in ("subject", "from"))
        people = f'"{subject}", from {sender or "no sender"} {people}'
    yield plain(f"{message.time:%Y-%m-%d %H:%M} {message.id}: {parted.way}  {people}")
    yield from (f"  {rule}" for rule in parted.rules)
    if parted.answer is Answer.MAYBE:
        yield from (f"    {what}: {why}" for what, why in hangs(one).items())


def _row(one: Compared, parted: Difference, *, names: bool) -> dict[str, Any]:
    """For programs."""
    message = one.message
    subject, sender = (next(iter(message.names(role)), None) if names else None for role in ("subject", "from"))
    facts = {**one.was.hangs, **one.will.hangs}
    return {
        "message": message.id,
        "at": message.time,
        "subject": subject,
        "from": sender,
        "recipients": message.total,
        "lists": sorted(message.lists),
        "mailing": message.mailing or None,
        "answer": parted.answer.value,
        "in_force": _thought(one.was),
        "file": _thought(one.will),
        "hangs_on": [{"fact": fact, "why": why} for fact, why in facts.items()],
    }


def _thought(thought: Judgement) -> dict[str, Any]:
    """``action``: null if it is uncertain; then ``actions`` has all possible ones."""
    actions = [action.word for action in sorted(thought.actions)]
    return {
        "action": actions[0] if thought.certain else None,
        "actions": actions,
        "rules": labels(thought),
        "perhaps": sorted(perhaps.rule.rule_id for perhaps in thought.perhaps),
    }
