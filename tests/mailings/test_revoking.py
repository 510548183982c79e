"""Revoking an approval as far as nothing is sent: by approvers, by the writer, with the whole mailing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from smtpguard.database.schema import outbox
from smtpguard.holds.deadlines import REMINDERS, Deadlines
from smtpguard.holds.model import Change, Choice, Conflict, Hold, NotEntitled, Refused, State
from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.mail.envelope import Lost
from smtpguard.mail.reply import RELAY_LOST, Reply
from smtpguard.mailings.model import PeopleCounts
from smtpguard.mailings.model import State as MailingState
from smtpguard.mailings.service import Mailings
from smtpguard.outbox.model import INTENT, AttemptResult, IntentKind, Lease, Settled
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Held as IsHeld
from tests.clocks import MONDAY
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign, approved, kinds
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, House
from tests.guard.office import BO, LATER, NO, OK, ULF, Office

REJECT = Choice.REJECT


async def rejects(home: House, hold_id: str, who: str = EVA, comment: str = "Wrong list", **more: Any) -> Hold:
    done = await home.approvals().vote(hold_id, REJECT, approver=who, by="test", comment=comment, **more)
    return done.hold


async def notices(home: House) -> list[tuple[str, dict[str, Any]]]:
    """(recipient, data) of the notices about decisions, sent or not."""
    docs = await home.store.ask(
        lambda c: c.execute(select(outbox.c.doc).where(outbox.c.kind == "notice")).scalars().all()
    )
    found = [intent for doc in docs if (intent := INTENT.loads(doc)).data["notice"] == "decided"]
    return sorted(((str(i.recipients[0].address), dict(i.data)) for i in found), key=lambda one: (one[0], str(one[1])))


async def journal(home: House, id: str) -> list[tuple[str, dict[str, Any]]]:
    """The journal entries of the hold, without notices."""
    return [(kind, data) for kind, data in await home.events(id) if kind != "notice"]


async def releases(home: House, n: int = 100) -> list[Lease]:
    """Lease ``n`` releases, after sending all notices."""
    for lease in await home.store.outbox.lease("clerk", 100, 60):
        if lease.intent.kind is IntentKind.NOTICE:
            sent = [AttemptResult(recipient=r, event=DeliveryEvent.TAKE) for r in lease.recipients]
            await home.store.outbox.settle(lease, sent, [])
        else:
            await home.store.outbox.settle(lease, [], [])
    return list(await home.store.outbox.lease("me", n, 60))


def attempts(office: Office) -> int:
    """How often a delivery of the message itself was attempted."""
    return sum(RAMADAN in asked for asked in office.relay.asked)


async def outcomes(home: House) -> list[tuple[str, str]]:
    return sorted((who, data["outcome"]) for who, data in await notices(home))


async def test_a_frozen_release_is_rejected_and_not_sent_after_the_thaw(office: Office) -> None:
    hold_id = await office.approved()
    await office.home.freeze()
    done = await rejects(office.home, hold_id, OMAR)
    assert done.state is State.REJECTED
    await office.home.thaw()
    await office.until_quiet(steps=3)
    assert attempts(office) == 0
    assert await office.state(hold_id) is State.REJECTED
    events = await journal(office.home, hold_id)
    assert [kind for kind, _ in events][-2:] == ["vote", "rejected"]
    assert events[-1][1] == {"was": "approved"}


@pytest.mark.parametrize(
    ("said", "state", "people"),
    [
        (OK, State.RELEASED, {"relayed": 60}),
        (LATER, State.REJECTED, {"stopped": 60}),
        (NO, State.REJECTED, {"refused": 60}),
        (None, State.IN_DOUBT, {"doubted": 60}),
    ],
)
async def test_a_release_being_sent_is_in_doubt_until_the_relay_answers(
    office: Office, said: Reply | None, state: State, people: dict[str, Any]
) -> None:
    """A rejection during an attempt leaves doubt until the relay replies, and nothing is sent again. ``said`` None: no
    reply."""
    hold_id = await office.approved()
    seen: list[Any] = []

    async def meanwhile() -> None:
        held = await rejects(office.home, hold_id)
        seen.append((held.state, held.stopped, held.settled))
        (mailing,) = await office.store.mailings.newest()
        seen.append((mailing.people.doubted, mailing.people.all))

    office.relay.before_dot = meanwhile
    office.relay.says = {RAMADAN: said} if said is not None else {}
    office.relay.raises = Lost(RELAY_LOST, after_dot=True) if said is None else None
    office.relay.takes_before_raising = True
    await office.step()
    assert seen == [(State.IN_DOUBT, True, Settled(doubted=1)), (60, 60)]
    assert await office.state(hold_id) is state
    (mailing,) = await office.store.mailings.newest()
    assert mailing.people == PeopleCounts(**people)
    had = office.relay.has(RAMADAN)
    office.relay.says, office.relay.raises, office.relay.before_dot = {}, None, lambda: None
    await office.until_quiet(steps=3)
    assert office.relay.has(RAMADAN) == had
    assert await office.state(hold_id) is state
    decided = (await office.store.journal.activity(MONDAY, None, UTC)).decided
    assert (decided.rejected, decided.total) == (state is State.REJECTED, 1), "as the lists show it"


async def test_a_slow_process_does_not_send_under_a_new_approval(office: Office) -> None:
    """After revocation, reopening, a new approval and a new lease, the worker with the old lease does not send."""
    home = office.home
    hold_id = await office.approved()
    held = await office.home.hold(hold_id)
    [slow] = await office.store.outbox.lease("slow", 10, 60)
    await office.go(seconds=61)
    mailings = Mailings(home.store, home, home.clock)
    await mailings.reopen(held.mailing_id, approver=EVA, by="test")
    await home.approve(hold_id)
    [lease] = [x for x in await office.store.outbox.lease("another", 100, 60) if x.intent.kind is IntentKind.RELEASE]
    await office.worker.carry_out(slow)
    assert office.relay.has(RAMADAN) == 0, "the lease is looked at once more before the final dot"
    await office.worker.carry_out(lease)
    assert (office.relay.has(RAMADAN), await office.state(hold_id)) == (1, State.RELEASED)


async def test_a_partly_sent_release_is_stopped_for_the_rest(office: Office) -> None:
    hold_id = await office.approved(ULF, BO)
    office.relay.says = {ULF: LATER, BO: NO}
    await office.step()
    await office.home.freeze()
    done = await rejects(office.home, hold_id)
    assert (done.state, done.stopped) == (State.RELEASED, True)
    await office.home.thaw()
    office.relay.says = {}
    await office.until_quiet(steps=60)
    assert [office.relay.has(to) for to in (RAMADAN, ULF, BO)] == [1, 0, 0]
    events = await journal(office.home, hold_id)
    assert events[-1] == ("stopped", {"sent": 1, "failed": 2, "doubted": 0, "spared": 1, "people": 1})
    assert [k for k, _ in events].count("rejected") == 0
    assert [d.data["action"] for d in office.dsns()] == ["failed"], "only for the recipient that the relay refused"
    told = [data for _, data in await notices(office.home) if data["outcome"] == "stopped"]
    assert {(d["has"], d["doubt"], d["left"]) for d in told} == {(1, 0, 2)}
    assert [who for who, what in await outcomes(office.home) if what == "stopped"] == [ANNA, DPO, OMAR]


# -- who may


async def test_a_reason_is_required_and_sent_to_all_notified(office: Office) -> None:
    hold_id = await office.approved()
    with pytest.raises(Refused, match="give a reason"):
        await rejects(office.home, hold_id, comment=" ")
    assert await office.state(hold_id) is State.APPROVED
    await rejects(office.home, hold_id, EVA, "Not to this list")
    told = [(who, d["comment"], d["by"]) for who, d in await notices(office.home) if d["outcome"] == "rejected"]
    assert told == [(who, "Not to this list", EVA) for who in (ANNA, DPO, OMAR)]


async def test_an_out_of_hours_approver_may_revoke_later(home: House) -> None:
    home.clock.pass_(hours=14)
    office = Office(home)
    hold_id = (await home.held()).hold_id
    duty: dict[str, Any] = {"approver": "duty@example.com", "by": "test"}
    await home.approvals().vote(hold_id, Choice.APPROVE, **duty)
    await office.go(hours=10)
    assert home.in_force.hours.open_at(home.clock.now())
    done = await home.approvals().vote(hold_id, REJECT, comment="I misread it", **duty)
    assert done.hold.state is State.REJECTED


async def test_the_writer_withdraws_an_approved_message(office: Office) -> None:
    hold_id = await office.approved()
    await office.home.freeze()
    with pytest.raises(NotEntitled):
        await office.home.approvals().withdraw(hold_id, sender=EVA, by="test")
    with pytest.raises(NotEntitled, match="no one decides on their own message: its writer withdraws it"):
        await rejects(office.home, hold_id, ANNA)
    done = await office.home.approvals().withdraw(hold_id, sender="anna+x@example.com", by="test", comment="My mistake")
    assert done.hold.state is State.WITHDRAWN
    await office.home.thaw()
    await office.until_quiet(steps=3)
    assert attempts(office) == 0
    assert [who for who, what in await outcomes(office.home) if what == "withdrawn"] == [ANNA, DPO, EVA, OMAR]
    events = await journal(office.home, hold_id)
    assert events[-1] == ("withdrawn", {"was": "approved"})
    with pytest.raises(Conflict, match="it is already withdrawn"):
        await office.home.approvals().withdraw(hold_id, sender=ANNA, by="test")


async def test_a_rejection_stops_a_concurrent_approval(office: Office) -> None:
    home = office.home
    hold_id = (await home.held("news@lists.example.com")).hold_id
    votes = (
        home.approvals().vote(hold_id, choice, approver=who, by="test", comment="no")
        for choice, who in ((Choice.APPROVE, EVA), (REJECT, OMAR))
    )
    done = await asyncio.gather(*votes, return_exceptions=True)
    assert await office.state(hold_id) is State.REJECTED
    assert sum(isinstance(one, Conflict) for one in done) < 2
    await office.until_quiet(steps=2)
    assert office.relay.has("news@lists.example.com") == 0


# -- a mailing


@pytest.fixture
async def spring(tmp_path: Path) -> AsyncIterator[Campaign]:
    """Four people got it before it was held. Eight copies wait under one hold, and are approved during a freeze."""
    async with approved(tmp_path) as made:
        yield made


async def primary_hold(campaign: Campaign) -> Hold:
    leads = [h for h in await campaign.home.store.holds.newest() if not h.primary]
    return leads[-1]


async def states(campaign: Campaign) -> list[str]:
    """The states of its holds, in order of arrival."""
    return [h.state.value for h in await campaign.home.holds()]


async def arrived(campaign: Campaign) -> int:
    await campaign.office.until_quiet(steps=3)
    return sum(campaign.office.relay.has(m) for m in MEMBERS)


async def test_a_rejection_stops_all_copies_and_refuses_later_ones(spring: Campaign) -> None:
    entry = await primary_hold(spring)
    await spring.home.freeze()
    done = await spring.approvals.vote(entry.hold_id, REJECT, approver=EVA, by="test", comment="Wrong text")
    assert (done.outgoing.back, done.outgoing.gone, done.outgoing.going) == (8, 0, 0)
    assert await states(spring) == ["rejected"] * 8
    await spring.home.thaw()
    assert await arrived(spring) == 0
    one = await spring.one()
    assert (one["state"], one["approved"], one["held"]) == ("rejected", None, 0)
    assert kinds(await spring.to_members(12, 14)) == "xx"
    told = [d for who, d in await notices(spring.home) if d["outcome"] == "rejected"]
    assert {(d["back"], d["gone"]) for d in told} == {(8, 0)}


async def test_a_withdrawal_stops_all_copies_and_later_ones_are_judged(spring: Campaign) -> None:
    entry = await primary_hold(spring)
    await spring.approvals.withdraw(entry.hold_id, sender=ANNA, by="test")
    assert await states(spring) == ["withdrawn"] * 8
    assert (await spring.one())["approved"] is None
    assert await arrived(spring) == 0
    assert kinds(await spring.to_members(12, 14)) == "hh", "later copies are judged again"


async def test_a_reopened_mailing_waits_as_one(spring: Campaign) -> None:
    entry = await primary_hold(spring)
    spring.home.clock.pass_(hours=26)
    await spring.home.watch.read()
    back = await spring.service.reopen((await spring.one())["id"], approver=EVA, by="test", comment="Look again")
    assert (back.outgoing.back, back.mailing.state, back.mailing.entry) == (8, MailingState.HELD, entry.hold_id)
    assert back.mailing.grants == ()
    anew = await spring.home.hold(entry.hold_id)
    assert (anew.state, anew.votes, anew.copies, anew.reach) == (State.WAITING, (), 7, 8)
    assert anew.expires_at > spring.home.clock.now()
    assert await states(spring) == ["waiting"] * 8
    assert await arrived(spring) == 0
    assert await spring.one() | {"held": 8} == await spring.one()
    told = {who: d for who, d in await notices(spring.home) if d["outcome"] == "reopened"}
    assert (set(told), told[DPO]["asked"], told[ANNA].get("asked")) == ({ANNA, DPO, OMAR}, True, None)
    events = await journal(spring.home, entry.hold_id)
    assert events[-1] == ("reopened", {"was": "approved"})
    await spring.decide(entry.hold_id)
    assert await arrived(spring) == 8
    assert await states(spring) == ["released"] * 8


async def test_a_reopened_mailing_reminds_and_expires(spring: Campaign) -> None:
    entry = await primary_hold(spring)
    await spring.service.reopen((await spring.one())["id"], approver=EVA, by="test")
    anew = await spring.home.hold(entry.hold_id)
    for at in (*(Deadlines().reminder_at(anew, n, spring.home.in_force) for n in REMINDERS), anew.expires_at):
        spring.home.clock.pass_(seconds=(at - spring.home.clock.now()).total_seconds())
        await spring.approvals.sweep()
    await spring.approvals.follow()
    assert await states(spring) == ["expired"] * 8
    reminded = [i.data["percent"] for i in await spring.home.outbox() if i.data.get("notice") == "reminder"]
    assert sorted(set(reminded)) == [25, 50, 90]
    assert await arrived(spring) == 0


async def test_a_partly_sent_mailing_is_revoked_for_the_rest(spring: Campaign) -> None:
    """If the primary hold was sent, the oldest unsent hold takes its place for the rest, whoever revokes."""
    for lease in await releases(spring.home, 3):
        await spring.office.worker.carry_out(lease)
    entry = await primary_hold(spring)
    assert entry.state is State.RELEASED
    out = await spring.home.store.holds.outgoing(entry.hold_id)
    assert (out.back, out.going, out.gone) == (5, 0, 3)
    done = await spring.approvals.vote(entry.hold_id, REJECT, approver=EVA, by="test", comment="No more of it")
    assert (done.hold.hold_id, done.hold.state) != (entry.hold_id, State.RELEASED)
    assert await states(spring) == ["released"] * 3 + ["rejected"] * 5
    assert await arrived(spring) == 3
    told = [d for _, d in await notices(spring.home) if d["outcome"] == "rejected"]
    assert {(d["back"], d["gone"]) for d in told} == {(5, 3)}, "no notice says that nothing was sent"
    assert {d["reach"] for d in told} == {5} == {done.hold.reach}, "those who do not get it"
    with pytest.raises(Conflict, match="already released: sent mail cannot be taken back"):
        await spring.approvals.vote(entry.hold_id, REJECT, approver=EVA, by="test", comment="Once more")


async def send_in_part(campaign: Campaign, entry: Hold) -> None:
    """Approve a hold, and try to send it once. The relay puts one of its recipients off."""
    await campaign.decide(entry.hold_id)
    campaign.office.relay.says = {MEMBERS[5]: LATER}
    [lease] = await releases(campaign.home, 1)
    await campaign.office.worker.carry_out(lease)


async def test_who_did_not_get_a_stopped_copy_has_nothing_although_another_was_on_its_way(campaign: Campaign) -> None:
    campaign.term = campaign._intake.term = campaign.approvals.term = Deadlines(copies=50, release_delay_seconds=0)
    await campaign.to_members(0, 4)
    await campaign.send(MEMBERS[4], MEMBERS[5])
    await campaign.send(MEMBERS[5])
    entry = await primary_hold(campaign)
    await send_in_part(campaign, entry)
    await campaign.approvals.vote(entry.hold_id, REJECT, approver=EVA, by="test", comment="No more of it")
    assert await states(campaign) == ["released", "rejected"]
    (mailing,) = await campaign.service.list(least=1)
    assert (mailing.people.relayed, mailing.people.stopped) == (5, 1)


@pytest.mark.parametrize(("how", "word"), [("reopen", "reopened"), ("reject", "rejected")])
async def test_what_becomes_of_the_copies_of_a_stopped_hold_is_told(how: str, word: str, campaign: Campaign) -> None:
    campaign.term = campaign._intake.term = campaign.approvals.term = Deadlines(copies=50, release_delay_seconds=0)
    await campaign.to_members(0, 4)
    await campaign.send(MEMBERS[4], MEMBERS[5])
    await campaign.to_members(6, 9)
    entry = await primary_hold(campaign)
    await send_in_part(campaign, entry)
    revoke = campaign.service.reopen if how == "reopen" else campaign.service.reject
    await revoke(entry.mailing_id, approver=EVA, by="test", comment="Wrong text")
    told = [
        (str(i.recipients[0].address), i.data) for i in await campaign.home.outbox() if i.data.get("outcome") == word
    ]
    assert sorted(to for to, _ in told) == [ANNA, DPO, OMAR]
    assert {data["hold_id"] for _, data in told}.isdisjoint({entry.hold_id})
    assert {to for to, data in told if data.get("asked")} == ({DPO, OMAR} if how == "reopen" else set())


async def test_who_wrote_a_stopped_hold_is_told_of_their_copies_under_anothers(campaign: Campaign) -> None:
    campaign.term = campaign._intake.term = campaign.approvals.term = Deadlines(copies=50, release_delay_seconds=0)
    await campaign.to_members(0, 4)
    await campaign.send(MEMBERS[4], MEMBERS[5])
    await campaign.send(MEMBERS[6], sender="ulf@example.com")
    await campaign.send(MEMBERS[7])
    entry = await primary_hold(campaign)
    await send_in_part(campaign, entry)
    await campaign.service.reject(entry.mailing_id, approver=EVA, by="test", comment="Wrong text")
    told = [str(i.recipients[0].address) for i in await campaign.home.outbox() if i.data.get("outcome") == "rejected"]
    assert sorted(told) == [ANNA, DPO, OMAR, "ulf@example.com"]


async def test_a_whole_mailing_is_rejected(spring: Campaign) -> None:
    id = (await spring.one())["id"]
    with pytest.raises(Refused, match="give a reason"):
        await spring.service.reject(id, approver=EVA, by="test", comment="")
    with pytest.raises(NotEntitled):
        await spring.service.reject(id, approver=ANNA, by="test", comment="Wrong")
    back = await spring.service.reject(id, approver=EVA, by="test", comment="Wrong text")
    assert (back.mailing.state, back.outgoing.back) == (MailingState.REJECTED, 8)
    assert await states(spring) == ["rejected"] * 8
    assert kinds(await spring.to_members(12, 13)) == "x"
    with pytest.raises(Conflict, match="it has no decision"):
        await spring.service.reject(id, approver=EVA, by="test", comment="Again")
    what = [d["what"] for k, d in await spring.home.events(id) if k == "mailing"]
    assert what == ["rejected"]


async def test_all_approvals_of_a_mailing_are_revoked(spring: Campaign) -> None:
    """Reopening the mailing revokes all its approvals. It was held again past its limit, so two primary holds have
    parts of it."""
    entry = await primary_hold(spring)
    await spring.service.reopen((await spring.one())["id"], approver=EVA, by="test")
    await spring.decide(entry.hold_id, people=14)
    assert kinds(await spring.to_members(12, 18)) == "rrhhhh"
    (second,) = await spring.home.store.holds.newest(states=[State.WAITING])
    await spring.decide(second.hold_id)
    back = await spring.service.reopen((await spring.one())["id"], approver=EVA, by="test")
    assert back.outgoing.back == 12
    assert await states(spring) == ["waiting"] * 12
    assert await arrived(spring) == 0
    assert {h.hold_id for h in await spring.home.store.holds.newest(states=[State.WAITING])} == {
        entry.hold_id,
        second.hold_id,
    }


async def test_with_nothing_left_to_revoke_later_copies_are_judged(spring: Campaign) -> None:
    assert await arrived(spring) == 8
    id = (await spring.one())["id"]
    back = await spring.service.reopen(id, approver=EVA, by="test")
    assert (back.outgoing.back, back.outgoing.gone, back.mailing.grants) == (0, 8, ())
    assert [(d["back"], d["gone"]) for k, d in await spring.home.events(id) if k == "mailing"] == [(0, 8)]
    told = {who: d for who, d in await notices(spring.home) if d["outcome"] == "revoked"}
    assert set(told) == {ANNA, DPO, OMAR}, "those who were told of the approval"
    assert {(d["by"], d.get("asked")) for d in told.values()} <= {(EVA, False), (EVA, None)}
    assert kinds(await spring.to_members(12, 14)) == "hh"


@pytest.fixture
async def staged(tmp_path: Path) -> AsyncIterator[Campaign]:
    async with approved(tmp_path, stages='{steps: [5, "20%", rest], pause: 30m}') as made:
        yield made


async def test_in_stages_all_unsent_copies_are_revoked(staged: Campaign) -> None:
    assert await arrived(staged) == 5
    assert sorted(set(await states(staged))) == ["released", "waiting"]
    back = await staged.service.reject((await staged.one())["id"], approver=EVA, by="test", comment="Enough")
    assert back.outgoing.back == 3
    staged.home.clock.pass_(hours=2)
    await staged.home.watch.read()
    await staged.approvals.follow()
    assert await states(staged) == ["released"] * 5 + ["rejected"] * 3
    assert (await staged.one())["stage"] is None
    assert await arrived(staged) == 5


async def test_a_reopened_stage_begins_again(staged: Campaign) -> None:
    back = await staged.service.reopen((await staged.one())["id"], approver=EVA, by="test")
    assert (back.outgoing.back, back.mailing.progress) == (8, None)
    (entry,) = await staged.home.store.holds.newest(states=[State.WAITING])
    await staged.decide(entry.hold_id)
    assert (await staged.one())["stage"]["limit"] == 9
    assert await arrived(staged) == 5


async def test_revoking_a_preapproval_points_to_the_mailing(campaign: Campaign) -> None:
    held = (await campaign.to_members(0, 5))[4]
    assert isinstance(held, IsHeld)
    await campaign.home.store.holds.change(held.hold_id, lambda h: Change(hold=replace(h, kind="test")))
    await campaign.decide(held.hold_id)
    found = await campaign.home.hold(held.hold_id)
    assert found.state is State.GRANTED
    with pytest.raises(Conflict, match=f"reject or reopen the mailing {found.mailing_id}"):
        await campaign.approvals.vote(held.hold_id, REJECT, approver=EVA, by="test", comment="no")


@pytest.mark.parametrize("move", ["reject", "reopen"])
async def test_who_was_told_of_a_preapproval_is_told_that_it_is_revoked(campaign: Campaign, move: str) -> None:
    held = (await campaign.to_members(0, 5))[4]
    assert isinstance(held, IsHeld)
    await campaign.home.store.holds.change(held.hold_id, lambda h: Change(hold=replace(h, kind="test")))
    await campaign.decide(held.hold_id)
    id = (await campaign.home.hold(held.hold_id)).mailing_id
    await campaign.service.reopen(id, approver=EVA, by="test", comment="Wrong price") if move == "reopen" else (
        await campaign.service.reject(id, approver=EVA, by="test", comment="Wrong price")
    )
    told = {who: d for who, d in await notices(campaign.home) if d["outcome"] == "revoked"}
    assert set(told) == {ANNA, DPO, OMAR}
    assert {d["comment"] for d in told.values()} == {"Wrong price"}
    assert not any(d.get("asked") for d in told.values())


# -- under a freeze


@pytest.mark.parametrize(
    ("selector", "value"),
    [
        (Selector.MAILING, "?"),
        (Selector.THREAD, "<0@example.com>"),
    ],
)
async def test_an_approver_is_told_which_freeze_delays_the_release(
    office: Office, selector: Selector, value: str
) -> None:
    home = office.home
    hold_id = (await home.held(RAMADAN, References="<0@example.com>")).hold_id
    held = await home.hold(hold_id)
    await home.freeze(selector, held.mailing_id if value == "?" else value)
    first = await home.approve(hold_id, EVA)
    assert first.frozen == ()
    last = await home.approve(hold_id, DPO)
    assert [(f.selector, f.by) for f in last.frozen] == [(selector, "root")]
    assert last.hold.held_up
    await office.until_quiet(steps=2)
    assert attempts(office) == 0


async def test_the_writer_is_notified_again_when_it_is_sent(office: Office) -> None:
    hold_id = await office.approved()
    await office.home.freeze()
    await rejects(office.home, hold_id)
    again = office.home.transaction(RAMADAN, body="Another lunch", Message_ID="<2@x>")
    await office.home.intake()(again, FakePassage())
    await office.home.approve(again.id)
    await office.until_quiet(steps=2)
    await office.home.thaw()
    await office.until_quiet(steps=3)
    gone = [i for i in office.renderer.asked if i.data.get("outcome") == "released"]
    assert {(i.hold_id, str(i.recipients[0].address)) for i in gone} == {(again.id, ANNA)}
