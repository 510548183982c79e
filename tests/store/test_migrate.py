"""The schema: made alone, the same by steps as by definition, and refused where it is of another version."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from smtpguard.store import migrate as migrating
from smtpguard.store.database import Database
from smtpguard.store.migrate import SchemaError, migrate
from smtpguard.store.opening import open_store
from smtpguard.store.schema import SCHEMA, metadata
from tests.store.making import SECRET, Clock


def test_the_steps_lead_to_the_tables_as_defined(url: str) -> None:
    migrate(url)
    migrate(url)
    database = Database(url)
    try:
        with database.read() as connection:
            assert migrating.revision(connection) == SCHEMA
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []
    finally:
        database.close()


def test_the_newest_step_is_the_one_we_say() -> None:
    steps = ScriptDirectory(str(Path(migrating.__file__).parent / "migrations"))
    assert steps.get_heads() == [SCHEMA]


async def test_several_processes_may_begin_at_once(url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(4)))
    database = Database(url)
    try:
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM head").scalar() == 1
    finally:
        database.close()


async def test_a_database_that_is_not_set_up_says_who_does_that(url: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="not set up yet: smtpguard serve"):
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock()):
            raise AssertionError


@pytest.mark.parametrize(("found", "said"), [("0000", "start smtpguard serve once"), ("9999", "newer smtpguard")])
async def test_another_version_is_refused(url: str, tmp_path: Path, found: str, said: str) -> None:
    migrate(url)
    set_version(url, found)
    with pytest.raises(SchemaError, match=said):
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock()):
            raise AssertionError


def test_a_newer_database_is_not_migrated_back(url: str) -> None:
    migrate(url)
    set_version(url, "9999")
    with pytest.raises(SchemaError, match="newer smtpguard"):
        migrate(url)


def set_version(url: str, version: str) -> None:
    database = Database(url)
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
    database.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="store"):
        Database(url)


def test_the_database_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "guard.db"
    migrate(f"sqlite:///{path}")
    assert {oct(p.stat().st_mode & 0o777) for p in path.parent.iterdir()} == {"0o600"}
