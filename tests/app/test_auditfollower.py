"""Actions of people are logged once, whichever process they happen in, and even if a follower dies, is late or has a
rival."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.app.clock import ids
from smtpguard.app.eventlog import LEASE_SECONDS, NAME, PEOPLES, AuditFollower, EventLog
from smtpguard.database.errors import LedgerError, Unavailable
from smtpguard.freezes.service import Freezes
from smtpguard.journal.event import Event, Kind
from smtpguard.observe.webhooks.rows import Cursors
from smtpguard.policy.freezing import Selector
from tests.guard.house import House, house


def at_the_command_line(home: House) -> Freezes:
    """Freezes as the cli's services build them: on the store itself, without a log."""
    return Freezes(home.store, home.clock, new_id=ids(), recall_seconds=0)


async def freeze(home: House, value: str = "news") -> None:
    await at_the_command_line(home).freeze(Selector.LIST, value, reason="Wrong mail", by="eva@example.com")


async def test_a_freeze_at_the_command_line_is_logged_once(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        told: list[Event] = []
        one, other = (AuditFollower(Cursors(home.store), home.clock, told.append) for _ in range(2))
        assert await one.told() == 0  # begins with later events
        await freeze(home)
        assert [await one.told(), await other.told(), await one.told()] == [1, 0, 0]
        [line] = told
        assert (line.kind, line.private["actor"], line.private["comment"]) == (
            Kind.FREEZE, ("eva@example.com",), ("Wrong mail",),
        )  # fmt: skip
        entries = {entry.seq: entry for entry, _ in await home.store.journal.entries(limit=100)}
        assert entries[line.data["entry"]].kind == "freeze"
        assert line.data["at"] == home.clock.now().isoformat(timespec="seconds")
        assert (line.data["selector"], line.data["value"]) == ("list", "news")


async def test_actions_without_a_follower_are_logged_later_in_order(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await AuditFollower(Cursors(home.store), home.clock).told()
        for name in ("a", "b", "c"):
            await freeze(home, name)
        told: list[Event] = []
        assert await AuditFollower(Cursors(home.store), home.clock, told.append).told() == 3
        assert [event.data["value"] for event in told] == ["a", "b", "c"]


async def test_events_that_processes_log_are_not_logged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of event is logged by the process in which it happens or by the follower, never by both."""
    async with house(tmp_path) as home:
        itself, of_the_journal = list[Event](), list[Event]()
        log = EventLog(itself.append)
        following = AuditFollower(Cursors(home.store), home.clock, of_the_journal.append)
        await following.told()
        for kind in Kind:
            event = Event(kind=kind, id=kind.value, at=home.clock.now(), data={"action": "hold"})
            await home.store.journal.record([event])
            log([event])
        await following.told()
        assert {e.kind for e in of_the_journal} == PEOPLES
        assert sorted(e.id for e in itself + of_the_journal) == sorted(kind.value for kind in Kind)


async def test_a_follower_that_dies_logs_twice_rather_than_never(tmp_path: Path) -> None:
    class Dying(Cursors):
        async def settle(self, *_: object, **__: object) -> bool:
            raise Unavailable("gone")

    async with house(tmp_path) as home:
        told: list[Event] = []
        await AuditFollower(Cursors(home.store), home.clock).told()
        await freeze(home)
        with pytest.raises(LedgerError):
            await AuditFollower(Dying(home.store), home.clock, told.append).told()
        after = AuditFollower(Cursors(home.store), home.clock, told.append)
        assert await after.told() == 0  # the dead one's lease is still valid
        home.clock.pass_(seconds=LEASE_SECONDS + 1)
        assert await after.told() == 1
        assert len(told) == 2


async def test_a_follower_behind_another_logs_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        told: list[Event] = []
        other = AuditFollower(Cursors(home.store), home.clock, told.append)
        await other.told()
        await freeze(home)

        class Slow(Cursors):
            async def lease(self, *given: object) -> object:  # type: ignore[override]
                await other.told()
                return await super().lease(*given)  # type: ignore[arg-type]

        assert await AuditFollower(Slow(home.store), home.clock, told.append).told() == 0
        assert len(told) == 1
        await freeze(home, "other")
        assert await other.told() == 1, "the slow one released its lease"


async def test_a_log_error_does_not_stop_the_next_event(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        told: list[str] = []

        def broken(event: Event) -> None:
            told.append(event.data["value"])
            raise OSError("no space")

        await AuditFollower(Cursors(home.store), home.clock).told()
        await freeze(home, "a")
        await freeze(home, "b")
        assert await AuditFollower(Cursors(home.store), home.clock, broken).told() == 2
        assert told == ["a", "b"]


async def test_relayed_mail_advances_the_cursor(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        cursors = Cursors(home.store)
        following = AuditFollower(cursors, home.clock)
        await following.told()
        before = (await cursors.at(NAME)).told
        for n in range(3):
            await home.store.journal.record([Event(kind=Kind.START, id=str(n), at=home.clock.now())])
        await following.told()
        assert (await cursors.at(NAME)).told == before + 3
