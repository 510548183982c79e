"""The milter: an MTA passes us every message that it accepts. The connections of MTAs to one milter listener receive their
packets, assemble a client's session and its messages (RFC 5321 sections 2.3.1 and 3.3), and answer with the outcome of
each message.

One costs a protocol object and the content of its message. A silent connection has no task. Packets that the MTA need
not wait for get no answer; everything is answered at the end of the message: DISCARD once a hold is committed, or an
SMTP reply; ACCEPT was sent before, with our trace (``send``). Anything outside the protocol ends the
connection; the MTA then answers as its settings say (``milter_default_action = tempfail``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from smtpguard.mail import reply
from smtpguard.mail.envelope import Fence, Lost, Recalled, Recipient, Session, Transaction, client_address
from smtpguard.mail.message import Message, parse_header
from smtpguard.mail.reply import Reply
from smtpguard.wire import milterpackets as packet
from smtpguard.wire.connections import Connections
from smtpguard.wire.conversation import Conversation, State
from smtpguard.wire.miltermessage import Assembling, Client, MilterMessage
from smtpguard.wire.milterpackets import Answer, Command, ProtocolError
from smtpguard.wire.turnedaway import Why, why_content

log = logging.getLogger("smtpguard.wire")

_WAITING = frozenset({State.NEW, State.AGREED, State.IDLE, State.MAIL})
"""States in which ending the connection loses no message, and no work of the client."""


IDLE_SECONDS = 7200.0
"""An MTA is silent as long as its client is, so this is only for one that has vanished."""
PACKET_SECONDS = 120.0
"""From the first octet of a packet to its last."""
CLOSING_SECONDS = 10.0
"""For answers that are not read."""


class MilterConnection(asyncio.Protocol):
    def __init__(self, owner: MilterReception) -> None:
        self._owner = owner
        self._decoder = packet.commands()
        self._conversation = Conversation()
        self._mta = ""
        self._client = Client()
        self._letter: MilterMessage | None = None
        self._transport: asyncio.Transport | None = None
        self._working: asyncio.Task[None] | None = None
        self._accepted = self._ending = False
        self._deadline = math.inf

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._mta = str(client_address(str(transport.get_extra_info("peername")[0])) or "")
        self._client = Client(self._mta)
        if self._owner.stopping:
            self._transport.close()
        else:
            self._owner.arrived(self)
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        if self._working is None:
            self._go_on()
        elif self._decoder.waiting > packet.MOST_OCTETS:  # the MTA must wait for our answer
            self._broken(ProtocolError("more than can be kept while a message is decided on"))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._working is None:
            self._drop()
        self._owner.parted(self)

    def gone(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    # commands

    def _go_on(self) -> None:
        """Process the input until something takes time."""
        try:
            while not self.gone() and (command := self._decoder.next()) is not None:
                work = self._hear(command)
                if work is not None:
                    self._deadline = math.inf
                    self._working = self._owner.loop.create_task(work)
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
        answer: Answer = packet.Continue()
        match command:
            case packet.HeaderField(name, value):
                space = b"" if self._conversation.leading_space else b" "
                self._message.content.field(name, space + value)
            case packet.Body(piece):
                content = self._message.content
                content.body(piece)
                if content.heavy:
                    assert self._transport is not None
                    self._transport.pause_reading()  # at once: uvloop would go on reading from the socket
                    return self._unload(content, due)
            case packet.Macros():
                self._client.known.learn(command)
            case packet.Rcpt():
                refusal = self._message.rcpt(command, self._client)
                answer = packet.SmtpReply(refusal) if refusal is not None else answer
            case packet.Mail():
                self._close_letter()
                self._client.known.begin_message()
                self._letter = MilterMessage(command, self._client.known, self._owner.listener)
            case packet.EndOfHeader():
                self._message.content.end_of_header()
            case packet.EndOfMessage(piece):
                if not self._message.recipients:
                    raise ProtocolError("a message to recipients that were all refused")
                self._message.content.body(piece)
                return self._finish()
            case packet.Connect():
                self._client.connected(command)
            case packet.Helo(name):
                self._drop()
                self._client.greeted(name)
            case packet.Abort():
                self._drop()
            case packet.Negotiate():
                self._new_client()
                assert self._conversation.agreed is not None
                answer = self._conversation.agreed
            case packet.QuitNext():
                self._new_client()
            case packet.Quit():
                assert self._transport is not None
                self._transport.close()
        if due:
            self._say(answer)
        return None

    @property
    def _message(self) -> MilterMessage:
        assert self._letter is not None, "the table lets nothing of a message come before MAIL"
        return self._letter

    def _new_client(self) -> None:
        self._drop()
        self._client = Client(self._mta)

    def _drop(self) -> None:
        self._close_letter()
        self._client.known.forget_message()

    def _close_letter(self) -> None:
        letter, self._letter = self._letter, None
        if letter is None:
            return
        letter.content.close()
        if letter.refused_in is not None:  # the whole message; or it goes on without those recipients, or was dropped
            self._owner.turned_away(letter.refusals.report(letter.refused_in, letter.envelope))

    def _turn_away(self, session: Session, why: Why, answer: Reply, message: Message | None = None) -> None:
        """The whole message: recipients that were refused before are included, and it is reported once, when it is
        dropped. ``message``: None if its content cannot be accepted."""
        letter = self._message
        letter.refused_in, letter.refusals.first = session, None
        letter.refusals.turn_away(why, answer, message)
        self._say(packet.SmtpReply(answer))

    # slow work

    async def _unload(self, content: Assembling, due: bool) -> None:
        """Move content to the disk; nothing is read from the MTA meanwhile."""
        await asyncio.to_thread(content.unload)
        if due:
            self._say(packet.Continue())

    async def _finish(self) -> None:
        letter = self._message
        arrived = await letter.finish()
        session = self._client.session(self._owner.listener)
        if isinstance(arrived, Reply):
            self._turn_away(session, why_content(arrived), arrived)
            return self._drop()
        self._accepted = False
        transaction = Transaction(
            id=self._owner.new_id(),
            session=session,
            envelope=letter.envelope,
            message=arrived.message,
            gone=self.gone,
            pass_rest=self.pass_rest if letter.can_delete else None,
        )
        carried = await self._owner.carry(transaction, self)
        if not self._accepted:
            if carried.why is not None:
                self._turn_away(session, carried.why, carried.reply, arrived.message)
            elif carried.held:
                self._say(packet.Discard())
            elif carried.reply.positive:
                log.error("%s was relayed without a word to the MTA", transaction.id)
                self._say(packet.SmtpReply(reply.INTERNAL_ERROR))
            else:
                self._say(packet.SmtpReply(carried.reply))
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

    # the Onward of the message that is decided on (mail.envelope)

    def begin(self) -> None:
        """The MTA has the content."""

    async def send(self, prepend: bytes, fence: Fence) -> tuple[Reply, ...]:
        return (await self.pass_rest(prepend, fence, ()),)

    async def pass_rest(self, prepend: bytes, fence: Fence, held: Sequence[Recipient]) -> Reply:
        """Pass the message to the recipients who are not ``held`` (see mail.envelope.Transaction)."""
        stands = await fence()
        if self.gone():
            raise Lost(reply.RELAY_LOST)
        if not stands:
            raise Recalled
        self._accepted = True
        space = b" " if self._conversation.leading_space else b""
        ours = [f for f in parse_header(prepend).fields if f.name.lower() != "received"]
        inserted = [
            packet.InsertHeader(index, f.name.encode(), space + f.raw.replace(b"\r\n", b"\n").strip())
            for index, f in enumerate(ours)
        ]
        self._say(*inserted, *map(packet.DeleteRecipient, self._message.paths_of(held)), packet.Accept())
        known = self._client.known
        queue_id = known.get(b"i")
        where = f"In the queue of {known.get(b'j') or 'the MTA'}"
        return Reply.of(250, "2.0.0", f"{where} as {queue_id}" if queue_id else where)

    async def abandon(self) -> None:
        """The answer instead of ACCEPT follows from the disposition."""

    # answers

    def _say(self, *answers: Answer) -> None:
        for answer in answers:
            self._conversation.say(answer)
        if not self.gone():
            assert self._transport is not None
            self._transport.write(b"".join(map(packet.encode, answers)))

    def _broken(self, error: ProtocolError) -> None:
        log.warning("a milter connection was ended: %s", error)
        if self._transport is not None:
            self._transport.abort()

    # timeouts and closing

    def _wait(self) -> None:
        self._deadline = self._owner.monotonic() + (PACKET_SECONDS if self._decoder.waiting else IDLE_SECONDS)

    def look(self, now: float) -> None:
        if now < self._deadline or self._transport is None:
            return
        if self._transport.is_closing():
            self._transport.abort()  # it does not read our last reply
        else:
            log.info("a milter connection was silent for too long: closed")
            self._transport.close()
            self._deadline = now + CLOSING_SECONDS

    def stop(self) -> None:
        """Shutting down: close at once if nothing is lost by it, else after the message."""
        self._ending = True
        if self._working is None and self._conversation.state in _WAITING and self._transport is not None:
            self._transport.close()

    def cut_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class MilterReception(Connections[MilterConnection]):
    look_seconds = 5.0

    def _made(self, client: str | None) -> MilterConnection:
        return MilterConnection(self)  # no proxy is in front of it, to give a client
