"""What people ask about mailings: which there are, one of them, and whom it has reached.

What was let through counts as relayed once it is on its way no more. Never here: finding a message's mailing, or counting (roll).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select

from smtpguard.audit.chain import microseconds
from smtpguard.policy.mailing import ON_THE_WAY, Fate, Mailing, State
from smtpguard.store.going import LET_GO, Going, going
from smtpguard.store.mailingrow import Row
from smtpguard.store.schema import mailing as table
from smtpguard.store.schema import reached

_COLUMNS = (table.c.n, table.c.id, table.c.first_at, table.c.last_at, table.c.sketch, table.c.counts, table.c.doc)
_MANY = 500
_NAMED = 10
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of ids


def find(connection: Connection, mailing_id: str, now: datetime) -> Mailing | None:
    row = connection.execute(select(*_COLUMNS).where(table.c.id == mailing_id)).one_or_none()
    return None if row is None else next(iter(_shown(connection, [row], now)))


def newest(
    connection: Connection,
    least: int,
    state: str | None,
    limit: int,
    now: datetime,
    before: tuple[datetime, str] | None = None,
) -> list[Mailing]:
    """The latest first: with so many people at least, or of which something waits or was decided. ``before``: the time and id of
    the last one on the page before."""
    query = select(*_COLUMNS).order_by(table.c.last_at.desc(), table.c.n.desc()).limit(limit)
    if state is not None:
        query = query.where(table.c.state == state)
    else:
        query = query.where(or_(table.c.people >= least, table.c.state != State.PASSING.value))
    if before is not None:
        at = microseconds(before[0])
        n = select(table.c.n).where(table.c.id == before[1]).scalar_subquery()
        query = query.where(table.c.last_at <= at, or_(table.c.last_at < at, table.c.n < n))
    return _shown(connection, connection.execute(query).all(), now)


def named(connection: Connection, prefix: str) -> list[str]:
    query = select(table.c.id).where(*begin_so(table.c.id, prefix.upper())).order_by(table.c.id).limit(_NAMED)
    return list(connection.execute(query).scalars())


def begin_so(ids: ColumnElement[str], low: str) -> list[ColumnElement[bool]]:
    """Which of these ids do, by an index, in whatever order the locale of the database has anything but digits and letters."""
    last = low.rstrip(_DIGITS[-1])
    after = _DIGITS.find(last[-1:]) + 1
    end = [ids < last[:-1] + _DIGITS[after]] if last and after else []
    return [ids >= low, *end, ids.startswith(low, autoescape=True)]


def reached_by(connection: Connection, mailing_id: str, digests: Sequence[bytes]) -> dict[bytes, Fate]:
    """What became of these people's copies; of those for whom it has not come, nothing."""
    n = connection.execute(select(table.c.n).where(table.c.id == mailing_id)).scalar()
    if n is None:
        return {}
    now = going(connection, [n])[n]
    found: dict[bytes, Fate] = {}
    for start in range(0, len(digests), _MANY):
        some = digests[start : start + _MANY]
        query = select(reached.c.person, reached.c.fate).where(reached.c.n == n, reached.c.person.in_(some))
        for person, fate in connection.execute(query):
            found[bytes(person)] = _became(Fate(fate), bytes(person), now)
    return found


def _became(fate: Fate, person: bytes, now: Going) -> Fate:
    """What somebody who was let through has by now."""
    if fate not in ON_THE_WAY:
        return fate
    if person in now.may_have:
        return Fate.DOUBTED
    return Fate.ADMITTED if person in now.people else Fate.RELAYED


def _shown(connection: Connection, rows: Sequence[Any], now: datetime) -> list[Mailing]:
    under_way = going(connection, [row.n for row in rows])
    found = []
    for columns in rows:
        mailing = Row.read(*columns).view(now)
        people = mailing.people
        still = under_way[columns.n]
        doubted = _people(connection, columns.n, still.may_have)
        admitted = _people(connection, columns.n, still.people - still.may_have)
        arrived = max(people.admitted - admitted - doubted, 0)
        tally = replace(people, admitted=admitted, doubted=people.doubted + doubted, relayed=people.relayed + arrived)
        found.append(replace(mailing, people=tally))
    return found


def _people(connection: Connection, n: int, digests: Iterable[bytes]) -> int:
    """How many people these are, of those who were let through."""
    wanted, total = list(digests), 0
    for start in range(0, len(wanted), _MANY):
        some = reached.c.person.in_(wanted[start : start + _MANY])
        query = select(func.sum(reached.c.weight)).where(reached.c.n == n, some, reached.c.fate.in_(LET_GO))
        total += int(connection.execute(query).scalar() or 0)
    return total
