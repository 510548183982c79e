"""Prove a chain: walk over its entries in order, up to the head that it had at the start, and find the first that was
changed.

Others write during the walk. Entries after that head are not part of it. Before an entry is called missing, the walk
asks what retention erased or trimmed meanwhile (``Retention``). A report's entries are met again on the walk
(``Sources``), so that it contains only proved entries. Pure.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from smtpguard.journal.chain import GENESIS, NAMELESS, Clear, Entry, Seal, link, parsed
from smtpguard.journal.checkpoint import Agreement, Checkpoint, Disagreement, Lost
from smtpguard.journal.event import Kind
from smtpguard.journal.timecheck import Backwards, Unsigned
from smtpguard.locale.phrase import Phrase, Said

_HASH = len(GENESIS)
MOVES_GATE = (Kind.FREEZE, Kind.THAW, Kind.POLICY, Kind.SECRET, Kind.ABSENCE, Kind.GROUP)
GATE = frozenset(kind.value for kind in MOVES_GATE)
_DECIDED, _BEGAN = (
    re.compile(rf'[{{,]"{name}":([0-9]+)') for name in ("generation", "gate")
)  # no text has such quotes
_BYPASS = re.compile(r'[{,]"bypass":"([^"]+)"')
_ADOPTED = re.compile(r'[{,]"messages":([0-9]+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """The first entry that was changed, and what is wrong with it."""

    seq: int
    problem: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A row beside the journal that disagrees with it. ``about``: the kind of ``id``: policy, mailing, freeze ..."""

    about: str
    id: str
    problem: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The result of a walk over the whole chain. ``entries``: how many were read. ``beside``: rows of the store that
    disagree with it, if that was checked (store.crosscheck).

    Not faults of the chain, but worth knowing: ``lost``: signed entries that are missing since the store was restored.
    ``renewed``: the entry since which the secret is in force, so that names before it could not be compared with their
    digests (0: always). ``others``: other journals with checkpoints beside this one's. ``unreadable``: the number of
    lines that are no checkpoint. Not ``filed``: none of those lines is of this journal and signed here, so that a tail
    cut off together with the database's checkpoints could not be detected. ``trimmed``: the last entry that retention
    has trimmed, 0 for none. ``unsigned`` stretches, and where time goes ``backwards``: the first of each (course).
    ``witnessed``: the last entry whose checkpoint a witness has, and when that was signed (microseconds).
    ``bypassed``: by bypass, how many messages were relayed under it while the store was away.
    """

    entries: int
    first_bad: Bad | None = None
    lost: tuple[Lost, ...] = ()
    renewed: int = 0
    others: tuple[str, ...] = ()
    unreadable: int = 0
    filed: bool = True
    trimmed: int = 0
    unsigned: tuple[Unsigned, ...] = ()
    backwards: tuple[Backwards, ...] = ()
    beside: tuple[Finding, ...] = ()
    witnessed: tuple[int, int] | None = None
    bypassed: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.first_bad is None and not self.beside


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """The chain's head: its last entry, and its hash."""

    seq: int
    hash: bytes


class Retention(Protocol):
    """The progress of retention. It goes on during a walk, so every question is answered anew."""

    def erased(self, seq: int) -> bool:
        """Whether it claims to have erased the clear values of this entry. Believed only if the chain holds."""

    def base(self) -> Checkpoint | None:
        """The genuine checkpoint of this journal up to which it has trimmed the chain; None if an entry before it still
        exists."""


