"""Prove a chain: walk over its entries in order, up to the head that it had at the start, and find the first that was
changed. Pure.

Others write during the walk. Entries after that head are not part of it. Before an entry is called missing, the walk
asks what retention erased or trimmed meanwhile (``Retention``). A report's entries are compared with those of the walk
(``Sources``), so that it contains only proved entries.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

from smtpguard.journal.chain import (
    GENESIS,
    NAMELESS,
    NO_COLUMNS,
    Clear,
    Entry,
    Seal,
    clear_from,
    columns_of,
    link,
    parsed,
    runs_on,
)
from smtpguard.journal.checkpoint import Agreement, Checkpoint, Disagreement, Lost
from smtpguard.journal.event import Kind
from smtpguard.journal.timecheck import Backwards, Unsigned
from smtpguard.locale.phrase import Phrase, Said

_HASH = len(GENESIS)
MOVES_GATE = (Kind.FREEZE, Kind.THAW, Kind.POLICY, Kind.SECRET, Kind.ABSENCE, Kind.GROUP)
"""The kinds of entries that move the gate."""
GATE = frozenset(kind.value for kind in MOVES_GATE)
_VERDICT, _BYPASS = Kind.VERDICT.value, Kind.BYPASS.value
_NOTHING = list(NO_COLUMNS)
_BEGAN = re.compile(r'[{,]"gate":([0-9]+)')  # no text has such quotes
_ADOPTED = re.compile(r'[{,]"messages":([0-9]+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """An entry that was changed, and the problem."""

    seq: int
    problem: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A row beside the journal that disagrees with it. ``about``: what ``id`` names: a policy, a mailing, a freeze ..."""

    about: str
    id: str
    problem: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The result of a walk over the whole chain. ``entries``: the number that was read. ``first_bad``: the first entry that was
    changed. ``beside``: rows of the store that disagree with the chain, if that was checked (store.crosscheck).

    The other fields are no faults of the chain. ``lost``: signed entries that are missing since the store was restored.
    ``renewed``: the entry since which the secret is in force, 0 for always; names before it could not be compared with their
    digests. ``others``: other journals with checkpoints in the file. ``unreadable``: the number of lines there that are no
    checkpoint. Not ``filed``: no line there is of this journal and signed here, so a tail that was cut off together with the
    database's checkpoints could not be detected. ``trimmed``: the last entry that retention has trimmed, 0 for none.
    ``unsigned``, ``backwards``: the first findings of the times (timecheck). ``witnessed``: the last entry whose checkpoint a
    witness has, and when that was signed, in microseconds. ``bypassed``: by bypass, the number of messages that were relayed
    under it while the store was away.
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
        """Whether the chain holds, and nothing beside it disagrees."""
        return self.first_bad is None and not self.beside


class Retention(Protocol):
    """The progress of retention. It goes on during a walk, so each question is answered anew."""

    def erased(self, seq: int) -> bool:
        """Return whether it claims to have erased the clear values of an entry. That is believed only if the chain holds."""

    def base(self) -> Checkpoint | None:
        """Return the genuine checkpoint up to which it has trimmed the chain; None if none says so."""


Row = Sequence[Any]
"""An entry as the proof reads it (rows.IN_SQL): its fields, the text of its clear values, and its columns."""
Visit = Callable[[Sequence[Row]], None]
"""Takes the next entries of a chain that were proved, in order."""


@dataclass(slots=True, kw_only=True)
class Position:
    """A place in the chain: the last entry and its hash, the gate's generation there, and the bypasses that have begun before.
    ``trimmed``: entries up to this one may be missing; ``entries``: the number that was walked over."""

    seq: int = 0
    hash: bytes = GENESIS
    generation: int = 0
    bypasses: set[str] = field(default_factory=set)
    trimmed: int = 0
    entries: int = field(default=0, compare=False)


