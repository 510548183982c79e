"""The journal entries that a statement is based on: the numbers of the first few and the last, and how many there are.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NAMED = 4
"""The number of first entries that are named."""


@dataclass(slots=True)
class Entries:
    """Entries may come in any order, each once."""

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
        """The first few and the last, in order."""
        return tuple(dict.fromkeys((*self._first, self.last))) if self.many else ()

    @property
    def more(self) -> int:
        """How many are not named."""
        return self.many - len(self.named)
