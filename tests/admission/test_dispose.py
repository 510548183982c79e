"""Carrying out a verdict to relay: the relay's own answer, a lost relay, a client that disconnects, and the fence
before the final dot."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from smtpguard.database.errors import Unavailable
from smtpguard.mail.envelope import Lost
from smtpguard.mail.message import Message
from smtpguard.mail.reply import RECALLED, RELAY_LOST, Reply
from smtpguard.policy.facts import Unknown
from smtpguard.policy.freezing import Gate, Selector
from smtpguard.policy.verdict import Deferred, Held, Relayed
from smtpguard.reading.looks import Reading
from smtpguard.reading.request import Depth
from tests.admission.ways import home as home
from tests.guard.house import DOCUMENTS, RAMADAN, FakePassage, House
from tests.guard.sources import FakeReader


async def test_a_refusal_of_the_relay_is_passed_on(home: House) -> None:
    refusal = Reply(554, ("5.7.1 no",))
    transaction = home.transaction("ulf@example.com")
    assert await home.intake()(transaction, FakePassage(replies=(refusal,))) == Relayed(replies=(refusal,))
    assert [d.get("outcome") for _, d in await home.settled(transaction.id)] == [None, "refused"]


async def test_a_reply_is_journalled_without_addresses(home: House) -> None:
    transaction = home.transaction("ulf@example.com")
    await home.intake()(
        transaction, FakePassage(replies=(Reply(550, ("5.1.1 <ulf@example.com>: no such user", "5.1.1 ulf unknown")),))
    )
    _, (_, outcome) = await home.settled(transaction.id)
    assert outcome["replies"] == ["550 5.1.1 <...>: no such user ... unknown"]


async def test_a_relay_lost_before_the_final_dot_defers(home: House) -> None:
    transaction = home.transaction("ulf@example.com")
    done = await home.intake()(transaction, FakePassage(raises=Lost(Reply(451, ("4.4.2 lost",)))))
    assert isinstance(done, Deferred)
    assert [d.get("outcome") for _, d in await home.settled(transaction.id)] == [None, "lost"]


@pytest.mark.parametrize("error", [Lost(RELAY_LOST, after_dot=True), RuntimeError("a fault on the way")])
async def test_lost_after_the_dot_is_in_doubt_and_a_retry_to_a_list_is_held(home: House, error: Exception) -> None:
    home.verifier.domains = frozenset({"campaigns.example.com"})
    campaign = {"sender": "campaigns@example.com", "X_Looks": "mailing"}
    transaction = home.transaction(RAMADAN, **campaign)
    done = await home.intake()(transaction, FakePassage(raises=error))
    assert done == Deferred(reply=RELAY_LOST)
    assert [k for k, _ in await home.settled(transaction.id)] == ["verdict", "in-doubt"]
    again = await home.send(RAMADAN, **campaign)
    assert isinstance(again, Held)
    hold = await home.hold(again.hold_id)
    assert [h.rule for h in hold.verdict.hits] == ["in-doubt-retry"]
    assert hold.verdict.quorum
    said = " ".join(reason.public for hit in hold.verdict.hits for reason in hit.reasons)
    assert "60 people may have got it already." in said
    assert "had got it" not in said


async def test_a_retry_in_doubt_without_a_list_is_relayed(home: House) -> None:
    lost = Lost(RELAY_LOST, after_dot=True)
    await home.intake()(home.transaction("ulf@example.com"), FakePassage(raises=lost))
    assert isinstance(await home.send("ulf@example.com"), Relayed)


# -- the client


async def test_a_client_that_disconnects_gets_nothing_sent(home: House) -> None:
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True

    transaction = home.transaction("ulf@example.com", gone=lambda: gone)
    way = FakePassage(before_dot=leave)
    await home.intake()(transaction, way)
    assert not way.sent
    assert [d.get("outcome") for _, d in await home.settled(transaction.id)] == [None, "gone"]


async def test_a_cancelled_call_sends_nothing_and_is_in_doubt(home: House) -> None:
    reached = asyncio.Event()
    go_on = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    intake = home.intake()
    transaction = home.transaction("ulf@example.com")
    way = FakePassage(before_dot=wait)
    call = asyncio.create_task(intake(transaction, way))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await intake.drain()
    assert not way.sent
    assert [d.get("outcome") for _, d in await home.settled(transaction.id)] == [None, "in-doubt"]


# -- freezes


async def test_a_freeze_not_read_yet_holds_mail(home: House) -> None:
    await home.freeze(seen=False)
    transaction = home.transaction("ulf@example.com")
    assert await home.intake()(transaction, FakePassage()) == Held(hold_id=transaction.id)


async def test_a_freeze_before_the_final_dot_recalls(home: House) -> None:
    transaction = home.transaction("ulf@example.com")
    way = FakePassage(before_dot=lambda: home.freeze(Selector.SENDER, "anna@example.com"))
    done = await home.intake()(transaction, way)
    assert done == Held(hold_id=transaction.id)
    assert not way.sent
    events = await home.settled(transaction.id)
    assert [(k, d.get("outcome") or d.get("action")) for k, d in events] == [
        ("verdict", "relay"),
        ("outcome", "recalled"),
        ("verdict", "hold"),
    ]


async def test_mail_is_known_as_a_copy_of_a_mailing_that_is_frozen_while_it_is_read(home: House) -> None:
    """Nothing else asks for the text of mail to a colleague."""
    mailing = (await home.held(X_Mailing="m")).mailing_id

    class Slow(FakeReader):
        async def apart(self, message: Message, depth: Depth) -> Reading | Unknown:
            if depth is Depth.HEADERS:
                await home.freeze(Selector.MAILING, mailing)
            return await super().apart(message, depth)

    home.gather = replace(home.gather, reader=Slow())
    assert isinstance(await home.send("ulf@example.com", X_Mailing="m"), Held)


async def test_a_freeze_of_another_sender_recalls_nothing(home: House) -> None:
    way = FakePassage(before_dot=lambda: home.freeze(Selector.SENDER, "someone-else@example.com"))
    assert isinstance(await home.intake()(home.transaction("ulf@example.com"), way), Relayed)


async def test_an_unreadable_gate_recalls(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        async def read(self) -> Gate:
            raise Unavailable

    def lost() -> None:
        home.clock.pass_(seconds=1)
        monkeypatch.setattr(home.watch, "gates", Away())

    way = FakePassage(before_dot=lost)
    transaction = home.transaction("ulf@example.com")
    assert await home.intake()(transaction, way) == Deferred(reply=RECALLED)
    assert not way.sent
    assert way.abandoned == 0  # the recall has dropped the connection


async def test_a_stale_gate_is_read_again_before_the_final_dot(home: House) -> None:
    way = FakePassage(before_dot=lambda: home.clock.pass_(seconds=60))
    assert isinstance(await home.intake()(home.transaction("ulf@example.com"), way), Relayed)


async def test_a_new_policy_before_the_final_dot_recalls(home: House) -> None:
    moved = DOCUMENTS | {"policy.yaml": DOCUMENTS["policy.yaml"] + b"# another\n"}

    async def move() -> None:
        await home.put(moved)
        await home.watch.read()

    way = FakePassage(before_dot=move)
    assert await home.intake()(home.transaction("ulf@example.com"), way) == Deferred(reply=RECALLED)
    assert not way.sent


async def test_the_entry_records_the_session(home: House) -> None:
    """The journal entry has the session: digests, listener, TLS and duration in the chain, names in the erasable part."""
    session = {"listener": "inside", "peer": "127.0.0.1", "ident": "4bXyz", "tls": True, "auth_user": "anna"}
    transaction = home.transaction("x@example.org", session=session, Message_ID="<1@desk.example>")
    way = FakePassage()
    await home.intake()(transaction, way)
    await home.settled(transaction.id)
    [(entry, clear), (outcome, _)] = await home.store.journal.history(transaction.id)
    assert (entry.data["listener"], entry.data["peer"], entry.data["tls"]) == ("inside", "127.0.0.1", True)
    assert "seconds" not in entry.data
    assert outcome.data["seconds"] == 0
    assert clear is not None
    said = {role: tuple(clear[role]) for role in ("message_id", "ident", "helo", "actor")}
    assert said == {
        "message_id": ("<1@desk.example>",), "ident": ("4bXyz",), "helo": ("mx.example.com",), "actor": ("anna",),
    }  # fmt: skip
    assert not any(word in entry.body for word in ("desk.example", "4bXyz", "mx.example.com", "anna"))
