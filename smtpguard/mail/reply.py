"""SMTP replies with enhanced status codes, as named constants (RFC 5321 section 4.2, RFC 3463, RFC 5248).

Every reply that smtpguard writes is defined here. 4xx is for what may succeed later; 5xx only for a verdict, or for an
error of the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field

from smtpguard.mail.address import IN_TEXT, Address
from smtpguard.mail.constant import pair

LINE_OCTETS = 480
MOST_LINES = 20

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |\Z)")
_MAY_NAME = re.compile(r"[@%(\[{\uff20\ufe6b]")  # what each address in a text has
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"@[^\s<>,;]+|[^\s<>()\[\],;:"]+')


@pair
class Reply:
    """``code`` 200-599; ``lines`` are the text without code, each at most 500 octets with the enhanced code in it."""

    code: int
    lines: tuple[str, ...] = ("",)
    octets: bytes = field(init=False, repr=False, compare=False)
    """All lines, as they are sent. Made once: most replies are said often."""
    positive: bool = field(init=False, repr=False, compare=False)
    intermediate: bool = field(init=False, repr=False, compare=False)
    """3yz: more is to be sent (RFC 5321 section 4.2.1)."""

    def __post_init__(self) -> None:
        *others, last = self.lines
        lines = [f"{self.code}-{line}\r\n" for line in others] + [f"{self.code} {last}\r\n"]
        object.__setattr__(self, "octets", "".join(lines).encode("utf-8", "replace"))
        object.__setattr__(self, "positive", 200 <= self.code < 400)
        object.__setattr__(self, "intermediate", 300 <= self.code < 400)

    @classmethod
    def of(cls, code: int, enhanced: str, *sentences: str) -> Reply:
        """A reply of ours: the enhanced status code is on each line (RFC 2034 section 4)."""
        return cls(code, tuple(f"{enhanced} {_one_line(s)}" for s in sentences))

    @property
    def transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def enhanced(self) -> str | None:
        found = _ENHANCED.match(self.lines[0])
        return found[1] if found else None

    @property
    def text(self) -> str:
        """All lines as one, for logs and reports; an enhanced status code repeated on each line is given once."""
        first, *others = self.lines
        if not others:
            return first
        code = f"{self.enhanced} "
        return " ".join(filter(None, (first, *(line.removeprefix(code) for line in others))))

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@pair
class Unsendable(Reply):
    """A reply in place of the relay's, which was not asked: it lacks an extension that the message needs, or must not
    get it."""


def nameless(said: str, to: Iterable[Address] = ()) -> str:
    """Return a relay's reply without addresses and Message-IDs, for the journal: the chain keeps it longer than names, and who may read
    it may not read who was refused. ``to``: the recipients, whom a refusal may name by their local part alone."""
    names = set[str]()
    if said[:1] in ("4", "5"):  # a server may know the mailbox without its sub-address (RFC 5233)
        names = {name for one in to for local in (one.local.casefold(),) for name in (local, local.partition("+")[0])}
    if not names and not _MAY_NAME.search(said):
        return said

    def kept(word: re.Match[str]) -> str:
        named = "@" in word[0] or "%40" in word[0] or word[0].strip(".'`!?").casefold() in names
        return "..." if named else word[0]  # in ASCII, which the journal writes faster

    return said[:3] + _WORD.sub(kept, IN_TEXT.sub("...", said[3:]))  # a local part may be "550"


def _one_line(sentence: str) -> str:
    """One line that fits into 512 octets with its prefix (RFC 5321 section 4.5.3.1.5)."""
    return _printable(sentence)[:LINE_OCTETS].decode("utf-8", "ignore")


def _lines(sentence: str) -> tuple[str, ...]:
    """Return a sentence as lines, split between words if possible."""
    octets, lines = _printable(sentence), list[str]()
    while len(octets) > LINE_OCTETS and len(lines) < MOST_LINES - 1:
        space = octets.rfind(b" ", 1, LINE_OCTETS + 1)
        line = octets[: space if space > 0 else LINE_OCTETS].decode("utf-8", "ignore")
        lines.append(line)
        octets = octets[len(line.encode()) :].lstrip(b" ")
    return (*lines, octets.decode())


def _printable(sentence: str) -> bytes:
    if not sentence.isprintable():
        sentence = "".join(c if c.isprintable() else " " for c in sentence)
    return " ".join(sentence.split()).encode()


OK = Reply.of(250, "2.0.0", "Ok")
BYE = Reply.of(221, "2.0.0", "Bye")
START_TLS = Reply.of(220, "2.0.0", "Ready to start TLS")
SENDER_OK = Reply.of(250, "2.1.0", "Ok")
STORED = Reply.of(250, "2.0.0", "Stored as a return")
RECIPIENT_OK = Reply.of(250, "2.1.5", "Recipient ok")
CANNOT_VERIFY = Reply.of(252, "2.1.5", "Cannot verify, send some mail and see")
HELP = Reply.of(214, "2.0.0", "See RFC 5321")
START_MAIL = Reply(354, ("End data with <CR><LF>.<CR><LF>",))

# errors of the client
SYNTAX = Reply.of(500, "5.5.2", "Error: bad syntax")
BAD_PARAMETER = Reply.of(501, "5.5.4", "Syntax error in parameters")
BAD_REVERSE_PATH = Reply.of(501, "5.1.7", "Bad reverse-path syntax")
BAD_RECIPIENT = Reply.of(501, "5.1.3", "Bad recipient address syntax")
NOT_IMPLEMENTED = Reply.of(502, "5.5.1", "Command not implemented")
BAD_SEQUENCE = Reply.of(503, "5.5.1", "Bad sequence of commands")
TOO_EARLY = Reply.of(554, "5.5.0", "The message came before the 354 reply")
NOT_AUTHORIZED = Reply.of(550, "5.7.0", "This command is for trusted peers")
NO_RECIPIENTS = Reply.of(554, "5.5.1", "No valid recipients")
UNKNOWN_PARAMETER = Reply.of(555, "5.5.4", "Unsupported option")
TLS_FIRST = Reply.of(530, "5.7.0", "Must issue a STARTTLS command first")
ENCRYPTION_FOR_AUTH = Reply.of(538, "5.7.11", "Encryption required for requested authentication mechanism")
LOGIN_FIRST = Reply.of(530, "5.7.0", "Authentication required")
BAD_BASE64 = Reply.of(501, "5.5.2", "Cannot decode this as Base64")
BAD_CREDENTIALS = Reply.of(501, "5.5.2", "Cannot find a user name in this")
AUTH_CANCELLED = Reply.of(501, "5.7.0", "Authentication cancelled")
UNKNOWN_MECHANISM = Reply.of(504, "5.5.4", "Unrecognized authentication type")
AUTH_LINE_TOO_LONG = Reply.of(500, "5.5.6", "Authentication exchange line is too long")
BARE_LINE_END = Reply.of(550, "5.5.2", "Bare CR or LF in the message: lines must end in CRLF")
NUL_IN_MESSAGE = Reply.of(550, "5.6.0", "NUL in the message")
LINE_TOO_LONG = Reply.of(500, "5.5.2", "Line too long")
TOO_BIG = Reply.of(552, "5.3.4", "Message size exceeds the fixed limit")
HEADER_TOO_BIG = Reply.of(552, "5.3.4", "The header of the message is too big")
TOO_MANY_RECIPIENTS = Reply.of(452, "4.5.3", "Too many recipients")
OTHER_ROUTE = Reply.of(452, "4.5.3", "This recipient has another relay, send it in a transaction of its own")
NOT_A_CLIENT = Reply.of(554, "5.7.1", "This server takes mail from its own clients only")
LOOP = Reply.of(554, "5.4.6", "Too many hops: the message loops")
NEEDS_SMTPUTF8 = Reply.of(553, "5.6.7", "Address needs SMTPUTF8")

# ours, and a retry may succeed
SHUTTING_DOWN = Reply.of(421, "4.3.2", "Shutting down, try again")
TIMED_OUT = Reply.of(421, "4.4.2", "Timeout, closing the connection")
TOO_MANY_CONNECTIONS = Reply.of(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_ERRORS = Reply.of(421, "4.7.0", "Too many errors")
INTERNAL_ERROR = Reply.of(451, "4.3.0", "Temporary failure here, try again later")
RELAY_UNAVAILABLE = Reply.of(451, "4.4.1", "The relay cannot be reached, try again later")
NO_RELAY_YET = Reply.of(421, "4.4.1", "The relay cannot be reached, try again later")
RELAY_LOST = Reply.of(451, "4.4.2", "The connection to the relay was lost, try again later")
RELAY_PARTED = Reply.of(421, "4.4.2", "The connection to the relay was lost, try again later")
AUTH_UNAVAILABLE = Reply.of(454, "4.7.0", "Temporary authentication failure")
TOO_MANY_LOGINS = Reply.of(454, "4.7.0", "Too many failed logins, try again later")
NOT_FROM_A_PROXY = Reply.of(421, "4.7.0", "This port is for trusted proxies")
NOT_RECORDED = Reply.of(451, "4.3.0", "Could not record this message, try again later")
DISK_FULL = Reply.of(452, "4.3.1", "Insufficient storage, try again later")
BUSY = Reply.of(451, "4.3.2", "Busy, try again later")
CLIENT_TOO_FAST = Reply.of(451, "4.7.1", "Too much mail from this client, try again later")
LOGIN_TOO_FAST = Reply.of(451, "4.7.1", "Too much mail from this login, try again later")
RECALLED = Reply.of(451, "4.7.1", "Mail was stopped or may have been, try again later")


def held(hold_id: str) -> Reply:
    return Reply.of(250, "2.0.0", f"Held for review as {hold_id}")


def released(hold_id: str) -> Reply:
    return Reply.of(250, "2.0.0", f"Approved and sent already as {hold_id}")


def rejected(sentence: str) -> Reply:
    return Reply.of(550, "5.7.1", *_lines(sentence))


def no_such_list(why: str) -> Reply:
    """Return the reply to a preapproval that names no list."""
    return Reply.of(550, "5.1.1", *_lines(f"Not accepted for approval: {why}"))


def no_such_notice() -> Reply:
    return Reply.of(550, "5.1.1", "No notice has this address: answer the notice itself")


def counted(hold_id: str, choice: str) -> Reply:
    """Return the reply to a vote by mail that was counted."""
    return Reply.of(250, "2.0.0", f"Counted: {choice} {hold_id}")


def deferred(sentence: str) -> Reply:
    return Reply.of(451, "4.7.1", *_lines(sentence))
