"""What was written, or perhaps written, while its client was told 451: to be put right in the record.

A verdict to relay that nobody heard was not carried out, and gets the outcome ``unanswered``; a hold is its client's still, and
is not releasable until that comes again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from sqlalchemy import select

from smtpguard.audit.event import Event, Kind
from smtpguard.policy.admission import Admission
from smtpguard.store import holds
from smtpguard.store.batch import Batch
from smtpguard.store.queued import Work
from smtpguard.store.schema import underway


class Unanswered:
    """Of one writer, oldest first. Added to by its thread and by event loops, settled by its thread."""

    def __init__(self) -> None:
        self._works: deque[Work] = deque()

    def __bool__(self) -> bool:
        return bool(self._works)

    def add(self, works: Iterable[Work]) -> None:
        self._works.extend(works)

    def settle(self, batch: Batch) -> int:
        """Returns of how many that is written in this batch."""
        works = list(self._works)
        items = [w.item.id for w in works if w.item is not None]
        if not items:
            return 0
        query = select(underway.c.id).where(underway.c.id.in_(items), underway.c.doubt.is_(False))
        for id in batch.connection.execute(query.order_by(underway.c.id)).scalars().all():
            batch.record([Event(kind=Kind.OUTCOME, id=id, at=batch.now, data={"outcome": "unanswered"})])
        new = [w.result.hold.hold_id for w in works if isinstance(w.result, Admission) and w.result.hold is not None]
        if new:
            holds.acknowledge(batch.connection, new, False)
        return len(works)

    def forget(self, count: int) -> None:
        """The oldest: what was settled is committed."""
        for _ in range(count):
            self._works.popleft()
