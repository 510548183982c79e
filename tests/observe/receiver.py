"""A receiver of webhooks on loopback: a real HTTP server with scripted answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FAILS = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 900\r\nContent-Length: 0\r\n\r\n"
ELSEWHERE = b"HTTP/1.1 307 There\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nabc"
HANGS, CUTS = b"hangs", b"cuts"


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Receiver:
    """``script``: what to do with the next requests; then ``usual``."""

    port: int = 0
    script: list[bytes] = field(default_factory=list)
    usual: bytes = OK
    asked: list[Asked] = field(default_factory=list)
    held: list[asyncio.StreamWriter] = field(default_factory=list)
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=of-the-receiver"

    @property
    def types(self) -> list[str]:
        return [asked.json["type"] for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:]) if k}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append(Asked(head[0].split()[1], headers, body))
                does = self.script.pop(0) if self.script else self.usual
                if does is HANGS:
                    self.held.append(writer)
                    return
                if does is CUTS:
                    writer.transport.abort()
                    return
                writer.write(does)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.opened:
            writer.transport.abort()
