"""One open write transaction: what was read at its start, and what will be written at its end.

Journal entries and other frequent rows are collected and written by a few statements with many rows. An item sees what
earlier items of the batch did, since it asks here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import orjson
from sqlalchemy import Connection, Table, update

from smtpguard.database import schema
from smtpguard.database.engine import among, array_of, cursor_of, rows_of
from smtpguard.database.errors import Unavailable
from smtpguard.database.failpoint import passes, traced
from smtpguard.database.fronts import File, Fronts, Shared, is_locked, scope_key
from smtpguard.journal import bypass
from smtpguard.journal.bypass import Bypasses
from smtpguard.journal.chain import Seal, body_of, clear_of, columns_of, link, microseconds, parsed, says_only
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import FIRST, Fronted, Tail, event_of, follows, head_of, tail
from smtpguard.journal.front import Head as Front
from smtpguard.journal.merkle import Recent
from smtpguard.journal.outcome import Outcome, relayed
from smtpguard.mail.codec import Codec
from smtpguard.policy.freezing import Freeze, Gate

Row = Sequence[Any]
FREEZE = Codec(Freeze)
_VERDICT = Kind.VERDICT.value
_HEAD = "SELECT journal, seq, hash, generation, policy, kept_bytes FROM head"
_BEGUN = f"SELECT EXISTS (SELECT 1 FROM front), (SELECT version_num FROM alembic_version), h.* FROM ({_HEAD}) AS h"
_SET_HEAD = "UPDATE head SET seq = ?, hash = ?, generation = ?, policy = ?, kept_bytes = ?"
_ARRIVED = "DELETE FROM underway WHERE id {} AND NOT doubt RETURNING id, mailing, at, people, again"
_ROWS = (128, 64, 32, *range(16, 0, -1))  # in one INSERT
_TYPES = {
    "BigInteger": "bigint",
    "Integer": "integer",
    "SmallInteger": "smallint",
    "Text": "text",
    "LargeBinary": "bytea",
    "Boolean": "boolean",
}
_FREEZES = 'SELECT doc FROM "freeze" WHERE NOT lifted ORDER BY freeze_id'


@dataclass(slots=True, kw_only=True)
class Head:
    """The gate, the last entry of the chain, and the size of kept content. A batch changes its own copy, and writes it
    at its end."""

    journal: str
    seq: int
    hash: bytes
    generation: int
    policy: str
    kept_bytes: int


class _Insert:
    """The INSERT of a table. ``rows``: statements by number of rows, largest first; ``arrays``: the statement with one
    array for each column."""

    def __init__(self, table: Table, number: int | None = None) -> None:
        """``number``: of its first columns, if the others are NULL."""
        columns = list(table.columns)[:number]
        row, end = f"({', '.join('?' * len(columns))})", _CONFLICTS.get(table.name, "")
        named = ", ".join(f'"{c.name}"' for c in columns)
        into = f'INSERT INTO "{table.name}" ({named})'
        self.rows = [(n, f"{into} VALUES {', '.join([row] * n)} {end}") for n in _ROWS]
        self.types = [_TYPES[type(c.type).__name__] for c in columns]
        self.arrays = f"{into} SELECT * FROM unnest({', '.join(f'%s::{kind}[]' for kind in self.types)}) {end}"


def read_head(connection: Connection) -> Head:
    """Raises Unavailable."""
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


def synced(file: File, moved: int, most: int = sys.maxsize) -> Sequence[Fronted]:
    """The synced frames of a front after number ``moved``; the first of them, if they have more than ``most`` octets,
    which are enough for any one. Raises OSError."""
    for start, frames in file.synced(most):
        found, size = follows(frames, moved)
        if found:
            file.at = start + size
            return found
    return ()


@lru_cache(maxsize=1)
def _seal(secret: bytes, journal: str) -> Seal:
    """That of the last batch, usually."""
    return Seal(secret, journal, remembers=True)


class Follower(Protocol):
    """What changes in other rows when outcomes are journalled: those of mailings (mailings.mailingbatch)."""

    def settle(self, outcomes: Mapping[str, Outcome | None]) -> None:
        """The outcomes of verdicts to relay, by transaction, before their rows in underway are deleted."""

    def record_relayed(self, relayed: Iterable[tuple[int | None, int, int, bytes | None, bool]]) -> None:
        """Relayed verdicts: mailing, time decided, time sent, digests of the people, and whether other copies are in
        doubt."""

    def part(self, hold_id: str, at: int, *, arrived: bool) -> None:
        """The outcome of the part of a held message that its MTA passes on itself."""

    def doubt(self, ids: Sequence[str]) -> None:
        """The outcome of these verdicts to relay is unknown."""

    def doubt_ended(self, out: Mapping[str, int]) -> None:
        """Verdicts that were in doubt and have been relayed, with the time."""

    def write(self) -> None:
        """Write what has changed, at the end of the batch."""


class Batch:
    """Made by the writer for each transaction. ``changed``: values read ahead (duplicates, counts) must be read again."""

    def __init__(
        self,
        connection: Connection,
        *,
        now: datetime,
        secret: bytes,
        sqlite: bool,
        known: Gate | None,
        follow: Callable[[Batch], Follower],
        fronts: Fronts | None,
        bypasses: Bypasses | None,
        recent: Recent | None,
    ) -> None:
        self.connection = connection
        self._cursor = cursor_of(connection)
        self._sqlite = sqlite
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
        self._recent = recent or Recent()  # hashes of the entries before
        self._hashes = list[bytes]()  # of those of this batch
        self._fronts, self._ends = fronts, False
        self.fronts_moved: dict[str, int] = {}
        """The last number moved by the name of a front, to be told after the commit."""
        self._bypasses, self._taken = bypasses, set[str]()  # what this batch has taken from them
        self._page: Shared | None = None
        if fronted:
            self.open_page()
        self.seal = _seal(secret, self.head.journal)
        if known is not None and known.generation == self.head.generation:
            self.freezes = known.freezes
        else:
            self.freezes = read_freezes(connection)
        self._rows: dict[str, list[Row]] = {}
        self._settled: dict[str, tuple[Outcome | None, int]] = {}  # by transaction, with the time
        self._unwritten: dict[str, Row] = {}
        """Rows of underway for verdicts of fronts. Most are never written: their outcome comes in the same batch. They
        are of no mailing, so nothing else follows from it."""
        self.follower = follow(self)
        """Updates the rows that follow from these entries, which the batch does not know."""
        self.signed: list[Checkpoint] = []
        """Checkpoints of this batch, whose lines go to the file after the commit."""
        self.events: list[Event] = []
        """Events journalled in this batch, for subscribers after the commit."""

    def select(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Any]:
        """Bypass SQLAlchemy on the hot path: preparing these few statements there would take longer than a whole small
        batch. ``?`` is a placeholder on both engines."""
        self._cursor.execute(sql if self._sqlite else sql.replace("?", "%s"), values)
        rows: Sequence[Any] = self._cursor.fetchall()
        return rows

    def among(self, sql: str, values: Sequence[Any], first: Sequence[Any] = ()) -> Iterator[Row]:
        """The rows in which a column has one of these values (engine.among)."""
        for statement in among(sql, values, first, sqlite=self._sqlite):
            yield from self.select(*statement)

    def execute(self, sql: str, rows: Sequence[Row]) -> None:
        if not self._sqlite:
            sql = sql.replace("?", "%s")
        if len(rows) == 1:
            self._cursor.execute(sql, rows[0])
        elif rows:
            self._cursor.executemany(sql, rows)

    def deleted(self, sql: str, values: Row) -> int:
        """Execute it; returns how many rows it deleted."""
        self.execute(sql, [values])
        return int(self._cursor.rowcount)

    def execute_with(self, sql: str, rows: Sequence[Sequence[int]]) -> None:
        """Execute once for all rows, which are numbers: ``{}`` is a table of them, with columns c0, c1 and so on."""
        columns = range(len(rows[0]))
        if self._sqlite:
            named = ", ".join(f"json_extract(value, '$[{n}]') AS c{n}" for n in columns)
            self._cursor.execute(
                sql.format(f"(SELECT {named} FROM json_each(?)) AS given"), (orjson.dumps(rows).decode(),)
            )
            return
        named, arrays = ", ".join(f"c{n}" for n in columns), ", ".join(["%s::bigint[]"] * len(columns))
        told = [array_of("bigint", column) for column in zip(*rows, strict=True)]
        self._cursor.execute(sql.format(f"unnest({arrays}) AS given({named})"), told)

    def _insert(self, table: str, rows: Sequence[Row]) -> None:
        """Insert many rows in one statement: around each statement the thread releases the interpreter's lock, and
        waits for it while the event loop is busy. PostgreSQL gets an array for each column. SQLite gets statements of a
        few fixed sizes, so that few are prepared."""
        insert = _INSERTS[table]
        if not self._sqlite:
            columns = zip(*rows, strict=True)
            arrays = [array_of(kind, column) for kind, column in zip(insert.types, columns, strict=True)]
            self._cursor.execute(insert.arrays, arrays)
            return
        start = 0
        for size, sql in insert.rows:
            while len(rows) - start >= size:
                self._cursor.execute(sql, [*chain.from_iterable(rows[start : start + size])])
                start += size

    @property
    def gate(self) -> Gate:
        return Gate(generation=self.head.generation, policy_sha256=self.head.policy, freezes=self.freezes)

    def sealed(self, events: Sequence[Event]) -> list[tuple[Event, str, str | None]]:
        """The events with body and clear values as they will be written. Raises TypeError or ValueError for a value
        that JSON cannot have.

        Separate from ``append``, so that a bad event is found before anything of its item is written.
        """
        return [(e, body_of(e, self.seal), clear_of(e)) for e in events]

    def append(self, sealed: Iterable[tuple[Event, str, str | None]]) -> None:
        """Chain events. An outcome removes its verdict from underway; a doubt leaves it there and marks it."""
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
            head.seq, head.hash = seq, hash  # what follows from it may append too
            if clear is not None:
                clears.append((seq, clear))
            if event.kind is Kind.OUTCOME and event.data.get("part"):
                self.flush()
                self.follower.part(event.id, at, arrived=relayed(kind, event.data) is Outcome.DELIVERED)
            elif event.kind is Kind.OUTCOME:
                if self._unwritten.pop(event.id, None) is None:
                    self._settled[event.id] = relayed(kind, event.data), at
            elif event.kind is Kind.IN_DOUBT:
                self.flush()
                self.follower.doubt([event.id])
                self.connection.execute(
                    update(schema.underway).where(schema.underway.c.id == event.id).values(doubt=True, marks="")
                )

    def record(self, events: Sequence[Event]) -> None:
        self.append(self.sealed(events))

    @property
    def grew(self) -> bool:
        """Whether this batch has written journal entries."""
        return self.head.seq != self._was.seq

    @property
    def recent(self) -> Recent:
        """The hashes of the newest entries, with those of this batch."""
        return self._recent.followed(self.head.seq, self._was.hash, self._hashes)

    def keep_recent(self) -> None:
        """After the commit: from now on the process knows the hashes of this batch."""
        self._recent.follow(self.head.seq, self._was.hash, self._hashes)

    def rows(self, table: str) -> list[Row]:
        """The rows of that table that wait to be written; append to it."""
        return self._rows.setdefault(table, [])

    def open_page(self) -> Shared | None:
        """The page of the fronts, which this batch updates from now on. While the database has no front, no process
        reads the page."""
        if self._fronts is not None:
            self._page = self._fronts.shared
            if self._page.generation != self.head.generation:
                self._page.generation = self.head.generation  # nothing else moves the gate during this transaction
        return self._page

    def ends_generation(self, event: Event) -> Event:
        """Call before the entry that moves the gate is written: from here on no front takes a verdict that was decided
        earlier, and all their verdicts are in the chain. Returns the event with the generation that it begins."""
        generation = self.head.generation + 1
        if self._page is not None:
            self._page.generation = generation
        if self._bypasses is not None:
            self._bypasses.begins_generation(generation)
        self.take_fronts()
        self._ends = True
        return replace(event, data={**event.data, "gate": generation})

    def take_fronts(self) -> int:
        """Move the entries of all fronts into the chain, and remove fronts of ended processes once that is committed.
        Returns the number of entries."""
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
        if file.lives:
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
        """Those that are not in the chain."""
        there = {tuple(row) for row in self.among("SELECT kind, id FROM entry WHERE id {}", [f.id for f in fronted])}
        return [f for f in fronted if (f.kind, f.id) not in there]

    def _foreign(self, front: Front | None, found: Tail) -> str:
        """Why a front is of an earlier or another state of this journal; "" if it fits."""
        if front is None:
            return "its head cannot be read"
        if front.journal != self.head.journal:
            return f"it is of the journal {front.journal}"
        there = self.select("SELECT hash FROM entry WHERE seq = ?", (front.seq,))
        if front.seq > self.head.seq or (there and bytes(there[0][0]).hex() != front.hash):
            return f"its journal had another entry {front.seq}"
        if self._is_ahead(found.fronted):
            return f"it was decided under another generation than {self.head.generation}"
        return found.problem if not found.fronted else ""

    def _take_bypasses(self) -> int:
        """Move what bypasses of this host recorded into the chain: that each began, its verdicts and outcomes, and that it
        ended. What is there already is found by its id, so that each line enters the chain once."""
        if self._bypasses is None or not self._bypasses.waits:
            return 0
        self.flush()
        fronts = [
            (path, *found) for path in self._bypasses.fronts() if (found := self._read_bypassed(path)) is not None
        ]
        known = {found.bypass.id: found.bypass for _, found, _ in fronts} | {
            each.id: each for each in self._bypasses.all()
        }
        changes = {id: self._changes(id) for id in known}
        self.record([each.begun(self.now) for id, each in known.items() if "begun" not in changes[id]])
        taken = sum(self._take_bypassed(path, found, written=written) for path, found, written in fronts)
        left = {found.bypass.id for path, found, _ in fronts if path.exists()}
        for id, each in known.items():
            if not each.is_over(self.now):
                continue
            if "ended" not in changes[id]:
                self._taken.add(id)
                self.record([each.over(self.now)])
            elif not left & {id} and id not in self._taken:
                self._bypasses.remove(each)
        self.flush()
        return taken

    def _changes(self, id: str) -> set[str]:
        found = self.select("SELECT body FROM entry WHERE id = ? AND kind = ?", (id, Kind.BYPASS.value))
        return {parsed(body)["data"]["change"] for (body,) in found}

    def _read_bypassed(self, path: Path) -> tuple[bypass.Read, bool] | None:
        """The front, and whether its process may still write it. None if it is not of this journal, or is gone."""
        try:
            written = is_locked(path)  # asked before reading: later nothing more is written
            found = bypass.read(path)
        except FileNotFoundError:  # another process has removed it
            return None
        if found is not None and found.journal == self.head.journal:
            return found, written
        if found is not None or not written:
            bypass.set_aside(path, f"it is of the journal {found.journal}" if found else "its head cannot be read")
        return None

    def _take_bypassed(self, path: Path, found: bypass.Read, *, written: bool) -> int:
        there = set(self.among("SELECT kind, id FROM entry WHERE id {}", [line.id for line in found.lines]))
        new = [line for line in found.lines if (line.kind, line.id) not in there]
        if not new:
            if not written and path.name not in self._taken:  # in an earlier commit all of it was moved
                bypass.removed(path, damaged=found.damaged)
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

    def _is_ahead(self, fronted: Sequence[Fronted]) -> bool:
        return any(each.generation > self.head.generation for each in fronted if each.kind == _VERDICT)

    def move_front(self, file: File, most: int = sys.maxsize) -> int | None:
        """Move what is synced in a front, about ``most`` octets of it, without waiting for its process. Returns the
        number of entries; None if the database does not know the front, since it is being created, or was forgotten."""
        known = self.select("SELECT moved FROM front WHERE name = ?", (file.name,))
        if not known:
            return None
        (_, number), moved = file.progress.written, known[0][0]
        found = synced(file, moved, most)
        if self._is_ahead(found) or (not found and number > moved):
            file.set_aside(f"frame {moved + 1} cannot be read, or is of a later generation than {self.head.generation}")
            self.execute("DELETE FROM front WHERE name = ?", [(file.name,)])  # else each batch would try it again
            return 0
        self.append_fronted(found)
        self.front_moved(file.name, moved + len(found))
        return len(found)

    def append_fronted(self, fronted: Sequence[Fronted]) -> None:
        """Chain the entries of a front. The process that wrote them has told its subscribers. A verdict of an earlier
        generation was written while the gate moved, and is not in force: its process leaves it to the admission."""
        if traced():
            for each in fronted:
                passes("moved", next(iter(event_of(each).private.get("message_id", ())), ""))
                passes(each.kind, each.id)
        head, entries, plain, clears = self.head, self.rows("entry"), self.rows(_PLAIN), self.rows("clear")
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
            if says_only(body, "observed", "[]"):  # else decoded, as seldom happens
                plain.append(row)
            else:
                entries.append((*row, *columns_of(kind, id, parsed(body)["data"])))
            hashes.append(hash)
            if each.clear is not None:
                clears.append((seq, each.clear))
            prev = hash
        head.seq, head.hash = seq, prev

    def front_moved(self, name: str, number: int) -> None:
        """Record that the front is in the chain up to that frame, with this commit."""
        self.execute("UPDATE front SET moved = ? WHERE name = ? AND moved < ?", [(number, name, number)])
        self.fronts_moved[name] = number

    def keep_from_fronts(self, digest: bytes) -> None:
        """Call before the commit: from now on only the admission decides on a hold key or a scope of counts with this
        digest."""
        if self._page is not None:
            self._page.add(digest)

    def moved(self, *, policy: str | None = None) -> Gate:
        """Move the gate: every process must read it again."""
        if not self._ends:
            raise RuntimeError("the gate changed before its previous generation was closed")
        self._ends = False
        self.flush()
        self.head.generation += 1
        if policy is not None:
            self.head.policy = policy
        self.freezes = read_freezes(self.connection)
        return self.gate

    def flush(self) -> None:
        """Write the collected rows, so that the caller's own statement sees them."""
        with self._together():
            self._write_rows()
        if self._settled:
            settled, self._settled = self._settled, {}
            outcomes = {id: end for id, (end, _) in settled.items()}
            out = {id: at for id, (end, at) in settled.items() if end is Outcome.DELIVERED}
            self.follower.settle(outcomes)
            known = list(self.among(_ARRIVED, list(outcomes)))
            self.follower.record_relayed(
                (n, at, out[id], people, again) for id, n, at, people, again in known if id in out
            )
            if len(known) < len(outcomes):  # the others had been marked as in doubt
                self.follower.doubt_ended(out)

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
        self.flush()
        self.follower.write()
        with self._together():
            self._write_rows()
            if self.head != self._was:
                head = self.head
                self.execute(_SET_HEAD, [(head.seq, head.hash, head.generation, head.policy, head.kept_bytes)])

    def _together(self) -> AbstractContextManager[Any]:
        """Send the statements inside to PostgreSQL together, with one round trip: an error is raised at the end."""
        driver: Any = self.connection.connection.driver_connection
        return nullcontext() if self._sqlite else driver.pipeline()


