"""The front on disks that fail or are full, and after power cuts."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from smtpguard.config.statefiles import sync_folder
from smtpguard.database import files
from smtpguard.database.batch import Batch
from smtpguard.database.engine import Database
from smtpguard.database.errors import Full, StoreError, Unavailable
from smtpguard.database.files import sync_log
from smtpguard.database.fronts import Shared
from smtpguard.database.statements import Row
from smtpguard.journal.event import Kind
from smtpguard.journal.front import FIRST, tail
from smtpguard.store import front as fronts
from smtpguard.store import writer as writers
from smtpguard.store.front import Disk, Front
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.fronting import MARKS, fronted, moved, outcome, pause_moving, record, store_of, verdict
from tests.store.making import event, item, key, relays


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_of(tmp_path) as opened:
        yield opened


class Fails(Disk):
    error: OSError | None = None

    def write(self, data: bytes, at: int) -> None:
        if self.error is not None:
            super().write(data[: len(data) // 2], at)
            raise self.error
        super().write(data, at)


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, Full), (errno.EIO, Unavailable)])
async def test_a_failing_disk_records_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Fails})
    front = await fronted(store)
    assert await record(front, "T1")
    front._disk.error = OSError(code, os.strerror(code))  # type: ignore[attr-defined]
    with pytest.raises(kind):
        await record(front, "T2")
    front._disk.error = None  # type: ignore[attr-defined]
    assert not await record(front, "T3"), "nothing is synced again over a failure"
    store.journal.note(outcome("T1"))
    assert await moved(store) == ["T1"]
    await store.journal.take_fronts()
    assert await moved(store) == ["T1"], "an unacknowledged verdict is not taken over"
    assert [e.kind for e, _ in await store.journal.history("T1")] == ["verdict", "outcome"]


async def test_after_a_failed_write_nothing_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed write the front writes no more, not even what was queued: a frame before it may be missing."""
    begun, fails, written = threading.Event(), threading.Event(), 0

    class Slow(Disk):
        def write(self, data: bytes, at: int) -> None:
            nonlocal written
            written += 1
            begun.set()
            assert fails.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Slow})
    front = await fronted(store)
    pause_moving(store, front)
    first = asyncio.create_task(record(front, "T1"))
    await asyncio.to_thread(begun.wait, 60)
    second = asyncio.create_task(record(front, "T2"))
    while front._queue.empty():  # noqa: ASYNC110 - until it is with the thread
        await asyncio.sleep(0)
    fails.set()
    with pytest.raises(Unavailable):
        await first
    assert not await second, "the admission decides on it"
    assert written == 1


def locks_in(folder: Path) -> list[Path]:
    """Of fronts there, as long as this process has them open."""
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [link for link in links if link.parent == folder and ".live" in link.name]


