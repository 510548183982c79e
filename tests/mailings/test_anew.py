"""Copies that wait for people by themselves after an approval have the time of a new hold, and people are asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Choice, State
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign, approved, kinds
from tests.guard.house import MEMBERS
from tests.guard.office import ULF


async def waits(campaign: Campaign, why: str) -> list[str]:
    """Assert that one hold waits, with all its time left and everybody asked. Returns the copies under it."""
    home = campaign.home
    holds = await home.holds()
    (lead,) = [hold for hold in holds if hold.state is State.WAITING and not hold.primary]
    assert lead.expires_at == campaign.term.expires_at(None, home.in_force, home.clock.now())
    asked = {str(i.recipients[0].address) for i in await home.outbox() if i.hold_id == lead.hold_id and i.data.get(why)}
    assert asked == {DPO, EVA, OMAR}
    assert await told(campaign, lead.hold_id) == {ANNA: why}
    assert await campaign.approvals.sweep() == 0
    await campaign.decide(lead.hold_id)
    await campaign.office.until_quiet(timedelta(minutes=1), 3)
    return [hold.hold_id for hold in holds if hold.primary == lead.hold_id]


async def told(campaign: Campaign, hold_id: str) -> dict[str, str]:
    """Why it waits by itself, by each writer who is told."""
    found = [i for i in await campaign.home.outbox() if i.hold_id == hold_id and i.data.get("apart")]
    assert {i.data["notice"] for i in found} == {"held"}
    return {str(i.recipients[0].address): i.data["apart"] for i in found}


async def test_copies_whose_approval_has_ended_are_held_anew(tmp_path: Path) -> None:
    """Also those that waited for their stage until the approval was over."""
    async with approved(tmp_path, stages="{steps: [2, rest], pause: person}") as campaign:
        await campaign.office.until_quiet(steps=2)
        assert [campaign.office.relay.has(m) for m in MEMBERS[4:12]] == [1, 1, 0, 0, 0, 0, 0, 0]
        campaign.home.clock.pass_(days=8)
        await campaign.approvals.follow()
        assert len(await waits(campaign, "ended")) == 5
        assert [campaign.office.relay.has(m) for m in MEMBERS[4:12]] == [1, 1, 1, 1, 0, 0, 0, 0], "the first stage"


async def test_copies_that_differ_have_their_time_from_then_on(campaign: Campaign) -> None:
    """Not what is left of their own, which passed while people decided on the others."""
    home = campaign.home
    assert kinds(await campaign.to_members(0, 7)) == "rrrrhhh"
    assert kinds([await campaign.send(MEMBERS[7], body="Another offer with other words. " * 9)]) == "h"
    home.clock.pass_(hours=48)
    (lead,) = await home.store.holds.newest()
    await campaign.decide(lead.hold_id, seen=replace(Seen.of(lead), under=2))
    assert await waits(campaign, "differs") == []


async def test_each_writer_is_told_once_of_a_copy_that_differs(campaign: Campaign) -> None:
    home = campaign.home
    home.notices.flood.singly = 100
    await campaign.to_members(0, 7)
    await campaign.send(MEMBERS[7], sender=ULF, body="Another offer with other words. " * 9)
    (lead,) = await home.store.holds.newest()
    assert (lead.sender, lead.told) == (ANNA, (ULF,))
    await campaign.decide(lead.hold_id, seen=replace(Seen.of(lead), under=2))
    (other,) = [hold for hold in await home.holds() if hold.state is State.WAITING]
    assert (other.sender, other.told) == (ULF, (ANNA,))
    assert await told(campaign, other.hold_id) == {ANNA: "differs", ULF: "differs"}
    await campaign.decide(other.hold_id, Choice.REJECT, comment="No")
    outcome = [i for i in await home.outbox() if i.hold_id == other.hold_id and i.data["notice"] == "decided"]
    assert sorted(str(i.recipients[0].address) for i in outcome if i.data["writer"]) == [ANNA, ULF]
