"""The milter protocol, version 6, without input or output: packets of an MTA and of a milter as frozen values, how they are
encoded and decoded.

The protocol has no RFC; libmilter, Sendmail and Postfix speak it (MILTER_README). Addresses, names and values are
octets, as the MTA has them. Only answers that smtpguard gives are here. A packet is a length in four octets, a
letter, and a payload; strings end in NUL. Any input gives packets, or one ProtocolError and nothing after it.
Both directions are here, since the check of a milter plays the MTA.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

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


class ProtocolError(Exception):
    """Not the milter protocol, or not allowed in this state; the connection must be closed."""


MOST_OCTETS = 1 << 20
"""The most octets of one packet. Bodies come in pieces of 65,535; a header field has at most 102,400 from Postfix,
32,768 from Sendmail."""
MOST_STRINGS = 2000

_LENGTH = struct.Struct("!I")
_THREE = struct.Struct("!III")
_PORT = struct.Struct("!H")
_MACRO_COMMANDS = frozenset(b"CHMRTLNBEUAQK")
_REPLY = re.compile(rb"[45][0-9]{2}[ -]")
_STAGES = frozenset(Stage)
_FAMILIES = frozenset(family.value for family in Family)


def _strung(*texts: bytes) -> bytes:
    """Each ended by NUL, which none of them may contain."""
    if any(0 in text for text in texts):
        raise ValueError("NUL in a string")
    return b"".join(text + b"\0" for text in texts)


def _strings(payload: bytes, least: int, most: int = MOST_STRINGS) -> list[bytes]:
    if payload[-1:] != b"\0" and (payload or least):
        raise ProtocolError("a string without an end")
    found = payload.split(b"\0")[:-1]
    if not least <= len(found) <= most:
        raise ProtocolError(f"{len(found)} strings")
    return found


@dataclass(frozen=True, slots=True)
class Packet:
    """Its payload is empty, unless it says otherwise."""

    letter: ClassVar[bytes]

    def payload(self) -> bytes:
        return b""

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Raises ProtocolError."""
        if payload:
            raise ProtocolError("more than belongs to the packet")
        return cls()


class Command(Packet):
    __slots__ = ()


class Answer(Packet):
    __slots__ = ()


class _Strings(Packet):
    """Every field is a string."""

    __slots__: tuple[str, ...] = ()

    def payload(self) -> bytes:
        return _strung(*[getattr(self, name) for name in self.__slots__])

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        make: Callable[..., Self] = cls
        return make(*_strings(payload, len(cls.__slots__), len(cls.__slots__)))


@dataclass(frozen=True, slots=True)
class _Path(Command):
    """``path`` as the client wrote it, with its brackets; ``parameters`` are ESMTP's."""

    path: bytes
    parameters: tuple[bytes, ...] = ()

    def payload(self) -> bytes:
        return _strung(self.path, *self.parameters)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        path, *parameters = _strings(payload, 1)
        return cls(path, tuple(parameters))


@dataclass(frozen=True, slots=True)
class _Piece(Command):
    """A piece of the body, with CRLF line ends; a CRLF may be split between two pieces."""

    piece: bytes = b""

    def payload(self) -> bytes:
        return self.piece

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        return cls(payload)


@dataclass(frozen=True, slots=True)
class Negotiate(Command, Answer):
    """The options that each side supports. ``macros``: only in the answer, the requested macros by stage."""

    letter = b"O"
    version: int
    actions: int
    steps: int
    macros: tuple[tuple[Stage, bytes], ...] = ()

    def payload(self) -> bytes:
        asked = b"".join(_LENGTH.pack(stage) + _strung(names) for stage, names in self.macros)
        return _THREE.pack(self.version, self.actions, self.steps) + asked

    @classmethod
    def parse(cls, payload: bytes) -> Self:
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
        return cls(version, actions, steps, tuple(asked))


@dataclass(frozen=True, slots=True)
class Macros(Command):
    """The MTA's macros for the command whose letter is ``command``. Names as received: ``i``, ``{auth_authen}``."""

    letter = b"D"
    command: bytes
    values: tuple[tuple[bytes, bytes], ...] = ()

    def payload(self) -> bytes:
        return self.command + _strung(*(text for pair in self.values for text in pair))

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        if not payload or payload[0] not in _MACRO_COMMANDS:
            raise ProtocolError("macros for no command")
        found = _strings(payload[1:], 0)
        if len(found) % 2:
            raise ProtocolError("a macro without a value")
        return cls(payload[:1], tuple(zip(found[::2], found[1::2], strict=True)))


@dataclass(frozen=True, slots=True)
class Connect(Command):
    """``name``: the client's host name, or its address in brackets. A client of unknown family has neither port nor address."""

    letter = b"C"
    name: bytes
    family: Family
    port: int = 0
    address: bytes = b""

    def payload(self) -> bytes:
        where = _PORT.pack(self.port) + _strung(self.address) if self.family is not Family.UNKNOWN else b""
        return _strung(self.name) + self.family.value + where

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        end = payload.find(b"\0")
        if end < 0:
            raise ProtocolError("a string without an end")
        name, family, rest = payload[:end], payload[end + 1 : end + 2], payload[end + 2 :]
        if family not in _FAMILIES:
            raise ProtocolError(f"a client of the family {family!r}")
        if family == Family.UNKNOWN.value:
            return cls(name, Family.UNKNOWN)
        if len(rest) < _PORT.size:
            raise ProtocolError("a client without an address")
        [address] = _strings(rest[_PORT.size :], 1, 1)
        return cls(name, Family(family), _PORT.unpack_from(rest)[0], address)


