"""The conversation that a message belongs to: whether it answers in it, and which messages (RFC 5322 section 3.6.4,
MS-OXOMSG 2.2.1.3). All of it can be forged.

The conversation's name is the first Message-ID of References, or the id that the message answers, or its own.
Programs differ in what they keep of References; Outlook and Exchange number conversations in Thread-Index as well. A
subject alone is no name: "Re: Lunch" is many conversations. Its prefixes are known in many languages; RFC 5322
section 3.6.5 has only "Re:".
"""

from __future__ import annotations

import binascii
import re
import unicodedata

from smtpguard.mail.decoding import header_text
from smtpguard.reading.fold import fold
from smtpguard.reading.parts import Index

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
_MOST = 4_000
"""The most octets of a value that are read."""
_NEW, _ANSWER = 22, 5  # octets of a Thread-Index for a new conversation, and for each reply
OF_THREADS = frozenset({"references", "in-reply-to", "thread-index"})
"""The fields that name a conversation."""
_NUMBER = slice(6, 22)  # octets of a Thread-Index: the number of the conversation, after a time
MOST_IDS = 30
"""The most ids of In-Reply-To and References that are kept: the first half, which begin the conversation, and the
last half."""
_LOOKED_AT = 8_000  # octets of References in which ids are looked for
_ID = re.compile(r"<([^<>\s]{3,500})>")


def prefix_of(subject: str) -> tuple[str, str] | None:
    """Return REPLY or FORWARD and the prefix as spelled, None if the subject has none. Tags of lists are skipped."""
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


def without_prefixes(subject: str) -> str:
    """Return a subject without its prefixes."""
    for _ in range(12):
        found = _PREFIX.match(subject[:200])
        if not found or found[1].lower() not in _WORDS:
            break
        subject = subject[found.end() :]
    return subject.strip()


def thread_of(fields: Index, subject: str, message_id: str) -> tuple[str, str, bool]:
    """Return the Message-ID that the conversation begins with, as far as known; the number in its Thread-Index, in
    hex, or ""; and whether this message is a reply."""
    answered = first_id(fields, "references") or first_id(fields, "in-reply-to")
    indexes = fields.get("thread-index", ())
    found = _thread_index(indexes[0].raw) if len(indexes) == 1 else b""
    prefixed = prefix_of(subject)
    replies = bool(answered or len(found) > _NEW or (prefixed and prefixed[0] == REPLY))
    return answered or message_id, found[_NUMBER].hex(), replies


def first_id(fields: Index, name: str) -> str:
    """Return the first Message-ID in a field; without angle brackets its first word."""
    found = fields.get(name)
    if not found:
        return ""
    value = header_text(found[0].raw[:_MOST])
    start = value.find("<")
    end = value.find(">", start)
    return value[start : end + 1][:500] if 0 <= start < end else value.split(" ")[0][:500]


def reply_count(raw: bytes) -> int:
    """Return the number of replies in a Thread-Index."""
    return max(len(_thread_index(raw)) - _NEW, 0) // _ANSWER


def _thread_index(raw: bytes) -> bytes:
    """Decode a Thread-Index; b"" if it is malformed."""
    try:
        octets = binascii.a2b_base64(b"".join(raw.split())[:_MOST])
    except binascii.Error:
        return b""
    return octets if len(octets) >= _NEW and (len(octets) - _NEW) % _ANSWER == 0 else b""


def referenced_ids(fields: Index) -> tuple[str, ...]:
    """Return the Message-IDs of In-Reply-To and References, without brackets, each once."""
    found = [i for name in ("in-reply-to", "references") for f in fields.get(name, ())[:1] for i in _ids(f.raw)]
    found = list(dict.fromkeys(found))
    half = MOST_IDS // 2
    return tuple(found if len(found) <= MOST_IDS else found[:half] + found[-half:])


def _ids(raw: bytes) -> list[str]:
    return _ID.findall(header_text(raw[:_LOOKED_AT])) if b"<" in raw else []
