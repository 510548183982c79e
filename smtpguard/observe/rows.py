"""What observers keep as rows: the cursors of webhooks and of other readers of the journal, and the installation's alarms
that were sent and are not over (observe.rounds.Memory)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from smtpguard.database.access import Rows, asks, writes
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.engine import rows_of
from smtpguard.database.schema import alarm
from smtpguard.database.schema import hook as table
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry, instant, microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.observe.alarms import RaisedAlarm

STRETCH = 50_000
"""Entries that are searched at once."""
# In SQL, since they are asked every second at rest:
_FIND = "SELECT told, attempts, failing_since, next_at, lease FROM hook WHERE name = ?"
_NEWS = """(entry.kind <> 'verdict' OR entry.action = 'hold') AND entry.seq > ? AND entry.seq <= ?
 ORDER BY entry.seq LIMIT ?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """``told``: the last entry that was accepted, or skipped. ``attempts`` at the next one, failing since
    ``failing_since``, to be repeated at ``next_at``. ``lease``: fences off a process that was too slow."""

    told: int
    attempts: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """``entries`` of the wanted kinds, in order: all up to entry ``through``. ``end``: the journal's last entry."""

    entries: Sequence[tuple[Entry, Clear | None]]
    through: int
    end: int


def _find(connection: Connection, name: str) -> Cursor | None:
    found = rows_of(connection, _FIND, (name,))
    if not found:
        return None
    told, attempts, failing_since, next_at, lease = found[0]
    return Cursor(
        told=told,
        attempts=attempts,
        failing_since=instant(failing_since) if failing_since else None,
        next_at=instant(next_at) if next_at else None,
        lease=lease,
    )


def _begin(batch: Batch, name: str, begin: int | None) -> Cursor:
    """If another process was faster, its cursor."""
    found = _find(batch.connection, name)
    if found is not None:
        return found
    told = batch.head.seq if begin is None else begin
    values = {"told": told, "attempts": 0, "failing_since": 0, "next_at": 0, "leased_until": 0, "lease": 0}
    batch.connection.execute(insert(table).values(name=name, **values))
    return Cursor(told=told)


def _news(connection: Connection, after: int, kinds: Sequence[Kind], limit: int) -> News:
    """Entries after that one. Only verdicts that hold, since the others are too many. At most a stretch at once: a long read would delay mail,
    and never end."""
    end = read_head(connection).seq
    looked = min(end, after + STRETCH)
    sql = f"{journal.IN_SQL} WHERE {journal.which(*kinds)} AND {_NEWS}"
    found = list(map(journal.pair, rows_of(connection, sql, (after, looked, limit))))
    return News(entries=found, through=found[-1][0].seq if len(found) == limit else max(looked, after), end=end)


def _pass_over(batch: Batch, name: str, place: Cursor, through: int) -> bool:
    """Move it to ``through``: nothing up to there is to be sent. False: it is leased, or was since ``place``."""
    free = (table.c.name == name, table.c.lease == place.lease, table.c.leased_until <= batch.now_us)
    moved = update(table).where(*free).values(told=through, attempts=0, failing_since=0, next_at=0)
    return bool(batch.connection.execute(moved).rowcount)


def _lease(batch: Batch, name: str, place: Cursor, until: datetime) -> Cursor | None:
    """None if another process has it, or has moved it since ``place`` was read."""
    free = (table.c.name == name, table.c.told == place.told, table.c.leased_until <= batch.now_us)
    taken = update(table).where(*free).values(leased_until=microseconds(until), lease=table.c.lease + 1)
    return _find(batch.connection, name) if batch.connection.execute(taken).rowcount else None


def _settle(
    batch: Batch, name: str, place: Cursor, events: Sequence[Event] = (), *, keep_until: datetime | None = None
) -> bool:
    """Write the new place with its events, and release the lease, or keep it until then. False: the lease was lost,
    nothing was written."""
    moved = (
        update(table)
        .where(table.c.name == name, table.c.lease == place.lease)
        .values(
            told=place.told,
            attempts=place.attempts,
            failing_since=_us(place.failing_since),
            next_at=_us(place.next_at),
            leased_until=_us(keep_until),
        )
    )
    if not batch.connection.execute(moved).rowcount:
        return False
    batch.record(events)
    return True


class Cursors(Rows):
    news = asks(_news)
    history = asks(journal.of)
    pass_over = writes(_pass_over, synced=False)  # if power fails, the same entries are passed over again
    lease = writes(_lease)
    settle = writes(_settle)

    async def at(self, name: str, begin: int | None = None) -> Cursor:
        """``begin``: where a new cursor starts; else at the journal's end."""
        found = await self._access.ask(lambda c: _find(c, name))
        return found if found is not None else await self._access.write(lambda batch: _begin(batch, name, begin))


def _known(connection: Connection) -> dict[str, RaisedAlarm]:
    rows = rows_of(connection, "SELECT key, began, told, claimed_until, taken_by, taken_at FROM alarm")
    return {row[0]: _read(*row) for row in rows}


def _swap(batch: Batch, before: RaisedAlarm | None, after: RaisedAlarm | None) -> bool:
    """Writers are serial, so the row that is read here is the row that is overwritten."""
    connection = batch.connection
    given = before or after
    assert given is not None
    here = alarm.c.key == given.key
    row = connection.execute(select(alarm).where(here)).one_or_none()
    if (_read(*row) if row is not None else None) != before:
        return False
    connection.execute(delete(alarm).where(here))
    if after is not None:
        connection.execute(insert(alarm).values(_row(after)))
    return True


def _row(known: RaisedAlarm) -> dict[str, int | str]:
    return {
        "key": known.key,
        "began": microseconds(known.began),
        "told": _us(known.told),
        "claimed_until": _us(known.claimed_until),
        "taken_by": known.taken_by,
        "taken_at": _us(known.taken_at),
    }


def _read(key: str, began: int, told: int, claimed_until: int, taken_by: str, taken_at: int) -> RaisedAlarm:
    return RaisedAlarm(
        key=key,
        began=instant(began),
        told=instant(told) if told else None,
        claimed_until=instant(claimed_until) if claimed_until else None,
        taken_by=taken_by,
        taken_at=instant(taken_at) if taken_at else None,
    )


def _us(at: datetime | None) -> int:
    return 0 if at is None else microseconds(at)


class Alarmed(Rows):
    known = asks(_known)
    swap = writes(_swap)
