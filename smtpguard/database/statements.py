"""SQL past SQLAlchemy: statements that the driver prepares itself, for SQLite and PostgreSQL alike.

They are the few statements of the hot path, and those that every process runs at its start or at rest. ``?`` is a placeholder on
both engines. PostgreSQL gets many values as binary arrays; SQLite gets statements of a few fixed sizes, so that few are prepared.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import Connection, Table

from smtpguard.database import schema

Row = Sequence[Any]
_CURSOR = "cursor of batches"
_SIZES = (4, 32, 128, 500)
"""Numbers of values in one IN (...) of SQLite."""
_ROWS = (128, 64, 32, *range(16, 0, -1))
"""Numbers of rows in one INSERT of SQLite."""
_TYPES = {
    "BigInteger": "bigint",
    "Integer": "integer",
    "SmallInteger": "smallint",
    "Text": "text",
    "LargeBinary": "bytea",
    "Boolean": "boolean",
}
_ELEMENTS = {"boolean": (16, "?"), "bytea": (17, ""), "bigint": (20, "q"), "smallint": (21, "h"), "integer": (23, "i"),
             "text": (25, "")}  # fmt: skip
"""For each type of PostgreSQL: its OID, the same on every server, and the ``struct`` format of a value of fixed size."""
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_CONFLICTS: Mapping[str, str] = {
    "person": "ON CONFLICT (person) DO UPDATE SET due = excluded.due, doc = excluded.doc, weights = excluded.weights",
    "again": "ON CONFLICT (content) DO UPDATE SET due = excluded.due, doc = excluded.doc",
    "sent": "ON CONFLICT (message) DO UPDATE SET due = excluded.due, doc = excluded.doc",
    "moment": "ON CONFLICT (scope, at) DO UPDATE SET n = moment.n + excluded.n, weight = moment.weight + excluded.weight,"
    " until = CASE WHEN excluded.until > moment.until THEN excluded.until ELSE moment.until END",
    "reset": "ON CONFLICT (scope) DO UPDATE SET at = excluded.at",
    "swept": "ON CONFLICT (one) DO UPDATE SET at = excluded.at, part = excluded.part",
    "tally": "ON CONFLICT (scope, seconds) DO UPDATE SET floor = excluded.floor, total = excluded.total,"
    " made = excluded.made",
    "contact_since": "ON CONFLICT (one) DO NOTHING",
    "underway": "ON CONFLICT (id) DO NOTHING",
    "mailing": "ON CONFLICT (n) DO UPDATE SET first_at = excluded.first_at, last_at = excluded.last_at, state = excluded.state,"
    " people = excluded.people, counts = excluded.counts, doc = excluded.doc,"
    " went_first = excluded.went_first, went_last = excluded.went_last",
    "mailing_key": "ON CONFLICT (key, n) DO NOTHING",
    "reached": "ON CONFLICT (n, person) DO UPDATE SET at = excluded.at, kind = excluded.kind,"
    " fate = excluded.fate, content = excluded.content, went = excluded.went",
    "outbox": "ON CONFLICT (intent_id) DO NOTHING",
    "delivery": "ON CONFLICT (intent_id, n) DO NOTHING",
    "chunk": "ON CONFLICT (sha256, n) DO NOTHING",
    "term": "ON CONFLICT (stretch, word, seq) DO NOTHING",
}


def rows_of(connection: Connection, sql: str, values: Sequence[Any] = ()) -> list[Any]:
    """Return the rows of a short read that every process runs at its start or at rest. To compile it in SQLAlchemy would write
    to megabytes that forked processes otherwise share."""
    driver: Any = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        return driver.execute(sql, values).fetchall()
    with driver.cursor(binary=True) as cursor:
        rows: list[Any] = cursor.execute(sql.replace("?", "%s"), values).fetchall()
        return rows


def rows_among(connection: Connection, sql: str, values: Sequence[Any], first: Sequence[Any] = ()) -> Iterator[Any]:
    """Yield the rows of ``sql`` in which a column has one of the values. ``{}`` follows the column's name in ``sql``; ``first``: the
    values of placeholders before it."""
    sqlite = isinstance(connection.connection.driver_connection, sqlite3.Connection)
    for statement in _statements_among(sql, values, first, sqlite=sqlite):
        yield from rows_of(connection, *statement)


def _statements_among(
    sql: str, values: Sequence[Any], first: Sequence[Any] = (), *, sqlite: bool
) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield statements, each with its values, that together ask for the rows in which a column has one of ``values``.

    ``{}`` follows the column's name in ``sql``; ``first``: the values of placeholders before it.
    """
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


