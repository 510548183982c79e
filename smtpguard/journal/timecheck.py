"""Find stretches of the journal that were not signed in time, and times that go backwards. Pure.

A valid chain does not prove when it was made; its checkpoints do. The writer signs in every minute in which it writes, so entries
between two checkpoints were written within about a minute, unless its process was killed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Kind

MINUTE = 60_000_000
UNSIGNED = 5 * MINUTE
"""The longest stretch, in microseconds, that the writer leaves unsigned, unless processes are killed one after the other."""
BACKWARDS = 5 * MINUTE
"""The most, in microseconds, by which an entry is older than one before it because it waited for the database."""
BACKDATED = 15 * MINUTE
"""The most, in microseconds, by which an entry is older than a signature over the entries before it."""
_MOST = 20  # findings of each sort
_LATE = frozenset(kind.value for kind in (Kind.VERDICT, Kind.REFUSED, Kind.OUTCOME, Kind.IN_DOUBT, Kind.NOTICE))
"""The kinds of entries on mail. They are written later than they happened if the database was unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """Entries ``first`` to ``last``, of the times ``since`` to ``until`` in microseconds, without a checkpoint among them. ``end``:
    there is none after them either."""

    first: int
    last: int
    since: int
    until: int
    end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Backwards:
    """Entry ``seq`` has the time ``at``, and one before it the later time ``before``. ``entries``: the number of entries that
    are older than it by more than BACKWARDS, until one has reached it."""

    seq: int
    at: int
    before: int
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdated:
    """Entry ``seq`` has the time ``at``, but a checkpoint of an entry before it was signed later, at ``signed_at``."""

    seq: int
    at: int
    signed_at: int


class TimeCheck:
    """Checks the times of entries, which it gets in order. ``marks``: genuine checkpoints. ``now``: when the walk began, in
    microseconds. ``latest``: the time of the entry before, if the walk begins at a checkpoint within the chain."""

    def __init__(self, marks: Iterable[Checkpoint], now: int, latest: int = 0) -> None:
        last: dict[int, int] = {}
        for mark in marks:
            last[mark.seq] = max(mark.at, last.get(mark.seq, 0))
        self._seqs = sorted(last)
        self._ats = [last[seq] for seq in self._seqs]
        self._highest = [*accumulate(self._ats, max)]  # the latest time that was signed up to each
        self._now = now
        self._next = 0  # the next checkpoint
        self._latest = latest
        self._began = self._active = 0
        self._first = self._last = 0  # of the current stretch
        self._back: list[int] = []
        self.unsigned: list[Unsigned] = []
        self.backwards: list[Backwards] = []
        self.backdated: Backdated | None = None

    def add(self, rows: Sequence[Any]) -> None:
        """Check further entries. Each row begins with number, time and kind."""
        latest, active, first = self._latest, self._active, self._first
        due = self._due()
        for seq, at, kind, *_ in rows:
            if seq > due:  # the checkpoint is of an entry that is trimmed or missing
                self._next = bisect_left(self._seqs, seq)
                due = self._due()
            if not first:
                first, self._began, active = seq, at, 0
                latest = latest or at
            if at >= latest:
                gap = at - latest
                active += gap if gap < MINUTE else MINUTE
                latest = at
                if self._back:
                    self._end_backwards()
            elif latest - at > BACKWARDS:
                self._note_backwards(seq, at, kind, latest)
            if seq == due:
                self._stretch(first, seq, latest, active, end=False)
                first, self._next = 0, self._next + 1
                due = self._due()
            self._last = seq
        self._latest, self._active, self._first = latest, active, first

    def finish(self) -> None:
        """Check the last stretch, after the last entry."""
        if self._first:
            self._stretch(self._first, self._last, self._latest, self._active, end=True)
        if self._back:
            self._end_backwards()

    def _due(self) -> int:
        """Return the entry of the next checkpoint."""
        return self._seqs[self._next] if self._next < len(self._seqs) else 1 << 62

    def _stretch(self, first: int, last: int, until: int, active: int, *, end: bool) -> None:
        if active > UNSIGNED and len(self.unsigned) < _MOST:
            self.unsigned.append(Unsigned(first=first, last=last, since=self._began, until=until, end=end))

    def _note_backwards(self, seq: int, at: int, kind: str, latest: int) -> None:
        if not self._back:
            self._back = [seq, at, latest, 0]
        self._back[3] += 1
        if self.backdated is not None or kind in _LATE:
            return
        before = bisect_left(self._seqs, seq)  # checkpoints before it are of earlier entries
        signed = self._highest[before - 1] if before else 0
        after = self._ats[before] if before < len(self._ats) else self._now
        if signed - at > BACKDATED and after >= signed:  # if not, the clock was set back for signatures too
            self.backdated = Backdated(seq=seq, at=at, signed_at=signed)

    def _end_backwards(self) -> None:
        seq, at, before, entries = self._back
        self._back = []
        if len(self.backwards) < _MOST:
            self.backwards.append(Backwards(seq=seq, at=at, before=before, entries=entries))
