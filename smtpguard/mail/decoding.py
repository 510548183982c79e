"""Decode the octets of mail: transfer encodings (RFC 2045), charsets, encoded words (RFC 2047) and header values with
parameters (RFC 2231).

All functions are total: malformed input is decoded as far as possible, and the defect is named.
"""

from __future__ import annotations

import binascii
import codecs
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from smtpguard.locale.phrase import Phrase

# Codecs of Python that no mail uses: quadratic, or no charset at all.
_NO_CHARSET = frozenset({"punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})
# Names in mail -> names in Python. Narrow charsets map to the wider ones that senders mean.
_ALIASES = {
    "iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "us-ascii": "utf-8", "ascii": "utf-8",
    "ansi_x3.4-1968": "utf-8", "gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "iso-8859-9": "cp1254",
    "iso-8859-8-i": "iso-8859-8", "iso-8859-8-e": "iso-8859-8", "iso-8859-6-i": "iso-8859-6", "windows-874": "cp874",
    "x-mac-roman": "mac-roman", "macintosh": "mac-roman", "x-sjis": "cp932", "shift_jis": "cp932", "windows-31j": "cp932",
    "ks_c_5601-1987": "cp949", "euc-kr": "cp949", "utf8": "utf-8", **dict.fromkeys(("csunicode11utf7", "unicode-2-0-utf-7", "x-unicode-1-1-utf-7", "x-unicode-2-0-utf-7"), "utf-7"), "utf-8": "utf-8", "unicode-1-1-utf-7": "utf-7",
    **{
        name: codec
        for codec, names in {
            "iso8859-2": "iso88592", "iso8859-3": "iso88593", "iso8859-4": "iso88594", "iso8859-5": "iso88595",
            "iso8859-6": "csiso88596e csiso88596i iso-8859-6-e iso88596", "iso8859-7": "iso88597 sun_eu_greek",
            "iso8859-8": "csiso88598e csiso88598i logical iso88598 visual", "iso8859-10": "iso885910",
            "iso8859-13": "iso885913", "iso8859-14": "iso885914", "iso8859-15": "csisolatin9 iso885915",
            "koi8-r": "koi koi8", "koi8-u": "koi8-ru", "mac-roman": "csmacintosh mac", "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
            "cp874": "dos-874 iso885911", "cp1252": "x-cp1252 iso88591", "cp1254": "x-cp1254 iso88599",
            **{f"cp{n}": f"x-cp{n}" for n in (1250, 1251, 1253, 1255, 1256, 1257, 1258)},
            "gb18030": "csgb2312 gb_2312 gb_2312-80 chinese csiso58gb231280 iso-ir-58", "big5": "cn-big5 x-x-big5",
            "euc-jp": "cseucpkdfmtjapanese x-euc-jp", "cp932": "cswindows31j csshiftjis shift-jis sjis",
            "cp949": "cseuckr csksc56011987 iso-ir-149 ks_c_5601-1989 ksc_5601 windows-949 korean ksc5601",
            "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
        }.items()
        for name in names.split()
    },  # names that browsers know (Encoding Standard section 4.2)
    "cp-850": "cp850", "utf-16": "utf-16", "8bit": "utf-8", "7bit": "utf-8", "default": "utf-8", "none": "utf-8",
}  # fmt: skip
_UNKNOWN_OKAY = frozenset({"", "unknown-8bit", "x-unknown", "unknown", "x-user-defined", "_autodetect_all"})
_BASE64 = bytes([10, 13, *b"+/=", *range(48, 58), *range(65, 91), *range(97, 123)])
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
_PADDING = re.compile(rb"=+")
_PADDED_BREAK = re.compile(
    rb"=[ \t]++(?=\r?\n)"
)  # white space at a line's end is no part of the line (RFC 2045 section 6.7)
_WORD = re.compile(rb"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*|(?:[^?]|\?(?!=)){0,75})\?=")  # RFC 2047 section 2
_META = re.compile(rb"<meta\b[^>]{0,200}?\bcharset\s*+=\s*+[\"']?\s*+([\w.:-]{1,40})", re.I)
_BEGINNING = 4096  # octets in which browsers look for the charset
_SHORT = 200  # octets of a value up to which its parsed form is cached
_BETWEEN = re.compile(rb"[ \t\r\n]*")
_SURROGATE = re.compile("[\ud800-\udfff]")  # UTF-7 may leave surrogates; no other codec can
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_PARAMETER = re.compile(rb';\s*+([^\s=;"]{1,80})\s*+=\s*+("(?:[^"\\]|\\.)*"?|[^;]*)', re.S)
_PAIR = re.compile(rb"\\(.)", re.S)
_KIND = re.compile(rb'[\s"]*+([^\s/,"]++)\s*+/\s*+([^\s,"]++)')  # Thunderbird reads a type up to white space or a comma
_NAMES = frozenset({"name", "filename"})
_COMMENT = re.compile(rb'("(?:[^"\\]|\\.)*"?)|\([^()]*\)', re.S)
_UUENCODE = frozenset({"x-uuencode", "uuencode", "x-uue", "uue"})
_MECHANISM = re.compile(rb"(base64|quoted-printable|uue)")
_CONTROLS = bytes([*range(9), 11, *range(14, 32), 127])
NO_CONTROLS = dict.fromkeys(_CONTROLS)
"""A table for ``str.translate`` that removes invisible control characters."""
_CONTROL = re.compile(f"[{re.escape(_CONTROLS.decode())}]+")
_ASCII = bytes([9, 10, 13, *range(32, 127)])
_NO_WORDS = bytes(c for c in range(256) if not (c < 128 and chr(c).isalnum()))
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_AS_CP1252 = {octet: bytes([octet]).decode("cp1252", "replace") for octet in range(128, 256)}
_LATIN = frozenset({"cp1252", "cp1254"})
_ASCII_AND_MORE = _LATIN | {"utf-8"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded text, and its defect if it has one. ``lossy``: a tenth or more could not be decoded. ``readings``:
    two texts, by the label and by the charset that it seems to be in, if programs show other words in it; ``text``
    has both."""

    text: str
    defect: Phrase | None
    lossy: bool = False
    readings: tuple[str, ...] = ()


def transfer_encoding(raw: bytes) -> str:
    """Return the name in a Content-Transfer-Encoding, without comments and quotation marks. A name that contains a
    known one is taken for it, since some programs do so: the others show meaningless letters."""
    name = _without_comments(_FOLD.sub(b"", raw[:500])).partition(b";")[0].strip(b' \t"').lower()
    found = _MECHANISM.search(name)
    if found is not None and name != b"x-uuencode":
        name = b"x-uuencode" if found[0] == b"uue" else found[0]
    return name.decode("latin-1")


def decode_transfer(body: bytes, encoding: str) -> tuple[bytes, Phrase | None]:
    """Undo a Content-Transfer-Encoding. Returns the octets and the defect, or None."""
    if encoding in ("", "7bit", "8bit", "binary"):
        return body, None
    if encoding == "base64":
        return _decode_base64(body)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(_PADDED_BREAK.sub(b"=", body)), None
    if encoding in _UUENCODE:
        return _decode_uuencode(body)
    return body, Phrase("it holds the unknown transfer encoding {name}", name=repr(encoding[:40]))


def _decode_base64(body: bytes) -> tuple[bytes, Phrase | None]:
    packed = _NOT_BASE64.sub(b"", body)
    junk = len(body) - len(packed)
    defect: Phrase | None = None
    if junk and (body.translate(None, b"\r\n \t") != packed or is_no_base64(body)):
        defect = Phrase("it holds base64 with characters that do not belong in it")
    out: list[bytes] = []
    left = b""
    # Clients differ on data after padding in the middle: some decode it too, as this does.
    for run in _PADDING.split(packed):
        run, left = left + run, b""
        if len(run) % 4 == 1:  # no place for padding, so they skip it
            defect, run, left = Phrase("it holds base64 that is cut off"), run[:-1], run[-1:]
        if run:
            out.append(binascii.a2b_base64(run + b"=" * (-len(run) % 4)))
    return b"".join(out), defect


def is_no_base64(body: bytes) -> bool:
    """Return whether this is hardly base64, whatever it is called. Some programs show it as it is."""
    return len(body.translate(None, _BASE64)) * 12 > len(body)


def may_stay_encoded(body: bytes, encoding: str) -> bool:
    """Return whether some program may show this as it is: it is no base64, or not surely; or uuencode, which many do
    not know."""
    if encoding == "base64":
        return is_no_base64(body) or len({len(line) for line in body.split()[:-1]}) > 1
    return encoding in _UUENCODE


def _decode_uuencode(body: bytes) -> tuple[bytes, Phrase | None]:
    out: list[bytes] = []
    defect: Phrase | None = None
    for line in body.splitlines():
        if not line or line.startswith((b"begin ", b"end", b"`")):
            continue
        try:
            out.append(binascii.a2b_uu(line))
        except binascii.Error:
            defect = Phrase("it holds uuencoded lines that are broken")
    return b"".join(out), defect


def decode_charset(data: bytes, charset: str, *, controls: bool = False) -> Decoded:
    """Decode octets as text. An unknown charset is decoded as UTF-8, octets that are not UTF-8 as Windows-1252, and
    reported. ``controls``: keep invisible control characters."""
    name = charset.strip().strip("\"'").lower()
    if name in _ALIASES or name in _UNKNOWN_OKAY:
        return _decode(data, _ALIASES.get(name, "utf-8"), None, controls)
    try:
        known = codecs.lookup(name)
    except (LookupError, ValueError, UnicodeError):
        return _decode_unknown(data, name, controls)
    if known.name.replace("-", "_") in _NO_CHARSET or not getattr(known, "_is_text_encoding", True):
        return _decode_unknown(data, name, controls)
    return _decode(data, known.name, None, controls)


def _decode_unknown(data: bytes, name: str, controls: bool) -> Decoded:
    """Decode text in an unknown charset. It is lossy if half of it is neither ASCII nor UTF-8: as EBCDIC and other
    scripts are, which some programs know."""
    found = _decode(data, "utf-8", Phrase("it holds the unknown charset {name}", name=repr(name[:40])), controls)
    strange = len(data.translate(None, _ASCII)) * 2 >= len(data) > 0 and not _is_valid(data, "utf-8")
    return replace(found, lossy=True) if strange else found


def body_text(data: bytes, kind: str, parameters: Mapping[str, str], *, controls: bool = False) -> Decoded:
    """Decode the text of a part of this type, as mail programs show it. HTML without a charset that is not UTF-8 may
    name its own. ``controls``: as in ``decode_charset``."""
    charset = parameters.get("charset", "")
    if (
        kind == "text/html"
        and not charset
        and (named := _META.search(data[:_BEGINNING]))
        and not _is_valid(data, "utf-8")
    ):
        spelled = named[1].decode("ascii", "replace")
        charset = spelled if decode_charset(named[0], spelled).text == named[0].decode("latin-1") else ""
    decoded = decode_charset(data, charset, controls=controls)
    if "delsp" not in parameters or parameters["delsp"].lower() != "yes" or kind != "text/plain":
        return decoded
    return replace(decoded, text=_without_soft_breaks(decoded.text))


def _without_soft_breaks(text: str) -> str:
    """Remove the soft line breaks and the space before each (RFC 3676 section 4, DelSp=yes): they may be within
    words. Breaks that keep their space are as good as white space."""
    pieces: list[str] = []
    soft, before = False, ""
    for line in text.split("\n"):
        said = line.rstrip("\r").lstrip(">")
        depth = line[: len(line) - len(line.lstrip(">"))]
        if soft and depth == before:
            pieces.append(said.removeprefix(" "))
        else:
            pieces += ("\n", line.rstrip("\r"))
        soft, before = said.endswith(" ") and said.strip() != "--", depth
        if soft:
            pieces[-1] = pieces[-1][:-1]
    return "".join(pieces[1:])


def _decode(data: bytes, codec: str, defect: Phrase | None, controls: bool = False) -> Decoded:
    if codec in _ASCII_AND_MORE:
        labelled = codec
        if data[:2] in _BOMS:  # overrides any label, as in browsers
            codec = "utf-16"
        elif len(seen := data.translate(None, _CONTROLS)) != len(data):
            if b"\x1b" in data and _is_valid(
                data, "iso2022_jp_2"
            ):  # as Japanese mail programs read it, regardless of the label
                codec = "iso2022_jp_2"
            elif not controls:
                data = seen
        if codec not in _ASCII_AND_MORE:
            text = _without_controls(data.decode(codec, "replace"), codec, controls)
            if not _have_same_words(text, data):
                why = Phrase("it holds text that cannot be read as {codec}", codec=labelled)
                said = _without_controls(data.decode(labelled, "replace"), labelled, controls)
                return Decoded(f"{said}\n{text}", why, readings=(said, text))
    if codec == "utf-16" and data[:2] not in _BOMS:
        codec = "utf-16-be" if data[::2].count(0) > data[1::2].count(0) else "utf-16-le"
    if not _has_ascii(codec):  # perhaps a wrong label; some programs ignore it, and nearly all EBCDIC
        strange = len(data.translate(None, _ASCII))
        if strange * (4 if codec.startswith("utf") else 2) < len(data):  # in UTF-16 it is about half of all scripts
            codec = "utf-8"
    if codec == "utf-8" and data.startswith(codecs.BOM_UTF8):
        data = data[3:]
    if codec in _LATIN and not data.isascii():  # octets that are UTF-8 by chance hardly occur
        with suppress(UnicodeError):
            return Decoded(data.decode("utf-8"), defect)
    try:
        text = data.decode(codec)
        text = _SURROGATE.sub("\ufffd", text) if codec == "utf-7" else text
        return Decoded(text if codec in _ASCII_AND_MORE else _without_controls(text, codec, controls), defect)
    except (UnicodeError, ValueError):
        pass
    # Undeclared 8-bit text is nearly always Windows-1252, and so is a footer that a gateway appends.
    if codec == "utf-8":
        text = data.decode("utf-8", "surrogateescape")
        for octet in _AS_CP1252.keys() & set(data.translate(None, _ASCII)):
            text = text.replace(chr(0xDC00 + octet), _AS_CP1252[octet])
        return Decoded(text, defect)
    text = _without_controls(data.decode(codec, "replace"), codec, controls)
    if text.count("\ufffd") * 10 < len(text):
        return Decoded(text, defect or Phrase("it holds octets that are not {codec}", codec=codec))
    try:
        return Decoded(data.decode("utf-8"), Phrase("it holds text that is UTF-8, declared as {codec}", codec=codec))
    except UnicodeError:
        return Decoded(text, defect or Phrase("it holds text that cannot be read as {codec}", codec=codec), lossy=True)


def _have_same_words(text: str, data: bytes) -> bool:
    """Return whether a program that follows the label of ``data`` shows the same words as one that sees another
    charset."""
    return text.encode("ascii", "ignore").translate(None, _NO_WORDS) == data.translate(None, _NO_WORDS)


def _without_controls(text: str, codec: str, controls: bool) -> str:
    """Remove invisible control characters, unless ``controls``. EBCDIC ends lines with one."""
    text = text if codec.startswith("utf") or _has_ascii(codec) else text.replace("\x85", "\n")
    return text if controls else _CONTROL.sub("", text)


@lru_cache(maxsize=64)
def _has_ascii(codec: str) -> bool:
    """Return whether ASCII is the same in a codec: not in UTF-16, UTF-32 and EBCDIC."""
    return b"A".decode(codec, "replace") == "A"


def _is_valid(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeError:
        return False
    return True


def header_text(raw: bytes) -> str:
    """Return an unstructured header value for people: unfolded, encoded words decoded, without invisible characters, on
    one line."""
    raw = (_FOLD.sub(b"", raw) if b"\n" in raw else raw).strip()
    if b"=?" not in raw:
        if raw.isascii():  # nearly every value
            plain = raw.decode("ascii")
            if plain.isprintable() or (plain := plain.replace("\t", " ")).isprintable():
                return plain
        return _on_one_line(_decode(raw, "utf-8", None).text)
    out: list[str] = []
    # A run of words in one charset is decoded as one: some senders split characters.
    run, run_charset, position = b"", "", 0
    for found in _WORD.finditer(raw):
        between = raw[position : found.start()]
        charset = found[1].partition(b"*")[0].decode("ascii", "replace")  # RFC 2231 section 5: a language may follow
        apart = _BETWEEN.fullmatch(between) is None or not position
        if apart or charset.lower() != run_charset.lower():
            out.append(decode_charset(run, run_charset).text)
            run = b""
            if apart:
                out.append(_decode(between, "utf-8", None).text)
        run_charset, position = charset, found.end()
        coded = found[3]
        run += _decode_base64(coded)[0] if found[2] in b"bB" else binascii.a2b_qp(coded, header=True)
    out.append(decode_charset(run, run_charset).text)
    out.append(_decode(raw[position:], "utf-8", None).text)
    return _on_one_line("".join(out))


def _on_one_line(text: str) -> str:
    """Make control characters spaces, and remove invisible characters, so that they split no word."""
    if text.isprintable():
        return text
    for c in set(text):
        if not c.isprintable():
            text = text.replace(c, "" if unicodedata.category(c) == "Cf" else " ")
    return text


@dataclass(frozen=True, slots=True)
class ParsedValue:
    """A structured value with parameters, such as Content-Type and Content-Disposition. ``doubled``: names given
    twice, with different values, or in a way that programs read differently. ``named``: every name of a file that
    some program shows."""

    value: str
    parameters: Mapping[str, str]
    doubled: frozenset[str]
    named: tuple[str, ...]


def parse_value(raw: bytes) -> ParsedValue:
    """Parse ``text/plain; charset=utf-8`` and similar, with RFC 2231 continuations and charsets decoded."""
    return _parse_value_cached(raw) if len(raw) <= _SHORT else _parse_value(raw[:8192])


def _parse_value(raw: bytes) -> ParsedValue:
    raw = written = _FOLD.sub(b"", raw) if b"\n" in raw else raw
    if b"(" in raw:
        raw = _without_comments(raw)
    head, _, _ = raw.partition(b";")
    kind = _KIND.match(head)
    whole = b"/".join(kind.groups()) if kind else b"".join(head.split()).strip(b'"')
    plain: dict[str, str] = {}
    doubled: set[str] = set()
    named: list[str] = []
    pieces: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for found in _PARAMETER.finditer(raw, len(head)):
        name = found[1].decode("latin-1").lower()
        value = _unquoted(found[2])
        base, star, tail = name.partition("*")
        if not star:
            said = header_text(value)
            named += (said,) * (base in _NAMES)
            known = plain.setdefault(base, said)
            if base == "boundary" and b"\\" in found[2]:  # some programs take it as it is written
                doubled.add(base)
            if known != said and (base != "charset" or known.lower() != said.lower()):
                doubled.add(base)
            continue
        number, coded, _ = tail.partition("*")
        if not tail or number.isdecimal():  # name*= is complete and encoded; name*0*= is its first piece
            index = int(number[:4]) if number else 0
            if index in pieces.setdefault(base, {}):
                doubled.add(base)
            pieces[base].setdefault(index, (value, bool(coded) or not tail))
    for base, numbered in pieces.items():
        said = _join_pieces([numbered[i] for i in sorted(numbered)])
        if plain.get(base, said).lower() != said.lower():  # a program without RFC 2231 takes the other
            doubled.add(base)
        plain[base] = said
        named += (said,) * (base in _NAMES)
    if named and written is not raw:  # most programs know no comments: filename=a(1).pdf
        for found in _PARAMETER.finditer(written):
            name, said = found[1].decode("latin-1").lower(), header_text(_unquoted(found[2]))
            if name in _NAMES:
                named.append(said)
                plain[name] = plain[name] if name in pieces else said
    return ParsedValue(whole.decode("latin-1").lower(), plain, frozenset(doubled), tuple(dict.fromkeys(named)))


_parse_value_cached = lru_cache(maxsize=256)(_parse_value)


def _unquoted(value: bytes) -> bytes:
    """Return a parameter's value without quotation marks and backslashes."""
    value = value.strip()
    if not value.startswith(b'"'):
        return value
    return _PAIR.sub(rb"\1", value[1:-1] if value.endswith(b'"') and len(value) > 1 else value[1:])


def _without_comments(raw: bytes) -> bytes:
    """Remove comments (RFC 5322 section 3.2.2), which may nest; quoted strings are kept."""
    for _ in range(4):
        shorter = _COMMENT.sub(lambda found: found[1] or b" ", raw)
        if shorter == raw:
            break
        raw = shorter
    return raw


def _join_pieces(pieces: list[tuple[bytes, bool]]) -> str:
    charset, data = "utf-8", b""
    for i, (value, coded) in enumerate(pieces):
        if coded and i == 0 and value.count(b"'") >= 2:
            name, _, value = value.split(b"'", 2)
            charset = name.decode("ascii", "replace") or "utf-8"
        data += unquote_to_bytes(value) if coded else value
    text = decode_charset(data, charset).text
    return (
        header_text(text.encode("utf-8", "replace")) if "=?" in text else _on_one_line(text)
    )  # encoded words, cut in pieces
