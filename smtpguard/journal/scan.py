"""Read long stretches of the journal while others write: each stretch in a short transaction of its own.

A reader that holds one snapshot for minutes keeps SQLite from resetting its write-ahead log, which then grows, and
keeps PostgreSQL from vacuuming. The chain only grows, so entries up to the head that it had at the start are the same
whenever they are read. The exception is what retention erases and trims: the reader asks about that again before
anything is called missing.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select

from smtpguard.database.access import Access, Open, Progress
from smtpguard.database.batch import read_head
from smtpguard.database.engine import Database
from smtpguard.database.schema import checkpoint, entry
from smtpguard.journal import quickwalk, signing
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import GENESIS, Clear, Entry, Seal, columns_fit, microseconds, moment
from smtpguard.journal.checkpoint import Agreement, Checkpoint
from smtpguard.journal.event import Kind
from smtpguard.journal.merkle import Roots
from smtpguard.journal.note import Key, read
from smtpguard.journal.proof import MOVES_GATE, Bad, ChainHead, Proof, Sources, bypassed, gate_of, verify
from smtpguard.journal.rows import Marks
from smtpguard.journal.signing import Noted
from smtpguard.journal.timecheck import TimeCheck
from smtpguard.journal.tree import Tree, Unknown
from smtpguard.locale.phrase import Phrase

STRETCH = 2000
"""Entries that are read in one transaction."""
_MISFILED = Phrase("edited: the columns by which the entry is found do not fit it")

Pair = tuple[Entry, Clear | None]


def pages(open: Open, until: int, *wanted: ColumnElement[bool], after: int = 0) -> Iterator[list[Pair]]:
    """The wanted entries up to ``until``, in order, each with its clear values; no page for a stretch without any. No
    transaction is open while the caller handles a page. Entries that are trimmed meanwhile are left out."""
    for rows in _stretches(open, until, *wanted, after=after):
        yield list(map(journal.pair, rows))


def _stretches(
    open: Open, until: int, *wanted: ColumnElement[bool], after: int = 0, query: Select[Any] = journal.ROWS
) -> Iterator[Sequence[Any]]:
    while after < until:
        with open() as connection:
            rows, after = stretch(connection, after, until, *wanted, query=query)
        if rows:
            yield rows


def stretch(
    connection: Connection, after: int, until: int, *wanted: ColumnElement[bool], query: Select[Any] = journal.ROWS
) -> tuple[Sequence[Any], int]:
    """The rows of the next stretch, each a ``journal.pair``, and the entry at which it ends."""
    first = connection.execute(select(func.min(entry.c.seq)).where(entry.c.seq > after)).scalar()
    if first is None or first > until:
        return [], until
    end = min(first + STRETCH - 1, until)
    query = query.where(entry.c.seq.between(first, end), *wanted).order_by(entry.c.seq)
    return connection.execute(query).all(), end


def rejected(open: Open, first: str, until: int, limit: int) -> list[Pair]:
    """Verdicts to reject from that of ``first`` on, before ``until``. The database finds them, however many entries lie
    between."""
    with open() as connection:
        begin = connection.execute(select(func.min(entry.c.seq)).where(entry.c.id == first)).scalar()
        end = journal.first_at(connection, until)
    if begin is None:
        return []
    wanted = journal.acts("reject")
    found: list[Pair] = []
    for page in pages(open, end - 1, wanted, after=begin - 1):
        found += page
        if len(found) >= limit:
            break
    return found[:limit]


def observed(open: Open, since: int, until: int, limit: int) -> tuple[int, list[Pair]]:
    """The number of verdicts in that time, and those in which a rule only observed; the newest first."""
    with open() as connection:
        begin = journal.first_at(connection, since - journal.LATE)
        end = journal.first_at(connection, until + journal.LATE)
    then = entry.c.at >= since, entry.c.at < until
    judged, found = 0, list[Pair]()
    while end > begin:
        here = (entry.c.seq.between(max(begin, end - STRETCH), end - 1), journal.VERDICT, *then)
        query = (
            journal.ROWS.where(*here, entry.c.observed.is_(True)).order_by(entry.c.seq.desc()).limit(limit - len(found))
        )
        with open() as connection:
            judged += connection.execute(select(func.count()).select_from(entry).where(*here)).scalar_one()
            rows = connection.execute(query).all() if len(found) < limit else []
        found += map(journal.pair, rows)
        end -= STRETCH
    return judged, found


class Walk:
    """A scan of the whole journal, up to the ``head`` at the start. ``lines``: the checkpoints of the file,
    read before, since a line is written only after its entries are committed. ``signed``: the last checkpoint, if
    genuine. ``renewed``: the entry since which the secret is in force, 0 for always. ``now``: microseconds. ``notes``:
    signed notes that a witness has kept; ``stamped``: signed notes with a valid time stamp."""

    def __init__(
        self,
        open: Open,
        secret: bytes,
        lines: Sequence[str],
        now: int,
        notes: Sequence[str] = (),
        stamped: Sequence[str] = (),
    ) -> None:
        self.open, self._secret, self._lines, self._now, self._given = open, secret, lines, now, notes
        self._stamped = stamped
        with open() as connection:
            self.head = read_head(connection)
            line = connection.execute(self._checkpoints().order_by(checkpoint.c.seq.desc()).limit(1)).scalar()
            rare = connection.execute(self._checkpoints().where(journal.NOTABLE)).scalars().all()
            known = (journal.trusted(line, secret, self.head.journal) for line in rare)
            renewals = {made.seq for made in known if made is not None and made.renewed}
            self._unproved = signing.lost(connection, renewals)
        self.renewed = max(renewals, default=0)
        self.signed = None if line is None else journal.trusted(line, secret, self.head.journal)
        self._retention = _Retention(open, secret, self.head.journal)
        self.seal = Seal(secret, self.head.journal, self._retention.wiped)
        self._misfiled: Bad | None = None
        self._trimmed = 0
        self._notes: Noted | None = None
        self._keys: tuple[Key, ...] = ()
        self._witnessed: tuple[int, int] | None = None

    def _checkpoints(self) -> Select[str]:
        return select(checkpoint.c.line).where(checkpoint.c.seq <= self.head.seq)

    def prove(self, progress: Progress | None = None, sources: Sources | None = None) -> Proof:
        """Compare all of it with its checkpoints. ``sources``: entries to be met again on the way."""
        head = self.head
        with self.open() as connection:
            known = self._known(connection)
            roots = self._roots(connection, known)
            bypasses = connection.execute(self._bypasses()).all()
        course = TimeCheck(known.genuine, self._now)
        proof = verify(
            self._entries(progress, course, roots),
            Agreement(known.genuine, known.claimed),
            self.seal,
            self._retention,
            end=ChainHead(seq=head.seq, hash=head.hash),
            renewed=self.renewed,
            met=sources.walk() if sources is not None else lambda seq, hash: None,
        )
        if proof.ok:
            course.ends()
        proof = replace(
            proof,
            first_bad=proof.first_bad
            or known.bad
            or self._misfiled
            or self._noted(known).bad
            or _grown(roots)
            or _ill_timed(course, self._unproved),
            trimmed=max(self._trimmed, 0),
            unsigned=tuple(course.unsigned),
            backwards=tuple(course.backwards),
        )
        return self._with_marks(proof, known, bypasses, sources)

    def quick(self, url: str, progress: Progress | None = None, sources: Sources | None = None) -> Proof | None:
        """The same for a journal that holds, several times as fast; None if ``prove`` must look. ``url``: of its
        database, which more processes may open if there are no ``sources``; "" for none."""
        head = self.head
        with self.open() as connection:
            known = self._known(connection)
            first = connection.execute(select(func.min(entry.c.seq))).scalar()
        if known.bad is not None or first is None or first > head.seq:
            return None
        if self._noted(known).bad is not None:
            return None
        parts = self._parts(first - 1, url, known)
        if not parts:
            return None
        self._retention.erased(head.seq)
        with self.open() as connection:
            moved = select(entry.c.seq, entry.c.body).where(journal.of_kind(*MOVES_GATE), entry.c.seq <= head.seq)
            bodies = connection.execute(moved.order_by(entry.c.seq)).all()
            bypasses = connection.execute(self._bypasses()).all()
        gates = tuple((seq, began) for seq, body in bodies if (began := gate_of(body)))
        named = quickwalk.Named(
            gates=gates,
            bypasses={id: seq for seq, id, _ in reversed(bypasses)},
            secret=self._secret,
            journal=head.journal,
            renewed=self.renewed,
            through=self._retention.through,
            erased=frozenset(self._retention.digests),
        )
        met = sources.walk() if sources is not None else None
        walked = quickwalk.walked(self.open, url, parts, named, progress, met)
        agreement = Agreement(known.genuine, known.claimed)
        begins = walked and (walked[0].prev == GENESIS if first == 1 else agreement.begins(first - 1, walked[0].prev))
        if not walked or not begins or walked[-1].hash != head.hash:
            return None
        agreement.skips(first - 1)
        with self.open() as connection:
            for seq, hash in journal.hashes(connection, agreement.seqs).items():
                agreement.meets(seq, hash)
        parted, lost = agreement.ends()
        for each in walked:
            each.course.ends()
        if parted or any(_ill_timed(each.course, self._unproved) for each in walked):
            return None
        proof = Proof(
            entries=sum(each.entries for each in walked),
            lost=lost,
            renewed=self.renewed,
            trimmed=first - 1,
            backwards=tuple(one for each in walked for one in each.course.backwards),
        )
        return self._with_marks(proof, known, bypasses, sources)

    def _with_marks(self, proof: Proof, known: Marks, bypasses: Sequence[Any], sources: Sources | None) -> Proof:
        proof = replace(
            proof,
            others=known.others,
            unreadable=known.unreadable,
            filed=known.filed,
            witnessed=self._witnessed,
            bypassed=bypassed((id, body) for _, id, body in bypasses),
        )
        return proof if sources is None else sources.proved(proof, self._retention)

    def _bypasses(self) -> Select[Any]:
        about = journal.of_kind(Kind.BYPASS), entry.c.seq <= self.head.seq
        return select(entry.c.seq, entry.c.id, entry.c.body).where(*about).order_by(entry.c.seq)

    def _known(self, connection: Connection) -> Marks:
        """The checkpoints of database and file, and a witness's: the newest of these says how far the witness is."""
        rows = list(connection.execute(self._checkpoints()).scalars())
        known = journal.marks(self._secret, self.head.journal, rows, self._lines)
        self._keys = tuple(signing.keys(connection, self._secret, self.head.journal))
        taken = None if self._given else journal.witnessed(connection)
        if taken is not None:
            self._witnessed = taken.seq, taken.at
        made: list[Checkpoint] = []
        bad = known.bad
        own = [
            note for note in self._stamped if read(note).journal == self.head.journal
        ]  # the folder may have time stamps of an earlier store
        for note in (*self._given, *own):
            mark = signing.checkpoint_of(note, self._keys, self.head.journal)
            if mark is not None:
                made.append(mark)
            else:
                bad = bad or Bad(seq=0, problem=Phrase("a checkpoint that was kept elsewhere is not signed by a key of this journal: the key was replaced, or it is another journal's"))  # fmt: skip
        kept = [(mark.seq, mark.at) for mark in made if mark.note in self._given]
        if kept:
            self._witnessed = max(kept)
        return replace(known, genuine=[*known.genuine, *made], bad=bad)

    def _roots(self, connection: Connection, known: Marks) -> Roots:
        first = connection.execute(select(func.min(entry.c.seq))).scalar() or 1
        tree = Tree(connection)
        try:
            return Roots(self._noted(known).roots, tree.begin, tree.size(first - 1), tree.stack(first - 1))
        except Unknown:  # trimmed without a record, as the walk reports
            return Roots({}, tree.begin)

    def _parts(self, after: int, url: str, known: Marks) -> list[quickwalk.Part]:
        """The parts of the walk. None if the stored tree does not reach so far."""
        near = quickwalk.middle(after, self.head.seq, known.genuine) if url else 0
        roots = self._noted(known).roots
        bounds = [after, near, self.head.seq] if near else [after, self.head.seq]
        made = []
        for begin, end in itertools.pairwise(bounds):
            with self.open() as connection:
                tree = Tree(connection)
                try:
                    stack = tree.stack(begin)
                except Unknown:
                    return []
            marks = tuple(mark for mark in known.genuine if begin <= mark.seq <= end)
            latest = self._at(begin) if begin > after else 0
            here = {seq: some for seq, some in roots.items() if begin < seq <= end}
            made.append(
                quickwalk.Part(
                    after=begin, until=end, marks=marks, latest=latest, now=self._now, roots=here, begin=tree.begin, stack=tuple(stack),
                )
            )  # fmt: skip
        return made

    def _noted(self, known: Marks) -> Noted:
        """The roots and hashes in the notes of the checkpoints."""
        if self._notes is None:
            self._notes = signing.check_notes(known.genuine, self._keys)
        return self._notes

    def _at(self, seq: int) -> int:
        with self.open() as connection:
            return int(connection.execute(select(entry.c.at).where(entry.c.seq == seq)).scalar() or 0)

    def _entries(self, progress: Progress | None, course: TimeCheck, roots: Roots) -> Iterator[Pair]:
        """Up to the head. If an entry after it says what was erased meanwhile, up to that, since it is believed only if
        it is in the chain. The columns beside each are compared with it."""
        query = journal.ROWS.add_columns(*journal.COLUMNS)
        self._misfiled = None
        self._trimmed = -1
        done = seen = 0
        while done < (until := max(self.head.seq, self._retention.said_by)):
            for rows in _stretches(self.open, until, after=done, query=query):
                if self._trimmed < 0:
                    self._trimmed = rows[0].seq - 1
                course.meets(rows)
                roots.meets(rows)
                for row in rows:
                    if self._misfiled is None and not columns_fit(
                        row.kind, row.id, row.body, row[-len(journal.COLUMNS) :]
                    ):
                        self._misfiled = Bad(seq=row.seq, problem=_MISFILED)
                    yield journal.pair(row)
                seen += len(rows)
                if progress is not None:
                    progress(seen, until)
            done = until


