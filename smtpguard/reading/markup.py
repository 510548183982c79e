"""HTML as a person sees it: the shown, hidden and quoted text, words outside its text, and signs in its source of quoting,
mail programs, templates, and styles that show other words.

The tree is lexbor's, the same as browsers build. The tags are counted before it is built, since a deep tree costs
quadratic time; past the bounds the answer is "too complex", never an empty text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import re2
from selectolax.lexbor import LexborHTMLParser, LexborNode

from smtpguard.locale.phrase import Phrase
from smtpguard.mail.decoding import NO_CONTROLS
from smtpguard.reading.fold import without_unseen
from smtpguard.reading.request import Meter, TooComplex
from smtpguard.reading.sheets import refuse_embedded_pages, sheets_of, unescaped
from smtpguard.reading.visible import take_unseen

_QUOTING = (
    "gmail_quote", "gmail_extra", "type=cite", 'type="cite"', "type='cite'", "yahoo_quoted", "protonmail_quote", "messagereplysection",
    "reference-message-container", "tutanota_quote", "zmail_extra", "divrplyfwdmsg", "appendonsend", "outlookmessageheader", "moz-cite",
    "moz-forward", "isforwardcontent",
)  # fmt: skip
# Signs of mail programs in the markup of typed mail.
TYPED = (
    ("msonormal", "Word or Outlook"), ("wordsection1", "Word or Outlook"), ("elementtoproof", "Outlook on the web"),
    ("divtagdefaultwrapper", "Outlook on the web"), ("ms-outlook-mobile", "Outlook on a telephone"), ("exchange server", "Exchange"),
    ("gmail_default", "Gmail"), ("gmail_signature", "Gmail"), ("gmail_quote", "Gmail"), ("applemailsignature", "Apple Mail"),
    ("-webkit-line-break: after-white-space", "Apple Mail"), ("line-break: after-white-space", "Apple Mail"),
    ("apple-content-edited", "Apple Mail"), ("moz-signature", "Thunderbird"), ("moz-cite-prefix", "Thunderbird"),
    ("moz-txt", "Thunderbird"), ("yahoo-style-wrap", "Yahoo"), ("ydp", "Yahoo"), ("protonmail_signature", "Proton"), ("bloop_sign", "Airmail"),
    ("zmail_", "Zoho"), ("tutanota", "Tuta"), ("id=\"signature\"", "a mail program"),
)  # fmt: skip
# Signs of templates, each in its spellings.
TEMPLATE = (
    ('name="viewport', "name=viewport", "name='viewport"), ('role="presentation"', "role=presentation"), ("@media only screen", "@media screen"),
    ("mj-column",), ('class="mcn',), ("x-apple-disable-message-reformatting",), ("bgcolor=",), ('background="http', "background='http"),
)  # fmt: skip
# Signs of templates that Word also writes, into every letter from Outlook.
WORDS_TOO = (
    ("<!--[if mso", "<!--[if gte mso"), ("<!--[if !mso",), ('xmlns:v="urn:schemas-microsoft-com:vml',),
    ('cellpadding="0', "cellpadding='0", "cellpadding=0"),
)  # fmt: skip
# Signs of tracked changes and comments of a word processor.
TRACKED = (
    "msocommentreference",
    'class="msodel',
    "class=msodel",
    "<del ",
    "msocommentanchor",
    'class="msoins',
    "msocomtxt",
)
_BACKWARDS = ("<bdo", "bidi-override", "isolate-override")
_WRITTEN = ("list-style", "quotes", "symbols", "hyphenate-character", "initial-value")
"""Properties of a style that write text, but for ``content``, which is in nearly every source."""
_WRITES = ",".join(f"[style*='{sign}' i]" for sign in (*_WRITTEN, "--"))

ALL = tuple(
    dict.fromkeys(
        (
            *_QUOTING,
            *(sign for sign, _ in TYPED),
            *(spelled for spellings in (*TEMPLATE, *WORDS_TOO) for spelled in spellings),
            *TRACKED,
            *_BACKWARDS,
            *_WRITTEN,
        )
    )
)


def _finder() -> re2.Set:
    options = re2.Options()
    options.literal = True
    options.encoding = re2.Options.Encoding.LATIN1  # octets
    made = re2.Set.SearchSet(options)
    for sign in ALL:
        made.Add(sign)
    made.Compile()
    return made


_FINDER = _finder()


def signs_in(source: str) -> frozenset[str]:
    """Return the signs in a source in lower case."""
    found = _FINDER.Match(source.encode("utf-8", "surrogatepass"))
    return frozenset(map(ALL.__getitem__, found or ()))


_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that the parser closes by itself, or that have no content: left open they do not nest.
_FLAT = frozenset(
    "p li dt dd td th tr thead tbody tfoot option br img hr input meta link wbr area base col source track param".split()  # noqa: SIM905
)
_FORMATTING = frozenset("a b big code em font i nobr s small strike strong tt u".split())  # noqa: SIM905
# By their first letters: that halves the time.
_BLOCK = re.compile(
    r"<(?=/?(?:p(?:re)?|d(?:iv|[ltd]|etails|ialog)|b(?:r|lockquote|ody|utton)|t(?:r|able)|l(?:i|egend)|h(?:[1-6]|r|eader)|[uo]l"
    r"|s(?:ection|ummary)|a(?:rticle|ddress|side)|f(?:ooter|orm|ieldset|igure|igcaption)|c(?:enter|aption)|m(?:ain|enu|arquee)|nav|option)\b)",
    re.I,
)
_CELL = re.compile(r"<(?=/?(?:t[dh]|rt)\b)", re.I)
_BREAK, _SPACE, _OWN_BREAK = "\n", "\t", "\f"
"""White space for the edge of a block, for the edge of a cell, and for a line's end of the source. All other is a space."""
_EDGE = re.compile(r"[\n\t](?<=[^\W_][\n\t])[\n\t]*(?=[^\W_])")
"""An edge between two characters of what may be one word: a style can put one block beside another, as that of a
large first letter does."""
_LONGEST_WORD = 60
# Quoting as mail programs mark it: the element around the quoted text ...
_AROUND = (
    ".gmail_quote,.gmail_extra blockquote,blockquote[type=cite],.yahoo_quoted,.protonmail_quote,"
    "[name=messageReplySection],#mail-editor-reference-message-container,.tutanota_quote,.zmail_extra"
)
# ... or the element that begins it; everything after it is quoted.
_BEGINS = "#divRplyFwdMsg,#appendonsend,.OutlookMessageHeader,.moz-cite-prefix,.moz-forward-container,#isForwardContent"
_IN_TAGS = dict.fromkeys(NO_CONTROLS, "\u200b")
"""An invisible character is a letter in the name of a tag: a program shows what is within ``<style\\x07>``."""
_CONTROLS = bytes(NO_CONTROLS)
_QUOTE_BEGINS = "\ue0f0"  # private use: marks the beginning of the quotation in the text


