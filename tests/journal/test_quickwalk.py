"""The quick walk agrees with the careful one on a whole journal, and gives no result for any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpguard.database.access import Open
from smtpguard.journal import quickwalk
from smtpguard.journal import rows as journal
from smtpguard.journal.proof import Proof
from smtpguard.journal.scan import Walk
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.journal.test_rows import TAMPERINGS, filled, tamper
from tests.store.making import SECRET


async def both(store: Store, folder: Path, *, url: str = "") -> tuple[Proof | None, Proof]:
    def run(opened: Open) -> tuple[Proof | None, Proof]:
        walk = Walk(opened, SECRET, journal.lines_of(folder), store.now_us())
        heard: list[tuple[int, int]] = []
        quick = walk.quick(url, lambda *told: heard.append(told))
        assert heard or quick is None
        return quick, walk.prove()

    return await store.walk(run)


async def test_it_agrees_on_a_whole_journal(
    store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickwalk, "STRETCH", 7)
    await filled(store)
    quick, careful = await both(store, tmp_path)
    assert quick == careful
    clock.pass_(days=95)
    await filled(store, 3)
    assert (await store.retain(Retention())).private == 31
    await store.journal.checkpoint()
    quick, careful = await both(store, tmp_path)
    assert quick == careful
    clock.pass_(days=310)
    await filled(store, 3)
    assert (await store.retain(Retention())).entries > 30
    quick, careful = await both(store, tmp_path)
    assert quick is not None
    assert (quick, quick.trimmed > 30) == (careful, True)


async def test_two_processes_agree(store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickwalk, "LARGE", 10)
    monkeypatch.setattr(quickwalk, "cores", lambda: 2)
    for _ in range(4):
        await filled(store, 8)
        await store.journal.checkpoint()
    asked: list[int] = []
    middle = quickwalk.middle

    def recording(*given: Any) -> int:
        asked.append(middle(*given))
        return asked[-1]

    monkeypatch.setattr(quickwalk, "middle", recording)
    quick, careful = await both(store, tmp_path, url=store.url)
    assert quick == careful
    assert 9 < asked[0] < 27
    await tamper(store, "UPDATE entry SET body = replace(body, 'relay', 'hold') WHERE seq = 30")
    assert (await both(store, tmp_path, url=store.url))[0] is None


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_it_gives_no_result_for_a_tampered_journal(store: Store, tmp_path: Path, name: str) -> None:
    await filled(store)
    await tamper(store, *TAMPERINGS[name][0])
    quick, careful = await both(store, tmp_path)
    assert (quick, careful.ok) == (None, False)


async def test_a_wrong_column_gives_no_result(store: Store, tmp_path: Path) -> None:
    await filled(store)
    await tamper(store, "UPDATE entry SET action = 'hold' WHERE seq = 9")
    quick, careful = await both(store, tmp_path)
    assert (quick, careful.ok) == (None, False)
    assert replace(careful, first_bad=None).ok
