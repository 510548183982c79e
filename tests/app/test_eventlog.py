"""One log line for a message: the verdict waits for the relay's answer; other events are logged at their commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smtpguard.app import eventlog
from smtpguard.app.clock import ids
from smtpguard.app.eventlog import LEASE_SECONDS, NAME, PEOPLE_KINDS, AuditFollower, EventLog
from smtpguard.database.batch import Batch
from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.freezes.service import Freezes
from smtpguard.holds.model import Conflict
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import Phrase, dump
from smtpguard.observe.log import fields
from smtpguard.policy.freezing import Selector
from smtpguard.store.store import Store, open_store
from smtpguard.store.writer import Committed
from tests.clocks import Clock
from tests.guard.house import House, house
from tests.store.making import POLICY, SECRET, event, held, item, relays, sqlite_url

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


async def test_a_message_in_doubt_is_logged_with_its_people(store: Store, logged: list[Event]) -> None:
    await store.admit(item("A"), relays("A"))
    store.journal.note(Event(kind=Kind.IN_DOUBT, id="A", at=NOW, data={"outcome": "in-doubt"}))
    await written(store)
    assert [event.kind for event in logged] == [Kind.VERDICT, Kind.IN_DOUBT]
    assert logged[0].private, "whom it is about"
    store.journal.note(outcome("A"))
    await written(store)
    assert logged[-1].kind is Kind.OUTCOME, "an answer that came late"


def test_a_verdict_whose_outcome_came_first_is_logged_at_once(
    logged: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front tells of its verdicts a little later than the writer of what followed them."""
    monkeypatch.setattr(eventlog, "MOST_EARLY", 2)
    log = EventLog(lambda *events: logged.extend(events))
    log([outcome("0"), outcome("A"), Event(kind=Kind.IN_DOUBT, id="B", at=NOW)])
    logged.clear()
    log([Event(kind=Kind.VERDICT, id=id, at=NOW, data={"action": "relay"}) for id in ("0", "A", "B", "C")])
    assert [event.id for event in logged] == ["A", "B"], "of another process's outcomes only the last are remembered"
    log([outcome("A")])
    assert logged[-1].kind is Kind.OUTCOME


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


def at_the_command_line(home: House) -> Freezes:
    """Freezes as the cli's services build them: on the store itself, without a log."""
    return Freezes(home.store, SteadyClock(home.clock), new_id=ids(), recall_seconds=0)


async def freeze(home: House, value: str = "news") -> None:
    await at_the_command_line(home).freeze(Selector.LIST, value, reason="Wrong mail", by="eva@example.com")


