"""The dialog with a client: octets and order. Among them the traps of aiosmtpd, one by one."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from ipaddress import ip_network
from pathlib import Path

import pytest

from smtpguard.mail.reply import deferred
from smtpguard.mail.transaction import Onward, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held
from smtpguard.wire.listener import Limits
from tests.scripted_relay import KEYWORDS, ScriptedRelay
from tests.wire.proxied import proxied, until
from tests.wire.test_data import FALSE_ENDS, SECOND

# EHLO


async def test_ehlo_mirrors_the_relay(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect(greeted=False)
        assert await client.hear() == "220 guard.example ESMTP"
        assert (await client.ask("EHLO x.example")).split("\n") == [
            "250-guard.example", "250-PIPELINING", "250-SIZE 52428800", "250-8BITMIME", "250-SMTPUTF8", "250-DSN",
            "250 ENHANCEDSTATUSCODES",
        ]  # fmt: skip
        assert await client.ask("HELO x.example") == "250 guard.example"


@pytest.mark.parametrize(
    ("keywords", "offered"),
    [
        ((), {"PIPELINING", "SIZE 1000"}),
        (("SIZE 0", "8BITMIME"), {"PIPELINING", "SIZE 1000", "8BITMIME"}),
        (("SIZE 10", "SMTPUTF8", "CHUNKING", "AUTH PLAIN", "XCLIENT NAME"), {"PIPELINING", "SIZE 10"}),
        (("SIZE 99999",), {"PIPELINING", "SIZE 1000"}),
    ],
)
async def test_ehlo_offers_only_what_both_can(keywords: tuple[str, ...], offered: set[str], tmp_path: Path) -> None:
    limits = Limits(message_octets=1000)
    async with proxied(tmp_path, relay=ScriptedRelay(keywords=keywords), limits=limits) as world:
        client = await world.connect()
        said = (await client.ask("EHLO x.example")).split("\n")[1:]
        assert {line[4:] for line in said} == offered


async def test_what_was_not_offered_is_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path, relay=ScriptedRelay(keywords=("SIZE 100",))) as world:
        client = await world.connect()
        for parameter in ("SMTPUTF8", "BODY=8BITMIME", "RET=FULL", "ENVID=x"):
            assert (await client.ask(f"MAIL FROM:<a@example.com> {parameter}")).startswith("555 5.5.4")
        assert (await client.ask("MAIL FROM:<a@example.com> SIZE=101")).startswith("552 5.3.4")
        assert (await client.ask("MAIL FROM:<a@example.com> BODY=7BIT SIZE=100 AUTH=<>")).startswith("250")
        assert (await client.ask("RCPT TO:<b@example.net> NOTIFY=NEVER")).startswith("555 5.5.4")
        assert world.relay.commands[1:] == [b"MAIL FROM:<a@example.com> SIZE=100"]


async def test_ehlo_while_no_relay_was_ever_reached(tmp_path: Path) -> None:
    """To offer less would make a client bounce what needs more, and so would a HELO after a refusal: it is sent away."""
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay, target={"wait_seconds": 60, "down_seconds": 0}) as world:
        await relay.stop()
        client = await world.connect(greeted=False)
        await client.hear()
        client.say(b"EHLO x.example\r\nHELO x.example\r\n")
        assert (await client.hear()).startswith("421 4.4.1")
        assert await client.hear_end() == b""
        plain = await world.connect(greeted=False)
        await plain.hear()
        assert (await plain.ask("HELO x.example")).startswith("250")
        assert (await plain.ask("MAIL FROM:<a@example.com>")).startswith("451 4.4.1")
        await relay.start()
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_ehlo_while_the_relay_is_down_offers_what_it_offered(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay, target={"wait_seconds": 60, "down_seconds": 0}) as world:
        offered = await (await world.connect()).ask("EHLO client.example")
        await relay.stop()
        client = await world.connect()
        assert await client.ask("EHLO client.example") == offered
        assert (await client.ask("MAIL FROM:<a@example.com> SMTPUTF8")).startswith("451 4.4.1")


# octets


@pytest.mark.parametrize(
    "line",
    [b"NOOP\n", b"RSET\n", b"MAIL FROM:<a@example.com>\n", b"NOOP\0\r\n", b"NOOP \r \r\n", b"NOOP\r\r\n", b"\r\n", b"\n",
     b"\xff\xfe\r\n", b"RCPT TO:<c@example.net>\rX\r\n", b"QUIT\n", b"DATA\n"],
)  # fmt: skip
async def test_a_command_that_is_no_line_is_refused_and_changes_nothing(line: bytes, tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        before = list(world.relay.commands)
        client.say(line)
        assert (await client.hear()).startswith("500 5.5.2")
        assert world.relay.commands == before
        assert (await client.ask("DATA")).startswith("354")
        client.say(b"x\r\n.\r\n")
        assert (await client.hear()).startswith("250")
        assert len(world.relay.messages[0].rcpts) == 1


@pytest.mark.parametrize("end", FALSE_ENDS.values(), ids=list(FALSE_ENDS))
async def test_no_second_message_is_smuggled(end: bytes, tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        assert (await client.begin()).startswith("354")
        client.say(b"Subject: first\r\n\r\nhello" + end + SECOND)
        said = await client.hear()
        assert said.startswith("550 5.6.0" if b"\0" in end else "550 5.5.2")
        assert (await client.ask("NOOP")).startswith("250"), "one reply to all of it"
        assert (await client.send(b"fine\r\n")).startswith("250")
        assert [m.content for m in world.relay.messages] == [b"fine\r\n"]


async def test_dots_go_through_as_they_came(tmp_path: Path) -> None:
    content = b"..\r\n...x\r\n.y\r\nz.\r\n"
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(content)
        assert world.relay.messages[0].raw == content
        assert world.seen[0].message.raw == b".\r\n..x\r\ny\r\nz.\r\n"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"MAIL FROM:<=?utf-8?q?a?=@example.com>", "501"),
        (b"MAIL FROM:<a@example.com> ENVID=x+0D+0A", "501"),
        (b"MAIL FROM:<a@example.com> AUTH=x+00@example.com", "501"),
        (b"EHLO =?utf-8?q?a?=", "501"),
        (b"MAIL FROM:<a@example.com> SIZE=1 HACK=1", "555"),
        (b"XFORWARD HELO=a+0D+0ADATA", "501"),
        ("MAIL FROM:<å@example.com>".encode(), "553"),
    ],
)
async def test_the_relay_never_sees_what_the_grammar_refuses(line: bytes, code: str, tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=(ip_network("127.0.0.0/8"),)) as world:
        client = await world.connect()
        assert (await client.ask(line)).startswith(code)
        assert world.relay.commands == [b"EHLO localhost"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"RCPT TO:<>", "501 5.1.3"),
        (b"RCPT TO:<=?utf-8?q?b=0D=0ADATA?=@example.net>", "501 5.1.3"),
        (b"RCPT TO:<b@x", "501 5.1.3"),
        (b"RCPT TO:<b@example.net> ORCPT=rfc822;b+0A", "501 5.5.4"),
        (b"MAIL FROM:<c@example.com>", "503 5.5.1"),
        (b"AUTH PLAIN AGEAYg==", "503 5.5.1"),
        (b"DATA x", "501 5.5.4"),
        (b"DATA", "554 5.5.1"),
    ],
)
async def test_within_a_transaction(line: bytes, code: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask("MAIL FROM:<>")
        assert (await client.ask(line)).startswith(code)
        assert world.relay.verbs() == ["EHLO", "MAIL"]
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("250")


async def test_a_null_reverse_path_is_none(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(b"x\r\n", mail="MAIL FROM:<> AUTH=<>")
        assert world.seen[0].envelope.reverse_path is None
        assert world.seen[0].envelope.auth == "<>"
        assert world.relay.messages[0].mail == b"MAIL FROM:<>"


async def test_auth_parameter_of_the_untrusted_proves_nothing(tmp_path: Path) -> None:
    relay = ScriptedRelay(keywords=(*KEYWORDS, "AUTH PLAIN"))
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.send(b"x\r\n", mail="MAIL FROM:<a@example.com> AUTH=boss@example.com")
        assert world.relay.messages[0].mail == b"MAIL FROM:<a@example.com> AUTH=<>"
        assert world.seen[0].session.auth_user is None


async def test_commands_in_their_places(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect(greeted=False)
        await client.hear()
        for line, code in (
            ("MAIL FROM:<a@example.com>", "503"), ("RCPT TO:<a@example.com>", "503"), ("DATA", "503"), ("AUTH PLAIN", "503"),
            ("NOOP x", "250"), ("RSET", "250"), ("HELP", "214"), ("VRFY a", "252"), ("VRFY", "501"), ("EXPN a", "502"),
            ("BDAT 3 LAST", "502"), ("XCLIENT NAME=x", "550"), ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1", "502"), ("STARTTLS", "502"),
            ("XFORWARD ADDR=1.2.3.4", "550"), ("HELO", "501"), ("RSET x", "501"), ("QUIT x", "501"), ("WHAT", "500"),
            ("ehlo x.example", "250"), ("AUTH PLAIN", "538 5.7.11"), ("QUIT", "221"),
        ):  # fmt: skip
            assert (await client.ask(line)).startswith(code), line
        assert await client.hear_end() == b""


async def test_a_command_without_end(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        client.say(b"NOOP " + b"x" * 600 + b"\r\n")
        assert (await client.hear()).startswith("500 5.5.2")
        client.say(b"MAIL FROM:<a@example.com> AUTH=" + b"x" * 5000 + b"\r\nNOOP\r\n")
        assert (await client.hear()).startswith("500 5.5.2")
        assert (await client.hear()).startswith("250")
        for _ in range(200):
            client.say(b"x" * 50_000)
        client.say(b"\r\nNOOP\r\n")
        assert (await client.hear()).startswith("500 5.5.2")
        assert (await client.hear()).startswith("250")


async def test_a_long_rcpt_is_for_those_who_said_ehlo(tmp_path: Path) -> None:
    line = "RCPT TO:<b@example.net> ORCPT=rfc822;" + "x" * 480
    async with proxied(tmp_path) as world:
        client = await world.connect()
        assert (await client.ask("MAIL FROM:<a@example.com>", line)).startswith("250")
        assert (await client.ask("HELO x.example", "MAIL FROM:<a@example.com>", line)).startswith("500")


async def test_too_many_errors_end_the_dialog(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(errors=3)) as world:
        client = await world.connect()
        for _ in range(3):
            assert (await client.ask("WHAT")).startswith("500")
        await client.send(b"a message makes them forgotten\r\n")
        for _ in range(3):
            assert (await client.ask("WHAT")).startswith("500")
        client.say(b"WHAT\r\nNOOP\r\n")
        assert (await client.hear_end()).startswith(b"421 4.7.0")


async def test_a_persistent_client_is_never_called_too_busy(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        for _ in range(60):
            assert (await client.send(b"x\r\n")).startswith("250")
        assert len(world.relay.messages) == 60


async def test_a_browser_is_not_listened_to(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect(greeted=False)
        await client.hear()
        client.say(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@example.com>\r\n")
        assert await client.hear_end() == b"421 4.7.0 Too many errors\r\n"


async def test_data_before_it_was_asked_for(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        client.say(b"DATA\r\nSubject: early\r\n\r\nx\r\n.\r\nMAIL FROM:<c@example.com>\r\n")
        assert (await client.hear_end()).startswith(b"554 5.5.0")
        assert world.relay.verbs().count("MAIL") == 1
        assert not world.relay.messages


async def test_an_8_bit_session_is_no_error(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(
            "Subject: åäö\r\n\r\n✓\r\n".encode(),
            "bøb@example.net",
            mail="MAIL FROM:<ånna@exämple.com> SMTPUTF8 BODY=8BITMIME",
        )
        message = world.relay.messages[0]
        assert message.mail == "MAIL FROM:<ånna@exämple.com> BODY=8BITMIME SMTPUTF8".encode()
        assert message.rcpts == ["RCPT TO:<bøb@example.net>".encode()]
        assert world.seen[0].envelope.smtputf8


# errors of ours


async def test_an_exception_is_a_451_and_keeps_its_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: object) -> Disposition:
        raise ValueError("secret")

    async with proxied(tmp_path, fail) as world:
        client = await world.connect()
        assert await client.send(b"x\r\n") == "451 4.3.0 Temporary failure here, try again later"
        assert (await client.ask("NOOP")).startswith("250")
        await world.relay.saw(b"RSET")
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("where", ["ask", "parse", "content"])
async def test_an_exception_anywhere(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    async with proxied(tmp_path) as world:
        client = await world.connect()
        if where == "ask":
            monkeypatch.setattr("smtpguard.wire.proxy.Passage.ask", fail)
            client.say(b"NOOP\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
            said = [await client.hear() for _ in range(4)]
            assert [s[:3] for s in said] == ["250", "451", "451", "451"]
        elif where == "parse":
            monkeypatch.setattr("smtpguard.wire.grammar.parse_mail", fail)
            said = [await client.ask("MAIL FROM:<a@example.com>")]
            assert said == ["451 4.3.0 Temporary failure here, try again later"]
        else:
            monkeypatch.setattr("smtpguard.wire.data.Arriving.feed", fail)
            await client.begin()
            client.say(b"x\r\n.\r\n")
            said = [(await client.hear_end()).decode()]
            assert said == ["451 4.3.0 Temporary failure here, try again later\r\n"]
            return
        assert "secret" not in "".join(said)
        monkeypatch.undo()
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_aiosmtpd_keeps_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(b"very private\r\n")
        await client.ask("QUIT")
    assert "anna" not in caplog.text
    assert "private" not in caplog.text


async def test_nothing_is_looked_up_or_reflected_upon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("for each connection")

    async with proxied(tmp_path) as world:
        monkeypatch.setattr(socket, "getfqdn", never)
        monkeypatch.setattr(inspect, "getmembers", never)
        monkeypatch.setattr(inspect, "signature", never)
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("250")


# what the guard did


async def test_held_and_deferred(tmp_path: Path) -> None:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        if transaction.message.raw == b"drop\r\n":
            return Deferred(reply=deferred("Later"), drop=True)
        return Held(hold_id=transaction.id)

    async with proxied(tmp_path, decide) as world:
        client = await world.connect()
        assert await client.send(b"x\r\n") == "250 2.0.0 Held for review as 0000000000000001"
        await client.begin()
        client.say(b"drop\r\n.\r\nNOOP\r\n")
        assert await client.hear_end() == b"451 4.7.1 Later\r\n"
        assert not world.relay.messages
        await until(lambda: world.pool.idle == 1)


async def test_the_transaction_says_all(tmp_path: Path) -> None:
    settings = {"senders_verified": True, "expanders": (ip_network("127.0.0.1"),)}
    async with proxied(tmp_path, **settings) as world:
        client = await world.connect()
        await client.ask(
            "MAIL FROM:<a@example.com> SIZE=5 RET=HDRS ENVID=q7",
            "RCPT TO:<b@example.net> NOTIFY=FAILURE ORCPT=rfc822;B",
        )
        assert (await client.ask("DATA")).startswith("354")
        client.say(b"x\r\n.\r\n")
        await client.hear()
        seen = world.seen[0]
        assert seen.session.client_ip == "127.0.0.1"
        assert seen.session.helo == "client.example"
        assert (seen.session.esmtp, seen.session.tls, seen.session.senders_verified, seen.session.expander) == (
            True,
            False,
            True,
            True,
        )
        assert (seen.envelope.size_bytes, seen.envelope.ret, seen.envelope.envid) == (5, "HDRS", "q7")
        assert [(str(r.address), r.notify, r.orcpt) for r in seen.envelope.recipients] == [
            ("b@example.net", "FAILURE", "rfc822;B")
        ]
        assert not seen.gone()


async def test_the_client_goes_while_it_is_decided(tmp_path: Path) -> None:
    """An EOF cancels aiosmtpd's dialog; what is being recorded is not cut short, and learns of it."""
    deciding, gone, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
    seen: list[Transaction] = []

    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        seen.append(transaction)
        deciding.set()
        await gone.wait()
        await onward.abandon()
        finished.set()
        return Held(hold_id=transaction.id)

    async with proxied(tmp_path, decide) as world:
        client = await world.connect()
        await client.begin()
        client.say(b"x\r\n.\r\n")
        await deciding.wait()
        assert not seen[0].gone()
        client.close()
        await until(lambda: not world.reception.connections)
        assert seen[0].gone()
        assert world.reception.busy == 1
        gone.set()
        await finished.wait()
        await until(lambda: not world.reception.busy and world.pool.idle)


