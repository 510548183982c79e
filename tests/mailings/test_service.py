"""Mailings: the same content to many people is counted and held as one, and what passes meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.model import Choice, Hold
from smtpguard.holds.model import State as Held
from smtpguard.holds.summary import sentence
from smtpguard.lists import digest
from smtpguard.lists.index import index_path
from smtpguard.mail.reply import Reply
from smtpguard.mailings.model import CopyStatus, NoSuch
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Deferred
from smtpguard.policy.verdict import Held as IsHeld
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, UNAPPROVED, Campaign, documents, kinds
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, RAMADAN, FakePassage, House, house, index


async def test_copies_from_the_threshold_on_are_held_as_one(campaign: Campaign) -> None:
    assert kinds(await campaign.to_members(0, 12)) == "rrrrhhhhdddd"
    (entry,) = await campaign.home.store.holds.newest()
    assert (entry.copies, entry.reach) == (3, 8)
    (hit,) = (h for h in entry.verdict.hits if h.rule == "unapproved-mailing")
    assert [r.public for r in hit.reasons[-2:]] == [
        "It is one of several copies of a mailing: a decision is for all of them, and for further ones.",
        "It had been let through to 4 people before it was stopped.",
    ]
    await campaign.noted()
    assert (await campaign.one()).items() >= {
        "relayed": 4, "held": 4, "deferred": 4, "refused": 0, "customers": 12, "messages": 12, "copies": 3,
        "state": "held", "hold": entry.hold_id, "subject": "SV: lunch", "reverse_path": ANNA, "lists": ["ramadan"],
    }.items()  # fmt: skip


async def test_a_hold_does_not_count_the_people_of_another(campaign: Campaign) -> None:
    """A post to the list has a hold of its own beside the hold of the single copies."""
    await campaign.send(RAMADAN)
    await campaign.send(*MEMBERS[:3])
    await campaign.send(RAMADAN)
    await campaign.send(*MEMBERS[2:5])
    holds = sorted([h for h in await campaign.home.store.holds.newest() if not h.primary], key=lambda h: h.held_at)
    assert sorted((h.copies, h.reach) for h in holds) == [(0, len(MEMBERS)), (0, len(MEMBERS)), (1, 5)]
    said = [r.fact for h in holds if not h.copies for hit in h.verdict.hits for r in hit.reasons]
    assert "mailing.messages" not in said, "a decision on one post is for that post alone"


async def test_copies_may_be_for_people_on_the_list(campaign: Campaign) -> None:
    for to in ([RAMADAN], MEMBERS[:3]):
        await campaign.send(*to, body="The same")
    (entry,) = [h for h in await campaign.home.store.holds.newest() if not h.primary]
    assert (entry.copies, entry.reach) == (1, len(MEMBERS) + 3)
    assert str(sentence(entry, ["Ramadan"])) == "A reply, on its way to at most 63 people on Ramadan."


async def test_the_writer_and_each_approver_get_one_notice(campaign: Campaign) -> None:
    await campaign.to_members(0, 12)
    told = sorted(
        (str(i.recipients[0].address), i.data["notice"]) for i in await campaign.home.outbox() if i.kind is IntentKind.NOTICE
    )  # fmt: skip
    assert told == [(ANNA, "held"), (DPO, "approve"), (EVA, "approve"), (OMAR, "approve")]


async def test_a_deferred_copy_gets_the_holds_id(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 9)
    assert isinstance(given[-1], Deferred)
    assert given[-1].reply.code == 451
    (entry,) = await campaign.home.store.holds.newest()
    assert entry.hold_id in str(given[-1].reply)


async def test_a_waiting_mailing_holds_copies_after_the_window(campaign: Campaign) -> None:
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
async def test_copies_without_customers_pass(tmp_path: Path, decided: str) -> None:
    """A copy to colleagues, or to people on no list, passes whatever is decided: they are not customers, whom the rule
    protects."""
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
    """Only these lists have an index now."""
    for name, people in (("ramadan", MEMBERS), ("news", ["reader@example.org"])):
        if name in there:
            index(home.folder, name, people, at=home.clock.at)
        else:
            index_path(home.folder, name).unlink(missing_ok=True)
    home.in_force = home.build(documents())


async def held_in_doubt(campaign: Campaign) -> Hold:
    """Copies of one template to people outside, while a list without an index leaves open whether they are its members."""
    lists_of(campaign.home, "news")
    said = [await campaign.send(f"stranger{n}@elsewhere.example") for n in range(6)]
    assert kinds(said) == "rrrrhh"
    (entry,) = await campaign.home.store.holds.newest()
    assert dict(entry.verdict.unknown)["mailing.customers"] == "known only to be 0 to 5"
    return entry


@pytest.mark.parametrize(("there", "outcome"), [(("ramadan", "news"), "r"), (("ramadan",), "h")])
async def test_a_lists_address_without_an_index_may_reach_any_number(
    campaign: Campaign, there: tuple[str, ...], outcome: str
) -> None:
    """The rule asks for five customers. The list has one; without an index nobody knows how many."""
    lists_of(campaign.home, *there)
    session: Any = {"auth_user": EVA, "client_ip": "192.0.2.1"}
    given = [await campaign.send("news@lists.example.com", sender=EVA, session=session)]
    assert kinds(given) == outcome
    if outcome == "h":
        (entry,) = await campaign.home.store.holds.newest()
        assert dict(entry.verdict.unknown) == {"mailing.customers": "known only to be 1 to inf"}


async def test_after_a_doubt_ends_later_copies_pass(campaign: Campaign) -> None:
    entry = await held_in_doubt(campaign)
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(0, 1)) == "h", "those of the evening may still be customers"
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    lists_of(campaign.home, "news")
    assert kinds([await campaign.send("stranger@elsewhere.example")]) == "h", "in doubt again, it waits with the others"
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(2, 4)) == "rr"
    (waits,) = await campaign.home.store.holds.newest(states=[Held.WAITING])
    assert waits.hold_id == entry.hold_id, "held messages wait for approvers"


async def test_a_confirmed_doubt_keeps_the_mailing_held(campaign: Campaign) -> None:
    campaign._intake.term = Deadlines(copies=20)
    await held_in_doubt(campaign)
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(0, 6)) == "hhhhhh"
    (entry,) = await campaign.home.store.holds.newest()
    assert dict(entry.verdict.unknown) == {}
    assert [h.rule for h in entry.verdict.hits] == ["unapproved-mailing"]
    campaign.home.clock.pass_(hours=25)
    await campaign.home.watch.read()
    lists_of(campaign.home, "news", "ramadan")
    assert kinds(await campaign.to_members(6, 8)) == "hh"


@pytest.mark.parametrize("choice", [None, Choice.APPROVE, Choice.REJECT])
async def test_a_held_copy_does_not_stop_a_stream_with_the_same_text(tmp_path: Path, choice: Choice | None) -> None:
    """A stream's own receipts pass, although a person's copies of such a receipt are held."""
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
        receipt: dict[str, Any] = {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}}
        assert kinds([await campaign.send(MEMBERS[n], **receipt) for n in (20, 21)]) == "rr"
        expected = {None: "d", Choice.APPROVE: "d", Choice.REJECT: "x"}[choice]
        assert kinds(await campaign.to_members(22, 23)) == expected, "the others keep waiting"


async def test_a_rule_on_reach_holds_colleagues_too(tmp_path: Path) -> None:
    all_hands = UNAPPROVED.replace("mailing.customers", "mailing.reach")
    texts = {**DOCUMENTS, "policy.yaml": (POLICY + all_hands).encode()}
    async with house(tmp_path, documents=texts) as home:
        campaign = Campaign(home)
        said = [await campaign.send(f"colleague{n}@example.com") for n in range(6)]
        assert kinds(said) == "rrrrhh"
        home.clock.pass_(hours=25)
        await home.watch.read()
        assert isinstance(await campaign.send("colleague9@example.com"), IsHeld)


async def test_a_mailing_is_frozen_and_recalled(campaign: Campaign) -> None:
    await campaign.to_members(0, 3)
    id = (await campaign.one())["id"]

    way = FakePassage(before_dot=lambda: campaign.home.freeze(Selector.MAILING, id))
    transaction = campaign.home.transaction(MEMBERS[3], X_Looks="mailing", X_Mailing="spring")
    given = await campaign._intake(transaction, way)
    assert (kinds([given]), way.sent) == ("h", [])
    assert kinds(await campaign.to_members(4, 5)) == "h"
    assert kinds(await campaign.to_members(4, 5, mailing="another")) == "r"
    await campaign.noted()
    assert (await campaign.service.show(id)).people.relayed == 3


@pytest.mark.parametrize("when", ["before the admission", "before the dot"])
async def test_a_copy_to_colleagues_alone_meets_a_freeze_that_has_just_begun(campaign: Campaign, when: str) -> None:
    """Nothing has asked which mailing it is a copy of until the freeze did."""
    await campaign.to_members(0, 3)
    home, id = campaign.home, (await campaign.one())["id"]
    way = FakePassage()
    if when == "before the dot":
        way = FakePassage(before_dot=lambda: home.freeze(Selector.MAILING, id))
    else:
        await home.freeze(Selector.MAILING, id, seen=False)
    copies = [home.transaction("kim@example.com", X_Looks="mailing", X_Mailing=name) for name in ("spring", "another")]
    assert kinds([await campaign._intake(copies[0], way), await campaign._intake(copies[1], FakePassage())]) == "hr"
    assert way.sent == []


async def test_recipients_are_matched_with_their_fates(campaign: Campaign) -> None:
    campaign.home.clock.pass_(seconds=1)
    transaction = campaign.home.transaction(MEMBERS[0], X_Looks="mailing", X_Mailing="spring")
    await campaign._intake(transaction, FakePassage(replies=(Reply.of(550, "5.1.1", "No such user"),)))
    await campaign.to_members(1, 3)
    await campaign.noted()
    one = await campaign.one()
    assert (one["relayed"], one["refused"]) == (2, 1)
    got = await campaign.service.people(one["id"], [*(m.upper() for m in MEMBERS), "nobody", "x@y.example"])
    assert got == {
        MEMBERS[0].upper(): CopyStatus.REFUSED, MEMBERS[1].upper(): CopyStatus.RELAYED, MEMBERS[2].upper(): CopyStatus.RELAYED,
    }  # fmt: skip
    with pytest.raises(NoSuch):
        await campaign.service.show("NOTHING")


async def test_a_digest_of_an_earlier_version_is_found(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person counted by an earlier version is found. It made digests of addresses as spelled; now all spellings at
    gmail.com are one person."""
    home, people = campaign.home, [*MEMBERS, "anna.b@gmail.com", "c.arl@gmail.com"]
    with monkeypatch.context() as earlier:
        earlier.setattr(digest, "person", lambda canonical: canonical)
        index(home.folder, "ramadan", people)
        home.in_force.registry.reopen()
        await campaign.send("Anna.B@gmail.com")
    index(home.folder, "ramadan", people)
    home.in_force.registry.reopen()
    await campaign.send("c.arl@gmail.com")
    await campaign.noted()
    one = await campaign.one()
    got = await campaign.service.people(
        one["id"], ["anna.b@gmail.com", "carl@googlemail.com", "annab@gmail.com", "x@gmail.com"]
    )
    assert got == {
        "anna.b@gmail.com": CopyStatus.RELAYED,
        "carl@googlemail.com": CopyStatus.RELAYED,
    }


async def test_a_copy_that_a_rule_hits_which_nobody_saw_is_held(tmp_path: Path) -> None:
    made = documents()
    made["policy.yaml"] += b'  - {id: several-at-once, when: {recipients.total: ">= 2"}, then: hold}\n'
    async with house(tmp_path, documents=made) as home:
        campaign = Campaign(home)
        await campaign.to_members(0, 7)
        (entry,) = await home.store.holds.newest()
        await campaign.decide(entry.hold_id)
        assert kinds(await campaign.to_members(7, 9)) == "rr"
        assert kinds([await campaign.send(*MEMBERS[9:11])]) == "h"
        assert kinds(await campaign.to_members(11, 13)) == "rr"
