"""Rules with ``confirm``: which messages their writer is asked about, and what a confirmation lets pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.console.labels import own_states
from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Change, Choice, Conflict, Hold, NotEntitled, State, Unconfirmed
from smtpguard.lists.index import index_path
from smtpguard.mailings.service import Mailings
from smtpguard.observe.figures import look
from smtpguard.outbox.model import IntentKind
from smtpguard.policy.verdict import Action, Deferred, Disposition, Held, Relayed
from tests.guard.asking import ANNA, NEWS, READERS, RULES, copy, documents, put
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, RAMADAN, FakePassage, House, house, index
from tests.notices.test_outcomes import notice_text
from tests.store.making import on_sqlite

EVA, OMAR, ULF = "eva@example.com", "omar@example.com", "ulf@example.com"


@pytest.fixture
async def home(url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, documents=documents(), url=url) as made:
        index(made.folder, "news", READERS)
        made.in_force = made.build(documents())
        yield made


async def send(home: House, *to: str, **more: Any) -> Disposition:
    return await home.intake()(copy(home, *to, **more), FakePassage())


async def waiting(home: House) -> Sequence[Hold]:
    return await home.store.holds.newest(states=[State.WAITING])


async def asked(home: House, *to: str, **more: Any) -> Hold:
    """The hold of a new message to ``to``, by default to ten readers."""
    done = await send(home, *(to or READERS[:10]), **more)
    assert isinstance(done, Held)
    return await home.hold(done.hold_id)


async def confirm(home: House, hold: Hold, people: int | None = None, *, by: str = ANNA) -> Hold:
    number = hold.reach if people is None else people
    return (await home.approvals().confirm(hold.hold_id, writer=by, by="test", people=number)).hold


async def notified(home: House) -> list[tuple[str, str]]:
    """(Notice, recipient) of each notice in the outbox."""
    home.clock.pass_(seconds=2)
    return sorted(
        (i.data["notice"], str(i.recipients[0].address)) for i in await home.outbox() if i.kind is IntentKind.NOTICE
    )


async def unanswered(home: House, hold_id: str) -> None:
    """As if its client had got no 250 yet."""
    sql = "UPDATE hold SET acknowledged = false WHERE hold_id = ?"
    await home.store.write(lambda b: b.execute(sql, [(hold_id,)]))


async def releases(home: House) -> int:
    home.clock.pass_(seconds=2)
    return sum(i.kind is IntentKind.RELEASE for i in await home.outbox())


@on_sqlite
async def test_a_deferred_post_adds_nothing_to_a_message_to_single_people_that_waits_without_it(home: House) -> None:
    await home.put({**DOCUMENTS, "policy.yaml": POLICY.replace("then: reject", "then: defer").encode()})
    await home.follow()
    same = {"X_Mailing": "spring"}
    assert isinstance(await home.send(RAMADAN, X_Labels="contract", X_Looks="mailing", **same), Deferred)
    hold = await home.held(*MEMBERS[:25], X_Looks="internal", **same)
    assert (hold.mailing_id != "", hold.by_address, hold.reach) == (True, False, 25)


@on_sqlite
async def test_only_the_proven_writer_is_asked(home: House) -> None:
    hold = await asked(home)
    assert hold.verdict.action is Action.CONFIRM
    assert hold.asks_writer
    assert hold.confirm is not None
    assert (hold.confirm.writer, hold.confirm.proof) == (ANNA, "login")
    assert hold.confirm.until == hold.held_at + timedelta(hours=4)
    assert [q.groups for q in hold.verdict.quorum] == [("communications",)]
    [(kind, data)] = await home.events(hold.hold_id)
    assert (kind, data["action"], data["hold"]) == ("verdict", "confirm", hold.hold_id)
    assert await notified(home) == [("confirm", ANNA)]


@on_sqlite
async def test_a_confirmation_releases_and_is_journalled_as_the_writers(home: House) -> None:
    hold = await asked(home)
    done = await confirm(home, hold)
    assert done.state is State.APPROVED
    assert done.votes == ()
    assert done.confirm is not None
    assert done.confirm.people == 10
    assert await releases(home) == 1
    events = await home.events(hold.hold_id)
    assert [kind for kind, _ in events] == ["verdict", "confirmed"]
    data = events[-1][1]
    assert (data["people"], data["proof"], data["content"]) == (10, "login", hold.content_sha256)
    [(_, clear)] = [pair for pair in await home.store.journal.history(hold.hold_id) if pair[0].kind == "confirmed"]
    assert clear is not None
    assert clear["actor"] == [ANNA, "test"]
    assert ("decided", ANNA) in await notified(home)
    assert ("decided", EVA) not in await notified(home)


@on_sqlite
@pytest.mark.parametrize("number", [0, 9, 11, 100])
async def test_a_wrong_number_releases_nothing(home: House, number: int) -> None:
    hold = await asked(home)
    with pytest.raises(Unconfirmed, match="10 people"):
        await confirm(home, hold, number)
    assert [h.asks_writer for h in await waiting(home)] == [True]
    assert await releases(home) == 0


@on_sqlite
async def test_only_the_writer_confirms(home: House) -> None:
    hold = await asked(home)
    for who in (EVA, ULF, "nobody at all"):
        with pytest.raises(NotEntitled):
            await confirm(home, hold, by=who)
    with pytest.raises(Conflict, match="already"):
        await confirm(home, await confirm(home, hold))
    with pytest.raises(KeyError):
        await home.approvals().confirm("no such", writer=ANNA, by="test", people=10)


@on_sqlite
async def test_changed_content_is_not_confirmed(home: House) -> None:
    hold = await asked(home)
    seen = Seen(content_sha256="0" * 64, envelope_sha256=hold.envelope.sha256)
    with pytest.raises(Conflict, match="changed"):
        await home.approvals().confirm(hold.hold_id, writer=ANNA, by="test", people=10, seen=seen)


@on_sqlite
@pytest.mark.parametrize(
    "more",
    [
        {"session": {}},
        {"session": {"auth_user": ULF}},
        {"reverse_path": None},
        {"Auto_Submitted": "auto-generated"},
        {"X_Autoreply": "yes"},
        {"sender": f"{ANNA}, {ULF}"},
        {"sender": "anna@example.org", "session": {"auth_user": "anna@example.org"}},
        {"sender": "noreply@example.com", "session": {"auth_user": "noreply@example.com"}},
        {"sender": NEWS, "session": {"auth_user": NEWS}},
    ],
)
async def test_an_unproven_or_automatic_sender_is_held_at_once(home: House, more: dict[str, Any]) -> None:
    hold = await asked(home, **more)
    assert hold.verdict.action is Action.HOLD
    assert hold.confirm is None
    assert ("approve", OMAR) in await notified(home)
    assert not any(kind == "confirm" for kind, _ in await notified(home))
    [(_, data)] = await home.events(hold.hold_id)
    assert data["action"] == "hold"
    assert "confirm.not-asked" in {reason["fact"] for reason in data["reasons"]}
    with pytest.raises((Conflict, NotEntitled)):
        await confirm(home, hold)


@on_sqlite
async def test_a_listener_that_verifies_senders_proves_the_writer(home: House) -> None:
    hold = await asked(home, session={"senders_verified": True})
    assert hold.confirm is not None
    assert hold.confirm.proof == "listener"


@on_sqlite
async def test_mail_to_a_special_category_is_never_confirmed_by_its_writer(home: House) -> None:
    hold = await asked(home, *MEMBERS[:10])
    assert hold.verdict.action is Action.HOLD
    assert not hold.asks_writer


@on_sqlite
async def test_a_rule_that_holds_prevails_over_confirm(home: House) -> None:
    hold = await asked(home, *READERS[:30])
    assert hold.verdict.action is Action.HOLD
    assert not hold.asks_writer
    assert {h.rule for h in hold.verdict.hits} == {"to-several", "to-many"}


@on_sqlite
async def test_a_special_list_without_an_index_leaves_it_to_approvers(home: House) -> None:
    index_path(home.folder, "ramadan").unlink()
    home.in_force = home.build(documents())
    hold = await asked(home, *READERS[:10])
    assert hold.verdict.action is Action.HOLD


async def test_thirty_copies_are_one_question(home: House) -> None:
    await put(home, RULES.replace(">= 30", ">= 300"))
    done = [await send(home, reader) for reader in READERS[:30]]
    assert [isinstance(one, Relayed) for one in done] == [True] * 4 + [False] * 26
    [hold] = await waiting(home)
    assert (hold.asks_writer, hold.copies, hold.reach) == (True, 25, 26)
    assert await notified(home) == [("confirm", ANNA)]
    with pytest.raises(Unconfirmed):
        await confirm(home, hold, 1)
    await confirm(home, hold)
    assert await releases(home) == 26
    assert not await waiting(home)
    for one in await home.holds():
        assert own_states(one, frozen=False)["approved"].startswith("You confirmed it, and it is being sent")
    kinds = {kind for one in done[5:] if isinstance(one, Held) for kind, _ in await home.events(one.hold_id)}
    assert kinds == {"verdict", "confirmed"}
    [mailing] = await home.store.mailings.newest()
    assert [grant.by_writer for grant in mailing.grants] == [True]


async def test_copies_after_a_confirmation_pass_until_another_rule_holds(home: House) -> None:
    for reader in READERS[:12]:
        await send(home, reader)
    [hold] = await waiting(home)
    await confirm(home, hold)
    assert isinstance(await send(home, READERS[12]), Relayed)
    assert isinstance(await send(home, READERS[13], session={}), Held), "nothing proves the sender"
    [other] = await waiting(home)
    assert not other.asks_writer


@on_sqlite
async def test_a_confirmation_is_no_approval(home: House) -> None:
    """A confirmation is no approval: another rule holds the unapproved mailing from thirty people on."""
    await put(home, RULES.replace(">= 5", ">= 28"))
    done = [await send(home, reader) for reader in READERS[:28]]
    assert isinstance(done[-1], Held)
    [hold] = await waiting(home)
    await confirm(home, hold)
    assert isinstance(await send(home, READERS[28]), Relayed | Held)
    late = await send(home, READERS[29])
    assert isinstance(late, Held)
    found = await home.hold(late.hold_id)
    assert found.verdict.action is Action.HOLD


async def test_a_copy_that_its_writer_cannot_confirm_makes_all_a_hold(home: House) -> None:
    """A copy that is unproven, from another sender, or held by a rule: approvers decide on it and on the copies with
    it."""
    hold = await asked(home)
    assert await notified(home) == [("confirm", ANNA)]
    again = await send(home, READERS[20], session={}, Message_ID="<other@a>")
    assert isinstance(again, Held)
    [lead] = await waiting(home)
    assert lead.hold_id == hold.hold_id
    assert (lead.asks_writer, lead.copies) == (False, 1)
    assert [kind for kind, _ in await home.events(hold.hold_id)] == ["verdict", "unconfirmed"]
    assert {("approve", OMAR), ("approve", EVA), ("held", ANNA)} <= set(await notified(home))
    with pytest.raises(Conflict):
        await confirm(home, lead)
    await home.approve(lead.hold_id, EVA)
    assert not await waiting(home)


@on_sqlite
async def test_a_colleagues_copy_ends_the_question(home: House) -> None:
    hold = await asked(home)
    await send(home, READERS[20], sender=ULF, session={"auth_user": ULF})
    [lead] = await waiting(home)
    assert lead.hold_id == hold.hold_id
    assert not lead.asks_writer


ASKED = [("approve", EVA), ("approve", OMAR), ("confirm", ANNA), ("held", ANNA)]


@pytest.mark.parametrize("then", ["defer", "reject", "full"])
@on_sqlite
async def test_who_decides_now_is_asked_also_by_a_copy_that_does_not_wait(home: House, then: str) -> None:
    """The client of a deferred one tries again: its writer is told once it waits, and what only defers it ends no question. A
    rejected one does not come again."""
    rule = "  - {id: late, when: {message.labels: [contract]}, then: %s}\n"
    await put(home, RULES + (rule % then if then != "full" else ""))
    home.term = replace(home.term, copies=0 if then == "full" else 500)
    await asked(home)
    await notified(home)
    again = {"sender": ULF, "session": {"auth_user": ULF}, "Message_ID": "<other@a>"}
    assert not isinstance(await send(home, READERS[0], X_Labels="contract", **again), Held)
    [lead] = await waiting(home)
    told = await notified(home)
    assert (lead.asks_writer, ULF in lead.senders) == (then != "full", then != "reject")
    assert lead.verdict.action is (Action.CONFIRM if lead.asks_writer else Action.HOLD)
    assert told == ([("confirm", ANNA)] if lead.asks_writer else ASKED)
    if then == "reject":
        return
    await put(home, RULES)
    home.term = replace(home.term, copies=500)
    assert isinstance(await send(home, READERS[0], X_Labels="contract", **again), Held)
    assert {*ASKED, ("held", ULF)} <= set(await notified(home))


@on_sqlite
async def test_a_copy_that_a_freeze_defers_leaves_the_question_to_its_writer(home: House) -> None:
    """Its client tries again, and it joins what its writer is asked about."""
    hold = await asked(home)
    await home.freeze(defers=True)
    assert isinstance(await send(home, READERS[20]), Deferred)
    [lead] = await waiting(home)
    assert (lead.asks_writer, lead.verdict.action) == (True, Action.CONFIRM)
    await home.thaw()
    assert isinstance(await send(home, READERS[20]), Held)
    [lead] = await waiting(home)
    assert (lead.hold_id, lead.asks_writer, lead.copies, lead.reach) == (hold.hold_id, True, 1, hold.reach + 1)


@pytest.mark.parametrize("text", [None, "Another text\r\n"], ids=["copy", "another"])
async def test_a_deferred_post_adds_nothing_to_a_post_of_its_own_mailing_that_it_does_not_join(
    home: House, text: str | None
) -> None:
    """Its text is another: once its client tries again, it waits by itself."""
    await home.put({**DOCUMENTS, "policy.yaml": POLICY.replace("then: reject", "then: defer").encode()})
    await home.follow()
    index(home.folder, "news", READERS)
    same = {"X_Looks": "mailing", "X_Mailing": "spring"}
    sent = same | ({"body": text} if text else {})
    lead = await home.held(RAMADAN, **same)
    joined = (("ramadan",), 60) if text else (("news", "ramadan"), 120)
    for _ in range(2):
        assert isinstance(await home.send(NEWS, X_Labels="contract", **sent), Deferred)
        found = await home.hold(lead.hold_id)
        assert (found.lists, found.reach) == joined
        assert found.verdict.action is Action.HOLD
    other = await home.held(NEWS, **sent)
    found = await home.hold(lead.hold_id)
    assert (other.primary, found.lists, found.reach) == ("" if text else lead.hold_id, *joined)
    for _ in range(2):
        copy = await home.held(NEWS, Message_ID=f"<{next(home.ids)}@a>", **same)
        found = await home.hold(lead.hold_id)
        assert (copy.primary, found.lists, found.reach) == (lead.hold_id, ("news", "ramadan"), 120)


@on_sqlite
async def test_a_copy_that_another_rule_holds_ends_the_question(home: House) -> None:
    await put(home, RULES.replace("then: confirm", "then: confirm\n    within: 30m\n    after: expire", 1))
    hold = await asked(home)
    await send(home, *READERS[10:40])
    [lead] = await waiting(home)
    assert (lead.hold_id, lead.asks_writer) == (hold.hold_id, False)
    figures = await home.store.ask(lambda c: look(c, home.clock.now(), settled_within=timedelta(minutes=15)))
    assert (figures.holds, figures.near) == (1, 0), "it has the time of a hold now, not that of the question"
    assert lead.verdict.action is Action.HOLD


async def test_a_question_whose_client_got_no_answer_is_looked_at_as_early_as_any_hold(home: House) -> None:
    hold = replace(await asked(home), acknowledged=False)
    assert home.term.attend_at(hold, home.in_force) == hold.held_at + timedelta(minutes=15)


async def test_within_four_hours_approvers_may_only_reject(home: House) -> None:
    hold = await asked(home)
    with pytest.raises(
        Conflict,
        match=r"only its writer can let it go until 2026-03-02 13:00 UTC \(smtpguard held confirm\); others can only reject it",
    ):
        await home.approve(hold.hold_id, EVA)
    done = await home.approvals().vote(hold.hold_id, Choice.REJECT, approver=EVA, by="test", comment="No")
    assert done.hold.state is State.REJECTED
    with pytest.raises(Conflict):
        await confirm(home, hold)


async def test_after_four_hours_approvers_decide(home: House) -> None:
    hold = await asked(home)
    home.clock.pass_(hours=3, minutes=59)
    await home.approvals().sweep()
    assert [h.asks_writer for h in await waiting(home)] == [True]
    home.clock.pass_(minutes=1)
    with pytest.raises(Conflict, match="not asked"):
        await confirm(home, hold)
    await home.approvals().sweep()
    [now] = await waiting(home)
    assert not now.asks_writer
    assert now.confirm is not None
    assert now.confirm.lapsed_at == home.clock.now()
    assert now.waits_since == home.clock.now()
    assert now.expires_at > hold.expires_at
    assert [kind for kind, _ in await home.events(hold.hold_id)] == ["verdict", "unconfirmed"]
    assert {("held", ANNA), ("reminder", EVA), ("reminder", OMAR)} <= set(await notified(home))
    await home.approvals().sweep()
    done = await home.approve(hold.hold_id, EVA)
    assert done.hold.state is State.APPROVED


@on_sqlite
async def test_a_rule_sets_the_time_and_that_the_hold_expires(home: House) -> None:
    await put(home, RULES.replace("then: confirm", "then: confirm\n    within: 30m\n    after: expire", 1))
    hold = await asked(home)
    assert hold.confirm is not None
    assert (hold.confirm.until - hold.held_at, hold.confirm.expires) == (timedelta(minutes=30), True)
    assert hold.expires_at == hold.confirm.until
    home.clock.pass_(minutes=26)
    await home.approvals().sweep()
    assert await notified(home) == [("confirm", ANNA)]
    home.clock.pass_(minutes=1)
    await home.approvals().sweep()
    assert await notified(home) == [("confirm", ANNA), ("confirm", ANNA)]
    home.clock.pass_(minutes=3)
    await home.approvals().sweep()
    found = await home.hold(hold.hold_id)
    assert found.state is State.EXPIRED
    assert ("expired", ANNA) in await notified(home)
    assert ("expired", EVA) not in await notified(home)


@on_sqlite
async def test_a_question_does_not_expire_before_its_writer_is_reminded(home: House) -> None:
    """After an outage: the writer is reminded, may confirm, and has the rest of the time that the reminder leaves."""
    await put(home, RULES.replace("then: confirm", "then: confirm\n    within: 30m\n    after: expire", 1))
    hold = await asked(home)
    home.clock.pass_(hours=1)
    await home.approvals().sweep()
    [late] = await waiting(home)
    assert late.asks_writer
    assert late.confirm is not None
    assert late.confirm.until == late.expires_at == home.clock.now() + timedelta(minutes=3)
    assert await notified(home) == [("confirm", ANNA), ("confirm", ANNA)]
    assert [kind for kind, _ in await home.events(hold.hold_id)] == ["verdict", "reminded"]
    home.clock.pass_(minutes=2)
    await home.approvals().sweep()
    assert (await confirm(home, late)).state is State.APPROVED


@on_sqlite
async def test_a_retry_after_its_client_got_no_answer_is_asked_about_for_the_same_time(home: House) -> None:
    await put(home, RULES.replace("then: confirm", "then: confirm\n    within: 30m\n    after: expire", 1))
    hold = await asked(home, Message_ID="<1@a>")
    await unanswered(home, hold.hold_id)
    home.clock.pass_(minutes=15)
    await home.approvals().sweep()
    assert (await home.hold(hold.hold_id)).state is State.VOID
    again = await asked(home, Message_ID="<1@a>")
    assert again.hold_id == hold.hold_id
    assert again.confirm is not None
    assert again.expires_at == again.confirm.until == home.clock.now() + timedelta(minutes=30)
    home.clock.pass_(minutes=27)
    await home.approvals().sweep()
    home.clock.pass_(minutes=3)
    await home.approvals().sweep()
    assert (await home.hold(hold.hold_id)).state is State.EXPIRED


@on_sqlite
async def test_a_copy_in_the_place_of_one_without_an_answer_is_asked_about(home: House) -> None:
    await put(home, RULES.replace("then: confirm", "then: confirm\n    within: 30m\n    after: expire", 1))
    hold = await asked(home)
    await asked(home, *READERS[10:20])
    await unanswered(home, hold.hold_id)
    home.clock.pass_(minutes=15)
    await home.approvals().sweep()
    [copy_] = await waiting(home)
    assert copy_.hold_id != hold.hold_id
    assert copy_.asks_writer
    assert copy_.expires_at == hold.expires_at
    assert await notified(home) == [("confirm", ANNA)]
    assert (await confirm(home, copy_)).state is State.APPROVED


@on_sqlite
async def test_a_copy_in_the_place_of_one_that_others_decide_on_asks_nobody_else(home: House) -> None:
    hold = await asked(home)
    await asked(home, *READERS[10:20])
    lapsed = home.term.asks_others(hold, home.in_force, home.clock.now())
    due = replace(lapsed, attend_at=home.clock.now() + timedelta(minutes=15))
    await home.store.holds.change(hold.hold_id, lambda _: Change(hold=due))
    await unanswered(home, hold.hold_id)
    home.clock.pass_(minutes=15)
    await home.approvals().sweep()
    [copy_] = await waiting(home)
    assert copy_.hold_id != hold.hold_id
    assert (copy_.confirm, copy_.expires_at) == (None, lapsed.expires_at)


@on_sqlite
async def test_a_question_of_an_earlier_version_ends_when_its_writer_was_told(home: House) -> None:
    """Earlier versions stored the end of an ordinary hold."""
    await put(home, RULES.replace("then: confirm", "then: confirm\n    within: 30m\n    after: expire", 1))
    hold = await asked(home)
    until = hold.expires_at
    old = replace(hold, expires_at=until + timedelta(days=2))
    await home.store.holds.change(hold.hold_id, lambda h: Change(hold=replace(old, attend_at=until)))
    home.clock.pass_(minutes=30)
    await home.approvals().sweep()
    assert await notified(home) == [("confirm", ANNA), ("confirm", ANNA)]
    home.clock.pass_(minutes=3)
    await home.approvals().sweep()
    assert (await home.hold(hold.hold_id)).state is State.EXPIRED


@on_sqlite
async def test_the_policy_sets_the_time_and_the_limit_of_questions(home: House) -> None:
    await put(home, top='confirm: {within: 1h, a_person: "1 in 1d"}\n')
    hold = await asked(home)
    assert hold.confirm is not None
    assert hold.confirm.until - hold.held_at == timedelta(hours=1)
    second = await asked(home, *READERS[20:30], X_Mailing="another", body="another")
    assert second.verdict.action is Action.HOLD


@on_sqlite
async def test_a_writer_is_asked_at_most_three_times_a_week(home: House) -> None:
    """A writer is asked about three mailings in a week, whatever their Message-IDs; the copies of one count once."""
    for n in range(3):
        hold = await asked(home, X_Mailing=f"m{n}", body=f"{n}", Message_ID="<same@a>")
        assert hold.asks_writer, n
        await send(home, READERS[40], X_Mailing=f"m{n}", body=f"{n}")
        await confirm(home, (await waiting(home))[0])
    often = await asked(home, X_Mailing="m3", body="3", Message_ID="<same@a>")
    assert often.verdict.action is Action.HOLD
    sentences = [str(r.public) for h in often.verdict.hits for r in h.reasons]
    assert "Its writer has been asked so often lately that others decide." in sentences
    other = await asked(home, sender=ULF, session={"auth_user": ULF}, X_Mailing="m4", body="4")
    assert other.asks_writer
    home.clock.pass_(days=7, seconds=1)
    index(home.folder, "news", READERS, home.clock.now())
    index(home.folder, "ramadan", MEMBERS, home.clock.now())
    later = await asked(home, X_Mailing="m5", body="5")
    assert later.asks_writer


async def test_a_retry_asks_no_second_time(home: House) -> None:
    first = copy(home, *READERS[:10], Message_ID="<1@a>")
    intake = home.intake()
    done = await intake(first, FakePassage())
    again = await intake(copy(home, *READERS[:10], Message_ID="<1@a>"), FakePassage())
    assert isinstance(done, Held)
    assert isinstance(again, Held)
    assert again.hold_id == done.hold_id
    assert await notified(home) == [("confirm", ANNA)]


@on_sqlite
async def test_a_withdrawal_notifies_only_the_writer(home: House) -> None:
    hold = await asked(home)
    done = await home.approvals().withdraw(hold.hold_id, sender=ANNA, by="test")
    assert done.hold.state is State.WITHDRAWN
    assert {who for _, who in await notified(home)} == {ANNA}
    assert await releases(home) == 0


async def test_a_freeze_delays_a_confirmed_message(home: House) -> None:
    hold = await asked(home)
    await home.freeze()
    done = await confirm(home, hold)
    assert done.held_up
    assert await releases(home) == 0
    await home.thaw()
    assert await releases(home) == 1


@on_sqlite
async def test_while_frozen_mail_is_held_without_a_question(home: House) -> None:
    await home.freeze()
    hold = await asked(home)
    assert hold.verdict.action is Action.HOLD
    assert not hold.asks_writer


@on_sqlite
async def test_an_observing_rule_asks_no_question(home: House) -> None:
    await put(home, RULES.replace("then: confirm", "then: confirm\n    mode: observe"))
    done = await send(home, *READERS[:10])
    assert isinstance(done, Relayed)


@on_sqlite
async def test_an_observing_policy_asks_no_question(home: House) -> None:
    await home.put(
        {**documents(), "policy.yaml": documents()["policy.yaml"].replace(b"enforce: true", b"enforce: false")}
    )
    await home.follow()
    transaction = copy(home, *READERS[:10])
    assert isinstance(await home.intake()(transaction, FakePassage()), Relayed)
    (_, data), *_ = await home.events(transaction.id)
    assert (data["action"], data["observed"]) == ("relay", ["to-several"])


@on_sqlite
async def test_a_list_that_becomes_special_is_not_confirmed(home: House) -> None:
    hold = await asked(home)
    policy = documents()["policy.yaml"].replace(
        b"    title: News\n", b"    title: News\n    sensitivity: special-category\n"
    )
    await home.put({**documents(), "policy.yaml": policy})
    await home.follow()
    with pytest.raises(Conflict, match="alone"):
        await confirm(home, hold)


def letter(home: House, n: int, **more: Any) -> Any:
    return copy(home, READERS[n], **{"X_Looks": "unclear", "X_Mailing": f"letter {n}", "body": f"Dear {n}"} | more)


@on_sqlite
async def test_letters_of_one_writer_are_one_question_and_keep_counting(home: House) -> None:
    """The tenth first contact within an hour asks the writer. At the fourteenth a rule holds all that wait."""
    intake = home.intake()
    done = [await intake(letter(home, n), FakePassage()) for n in range(13)]
    assert [isinstance(one, Relayed) for one in done] == [True] * 9 + [False] * 4
    [hold] = await waiting(home)
    assert (hold.asks_writer, hold.copies, hold.reach) == (True, 3, 4)
    await intake(letter(home, 13), FakePassage())
    [hold] = await waiting(home)
    assert (hold.asks_writer, hold.copies) == (False, 4)
    assert {h.rule for h in hold.verdict.hits} == {"new-customers", "very-many-new-customers"}


async def test_confirmed_letters_are_released_without_resetting_the_count(home: House) -> None:
    """An approval resets the counts of a rule, a confirmation does not: at the fourteenth the rule holds. Until then
    the writer is not asked again."""
    intake = home.intake()
    for n in range(12):
        await intake(letter(home, n), FakePassage())
    [hold] = await waiting(home)
    assert hold.reach == 3
    await confirm(home, hold)
    assert await releases(home) == 3
    passed = letter(home, 12)
    assert isinstance(await intake(passed, FakePassage()), Relayed)
    (_, data), *_ = await home.events(passed.id)
    assert (data["approved"], data["decided"]) == (["new-customers"], ["mailing.confirmed"])
    assert isinstance(await intake(letter(home, 13), FakePassage()), Held)
    [second] = await waiting(home)
    assert not second.asks_writer, "the fourteenth in the hour: confirmed letters still count"
    assert isinstance(await intake(letter(home, 9, body="Once more"), FakePassage()), Relayed), (
        "no first contact any more"
    )
    other = letter(home, 40, sender=ULF, session={"auth_user": ULF})
    assert isinstance(await intake(other, FakePassage()), Relayed)


@on_sqlite
async def test_confirmed_letters_are_asked_about_again_after_a_week(home: House) -> None:
    intake = home.intake()
    for n in range(10):
        await intake(letter(home, n), FakePassage())
    await confirm(home, (await waiting(home))[0])
    assert isinstance(await intake(letter(home, 10, session={}), FakePassage()), Held)
    [unproven] = await waiting(home)
    assert not unproven.asks_writer
    await home.approvals().withdraw(unproven.hold_id, sender=ANNA, by="test")
    home.clock.pass_(days=7, seconds=1)
    for name, people in (("news", READERS), ("ramadan", MEMBERS)):
        index(home.folder, name, people, home.clock.now())
    for n in range(20, 30):
        await intake(letter(home, n), FakePassage())
    [again] = await waiting(home)
    assert again.asks_writer


@on_sqlite
async def test_recipients_of_a_withdrawn_letter_stay_first_contacts(home: House) -> None:
    intake = home.intake()
    for n in range(10):
        await intake(letter(home, n), FakePassage())
    [hold] = await waiting(home)
    await home.approvals().withdraw(hold.hold_id, sender=ANNA, by="test")
    assert isinstance(await intake(letter(home, 9, body="Once more"), FakePassage()), Held)


@on_sqlite
async def test_copies_beyond_the_limit_are_deferred_and_the_writer_is_asked(home: House) -> None:
    await put(home, RULES.replace(">= 30", ">= 300"))
    home.term = type(home.term)(copies=3)
    intake = home.intake()
    done = [await intake(copy(home, reader), FakePassage()) for reader in READERS[:12]]
    assert sum(isinstance(one, Deferred) for one in done) == 4
    [hold] = await waiting(home)
    assert hold.asks_writer


@on_sqlite
async def test_what_differs_from_a_confirmed_mailing_is_not_called_approved(home: House) -> None:
    await put(home, RULES.replace(">= 30", ">= 300"))
    for reader in READERS[:7]:
        await send(home, reader)
    await send(home, READERS[7], body="Another offer with other words. " * 9)
    [lead] = await waiting(home)
    seen = replace(Seen.of(lead), under=2)
    await home.approvals().confirm(lead.hold_id, writer=ANNA, by="test", people=lead.reach, seen=seen)
    [other] = await waiting(home)
    assert not other.confirmed
    home.clock.pass_(seconds=2)
    [first, *_] = [i.data for i in await home.outbox() if i.data.get("differs")]
    assert first["confirmed"]


@on_sqlite
async def test_a_copy_that_came_after_a_confirmation_was_reopened_was_not_confirmed(home: House) -> None:
    """It follows the approvers, and is not listed as released on its writer's confirmation alone."""
    await put(home, RULES.replace(">= 30", ">= 300"))
    for reader in READERS[:6]:
        await send(home, reader)
    [lead] = await waiting(home)
    await confirm(home, lead)
    await Mailings(home.store, home, home.clock).reopen(lead.mailing_id, approver=EVA, by="test")
    home.clock.pass_(seconds=60)
    late = await send(home, READERS[6])
    assert isinstance(late, Held)
    await home.approve(lead.hold_id, EVA)
    found = [await home.hold(id) for id in (lead.hold_id, late.hold_id)]
    assert [(one.state, one.confirmed, one.asks_writer) for one in found] == [(State.APPROVED, False, False)] * 2


@on_sqlite
async def test_a_writer_does_not_confirm_for_whom_the_list_has_got_since(home: House) -> None:
    index(home.folder, "news", READERS[:20])
    home.in_force = home.build(documents())
    hold = await asked(home, NEWS)
    index(home.folder, "news", READERS)
    home.clock.pass_(minutes=1)
    with pytest.raises(Conflict, match="its list has grown"):
        await confirm(home, hold)
    assert await releases(home) == 0
    again = await home.hold(hold.hold_id)
    assert (again.state, again.reach) == (State.WAITING, 60)
    await confirm(home, again)
    assert await releases(home) == 1


@on_sqlite
async def test_a_confirmation_ends_for_a_list_that_grew_before_its_post_was_sent(home: House) -> None:
    index(home.folder, "news", READERS[:20])
    home.in_force = home.build(documents())
    hold = await confirm(home, await asked(home, NEWS))
    index(home.folder, "news", READERS)
    home.clock.pass_(minutes=1)
    assert not await home.approvals().still_agreed(hold)
    for who in (ANNA, EVA):
        told = str(await notice_text(home, hold, "lapsed", who))
        assert "What its writer confirmed no longer counts, and nothing was sent: more people or lists" in told
