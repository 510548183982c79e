"""A list's post in doubt is never sent again automatically: people are asked, and say that it was sent or have it sent again. A verdict
without an outcome is reported as in doubt.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from smtpguard.database.access import Access
from smtpguard.database.schema import outbox
from smtpguard.holds.model import Change, Choice, Conflict, State
from smtpguard.holds.service import Approvals
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Kind
from smtpguard.lists.index import index_path
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Lost
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RELAY_LOST
from smtpguard.mailings.model import PeopleCounts
from smtpguard.mailings.service import row
from smtpguard.notices.intents import Notices
from smtpguard.outbox.asking import report_doubts
from smtpguard.outbox.delivery import RELEASE_FIELD
from smtpguard.outbox.model import INTENT, Settled
from smtpguard.policy.verdict import Relayed
from smtpguard.store import privacy
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, RAMADAN, FakePassage, House, PatchedStore, index
from tests.guard.office import BO, DI, LATER, NO, ULF, Office

ANNA, EVA, OMAR, DPO, IT = (
    "anna@example.com",
    "eva@example.com",
    "omar@example.com",
    "dpo@example.com",
    "it@example.com",
)

NEWS = "news@lists.example.com"


def approvals(office: Office) -> Approvals:
    return Approvals(office.store, office.home, SteadyClock(office.clock), notices=Notices(contact=IT))


async def release_in_doubt(office: Office, *to: str, taken: bool = True) -> str:
    """A hold that was approved and sent, without a reply from the relay. The sweep has seen it."""
    hold_id = await office.approved(*to)
    office.relay.raises, office.relay.takes_before_raising = Lost(RELAY_LOST, after_dot=True), taken
    await office.step()
    office.relay.raises = None
    await approvals(office).sweep()
    return hold_id


async def questions(office: Office) -> list[tuple[str, bool, int]]:
    """(recipient, whether it is a reminder, people) of the notices about doubt."""
    docs = await office.store.ask(
        lambda c: c.execute(select(outbox.c.doc).where(outbox.c.kind == "notice")).scalars().all()
    )
    found = [intent for doc in docs if (intent := INTENT.loads(doc)).data["notice"] == "doubt"]
    return sorted((str(i.recipients[0].address), i.data["again"], i.data["people"]) for i in found)


async def tally(office: Office) -> PeopleCounts:
    (mailing,) = await office.store.mailings.newest()
    return mailing.people


async def test_a_release_in_doubt_waits_and_approvers_are_asked_at_once(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    hold = await office.home.hold(hold_id)
    assert (hold.state, hold.asked_at, hold.settled) == (State.IN_DOUBT, office.clock.now(), None)
    assert [h.hold_id for h in await office.store.holds.asked_about()] == [hold_id]
    assert await questions(office) == [(who, False, 60) for who in (DPO, EVA, IT, OMAR)]
    assert await tally(office) == PeopleCounts(doubted=60)
    out = await office.store.holds.outgoing(hold_id)
    assert out.own is not None
    assert (out.own.doubt, out.own.left) == (1, ())
    await office.until_quiet(steps=100)
    assert office.relay.has(RAMADAN) == 1, "however long it waits"
    assert await office.state(hold_id) is State.IN_DOUBT
    proof = await office.store.journal.verify()
    assert proof.ok


async def test_people_are_asked_and_reminded_of_those_in_doubt_alone(office: Office) -> None:
    hold_id = await release_in_doubt(office, BO, DI)
    await office.step(minutes=40)
    assert (office.relay.has(BO), office.relay.has(DI)) == (2, 2)
    await office.go(hours=2)
    await approvals(office).sweep()
    assert {(again, people) for _, again, people in await questions(office)} == {(False, 60), (True, 60)}
    hold, out = await office.home.hold(hold_id), await office.store.holds.outgoing(hold_id)
    assert hold.reach == 62
    assert out.own is not None
    assert (out.own.settled.sent, out.own.may_have(hold)) == (2, 60)


RENAMED = POLICY.replace("  ramadan:", "  eid:").replace("csv: ramadan.csv", "csv: eid.csv")
REMOVED = POLICY.replace("addresses: [ramadan@lists.example.com]", "addresses: [eid@lists.example.com]")
ADDED = POLICY.replace("[news@lists.example.com]", "[news@lists.example.com, bo@example.net]")


async def approved_before(office: Office, policy: str) -> str:
    """The id of a hold that was approved before the policy changed."""
    index(office.home.folder, "eid", [*MEMBERS, BO])
    hold_id = await office.approved(BO)
    office.home.in_force = office.home.build({**DOCUMENTS, "policy.yaml": policy.encode()})
    return hold_id


@pytest.mark.parametrize("policy", [RENAMED, ADDED], ids=["renamed", "added"])
async def test_a_release_to_a_list_that_nobody_approved_waits_again(office: Office, policy: str) -> None:
    """A recipient has come to be the address of another list since the approval."""
    hold_id = await approved_before(office, policy)
    await office.until_quiet(steps=2)
    assert office.relay.has(RAMADAN) == office.relay.has(BO) == 0
    assert await office.state(hold_id) is State.WAITING
    assert await tally(office) == PeopleCounts(held=61)


async def test_a_post_of_which_somebody_has_a_copy_stops_if_its_list_has_grown(office: Office) -> None:
    """One recipient took it. The list's address was put off, and the list has grown until the next attempt."""
    hold_id = await office.approved(BO)
    office.relay.says[RAMADAN] = LATER
    await office.step()
    del office.relay.says[RAMADAN]
    assert office.relay.has(BO) == 1
    index(office.home.folder, "ramadan", [*MEMBERS, *(f"new{n}@example.net" for n in range(300))])
    office.home.in_force = office.home.build(DOCUMENTS)
    await office.until_quiet(steps=5)
    hold = await office.home.hold(hold_id)
    assert (hold.state, hold.stopped, len(hold.votes)) == (State.RELEASED, True, 2)
    assert (office.relay.has(BO), office.relay.has(RAMADAN)) == (1, 0)


