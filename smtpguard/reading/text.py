"""All the text of a message, sorted: subject, new, quoted, hidden, attached; names of attachments and alt texts.

"Unreadable" is a finding here, not an exception: the rest is read anyway. Only TooComplex is raised.

Formats other than plain text and HTML are read here: enriched text (RFC 1896), RTF, calendars (RFC 5545), files within a text. Which parts
hold text is decided by their type, and if that is no text by the file's name, as desktops open it. All of it is total and linear.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from html import unescape
from operator import add
from typing import NamedTuple

from smtpguard.locale.phrase import Phrase, Said
from smtpguard.mail.decoding import (
    Decoded,
    body_text,
    decode_charset,
    decode_transfer,
    may_stay_encoded,
)
from smtpguard.mail.message import Content, first_text
from smtpguard.reading.fold import without_unseen
from smtpguard.reading.markup import Markup, collapsed, read_markup, reversed_text
from smtpguard.reading.parts import Index, Part, Walk, walk
from smtpguard.reading.quoting import Split, split
from smtpguard.reading.request import Meter, TooComplex

TEXT, HTML, CALENDAR, ENRICHED, RTF = "text", "html", "calendar", "enriched", "rtf"

_KINDS = {
    "text/html": HTML, "text/x-amp-html": HTML, "text/watch-html": HTML, "application/xhtml+xml": HTML, "text/calendar": CALENDAR, "application/ics": CALENDAR,
    "text/enriched": ENRICHED, "text/richtext": ENRICHED, "text/rtf": RTF, "application/rtf": RTF, "application/x-rtf": RTF,
    "text/x-vcalendar": CALENDAR, "application/json": TEXT, "application/xml": TEXT,
}  # fmt: skip
_ENDINGS = {
    **dict.fromkeys(("txt", "text", "csv", "tsv", "md", "log", "json", "xml", "yaml", "yml", "vcf", "srt"), TEXT),
    **dict.fromkeys(("htm", "html", "xhtml"), HTML), **dict.fromkeys(("ics", "vcs"), CALENDAR), "rtf": RTF,
}  # fmt: skip
_SHOWN = frozenset(
    {"text/plain", "text/html", "text/x-amp-html", "application/xhtml+xml", "text/enriched", "text/richtext"}
)

_ENRICHED = re.compile(r"<(?:<|(param|comment)>[^<]*</\1>|/?[A-Za-z][A-Za-z\-]{0,60}>)", re.I)
_HEX = re.compile(r"\\'([0-9a-fA-F]{2})")
_UNICODE = r"\\u(-?\d{{1,6}}) ?(?:\\'[0-9a-fA-F]{{2}}|[^\\{{}}\r\n]){{0,{}}}"
_INSTEAD = re.compile(r"\\uc(\d) ?")
"""It gives how many characters after each of _UNICODE stand for it in old programs."""
_DESTINATION = re.compile(r"\{\\(?:\*\\[a-z]+|fonttbl|colortbl|stylesheet|info|pict)[^{}]*(?:\{[^{}]*\}[^{}]*)*+\}")
_BREAK = re.compile(
    r"\\(?:~|(?:par|line|tab|(?:nest)?(?:cell|row)|sect|page|column|bullet|e[mn](?:dash|space)|[lr]dblquote)(?![a-z])\d* ?)"
)
_LINE_END = re.compile(r"(\\[\\{}])|(\\)(?:\r\n?|\n)|(\\[a-z]{1,32}(?:-?\d{1,10})?)(?:\r\n?|\n)|[\r\n]")
"""An end of a line of the source. It ends a control word as a space does, and a paragraph after a backslash."""
_WORD = re.compile(r"\\([\\{}])|\\(?:[a-z]{1,32}(?:-?\d{1,10})? ?|[^a-zA-Z\\{}])|[{}]")
_SAID = re.compile(
    r"^(?:SUMMARY|DESCRIPTION|LOCATION|COMMENT|CATEGORIES|CONTACT|RESOURCES|NAME|X-WR-CALNAME|X-WR-CALDESC|X-ALT-DESC|STYLED-DESCRIPTION)(?:;(?:\"[^\"\r\n]*\"|[^\":\r\n])*)?:(.*)$",
    re.I | re.M,
)
_BEGINS = re.compile(r"^BEGIN:V", re.I | re.M)
_METHOD = re.compile(r"^METHOD:\s*([A-Za-z\-]{1,30})\s*$", re.I | re.M)
_ORGANIZER = re.compile(r"^ORGANIZER(?=[;:])[^:\r\n]{0,300};CN=(?:\"([^\"\r\n]*)\"|([^\";:\r\n]*))", re.I | re.M)
_FOLDED = re.compile(rb"\r?\n[ \t]")
# A property in the encoding of vCard 2.1 and vCalendar 1.0, as Outlook still writes it.
_CODED = re.compile(
    rb"^([^:\r\n]{1,200}ENCODING=QUOTED-PRINTABLE[^:\r\n]{0,100}:)((?:[^\r\n]*=\r?\n)*+[^\r\n]*)", re.I | re.M
)
_TAG = re.compile(r"<[^<>]{0,500}>")
_FILE = re.compile(r"^begin [0-7]{3,4} ([^\r\n]{1,200})\r?$", re.M)


def format_of(kind: str, filename: str) -> str:
    """Return the format in which a part of this type and name holds text, "" for one that is not read here."""
    if kind in _KINDS:
        return _KINDS[kind]
    if kind.startswith(("text/", "message/")) or (kind.startswith("application/") and kind.endswith(("+json", "+xml"))):
        return TEXT
    return _ENDINGS.get(filename.rpartition(".")[2].lower(), "") if "." in filename else ""


def is_inline(kind: str, filename: str) -> bool:
    """Return whether mail programs show such a part inline, and not as a file."""
    return kind in _SHOWN or (kind.startswith("text/") and not filename and kind != "text/calendar")


def enriched_text(text: str) -> str:
    return _ENRICHED.sub(lambda found: "<" if found[0] == "<<" else "", text)


def rtf_text(text: str) -> str:
    """Return the text of Rich Text; other text is returned unchanged."""
    if not text.lstrip().startswith("{\\rtf"):
        return text
    text = _LINE_END.sub(lambda m: m[1] or ("\\par " if m[2] else f"{m[3]} " if m[3] else ""), text)
    first, *more = _INSTEAD.split(_DESTINATION.sub("", text))
    text = "".join(
        re.sub(_UNICODE.format(n), lambda found: _character(int(found[1])), piece)
        for n, piece in zip(("1", *more[::2]), (first, *more[1::2]), strict=True)
    )
    text = _HEX.sub(lambda found: bytes([int(found[1], 16)]).decode("cp1252", "replace"), text)
    return _WORD.sub(r"\1", _BREAK.sub("\n", text))


def _character(number: int) -> str:
    number %= 1 << 16
    return chr(number) if not 0xD800 <= number < 0xE000 else "\ufffd"


def unfolded(data: bytes) -> bytes:
    """Return a calendar or card with each property on one line. It works on octets, since lines may be folded within
    a character."""
    data = _FOLDED.sub(b"", data)
    return _CODED.sub(lambda found: found[1] + a2b_qp(found[2]).replace(b"\n", b" "), data) if b"=" in data else data


def calendar_text(text: str) -> tuple[str, str]:
    """Return the method of a calendar (RFC 5546), "" for none, and its text: all of it, if it is no calendar.
    ``text``: from ``unfolded``."""
    method = _METHOD.search(text)
    called = [one or other for one, other in _ORGANIZER.findall(text)]
    said = "\n".join((*_SAID.findall(text), *called)).replace("\\n", "\n").replace("\\N", "\n").replace("\\,", ",")
    return method[1].upper() if method else "", unescape(_TAG.sub("", said if _BEGINS.search(text) else text))


def embedded_files(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the octets of files embedded in a text (uuencode), which mail programs still unpack."""
    if "begin " not in text:
        return
    at = 0
    while found := _FILE.search(text, at):
        end = text.find("\nend", found.end())
        at = len(text) if end < 0 else end
        yield found[1].strip(), decode_transfer(text[found.end() : at].encode("ascii", "replace"), "uue")[0]


