"""The installation's alarms that were sent and are not over, as rows (observe.rounds.Memory)."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from smtpguard.database.access import Rows, asks, writes
from smtpguard.database.batch import Batch
from smtpguard.database.schema import alarm
from smtpguard.database.statements import rows_of
from smtpguard.journal.chain import instant, instant_or_none, microseconds, microseconds_or_0
from smtpguard.observe.alarms import RaisedAlarm


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
        "told": microseconds_or_0(known.told),
        "claimed_until": microseconds_or_0(known.claimed_until),
        "taken_by": known.taken_by,
        "taken_at": microseconds_or_0(known.taken_at),
    }


def _read(key: str, began: int, told: int, claimed_until: int, taken_by: str, taken_at: int) -> RaisedAlarm:
    return RaisedAlarm(
        key=key,
        began=instant(began),
        told=instant_or_none(told),
        claimed_until=instant_or_none(claimed_until),
        taken_by=taken_by,
        taken_at=instant_or_none(taken_at),
    )


class Alarmed(Rows):
    known = asks(_known)
    swap = writes(_swap)
