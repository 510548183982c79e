"""One database, SQLite or PostgreSQL, behind one interface: one connection that writes, a few that read, and one writer
at a time.

SQLite: WAL, ``synchronous=FULL`` unless a write says otherwise, and a fair lock between processes before ``BEGIN
IMMEDIATE`` (files.FairLock).
PostgreSQL: READ COMMITTED with an advisory lock as the transaction's own first statement, so that every later statement
sees what the previous writer committed; the same statement sets ``synchronous_commit`` to at least ``on``. A driver's
errors leave this file as subclasses of StoreError.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import sqlite3
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from smtpguard.config.fields import read_secret
from smtpguard.config.problem import Broken
from smtpguard.config.statefiles import hand_over, owner_of, refusal, sqlite_file
from smtpguard.database.errors import CommitUnknown, Full, Unavailable, Unusable, no_space
from smtpguard.database.failpoint import failpoint
from smtpguard.database.files import FairLock, ReadOnlyCopy, WriteBack, only_readable
from smtpguard.database.fronts import Fronts, inode, write_log_again

_STATEMENTS = 256
"""Prepared statements that a connection to SQLite keeps."""
BUSY_SECONDS = 15
IDLE_SECONDS = 10
"""A node that is stopped within its transaction (SIGSTOP, a paused machine) is rolled back; those who wait for it wait
longer."""
CONNECT_SECONDS = 5
CLOCKS_SECONDS = 300
"""By how much the clocks of this host and of the server may differ. Leases, pauses, deadlines and freezes with an end are
times that one host writes and another reads: an hour ahead, it would send again what a relay is being given."""
_ADVISORY_KEY = 0x536D7470  # any number, the same for every writer
_BEGIN_SQLITE = "BEGIN IMMEDIATE"
_LOG_PAGES = 8000  # pages of the write-ahead log that are allocated beforehand
_LONG_PAGES = 6000  # from this length on it is written back in the background, so that it starts again
_TOO_LONG_PAGES = 32000  # from this length on a commit writes it back
_ROOMY = 1 << 30  # octets
_CACHE_KIB = 32 << 10
"""What a process that admits mail keeps of the database, at most. People are counted under random numbers, on any page: with
SQLite's own 2 MiB a mailing to hundreds of thousands reads and writes many pages again for each message."""
_KEPT_READERS, _MOST_READERS = 2, 14
"""Connections for reading to SQLite that stay open, and the most at once."""
_EXACT = "case_sensitive_like=ON"  # as LIKE is on PostgreSQL: "Sales" and "sales" are two lists, and two groups
_LAY_OUT = (  # write its pages and free them; the last write makes the disk allocate them. None is worth the memory.
    "PRAGMA cache_size=-512",
    _BEGIN_SQLITE,
    "CREATE TABLE laid_out (x)",
    f"INSERT INTO laid_out VALUES (zeroblob({(_LOG_PAGES - 200) * 4092}))",
    "ROLLBACK",
    "PRAGMA user_version = 0",
    "PRAGMA shrink_memory",
    f"PRAGMA cache_size=-{_CACHE_KIB}",
)
_POOLED = "a pooler gives each transaction another connection, and must keep one for each session (pool_mode)"
_REFUSALS = {"25006": "the database server is read-only", "42501": "the database user lacks a privilege",
             "26000": _POOLED, "42P05": _POOLED}  # fmt: skip
"""By SQLSTATE. A server is read-only as a stand-by, or since its provider made it so when its disk was nearly full."""
_ROWLESS = ("25", "53", "55", "57")
"""Classes of SQLSTATE whose first line contains no row: state of the transaction, resources, locks, time limits and acts of an
administrator."""
_SQLITE_SAYS = {
    "SQLITE_NOTADB": "is not an SQLite database",
    "SQLITE_CORRUPT": "is damaged",
    "SQLITE_READONLY": "cannot be written by this user",
    "SQLITE_CANTOPEN": "cannot be opened",
    "SQLITE_BUSY": "is locked by another program",
}
_CURSOR = "cursor of batches"
_PLACE = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]*))?")
_CLOCK = "extract(epoch FROM clock_timestamp())::bigint"
_BEGIN_POSTGRESQL = (  # one statement: a commit that is reported is on disk, whatever the defaults of role or database
    f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY}), set_config('synchronous_commit', "
    "CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true), "
    f"pg_postmaster_start_time()::text, {_CLOCK}"
)


