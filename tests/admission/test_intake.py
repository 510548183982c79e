"""The intake with a real store: the story, ordinary mail, and failures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from smtpguard.holds.model import Hold, State
from smtpguard.journal.chain import utc_text
from smtpguard.mail.message import parse_header
from smtpguard.mail.reply import INTERNAL_ERROR
from smtpguard.mail.trace import trusted
from smtpguard.mailings.model import PeopleCounts
from smtpguard.notices.noticedata import UNSAID
from smtpguard.policy.verdict import Deferred, Held, Rejected, Relayed
from smtpguard.reading.request import Depth
from tests.app.twoguards import STAFF, documents, sample
from tests.guard.house import DOCUMENTS, KEY, MEMBERS, RAMADAN, FakePassage, House, house, index

NEWCOMER = "new@example.net"


async def test_internal_mail_to_a_list_is_held_and_approvers_are_notified(home: House) -> None:
    transaction = home.transaction(RAMADAN)
    way = FakePassage()
    done = await home.intake()(transaction, way)
    assert done == Held(hold_id=transaction.id)
    assert not way.sent
    assert way.abandoned == 1
    hold = await home.hold(transaction.id)
    assert hold.acknowledged
    assert hold.state is State.WAITING
    assert hold.sender == "anna@example.com"
    assert hold.lists == ("ramadan",)
    assert hold.reach == len(MEMBERS)
    assert hold.verdict.quorum[0].groups == ("communications", "compliance")
    assert (await home.store.contents.load(hold.content_sha256)).raw[:] == transaction.message.raw
    [(kind, data)] = await home.events(transaction.id)
    assert kind == "verdict"
    assert data["action"] == "hold"
    assert data["rules"] == ["internal-to-list", "internal-to-many-customers", "not-a-writer"]
    assert data["hold"] == transaction.id
    kinds = sorted((i.data["notice"], str(i.recipients[0].address)) for i in await home.outbox())
    assert kinds == [
        ("approve", "dpo@example.com"),
        ("approve", "eva@example.com"),
        ("approve", "omar@example.com"),
        ("held", "anna@example.com"),
    ]


async def test_ordinary_mail_is_relayed(home: House) -> None:
    transaction = home.transaction(MEMBERS[0], "ulf@example.com")
    way = FakePassage(message=transaction.message.raw[:])
    done = await home.intake()(transaction, way)
    assert isinstance(done, Relayed)
    [sent] = way.sent
    assert sent.endswith(transaction.message.raw[:])
    header = parse_header(sent)
    assert [f.name for f in header.fields][:2] == ["Received", "X-Smtpguard"]
    assert trusted(header, KEY) is not None
    kinds = [k for k, _ in await home.settled(transaction.id)]
    assert kinds == ["verdict", "outcome"]
    assert await home.store.holds.find(transaction.id) is None


async def test_mail_to_a_list_of_colleagues_counts_for_no_customers(tmp_path: Path) -> None:
    policy = sample()
    policy["rules"] = [{"id": "busy", "when": {"sender.customers": ">= 2 in 1h"}, "then": "hold"}]
    index(tmp_path / "indexes", "staff", [f"colleague{n}@example.com" for n in range(30)])
    async with house(tmp_path, documents=documents(policy)) as home:
        for n, to in enumerate((STAFF, MEMBERS[0])):
            assert isinstance(await home.send(to, body=str(n)), Relayed)
        assert isinstance(await home.send(RAMADAN), Held)


async def test_a_login_with_another_from_each_time_is_one_sender(tmp_path: Path) -> None:
    """A From that nothing proves counts for the login too; one that is proven counts by itself."""
    policy = sample()
    policy["rules"] = [{"id": "busy", "when": {"sender.customers": ">= 2 in 1h"}, "then": "hold"}]
    async with house(tmp_path, documents=documents(policy)) as home:
        anna: dict[str, Any] = {"session": {"auth_user": "anna@example.com"}}
        assert isinstance(await home.send(MEMBERS[0], sender="a@example.com", **anna), Relayed)
        assert isinstance(await home.send(MEMBERS[1], sender="b@example.com", body="b", **anna), Held)
        assert isinstance(await home.send(MEMBERS[1], sender="anna@example.com", body="c", **anna), Held)
        for n in range(2):
            verified = {"senders_verified": True, "auth_user": "gateway"}
            one: dict[str, Any] = {"sender": f"c{n}@example.com", "body": f"{n}", "session": verified}
            assert isinstance(await home.send(MEMBERS[n], **one), Relayed)


async def test_a_login_that_proves_several_addresses_is_one_sender(tmp_path: Path) -> None:
    policy = sample()
    policy["organization"]["domains"] += ["*.example.com"]
    policy["rules"] = [{"id": "busy", "when": {"sender.customers": ">= 2 in 1h"}, "then": "hold"}]
    async with house(tmp_path, documents=documents(policy)) as home:
        for n, done in enumerate((Relayed, Held)):
            login: dict[str, Any] = {"auth_user": "anna"}
            sent = await home.send(MEMBERS[n], sender=f"anna@host{n}.example.com", body=f"{n}", session=login)
            assert isinstance(sent, done)


@pytest.mark.parametrize(("mta_login", "passes"), [(True, True), (False, False)])
async def test_the_login_of_the_mta_in_front_makes_no_first_contacts(
    tmp_path: Path, mta_login: bool, passes: bool
) -> None:
    """All who write through an MTA that logs in and verifies senders are not one sender; all names under one person's
    login are."""
    policy = sample()
    policy["rules"] = [{"id": "new", "when": {"sender.first_contacts": ">= 2 in 1d"}, "then": "hold"}]
    session = {"senders_verified": True, "auth_user": "gateway@example.com", "mta_login": mta_login}
    async with house(tmp_path, documents=documents(policy)) as home:
        await home.send(MEMBERS[0], sender="anna@example.com", body="a", session=session)
        done = await home.send(MEMBERS[1], sender="bo@example.com", body="b", session=session)
        assert isinstance(done, Relayed) is passes


async def test_the_journal_has_no_names_in_clear(home: House) -> None:
    hold_id = (await home.held(RAMADAN, Subject="A secret subject")).hold_id
    told = await home.store.journal.history(hold_id)
    assert told
    for entry, clear in told:
        assert "anna" not in entry.body
        assert "secret subject" not in entry.body
        assert clear is not None
        assert clear["subject"] == ["A secret subject"]
        assert clear["recipients"] == [RAMADAN]


async def test_the_lists_writer_passes_with_the_lists_signature(home: House) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    campaign = {"sender": "campaigns@example.com", "X_Looks": "mailing"}
    assert isinstance(await home.send(RAMADAN, **campaign), Relayed)
    home.verifier.domains = frozenset({"elsewhere.example"})
    assert isinstance(await home.send(RAMADAN, **campaign, body="other"), Held)


async def test_text_and_origin_are_read_only_if_a_rule_needs_them(home: House) -> None:
    await home.send("ulf@example.com")
    assert Depth.TEXT not in home.reader.asked
    assert home.verifier.asked == 0


async def test_a_rejection_gives_the_reason_and_notifies_the_sender(home: House) -> None:
    transaction = home.transaction(RAMADAN, X_Labels="contract")
    way = FakePassage()
    done = await home.intake()(transaction, way)
    assert isinstance(done, Rejected)
    assert done.reply.code == 550
    assert done.reply.lines == (
        f"5.7.1 This message was not sent. Contracts never go to a list. Its reference is {transaction.id}.",
    )
    assert way.abandoned == 1
    [intent] = await home.outbox()
    assert intent.data["notice"] == "rejected"
    assert str(intent.recipients[0].address) == "anna@example.com"


@pytest.mark.parametrize(
    "how",
    [
        {"reverse_path": ""},
        {"Auto_Submitted": "auto-replied (vacation)"},
        {"Auto_Submitted": "(vacation) auto-replied"},
        {"X_Autoreply": "yes"},
        {"X_Autoreply_From": "anna@example.com"},
        {"Precedence": "auto_reply"},
    ],
)
async def test_automatic_mail_to_a_list_is_rejected(home: House, how: dict[str, Any]) -> None:
    done = await home.send(RAMADAN, **how)
    assert isinstance(done, Rejected)
    assert await home.outbox() == []


async def test_automatic_mail_to_others_is_relayed(home: House) -> None:
    done = await home.intake()(
        home.transaction(MEMBERS[0], reverse_path="", Auto_Submitted="auto-replied"), FakePassage()
    )
    assert isinstance(done, Relayed)


async def test_an_observing_policy_holds_nothing(home: House) -> None:
    observing = DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"].replace(b"enforce: true", b"enforce: false")}
    await home.put(observing)
    transaction = home.transaction(RAMADAN, reverse_path="")
    assert isinstance(await home.intake()(transaction, FakePassage()), Deferred | Relayed)
    await home.watch.read()
    transaction = home.transaction(RAMADAN, reverse_path="", body="again")
    assert isinstance(await home.intake()(transaction, FakePassage()), Relayed)
    (_, data), *_ = await home.events(transaction.id)
    assert data["rules"] == []
    assert "automatic-to-list" in data["observed"]


# -- retries


async def test_a_retry_of_held_mail_gets_the_same_hold(home: House) -> None:
    first = await home.send(RAMADAN)
    told = {i.intent_id for i in await home.outbox()}
    again = await home.send(RAMADAN)
    assert again == first
    assert len(await home.store.holds.newest()) == 1
    home.clock.pass_(minutes=1)
    assert {i.intent_id for i in await home.outbox()} == told


async def test_a_retry_adopts_a_void_hold(home: House) -> None:
    gone = home.transaction(RAMADAN)
    done = await home.intake()(gone, FakePassage())
    assert isinstance(done, Held)
    home.clock.pass_(hours=1)
    await home.store.holds.change(done.hold_id, lambda h: _voided(h))
    again = await home.send(RAMADAN)
    assert again == done
    hold = await home.hold(done.hold_id)
    assert hold.state is State.WAITING
    assert [k for k, _ in await home.events(done.hold_id)] == ["verdict", "adopted"]


async def test_an_adopted_hold_has_the_people_of_its_retry(home: House) -> None:
    """The list has changed while its client had it: nobody stays held once it is approved."""
    first = await home.held()
    await home.store.holds.change(first.hold_id, lambda h: _voided(h))
    index(home.folder, "ramadan", [*MEMBERS, "new@example.net"])
    home.clock.pass_(minutes=1)
    home.in_force.registry.reopen()
    assert (await home.held()).hold_id == first.hold_id
    await home.approve(first.hold_id)
    (mailing,) = await home.store.mailings.newest()
    assert mailing.people == PeopleCounts(admitted=61)


async def newcomer_retried(home: House, first: Hold) -> None:
    """Its client got a 451, and its recipient has joined the list before the retry."""
    await home.store.holds.change(first.hold_id, lambda h: _voided(h))
    index(home.folder, "ramadan", [*MEMBERS, NEWCOMER])
    home.clock.pass_(minutes=1)
    home.in_force.registry.reopen()
    assert (await home.held(NEWCOMER, To="all@example.com")).hold_id == first.hold_id


async def test_an_adopted_hold_is_of_the_mailing_of_its_retry(home: House) -> None:
    """Once it is approved, nobody waits for a decision on the mailing."""
    await home.freeze()
    first = await home.held(NEWCOMER, To="all@example.com")
    assert first.mailing_id == ""
    await newcomer_retried(home, first)
    (mailing,) = await home.store.mailings.newest()
    assert ((await home.hold(first.hold_id)).mailing_id, mailing.entry) == (mailing.mailing_id, first.hold_id)
    assert mailing.subject == first.subject
    await home.approve(first.hold_id)
    (mailing,) = await home.store.mailings.newest()
    assert mailing.entry == ""


@pytest.mark.parametrize("alone", [True, False])
async def test_those_whom_the_list_of_its_retry_asks_decide_on_an_adopted_hold(home: House, alone: bool) -> None:
    """It waits by itself, or under the first hold of its mailing."""
    index(home.folder, "news", ["di@example.net"])
    home.in_force.registry.reopen()
    await home.freeze()
    first = await home.held(NEWCOMER, To="all@example.com")
    lead = first if alone else await home.held("di@example.net", To="all@example.com")
    await newcomer_retried(home, first)
    assert (await home.hold(first.hold_id)).primary == ("" if alone else lead.hold_id)
    waits = await home.hold(lead.hold_id)
    assert ("ramadan" in waits.lists, waits.copies) == (True, 0 if alone else 1)
    await home.approve(lead.hold_id, "eva@example.com")
    assert (await home.hold(first.hold_id)).state is State.WAITING
    await home.approve(lead.hold_id, "dpo@example.com")
    assert (await home.hold(first.hold_id)).state is State.APPROVED


async def test_an_adopted_hold_is_for_all_whom_its_retry_is_held_for(home: House) -> None:
    """Its colleagues would have got it at once; then a freeze stops all."""
    to = ["bo@example.com", *MEMBERS[:25]]
    first = await home.held(*to, To=", ".join(to))
    assert first.part
    await home.store.holds.change(first.hold_id, lambda h: _voided(h))
    await home.freeze()
    again = await home.held(*to, To=", ".join(to))
    assert (again.hold_id, len(again.envelope.recipients)) == (first.hold_id, 26)
    assert not again.part


async def test_an_adopted_hold_has_the_time_of_a_new_one(home: House) -> None:
    """Its client kept it for longer than people have to decide."""
    done = await home.send(RAMADAN)
    assert isinstance(done, Held)
    home.clock.pass_(minutes=16)
    await home.store.holds.change(done.hold_id, lambda h: _voided(h))
    home.clock.pass_(days=4)
    await home.watch.read()
    await home.send(RAMADAN)
    hold = await home.hold(done.hold_id)
    assert hold.expires_at == home.term.expires_at(None, home.in_force, home.clock.now())
    assert await home.approvals().sweep() == 0
    told = [i.data for i in await home.outbox() if i.hold_id == hold.hold_id]
    assert {data["expires_at"] for data in told} == {utc_text(hold.expires_at)}
    assert sorted(data["notice"] for data in told) == ["approve"] * 3 + ["held"]


async def test_the_same_mail_after_a_decision_gets_a_new_hold(home: House) -> None:
    first = await home.send(RAMADAN)
    assert isinstance(first, Held)
    await home.approvals().withdraw(first.hold_id, sender="anna@example.com", by="root")
    again = await home.send(RAMADAN)
    assert isinstance(again, Held)
    assert again != first


# -- scope: customers


async def test_colleagues_get_theirs_while_the_customers_part_waits(home: House) -> None:
    home.clock.at = home.clock.at.replace(minute=1)
    to = ["ulf@example.com", *MEMBERS[:25], "ida@example.com"]
    transaction = home.transaction(*to, To=", ".join(to))
    done = await home.intake()(transaction, FakePassage())
    assert isinstance(done, Held)
    hold = await home.hold(done.hold_id)
    assert [str(a) for a in hold.envelope.addresses] == MEMBERS[:25]
    assert hold.reach == 25, "the colleagues have it already"
    [mailing] = await home.store.mailings.newest()
    assert (mailing.people.held, mailing.out) == (25, 2)
    [part] = [i for i in await home.outbox() if i.kind.value == "part"]
    assert [str(r.address) for r in part.recipients] == ["ulf@example.com", "ida@example.com"]
    assert part.content_sha256 == transaction.message.sha256
    # a retry of the whole envelope gets the same hold
    again = await home.send(*to, To=", ".join(to))
    assert again == done


# -- streams


async def test_a_stream_above_its_limit_is_deferred(home: House) -> None:
    home.verifier.domains = frozenset({"shop.example.com"})
    receipt = {"sender": "noreply@example.com", "session": {"client_ip": "10.1.2.3"}, "X_Looks": "unclear"}

    async def send(n: int, to: str) -> object:
        transaction = home.transaction(to, Message_ID=f"<{n}@shop>", body=f"{n}", **receipt)
        return await home.intake()(transaction, FakePassage())

    assert isinstance(await send(1, MEMBERS[0]), Relayed)
    assert isinstance(await send(2, MEMBERS[0]), Relayed)
    third = await send(3, MEMBERS[0])  # the third to one person in a day
    assert isinstance(third, Deferred)
    assert third.reply.code == 451
    assert isinstance(await send(4, MEMBERS[1]), Relayed)
    assert isinstance(await send(5, MEMBERS[2]), Deferred)  # the fourth in an hour
    home.clock.pass_(hours=2)
    await home.watch.read()
    assert isinstance(await send(6, MEMBERS[2]), Relayed)


# -- failures


async def test_after_a_policy_change_the_message_is_judged_again(home: House) -> None:
    stricter = DOCUMENTS | {
        "policy.yaml": DOCUMENTS["policy.yaml"]
        + b"  - {id: nobody, description: Nobody writes to Ulf, when: {recipients.total: '>= 1'}, then: reject}\n"
    }
    await home.put(stricter)  # in force, but not yet known to the process
    done = await home.send("ulf@example.com")
    assert isinstance(done, Rejected)


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("description: Nobody writes to Ulf, ", "Nobody writes to Ulf."),
        ("description: {sv: Ingen skriver till Ulf, en: Nobody writes to Ulf!}, ", "Nobody writes to Ulf!"),
        ("description: {sv: Ingen skriver till Ulf}, ", "Its From is a colleague's. It has one recipient."),
        ("description: Ingen får skriva till Ulf, ", "Its From is a colleague's. It has one recipient."),
        ("", "Its From is a colleague's. It has one recipient."),
    ],
)
async def test_a_reply_gives_the_rules_description_or_what_it_found(home: House, description: str, said: str) -> None:
    rule = f"  - {{id: nobody, {description}when: {{sender.internal: true, recipients.total: any}}, then: reject}}\n"
    await home.put(DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"] + rule.encode()})
    done = await home.send("ulf@example.com")
    assert isinstance(done, Rejected)
    assert done.reply.text.startswith(f"5.7.1 This message was not sent. {said} Its reference is ")


async def test_a_reply_does_not_name_a_sensitive_topic(home: House) -> None:
    rule = "  - {id: no-pork, description: No pork for them, when: {message.unsuitable_topics: any}, then: reject}\n"
    await home.put(DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"] + rule.encode()})
    await home.follow()
    done = await home.send(MEMBERS[0], X_Topics="pork")
    assert isinstance(done, Rejected)
    assert UNSAID in done.reply.text
    assert "pork" not in done.reply.text
    assert "words" not in done.reply.text
    done = await home.send(RAMADAN, X_Topics="pork")
    assert isinstance(done, Rejected)
    assert "No pork for them." in done.reply.text


async def test_a_list_lookup_that_fails_defers(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def classify(_: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(home.in_force.registry, "classify", classify)
    way = FakePassage()
    transaction = home.transaction("ulf@example.com")
    assert await home.intake()(transaction, way) == Deferred(reply=INTERNAL_ERROR, undecided=True)
    assert not way.sent
    [(kind, data)] = await home.settled(transaction.id)
    assert (kind, data["action"], data["failure"]) == ("verdict", "defer", "OSError")


async def test_unreadable_text_is_held_only_if_sent_to_a_list(home: House) -> None:
    home.reader.text_fails = RuntimeError("cannot")
    assert isinstance(await home.send(RAMADAN), Held)
    assert isinstance(await home.send("ulf@example.com"), Relayed)


async def test_an_unreadable_header_defers_if_a_rule_could_reject(home: House) -> None:
    home.reader.fails = RuntimeError("cannot")
    done = await home.send(RAMADAN)
    assert isinstance(done, Deferred)
    assert done.reply.code == 451


async def test_a_hanging_reader_times_out_and_the_mail_is_held(home: House) -> None:
    home.reader.text_fails = None
    home.reader.hangs = True
    home.gather = type(home.gather)(
        reader=home.reader, verifier=home.verifier, trace_key=KEY, read_seconds=0.01, verify_seconds=0.01
    )
    assert isinstance(await home.send(RAMADAN), Held)


# -- the client


async def test_a_disconnected_client_is_not_admitted(home: House) -> None:
    transaction = home.transaction(RAMADAN, gone=lambda: True)
    way = FakePassage()
    assert isinstance(await home.intake()(transaction, way), Deferred)
    assert await home.events(transaction.id) == []
    assert way.abandoned == 1


async def test_draining_waits_for_messages_being_decided(home: House) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    intake = home.intake()
    call = asyncio.create_task(intake(home.transaction("ulf@example.com"), FakePassage(before_dot=wait)))
    await reached.wait()
    draining = asyncio.create_task(intake.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    go_on.set()
    await draining
    assert isinstance(await call, Relayed)


def _voided(hold: Any) -> Any:
    from dataclasses import replace

    from smtpguard.holds.model import Change

    return Change(hold=replace(hold, state=State.VOID))
