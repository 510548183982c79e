"""One database, SQLite or PostgreSQL, behind one interface: one connection that writes, a few that read, and one writer
at a time over all processes.

SQLite uses a WAL, ``synchronous=FULL`` unless a write asks for less, and a fair lock between processes before ``BEGIN
IMMEDIATE`` (files.FairLock). PostgreSQL uses READ COMMITTED, and an advisory lock as the transaction's own first statement, so
that every later statement sees what the previous writer committed; the same statement sets ``synchronous_commit`` to at least
``on``. A driver's errors leave this file as BadItem or subclasses of StoreError.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
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
from smtpguard.config.statefiles import NO_SPACE, READ_ONLY, hand_over, owner_of, refusal, sqlite_file
from smtpguard.database.errors import CommitUnknown, Full, Unavailable, Unusable, no_space, reason
from smtpguard.database.failpoint import failpoint
from smtpguard.database.files import FairLock, ReadOnlyCopy, inode, is_only_readable, write_log_again
from smtpguard.database.fronts import Fronts
from smtpguard.database.statements import Array, array_dumper, close_cursor, rows_of
from smtpguard.database.writeback import WriteBack
from smtpguard.journal.clock import SteadyClock
from smtpguard.locale.phrase import N_, Phrase

_STATEMENTS = 256
"""The number of prepared statements that a connection to SQLite keeps."""
BUSY_SECONDS = 15
"""The longest that a statement runs, or waits for a lock."""
IDLE_SECONDS = 10
"""The longest pause between two statements of a write. The transaction of a node that is stopped (SIGSTOP, a paused machine) is
then rolled back, before those that wait for its lock give up (BUSY_SECONDS)."""
CONNECT_SECONDS = 5
CLOCKS_SECONDS = 300
"""The most that the clocks of this host and of the server may differ. Until it has asked the server, a process goes by its host's."""
_ADVISORY_KEY = 0x536D7470  # any number, the same for every writer
_BEGIN_SQLITE = "BEGIN IMMEDIATE"
_LOG_PAGES = 8000  # of the write-ahead log are allocated beforehand
_LONG_PAGES = 6000  # a log of this length is written back in the background, so that it starts again
_TOO_LONG_PAGES = 32000  # a log of this length is written back by a commit
_ROOMY = 1 << 30  # free octets from which on the log is allocated beforehand
_CACHE_KIB = 32 << 10
"""The page cache of a process that admits mail. People are counted under random numbers, on any page: with SQLite's default of
2 MiB a mailing to hundreds of thousands reads and writes many pages again for each message."""
_KEPT_READERS, _MOST_READERS = 2, 14
"""The number of reading connections to SQLite that stay open, and the most at once."""
_EXACT = "case_sensitive_like=ON"  # as LIKE is on PostgreSQL: "Sales" and "sales" are two lists, and two groups
_LAY_OUT = (  # write the pages of the log and free them; the last write makes the disk allocate them. They are not cached.
    "PRAGMA cache_size=-512",
    _BEGIN_SQLITE,
    "CREATE TABLE laid_out (x)",
    f"INSERT INTO laid_out VALUES (zeroblob({(_LOG_PAGES - 200) * 4092}))",
    "ROLLBACK",
    "PRAGMA user_version = 0",
    "PRAGMA shrink_memory",
    f"PRAGMA cache_size=-{_CACHE_KIB}",
)
_FAILED = "connection failed: "
_NO_CONNECTION = N_(
    "no connection to the database: {said}. Correct what it names at the server, or the url or password here"
)
_POOLED = N_(
    "a pooler gives each transaction another connection, and must keep one for each session (pool_mode): {said}"
)
_LATE = N_(
    "the database takes too long: {said}. End the session that blocks it, or find out what slows its server down"
)
_ENDED = N_("the database server ended the connection: {said}. If it does not come back by itself, start it")
_FULL = N_("no space left for the database: {said}. Make room on the disk of its server")
_REASONS = {  # by SQLSTATE, or the beginning of it
    "25006": N_(
        "the database server is read-only: {said}. Promote it if it is a stand-by, or lift what makes it read-only"
    ),
    "26000": _POOLED,
    "42501": N_("the database user lacks a privilege: {said}. Grant it"),
    "42P05": _POOLED,
    "53": N_("the database server is at a limit: {said}. Raise the limit there, or free what uses it up"),
    "53100": _FULL,
    "55": _LATE,
    "57": _LATE,
    "57P": _ENDED,
}
"""What is wrong and what to do, where the server says why in its first line. That line has no data of a row."""
_ROWLESS = ("08", "25", "40")
"""Other classes of SQLSTATE whose first line has none: connections, the state of the transaction, conflicts of transactions."""
_SQLITE_REASONS = {  # by the beginning of its error
    "SQLITE_NOTADB": N_("{file} is not an SQLite database ({error}). Put the database there, or correct the url"),
    "SQLITE_CORRUPT": N_("{file} is damaged ({error}). Move it away as it is, and restore a backup"),
    "SQLITE_READONLY": N_("{file} cannot be written by this user ({error}). Give it to the user who serves"),
    "SQLITE_CANTOPEN": N_("{file} cannot be opened ({error}). Look whether it is there, and whose it is"),
    "SQLITE_BUSY": N_("{file} is locked by another program ({error}). End that program"),
}
_SERVER = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]*))?")
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_UNLIMITED = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'"
"""From PostgreSQL 17 on. The limit of a role or server would end each step of the schema, and each read, that takes longer."""
_BEGIN_POSTGRESQL = (  # one statement: a commit that is reported is on disk, whatever the defaults of role or database
    f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY}), set_config('synchronous_commit', "
    "CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true), "
    f"pg_postmaster_start_time()::text, {_CLOCK}"
)