class ChainWalk:
    """A walk over a chain, in order, from position ``at`` on. ``agreement``: compares the checkpoints of this journal. ``end``: the
    entry that the chain must have. ``renewed``: entries before this one were sealed under another secret. ``visits``: each is
    called with the entries that are unchanged. ``misfiled``: the first entry whose columns do not fit."""

    def __init__(
        self,
        agreement: Agreement,
        seal: Seal,
        retention: Retention,
        *,
        end: Position | None = None,
        renewed: int = 0,
        visits: Sequence[Visit] = (),
        at: Position | None = None,
    ) -> None:
        self._agreement, self._seal, self._retention = agreement, seal, retention
        self._end, self._renewed, self._visits = end, renewed, visits
        self.at = at or Position()
        self.misfiled: Bad | None = None

    def follow(self, pages: Iterable[Sequence[Row]]) -> Bad | None:
        """Walk over further entries, and return the first that was changed. A chain that retention has trimmed begins after a
        checkpoint that says so (``base``), and may be trimmed further during the walk."""
        at, stream = self.at, iter(pages)
        for rows in stream:
            while rows:
                many, last = runs_on(rows, at.seq, at.hash)
                for row in rows[:many]:
                    at.entries += 1
                    if (problem := self._problem(row)) is not None:
                        return Bad(seq=row[0], problem=problem)
                if many:
                    for visit in self._visits:
                        visit(rows[:many])
                    at.seq, at.hash, rows = rows[many - 1][0], last, rows[many:]
                    continue
                row = rows[0]
                if row[0] > at.seq + 1 and (base := self._base(row)) is not None:
                    at.seq = at.trimmed = base.seq
                    at.hash = base.hash
                    self._agreement.skip(base.seq)
                elif row[0] <= at.trimmed:
                    rows = rows[1:]
                else:
                    at.entries += 1
                    problem = _broken(row, at, chain(rows[1:], chain.from_iterable(stream)))
                    return Bad(seq=min(row[0], at.seq + 1), problem=problem)
        return None

    def proof(self, bad: Bad | None) -> Proof:
        """Return the result of a walk that has found ``bad``, or has come to the end of the chain."""
        agreement, end, seq = self._agreement, self._end, self.at.seq
        if bad is None:
            known = max([*agreement.seqs[-1:], end.seq if end is not None else 0])
            if known > seq and (cut := self._retention.base()) is not None and cut.seq > seq:
                seq = cut.seq
                agreement.skip(seq)
            parted, lost = agreement.finish()
            if parted:
                bad = _parted(parted[0], seq)
            elif end is not None and end.seq > seq:
                bad = Bad(
                    seq=seq + 1, problem=Phrase("the tail is cut: the journal had entries up to {seq}", seq=end.seq)
                )
            else:
                return Proof(entries=self.at.entries, first_bad=self.misfiled, lost=lost, renewed=self._renewed)
        return Proof(entries=self.at.entries, first_bad=bad, renewed=self._renewed)

    def _base(self, row: Row) -> Position | None:
        """Return the position after which the chain goes on at ``row``, if retention has trimmed all entries before it."""
        base = self._retention.base()
        if base is not None and base.seq > self.at.seq:
            return Position(seq=base.seq, hash=base.hash)
        before = Position(seq=row[0] - 1, hash=row[5])
        return before if self.at.seq == 0 and self._agreement.is_cut_after(before.seq, before.hash) else None

    def _problem(self, row: Row) -> Phrase | None:
        """Return the problem of an entry that follows the one before; None if none can be shown. It notes columns that do not fit in
        ``misfiled``: they count only if there is no other problem."""
        seq, time, kind, id, body, _, hash, doc, *beside = row
        if type(time) is not int or type(body) is not str:  # SQLite stores any type in any column
            return Phrase("edited: the entry does not fit its hash")
        if doc is None and not body.endswith(NAMELESS) and not self._retention.erased(seq):
            return Phrase("private values are missing")
        content: Mapping[str, Any] = _content(body) if doc is not None or kind == _VERDICT else {}
        if doc is not None and seq >= self._renewed and not _fits(content, clear_from(doc), self._seal):
            return Phrase("edited: private values do not fit their digests")
        derived = _NOTHING
        if kind == _VERDICT:
            data = content.get("data")
            if not isinstance(data, dict):  # not JSON of smtpguard, and so not judged here
                derived = beside
            elif self._is_late(data):
                return Phrase("out of its place: this verdict was decided before a freeze, a thaw or a policy that precedes it")  # fmt: skip
            else:
                derived = [*columns_of(kind, id, data)]
        elif kind in GATE:
            self.at.generation = gate_of(body) or self.at.generation
        elif kind == _BYPASS:
            self.at.bypasses.add(id)
        if beside != derived and self.misfiled is None:
            self.misfiled = Bad(
                seq=seq, problem=Phrase("edited: the columns by which the entry is found do not fit it")
            )
        if seq in self._agreement.waiting:
            self._agreement.compare(seq, hash)
        if self._end is not None and seq == self._end.seq and hash != self._end.hash:
            return Phrase("replaced: the journal's head is another entry of this number")
        return None

    def _is_late(self, data: Mapping[str, Any]) -> bool:
        """Return whether a verdict was decided before the gate moved, and follows the entry that moved it. A verdict under a bypass
        may; the bypass's beginning must precede it, or be trimmed."""
        decided = data.get("generation")
        if not isinstance(decided, int) or decided >= self.at.generation:
            return False
        bypass = data.get("bypass")
        return not bypass or not (self.at.trimmed or str(bypass) in self.at.bypasses)


def _parted(parted: Disagreement, last: int) -> Bad:
    """Return the problem of a chain that ends with entry ``last`` and disagrees with a checkpoint."""
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
    return Bad(seq=seq, problem=problem)