@dataclass(frozen=True, slots=True)
class Helo(_Strings, Command):
    letter = b"H"
    name: bytes


class Mail(_Path):
    letter = b"M"


class Rcpt(_Path):
    letter = b"R"


class Data(Command):
    letter = b"T"


@dataclass(frozen=True, slots=True)
class HeaderField(_Strings, Command):
    """``value``: with the white space after the colon, if that was agreed; folded with LF or CRLF."""

    letter = b"L"
    name: bytes
    value: bytes


class EndOfHeader(Command):
    letter = b"N"


class Body(_Piece):
    letter = b"B"


class EndOfMessage(_Piece):
    """Perhaps with the last piece of the body."""

    letter = b"E"


class Abort(Command):
    """This message is dropped; the client is still connected."""

    letter = b"A"


class Quit(Command):
    letter = b"Q"


class QuitNext(Command):
    """QUIT_NC: the client has disconnected, and this connection serves another one."""

    letter = b"K"


@dataclass(frozen=True, slots=True)
class Unknown(_Strings, Command):
    """A command of the client that the MTA does not know."""

    letter = b"U"
    line: bytes


class Continue(Answer):
    letter = b"c"


class Accept(Answer):
    """At the end of a message: the MTA queues it, with the changes made before."""

    letter = b"a"


class Discard(Answer):
    """The client is told that its message was accepted, and the MTA drops it."""

    letter = b"d"


@dataclass(frozen=True, slots=True)
class SmtpReply(Answer):
    """The reply to the client, word for word; 4xx or 5xx."""

    letter = b"y"
    reply: Reply

    def payload(self) -> bytes:
        return _strung(self.reply.octets[:-2].replace(b"%", b"%%"))  # "%" is a format's, for libmilter and Sendmail

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        [text] = _strings(payload, 1, 1)
        text = text.replace(b"%%", b"%")
        try:
            [reply] = Replies().feed(text + b"\r\n") if _REPLY.match(text) else []
        except (BadReply, ValueError):
            raise ProtocolError("no SMTP reply") from None
        return cls(reply)


@dataclass(frozen=True, slots=True)
class InsertHeader(Answer):
    """At ``index``, 0 being the top. ``value`` is folded with LF."""

    letter = b"i"
    index: int
    name: bytes
    value: bytes

    def payload(self) -> bytes:
        return _LENGTH.pack(self.index) + _strung(self.name, self.value)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        if len(payload) < _LENGTH.size:
            raise ProtocolError("a header field that is cut off")
        return cls(_LENGTH.unpack_from(payload)[0], *_strings(payload[_LENGTH.size :], 2, 2))


@dataclass(frozen=True, slots=True)
class DeleteRecipient(_Strings, Answer):
    """``path`` as it came with RCPT."""

    letter = b"-"
    path: bytes


_COMMANDS: Mapping[bytes, type[Command]] = {
    kind.letter: kind
    for kind in (
        Negotiate, Macros, Connect, Helo, Mail, Rcpt, Data, HeaderField, EndOfHeader, Body, EndOfMessage, Abort, Quit,
        QuitNext, Unknown,
    )
}  # fmt: skip
_ANSWERS: Mapping[bytes, type[Answer]] = {
    kind.letter: kind
    for kind in (Negotiate, Continue, Accept, Discard, SmtpReply, InsertHeader, DeleteRecipient)
}  # fmt: skip
P = TypeVar("P", Command, Answer)


class Decoder(Generic[P]):
    """Feed it the input; ``next`` gives complete packets, one by one."""

    def __init__(self, kinds: Mapping[bytes, type[P]]) -> None:
        self._kinds: Mapping[bytes, type[P]] = kinds
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
        """Return the next packet; None if more input is needed, or the input is broken. Raises ProtocolError, once."""
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        try:
            if not 0 < length <= MOST_OCTETS:
                raise ProtocolError(f"a packet of {length} octets")
            letter, end = bytes(buffer[4:5]), 4 + length
            kind = self._kinds.get(letter)
            if letter and kind is None:
                raise ProtocolError(f"a packet with the letter {letter!r}")
            if kind is None or len(buffer) < end:
                return None
            payload = bytes(buffer[5:end])
            del buffer[:end]
            return kind.parse(payload)
        except ProtocolError:
            self._broken = True
            buffer.clear()
            raise


def commands() -> Decoder[Command]:
    """Return a decoder of an MTA's packets."""
    return Decoder(_COMMANDS)


def answers() -> Decoder[Answer]:
    """Return a decoder of a milter's packets."""
    return Decoder(_ANSWERS)


def encode(packet: Packet) -> bytes:
    payload = packet.payload()
    return _LENGTH.pack(len(payload) + 1) + packet.letter + payload
