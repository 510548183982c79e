"""Client connections: counted, handed over by the supervisor, and closed at the end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme

from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Disposition, Relayed
from smtpguard.wire.listener import Limits, ServerTls
from smtpguard.wire.server import Dialog, Reception
from tests.wire.proxied import Client, Proxied, Waiting, proxied, until


async def handed_over(world: Proxied) -> tuple[Client, asyncio.Task[None]]:
    """A connection that another process accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        accepted = socket.socket(fileno=listening.accept()[0].detach())  # as it comes from the supervisor
    accepted.setblocking(False)
    client = Client(reader, writer)
    world.clients.append(client)
    return client, asyncio.create_task(world.reception.serve_connection(accepted))


async def test_an_accepted_socket_is_served(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client, serving = await handed_over(world)
        assert (await client.hear()).startswith("220")
        await serving
        await client.ask("EHLO x.example")
        assert (await client.send(b"x\r\n")).startswith("250")
        assert world.seen[0].session.client_ip == "127.0.0.1"
        dialog = next(iter(world.reception._open))
        sock = dialog.transport.get_extra_info("socket")  # type: ignore[union-attr]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_end_of_a_connection_is_reported(tmp_path: Path) -> None:
    ended: list[int] = []
    async with proxied(tmp_path) as world:
        for number in range(2):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            await world.reception.serve_connection(ours, lambda number=number: ended.append(number))  # type: ignore[misc]
            assert number not in ended
            theirs.close()
            await until(lambda: len(ended) == number + 1)  # noqa: B023
        assert ended == [0, 1]


async def test_a_client_that_leaves_at_once_leaves_nothing(tmp_path: Path) -> None:
    """A client that disconnects before the dialog takes its first step, such as a port probe, leaves no dialog behind."""
    async with proxied(tmp_path) as world:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            ended: list[int] = []
            transport, dialog = await world.reception.loop.connect_accepted_socket(
                lambda: Hasty(world.reception, ended), ours
            )
            await until(lambda: ended)
            assert transport.is_closing()
            assert dialog not in world.reception._open


class Hasty(Dialog):
    """Gets end of file together with the connection."""

    def __init__(self, desk: Any, ended: list[int]) -> None:
        super().__init__(desk)
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._ended.append(1)


async def test_an_accepted_socket_with_implicit_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with proxied(tmp_path, tls=ServerTls(context=context, implicit=True)) as world:
        client, serving = await handed_over(world)
        await client.writer.start_tls(trusting, server_hostname="localhost")
        assert (await client.hear()).startswith("220")
        await serving
        bad, serving = await handed_over(world)
        bad.say(b"EHLO x.example\r\n")
        with pytest.raises(OSError):
            await serving
        assert b"220" not in await bad.hear_end()


async def test_a_client_on_a_unix_socket(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await world.reception.serve_connection(ours)
        client = Client(*await asyncio.open_connection(sock=theirs))
        world.clients.append(client)
        await client.hear()
        await client.ask("EHLO x.example")
        assert (await client.send(b"x\r\n")).startswith("250")
        assert world.seen[0].session.client_ip == ""


async def refused(world: Proxied) -> bool:
    client = await world.connect(greeted=False)
    said = await client.hear()
    if said.startswith("220"):
        return False
    assert said.startswith("421 4.7.0")
    assert await client.hear_end() == b""
    return True


async def test_the_total_limit_of_connections(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(connections=2), trust=(ip_network("127.0.0.0/8"),)) as world:
        assert [await refused(world) for _ in range(3)] == [False, False, True]
        world.clients[0].close()
        await until(lambda: world.reception.connections == 1)
        assert not await refused(world)


async def test_the_limit_of_connections_per_client(tmp_path: Path) -> None:
    async with proxied(tmp_path, limits=Limits(connections_per_client=2)) as world:
        assert [await refused(world) for _ in range(3)] == [False, False, True]
        await until(lambda: world.reception.connections == 2)
        world.clients[0].close()
        await until(lambda: world.reception.connections == 1)
        assert not await refused(world)
        for client in world.clients:
            client.close()
        await until(lambda: not world.reception.connections)
        assert not world.reception._per_client


async def test_trusted_clients_have_no_limit(tmp_path: Path) -> None:
    limits = Limits(connections_per_client=2)
    async with proxied(tmp_path, limits=limits, trust=(ip_network("127.0.0.1/32"),)) as world:
        assert [await refused(world) for _ in range(4)] == [False] * 4


async def test_idle_clients_are_closed(tmp_path: Path) -> None:
    limits = Limits(connections_per_client=1000)
    async with proxied(tmp_path, limits=limits) as world:
        idle = [await world.connect(greeted=False) for _ in range(100)]
        await until(lambda: world.reception.connections == 100)
        for client in idle:
            client.say(b"E")
        active = await world.connect()
        world.clock.now += 299
        assert (await active.send(b"x\r\n")).startswith("250")
        world.pass_time(2)
        assert all(
            [(await client.hear_end()).endswith(b"421 4.4.2 Timeout, closing the connection\r\n") for client in idle]
        )
        assert (await active.send(b"x\r\n")).startswith("250")


async def test_idle_clients_are_checked_by_a_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reception, "look_seconds", 0.01)
    async with proxied(tmp_path) as world:
        client = await world.connect()
        world.clock.now += 301
        assert (await client.hear_end()).startswith(b"421 4.4.2")
        await until(lambda: world.reception._timer is None)
        assert (await (await world.connect()).ask("NOOP")).startswith("250"), "the timer runs again with a new client"
        assert world.reception._timer is not None


# the end


async def test_stop_closes_idle_clients_and_finishes_others(tmp_path: Path) -> None:
    decide = Waiting()
    async with proxied(tmp_path, decide) as world:
        idle, sending, decided, early = [await world.connect() for _ in range(4)]
        await early.ask("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>")
        await sending.begin()
        sending.say(b"half\r\n")
        await decided.begin()
        decided.say(b"whole\r\n.\r\n")
        await decide.begun.wait()
        stopping = asyncio.create_task(world.reception.stop(20))
        late = await world.connect(greeted=False)
        for client in (idle, early, late):
            assert await client.hear_end() == b"421 4.3.2 Shutting down, try again\r\n"
        decide.go.set()
        sending.say(b"half\r\n.\r\n")
        for client in (sending, decided):
            assert (await client.hear()).startswith("250")
            assert await client.hear() == "421 4.3.2 Shutting down, try again"
        assert await stopping == 0
        assert {m.content for m in world.relay.messages} == {b"whole\r\n", b"half\r\nhalf\r\n"}


async def test_stop_ends_open_messages_at_last(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        client = await world.connect()
        await client.begin()
        client.say(b"never an end\r\n")
        assert await world.reception.stop(0.05) == 1
        await client.hear_end()
        await until(lambda: not world.reception.connections)
        assert not world.seen


async def test_a_client_during_a_stop_gets_421(tmp_path: Path) -> None:
    async with proxied(tmp_path) as world:
        await world.reception.stop(0)
        client, serving = await handed_over(world)
        assert await client.hear_end() == b"421 4.3.2 Shutting down, try again\r\n"
        await serving


async def test_a_disposition_without_a_reply_gives_451(tmp_path: Path) -> None:
    async def decide(transaction: Transaction, onward: Onward) -> Disposition:
        return Relayed(replies=())

    async with proxied(tmp_path, decide) as world:
        client = await world.connect()
        assert (await client.send(b"x\r\n")).startswith("451 4.3.0")
