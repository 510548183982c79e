"""One log line for a message: the verdict waits for the relay's answer; other events are logged at their commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smtpguard.app import eventlog
from smtpguard.app.eventlog import EventLog
from smtpguard.database.batch import Batch
from smtpguard.holds.model import Conflict
from smtpguard.journal.event import Event, Kind
from smtpguard.store.opening import open_store
from smtpguard.store.store import Store
from smtpguard.store.writer import Committed
from tests.store.making import POLICY, SECRET, Clock, event, held, item, relays, sqlite_url

NOW = datetime(2026, 3, 2, tzinfo=UTC)


@asynccontextmanager
async def opened(folder: Path, committed: Committed) -> AsyncIterator[Store]:
    """A store with a policy in force; ``committed`` gets its events."""
    url = sqlite_url(folder / "guard.db")
    async with open_store(url, secret=SECRET, state_dir=folder, clock=Clock(), committed=committed) as store:
        await store.policies.put(POLICY, {"policy.yaml": b"version: 1\n"}, event(Kind.POLICY, POLICY))
        yield store


def outcome(id: str) -> Event:
    return Event(kind=Kind.OUTCOME, id=id, at=NOW, data={"outcome": "relayed"})


@pytest.fixture
def logged() -> list[Event]:
    return []


@pytest.fixture
async def store(tmp_path: Path, logged: list[Event]) -> AsyncIterator[Store]:
    async with opened(tmp_path, EventLog(lambda *events: logged.extend(events))) as made:
        await published(made)
        logged.clear()
        yield made


async def published(store: Store) -> None:
    """Wait until all events of finished writes are published: one thread does both in order."""
    await store.write(lambda batch: None)


async def written(store: Store) -> None:
    """Wait until all noted outcomes are in the journal."""
    await store.journal.record([Event(kind=Kind.EXPORTED, id="last", at=NOW)])
    await published(store)


async def test_a_relayed_message_is_one_line_with_its_outcome(store: Store, logged: list[Event]) -> None:
    await store.admit(item("A"), relays("A"))
    await published(store)
    assert logged == []
    store.journal.note(outcome("A"))
    await written(store)
    line = logged[0]
    assert (line.kind, line.data["action"], line.data["outcome"]) == (Kind.VERDICT, "relay", "relayed")
    assert [entry.kind for entry, _ in await store.journal.history("A")] == ["verdict", "outcome"], (
        "the journal has two entries"
    )


async def test_a_held_message_is_logged_at_once(store: Store, logged: list[Event]) -> None:
    await held(store, "B")
    await published(store)
    assert [event.data.get("action") for event in logged if event.kind is Kind.VERDICT] == ["hold"]
    store.journal.note(outcome("elsewhere"))
    await written(store)
    assert [event.id for event in logged if event.kind is Kind.OUTCOME] == ["elsewhere"]


async def test_uncommitted_events_are_not_logged(store: Store, logged: list[Event]) -> None:
    def refuses(batch: Batch) -> None:
        batch.record([Event(kind=Kind.EXPORTED, id="C", at=NOW)])
        raise Conflict("no")

    with pytest.raises(Conflict):
        await store.write(refuses)
    await published(store)
    assert logged == []


async def test_the_oldest_verdict_without_an_outcome_is_logged(
    store: Store, logged: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "MOST_RELAYING", 2)
    for id in ("1", "2", "3"):
        await store.admit(item(id), relays(id))
    await published(store)
    assert [event.id for event in logged] == ["1"]


async def test_a_log_that_cannot_be_written_does_not_fail_the_commit(tmp_path: Path) -> None:
    def closed(*events: Event) -> None:
        raise ValueError("I/O operation on closed file")

    async with opened(tmp_path, EventLog(closed)) as store:
        await held(store, "T1")
        assert await store.holds.find("T1") is not None


async def test_a_failing_subscriber_does_not_fail_the_commit(tmp_path: Path) -> None:
    def broken(events: Sequence[Event]) -> None:
        raise RuntimeError("a fault of ours")

    async with opened(tmp_path, broken) as store:
        await held(store, "T1")
        assert await store.holds.find("T1") is not None
