"""The writer thread of a process: it takes up to 128 waiting items into one transaction and one commit.

There is no timer: a lone item does not wait, and while one batch is being committed the next one gathers. Each item is answered
with its result after the commit, with its own error, or with the storage's. An item that raises writes nothing. No caller waits
longer than 20 s. If an answer came too late, or the commit's outcome is unknown, the journal is corrected (Unanswered).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.admission.rows import Run
from smtpguard.database.batch import Batch, Step
from smtpguard.database.engine import BadItem, Database
from smtpguard.database.errors import Busy, CommitUnknown, Gone, Outage, StoreError, Unavailable, reason
from smtpguard.database.failpoint import passes
from smtpguard.database.schema import underway
from smtpguard.holds import rows as holds
from smtpguard.journal import linefiles
from smtpguard.journal import rows as journal
from smtpguard.journal.bypass import Bypasses
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.merkle import Recent
from smtpguard.mailings.finder import Memory
from smtpguard.mailings.mailingbatch import MailingBatch
from smtpguard.policy.freezing import Gate
from smtpguard.policy.verdict import Held
from smtpguard.store.front import Front
from smtpguard.store.queue import WAIT_SECONDS, Waiting, Work
from smtpguard.store.rollbackcheck import RollbackCheck

log = logging.getLogger(__name__)

BATCH = 128
"""The most items of a batch."""
WAITING = 2000
"""The most items that wait; more get Busy."""
NOTE_SECONDS = 0.05
"""The longest time for which notes wait for other work."""
MAX_NOTES = 50_000
"""The most notes that wait while the database is away."""
KEEP_SECONDS = 60.0
"""The time between two checkpoints."""
SIGN_ENTRIES = 4000
"""The number of entries after which a checkpoint is signed earlier."""

Committed = Callable[[Sequence[Event]], None]
"""Takes the journalled events, in order, after the commit and its answers, in the writer thread."""

_WAKE: Any = object()
_STOP: Any = object()


class _Retry(Exception):
    """Rolls the transaction back, to begin again without the works that raised."""


class Writer:
    """The thread that writes. ``submit`` and ``note`` feed it from event loops; ``stop`` ends it."""

    def __init__(
        self,
        database: Database,
        *,
        secret: bytes,
        clock: Clock,
        state_dir: Path,
        lookout: RollbackCheck,
        committed: Committed | None = None,
    ) -> None:
        self._database = database
        self._secret = secret
        self._state_dir = state_dir
        self._clock = clock
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.waiting = Waiting(clock)
        self._coming: list[Work] = []
        self.front: Front | None = None
        """The front of this process. Each batch first moves its frames into the chain."""
        self._notes: deque[Event] = deque()
        self._waker: asyncio.TimerHandle | None = None
        self._unanswered = Unanswered()
        self._gate: Gate | None = None
        self._memory = Memory()  # of mailings
        self._recent = Recent()
        self._lookout = lookout
        self._committed = committed
        self._unpublished: list[Event] = []  # committed, not published yet
        self._kept_house = clock.monotonic()
        self._unsigned = False  # whether entries of this process have no checkpoint yet
        self._signed_seq = 0  # the last entry known to be signed, or the last at this process's start
        self._seq = 0  # the last entry at the last commit
        self._unfiled: list[Checkpoint] = []
        self._file_away = Outage(log, "no checkpoint can be written beside the database", clock.monotonic)
        self._acknowledged: set[str] = set()
        """The holds whose clients got 250 since this process last wrote an entry."""
        self.bypasses = Bypasses(state_dir)
        """The bypasses of this host, whose entries a batch takes."""
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="smtpguard-store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def submit(
        self,
        step: Step | None = None,
        *,
        item: Item | None = None,
        admission: Callable[[Seen], Admission] | None = None,
        synced: bool = True,
    ) -> Any:
        """Queue a step, or an item with its admission, and return its result after the commit. The commit is synced if any work in it is
        to be (``synced``). Raises what the step raised, or subclasses of StoreError."""
        if self._closed:
            raise Unavailable("the store is closed")
        if self._queue.qsize() + len(self._coming) >= WAITING:
            raise Busy(f"{WAITING} are waiting already")
        work = Work(step, item, admission, since=self._clock.monotonic(), synced=synced)
        self.waiting.add(work)
        if not self._coming:
            work.loop.call_soon(self._hand_over, 0)
        self._coming.append(work)
        return await work.future

    def _hand_over(self, seen: int) -> None:
        """Hand over to the thread in the first turn of the event loop without new items: a batch costs as much as several items.
        ``seen``: the number of items in the turn before."""
        coming = self._coming
        if seen < len(coming) < BATCH and not self._closed:
            coming[-1].loop.call_soon(self._hand_over, len(coming))
            return
        self._coming = []
        for work in coming:
            self._queue.put(work)

    def note(self, event: Event) -> None:
        """Write an event with a later batch, after at most 50 ms, or to the front. If the database is long unavailable, the oldest notes
        are dropped."""
        if self.front is not None and self.front.note(event):
            return
        self.move_soon()
        if len(self._notes) >= MAX_NOTES:
            self._notes.popleft()
        self._notes.append(event)

    def move_soon(self) -> None:
        """Write notes, and move frames of the front, with a later batch: after at most 50 ms."""
        if self._waker is None:  # if a batch comes before that, it takes them, and the thread is not woken
            self._waker = asyncio.get_running_loop().call_later(NOTE_SECONDS, self._wake)

    def _wake(self) -> None:
        self._waker = None
        if self._has_notes:
            self._queue.put(_WAKE)

    @property
    def _has_notes(self) -> bool:
        """Whether there is anything to write that nobody waits for: notes, or late frames of the front."""
        return bool(self._notes) or (self.front is not None and self.front.is_late)

    async def stop(self) -> None:
        """Write what waits, then end the thread. A thread that hangs in the database is abandoned."""
        if self._closed:
            return
        self._closed = True
        self._hand_over(0)
        self._queue.put(_STOP)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, WAIT_SECONDS)
        self.waiting.close()

    # -- in the thread

    def _run(self) -> None:
        self._database.prepare()
        going = True
        while going:
            works, going = self._take()
            if works or self._has_notes or (self._unanswered and not going):
                try:
                    self._serve(works)
                except Exception as error:  # an internal error must not end the only writer thread
                    log.exception("the writer failed")
                    for work in works:
                        work.error = work.error or Unavailable(f"the store failed: {type(error).__name__}")
                    self._answer(works)
                self._publish()  # after the answers, since clients wait for those
        if self._unsigned:
            self._sign()
        self._database.close()

    def _take(self) -> tuple[list[Work], bool]:
        """Return the waiting work, and whether more may follow. If notes are left over, other work is awaited for a short time."""
        try:
            first = self._queue.get(timeout=NOTE_SECONDS if self._has_notes else None)
        except queue.Empty:
            return [], True
        if first is _STOP:
            return [], False
        works = [first] if first is not _WAKE else []
        return works, self._take_more(works)

    def _take_more(self, works: list[Work]) -> bool:
        """Add the work that waits, up to a batch. Returns False if nothing follows it, since the writer is to stop."""
        with suppress(queue.Empty):
            while len(works) < BATCH:
                work = self._queue.get_nowait()
                if work is _STOP:
                    self._queue.put(_STOP)
                    return False
                if work is not _WAKE:
                    works.append(work)
        return True

    def _serve(self, works: list[Work]) -> None:
        """Commit works and notes, and answer the works. Clients of holds are answered after a second commit."""
        wanted: list[Work] = []
        notes = [self._notes.popleft() for _ in range(min(len(self._notes), BATCH * 4))]
        if self.front is not None:
            notes += self.front.outcomes()
        signs = self._minute_over or self._seq - self._signed_seq >= SIGN_ENTRIES
        synced = bool(notes or self._unanswered or signs or any(work.synced for work in works))

        def join() -> None:
            """Add the work that came while others wrote. Called when the write lock is held."""
            if synced:
                self._take_more(works)
            wanted.extend(_wanted(works))

        try:
            self._commit(wanted, notes, join, synced=synced)
        except BadItem:
            self._one_by_one(wanted, notes)
        except Exception as error:
            self._fail(wanted or _wanted(works), notes, error)
        held = [w for w in wanted if w.error is None and _answered_as(w) is not None]
        self._answer([w for w in works if w not in held] if held else works)
        if held:
            self._acknowledge(held)
            self._answer(held)

    def _commit(
        self,
        works: Sequence[Work],
        notes: Sequence[Event],
        join: Callable[[], None] = lambda: None,
        *,
        synced: bool = True,
    ) -> None:
        """Commit one transaction. A work that raises keeps its error, and nothing of it is written. An error of the storage is raised, and
        then nothing at all is written. ``join`` is called inside the transaction, and may add works."""
        left = works
        while True:
            try:
                self._attempt(left, notes, join, synced=synced)
            except _Retry:  # leave out those that raised: they may have written something
                left, join = [work for work in works if work.error is None], lambda: None
            except Exception:
                if self.front is not None:
                    self.front.stall()
                raise
            else:
                return

    def _attempt(
        self, works: Sequence[Work], notes: Sequence[Event], join: Callable[[], None], *, synced: bool
    ) -> None:
        """Try to commit one transaction. Raises _Retry if a work has raised an error of its own: then nothing is written."""
        with self._database.write(synced=synced) as connection:
            self._begin(connection)
            join()
            batch = self._batch(connection)
            self._lookout.look(batch, self._gate)
            if self.front is not None:
                self.front.move(batch)
            batch.record(notes)
            unanswered = self._unanswered.settle(batch)
            for admitting, some in itertools.groupby(works, key=lambda w: w.item is not None):
                if admitting:
                    self._admit(batch, list(some))
                    continue
                for work in some:
                    batch.flush()
                    if work.step is not None:
                        self._try(work, partial(work.step, batch))
            if any(work.error is not None for work in works):
                raise _Retry
            if synced:
                self._keep_house(batch)
            batch.finish()
        self._seq = batch.head.seq
        self._gate = batch.gate
        batch.keep_recent()
        self._unpublished += batch.events
        batch.events.clear()  # the batch is in a cycle, and would keep them until a collection of garbage
        self.waiting.problem = ""
        if self.front is not None:
            self.front.committed(batch.head.generation, batch.fronts_moved.get(self.front.name, 0))
        if batch.fronts_moved and self._database.fronts is not None:
            self._database.fronts.note_moved(batch.fronts_moved)
        self._lookout.committed(batch, self._database.connections, synced=synced)
        if batch.has_grown or unanswered:
            self._acknowledged.clear()
        if unanswered:
            self._unanswered.forget(unanswered)
        self._unsigned = (self._unsigned or batch.has_grown) and all(made.seq < batch.head.seq for made in batch.signed)
        self._unfiled += batch.signed

    def _begin(self, connection: Connection) -> None:
        """Drop what is cached if the connection is new: the server behind it may be another."""
        if self._lookout.is_new(self._database.connections):
            self._gate, self._memory, self._recent = None, Memory(), Recent()
            if self._acknowledged:  # it may be a stand-by that lacks that commit alone
                holds.acknowledge(connection, self._acknowledged)

    def _batch(self, connection: Connection) -> Batch:
        return Batch(
            connection,
            now=self._clock.now(),
            secret=self._secret,
            known=self._gate,
            follow=partial(MailingBatch, memory=self._memory),
            fronts=self._database.fronts,
            bypasses=self.bypasses,
            recent=self._recent,
        )

    def _publish(self) -> None:
        """Write the lines of committed checkpoints, and publish committed events. An error of a subscriber undoes no commit, and fails no
        committed work."""
        unfiled, self._unfiled = self._unfiled, []
        for made in unfiled:
            self._write_line(made)
        events, self._unpublished = self._unpublished, []
        self.publish(events)

    def publish(self, events: Sequence[Event]) -> None:
        """Give events to the subscriber. Called in this thread, and in the front's for events that are synced there."""
        if self._committed is not None and events:
            try:
                self._committed(events)
            except Exception:
                log.exception("a subscriber of committed events failed")

    @property
    def _minute_over(self) -> bool:
        return self._clock.monotonic() - self._kept_house >= KEEP_SECONDS

    def _keep_house(self, batch: Batch) -> None:
        """Sign a checkpoint every minute, and after a number of entries. Call it only with a commit that is synced: a signed entry must be
        on disk."""
        self._signed_seq = self._signed_seq or batch.head.seq
        minute = self._minute_over
        if minute:
            self._kept_house = self._clock.monotonic()
        if not minute and batch.head.seq - self._signed_seq >= SIGN_ENTRIES:  # another process may have signed them
            self._signed_seq = max(self._signed_seq, journal.signed_until(batch))
        if minute or batch.head.seq - self._signed_seq >= SIGN_ENTRIES:
            self._signed_seq = batch.head.seq
            journal.mark(batch)

    def _write_line(self, made: Checkpoint) -> None:
        """Write a checkpoint to the file."""
        try:
            linefiles.write_line(self._state_dir, linefiles.CHECKPOINTS, made.line())
            self._lookout.filed(made)
            self._file_away.end()
        except OSError as error:  # it is in the database, and the next one is written to the file again
            self._file_away.report(error.strerror or "")

    def _sign(self) -> None:
        """Sign a last checkpoint."""
        try:
            with self._database.write() as connection:
                self._begin(connection)
                batch = self._batch(connection)
                self._lookout.look(batch, self._gate)
                journal.mark(batch)
                batch.finish()
            for made in batch.signed:
                self._write_line(made)
        except Exception as error:
            log.warning("no last checkpoint: %s", error if isinstance(error, StoreError) else type(error).__name__)
            self._file_last()

    def _file_last(self) -> None:
        """Write the checkpoint of the last commit on disk to the file, since the store is away."""
        if (made := self._lookout.unfiled()) is not None:
            self._write_line(made)

    def _admit(self, batch: Batch, works: list[Work]) -> None:
        run = Run(batch, [w.item for w in works if w.item is not None])
        for work in works:
            item, admission = work.item, work.admission
            if item is not None and admission is not None:
                self._try(work, partial(run.admit, item, admission))
        run.finish()

    def _try(self, work: Work, step: Callable[[], Any]) -> None:
        """Run a step, and keep its result or its own error in the work. Raises errors of the storage, and BadItem."""
        try:
            work.result, work.error = step(), None
        except Exception as error:
            if isinstance(error, (*self._database.errors, BadItem)):
                raise
            work.error = error

    def _one_by_one(self, works: Sequence[Work], notes: Sequence[Event]) -> None:
        """Commit each work in a transaction of its own, to find the one whose data the database refuses."""
        alone: list[tuple[list[Work], list[Event]]] = [([], [note]) for note in notes]
        alone += [([work], []) for work in works]
        for some, few in alone:
            try:
                self._commit(some, few)
            except BadItem as error:
                for work in some:
                    work.error = Unavailable(str(error))
            except Exception as error:
                self._fail(some, few, error)

    def _fail(self, works: Sequence[Work], notes: Sequence[Event], error: Exception) -> None:
        """Give works the error of their transaction, and keep the notes for a later one."""
        problem = error if isinstance(error, StoreError) else Unavailable(f"the store failed: {type(error).__name__}")
        self.waiting.note_failure(reason(problem))
        self._file_last()
        if isinstance(error, CommitUnknown):
            self._unanswered.add(w for w in works if w.item is not None and w.error is None)
        self._notes.extendleft(reversed(notes))  # a repeated outcome is better than none
        for work in works:
            work.error = work.error or problem

    def _acknowledge(self, held: Sequence[Work]) -> None:
        """Commit that the clients of these holds get their 250 now. None of the holds can be released before."""
        for work in held:
            if work.is_unwanted:
                work.error = Gone("the client left before its answer")
        ids = {hold_id for w in held if w.error is None and (hold_id := _answered_as(w)) is not None}
        if not ids:
            return
        try:
            with self._database.write() as connection:
                if holds.acknowledge(connection, ids) != len(ids):
                    raise Unavailable("a hold is not there any more")
                for work in held:
                    passes("acknowledgement", work.item.message_id if work.item is not None else "")
            self._acknowledged |= ids
        except Exception:
            for work in held:
                work.error = work.error or Unavailable("the hold could not be acknowledged")
            self._unanswered.add(held)

    def _answer(self, works: Sequence[Work]) -> None:
        """Let the event loops of works answer their callers."""
        loops: dict[asyncio.AbstractEventLoop, list[Work]] = {}
        for work in works:
            loops.setdefault(work.loop, []).append(work)
        for loop, some in loops.items():
            try:
                loop.call_soon_threadsafe(self._deliver, some)
            except RuntimeError:
                pass  # the loop is closed: nobody waits there

    def _deliver(self, works: Sequence[Work]) -> None:
        """Answer callers. Called in their event loop."""
        for work in works:
            if work.future.done():  # timed out or cancelled
                if work.error is None and work.item is not None:
                    self._unanswered.add([work])
            elif work.error is not None:
                work.future.set_exception(work.error)
            else:
                work.future.set_result(work.result)
        self.waiting.drop_answered()


def _wanted(works: Sequence[Work]) -> list[Work]:
    """Return the works for which somebody still waits, marked as started."""
    wanted = []
    for work in works:
        if work.is_unwanted:
            work.error = Gone("the client had left")
        else:
            work.started = True
            wanted.append(work)
    return wanted


def _answered_as(work: Work) -> str | None:
    """Return the hold for which the client gets 250; None if there is none."""
    done = work.result.disposition if isinstance(work.result, Admission) else None
    return done.hold_id if isinstance(done, Held) else None


class Unanswered:
    """Works that were or may have been written while their clients got 451, oldest first. The journal is corrected for them: a verdict to
    relay was not carried out, and gets the outcome ``unanswered``; a hold is still the client's, and cannot be released until
    the client retries.

    The writer's thread and event loops add works; its thread settles them.
    """

    def __init__(self) -> None:
        self._works: deque[Work] = deque()

    def __bool__(self) -> bool:
        return bool(self._works)

    def add(self, works: Iterable[Work]) -> None:
        self._works.extend(works)

    def settle(self, batch: Batch) -> int:
        """Correct the journal for all works in a batch. Returns their number."""
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
        """Drop the ``count`` oldest works, whose correction is committed."""
        for _ in range(count):
            self._works.popleft()
