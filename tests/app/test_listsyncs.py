"""The first sync of lists before mail: bounded in time, journalled, and only of lists that were never read."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smtpguard.app import start
from smtpguard.app.files import indexes, read_policy
from smtpguard.app.listrefresh import ListRefresh, read_new_lists
from smtpguard.app.lists import open_registry
from smtpguard.app.policies import Following
from smtpguard.app.services import opened
from smtpguard.config.documents import shipped
from smtpguard.config.settings import Settings, read_settings
from smtpguard.lists.index import State, index_path, sources_folder
from smtpguard.lists.sync import Refresher
from tests.clocks import Clock


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(Path(shutil.copytree(shipped(), tmp_path / "etc")) / "smtpguard.yaml")


def states(settings: Settings) -> dict[str, State]:
    return {name: s.state for name, s in open_registry(settings, read_policy(settings)).statuses.items()}


async def journalled(settings: Settings) -> list[str]:
    async with opened(settings) as (store, _):
        return [kind for name in states(settings) for kind in [e.kind for e, _ in await store.journal.history(name)]]


async def test_lists_are_synced_before_the_parts_start(settings: Settings) -> None:
    await start.prepare(settings, by="root", parts=("proxy",))
    assert states(settings) == {"ramadan-greetings": State.READY, "newsletter": State.READY}
    assert await journalled(settings) == ["list", "list"]
    await start.prepare(settings, by="root", parts=("proxy",))
    assert await journalled(settings) == ["list", "list"], "a list that was read is refreshed later"


async def test_a_hanging_source_does_not_delay_the_start(settings: Settings) -> None:
    source = settings.policy.parent / "lists" / "newsletter.csv"
    source.unlink()
    os.mkfifo(source)  # open() waits for a writer
    await read_new_lists(settings, read_policy(settings), by="root", seconds=0.5)
    assert states(settings)["newsletter"] is State.MISSING
    os.close(os.open(source, os.O_RDWR | os.O_NONBLOCK))  # ends the thread


async def test_a_missing_source_does_not_stop_the_start(settings: Settings) -> None:
    await start.prepare(settings, by="root", parts=("proxy",))
    index_path(indexes(settings), "newsletter").unlink()
    shutil.rmtree(sources_folder(indexes(settings), "newsletter"))
    (settings.policy.parent / "lists" / "newsletter.csv").unlink()
    await start.prepare(settings, by="root", parts=("proxy",))
    assert states(settings) == {"ramadan-greetings": State.READY, "newsletter": State.MISSING}


async def test_a_sync_that_fails_again_and_again_is_logged_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As while the system has no thread left."""

    def fail(*_: object) -> None:
        raise RuntimeError("no thread is left")

    await start.prepare(settings, by="root", parts=("proxy",))
    monkeypatch.setattr(Refresher, "sync", fail)
    async with opened(settings) as (store, digester):
        clock = Clock(datetime.now(UTC))
        refresh = ListRefresh(settings, Following(store, settings, digester, clock), digester, store, clock)
        clock.pass_(days=1)
        await refresh._policies.follow()
        for _ in range(3):
            refresh._begin()
            await asyncio.gather(*refresh._reading.values())
    lists = ("ramadan-greetings", "newsletter")
    why = {f"a list cannot be synced: {name}: RuntimeError('no thread is left')" for name in lists}
    assert (len(caplog.messages), {*caplog.messages}) == (2, why)
