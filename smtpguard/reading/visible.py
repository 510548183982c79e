"""Find text of an HTML tree that readers do not see: by size, colour, place or style, inline, in attributes or in a
style sheet.

Sizes and colours are inherited and can be reset, so each text is judged by the nearest elements that set them. A
background picture hides nothing here, since its colours are unknown. What only Outlook hides (``mso-hide``) counts as
hidden. Style sheets are those for a large screen, read as browsers do where mail uses CSS: comments, strings, rules
within conditions and within each other, signs too many. What is not known is taken to hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from smtpguard.locale.phrase import Phrase
from smtpguard.reading.colours import (
    BLACK,
    CLEAR,
    LINK,
    UNKNOWN,
    WHITE,
    Colour,
    colour_in,
    colour_of,
    near,
    of_attribute,
)
from smtpguard.reading.request import Meter, TooComplex

_LONGEST_SHEET = 60_000
_LONGEST_SELECTOR = 500
_SCREEN = 1_000
"""The width in pixels of the screen for which style sheets are read."""
_ROOT = 16.0  # pixels of an em there
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.S)
_STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_WITHIN = r"\s*([^{};@]{0,300})\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}"
_ON_SCREENS = re.compile(rf"@(media|supports)\b{_WITHIN}|@(?:layer|container|scope)\b{_WITHIN}", re.I)
_EITHER = re.compile(r",|\bor\b")
_ELSEWHERE = re.compile(r"dark|-ms-|portrait|coarse|monochrome|forced-colors|reduced-motion|hover\s*:\s*none")
"""Conditions of other programs, of telephones, and of what few people set."""
_FEATURE = re.compile(
    r"(min|max)-(?:device-)?width\s*:\s*(\d+\.?\d*)\s*(px|em|rem)?|width\s*([<>]=?)\s*(\d+\.?\d*)\s*(px|em|rem)?"
)
_AT_RULE = re.compile(r"@[^{};@]+\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_STATEMENT = re.compile(r"@[^{};]{0,500};")
_BRACKET = re.compile(r"([{}])")
_NO_SELECTOR = ";"
_OPAQUE = re.compile(r"\\(?:[\da-fA-F]{1,6}\s?|.)|\"[^\"]*\"|'[^']*'|\[(?:\"[^\"]*\"|'[^']*'|[^\]\"'])*\]", re.S)
_NTH = re.compile(r"\(\s*(?:odd|even|[+-]?\d*n?)\s*(?:[+-]\s*\d+\s*)?\)", re.I)
_JOINT = re.compile(r"([(,])\s*[>+~]?\s*|\s*(\))|\s*([>+~])\s*|\s+")
"""A bracket, a comma or a combinator."""
_COUNTS = re.compile(r":(?:nth-|[a-z]+-of-type)", re.I)
"""For each element lexbor goes through those beside it."""
_SEARCHES = re.compile(r":has\b|:[\w-]*\\", re.I)
"""It tests others against a selector. An escape may spell any name."""
_SEARCH = 3  # times what counting takes, at the least
_MOST_LOOKS = 200_000_000
"""Of a step, where each element looks at all: a fifth of a second, for which whoever reads in a thread stops the others."""
_ELEMENT = re.compile(r"(?<![\w.#:\[=-])[a-zA-Z]")
_WITHIN = r"(?:d\W*a\W*t\W*a|[cm]\W*i\W*d)\W*:"
_LINKS_WITHIN = re.compile(rf"\W*{_WITHIN}", re.I)
_IMPORTS_WITHIN = re.compile(rf"@import\W*(?:url\W*)?{_WITHIN}", re.I)
"""A style sheet of the message itself (RFC 2397, RFC 2392). A program drops white space in a URL."""


_PAGES_WITHIN = re.compile(r"\W*d\W*a\W*t\W*a\W*:(?!\W*image\b)", re.I)
_APART_FROM_IT = Phrase("a part of its page, such as a style sheet, is kept apart from it")


def refuse_pages_within(tree: LexborHTMLParser) -> None:
    """Raises TooComplex if a page stands in an attribute, where it is not read; or in a shadow tree, which decides what else
    is shown, and in which order (HTML section 4.12.3)."""
    pages = tree.css("iframe[src],frame[src],embed[src],object[data]")
    links = (node.attributes.get(name) or "" for node in pages for name in ("src", "data"))
    if tree.css_first("iframe[srcdoc],template[shadowrootmode]") or any(map(_PAGES_WITHIN.match, links)):
        raise TooComplex(_APART_FROM_IT)


def sheets_of(tree: LexborHTMLParser) -> list[str]:
    """The style sheets for large screens. Raises TooComplex if one stands in a link, where it is not read."""
    styles = tree.css("style")
    links = any(_LINKS_WITHIN.match(node.attributes.get("href") or "") for node in tree.css("link[rel*=stylesheet i]"))
    if links or any(map(_imports_within, styles)):
        raise TooComplex(_APART_FROM_IT)
    found = []
    for node in styles[:20]:
        given = node.attributes
        kind, media = given.get("type") or "text/css", given.get("media") or ""
        if kind.strip().lower() == "text/css" and any(map(_is_for_screens, _EITHER.split(media.lower()))):
            found.append(node.text()[:_LONGEST_SHEET])
    return found


def _imports_within(style: LexborNode) -> bool:
    sheet = style.text()
    if "@" not in sheet:
        return False
    texts = (sheet, _COMMENT.sub("", sheet))  # a string may look like a comment's beginning
    return any(_IMPORTS_WITHIN.search(unescaped(text)) for text in texts)


def rules_of(sheet: str) -> Iterator[tuple[str, str]]:
    """Selectors and declarations, in their order."""
    sheet = _STRING.sub('""', _COMMENT.sub("", sheet)).replace("<!--", "").replace("-->", "")
    sheet += "}" * (sheet.count("{") - sheet.count("}"))  # the end closes what is open
    if "@" in sheet:
        for _ in range(3):  # they may nest
            sheet = _ON_SCREENS.sub(_opened, sheet)
        sheet = _STATEMENT.sub("", _AT_RULE.sub("", sheet))
    return _blocks(sheet)


def _blocks(sheet: str) -> Iterator[tuple[str, str]]:
    """Selectors and declarations, those of nested rules with what is around them. A sign too many is part of the
    selector behind it, which is none then."""
    around: list[str] = []
    stray = False
    pieces = _BRACKET.split(sheet)
    for text, sign in zip(pieces[::2], pieces[1::2], strict=False):
        if sign == "}":
            if around:
                yield around.pop(), text
            else:
                stray = True
            continue
        own, ends, selector = text.rpartition(";")
        if around:
            yield around[-1], own
            selector = ",".join(
                selector.replace("&", outer) if "&" in selector else f"{outer} {selector}"
                for outer in around[-1].split(",")
            )
        elif stray or ends:
            selector = _NO_SELECTOR
        stray = False
        around.append(selector if len(selector) <= _LONGEST_SELECTOR else _NO_SELECTOR)


def _weight(rule: tuple[str, str]) -> tuple[int, int, int]:
    """The specificity of a selector, nearly: its ids, classes and elements (Selectors section 17)."""
    selector = rule[0]
    return selector.count("#"), sum(map(selector.count, ".[:")), len(_ELEMENT.findall(selector))


def _opened(found: re.Match[str]) -> str:
    """The rules within a condition, if they are for a large screen."""
    if not found[1]:
        return found[5] or ""
    return found[3] if any(map(_is_for_screens, _EITHER.split(found[2].lower()))) else ""


def _is_for_screens(query: str) -> bool:
    """Whether a media query holds on a large screen with light colours. What is not known is taken to hold."""
    kinds = query.partition("(")[0].split()
    elsewhere = any(kind not in ("all", "screen", "only", "not", "and", "selector") for kind in kinds)
    elsewhere = elsewhere or _ELSEWHERE.search(query) is not None
    return ("not" in kinds) == (elsewhere or any(map(_is_off, _FEATURE.findall(query))))


def _is_off(width: tuple[str, ...]) -> bool:
    """Whether a large screen is outside a bound of the width."""
    bound, value, unit, sign, number, measure = width
    pixels = float(value or number) * (_ROOT if (unit or measure) in ("em", "rem") else 1)
    return pixels < _SCREEN if bound == "max" or sign.startswith("<") else pixels > _SCREEN


SMALLEST = 3.5
"""In pixels: smaller text is unreadable."""
_SMALLER = 0.6  # of a parent's size: a few nested ones are too small
_RULES = 600
_LONGEST_RULE = 4_000
_FAR = 120.0  # pixels out of place: used to hide text, not for layout
_BEYOND = 2_000.0
_SIGNS = re.compile(
    r"hidden|popover|display|visibility|opacity|font|colou?r|clip|position|indent|margin|transform|mso-hide|height|width|zoom|filter"
    r"|spacing|background|padding|mask|blend|offset|translate|scale|rotate|security|-size|\btext=|style=[^>]{0,2000}\\"
)
_SHOWS = re.compile(r"(?<![\w-])(?:display|visibility|opacity|max-height|overflow)\s*:")
"""Properties by which a later rule may show what an earlier one hides."""
_SETS = "[style],[hidden],[popover],[bgcolor],[background],font[color],body[text]"
_CELLS = frozenset(("body", "table", "tbody", "thead", "tfoot", "tr", "td", "th"))
_DISPLAYS = frozenset({"block", "none", "contents", "flex", "grid", "flow-root", "list-item", "inherit", "initial", "unset", "revert"})  # fmt: skip
_PLACED = frozenset({"absolute", "fixed", "relative", "sticky"})
_DYNAMIC = re.compile(r":{1,2}(?:hover|active|focus|visited|before|after|first-line|first-letter|selection)", re.I)
_AT_REST = re.compile(r":not\(\s*:(?:hover|active|focus|visited)[a-z-]*\s*\)", re.I)
_LINKED = re.compile(r":(?:any-)?link\b", re.I)
_APART = re.compile(r",(?![^()]{0,200}\))")
_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?|\\(.)")
_NUMBER = re.compile(r"(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*(px|pt|pc|em|rem|ex|ch|%|mm|cm|in|vw|vh|q)?")
_VARIABLE = re.compile(r"var\(\s*(--[\w\-]{1,60})\s*(?:,([^()]{0,100}(?:\([^()]{0,100}\)[^()]{0,40})?))?\)")
_CUSTOM = re.compile(r"(--[\w\-]{1,60})\s*:\s*([^;{}]{1,100})")
_OPACITY = re.compile(r"opacity\(([^()]*)\)")
_FILTERED = re.compile(r"contrast|brightness|invert|blur")
_TRANSFORM = re.compile(r"([a-z\d]+)\(([^()]{0,80})\)")
_SAME = {
    "block-size": "height", "inline-size": "width", "max-block-size": "max-height", "max-inline-size": "max-width",
    "margin-inline-start": "margin-left", "inset-block-start": "top", "inset-inline-start": "left",
    "padding-inline-start": "padding-left", "-webkit-clip-path": "clip-path", "-webkit-mask": "mask",
    "-webkit-mask-image": "mask-image", "-webkit-transform": "transform",
}  # fmt: skip # several names of a property to one, for text from left to right
_GONE = ("none", "table-column", "table-column-group")
_SIDES = ("left", "right", "top", "bottom", "inset", "inset-inline", "inset-block")
_MOVES = ("text-indent", "margin-left", "margin-top", "margin-right", "margin", "margin-inline", "padding-left", "padding-top", "padding",
          "padding-inline", "translate")  # fmt: skip
_OVERFLOWS = ("overflow", "overflow-x", "overflow-y")
_COVERS = ("clip-path", "mask", "mask-image", "mix-blend-mode", "offset", "offset-path", "-webkit-text-security")
"""Properties by which text may disappear, whatever their value: no mailing needs them for words."""
_HARMLESS = frozenset((None, "none", "normal", "initial", "unset", "inherit"))
_KEYWORDS = frozenset(("auto", "none", "normal", "visible", "hidden", "collapse", "inherit", "initial", "unset", "revert", "currentcolor"))  # fmt: skip
_NUMERIC = ("visibility", "opacity", "height", "font-size")
_PIXELS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 3.78, "cm": 37.8, "in": 96.0, "q": 0.945, "rem": _ROOT, "ex": 8.0,
           "ch": 8.0, "em": _ROOT, "vw": 6.0, "vh": 8.0}  # fmt: skip
_WORDS = {"xx-small": 9.0, "x-small": 10.0, "small": 13.0, "medium": 16.0, "large": 18.0, "x-large": 24.0,
          "xx-large": 32.0}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Style:
    """The style that one element sets. ``size``: pixels, or, with ``relative``, times its parent's. ``layer``: elements
    put behind within it stay in front of what is around it; ``behind``: it is put behind what is around it; ``aside``:
    it is moved elsewhere, perhaps onto a picture."""

    hides: bool = False
    visible: bool | None = None
    size: float | None = None
    relative: bool = False
    colour: Colour | None = None
    back: Colour | None = None
    layer: bool = False
    behind: bool = False
    aside: bool = False


@dataclass(slots=True)
class _State:
    """How text directly in an element is shown. ``covers``: elements put behind it are behind a background.

    Not frozen: to make one would take thrice the time, and each element makes one."""

    hidden: bool = False
    visible: bool = True
    size: float = _ROOT
    colour: Colour = BLACK
    back: Colour = WHITE
    covers: bool = False

    @property
    def seen(self) -> bool:
        return self.visible and not (
            self.hidden or self.size < SMALLEST or self.colour in (CLEAR, UNKNOWN) or near(self.colour, self.back)
        )

    def within(self, look: _Style) -> _State:
        size = self.size if look.size is None else look.size * self.size if look.relative else look.size
        return _State(
            self.hidden or look.hides or (look.behind and self.covers),
            self.visible if look.visible is None else look.visible,
            size,
            self.colour if look.colour is None else look.colour,
            self.back if look.back is None else look.back,
            not look.layer and (self.covers or (look.back is not None and look.back != CLEAR)),
        )


_PLAIN = _Style()


def take_unseen(
    tree: LexborHTMLParser, html: str, source: str, sheets: Iterable[str], meter: Meter
) -> tuple[list[str], bool]:
    """Remove invisible text and links from ``tree``, and return the texts, and whether the page begins with one.
    ``source``: the beginning of ``html`` in lower case; ``sheets``: its style sheets.

    Raises TooComplex if style sheets have too many rules.
    """
    if len(html) <= len(source) and not _SIGNS.search(source):
        return [], False
    rules = _rules(sheets, meter)
    custom = dict(_CUSTOM.findall(html)) if "var(" in html else {}
    inline = [(node, _attributes(node, custom)) for node in tree.css(_SETS)]
    said = [look for _, look in inline] + [_look(_filled(text, custom)) for _, text in rules]
    by_colour = _may_meet(said)
    behind = any(look.behind for look in said)
    small = any(look.size is not None and look.size < (_SMALLER if look.relative else SMALLEST) for look in said)
    if not (by_colour or small or behind or any(look.hides or look.visible is False for look in said)):
        return [], False
    if small and "<font" in html:  # its size is that of its text again
        inline = [(node, _attributes(node, custom)) for node in tree.css(f"{_SETS},font[size]")]
    texts: dict[int, str] = {}
    reach = cache(partial(_reach, tree))
    for selector, text in rules:
        look = _look(_filled(text, custom))
        by_place = behind and (look.behind or look.layer or look.back)
        coloured = by_colour and (look.colour or look.back or look.aside)
        if look.hides or _SHOWS.search(text) or (small and look.size is not None) or coloured or by_place:
            for node in _chosen(tree, selector, reach, meter):
                texts[node.mem_id] = f"{texts.get(node.mem_id, '')};{text}"
    own = {node.mem_id: look for node, look in inline}
    every = tree.css("*") if texts else (node for node, _ in inline)
    nodes = {id: node for node in every if (id := node.mem_id) in own or id in texts}
    looks = {
        id: own[id] if id in own and id not in texts else _attributes(node, custom, texts.get(id, ""))
        for id, node in nodes.items()
    }
    doomed = _doomed(nodes, looks, meter)
    found = [text for node in doomed if (text := node.text(separator="")).strip()]
    begins = bool(found) and _begins_within(tree, {node.mem_id for node in doomed})
    for node in reversed(doomed):
        node.decompose()
    return found, begins


def _doomed(nodes: Mapping[int, LexborNode], looks: Mapping[int, _Style], meter: Meter) -> list[LexborNode]:
    states: dict[int, _State] = {}
    doomed: list[LexborNode] = []
    for n, (id, node) in enumerate(nodes.items()):
        if not n % 256:
            meter.look_at_the_clock()
        around = _around(node, states)
        look = _in_place(node, looks[id])
        whole = node.tag in ("body", "html")
        state = states[id] = around.within(replace(look, hides=False) if whole and look.hides else look)
        if whole:  # their background is behind everything
            state.covers = False
        if not state.seen and around.seen:
            doomed += _unseen(node, state, looks)
    return doomed


def _begins_within(tree: LexborHTMLParser, ids: Set[int]) -> bool:
    """Whether the first words of the page stand within one of these nodes."""
    every = tree.body.traverse(include_text=True) if tree.body is not None else ()
    node = next((n for n in every if n.tag == "-text" and (n.text_content or "").strip()), None)
    while node is not None and node.mem_id not in ids:
        node = node.parent
    return node is not None


def _around(node: LexborNode, states: Mapping[int, _State]) -> _State:
    parent = node.parent
    while parent is not None:
        state = states.get(parent.mem_id)
        if state is not None:
            return state
        parent = parent.parent
    return _State()


def _unseen(node: LexborNode, state: _State, looks: Mapping[int, _Style]) -> list[LexborNode]:
    """The invisible nodes of an element: all of it, or its texts and links unless an inner element resets them."""
    if state.hidden:
        return [node]
    found: list[LexborNode] = []
    within = [(node, state)]
    while within:
        element, how = within.pop()
        for child in element.iter(include_text=True):
            if child.tag == "-text":
                found.append(child)
                continue
            inner = how.within(_in_place(child, looks.get(child.mem_id, _PLAIN)))
            if inner.seen:
                continue
            if inner.hidden or (child.tag == "a" and _childless(child)):
                found.append(child)
            else:
                within.append((child, inner))
    if node.tag == "a" and _childless(node):
        return [node]
    return found


def _in_place(node: LexborNode, look: _Style) -> _Style:
    """A link without a colour is blue; an element moved elsewhere may be on a picture beside it."""
    if node.tag == "a" and look.colour is None and "href" in node.attributes:
        look = replace(look, colour=LINK)
    beside = node.parent if look.aside and look.back is None else None
    if beside is not None and beside.css_first("img,video,picture,input[type=image]") is not None:
        look = replace(look, back=CLEAR)
    return look


def _childless(node: LexborNode) -> bool:
    return next(iter(node.iter()), None) is None


def _chosen(tree: LexborHTMLParser, selector: str, reach: Callable[[], int], meter: Meter) -> list[LexborNode]:
    """The elements that a selector chooses. Each of its steps is taken for all elements at once: lexbor tries every way
    to take them, for ``x * * * * p`` in nested elements for hours. Raises TooComplex."""
    found: list[LexborNode] = []
    for n, (sign, compound, looks) in enumerate(_steps(selector)):
        if looks > meter.bounds.looks or (looks and looks * reach() > _MOST_LOOKS):
            raise TooComplex(Phrase("its style sheets have selectors that are too complex"))
        before = {node.mem_id for node in found}
        known: dict[int, bool] = {}
        try:
            found = [node for node in tree.css(compound) if not n or _follows(node, sign, before, known)]
        except SelectolaxError:
            return []
        meter.look_at_the_clock()
        if not found:
            break
    return found


def _reach(tree: LexborHTMLParser) -> int:
    """How many elements all elements look at, if each looks at those beside it, or at those that it is in, which are dearer:
    few in a table of a thousand rows."""
    depth: dict[int, int] = {}
    beside: Counter[int] = Counter()
    for node in tree.css("*"):  # each after that it is in
        around = node.parent.mem_id if node.parent is not None else 0
        depth[node.mem_id] = depth.get(around, 0) + 1
        beside[around] += 1
    return 2 * sum(depth.values()) + sum(n * n for n in beside.values())


def _steps(selector: str) -> Iterator[tuple[str, str, int]]:
    """Each step's combinator, its compound selector, and how often that looks at others for each element."""
    plain = _NTH.sub(lambda m: "n" * len(m[0]), _OPAQUE.sub(lambda m: "\\" * len(m[0]), selector))
    sign, begin, depth, looks = "", 0, 0, 0
    for joint in [*_JOINT.finditer(plain), None]:
        if joint is not None and (bracket := joint[1] or joint[2]):
            depth += {"(": 1, ")": -1}.get(bracket, 0)
        elif joint is not None and depth > 0:
            looks += _SEARCH
        else:
            end = joint.start() if joint else len(plain)
            looks += len(_COUNTS.findall(plain, begin, end)) + _SEARCH * len(_SEARCHES.findall(plain, begin, end))
            yield sign, selector[begin:end], looks
            if joint:
                sign, begin, looks = joint[3] or "", joint.end(), 0


