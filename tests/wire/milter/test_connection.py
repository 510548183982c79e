"""One MTA's connection: many messages of many clients, protocol errors, and the limits of one message.

The server runs against an MTA of the tests. For decisions, see test_reception.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from smtpguard.wire.listener import Limits
from smtpguard.wire.milterpackets import (
    Body,
    Connect,
    EndOfMessage,
    Family,
    Helo,
    Macros,
    Mail,
    Negotiate,
    Rcpt,
    encode,
)
from tests.wire.milter.mta import OLD, POSTFIX
from tests.wire.milter.speaking import MAIL, Served, served
from tests.wire.proxied import Waiting, files_in, until


class TestConversations:
    @pytest.mark.parametrize("offer", [POSTFIX, OLD], ids=["quiet", "waiting"])
    async def test_several_messages_of_several_clients(self, world: Served, offer: Negotiate) -> None:
        speaking = await world.connect(offer)
        await speaking.run(speaking.mta.negotiate())
        for client in (b"192.0.2.1", b"192.0.2.2"):
            await speaking.run(speaking.mta.connect(address=client, helo=b"h-" + client))
            for n in range(3):
                mail = MAIL.replace(b"Hej", b"Hej %d" % n)
                assert (await speaking.send(mail, macros=[(b"{auth_authen}", b"u%d" % n)] if n == 1 else [])).accepted
                await speaking.run(speaking.mta.abort())  # Postfix sends it after each message
            await speaking.run(speaking.mta.end(another=True))
        assert [t.session.client_ip for t in world.seen] == ["192.0.2.1"] * 3 + ["192.0.2.2"] * 3
        assert [t.session.auth_user for t in world.seen] == [None, "u1", None] * 2, "no login outlives its message"
        assert world.seen[4].session.helo == "h-192.0.2.2"
        assert world.seen[4].message.raw == MAIL.replace(b"Hej", b"Hej 1")
        await speaking.run(speaking.mta.end())
        assert await speaking.closed()

    async def test_a_new_negotiation_resets(self, world: Served) -> None:
        """A second negotiation starts a new session, as from Postfix after XCLIENT."""
        speaking = await (await world.connect()).begin(macros=[(b"{tls_version}", b"TLSv1.3")])
        assert (await speaking.send(MAIL)).accepted
        await speaking.begin(address=b"IPv6:2001:db8::7", family=Family.INET6, hello=False)
        assert (await speaking.send(MAIL)).accepted
        first, second = (t.session for t in world.seen)
        assert (first.client_ip, first.tls, first.helo) == ("192.0.2.7", True, "desk.example")
        assert (second.client_ip, second.tls, second.helo) == ("2001:db8::7", False, "")

    async def test_abort_discards_the_message(self, world: Served) -> None:
        speaking = await (await world.connect()).begin()
        for command in (Mail(b"<a@example.com>"), Rcpt(b"<b@example.com>")):
            speaking.say(encode(command))
        await speaking.hear()
        await speaking.run(speaking.mta.abort())
        assert (await speaking.send(MAIL, b"<c@example.com>")).accepted
        [one] = world.seen
        assert [str(a) for a in one.envelope.addresses] == ["c@example.com"]

    async def test_mail_without_abort_discards_the_message(self, world: Served) -> None:
        """MAIL starts a new message without an abort, as from Sendmail after RSET. The first message leaves nothing,
        not even its login."""
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
    async def test_a_protocol_error_ends_the_connection(
        self, world: Served, octets: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        speaking = await world.connect()
        speaking.say(octets)
        while not await speaking.closed():
            pass
        assert "a milter connection was ended" in caplog.text
        await until(lambda: world.reception.connections == 0)

    async def test_input_during_a_decision_is_bounded(self, tmp_path: Path) -> None:
        decide = Waiting()
        async with served(tmp_path, decide) as world:
            speaking = await (await world.connect()).begin()
            sending = asyncio.create_task(speaking.send(MAIL))
            await decide.begun.wait()
            for _ in range(40):
                if speaking.writer.is_closing():
                    break
                speaking.say(encode(Body(b"x" * 65_000)))
                await asyncio.sleep(0)
            with pytest.raises(EOFError):
                await sending
            decide.go.set()


class TestLimits:
    async def test_a_recipient_over_the_limit_is_refused_alone(self, tmp_path: Path) -> None:
        async with served(tmp_path, limits=Limits(recipients=2)) as world:
            told = await (await (await world.connect()).begin()).send(MAIL, b"<a@x.se>", b"<b@x.se>", b"<c@x.se>")
        assert told.accepted
        assert {path: str(said)[:9] for path, said in told.refused.items()} == {b"<c@x.se>": "452 4.5.3"}
        assert len(world.seen[0].envelope.recipients) == 2

    async def test_an_invalid_address_is_refused_alone(self, world: Served) -> None:
        told = await (await (await world.connect()).begin()).send(MAIL, b"<a@x.se>", b"<b@-_->")
        assert told.accepted
        assert str(told.refused[b"<b@-_->"]).startswith("501 5.1.3")

    async def test_an_invalid_reverse_path_is_refused_at_its_recipients(self, world: Served) -> None:
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
    async def test_content_that_the_proxy_refuses_is_refused(self, tmp_path: Path, content: bytes, said: str) -> None:
        limits = Limits(message_octets=2000, line_octets=1200, header_octets=1024, header_lines=100)
        if said == "554 5.4.6":
            limits = Limits()
        async with served(tmp_path, limits=limits) as world:
            speaking = await (await world.connect()).begin()
            assert (await speaking.send(content)).reply.startswith(said)
            assert not world.seen
            assert (await speaking.send(MAIL)).accepted

    async def test_an_endless_header_is_not_kept(self, tmp_path: Path) -> None:
        async with served(tmp_path, limits=Limits(header_octets=10_000, header_lines=100)) as world:
            told = await (await (await world.connect()).begin()).send(b"X: " + b"y" * 50_000 + b"\r\n\r\nx\r\n")
        assert told.reply.startswith("552")


class TestLargeMail:
    async def test_content_is_spooled_to_disk_unchanged(self, tmp_path: Path) -> None:
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

    async def test_a_full_disk_gives_452(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        async with served(tmp_path, limits=Limits(spool_octets=1000)) as world:
            speaking = await (await world.connect()).begin()
            monkeypatch.setattr("tempfile.TemporaryFile", full)
            assert (await speaking.send(MAIL + b"x\r\n" * 9000)).reply.startswith("452 4.3.1")
            monkeypatch.undo()
            assert (await speaking.send(MAIL)).accepted