async def test_a_freeze_at_the_command_line_is_logged_once(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        told: list[Event] = []
        one, other = (AuditFollower(home.store, home.clock, told.append) for _ in range(2))
        assert await one.follow() == 0  # begins with later events
        await freeze(home)
        assert [await one.follow(), await other.follow(), await one.follow()] == [1, 0, 0]
        [line] = told
        assert (line.kind, line.private["actor"], line.private["comment"]) == (
            Kind.FREEZE, ("eva@example.com",), ("Wrong mail",),
        )  # fmt: skip
        entries = {entry.seq: entry for entry, _ in await home.store.journal.entries(limit=100)}
        assert entries[line.data["entry"]].kind == "freeze"
        assert line.data["at"] == home.clock.now().isoformat(timespec="seconds")
        assert (line.data["selector"], line.data["value"]) == ("list", "news")
        why = Phrase("the mail server refused {n} of {tried} people", n=3, tried=12)
        stopped = Event(kind=Kind.MAILING, id="M1", at=home.clock.now(), data={"what": "stop", "why": dump(why)})
        await home.store.journal.record([stopped])
        assert await one.follow() == 1
        assert fields(told[-1])["why"] == "the mail server refused 3 of 12 people"


async def test_actions_without_a_follower_are_logged_later_in_order(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await AuditFollower(home.store, home.clock).follow()
        for name in ("a", "b", "c"):
            await freeze(home, name)
        told: list[Event] = []
        assert await AuditFollower(home.store, home.clock, told.append).follow() == 3
        assert [event.data["value"] for event in told] == ["a", "b", "c"]


async def test_events_that_processes_log_are_not_logged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of event is logged by the process in which it happens or by the follower, never by both."""
    async with house(tmp_path) as home:
        itself, of_the_journal = list[Event](), list[Event]()
        log = EventLog(itself.append)
        following = AuditFollower(home.store, home.clock, of_the_journal.append)
        await following.follow()
        for kind in Kind:
            event = Event(kind=kind, id=kind.value, at=home.clock.now(), data={"action": "hold"})
            await home.store.journal.record([event])
            log([event])
        await following.follow()
        assert {e.kind for e in of_the_journal} == PEOPLE_KINDS
        assert sorted(e.id for e in itself + of_the_journal) == sorted(kind.value for kind in Kind)


async def test_a_follower_that_dies_logs_twice_rather_than_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> bool:
        raise Unavailable("gone")

    async with house(tmp_path) as home:
        told: list[Event] = []
        await AuditFollower(home.store, home.clock).follow()
        await freeze(home)
        with monkeypatch.context() as patched:
            patched.setattr(home.store.cursors, "settle", dies)
            with pytest.raises(StoreError):
                await AuditFollower(home.store, home.clock, told.append).follow()
        after = AuditFollower(home.store, home.clock, told.append)
        assert await after.follow() == 0  # the dead one's lease is still valid
        home.clock.pass_(seconds=LEASE_SECONDS + 1)
        assert await after.follow() == 1
        assert len(told) == 2


async def test_a_follower_behind_another_logs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as home:
        told: list[Event] = []
        other = AuditFollower(home.store, home.clock, told.append)
        await other.follow()
        await freeze(home)

        lease = home.store.cursors.lease

        async def slow(*given: Any) -> object:
            monkeypatch.undo()
            await other.follow()
            return await lease(*given)

        monkeypatch.setattr(home.store.cursors, "lease", slow)
        assert await AuditFollower(home.store, home.clock, told.append).follow() == 0
        assert len(told) == 1
        await freeze(home, "other")
        assert await other.follow() == 1, "the slow one released its lease"


async def test_a_log_error_does_not_stop_the_next_event(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        told: list[str] = []

        def broken(event: Event) -> None:
            told.append(event.data["value"])
            raise OSError("no space")

        await AuditFollower(home.store, home.clock).follow()
        await freeze(home, "a")
        await freeze(home, "b")
        assert await AuditFollower(home.store, home.clock, broken).follow() == 2
        assert told == ["a", "b"]


async def test_relayed_mail_advances_the_cursor(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        following, cursors = AuditFollower(home.store, home.clock), home.store.cursors
        await following.follow()
        before = (await cursors.at(NAME)).told
        for n in range(3):
            await home.store.journal.record([Event(kind=Kind.START, id=str(n), at=home.clock.now())])
        await following.follow()
        assert (await cursors.at(NAME)).told == before + 3


def test_what_only_a_command_records_is_logged_by_the_follower() -> None:
    """``held settle``, ``held reject`` and ``mailings stop`` of what is approved, ``incident``, ``privacy erase``, ``returns
    take``, ``renew-secret``: the restore compares the store with the log."""
    acts = {
        Kind.SETTLED,
        Kind.REOPENED,
        Kind.STOPPED,
        Kind.APART,
        Kind.UNCONFIRMED,
        Kind.TAKEN,
        Kind.PRESERVED,
        Kind.INCIDENT,
    }
    assert acts | {Kind.ERASED, Kind.RETURNED, Kind.TRIPPED, Kind.SECRET, Kind.KEY} <= PEOPLE_KINDS