_Inode = tuple[int, int]
"""Device and inode number."""


class BadItem(Exception):
    """The database rejected the data, not the connection: an item of the batch is bad."""


class Database:
    """Engines and the writer's connection. ``begin`` to ``commit`` belong to one thread; ``read`` is for any."""

    def __init__(self, url: str, *, hot: bool = False, reads: bool = False) -> None:
        """``url``: its ``password_file`` is a file with the password, which each connection reads again. ``hot``: clients
        wait for these writes, so prepare what can be done beforehand. ``reads``: nothing is written, a read-only
        database is enough, and no file is made beside it. Raises Unavailable if it cannot be read so."""
        self.given, named, self._places = url, _url_of(url), _servers(url)
        self.url, self._password_file = (
            named.difference_update_query(["password_file"]),
            named.query.get("password_file"),
        )
        self.copy: ReadOnlyCopy | None = None
        """A SQLite database that can only be read."""
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._lock: FairLock | None = None
        self.fronts: Fronts | None = None
        """Those of a SQLite database that can be written."""
        self._hot = hot
        if self.sqlite:
            if not self.url.database or self.url.database == ":memory:":
                raise ValueError("the store needs a file: sqlite:///path/to/file.db")
            self.path = Path(self.url.database)
            if reads and only_readable(self.path):
                self.copy = ReadOnlyCopy(self.path)
            else:
                try:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    _make(self.path)
                    self._lock = FairLock(self.path)
                except OSError as error:
                    raise self.translated(error) from error
                self.fronts = Fronts(self.path)
            self._paths = str(self.path), f"{self.path}-wal"
            self._uri = f"file:{quote(str(self.path))}?mode=rw"
        self._writer = self._engine(write=True)
        self._readers = self._engine(write=False)
        self._write_back: WriteBack | None = None
        if self._lock is not None:
            self._write_back = WriteBack(self.path, self._readers.raw_connection, _LONG_PAGES)
        self._connection: Connection | None = None
        self._file: _Inode | None = None  # before the writing connection opened it
        self._files: tuple[_Inode | None, ...] | None = (
            None  # the file and its log, from the connection's first transaction on
        )
        self._synced = True  # whether its commits are
        self._doubted = False  # whether a commit failed, and the log was not written again since
        self._closed = False
        self.connections = 0
        """Number of writing connections, and of servers behind them, so far: after a new one the state may be another."""
        self._server = ""  # when it was started
        self._driver: Any = None  # the driver's own connection below it
        driver: Any = self._writer.dialect.loaded_dbapi
        self.errors: tuple[type[BaseException], ...] = (SQLAlchemyError, OSError, driver.Error)
        """What storage raises, by whichever interface."""

    def _engine(self, *, write: bool) -> Engine:
        if self.sqlite:
            return self._sqlite_engine(write=write)
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # it also logs what it raises, about its own objects
        more: dict[str, Any] = {"poolclass": NullPool} if write else {"poolclass": QueuePool, "pool_size": 4}
        limits = {"client_encoding": "utf8", "connect_timeout": CONNECT_SECONDS, "keepalives_idle": 5,
                  "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": BUSY_SECONDS * 1000, **self._places}  # fmt: skip
        engine = create_engine(
            self.url, isolation_level="READ COMMITTED", pool_pre_ping=not write, connect_args=limits, **more
        )

        @event.listens_for(engine, "do_connect")
        def password(_: object, __: object, ___: object, options: dict[str, Any]) -> None:
            if self._password_file:
                try:
                    options["password"] = read_secret(Path(str(self._password_file)))
                except Broken as error:
                    raise Unavailable(str(error)) from None

        @event.listens_for(engine, "connect")
        def timeouts(connection: Any, _: object) -> None:
            connection.adapters.register_dumper(Array, _array_dumper())
            try:
                with connection.cursor() as cursor:
                    cursor.execute(f"SET statement_timeout = '{BUSY_SECONDS}s'; SET lock_timeout = '{BUSY_SECONDS}s'")
                    if write:
                        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
                connection.commit()
            except BaseException:  # a server that is going down; otherwise nothing closes it
                connection.close()
                raise

        return engine

    def _sqlite_engine(self, *, write: bool) -> Engine:
        model = _sqlite_model()
        opens: Any = partial(self._opened, write=write)
        more = _MOST_READERS - _KEPT_READERS
        pool: Pool = NullPool(opens) if write else QueuePool(opens, pool_size=_KEPT_READERS, max_overflow=more)
        pool._dialect = model.dialect
        if not write:

            @event.listens_for(pool, "connect")
            def came_from(_: object, record: Any) -> None:
                record.info["inodes"] = self._inodes()

            @event.listens_for(pool, "checkout")
            def still_there(_: object, record: Any, __: object) -> None:
                if record.info["inodes"] != self._inodes():
                    raise DisconnectionError("another file has replaced it")  # the pool then opens the new file

        engine = Engine(pool, model.dialect, model.url)
        engine._compiled_cache = model._compiled_cache
        return engine

    def _opened(self, *, write: bool) -> sqlite3.Connection:
        """Open the database file, but do not create it: an empty one in its place would have lost everything."""
        if self.copy is not None:
            return _to_file(self.copy.uri)
        try:
            os.stat(self._paths[0])  # noqa: PTH116 - the few functions that every process runs at rest
        except FileNotFoundError:
            raise Unavailable(f"{self.path} is gone: put it back, or restore a backup") from None
        except OSError as error:  # it may be there, as after an error of the disk
            raise Unavailable(f"{self.path}: {error.strerror}") from None
        connection = _to_file(self._uri)
        try:
            for pragma in (
                f"busy_timeout={BUSY_SECONDS * 1000}",
                "journal_mode=WAL",
                "synchronous=FULL",
                f"wal_autocheckpoint={_TOO_LONG_PAGES}",
                "foreign_keys=ON",
                "secure_delete=ON",  # erased is erased, also where SQLite is built without it
                f"query_only={'OFF' if write else 'ON'}",
                *((f"cache_size=-{_CACHE_KIB}",) if write and self._hot else ()),
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _inodes(self) -> tuple[_Inode | None, ...]:
        """The files that are now at the paths of the database and its log. A connection keeps the files that it opened,
        whatever their names become (https://www.sqlite.org/howtocorrupt.html, section 2.2)."""
        return inode(self._paths[0]), inode(self._paths[1])

    @contextmanager
    def write(self, *, synced: bool = True) -> Iterator[Connection]:
        """One write transaction, exclusive over all processes; committed durably at the end, rolled back on any
        exception. Not ``synced``: on SQLite its commit is on disk with the next one that is, or after Fronts.sync; a
        power failure before may undo it, and nothing else.

        Raises CommitUnknown, Unavailable, Full, or BadItem. After a storage error the connection is thrown away, and the
        log is written again before anything else, so that no later fsync covers up a failed one.
        """
        if self.copy is not None:
            raise Unavailable(f"{self.path} can only be read by this user")
        with self._lock or nullcontext():
            try:
                connection = self._begun(synced=synced)
            except self.errors as error:
                self._drop()
                raise self.translated(error) from error
            try:
                failpoint("begin")
                yield connection
                failpoint("before-commit")
            except BaseException as error:
                self._rollback(error)
                if isinstance(error, self.errors):
                    raise self.translated(error) from error
                raise
            try:
                self._driver.commit()
                failpoint("after-commit")
                if not self._in_place():  # it was committed into a file that has no name
                    self._drop()
                    raise CommitUnknown(f"{self.path} was removed while it was written")
            except self.errors as error:
                self._drop()
                self._doubted |= self.sqlite and getattr(error, "sqlite_errorname", "") != "SQLITE_FULL"
                told = self.translated(error)
                raise told if isinstance(told, (Full, BadItem)) else CommitUnknown(str(told)) from error
        if self._write_back is not None:
            self._write_back.committed()

    def _begun(self, *, synced: bool) -> Connection:
        """The writing connection, in a transaction begun through the driver. SQLAlchemy sees one transaction that never
        ends, and adds no work of its own to each batch."""
        if not self._in_place():
            self._drop()
        connection = self._connection or self._connected()
        if self.sqlite and synced is not self._synced:
            self._driver.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._synced = synced
        if self.sqlite:
            self._driver.execute(_BEGIN_SQLITE)
        else:
            connection = self._begun_on_server(connection)
        if self._doubted:
            write_log_again(self.path)
            self._doubted = False
        if self.sqlite and self._files is None:
            self._files = (self._file, inode(self._paths[1]))  # the log exists from the first transaction on
        return connection

    def _begun_on_server(self, connection: Connection) -> Connection:
        """On a new connection if the server has ended this one: while it was idle, or when it was started again."""
        try:
            begun = self._driver.execute(_BEGIN_POSTGRESQL)
        except self.errors:
            if not self._driver.closed:
                raise
            self._drop()
            connection = self._connected()
            begun = self._driver.execute(_BEGIN_POSTGRESQL)
        *_, server, at = begun.fetchone()
        if why := _clocks(at):
            self._driver.rollback()
            raise Unavailable(why)
        if server != self._server:  # a pooler keeps our connection when it turns to another server
            self._server = server
            self.connections += 1
        return connection

    def _in_place(self) -> bool:
        """Whether the files that the writing connection has open are still at their paths."""
        return self._files is None or (None not in self._files and self._inodes() == self._files)

    def _connected(self) -> Connection:
        if self.sqlite:
            self._files, self._file = None, inode(self._paths[0])
        connection = self._connection = self._writer.connect()
        self._synced = True
        self.connections += 1
        connection.begin()
        self._driver = connection.connection.driver_connection
        return connection

    def prepare(self) -> None:
        """Call in the writer's thread before the first write: extend the write-ahead log to its full length. A commit
        into a growing file also waits for the file system's journal, and so for all other writes to that disk. If space
        is scarce the log grows as it is written."""
        if self._lock is None or not self._hot or self._free() < _ROOMY:
            return
        try:
            with self._lock:
                log = Path(f"{self.path}-wal")
                if not log.exists() or log.stat().st_size < _LOG_PAGES * 2048:
                    self._connected()
                    for statement in _LAY_OUT:
                        self._driver.execute(statement)
        except self.errors:
            self._drop()

    @contextmanager
    def read(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """READ COMMITTED; with ``snapshot`` (on SQLite always) one moment for all statements. Raises Unavailable."""
        try:
            with self._readers.connect() as connection:
                if snapshot and not self.sqlite:
                    connection = connection.execution_options(isolation_level="REPEATABLE READ")
                if self.sqlite:
                    driver: Any = connection.connection.driver_connection
                    driver.execute("BEGIN")
                with connection.begin():
                    yield connection
            if self.copy is not None:
                self.copy.check()
        except self.errors as error:
            raise self.translated(error) from error
        finally:
            if self._closed:  # closed meanwhile: its connection went back to a pool that is not emptied again
                self._readers.pool.dispose()

    def _rollback(self, error: BaseException) -> None:
        if isinstance(error, self.errors) and not isinstance(self.translated(error), BadItem):
            self._drop()
            return
        try:
            if self._connection is not None:
                self._driver.rollback()
        except self.errors:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                _close_cursor(connection)
                if self.sqlite:  # it keeps a closed connection, and its lock, while a cursor of it is alive
                    connection.connection.rollback()
            except self.errors:
                pass
            try:
                connection.invalidate()
                connection.close()
            except self.errors:
                pass  # it was broken; the next batch opens a new one

    def translated(self, error: BaseException) -> Exception:
        """Translate an error of driver or system into ours. Never with the statement's parameters, which are personal
        data."""
        original = getattr(error, "orig", None) or error
        if isinstance(original, OSError):
            if no_space(original):
                return Full("no space left for the store")
            file = original.filename or "the store"
            if original.errno == errno.EROFS:
                return Unavailable(f"{file} is on a read-only file system")
            kind = Unusable if isinstance(original, PermissionError) else Unavailable
            return kind(f"{file}: {os.strerror(original.errno or 0)}")
        if isinstance(original, sqlite3.Error):
            return self._translated_sqlite(original)
        state = getattr(original, "sqlstate", None) or ""
        if state == "53100":
            return Full("no space left for the database")
        first = next(iter(str(original).strip().splitlines()), "")
        if state in _REFUSALS:
            return Unavailable(f"{_REFUSALS[state]}: {first} ({state})")
        if state[:2] in ("22", "23"):  # data exceptions, integrity constraints
            return BadItem(f"refused by the database ({state})")
        plain = first if not state or state[:2] in _ROWLESS else ""  # without a state: from connecting
        said = (f": {plain}" if plain else "") + (f" ({state})" if state else "")
        return Unavailable(f"the database: {type(original).__name__}{said}")

    def _translated_sqlite(self, error: sqlite3.Error) -> Exception:
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        disk = name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))  # a quota, or no inode, is no SQLITE_FULL
        refused = refusal(self.path.parent) if disk or name.startswith("SQLITE_READONLY") else None
        if name == "SQLITE_FULL" or (disk and refused is not None and no_space(refused)):
            return Full(f"no space left for {self.path}" + (f": {refused.strerror}" if refused is not None else ""))
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)) or name == "SQLITE_TOOBIG":
            return BadItem(f"refused by the database ({name})")
        said = next((text for code, text in _SQLITE_SAYS.items() if name.startswith(code)), "")
        if refused is not None and refused.errno == errno.EROFS:
            return Unavailable(f"{self.path} is on a read-only file system ({name})")
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            for file in (self.path, *(Path(f"{self.path}{end}") for end in ("-wal", "-shm"))):
                if os.access(file, os.F_OK) and not os.access(file, os.R_OK | os.W_OK):
                    said = f"belongs to {owner_of(file)}, and cannot be read and written by this user"
                    return Unusable(f"{file} {said} ({name})")
        if not said:
            return Unavailable(f"the database: {name}")
        kind = Unavailable if name.startswith("SQLITE_BUSY") else Unusable
        return kind(f"{self.path} {said} ({name})")

    def _free(self) -> float:
        """Free octets on the disk, as far as that can be known."""
        try:
            room = os.statvfs(self.path.parent)
        except OSError:
            return math.inf
        return room.f_bavail * room.f_frsize

    def close(self) -> None:
        """Call in the writer's thread, or after it has ended."""
        if self._connection is not None:
            try:
                _close_cursor(self._connection)
                self._connection.close()
            except self.errors:
                pass
            self._connection = None
        self._closed = True
        if self._write_back is not None:
            self._write_back.close()
        for engine in (self._writer, self._readers):
            engine.pool.dispose()  # not engine.dispose(), which makes a new pool: a thread may still read
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self.fronts is not None:
            self.fronts.close()


