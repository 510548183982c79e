"""Retention: a shorter one is journalled, and takes effect a day later."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from smtpguard.database import schema
from smtpguard.database.batch import Batch
from smtpguard.holds.model import Change, Choice, State
from smtpguard.journal.event import Event, Kind
from smtpguard.mailings import forgetting
from smtpguard.policy.approvals import Absence
from smtpguard.store import retention
from smtpguard.store.retention import Retention, erase
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.guard.campaign import Campaign, documents, kinds
from tests.guard.house import MEMBERS, house
from tests.journal.test_rows import filled
from tests.store.making import held

USUAL = Retention()
MIXED = Retention(content=timedelta(minutes=1), addresses=timedelta(days=120))
SHORT = Retention(content=timedelta(minutes=1), addresses=timedelta(minutes=1), journal=timedelta(days=30))


async def journalled(store: Store) -> list[dict[str, Any]]:
    entries = await store.journal.entries()
    return [dict(entry.data) for entry, _ in entries if entry.kind == Kind.RETENTION.value]


async def test_unchanged_retention_is_journalled_once(store: Store, clock: Clock) -> None:
    for _ in range(3):
        assert await store.agree(USUAL, "here") == USUAL
        clock.pass_(hours=30)
    [one] = await journalled(store)
    assert (one["journal"], one["host"]) == (400 * 86400, "here")


async def test_shorter_retention_takes_effect_a_day_later(store: Store, clock: Clock) -> None:
    await filled(store, 5)
    assert await store.agree(USUAL, "here") == USUAL
    clock.pass_(days=60)
    for hours in (0, 12, 11):
        clock.pass_(hours=hours)
        keep = await store.agree(SHORT, "here")
        assert keep == USUAL
        assert (await store.retain(keep)).private == 0
    clock.pass_(hours=1)
    keep = await store.agree(SHORT, "here")
    assert keep == SHORT
    assert (await store.retain(keep)).private > 0
    [second] = await journalled(store)  # the first is trimmed by now
    assert (second["addresses"], second["before"]["addresses"]) == (60, 90 * 86400)


async def test_a_start_with_shorter_retention_erases_nothing_for_a_day(store: Store, clock: Clock) -> None:
    await filled(store, 5)
    clock.pass_(days=60)
    assert await store.agree(SHORT, "here") == USUAL
    clock.pass_(days=1)
    assert await store.agree(SHORT, "here") == SHORT


async def test_longer_retention_takes_effect_at_once(store: Store, clock: Clock) -> None:
    await store.agree(SHORT, "here")
    clock.pass_(days=2)
    assert await store.agree(SHORT, "here") == SHORT
    assert await store.agree(USUAL, "here") == USUAL
    clock.pass_(hours=1)
    assert await store.agree(SHORT, "here") == USUAL, "switching back and forth gains no time"
    clock.pass_(hours=23)
    assert await store.agree(SHORT, "here") == USUAL
    clock.pass_(hours=1)
    assert await store.agree(SHORT, "here") == SHORT


async def test_hosts_with_different_retention_journal_it_in_turn_each_hour(store: Store, clock: Clock) -> None:
    """The longest of both stays in force, also when one of them is stopped for half a day."""
    assert await store.agree(USUAL, "one") == USUAL
    for quarter in range(3 * 24 * 4):
        clock.pass_(minutes=15)
        assert await store.agree(SHORT, "two") == USUAL
        if quarter // 48 != 3:
            assert await store.agree(USUAL, "one") == USUAL
    assert len(await journalled(store)) < 3 * 24
    assert await store.agree(MIXED, "one") == MIXED.longest(USUAL), "longer periods at once"


async def test_names_between_other_entries_are_erased_within_the_minute(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes have no names, so a whole slice of entries erases fewer."""
    monkeypatch.setattr(retention, "CUT", 4)
    for i in range(6):
        await filled(store, 1, first=i)
        await store.journal.record([Event(kind=Kind.OUTCOME, id=f"T{i}", at=clock.now(), data={"outcome": "relayed"})])
    clock.pass_(days=91)
    slices = 1
    while (await store.retain(USUAL)).more:
        slices += 1
    left = [one.id for one, clear in await store.journal.entries() if one.kind == Kind.VERDICT.value and clear]
    assert left == []
    assert slices >= 12 / 4


async def test_words_are_erased_with_the_names(store: Store, clock: Clock) -> None:
    """Also of messages that are indexed together with later ones; an erasure of a person would not find them any more."""
    words = select(func.count()).select_from(schema.term)
    for _ in range(2):
        await filled(store, 3)
        await store.journal.index()
        clock.pass_(days=60)
    before = await store.ask(lambda c: c.execute(words).scalar_one())
    await store.retain(USUAL)
    assert await store.ask(lambda c: c.execute(words).scalar_one()) == before / 2
    clock.pass_(days=60)
    await store.retain(USUAL)
    assert await store.ask(lambda c: c.execute(words).scalar_one()) == 0


async def test_an_absence_is_erased_a_year_after_its_end(store: Store, clock: Clock) -> None:
    said = Absence(person="eva@example.com", since=clock.now().date(), until=clock.now().date())
    told = Event(kind=Kind.ABSENCE, id="E", at=clock.now(), private={"account": (said.person,)})
    await store.people.change_absence(said.person, lambda before: (said, told))
    for days, left in ((366, 1), (1, 0)):
        clock.pass_(days=days)
        await store.retain(USUAL)
        assert len(await store.people.absences()) == left


