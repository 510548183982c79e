"""Write transactions on PostgreSQL: durable whatever the server's defaults, and bounded in time."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from smtpguard.database import engine
from smtpguard.database.engine import CommitUnknown, Database
from smtpguard.journal.event import Event, Kind
from smtpguard.store.opening import open_store
from tests.store.making import SECRET, T0, Clock
from tests.store.servers import new_database


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
