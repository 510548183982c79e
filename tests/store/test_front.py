"""The front and the chain: a verdict is recorded once synced, moved exactly once, before the gate moves, and taken over
from a dead process."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from smtpguard.database.batch import Batch, Row, read_head
from smtpguard.database.errors import Full, LedgerError, Unavailable
from smtpguard.database.fronts import ASIDE, File, live
from smtpguard.journal.chain import canonical
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import FIRST, Head, tail
from smtpguard.policy.counted import Ask
from smtpguard.store import front as fronts
from smtpguard.store.front import Disk, Front
from smtpguard.store.opening import open_store
from smtpguard.store.store import Store
from tests.store.making import POLICY, SECRET, Clock, a_freeze, event, held, item, key, relays, sqlite_url

MARKS = canonical([[], ["anna@example.com"], "", ""])
Home = Callable[..., "asyncio.Future[Store]"]


def verdict(id: str, generation: int = 1, at: Clock | None = None) -> Event:
    return event(Kind.VERDICT, id, at=(at or Clock()).now(), action="relay", generation=generation, lists=[])


@asynccontextmanager
async def store_of(folder: Path, clock: Clock | None = None) -> AsyncIterator[Store]:
    url = sqlite_url(folder / "guard.db")
    async with open_store(url, secret=SECRET, state_dir=folder, clock=clock or Clock(), migrate=True) as opened:
        if not (await opened.gate.read()).policy_sha256:
            await opened.policies.put(POLICY, {"policy.yaml": b"version: 1\n"}, event(Kind.POLICY, POLICY))
        yield opened


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_of(tmp_path) as opened:
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


async def test_a_verdict_is_on_disk_first_and_soon_in_the_chain(store: Store) -> None:
    front = await fronted(store)
    assert await record(front, "T1")
    assert [f.id for f in tail(front.path.read_bytes()[FIRST:], 0).fronted] == ["T1"]
    store.journal.note(event(Kind.OUTCOME, "T1", outcome="relayed", replies=["250 2.0.0 Ok"]))
    assert await moved(store) == ["T1"]
    [(first, clear), (second, _)] = await store.journal.history("T1")
    assert (first.kind, first.data["action"], clear) == ("verdict", "relay", {"from": ["anna@example.com"]})
    assert second.kind == "outcome"
    assert await store.journal.unsettled(Clock().now().replace(year=2030)) == [], "its outcome is known"


async def test_a_verdict_without_outcome_is_in_flight(store: Store) -> None:
    front = await fronted(store)
    assert await record(front, "T1")
    assert await moved(store) == ["T1"]
    assert await store.journal.in_flight(a_freeze(), Clock().now()) == ["T1"]


async def test_what_nobody_moves_its_own_process_moves(store: Store) -> None:
    front = await fronted(store)
    assert await record(front, "T1")
    while front.waits:  # noqa: ASYNC110 - the writer's thread, which tells nobody here
        await asyncio.sleep(0.01)
    assert [e.id for e, _ in await store.journal.entries() if e.kind == "verdict"] == ["T1"]


async def test_its_entry_equals_the_admissions(store: Store) -> None:
    front = await fronted(store)
    assert await record(front, "T1")
    await store.admit(item("T2"), relays("T2"))
    await moved(store)
    [(one, _)], [(two, _)] = await store.journal.history("T1"), await store.journal.history("T2")
    assert one.body.replace('"generation":1,"lists":[]', "").startswith('{"data":{"action":"relay"')
    assert two.content["private"] == one.content["private"], "the same seal"


def outcome(id: str, how: str = "relayed") -> Event:
    return Event(kind=Kind.OUTCOME, id=id, at=Clock().now(), data={"outcome": how})


async def outcomes(front: Front, *ids: str) -> None:
    """Wait until their outcomes are in the front."""
    while not {f.id for f in tail(front.path.read_bytes()[FIRST:], 0).fronted if f.kind == "outcome"} >= set(ids):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("told_how_far", [True, False])
async def test_each_entry_is_moved_once_and_published_by_its_own_process(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_how_far: bool
) -> None:
    """By three processes in turn; also if each is killed between the commit and telling the others of it."""
    front = await fronted(store)
    told: list[tuple[str, str]] = []
    store._writer._committed = lambda events: told.extend((e.kind.value, e.id) for e in events)
    if not told_how_far:
        monkeypatch.setattr("smtpguard.database.fronts.Fronts.tell", lambda *_: None)
    async with store_of(tmp_path) as other, store_of(tmp_path) as third:
        others: list[str] = []
        other._writer._committed = lambda events: others.extend(e.id for e in events)
        for n in range(20):
            assert await record(front, f"T{n}")
            store.journal.note(outcome(f"T{n}"))
            match n % 4:
                case 0:
                    await other.journal.move_fronts()
                case 1:
                    await third.journal.take_fronts()
                case 2:
                    await store.journal.record([event(Kind.START, "a batch")])
        await asyncio.gather(other.journal.move_fronts(), third.journal.move_fronts(), store.journal.move_fronts())
        await store.journal.record([event(Kind.START, "the last batch")])
        assert others == []
    wanted = sorted((kind, f"T{n}") for kind in ("verdict", "outcome") for n in range(20))
    assert sorted(pair for pair in told if pair[1][0] == "T") == wanted
    assert sorted(await moved(store)) == sorted(f"T{n}" for n in range(20))
    found = [(e.kind, e.id) for e, _ in await store.journal.entries() if e.kind in ("verdict", "outcome")]
    assert sorted(found) == wanted
    assert all(found.index(("verdict", f"T{n}")) < found.index(("outcome", f"T{n}")) for n in range(20))
    assert await store.journal.unsettled(Clock().now().replace(year=2030)) == []


async def test_an_ordinary_message_takes_no_commit_of_its_process(store: Store, tmp_path: Path) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    store._writer.front = front
    assert await record(front, "T1")
    store.journal.note(outcome("T1"))
    await outcomes(front, "T1")
    async with store_of(tmp_path) as other:
        await other.journal.move_fronts()
        assert [e.kind for e, _ in await other.journal.history("T1")] == ["verdict", "outcome"]
    assert not front.waits
    assert not store._writer._notes


async def test_a_front_that_cannot_be_opened_is_left_to_its_process(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await fronted(store)
    assert await record(front, "T1")

    class Denied:
        def __init__(self, path: Path) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async with store_of(tmp_path) as other:
        monkeypatch.setattr("smtpguard.database.fronts.Progress", Denied)
        await other.journal.move_fronts()
        assert await moved(store) == ["T1"], "and nothing fails if others cannot be told"


async def test_much_is_moved_with_several_commits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T0")
    async with store_of(tmp_path) as other:
        await other.journal.move_fronts()
        for n in range(1, 20):
            assert await record(front, f"T{n}")
        monkeypatch.setattr("smtpguard.store.journal.PIECE", front._at // 4)
        counts: list[int | None] = []
        move = Batch.move_front

        def counted(batch: Batch, file: File, most: int) -> int | None:
            counts.append(move(batch, file, most))
            return counts[-1]

        monkeypatch.setattr(Batch, "move_front", counted)
        await other.journal.move_fronts()
        assert len(counts) >= 4
        assert sum(filter(None, counts)) >= 15, "a rest waits for the next time"
    monkeypatch.undo()
    store._writer.front = front
    assert await moved(store) == [f"T{n}" for n in range(20)]


async def test_a_message_recalled_and_decided_again_has_its_entries_in_order(store: Store) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    store._writer.front = front
    assert await record(front, "T1")
    store.journal.note(outcome("T1", "recalled"))
    await store.admit(item("T1"), relays("T1"))
    store.journal.note(outcome("T1"))
    await store.journal.record([event(Kind.START, "a batch")])
    kinds = [(e.kind, e.data.get("outcome")) for e, _ in await store.journal.history("T1")]
    assert kinds == [("verdict", None), ("outcome", "recalled"), ("verdict", None), ("outcome", "relayed")]
    assert await store.journal.unsettled(Clock().now().replace(year=2030)) == []


async def test_an_outcome_for_which_the_front_has_no_room_is_written_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await fronted(store)
    assert await record(front, "T1")
    monkeypatch.setattr(fronts, "SIZE", front._at)
    store.journal.note(outcome("T1"))
    while not [e for e, _ in await store.journal.history("T1") if e.kind == "outcome"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await moved(store) == ["T1"]


async def test_two_fronts_keep_their_order(store: Store, tmp_path: Path) -> None:
    async with store_of(tmp_path) as other:
        one, two = await fronted(store), await fronted(other)
        done = await asyncio.gather(
            *(record(f, f"{name}{n}") for n in range(40) for f, name in ((one, "A"), (two, "B")))
        )
        assert all(done)
    found = await moved(store)
    assert len(found) == 80
    assert [id for id in found if id[0] == "A"] == [f"A{n}" for n in range(40)], "in its order"
    assert not live(two.path).exists()
    assert not two.path.exists(), "it is gone with its process"


# the gate


async def test_a_freeze_ends_what_was_decided_before(store: Store, tmp_path: Path) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    async with store_of(tmp_path) as other:
        gate = await other.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    assert (gate.generation, front.generation) == (2, 2)
    assert not await record(front, "T2"), "the admission decides"
    assert not await record(front, "T3", generation=2), "its own process has not seen the freeze"
    store._writer.front = front
    await store.journal.record([event(Kind.START, "a batch")])
    assert await record(front, "T3", generation=2)
    kinds = [e.id for e, _ in await store.journal.entries() if e.kind in ("verdict", "freeze")]
    assert kinds[:2] == ["T1", "F1"], "in the chain before the freeze"
    assert (await moved(store))[-1] == "T3"


@pytest.mark.parametrize("what", ["freeze", "thaw", "policy", "secret"])
async def test_any_change_of_the_gate_ends_what_was_decided_before(store: Store, what: str) -> None:
    await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    front = await fronted(store)
    assert await record(front, "T1", generation=2)
    match what:
        case "freeze":
            await store.gate.freeze(a_freeze("F2"), event(Kind.FREEZE, "F2"))
        case "thaw":
            await store.gate.thaw("F1", event(Kind.THAW, "F1"))
        case "policy":
            await store.policies.put("two", {}, event(Kind.POLICY, "two"))
        case "secret":
            await store.renew(event(Kind.SECRET, "renewed"))
    assert front.generation == 3
    assert not await record(front, "T2", generation=2)
    last = [e for e, _ in await store.journal.entries()][-1]
    assert last.data["gate"] == 3
    assert [e.id for e, _ in await store.journal.entries()][-2] == "T1"


async def test_with_a_former_secret_nothing_is_written(store: Store, tmp_path: Path) -> None:
    front = await fronted(store)
    async with open_store(
        sqlite_url(tmp_path / "guard.db"), secret=b"another" * 5, state_dir=tmp_path, clock=Clock(), renewing=True
    ) as other:
        await other.renew(event(Kind.SECRET, "renewed"))
    assert (await store.gate.read()).generation == front.generation == 2
    assert not await record(front, "T1", generation=2)
    with pytest.raises(LedgerError):
        await store.admit(item("T1"), relays("T1"))
    assert not await record(front, "T1", generation=2)


async def test_while_the_gate_changes_nothing_is_recorded(store: Store) -> None:
    """The front records nothing while the gate moves. If the transaction fails, the old gate is in force again."""
    front = await fronted(store)
    seen: list[int | None] = []

    def fails(batch: object) -> None:
        batch.ends_generation(event(Kind.FREEZE, "F1"))  # type: ignore[attr-defined]
        seen.append(front.generation)
        raise KeyError("no")

    with pytest.raises(KeyError):
        await store.write(fails)
    assert seen == [2]
    assert await moved(store) == []
    assert front.generation == 1
    assert await record(front, "T1")
    assert await moved(store) == ["T1"]


async def test_a_gate_that_changes_without_ending_fronts_raises(store: Store) -> None:
    with pytest.raises(RuntimeError):
        await store.write(lambda b: b.moved())


class Paused(Disk):
    """Pauses within a write, before or after its data is on the disk."""

    after = False

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def write(self, data: bytes, at: int) -> None:
        if self.after:
            super().write(data, at)
        self.begun.set()
        assert self.go_on.wait(60)
        if not self.after:
            super().write(data, at)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Paused})


async def writing(store: Store, id: str) -> tuple[Front, asyncio.Task[bool], Paused]:
    """A front that is within a write of this verdict."""
    front = await fronted(store)
    disk = front._disk
    assert isinstance(disk, Paused)
    task = asyncio.create_task(record(front, id))
    await asyncio.to_thread(disk.begun.wait, 60)
    return front, task, disk


@pytest.mark.parametrize("change", ["freeze", "fails"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_gate_that_moves_during_a_write_waits_for_nobody(
    store: Store, tmp_path: Path, paused: None, monkeypatch: pytest.MonkeyPatch, after: bool, change: str
) -> None:
    """The verdict whose write was going on is in force if it is in the chain; else the admission decides."""
    monkeypatch.setattr(Paused, "after", after)
    front, task, disk = await writing(store, "T1")
    async with store_of(tmp_path) as other:
        if change == "freeze":
            await other.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
        else:

            def fails(batch: Batch) -> None:
                batch.ends_generation(event(Kind.FREEZE, "F1"))
                disk.go_on.set()
                while not front._progress.written[1]:
                    time.sleep(0.001)
                raise KeyError("no")

            with pytest.raises(KeyError):
                await other.write(fails)
    disk.go_on.set()
    there = await task
    assert (await moved(store) == ["T1"]) is there
    assert there is (change == "fails")
    assert (await store.gate.read()).generation == front.generation


async def test_a_verdict_that_a_gate_change_moved_is_in_force(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was moved between its write and the second look at the generation."""
    front = await fronted(store)
    reached, go_on = threading.Event(), threading.Event()

    class Barrier:
        def __enter__(self) -> None:
            reached.set()
            assert go_on.wait(60)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(front, "_barrier", Barrier())
    task = asyncio.create_task(record(front, "T1"))
    await asyncio.to_thread(reached.wait, 60)
    async with store_of(tmp_path) as other:
        await other.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    go_on.set()
    assert await task
    kinds = [e.id for e, _ in await store.journal.entries() if e.kind in ("verdict", "freeze")]
    assert kinds == ["T1", "F1"]
    assert await moved(store) == ["T1"]


