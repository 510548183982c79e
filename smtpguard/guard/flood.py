"""How many notices a person gets by themselves before the rest of a window comes as one digest.

Pure but for its own counting; the clock is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta


@dataclass(slots=True)
class Flood:
    """How many notices each person was sent in this window: the first few go by themselves, the rest in one digest.

    Kept by each process for itself. It only chooses between a notice and a digest, and the digest's id is the same wherever
    it is written, so nothing is lost by what is forgotten here, and nobody gets two digests of one window.
    """

    singly: int = 3
    window: timedelta = timedelta(minutes=10)
    _start: float = 0
    _sent: dict[str, int] = field(default_factory=dict)

    def since(self, now: datetime) -> datetime:
        seconds = self.window.total_seconds()
        return datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)

    def takes(self, person: str, now: datetime) -> bool:
        """Whether this one goes by itself; counts it."""
        start = self.since(now).timestamp()
        if start != self._start:
            self._start = start
            self._sent.clear()
        sent = self._sent[person] = self._sent.get(person, 0) + 1
        return sent <= self.singly