def _grown(roots: Roots) -> Bad | None:
    if not roots.wrong:
        return None
    return Bad(seq=roots.wrong, problem=Phrase("a checkpoint that was signed here has another tree than the entries up to this one make"))  # fmt: skip


def _ill_timed(course: TimeCheck, unproved: int) -> Bad | None:
    """Times that an honest guard does not write, for a chain that holds. ``unproved``: the entry of a secret that was
    made since the one before was lost, with what it had signed."""
    said: dict[str, Any]
    if (back := course.backdated) is not None:
        said = {"at": moment(back.at), "signed": moment(back.signed_at)}
        return Bad(seq=back.seq, problem=Phrase("backdated: it says {at}, and the journal up to the entry before was signed at {signed}", **said))  # fmt: skip
    for one in course.unsigned:
        if one.first < unproved:
            continue
        said = {"last": one.last, "since": moment(one.since), "until": moment(one.until)}
        if one.end:
            problem = Phrase("unsigned: no checkpoint covers the entries up to {last}, of {since} to {until}; newer checkpoints were removed, or never made", **said)  # fmt: skip
        else:
            problem = Phrase("unsigned: no checkpoint was made between this entry and {last}, of {since} to {until}; some were removed, or never made", **said)  # fmt: skip
        return Bad(seq=one.first, problem=problem)
    return None


