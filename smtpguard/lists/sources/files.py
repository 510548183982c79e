"""Members in a file on this machine, compressed or not: its path, whether it has changed, how much of it was read; and its
format, text or CSV (RFC 4180) as list servers and spreadsheets export it (Mailchimp, listmonk, Postorius, Excel).

gzip (RFC 1952) and Zstandard (RFC 8878) are known by their first octets, and decompressed while they are read: memory
stays bounded whatever the ratio of compression, and a truncated file is detected. In CSV byte order marks, the delimiter,
the header and the column of addresses are detected where they are not declared. Names may be in any encoding, since only
the addresses are read. A quote that never closes would swallow the rest of the file: such a file is refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol, cast

from smtpguard.lists.members import Table
from smtpguard.lists.sources import Cell, Source, SourceError, Tally, cell_address, open_file, why_not_opened
from smtpguard.mail.address import BadAddress

PIECE = 1 << 17  # octets that are read at a time
MAX_WINDOW = 1 << 27  # the most that zstd --long uses by default
MAX_OUT = 1 << 18  # octets that gzip yields at a time
_LONGEST_LINE_OF_TEXT = 4096  # octets
ADDRESS_NAMES = (
    "email address", "email", "e-mail", "e-mail address", "mail", "e-post", "epost", "e-postadress", "epostadress",
    "emailaddress", "email_address", "mailadress", "subscriber", "member",
)  # fmt: skip
STATUS_NAMES = ("status", "member status", "subscription status", "subscription_status", "member_status")
UNMAILED = frozenset(
    {"unsubscribed", "blocklisted", "blacklisted", "cleaned", "bounced", "archived", "deleted", "disabled"}
)
"""The statuses of people to whom a list server does not send. An unknown status counts as mailed: too many rather than too few."""
DELIMITERS = ",;\t|"
SAMPLE = 64 << 10
"""The octets from which encoding, delimiter and header are detected."""
LONGEST_LINE = 1 << 20  # octets
LONGEST_ROW = 100
"""The most lines that one row may span; with more, a quote was left open."""


class _Stream(io.RawIOBase):
    """A readable file of pieces that are made as they are read."""

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
    """Return a file with the octets of these pieces, which are made as they are read."""
    return cast(BinaryIO, io.BufferedReader(_Stream(pieces), PIECE))


def pieces_of(raw: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: raw.read(PIECE), b"")


def _peeked(raw: BinaryIO, octets: int) -> tuple[bytes, BinaryIO]:
    """Return the first ``octets`` octets, or fewer at the end, and the whole stream from its start."""
    start = b""
    while len(start) < octets and (more := raw.read(octets - len(start))):
        start += more
    return start, stream(chain((start,), pieces_of(raw)))


def unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    """Return the stream decompressed, or as it is. ``name``: its name in error messages. Reading raises SourceError."""
    start, whole = _peeked(raw, 4)
    packing = next((one for one in (_GZIP, _ZSTD) if start.startswith(one.magic)), None)
    return whole if packing is None else stream(_decompressed(whole, name, packing))


@dataclass(frozen=True, slots=True)
class _Packing:
    """A format of compression. ``bite``: the octets that are fed to the decoder at a time; ``most``: its limit of output, if it
    takes one."""

    name: str
    magic: bytes
    bite: int
    decoder: Callable[[], Any]
    most: tuple[int, ...] = ()


def _zstd_decoder() -> Any:
    import zstandard  # it is slow to load, and most processes read no list

    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()


_GZIP = _Packing("gzip", b"\x1f\x8b", 1 << 16, lambda: zlib.decompressobj(wbits=31), (MAX_OUT,))
_ZSTD = _Packing(  # fed in small pieces, since one octet can expand to many thousands
    "zstd",
    b"\x28\xb5\x2f\xfd",
    1 << 10,
    _zstd_decoder,
)


def _decompressed(raw: BinaryIO, name: str, packing: _Packing) -> Iterator[bytes]:
    """Yield decompressed octets. Several compressed members may follow one another, and each must be complete."""
    import zstandard

    packed = b""
    while packed := packed or raw.read(packing.bite):
        while len(packed) < len(packing.magic) and (more := raw.read(packing.bite)):
            packed += more
        if not packed.startswith(packing.magic):
            raise SourceError.saying(
                "{name}: something else follows the {packing} data", name=name, packing=packing.name
            )
        decoder = packing.decoder()
        while not decoder.eof:
            packed = packed or raw.read(packing.bite)
            if not packed:
                raise SourceError.saying(
                    "{name}: the {packing} data ends in the middle", name=name, packing=packing.name
                )
            try:
                yield decoder.decompress(packed, *packing.most)
            except (zlib.error, zstandard.ZstdError):
                raise SourceError.saying("{name}: damaged {packing} data", name=name, packing=packing.name) from None
            packed = decoder.unconsumed_tail
        packed = decoder.unused_data


class Format(Protocol):
    """The format of members in a stream of octets. Its repr identifies it."""

    unit: ClassVar[str]

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        """Yield every member. ``name``: the stream's name in error messages. Raises SourceError."""


