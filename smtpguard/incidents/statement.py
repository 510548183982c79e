"""The parts of a report: statements, each marked as fact, estimate or unknown, with the journal entries that it is
based on; and the timeline, with all rare entries, and the first and the last entries of frequent kinds. Pure.

Text, HTML, JSON, PDF and the drafts are all made from these, so none of them says more than another.
"""

from __future__ import annotations

import enum
import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Kind
from smtpguard.locale.phrase import N_


class Mark(enum.Enum):
    """How sure a statement is."""

    FACT = "fact"  # from the journal
    ESTIMATE = "estimate"  # between bounds that the journal gives
    UNKNOWN = "unknown"  # not known from the journal


MARKS = {Mark.FACT: N_("fact"), Mark.ESTIMATE: N_("estimate"), Mark.UNKNOWN: N_("unknown")}
FORMATS = ("text", "html", "json", "pdf")
"""The formats of a report."""
_SPACES = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"  # used in numbers
NAMED = 4
"""The number of first entries that are named."""
SHOWN = 20
"""The number of entries of a frequent kind that the timeline keeps at the beginning, and at the end."""
_FREQUENT = frozenset(
    kind.value for kind in (Kind.VERDICT, Kind.REFUSED, Kind.OUTCOME, Kind.RELEASE, Kind.RELEASED, Kind.NOTICE)
)


@dataclass(slots=True)
class Entries:
    """The numbers of journal entries, which may come in any order, each once: how many, the first few and the last."""

    many: int = 0
    last: int = 0
    _first: list[int] = field(default_factory=list)

    def add(self, *seqs: int) -> None:
        for seq in seqs:
            self.many += 1
            self.last = max(self.last, seq)
            if len(self._first) < NAMED:
                self._first.append(seq)
                self._first.sort()
            elif seq < self._first[-1]:
                self._first[-1] = seq
                self._first.sort()

    @classmethod
    def of(cls, *seqs: int) -> Entries:
        made = cls()
        made.add(*sorted({seq for seq in seqs if seq}))
        return made

    @property
    def named(self) -> tuple[int, ...]:
        """The numbers of the first few entries and of the last, in order."""
        return tuple(dict.fromkeys((*self._first, self.last))) if self.many else ()

    @property
    def more(self) -> int:
        return self.many - len(self.named)


_NONE = Entries()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    text: str
    mark: Mark = Mark.FACT
    entries: Entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a report, with at least one statement. ``key``: the same in every language."""

    key: str
    title: str
    statements: tuple[Statement, ...]


def fact(text: str, entries: Entries = _NONE) -> Statement:
    return Statement(text=text, entries=entries)


def estimate(text: str, entries: Entries) -> Statement:
    return Statement(text=text, mark=Mark.ESTIMATE, entries=entries)


def unknown(text: str, entries: Entries = _NONE) -> Statement:
    return Statement(text=text, mark=Mark.UNKNOWN, entries=entries)


def sure(exact: bool) -> Mark:
    """Return the mark of a figure: a fact if it is exact, else an estimate."""
    return Mark.FACT if exact else Mark.ESTIMATE


def plain(text: str) -> str:
    """Return text on one line, without control characters for a terminal. Text of a message is not trusted."""
    on_one_line = re.sub(r"[\r\n\t]+", " ", text)
    return "".join(c if c.isprintable() or c in _SPACES else "\N{REPLACEMENT CHARACTER}" for c in on_one_line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An entry of the timeline. ``left_out``: how many entries of its kind come between it and the next step."""

    entry: Entry
    clear: Clear | None
    left_out: int = 0


@dataclass(slots=True)
class _Frequent:
    """The first and the last entries of a frequent kind, and the number of all."""

    first: list[tuple[int, Step]] = field(default_factory=list)  # a heap of the lowest, negated
    last: list[tuple[int, Step]] = field(default_factory=list)
    many: int = 0

    def add(self, step: Step) -> None:
        self.many += 1
        _keep(self.first, (-step.entry.seq, step))
        _keep(self.last, (step.entry.seq, step))

    def steps(self) -> Iterator[Step]:
        kept = {abs(n): step for n, step in (*self.first, *self.last)}
        between = self.many - len(kept)
        at = max((-n for n, _ in self.first), default=0)
        for seq, step in kept.items():
            yield Step(entry=step.entry, clear=step.clear, left_out=between if seq == at else 0)


def _keep(heap: list[tuple[int, Step]], one: tuple[int, Step]) -> None:
    if len(heap) < SHOWN:
        heapq.heappush(heap, one)
    elif one[0] > heap[0][0]:
        heapq.heapreplace(heap, one)


class Timeline:
    """The entries of a case in order of time. They may be added in any order, and more than once if they are rare."""

    def __init__(self) -> None:
        self._frequent: dict[str, _Frequent] = {}
        self._rare: dict[int, Step] = {}

    def add(self, entry: Entry, clear: Clear | None) -> None:
        step = Step(entry=entry, clear=clear)
        if entry.kind in _FREQUENT:
            self._frequent.setdefault(entry.kind, _Frequent()).add(step)
        else:
            self._rare[entry.seq] = step

    def steps(self) -> list[Step]:
        steps = [*self._rare.values(), *(step for kind in self._frequent.values() for step in kind.steps())]
        return sorted(steps, key=lambda step: step.entry.seq)
