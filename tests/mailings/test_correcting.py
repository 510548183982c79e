"""The correction of a mailing: its approval covers exactly the people who got the mailing, each once, whatever happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from smtpguard.admission.preapproval import NotAll
from smtpguard.database.schema import peopleset
from smtpguard.holds.model import Change, Choice, Conflict, NotEntitled, Refused, State
from smtpguard.lists.index import index_path
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import OK, RELAY_LOST, Reply
from smtpguard.mailings.model import CopyStatus, set_of
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Held, Relayed
from smtpguard.store.retention import Retention
from tests import program
from tests.clocks import MONDAY
from tests.guard.campaign import ANNA, EVA, OMAR, documents
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, index
from tests.mailings.correcting import GOT, MAY, Correcting, correcting, digest

OTHER = MEMBERS[10]


@pytest.fixture
async def here(tmp_path: Path, url: str) -> AsyncIterator[Correcting]:
    async with correcting(tmp_path, url) as made:
        yield made


@pytest.fixture
async def lite(tmp_path: Path) -> AsyncIterator[Correcting]:
    async with correcting(tmp_path) as made:
        yield made


async def test_each_recipient_of_the_mailing_gets_one_copy(here: Correcting) -> None:
    mailing = await here.original()
    hold = await here.begin(mailing, starter="Eva+work@Example.com")
    assert hold.correction is not None
    assert (hold.correction.sent, hold.correction.may, hold.reach) == (3, 0, 3)
    assert hold.correction.people == set_of(map(digest, GOT)), "the set of people as an export names it"
    await here.home.freeze(Selector.LIST, "ramadan")
    assert isinstance(await here.send(GOT[0]), Held), "it is not approved yet"
    with pytest.raises(NotEntitled):
        await here.campaign.approvals.vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await here.approve(hold)
    for one in GOT[:2]:
        assert isinstance(await here.send(one), Relayed), "a freeze of the list does not stop it"
        assert isinstance(await here.send(one), Held), "not twice"
    for to in ((MAY,), (OTHER,), (GOT[2], OTHER), (GOT[2], GOT[2].upper()), (RAMADAN,), (ANNA, OTHER)):
        assert isinstance(await here.send(*to), Held)
    assert isinstance(await here.send(GOT[2], body="Something else."), Held), "no other mail passes either"
    await here.home.freeze(id="F2")
    assert isinstance(await here.send(GOT[2]), Held), "a freeze of everything stops it"
    assert here.reached == dict.fromkeys(GOT[:2], 1)
    passed = [entry.data for entry, _ in await here.home.store.journal.entries() if entry.data.get("set")]
    assert {data["set"] for data in passed if data.get("action") == "relay"} == {hold.correction.people}


async def test_recipients_in_doubt_are_included_if_chosen(lite: Correcting) -> None:
    mailing = await lite.original()
    hold = await lite.begin(mailing, doubt=True)
    assert hold.correction is not None
    assert (hold.correction.sent, hold.correction.may) == (3, 1)
    await lite.approve(hold)
    assert isinstance(await lite.send(MAY), Relayed)
    [said] = [e.data for e, _ in await lite.home.store.journal.history(mailing.mailing_id) if e.kind == "mailing"]
    assert (said["what"], said["hold"], said["people"], said["may"]) == ("correction", hold.hold_id, 3, 1)


async def test_a_freeze_between_verdict_and_final_dot(lite: Correcting) -> None:
    """A freeze of the list between verdict and dot does not recall the correction; a freeze of all mail does."""
    await lite.approve(await lite.begin(await lite.original()))

    async def of_the_list() -> None:
        await lite.home.freeze(Selector.LIST, "ramadan")

    async def of_all() -> None:
        await lite.home.freeze(id="F2")

    assert isinstance(await lite.send(GOT[0], way=FakePassage(before_dot=of_the_list)), Relayed)
    assert isinstance(await lite.send(GOT[1], way=FakePassage(before_dot=of_all)), Held)
    assert lite.reached == {GOT[0]: 1}


@pytest.mark.parametrize("seed", range(4))
async def test_laws_of_a_correction(lite: Correcting, seed: int) -> None:
    """For any recipients, replies and order, nobody but the mailing's recipients gets the correction, and each at most
    once."""
    chance = random.Random(seed)
    await lite.approve(await lite.begin(await lite.original(), doubt=bool(seed % 2)))
    whom = {*GOT, MAY} if seed % 2 else set(GOT)
    ends = [FakePassage, FakePassage, lambda: FakePassage(replies=(Reply(451, ("4.2.0 later",)),)), lambda: FakePassage(raises=Lost(RELAY_LOST)),
            lambda: FakePassage(raises=Lost(RELAY_LOST, after_dot=True)), lambda: FakePassage(replies=(Reply(550, ("5.1.1 no",)),))]  # fmt: skip
    for n in range(60):
        to = chance.choices([*GOT, MAY, OTHER, MEMBERS[11]], k=chance.choice([1, 1, 1, 2]))
        again = {"Message_ID": "<again@example.com>"} if chance.random() < 0.2 else {}
        await lite.send(*dict.fromkeys(to), way=chance.choice(ends)(), **again)
        if n == 20:
            await lite.home.freeze(Selector.LIST, "ramadan")
    assert lite.reached.keys() <= whom
    assert set(lite.reached.values()) <= {1}
    for one in sorted(
        whom - lite.reached.keys()
    ):  # anyone whom the relay surely does not have can still be sent theirs
        assert isinstance(await lite.send(one, way=FakePassage(replies=(OK,))), Relayed)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_during_a_correction(tmp_path: Path, url: str, when: str) -> None:
    """After a kill, a person in doubt waits for people's decision, and the others are sent theirs."""
    async with correcting(tmp_path, url) as here:
        await here.approve(await here.begin(await here.original()))
    words = [str(tmp_path), url, when]
    child = await asyncio.to_thread(program.run, words, timeout=120, module="tests.mailings.correcting")
    assert child.returncode == -9, child.stderr
    assert child.stdout == ("sent\n" if when == "after" else "")
    async with correcting(tmp_path, url) as here:
        here.home.ids = iter(f"N{n:015d}" for n in range(1000))
        here.message()
        for one in GOT:
            done = [type(await here.send(one)) for _ in range(2)]
            assert done == ([Relayed, Held] if one == GOT[2] else [Held, Held]), one
        assert here.reached == {GOT[2]: 1}


