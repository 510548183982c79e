"""Opening and closing a store while threads work on it: everything that was opened is closed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.database.engine import Database
from smtpguard.database.statements import array_of, cursor_of
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Kind
from smtpguard.store import store
from smtpguard.store.store import open_store
from tests.clocks import Clock
from tests.store.making import POLICY, SECRET, notice
from tests.store.making import event as entry
from tests.store.servers import new_database, several


@pytest.mark.parametrize("when", ["while it is opened", "when it is open"])
async def test_a_cancelled_opening_closes_the_store(
    when: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    real = store.check  # type: ignore[attr-defined]
    close = Database.close

    def slow(connection: object) -> None:
        under_way.set()
        go_on.wait(120)
        real(connection)  # type: ignore[arg-type]

    def closing(self: Database) -> None:
        close(self)
        closed.set()

    monkeypatch.setattr(store, "check", slow)
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


def test_reads_during_closing_leave_no_connection_open(url: str) -> None:
    database = Database(url)
    opened: list[Any] = []
    with database.read() as connection:
        connection.exec_driver_sql("SELECT 1")
        opened.append(connection.connection.driver_connection)
        database.close()
    [connection] = opened
    if database.sqlite:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    else:
        assert connection.closed


async def test_of_several_servers_the_available_one_is_used(postgresql: str, tmp_path: Path, clock: Clock) -> None:
    """If the URL names several servers, as libpq allows, and the first is down, the second is used."""
    with several(new_database(postgresql)) as both:
        async with open_store(both, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
            await store.policies.put(POLICY, {}, entry(Kind.POLICY, POLICY))
            assert (await store.gate.read()).policy_sha256 == POLICY


def test_arrays_come_back_from_postgresql_as_they_went(postgresql: str) -> None:
    columns: dict[str, list[Any]] = {
        "bigint": [1, -(2**63), 2**63 - 1], "integer": [-5, 70_000], "smallint": [3], "boolean": [True, False],
        "bytea": [b"", b"\0a", bytes(300)], "text": ["", "å", '{"x,\\'],
    }  # fmt: skip
    database = Database(new_database(postgresql))
    with database.write() as connection:
        cursor = cursor_of(connection)
        for kind, values in columns.items():
            for some in (values, [*values, None], [None]):
                cursor.execute(f"SELECT * FROM unnest(%s::{kind}[])", [array_of(kind, some)])
                assert [value for (value,) in cursor.fetchall()] == some
    database.close()


async def test_all_hosts_of_a_store_have_the_time_of_its_server(tmp_path: Path, postgresql: str) -> None:
    """Their own clocks may differ from it by minutes. So a lease lasts as long on all."""
    url, real = new_database(postgresql), datetime.now(UTC)
    async with AsyncExitStack() as hosts:
        for minutes in (-4, 4):
            clock = SteadyClock(Clock(real + timedelta(minutes=minutes)))
            host = await hosts.enter_async_context(open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock))
            assert abs(clock.now() - real) < timedelta(minutes=2)
            if minutes < 0:
                await host.journal.record([], [notice("N1")])
                assert len(await host.outbox.lease("one", 5, 300)) == 1
        assert await host.outbox.lease("another", 5, 300) == ()
