"""Read messages from files: single messages, folders, mboxes (RFC 4155), or standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smtpguard.cli.context import CannotRun
from smtpguard.mail.address import Address
from smtpguard.mail.mailboxes import mailboxes
from smtpguard.mail.message import Header, Message, with_crlf

_MBOX = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\r\n]*\r?\n")
_MBOX_QUOTED = re.compile(rb"^>(>*From )", re.M)


@dataclass(frozen=True, slots=True)
class Mail:
    """``name``: its file, and its position if the file has several. ``unread``: why there is no message."""

    name: str
    message: Message
    unread: str = ""


NOTHING = Message.of(b"")


def envelope_of(header: Header) -> tuple[Address | None, list[Address]]:
    """The envelope from the header: Return-Path and X-Envelope-*, then From, To and Cc."""
    path: Address | None = None
    for name in ("Return-Path", "X-Envelope-From", "From"):
        if name in header:
            path = next(iter(mailboxes(header, name)), None)
            break
    people: list[Address] = []
    for names in (("X-Envelope-To",), ("To", "Cc", "Bcc")):
        people = [a for name in names for a in mailboxes(header, name)]
        if people:
            break
    return path, list(dict.fromkeys(people))


def mails(files: Sequence[str]) -> Iterator[Mail]:
    """The messages of each FILE in order. An unreadable one has ``unread``, and the rest follow. Raises CannotRun if
    there is no such file."""
    for name in files:
        if name == "-":
            yield from _split("-", sys.stdin.buffer.read())
            continue
        path = Path(name)
        if path.is_dir():
            for inner in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
                yield from _in_file(str(inner), inner)
        elif path.exists():
            yield from _in_file(name, path)
        else:
            raise CannotRun(f"{name}: no such file")


def _in_file(name: str, path: Path) -> Iterator[Mail]:
    try:
        raw = path.read_bytes()
    except (OSError, MemoryError) as error:
        yield Mail(
            name, NOTHING, unread=getattr(error, "strerror", None) or "it is too large for the memory of this machine"
        )
        return
    yield from _split(name, raw)


def why(error: Exception) -> str:
    """Why one message could not be read, in a phrase."""
    return f"it cannot be looked at ({type(error).__name__}: {str(error)[:200] or 'no more is known'})"


def _split(name: str, raw: bytes) -> Iterator[Mail]:
    """One message, or those of an mbox, with CRLF line ends."""
    if not raw.startswith(b"From "):
        if raw.strip():
            yield Mail(name, Message.of(with_crlf(raw)))
        return
    pieces = [p for p in _MBOX.split(raw) if p.strip()]
    for i, piece in enumerate(pieces, 1):
        content = _MBOX_QUOTED.sub(rb"\1", piece.rstrip(b"\r\n") + b"\n")
        yield Mail(name if len(pieces) == 1 else f"{name}:{i}", Message.of(with_crlf(content)))