@pytest.mark.parametrize("cut", range(0, 60, 7))
async def test_the_client_goes_anywhere(cut: int, tmp_path: Path) -> None:
    said = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
    async with proxied(tmp_path) as world:
        client = await world.connect()
        client.say(said[:cut])
        client.writer.transport.abort()
        await until(lambda: not world.reception.connections)
        other = await world.connect()
        assert (await other.send(b"x\r\n")).startswith("250")
        assert len(world.relay.messages) == 1


# trust


XFORWARDING = (*KEYWORDS, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")


async def test_xforward_from_a_trusted_peer_goes_on_with_every_transaction(tmp_path: Path) -> None:
    relay = ScriptedRelay(keywords=XFORWARDING)
    expanders = (ip_network("192.0.2.0/24"),)
    async with proxied(tmp_path, relay=relay, trust=(ip_network("127.0.0.0/8"),), expanders=expanders) as world:
        client = await world.connect()
        assert "XFORWARD NAME ADDR" in await client.ask("EHLO mta.example")
        assert (
            await client.ask(
                "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7", "XFORWARD PROTO=SMTP HELO=desk.example IDENT=4F1"
            )
        ).startswith("250")
        await client.send(b"one\r\n")
        await client.send(b"two\r\n")
        one, two = world.relay.messages
        assert one.connection == two.connection
        assert b"ADDR=192.0.2.7" in one.before[0]
        assert b"HELO=desk.example" in one.before[0]
        assert b"IDENT=4F1" in one.before[0]
        assert b"PROTO=SMTP" in one.before[0]
        assert b"ADDR=127.0.0.1" in two.before[0], "what was said of the first holds for it alone"
        assert b"HELO=mta.example" in two.before[0]
        session = world.seen[0].session
        assert (session.client_ip, session.helo, session.esmtp, session.expander) == (
            "192.0.2.7",
            "desk.example",
            False,
            True,
        )
        assert not world.seen[1].session.expander
        await client.ask("MAIL FROM:<a@example.com>")
        assert (await client.ask("XFORWARD ADDR=192.0.2.7")).startswith("503")


async def test_xforward_is_not_for_others(tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=(ip_network("192.0.2.0/24"),)) as world:
        client = await world.connect()
        assert "XFORWARD" not in await client.ask("EHLO x.example")
        assert (await client.ask("XFORWARD ADDR=192.0.2.7")).startswith("550 5.7.0")
        await client.send(b"x\r\n")
        assert world.seen[0].session.client_ip == "127.0.0.1"
