"""The comparison of the tables with the journal, while mail passes and people decide."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from smtpguard.policy.freezing import Selector
from smtpguard.store import crosscheck
from tests.guard.campaign import Campaign, documents
from tests.guard.house import MEMBERS, RAMADAN, house
from tests.store.servers import new_database


@pytest.mark.parametrize("url", ["sqlite", "postgresql"])
async def test_what_happens_meanwhile_is_no_edit(tmp_path: Path, request: pytest.FixtureRequest, url: str) -> None:
    """Between any two reads a copy of the mailing passes and another mailing begins, and a freeze is set and lifted."""
    place = new_database(request.getfixturevalue("postgresql")) if url == "postgresql" else None
    async with house(tmp_path, documents=documents(), url=place) as home:
        campaign = Campaign(home, copies=50)
        for n in range(25):
            await campaign.send(MEMBERS[n])
        await home.freeze(Selector.LIST, "nobody", id="F24")
        numbers, loop = itertools.count(25), asyncio.get_running_loop()

        async def more() -> None:
            n = next(numbers)
            await campaign.send(MEMBERS[n % len(MEMBERS)])
            await campaign.send(RAMADAN, mailing=f"another{n}")
            await home.freeze(Selector.LIST, "nobody", id=f"F{n}")
            await home.thaw(f"F{n - 1}")

        @contextmanager
        def open() -> Iterator[Connection]:
            with home.store.journal._access._open() as connection:
                yield connection
            asyncio.run_coroutine_threadsafe(more(), loop).result()

        assert await asyncio.to_thread(crosscheck.check, open) == []


async def test_a_journal_cut_between_entries_of_one_time_is_no_edit(tmp_path: Path) -> None:
    """What retention left begins at the very time of a mailing whose entries it erased."""
    async with house(tmp_path, documents=documents(), fronted=False) as home:
        campaign = Campaign(home, copies=50)
        for n in range(25):
            await campaign.send(MEMBERS[n])
        await home.freeze(Selector.LIST, "nobody")
        last = await home.store.journal.last()
        with closing(sqlite3.connect(tmp_path / "guard.db", isolation_level=None)) as driver:
            driver.execute("DELETE FROM entry WHERE seq < ?", (last,))
        found = await asyncio.to_thread(crosscheck.check, home.store.journal._access._open)
        assert [one for one in found if one.about == "mailing"] == []
