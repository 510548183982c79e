"""The outbox: leased to one process, fenced by tokens, recipient by recipient; nothing frozen or undecided is leased."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from smtpguard.holds.model import Change, Hold, State, held_up_by
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Kind
from smtpguard.outbox import rows
from smtpguard.outbox.model import AttemptResult, Intent, Lease
from smtpguard.policy.freezing import Freeze, Selector
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.making import (
    T0,
    a_freeze,
    approved,
    event,
    held,
    notice,
    on_sqlite,
    recipient,
    release,
    state,
)


def ids(leases: object) -> list[str]:
    return [lease.intent.intent_id for lease in leases]  # type: ignore[attr-defined]


def sent(address: str) -> AttemptResult:
    return AttemptResult(recipient=recipient(address), event=DeliveryEvent.TAKE, reply="250 Ok")


@on_sqlite
async def test_a_release_is_leased_only_after_approval(store: Store) -> None:
    await held(store, "H1", release("H1"))
    assert await store.outbox.lease("me", 10, 60) == ()
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.APPROVED)))
    [lease] = await store.outbox.lease("me", 10, 60)
    assert lease == Lease(
        token=1,
        intent=release("H1"),
        recipients=(recipient("c@list.example"),),
        attempts=0,
        created_at=T0,
        doubts=(0,),
    )


@pytest.mark.parametrize("ended", [State.REJECTED, State.VOID])
async def test_a_release_of_a_rejected_or_ended_hold_is_never_leased(store: Store, ended: State) -> None:
    await approved(store, "H1")
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=ended)))
    assert await store.outbox.lease("me", 10, 60) == ()


@on_sqlite
async def test_notices_are_leased_at_once_but_not_of_a_void_hold(store: Store) -> None:
    await held(store, "H1", notice("N1", "H1"))
    await store.journal.record([], [notice("N2")])
    assert ids(await store.outbox.lease("me", 10, 60)) == ["N1", "N2"]
    await held(store, "H2", notice("N3", "H2"))
    await store.holds.change("H2", lambda h: Change(hold=replace(h, state=State.VOID)))
    assert await store.outbox.lease("me", 10, 60) == ()


@on_sqlite
async def test_an_intent_is_stored_once(store: Store) -> None:
    await asyncio.gather(*(store.journal.record([event(Kind.NOTICE, f"D{n}")], [notice("digest")]) for n in range(5)))
    [lease] = await store.outbox.lease("me", 10, 60)
    assert await store.outbox.settle(lease, [sent("anna@example.com")], [])
    await store.journal.record([], [notice("digest")])
    assert await store.outbox.lease("me", 10, 60) == ()


async def test_a_lease_has_one_owner(store: Store) -> None:
    for n in range(5):
        await approved(store, f"H{n}")
    first, second = await asyncio.gather(store.outbox.lease("a", 3, 60), store.outbox.lease("b", 3, 60))
    assert sorted([len(first), len(second)]) == [2, 3]
    assert len({*ids(first), *ids(second)}) == 5


async def test_an_expired_lease_returns_in_doubt_and_fences_the_old_owner(store: Store, clock: Clock) -> None:
    await approved(store, "H1")
    [old] = await store.outbox.lease("a", 10, 60)
    clock.pass_(seconds=59)
    assert await store.outbox.lease("b", 10, 60) == ()
    clock.pass_(seconds=1)
    [new] = await store.outbox.lease("b", 10, 60)
    assert (new.token, new.attempts) == (2, 1)
    entries = len(await store.journal.entries())
    late = await store.outbox.settle(old, [sent("c@list.example")], [event(Kind.RELEASED, "H1")], [notice("N1")])
    assert not late
    assert len(await store.journal.entries()) == entries
    assert await state(store, "H1") is State.APPROVED
    assert await store.outbox.settle(new, [sent("c@list.example")], [event(Kind.RELEASED, "H1")], [notice("N2")])
    assert await state(store, "H1") is State.RELEASED
    assert not await store.outbox.settle(new, [], [])
    assert ids(await store.outbox.lease("b", 10, 60)) == ["N2"]


@on_sqlite
async def test_a_late_owner_may_settle_without_another_lease(store: Store, clock: Clock) -> None:
    await approved(store, "H1")
    [lease] = await store.outbox.lease("a", 10, 60)
    clock.pass_(hours=1)
    assert await store.outbox.settle(lease, [sent("c@list.example")], [])


async def test_an_outcome_for_another_recipient_is_refused(store: Store) -> None:
    await approved(store, "H1")
    [lease] = await store.outbox.lease("me", 10, 60)
    with pytest.raises(ValueError, match="not leased"):
        await store.outbox.settle(lease, [sent("stranger@x.example")], [event(Kind.RELEASED, "H1")])
    assert [e.kind for e, _ in await store.journal.history("H1")] == ["verdict"]


async def test_frozen_releases_are_skipped(store: Store, clock: Clock) -> None:
    for n in range(3):
        await approved(store, f"H{n}", lists=("ramadan-greetings",))
    await approved(store, "H3", lists=("newsletter",))
    await store.journal.record([], [notice("N1")])
    freeze = a_freeze("F1", Selector.LIST, "ramadan-greetings", until=T0 + timedelta(hours=1))
    await store.gate.freeze(freeze, event(Kind.FREEZE, "F1"))
    assert ids(await store.outbox.lease("me", 10, 60)) == ["H3-release", "N1"]
    clock.pass_(hours=1)
    await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    assert len(await store.outbox.lease("me", 2, 60)) == 2
    await store.gate.freeze(a_freeze("F2"), event(Kind.FREEZE, "F2"))
    assert ids(await store.outbox.lease("me", 10, 60)) == ["N1"], "a freeze of all stops no notices"


async def test_many_frozen_entries_do_not_hide_another(store: Store, clock: Clock) -> None:
    def stopped(n: int) -> Intent:
        return release("H1", id=f"I{n:03d}")

    await held(store, "H1")
    await store.holds.change(
        "H1", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=tuple(map(stopped, range(250))))
    )
    clock.pass_(seconds=1)
    await approved(store, "H2", lists=("newsletter",))
    await store.gate.freeze(a_freeze("F1", Selector.LIST, "ramadan-greetings"), event(Kind.FREEZE, "F1"))
    assert ids(await store.outbox.lease("me", 5, 60)) == ["H2-release"]


async def test_frozen_entries_are_not_looked_at_twice_a_second(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look has the store to itself, and thousands may wait."""
    looked: list[str] = []

    def counted(hold: Hold, freezes: Iterable[Freeze]) -> tuple[Freeze, ...]:
        looked.append(hold.hold_id)
        return held_up_by(hold, freezes)

    monkeypatch.setattr(rows, "held_up_by", counted)
    for n in range(3):
        await approved(store, f"H{n}")
    await store.gate.freeze(a_freeze("F1", Selector.LIST, "ramadan-greetings"), event(Kind.FREEZE, "F1"))
    for _ in range(3):
        assert not await store.outbox.lease("me", 10, 60)
        clock.pass_(seconds=1)
    assert len(looked) == 3
    await approved(store, "H3", lists=("newsletter",))
    await approved(store, "H4")
    assert ids(await store.outbox.lease("me", 10, 60)) == ["H3-release"]
    assert sorted(looked) == ["H0", "H1", "H2", "H3", "H4"]
    clock.pass_(seconds=15)
    assert not await store.outbox.lease("me", 10, 60)
    assert len(looked) == 9, "after a while again: a hold may have changed"
    await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    assert len(await store.outbox.lease("me", 10, 60)) == 4


@on_sqlite
async def test_an_entry_is_not_leased_before_its_time(store: Store, clock: Clock) -> None:
    await store.journal.record([], [replace(notice("N1"), not_before=T0 + timedelta(hours=8))])
    assert await store.outbox.lease("me", 10, 60) == ()
    clock.pass_(hours=8)
    assert ids(await store.outbox.lease("me", 10, 60)) == ["N1"]


@on_sqlite
async def test_a_lease_of_a_clock_that_was_ahead_ends(store: Store, clock: Clock) -> None:
    """Its worker lost the store."""
    await approved(store, "H1")
    clock.at += timedelta(days=800)
    assert await store.outbox.lease("me", 10, 60)
    clock.at -= timedelta(days=800)
    await store.outbox.hasten()
    assert await store.outbox.lease("me", 10, 60) == ()
    clock.pass_(minutes=30)
    assert await store.outbox.lease("me", 10, 60)
