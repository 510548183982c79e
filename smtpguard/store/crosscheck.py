"""Compare tables beside the journal with its entries: texts of policies, freezes, holds, mailings, and cursors.

The chain proves its entries alone. The pages show tables beside it, which anybody with write access to the database can
edit, so each is compared with the entries that it was made from. It takes a short transaction at a time. The people
that mailings reached are compared in a file, so that memory does not grow with them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import orjson
from sqlalchemy import Connection, func, select

from smtpguard.config.documents import digest
from smtpguard.database.access import Open, Progress, paged
from smtpguard.database.batch import FREEZE, read_head
from smtpguard.database.schema import document, entry, freeze, hold, hook, mailing, reached, terms, underway
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Entry, microseconds
from smtpguard.journal.event import Kind
from smtpguard.journal.proof import Finding
from smtpguard.journal.scan import pages
from smtpguard.locale.phrase import Phrase
from smtpguard.mailings.forgetting import FEW
from smtpguard.mailings.mailingrow import ERASED
from smtpguard.mailings.model import CopyStatus

MOST = 50
"""The most findings: more add nothing."""
_SLICE = 500  # rows in one transaction
_SHA256 = 64  # characters of a digest in hexadecimal


def check(open: Open, progress: Progress | None = None) -> list[Finding]:
    """Return the disagreements, at most MOST. The chain must hold: without it there is nothing to compare with."""
    found = chain(_readers(open), _policies(open), _freezes(open), _holds(open), _mailings(open, progress))
    return list(islice(found, MOST))


def written_by(open: Open, host: str) -> bool:
    """Return whether the guard was started on a host, by the newest entries of starts."""
    with open() as connection:
        starts = journal.of_kinds(connection, [Kind.START], _SLICE)
    return any(one.data.get("host") == host for one, _ in starts)


def _begin(connection: Connection) -> int:
    """Return the time of the first entry if retention has cut the journal, else 0. Rows of that time, and older ones, may have lost
    their entries."""
    first = connection.execute(select(entry.c.seq, entry.c.at).order_by(entry.c.seq).limit(1)).first()
    return int(first.at) if first is not None and first.seq > 1 else 0


def _readers(open: Open) -> Iterator[Finding]:
    """Compare the positions that readers of the journal store with its last entry."""
    with open() as connection:
        last = read_head(connection).seq
        indexed = [int(n) for (n,) in connection.execute(select(terms.c.through))]
        told = connection.execute(select(hook.c.name, hook.c.told)).all()
    if (through := max(indexed, default=0)) > last:
        yield Finding(about="journal", id=str(last), problem=Phrase("the tail is cut: the index of words was written for entries up to {seq}", seq=through))  # fmt: skip
    for name, seq in told:
        if seq > last:
            yield Finding(about="journal", id=str(last), problem=Phrase("the tail is cut: {name} was sent entries up to {seq}", name=name, seq=int(seq)))  # fmt: skip


def _policies(open: Open) -> Iterator[Finding]:
    """Compare each document with the digest that it is stored under, and the policy in force with its entry."""
    with open() as connection:
        names = list(connection.execute(select(document.c.policy).distinct()).scalars())
        head = read_head(connection)
        put = [_named(one) for one, _ in journal.of_kinds(connection, [Kind.POLICY], _SLICE)]
    for name in sorted(names):
        with open() as connection:
            rows = connection.execute(select(document.c.name, document.c.data).where(document.c.policy == name)).all()
        if len(name) == _SHA256 and digest({each: bytes(data) for each, data in rows}) != name:
            yield Finding(about="policy", id=name, problem=Phrase("edited: its text does not fit the SHA-256 that it is kept under"))  # fmt: skip
    for name in sorted(set(put).difference(names)):
        if len(name) == _SHA256:
            yield Finding(about="policy", id=name, problem=Phrase("missing: the journal says that it was in force, and its text is gone"))  # fmt: skip
    if put and put[0] != head.policy and len(put[0]) == _SHA256:
        yield Finding(about="policy", id=head.policy, problem=Phrase("it is in force, and the journal says that {sha256} is", sha256=put[0][:12]))  # fmt: skip


def _named(put: Entry) -> str:
    return str(put.data.get("sha256", put.id))


def _freezes(open: Open) -> Iterator[Finding]:
    """Compare the freezes in force by the gate with those by the entries."""
    with open() as connection:
        begin = _begin(connection)
        rows = connection.execute(select(freeze.c.freeze_id, freeze.c.lifted, freeze.c.doc)).all()
        last = read_head(connection).seq
    in_force: dict[str, bool] = {}
    for page in pages(open, last, journal.of_kind(Kind.FREEZE, Kind.THAW)):
        for one, _ in page:
            in_force[one.id] = one.kind == Kind.FREEZE.value
    known = {id: bool(lifted) for id, lifted, _ in rows}
    for id, lifted, doc in rows:
        at = microseconds(FREEZE.loads(doc).at)
        if id not in in_force and not lifted and at >= begin:
            yield Finding(about="freeze", id=id, problem=Phrase("it is in force, and the journal has no entry of it"))
        elif not lifted and in_force.get(id) is False:
            yield Finding(about="freeze", id=id, problem=Phrase("it is in force, and the journal says that it was thawed"))  # fmt: skip
        elif lifted and in_force.get(id):
            yield Finding(about="freeze", id=id, problem=Phrase("it was lifted, and the journal has no entry of that"))
    for id, is_in_force in in_force.items():
        if is_in_force and id not in known:
            yield Finding(about="freeze", id=id, problem=Phrase("the journal says that it is in force, and the gate does not know it"))  # fmt: skip


def _holds(open: Open) -> Iterator[Finding]:
    """Check that each hold and each verdict in flight has an entry."""
    with open() as connection:
        begin = _begin(connection)
    for id, at, about in (
        (hold.c.hold_id, hold.c.held_at, "hold"),
        (underway.c.id, underway.c.at, "journal"),
    ):
        known = select(entry.c.seq).where(entry.c.id == id).exists()
        for rows in paged(open, select(id, known).where(at > begin), _SLICE, id):
            for one in (one for one, is_known in rows if not is_known):
                yield Finding(about=about, id=one, problem=Phrase("the store knows it, and the journal has no entry of it"))  # fmt: skip


@dataclass(slots=True)
class _EntrySums:
    """The sums of the entries on one mailing, and ``counted``: the number of messages in its row. ``weights``: the numbers of people
    behind lists and other addresses; ``unnamed``: its entries do not name all recipients one by one."""

    n: int
    counted: int
    messages: int = 0
    weights: set[int] = field(default_factory=set)
    unnamed: bool = False


def _mailings(open: Open, progress: Progress | None) -> Iterator[Finding]:
    """Compare mailings with their entries. The tables are read before the journal's head, so that all that a mailing has is in entries
    up to there."""
    with open() as connection:
        begin = _begin(connection)
    told: dict[str, _EntrySums] = {}
    n = -1
    while True:
        columns = select(mailing.c.n, mailing.c.id, mailing.c.people, mailing.c.counts, mailing.c.first_at)
        with open() as connection:
            rows = connection.execute(
                columns.where(mailing.c.n > n, mailing.c.doc != ERASED).order_by(mailing.c.n).limit(_SLICE)
            ).all()
            sums = _sums(connection, [row.n for row in rows])
        for row in rows:
            statuses = _statuses(row.counts)
            if statuses is None:
                yield Finding(about="mailing", id=row.id, problem=Phrase("edited: its counts cannot be read"))
                continue
            yield from _compare_sums(row, statuses, sums.get(row.n, {}))
            if row.people >= FEW and row.first_at > begin:
                told[row.id] = _EntrySums(n=row.n, counted=int(orjson.loads(row.counts).get("messages", 0)))
        if len(rows) < _SLICE:
            break
        n = rows[-1].n
    if told:
        yield from _by_entries(open, told, progress)


def _sums(connection: Connection, numbers: Sequence[int]) -> dict[int, dict[int, int]]:
    """Return, by mailing and status, the number of people that were reached."""
    found: dict[int, dict[int, int]] = {}
    query = select(reached.c.n, reached.c.status, func.sum(reached.c.weight)).where(reached.c.n.in_(numbers))
    for n, status, people in connection.execute(query.group_by(reached.c.n, reached.c.status)):
        found.setdefault(n, {})[int(status)] = int(people)
    return found


def _statuses(counts: Any) -> list[int] | None:
    """Return the number of people in each status; None if the counts cannot be read."""
    try:
        found = [int(n) for n in orjson.loads(counts)["fates"]]
    except (ValueError, KeyError, TypeError):
        return None
    return found + [0] * (len(CopyStatus) - len(found))


def _compare_sums(row: Any, statuses: Sequence[int], sums: Mapping[int, int]) -> Iterator[Finding]:
    """Compare a mailing's counts with the people that it has reached. One transaction writes both."""
    people = {status: sums.get(status, 0) for status in CopyStatus}
    if any(
        statuses[status] != people[status] for status in CopyStatus if status is not CopyStatus.NONE
    ) or row.people != sum(statuses[1:]):
        counted, there = max(sum(statuses[1:]), row.people), sum(people.values()) - people[CopyStatus.NONE]
        yield Finding(about="mailing", id=row.id, problem=Phrase("edited: its counts say {counted} people, and {there} are there", counted=counted, there=there))  # fmt: skip


