"""Several relays for one listener: which has a transaction, which recipients are put off, and what clients are offered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from smtpguard.mail import reply
from smtpguard.wire.guesses import Guesses
from smtpguard.wire.login import Logins
from smtpguard.wire.turnedaway import Why
from tests.script import CONNECT
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import Client, proxied
from tests.wire.submitting import CLEAR, PEOPLE, plain

BOB, LIST, THIRD = "RCPT TO:<bob@example.net>", "RCPT TO:<all@lists.example>", "RCPT TO:<who@unknown.example>"
MAIL = "MAIL FROM:<anna@example.com>"


@pytest.fixture
async def bulk() -> AsyncIterator[ScriptedRelay]:
    async with ScriptedRelay() as relay:
        yield relay


async def finished(client: Client) -> str:
    assert (await client.ask("DATA")).startswith("354")
    client.say(b"x\r\n.\r\n")
    return await client.hear()


def got(relay: ScriptedRelay) -> list[list[str]]:
    return [message.recipients for message in relay.messages]


@pytest.mark.parametrize("at_once", [True, False])
async def test_recipients_on_another_route_are_deferred(at_once: bool, bulk: ScriptedRelay, tmp_path: Path) -> None:
    async with proxied(tmp_path, routes={"lists.example": bulk}) as world:
        client = await world.connect()
        assert (await client.ask(MAIL)).startswith("250")
        carol = "RCPT TO:<carol@example.net>"
        if at_once:
            client.say(f"{BOB}\r\n{LIST}\r\n{carol}\r\n".encode())
            said = [await client.hear() for _ in range(3)]
        else:
            said = [await client.ask(line) for line in (BOB, LIST, carol)]
        assert said == ["250 2.0.0 Ok", str(reply.OTHER_ROUTE), "250 2.0.0 Ok"]
        assert (await finished(client)).startswith("250")
        assert (await client.ask(MAIL, LIST)).startswith("250")
        assert (await finished(client)).startswith("250")
        assert (got(world.relay), got(bulk)) == ([["bob@example.net", "carol@example.net"]], [["all@lists.example"]])
        assert world.seen[0].refused == (), "no relay has refused anybody"
        assert [(mail.why, mail.refused) for mail in world.turned] == [(Why.OTHER_ROUTE, 1)]


async def test_a_relay_that_refuses_all_does_not_block_the_other_route(bulk: ScriptedRelay, tmp_path: Path) -> None:
    """Or a message for both would wait for the first in all its attempts."""
    async with proxied(tmp_path, routes={"lists.example": bulk}) as world:
        world.relay.on(CONNECT, "421 4.3.2 Not now")
        bulk.on("RCPT TO:<no@", "550 5.1.1 No such list")
        client = await world.connect(greeted=False)
        world.pool.offered = {}
        await client.hear()
        await client.ask("HELO client.example")
        client.say(f"{MAIL}\r\n{BOB}\r\n{LIST}\r\nRCPT TO:<no@lists.example>\r\n".encode())
        said = [(await client.hear())[:9] for _ in range(4)]
        assert said == ["250 2.1.0", "451 4.4.1", "250 2.0.0", "550 5.1.1"]
        assert (await finished(client)).startswith("250")
        assert got(bulk) == [["all@lists.example"]]
        assert [one.code for one in world.seen[0].refused] == ["550 5.1.1"]
        assert world.turned[0].why is Why.RELAY_DOWN
        world.relay.forget()


async def test_an_unused_relay_of_a_transaction_is_reset(bulk: ScriptedRelay, tmp_path: Path) -> None:
    """Its connection is free for others, and a refusal of MAIL there is not the other relay's."""
    async with proxied(tmp_path, routes={"lists.example": bulk}) as world:
        world.relay.on("RCPT TO:<bob@", "550 5.1.1 No such user")
        client = await world.connect()
        assert (await client.ask(MAIL, BOB)).startswith("550")
        assert (await client.ask(LIST)).startswith("250")
        await world.relay.saw(b"RSET")
        assert (await finished(client)).startswith("250")
        world.relay.on("MAIL", "550 5.7.1 Not you")
        assert await client.ask(MAIL, BOB) == "550 5.7.1 Not you"
        assert (await client.ask(LIST)).startswith("250")
        assert (await finished(client)).startswith("250")
        assert (got(world.relay), got(bulk)) == ([], [["all@lists.example"]] * 2)
        assert [[one.code for one in seen.refused] for seen in world.seen] == [["550 5.1.1"], ["550 5.7.1"]]


async def test_without_a_known_route_no_relay_is_used(tmp_path: Path) -> None:
    async with proxied(tmp_path, routes={"unknown.example": None}) as world:
        client = await world.connect()
        assert await client.ask(MAIL, THIRD) == str(reply.INTERNAL_ERROR)
        assert world.relay.verbs() == ["EHLO"]
        assert (await client.ask(BOB)).startswith("250")


async def test_a_resumed_transaction_keeps_its_relay(bulk: ScriptedRelay, tmp_path: Path) -> None:
    async with proxied(tmp_path, routes={"lists.example": bulk}) as world:
        client = await world.connect()
        assert (await client.ask(MAIL, LIST)).startswith("250")
        world.pass_time(5)
        await bulk.saw(b"RSET")
        assert (await finished(client)).startswith("250")
        assert (got(world.relay), got(bulk)) == ([], [["all@lists.example"]])


async def test_ehlo_offers_what_every_relay_supports(tmp_path: Path) -> None:
    small = ScriptedRelay(keywords=("PIPELINING", "SIZE 1000", "ENHANCEDSTATUSCODES"))
    async with small, proxied(tmp_path, routes={"lists.example": small}) as world:
        client = await world.connect()
        first = await client.ask("EHLO client.example")
        assert {"8BITMIME", "SMTPUTF8", "DSN"} <= set(first.replace("-", " ").split())
        eight = f"{MAIL} BODY=8BITMIME"
        assert await client.ask(eight, LIST) == str(reply.RELAY_LOST), "what it offers was not known yet"
        assert (await client.ask(BOB)).startswith("250"), "the other relay is not involved"
        await client.ask("RSET")
        later = await client.ask("EHLO client.example")
        assert "SIZE 1000" in later
        assert not {"8BITMIME", "SMTPUTF8", "DSN"} & set(later.replace("-", " ").split())


async def test_a_login_uses_one_relay(bulk: ScriptedRelay, tmp_path: Path) -> None:
    """Nobody speaks in their name elsewhere."""
    relay = ScriptedRelay(auth=PEOPLE)
    async with proxied(
        tmp_path,
        relay=relay,
        routes={"lists.example": bulk},
        auth=CLEAR,
        logins=lambda pool: Logins(pool, Guesses(_now)),
    ) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await client.ask(MAIL, LIST)).startswith("250")
        assert (await client.ask(BOB)).startswith("250")
        assert (await finished(client)).startswith("250")
        assert (got(relay), bulk.commands) == ([["all@lists.example", "bob@example.net"]], [])


def _now() -> float:
    return 0.0
