"""A commit that somebody is answered for is on the disk, whatever the server, the database or the role has for a default."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from smtpguard.database.engine import Database
from smtpguard.journal.event import Event, Kind
from smtpguard.store.opening import open_store
from tests.store.making import SECRET, T0, Clock
from tests.store.servers import new_database


@pytest.mark.parametrize(
    ("default", "ours"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
)
async def test_every_transaction_that_writes_is_durable(
    postgresql: str, tmp_path: Path, default: str, ours: str
) -> None:
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
            assert reading.exec_driver_sql("SHOW synchronous_commit").scalar() == default, "or nothing was tried"
    finally:
        database.close()
