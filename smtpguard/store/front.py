"""The journal's front of one process: a thread that appends verdicts to its file and syncs them, many at a time.

A verdict is recorded when it is synced. The writer moves synced verdicts into the chain with its next batch, after 50
ms at most, in the same commit as its position in the front. The front of a process that died is moved by any other
process (Batch.take_fronts). On any irregularity here the message goes to the admission, from the beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import math
import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import text

from smtpguard.counts.counting import SCOPES, Scopes
from smtpguard.counts.entries import number
from smtpguard.database.batch import Batch
from smtpguard.database.engine import Database
from smtpguard.database.errors import Full, LedgerError, Unavailable, no_space
from smtpguard.database.failpoint import failpoint, passes
from smtpguard.database.fronts import Fronts, Shared, inode, live, scope_key, sync_folder
from smtpguard.journal.chain import Seal, body_of, clear_of, microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import FIRST, Fronted, Head
from smtpguard.lists.ownership import hand_over
from smtpguard.mail.constant import constant
from smtpguard.policy.counted import Ask
from smtpguard.store.queue import WAIT_SECONDS

log = logging.getLogger(__name__)

SIZE = 8 << 20
"""Octets of the file, allocated beforehand, so that a sync writes data only."""
AGAIN = SIZE // 4
"""Beyond this offset the file is overwritten from its beginning, once all of it has been moved."""
LOOK_SECONDS = 0.05
"""For so long after a write its files are not looked for before the next one, only after it."""
_LARGEST = 1 << 16
_STOP: Any = object()


@constant
class _Write:
    """One verdict to be written; ``key`` to ``clear`` as in Fronted."""

    event: Event
    generation: int
    key: str
    marks: str
    body: str
    clear: str | None
    future: asyncio.Future[bool]

    def numbered(self, number: int) -> Fronted:
        return Fronted(
            number=number, generation=self.generation, at=microseconds(self.event.at), id=self.event.id, key=self.key,
            marks=self.marks, body=self.body, clear=self.clear,
        )  # fmt: skip


class _Group:
    """Verdicts that came in one turn of the event loop, with one timer that limits the wait of all."""

    __slots__ = ("late", "loop", "writes")

    def __init__(self, loop: asyncio.AbstractEventLoop, writes: list[_Write]) -> None:
        self.loop, self.writes = loop, writes
        self.late = loop.call_later(WAIT_SECONDS, self._too_late)

    def _too_late(self) -> None:
        for write in self.writes:
            if not write.future.done():
                write.future.set_exception(TimeoutError())


class Disk:
    """The file, as far as it is written. Tests replace it to simulate a power failure."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def lay_out(self, head: bytes) -> None:
        os.pwrite(self._file, head, 0)
        zeros = bytes(1 << 20)
        for at in range(FIRST, FIRST + SIZE, len(zeros)):
            os.pwrite(self._file, zeros, at)
        os.fsync(self._file)

    def reopened(self, path: str) -> None:
        """From here on every write is synced when it returns."""
        os.close(self._file)
        self._file = os.open(path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC)

    def write(self, data: bytes, at: int) -> None:
        if os.pwrite(self._file, data, at) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)


