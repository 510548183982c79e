"""An approval that takes effect after a delay: it can be undone until then, and lapses if the quorum is no longer
complete."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from smtpguard.app.clock import learned_clock
from smtpguard.database.errors import Unavailable
from smtpguard.database.schema import hold as table
from smtpguard.holds import effects
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.model import Choice, Conflict, Hold, NotEntitled, State
from smtpguard.mailings.service import Mailings
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.verdict import Held
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign, documents
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, House, PatchedStore, house

DELAY = Deadlines(release_delay_seconds=60)
MINUTE = timedelta(seconds=60)


async def held(home: House, *to: str, **more: Any) -> Hold:
    home.term = replace(home.term, release_delay_seconds=60)
    return await home.held(*to, **more)


async def approve(home: House, hold: Hold, *people: str, **more: Any) -> Hold:
    return (await home.approve(hold.hold_id, *people, **more)).hold


async def releases(home: House) -> list[str]:
    home.clock.pass_(seconds=0.001)
    leases = await home.store.outbox.lease("test", 100, 0)
    return [one.intent.hold_id or "" for one in leases if one.intent.kind is IntentKind.RELEASE]


async def notified(home: House) -> dict[str, list[str]]:
    """The outcomes in the notices to each person, by the time when they are due."""
    found: dict[str, list[str]] = {}
    for one in await home.outbox():
        if one.data.get("notice") == "decided":
            found.setdefault(str(one.recipients[0].address), []).append(one.data["outcome"])
    return found


async def votes(home: House, hold_id: str) -> list[dict[str, Any]]:
    return [data for kind, data in await home.events(hold_id) if kind == "vote"]


async def test_an_approval_is_enacted_when_its_delay_ends(home: House) -> None:
    hold = await approve(home, await held(home))
    last = home.clock.now()
    assert (hold.state, hold.release_at) == (State.WAITING, last + MINUTE)
    home.clock.pass_(seconds=59)
    assert await home.approvals().enact() == 0
    assert not await releases(home)
    home.clock.pass_(seconds=1)
    assert await home.approvals().enact() == 1
    assert await releases(home) == [hold.hold_id]
    hold = await home.hold(hold.hold_id)
    assert (hold.state, hold.release_at, hold.grant) == (State.APPROVED, None, None)
    events = await home.events(hold.hold_id)
    assert [kind for kind, _ in events] == ["verdict", "vote", "vote", "approved"]
    due, decided = "2026-03-02T09:01:00Z", "2026-03-02T09:00:00Z"
    assert [data.get("release_at") for _, data in events] == [None, None, due, None]
    assert events[-1][1]["decided_at"] == decided
    assert await home.approvals().enact() == 0


async def test_a_clock_that_jumps_ends_no_time_to_undo(home: House) -> None:
    await approve(home, await held(home))
    approvals = home.approvals()
    assert await approvals.enact() == 0
    home.clock.at += timedelta(hours=3)
    await approve(home, await held(home, subject="After the jump"))
    assert await approvals.enact() == 0
    home.clock.pass_(seconds=59)
    assert await approvals.enact() == 0
    home.clock.pass_(seconds=1)
    assert await approvals.enact() == 2


async def test_a_start_under_a_clock_far_ahead_ends_no_time_to_undo(home: House) -> None:
    await approve(home, await held(home))
    home.clock.at += timedelta(days=800)
    approvals = replace(home.approvals(), clock=await learned_clock(home.clock, home.store))
    assert await approvals.enact() == 0
    await approve(home, await held(home, subject="Under that clock"))
    home.clock.pass_(seconds=59)
    assert await approvals.enact() == 0
    home.clock.pass_(minutes=1)
    assert await approvals.enact() == 2


async def test_a_clock_that_is_behind_at_a_start_and_set_right_then_delays_no_approval(home: House) -> None:
    await approve(home, await held(home))
    home.clock.at -= timedelta(hours=3)
    approvals = home.approvals()
    assert await approvals.enact() == 0
    home.clock.at += timedelta(hours=3)
    home.clock.pass_(seconds=59)
    assert await approvals.enact() == 0
    home.clock.pass_(seconds=1)
    assert await approvals.enact() == 1


async def test_small_messages_and_a_zero_delay_are_released_at_once(home: House) -> None:
    few = await held(home, *MEMBERS[: effects.FEW])
    assert (await approve(home, few)).state is State.APPROVED
    many = await held(home, *MEMBERS[: effects.FEW + 1], subject="Another")
    assert (await approve(home, many)).release_at is not None
    every = await held(home, subject="A third")
    home.term = replace(home.term, release_delay_seconds=0)
    assert (await approve(home, every)).state is State.APPROVED


async def test_an_unknown_number_of_people_counts_as_many(home: House) -> None:
    hold = await held(home)
    doubt = replace(hold, reach=1, reach_at_least=True)
    assert effects.delay(doubt, 0, home.in_force, DELAY) == MINUTE
    assert effects.delay(replace(doubt, kind=effects.TEST), 0, home.in_force, DELAY) == timedelta()


@pytest.mark.parametrize(("of_list", "seconds"), [("5m", 300), ("0", 0)])
async def test_a_list_has_its_own_delay(of_list: str, seconds: int, tmp_path: Path) -> None:
    policy = POLICY.replace("    avoid: [pork]\n", f"    avoid: [pork]\n    release_delay: {of_list}\n")
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": policy.encode()}) as home:
        hold = await approve(home, await held(home))
        due = home.clock.now() + timedelta(seconds=seconds)
        assert hold.release_at == (due if seconds else None)
        both = replace(hold, lists=("news", "ramadan"))
        assert effects.delay(both, 60, home.in_force, DELAY) == timedelta(seconds=max(60, seconds))


@pytest.mark.parametrize("who", [EVA, DPO, OMAR, ANNA])
async def test_every_approver_and_the_writer_can_undo(who: str, home: House) -> None:
    hold = await approve(home, await held(home))
    home.clock.pass_(seconds=30)
    done = await home.approvals().unvote(hold.hold_id, approver=who, by="root", comment="Look again")
    assert (done.hold.state, done.hold.release_at) == (State.WAITING, None)
    assert [v.approver for v in done.hold.votes] == ([DPO] if who == EVA else [EVA])
    assert done.missing
    home.clock.pass_(hours=1)
    assert await home.approvals().enact() == 0
    assert not await releases(home)
    assert (await votes(home, hold.hold_id))[-1]["choice"] == "taken-back"
    heard = await notified(home)
    assert heard["anna@example.com"] == ["approved", "reopened"]
    assert all("reopened" in heard[one] for one in {EVA, DPO, OMAR} - {who})
    asked = {str(one.recipients[0].address) for one in await home.outbox() if one.data.get("asked")}
    assert asked == {EVA, DPO, OMAR} - {who} - {v.approver for v in done.hold.votes}, (
        "a vote that stands is not asked for"
    )


@pytest.mark.parametrize("end", ["rejected", "withdrawn"])
async def test_all_who_were_told_of_the_approval_are_told_of_its_end(end: str, home: House) -> None:
    hold = await approve(home, await held(home))
    if end == "rejected":
        await home.approvals().vote(hold.hold_id, Choice.REJECT, approver=OMAR, by="root", comment="No")
    else:
        await home.approvals().withdraw(hold.hold_id, sender=ANNA, by="root")
    heard = await notified(home)
    assert heard[ANNA] == ["approved", end]
    assert all(end in heard[one] for one in {EVA, DPO, OMAR} - ({OMAR} if end == "rejected" else set()))


@pytest.mark.parametrize("end", ["reopened", "rejected", "withdrawn"])
async def test_each_approval_and_its_end_is_told(end: str, home: House) -> None:
    hold = await approve(home, await held(home))
    await Mailings(home.store, home, home.clock).reopen(hold.mailing_id, approver=EVA, by="root")
    await approve(home, hold)
    if end == "reopened":
        await home.approvals().unvote(hold.hold_id, approver=EVA, by="root")
    elif end == "rejected":
        await home.approvals().vote(hold.hold_id, Choice.REJECT, approver=EVA, by="root", comment="No")
    else:
        await home.approvals().withdraw(hold.hold_id, sender=ANNA, by="root")
    heard = await notified(home)
    assert sorted(heard[ANNA]) == sorted(["approved", "reopened", "approved", end])
    assert heard[OMAR].count(end) == (2 if end == "reopened" else 1)


@pytest.mark.parametrize("delay", [60, 0])
async def test_approvals_within_a_second_are_told_and_sent_apart(delay: int, home: House) -> None:
    hold = await held(home)
    home.term = replace(home.term, release_delay_seconds=delay)
    for _ in range(3):
        await approve(home, hold)
        await Mailings(home.store, home, home.clock).reopen(hold.mailing_id, approver=EVA, by="root")
    heard = await notified(home)
    assert heard[ANNA].count("reopened") == heard[OMAR].count("reopened") == 3
    await approve(home, hold)
    home.clock.pass_(hours=1)
    await home.approvals().enact()
    assert await releases(home) == [hold.hold_id]


@pytest.mark.parametrize("undone", [False, True])
async def test_who_writes_a_copy_until_it_goes_is_told(undone: bool, campaign: Campaign) -> None:
    campaign.term = campaign._intake.term = campaign.approvals.term = Deadlines(copies=50, release_delay_seconds=60)
    given = await campaign.to_members(0, 5)
    assert isinstance(given[-1], Held)
    await campaign.decide(given[-1].hold_id, all_at_once=25)
    await campaign.send(MEMBERS[6], sender="ulf@example.com")
    if undone:
        await campaign.approvals.unvote(given[-1].hold_id, approver=EVA, by="root")
    heard = await notified(campaign.home)
    assert sorted(heard["ulf@example.com"]) == (["approved", "reopened"] if undone else ["approved"])


async def test_others_cannot_undo_nor_anyone_after_the_release(home: House) -> None:
    hold = await approve(home, await held(home))
    with pytest.raises(NotEntitled):
        await home.approvals().unvote(hold.hold_id, approver="mallory@example.com", by="root")
    home.clock.pass_(seconds=60)
    await home.approvals().enact()
    with pytest.raises(Conflict, match="already approved"):
        await home.approvals().unvote(hold.hold_id, approver=EVA, by="root")


async def test_the_out_of_hours_approver_can_undo_after_opening(home: House) -> None:
    home.clock.at = home.clock.at.replace(hour=6, minute=59, second=30)  # working hours begin at seven, UTC
    hold = await approve(home, await held(home), "duty@example.com")
    assert hold.release_at is not None
    home.clock.pass_(seconds=45)
    done = await home.approvals().unvote(hold.hold_id, approver="duty@example.com", by="root")
    assert done.hold.votes == ()


async def test_an_approved_hold_cannot_be_approved_again(home: House) -> None:
    hold = await approve(home, await held(home))
    with pytest.raises(Conflict, match=r"already approved, and will be sent, approved by"):
        await home.approve(hold.hold_id, OMAR)


async def test_during_the_delay_it_neither_expires_nor_reminds(home: House) -> None:
    hold = await held(home)
    home.clock.at = hold.expires_at - timedelta(seconds=30)
    home.clock.ticks += 1e6
    await approve(home, hold)
    home.clock.pass_(seconds=45)
    before = await home.events(hold.hold_id)
    await home.approvals().sweep()
    assert await home.events(hold.hold_id) == before
    home.clock.pass_(seconds=15)
    assert await home.approvals().enact() == 1


async def test_of_two_processes_one_enacts_it(home: House) -> None:
    hold = await approve(home, await held(home))
    home.clock.pass_(seconds=60)
    both = await asyncio.gather(*(home.approvals().enact() for _ in range(2)))
    assert sum(both) == 1
    assert await releases(home) == [hold.hold_id]
    assert [kind for kind, _ in await home.events(hold.hold_id)].count("approved") == 1


async def test_an_enactment_that_fails_is_retried_and_blocks_no_other(home: House) -> None:
    first, second = await approve(home, await held(home)), await approve(home, await held(home, subject="Another"))
    home.clock.pass_(seconds=60)

    async def change(hold_id: str, *step: Any) -> Any:
        if hold_id == first.hold_id:
            raise Unavailable("gone")
        return await home.store.holds.change(hold_id, *step)

    home.given_store = PatchedStore(home.store, {"holds.change": change})
    assert await home.approvals().enact() == 1
    assert await releases(home) == [second.hold_id]
    home.given_store = home.store
    assert await home.approvals().enact() == 1


async def test_if_an_approver_left_the_group_the_approval_lapses(home: House) -> None:
    hold = await approve(home, await held(home))
    policy = POLICY.replace("compliance: [dpo@example.com", "compliance: [new@example.com")
    assert policy != POLICY
    await home.put({**DOCUMENTS, "policy.yaml": policy.encode()})
    assert await home.approvals().enact() == 1
    hold = await home.hold(hold.hold_id)
    assert (hold.state, hold.release_at, len(hold.votes)) == (State.WAITING, None, 2)
    assert (await votes(home, hold.hold_id))[-1]["choice"] == "lapsed"
    home.clock.pass_(minutes=2)
    assert await home.approvals().enact() == 0
    assert (await notified(home))["new@example.com"] == ["lapsed"]
    await approve(home, hold, "new@example.com")
    home.clock.pass_(minutes=1)
    assert await home.approvals().enact() == 1


# copies


async def mailing(campaign: Campaign) -> str:
    """The primary hold of a mailing to 25 people one by one, held from the fifth on."""
    campaign.approvals.term = campaign._intake.term = replace(campaign.term, copies=50, release_delay_seconds=60)
    done = await campaign.to_members(0, 29)
    return next(one.hold_id for one in done if isinstance(one, Held))


async def states(home: House) -> list[str]:
    return [hold.state.value for hold in await home.holds()]


async def test_copies_beyond_the_approved_number_wait_for_a_decision(campaign: Campaign) -> None:
    home = campaign.home
    lead = await mailing(campaign)
    await campaign.decide(lead, people=30)
    home.clock.pass_(seconds=1)
    await campaign.to_members(29, 33)
    home.clock.pass_(seconds=60)
    await campaign.approvals.enact()
    found = await states(home)
    assert (found.count("approved"), found.count("waiting")) == (26, 3)


async def test_copies_do_not_extend_the_approval_of_a_single_message(campaign: Campaign) -> None:
    """Copies that come meanwhile do not extend the approval of a single message."""
    home = campaign.home
    campaign.approvals.term = campaign._intake.term = replace(campaign.term, copies=50, release_delay_seconds=60)
    [first] = [await campaign.send(*MEMBERS[:25])]
    assert isinstance(first, Held)
    await campaign.decide(first.hold_id)
    home.clock.pass_(seconds=1)
    await campaign.send(MEMBERS[30])
    home.clock.pass_(seconds=60)
    await campaign.approvals.enact()
    assert await states(home) == ["approved", "waiting"]


async def test_a_copy_held_by_another_rule_makes_the_approval_lapse(tmp_path: Path) -> None:
    policy = documents()["policy.yaml"] + b'  - {id: much, when: {mailing.customers: ">= 30"}, then: hold}\n'
    async with house(tmp_path, documents={**documents(), "policy.yaml": policy}) as home:
        campaign = Campaign(home)
        lead = await mailing(campaign)
        await campaign.decide(lead, people=60)
        await campaign.to_members(29, 33)  # the 30th hits a rule that no approver has seen
        assert await campaign.approvals.enact() == 1
        hold = await home.hold(lead)
        assert (hold.state, hold.release_at) == (State.WAITING, None)
        assert "lapsed" in (await notified(home))[EVA]


async def test_another_number_at_once_needs_another_approval(tmp_path: Path) -> None:
    async with house(tmp_path, documents=documents(stages="[10, rest]")) as home:
        hold = await held(home)
        approved = await approve(home, hold, all_at_once=60)
        assert approved.release_at is not None

        await set_reach(home, hold.hold_id, 61)
        home.clock.pass_(seconds=60)
        assert await home.approvals().enact() == 1
        lapsed = await home.hold(hold.hold_id)
        assert (lapsed.state, lapsed.release_at, [v.approver for v in lapsed.votes]) == (State.WAITING, None, [EVA])
        await approve(home, lapsed, DPO, all_at_once=61)
        home.clock.pass_(seconds=60)
        await home.approvals().enact()
        assert (await home.hold(hold.hold_id)).state is State.APPROVED


async def set_reach(home: House, hold_id: str, reach: int) -> None:
    change = update(table).where(table.c.hold_id == hold_id).values(reach=reach)
    await home.store.write(lambda batch: batch.connection.execute(change))
