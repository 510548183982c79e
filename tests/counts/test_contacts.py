"""First contacts of a sender: counted exactly, only from mail that passed, and forgotten after ninety days."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.counts import sweeping
from smtpguard.holds.model import Change, State
from smtpguard.lists.persons import Person
from smtpguard.policy.counted import Ask
from smtpguard.policy.facts import Usual
from smtpguard.reading.fingerprint import Identity
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.counts.test_counting import count
from tests.store.making import CONTENT, Gathered, a_hold, holds, item, on_sqlite

ANNA = "anna@example.com"
DAY = Ask(fact="sender.first_contacts", key=ANNA, window_seconds=86_400)
NEWS = Ask(fact="sender.list_contacts", key=f"news\0{ANNA}", window_seconds=86_400)
OF_NEWS = Ask(fact="list.first_contacts", key="news\0", window_seconds=86_400)
SAME = DAY._replace(same=True)
ANSWERS = Ask(fact="sender.answers", key=ANNA, window_seconds=86_400)
ANSWERED = Ask(fact="message.answers", key="", window_seconds=86_400)


def to(id: str, *people: str, asks: tuple[Ask, ...] = (DAY,), on: str = "", sender: tuple[str, ...] = (ANNA,), quotes: str = "", **more: Any) -> Item:  # fmt: skip
    """``on``: the people on the list; ``quotes``: the people whom it quotes."""
    return item(
        id, asks=asks, people=tuple(p.encode() for p in people), sent_by=sender, letter_from=sender,
        everybody=tuple(Person(digest=p.encode(), customer=True, lists=("news",) if p in on else ()) for p in people),
        quoted=frozenset(p.encode() for p in quotes), **more,
    )  # fmt: skip


@on_sqlite
async def test_a_recipient_is_new_once_in_ninety_days(store: Store, clock: Clock) -> None:
    assert await count(store, to("T1", "a", "b")) == {DAY: 2}
    assert await count(store, to("T2", "b", "c")) == {DAY: 3}
    assert await count(store, to("T3", "a", "b")) == {DAY: 0}, "it has no first contact"
    clock.pass_(days=2)
    assert await count(store, to("T4", "a", "d")) == {DAY: 1}
    clock.pass_(days=89)
    assert await count(store, to("T5", "a")) == {DAY: 0}, "89 days after the last letter"
    clock.pass_(days=91)
    assert await count(store, to("T6", "a")) == {DAY: 1}


@on_sqlite
async def test_held_mail_makes_no_recipient_known(store: Store) -> None:
    assert await count(store, to("T1", "a", "b"), counted=False) == {DAY: 2}
    assert await count(store, to("T2", "a")) == {DAY: 1}


@on_sqlite
async def test_letters_of_one_batch_see_each_other(store: Store) -> None:
    async with Gathered(store):
        tasks = [asyncio.create_task(count(store, to(f"T{n}", f"p{n}", "shared"))) for n in range(5)]
    assert [c[DAY] for c in await asyncio.gather(*tasks)] == [2, 3, 4, 5, 6]


async def test_recipients_of_one_text_are_counted_per_sender(store: Store, clock: Clock) -> None:
    asks, one, other = (DAY, SAME), Identity(exact="one"), Identity(exact="other")
    bo = tuple(ask._replace(key="bo") for ask in asks)
    assert await count(store, to("T1", "a", "b", asks=asks, identity=one)) == {DAY: 2, SAME: 2}
    assert await count(store, to("T2", "c", asks=asks, identity=other)) == {DAY: 3, SAME: 1}
    assert await count(store, to("T3", "d", "e", "f", asks=bo, sender=("bo",), identity=one)) == dict.fromkeys(bo, 3)
    assert await count(store, to("T4", "a", "g", asks=asks, identity=one)) == {DAY: 4, SAME: 3}
    assert await count(store, to("T5", "h", asks=asks, identity=one), counted=False) == {DAY: 5, SAME: 4}
    clock.pass_(days=1, seconds=1)
    assert await count(store, to("T6", "h", asks=asks, identity=one)) == {DAY: 1, SAME: 1}


@on_sqlite
async def test_copies_of_a_new_mailing_in_one_batch_see_each_other(store: Store) -> None:
    asks = (DAY, SAME)
    async with Gathered(store):
        tasks = [
            asyncio.create_task(count(store, to(f"T{n}", f"p{n}", asks=asks, identity=Identity(exact=f"{n % 2}"))))
            for n in range(6)
        ]
    counts = await asyncio.gather(*tasks)
    assert [c[DAY] for c in counts] == [1, 2, 3, 4, 5, 6]
    assert [c[SAME] for c in counts] == [1, 1, 2, 2, 3, 3]


@on_sqlite
async def test_lists_and_all_senders_are_counted(store: Store) -> None:
    asks = (DAY, NEWS, OF_NEWS)
    assert await count(store, to("T1", "a", "b", on="a", asks=asks)) == {DAY: 2, NEWS: 1, OF_NEWS: 1}
    bo = (DAY._replace(key="bo"), NEWS._replace(key="news\0bo"), OF_NEWS)
    assert await count(store, to("T2", "a", "c", on="ac", asks=bo, sender=("bo",))) == {bo[0]: 2, bo[1]: 2, OF_NEWS: 2}


@on_sqlite
async def test_a_recipient_known_to_any_identity_of_the_sender_is_known(store: Store) -> None:
    client = DAY._replace(key="client 192.0.2.1")
    for n in range(3):
        names = (f"x{n}@example.com", "client 192.0.2.1")
        assert await count(store, to(f"T{n}", f"p{n}", sender=names, asks=(client,))) == {client: n + 1}
    assert await count(store, to("T9", "p0", sender=("y@example.com", "client 192.0.2.1"), asks=(client,))) == {
        client: 0
    }


@on_sqlite
async def test_a_reference_to_a_message_sent_to_them_proves_an_answer(store: Store) -> None:
    asks = (DAY, ANSWERS, ANSWERED)
    bo = (DAY._replace(key="bo"), ANSWERS._replace(key="bo"), ANSWERED)
    await count(store, to("T1", "a", asks=asks, message_id="<one@example.com>"))
    said = await count(store, to("T2", "a", asks=bo, sender=("bo",), refers_to=("one@example.com", "two@a.example")))
    assert said == {bo[0]: 0, bo[1]: 0, ANSWERED: 0}
    said = await count(store, to("T3", "b", asks=bo, sender=("bo",), refers_to=("one@example.com",)))
    assert said == {bo[0]: 1, bo[1]: 0, ANSWERED: 1}, "it went to another person"


@on_sqlite
async def test_a_quotation_is_no_proof_and_is_counted_separately(store: Store) -> None:
    asks = (DAY, NEWS, OF_NEWS, ANSWERS, ANSWERED)
    said = await count(store, to("T1", "a", "b", quotes="a", on="a", asks=asks))
    assert said == {DAY: 2, NEWS: 1, OF_NEWS: 1, ANSWERS: 1, ANSWERED: 1}
    said = await count(store, to("T2", "c", quotes="c", on="c", asks=asks))
    assert said == {DAY: 3, NEWS: 2, OF_NEWS: 2, ANSWERS: 2, ANSWERED: 0}
    said = await count(store, to("T3", "a", quotes="a", on="a", asks=asks))
    assert said == dict.fromkeys(asks, 0), "known by now"


@on_sqlite
async def test_a_shared_mailbox_needs_no_proof_of_an_answer(store: Store) -> None:
    asks = (DAY, NEWS)
    assert await count(store, to("T1", "a", quotes="a", on="a", asks=asks, shared=True)) == {DAY: 0, NEWS: 0}
    assert await count(store, to("T2", "b", on="b", asks=asks, shared=True)) == {DAY: 1, NEWS: 1}


@on_sqlite
async def test_the_usual_number_follows_the_past_weeks(store: Store, clock: Clock) -> None:
    """With three in a day eight days ago, up to nine in a day are usual. After five weeks this is forgotten."""
    usual = DAY._replace(usual=Usual(3.0, 4))
    await count(store, to("T0", "u", "v", "w"))
    clock.pass_(days=8)
    counts = [await count(store, to(f"T{n}", f"p{n}", asks=(DAY, usual))) for n in range(1, 12)]
    assert [c[DAY] for c in counts] == list(range(1, 12))
    assert [c[usual] for c in counts] == [1, 2, 3, *[3] * 6, 10, 11]
    clock.pass_(days=29)  # the counts of that day are now the usual ones
    assert await count(store, to("T20", *"abcdefghijk", asks=(usual,)), counted=False) == {usual: 3}
    clock.pass_(days=7)
    assert await count(store, to("T21", *"abcdefghijk", asks=(usual,)), counted=False) == {usual: 11}


@on_sqlite
async def test_in_the_first_seven_days_nothing_is_usual(store: Store, clock: Clock) -> None:
    usual = DAY._replace(usual=Usual(3.0, 4))
    await count(store, to("T0", "u", "v", "w"))
    clock.pass_(days=6)
    assert await count(store, to("T1", *"abcd", asks=(usual,))) == {usual: 4}


async def rows(store: Store, table: str) -> int:
    found: int = await store._writer.submit(lambda batch: batch.select(f"SELECT COUNT(*) FROM {table}")[0][0])
    return found


async def swept(store: Store) -> None:
    """Sweep all parts of the counts."""
    await store._writer.submit(lambda batch: sweeping.sweep(batch, -(1 << 63), (1 << 63) - 1))


@on_sqlite
async def test_contacts_are_forgotten(store: Store, clock: Clock) -> None:
    await count(store, to("T1", "a", "b", message_id="<one@example.com>"))
    await count(store, to("T2", "c", asks=(DAY._replace(key="bo"),), sender=("bo",), message_id="<two@example.com>"))
    tables = ("person", "sent", "again", "moment")
    assert [await rows(store, table) for table in tables] == [3, 2, 2, 2]
    clock.pass_(days=60)
    await swept(store)
    assert [await rows(store, table) for table in tables] == [3, 2, 0, 0], "known, and no longer counted"
    await count(store, to("T3", "c", asks=(DAY._replace(key="bo"),), sender=("bo",)))
    clock.pass_(days=31)
    await swept(store)
    assert [await rows(store, table) for table in tables] == [1, 0, 0, 0]


async def test_an_approval_makes_recipients_known_and_resets_the_counts(store: Store) -> None:
    """An approval makes the recipients known and resets the counts; letters of one sender wait under the first of them."""
    await store.contents.keep(CONTENT)
    await count(store, to("T1", "a", "b"))
    lead = a_hold("H1", letter_from=(ANNA,), by_sender=True, lists=("news",))
    await store.admit(to("H1", "c"), holds(lead))
    queues: list[str] = []

    def step(live: Seen) -> Admission:
        queues.append(live.queue.hold_id if live.queue is not None else "")
        return holds(replace(a_hold("H2", letter_from=(ANNA,), by_sender=True), primary=queues[-1]))(live)

    await store.admit(to("H2", "d"), step)
    assert queues == ["H1"]
    assert await count(store, to("T2", "e"), counted=False) == {DAY: 3}, "held recipients are not counted"
    await store.holds.change("H1", lambda hold: Change(hold=replace(hold, state=State.APPROVED)))
    assert await count(store, to("T3", "e")) == {DAY: 1}
    assert (await count(store, to("T4", "a")))[DAY] == 0
