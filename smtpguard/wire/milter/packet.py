"""The packets of an MTA and of a milter, as frozen values, and how they are encoded and decoded (the milter protocol,
version 6). No input or output.

The protocol has no RFC; libmilter, Sendmail and Postfix speak it (MILTER_README). Addresses, names and values are
octets, as the MTA has them. Only the answers that smtpguard gives are here.

A packet is a length in four octets, a letter, and a payload; strings end in NUL. Any input gives packets, or one
ProtocolError and nothing after it. Both directions are here, since the check of a milter plays the MTA.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from smtpguard.mail.reply import Reply
from smtpguard.wire.replies import BadReply, Replies

VERSION = 6


class Actions(enum.IntFlag):
    """SMFIF_*: the actions that the MTA allows a milter, and those that a milter is going to use."""

    NONE = 0
    ADD_HEADERS = 0x01
    DELETE_RECIPIENTS = 0x08
    SET_MACROS = 0x100


class Steps(enum.IntFlag):
    """SMFIP_*: commands that the MTA may leave out (NO_), and those that need no answer (QUIET_)."""

    NONE = 0
    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADER = 0x40
    QUIET_HEADERS = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RCPTS = 0x800
    QUIET_CONNECT = 0x1000
    QUIET_HELO = 0x2000
    QUIET_MAIL = 0x4000
    QUIET_RCPT = 0x8000
    QUIET_DATA = 0x10000
    QUIET_UNKNOWN = 0x20000
    QUIET_END_OF_HEADER = 0x40000
    QUIET_BODY = 0x80000
    LEADING_SPACE = 0x100000


class Stage(enum.IntEnum):
    """SMFIM_*: the command with which a list of macros is to come."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_MESSAGE = 5
    END_OF_HEADER = 6


class Family(enum.Enum):
    """The address family of the client."""

    UNKNOWN = b"U"
    UNIX = b"L"
    INET = b"4"
    INET6 = b"6"


class Command:
    """A packet of the MTA."""

    __slots__ = ()


class Answer:
    """A packet of ours."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Negotiate(Command, Answer):
    """The options that each side supports. ``macros``: only in the answer, the requested macros by stage."""

    version: int
    actions: int
    steps: int
    macros: tuple[tuple[Stage, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Macros(Command):
    """The MTA's macros for the command whose letter is ``command``. Names as received: ``i``, ``{auth_authen}``."""

    command: bytes
    values: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Connect(Command):
    """``name``: the client's host name, or its address in brackets. A client of unknown family has neither port nor address."""

    name: bytes
    family: Family
    port: int = 0
    address: bytes = b""


@dataclass(frozen=True, slots=True)
class Helo(Command):
    name: bytes


@dataclass(frozen=True, slots=True)
class Mail(Command):
    """``path`` as the client wrote it, with its brackets; ``parameters`` are ESMTP's."""

    path: bytes
    parameters: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Rcpt(Command):
    path: bytes
    parameters: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Data(Command):
    pass


@dataclass(frozen=True, slots=True)
class HeaderField(Command):
    """``value``: with the white space after the colon, if that was agreed; folded with LF or CRLF."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class EndOfHeader(Command):
    pass


@dataclass(frozen=True, slots=True)
class Body(Command):
    """A piece of it, with CRLF line ends; a CRLF may be split between two pieces."""

    piece: bytes


@dataclass(frozen=True, slots=True)
class EndOfMessage(Command):
    """Perhaps with the last piece of the body."""

    piece: bytes = b""


@dataclass(frozen=True, slots=True)
class Abort(Command):
    """This message is dropped; the client is still connected."""


@dataclass(frozen=True, slots=True)
class Quit(Command):
    pass


@dataclass(frozen=True, slots=True)
class QuitNext(Command):
    """QUIT_NC: the client has disconnected, and this connection serves another one."""


@dataclass(frozen=True, slots=True)
class Unknown(Command):
    """A command of the client that the MTA does not know."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Continue(Answer):
    pass


@dataclass(frozen=True, slots=True)
class Accept(Answer):
    """At the end of a message: the MTA queues it, with the changes made before."""


@dataclass(frozen=True, slots=True)
class Discard(Answer):
    """The client is told that its message was accepted, and the MTA drops it."""


