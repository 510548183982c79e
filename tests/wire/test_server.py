"""The dialog with a client: octets, internal errors, and a client that leaves. Includes each known trap of aiosmtpd."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
from pathlib import Path

import pytest

from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Disposition, Held
from smtpguard.wire.listener import Limits
from tests.every import every
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import files_in, proxied, until
from tests.wire.test_data import FALSE_ENDS, SECOND

# octets


@every(
    "line",
    [b"NOOP\n", b"RSET\n", b"MAIL FROM:<a@example.com>\n", b"NOOP\0\r\n", b"NOOP \r \r\n", b"NOOP\r\r\n", b"\r\n", b"\n",
     b"\xff\xfe\r\n", b"RCPT TO:<c@example.net>\rX\r\n", b"QUIT\n", b"DATA\n"],
)  # fmt: skip
async def test_an_invalid_line_is_refused_and_changes_nothing(line: bytes, tmp_path: Path) -> None:
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


async def test_dots_are_passed_on_unchanged(tmp_path: Path) -> None:
    content = b"..\r\n...x\r\n.y\r\nz.\r\n"
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(content)
        assert world.relay.messages[0].raw == content
        assert world.seen[0].message.raw == b".\r\n..x\r\ny\r\nz.\r\n"


async def test_an_endless_command_is_refused(tmp_path: Path) -> None:
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


async def test_a_client_may_send_many_messages(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        for _ in range(60):
            assert (await client.send(b"x\r\n")).startswith("250")
        assert len(world.relay.messages) == 60


# internal errors


async def test_an_exception_gives_451_without_its_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: object) -> Disposition:
        raise ValueError("secret")

    async with proxied(tmp_path, fail) as world:
        client = await world.connect()
        assert await client.send(b"x\r\n") == "451 4.3.0 Temporary failure here, try again later"
        assert (await client.ask("NOOP")).startswith("250")
        await world.relay.saw(b"RSET")
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("where", ["ask", "parse", "content"])
async def test_an_exception_at_any_point_gives_451(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    async with proxied(tmp_path) as world:
        client = await world.connect()
        if where == "ask":
            monkeypatch.setattr("smtpguard.wire.proxy.Passage.ask", fail)
            client.say(b"NOOP\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
            said = [await client.hear() for _ in range(4)]
            assert [s[:3] for s in said] == ["250", "250", "451", "451"]
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


async def test_errors_of_log_and_counters_do_not_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error while a refusal is logged or counted does not affect the client."""

    def fail(*_: object) -> None:
        raise ValueError("secret")

    relay = ScriptedRelay()
    relay.on("RCPT TO:<no", "550 5.1.1 No such user")
    async with proxied(tmp_path, relay=relay) as world:
        world.reception.turned_away = fail
        client = await world.connect()
        refused = ("MAIL FROM:<a@example.com>", "RCPT TO:<no@example.net>")
        assert (await client.ask(*refused)).startswith("550")
        assert (await client.ask("RSET")).startswith("250")
        assert (await client.send(b"x\r\n")).startswith("250")
        await client.ask(*refused)
        client.say(b"QUIT\r\n")
        assert (await client.hear()).startswith("221")
        assert await client.hear_end() == b""
        await until(lambda: not world.reception.connections and world.pool.idle == world.pool.size)
    assert caplog.text.count("ValueError: secret") == 2


async def test_aiosmtpd_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.send(b"very private\r\n")
        await client.ask("QUIT")
    assert "anna" not in caplog.text
    assert "private" not in caplog.text


async def test_no_dns_lookup_and_no_introspection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("for each connection")

    async with proxied(tmp_path) as world:
        monkeypatch.setattr(socket, "getfqdn", never)
        monkeypatch.setattr(inspect, "getmembers", never)
        monkeypatch.setattr(inspect, "signature", never)
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("250")


# a client that leaves


async def test_a_client_that_disconnects_during_a_decision(tmp_path: Path) -> None:
    """If the client leaves during a decision, the decision is completed, and can see that the client is gone."""
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
        assert world.reception._deciding == 1
        gone.set()
        await finished.wait()
        await until(lambda: not world.reception._deciding and world.pool.idle)


async def test_a_client_that_leaves_before_its_content_is_written_leaves_no_work(tmp_path: Path) -> None:
    """In the same turn of the event loop: the work has not begun, and a coroutine that nobody awaits is a warning."""
    async with proxied(tmp_path, limits=Limits(spool_octets=100)) as world:
        client = await world.connect()
        assert (await client.begin()).startswith("354")
        [dialog] = world.reception._open
        dialog.data_received(b"x" * 200 + b"\r\n")
        work = dialog._work
        assert work is not None
        dialog.connection_lost(None)
        await asyncio.wait({work})
        assert not files_in(tmp_path)


@pytest.mark.parametrize("cut", range(0, 60, 7))
async def test_a_client_that_disconnects_at_any_octet(cut: int, tmp_path: Path) -> None:
    said = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
    async with proxied(tmp_path) as world:
        client = await world.connect()
        client.say(said[:cut])
        client.writer.transport.abort()
        await until(lambda: not world.reception.connections)
        other = await world.connect()
        assert (await other.send(b"x\r\n")).startswith("250")
        assert len(world.relay.messages) == 1
