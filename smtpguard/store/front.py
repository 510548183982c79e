"""The journal's front of one process: a thread that appends verdicts and their outcomes to its file and syncs them,
many at a time.

A verdict is recorded when it is synced. The delivery part moves the synced frames of all fronts into the chain every 80 ms
(Journal.move_fronts), in the same commit as the position in each front, so that no process with clients waits for the database.
That commit is not synced: until a later one is, the frames are on disk here. If the delivery part does not move them, this
process's own writer does. Any other process moves the front of a process that died (Batch.take_fronts). On any irregularity here
the message goes to the admission, from the beginning.
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
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain
from time import monotonic
from typing import Any

from smtpguard.config.statefiles import hand_over, sync_folder
from smtpguard.counts.counting import OF_CUSTOMERS, FrontKeys
from smtpguard.database.batch import Batch, Step, synced_frames
from smtpguard.database.engine import Database
from smtpguard.database.errors import Full, StoreError, Unavailable, no_space
from smtpguard.database.failpoint import failpoint, passes, traced
from smtpguard.database.files import Paths
from smtpguard.database.fronts import File, Fronts, Shared, live_file, scope_key
from smtpguard.journal.chain import Seal, columns_of
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import FIRST, Fronted, Head, fronted
from smtpguard.locale.phrase import some_of
from smtpguard.mail.constant import constant, maker
from smtpguard.policy.counted import Ask
from smtpguard.store.queue import WAIT_SECONDS

log = logging.getLogger(__name__)

SIZE = 8 << 20
"""The octets of the file after its head. They are allocated beforehand, so that a sync writes data only."""
AGAIN = SIZE // 4
"""The octet after the head from which on the file is overwritten from its beginning, once all of it has been moved."""
LOOK_SECONDS = 0.05
"""The time after a write for which the next one does not check before it that the files are in place, only after it."""
IDLE_SECONDS = 0.000015
"""The longest turn of an idle event loop."""
GATHER_SECONDS = 0.002
"""The longest time for which verdicts gather while the event loop is busy. Many cost little more than one, and around each write the
thread takes the interpreter's lock from the loop several times. In an idle loop they do not gather."""
GATHER_TURNS = 12
"""The most turns of the event loop for which verdicts gather: on a slow machine no turn is idle by IDLE_SECONDS."""
NOTE_SECONDS = 0.025
"""The time for which outcomes gather, and then wait again for a verdict with which they are written. A freeze names messages without
an outcome as past recall."""
MANY = 16
"""The number of outcomes that go with the next verdict at once: many together cost little more than one."""
PUBLISH_SECONDS = 0.03
"""The time for which subscribers wait for verdicts and outcomes, so that they get many at once: to publish holds the interpreter's
lock, which the event loop needs to answer clients."""
LATE_SECONDS = 1.0
"""The time after a write by which another process has moved its frames; if not, this one moves them."""
_LARGEST = 1 << 16  # characters of a body, and of clear values
_MOST_OPEN = 10_000  # verdicts whose outcome is awaited here
_MOST_NAMED = 20  # verdicts in a line of the log
_FINAL = frozenset({"relayed", "refused"})
"""Outcomes after which nothing more is decided on a message."""
_VERDICT = Kind.VERDICT.value
_STOP: Any = object()


@constant
class _Write:
    event: Event
    fronted: Fronted
    future: asyncio.Future[bool | None]


_new_write = maker(_Write)


class _Group:
    """Verdicts that go to the thread together, whose callers wait until ``until``, and outcomes, for which nobody waits."""

    __slots__ = ("outcomes", "until", "writes")

    def __init__(self, writes: list[_Write], outcomes: list[Event], until: float) -> None:
        self.writes, self.outcomes, self.until = writes, outcomes, until

    def give_up(self) -> None:
        for write in self.writes:
            if not write.future.done():
                write.future.set_exception(TimeoutError())


class Disk:
    """The file of a front. Tests replace it to simulate a power failure."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def lay_out(self, head: bytes) -> None:
        """Write the head and zeros up to the file's size, and sync them."""
        os.pwrite(self._file, head, 0)
        zeros = bytes(1 << 20)
        for at in range(FIRST, FIRST + SIZE, len(zeros)):
            os.pwrite(self._file, zeros, at)
        os.fsync(self._file)

    def reopen(self, path: str) -> None:
        """Open the file again, so that from now on each write is synced when it returns."""
        os.close(self._file)
        self._file = os.open(path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC)

    def write(self, data: bytes, at: int) -> None:
        if os.pwrite(self._file, data, at) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._file)


