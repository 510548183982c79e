"""How a mailing grew, for a chart: over time, the people to whom it was sent, and the people for whom it came but who
do not have it.

A person who has it counts from the first copy that was sent to them; everybody else from the time when their copy came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from smtpguard.database.schema import mailing, reached
from smtpguard.journal.chain import instant
from smtpguard.mailings.inflight import LET_GO, going
from smtpguard.mailings.model import CopyStatus, Grown

_POINTS = 99
_MANY = 500
_SENT = frozenset({*LET_GO, int(CopyStatus.RELAYED)})


def growth(connection: Connection, mailing_id: str) -> list[Grown]:
    """In at most a hundred steps of equal length. Deferred people, of whom no time is recorded, are added at the end."""
    row = connection.execute(select(mailing.c.n, mailing.c.last_at).where(mailing.c.id == mailing_id)).one_or_none()
    if row is None:
        return []
    n, last_came = row
    people: Counter[tuple[int, bool]] = Counter()
    """Number of people by (time when it was sent, or came; whether they have it)."""
    query = (
        select(reached.c.at, reached.c.went, reached.c.status, func.sum(reached.c.weight))
        .where(reached.c.n == n)
        .group_by(reached.c.at, reached.c.went, reached.c.status)
    )
    for at, went, status, weight in connection.execute(query):
        has_it = status in _SENT
        people[(went or at) if has_it else at, has_it] += int(weight)
    for at, went, weight in _still(connection, n):
        people[went or at, True] -= weight
        people[at, False] += weight
    times = [at for (at, _), some in people.items() if at and some] or [int(last_came)]
    first, last = min(times), max(times)
    step = max((last - first) // _POINTS, 1)
    steps: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    for (at, has_it), some in people.items():
        if some:
            steps[has_it][((at or last) - first) // step] += some
    grown = []
    sent = held = 0
    for number in sorted({*steps[True], *steps[False]}):
        sent, held = sent + steps[True][number], held + steps[False][number]
        grown.append(Grown(at=instant(first + number * step), sent=sent, held=held))
    return grown


def _still(connection: Connection, n: int) -> Iterator[tuple[int, int, int]]:
    """People with copies in flight: when their copy came, when that was decided, and their number."""
    now = going(connection, [n])[n]
    wanted = list(now.all)
    for start in range(0, len(wanted), _MANY):
        some = reached.c.person.in_(wanted[start : start + _MANY])
        query = select(reached.c.at, reached.c.went, reached.c.weight).where(
            reached.c.n == n, some, reached.c.status.in_(LET_GO)
        )
        yield from ((int(at), int(went), int(weight)) for at, went, weight in connection.execute(query))
