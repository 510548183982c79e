"""Past recipients of senders are read from the journal once, as far as names are kept and the counts reach."""

from __future__ import annotations

from datetime import timedelta

import pytest

from smtpguard.counts.backfill import known_since, recall
from smtpguard.counts.contacts import PastMessage
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Event, Kind
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.counts.test_contacts import DAY, to
from tests.counts.test_counting import count
from tests.store.making import T0, event, on_sqlite

BO = DAY._replace(key="bo@example.com")


def read(entry: Entry, clear: Clear) -> PastMessage | None:
    people, message_id = [p.encode() for p in entry.data.get("to", ())], entry.data.get("mid", "")
    return PastMessage(senders=clear["from"], people=people, at_us=entry.at, message_id=message_id)


async def wrote(store: Store, clock: Clock, id: str, *people: str, action: str = "relay", **more: str) -> None:
    await store.journal.record([event(Kind.VERDICT, id, at=clock.now(), action=action, to=list(people), **more)])


async def new(store: Store, *people: str) -> int:
    """How many of these are first contacts of Anna."""
    return (await count(store, to(f"N{'-'.join(people)}", *people), counted=False))[DAY]


@on_sqlite
async def test_past_recipients_are_read_from_the_journal(store: Store, clock: Clock) -> None:
    await wrote(store, clock, "T1", "old")
    clock.pass_(days=2)
    await wrote(store, clock, "T2", "a", "b", mid="<two@example.com>")
    await wrote(store, clock, "T3", "held", action="hold")
    await wrote(store, clock, "T4", "rejected", action="reject")
    await wrote(store, clock, "T5", "approved", action="hold")
    await store.journal.record([Event(kind=Kind.APPROVED, id="T5", at=clock.now(), data={})])
    clock.pass_(days=89)
    assert await known_since(store) is None
    assert await recall(store, read) == 3
    assert await new(store, "a", "b", "approved") == 0
    assert await new(store, "old", "held", "rejected") == 3
    answer = to("A1", "a", sender=("bo@example.com",), asks=(BO,), refers_to=("two@example.com",))
    assert await count(store, answer, counted=False) == {BO: 0}
    clock.pass_(days=2)
    assert await new(store, "a", "b", "approved") == 3, "it was 91 days ago"
    assert await known_since(store) == T0 + timedelta(days=1), "90 days back"


@on_sqlite
async def test_it_runs_once_and_keeps_the_latest_time(store: Store, clock: Clock) -> None:
    await wrote(store, clock, "T1", "a")
    clock.pass_(days=60)
    await count(store, to("T2", "a"))
    assert await recall(store, read) == 2
    assert await recall(store, read) == 0
    clock.pass_(days=60)
    assert await new(store, "a") == 0, "the last letter is 60 days ago"


async def test_a_new_store_begins_now(store: Store, clock: Clock) -> None:
    assert await recall(store, read) == 0
    assert await known_since(store) == clock.now()


async def test_erased_names_and_excess_entries_are_skipped(store: Store, clock: Clock) -> None:
    for n in range(20):
        await wrote(store, clock, f"T{n}", f"p{n}")
        clock.pass_(days=1)
    await store.retain(Retention(addresses=timedelta(days=9, hours=1)))
    assert await recall(store, read) == 9
    assert await known_since(store) == T0 + timedelta(days=11)
    assert await new(store, "p10", "p11", "p19") == 1


@on_sqlite
async def test_a_letter_whose_only_recipient_was_erased_is_no_contact(store: Store, clock: Clock) -> None:
    await wrote(store, clock, "T1", mid="<one@example.com>")
    await wrote(store, clock, "T2", "a", mid="<two@example.com>")
    assert await recall(store, read) == 2
    assert await new(store, "a", "b") == 1


@on_sqlite
async def test_the_number_of_entries_read_is_bounded(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "STRETCH", 3)
    for n in range(20):
        await wrote(store, clock, f"T{n}", f"p{n}")
        clock.pass_(days=1)
    assert await recall(store, read, most=5) == 6
    assert await new(store, "p19", "p14", "p13") == 1
    assert await known_since(store) == T0 + timedelta(days=14)


async def test_after_a_renewed_secret_it_runs_again(store: Store, clock: Clock) -> None:
    await wrote(store, clock, "T1", "a")
    await recall(store, read)
    await store.renew(event(Kind.POLICY, "R1", at=clock.now()))
    assert await known_since(store) is None
    assert await recall(store, read) == 1
