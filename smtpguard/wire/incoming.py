"""What a client sent and nobody has read yet: lines of commands, or content in bulk (RFC 5321 sections 2.3.8 and 4.5.3.1.4).

A stream reader with a buffer of its own, so that a line or all there is can be taken without copying it about, and so that
it is known whether something came before its time. Bounded: the client is not listened to while too much waits here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import SupportsIndex, cast

HIGH_OCTETS = 1 << 18
LONGEST_LINE = 1 << 12  # well over any command that the grammar takes, AUTH aside


class Overlong(Exception):
    """A line without end was dropped; the next line is whole again."""


class Incoming(asyncio.StreamReader):
    """Takes the place of a StreamReader under a StreamReaderProtocol; only what is defined here is to be used."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.longest = LONGEST_LINE
        self._clock_loop = loop
        self._source: asyncio.ReadTransport | None = None
        self._held = b""
        self._at = 0
        self._skipping = False
        self._stopped = False
        self._ended = False
        self._failed: BaseException | None = None
        self._woken: asyncio.Future[None] | None = None

    # what the dialog asks

    @property
    def pending(self) -> bool:
        """Whether something came that nobody has read."""
        return self._at < len(self._held)

    @property
    def has_line(self) -> bool:
        return self._held.find(b"\n", self._at) >= 0

    def line(self) -> bytes | None:
        """The next line with its end, whatever that is before the LF; None if there is no whole one yet. Raises Overlong."""
        end = self._held.find(b"\n", self._at) + 1
        if not end:
            if len(self._held) - self._at > self.longest:
                self._skipping = True
                self.discard()
            return None
        line = self._held[self._at : end]
        self._at = end
        self._taken()
        if self._skipping or len(line) > self.longest:
            self._skipping = False
            raise Overlong
        return line

    def take(self) -> bytes:
        """All there is."""
        taken = self._held[self._at :] if self._at else self._held
        self._held, self._at = b"", 0
        self._taken()
        return taken

    def put_back(self, rest: bytes) -> None:
        """What was taken too much: it comes first again."""
        if rest:
            self._held, self._at = rest + self._held[self._at :], 0

    def discard(self) -> None:
        """Forget what came."""
        self.take()

    async def more(self) -> bool:
        """Wait for something to come; False at the end."""
        if self._failed is not None:
            raise self._failed
        if self._ended:
            return False
        self._woken = self._clock_loop.create_future()
        try:
            await self._woken
        finally:
            self._woken = None
        return not self._ended

    def listen_to(self, transport: asyncio.ReadTransport) -> None:
        """From now on it comes from there (TLS)."""
        self._source, self._stopped = transport, False

    # what the protocol calls

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        self._source = cast(asyncio.ReadTransport, transport)  # by its methods: uvloop's are no subclasses

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        came = bytes(data)  # no copy where it is bytes, as it nearly always is
        self._held = self._held[self._at :] + came if self._held else came
        self._at = 0
        if len(self._held) > HIGH_OCTETS and not self._stopped and self._source is not None:
            self._stopped = True
            self._source.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        self._ended = True
        self._wake()

    def set_exception(self, exc: Exception) -> None:
        self._failed = exc
        if self._woken is not None and not self._woken.done():
            self._woken.set_exception(exc)

    def exception(self) -> BaseException | None:  # type: ignore[override]
        return self._failed

    def at_eof(self) -> bool:
        return self._ended and not self.pending

    # within

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _taken(self) -> None:
        if self._at and self._at == len(self._held):
            self._held, self._at = b"", 0
        if self._stopped and len(self._held) - self._at <= HIGH_OCTETS and self._source is not None:
            self._stopped = False
            if not self._source.is_closing():
                self._source.resume_reading()
