"""The transaction of an admission: what its step sees, what is written, and that a bad item fails alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, update

from smtpguard.admission.model import Admission, Seen
from smtpguard.database.errors import ContentMissing, Gone, PolicyMoved, Unavailable
from smtpguard.database.schema import hold as hold_table
from smtpguard.holds import rows as holds_rows
from smtpguard.holds.model import Change, Conflict, Hold, State
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.message import Message
from smtpguard.policy.verdict import Action, Verdict
from smtpguard.store.store import Store
from tests.store.making import (
    CONTENT,
    T0,
    Gathered,
    a_freeze,
    a_hold,
    event,
    held,
    hold_of,
    holds,
    item,
    notice,
    on_sqlite,
    relays,
    release,
)


async def kinds(store: Store, id: str) -> list[str]:
    return [entry.kind for entry, _ in await store.journal.history(id)]


@on_sqlite
async def test_a_verdict_is_journalled_when_admit_returns(store: Store) -> None:
    admission = await store.admit(item("T1"), relays("T1"))
    assert admission.verdict.action is Action.RELAY
    [(entry, clear)] = await store.journal.history("T1")
    assert (entry.kind, entry.time, entry.data) == ("verdict", T0, {"action": "relay"})
    assert clear == {"from": ["anna@example.com"]}
    assert "anna" not in entry.body


async def test_concurrent_admissions_make_one_chain(store: Store) -> None:
    await asyncio.gather(*(store.admit(item(f"T{n}"), relays(f"T{n}")) for n in range(300)))
    proof = await store.journal.verify()
    assert (proof.ok, proof.entries) == (True, 301)


@on_sqlite
async def test_another_policy_in_force_raises_policy_moved(store: Store) -> None:
    called: list[object] = []
    with pytest.raises(PolicyMoved):
        await store.admit(item("T1", policy="older"), called.append)  # type: ignore[arg-type]
    assert not called
    assert await store.journal.history("T1") == []


async def test_a_failing_item_does_not_affect_its_batch(store: Store) -> None:
    def raises(live: Seen) -> Admission:
        raise ZeroDivisionError

    def unspeakable(live: Seen) -> Admission:
        good = relays("T3")(live)
        return replace(good, events=(*good.events, Event(kind=Kind.VERDICT, id="T3", at=T0, data={"x": {1, 2}})))

    async with Gathered(store):
        tasks = [
            asyncio.create_task(store.admit(item(id), step))
            for id, step in (("T1", relays("T1")), ("T2", raises), ("T3", unspeakable), ("T4", relays("T4")))
        ]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [Admission, ZeroDivisionError, TypeError, Admission]
    assert await kinds(store, "T3") == []
    assert (await store.journal.verify()).ok


async def test_an_item_that_the_database_refuses_fails_alone(store: Store) -> None:
    """The database refuses a second hold with the same id, and writes the others of the batch."""
    await held(store, "H1")
    async with Gathered(store):
        tasks = [
            asyncio.create_task(store.admit(item(id), step))
            for id, step in (
                ("T1", relays("T1")),
                ("other", holds(a_hold("H1"))),
                ("T2", relays("T2")),
            )
        ]
    first, bad, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(bad, Unavailable)
    assert isinstance(first, Admission)
    assert isinstance(last, Admission)
    assert await kinds(store, "T1") == ["verdict"]
    assert (await store.journal.verify()).ok


@on_sqlite
async def test_content_must_be_stored_before_a_hold(store: Store) -> None:
    with pytest.raises(ContentMissing):
        await store.admit(item("H1"), holds(a_hold("H1")))
    assert await store.holds.find("H1") is None
    assert await kinds(store, "H1") == []


async def test_a_hold_is_read_back_whole_and_acknowledged(store: Store) -> None:
    found = await held(store, "H1", release("H1"))
    assert found == replace(a_hold("H1"), acknowledged=True)
    assert await store.holds.find("H2") is None


async def test_a_retry_in_the_same_batch_gets_the_same_hold(store: Store) -> None:
    await store.contents.keep(CONTENT)
    async with Gathered(store):
        tasks = [
            asyncio.create_task(store.admit(item(id, of="same"), holds(a_hold(id), notice(f"N{id}", id))))
            for id in ("H1", "H2")
        ]
    await asyncio.gather(*tasks)
    assert [h.hold_id for h in await store.holds.newest()] == ["H1"]
    assert [lease.intent.intent_id for lease in await store.outbox.lease("me", 10, 60)] == ["NH1"]


@on_sqlite
@pytest.mark.parametrize("end", [State.VOID, State.REJECTED])
async def test_no_client_gets_a_250_for_a_hold_that_ended_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, end: State
) -> None:
    """A sweep, or a person, may come between the commit and the answer of a retry, a quarter of an hour after the first
    attempt."""
    await store.contents.keep(CONTENT)
    acknowledge = holds_rows.acknowledge

    def late(connection: Connection, *more: Any) -> int:
        connection.execute(update(hold_table).values(state=end.value))
        return acknowledge(connection, *more)

    with monkeypatch.context() as patch:
        patch.setattr(holds_rows, "acknowledge", late)
        with pytest.raises(Unavailable):
            await store.admit(item("H1"), holds(a_hold("H1")))
    await store.admit(item("R1", of="H1"), holds(a_hold("R1")))
    assert [(h.hold_id, h.state, h.acknowledged) for h in await store.holds.newest()] == [("H1", State.WAITING, True)]


async def test_a_retry_adopts_a_void_hold(store: Store) -> None:
    await held(store, "H1")
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.VOID)))
    duplicates: list[State] = []

    def step(live: Seen) -> Admission:
        assert live.duplicate is not None
        duplicates.append(live.duplicate.state)
        return holds(a_hold("H2"))(live)

    async with Gathered(store):
        tasks = [asyncio.create_task(store.admit(item(id, of="H1"), step)) for id in ("R1", "R2")]
    await asyncio.gather(*tasks)
    assert duplicates == [State.VOID, State.WAITING]
    assert [(h.hold_id, h.state, h.acknowledged) for h in await store.holds.newest()] == [("H1", State.WAITING, True)]


@on_sqlite
async def test_a_decided_hold_is_no_duplicate(store: Store) -> None:
    await held(store, "H1")
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.REJECTED)))
    seen: list[object] = []

    def step(live: Seen) -> Admission:
        seen.append(live.duplicate)
        return relays("T1")(live)

    await store.admit(item("T1", of="H1"), step)
    assert seen == [None]


@on_sqlite
async def test_a_disconnected_client_is_not_admitted(store: Store) -> None:
    called: list[Seen] = []
    with pytest.raises(Gone):
        await store.admit(item("T1", gone=lambda: True), called.append)  # type: ignore[arg-type]
    assert not called


async def test_a_hold_whose_client_left_before_its_answer_cannot_be_released(store: Store) -> None:
    await store.contents.keep(CONTENT)
    answers = iter([False, True])  # connected when the batch began, gone when it was committed
    with pytest.raises(Gone):
        await store.admit(item("H1", gone=lambda: next(answers)), holds(a_hold("H1"), notice("N1", "H1")))
    found = await hold_of(store, "H1")
    assert not found.acknowledged
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.APPROVED), intents=(release("H1"),)))
    assert await store.outbox.lease("me", 10, 60) == ()
    await store.admit(item("R1", of="H1"), holds(a_hold("R1")))  # the retry adopts the hold, which is now acknowledged
    assert {lease.intent.intent_id for lease in await store.outbox.lease("me", 10, 60)} == {"H1-release", "N1"}


async def test_an_item_sees_an_earlier_freeze_of_its_batch(store: Store) -> None:
    seen: list[tuple[int, int]] = []

    def step(live: Seen) -> Admission:
        seen.append((len(live.freezes), live.generation))
        return relays("T")(live)

    async with Gathered(store):
        tasks = [
            asyncio.create_task(store.admit(item("T1"), step)),
            asyncio.create_task(store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))),
            asyncio.create_task(store.admit(item("T2"), step)),
            asyncio.create_task(store.gate.thaw("F1", event(Kind.THAW, "F1"))),
            asyncio.create_task(store.admit(item("T3"), step)),
        ]
    await asyncio.gather(*tasks)
    assert seen == [(0, 1), (1, 2), (0, 3)]


async def test_an_item_sees_that_the_same_message_is_in_doubt(store: Store) -> None:
    doubts: list[bool] = []

    def step(live: Seen) -> Admission:
        doubts.append(live.in_doubt)
        return relays("T")(live)

    await store.admit(item("T1", of="same"), step)
    store.journal.note(event(Kind.IN_DOUBT, "T1"))
    await store.admit(item("T2", of="same"), step)
    await store.admit(item("T3"), step)
    assert doubts == [False, True, False]


@on_sqlite
async def test_a_message_without_an_outcome_is_in_doubt(store: Store) -> None:
    """A message without an outcome counts as in doubt: its process may have died right after the final dot."""
    doubts: list[bool] = []

    def step(live: Seen) -> Admission:
        doubts.append(live.in_doubt)
        return relays("T")(live)

    await store.admit(item("T1", of="same"), step)
    await store.admit(item("T2", of="same"), step)
    store.journal.note(event(Kind.OUTCOME, "T1", outcome="recalled"))
    store.journal.note(event(Kind.OUTCOME, "T2", outcome="recalled"))
    await store.admit(item("T3", of="same"), step)
    assert doubts == [False, True, False]


@on_sqlite
async def test_a_count_that_was_not_asked_for_is_refused(store: Store) -> None:
    from smtpguard.policy.counted import Ask

    ask = Ask(fact="sender.customers", key="a", window_seconds=60)
    with pytest.raises(ValueError, match="not asked"):
        await store.admit(item("T1"), relays("T1", counted=(ask,)))


@on_sqlite
async def test_a_change_may_refuse_and_needs_an_existing_hold(store: Store) -> None:
    await held(store, "H1")

    def too_late(hold: Hold) -> Change:
        raise Conflict("too late")

    with pytest.raises(Conflict, match="too late"):
        await store.holds.change("H1", too_late)
    found = await hold_of(store, "H1")
    assert found.state is State.WAITING
    with pytest.raises(KeyError):
        await store.holds.change("H9", lambda h: Change())


@on_sqlite
async def test_a_change_cannot_set_the_acknowledgement(store: Store) -> None:
    await held(store, "H1")
    await store.holds.change("H1", lambda h: Change(hold=replace(h, acknowledged=False, reminded=2)))
    found = await hold_of(store, "H1")
    assert (found.acknowledged, found.reminded) == (True, 2)


async def test_concurrent_approvals_make_one_release(store: Store) -> None:
    await held(store, "H1")

    def step(hold):  # type: ignore[no-untyped-def]
        if hold.state is not State.WAITING:
            raise Conflict("decided")
        return Change(hold=replace(hold, state=State.APPROVED), intents=(release("H1"),))

    made = await asyncio.gather(*(store.holds.change("H1", step) for _ in range(20)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in made) == ["Change", *["Conflict"] * 19]
    assert len(await store.outbox.lease("me", 10, 60)) == 1


async def test_a_verdict_with_unusual_characters_is_written(store: Store) -> None:
    odd = "nul \x00, lone \ud800, line\r\n, å"
    step = lambda live: Admission(  # noqa: E731
        verdict=Verdict(action=Action.RELAY),
        events=(Event(kind=Kind.VERDICT, id="T1", at=T0, data={"x": odd}, private={"subject": (odd,)}),),
    )
    await store.admit(item("T1"), step)
    [(entry, clear)] = await store.journal.history("T1")
    assert entry.data["x"] == odd
    assert clear == {"subject": [odd]}
    assert (await store.journal.verify()).ok


async def test_an_adopted_hold_without_its_content_is_refused(store: Store) -> None:
    other = Message.of(b"\r\nother")
    await store.contents.keep(other)
    await store.admit(item("H1"), holds(a_hold("H1", content=other)))
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.VOID)))
    from smtpguard.holds import contents

    await store._writer.submit(lambda b: contents.drop(b, [other.sha256]))
    with pytest.raises(ContentMissing):
        await store.admit(item("R1", of="H1"), holds(a_hold("R1")))
