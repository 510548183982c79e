"""How a mailing grew, for a chart: how many people it had gone out to by when, and for how many it had come who have not got it.

Who has it is drawn by when it went out: of what passed at once that is when it came, of what was held when its release was over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from smtpguard.audit.chain import instant
from smtpguard.policy.mailing import Fate
from smtpguard.store.going import LET_GO, going, split
from smtpguard.store.schema import hold, mailing, reached

_POINTS = 99
_MANY = 500
_SENT = frozenset({*LET_GO, int(Fate.RELAYED)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """By ``at`` so many people had it (``sent``), and for so many it had come who have not got it by now (``held``)."""

    at: datetime
    sent: int
    held: int


def growth(connection: Connection, mailing_id: str) -> list[Grown]:
    """In at most a hundred steps of the same length. Who was put off, so that nobody has counted when their copy came, is there at
    the end."""
    row = connection.execute(select(mailing.c.n, mailing.c.last_at).where(mailing.c.id == mailing_id)).one_or_none()
    if row is None:
        return []
    n, last_came = row
    mine = reached.c.n == n
    came, last = connection.execute(
        select(func.min(reached.c.at), func.max(reached.c.at)).where(mine, reached.c.at > 0)
    ).one()
    released = list(_released(connection, mailing_id, n))
    times = [at for at in (came, last, *(at for _, at, _ in released)) if at]
    if not times:
        times = [int(last_came)]
    first, last = min(times), max(times)
    step = max((last - first) // _POINTS, 1)

    sent: Counter[int] = Counter()
    held: Counter[int] = Counter()
    query = (
        select(reached.c.at, reached.c.fate, func.sum(reached.c.weight))
        .where(mine)
        .group_by(reached.c.at, reached.c.fate)
    )
    for at, fate, weight in connection.execute(query):
        (sent if fate in _SENT else held)[(_when(at, last) - first) // step] += int(weight)
    for at, weight in _still(connection, n):
        number = (_when(at, last) - first) // step
        sent[number] -= weight
        held[number] += weight
    for at, out, weight in released:
        sent[(_when(at, last) - first) // step] -= weight
        sent[(out - first) // step] += weight
    grown = []
    all_sent = all_held = 0
    for number in sorted({*sent, *held}):
        all_sent, all_held = all_sent + sent[number], all_held + held[number]
        grown.append(Grown(at=instant(first + number * step), sent=all_sent, held=all_held))
    return grown


def _when(at: int, otherwise: int) -> int:
    return at or otherwise


def _still(connection: Connection, n: int) -> Iterator[tuple[int, int]]:
    """Those to whom it is on its way still: when their copy came, and how many they are."""
    now = going(connection, [n])[n]
    wanted = list(now.all)
    for start in range(0, len(wanted), _MANY):
        some = reached.c.person.in_(wanted[start : start + _MANY])
        query = select(reached.c.at, reached.c.weight).where(reached.c.n == n, some, reached.c.fate.in_(LET_GO))
        yield from ((int(at), int(weight)) for at, weight in connection.execute(query))


def _released(connection: Connection, mailing_id: str, n: int) -> Iterator[tuple[int, int, int]]:
    """Those who have it by what people released: when it came, when its release was over, and how many they are."""
    query = select(hold.c.attend_at, hold.c.people).where(
        hold.c.mailing == mailing_id, hold.c.state == "released", hold.c.people.is_not(None)
    )
    still = going(connection, [n])[n]
    seen = still.all
    for out, people in connection.execute(query.order_by(hold.c.attend_at)).all():
        wanted = [one for one in split(bytes(people)) if one not in seen] if out else []
        seen.update(wanted)
        for start in range(0, len(wanted), _MANY):
            some = reached.c.person.in_(wanted[start : start + _MANY])
            found = select(reached.c.at, reached.c.weight).where(reached.c.n == n, some, reached.c.fate.in_(_SENT))
            yield from ((int(at), max(int(out), int(at)), int(weight)) for at, weight in connection.execute(found))