def _follows(node: LexborNode, sign: str, before: Set[int], known: dict[int, bool]) -> bool:
    """Whether an element has one of ``before`` where this combinator looks (Selectors section 15). ``known``: answers for
    it and for the elements on the way."""
    on_the_way: list[int] = []
    follows, at = False, node
    while (following := _before(at, sign)) is not None:
        on_the_way.append(at.mem_id)
        if (follows := known.get(at.mem_id, following.mem_id in before)) or at.mem_id in known or sign in (">", "+"):
            break
        at = following
    known |= dict.fromkeys(on_the_way, follows)
    return follows


def _before(node: LexborNode, sign: str) -> LexborNode | None:
    """The parent, or for ``+`` and ``~`` the element before it."""
    if sign not in ("+", "~"):
        return node.parent
    at = node.prev
    while at is not None and not at.is_element_node:
        at = at.prev
    return at


def _rules(sheets: Iterable[str], meter: Meter) -> list[tuple[str, str]]:
    """(selector, declarations) as far as they affect visibility."""
    found: list[tuple[str, str]] = []
    for sheet in sheets:
        for selectors, declarations in rules_of(sheet):
            text = declarations[:_LONGEST_RULE].strip().lower()
            if not _SIGNS.search(text) or ("var(" not in text and _look(text) == _PLAIN and not _SHOWS.search(text)):
                continue
            selectors = _LINKED.sub("[href]", _AT_REST.sub("", selectors)) if ":" in selectors else selectors
            for selector in _APART.split(selectors):
                if not _DYNAMIC.search(selector) and selector.strip():
                    found.append((selector.strip(), text))
        if len(found) > _RULES:
            raise TooComplex(Phrase("its style sheets have more than {n} rules", n=_RULES))
        meter.look_at_the_clock()
    return sorted(found, key=_weight)  # of equal weight the last counts