class Front:
    """The front of this process, made by ``Store.open_front``."""

    def __init__(
        self,
        database: Database,
        fronts: Fronts,
        secret: bytes,
        *,
        wake: Callable[[], None],
        note: Callable[[Event], None],
        publish: Callable[[Sequence[Event]], None],
        write: Callable[[Step], Awaitable[Any]],
        disk: Callable[[str], Disk] = Disk,
    ) -> None:
        """``wake``: make the writer move the frames soon. ``note``: give the writer an outcome, for which nobody waits. ``publish``: give
        subscribers events that are synced. ``write``: run a step in the writer, and commit it."""
        self._database, self._fronts, self._secret = database, fronts, secret
        self._wake, self._note, self._publish, self._commit, self._make = wake, note, publish, write, disk
        self._barrier = threading.Lock()
        self._front_keys = FrontKeys(secret)
        self.name = secrets.token_hex(8)
        self.path = fronts.folder / f"{self.name}.front"
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._coming: list[_Write] = []
        self._outcomes: deque[Event] = deque()
        self._underway: deque[_Group] = deque()  # groups that the thread has not answered
        self._limit: asyncio.TimerHandle | None = None  # the end of the wait of the first group
        self._open: dict[str, None] = {}  # verdicts recorded here whose outcome is not known
        self._timer: asyncio.TimerHandle | None = None  # the end of the wait of outcomes
        self._due = False  # whether outcomes go with the next verdict
        self._watched: asyncio.TimerHandle | None = None  # the time at which unmoved frames are late
        self._late = False
        self._number = self._at = 0
        self._looked = -math.inf  # the loop's time at which its files were last seen in place
        self._agreed = -1  # the generation under which this process may write
        self._on = self._broken = False
        self._stalled = False  # whether the last commit failed
        self._thread = threading.Thread(target=self._run, name="smtpguard-front", daemon=True)

    def make(self, head: Head) -> None:
        """Create the file, outside any transaction. Raises OSError."""
        self._fronts.folder.mkdir(mode=0o700, exist_ok=True)
        self._alive = os.open(live_file(self.path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._disk = self._make(str(self.path))
            try:
                self._disk.lay_out(head.octets())
                self._disk.reopen(str(self.path))
                for each in (self.path, live_file(self.path)):
                    hand_over(each, self._fronts.folder)
                sync_folder(self._fronts.folder)
                self._file = File(self.path)
                self._progress = self._file.progress
                page = self._fronts.folder / "shared"
                self._shared = Shared(page)
            except BaseException:
                self._disk.close()
                raise
        except BaseException:
            for each in (self.path, live_file(self.path)):
                each.unlink(missing_ok=True)
            os.close(self._alive)
            raise
        self._seal = Seal(self._secret, head.journal, remembers=True)
        # looked at in the loop only: each look releases the interpreter's lock, for which the thread would have to wait
        self._paths = Paths(self._database.path, self.path, page)

    def announce(self, batch: Batch) -> None:
        """Register the front, as a step of the writer. A front that the database does not know is never taken over."""
        batch.take_fronts()
        page = batch.open_page()
        if page is None:
            raise RuntimeError("a front for a database without one")
        others = any(file.is_alive for file in self._fronts.all() if file.name != self.name)
        page.fill(_all_keys(batch), anew=not others)
        self._agreed = batch.head.generation
        batch.execute("INSERT INTO front (name, moved) VALUES (?, ?)", [(self.name, 0)])

    def start(self) -> None:
        """Start the thread. Call it in the event loop that uses the front, once the registration is committed."""
        self._loop = asyncio.get_running_loop()
        self._on = self._shared.is_filled
        self._thread.start()

    # -- in the event loop

    @property
    def generation(self) -> int | None:
        """The gate's generation, read now; ahead of it while the gate moves. None if the front cannot be used."""
        return self._shared.generation if self._on else None

    def counts_nobody(self, ask: Ask) -> bool:
        """Return whether it is certain that no process has counted anybody under ``ask``. Only counts of a sender's customers are known."""
        if ask.fact not in OF_CUSTOMERS or ask.same or ask.usual is not None:
            return False
        return not self._shared.may_have(self._front_keys.key_of(ask.fact, ask.key))

    def may_hold(self, key: str) -> bool:
        """Return whether there may be a hold with this key."""
        return self._shared.may_have(bytes.fromhex(key))

    async def record(self, event: Event, *, key: str, marks: str, generation: int) -> bool:
        """Record a verdict. Returns True if it is synced, under this generation of the gate; False if nothing was written: then the
        admission must decide, from the beginning. Raises StoreError if the result is unknown, and TimeoutError."""
        if not self._on or self._broken or self._stalled or generation != self._agreed:
            return False
        derived = columns_of(_VERDICT, event.id, event.data)
        if derived.action or derived.lists or derived.names:  # Batch.append_fronted looks only for ``observed``
            return False
        made = fronted(event, self._seal, key=key, marks=marks, generation=generation)
        if len(made.body) > _LARGEST or len(made.clear or "") > _LARGEST:
            return False
        write = _new_write(event=event, fronted=made, future=self._loop.create_future())
        if not self._coming:
            now = monotonic()
            self._loop.call_soon(self._hand_over, 0, GATHER_TURNS, now, now + GATHER_SECONDS)
        self._coming.append(write)
        there = await write.future
        if there is None:  # the gate moved meanwhile, and its mover may have taken this verdict or not
            found = "SELECT 1 FROM entry WHERE id = ? AND kind = ?"
            there = bool(await self._commit(lambda b: b.select(found, (event.id, event.kind.value))))
            if there:
                self._publish([event])
                self._await_outcome(event)
        return there

    def _await_outcome(self, event: Event) -> None:
        """Remember that the outcome of a verdict comes here."""
        self._open[event.id] = None
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]

    def note(self, event: Event) -> bool:
        """Write the outcome of a verdict that is recorded here, soon. Returns False if the writer must record it, after the verdict."""
        if event.id not in self._open:
            return False
        del self._open[event.id]
        if not self._on or self._broken or event.data.get("outcome") not in _FINAL or event.private:
            return False
        self._outcomes.append(event)
        if self._timer is None:
            self._timer = self._loop.call_later(NOTE_SECONDS, self._flush)
        return True

    def outcomes(self) -> list[Event]:
        """Take the outcomes that wait, to write them now. Any thread may call it."""
        taken: list[Event] = []
        try:
            while True:
                taken.append(self._outcomes.popleft())
        except IndexError:
            return taken

    def _flush(self) -> None:
        self._timer = None
        if self._due and not self._coming:
            self._put()
        elif self._outcomes:
            self._due, self._timer = True, self._loop.call_later(NOTE_SECONDS, self._flush)

    def _hand_over(self, seen: int, turns: int, since: float, until: float) -> None:
        """Hand over to the thread in the first turn of the event loop that is idle and brings no new items, or after ``turns`` turns, or
        at ``until``. ``seen``: the number of items in the turn before, which began at ``since``."""
        now = monotonic()
        if seen < len(self._coming) or (turns > 0 and now - since > IDLE_SECONDS and now < until):
            self._loop.call_soon(self._hand_over, len(self._coming), turns - 1, now, until)
        elif self._coming:
            self._put()

    def _put(self) -> None:
        group = self._take_group()
        if self._loop.time() - self._looked < LOOK_SECONDS or self._paths.are_in_place:
            self._queue.put(group)
            return
        self._on = False
        log.error("%s or its journal has been moved: it is no longer used", self.path)
        self._deliver([group], {}, None)

    def _take_group(self) -> _Group:
        """Return a group of all that waits, and begin its time limit."""
        outcomes: list[Event] = []
        if self._due or len(self._outcomes) >= MANY:
            outcomes, self._due = self.outcomes(), False
        group = _Group(self._coming, outcomes, self._loop.time() + WAIT_SECONDS)
        self._coming = []
        self._underway.append(group)
        if self._limit is None:
            self._give_up()
        return group

    def _give_up(self) -> None:
        """Answer verdicts that have waited too long. One timer is enough for all groups: they end in their order."""
        self._limit = None
        for group in self._underway:
            if group.until > self._loop.time():
                self._limit = self._loop.call_at(group.until, self._give_up)
                break
            group.give_up()

    # -- in its thread

    def _run(self) -> None:
        going, unpublished, due = True, list[Event](), 0.0
        while going:
            taken = self._next(PUBLISH_SECONDS if unpublished else None)
            going = _STOP not in taken
            groups = [group for group in taken if group is not _STOP]
            error: StoreError | None = None
            done: dict[str, bool | None] = {}
            try:
                outcomes = [event for group in groups for event in group.outcomes]
                done = self._write([write for group in groups for write in group.writes], outcomes)
            except OSError as e:
                self._broken = self._late = True  # no sync is retried after a failure
                log.error("the journal's front cannot be written: %s", e.strerror or e)
                error = (
                    Full("no space left for the journal's front")
                    if no_space(e)
                    else Unavailable(f"the journal's front: {e}")
                )
            except Exception as e:
                self._broken = self._late = True
                log.exception("the journal's front failed")
                error = Unavailable(f"the journal's front failed: {type(e).__name__}")
            if groups:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    self._loop.call_soon_threadsafe(self._deliver, groups, done, error)
            now = monotonic()
            due = due if unpublished else now + PUBLISH_SECONDS
            unpublished += [event for group in groups for event in group.outcomes if event.id in done]
            unpublished += [write.event for group in groups for write in group.writes if done.get(write.event.id)]
            if now >= due or not groups or not going:
                self._publish(unpublished)
                unpublished = []

    def _next(self, seconds: float | None) -> list[Any]:
        """Return what has been handed over; nothing after ``seconds`` without it."""
        try:
            taken = [self._queue.get(timeout=seconds)]
        except queue.Empty:
            return []
        while not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def _write(self, writes: Sequence[_Write], outcomes: Sequence[Event]) -> dict[str, bool | None]:
        """Write and sync. Returns the ids that are synced; None for a verdict during whose write the gate moved. Raises OSError, and
        then the result is unknown."""
        if self._broken:  # an earlier write failed: the admission decides on these
            return {}
        if self._at > AGAIN and not self.has_unmoved:
            self._fronts.sync()
            self._at = 0
        generation, synced = self._shared.generation, self._number
        frames, some, number, size = list[bytes](), list[Event](), synced, 0
        for event, made in chain(
            ((event, fronted(event, self._seal, generation=generation or 0)) for event in outcomes),
            ((write.event, write.fronted) for write in writes if write.fronted.generation == generation),
        ):
            frame = made.frame(synced, number + 1)
            size += len(frame)
            if self._at + size > SIZE:
                break  # full: later verdicts go to the admission, which moves the frames first
            frames.append(frame)
            some.append(event)
            number += 1
        if not some:
            return {}
        self._number = number
        failpoint("begin")
        if traced():
            for event in some:
                passes("front", next(iter(event.private.get("message_id", ())), event.id))
        failpoint("before-sync")
        data = b"".join(frames)
        self._disk.write(data, FIRST + self._at)
        failpoint("after-sync")
        if self._broken:  # set aside meanwhile: nobody reads what was written
            return {}
        self._at += len(data)
        self._progress.written = self._at, number
        with (
            self._barrier
        ):  # so that every processor orders the write of the progress before the read of the generation
            stood = self._shared.generation == generation
        return {event.id: True if stood or event.kind is not Kind.VERDICT else None for event in some}

    # -- in the event loop

    def _deliver(self, groups: Sequence[_Group], done: Mapping[str, bool | None], error: StoreError | None) -> None:
        """Answer the callers of groups. ``done``: as ``_write`` returns."""
        for group in groups:
            self._underway.remove(group)
        if error is not None:
            self._wake()
        if done:
            self._watch()
            if not self._paths.are_in_place:
                self._on = False
                log.error("%s was removed while it was written", self.path)
                error = Unavailable(f"{self.path} was removed while it was written")
            else:
                self._looked = self._loop.time()
        for event in chain.from_iterable(group.outcomes for group in groups):
            if event.id not in done:
                self._note(event)
        for write in chain.from_iterable(group.writes for group in groups):
            there, late = done.get(write.event.id, False), write.future.done()
            if there and (late or error is not None):  # it is not carried out
                self._note(
                    Event(kind=Kind.OUTCOME, id=write.event.id, at=write.event.at, data={"outcome": "unanswered"})
                )
            if not late and error is not None:
                write.future.set_exception(error)
            elif not late:
                if there:
                    self._await_outcome(write.event)
                write.future.set_result(there)

    def _look(self, number: int) -> None:
        """Make the writer move the frames up to ``number`` if no other process has moved them."""
        self._watched = None
        if self._progress.moved < number:
            self._late = True
            self._wake()
        if self.has_unmoved:
            self._watch()

    def _watch(self) -> None:
        if self._watched is None:
            self._watched = self._loop.call_later(LATE_SECONDS, self._look, self._number)

    # -- in the writer's thread

    @property
    def has_unmoved(self) -> bool:
        """Whether frames are not in the chain yet."""
        return self._progress.moved < self._number

    @property
    def is_late(self) -> bool:
        """Whether the writer must move the frames, since no other process does."""
        return self._late and self.has_unmoved

    def move(self, batch: Batch) -> None:
        """Move the synced frames, before anything else of the batch: further entries on the same messages follow them."""
        if not self.has_unmoved:
            return
        broken = self._broken  # read before the frames: one that is synced after that is moved later
        if batch.move_front(self._file) is None:
            self._move_unknown(batch)
        if broken:
            # Whether a failed write is on disk is unknown; its client was told so, and it is not taken over.
            batch.front_moved(self.name, self._number)

    def _move_unknown(self, batch: Batch) -> None:
        """Move the frames of a front that the database no longer knows: it was restored to another state, or the front was removed.

        Its verdicts were carried out, so they go into the chain unless they are there, or would follow the end of their
        generation. In the latter case the file is kept, since they may have been relayed.
        """
        self._on = False
        moved, (_, number) = self._progress.moved, self._progress.written
        frames = synced_frames(self._file, moved)
        new = batch.lacks(frames)
        late = {f.id for f in new if f.kind == _VERDICT and f.generation != batch.head.generation}
        if late:
            self._set_aside(f"the journal does not take its verdicts {some_of(sorted(late), _MOST_NAMED)}")
        elif moved + len(frames) < number:
            self._set_aside(f"frame {moved + len(frames) + 1} cannot be read")
        batch.append_fronted([f for f in new if f.id not in late])
        batch.fronts_moved[self.name] = max(moved + len(frames), number)  # a frame that is being written comes later

    def _set_aside(self, why: str) -> None:
        self._broken = True  # nothing more is written over its frames
        self._file.set_aside(why)

    def committed(self, generation: int, moved: int) -> None:
        """Take the generation under which this process may write, after a commit. Only a transaction finds out that it may: that the
        secret is in force, and the database is the same. ``moved``: the last frame that the commit moved, also if the file was
        set aside; 0 for none."""
        self._progress.moved = moved
        self._agreed, self._stalled, self._late = generation, False, False

    def stall(self) -> None:
        """Take no more verdicts until a commit succeeds, after one failed: frames might not be moved. Meanwhile the admission decides,
        and answers 451 if it cannot."""
        self._stalled = self._late = True

    # -- at its end

    async def stop(self) -> None:
        """Write what waits, and end the thread. The writer then moves the rest."""
        self._on = False
        for timer in filter(None, (self._timer, self._watched)):
            timer.cancel()
        self._due = True
        if self._coming or self._outcomes:
            self._queue.put(self._take_group())
        self._queue.put(_STOP)
        await self._loop.run_in_executor(None, self._thread.join, WAIT_SECONDS)
        self._late = True

    def close(self) -> None:
        """Remove or close the file. Call it after the writer has ended. Frames that could not be moved stay, for the next process that
        opens the store."""
        if not self.has_unmoved and not self._broken:
            try:
                self._fronts.remove(self._file)
            except OSError as error:
                log.warning("%s stays: %s", self.path, error.strerror)
        self._disk.close()
        os.close(self._alive)
        self._shared.close()


_EACH_SCOPE = """WITH RECURSIVE each(scope) AS (SELECT min(scope) FROM moment UNION ALL
 SELECT (SELECT min(scope) FROM moment WHERE scope > each.scope) FROM each WHERE each.scope IS NOT NULL)
 SELECT scope FROM each WHERE scope IS NOT NULL"""


_EACH_KEY = """SELECT DISTINCT key FROM hold
 WHERE typeof(key) = 'text' AND length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'"""


def _all_keys(batch: Batch) -> Iterator[bytes]:
    """Yield the keys of all holds and of all scopes under which anybody is counted. A key of a hold that is no SHA-256 any more is
    left out: no message has it."""
    batch.flush()
    for (key,) in batch.select(_EACH_KEY):
        yield bytes.fromhex(key)
    for (scope,) in batch.select(_EACH_SCOPE):
        yield scope_key(scope)