_Inode = tuple[int, int]
"""Device and inode number."""


class BadItem(Exception):
    """The database rejected the data of an item."""


class Database:
    """Engines and the writer's connection. ``begin`` to ``commit`` belong to one thread; ``read`` is for any."""

    def __init__(self, url: str, *, hot: bool = False, reads: bool = False, clock: SteadyClock | None = None) -> None:
        """``url``: its parameter ``password_file`` names a file with the password, which each connection reads again. ``hot``:
        clients wait for these writes, so the log is allocated beforehand and more pages are cached. ``reads``: nothing is
        written; a read-only database is enough, and no file is made beside it. ``clock`` is set by that of the server. Raises
        ValueError, and StoreError if the database's files cannot be opened."""
        self.given, named, self._places = url, _url_of(url), _servers(url)
        self.url, self._password_file = (
            named.difference_update_query(["password_file"]),
            named.query.get("password_file"),
        )
        self.copy: ReadOnlyCopy | None = None
        """How to open a SQLite database that can only be read; else None."""
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._lock: FairLock | None = None
        self.fronts: Fronts | None = None
        """The fronts of a SQLite database that can be written; else None."""
        self._hot, self._clock = hot, clock
        if self.sqlite:
            if not self.url.database or self.url.database == ":memory:":
                raise ValueError("the store needs a file: sqlite:///path/to/file.db")
            self.path = Path(self.url.database)
            if reads and is_only_readable(self.path):
                self.copy = ReadOnlyCopy(self.path)
            else:
                try:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    _create(self.path)
                    self._lock = FairLock(self.path)
                except OSError as error:
                    raise self.translate(error) from error
                self.fronts = Fronts(self.path)
            self._paths = str(self.path), f"{self.path}-wal"
            self._uri = f"file:{quote(str(self.path))}?mode=rw"
        self._writer = self._engine(write=True)
        self._readers = self._engine(write=False)
        self._write_back: WriteBack | None = None
        if self._lock is not None:
            self._write_back = WriteBack(self.path, self._readers.raw_connection, _LONG_PAGES)
        self._connection: Connection | None = None
        self._file: _Inode | None = None  # the database just before the writing connection opened it
        self._files: tuple[_Inode | None, ...] | None = (
            None  # the database and its log, once the first transaction began
        )
        self._synced = True  # whether commits of the writing connection are synced
        self._doubted = False  # whether a commit failed, and the log was not written again since
        self._closed = False
        self.connections = 0
        """The number of writing connections, and of servers behind them, so far. After a new one the database may have another
        state."""
        self._server = ""  # the server's start time, by which it is known
        self._driver: Any = None  # the driver's own connection below it
        driver: Any = self._writer.dialect.loaded_dbapi
        self.errors: tuple[type[BaseException], ...] = (SQLAlchemyError, OSError, driver.Error)
        """The classes of errors that SQLAlchemy, the driver and the file system raise."""
        self._offline: type[BaseException] = driver.OperationalError

    def _engine(self, *, write: bool) -> Engine:
        if self.sqlite:
            return self._sqlite_engine(write=write)
        clock = self._clock
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
            connection.adapters.register_dumper(Array, array_dumper())
            try:
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"SET statement_timeout = '{BUSY_SECONDS}s'; SET lock_timeout = '{BUSY_SECONDS}s'; {_UNLIMITED}"
                    )
                    if clock is not None:
                        asked = clock.monotonic()
                        clock.server_said(_time(cursor.execute(f"SELECT {_CLOCK}").fetchone()[0]), asked)
                    if write:
                        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
                connection.commit()
            except BaseException:  # a server that is going down; otherwise nothing closes it
                connection.close()
                raise

        return engine

    def _sqlite_engine(self, *, write: bool) -> Engine:
        model = _sqlite_model()
        opens: Any = partial(self._open, write=write)
        more = _MOST_READERS - _KEPT_READERS
        pool: Pool = NullPool(opens) if write else QueuePool(opens, pool_size=_KEPT_READERS, max_overflow=more)
        pool._dialect = model.dialect
        if not write:

            @event.listens_for(pool, "connect")
            def note_inodes(_: object, record: Any) -> None:
                record.info["inodes"] = self._inodes()

            @event.listens_for(pool, "checkout")
            def check_inodes(_: object, record: Any, __: object) -> None:
                if record.info["inodes"] != self._inodes():
                    raise DisconnectionError("another file has replaced it")  # the pool then opens the new file

        engine = Engine(pool, model.dialect, model.url)
        engine._compiled_cache = model._compiled_cache
        return engine

    def _open(self, *, write: bool) -> sqlite3.Connection:
        """Connect to the database file, but never create it: an empty file in its place would hide that all is lost."""
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
        """Return which files are now at the paths of the database and its log. A connection keeps the files that it opened,
        whatever their names become (https://www.sqlite.org/howtocorrupt.html, section 2.2)."""
        return inode(self._paths[0]), inode(self._paths[1])

    @contextmanager
    def write(self, *, synced: bool = True) -> Iterator[Connection]:
        """Run a write transaction, exclusive over all processes. It is committed durably at the end, and rolled back on any
        exception. Not ``synced``: SQLite puts the commit on disk with the next synced one, or at Fronts.sync; a power failure
        before that may undo it, and nothing else.

        Raises CommitUnknown, Unavailable, Full, or BadItem. After a storage error the connection is thrown away, and the
        log is written again before anything else, so that no later fsync covers up a failed one.
        """
        if self.copy is not None:
            raise Unavailable(self.copy.why)
        with self._lock or nullcontext():
            try:
                connection = self._begin(synced=synced)
            except self.errors as error:
                self._drop()
                raise self.translate(error) from error
            try:
                failpoint("begin")
                yield connection
                failpoint("before-commit")
            except BaseException as error:
                self._rollback(error)
                if isinstance(error, self.errors):
                    raise self.translate(error) from error
                raise
            try:
                self._driver.commit()
                failpoint("after-commit")
                if not self._in_place():  # the commit went into a file without a name
                    self._drop()
                    raise CommitUnknown(f"{self.path} was removed while it was written")
            except self.errors as error:
                self._drop()
                self._doubted |= self.sqlite and getattr(error, "sqlite_errorname", "") != "SQLITE_FULL"
                problem = self.translate(error)
                raise problem if isinstance(problem, (Full, BadItem)) else CommitUnknown(reason(problem)) from error
        if self._write_back is not None:
            self._write_back.committed()

    def _begin(self, *, synced: bool) -> Connection:
        """Begin a transaction through the driver, and return the writing connection. SQLAlchemy sees one transaction that never
        ends, so it adds no work to a batch."""
        if not self._in_place():
            self._drop()
        connection = self._connection or self._connect()
        if self.sqlite and synced is not self._synced:
            self._driver.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._synced = synced
        if self.sqlite:
            self._driver.execute(_BEGIN_SQLITE)
        else:
            connection = self._begin_on_server(connection)
        if self._doubted:
            write_log_again(self.path)
            self._doubted = False
        if self.sqlite and self._files is None:
            self._files = (self._file, inode(self._paths[1]))  # the log exists from the first transaction on
        return connection

    def _begin_on_server(self, connection: Connection) -> Connection:
        """Begin on PostgreSQL. If the server has closed this connection, since it was idle or at a restart, use a new one."""
        asked = self._clock.monotonic() if self._clock is not None else 0.0
        try:
            begun = self._driver.execute(_BEGIN_POSTGRESQL)
        except self.errors:
            if not self._driver.closed:
                raise
            self._drop()
            connection = self._connect()
            begun = self._driver.execute(_BEGIN_POSTGRESQL)
        *_, server, at = begun.fetchone()
        if problem := clock_problem(time.time() - at / 1e6):
            self._driver.rollback()
            raise Unavailable(problem)
        if self._clock is not None:
            self._clock.server_said(_time(at), asked)
        if server != self._server:  # a pooler keeps our connection when it turns to another server
            self._server = server
            self.connections += 1
        return connection

    def _in_place(self) -> bool:
        """Return whether the files that the writing connection has open are still at their paths."""
        return self._files is None or (None not in self._files and self._inodes() == self._files)

    def _connect(self) -> Connection:
        """Open the writing connection."""
        if self.sqlite:
            self._files, self._file = None, inode(self._paths[0])
        connection = self._connection = self._writer.connect()
        self._synced = True
        self.connections += 1
        connection.begin()
        self._driver = connection.connection.driver_connection
        return connection

    def prepare(self) -> None:
        """Extend the write-ahead log to its full length. Call it in the writer's thread before the first write. A commit into a
        growing file also waits for the file system's journal, and so for all other writes to that disk. If space is scarce,
        the log grows as it is written."""
        if self._lock is None or not self._hot or self._free() < _ROOMY:
            return
        try:
            with self._lock:
                log = Path(f"{self.path}-wal")
                if not log.exists() or log.stat().st_size < _LOG_PAGES * 2048:
                    self._connect()
                    for statement in _LAY_OUT:
                        self._driver.execute(statement)
        except self.errors:
            self._drop()

    @contextmanager
    def read(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """Run a read transaction, READ COMMITTED. With ``snapshot``, and on SQLite always, all its statements see the same
        state. Raises Unavailable."""
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
            raise self.translate(error) from error
        finally:
            if self._closed:  # closed meanwhile: the connection went back to a pool that nobody else empties
                self._readers.pool.dispose()

    def _rollback(self, error: BaseException) -> None:
        if isinstance(error, self.errors) and not isinstance(self.translate(error), BadItem):
            self._drop()
            return
        try:
            if self._connection is not None:
                self._driver.rollback()
        except self.errors:
            self._drop()

    def _drop(self) -> None:
        """Throw the writing connection away. The next transaction opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                close_cursor(connection)
                if self.sqlite:  # it keeps a closed connection, and its lock, while a cursor of it is alive
                    connection.connection.rollback()
            except self.errors:
                pass
            try:
                connection.invalidate()
                connection.close()
            except self.errors:
                pass  # it was broken already

    def translate(self, error: BaseException) -> Exception:
        """Return our error for one of driver or system. It never has the statement's parameters, which are personal data."""
        original = getattr(error, "orig", None) or error
        if isinstance(original, OSError):
            if no_space(original):
                return Full("no space left for the store")
            file = original.filename or "the store"
            if original.errno == errno.EROFS:
                return Unavailable(Phrase(READ_ONLY, file=str(file)))
            kind = Unusable if isinstance(original, PermissionError) else Unavailable
            return kind(f"{file}: {os.strerror(original.errno or 0)}")
        if isinstance(original, sqlite3.Error):
            return self._translate_sqlite(original)
        state = getattr(original, "sqlstate", None) or ""
        told = str(original).strip().splitlines()
        first = next(iter(told), "")
        if not state and isinstance(original, self._offline):  # libpq names no state for a connection
            each = dict.fromkeys(line.partition(_FAILED)[2] for line in told if _FAILED in line)  # of several servers
            return Unavailable(Phrase(_NO_CONNECTION, said="; ".join(each) or first))
        for known in (state, state[:3], state[:2]):
            if known in _REASONS:
                why = Phrase(_REASONS[known], said=f"{first} ({state})")
                return Full(why) if known == "53100" else Unavailable(why)
        if state[:2] in ("22", "23"):  # data exceptions, integrity constraints
            return BadItem(f"refused by the database ({state})")
        plain = first if not state or state[:2] in _ROWLESS else ""
        details = (f": {plain}" if plain else "") + (f" ({state})" if state else "")
        return Unavailable(f"the database: {type(original).__name__}{details}")

    def _translate_sqlite(self, error: sqlite3.Error) -> Exception:
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        disk = name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))  # a quota, or no inode, is no SQLITE_FULL
        refused = refusal(self.path.parent) if disk or name.startswith("SQLITE_READONLY") else None
        if name == "SQLITE_FULL" or (disk and refused is not None and no_space(refused)):
            said = f"{self.path}: {refused.strerror}" if refused is not None else str(self.path)
            return Full(Phrase(NO_SPACE, file=said))
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)) or name == "SQLITE_TOOBIG":
            return BadItem(f"refused by the database ({name})")
        if refused is not None and refused.errno == errno.EROFS:
            return Unavailable(Phrase(READ_ONLY, file=str(self.path)))
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            for file in (self.path, *(Path(f"{self.path}{end}") for end in ("-wal", "-shm"))):
                if os.access(file, os.F_OK) and not os.access(file, os.R_OK | os.W_OK):
                    problem = f"belongs to {owner_of(file)}, and cannot be read and written by this user"
                    return Unusable(f"{file} {problem} ({name})")
        why = next((text for beginning, text in _SQLITE_REASONS.items() if name.startswith(beginning)), "")
        if not why:
            return Unavailable(f"the database: {name}")
        kind = Unavailable if name.startswith("SQLITE_BUSY") else Unusable
        return kind(Phrase(why, file=str(self.path), error=name))

    def _free(self) -> float:
        """Return the number of free octets on the disk; infinity if it cannot be found out."""
        try:
            room = os.statvfs(self.path.parent)
        except OSError:
            return math.inf
        return room.f_bavail * room.f_frsize

    def close(self) -> None:
        """Close all connections and files. Call it in the writer's thread, or after that has ended."""
        if self._connection is not None:
            try:
                close_cursor(self._connection)
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


