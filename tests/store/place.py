"""A database and a state folder that a test opens again and again, puts back, and opens with another secret."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select

from smtpguard.database.engine import Database
from smtpguard.database.schema import metadata
from smtpguard.journal.event import Kind
from smtpguard.journal.linefiles import CHECKPOINTS
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import POLICY, SECRET, event, item, relays

T = TypeVar("T")
OTHER = b"another one of thirty-two bytes!"


class Place:
    """A database and a state folder that the test opens again and again. The database can be copied and restored."""

    def __init__(self, url: str, state: Path, clock: Clock) -> None:
        self.url, self.state, self.clock = url, state, clock

    @asynccontextmanager
    async def opened(self, **more: Any) -> AsyncIterator[Store]:
        given = {"secret": SECRET, "state_dir": self.state, "clock": self.clock, "migrate": True, **more}
        async with open_store(given.pop("url", self.url), **given) as store:
            yield store

    async def within(self, work: Callable[[Store], Awaitable[T]], **more: Any) -> T:
        """Open the store for ``work``, and then let a minute pass."""
        async with self.opened(**more) as store:
            done = await work(store)
        self.clock.pass_(minutes=1)
        return done

    async def renew(self, before: bytes = SECRET) -> None:
        async def work(store: Store) -> None:
            await store.renew(event(Kind.SECRET, "S", at=store.now()))

        await self.within(work, secret=OTHER, renewing=[before])

    async def begin(self, **more: Any) -> None:
        async def work(store: Store) -> None:
            await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY, at=self.clock.now()))

        await self.within(work, **more)

    async def mail(self, *ids: str, **more: Any) -> None:
        async def work(store: Store) -> None:
            for id in ids:
                await store.admit(item(id), relays(id))

        await self.within(work, **more)

    def copy(self) -> dict[str, list[Any]]:
        database = Database(self.url)
        try:
            with database.read(snapshot=True) as connection:
                ordered = [(t, t.primary_key.columns or t.c) for t in metadata.sorted_tables]  # PostgreSQL has no order
                return {t.name: list(connection.execute(select(t).order_by(*by))) for t, by in ordered}
        finally:
            database.close()

    def put_back(self, copy: dict[str, list[Any]]) -> None:
        database = Database(self.url)
        try:
            with database.write() as connection:
                for table in metadata.sorted_tables:
                    connection.execute(table.delete())
                    if copy[table.name]:
                        connection.execute(table.insert(), [row._asdict() for row in copy[table.name]])
        finally:
            database.close()

    @property
    def file(self) -> Path:
        return self.state / CHECKPOINTS


async def prepared(url: str, state: Path, clock: Clock) -> Place:
    """A closed store with a policy in force, some mail, and signed checkpoints."""
    made = Place(url, state, clock)
    await made.begin()
    await made.mail("T0", "T1", "T2")
    return made