def _filled(text: str, custom: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda m: custom.get(m[1], m[2] or ""), text) if "var(" in text else text


def _attributes(node: LexborNode, custom: Mapping[str, str], sheet: str = "") -> _Style:
    """The style of an element: attributes first, then style sheets, then its own style."""
    given = node.attributes
    text = ""
    if len(given) > 1 or "style" not in given:
        if "hidden" in given or "popover" in given:
            text = "content-visibility:hidden;" if given.get("hidden") == "until-found" else "display:none;"
        tag = node.tag
        if tag in _CELLS:
            text += "background-image:url(x);" if given.get("background") else ""
            text += f"background-color:{of_attribute(value)};" if (value := given.get("bgcolor")) else ""
            text += f"color:{of_attribute(value)};" if tag == "body" and (value := given.get("text")) else ""
        elif tag == "font":
            text += f"color:{of_attribute(value)};" if (value := given.get("color")) else ""
            text += "font-size:medium;" if given.get("size") else ""  # even the least is read
    text = f"{text}{sheet};{given.get('style') or ''}" if text or sheet else given.get("style") or ""
    return _look(_filled(text.lower(), custom)[:4000])


@lru_cache(maxsize=8192)
def _look(text: str) -> _Style:
    """From declarations in lower case."""
    said = _declarations(text)
    if not said:
        return _PLAIN
    size, relative = _size(said)
    back = _background(said)
    colour = colour_of(said.get("color", ""))
    if (filled := said.get("-webkit-text-fill-color")) is not None:
        colour = colour_of(filled) or colour
    if "text" in said.get("background-clip", "") + said.get("-webkit-background-clip", ""):
        colour = None  # the text is filled with the background: it is visible
        back = None
    place, order = said.get("position", ""), said.get("z-index", "")
    placed = place in _PLACED and order not in ("", "auto")
    layer = placed or place in ("fixed", "sticky") or _makes_a_layer(said)
    aside = place in ("absolute", "fixed") or any(said.get(m, "").startswith("-") for m in ("margin-top", "top"))
    visible = {"hidden": False, "collapse": False, "visible": True}.get(said.get("visibility", ""))
    return _Style(_hides(said), visible, size, relative, colour, back, layer, placed and order.startswith("-"), aside)