@pytest.mark.parametrize("place", [(Disk, "lay_out"), (os, "posix_fallocate")])
async def test_without_disk_space_there_is_no_front(
    store: Store, monkeypatch: pytest.MonkeyPatch, place: tuple[object, str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*place, full)
    assert await store.open_front() is None
    assert store._database.fronts is not None
    assert store._database.fronts.all() == []
    assert not locks_in(store._database.fronts.folder), "nobody holds the lock of a front that is not there"
    await store.admit(item("T1"), relays("T1"))
    monkeypatch.undo()
    assert await record(await fronted(store), "T2"), "once there is room"


def test_the_page_of_the_fronts_has_its_room(tmp_path: Path) -> None:
    with closing(Shared(tmp_path / "shared")):
        there = (tmp_path / "shared").stat()
    assert there.st_blocks * 512 >= there.st_size, "a write to a mapped page without room kills the process"


def rename(store: Store, table: str, to: str) -> None:
    with closing(sqlite3.connect(store._database.path)) as connection, connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {to}")


async def test_while_the_database_fails_the_admission_decides(store: Store) -> None:
    front = await fronted(store)
    rename(store, "underway", "away")
    assert await record(front, "T1"), "no process has noticed it yet"
    with pytest.raises(StoreError):
        await store.admit(item("T2"), relays("T2"))
    assert not await record(front, "T3")
    rename(store, "away", "underway")
    await store.journal.record([event(Kind.START, "a commit")])
    assert await record(front, "T4")
    assert await moved(store) == ["T1", "T4"]


async def test_a_full_front_leaves_it_to_the_admission(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    monkeypatch.setattr(fronts, "SIZE", 1000)
    monkeypatch.setattr(fronts, "AGAIN", 100)
    assert await record(front, "T1")
    assert await record(front, "T2")
    n = 2
    while await record(front, f"T{n + 1}"):
        n += 1
    store._writer.front = front
    assert len(await moved(store)) == n
    assert await record(front, "after"), "from its beginning again"
    assert (await moved(store))[-1] == "after"


async def test_the_file_is_reused_in_rounds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await fronted(store)
    monkeypatch.setattr(fronts, "SIZE", 4000)
    monkeypatch.setattr(fronts, "AGAIN", 1000)
    chance = random.Random(3)
    wanted: list[str] = []
    for n in range(100):
        if await record(front, f"T{n}"):
            wanted.append(f"T{n}")
        if chance.random() < 0.3:
            assert await moved(store) == wanted
    assert len(wanted) > 50
    assert await moved(store) == wanted


@pytest.mark.parametrize("what", ["database", "front", "page"])
async def test_with_its_files_gone_it_is_not_used(store: Store, tmp_path: Path, what: str) -> None:
    front = await fronted(store)
    gone = {"database": tmp_path / "guard.db", "front": front.path, "page": tmp_path / "front-guard-db" / "shared"}[
        what
    ]
    kept = gone.with_name("kept")
    gone.rename(kept)
    assert not await record(front, "T1")
    assert front.generation is None
    if what == "database":
        with pytest.raises(StoreError):
            await store.admit(item("T1"), relays("T1"))
    kept.rename(gone)
    assert await moved(store) == []


async def test_a_folder_that_was_away_is_used_again(store: Store, tmp_path: Path) -> None:
    """Also one that was closed to its user for a while."""
    await fronted(store)
    folder, kept = tmp_path / "front-guard-db", tmp_path / "kept"
    folder.rename(kept)
    folder.write_bytes(b"")
    with pytest.raises(StoreError):
        await store.admit(item("T1"), relays("T1"))
    folder.unlink()
    kept.rename(folder)
    await store.admit(item("T2"), relays("T2"))


@pytest.mark.parametrize("what", ["database", "front", "page"])
async def test_files_are_looked_at_once_their_folder_has_changed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A look at a file makes the next write to it change its times, and the sync writes them too."""
    front, folder = await fronted(store), tmp_path / "front-guard-db"
    gone = {"database": tmp_path / "guard.db", "front": front.path, "page": folder / "shared"}[what]
    looked: list[str] = []
    look = files.inode

    def counted(path: Path | str) -> tuple[int, int] | None:
        looked.append(str(path))
        return look(path)

    monkeypatch.setattr(files, "inode", counted)
    monkeypatch.setattr(files, "_SETTLED_NS", -1 << 62)  # the last change is long ago
    assert await record(front, "T1")
    looked.clear()
    assert front._paths.are_in_place
    assert looked == []
    before = gone.parent.stat().st_ctime_ns
    gone.rename(gone.with_name("kept"))
    while gone.parent.stat().st_ctime_ns == before:  # an older kernel's clock of files has ticks of 10 ms
        (gone.parent / "another").touch()
        (gone.parent / "another").unlink()
    assert not front._paths.are_in_place
    monkeypatch.undo()
    gone.with_name("kept").rename(gone)


async def test_a_folder_that_cannot_be_read_is_a_store_that_does_not_answer(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the delivery part, which moves all fronts, waits and does not end."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(store.journal._access.fronts, "folder", tmp_path / "file" / "folder")
    with pytest.raises(Unavailable, match="the fronts of the journal: Not a directory"):
        await store.journal.move_fronts()


async def test_removed_during_a_write_it_is_unavailable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(Disk):
        def write(self, data: bytes, at: int) -> None:
            super().write(data, at)
            front.path.unlink()

    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Taken})
    front = await fronted(store)
    with pytest.raises(Unavailable):
        await record(front, "T1")
    assert front.generation is None
    while not [e for e, _ in await store.journal.history("T1") if e.data.get("outcome") == "unanswered"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


# power cuts


class Power(Disk):
    """Keeps synced data apart from written data. Of the write in progress, any sectors may be on the disk."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.synced, self.going, self.direct = bytearray(), (b"", 0), False

    def lay_out(self, head: bytes) -> None:
        super().lay_out(head)
        self.synced = bytearray(os.pread(self._file, FIRST + fronts.SIZE, 0))

    def reopen(self, path: str) -> None:
        super().reopen(path)
        self.direct = bool(fcntl.fcntl(self._file, fcntl.F_GETFL) & os.O_DSYNC)

    def write(self, data: bytes, at: int) -> None:
        self.going = data, at
        super().write(data, at)
        if self.direct:
            self.synced[at : at + len(data)] = data

    def cut(self, chance: random.Random) -> bytes:
        """The disk's content after a power cut before or during the last write."""
        left, (data, at) = bytearray(self.synced), self.going
        for start in range(0, len(data), 512):
            if chance.random() < 0.5:
                piece = data[start : start + 512]
                piece = piece[: chance.randrange(len(piece) + 1)]
                left[at + start : at + start + len(piece)] = piece
        return bytes(left)


@pytest.mark.parametrize("seed", range(6))
async def test_a_power_loss_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Power})
    monkeypatch.setattr(fronts, "SIZE", 1 << 20)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    answered: list[str] = []

    async def one(n: int) -> None:
        if await record(front, f"T{n}"):
            answered.append(f"T{n}")

    async with store_of(here) as store:
        front = await fronted(store)
        await asyncio.gather(*(one(n) for n in range(chance.randrange(1, 40))))
        before = await moved(store)
        pause_moving(store, front)
        for start in range(100, 100 + 10 * chance.randrange(1, 5), 10):
            await asyncio.gather(*(one(n) for n in range(start, start + 10)))
        disk = front._disk
        assert isinstance(disk, Power)
        waiting = tail(front.path.read_bytes()[FIRST:], front._progress.moved).fronted
        going = b"".join(
            replace(f, number=f.number + 1000).frame(front._number) for f in waiting
        )  # no client got an answer
        disk.going = going, FIRST + front._at
        left = disk.cut(chance)
        with (
            closing(sqlite3.connect(here / "guard.db")) as database,
            closing(sqlite3.connect(there / "guard.db")) as copy,
        ):
            database.backup(copy)
        (there / "front-guard-db").mkdir()
        (there / "front-guard-db" / front.path.name).write_bytes(left)
    async with store_of(there) as after:
        await after.journal.take_fronts()
        found = await moved(after)
        assert set(before) <= set(found)
        assert set(answered) <= set(found), "nothing that was acknowledged is lost"
        assert after.journal.fronts_aside() == []


