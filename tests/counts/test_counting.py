"""Distinct people in a sliding window: counted exactly, with this item, and not prolonged by retries."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.counts import counting, sums, sweeping
from smtpguard.journal.event import Kind
from smtpguard.policy.counted import Ask
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import POLICY, SECRET, Gathered, a_hold, event, item, on_sqlite, relays

HOUR = Ask(fact="sender.customers", key="anna@example.com", window_seconds=3600)
THREAD = Ask(fact="thread.replies", key="<thread@example.com>", window_seconds=600)


async def count(store: Store, one: Item, *, counted: bool = True) -> dict[Ask, int]:
    seen: dict[Ask, int] = {}

    def step(live: Seen) -> Admission:
        seen.update(live.counts)
        return relays(one.id, counted=one.asks if counted else ())(live)

    await store.admit(one, step)
    return seen


def to(id: str, *people: str, asks: tuple[Ask, ...] = (HOUR,), **more: Any) -> Item:
    return item(id, asks=asks, people=tuple(p.encode() for p in people), **more)


@on_sqlite
async def test_people_are_counted_once_including_this_item(store: Store) -> None:
    assert await count(store, to("T1", "a", "b")) == {HOUR: 2}
    assert await count(store, to("T2", "b", "c")) == {HOUR: 3}
    assert await count(store, to("T3", "c", "c")) == {HOUR: 3}


@on_sqlite
async def test_uncounted_items_leave_no_trace(store: Store) -> None:
    assert await count(store, to("T1", "a", "b"), counted=False) == {HOUR: 2}
    assert await count(store, to("T2", "c")) == {HOUR: 1}


@on_sqlite
async def test_items_of_one_batch_see_each_other(store: Store) -> None:
    async with Gathered(store):
        tasks = [asyncio.create_task(count(store, to(f"T{n}", f"p{n}", "shared"))) for n in range(5)]
    assert [c[HOUR] for c in await asyncio.gather(*tasks)] == [2, 3, 4, 5, 6]


@on_sqlite
async def test_the_window_slides(store: Store, clock: Clock) -> None:
    await count(store, to("T1", "a", "b"))
    clock.pass_(minutes=40)
    await count(store, to("T2", "b", "c"))
    clock.pass_(minutes=20)  # a is exactly an hour old, and does not count
    assert await count(store, to("T3", "d"), counted=False) == {HOUR: 3}
    clock.pass_(minutes=40)
    assert await count(store, to("T4", "d"), counted=False) == {HOUR: 1}


@on_sqlite
async def test_windows_of_one_key_are_separate(store: Store, clock: Clock) -> None:
    day = Ask(fact=HOUR.fact, key=HOUR.key, window_seconds=86_400)
    await count(store, to("T1", "a", asks=(HOUR, day)))
    clock.pass_(hours=2)
    assert await count(store, to("T2", "b", asks=(HOUR, day))) == {HOUR: 1, day: 2}


@on_sqlite
async def test_keys_and_facts_are_separate(store: Store) -> None:
    await count(store, to("T1", "a"))
    other = Ask(fact=HOUR.fact, key="bo@example.com", window_seconds=3600)
    fact = Ask(fact="other.customers", key=HOUR.key, window_seconds=3600)
    assert await count(store, to("T2", "b", asks=(other, fact))) == {other: 1, fact: 1}


@on_sqlite
async def test_a_retry_counts_once_and_does_not_prolong(store: Store, clock: Clock) -> None:
    await count(store, to("T1", "a", content_sha256="same"))
    clock.pass_(minutes=30)
    await count(store, to("T2", "a", of="T1", content_sha256="same"))
    await count(store, to("T3", "b", content_sha256="same"))  # the other recipients, split off by the MTA
    clock.pass_(minutes=30)
    assert await count(store, to("T4", "c"), counted=False) == {HOUR: 2}  # b and c; a is an hour old


@pytest.mark.parametrize("large", [2, sums.LARGE])
async def test_whom_a_reset_forgets_is_counted_by_the_next_message(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    """With and without a stored sum, and with a clock that is behind that of the reset."""
    monkeypatch.setattr(sums, "LARGE", large)
    day = HOUR._replace(window_seconds=86_400)
    hold = a_hold("H", letter_from=(HOUR.key,), by_sender=True)
    await count(store, to("T1", "a", "b", "c", asks=(HOUR, day)))
    clock.pass_(minutes=1)
    await store._writer.submit(partial(counting.reset_for_release, hold=hold, people=()))
    clock.pass_(seconds=-1)
    assert await count(store, to("T2", "a", "b", asks=(HOUR, day))) == {HOUR: 2, day: 2}
    assert await count(store, to("T3", "b", "d", asks=(HOUR, day))) == {HOUR: 3, day: 3}
    clock.pass_(hours=2)
    assert await count(store, to("T4", "a", asks=(HOUR, day))) == {HOUR: 1, day: 3}


@on_sqlite
async def test_another_message_to_the_same_person_prolongs(store: Store, clock: Clock) -> None:
    await count(store, to("T1", "a"))
    clock.pass_(minutes=30)
    await count(store, to("T2", "a"))
    clock.pass_(minutes=45)
    assert await count(store, to("T3", "b"), counted=False) == {HOUR: 2}


@on_sqlite
async def test_the_members_of_a_list_count_once_for_each_version(store: Store) -> None:
    def listed(id: str, version: str) -> Item:
        return item(id, asks=(HOUR,), lists=(("ramadan", version, 400_000),), people=(b"a",))

    assert await count(store, listed("T1", "v1")) == {HOUR: 400_001}
    assert await count(store, listed("T2", "v1")) == {HOUR: 400_001}
    assert await count(store, listed("T3", "v2")) == {HOUR: 800_001}


@on_sqlite
async def test_replies_are_counted_by_message_id(store: Store) -> None:
    parts = [await count(store, item(f"T{n}", asks=(THREAD,), message_id="<1@x>")) for n in range(10)]
    assert parts == [{THREAD: 1}] * 10  # one reply, split by the MTA
    assert await count(store, item("U1", asks=(THREAD,), message_id="<2@x>")) == {THREAD: 2}
    assert await count(store, item("U2", asks=(THREAD,))) == {THREAD: 3}  # without a Message-ID it counts by itself


@on_sqlite
async def test_the_tables_contain_no_names(store: Store) -> None:
    await count(store, to("T1", "somebody"))
    rows: list[Any] = []
    await store._writer.submit(lambda b: rows.extend(b.select("SELECT person, doc FROM person")))
    assert len(rows) == 1
    assert len(bytes(rows[0][1])) == 16


@on_sqlite
async def test_counts_outside_all_windows_are_deleted(store: Store, clock: Clock) -> None:
    await count(store, to("T1", "a"))
    clock.pass_(minutes=71)
    await count(store, to("T2", "b"))
    await store._writer.submit(lambda b: sweeping.sweep(b, -(1 << 63), (1 << 63) - 1))
    tables = ("person", "again", "moment")
    left: list[Any] = []
    await store._writer.submit(lambda b: left.extend(len(b.select(f"SELECT 1 FROM {table}")) for table in tables))
    assert left == [1, 1, 1]


async def test_stored_sums_equal_new_counts_with_two_processes(
    store: Store, url: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two processes and two windows, a stored sum always equals a new count."""
    monkeypatch.setattr(sums, "LARGE", 3)
    day = Ask(fact=HOUR.fact, key=HOUR.key, window_seconds=86_400)
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as other:
        for n in range(40):
            clock.pass_(minutes=4)
            chosen = (store, other)[n % 2]
            asks = ((day,), (HOUR, day))[n % 3 > 0]
            seen = await count(chosen, to(f"T{n}", f"p{n}", f"q{n % 7}", asks=asks))
            within = {f"p{i}" for i in range(max(0, n - 14), n + 1)} | {
                f"q{i % 7}" for i in range(max(0, n - 14), n + 1)
            }
            if HOUR in asks:
                assert seen[HOUR] == len(within)
            if day in asks:
                assert seen[day] == n + 1 + min(7, n + 1)
    kept: list[Any] = []
    await store._writer.submit(lambda b: kept.extend(b.select("SELECT seconds FROM tally")))
    assert {seconds for (seconds,) in kept} == {3600, 86_400}


