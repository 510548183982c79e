"""The one thread of a process that writes: it drains what waits, up to 128 at a time, into one transaction and one commit.

There is no timer: a lone item waits for nothing, and while one batch is being committed the next one gathers. Every item is
answered: with its result after the commit, with its own error, or with the storage's. Nobody waits longer than 20 s, and
where an answer came too late or the commit's outcome is unknown, what was written is not releasable and its verdict to relay
gets the outcome ``unanswered``.

Never here: what an item does in the batch (admitting, outboxes, gates), or asyncio beyond answering its futures.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from sqlalchemy import select

from smtpguard.audit.event import Event, Kind
from smtpguard.policy.admission import Admission, Busy, Gate, Gone, Item, LedgerError, Live, Unavailable
from smtpguard.store import counting, holds
from smtpguard.store.admitting import Run, answered_as
from smtpguard.store.batch import Batch, Step
from smtpguard.store.database import BadItem, CommitUnknown, Database
from smtpguard.store.schema import underway

BATCH = 128
WAITING = 2000
WAIT_SECONDS = 20.0
NOTE_SECONDS = 0.05
MAX_NOTES = 50_000
PRUNE_SECONDS = 60.0


class Clock(Protocol):
    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class Work:
    """Something that waits for its turn in a batch. ``late``: it was answered already, by the clock."""

    __slots__ = ("admission", "error", "future", "item", "late", "loop", "result", "since", "started", "step")

    def __init__(self, step: Step | None, item: Item | None, admission: Callable[[Live], Admission] | None) -> None:
        self.step = step
        self.item = item
        self.admission = admission
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.since = 0.0
        self.started = False
        self.late = False
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def unwanted(self) -> bool:
        """Nobody waits for it any more."""
        if self.late or self.future.cancelled():
            return True
        return self.item is not None and self.item.gone is not None and self.item.gone()


_WAKE: Any = object()
_STOP: Any = object()


class Writer:
    """Started by ``start``, fed by ``submit`` and ``note`` from event loops, ended by ``stop``."""

    def __init__(self, database: Database, *, secret: bytes, clock: Clock) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting: deque[Work] = deque()  # unanswered, oldest first; belongs to the event loop
        self._timer: asyncio.TimerHandle | None = None
        self._notes: deque[Event] = deque()
        self._uncertain: set[str] = set()
        self._gate: Gate | None = None
        self._pruned = clock.monotonic()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="smtpguard-store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def submit(
        self,
        step: Step | None = None,
        *,
        item: Item | None = None,
        admission: Callable[[Live], Admission] | None = None,
    ) -> Any:
        """Wait for one's turn, and for the commit. Raises what the step raised, or LedgerError's kinds."""
        if self._closed:
            raise Unavailable("the store is closed")
        if self._queue.qsize() >= WAITING:
            raise Busy(f"{WAITING} are waiting already")
        work = Work(step, item, admission)
        work.since = self._clock.monotonic()
        self._waiting.append(work)
        if self._timer is None:
            self._timer = work.loop.call_later(WAIT_SECONDS, self._expire)
        self._queue.put(work)
        return await work.future

    def note(self, event: Event) -> None:
        """To be written with a later batch, at most 50 ms on. Bounded: the oldest fall out when the database is away long."""
        if not self._notes:
            self._queue.put(_WAKE)
        if len(self._notes) >= MAX_NOTES:
            self._notes.popleft()
        self._notes.append(event)

    async def stop(self) -> None:
        """Write what waits, then end the thread; a thread that hangs in the database is left behind."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(_STOP)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, WAIT_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
        for work in self._waiting:
            if not work.future.done():
                work.future.set_exception(Unavailable("the store was closed"))

    def _expire(self) -> None:
        """Answer who has waited for 20 s. What is in a batch already may still be written: then nobody can know."""
        self._timer = None
        now = self._clock.monotonic()
        while self._waiting:
            work = self._waiting[0]
            if not work.future.done():
                left = work.since + WAIT_SECONDS - now
                if left > 0:
                    self._timer = work.loop.call_later(left, self._expire)
                    return
                work.late = True
                started = work.started
                work.future.set_exception(
                    Unavailable("no answer from the database in time") if started else Busy("waited too long")
                )
            self._waiting.popleft()

    # -- in the thread

    def _run(self) -> None:
        going = True
        while going:
            works, going = self._take()
            if works or self._notes or not going:
                self._serve(works)
        self._database.close()

    def _take(self) -> tuple[list[Work], bool]:
        """What waits, up to a batch. A note alone waits a little for company."""
        works: list[Work] = []
        first = self._queue.get()
        if first is _WAKE:
            try:
                first = self._queue.get(timeout=NOTE_SECONDS)
            except queue.Empty:
                return works, True
        while True:
            if first is _STOP:
                return works, False
            if first is not _WAKE:
                works.append(first)
            if len(works) >= BATCH:
                return works, True
            try:
                first = self._queue.get_nowait()
            except queue.Empty:
                return works, True

    def _serve(self, works: list[Work]) -> None:
        wanted = []
        for work in works:
            if work.unwanted:
                work.error = Gone("the client had left")
            else:
                work.started = True
                wanted.append(work)
        notes = [self._notes.popleft() for _ in range(min(len(self._notes), BATCH * 4))]
        try:
            self._commit(wanted, notes)
        except BadItem:
            self._one_by_one(wanted, notes)
        except Exception as error:
            self._failed(wanted, notes, error)
        self._acknowledge(wanted)
        self._answer(works)
        if self._notes:
            self._queue.put(_WAKE)

    def _commit(self, works: Sequence[Work], notes: Sequence[Event]) -> None:
        """One transaction. An item's own error stays with it; the storage's is raised, and then nothing was written."""
        with self._database.write() as connection:
            batch = Batch(
                connection,
                now=self._clock.now(),
                secret=self._secret,
                sqlite=self._database.sqlite,
                known=self._gate,
            )
            batch.record(notes)
            self._settle_uncertain(batch)
            for admitting, some in itertools.groupby(works, key=lambda w: w.item is not None):
                if admitting:
                    self._admit(batch, list(some))
                    continue
                for work in some:
                    batch.flush()
                    if work.step is not None:
                        self._try(work, partial(work.step, batch))
            if self._clock.monotonic() - self._pruned > PRUNE_SECONDS:
                self._pruned = self._clock.monotonic()
                counting.prune(batch)
            batch.finish()
            gate = batch.gate
        self._gate = gate
        self._uncertain.clear()

    def _admit(self, batch: Batch, works: list[Work]) -> None:
        run = Run(batch, [w.item for w in works if w.item is not None])
        for work in works:
            item, admission = work.item, work.admission
            if item is not None and admission is not None:
                self._try(work, partial(run.admit, item, admission))

    def _try(self, work: Work, do: Callable[[], Any]) -> None:
        try:
            work.result, work.error = do(), None
        except Exception as error:
            if isinstance(error, (*self._database.errors, BadItem)):
                raise
            work.error = error

    def _one_by_one(self, works: Sequence[Work], notes: Sequence[Event]) -> None:
        """The database refused some item's data: find it by giving each a transaction of its own."""
        alone: list[tuple[list[Work], list[Event]]] = [([], [note]) for note in notes]
        alone += [([work], []) for work in works]
        for some, few in alone:
            try:
                self._commit(some, few)
            except BadItem as error:
                for work in some:
                    work.error = Unavailable(str(error))
            except Exception as error:
                self._failed(some, few, error)

    def _failed(self, works: Sequence[Work], notes: Sequence[Event], error: Exception) -> None:
        told = error if isinstance(error, LedgerError) else Unavailable(f"the store failed: {type(error).__name__}")
        if isinstance(error, CommitUnknown):
            told = Unavailable(str(error))
            self._uncertain.update(w.item.id for w in works if w.item is not None and w.error is None)
        else:
            self._notes.extendleft(reversed(notes))
        for work in works:
            if work.error is None:
                work.result, work.error = None, told

    def _acknowledge(self, works: Sequence[Work]) -> None:
        """The clients of these holds get their 250 now: until this is committed too, nothing of them can be released."""
        ready = [
            (w, hold_id)
            for w in works
            if w.error is None and isinstance(w.result, Admission) and (hold_id := answered_as(w.result)) is not None
        ]
        for work, _ in ready:
            if work.unwanted:
                work.error = Gone("the client left before its answer")
        ready = [(w, hold_id) for w, hold_id in ready if w.error is None]
        if not ready:
            return
        try:
            with self._database.write() as connection:
                holds.acknowledge(connection, {hold_id for _, hold_id in ready})
        except Exception:
            for work, _ in ready:
                work.error = Unavailable("the hold could not be acknowledged")

    def _settle_uncertain(self, batch: Batch) -> None:
        """Verdicts to relay that may have been written although their client was told 451: nothing was sent for them."""
        if not self._uncertain:
            return
        query = select(underway.c.id).where(underway.c.id.in_(list(self._uncertain)))
        for id in batch.connection.execute(query.order_by(underway.c.id)).scalars().all():
            batch.record([Event(kind=Kind.OUTCOME, id=id, at=batch.now, data={"outcome": "unanswered"})])

    def _answer(self, works: Sequence[Work]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[Work]] = {}
        for work in works:
            loops.setdefault(work.loop, []).append(work)
            if (work.late or work.future.cancelled()) and work.error is None and work.item is not None:
                self._uncertain.add(work.item.id)
        for loop, some in loops.items():
            try:
                loop.call_soon_threadsafe(self._deliver, some)
            except RuntimeError:
                pass  # the loop is closed: nobody waits there

    def _deliver(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.future.done():
                continue
            if work.error is not None:
                work.future.set_exception(work.error)
            else:
                work.future.set_result(work.result)
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
