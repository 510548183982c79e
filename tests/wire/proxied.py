"""A guard's SMTP side between a scripted relay and a raw client. A function decides about each message."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smtpguard.mail.envelope import Envelope, Onward, RefusedRecipient, Transaction
from smtpguard.policy.verdict import Disposition, Relayed
from smtpguard.wire.listener import Limits, Listener
from smtpguard.wire.login import Logins
from smtpguard.wire.pool import RelayPool, Routing
from smtpguard.wire.server import Dialog, Reception
from smtpguard.wire.target import Reachability, RelayTarget, Tls
from smtpguard.wire.turnedaway import TurnedAway
from tests.clocks import Seconds
from tests.scripted_relay import ScriptedRelay
from tests.wire.relayed import fence_holds

Decide = Callable[[Transaction, Onward], Awaitable[Disposition]]


async def relay_all(transaction: Transaction, onward: Onward) -> Disposition:
    return Relayed(replies=await onward.send(b"", fence_holds))


class Waiting:
    """Relays each message, once the test lets it ``go``."""

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self, transaction: Transaction, onward: Onward) -> Disposition:
        self.begun.set()
        await self.go.wait()
        return await relay_all(transaction, onward)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds. Only a failure reaches the time limit."""
    async with asyncio.timeout(600):
        while not condition():  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0.001)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@dataclass
class Client:
    """Sends octets and reads replies. Only a failure reaches the time limit."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def hear(self) -> str:
        """One reply, its lines joined by LF, without CRLF."""
        lines: list[str] = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 600)
            if not line:
                raise EOFError("\n".join(lines))
            lines.append(line.decode().rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def hear_end(self) -> bytes:
        """Everything up to the end of the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), 600)
        except ConnectionError:
            return b""

    def say(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def ask(self, *lines: str | bytes) -> str:
        """Send lines, each with CRLF, in one write; return the last of their replies."""
        self.say(b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines))
        said = ""
        for _ in lines:
            said = await self.hear()
        return said

    async def begin(self, *recipients: str, mail: str = "MAIL FROM:<anna@example.com>") -> str:
        """Send EHLO if needed, MAIL, RCPTs and DATA; return the reply to DATA."""
        await self.ask(mail)
        for recipient in recipients or ("bob@example.net",):
            await self.ask(f"RCPT TO:<{recipient}>")
        return await self.ask("DATA")

    async def send(self, content: bytes, *recipients: str, mail: str = "MAIL FROM:<anna@example.com>") -> str:
        """A whole transaction: ``content`` as it is, then the final dot. Returns the last reply."""
        assert (await self.begin(*recipients, mail=mail)).startswith("354")
        self.say(content + b".\r\n")
        return await self.hear()

    def close(self) -> None:
        self.writer.close()


@dataclass
class Proxied:
    reception: Reception
    pool: RelayPool
    relay: ScriptedRelay
    clock: Seconds
    host: str
    port: int
    seen: list[Transaction] = field(default_factory=list)
    turned: list[TurnedAway] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    nothing: list[tuple[Envelope, tuple[RefusedRecipient, ...]]] = field(default_factory=list)
    """Transactions that ended because the relay refused all recipients."""

    async def connect(self, *, greeted: bool = True, tls: ssl.SSLContext | None = None, host: str = "") -> Client:
        extra: dict[str, Any] = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
        reader, writer = await asyncio.open_connection(host or self.host, self.port, limit=1 << 20, **extra)
        client = Client(reader, writer)
        self.clients.append(client)
        if greeted:
            said = await client.hear()
            assert said.startswith("220"), said
            assert (await client.ask("EHLO client.example")).startswith("250")
        return client

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.reception.look()


@asynccontextmanager
async def proxied(
    spool: Path,
    decide: Decide = relay_all,
    *,
    relay: ScriptedRelay | None = None,
    limits: Limits | None = None,
    target: dict[str, Any] | None = None,
    running: bool = False,
    logins: Callable[[RelayPool], Logins] | None = None,
    routes: Mapping[str, ScriptedRelay | None] | None = None,
    **listener: Any,
) -> AsyncIterator[Proxied]:
    """``running``: the relay is already started, and the caller stops it. ``routes``: other relays, already started, by
    the domain of their recipients; None: the relay of that domain is not known."""
    async with nullcontext(relay) if relay and running else relay or ScriptedRelay() as there:
        pool = RelayPool(
            RelayTarget(
                host=there.host,
                port=there.port,
                **{"tls": Tls.NONE, "reachability": Reachability("the relay"), **(target or {})},
            )
        )
        others = {
            domain: RelayPool(RelayTarget(host=its.host, port=its.port, tls=Tls.NONE)) if its is not None else None
            for domain, its in (routes or {}).items()
        }
        several = [other for other in others.values() if other is not None]
        clock = Seconds()
        seen: list[Transaction] = []
        turned: list[TurnedAway] = []
        nothing: list[tuple[Envelope, tuple[RefusedRecipient, ...]]] = []
        numbers = itertools.count(1)

        async def admit(transaction: Transaction, onward: Onward) -> Disposition:
            seen.append(transaction)
            return await decide(transaction, onward)

        reception = Reception(
            Listener(hostname="guard.example", spool=spool, limits=limits or Limits(), **listener),
            Routing(pool, several, lambda address: others.get(address.ascii_domain, pool)) if routes else Routing(pool),
            admit,
            new_id=lambda: f"{next(numbers):016d}",
            monotonic=clock,
            logins=logins(pool) if logins is not None else None,
            turned_away=turned.append,
            note_refused=lambda id, session, envelope, refused: nothing.append((envelope, refused)),
        )
        tls = reception.listener.tls
        context = tls.context if tls is not None and tls.implicit else None
        server = await reception.loop.create_server(lambda: Dialog(reception), "127.0.0.1", 0, ssl=context)
        host, port = server.sockets[0].getsockname()[:2]
        world = Proxied(reception, pool, there, clock, host, port, seen, turned, nothing=nothing)
        try:
            yield world
        finally:
            for client in world.clients:
                client.close()
            server.close()
            await reception.stop(0.5)
            for each in (pool, *several):
                await each.close()
