"""The verdicts of a period, read in stretches: all, in order, with the clear values that are not erased, blocking
nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import delete

from smtpguard.database.errors import Unavailable
from smtpguard.database.schema import clear, entry
from smtpguard.journal import rows as journalrows
from smtpguard.journal.chain import Pair
from smtpguard.journal.event import Kind
from smtpguard.journal.scan import verdicts
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.making import event, on_sqlite


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journalrows, "STRETCH", 4)


async def journal(store: Store, clock: Clock, hours: int = 10) -> None:
    """One verdict an hour, each followed by two other entries."""
    for n in range(hours):
        now = clock.now()
        await store.journal.record([event(kind, f"T{n}", at=now) for kind in (Kind.VERDICT, Kind.OUTCOME, Kind.NOTICE)])
        clock.pass_(hours=1)


async def found(store: Store, clock: Clock, since: float, until: float = 0) -> list[Sequence[Pair]]:
    """Pages of the verdicts from ``since`` to ``until`` hours ago."""
    now = clock.now()
    return [page async for page in verdicts(store, now - timedelta(hours=since), now - timedelta(hours=until))]


def ids(pages: Sequence[Sequence[Pair]]) -> list[str]:
    return [one.id for page in pages for one, _ in page]


@on_sqlite
async def test_verdicts_are_read_in_order_across_stretches(store: Store, clock: Clock) -> None:
    await journal(store, clock)
    pages = await found(store, clock, 8, 3)
    assert ids(pages) == ["T2", "T3", "T4", "T5", "T6"]
    assert len(pages) > 2
    assert all(values == {"from": ["anna@example.com"]} for page in pages for _, values in page)


@on_sqlite
async def test_a_period_without_verdicts(store: Store, clock: Clock) -> None:
    assert await found(store, clock, 1) == []
    await journal(store, clock)
    assert await found(store, clock, 50, 20) == []
    assert await found(store, clock, -1, -2) == []


@on_sqlite
async def test_progress_is_reported(store: Store, clock: Clock) -> None:
    await journal(store, clock)
    now, said = clock.now(), list[tuple[int, int]]()
    async for _ in verdicts(store, now - timedelta(hours=9), now, lambda done, of: said.append((done, of))):
        pass
    assert said == sorted(said)
    assert said[-1] == (27, 27)


async def test_entries_trimmed_or_erased_meanwhile_are_skipped(store: Store, clock: Clock) -> None:
    await journal(store, clock)
    now, seen = clock.now(), list[str]()
    async for page in verdicts(store, now - timedelta(hours=10), now):
        if not seen:
            await store.write(lambda b: b.connection.execute(delete(clear)))
            await store.write(lambda b: b.connection.execute(delete(entry).where(entry.c.seq.between(8, 20))))
        seen += [one.id for one, _ in page]
        last = page
    assert seen == ["T0", "T1", "T7", "T8", "T9"]
    assert last[-1][1] is None


async def test_a_store_that_fails_raises(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    await journal(store, clock)

    async def away(query: object, **more: object) -> object:
        raise Unavailable("away")

    walking = verdicts(store, clock.now() - timedelta(hours=10), clock.now())
    await anext(walking)
    monkeypatch.setattr(store, "ask", away)
    with pytest.raises(Unavailable):
        await anext(walking)
