"""The milter: an MTA passes us every message that it accepts. The connections of MTAs to one milter listener receive their
packets, assemble a client's session and its messages (RFC 5321 sections 2.3.1 and 3.3), and answer with the outcome of
each message.

One costs a protocol object and the content of its message. A silent connection has no task. Packets that the MTA need
not wait for get no answer; everything is answered at the end of the message: DISCARD once a hold is committed, or an
SMTP reply; ACCEPT was sent before, with our trace (``send``). Anything outside the protocol ends the
connection; the MTA then answers as its settings say (``milter_default_action = tempfail``).

The MTA has accepted each command, so parts that it allows and we cannot carry are left out: parameters that we do not
implement, missing brackets. If an address is no mailbox even after the MTA's own rewriting, it is refused, as the proxy
does. The client's identity and login are the MTA's word: it is trusted, since it is our client.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from smtpguard.mail import reply
from smtpguard.mail.envelope import (
    Envelope,
    Fence,
    Lost,
    Recalled,
    Recipient,
    Session,
    Transaction,
    client_address,
    within,
)
from smtpguard.mail.message import Message, parse_header
from smtpguard.mail.reply import Reply
from smtpguard.wire import grammar
from smtpguard.wire import milterpackets as packet
from smtpguard.wire.connections import Connections
from smtpguard.wire.conversation import Conversation, State
from smtpguard.wire.data import Arrived, Arriving
from smtpguard.wire.listener import Limits, Listener
from smtpguard.wire.milterpackets import Answer, Command, Connect, Family, Macros, Mail, ProtocolError, Rcpt
from smtpguard.wire.turnedaway import TurnedAway, Why, message_id_of, why_content

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
        if letter.first_refusal is not None:  # it goes on without those recipients, or was dropped
            (session, why, answer), named = letter.first_refusal, len(letter.recipients) + letter.refused
            self._owner.turned_away(
                TurnedAway.of(session, letter.envelope, why, answer, recipients=named, refused=letter.refused)
            )

    def _turn_away(self, session: Session, why: Why, answer: Reply, message: Message | None = None) -> None:
        """The whole message: recipients that were refused before are included, and it is reported once. ``message``:
        None if its content cannot be accepted."""
        letter, message_id = self._message, message_id_of(message) if message is not None else ""
        named, letter.first_refusal = len(letter.recipients) + letter.refused, None
        self._say(packet.SmtpReply(answer))
        self._owner.turned_away(
            TurnedAway.of(session, letter.envelope, why, answer, recipients=named, refused=named, message_id=message_id)
        )

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
        ours = [f for f in parse_header(prepend) if f.name.lower() != "received"]
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


_MAIL_PARAMETERS = frozenset({b"SIZE", b"BODY", b"SMTPUTF8", b"RET", b"ENVID", b"AUTH"})
_RCPT_PARAMETERS = frozenset({b"NOTIFY", b"ORCPT"})
_MESSAGE_COMMANDS = frozenset((b"M", b"R", b"T", b"L", b"N", b"B", b"E"))
MOST_MACROS = 500


class SessionMacros:
    """The macros of a session and, apart from them, those of its current message, so that none outlives its object."""

    def __init__(self) -> None:
        self._session: dict[bytes, bytes] = {}
        self._message: dict[bytes, bytes] = {}
        self._fresh = False  # message macros received now are of a message that has not begun yet

    def learn(self, macros: Macros) -> None:
        if macros.command == b"M":
            self._keep_fresh()
            self._fresh = True
        told = self._message if macros.command in _MESSAGE_COMMANDS else self._session
        for name, value in macros.values:
            if len(told) < MOST_MACROS:
                told[_bare(name)] = value

    def begin_message(self) -> None:
        """At MAIL; its macros came just before."""
        self._keep_fresh()
        self._fresh = False

    def forget_message(self) -> None:
        self._message, self._fresh = {}, False

    def _keep_fresh(self) -> None:
        if not self._fresh:
            self._message = {}

    def get(self, name: bytes) -> str:
        """ "" if it was not given."""
        value = self._message.get(name) or self._session.get(name) or b""
        return value.decode("utf-8", "replace")


def _bare(name: bytes) -> bytes:
    return name[1:-1] if name[:1] == b"{" and name[-1:] == b"}" else name


class Client:
    def __init__(self, mta: str = "") -> None:
        """``mta``: the address of the MTA, "" on a Unix socket."""
        self.known = SessionMacros()
        self.helo = ""
        self._mta = mta
        self._connect = Connect(b"", Family.UNKNOWN)

    def connected(self, connect: Connect) -> None:
        self._connect, self.helo = connect, ""

    def greeted(self, name: bytes) -> None:
        self.helo = name.decode("utf-8", "replace")

    def session(self, listener: Listener) -> Session:
        """Return the session as it is now, with the macros of the current message."""
        ip = self._ip()
        name = self._connect.name.decode("utf-8", "replace")
        return Session(
            client_ip=ip,
            client_name="" if name.startswith("[") or name == "unknown" else name,
            peer=self._mta if self._mta != ip else "",
            listener=listener.name,
            helo=self.helo,
            ident=self.known.get(b"i"),
            auth_user=self.known.get(b"auth_authen") or None,
            tls=bool(self.known.get(b"tls_version")),
            senders_verified=listener.senders_verified,
            proves_senders=listener.senders_verified,
            expander=within(ip, listener.expanders),
        )

    def _ip(self) -> str:
        """ "" for a client without an address, on a Unix socket."""
        inet = self._connect.family in (Family.INET, Family.INET6)
        for told in (self._connect.address.decode("latin-1") if inet else "", self.known.get(b"client_addr")):
            address = client_address(told[5:] if told[:5].upper() == "IPV6:" else told)
            if address is not None:
                return str(address)
        return ""


class MilterMessage:
    """One message, from MAIL on. ``recipients`` beside the ``paths`` by which the MTA knows them. ``refused``: how many
    were refused here; ``first_refusal``: None if that is reported."""

    def __init__(self, mail: Mail, known: SessionMacros, listener: Listener) -> None:
        self.recipients: list[Recipient] = []
        self.paths: list[bytes] = []
        self.content = Assembling(listener.limits, listener.spool)
        self._known, self._listener = known, listener
        self.refused = 0
        self.first_refusal: tuple[Session, Why, Reply] | None = None
        self._sender_refused: Reply | None = None
        self._envelope = Envelope(reverse_path=None, recipients=())
        try:
            self._envelope = _mail(mail, known.get(b"mail_addr"))
        except grammar.Refused as refused:
            self._sender_refused = refused.reply

    def rcpt(self, rcpt: Rcpt, client: Client) -> Reply | None:
        """Why this recipient cannot be carried; a refusal of the reverse-path is reported here, where it is possible."""
        if self._sender_refused is not None:
            return self._refuse(Why.BAD_ADDRESS, self._sender_refused, client)
        if len(self.recipients) >= self._listener.limits.recipients:
            return self._refuse(Why.TOO_MANY_RECIPIENTS, reply.TOO_MANY_RECIPIENTS, client)
        try:
            recipient = _rcpt(rcpt, self._known.get(b"rcpt_addr"), self._listener.hostname)
        except grammar.Refused as refused:
            return self._refuse(Why.BAD_ADDRESS, refused.reply, client)
        self.recipients.append(recipient)
        self.paths.append(rcpt.path)
        return None

    def _refuse(self, why: Why, answer: Reply, client: Client) -> Reply:
        self.first_refusal = self.first_refusal or (client.session(self._listener), why, answer)
        self.refused += 1
        return answer

    @property
    def envelope(self) -> Envelope:
        beyond_ascii = any(not r.address.is_ascii for r in self.recipients)
        return replace(
            self._envelope,
            recipients=tuple(self.recipients),
            smtputf8=self._envelope.smtputf8 or beyond_ascii,
        )

    @property
    def can_delete(self) -> bool:
        """Whether the MTA surely knows each recipient by the path that it gave. Postfix, asked to delete one that came
        with a source route, deletes none, and does not say so."""
        pairs = zip(self.paths, self.recipients, strict=True)
        return all(path in (b"<%b>" % (known := str(r.address).encode()), known) for path, r in pairs)

    def paths_of(self, some: Sequence[Recipient]) -> list[bytes]:
        """Each path once by which the MTA knows them."""
        theirs = {str(r.address) for r in some}
        pairs = zip(self.recipients, self.paths, strict=True)
        return list(dict.fromkeys(path for r, path in pairs if str(r.address) in theirs))

    async def finish(self) -> Arrived | Reply:
        """The whole content, or why it is refused."""
        try:
            self.content.whole()
            if self.content.refusal is not None:
                return self.content.refusal
            at_once = self.content.at_once()
            return at_once if at_once is not None else await asyncio.to_thread(self.content.finish)
        finally:
            self.content.close()


def _mail(mail: Mail, rewritten: str) -> Envelope:
    given = _ours(mail.parameters, _MAIL_PARAMETERS)
    if not mail.path.isascii() and b"SMTPUTF8" not in {p.upper() for p in given}:
        given.append(b"SMTPUTF8")  # of a local sender, which was not asked for it
    try:
        return grammar.parse_mail(b" ".join((b"FROM:" + _bracketed(mail.path), *given)))
    except grammar.Refused:
        if not rewritten:
            raise
        utf8 = [] if rewritten.isascii() else [b"SMTPUTF8"]
        return grammar.parse_mail(b" ".join((b"FROM:" + _bracketed(rewritten.encode()), *given, *utf8)))


def _rcpt(rcpt: Rcpt, rewritten: str, here: str) -> Recipient:
    given = _ours(rcpt.parameters, _RCPT_PARAMETERS)
    for path in (rcpt.path, rewritten.encode()):
        try:
            return grammar.parse_rcpt(
                b" ".join((b"TO:" + _bracketed(path), *given)), smtputf8=True, here=here
            )[0]  # fmt: skip
        except grammar.Refused:
            if not rewritten or path is not rcpt.path:
                raise
    raise AssertionError("one of them was parsed or refused")


def _ours(parameters: tuple[bytes, ...], known: frozenset[bytes]) -> list[bytes]:
    return [p for p in parameters if p.partition(b"=")[0].upper() in known]


def _bracketed(path: bytes) -> bytes:
    return path if path[:1] == b"<" else b"<" + path + b">"


_FIELD_OVERHEAD = 64
"""Octets that a field counts beside its own: ten thousand empty ones use memory too."""


class Assembling(Arriving):
    """Call ``field`` for each, ``end_of_header``, ``body`` for each piece, ``unload`` while ``heavy``; then ``whole``."""

    def __init__(self, limits: Limits, spool: Path) -> None:
        super().__init__(limits, spool)
        self._tail = b""
        self._fields: list[bytes] = []
        self._header = 0

    def field(self, name: bytes, value: bytes) -> None:
        """``value``: everything after the colon; its folds have LF or CRLF."""
        if self.refusal is not None:
            return
        self._header += len(name) + len(value) + _FIELD_OVERHEAD
        if self._header > self._limits.header_octets + self._limits.header_lines * _FIELD_OVERHEAD:
            self._refuse(reply.HEADER_TOO_BIG)
            return
        if b"\n" in value:
            value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._fields.append(b"%b:%b\r\n" % (name, value))

    def end_of_header(self) -> None:
        self._fields.append(b"\r\n")
        fields, self._fields = self._fields, []
        self._take(b"".join(fields))

    def body(self, piece: bytes) -> None:
        data = self._tail + piece
        cut = len(data) - data.endswith(b"\r")  # never split a CRLF
        self._tail = data[cut:]
        self._take(data[:cut])

    def whole(self) -> None:
        """The end. A last line without an end gets one, as over SMTP."""
        if self._tail or self._line:
            self._tail = b""
            self._take(b"\r\n")

    def close(self) -> None:
        self._fields, self._tail = [], b""
        super().close()
