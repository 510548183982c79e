"""The messages and writers that a message claims to answer: the writers that its quotation names, and the Message-IDs
that it refers to (RFC 5322 section 3.6.4). Both can be forged.
"""

from __future__ import annotations

import re
from email.utils import getaddresses

from smtpguard.reading.addresses import addresses
from smtpguard.reading.decode import words
from smtpguard.reading.fold import fold
from smtpguard.reading.quoting import FROM, Split
from smtpguard.reading.surroundings import Surroundings
from smtpguard.reading.walk import Index

MOST_IDS = 30
"""The most ids of References: the first, which begin the conversation, and the last."""
_LOOKED_AT = 8_000  # octets of References; characters of a quotation
_ID = re.compile(r"<([^<>\s]{3,500})>")
_FIELD = re.compile(r"[ \t>|*_\xa0]*([^\n:：]{1,30})[:：]([^\n]*)")
_MAILTO = re.compile(r"\[mailto:([^\]\s]{3,320})\]", re.I)  # as Outlook writes
_FROM = frozenset(FROM)
_SHORTEST_NAME = 4
_MOST_SHOWN = 50


def quoted_people(fields: Index, split: Split, around: Surroundings) -> frozenset[str]:
    """Canonical addresses of the quoted writers. For a writer named without an address, the address of the same name in
    To or Cc."""
    line = _writer(split)
    if not line:
        return frozenset()
    named = set(addresses(_MAILTO.sub(r"<\1>", line), around))
    folded = fold(line)
    for name, address in _shown(fields):
        canonical = around.canonical(address)
        if canonical is not None and len(name) >= _SHORTEST_NAME and fold(name) in folded:
            named.add(canonical)
    return frozenset(named)


def refers_to(fields: Index) -> tuple[str, ...]:
    """The Message-IDs of In-Reply-To and References, without brackets, each once."""
    found = [i for name in ("in-reply-to", "references") for f in fields.get(name, ())[:1] for i in _ids(f.raw)]
    found = list(dict.fromkeys(found))
    half = MOST_IDS // 2
    return tuple(found if len(found) <= MOST_IDS else found[:half] + found[-half:])


def _ids(raw: bytes) -> list[str]:
    return _ID.findall(words(raw[:_LOOKED_AT])) if b"<" in raw else []


def _writer(split: Split) -> str:
    """The line that names the quoted writer: an attribution, or From in a block of fields."""
    if split.kind == "attribution":
        return split.opening
    if split.kind not in ("header block", "rule"):
        return ""
    for text in (split.opening, split.quoted[:_LOOKED_AT]):
        for found in _FIELD.finditer(text):
            name = found[1].strip().lower()
            if (name if name.isascii() else fold(name)) in _FROM:
                return found[2].strip()
    return ""


def _shown(fields: Index) -> list[tuple[str, str]]:
    values = [words(f.raw[:_LOOKED_AT]) for name in ("to", "cc") for f in fields.get(name, ())[:1]]
    if not any("<" in value or "(" in value for value in values):
        return []  # bare addresses, without names
    try:
        return [(name, address) for name, address in getaddresses(values)[:_MOST_SHOWN] if name]
    except (ValueError, IndexError, RecursionError):
        return []
