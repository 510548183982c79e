"""Read long stretches of the journal while others write: each stretch in a short transaction of its own.

A reader that holds one snapshot for minutes keeps SQLite from resetting its write-ahead log, which then grows, and
keeps PostgreSQL from vacuuming. The chain only grows, so entries up to the head that it had at the start are the same
whenever they are read. Only retention erases and trims entries: the reader asks about that again before it calls anything
missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from smtpguard.database.access import Access, Open, Progress
from smtpguard.database.batch import read_head
from smtpguard.database.engine import Database
from smtpguard.database.schema import checkpoint, entry
from smtpguard.journal import rows as journal
from smtpguard.journal import signing
from smtpguard.journal.chain import Pair, Seal, microseconds, readable_time
from smtpguard.journal.checkpoint import Agreement, Checkpoint, Key, read
from smtpguard.journal.event import Kind
from smtpguard.journal.merkle import Roots
from smtpguard.journal.proof import MOVES_GATE, Bad, ChainWalk, Position, Proof, Row, Sources, Visit, bypassed, gate_of
from smtpguard.journal.rows import Marks
from smtpguard.journal.timecheck import TimeCheck
from smtpguard.journal.tree import Tree, Unknown
from smtpguard.locale.phrase import Phrase

LARGE = 200_000
"""The number of entries from which on a second process makes the proof faster."""
_POLL_SECONDS = 0.2  # between two reports of progress from the second process


def pages(open: Open, until: int, *wanted: ColumnElement[bool], after: int = 0) -> Iterator[list[Pair]]:
    """Yield the wanted entries after ``after`` up to ``until``, in order, each with its clear values. No page is empty, and no
    transaction is open while the caller handles a page. Entries that are trimmed meanwhile are left out."""
    while after < until:
        with open() as connection:
            rows, after = stretch(connection, after, until, *wanted)
        if rows:
            yield list(map(journal.pair, rows))


def stretch(
    connection: Connection, after: int, until: int, *wanted: ColumnElement[bool], query: Select[Any] = journal.ROWS
) -> tuple[Sequence[Any], int]:
    """Return the rows of the next stretch, each for ``rows.pair``, and the entry at which it ends."""
    first = journal.next_after(connection, after)
    if first is None or first > until:
        return [], until
    end = min(first + journal.STRETCH - 1, until)
    query = query.where(entry.c.seq.between(first, end), *wanted).order_by(entry.c.seq)
    return connection.execute(query).all(), end


def rejected(open: Open, first: str, until: int, limit: int) -> list[Pair]:
    """Return up to ``limit`` verdicts to reject, from that of transaction ``first`` on, before the time ``until``. An index finds
    them, however many entries lie between."""
    with open() as connection:
        begin = connection.execute(select(func.min(entry.c.seq)).where(entry.c.id == first)).scalar()
        end = journal.first_at(connection, until)
    if begin is None:
        return []
    found = pages(open, end - 1, journal.VERDICT, entry.c.action == "reject", after=begin - 1)
    return list(islice(chain.from_iterable(found), limit))


def observed(open: Open, since: int, until: int, limit: int) -> tuple[int, list[Pair]]:
    """Return the number of verdicts in a time, and the newest ``limit`` of those in which a rule only observed, newest first."""
    with open() as connection:
        begin, end = journal.span(connection, since, until)
    then = entry.c.at >= since, entry.c.at < until
    judged, found = 0, list[Pair]()
    while end >= begin:
        here = (entry.c.seq.between(max(begin, end - journal.STRETCH + 1), end), journal.VERDICT, *then)
        query = (
            journal.ROWS.where(*here, entry.c.observed.is_(True)).order_by(entry.c.seq.desc()).limit(limit - len(found))
        )
        with open() as connection:
            judged += connection.execute(select(func.count()).select_from(entry).where(*here)).scalar_one()
            rows = connection.execute(query).all() if len(found) < limit else []
        found += map(journal.pair, rows)
        end -= journal.STRETCH
    return judged, found


class Walk:
    """A walk over the whole journal, up to the ``head`` that it has at the start. ``renewed``: the entry since which the secret is
    in force, 0 for always. ``signed``: the last checkpoint, if genuine. ``seal``: compares clear values with their digests."""

    def __init__(
        self,
        open: Open,
        secret: bytes,
        lines: Sequence[str],
        now: int,
        notes: Sequence[str] = (),
        stamped: Sequence[str] = (),
    ) -> None:
        """``lines``: the checkpoints of the file, read before, since a line is written only after its entries are committed.
        ``now``: in microseconds. ``notes``: signed notes that a witness has kept; ``stamped``: those with a valid time stamp."""
        self.open, self._secret, self._lines, self._now, self._given = open, secret, lines, now, notes
        self._stamped = stamped
        with open() as connection:
            self.head = read_head(connection)
            line = connection.execute(self._checkpoints().order_by(checkpoint.c.seq.desc()).limit(1)).scalar()
            rare = connection.execute(self._checkpoints().where(journal.NOTABLE)).scalars().all()
            known = (journal.trusted(line, secret, self.head.journal) for line in rare)
            renewals = {made.seq for made in known if made is not None and made.renewed}
            self._unproved = signing.last_unsigned_renewal(connection, renewals)
        self.renewed = max(renewals, default=0)
        self.signed = journal.trusted(line, secret, self.head.journal)
        self._end = Position(seq=self.head.seq, hash=self.head.hash)
        self._retention = _Retention(open, secret, self.head.journal)
        self.seal = Seal(secret, self.head.journal, self._retention.erased_value)

    def _checkpoints(self) -> Select[str]:
        return select(checkpoint.c.line).where(checkpoint.c.seq <= self.head.seq)

    def prove(self, progress: Progress | None = None, sources: Sources | None = None, *, url: str = "") -> Proof:
        """Prove the whole chain, and compare it with its checkpoints. ``sources``: the entries of a report, compared on the way.
        Without them ``url`` may name the database, so that another process walks over the first half of a large journal."""
        with self.open() as connection:
            keys = tuple(signing.keys(connection, self._secret, self.head.journal))
            known, witnessed = self._marks(connection, keys)
            about = journal.of_kind(Kind.BYPASS), entry.c.seq <= self.head.seq
            of_bypasses = select(entry.c.seq, entry.c.id, entry.c.body).where(*about).order_by(entry.c.seq)
            bypasses = connection.execute(of_bypasses).all()
            first = journal.next_after(connection, 0) or 1
        roots, bad_note = signing.check_notes(known.genuine, keys)
        total = self.head.seq - first + 1
        near = _middle(first, self.head.seq, known.genuine) if url and sources is None else None
        walked = None
        if near is not None:
            begun = {id for seq, id, _ in bypasses if seq <= near.seq}
            walked = self._walk_in_two(
                url, self._position(near, begun, first), first, known, roots, _Count(progress, total)
            )
        if walked is None:
            part = self._part(Position(), first, known, roots)
            walked = self._walk(part, known, _Count(progress, total), sources), [part]
        proof, parts = walked
        if proof.ok:
            for part in parts:
                part.times.finish()
        found = (proof.first_bad, known.bad, bad_note, *(part.bad(self._unproved) for part in parts))
        proof = replace(
            proof,
            entries=sum(part.at.entries for part in parts),
            first_bad=next(filter(None, found), None),
            trimmed=first - 1,
            unsigned=tuple(one for part in parts for one in part.times.unsigned),
            backwards=tuple(one for part in parts for one in part.times.backwards),
            others=known.others,
            unreadable=known.unreadable,
            filed=known.filed,
            witnessed=witnessed,
            bypassed=bypassed((id, body) for _, id, body in bypasses),
        )
        return proof if sources is None else sources.proved(proof, self._retention)

    def _walk(self, part: _Part, known: Marks, count: _Count, sources: Sources | None = None) -> Proof:
        """Walk from the beginning of a part to the end of the chain."""
        agreement = Agreement(known.genuine, known.claimed)
        if part.at.seq:
            agreement.skip(part.at.trimmed)
            before = [seq for seq in agreement.seqs if seq <= part.at.seq]
            with self.open() as connection:
                for seq, hash in journal.hashes(connection, before).items():
                    agreement.compare(seq, hash)
        visits = [*part.visits, sources.visit()] if sources is not None else part.visits
        walk = ChainWalk(
            agreement, self.seal, self._retention, end=self._end, renewed=self.renewed, visits=visits, at=part.at
        )
        return walk.proof(walk.follow(part.pages(self.open, count, self._retention)))

    def _walk_in_two(
        self, url: str, middle: Position, first: int, known: Marks, roots: signing.SignedRoots, count: _Count
    ) -> tuple[Proof, list[_Part]] | None:
        """Walk over the two halves of the journal, each in a process; None if the first half does not hold."""
        from concurrent.futures import ProcessPoolExecutor, wait
        from multiprocessing import get_context

        half, rest = (self._part(at, first, known, roots) for at in (Position(), middle))
        half.until = middle.seq
        joint, name = deepcopy(middle), self.head.journal
        context = get_context("spawn")
        count.other = context.Value("q", 0)
        with ProcessPoolExecutor(1, context, _set_counter, (count.other,)) as pool:
            running = pool.submit(
                _walk_half, url, half, joint, rest.roots.stack, self._secret, name, self.renewed, self.head.seq
            )
            proof = self._walk(rest, known, count)
            while not running.done():
                wait([running], _POLL_SECONDS)
                count(0)
        walked = running.result()
        return None if walked is None else (proof, [walked, rest])

    def _position(self, near: Checkpoint, begun: set[str], first: int) -> Position:
        """Return the position of a checkpoint. ``begun``: the bypasses that have begun before it."""
        moved = select(entry.c.body).where(journal.of_kind(*MOVES_GATE), entry.c.seq <= near.seq)
        with self.open() as connection:
            bodies = connection.execute(moved.order_by(entry.c.seq.desc())).scalars()
            generation = next(filter(None, map(gate_of, bodies)), 0)
        return Position(seq=near.seq, hash=near.hash, generation=generation, bypasses=begun, trimmed=first - 1)

    def _part(self, at: Position, first: int, known: Marks, signed: signing.SignedRoots) -> _Part:
        """Return the part that begins after position ``at``. ``first``: the first entry that exists."""
        before = max(at.seq, first - 1)
        with self.open() as connection:
            latest = connection.execute(select(entry.c.at + 0).where(entry.c.seq == at.seq)).scalar() or 0
            tree = Tree(connection)
            try:
                expected = {seq: some for seq, some in signed.items() if seq > before}
                roots = Roots(expected, tree.begin, tree.size(before), tree.stack(before))
            except Unknown:  # entries were changed, or trimmed without a record, which the walk reports
                roots = Roots({}, tree.begin)
        times = TimeCheck([mark for mark in known.genuine if mark.seq >= at.seq], self._now, latest)
        return _Part(at=at, until=self.head.seq, times=times, roots=roots)

    def _marks(self, connection: Connection, keys: Sequence[Key]) -> tuple[Marks, tuple[int, int] | None]:
        """Return the checkpoints of database, file and witness, and how far the witness is, by its newest one (Proof.witnessed)."""
        rows = list(connection.execute(self._checkpoints()).scalars())
        known = journal.marks(self._secret, self.head.journal, rows, self._lines)
        taken = None if self._given else journal.witnessed(connection)
        made: list[Checkpoint] = []
        bad = known.bad
        own = [
            note for note in self._stamped if read(note).journal == self.head.journal
        ]  # the folder may have time stamps of an earlier store
        for note in (*self._given, *own):
            mark = signing.checkpoint_of(note, keys, self.head.journal)
            if mark is not None:
                made.append(mark)
            else:
                bad = bad or Bad(seq=0, problem=Phrase("a checkpoint that was kept elsewhere is not signed by a key of this journal: the key was replaced, or it is another journal's"))  # fmt: skip
        kept = [mark for mark in made if mark.note in self._given] + ([taken] if taken is not None else [])
        witnessed = max(((mark.seq, mark.at) for mark in kept), default=None)
        return replace(known, genuine=[*known.genuine, *made], bad=bad), witnessed


@dataclass(slots=True, kw_only=True)
class _Part:
    """The entries from a position on, which one process walks over, and the checks of them beside the chain."""

    at: Position
    until: int
    times: TimeCheck
    roots: Roots

    @property
    def visits(self) -> Sequence[Visit]:
        return self.times.add, self.roots.add

    def pages(
        self, open: Open, count: Callable[[int], None], retention: _Retention | None = None
    ) -> Iterator[Sequence[Row]]:
        """Yield the entries of the part. If an entry after it says what was erased meanwhile, they go up to that entry, which is
        believed only if it is in the chain."""
        after = self.at.seq
        while after < (until := max(self.until, retention.source if retention is not None else 0)):
            with open() as connection:
                first = journal.next_after(connection, after) or until + 1
                after = min(first + journal.STRETCH - 1, until)
                rows = journal.between(connection, first, after)
            count(len(rows))
            yield rows

    def bad(self, unproved: int) -> Bad | None:
        """Return the problem of trees or times, if the chain holds. ``unproved``: as in ``_ill_timed``."""
        if self.roots.wrong:
            problem = Phrase("a checkpoint that was signed here has another tree than the entries up to this one make")
            return Bad(seq=self.roots.wrong, problem=problem)
        return _ill_timed(self.times, unproved)


class _Count:
    """Counts entries for ``progress``. ``other``: the count of the other process."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self.other: Any = None

    def __call__(self, n: int) -> None:
        self._done += n
        if self._progress is not None:
            self._progress(self._done + (self.other.value if self.other is not None else 0), self._total)


