"""The pool of connections to a SQLite database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from smtpguard.database.sqlitepool import Pooled, SqlitePool


def a_pool(path: Path, places: list[str], keeps: int = 1) -> SqlitePool:
    return SqlitePool(lambda: sqlite3.connect(path, isolation_level=None), lambda: places[-1], keeps=keeps)


def closed(connection: sqlite3.Connection | None) -> bool:
    if connection is None:
        return True
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def test_no_more_than_so_many_stay_open(tmp_path: Path) -> None:
    pool = a_pool(tmp_path / "x.db", ["here"])
    both = [pool.connect(), pool.connect()]
    drivers = [each.driver_connection for each in both]
    for each in both:
        each.close()
    assert [closed(driver) for driver in drivers] == [False, True]
    assert pool.connect() is both[0]
    both[0].close()
    pool.dispose()
    assert closed(drivers[0])


def test_one_that_was_opened_elsewhere_is_not_used_again(tmp_path: Path) -> None:
    places = ["here"]
    pool = a_pool(tmp_path / "x.db", places)
    before = pool.connect()
    driver = before.driver_connection
    before.close()
    places.append("there")
    after = pool.connect()
    assert closed(driver)
    assert not closed(after.driver_connection)


def test_a_transaction_left_open_is_undone_before_the_next_use(tmp_path: Path) -> None:
    pool = a_pool(tmp_path / "x.db", ["here"])
    left = pool.connect()
    left.cursor().execute("BEGIN")
    left.close()
    again = pool.connect()
    driver = again.driver_connection
    assert driver is not None
    assert not driver.in_transaction


def test_one_that_cannot_be_reset_does_not_come_back(tmp_path: Path) -> None:
    pool = a_pool(tmp_path / "x.db", ["here"])
    broken: Pooled = pool.connect()
    broken.invalidate()
    broken.close()
    with pytest.raises(sqlite3.ProgrammingError):
        broken.cursor()
    assert pool.connect() is not broken
