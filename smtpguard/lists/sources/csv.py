"""Members in a CSV file (RFC 4180), as list servers and spreadsheets export it: Mailchimp, listmonk, Postorius, Excel.

Byte order marks, the delimiter, the header and the column of addresses are found out where they are not declared. Names
may be in any encoding, since only the addresses are read. A quote that never closes would swallow the rest of the file:
such a file is refused. Never here: how many members are enough (sync).
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from smtpguard.lists.sources import Cell, SourceError, Tally, cell_address
from smtpguard.mail.address import BadAddress

ADDRESS_NAMES = (
    "email address", "email", "e-mail", "e-mail address", "mail", "e-post", "epost", "e-postadress", "epostadress",
    "emailaddress", "email_address", "mailadress", "subscriber", "member",
)  # fmt: skip
STATUS_NAMES = ("status", "member status", "subscription status", "subscription_status", "member_status")
UNMAILED = frozenset(
    {"unsubscribed", "blocklisted", "blacklisted", "cleaned", "bounced", "archived", "deleted", "disabled"}
)
"""Statuses of people whom a list server does not write to. A word that is not here counts: too many rather than too few."""

DELIMITERS = ",;\t|"
SAMPLE = 64 << 10
LONGEST_ROW = 100  # lines that one row may span: more, and a quote was left open somewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvSource:
    """``column``: a name, or a number from 1. ``delimiter``, ``header``, ``encoding``: None is found out.

    ``statuses``: "mailed" leaves out those whom the list server would not write to, "all" counts every row.
    """

    path: Path
    column: str | int | None = None
    delimiter: str | None = None
    header: bool | None = None
    encoding: str | None = None
    statuses: str = "mailed"
    status_column: str | None = None

    @classmethod
    def of(cls, declaration: Mapping[str, Any], base: Path) -> CsvSource:
        options = {k: declaration[k] for k in cls.__slots__ if k != "path" and declaration.get(k) is not None}
        return cls(path=base / declaration["csv"], **options)

    @property
    def label(self) -> str:
        return self.path.name

    def fingerprint(self) -> bytes:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from None
        told = (str(self.path), stat.st_ino, stat.st_size, stat.st_mtime_ns, repr(self))
        return hashlib.blake2b(repr(told).encode(), digest_size=32).digest()

    def close(self) -> None:
        """Nothing is open between two passes."""

    def cells(self, tally: Tally) -> Iterator[Cell]:
        tally.begin(self.label, "line")
        try:
            with self.path.open("rb") as raw:
                tally.size += self.path.stat().st_size
                before = tally.done
                for number, cell in enumerate(self._cells(raw, tally)):
                    if not number % 1024:
                        tally.done = before + raw.tell()
                    yield cell
                tally.done = tally.size
        except OSError as error:
            raise SourceError(f"{self.path}: {error.strerror}") from None

    def _cells(self, raw: BinaryIO, tally: Tally) -> Iterator[Cell]:
        start = raw.read(SAMPLE)
        raw.seek(0)
        encoding = self._encoding(start)
        # what is not UTF-8 must not stop a row whose address is: it comes through as lone surrogates
        errors = "surrogateescape" if _is_utf8(encoding) else "strict"
        try:
            sample = start.decode(encoding, "surrogateescape" if _is_utf8(encoding) else "replace")
        except LookupError:
            raise SourceError(f"{self.path}: no such encoding: {encoding}") from None
        if not sample.strip("\ufeff \t\r\n"):
            raise SourceError(f"{self.path}: the file is empty")
        layout = None
        with io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="") as text:
            reader = csv.reader(text, delimiter=self.delimiter or self._sniff(sample), strict=True)
            for line, row in self._rows(reader, tally):
                if layout is None:
                    layout = self._layout(row)
                    if layout.is_header:
                        continue
                tally.rows += 1
                if len(row) <= layout.address:
                    tally.reject(line, f"{len(row)} columns, and the address is in column {layout.address + 1}")
                elif layout.status is not None and _is_unmailed(row, layout.status):
                    tally.unmailed += 1
                elif not row[layout.address].strip():
                    tally.reject(line, "no address")
                else:
                    yield line, row[layout.address]

    def _rows(self, reader: _Reader, tally: Tally) -> Iterator[tuple[int, list[str]]]:
        """Rows that hold anything, with the line on which each begins. Bad quotes cost a row; open ones, the file."""
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except UnicodeError:
                raise SourceError(f"{self.path}: not in the declared encoding near line {line}") from None
            except csv.Error as error:
                if reader.line_num - line >= LONGEST_ROW or "expected after" not in str(error):
                    raise SourceError(f"{self.path}:{line}: a quote that opens here never closes") from None
                tally.rows += 1
                tally.reject(line, "quotes in the wrong place")
                continue
            if reader.line_num - line >= LONGEST_ROW:
                raise SourceError(f"{self.path}:{line}: a quote that opens here never closes")
            if any(cell.strip() for cell in row):
                yield line, row

    def _encoding(self, start: bytes) -> str:
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "utf-16"
        if self.encoding:
            return "utf-8-sig" if _is_utf8(self.encoding) else self.encoding
        if b"\x00" in start:
            raise SourceError(f"{self.path}: no text, or UTF-16 without its mark (declare encoding)")
        return "utf-8-sig"

    def _sniff(self, sample: str) -> str:
        """The delimiter under which the first row holds the declared column, or the rows agree the best."""
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
            wanted = [self.column.casefold()] if isinstance(self.column, str) else list(ADDRESS_NAMES)
            named = any(name in names for name in wanted)
            alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            score = named * 100 + (alike * len(rows[0]) if len(rows[0]) > 1 else 0)
            if score > best_score:
                best, best_score = delimiter, score
        return best

    def _layout(self, first: list[str]) -> _Layout:
        """Which columns of the file say what, from its first row."""
        names = [_name(cell) for cell in first]
        addresses = [at for at, cell in enumerate(first) if _is_address(cell)]
        is_header = not addresses if self.header is None else self.header
        if isinstance(self.column, int):
            if not 1 <= self.column <= len(first):
                raise SourceError(f"{self.path}: no column {self.column}: the file has {len(first)}")
            address = self.column - 1
            if self.header is None:
                is_header = address not in addresses
        elif self.column is not None:
            if self.column.casefold() not in names:
                has = ", ".join(cell.strip() for cell in first[:20]) if is_header else "no header"
                raise SourceError(f'{self.path}: no column "{self.column}": it has {has}')
            address, is_header = names.index(self.column.casefold()), True
        elif is_header:
            known = [names.index(name) for name in ADDRESS_NAMES if name in names]
            if not known and len(first) > 1:
                raise SourceError(f"{self.path}: no column is named as one of addresses (declare column)")
            address = known[0] if known else 0
        elif addresses:
            address = addresses[0]
        else:
            raise SourceError(f"{self.path}: no column of addresses (declare column)")
        status = None
        if is_header and self.statuses != "all":
            wanted = [self.status_column.casefold()] if self.status_column else list(STATUS_NAMES)
            status = next((names.index(name) for name in wanted if name in names), None)
            if status is None and self.status_column:
                raise SourceError(f'{self.path}: no column "{self.status_column}"')
        return _Layout(is_header, address, status)


class _Reader(Protocol):
    """What csv.reader gives."""

    @property
    def line_num(self) -> int: ...
    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class _Layout:
    is_header: bool
    address: int
    status: int | None


def _name(cell: str) -> str:
    return cell.strip().strip("\ufeff").casefold()


def _is_unmailed(row: list[str], status: int) -> bool:
    return status < len(row) and row[status].strip().casefold() in UNMAILED


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"}


def _is_address(cell: str) -> bool:
    try:
        cell_address(cell)
    except BadAddress:
        return False
    return True
