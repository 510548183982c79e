"""Many slow or idle connections: closed by their deadlines, cheap in memory, and no delay to others."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from smtpguard.wire.listener import Limits
from smtpguard.wire.milterpackets import (
    Answer,
    Connect,
    Continue,
    EndOfHeader,
    EndOfMessage,
    Family,
    HeaderField,
    InsertHeader,
    Mail,
    Negotiate,
    Rcpt,
    answers,
    encode,
)
from tests.faults.machine import machine
from tests.peers.chain import until
from tests.peers.milter import MilterGuard
from tests.scripted_relay import ScriptedRelay
from tests.wire.milter.mta import POSTFIX
from tests.wire.proxied import Client, Proxied, proxied

TRICKLERS = 1000
IDLE = 2000
MOST_OCTETS_EACH = 20_000
"""Memory in octets for a connection that has said EHLO and waits. Measured: 7,000, in supervisor and part together."""


async def others_are_served(world: Proxied) -> None:
    client = await world.connect()
    assert (await client.send(b"Subject: in between\r\n\r\nx\r\n")).startswith("250")
    assert (await client.ask("QUIT")).startswith("221")


async def test_a_thousand_slow_clients_delay_no_others(tmp_path: Path) -> None:
    """Clients in the middle of a command or of content get 421 by the deadline, and others are served."""
    limits = Limits(connections=TRICKLERS + 50, connections_per_client=TRICKLERS + 50, transaction_seconds=500)
    async with proxied(tmp_path, relay=ScriptedRelay(), limits=limits, target={"connections": 20}) as world:
        sending: list[Client] = []
        while len(sending) < TRICKLERS // 2:
            for _ in range(10):  # half of the relay's connections: clients get no more
                client = await world.connect()
                assert (await client.begin()).startswith("354")
                sending.append(client)
            world.pass_time(limits.dawdle_seconds)  # and the relay's connections are free for others
        assert world.relay.open <= 20
        commanding = [await world.connect() for _ in range(TRICKLERS // 2)]
        began = world.clock.now
        for client in commanding:
            client.say(b"NOOP ")
        while world.clock.now - began < limits.idle_seconds - 10:
            for client in (*commanding, *sending):
                client.say(b"x")
            await others_are_served(world)
            world.pass_time(10)
        world.pass_time(limits.transaction_seconds)
        for client in (*commanding, *sending):
            assert (await client.hear_end()) == b"421 4.4.2 Timeout, closing the connection\r\n"
        await others_are_served(world)
        assert all(b"in between" in message.content for message in world.relay.messages)


def test_two_thousand_idle_connections_use_bounded_memory(tmp_path: Path) -> None:
    """Idle connections through supervisor and part need bounded memory, which is freed."""
    settings = {"limits": f"{{connections: {IDLE + 100}, per_client: {IDLE + 100}}}"}
    with machine(tmp_path, only=["proxy"], settings=settings) as (guard, _), contextlib.ExitStack() as undo:
        pids = (guard.pid, *guard.parts("proxy"))
        for sock in _spoken_to(guard.port, 50):
            sock.close()
        before = _octets(pids)
        for _ in range(IDLE // 50):
            for sock in _spoken_to(guard.port, 50):
                undo.enter_context(sock)
        each = (_octets(pids) - before) / IDLE
        assert each < MOST_OCTETS_EACH, f"{each:.0f} octets each"
        with _spoken_to(guard.port, 1)[0] as one_more:
            one_more.sendall(b"NOOP\r\n")
            assert one_more.recv(100).startswith(b"250")
        undo.close()
        until(lambda: _sockets(pids) < 100, why="the connections to be over, and forgotten")


def test_two_thousand_idle_milter_connections_use_bounded_memory(tmp_path: Path) -> None:
    """Idle milter connections after RCPT need bounded memory, half over TCP and half over a Unix socket."""
    settings = {"limits": f"{{connections: {IDLE + 100}}}"}
    guard = MilterGuard(tmp_path, relay_port=9, unix=tmp_path / "m.sock", workers=1, settings=settings)
    with guard, contextlib.ExitStack() as undo:
        pids = guard.pids
        for n in range(50):
            _asked(guard, n).close()
        before = _octets(pids)
        mtas = [undo.enter_context(_asked(guard, n)) for n in range(IDLE)]
        each = (_octets(pids) - before) / IDLE
        assert each < MOST_OCTETS_EACH, f"{each:.0f} octets each"
        for mta in mtas[-2:]:
            mta.sendall(b"".join(map(encode, (HeaderField(b"Subject", b" x"), EndOfHeader(), EndOfMessage()))))
            assert isinstance(_answer(mta), InsertHeader), "it is accepted, with our trace"
        undo.close()
        until(lambda: _sockets(pids) < 100, why="the connections to be over, and forgotten")


def _asked(guard: MilterGuard, n: int) -> socket.socket:
    """A socket of an MTA that has passed RCPT and waits for its client."""
    if n % 2:
        mta = socket.socket(socket.AF_UNIX)
        mta.settimeout(120)
        mta.connect(str(guard.unix))
    else:
        mta = socket.create_connection(("127.0.0.1", guard.milter_port), timeout=120)
    mta.sendall(encode(POSTFIX))
    assert isinstance(_answer(mta), Negotiate)
    said = Connect(b"x", Family.INET, 25, b"192.0.2.7"), Mail(b"<anna@example.com>"), Rcpt(b"<you@example.org>")
    mta.sendall(b"".join(map(encode, said)))
    assert _answer(mta) == Continue()
    return mta


def _answer(mta: socket.socket) -> Answer:
    decoder = answers()
    while (answer := decoder.next()) is None:
        came = mta.recv(4096)
        assert came, "closed"
        decoder.feed(came)
    return answer


def _spoken_to(port: int, n: int) -> list[socket.socket]:
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=120) for _ in range(n)]
    for sock in sockets:
        sock.sendall(b"EHLO desk.example.com\r\n")
    for sock in sockets:
        with sock.makefile("rb") as lines:
            assert lines.readline().startswith(b"220")
            while lines.readline()[3:4] == b"-":
                pass
    return sockets


def _octets(pids: tuple[int, ...]) -> int:
    """Private memory of these processes, in octets."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


def _sockets(pids: tuple[int, ...]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
