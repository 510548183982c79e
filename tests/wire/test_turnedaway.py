"""Mail refused without a verdict: each is reported once, with reason, sender and client."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from ipaddress import ip_network
from pathlib import Path

import pytest

from smtpguard.mail import reply
from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Rejected
from smtpguard.wire.listener import Limits
from smtpguard.wire.turnedaway import TurnedAway, Why
from tests.script import CONNECT, DROP, STALL
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import Proxied, proxied, until

HEAD = ("MAIL FROM:<anna@example.com>", "RCPT TO:<bob@example.net>")


def reasons(world: Proxied) -> list[tuple[Why, int, int]]:
    return [(mail.why, mail.recipients, mail.refused) for mail in world.turned]


async def test_everything_known_is_reported(tmp_path: Path) -> None:
    async def undecided(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return Deferred(reply=reply.NOT_RECORDED, undecided=True)

    trust = (ip_network("127.0.0.0/8"),)
    async with proxied(tmp_path, undecided, trust=trust, name="office") as world:
        client = await world.connect()
        await client.ask("XFORWARD ADDR=192.0.2.7 IDENT=4F1Q")
        await client.send(b"Message-ID: <1@example.com>\r\n\r\nx\r\n", "bob@example.net", "eve@example.net")
        assert world.turned == [
            TurnedAway(
                why=Why.UNDECIDED, reply=reply.NOT_RECORDED, client="192.0.2.7", listener="office", queue_id="4F1Q",
                message_id="<1@example.com>", reverse_path="anna@example.com", recipients=2, refused=2,
            )
        ]  # fmt: skip


async def test_mail_with_a_verdict_is_not_reported(tmp_path: Path) -> None:
    async def rejected(transaction: Transaction, onward: Onward) -> Disposition:
        await onward.abandon()
        return Rejected(reply=reply.rejected("No"))

    async with proxied(tmp_path, rejected) as world:
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("550")
        await client.ask("QUIT")
        assert world.turned == []


async def test_passed_or_abandoned_mail_is_not_reported(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(b"x\r\n")
        await client.ask(*HEAD, "RSET", *HEAD)
        client.close()
        await until(lambda: not world.reception.connections)
        assert world.turned == []


async def test_refusals_of_the_relay(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    relay.on("RCPT TO:<no", "550 5.1.1 No such user")
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.send(b"x\r\n", "bob@example.net", "no@example.net", "no2@example.net")
        await client.ask(HEAD[0], "RCPT TO:<no@example.net>", "DATA")
        await client.ask("RSET")
        relay.on("MAIL", "450 4.7.1 Not now", times=1)
        await client.ask(*HEAD, "RCPT TO:<eve@example.net>", "QUIT")
        await until(lambda: len(world.turned) == 3)
        assert reasons(world) == [
            (Why.RECIPIENT_REFUSED, 3, 2), (Why.RECIPIENT_REFUSED, 1, 1), (Why.SENDER_REFUSED, 2, 2)
        ]  # fmt: skip
        assert str(world.turned[2].reply) == "450 4.7.1 Not now"


async def test_a_relay_that_is_down(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await world.relay.stop()
        await client.ask(*HEAD, "RCPT TO:<eve@example.net>", "DATA")
        assert reasons(world) == [(Why.RELAY_DOWN, 2, 2)]


async def test_a_relay_that_was_never_reached(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        await relay.stop()
        client = await world.connect(greeted=False)
        await client.hear()
        assert (await client.ask("EHLO x.example")).startswith("421")
        [mail] = world.turned
        assert (mail.why, mail.reverse_path, mail.client) == (Why.RELAY_DOWN, None, "127.0.0.1")


async def test_a_relay_that_does_not_greet(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay, target={"wait_seconds": 0.1}) as world:
        client = await world.connect()
        relay.on(CONNECT, STALL)
        relay.drop_all()
        await until(lambda: not world.pool.size)
        await client.ask(*HEAD, "RSET")
        assert reasons(world) == [(Why.RELAY_SLOW, 1, 1)]


async def test_a_pool_without_a_free_connection(tmp_path: Path) -> None:
    async with proxied(tmp_path, target={"connections": 1, "wait_seconds": 0.1}) as world:
        one, two = await world.connect(), await world.connect()
        await one.ask(*HEAD)
        await two.ask(*HEAD, "RSET")
        assert reasons(world) == [(Why.RELAY_BUSY, 1, 1)]


async def test_a_relay_that_changes_its_answer(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask(*HEAD)
        world.relay.drop_all()
        world.relay.on("RCPT TO:<bob@", "550 5.1.1 No")
        await client.ask("RCPT TO:<eve@example.net>", "DATA")
        assert reasons(world) == [(Why.RELAY_LOST, 2, 2)]


@pytest.mark.parametrize(
    ("limits", "said", "why"),
    [
        (Limits(message_octets=10), b"more than ten octets\r\n", Why.TOO_LARGE),
        (Limits(), b"bare\nline feed\r\n", Why.BAD_CONTENT),
        (Limits(hops=1), b"Received: a\r\nReceived: b\r\n\r\n", Why.BAD_CONTENT),
    ],
)
async def test_refused_content(limits: Limits, said: bytes, why: Why, tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=limits) as world:
        client = await world.connect()
        assert (await client.send(said))[0] == "5"
        assert reasons(world) == [(why, 1, 1)]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "452"), (errno.EMFILE, "451")])
async def test_content_that_cannot_be_kept(
    number: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    async with proxied(tmp_path, limits=Limits(spool_octets=1000)) as world:
        client = await world.connect()
        monkeypatch.setattr(tempfile, "TemporaryFile", fail)
        assert (await client.send(b"in many pieces\r\n" * 100_000)).startswith(code)
        assert reasons(world) == [(Why.FAILED, 1, 1)]
    assert (os.strerror(number) in caplog.text) is (code == "451"), "an alarm says that the folder is full"


async def test_an_announced_size_over_the_limit(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(message_octets=1000)) as world:
        client = await world.connect()
        assert (await client.ask("MAIL FROM:<anna@example.com> SIZE=1001")).startswith("552")
        assert (world.turned[0].why, world.turned[0].reverse_path) == (Why.TOO_LARGE, "anna@example.com")
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_recipients_over_the_limit(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(recipients=2)) as world:
        client = await world.connect()
        await client.send(b"x\r\n", *(f"r{n}@example.net" for n in range(5)))
        assert reasons(world) == [(Why.TOO_MANY_RECIPIENTS, 5, 3)]


async def test_a_client_that_times_out(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(idle_seconds=10)) as world:
        idle, busy = await world.connect(), await world.connect()
        await busy.ask(*HEAD)
        world.pass_time(11)
        assert (await busy.hear_end()).startswith(b"421")
        assert (await idle.hear_end()).startswith(b"421")
        await until(lambda: world.turned)
        assert reasons(world) == [(Why.TOO_SLOW, 1, 1)], "an idle client without a transaction is not reported"


async def test_a_client_that_does_not_wait_for_the_relay(tmp_path: Path) -> None:
    """A client that leaves while its message waits for a relay connection is reported as given up."""
    async with proxied(tmp_path, target={"connections": 1}) as world:
        one, impatient = await world.connect(), await world.connect()
        await one.ask(*HEAD)
        impatient.say(b"MAIL FROM:<anna@example.com>\r\nRCPT TO:<bob@example.net>\r\nRCPT TO:<eve@example.net>\r\n")
        await until(lambda: world.pool.waiting)
        impatient.writer.transport.abort()
        await until(lambda: world.turned)
        assert reasons(world) == [(Why.GAVE_UP, 2, 2)]
        assert (world.turned[0].reply, world.pool.waiting) == (None, 0)


async def test_a_stop_within_a_transaction(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.ask(*HEAD)
        await world.reception.stop(5)
        assert (await client.hear_end()).startswith(b"421")
        assert reasons(world) == [(Why.STOPPING, 1, 1)]


async def test_a_connection_over_the_limit(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(connections_per_client=1)) as world:
        await world.connect()
        second = await world.connect(greeted=False)
        assert (await second.hear()).startswith("421")
        assert [mail.why for mail in world.turned] == [Why.CONNECTIONS]


async def test_an_internal_error(tmp_path: Path) -> None:
    async def fail(*_: object) -> Disposition:
        raise ValueError

    async with proxied(tmp_path, fail) as world:
        client = await world.connect()
        await client.send(b"x\r\n")
        assert reasons(world) == [(Why.FAILED, 1, 1)]


async def test_a_lost_relay_is_reported_once_for_each_client(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay, target={"connections": 1}) as world:
        clients = [await world.connect() for _ in range(3)]
        relay.on("MAIL", DROP)
        await asyncio.gather(*(client.ask(*HEAD, "DATA") for client in clients))
        await asyncio.gather(*(client.ask("RSET") for client in clients))
        assert reasons(world) == [(Why.RELAY_LOST, 1, 1)] * 3


async def test_a_stop_while_the_relay_is_asked(tmp_path: Path) -> None:
    """A client whose RCPT waits for the relay at a stop gets the relay's reply, and then 421."""
    relay = ScriptedRelay()
    relay.on("RCPT TO:<eve@", [STALL, "250 2.1.5 Ok"])
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await client.ask(*HEAD)
        client.say(b"RCPT TO:<eve@example.net>\r\n")
        await relay.saw(b"RCPT TO:<eve")
        stopping = asyncio.create_task(world.reception.stop(600))
        await asyncio.sleep(0)
        relay.resume()
        assert (await client.hear()).startswith("250")
        assert await client.hear() == "421 4.3.2 Shutting down, try again"
        assert await stopping == 0
        assert reasons(world) == [(Why.STOPPING, 2, 2)]
