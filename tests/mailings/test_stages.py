"""Stages of a release: every cell of the table, its progress; continued by time, continued and stopped by people, by refusals, by reports
and by a freeze; nothing is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.console.journalwords import entry_in_words, is_decision
from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.freezes.service import Freezes
from smtpguard.holds.model import Change, Choice, Conflict, NotEntitled
from smtpguard.holds.model import State as Held
from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import load
from smtpguard.locale.speech import Speech
from smtpguard.mail.reply import Reply
from smtpguard.mailings import copies
from smtpguard.mailings import rows as mailings
from smtpguard.mailings.model import Mailing, State
from smtpguard.mailings.staging import LEAST, TRANSITIONS, At, Move, Progress
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.freezing import Selector
from smtpguard.policy.stages import REST, Stages
from smtpguard.policy.verdict import Held as IsHeld
from smtpguard.wire.relay import RelayUnavailable
from tests.every import every
from tests.guard.campaign import ANNA, DPO, EVA, OMAR, Campaign, approved, documents, kinds
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, PatchedStore, house
from tests.store.making import on_sqlite


@pytest.fixture
async def staged(tmp_path: Path, url: str) -> AsyncIterator[Campaign]:
    async with approved(tmp_path, stages='{steps: [5, "20%", rest], pause: 30m}', url=url) as made:
        yield made


async def pass_(campaign: Campaign, **time: float) -> None:
    """After the outbox was sent, or tried."""
    await campaign.office.worker.step()
    await campaign.approvals.follow()
    campaign.home.clock.pass_(**time)
    await campaign.home.watch.read()
    await campaign.approvals.follow()


async def stood(campaign: Campaign) -> list[tuple[Any, Any]]:
    """The journal's entries, and their names, that a release waits for a person."""
    found = await campaign.home.store.journal.history((await campaign.one())["id"])
    return [(entry.data, clear) for entry, clear in found if entry.data.get("what") in ("stop", "full")]


async def at(campaign: Campaign) -> tuple[Any, ...]:
    one = await campaign.one()
    return one["stage"]["at"], one["stage"]["stage"], one["state"]


@on_sqlite
async def test_stages_continue_by_time(staged: Campaign) -> None:
    """Stages continue by time: four copies were relayed before, the first stage takes five of the eight that wait, then
    there is a pause."""
    assert await at(staged) == ("paused", 1, "paused")
    assert await releases(staged) == 5
    assert kinds(await staged.to_members(12, 14)) == "dd"
    await pass_(staged, minutes=31)
    assert await releases(staged) == 8
    assert kinds(await staged.to_members(12, 30)) == "r" * 9 + "d" * 9, "twelve in all: a fifth of sixty"
    assert await at(staged) == ("paused", 2, "paused")
    await pass_(staged, minutes=31)
    assert kinds(await staged.to_members(21, 60)) == "r" * 39
    assert (await at(staged))[:2] == ("running", 3)


