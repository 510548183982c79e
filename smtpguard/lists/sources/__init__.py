"""Sources of members: the common parts. Each kind of source has a file here.

A source yields the texts that contain addresses, in one pass, in bounded memory, each with its place. A text without an
address is counted by its place, never by its content.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from smtpguard.lists.members import Members
from smtpguard.locale.phrase import Phrase, Said, Value
from smtpguard.mail.address import Address, BadAddress

log = logging.getLogger(__name__)

SHOWN = 20  # bad rows that are named one by one
MIN_BAD = 3  # bad rows that any source may have

Cell = tuple[int, str]
"""A place (a line, a row, an entry, from 1) and the text there that should hold an address."""

Stop = Callable[[], bool]
"""Whether the caller has given up: a source that waits for others checks it between their answers."""


class SourceError(Exception):
    """The source cannot be read, or is implausible: nothing of it is used. Names file and line if possible.

    The text is for terminals, logs and mail, and partly from the other side: control characters are removed.
    """

    def __init__(self, said: Said) -> None:
        self.said = _plain(said)
        super().__init__(str(self.said))


def _plain(value: Said) -> Said:
    if isinstance(value, Phrase):
        return value.instead(**{k: _plain(v) if isinstance(v, str) else v for k, v in value.values.items()})
    return "".join(c if c.isprintable() else "?" for c in value)


def unopened(path: Path | str, error: OSError) -> Phrase:
    """What happens often can be translated; the system's words are in English."""
    if isinstance(error, FileNotFoundError):
        return Phrase("{name}: No such file or directory", name=str(path))
    if isinstance(error, PermissionError):
        return Phrase("{name}: Permission denied", name=str(path))
    return Phrase("{name}: {why}", name=str(path), why=error.strerror or type(error).__name__)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row without an address. The row is personal data, so only its place is reported."""

    line: int
    why: str
    unit: str = "line"
    source: str = ""

    def __str__(self) -> str:
        return f"{self.unit} {self.line}: {self.why}"


@dataclass(slots=True)
class Tally:
    """Counts of one pass. ``done`` of ``size`` octets, for a progress bar; a source of unknown size leaves both 0.

    ``unmailed``: rows of people to whom the list server would not send. ``ignored``: targets of a map that are no
    mailbox. ``unit`` and ``source`` name what is being read; a source sets them when it begins.
    """

    rows: int = 0
    bad: int = 0
    unmailed: int = 0
    ignored: int = 0
    shown: list[BadRow] = field(default_factory=list)
    done: int = 0
    size: int = 0
    unit: str = "line"
    source: str = ""

    def begin(self, source: str, unit: str) -> None:
        self.source, self.unit = source, unit

    def reject(self, line: int, why: str) -> None:
        self.bad += 1
        if len(self.shown) < SHOWN:
            self.shown.append(BadRow(line, why, self.unit, self.source))


class Source(ABC):
    """One source of members, opened for one pass."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name for people: a file's name, a server's and a list's, without secrets."""

    @cached_property
    def opening(self) -> bytes:
        """32 octets, different for each opening."""
        return secrets.token_bytes(32)

    def fingerprint(self) -> bytes:
        """32 octets that change whenever the members could have changed; cheap. Raises SourceError.

        Asked before a pass and after it: a different answer means that the source changed while it was read. A source
        that cannot tell without being read returns ``opening``, so that it is always read.
        """
        return self.opening

    @abstractmethod
    def cells(self, tally: Tally) -> Iterator[Cell]:
        """Every member, in its original spelling; ``tally.rows`` counts them. Raises SourceError, midway too."""

    def close(self) -> None:  # noqa: B027 - most have nothing open between two passes
        """Close what ``fingerprint`` or an unfinished pass has left open. Idempotent."""


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, for a pipe or a device too: its end may never come."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file")
    return file


def unfit(label: str, people: int, tally: Tally, members: Members) -> tuple[Phrase, str] | None:
    """Why the result is implausible for this source, and the key of the policy that says so ("" for no members at all);
    None if it is plausible."""
    if tally.bad > max(MIN_BAD, tally.rows * members.max_bad):
        words: dict[str, Value] = {"name": label, "bad": tally.bad, "rows": tally.rows}
        if not tally.shown:
            return Phrase("{name}: {bad} of {rows} rows hold no address", **words), "max_bad"
        first = str(tally.shown[0])
        return Phrase(
            "{name}: {bad} of {rows} rows hold no address (the first: {first})", **words, first=first
        ), "max_bad"
    if not people:
        if not tally.shown:
            return Phrase("{name} has no members", name=label), ""
        return Phrase("{name} has no members: {first}", name=label, first=str(tally.shown[0])), ""
    if people < members.at_least:
        held = Phrase.counted("{n} person", "{n} people", people)
        words = {"name": label, "people": held, "least": members.at_least}
        return Phrase("{name} holds {people}, and the policy expects at least {least}", **words), "at_least"
    return None


def unforeseen(label: str, error: Exception) -> Phrase:
    """For an unexpected exception of a library or ours: the log gets its type and place, not its text, which may
    contain an address."""
    kind, where = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
    log.error("%s while reading %s\n%s", kind, label, where)
    return Phrase("{name} cannot be read: {kind} (see the log)", name=label, kind=kind)


def addresses(source: Source, tally: Tally) -> Iterator[Address]:
    """Every member as a mailbox; other texts are counted in ``tally``. Raises SourceError, midway too."""
    for place, text in source.cells(tally):
        try:
            yield cell_address(text)
        except BadAddress as error:
            tally.reject(place, str(error))


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
