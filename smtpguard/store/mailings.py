"""What people ask about mailings: which there are, one of them, and whom it has reached.

Never here: finding a message's mailing, or counting (roll).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, or_, select

from smtpguard.policy.mailing import Fate, Mailing, State
from smtpguard.store.roll import mailing_of
from smtpguard.store.schema import mailing as table
from smtpguard.store.schema import reached

_COLUMNS = (table.c.id, table.c.first_at, table.c.last_at, table.c.counts, table.c.doc)
_MANY = 500
_NAMED = 10


def find(connection: Connection, mailing_id: str) -> Mailing | None:
    row = connection.execute(select(*_COLUMNS).where(table.c.id == mailing_id)).one_or_none()
    return None if row is None else mailing_of(*row)


def newest(connection: Connection, least: int, state: str | None, limit: int) -> list[Mailing]:
    """The latest first: with so many people at least, or of which something waits or was decided."""
    query = select(*_COLUMNS).order_by(table.c.last_at.desc(), table.c.n.desc()).limit(limit)
    if state is not None:
        query = query.where(table.c.state == state)
    else:
        query = query.where(or_(table.c.people >= least, table.c.state != State.PASSING.value))
    return [mailing_of(*row) for row in connection.execute(query)]


def named(connection: Connection, prefix: str) -> list[str]:
    low = prefix.upper()
    query = select(table.c.id).where(table.c.id >= low, table.c.id < f"{low}~").order_by(table.c.id).limit(_NAMED)
    return list(connection.execute(query).scalars())


def reached_by(connection: Connection, mailing_id: str, digests: Sequence[bytes]) -> dict[bytes, Fate]:
    n = connection.execute(select(table.c.n).where(table.c.id == mailing_id)).scalar()
    found: dict[bytes, Fate] = {}
    for start in range(0, len(digests) if n is not None else 0, _MANY):
        some = digests[start : start + _MANY]
        query = select(reached.c.person, reached.c.fate).where(reached.c.n == n, reached.c.person.in_(some))
        found.update((bytes(person), Fate(fate)) for person, fate in connection.execute(query))
    return found
