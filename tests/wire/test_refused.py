"""Recipients that the relay refuses at RCPT: the client gets the relay's reply, and the transaction records them."""

from __future__ import annotations

from pathlib import Path

from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import Client, proxied


def refusing() -> ScriptedRelay:
    relay = ScriptedRelay()
    relay.on("RCPT TO:<nobody@", "550 5.1.1 No such user")
    relay.on("RCPT TO:<full@", "452 4.2.2 Mailbox full")
    return relay


async def named(client: Client, *to: str) -> list[str]:
    assert (await client.ask("MAIL FROM:<anna@example.com>")).startswith("250")
    return [(await client.ask(f"RCPT TO:<{one}@example.net>"))[:3] for one in to]


async def test_refused_recipients_of_a_sent_message_are_recorded(tmp_path: Path) -> None:
    async with proxied(tmp_path, relay=refusing()) as world:
        client = await world.connect()
        assert await named(client, "bo", "nobody", "full") == ["250", "550", "452"]
        assert (await client.ask("DATA")).startswith("354")
        client.say(b"Subject: x\r\n\r\nx\r\n.\r\n")
        assert (await client.hear()).startswith("250")
        [transaction] = world.seen
        assert [str(a) for a in transaction.envelope.addresses] == ["bo@example.net"]
        assert [(str(r.address), r.code) for r in transaction.refused] == [
            ("nobody@example.net", "550 5.1.1"),
            ("full@example.net", "452 4.2.2"),
        ]
        assert world.nothing == []


async def test_a_message_with_only_refused_recipients_is_reported_once(tmp_path: Path) -> None:
    async with proxied(tmp_path, relay=refusing()) as world:
        client = await world.connect()
        assert await named(client, "nobody") == ["550"]
        assert (await client.ask("DATA"))[:1] == "5"
        assert (await client.ask("RSET")).startswith("250")
        assert (await client.ask("QUIT")).startswith("221")
        [(envelope, refused)] = world.nothing
        assert (str(envelope.reverse_path), envelope.recipients) == ("anna@example.com", ())
        assert [one.code for one in refused] == ["550 5.1.1"]


async def test_an_aborted_message_after_a_refusal_is_reported(tmp_path: Path) -> None:
    async with proxied(tmp_path, relay=refusing()) as world:
        client = await world.connect()
        assert await named(client, "bo", "nobody") == ["250", "550"]
        await client.ask("RSET")
        assert await named(client, "bo") == ["250"]
        await client.ask("RSET")
        [(envelope, refused)] = world.nothing
        assert (len(envelope.recipients), len(refused)) == (1, 1)


async def test_an_unreachable_relay_is_no_refusal(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay) as world:
        client = await world.connect()
        await relay.stop()
        assert await named(client, "bo") == ["451"]
        await client.ask("RSET")
        assert world.nothing == []
