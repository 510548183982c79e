"""The MIME parts of a message, by its boundaries (RFC 2046), on its octets and within bounds.

Two programs may split a malformed message differently. If that could hide text, the walk reports it ("two
boundaries"), and if possible it gives the text of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from smtpguard.locale.phrase import Phrase, Said
from smtpguard.mail.decoding import decode_transfer, is_no_base64, parse_value, transfer_encoding
from smtpguard.mail.message import Content, Field, parse_header
from smtpguard.reading.request import Meter, TooComplex

_TYPE = re.compile(r"[\w!#$%&'*+.^`{|}~-]+/[\w!#$%&'*+.^`{|}~-][\w!#$%&'*+.^`{|}~/-]*", re.A)  # RFC 2045 section 5.1


MAX_PART_HEADER = 64 << 10
"""The most octets of a part's header."""
_MESSAGES = frozenset({"message/rfc822", "message/global", "message/news"})

Index = Mapping[str, Sequence[Field]]
"""Fields by name in lower case, from the top (Header.named)."""


@dataclass(slots=True, kw_only=True)
class Part:
    """A leaf, or an attached message. ``raw[start:end]`` is its body, still encoded."""

    kind: str
    parameters: Mapping[str, str]
    encoding: str
    attachment: bool
    filename: str
    othernames: tuple[str, ...]  # names that some programs show instead
    raw: Content
    start: int
    end: int
    within: str  # the type of the multipart around it
    nested: int  # the number of attached messages around it
    fields: Index

    @property
    def is_message(self) -> bool:
        """Return whether it is an attached message, by its type or, if that is no text, by its name, as desktops open
        it. Its parts follow it."""
        return self.kind in _MESSAGES or (_is_file(self.kind) and self.filename.lower().endswith(_SAVED))

    @property
    def body(self) -> bytes:
        return self.raw[self.start : self.end]


@dataclass(slots=True)
class Walk:
    """The result of a walk. ``unreadable``: why the content cannot be fully known."""

    parts: list[Part] = field(default_factory=list)
    defects: list[Phrase] = field(default_factory=list)
    unreadable: Said = ""
    boundaries: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # the types of all parts, in order
    subjects: list[str] = field(
        default_factory=list
    )  # subjects of parts: programs show them if a part is signed (RFC 9788)
    alike: set[bytes] = field(default_factory=set)  # lines that begin with a boundary and go on

    def give_up(self, why: Phrase) -> None:
        self.unreadable = self.unreadable or why


# Types whose content is encrypted, or is elsewhere.
_SEALED = {
    "multipart/encrypted": Phrase("it is encrypted ({how})", how="PGP/MIME or S/MIME"),
    "application/pgp-encrypted": Phrase("it is encrypted ({how})", how="PGP/MIME"),
    "application/ms-tnef": Phrase("it is in Microsoft's TNEF format (winmail.dat)"),
    "application/vnd.ms-tnef": Phrase("it is in Microsoft's TNEF format (winmail.dat)"),
    "message/partial": Phrase("it is one fragment of a larger message"),
    "message/external-body": Phrase("its text is kept elsewhere (message/external-body)"),
    "application/vnd.ms-outlook": Phrase("a message is attached in Outlook's own format (.msg)"),
    "application/x-microsoft-rpmsg-message": Phrase("it is encrypted ({how})", how="Microsoft rights management"),
}
_SMIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_SMIME_NAMED = (".p7m", ".p7z")  # RFC 8551 section 3.2.1
_TNEF_BEGINS = b"eJ8+I"  # the signature of TNEF (MS-OXTNEF 2.1.3.1), in base64
_SAVED = (".eml", ".mht", ".mhtml")