def cursor_of(connection: Connection) -> Any:
    """The driver's cursor for all batches on this connection. A cursor of its own would outlive each batch, and SQLite keeps a
    closed file open, and its log unmerged, as long as there is one."""
    if _CURSOR not in connection.info:
        driver: Any = connection.connection.driver_connection
        plain = isinstance(driver, sqlite3.Connection)
        connection.info[_CURSOR] = driver.cursor() if plain else driver.cursor(binary=True)
    return connection.info[_CURSOR]


def rows_of(connection: Connection, sql: str, values: Sequence[Any] = ()) -> list[Any]:
    """The rows of a short read, past SQLAlchemy: for statements that every process runs at its start or at rest. To make and
    compile one there would write to megabytes that forked processes otherwise share. ``?`` is a placeholder on both
    engines."""
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        return driver.execute(sql, values).fetchall()
    with driver.cursor(binary=True) as cursor:
        rows: list[Any] = cursor.execute(sql.replace("?", "%s"), values).fetchall()
        return rows


def wrong_clock(connection: Connection) -> str:
    """Why nothing is written by this host, if a clock is wrong; "" if they agree, or the database is a file."""
    return "" if connection.dialect.name == "sqlite" else _clocks(*rows_of(connection, f"SELECT {_CLOCK}")[0])


