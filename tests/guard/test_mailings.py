"""The same thing to many people: held as one, decided as one, let through as people allowed, stopped as one."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpguard.guard.approvals import Conflict, NotEntitled
from smtpguard.guard.mailings import Mailings, NoSuch, row
from smtpguard.guard.term import Term
from smtpguard.lists.shelf import index_path
from smtpguard.mail.reply import Reply
from smtpguard.policy.admission import IntentKind, Selector
from smtpguard.policy.approval import Choice, Hold
from smtpguard.policy.approval import State as Held
from smtpguard.policy.mailing import Fate, State
from smtpguard.policy.staging import At
from smtpguard.policy.verdict import Deferred, Disposition, Rejected, Relayed
from smtpguard.policy.verdict import Held as IsHeld
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, House, Way, house, index
from tests.guard.office import Office

UNAPPROVED = """
  - id: unapproved-mailing
    description: A mailing to many customers is approved first
    when: {mailing.customers: ">= 5", mailing.approved: false}
    then: hold
"""
DPO, EVA, OMAR, ANNA = "dpo@example.com", "eva@example.com", "omar@example.com", "anna@example.com"


def documents(*, stages: str = "") -> dict[str, bytes]:
    policy = POLICY + UNAPPROVED
    if stages:
        policy = policy.replace("    avoid: [pork]\n", f"    avoid: [pork]\n    stages: {stages}\n")
    return {**DOCUMENTS, "policy.yaml": policy.encode()}


class Campaign:
    """A guard, and a tool that sends one mailing to one member after the other."""

    def __init__(self, home: House, *, copies: int = 3) -> None:
        self.home, self.office = home, Office(home)
        self.term = Term(copies=copies)
        self.service = Mailings(home.store, home, home.clock, home.in_force.registry.digester)
        self._intake = home.intake()
        self._intake._term = self.term
        self.approvals = home.approvals()
        self.approvals._term = self.term
        self._number = itertools.count()
        self.ways: list[Way] = []

    async def send(self, *to: str, mailing: str = "spring", **more: Any) -> Disposition:
        n = next(self._number)
        headers = {"X_Looks": "mailing", "X_Mailing": mailing, "Message_ID": f"<{n}@example.com>", "body": f"Copy {n}"}
        transaction = self.home.transaction(*to, **headers | more)
        way = Way()
        self.ways.append(way)
        return await self._intake(transaction, way)

    async def to_members(self, first: int, last: int, **more: Any) -> list[Disposition]:
        return [await self.send(MEMBERS[n], **more) for n in range(first, last)]

    async def decide(self, hold_id: str, choice: Choice = Choice.APPROVE, **more: Any) -> None:
        for who in (EVA, DPO)[: 1 if choice is Choice.REJECT else 2]:
            await self.approvals.vote(hold_id, choice, approver=who, by="test", **more)

    async def one(self) -> dict[str, Any]:
        """The one mailing that there is, as programs see it."""
        (mailing,) = await self.service.list(least=1)
        return dict(row(mailing))

    async def noted(self) -> None:
        """Outcomes are written with a later batch."""
        await self.home.store.record([])


def kinds(given: list[Disposition]) -> str:
    letters = {Relayed: "r", IsHeld: "h", Deferred: "d", Rejected: "x"}
    return "".join(letters[type(one)] for one in given)


@pytest.fixture
async def campaign(tmp_path: Path) -> AsyncIterator[Campaign]:
    async with house(tmp_path, documents=documents()) as home:
        yield Campaign(home)


async def test_held_from_the_threshold_on_as_one(campaign: Campaign) -> None:
    assert kinds(await campaign.to_members(0, 12)) == "rrrrhhhhdddd"
    (entry,) = await campaign.home.store.holds()
    assert (entry.copies, entry.reach) == (3, 8)
    (hit,) = (h for h in entry.verdict.hits if h.rule == "unapproved-mailing")
    assert [r.public for r in hit.reasons[-2:]] == [
        "It is one of several messages of a mailing: what is decided is decided on all of them, and on what still comes.",
        "4 people had got it before it was stopped.",
    ]
    await campaign.noted()
    assert (await campaign.one()).items() >= {
        "relayed": 4, "held": 4, "deferred": 4, "refused": 0, "customers": 12, "messages": 12, "copies": 3,
        "state": "held", "hold": entry.hold_id, "subject": "SV: lunch", "reverse_path": ANNA, "lists": ["ramadan"],
    }.items()  # fmt: skip


async def test_one_notice_to_the_writer_and_one_to_each_approver(campaign: Campaign) -> None:
    await campaign.to_members(0, 12)
    told = sorted(
        (str(i.recipients[0].address), i.data["notice"]) for i in await campaign.home.outbox() if i.kind is IntentKind.NOTICE
    )  # fmt: skip
    assert told == [(ANNA, "held"), (DPO, "approve"), (EVA, "approve"), (OMAR, "approve")]


async def test_the_deferred_are_told_why(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 9)
    assert isinstance(given[-1], Deferred)
    assert given[-1].reply.code == 451
    (entry,) = await campaign.home.store.holds()
    assert entry.hold_id in str(given[-1].reply)


async def test_one_approval_decides_for_all_of_it_and_for_what_still_comes(campaign: Campaign) -> None:
    await campaign.to_members(0, 12)
    (entry,) = await campaign.home.store.holds()
    await campaign.decide(entry.hold_id)
    releases = [i.hold_id for i in await campaign.home.outbox() if i.kind is IntentKind.RELEASE]
    assert len(releases) == 4
    assert kinds(await campaign.to_members(8, 30)) == "r" * 22
    await campaign.office.until_quiet(steps=2)
    assert {m: campaign.office.relay.has(m) for m in MEMBERS[4:8]} == dict.fromkeys(MEMBERS[4:8], 1)
    assert (await campaign.one()).items() >= {"relayed": 30, "held": 0, "deferred": 0, "state": "approved"}.items()
    journal = [data for kind, data in await campaign.home.events("T000000000000020") if kind == "verdict"]
    assert journal[0]["approved"] == ["unapproved-mailing"] or journal[0]["action"] == "relay"


async def test_a_vote_on_a_copy_is_one_on_all_of_it(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 7)
    copy = given[-1]
    assert isinstance(copy, IsHeld)
    stored = await campaign.home.store.hold(copy.hold_id)
    assert stored is not None
    assert stored.lead
    await campaign.decide(copy.hold_id)
    assert {(await campaign.home.store.hold(g.hold_id)).state for g in given[4:] if isinstance(g, IsHeld)} == {
        Held.APPROVED
    }  # type: ignore[union-attr]


async def test_past_the_bound_it_is_held_anew(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds()
    await campaign.decide(entry.hold_id, people=10)
    assert kinds(await campaign.to_members(6, 12)) == "rrrrhh"
    (anew,) = await campaign.home.store.holds(states=[Held.WAITING])
    assert anew.hold_id != entry.hold_id
    assert kinds(await campaign.to_members(2, 4)) == "rr", "who is within the bound is so still"


async def test_usually_as_many_as_the_list_has(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds()
    await campaign.decide(entry.hold_id)
    assert (await campaign.one())["approved"]["people"] == len(MEMBERS)


async def test_a_single_message_is_approved_for_those_whom_it_was_to(campaign: Campaign) -> None:
    given = await campaign.send(*MEMBERS[:8])
    assert isinstance(given, IsHeld)
    await campaign.decide(given.hold_id)
    assert kinds(await campaign.to_members(0, 10)) == "r" * 8 + "hh"


async def test_an_approval_is_for_these_lists_and_this_time(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds()
    await campaign.decide(entry.hold_id)
    assert kinds([await campaign.send("reader@example.org")]) == "h"
    campaign.home.clock.pass_(days=8)
    await campaign.home.watch.read()
    assert kinds(await campaign.to_members(6, 12)) == "hhhddd", "and what waits for another decision waits"


NEWS = "reader@example.org"


async def test_an_approval_for_another_list_stands_beside_the_first(staged: Campaign) -> None:
    """The text goes to a second list while it is sent to the first in stages: neither approval ends the other, and each is
    for its lists, its rules and both together for so many people."""
    await pass_(staged, minutes=31)
    before = await staged.service.show((await staged.one())["id"])
    assert before.progress is not None
    assert before.grant is not None
    other = await staged.send(NEWS)
    assert isinstance(other, IsHeld)
    await staged.approvals.vote(other.hold_id, Choice.APPROVE, approver=EVA, by="test")
    both = await staged.service.show(before.mailing_id)
    assert [sorted(g.lists) for g in both.grants] == [["news"], ["ramadan"]]
    assert {g.people for g in both.grants} == {before.grant.people + 2}, "as many as are on both"
    assert both.progress == before.progress, "it is sent in stages still"
    await pass_(staged, minutes=1)
    left = before.progress.limit - (await staged.service.show(before.mailing_id)).out
    given = kinds(await staged.to_members(20, 40))
    assert given == "r" * left + "d" * (20 - left), "and nothing of it is held anew"
    reopened = await staged.service.reopen(before.mailing_id, approver=EVA, by="test")
    assert reopened.grants == ()


async def test_another_rule_that_hits_is_held_anew(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds()
    await campaign.decide(entry.hold_id)
    assert kinds([await campaign.send(*MEMBERS[20:50], X_Looks="internal")]) == "h"


async def test_rejected_with_the_approvers_sentence(campaign: Campaign) -> None:
    await campaign.to_members(0, 7)
    (entry,) = await campaign.home.store.holds()
    await campaign.decide(entry.hold_id, Choice.REJECT, comment="Bacon is nothing for this list")
    (said,) = await campaign.to_members(7, 8)
    assert isinstance(said, Rejected)
    assert "Bacon is nothing for this list." in str(said.reply)
    assert (await campaign.one()).items() >= {"state": "rejected", "held": 0}.items()
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    assert kinds(await campaign.to_members(7, 8)) == "r"


async def test_reopened_it_is_as_if_nothing_was_decided(campaign: Campaign) -> None:
    await campaign.to_members(0, 7)
    (entry,) = await campaign.home.store.holds()
    await campaign.decide(entry.hold_id, Choice.REJECT)
    id = (await campaign.one())["id"]
    with pytest.raises(NotEntitled):
        await campaign.service.reopen(id, approver=ANNA, by="test")
    await campaign.service.reopen(id[:6].lower(), approver=EVA, by="test")
    assert kinds(await campaign.to_members(7, 9)) == "hh"
    with pytest.raises(Conflict):
        await campaign.service.reopen(id, approver=EVA, by="test")


async def test_withdrawn_and_expired_take_all_copies_along(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 7)
    (entry,) = await campaign.home.store.holds()
    await campaign.approvals.withdraw(entry.hold_id, sender=ANNA, by="test")
    for one in given[4:]:
        assert isinstance(one, IsHeld)
        assert (await campaign.home.store.hold(one.hold_id)).state is Held.WITHDRAWN  # type: ignore[union-attr]
    again = await campaign.to_members(7, 9)
    assert kinds(again) == "hh", "what still comes is held anew"
    campaign.home.clock.pass_(days=4)
    await campaign.home.watch.read()
    await campaign.approvals.sweep()
    await campaign.approvals.follow()
    assert {h.state for h in [await campaign.home.store.hold(g.hold_id) for g in again if isinstance(g, IsHeld)] if h} == {Held.EXPIRED}  # fmt: skip


async def test_other_writers_and_their_approvers_join(campaign: Campaign) -> None:
    """What a copy adds needs those who had voted before once more; who sent a copy decides on none of it."""
    await campaign.to_members(0, 6)
    (entry,) = await campaign.home.store.holds()
    await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=DPO, by="test")
    await campaign.send("reader@example.org", sender="Eva <eva@example.com>", reverse_path=EVA)
    (grown,) = await campaign.home.store.holds()
    assert (set(grown.lists), EVA in grown.senders) == ({"ramadan", "news"}, True)
    with pytest.raises(NotEntitled):
        await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=EVA, by="test")
    await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=OMAR, by="test")
    (waits,) = await campaign.home.store.holds(states=[Held.WAITING])
    assert waits.hold_id == entry.hold_id, "the DPO voted before the other list came to it"
    await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=DPO, by="test")
    assert await campaign.home.store.holds(states=[Held.WAITING]) == []


async def test_every_writer_of_it_is_told_once_and_hears_the_outcome(campaign: Campaign) -> None:
    await campaign.to_members(0, 5)
    for n in (5, 6):
        await campaign.send(MEMBERS[n], sender="Ulf <ulf@example.com>", reverse_path="ulf@example.com")
    (entry,) = await campaign.home.store.holds()
    assert entry.told == ("ulf@example.com",)
    await campaign.decide(entry.hold_id, Choice.REJECT, comment="no")
    told = [
        (str(i.recipients[0].address), i.data["notice"])
        for i in await campaign.home.outbox()
        if i.kind is IntentKind.NOTICE and str(i.recipients[0].address) in (ANNA, "ulf@example.com")
    ]
    assert sorted(told) == [
        (ANNA, "decided"),
        (ANNA, "held"),
        ("ulf@example.com", "decided"),
        ("ulf@example.com", "held"),
    ]


async def test_what_waits_is_held_though_the_window_has_passed(campaign: Campaign) -> None:
    await campaign.to_members(0, 6)
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    assert kinds(await campaign.to_members(6, 8)) == "hh"


ULF, STRANGER = "ulf@example.com", "stranger@elsewhere.example"
READ = """
  - id: read-everything
    when: {message.looks: mailing}
    then: hold
    mode: observe
