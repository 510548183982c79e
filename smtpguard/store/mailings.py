"""What people ask about mailings: which there are, one of them, and whom it has reached.

What was let through counts as relayed once it is on its way no more. Never here: finding a message's mailing, or counting (roll).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select

from smtpguard.audit.chain import microseconds
from smtpguard.policy.mailing import FIELDS, ON_THE_WAY, SUREST, Fate, Mailing, State, Tally
from smtpguard.store.going import LET_GO, Going, going
from smtpguard.store.kinds import CUSTOMER, CUSTOMERS, MAYBE
from smtpguard.store.mailingrow import Row
from smtpguard.store.schema import mailing as table
from smtpguard.store.schema import reached

_COLUMNS = (table.c.n, table.c.id, table.c.first_at, table.c.last_at, table.c.sketch, table.c.counts, table.c.doc,
            table.c.went_first, table.c.went_last)  # fmt: skip
_MANY = 500
_NAMED = 10
_MAY_BE_THERE = frozenset({Fate.RELAYED, Fate.DOUBTED})
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
        row = Row.read(*columns)
        mailing = row.view(now)
        people = mailing.people
        still = under_way[columns.n]
        doubted = _people(connection, columns.n, still.may_have)
        admitted = _people(connection, columns.n, still.people - still.may_have)
        arrived = max(people.admitted - admitted - doubted, 0)
        tally = replace(people, admitted=admitted, doubted=people.doubted + doubted, relayed=people.relayed + arrived)
        if row.crowds:
            tally = _each_once(connection, columns.n, row.crowds, still, tally)
        found.append(replace(mailing, people=tally))
    return found


def _each_once(connection: Connection, n: int, crowds: Iterable[bytes], still: Going, tally: Tally) -> Tally:
    """Who had a copy of their own and is on a list that it went to as well is one of that list's people, by the surest of what became
    of both; and a list before and after its members changed is at least as many people as the larger of the two. So that never more
    people are told than there are; how many more or fewer there may be stands beside. What approvals are bound by counts all."""
    whole: dict[int, list[tuple[Fate, int]]] = {}  # by the bit of the list: what became of each version, for how many
    having: dict[int, int] = {}  # by kind, the largest crowd that certainly has it
    counts = {field: getattr(tally, field) for field in FIELDS.values()}
    query = select(reached.c.person, reached.c.kind, reached.c.weight, reached.c.fate)
    for person, kind, weight, fate in connection.execute(query.where(reached.c.n == n, reached.c.person.in_(crowds))):
        bit, became = int(kind) & ~CUSTOMERS, _became(Fate(fate), bytes(person), still)
        if became is Fate.RELAYED:
            having[int(kind)] = max(having.get(int(kind), 0), int(weight))
        if bit and not bit & (bit - 1):  # of one list
            whole.setdefault(bit, []).append((became, int(weight)))
    further = 0
    for versions in whole.values():
        versions.sort(key=lambda one: -SUREST.index(one[0]))
        may = [some for fate, some in versions if fate in _MAY_BE_THERE]
        further += sum(may) - max(may, default=0)
        told = 0
        for at, (fate, some) in enumerate(versions):
            more = max(some - told, 0)
            told += more
            counts[FIELDS[fate]] -= some - more
            versions[at] = fate, more
    taken = 0
    for bit, versions in sorted(whole.items(), key=lambda one: -SUREST.index(one[1][0][0])):
        mine = (reached.c.kind.op("&")(bit) != 0, reached.c.kind.op("&")(taken) == 0, reached.c.weight == 1)
        taken |= bit
        singles = sorted(_singles(connection, n, mine, still), key=lambda one: -SUREST.index(one[0]))
        for fate, some in singles:
            for at, (became, left) in enumerate(versions):
                one = min(some, left)
                versions[at] = became, left - one
                counts[FIELDS[fate if SUREST.index(fate) <= SUREST.index(became) else became]] -= one
                some -= one
    counts = {field: max(count, 0) for field, count in counts.items()}
    same = max(counts[FIELDS[Fate.RELAYED]] - _least(connection, n, having, still), 0) if having else 0
    return replace(tally, **counts, same=same, apart=further)


def _least(connection: Connection, n: int, having: Mapping[int, int], still: Going) -> int:
    """How many people these crowds, by their kinds, and the single people who have it are at least: as many as any one crowd with
    those who are surely not in it. Who is behind an address and on no list is nobody's customer."""

    def singles(*among: ColumnElement[bool]) -> int:
        return dict(_singles(connection, n, (*among, reached.c.weight == 1), still)).get(Fate.RELAYED, 0)

    customers = (reached.c.kind.op("&")(CUSTOMER) != 0, reached.c.kind.op("&")(MAYBE) == 0)
    least, others = singles(), having.get(0, 0)
    for kind, some in having.items():
        bits = kind & ~CUSTOMERS
        off = (reached.c.kind.op("&")(bits | MAYBE) == 0,)
        if bits:
            beside = singles(*off)
            if others and kind & CUSTOMER:
                beside = max(beside, others + singles(*off, *customers))
        else:
            beside = 0 if kind & MAYBE else singles(*customers)
        least = max(least, some + beside)
    return least


def _singles(
    connection: Connection, n: int, mine: Sequence[ColumnElement[bool]], still: Going
) -> Iterator[tuple[Fate, int]]:
    """What became of the copies of these people's own, and of how many it is that."""
    counted: Counter[Fate] = Counter()
    query = select(reached.c.fate, func.count()).where(reached.c.n == n, *mine).group_by(reached.c.fate)
    for fate, some in connection.execute(query):
        counted[Fate.RELAYED if Fate(fate) in ON_THE_WAY else Fate(fate)] += int(some)
    under_way = list(still.all)
    for start in range(0, len(under_way), _MANY):
        some = reached.c.person.in_(under_way[start : start + _MANY])
        going_on = select(reached.c.person, reached.c.fate).where(
            reached.c.n == n, some, reached.c.fate.in_(LET_GO), *mine
        )
        for person, fate in connection.execute(going_on):
            counted[Fate.RELAYED] -= 1
            counted[_became(Fate(fate), bytes(person), still)] += 1
    yield from ((fate, some) for fate, some in counted.items() if some > 0 and fate is not Fate.NONE)


def _people(connection: Connection, n: int, digests: Iterable[bytes]) -> int:
    """How many people these are, of those who were let through."""
    wanted, total = list(digests), 0
    for start in range(0, len(wanted), _MANY):
        some = reached.c.person.in_(wanted[start : start + _MANY])
        query = select(func.sum(reached.c.weight)).where(reached.c.n == n, some, reached.c.fate.in_(LET_GO))
        total += int(connection.execute(query).scalar() or 0)
    return total
