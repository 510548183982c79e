"""An incident preserves its data beyond retention: names, contents, holds, mailings, and the journal from its first
entry on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from smtpguard.holds.model import Change, State
from smtpguard.journal.event import Kind
from smtpguard.mail.message import Message
from smtpguard.store.retention import Retention
from smtpguard.store.store import Store
from tests.clocks import Clock
from tests.guard.campaign import Campaign, documents
from tests.guard.house import MEMBERS, house
from tests.journal.test_rows import filled
from tests.store.making import event, held, item, relays

EVA, OMAR = "eva@example.com", "omar@example.com"
MONTH = Retention(journal=timedelta(days=30))


async def named(store: Store, id: str) -> bool:
    """Whether all entries of the message still have their clear values."""
    return all(clear for _, clear in await store.journal.history(id))


async def add_rejected(store: Store, id: str, text: bytes) -> str:
    content = Message.of(b"Subject: lunch\r\n\r\n" + text + b"\r\n")
    await held(store, id, content=content)
    await store.holds.change(id, lambda h: Change(hold=replace(h, state=State.REJECTED)))
    return content.sha256


async def test_names_and_contents_are_preserved(store: Store, clock: Clock) -> None:
    await filled(store, 5)
    kept, gone = await add_rejected(store, "H1", b"kept"), await add_rejected(store, "H2", b"gone")
    for id in ("T3", "H1"):
        made = await store.preserve(id, by="root", reason="a lawsuit")
        assert made is not None
        assert made.until == clock.now() + timedelta(days=180)
    clock.pass_(days=95)
    await store.admit(item("young"), relays("young"))
    await store.retain(Retention())
    assert [await named(store, id) for id in ("T2", "T3", "H1", "H2")] == [False, True, True, False]
    assert await store.holds.find("H1") is not None
    assert await store.holds.find("H2") is None
    assert bytes((await store.contents.load(kept)).raw).endswith(b"kept\r\n")
    assert (
        await store.ask(lambda c: c.exec_driver_sql(f"SELECT COUNT(*) FROM content WHERE sha256 = '{gone}'").scalar())
        == 0
    )
    assert (await store.journal.verify()).ok
    assert (await store.journal.audit("elsewhere")).first_bad is None


async def test_the_journal_is_preserved_from_the_first_entry(store: Store, clock: Clock) -> None:
    await filled(store, 9)
    await store.preserve("T3", by="root", reason="")
    clock.pass_(days=60)
    await filled(store, 2)
    assert (await store.retain(MONTH)).entries == 4
    assert (await store.retain(MONTH)).entries == 0
    assert (await store.journal.entries(limit=1))[0][0].id == "T3"
    assert (await store.journal.verify()).ok
    clock.pass_(days=121)
    await filled(store, 1)
    await store.retain(MONTH)
    assert await store.preserved() == []
    assert [entry.kind for entry, _ in await store.journal.history("T3")] == [Kind.PRESERVED.value], (
        "the entry of its end"
    )
    assert (await store.journal.verify()).ok


async def test_an_extension_needs_two_people(store: Store, clock: Clock) -> None:
    await filled(store, 3)
    first = await store.preserve("T1", by="root", reason="")
    assert first is not None
    clock.pass_(days=100)
    for _ in range(2):
        asked = await store.preserve_longer("T1", EVA)
        assert (asked.until, asked.asked_by) == (first.until, EVA)
    asked = await store.preserve_longer("T1", "e.berg@example.com", also=[EVA])
    assert (asked.until, asked.asked_by) == (first.until, "e.berg@example.com"), "the same person"
    agreed = await store.preserve_longer("T1", OMAR)
    assert (agreed.until, agreed.asked_by) == (first.until + timedelta(days=180), "")
    assert await store.preserved() == [agreed]
    said = [
        entry.data["change"] for entry, _ in await store.journal.history("T1") if entry.kind == Kind.PRESERVED.value
    ]
    assert said == ["begun", *["renewal asked"] * 3, "renewed"]


async def test_a_second_start_adds_data_and_prolongs_nothing(store: Store, clock: Clock) -> None:
    """A person who starts it again, or writes a field of the form, would else renew it alone."""
    await filled(store, 3)
    first = await store.preserve("T1", by=EVA, reason="a lawsuit")
    asked = await store.preserve_longer("T1", EVA)
    clock.pass_(days=100)
    assert await store.preserve("T1", by="root", reason="an incident") == asked
    assert await store.preserved() == [asked]
    assert first is not None
    assert (asked.until, asked.reason) == (first.until, "a lawsuit")
    clock.pass_(days=81)
    late = await store.preserve("T1", by="root", reason="another one")
    assert late is not None
    assert (late.until, late.by) == (clock.now() + timedelta(days=180), "root"), "it had ended"


async def test_an_unknown_incident_is_not_preserved(store: Store) -> None:
    await filled(store, 1)
    assert await store.preserve("X", by="root", reason="") is None
    assert await store.preserved() == []


async def test_a_message_preserves_its_whole_mailing(store: Store, clock: Clock) -> None:
    for n in range(3):
        await store.journal.record(
            [event(Kind.VERDICT, f"T{n}", at=clock.now(), action="relay", mailing="M" if n else None)]
        )
    await store.preserve("T2", by="root", reason="")
    clock.pass_(days=95)
    await store.retain(Retention())
    assert [await named(store, f"T{n}") for n in range(3)] == [False, True, True]


async def test_a_freeze_preserves_the_mailings_that_it_stopped(store: Store, clock: Clock) -> None:
    for n, mailing in enumerate(("N", "M", "M")):
        stopped = {"action": "hold", "freeze": "F1"} if n == 2 else {"action": "relay"}
        await store.journal.record([event(Kind.VERDICT, f"T{n}", at=clock.now(), mailing=mailing, **stopped)])
    await store.preserve("F1", by="root", reason="")
    clock.pass_(days=95)
    await store.retain(Retention())
    assert [await named(store, f"T{n}") for n in range(3)] == [False, True, True]


async def test_counts_of_a_mailing_are_preserved(tmp_path: Path) -> None:
    async with house(tmp_path, documents=documents()) as home:
        campaign = Campaign(home)
        for name in ("spring", "summer"):
            for n in range(4):
                await campaign.send(MEMBERS[n], mailing=name)
        spring, summer = sorted((one["id"] for one in map(dict, await rows(campaign))), key=str)
        await home.store.preserve(spring, by="root", reason="")
        home.clock.pass_(days=100)
        await campaign.send(MEMBERS[9], mailing="autumn")
        await home.store.retain(Retention())
        assert await home.store.mailings.find(spring) is not None
        assert await home.store.mailings.find(summer) is None
        assert (await home.store.journal.audit("elsewhere")).ok


async def rows(campaign: Campaign) -> list[dict[str, Any]]:
    from smtpguard.mailings.service import row

    return [dict(row(mailing)) for mailing in await campaign.service.list(least=1)]
