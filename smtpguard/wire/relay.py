"""One connection to the relay: raw bytes over a protocol of our own (RFC 5321 sections 4.1, 4.2 and 4.5.3.2).

Commands are sent as they are given, several at once if the relay allows it (RFC 2920), and the sender waits once for
all their replies, or is called with them; the session matches replies to commands (replies). One timer serves them all:
the last command sets how long all replies are waited for, and the timer is rescheduled only if it would fire too late.
The content is written in blocks, each when there is room for it, and the final dot last, if the fence still allows it.
As long as the dot is in our own buffers, it can be recalled by dropping the connection. By BDAT (RFC 3030) the last
octets are what the dot is by DATA. A connection that failed in any way is never used again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import cast

from smtpguard.mail.envelope import Fence, Lost, Recalled
from smtpguard.mail.message import Content
from smtpguard.mail.reply import RELAY_LOST, RELAY_UNAVAILABLE, Reply
from smtpguard.wire.data import BLOCK_OCTETS, pieces
from smtpguard.wire.replies import BadReply, RelaySession, Told
from smtpguard.wire.target import Timeouts
from smtpguard.wire.turnedaway import Why

_UNKNOWN_COMMAND = frozenset({500, 501, 502, 503, 504})
RECALL_SECONDS = 0.1  # how often the fence is asked while the dot is in our buffers

AT_ONCE = 25
"""The most commands that are sent together. Their replies have the time of one (Timeouts.command), so that a relay may take twelve
seconds for each recipient."""

# What may follow in a session: a transaction, a command, content, nothing but the reply to QUIT, nothing.
_FRESH, _BEGUN, _CONTENT, _LEAVING, _LOST = range(5)


class RelayUnavailable(Lost):
    """No connection could be had, so nothing was sent. ``reply`` is a 451 for the client, ``why`` a phrase for
    operators, ``word`` the same for counters. ``took_seconds``: the time until the failure."""

    def __init__(self, why: str, reply: Reply = RELAY_UNAVAILABLE, *, word: Why = Why.RELAY_DOWN) -> None:
        super().__init__(reply)
        self.why, self.word, self.took_seconds = why, word, 0.0

    def __str__(self) -> str:
        return f"{self.reply} ({self.why})"


Waiter = asyncio.Future[list[Reply] | None]
"""For the replies to commands sent together; None if the connection is lost."""


class RelayConnection(asyncio.Protocol):
    """One SMTP session with the relay. For one transaction at a time, and one task at a time."""

    def __init__(self, timeouts: Timeouts | None, *, deaf: bool) -> None:
        """``deaf``: ignore input before TLS."""
        self.extensions: Mapping[str, str] = {}
        """The relay's offer in this session: EHLO keyword in upper case, to its parameters."""
        self.announced: tuple[str, ...] = ()
        """The relay's names: in its greeting, and in its answer to EHLO."""
        self.chunking = False
        """Whether ``chunk`` can be used: the relay offers CHUNKING, and has not refused BDAT."""
        self.on_chunk_refused: Callable[[], None] | None = None
        """Called when the relay refuses BDAT, although it offers CHUNKING."""
        self.pipelining = False
        self.tls = False
        self.messages = 0
        """Contents sent so far."""
        self.on_lost: Callable[[RelayConnection], None] | None = None
        """Called once when the connection has ended, on either side."""
        self.timeouts = timeouts or Timeouts()
        self._loop = asyncio.get_running_loop()
        self._session: RelaySession = RelaySession()
        self._deadline = math.inf  # the loop's time; infinite while nothing is waited for, or without a limit
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._greeting: Waiter | None = None
        self._go_ahead: Waiter | None = None  # for the reply to DATA
        self._transport: asyncio.Transport | None = None
        self._beneath: asyncio.Transport | None = None
        self._why_lost: str | None = None
        self._ended = False
        self._state = _FRESH
        self._took_chunk = False
        self._session.deaf = deaf
        self._resumed: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<RelayConnection messages={self.messages} tls={self.tls} lost={self._why_lost}>"

    # state

    @property
    def usable(self) -> bool:
        """Whether commands can still be sent."""
        return self._state < _CONTENT

    @property
    def in_data(self) -> bool:
        """Whether the relay waits for content, or for the rest of it."""
        return self._state == _CONTENT

    @property
    def clean(self) -> bool:
        """Whether a new transaction can begin at once: usable, nothing begun, no reply outstanding."""
        return self._state == _FRESH and not self._session.asked

    @property
    def heard(self) -> Sequence[Reply]:
        """The replies so far to the oldest unanswered commands; for who is told None, those that came before the connection was
        lost."""
        return self._session.heard

    # commands

    async def command(self, line: bytes) -> Reply:
        """Send one command, without its CRLF, and wait for its reply. Raises Lost."""
        return self._one(await self._send((line,), self.timeouts.command))

    async def pipeline(self, lines: Sequence[bytes]) -> list[Reply]:
        """Send commands and wait for all their replies; ``AT_ONCE`` together if the relay offers PIPELINING. Raises Lost, with
        those that came before."""
        said: list[Reply] = []
        step = AT_ONCE if self.pipelining else 1
        try:
            for n in range(0, len(lines), step):
                some = lines[n : n + step]
                waiter: Waiter = self._loop.create_future()
                self._put(_octets(some), len(some), self.timeouts.command, partial(self._hear, said, waiter))
                self._final(await waiter)
        except Lost as lost:
            lost.heard = said
            raise
        return said

    def _hear(self, said: list[Reply], waiter: Waiter, replies: list[Reply] | None) -> None:
        said += self.heard if replies is None else replies
        _settle(waiter, replies)

    def ask(self, lines: Sequence[bytes], told: Told) -> None:
        """Send commands together, and call ``told`` with their replies; only with ``pipelining``. A 3yz reply is the last
        that it gets. Raises Lost if they cannot be sent."""
        self._put(_octets(lines), len(lines), self.timeouts.command, told)

    def begin_data(self) -> None:
        """Send DATA, before ``data`` does. If that does not follow, the connection cannot be used again. Raises Lost."""
        self._go_ahead = self._loop.create_future()
        self._put(b"DATA\r\n", 1, self.timeouts.data, partial(_settle, self._go_ahead))
        self._state = _CONTENT  # from now on sent octets may be content, even if the caller is cancelled

    async def data(self, parts: Iterable[bytes | memoryview], fence: Fence) -> Reply:
        """DATA, the content and the final dot: the relay's reply, or its refusal of DATA.

        ``parts`` are dot-stuffed and end in CRLF, and none is much larger than a block. ``fence`` is asked right before the dot is written, and again while
        it is still in our buffers; if it refuses, the connection is dropped and Recalled raised. Raises Lost, whose
        ``after_dot`` says whether the dot was sent.
        """
        if self._go_ahead is None:
            self.begin_data()
        assert self._go_ahead is not None
        reply = self._one(await self._go_ahead)
        self._go_ahead = None
        if reply.code == 354:
            return await self._sent(parts, fence, end=b".\r\n")
        if reply.positive:
            self.abort("answered DATA with neither 354 nor a refusal")
            raise self._lost()
        self._content_over(_BEGUN)
        return reply

    async def chunk(self, prepend: bytes, content: Content, fence: Fence) -> Reply:
        """Send what ``data`` does by BDAT (RFC 3030 section 2); only with ``chunking``. ``content`` is not dot-stuffed and ends in CRLF. It is one
        chunk, and the last octets are sent when the dot would be.

        In the first message of a session ``prepend``, our own trace headers, is a chunk of its own: a relay without BDAT would
        take what follows for commands. Its refusal raises Lost, and ``chunking`` is False then.
        """
        if not self._took_chunk:
            reply = await self._first_chunk(prepend)
            if not reply.positive:
                return reply
            prepend = b""
        head = b"BDAT %d LAST\r\n%b" % (len(prepend) + len(content), prepend)
        return await self._sent(chain((head,), pieces(content)), fence)

    async def _first_chunk(self, prepend: bytes) -> Reply:
        asked: Waiter = self._loop.create_future()
        self._put(b"BDAT %d\r\n" % len(prepend) + prepend, 1, self.timeouts.data, partial(_settle, asked))
        self._state = _CONTENT
        reply = self._final(await asked)
        if reply.code in _UNKNOWN_COMMAND:
            self.chunking = False
            if self.on_chunk_refused is not None:
                self.on_chunk_refused()
            self.abort(f"answered BDAT with {reply.code}, and offers CHUNKING")
            raise self._lost()
        self._content_over(_BEGUN)
        self._took_chunk = reply.positive
        return reply

    async def _sent(self, parts: Iterable[bytes | memoryview], fence: Fence, *, end: bytes = b"") -> Reply:
        """The reply to ``parts`` and ``end``, or a refusal that came before."""
        if self._state > _CONTENT:
            raise self._lost()
        self._state = _CONTENT
        self.messages += 1
        final: Waiter = self._loop.create_future()
        self._session.asked.append((1, partial(_settle, final), False))  # now, so that an early reply is noticed
        try:
            block: list[bytes | memoryview] = []
            size, tail = 0, b"\r\n"
            for part in parts:
                if size >= BLOCK_OCTETS:
                    self._write(block)
                    block, size = [], 0
                    await self._room()
                    if final.done():
                        return self._early(final.result())
                block.append(part)
                size += len(part)
                tail = (tail + part[-2:])[-2:]
            if tail != b"\r\n":
                raise ValueError("the content does not end in CRLF")
            if not await fence():
                raise Recalled
            if final.done():
                return self._early(final.result())
            block.append(end)
            self._write(block)
            self._arm(self.timeouts.final)
            while (unsent := self._unsent()) and not final.done():
                if not await fence():
                    raise Recalled
                await asyncio.wait((final,), timeout=RECALL_SECONDS)
            if unsent:
                return self._early(final.result())
            reply = self._final(await final, after_dot=True)
            # after DATA the transaction is over, whatever the reply (RFC 5321 section 4.1.1.4); after BDAT it may not be
            self._content_over(_FRESH if end or reply.positive else _BEGUN)
            return reply
        except BaseException:
            self.abort("given up in the middle of a message")  # the part sent so far must never become a message
            raise

    def _content_over(self, state: int) -> None:
        if self._state == _CONTENT:
            self._state = state

    def reset(self, told: Callable[[bool], None]) -> None:
        """Send RSET; ``told`` gets whether a new transaction can begin. Raises Lost if it cannot be sent."""

        def answered(replies: list[Reply] | None) -> None:
            positive = replies is not None and replies[0].positive
            if positive and self._state == _BEGUN:
                self._state = _FRESH
            told(positive)

        self._put(b"RSET\r\n", 1, self.timeouts.command, answered)

    def quit(self) -> None:
        """Close without waiting: QUIT, and close at its reply or soon after (RFC 5321 section 4.1.1.10)."""
        if not self.usable or self._session.asked:
            self.abort("not needed any more")
            return
        self._send((b"QUIT",), self.timeouts.quit)
        self._state = _LEAVING

    def abort(self, why: str) -> None:
        """Drop the connection; unsent octets are never sent."""
        self._lose(why)
        if self._transport is not None:
            self._transport.abort()
        if self._beneath is not None:
            self._beneath.abort()
        self._finish()

    # for the handshake

    async def greeting(self) -> Reply:
        """The greeting. Raises Lost."""
        if self._greeting is None:
            raise self._lost()
        return self._one(await self._greeting)

    async def ready_for_tls(self) -> Reply:
        """STARTTLS; any other plain text from its reply on is ignored (RFC 3207 section 6)."""
        reply = self._one(await self._send((b"STARTTLS",), self.timeouts.command, last=True))
        if reply.code != 220:
            self._session.deaf = False
        return reply

    def take_transport(self) -> asyncio.Transport:
        """The plain transport, to be wrapped in TLS."""
        if self._transport is None or self._state == _LOST:
            raise self._lost()
        self._session.deaf = False
        return self._transport

    def secured(self, transport: asyncio.Transport) -> None:
        """``transport`` is the encrypted one from now on."""
        self._beneath, self._transport = self._transport, transport
        transport.set_write_buffer_limits(high=1, low=0)
        self.tls = True

    def begun(self, extensions: Mapping[str, str]) -> None:
        """The session is open; ``extensions``: the relay's offer."""
        self.extensions, self.pipelining = extensions, "PIPELINING" in extensions
        if self._state == _BEGUN:
            self._state = _FRESH

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # buffer nothing beyond the block being written, so that the dot is not committed too early
        self._transport.set_write_buffer_limits(high=0)
        self._greeting = self._loop.create_future()
        self._session.asked.append((1, partial(_settle, self._greeting), False))
        self._arm(self.timeouts.greeting)

    def data_received(self, data: bytes) -> None:
        session = self._session
        if session.deaf:
            return
        try:
            answered = session.receive(data)
        except BadReply as error:
            self.abort(f"protocol error: {error}")
            return
        if not session.asked:
            self._deadline = math.inf
            if self._state == _LEAVING:
                self.abort("parted")
            elif session.unasked is not None:
                self.abort(f"said {session.unasked.code} unasked")  # usually a 421 to an idle connection
        for told, replies in answered:  # last: who is told may send more
            told(replies)

    def pause_writing(self) -> None:
        if self._resumed is None:
            self._resumed = self._loop.create_future()

    def resume_writing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    def eof_received(self) -> None:
        self._lose("closed by the relay")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"lost: {exc}" if exc else "closed by the relay")
        self._finish()

    # within

    def _lose(self, why: str) -> None:
        self._state = _LOST
        if self._why_lost is None:
            self._why_lost = why

    def _finish(self) -> None:
        """Tell everybody who waits, once."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._session.asked:
            _, told, _ = self._session.asked.popleft()
            told(None)
            self._session.heard = []
        self.resume_writing()
        if self.on_lost is not None:
            self.on_lost(self)

    def _send(self, lines: Sequence[bytes], timeout: float, *, last: bool = False) -> Waiter:
        waiter: Waiter = self._loop.create_future()
        self._put(_octets(lines), len(lines), timeout, partial(_settle, waiter), last=last)
        return waiter

    def _put(self, octets: bytes, due: int, timeout: float, told: Told, *, last: bool = False) -> None:
        """``told`` gets the next ``due`` replies, which must come within ``timeout`` seconds. Raises Lost."""
        if self._transport is None or self._state >= _CONTENT:
            raise self._lost()
        self._transport.write(octets)
        self._state = _BEGUN
        self._session.asked.append((due, told, last))
        self._arm(timeout)

    def _arm(self, timeout: float) -> None:
        self._deadline = self._loop.time() + timeout
        if self._deadline < self._timer_at and not self._ended:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._deadline == math.inf:
            return
        if self._loop.time() >= self._deadline:
            self.abort("timed out")
        else:
            self._timer_at = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _final(self, replies: list[Reply] | None, *, after_dot: bool = False) -> Reply:
        """The last reply. If nothing more is to be sent, a 3yz reply (RFC 5321 section 4.2.1) has accepted nothing, and
        it is unknown how the relay would take what follows."""
        if replies is None:
            raise self._lost(after_dot=after_dot)
        reply = replies[-1]
        if reply.intermediate:
            self.abort(f"asked for more with {reply.code}")
            raise self._lost(after_dot=after_dot)
        return reply

    def _one(self, replies: list[Reply] | None) -> Reply:
        if replies is None:
            raise self._lost()
        return replies[0]

    def _lost(self, *, after_dot: bool = False) -> Lost:
        lost = Lost(RELAY_LOST, after_dot=after_dot)
        lost.__cause__ = ConnectionError(self._why_lost or "the connection cannot be used")
        return lost

    def _early(self, replies: list[Reply] | None) -> Reply:
        """A reply, or the end, before the dot was sent. A refusal is used; a 250 for half a message is not."""
        reply = self._one(replies)
        self.abort("answered before the end of the message")
        if reply.positive:
            raise self._lost()
        return reply

    def _write(self, block: Iterable[bytes | memoryview]) -> None:
        if self._transport is not None and self._state != _LOST:
            self._transport.writelines(block)

    async def _room(self) -> None:
        """Wait until the relay has taken what was written, as far as the transport knows."""
        if self._resumed is None:
            return
        try:
            async with asyncio.timeout(self.timeouts.block):
                await self._resumed
        except TimeoutError:
            self.abort("timed out in the middle of a message")

    def _unsent(self) -> int:
        if self._ended or self._transport is None:
            return 0
        beneath = self._beneath.get_write_buffer_size() if self._beneath is not None else 0
        return self._transport.get_write_buffer_size() + beneath


def _octets(lines: Sequence[bytes]) -> bytes:
    octets = b"\r\n".join(lines) + b"\r\n"
    if len(octets.splitlines()) != len(lines) or b"\0" in octets:
        raise ValueError("a command is one line")
    return octets


def _settle(waiter: Waiter, replies: list[Reply] | None) -> None:
    if not waiter.done():
        waiter.set_result(replies)