_PGP = "-----BEGIN PGP MESSAGE-----"
_CARDS = frozenset({"text/vcard", "text/x-vcard", "text/directory"})
_SIGNATURES = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})
_URL = re.compile(r"\bhttps?://[^\s<>\"')\]]+", re.I)
_LOOKS_LIKE_HTML = re.compile(r"\s*(?:<!doctype html|<html[\s>])", re.I)


_LONGEST_LINE = 998
"""The most octets of a line that Postfix sends as it is (smtp_line_length_limit)."""
_HIDDEN = 40
"""The least characters of hidden text that may be what the message says."""


class Attachment(NamedTuple):
    """A file that is attached. ``nested``: it is an attached message, or a part of one."""

    name: str
    nested: bool


@dataclass(slots=True)
class Text:
    subject: str = ""
    new: str = ""
    quoted: str = ""
    unshown: str = ""  # text that only some programs show, or only on request
    undecoded: list[str] = field(default_factory=list)  # text that is not in its declared encoding
    attached: str = ""  # text of attached messages and text files
    forwarded: list[str] = field(default_factory=list)  # of it, the text of attached messages
    enclosed: list[str] = field(default_factory=list)  # and the text of text files, without business cards
    files: list[Part] = field(
        default_factory=list
    )  # files that are not read here; no pictures within the text, no signatures
    plain: str = ""  # the text of a text/plain alternative, if the HTML is shown instead
    split: Split = field(default_factory=lambda: Split(""))
    markup: Markup = field(default_factory=Markup)  # of the HTML; empty without any
    links: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    othernames: list[str] = field(default_factory=list)  # of parts with several: programs differ in which they show
    numbers: dict[str, int] = field(default_factory=dict)  # by the names of facts
    nested: list[tuple[str, str]] = field(default_factory=list)  # From and subject of attached messages
    calendar: str = ""  # the METHOD of an invitation, or "yes"; not for a published event
    kinds: list[str] = field(default_factory=list)
    boundaries: list[str] = field(default_factory=list)
    defects: list[Phrase] = field(default_factory=list)
    unreadable: Said = ""

    @property
    def shown(self) -> str:
        """Return new and quoted text, as a person sees it."""
        return f"{self.new}\n{self.quoted}" if self.quoted else self.new