def _broken(row: Row, after: Position, rest: Iterable[Row]) -> Phrase:
    """Return the problem of an entry that does not follow ``after``. ``rest``: the entries behind it."""
    seq, at, kind, id, body, prev, hash, *_ = row
    if type(prev) is not bytes:
        return Phrase("edited: the entry does not fit its hash")
    if link(prev, seq, at, kind, id, body) == hash:
        if seq <= after.seq + 1:
            return Phrase("replaced: this entry does not follow the one before it")
        if seq == after.seq + 2:
            return Phrase("missing: entry {seq} is gone", seq=after.seq + 1)
        return Phrase("missing: entries {first} to {last} are gone", first=after.seq + 1, last=seq - 1)
    if prev == after.hash:
        return Phrase("edited: the entry does not fit its hash")
    # If it was moved from elsewhere, a later entry follows it, and its hash fits its former number.
    for other in rest:
        if other[5] == hash:
            own = link(prev, other[0] - 1, at, kind, id, body)
            return Phrase("reordered: the entry stood elsewhere") if own == hash else Phrase("edited, and moved")
    return Phrase("inserted: the entry belongs to no chain")


def bypassed(rows: Iterable[tuple[str, str]]) -> Mapping[str, int]:
    """Count the messages that were relayed under each bypass, by id and body of the entries about bypasses. A bypass without
    messages is not in it."""
    found: Counter[str] = Counter()
    for id, body in rows:
        if (messages := _ADOPTED.search(body)) is not None:
            found[id] += int(messages[1])
    return dict(found)


def gate_of(body: str) -> int | None:
    """Return the generation of the gate that an entry began; None if an earlier version did not record it."""
    found = _BEGAN.search(body)
    return int(found[1]) if found is not None else None


def _content(body: str) -> Mapping[str, Any]:
    """Return the content of a body. It is empty if that is not JSON of smtpguard."""
    try:
        content = parsed(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _fits(content: Mapping[str, Any], clear: Clear, seal: Seal) -> bool:
    """Return whether clear values fit the digests in the content."""
    try:
        return seal.fits(content.get("private", {}), clear)
    except (TypeError, AttributeError):  # not values of smtpguard
        return False


class Sources:
    """The entries of a report, by number and hash, to be compared with those of the walk that proves the chain. A report of a
    million messages has millions of them, so they take 40 octets each."""

    def __init__(self, seal: Seal, renewed: int = 0) -> None:
        self._seal, self._renewed = seal, renewed
        self._seqs = array("Q")
        self._hashes = bytearray()
        self._nameless = 0  # the last entry without its clear values
        self._bad: Bad | None = None
        self._seen = 0  # entries that the walk had too

    def add(self, entry: Entry, clear: Clear | None) -> None:
        """Add an entry of the report, and check that it fits its hash and its digests."""
        self._seqs.append(entry.seq)
        self._hashes += entry.hash
        if link(entry.prev, entry.seq, entry.at, entry.kind, entry.id, entry.body) != entry.hash:
            self._note(entry.seq, Phrase("edited: the entry does not fit its hash"))
        elif clear is not None and entry.seq >= self._renewed and not _fits(_content(entry.body), clear, self._seal):
            self._note(entry.seq, Phrase("edited: private values do not fit their digests"))
        elif clear is None and not entry.body.endswith(NAMELESS):
            self._nameless = max(self._nameless, entry.seq)

    def visit(self) -> Visit:
        """Return the function that compares the entries of a walk, which begins now."""
        order = array("Q", sorted(range(len(self._seqs)), key=self._seqs.__getitem__))
        at, self._seen = 0, 0

        def visit(rows: Sequence[Row]) -> None:
            nonlocal at
            for seq, _, _, _, _, _, hash, *_ in rows:
                while at < len(order) and self._seqs[n := order[at]] <= seq:
                    if self._seqs[n] == seq:
                        self._seen += 1
                        if self._hashes[n * _HASH : (n + 1) * _HASH] != hash:
                            self._note(seq, Phrase("edited: the report was made of another entry of this number"))
                    at += 1

        return visit

    @property
    def has_trimmed(self) -> bool:
        """Whether the walk did not have some of them. If the chain holds, retention has trimmed them meanwhile."""
        return self._seen < len(self._seqs)

    def proved(self, proof: Proof, retention: Retention) -> Proof:
        """Return the proof of the walk that was visited, with a problem of these entries if they have one."""
        bad = self._bad
        if bad is None and self._nameless and not retention.erased(self._nameless):
            bad = Bad(seq=self._nameless, problem=Phrase("private values are missing"))
        return replace(proof, first_bad=bad) if proof.ok and bad is not None else proof

    def _note(self, seq: int, problem: Said) -> None:
        if self._bad is None or seq < self._bad.seq:
            self._bad = Bad(seq=seq, problem=problem)
