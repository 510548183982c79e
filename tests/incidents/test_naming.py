"""Lookup by the beginning of an id, and of holds by Message-ID, on both engines."""

from __future__ import annotations

import pytest

from smtpguard.incidents.rows import MOST_NAMED as MOST
from smtpguard.journal.event import Event, Kind
from smtpguard.store.store import Store
from tests.store.making import event


def verdict(store: Store, id: str, **private: tuple[str, ...]) -> Event:
    return Event(kind=Kind.VERDICT, id=id, at=store.now(), data={"action": "relay"}, private=private)


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("01AB", ["01AB1", "01AB2"]),
        ("01ab2", ["01AB2"]),
        ("01AC", ["01AC"]),  # an exact match, although another id begins with it
        (" 01ac9 ", ["01AC9"]),
        ("FREEZE", ["FREEZE1"]),
        ("ZZ", ["ZZ1"]),
        ("0Z", ["0ZZ"]),
        ("09", ["099"]),
        ("01B", []),
        ("news", []),  # a list's name is not an id of a message
        ("%", []),
        ("_1AB1", []),
        ("", []),
    ],
)
async def test_an_id_is_found_by_its_beginning(store: Store, word: str, ids: list[str]) -> None:
    await store.journal.record(
        [verdict(store, id) for id in ("01AB1", "01AB2", "01AC", "01AC9", "ZZ1", "0ZZ", "099", "0A", "1")]
    )
    await store.journal.record([event(Kind.OUTCOME, "01AB2"), event(Kind.LIST, "NEWSLETTER")])
    await store.journal.record([event(Kind.FREEZE, "FREEZE1")])
    assert list(await store.journal.called(word)) == ids


async def test_only_some_of_many_matches_are_named(store: Store) -> None:
    await store.journal.record([verdict(store, f"01AB{n:02}") for n in range(MOST + 5)])
    assert await store.journal.called("01AB") == [f"01AB{n:02}" for n in range(MOST)]


async def test_recent_senders_are_listed_once_newest_first(store: Store) -> None:
    anna, kalle = ("anna@example.com",), ("kalle@example.com",)
    await store.journal.record([verdict(store, "T1", **{"from": anna, "reverse_path": anna, "subject": ("x",)})])
    await store.journal.record([verdict(store, "T2", **{"from": kalle, "reverse_path": ("bounces@example.com",)})])
    await store.journal.record([event(Kind.EXPORTED, "journal")])
    assert await store.journal.writers() == ["kalle@example.com", "bounces@example.com", "anna@example.com"]
