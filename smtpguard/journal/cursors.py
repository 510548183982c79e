"""The cursors of what follows the journal: webhooks, the witness of checkpoints, the log of what people do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, update

from smtpguard.database.batch import Batch, read_head
from smtpguard.database.schema import hook as table
from smtpguard.database.statements import rows_of
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Cursor, News, instant_or_none, microseconds, microseconds_or_0
from smtpguard.journal.event import Event, Kind

STRETCH = 50_000
"""The most entries that one read searches."""
# SQL past SQLAlchemy, since they run every second at rest
_FIND = "SELECT told, attempts, failing_since, next_at, lease FROM hook WHERE name = ?"
_NEWS = """(entry.kind <> 'verdict' OR entry.action = 'hold') AND entry.seq > ? AND entry.seq <= ?
 ORDER BY entry.seq LIMIT ?"""


def find(connection: Connection, name: str) -> Cursor | None:
    """Return the cursor of this name."""
    found = rows_of(connection, _FIND, (name,))
    if not found:
        return None
    told, attempts, failing_since, next_at, lease = found[0]
    return Cursor(
        told=told,
        attempts=attempts,
        failing_since=instant_or_none(failing_since),
        next_at=instant_or_none(next_at),
        lease=lease,
    )


def begin(batch: Batch, name: str, after: int | None) -> Cursor:
    """Create a cursor after entry ``after``, None for the newest; or return the one that another process has created."""
    found = find(batch.connection, name)
    if found is not None:
        return found
    told = batch.head.seq if after is None else after
    values = {"told": told, "attempts": 0, "failing_since": 0, "next_at": 0, "leased_until": 0, "lease": 0}
    batch.connection.execute(insert(table).values(name=name, **values))
    return Cursor(told=told)


def news(connection: Connection, after: int, kinds: Sequence[Kind], limit: int) -> News:
    """Return up to ``limit`` entries of these kinds after entry ``after``; of verdicts only those that hold, since the others are too
    many. It searches at most a stretch: a long read would delay mail, and never end."""
    end = read_head(connection).seq
    looked = min(end, after + STRETCH)
    sql = f"{journal.IN_SQL} WHERE {journal.which(*kinds)} AND {_NEWS}"
    found = list(map(journal.pair, rows_of(connection, sql, (after, looked, limit))))
    return News(entries=found, through=found[-1][0].seq if len(found) == limit else max(looked, after), end=end)


def pass_over(batch: Batch, name: str, place: Cursor, through: int) -> bool:
    """Move a cursor to ``through``: nothing up to there is to be sent. Returns False if it is leased, or was since ``place`` was read."""
    free = (table.c.name == name, table.c.lease == place.lease, table.c.leased_until <= batch.now_us)
    moved = update(table).where(*free).values(told=through, attempts=0, failing_since=0, next_at=0)
    return bool(batch.connection.execute(moved).rowcount)


def lease(batch: Batch, name: str, place: Cursor, until: datetime) -> Cursor | None:
    """Lease a cursor, and return it; None if another process has it, or has moved it since ``place`` was read."""
    free = (table.c.name == name, table.c.told == place.told, table.c.leased_until <= batch.now_us)
    taken = update(table).where(*free).values(leased_until=microseconds(until), lease=table.c.lease + 1)
    return find(batch.connection, name) if batch.connection.execute(taken).rowcount else None


def settle(
    batch: Batch, name: str, place: Cursor, events: Sequence[Event] = (), *, keep_until: datetime | None = None
) -> bool:
    """Write the new place with its events, and release the lease, or keep it until ``keep_until``. Returns False if the lease was
    lost, and then nothing is written."""
    moved = (
        update(table)
        .where(table.c.name == name, table.c.lease == place.lease)
        .values(
            told=place.told,
            attempts=place.attempts,
            failing_since=microseconds_or_0(place.failing_since),
            next_at=microseconds_or_0(place.next_at),
            leased_until=microseconds_or_0(keep_until),
        )
    )
    if not batch.connection.execute(moved).rowcount:
        return False
    batch.record(events)
    return True