def _middle(first: int, until: int, marks: Sequence[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint near the middle of a large journal at which it is divided, so that no stretch between two checkpoints
    is cut; None if one process is to walk."""
    half, quarter = (first + until) // 2, (until - first) // 4
    near = min(marks, key=lambda mark: abs(mark.seq - half), default=None)
    splits = near is not None and until - first >= LARGE and cores() > 1 and abs(near.seq - half) < quarter
    return near if splits else None


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_counter: Any = None
"""In the process of the first half: the number of entries that it has read, which the other one shows."""


def _set_counter(counter: Any) -> None:
    global _counter
    _counter = counter


def _walk_half(
    url: str, part: _Part, end: Position, stack: Sequence[bytes], secret: bytes, name: str, renewed: int, head: int
) -> _Part | None:
    """Walk over a part in a process of its own. Returns it; None if it does not hold, or ends at another position than ``end``, or
    with another tree than ``stack``."""

    def count(n: int) -> None:
        with _counter.get_lock():
            _counter.value += n

    database = Database(url, reads=True)
    try:
        opened = partial(database.read, snapshot=True)
        retention = _Retention(opened, secret, name)
        seal = Seal(secret, name, retention.erased_value)
        walk = ChainWalk(Agreement([]), seal, retention, renewed=renewed, visits=part.visits, at=part.at)
        bad = walk.follow(part.pages(opened, count)) or walk.misfiled
    finally:
        database.close()
    return part if bad is None and part.at == end and part.roots.stack == stack and retention.source <= head else None


def _ill_timed(times: TimeCheck, unproved: int) -> Bad | None:
    """Return the problem of times that a genuine guard does not write, if the chain holds. ``unproved``: the entry with which a secret
    followed one that was lost; earlier checkpoints cannot be proved any more."""
    words: dict[str, Any]
    if (back := times.backdated) is not None:
        words = {"at": readable_time(back.at), "signed": readable_time(back.signed_at)}
        return Bad(seq=back.seq, problem=Phrase("backdated: it says {at}, and the journal up to the entry before was signed at {signed}", **words))  # fmt: skip
    for one in times.unsigned:
        if one.first < unproved:
            continue
        words = {"last": one.last, "since": readable_time(one.since), "until": readable_time(one.until)}
        if one.end:
            problem = Phrase("unsigned: no checkpoint covers the entries up to {last}, of {since} to {until}; newer checkpoints were removed, or never made", **words)  # fmt: skip
        else:
            problem = Phrase("unsigned: no checkpoint was made between this entry and {last}, of {since} to {until}; some were removed, or never made", **words)  # fmt: skip
        return Bad(seq=one.first, problem=problem)
    return None


class _Retention:
    """The progress of retention by the journal, for ``proof.Retention``. ``through``: clear values of entries up to this one were erased;
    ``source``: the last entry that says what was erased."""

    def __init__(self, open: Open, secret: bytes, name: str) -> None:
        self._open, self._secret, self._name = open, secret, name
        self.through = self._looked = 0
        self.source = 0
        self.digests: dict[str, int] = {}
        """The digests of values that were erased for a person, each with the entry that says so."""

    def erased(self, seq: int) -> bool:
        if seq > self.through:
            self._read()
        return seq <= self.through

    def erased_value(self, digest: str) -> bool:
        """Return whether the value of this digest is said to be erased for a person. That is believed only if the chain holds."""
        if digest not in self.digests:
            self._read()
        self.source = max(self.source, self.digests.get(digest, 0))
        return digest in self.digests

    def _read(self) -> None:
        """Read the entries that came since the last read."""
        erasures = journal.of_kind(Kind.ERASED)
        query = select(entry.c.seq, entry.c.body).where(erasures, entry.c.seq > self._looked).order_by(entry.c.seq)
        with self._open() as connection:
            rows = connection.execute(query).all()
        for at, body in rows:
            self._looked = at
            through, digests = _erasure(body)
            for digest in digests:
                self.digests.setdefault(digest, at)
            if through > self.through:
                self.through, self.source = through, at

    def base(self) -> Checkpoint | None:
        with self._open() as connection:
            before = select(func.min(entry.c.seq) - 1).scalar_subquery()
            line = connection.execute(select(checkpoint.c.line).where(checkpoint.c.seq == before)).scalar()
        made = journal.trusted(line, self._secret, self._name)
        return made if made is not None and made.base else None


def _erasure(body: str) -> tuple[int, list[str]]:
    """Return the entry up to which names were erased, and the digests of values that were erased for a person."""
    try:
        data = json.loads(body)["data"]
        return int(data.get("private_through", 0)), [str(digest) for digest in data.get("sealed", ())]
    except (ValueError, TypeError, KeyError, AttributeError):  # not written here, as the walk reports
        return 0, []


async def verdicts(
    access: Access, since: datetime, until: datetime, progress: Progress | None = None
) -> AsyncIterator[Sequence[Pair]]:
    """Yield the verdicts of a period in order, with the clear values that still exist. ``until`` is exclusive. Raises
    StoreError."""
    begin, end = microseconds(since), microseconds(until)
    query = journal.ROWS.where(journal.VERDICT, entry.c.at >= begin, entry.c.at < end)
    first, last = await access.ask(lambda connection: journal.span(connection, begin, end), snapshot=True)
    after = before = first - 1
    while after < last:
        rows, after = await access.ask(partial(stretch, after=after, until=last, query=query), snapshot=True)
        if rows:
            yield list(map(journal.pair, rows))
        if progress is not None:
            progress(after - before, last - before)
