"""All that a message shows or links to, in order: text with quotes, footers and hidden words, markup, links, pictures,
files.

Approvals compare it, so that what people approve is what is sent. So nothing is cut away, and for HTML the source
counts, not what a browser renders: a style that hides or shows words is a difference. Differences between two ways of
sending the same content do not count: transfer encoding, charset, boundaries, Content-IDs, white space; nor do ids,
classes and data-* that no style sheet of the message mentions, of which tools generate new ones for each copy. If it is
not certain that a style sheet ignores them, all of them count. Files are compared as octets, attached texts also by
their charset, calendars by their method. A part that cannot be parsed for certain is compared as octets.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from smtpguard.mail.constant import constant
from smtpguard.mail.decoding import NO_CONTROLS, body_text, decode_transfer
from smtpguard.mail.fields import mailboxes
from smtpguard.mail.message import Header, Message, in_crlf_lines
from smtpguard.reading.fold import normalized
from smtpguard.reading.parts import Index, Part, walk
from smtpguard.reading.people import RECIPIENTS, WRITERS
from smtpguard.reading.request import Bounds, Meter, TooComplex
from smtpguard.reading.thread import without_prefixes

_WS = " \t\n\f\r"
"""White space of HTML. Python's has more, which browsers take for letters."""
_SPACES = re.compile(f"[{_WS}]+")
_MAY_END = re.compile("[<>\"'`]")
"""Signs that may end a comment, a title or an open quotation around a tag."""
_STYLE = re.compile(rf"<style\b(?:[^<>]*+>(.*?)(?:</style[{_WS}]*+>|\Z))?", re.S | re.I)
_PRELUDE = re.compile(r"(?:\A|(?<=[{};]))([^{};]*+)\{(?=([^{}]*+))")
"""A selector, with the declarations that follow. It begins where another rule ends, so that each is read once."""
_NAME = re.compile(r"([.#])(-?[_a-z\u0080-\U0010ffff][\w-]*)", re.I)
_SELECTED = re.compile(r"\[\s*(?:[\w-]*\|)?([\w-]+)")
_UNCERTAIN = re.compile(
    r"<(?:textarea|xmp|plaintext|listing|noembed|noframes|iframe|script)\b|@import|\battr\s*\(|<style\b[^<]*\\",
    re.I,
)
"""Text that looks like tags; remote style sheets; attributes shown as text; escaped names."""
_FOREIGN = re.compile("<(?:[sS][vV][gG]|[mM][aA][tT][hH])")
"""SVG and MathML, the only markup where a tag may end itself."""
_SRC = re.compile(r"""(?<![\w-])src\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]*)""", re.I)
_LINK = re.compile(r"<link\b", re.I)
_REMOTE = re.compile(r"stylesheet", re.I)
_OF_PICTURES = re.compile(r"\bimg\b|[*\[]", re.I)
_SETS_SIZE = re.compile(r"(?<![\w-])(?:(?:min-)?width|min-height|height(?!\s*:\s*auto\b))\s*:", re.I)
"""Sizes of pictures. By ``height: auto``, which most templates have, one that is a pixel wide is no larger than a
line."""
_SIZE = re.compile(r"""(?<![\w-])(min-)?(width|height)["']?\s*[=:]\s*["']?\s*([^\s"';>!]*)""", re.I)
_NOTHING = frozenset(("0", "1", "0px", "1px"))
_ENLARGES = re.compile(
    r"""zoom|transform|(?:padding[a-z-]*+|border-[a-z-]*width)(?!\s*:\s*0(?:px)?\s*(?:!\s*important\s*)?(?:;|["']|\Z))"""
    r"""|border(?!-[a-z-]*width|\s*[:=]\s*["']?(?:0|none))|background|content|srcset|scale""",
    re.I,
)
_QUOTES = re.compile(
    r"gmail_|yahoo_|moz-|protonmail|tutanota|zmail|divrplyfwdmsg|appendonsend|outlookmessage|isforwardcontent|mail-editor|reference-message"
)
"""Names by which mail programs fold quoted text."""
_OURS = ("id", "class")
_OURS_GIVEN = re.compile(r"""(?<![\w-])(id|class)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]*)""", re.I)
_TOGETHER = {
    "line-height": "font", "top": "inset", "right": "inset", "bottom": "inset", "left": "inset", "word-spacing": "font",
    "letter-spacing": "font",
}  # fmt: skip
"""Properties that a shorthand of another name may also set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheets:
    """The style sheets of one HTML text. ``certain``: all its styles are known. ``names``: classes and ids in its
    style sheets, each with a replacement; ``folded``: in lower case, since only some documents tell case apart;
    ``asked``: attributes that selectors name."""

    certain: bool = False
    names: dict[str, str] = field(default_factory=dict)
    folded: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    sizes_pictures: bool = False

    @classmethod
    def of(cls, source: str) -> _Sheets:
        if _UNCERTAIN.search(source) or (_LINK.search(source) and _REMOTE.search(source)):
            return cls()
        names: dict[str, str] = {}
        asked: set[str] = set()
        sizes = False
        for style in _STYLE.finditer(source):
            if style[1] is None:  # a tag that cannot be told from text
                return cls()
            for prelude, declarations in _PRELUDE.findall(style[1]):
                sizes = sizes or bool(_OF_PICTURES.search(prelude) and _SETS_SIZE.search(declarations))
                asked.update(name.lower() for name in _SELECTED.findall(prelude))
                for sign, name in _NAME.findall(prelude):
                    names.setdefault(f"{sign}{name}", f"{sign}{len(names)}")
        folded = frozenset(map(str.lower, names))
        return cls(certain=True, names=names, folded=folded, asked=frozenset(asked), sizes_pictures=sizes)

    def digest(self, sheet: str) -> str:
        """Return the digest of a style element, independent of the names of its classes and ids."""
        if self.certain:
            sheet = _PRELUDE.sub(lambda prelude: _NAME.sub(self._renamed, prelude[0]), sheet)
        return hashlib.sha256(_SPACES.sub(" ", sheet).strip().encode("utf-8", "replace")).hexdigest()

    def _renamed(self, found: re.Match[str]) -> str:
        if ("class" if found[1] == "." else "id") in self.asked:
            return found[0]
        return self.names.get(found[0], found[0])

    def attribute(self, key: str, value: str) -> str:
        """Return an attribute in normalized form; "" if it does not change what is shown."""
        if key == "style":
            return f"style={in_order(value)}" if value.strip(" ;") else ""
        if not self.certain or key in self.asked or _MAY_END.search(value):
            return f"{key}={value}"
        if key in _OURS:
            sign = "." if key == "class" else "#"
            words = [
                one for one in value.split(" ") if f"{sign}{one}".lower() in self.folded or _QUOTES.match(one.lower())
            ]
            known = {self.names.get(f"{sign}{one}", one) for one in words}
            return f"{key}={' '.join(sorted(known))}" if known else ""
        return "" if key.startswith("data-") else f"{key}={value}"

    def is_point(self, attributes: str) -> bool:
        """Return whether a picture is too small to be seen. ``attributes``: as in its tag."""
        said = _SRC.sub("", attributes)
        known = any(self.attribute(name.lower(), value.strip("\"'")) for name, value in _OURS_GIVEN.findall(said))
        if known or self.sizes_pictures or not self.certain or _ENLARGES.search(said):
            return False
        sizes = _SIZE.findall(said)
        both = {name.lower() for least, name, _ in sizes if not least} == {"width", "height"}
        return both and all(value.lower() in _NOTHING for *_, value in sizes)


def in_order(style: str) -> str:
    """Return inline declarations in a fixed order. Those that may override each other keep theirs."""
    if any(sign in style for sign in ("\\", "/*", "{")):
        return style
    said = []
    for declaration in filter(str.strip, style.split(";")):
        name, _, value = declaration.partition(":")
        name, value = name.strip(_WS).lower(), value.strip(_WS)
        if name in ("", "all") or not value or any(value.count(sign) % 2 for sign in "\"'"):
            return style
        if value.count("(") != value.count(")"):
            return style
        said.append((name, value))
    return ";".join(f"{name}:{value}" for name, value in sorted(said, key=lambda one: _family(one[0])))


def _family(name: str) -> str:
    name = re.sub(r"\A-(?:webkit|moz|ms|o)-", "", name)
    return _TOGETHER.get(name, name.partition("-")[0])


_ONCE = ("from", "sender", "reply-to", "subject")
_SENDERS = (*WRITERS, "mail-followup-to", "mail-reply-to", "disposition-notification-to", "return-receipt-to")
"""The fields that name who wrote a message, who resent it, where Mutt and others send answers, and where programs send
receipts of reading (RFC 8098; Return-Receipt-To is the older form)."""
_OTHERS = ("x-message-flag", "thread-topic", "keywords", "newsgroups", "followup-to")
"""Fields whose text some program shows: Outlook above the message, over its conversation and as categories, Thunderbird as
recipients."""
_BASES = ("content-base", "content-location")
"""Fields by which some programs complete the links of a page (RFC 2557)."""
_USUAL_CHARSETS = frozenset(("", "us-ascii", "utf-8", "iso-8859-1", "windows-1252"))
"""Charsets in which all ASCII is the same, and that programs assume of a text without one."""
_ADDRESS = re.compile(r"(?<![^\s<>,;])[^\s<>,;@]++@[\w-]++(?:\.[\w-]++)*+(?![^\s<>,;])")
_WORD = re.compile(r"[^\W_]+")
_NOBODY = "undisclosed recipients"
_NAMED_WORDS, _NAMED_CHARACTERS = 8, 64
"""The most of the names in To or Cc, which differ from copy to copy and are not compared; more than that is a text."""
_SHOWN_TO_EACH = 8
MANY_SHOWN = "; shown-to: many"
"""The end of ``Shown.sender`` if To and Cc show more addresses than that, as those of a program that adds each next
recipient to those before."""
ANOTHER_SHOWN = "; shown-to: another"
"""The same if they name one customer alone, and the copy goes to another one: who sent it moved the list by a row."""
_USUAL = Bounds()
_MOST_PACKED = 8 << 20

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
"""Scripts without spaces, and their punctuation: each character is a token."""
_BEFORE, _BEHIND = "([{<«“„‘\"'¿¡", ".,;:!?…)]}>»”’\"'"
# An attribute, as browsers part a tag (HTML section 13.2.5.32 and those behind it).
_BEGINS, _KEY, _EQUALS = rf"(?=[^{_WS}/>])", rf"=?+[^{_WS}/>=]*+", rf"[{_WS}]*+="
_VALUE = rf"""(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|[^{_WS}>"'][^{_WS}>]*+|(?=>|\Z))"""
_ONE = rf"{_BEGINS}{_KEY}(?:{_EQUALS}[{_WS}]*+{_VALUE}|(?!{_EQUALS}))"
_ATTRIBUTE = re.compile(rf"{_BEGINS}({_KEY})(?:{_EQUALS}[{_WS}]*+({_VALUE})|(?!{_EQUALS}))")
_SOURCE = re.compile(
    rf"(<(style|script)\b.*?(?:</\2[{_WS}]*>|\Z))|(<!--|-->|</?[a-z][^{_WS}/>]*+(?:[{_WS}/]++|{_ONE})*+(?:>|\Z)|<[!?/][^>]*+(?:>|\Z))",
    re.S | re.I,
)
_TAG = re.compile(rf"<(/?[a-z][^{_WS}/>]*+)", re.I)
_LINKS = frozenset(("href", "action", "formaction", "cite", "xlink:href", "longdesc", "ping"))
_PICTURES = frozenset(("src", "srcset", "background", "poster", "data", "lowsrc", "dynsrc"))
_TEXT_ATTRIBUTES = frozenset(("alt", "title", "aria-label", "placeholder", "value", "label", "content", "summary"))
_BLOCKS = frozenset([
    "p", "div", "br", "tr", "td", "th", "li", "ul", "ol", "dl", "dd", "dt", "table", "tbody", "thead", "tfoot",
    "h1", "h2", "h3", "h4", "h5", "h6", "hr", "blockquote", "center", "section", "header", "footer", "article",
    "aside", "main", "nav", "pre", "address", "form", "fieldset", "figure", "figcaption", "body", "head", "html",
    "o:p", "title"
])  # fmt: skip
_HOST = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//[^/?#]*", re.I)

_SHORT, _LONG = 500, 2_000  # characters of a line and of a paragraph that are cached
LINK, PICTURE, POINT = "@link ", "@picture ", "@point "
"""The beginning of a token for the target of a link, of a remote picture, or of an invisible one-point picture: of the
last only the host counts."""


PART = "<part "
"""The beginning of a block that gives the type of the text after it."""
_OCTETS = "content "
"""The beginning of the digest of a message that could not be parsed."""


@constant
class Shown:
    """What a message shows. ``subject`` and each of ``blocks`` (a paragraph, or the text between two breaks of line
    or cell) are tokens, each on a line of its own; a token that begins a line in the message follows an empty one.
    ``sender``: From, Sender, Reply-To, who sent it on and who gets answers and receipts, as they are shown. ``files``:
    type (``_read_as``), name and SHA-256 of attachments, pictures and attached messages. ``content``: the SHA-256 of
    the octets; if ``opaque``, nothing else is known. ``recipient``: of the envelope, in lower case; "" if
    there are several."""

    content: str
    subject: str = ""
    sender: str = ""
    blocks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    opaque: bool = False
    recipient: str = ""

    @property
    def digest(self) -> str:
        """Return a digest over everything except line breaks, hexadecimal."""
        if self.opaque:
            return f"{_OCTETS}{self.content}"
        plain = [tokens(self.subject), self.sender, [tokens(block) for block in self.blocks], self.files]
        return hashlib.sha256(json.dumps(plain, ensure_ascii=True).encode()).hexdigest()

    @property
    def text(self) -> str:
        """Return a text that is equal for the same text with the same files, whatever the subject and sender."""
        return self.content if self.opaque else str(([tokens(block) for block in self.blocks], self.files))

    def beginning(self, most: int) -> str:
        """Return the beginning of its text, at most ``most`` characters."""
        said = ""
        for block in self.blocks:
            if len(said) <= most and (text := as_text(tokens(block))):
                said = f"{said} {text}".strip()
        return said if len(said) <= most else f"{said[:most].rpartition(' ')[0] or said[:most]}…"

    def pack(self) -> bytes:
        document = [self.content, self.subject, self.sender, self.blocks, self.files, self.opaque, self.recipient]
        return zlib.compress(json.dumps(document, ensure_ascii=True).encode(), 6)

    @classmethod
    def unpack(cls, data: bytes) -> Shown:
        """Undo ``pack``. Raises ValueError for other octets."""
        try:
            opened = zlib.decompressobj()
            text = opened.decompress(data, _MOST_PACKED)
            if opened.unconsumed_tail:
                raise ValueError("too long")
            content, subject, sender, blocks, files, opaque, *to = json.loads(text)
            strings = (content, subject, sender, *blocks, *files, *to)
        except (ValueError, TypeError, RecursionError, zlib.error) as wrong:
            raise ValueError(f"nothing that a message shows: {type(wrong).__name__}") from None
        if not all(isinstance(one, str) for one in strings) or not isinstance(opaque, bool) or len(to) > 1:
            raise ValueError("nothing that a message shows")
        return cls(
            content=content, subject=subject, sender=sender, blocks=tuple(blocks), files=tuple(files), opaque=opaque,
            recipient="".join(to),
        )  # fmt: skip


def is_compared(digest: str) -> bool:
    """Return whether ``Shown.digest`` is over the shown content, and not over octets; False for ""."""
    return bool(digest) and not digest.startswith(_OCTETS)


def tokens(block: str) -> list[str]:
    return [token for token in block.split("\n") if token]


def as_text(some: Iterable[str]) -> str:
    """Return tokens as people read them, without markup."""
    said = ""
    bound = True
    for token in some:
        if token.startswith(("<", LINK, PICTURE, POINT)):
            continue
        said += token if bound or (len(token) == 1 and token in _BEHIND) else f" {token}"
        bound = len(token) == 1 and token in "([{<«“„¿¡"
    return said


def shown_by(message: Message, bounds: Bounds = _USUAL) -> Shown:
    """Return all that a message shows. Total, and bounded by ``bounds``."""
    header, alone = message.header, Shown(content=message.sha256, opaque=True)
    fields = header.named
    if header.broken or any(len(fields.get(name, ())) > 1 for name in _ONCE):
        return alone
    if not in_crlf_lines(message.raw) or message.raw.find(b"\0") >= 0:  # relays differ on what they show of it
        return alone
    try:
        meter = Meter(bounds)
        found = walk(message.raw, fields, message.body_start, meter)
        if found.unreadable or any(len(part.fields.get("content-disposition", ())) > 1 for part in found.parts):
            return alone
        blocks, files = _parts([p for p in found.parts if not p.nested], meter)
        within = dict.fromkeys(subject for subject in found.subjects if subject != _field(fields, "subject"))
        blocks += filter(None, map(_text_block, within))
        addressed = [_field(fields, name) for name in RECIPIENTS if name in fields]
        blocks += filter(None, map(_long_names, addressed))
        many = sum(len(_ADDRESS.findall(value)) for value in addressed) > _SHOWN_TO_EACH
        blocks += filter(None, map(_text_block, other_texts(fields, _field(fields, "subject"))))
    except (TooComplex, RecursionError, ValueError):  # ``int`` takes no character reference of thousands of digits
        return alone
    senders = (f"{name}: {text}" for name in _SENDERS if name in fields and (text := _field(fields, name)))
    made = Shown(
        content=message.sha256,
        subject=_text_block(_field(fields, "subject")),
        sender="; ".join(senders) + MANY_SHOWN * many,
        blocks=tuple(blocks),
        files=tuple(files),
    )
    return made if sum(map(len, made.blocks)) < _MOST_PACKED // 8 else alone


def _parts(parts: list[Part], meter: Meter) -> tuple[list[str], list[str]]:
    data = [decode_transfer(part.body, part.encoding) for part in parts]
    digests: dict[int, str] = {}

    def digest(n: int) -> str:
        if n not in digests:
            octets, defect = data[n]  # programs differ in what they make of a broken encoding
            digests[n] = hashlib.sha256(octets if defect is None else parts[n].body).hexdigest()
        return digests[n]

    named = {
        field.text.strip(" <>"): digest(n)
        for n, part in enumerate(parts)
        for field in part.fields.get("content-id", ())
    }
    blocks: list[str] = []
    files: list[str] = []
    for n, (part, (octets, defect)) in enumerate(zip(parts, data, strict=True)):
        name = " ".join((part.filename, *part.othernames))
        if part.attachment or part.is_message or part.kind not in ("text/plain", "text/html"):
            files.append(f"{part.kind}{_read_as(part, octets)} {name} {digest(n)}")
            continue
        meter.take_text(len(octets))
        decoded = body_text(octets, part.kind, part.parameters, controls=part.kind == "text/html")
        blocks.append(f"{PART}{part.kind} {part.within} {name}>")
        if part.kind == "text/html":
            blocks += [f"<{name} {base}>" for name in _BASES if (base := _field(part.fields, name))]
        if defect or decoded.defect:
            blocks.append(f"<octets {digest(n)}>")
        text = normalized("NFC", decoded.text)
        blocks += _source_blocks(text, named) if part.kind == "text/html" else _text_blocks(text)
    return blocks, files


def _read_as(part: Part, octets: bytes) -> str:
    """Return the parameters of an attached text, to follow its type, by which its octets may mean something else: its
    charset, and the method of a calendar that does not have the same one within (RFC 6047 section 2.4)."""
    charset, method = ("".join(part.parameters.get(name, "").lower().split()) for name in ("charset", "method"))
    said = f";{charset}" if part.kind.startswith("text/") and charset not in _USUAL_CHARSETS else ""
    if part.kind == "text/calendar" and method and f"method:{method}".encode() not in octets.lower().splitlines():
        said += f";method={method}"
    return said


def _field(fields: Index, name: str) -> str:
    return " ".join(" ".join(f.text for f in fields.get(name, ())).split())


def other_texts(fields: Index, subject: str) -> list[str]:
    """Return the texts of _OTHERS, without those that only repeat the subject, as Thread-Topic does."""
    said = [_field(fields, name) for name in _OTHERS if name in fields]
    return [text for text in said if without_prefixes(text) != without_prefixes(subject)] if said else said


def _long_names(value: str) -> str:
    """Return the names in To, Cc or the like as a block; "" if they are no longer than the name of one person, or
    none. Only addresses are no names: what else stands within < and > is shown."""
    named = [word for word in _ADDRESS.sub(" ", value).split() if any(map(str.isalnum, word))]
    said = " ".join(named)
    return _text_block(said) if len(named) > _NAMED_WORDS or len(said) > _NAMED_CHARACTERS else ""


def named_otherwise(header: Header, known: Iterable[str]) -> str:
    """Return the words in To, Cc and the like, as everybody on a list reads them, that are none of the ``known``
    texts, of an address there (one that needs quotation marks is any text), or of a group without addresses. They are
    a block; "" for none."""
    said = " ".join(_field(header.named, name) for name in RECIPIENTS if name in header.named)
    shown = (text for text in map(str, mailboxes(header, *RECIPIENTS)) if not text.startswith('"'))
    usual = frozenset(_WORD.findall(" ".join((_NOBODY, *known, *shown)).casefold()))
    new = " ".join(word for word in _WORD.findall(said) if word.casefold() not in usual)
    return _text_block(new) if new else ""


def _text_blocks(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n[ \t\r\xa0]*\n", text.replace("\r\n", "\n")):
        if block := _paragraph(paragraph) if len(paragraph) <= _LONG else _text_block(paragraph):
            yield block


def _text_block(text: str) -> str:
    lines = [_line(line) if len(line) <= _SHORT else "\n".join(_words(line)) for line in text.split("\n")]
    return "\n\n".join(filter(None, lines))


_paragraph = lru_cache(maxsize=128)(_text_block)  # for copies of a mailing, as _line is


@lru_cache(maxsize=1024)
def _line(text: str) -> str:
    """Return the tokens of a line, cached: copies of a mailing differ in few lines."""
    return "\n".join(_words(text))


def _words(text: str) -> list[str]:
    """Return words, each with its inner punctuation; punctuation before and after one by itself; links."""
    found: list[str] = []
    for chunk in text.split():
        if chunk.isalnum() and chunk.isascii():
            found.append(chunk)
            continue
        rest = chunk.lstrip(_BEFORE)
        core = rest.rstrip(_BEHIND)
        found += chunk[: len(chunk) - len(rest)]
        if "://" in core or core[:7].lower() == "mailto:":
            found.append(LINK + core)
        elif not core.isascii() and _UNSPACED.search(core):
            found += _by_characters(core)
        elif core:
            found.append(core)
        found += rest[len(core) :]
    return found


def _by_characters(core: str) -> Iterator[str]:
    word = ""
    for character in core:
        if _UNSPACED.match(character):
            if word:
                yield word
            yield character
            word = ""
        else:
            word += character
    if word:
        yield word


def _source_blocks(source: str, named: Mapping[str, str]) -> Iterator[str]:
    sheets, foreign = _Sheets.of(source), _FOREIGN.search(source) is not None
    tags: dict[str, tuple[str, list[str], bool]] = {}  # many occur often
    block: list[str] = []
    filled = False
    position = 0
    for match in _SOURCE.finditer(source):
        between = source[position : match.start()]
        said = _words_cached(between) if len(between) <= _SHORT else _words_of_source(between)
        position = match.end()
        block += said
        filled = filled or bool(said)
        if match[1]:
            block.append(f"<{match[2].lower()} {sheets.digest(match[1])}>")
            continue
        if (tag := match[3]) not in tags:
            tags[tag] = _tag(tag, named, sheets, foreign)
        name, own, told = tags[tag]
        if name.lstrip("/") in _BLOCKS and filled:
            yield "\n".join(block)
            block, filled = [], False
        block += own
        filled = filled or told
    block += _words_of_source(source[position:])
    if block:
        yield "\n".join(block)


def _words_of_source(source: str) -> tuple[str, ...]:
    """Return the words between two tags, where control characters are invisible. Within tags they separate names."""
    return tuple(_words(html.unescape(source).translate(NO_CONTROLS)))


_words_cached = lru_cache(maxsize=1024)(_words_of_source)  # as lines are


def _tag(tag: str, named: Mapping[str, str], sheets: _Sheets, foreign: bool) -> tuple[str, list[str], bool]:
    """Return the name of a tag; its tokens: itself, then targets and visible attribute texts; and whether there are
    any of these."""
    begins = _TAG.match(tag)
    if begins is None or tag[-1] != ">":
        return "", [_SPACES.sub(" ", tag)], False
    name, rest = begins[1].lower(), tag[begins.end() : -1]
    kept: list[str] = [name, "/"] if foreign and rest.endswith("/") else [name]
    after: list[str] = []
    point = name == "img" and sheets.is_point(rest)
    for attribute in _ATTRIBUTE.finditer(rest):
        key, value = attribute[1].lower(), html.unescape(_unquoted(attribute[2] or "")).strip(_WS)
        if "  " in value or not value.isprintable():  # few: that is faster
            value = _SPACES.sub(" ", value)
        if key in _LINKS or key in _PICTURES:
            kept.append(key)
            after.append(
                f"{POINT}{_host(value)}"
                if point and _host(value)
                else f"{LINK if key in _LINKS else PICTURE}{_target(value, named)}"
            )
        elif key in _TEXT_ATTRIBUTES and value:
            kept.append(key)
            after += _words(value)
        elif counts := sheets.attribute(key, value):
            kept.append(counts)
    return name, [f"<{' '.join(kept)}>", *after], bool(after)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] in "\"'" and value[0] == value[-1] else value


def _host(target: str) -> str:
    found = _HOST.match(target)
    return found[0].lower() if found is not None else ""


def _target(value: str, named: Mapping[str, str]) -> str:
    """Return a target. An embedded picture is named by its content, not by its name in this message."""
    if value[:4].lower() == "cid:":
        return f"cid:{named.get(value[4:].strip('<>'), value[4:])}"
    if value[:5].lower() == "data:":
        return f"data:{hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()}"
    return value