def _makes_a_layer(said: Mapping[str, str]) -> bool:
    """CSS 2.2 appendix E and later: only those properties that are not themselves used to hide text."""
    if said.get("isolation") == "isolate" or said.get("transform", "none") != "none":
        return True
    return said.get("opacity", "1") not in ("1", "100%", "1.0") or said.get("filter", "none") != "none"


def unescaped(text: str) -> str:
    """With the escapes of a style sheet undone (CSS Syntax section 4.3.7)."""
    return _ESCAPE.sub(lambda m: _character(int(m[1], 16)) if m[1] else m[2], text)


def _character(number: int) -> str:
    return chr(number) if 32 <= number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"


def _declarations(text: str) -> dict[str, str]:
    if "/*" in text:
        text = _COMMENT.sub(" ", text)
    if "\\" in text:
        text = unescaped(text).lower()
    said: dict[str, str] = {}
    firm: set[str] = set()
    for declaration in text.split(";"):
        name, colon, value = declaration.partition(":")
        name = name.strip()
        name = _SAME.get(name, name)
        before, sign, firmly = value.rpartition("!")
        if sign and any(end in firmly for end in "\"')"):  # within a string or an address
            sign = ""
        if not colon or (name in firm and not sign) or (sign and firmly.strip() != "important"):
            continue
        value = (before if sign else value).strip()
        if (name in said or name == "color") and not _may_be(name, value):
            continue  # no value of it: the one before stays
        if sign:
            firm.add(name)
        said[name] = value
        if name == "font":
            said["font-size"] = said[name]
        if name == "background":
            said["background-color"] = said[name]
    return said


