"""Decisions and deadlines of holds, over a real store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from smtpguard.app.clock import learned_clock
from smtpguard.database.errors import PolicyUnreadable, Unavailable
from smtpguard.database.schema import outbox
from smtpguard.guard.inforce import InForce
from smtpguard.holds.deadlines import REMINDERS, Deadlines, deliver_by
from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Change, Choice, Conflict, NotEntitled, PolicyChanged, State, event_on
from smtpguard.holds.service import Approvals
from smtpguard.journal.chain import utc_text
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Kind
from smtpguard.lists.digest import Digester
from smtpguard.mail.address import Address
from smtpguard.mail.message import parse_header
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.verdict import Held as IsHeld
from smtpguard.store import privacy
from smtpguard.store.retention import Retention
from tests.clocks import MONDAY
from tests.every import every
from tests.guard.campaign import Campaign
from tests.guard.house import DOCUMENTS, KEY, MEMBERS, RAMADAN, House, PatchedStore, house

APPROVE, REJECT = Choice.APPROVE, Choice.REJECT


async def kinds(home: House, hold_id: str) -> list[str]:
    return [k for k, _ in await home.events(hold_id)]


async def notices(home: House, kind: str) -> list[tuple[str, dict[str, Any]]]:
    return sorted(
        (str(i.recipients[0].address), dict(i.data)) for i in await home.outbox() if i.data.get("notice") == kind
    )


async def test_the_last_vote_of_the_quorum_releases(home: House) -> None:
    hold = await home.held()
    approvals = home.approvals()
    first = await approvals.vote(hold.hold_id, APPROVE, approver="eva@example.com", by="root")
    assert first.hold.state is State.WAITING
    assert [q.groups for q in first.missing] == [("communications", "compliance")]
    assert not [i for i in await home.outbox() if i.kind is IntentKind.RELEASE]
    last = await approvals.vote(hold.hold_id, APPROVE, approver="dpo@example.com", by="root", comment="go on")
    assert last.hold.state is State.APPROVED
    assert last.missing == ()
    home.clock.pass_(minutes=1)
    [release] = [i for i in await home.outbox() if i.kind is IntentKind.RELEASE]
    assert release.recipients == hold.envelope.recipients
    assert release.content_sha256 == hold.content_sha256
    assert await kinds(home, hold.hold_id) == ["verdict", "vote", "vote", "approved"]
    told = await notices(home, "decided")
    assert [who for who, _ in told] == ["anna@example.com", "eva@example.com", "omar@example.com"]
    assert told[0][1]["outcome"] == "approved"
    assert told[0][1]["voters"] == ["eva@example.com", "dpo@example.com"], "all who decided"
    assert told[0][1]["comment"] == "go on"


async def test_a_vote_is_taken_back_before_the_quorum(home: House) -> None:
    hold = await home.held()
    approvals = home.approvals()
    await approvals.vote(hold.hold_id, APPROVE, approver="eva@example.com", by="root")
    back = await approvals.unvote(hold.hold_id, approver="Eva+x@example.com", by="root", comment="too fast")
    assert back.hold.votes == ()
    assert back.missing == hold.verdict.quorum
    alone = await approvals.vote(hold.hold_id, APPROVE, approver="dpo@example.com", by="root")
    assert alone.hold.state is State.WAITING
    with pytest.raises(Conflict, match=r"eva@example\.com has not voted on it"):
        await approvals.unvote(hold.hold_id, approver="eva@example.com", by="root")
    await approvals.vote(hold.hold_id, APPROVE, approver="eva@example.com", by="root")
    with pytest.raises(Conflict, match="already approved"):
        await approvals.unvote(hold.hold_id, approver="eva@example.com", by="root")
    said = [data["choice"] for kind, data in await home.events(hold.hold_id) if kind == "vote"]
    assert said == ["approve", "taken-back", "approve", "approve"]


async def test_one_rejection_ends_it(home: House) -> None:
    hold = await home.held()
    await home.approve(hold.hold_id, "eva@example.com")
    done = await home.approvals().vote(hold.hold_id, REJECT, approver="dpo@example.com", by="root", comment="no")
    assert done.hold.state is State.REJECTED
    with pytest.raises(Conflict, match="already rejected"):
        await home.approve(hold.hold_id, "omar@example.com")
    assert not [i for i in await home.outbox() if i.kind is IntentKind.RELEASE]


@pytest.mark.parametrize(
    ("mail", "who"),
    [
        ({"sender": "eva@example.com", "reverse_path": "eva@example.com"}, "eva@example.com"),
        ({"sender": "eva@example.com"}, "Eva+archive@EXAMPLE.com"),
        ({"Sender": "eva@example.com"}, "eva@example.com"),
        ({"reverse_path": "eva+verp@example.com"}, "eva@example.com"),
        ({"session": {"auth_user": "eva@example.com"}}, "eva@example.com"),
        ({"sender": '"x, y" <eva@example.com>, anna@example.com'}, "eva@example.com"),
        ({"Resent_From": "Eva <eva@example.com>"}, "eva@example.com"),
        ({"Resent_From": "anna@example.com", "Resent_Sender": "eva@example.com"}, "eva@example.com"),
        ({"session": {"auth_user": "Eva"}}, "eva@example.com"),
        ({"session": {"auth_user": "EXAMPLE\\eva"}}, "eva@example.com"),
        ({"session": {"auth_user": "eva@anything.example"}}, "eva@example.com"),
    ],
)
async def test_writers_cannot_decide_on_their_own_message(home: House, mail: dict[str, Any], who: str) -> None:
    hold = await home.held(**mail)
    for choice in Choice:
        with pytest.raises(NotEntitled, match="wrote it"):
            await home.approvals().vote(hold.hold_id, choice, approver=who, by="root")
    assert (await home.hold(hold.hold_id)).votes == ()


async def test_an_approver_who_left_the_group_cannot_vote_or_count(home: House) -> None:
    hold = await home.held()
    await home.approve(hold.hold_id, "dpo@example.com")
    left = DOCUMENTS["policy.yaml"].replace(b"[dpo@example.com]", b"[legal@example.com]")
    await home.put(DOCUMENTS | {"policy.yaml": left})
    await home.follow()
    with pytest.raises(NotEntitled):
        await home.approvals().vote(hold.hold_id, REJECT, approver="dpo@example.com", by="root")
    done = await home.approve(hold.hold_id, "eva@example.com")
    assert done.hold.state is State.WAITING


async def test_a_process_that_has_not_followed_the_policy_counts_no_vote_by_the_old_one(home: House) -> None:
    """The store has another policy by now, whether the process follows late, cannot read it, or follows within the vote."""
    hold = await home.held()
    await home.approve(hold.hold_id, "eva@example.com")
    left = DOCUMENTS["policy.yaml"].replace(b"[dpo@example.com]", b"[legal@example.com]")
    await home.put(DOCUMENTS | {"policy.yaml": left})
    old, follow = home.current(), home.follow

    async def cannot() -> InForce:
        raise PolicyUnreadable("of a later version")

    async def just_before() -> InForce:
        return old

    for home.follow, error in (  # type: ignore[method-assign]
        (cannot, PolicyUnreadable), (just_before, PolicyChanged), (follow, NotEntitled),
    ):  # fmt: skip
        with pytest.raises(error):
            await home.approve(hold.hold_id, "dpo@example.com")
    assert (await home.hold(hold.hold_id)).state is State.WAITING


async def test_a_person_has_one_vote_and_may_change_it(home: House) -> None:
    hold = await home.held()
    await home.approve(hold.hold_id, "eva@example.com")
    with pytest.raises(Conflict, match="already given this vote"):
        await home.approve(hold.hold_id, "eva@example.com")
    done = await home.approvals().vote(hold.hold_id, REJECT, approver="eva@example.com", by="root")
    assert done.hold.state is State.REJECTED


@pytest.mark.parametrize(
    "seen",
    [
        {"content_sha256": "0" * 64},
        {"envelope_sha256": "0" * 64},
        {"policy_sha256": "0" * 64},
        {"scope": frozenset({"list ramadan"})},
    ],
)
async def test_a_hold_that_changed_since_is_a_conflict(home: House, seen: dict[str, Any]) -> None:
    hold = await home.held()
    with pytest.raises(Conflict, match="since it was shown"):
        await home.approve(hold.hold_id, "eva@example.com", seen=replace(Seen.of(hold), **seen))
    done = await home.approve(hold.hold_id, "eva@example.com", seen=Seen.of(hold))
    assert len(done.hold.votes) == 1


async def test_out_of_hours_another_group_decides(home: House) -> None:
    hold = await home.held()
    with pytest.raises(NotEntitled):
        await home.approve(hold.hold_id, "duty@example.com")
    home.clock.pass_(hours=14)
    done = await home.approve(hold.hold_id, "duty@example.com")
    assert done.hold.state is State.APPROVED


async def test_concurrent_votes_make_one_release(home: House) -> None:
    hold = await home.held("news@lists.example.com")  # one of communications is enough
    results = await asyncio.gather(
        *(home.approve(hold.hold_id, f"{who}@example.com") for who in ("eva", "omar")),
        return_exceptions=True,
    )
    assert sorted(type(r).__name__ for r in results) == ["Conflict", "Decided"]
    home.clock.pass_(minutes=1)
    assert len([i for i in await home.outbox() if i.kind is IntentKind.RELEASE]) == 1
    assert (await kinds(home, hold.hold_id)).count("approved") == 1


# -- time


async def sweep_at(home: House, at: datetime) -> int:
    passed = at - home.clock.at
    home.clock.pass_(seconds=passed.total_seconds())
    return await home.approvals().sweep()


async def test_reminders_escalation_and_expiry_in_time(home: House) -> None:
    hold = await home.held()
    # 24 working hours, 10 a day, from Monday 09:00: Wednesday 13:00
    assert hold.expires_at == MONDAY.replace(day=4, hour=13)
    assert await sweep_at(home, MONDAY + timedelta(minutes=20)) == 1  # looked at, nothing is due
    assert await sweep_at(home, MONDAY + timedelta(minutes=59)) == 0
    assert await sweep_at(home, MONDAY + timedelta(hours=1)) == 1
    assert await sweep_at(home, MONDAY + timedelta(hours=1, minutes=1)) == 0
    assert await sweep_at(home, MONDAY + timedelta(hours=5, minutes=59)) == 0
    assert await sweep_at(home, MONDAY + timedelta(hours=6)) == 1  # a quarter of 24 working hours
    assert await sweep_at(home, MONDAY + timedelta(days=1, hours=1, minutes=59)) == 0
    assert await sweep_at(home, MONDAY + timedelta(days=1, hours=2)) == 1  # half: Tuesday 11:00
    assert await sweep_at(home, MONDAY + timedelta(days=2, hours=1, minutes=35)) == 0
    assert await sweep_at(home, MONDAY + timedelta(days=2, hours=1, minutes=36)) == 1
    assert await sweep_at(home, hold.expires_at - timedelta(seconds=1)) == 0
    assert await sweep_at(home, hold.expires_at) == 1
    assert await sweep_at(home, hold.expires_at + timedelta(days=3)) == 0
    assert (await home.hold(hold.hold_id)).state is State.EXPIRED
    events = await home.events(hold.hold_id)
    assert [k for k, _ in events] == ["verdict", "escalated", "reminded", "reminded", "reminded", "expired"]
    assert [d["percent"] for k, d in events if k == "reminded"] == [25, 50, 90]
    told = [(who, data["decides"]) for who, data in await notices(home, "escalation")]
    assert told == [("duty@example.com", "out-of-hours"), ("omar@example.com", "now")]
    assert [who for who, _ in await notices(home, "expired")] == ["anna@example.com"]
    with pytest.raises(Conflict, match="already expired"):
        await home.approve(hold.hold_id, "eva@example.com")


@every(("owner", "told"), [
    ("Omar@Example.com", {("omar@example.com", "now"), ("duty@example.com", "out-of-hours")}),
    ("DUTY@example.com", {("duty@example.com", "out-of-hours")}),
    ("Lena@example.com", {("Lena@example.com", ""), ("duty@example.com", "out-of-hours")}),
    ("Anna@example.com", {("duty@example.com", "out-of-hours")}),
    ("anna.berg@example.com", {("duty@example.com", "out-of-hours")}),
    ("omar.k@example.com", {("omar@example.com", "now"), ("duty@example.com", "out-of-hours")}),
])  # fmt: skip
async def test_an_owner_is_known_however_the_policy_spells_them(
    tmp_path: Path, owner: str, told: set[tuple[str, str]]
) -> None:
    """An owner who decides is told so, a writer is not told of their own message, and nobody is told twice."""
    policy = DOCUMENTS["policy.yaml"].replace(b"owner: omar@example.com", b"owner: " + owner.encode())
    aliases = b"aliases: {anna@example.com: [anna.berg@example.com], omar@example.com: [omar.k@example.com]}"
    policy = policy.replace(b"hours: {zone: UTC}", b"hours: {zone: UTC}, " + aliases, 1)
    async with house(tmp_path / owner, documents={**DOCUMENTS, "policy.yaml": policy}) as home:
        hold = await home.held()
        await sweep_at(home, MONDAY + timedelta(hours=1))
        assert {(who, data["decides"]) for who, data in await notices(home, "escalation")} == told, hold


async def test_voters_are_not_reminded(home: House) -> None:
    hold = await home.held()
    await home.approve(hold.hold_id, "eva@example.com")
    await sweep_at(home, MONDAY + timedelta(hours=26))
    assert await kinds(home, hold.hold_id) == ["verdict", "vote", "reminded"]
    reminded = await notices(home, "reminder")
    assert [who for who, _ in reminded] == ["dpo@example.com", "omar@example.com"]


async def test_a_voter_is_reminded_of_what_was_added_since(home: House) -> None:
    hold = await home.held()
    await home.approve(hold.hold_id, "eva@example.com")
    await home.store.holds.change(hold.hold_id, lambda h: Change(hold=replace(h, lists=(*h.lists, "news"))))
    await sweep_at(home, MONDAY + timedelta(hours=26))
    assert [who for who, _ in await notices(home, "reminder")] == [
        "dpo@example.com",
        "eva@example.com",
        "omar@example.com",
    ]


async def test_missed_reminders_are_sent_as_one(home: House) -> None:
    hold = await home.held()
    await sweep_at(home, hold.expires_at - timedelta(minutes=1))
    assert [d["percent"] for k, d in await home.events(hold.hold_id) if k == "reminded"] == [90]


async def test_a_clock_put_forward_expires_nothing(home: House) -> None:
    hold = await home.held()
    approvals = home.approvals()
    home.clock.at += timedelta(days=30)  # not expired
    assert await approvals.sweep() == 0
    assert (await home.hold(hold.hold_id)).state is State.WAITING
    home.clock.pass_(days=10)
    await expires_reminded(home, approvals, hold.hold_id)


async def expires_reminded(home: House, approvals: Approvals, hold_id: str) -> None:
    """Its time is over by now, and its last reminder has not gone out: people have a tenth of its 24 working hours."""
    assert await approvals.sweep() == 1
    late = await home.hold(hold_id)
    assert (late.state, late.reminded) == (State.WAITING, len(REMINDERS))
    since = home.clock.now()
    assert late.expires_at == home.in_force.hours.working_deadline(since, timedelta(hours=2.4))
    told = {i.data["expires_at"] for i in await home.outbox() if i.data.get("percent") == REMINDERS[-1]}
    assert told == {utc_text(late.expires_at)}
    writer = [i.data["expires_at"] for i in await home.outbox() if i.data["notice"] == "held" and i.data.get("longer")]
    assert writer == [utc_text(late.expires_at)], "its writer was told another time"
    home.clock.pass_(seconds=(late.expires_at - since).total_seconds() - 1)
    assert await approvals.sweep() == 0
    assert not approvals.is_over(late)
    home.clock.pass_(seconds=1)
    assert await approvals.sweep() == 1
    assert (await home.hold(hold_id)).state is State.EXPIRED


async def test_a_short_time_too_ends_only_after_the_last_reminder(home: House) -> None:
    """A restart of four minutes takes more than the last tenth of half an hour."""
    home.term = Deadlines(seconds=1800, working=False)
    hold = await home.held()
    assert await sweep_at(home, MONDAY + timedelta(minutes=27, seconds=20)) == 1
    assert (await home.hold(hold.hold_id)).expires_at == hold.expires_at
    assert not [i for i in await home.outbox() if i.data.get("longer")]
    late = await home.held(body="2")
    home.clock.pass_(minutes=31)
    await home.approvals().sweep()
    assert (await home.hold(late.hold_id)).expires_at == home.clock.now() + timedelta(minutes=3)


async def test_a_hold_whose_client_got_no_answer_is_void(home: House) -> None:
    hold = await home.held()
    unanswered = replace(hold, hold_id="U1", acknowledged=False)
    assert home.term.attend_at(unanswered, home.in_force) == hold.held_at + timedelta(minutes=15)
    step = home.approvals()._due_change(
        unanswered, home.notices.at(home.in_force, hold.held_at + timedelta(minutes=15))
    )
    assert step.hold is not None
    assert step.hold.state is State.VOID
    assert step.intents == ()
    early = home.approvals()._due_change(
        unanswered, home.notices.at(home.in_force, hold.held_at + timedelta(minutes=14))
    )
    assert early.hold is not None
    assert early.hold.state is State.WAITING


async def unanswered(home: House, hold_id: str) -> None:
    """As if its client had got 451 or had left."""
    sql = "UPDATE hold SET acknowledged = false WHERE hold_id = ?"
    await home.store.write(lambda b: b.execute(sql, [(hold_id,)]))


async def test_nobody_approves_what_its_client_has_no_answer_for(home: House) -> None:
    """Approved, it could never be sent, and would never end."""
    hold = await home.held()
    await unanswered(home, hold.hold_id)
    with pytest.raises(Conflict, match="its client has had no answer yet"):
        await home.approve(hold.hold_id)
    await home.send(RAMADAN)  # its client tries again
    assert (await home.approve(hold.hold_id)).hold.state is State.APPROVED


async def test_a_copy_whose_client_has_no_answer_waits_for_it(campaign: Campaign) -> None:
    given = await campaign.to_members(0, 7)
    lead, copy = given[4], given[6]
    assert isinstance(lead, IsHeld)
    assert isinstance(copy, IsHeld)
    await unanswered(campaign.home, copy.hold_id)
    await campaign.decide(lead.hold_id)
    assert (await campaign.home.hold(copy.hold_id)).state is State.WAITING
    again = await campaign.send(MEMBERS[6], Message_ID="<6@example.com>", body="Copy 6")
    assert again == copy
    await campaign.approvals.follow()
    assert (await campaign.home.hold(copy.hold_id)).state is State.APPROVED


TO = ["ulf@example.com", *MEMBERS[:25]]
SHOWN = ", ".join([*MEMBERS, "ulf@example.com"])


@pytest.mark.parametrize("end", [State.VOID, State.REJECTED])
async def test_a_hold_that_ends_without_an_answer_leaves_nothing_to_be_sent(home: House, end: State) -> None:
    """Its notices would go once its row is gone, and keep the row from being deleted."""
    hold = await home.held(*TO, To=SHOWN)
    await unanswered(home, hold.hold_id)
    if end is State.REJECTED:
        await home.approvals().vote(hold.hold_id, REJECT, approver="eva@example.com", by="test", comment="No")
    home.clock.pass_(minutes=16)
    await home.approvals().sweep()
    assert (await home.hold(hold.hold_id)).state is end
    await privacy.erase(home.store, privacy.Person(Address.parse(MEMBERS[0]), Digester(KEY, "+")), by="root")
    assert await home.store.holds.find(hold.hold_id) is None
    assert await home.outbox() == []


async def test_a_void_hold_with_what_earlier_versions_left_to_be_sent_is_erased_in_time(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = await home.held(*TO, To=SHOWN)
    await unanswered(home, hold.hold_id)
    home.clock.pass_(minutes=16)
    with monkeypatch.context() as earlier:
        earlier.setattr("smtpguard.outbox.rows.remove", lambda *_: None)
        await home.approvals().sweep()
    left = select(outbox.c.intent_id).where(outbox.c.hold_id == hold.hold_id)
    assert len(await home.store.ask(lambda c: c.execute(left).all())) == 5
    home.clock.pass_(days=400)
    while (await home.store.retain(Retention())).more:
        pass
    assert await home.store.holds.find(hold.hold_id) is None
    assert await home.store.ask(lambda c: c.execute(left).all()) == []


async def test_a_void_hold_that_comes_again_tells_and_passes_on_as_at_first(home: House) -> None:
    hold = await home.held(*TO, To=SHOWN)
    first = sorted(intent.kind.value for intent in await home.outbox())
    assert first == ["notice"] * 4 + ["part"]
    await unanswered(home, hold.hold_id)
    home.clock.pass_(minutes=16)
    await home.approvals().sweep()
    assert (await home.held(*TO, To=SHOWN)).hold_id == hold.hold_id
    assert sorted(intent.kind.value for intent in await home.outbox()) == first


async def test_an_expired_hold_cannot_be_approved_before_the_sweep(home: House) -> None:
    hold = await home.held()
    approvals = home.approvals()
    await sweep_at(home, home.term.reminder_at(hold, REMINDERS[-1], home.in_force))
    home.clock.pass_(seconds=(hold.expires_at - home.clock.now()).total_seconds())
    with pytest.raises(Conflict, match="it has expired"):
        await approvals.vote(hold.hold_id, Choice.APPROVE, approver="eva@example.com", by="test")
    assert (await home.hold(hold.hold_id)).votes == ()
    await approvals.sweep()
    assert (await home.hold(hold.hold_id)).state is State.EXPIRED


async def test_a_clock_that_jumps_expires_nothing_and_is_logged_once(
    home: House, caplog: pytest.LogCaptureFixture
) -> None:
    hold = await home.held()
    approvals = home.approvals()
    for days, logged in ((10, 1), (0, 1), (10, 2)):  # of the wall clock alone
        home.clock.at += timedelta(days=days)
        for _ in range(3):
            await approvals.sweep()
            home.clock.pass_(seconds=20)
        assert sum("has jumped by" in line for line in caplog.messages) == logged
    assert (await home.hold(hold.hold_id)).state is State.WAITING
    home.clock.at -= timedelta(days=20)
    await approvals.sweep()
    home.clock.at += timedelta(days=10)
    await approvals.sweep()
    assert sum("has jumped by" in line for line in caplog.messages) == 3
    assert (await home.hold(hold.hold_id)).state is State.WAITING
    assert sum("was set back" in line for line in caplog.messages) == 0, "by no more than it had jumped"
    home.clock.at -= timedelta(days=11)
    for _ in range(3):
        await approvals.sweep()
        home.clock.pass_(seconds=20)
    assert sum("was set back by 1 day, 0:00:00" in line for line in caplog.messages) == 1


async def test_a_hold_decided_meanwhile_does_not_expire(home: House) -> None:
    hold = await home.held()
    with pytest.raises(Conflict, match="decided meanwhile"):
        home.approvals()._due_change(
            replace(hold, state=State.APPROVED), home.notices.at(home.in_force, hold.expires_at)
        )


async def test_a_failing_hold_does_not_stop_the_sweep(home: House) -> None:
    first = await home.held()
    second = await home.held(MEMBERS[1], *MEMBERS[2:30], body="another", To="x@example.com")

    async def change(hold_id: str, step: Any) -> Change:
        if hold_id == first.hold_id:
            raise Unavailable
        return await home.store.holds.change(hold_id, step)

    home.given_store = PatchedStore(home.store, {"holds.change": change})
    assert await sweep_at(home, MONDAY + timedelta(days=9)) == 1
    assert await sweep_at(home, MONDAY + timedelta(days=19)) == 1
    assert (await home.hold(first.hold_id)).state is State.WAITING
    assert (await home.hold(second.hold_id)).state is State.EXPIRED


async def test_a_clock_that_jumped_is_known_until_it_is_set_back(home: House) -> None:
    steady, known = SteadyClock(home.clock), []
    for hours in (0, 20, 800 * 24, 0, -800 * 24):
        home.clock.at += timedelta(hours=hours)
        home.clock.pass_(minutes=1)
        known.append(steady.jumped)
    assert known == [False, False, True, True, False], "a machine that was paused for the night erases as before"


async def test_a_part_that_begins_while_the_clock_is_wrong_expires_nothing(home: House) -> None:
    hold = await home.held()
    approvals = home.approvals()
    home.clock.at += timedelta(days=800)
    assert await approvals.sweep() == 0
    assert approvals.clock.jumped
    assert (await home.hold(hold.hold_id)).state is State.WAITING


async def restarted(home: House) -> Approvals:
    """As in a process that starts now."""
    return replace(home.approvals(), clock=await learned_clock(home.clock, home.store))


@pytest.mark.parametrize("corrected", [True, False])
async def test_a_start_under_a_clock_far_ahead_expires_nothing_for_a_day(home: House, corrected: bool) -> None:
    hold = await home.held()
    home.clock.at += timedelta(days=800)
    for reminders in (0, 1):  # another start some hours later, with what the first recorded under that clock
        approvals = await restarted(home)
        assert await approvals.sweep() == reminders
        assert approvals.clock.jumped
        with pytest.raises(NotEntitled):  # and not that it has expired
            await approvals.vote(hold.hold_id, Choice.APPROVE, approver="nobody@example.com", by="nobody")
        await home.store.journal.record([event_on(hold, Kind.VIEWED, home.clock.now())])
        home.clock.pass_(hours=11)
    if corrected:
        home.clock.at -= timedelta(days=800)
        await approvals.sweep()
        assert (await home.hold(hold.hold_id)).state is State.WAITING
    else:
        home.clock.pass_(hours=2)  # a day after the first start
        await expires_reminded(home, approvals, hold.hold_id)
    assert not approvals.clock.jumped


async def test_a_start_after_a_week_goes_by_the_clock(home: House) -> None:
    hold = await home.held()
    home.clock.pass_(days=7)
    await expires_reminded(home, await restarted(home), hold.hold_id)


async def test_a_start_long_after_the_clock_was_ahead_goes_by_the_clock(home: House) -> None:
    """What was recorded under that clock stays in the journal, between what is older and what is newer."""
    hold = await home.held()
    for entries, hours, ahead in ((3, 0, 0), (20, 0, 800), (21, 9, -800)):
        home.clock.at += timedelta(days=ahead)
        for _ in range(entries):
            await home.store.journal.record([event_on(hold, Kind.VIEWED, home.clock.now())])
            home.clock.pass_(hours=hours)
    approvals = await restarted(home)
    assert await approvals.sweep() == 1
    assert not approvals.clock.jumped


async def test_a_clock_that_jumped_counts_a_day_later(home: House) -> None:
    hold, approvals = await home.held(), home.approvals()
    for hours in (1, 800 * 24):  # each has a day of its own
        home.clock.at += timedelta(hours=hours)
        await approvals.sweep()
        home.clock.pass_(hours=23)
    await approvals.sweep()
    assert (await home.hold(hold.hold_id)).state is State.WAITING
    home.clock.pass_(hours=1)
    await expires_reminded(home, approvals, hold.hold_id)
    assert not approvals.clock.ahead


async def test_a_deadline_that_cannot_be_kept_is_logged_once(home: House, caplog: pytest.LogCaptureFixture) -> None:
    hold = await home.held()

    async def change(*_: Any) -> Change:
        raise Unavailable("the database server is read-only")

    home.given_store = PatchedStore(home.store, {"holds.change": change})
    approvals = home.approvals()
    home.clock.pass_(days=9)
    for _ in range(3):
        await approvals.sweep()
    approvals.store = home.store
    await approvals.sweep()
    why = f"deadlines are looked at again: hold {hold.hold_id}: Unavailable('the database server is read-only')"
    over = "deadlines are looked at again: over, after 0 s"
    assert [line for line in caplog.messages if "deadlines" in line] == [why, over]


@every(
    ("field", "expires"),
    [
        ("Latest-Delivery-Time: Mon, 2 Mar 2026 12:00:00 +0000", MONDAY.replace(hour=12)),
        ("Deliver-By: Mon, 2 Mar 2026 13:00:00 +0100", MONDAY.replace(hour=12)),
        ("Expires: Mon, 2 Mar 2026 12:00:00 -0000", MONDAY.replace(hour=12)),
        ("Expires: Sun, 1 Mar 2026 12:00:00 +0000", None),  # it is over
        ("Expires: Fri, 6 Mar 2026 12:00:00 +0000", None),  # later than the organization's own deadline
        ("Expires: soon", None),
        ("Expires: Mon, 99 Mar 2026 99:00:00 +0000", None),
        ("Subject: none", None),
    ],
)
async def test_deliver_by_shortens_the_time(home: House, field: str, expires: datetime | None) -> None:
    header = parse_header(f"{field}\r\n\r\n".encode())
    named = deliver_by(header, MONDAY)
    assert Deadlines().expires_at(named, home.in_force, MONDAY) == (expires or MONDAY.replace(day=4, hour=13))


async def test_a_time_in_plain_hours(home: House) -> None:
    term = Deadlines(seconds=3600, working=False)
    assert term.expires_at(None, home.in_force, MONDAY) == MONDAY.replace(hour=10)


async def test_a_hold_that_waits_anew_has_the_time_that_the_settings_give_now(home: House) -> None:
    """Also if they, or the working hours, gave less when it was held. A date of the message itself stays."""
    plain, dated = await home.held(), await home.held(body="2", Expires="Tue, 3 Mar 2026 12:00:00 +0000")
    term = Deadlines(seconds=48 * 3600, working=False)
    now = MONDAY.replace(hour=15)
    assert term.anew(plain, home.in_force, now).expires_at == MONDAY.replace(day=4, hour=15)
    assert term.anew(dated, home.in_force, now).expires_at == MONDAY.replace(day=3, hour=12)
