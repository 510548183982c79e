"""The front and the chain: a verdict is recorded once synced, moved exactly once, before the gate moves, and taken over
from a dead process."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from unittest.mock import Mock

import pytest

from smtpguard.database.batch import Batch, read_head
from smtpguard.database.errors import StoreError
from smtpguard.database.fronts import ASIDE, File, Fronts, live_file
from smtpguard.journal.event import Kind
from smtpguard.journal.front import FIRST, Fronted, Head, tail
from smtpguard.policy.counted import Ask
from smtpguard.store import front as fronts
from smtpguard.store.front import Disk, Front
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.fronting import MARKS, fronted, moved, outcome, outcomes, pause_moving, record, store_of, verdict
from tests.store.making import T0, a_freeze, event, held, item, key, relays, sqlite_url


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_of(tmp_path) as opened:
        yield opened


def by_hand(folder: Path, *statements: str) -> None:
    """Change the SQLite database behind the store."""
    with closing(sqlite3.connect(folder / "guard.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


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


async def test_a_verdict_that_a_rule_observed_is_found_as_such(store: Store) -> None:
    front = await fronted(store)
    observed = replace(verdict("T2"), data={**verdict("T2").data, "observed": ["watch"]})
    for each in (verdict("T1"), observed):
        assert await front.record(each, key=key(each.id), marks=MARKS, generation=1)
    listed = replace(verdict("T3"), data={**verdict("T3").data, "lists": ["ramadan"]})
    assert not await front.record(listed, key=key("T3"), marks=MARKS, generation=1), "the admission records it"
    assert await moved(store) == ["T1", "T2"]
    assert (await store.journal.observed(T0, T0 + timedelta(days=1), 10))[1] == [observed]


async def test_what_nobody_moves_its_own_process_moves(store: Store) -> None:
    front = await fronted(store)
    assert await record(front, "T1")
    while front.has_unmoved:  # noqa: ASYNC110 - the writer's thread, which tells nobody here
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


@pytest.mark.parametrize("told_how_far", [True, False])
async def test_each_entry_is_moved_once_and_published_by_its_own_process(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_how_far: bool
) -> None:
    """By three processes in turn; also if each is killed between the commit and telling the others of it."""
    front = await fronted(store)
    told: list[tuple[str, str]] = []
    store._writer._committed = lambda events: told.extend((e.kind.value, e.id) for e in events)
    if not told_how_far:
        monkeypatch.setattr("smtpguard.database.fronts.Fronts.note_moved", lambda *_: None)
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
    while len([pair for pair in told if pair[1][0] == "T"]) < len(wanted):  # noqa: ASYNC110 - by the front's thread
        await asyncio.sleep(0.01)
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
    assert not front.has_unmoved
    assert not store._writer._notes


@pytest.mark.parametrize("busy", [True, False])
async def test_verdicts_gather_while_the_event_loop_is_busy(
    store: Store, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    front = await fronted(store)
    together: list[int] = []
    put, turns = front._put, count()

    def counted() -> None:
        together.append(len(front._coming))
        put()

    monkeypatch.setattr(front, "_put", counted)
    monkeypatch.setattr(fronts, "monotonic", lambda: next(turns) * fronts.IDLE_SECONDS * 2 * busy)
    first = asyncio.create_task(record(front, "T1"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert await record(front, "T2")
    assert await first
    assert together == ([2] if busy else [1, 1])
    handed = Mock(side_effect=front._hand_over)
    monkeypatch.setattr(front, "_hand_over", handed)
    assert await record(front, "T3")
    assert handed.call_count <= fronts.GATHER_TURNS + 2, "also where no turn is idle by the clock"


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
    assert not live_file(two.path).exists()
    assert not two.path.exists(), "it is gone with its process"


class Killed(BaseException):
    """Ends a process as a kill would: nothing after it runs."""


@pytest.mark.parametrize("aside", [False, True])
def test_a_process_killed_while_it_removes_a_front_leaves_no_lock_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aside: bool
) -> None:
    """Nobody would remove the lock without a front, for which others look."""
    made = Fronts(tmp_path / "guard.db")
    made.folder.mkdir()
    file = File(made.folder / "dead.front")
    for path in (file.path, live_file(file.path)):
        path.touch()
    unlink, removed = Path.unlink, list[Path]()

    def killed(path: Path, *_: object, **__: object) -> None:
        if removed:
            raise Killed
        unlink(path)
        removed.append(path)

    monkeypatch.setattr(made, "sync", lambda: None)
    monkeypatch.setattr(Path, "unlink", killed)
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        file.set_aside("it is not known here") if aside else made.remove(file)
    assert [path.name for path in made.folder.iterdir()] == ["dead.front"]


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
        sqlite_url(tmp_path / "guard.db"), secret=b"another" * 5, state_dir=tmp_path, clock=Clock(), renewing=()
    ) as other:
        await other.renew(event(Kind.SECRET, "renewed"))
    assert (await store.gate.read()).generation == front.generation == 2
    assert not await record(front, "T1", generation=2)
    with pytest.raises(StoreError):
        await store.admit(item("T1"), relays("T1"))
    assert not await record(front, "T1", generation=2)


async def test_while_the_gate_changes_nothing_is_recorded(store: Store) -> None:
    """The front records nothing while the gate moves. If the transaction fails, the old gate is in force again."""
    front = await fronted(store)
    seen: list[int | None] = []

    def fails(batch: object) -> None:
        batch.move_gate(event(Kind.FREEZE, "F1"))  # type: ignore[attr-defined]
        seen.append(front.generation)
        raise KeyError("no")

    with pytest.raises(KeyError):
        await store.write(fails)
    assert seen == [2]
    assert await moved(store) == []
    assert front.generation == 1
    assert await record(front, "T1")
    assert await moved(store) == ["T1"]


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
                batch.move_gate(event(Kind.FREEZE, "F1"))
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


async def test_each_verdict_has_its_own_time(store: Store, paused: None) -> None:
    front, first, disk = await writing(store, "T1")
    second = asyncio.create_task(record(front, "T2"))
    while len(front._underway) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    one, two = front._underway
    one.until, two.until = loop.time(), loop.time() + 60
    assert front._limit is not None
    front._limit.cancel()
    front._give_up()
    with pytest.raises(TimeoutError):
        await first
    assert front._limit.when() == pytest.approx(two.until)
    assert not second.done()
    disk.go_on.set()
    assert await second


# what is known without a query


async def test_holds_and_counts_are_known_in_every_process(store: Store, tmp_path: Path) -> None:
    bo = Ask("sender.customers", "bo@example.com", 3600)
    await held(store, "H0")
    async with store_of(tmp_path) as other:
        front = await fronted(store)
        assert front.may_hold(key("H0")), "from before it was made"
        assert not front.may_hold(key("H1"))
        await held(other, "H1")
        assert front.may_hold(key("H1")), "from the commit on"
        assert front.counts_nobody(bo)
        counted = item("T1", asks=(bo,), people=(b"12345678",))
        await other.admit(counted, relays("T1", counted=(bo,)))
        assert not front.counts_nobody(bo)
        assert not front.counts_nobody(bo._replace(window_seconds=60)), "in whatever window"
        assert front.counts_nobody(bo._replace(key="eva@example.com"))
    assert not front.counts_nobody(bo._replace(fact="thread.replies", key="x")), "it counts the message itself"


@pytest.mark.parametrize("wrong", ["'H1'", "''", "'abcd'", "x'00ff'", "CAST(x'ff' AS TEXT)"])
async def test_a_hold_whose_key_is_no_digest_stops_no_front(store: Store, tmp_path: Path, wrong: str) -> None:
    """No message has such a key, so nothing can be a retry of it."""
    await held(store, "H0")
    await held(store, "H1")
    by_hand(tmp_path, f"UPDATE hold SET key = {wrong} WHERE hold_id = 'H1'")
    front = await fronted(store)
    assert (front.may_hold(key("H0")), front.may_hold(key("H1"))) == (True, False)
    assert await record(front, "T1")


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


@pytest.mark.parametrize("commit", ["succeeds", "fails"])
async def test_verdicts_that_do_not_fit_the_journal_any_more_are_kept_aside(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, commit: str
) -> None:
    """The database was put back to a state with another gate, which does not know the front. They may have been relayed."""
    front = await fronted(store)
    pause_moving(store, front)

    def moves_and_fails(batch: Batch) -> None:
        front.move(batch)
        raise StoreError

    assert await record(front, "T1")
    by_hand(tmp_path, "DELETE FROM front", "UPDATE head SET generation = generation + 1")
    if commit == "fails":
        with pytest.raises(StoreError):
            await store.write(moves_and_fails)
    store._writer.front = front
    assert await moved(store) == []
    assert not front.has_unmoved
    assert "set aside: the journal does not take its verdicts T1" in caplog.text
    [file] = store.journal.fronts_aside()
    assert file.name == f"{front.name}.front{ASIDE}"
    assert [f.id for f in tail(file.read_bytes()[FIRST:], 0).fronted] == ["T1"]
    assert not await record(front, "T2"), "the database records it"


async def test_a_verdict_written_while_its_front_is_set_aside_is_not_acknowledged(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    by_hand(tmp_path, "DELETE FROM front", "UPDATE head SET generation = generation + 1")
    write, set_aside = front._disk.write, front._file.set_aside
    waits, acknowledged, loop = threading.Event(), threading.Event(), asyncio.get_running_loop()
    moving: list[Future[list[str]]] = []

    def writing(data: bytes, at: int) -> None:
        store._writer.front = front
        moving.append(asyncio.run_coroutine_threadsafe(moved(store), loop))
        assert waits.wait(60)
        write(data, at)

    def setting_aside(why: str) -> None:
        waits.set()
        assert acknowledged.wait(60)
        set_aside(why)

    front._disk.write = writing  # type: ignore[method-assign]
    front._file.set_aside = setting_aside  # type: ignore[method-assign]
    assert not await record(front, "T2"), "the admission decides"
    acknowledged.set()
    assert await asyncio.wrap_future(moving[0]) == []
    assert await moved(store) == []
    assert not front.has_unmoved
    assert caplog.text.count("set aside: the journal does not take its verdicts T1") == 1
    assert "T2" not in caplog.text


async def test_a_verdict_acknowledged_while_others_are_moved_is_moved_though_the_next_write_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    loop, append = asyncio.get_running_loop(), Batch.append_fronted

    async def meanwhile() -> None:
        assert await record(front, "T2")
        front._disk.write = Mock(side_effect=OSError(errno.EIO, "broken"))  # type: ignore[method-assign]
        with pytest.raises(StoreError):
            await record(front, "T3")

    def appending(batch: Batch, found: Sequence[Fronted]) -> None:
        monkeypatch.undo()
        asyncio.run_coroutine_threadsafe(meanwhile(), loop).result()
        append(batch, found)

    monkeypatch.setattr(Batch, "append_fronted", appending)
    store._writer.front = front
    assert await moved(store) == ["T1"]
    assert await moved(store) == ["T1", "T2"]
    assert not front.has_unmoved


async def test_a_front_of_a_later_generation_is_set_aside_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The database was put back to an earlier generation that knows the front."""
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    by_hand(tmp_path, "UPDATE head SET generation = 0")
    store._writer.front = front
    for _ in range(4):
        await store.journal.record([event(Kind.START, "a batch")])
    assert not front.has_unmoved
    assert caplog.text.count("was set aside") == 2, "by whoever moves it, and by its process, which names the verdicts"
    assert len(store.journal.fronts_aside()) == 1