def _may_be(name: str, value: str) -> bool:
    """Whether it may be a value of this property."""
    if name == "display":
        return value in _DISPLAYS or value.startswith(("inline", "table", "-"))
    if name in ("color", "background-color"):
        return value in _KEYWORDS or colour_of(value) is not None
    return name not in _NUMERIC or value in _KEYWORDS or value in _WORDS or _NUMBER.search(value) is not None


def _size(said: Mapping[str, str]) -> tuple[float | None, bool]:
    value = said.get("font-size", "")
    if not value:
        return None, False
    numbers = [(float(n), unit) for n, unit in _NUMBER.findall(value)]
    if "font" in said and said["font"] == value:  # the size comes before "/" or the family; weights have no unit
        numbers = [(n, unit) for n, unit in numbers if unit or n == 0][:1]
    if not numbers:
        word = next((_WORDS[w] for w in value.split() if w in _WORDS), None)
        return (word, False) if word is not None else (None, False)
    if len(numbers) > 1 and "(" in value:
        least = "min(" in value or "clamp(" in value
        numbers.sort(key=lambda one: one[0] * (0.16 if one[1] == "%" else _PIXELS.get(one[1], 1.0)), reverse=not least)
    n, unit = numbers[0]
    if unit == "%":
        return n / 100, True
    if unit == "em":
        return n, True
    return n * _PIXELS[unit], False


