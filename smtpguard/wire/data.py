"""Receive content: found in bulk between 354 and the one true end, CRLF.CRLF (RFC 5321 sections 4.1.1.4 and 4.5.2).

Chunks are fed as they come, and the end is found across their joints. A bare CR or LF, NUL, or a line or size
over the limit is noticed on the way, and the rest is dropped. The refusal waits for the end, so that nothing behind a
false end is taken for a command. Small content stays in memory, large content goes to an unlinked
file. The dot-stuffed octets are kept and sent on as they came. People and rules read a second view without the
stuffing, which is the same one if no line begins with a dot.
"""

from __future__ import annotations

import errno
import logging
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from smtpguard.mail import reply
from smtpguard.mail.constant import constant, maker
from smtpguard.mail.message import Content, Message
from smtpguard.mail.reply import Reply
from smtpguard.wire.listener import Limits

log = logging.getLogger(__name__)

_DOT, _END = b"\r\n.", b"\r\n.\r\n"
BLOCK_OCTETS = 1 << 18
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@constant
class Arrived:
    """A whole content. ``stuffed``: the octets between 354 and the dot, as received; ``message``: the unstuffed
    content."""

    stuffed: Content
    message: Message


def pieces(content: Content) -> Iterable[bytes]:
    if isinstance(content, bytes) and len(content) <= BLOCK_OCTETS:  # nearly all mail
        return (content,)
    return (content[start : start + BLOCK_OCTETS] for start in range(0, len(content), BLOCK_OCTETS))


_new_arrived = maker(Arrived)


class Arriving:
    """One content during reception. Call ``feed`` until it returns the octets after the end, ``unload`` in between
    while ``heavy``; then check ``refusal``, and call ``finish`` if there is none. Call ``close`` in any case."""

    def __init__(self, limits: Limits, spool: Path) -> None:
        self.refusal: Reply | None = None
        self._limits, self._spool = limits, spool
        self._tail = b"\r\n"  # not examined yet; at first the line end of DATA
        self._lead = 2  # octets of that line end, which is before the first piece
        self._kept = bytearray()  # not in the file yet
        self._size = 0
        self._dots = 0  # of the stuffing
        self._line = 0  # octets of the current line
        self._file: IO[bytes] | None = None
        self._working = False  # a thread is in ``unload`` or ``finish``
        self._closed = False

    @property
    def heavy(self) -> bool:
        """Return whether so much is in memory that it should go to the file."""
        return len(self._kept) > self._limits.spool_octets

    def feed(self, chunk: bytes) -> bytes | None:
        """Take more input. Return None before the end of the content, then the octets after it."""
        data = self._tail + chunk
        at = data.find(_DOT)
        dotted = at >= 0 and not data.startswith(_END, at)  # mostly the first dot of a line is the end
        if dotted:
            at = data.find(_END, at)
        if at >= 0:
            cut, rest = at + 2, data[at + 5 :]
        else:
            cut, rest = max(0, len(data) - 4), None
            if cut and data[cut - 1] == 0x0D:
                cut -= 1  # never split a CRLF
            self._tail = data[cut:]
        if cut:
            piece = data[self._lead : cut]
            self._lead = 0
            dots = piece.count(_DOT) if dotted else 0
            self._take(piece, dots + (self._line == 0 and piece[:1] == b"."))
        return rest

    def unload(self) -> None:
        """Move what is in memory to the file. Blocks."""
        with self._work():
            if self.refusal is None and not self._closed:
                try:
                    self._write()
                except OSError as error:
                    self._refuse(self._unspooled(error))

    def at_once(self) -> Arrived | Reply | None:
        """Return the content, or the reply that refuses it; None if it is in a file: then call ``finish``."""
        if self._file is not None:
            return None
        stuffed = bytes(self._kept)
        arrived = _new_arrived(stuffed=stuffed, message=Message.of(_unstuffed(stuffed) if self._dots else stuffed))
        return header_refusal(arrived.message, self._limits) or arrived

    def finish(self) -> Arrived | Reply:
        """Return the content, or the reply that refuses it. Blocks if it is in a file."""
        at_once = self.at_once()
        if at_once is not None:
            return at_once
        with self._work():
            try:
                arrived = self._map()
            except OSError as error:
                return self._unspooled(error)
            return header_refusal(arrived.message, self._limits) or arrived

    def close(self) -> None:
        """Drop the file and the memory; the result of ``finish`` stays valid. If a thread still writes for a client that
        has gone, it drops them itself: the number of a file closed under it could be another connection's by then."""
        self._closed = True
        if not self._working:
            self._drop()

    # within

    @contextmanager
    def _work(self) -> Iterator[None]:
        self._working = True
        try:
            yield
        finally:
            self._working = False
            if self._closed:
                self._drop()

    def _drop(self) -> None:
        self._kept = bytearray()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _take(self, piece: bytes, dots: int = 0) -> None:
        """``piece`` continues the last one, and splits no CRLF. ``dots``: how many of its octets are of the stuffing."""
        if self.refusal is not None:
            return
        lines = piece.replace(b"\r\n", b"")
        if b"\r" in lines or b"\n" in lines:
            self._refuse(reply.BARE_LINE_END)
            return
        if b"\0" in lines:
            self._refuse(reply.NUL_IN_MESSAGE)
            return
        self._dots += dots
        if self._exceeds_a_line(piece):
            self._refuse(reply.LINE_TOO_LONG)
            return
        self._size += len(piece)
        if self._size - self._dots > self._limits.message_octets:
            self._refuse(reply.TOO_BIG)
            return
        self._kept += piece

    def _exceeds_a_line(self, piece: bytes) -> bool:
        """Return whether a line that ``piece`` is part of is over the limit."""
        begin, limit = -self._line, self._limits.line_octets
        while len(piece) - begin > limit:
            begin = piece.rfind(b"\n", max(begin, 0), begin + limit) + 1
            if not begin:
                return True
        end = piece.rfind(b"\n") + 1
        self._line = len(piece) - end if end else self._line + len(piece)
        return False

    def _refuse(self, answer: Reply) -> None:
        self.refusal = self.refusal or answer
        self.close()

    def _unspooled(self, error: OSError) -> Reply:
        if error.errno in _FULL:  # the log has the answer to each message, and an alarm the folder
            return reply.DISK_FULL
        log.error("no content can be kept in %s: %s", self._spool, error.strerror or error)
        return reply.INTERNAL_ERROR

    def _write(self) -> None:
        if self._file is None:
            # made without a name, mode 0600: nothing is left behind, whatever happens to us
            self._file = tempfile.TemporaryFile(dir=self._spool, buffering=0)  # noqa: SIM115 (close does it)
        kept, self._kept = self._kept, bytearray()
        _write_all(self._file, kept)

    def _map(self) -> Arrived:
        self._write()
        assert self._file is not None
        stuffed = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        if not self._dots:
            return Arrived(stuffed=stuffed, message=Message.of(stuffed))
        with tempfile.TemporaryFile(dir=self._spool, buffering=0) as plain:
            for block in _unstuffed_blocks(stuffed):
                _write_all(plain, block)
            return Arrived(stuffed=stuffed, message=Message.of(mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ)))