@dataclass(frozen=True, slots=True)
class SmtpReply(Answer):
    """The reply to the client, word for word; 4xx or 5xx."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class InsertHeader(Answer):
    """At ``index``, 0 being the top. ``value`` is folded with LF."""

    index: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class DeleteRecipient(Answer):
    """``path`` as it came with RCPT."""

    path: bytes


P = TypeVar("P", Command, Answer)
MOST_OCTETS = 1 << 20
"""The most octets of one packet. Bodies come in pieces of 65,535; a header field has at most 102,400 from Postfix,
32,768 from Sendmail."""
MOST_STRINGS = 2000

_LENGTH = struct.Struct("!I")
_THREE = struct.Struct("!III")
_PORT = struct.Struct("!H")
_MACRO_COMMANDS = frozenset(b"CHMRTLNBEUAQK")
_REPLY = re.compile(rb"[45][0-9]{2}[ -]")


class ProtocolError(Exception):
    """Not the milter protocol, or not allowed in this state; the connection must be closed."""


class Decoder(Generic[P]):
    """Feed it the input; ``next`` gives complete packets, one by one."""

    def __init__(self, parsers: Mapping[int, Callable[[bytes], P]]) -> None:
        self._parsers: Mapping[int, Callable[[bytes], P]] = parsers
        self._buffer = bytearray()
        self._broken = False

    @property
    def waiting(self) -> int:
        """Octets received and not decoded yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        if not self._broken:
            self._buffer += data

    def next(self) -> P | None:
        """None: more input is needed, or the input is broken. Raises ProtocolError, once."""
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        try:
            if not 0 < length <= MOST_OCTETS:
                raise ProtocolError(f"a packet of {length} octets")
            end = 4 + length
            parse = self._parsers.get(buffer[4]) if len(buffer) > 4 else _nothing
            if parse is None:
                raise ProtocolError(f"a packet with the letter {bytes(buffer[4:5])!r}")
            if len(buffer) < end:
                return None
            payload = bytes(buffer[5:end])
            del buffer[:end]
            return parse(payload)
        except ProtocolError:
            self._broken = True
            buffer.clear()
            raise


def commands() -> Decoder[Command]:
    """For packets of an MTA."""
    return Decoder(_COMMANDS)


def answers() -> Decoder[Answer]:
    """For packets of a milter."""
    return Decoder(_ANSWERS)


def encode(packet: Command | Answer) -> bytes:
    letter, payload = _payload(packet)
    return _LENGTH.pack(len(payload) + 1) + letter + payload


def _payload(packet: Command | Answer) -> tuple[bytes, bytes]:
    match packet:
        case Negotiate(version, actions, steps, macros):
            asked = b"".join(_LENGTH.pack(stage) + _strung(names) for stage, names in macros)
            return b"O", _THREE.pack(version, actions, steps) + asked
        case Continue():
            return b"c", b""
        case Accept():
            return b"a", b""
        case Discard():
            return b"d", b""
        case SmtpReply(reply):
            return b"y", _strung(
                reply.octets[:-2].replace(b"%", b"%%")
            )  # "%" is a format's, for libmilter and Sendmail
        case InsertHeader(index, name, value):
            return b"i", _LENGTH.pack(index) + _strung(name, value)
        case DeleteRecipient(path):
            return b"-", _strung(path)
        case Macros(command, values):
            return b"D", command + _strung(*(text for pair in values for text in pair))
        case Connect(name, family, port, address):
            where = _PORT.pack(port) + _strung(address) if family is not Family.UNKNOWN else b""
            return b"C", _strung(name) + family.value + where
        case Helo(name):
            return b"H", _strung(name)
        case Mail(path, parameters):
            return b"M", _strung(path, *parameters)
        case Rcpt(path, parameters):
            return b"R", _strung(path, *parameters)
        case HeaderField(name, value):
            return b"L", _strung(name, value)
        case Body(piece):
            return b"B", piece
        case EndOfMessage(piece):
            return b"E", piece
        case Unknown(line):
            return b"U", _strung(line)
        case _:
            return _BARE[type(packet)], b""


def _strung(*texts: bytes) -> bytes:
    """Each ended by NUL, which none of them may contain."""
    if any(0 in text for text in texts):
        raise ValueError("NUL in a string")
    return b"".join(text + b"\0" for text in texts)


_BARE: Mapping[type, bytes] = {Data: b"T", EndOfHeader: b"N", Abort: b"A", Quit: b"Q", QuitNext: b"K"}


def _nothing(payload: bytes) -> None:
    return None


