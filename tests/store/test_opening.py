"""Opening and closing a store while threads are at it: what they have opened by then is closed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from smtpguard.store import opening
from smtpguard.store.database import Database
from smtpguard.store.opening import open_store
from tests.store.making import SECRET, Clock


@pytest.mark.parametrize("when", ["while it is opened", "when it is open"])
async def test_one_that_is_given_up(when: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    real, close = opening.check, Database.close

    def slow(connection: object) -> None:
        under_way.set()
        go_on.wait(120)
        real(connection)  # type: ignore[arg-type]

    def closing(self: Database) -> None:
        close(self)
        closed.set()

    monkeypatch.setattr(opening, "check", slow)
    monkeypatch.setattr(Database, "close", closing)

    async def work() -> None:
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock(), migrate=True):
            raise AssertionError("nobody waits for it")

    task = asyncio.create_task(work())
    await asyncio.to_thread(under_way.wait, 20)
    if when == "while it is opened":
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
    else:
        task.cancel()
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(closed.wait, 20)


def test_what_reads_while_it_is_closed_leaves_no_connection_open(url: str) -> None:
    database = Database(url)
    opened: list[Any] = []
    event.listen(database._readers, "connect", lambda connection, _: opened.append(connection))
    with database.read() as connection:
        connection.exec_driver_sql("SELECT 1")
        database.close()
    [connection] = opened
    if database.sqlite:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    else:
        assert connection.closed
