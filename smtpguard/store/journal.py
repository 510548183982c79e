"""The journal at rest: reading its entries in order, and its signed checkpoints in the database and in a file beside it.

Never here: how entries are chained (batch), or what makes a chain good (audit.chain).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, text

from smtpguard.audit.chain import Bad, Clear, Entry, Proof, Seal, verify
from smtpguard.audit.checkpoint import Checkpoint, genuine, parse, sign
from smtpguard.audit.event import Kind
from smtpguard.store.batch import Batch, read_head
from smtpguard.store.schema import RARE, checkpoint, clear, entry

FILE = "checkpoints"
ROWS = select(entry, clear.c.doc).select_from(entry.outerjoin(clear, clear.c.seq == entry.c.seq))
"""Entries with their clear values; each row is a ``pair``."""
_PAGE = 1000
_EVERYDAY = frozenset({Kind.VERDICT, Kind.OUTCOME})


def read(connection: Connection, *, after: int = 0, limit: int | None = None) -> Iterator[tuple[Entry, Clear | None]]:
    """Entries in order with their clear values, a page at a time."""
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        query = ROWS.where(entry.c.seq > after).order_by(entry.c.seq).limit(size)
        rows = connection.execute(query).all()
        for row in rows:
            yield pair(row)
        if len(rows) < size:
            return
        after = rows[-1].seq
        left = None if left is None else left - len(rows)


def of(connection: Connection, id: str) -> list[tuple[Entry, Clear | None]]:
    """What happened to one transaction, hold or freeze, in order."""
    query = ROWS.where(entry.c.id == id).order_by(entry.c.seq)
    return list(map(pair, connection.execute(query)))


def of_kind(*kinds: Kind) -> ColumnElement[bool]:
    """What a query asks for entries of these kinds, by the index of what is rare where they all are."""
    asked = entry.c.kind.in_(sorted(kind.value for kind in kinds))
    return asked if _EVERYDAY.intersection(kinds) else and_(asked, text(f"entry.{RARE}"))


def of_kinds(
    connection: Connection, kinds: Sequence[Kind], limit: int, before: int | None = None
) -> list[tuple[Entry, Clear | None]]:
    """The newest entries of these kinds; those ``before`` one, by its number."""
    query = ROWS.where(of_kind(*kinds)).order_by(entry.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(entry.c.seq < before)
    return list(map(pair, connection.execute(query)))


def outcomes(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """What became of verdicts to relay: the word in each one's outcome, "in-doubt" where nobody can know."""
    kinds = [Kind.OUTCOME.value, Kind.IN_DOUBT.value]
    found: dict[str, str] = {}
    for start in range(0, len(ids), _PAGE):
        some = ids[start : start + _PAGE]
        query = select(entry.c.id, entry.c.kind, entry.c.body).where(entry.c.id.in_(some), entry.c.kind.in_(kinds))
        for id, kind, body in connection.execute(query.order_by(entry.c.seq)):
            if kind == Kind.IN_DOUBT.value:
                found[id] = Kind.IN_DOUBT.value
            elif found.get(id) != Kind.IN_DOUBT.value:
                found[id] = str(json.loads(body)["data"].get("outcome", ""))
    return found


def rejected(connection: Connection, first: str, until: int, limit: int) -> list[tuple[Entry, Clear | None]]:
    """Verdicts to reject from that of ``first`` on, before ``until``; the database looks for them, whatever lies between."""
    query = (
        ROWS.where(
            entry.c.seq >= select(func.min(entry.c.seq)).where(entry.c.id == first).scalar_subquery(),
            entry.c.at < until,
            entry.c.kind == Kind.VERDICT.value,
            entry.c.body.contains('"action":"reject"', autoescape=True),
        )
        .order_by(entry.c.seq)
        .limit(limit)
    )
    return list(map(pair, connection.execute(query)))


def observed(
    connection: Connection, since: int, until: int, limit: int
) -> tuple[int, list[tuple[Entry, Clear | None]]]:
    """How many verdicts there were in that time, and those in which a rule only observed; the newest first."""
    first, end = first_at(connection, since), first_at(connection, until)
    verdicts = (entry.c.seq >= first, entry.c.seq < end, entry.c.kind == Kind.VERDICT.value)
    judged = connection.execute(select(func.count()).select_from(entry).where(*verdicts)).scalar_one()
    query = (
        ROWS.where(*verdicts, ~entry.c.body.contains('"observed":[]', autoescape=True))
        .where(entry.c.body.contains('"observed":[', autoescape=True))
        .order_by(entry.c.seq.desc())
        .limit(limit)
    )
    return judged, list(map(pair, connection.execute(query)))