def header_refusal(message: Message, limits: Limits) -> Reply | None:
    """Return why the header is refused, None if it is not: it is over the limits, or has too many Received fields (a loop: RFC 5321 section 6.3)."""
    content = message.raw
    if content[:2] == b"\r\n":
        return None  # there is none
    end = content.find(b"\r\n\r\n", 0, limits.header_octets)
    if end < 0:
        if len(content) > limits.header_octets:
            return reply.HEADER_TOO_BIG
        end = len(content)
    if content[:end].count(b"\n") >= limits.header_lines:
        return reply.HEADER_TOO_BIG
    return reply.LOOP if len(message.header.named.get("received", ())) > limits.hops else None


def _unstuffed(stuffed: bytes) -> bytes:
    return stuffed[stuffed.startswith(b".") :].replace(b"\r\n.", b"\r\n")


def _unstuffed_blocks(stuffed: mmap.mmap) -> Iterator[bytes]:
    """Yield the content unstuffed, a block at a time; a dot and its line end are in one block."""
    held = b"\r\n"  # so that a first dot follows a line end too
    first = True
    for piece in pieces(stuffed):
        data = held + piece
        cut = len(data) - 2 if data.endswith(b"\r\n") else len(data) - data.endswith(b"\r")
        held = data[cut:]
        block = data[:cut].replace(b"\r\n.", b"\r\n")
        yield block[2:] if first else block
        first = False
    yield held


def _write_all(file: IO[bytes], data: bytes | bytearray) -> None:
    """Write all of the data: an unbuffered write may be partial."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
