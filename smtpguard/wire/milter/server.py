"""The milter's server: MTAs' connections, each a conversation, and what became of each message told to the MTA.

A connection costs a protocol object and what its message holds; no task runs for one that is silent, and what the MTA need not
wait for gets no answer. All is answered at the end of the message: ACCEPT with our trace, DISCARD once a hold is committed, or
an SMTP reply. Whatever is no milter protocol ends the connection; the MTA then answers as its settings say
(``milter_default_action = tempfail``). Never here: what a packet is (codec), or where it may come (states).
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

from smtpguard.mail import reply
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Lost, Onward, Recalled, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Relayed
from smtpguard.wire.listener import Network, client_address, within
from smtpguard.wire.milter.acceptance import Acceptance
from smtpguard.wire.milter.codec import MOST_OCTETS, ProtocolError, commands, encode
from smtpguard.wire.milter.content import Assembling
from smtpguard.wire.milter.letter import Client, House, Letter
from smtpguard.wire.milter.packet import (
    Abort,
    Answer,
    Body,
    Command,
    Connect,
    Continue,
    Discard,
    EndOfHeader,
    EndOfMessage,
    HeaderField,
    Helo,
    Macros,
    Mail,
    Negotiate,
    Quit,
    QuitNext,
    Rcpt,
    SmtpReply,
)
from smtpguard.wire.milter.states import Conversation, State

log = logging.getLogger("smtpguard.wire")

Admit = Callable[[Transaction, Onward], Awaitable[Disposition]]
LOOK_SECONDS = 5.0
_WAITING = frozenset({State.NEW, State.AGREED, State.IDLE, State.MAIL})
"""Where no message is lost, nor work of the client's, if the connection ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds. ``idle``: the MTA is silent for as long as its client is, so only one that has vanished is meant; ``packet``: from
    the first octet of a packet to its last; ``closing``: for answers that are not read."""

    idle: float = 7200
    packet: float = 120
    closing: float = 10


class MilterReception:
    """Every connection of MTAs to one listener. To be made and used in one event loop. ``trust``: who may come over the network;
    a Unix socket's permissions, and loopback, say it for themselves."""

    def __init__(
        self,
        house: House,
        admit: Admit,
        *,
        new_id: Callable[[], str],
        trust: tuple[Network, ...] = (),
        patience: Patience | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.house, self.admit, self.new_id, self.monotonic = house, admit, new_id, monotonic
        self.patience = patience or Patience()
        self.loop = asyncio.get_running_loop()
        self._trust = trust
        self._links: dict[Link, Callable[[], None] | None] = {}
        self._deciding = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def connections(self) -> int:
        return len(self._links)

    async def serve_connection(self, sock: socket.socket, over: Callable[[], None] | None = None) -> None:
        """Take over an accepted connection; returns when it is set up, and calls ``over`` when it has ended."""
        _, link = await self.loop.connect_accepted_socket(lambda: Link(self), sock)
        if over is None:
            return
        if link in self._links:
            self._links[link] = over
        else:  # it came and went meanwhile
            over()

    def arrived(self, link: Link, peer: str | None) -> bool:
        """Whether it is let in. ``peer``: its address, None on a Unix socket."""
        address = client_address(peer) if peer is not None else None
        if address is not None and not address.is_loopback and not within(str(address), self._trust):
            log.warning("a milter connection from %s, which trust does not name: closed", address)
            return False
        if self._stopping:
            return False
        self._links[link] = None
        self._quiet.clear()
        if self._timer is None:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._tick)
        return True

    def parted(self, link: Link) -> None:
        over = self._links.pop(link, None)
        if over is not None:
            over()
        self._perhaps_quiet()

    # messages

    async def decide(self, transaction: Transaction, acceptance: Acceptance) -> Answer | None:
        """Ask the guard, which does it. The answer that is still to be given; None where ACCEPT was said."""
        self._deciding += 1
        try:
            disposition = await self.admit(transaction, acceptance)
        except Lost as lost:
            return SmtpReply(lost.reply)
        except Recalled:
            return SmtpReply(reply.RECALLED)
        except Exception as error:
            log.error("error in deciding %s: %s", transaction.id, type(error).__name__, exc_info=error)
            return SmtpReply(reply.INTERNAL_ERROR)
        finally:
            self._deciding -= 1
            self._perhaps_quiet()
        if acceptance.said:
            return None
        match disposition:
            case Held():
                return Discard()
            case Rejected(reply=answer) | Deferred(reply=answer):
                return SmtpReply(answer)
            case Relayed():
                log.error("%s was relayed without a word to the MTA", transaction.id)
        return SmtpReply(reply.INTERNAL_ERROR)

    def _perhaps_quiet(self) -> None:
        if not self._links and not self._deciding:
            self._quiet.set()

    # time and the end

    def look(self) -> None:
        """Part from MTAs that took too long."""
        now = self.monotonic()
        for link in tuple(self._links):
            link.look(now)

    def _tick(self) -> None:
        self._timer = None
        self.look()
        if self._links:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._tick)

    async def stop(self, grace_seconds: float = 30) -> int:
        """Part from those without a message under way, let the others finish; gives how many had to be cut off after that."""
        self._stopping = True
        for link in tuple(self._links):
            link.stop()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._quiet.wait()
        except TimeoutError:
            pass
        left = len(self._links)
        for link in tuple(self._links):
            link.cut_off()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return left