def subject_of(fields: Index) -> str:
    return without_unseen(" ".join([f.text for f in fields.get("subject", ())]))


def extract(raw: Content, fields: Index, start: int, meter: Meter) -> Text:
    """Return the text of ``raw``, whose header ends at ``start`` and has ``fields``. Raises TooComplex."""
    found: Walk = walk(raw, fields, start, meter)
    out = Text(kinds=found.kinds, boundaries=found.boundaries, defects=found.defects, unreadable=found.unreadable)
    out.subject = subject_of(fields)
    plains: list[str] = []
    markups: list[Markup] = []
    attached: list[str] = []
    out.numbers["attachments"] = sum(map(_is_file, found.parts))
    for part in found.parts:
        _read_part(out, part, plains, markups, attached, meter)
    _arrange(out, plains, markups)
    out.attached = "\n".join(attached)
    within = (subject for subject in found.subjects if subject != out.subject)
    out.unshown = "\n".join(
        (*(t for m in markups for t in m.unshown), *map(reversed_text, plains), *within, *out.undecoded)
    ).strip()
    if attached and not out.split.kind:  # a saved conversation that is attached
        saved = split(out.attached)
        out.split = saved if saved.kind == "header block" else out.split
    if why := _why_silent(out, found):
        out.unreadable = out.unreadable or why
    if _PGP in out.new or _PGP in out.quoted or any(_PGP in p for p in plains):
        out.unreadable = out.unreadable or Phrase("it is encrypted ({how})", how="PGP")
    return out


