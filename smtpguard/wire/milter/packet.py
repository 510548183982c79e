"""The packets of an MTA and of a milter, as frozen values (the milter protocol, version 6).

The protocol has no RFC; libmilter, Sendmail and Postfix speak it (MILTER_README). Addresses, names and values are
octets, as the MTA has them. Only the answers that smtpguard gives are here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from smtpguard.mail.reply import Reply

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