def _by_entries(open: Open, told: Mapping[str, _EntrySums], progress: Progress | None) -> Iterator[Finding]:
    """Compare the people of mailings, and their numbers of messages, with the verdicts that name them."""
    with closing(sqlite3.connect("")) as found:  # a temporary file, deleted with the connection
        found.execute("PRAGMA journal_mode = OFF")
        found.execute("CREATE TABLE person (n INTEGER, person BLOB, weight INTEGER, known INTEGER DEFAULT 0, PRIMARY KEY (n, person)) WITHOUT ROWID")  # fmt: skip
        for each in told.values():
            people = select(reached.c.person, reached.c.weight).where(reached.c.n == each.n)
            for rows in paged(open, people, _SLICE, reached.c.person):
                found.executemany("INSERT INTO person (n, person, weight) VALUES (?, ?, ?)", [(each.n, *row) for row in rows])  # fmt: skip
        with open() as connection:
            last = read_head(connection).seq
        for page in pages(open, last, journal.VERDICT, entry.c.names.is_not(None)):
            known: list[tuple[int, bytes]] = []
            for one, _ in page:
                _add(one, told, known)
            found.executemany("UPDATE person SET known = 1 WHERE n = ? AND person = ?", known)
            if progress is not None:
                progress(page[-1][0].seq, last)
        for id, each in told.items():
            yield from _compare(open, found, id, each)
    if progress is not None:
        progress(last, last)