def _background(said: Mapping[str, str]) -> Colour | None:
    value = said.get("background-color", "")
    picture = said.get("background-image", "") + value
    if "url(" in picture or "image-set(" in picture:
        return CLEAR  # above any colour
    of_several = "background" in said or "gradient(" in value
    found = colour_in(value.partition("gradient(")[0]) if of_several else colour_of(value)
    if found is None and "gradient(" in picture:
        found = colour_in(picture.partition("gradient(")[2])
    return None if found == CLEAR else found


def _may_meet(said: Iterable[_Style]) -> bool:
    """Whether the colour of a text may equal that of some background."""
    said = list(said)
    colours = {look.colour for look in said if look.colour} | {BLACK}
    if CLEAR in colours or UNKNOWN in colours:
        return True
    backs = {look.back for look in said if look.back} | {WHITE}
    return any(near(colour, back) for colour in colours for back in backs)


def _lengths(value: str) -> Iterator[tuple[float, str]]:
    """Pixels, or per cent unchanged."""
    for n, unit in _NUMBER.findall(value):
        yield float(n) * (1.0 if unit == "%" else _PIXELS.get(unit, 1.0)), unit


def _out(value: str) -> bool:
    """Whether it is moved so far that it is off the screen."""
    return any(n <= -_FAR or n >= _BEYOND if unit != "%" else n <= -90 or n >= 300 for n, unit in _lengths(value))


