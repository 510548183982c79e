"""Work that waits for the writer. It waits for a bounded time, and is always answered."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.database.batch import Step
from smtpguard.database.errors import Busy, CommitUnknown, Unavailable
from smtpguard.journal.clock import Clock
from smtpguard.locale.phrase import N_, Phrase, Said

WAIT_SECONDS = 20.0
"""The longest that a caller waits."""
FAILS_SECONDS = 30.0
"""The time after a failure for which the store counts as failing."""
_SLOW = Phrase(N_("the database took no entry in {seconds} s"), seconds=int(WAIT_SECONDS))


@dataclass(slots=True, eq=False, repr=False)
class Work:
    """One unit of work in a batch: an item with its ``admission``, or any other ``step``.

    ``started``: it is in a batch, so it may be written whatever its caller is told. ``synced``: as for Access.write.
    """

    step: Step | None
    item: Item | None
    admission: Callable[[Seen], Admission] | None
    since: float
    synced: bool
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop, init=False)
    future: asyncio.Future[Any] = field(init=False)
    started: bool = field(default=False, init=False)
    result: Any = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.future = self.loop.create_future()

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody waits for it any more: it timed out, was cancelled, or its client has disconnected."""
        if self.future.done():
            return True
        return self.item is not None and self.item.gone is not None and self.item.gone()


class Waiting:
    """The unanswered work of one event loop, oldest first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.problem: Said = ""
        """Why the last transaction failed, or that a caller waited for it in vain; "" if it was committed."""
        self._failed_at = 0.0
        self._vain_at = -math.inf  # when a caller waited in vain
        self._works: deque[Work] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def note_failure(self, why: Said) -> None:
        """Note that a transaction failed."""
        self.problem, self._failed_at = why, self._clock.monotonic()

    @property
    def fails(self) -> Said:
        """Why entries are not written, or too late: in the last half minute the last transaction failed, or a caller waited in vain,
        whatever was committed since. "" otherwise: after half a minute without a try it is not known any more."""
        begin = self._clock.monotonic() - FAILS_SECONDS
        if self._vain_at > begin:
            return self.problem or _SLOW
        return self.problem if self._failed_at > begin else ""

    def add(self, work: Work) -> None:
        """Add work, which times out after 20 s."""
        self._works.append(work)
        if self._timer is None:
            self._timer = work.loop.call_later(WAIT_SECONDS, self.expire)

    def expire(self) -> None:
        """Answer the work that has waited for 20 s with an error. Work in a batch may still be written, so its result is unknown."""
        self._timer = None
        now = self._clock.monotonic()
        while self._works:
            work = self._works[0]
            if not work.future.done():
                left = work.since + WAIT_SECONDS - now
                if left > 0:
                    self._timer = work.loop.call_later(left, self.expire)
                    return
                waited = Busy(_SLOW if self.problem in ("", _SLOW) else f"{_SLOW}: {self.problem}")
                self.problem, self._vain_at = self.problem or _SLOW, now
                work.future.set_exception(
                    CommitUnknown("no answer from the database in time") if work.started else waited
                )
            self._works.popleft()

    def drop_answered(self) -> None:
        """Drop answered work, and the timer if none is left."""
        while self._works and self._works[0].future.done():
            self._works.popleft()
        if not self._works and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Answer the remaining callers with an error."""
        for work in self._works:
            if not work.future.done():
                work.future.set_exception(Unavailable("the store was closed"))
        self.drop_answered()
