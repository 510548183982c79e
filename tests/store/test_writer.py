"""The writer: every request gets an answer, number and time are limited, and 250 is never given for what may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.admission.model import Admission
from smtpguard.database import engine as database
from smtpguard.database.batch import Batch
from smtpguard.database.errors import Busy, CommitUnknown, Full, Gone, Unavailable
from smtpguard.holds.model import Change, State
from smtpguard.journal import checkpoint
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.linefiles import CHECKPOINTS
from smtpguard.journal.outcome import Outcome
from smtpguard.store import queue, writer
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import (
    CONTENT,
    POLICY,
    SECRET,
    Gathered,
    a_hold,
    event,
    held,
    hold_of,
    holds,
    item,
    on_sqlite,
    relays,
    release,
)


@contextmanager
def broken(monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, times: int = 1) -> Iterator[None]:
    """Raise ``error`` at the failpoint ``where``, ``times`` times."""
    left = [times]

    def fail(name: str) -> None:
        if name == where and left[0] > 0:
            left[0] -= 1
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(database, "failpoint", fail)
        yield


async def settled(store: Store) -> None:
    """Wait for two more commits. By then the writer has written what it had left."""
    for n in range(2):
        await store.journal.record([event(Kind.START, f"settled-{n}")])


async def outcome(store: Store, id: str) -> Outcome | None:
    return (await store.journal.outcomes([id])).get(id)


@on_sqlite
async def test_notes_are_written_without_a_waiting_caller(store: Store) -> None:
    await store.admit(item("T1"), relays("T1"))
    store.journal.note(event(Kind.OUTCOME, "T1", outcome="relayed"))
    async with asyncio.timeout(120):  # no other write could take it along
        while await outcome(store, "T1") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await outcome(store, "T1") is Outcome.DELIVERED


@on_sqlite
async def test_written_events_are_freed_without_garbage_collection(store: Store) -> None:
    """Else events wait for a collection of garbage, which then takes long."""
    gc.disable()
    try:
        await store.journal.record([event(Kind.START, "written")])
        await store.journal.record([event(Kind.START, "after")])  # the writer's thread has dropped the work before
        assert not [one.id for one in gc.get_objects() if isinstance(one, Event) and one.id == "written"]
    finally:
        gc.enable()


async def test_notes_survive_a_failed_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.admit(item("T1"), relays("T1"))
    with broken(monkeypatch, "after-commit", OSError(errno.EIO, "")):
        store.journal.note(event(Kind.OUTCOME, "T1", outcome="relayed"))
        with pytest.raises(Unavailable):
            await store.admit(item("T2"), relays("T2"))  # takes the note along
    await settled(store)
    assert await outcome(store, "T1") is Outcome.DELIVERED


async def test_a_storage_error_answers_the_batch_and_the_writer_continues(store: Store) -> None:
    def fails(batch: Batch) -> None:
        raise OSError(errno.EIO, "fsync")

    async with Gathered(store):
        tasks = [asyncio.create_task(store.admit(item(f"T{n}"), relays(f"T{n}"))) for n in range(3)]
        tasks.append(asyncio.create_task(store._writer.submit(fails)))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [Unavailable] * 4
    assert await store.journal.history("T0") == []
    await store.admit(item("T9"), relays("T9"))
    assert (await store.journal.verify()).ok


async def test_a_full_disk_raises_full(store: Store) -> None:
    def fails(batch: Batch) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(Full):
        await store._writer.submit(fails)
    await store.admit(item("T1"), relays("T1"))


async def test_errors_contain_no_values(store: Store) -> None:
    def fails(batch: Batch) -> None:
        batch.connection.exec_driver_sql("SELECT 'anna@example.com' FROM nowhere")

    with pytest.raises(Unavailable) as caught:
        await store._writer.submit(fails)
    assert "anna" not in str(caught.value)
    await store.admit(item("T1"), relays("T1"))


async def test_a_hold_with_an_unknown_commit_is_adopted_by_its_retry(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.contents.keep(CONTENT)
    with broken(monkeypatch, "after-commit", OSError(errno.EIO, "")), pytest.raises(CommitUnknown):
        await store.admit(item("H1"), holds(a_hold("H1")))
    found = await store.holds.find("H1")
    assert found is not None  # written, but the commit's answer was lost
    assert not found.acknowledged
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(release("H1"),)))
    assert await store.outbox.lease("me", 10, 60) == ()
    again = await store.admit(item("H2", of="H1"), holds(a_hold("H2")))
    assert again.hold is None
    assert [h.hold_id for h in await store.holds.newest()] == ["H1"]
    assert [lease.intent.intent_id for lease in await store.outbox.lease("me", 10, 60)] == ["H1-release"]


@pytest.mark.parametrize("void", [False, True])
async def test_an_unknown_acknowledgement_is_withdrawn(
    store: Store, monkeypatch: pytest.MonkeyPatch, void: bool
) -> None:
    """Of a new hold, and of a void one that waits again."""
    await store.contents.keep(CONTENT)
    if void:
        await store.admit(item("H1"), holds(a_hold("H1")))
        await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.VOID)))
    calls = []

    def fail(name: str) -> None:
        if name == "after-commit":
            calls.append(name)
            if len(calls) == 2:  # the first commit is the hold, the second its acknowledgement
                raise OSError(errno.EIO, "")

    with monkeypatch.context() as patch:
        patch.setattr(database, "failpoint", fail)
        with pytest.raises(Unavailable):
            await store.admit(item("R1" if void else "H1", of="H1"), holds(a_hold("H1")))
    await settled(store)
    found = await hold_of(store, "H1")
    assert (found.state, found.acknowledged) == (State.WAITING, False)


async def test_a_relay_verdict_with_an_unknown_commit_gets_an_outcome(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broken(monkeypatch, "after-commit", OSError(errno.EIO, "")), pytest.raises(CommitUnknown):
        await store.admit(item("T1"), relays("T1"))
    assert [e.kind for e, _ in await store.journal.history("T1")] == ["verdict"]
    await settled(store)
    assert await outcome(store, "T1") is Outcome.NOT_SENT
    clock.pass_(hours=1)
    assert await store.journal.unsettled(clock.now()) == []


async def test_a_failure_before_the_commit_writes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken(monkeypatch, "before-commit", OSError(errno.EIO, "")), pytest.raises(Unavailable):
        await store.admit(item("T1"), relays("T1"))
    await settled(store)
    assert await store.journal.history("T1") == []
    assert (await store.journal.verify()).ok


@on_sqlite
async def test_requests_beyond_the_queue_are_busy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING", 5)
    async with Gathered(store):
        tasks = [asyncio.create_task(store.admit(item(f"T{n}"), relays(f"T{n}"))) for n in range(8)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [Admission] * 5 + [Busy] * 3


class Stuck:
    """A database that hangs: the writer blocks in a step until the test releases it."""

    def __init__(self, store: Store) -> None:
        self.go = threading.Event()
        self._started = threading.Event()

        def hang(_: Batch) -> None:
            self._started.set()
            self.go.wait(120)

        self.task = asyncio.create_task(store._writer.submit(hang))

    async def reached(self) -> None:
        await asyncio.to_thread(self._started.wait)


@on_sqlite
async def test_a_request_that_waits_too_long_is_never_admitted(store: Store, clock: Clock) -> None:
    stuck = Stuck(store)
    await stuck.reached()
    task = asyncio.create_task(store.admit(item("T1"), relays("T1")))
    await asyncio.sleep(0)
    clock.pass_(seconds=queue.WAIT_SECONDS - 1)
    store._writer.waiting.expire()
    assert not task.done()
    clock.pass_(seconds=1)
    store._writer.waiting.expire()
    with pytest.raises(Busy):
        await task
    with pytest.raises(CommitUnknown):  # it was in the batch, so its outcome is unknown
        await stuck.task
    stuck.go.set()
    await settled(store)
    assert await store.journal.history("T1") == []


@on_sqlite
async def test_who_waits_too_long_is_told_why_the_last_commit_failed(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the store fails until a commit succeeds, or half a minute has passed without one; half a minute if it is slow."""

    def locked(**_: object) -> Any:
        raise Unavailable("guard.db is locked by another program")

    with monkeypatch.context() as patch:
        patch.setattr(store._database, "write", locked)
        with pytest.raises(Unavailable, match="locked"):
            await store.admit(item("T1"), relays("T1"))
    assert store.fails
    clock.pass_(seconds=queue.FAILS_SECONDS)
    assert (store.fails, store.problem) == ("", "guard.db is locked by another program")
    for told in ("in 20 s: guard.db is locked by another program", "the database took no entry in 20 s"):
        stuck = Stuck(store)
        await stuck.reached()
        task = asyncio.create_task(store.admit(item("T2"), relays("T2")))
        await asyncio.sleep(0)
        clock.pass_(seconds=queue.WAIT_SECONDS)
        store._writer.waiting.expire()
        with pytest.raises(Busy, match=f"{told}$"):
            await task
        with pytest.raises(CommitUnknown):
            await stuck.task
        assert store.fails, "also if it is only slow"
        stuck.go.set()
        await settled(store)
        assert (store.problem, store.fails) == ("", "the database took no entry in 20 s"), (
            "each is committed in the end, and the alarm looks for a minute"
        )
        clock.pass_(seconds=queue.FAILS_SECONDS)
        assert not store.fails


