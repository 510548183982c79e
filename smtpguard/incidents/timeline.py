"""The timeline of an incident: all rare entries, and of frequent kinds the first and the last. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Kind

SHOWN = 20
"""The number of entries of a frequent kind that the timeline keeps at the beginning, and at the end."""

_MASSES = frozenset(
    {
        Kind.VERDICT.value,
        Kind.REFUSED.value,
        Kind.OUTCOME.value,
        Kind.RELEASE.value,
        Kind.RELEASED.value,
        Kind.NOTICE.value,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An entry of the timeline; ``left_out``: how many of its kind come between it and the next."""

    entry: Entry
    clear: Clear | None
    left_out: int = 0


@dataclass(slots=True)
class _Masses:
    """The first and the last entries of one kind, and their number."""

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
    """Entries may come in any order, and more than once if they are rare."""

    def __init__(self) -> None:
        self._masses: dict[str, _Masses] = {}
        self._rare: dict[int, Step] = {}

    def add(self, entry: Entry, clear: Clear | None) -> None:
        step = Step(entry=entry, clear=clear)
        if entry.kind in _MASSES:
            self._masses.setdefault(entry.kind, _Masses()).add(step)
        else:
            self._rare[entry.seq] = step

    def steps(self) -> list[Step]:
        steps = [*self._rare.values(), *(step for masses in self._masses.values() for step in masses.steps())]
        return sorted(steps, key=lambda step: step.entry.seq)