"""


@pytest.mark.parametrize("decided", ["waits", "enough of it stored", "rejected", "paused"])
async def test_a_copy_that_reaches_no_customer_passes_whatever_is_decided(tmp_path: Path, decided: str) -> None:
    """Colleagues, and strangers who are on no list: those whom people protect are not among them."""
    texts = documents(stages="[2, rest]" if decided == "paused" else "")
    async with house(tmp_path, documents={**texts, "policy.yaml": texts["policy.yaml"] + READ.encode()}) as home:
        campaign = Campaign(home)
        held = (await campaign.to_members(0, 12 if decided == "enough of it stored" else 6))[4]
        assert isinstance(held, IsHeld)
        if decided in ("rejected", "paused"):
            await campaign.decide(held.hold_id, Choice.REJECT if decided == "rejected" else Choice.APPROVE)
            await campaign.to_members(12, 15)
        assert kinds([await campaign.send(to) for to in (ULF, STRANGER)]) == "rr"
        assert kinds(await campaign.to_members(19, 20)) == {"waits": "h", "rejected": "x"}.get(decided, "d")


def lists_of(home: House, *there: str) -> None:
    """Only these lists can say now who is on them."""
    for name, people in (("ramadan", MEMBERS), ("news", ["reader@example.org"])):
        if name in there:
            index(home.folder, name, people, at=home.clock.at)
        else:
            index_path(home.folder, name).unlink(missing_ok=True)
    home.in_force = home.build(documents())


async def held_in_doubt(campaign: Campaign) -> Hold:
    """The mail of a shop's, one template, on an evening on which a list cannot say whether these are its people."""
    lists_of(campaign.home, "news")
    said = [await campaign.send(f"stranger{n}@elsewhere.example") for n in range(6)]
    assert kinds(said) == "rrrrhh"
    (entry,) = await campaign.home.store.holds()
    assert dict(entry.verdict.unknown)["mailing.customers"] == "known only to be 0 to 5"
    return entry