def ahead_of_server(connection: Connection) -> float:
    """Return how many seconds the clock of this host is ahead of the server's; 0 for SQLite."""
    if connection.dialect.name == "sqlite":
        return 0.0
    [(at,)] = rows_of(connection, f"SELECT {_CLOCK}")
    return time.time() - float(at) / 1e6


def clock_problem(ahead: float) -> str:
    """Return why this host writes nothing if its clock is so many seconds ahead of the server's; "" if it writes."""
    if abs(ahead) <= CLOCKS_SECONDS:
        return ""
    how = "ahead of" if ahead > 0 else "behind"
    return f"the clock of this host is {abs(ahead) / 60:.0f} minutes {how} the database server's: nothing is written until both are right"


def _time(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1e6, UTC)


def is_there(url: str) -> bool:
    """Return False for a SQLite database without a file, which opening would create. A server is only found by opening, so True
    for it."""
    file = sqlite_file(url)
    return file is None or file.exists()


@cache
def _sqlite_model() -> Engine:
    """Return the engine from which all others of SQLite take their dialect and their compiled statements. This process and
    those that are forked from it share them."""
    engine = create_engine("sqlite://")
    engine.connect().close()
    engine.dispose()
    return engine


def _to_file(uri: str) -> sqlite3.Connection:
    """Connect in autocommit mode: transactions are begun by statements of ours."""
    connection = sqlite3.connect(
        uri, uri=True, check_same_thread=False, isolation_level=None, cached_statements=_STATEMENTS
    )
    connection.execute(f"PRAGMA {_EXACT}")
    return connection


