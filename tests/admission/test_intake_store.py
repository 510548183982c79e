"""A store that fails, hangs, or has a newer policy: nothing is sent or held without a record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.admission.intake import UNDECIDED
from smtpguard.admission.model import ADMISSION_SECONDS
from smtpguard.database.errors import Busy, ContentMissing, Full, PolicyMoved, Unavailable
from smtpguard.mail.reply import BUSY, DISK_FULL, INTERNAL_ERROR, NOT_RECORDED, Reply
from smtpguard.policy.verdict import Deferred, Held, Relayed
from tests.guard.house import RAMADAN, FakePassage, House, PatchedStore, house


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    """A house without a front, so that plain messages use the store too."""
    async with house(tmp_path, fronted=False) as made:
        yield made


@pytest.mark.parametrize(
    ("error", "reply", "why"),
    [
        (Busy(), BUSY, "busy"),
        (Full(), DISK_FULL, "full"),
        (Unavailable(), NOT_RECORDED, "store"),
        (RuntimeError("surprise"), INTERNAL_ERROR, "failed"),
    ],
)
async def test_without_a_record_nothing_is_sent_and_the_log_has_the_error(
    home: House, error: Exception, reply: Reply, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def admit(*_: Any) -> Any:
        raise error

    home.given_store = PatchedStore(home.store, {"admit": admit})
    way, intake = FakePassage(), home.intake()
    done = await intake(home.transaction("ulf@example.com"), way)
    assert done == Deferred(reply=reply, undecided=True)
    assert intake.undecided == {why: 1}
    assert why in UNDECIDED
    assert reply.transient
    assert not way.sent
    assert way.abandoned == 1
    (line,) = caplog.records
    assert type(error).__name__ in f"{line.getMessage()} {line.exc_info}"
    assert not line.getMessage().endswith(": "), "it says why"


async def test_an_outage_is_logged_once(home: House, caplog: pytest.LogCaptureFixture) -> None:
    async def admit(*_: Any) -> Any:
        raise Unavailable("the disk is away")

    home.given_store = PatchedStore(home.store, {"admit": admit})
    intake = home.intake()
    for _ in range(3):
        await intake(home.transaction("ulf@example.com"), FakePassage())
    intake.store = home.store
    await intake(home.transaction("ulf@example.com"), FakePassage())
    assert caplog.messages == ["not recorded: Unavailable: the disk is away", "not recorded: over, after 0 s"]
    assert intake.undecided == {"store": 3}


async def test_content_that_cannot_be_stored_is_not_held(home: House, caplog: pytest.LogCaptureFixture) -> None:
    async def keep(_: Any) -> None:
        raise Full("the quota for held content is exhausted")

    home.given_store = PatchedStore(home.store, {"contents.keep": keep})
    assert await home.send(RAMADAN) == Deferred(reply=DISK_FULL, undecided=True)
    assert await home.store.holds.newest() == []
    assert "not recorded: Full: the quota for held content is exhausted" in caplog.text


async def test_content_that_was_deleted_is_stored_again(home: House) -> None:
    kept = 0

    async def keep(message: Any) -> None:
        nonlocal kept
        kept += 1
        if kept > 1:
            await home.store.contents.keep(message)

    home.given_store = PatchedStore(home.store, {"contents.keep": keep})
    assert isinstance(await home.send(RAMADAN), Held)
    assert kept == 2


async def test_a_policy_that_keeps_changing_defers(home: House) -> None:
    async def admit(*_: Any) -> Any:
        raise PolicyMoved

    home.given_store = PatchedStore(home.store, {"admit": admit})
    way = FakePassage()
    assert isinstance(await home.intake()(home.transaction("ulf@example.com"), way), Deferred)
    assert way.abandoned == 1


@pytest.mark.parametrize("error", [ContentMissing, PolicyMoved, Unavailable])
async def test_a_store_that_keeps_failing_defers(home: House, error: type[Exception]) -> None:
    async def admit(*_: Any) -> Any:
        raise error

    home.given_store = PatchedStore(home.store, {"admit": admit})
    assert isinstance(await home.send(RAMADAN), Deferred)


async def test_hanging_storage_of_content_times_out(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep(_: Any) -> None:
        await asyncio.Event().wait()

    home.given_store = PatchedStore(home.store, {"contents.keep": keep})
    monkeypatch.setattr("smtpguard.admission.intake.KEEP_SECONDS", 0.01)
    done = await home.intake()(home.transaction(RAMADAN), FakePassage())
    assert done == Deferred(reply=NOT_RECORDED, undecided=True)


async def test_after_the_time_limit_no_further_round_begins(home: House, caplog: pytest.LogCaptureFixture) -> None:
    rounds = 0

    async def admit(*_: Any) -> Any:
        nonlocal rounds
        rounds += 1
        home.clock.pass_(seconds=61)
        raise PolicyMoved("again and again")

    home.given_store = PatchedStore(home.store, {"admit": admit})
    way, intake = FakePassage(), home.intake()
    assert await intake(home.transaction("ulf@example.com"), way) == Deferred(reply=NOT_RECORDED, undecided=True)
    assert (rounds, way.abandoned) == (2, 1)
    assert intake.undecided == {"rounds": 1}
    assert "not recorded: several rounds gave no verdict" in caplog.text


async def test_admission_time_is_measured_without_the_relay(home: House) -> None:
    store = home.store

    async def admit(*words: Any) -> Any:
        home.clock.pass_(seconds=0.02)
        return await store.admit(*words)

    home.given_store = PatchedStore(store, {"admit": admit})
    intake = home.intake()
    way = FakePassage(before_dot=lambda: home.clock.pass_(seconds=30))
    assert isinstance(await intake(home.transaction("ulf@example.com"), way), Relayed)
    counted = {bound: n for bound, n in zip(ADMISSION_SECONDS, intake.admissions, strict=False) if n}
    assert counted == {0.025: 1}
    assert intake.admission_microseconds == pytest.approx(20_000, abs=1)
