"""Checkpoints of the write-ahead log run beside commits and reads, and restart it; if one fails, commits continue."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from smtpguard.database.engine import Database
from smtpguard.database.files import WriteBack

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
