"""Send checkpoints to a syslog server as it is (RFC 5424): over a local socket, UDP (RFC 5426) or TCP (RFC 6587, with octet counts)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from datetime import datetime
from urllib.parse import unquote, urlsplit

from smtpguard.guard.ports import Clock
from smtpguard.journal.chain import utc_text
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.observe.witnessing import SECONDS, line

PRIORITY = 13 * 8 + 5
"""Facility "log audit", severity "notice" (RFC 5424 section 6.2.1)."""
PORT = 514


def message(made: Checkpoint, host: str, at: datetime) -> bytes:
    """One message, without a byte order mark: the note's dash is UTF-8, and its receivers look for the note as it is."""
    stamp = utc_text(at, "milliseconds")
    return f"<{PRIORITY}>1 {stamp} {host or '-'} smtpguard {os.getpid()} checkpoint - {line(made)}".encode()


class Syslog:
    """``url``: unix:///dev/log, udp://HOST:PORT or tcp://HOST:PORT. A stream is kept open, and opened anew once it fails."""

    def __init__(self, url: str, host: str, clock: Clock) -> None:
        parts = urlsplit(url)
        self._kind, self._path = parts.scheme, unquote(parts.path)
        self._place = (parts.hostname or "", parts.port or PORT)
        self._host, self._clock = host, clock
        self._stream: asyncio.StreamWriter | None = None

    async def __call__(self, made: Checkpoint) -> str:
        """The problem; "" if the system has taken it. No syslog server confirms that it has stored it."""
        text = message(made, self._host, self._clock.now())
        try:
            async with asyncio.timeout(SECONDS):
                await (self._streamed(text) if self._kind == "tcp" else self._datagram(text))
        except TimeoutError:
            problem = "no answer in time"
        except OSError as error:
            problem = error.strerror or type(error).__name__
        else:
            return ""
        await self.close()
        return problem

    async def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await stream.wait_closed()

    async def _streamed(self, text: bytes) -> None:
        if self._stream is not None and self._stream.is_closing():
            await self.close()
        if self._stream is None:
            reader, self._stream = await asyncio.open_connection(*self._place)
            self._reader = reader
        elif self._reader.at_eof():  # the server has left: what is written now would be lost
            raise ConnectionResetError(None, "the server has closed the connection")
        self._stream.write(b"%d %b" % (len(text), text))
        await self._stream.drain()

    async def _datagram(self, text: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._kind == "unix":
            family, place = socket.AF_UNIX, self._path
        else:
            found = await loop.getaddrinfo(*self._place, type=socket.SOCK_DGRAM)
            family, place = found[0][0], found[0][4]  # type: ignore[assignment]
        with socket.socket(family, socket.SOCK_DGRAM) as datagram:
            datagram.setblocking(False)
            await loop.sock_connect(datagram, place)
            await loop.sock_sendall(datagram, text)