class Log:
    """The database's write-ahead log as it is on the disk: as it was when it was synced last."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.synced, write = folder, b"", Database.write

        @contextmanager
        def written(database: Database, *, synced: bool = True) -> Iterator[Connection]:
            with write(database, synced=synced) as connection:
                yield connection
            if synced:
                self.sync()

        def synced(path: Path) -> None:
            sync_log(path)
            self.sync()

        monkeypatch.setattr(Database, "write", written)
        monkeypatch.setattr("smtpguard.database.fronts.sync_log", synced)

    def sync(self) -> None:
        self.synced = (self.folder / "guard.db-wal").read_bytes()

    async def cut(self, into: Path) -> Sequence[str]:
        """The verdicts in the journal after a power cut now, on a copy."""
        shutil.copytree(self.folder, into, ignore=shutil.ignore_patterns("guard.db-*"))
        (into / "guard.db-wal").write_bytes(self.synced)
        async with store_of(into) as after:
            await after.journal.take_fronts()
            assert after.journal.fronts_aside() == []
            assert not (await after.gate.read()).freezes, "what was signed is there"
            return await moved(after)


@pytest.mark.parametrize("seed", range(3))
async def test_a_power_loss_undoes_no_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Moves are not synced, so a power cut may undo them; then the front still has their frames."""
    chance = random.Random(seed)
    here, answered = tmp_path / "here", list[str]()
    here.mkdir()
    monkeypatch.setattr(fronts, "SIZE", 4000)
    monkeypatch.setattr(fronts, "AGAIN", 1000)
    monkeypatch.setattr(writers, "SIGN_ENTRIES", 12)
    log = Log(here, monkeypatch)
    async with store_of(here) as mover:
        async with store_of(here) as store:
            front = await fronted(store)
            pause_moving(store, front)
            before = len(log.synced)
            for n in range(60):
                if await record(front, f"T{n}"):
                    answered.append(f"T{n}")
                if chance.random() < 0.5:
                    await mover.journal.move_fronts()
                if chance.random() < 0.05:
                    await mover.journal.record([event(Kind.START, "another commit")])
                if chance.random() < 0.1:
                    assert set(answered) <= set(await log.cut(tmp_path / f"cut{n}"))
            assert len(answered) > 40
            assert len(log.synced) > before
            assert front._progress.moved > 40, "it was overwritten"
            await mover.journal.move_fronts()
        assert set(answered) <= set(await log.cut(tmp_path / "closed")), "and its file is gone"
        assert not front.path.exists()