async def test_a_copy_waits_by_itself_if_only_its_list_has_grown(office: Office) -> None:
    """It was decided on under another post, which is sent."""
    lead, copy = await two_posts(office, NEWS)
    office.relay.says[NEWS] = LATER
    await office.step()
    del office.relay.says[NEWS]
    index(office.home.folder, "news", MEMBERS)
    office.home.in_force = office.home.build(DOCUMENTS)
    await office.until_quiet(steps=5)
    await approvals(office).follow()
    hold = await office.home.hold(copy)
    assert (hold.state, hold.primary, hold.reach) == (State.WAITING, "", 60)
    assert await office.state(lead) is State.RELEASED
    await office.home.approve(copy, EVA)
    await office.until_quiet(steps=5)
    assert (office.relay.has(RAMADAN), office.relay.has(NEWS)) == (1, 1)


async def test_a_copy_whose_list_has_not_grown_is_sent_though_that_of_another_has(office: Office) -> None:
    """Also if the list of their post has, which is sent."""

    def news(*people: str) -> None:
        index(office.home.folder, "news", people)
        office.home.in_force = office.home.build(DOCUMENTS)

    same = {"X_Looks": "mailing", "X_Mailing": "spring"}
    lead = await office.home.held(RAMADAN, **same)
    news(*MEMBERS)
    same_size = await office.home.held(NEWS, Message_ID="<2@example.com>", **same)
    news("first@example.net")
    grows = await office.home.held(NEWS, Message_ID="<3@example.com>", **same)
    await office.home.approve(lead.hold_id)
    await approvals(office).follow()
    office.relay.says[NEWS] = LATER
    await office.step()
    del office.relay.says[NEWS]
    index(office.home.folder, "ramadan", [*MEMBERS, *(f"new{n}@example.net" for n in range(300))])
    news(*MEMBERS)
    assert not await approvals(office).still_agreed(await office.home.hold(grows.hold_id))
    await approvals(office).follow()
    await office.until_quiet(steps=5)
    states = [(one.state, one.primary) for one in [await office.home.hold(h.hold_id) for h in (lead, same_size, grows)]]
    assert states == [(State.RELEASED, ""), (State.RELEASED, lead.hold_id), (State.WAITING, "")]
    assert (office.relay.has(RAMADAN), office.relay.has(NEWS)) == (1, 1)


