"""Search terms of messages: in the index, and in entries not yet indexed; with names, until they are erased."""

from __future__ import annotations

import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from smtpguard.database.schema import term
from smtpguard.journal import rows as journal
from smtpguard.journal import searchindex
from smtpguard.journal.event import Event, Kind
from smtpguard.reading.fold import query_words
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.every import every

WHOLE = Retention(content=timedelta(days=30), addresses=timedelta(days=90), journal=timedelta(days=400))


def mail(
    store: Store, id: str, *to: str, subject: str = "Lunch", data: dict[str, Any] | None = None, **more: str
) -> Event:
    private = {
        "reverse_path": ("anna@example.com",), "from": ("anna@example.com",), "recipients": to or ("x@example.org",),
        "subject": (subject,), **{role: (value,) for role, value in more.items()},
    }  # fmt: skip
    return Event(
        kind=Kind.VERDICT,
        id=id,
        at=store.now(),
        data={"action": "relay", "approved": [], **(data or {})},
        private=private,
    )


def outcome(store: Store, id: str, *replies: str) -> Event:
    return Event(kind=Kind.OUTCOME, id=id, at=store.now(), data={"outcome": "relayed", "replies": list(replies)})


async def written(store: Store) -> None:
    while await store.journal.index():
        pass


@pytest.fixture(params=["in the index", "not yet", "half"])
async def some(store: Store, request: pytest.FixtureRequest) -> Store:
    await store.journal.record([
        mail(store, "M1", message_id="<One.1@desk.example>", ident="4bXyz1", data={"client": "192.0.2.7"}),
        outcome(store, "M1", "250 2.0.0 Ok: queued as 5Ab_cD"),
    ])  # fmt: skip
    if request.param == "half":
        await written(store)
    await store.journal.record([
        mail(store, "M2", "Kim@Customer.example", subject="Ramadan-greetings: bacon!", data={"action": "hold", "hold": "M2"}),
        mail(store, "M3", "kim@customer.example", subject="bacon in private", actor="Bo", data={"client": "::1", "peer": "192.0.2.8"}),
        mail(store, "M3", "bo@customer.example", data={"client": "::1", "retry": True}),
        mail(store, "M4", subject="bacon to many", data={"mailing": "A1"}),
        Event(kind=Kind.RELEASE, id="M2", at=store.now(), data={"outcome": "sent", "recipients": 1},
              private={"recipients": ("kim@customer.example",), "comment": ("250 2.6.0 queued as 77Fe0a",)}),
    ])  # fmt: skip
    if request.param == "in the index":
        await written(store)
    return store


SPELLED = {
    "D1": ("Räksmörgås (“kväll”) İSTANBUL", "Åsa@Räka.example"),
    "D2": (unicodedata.normalize("NFD", "Räksmörgås/lunch ＦＵＬＬ"), "åsa@xn--rka-qla.example"),
    "D3": ("👨‍👩‍👧 Straße ﬁnal", '"bo \\"b\\" ek"@example.org'),
}


@pytest.fixture(params=["in the index", "not yet"])
async def spelled(store: Store, request: pytest.FixtureRequest) -> Store:
    held = {"action": "hold"}
    await store.journal.record(
        [mail(store, id, to, subject=subject, data=held | {"hold": id}) for id, (subject, to) in SPELLED.items()]
    )
    if request.param == "in the index":
        await written(store)
    return store


@every(
    ("text", "ids"),
    [
        ("räksmörgås", ["D2", "D1"]), ("RÄKSMÖRGÅS", ["D2", "D1"]), (unicodedata.normalize("NFD", "räksmörgås"), ["D2", "D1"]),
        ("«Räksmörgås»", ["D2", "D1"]), ("räksmörgås kväll", ["D1"]), ("räksmörgås/lunch", ["D2"]), ("istanbul", ["D1"]), ("ıstanbul", ["D1"]),
        ("full", ["D2"]), ("strasse FINAL", ["D3"]), ("👨\u200d👩\u200d👧", ["D3"]), (r'<"Bo \"b\" ek"@example.org> final', ["D3"]), ('"strasse final"', ["D3"]), ('"strasse', ["D3"]), ("åsa@räka.example", ["D2", "D1"]), ("ÅSA@xn--rka-qla.example", ["D2", "D1"]),
    ],
)  # fmt: skip
async def test_a_message_is_found_however_a_word_is_spelled(spelled: Store, text: str, ids: list[str]) -> None:
    found = await spelled.journal.find(query_words(text), 10)
    assert sorted(found, reverse=True) == ids


