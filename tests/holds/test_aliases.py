"""One person with several addresses has one vote, and does not decide on mail sent from another of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.holds.model import Choice, Conflict, NotEntitled, State
from smtpguard.notices.noticedata import approvers
from tests.guard.campaign import Campaign, documents
from tests.guard.house import DOCUMENTS, House, house

ALIASES = b"hours: {zone: UTC}, aliases: {eva@example.com: [e.berg@example.com, eva.berg@example.se]}}"
GROUPS = b"compliance: [dpo@example.com, E.Berg@example.com]"
POLICY = (
    DOCUMENTS["policy.yaml"].replace(b"hours: {zone: UTC}}", ALIASES).replace(b"compliance: [dpo@example.com]", GROUPS)
)
WITH_ALIASES = {**DOCUMENTS, "policy.yaml": POLICY}


async def held(home: House, sender: str) -> str:
    return (await home.held(sender=f"Somebody <{sender}>", reverse_path=sender)).hold_id


@pytest.mark.parametrize("sender", ["eva.berg@example.se", "E.Berg+x@example.com", "eva@example.com"])
@pytest.mark.parametrize("approver", ["eva@example.com", "e.berg@example.com"])
async def test_an_approver_cannot_decide_on_mail_sent_from_an_alias(tmp_path: Path, sender: str, approver: str) -> None:
    async with house(tmp_path, documents=WITH_ALIASES) as home:
        hold_id = await held(home, sender)
        hold = await home.hold(hold_id)
        assert {"eva@example.com", "e.berg@example.com", "eva.berg@example.se"} <= hold.senders
        assert not {"eva@example.com", "e.berg@example.com"} & set(approvers(hold, home.in_force, home.clock.now()))
        for choice in Choice:
            with pytest.raises(NotEntitled, match="no one decides on their own"):
                await home.approvals().vote(hold_id, choice, approver=approver, by="test")
        done = await home.approvals().withdraw(hold_id, sender=approver, by="test")
        assert done.hold.state is State.WITHDRAWN


@pytest.mark.parametrize(
    ("sender", "login", "may"),
    [
        ("eva@example.se", "", False),
        ("anna@example.com", "eva@example.se", False),
        ("eva@shop.example.com", "", False),
        ("eva@example.net", "", True),  # somebody else's domain
        ("eva.berg@example.se", "", True),
        ("dpo.berg@shop.example.com", "", False),  # an alias of the other group's only member
        ("anna@example.com", "DPO.Berg", False),
    ],
)
async def test_an_approver_cannot_decide_on_mail_from_their_name_at_another_own_domain(
    tmp_path: Path, sender: str, login: str, may: bool
) -> None:
    ours = DOCUMENTS["policy.yaml"].replace(
        b"domains: [example.com]",
        b'domains: [example.com, example.se, "*.example.com"], aliases: {dpo@example.com: [dpo.berg@example.com]}',
    )
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": ours}) as home:
        hold = await home.held(sender=sender, session={"auth_user": login or None})
        if may:
            await home.approve(hold.hold_id)
            return
        with pytest.raises(NotEntitled, match="no one decides on their own"):
            await home.approve(hold.hold_id)
        if "dpo" not in (sender + login).lower():
            done = await home.approve(hold.hold_id, "omar@example.com", "dpo@example.com")
            assert done.hold.state is State.APPROVED


async def test_an_alias_added_after_the_hold_counts(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        hold_id = await held(home, "eva.berg@example.se")
        await home.put(WITH_ALIASES)
        with pytest.raises(NotEntitled, match="no one decides on their own"):
            await home.approve(hold_id, "eva@example.com")


async def test_one_person_has_one_vote_in_a_quorum(tmp_path: Path) -> None:
    """A person in two groups under two addresses has one vote."""
    async with house(tmp_path, documents=WITH_ALIASES) as home:
        hold_id = await held(home, "anna@example.com")
        approvals = home.approvals()
        await approvals.vote(hold_id, Choice.APPROVE, approver="eva@example.com", by="test")
        with pytest.raises(Conflict, match="has already given this vote"):
            await approvals.vote(hold_id, Choice.APPROVE, approver="e.berg@example.com", by="test")
        done = await approvals.vote(hold_id, Choice.APPROVE, approver="dpo@example.com", by="test")
        assert done.hold.state is State.APPROVED


async def test_the_sender_of_a_copy_is_no_approver_of_it(tmp_path: Path) -> None:
    """The sender of a copy counts as an author of the mailing, so they do not decide on it."""
    mailing = documents()["policy.yaml"].replace(b"hours: {zone: UTC}}", ALIASES)
    async with house(tmp_path, documents={**documents(), "policy.yaml": mailing}) as home:
        campaign = Campaign(home)

        async def asked() -> tuple[frozenset[str], list[str]]:
            lead = (await home.store.holds.newest(states=(State.WAITING,), limit=100))[-1]
            return lead.senders, approvers(lead, home.in_force, home.clock.now())

        await campaign.to_members(0, 6)
        senders, people = await asked()
        assert "eva@example.com" in people
        await campaign.to_members(6, 7, Resent_From="e.berg@example.com")
        senders, people = await asked()
        assert {"eva@example.com", "e.berg@example.com"} <= senders
        assert "eva@example.com" not in people
