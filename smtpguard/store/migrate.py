"""Bringing a database to the schema of this version, and refusing one that is newer. Alembic is loaded only where it is needed.

Never here: the schema (schema.py), the steps (migrations/versions).
"""

from __future__ import annotations

import secrets
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from smtpguard.policy.admission import LedgerError
from smtpguard.store.database import Database
from smtpguard.store.schema import SCHEMA, head


class SchemaError(LedgerError):
    """The database is not of this version's schema."""


class NotSetUp(SchemaError):
    """There is nothing in the database yet."""

    def __init__(self) -> None:
        super().__init__("the database is not set up yet: smtpguard serve does that")


def migrate(url: str) -> None:
    """Upgrade to this version's schema, alone over all processes. Raises SchemaError where the database is newer."""
    database = Database(url)
    try:
        bring(database)
    finally:
        database.close()


def bring(database: Database) -> None:
    with database.write() as connection:
        found = revision(connection)
        if found != SCHEMA:
            _upgrade(connection, found)
        if connection.execute(head.select()).first() is None:
            connection.execute(
                head.insert().values(
                    one=1, journal=secrets.token_hex(8), seq=0, hash=bytes(32), generation=0, policy="", kept_bytes=0
                )
            )


def check(connection: Connection) -> None:
    """Raises SchemaError unless the database is exactly of this version."""
    found = revision(connection)
    if found is None:
        raise NotSetUp
    if found != SCHEMA:
        older = found < SCHEMA
        raise SchemaError(
            f"the database has schema {found}, this smtpguard needs {SCHEMA}: "
            + ("start smtpguard serve once to migrate it" if older else "it was written by a newer smtpguard")
        )


def revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _upgrade(connection: Connection, found: str | None) -> None:
    if found is not None and found > SCHEMA:
        raise SchemaError(
            f"the database has schema {found}, this smtpguard knows {SCHEMA}: it was written by a newer smtpguard"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