@every(
    ("text", "ids"),
    [
        ("<one.1@desk.example>", ["M1"]), ("One.1@desk.example", ["M1"]), ("4bxyz1", ["M1"]), ("5AB_CD", ["M1"]), ("192.0.2.7", ["M1"]), ("192.0.2.8", ["M3"]),
        ("kim@customer.example", ["M3", "M2"]), ("anna@example.com", ["M4", "M3", "M2", "M1"]), ("bo", ["M3"]), ("77Fe0a", ["M2"]),
        ("bacon", ["M4", "M2"]), ("Ramadan greetings", ["M2"]), ("ramadan-greetings:", ["M2"]), ("bacon kim@customer.example", ["M2"]),
        ("private", []), ("lunch", []), ("bo@customer.example", []), ("example.com", []), ("anna", []), ("2.0.0", []), ("", []), ("<>", []), ("M1", []),
    ],
)  # fmt: skip
async def test_messages_are_found_by_known_words(some: Store, text: str, ids: list[str]) -> None:
    assert await some.journal.find(query_words(text), 10) == ids


async def test_the_newest_matches_are_given(some: Store) -> None:
    assert await some.journal.find(["anna@example.com"], 2) == ["M4", "M3"]


async def test_entries_that_are_not_indexed_are_read_only_as_far_as_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "STRETCH", 2)
    await store.journal.record([mail(store, f"M{n}") for n in range(9)])
    told: list[tuple[int, int]] = []
    assert await store.journal.find(["anna@example.com"], 3, lambda *done: told.append(done)) == ["M8", "M7", "M6"]
    assert told == [(2, 11), (4, 11), (11, 11)], "ten entries, with that of the policy, and the index"
    told.clear()
    assert await store.journal.find(["nobody@example.com"], 3, lambda *done: told.append(done)) == []
    assert told[-2:] == [(10, 11), (11, 11)]


async def test_terms_are_indexed_once(store: Store, url: str, tmp_path: Path, clock: Clock) -> None:
    await store.journal.record([mail(store, f"M{n}", f"x{n}@example.org") for n in range(searchindex.STRETCH + 100)])
    count = select(func.count()).select_from(term)
    assert await store.journal.index() is True
    at_once = searchindex.AT_ONCE[url.partition(":")[0]]
    assert at_once < await store.ask(lambda c: c.execute(count).scalar_one()) <= at_once * 2, "others wait meanwhile"
    await written(store)
    before = await store.ask(lambda c: c.execute(count).scalar_one())
    assert before == (searchindex.STRETCH + 100) * 2
    assert await store.journal.index() is False
    assert await store.journal.find(["x700@example.org"], 10) == ["M700"]


async def test_terms_are_erased_with_names(store: Store, clock: Clock) -> None:
    await store.journal.record(
        [mail(store, f"M{n}", message_id=f"<{n}@desk.example>") for n in range(searchindex.STRETCH + 100)]
    )
    await written(store)
    await store.preserve("M5", by="root", reason="a lawsuit")
    clock.pass_(days=60)
    await store.journal.record([mail(store, "NEW", message_id="<new@desk.example>")])
    await written(store)
    clock.pass_(days=40)
    while (await store.retain(WHOLE)).more:
        pass
    assert await store.journal.find(["7@desk.example"], 10) == []
    assert await store.journal.find([f"{searchindex.STRETCH + 50}@desk.example"], 10) == [], (
        "of a stretch that still has terms"
    )
    assert await store.journal.find(["new@desk.example"], 10) == ["NEW"]
    assert await store.journal.find(["5@desk.example"], 10) == ["M5"], "an incident keeps its names"
    of_first = select(func.count(term.c.seq.distinct())).where(term.c.stretch == 0)
    assert await store.ask(lambda c: c.execute(of_first).scalar_one()) == 1


async def test_a_new_secret_rebuilds_the_index(url: str, tmp_path: Path, clock: Clock) -> None:
    def opened(secret: bytes, **more: Any) -> Any:
        return open_store(url, secret=secret, state_dir=tmp_path, clock=clock, **more)

    async with opened(b"1" * 32, migrate=True) as store:
        await store.journal.record([mail(store, "M1", message_id="<1@desk.example>")])
        await written(store)
    async with opened(b"2" * 32, renewing=()) as store:
        await store.renew(Event(kind=Kind.SECRET, id="S", at=clock.now()))
    async with opened(b"2" * 32) as store:
        assert await store.journal.find(["1@desk.example"], 10) == ["M1"], "found without the index"
        await written(store)
        assert await store.journal.find(["1@desk.example"], 10) == ["M1"]


@given(st.lists(st.text(max_size=40), max_size=4))
def test_any_reply_of_a_relay_is_indexed(replies: list[str]) -> None:
    assert all(isinstance(word, str) for word in searchindex.queue_ids(replies))


@every(
    ("reply", "ids"),
    [
        ("250 2.0.0 Ok: queued as 4bXyz1", ["4bXyz1"]), ("250 OK id=1tFGhJ-000abc-2X", ["1tFGhJ-000abc-2X"]),
        ("250 2.0.0 4AN9xYzq012345 Message accepted for delivery", ["4AN9xYzq012345"]),
        ("250 2.0.0 In the queue of mx.example.com as 4bXyz1", ["4bXyz1"]), ("550 5.7.1 no", []), ("250 Ok", []),
    ],
)  # fmt: skip
def test_queue_ids_of_relays_are_recognized(reply: str, ids: list[str]) -> None:
    assert searchindex.queue_ids([reply]) == ids