def _add(one: Entry, told: Mapping[str, _EntrySums], rows: list[tuple[int, bytes]]) -> None:
    """Add a verdict to the sums of its mailing, and its people to ``rows``."""
    data = json.loads(one.body)["data"]
    each = told.get(data.get("mailing") or "")
    if each is None:
        return
    each.messages += 1
    people = data.get("people")
    if people is None:  # an entry of an earlier version
        each.unnamed = True
        return
    for crowd in (data.get("crowds") or {}).values():
        each.weights.add(int(crowd[1]))
    for person in people:
        if isinstance(person, str):
            rows.append((each.n, bytes.fromhex(person.partition(" ")[0])))
        else:
            each.unnamed |= "behind" in person


def _compare(open: Open, found: sqlite3.Connection, id: str, each: _EntrySums) -> Iterator[Finding]:
    """Compare a mailing with the sums of its entries."""
    with open() as connection:
        if connection.execute(select(mailing.c.n).where(mailing.c.n == each.n)).first() is None:  # deleted meanwhile
            return
    if each.counted > each.messages:
        yield Finding(about="mailing", id=id, problem=Phrase("edited: its counts say {counted} messages, and the journal has {there}", counted=each.counted, there=each.messages))  # fmt: skip
    if each.unnamed:
        return
    weights = found.execute("SELECT DISTINCT weight FROM person WHERE n = ? AND weight <> 1", (each.n,)).fetchall()
    for weight in sorted({int(weight) for (weight,) in weights} - each.weights):
        yield Finding(about="mailing", id=id, problem=Phrase("edited: it counts {people} people behind an address, and no entry says so many", people=weight))  # fmt: skip
    query = "SELECT count(*) FROM person WHERE n = ? AND weight = 1 AND NOT known"
    [unknown] = found.execute(query, (each.n,)).fetchone()
    if unknown and 1 not in each.weights and unknown > _erased(open, id):
        yield Finding(about="mailing", id=id, problem=Phrase("edited: of {people} of its people the journal has no message", people=unknown))  # fmt: skip


def _erased(open: Open, mailing_id: str) -> int:
    """Return how many people of a mailing were erased, by the journal (store.privacy)."""
    found = 0
    with open() as connection:
        last = read_head(connection).seq
    for page in pages(open, last, journal.of_kind(Kind.ERASED)):
        found += sum(int(one.data["mailings"].get(mailing_id, 0)) for one, _ in page if "mailings" in one.data and one.data.get("what") == "person")  # fmt: skip
    return found