async def test_the_pauses_of_a_list_of_holds_are_read_at_once(
    staged: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list has up to a thousand holds."""
    await staged.office.worker.step()
    store = staged.home.store
    monkeypatch.delattr(type(store.mailings), "find")  # nothing asks for one mailing after another
    [sent] = [hold for hold in await store.holds.newest() if hold.copies]
    other = replace(sent, hold_id="another", mailing_id="over")
    found = await copies.paused(store, [sent, other])
    assert {id: one.state for id, one in found.items()} == {sent.hold_id: State.PAUSED}


async def test_a_pause_begins_when_half_of_its_stage_is_sent(staged: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the relay is away, no stage joins the one that waits for it in the outbox: not even a part's long death ends
    the pause."""
    office = staged.office
    office.relay.raises = RelayUnavailable("connection refused")
    for hours in (1, 1, 5):
        await pass_(staged, hours=hours)
    assert (await releases(staged), await at(staged)) == (5, ("paused", 1, "paused"))
    office.relay.raises = None
    await pass_(staged, minutes=20)
    assert kinds(await staged.to_members(12, 13)) == "d", "it began when they were sent"
    with monkeypatch.context() as patched:
        patched.delattr(mailings, "is_unsent")  # the outbox is read no more
        await pass_(staged, minutes=11)
    assert kinds(await staged.to_members(12, 13)) == "r"


@on_sqlite
async def test_who_has_a_message_counts_as_sent_while_others_of_it_wait(tmp_path: Path, url: str) -> None:
    """Else one mailbox that is full for days would keep the stages from going on."""
    async with house(tmp_path, documents=documents(stages="{steps: [5, rest], pause: 30m}"), url=url) as home:
        campaign = Campaign(home, copies=50)
        await campaign.to_members(0, 4)
        await campaign.send(*MEMBERS[4:9])
        await campaign.to_members(9, 12)
        campaign.office.relay.says = {MEMBERS[4]: Reply.of(452, "4.2.2", "Mailbox full")}
        await campaign.decide((await home.holds())[0].hold_id)
        assert (await releases(campaign), await at(campaign)) == (1, ("paused", 1, "paused"))
        await pass_(campaign, minutes=31)
        assert (await releases(campaign), (await at(campaign))[0]) == (4, "running")


@on_sqlite
async def test_stages_are_stopped_and_continued_by_a_person(staged: Campaign) -> None:
    id = (await staged.one())["id"]
    with pytest.raises(NotEntitled):
        await staged.service.stop(id, approver=ANNA, by="test")
    stopped = await staged.service.stop(id, approver=EVA, by="test", comment="wait")
    assert stopped.progress is not None
    assert (stopped.progress.at, stopped.progress.why, stopped.state) == (At.STOPPED, "wait", State.PAUSED)
    assert [clear["actor"] for _, clear in await stood(staged)] == [[EVA, "test"]], "one entry, that person's"
    await pass_(staged, hours=2)
    assert kinds(await staged.to_members(12, 13)) == "d"
    with pytest.raises(Conflict):
        await staged.service.stop(id, approver=EVA, by="test")
    await staged.service.go_on(id, approver=EVA, by="test")
    assert kinds(await staged.to_members(12, 13)) == "r"


@on_sqlite
async def test_its_writer_does_not_move_it_by_an_alias(staged: Campaign) -> None:
    (mailing,) = await staged.service.list(least=1)
    policy = documents()
    aliases = f"hours: {{zone: UTC}}, aliases: {{{EVA}: [{mailing.sender}]}}}}".encode()
    policy["policy.yaml"] = policy["policy.yaml"].replace(b"hours: {zone: UTC}}", aliases)
    staged.home.in_force = staged.home.build(policy)
    with pytest.raises(NotEntitled):
        await staged.service.stop(mailing.mailing_id, approver=EVA, by="test")
    await staged.service.stop(mailing.mailing_id, approver=OMAR, by="test")


@on_sqlite
async def test_the_writer_of_a_copy_does_not_move_it(staged: Campaign) -> None:
    def with_copies_by_omar(mailing: Mailing) -> tuple[Mailing, Change]:
        assert mailing.grant is not None
        assert mailing.grant.cover is not None
        cover = replace(mailing.grant.cover, also=((OMAR, frozenset()),))
        return replace(mailing, grants=(replace(mailing.grant, cover=cover),)), Change()

    id = (await staged.one())["id"]
    await staged.home.store.mailings.change(id, with_copies_by_omar)
    with pytest.raises(NotEntitled):
        await staged.service.stop(id, approver=OMAR, by="test")
    await staged.service.stop(id, approver=EVA, by="test")


@on_sqlite
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


@on_sqlite
async def test_what_stopped_a_release_counts_anew_once_a_person_resumes_it(staged: Campaign) -> None:
    """Else it would stop again at once, and nobody could let the rest go."""
    id = (await staged.one())["id"]
    await staged.service.feedback(id, bounces=3, by="api")
    assert [load(data["why"]) for data, _ in await stood(staged)] == ["3 of 9 people bounced or complained"]
    resumed = await staged.service.go_on(id, approver=EVA, by="test")
    assert resumed.progress is not None
    assert resumed.progress.at is At.RUNNING
    assert (await staged.service.feedback(id, bounces=2, by="api")).state is State.APPROVED
    assert (await staged.service.feedback(id, bounces=1, by="api")).state is State.PAUSED


async def test_refusals_stop_a_release(staged: Campaign) -> None:
    await pass_(staged, minutes=31)
    staged.office.relay.says = {m: Reply.of(550, "5.7.1", "No") for m in MEMBERS}
    await staged.office.until_quiet(steps=1)
    assert (await at(staged))[0] == "stopped"
    assert (await staged.one())["refused"] == 3
    (entry,) = await stood(staged)
    assert (entry[0]["what"], entry[0]["stage"], load(entry[0]["why"])) == (
        "stop",
        1,
        "the mail server refused 3 of 12 people",
    )
    assert entry[1] == {"actor": ["smtpguard"]}
    found = await staged.home.store.journal.incident(
        IncidentQuery(ids=frozenset({(await staged.one())["id"]})), prove=True
    )
    assert found.report is not None
    [step] = [one for one in found.report.steps if one.entry.kind == "mailing"]
    assert not is_decision(step.entry), "no person did it"
    told = entry_in_words(step.entry, step.clear, Speech("sv"))
    assert (told.text, told.who) == ("Utskicket: stoppat, e-postservern avvisade 3 av 12 personer", "smtpguard")


async def test_people_are_told_once_that_stages_wait_for_one_of_them(
    staged: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who decide and the writer; not of what a person stopped; nothing is lost by a failure before the commit."""
    home = staged.home
    id = (await staged.one())["id"]

    async def told() -> list[str]:
        found = [one for one in await home.outbox() if one.data.get("notice") == "stages"]
        assert all(one.data["mailing"] == id for one in found)
        return sorted(str(one.recipients[0].address) for one in found)

    await staged.service.stop(id, approver=EVA, by="test")
    await staged.approvals.follow()
    assert await told() == [], "its people did it"
    await staged.service.go_on(id, approver=EVA, by="test")
    await staged.service.feedback(id, bounces=3, by="api")
    broken = staged.home.approvals()
    broken.store = PatchedStore(home.store, {"mailings.change": failing})  # type: ignore[assignment]
    with pytest.raises(StoreError):
        await broken.follow()
    assert await told() == []
    await staged.approvals.follow()
    await staged.approvals.follow()
    everybody = await told()
    assert everybody == sorted([ANNA, DPO, EVA, OMAR])
    home.clock.pass_(minutes=1)
    await staged.service.go_on(id, approver=EVA, by="test")
    await staged.service.feedback(id, bounces=3, by="api")
    await staged.approvals.follow()
    assert await told() == sorted(2 * everybody), "it has stopped again"
    read: list[str] = []

    async def find(_: object, hold_id: str) -> None:
        read.append(hold_id)

    monkeypatch.setattr(type(home.store.holds), "find", find)
    await staged.approvals.follow()
    assert read == [], "people were told: nothing is left to read every few seconds"
    assert len(await stood(staged)) == 3, "the person's entry, and two"


async def failing(*_: Any) -> Any:
    raise Unavailable("gone")


async def test_a_stop_in_the_midst_of_a_batch_is_chained(staged: Campaign) -> None:
    """Three refusals and a doubt come together: the entry of the stop is written before the doubt's is complete."""
    await pass_(staged, minutes=31)
    home, arrived = staged.home, asyncio.Queue[None]()

    async def never() -> None:
        arrived.put_nowait(None)
        await asyncio.Event().wait()

    copies = [
        home.transaction(
            MEMBERS[n], X_Looks="mailing", X_Mailing="spring", Message_ID=f"<{n}@example.org>", body=f"Copy {n}"
        )
        for n in range(12, 16)
    ]
    sending = [asyncio.create_task(staged._intake(copy, FakePassage(before_dot=never))) for copy in copies]
    for _ in copies:  # all are on their way
        await asyncio.wait_for(arrived.get(), 60)
    refused = {"outcome": "refused", "replies": ["550 5.7.1 No"]}
    ends = [(Kind.OUTCOME, refused)] * 3 + [(Kind.IN_DOUBT, {"outcome": "lost"})]
    now = home.clock.now()
    events = [Event(kind=kind, id=copy.id, at=now, data=data) for (kind, data), copy in zip(ends, copies, strict=True)]
    await home.store.journal.record(events)
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    assert ((await at(staged))[0], len(await stood(staged))) == ("stopped", 1)
    proof = await home.store.journal.verify()
    assert proof.first_bad is None


@on_sqlite
@pytest.mark.parametrize("more", [False, True], ids=["alone", "while more of it is held"])
async def test_a_freeze_stops_a_release_and_a_thaw_does_not_continue_it(staged: Campaign, more: bool) -> None:
    await pass_(staged, minutes=31)
    if more:
        assert kinds([await staged.send(*MEMBERS[20:50], X_Looks="internal")]) == "h"
    await staged.home.freeze(Selector.MAILING, (await staged.one())["id"])
    await staged.home.thaw()
    assert (await at(staged))[0] == "stopped"
    assert more or kinds(await staged.to_members(12, 13)) == "d"
    assert [(data["what"], load(data["why"])) for data, _ in await stood(staged)] == [("stop", "a freeze")]


async def test_a_thaw_says_how_many_copies_go_out(staged: Campaign) -> None:
    """Also if the message that people looked at has gone: the copies under it go out all the same."""
    home, told = staged.home, []
    freezes = Freezes(home.store, SteadyClock(home.clock), new_id=lambda: "F1", recall_seconds=0)
    for id in ("F1", "F2"):
        await home.freeze(Selector.LIST, "ramadan", id=id)
        goes = await freezes.released_by(await freezes.active())
        told.append((goes.messages, goes.people, goes.waiting))
        await home.thaw(id)
        await staged.office.until_quiet(steps=1)
        await staged.service.go_on((await staged.one())["id"], approver=EVA, by="test")
        await staged.approvals.follow()
    assert told == [(5, 5, 0), (3, 3, 0)]


NEWS = "reader@example.org"


async def test_a_pause_for_a_person_is_journalled_and_listed_once(tmp_path: Path) -> None:
    """Also if all that waits is at its client; and again after each stage."""
    async with approved(tmp_path, stages="{steps: [8, 4, rest], pause: person}") as campaign:
        id = (await campaign.one())["id"]
        assert [(data["what"], data["stage"]) for data, _ in await stood(campaign)] == [("full", 0)]
        assert await campaign.service.store.mailings.standing() == [], "nothing of it waits"
        assert kinds(await campaign.to_members(12, 14)) == "dd"
        await pass_(campaign, hours=20)
        assert [one.mailing_id for one in await campaign.service.store.mailings.standing()] == [id]
        await campaign.service.go_on(id, approver=EVA, by="test")
        assert kinds(await campaign.to_members(12, 17)) == "rrrrd"
        assert [(data["what"], data["stage"]) for data, _ in await stood(campaign)] == [("full", 0), ("full", 1)]


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


async def releases(campaign: Campaign) -> int:
    """Those in the outbox, and those that were sent."""
    sent = [hold for hold in await campaign.home.holds() if hold.state is Held.RELEASED]
    return len(sent) + sum(1 for i in await campaign.home.outbox() if i.kind is IntentKind.RELEASE)


@pytest.mark.parametrize("stage", [1, 5])
async def test_a_stage_does_not_pass_during_a_freeze(tmp_path: Path, stage: int) -> None:
    """Nor its pause: all stages of what is approved during a freeze, or goes on then, would go out with the thaw."""
    async with house(tmp_path, documents=documents(stages=f"{{steps: [{stage}, 2, rest], pause: 30m}}")) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 20)
        await home.freeze(Selector.LIST, "ramadan")
        (first,) = await home.store.holds.newest()
        await made.decide(first.hold_id)
        for _ in range(3):
            await pass_(made, minutes=31)
        going = [hold.hold_id for hold in await home.holds() if hold.state is Held.APPROVED]
        assert going == [first.hold_id], "the message that people looked at"
        freezes = Freezes(home.store, SteadyClock(home.clock), new_id=lambda: "F2", recall_seconds=0)
        goes = await freezes.released_by(await freezes.active())
        assert (goes.messages, goes.people, [one.reach for one in goes.first]) == (stage, stage, [stage])
        await home.thaw()
        await made.approvals.follow()
        assert (await releases(made), (await at(made))[:2]) == (stage, ("paused", 1))
        await pass_(made, minutes=31)
        assert await releases(made) == stage + 2


async def test_what_goes_at_once_lets_no_copy_out_of_its_stage(staged: Campaign) -> None:
    """Such as a corrected text to the list's address, approved while the copies are stopped for a wrong link."""
    id, before = (await staged.one())["id"], await releases(staged)
    await staged.service.stop(id, approver=EVA, by="test", comment="A wrong link")
    post = await staged.send(RAMADAN, body="The right link")
    assert isinstance(post, IsHeld)
    await staged.decide(post.hold_id, all_at_once=len(MEMBERS))
    await staged.approvals.follow()
    assert await releases(staged) == before + 1
    assert await at(staged) == ("stopped", 1, "paused")


@pytest.mark.parametrize(("text", "to"), [("The second text", MEMBERS[20:23]), ("The first text", [NEWS])])
async def test_copies_are_held_when_their_own_approval_ends(tmp_path: Path, text: str, to: list[str]) -> None:
    """Also while an approval of another text of the mailing lasts, or of the same text for another list."""
    async with house(tmp_path, documents=documents(stages="{steps: [5, rest], pause: person}")) as home:
        made = Campaign(home, copies=50)
        await made.to_members(0, 12, body="The first text")
        (first,) = await home.store.holds.newest()
        await made.decide(first.hold_id)
        await made.office.go(hours=12)
        assert set(kinds([await made.send(one, body=text) for one in to])) == {"h"}
        (second,) = await home.store.holds.newest(states=[Held.WAITING])
        await made.approvals.vote(second.hold_id, Choice.APPROVE, approver=EVA, by="test")
        if to != [NEWS]:
            await made.approvals.vote(second.hold_id, Choice.APPROVE, approver=DPO, by="test")
        await made.office.go(hours=24 * 7 - 6)
        before = [hold.hold_id for hold in await home.holds() if hold.state is Held.WAITING]
        await made.approvals.follow()
        waiting = [hold for hold in await home.holds() if hold.state is Held.WAITING]
        assert [hold.hold_id for hold in waiting] == before
        (anew,) = await home.store.holds.newest(states=[Held.WAITING])
        assert {hold.primary for hold in waiting} == {"", anew.hold_id}
        assert first.hold_id not in {hold.primary for hold in waiting}


NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
STAGES = Stages(steps=(50, 0.01, REST), pause_seconds=1800)
BEGUN = Progress.begin(STAGES, 400_000, NOW, reached=7)

LEGAL = {
    (At.RUNNING, Move.FULL): At.PAUSED,
    (At.RUNNING, Move.ALL): At.RUNNING,
    (At.RUNNING, Move.STOP): At.STOPPED,
    (At.PAUSED, Move.TIME): At.RUNNING,
    (At.PAUSED, Move.GO): At.RUNNING,
    (At.PAUSED, Move.STOP): At.STOPPED,
    (At.STOPPED, Move.GO): At.RUNNING,
}


@every(("at", "move"), list(product(At, Move)))
def test_every_transition(at: At, move: Move) -> None:
    assert TRANSITIONS.get((at, move)) is LEGAL.get((at, move))
    moved = replace(BEGUN, at=at).moved(move, NOW)
    assert (moved.at if moved else None) is LEGAL.get((at, move))
    assert set(TRANSITIONS) == set(LEGAL)


def test_progress_of_a_release() -> None:
    """A release goes through its stages: fifty more than the seven who had it before, one percent more, the rest."""
    assert (BEGUN.limit, BEGUN.stage, BEGUN.waits) == (57, 0, False)
    assert BEGUN.with_reached(56, NOW) is BEGUN
    paused = BEGUN.with_reached(57, NOW)
    assert (paused.at, paused.full, paused.goes_on_at()) == (At.PAUSED, True, NOW + timedelta(minutes=30))
    assert paused.as_of(NOW + timedelta(minutes=29)) is paused
    second = paused.as_of(NOW + timedelta(minutes=30))
    assert (second.at, second.stage, second.limit) == (At.RUNNING, 1, 57 + 4000)
    last = second.with_reached(5000, NOW).moved(Move.GO, NOW)
    assert last is not None
    assert (last.stage, last.limit, last.last) == (2, 400_000, True)
    assert last.with_reached(400_000, NOW).at is At.RUNNING, "nothing follows the rest"


def test_after_a_stop_it_continues_with_the_right_stage() -> None:
    running = BEGUN.moved(Move.STOP, NOW, "a person")
    assert running is not None
    assert (running.why, running.goes_on_at()) == ("a person", None)
    again = running.moved(Move.GO, NOW)
    assert again is not None
    assert (again.stage, again.limit, again.why) == (0, 57, "")
    paused = BEGUN.with_reached(60, NOW).moved(Move.STOP, NOW)
    assert paused is not None
    further = paused.moved(Move.GO, NOW)
    assert further is not None
    assert further.stage == 1


def test_a_pause_without_a_time_is_ended_by_a_person() -> None:
    paused = Progress.begin(replace(STAGES, pause_seconds=None), 400_000, NOW).with_reached(50, NOW)
    assert paused.as_of(NOW + timedelta(days=400)) is paused


def test_without_remaining_people_there_is_no_pause() -> None:
    """There is no pause once everybody has it, as after a message that cannot be divided."""
    all_out = BEGUN.with_reached(400_000, NOW)
    assert (all_out.at, all_out.last, all_out.limit, all_out.full) == (At.RUNNING, True, 400_000, False)
    assert BEGUN.with_reached(399_999, NOW).at is At.PAUSED


def test_additional_people_raise_the_limit() -> None:
    more = BEGUN.with_more(1000)
    assert (more.limit, more.whole) == (1057, 401_000)
    assert more.with_reached(1056, NOW).at is At.RUNNING


@every(
    ("refused", "reported", "stops"),
    [(LEAST - 1, 0, False), (LEAST, 0, False), (6, 0, True), (0, LEAST, True), (0, LEAST - 1, False)],
)
def test_refusals_and_reports_stop_it(refused: int, reported: int, stops: bool) -> None:
    judged = BEGUN.after_reports(reached=100, refused=refused, reported=reported, now=NOW)
    assert (judged.at is At.STOPPED) is stops
    assert bool(judged.why) is stops
    assert judged.after_reports(reached=0, refused=99, reported=99, now=NOW) is judged or not stops


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Move)), st.integers(0, 500)), max_size=30))
def test_limits_are_never_exceeded_and_stages_never_go_back(script: list[tuple[Move, int]]) -> None:
    one = Progress.begin(Stages(steps=(10, 0.1, REST)), 300, NOW)
    for move, reached in script:
        before, one = one, one.moved(move, NOW) or one.with_reached(reached, NOW)
        assert one.limit >= before.limit
        assert one.stage - before.stage in (0, 1) or (one.last and reached >= 300) or move is Move.ALL
        assert one.limit == (10, 40, 300)[one.stage]