@pytest.mark.parametrize("first", [0, 1], ids=["post", "copy"])
async def test_a_copy_waits_under_its_post_if_the_list_of_both_has_grown(office: Office, first: int) -> None:
    """Whichever is to be sent first."""
    lead, copy = await two_posts(office, RAMADAN, BO)
    index(office.home.folder, "ramadan", [*MEMBERS, *(f"new{n}@example.net" for n in range(300))])
    office.home.in_force = office.home.build(DOCUMENTS)
    assert not await approvals(office).still_agreed(await office.home.hold((lead, copy)[first]))
    await office.until_quiet(steps=5)
    await approvals(office).follow()
    assert {(one.hold_id, one.state, one.primary, one.copies) for one in await office.home.holds()} == {
        (lead, State.WAITING, "", 1), (copy, State.WAITING, lead, 0),
    }  # fmt: skip
    assert office.relay.has(RAMADAN) == 0


async def two_posts(office: Office, *to: str) -> tuple[str, str]:
    """An approved post, and the copy of it to these, approved with it."""
    same = {"X_Looks": "mailing", "X_Mailing": "spring"}
    lead = await office.home.held(RAMADAN, **same)
    copy = await office.home.held(*to, Message_ID="<2@example.com>", **same)
    assert copy.primary == lead.hold_id
    await office.home.approve(lead.hold_id)
    await approvals(office).follow()
    await office.tell()
    return lead.hold_id, copy.hold_id


async def test_a_list_that_has_its_post_does_not_stop_the_others_by_growing(office: Office) -> None:
    hold_id = await office.approved(BO)
    office.relay.says[BO] = LATER
    await office.step()
    del office.relay.says[BO]
    index(office.home.folder, "ramadan", [*MEMBERS, *(f"new{n}@example.net" for n in range(300))])
    office.home.in_force = office.home.build(DOCUMENTS)
    await office.until_quiet(steps=5)
    assert await office.state(hold_id) is State.RELEASED
    assert (office.relay.has(BO), office.relay.has(RAMADAN)) == (1, 1)


async def test_a_release_counts_and_asks_about_the_lists_of_its_arrival(office: Office) -> None:
    """The policy changes after the approval. The people count once, and a list address in doubt is not tried again."""
    hold_id = await approved_before(office, REMOVED)
    office.relay.raises = Lost(RELAY_LOST, after_dot=True)
    await office.step()
    office.relay.raises = None
    await approvals(office).sweep()
    assert await tally(office) == PeopleCounts(doubted=61)
    assert {people for _, _, people in await questions(office)} == {60}
    await office.until_quiet(steps=100)
    assert office.relay.has(RAMADAN) == 0, "however long it waits"
    await approvals(office).answer_doubt(hold_id, sent=False, approver=EVA, by="root")
    await office.until_quiet(steps=2)
    assert await tally(office) == PeopleCounts(relayed=61)
    releases = (data for kind, data in await office.home.events(hold_id) if kind == "release")
    assert sum(data["people"] for data in releases if data["outcome"] == "sent") == 61


