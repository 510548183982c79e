"""The files of a SQLite database: one that is only read is never read while another process writes it; what is committed is on disk; and the
log is written back.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from smtpguard.database import engine
from smtpguard.database.engine import Database
from smtpguard.database.errors import CommitUnknown, Unavailable
from smtpguard.database.files import ReadOnlyCopy, is_only_readable
from smtpguard.database.migrate import migrate
from smtpguard.database.writeback import WriteBack
from smtpguard.journal.event import Event, Kind
from smtpguard.store.store import open_store
from tests.clocks import Clock
from tests.store.making import SECRET, T0
from tests.store.servers import new_database


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "100% a #copy.db"
    migrate(f"sqlite:///{path}")
    return path


def test_after_a_failed_commit_the_log_is_written_and_synced_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits before it that were not synced may be lost on the disk, and with them all behind them."""
    database, log = Database(f"sqlite:///{file}"), Path(f"{file}-wal")

    def insert(*, synced: bool = True) -> None:
        with database.write(synced=synced) as connection:
            done.append(b"begun")
            connection.exec_driver_sql("INSERT INTO kept VALUES (1)")

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "")

    def written(fd: int, data: bytes, at: int) -> int:
        done.append(data)
        return pwrite(fd, data, at)

    done, pwrite = list[bytes](), os.pwrite
    with closing(database), database.read():  # as other processes keep the log open
        with database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE kept (n)")
        insert(synced=False)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "failpoint", lambda name: fails() if name == "after-commit" else None)
            with pytest.raises(CommitUnknown):
                insert()
        before = log.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            with pytest.raises(Unavailable):
                insert()
        done.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", written)
            patch.setattr(os, "fsync", lambda _: done.append(b"synced"))
            insert()
            insert()
        assert b"".join(done[:-3]) == before
        assert done[-3:] == [b"synced", b"begun", b"begun"]


def test_a_writable_file_is_no_copy(file: Path, tmp_path: Path) -> None:
    assert not is_only_readable(file)
    assert not is_only_readable(tmp_path / "none.db"), "a missing file may be created"


def test_a_file_that_changes_while_read_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Database(f"sqlite:///{file}")
    monkeypatch.setattr(engine, "is_only_readable", lambda path: True)
    reading = Database(f"sqlite:///{file}", reads=True)
    try:
        with reading.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM entry")).scalar() == 0
        with pytest.raises(Unavailable, match="can only be read"), reading.write():
            raise AssertionError("nothing is written")
        with writing.write() as connection:
            connection.execute(text("UPDATE head SET generation = 7"))
        with pytest.raises(Unavailable, match="is being written by another process: try again"), reading.read() as rest:
            rest.execute(text("SELECT generation FROM head"))
    finally:
        writing.close()
        reading.close()


def test_a_symbolic_link_is_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "beside").symlink_to(file)
    copy = ReadOnlyCopy(tmp_path / "beside")
    copy.check()
    assert copy.uri.endswith("?mode=ro&immutable=1")


@pytest.mark.parametrize(
    ("default", "ours"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
)
async def test_every_write_transaction_is_durable(postgresql: str, tmp_path: Path, default: str, ours: str) -> None:
    url = new_database(postgresql)
    name = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = {default}")
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock(), migrate=True) as store:

        async def is_set() -> str:
            return str(await store.write(lambda b: b.connection.exec_driver_sql("SHOW synchronous_commit").scalar()))

        assert await is_set() == ours
        await store.journal.record([Event(kind=Kind.START, id="1", at=T0)])
        assert await is_set() == ours
    database = Database(url)
    try:
        with database.read() as reading:
            assert reading.exec_driver_sql("SHOW synchronous_commit").scalar() == default, "no case was tried"
    finally:
        database.close()


async def test_defaults_of_the_database_change_nothing(postgresql: str, tmp_path: Path) -> None:
    url = new_database(postgresql)
    name = url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(postgresql, autocommit=True) as connection:
        for setting in (
            "client_encoding = LATIN1", "extra_float_digits = -15", "bytea_output = escape", "datestyle = German",
            "intervalstyle = iso_8601", "timezone = 'Asia/Kolkata'", "statement_timeout = 2000", "lock_timeout = 2000",
            "default_transaction_isolation = serializable",
            "enable_seqscan = off", "standard_conforming_strings = off",
        ):  # fmt: skip
            connection.execute(f"ALTER DATABASE {name} SET {setting}")
    private = {"subject": ("Räksmörgås 日本語 😀",)}
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock()) as store:
        await store.journal.record([Event(kind=Kind.START, id="1", at=T0, data={"n": 0.1}, private=private)])
        [(entry, clear)] = await store.journal.history("1")
        assert (entry.time, entry.data, clear) == (T0, {"n": 0.1}, {"subject": list(private["subject"])})
        assert (await store.journal.verify()).ok


