"""A release in stages: continued by time, continued and stopped by people, by refusals, by reports and by a freeze;
nothing is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.holds.model import Choice, Conflict, NotEntitled
from smtpguard.holds.model import State as Held
from smtpguard.mail.reply import Reply
from smtpguard.mailings.model import State
from smtpguard.mailings.staging import At
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Held as IsHeld
from tests.guard.campaign import ANNA, EVA, Campaign, approved, kinds
from tests.guard.house import MEMBERS


@pytest.fixture
async def staged(tmp_path: Path) -> AsyncIterator[Campaign]:
    async with approved(tmp_path, stages='{steps: [5, "20%", rest], pause: 30m}') as made:
        yield made


async def pass_(campaign: Campaign, **time: float) -> None:
    campaign.home.clock.pass_(**time)
    await campaign.home.watch.read()
    await campaign.approvals.follow()


async def at(campaign: Campaign) -> tuple[Any, ...]:
    one = await campaign.one()
    return one["stage"]["at"], one["stage"]["stage"], one["state"]


async def test_stages_continue_by_time(staged: Campaign) -> None:
    """Stages continue by time: four copies were relayed before, the first stage takes five of the eight that wait, then
    there is a pause."""
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


async def test_stages_are_stopped_and_continued_by_a_person(staged: Campaign) -> None:
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


async def test_reports_stop_a_release(staged: Campaign) -> None:
    id = (await staged.one())["id"]
    await pass_(staged, minutes=31)
    await staged.service.feedback(id, bounces=2, by="api")
    assert (await at(staged))[0] == "running"
    more = await staged.service.feedback(id, complaints=1, by="api")
    assert (more.bounces, more.complaints, more.state) == (2, 1, State.PAUSED)
    assert more == await staged.service.show(id), "the number who have it is shown here too"
    with pytest.raises(Conflict):
        await staged.service.feedback(id, by="api")


async def test_refusals_stop_a_release(staged: Campaign) -> None:
    await pass_(staged, minutes=31)
    staged.office.relay.says = {m: Reply.of(550, "5.7.1", "No") for m in MEMBERS}
    await staged.office.until_quiet(steps=1)
    assert (await at(staged))[0] == "stopped"
    assert (await staged.one())["refused"] == 8


async def test_a_freeze_stops_a_release_and_a_thaw_does_not_continue_it(staged: Campaign) -> None:
    await pass_(staged, minutes=31)
    await staged.home.freeze(Selector.MAILING, (await staged.one())["id"])
    await staged.home.thaw()
    assert (await at(staged))[0] == "stopped"
    assert kinds(await staged.to_members(12, 13)) == "d"


NEWS = "reader@example.org"


async def test_an_approval_for_another_list_is_independent(staged: Campaign) -> None:
    """An approval for another list, given during a release in stages, exists beside the first. Each covers its own
    lists and rules, and the number of people of both together."""
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
    assert given == "r" * left + "d" * (20 - left), "nothing of it is held again"
    reopened = await staged.service.reopen(before.mailing_id, approver=EVA, by="test")
    assert reopened.mailing.grants == ()


async def test_waiting_copies_are_held_when_the_approval_ends(staged: Campaign) -> None:
    """Copies that wait when the approval ends are held again, and no stored copy is lost."""
    await staged.office.until_quiet(steps=1)
    await staged.service.reopen((await staged.one())["id"], approver=EVA, by="test")
    await staged.approvals.follow()
    (anew,) = await staged.home.store.holds.newest(states=[Held.WAITING])
    assert (anew.copies, anew.primary) == (2, "")
    assert (await staged.one())["hold"] == anew.hold_id
    await staged.decide(anew.hold_id)
    await staged.office.until_quiet(steps=2)
    await pass_(staged, minutes=31)
    await staged.office.until_quiet(steps=2)
    assert all(staged.office.relay.has(m) == 1 for m in MEMBERS[4:12])