class _Retention:
    """Implements journal.proof.Retention. ``through``: up to where clear values were erased, as last read; ``said_by``:
    the entry that says so."""

    def __init__(self, open: Open, secret: bytes, name: str) -> None:
        self._open, self._secret, self._name = open, secret, name
        self.through = self._looked = 0
        self.said_by = 0
        self.digests: dict[str, int] = {}
        """Of values that were erased for a person, and the entry that says so."""

    def erased(self, seq: int) -> bool:
        if seq > self.through:
            self._look()
        return seq <= self.through

    def wiped(self, digest: str) -> bool:
        """Whether it claims to have erased the value of this digest for a person. Believed only if the chain holds."""
        if digest not in self.digests:
            self._look()
        self.said_by = max(self.said_by, self.digests.get(digest, 0))
        return digest in self.digests

    def _look(self) -> None:
        said = journal.of_kind(Kind.ERASED)
        query = select(entry.c.seq, entry.c.body).where(said, entry.c.seq > self._looked).order_by(entry.c.seq)
        with self._open() as connection:
            rows = connection.execute(query).all()
        for at, body in rows:
            self._looked = at
            through, digests = _erasure(body)
            for digest in digests:
                self.digests.setdefault(digest, at)
            if through > self.through:
                self.through, self.said_by = through, at

    def base(self) -> Checkpoint | None:
        with self._open() as connection:
            before = select(func.min(entry.c.seq) - 1).scalar_subquery()
            line = connection.execute(select(checkpoint.c.line).where(checkpoint.c.seq == before)).scalar()
        made = None if line is None else journal.trusted(line, self._secret, self._name)
        return made if made is not None and made.base else None


