"""The rule against a reverse-path that is a customer list's address: everybody on the list would get the reports of a
server behind us."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpguard.admission.builtinrules import with_fixed
from smtpguard.admission.model import Seen
from smtpguard.gathering.streams import watched
from smtpguard.holds.effects import people_bound
from smtpguard.holds.model import State
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Transaction
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Held, Relayed, Verdict
from tests.app.twoguards import STAFF, documents, sample
from tests.guard.drawing import drawn_policies, letter
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, RAMADAN, FakePassage, House, house, index

OUTSIDE = "x@example.org"
NEWS = "news@lists.example.com"
RULE = "returns-to-list"


async def done(home: House, *to: str, **more: Any) -> tuple[str, Any]:
    transaction = home.transaction(*to, **more)
    return transaction.id, await home.intake()(transaction, FakePassage())


async def rules(home: House, id: str) -> list[str]:
    [data] = [data for kind, data in await home.settled(id) if kind == "verdict"]
    found: list[str] = data["rules"]
    return found


async def test_a_message_with_a_lists_address_as_reverse_path_is_held_for_its_approvers(home: House) -> None:
    transaction, way = home.transaction(OUTSIDE, reverse_path="ramadan+x=example.net@lists.example.com"), FakePassage()
    assert await home.intake()(transaction, way) == Held(hold_id=transaction.id)
    assert not way.sent
    hold = await home.hold(transaction.id)
    assert hold.lists == ("ramadan",)
    assert (hold.reach, hold.sender) == (1, "anna@example.com")
    assert [q.groups for q in hold.verdict.quorum] == [("communications", "compliance")]
    [hit] = hold.verdict.hits
    assert hit.rule == RULE
    assert hit.reasons[0].public == (
        "Its return path is ramadan@lists.example.com: if it cannot be delivered, everybody on that list gets a report, "
        "and with it this message."
    )
    [(_, data)] = await home.events(transaction.id)
    assert (data["rules"], data["lists"], data["reports_to"]) == ([RULE], ["ramadan"], ["ramadan"])
    notices = {i.data["notice"]: i for i in await home.outbox()}
    assert notices.keys() == {"approve", "held"}
    await home.approve(transaction.id)
    approved = await home.hold(transaction.id)
    assert approved.state is State.APPROVED


PATHS = {
    RAMADAN: True,
    "RAMADAN@Lists.Example.COM": True,
    '"ramadan"@lists.example.com': True,
    "ramadan+ulf=example.net@lists.example.com": True,  # VERP
    "ramadan%lists.example.com@example.com": True,
    "ramadan@example.com": True,
    "ramadan-bounces+ulf=example.net@lists.example.com": False,  # of a list server
    "owner-ramadan@lists.example.com": False,  # of Postfix's aliases
    STAFF: False,  # of colleagues
    "ulf@example.com": False,
}


async def test_every_spelling_of_a_customer_lists_address_is_held_and_no_other(tmp_path: Path) -> None:
    index(tmp_path / "indexes", "staff", ["ulf@example.com"])
    async with house(tmp_path, documents=documents(sample()), fronted=True) as home:
        held = {}
        for path in PATHS:
            _, answer = await done(home, OUTSIDE, "ulf@example.com", reverse_path=path)
            held[path] = isinstance(answer, Held)
            assert held[path] or isinstance(answer, Relayed)
        assert held == PATHS


async def test_the_lists_writer_with_a_proven_origin_may_use_its_address(home: House) -> None:
    campaign = {"sender": "campaigns@example.com", "reverse_path": RAMADAN}
    home.verifier.domains = frozenset({"campaigns.example.com"})
    assert isinstance((await done(home, OUTSIDE, **campaign))[1], Relayed)
    home.verifier.domains = frozenset()
    assert isinstance((await done(home, OUTSIDE, body="unsigned", **campaign))[1], Held)
    home.verifier.fails = RuntimeError("no resolver")
    assert isinstance((await done(home, OUTSIDE, body="unknown", **campaign))[1], Held)
    login = {"sender": "eva@example.com", "session": {"auth_user": "eva@example.com"}, "reverse_path": NEWS}
    assert isinstance((await done(home, OUTSIDE, **login))[1], Relayed)
    assert isinstance((await done(home, OUTSIDE, body="claimed", **{**login, "session": {}}))[1], Held)


async def test_a_streams_approval_never_covers_reports_to_a_list(home: House) -> None:
    home.verifier.domains = frozenset({"shop.example.com"})
    receipt = {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}}
    assert isinstance((await done(home, OUTSIDE, **receipt))[1], Relayed)
    assert isinstance((await done(home, OUTSIDE, body="two", reverse_path=RAMADAN, **receipt))[1], Held)


async def test_an_observing_policy_records_it(tmp_path: Path) -> None:
    async with house(tmp_path, documents=documents(sample() | {"enforce": False}), fronted=True) as home:
        id, answer = await done(home, OUTSIDE, reverse_path=RAMADAN)
        assert isinstance(answer, Relayed)
        [data] = [data for kind, data in await home.settled(id) if kind == "verdict"]
        assert (data["rules"], data["observed"]) == ([], [RULE])


async def test_colleagues_wait_with_it(home: House) -> None:
    """Their part would be reported on as well, whatever the scope of another rule that holds it."""
    to = [*MEMBERS[:25], "ulf@example.com"]
    id, _ = await done(home, *to, reverse_path=NEWS, To=", ".join(to))
    hold = await home.hold(id)
    assert {h.rule for h in hold.verdict.hits} == {RULE, "internal-to-many-customers"}
    assert len(hold.envelope.recipients) == 26


async def test_its_approvers_decide_beside_those_who_would_without_it(home: House) -> None:
    rule = 'rules:\n  - {id: outside, when: {recipients.outside: ">= 1"}, then: hold}\n'
    await home.put({**DOCUMENTS, "policy.yaml": (POLICY.partition("rules:\n")[0] + rule).encode()})
    await home.follow()
    await home.watch.read()

    async def asked(id: str) -> set[tuple[str, ...]]:
        return {quorum.groups for quorum in (await home.hold(id)).verdict.quorum}

    usual = {("communications",)}
    both = usual | {("communications", "compliance")}
    alone, _ = await done(home, OUTSIDE, reverse_path=RAMADAN)
    assert await asked(alone) == both
    copy = {"X_Mailing": "garden", "body": "The garden opens at noon."}
    first, _ = await done(home, OUTSIDE, **copy)
    assert await asked(first) == usual
    await done(home, "y@example.org", reverse_path=RAMADAN, **copy)
    assert await asked(first) == both


async def test_a_freeze_of_the_list_stops_it(home: House) -> None:
    await home.freeze(Selector.LIST, "ramadan")
    id, _ = await done(home, OUTSIDE, reverse_path=RAMADAN)
    assert await rules(home, id) == ["freeze", RULE]


async def test_an_approval_covers_its_copies_for_the_same_list_alone(home: House) -> None:
    copy = {"X_Mailing": "garden", "body": "The garden opens at noon."}
    first, _ = await done(home, OUTSIDE, reverse_path=NEWS, **copy)
    await home.approve(first, "omar@example.com", people=9)
    hold = await home.hold(first)
    assert hold.state is State.APPROVED
    assert isinstance((await done(home, "z@example.org", reverse_path=NEWS, **copy))[1], Relayed)
    assert isinstance((await done(home, "y@example.org", reverse_path=RAMADAN, **copy))[1], Held)


async def test_an_approval_of_copies_is_not_for_as_many_people_as_that_list_has(home: House) -> None:
    copy = {"X_Mailing": "garden", "body": "The garden opens at noon.", "reverse_path": RAMADAN}
    first, _ = await done(home, OUTSIDE, **copy)
    await done(home, "y@example.org", **copy)
    hold = await home.hold(first)
    assert (hold.copies, hold.reach, people_bound(hold, (), home.in_force)) == (1, 2, 2)
    to_member, _ = await done(home, MEMBERS[0], **copy | {"X_Mailing": "roses"})
    await done(home, MEMBERS[1], **copy | {"X_Mailing": "roses"})
    hold = await home.hold(to_member)
    assert people_bound(hold, (), home.in_force) == len(MEMBERS), "it is a mailing to that list"


@pytest.mark.parametrize("seed", range(4))
async def test_the_rule_never_loosens_a_verdict_nor_drops_an_approval(tmp_path: Path, seed: int) -> None:
    """The same letters, with their writers' reverse-path and with a list's."""
    chance = random.Random(seed)
    policy, _, _ = drawn_policies(chance)
    index(tmp_path / "indexes", "staff", ["ulf@example.com"])
    async with house(tmp_path, documents=documents(policy)) as home:
        home.verifier.domains = frozenset({"campaigns.example.com"})
        for n in range(60):
            to, more = letter(chance, n)
            more.pop("reverse_path", None)
            plain = home.transaction(*to, **more)
            path = Address.parse(chance.choice([RAMADAN, NEWS, STAFF]))
            other = replace(plain, envelope=replace(plain.envelope, reverse_path=path))
            before, after = await alone(home, plain), await alone(home, other)
            assert after.action >= before.action
            assert after.observed >= before.observed
            assert set(after.quorum) >= set(before.quorum) or not after.action.waits
            assert {h.rule for h in after.hits} >= {h.rule for h in before.hits}


async def alone(home: House, transaction: Transaction) -> Verdict:
    """The verdict on it alone."""
    gathered, plan = await home.gather.planned(transaction, home.in_force, home.clock.now(), text=False)
    live = Seen(now=home.clock.now())
    return with_fixed(plan.close(live), gathered, live, watched(gathered))