def hanging(
    then: Callable[[Any], Admission], go: threading.Event, started: threading.Event
) -> Callable[[Any], Admission]:
    def step(live: Any) -> Admission:
        started.set()
        go.wait(120)
        return then(live)

    return step


@on_sqlite
@pytest.mark.parametrize("how", ["clock", "cancelled"])
async def test_a_verdict_after_the_deadline_is_not_carried_out(store: Store, clock: Clock, how: str) -> None:
    go, started = threading.Event(), threading.Event()
    task = asyncio.create_task(store.admit(item("T1"), hanging(relays("T1"), go, started)))
    await asyncio.to_thread(started.wait)
    if how == "clock":
        clock.pass_(seconds=queue.WAIT_SECONDS)
        store._writer.waiting.expire()
        with pytest.raises(Unavailable):
            await task
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    go.set()
    await settled(store)
    assert await outcome(store, "T1") is Outcome.NOT_SENT


@on_sqlite
async def test_a_hold_after_the_deadline_is_not_acknowledged(store: Store, clock: Clock) -> None:
    await store.contents.keep(CONTENT)
    go, started = threading.Event(), threading.Event()
    task = asyncio.create_task(store.admit(item("H1"), hanging(holds(a_hold("H1")), go, started)))
    await asyncio.to_thread(started.wait)
    clock.pass_(seconds=queue.WAIT_SECONDS)
    store._writer.waiting.expire()
    with pytest.raises(Unavailable):
        await task
    go.set()
    await settled(store)
    found = await hold_of(store, "H1")
    assert not found.acknowledged


