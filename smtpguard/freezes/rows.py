"""The tables of the gate: active freezes, and the policy in force. Each change raises the gate's generation in its commit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from smtpguard.database.batch import FREEZE, Batch, read_freezes, read_head
from smtpguard.database.schema import freeze as table
from smtpguard.database.schema import underway
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.policy.freezing import Freeze, Gate, Selectable


def read(connection: Connection) -> Gate:
    """Return the gate."""
    head = read_head(connection)
    return Gate(generation=head.generation, policy_sha256=head.policy, freezes=read_freezes(connection))


def freeze(batch: Batch, stop: Freeze, event: Event) -> Gate:
    """Write a freeze and its entry. Returns the new gate."""
    batch.connection.execute(insert(table).values(freeze_id=stop.freeze_id, lifted=False, doc=FREEZE.dumps(stop)))
    return batch.move_gate(event)


def forget(batch: Batch, freeze_id: str) -> None:
    """Remove the row of a freeze that the journal has no entry of, before one with its entry takes its place."""
    batch.connection.execute(delete(table).where(table.c.freeze_id == freeze_id))


def thaw(batch: Batch, freeze_id: str, event: Event) -> Gate:
    """Lift a freeze, with an entry. Returns the new gate. Raises KeyError if there is no such freeze, or it is lifted already."""
    known = select(table.c.freeze_id).where(table.c.freeze_id == freeze_id, table.c.lifted.is_(False))
    if batch.connection.execute(known).first() is None:
        raise KeyError(freeze_id)
    batch.connection.execute(update(table).where(table.c.freeze_id == freeze_id).values(lifted=True))
    return batch.move_gate(event)


def in_flight(connection: Connection, stop: Freeze, since: datetime) -> list[str]:
    """Return the verdicts to relay since ``since``, without an outcome, that ``stop`` selects."""
    query = select(underway.c.id, underway.c.marks).where(
        underway.c.at >= microseconds(since), underway.c.doubt.is_(False)
    )
    found = []
    for id, marks in connection.execute(query.order_by(underway.c.id)):
        lists, senders, mailing, thread = json.loads(marks)
        if stop.stops(Selectable(frozenset(lists), frozenset(senders), mailing, thread)):
            found.append(id)
    return found


def unsettled(connection: Connection, before: datetime) -> Sequence[str]:
    """Return the verdicts to relay before ``before`` without an outcome: after a crash it is unknown."""
    query = select(underway.c.id).where(underway.c.at < microseconds(before), underway.c.doubt.is_(False))
    return list(connection.execute(query.order_by(underway.c.at, underway.c.id)).scalars())


def doubt(batch: Batch, before: datetime) -> tuple[str, ...]:
    """Journal that these verdicts are in doubt, unless an outcome was written meanwhile. Returns their ids."""
    batch.flush()
    left = tuple(unsettled(batch.connection, before))
    why = {"why": "no outcome was recorded: the process that relayed it has ended"}
    batch.record([Event(kind=Kind.IN_DOUBT, id=id, at=batch.now, data=why) for id in left])
    return left
