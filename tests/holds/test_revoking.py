"""Revoking approvals: decided by the order of transactions alone, on both engines."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from smtpguard.database.schema import delivery, hold, outbox
from smtpguard.holds.model import HOLD, LET_GO, Change, Conflict, Hold, Move, State
from smtpguard.holds.sending import UNSENT, Outgoing, ReleaseProgress, Sending, state_after_revocation
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Kind
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import AttemptResult, Lease, Settled
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.making import T0, Gathered, approved, event, held, hold_of, on_sqlite, release, state

TO = ("a@x.example", "b@x.example", "c@x.example")
OVER = {Move.REJECT: State.REJECTED, Move.WITHDRAW: State.WITHDRAWN, Move.REOPEN: State.WAITING}


async def revoke(
    store: Store, id: str, move: Move = Move.REJECT, seen: list[Any] | None = None
) -> tuple[list[Change], Outgoing]:
    """Revoke as the service does. ``seen``: collects the step's arguments."""

    def step(hold: Hold, sending: Sending, outgoing: Outgoing, leads: bool) -> Change:
        if seen is not None:
            seen.append((hold.hold_id, sending, outgoing, leads))
        to = state_after_revocation(hold.state, move, sending)
        if to is None and hold.state is State.WAITING:
            to = OVER[move]
        if to is None:
            raise Conflict("no")
        stopped = to in LET_GO
        settled = sending.stopped if stopped else None
        by = move.value if stopped else ""
        made = replace(hold, state=to, settled=settled, stopped_by=by)
        return Change(hold=made, events=(event(Kind.REJECTED, hold.hold_id),))

    return await store.holds.take_back(id, step)


async def entries(store: Store, id: str) -> tuple[int, int]:
    """The number of its releases in the outbox, and of their recipients."""

    def count(connection: Any) -> tuple[int, int]:
        entry = select(outbox.c.intent_id).where(outbox.c.hold_id == id, outbox.c.kind == "release")
        people = select(func.count()).select_from(delivery).where(delivery.c.intent_id.in_(entry))
        return len(connection.execute(entry).all()), connection.execute(people).scalar_one()

    return await store.ask(count)


def outcomes(lease: Lease, *what: str, again: timedelta = timedelta(minutes=1)) -> list[AttemptResult]:
    said = {
        "sent": DeliveryEvent.TAKE,
        "failed": DeliveryEvent.REFUSE,
        "retry": DeliveryEvent.PUT_OFF,
        "doubt": DeliveryEvent.BEGIN,
    }
    return [
        AttemptResult(
            recipient=r, event=said[word], doubts=int(word == "doubt"),
            next_at=T0 + again if word in ("retry", "doubt") else None,
        )
        for r, word in zip(lease.recipients, what, strict=True)
    ]  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("first", ["lease", "back"])
async def test_revocation_and_lease_in_one_batch_in_both_orders(store: Store, first: str) -> None:
    await approved(store, "H1", *TO)
    async with Gathered(store):
        tasks: dict[str, Any] = {}
        for name in (first, "back" if first == "lease" else "lease"):
            if name == "lease":  # the transaction itself, without the check outside the writer whether anything is due
                work: Any = store.write(lambda batch: outboxes.lease(batch, "me", 10, 60, outboxes.StoppedEntries()))
            else:
                work = revoke(store, "H1")
            tasks[name] = asyncio.create_task(work)
            await asyncio.sleep(0)
    leases, _ = await tasks["lease"], await tasks["back"]
    assert len(leases) == int(first == "lease")
    for lease in leases:
        assert not await store.outbox.settle(lease, outcomes(lease, "doubt", "doubt", "doubt"), [])


# The relay's answers after a revocation during the attempt (none: no answer in time); then state and outcomes.
LATE = [
    (("retry", "doubt", "failed"), State.IN_DOUBT, Settled(failed=2, doubted=1)),
    ((), State.IN_DOUBT, Settled(doubted=3)),
]


