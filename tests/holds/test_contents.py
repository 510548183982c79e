"""Rows of holds, and their content: stored once, verified when read, bounded by a quota, and swept when nothing refers to it."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import random
import re
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from smtpguard.admission.model import Admission, Seen
from smtpguard.database.batch import Batch
from smtpguard.database.errors import ContentMissing, Full
from smtpguard.database.schema import hold as table
from smtpguard.holds import contents
from smtpguard.holds.model import Change, State
from smtpguard.holds.rows import due
from smtpguard.journal.chain import microseconds
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.mail.message import Message
from smtpguard.outbox.model import AttemptResult
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.every import every
from tests.store.making import SECRET, T0, a_hold, held, holds, item, on_sqlite, relays, release, sqlite_plans


def made(size: int, seed: int = 1) -> Message:
    return Message.of(random.Random(seed).randbytes(size))


@every("size", [0, 1, contents.CHUNK_BYTES, contents.CHUNK_BYTES + 1, contents.SPOOL_BYTES, contents.SPOOL_BYTES + 1])
async def test_content_is_read_back(store: Store, size: int) -> None:
    message = made(size)
    await store.contents.keep(message)
    await store.contents.keep(message)
    back = await store.contents.load(message.sha256)
    assert (len(back.raw), back.raw[:], back.sha256) == (size, message.raw[:], message.sha256)
    assert isinstance(back.raw, mmap.mmap) == (size > contents.SPOOL_BYTES)
    if isinstance(back.raw, mmap.mmap):
        back.raw.close()


async def test_content_of_a_mapped_file_is_stored(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(made(3_000_000).raw[:])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        message = Message(raw=raw, sha256=hashlib.sha256(raw).hexdigest())
        await store.contents.keep(message)
    back = await store.contents.load(message.sha256)
    assert hashlib.sha256(back.raw).hexdigest() == message.sha256
    back.raw.close()  # type: ignore[union-attr]


async def test_concurrent_storage_of_one_content(store: Store) -> None:
    message = made(1_200_000)
    await asyncio.gather(*(store.contents.keep(message) for _ in range(5)))
    assert (await store.contents.load(message.sha256)).raw == message.raw
    found: list[int] = []
    await store._writer.submit(lambda b: found.append(b.head.kept_bytes))
    assert found == [1_200_000]


@on_sqlite
async def test_absent_or_incomplete_content_raises(store: Store) -> None:
    message = made(10)
    with pytest.raises(ContentMissing):
        await store.contents.load(message.sha256)
    await store._writer.submit(lambda b: contents.reserve(b, message.sha256, 10, 0))
    with pytest.raises(ContentMissing):
        await store.contents.load(message.sha256)
    await store.contents.keep(message)  # the process that began it died; the next one finishes it
    assert (await store.contents.load(message.sha256)).raw == message.raw


@pytest.mark.parametrize("damage", ["UPDATE chunk SET data = {0} WHERE n = 1", "DELETE FROM chunk WHERE n = 1"])
async def test_damaged_content_raises(store: Store, damage: str) -> None:
    message = made(contents.CHUNK_BYTES * 2)
    await store.contents.keep(message)
    zeros = "zeroblob(524288)" if store._database.sqlite else "decode(repeat('00', 524288), 'hex')"
    await store._writer.submit(lambda b: b.connection.exec_driver_sql(damage.format(zeros)))
    with pytest.raises(ContentMissing):
        await store.contents.load(message.sha256)


@on_sqlite
async def test_the_quota_is_full_until_content_is_deleted(url: str, tmp_path: Path, clock: Clock) -> None:
    async with open_store(
        url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True, quota_bytes=1_000_000
    ) as store:
        await store.contents.keep(made(600_000, 1))
        with pytest.raises(Full):
            await store.contents.keep(made(600_000, 2))
        await store.contents.keep(made(600_000, 1))  # needs no more space
        await store.contents.keep(made(400_000, 3))
        clock.pass_(hours=2)
        await store.retain(Retention())
        await store.contents.keep(made(600_000, 2))


async def stored(store: Store) -> int:
    """The number of contents, complete or not."""
    [(n,)] = await store._writer.submit(lambda batch: batch.select("SELECT COUNT(*) FROM content"))
    return int(n)


@on_sqlite
async def test_unreferenced_content_is_deleted_after_an_hour(store: Store, clock: Clock) -> None:
    orphan, wanted, begun = made(10, 1), made(10, 2), made(10, 3)
    await store.contents.keep(orphan)
    await store.contents.keep(wanted)
    await store._writer.submit(lambda b: contents.reserve(b, begun.sha256, 10, 0))
    await store.admit(item("H1"), holds(a_hold("H1", content=wanted)))
    clock.pass_(minutes=59)
    await store.retain(Retention())
    assert await stored(store) == 3
    clock.pass_(minutes=2)
    await store.retain(Retention())
    assert await stored(store) == 1
    await store.contents.load(wanted.sha256)
    with pytest.raises(ContentMissing):
        await store.contents.load(orphan.sha256)


@on_sqlite
async def test_however_much_is_unreferenced_is_deleted(store: Store, clock: Clock) -> None:
    for n in range(contents.SWEPT + 1):
        await store._writer.submit(partial(contents.reserve, sha256=made(10, n).sha256, size=10, quota=0))
    clock.pass_(minutes=61)
    while (await store.retain(Retention())).more:
        pass
    assert await stored(store) == 0


@on_sqlite
async def test_large_contents_are_deleted_a_few_at_a_time(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "DROPPED_BYTES", 25)
    for n in range(3):
        await store.contents.keep(made(10, n))
    await store.contents.keep(made(30))
    clock.pass_(minutes=61)
    left = [await stored(store)]
    while (await store.retain(Retention())).more:
        left.append(await stored(store))
    left.append(await stored(store))
    assert left[-1] == 0
    assert max(before - after for before, after in pairwise(left)) <= 2


@on_sqlite
async def test_storing_again_restarts_the_hour(store: Store, clock: Clock) -> None:
    await store.contents.keep(made(10))
    clock.pass_(minutes=59)
    await store.contents.keep(made(10))
    clock.pass_(minutes=59)
    await store.retain(Retention())
    assert await stored(store) == 1


async def test_content_is_deleted_after_its_settled_holds_retention(store: Store, clock: Clock) -> None:
    hold = await held(store, "H1")
    await store.admit(item("H2"), holds(a_hold("H2")))  # the same content, still waiting
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.REJECTED)))
    clock.pass_(days=31)
    assert (await store.retain(Retention())).contents == 0
    await store.holds.change("H2", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(release("H2"),)))
    await store._writer.submit(sent)
    assert (await store.retain(Retention())).contents == 0  # the outbox needs it
    assert not await store.outbox.lease("me", 1, 60)  # released already, so there is nothing to lease
    await store._writer.submit(finish)
    assert (await store.retain(Retention())).contents == 1
    with pytest.raises(ContentMissing):
        await store.contents.load(hold.content_sha256)
    assert await store.holds.find("H1") is not None
    assert (await store.retain(Retention(content=timedelta(0)))).contents == 0


def sent(batch: Batch) -> None:
    batch.connection.exec_driver_sql("UPDATE hold SET state = 'released' WHERE hold_id = 'H2'")


def finish(batch: Batch) -> None:
    batch.connection.exec_driver_sql("UPDATE outbox SET done = (1 = 1)") if not batch._sqlite else batch.connection.exec_driver_sql("UPDATE outbox SET done = 1")  # fmt: skip


async def some(store: Store, clock: Clock, n: int) -> None:
    for i in range(n):
        await held(store, f"H{i}", at=clock.now())
        clock.pass_(minutes=1)


async def to(store: Store, id: str, state: State) -> None:
    await store.holds.change(id, lambda h: Change(hold=replace(h, state=state)))


async def test_holds_are_listed_newest_first_and_by_state(store: Store, clock: Clock) -> None:
    await some(store, clock, 5)
    await to(store, "H3", State.REJECTED)
    await to(store, "H1", State.APPROVED)
    assert [h.hold_id for h in await store.holds.newest()] == ["H4", "H3", "H2", "H1", "H0"]
    assert [h.hold_id for h in await store.holds.newest(states=[State.WAITING, State.APPROVED])] == [
        "H4",
        "H2",
        "H1",
        "H0",
    ]
    assert [h.hold_id for h in await store.holds.newest(limit=2)] == ["H4", "H3"]
    assert [h.hold_id for h in await store.holds.newest(before=(T0 + timedelta(minutes=2), ""))] == ["H1", "H0"]
    assert await store.holds.count_waiting() == 3


async def test_holds_are_narrowed_by_time_mailing_and_marks(store: Store) -> None:
    async def found(**narrow: Any) -> list[str]:
        return [hold.hold_id async for hold in store.holds.every((State.WAITING,), **narrow)]

    many = frozenset(f"colleague-number-{i}@example.com" for i in range(100))
    await held(store, "H0", senders=many)  # more than its marks have room for
    await held(store, "H1", at=T0 + timedelta(minutes=1), lists=("vip",), mailing_id="MailA")
    await held(store, "H2", at=T0 + timedelta(minutes=2), mailing_id="MailAB")
    assert await found(since=T0 + timedelta(minutes=1)) == ["H2", "H1"]
    assert await found(mailing="MAILA") == ["H2", "H1"]
    assert await found(mailing="MAILAB") == ["H2"]
    assert await found(marks=["list:vip"]) == ["H1", "H0"]
    assert await found(marks=["from:colleague-number-99@example.com"]) == ["H0"]
    assert await found(marks=["list:vip", "from:anna@example.com"]) == ["H1", "H0"]
    assert await found(mailing="M_", marks=["list:v_p"]) == []


async def test_pages_keep_all_holds_of_one_moment(store: Store) -> None:
    for i in range(7):
        await held(store, f"H{i}", at=T0)
    seen: list[str] = []
    page = await store.holds.newest(limit=3)
    while page:
        seen += [h.hold_id for h in page]
        page = await store.holds.newest(limit=3, before=(page[-1].held_at, page[-1].hold_id))
    assert seen == [f"H{i}" for i in reversed(range(7))]


@on_sqlite
async def test_what_is_due_is_found_without_reading_all_holds(store: Store) -> None:
    """It is looked for every few seconds, and the holds of a year are decided."""
    plans = str(await store.ask(partial(sqlite_plans, ask=partial(due, now=T0))))
    assert re.search(r"SCAN hold(?! USING INDEX hold_asked)", plans) is None, plans


async def test_holds_are_due_when_attention_is_needed(store: Store) -> None:
    await held(store, "late", expires_at=T0 + timedelta(hours=2))  # a quarter of its time: half an hour
    await held(store, "soon", expires_at=T0 + timedelta(hours=1))
    await held(store, "told", attend_at=T0 + timedelta(hours=5))  # set by the service
    await held(store, "gone", expires_at=T0 + timedelta(minutes=10))
    await to(store, "gone", State.EXPIRED)
    assert await store.holds.due(T0) == []
    assert [h.hold_id for h in await store.holds.due(T0 + timedelta(minutes=15))] == ["soon"]
    assert [h.hold_id for h in await store.holds.due(T0 + timedelta(minutes=30))] == ["soon", "late"]
    assert [h.hold_id for h in await store.holds.due(T0 + timedelta(hours=5))] == ["soon", "late", "told"]
    await store.holds.change(
        "soon", lambda h: Change(hold=replace(h, attend_at=T0 + timedelta(minutes=59), reminded=1))
    )
    assert [h.hold_id for h in await store.holds.due(T0 + timedelta(minutes=30))] == ["late"]


@on_sqlite
async def test_an_expired_hold_is_due_before_its_next_attention(store: Store) -> None:
    await held(store, "H1", expires_at=T0 + timedelta(hours=1), attend_at=T0 + timedelta(days=9))
    assert [h.hold_id for h in await store.holds.due(T0 + timedelta(hours=1))] == ["H1"]


async def a_retry_is(store: Store, hold_id: str) -> str | None:
    """The id of the hold that a retry of its message gets now; None if it is a new message."""
    seen: list[str | None] = []

    def step(live: Seen) -> Admission:
        seen.append(live.duplicate.hold_id if live.duplicate is not None else None)
        return relays(f"again-{hold_id}")(live)

    await store.admit(item(f"again-{hold_id}-{store.now():%d%H}", of=hold_id), step)
    return seen[0]


async def column(store: Store, name: str, hold_id: str) -> int | None:
    query = select(table.c[name]).where(table.c.hold_id == hold_id)
    found: int | None = await store.ask(lambda c: c.execute(query).scalar())
    return found


async def test_a_retry_within_a_day_of_delivery_gets_the_delivered_hold(store: Store, clock: Clock) -> None:
    """A retry within a day of the delivery gets the delivered hold, however long it waited. The time of its next look
    stays."""
    await held(store, "H1", expires_at=T0 + timedelta(days=9))
    look = await column(store, "attend_at", "H1")
    clock.pass_(days=3)
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(release("H1"),)))
    [lease] = await store.outbox.lease("me", 10, 60)
    assert await store.outbox.settle(
        lease, [AttemptResult(recipient=lease.recipients[0], event=DeliveryEvent.TAKE)], []
    )
    assert await column(store, "over_at", "H1") == microseconds(clock.now())
    assert await column(store, "attend_at", "H1") == look
    clock.pass_(hours=23)
    assert await a_retry_is(store, "H1") == "H1"
    clock.pass_(hours=2)
    assert await a_retry_is(store, "H1") is None


async def test_a_retry_within_a_day_of_its_grant_gets_the_granted_hold(store: Store, clock: Clock) -> None:
    await held(store, "H1", expires_at=T0 + timedelta(days=9), kind="test")
    clock.pass_(days=3)
    await to(store, "H1", State.GRANTED)
    clock.pass_(hours=1)
    assert await a_retry_is(store, "H1") == "H1"
    clock.pass_(days=1)
    assert await a_retry_is(store, "H1") is None