# what is known without a query


async def test_holds_and_counts_are_known_in_every_process(store: Store, tmp_path: Path) -> None:
    bo = Ask("sender.customers", "bo@example.com", 3600)
    await held(store, "H0")
    async with store_of(tmp_path) as other:
        front = await fronted(store)
        assert front.holds(key("H0")), "from before it was made"
        assert not front.holds(key("H1"))
        await held(other, "H1")
        assert front.holds(key("H1")), "from the commit on"
        assert front.counts_nobody(bo)
        counted = item("T1", asks=(bo,), people=(b"12345678",))
        await other.admit(counted, relays("T1", counted=(bo,)))
        assert not front.counts_nobody(bo)
        assert not front.counts_nobody(bo._replace(window_seconds=60)), "in whatever window"
        assert front.counts_nobody(bo._replace(key="eva@example.com"))
    assert not front.counts_nobody(bo._replace(fact="thread.replies", key="x")), "it counts the message itself"


async def test_counts_of_before_the_start_are_known(tmp_path: Path) -> None:
    ask = Ask("sender.customers", "bo@example.com", 3600)
    async with store_of(tmp_path) as before:
        await before.admit(item("T1", asks=(ask,), people=(b"12345678",)), relays("T1", counted=(ask,)))
        await before.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    assert not (tmp_path / "front-guard-db").exists(), "without a front nothing is loaded for one"
    async with store_of(tmp_path) as store:
        front = await fronted(store)
        assert not front.counts_nobody(ask)
        assert front.generation == 2