def walk(raw: Content, fields: Index, start: int, meter: Meter) -> Walk:
    """Return all parts of ``raw`` from ``start`` on. ``fields``: its header. Raises TooComplex."""
    found = Walk()
    _part(found, raw, fields, start, len(raw), "", 0, 0, meter, "text/plain")
    boundaries = {b.encode("utf-8", "surrogateescape") for b in found.boundaries}
    if not boundaries.isdisjoint([b + b"--" for b in boundaries]):  # the one begins a part of the other, or ends it
        found.give_up(Phrase("it gives two boundaries"))
    if not all(line in boundaries or line.removesuffix(b"--") in boundaries for line in found.alike):
        # some servers take such a line for a boundary (RFC 2046 section 5.1.1)
        found.give_up(Phrase("it has lines that only begin with a boundary"))
    return found


def _part(out: Walk, raw: Content, fields: Index, start: int, end: int, within: str, depth: int, nested: int,
          meter: Meter, default: str) -> None:  # fmt: skip
    meter.take_part(depth)
    given = fields.get("content-type", [])
    if len(given) > 1 and len({parse_value(f.raw).value for f in given}) + len({f.raw for f in given}) > 2:
        out.give_up(Phrase("it has two Content-Type fields that differ"))
    encodings = fields.get("content-transfer-encoding", [])
    if len({transfer_encoding(f.raw) for f in encodings}) > 1:
        out.give_up(Phrase("it has two Content-Transfer-Encoding fields that differ"))
    content = parse_value(given[0].raw) if given else parse_value(default.encode())
    if "boundary" in content.doubled:
        out.give_up(Phrase("it gives two boundaries"))
    if "charset" in content.doubled:
        out.give_up(Phrase("it gives two charsets"))
    kind = content.value
    if _TYPE.fullmatch(kind) is None and not kind.startswith("multipart/"):
        kind = "text/plain"  # RFC 2045 section 5.2
    boundary = b"--" + content.parameters.get("boundary", "").encode("utf-8", "surrogateescape")
    if len(boundary) > 2 and not kind.startswith("multipart/") and raw.find(boundary, start, end) >= 0:
        out.give_up(Phrase("it is a multipart whose parts cannot be told apart"))
    encoding = transfer_encoding(encodings[0].raw) if encodings else ""
    disposition = fields.get("content-disposition", [])
    disposed = parse_value(disposition[0].raw) if disposition else parse_value(b"")
    filename = disposed.parameters.get("filename") or content.parameters.get("name") or ""
    described = [f.text for f in fields.get("content-description", ())]
    othernames = dict.fromkeys((*disposed.named, *content.named, *described))
    out.kinds.append(kind)
    if within and within != "message/rfc822":
        out.subjects += [f.text for f in fields.get("subject", ())]
    if kind in _SEALED:
        out.give_up(_SEALED[kind])
    elif kind in _SMIME or (_is_file(kind) and filename.lower().endswith(_SMIME_NAMED)):
        smime = content.parameters.get("smime-type", "")
        if smime != "certs-only":
            out.give_up(
                Phrase("it is wrapped in S/MIME as signed data")
                if smime == "signed-data"
                else Phrase("it is wrapped in S/MIME, encrypted")
            )
    elif filename.lower() == "winmail.dat" or (_is_file(kind) and raw[start : start + 5] == _TNEF_BEGINS):
        out.give_up(_SEALED["application/ms-tnef"])
    elif _is_file(kind) and filename.lower().endswith(".msg"):
        out.give_up(_SEALED["application/vnd.ms-outlook"])
    part = Part(
        kind=kind, parameters=content.parameters, encoding=encoding, attachment=disposed.value == "attachment",
        filename=filename, othernames=tuple(name for name in othernames if name not in ("", filename)), raw=raw, start=start, end=end, within=within, nested=nested, fields=fields,
    )  # fmt: skip
    if kind.startswith("multipart/"):
        _multipart(out, part, depth, meter)
    elif part.is_message:
        out.parts.append(part)
        _attached_message(out, part, depth, meter)
    else:
        out.parts.append(part)