def verify(
    entries: Iterable[tuple[Entry, Clear | None]],
    agreement: Agreement,
    seal: Seal,
    retention: Retention,
    *,
    end: ChainHead | None = None,
    renewed: int = 0,
    met: Callable[[int, bytes], None] = lambda seq, hash: None,
) -> Proof:
    """Walk the chain once, in order. ``agreement``: with the checkpoints of this journal.

    Each entry comes with its clear values, or None if there are none; before ``renewed`` they were sealed under another
    secret. A chain that retention has trimmed begins after a checkpoint that says so (``base``), and may be trimmed
    further during the walk. ``end``: what the walk must reach. ``met`` is called with every entry that is unchanged.
    """
    stream = iter(entries)
    seen, seq, prev, generation = 0, 0, GENESIS, 0
    trimmed = 0  # up to where entries may be missing
    bypasses: set[str] = set()

    def bad(at: int, problem: Said) -> Proof:
        return Proof(entries=seen, first_bad=Bad(seq=at, problem=problem), renewed=renewed)

    for entry, clear in stream:
        if entry.seq > seq + 1 and (base := _base(entry, seq, agreement, retention)) is not None:
            trimmed = seq = base.seq
            prev = base.hash
            agreement.skips(seq)
        if entry.seq <= trimmed:
            continue
        seen += 1
        problem = _problem(entry, seq, prev, stream) or _unfit(entry, clear, seal, retention, renewed)
        problem = problem or _late(entry, generation, bypasses, trimmed=bool(trimmed))
        if problem is not None:
            return bad(min(entry.seq, seq + 1), problem)
        if entry.kind == Kind.BYPASS.value:
            bypasses.add(entry.id)
        if entry.kind in GATE:
            generation = gate_of(entry.body) or generation
        seq, prev = entry.seq, entry.hash
        agreement.meets(seq, prev)
        if end is not None and seq == end.seq and end.hash != entry.hash:
            return bad(seq, Phrase("replaced: the journal's head is another entry of this number"))
        met(entry.seq, entry.hash)
    known = max([*agreement.seqs[-1:], end.seq if end is not None else 0])
    if known > seq and (cut := retention.base()) is not None and cut.seq > seq:
        seq = cut.seq
        agreement.skips(seq)
    parted, lost = agreement.ends()
    if parted:
        return bad(*_parted(parted[0], seq))
    if end is not None and end.seq > seq:
        return bad(seq + 1, Phrase("the tail is cut: the journal had entries up to {seq}", seq=end.seq))
    return Proof(entries=seen, lost=lost, renewed=renewed)


def _base(entry: Entry, seq: int, agreement: Agreement, retention: Retention) -> ChainHead | None:
    """The point after which the chain goes on, if retention has trimmed all entries between ``seq`` and ``entry``."""
    base = retention.base()
    if base is not None and base.seq > seq:
        return ChainHead(seq=base.seq, hash=base.hash)
    at_the_beginning = seq == 0 and agreement.begins(entry.seq - 1, entry.prev)
    return ChainHead(seq=entry.seq - 1, hash=entry.prev) if at_the_beginning else None


def _parted(parted: Disagreement, last: int) -> tuple[int, Phrase]:
    """The entry and the problem, for a chain that ends with ``last`` and disagrees with a checkpoint."""
    seq = parted.mark.seq
    if not parted.signed_here:
        problem = Phrase("a checkpoint that does not agree was not signed here: it is forged, or of another secret")
    elif seq > last:
        problem = Phrase(
            "the tail is cut, or this is an older copy: a signed checkpoint knows entries up to {seq}", seq=seq
        )
        seq = last + 1
    else:
        problem = Phrase("recomputed, or put back and gone on: the chain differs from its signed checkpoint at {seq}, somewhere after {agreed}", seq=seq, agreed=parted.agreed)  # fmt: skip
    return seq, problem


def _problem(entry: Entry, seq: int, prev: bytes, rest: Iterator[tuple[Entry, Clear | None]]) -> Phrase | None:
    """The problem of ``entry`` after entry ``seq`` whose hash is ``prev``; None for none."""
    whole = link(entry.prev, entry.seq, entry.at, entry.kind, entry.id, entry.body) == entry.hash
    if whole and entry.seq == seq + 1 and entry.prev == prev:
        return None
    if whole and entry.seq > seq + 1:
        if entry.seq == seq + 2:
            return Phrase("missing: entry {seq} is gone", seq=seq + 1)
        return Phrase("missing: entries {first} to {last} are gone", first=seq + 1, last=entry.seq - 1)
    if whole:
        return Phrase("replaced: this entry does not follow the one before it")
    if entry.prev == prev:
        return Phrase("edited: the entry does not fit its hash")
    # Moved from elsewhere? Then a later entry follows it, and its hash fits its own number.
    for other, _ in rest:
        if other.prev == entry.hash:
            own = link(entry.prev, other.seq - 1, entry.at, entry.kind, entry.id, entry.body)
            return Phrase("reordered: the entry stood elsewhere") if own == entry.hash else Phrase("edited, and moved")
    return Phrase("inserted: the entry belongs to no chain")