class Link(asyncio.Protocol):
    """One connection of an MTA."""

    def __init__(self, desk: MilterReception) -> None:
        self._desk = desk
        self._house = desk.house
        self._decoder = commands()
        self._conversation = Conversation()
        self._client = Client()
        self._letter: Letter | None = None
        self._transport: asyncio.Transport | None = None
        self._working: asyncio.Task[None] | None = None
        self._ending = False
        self._deadline = math.inf

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        peer: str | None = None
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            peer = str(transport.get_extra_info("peername")[0])
        if not self._desk.arrived(self, peer):
            self._transport.close()
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        if self._working is None:
            self._go_on()
        elif self._decoder.waiting > MOST_OCTETS:  # it is to wait for our answer
            self._broken(ProtocolError("more than can be kept while a message is decided on"))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._working is None:
            self._drop()
        self._desk.parted(self)

    def gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    # commands

    def _go_on(self) -> None:
        """All that has come, until something takes time."""
        try:
            while not self.gone() and (command := self._decoder.next()) is not None:
                work = self._hear(command)
                if work is not None:
                    self._deadline = math.inf
                    self._working = self._desk.loop.create_task(work)
                    self._working.add_done_callback(self._worked)
                    return
            self._wait()
            if self._transport is not None and not self.gone():
                self._transport.resume_reading()
        except ProtocolError as error:
            self._broken(error)
        if self._ending and self._conversation.state in _WAITING and self._transport is not None:
            self._transport.close()

    def _hear(self, command: Command) -> Coroutine[Any, Any, None] | None:
        due = self._conversation.hear(command)
        answer: Answer = Continue()
        match command:
            case HeaderField(name, value):
                space = b"" if self._conversation.leading_space else b" "
                self._message.content.field(name, space + value)
            case Body(piece):
                content = self._message.content
                content.body(piece)
                if content.heavy:
                    assert self._transport is not None
                    self._transport.pause_reading()  # at once: uvloop would go on with what the socket holds
                    return self._unload(content, due)
            case Macros():
                self._client.known.learn(command)
            case Rcpt():
                refusal = self._message.rcpt(command)
                answer = SmtpReply(refusal) if refusal is not None else answer
            case Mail():
                self._close_letter()
                self._client.known.begin_message()
                self._letter = Letter(command, self._client.known, self._house)
            case EndOfHeader():
                self._message.content.end_of_header()
            case EndOfMessage(piece):
                self._message.content.body(piece)
                return self._finish()
            case Connect():
                self._client.connected(command)
            case Helo(name):
                self._drop()
                self._client.greeted(name)
            case Abort():
                self._drop()
            case Negotiate():
                self._new_client()
                assert self._conversation.agreed is not None
                answer = self._conversation.agreed
            case QuitNext():
                self._new_client()
            case Quit():
                assert self._transport is not None
                self._transport.close()
        if due:
            self._say(answer)
        return None

    @property
    def _message(self) -> Letter:
        assert self._letter is not None, "the table lets nothing of a message come before MAIL"
        return self._letter

    def _new_client(self) -> None:
        self._drop()
        self._client = Client()

    def _drop(self) -> None:
        self._close_letter()
        self._client.known.forget_message()

    def _close_letter(self) -> None:
        letter, self._letter = self._letter, None
        if letter is not None:
            letter.content.close()

    # what takes time

    async def _unload(self, content: Assembling, due: bool) -> None:
        """To the disk; the MTA is not read from meanwhile."""
        await content.unload()
        if due:
            self._say(Continue())

    async def _finish(self) -> None:
        letter, client = self._message, self._client
        arrived = await letter.finish()
        if isinstance(arrived, Reply):
            self._say(SmtpReply(arrived))
            return self._drop()
        known = client.known
        acceptance = Acceptance(
            letter,
            self._say_all,
            self.gone,
            leading_space=self._conversation.leading_space,
            queue=f"{known.get(b'j') or 'the MTA'} as {known.get(b'i') or 'it likes'}",
        )
        transaction = Transaction(
            id=self._desk.new_id(),
            session=client.session(self._house),
            envelope=letter.envelope,
            message=arrived.message,
            gone=self.gone,
            pass_rest=acceptance.pass_rest,
        )
        answer = await self._desk.decide(transaction, acceptance)
        if answer is not None:
            self._say(answer)
        return self._drop()

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("error in a milter connection: %s", type(error).__name__, exc_info=error)
            if self._transport is not None:
                self._transport.close()
        if self._transport is None:
            self._drop()
        else:
            self._go_on()

    # answers

    def _say(self, answer: Answer) -> None:
        self._say_all([answer])

    def _say_all(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._conversation.say(answer)
        if not self.gone():
            assert self._transport is not None
            self._transport.write(b"".join(map(encode, answers)))

    def _broken(self, error: ProtocolError) -> None:
        log.warning("a milter connection was ended: %s", error)
        if self._transport is not None:
            self._transport.abort()

    # time and the end

    def _wait(self) -> None:
        patience = self._desk.patience
        self._deadline = self._desk.monotonic() + (patience.packet if self._decoder.waiting else patience.idle)

    def look(self, now: float) -> None:
        if now < self._deadline or self._transport is None:
            return
        if self._transport.is_closing():
            self._transport.abort()  # it does not even read our last word
        else:
            log.info("a milter connection was silent for too long: closed")
            self._transport.close()
            self._deadline = now + self._desk.patience.closing

    def stop(self) -> None:
        """We shut down: at once where nothing is lost by it, else after the message."""
        self._ending = True
        if self._working is None and self._conversation.state in _WAITING and self._transport is not None:
            self._transport.close()

    def cut_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()