async def test_retention_keeps_the_people_of_a_correction_that_waits_or_is_approved(lite: Correcting) -> None:
    mailing = await lite.original()
    hold = await lite.begin(mailing)
    short = Retention(addresses=timedelta(days=1))
    for one in GOT[:2]:
        lite.home.clock.pass_(days=1, hours=1)
        await lite.home.watch.read()
        await lite.home.store.retain(short)
        if one == GOT[0]:
            await lite.approve(hold)
        assert isinstance(await lite.send(one), Relayed)
    lite.home.clock.pass_(days=30)
    while (await lite.home.store.retain(short)).more:
        pass
    assert not await lite.home.store.ask(lambda c: c.execute(select(peopleset.c.name)).all())


async def test_a_rejected_copy_does_not_end_the_approval(lite: Correcting) -> None:
    """The rejection of a held copy for another person leaves the correction's approval. Only the mailing's own commands
    revoke it."""
    mailing = await lite.original()
    hold = await lite.begin(mailing)
    await lite.approve(hold)
    stray = await lite.send(OTHER)
    assert isinstance(stray, Held)
    waiting = await lite.home.store.holds.find(stray.hold_id)
    assert waiting is not None
    assert [h.rule for h in waiting.verdict.hits if h.rule == "correction-astray"]
    await lite.campaign.approvals.vote(stray.hold_id, Choice.REJECT, approver=OMAR, by="test", comment="Not them")
    assert isinstance(await lite.send(GOT[0]), Relayed)
    await lite.campaign.service.reopen(hold.mailing_id, approver=OMAR, by="test")
    after = await lite.home.store.mailings.find(hold.mailing_id)
    assert after is not None
    assert after.grants == ()