def _clocks(at: int) -> str:
    """``at``: the server's time, just now, in seconds."""
    if abs(ahead := time.time() - at) <= CLOCKS_SECONDS:
        return ""
    how = "ahead of" if ahead > 0 else "behind"
    return f"the clock of this host is {abs(ahead) / 60:.0f} minutes {how} the database server's: nothing is written until both are right"


def among(
    sql: str, values: Sequence[Any], first: Sequence[Any] = (), *, sqlite: bool
) -> Iterator[tuple[str, Sequence[Any]]]:
    """The statements, with their values, for the rows in which a column has one of these values. ``{}`` follows the
    column's name; ``first``: the values of placeholders before it. The statements are few, so that they need not be
    prepared each time: on SQLite they have a few fixed sizes."""
    if not sqlite:
        if values:
            kind = "bigint" if isinstance(values[0], int) else "bytea" if isinstance(values[0], bytes) else "text"
            yield sql.format(f"= ANY(?::{kind}[])"), (*first, array_of(kind, values))
        return
    for start in range(0, len(values), _SIZES[-1]):
        some = values[start : start + _SIZES[-1]]
        size = next(size for size in _SIZES if size >= len(some))
        marks = f"IN ({', '.join('?' * size)})"
        yield sql.format(marks), (*first, *some, *[some[-1]] * (size - len(some)))


