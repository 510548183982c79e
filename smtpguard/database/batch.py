"""One open write transaction: the gate and the chain's head as read at its start, and the rows to write at its end.

Journal entries and other frequent rows are collected and written by a few statements with many rows. An item sees what
earlier items of the batch did, since it asks here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, update

from smtpguard.database import schema
from smtpguard.database.errors import Unavailable
from smtpguard.database.failpoint import passes, traced
from smtpguard.database.fronts import File, Fronts, Shared, is_locked, scope_key
from smtpguard.database.statements import PLAIN_ENTRY, Row, Statements, rows_of
from smtpguard.journal import bypass
from smtpguard.journal.bypass import Bypasses
from smtpguard.journal.chain import Seal, body_of, clear_of, columns_of, first_of, link, microseconds, parsed, says_only
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import FIRST, Fronted, Tail, event_of, follows, head_of, tail
from smtpguard.journal.front import Head as Front
from smtpguard.journal.merkle import Recent
from smtpguard.journal.outcome import Outcome, relayed
from smtpguard.mail.codec import Codec
from smtpguard.policy.freezing import Freeze, Gate

FREEZE = Codec(Freeze)
_VERDICT = Kind.VERDICT.value
_HEAD = "SELECT journal, seq, hash, generation, policy, kept_bytes FROM head"
_BEGUN = f"SELECT EXISTS (SELECT 1 FROM front), (SELECT version_num FROM alembic_version), h.* FROM ({_HEAD}) AS h"
_SET_HEAD = "UPDATE head SET seq = ?, hash = ?, generation = ?, policy = ?, kept_bytes = ?"
_SETTLE = "DELETE FROM underway WHERE id {} AND NOT doubt RETURNING id, mailing, at, people, again"
_FREEZES = 'SELECT doc FROM "freeze" WHERE NOT lifted ORDER BY freeze_id'


@dataclass(slots=True, kw_only=True)
class Head:
    """The row ``head``: the gate, the last entry of the chain, and the octets of kept content. A batch changes its own copy,
    and writes it at its end."""

    journal: str
    seq: int
    hash: bytes
    generation: int
    policy: str
    kept_bytes: int


def read_head(connection: Connection) -> Head:
    """Read the row ``head``. Raises Unavailable if there is none."""
    return _head(_first(rows_of(connection, _HEAD)))


def _first(rows: Iterable[Sequence[Any]]) -> Sequence[Any]:
    for row in rows:
        return row
    raise Unavailable("the database has no journal yet: is it being restored?")


def _head(row: Sequence[Any]) -> Head:
    journal, seq, hash, generation, policy, kept = row
    return Head(journal=journal, seq=seq, hash=bytes(hash), generation=generation, policy=policy, kept_bytes=kept)


def read_freezes(connection: Connection) -> tuple[Freeze, ...]:
    return tuple(FREEZE.loads(doc) for (doc,) in rows_of(connection, _FREEZES))


def synced_frames(file: File, moved: int, most: int = sys.maxsize) -> Sequence[Fronted]:
    """Return the synced frames of a front after number ``moved``: the first ``most`` octets of them, which is enough for any one
    frame. Raises OSError."""
    for start, frames in file.synced(most):
        found, size = follows(frames, moved)
        if found:
            file.at = start + size
            return found
    return ()


@lru_cache(maxsize=1)
def _seal(secret: bytes, journal: str) -> Seal:
    """Return the seal of a journal. The cache keeps one: a process has one secret and one journal at a time."""
    return Seal(secret, journal, remembers=True)


class Follower(Protocol):
    """Changes the rows of mailings when outcomes are journalled (mailings.mailingbatch)."""

    def settle(self, outcomes: Mapping[str, Outcome | None]) -> None:
        """Take the outcomes of verdicts to relay, by transaction id, before their rows in underway are deleted."""

    def record_relayed(self, relayed: Iterable[tuple[int | None, int, int, bytes | None, bool]]) -> None:
        """Take relayed verdicts. For each: the mailing's number, when it was decided and when relayed, in microseconds, the
        people's digests, and whether other copies are in doubt."""

    def record_part(self, hold_id: str, at: int, *, arrived: bool) -> None:
        """Take the outcome of the part of a held message that its MTA passes on itself."""

    def record_doubt(self, ids: Sequence[str]) -> None:
        """Mark the outcome of verdicts to relay as unknown."""

    def end_doubt(self, out: Mapping[str, int]) -> None:
        """Take verdicts that were relayed, by id with the time. Those that were in doubt no longer are."""

    def write(self) -> None:
        """Write what has changed, at the end of the batch."""


