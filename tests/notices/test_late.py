"""What a relay that was away takes once it is back: no notice asks for a decision that is made, and nobody who has to know is left out."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace

import pytest

from smtpguard.holds.model import Choice, Hold, State
from smtpguard.holds.questions import Questions
from smtpguard.journal.event import Kind
from smtpguard.mail.envelope import Lost
from smtpguard.notices.notice import NoticeHead, NoticeTemplates
from smtpguard.notices.render import Renderer
from smtpguard.policy.verdict import Held
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign
from tests.guard.house import MEMBERS, RAMADAN
from tests.guard.office import LATER, ULF, Office


@pytest.fixture
def away(office: Office) -> Office:
    """With real notices, and a relay that is away."""
    return _away(office)


def _away(office: Office) -> Office:
    templates, home = NoticeTemplates(NoticeHead(sender="guard@example.com")), office.home
    renderer = Renderer(
        store=home.store, in_force=home.current, templates=lambda: templates, clock=home.clock,
        reporting_mta="guard.example.com",
    )  # fmt: skip
    office.worker = office.hire(renderer=renderer)
    office.relay.raises = Lost(LATER)
    return office


async def got(office: Office) -> dict[str, dict[str, str]]:
    """By person, the text on one line of each notice that came when the relay was back, by its kind."""
    office.relay.raises, n = None, len(office.relay.taken)
    await office.until_quiet(steps=3)
    found: dict[str, dict[str, str]] = {}
    for envelope, raw in office.relay.taken[n:]:
        message = email.message_from_bytes(raw, policy=email.policy.default)
        if kind := message["X-Smtpguard-Notice"]:
            (to,), body = envelope.addresses, message.get_body(("plain",))
            assert body is not None
            mine = found.setdefault(str(to), {})
            assert str(kind) not in mine, "told twice"
            mine[str(kind)] = " ".join(body.get_content().split())
    return found


async def held(office: Office) -> Hold:
    """A message to members that waits, whose notices the relay did not take."""
    hold = await office.home.held(RAMADAN)
    assert await office.step() > 1
    assert office.relay.taken == []
    return hold


@pytest.mark.parametrize("end", ["approved", "rejected", "withdrawn", "expired"])
async def test_only_the_outcome_is_told_with_the_reasons(away: Office, end: str) -> None:
    hold = await held(away)
    approvals = away.home.approvals()
    if end == "approved":
        await away.home.approve(hold.hold_id)
    elif end == "rejected":
        await approvals.vote(hold.hold_id, Choice.REJECT, approver=EVA, by="test", comment="The wrong list")
    elif end == "withdrawn":
        await approvals.withdraw(hold.hold_id, sender=ANNA, by="test")
    else:
        for _ in range(100):
            await away.step(hours=1)
            await approvals.sweep()
    assert (await away.home.hold(hold.hold_id)).state is State(end)
    found = await got(away)
    kind = "expired" if end == "expired" else "decided"
    assert {name for mine in found.values() for name in mine} == {kind}
    assert list(found[ANNA]) == [kind]
    assert "Why it was held" in found[ANNA][kind]
    assert all("Why it was held" not in text for to, mine in found.items() if to != ANNA for text in mine.values())
    notes = [data for name, data in await away.home.events(hold.hold_id) if name == Kind.NOTICE.value]
    dropped = {data["notice"] for data in notes if data["outcome"] == "obsolete"}
    assert dropped >= {"held", "approve"}
    assert all(data["outcome"] != "failed" for data in notes)


async def test_who_voted_is_not_asked_to(away: Office) -> None:
    """While others are."""
    hold = await held(away)
    await away.home.approvals().vote(hold.hold_id, Choice.APPROVE, approver=EVA, by="test")
    assert (await away.home.hold(hold.hold_id)).shown_state == "waiting"
    found = await got(away)
    assert EVA not in found
    assert list(found[DPO]) == list(found[OMAR]) == ["approve"]
    assert list(found[ANNA]) == ["held"]


async def test_what_waits_again_asks_those_who_were_never_told(away: Office) -> None:
    away.home.term = replace(away.home.term, release_delay_seconds=900)
    hold = await held(away)
    await away.home.approve(hold.hold_id)
    found = await got(away)
    assert {name for mine in found.values() for name in mine} == {"decided"}
    await away.home.approvals().unvote(hold.hold_id, approver=EVA, by="test")
    found = await got(away)
    assert "smtpguard held approve" in found[OMAR]["decided"]
    assert "waits for a decision again" in found[ANNA]["decided"]
    assert "Why it was held" in found[ANNA]["decided"]


async def test_who_read_of_an_approval_reads_that_it_was_undone_although_nobody_decided_again(away: Office) -> None:
    away.home.term = replace(away.home.term, release_delay_seconds=900)
    hold = await held(away)
    await away.home.approve(hold.hold_id)
    await got(away)
    away.relay.raises = Lost(LATER)
    await away.home.approvals().unvote(hold.hold_id, approver=EVA, by="test")
    for _ in range(100):
        await away.step(hours=1)
        await away.home.approvals().sweep()
    assert (await away.home.hold(hold.hold_id)).state is State.EXPIRED
    found = await got(away)
    assert list(found[ANNA]) == ["expired"]
    assert all("The approval was taken back" in found[one]["decided"] for one in (DPO, OMAR))


async def test_words_are_told_while_an_approval_can_be_undone(away: Office) -> None:
    home = away.home
    home.term = replace(home.term, release_delay_seconds=90_000)
    hold = await held(away)
    await home.approve(hold.hold_id)
    questions = Questions(home.store, home, home.clock, new_id=iter("abc").__next__)
    await questions.ask(hold.hold_id, "Bacon?", approver=EVA, by="test")
    await questions.answer(hold.hold_id, "Undo it", sender=ANNA, by="test")
    found = await got(away)
    assert "Bacon?" in found[ANNA]["question"]
    assert "Undo it" in found[OMAR]["answer"]


async def test_a_copy_in_the_place_of_a_void_hold_is_asked_about(campaign: Campaign) -> None:
    """Its notices name the hold that became void."""
    office = _away(campaign.office)
    given = await campaign.to_members(0, 8)
    first = given[4]
    assert isinstance(first, Held)
    await campaign.home.store._writer.submit(
        lambda b: b.execute("UPDATE hold SET acknowledged = false WHERE hold_id = ?", [(first.hold_id,)])
    )
    await office.go(minutes=16)
    await campaign.approvals.sweep()
    assert (await campaign.home.hold(first.hold_id)).state is State.VOID
    found = await got(office)
    assert "approve" in found[EVA]
    assert MEMBERS[4] not in found


async def test_those_who_wait_to_read_of_a_void_hold_do_so_once_its_client_comes_again(campaign: Campaign) -> None:
    """It waits under the copy in its place, and nobody was told that it waits again."""
    office = _away(campaign.office)
    (*_, first) = await campaign.to_members(0, 5)
    assert isinstance(first, Held)
    await campaign.send(MEMBERS[5], sender="ulf@example.com")
    await campaign.home.store._writer.submit(
        lambda b: b.execute("UPDATE hold SET acknowledged = false WHERE hold_id = ?", [(first.hold_id,)])
    )
    await office.go(minutes=16)
    await campaign.approvals.sweep()
    await campaign.send(MEMBERS[4], Message_ID="<4@example.com>", body="Copy 4")
    again = await campaign.home.hold(first.hold_id)
    assert (again.state, bool(again.primary)) == (State.WAITING, True)
    found = await got(office)
    assert {who for who, mine in found.items() if "approve" in mine} == {EVA, OMAR, DPO}
    assert {who for who, mine in found.items() if "held" in mine} == {ANNA, "ulf@example.com"}


async def test_a_writer_whom_the_first_copy_names_is_told_of_their_own(campaign: Campaign) -> None:
    """As where two people send one mailing, each under their own From, through the account of one of them."""
    (*_, first) = await campaign.to_members(0, 5, Sender=ULF)
    assert isinstance(first, Held)
    await campaign.send(MEMBERS[5], sender=ULF)
    held = await campaign.home.hold(first.hold_id)
    assert (held.sender, held.told) == (ANNA, (ULF,))
    told = {str(i.recipients[0].address) for i in await campaign.home.outbox() if i.data.get("notice") == "held"}
    assert told == {ANNA, ULF}


async def test_all_writers_are_told_of_the_copy_in_the_place_of_a_void_hold(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 5)
    first = given[4]
    assert isinstance(first, Held)
    for n, writer in ((5, "ulf@example.com"), (6, "ida@example.com"), (7, ANNA)):
        await campaign.send(MEMBERS[n], sender=writer)
    await campaign.home.store._writer.submit(
        lambda b: b.execute("UPDATE hold SET acknowledged = false WHERE hold_id = ?", [(first.hold_id,)])
    )
    await campaign.office.go(minutes=16)
    await campaign.approvals.sweep()
    [lead] = [one for one in await campaign.home.holds() if one.state is State.WAITING and not one.primary]
    assert {lead.sender, *lead.told} == {ANNA, "ulf@example.com", "ida@example.com"}
