"""Migrate a database to this version's schema by the steps in migrations.py, and refuse a newer one. Alembic, which is slow to import,
is imported only where it is needed."""

from __future__ import annotations

import logging
import secrets

from sqlalchemy import Connection, text

from smtpguard.database.engine import BadItem, Database, is_there
from smtpguard.database.errors import StoreError, Unavailable, Unusable
from smtpguard.database.schema import SCHEMA, head
from smtpguard.database.statements import rows_of
from smtpguard.locale.phrase import N_, Phrase

_log = logging.getLogger(__name__)
_TRANSIENT = ("08", "25006", "40", "53", "55", "57", "58")
"""The beginnings of SQLSTATE for errors that may pass: connections, a server that is read-only, deadlocks, resources, locks, operator
intervention, system errors."""
_NO_SCHEMA = N_(
    "the database user can use no schema of its search_path: grant USAGE on the schema that has the tables, or correct search_path"
)
_VERSION = """CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,
 CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"""
_HAS_VERSION = {
    "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'",
    "postgresql": "SELECT to_regclass('alembic_version') IS NOT NULL",
}


class SchemaError(StoreError):
    """The database does not have this version's schema."""


class NotSetUp(SchemaError):
    """The database is empty."""

    def __init__(self) -> None:
        super().__init__("the database is not set up yet: smtpguard serve sets it up")


class Newer(SchemaError):
    """The schema is of a later version."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database has schema {found}, this smtpguard knows {SCHEMA}: a newer smtpguard has written it. Start that "
            f"version; or restore a backup from before its installation"
        )


class NotMigrated(SchemaError):
    """A migration failed, and all of them were rolled back."""

    def __init__(self, found: str | None, why: str) -> None:
        super().__init__(
            f"the database could not be migrated from schema {found} to {SCHEMA}: {why}. It is unchanged: the previous smtpguard "
            f"can use it"
            if found is not None
            else f"the database could not be set up: {why}"
        )


def is_current(url: str) -> bool:
    """Return whether the database has this version's schema. True also if that cannot be read now: opening it says why."""
    try:
        if not is_there(url):
            return False
        database = Database(url, reads=True)
        try:
            with database.read() as connection:
                return revision(connection) == SCHEMA
        finally:
            database.close()
    except (StoreError, OSError, ValueError):
        return True


def migrate(url: str) -> None:
    """Upgrade to this version's schema, exclusively over all processes. Raises SchemaError if the database is newer."""
    database = Database(url)
    try:
        migrate_open(database)
    finally:
        database.close()


def migrate_open(database: Database) -> None:
    """Upgrade an open database, as ``migrate``. Raises Newer, NotMigrated after everything was rolled back, and as
    ``Database.write``."""
    found: str | None = SCHEMA
    try:
        with database.write() as connection:
            found = revision(connection)
            if found is None and (wrong := encoding_problem(connection)):
                raise NotMigrated(None, wrong)
            if found != SCHEMA:
                upgrade(connection)
            if connection.execute(head.select()).first() is None:
                first = {"seq": 0, "hash": bytes(32), "generation": 0, "policy": "", "kept_bytes": 0}
                connection.execute(head.insert().values(one=1, journal=secrets.token_hex(8), **first))
    except (Unavailable, BadItem) as error:
        refused = _refused(error)
        if found == SCHEMA or not refused:
            raise
        raise NotMigrated(found, refused) from error


def encoding_problem(connection: Connection) -> str:
    """Return why the database cannot store every text; "" if it can. A message with a letter that its encoding lacks could never be
    held: its answer would always be 451."""
    if connection.dialect.name == "sqlite":
        return ""
    [(encoding,)] = rows_of(connection, "SHOW server_encoding")
    return "" if encoding == "UTF8" else f"its encoding is {encoding}, which has not all letters: it must be UTF8"


def _refused(error: Exception) -> str:
    """Return the message of a database that refused a migration and would refuse it again. It names tables and columns, and has no
    data of rows. "" if the database did not answer, is full or unusable, which is reported elsewhere."""
    if isinstance(error, BadItem):
        return str(error)
    cause = error.__cause__
    original = getattr(cause, "orig", None) or cause
    state = getattr(original, "sqlstate", None) or ""
    if isinstance(error, Unusable) or not (
        getattr(original, "sqlite_errorname", "") == "SQLITE_ERROR" or (state and not state.startswith(_TRANSIENT))
    ):
        return ""
    return next(iter(str(original).strip().splitlines()), "") + (f" ({state})" if state else "")


def check(connection: Connection) -> None:
    """Raises SchemaError unless the database has exactly this version's schema."""
    found = revision(connection)
    if found is None:
        raise NotSetUp
    if found > SCHEMA:
        raise Newer(found)
    if found != SCHEMA:
        raise SchemaError(
            f"the database has schema {found}, this smtpguard needs {SCHEMA}: smtpguard serve migrates it at its start; "
            f"older versions cannot use it afterwards"
        )


def revision(connection: Connection) -> str | None:
    """Return the schema that the database has; None if it is empty. Raises Unavailable if nothing in it can be seen."""
    dialect = connection.dialect.name
    [(there,)] = rows_of(connection, _HAS_VERSION[dialect])
    if not there and dialect != "sqlite" and rows_of(connection, "SELECT current_schema()") == [(None,)]:
        raise Unavailable(Phrase(_NO_SCHEMA))
    found = rows_of(connection, "SELECT version_num FROM alembic_version") if there else []
    return found[0][0] if found else None


def upgrade(connection: Connection, to: str = SCHEMA) -> None:
    """Take the steps from the database's schema to ``to``. Raises Newer and NotMigrated."""
    found = revision(connection)
    if found is not None and found > SCHEMA:
        raise Newer(found)
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    from smtpguard.database.migrations import STEPS

    if found is None:
        connection.exec_driver_sql(_VERSION)
    elif found not in STEPS:
        raise NotMigrated(found, f"no version of smtpguard had schema {found}")
    else:
        _log.warning("migrating the database from schema %s to %s", found, to)
    if connection.dialect.name != "sqlite":  # a migration may take longer than mail would wait
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
    with Operations.context(MigrationContext.configure(connection)):
        for name, step in STEPS.items():
            if (found or "") < name <= to:
                step()
    reached = (
        "INSERT INTO alembic_version VALUES (:to)" if found is None else "UPDATE alembic_version SET version_num = :to"
    )
    connection.execute(text(reached), {"to": to})