def _create(path: Path) -> None:
    """Create the file, readable for its owner only. An existing file is not even opened: to close it would release every lock
    that this process has on it (fcntl), and so could damage what another connection here has written."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        hand_over(path, path.parent)
    except FileExistsError:
        pass


@lru_cache(maxsize=8)
def _url_of(url: str) -> URL:
    """Return the URL with the driver's name, and without its servers if it names several. Raises ValueError."""
    parts = urlsplit(url)
    user, at, places = parts.netloc.rpartition("@")
    return _with_driver(make_url(url.replace(parts.netloc, f"{user}{at}", 1) if "," in places else url))


def _servers(url: str) -> dict[str, str]:
    """Return the servers as connection parameters if the URL names several (``postgresql://user@one:5432,two/name``). libpq takes
    the server that can be written, unless the URL says otherwise."""
    parts = urlsplit(url)
    places = parts.netloc.rpartition("@")[2].split(",")
    if len(places) < 2:
        return {}
    named = [_SERVER.fullmatch(place) for place in places]
    found = {
        "host": ",".join(each["host"].strip("[]") for each in named if each is not None),
        "port": ",".join(each["port"] or "5432" for each in named if each is not None),
    }
    return found if "target_session_attrs" in parts.query else {**found, "target_session_attrs": "read-write"}


def for_libpq(url: str) -> URL:
    """Return the URL as pg_dump and pg_restore read it, with several servers as parameters. Raises ValueError."""
    return _url_of(url).set(drivername="postgresql").update_query_dict(_servers(url))


def _with_driver(url: URL) -> URL:
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "postgresql+psycopg"):
        return url
    raise ValueError(f"a store in {url.drivername} is not known: sqlite or postgresql")