class Batch(Statements):
    """A write transaction, made by the writer."""

    def __init__(
        self,
        connection: Connection,
        *,
        now: datetime,
        secret: bytes,
        known: Gate | None,
        follow: Callable[[Batch], Follower],
        fronts: Fronts | None,
        bypasses: Bypasses,
        recent: Recent,
    ) -> None:
        super().__init__(connection)
        self.secret = secret
        self.now = now
        self.now_us = microseconds(now)
        fronted, found, *head = _first(self.select(_BEGUN))
        if found != schema.SCHEMA:
            raise Unavailable(
                f"the database has schema {found} since another smtpguard was started, and this one, which runs on, knows "
                f"{schema.SCHEMA}: start the same version here"
            )
        self.head = _head(head)
        self._was = replace(self.head)
        self._recent = recent  # hashes of the entries before this batch
        self._hashes = list[bytes]()  # hashes of the entries of this batch
        self._fronts = fronts
        self.fronts_moved: dict[str, int] = {}
        """For each front, by name, the number of the last frame that this batch moves: ``Fronts.note_moved`` takes it after the
        commit."""
        self._bypasses, self._taken = bypasses, set[str]()  # names of their fronts, and ids, with entries in this batch
        self._page: Shared | None = None
        if fronted:
            self.open_page()
        self.seal = _seal(secret, self.head.journal)
        if known is not None and known.generation == self.head.generation:
            self.freezes = known.freezes
        else:
            self.freezes = read_freezes(connection)
        self._rows: dict[str, list[Row]] = {}
        self._settled: dict[str, tuple[Outcome | None, int]] = {}  # by transaction: outcome and its time
        self._unwritten: dict[str, Row] = {}
        """Rows of underway for verdicts of fronts, by transaction. Most are never written: their outcome comes in the same
        batch. They are of no mailing, so no other row changes with their outcome."""
        self.follower = follow(self)
        """Updates the rows of mailings, which this room does not know."""
        self.signed: list[Checkpoint] = []
        """Checkpoints of this batch. Their lines are written to the file after the commit."""
        self.events: list[Event] = []
        """Events journalled in this batch. Subscribers get them after the commit."""

    @property
    def gate(self) -> Gate:
        """The gate as this batch leaves it."""
        return Gate(generation=self.head.generation, policy_sha256=self.head.policy, freezes=self.freezes)

    def sealed(self, events: Sequence[Event]) -> list[tuple[Event, str, str | None]]:
        """Return each event with its body and its clear values as they are written. Raises TypeError or ValueError for a
        value that JSON cannot have.

        Separate from ``append``, so that a bad event is found before anything of its item is written.
        """
        return [(e, body_of(e, self.seal), clear_of(e)) for e in events]

    def append(self, sealed: Iterable[tuple[Event, str, str | None]]) -> None:
        """Chain events. An outcome removes its verdict from underway; IN_DOUBT marks it there."""
        entries, clears = self.rows("entry"), self.rows("clear")
        head = self.head
        for event, body, clear in sealed:
            seq, prev = head.seq + 1, head.hash
            self.events.append(event)
            at, kind = microseconds(event.at), event.kind.value
            hash = link(prev, seq, at, kind, event.id, body)
            entries.append((seq, at, kind, event.id, body, prev, hash, *columns_of(kind, event.id, event.data)))
            passes(kind, event.id)
            self._hashes.append(hash)
            head.seq, head.hash = seq, hash  # set before the follower runs, which may append too
            if clear is not None:
                clears.append((seq, clear))
            if event.kind is Kind.OUTCOME and event.data.get("part"):
                self.flush()
                self.follower.record_part(event.id, at, arrived=relayed(kind, event.data) is Outcome.DELIVERED)
            elif event.kind is Kind.OUTCOME:
                if self._unwritten.pop(event.id, None) is None:
                    self._settled[event.id] = relayed(kind, event.data), at
            elif event.kind is Kind.IN_DOUBT:
                self.flush()
                self.follower.record_doubt([event.id])
                self.connection.execute(
                    update(schema.underway).where(schema.underway.c.id == event.id).values(doubt=True, marks="")
                )

    def record(self, events: Sequence[Event]) -> None:
        """Seal and chain events. Raises as ``sealed``, and then nothing of them is written."""
        self.append(self.sealed(events))

    @property
    def has_grown(self) -> bool:
        """Whether this batch has written journal entries."""
        return self.head.seq != self._was.seq

    @property
    def recent(self) -> Recent:
        """The hashes of the newest entries, including those of this batch."""
        return self._recent.followed(self.head.seq, self._was.hash, self._hashes)

    def keep_recent(self) -> None:
        """Add the hashes of this batch to those that the process keeps. Call it after the commit."""
        self._recent.follow(self.head.seq, self._was.hash, self._hashes)

    def rows(self, table: str) -> list[Row]:
        """Return the list of a table's rows that wait to be written. Callers append to it."""
        return self._rows.setdefault(table, [])

    def open_page(self) -> Shared | None:
        """Open the shared page of the fronts, and update it with this batch from now on. None without fronts. While the
        database has no front, no process reads the page."""
        if self._fronts is not None:
            self._page = self._fronts.shared
            if self._page.generation != self.head.generation:
                self._page.generation = self.head.generation  # nothing else moves the gate during this transaction
        return self._page

    def move_gate(self, event: Event, *, policy: str | None = None) -> Gate:
        """Record a change of the gate, and begin its next generation, so that every process reads it again. Call it after the
        change. No front takes a verdict that was decided before, and all verdicts of fronts precede the entry. ``policy``:
        the SHA-256 of the policy that is in force from now on. Returns the new gate."""
        generation = self.head.generation + 1
        if self._page is not None:
            self._page.generation = generation
        self._bypasses.begin_generation(generation)
        self.take_fronts()
        self.record([replace(event, data={**event.data, "gate": generation})])
        self.flush()
        self.head.generation = generation
        if policy is not None:
            self.head.policy = policy
        self.freezes = read_freezes(self.connection)
        return self.gate

    def take_fronts(self) -> int:
        """Move the entries of all fronts and bypasses into the chain. A front of an ended process is removed by a batch that
        finds all of it committed. Returns the number of entries."""
        taken = self._take_bypasses()
        if self._fronts is None:
            return taken
        for file in self._fronts.all():
            try:
                taken += self._take(self._fronts, file)
            except FileNotFoundError:  # its process has ended, and has moved all of it
                continue
        there = {file.name for file in self._fronts.all()}
        for (name,) in self.select("SELECT name FROM front"):
            if name not in there:
                self.execute("DELETE FROM front WHERE name = ?", [(name,)])
        return taken

    def _take(self, fronts: Fronts, file: File) -> int:
        """Move the entries of one front. Raises FileNotFoundError if it is gone."""
        if file.is_alive:
            return self.move_front(file) or 0
        data = file.read()
        head, frames = head_of(data), data[FIRST:]
        known = self.select("SELECT moved FROM front WHERE name = ?", (file.name,))
        moved = known[0][0] if known else 0
        found = tail(frames, moved)
        if head is None and not found.fronted and not found.problem:
            fronts.remove(file)
            return 0
        problem = self._foreign(head, found)
        if not problem and not known and found.fronted:
            if not found.problem and not self.lacks(found.fronted):  # its process moved it, after a restore
                fronts.remove(file)
                return 0
            problem = "it is not known here"
        if problem:
            file.set_aside(problem)
            return 0
        if found.fronted:
            self.append_fronted(found.fronted)
            self.front_moved(file.name, found.last)
        elif file.name not in self.fronts_moved:  # all of it was moved in an earlier commit; this one may still fail
            fronts.remove(file)
        return len(found.fronted)

    def lacks(self, fronted: Sequence[Fronted]) -> list[Fronted]:
        """Return those of the entries that are not in the chain."""
        there = {tuple(row) for row in self.among("SELECT kind, id FROM entry WHERE id {}", [f.id for f in fronted])}
        return [f for f in fronted if (f.kind, f.id) not in there]

    def _foreign(self, front: Front | None, found: Tail) -> str:
        """Return why a front belongs to an earlier or another state of this journal; "" if it fits."""
        if front is None:
            return "its head cannot be read"
        if front.journal != self.head.journal:
            return f"it is of the journal {front.journal}"
        there = self.select("SELECT hash FROM entry WHERE seq = ?", (front.seq,))
        if front.seq > self.head.seq or (there and bytes(there[0][0]).hex() != front.hash):
            return f"its journal had another entry {front.seq}"
        if self._has_later(found.fronted):
            return f"it was decided under another generation than {self.head.generation}"
        return found.problem if not found.fronted else ""

    def _take_bypasses(self) -> int:
        """Move what the bypasses of this host recorded into the chain: the beginning of each, its verdicts and outcomes, and its
        end. An entry that is there already is found by its id, so each line enters the chain once."""
        if not self._bypasses.has_files:
            return 0
        self.flush()
        fronts = [
            (path, *found) for path in self._bypasses.fronts() if (found := self._read_bypassed(path)) is not None
        ]
        known = {found.bypass.id: found.bypass for _, found, _ in fronts} | {
            each.id: each for each in self._bypasses.all()
        }
        changes = {id: self._changes(id) for id in known}
        self.record([each.beginning(self.now) for id, each in known.items() if "begun" not in changes[id]])
        taken = sum(self._take_bypassed(path, found, written=written) for path, found, written in fronts)
        left = {found.bypass.id for path, found, _ in fronts if path.exists()}
        for id, each in known.items():
            if not each.is_over(self.now):
                continue
            if "ended" not in changes[id]:
                self._taken.add(id)
                self.record([each.end(self.now)])
            elif not left & {id} and id not in self._taken:
                self._bypasses.remove(each)
        self.flush()
        return taken

    def _changes(self, id: str) -> set[str]:
        """Return which changes of a bypass are in the chain: begun, adopted, ended."""
        found = self.select("SELECT body FROM entry WHERE id = ? AND kind = ?", (id, Kind.BYPASS.value))
        return {parsed(body)["data"]["change"] for (body,) in found}

    def _read_bypassed(self, path: Path) -> tuple[bypass.ReadFront, bool] | None:
        """Read a front of a bypass. Returns it, and whether its process may still write it; None if it is of another journal,
        which sets it aside, or is gone."""
        try:
            written = is_locked(path)  # read first: a front that is not locked now is not written later
            found = bypass.read(path)
        except FileNotFoundError:  # another process has removed it
            return None
        if found is not None and found.journal == self.head.journal:
            return found, written
        if found is not None or not written:
            bypass.set_aside(path, f"it is of the journal {found.journal}" if found else "its head cannot be read")
        return None

    def _take_bypassed(self, path: Path, found: bypass.ReadFront, *, written: bool) -> int:
        """Chain the lines of one front of a bypass that are not in the chain. Returns their number."""
        there = set(self.among("SELECT kind, id FROM entry WHERE id {}", [line.id for line in found.lines]))
        new = [line for line in found.lines if (line.kind, line.id) not in there]
        if not new:
            if not written and path.name not in self._taken:  # an earlier commit moved all of it
                bypass.remove(path, damaged=found.damaged)
            return 0
        self._taken.add(path.name)
        verdicts = [line for line in new if line.key]
        self.rows("underway").extend((v.id, v.key, v.at, v.marks, False, None, None, False) for v in verdicts)
        self.append((event_of(line, self.now), line.body, line.clear) for line in new)
        if verdicts:
            data = {
                "change": "adopted",
                "front": path.name,
                "messages": len(verdicts),
                "generation": verdicts[0].generation,
            }
            self.record([Event(kind=Kind.BYPASS, id=found.bypass.id, at=self.now, data=data)])
        return len(new)

    def _has_later(self, fronted: Sequence[Fronted]) -> bool:
        """Return whether a verdict is of a later generation than the gate's."""
        return any(each.generation > self.head.generation for each in fronted if each.kind == _VERDICT)

    def move_front(self, file: File, most: int = sys.maxsize) -> int | None:
        """Move the synced frames of a front into the chain, about ``most`` octets of them, without waiting for its process.
        Returns the number of entries; None if the database does not know the front: it is being created, or was
        forgotten."""
        known = self.select("SELECT moved FROM front WHERE name = ?", (file.name,))
        if not known:
            return None
        (_, number), moved = file.progress.written, known[0][0]
        found = synced_frames(file, moved, most)
        if self._has_later(found) or (not found and number > moved):
            file.set_aside(f"frame {moved + 1} cannot be read, or is of a later generation than {self.head.generation}")
            self.execute("DELETE FROM front WHERE name = ?", [(file.name,)])  # or each batch would try it again
            return 0
        self.append_fronted(found)
        self.front_moved(file.name, moved + len(found))
        return len(found)

    def append_fronted(self, fronted: Sequence[Fronted]) -> None:
        """Chain the entries of a front. The process that wrote them has published them. A verdict of an earlier generation was
        written while the gate moved, and is left out: its process leaves the message to the admission."""
        if traced():
            for each in fronted:
                passes("moved", first_of(event_of(each).private, "message_id"))
                passes(each.kind, each.id)
        head, entries, plain, clears = self.head, self.rows("entry"), self.rows(PLAIN_ENTRY), self.rows("clear")
        generation, seq, prev, hashes = head.generation, head.seq, head.hash, self._hashes
        for each in fronted:
            at, kind, id, body = each.at, each.kind, each.id, each.body
            if kind == _VERDICT:
                if each.generation != generation:
                    continue
                self._unwritten[id] = id, each.key, at, each.marks, False, None, None, False
            elif self._unwritten.pop(id, None) is None:
                self._settled[id] = relayed(kind, parsed(body)["data"]), at
            seq += 1
            hash = link(prev, seq, at, kind, id, body)
            row = seq, at, kind, id, body, prev, hash
            if says_only(body, "observed", "[]"):  # nearly all of them; the others are decoded
                plain.append(row)
            else:
                entries.append((*row, *columns_of(kind, id, parsed(body)["data"])))
            hashes.append(hash)
            if each.clear is not None:
                clears.append((seq, each.clear))
            prev = hash
        head.seq, head.hash = seq, prev

    def front_moved(self, name: str, number: int) -> None:
        """Record in this transaction that the front is in the chain up to that frame."""
        self.execute("UPDATE front SET moved = ? WHERE name = ? AND moved < ?", [(number, name, number)])
        self.fronts_moved[name] = number

    def keep_from_fronts(self, digest: bytes) -> None:
        """Leave every message with this digest of a hold key or of a scope of counts to the admission from now on. Call it
        before the commit."""
        if self._page is not None:
            self._page.add(digest)

    def flush(self) -> None:
        """Write the collected rows, so that the caller's own statement sees them."""
        with self._together():
            self._write_rows()
        if self._settled:
            settled, self._settled = self._settled, {}
            outcomes = {id: end for id, (end, _) in settled.items()}
            out = {id: at for id, (end, at) in settled.items() if end is Outcome.DELIVERED}
            self.follower.settle(outcomes)
            known = list(self.among(_SETTLE, list(outcomes)))
            self.follower.record_relayed(
                (n, at, out[id], people, again) for id, n, at, people, again in known if id in out
            )
            if len(known) < len(outcomes):  # the others had been marked as in doubt
                self.follower.end_doubt(out)

    def _write_rows(self) -> None:
        self.rows("underway").extend(self._unwritten.values())
        self._unwritten.clear()
        for table, rows in self._rows.items():
            if rows:
                if table == "moment" and self._page is not None:
                    for scope in {row[0] for row in rows}:
                        self.keep_from_fronts(scope_key(scope))
                self._insert(table, rows)
                rows.clear()

    def finish(self) -> None:
        """Write all that waits, and the row ``head``. Call it as the last step before the commit."""
        self.flush()
        self.follower.write()
        with self._together():
            self._write_rows()
            if self.head != self._was:
                head = self.head
                self.execute(_SET_HEAD, [(head.seq, head.hash, head.generation, head.policy, head.kept_bytes)])


Step = Callable[[Batch], Any]
"""A function that writes in a batch, as a part of its transaction."""