@dataclass(frozen=True, slots=True)
class FileSource(Source):
    """The members in a file on this machine."""

    path: Path
    table: Format

    @property
    def label(self) -> str:
        return self.path.name

    def fingerprint(self) -> bytes:
        """Return a digest of the open file's stat. A file that has not changed and can no longer be read is an outage."""
        try:
            with open_file(self.path) as raw:
                stat = os.fstat(raw.fileno())
        except OSError as error:
            raise SourceError(why_not_opened(self.path, error)) from None
        named = (str(self.path), stat.st_ino, stat.st_size, stat.st_mtime_ns, repr(self.table))
        return hashlib.blake2b(repr(named).encode(), digest_size=32).digest()

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
            raise SourceError(why_not_opened(self.path, error)) from None


@dataclass(frozen=True, slots=True)
class TextTable:
    """The format with an address a line (Mailman 2's list_members, with or without names), or Sympa's member dump, of which only ``email``
    lines are members. Blank lines and lines that begin with ``#`` are skipped. A line longer than
    ``_LONGEST_LINE_OF_TEXT`` octets has no address."""

    unit: ClassVar[str] = "line"

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        dump = False
        for number, octets in enumerate(iter(lambda: raw.readline(_LONGEST_LINE_OF_TEXT), b""), 1):
            long = rest = len(octets) == _LONGEST_LINE_OF_TEXT and not octets.endswith(b"\n")
            while rest:
                more = raw.readline(_LONGEST_LINE_OF_TEXT)
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
                tally.reject(number, f"a line longer than {_LONGEST_LINE_OF_TEXT >> 10} KB")
            else:
                yield number, line


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvTable:
    """The format CSV. ``column``: a name, or a number from 1. ``delimiter``, ``header``, ``encoding``: None is detected.

    ``statuses``: "mailed" leaves out people to whom the list server would not send, "all" counts every row.
    """

    column: str | int | None = None
    delimiter: str | None = None
    header: bool | None = None
    encoding: str | None = None
    statuses: str = "mailed"
    status_column: str | None = None

    unit: ClassVar[str] = "line"

    @classmethod
    def of(cls, members: Table) -> CsvTable:
        return cls(**{f.name: getattr(members, f.name) for f in fields(cls)})

    def cells(self, raw: BinaryIO, name: str, tally: Tally) -> Iterator[Cell]:
        return _Reading(self, name).cells(raw, tally)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One pass over one stream of CSV."""

    table: CsvTable
    name: str

    def cells(self, raw: BinaryIO, tally: Tally) -> Iterator[Cell]:
        start, raw = _peeked(raw, SAMPLE)
        encoding = self._encoding(start)
        # octets that are not UTF-8 become lone surrogates, and do not spoil the row's address
        errors = "surrogateescape" if _is_utf8(encoding) else "strict"
        try:
            sample = start.decode(encoding, "surrogateescape" if _is_utf8(encoding) else "replace")
        except LookupError:
            raise SourceError.saying(
                "{name}: no such encoding: {encoding}", name=self.name, encoding=encoding
            ) from None
        if not sample.strip("\ufeff \t\r\n"):
            raise SourceError.saying("{name}: the file is empty", name=self.name)
        address: int | None = None
        with io.TextIOWrapper(stream(_lines(raw, self.name)), encoding=encoding, errors=errors, newline="") as text:
            reader = csv.reader(text, delimiter=self.table.delimiter or self._sniff(sample), strict=True)
            for line, row in self._rows(reader, tally):
                if address is None:
                    is_header, address, status = self._layout(row)
                    if is_header:
                        continue
                tally.rows += 1
                if len(row) <= address:
                    tally.reject(line, f"{len(row)} columns, and the address is in column {address + 1}")
                elif status is not None and status < len(row) and row[status].strip().casefold() in UNMAILED:
                    tally.unmailed += 1
                elif not (cell := row[address]) or cell.isspace():
                    tally.reject(line, "no address")
                else:
                    yield line, cell

    def _rows(self, reader: Any, tally: Tally) -> Iterator[tuple[int, list[str]]]:
        """Yield non-empty rows, with the line on which each begins. A bad quote costs a row; an open one, the file."""
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except UnicodeError:
                raise SourceError.saying(
                    "{name}: not in the declared encoding near line {line}", name=self.name, line=str(line)
                ) from None
            except csv.Error as error:
                if "field limit" in str(error) and reader.line_num <= line:
                    most = f"a value is longer than {csv.field_size_limit() >> 10} KB"
                    raise SourceError(f"{self.name}:{line}: a quote that opens here never closes, or {most}") from None
                if reader.line_num - line >= LONGEST_ROW or "expected after" not in str(error):
                    raise SourceError.saying(
                        "{name}:{line}: a quote that opens here never closes", name=self.name, line=str(line)
                    ) from None
                tally.rows += 1
                tally.reject(line, "quotes in the wrong place")
                continue
            if reader.line_num - line >= LONGEST_ROW:
                raise SourceError.saying(
                    "{name}:{line}: a quote that opens here never closes", name=self.name, line=str(line)
                )
            if any(map(str.strip, row)):
                yield line, row

    def _encoding(self, start: bytes) -> str:
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "utf-16"
        if self.table.encoding:
            return "utf-8-sig" if _is_utf8(self.table.encoding) else self.table.encoding
        if b"\x00" in start:
            raise SourceError.saying(
                "{name}: not text, or UTF-16 without a byte order mark (declare encoding)", name=self.name
            )
        return "utf-8-sig"

    def _sniff(self, sample: str) -> str:
        """Return the delimiter under which the first row has the declared column, or the rows agree best."""
        lines = sample.splitlines()[:50]
        if len(sample) >= SAMPLE and len(lines) < 50:
            lines = lines[:-1] or lines
        best, best_score = ",", -1.0
        for delimiter in DELIMITERS:
            try:
                rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
            except csv.Error:
                continue
            if not rows:
                continue
            names = [_name(cell) for cell in rows[0]]
            wanted = [self.table.column.casefold()] if isinstance(self.table.column, str) else list(ADDRESS_NAMES)
            named = any(name in names for name in wanted)
            alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            score = named * 100 + (alike * len(rows[0]) if len(rows[0]) > 1 else 0)
            if score > best_score:
                best, best_score = delimiter, score
        return best

    def _layout(self, first: list[str]) -> tuple[bool, int, int | None]:
        """Return whether the first row is a header, and the columns of the address and the status."""
        names = [_name(cell) for cell in first]
        addresses = [at for at, cell in enumerate(first) if _is_address(cell)]
        is_header = not addresses if self.table.header is None else self.table.header
        if isinstance(self.table.column, int):
            if not 1 <= self.table.column <= len(first):
                raise SourceError.saying(
                    "{name}: no column {column}: the file has {n}",
                    name=self.name,
                    column=str(self.table.column),
                    n=len(first),
                )
            address = self.table.column - 1
            if self.table.header is None:
                is_header = address not in addresses
        elif self.table.column is not None:
            if self.table.column.casefold() not in names:
                has = ", ".join(cell.strip() for cell in first[:20]) if is_header else "no header"
                raise SourceError.saying(
                    '{name}: no column "{column}": it has {has}', name=self.name, column=self.table.column, has=has
                )
            address, is_header = names.index(self.table.column.casefold()), True
        elif is_header:
            known = [names.index(name) for name in ADDRESS_NAMES if name in names]
            if not known and len(first) > 1:
                raise SourceError.saying(
                    "{name}: no column name looks like that of addresses (declare column)", name=self.name
                )
            address = known[0] if known else 0
        elif addresses:
            address = addresses[0]
        else:
            raise SourceError.saying("{name}: no column of addresses (declare column)", name=self.name)
        status = None
        if is_header and self.table.statuses != "all":
            wanted = [self.table.status_column.casefold()] if self.table.status_column else list(STATUS_NAMES)
            status = next((names.index(name) for name in wanted if name in names), None)
            if status is None and self.table.status_column:
                raise SourceError.saying(
                    '{name}: no column "{column}"', name=self.name, column=self.table.status_column
                )
        return is_header, address, status


def _lines(raw: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the stream as long as it has line ends. Without them it would be read into memory whole, however small it is
    compressed."""
    since = 0  # octets since the last line end, to within a piece
    for octets in pieces_of(raw):
        since = 0 if b"\n" in octets or b"\r" in octets else since + len(octets)
        if since > LONGEST_LINE:
            raise SourceError.saying(
                "{name}: a line longer than {n} MB: expected a table", name=name, n=LONGEST_LINE >> 20
            )
        yield octets


def _name(cell: str) -> str:
    return cell.strip().strip("\ufeff").casefold()


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"}


def _is_address(cell: str) -> bool:
    try:
        cell_address(cell)
    except BadAddress:
        return False
    return True
