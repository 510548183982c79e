"""Compose mail of smtpguard's own: header fields safe from injection, and MIME parts (RFC 5322, RFC 2045-2047).

Text that strangers wrote is made safe here before it is shown to people.
"""

from __future__ import annotations

import hashlib
import quopri
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.header import Header

from smtpguard.mail.address import Address, BadAddress

_MESSAGE_ID = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,250}@[\x21-\x3b\x3d\x3f-\x7e]{1,250}>")
_SOME = 25
_DROPPED = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")  # invisible characters


@dataclass(frozen=True, slots=True)
class Part:
    """One MIME part: its fields, Content-Type first, and its body, encoded as the fields say, with CRLF line ends."""

    fields: tuple[tuple[str, str], ...]
    body: bytes


def text_part(subtype: str, text: str) -> Part:
    """A part of text in UTF-8, quoted-printable so that every relay can carry it (RFC 2045 section 6.7)."""
    return Part(
        (("Content-Type", f"text/{subtype}; charset=utf-8"), ("Content-Transfer-Encoding", "quoted-printable")),
        quoted_printable(text.encode()),
    )


def quoted_printable(content: bytes) -> bytes:
    """Encode as quoted-printable, with CRLF line ends whatever the content has."""
    return quopri.encodestring(content.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")


def multipart(content_type: str, parts: Sequence[Part], *, preamble: str = "") -> tuple[str, bytes]:
    """The Content-Type field's value and the body. The boundary is derived from the parts: the same parts give the
    same."""
    joint = hashlib.sha256(b"".join(p.body for p in parts))
    while True:
        boundary = f"=_{joint.hexdigest()[:40]}"
        if not any(boundary.encode() in p.body for p in parts):
            break
        joint.update(b"another")
    lines = [preamble.encode("ascii"), b"\r\n"] if preamble else []
    for part in parts:
        lines += [b"--", boundary.encode(), b"\r\n"]
        lines += [f"{name}: {value}\r\n".encode() for name, value in part.fields]
        lines += [b"\r\n", part.body, b"\r\n"]  # the last line end belongs to the boundary (RFC 2046 section 5.1.1)
    lines += [b"--", boundary.encode(), b"--\r\n"]
    return f'{content_type};\r\n boundary="{boundary}"', b"".join(lines)


def message(fields: Iterable[tuple[str, str]], content_type: str, body: bytes) -> bytes:
    """A whole message. Values must come from ``subject_field``, ``mailbox_field`` and similar."""
    lines = [f"{name}: {value}" for name, value in fields if value]
    lines += ["MIME-Version: 1.0", f"Content-Type: {content_type}"]
    if not body.isascii():
        lines.append("Content-Transfer-Encoding: 8bit")
    assert not any(re.search(r"\r\n(?![ \t])|(?<!\r)\n|\r(?!\n)", line) for line in lines), "a field that breaks out"
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def unstructured(text: str) -> str:
    """A Subject, or another field of free text: one line, encoded and folded (RFC 2047)."""
    text = one_line(text, 200)
    if text.isascii() and len(text) < 60:
        return text
    return Header(text, "utf-8", maxlinelen=74, header_name="Subject").encode(linesep="\r\n")


def mailbox_field(address: Address, name: str = "") -> str:
    """An address field's value: the display name encoded, the address as in SMTP. A domain beyond ASCII is in A-labels,
    which need no SMTPUTF8 (RFC 5891 section 4.4), so that our mail passes any relay."""
    if address.local.isascii() and not address.domain.isascii():
        address = Address(address.local, address.ascii_domain)
    if not name:
        return f"<{address}>" if not address.is_ascii else str(address)
    name = one_line(name, 60)
    if name.isascii():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{address}>'
    return f"{Header(name, 'utf-8', maxlinelen=70).encode(linesep=chr(13) + chr(10))}\r\n <{address}>"


def mailbox_of(text: str) -> tuple[str, Address]:
    """Name and address from ``Mail guard <smtpguard@example.com>`` or a bare address. Raises BadAddress."""
    head, found, tail = text.strip().rpartition("<")
    if found and tail.endswith(">"):
        return head.strip().strip('"'), Address.parse(tail[:-1])
    return "", Address.parse(text)


def message_id(name: str, kind: str, address: Address) -> str:
    """A Message-ID of ours, derived from a name, so that writing a message twice gives the same."""
    if not re.fullmatch(r"[A-Za-z0-9._\-]{1,80}", name):
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"<{name}.{kind}@{address.ascii_domain}>"


def message_ids(text: str) -> str:
    """The well-formed Message-IDs in a foreign field, folded one a line; "" if there is none."""
    return "\r\n ".join(_MESSAGE_ID.findall(text)[:10])


def one_line(text: str, limit: int = 300) -> str:
    """A stranger's text on one line, made harmless: bidi and control characters become ``\\u202e``."""
    text = text[: 4 * limit]
    clean = " ".join("".join(_shown(c) for c in text).split())
    return clean if len(clean) <= limit else clean[: limit - 1].rstrip() + "…"


def some_lines(text: str) -> str:
    """Several lines, each made safe; excess lines are replaced by an ellipsis."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    more = ["…"] if len(lines) > _SOME else []
    return "\n".join([*(one_line(line, 200) for line in lines[:_SOME]), *more]).strip("\n")


def shown_address(text: str) -> str:
    """An address for people: domains are in A-labels, and special characters escaped, so that look-alikes are visible."""
    try:
        address = mailbox_of(text)[1]
    except BadAddress:
        return one_line(text, 254)
    spelled = str(Address(address.local, address.ascii_domain))
    return one_line("".join(c if c.isascii() or _is_latin(c) else f"\\u{ord(c):04x}" for c in spelled), 254)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if character in _DROPPED:
        return ""
    category = unicodedata.category(character)
    if category == "Zs" or character in "\t\n\r\x0b\x0c":
        return " "
    return f"\\u{ord(character):04x}"


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN ")