@dataclass(slots=True)
class Markup:
    """One HTML text, read. ``hidden``: text that readers do not see; ``unshown``: text that only some programs show;
    ``quoting``: the name of the quoting element found."""

    text: str = ""
    quoted: str = ""
    hidden: str = ""
    preheader: str = ""  # hidden text before all other, which programs show in the list of messages
    unshown: list[str] = field(default_factory=list)
    rejoined: str = ""  # what may be other words: without what stands within them, and over the edges of elements
    alts: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    quoting: str = ""
    images: int = 0
    pixels: int = 0
    tables: int = 0
    source: str = ""  # in lower case
    signs: frozenset[str] = frozenset()  # those of its source


def read_markup(html: str, meter: Meter) -> Markup:
    """Read one HTML text. Raises TooComplex if there are too many tags, too deep ones, or a style sheet or page apart
    from it."""
    octets = html.encode("utf-8", "surrogatepass")
    if len(octets.translate(None, _CONTROLS)) != len(octets):
        html = html.translate(_IN_TAGS)
        octets = html.encode("utf-8", "surrogatepass")
    tables = _count_tables(html, meter)
    source = html.lower()
    # of octets, since Python parts a text at spaces that are letters in HTML
    if "<pre" in source:
        lines = html.replace(_SPACE, " ").replace(_BREAK, _OWN_BREAK)
    else:
        lines = b" ".join(octets.split()).decode("utf-8", "surrogatepass")
    tree = LexborHTMLParser(_CELL.sub(f"{_SPACE}<", _BLOCK.sub(f"{_BREAK}<", lines.replace(_QUOTE_BEGINS, " "))))
    signs = signs_in(source)
    refuse_embedded_pages(tree)
    aside = unshown_texts(html, source, signs, tree)
    sheets = sheets_of(tree) if "<style" in source or "<link" in source else ()
    tree.strip_tags(_NOT_TEXT, recursive=True)
    instead = _cut_out(tree.css(_INSTEAD)) if _SUPERSEDED.search(source) else ""
    out = Markup(source=source, signs=signs, tables=tables, unshown=aside)
    body = tree.body
    if body is None:
        return out
    for image in tree.css("img"):
        attributes = image.attributes
        out.images += 1
        out.pixels += _is_pixel(attributes)
        alt = attributes.get("alt")
        if alt and not alt.isspace():
            out.alts.append(alt[:500])
    unseen, first = take_unseen(tree, html, source, sheets, meter)
    out.hidden, out.preheader = collapsed("\n".join((instead, *unseen))), " ".join(unseen[0].split()) if first else ""
    out.quoting = next((sign for sign in _QUOTING if sign in signs), "")
    if out.quoting:
        for node in tree.css(_BEGINS):
            node.insert_before(f"\n{_QUOTE_BEGINS}\n")
        out.quoted = _cut_out(tree.css(_AROUND))
    out.links = [a.attributes.get("href") or "" for a in tree.css("a[href]")]
    whole = body.text(separator="")
    if "&#" in html:
        whole = whole.translate(NO_CONTROLS)
    out.text, out.rejoined = collapsed(whole), _words_over_edges(without_unseen(whole))
    if turned := reversed_text(out.text, marked=not signs.isdisjoint(_BACKWARDS)):
        out.unshown.append(turned)
    if _INSERTED.search(source) or _PICTURED.search(source):
        out.rejoined = f"{_without_inserts(tree, body, meter)}\n{out.rejoined}".strip()
    head, begins, tail = out.text.partition(_QUOTE_BEGINS)
    if begins:
        out.text, out.quoted = head, f"{tail}\n{out.quoted}".replace(_QUOTE_BEGINS, "")
    return out


