"""Members in a file on this machine, compressed or not: its path, whether it has changed, and how much of it was read.

gzip (RFC 1952) and Zstandard (RFC 8878) are known by their first octets, and decompressed while they are read: memory stays bounded
whatever the ratio of compression, and a truncated file is detected.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol, cast

import zstandard

from smtpguard.lists.sources import Cell, Source, SourceError, Tally, open_file, unopened
from smtpguard.locale.phrase import Phrase

PIECE = 1 << 17
MAX_WINDOW = 1 << 27  # the most that zstd --long uses by default
MAX_OUT = 1 << 18


class _Stream(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        given = self._left[: len(buffer)]
        buffer[: len(given)] = given
        self._left = self._left[len(given) :]
        return len(given)


def stream(pieces: Iterator[bytes]) -> BinaryIO:
    """A file with these octets, made as they are read."""
    return cast(BinaryIO, io.BufferedReader(_Stream(pieces), PIECE))


def pieces_of(raw: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: raw.read(PIECE), b"")


def peeked(raw: BinaryIO, octets: int) -> tuple[bytes, BinaryIO]:
    """The first ``octets`` octets, or fewer at the end, and the whole stream from its start."""
    start = b""
    while len(start) < octets and (more := raw.read(octets - len(start))):
        start += more
    return start, stream(chain((start,), pieces_of(raw)))


def unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    """The stream decompressed, or as it is. ``name``: its name in error messages. Reading raises SourceError."""
    start, whole = peeked(raw, 4)
    packing = next((one for one in (_GZIP, _ZSTD) if start.startswith(one.magic)), None)
    return whole if packing is None else stream(_decompressed(whole, name, packing))


@dataclass(frozen=True, slots=True)
class _Packing:
    """A format of compression. ``bite``: octets that are decompressed at a time, ``most`` of them at once."""

    name: str
    magic: bytes
    bite: int
    decoder: Callable[[], Any]
    most: tuple[int, ...] = ()


_GZIP = _Packing("gzip", b"\x1f\x8b", 1 << 16, lambda: zlib.decompressobj(wbits=31), (MAX_OUT,))
_ZSTD = _Packing(  # fed in small pieces, since one octet can expand to many thousands
    "zstd",
    b"\x28\xb5\x2f\xfd",
    1 << 10,
    lambda: zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj(),
)


def _decompressed(raw: BinaryIO, name: str, packing: _Packing) -> Iterator[bytes]:
    """Several compressed members may follow one another, and each must be complete."""
    packed = b""
    while packed := packed or raw.read(packing.bite):
        while len(packed) < len(packing.magic) and (more := raw.read(packing.bite)):
            packed += more
        if not packed.startswith(packing.magic):
            raise SourceError(
                Phrase("{name}: something else follows the {packing} data", name=name, packing=packing.name)
            )
        decoder = packing.decoder()
        while not decoder.eof:
            packed = packed or raw.read(packing.bite)
            if not packed:
                raise SourceError(
                    Phrase("{name}: the {packing} data ends in the middle", name=name, packing=packing.name)
                )
            try:
                yield decoder.decompress(packed, *packing.most)
            except (zlib.error, zstandard.ZstdError):
                raise SourceError(Phrase("{name}: damaged {packing} data", name=name, packing=packing.name)) from None
            packed = decoder.unconsumed_tail
        packed = decoder.unused_data


class Table(Protocol):
    """The format of members in a stream of octets. Its repr identifies it."""

    unit: ClassVar[str]

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        """``name``: the stream's name in error messages. Raises SourceError."""


@dataclass(frozen=True, slots=True)
class FileSource(Source):
    path: Path
    table: Table

    @property
    def label(self) -> str:
        return self.path.name

    def fingerprint(self) -> bytes:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise SourceError(unopened(self.path, error)) from None
        told = (str(self.path), stat.st_ino, stat.st_size, stat.st_mtime_ns, repr(self.table))
        return hashlib.blake2b(repr(told).encode(), digest_size=32).digest()

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, self.table.unit)
        try:
            with open_file(self.path) as raw:
                tally.size += self.path.stat().st_size
                before = tally.done
                for number, cell in enumerate(self.table.cells(unpacked(raw, str(self.path)), str(self.path), tally)):
                    if not number & 1023:
                        tally.done = before + raw.tell()
                    yield cell
                tally.done = tally.size
        except OSError as error:
            raise SourceError(unopened(self.path, error)) from None


# Members in a text: an address a line (Mailman 2's list_members, with or without names), or Sympa's member dump.


LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class TextTable:
    """Blank lines and lines that begin with ``#`` are skipped. In a Sympa dump only ``email`` lines are members. A line
    longer than ``LONGEST_LINE`` octets has no address."""

    unit: ClassVar[str] = "line"

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        dump = False
        for number, octets in enumerate(iter(lambda: raw.readline(LONGEST_LINE), b""), 1):
            long = rest = len(octets) == LONGEST_LINE and not octets.endswith(b"\n")
            while rest:
                more = raw.readline(LONGEST_LINE)
                rest = bool(more) and not more.endswith(b"\n")
            line = octets.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").strip()
            if not line or line.startswith("#"):
                continue
            key, _, value = line.partition(" ")
            if key == "email" and "@" in value:
                dump, line = True, value
            elif dump:
                continue
            tally.rows += 1
            if long:
                tally.reject(number, f"a line longer than {LONGEST_LINE >> 10} KB")
            else:
                yield number, line
