"""A held message for its approvers: header, visible text, and attachments by name, size and type.

Opening a hostile message costs no more than Bounds allow. Beyond them the page says why it cannot show the message.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from smtpguard.locale.phrase import Phrase, Said
from smtpguard.mail.decoding import decode_transfer
from smtpguard.mail.message import Message
from smtpguard.reading.parts import Part, walk
from smtpguard.reading.request import Bounds, Meter, TooComplex
from smtpguard.reading.text import Text, extract

_BOUNDS = Bounds(seconds=3.0, clock=time.monotonic)
_MOST_TEXT = 100_000  # characters of each kind of text
_MOST_FIELDS = 200  # of the header
_MOST_VALUE = 2_000  # characters of a field
_MOST_LINKS = 100
_WORD = re.compile(r"\w{2,}")
_ADDRESS = re.compile(r"https?://\S++|(?<!\S)\S[^\s@]*+@\S++")
_MOST_HTML = 2 << 20  # octets of a part in which pictures are looked for
_CID = re.compile(rb"""src\s*=\s*["']?\s*cid:([^"'\s>]{1,300})""", re.I)
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
_VIEWS: dict[str, MessageView] = {}  # by the SHA-256 of the message, in the order in which they were opened
_MOST_VIEWS = 32
_MESSAGES = ("message/rfc822", "message/global", "message/news")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A part that is not shown as text. ``n``: its number. ``size_bytes``: of the decoded part, estimated without decoding.
    ``shown``: whether it is an image that the text shows, and no attachment for the reader."""

    n: int
    name: str
    kind: str
    size_bytes: int
    shown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """A message as a page shows it. ``new`` and ``quoted``: what a reader sees; ``plain``: the text in programs without HTML, if it
    says something else; ``hidden``: text in the HTML that few or none see. ``cut``: whether there is more text. ``why``: why not
    all of the message can be shown, "" if it can."""

    fields: tuple[tuple[str, str], ...] = ()
    new: str = field(default="", repr=False)
    quoted: str = field(default="", repr=False)
    plain: str = field(default="", repr=False)
    hidden: str = field(default="", repr=False)
    links: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    pictures: tuple[Attachment, ...] = ()
    has_html: bool = False
    cut: bool = False
    why: Said = ""


def view_of(message: Message) -> MessageView:
    """Open a message. Every message can be opened, if only its header."""
    header = message.header
    fields = tuple((f.name[:100], f.text[:_MOST_VALUE]) for f in header.fields[:_MOST_FIELDS])
    try:
        text = extract(message.raw, header.named, message.body_start, Meter(_BOUNDS))
        found = list(parts(message))
        attachments = list(_attachments(found))
    except (TooComplex, RecursionError) as bound:
        why = bound.why if isinstance(bound, TooComplex) else Phrase("it is nested too deep")
        return MessageView(fields=fields, why=why)
    hidden = "\n".join(filter(None, (text.markup.hidden, text.unshown)))
    shown = (text.new or text.plain, text.quoted, _otherwise(text), hidden)
    new, quoted, plain, hidden = (_clean(some[:_MOST_TEXT]) for some in shown)
    return MessageView(
        fields=fields,
        new=new,
        quoted=quoted,
        plain=plain,
        hidden=hidden,
        links=tuple(_clean(link[:500]) for link in dict.fromkeys(text.links[: 10 * _MOST_LINKS]))[:_MOST_LINKS],
        attachments=tuple(each for each in attachments if not each.shown),
        pictures=tuple(each for each in attachments if each.shown),
        has_html=any(is_html(part) for part in found),
        cut=any(len(some) > _MOST_TEXT for some in shown),
        why=text.unreadable,
    )


def _otherwise(text: Text) -> str:
    """Return the text of the plain alternative if it has words that the HTML lacks, else "". Links and images are written out
    there, and layouts differ: a few more words are still the same letter."""
    if not text.plain or not (text.new or text.quoted):
        return ""
    seen = set(_words(" ".join((text.shown, text.markup.hidden, *text.markup.alts))))
    said = _words(text.plain)
    more = sum(word not in seen for word in said)
    return text.plain if more >= 4 and more * 5 > len(said) else ""


def _words(text: str) -> list[str]:
    return _WORD.findall(_ADDRESS.sub(" ", text).casefold())


def attachment_of(message: Message, n: int) -> tuple[Attachment, bytes] | None:
    """Return one attachment and its octets, None if there is no such part. Raises TooComplex."""
    found = list(parts(message))
    listed = next((each for each in _attachments(found) if each.n == n), None)
    if listed is None:
        return None
    part = found[n]
    if part.kind in _MESSAGES:
        return listed, part.body
    return listed, decode_transfer(part.body, part.encoding)[0]


def parts(message: Message) -> Iterator[Part]:
    """Return the parts of the message, with attached messages as single parts. Raises TooComplex."""
    found = walk(message.raw, message.header.named, message.body_start, Meter(_BOUNDS))
    return (part for part in found.parts if part.nested == 0)


def is_html(part: Part) -> bool:
    return part.kind == "text/html" and not part.attachment


def content_id(part: Part) -> str:
    return part.fields["content-id"][0].raw.strip(b"<> \t").decode("latin-1") if "content-id" in part.fields else ""


def _attachments(found: list[Part]) -> Iterator[Attachment]:
    """Yield all parts that are not shown as text."""
    in_text = _pictures(found)
    for n, part in enumerate(found):
        text = part.kind in ("text/plain", "text/html", "text/enriched", "text/x-amp-html")
        if text and not part.attachment and not part.filename:
            continue
        size = part.end - part.start
        if part.encoding == "base64":
            size = size * 57 // 78  # 57 octets are a line of 76 characters and CRLF (RFC 2045 section 6.8)
        name, kind = _clean(part.filename)[:200], _clean(part.kind)[:100]
        shown = part.kind.startswith("image/") and content_id(part).lower() in in_text
        yield Attachment(n=n, name=name, kind=kind, size_bytes=size, shown=shown)


def _pictures(found: list[Part]) -> frozenset[str]:
    """Return the Content-IDs that the HTML shows (RFC 2392), in lower case."""
    texts = (decode_transfer(p.body, p.encoding)[0] for p in found if is_html(p) and p.end - p.start <= _MOST_HTML)
    return frozenset(unquote(m.decode("latin-1")).lower() for text in texts for m in _CID.findall(text))


def _clean(text: str) -> str:
    """Replace control and bidirectional characters, which change how the page is read (CVE-2021-42574)."""
    return "".join(c if c in "\n\t" or (c.isprintable() and c not in _BIDI) else " " for c in text)


async def cached_view(content: Message) -> MessageView:
    """Open a message in a thread, and cache its view: the page is shown again after each decision."""
    found = _VIEWS.get(content.sha256)
    if found is None:
        found = _VIEWS[content.sha256] = await asyncio.to_thread(view_of, content)
        if len(_VIEWS) > _MOST_VIEWS:
            del _VIEWS[next(iter(_VIEWS))]
    return found