def collapsed(text: str) -> str:
    """Return text with white space as it is shown: runs are one space, at most one empty line."""
    text = text.replace("\r", "").replace(_OWN_BREAK, "\n").replace("\t", " ").replace("\xa0", " ")
    for run, shown in (("  ", " "), (" \n", "\n"), ("\n ", "\n"), ("\n\n\n", "\n\n")):
        while run in text:  # each round halves a run: many times faster than a pattern
            text = text.replace(run, shown)
    return text.strip()


def _words_over_edges(text: str) -> str:
    """Return words that stand over the edges of elements, one a line."""
    found: list[str] = []
    row: list[str] = []  # words one behind the other
    last = -1
    for edge in _EDGE.finditer(text):
        start, end = edge.span()
        if not _may_join(text[start - 1], text[end]):
            continue
        before = text[max(0, start - _LONGEST_WORD) : start].split()[-1]
        behind = text[end : end + _LONGEST_WORD].split()[0]
        row = [*(row[1 - _STEPS :] if start - len(before) == last else [before]), behind]
        found += dict.fromkeys("".join(row[-n:]) for n in (2, 3, _STEPS))
        last = end
    return "\n".join(found)


def _may_join(before: str, behind: str) -> bool:
    """Return whether two characters may stand in one word. A capital after a small letter begins another."""
    return before.isalnum() and behind.isalnum() and not (before.islower() and behind.isupper())