# the end of a front, and fronts of dead processes


async def test_a_front_ends_with_its_process(tmp_path: Path) -> None:
    async with store_of(tmp_path) as store:
        front = await fronted(store)
        assert await record(front, "T1")
    assert not front.path.exists()
    async with store_of(tmp_path) as store:
        assert await moved(store) == ["T1"]
        await store.journal.take_fronts(only_ended=True)
        assert await known(store) == []


async def known(store: Store) -> list[str]:
    """Names of the fronts in the database."""
    return await store.ask(lambda c: [name for (name,) in c.exec_driver_sql("SELECT name FROM front")])


def appear_dead(store: Store, front: Front) -> None:
    """Look dead to other processes: release the lock and write no more."""
    pause_moving(store, front)
    fcntl.flock(front._alive, fcntl.LOCK_UN)


async def test_fronts_of_dead_processes_are_taken_over_once(store: Store, tmp_path: Path) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    for n in range(3):
        assert await record(front, f"T{n}")
    appear_dead(store, front)
    async with store_of(tmp_path) as other:
        assert await other.journal.take_fronts() == 3
        assert await other.journal.take_fronts() == 0
        assert not front.path.exists()
        assert await moved(other) == ["T0", "T1", "T2"]
        assert sorted(await other.journal.unsettled(Clock().now().replace(year=2030))) == ["T0", "T1", "T2"], "in doubt"


