"""A decision on a mailing applies to all of it, and to later copies: for these lists, for a time, for so many people."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from smtpguard.cli.holdrow import _mailing_lines
from smtpguard.database.errors import Busy
from smtpguard.holds import rows
from smtpguard.holds.model import Choice, Conflict, NotEntitled
from smtpguard.holds.model import State as Held
from smtpguard.mail.address import Address
from smtpguard.notices.intents import released_after_freeze
from smtpguard.notices.render import fill
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.verdict import Held as IsHeld
from smtpguard.policy.verdict import Rejected
from tests.app.twoguards import documents, sample
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign, kinds
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, house


async def test_one_approval_releases_all_copies_and_covers_later_ones(campaign: Campaign) -> None:
    await campaign.to_members(0, 12)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.decide(entry.hold_id)
    assert (await campaign.one())["approved"]["people"] == len(MEMBERS), "by default the size of the list"
    releases = [i.hold_id for i in await campaign.home.outbox() if i.kind is IntentKind.RELEASE]
    assert len(releases) == 4
    assert kinds(await campaign.to_members(8, 30)) == "r" * 22
    await campaign.office.until_quiet(steps=2)
    assert {m: campaign.office.relay.has(m) for m in MEMBERS[4:8]} == dict.fromkeys(MEMBERS[4:8], 1)
    assert (await campaign.one()).items() >= {"relayed": 30, "held": 0, "deferred": 0, "state": "approved"}.items()
    journal = [data for kind, data in await campaign.home.events("T000000000000020") if kind == "verdict"]
    assert journal[0]["approved"] == ["unapproved-mailing"] or journal[0]["action"] == "relay"


async def test_a_vote_on_a_copy_counts_for_the_mailing(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 7)
    copy = given[-1]
    assert isinstance(copy, IsHeld)
    stored = await campaign.home.hold(copy.hold_id)
    assert stored.primary
    await campaign.decide(copy.hold_id)
    all_of_it = [await campaign.home.store.holds.find(g.hold_id) for g in given[4:] if isinstance(g, IsHeld)]
    assert {hold and hold.state for hold in all_of_it} == {Held.APPROVED}


async def test_beyond_the_approved_number_copies_are_held(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.decide(entry.hold_id, people=10)
    assert kinds(await campaign.to_members(6, 12)) == "rrrrhh"
    (anew,) = await campaign.home.store.holds.newest(states=[Held.WAITING])
    assert anew.hold_id != entry.hold_id
    assert kinds(await campaign.to_members(2, 4)) == "rr", "recipients within the limit stay covered"


async def test_an_approved_single_message_covers_its_recipients(campaign: Campaign) -> None:
    given = await campaign.send(*MEMBERS[:8])
    assert isinstance(given, IsHeld)
    await campaign.decide(given.hold_id)
    assert kinds(await campaign.to_members(0, 10)) == "r" * 8 + "hh"


async def test_an_approval_covers_its_lists_for_its_time(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.decide(entry.hold_id)
    assert kinds([await campaign.send("reader@example.org")]) == "h"
    campaign.home.clock.pass_(days=8)
    await campaign.home.watch.read()
    assert kinds(await campaign.to_members(6, 12)) == "hhhddd", "holds that need another decision wait"


async def test_a_copy_that_another_rule_holds_is_not_covered(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.decide(entry.hold_id)
    assert kinds([await campaign.send(*MEMBERS[20:50], X_Looks="internal")]) == "h"


async def test_a_rejection_refuses_later_copies_with_its_reason(campaign: Campaign) -> None:
    await campaign.to_members(0, 7)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.decide(entry.hold_id, Choice.REJECT, comment="Bacon is nothing for this list")
    (said,) = await campaign.to_members(7, 8)
    assert isinstance(said, Rejected)
    assert 'rejected this mailing: "Bacon is nothing for this list".' in str(said.reply)
    assert (await campaign.one()).items() >= {"state": "rejected", "held": 0}.items()
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    assert kinds(await campaign.to_members(7, 8)) == "r"


async def test_a_reopened_mailing_needs_a_new_decision(campaign: Campaign) -> None:
    await campaign.to_members(0, 7)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.decide(entry.hold_id, Choice.REJECT)
    id = (await campaign.one())["id"]
    with pytest.raises(NotEntitled):
        await campaign.service.reopen(id, approver=ANNA, by="test")
    await campaign.service.reopen(id[:6].lower(), approver=EVA, by="test")
    assert kinds(await campaign.to_members(7, 9)) == "hh"
    with pytest.raises(Conflict):
        await campaign.service.reopen(id, approver=EVA, by="test")


async def test_withdrawal_and_expiry_include_all_copies(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 7)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.approvals.withdraw(entry.hold_id, sender=ANNA, by="test")
    for one in given[4:]:
        assert isinstance(one, IsHeld)
        assert (await campaign.home.store.holds.find(one.hold_id)).state is Held.WITHDRAWN  # type: ignore[union-attr]
    again = await campaign.to_members(7, 9)
    assert kinds(again) == "hh", "later copies are held"
    (entry,) = [h for h in await campaign.home.store.holds.newest(states=(Held.WAITING,)) if not h.primary]
    await campaign.home.expire(entry.hold_id)
    await campaign.approvals.follow()
    assert {h.state for h in [await campaign.home.store.holds.find(g.hold_id) for g in again if isinstance(g, IsHeld)] if h} == {Held.EXPIRED}  # fmt: skip


async def test_a_decision_stands_when_the_store_is_too_busy_for_the_copies(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await campaign.to_members(0, 7)
    (entry,) = await campaign.home.store.holds.newest()

    async def busy(*_: object) -> int:
        raise Busy("waited too long")

    with monkeypatch.context() as then:
        then.setattr(campaign.home.store.holds, "follow", busy)
        await campaign.decide(entry.hold_id, Choice.REJECT)
    ids = [one.hold_id for one in given if isinstance(one, IsHeld)]

    async def states() -> list[Held]:
        return [hold.state for hold in [await campaign.home.store.holds.find(id) for id in ids] if hold is not None]

    assert (await states()).count(Held.REJECTED) == 1
    await campaign.approvals.follow()
    assert set(await states()) == {Held.REJECTED}


async def test_copies_to_other_lists_or_by_other_senders_join(campaign: Campaign) -> None:
    """A copy to another list needs the earlier votes again, and the sender of a copy does not decide."""
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds.newest()
    await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=DPO, by="test")
    await campaign.send("reader@example.org", sender="Eva <eva@example.com>", reverse_path=EVA)
    (grown,) = await campaign.home.store.holds.newest()
    assert (set(grown.lists), EVA in grown.senders) == ({"ramadan", "news"}, True)
    with pytest.raises(NotEntitled):
        await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=OMAR, by="test")
    (waits,) = await campaign.home.store.holds.newest(states=[Held.WAITING])
    assert waits.hold_id == entry.hold_id, "the DPO voted before the other list came to it"
    await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=DPO, by="test")
    assert await campaign.home.store.holds.newest(states=[Held.WAITING]) == []


async def test_the_copy_of_a_writer_is_found_among_those_of_a_longer_address(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_FEW", 1)
    await campaign.to_members(0, 5)
    for n, who in ((5, "gulf"), (6, "ulf")):
        await campaign.send(MEMBERS[n], sender=f"{who}@example.com", reverse_path=f"{who}@example.com", Subject=who)
    (entry,) = await campaign.home.store.holds.newest()
    copy = await campaign.home.store.holds.copy_by(entry.hold_id, "ulf@example.com")
    assert copy is not None
    assert copy.subject == "ulf"


async def test_each_sender_is_notified_once_and_of_the_outcome(campaign: Campaign) -> None:
    await campaign.to_members(0, 5)
    for n in (5, 6):
        await campaign.send(MEMBERS[n], sender="Ulf <ulf@example.com>", reverse_path="ulf@example.com", Subject="Ulfs")
    (entry,) = await campaign.home.store.holds.newest()
    assert entry.told == ("ulf@example.com",)
    await campaign.decide(entry.hold_id, Choice.REJECT, comment="no")
    told = [
        (str(i.recipients[0].address), i.data["notice"])
        for i in await campaign.home.outbox()
        if i.kind is IntentKind.NOTICE and str(i.recipients[0].address) in (ANNA, "ulf@example.com")
    ]
    own = {
        str(i.recipients[0].address): (i.data["subject"], i.data["from"])
        for i in await campaign.home.outbox()
        if i.data.get("notice") == "held"
    }
    assert own["ulf@example.com"] == ("Ulfs", "ulf@example.com"), "each reads of the message they wrote"
    assert own[ANNA][0] != "Ulfs"
    later = released_after_freeze(replace(entry, held_up=True), campaign.home.in_force, campaign.home.clock.now())
    assert [intent.data.get("copy_by") for intent in later] == [None, "ulf@example.com"], "also once a thaw lets it go"
    for intent in await campaign.home.outbox():
        if intent.data.get("notice") == "decided":
            reader = intent.recipients[0].address
            data = await fill(campaign.home.store, intent.data, campaign.home.in_force, reader)
            assert data is not None
            assert (data["subject"] == "Ulfs") is (str(reader) == "ulf@example.com")
    window = {"since": "2026-03-01T00:00:00Z", "until": "2026-03-09T00:00:00Z"}
    for person, subject in ((ANNA, own[ANNA][0]), ("ulf@example.com", "Ulfs")):
        about = {"notice": "digest", "role": "sender", "person": person, **window}
        digest = await fill(campaign.home.store, about, campaign.home.in_force, Address.parse(person))
        assert digest is not None
        assert [line["subject"] for line in digest["messages"]] == [subject]
    assert sorted(told) == [
        (ANNA, "decided"),
        (ANNA, "held"),
        ("ulf@example.com", "decided"),
        ("ulf@example.com", "held"),
    ]


async def test_a_retry_of_a_released_message_gets_its_hold(campaign: Campaign) -> None:
    transaction = campaign.home.transaction(*MEMBERS[:6], X_Looks="mailing", X_Mailing="m")
    held = await campaign._intake(transaction, FakePassage())
    assert isinstance(held, IsHeld)
    await campaign.decide(held.hold_id)
    await campaign.office.until_quiet(steps=2)
    again = await campaign._intake(replace(transaction, id="AGAIN"), way := FakePassage())
    assert (again, way.sent) == (replace(held, released=True), [])
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    assert kinds([await campaign._intake(replace(transaction, id="LATER"), FakePassage())]) == "r"


async def never_answered(campaign: Campaign, hold_id: str) -> None:
    """As if its client had got 451: the hold becomes void."""
    await campaign.home.store.write(
        lambda b: b.execute("UPDATE hold SET acknowledged = false WHERE hold_id = ?", [(hold_id,)])
    )
    campaign.home.clock.pass_(minutes=16)
    await campaign.home.watch.read()
    await campaign.approvals.sweep()
    assert (await campaign.home.hold(hold_id)).state is Held.VOID


async def test_a_retried_post_to_the_list_is_decided_on_alone(campaign: Campaign) -> None:
    """Meanwhile another post of the mailing, with another text, waits. Whoever rejects that has not seen this one."""
    one = await campaign.send(RAMADAN, Message_ID="<1@example.com>", body="One text")
    assert isinstance(one, IsHeld)
    await never_answered(campaign, one.hold_id)
    other = await campaign.send(RAMADAN, body="Another text")
    assert isinstance(other, IsHeld)
    assert await campaign.send(RAMADAN, Message_ID="<1@example.com>", body="One text") == one
    stored = await campaign.home.holds()
    assert [(hold.hold_id, hold.primary, hold.copies) for hold in stored] == [
        (one.hold_id, "", 0),
        (other.hold_id, "", 0),
    ]
    assert "with" not in dict(await campaign.home.events(one.hold_id))["adopted"]
    await campaign.decide(other.hold_id, Choice.REJECT, comment="Not this text.")
    await campaign.approvals.follow()
    assert [hold.state for hold in await campaign.home.holds()] == [Held.WAITING, Held.REJECTED]


async def test_a_void_copy_counts_again_once_it_is_retried(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 7)
    copy = given[5]
    assert isinstance(copy, IsHeld)
    await never_answered(campaign, copy.hold_id)
    assert (await campaign.one())["copies"] == 1
    assert await campaign.send(MEMBERS[5], Message_ID="<5@example.com>", body="Copy 5") == copy
    assert (await campaign.one())["copies"] == 2
    stored = await campaign.home.hold(copy.hold_id)
    lead = await campaign.home.hold(stored.primary)
    assert (lead.copies, lead.reach) == (2, 3)


async def test_a_void_letter_waits_again_with_those_of_its_sender(tmp_path: Path) -> None:
    policy = sample()
    policy["rules"] = [{"id": "busy", "when": {"sender.customers": ">= 2 in 1h"}, "then": "hold"}]
    async with house(tmp_path, documents=documents(policy)) as home:
        campaign = Campaign(home)
        given = [await campaign.send(MEMBERS[n], mailing=f"letter {n}") for n in range(3)]
        first, letter = given[1:]
        assert isinstance(first, IsHeld)
        assert isinstance(letter, IsHeld)
        counted = (await home.hold(first.hold_id)).copies, (await home.hold(first.hold_id)).reach
        await never_answered(campaign, letter.hold_id)
        left = await home.hold(first.hold_id)
        assert (counted, (left.copies, left.reach)) == ((1, 2), (0, 1))
        assert (
            await campaign.send(MEMBERS[2], mailing="letter 2", Message_ID="<2@example.com>", body="Copy 2") == letter
        )
        lead = await home.hold(first.hold_id)
        assert (await home.hold(letter.hold_id)).primary == first.hold_id
        assert (lead.copies, lead.reach) == counted


async def test_letters_of_a_sender_have_a_place_of_their_own(tmp_path: Path) -> None:
    """The hold that they waited under becomes void: whether it led its mailing or not, they wait under the next one, and its mailing
    has no place there."""
    policy = sample()
    policy["rules"] = [{"id": "busy", "when": {"sender.customers": ">= 2 in 1h"}, "then": "hold"}]
    async with house(tmp_path, documents=documents(policy)) as home:
        campaign = Campaign(home, copies=50)
        earlier = await campaign.send(RAMADAN, body="One text")
        post = await campaign.send(RAMADAN, MEMBERS[0], Message_ID="<1@example.com>", body="Another text")
        letters = [await campaign.send(MEMBERS[n], mailing=f"letter {n}", Message_ID=f"<{n}@l>") for n in range(1, 5)]
        assert isinstance(earlier, IsHeld)
        assert isinstance(post, IsHeld)
        first, second, third = (one.hold_id for one in letters if isinstance(one, IsHeld))

        async def wait() -> list[tuple[str, str, int, int]]:
            there = [one for one in await home.holds() if one.state is Held.WAITING]
            return [
                (one.hold_id, one.primary, one.copies, one.reach) for one in there if one.hold_id != earlier.hold_id
            ]

        before = await wait()
        assert before == [(post.hold_id, "", 3, 63), *((one, post.hold_id, 0, 1) for one in (first, second, third))]
        await never_answered(campaign, post.hold_id)
        assert await wait() == [(first, "", 2, 3), (second, first, 0, 1), (third, first, 0, 1)]
        await never_answered(campaign, first)
        assert await wait() == [(second, "", 1, 2), (third, second, 0, 1)]
        await campaign.send(MEMBERS[2], mailing="letter 2", Message_ID="<2@l>", body="Copy 3")
        await campaign.send(RAMADAN, MEMBERS[0], Message_ID="<1@example.com>", body="Another text")
        assert sorted(await wait()) == [
            (post.hold_id, second, 0, 60), (first, second, 0, 1), (second, "", 3, 63), (third, second, 0, 1)
        ]  # fmt: skip
        await campaign.decide(second)
        await campaign.office.until_quiet(steps=5)
        assert [campaign.office.relay.has(m) for m in MEMBERS[2:5]] == [1, 1, 1]
        assert [one.entry for one in await campaign.service.list(least=1) if one.entry] == [earlier.hold_id]


async def test_a_copy_that_is_answered_after_its_primary_hold_is_void_takes_its_place(campaign: Campaign) -> None:
    """It was held within the last moments of that. Its client has a 250, so that people must hear of it."""
    first, second = (await campaign.to_members(0, 5))[-1], None
    campaign.home.clock.pass_(minutes=10)
    second = await campaign.send(MEMBERS[6])
    assert isinstance(first, IsHeld)
    assert isinstance(second, IsHeld)
    await campaign.home.store.write(lambda b: b.execute("UPDATE hold SET acknowledged = false", [()]))
    campaign.home.clock.pass_(minutes=6)
    await campaign.home.watch.read()
    await campaign.approvals.sweep()
    assert [(one.state, one.primary) for one in await campaign.home.holds()] == [
        (Held.VOID, second.hold_id),
        (Held.WAITING, ""),
    ]


async def test_a_post_that_waits_for_its_senders_number_leaves_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    policy = sample()
    policy["rules"] = [{"id": "busy", "when": {"sender.customers": ">= 2 in 1h"}, "then": "hold"}]
    async with house(tmp_path, documents=documents(policy)) as home:
        campaign = Campaign(home)
        first = await campaign.send(RAMADAN, body="One text")
        other = await campaign.send(RAMADAN, MEMBERS[0], sender=OMAR, body="Another text")
        assert isinstance(first, IsHeld)
        assert isinstance(other, IsHeld)
        assert (await campaign.home.hold(other.hold_id)).queue
        assert (await campaign.one())["hold"] == first.hold_id
        await campaign.send(RAMADAN, body="One text", Message_ID="<again@example.com>")
        lead = await campaign.home.hold(first.hold_id)
        assert (lead.by_sender, lead.queue, lead.copies) == (True, "", 1), "nobody's letters wait with it"
        assert _mailing_lines(lead)[0][0] == "Mailing"


async def test_if_the_primary_hold_is_void_the_next_copy_is_promoted(campaign: Campaign) -> None:
    """A primary hold whose client got 451 is void, and the next copy is promoted, with the list of people who had
    notices."""
    given = await campaign.to_members(0, 8)
    first, second = given[4], given[5]
    assert isinstance(first, IsHeld)
    assert isinstance(second, IsHeld)
    await never_answered(campaign, first.hold_id)
    (entry,) = await campaign.home.store.holds.newest(states=[Held.WAITING])
    assert (entry.hold_id, entry.copies) == (second.hold_id, 2)
    assert (await campaign.one())["hold"] == entry.hold_id
    assert await campaign.send(MEMBERS[4], Message_ID="<4@example.com>", body="Copy 4") == first, (
        "its client tries again"
    )
    of = dict(await campaign.home.events(first.hold_id))
    assert of["voided"]["leads"]["hold"] == of["adopted"]["with"] == entry.hold_id
    again, lead = await campaign.home.hold(first.hold_id), await campaign.home.hold(entry.hold_id)
    assert (again.primary, again.copies, lead.copies, (await campaign.one())["copies"]) == (entry.hold_id, 0, 3, 3)
    await campaign.decide(first.hold_id)
    await campaign.office.until_quiet(steps=2)
    assert [campaign.office.relay.has(m) for m in MEMBERS[4:8]] == [1, 1, 1, 1]
    found = await campaign.home.store.journal.activity(entry.held_at, None, UTC)
    assert (found.decided.approved, found.decided.total, found.waiting) == (1, 1, 0), "as the lists show it"
