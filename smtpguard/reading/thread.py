"""The conversation that a message belongs to, whether it is an answer in it (RFC 5322 section 3.6.4, MS-OXOMSG
2.2.1.3), and the messages and writers that it claims to answer, both of which can be forged.

The conversation's name is the first Message-ID of References, or the id that the message answers, or its own. Programs
differ in what they keep of References; Outlook and Exchange number conversations in Thread-Index as well. A subject
alone is no name: "Re: Lunch" is many conversations. Its prefixes are known in many languages; RFC 5322 section 3.6.5 has only "Re:".
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from email.utils import getaddresses

from smtpguard.reading.addresses import addresses
from smtpguard.reading.decode import words
from smtpguard.reading.fold import fold
from smtpguard.reading.quoting import FROM, Split
from smtpguard.reading.surroundings import Surroundings
from smtpguard.reading.walk import Index

REPLY, FORWARD = "reply", "forward"

_REPLY = (
    "re", "r", "ref", "sv", "svar", "antw", "aw", "antwort", "vs", "vast", "res", "resp", "odp", "ynt", "yan", "atb", "bls",
    "ats", "vl-re", "rv-re", "ré", "rép", "réf", "rif", "ang", "betr", "vá", "va", "odg", "na", "hal", "bals", "回复", "答复",
    "回覆", "返信", "회신", "رد", "تعليق", "השב", "תשובה", "σχετ", "απ", "απάντηση", "отв", "на", "re^2", "tr-re", "ред", "đt",
    "ответ", "odpowiedź", "trả lời",
)  # fmt: skip
_FORWARD = (
    "fw", "fwd", "vb", "vs-fw", "vbf", "vidarebef", "vidarebefordrat", "videresendt", "wg", "wtr", "tr", "trans", "rv", "enc", "i",
    "pd", "vl", "vlw", "fs", "iletim", "i̇lt", "ilt", "doorst", "továbbítás", "továbbított", "tov", "přep", "prz", "转发", "轉寄",
    "転送", "전달", "إعادة توجيه", "הועבר", "πρθ", "пересл", "fyi-fw", "redir", "vidarebefordra",
)  # fmt: skip
_WORDS = {**dict.fromkeys(_REPLY, REPLY), **dict.fromkeys(_FORWARD, FORWARD)}
_TAG = r"(?:\[[^\]\[]{1,60}\]\s*|<[^<>]{1,60}>\s*|\{[^{}]{1,60}\}\s*|\*{2,5}[^*]{1,40}\*{2,5}\s*|\((?:extern\w*|external)\)\s*|(?:extern\w*|external|internt|intern):\s*)"
_PREFIX = re.compile(
    rf"\s*{_TAG}{{0,3}}([^\W\d_]{{1,18}}(?:[ \-^][^\W_]{{1,12}})?)\s*(?:[\[(]\d{{1,3}}[\])])?\s*[:：]", re.I
)


def prefix_of(subject: str) -> tuple[str, str] | None:
    """(REPLY or FORWARD, the prefix as spelled), None if the subject has none. Tags of lists are skipped."""
    begins = subject[:200]
    if not begins.isascii():
        begins = unicodedata.normalize("NFKC", begins)
    found = _PREFIX.match(begins) if ":" in begins or "：" in begins else None
    if not found:
        return None
    kind = _WORDS.get(found[1].lower()) or _WORDS.get(fold(found[1]))
    if kind is None:
        return None
    if len(found[1]) == 1 and found[1] not in ("R", "I"):
        return None
    return kind, f"{found[1]}:"


def bare(subject: str) -> str:
    """The subject without prefixes."""
    for _ in range(12):
        found = _PREFIX.match(subject[:200])
        if not found or found[1].lower() not in _WORDS:
            break
        subject = subject[found.end() :]
    return subject.strip()


_MOST = 4_000
_NEW, _ANSWER = 22, 5  # octets of a Thread-Index: of a new conversation, and of each reply
OF_THREADS = frozenset({"references", "in-reply-to", "thread-index"})
"""The fields that name a conversation."""
_NUMBER = slice(6, 22)  # a time precedes it


def thread_of(fields: Index, subject: str, message_id: str) -> tuple[str, str, bool]:
    """The Message-ID that its conversation begins with, as far as known; the number in its Thread-Index, in hex, or "";
    and whether this message is a reply."""
    answered = first_id(fields, "references") or first_id(fields, "in-reply-to")
    indexes = fields.get("thread-index", ())
    found = _octets(indexes[0].raw) if len(indexes) == 1 else b""
    prefixed = prefix_of(subject)
    replies = bool(answered or len(found) > _NEW or (prefixed and prefixed[0] == REPLY))
    return answered or message_id, found[_NUMBER].hex(), replies


def first_id(fields: Index, name: str) -> str:
    """The first Message-ID in a field; without angle brackets its first word."""
    found = fields.get(name)
    if not found:
        return ""
    value = words(found[0].raw[:_MOST])
    start = value.find("<")
    end = value.find(">", start)
    return value[start : end + 1][:500] if 0 <= start < end else value.split(" ")[0][:500]


def answers_in(raw: bytes) -> int:
    """The number of replies in a Thread-Index."""
    return max(len(_octets(raw)) - _NEW, 0) // _ANSWER


def _octets(raw: bytes) -> bytes:
    """Empty if it is malformed."""
    try:
        octets = binascii.a2b_base64(b"".join(raw.split())[:_MOST])
    except binascii.Error:
        return b""
    return octets if len(octets) >= _NEW and (len(octets) - _NEW) % _ANSWER == 0 else b""


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