async def test_a_slice_scans_no_large_table(store: Store, clock: Clock) -> None:
    """It has the store to itself each minute, and a mailing leaves hundreds of thousands of rows."""
    for id in ("H1", "H2", "H3"):
        await held(store, id)
        await store.holds.change(id, lambda h: Change(hold=replace(h, state=State.REJECTED)))
    clock.pass_(days=100)

    def planned(batch: Batch) -> list[str]:
        def noted(_: Any, __: Any, sql: str, values: Any, *___: Any) -> None:
            statements.append((sql, values))

        statements = list[tuple[str, Any]]()
        event.listen(batch.connection, "before_cursor_execute", noted)
        erase(batch, USUAL)
        event.remove(batch.connection, "before_cursor_execute", noted)
        sqlite = batch.connection.dialect.name == "sqlite"
        if not sqlite:  # PostgreSQL scans a small table sequentially
            batch.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = f"EXPLAIN {'QUERY PLAN ' * sqlite}"
        return [str(batch.connection.exec_driver_sql(explain + sql, values).all()) for sql, values in statements]

    plans = await store.write(planned)
    large = "entry|clear|hold|outbox|delivery|content|mailing|reached|returned"
    assert [plan for plan in plans if re.search(rf"(SCAN|Seq Scan on) ({large})\b(?! USING)", plan)] == []
    assert any(re.search(r"outbox_due.* next_at ?<|outbox_due.*\(next_at <", plan) for plan in plans), (
        "not all ever sent"
    )
    assert not any(re.search(r"outbox_due \((done=\?|Index Cond: \(done = false\))\)", plan) for plan in plans), (
        "not all unsent"
    )
    assert await store.holds.newest() == []


@pytest.mark.parametrize("newest", [True, False])
async def test_a_mailing_stays_while_copies_of_it_wait(tmp_path: Path, newest: bool) -> None:
    """Without it they would follow no decision: they would wait for ever."""
    async with house(tmp_path, documents=documents()) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 12)
        [lead] = await home.store.holds.newest()
        if not newest:
            await made.to_members(0, 2, mailing="another")
        home.clock.pass_(days=2, hours=1)
        await home.store.retain(Retention(addresses=timedelta(days=2)))
        found = await home.store.mailings.find(lead.mailing_id)
        assert found is not None
        assert found.people.held
        await made.decide(lead.hold_id)
        await made.approvals.follow()
        assert {hold.state for hold in await home.holds()} == {State.APPROVED}


async def test_a_mailing_to_few_stays_while_copies_wait_after_its_approval(tmp_path: Path) -> None:
    """They wait for the next stage. The report of a bounce was written when the approval was over."""
    async with house(tmp_path, documents=documents(stages="{steps: [6, rest], pause: person}")) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 12)
        [lead] = await home.store.holds.newest()
        await made.decide(lead.hold_id)
        await made.office.until_quiet(steps=2)
        await made.to_members(0, 2, mailing="another")
        home.clock.pass_(days=40)
        await made.service.feedback(lead.mailing_id, bounces=1, by="tool")
        while (await home.store.retain(USUAL)).more:
            pass
        found = await home.store.mailings.find(lead.mailing_id)
        assert found is not None
        assert found.people.held


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("choice", Choice)
async def test_a_mailing_stays_while_a_decision_on_it_is_in_force(tmp_path: Path, choice: Choice, newest: bool) -> None:
    """Without it an approved copy would be held, and a rejected one pass or wait."""
    keep = Retention(content=timedelta(hours=1), addresses=timedelta(hours=1))
    async with house(tmp_path, documents=documents()) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 12)
        [lead] = await home.store.holds.newest()
        await made.decide(lead.hold_id, choice, comment="Wrong list")
        await made.approvals.follow()
        await made.office.until_quiet(steps=2)
        if not newest:
            await made.to_members(0, 1, mailing="another")
        await made.office.go(hours=18)
        while (await home.store.retain(keep)).more:
            pass
        assert kinds([await made.send(MEMBERS[11])]) == ("r" if choice is Choice.APPROVE else "x")
        home.clock.pass_(days=7)
        await made.noted()
        while (await home.store.retain(keep)).more:
            pass
        if not newest:
            assert await home.store.mailings.find(lead.mailing_id) is None


async def test_mailings_that_a_decision_keeps_keep_no_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "SLICE", 1)
    keep = Retention(content=timedelta(hours=1), addresses=timedelta(hours=1))
    async with house(tmp_path, documents=documents()) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 12)
        [lead] = await home.store.holds.newest()
        await made.decide(lead.hold_id)
        await made.approvals.follow()
        await made.office.until_quiet(steps=2)
        for name in ("another", "a third", "the newest"):
            await made.to_members(0, 1, mailing=name)
        await made.office.go(hours=18)
        while (await home.store.retain(keep)).more:
            pass
        assert [one.mailing_id for one in await home.store.mailings.newest()] == [lead.mailing_id]


async def test_an_approval_of_what_was_approved_before_covers_its_copies_as_long(tmp_path: Path) -> None:
    """Both have one template, and the retention of contents for the first is over in the time of the second."""
    async with house(tmp_path, documents=documents()) as home:
        made = Campaign(home, copies=50)
        for days in (0, 28):
            home.clock.pass_(days=days)
            for n in range(12):
                await made.send(MEMBERS[n], body=f"Copy {n}")
            lead = next(hold for hold in await home.holds() if hold.state is State.WAITING and not hold.primary)
            await made.decide(lead.hold_id)
            await made.approvals.follow()
        home.clock.pass_(days=3)
        while (await home.store.retain(USUAL)).more:
            pass
        assert kinds([await made.send(MEMBERS[n], body=f"Copy {n}") for n in range(12, 20)]) == 8 * "r"