Step = Callable[[Batch], Any]

_CONFLICTS: Mapping[str, str] = {
    "person": "ON CONFLICT (person) DO UPDATE SET due = excluded.due, doc = excluded.doc, weights = excluded.weights",
    "again": "ON CONFLICT (content) DO UPDATE SET due = excluded.due, doc = excluded.doc",
    "sent": "ON CONFLICT (message) DO UPDATE SET due = excluded.due, doc = excluded.doc",
    "moment": "ON CONFLICT (scope, at) DO UPDATE SET n = moment.n + excluded.n, weight = moment.weight + excluded.weight,"
    " until = CASE WHEN excluded.until > moment.until THEN excluded.until ELSE moment.until END",
    "reset": "ON CONFLICT (scope) DO UPDATE SET at = excluded.at",
    "swept": "ON CONFLICT (one) DO UPDATE SET at = excluded.at, part = excluded.part",
    "tally": "ON CONFLICT (scope, seconds) DO UPDATE SET floor = excluded.floor, total = excluded.total,"
    " made = excluded.made",
    "contact_since": "ON CONFLICT (one) DO NOTHING",
    "underway": "ON CONFLICT (id) DO NOTHING",
    "mailing": "ON CONFLICT (n) DO UPDATE SET last_at = excluded.last_at, state = excluded.state,"
    " people = excluded.people, counts = excluded.counts, doc = excluded.doc,"
    " went_first = excluded.went_first, went_last = excluded.went_last",
    "mailing_key": "ON CONFLICT (key, n) DO NOTHING",
    "reached": "ON CONFLICT (n, person) DO UPDATE SET at = excluded.at, kind = excluded.kind,"
    " fate = excluded.fate, content = excluded.content, went = excluded.went",
    "outbox": "ON CONFLICT (intent_id) DO NOTHING",
    "delivery": "ON CONFLICT (intent_id, n) DO NOTHING",
    "chunk": "ON CONFLICT (sha256, n) DO NOTHING",
    "term": "ON CONFLICT (stretch, word, seq) DO NOTHING",
}
_PLAIN = "entry without columns"
_INSERTS = {name: _Insert(table) for name, table in schema.metadata.tables.items()} | {_PLAIN: _Insert(schema.entry, 7)}
