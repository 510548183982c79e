"""The installation's alarms that were sent and are not over, as rows. Implements observe.alarms.rounds.Memory."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from smtpguard.database.access import Rows, asks, writes
from smtpguard.database.batch import Batch
from smtpguard.database.schema import alarm
from smtpguard.journal.chain import instant, microseconds
from smtpguard.observe.alarms.conditions import RaisedAlarm


def _known(connection: Connection) -> dict[str, RaisedAlarm]:
    return {row.key: _read(row) for row in connection.execute(select(alarm))}


def _swap(batch: Batch, before: RaisedAlarm | None, after: RaisedAlarm | None) -> bool:
    """Writers are serial, so the row that is read here is the row that is overwritten."""
    connection = batch.connection
    given = before or after
    assert given is not None
    row = connection.execute(select(alarm).where(alarm.c.key == given.key)).one_or_none()
    if (_read(row) if row is not None else None) != before:
        return False
    here = alarm.c.key == given.key
    if after is None:
        connection.execute(delete(alarm).where(here))
    elif before is None:
        connection.execute(insert(alarm).values(key=after.key, **_values(after)))
    else:
        connection.execute(update(alarm).where(here).values(**_values(after)))
    return True


def _values(known: RaisedAlarm) -> dict[str, int | str]:
    return {
        "began": microseconds(known.began),
        "told": _us(known.told),
        "claimed_until": _us(known.claimed_until),
        "taken_by": known.taken_by,
        "taken_at": _us(known.taken_at),
    }


def _read(row: Any) -> RaisedAlarm:
    return RaisedAlarm(
        key=row.key,
        began=instant(row.began),
        told=instant(row.told) if row.told else None,
        claimed_until=instant(row.claimed_until) if row.claimed_until else None,
        taken_by=row.taken_by,
        taken_at=instant(row.taken_at) if row.taken_at else None,
    )


def _us(at: datetime | None) -> int:
    return 0 if at is None else microseconds(at)


class Alarmed(Rows):
    known = asks(_known)
    swap = writes(_swap)