# The end of an element between two characters of a word. Patterns that begin with plain characters are found many times
# faster: so it looks back from there.
_INSERTED = re.compile(
    r"</(?<=[^\W_]</|;</)[a-z][\w:-]{0,30}\s{0,5}>"
    r"(?:</?(?:[abiqsu]|em|font|span|strong|small|wbr)\b[^<>]{0,300}>|<!--[^<>]{0,300}-->){0,9}(?:[^\W_]|&)"
)
_PICTURED = re.compile(r"<img\b(?:(?<=[^\W_]<img)|[^<>]*+>(?=[^\W_]))")
"""A picture beside a character, as a large first letter may be one."""
_INLINE = "span,i,b,u,em,a,font,strong,small,big,sub,sup,s,tt,code,label,ins,del,mark,q,abbr,cite,kbd,var,samp,bdi"
_LONGEST_INSERT = 60
_STEPS = 12


def _without_inserts(tree: LexborHTMLParser, body: LexborNode, meter: Meter) -> str:
    """Return the text without what stands within its words, and with the texts of pictures there; "" if there is
    none. Whatever style hides what is within, programs that know it show the rest as words. It changes the tree."""
    found = False
    for image in tree.css("img[alt]"):
        alt = (image.attributes.get("alt") or "")[:_LONGEST_WORD]
        if alt and (_may_join(_neighbour(image, -1), alt[0]) or _may_join(alt[-1], _neighbour(image, 0))):
            found = True
            image.insert_before(alt)
    for n, node in enumerate(tree.css(_INLINE)):
        if not n % 256:
            meter.look_at_the_clock()
        if _is_short(node) and _neighbour(node, -1).isalnum() and _neighbour(node, 0).isalnum():
            found = True
            for child in list(node.iter(include_text=True)):
                child.decompose()
    return collapsed(body.text(separator="")) if found else ""


def _is_short(node: LexborNode) -> bool:
    """Return whether an element has a short text, at most two elements deep: then it costs little to look at each of
    thousands."""
    length = 0
    for child in islice(node.iter(include_text=True), _STEPS):
        for inner in [child] if child.tag == "-text" else islice(child.iter(include_text=True), _STEPS):
            length += len(inner.text_content or "") if inner.tag == "-text" else _LONGEST_INSERT
    return 0 < length <= _LONGEST_INSERT


def _neighbour(node: LexborNode, at: int) -> str:
    """Return the character before (-1) or after (0) an element, "" if none is near."""
    steps = _STEPS
    while steps > 0:
        steps -= 1
        other = node.prev if at else node.next
        if other is None:
            other = node.parent
        else:
            while steps > 0 and (inner := other.last_child if at else other.child) is not None:
                steps, other = steps - 1, inner
        if other is None:
            break
        if other.tag == "-text" and (text := other.text_content):
            return text[at]
        node = other
    return ""


def _count_tables(html: str, meter: Meter) -> int:
    """Count tags and their depth before a tree is built, and return the number of tables. Raises TooComplex."""
    bounds = meter.bounds
    if html.count("<") <= min(bounds.tags, bounds.tag_depth):
        return html.count("<table") + html.count("<TABLE")
    tags = _TAG.findall(html)
    if len(tags) > bounds.tags:
        raise TooComplex(Phrase("its HTML has more than {n} tags", n=bounds.tags))
    meter.look_at_the_clock()
    if len(tags) > bounds.tag_depth:
        deep, loose = 0, 0
        for closing, spelled in tags:
            name = spelled.lower()
            if name in _FLAT:
                continue
            if name in _FORMATTING:
                loose = max(0, loose - 1) if closing else loose + 1
            else:
                deep = max(0, deep - 1) if closing else deep + 1
            if deep > bounds.tag_depth or loose > 5 * bounds.tag_depth:
                raise TooComplex(Phrase("its HTML is nested deeper than {n}", n=bounds.tag_depth))
    return sum(1 for closing, name in tags if not closing and name in ("table", "TABLE"))