async def test_a_verdict_that_an_unknown_front_is_writing_is_moved_later(store: Store, tmp_path: Path) -> None:
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    await store.write(lambda b: b.execute("DELETE FROM front", [()]))
    write, once = front._disk.write, threading.Event()

    def writing(data: bytes, at: int) -> None:
        if not once.is_set():
            once.set()
            asyncio.run_coroutine_threadsafe(moving(), loop).result()
        write(data, at)

    async def moving() -> None:
        store._writer.front = front
        assert await moved(store) == ["T1"]
        store._writer.front = None

    loop = asyncio.get_running_loop()
    front._disk.write = writing  # type: ignore[method-assign]
    acknowledged = await record(front, "T2")
    store._writer.front = front
    assert await moved(store) == ["T1", "T2"][: 1 + acknowledged]
    assert store.journal.fronts_aside() == []


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


@pytest.mark.parametrize("first", ["move", "take"])
async def test_a_front_stays_until_what_was_moved_is_committed(store: Store, tmp_path: Path, first: str) -> None:
    """One transaction may move a dead process's front and then take all fronts; before its commit it may fail, or its
    process be killed."""
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    appear_dead(store, front)

    def moves(batch: Batch) -> None:
        assert (batch.move_front(File(front.path)) if first == "move" else batch.take_fronts()) == 1
        assert batch.take_fronts() == 0
        raise StoreError

    async with store_of(tmp_path) as other:
        with pytest.raises(StoreError):
            await other.write(moves)
        assert front.path.exists()
        assert await other.journal.take_fronts() == 1
        assert not front.path.exists()
        assert await moved(other) == ["T1"]


@pytest.mark.parametrize("damaged", [False, True])
async def test_an_unknown_front_that_is_in_the_chain_is_removed(store: Store, tmp_path: Path, damaged: bool) -> None:
    """Its process has moved it after the database was put back, and was killed. One with frames that cannot be read is
    kept: they may not be in the chain."""
    front = await fronted(store)
    pause_moving(store, front)
    assert await record(front, "T1")
    [first], at = tail(front.path.read_bytes()[FIRST:], 0).fronted, FIRST + front._at + 50
    if damaged:
        assert await record(front, "T2")
        assert await record(front, "T3")
    await store.write(lambda b: b.execute("DELETE FROM front", [()]))
    await store.write(lambda b: b.append_fronted([first]))
    appear_dead(store, front)
    data = front.path.read_bytes()
    front.path.write_bytes(data[:at] + b"?" * damaged + data[at + damaged :])
    async with store_of(tmp_path) as other:
        assert await other.journal.take_fronts() == 0
        assert await moved(other) == ["T1"]
        assert [p.stem for p in other.journal.fronts_aside()] == [front.path.name] * damaged
        assert not front.path.exists()


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
