"""How a mailing grew: for how many people it had come by when, for a chart.

Never here: whom it came for, or what it is now (mailings).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select

from smtpguard.audit.chain import instant
from smtpguard.policy.mailing import Fate
from smtpguard.store.going import LET_GO, going
from smtpguard.store.schema import mailing, reached

_POINTS = 99
_MANY = 500
_SENT = {*LET_GO, int(Fate.RELAYED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """By ``at`` it had come for so many people who have it by now (``sent``), and for so many who have not (``held``)."""

    at: datetime
    sent: int
    held: int


def growth(connection: Connection, mailing_id: str) -> list[Grown]:
    """In at most a hundred steps of the same length."""
    n = connection.execute(select(mailing.c.n).where(mailing.c.id == mailing_id)).scalar()
    mine = reached.c.n == n
    first, last = connection.execute(select(func.min(reached.c.at), func.max(reached.c.at)).where(mine)).one()
    if n is None or first is None:
        return []
    step = max((last - first) // _POINTS, 1)
    number = (reached.c.at - first) // step
    query = select(number, reached.c.fate, func.sum(reached.c.weight)).where(mine).group_by(number, reached.c.fate)
    steps: dict[int, list[int]] = {}
    for at, fate, weight in connection.execute(query):
        steps.setdefault(int(at), [0, 0])[fate not in _SENT] += int(weight)
    for at, weight in _still(connection, n, number):
        steps[at][0] -= weight
        steps[at][1] += weight
    sent = held = 0
    grown = []
    for at, (more, kept) in sorted(steps.items()):
        sent, held = sent + more, held + kept
        grown.append(Grown(at=instant(first + at * step), sent=sent, held=held))
    return grown


def _still(connection: Connection, n: int, number: ColumnElement[int]) -> Iterator[tuple[int, int]]:
    """Those to whom it is on its way still: step and weight of each."""
    now = going(connection, [n])[n]
    wanted = list(now.all)
    for start in range(0, len(wanted), _MANY):
        some = reached.c.person.in_(wanted[start : start + _MANY])
        query = select(number, reached.c.weight).where(reached.c.n == n, some, reached.c.fate.in_(LET_GO))
        yield from ((int(at), int(weight)) for at, weight in connection.execute(query))
