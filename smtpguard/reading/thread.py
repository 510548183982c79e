"""The people of a message, in From, To and Cc, and the conversation that it belongs to: whether it is an answer in it, and
the messages and writers that it claims to answer, both of which can be forged (RFC 5322 sections 3.4 and 3.6.4,
MS-OXOMSG 2.2.1.3).

People are read in any spelling that mail programs write; text that is no address is skipped. The conversation's name is
the first Message-ID of References, or the id that the message answers, or its own. Programs differ in what they keep of
References; Outlook and Exchange number conversations in Thread-Index as well. A subject alone is no name: "Re: Lunch"
is many conversations. Its prefixes are known in many languages; RFC 5322 section 3.6.5 has only "Re:".
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Iterator
from email.utils import getaddresses

from smtpguard.mail.address import MAX_LABEL_OCTETS, PLAIN, cuts_plain
from smtpguard.mail.constant import constant
from smtpguard.mail.fields import without_comments
from smtpguard.reading.fold import fold
from smtpguard.reading.parts import Index, words
from smtpguard.reading.quoting import FROM, Split
from smtpguard.reading.request import Surroundings

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


WRITERS = ("from", "sender", "reply-to", "resent-from", "resent-sender")
RECIPIENTS = ("to", "cc", "bcc", "resent-to", "resent-cc")


def names_in(fields: Index, around: Surroundings) -> list[str]:
    """The names beside the addresses, as mail programs show them: all of the writer's, and of the recipients' those of lists,
    of the organization and of groups. A customer's own name is no text of the message."""
    found: list[str] = []
    for name in (*WRITERS, *RECIPIENTS):
        for field in fields.get(name, ()):
            people = name in RECIPIENTS
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
