"""The reception and an MTA of the tests, back to back: every disposition, many messages, limits, and how it ends."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpguard.mail import reply
from smtpguard.mail.transaction import Lost, Onward, Recalled, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Relayed
from smtpguard.wire.listener import Limits
from smtpguard.wire.milter.codec import encode
from smtpguard.wire.milter.packet import (
    Accept,
    Body,
    Connect,
    Discard,
    EndOfMessage,
    Family,
    Helo,
    InsertHeader,
    Macros,
    Mail,
    Negotiate,
    Rcpt,
    SmtpReply,
)
from tests.wire.milter.mta import OLD, POSTFIX
from tests.wire.milter.speaking import Decide, Served, Speaking, pass_on, served
from tests.wire.proxied import files_in, until

MAIL = b"From: Anna <anna@example.com>\r\nSubject: x\r\n\r\nHej\r\n"


@pytest.fixture
async def world(tmp_path: Path):
    async with served(tmp_path) as made:
        yield made


def always(disposition: Disposition) -> Decide:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return disposition

    return decide


class TestDispositions:
    async def test_relayed(self, world: Served) -> None:
        speaking = await (await world.connect()).begin()
        told = await speaking.send(MAIL)
        assert told.accepted
        # Received is the MTA's own to write; a value comes with its leading space, and with LF where it is folded
        assert told.inserted == [InsertHeader(0, b"X-Smtpguard", b" id=1; policy=;\n\tmac=0")]
        assert world.seen[0].message.raw == MAIL

    async def test_what_is_noted_of_it_names_the_queue(self, tmp_path: Path) -> None:
        noted: list[Disposition] = []

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            noted.append(await pass_on(transaction, onward))
            return noted[-1]

        async with served(tmp_path, decide) as world:
            await (await (await world.connect()).begin()).send(MAIL)
        [done] = noted
        assert isinstance(done, Relayed)
        assert [str(said) for said in done.replies] == ["250 2.0.0 In the queue of mx.example as 4QUEUE"]

    async def test_held(self, tmp_path: Path) -> None:
        async with served(tmp_path, always(Held(hold_id="H"))) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.answer == Discard()

    async def test_rejected_with_a_percent_sign_and_lines(self, tmp_path: Path) -> None:
        said = reply.Reply.of(550, "5.7.1", "Not sent: 100 % of the list.", "See https://guard.example/%41")
        async with served(tmp_path, always(Rejected(reply=said))) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.answer == SmtpReply(said)

    async def test_deferred(self, tmp_path: Path) -> None:
        async with served(tmp_path, always(Deferred(reply=reply.BUSY))) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.reply == "451 4.3.2 Busy, try again later"

    @pytest.mark.parametrize(
        ("raised", "said"),
        [
            (Recalled(), "451 4.7.1"),
            (Lost(reply.RELAY_LOST), "451 4.4.2"),
            (RuntimeError("a secret"), "451 4.3.0 Temporary failure here, try again later"),
        ],
    )
    async def test_an_error_is_a_451_and_the_connection_goes_on(
        self, tmp_path: Path, raised: Exception, said: str
    ) -> None:
        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            if len(world.seen) == 1:
                raise raised
            return await pass_on(transaction, onward)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            assert (await speaking.send(MAIL)).reply.startswith(said)
            assert (await speaking.send(MAIL)).accepted

    async def test_relayed_without_a_word_is_no_acceptance(self, tmp_path: Path) -> None:
        async with served(tmp_path, always(Relayed(replies=(reply.OK,)))) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.reply.startswith("451")

    async def test_after_accept_nothing_else_is_said(self, tmp_path: Path) -> None:
        """Whatever fails behind it: the MTA has its answer, and would take a second one for that to its next message."""

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            await pass_on(transaction, onward)
            return Deferred(reply=reply.INTERNAL_ERROR)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            assert (await speaking.send(MAIL)).accepted
            assert (await speaking.send(MAIL)).accepted

    async def test_a_fence_that_fell(self, tmp_path: Path) -> None:
        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            with pytest.raises(Recalled):
                await onward.send(b"", lambda: False)
            return Deferred(reply=reply.RECALLED)

        async with served(tmp_path, decide) as world:
            told = await (await (await world.connect()).begin()).send(MAIL)
        assert told.reply.startswith("451 4.7.1")
        assert not told.inserted

    async def test_the_rest_goes_on_without_those_who_wait(self, tmp_path: Path) -> None:
        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            taken = transaction.envelope.recipients[1:]
            assert transaction.pass_rest is not None
            await transaction.pass_rest(b"X-Smtpguard: x\r\n", lambda: True, taken)
            return Held(hold_id="H", taken=taken)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            told = await speaking.send(
                MAIL, b"<bo@example.com>", b"<ramadan@lists.example.com> NOTIFY=NEVER", b"<@relay:C@example.org>",
                b"<C@example.org>",
            )  # fmt: skip
        assert told.accepted
        assert told.deleted == [b"<ramadan@lists.example.com>", b"<@relay:C@example.org>", b"<C@example.org>"]


class TestConversations:
    @pytest.mark.parametrize("offer", [POSTFIX, OLD], ids=["quiet", "waiting"])
    async def test_many_messages_of_many_clients(self, world: Served, offer: Negotiate) -> None:
        speaking = await world.connect(offer)
        await speaking.run(speaking.mta.negotiate())
        for client in (b"192.0.2.1", b"192.0.2.2"):
            await speaking.run(speaking.mta.connect(address=client, helo=b"h-" + client))
            for n in range(3):
                mail = MAIL.replace(b"Hej", b"Hej %d" % n)
                assert (await speaking.send(mail, macros=[(b"{auth_authen}", b"u%d" % n)] if n == 1 else [])).accepted
                await speaking.run(speaking.mta.abort())  # Postfix says so after each
            await speaking.run(speaking.mta.end(another=True))
        assert [t.session.client_ip for t in world.seen] == ["192.0.2.1"] * 3 + ["192.0.2.2"] * 3
        assert [t.session.auth_user for t in world.seen] == [None, "u1", None] * 2, "no login outlives its message"
        assert world.seen[4].session.helo == "h-192.0.2.2"
        assert world.seen[4].message.raw == MAIL.replace(b"Hej", b"Hej 1")
        await speaking.run(speaking.mta.end())
        assert await speaking.closed()

    async def test_a_new_negotiation_begins_anew(self, world: Served) -> None:
        """As Postfix after XCLIENT."""
        speaking = await (await world.connect()).begin(macros=[(b"{tls_version}", b"TLSv1.3")])
        assert (await speaking.send(MAIL)).accepted
        await speaking.begin(address=b"IPv6:2001:db8::7", family=Family.INET6, hello=False)
        assert (await speaking.send(MAIL)).accepted
        first, second = (t.session for t in world.seen)
        assert (first.client_ip, first.tls, first.helo) == ("192.0.2.7", True, "desk.example")
        assert (second.client_ip, second.tls, second.helo) == ("2001:db8::7", False, "")

    async def test_abort_forgets(self, world: Served) -> None:
        speaking = await (await world.connect()).begin()
        for command in (Mail(b"<a@example.com>"), Rcpt(b"<b@example.com>")):
            speaking.say(encode(command))
        await speaking.hear()
        await speaking.run(speaking.mta.abort())
        assert (await speaking.send(MAIL, b"<c@example.com>")).accepted
        [one] = world.seen
        assert [str(a) for a in one.envelope.addresses] == ["c@example.com"]

    async def test_mail_without_abort_begins_anew(self, world: Served) -> None:
        """As Sendmail after a client's RSET. Nothing of the first message is left, no login either."""
        speaking = await (await world.connect()).begin()
        first = (Macros(b"M", ((b"auth_authen", b"eva"),)), Mail(b"<a@example.com>"), Rcpt(b"<b@example.com>"))
        for macros in ([], [(b"{auth_authen}", b"anna")]):
            for command in first:
                speaking.say(encode(command))
            await speaking.hear()
            speaking.say(encode(Mail(b"<c@example.com>")) if not macros else b"")
            assert (await speaking.send(MAIL, b"<d@example.com>", macros=macros)).accepted
        assert [str(t.envelope.addresses[0]) for t in world.seen] == ["d@example.com"] * 2
        assert [t.session.auth_user for t in world.seen] == [None, "anna"]

    @pytest.mark.parametrize(
        "octets",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\x01?",
            b"\xff\xff\xff\xff",
            encode(Mail(b"<a@example.com>")),
            encode(Negotiate(2, 0x1FF, 0x1FFFFF)),
            encode(Negotiate(6, 0, 0x1FFFFF)),
            encode(POSTFIX) + encode(Rcpt(b"<a@example.com>")),
            encode(POSTFIX) + encode(Connect(b"x", Family.UNKNOWN)) + encode(Helo(b"x")) + encode(EndOfMessage()),
        ],
    )
    async def test_what_is_no_protocol_ends_it(
        self, world: Served, octets: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        speaking = await world.connect()
        speaking.say(octets)
        while not await speaking.closed():
            pass
        assert "a milter connection was ended" in caplog.text
        await until(lambda: world.reception.connections == 0)

    async def test_impatience_while_a_message_is_decided_on_is_bounded(self, tmp_path: Path) -> None:
        deciding, go = asyncio.Event(), asyncio.Event()

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            deciding.set()
            await go.wait()
            return await pass_on(transaction, onward)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            sending = asyncio.create_task(speaking.send(MAIL))
            await deciding.wait()
            for _ in range(40):
                speaking.say(encode(Body(b"x" * 65_000)))
                await asyncio.sleep(0)
            with pytest.raises(EOFError):
                await sending
            go.set()


class TestLimits:
    async def test_one_recipient_too_many_is_refused_alone(self, tmp_path: Path) -> None:
        async with served(tmp_path, limits=Limits(recipients=2)) as world:
            told = await (await (await world.connect()).begin()).send(MAIL, b"<a@x.se>", b"<b@x.se>", b"<c@x.se>")
        assert told.accepted
        assert {path: str(said)[:9] for path, said in told.refused.items()} == {b"<c@x.se>": "452 4.5.3"}
        assert len(world.seen[0].envelope.recipients) == 2

    async def test_an_address_that_is_none_is_refused_alone(self, world: Served) -> None:
        told = await (await (await world.connect()).begin()).send(MAIL, b"<a@x.se>", b"<b@-_->")
        assert told.accepted
        assert str(told.refused[b"<b@-_->"]).startswith("501 5.1.3")

    async def test_a_reverse_path_that_is_none_is_told_at_its_recipients(self, world: Served) -> None:
        speaking = await (await world.connect()).begin()
        told = await speaking.send(MAIL, b"<a@x.se>", mail=[b"<a b@@>"])
        assert str(told.refused[b"<a@x.se>"]).startswith("501 5.1.7")
        assert (await speaking.send(MAIL)).accepted

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (MAIL + b"x\r\n" * 1000, "552 5.3.4"),
            (MAIL + b"bare\rreturn\r\n", "550 5.5.2"),
            (MAIL + b"bare\nfeed\r\n", "550 5.5.2"),
            (MAIL + b"nul\0\r\n", "550 5.6.0"),
            (MAIL + b"y" * 1500 + b"\r\n", "500 5.5.2"),
            (b"X: y\r\n" * 200 + MAIL, "552 5.3.4"),
            (b"Received: by x; y\r\n" * 60 + MAIL, "554 5.4.6"),
        ],
    )
    async def test_what_the_proxy_refuses(self, tmp_path: Path, content: bytes, said: str) -> None:
        limits = Limits(message_octets=2000, line_octets=1200, header_octets=1024, header_lines=100)
        if said == "554 5.4.6":
            limits = Limits()
        async with served(tmp_path, limits=limits) as world:
            speaking = await (await world.connect()).begin()
            assert (await speaking.send(content)).reply.startswith(said)
            assert not world.seen
            assert (await speaking.send(MAIL)).accepted

    async def test_a_header_without_end_is_not_kept(self, tmp_path: Path) -> None:
        async with served(tmp_path, limits=Limits(header_octets=10_000, header_lines=100)) as world:
            told = await (await (await world.connect()).begin()).send(b"X: " + b"y" * 50_000 + b"\r\n\r\nx\r\n")
        assert told.reply.startswith("552")