async def test_running_processes_look_for_dead_ones(store: Store, tmp_path: Path) -> None:
    one = await fronted(store)
    async with store_of(tmp_path) as other:
        two = await fronted(other)
        pause_moving(store, one)
        pause_moving(other, two)
        assert await record(one, "T1")
        assert await record(two, "T2")
        await other.journal.take_fronts(only_ended=True)
        assert await other.journal.last() == (await store.ask(read_head)).seq
        assert set(await known(other)) == {one.name, two.name}, "each moves its own"
        appear_dead(store, one)
        await other.journal.take_fronts(only_ended=True)
        assert await known(other) == [two.name]
        assert not one.path.exists()
        assert "T1" in await moved(other)
        other._writer.front = two


async def test_moved_verdicts_of_the_dead_are_not_moved_again(store: Store, tmp_path: Path) -> None:
    front = await fronted(store)
    assert await record(front, "T1")
    await moved(store)
    pause_moving(store, front)
    assert await record(front, "T2")
    appear_dead(store, front)
    async with store_of(tmp_path) as other:
        assert await other.journal.take_fronts() == 1
        assert await moved(other) == ["T1", "T2"]


@pytest.mark.parametrize("how", ["journal", "earlier", "unknown", "generation", "damaged"])
async def test_an_inconsistent_front_is_kept_aside(store: Store, tmp_path: Path, how: str) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    assert await record(front, "T2")
    appear_dead(store, front)
    data = front.path.read_bytes()
    head = await store.ask(read_head)
    here = Head(journal=head.journal, name=front.name, seq=head.seq, hash=head.hash.hex())

    def with_head(**other: object) -> bytes:
        made = Head(**{**{n: getattr(here, n) for n in ("journal", "name", "seq", "hash")}, **other}).octets()
        return made + bytes(FIRST - len(made)) + data[FIRST:]

    match how:
        case "journal":
            front.path.write_bytes(with_head(journal="another"))
        case "earlier":
            front.path.write_bytes(with_head(hash="ab" * 32))
        case "unknown":
            await store.write(lambda b: b.execute("DELETE FROM front", [()]))
        case "generation":
            await store.write(lambda b: b.execute("UPDATE head SET generation = ?", [(0,)]))
        case "damaged":
            front.path.write_bytes(data[: FIRST + 50] + b"?" + data[FIRST + 51 :])
    async with store_of(tmp_path) as other:
        assert await other.journal.take_fronts() == 0
        assert await moved(other) == []
        assert [p.name for p in other.journal.fronts_aside()] == [f"{front.name}.front{ASIDE}"]
        assert await other.journal.take_fronts() == 0