class Front:
    """Made by ``Store.open_front``. Implements guard.ports.Front."""

    def __init__(
        self,
        database: Database,
        fronts: Fronts,
        secret: bytes,
        *,
        wake: Callable[[], None],
        note: Callable[[Event], None],
        disk: Callable[[str], Disk] = Disk,
    ) -> None:
        """``wake``: the writer moves the frames soon. ``note``: an outcome for the journal, which nobody waits for."""
        self._database, self._fronts, self._secret = database, fronts, secret
        self._wake, self._note, self._make = wake, note, disk
        self._scopes = Scopes(secret)
        self.name = secrets.token_hex(8)
        self.path = fronts.folder / f"{self.name}.front"
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._coming: list[_Write] = []
        self._lock = threading.Lock()
        self._synced: list[tuple[Fronted, Event]] = []  # synced, not moved yet
        self._number = self._at = 0
        self._looked = -math.inf  # the loop's time at which all its files were last in place
        self._agreed = -1
        self._on = self._broken = self._ended = False
        self._stalled = False  # the database accepts none of its entries
        self._thread = threading.Thread(target=self._run, name="smtpguard-front", daemon=True)

    # creation

    def make(self, head: Head) -> None:
        """Create the file, outside any transaction. Raises OSError."""
        self._fronts.folder.mkdir(mode=0o700, exist_ok=True)
        self._alive = os.open(live(self.path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._disk = self._make(str(self.path))
            try:
                self._disk.lay_out(head.octets())
                self._disk.reopened(str(self.path))
                for each in (self.path, live(self.path)):
                    hand_over(each, self._fronts.folder)
                sync_folder(self._fronts.folder)
            except BaseException:
                self._disk.close()
                raise
        except BaseException:
            self._unlinked()
            raise
        self._seal = Seal(self._secret, head.journal)
        self._inodes = inode(self._database.path), inode(self.path)

    def announce(self, batch: Batch) -> None:
        """In the transaction that registers it: a front that the database does not know is never taken over."""
        batch.take_fronts()
        page = batch.open_page()
        if page is None:
            raise RuntimeError("a front for a database without one")
        others = any(file.lives for file in self._fronts.all() if file.name != self.name)
        page.fill(_known(batch), anew=not others)
        self._agreed = batch.head.generation
        batch.execute("INSERT INTO front (name, moved) VALUES (?, ?)", [(self.name, 0)])

    def start(self) -> None:
        """After the registration is committed."""
        self._shared = Shared(self._fronts.folder / "shared")
        self._on = self._shared.filled
        self._thread.start()

    # asked in the event loop

    @property
    def generation(self) -> int | None:
        """The gate's generation, read now; ahead of it while the gate moves. None if the front cannot be used."""
        return self._shared.generation if self._on else None

    def counts_nobody(self, ask: Ask) -> bool:
        """Whether it is certain that no process has counted anybody under it: for counts of a sender's customers."""
        if ask.fact not in SCOPES or ask.same or ask.usual is not None:
            return False
        return not self._shared.knows(self._scopes.of(ask.fact, ask.key))

    def holds(self, key: str) -> bool:
        """Whether there may be a hold with this key."""
        return self._shared.knows(bytes.fromhex(key))

    async def record(self, event: Event, *, key: str, marks: str, generation: int) -> bool:
        """True: it is synced, under this generation of the gate. False: nothing was written, and the admission must
        decide, from the beginning. Raises LedgerError if the result is unknown, and TimeoutError."""
        if not self._on or self._broken or self._stalled or generation != self._agreed:
            return False
        body, clear = body_of(event, self._seal), clear_of(event)
        if len(body) > _LARGEST or len(clear or "") > _LARGEST:
            return False
        loop = asyncio.get_running_loop()
        write = _Write(
            event=event, generation=generation, key=key, marks=marks, body=body, clear=clear,
            future=loop.create_future(),
        )  # fmt: skip
        if not self._coming:
            loop.call_soon(self._hand_over, loop, 0)
        self._coming.append(write)
        return await write.future

    def _hand_over(self, loop: asyncio.AbstractEventLoop, seen: int) -> None:
        """To the thread, in the first turn of the event loop without new items."""
        if seen < len(self._coming):
            loop.call_soon(self._hand_over, loop, len(self._coming))
            return
        coming, self._coming = self._coming, []
        if loop.time() - self._looked < LOOK_SECONDS or self._in_place():
            self._queue.put(_Group(loop, coming))
            return
        self._on = False
        log.error("%s or its journal has been moved: it is no longer used", self.path)
        for write in coming:
            if not write.future.done():
                write.future.set_result(False)

    # in its thread

    def _run(self) -> None:
        going = True
        while going:
            taken = [self._queue.get()]
            while not self._queue.empty():
                taken.append(self._queue.get())
            going = _STOP not in taken
            groups = [group for group in taken if group is not _STOP]
            error: LedgerError | None = None
            done: set[str] = set()
            try:
                done = self._write([write for group in groups for write in group.writes])
            except OSError as e:
                self._broken = True  # no sync is retried after a failure
                log.error("the journal's front cannot be written: %s", e.strerror or e)
                error = (
                    Full("no space left for the journal's front")
                    if no_space(e)
                    else Unavailable(f"the journal's front: {e}")
                )
            except Exception as e:
                self._broken = True
                log.exception("the journal's front failed")
                error = Unavailable(f"the journal's front failed: {type(e).__name__}")
            for group in groups:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    group.loop.call_soon_threadsafe(self._deliver, group, done, error)

    def _write(self, writes: Sequence[_Write]) -> set[str]:
        """The ids that are synced. Raises OSError, and then the result is unknown."""
        if not writes or self._broken:  # writes queued when one failed: the admission decides on them
            return set()
        self._disk.lock()
        try:
            with self._lock:
                if not self._synced and self._at > AGAIN:
                    self._at = 0
            generation, synced, number = self._shared.generation, self._number, self._number
            data, some = bytearray(), []
            for write in writes:
                if write.generation != generation:
                    continue
                numbered = write.numbered(number + 1)
                frame = numbered.frame(synced)
                if self._at + len(data) + len(frame) > SIZE:
                    break  # full: later verdicts go to the admission, which moves the frames first
                data += frame
                some.append((numbered, write.event))
                number += 1
            if not some:
                return set()
            self._number = number
            failpoint("begin")
            for _, event in some:
                passes("front", next(iter(event.private.get("message_id", ())), event.id))
            failpoint("before-sync")
            self._disk.write(bytes(data), FIRST + self._at)
            failpoint("after-sync")
            self._at += len(data)
        finally:
            self._disk.unlock()
        with self._lock:
            self._synced += some
        return {event.id for _, event in some}

    # in the event loop

    def _in_place(self) -> bool:
        """Whether its file, the page and the database are still at their paths. Not for the thread: each of these calls
        releases the interpreter's lock, and would wait for it while the event loop is busy."""
        return (inode(self._database.path), inode(self.path)) == self._inodes and self._shared.in_place

    def _deliver(self, group: _Group, done: set[str], error: LedgerError | None) -> None:
        group.late.cancel()
        if done:
            self._wake()
            if not self._in_place():
                self._on = False
                log.error("%s was removed while it was written", self.path)
                error = Unavailable(f"{self.path} was removed while it was written")
            else:
                self._looked = group.loop.time()
        for write in group.writes:
            there, late = write.event.id in done, write.future.done()
            if there and (late or error is not None):  # it is not carried out
                self._note(
                    Event(kind=Kind.OUTCOME, id=write.event.id, at=write.event.at, data={"outcome": "unanswered"})
                )
            if not late and error is not None:
                write.future.set_exception(error)
            elif not late:
                write.future.set_result(there)

    # in the writer's thread

    @property
    def waits(self) -> bool:
        """Whether there is anything to move."""
        return bool(self._synced) or (self._broken and not self._ended)

    def move(self, batch: Batch) -> tuple[int, Sequence[Event]]:
        """Move frames into the chain, as the first of the batch. Returns the last number moved, and the events that
        other processes have moved already."""
        with self._lock:
            unmoved, ended = self._synced[:], self._broken
        if not unmoved and not ended:
            return 0, ()
        known = batch.select("SELECT moved FROM front WHERE name = ?", (self.name,))
        if known:
            moved = known[0][0]
            theirs, ours = ([pair for pair in unmoved if (pair[0].number <= moved) is past] for past in (True, False))
        else:
            theirs, ours = self._unknown(batch, unmoved)
        if ours:
            batch.append_fronted([fronted for fronted, _ in ours], [event for _, event in ours])
        # whether a failed write is on disk is unknown; its client was told so, and it is not taken over
        last = self._number if ended else unmoved[-1][0].number
        batch.front_moved(self.name, last)
        return last, [event for _, event in theirs]

    def _unknown(self, batch: Batch, unmoved: Sequence[tuple[Fronted, Event]]) -> tuple[Any, Any]:
        """The database no longer knows this front: it was restored to another state, or the front was removed. Its
        verdicts were carried out, so they go into the chain unless they are there, or would follow the end of their
        generation."""
        self._on = False
        ids = [fronted.id for fronted, _ in unmoved]
        marks = ", ".join("?" * len(ids))
        there = {id for (id,) in batch.select(f"SELECT id FROM entry WHERE kind = 'verdict' AND id IN ({marks})", ids)}
        late = [f for f, _ in unmoved if f.id not in there and f.generation != batch.head.generation]
        if late:
            log.error("%d verdicts of %s do not fit the journal, and were removed", len(late), self.path)
        gone = there | {fronted.id for fronted in late}
        return [p for p in unmoved if p[0].id in there], [p for p in unmoved if p[0].id not in gone]

    def committed(self, number: int, generation: int) -> None:
        """The last number moved, and the generation under which this process may write. Only a transaction finds out
        that it may: that the secret is in force and the database is the same."""
        self._agreed, self._stalled = generation, False
        with self._lock:
            self._ended = self._broken and number >= self._number
            self._synced = [pair for pair in self._synced if pair[0].number > number]

    def stalled(self) -> None:
        """A commit failed, so the entries here may not be moved. Until one succeeds, the admission decides, and answers
        451 if it cannot."""
        self._stalled = True

    # its end

    async def stop(self) -> None:
        """Write what waits, and end the thread; the writer then moves the rest."""
        self._on = False
        if self._coming:
            self._queue.put(_Group(asyncio.get_running_loop(), self._coming))
            self._coming = []
        self._queue.put(_STOP)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, WAIT_SECONDS)

    def close(self) -> None:
        """After the writer has ended. Frames that could not be moved stay, for the next process that opens the store."""
        if not self._synced and not self._broken:
            self._unlinked()
        self._disk.close()
        os.close(self._alive)
        self._shared.close()

    def _unlinked(self) -> None:
        for each in (self.path, live(self.path)):
            each.unlink(missing_ok=True)


_EACH_SCOPE = """WITH RECURSIVE each(scope) AS (SELECT min(scope) FROM {0} UNION ALL
 SELECT (SELECT min(scope) FROM {0} WHERE scope > each.scope) FROM each WHERE each.scope IS NOT NULL)
 SELECT scope FROM each WHERE scope IS NOT NULL"""


def _known(batch: Batch) -> Iterator[bytes]:
    """The keys of all holds, and every scope under which anybody is counted, also by an earlier version."""
    batch.flush()
    for (key,) in batch.connection.execute(text("SELECT DISTINCT key FROM hold")):
        yield bytes.fromhex(key)
    for (scope,) in batch.select(_EACH_SCOPE.format("moment")):
        yield scope_key(scope)
    for (scope,) in batch.select(_EACH_SCOPE.format("seen")):
        yield scope_key(number(bytes(scope)))
