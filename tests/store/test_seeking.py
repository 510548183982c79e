"""Lists of holds: searched by words and marks, in pages, copies with their primary hold; and the growth of a mailing."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from smtpguard.database.engine import Database
from smtpguard.database.migrate import migrate
from smtpguard.database.schema import hold as table
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Confirmation, Hold, HoldQuery, State
from smtpguard.holds.rows import count_waiting, marks_of, words_of
from smtpguard.journal.chain import microseconds
from smtpguard.policy.verdict import Action, Hit, Mode, Quorum, Verdict
from smtpguard.store.store import Store
from tests.store.making import T0, a_hold, on_sqlite, sqlite_plans
from tests.store.servers import new_database
from tests.store.test_upgrade import brought_to

NIGHT = Quorum(groups=("communications", "compliance"), out_of_hours=Quorum(groups=("duty",)))


def written(database: Database, *made: Hold) -> None:
    with database.write() as connection:
        for hold in made:
            connection.execute(table.insert(), holds.row_of(hold, hold.hold_id) | {"acknowledged": True})


def several(n: int, **more: Any) -> list[Hold]:
    return [a_hold(f"H{k:03d}", at=T0 + timedelta(seconds=k // 2), subject=f"SV: number {k}", **more) for k in range(n)]


async def found(store: Store, **asked: Any) -> list[str]:
    limit = asked.pop("limit", 50)
    given: dict[str, Any] = {"states": (State.WAITING,)} | asked
    return [hold.hold_id for hold in await store.holds.page(HoldQuery(**given), limit=limit)]


@pytest.fixture
def filled(store: Store) -> Database:
    return store._database


async def test_every_hold_is_on_one_page(store: Store, filled: Database) -> None:
    made = several(23)
    written(filled, *made)
    seen: list[Hold] = []
    while page := await store.holds.page(
        HoldQuery(states=(State.WAITING, State.VOID)), limit=5, before=(seen[-1].held_at, seen[-1].hold_id) if seen else None
    ):  # fmt: skip
        seen += page
    assert [h.hold_id for h in seen] == [h.hold_id for h in reversed(made)]


async def test_several_states_are_merged_by_time(store: Store, filled: Database) -> None:
    made = several(9)
    states = (State.WAITING, State.REJECTED, State.EXPIRED)
    written(filled, *(replace(hold, state=states[n % 3]) for n, hold in enumerate(made)))
    assert await found(store, states=states[1:], limit=4) == ["H008", "H007", "H005", "H004"]


async def test_copies_are_shown_with_their_primary_hold(store: Store, filled: Database) -> None:
    written(filled, a_hold("H1"), a_hold("H2", primary="H1"))
    assert await found(store) == ["H1"]
    assert await store.holds.count_waiting() == 1


@on_sqlite
async def test_to_count_what_waits_reads_nothing_else(store: Store) -> None:
    """Two pages do so at each view, and the holds of a year are decided."""
    plans = await store.ask(partial(sqlite_plans, ask=count_waiting))
    assert "COVERING INDEX hold_lead (lead=? AND state=?)" in plans[-1][1]


SOUGHT: list[tuple[dict[str, Any], list[str]]] = [
    ({"words": ["100%"]}, ["H1"]),
    ({"words": ["_"]}, []),
    ({"words": ["åsa", "lunch"]}, ["H2"]),
    ({"words": ["åsa", "100%"]}, []),
    ({"words": ["\\"]}, []),
    ({"words": [unicodedata.normalize("NFD", "åsa")]}, ["H2"]),
    ({"words": ["åsa@räka.example"]}, ["H2"]),
    ({"words": ["istanbul"]}, ["H2"]),
    ({"marks": ["list:news"]}, ["H2"]),
    ({"marks": ["list:new"]}, []),
    ({"marks": ["list:News"]}, []),
    ({"marks": ["group:Duty"]}, []),
    ({"marks": ["group:duty"]}, ["H2"]),
    ({"marks": ["group:duty", "list:ramadan"]}, []),
    ({"marks": ["from:anna@example.com"]}, ["H2", "H1"]),
    ({"seats": [(["list:news", "list:ramadan"], [])]}, ["H2", "H1"]),
    ({"seats": [(["list:news", "list:ramadan"], ["group:duty"])]}, ["H1"]),
    ({"seats": [(["group:duty"], ["list:news"]), (["list:ramadan"], ["group:duty"])]}, ["H1"]),
    ({"seats": [(["group:duty"], ["from:anna@example.com"])]}, []),
]


async def test_holds_are_found_by_words_and_tags(store: Store, filled: Database) -> None:
    anna = frozenset({"anna@example.com"})
    written(
        filled,
        a_hold("H1", subject="100% off", lists=("ramadan",), senders=anna),
        a_hold("H2", at=T0 + timedelta(seconds=1), subject="Lunch med Åsa, İstanbul", sender="åsa@xn--rka-qla.example", lists=("news",), senders=anna,
               verdict=Verdict(action=Action.HOLD, quorum=(NIGHT,))),
    )  # fmt: skip
    for asked, ids in SOUGHT:
        assert await found(store, **asked) == ids, asked


async def test_a_hold_is_found_by_all_its_rules_and_groups(store: Store, filled: Database) -> None:
    """Whatever its writer puts into subject and From, and however many rules hit: figures lead to it, and approvers see it."""
    chance = random.Random(1)
    rules = [f"{n}-rule-with-rather-a-long-name" for n in range(12)]

    def odd(length: int) -> str:
        return "".join(chr(chance.randrange(0x1F300, 0x1FAFF)) for _ in range(length))

    written(
        filled,
        a_hold("H1", subject=odd(300), senders=frozenset(f"{odd(40)}@example.com" for _ in range(50)), verdict=Verdict(
            action=Action.HOLD, quorum=(NIGHT,), hits=tuple(Hit(rule=rule, action=Action.HOLD, reasons=()) for rule in rules)
        )),
    )  # fmt: skip
    for mark in (*(f"rule:{rule}" for rule in rules), "group:communications", "group:duty"):
        assert await found(store, marks=(mark,)) == ["H1"], mark


@given(st.text(max_size=600), st.lists(st.text(max_size=80), max_size=30))
def test_indexed_text_is_short_enough(subject: str, lists: list[str]) -> None:
    hold = a_hold("H1", subject=subject, lists=tuple(lists))
    assert len(words_of(hold).encode()) + len(marks_of(hold).encode()) <= 2_500
    assert marks_of(hold).startswith("\n")
    assert marks_of(hold).endswith("\n")


@pytest.mark.parametrize("url", ["sqlite", "postgresql"])
def test_a_migration_indexes_older_holds(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A migration makes older holds searchable by their words."""
    url = (
        new_database(request.getfixturevalue("postgresql"), empty=True)
        if url == "postgresql"
        else f"sqlite:///{tmp_path}/old.db"
    )
    database = Database(url)
    try:
        hold = a_hold(
            "H1", subject="Lunch med Åsa", lists=("news",), senders=frozenset({"b@example.com", "a@example.com"}),
            verdict=Verdict(action=Action.HOLD, quorum=(NIGHT,), hits=(
                Hit(rule="internal-to-list", action=Action.HOLD, reasons=()),
                Hit(rule="watch", action=Action.HOLD, reasons=(), mode=Mode.OBSERVE),
            )),
            versions=(("news", "1"),),
        )  # fmt: skip
        asked = replace(hold, hold_id="H2", confirm=Confirmation(writer="a@example.com", until=hold.expires_at))
        confirmed = replace(
            asked, hold_id="H3", confirm=Confirmation(writer="a@example.com", until=hold.expires_at, at=hold.held_at)
        )
        with database.write() as connection:
            older = brought_to(connection, "0004").tables["hold"]
            for one in (hold, asked, confirmed):
                row = holds.row_of(one, one.hold_id) | {"acknowledged": True}
                connection.execute(older.insert(), {name: row[name] for name in row.keys() & older.c.keys()})
        migrate(url)
        with database.read() as connection:
            rows = connection.execute(text("SELECT sought, marks, reach, expires_at FROM hold ORDER BY hold_id")).all()
        for one, found in zip((hold, asked, confirmed), rows, strict=True):
            assert found.sought == words_of(one)
            assert sorted(found.marks.splitlines()) == sorted(marks_of(one).splitlines())
            assert (found.reach, found.expires_at) == (one.reach, microseconds(one.expires_at))
    finally:
        database.close()