def _unfit(entry: Entry, clear: Clear | None, seal: Seal, retention: Retention, renewed: int) -> Phrase | None:
    """The problem of the clear values of an entry of the chain; None if none can be shown."""
    if clear is None:
        return (
            None
            if entry.body.endswith(NAMELESS) or retention.erased(entry.seq)
            else Phrase("private values are missing")
        )
    fits = entry.seq < renewed or _fits(entry, clear, seal)
    return None if fits else Phrase("edited: private values do not fit their digests")


def _late(entry: Entry, generation: int, bypasses: Collection[str], *, trimmed: bool) -> Phrase | None:
    """The problem of a verdict that was decided before the gate moved, and follows the entry that moved it. That is right
    for a verdict under a bypass, whose beginning precedes it, unless that is ``trimmed``."""
    if not generation or entry.kind != Kind.VERDICT.value:
        return None
    found = _DECIDED.search(entry.body)
    if found is None or int(found[1]) >= generation:
        return None
    under = _BYPASS.search(entry.body)
    if under is not None and (trimmed or under[1] in bypasses):
        return None
    return Phrase("out of its place: this verdict was decided before a freeze, a thaw or a policy that precedes it")


def bypassed(rows: Iterable[tuple[str, str]]) -> Mapping[str, int]:
    """From id and body of the entries about bypasses: how many messages were relayed under each. None for one that was
    only begun."""
    found: Counter[str] = Counter()
    for id, body in rows:
        if (messages := _ADOPTED.search(body)) is not None:
            found[id] += int(messages[1])
    return dict(found)


def gate_of(body: str) -> int | None:
    """The generation of the gate that an entry began; None if an earlier version did not say."""
    found = _BEGAN.search(body)
    return int(found[1]) if found is not None else None


def _fits(entry: Entry, clear: Clear, seal: Seal) -> bool:
    try:
        return seal.fits(parsed(entry.body).get("private", {}), clear)
    except (ValueError, TypeError, AttributeError):  # not JSON of smtpguard
        return False


class Sources:
    """The entries of a report, by number and hash, to be met again on the walk that proves the chain. A report of a
    million messages has millions of them, so they take 40 octets each. Each must match its hash."""

    def __init__(self, seal: Seal, renewed: int = 0) -> None:
        self._seal, self._renewed = seal, renewed
        self._seqs = array("Q")
        self._hashes = bytearray()
        self._nameless = 0  # the last without clear values
        self._bad: Bad | None = None
        self._met = 0

    def add(self, entry: Entry, clear: Clear | None) -> None:
        self._seqs.append(entry.seq)
        self._hashes += entry.hash
        if link(entry.prev, entry.seq, entry.at, entry.kind, entry.id, entry.body) != entry.hash:
            self._found(entry.seq, Phrase("edited: the entry does not fit its hash"))
        elif clear is not None and entry.seq >= self._renewed and not _fits(entry, clear, self._seal):
            self._found(entry.seq, Phrase("edited: private values do not fit their digests"))
        elif clear is None and not entry.body.endswith(NAMELESS):
            self._nameless = max(self._nameless, entry.seq)

    def walk(self) -> Callable[[int, bytes], None]:
        """The function to call with number and hash of every entry of the chain that was walked over, in order."""
        order = array("Q", sorted(range(len(self._seqs)), key=self._seqs.__getitem__))
        at, self._met = 0, 0

        def met(seq: int, hash: bytes) -> None:
            nonlocal at
            while at < len(order) and self._seqs[n := order[at]] <= seq:
                if self._seqs[n] == seq:
                    self._met += 1
                    if self._hashes[n * _HASH : (n + 1) * _HASH] != hash:
                        self._found(seq, Phrase("edited: the report was made of another entry of this number"))
                at += 1

        return met

    @property
    def gone(self) -> bool:
        """For a chain that holds: whether retention has trimmed some of them before they were met."""
        return self._met < len(self._seqs)

    def proved(self, proof: Proof, retention: Retention) -> Proof:
        """``proof`` of the walk on which they were met, unless one of them contradicts it."""
        bad = self._bad
        if bad is None and self._nameless and not retention.erased(self._nameless):
            bad = Bad(seq=self._nameless, problem=Phrase("private values are missing"))
        return replace(proof, first_bad=bad) if proof.ok and bad is not None else proof

    def _found(self, seq: int, problem: Said) -> None:
        if self._bad is None or seq < self._bad.seq:
            self._bad = Bad(seq=seq, problem=problem)
