"""The SMTP server: one dialog with one client (RFC 5321 sections 2.4 and 4.5.3, RFC 2920, RFC 3207).

aiosmtpd's SMTP protocol, with every override of it in this file. Kept of it: how a connection begins, ends, and is told so
(an EOF cancels the dialog). Replaced: the loop over commands, and the commands (see commands), for these reasons:
- commands are read from raw bytes; a bare LF, a CR or a NUL in one is refused and changes nothing;
- commands that came together are asked of the relay together, and answered in one write;
- time limits are looked at by the reception, not by a timer armed for every line;
- nothing is reflected upon and no host name looked up for a connection; no exception is shown to a client; no log of
  aiosmtpd's is written, since it holds addresses and content.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from typing import Any, Protocol, cast

from aiosmtpd.smtp import SMTP

from smtpguard.mail import reply
from smtpguard.mail.client import client_address, within
from smtpguard.mail.reply import Reply
from smtpguard.wire import grammar
from smtpguard.wire.commands import Commands
from smtpguard.wire.desk import Desk, Over
from smtpguard.wire.incoming import Incoming, Overlong
from smtpguard.wire.turned import TurnedAway, Why

MOST_REPLIES = 1000
"""So many commands of one client are answered before others have their turn."""

logging.getLogger("mail.log").disabled = True
log = logging.getLogger("smtpguard.wire")


class FrontDesk(Desk, Protocol):
    """Where dialogs begin and end."""

    loop: asyncio.AbstractEventLoop
    greeting: Reply

    def arrived(self, dialog: Dialog) -> None: ...
    def parted(self, dialog: Dialog) -> None: ...
    def refusal(self, dialog: Dialog) -> Reply | None: ...
    def renamed(self, dialog: Dialog, before: str) -> Reply | None: ...


class _Task:
    """The dialog's own task, as aiosmtpd sees it, which cancels it when the client goes away. What is being decided about
    a message, and recorded, is not cut short by that; it ends when that is done."""

    def __init__(self, dialog: Dialog, task: asyncio.Task[None]) -> None:
        self._dialog, self._task = dialog, task

    def cancel(self) -> None:
        if not self._dialog.deciding:
            self._task.cancel()
        elif self._dialog.transport is not None:
            self._dialog.transport.close()  # gone() is true from now on


class _NoTimer:
    def cancel(self) -> None:
        """aiosmtpd cancels its timer when a connection ends."""


class Dialog(SMTP):
    """One client's connection.

    ``deadline`` is until when the client must have sent what is waited for; infinite while it is we who are busy.
    """

    _timeout_handle = cast(Any, _NoTimer())
    _original_transport = None
    _tls_protocol = None

    def __init__(self, desk: FrontDesk, told: str | None = None) -> None:
        """In place of aiosmtpd's, which reflects upon everything for each connection and looks up the host's name.

        ``told``: the client's address, where a proxy in front has said it; "" where it could not.
        """
        self.loop = desk.loop
        self.incoming = Incoming(self.loop)
        asyncio.StreamReaderProtocol.__init__(self, self.incoming, self._cb_client_connected, loop=self.loop)
        self.session = self.envelope = self.transport = self._handler_coroutine = None
        self.deadline = math.inf
        self.client_ip = self.peer_ip = ""
        self.trusted = False
        self.tls = False
        self.in_data = False
        self.deciding = False
        self._desk = desk
        self._limits = desk.listener.limits
        self._told = told
        self._farewell: Reply | None = None
        self._waiting = False
        self._quiet_since = math.inf
        self._commands = Commands(self, desk)
        self._pipeline = self._commands.pipeline

    # aiosmtpd's, kept or made to do nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self.client_ip = str((client_address(peer[0]) if isinstance(peer, tuple) else None) or "")
        if self._told:
            self.client_ip = self._told
        self.peer_ip = self.client_ip
        self.trusted = self._told != "" and within(self.client_ip, self._desk.listener.trust)
        super().connection_made(transport)
        task = cast(asyncio.Task[None], self._handler_coroutine)
        task.add_done_callback(self._over)
        self._handler_coroutine = cast(Any, _Task(self, task))
        self._note_tls(transport)
        self._desk.arrived(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._desk.parted(self)

    def _over(self, _: asyncio.Task[None]) -> None:
        """The dialog closes its connection itself, unless it was cancelled before its first step: by a client that had gone
        when we came to it, as a probe of the port does."""
        if self.transport is not None:
            self.transport.close()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """The reception looks at ``deadline``."""

    def _create_envelope(self) -> Any:
        """The transaction is kept by the commands."""

    async def handle_exception(self, error: Exception) -> str:
        """What a client hears of an error of ours. The words of the exception are for the log alone."""
        log.error("error in an SMTP dialog: %s", type(error).__name__, exc_info=error)
        return str(reply.INTERNAL_ERROR)

    async def _handle_client(self) -> None:
        try:
            refusal = self._desk.refusal(self)
            self._pipeline.say(refusal or self._desk.greeting)
            if refusal is not None:
                self._not_served(refusal)
                raise Over
            while True:
                await self._talk()
        except Over:
            await self._last_words()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or was parted from
        finally:
            self._commands.end()
            self.deadline = self._desk.monotonic() + self._limits.closing_seconds
            if self.transport is not None:
                self.transport.close()

    # the loop

    async def _talk(self) -> None:
        """Command after command, until one is refused or fails. Where nothing more has come, all are answered at once."""
        commands, pipeline, incoming = self._commands, self._pipeline, self.incoming
        line: bytes | None = None
        try:
            while True:
                line = incoming.line()
                if line is not None and len(pipeline.out) < MOST_REPLIES:
                    todo = commands.do(line)
                    if todo is not None:
                        await todo
                    continue
                if pipeline.asks:
                    await pipeline.settle()
                if pipeline.out:
                    await self.flush()
                if self._farewell is not None:
                    pipeline.say(self._farewell)
                    raise Over
                if line is None:
                    await self.more()
                else:
                    incoming.put_back(line)
                    await asyncio.sleep(0)  # others want to be heard, too
        except grammar.Refused as refused:
            commands.wrong(refused.reply)
        except Overlong:
            commands.wrong(reply.LINE_TOO_LONG)
        except (Over, ConnectionError):
            raise
        except Exception as error:
            await self.handle_exception(error)
            commands.failed(in_command=line is not None)

    async def more(self) -> None:
        """Wait for the client to send, no longer than it may take: for a whole command, or for any piece of content."""
        if self.deadline == math.inf:
            self._quiet_since = now = self._desk.monotonic()
            self.deadline = min(now + self._limits.idle_seconds, self._pipeline.deadline)
        self._waiting = True
        alive = await self.incoming.more()
        self._waiting = False
        if not alive:
            raise ConnectionResetError
        if self.in_data or self.incoming.has_line:
            self.deadline = math.inf

    async def flush(self) -> None:
        """All replies so far in one write; a client that does not read is waited for like one that does not write."""
        out = self._pipeline.take_replies()
        if not out:
            return
        if self.transport is None:
            raise ConnectionResetError
        transport = cast(asyncio.Transport, self.transport)
        transport.write(out)
        if transport.get_write_buffer_size():
            self.deadline = self._desk.monotonic() + self._limits.idle_seconds
            await self._writer.drain()
            self.deadline = math.inf

    async def _last_words(self) -> None:
        try:
            await self._pipeline.settle()
            await self.flush()
        except (ConnectionError, asyncio.CancelledError):
            pass  # nobody hears them
        except Exception as error:
            await self.handle_exception(error)

    async def start_tls(self, context: ssl.SSLContext, handshake_seconds: float) -> None:
        """What came in plain text before the handshake is nobody's word: forgotten (RFC 3207 section 4.2, CVE-2011-0411)."""
        plain = cast(asyncio.WriteTransport, self.transport)
        self.incoming.discard()
        try:
            transport = await self.loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=handshake_seconds
            )
        except OSError as error:  # ssl.SSLError is one
            raise ConnectionResetError from error
        if transport is None:
            raise ConnectionResetError
        self.transport = transport
        self.incoming.listen_to(cast(asyncio.ReadTransport, transport))
        self._writer._transport = transport  # type: ignore[attr-defined]  # or it would close the plain one
        self._note_tls(transport)

    def _note_tls(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and self.session is not None:
            self.tls = True
            self.session.ssl = {"ssl_object": tls}  # aiosmtpd's eof_received asks

    # what the reception asks

    def gone(self) -> bool:
        """Whether nobody is there any more to hear a reply."""
        return self.transport is None or self.transport.is_closing()

    def look(self, now: float) -> None:
        """Time passes: part from a client that took too long, and take from a slow one the relay connection it keeps."""
        if now >= self.deadline:
            if self.gone():
                if self.transport is not None:
                    cast(asyncio.Transport, self.transport).abort()  # it does not even read our last word
            else:
                self._part(reply.TIMED_OUT, Why.TOO_SLOW)
        elif self._waiting and self._pipeline.dawdling(now, self._quiet_since):
            self._part(reply.RELAY_PARTED, Why.RELAY_BUSY)

    def stop(self) -> None:
        """We shut down: at once where a client is waited for, but not in its content; else after what is being done."""
        self.part_after(reply.SHUTTING_DOWN, Why.STOPPING)

    def part_after(self, last: Reply, why: Why = Why.RELAY_LOST) -> None:
        self._farewell = last
        if self._waiting and not self.in_data:
            self._part(last, why)

    def become(self, address: str | None) -> Reply | None:
        """From now on it is another client's connection, with that client's rights; ``address``: None where it is not told. Why
        that client cannot be served, if it cannot."""
        before = self.client_ip
        if address is not None:
            self.client_ip = str(client_address(address) or "")
        self.trusted = bool(address) and within(self.client_ip, self._desk.listener.trust)
        return self._desk.renamed(self, before)

    def _not_served(self, refusal: Reply) -> None:
        self._desk.turned_away(
            TurnedAway(
                why=Why.STOPPING if refusal is reply.SHUTTING_DOWN else Why.CONNECTIONS,
                reply=refusal,
                client=self.client_ip,
                listener=self._desk.listener.name,
            )
        )

    def _part(self, last: Reply, why: Why) -> None:
        """Say ``last`` and close, from outside the dialog's own task. A transaction with recipients is turned away by it."""
        if self._pipeline.recipients and not self.deciding:
            self._pipeline.turn_away(why, last)
        if not self.gone():
            transport = cast(asyncio.Transport, self.transport)
            transport.write(last.wire())
            transport.close()
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    def cut_off(self) -> None:
        """The time for parting is over."""
        if self.transport is not None:
            self._part(reply.SHUTTING_DOWN, Why.STOPPING)
            cast(asyncio.Transport, self.transport).abort()
