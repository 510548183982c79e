"""The people in From, To and Cc (RFC 5322 section 3.4), in any spelling that mail programs write.

Total: text that is no address is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from smtpguard.mail.address import MAX_LABEL_OCTETS, PLAIN, cuts_plain
from smtpguard.mail.constant import constant
from smtpguard.mail.mailboxes import without_comments
from smtpguard.reading.decode import words
from smtpguard.reading.surroundings import Surroundings
from smtpguard.reading.walk import Index

MOST = 2_000
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+(?:"(@?)|\\?\Z)')
_BRACKETED = re.compile(r"<([^<>]{1,1000})>")
# Only at the beginning of a word, so that a long word is scanned once.
_BARE = re.compile(r"""(?<![^\s,;:<>()\[\]"])(?:[^\s,;:<>()\[\]"@]{1,320}|"[^"]{1,320}")@[^\s,;:<>()"]{1,255}""")
_OF_NAMES = (b"<", b":", b"(")
_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*+"?|<[^<>]*+>?|[,;:]|[^"<>,;:]++|>', re.S)
_READ = 16_000  # octets of a field in which names are looked for
_SOURCE_ROUTE = re.compile(r"@[^:]*:")
# A plain name, its mailbox, or a mailbox alone; each mailbox is its own canonical key: nearly every field.
_USUAL = re.compile(rf"[ \t]*+(?:([\w!#$%&'*+/^`{{|}}~ -]*+)<({PLAIN})>|({PLAIN}))[ \t]*+\Z".encode()).match


@constant
class People:
    """Canonical addresses. ``sender`` is From, empty if there is none; ``ambiguous`` if there is more than one."""

    sender: str = ""
    ambiguous: bool = False
    reply_to: str = ""
    shown: tuple[str, ...] = ()


def people_of(fields: Index, around: Surroundings) -> People:
    froms = named_in(fields, around, "from")
    replies = named_in({"reply-to": fields.get("reply-to", [])[:1]}, around, "reply-to")
    return People(
        sender=froms[0] if froms else "",
        ambiguous=len(set(froms)) > 1 or len(fields.get("from", ())) > 1,
        reply_to=replies[0] if replies else "",
        shown=tuple(dict.fromkeys(named_in(fields, around, "to", "cc"))),
    )


def named_in(fields: Index, around: Surroundings, *names: str) -> list[str]:
    """Every address in the fields of these names, canonical, in order."""
    found: list[str] = []
    cut = cuts_plain(around.delimiters)
    for name in names:
        for field in fields.get(name, ()):
            usual = None if cut else _USUAL(field.raw)
            if usual is not None and len(one := usual[2] or usual[3]) <= MAX_LABEL_OCTETS:
                found.append(one.decode("ascii"))
            else:
                found += addresses(words(field.raw), around)
    return found


def addresses(value: str, around: Surroundings) -> list[str]:
    """Every address in a header value, canonical, in order."""
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
        if len(found) > MOST:
            break
    found += _BARE.findall(value[position:])
    return [c for a in found[:MOST] if "@" in a and (c := around.canonical(a.strip(" '"))) is not None]


def names_in(fields: Index, around: Surroundings) -> list[str]:
    """The names beside the addresses, as mail programs show them: all of the writer's, and of the recipients' those of lists,
    of the organization and of groups. A customer's own name is no text of the message."""
    found: list[str] = []
    for name in ("from", "sender", "reply-to", "to", "cc"):
        for field in fields.get(name, ()):
            people = name in ("to", "cc")
            if (usual := _USUAL(field.raw)) is not None:
                said = (usual[1] or b"").decode("ascii").strip()
                if said and not (people and not _is_known(usual[2], around)):
                    found.append(said)
            elif any(sign in field.raw for sign in _OF_NAMES):
                found += _names(field.raw[:_READ], around, people=people)
    return found


def _names(raw: bytes, around: Surroundings, *, people: bool) -> Iterator[str]:
    said: list[bytes] = []
    for piece in (*_PIECE.findall(raw), b","):
        sign = piece[:1]
        if sign not in b"<,;:":
            said.append(piece)
            continue
        if said and not (people and sign == b"<" and not _is_known(piece, around)):
            name = _BARE.sub(" ", words(b"".join(said)).replace('"', " ")).strip()
            if name:
                yield name
        said.clear()


def _is_known(bracketed: bytes, around: Surroundings) -> bool:
    canonical = around.canonical(words(bracketed).strip("<> "))
    return canonical is not None and (canonical in around.list_addresses or around.is_colleague(canonical))
