"""Members in a text: an address a line (Mailman 2's list_members, with or without names), or Sympa's member dump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from smtpguard.lists.sources import Cell, Tally

LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class TextTable:
    """Blank lines and lines that begin with ``#`` are nothing. Of a Sympa dump only ``email`` lines are members."""

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
