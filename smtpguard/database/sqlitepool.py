"""Connections to a SQLite database, kept for the next reader, in the shape that SQLAlchemy takes from a pool.

Its own pool runs some eighty functions to make one connection, and each process that runs them copies the pages that
they are on, which forked processes share until then.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any


class Pooled:
    """A connection of the driver, as an open ``sqlalchemy.Connection`` uses it (PoolProxiedConnection). ``info`` is kept
    with it, and so is the ``place`` that it was opened at."""

    __slots__ = ("_pool", "dbapi_connection", "info", "place")

    def __init__(self, connection: sqlite3.Connection, place: object, pool: SqlitePool) -> None:
        self.dbapi_connection: sqlite3.Connection | None = connection
        self.place = place
        self.info: dict[str, Any] = {}
        self._pool = pool

    @property
    def driver_connection(self) -> sqlite3.Connection | None:
        return self.dbapi_connection

    @property
    def is_valid(self) -> bool:
        return self.dbapi_connection is not None

    def cursor(self) -> sqlite3.Cursor:
        return self._open.cursor()

    def commit(self) -> None:
        self._open.commit()

    def rollback(self) -> None:
        self._open.rollback()

    def close(self) -> None:
        """Back to the pool."""
        try:
            self._open.rollback()
        except sqlite3.Error:
            self.invalidate()
        else:
            self._pool.back(self)

    def _close_special(self, *, transaction_reset: bool) -> None:
        self.close()

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Close it, and never use it again."""
        connection, self.dbapi_connection = self.dbapi_connection, None
        if connection is not None:
            connection.close()

    @property
    def _open(self) -> sqlite3.Connection:
        if self.dbapi_connection is None:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        return self.dbapi_connection


class SqlitePool:
    """Any thread may ask. Up to ``keeps`` connections stay open while nobody uses them: each takes 0.7 MB."""

    logger = logging.getLogger(__name__)

    def __init__(self, opens: Callable[[], sqlite3.Connection], place: Callable[[], object], *, keeps: int) -> None:
        """``opens``: makes a connection. ``place``: what is at the database's path now; a connection that was opened when
        something else was there is not used again."""
        self._opens, self._place, self._keeps = opens, place, keeps
        self._idle: list[Pooled] = []

    def connect(self) -> Pooled:
        while (kept := self._kept()) is not None:
            if kept.place == self._place():
                return kept
            kept.invalidate()
        connection = self._opens()
        return Pooled(connection, self._place(), self)

    def back(self, connection: Pooled) -> None:
        if len(self._idle) < self._keeps:
            self._idle.append(connection)
        else:
            connection.invalidate()

    def dispose(self) -> None:
        """Close what is idle. Connections in use come back."""
        while (kept := self._kept()) is not None:
            kept.invalidate()

    def _kept(self) -> Pooled | None:
        try:
            return self._idle.pop()
        except IndexError:  # another thread may take the last one at any time
            return None