async def test_an_unanswered_retry_leaves_the_first_answer_valid(store: Store) -> None:
    await held(store, "H1")
    left = iter([False, True])
    with pytest.raises(Gone):
        await store.admit(item("R1", of="H1", gone=lambda: next(left)), holds(a_hold("R1")))
    await settled(store)
    found = await hold_of(store, "H1")
    assert found.acknowledged


@on_sqlite
async def test_closing_writes_the_queue(store: Store) -> None:
    tasks = [asyncio.create_task(store.admit(item(f"T{n}"), relays(f"T{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert all(isinstance(r, Admission) for r in await asyncio.gather(*tasks))
    with pytest.raises(Unavailable):
        await store.admit(item("late"), relays("late"))
    await store.close()


@on_sqlite
async def test_a_checkpoint_is_signed_every_minute(store: Store, clock: Clock, tmp_path: Any) -> None:
    clock.pass_(seconds=59)
    await store.admit(item("T1"), relays("T1"))
    assert not (tmp_path / CHECKPOINTS).exists()
    clock.pass_(seconds=1)
    await store.admit(item("T2"), relays("T2"))
    await store.write(lambda batch: None)  # the line is written after the clients' answers
    assert len((tmp_path / CHECKPOINTS).read_text().splitlines()) == 1
    await store.admit(item("T3"), relays("T3"))
    assert len((tmp_path / CHECKPOINTS).read_text().splitlines()) == 1
    assert (await store.journal.verify()).ok


async def test_a_checkpoint_is_signed_after_a_number_of_entries_by_one_process(
    store: Store, url: str, clock: Clock, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SIGN_ENTRIES", 10)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as beside:
        for n in range(36):
            await (store, beside)[n % 2].admit(item(f"T{n}"), relays(f"T{n}"))
        await store.write(lambda batch: None)
        await beside.write(lambda batch: None)
        assert 3 <= len((tmp_path / CHECKPOINTS).read_text().splitlines()) <= 4
    assert (await store.journal.verify()).ok


async def test_a_checkpoint_over_the_entries_of_others_is_signed_for_everybody(
    store: Store, url: str, clock: Clock, tmp_path: Any
) -> None:
    """Its process has written the first entries, and another one those after them."""
    await store.admit(item("T1"), relays("T1"))
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as beside:
        await beside.admit(item("T2"), relays("T2"))
        clock.pass_(minutes=2)
        await store.write(lambda batch: None)
        await beside.admit(item("T3"), relays("T3"))
        clock.pass_(minutes=2)
        await beside.write(lambda batch: None)
    await store.write(lambda batch: None)  # a checkpoint is written to the file after the answer, before the next batch
    found = (tmp_path / CHECKPOINTS).read_text().splitlines()
    assert len(found) == 2
    assert all(checkpoint.parse(line).note for line in found)
    assert (await store.journal.verify()).ok


@on_sqlite
async def test_an_internal_error_does_not_end_the_writer(store: Store) -> None:
    def left() -> bool:
        raise RuntimeError("a fault in the caller")

    with pytest.raises(Unavailable):
        await store.admit(item("T1", gone=left), relays("T1"))
    await store.admit(item("T2"), relays("T2"))


async def test_reads_are_limited_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from smtpguard.database import access

    monkeypatch.setattr(access, "READ_SECONDS", 0.05)
    go = threading.Event()
    try:
        with pytest.raises(Unavailable):
            await store.ask(lambda c: go.wait(120))
    finally:
        go.set()
    monkeypatch.undo()
    assert await store.holds.due(Clock().now() + timedelta(days=1)) == []


@pytest.mark.parametrize("room", ["plenty", "scarce", "none after all"])
async def test_the_log_is_preallocated_if_there_is_space(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    """The write-ahead log is preallocated if there is space, and nothing of the preallocation remains visible."""
    url, file, wal = f"sqlite:///{tmp_path}/guard.db", tmp_path / "guard.db", tmp_path / "guard.db-wal"
    monkeypatch.setattr(database, "_ROOMY", math.inf if room == "scarce" else 0)
    if room == "none after all":
        full = (*database._LAY_OUT[:3], "PRAGMA max_page_count = 1", database._LAY_OUT[3])
        monkeypatch.setattr(database, "_LAY_OUT", full)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True, hot=True) as store:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
        await store.admit(item("T1"), relays("T1"))
        log = wal.stat().st_size
        assert log > 30_000_000 if room == "plenty" else log < 1_000_000
        cache: list[Any] = []
        await store._writer.submit(lambda b: cache.extend(b.select("PRAGMA cache_size")))
        assert cache == [(-database._CACHE_KIB,)]
        assert (await store.journal.verify()).entries >= 2
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert not connection.execute("SELECT name FROM sqlite_master WHERE name = 'laid_out'").fetchall()
    assert file.stat().st_size < 1_000_000


async def recorded(store: Store) -> list[str]:
    """Ids of the journal entries that these tests wrote."""
    ids: list[str] = []
    kinds = (Kind.EXPORTED.value, Kind.VERDICT.value)
    await store._writer.submit(
        lambda b: ids.extend(id for id, kind in b.select("SELECT id, kind FROM entry ORDER BY seq") if kind in kinds)
    )
    return ids


async def test_a_step_that_raises_writes_nothing(store: Store) -> None:
    """A step that raises writes nothing. Other steps of its batch are written exactly once, each with its own result."""

    def half(batch: Batch) -> None:
        batch.head.kept_bytes += 1_000
        batch.move_gate(event(Kind.EXPORTED, "half"))
        raise KeyError("refused")

    def whole(name: str) -> Callable[[Batch], str]:
        def do(batch: Batch) -> str:
            batch.record([event(Kind.EXPORTED, name)])
            return name

        return do

    before = await store.gate.read()
    writer = store._writer
    async with Gathered(store):
        works = [asyncio.create_task(writer.submit(step)) for step in (whole("first"), half, whole("last"), half)]
    first, refused, last, again = await asyncio.gather(*works, return_exceptions=True)
    assert (first, last) == ("first", "last")
    assert isinstance(refused, KeyError)
    assert isinstance(again, KeyError)
    assert await recorded(store) == ["first", "last"]
    assert await store.gate.read() == before
    kept: list[int] = []
    await writer.submit(lambda batch: kept.append(batch.head.kept_bytes))
    assert kept == [0]


async def test_an_admission_that_raises_writes_nothing(store: Store) -> None:
    async def broken_plan() -> Any:
        def admission(live: Any) -> Admission:
            raise RuntimeError("a fault of ours")

        return await store._writer.submit(item=item("bad"), admission=admission)

    async with Gathered(store):
        bad = asyncio.create_task(broken_plan())
        good = asyncio.create_task(store.admit(item("good"), relays("good")))
    done = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(done[0], RuntimeError)
    assert isinstance(done[1], Admission), done[1]
    assert await recorded(store) == ["good"]