async def test_a_release_in_doubt_is_not_sent_again_to_a_list_that_has_grown(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    index(office.home.folder, "ramadan", [*MEMBERS, *(f"new{n}@example.net" for n in range(300))])
    office.home.in_force = office.home.build(DOCUMENTS)
    answer = partial(approvals(office).answer_doubt, hold_id, approver=EVA, by="root")
    with pytest.raises(Conflict, match="it reaches 360 people by now"):
        await answer(sent=False)
    assert (await office.home.hold(hold_id)).asked_at is not None
    await answer(sent=True)
    assert await tally(office) == PeopleCounts(relayed=60)


async def test_of_a_list_without_an_index_it_is_unknown_how_many_have_it(office: Office) -> None:
    """Nor is a post to it in doubt sent again automatically once the policy has no such list."""
    index_path(office.home.folder, "ramadan").unlink()
    office.home.in_force = office.home.build(DOCUMENTS)
    await office.approved()
    office.home.in_force = office.home.build({**DOCUMENTS, "policy.yaml": REMOVED.encode()})
    office.relay.raises = Lost(RELAY_LOST, after_dot=True)
    await office.step()
    office.relay.raises = None
    await approvals(office).sweep()
    assert await questions(office)
    (mailing,) = await office.store.mailings.newest()
    assert (mailing.people.at_most, row(mailing)["at_most"]) == (None, None)


async def test_a_release_that_an_earlier_version_held_counts_the_list_of_its_arrival(office: Office) -> None:
    hold_id = await office.approved()
    await office.store.holds.change(hold_id, lambda hold: Change(hold=replace(hold, behind={})))
    index(office.home.folder, "ramadan", MEMBERS[1:])
    await office.go(minutes=1)
    office.home.in_force.registry.reopen()
    await office.step()
    assert await tally(office) == PeopleCounts(relayed=60)


async def test_a_message_that_people_are_asked_about_is_not_erased(office: Office) -> None:
    """Its release would stay in the outbox for ever, with nobody asked."""
    hold_id = await release_in_doubt(office)
    assert await erased(office) == {(hold_id, f"decision {hold_id}")}
    await approvals(office).answer_doubt(hold_id, sent=True, approver=EVA, by="root")
    assert await erased(office) == set()
    assert await office.store.holds.find(hold_id) is None


async def test_a_message_whose_colleagues_part_is_not_sent_is_not_erased(office: Office) -> None:
    """Colleagues get theirs whatever is decided."""
    members = [f"customer{n}@example.net" for n in range(25)]
    hold_id = (await office.home.held(*members, ULF, To=", ".join(members))).hold_id
    office.relay.raises = Lost(RELAY_LOST)
    await approvals(office).vote(hold_id, Choice.REJECT, approver=EVA, by="root", comment="No")
    await office.step()
    assert await erased(office) == {(hold_id, "it is to be sent still")}
    office.relay.raises = None
    await office.until_quiet()
    assert office.relay.has(ULF) == 1
    assert await erased(office) == set()
    assert await office.store.holds.find(hold_id) is None


async def erased(office: Office) -> set[tuple[str, str]]:
    """Erase the writer's data: the messages that stay, and why."""
    who = privacy.Person(Address.parse(ANNA), office.home.in_force.registry.digester)
    return {
        (one.id, one.stays) for one in (await privacy.erase(office.store, who, by="root")).kept if one.what == "hold"
    }


async def test_they_are_asked_again_each_working_hour(office: Office) -> None:
    await release_in_doubt(office)
    sweeping = approvals(office)
    for _ in range(24 * 4):
        await office.go(minutes=15)
        await sweeping.sweep()
    again = [one for one in await questions(office) if one[1]]
    hours = office.home.in_force.hours.worked(office.clock.now() - timedelta(days=1), office.clock.now())
    worked = round(hours.total_seconds() / 3600)
    assert worked - 1 <= sum(who == IT for who, _, _ in again) <= worked + 1
    assert {who for who, _, _ in again} == {DPO, EVA, IT, OMAR}


async def test_after_a_kill_at_the_dot_they_are_asked_once_the_lease_ends(office: Office) -> None:
    hold_id = await office.approved()
    office.relay.raises, office.relay.takes_before_raising = asyncio.CancelledError(), True
    with pytest.raises(asyncio.CancelledError):
        await office.step()
    office.relay.raises = None
    await approvals(office).sweep()
    assert await office.store.holds.asked_about() == [], "it may still be at the final dot"
    office.worker = office.hire("another")
    await office.home.freeze()
    assert await office.step(minutes=31) == 0
    await approvals(office).sweep()
    assert [h.hold_id for h in await office.store.holds.asked_about()] == [hold_id], (
        "a freeze does not stop the question"
    )
    await office.home.thaw()
    await office.until_quiet(steps=3)
    assert office.relay.has(RAMADAN) == 1


async def test_a_start_reads_what_waits_outside_the_writer(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """All mail waits for the writer, and tens of thousands of notices may be unsent."""
    await office.approved()
    with monkeypatch.context() as patched:
        patched.delattr(Access, "write")
        assert await office.store.outbox.abandon(lambda _: True) == 0


async def test_the_release_of_a_gone_process_is_asked_about_at_once(office: Office) -> None:
    hold_id = await office.approved()
    office.relay.raises, office.relay.takes_before_raising = asyncio.CancelledError(), True
    with pytest.raises(asyncio.CancelledError):
        await office.step()
    assert await office.store.outbox.abandon(lambda owner: owner == "another") == 0
    assert await office.store.outbox.abandon(lambda owner: owner == "one") == 1
    await approvals(office).sweep()
    assert [h.hold_id for h in await office.store.holds.asked_about()] == [hold_id]


async def test_a_person_says_it_was_sent(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    hold = await approvals(office).answer_doubt(
        hold_id, sent=True, approver=EVA, by="root", comment="The relay's log has it"
    )
    assert (hold.state, hold.settled, hold.asked_at) == (State.RELEASED, Settled(sent=1), None)
    assert await tally(office) == PeopleCounts(relayed=60)
    await office.until_quiet(steps=3)
    assert office.relay.has(RAMADAN) == 1
    assert await office.store.holds.asked_about() == []
    entries = [(e.kind, e.data, clear) for e, clear in await office.store.journal.history(hold_id)]
    (settled,) = [(data, clear) for kind, data, clear in entries if kind == Kind.SETTLED.value]
    assert settled[0] == {"choice": "sent", "recipients": 1, "people": 60}
    assert settled[1] == {"actor": [EVA, "root"], "comment": ["The relay's log has it"], "recipients": [RAMADAN]}
    with pytest.raises(Conflict, match="no one is asked"):
        await approvals(office).answer_doubt(hold_id, sent=False, approver=OMAR, by="root")


@pytest.mark.parametrize("taken", [False, True])
async def test_sent_again_it_has_the_same_release_id(office: Office, taken: bool) -> None:
    hold_id = await release_in_doubt(office, taken=taken)
    hold = await approvals(office).answer_doubt(hold_id, sent=False, approver=EVA, by="root")
    assert (hold.state, hold.asked_at) == (State.RELEASING, None)
    assert await tally(office) == PeopleCounts(doubted=60), "the first may have arrived"
    await office.step()
    assert office.relay.has(RAMADAN) == 1 + taken
    assert await office.state(hold_id) is State.RELEASED
    assert await tally(office) == PeopleCounts(relayed=60)
    ids = {
        Message.of(raw).header.get(RELEASE_FIELD) for to, raw in office.relay.taken if RAMADAN in map(str, to.addresses)
    }
    assert ids == {f"{hold_id}-release"}


async def test_in_doubt_again_they_are_asked_again(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    await approvals(office).answer_doubt(hold_id, sent=False, approver=EVA, by="root")
    office.relay.raises = Lost(RELAY_LOST, after_dot=True)
    await office.step()
    office.relay.raises = None
    await approvals(office).sweep()
    assert [h.hold_id for h in await office.store.holds.asked_about()] == [hold_id]
    await office.until_quiet(steps=100)
    assert office.relay.has(RAMADAN) == 2
    assert [d for d in office.dsns() if d.data["action"] == "failed"] == []


async def test_a_refused_second_attempt_leaves_the_first_in_doubt(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    await approvals(office).answer_doubt(hold_id, sent=False, approver=EVA, by="root")
    office.relay.says = {RAMADAN: NO}
    await office.step()
    assert await office.state(hold_id) is State.IN_DOUBT
    assert await tally(office) == PeopleCounts(doubted=60)
    assert await office.store.holds.asked_about() == []


async def test_only_the_lists_address_waits_for_people(office: Office) -> None:
    """The list's address waits for people, and the person beside it is tried once more automatically."""
    hold_id = await release_in_doubt(office, BO)
    assert office.relay.has(BO) == 1
    await office.step(minutes=31)
    assert (office.relay.has(RAMADAN), office.relay.has(BO)) == (1, 2)
    assert await office.state(hold_id) is State.IN_DOUBT
    assert await tally(office) == PeopleCounts(doubted=60, relayed=1)
    await office.until_quiet(steps=3)
    hold = await approvals(office).answer_doubt(hold_id, sent=True, approver=EVA, by="root")
    assert (hold.state, hold.settled) == (State.RELEASED, Settled(sent=2))
    assert await tally(office) == PeopleCounts(relayed=61)
    assert (office.relay.has(RAMADAN), office.relay.has(BO)) == (1, 2)


async def test_a_rejection_ends_the_question(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    await office.home.freeze()
    done = await approvals(office).vote(hold_id, Choice.REJECT, approver=EVA, by="root", comment="Wrong list")
    assert (done.hold.state, done.hold.stopped, done.hold.asked_at) == (State.IN_DOUBT, True, None)
    assert await office.store.holds.asked_about() == []
    await office.home.thaw()
    await office.until_quiet(steps=3)
    assert office.relay.has(RAMADAN) == 1
    assert await tally(office) == PeopleCounts(doubted=60)


async def test_a_retry_meanwhile_gets_the_same_hold(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    again: Any = office.home.transaction(RAMADAN)
    made = await office.home.intake()(again, FakePassage())
    assert getattr(made, "hold_id", None) == hold_id


async def test_an_answer_during_a_freeze_is_sent_after_the_thaw(office: Office) -> None:
    hold_id = await release_in_doubt(office)
    await office.home.freeze()
    await approvals(office).answer_doubt(hold_id, sent=False, approver=EVA, by="root")
    await office.until_quiet(steps=2)
    assert office.relay.has(RAMADAN) == 1
    await office.home.thaw()
    office.relay.says = {RAMADAN: LATER}
    await office.step()
    assert await tally(office) == PeopleCounts(doubted=60)
    office.relay.says = {}
    await office.until_quiet(steps=2)
    assert (office.relay.has(RAMADAN), await office.state(hold_id)) == (2, State.RELEASED)


async def test_a_verdict_without_an_outcome_is_in_doubt_after_a_time(home: House) -> None:
    await home.send("bo@example.com")
    await home.store.journal.record(())  # with its outcome
    # its process ends before the outcome
    home.given_store = PatchedStore(home.store, {"journal.note": lambda event: None})
    transaction = home.transaction("ulf@example.com")
    assert isinstance(await home.intake()(transaction, FakePassage()), Relayed)
    await home.store.journal.catch_up()
    home.clock.pass_(minutes=14)
    assert await report_doubts(home.store, home.clock) == ()
    home.clock.pass_(minutes=2)
    assert await report_doubts(home.store, home.clock) == (transaction.id,)
    assert [kind for kind, _ in await home.events(transaction.id)] == ["verdict", "in-doubt"]
    assert await report_doubts(home.store, home.clock) == ()


async def test_an_outcome_that_comes_while_doubts_are_reported_counts(home: House) -> None:
    transaction = home.transaction("ulf@example.com")

    async def as_before_it(before: datetime) -> list[str]:
        await home.store.journal.record(())  # the outcome is written
        return [transaction.id]

    assert isinstance(await home.intake()(transaction, FakePassage()), Relayed)
    home.clock.pass_(minutes=16)
    store: Any = PatchedStore(home.store, {"journal.unsettled": as_before_it})
    assert await report_doubts(store, home.clock) == ()
    assert [kind for kind, _ in await home.settled(transaction.id)] == ["verdict", "outcome"]


async def test_a_release_in_doubt_again_after_a_late_refusal_is_asked_about_anew(office: Office) -> None:
    """The worker was stopped for longer than an attempt may take: people are asked, and then it finds that nothing was sent."""
    hold_id = await office.approved()

    async def stopped() -> None:
        await office.go(minutes=31)
        await approvals(office).sweep()
        assert [h.hold_id for h in await office.store.holds.asked_about()] == [hold_id]

    office.relay.before_dot = stopped
    await office.step()
    assert await office.store.holds.asked_about() == []
    assert (await office.home.hold(hold_id)).asked_at is None
    office.relay.before_dot = lambda: None
    office.relay.raises = Lost(RELAY_LOST, after_dot=True)
    await office.step(minutes=1)
    office.relay.raises = None
    await approvals(office).sweep()
    assert [h.hold_id for h in await office.store.holds.asked_about()] == [hold_id]
    await approvals(office).answer_doubt(hold_id, sent=True, approver=EVA, by="root")
    assert await office.state(hold_id) is State.RELEASED
