"""The MTA's side of the milter protocol, as a state machine without input or output.

It sends what an MTA sends for a client's session, waits only for the answers that were agreed, and accepts only legal
answers. It is written from MILTER_README and libmilter. It shares only the packets with smtpguard.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from smtpguard.mail.reply import Reply
from smtpguard.wire.milterpackets import (
    Abort,
    Accept,
    Actions,
    Answer,
    Body,
    Command,
    Connect,
    Continue,
    Data,
    DeleteRecipient,
    Discard,
    EndOfHeader,
    EndOfMessage,
    Family,
    HeaderField,
    Helo,
    InsertHeader,
    Macros,
    Mail,
    Negotiate,
    Quit,
    QuitNext,
    Rcpt,
    SmtpReply,
    Steps,
)

POSTFIX = Negotiate(6, 0x1FF, 0x1FFFFF)
OLD = Negotiate(6, int(Actions.ADD_HEADERS | Actions.DELETE_RECIPIENTS), 0)
"""An offer without steps to leave out: the MTA waits for an answer to every command."""

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)\n")
CHUNK = 65_535


@dataclass
class MtaResult:
    """The result of one message. ``answer``: None if the message did not end."""

    answer: Answer | None = None
    inserted: list[InsertHeader] = field(default_factory=list)
    deleted: list[bytes] = field(default_factory=list)
    refused: dict[bytes, Reply] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return isinstance(self.answer, Accept)

    @property
    def reply(self) -> str:
        assert isinstance(self.answer, SmtpReply), self.answer
        return str(self.answer.reply)


class Illegal(AssertionError):
    """The filter gave an answer that is not allowed there."""


class Mta:
    """The dialogs are generators of (command, whether an answer is due). The caller does the input and output."""

    def __init__(self, offer: Negotiate = POSTFIX) -> None:
        self.offer = offer
        self.agreed: Negotiate | None = None
        self.queue_id = b"4QUEUE"

    def negotiate(self) -> Generator[tuple[Command, bool], Answer, None]:
        answer = yield self.offer, True
        if not isinstance(answer, Negotiate):
            raise Illegal(f"{answer} to a negotiation")
        if answer.version > self.offer.version or answer.actions & ~self.offer.actions:
            raise Illegal("more than was offered")
        if answer.steps & ~self.offer.steps:
            raise Illegal("to leave out what was not offered")
        self.agreed = answer

    def connect(
        self, name: bytes = b"client.example", address: bytes = b"192.0.2.7", family: Family = Family.INET,
        helo: bytes = b"desk.example", macros: Sequence[tuple[bytes, bytes]] = (), hello: bool = True,
    ) -> Generator[tuple[Command, bool], Answer, None]:  # fmt: skip
        yield Macros(b"C", ((b"j", b"mx.example"), (b"{client_addr}", address), *macros)), False
        yield from self._quietly(Connect(name, family, 4711, address), Steps.QUIET_CONNECT)
        if hello:
            yield from self._quietly(Helo(helo), Steps.QUIET_HELO)

    def message(
        self, content: bytes, *recipients: bytes, mail: Sequence[bytes] = (b"<anna@example.com>",),
        macros: Sequence[tuple[bytes, bytes]] = (), rcpt_macros: Sequence[tuple[bytes, bytes]] = (), told: MtaResult,
        chunk: int = CHUNK,
    ) -> Generator[tuple[Command, bool], Answer, None]:  # fmt: skip
        """``content``: with CRLF line ends, as from SMTP. ``told`` gets what the filter does."""
        yield Macros(b"M", tuple(macros)), False
        yield from self._quietly(Mail(mail[0], tuple(mail[1:])), Steps.QUIET_MAIL)
        taken = 0
        for recipient in recipients or (b"<bob@example.net>",):
            yield Macros(b"R", ((b"i", self.queue_id), *rcpt_macros)), False
            path, *parameters = recipient.split(b" ")
            answer = yield Rcpt(path, tuple(parameters)), not self._agreed(Steps.QUIET_RCPT)
            if isinstance(answer, SmtpReply):
                told.refused[path] = answer.reply
            elif answer is not None and not isinstance(answer, Continue):
                raise Illegal(f"{answer} to a recipient")
            taken += not isinstance(answer, SmtpReply)
        if not taken:
            yield Abort(), False
            return
        if not self._agreed(Steps.NO_DATA):
            yield from self._quietly(Data(), Steps.QUIET_DATA)
        fields, body = split(content)
        for name, value in fields:
            if not self._agreed(Steps.LEADING_SPACE):
                value = value[1:] if value[:1] == b" " else value
            yield from self._quietly(HeaderField(name, value), Steps.QUIET_HEADERS)
        yield from self._quietly(EndOfHeader(), Steps.QUIET_END_OF_HEADER)
        for start in range(0, len(body), chunk):
            yield from self._quietly(Body(body[start : start + chunk]), Steps.QUIET_BODY)
        yield Macros(b"E", ((b"i", self.queue_id),)), False
        answer = yield EndOfMessage(), True
        while isinstance(answer, (InsertHeader, DeleteRecipient)):
            if isinstance(answer, InsertHeader):
                told.inserted.append(answer)
            elif answer.path in recipients or any(r.startswith(answer.path) for r in recipients):
                told.deleted.append(answer.path)
            else:
                raise Illegal(f"there is no recipient {answer.path!r} to delete")
            answer = yield None, True  # type: ignore[misc]
        if not isinstance(answer, (Accept, Discard, SmtpReply)):
            raise Illegal(f"{answer} to the end of a message")
        if (told.inserted or told.deleted) and not isinstance(answer, Accept):
            raise Illegal(f"{answer} after a change")
        told.answer = answer

    def abort(self) -> Generator[tuple[Command, bool], Answer, None]:
        yield Abort(), False

    def end(self, *, another: bool = False) -> Generator[tuple[Command, bool], Answer, None]:
        yield (QuitNext() if another else Quit()), False

    def _agreed(self, step: Steps) -> bool:
        return self.agreed is not None and bool(self.agreed.steps & step)

    def _quietly(self, command: Command, quiet: Steps) -> Generator[tuple[Command, bool], Answer, None]:
        due = not self._agreed(quiet)
        answer = yield command, due
        if due and not isinstance(answer, Continue):
            raise Illegal(f"{answer} to {command}")


def split(content: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Split into header fields as Postfix passes them, with LF between the lines of a folded field, and the body."""
    fields: list[tuple[bytes, bytes]] = []
    head, blank, body = content.partition(b"\r\n\r\n") if not content.startswith(b"\r\n") else (b"", b"", content[2:])
    left = head.replace(b"\r\n", b"\n") + b"\n" if head else b""
    while left:
        found = _FIELD.match(left)
        if found is None:  # not a field: Postfix begins the body here
            return fields, left.replace(b"\n", b"\r\n") + (b"\r\n" if blank else b"") + body
        fields.append((found[1], found[2]))
        left = left[found.end() :]
    return fields, body
