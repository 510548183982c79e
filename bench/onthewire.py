"""Mail over real sockets: the proxy part of one guard in this process, SMTP clients, and a relay that takes everything.

Clients are distinguished by XCLIENT, as behind a proxy. Each keeps its connection.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from bench.sink import Sink
from smtpguard.app.proxy import Proxy

_HELD = re.compile(r"250 .*Held for review as ([0-9A-Z]{16})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The reply to a client. ``hold_id``: set if it is held. ``taken``: the recipients for whom the relay took it."""

    reply: str
    hold_id: str = ""
    taken: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """``relayed``, ``held``, ``rejected`` or ``deferred``."""
        if self.reply.startswith("250"):
            return "held" if self.hold_id else "relayed"
        return "rejected" if self.reply.startswith("5") else "deferred"


class Wire:
    """Clients of a started proxy part (``desk``)."""

    def __init__(self, desk: Proxy, sink: Sink) -> None:
        self._desk, self._sink = desk, sink
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self._connections: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self.at_the_dot: Callable[[], object] = lambda: None
        """Called when everything but the final dot is sent."""

    async def send(self, client: str, reverse_path: str, to: tuple[str, ...], raw: bytes) -> Answer:
        """Send one transaction, with CRLF line ends. Reconnects if the guard has closed the connection."""
        self._sink.taken = []
        lines = [f"MAIL FROM:<{reverse_path}> BODY=8BITMIME", *(f"RCPT TO:<{one}>" for one in to)]
        reader, writer = await self._connected(client)
        for line in lines:
            if not (said := await _asked(reader, writer, line)).startswith("250"):
                await _asked(reader, writer, "RSET")
                return Answer(reply=said)
        if not (said := await _asked(reader, writer, "DATA")).startswith("354"):
            return Answer(reply=said)
        writer.write((b"\r\n" + raw).replace(b"\r\n.", b"\r\n..")[2:] + (b"" if raw.endswith(b"\r\n") else b"\r\n"))
        await writer.drain()
        self.at_the_dot()
        said = await _asked(reader, writer, ".")
        held = _HELD.match(said)
        return Answer(reply=said, hold_id=held[1] if held else "", taken=tuple(self._sink.taken))

    async def _connected(self, client: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if client in self._connections:
            reader, writer = self._connections[client]
            with suppress(ConnectionError):
                if (await _asked(reader, writer, "RSET")).startswith("250"):
                    return reader, writer
            writer.close()
        loop = asyncio.get_running_loop()
        opening = asyncio.open_connection(*self._listening.getsockname(), limit=1 << 20)
        (server, _), (reader, writer) = await asyncio.gather(loop.sock_accept(self._listening), opening)
        self._desk.take(server, 0, lambda: None)
        await _answer(reader)
        for line in ("EHLO front.example", f"XCLIENT ADDR={client}", "EHLO mail.hamnkvarn.example"):
            said = await _asked(reader, writer, line)
            assert said[:3] in ("250", "220"), f"{line}: {said}"
        self._connections[client] = reader, writer
        return reader, writer

    def close(self) -> None:
        for _, writer in self._connections.values():
            writer.close()
        self._listening.close()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str) -> str:
    writer.write(f"{line}\r\n".encode())
    await writer.drain()
    return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> str:
    """The last line of a reply. Raises ConnectionError if the connection is closed."""
    while line := (await reader.readline()).decode():
        if line[3:4] != "-":
            return line.rstrip()
    raise ConnectionError("the guard has ended the connection")
