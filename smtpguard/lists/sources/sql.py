"""Members from a query to any database that SQLAlchemy supports.

Rows are streamed by a server-side cursor where there is one, in a read-only transaction; a query that does not answer
in time is cut off.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from smtpguard.lists.members import SqlMembers
from smtpguard.lists.sources import Cell, Source, SourceError, SourceTimeouts, Stop, Tally, file_of, secret, shut_down

ROWS = 2000
"""The rows that are in memory at a time."""
_VALUE = re.compile(r"""(["']).*\1""")


class SqlSource(Source):
    """The members that a query of a database gives."""

    def __init__(self, members: SqlMembers, base: Path, stop: Stop) -> None:
        try:
            url = make_url(members.sql)
        except ArgumentError:
            raise SourceError("sql: no url that SQLAlchemy understands") from None
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.drivername == "sqlite" and url.database:
            url = url.set(database=str(file_of(url.database, base)))
        if members.password_file:
            url = url.set(password=secret(members.password_file, base))
        self._members, self._url, self._patience = members, url, SourceTimeouts(members, stop)
        self._fingerprint = b""

    @property
    def label(self) -> str:
        if self._url.get_backend_name() == "sqlite":
            return f"the database {Path(self._url.database or '').name}"
        return f"the database {self._url.database} at {self._url.host or 'this machine'}"

    def fingerprint(self) -> bytes:
        """Return a digest of the rows of the ``version`` query, which is asked once, before the members are read. A change while
        they are read shows at the next sync."""
        if self._members.version is None:
            return self.opening
        if not self._fingerprint:
            with self._connected() as connection:
                rows = [tuple(row) for row in connection.exec_driver_sql(self._members.version).fetchmany(ROWS)]
            where = self._url.render_as_string(hide_password=True)
            named = repr((where, self._members.query, self._members.column, rows)).encode()
            self._fingerprint = hashlib.blake2b(named, digest_size=32).digest()
        return self._fingerprint

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, "row")
        with self._connected() as connection:
            streamed = connection.execution_options(stream_results=True, yield_per=ROWS)
            with closing(streamed.exec_driver_sql(self._members.query)) as result:
                if not result.returns_rows:
                    raise SourceError.saying("{name}: the query gives no rows: expected a SELECT", name=self.label)
                at = self._column(list(result.keys()))
                for number, row in enumerate(result, 1):
                    if not number % ROWS:
                        self._patience.check(self.label)
                    tally.rows += 1
                    value = row[at]
                    text = _read(bytes(value)) if isinstance(value, bytes | memoryview) else str(value)
                    if value is None or not text.strip():
                        tally.reject(number, "no address")
                    else:
                        yield number, text

    def _column(self, names: list[str]) -> int:
        if self._members.column is None:
            return 0
        folded = [name.casefold() for name in names]
        if self._members.column.casefold() not in folded:
            has = ", ".join(names[:20])
            raise SourceError.saying(
                '{name}: the query gives no column "{column}": it gives {has}',
                name=self.label,
                column=self._members.column,
                has=has,
            )
        return folded.index(self._members.column.casefold())

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Open a connection in a read-only transaction, cut off at the time limit."""
        cursors: list[Any] = []
        drivers: list[Any] = []
        try:
            engine = create_engine(self._url, poolclass=NullPool, **_options(self._url, self._patience.wait_seconds))
            event.listen(engine, "begin", _read_only(self._patience.wait_seconds))
            event.listen(engine, "before_cursor_execute", lambda _, cursor, *rest: cursors.append(cursor))
            # before SQLAlchemy's own first questions to the database, which are asked in this event too
            event.listen(engine, "connect", lambda driver, _: drivers.append(driver), insert=True)
            with self._patience.cutting(lambda: _cut(drivers)), engine.connect() as connection:
                yield connection.execution_options(no_parameters=True)
        except ModuleNotFoundError as error:
            raise SourceError(
                f"{self.label}: the driver {error.name} is not installed: pip install it beside smtpguard"
            ) from None
        except NoSuchModuleError:
            raise SourceError(f"{self.label}: SQLAlchemy knows no database {self._url.drivername}") from None
        except (SQLAlchemyError, OSError) as error:
            raise SourceError.saying(
                "{name}: {why}", name=self.label, why=self._patience.spent() or _why(error)
            ) from None
        finally:
            for cursor in cursors:  # SQLAlchemy leaves the cursors of a connection that was cut
                with suppress(Exception):
                    cursor.close()


def _options(url: URL, seconds: float) -> dict[str, Any]:
    """Return the options of SQLAlchemy and the driver beside the url."""
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if not path.is_file():
            raise SourceError.saying("{name}: No such file", name=str(path))  # SQLite would create it
        where = f"{path.absolute().as_uri()}?mode=ro"
        return {"creator": lambda: _lite(where, seconds)}
    wait = max(int(seconds), 2)
    if url.drivername == "postgresql+psycopg":
        kept = {"keepalives": 1, "keepalives_idle": wait, "keepalives_interval": 5, "keepalives_count": 3}
        given = {"connect_timeout": wait, "tcp_user_timeout": wait * 1000, "prepare_threshold": None, **kept}
        return {"connect_args": given}
    if url.get_backend_name() in ("mysql", "mariadb"):
        return {"connect_args": {"connect_timeout": wait}}
    return {}


def _lite(where: str, seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(where, uri=True, timeout=seconds, check_same_thread=False)
    connection.text_factory = _read  # a text in another encoding is one bad row, not an error of the source
    return connection


def _read(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _read_only(seconds: float) -> Callable[[Connection], None]:
    def begin(connection: Connection) -> None:
        name, cursor = connection.dialect.name, connection.connection.cursor()
        if name == "postgresql":
            cursor.execute(f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {int(seconds * 1000)}")
        elif name == "sqlite":
            cursor.execute("PRAGMA query_only = ON")
        elif name in ("mysql", "mariadb"):
            cursor.execute("SET TRANSACTION READ ONLY")
        cursor.close()

    return begin


def _cut(drivers: Iterable[Any]) -> None:
    """Abort the drivers' waits, from another thread. Drivers without a way are checked between rows."""
    for driver in drivers:
        if hasattr(driver, "interrupt"):  # sqlite3
            driver.interrupt()
        elif hasattr(driver, "fileno"):  # psycopg
            shut_down(driver.fileno())


def _why(error: Exception) -> str:
    """Return the first line of the database's error, without the statement, without a url, and without personal values."""
    said = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error).strip()
    line = said.splitlines()[0] if said else type(error).__name__
    return _VALUE.sub('"..."', line) if isinstance(error, DataError) else line