@pytest.mark.parametrize(("said", "becomes", "settled"), LATE)
async def test_during_an_attempt_only_its_answer_is_awaited(
    store: Store, clock: Clock, said: tuple[str, ...], becomes: State, settled: Settled
) -> None:
    await approved(store, "H1", *TO)
    [lease] = await store.outbox.lease("me", 10, 60)
    await store.outbox.settle(lease, outcomes(lease, "doubt", "doubt", "doubt", again=timedelta(minutes=30)), [])
    await revoke(store, "H1")
    assert (await state(store, "H1"), await entries(store, "H1")) == (State.IN_DOUBT, (1, 3))
    with pytest.raises(Conflict):  # revoked already
        await revoke(store, "H1")
    clock.pass_(minutes=1)
    assert await store.outbox.lease("me", 10, 60) == ()
    if said:
        assert await store.outbox.settle(lease, outcomes(lease, *said), [])
    else:
        assert await store.outbox.to_ask() == []
        clock.pass_(minutes=30)
        assert await store.outbox.to_ask() == ["H1"]
        await store.outbox.ask_about("H1", lambda hold, _: Change(), lambda hold, _: ((), ()))
    held = await hold_of(store, "H1")
    assert (held.state, held.settled, held.asked_at) == (becomes, settled, None)
    clock.pass_(days=1)
    assert await store.outbox.lease("me", 10, 60) == ()
    assert await store.outbox.to_ask() == []


@on_sqlite
async def test_an_unknown_hold_raises(store: Store) -> None:
    with pytest.raises(KeyError):
        await revoke(store, "H1")
    assert await store.holds.outgoing("H1") == Outgoing()


# -- copies


async def mailing(store: Store, *states: State, to: tuple[str, ...] = ("a@x.example",)) -> None:
    """An approved primary hold H0, with a copy in each of these states."""
    await approved(store, "H0", *to, at=T0)
    for n, wanted in enumerate(states, 1):
        id, at = f"H{n}", T0 + timedelta(seconds=n)
        await held(store, id, primary="H0", at=at, lists=("copies",))
        if wanted is not State.WAITING:
            made = release(id, f"{n}@x.example")
            await store.holds.change(
                id,
                lambda h, made=made: Change(  # type: ignore[misc]
                    hold=replace(h, state=State.APPROVED), intents=(made,)
                ),
            )


async def follow_primary(store: Store, lead: str) -> int:
    """Let the copies follow the primary hold, as the service does; their number."""

    def step(lead: Hold, copy: Hold, _: object, new: int, sending: Sending, covered: bool) -> Change | None:
        to = lead.state if copy.state is State.WAITING else State.WAITING
        if lead.state in (State.REJECTED, State.WITHDRAWN) and sending != UNSENT:
            to = lead.state
        if sending.out is ReleaseProgress.DOUBT:
            return Change(hold=replace(copy, state=State.IN_DOUBT, stopped_by="reject", settled=sending.stopped))
        return Change(hold=replace(copy, state=to))

    return await store.holds.follow(lead, 100, step)


@on_sqlite
async def test_revoking_the_primary_hold_stops_all_copies(store: Store) -> None:
    """No copy is sent after the first commit, even if the process dies before the others follow."""
    await mailing(store, State.APPROVED, State.WAITING, State.APPROVED)
    seen: list[Any] = []
    _, outgoing = await revoke(store, "H0", seen=seen)
    assert [s[0] for s in seen] == ["H0"]
    assert outgoing == Outgoing(own=seen[0][1], back=4)
    assert await store.outbox.lease("me", 10, 60) == (), "before the copies follow"
    assert await store.holds.leads_to_follow() == ["H0"]
    assert await follow_primary(store, "H0") == 3
    assert {await state(store, f"H{n}") for n in range(4)} == {State.REJECTED}
    assert [await entries(store, f"H{n}") for n in range(4)] == [(0, 0)] * 4
    assert await store.holds.leads_to_follow() == []