# disks that fail


class Fails(Disk):
    error: OSError | None = None

    def write(self, data: bytes, at: int) -> None:
        if self.error is not None:
            super().write(data[: len(data) // 2], at)
            raise self.error
        super().write(data, at)


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, Full), (errno.EIO, Unavailable)])
async def test_a_failing_disk_records_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Fails})
    front = await fronted(store)
    assert await record(front, "T1")
    front._disk.error = OSError(code, os.strerror(code))  # type: ignore[attr-defined]
    with pytest.raises(kind):
        await record(front, "T2")
    front._disk.error = None  # type: ignore[attr-defined]
    assert not await record(front, "T3"), "nothing is synced again over a failure"
    store.journal.note(outcome("T1"))
    assert await moved(store) == ["T1"]
    await store.journal.take_fronts()
    assert await moved(store) == ["T1"], "an unacknowledged verdict is not taken over"
    assert [e.kind for e, _ in await store.journal.history("T1")] == ["verdict", "outcome"]


async def test_after_a_failed_write_nothing_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed write the front writes no more, not even what was queued: a frame before it may be missing."""
    begun, fails, written = threading.Event(), threading.Event(), 0

    class Slow(Disk):
        def write(self, data: bytes, at: int) -> None:
            nonlocal written
            written += 1
            begun.set()
            assert fails.wait(60)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Slow})
    front = await fronted(store)
    pause_moving(store, front)
    first = asyncio.create_task(record(front, "T1"))
    await asyncio.to_thread(begun.wait, 60)
    second = asyncio.create_task(record(front, "T2"))
    while front._queue.empty():  # noqa: ASYNC110 - until it is with the thread
        await asyncio.sleep(0)
    fails.set()
    with pytest.raises(Unavailable):
        await first
    assert not await second, "the admission decides on it"
    assert written == 1


async def test_without_disk_space_there_is_no_front(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Disk, head: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "lay_out", full)
    assert await store.open_front() is None
    assert store._database.fronts is not None
    assert store._database.fronts.all() == []
    await store.admit(item("T1"), relays("T1"))


def rename(store: Store, table: str, to: str) -> None:
    with closing(sqlite3.connect(store._database.path)) as connection, connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {to}")


async def test_while_the_database_fails_the_admission_decides(store: Store) -> None:
    front = await fronted(store)
    rename(store, "underway", "away")
    assert await record(front, "T1"), "no process has noticed it yet"
    with pytest.raises(LedgerError):
        await store.admit(item("T2"), relays("T2"))
    assert not await record(front, "T3")
    rename(store, "away", "underway")
    await store.journal.record([event(Kind.START, "a commit")])
    assert await record(front, "T4")
    assert await moved(store) == ["T1", "T4"]


async def test_a_full_front_leaves_it_to_the_admission(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    monkeypatch.setattr(fronts, "SIZE", 1000)
    monkeypatch.setattr(fronts, "AGAIN", 100)
    assert await record(front, "T1")
    assert await record(front, "T2")
    n = 2
    while await record(front, f"T{n + 1}"):
        n += 1
    store._writer.front = front
    assert len(await moved(store)) == n
    assert await record(front, "after"), "from its beginning again"
    assert (await moved(store))[-1] == "after"


async def test_the_file_is_reused_in_rounds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await fronted(store)
    monkeypatch.setattr(fronts, "SIZE", 4000)
    monkeypatch.setattr(fronts, "AGAIN", 1000)
    chance = random.Random(3)
    wanted: list[str] = []
    for n in range(100):
        if await record(front, f"T{n}"):
            wanted.append(f"T{n}")
        if chance.random() < 0.3:
            assert await moved(store) == wanted
    assert len(wanted) > 50
    assert await moved(store) == wanted


@pytest.mark.parametrize("what", ["database", "front", "page"])
async def test_with_its_files_gone_it_is_not_used(store: Store, tmp_path: Path, what: str) -> None:
    front = await fronted(store)
    gone = {"database": tmp_path / "guard.db", "front": front.path, "page": tmp_path / "front-guard-db" / "shared"}[
        what
    ]
    kept = gone.with_name("kept")
    gone.rename(kept)
    assert not await record(front, "T1")
    assert front.generation is None
    if what == "database":
        with pytest.raises(LedgerError):
            await store.admit(item("T1"), relays("T1"))
    kept.rename(gone)
    assert await moved(store) == []


async def test_removed_during_a_write_it_is_unavailable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(Disk):
        def write(self, data: bytes, at: int) -> None:
            super().write(data, at)
            front.path.unlink()

    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Taken})
    front = await fronted(store)
    with pytest.raises(Unavailable):
        await record(front, "T1")
    assert front.generation is None
    while not [e for e, _ in await store.journal.history("T1") if e.data.get("outcome") == "unanswered"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


# power cuts


class Power(Disk):
    """Keeps synced data apart from written data. Of the write in progress, any sectors may be on the disk."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.synced, self.going, self.direct = bytearray(), (b"", 0), False

    def lay_out(self, head: bytes) -> None:
        super().lay_out(head)
        self.synced = bytearray(os.pread(self._file, FIRST + fronts.SIZE, 0))

    def reopened(self, path: str) -> None:
        super().reopened(path)
        self.direct = bool(fcntl.fcntl(self._file, fcntl.F_GETFL) & os.O_DSYNC)

    def write(self, data: bytes, at: int) -> None:
        self.going = data, at
        super().write(data, at)
        if self.direct:
            self.synced[at : at + len(data)] = data

    def cut(self, chance: random.Random) -> bytes:
        """The disk's content after a power cut before or during the last write."""
        left, (data, at) = bytearray(self.synced), self.going
        for start in range(0, len(data), 512):
            if chance.random() < 0.5:
                piece = data[start : start + 512]
                piece = piece[: chance.randrange(len(piece) + 1)]
                left[at + start : at + start + len(piece)] = piece
        return bytes(left)


