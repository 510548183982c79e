"""Mail to the address of a list that declares stages: it cannot be staged, so its approval has to confirm that it goes
to all at once, or the policy forbids it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpguard.holds import effects
from smtpguard.holds.model import Choice, Hold, Unconfirmed
from smtpguard.holds.model import State as Held
from smtpguard.mailings.model import Correction, State
from smtpguard.policy.verdict import Held as IsHeld
from tests.guard.campaign import DPO, EVA, Campaign, documents, kinds
from tests.guard.house import MEMBERS, RAMADAN, house

STAGES = '{steps: [5, "20%", rest], pause: 30m}'
REFUSES = STAGES + "\n    stages_by_address: refuse"


@asynccontextmanager
async def campaign(folder: Path, stages: str = STAGES) -> AsyncIterator[Campaign]:
    async with house(folder, documents=documents(stages=stages)) as home:
        yield Campaign(home, copies=50)


async def posted(made: Campaign, **more: Any) -> Hold:
    """The primary hold of a message to the list's address, one vote short of its quorum."""
    given = await made.send(RAMADAN, **more)
    assert isinstance(given, IsHeld)
    stored = await made.home.hold(given.hold_id)
    lead = stored.primary or stored.hold_id
    await made.approvals.vote(lead, Choice.APPROVE, approver=EVA, by="test")
    return await made.home.hold(lead)


async def approve(made: Campaign, hold: Hold, all_at_once: int | None = None) -> None:
    await made.approvals.vote(hold.hold_id, Choice.APPROVE, approver=DPO, by="test", all_at_once=all_at_once)


@pytest.mark.parametrize("said", [None, 61])
async def test_approval_needs_the_number_of_people_reached_at_once(tmp_path: Path, said: int | None) -> None:
    async with campaign(tmp_path) as made:
        hold = await posted(made)
        with pytest.raises(Unconfirmed, match="60 people at once"):
            await approve(made, hold, said)
        assert (await made.home.hold(hold.hold_id)).state is Held.WAITING
        await approve(made, hold, 60)
        assert (await made.home.hold(hold.hold_id)).state is Held.APPROVED
        [data] = [data for kind, data in await made.home.events(hold.hold_id) if kind == "approved"]
        assert data["at_once"] == 60


async def test_all_recipients_get_it_and_no_stage_is_shown(tmp_path: Path) -> None:
    async with campaign(tmp_path) as made:
        await approve(made, await posted(made), 60)
        await made.office.until_quiet(steps=2)
        one = await made.one()
        assert (one["relayed"], one["state"], one["stage"]) == (60, "approved", None)


async def test_the_policy_may_forbid_it(tmp_path: Path) -> None:
    async with campaign(tmp_path, REFUSES) as made:
        hold = await posted(made)
        for said in (None, 60):
            with pytest.raises(Unconfirmed, match="Send it as single copies"):
                await approve(made, hold, said)
        assert (await made.home.hold(hold.hold_id)).state is Held.WAITING


async def test_single_copies_are_staged_but_a_message_to_the_address_is_not(tmp_path: Path) -> None:
    async with campaign(tmp_path) as made:
        await made.to_members(0, 12)
        (single,) = await made.home.store.holds.newest(states=[Held.WAITING])
        assert single.versions == ()
        hold = await posted(made)
        assert (hold.hold_id != single.hold_id, hold.primary) == (True, ""), "it has its own decision"
        await made.decide(single.hold_id)
        assert (await made.one())["stage"] is not None
        with pytest.raises(Unconfirmed):
            await approve(made, hold)
        assert (await made.home.hold(hold.hold_id)).state is Held.WAITING


async def test_a_staged_approval_does_not_cover_mail_to_the_address(tmp_path: Path) -> None:
    async with campaign(tmp_path) as made:
        await made.to_members(0, 12)
        (single,) = await made.home.store.holds.newest(states=[Held.WAITING])
        await made.decide(single.hold_id)
        assert (await made.one())["stage"] is not None
        given = await made.send(RAMADAN)
        assert isinstance(given, IsHeld), "the number reached at once has to be confirmed"
        anew = await made.home.hold(given.hold_id)
        assert anew.versions != ()
        with pytest.raises(Unconfirmed):
            await made.decide(anew.hold_id)


async def test_after_delivery_to_all_no_stage_follows(tmp_path: Path) -> None:
    """A message to many single people cannot be staged either: with its approval all get it."""
    async with campaign(tmp_path) as made:
        given = await made.send(*MEMBERS[:20])
        assert isinstance(given, IsHeld)
        await made.decide(given.hold_id, people=20)
        await made.office.until_quiet(steps=2)
        one = await made.service.show((await made.one())["id"])
        assert (one.state, one.people.relayed) == (State.APPROVED, 20)
        assert kinds(await made.to_members(0, 2)) == "rr"


async def test_what_no_stages_hold_back_is_not_said_to_be_sent_in_stages(tmp_path: Path) -> None:
    """Letters of one sender, and a correction, go out all at once with their approval."""
    async with campaign(tmp_path) as made:
        await made.to_members(0, 12)
        (hold,) = await made.home.store.holds.newest(states=[Held.WAITING])
        letters = replace(hold, by_sender=True, letter_from=("anna@example.com",))
        exact = Correction(mailing_id=hold.mailing_id, people="", as_of=hold.held_at, sent=4)
        assert effects.stages(hold, made.home.in_force) is not None
        for other in (letters, replace(hold, kind=effects.TEST, correction=exact)):
            assert effects.stages(other, made.home.in_force) is None