@pytest.mark.parametrize("again", [0, 3])
async def test_what_comes_takes_no_place_of_those_who_wait_for_their_stage(
    tmp_path: Path, url: str, again: int
) -> None:
    """Four had it, eight wait, and people agree to fourteen in all. Two more get it, whatever comes while three of the
    eight wait. Some of these get a copy that passes: they have a place already."""
    async with house(tmp_path, documents=documents(stages="{steps: [5, rest], pause: 30m}"), url=url) as home:
        campaign = Campaign(home, copies=50)
        await campaign.to_members(0, 12)
        await campaign.decide((await home.holds())[0].hold_id, people=14)
        await campaign.office.worker.step()
        home.clock.pass_(minutes=61)
        await home.watch.read()
        assert kinds(await campaign.to_members(12, 14)) == "rr"
        assert kinds(await campaign.to_members(12 - again, 12)) == "r" * again
        assert kinds(await campaign.to_members(14, 20)) == "h" * 6
        await pass_(campaign)
        await pass_(campaign)
        one = await campaign.one()
        assert (await releases(campaign), one["relayed"] + one["admitted"], one["held"]) == (8, 14, 6)


@on_sqlite
async def test_who_waits_keeps_their_place_when_more_is_approved(tmp_path: Path, url: str) -> None:
    async with house(tmp_path, documents=documents(stages="{steps: [5, rest], pause: person}"), url=url) as home:
        campaign = Campaign(home, copies=50)
        await campaign.to_members(0, 12)
        await campaign.decide((await home.holds())[0].hold_id, people=12)
        assert kinds(await campaign.to_members(12, 15)) == "hhh"
        (entry,) = await home.store.holds.newest(states=[Held.WAITING])
        await campaign.decide(entry.hold_id, people=16)
        for _ in range(3):
            if (await at(campaign))[0] != "running":
                await campaign.service.go_on((await campaign.one())["id"], approver=EVA, by="test")
            await pass_(campaign)
        assert kinds(await campaign.to_members(15, 18)) == "rhh"
        one = await campaign.one()
        assert (await releases(campaign), one["relayed"] + one["admitted"]) == (11, 16)