_SIZES = (4, 32, 128, 500)  # numbers of values in one IN (...)


def rows_among(connection: Connection, sql: str, values: Sequence[Any]) -> Iterator[Any]:
    """As ``rows_of``, the rows in which a column has one of these values (among)."""
    sqlite = isinstance(connection.connection.driver_connection, sqlite3.Connection)
    for statement in among(sql, values, sqlite=sqlite):
        yield from rows_of(connection, *statement)


class Array(bytes):
    """An array as PostgreSQL sends and receives it in binary (array_recv): written as text, each octet string is
    encoded in hexadecimal here and decoded there."""


_ELEMENTS = {"boolean": (16, "?"), "bytea": (17, ""), "bigint": (20, "q"), "smallint": (21, "h"), "integer": (23, "i"),
             "text": (25, "")}  # fmt: skip
"""By type, its number in every PostgreSQL, and the format of a value of fixed size."""
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)


def array_of(kind: str, values: Sequence[Any]) -> Array:
    """The values of a column of this type, one dimension from 1 on. Each value follows its length; -1 is that of NULL."""
    oid, fixed = _ELEMENTS[kind]
    one = struct.Struct(f">i{fixed}")
    made = partial(one.pack, one.size - _LENGTH.size) if fixed else _text if kind == "text" else _octets
    octets = b"".join([_NULL if value is None else made(value) for value in values])
    return Array(struct.pack(">5i", 1, None in values, oid, len(values), 1) + octets)