def _strings(payload: bytes, least: int, most: int = MOST_STRINGS) -> list[bytes]:
    if payload[-1:] != b"\0" and (payload or least):
        raise ProtocolError("a string without an end")
    found = payload.split(b"\0")[:-1]
    if not least <= len(found) <= most:
        raise ProtocolError(f"{len(found)} strings")
    return found


def _negotiate(payload: bytes) -> Negotiate:
    if len(payload) < _THREE.size:
        raise ProtocolError("a negotiation that is cut off")
    asked = []
    at = _THREE.size
    while at < len(payload):
        end = payload.find(b"\0", at + 4)
        if end < 0:
            raise ProtocolError("macros that are cut off")
        (stage,) = _LENGTH.unpack_from(payload, at)
        if stage not in _STAGES:
            raise ProtocolError(f"macros for a stage {stage}")
        asked.append((Stage(stage), payload[at + 4 : end]))
        at = end + 1
    version, actions, steps = _THREE.unpack_from(payload)
    return Negotiate(version, actions, steps, tuple(asked))


_STAGES = frozenset(Stage)


def _macros(payload: bytes) -> Macros:
    if not payload or payload[0] not in _MACRO_COMMANDS:
        raise ProtocolError("macros for no command")
    found = _strings(payload[1:], 0)
    if len(found) % 2:
        raise ProtocolError("a macro without a value")
    return Macros(payload[:1], tuple(zip(found[::2], found[1::2], strict=True)))


def _connect(payload: bytes) -> Connect:
    end = payload.find(b"\0")
    if end < 0:
        raise ProtocolError("a string without an end")
    name, family, rest = payload[:end], payload[end + 1 : end + 2], payload[end + 2 :]
    if family not in _FAMILIES:
        raise ProtocolError(f"a client of the family {family!r}")
    if family == Family.UNKNOWN.value:
        return Connect(name, Family.UNKNOWN)
    if len(rest) < _PORT.size:
        raise ProtocolError("a client without an address")
    [address] = _strings(rest[_PORT.size :], 1, 1)
    return Connect(name, Family(family), _PORT.unpack_from(rest)[0], address)


_FAMILIES = frozenset(family.value for family in Family)


def _mail(payload: bytes) -> Mail:
    path, *parameters = _strings(payload, 1)
    return Mail(path, tuple(parameters))


def _rcpt(payload: bytes) -> Rcpt:
    path, *parameters = _strings(payload, 1)
    return Rcpt(path, tuple(parameters))


def _bare(packet: P) -> Callable[[bytes], P]:
    def parse(payload: bytes) -> P:
        if payload:
            raise ProtocolError("more than belongs to the packet")
        return packet

    return parse


def _smtp_reply(payload: bytes) -> SmtpReply:
    [text] = _strings(payload, 1, 1)
    text = text.replace(b"%%", b"%")
    try:
        replies = Replies().feed(text + b"\r\n") if _REPLY.match(text) else []
    except BadReply:
        replies = []
    if len(replies) != 1:
        raise ProtocolError("no SMTP reply")
    return SmtpReply(Reply(replies[0].code, replies[0].lines))


def _insert_header(payload: bytes) -> InsertHeader:
    if len(payload) < _LENGTH.size:
        raise ProtocolError("a header field that is cut off")
    name, value = _strings(payload[_LENGTH.size :], 2, 2)
    return InsertHeader(_LENGTH.unpack_from(payload)[0], name, value)


_COMMANDS: Mapping[int, Callable[[bytes], Command]] = {
    ord("O"): _negotiate,
    ord("D"): _macros,
    ord("C"): _connect,
    ord("H"): lambda payload: Helo(*_strings(payload, 1, 1)),
    ord("M"): _mail,
    ord("R"): _rcpt,
    ord("T"): _bare(Data()),
    ord("L"): lambda payload: HeaderField(*_strings(payload, 2, 2)),
    ord("N"): _bare(EndOfHeader()),
    ord("B"): Body,
    ord("E"): EndOfMessage,
    ord("A"): _bare(Abort()),
    ord("Q"): _bare(Quit()),
    ord("K"): _bare(QuitNext()),
    ord("U"): lambda payload: Unknown(*_strings(payload, 1, 1)),
}

_ANSWERS: Mapping[int, Callable[[bytes], Answer]] = {
    ord("O"): _negotiate,
    ord("c"): _bare(Continue()),
    ord("a"): _bare(Accept()),
    ord("d"): _bare(Discard()),
    ord("y"): _smtp_reply,
    ord("i"): _insert_header,
    ord("-"): lambda payload: DeleteRecipient(*_strings(payload, 1, 1)),
}