async def test_what_only_a_doubt_has_held_does_not_wait_long_after_the_list_is_well(campaign: Campaign) -> None:
    entry = await held_in_doubt(campaign)
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(0, 1)) == "h", "those of the evening may still be customers"
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    lists_of(campaign.home, "news")
    assert kinds([await campaign.send("stranger@elsewhere.example")]) == "h", "in doubt again, it waits with the others"
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(2, 4)) == "rr"
    (waits,) = await campaign.home.store.holds(states=[Held.WAITING])
    assert waits.hold_id == entry.hold_id, "what was held is for people to decide on"


async def test_what_turns_out_to_be_as_large_as_was_feared_waits_as_one(campaign: Campaign) -> None:
    campaign._intake._term = Term(copies=20)
    await held_in_doubt(campaign)
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(0, 6)) == "hhhhhh"
    (entry,) = await campaign.home.store.holds()
    assert dict(entry.verdict.unknown) == {}
    assert [h.rule for h in entry.verdict.hits] == ["unapproved-mailing"]
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(6, 8)) == "hh"


@pytest.mark.parametrize("choice", [None, Choice.APPROVE, Choice.REJECT])
async def test_a_streams_mail_waits_for_nothing_that_bears_its_text(tmp_path: Path, choice: Choice | None) -> None:
    """Somebody who sends the shop's receipt about keeps no receipt of the shop."""
    rule = UNAPPROVED.replace("    then: hold", "    unless: {stream: any}\n    then: hold")
    policy = POLICY.replace("    avoid: [pork]\n", "    avoid: [pork]\n    stages: [1, rest]\n") + rule
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": policy.encode()}) as home:
        campaign = Campaign(home)
        held = (await campaign.to_members(0, 9))[4]
        assert isinstance(held, IsHeld)
        if choice is not None:
            await campaign.decide(held.hold_id, choice)
            await campaign.to_members(9, 12)
        home.verifier.domains = frozenset({"shop.example.com"})
        receipt = {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}}
        assert kinds([await campaign.send(MEMBERS[n], **receipt) for n in (20, 21)]) == "rr"
        expected = {None: "d", Choice.APPROVE: "d", Choice.REJECT: "x"}[choice]
        assert kinds(await campaign.to_members(22, 23)) == expected, "and the others go on waiting"


