"""The schema: created by one process, the same by migrations as by definition, and refused if its version is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from smtpguard.database import migrate as migrating
from smtpguard.database import migrations
from smtpguard.database.engine import Database
from smtpguard.database.errors import Unavailable
from smtpguard.database.migrate import NotMigrated, SchemaError, migrate
from smtpguard.database.migrations import STEPS
from smtpguard.database.schema import SCHEMA, metadata
from smtpguard.journal.event import Kind
from smtpguard.store.store import open_store
from tests.clocks import Clock
from tests.every import every
from tests.store.making import SECRET, event
from tests.store.servers import empty_url, new_database
from tests.store.test_upgrade import restore


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_url(request, tmp_path)


def test_migrations_lead_to_the_defined_tables(url: str) -> None:
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


def test_the_newest_migration_is_the_current_schema() -> None:
    assert list(STEPS)[-1] == SCHEMA


async def test_several_processes_may_migrate_at_once(url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(4)))
    database = Database(url)
    try:
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM head").scalar() == 1
    finally:
        database.close()


async def test_a_database_that_is_not_set_up_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="not set up yet: smtpguard serve"):
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock()):
            raise AssertionError


@pytest.mark.parametrize(("found", "said"), [("0000", "smtpguard serve migrates it"), ("9999", "newer smtpguard")])
async def test_another_version_is_refused(url: str, tmp_path: Path, found: str, said: str) -> None:
    migrate(url)
    set_version(url, found)
    with pytest.raises(SchemaError, match=said):
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock()):
            raise AssertionError


def test_a_server_that_is_read_only_is_set_up_once_it_is_not(postgresql: str) -> None:
    """A stand-by takes over in a moment, and the service manager tries again: its setup is not given up."""
    url = new_database(postgresql, empty=True)
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(Unavailable, match="the database server is read-only"):
        migrate(url)


async def test_a_schema_that_the_user_cannot_use_is_no_empty_database(postgresql: str, tmp_path: Path) -> None:
    """A privilege may come back, so the service manager tries again. Nothing else tells it from a database that is gone."""
    url = new_database(postgresql)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = nowhere")
    with pytest.raises(Unavailable, match="can use no schema of its search_path: grant USAGE"):
        migrate(url)
    with pytest.raises(Unavailable, match="can use no schema of its search_path"):
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock()):
            raise AssertionError


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_is_not_set_up(postgresql: str, encoding: str) -> None:
    """It has no place for a subject in Japanese: that message would be answered 451 for ever."""
    name = f"in_{encoding.lower()}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(NotMigrated, match=f"could not be set up: its encoding is {encoding}"):
        migrate(postgresql.replace("/postgres?", f"/{name}?"))


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


@every("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x"])
def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="store"):
        Database(url)


async def test_a_process_that_runs_on_after_a_migration_writes_nothing(url: str, tmp_path: Path) -> None:
    """As on a second host that is upgraded later. It would write rows that lack what the new version looks for."""
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock(), migrate=True) as store:
        await store.journal.record([event(Kind.START, "1")])
        database = Database(url)
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(Unavailable, match=f"has schema 9999 .* knows {SCHEMA}: start the same version here"):
            await store.journal.record([event(Kind.STOP, "2")])
        with database.write() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{SCHEMA}'")
        database.close()
        await store.journal.record([event(Kind.STOP, "2")])


def test_the_database_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "guard.db"
    migrate(f"sqlite:///{path}")
    assert {oct(p.stat().st_mode & 0o777) for p in path.parent.iterdir()} == {"0o600"}


def last_step_also(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Let the newest step do this too."""
    last = STEPS[SCHEMA]
    monkeypatch.setattr(migrations, "STEPS", {**STEPS, SCHEMA: lambda: (last(), then())})


def rows(url: str) -> dict[str, list[str]]:
    """All rows, by table."""
    database = Database(url)
    try:
        with database.read() as connection:
            known = MetaData()
            known.reflect(connection)
            return {t.name: sorted(map(repr, connection.execute(t.select()))) for t in known.sorted_tables}
    finally:
        database.close()


async def test_a_failing_migration_changes_nothing_and_gives_the_reason(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(url, tmp_path)
    before = rows(url)

    def half() -> None:
        op.add_column("hold", sa.Column("half", sa.Integer))
        op.execute("UPDATE hold SET no_such = 1")

    last_step_also(monkeypatch, half)
    with pytest.raises(NotMigrated) as told:
        async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock(), migrate=True):
            raise AssertionError
    said = str(told.value)
    assert said.startswith(f"the database could not be migrated from schema 0001 to {SCHEMA}: ")
    assert "no_such" in said
    assert said.endswith(" It is unchanged: the previous smtpguard can use it")
    assert "\n" not in said
    assert rows(url) == before
    monkeypatch.undo()
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=Clock(), migrate=True) as store:
        assert await store.holds.newest()


async def test_values_of_a_failing_row_are_not_shown(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restore(url, tmp_path)
    last_step_also(monkeypatch, lambda: op.execute("INSERT INTO hold SELECT * FROM hold"))
    with pytest.raises(NotMigrated, match="refused by the database") as told:
        migrate(url)
    assert all(value not in str(told.value) for row in rows(url)["hold"] for value in row.split("'")[1:2])


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_migration_may_take_long(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is not stopped by the statement timeout of mail, which is seconds. SQLite has no timeout."""
    restore(url, tmp_path)
    seen: list[object] = []
    names = ("statement_timeout", "idle_in_transaction_session_timeout")
    last_step_also(
        monkeypatch, lambda: seen.extend(op.get_bind().exec_driver_sql(f"SHOW {name}").scalar() for name in names)
    )
    migrate(url)
    assert seen == ["0", "0"]


def test_an_unknown_schema_is_not_touched(url: str) -> None:
    migrate(url)
    set_version(url, "0005")
    before = rows(url)
    with pytest.raises(NotMigrated, match=r"from schema 0005 to .*0005"):
        migrate(url)
    assert rows(url) == before


def test_a_full_or_unreachable_database_is_no_failed_migration(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or lost database during a migration is reported as such: the migration may succeed when tried again."""

    def away(*_: object) -> None:
        raise Unavailable("the database: OperationalError")

    monkeypatch.setattr(migrating, "upgrade", away)
    with pytest.raises(Unavailable):
        migrate(url)


def test_pages_of_counted_people_in_postgresql_have_room_for_their_next_rows(postgresql: str) -> None:
    with psycopg.connect(new_database(postgresql)) as connection:
        found = connection.execute("SELECT reloptions FROM pg_class WHERE relname = 'person'").fetchone()
    assert found == (["fillfactor=50"],)


def test_text_compares_by_octets_in_new_stores_and_older_ones(postgresql: str) -> None:
    """Whatever the language of the database: in Lithuanian no id is between X and Y, in English no digit before a ~."""
    url = new_database(postgresql)
    others = (
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
    )
    of_older = """SELECT format('ALTER TABLE %I ALTER COLUMN %I TYPE text COLLATE "default"', table_name, column_name)
     FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'text'"""
    with psycopg.connect(url) as connection:
        assert connection.execute(others).fetchall() == []
        for (older,) in connection.execute(of_older).fetchall():
            connection.execute(older)
        assert len(connection.execute(others).fetchall()) > 50
        connection.execute("DROP INDEX outbox_unsent")  # of a later schema
    set_version(url, "0038")
    migrate(url)
    with psycopg.connect(url) as connection:
        assert connection.execute(others).fetchall() == []
