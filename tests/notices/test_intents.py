"""Who gets which notice: never too many, never for the wrong people, nothing lost in a flood."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from smtpguard.holds.model import Change, Choice, Confirmation
from smtpguard.holds.questions import Questions
from smtpguard.journal.chain import utc_text
from smtpguard.lists.index import index_path
from smtpguard.locale.phrase import Phrase
from smtpguard.notices.intents import MOST_WORDS, Flood, Notices
from smtpguard.notices.noticedata import UNSAID, approvers, nameable
from smtpguard.notices.render import fill_digest as fill
from smtpguard.outbox.model import Intent
from smtpguard.policy.verdict import Deferred, Relayed
from smtpguard.reading.marks import Mark, Side
from tests.clocks import MONDAY
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN, FakePassage, House, house

COMMON = {"notice", "hold_id", "turn", "subject", "message_id", "from", "language", "recipients", "reach", "reach_at_least",
          "lists", "sensitive", "summary", "part", "test", "correction", "writer"}  # fmt: skip
WAITING = {"held_at", "expires_at", "deciders", "nobody"}
ASKS = {"bound", "may_approve"}
KEYS = {
    "held": COMMON | WAITING | {"reasons", "marks", "more_marks"},
    "approve": COMMON
    | WAITING
    | ASKS
    | {"reasons", "marks", "more_marks", "excerpt", "recipients_shown", "covers", "senders"},
    "decided": COMMON | {"outcome", "by", "comment", "decided_at", "voters", "stages"},
    "expired": COMMON | {"held_at", "expired_at", "deciders", "unconfirmed"},
    "reminder": COMMON | WAITING | ASKS | {"percent"},
    "escalation": COMMON | WAITING | {"contact", "away", "decides"},
    "rejected": COMMON | {"at", "reasons", "marks", "more_marks"},
    "digest": COMMON | {"role", "since", "until", "person"},
    "stream": COMMON | {"stream", "limit", "window_minutes", "per_person", "at"},
    "owner-digest": COMMON | {"list", "list_name", "first", "since", "until", "person"},
}


async def too_many_receipts(home: House, first: int = 0) -> None:
    home.verifier.domains = frozenset({"shop.example.com"})
    receipt = {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}, "X_Looks": "unclear"}
    for n in range(first, first + 5):
        to = f"customer{n}@example.net"
        transaction = home.transaction(to, Message_ID=f"<{n}@shop>", body=f"receipt {n}", **receipt)
        assert isinstance(await home.intake()(transaction, FakePassage()), Relayed if n < first + 3 else Deferred)


async def waiting(home: House) -> list[Intent]:
    """All intents in the outbox, due or not."""
    at = home.clock.at
    home.clock.at += timedelta(days=30)
    found = await home.outbox()
    home.clock.at = at
    return found


def address(intent: Intent) -> str:
    [recipient] = intent.recipients
    assert intent.reverse_path is None
    assert recipient.notify == "NEVER"
    return str(recipient.address)


async def test_a_notice_names_lists_and_others(home: House) -> None:
    await home.held(RAMADAN, "someone@elsewhere.example")
    for notice in ("held", "approve"):
        intent = next(each for each in await home.outbox() if each.data["notice"] == notice)
        assert intent.data["lists"] == ["Ramadan greetings", "other addresses"]


async def test_every_notice_has_the_data_of_its_table(home: House) -> None:
    home.notices = Notices(flood=Flood(singly=100))
    hold = await home.held()
    await home.held(sender="x@example.org", body="2")
    await home.send(RAMADAN, X_Labels="contract")
    await home.approvals().vote(hold.hold_id, Choice.REJECT, approver="eva@example.com", by="root")
    await too_many_receipts(home)
    late = await home.held(body="3")
    home.clock.pass_(hours=14)
    await home.approvals().sweep()
    await home.expire(late.hold_id)
    home.notices = Notices(flood=Flood(singly=0))
    await home.watch.read()
    await home.held(body="4")
    seen = {}
    for intent in await waiting(home):
        seen[intent.data["notice"]] = set(intent.data)
        assert set(intent.data) == KEYS[intent.data["notice"]] | ({"reasons"} if intent.data["writer"] else set())
    assert set(seen) == set(KEYS)


async def test_the_data_of_the_writers_notice(home: House) -> None:
    await home.held()
    [told] = [i for i in await waiting(home) if i.data["notice"] == "held"]
    data = told.data
    assert address(told) == "anna@example.com"
    assert told.hold_id == data["hold_id"]
    assert data["reach"] == 60
    assert data["lists"] == ["Ramadan greetings"]
    assert data["marks"][0] == 'the subject begins with "SV:"'
    assert data["reasons"][0]["rule"] == "internal-to-list"
    assert data["reasons"][0]["sentences"]
    assert data["held_at"] == "2026-03-02T09:00:00Z"
    assert data["deciders"] == [
        {
            "each": 1,
            "groups": [
                {
                    "group": "communications",
                    "people": ["eva@example.com", "omar@example.com"],
                    "short": False,
                    "own": False,
                },
                {"group": "compliance", "people": ["dpo@example.com"], "short": False, "own": False},
            ],
            "out_of_hours": {
                "each": 1,
                "groups": [{"group": "duty", "people": ["duty@example.com"], "short": False, "own": False}],
                "out_of_hours": None,
            },
        }
    ]


async def by_its_writer(home: House, policy: str, contact: str) -> list[Intent]:
    """All notices, two hours after the only member of compliance has written to the list."""
    home.notices = Notices(contact=contact)
    await home.put(DOCUMENTS | {"policy.yaml": policy.encode()})
    await home.follow()
    await home.held(sender="dpo@example.com", reverse_path="dpo@example.com")
    home.clock.pass_(hours=2)
    await home.approvals().sweep()
    return await waiting(home)


async def test_a_hold_that_only_its_writer_could_decide_alerts_the_contact(home: House) -> None:
    policy = DOCUMENTS["policy.yaml"].decode().replace("duty: [duty@example.com]", "duty: [dpo@example.com]")
    told = await by_its_writer(home, policy, "it@example.com")
    [own] = [i.data for i in told if i.data["notice"] == "held"]
    assert own["nobody"] is True
    groups = own["deciders"][0]["groups"]
    assert groups[0]["short"] is False
    assert groups[1] == {"group": "compliance", "people": [], "short": True, "own": True}
    [contact] = [
        i for i in told if address(i) == "it@example.com"
    ]  # only once, although the hold was unanswered for an hour
    assert (contact.data["notice"], contact.data["contact"], contact.data["nobody"]) == ("escalation", True, True)
    assert [
        i.data["contact"] for i in told if address(i) == "omar@example.com" and i.data["notice"] == "escalation"
    ] == [False]


async def test_many_undecidable_holds_alert_the_contact_a_few_times(home: House) -> None:
    policy = DOCUMENTS["policy.yaml"].decode().replace("duty: [duty@example.com]", "duty: [dpo@example.com]")
    home.notices = Notices(contact="it@example.com")
    await home.put(DOCUMENTS | {"policy.yaml": policy.encode()})
    await home.follow()
    for n in range(6):
        await home.held(sender="dpo@example.com", reverse_path="dpo@example.com", body=f"Number {n}")
    assert [i.data["notice"] for i in await waiting(home) if address(i) == "it@example.com"] == ["escalation"] * 3


async def test_a_decidable_hold_does_not_alert_the_contact(home: House) -> None:
    """The contact gets nothing if somebody else can decide: the duty group stands in for compliance out of hours."""
    told = await by_its_writer(home, DOCUMENTS["policy.yaml"].decode(), "it@example.com")
    assert {i.data["nobody"] for i in told if i.data["notice"] == "held"} == {False}
    assert "it@example.com" not in {address(i) for i in told}


async def test_without_a_contact_only_the_notices_say_so(home: House) -> None:
    policy = DOCUMENTS["policy.yaml"].decode().replace("duty: [duty@example.com]", "duty: [dpo@example.com]")
    told = await by_its_writer(home, policy, "")
    assert {i.data["nobody"] for i in told if i.data["notice"] == "held"} == {True}


async def test_without_the_text_an_approver_gets_no_word_of_it(home: House) -> None:
    policy = DOCUMENTS["policy.yaml"].replace(
        b"approvals: {from: [communications]}\n",
        b"approvals: {from: [communications]}\npreviews: {compliance: reasons, communications: full}\n",
    )
    await home.put({**DOCUMENTS, "policy.yaml": policy})
    await home.follow()
    await home.held(X_Topics="pork")
    told = {address(i): i.data for i in await waiting(home) if i.data["notice"] == "approve"}
    eva, dpo = told["eva@example.com"], told["dpo@example.com"]
    assert eva["excerpt"]
    assert 'the subject begins with "SV:"' in eva["marks"]
    assert dpo["excerpt"] == ""
    assert 'the subject begins with "SV:"' in dpo["marks"], "it is in the field above"
    assert '"…" (pork, in the text)' in dpo["marks"]
    assert not any("bacon" in mark for mark in dpo["marks"])


async def test_topics_that_single_recipients_avoid_are_not_named(home: House) -> None:
    """Topics are left out of notices about single people: from rule descriptions, observed values and marks (GDPR, Art.
    9)."""
    rule = "  - {id: no-pork, description: No pork for them, when: {message.unsuitable_topics: any}, then: hold}\n"
    await home.put(DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"] + rule.encode()})
    await home.follow()
    await home.held(MEMBERS[0], X_Topics="pork")
    told = [i.data for i in await waiting(home) if i.data["notice"] in ("held", "approve")]
    assert len(told) > 1
    for data in told:
        assert UNSAID in [s for reason in data["reasons"] for s in reason["sentences"]]
        assert 'the subject begins with "SV:"' in data["marks"]
        said = str({k: v for k, v in data.items() if k != "excerpt"})
        assert not [word for word in ("pork", "bacon", "Some of its words") if word in said]
    await home.held(X_Topics="pork", body="2")
    [to_list] = [i.data for i in await waiting(home) if i.data["notice"] == "held" and i.data["lists"]]
    assert "No pork for them" in [reason["description"] for reason in to_list["reasons"]]


MARKS = tuple(
    Mark(name=f"mark-{n}", side=Side.INTERNAL, weight=9 - n / 10, evidence=Phrase(f"mark {n}")) for n in range(30)
)


async def test_deciding_marks_come_first(home: House) -> None:
    """Marks that decide come first in notices to writer and approvers, and the number of omitted marks is given."""
    home.reader.marks = (
        *MARKS,
        Mark(name="label", side=Side.INTERNAL, weight=2.5, evidence=Phrase('it is labelled "Confidential"')),
        Mark(
            name="placeholder",
            side=Side.MAILING,
            weight=2.5,
            evidence=Phrase('a field of a template is left unfilled: "{{name}}"'),
        ),
    )
    await home.held(X_Topics="alcohol pork")
    told = [i.data for i in await waiting(home) if i.data["notice"] in ("held", "approve")]
    assert len(told) == 4
    for data in told:
        assert data["marks"][:4] == [
            '"bacon" (pork, in the text)',  # topics that the list is to be spared
            '"bacon" (alcohol, in the text)',
            'a field of a template is left unfilled: "{{name}}"',
            'it is labelled "Confidential"',
        ]
        assert data["more_marks"] == len(home.reader.marks) + 2 - len(data["marks"])
        assert data["sensitive"] == [{"list": "Ramadan greetings", "category": "religion"}]


async def test_a_sensitive_list_is_named_only_if_addressed(home: House) -> None:
    await home.held(*MEMBERS[:30], To="undisclosed-recipients:;")
    told = await waiting(home)
    assert told
    assert [intent.data["sensitive"] for intent in told] == [[]] * len(told)


async def test_a_list_is_not_named_for_a_single_member(home: House) -> None:
    """A list is not named because a recipient is on it: that is private, above all to approvers of other lists."""
    await home.held(*MEMBERS[:30], To="undisclosed-recipients:;")
    told = await waiting(home)
    assert told
    for intent in told:
        assert intent.data["lists"] == []
        assert "amadan" not in str({k: v for k, v in intent.data.items() if k != "excerpt"})


async def test_outsiders_the_reverse_path_and_recipients_get_no_notice(home: House) -> None:
    home.notices = Notices(flood=Flood(singly=100))
    for more in (
        {"sender": "x@example.org"},
        {"sender": "x@example.org", "session": {"auth_user": "y@example.org"}},
        {"Auto_Submitted": "auto-generated"},
        {"sender": RAMADAN},
    ):
        await home.held(body=str(more), **more)
    told = {address(i) for i in await waiting(home)}
    assert told == {"eva@example.com", "omar@example.com", "dpo@example.com"}


async def test_a_digest_asks_for_no_vote_that_is_not_missing(tmp_path: Path) -> None:
    """It is approved and can be undone, or another address of the person voted, or its writer is asked first."""
    aliases = b"hours: {zone: UTC}, aliases: {dpo@example.com: [d.berg@example.com]}}"
    policy = (
        DOCUMENTS["policy.yaml"]
        .replace(b"hours: {zone: UTC}}", aliases)
        .replace(b"[dpo@", b"[d.berg@example.com, dpo@")
    )
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": policy}) as home:
        home.term = replace(home.term, release_delay_seconds=900)
        home.notices = Notices(flood=Flood(singly=0))
        approved, voted, asked, _ = [await home.held(body=str(n)) for n in range(4)]
        await home.approve(approved.hold_id)
        await home.approvals().vote(voted.hold_id, Choice.APPROVE, approver="d.berg@example.com", by="test")
        confirm = Confirmation(writer="anna@example.com", until=MONDAY + timedelta(hours=4), expires=False)
        await home.store.holds.change(asked.hold_id, lambda found: Change(hold=replace(found, confirm=confirm)))
        window = {"since": utc_text(MONDAY), "until": utc_text(MONDAY + timedelta(minutes=10))}
        for person, undecided in (("dpo@example.com", 1), ("omar@example.com", 2)):
            data = {"notice": "digest", "role": "approver", "person": person} | window
            found = await fill(home.store, data, home.in_force)
            assert (found["total"], found["undecided"]) == (4, undecided), person
            assert found["states"] == {"waiting": 3, "leaving": 1}
            assert [line["state"] for line in found["messages"]].count("leaving") == 1


async def test_a_person_under_several_addresses_gets_one_notice(tmp_path: Path) -> None:
    """Whoever decides in two groups under two addresses is asked, and told, once: at the first of them."""
    aliases = b"hours: {zone: UTC}, aliases: {eva@example.com: [e.berg@example.com]}}"
    previews = b"approvals: {from: [communications]}\npreviews: {compliance: reasons, communications: full}\n"
    policy = (
        DOCUMENTS["policy.yaml"]
        .replace(b"hours: {zone: UTC}}", aliases)
        .replace(b"[dpo@", b"[e.berg@example.com, dpo@")
        .replace(b"approvals: {from: [communications]}\n", previews)
    )
    async with house(tmp_path, documents={**DOCUMENTS, "policy.yaml": policy}) as home:
        hold = await home.held()
        assert {"e.berg@example.com", "eva@example.com"} < set(approvers(hold, home.in_force, MONDAY))
        others = ["dpo@example.com", "omar@example.com"]
        asked = [address(i) for i in await waiting(home) if i.data["notice"] == "approve"]
        assert sorted(asked) == ["dpo@example.com", "e.berg@example.com", "omar@example.com"]
        notices = home.notices.at(home.in_force, MONDAY)
        escalated = [address(i) for i in notices.escalation(hold)]
        assert "eva@example.com" not in escalated, "each kind goes to the same address"
        await home.approvals().vote(hold.hold_id, Choice.REJECT, approver="eva@example.com", by="test")
        told = [address(i) for i in await waiting(home) if i.data["notice"] == "decided"]
        assert sorted(told) == ["anna@example.com", *others], "nobody is told of their own decision"


async def test_holds_without_a_notified_writer_are_in_the_owners_digest(home: House) -> None:
    for n in range(5):
        await home.held(sender="tool@example.org", body=str(n))
    digests = [i for i in await waiting(home) if i.data["notice"] == "owner-digest"]
    [digest] = digests
    assert address(digest) == "omar@example.com"
    assert digest.not_before == MONDAY + timedelta(hours=1, minutes=1)
    data = await fill(home.store, digest.data, home.in_force)
    assert data["total"] == 5
    assert data["states"] == {"waiting": 5}
    assert len(data["messages"]) == 5
    assert data["messages"][0]["lists"] == ["Ramadan greetings"]


async def test_rejections_without_a_notified_writer_are_in_the_owners_digest(home: House) -> None:
    intake = home.intake()
    for n in range(3):
        await intake(
            home.transaction(RAMADAN, reverse_path="", body=str(n), Subject=f"Out of office {n}"), FakePassage()
        )
    await intake(home.transaction(RAMADAN, X_Labels="contract", body="hers to hear of"), FakePassage())
    await intake(home.transaction("news@lists.example.com", reverse_path="", body="another list's"), FakePassage())
    await home.held(sender="tool@example.org", body="held")
    digests = {i.data["list_name"]: i for i in await waiting(home) if i.data["notice"] == "owner-digest"}
    data = await fill(home.store, digests["ramadan"].data, home.in_force)
    assert data["states"] == {"waiting": 1, "rejected": 3}
    assert data["total"] == 4
    subjects = [m["subject"] for m in data["messages"]]
    assert subjects == ["SV: lunch", "Out of office 0", "Out of office 1", "Out of office 2"]
    assert set(data["messages"][0]) == set(data["messages"][1])
    assert data["refused"] == 3, "a rejected message was never held"
    assert data["messages"][0]["reasons"][0]["description"] == "Mail between colleagues never goes to a customer list"
    assert data["messages"][1]["hold_id"] is None


async def test_the_digest_gives_a_minimum_if_a_list_has_no_index(home: House) -> None:
    index_path(home.folder, "ramadan").unlink()
    home.in_force = home.build(DOCUMENTS)
    await home.send(RAMADAN, reverse_path="", Subject="Out of office")
    [digest] = [i for i in await waiting(home) if i.data["notice"] == "owner-digest"]
    [line] = (await fill(home.store, digest.data, home.in_force))["messages"]
    assert (line["reach"], line["reach_at_least"]) == (1, True)


async def test_many_holds_make_few_notices_and_one_digest_each(home: House) -> None:
    intake = home.intake()
    await asyncio.gather(*(intake(home.transaction(RAMADAN, body=str(n)), FakePassage()) for n in range(200)))
    told = Counter((address(i), i.data["notice"]) for i in await waiting(home))
    assert told.pop(("anna@example.com", "held")) == 3
    assert told.pop(("anna@example.com", "digest")) == 1
    for who in ("eva@example.com", "omar@example.com", "dpo@example.com"):
        assert told.pop((who, "approve")) == 3
        assert told.pop((who, "digest")) == 1
    assert not told
    for digest in (i for i in await waiting(home) if i.data["notice"] == "digest"):
        data = await fill(home.store, digest.data, home.in_force)
        assert data["total"] == 200  # all are counted, those with a notice of their own too
        assert len(data["messages"]) == 50


async def test_an_approvers_digest_counts_holds_that_need_them(home: House) -> None:
    """An approver's digest counts what waits for that approver: of a quorum of two, an approved hold waits only for the
    other."""
    holds = [await home.held(body=str(n)) for n in range(5)]
    for hold, choice in zip(holds, (Choice.APPROVE, Choice.APPROVE, Choice.REJECT), strict=False):
        await home.approvals().vote(hold.hold_id, choice, approver="eva@example.com", by="test")
    window = {"since": "2026-03-02T09:00:00Z", "until": "2026-03-02T09:10:00Z"}
    data = {"notice": "digest", "role": "approver", **window}
    for who, undecided in (("eva@example.com", 2), ("dpo@example.com", 4)):
        found = await fill(home.store, data | {"person": who}, home.in_force)
        assert (found["undecided"], found["states"]) == (undecided, {"waiting": 4, "rejected": 1})


async def test_another_process_adds_no_second_digest(home: House) -> None:
    for _ in range(2):
        home.notices = Notices(flood=Flood(singly=0))  # another process, without the first one's memory
        for n in range(3):
            await home.held(body=f"{n} {id(home.notices)}")
    told = Counter((address(i), i.data["notice"]) for i in await waiting(home))
    assert set(told.values()) == {1}


async def test_a_digest_has_what_a_slower_clock_adds_to_its_window(home: House) -> None:
    home.notices = Notices(flood=Flood(singly=0))
    await home.held(body="first")
    home.clock.at += timedelta(minutes=10)
    sent = [one.intent.data["notice"] for one in await home.store.outbox.lease("p", 100, 0)]
    home.clock.at -= timedelta(seconds=2)  # of another host
    await home.held(body="last")
    assert "digest" not in sent
    digest = next(one for one in await waiting(home) if one.data["notice"] == "digest")
    assert (await fill(home.store, digest.data, home.in_force))["total"] == 2


async def test_after_the_window_notices_are_single_again() -> None:
    flood = Flood(singly=1, window=timedelta(minutes=10))
    assert [flood.sends_singly("a", MONDAY), flood.sends_singly("a", MONDAY), flood.sends_singly("b", MONDAY)] == [
        True,
        False,
        True,
    ]
    assert flood.sends_singly("a", MONDAY + timedelta(minutes=10))
    assert len(flood._sent) == 1


async def test_a_digest_covers_its_window_and_person(home: House) -> None:
    await home.held(body="before")
    home.clock.at += timedelta(minutes=20)
    await home.watch.read()
    mine = await home.held(body="within")
    await home.held(body="another's", sender="ida@example.com", reverse_path="ida@example.com")
    data = {"notice": "digest", "role": "sender", "person": "Anna@example.com"}
    window = {"since": "2026-03-02T09:20:00Z", "until": "2026-03-02T09:30:00Z"}
    found = await fill(home.store, data | window, home.in_force)
    assert [m["hold_id"] for m in found["messages"]] == [mine.hold_id]


async def test_digests_page_through_many_at_one_moment(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpguard.notices.render.PAGE", 3)
    for n in range(8):
        await home.held(body=str(n))
    data = {"notice": "digest", "role": "sender", "person": "anna@example.com",
            "since": "2026-03-02T09:00:00Z", "until": "2026-03-02T09:10:00Z"}  # fmt: skip
    assert (await fill(home.store, data, home.in_force))["total"] == 8


async def test_approvers_are_chosen_by_time_and_exclude_the_writer(home: House) -> None:
    hold = await home.held()
    assert approvers(hold, home.in_force, MONDAY) == ["dpo@example.com", "eva@example.com", "omar@example.com"]
    night = MONDAY + timedelta(hours=14)
    assert "duty@example.com" in approvers(hold, home.in_force, night)
    own = replace(hold, senders=frozenset({"eva@example.com"}))
    assert "eva@example.com" not in approvers(own, home.in_force, MONDAY)


async def test_only_addressed_lists_are_named(home: House) -> None:
    hold = await home.held(RAMADAN, "news@lists.example.com", MEMBERS[0])
    assert nameable(hold, home.in_force) == ["Ramadan greetings", "News"]


async def test_peoples_own_words_are_sent_singly_within_reason(home: House) -> None:
    """Nobody else has them; and nobody gets hundreds of mails from one who repeats them."""
    hold = await home.held()
    home.clock.pass_(hours=1)
    ids = itertools.count()
    questions = Questions(home.store, home, home.clock, new_id=lambda: f"Q{next(ids)}")
    for n in range(MOST_WORDS + 5):
        await questions.plead(hold.hold_id, f"Please, {n}", sender="anna@example.com", by="test")
    told = Counter((address(i), i.data["notice"]) for i in await waiting(home) if i.data["notice"] != "approve")
    assert told["eva@example.com", "plea"] == MOST_WORDS
    [rest] = [i for i in await waiting(home) if i.data["notice"] == "digest" and address(i) == "eva@example.com"]
    assert (await fill(home.store, rest.data, home.in_force))["undecided"] == 1


async def test_an_expiry_says_who_had_not_answered(home: House) -> None:
    """Once others decide, it was not its writer alone."""
    hold = await home.held()
    for lapsed_at, unconfirmed in ((None, True), (MONDAY, False)):
        asked = Confirmation(writer="anna@example.com", until=MONDAY, expires=True, lapsed_at=lapsed_at)
        [told] = home.notices.at(home.in_force, MONDAY).expired(replace(hold, confirm=asked))
        assert told.data["unconfirmed"] is unconfirmed


async def test_a_subject_is_data(home: House) -> None:
    await home.held(Subject="=?utf-8?q?x=0D=0ABcc:_y?=")
    subjects = [intent.data["subject"] for intent in await waiting(home)]
    assert subjects
    assert not {"\r", "\n"} & set("".join(subjects))


async def test_a_streams_owner_is_notified_once_a_window(home: House) -> None:
    await too_many_receipts(home)
    [told] = [i for i in await waiting(home) if i.data["notice"] == "stream"]
    assert address(told) == "eva@example.com"
    assert (told.data["stream"], told.data["limit"], told.data["window_minutes"]) == ("receipts", 3, 60)
    home.notices = Notices()  # another process: its own journal entry, but the same notice
    await too_many(home)
    assert len([i for i in await waiting(home) if i.data["notice"] == "stream"]) == 1
    assert [data["count"] for kind, data in await home.events("receipts") if kind == "stream"] == [4, 4]
    home.clock.pass_(hours=2)
    await home.watch.read()
    await too_many_receipts(home, first=10)
    assert len([i for i in await waiting(home) if i.data["notice"] == "stream"]) == 2


async def too_many(home: House) -> None:
    receipt = {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}, "X_Looks": "unclear"}
    done = await home.send("customer9@example.net", body="another", **receipt)
    assert isinstance(done, Deferred)


async def test_a_stream_without_owner_is_only_journalled(tmp_path: Path) -> None:
    documents = {**DOCUMENTS, "policy.yaml": DOCUMENTS["policy.yaml"].replace(b"    owner: eva@example.com\n", b"")}
    async with house(tmp_path, documents=documents) as home:
        await too_many_receipts(home)
        assert [i for i in await waiting(home) if i.data["notice"] == "stream"] == []
        assert [kind for kind, _ in await home.events("receipts")] == ["stream"]


HOURS_LATER = {"rejected": 4, "escalated": 4, "reminded": 9, "expired": 30}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("rejected", {"anna sender": 5, "dpo approver": 10, "omar approver": 10, "omar ramadan": 5}),
        ("escalated", {"omar approver": 10, "duty owner": 10}),
        ("reminded", {"dpo approver": 10, "eva approver": 10, "omar approver": 10, "duty approver": 10}),
        ("expired", {"anna sender": 5, "omar ramadan": 5}),
    ],
)
async def test_a_digest_has_what_happened_to_earlier_holds(home: House, what: str, expected: dict[str, int]) -> None:
    """Of whatever notice only the first few of a window are sent singly. The digest has the rest."""
    home.term = replace(home.term, working=False)
    holds = []
    for n in range(5):
        holds += [await home.held(body=str(n)), await home.held(body=f"tool {n}", sender="tool@example.org")]
    approvals, hours = home.approvals(), float(HOURS_LATER[what])
    if what == "expired":
        home.clock.pass_(hours=21.6)
        await approvals.sweep()  # with the last reminder
        hours -= 21.6
    home.clock.pass_(hours=hours)
    since = utc_text(home.clock.at)
    if what == "rejected":
        for hold in holds:
            await approvals.vote(hold.hold_id, Choice.REJECT, approver="eva@example.com", by="test", comment="Not so")
    else:
        await approvals.sweep()
    found = {}
    for intent in await waiting(home):
        if intent.data["notice"].endswith("digest") and intent.data["since"] >= since:
            data = await fill(home.store, intent.data, home.in_force)
            name = intent.data.get("role") or intent.data["list_name"]
            found[f"{address(intent).partition('@')[0]} {name}"] = data["total"]
    assert found == expected
