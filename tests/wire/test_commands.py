"""Each command in its place: its replies, its refusals, and the transaction that reaches the guard."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.mail.reply import deferred
from smtpguard.policy.verdict import Deferred, Disposition, Held
from smtpguard.wire.listener import Limits
from tests.every import every
from tests.scripted_relay import KEYWORDS, ScriptedRelay
from tests.wire.proxied import proxied, until


@every(
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
async def test_invalid_commands_never_reach_the_relay(line: bytes, code: str, tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=(ip_network("127.0.0.0/8"),)) as world:
        client = await world.connect()
        assert (await client.ask(line)).startswith(code)
        assert world.relay.commands == [b"EHLO localhost"]


@every(
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
async def test_commands_within_a_transaction(line: bytes, code: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask("MAIL FROM:<>")
        assert (await client.ask(line)).startswith(code)
        assert world.relay.verbs() == ["EHLO"]
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("250")
        assert world.relay.verbs() == ["EHLO", "MAIL", "RCPT"]


async def test_a_null_reverse_path(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(b"x\r\n", mail="MAIL FROM:<> AUTH=<>")
        assert world.seen[0].envelope.reverse_path is None
        assert world.seen[0].envelope.auth == "<>"
        assert world.relay.messages[0].mail == b"MAIL FROM:<>"


async def test_auth_of_an_untrusted_client_proves_nothing(tmp_path: Path) -> None:
    relay = ScriptedRelay(keywords=(*KEYWORDS, "AUTH PLAIN"))
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.send(b"x\r\n", mail="MAIL FROM:<a@example.com> AUTH=boss@example.com")
        assert world.relay.messages[0].mail == b"MAIL FROM:<a@example.com> AUTH=<>"
        assert world.seen[0].session.auth_user is None


async def test_commands_out_of_order_are_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect(greeted=False)
        await client.hear()
        for line, code in (
            ("MAIL FROM:<a@example.com>", "503"), ("RCPT TO:<a@example.com>", "503"), ("DATA", "503"), ("AUTH PLAIN", "503"),
            ("NOOP x", "250"), ("RSET", "250"), ("HELP", "214"), ("VRFY a", "252"), ("VRFY", "501"), ("EXPN a", "502"),
            ("XCLIENT NAME=x", "550"), ("PROXY TCP4 1.2.3.4 1.2.3.4 1 1", "502"), ("STARTTLS", "502"),
            ("XFORWARD ADDR=1.2.3.4", "550"), ("HELO", "501"), ("RSET x", "501"), ("QUIT x", "501"), ("WHAT", "500"),
            ("ehlo x.example", "250"), ("AUTH PLAIN", "538 5.7.11"), ("QUIT", "221"),
        ):  # fmt: skip
            assert (await client.ask(line)).startswith(code), line
        assert await client.hear_end() == b""


async def test_a_long_rcpt_needs_ehlo(tmp_path: Path) -> None:
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


async def test_an_http_request_ends_the_dialog(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect(greeted=False)
        await client.hear()
        client.say(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@example.com>\r\n")
        assert await client.hear_end() == b"421 4.7.0 Too many errors\r\n"


async def test_content_before_354_is_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        client.say(b"DATA\r\nSubject: early\r\n\r\nx\r\n.\r\nMAIL FROM:<c@example.com>\r\n")
        assert (await client.hear_end()).startswith(b"554 5.5.0")
        assert world.relay.verbs().count("MAIL") == 1
        assert not world.relay.messages


async def test_smtputf8_and_8bitmime_are_carried(tmp_path: Path) -> None:
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


# the transaction


async def test_held_and_deferred_replies(tmp_path: Path) -> None:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        if transaction.message.raw == b"later\r\n":
            return Deferred(reply=deferred("Later"))
        return Held(hold_id=transaction.id, released=transaction.message.raw == b"again\r\n")

    async with proxied(tmp_path, decide) as world:
        client = await world.connect()
        assert await client.send(b"x\r\n") == "250 2.0.0 Held for review as 0000000000000001"
        assert await client.send(b"again\r\n") == "250 2.0.0 Approved and sent already as 0000000000000002"
        assert await client.send(b"later\r\n") == "451 4.7.1 Later"
        assert not world.relay.messages
        await until(lambda: world.pool.idle == 1)


async def test_the_transaction_has_all_data(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"senders_verified": True, "expanders": (ip_network("127.0.0.1"),)}
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


# trust


XFORWARDING = (*KEYWORDS, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")


async def test_xforward_of_a_trusted_peer_applies_to_every_transaction(tmp_path: Path) -> None:
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
        assert b"ADDR=127.0.0.1" in two.before[0], "the first XFORWARD applies to its transaction only"
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


async def test_xforward_of_others_is_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=(ip_network("192.0.2.0/24"),)) as world:
        client = await world.connect()
        assert "XFORWARD" not in await client.ask("EHLO x.example")
        assert (await client.ask("XFORWARD ADDR=192.0.2.7")).startswith("550 5.7.0")
        await client.send(b"x\r\n")
        assert world.seen[0].session.client_ip == "127.0.0.1"
