"""XCLIENT: who may send it, what is kept of it, and that a client behind it may not send it again."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.wire.grammar import Refused
from smtpguard.wire.listener import Limits, ServerAuth
from smtpguard.wire.xforward import parse_xclient
from tests.every import every
from tests.wire.proxied import Client, Proxied, proxied
from tests.wire.submitting import ANNA, plain, submission

HERE = (ip_network("127.0.0.0/8"),)
ALL = "XCLIENT NAME=desk.example ADDR=192.0.2.7 PORT=4711 PROTO=SMTP HELO=desk LOGIN=anna+40example.com DESTADDR=192.0.2.1 DESTPORT=25"


async def xclient(client: Client, line: str = ALL) -> str:
    said = await client.ask(line)
    if said.startswith("220"):
        await client.ask("EHLO proxy.example")
    return said


async def session(world: Proxied, client: Client) -> object:
    assert (await client.send(b"x\r\n")).startswith("250")
    return world.seen[-1].session


async def test_the_session_has_the_clients_data(tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=HERE) as world:
        client = await world.connect()
        assert await xclient(client) == "220 guard.example ESMTP"
        for _ in range(2):  # it lasts longer than one transaction, unlike XFORWARD
            await session(world, client)
            known = world.seen[-1].session
            assert (known.client_ip, known.client_name, known.helo) == ("192.0.2.7", "desk.example", "desk")
            assert known.auth_user == ANNA
            assert not known.esmtp


@every(
    ("line", "address"),
    [
        ("XCLIENT ADDR=IPV6:2001:DB8::7", "2001:db8::7"),
        ("XCLIENT ADDR=IPV6:::ffff:192.0.2.7", "192.0.2.7"),
        ("xclient addr=192.0.2.7 name=[UNAVAILABLE] helo=[TEMPUNAVAIL] login=[UNAVAILABLE]", "192.0.2.7"),
        ("XCLIENT ADDR=[UNAVAILABLE]", ""),
        ("XCLIENT NAME=desk.example", "127.0.0.1"),
    ],
)
async def test_addresses_are_parsed(line: str, address: str, tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=HERE) as world:
        client = await world.connect()
        assert (await xclient(client, line)).startswith("220")
        await session(world, client)
        known = world.seen[-1].session
        assert known.client_ip == address
        assert known.auth_user is None
        assert known.helo == "proxy.example"


@every(
    "rest",
    ["", " ", "ADDR", "ADDR=", "ADDR=192.0.2", "ADDR=x", "ADDR=999.1.1.1", "ADDR=IPV6:g::", "DESTADDR=1.2.3.999", "PORT=70000", "NAME=a+0D+0Ab", "LOGIN=a+20b", "LOGIN=a+00", "LOGIN=a+C2+85", "HELLO=x",
     "ADDR=192.0.2.7 ADDR=192.0.2.8", "PORT=x", "PROTO=LMTP", "SOURCE=LOCAL", f"LOGIN={'x' * 256}", "LOGIN=+FF"],
)  # fmt: skip
async def test_an_invalid_xclient_changes_nothing(rest: str, tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=HERE) as world:
        client = await world.connect()
        assert (await client.ask(f"XCLIENT {rest}")).startswith("501 5.5.4")
        await session(world, client)
        assert world.seen[-1].session.client_ip == "127.0.0.1"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda value: b"LOGIN=" + value))
def test_any_octets_are_parsed_or_refused(argument: bytes) -> None:
    try:
        address, login, more = parse_xclient(argument)
    except Refused:
        return
    for value in (address, login, *more.values()):
        assert value is None or value == "" or (value.isprintable() and " " not in value)


@pytest.mark.parametrize(
    "line", ["XCLIENT ADDR=192.0.2.7", "XCLIENT LOGIN=anna@example.com", "XCLIENT ADDR=[UNAVAILABLE]"]
)
async def test_the_client_does_not_get_the_peers_rights(line: str, tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=HERE) as world:
        client = await world.connect()
        await xclient(client, line)
        for said in ("XCLIENT LOGIN=boss@example.com", "XFORWARD ADDR=192.0.2.9"):
            assert (await client.ask(said)).startswith("550 5.7.0")
        await client.send(b"x\r\n", mail="MAIL FROM:<a@example.com> AUTH=boss@example.com")
        assert world.seen[-1].envelope.auth == "<>"
        assert world.seen[-1].session.auth_user != "boss@example.com"


async def test_a_trusted_client_may_send_xclient_again(tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=(*HERE, ip_network("192.0.2.0/24"))) as world:
        client = await world.connect()
        await xclient(client, "XCLIENT NAME=desk.example")
        await xclient(client, "XCLIENT ADDR=192.0.2.7")
        assert (await xclient(client, "XCLIENT ADDR=198.51.100.9")).startswith("220")
        assert (await xclient(client, "XCLIENT ADDR=198.51.100.10")).startswith("550")
        await session(world, client)
        assert world.seen[-1].session.client_ip == "198.51.100.9"


async def test_a_second_xclient_forgets_the_first(tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=(*HERE, ip_network("192.0.2.0/24"))) as world:
        client = await world.connect()
        await xclient(client)
        await xclient(client, "XCLIENT ADDR=198.51.100.9")
        await session(world, client)
        known = world.seen[-1].session
        assert (known.client_ip, known.client_name, known.auth_user) == ("198.51.100.9", "", None)


async def test_the_client_counts_for_limits(tmp_path: Path) -> None:
    async with proxied(tmp_path, trust=HERE, limits=Limits(connections_per_client=2)) as world:
        clients = [await world.connect() for _ in range(5)]
        for client in clients[:2]:
            assert (await xclient(client)).startswith("220")
        assert (await client.ask("NOOP")).startswith("250")
        assert (await xclient(clients[2])).startswith("421 4.7.0 Too many connections")
        assert await clients[2].hear_end() == b""
        await clients[0].ask("QUIT")
        assert (await xclient(clients[3])).startswith("220")
        assert (await xclient(clients[4], "XCLIENT ADDR=192.0.2.8")).startswith("220")


async def test_a_login_in_xclient_is_a_login(tmp_path: Path) -> None:
    """XCLIENT LOGIN counts as a login. The mail goes over the pool's connections, since there are no credentials for
    the relay."""
    async with submission(tmp_path, trust=HERE, auth=ServerAuth(without_tls=True)) as world:
        client = await world.connect()
        await xclient(client)
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("503")
        await session(world, client)
        assert world.seen[-1].session.auth_user == ANNA
        assert world.relay.messages[-1].user is None


async def test_an_earlier_login_is_forgotten(tmp_path: Path) -> None:
    async with submission(tmp_path, trust=HERE, auth=ServerAuth(without_tls=True)) as world:
        client = await world.connect()
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")
        await xclient(client, "XCLIENT ADDR=192.0.2.7")
        assert (await client.ask("MAIL FROM:<anna@example.com>")).startswith("530 5.7.0 Authentication required")
        assert (await client.ask(f"AUTH PLAIN {plain()}")).startswith("235")


async def test_listener_and_peer_are_recorded(tmp_path: Path) -> None:
    """The session records the listener, the trusted peer, and the peer's id of the message."""
    async with proxied(tmp_path, trust=HERE, name="inside") as world:
        client = await world.connect()
        await session(world, client)
        plain = world.seen[-1].session
        assert (plain.listener, plain.peer, plain.client_ip, plain.ident) == ("inside", "", "127.0.0.1", "")
        await xclient(client, "XFORWARD ADDR=192.0.2.9 IDENT=4bXyz")
        await client.send(b"x\r\n")
        forwarded = world.seen[-1].session
        assert (forwarded.peer, forwarded.client_ip, forwarded.ident) == ("127.0.0.1", "192.0.2.9", "4bXyz")
        await client.send(b"x\r\n")
        assert world.seen[-1].session.ident == "", "it was of one message"
        await xclient(client, "XCLIENT ADDR=192.0.2.7")
        await session(world, client)
        other = world.seen[-1].session
        assert (other.listener, other.peer, other.client_ip) == ("inside", "127.0.0.1", "192.0.2.7")