@pytest.mark.parametrize("seed", range(8))
async def test_an_approval_reaches_whom_it_was_for_and_nobody_beyond_its_number(tmp_path: Path, seed: int) -> None:
    """Whatever comes, waits, is frozen or sent again meanwhile, also between two votes or while more is approved."""
    chance = random.Random(seed)
    stages = f"{{steps: [{chance.choice([1, 3, 5])}, 4, rest], pause: {chance.choice(['30m', 'person'])}}}"
    async with house(tmp_path, documents=documents(stages=stages)) as home:
        campaign = Campaign(home, copies=50)
        waiting, has, agreed = set[int](), set[int](), set[int]()
        most = 4

        async def send(n: int) -> None:
            came = kinds(await campaign.to_members(n, n + 1))
            (waiting if came == "h" else has if came == "r" else set[int]()).add(n)

        async def approve() -> None:
            nonlocal most
            entries = [hold for hold in await home.store.holds.newest(states=[Held.WAITING]) if not hold.primary]
            for entry in entries:
                agreed.update(waiting)
                waiting.clear()
                wanted = len(has | agreed) + chance.choice([0, 2, 6])
                most = max(wanted, len(has | agreed))
                await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=EVA, by="test", people=wanted)
                for _ in range(chance.choice([0, 0, 4])):
                    await send(chance.randrange(40))
                await campaign.approvals.vote(entry.hold_id, Choice.APPROVE, approver=DPO, by="test")

        async def go_on() -> None:
            await pass_(campaign, minutes=31)
            one = await campaign.one()
            if one["stage"] and one["stage"]["at"] != "running":
                await campaign.service.go_on(one["id"], approver=EVA, by="test")
            await pass_(campaign)

        async def freeze() -> None:
            id = f"F{chance.random()}"
            await home.freeze(Selector.LIST, "ramadan", id=id)
            await pass_(campaign, minutes=31)
            await home.thaw(id)

        for _ in range(12):
            await send(chance.randrange(40))
        for move in chance.choices([approve, go_on, freeze, None], [3, 3, 1, 8], k=30):
            await (move() if move is not None else send(chance.randrange(40)))
            [mailing] = await campaign.service.list(least=1)
            assert mailing.out <= most
        for _ in range(6):
            await go_on()
            await campaign.office.until_quiet(steps=1)
        [mailing] = await campaign.service.list(least=1)
        assert mailing.out <= most
        assert all(n in has or campaign.office.relay.has(MEMBERS[n]) for n in agreed)
