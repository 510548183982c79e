"""What metrics and alarms read from the store, on both engines: correct, limited, by index, and without personal data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy import event as listening

from smtpguard.database import batch
from smtpguard.database.statements import rows_of
from smtpguard.holds.model import Change, Confirmation, State
from smtpguard.journal.chain import NO_COLUMNS
from smtpguard.journal.event import Event, Kind
from smtpguard.observe import figures
from smtpguard.observe.figures import Waiting
from smtpguard.observe.metrics import Held
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Action, Hit, Mode, Verdict
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.store.making import (
    POLICY,
    T0,
    a_freeze,
    a_hold,
    event,
    held,
    holds,
    item,
    notice,
    on_sqlite,
    relays,
    release,
)

SETTLED = timedelta(minutes=15)


async def look(store: Store) -> Waiting:
    now = store.now()
    return await store.ask(lambda c: figures.look(c, now, settled_within=SETTLED))


async def news(store: Store, after: int = 0, limit: int = 1000) -> tuple[list[Event], int]:
    found, last = await store.ask(lambda c: figures.news(c, after, limit))
    return list(found), last


@on_sqlite
async def test_an_empty_store(store: Store) -> None:
    assert await look(store) == Waiting(
        entries=1, policy_sha256=POLICY, kept_bytes=0, freezes=(), holds=0, held_at=None, near=0, overdue=0,
        due=0, due_at=None, later=0, relaying=0, unsettled=0,
    )  # fmt: skip


@on_sqlite
async def test_waiting_holds_and_their_deadlines(store: Store, clock: Clock) -> None:
    await held(store, "H1", expires_at=T0 + timedelta(hours=10))
    clock.pass_(hours=1)
    await held(store, "H2", at=clock.now(), to=("d@list.example",), expires_at=T0 + timedelta(hours=2))
    await held(store, "H3", at=clock.now(), to=("e@list.example",))
    copy = a_hold("H4", at=clock.now(), to=("f@list.example",), primary="H1", expires_at=T0 + timedelta(hours=2))
    await store.admit(item("H4"), holds(copy))
    await store.holds.change("H3", lambda h: Change(hold=replace(h, state=State.REJECTED)))
    found = await look(store)
    assert (found.holds, found.held_at, found.near, found.overdue) == (2, T0, 1, 0), (
        "a copy counts with its primary hold"
    )
    assert found.kept_bytes > 0
    clock.pass_(hours=1)
    found = await look(store)
    assert (found.holds, found.near, found.overdue) == (2, 1, 1)
    clock.pass_(hours=6)
    found = await look(store)
    assert (found.holds, found.near, found.overdue) == (2, 2, 1)


async def test_list_messages_in_doubt(store: Store, clock: Clock) -> None:
    await held(store, "H1")
    await held(store, "H2", to=("d@list.example",))
    assert (await look(store)).asked == 0
    await store.holds.change("H2", lambda h: Change(hold=replace(h, state=State.IN_DOUBT, asked_at=clock.now())))
    assert (await look(store)).asked == len(await store.holds.asked_about()) == 1


async def test_the_outbox_by_due_and_later(store: Store, clock: Clock) -> None:
    await held(store, "H1", notice("N1", "H1"), release("H1"))
    await store.journal.record([], [notice("N2"), replace(notice("N3"), not_before=T0 + timedelta(hours=1))])
    found = await look(store)
    assert (found.due, found.due_at, found.later) == (2, T0, 1), "the release waits for its approval"
    clock.pass_(minutes=5)
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.APPROVED)))
    assert (await look(store)).due == 3
    leased = await store.outbox.lease("me", 2, 60)
    assert len(leased) == 2
    assert (await look(store)).due == 1, "the others are leased"
    clock.pass_(minutes=2)
    found = await look(store)
    assert (found.due, found.due_at) == (3, T0), "their leases have lapsed"
    await store.gate.freeze(a_freeze(selector=Selector.LIST, value="ramadan-greetings"), event(Kind.FREEZE, "F1"))
    assert (await look(store)).due == 2, "frozen releases are not overdue"
    await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    assert (await look(store)).due == 3


@on_sqlite
async def test_an_overdue_approval(store: Store, clock: Clock) -> None:
    await held(store, "H1")
    due = clock.now() + timedelta(minutes=1)
    await store.holds.change("H1", lambda h: Change(hold=replace(h, release_at=due)))
    assert ((await look(store)).due, (await look(store)).holds) == (0, 1)
    clock.pass_(minutes=2)
    found = await look(store)
    assert (found.due, found.due_at) == (1, due)
    await store.gate.freeze(a_freeze(), event(Kind.FREEZE, "F1"))
    assert (await look(store)).due == 0


@on_sqlite
async def test_notices_of_a_void_hold_are_not_counted(store: Store) -> None:
    await held(store, "H1", notice("N1", "H1"))
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.VOID)))
    found = await look(store)
    assert (found.due, found.due_at, found.holds) == (0, None, 0)


async def test_verdicts_without_an_outcome(store: Store, clock: Clock) -> None:
    for id in ("T1", "T2", "T3"):
        await store.admit(item(id), relays(id))
    store.journal.note(event(Kind.OUTCOME, "T1", outcome="relayed"))
    await store.journal.record([event(Kind.IN_DOUBT, "T2")])
    assert ((found := await look(store)).relaying, found.unsettled) == (1, 0)
    clock.pass_(minutes=16)
    assert ((found := await look(store)).relaying, found.unsettled) == (1, 1)


@on_sqlite
async def test_active_freezes(store: Store, clock: Clock) -> None:
    await store.gate.freeze(a_freeze("F1"), event(Kind.FREEZE, "F1"))
    await store.gate.freeze(
        a_freeze("F2", Selector.SENDER, "anna@example.com", until=T0 + timedelta(hours=1)), event(Kind.FREEZE, "F2")
    )
    assert [f.freeze_id for f in (await look(store)).freezes] == ["F1", "F2"]
    clock.pass_(hours=1)
    assert [f.freeze_id for f in (await look(store)).freezes] == ["F1", "F2"], (
        "its time is over, but it is not lifted yet"
    )
    for name in ("F1", "F2"):
        await store.gate.thaw(name, event(Kind.THAW, name))
    assert (await look(store)).freezes == ()


@on_sqlite
async def test_a_question_to_its_writer_is_no_deadline_of_those_who_decide(store: Store, clock: Clock) -> None:
    until = T0 + timedelta(minutes=30)
    asked = Confirmation(writer="anna@example.com", until=until, expires=True)
    await held(store, "H1", confirm=asked, expires_at=until)
    await held(store, "H2", to=("d@list.example",), confirm=replace(asked, lapsed_at=T0), expires_at=until)
    found = await look(store)
    assert (found.holds, found.near, found.overdue) == (2, 1, 0)
    clock.pass_(minutes=30)
    found = await look(store)
    assert (found.holds, found.near, found.overdue) == (2, 2, 2)


@on_sqlite
async def test_counts_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST", 2)
    for n in range(3):
        await held(store, f"H{n}", notice(f"N{n}", f"H{n}"), to=(f"c{n}@list.example",))
        await store.admit(item(f"T{n}"), relays(f"T{n}"))
    await store.journal.record([], [replace(notice(f"L{n}"), not_before=T0 + timedelta(hours=1)) for n in range(3)])
    found = await look(store)
    assert (found.holds, found.due, found.later, found.relaying) == (2, 2, 2, 2)


@on_sqlite
async def test_only_the_longest_waiting_holds_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "LONGEST_WAITING", 2)
    for n in range(3):
        await held(store, f"H{n}", at=T0 + timedelta(seconds=n), to=(f"c{n}@list.example",),
                   expires_at=T0 + timedelta(hours=1))  # fmt: skip
    found = await look(store)
    assert (found.holds, found.near) == (3, 2)


@on_sqlite
async def test_news_in_order_by_page_without_names(store: Store) -> None:
    await store.journal.record([event(Kind.VOTE, f"H{n}", choice="approve") for n in range(5)])
    first, last = await news(store, 1, 3)
    rest, end = await news(store, last, 3)
    assert [e.id for e in (*first, *rest)] == [f"H{n}" for n in range(5)]
    assert (last, end) == (4, 6)
    assert await news(store, end) == ([], end)
    assert first[0] == Event(kind=Kind.VOTE, id="H0", at=T0, data={"choice": "approve"})
    assert "anna" not in repr(first + rest)


async def test_an_entry_of_an_unknown_kind_is_ignored(store: Store) -> None:
    row = (2, 0, "levitated", "H1", '{"data":{},"private":{}}', b"", b"", *NO_COLUMNS)
    await store.write(lambda b: b.rows("entry").append(row))
    assert (await news(store, 1))[1] == 2
    assert (await news(store, 1))[0] == []


async def test_rules_that_held_a_decided_message(store: Store, clock: Clock) -> None:
    hits = (
        Hit(rule="busy", action=Action.HOLD, reasons=()),
        Hit(rule="new", action=Action.HOLD, reasons=(), mode=Mode.OBSERVE),
    )
    verdict = Verdict(action=Action.HOLD, hits=hits)
    for id, kind in (("H1", ""), ("H2", ""), ("H3", "test")):
        await held(store, id, verdict=verdict, kind=kind)
    ends = [event(Kind.APPROVED, id) for id in ("H1", "H3", "H9")]
    ends.append(replace(event(Kind.APPROVED, "H2"), data={"with": "H1"}))
    found = await store.ask(lambda c: figures.held(c, ends))
    assert found == {"H1": Held(T0, ("busy",))}
    assert await store.ask(lambda c: figures.held(c, [])) == {}


async def test_a_body_that_only_python_parses(store: Store) -> None:
    """An entry with a lone surrogate, from some client, is read."""
    await store.journal.record([event(Kind.VOTE, "H1", word="\udcff")])
    ((found,), _) = await news(store, 1)
    assert found.data == {"word": "\udcff"}


async def test_every_query_uses_an_index_and_no_names(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No query scans a table that grows, and none returns personal data."""
    statements: list[tuple[str, Any]] = []

    def plain(connection: Connection, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        statements.append((sql, values))
        return rows_of(connection, sql, values)

    for module in (figures, batch):
        monkeypatch.setattr(module, "rows_of", plain)

    def asked(connection: Connection) -> list[str]:
        def noted(_: Connection, __: Any, sql: str, values: Any, *___: Any) -> None:
            statements.append((sql, values))

        listening.listen(connection, "before_cursor_execute", noted)
        figures.look(connection, T0, settled_within=SETTLED)
        figures.news(connection, 0, 10)
        figures.held(connection, [event(Kind.APPROVED, "H1")])
        listening.remove(connection, "before_cursor_execute", noted)
        sqlite = connection.dialect.name == "sqlite"
        if not sqlite:  # PostgreSQL scans a small table sequentially
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = f"EXPLAIN {'QUERY PLAN ' * sqlite}"
        return [str(connection.exec_driver_sql(explain + sql, values).all()) for sql, values in statements]

    plans = await store.ask(asked)
    assert len(plans) == 13
    assert [
        plan for plan in plans if re.search(r"(SCAN|Seq Scan on) (entry|hold|outbox|delivery)\b(?! USING)", plan)
    ] == []
    assert [sql for sql, _ in statements if re.search(r"\bclear\b", sql)] == []
