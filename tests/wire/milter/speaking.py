"""An MTA of the tests on a real socket, and a milter server on a Unix socket of its own."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.policy.verdict import Disposition, Relayed
from smtpguard.wire.listener import Limits, Listener
from smtpguard.wire.milter import MilterReception
from smtpguard.wire.milterpackets import Answer, Command, Negotiate, answers, encode
from smtpguard.wire.turnedaway import TurnedAway
from tests.clocks import Seconds
from tests.wire.milter.mta import POSTFIX, Mta, MtaResult
from tests.wire.relayed import fence_holds

Decide = Callable[[Transaction, Onward], Awaitable[Disposition]]
MAIL = b"From: Anna <anna@example.com>\r\nSubject: x\r\n\r\nHej\r\n"
TRACE = b"Received: from x (y)\r\n\tby guard;\r\n\tnow\r\nX-Smtpguard: id=1; policy=;\r\n\tmac=0\r\n"


async def relay_all(transaction: Transaction, onward: Onward) -> Disposition:
    return Relayed(replies=await onward.send(TRACE, fence_holds))


class Speaking:
    """Runs the dialogs of an MTA over a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, offer: Negotiate = POSTFIX) -> None:
        self.reader, self.writer = reader, writer
        self.mta = Mta(offer)
        self._answers = answers()

    async def run(self, dialog: Generator[tuple[Command | None, bool], Answer, None]) -> None:
        answer: Any = None
        try:
            while True:
                command, due = dialog.send(answer)
                if command is not None:
                    self.say(encode(command))
                answer = await self.hear() if due else None
        except StopIteration:
            pass

    def say(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def hear(self) -> Answer:
        """Read one answer. Raises EOFError if the server has closed."""
        while (answer := self._answers.next()) is None:
            try:
                came = await asyncio.wait_for(self.reader.read(1 << 16), 120)
            except ConnectionError:
                came = b""
            if not came:
                raise EOFError
            self._answers.feed(came)
        return answer

    async def closed(self) -> bool:
        """Whether the server closes without another answer."""
        try:
            await self.hear()
        except EOFError:
            return True
        return False

    async def begin(self, **client: Any) -> Speaking:
        await self.run(self.mta.negotiate())
        await self.run(self.mta.connect(**client))
        return self

    async def send(self, content: bytes, *recipients: bytes, **more: Any) -> MtaResult:
        """Send one message and return its result. Raises EOFError if the server has closed."""
        told = MtaResult()
        await self.run(self.mta.message(content, *recipients, told=told, **more))
        return told

    def close(self) -> None:
        self.writer.close()


async def connected(sock: socket.socket, offer: Negotiate = POSTFIX) -> Speaking:
    return Speaking(*await asyncio.open_unix_connection(sock=sock, limit=1 << 20), offer)


@dataclass
class Served:
    """``seen``: every transaction that reached the decision."""

    reception: MilterReception
    clock: Seconds
    path: Path
    seen: list[Transaction] = field(default_factory=list)
    turned: list[TurnedAway] = field(default_factory=list)
    opened: list[Speaking] = field(default_factory=list)

    async def connect(self, offer: Negotiate = POSTFIX) -> Speaking:
        speaking = Speaking(*await asyncio.open_unix_connection(self.path, limit=1 << 20), offer)
        self.opened.append(speaking)
        return speaking

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.reception.look()


@asynccontextmanager
async def served(
    folder: Path, decide: Decide = relay_all, *, limits: Limits | None = None, **house: Any
) -> AsyncIterator[Served]:
    clock, seen, numbers = Seconds(), list[Transaction](), itertools.count(1)

    async def admit(transaction: Transaction, onward: Onward) -> Disposition:
        seen.append(transaction)
        return await decide(transaction, onward)

    turned: list[TurnedAway] = []
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    reception = MilterReception(
        Listener(limits=limits or Limits(), spool=spool, hostname="guard.example", **house),
        admit,
        new_id=lambda: f"{next(numbers):016d}",
        monotonic=clock,
        turned_away=turned.append,
    )
    path = folder / "m.sock"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(512)
    listening.setblocking(False)
    accepting = asyncio.create_task(_accept(listening, reception))
    world = Served(reception, clock, path, seen, turned)
    try:
        yield world
    finally:
        accepting.cancel()
        await asyncio.wait({accepting})
        for each in world.opened:
            each.close()
        await reception.stop(0.5)
        listening.close()


async def _accept(listening: socket.socket, reception: MilterReception) -> None:
    loop = asyncio.get_running_loop()
    while True:
        sock, _ = await loop.sock_accept(listening)
        await reception.serve_connection(sock)