@pytest.mark.parametrize("seed", range(6))
async def test_a_power_loss_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(Front.__init__, "__kwdefaults__", {"disk": Power})
    monkeypatch.setattr(fronts, "SIZE", 1 << 20)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    answered: list[str] = []

    async def one(n: int) -> None:
        if await record(front, f"T{n}"):
            answered.append(f"T{n}")

    async with store_of(here) as store:
        front = await fronted(store)
        await asyncio.gather(*(one(n) for n in range(chance.randrange(1, 40))))
        before = await moved(store)
        pause_moving(store, front)
        for start in range(100, 100 + 10 * chance.randrange(1, 5), 10):
            await asyncio.gather(*(one(n) for n in range(start, start + 10)))
        disk = front._disk
        assert isinstance(disk, Power)
        waiting = tail(front.path.read_bytes()[FIRST:], front._progress.moved).fronted
        going = b"".join(
            replace(f, number=f.number + 1000).frame(front._number) for f in waiting
        )  # no client got an answer
        disk.going = going, FIRST + front._at
        left = disk.cut(chance)
        with (
            closing(sqlite3.connect(here / "guard.db")) as database,
            closing(sqlite3.connect(there / "guard.db")) as copy,
        ):
            database.backup(copy)
        (there / "front-guard-db").mkdir()
        (there / "front-guard-db" / front.path.name).write_bytes(left)
    async with store_of(there) as after:
        await after.journal.take_fronts()
        found = await moved(after)
        assert set(before) <= set(found)
        assert set(answered) <= set(found), "nothing that was acknowledged is lost"
        assert after.journal.fronts_aside() == []


