"""Members in a file on this machine, compressed or not: its path, whether it has changed, and how much of it was read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from smtpguard.lists.sources import Cell, SourceError, Tally
from smtpguard.lists.sources.packed import unpacked


class Table(Protocol):
    """The format of members in a stream of octets. Its repr identifies it."""

    unit: ClassVar[str]

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        """``name``: the stream's name in error messages. Raises SourceError."""


@dataclass(frozen=True, slots=True)
class FileSource:
    path: Path
    table: Table

    @property
    def label(self) -> str:
        return self.path.name

    def fingerprint(self) -> bytes:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from None
        told = (str(self.path), stat.st_ino, stat.st_size, stat.st_mtime_ns, repr(self.table))
        return hashlib.blake2b(repr(told).encode(), digest_size=32).digest()

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, self.table.unit)
        try:
            with self.path.open("rb") as raw:
                tally.size += self.path.stat().st_size
                before = tally.done
                for number, cell in enumerate(self.table.cells(unpacked(raw, str(self.path)), str(self.path), tally)):
                    if not number & 1023:
                        tally.done = before + raw.tell()
                    yield cell
                tally.done = tally.size
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is open between two passes."""


# Members in a text: an address a line (Mailman 2's list_members, with or without names), or Sympa's member dump.


LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class TextTable:
    """Blank lines and lines that begin with ``#`` are skipped. In a Sympa dump only ``email`` lines are members."""

    unit: ClassVar[str] = "line"

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        dump = False
        for number, octets in enumerate(iter(lambda: raw.readline(LONGEST_LINE), b""), 1):
            line = octets.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").strip()
            if not line or line.startswith("#"):
                continue
            key, _, value = line.partition(" ")
            if key == "email" and "@" in value:
                dump, line = True, value
            elif dump:
                continue
            tally.rows += 1
            yield number, line
