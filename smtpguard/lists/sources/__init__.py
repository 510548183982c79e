"""Where members come from: one file a source, and here what all of them have in common.

A source gives addresses in one pass, in bounded memory, and counts what it could not read by line, never by content.
Never here: what becomes of them (sync).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from smtpguard.mail.address import Address, BadAddress

SHOWN = 20  # bad rows that are named one by one


class SourceError(Exception):
    """The source cannot be read, or cannot be right: nothing of it is to be used. Names file and line where it can."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that holds no address. The row itself is somebody's data: only its line is told."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


@dataclass(slots=True)
class Tally:
    """What was met in one pass. ``done`` of ``size`` octets, for a progress bar; ``unmailed``: rows of people whom the
    list server would not write to."""

    rows: int = 0
    bad: int = 0
    unmailed: int = 0
    shown: list[BadRow] = field(default_factory=list)
    done: int = 0
    size: int = 0

    def reject(self, line: int, why: str) -> None:
        self.bad += 1
        if len(self.shown) < SHOWN:
            self.shown.append(BadRow(line, why))


class Source(Protocol):
    """One place where members stand."""

    @property
    def label(self) -> str:
        """What people call it: a file's name, without what is secret."""

    def fingerprint(self) -> bytes:
        """Changes whenever the members could have changed; cheap. Raises SourceError."""

    def read(self, tally: Tally) -> Iterator[Address]:
        """Every member, mailboxes spelled as they came. Raises SourceError, midway too."""


def cell_address(text: str) -> Address:
    """The mailbox in a cell or a line: ``anna@example.se``, ``Anna <anna@example.se>``, ``mailto:anna@example.se``.

    Raises BadAddress.
    """
    text = text.strip().strip("\ufeff\u200b\u00a0 \t;,")
    if text.endswith(">"):
        text = text[:-1].rpartition("<")[2]
    if text[:7].lower() == "mailto:":
        text = text[7:]
    if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
        raise BadAddress("characters in another encoding than expected")
    return Address.parse(text)
