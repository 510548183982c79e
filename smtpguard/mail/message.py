"""A message as raw bytes with a view of its header (RFC 5322). Bytes may be prepended; nothing is ever reserialised."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple

from smtpguard.mail.constant import computed, constant, maker, sha256
from smtpguard.mail.decoding import header_text

Content = bytes | mmap.mmap
"""Content in memory or mapped from a spool file. Only ``len``, slices and ``find`` work on both."""

MAX_HEADER_OCTETS = 1 << 20
_BLOCK_OCTETS = 1 << 18
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_WHOLE_FIELD = re.compile(rb"(?<![^\n])([!-9;-~]++):([^\r]*+(?:\r\n[ \t][^\r]*+)*+)\r\n")


class Field(NamedTuple):
    """One header field: its name as spelled, and its raw value with folding, without the final CRLF."""

    name: str
    raw: bytes

    @property
    def text(self) -> str:
        """Its value for people (``header_text``). Never raises."""
        return header_text(self.raw)


@constant
class Header:
    """The header block. ``broken``: a line is no field, a name is not right before its colon (for some programs, such as
    Mailman, the header ends there), or it is over 1 MiB: ambiguous, so not to be trusted. ``named``:
    the fields by name in lower case, from the top."""

    fields: tuple[Field, ...]
    broken: bool
    size_bytes: int
    named: Mapping[str, Sequence[Field]] = field(repr=False, compare=False)

    def all(self, name: str) -> Sequence[Field]:
        """Every field of that name, from the top."""
        return self.named.get(name) or self.named.get(name.lower()) or ()

    def get(self, name: str) -> str | None:
        """The text of the first field of that name, or None."""
        found = self.all(name)
        return found[0].text if found else None

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.named


_new_header = maker(Header)
_new_field = partial(tuple.__new__, Field)  # Field's own is in Python


@dataclass(frozen=True, kw_only=True, eq=False)
class Message:
    """Content with CRLF line ends, without dot-stuffing. ``sha256`` is the hexadecimal digest of exactly these bytes.

    These bytes are what people approve, what is stored, and what is sent.
    """

    raw: Content = field(repr=False)
    sha256: str

    @classmethod
    def of(cls, raw: Content) -> Message:
        return cls(raw=raw, sha256=sha256(raw).hexdigest())

    @property
    def size_bytes(self) -> int:
        return len(self.raw)

    @property
    def body_start(self) -> int:
        if self.raw[:2] == b"\r\n":
            return 2
        end = self.raw.find(b"\r\n\r\n")
        return len(self.raw) if end < 0 else end + 4

    @computed
    def header(self) -> Header:
        return parse_header(self.raw)


def first_text(fields: Mapping[str, Sequence[Field]], name: str) -> str:
    """Return the text of the first field of a name, which is given in lower case; "" if there is none."""
    found = fields.get(name)
    return found[0].text if found else ""


def in_crlf_lines(raw: Content) -> bool:
    """Whether CR and LF occur only together (RFC 5321 section 2.3.8): programs differ in what they make of one alone."""
    cr = lf = both = 0
    last = b""
    for start in range(0, len(raw), _BLOCK_OCTETS):  # a mapped file has no count, and a search takes nine times as long
        block = raw[start : start + _BLOCK_OCTETS]
        cr += block.count(b"\r")
        lf += block.count(b"\n")
        both += block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
        last = block[-1:]
    return cr == lf == both


def with_crlf(raw: bytes) -> bytes:
    """Lines of a file, or of JSON, with the line ends of mail."""
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def parse_header(raw: Content) -> Header:
    """The header block of ``raw``; total, and linear in its size."""
    end = raw.find(b"\r\n\r\n")
    if raw[:2] == b"\r\n":
        return Header(fields=(), broken=False, size_bytes=0, named={})
    if end < 0:
        end = len(raw)
    broken = end > MAX_HEADER_OCTETS
    end = min(end, MAX_HEADER_OCTETS)
    whole = _WHOLE_FIELD.findall(raw[: end + 2])
    text = b"".join(chain.from_iterable(whole))
    clean = b"\0" not in text and text.count(b"\n") == text.count(b"\r")  # those of folding
    if clean and not broken and len(text) + len(b":\r\n") * len(whole) == end + 2:
        # every line is part of a field: the usual case
        names, values = zip(*whole, strict=True)
        spelled = b" ".join(names).decode("ascii")
        usual = tuple(map(_new_field, zip(spelled.split(" "), values, strict=True)))
        named = dict(zip(spelled.lower().split(" "), zip(usual, strict=True), strict=True))
        return _new_header(
            fields=usual,
            broken=False,
            size_bytes=end,
            named=named if len(named) == len(usual) else _by_name(usual),
        )
    fields: list[Field] = []
    name, parts = "", []
    for line in raw[:end].split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if not name:
                broken = True
            parts.append(line)
            continue
        if name:
            fields.append(Field(name, b"\r\n".join(parts)))
            name = ""
        if not line:
            continue
        found = _FIELD.match(line)
        if not found:
            broken = True
            parts = []
            continue
        name = found[1].decode("ascii")
        broken = broken or found.end() > found.end(1) + 1
        parts = [line[found.end() :]]
    if name:
        fields.append(Field(name, b"\r\n".join(parts)))
    broken = broken or any(b"\x00" in f.raw for f in fields)
    return Header(fields=tuple(fields), broken=broken, size_bytes=end, named=_by_name(fields))


def _by_name(fields: Iterable[Field]) -> Mapping[str, Sequence[Field]]:
    named: dict[str, list[Field]] = {}
    for one in fields:
        named.setdefault(one.name.lower(), []).append(one)
    return named