def _erasure(body: str) -> tuple[int, list[str]]:
    """Up to where names were erased, and the digests of values that were erased for a person."""
    try:
        data = json.loads(body)["data"]
        return int(data.get("private_through", 0)), [str(digest) for digest in data.get("sealed", ())]
    except (ValueError, TypeError, KeyError, AttributeError):  # not written here, as the walk reports
        return 0, []


async def verdicts(
    access: Access, since: datetime, until: datetime, progress: Progress | None = None
) -> AsyncIterator[Sequence[Pair]]:
    """The verdicts of a period in order, with the clear values that still exist; ``until`` is exclusive. Raises
    StoreError."""

    def bounds(connection: Connection) -> tuple[int, int]:
        first = journal.first_at(connection, microseconds(since) - journal.LATE)
        return first - 1, journal.first_at(connection, microseconds(until) + journal.LATE) - 1

    then = entry.c.at >= microseconds(since), entry.c.at < microseconds(until)
    query = journal.ROWS.where(journal.VERDICT, *then)
    before, last = await access.ask(bounds, snapshot=True)
    after = before
    while after < last:
        rows, after = await access.ask(partial(stretch, after=after, until=last, query=query), snapshot=True)
        if rows:
            yield list(map(journal.pair, rows))
        if progress is not None:
            progress(after - before, last - before)