def _read_part(
    out: Text, part: Part, plains: list[str], markups: list[Markup], attached: list[str], meter: Meter
) -> None:
    if part.is_message:
        subject = first_text(part.fields, "subject")
        out.nested.append((first_text(part.fields, "from"), subject))
        attached.append(subject)
        out.attachments.append(Attachment(part.filename or subject, nested=True))
        return
    out.othernames += part.othernames
    if part.filename:
        out.attachments.append(Attachment(part.filename, nested=part.nested > 0))
    form = format_of(part.kind, part.filename)
    if not form:
        if not _is_incidental(part):
            out.files.append(part)
        return
    whole = is_inline(part.kind, part.filename)
    aside = not whole or part.attachment or part.nested > 0 or "multipart/report" in out.kinds
    in_lines = form == CALENDAR or part.kind in _CARDS or part.filename.lower().endswith(".vcf")
    decoded = _decode_part(out, part, aside, meter, in_lines=in_lines, controls=form == HTML)
    text = decoded.text
    if form == CALENDAR:
        method, text = calendar_text(text)
        method = part.parameters.get("method", "").upper() or method or ("" if part.attachment else "yes")
        out.calendar = out.calendar or ("" if method == "PUBLISH" else method)
        attached.append(text)
        out.enclosed.append(text)
    elif form == HTML or _LOOKS_LIKE_HTML.match(text):
        shown = None
        if (
            broken := _as_postfix_breaks(part.raw[part.start : _end_of_reading(part, aside, meter)], part.encoding)
        ) is not None:
            data, _ = decode_transfer(broken, part.encoding)
            shown = read_markup(body_text(data, part.kind, part.parameters, controls=True).text, meter)
        for reading in decoded.readings or (text,):  # apart, since one may hide the other
            markup = read_markup(reading, meter)
            if shown is not None:
                new = _new_lines(f"{shown.text}\n{shown.quoted}", f"{markup.text}\n{markup.quoted}")
                markup.hidden = "\n".join(filter(None, (markup.hidden, new)))
            if aside:
                attached += [markup.text, markup.quoted, markup.hidden, markup.rejoined, *markup.alts, *markup.unshown]
                (out.forwarded if part.nested else out.enclosed).extend((markup.text, markup.quoted))
            else:
                markups.append(markup)
    else:
        if form == ENRICHED:
            out.undecoded.append(text)  # programs that do not know it show it as it is
        text = enriched_text(text) if form == ENRICHED else rtf_text(text) if form == RTF else text
        for name, octets in embedded_files(text):
            out.attachments.append(Attachment(name, nested=part.nested > 0))
            out.numbers["attachments"] += not part.nested
            if format_of("application/octet-stream", name):
                attached.append(decode_charset(octets, "").text)
        (attached if aside else plains).append(text := collapsed(text))
        if aside and part.kind not in _CARDS:
            (out.forwarded if part.nested else out.enclosed).append(text)


def _as_postfix_breaks(raw: bytes, encoding: str) -> bytes | None:
    """Return a body as Postfix sends it, with a line break and a space within each longer line: a tag that is broken
    is a text, and a comment is seen. Returns None if it has no such line."""
    if encoding == "base64" or len(raw) <= _LONGEST_LINE:
        return None
    lines = raw.split(b"\r\n")
    if max(map(len, lines)) <= _LONGEST_LINE:
        return None
    starts = [(line, range(_LONGEST_LINE, len(line), _LONGEST_LINE - 1)) for line in lines]
    return b"\r\n".join(
        b"\r\n ".join([line[:_LONGEST_LINE], *[line[n : n + _LONGEST_LINE - 1] for n in more]]) for line, more in starts
    )


def _new_lines(text: str, known: str) -> str:
    """Return the lines of ``text`` that are not in ``known``, whatever their white space."""
    there = {"".join(line.split()) for line in known.split("\n")}
    return "\n".join(line for line in text.split("\n") if "".join(line.split()) not in there)


def _is_incidental(part: Part) -> bool:
    """Return whether a part is a picture within the text, or a signature over it: no content of its own."""
    picture = part.kind.startswith("image/") and (not part.attachment or part.within == "multipart/related")
    return picture or part.kind in _SIGNATURES


def _is_file(part: Part) -> bool:
    """Return whether a mail program shows it as an attached file. An attached message is one, whatever it contains."""
    if part.nested or _is_incidental(part):
        return False
    whole = part.kind.startswith(("text/", "image/", "message/")) and not part.is_message
    return part.attachment or bool(part.filename) or not whole


