"""Members in a text file: an address a line (Mailman 2's list_members, with or without names), or Sympa's member dump.

Never here: how many members are enough (sync).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtpguard.lists.sources import Cell, SourceError, Tally

LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """Blank lines and lines that begin with ``#`` are nothing. Of a Sympa dump only ``email`` lines are members."""

    path: Path

    @classmethod
    def of(cls, declaration: Mapping[str, Any], base: Path) -> TextSource:
        return cls(path=base / declaration["text"])

    @property
    def label(self) -> str:
        return self.path.name

    def fingerprint(self) -> bytes:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from None
        told = (str(self.path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return hashlib.blake2b(repr(told).encode(), digest_size=32).digest()

    def close(self) -> None:
        """Nothing is open between two passes."""

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, "line")
        try:
            with self.path.open("rb") as file:
                tally.size += self.path.stat().st_size
                dump = False
                for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                    tally.done += len(raw)
                    line = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").strip()
                    if not line or line.startswith("#"):
                        continue
                    key, _, value = line.partition(" ")
                    if key == "email" and "@" in value:
                        dump, line = True, value
                    elif dump:
                        continue
                    tally.rows += 1
                    yield number, line
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from None
