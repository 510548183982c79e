"""Limits of a client: recipients, octets, hops, and time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from smtpguard.mail import reply
from smtpguard.mail.envelope import Onward, Session, Transaction
from smtpguard.mail.reply import Reply
from smtpguard.policy.verdict import Disposition
from smtpguard.wire.listener import Limits
from smtpguard.wire.server import HIGH_OCTETS
from smtpguard.wire.turnedaway import Why
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import Waiting, files_in, proxied, relay_all, until


async def test_the_limit_of_recipients(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on("RCPT TO:<no", "550 5.1.1 No such user")
    async with proxied(tmp_path, relay=relay, limits=Limits(recipients=3)) as world:
        client = await world.connect()
        lines = [f"RCPT TO:<{name}@example.net>" for name in ("a", "no1", "no2", "b", "c", "d", "e")]
        client.say("".join(line + "\r\n" for line in ("MAIL FROM:<x@example.com>", *lines, "DATA")).encode())
        codes = [(await client.hear())[:9] for _ in range(9)]
        assert codes == [
            "250 2.1.0",
            "250 2.0.0",
            "550 5.1.1",
            "550 5.1.1",
            "250 2.0.0",
            "250 2.0.0",
            "452 4.5.3",
            "452 4.5.3",
            "354 End d",
        ]
        client.say(b"x\r\n.\r\n")
        await client.hear()
        assert len(world.seen[0].envelope.recipients) == 3


async def test_size_is_refused_after_the_dot(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(message_octets=1000)) as world:
        client = await world.connect()
        assert (await client.send(b"x" * 98 + b"\r\n" + b"x\r\n" * 400)).startswith("552 5.3.4")
        assert (await client.send(b"x" * 98 + b"\r\n" + b"x\r\n" * 300)).startswith("250")


async def test_mail_loops_are_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        assert (await client.send(b"Received: x\r\n" * 51 + b"\r\nx\r\n")).startswith("554 5.4.6")
        assert not world.seen


async def test_large_messages_are_spooled(tmp_path: Path) -> None:
    content = b"Subject: large\r\n\r\n" + (b"..dots\r\n" + b"y" * 70 + b"\r\n") * 40_000
    async with proxied(tmp_path) as world:
        client = await world.connect()
        assert (await client.send(content)).startswith("250")
        assert world.relay.messages[0].raw == content
        assert not isinstance(world.seen[0].message.raw, bytes)
        assert not files_in(tmp_path)


# time


async def test_idle_clients_are_closed(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        world.pass_time(299)
        assert (await client.ask("NOOP")).startswith("250")
        client.say(b"NO")  # part of a command does not extend the time
        await asyncio.sleep(0.01)
        world.pass_time(150)
        client.say(b"OP")
        await asyncio.sleep(0.01)
        world.pass_time(149)
        world.pass_time(2)
        assert await client.hear_end() == b"421 4.4.2 Timeout, closing the connection\r\n"


async def test_slow_content_has_a_time_limit(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.begin()
        for _ in range(5):
            world.pass_time(239)
            client.say(b"x\r\n")
            await asyncio.sleep(0.01)
        world.pass_time(6)
        assert (await client.hear_end()).startswith(b"421 4.4.2")
        assert not world.seen
        assert world.pool.size - world.pool.idle == 0


async def test_content_that_stops_times_out(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.begin()
        client.say(b"x\r\n")
        await asyncio.sleep(0.01)
        world.pass_time(301)
        assert (await client.hear_end()).startswith(b"421 4.4.2")


async def test_a_client_waiting_for_us_does_not_time_out(tmp_path: Path) -> None:
    go = asyncio.Event()
    begun = asyncio.Event()

    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        begun.set()
        await go.wait()
        return await relay_all(transaction, onward)

    async with proxied(tmp_path, decide) as world:
        client = await world.connect()
        await client.begin()
        client.say(b"x\r\n.\r\n")
        await begun.wait()
        world.pass_time(100_000)
        go.set()
        assert (await client.hear()).startswith("250")


async def test_a_client_that_does_not_read_is_closed(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.say(b"HELP\r\n" * 2_000_000)
        dialog: Any = next(iter(world.reception._open))
        await until(lambda: dialog.transport and dialog.transport.get_write_buffer_size() and dialog.deadline < 1e9)
        size = dialog.transport.get_write_buffer_size()
        assert size < 5_000_000
        world.pass_time(301)
        await asyncio.sleep(0.01)
        assert world.reception.connections == 1, "it may still read our last reply"
        world.pass_time(11)
        await until(lambda: not world.reception.connections)


async def test_a_flood_of_commands_does_not_block_others(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        flood, other = await world.connect(), await world.connect()
        flood.say(b"NOOP\r\n" * 30_000)
        assert (await other.ask("NOOP")).startswith("250")
        for _ in range(30_000):
            assert await flood.reader.readline() == b"250 2.0.0 Ok\r\n"


async def test_input_while_busy_is_bounded(tmp_path: Path) -> None:
    """Octets that a client pipelines during a decision are buffered up to a limit. Then its socket is not read."""
    decide = Waiting()
    line = b"NOOP " + b"x" * 500 + b"\r\n"
    async with proxied(tmp_path, decide) as world:
        client = await world.connect()
        await client.begin()
        client.say(b"x\r\n.\r\n")
        await decide.begun.wait()
        client.say(line * 20_000)
        dialog: Any = next(iter(world.reception._open))
        await until(lambda: dialog._smtp.held > HIGH_OCTETS)
        for _ in range(50):
            await asyncio.sleep(0)
        assert dialog._smtp.held < HIGH_OCTETS + (1 << 19), "one more reading at most"
        decide.go.set()
        for _ in range(20_001):
            assert (await client.reader.readline()).startswith(b"250")
        assert (await client.ask("QUIT")).startswith("221")


async def test_a_recipient_over_the_rate_limit_is_deferred_alone(tmp_path: Path) -> None:
    """It is counted once, whatever becomes of the relay's connection; and no answer is a 5xx."""
    asked: list[bool] = []

    def rate_check(session: Session, first: bool) -> Reply | None:
        asked.append(first)
        return None if len(asked) in (1, 2, 5) else reply.CLIENT_TOO_FAST

    async with proxied(tmp_path, rate_check=rate_check) as world:
        client = await world.connect()
        assert (await client.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")).startswith("250")
        client.say(b"RCPT TO:<c@example.net>\r\nRCPT TO:<d@example.net>\r\n")
        assert (await client.hear()).startswith("250")
        assert await client.hear() == str(reply.CLIENT_TOO_FAST)
        world.pass_time(5)
        await world.relay.saw(b"RSET")
        assert (await client.ask("DATA")).startswith("354")
        client.say(b"x\r\n.\r\n")
        assert (await client.hear()).startswith("250")
        assert world.relay.messages[0].recipients == ["b@example.net", "c@example.net"]
        assert world.seen[0].refused == (), "the relay has refused nobody"
        assert asked == [True, False, False]
        assert await client.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>") == str(reply.CLIENT_TOO_FAST)
        assert await client.ask("DATA") == str(reply.CLIENT_TOO_FAST)
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("250"), "it may try on"
        assert asked[3:] == [True, True], "nothing of the message was counted before"
        await client.ask("RSET")
        assert [(mail.why, mail.refused, mail.recipients) for mail in world.turned] == [
            (Why.RATE_LIMIT, 1, 3),
            (Why.RATE_LIMIT, 1, 2),
        ]