def test_a_stopped_process_does_not_block_other_writers(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_database(postgresql)
    assert engine.IDLE_SECONDS < engine.BUSY_SECONDS, "other writers wait longer"
    monkeypatch.setattr(engine, "IDLE_SECONDS", 1)
    stopped, other = Database(url), Database(url)
    with pytest.raises(CommitUnknown), stopped.write() as connection:  # noqa: PT012 - the other waits within it
        connection.exec_driver_sql("CREATE TABLE half (x int)")
        with other.write() as beside:  # waits until the server has rolled back the first
            beside.exec_driver_sql("CREATE TABLE whole (x int)")
    with stopped.write() as connection:
        there = "SELECT to_regclass('half') IS NULL, to_regclass('whole') IS NOT NULL"
        assert tuple(connection.exec_driver_sql(there).one()) == (True, True)
    for database in (stopped, other):
        database.close()


@pytest.mark.parametrize(
    ("minutes", "said"), [(4, ""), (61, "61 minutes ahead of"), (-61, "61 minutes behind"), (-4, "")]
)
def test_a_host_whose_clock_is_off_writes_nothing(
    postgresql: str, monkeypatch: pytest.MonkeyPatch, minutes: int, said: str
) -> None:
    """The times that it writes are read by others, and theirs by it: leases, pauses, and the ends of freezes."""
    database, now = Database(new_database(postgresql)), time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60 * minutes)
    if said:
        with pytest.raises(Unavailable, match=said), database.write():
            pass
        monkeypatch.undo()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE head SET generation = generation + 1")
    database.close()


PAGES = 200


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'guard.db'}")
    with made.write() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")
    return made


def write_back(database: Database) -> WriteBack:
    return WriteBack(database.path, database._readers.raw_connection, PAGES)


def grow(database: Database, commits: int = PAGES) -> None:
    for _ in range(commits):
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO t (x) VALUES (zeroblob(5000))")


def count(database: Database) -> int:
    """The number of rows in the database's file and log, read by another connection."""
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        [(n,)] = connection.execute("SELECT count(*) FROM t").fetchall()
        return int(n)


def test_the_log_is_long_from_a_number_of_pages_on(database: Database) -> None:
    one = write_back(database)
    log = Path(f"{database.path}-wal")
    assert not one.is_long()
    grow(database)
    assert one.is_long()
    size = log.stat().st_size
    one.run()
    grow(database, 1)
    assert not one.is_long(), "the log restarted, and its old pages are still in the file"
    assert log.stat().st_size == size
    assert count(database) == PAGES + 1
    database.close()
    assert not one.is_long(), "there is no log"


def test_the_log_restarts_while_others_commit(database: Database) -> None:
    one, over = write_back(database), threading.Event()
    written = [PAGES]

    def commits() -> None:
        while not over.is_set():
            grow(database, 1)
            written[0] += 1

    grow(database)
    log = Path(f"{database.path}-wal")
    salt = log.read_bytes()[16:24]
    other = threading.Thread(target=commits)
    other.start()
    try:
        while log.read_bytes()[16:24] == salt:
            one.run()
    finally:
        over.set()
        other.join()
    assert count(database) == written[0]
    database.close()


def test_a_reader_is_not_waited_for(database: Database) -> None:
    one = write_back(database)
    with database.read() as reading:
        assert reading.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
        grow(database)
        one.run()
        assert reading.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
        grow(database, 1)
        assert one.is_long(), "the reader needs its pages"
    one.run()
    grow(database, 1)
    assert not one.is_long()
    database.close()


def test_a_commit_starts_a_checkpoint(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    monkeypatch.setattr(WriteBack, "run", lambda self: begun.set())
    monkeypatch.setattr(database._write_back, "_pages", PAGES)
    grow(database)
    assert begun.wait(60)
    with database.write() as connection:
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 32000, "no commit starts one before"
    database.close()


def test_after_a_failed_checkpoint_commits_continue(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    grow(database)
    WriteBack(database.path, fails, PAGES).run()
    assert "disk I/O error" in caplog.text
    grow(database, 1)
    assert count(database) == PAGES + 1
    database.close()


async def test_a_trial_of_the_store_lets_the_log_start_again(file: Path, tmp_path: Path) -> None:
    """A statement that is not read to its end would keep its snapshot, and the log would grow without end."""
    async with open_store(f"sqlite:///{file}", secret=SECRET, state_dir=tmp_path, clock=Clock(T0)) as store:
        await store.journal.record([Event(kind=Kind.START, id="x", at=T0)])
        await store.try_write()
        with closing(sqlite3.connect(file)) as other:
            busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy


def test_a_lock_file_on_a_read_only_disk_is_named_as_such(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the runbook has it: by a command that begins when the kernel has stopped writes after an error of the disk."""
    turn, opens = f"{file}.next", os.open

    def read_only(path: object, *args: int) -> int:
        if str(path) == turn:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), turn)
        return opens(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("smtpguard.database.files.os.open", read_only)
    with pytest.raises(Unavailable, match=r"next is on a read-only file system\. Repair"):
        Database(f"sqlite:///{file}")


def test_a_read_only_file_system_is_named_by_what_would_write(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Database(f"sqlite:///{file}")):
        pass
    monkeypatch.setattr("smtpguard.database.files.read_only", lambda _: True)
    said = pytest.raises(Unavailable, match=r"copy.db is on a read-only file system\. Repair")
    with closing(Database(f"sqlite:///{file}", reads=True)) as copy, said, copy.write():
        pass