def _is_pixel(attributes: dict[str, str | None]) -> bool:
    width, height = attributes.get("width"), attributes.get("height")
    style = (attributes.get("style") or "").replace(" ", "")
    tiny = ("0", "1", "0px", "1px")
    return (width in tiny and height in tiny) or ("width:1px" in style and "height:1px" in style)


def _cut_out(nodes: list[LexborNode]) -> str:
    """Remove nodes from the tree, and return their text. Children go before their parents, which free them."""
    texts: list[str] = []
    for node in reversed({node.mem_id: node for node in nodes}.values()):
        texts.append(node.text(separator=""))
        node.decompose()
    return collapsed("\n".join(reversed(texts)))


_MOST = 60_000  # characters of each kind
_TEXT_ATTRIBUTES = ("title", "aria-label", "placeholder", "value", "label", "alt")
_HAVE_TEXT = "[title],[aria-label],[placeholder],[value],[label],area[alt],input[alt]"
_DRAWN = "svg,math,object,noframes,rp,title"
_NOT_TEXT = ["head", "style", "script", "template", "title", "rp"]
"""Elements whose content browsers do not show as text, or not there."""
_INSTEAD = "audio,datalist,dialog:not([open]),iframe,meter,noembed,noframes,object,progress,svg,video,math"
"""Elements whose words only some programs show: those that do not know them, or that draw them."""
_SUPERSEDED = re.compile("<(?:audio|datalist|dialog|iframe|meter|noembed|noframes|object|progress|svg|video|math)")
_QUOTED = r""""(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?"""
_STRINGS = re.compile(rf"(?:(?:{_QUOTED})\s*+)+", re.S)
_NO_WORDS = re.compile(
    rf"""/\*.*?(?:\*/|\Z)|url\(\s*+(?:{_QUOTED}|[^"')]*+)[^)]*+\)?|(?<![\w-])font(?:-family)?\s*:(?:[^;{{}}"']|{_QUOTED})*+|\[[^\[\]"']*+(?:{_QUOTED})[^\]]{{0,40}}\]|({_QUOTED})""",
    re.S | re.I,
)
"""Comments, addresses, fonts and selectors of a style sheet; or a string (1) elsewhere."""
_OF_ATTRIBUTE = re.compile(r"\battr\(\s*+([a-z][\w-]{0,60})", re.I)
_OF_COUNTER = re.compile(r"@counter-style[^{}]{0,100}\{([^{}]*)")
_RAW = "style,script"
_STYLED = ("style", "class", "id")
_SHOWS_RAW = re2.compile(
    r"(?:^|[\s,>+~{};/|])(?:[*\[:&]|style|script)[^{}]*\{(?:(?:[^{}]|\{[^{}]*\})*(?:[;{]|\{[^{}]*\}))?\s*(?:display|all)\s*:\s*[^n\s]"
).search
"""It finds a rule that may show a style sheet or script as text: for every element, for an attribute or for these."""
_NO_RULE = re.compile(
    r"""/\*.*?(?:\*/|\Z)|\\["']|"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?|<!--|-->|\*?\[(?:class|id|style)[^\]]*+\]""",
    re.S,
)
"""Comments, strings and escapes, and selectors of an attribute of _STYLED: a sheet with one is shown in any case, and
many mailings have rules for ``*[class=x]``."""
_TEMPLATE = re.compile(r"<template\b", re.I)
_APART = re.compile(r"<(?=/?(?:p|div|br|tr|t[dh]|li|h[1-6]|table|center|v:|w:|o:))", re.I)
_OVERRIDES = ("\u202e", "\u202d")


