"""The people of a message: the addresses and names in From, To and Cc, and the quoted writers (RFC 5322 section 3.4).

Addresses are read in any spelling that mail programs write; text that is no address is skipped. All of it can be
forged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.utils import getaddresses

from smtpguard.mail.address import MAX_LABEL_OCTETS, PLAIN, cuts_plain
from smtpguard.mail.constant import constant
from smtpguard.mail.decoding import header_text
from smtpguard.mail.fields import without_comments
from smtpguard.reading.fold import fold
from smtpguard.reading.parts import Index
from smtpguard.reading.quoting import FROM, Split
from smtpguard.reading.request import Surroundings

WRITERS = ("from", "sender", "reply-to", "resent-from", "resent-sender")
"""The fields that name who wrote or sent a message."""
RECIPIENTS = ("to", "cc", "bcc", "resent-to", "resent-cc")
MOST_ADDRESSES = 2_000
"""The most addresses that are taken from one value."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+(?:"(@?)|\\?\Z)')
_BRACKETED = re.compile(r"<([^<>]{1,1000})>")
# It matches only at the beginning of a word, so that a long word is scanned once.
_BARE = re.compile(r"""(?<![^\s,;:<>()\[\]"])(?:[^\s,;:<>()\[\]"@]{1,320}|"[^"]{1,320}")@[^\s,;:<>()"]{1,255}""")
_NAME_SIGNS = (b"<", b":", b"(")
_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*+"?|<[^<>]*+>?|[,;:]|[^"<>,;:]++|>', re.S)
_MOST_READ = 16_000  # octets of a field in which names are looked for
_LOOKED_AT = 8_000  # octets of To and Cc, and characters of a quotation, in which people are looked for
_MAILTO = re.compile(r"\[mailto:([^\]\s]{3,320})\]", re.I)  # as Outlook writes it
_SHORTEST_NAME = 4  # characters
_MOST_SHOWN = 50  # people in To and Cc
_SOURCE_ROUTE = re.compile(r"@[^:]*:")
# A plain name with its mailbox, or a mailbox alone, which is its own canonical key: nearly every field.
_PLAIN = re.compile(rf"[ \t]*+(?:([\w!#$%&'*+/^`{{|}}~ -]*+)<({PLAIN})>|({PLAIN}))[ \t]*+\Z".encode()).match


@constant
class People:
    """The people of a header, by their canonical addresses. ``sender``: From, "" if there is none; ``ambiguous``:
    there is more than one."""

    sender: str = ""
    ambiguous: bool = False
    reply_to: str = ""
    shown: tuple[str, ...] = ()

    def one_outside(self, around: Surroundings) -> str:
        """Return the only other person in To and Cc, if that is no list and no colleague; else ""."""
        others = [a for a in self.shown if a != self.sender]
        alone = len(others) == 1 and others[0] not in around.list_addresses and not around.is_colleague(others[0])
        return others[0] if alone else ""


def people_of(fields: Index, around: Surroundings) -> People:
    froms = addresses_in(fields, around, "from")
    replies = addresses_in({"reply-to": fields.get("reply-to", [])[:1]}, around, "reply-to")
    return People(
        sender=froms[0] if froms else "",
        ambiguous=len(set(froms)) > 1 or len(fields.get("from", ())) > 1,
        reply_to=replies[0] if replies else "",
        shown=tuple(dict.fromkeys(addresses_in(fields, around, "to", "cc"))),
    )


def addresses_in(fields: Index, around: Surroundings, *names: str) -> list[str]:
    """Return every address in the fields of these names, canonical, in order."""
    found: list[str] = []
    cut = cuts_plain(around.delimiters)
    for name in names:
        for field in fields.get(name, ()):
            usual = None if cut else _PLAIN(field.raw)
            if usual is not None and len(one := usual[2] or usual[3]) <= MAX_LABEL_OCTETS:
                found.append(one.decode("ascii"))
            else:
                found += parse_addresses(field.text, around)
    return found