async def test_recipients_behind_a_list_address_are_its_members_then(lite: Correcting) -> None:
    """The correction of mail to a list's address covers the list's members, as long as the list is unchanged. If it has
    changed, an export of that time is needed."""
    held = await lite.campaign.send(RAMADAN)
    assert isinstance(held, Held)
    await lite.campaign.decide(held.hold_id, all_at_once=60)
    [mailing] = await lite.home.store.mailings.newest()
    hold = await lite.begin(mailing, doubt=True)
    assert hold.correction is not None
    assert hold.correction.reach == len(MEMBERS)
    index(lite.home.folder, "ramadan", MEMBERS[1:], MONDAY + timedelta(hours=1))
    await lite.home.follow()
    with pytest.raises(NotAll, match="the address of ramadan"):
        await lite.begin(mailing, doubt=True, body="Again")
    then = {digest(one): CopyStatus.RELAYED for one in MEMBERS}
    made = await lite.corrections.begin(
        mailing, lite.message(body="Once more"), starter=EVA, by="test", doubt=True, matched=then
    )
    assert made.correction is not None
    assert made.correction.people == hold.correction.people


@pytest.mark.parametrize("known_again", [True, False])
async def test_a_list_that_had_no_index_is_no_single_person(lite: Correcting, known_again: bool) -> None:
    """An approval of a correction to one person, who is none, would tell nobody of what the whole list got."""
    ramadan = index_path(lite.home.folder, "ramadan")
    there = ramadan.read_bytes()
    ramadan.unlink()
    await lite.home.follow()
    held = await lite.campaign.send(RAMADAN)
    assert isinstance(held, Held)
    await lite.campaign.decide(held.hold_id, all_at_once=1)
    if known_again:
        ramadan.write_bytes(there)
        await lite.home.follow()
    [mailing] = await lite.home.store.mailings.newest()
    with pytest.raises(NotAll, match="the address of ramadan"):
        await lite.begin(mailing, doubt=True)
    then = {digest(one): CopyStatus.RELAYED for one in MEMBERS}
    made = await lite.corrections.begin(mailing, lite.message(), starter=EVA, by="test", matched=then)
    assert made.correction is not None
    assert (made.correction.people, made.correction.sent) == (set_of(then), len(MEMBERS))


async def test_who_begins_a_void_correction_again_does_not_decide_on_it(lite: Correcting) -> None:
    """The process of who began it first was killed before they were answered."""
    mailing = await lite.original()
    first = await lite.begin(mailing)
    await lite.home.store.holds.change(first.hold_id, lambda h: Change(hold=replace(h, state=State.VOID)))
    again = await lite.begin(mailing, starter=OMAR)
    assert (again.hold_id, again.correction and again.correction.by, again.told) == (first.hold_id, OMAR, (OMAR,))
    with pytest.raises(NotEntitled):
        await lite.approve(again)


async def test_invalid_corrections_are_refused(lite: Correcting) -> None:
    mailing = await lite.original()
    with pytest.raises(NotEntitled):
        await lite.begin(mailing, starter=ANNA)
    policy = {name: text.replace(b", out_of_hours: {from: [duty]}", b"") for name, text in documents().items()}
    await lite.home.put(policy)
    with pytest.raises(Refused, match="too few approvers are left"):
        await lite.begin(mailing, sender=OMAR)
    with pytest.raises(Conflict, match="reads like the mailing"):
        await lite.begin(mailing, X_Mailing="spring")
    message = lite.message()
    lite.home.reader.sketch = type(lite.home.reader.sketch)()
    with pytest.raises(Refused, match="too short"):
        await lite.corrections.begin(mailing, message, starter=EVA, by="test")
    first = await lite.begin(mailing)
    assert (await lite.begin(mailing)).hold_id == first.hold_id, "the same correction gets the same hold"
    assert first.state is State.WAITING
