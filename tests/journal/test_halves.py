"""A large journal is walked over in two processes, with the result of one."""

from __future__ import annotations

import concurrent.futures
import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from smtpguard.database.access import Open
from smtpguard.journal import rows as journal
from smtpguard.journal import scan
from smtpguard.journal.linefiles import CHECKPOINTS, lines_of
from smtpguard.journal.proof import Proof
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.journal.test_rows import TAMPERINGS, filled, tamper
from tests.store.making import SECRET, on_sqlite


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Results of the walks in two processes."""
    monkeypatch.setattr(scan, "LARGE", 10)
    monkeypatch.setattr(journal, "STRETCH", 7)
    monkeypatch.setattr(scan, "cores", lambda: 2)
    results: list[Any] = []
    in_two: Callable[..., Any] = scan.Walk._walk_in_two

    def recording(*given: Any) -> Any:
        results.append(in_two(*given))
        return results[-1]

    monkeypatch.setattr(scan.Walk, "_walk_in_two", recording)
    return results


class Thread(ThreadPoolExecutor):
    """In place of the second process, whose start takes longer than the walk: a thread, which gets a copy of everything
    as that does."""

    def __init__(
        self, workers: int, context: object, initializer: Callable[..., object], given: tuple[Any, ...]
    ) -> None:
        super().__init__(workers, initializer=initializer, initargs=given)

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        return super().submit(pickle.loads(pickle.dumps(work)), *pickle.loads(pickle.dumps(given)), **named)


@pytest.fixture
def in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", Thread)


async def both(store: Store, folder: Path) -> tuple[Proof, Proof]:
    """The proofs of one process, and of two."""

    def run(opened: Open) -> tuple[Proof, Proof]:
        heard: list[tuple[int, int]] = []
        walks = [scan.Walk(opened, SECRET, lines_of(folder, CHECKPOINTS), store.now_us()) for _ in range(2)]
        proofs = walks[0].prove(), walks[1].prove(lambda *told: heard.append(told), url=store.url)
        assert heard[-1] == (heard[-1][1], heard[-1][1]) or not proofs[1].ok
        return proofs

    return await store.walk(run)


async def grown(store: Store) -> None:
    for _ in range(4):
        await filled(store, 8)
        await store.journal.checkpoint()


async def test_two_processes_agree(store: Store, clock: Clock, tmp_path: Path, found: list[Any]) -> None:
    await grown(store)
    one, two = await both(store, tmp_path)
    assert (one, one.ok, found[0] is None) == (two, True, False)
    clock.pass_(days=95)
    await grown(store)
    assert (await store.retain(Retention())).private
    await store.journal.checkpoint()
    one, two = await both(store, tmp_path)
    assert (one, one.ok, found[1] is None) == (two, True, False)
    clock.pass_(days=310)
    await grown(store)
    assert (await store.retain(Retention())).entries
    one, two = await both(store, tmp_path)
    assert (one, one.ok, found[2] is None) == (two, True, False)
    assert one.trimmed


@pytest.mark.usefixtures("in_thread")
@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found_in_two_halves(store: Store, tmp_path: Path, found: list[Any], name: str) -> None:
    await filled(store)
    await grown(store)
    await tamper(store, *TAMPERINGS[name][0])
    one, two = await both(store, tmp_path)
    assert (one, one.ok) == (two, False)


async def test_tampering_in_the_second_half_is_found(store: Store, tmp_path: Path, found: list[Any]) -> None:
    await grown(store)
    await tamper(store, "UPDATE entry SET body = replace(body, 'relay', 'hold') WHERE seq = 30")
    one, two = await both(store, tmp_path)
    assert (one, one.first_bad is not None and one.first_bad.seq) == (two, 30)
    assert found[0] is not None, "the first half holds"


@on_sqlite
@pytest.mark.usefixtures("in_thread")
@pytest.mark.parametrize(
    "change", ["at = at || 'x'", "body = CAST(body AS BLOB)", "prev = hex(prev)", "hash = hex(hash)"]
)
async def test_a_value_of_another_type_is_found(store: Store, tmp_path: Path, found: list[Any], change: str) -> None:
    await grown(store)
    for seq in (30, 9):
        await tamper(store, f"UPDATE entry SET {change} WHERE seq = {seq}")
        one, two = await both(store, tmp_path)
        assert (one, one.first_bad is not None and one.first_bad.seq) == (two, seq)


@pytest.mark.usefixtures("in_thread")
async def test_a_wrong_column_is_found_in_either_half(store: Store, tmp_path: Path, found: list[Any]) -> None:
    await grown(store)
    for seq in (30, 9):
        await tamper(store, f"UPDATE entry SET action = 'hold' WHERE seq = {seq}")
        one, two = await both(store, tmp_path)
        assert (one, one.first_bad is not None and one.first_bad.seq) == (two, seq)