def parse_addresses(value: str, around: Surroundings) -> list[str]:
    """Return every address in a header value, canonical, in order."""
    if '"' in value:
        value = _QUOTED.sub(lambda found: " " if found[1] == "" else found[0], value)
    value = without_comments(value)
    found: list[str] = []
    position = 0
    # Addresses in brackets, and bare ones between them (a display name may contain an "@").
    for bracketed in _BRACKETED.finditer(value):
        before = value[position : bracketed.start()]
        head, comma, _ = before.rpartition(",")
        if comma:
            found += _BARE.findall(head)
        inner = bracketed[1].strip()
        found.append(_SOURCE_ROUTE.sub("", inner) if inner.startswith("@") else inner)
        position = bracketed.end()
        if len(found) > MOST_ADDRESSES:
            break
    found += _BARE.findall(value[position:])
    return [c for a in found[:MOST_ADDRESSES] if "@" in a and (c := around.canonical(a.strip(" '"))) is not None]


def display_names(fields: Index, around: Surroundings) -> list[str]:
    """Return the names beside the addresses, as mail programs show them: all of the writer's, and of the recipients'
    those of lists, of the organization and of groups. A customer's own name is no text of the message."""
    found: list[str] = []
    for name in (*WRITERS, *RECIPIENTS):
        for field in fields.get(name, ()):
            people = name in RECIPIENTS
            if (usual := _PLAIN(field.raw)) is not None:
                said = (usual[1] or b"").decode("ascii").strip()
                if said and not (people and not _is_known(usual[2], around)):
                    found.append(said)
            elif any(sign in field.raw for sign in _NAME_SIGNS):
                found += _display_names(field.raw[:_MOST_READ], around, people=people)
    return found


def _display_names(raw: bytes, around: Surroundings, *, people: bool) -> Iterator[str]:
    said: list[bytes] = []
    for piece in (*_PIECE.findall(raw), b","):
        sign = piece[:1]
        if sign not in b"<,;:":
            said.append(piece)
            continue
        if said and not (people and sign == b"<" and not _is_known(piece, around)):
            name = _BARE.sub(" ", header_text(b"".join(said)).replace('"', " ")).strip()
            if name:
                yield name
        said.clear()


def _is_known(bracketed: bytes, around: Surroundings) -> bool:
    """Return whether an address is a list's or a colleague's."""
    canonical = around.canonical(header_text(bracketed).strip("<> "))
    return canonical is not None and (canonical in around.list_addresses or around.is_colleague(canonical))


_FIELD = re.compile(r"[ \t>|*_\xa0]*([^\n:：]{1,30})[:：]([^\n]*)")


def quoted_people(fields: Index, split: Split, around: Surroundings) -> frozenset[str]:
    """Return the canonical addresses of the quoted writers. For a writer named without an address, it is the address
    of the same name in To or Cc."""
    line = _writer_line(split)
    if not line:
        return frozenset()
    named = set(parse_addresses(_MAILTO.sub(r"<\1>", line), around))
    folded = fold(line)
    for name, address in _named_recipients(fields):
        canonical = around.canonical(address)
        if canonical is not None and len(name) >= _SHORTEST_NAME and fold(name) in folded:
            named.add(canonical)
    return frozenset(named)


def _writer_line(split: Split) -> str:
    """Return the line that names the quoted writer: an attribution, or From in a block of fields."""
    if split.kind == "attribution":
        return split.opening
    if split.kind not in ("header block", "rule"):
        return ""
    for text in (split.opening, split.quoted[:_LOOKED_AT]):
        for found in _FIELD.finditer(text):
            name = found[1].strip().lower()
            if (name if name.isascii() else fold(name)) in FROM:
                return found[2].strip()
    return ""


def _named_recipients(fields: Index) -> list[tuple[str, str]]:
    """Return the names in To and Cc, each with its address as spelled."""
    values = [header_text(f.raw[:_LOOKED_AT]) for name in ("to", "cc") for f in fields.get(name, ())[:1]]
    if not any("<" in value or "(" in value for value in values):
        return []  # bare addresses, without names
    try:
        return [(name, address) for name, address in getaddresses(values)[:_MOST_SHOWN] if name]
    except (ValueError, IndexError, RecursionError):
        return []
