"""Access to the database for all rooms: short reads in a few threads, long reads of many short transactions, and writes in the
writer's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, case, false, func, select, true, tuple_

from smtpguard.database.batch import Batch, Step
from smtpguard.database.engine import Database
from smtpguard.database.errors import Unavailable
from smtpguard.database.fronts import Fronts
from smtpguard.journal.chain import microseconds
from smtpguard.journal.clock import Clock

T = TypeVar("T")
P = ParamSpec("P")
READ_SECONDS = 10.0
"""The longest that a caller waits for a short read."""
_VALUES = 500  # in one IN (...)

Open = Callable[[], AbstractContextManager[Connection]]
"""Opens one short transaction of a long read."""
Progress = Callable[[int, int], None]
"""Takes the number of items done and that of all, between the transactions of a long read."""


def paged(open: Open, query: Select[Any], size: int, *keys: ColumnElement[Any]) -> Iterator[Sequence[Any]]:
    """Yield the rows of a query in pages of ``size`` rows, each page in a transaction of its own. They are in the order of
    ``keys``, which are the query's first columns. No page is empty."""
    query = query.order_by(*keys).limit(size)
    with open() as connection:
        rows = connection.execute(query).all()
    while rows:
        yield rows
        if len(rows) < size:
            return
        after = tuple_(*keys) > tuple(rows[-1][: len(keys)])
        with open() as connection:
            rows = connection.execute(query.where(after)).all()


def among(
    connection: Connection, query: Select[Any], column: ColumnElement[Any], values: Sequence[Any]
) -> Iterator[Any]:
    """Yield the rows in which ``column`` has one of ``values``, with one statement for each 500 values."""
    for some in sliced(values, _VALUES):
        yield from connection.execute(query.where(column.in_(some)))


def either(conditions: Iterable[ColumnElement[bool]]) -> ColumnElement[bool]:
    """Return the condition that one of any number is true. SQLite takes up to 1,000 joined by OR, one within the other."""
    whens = [(condition, true()) for condition in conditions]
    return case(*whens, else_=false()) if whens else false()


def sliced(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Return the values in slices of at most ``size``."""
    return (values[start : start + size] for start in range(0, len(values), size))


def first_and_last(connection: Connection, column: ColumnElement[Any]) -> tuple[Any, Any]:
    """Return the least and the largest value of an indexed column, or None twice. Each has a query of its own: for both in one
    SQLite reads the whole index."""
    both = (select(extreme(column)).scalar_subquery() for extreme in (func.min, func.max))
    first, last = connection.execute(select(*both)).one()
    return first, last


class Writes(Protocol):
    """The thread that writes (store.writer)."""

    async def submit(self, step: Step, *, synced: bool) -> Any:
        """Queue a step and wait for its commit. Raises what the step raised, or a subclass of StoreError."""

    async def stop(self) -> None:
        """Write what is queued, then end the thread."""


class Access:
    """The reads and writes of one process. Made with the database, the writer, and the clock that the store writes with."""

    def __init__(self, database: Database, writer: Writes, clock: Clock) -> None:
        self._database, self._writer, self._clock = database, writer, clock
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="smtpguard-read")
        self._closed = False

    @property
    def url(self) -> str:
        """The database URL as it was given: with ``password_file`` if it has one, so that another process can open it."""
        return self._database.given

    @property
    def fronts(self) -> Fronts | None:
        """The fronts beside a SQLite database that can be written."""
        return self._database.fronts

    def now(self) -> datetime:
        """The time by the clock that the store writes with."""
        return self._clock.now()

    def now_us(self) -> int:
        """``now`` in microseconds since 1970, as columns have it."""
        return microseconds(self._clock.now())

    async def ask(self, query: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Run one short read. ``snapshot``: it has several statements that must see the same state. Raises StoreError."""

        def run() -> T:
            with self._database.read(snapshot=snapshot) as connection:
                return query(connection)

        running = asyncio.get_running_loop().run_in_executor(self._readers, run)
        try:
            async with asyncio.timeout(READ_SECONDS):  # wait_for of Python 3.11 may swallow a cancellation
                return await running
        except TimeoutError:
            raise Unavailable("no answer from the database in time") from None

    async def walk(self, run: Callable[[Open], T]) -> T:
        """Run a long read in a thread. Once the store is closed, its next transaction raises Unavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, run, self._open)

    async def write(self, step: Callable[[Batch], T], *, synced: bool = True) -> T:
        """Run one step in the writer's thread; it is committed on return. Not ``synced``: the step repeats what is on disk
        elsewhere, so a power failure may undo it (Database.write). Raises what the step raises, and StoreError."""
        written: T = await self._writer.submit(step, synced=synced)
        return written

    async def close(self) -> None:
        """Write what is queued, sign a last checkpoint if anything was written, and end the threads."""
        self._closed = True
        await self._writer.stop()
        self._readers.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _open(self) -> Iterator[Connection]:
        if self._closed:
            raise Unavailable("the store is closed")
        with self._database.read(snapshot=True) as connection:
            yield connection


class Rows:
    """The rows of one noun. Subclasses make their methods of queries and steps, by ``asks``, ``asks_now`` and ``writes``."""

    def __init__(self, access: Access) -> None:
        self._access = access


def asks(
    query: Callable[Concatenate[Connection, P], T], *, snapshot: bool = False
) -> Callable[Concatenate[Rows, P], Coroutine[Any, Any, T]]:
    """Return a method that runs the query by Access.ask."""

    async def method(self: Rows, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._access.ask(lambda connection: query(connection, *args, **kwargs), snapshot=snapshot)

    return method


def asks_now(
    query: Callable[Concatenate[Connection, datetime, P], T], *, snapshot: bool = False
) -> Callable[Concatenate[Rows, P], Coroutine[Any, Any, T]]:
    """Return a method that runs the query by Access.ask, with the time of the store's clock as its second argument."""

    async def method(self: Rows, /, *args: P.args, **kwargs: P.kwargs) -> T:
        now = self._access.now()
        return await self._access.ask(lambda connection: query(connection, now, *args, **kwargs), snapshot=snapshot)

    return method


def writes(
    step: Callable[Concatenate[Batch, P], T], *, synced: bool = True
) -> Callable[Concatenate[Rows, P], Coroutine[Any, Any, T]]:
    """Return a method that runs the step by Access.write."""

    async def method(self: Rows, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._access.write(lambda batch: step(batch, *args, **kwargs), synced=synced)

    return method
