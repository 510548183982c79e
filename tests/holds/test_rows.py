"""Queries for holds: newest first, by page, by state, and those due for attention."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import select

from smtpguard.admission.model import Admission, Seen
from smtpguard.database.schema import hold as table
from smtpguard.holds.model import Change, State
from smtpguard.journal.chain import microseconds
from smtpguard.outbox.model import AttemptResult, Delivered
from smtpguard.store.store import Store
from tests.store.making import T0, Clock, held, item, relays, release


async def some(store: Store, clock: Clock, n: int) -> None:
    for i in range(n):
        await held(store, f"H{i}", at=clock.now())
        clock.go(minutes=1)


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
    assert [h.hold_id for h in await store.holds.newest(before=T0 + timedelta(minutes=2))] == ["H1", "H0"]
    counts = await store.holds.counts()
    assert (counts[State.WAITING], counts[State.REJECTED], counts[State.VOID]) == (3, 1, 0)


async def test_pages_keep_all_holds_of_one_moment(store: Store) -> None:
    for i in range(7):
        await held(store, f"H{i}", at=T0)
    seen: list[str] = []
    page = await store.holds.newest(limit=3)
    while page:
        seen += [h.hold_id for h in page]
        page = await store.holds.newest(limit=3, before=page[-1].held_at, after_id=page[-1].hold_id)
    assert seen == [f"H{i}" for i in reversed(range(7))]


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
    clock.go(days=3)
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(release("H1"),)))
    [lease] = await store.outbox.lease("me", 10, 60)
    assert await store.outbox.settle(
        lease, [AttemptResult(recipient=lease.recipients[0], delivered=Delivered.SENT)], []
    )
    assert await column(store, "over_at", "H1") == microseconds(clock.now())
    assert await column(store, "attend_at", "H1") == look
    clock.go(hours=23)
    assert await a_retry_is(store, "H1") == "H1"
    clock.go(hours=2)
    assert await a_retry_is(store, "H1") is None


async def test_a_retry_within_a_day_of_its_grant_gets_the_granted_hold(store: Store, clock: Clock) -> None:
    await held(store, "H1", expires_at=T0 + timedelta(days=9), kind="test")
    clock.go(days=3)
    await to(store, "H1", State.GRANTED)
    clock.go(hours=1)
    assert await a_retry_is(store, "H1") == "H1"
    clock.go(days=1)
    assert await a_retry_is(store, "H1") is None