def _octets(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _text(value: str) -> bytes:
    return _octets(value.encode())


@cache
def _array_dumper() -> type:
    """For the driver. The statement says which type it is."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class ArrayDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: bytes) -> bytes:
            return obj

    return ArrayDumper


def _close_cursor(connection: Connection) -> None:
    if (cursor := connection.info.pop(_CURSOR, None)) is not None:
        cursor.close()


def is_there(url: str) -> bool:
    """False: a SQLite database without a file, which opening would create. For a server always True: opening tells."""
    file = sqlite_file(url)
    return file is None or file.exists()


@cache
def _sqlite_model() -> Engine:
    """What SQLAlchemy finds out about SQLite, and what it compiles for it, once in this process and in those that are forked
    from it."""
    engine = create_engine("sqlite://")
    engine.connect().close()
    engine.dispose()
    return engine


def _to_file(uri: str) -> sqlite3.Connection:
    """In autocommit: we begin transactions ourselves."""
    connection = sqlite3.connect(
        uri, uri=True, check_same_thread=False, isolation_level=None, cached_statements=_STATEMENTS
    )
    connection.execute(f"PRAGMA {_EXACT}")
    return connection


def _make(path: Path) -> None:
    """Create the file, readable for its owner only. An existing one is not even opened: closing it would release every
    lock that this process has on it (fcntl), and could so damage what another connection here has written."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        hand_over(path, path.parent)
    except FileExistsError:
        pass


@lru_cache(maxsize=8)
def _url_of(url: str) -> URL:
    """The URL without its servers, if it names several. Raises ValueError."""
    parts = urlsplit(url)
    user, at, places = parts.netloc.rpartition("@")
    return _with_driver(make_url(url.replace(parts.netloc, f"{user}{at}", 1) if "," in places else url))


def _servers(url: str) -> dict[str, str]:
    """The servers as connection parameters, if the URL names several (``postgresql://user@one:5432,two/name``). libpq
    takes the one that can be written, unless the URL says otherwise."""
    parts = urlsplit(url)
    places = parts.netloc.rpartition("@")[2].split(",")
    if len(places) < 2:
        return {}
    named = [_PLACE.fullmatch(place) for place in places]
    found = {
        "host": ",".join(each["host"].strip("[]") for each in named if each is not None),
        "port": ",".join(each["port"] or "5432" for each in named if each is not None),
    }
    return found if "target_session_attrs" in parts.query else {**found, "target_session_attrs": "read-write"}


def for_libpq(url: str) -> URL:
    """For programs that come with PostgreSQL: the servers are parameters. Raises ValueError."""
    return _url_of(url).set(drivername="postgresql").update_query_dict(_servers(url))


def _with_driver(url: URL) -> URL:
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "postgresql+psycopg"):
        return url
    raise ValueError(f"a store in {url.drivername} is not known: sqlite or postgresql")