@asynccontextmanager
async def beside_a_mover(folder: Path) -> AsyncIterator[tuple[Store, Front]]:
    """A store that moves, and the front of another one, which does not."""
    async with store_of(folder) as mover, store_of(folder) as store:
        front = await fronted(store)
        pause_moving(store, front)
        yield mover, front


async def test_a_power_loss_undoes_no_move_of_an_ended_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, cut = tmp_path / "here", list[Path]()
    here.mkdir()
    log = Log(here, monkeypatch)
    async with beside_a_mover(here) as (mover, front):
        assert await record(front, "T1")
        await mover.journal.move_fronts()
        fcntl.flock(front._alive, fcntl.LOCK_UN)  # as when its process is killed

        def removed(folder: Path) -> None:
            sync_folder(folder)
            (tmp_path / "synced").write_bytes(log.synced)
            cut.append(folder)

        monkeypatch.setattr("smtpguard.database.fronts.sync_folder", removed)
        await mover.journal.take_fronts(only_ended=True)
        assert cut
        assert not front.path.exists()
        log.synced = (tmp_path / "synced").read_bytes()
        assert await log.cut(tmp_path / "there") == ["T1"]


async def test_moves_alone_are_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "SIGN_ENTRIES", 5)
    async with beside_a_mover(tmp_path) as (mover, front):
        for n in range(15):
            assert await record(front, f"T{n}")
            await mover.journal.move_fronts()
        assert (tmp_path / "checkpoints").read_text().count("\n") >= 2


async def test_what_is_read_as_proof_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path, monkeypatch)
    async with beside_a_mover(tmp_path) as (mover, front):
        assert await record(front, "T1")
        await mover.journal.move_fronts()
        log.synced, here = b"", tmp_path / "guard.db-wal"
        await mover.journal.index()
        await mover.journal.verify()
        assert log.synced == here.read_bytes()


async def test_a_clock_set_back_changes_no_order(tmp_path: Path) -> None:
    clock = Clock()
    async with store_of(tmp_path, clock) as store:
        front = await fronted(store)
        for n, hours in enumerate((0, -5, 3, -30)):
            clock.pass_(hours=hours)
            made = verdict(f"T{n}", at=clock)
            assert await front.record(made, key=key(f"T{n}"), marks=MARKS, generation=1)
        assert await moved(store) == ["T0", "T1", "T2", "T3"]


async def test_a_verdict_with_its_outcome_is_not_under_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    insert = Batch._insert

    def seen(batch: Batch, table: str, rows: Sequence[Row]) -> None:
        written.extend(row[0] for row in rows if table == "underway")
        insert(batch, table, rows)

    monkeypatch.setattr(Batch, "_insert", seen)
    front = await fronted(store)
    front._wake = lambda: None  # so that all of it comes with one batch
    for n in range(3):
        assert await record(front, f"T{n}")
    store.journal.note(event(Kind.OUTCOME, "T0", outcome="relayed"))
    store.journal.note(event(Kind.IN_DOUBT, "T1", outcome="in-doubt"))
    assert await moved(store) == ["T0", "T1", "T2"]
    assert sorted(written) == ["T1", "T2"]
    assert await store.journal.unsettled(Clock().now() + timedelta(days=1)) == ["T2"]
