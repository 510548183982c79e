"""The journal on a real database: edits behind its back are found, and what retention erases is not missing."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Connection, select
from sqlalchemy import event as listening

from smtpguard.database import schema
from smtpguard.database.batch import Batch
from smtpguard.holds.model import Change, State
from smtpguard.journal import rows as journal
from smtpguard.journal import signing
from smtpguard.journal.chain import NO_COLUMNS, link, microseconds
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.linefiles import CHECKPOINTS, lines_of, write_line
from smtpguard.journal.outcome import Outcome
from smtpguard.outbox.model import AttemptResult
from smtpguard.policy.freezing import Selector
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store, open_store
from tests.clocks import Clock
from tests.store.making import POLICY, SECRET, a_freeze, a_hold, event, held, holds, item, notice, relays


async def filled(store: Store, n: int = 30, *, first: int = 0) -> None:
    for i in range(first, first + n):
        await store.admit(item(f"T{i}"), relays(f"T{i}"))


async def test_rare_kinds_are_found_by_index(store: Store) -> None:
    await filled(store)
    for n in range(3):
        await store.gate.freeze(a_freeze(f"F{n}"), event(Kind.FREEZE, f"F{n}"))
    await filled(store)
    stood_still = (Kind.FREEZE, Kind.THAW)

    def found(connection: Connection) -> tuple[list[str], str]:
        newest = journal.of_kinds(connection, stood_still, 2)
        rest = journal.of_kinds(connection, stood_still, 5, before=newest[-1][0].seq)
        return [one.id for one, _ in newest + rest], _plan(connection, journal.of_kind(*stood_still))

    ids, plan = await store.ask(found)
    assert ids == ["F2", "F1", "F0"]
    assert "entry_rare" in plan
    everything = await store.ask(lambda c: journal.of_kinds(c, (Kind.FREEZE, Kind.VERDICT), 1000))
    assert len(everything) == 63


async def test_keys_are_found_by_index(store: Store) -> None:
    await filled(store)
    where = signing._CHANGES.whereclause
    assert where is not None
    assert "entry_rare" in await store.ask(lambda c: _plan(c, where))


async def test_a_time_is_found_without_reading_the_journal(store: Store) -> None:
    await filled(store)
    statements: list[tuple[str, Any]] = []

    def asked(connection: Connection) -> list[str]:
        def noted(_: Connection, __: Any, sql: str, values: Any, *___: Any) -> None:
            statements.append((sql, values))

        listening.listen(connection, "before_cursor_execute", noted)
        journal.span(connection, 1, microseconds(store.now()))
        listening.remove(connection, "before_cursor_execute", noted)
        return [_explained(connection, sql, values) for sql, values in statements]

    plans = await store.ask(asked)
    assert len(plans) > 2
    assert [plan for plan in plans if re.search(r"SCAN entry|Seq Scan", plan)] == []


def _plan(connection: Connection, where: ColumnElement[bool]) -> str:
    """The query plan. PostgreSQL may not scan a small table sequentially."""
    query = select(schema.entry.c.seq).where(where).compile(connection, compile_kwargs={"literal_binds": True})
    return _explained(connection, str(query))


def _explained(connection: Connection, sql: str, values: Any = ()) -> str:
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    return str(connection.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' * sqlite}{sql}", values).all())


async def tamper(store: Store, *statements: str) -> None:
    """Change the database without the store's knowledge."""

    def do(batch: Batch) -> None:
        for statement in statements:
            batch.connection.exec_driver_sql(statement)

    await store._writer.submit(do)