def _none(value: str, most: float = 1) -> bool:
    found = next(_lengths(value), None) if value else None
    return found is not None and 0 <= found[0] <= (0 if found[1] == "%" else most)


def _hides(said: Mapping[str, str]) -> bool:
    get = said.get
    display, place = get("display", ""), get("position")
    if display in _GONE or "(" in display or get("content-visibility") == "hidden" or get("mso-hide") == "all":
        return True
    shades = [said[name] for name in ("opacity", "zoom", "scale") if name in said]
    if any(map(_faint, shades + _OPACITY.findall(get("filter", "")))) or " " in get("rotate", ""):
        return True
    if "currentcolor" in get("background-color", "") or not _HARMLESS.issuperset(map(get, _COVERS)):
        return True
    if place == "fixed" and any(_off_the_window(said[name]) for name in _SIDES if name in said):
        return True
    moves = (*_SIDES, *_MOVES) if place in ("absolute", "relative") else _MOVES
    if any(_out(said[name]) for name in moves if name in said):
        return True
    if (spacing := get("letter-spacing")) and any(n <= -5 for n, _ in _lengths(spacing)):
        return True
    return _clipped(said) or _moved(get("transform", "")) or _FILTERED.search(get("filter", "")) is not None


def _off_the_window(value: str) -> bool:
    return any(n < -20 or n > (90 if unit == "%" else 600) for n, unit in _lengths(value))