class Statements:
    """Executes statements on the driver's cursor of one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._cursor = cursor_of(connection)
        self._sqlite = connection.dialect.name == "sqlite"

    def select(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Any]:
        """Return the rows of a query. To prepare it in SQLAlchemy would take longer than a whole small batch."""
        self._cursor.execute(sql if self._sqlite else sql.replace("?", "%s"), values)
        rows: Sequence[Any] = self._cursor.fetchall()
        return rows

    def among(self, sql: str, values: Sequence[Any], first: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield the rows of ``sql`` in which a column has one of ``values``. ``{}`` follows the column's name in ``sql``;
        ``first``: the values of placeholders before it."""
        for statement in _statements_among(sql, values, first, sqlite=self._sqlite):
            yield from self.select(*statement)

    def execute(self, sql: str, rows: Sequence[Row]) -> None:
        """Execute a statement once for each row of values."""
        if not self._sqlite:
            sql = sql.replace("?", "%s")
        if len(rows) == 1:
            self._cursor.execute(sql, rows[0])
        elif rows:
            self._cursor.executemany(sql, rows)

    def delete(self, sql: str, values: Row) -> int:
        """Execute a DELETE, and return the number of rows that it deleted."""
        self.execute(sql, [values])
        return int(self._cursor.rowcount)

    def execute_with(self, sql: str, rows: Sequence[Sequence[int]]) -> None:
        """Execute a statement once for all rows of numbers. ``{}`` stands for a table of them, with columns c0, c1 and so on."""
        columns = range(len(rows[0]))
        if self._sqlite:
            named = ", ".join(f"json_extract(value, '$[{n}]') AS c{n}" for n in columns)
            self._cursor.execute(
                sql.format(f"(SELECT {named} FROM json_each(?)) AS given"), (orjson.dumps(rows).decode(),)
            )
            return
        named, arrays = ", ".join(f"c{n}" for n in columns), ", ".join(["%s::bigint[]"] * len(columns))
        values = [array_of("bigint", column) for column in zip(*rows, strict=True)]
        self._cursor.execute(sql.format(f"unnest({arrays}) AS given({named})"), values)

    def _insert(self, table: str, rows: Sequence[Row]) -> None:
        """Insert rows with few statements: around each one the thread releases the interpreter's lock, and waits for it while
        the event loop is busy."""
        insert = _INSERTS[table]
        if not self._sqlite:
            columns = zip(*rows, strict=True)
            arrays = [array_of(kind, column) for kind, column in zip(insert.types, columns, strict=True)]
            self._cursor.execute(insert.arrays, arrays)
            return
        start = 0
        for size, sql in insert.rows:
            while len(rows) - start >= size:
                self._cursor.execute(sql, [*chain.from_iterable(rows[start : start + size])])
                start += size

    def _together(self) -> AbstractContextManager[Any]:
        """Return a context that sends its statements to PostgreSQL in one round trip. An error is raised at its end."""
        driver: Any = self.connection.connection.driver_connection
        return nullcontext() if self._sqlite else driver.pipeline()


def cursor_of(connection: Connection) -> Any:
    """Return the driver's cursor for all batches on this connection. If each batch had its own, that would outlive it, and
    SQLite keeps a closed file open, and its log unmerged, as long as there is a cursor."""
    if _CURSOR not in connection.info:
        driver: Any = connection.connection.driver_connection
        plain = isinstance(driver, sqlite3.Connection)
        connection.info[_CURSOR] = driver.cursor() if plain else driver.cursor(binary=True)
    return connection.info[_CURSOR]


def close_cursor(connection: Connection) -> None:
    if (cursor := connection.info.pop(_CURSOR, None)) is not None:
        cursor.close()


class _Insert:
    """The INSERT of a table. ``rows``: for SQLite, numbers of rows and their statements, largest first; ``arrays``: for
    PostgreSQL, the statement with one array for each column, and ``types`` their types."""

    def __init__(self, table: Table, number: int | None = None) -> None:
        """``number``: insert only so many columns, the first ones; the others are NULL."""
        columns = list(table.columns)[:number]
        row, end = f"({', '.join('?' * len(columns))})", _CONFLICTS.get(table.name, "")
        named = ", ".join(f'"{c.name}"' for c in columns)
        into = f'INSERT INTO "{table.name}" ({named})'
        self.rows = [(n, f"{into} VALUES {', '.join([row] * n)} {end}") for n in _ROWS]
        self.types = [_TYPES[type(c.type).__name__] for c in columns]
        self.arrays = f"{into} SELECT * FROM unnest({', '.join(f'%s::{kind}[]' for kind in self.types)}) {end}"


PLAIN_ENTRY = "entry without columns"
_INSERTS = {name: _Insert(table) for name, table in schema.metadata.tables.items()} | {
    PLAIN_ENTRY: _Insert(schema.entry, 7)
}


class Array(bytes):
    """An array in the binary format of PostgreSQL (array_recv). In the text format each octet string would be encoded in
    hexadecimal here and decoded there."""


def array_of(kind: str, values: Sequence[Any]) -> Array:
    """Encode the values of a column of this type as an array of one dimension, with the lower bound 1. Each value follows its
    length; the length of NULL is -1."""
    oid, fixed = _ELEMENTS[kind]
    element = struct.Struct(f">i{fixed}")
    encode = partial(element.pack, element.size - _LENGTH.size) if fixed else _text if kind == "text" else _octets
    octets = b"".join([_NULL if value is None else encode(value) for value in values])
    return Array(struct.pack(">5i", 1, None in values, oid, len(values), 1) + octets)


def _octets(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _text(value: str) -> bytes:
    return _octets(value.encode())


@cache
def array_dumper() -> type:
    """Return the class by which psycopg sends an ``Array``. The statement casts it to its type."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class ArrayDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: bytes) -> bytes:
            return obj

    return ArrayDumper