@on_sqlite
async def test_if_the_primary_was_sent_the_oldest_unsent_copy_replaces_it(store: Store) -> None:
    await mailing(store, State.APPROVED, State.APPROVED, State.WAITING, State.APPROVED)
    leases = {lease.intent.hold_id: lease for lease in await store.outbox.lease("me", 2, 60)}
    assert set(leases) == {"H0", "H1"}
    await store.outbox.settle(leases["H0"], outcomes(leases["H0"], "sent"), [])
    assert await store.holds.outgoing("H0") == Outgoing(
        own=(await store.holds.outgoing("H0")).own, back=4, going=1, gone=1
    )
    seen: list[Any] = []
    changes, _ = await revoke(store, "H0", seen=seen)
    assert [(s[0], s[3]) for s in seen] == [("H1", True)]
    successor = await hold_of(store, "H1")
    assert (successor.state, successor.primary, successor.lists, successor.copies) == (
        State.REJECTED,
        "",
        ("ramadan-greetings",),
        3,
    )
    assert changes[0].hold is not None
    assert await state(store, "H0") is State.RELEASED
    await follow_primary(store, "H1")
    assert [await state(store, f"H{n}") for n in (2, 3, 4)] == [State.REJECTED] * 3


@pytest.mark.parametrize("lead", ["sent", "doubt"])
async def test_copies_in_doubt_are_not_retried_after_a_revocation(store: Store, clock: Clock, lead: str) -> None:
    """Copies in doubt are not retried after the revocation. The primary hold, or if it was sent the oldest copy,
    represents the others."""
    await mailing(store, State.APPROVED, State.APPROVED, State.APPROVED)
    leases = {lease.intent.hold_id: lease for lease in await store.outbox.lease("me", 10, 60)}
    for lease in leases.values():
        await store.outbox.settle(lease, outcomes(lease, "doubt", again=timedelta(minutes=30)), [])
    if lead == "sent":
        await store.outbox.settle(leases["H0"], outcomes(leases["H0"], "sent"), [])
    clock.pass_(minutes=31)
    out = await store.holds.outgoing("H0")
    assert (out.back, out.doubt, out.gone) == (0, 3 + (lead == "doubt"), int(lead == "sent"))
    await revoke(store, "H0")
    assert await store.outbox.lease("me", 10, 60) == (), "before the other copies follow"
    leading = "H1" if lead == "sent" else "H0"
    assert await store.holds.leads_to_follow() == [leading]
    assert await follow_primary(store, leading) == 4 - int(leading[1]) - 1
    assert [await state(store, f"H{n}") for n in (1, 2, 3)] == [State.IN_DOUBT] * 3
    assert await store.holds.leads_to_follow() == []
    clock.pass_(days=1)
    assert await store.outbox.lease("me", 10, 60) == ()


async def test_a_partly_sent_primary_fails_and_a_copy_replaces_it(store: Store) -> None:
    """If the primary hold is partly sent, its other recipients never get it, and the oldest copy represents the others."""
    await mailing(store, State.APPROVED, State.APPROVED, to=("a@x.example", "b@x.example"))
    leases = {lease.intent.hold_id: lease for lease in await store.outbox.lease("me", 10, 60)}
    for id in ("H1", "H2"):
        await store.outbox.settle(leases[id], outcomes(leases[id], "retry"), [])
    await store.outbox.settle(leases["H0"], outcomes(leases["H0"], "sent", "retry"), [])
    seen: list[Any] = []
    changes, _ = await revoke(store, "H0", seen=seen)
    assert [(s[0], s[3]) for s in seen] == [("H0", True), ("H1", False)]
    assert [c.hold.state for c in changes if c.hold is not None] == [State.RELEASED, State.REJECTED]
    successor = await hold_of(store, "H1")
    assert (successor.lists, successor.copies, await state(store, "H2")) == (("ramadan-greetings",), 1, State.APPROVED)
    await follow_primary(store, "H1")
    assert await state(store, "H2") is State.REJECTED


async def test_what_an_earlier_version_stopped_is_read_as_rejected(store: Store) -> None:
    """Its document says that it was stopped, and not by what; a migration wrote that into the column."""
    await approved(store, "H1", *TO)
    await revoke(store, "H1")
    stopped = replace(await hold_of(store, "H1"), state=State.IN_DOUBT, stopped_by="reject")
    doc = HOLD.dumps(stopped).replace('"stopped_by":"reject"', '"stopped":true')
    values = {"state": "in-doubt", "stopped": "reject", "doc": doc}
    await store.write(lambda batch: batch.connection.execute(update(hold).values(**values)))
    assert await hold_of(store, "H1") == stopped