TAMPERINGS = {
    "edited": (["UPDATE entry SET body = replace(body, 'relay', 'hold') WHERE seq = 9"], 9, "edited"),
    "deleted": (["DELETE FROM entry WHERE seq = 9"], 9, "missing"),
    "reordered": (
        ["UPDATE entry SET seq = -1 WHERE seq = 9", "UPDATE entry SET seq = 9 WHERE seq = 20",
         "UPDATE entry SET seq = 20 WHERE seq = -1", "DELETE FROM clear WHERE seq IN (9, 20)"], 9, "reordered",
    ),
    "beginning cut": (["DELETE FROM entry WHERE seq < 5"], 1, "missing"),
    "clear value edited": (["UPDATE clear SET doc = replace(doc, 'anna', 'otto') WHERE seq = 9"], 9, "edited"),
    "clear value erased early": (["DELETE FROM clear WHERE seq = 9"], 9, "private values are missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_reported(store: Store, name: str) -> None:
    statements, seq, problem = TAMPERINGS[name]
    await filled(store)
    assert (await store.journal.verify()).ok
    await tamper(store, *statements)
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert (found.seq, found.problem.startswith(problem)) == (seq, True), found


async def test_an_inserted_entry_is_found(store: Store) -> None:
    """The entry after an inserted one does not fit, since the inserted one continues the chain."""
    await filled(store)

    def insert(batch: Batch) -> None:
        for table in ("entry", "clear"):
            batch.connection.exec_driver_sql(f"UPDATE {table} SET seq = -seq WHERE seq >= 9")
            batch.connection.exec_driver_sql(f"UPDATE {table} SET seq = 1 - seq WHERE seq < 0")
        [(prev,)] = batch.select("SELECT hash FROM entry WHERE seq = 8")
        body = '{"data":{"action":"relay"},"private":{}}'
        hash = link(bytes(prev), 9, 1, "verdict", "forged", body)
        batch.rows("entry").append((9, 1, "verdict", "forged", body, bytes(prev), hash, *NO_COLUMNS))

    await store._writer.submit(insert)
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert found.seq == 10


async def test_a_cut_tail_is_found_by_the_checkpoint_file(store: Store, tmp_path: Path) -> None:
    await filled(store)
    made = await store.journal.checkpoint()
    assert made is not None
    assert await store.journal.checkpoint() is None  # nothing new
    cut = ["DELETE FROM entry WHERE seq > 20", "DELETE FROM clear WHERE seq > 20", "DELETE FROM checkpoint"]
    await tamper(store, *cut)
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert found.seq == 21
    assert "tail is cut" in found.problem
    hash = "SELECT hash FROM entry WHERE seq = 20"
    await tamper(store, f"UPDATE head SET seq = 20, hash = ({hash})")
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert (
        found.problem
        == f"the tail is cut, or this is an older copy: a signed checkpoint knows entries up to {made.seq}"
    )
    (tmp_path / CHECKPOINTS).unlink()
    assert (await store.journal.verify()).ok  # without both, the cut cannot be detected: hence the file


async def test_a_recomputed_chain_is_found(store: Store) -> None:
    await filled(store)
    await store.journal.checkpoint()

    def recompute(batch: Batch) -> None:
        prev = bytes(32)
        rows = batch.select("SELECT seq, at, kind, id, body FROM entry ORDER BY seq")
        for seq, at, kind, id, body in rows:
            text = body.replace("relay", "hold")
            hash = link(prev, seq, at, kind, id, text)
            batch.execute("UPDATE entry SET body = ?, prev = ?, hash = ? WHERE seq = ?", [(text, prev, hash, seq)])
            prev = hash
        batch.head.hash = prev

    await store._writer.submit(recompute)
    await filled(store, 5)
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert "recomputed" in found.problem


async def test_a_forged_checkpoint_is_found(store: Store, tmp_path: Path) -> None:
    await filled(store)
    await store.journal.checkpoint()
    path = tmp_path / CHECKPOINTS
    line = json.loads(path.read_text())
    path.write_text(json.dumps({**line, "seq": line["seq"] + 5}) + "\n")
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert "not signed here" in found.problem
    path.write_text("gibberish\n")
    proof = await store.journal.verify()
    assert (proof.ok, proof.unreadable) == (True, 1), "it proves nothing, and is reported"
    await tamper(store, "UPDATE checkpoint SET line = 'gibberish'")
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert "cannot be read" in found.problem


async def test_a_restored_snapshot_that_continued_is_found(store: Store, tmp_path: Path) -> None:
    """A store restored to before a checkpoint and written to again is found: the checkpoint has another hash for that
    entry."""
    await filled(store, 10)
    await store.journal.checkpoint()
    [mark] = [json.loads(text) for text in (tmp_path / CHECKPOINTS).read_text().splitlines()]
    cut = [f"DELETE FROM {t} WHERE seq > 5" for t in ("entry", "clear", "checkpoint")]

    def restore(batch: Batch) -> None:
        for statement in cut:
            batch.connection.exec_driver_sql(statement)
        [(hash,)] = batch.select("SELECT hash FROM entry WHERE seq = 5")
        batch.head.seq, batch.head.hash = 5, bytes(hash)

    await store._writer.submit(restore)
    for n in range(20):
        await store.admit(item(f"U{n}"), relays(f"U{n}"))
    found = (await store.journal.verify()).first_bad
    assert found is not None
    assert found.seq == mark["seq"]


async def test_closing_signs_a_checkpoint(url: str, tmp_path: Path, clock: Clock) -> None:
    async with open_store(url, secret=SECRET, state_dir=tmp_path, clock=clock, migrate=True) as store:
        await store.policies.put(POLICY, {}, event(Kind.POLICY, POLICY))
    assert json.loads((tmp_path / CHECKPOINTS).read_text())["seq"] == 1


async def test_a_history_is_of_the_kinds_that_are_asked_for(store: Store) -> None:
    await held(store, "H1")
    await store.journal.record([event(Kind.ASKED, "H1"), event(Kind.ANSWERED, "H1"), event(Kind.ASKED, "H2")])
    for kinds, found in (((), ["verdict", "asked", "answered"]), ((Kind.ASKED, Kind.JUDGED), ["asked"])):
        assert [entry.kind for entry, _ in await store.journal.history("H1", *kinds)] == found


async def test_erased_addresses_leave_the_chain_provable(store: Store, clock: Clock) -> None:
    await filled(store, 10)
    await held(store, "H1")
    await store.journal.record([], [notice("N1")])
    clock.pass_(days=60)
    await store.admit(item("young"), relays("young"))
    clock.pass_(days=31)
    erased = await store.retain(Retention())
    assert (erased.private, erased.holds, erased.more) == (12, 0, False)  # H1 still waits, and is never erased
    assert [clear for _, clear in await store.journal.history("T1")] == [None]
    assert [clear for _, clear in await store.journal.history("young")] == [{"from": ["anna@example.com"]}]
    assert (await store.journal.verify()).ok
    await tamper(store, "DELETE FROM clear WHERE seq > 12")
    assert not (await store.journal.verify()).ok


async def test_trimming_signs_a_base(store: Store, clock: Clock) -> None:
    await filled(store, 10)
    clock.pass_(days=401)
    await filled(store, 3)
    erased = await store.retain(Retention())
    assert erased.entries == 11
    assert (await store.journal.entries(limit=1))[0][0].seq == 12
    assert (await store.journal.verify()).ok
    again = await store.retain(Retention())
    assert again.entries == 0
    await tamper(store, "DELETE FROM entry WHERE seq = 12")
    assert not (await store.journal.verify()).ok


async def test_settled_holds_are_deleted_with_their_addresses(store: Store, clock: Clock) -> None:
    await held(store, "H1", notice("N1", "H1"))
    await store.holds.change("H1", lambda h: Change(hold=replace(h, state=State.REJECTED)))
    clock.pass_(days=91)
    assert (await store.retain(Retention())).holds == 0  # its notice is not sent
    [lease] = await store.outbox.lease("me", 1, 60)
    await store.outbox.settle(lease, [], [])
    [lease] = await store.outbox.lease("me", 1, 60)  # settling nothing leaves the recipient due
    await store.outbox.settle(lease, [AttemptResult(recipient=lease.recipients[0], event=DeliveryEvent.TAKE)], [])
    assert (await store.retain(Retention())).holds == 1
    assert await store.holds.find("H1") is None
    assert (await store.journal.verify()).ok


async def test_entries_are_read_in_pages(store: Store) -> None:
    await filled(store, 25)
    first = await store.journal.entries(limit=10)
    second = await store.journal.entries(after=first[-1][0].seq, limit=100)
    assert [e.seq for e, _ in [*first, *second]] == list(range(1, 27))


async def test_outcomes_of_transactions(store: Store, clock: Clock) -> None:
    """Outcomes are as in the report, for mail that the relay only deferred, and for a doubt that ended."""
    for n in range(7):
        await store.admit(item(f"T{n}"), relays(f"T{n}"))
    store.journal.note(event(Kind.OUTCOME, "T0", outcome="relayed"))
    store.journal.note(event(Kind.OUTCOME, "T4", outcome="refused", replies=["451 4.7.1 Later"]))
    store.journal.note(event(Kind.IN_DOUBT, "T5", why="a crash"))
    store.journal.note(event(Kind.OUTCOME, "T5", outcome="recalled"))
    store.journal.note(event(Kind.OUTCOME, "T6", outcome="unanswered"))
    store.journal.note(event(Kind.OUTCOME, "T1", outcome="recalled"))
    store.journal.note(event(Kind.IN_DOUBT, "T2", outcome="in-doubt"))
    await store.journal.record([event(Kind.START, "here")])  # notes are written before it
    assert await store.journal.outcomes([f"T{n}" for n in range(7)]) == {
        "T0": Outcome.DELIVERED, "T1": Outcome.NOT_SENT, "T2": Outcome.IN_DOUBT, "T4": Outcome.DEFERRED, "T5": Outcome.NOT_SENT, "T6": Outcome.NOT_SENT,
    }  # fmt: skip
    clock.pass_(minutes=10)
    assert await store.journal.unsettled(clock.now() - timedelta(minutes=5)) == ["T3"]
    assert await store.journal.unsettled(clock.now() - timedelta(minutes=10)) == []


async def test_a_hold_is_no_transaction_in_flight(store: Store, clock: Clock) -> None:
    await held(store, "H1")
    await store.admit(item("H2", of="H1"), holds(a_hold("H2")))
    clock.pass_(hours=1)
    assert await store.journal.unsettled(clock.now()) == []


async def test_lifted_freezes_are_deleted_with_their_addresses(store: Store, clock: Clock) -> None:
    for id in ("F1", "F2"):
        await store.gate.freeze(a_freeze(id, Selector.SENDER, "bo@example.com"), event(Kind.FREEZE, id))
    await store.gate.thaw("F1", event(Kind.THAW, "F1"))
    clock.pass_(days=91)
    await store.retain(Retention())
    left: list[Any] = []
    await store._writer.submit(lambda b: left.extend(b.select('SELECT freeze_id FROM "freeze"')))
    assert [tuple(row) for row in left] == [("F2",)]


async def test_old_transactions_in_flight_are_forgotten(store: Store, clock: Clock) -> None:
    await store.admit(item("T1"), relays("T1"))
    clock.pass_(days=8)
    await store.retain(Retention())
    assert await store.journal.unsettled(clock.now()) == []
    assert await store.journal.history("T1")


async def test_observed_verdicts_of_a_period(store: Store, clock: Clock) -> None:
    assert await store.journal.observed(clock.now(), clock.now() + timedelta(days=1), 10) == (0, [])
    start = clock.now()
    for n in range(9):
        data = {"action": "relay", "observed": ["busy"] if n % 2 else []}
        await store.journal.record(
            [Event(kind=Kind.VERDICT, id=f"T{n}", at=clock.now(), data=data, private={"subject": (f"s{n}",)})]
        )
        await store.journal.record([event(Kind.OUTCOME, f"T{n}", at=clock.now())])
        clock.pass_(hours=1)
    judged, found = await store.journal.observed(start + timedelta(hours=1), start + timedelta(hours=7), 10)
    assert (judged, [e.id for e in found]) == (6, ["T5", "T3", "T1"])
    assert found[0].private == {"subject": ("s5",)}
    assert [e.id for e in (await store.journal.observed(start, clock.now(), 1))[1]] == ["T7"]
    assert await store.journal.observed(clock.now(), clock.now() + timedelta(days=1), 10) == (0, [])


async def test_what_people_get_notices_of_is_found_by_time(store: Store, clock: Clock) -> None:
    start = clock.now()
    kinds = [Kind.REJECTED, Kind.VIEWED, Kind.EXPIRED, Kind.VOTE, Kind.VOTE, Kind.REMINDED]
    for n, kind in enumerate(kinds):
        data = {"release_at": "2026-03-02T09:00:00Z"} if n == 4 else {}
        events = [Event(kind=kind, id=f"H{n}", at=clock.now(), data=data)]
        await store.journal.record([*events, Event(kind=Kind.NOTICE, id=f"H{n}", at=clock.now())] * 2)
        clock.pass_(minutes=10)
    assert await store.journal.noticed(start, clock.now()) == ["H0", "H2", "H4", "H5"]
    assert await store.journal.noticed(start + timedelta(minutes=20), start + timedelta(minutes=40)) == ["H2"]
    assert await store.journal.noticed(clock.now(), clock.now() + timedelta(days=1)) == []
    for n in range(40):
        clock.pass_(minutes=1)
        await store.journal.record([Event(kind=Kind.EXPIRED, id=f"E{n}", at=clock.now())])
    clock.pass_(hours=-1)
    await store.journal.record([Event(kind=Kind.EXPIRED, id="back", at=clock.now())])
    assert "back" in await store.journal.noticed(clock.now(), clock.now() + timedelta(seconds=1))


def test_a_line_that_did_not_fit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    with monkeypatch.context() as nearly_full:
        nearly_full.setattr(os, "write", lambda file, octets: whole(file, octets[:3]))
        with pytest.raises(OSError, match="No space left"):
            write_line(tmp_path, CHECKPOINTS, "the first")
    write_line(tmp_path, CHECKPOINTS, "the second")
    assert lines_of(tmp_path, CHECKPOINTS) == ["the", "the second"]