@on_sqlite
async def test_each_minute_a_part_of_the_counts_is_deleted(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "PARTS", 2)
    for n in range(20):
        clock.pass_(minutes=10)
        await count(store, to(f"T{n}", f"p{n}"))
        await store.retain(Retention())
    left: list[int] = []
    await store._writer.submit(lambda b: left.append(len(b.select("SELECT 1 FROM person"))))
    assert left[0] <= 7 + 3  # an hour and ten minutes, plus what came since each half was swept


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 5, 8, 20, 40]),  # minutes before it
        st.sets(st.sampled_from("abcdef"), max_size=4),
        st.integers(0, 3),  # the content; the same content is a retry
        st.booleans(),
    ),
    max_size=12,
)


@pytest.mark.parametrize("large", [1, sums.LARGE])
@given(script=steps)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counts_equal_those_of_a_simple_model(
    tmp_path_factory: pytest.TempPathFactory, large: int, script: list[Any]
) -> None:
    """The model remembers every (person, time, content) and counts anew; with and without stored sums."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "LARGE", large)
        against_the_model(tmp_path_factory.mktemp("model"), script)


def against_the_model(where: Path, script: list[Any]) -> None:

    async def run() -> None:
        clock = Clock()
        url = f"sqlite:///{where}/guard.db"
        async with open_store(url, secret=SECRET, state_dir=where, clock=clock, migrate=True) as store:
            await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
            at: dict[str, Any] = {}  # person -> newest time
            contents: dict[str, Any] = defaultdict(lambda: None)  # content -> end of the time in which it is a retry
            for n, (minutes, people, content, counted) in enumerate(script):
                clock.pass_(minutes=minutes)
                now = clock.now()
                within = {p for p, t in at.items() if t > now - timedelta(hours=1)}
                one = to(f"T{n}", *sorted(people), content_sha256=f"content-{content}")
                assert (await count(store, one, counted=counted))[HOUR] == len(within | people)
                if counted:
                    until = contents[one.content_sha256 or ""]
                    again = until is not None and until > now
                    for person in people:
                        if not (again and person in within):
                            at[person] = now
                    if people and not again:  # a message without counted recipients starts no time for retries
                        contents[one.content_sha256 or ""] = now + timedelta(hours=1)

    asyncio.run(run())
