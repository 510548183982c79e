"""The keywords of EHLO, alone and in a dialog, with the relay up and down."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.wire.grammar import largest, offer
from smtpguard.wire.listener import Limits
from tests.every import every
from tests.scripted_relay import ScriptedRelay
from tests.wire.proxied import proxied


@every(
    ("said", "limit"), [({}, 1000), ({"SIZE": ""}, 1000), ({"SIZE": "0"}, 1000), ({"SIZE": "10"}, 10), ({"SIZE": "2000"}, 1000),
                        ({"SIZE": "many"}, 1000), ({"SIZE": "-5"}, 1000)]
)  # fmt: skip
def test_the_smaller_size_limit_is_offered(said: dict[str, str], limit: int) -> None:
    assert largest(said, 1000) == limit


def test_only_supported_extensions_are_offered() -> None:
    relay = dict.fromkeys(
        ("8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "AUTH", "ETRN", "XCLIENT"), ""
    )
    said = offer("guard.example", relay, 1000, starttls=True, trusted=True)
    assert said.lines[0] == "guard.example"
    assert set(said.lines[1:]) == {
        "PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS",
        "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
    }  # fmt: skip


def test_smtputf8_needs_8bitmime() -> None:
    assert "SMTPUTF8" not in offer("g", {"SMTPUTF8": ""}, 1, starttls=False, trusted=False).lines


# in a dialog


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
async def test_only_extensions_of_both_are_offered(
    keywords: tuple[str, ...], offered: set[str], tmp_path: Path
) -> None:
    limits = Limits(message_octets=1000)
    async with proxied(tmp_path, relay=ScriptedRelay(keywords=keywords), limits=limits) as world:
        client = await world.connect()
        said = (await client.ask("EHLO x.example")).split("\n")[1:]
        assert {line[4:] for line in said} == offered


async def test_parameters_that_were_not_offered_are_refused(tmp_path: Path) -> None:
    async with proxied(tmp_path, relay=ScriptedRelay(keywords=("SIZE 100",))) as world:
        client = await world.connect()
        for parameter in ("SMTPUTF8", "BODY=8BITMIME", "RET=FULL", "ENVID=x"):
            assert (await client.ask(f"MAIL FROM:<a@example.com> {parameter}")).startswith("555 5.5.4")
        assert (await client.ask("MAIL FROM:<a@example.com> SIZE=101")).startswith("552 5.3.4")
        assert (await client.ask("MAIL FROM:<a@example.com> BODY=7BIT SIZE=100 AUTH=<>")).startswith("250")
        assert (await client.ask("RCPT TO:<b@example.net> NOTIFY=NEVER")).startswith("555 5.5.4")
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("250")
        assert world.relay.commands[1:] == [b"MAIL FROM:<a@example.com> SIZE=100", b"RCPT TO:<b@example.net>"]


async def test_without_any_contact_with_the_relay_ehlo_gives_421(tmp_path: Path) -> None:
    """The reply to EHLO is 421: with fewer keywords, a client would bounce mail that needs the missing ones, and after
    a refusal it would try HELO."""
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
        assert (await plain.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")).startswith("451 4.4.1")
        await relay.start()
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_with_the_relay_down_ehlo_offers_what_it_offered(tmp_path: Path) -> None:
    relay = ScriptedRelay()
    async with proxied(tmp_path, relay=relay, target={"wait_seconds": 60, "down_seconds": 0}) as world:
        offered = await (await world.connect()).ask("EHLO client.example")
        await relay.stop()
        client = await world.connect()
        assert await client.ask("EHLO client.example") == offered
        assert (await client.ask("MAIL FROM:<a@example.com> SMTPUTF8", "RCPT TO:<b@x.example>")).startswith("451 4.4.1")
