"""Chains to verify, or to tamper with first; and a journal with mail and retention during the walk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from smtpguard.journal.chain import (
    GENESIS,
    NO_COLUMNS,
    Clear,
    Entry,
    Pair,
    Seal,
    body_of,
    canonical,
    columns_of,
    link,
    microseconds,
    parsed,
)
from smtpguard.journal.checkpoint import Agreement, Checkpoint, sign
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.proof import ChainWalk, Proof, Retention, Row

SECRET = b"s" * 32
SEAL = Seal(SECRET, "journal")
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
Pairs = list[Pair]
NOTHING_ELSE: dict[str, Any] = {
    "lost": [], "renewed": None, "others": [], "unreadable": 0, "filed": True, "trimmed": None, "unsigned": [], "backwards": [],
    "beside": [], "witnessed": None,
}  # fmt: skip
"""A proof's fields besides whether the journal is whole, when there is nothing to report."""


def chain(n: int, *, prev: bytes = GENESIS, first: int = 1, mood: str = "calm") -> Pairs:
    made: Pairs = []
    for seq in range(first, first + n):
        private: dict[str, tuple[str, ...]] = {"from": (f"user{seq}@example.com",)} if seq % 2 else {}
        event = Event(kind=Kind.VERDICT, id=f"T{seq}", at=T0, data={"mood": mood}, private=private)
        body = body_of(event, SEAL)
        at = microseconds(T0) + seq
        hash = link(prev, seq, at, "verdict", event.id, body)
        entry = Entry(seq=seq, at=at, kind="verdict", id=event.id, body=body, prev=prev, hash=hash)
        made.append((entry, {"from": list(private["from"])} if private else None))
        prev = hash
    return made


def mark(pairs: Pairs, seq: int, *, base: bool = False) -> Checkpoint:
    entry = next(e for e, _ in pairs if e.seq == seq)
    return sign(SECRET, Checkpoint(journal="journal", seq=seq, at=0, hash=entry.hash, base=base))


def rehash(entry: Entry, **changed: Any) -> Entry:
    new = replace(entry, **changed)
    return replace(new, hash=link(new.prev, new.seq, new.at, new.kind, new.id, new.body))


def row(entry: Entry, clear: Clear | None) -> Row:
    """As it is read from the store, with the columns that fit it."""
    try:
        columns = columns_of(entry.kind, entry.id, parsed(entry.body)["data"])
    except (ValueError, TypeError, KeyError, AttributeError):
        columns = NO_COLUMNS
    link = (entry.seq, entry.at, entry.kind, entry.id, entry.body, entry.prev, entry.hash)
    return (*link, None if clear is None else canonical(clear), *columns)


def verify(pairs: Iterable[Pair], agreement: Agreement, retention: Retention, **more: Any) -> Proof:
    """The proof of these entries, each a page; if they are a list, also of all of them in one page: it is the same."""
    walk = ChainWalk(deepcopy(agreement), SEAL, retention, **more)
    proof = walk.proof(walk.follow([row(*pair)] for pair in pairs))
    if isinstance(pairs, list) and "met" not in more:
        walk = ChainWalk(agreement, SEAL, retention, **more)
        assert walk.proof(walk.follow([[row(*pair) for pair in pairs]])) == proof
    return proof


@dataclass
class FixedRetention:
    """What retention has erased and trimmed, fixed."""

    erased_through: int = 0
    trimmed: Checkpoint | None = None

    def erased(self, seq: int) -> bool:
        return seq <= self.erased_through

    def base(self) -> Checkpoint | None:
        return self.trimmed


class ChangingJournal:
    """A journal that changes during a walk. ``between``: called after each page, with the number of pages so far."""

    def __init__(self, pairs: Pairs, between: Callable[[int], None] = lambda page: None) -> None:
        self.pairs = {entry.seq: (entry, clear) for entry, clear in pairs}
        self.between = between
        self.through = 0
        self.at = 0  # the last entry that was walked over
        self.bases: list[Checkpoint] = []

    def walk(self, until: int, size: int = 4) -> Iterator[Pair]:
        self.at = page = 0
        while some := sorted(seq for seq in self.pairs if self.at < seq <= until)[:size]:
            yield from [self.pairs[seq] for seq in some]
            self.at, page = some[-1], page + 1
            self.between(page)

    def grow(self, n: int) -> None:
        last = self.pairs[max(self.pairs)][0]
        self.pairs |= {entry.seq: (entry, clear) for entry, clear in chain(n, prev=last.hash, first=last.seq + 1)}

    def erase(self, through: int) -> None:
        self.through = max(self.through, through)
        self.pairs = {seq: (e, c if seq > through else None) for seq, (e, c) in self.pairs.items()}

    def trim(self, through: int) -> None:
        """Trim all entries up to ``through``, except the last, as a store does."""
        through = min(through, max(self.pairs) - 1)
        if through >= min(self.pairs):
            self.bases.append(mark(list(self.pairs.values()), through, base=True))
            self.pairs = {seq: pair for seq, pair in self.pairs.items() if seq > through}

    def erased(self, seq: int) -> bool:
        return seq <= self.through

    def base(self) -> Checkpoint | None:
        return next((base for base in self.bases if base.seq == min(self.pairs) - 1), None)