async def test_where_everybody_is_counted_colleagues_wait_as_well(tmp_path: Path) -> None:
    all_hands = UNAPPROVED.replace("mailing.customers", "mailing.reach")
    texts = {**DOCUMENTS, "policy.yaml": (POLICY + all_hands).encode()}
    async with house(tmp_path, documents=texts) as home:
        campaign = Campaign(home)
        said = [await campaign.send(f"colleague{n}@example.com") for n in range(6)]
        assert kinds(said) == "rrrrhh"
        home.clock.pass_(hours=25)
        await home.watch.read()
        assert isinstance(await campaign.send("colleague9@example.com"), IsHeld)


async def test_a_retry_of_what_was_released_is_that(campaign: Campaign) -> None:
    transaction = campaign.home.transaction(*MEMBERS[:6], X_Looks="mailing", X_Mailing="m")
    held = await campaign._intake(transaction, Way())
    assert isinstance(held, IsHeld)
    await campaign.decide(held.hold_id)
    await campaign.office.until_quiet(steps=2)
    again = await campaign._intake(replace(transaction, id="AGAIN"), way := Way())
    assert (again, way.sent) == (held, [])
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    assert kinds([await campaign._intake(replace(transaction, id="LATER"), Way())]) == "r"


async def test_a_mailing_is_frozen_and_recalled(campaign: Campaign) -> None:
    await campaign.to_members(0, 3)
    id = (await campaign.one())["id"]

    async def freeze() -> None:
        await campaign.home.store.freeze(*frozen(campaign, id))
        await campaign.home.watch.read()

    way = Way(before_dot=freeze)
    transaction = campaign.home.transaction(MEMBERS[3], X_Looks="mailing", X_Mailing="spring")
    given = await campaign._intake(transaction, way)
    assert (kinds([given]), way.sent) == ("h", [])
    assert kinds(await campaign.to_members(4, 5)) == "h"
    assert kinds(await campaign.to_members(4, 5, mailing="another")) == "r"
    await campaign.noted()
    assert (await campaign.service.show(id)).people.relayed == 3


