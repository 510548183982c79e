"""Deputies of absent approvers: who is asked, who may decide, and the notice if too few can."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from smtpguard.accounts.model import Account, AccountChange, AccountKeys, Role
from smtpguard.holds.model import Hold, NotEntitled, State, complete
from smtpguard.journal.event import Event, Kind
from smtpguard.notices.intents import Notices
from smtpguard.notices.notice import Notice, NoticeHead, NoticeTemplates
from smtpguard.notices.noticedata import approvers
from smtpguard.policy.approvals import Absence, Groups
from tests.guard.house import DOCUMENTS, House, house

NEWS = "news@lists.example.com"  # one of communications, eva and omar, decides
EVA, OMAR, STEN = "eva@example.com", "omar@example.com", "sten@example.com"


def with_people(text: str, each: int = 1) -> dict[str, bytes]:
    policy = DOCUMENTS["policy.yaml"].replace(
        b"approvals: {from: [communications]}", f"approvals: {{from: [communications], each: {each}}}\n{text}".encode()
    )
    return {**DOCUMENTS, "policy.yaml": policy}


async def held(home: House, sender: str = "anna@example.com") -> Hold:
    return await home.held(NEWS, sender=sender, reverse_path=sender)


async def notices_by_person(home: House, kind: str) -> dict[str, dict[str, Any]]:
    return {str(i.recipients[0].address): dict(i.data) for i in await home.outbox() if i.data.get("notice") == kind}


def text_of(raw: bytes) -> str:
    part = message_from_bytes(raw, policy=default).get_body(("plain",))
    assert part is not None
    text: str = part.get_content()
    return text


async def test_the_deputy_of_an_absent_approver_is_asked(tmp_path: Path) -> None:
    documents = with_people("people: {eva: {away: 2026-03-02..2026-03-06, deputy: sten@example.com}}")
    async with house(tmp_path, documents=documents) as home:
        hold = await held(home)
        asked = await notices_by_person(home, "approve")
        assert set(asked) == {OMAR, STEN}
        assert asked[STEN]["in_place_of"] == [{"person": EVA, "until": "2026-03-06"}]
        assert "in_place_of" not in asked[OMAR]
        notice = Notice(
            id="n", to=hold.envelope.recipients[0].address, data=asked[STEN], language="en", at=home.clock.now()
        )
        said = " ".join(text_of(NoticeTemplates(NoticeHead()).render(notice)).split())
        assert "in place of eva@example.com, who is away until 6 March. Together you have one vote." in said
        swedish = Notice(
            id="n", to=hold.envelope.recipients[0].address, data=asked[STEN], language="sv", at=home.clock.now()
        )
        spoken = " ".join(text_of(NoticeTemplates(NoticeHead(languages=("sv",))).render(swedish)).split())
        assert "som är borta till och med 6 mars. Tillsammans" in spoken
        assert "eva@example.com is away until 6 March, and sten@example.com decides for them" in said
        with pytest.raises(NotEntitled):
            await home.approve(hold.hold_id, "dpo@example.com")
        done = await home.approve(hold.hold_id, STEN)
        assert done.hold.state is State.APPROVED
        home.clock.at = datetime(2026, 3, 7, 0, 0, tzinfo=UTC)
        assert approvers(hold, home.in_force, home.clock.now()) == [EVA, OMAR]


async def test_a_deputy_cannot_decide_on_own_mail_or_the_absents(tmp_path: Path) -> None:
    documents = with_people("people: {eva: {away: 2026-03-02, deputy: sten@example.com}}")
    async with house(tmp_path, documents=documents) as home:
        for writer, asked in ((EVA, [OMAR]), (STEN, [EVA, OMAR])):
            hold = await held(home, writer)
            assert approvers(hold, home.in_force, home.clock.now()) == asked
            with pytest.raises(NotEntitled):
                await home.approve(hold.hold_id, STEN)


async def test_the_contact_is_notified_at_once_if_too_few_can_decide(tmp_path: Path) -> None:
    """The contact gets a notice at once if two have to decide and the only deputy is one of them: together they have
    one vote."""
    documents = with_people("people: {eva: {away: 2026-03-02, deputy: omar}}", each=2)
    async with house(tmp_path, documents=documents) as home:
        home.notices = Notices(contact="it@example.com")
        hold = await held(home)
        assert (await notices_by_person(home, "escalation"))["it@example.com"]["away"] is True
        done = await home.approve(hold.hold_id, OMAR)
        assert done.hold.state is State.WAITING
        done = await home.approve(hold.hold_id, EVA)
        assert done.hold.state is State.WAITING, "one vote"


async def test_a_declared_absence_overrides_the_policys(tmp_path: Path) -> None:
    documents = with_people(
        "people: {eva: {away: [2026-03-02..2026-03-06, 2026-07-01..2026-07-31], deputy: sten@example.com}}"
    )
    async with house(tmp_path, documents=documents) as home:
        await home.put(documents)
        before = (await home.store.gate.read()).generation

        async def say(**more: Any) -> Groups:
            event = Event(kind=Kind.ABSENCE, id="E", at=home.clock.now(), private={"account": (EVA,)})
            made = Absence(person=EVA, since=date(2026, 3, 2), until=date(2026, 3, 4), **more)
            await home.store.people.change_absence(EVA, lambda said: (made, event))
            return (await home.follow()).groups

        def asked(groups: Groups, month: int, day: int) -> str:
            return groups.deputy(EVA, datetime(2026, month, day, 12, tzinfo=UTC), ["communications"])

        groups = await say(deputy=OMAR)
        assert [asked(groups, 3, 2), asked(groups, 3, 5), asked(groups, 7, 1)] == [OMAR, "", STEN]
        groups = await say(deputy="dpo@example.com")
        assert asked(groups, 3, 2) == "", "of none of her groups, until an admin agrees"
        groups = await say(deputy="dpo@example.com", confirmed=True)
        assert asked(groups, 3, 2) == "dpo@example.com"
        groups = await say(ended=home.clock.now())
        assert groups.away(EVA, home.clock.now()) is None
        assert (await home.store.gate.read()).generation == before + 4, "every process reads it again"
        assert (await home.store.journal.verify()).ok


async def test_an_agreed_deputy_decides_as_long_as_their_account_does(tmp_path: Path) -> None:
    """Of a deputy whom the policy names, no account is asked."""
    documents = with_people("people: {omar: {away: 2026-03-02, deputy: sten@example.com}}", each=2)
    async with house(tmp_path, documents=documents) as home:
        await home.put(documents)
        people, now = home.store.people, home.clock.now()
        event = Event(kind=Kind.ABSENCE, id="E", at=now, private={"account": (EVA,)})
        made = Absence(person=EVA, since=now.date(), until=now.date(), deputy="ulla@example.com", confirmed=True)
        await people.change_absence(EVA, lambda said: (made, event))
        ulla = Account(account_id="U", address="ulla@example.com", created_at=now, roles=(Role.APPROVER,))

        async def has(account: Account, *, deletes: bool = False) -> Groups:
            before = (await home.store.gate.read()).generation
            await people.turn(
                AccountKeys(account_id="U"), lambda found: AccountChange(account=account, deletes=deletes)
            )
            assert (await home.store.gate.read()).generation == before + 1, "every process reads it again"
            return (await home.follow()).groups

        assert (await home.follow()).groups.present("communications", now) == {STEN}
        await has(ulla)
        hold = await held(home)
        assert set(await notices_by_person(home, "approve")) == {"ulla@example.com", STEN}
        await home.approve(hold.hold_id, "ulla@example.com")
        for gone in (await has(replace(ulla, disabled=True)), await has(ulla) and await has(ulla, deletes=True)):
            assert gone.present("communications", now) == {STEN}
            with pytest.raises(NotEntitled):
                await home.approve((await held(home)).hold_id, "ulla@example.com")
        assert (await home.approve(hold.hold_id, STEN)).hold.state is State.WAITING, "their vote counts no more"
        assert await has(ulla)
        assert complete(await home.hold(hold.hold_id), home.in_force.groups, home.in_force.hours.open_at)
        assert (await home.store.journal.verify()).ok


def test_whether_one_person_decides_takes_no_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page asks it of each approver, for each of its messages and each group."""
    people = frozenset(f"p{n}@example.com" for n in range(100))
    groups = Groups(people={"board": people, "press": people})
    looked: list[str] = []

    def addresses(_: Groups, person: str) -> frozenset[str]:
        looked.append(person)
        return frozenset({person})

    monkeypatch.setattr(Groups, "addresses", addresses)
    assert groups.of_person("p1@example.com", datetime(2026, 3, 2, tzinfo=UTC)) == {"board", "press"}
    assert set(looked) == {"p1@example.com"}


def test_a_deputy_has_no_further_seat_in_their_own_groups() -> None:
    """A list of what waits would ask for each group again, once for each absent colleague."""
    absence = Absence(person=EVA, since=date(2026, 3, 1), until=date(2026, 3, 9), deputy=OMAR, confirmed=True)
    people = {"communications": frozenset({EVA, OMAR}), "board": frozenset({EVA})}
    groups, at = Groups(people=people, absences=(absence,)), datetime(2026, 3, 2, tzinfo=UTC)
    assert [tuple(map(set, seat)) for seat in groups.seats(OMAR, at)] == [
        ({"communications"}, set()),
        ({"board"}, {EVA}),
    ]
    assert groups.decides(OMAR, {"communications"}, at, {EVA}), "as a member"
    assert not groups.decides(OMAR, {"board"}, at, {EVA})