def _is_file(kind: str) -> bool:
    return not kind.startswith(("text/", "message/", "multipart/"))


def _multipart(out: Walk, part: Part, depth: int, meter: Meter) -> None:
    boundary = part.parameters.get("boundary", "").rstrip()
    pieces = list(_split(part, boundary, meter, out.alike)) if boundary else []
    if boundary:
        out.boundaries.append(boundary)
    if not pieces:
        if part.end - part.start > 2:
            # Some programs show such a body unparsed, others split it in their own way.
            out.give_up(Phrase("it is a multipart whose parts cannot be told apart"))
            part.kind = "text/plain"
            out.parts.append(part)
        return
    if part.encoding in ("base64", "quoted-printable"):
        out.defects.append(Phrase("it holds an encoding around many parts"))
    default = "message/rfc822" if part.kind == "multipart/digest" else "text/plain"
    for start, end in pieces:
        fields, body = _head(part.raw, start, end, out)
        _part(out, part.raw, fields, body, end, part.kind, depth + 1, part.nested, meter, default)


def _split(part: Part, boundary: str, meter: Meter, alike: set[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each part of a multipart. Lines that only begin with the boundary are added to
    ``alike``. Without a last boundary the last part ends with its container (RFC 2046 section 5.1.2)."""
    raw, end = part.raw, part.end
    line = b"--" + boundary.encode("utf-8", "surrogateescape")
    begin = -1
    position = part.start
    for _ in range(2 * meter.bounds.parts + 2):
        position = raw.find(line, position, end)
        if position < 0:
            break
        after = position + len(line)
        whole = position == part.start or raw[position - 1 : position] == b"\n"
        closing = raw[after : after + 2] == b"--"
        eol = raw.find(b"\n", after, min(end, after + 1000))
        rest = raw[after + 2 * closing : end if eol < 0 else eol].strip() if whole else b"x"
        if rest:
            if whole:
                alike.add(raw[position + 2 : end if eol < 0 else eol].rstrip())
            position = after
            continue
        closing = closing and position != begin  # some programs go on after a last boundary right behind another one
        if begin >= 0:
            yield begin, max(begin, position - (2 if raw[position - 2 : position - 1] == b"\r" else 1))
        begin = -1 if closing or eol < 0 else eol + 1
        position = after if begin < 0 else begin  # some programs go on after the last boundary
    else:
        raise TooComplex(Phrase("it has more than {n} parts", n=meter.bounds.parts))
    if begin >= 0:
        yield begin, end


def _head(raw: Content, start: int, end: int, out: Walk) -> tuple[Index, int]:
    """Return the header of a part, and the start of its body."""
    if raw[start : start + 2] == b"\r\n":
        return {}, start + 2
    stop = raw.find(b"\r\n\r\n", start, min(end, start + MAX_PART_HEADER))
    if stop < 0:
        if end - start > MAX_PART_HEADER:
            raise TooComplex(Phrase("a part's header is larger than 64 KiB"))
        stop = end
    header = parse_header(raw[start:stop])
    if header.broken:
        if not header.fields:  # no header at all: some programs show it from its first line on
            return {}, start
        out.give_up(Phrase("a part's header is broken"))
    return header.named, min(end, stop + 4)


def _attached_message(out: Walk, part: Part, depth: int, meter: Meter) -> None:
    raw, start, end = part.raw, part.start, part.end
    coded = part.encoding not in ("", "7bit", "8bit", "binary")  # forbidden by RFC 2046 section 5.2.1, but it occurs
    if coded and not (part.encoding == "base64" and is_no_base64(part.body)):
        meter.take_text(end - start)
        decoded, _ = decode_transfer(part.body, part.encoding)
        raw = decoded.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        start, end = 0, len(raw)
    fields, body = _head(raw, start, end, out)
    part.fields = fields
    _part(out, raw, fields, body, end, "message/rfc822", depth + 1, part.nested + 1, meter, "text/plain")