def frozen(campaign: Campaign, id: str) -> tuple[Any, Any]:
    from smtpguard.audit.event import Event, Kind
    from smtpguard.policy.admission import Freeze

    now = campaign.home.clock.now()
    freeze = Freeze(freeze_id="F1", selector=Selector.MAILING, value=id, reason="a fire", by="root", at=now)
    return freeze, Event(kind=Kind.FREEZE, id="F1", at=now)


async def test_whom_the_relay_refuses_and_who_got_it(campaign: Campaign) -> None:
    campaign.home.clock.pass_(seconds=1)
    transaction = campaign.home.transaction(MEMBERS[0], X_Looks="mailing", X_Mailing="spring")
    await campaign._intake(transaction, Way(replies=(Reply.of(550, "5.1.1", "No such user"),)))
    await campaign.to_members(1, 3)
    await campaign.noted()
    one = await campaign.one()
    assert (one["relayed"], one["refused"]) == (2, 1)
    got = await campaign.service.people(one["id"], [*(m.upper() for m in MEMBERS), "nobody", "x@y.example"])
    assert {(g.address, g.fate) for g in got} == {
        (MEMBERS[0].upper(), Fate.REFUSED), (MEMBERS[1].upper(), Fate.RELAYED), (MEMBERS[2].upper(), Fate.RELAYED)
    }  # fmt: skip
    with pytest.raises(NoSuch):
        await campaign.service.show("NOTHING")


