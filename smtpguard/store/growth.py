"""How a mailing grew: for how many people it had come by when, for a chart.

Never here: whom it came for, or what it is now (mailings).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from smtpguard.audit.chain import instant
from smtpguard.policy.mailing import Fate
from smtpguard.store.schema import mailing, reached

_POINTS = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """By ``at`` so many people in all were ``sent`` it, and for so many it was ``held`` or turned away."""

    at: datetime
    sent: int
    held: int


def growth(connection: Connection, mailing_id: str) -> list[Grown]:
    """In at most a hundred steps of the same length."""
    mine = reached.c.n == select(mailing.c.n).where(mailing.c.id == mailing_id).scalar_subquery()
    first, last = connection.execute(select(func.min(reached.c.at), func.max(reached.c.at)).where(mine)).one()
    if first is None:
        return []
    step = max((last - first) // _POINTS, 1)
    number = (reached.c.at - first) // step
    query = select(number, reached.c.fate, func.sum(reached.c.weight)).where(mine).group_by(number, reached.c.fate)
    steps: dict[int, list[int]] = {}
    for at, fate, weight in connection.execute(query):
        steps.setdefault(int(at), [0, 0])[Fate(fate) < Fate.ADMITTED] += int(weight)
    sent = held = 0
    grown = []
    for at, (more, kept) in sorted(steps.items()):
        sent, held = sent + more, held + kept
        grown.append(Grown(at=instant(first + at * step), sent=sent, held=held))
    return grown
