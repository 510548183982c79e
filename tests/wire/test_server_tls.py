"""TLS of the listener: STARTTLS, implicit, required, and nothing kept from before it."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

from smtpguard.wire.listener import Listener, ServerTls
from tests.wire.proxied import Client, proxied, until


async def up(client: Client, context: ssl.SSLContext) -> None:
    await client.writer.start_tls(context, server_hostname="localhost")


async def test_starttls_is_used(tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext) -> None:
    async with proxied(tmp_path, tls=server_tls) as world:
        client = await world.connect()
        assert "STARTTLS" in await client.ask("EHLO x.example")
        assert (await client.ask("STARTTLS x")).startswith("501")
        await client.ask("MAIL FROM:<a@example.com>")
        assert (await client.ask("STARTTLS")).startswith("503")
        assert (await client.ask("RSET", "STARTTLS")).startswith("220")
        await up(client, client_tls)
        assert (await client.ask("MAIL FROM:<a@example.com>")).startswith("503"), "all is forgotten"
        assert "STARTTLS" not in await client.ask("EHLO x.example")
        assert (await client.ask("STARTTLS")).startswith("503")
        assert (await client.ask("AUTH PLAIN")).startswith("502")
        assert (await client.send(b"\r\n" + b"x\r\n" * 100_000)).startswith("250")
        assert world.seen[0].session.tls
        assert (await client.ask("QUIT")).startswith("221")
        await client.hear_end()


async def test_plain_text_after_starttls_is_discarded(
    tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext
) -> None:
    """Plain text behind STARTTLS is discarded (CVE-2011-0411)."""
    async with proxied(tmp_path, tls=server_tls) as world:
        client = await world.connect()
        client.say(
            b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<customers@example.com>\r\n"
        )
        assert (await client.hear()).startswith("220")
        await up(client, client_tls)
        assert (await client.ask("NOOP")).startswith("250"), (
            "the first reply under TLS is to the first command under TLS"
        )
        assert (await client.ask("RCPT TO:<b@example.net>")).startswith("503")
        await client.ask("EHLO x.example")
        await client.send(b"x\r\n")
        assert world.seen[0].session.helo == "x.example"
        assert b"evil" not in b"".join(world.relay.commands)


async def test_a_failed_handshake_ends_the_connection(tmp_path: Path, server_tls: ServerTls) -> None:
    async with proxied(tmp_path, tls=server_tls) as world:
        client = await world.connect()
        await client.ask("STARTTLS")
        client.say(b"MAIL FROM:<a@example.com>\r\n" * 50)
        end = await client.hear_end()
        assert b"250" not in end
        await until(lambda: not world.reception.connections)
        assert world.relay.verbs() == ["EHLO"]


async def test_tls_may_be_required(tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext) -> None:
    async with proxied(tmp_path, tls=replace(server_tls, required=True)) as world:
        client = await world.connect()
        assert (await client.ask("MAIL FROM:<a@example.com>")).startswith("530 5.7.0")
        assert (await client.ask("STARTTLS")).startswith("220")
        await up(client, client_tls)
        await client.ask("EHLO x.example")
        assert (await client.send(b"x\r\n")).startswith("250")


async def test_implicit_tls_is_used(tmp_path: Path, server_tls: ServerTls, client_tls: ssl.SSLContext) -> None:
    async with proxied(tmp_path, tls=replace(server_tls, implicit=True)) as world:
        client = await world.connect(tls=client_tls)
        assert "STARTTLS" not in await client.ask("EHLO x.example")
        assert (await client.send(b"x\r\n")).startswith("250")
        assert world.seen[0].session.tls
        client.close()
        await until(lambda: not world.reception.connections)


def test_a_listeners_repr_shows_no_key(server_tls: ServerTls, tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(Listener(spool=tmp_path, tls=server_tls))
