"""Text in formats other than plain text and HTML: enriched text (RFC 1896), RTF, calendars (RFC 5545), files within a
text.

It also decides which parts of a message hold text: by their type, and if that is generic by the file's name. All
functions are total and linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from smtpguard.reading.decode import transfer

TEXT, HTML, CALENDAR, ENRICHED, RTF = "text", "html", "calendar", "enriched", "rtf"

_KINDS = {
    "text/html": HTML, "text/x-amp-html": HTML, "application/xhtml+xml": HTML, "text/calendar": CALENDAR, "application/ics": CALENDAR,
    "text/enriched": ENRICHED, "text/richtext": ENRICHED, "text/rtf": RTF, "application/rtf": RTF, "application/x-rtf": RTF,
    "application/json": TEXT, "application/xml": TEXT,
}  # fmt: skip
_ENDINGS = {
    **dict.fromkeys(("txt", "text", "csv", "tsv", "md", "log", "json", "xml", "vcf", "srt"), TEXT),
    **dict.fromkeys(("htm", "html", "xhtml"), HTML), **dict.fromkeys(("ics", "vcs"), CALENDAR), "rtf": RTF,
}  # fmt: skip
_OCTETS = frozenset({"application/octet-stream", "application/x-unknown", "application/force-download", ""})
_SHOWN = frozenset(
    {"text/plain", "text/html", "text/x-amp-html", "application/xhtml+xml", "text/enriched", "text/richtext"}
)

_ENRICHED = re.compile(r"<(?:<|/?[A-Za-z][A-Za-z\-]{0,60}>)")
_HEX = re.compile(r"\\'([0-9a-fA-F]{2})")
_UNICODE = re.compile(r"\\u(-?\d{1,6}) ?(?:\\'[0-9a-fA-F]{2}|[^\\{}\r\n])?")
_DESTINATION = re.compile(r"\{\\(?:\*\\[a-z]+|fonttbl|colortbl|stylesheet|info|pict)[^{}]*(?:\{[^{}]*\}[^{}]*)*+\}")
_BREAK = re.compile(r"\\(?:par|line|tab|cell|row|sect|page)(?![a-z])\d* ?")
_WORD = re.compile(r"\\(?:[a-z]{1,32}(?:-?\d{1,10})? ?|[^a-zA-Z\\{}])|[{}]")
_SAID = re.compile(
    r"^(?:SUMMARY|DESCRIPTION|LOCATION|COMMENT|CATEGORIES|CONTACT|X-ALT-DESC)(?:;(?:\"[^\"\r\n]*\"|[^\":\r\n])*)?:(.*)$",
    re.I | re.M,
)
_METHOD = re.compile(r"^METHOD:\s*([A-Za-z\-]{1,30})\s*$", re.I | re.M)
_FOLDED = re.compile(r"\r?\n[ \t]")
_TAG = re.compile(r"<[^<>]{0,500}>")
_FILE = re.compile(r"^begin [0-7]{3,4} ([^\r\n]{1,200})\r?$", re.M)


def form_of(kind: str, filename: str) -> str:
    """The format in which a part of this type and name holds text, "" for one that is not read here."""
    if kind in _KINDS:
        return _KINDS[kind]
    if kind.startswith(("text/", "message/")):
        return TEXT
    return _ENDINGS.get(filename.rpartition(".")[2].lower(), "") if kind in _OCTETS and "." in filename else ""


def stands_alone(kind: str, filename: str) -> bool:
    """Whether mail programs show such a part inline, and not as a file."""
    return kind in _SHOWN or (kind.startswith("text/") and not filename and kind != "text/calendar")


def enriched(text: str) -> str:
    return _ENRICHED.sub(lambda found: "<" if found[0] == "<<" else "", text)


def rtf(text: str) -> str:
    """The text of Rich Text; other text is returned unchanged."""
    if not text.lstrip().startswith("{\\rtf"):
        return text
    text = _DESTINATION.sub("", text.replace("\r", "").replace("\n", ""))
    text = _UNICODE.sub(lambda found: _character(int(found[1])), text)
    text = _HEX.sub(lambda found: bytes([int(found[1], 16)]).decode("cp1252", "replace"), text)
    return _WORD.sub("", _BREAK.sub("\n", text))


def _character(number: int) -> str:
    number %= 1 << 16
    return chr(number) if not 0xD800 <= number < 0xE000 else "\ufffd"


def calendar(text: str) -> tuple[str, str]:
    """Its method (RFC 5546), "" for none, and its text."""
    unfolded = _FOLDED.sub("", text)
    method = _METHOD.search(unfolded)
    said = "\n".join(_SAID.findall(unfolded)).replace("\\n", "\n").replace("\\N", "\n").replace("\\,", ",")
    return method[1].upper() if method else "", _TAG.sub("", said)


def files_within(text: str) -> Iterator[tuple[str, bytes]]:
    """Name and octets of files embedded in a text (uuencode), which mail programs still unpack."""
    if "begin " not in text:
        return
    at = 0
    while found := _FILE.search(text, at):
        end = text.find("\nend", found.end())
        at = len(text) if end < 0 else end
        yield found[1].strip(), transfer(text[found.end() : at].encode("ascii", "replace"), "uue")[0]
