"""Members in a file on this machine, compressed or not: its path, whether it has changed, and how much of it was read.

gzip (RFC 1952) and Zstandard (RFC 8878) are known by their first octets, and decompressed while they are read: memory stays bounded
whatever the ratio of compression, and a truncated file is detected.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, cast

import zstandard

from smtpguard.lists.sources import Cell, SourceError, Tally

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
MAX_WINDOW = 1 << 27  # the most that zstd --long uses by default
MAX_OUT = 1 << 18


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class Rewound(io.RawIOBase):
    """A stream whose start was already read, from its start."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start, self._rest = memoryview(start), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._start:
            read = self._rest.read(len(buffer))
            buffer[: len(read)] = read
            return len(read)
        given = self._start[: len(buffer)]
        buffer[: len(given)] = given
        self._start = self._start[len(given) :]
        return len(given)


def peeked(raw: BinaryIO, octets: int) -> tuple[bytes, BinaryIO]:
    """The first ``octets`` octets, or fewer at the end, and the whole stream from its start."""
    start = bytearray()
    while len(start) < octets and (more := raw.read(octets - len(start))):
        start += more
    return bytes(start), cast(BinaryIO, io.BufferedReader(Rewound(bytes(start), raw), 1 << 17))


def unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    """The stream decompressed, or as it is. ``name``: its name in error messages. Reading raises SourceError."""
    start, whole = peeked(raw, 4)
    if start.startswith(GZIP):
        return cast(BinaryIO, io.BufferedReader(_Gzip(whole, name), 1 << 17))
    if start == ZSTD:
        return cast(BinaryIO, io.BufferedReader(_Zstd(whole, name), 1 << 17))
    return whole


class _Packed(io.RawIOBase):
    """Common to both formats: several compressed members may follow one another, and each must be complete."""

    kind: str
    magic: bytes
    bite: int

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self._raw, self._name = raw, name
        self._packed = self._out = b""
        self._decoder: _Decoder | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._out:
            if not self._packed:
                self._packed = self._raw.read(self.bite)
            if not self._packed:
                if self._decoder is not None:
                    raise SourceError(f"{self._name}: the {self.kind} data ends in the middle")
                return 0
            if self._decoder is None:
                self._start()
            try:
                self._unpack()
            except (zlib.error, zstandard.ZstdError):
                raise SourceError(f"{self._name}: damaged {self.kind} data") from None
            if self._decoder is not None and self._decoder.eof:
                self._packed = self._decoder.unused_data
                self._decoder = None
        given = self._out[: len(buffer)]
        buffer[: len(given)] = given
        self._out = self._out[len(given) :]
        return len(given)

    def _start(self) -> None:
        """A decoder for the compressed member that begins here."""
        while len(self._packed) < len(self.magic) and (more := self._raw.read(self.bite)):
            self._packed += more
        if not self._packed.startswith(self.magic):
            raise SourceError(f"{self._name}: something else follows the {self.kind} data")
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """A decoder of its kind."""

    @abstractmethod
    def _unpack(self) -> None:
        """Decompress some of ``_packed`` into ``_out``."""


class _Gzip(_Packed):
    kind, magic, bite = "gzip", GZIP, 1 << 16

    def _begin(self) -> None:
        self._gzip = self._decoder = zlib.decompressobj(wbits=31)

    def _unpack(self) -> None:
        self._out = self._gzip.decompress(self._packed, MAX_OUT)
        self._packed = self._gzip.unconsumed_tail


class _Zstd(_Packed):
    """Fed in small pieces, since one octet can expand to many thousands."""

    kind, magic, bite = "zstd", ZSTD, 1 << 10

    def _begin(self) -> None:
        self._zstd = self._decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()

    def _unpack(self) -> None:
        self._out = self._zstd.decompress(self._packed)
        self._packed = b""


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