def _faint(value: str) -> bool:
    return any(float(n) * (0.01 if unit == "%" else 1) < 0.06 for n, unit in _NUMBER.findall(value))


def _clipped(said: Mapping[str, str]) -> bool:
    if "rect" in said.get("clip", "") or _none(said.get("max-height", "")) or _none(said.get("max-width", "")):
        return True
    cut = any(said.get(name, "").startswith(("hidden", "clip", "auto", "scroll")) for name in _OVERFLOWS)
    return (cut or "contain" in said) and (
        any(_none(said.get(name, ""), 3) for name in ("height", "max-height", "width"))
        or _none(said.get("line-height", ""), 0)
    )


def _moved(transform: str) -> bool:
    for name, inside in _TRANSFORM.findall(transform):
        numbers = [n for n, _ in _lengths(inside)]
        if name.startswith("scale"):
            gone = any(abs(n) < 0.06 for n in numbers)
        elif name.startswith("skew"):
            gone = any(abs(n) > 60 or "deg" not in inside for n in numbers if n)
        elif name == "matrix" and len(numbers) == 6:
            a, b, c, d, x, y = numbers
            gone = abs(a * d - b * c) < 0.06 or _out(f"{x} {y}")
        else:
            gone = _out(inside) if name.startswith("translate") else name not in ("rotate", "rotatez", "perspective")
        if gone:
            return True
    return False