class TestLargeMail:
    async def test_it_waits_on_disk_and_is_itself(self, tmp_path: Path) -> None:
        mail = MAIL + b".dot\r\n" + b"0123456789abcdef" * 4000 + b"\r\n" + b"line\r\n" * 200_000
        async with served(tmp_path) as world:
            speaking = await (await world.connect()).begin()
            tracemalloc.start()
            told = await speaking.send(mail)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert told.accepted
            [seen] = world.seen
            assert seen.message.raw[:] == mail
            assert not isinstance(seen.message.raw, bytes), "mapped from a file"
            assert files_in(tmp_path / "spool") == [], "that has no name"
        assert peak < 8 << 20

    async def test_a_full_disk_is_a_452(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        async with served(tmp_path, limits=Limits(spool_octets=1000)) as world:
            speaking = await (await world.connect()).begin()
            monkeypatch.setattr("tempfile.TemporaryFile", full)
            assert (await speaking.send(MAIL + b"x\r\n" * 9000)).reply.startswith("452 4.3.1")
            monkeypatch.undo()
            assert (await speaking.send(MAIL)).accepted


class TestComingAndGoing:
    async def test_an_mta_that_leaves_while_its_message_is_decided_on(self, tmp_path: Path) -> None:
        deciding, go, gone = asyncio.Event(), asyncio.Event(), list[bool]()

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            deciding.set()
            await go.wait()
            gone.append(transaction.gone())
            with pytest.raises(Lost):
                await onward.send(b"", lambda: True)
            return Deferred(reply=reply.RELAY_LOST)

        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            sending = asyncio.create_task(speaking.send(MAIL))
            await deciding.wait()
            sending.cancel()
            speaking.close()
            await until(lambda: world.reception.connections == 0)
            go.set()
            await until(lambda: gone)
        assert gone == [True], "and what is recorded is recorded to its end"

    async def test_silence(self, world: Served) -> None:
        """An MTA is as silent as its client is; half a packet is another matter."""
        patient, stuck = await (await world.connect()).begin(), await (await world.connect()).begin()
        stuck.say(b"\0\0")
        await until(lambda: any(link._decoder.waiting for link in world.reception._links))
        world.pass_time(300)
        assert await stuck.closed()
        assert (await patient.send(MAIL)).accepted
        await until(lambda: world.reception.connections == 1)
        world.pass_time(3600)
        assert (await patient.send(MAIL)).accepted
        world.pass_time(7300)
        assert await patient.closed()

    async def test_stop_parts_from_the_idle_and_lets_a_message_end(self, tmp_path: Path) -> None:
        deciding, go = asyncio.Event(), asyncio.Event()

        async def decide(transaction: Transaction, onward: Onward) -> Disposition:
            deciding.set()
            await go.wait()
            return await pass_on(transaction, onward)

        async with served(tmp_path, decide) as world:
            idle, busy = await (await world.connect()).begin(), await (await world.connect()).begin()
            sending = asyncio.create_task(busy.send(MAIL))
            await deciding.wait()
            stopping = asyncio.create_task(world.reception.stop(20))
            assert await idle.closed()
            late = await world.connect()
            assert await late.closed()
            go.set()
            assert (await sending).accepted
            assert await busy.closed()
            assert await stopping == 0

    async def test_stop_cuts_off_in_the_end(self, world: Served) -> None:
        speaking = await (await world.connect()).begin()
        speaking.say(encode(Mail(b"<a@example.com>")) + encode(Rcpt(b"<b@example.com>")))
        await speaking.hear()
        assert await world.reception.stop(0.05) == 1
        assert await speaking.closed()

    async def test_over_is_told_once(self, world: Served) -> None:
        import socket

        ours, theirs = socket.socketpair()
        over: list[int] = []
        theirs.setblocking(False)
        await world.reception.serve_connection(theirs, lambda: over.append(1))
        ours.close()
        await until(lambda: over)
        assert over == [1]

    async def test_a_thousand_that_wait_cost_little(self, world: Served) -> None:
        connected: list[Speaking] = []
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(4):
            connected += [await (await world.connect()).begin() for _ in range(100)]
        each = (tracemalloc.get_traced_memory()[0] - before) / 400
        tracemalloc.stop()
        assert world.reception.connections == 400
        assert each < 60_000, f"{each:,.0f} octets for both ends"
        assert len(asyncio.all_tasks()) < 20, "no task runs for one that is silent"
        assert (await connected[-1].send(MAIL)).accepted


@pytest.mark.parametrize(
    ("peer", "trust", "let_in"),
    [
        (None, "", True), ("127.0.0.1", "", True), ("::1", "", True), ("192.0.2.1", "", False),
        ("192.0.2.1", "192.0.2.0/24", True), ("::ffff:192.0.2.1", "192.0.2.0/24", True), ("198.51.100.1", "192.0.2.0/24", False),
    ],
)  # fmt: skip
async def test_who_may_be_our_mta(
    tmp_path: Path, peer: str | None, trust: str, let_in: bool, caplog: pytest.LogCaptureFixture
) -> None:
    from ipaddress import ip_network

    from smtpguard.wire.milter.letter import House
    from smtpguard.wire.milter.link import Link
    from smtpguard.wire.milter.reception import MilterReception

    new_id: Callable[[], str] = lambda: "1"  # noqa: E731
    networks = (ip_network(trust),) if trust else ()
    house = House(limits=Limits(), spool=tmp_path)
    reception = MilterReception(house, always(Held(hold_id="H")), new_id=new_id, trust=networks)
    link = Link(reception)
    assert reception.arrived(link, peer) is let_in
    assert ("which trust does not name" in caplog.text) is not let_in
    reception.parted(link)
    await reception.stop(0)


def test_accept_is_the_only_answer_with_changes() -> None:
    from smtpguard.wire.milter.states import Conversation

    conversation = Conversation()
    for command in (POSTFIX, Connect(b"x", Family.UNKNOWN), Mail(b"<>"), Rcpt(b"<a@x.se>")):
        conversation.hear(command)
        conversation._awaited = None
    with pytest.raises(AssertionError):
        conversation.say(Accept())