# stages


@pytest.fixture
async def staged(tmp_path: Path) -> AsyncIterator[Campaign]:
    async with house(tmp_path, documents=documents(stages='{steps: [5, "20%", rest], pause: 30m}')) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 12)
        (entry,) = await home.store.holds()
        await made.decide(entry.hold_id)
        yield made


async def pass_(campaign: Campaign, **time: float) -> None:
    campaign.home.clock.pass_(**time)
    await campaign.home.watch.read()
    await campaign.approvals.follow()


async def at(campaign: Campaign) -> tuple[Any, ...]:
    one = await campaign.one()
    return one["stage"]["at"], one["stage"]["stage"], one["state"]


async def test_stages_go_on_by_time(staged: Campaign) -> None:
    """Four were relayed before; the first stage takes five of the eight that wait, then there is a pause."""
    assert await at(staged) == ("paused", 1, "paused")
    assert sum(1 for i in await staged.home.outbox() if i.kind is IntentKind.RELEASE) == 5
    assert kinds(await staged.to_members(12, 14)) == "dd"
    await pass_(staged, minutes=31)
    assert sum(1 for i in await staged.home.outbox() if i.kind is IntentKind.RELEASE) == 8
    assert kinds(await staged.to_members(12, 30)) == "r" * 9 + "d" * 9, "twelve in all: a fifth of sixty"
    assert await at(staged) == ("paused", 2, "paused")
    await pass_(staged, minutes=31)
    assert kinds(await staged.to_members(21, 60)) == "r" * 39
    assert (await at(staged))[:2] == ("running", 3)