def unshown_texts(html: str, source: str, signs: frozenset[str], tree: LexborHTMLParser) -> list[str]:
    """Return texts that only some programs show, or only on request. ``source``: ``html`` in lower case; ``signs``: its
    signs; ``tree``: its complete tree."""
    found: list[str] = []
    for node in tree.css(_HAVE_TEXT)[:2_000]:
        attributes = node.attributes
        image = node.tag == "img"
        found += [v[:500] for name in _TEXT_ATTRIBUTES if not (image and name == "alt") and (v := attributes.get(name))]
    left = 4 * _MOST  # they may nest, and inner ones would be read again
    for node in tree.css(_DRAWN):
        apart = [node.text(separator=sign)[:_MOST] for sign in (" ", "")]
        found += apart  # words, and words that tags split
        left -= len(apart[0]) + 100
        if left < 0:
            break
    raw = tree.css(_RAW) if "<style" in source or "<script" in source else []
    sheets = "\n".join(node.text() for node in raw if node.tag == "style")
    rules = _plain_rules(sheets)
    if any(name in node.attributes for node in raw for name in _STYLED) or _SHOWS_RAW(rules):
        found += [node.text() for node in raw]
    if "<!--[if" in source:
        found.append(_plain_text("\n".join(_outlook_texts(html))))
    if not signs.isdisjoint(_WRITTEN) or any(name in rules for name in ("content", *_WRITTEN)):
        found += _OF_COUNTER.findall(rules)
        found += _sheet_texts(
            tree, "\n".join((sheets, *(node.attributes.get("style") or "" for node in tree.css(_WRITES))))
        )
    return [text for text in found if text and not text.isspace()]


def _plain_rules(sheets: str) -> str:
    """Return style sheets in lower case, without comments, strings and escapes."""
    rules = _NO_RULE.sub(" ", sheets)
    return unescaped(rules).lower() if "\\" in rules else rules.lower()


def _sheet_texts(tree: LexborHTMLParser, sheets: str) -> Iterator[str]:
    """Yield what style sheets may write: their strings, each with those right after it, and the attributes that they
    name."""
    said = _NO_WORDS.sub(lambda found: found[1] or " ", sheets)
    for run in _STRINGS.findall(said):
        strings = [unescaped(one[1:].rstrip(one[0])) for one in re.findall(_QUOTED, run)]
        yield from (sign.join(strings) for sign in ("", " ")[: len(strings)])  # one text, or several
    if "attr" in (plain := unescaped(_STRINGS.sub(" ", said)).lower()):
        names = list(dict.fromkeys(_OF_ATTRIBUTE.findall(plain)))[:20]
        for node in tree.css(",".join(f"[{name}]" for name in names))[:2_000] if names else ():
            values = [value[:500] for name in names if (value := node.attributes.get(name))]
            yield from (sign.join(values) for sign in ("", " ")[: len(values)])


def reversed_text(text: str, *, marked: bool = False) -> str:
    """Return the text reversed, if characters or markup (``marked``) reverse some of it (CVE-2021-42574); else ""."""
    return text[:_MOST][::-1] if marked or any(sign in text for sign in _OVERRIDES) else ""


def _outlook_texts(html: str) -> list[str]:
    """Return the texts of conditional comments: only Outlook on Windows shows them."""
    found: list[str] = []
    at = 0
    while (begin := html.find("<!--[if", at)) >= 0:
        end = html.find("<![endif]", begin)
        if end < 0:
            break
        inner = html[begin:end].partition("]>")[2]
        if not inner.lstrip().startswith("<!"):  # else every program shows it
            found.append(inner)
        at = end + 9
    return found


def _plain_text(html: str) -> str:
    body = LexborHTMLParser(_TEMPLATE.sub("<div", _APART.sub("\n<", html))).body
    return body.text(separator="").strip() if body is not None else ""