async def test_a_clock_set_back_changes_no_order(tmp_path: Path) -> None:
    clock = Clock()
    async with store_of(tmp_path, clock) as store:
        front = await fronted(store)
        for n, hours in enumerate((0, -5, 3, -30)):
            clock.go(hours=hours)
            made = verdict(f"T{n}", at=clock)
            assert await front.record(made, key=key(f"T{n}"), marks=MARKS, generation=1)
        assert await moved(store) == ["T0", "T1", "T2", "T3"]


async def test_a_verdict_with_its_outcome_is_not_under_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    insert = Batch._insert

    def seen(batch: Batch, table: str, rows: Sequence[Row]) -> None:
        written.extend(row[0] for row in rows if table == "underway")
        insert(batch, table, rows)

    monkeypatch.setattr(Batch, "_insert", seen)
    front = await fronted(store)
    front._wake = lambda: None  # so that all of it comes with one batch
    for n in range(3):
        assert await record(front, f"T{n}")
    store.journal.note(event(Kind.OUTCOME, "T0", outcome="relayed"))
    store.journal.note(event(Kind.IN_DOUBT, "T1", outcome="in-doubt"))
    assert await moved(store) == ["T0", "T1", "T2"]
    assert sorted(written) == ["T1", "T2"]
    assert await store.journal.unsettled(Clock().now() + timedelta(days=1)) == ["T2"]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_late_verdict_is_not_acknowledged(
    store: Store, paused: None, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    if not cancelled:
        monkeypatch.setattr(fronts, "WAIT_SECONDS", 0.0)
    _, waiting, disk = await writing(store, "T1")
    if cancelled:
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else TimeoutError):
        await waiting
    disk.go_on.set()
    while not [k for e, _ in await store.journal.history("T1") if (k := e.data.get("outcome")) == "unanswered"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
