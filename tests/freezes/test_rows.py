"""The gate's generation grows with each freeze, thaw and policy, for all processes; and the transactions in flight."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from smtpguard.admission.model import Admission, Seen
from smtpguard.database.errors import PolicyMoved, Unavailable
from smtpguard.journal.event import Kind
from smtpguard.lists.persons import Person
from smtpguard.policy.freezing import Gate, Selector
from smtpguard.reading.fingerprint import Identity
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import POLICY, SECRET, T0, a_freeze, event, item, on_sqlite, relays


async def test_freeze_and_thaw_increment_the_generation(store: Store) -> None:
    assert await store.gate.read() == Gate(generation=1, policy_sha256=POLICY)
    frozen = await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    assert frozen == Gate(generation=2, policy_sha256=POLICY, freezes=(a_freeze(),))
    assert await store.gate.read() == frozen
    thawed = await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    assert thawed == Gate(generation=3, policy_sha256=POLICY)
    assert await store.gate.read() == thawed
    assert [e.kind for e, _ in await store.journal.history("F1")] == ["freeze", "thaw"]


@on_sqlite
async def test_only_an_existing_freeze_is_lifted(store: Store) -> None:
    with pytest.raises(KeyError):
        await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    with pytest.raises(KeyError):
        await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    assert len(await store.journal.history("F1")) == 2


@on_sqlite
async def test_a_repeated_freeze_is_refused_without_an_entry(store: Store) -> None:
    await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    with pytest.raises(Unavailable):
        await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    assert len(await store.journal.history("F1")) == 1


async def test_a_policy_is_stored_with_its_documents(store: Store) -> None:
    documents = {"policy.yaml": b"version: 1\n", "vocabularies/pork.yaml": b"\x00\xff"}
    gate = await store.policies.put("two", documents, event(Kind.POLICY, "two"))
    assert (gate.policy_sha256, gate.generation) == ("two", 2)
    assert await store.policies.documents("two") == documents
    assert await store.policies.documents(POLICY) == {"policy.yaml": b"version: 1\n"}
    assert await store.policies.documents("three") == {}
    with pytest.raises(PolicyMoved):
        await store.admit(item("T1"), relays("T1"))
    await store.policies.put(POLICY, {"policy.yaml": b"version: 1\n"}, event(Kind.POLICY, POLICY))  # and back
    await store.admit(item("T1"), relays("T1"))


@on_sqlite
async def test_a_policy_replaces_only_the_one_it_was_compared_with(store: Store) -> None:
    """Of two policies that were compared with the same one in force, the second is refused."""
    await store.policies.put("two", {"policy.yaml": b"2"}, event(Kind.POLICY, "two"), before=POLICY)
    with pytest.raises(PolicyMoved):
        await store.policies.put("three", {"policy.yaml": b"3"}, event(Kind.POLICY, "three"), before=POLICY)
    assert (await store.gate.read()).policy_sha256 == "two"
    assert await store.policies.documents("three") == {}
    [last, *_] = await store.policies.history()
    assert (last.seq, last.at) == ((await store.journal.last()), (await store.policies.current()).put.at)  # type: ignore[union-attr]


async def test_another_process_sees_the_new_generation_at_once(
    store: Store, url: str, tmp_path: Path, clock: Clock
) -> None:
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock) as other:
        await other.admit(item("T1"), relays("T1"))
        await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))

        def relay(live: Seen) -> Admission:
            assert live.generation == 2
            return relays("T2")(live)

        await other.admit(item("T2"), relay)
        assert (await other.gate.read()).freezes == (a_freeze(),)
        await other.policies.put("two", {}, event(Kind.POLICY, "two"))
        with pytest.raises(PolicyMoved):
            await store.admit(item("T3"), relays("T3"))
    assert (await store.journal.verify()).ok


async def test_transactions_in_flight_that_a_freeze_selects(store: Store, clock: Clock) -> None:
    t1 = item(
        "T1",
        touches=frozenset({"ramadan"}),
        senders=frozenset({"anna@example.com"}),
        identity=Identity(exact="id m1"),
        everybody=(Person(digest=b"customer", customer=True),),
    )
    t2 = item("T2", senders=frozenset({"bo@example.com"}), thread="t2")
    await store.admit(item("T0"), relays("T0"))
    clock.pass_(minutes=10)
    for one in (t1, t2, item("T3")):
        await store.admit(one, relays(one.id))
    store.journal.note(event(Kind.OUTCOME, "T3", outcome="relayed"))
    await store.journal.record([event(Kind.START, "here")])
    [mailing] = await store.mailings.newest(least=1)
    selected: list[tuple[Selector, str, set[str]]] = [
        (Selector.ALL, "", {"T1", "T2"}),
        (Selector.LIST, "ramadan", {"T1"}),
        (Selector.SENDER, "bo@example.com", {"T2"}),
        (Selector.MAILING, "the mailing of T1", {"T1"}),
        (Selector.THREAD, "t2", {"T2"}),
        (Selector.LIST, "other", set()),
    ]
    for selector, value, stopped in selected:
        freeze = a_freeze("F1", selector, mailing.mailing_id if selector is Selector.MAILING else value)
        assert set(await store.journal.in_flight(freeze, T0 + timedelta(minutes=5))) == stopped, selector