MOST = 500_000
"""The most entries that are scanned, the newest."""
_PAGE = 5_000
_SAID = re.compile(r'"(client|listener|peer)":"((?:[^"\\\\]|\\\\.)*)"')


class Caller(NamedTuple):
    """``peer``: the address that connected, if it named another client; ``listener``: "" if an earlier version did not
    say."""

    client: str
    peer: str = ""
    listener: str = ""


def callers_at(url: str, since: datetime) -> Counter[Caller]:
    """Numbers of messages by the address that connected, and the listener. The schema may be an older version's, since
    this runs before an upgrade: entries have been the same since the first. Raises StoreError and ValueError."""
    found: Counter[Caller] = Counter()
    database = Database(url, reads=True)
    try:
        with database.read() as connection:
            last = connection.execute(select(entry.c.seq).order_by(entry.c.seq.desc()).limit(1)).scalar() or 0
        lowest, since_us = last - MOST, microseconds(since)
        while last > max(lowest, 0):
            start = last - _PAGE
            query = select(entry.c.at, entry.c.kind, entry.c.body).where(entry.c.seq > start, entry.c.seq <= last)
            with database.read() as connection:
                rows = connection.execute(query).all()
            found.update(
                Caller(**dict(_SAID.findall(body)))
                for at, kind, body in rows
                if kind == Kind.VERDICT.value and at >= since_us and '"client":"' in body
            )
            if not rows or max(at for at, _, _ in rows) < since_us:
                break
            last = start
    finally:
        database.close()
    return found
