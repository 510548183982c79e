"""Helpers of the tests of the journal's front."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from smtpguard.journal.chain import canonical
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import FIRST, tail
from smtpguard.store.front import Front
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import POLICY, SECRET, event, key, sqlite_url

MARKS = canonical([[], ["anna@example.com"], "", ""])


def verdict(id: str, generation: int = 1, at: Clock | None = None) -> Event:
    return event(Kind.VERDICT, id, at=(at or Clock()).now(), action="relay", generation=generation, lists=[])


@asynccontextmanager
async def store_of(folder: Path, clock: Clock | None = None) -> AsyncIterator[Store]:
    url = sqlite_url(folder / "guard.db")
    async with open_store(url, secret=SECRET, state_dir=folder, clock=clock or Clock(), migrate=True) as opened:
        if not (await opened.gate.read()).policy_sha256:
            await opened.policies.put(POLICY, {"policy.yaml": b"version: 1\n"}, event(Kind.POLICY, POLICY))
        yield opened


async def fronted(store: Store) -> Front:
    front = await store.open_front()
    assert front is not None
    return front


async def record(front: Front, id: str, generation: int = 1) -> bool:
    return await front.record(verdict(id, generation), key=key(id), marks=MARKS, generation=generation)


def pause_moving(store: Store, front: Front) -> None:
    """Stop moving entries until the test asks for it."""
    front._wake = lambda: None
    store._writer.front = None


async def moved(store: Store) -> list[str]:
    """The ids of the verdicts in the chain, in order. Asserts that none is there twice."""
    await store.journal.record([event(Kind.START, "a batch")])
    found = [e.id for e, _ in await store.journal.entries() if e.kind == "verdict"]
    assert max(Counter(found).values(), default=1) == 1
    assert (await store.journal.verify()).ok
    return found


def outcome(id: str, how: str = "relayed") -> Event:
    return Event(kind=Kind.OUTCOME, id=id, at=Clock().now(), data={"outcome": how})


async def outcomes(front: Front, *ids: str) -> None:
    """Wait until their outcomes are in the front."""
    while not {f.id for f in tail(front.path.read_bytes()[FIRST:], 0).fronted if f.kind == "outcome"} >= set(ids):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