def _why_silent(out: Text, found: Walk) -> Said:
    """Return why the content cannot be known: it has no words, and a part that may show some, or words that are
    hidden. Returns "" if it can."""
    if any(map(str.strip, (out.new, out.quoted, out.plain, *out.markup.alts))) or out.calendar:
        return ""
    silent = (p for p in found.parts if not (p.nested or p.is_message or format_of(p.kind, p.filename)))
    kind = next((p.kind for p in silent if p.body.strip()), "")
    if not kind and out.markup.images > out.markup.pixels:
        return Phrase("it has no words of its own, only pictures from elsewhere")
    if not kind and len(out.markup.hidden) >= _HIDDEN:
        return Phrase("it has no words of its own, only hidden ones, which some programs may show")
    return Phrase("it has no words of its own, only {kind}", kind=kind) if kind else ""


def _end_of_reading(part: Part, aside: bool, meter: Meter) -> int:
    """Return where the reading of a part ends: text aside is read up to a bound."""
    return min(part.end, part.start + meter.bounds.attached_bytes) if aside else part.end


def _decode_part(out: Text, part: Part, aside: bool, meter: Meter, *, in_lines: bool, controls: bool) -> Decoded:
    size, end = part.end - part.start, _end_of_reading(part, aside, meter)
    if not aside:
        meter.take_text(size)
    elif meter.bounds.whole and size > meter.bounds.attached_bytes:
        raise TooComplex(Phrase("a text is attached that is long"))
    data, defect = decode_transfer(part.raw[part.start : end], part.encoding)
    if defect:
        out.defects.append(defect)
    if part.encoding and may_stay_encoded(raw := part.raw[part.start : end], part.encoding):
        out.undecoded.append(decode_charset(raw, part.parameters.get("charset", "")).text)
    decoded = body_text(unfolded(data) if in_lines else data, part.kind, part.parameters, controls=controls)
    if decoded.defect:
        out.defects.append(decoded.defect)
    if decoded.lossy and decoded.defect is not None and not aside:
        out.unreadable = out.unreadable or decoded.defect
    return decoded


def _arrange(out: Text, plains: list[str], markups: list[Markup]) -> None:
    """Sort the texts. HTML is what most people see; a text/plain beside it is kept apart, and is used alone without
    HTML."""
    plain = without_unseen("\n".join(plains))
    if markups:
        out.markup = markups[0] if len(markups) == 1 else _merged(markups)
        out.markup.text, out.markup.quoted = without_unseen(out.markup.text), without_unseen(out.markup.quoted)
        out.split = split(out.markup.text, from_markup=True)
        out.new = out.split.new
        out.quoted = "\n".join(t for t in (out.split.quoted, out.markup.quoted) if t)
        out.plain = plain
        if not out.split.kind and not out.markup.quoting and plain:
            out.split = split(plain)  # the HTML may lack the line that begins the quoted part
        if not out.split.kind and not out.markup.quoting and out.markup.hidden:
            hidden = split(out.markup.hidden)
            out.split = hidden if hidden.kind == "header block" else out.split
        # Links in quoted text are another's. They cannot be told apart if only a line of text marks the quotation.
        out.links = [] if out.split.kind else out.markup.links or _urls(plain)
    else:
        out.split = split(plain)
        out.new, out.quoted = out.split.new, out.split.quoted
        out.links = _urls(out.new)


def _urls(text: str) -> list[str]:
    return _URL.findall(text)[:2000] if "://" in text else []


def _merged(markups: list[Markup]) -> Markup:
    whole = Markup(
        quoting=next((m.quoting for m in markups if m.quoting), ""),
        signs=frozenset().union(*(m.signs for m in markups)),
        text="".join(f"{m.text}\n" for m in markups),
        rejoined="".join(f"{m.rejoined}\n" for m in markups if m.rejoined),
        preheader=markups[0].preheader,
    )
    for name in ("quoted", "hidden", "unshown", "alts", "links", "images", "pixels", "tables", "source"):
        setattr(whole, name, reduce(add, (getattr(m, name) for m in markups)))
    return whole