async def test_stages_stop_and_go_on_by_a_person(staged: Campaign) -> None:
    id = (await staged.one())["id"]
    with pytest.raises(NotEntitled):
        await staged.service.stop(id, approver=ANNA, by="test")
    stopped = await staged.service.stop(id, approver=EVA, by="test", comment="wait")
    assert stopped.progress is not None
    assert (stopped.progress.at, stopped.progress.why, stopped.state) == (At.STOPPED, "wait", State.PAUSED)
    await pass_(staged, hours=2)
    assert kinds(await staged.to_members(12, 13)) == "d"
    with pytest.raises(Conflict):
        await staged.service.stop(id, approver=EVA, by="test")
    await staged.service.go_on(id, approver=EVA, by="test")
    assert kinds(await staged.to_members(12, 13)) == "r"


async def test_reports_stop_it(staged: Campaign) -> None:
    id = (await staged.one())["id"]
    await pass_(staged, minutes=31)
    await staged.service.feedback(id, bounces=2, by="api")
    assert (await at(staged))[0] == "running"
    more = await staged.service.feedback(id, complaints=1, by="api")
    assert (more.bounces, more.complaints, more.state) == (2, 1, State.PAUSED)
    assert more == await staged.service.show(id), "who has it by now is told so here too"
    with pytest.raises(Conflict):
        await staged.service.feedback(id, by="api")


async def test_refusals_stop_it(staged: Campaign) -> None:
    await pass_(staged, minutes=31)
    staged.office.relay.says = {m: Reply.of(550, "5.7.1", "No") for m in MEMBERS}
    await staged.office.until_quiet(steps=1)
    assert (await at(staged))[0] == "stopped"
    assert (await staged.one())["refused"] == 8


async def test_a_freeze_stops_it_and_a_thaw_does_not_set_it_going(staged: Campaign) -> None:
    await pass_(staged, minutes=31)
    await staged.home.store.freeze(*frozen(staged, (await staged.one())["id"]))
    await staged.home.store.thaw("F1", frozen(staged, "")[1])
    await staged.home.watch.read()
    assert (await at(staged))[0] == "stopped"
    assert kinds(await staged.to_members(12, 13)) == "d"


async def test_what_waits_when_the_approval_ends_is_held_anew(staged: Campaign) -> None:
    """Nothing that is stored is forgotten."""
    await staged.service.reopen((await staged.one())["id"], approver=EVA, by="test")
    await staged.approvals.follow()
    (anew,) = await staged.home.store.holds(states=[Held.WAITING])
    assert (anew.copies, anew.lead) == (2, "")
    assert (await staged.one())["hold"] == anew.hold_id
    await staged.decide(anew.hold_id)
    await staged.office.until_quiet(steps=2)
    await pass_(staged, minutes=31)
    await staged.office.until_quiet(steps=2)
    assert all(staged.office.relay.has(m) == 1 for m in MEMBERS[4:12])


async def test_a_first_one_that_was_never_taken_over_gives_its_place_to_the_next(campaign: Campaign) -> None:
    """Its client was told 451: it is void, and people decide on the next copy, with what had been told of it."""
    given = await campaign.to_members(0, 8)
    first, second = given[4], given[5]
    assert isinstance(first, IsHeld)
    assert isinstance(second, IsHeld)
    await campaign.home.store._writer.submit(
        lambda b: b.execute("UPDATE hold SET acknowledged = false WHERE hold_id = ?", [(first.hold_id,)])
    )
    campaign.home.clock.pass_(minutes=16)
    await campaign.home.watch.read()
    await campaign.approvals.sweep()
    (entry,) = await campaign.home.store.holds(states=[Held.WAITING])
    assert (entry.hold_id, entry.copies) == (second.hold_id, 2)
    assert (await campaign.one())["hold"] == entry.hold_id
    await campaign.decide(first.hold_id)
    await campaign.office.until_quiet(steps=2)
    assert [campaign.office.relay.has(m) for m in MEMBERS[4:8]] == [0, 1, 1, 1]
