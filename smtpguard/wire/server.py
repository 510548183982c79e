"""The SMTP server: each client's connection around its session (wire.session), which implements the commands; and all
connections of a listener, counted by client, and refused above its limits (RFC 5321 section 3.8).

A connection subclasses aiosmtpd's SMTP protocol; all overrides are in this file. Kept is the end of a connection (an EOF cancels
what serves the client). Its start, the loop over commands and the commands are replaced, for these reasons:

- input is processed as it comes, without a task that waits for every line; a task runs only while something is waited for:
  the guard, a connection to the relay, a TLS handshake, a login, the disk;
- commands are read from raw octets; a bare LF, a CR or a NUL in one is refused and changes nothing;
- commands that came together are passed to the relay together, and answered in one write;
- the reception checks time limits, instead of a timer for every line;
- a new connection costs no introspection of handlers and no look-up of a host name; clients see no exceptions;
  aiosmtpd's log is not written, since it contains addresses and content.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from math import inf
from types import SimpleNamespace
from typing import Any, cast

from aiosmtpd.smtp import SMTP

from smtpguard.mail import reply
from smtpguard.mail.constant import maker
from smtpguard.mail.envelope import Envelope, RefusedRecipient, Session, Transaction, client_address, within
from smtpguard.mail.reply import Reply
from smtpguard.wire import events
from smtpguard.wire.connections import Admit, Connections
from smtpguard.wire.events import Event
from smtpguard.wire.identity import Identity
from smtpguard.wire.listener import Listener
from smtpguard.wire.login import Login, Logins
from smtpguard.wire.pool import Routing
from smtpguard.wire.proxy import Asking, Passage
from smtpguard.wire.relay import RelayUnavailable
from smtpguard.wire.session import SmtpSession, log_failure
from smtpguard.wire.turnedaway import TurnedAway, Why

HIGH_OCTETS = 1 << 18
"""No more is read from a client with this much unprocessed input."""

_new_transaction = maker(Transaction)
logging.getLogger("mail.log").disabled = True
log = logging.getLogger("smtpguard.wire")

NoteRefused = Callable[[str, Session, Envelope, tuple[RefusedRecipient, ...]], None]
"""Journals a transaction, under the given id."""
Work = tuple[Coroutine[Any, Any, Any], Callable[[Any], None]]
"""A coroutine that takes time, and the function for its result."""


class Dialog(SMTP):
    """One client's connection."""

    _timeout_handle = cast(Any, SimpleNamespace(cancel=lambda: None))  # aiosmtpd cancels its timer at the end
    _original_transport = None

    # so the dict, of its bases' attributes, stays small
    __slots__ = (
        "_again", "_asked_at", "_closed_by", "_deaf", "_farewell", "_finished", "_limits", "_listener", "_login",
        "_monotonic", "_owner", "_passage", "_quiet_since", "_response", "_smtp", "_told", "_unread", "_work",
    )  # fmt: skip

    def __init__(self, owner: Reception, told: str | None = None) -> None:
        """In place of aiosmtpd's, which inspects its handlers for each connection and looks up the host's name.

        ``told``: the client's address, as a proxy in front gave it; "" if it could not.
        """
        self.loop = owner.loop
        asyncio.StreamReaderProtocol.__init__(self, cast(Any, None), None, loop=self.loop)
        self.session = self.envelope = self.transport = self._handler_coroutine = None
        self._owner, self._listener, self._limits = owner, owner.listener, owner.listener.limits
        self._monotonic = owner.monotonic
        self._told = told
        self._work: asyncio.Task[None] | None = None
        self._response: asyncio.Future[bytes | None] | None = None
        self._passage: Passage | None = None
        self._login: Login | None = None
        self._farewell: tuple[Reply, Why] | None = None
        self._asked_at = inf
        self._quiet_since = inf  # since when the client is to send, or to read; infinite while we are busy
        self._closed_by = inf
        self._deaf = self._unread = self._again = self._finished = False

    # aiosmtpd's, kept or made to do nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        address = self._told or str((client_address(peer[0]) if isinstance(peer, tuple) else None) or "")
        trusted = self._told != "" and within(address, self._listener.trust)
        tls = transport.get_extra_info("ssl_object") is not None
        who = Identity(self._listener, address, trusted=trusted, tls=tls, logins=self._owner.logins is not None)
        self._smtp = SmtpSession(self._listener, who, self._owner.greeting, monotonic=self._owner.monotonic)
        self.transport = cast(asyncio.Transport, transport)
        self.session = self._create_session()
        # the task that serves the client, as aiosmtpd sees it; it cancels it when the client disconnects
        self._handler_coroutine = cast(Any, SimpleNamespace(cancel=self._client_has_gone))
        if tls:
            self._tell_aiosmtpd_of_tls(transport)
        else:  # a reply is written at once, and not after the other work of this turn of the event loop
            cast(asyncio.Transport, transport).set_write_buffer_limits(high=0)
        self._owner.arrived(self)
        refusal = self._owner.refusal(self)
        if refusal is not None:
            why = Why.STOPPING if refusal is reply.SHUTTING_DOWN else Why.CONNECTIONS
            self._owner.turned_away(
                TurnedAway(why=why, reply=refusal, client=self.client_ip, listener=self._listener.name)
            )
        self._smtp.greet(refusal)
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._owner.parted(self)

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return
        smtp = self._smtp
        smtp.receive(data)
        if smtp.waits or self._unread:
            if smtp.held > HIGH_OCTETS:
                self._listen(False)
            return
        said = smtp.reply_at_once()
        if said is not None:  # nearly every command but RCPT
            transport: Any = self.transport
            transport.write(said)
            self._quiet_since = self._monotonic()
            return
        if smtp.in_data or b"\n" in data:  # a single octet of a command does not prolong the deadline
            self._quiet_since = inf
        self._go_on()

    def pause_writing(self) -> None:
        self._unread = True

    def resume_writing(self) -> None:
        """A client that does not read is timed out like one that does not write."""
        self._unread = False
        if not self._smtp.waits and not self._finished:
            self._quiet_since = inf
            self._go_on()

    def _tell_aiosmtpd_of_tls(self, transport: asyncio.BaseTransport) -> None:
        if self.session is not None:
            self.session.ssl = {"ssl_object": transport.get_extra_info("ssl_object")}  # its eof_received asks

    # processing input

    def _go_on(self) -> None:
        """Process the input until something takes time; then write all replies so far at once."""
        smtp = self._smtp
        while (event := smtp.next_event()) is not None:
            try:
                work = _HANDLERS[type(event)](self, event)
            except Exception as error:
                if smtp.waits:
                    smtp.failed(error)
                else:
                    log_failure(error)
                continue
            if work is not None:
                self._begin(*work)
            if smtp.waits:
                self._quiet_since = inf
                return
        out = smtp.replies()
        transport: Any = self.transport
        if out and transport is not None and not transport.is_closing():
            transport.write(out)
        if smtp.over:
            self._finish()
        elif smtp.more and not self._unread:
            self._turn()
        elif self._farewell is not None and not smtp.in_data:
            self._part(*self._farewell)
        else:  # the client is to send, or to read
            if self._deaf and not self._unread:
                self._listen(True)
            if self._quiet_since == inf:
                self._quiet_since = self._monotonic()

    def _turn(self) -> None:
        """Give other connections a turn."""
        if not self._again:
            self._again = True
            self.loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._again = False
        if not self._smtp.waits and not self._unread and not self._finished:
            self._go_on()

    def _listen(self, on: bool) -> None:
        if self._deaf is not on or self.gone():
            return
        self._deaf = not on
        transport = cast(asyncio.Transport, self.transport)
        if on:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _begin(self, work: Coroutine[Any, Any, Any], answer: Callable[[Any], None]) -> None:
        self._work = self.loop.create_task(self._worked(work, answer))
        self._work.add_done_callback(lambda _: work.close())  # a client that leaves at once cancels it before it begins

    async def _worked(self, work: Coroutine[Any, Any, Any], answer: Callable[[Any], None]) -> None:
        """Work that takes time. It is cancelled if the connection ends before."""
        try:
            answer(await work)
        except asyncio.CancelledError:
            return
        except ConnectionError:
            self._work = None
            self._finish()
        except Exception as error:
            self._smtp.failed(error)
        self._work = None
        self._answer_given()

    def _answer_given(self) -> None:
        if self.gone():
            self._client_has_gone()
        elif not self._finished:
            self._go_on()

    # slow work

    def _ask_relay(self, event: events.AskRelay) -> Work | None:
        if self._passage is None:
            who, routing, listener, login = self._smtp.who, self._owner.routing, self._listener, self._login
            if login is None or login.line is None:
                self._passage = Passage(routing.first, who, event.mail, listener, routing.choose)
            else:
                self._passage = Passage(login.line, who, event.mail, listener, None)
        work = self._passage.ask(event.rcpts, self._relay_answered)
        return (work, self._answered) if work is not None else None

    def _relay_answered(self, answers: list[Reply] | Asking) -> None:
        if not isinstance(answers, list):
            self._begin(answers, self._answered)
            return
        try:
            self._answered(answers)
        except Exception as error:
            self._smtp.failed(error)
        self._answer_given()

    def _answered(self, answers: Sequence[Reply]) -> None:
        passage = self._passage
        assert passage is not None
        self._asked_at = self._monotonic()
        self._smtp.answered(answers, passage.why, passage.broken)

    def _ask_offer(self, _: events.AskOffer) -> Work | None:
        offered = self._owner.routing.offered
        if offered is None:
            return self._first_offer(), self._smtp.offered
        self._smtp.offered(offered)
        return None

    async def _first_offer(self) -> Mapping[str, str] | Why:
        try:
            return await self._owner.routing.extensions()
        except RelayUnavailable as unavailable:
            return unavailable.word

    async def _handshake(self) -> asyncio.BaseTransport:
        """Plain text before the handshake is dropped: from ``start_tls`` on all input is TLS."""
        tls = self._listener.tls
        assert tls is not None
        cast(asyncio.WriteTransport, self.transport).write(self._smtp.replies())
        self._smtp.forget()
        self._listen(True)
        try:
            transport = await self.loop.start_tls(
                cast(asyncio.WriteTransport, self.transport),
                self,
                tls.context,
                server_side=True,
                ssl_handshake_timeout=tls.handshake_seconds,
            )
        except OSError as error:  # ssl.SSLError is one
            raise ConnectionResetError from error
        if transport is None:
            raise ConnectionResetError
        return transport

    def _secured(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._tell_aiosmtpd_of_tls(transport)
        self._log_out()
        self._smtp.secured()

    def _log_in(self, event: events.LogIn) -> Work:
        if self._login is None:
            assert self._owner.logins is not None
            self._login = Login(self._smtp.who, self._respond, self._owner.logins, lost=self._relay_parted)
        return self._login.attempt(event.argument, event.mechanisms), self._logged_in

    def _logged_in(self, answer: Reply) -> None:
        self._smtp.logged_in(answer, self._login.user if self._login is not None else None)

    def _relay_parted(self) -> None:
        """Give a logged-in client the reply that it would have got from the relay itself, and close."""
        self.part_after(reply.RELAY_PARTED, Why.RELAY_LOST)

    def _log_out(self) -> None:
        login, self._login = self._login, None
        if login is not None:
            login.close()

    def _responded(self, event: events.Response) -> None:
        response = self._response
        if response is not None and not response.done():
            response.set_result(event.line)

    def _unload(self, event: events.Unload) -> Work:
        self._listen(False)  # at once: uvloop would go on reading from the socket
        return asyncio.to_thread(event.arriving.unload), self._smtp.unloaded

    def _finish_content(self, event: events.Finish) -> Work:
        return asyncio.to_thread(event.arriving.finish), self._smtp.arrived

    def _decide(self, event: events.Decide) -> Work:
        """Let the guard decide, and reply with the result. A client that disconnects meanwhile does not interrupt it."""
        passage, self._passage = self._passage, None
        assert passage is not None
        passage.content = event.arrived
        transaction = _new_transaction(
            id=self._owner.new_id(),
            session=self._smtp.who.session,
            envelope=event.envelope,
            message=event.arrived.message,
            refused=event.refused,
            gone=self.gone,
        )
        return self._owner.carry(transaction, passage), self._smtp.carried

    # notifications

    def _reset(self, _: events.Reset) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.release()

    def _new_client(self, event: events.NewClient) -> None:
        self._log_out()
        self._smtp.client_is(self._owner.renamed(self, event.before) if event.renamed else None)

    def _came_to_nothing(self, event: events.CameToNothing) -> None:
        self._owner.note_refused(self._owner.new_id(), event.session, event.envelope, event.refused)

    # the end

    def _client_has_gone(self) -> None:
        """A decision in progress, and its record, is not interrupted; the connection ends after it."""
        if self._smtp.deciding:
            if self.transport is not None:
                self.transport.close()  # gone() is true from now on
        else:
            self._finish()

    def _finish(self) -> None:
        """Drop the client's state; only a last reply may still be read."""
        if not self._finished:
            self._finished = True
            work, self._work = self._work, None
            if work is not None:
                work.cancel()
            self._log_out()  # first: its QUIT ends its transaction too
            self._smtp.end()
            while (event := self._smtp.next_event()) is not None:
                try:
                    _HANDLERS[type(event)](self, event)
                except Exception as error:
                    log_failure(error)
            self._closed_by = self._monotonic() + self._limits.closing_seconds
        if self.transport is not None:
            self.transport.close()

    def _part(self, last: Reply, why: Why) -> None:
        """Send ``last`` and close. A transaction with recipients is turned away by it."""
        self._smtp.turn_away(why, last)
        if not self.gone():
            cast(asyncio.Transport, self.transport).write(last.octets)
        self._client_has_gone()

    # for others

    @property
    def client_ip(self) -> str:
        """The address for which the connection speaks."""
        return self._smtp.who.client_ip

    @property
    def trusted(self) -> bool:
        return self._smtp.who.trusted

    @property
    def deadline(self) -> float:
        """The time by which the client must have sent its input, or read its output; infinite while we are busy."""
        if self._finished:
            return self._closed_by
        return (
            inf if self._quiet_since == inf else min(self._quiet_since + self._limits.idle_seconds, self._smtp.deadline)
        )

    def gone(self) -> bool:
        """Whether the client has disconnected."""
        return self.transport is None or self.transport.is_closing()

    async def _respond(self, challenge: Reply) -> bytes | None:
        """See login.Login."""
        self._smtp.challenge(challenge)
        self._response = self.loop.create_future()
        self._go_on()
        return await self._response

    def look(self, now: float) -> None:
        """Called periodically: close a client that took too long, and take the relay connection from a slow one."""
        if now >= self.deadline:
            if self.gone() or self._finished:
                if self.transport is not None:
                    cast(asyncio.Transport, self.transport).abort()  # it does not read our last reply
            else:
                self._part(reply.TIMED_OUT, Why.TOO_SLOW)
        elif not self._smtp.waits and self._dawdling(now):
            self._part(reply.RELAY_PARTED, Why.RELAY_BUSY)

    def _dawdling(self, now: float) -> bool:
        """Whether the client is so slow that others get its relay connection; for a logged-in client's own connection,
        whether others need it."""
        if self._login is not None and self._login.line is not None:
            return self._owner.routing.first.pressed and now - self._quiet_since >= self._limits.quiet_login_seconds
        if self._passage is not None:
            longest = self._limits.pressed_seconds if self._passage.pressed else self._limits.dawdle_seconds
            if now - self._asked_at >= longest:
                self._passage.release()
        return False

    def stop(self) -> None:
        """Shutting down: close at once if a client is waited for, but not within its content; else after the current
        work."""
        self.part_after(reply.SHUTTING_DOWN, Why.STOPPING)

    def part_after(self, last: Reply, why: Why) -> None:
        self._farewell = last, why
        if not self._smtp.waits and not self._smtp.in_data and not self._finished:
            self._part(last, why)

    def cut_off(self) -> None:
        """The grace is over."""
        if self.transport is not None:
            self._part(reply.SHUTTING_DOWN, Why.STOPPING)
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()


_HANDLERS: dict[type[Event], Callable[[Dialog, Any], Work | None]] = {
    events.AskRelay: Dialog._ask_relay,
    events.AskOffer: Dialog._ask_offer,
    events.StartTls: lambda dialog, _: (dialog._handshake(), dialog._secured),
    events.LogIn: Dialog._log_in,
    events.Response: Dialog._responded,
    events.NewClient: Dialog._new_client,
    events.Unload: Dialog._unload,
    events.Finish: Dialog._finish_content,
    events.Decide: Dialog._decide,
    events.Reset: Dialog._reset,
    events.CameToNothing: Dialog._came_to_nothing,
    TurnedAway: lambda dialog, event: dialog._owner.turned_away(event),
}


class Reception(Connections[Dialog]):
    def __init__(
        self,
        listener: Listener,
        routing: Routing,
        admit: Admit,
        *,
        new_id: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        logins: Logins | None,
        turned_away: Callable[[TurnedAway], None],
        note_refused: NoteRefused,
    ) -> None:
        """``logins``: set if clients may log in. ``note_refused``: called for each transaction without a message after the
        relay refused recipients; nobody waits for it."""
        super().__init__(listener, admit, new_id=new_id, monotonic=monotonic, turned_away=turned_away)
        self.routing, self.logins, self.note_refused = routing, logins, note_refused
        self.greeting = Reply(220, (f"{listener.hostname} ESMTP",))
        self._per_client: Counter[str] = Counter()

    def _made(self, client: str | None) -> Dialog:
        return Dialog(self, client)

    def arrived(self, one: Dialog) -> None:
        super().arrived(one)
        self._per_client[one.client_ip] += 1

    def parted(self, one: Dialog) -> None:
        if one in self._open:
            super().parted(one)
            self._forget(one.client_ip)

    def renamed(self, dialog: Dialog, before: str) -> Reply | None:
        """Count a client under its new address; returns why it cannot be served, if it cannot."""
        self._forget(before)
        self._per_client[dialog.client_ip] += 1
        return self.refusal(dialog)

    def _forget(self, client: str) -> None:
        self._per_client[client] -= 1
        if not self._per_client[client]:
            del self._per_client[client]

    def refusal(self, dialog: Dialog) -> Reply | None:
        """Why a client that has connected cannot be served now."""
        limits = self.listener.limits
        if self.stopping:
            return reply.SHUTTING_DOWN
        if len(self._open) > limits.connections:
            return reply.TOO_MANY_CONNECTIONS
        if not dialog.trusted and self._per_client[dialog.client_ip] > limits.connections_per_client:
            return reply.TOO_MANY_CONNECTIONS
        return None