def first_at(connection: Connection, at: int) -> int:
    """The first entry at that time or later, by halves: entries are in order of time, and have no index of it."""
    low, high = connection.execute(select(func.min(entry.c.seq), func.max(entry.c.seq))).one()
    if low is None:
        return 0
    high += 1
    while low < high:
        middle = (low + high) // 2
        if connection.execute(select(entry.c.at).where(entry.c.seq == middle)).scalar_one() < at:
            low = middle + 1
        else:
            high = middle
    return int(low)


def pair(row: Any) -> tuple[Entry, Clear | None]:
    return _entry_of(row), None if row.doc is None else json.loads(row.doc)


def _entry_of(row: object) -> Entry:
    return Entry(
        seq=row.seq,  # type: ignore[attr-defined]
        at=row.at,  # type: ignore[attr-defined]
        kind=row.kind,  # type: ignore[attr-defined]
        id=row.id,  # type: ignore[attr-defined]
        body=row.body,  # type: ignore[attr-defined]
        prev=bytes(row.prev),  # type: ignore[attr-defined]
        hash=bytes(row.hash),  # type: ignore[attr-defined]
    )


def mark(batch: Batch, *, base: Checkpoint | None = None) -> Checkpoint | None:
    """Sign where the chain is now (or ``base``); the line goes to the file after the commit. None where nothing is new."""
    made = base or Checkpoint(journal=batch.head.journal, seq=batch.head.seq, at=batch.now_us, hash=batch.head.hash)
    if made.seq == 0:
        return None
    known = batch.connection.execute(select(checkpoint.c.line).where(checkpoint.c.seq == made.seq)).scalar()
    if known is not None and not made.base:
        return None
    made = sign(batch.secret, made)
    batch.connection.execute(checkpoint.delete().where(checkpoint.c.seq == made.seq))
    batch.connection.execute(insert(checkpoint).values(seq=made.seq, line=made.line()))
    batch.signed.append(made)
    return made


def write_line(state_dir: Path, made: Checkpoint) -> None:
    """Append it to the file: one write, so that processes do not mix their lines."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(state_dir / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, (made.line() + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The checkpoints of a journal, and the first that is not what it says."""

    genuine: Sequence[Checkpoint]
    bad: Bad | None


def lines_of(state_dir: Path) -> list[str]:
    """The checkpoints in the file. To be read before the snapshot that they are compared with, since a line is written only
    after its entries are committed."""
    path = state_dir / FILE
    if not path.exists():
        return []
    return [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]


def marks(connection: Connection, secret: bytes, journal: str, lines: Sequence[str]) -> Marks:
    rows = connection.execute(select(checkpoint.c.line)).scalars()
    found: dict[int, Checkpoint] = {}
    bad: Bad | None = None
    for line, where in [(line, "the database") for line in rows] + [(line, "the file") for line in lines]:
        try:
            made = parse(line)
        except ValueError:
            bad = bad or Bad(seq=0, problem=f"a checkpoint in {where} cannot be read")
            continue
        if not genuine(secret, made):
            bad = bad or Bad(seq=made.seq, problem=f"a checkpoint in {where} was not signed here")
        elif made.journal != journal:
            bad = bad or Bad(seq=made.seq, problem="the journal was replaced: a checkpoint knows another one")
        elif made.seq in found and found[made.seq].hash != made.hash:
            bad = bad or Bad(
                seq=made.seq, problem="two checkpoints disagree: the journal was recomputed, or restored and gone on"
            )
        elif made.seq not in found or made.base:
            found[made.seq] = made
    return Marks(genuine=[found[seq] for seq in sorted(found)], bad=bad)


def erased_through(connection: Connection) -> int:
    """Up to which entry retention says it has erased the clear values. Believed only if the chain holds."""
    query = select(entry.c.body).where(of_kind(Kind.ERASED)).order_by(entry.c.seq.desc())
    return max(
        (int(json.loads(b)["data"].get("private_through", 0)) for b in connection.execute(query).scalars()), default=0
    )


def prove(
    connection: Connection, secret: bytes, lines: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> Proof:
    """Walk over the whole journal and compare it with its checkpoints. ``progress`` hears how many of how many."""
    head = read_head(connection)
    known = marks(connection, secret, head.journal, lines)

    def told() -> Iterator[tuple[Entry, Clear | None]]:
        for n, pair in enumerate(read(connection), 1):
            if progress is not None and n % _PAGE == 0:
                progress(n, head.seq)
            yield pair

    proof = verify(told(), known.genuine, Seal(secret, head.journal), erased_through=erased_through(connection))
    if proof.ok and known.bad is not None:
        return Proof(entries=proof.entries, first_bad=known.bad)
    return proof
