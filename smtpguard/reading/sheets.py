"""Style sheets of an HTML mail: the rules that hold on a large screen, and the elements that their selectors choose.

Style sheets are read as browsers do where mail uses CSS: comments, strings, rules within conditions and within each
other, signs too many. A condition that is not known is taken to hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Set

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from smtpguard.locale.phrase import Phrase
from smtpguard.reading.request import Meter, TooComplex

_LONGEST_SHEET = 60_000
"""The most characters of a style sheet that are read."""
_LONGEST_SELECTOR = 500
"""The most characters of a selector. A longer one chooses nothing."""
_SCREEN = 1_000
"""The width in pixels of the screen for which style sheets are read."""
ROOT = 16.0
"""The pixels of an em on that screen."""
COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.S)
_STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_WITHIN = r"\s*([^{};@]{0,300})\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}"
_ON_SCREENS = re.compile(rf"@(media|supports)\b{_WITHIN}|@(?:layer|container|scope)\b{_WITHIN}", re.I)
_EITHER = re.compile(r",|\bor\b")
_ELSEWHERE = re.compile(r"dark|-ms-|portrait|coarse|monochrome|forced-colors|reduced-motion|hover\s*:\s*none")
"""Conditions of other programs, of telephones, and of settings that few people have."""
_FEATURE = re.compile(
    r"(min|max)-(?:device-)?width\s*:\s*(\d+\.?\d*)\s*(px|em|rem)?|width\s*([<>]=?)\s*(\d+\.?\d*)\s*(px|em|rem)?"
)
_AT_RULE = re.compile(r"@[^{};@]+\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_STATEMENT = re.compile(r"@[^{};]{0,500};")
_BRACKET = re.compile(r"([{}])")
_NO_SELECTOR = ";"
"""A text that is no selector, so that it chooses no element."""
_OPAQUE = re.compile(r"\\(?:[\da-fA-F]{1,6}\s?|.)|\"[^\"]*\"|'[^']*'|\[(?:\"[^\"]*\"|'[^']*'|[^\]\"'])*\]", re.S)
"""Escapes, strings and attribute selectors: signs within them are no combinators."""
_NTH = re.compile(r"\(\s*(?:odd|even|[+-]?\d*n?)\s*(?:[+-]\s*\d+\s*)?\)", re.I)
_JOINT = re.compile(r"([(,])\s*[>+~]?\s*|\s*(\))|\s*([>+~])\s*|\s+")
"""A bracket, a comma or a combinator."""
_COUNTS = re.compile(r":(?:nth-|[a-z]+-of-type)", re.I)
"""Pseudo-classes for which lexbor goes through all siblings of each element."""
_SEARCHES = re.compile(r":has\b|:[\w-]*\\", re.I)
"""Pseudo-classes that test other elements against a selector. An escape may spell any name."""
_SEARCH = 3  # a search takes at least three times as long as a count
_MOST_LOOKS = 200_000_000
"""The most looks at elements for one step of a selector. They take a fifth of a second, for which a reading in a
thread stops all others."""
_ELEMENT = re.compile(r"(?<![\w.#:\[=-])[a-zA-Z]")
_EMBEDDED = r"(?:d\W*a\W*t\W*a|[cm]\W*i\W*d)\W*:"
_LINKS_EMBEDDED = re.compile(rf"\W*{_EMBEDDED}", re.I)
_IMPORTS_EMBEDDED = re.compile(rf"@import\W*(?:url\W*)?{_EMBEDDED}", re.I)
"""An import of a style sheet from the message itself (RFC 2397, RFC 2392). A program drops white space in a URL."""
_EMBEDDED_PAGE = re.compile(r"\W*d\W*a\W*t\W*a\W*:(?!\W*image\b)", re.I)
_KEPT_APART = Phrase("a part of its page, such as a style sheet, is kept apart from it")


def refuse_embedded_pages(tree: LexborHTMLParser) -> None:
    """Raise TooComplex if a page stands in an attribute, where it is not read, or in a shadow tree. A shadow tree
    decides what else is shown, and in which order (HTML section 4.12.3)."""
    pages = tree.css("iframe[src],frame[src],embed[src],object[data]")
    links = (node.attributes.get(name) or "" for node in pages for name in ("src", "data"))
    if tree.css_first("iframe[srcdoc],template[shadowrootmode]") or any(map(_EMBEDDED_PAGE.match, links)):
        raise TooComplex(_KEPT_APART)


def sheets_of(tree: LexborHTMLParser) -> list[str]:
    """Return the style sheets for large screens. Raises TooComplex if one stands in a link, where it is not read."""
    styles = tree.css("style")
    links = any(
        _LINKS_EMBEDDED.match(node.attributes.get("href") or "") for node in tree.css("link[rel*=stylesheet i]")
    )
    if links or any(map(_imports_embedded, styles)):
        raise TooComplex(_KEPT_APART)
    found = []
    for node in styles[:20]:
        given = node.attributes
        kind, media = given.get("type") or "text/css", given.get("media") or ""
        if kind.strip().lower() == "text/css" and any(map(_is_for_screens, _EITHER.split(media.lower()))):
            found.append(node.text()[:_LONGEST_SHEET])
    return found


def _imports_embedded(style: LexborNode) -> bool:
    sheet = style.text()
    if "@" not in sheet:
        return False
    texts = (sheet, COMMENT.sub("", sheet))  # a string may look like a comment's beginning
    return any(_IMPORTS_EMBEDDED.search(unescaped(text)) for text in texts)


def rules_of(sheet: str) -> Iterator[tuple[str, str]]:
    """Return the rules of a style sheet in their order: pairs of a selector and its declarations."""
    sheet = _STRING.sub('""', COMMENT.sub("", sheet)).replace("<!--", "").replace("-->", "")
    sheet += "}" * (sheet.count("{") - sheet.count("}"))  # the end closes what is open
    if "@" in sheet:
        for _ in range(3):  # they may nest
            sheet = _ON_SCREENS.sub(_inner_rules, sheet)
        sheet = _STATEMENT.sub("", _AT_RULE.sub("", sheet))
    return _blocks(sheet)


def _blocks(sheet: str) -> Iterator[tuple[str, str]]:
    """Yield each selector with its declarations. The selector of a nested rule includes the one around it. A sign too
    many becomes part of the next selector, which then chooses nothing."""
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


def specificity(rule: tuple[str, str]) -> tuple[int, int, int]:
    """Return about the specificity of a rule's selector: the numbers of its ids, classes and elements (Selectors
    section 17)."""
    selector = rule[0]
    return selector.count("#"), sum(map(selector.count, ".[:")), len(_ELEMENT.findall(selector))


def _inner_rules(found: re.Match[str]) -> str:
    """Return the rules within a condition that holds on a large screen, "" for another condition."""
    if not found[1]:
        return found[5] or ""
    return found[3] if any(map(_is_for_screens, _EITHER.split(found[2].lower()))) else ""


def _is_for_screens(query: str) -> bool:
    """Return whether a media query holds on a large screen with light colours."""
    kinds = query.partition("(")[0].split()
    elsewhere = any(kind not in ("all", "screen", "only", "not", "and", "selector") for kind in kinds)
    elsewhere = elsewhere or _ELSEWHERE.search(query) is not None
    return ("not" in kinds) == (elsewhere or any(map(_is_off, _FEATURE.findall(query))))


def _is_off(width: tuple[str, ...]) -> bool:
    """Return whether a large screen is outside a bound of the width."""
    bound, value, unit, sign, number, measure = width
    pixels = float(value or number) * (ROOT if (unit or measure) in ("em", "rem") else 1)
    return pixels < _SCREEN if bound == "max" or sign.startswith("<") else pixels > _SCREEN


_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?|\\(.)")


def select(tree: LexborHTMLParser, selector: str, all_looks: Callable[[], int], meter: Meter) -> list[LexborNode]:
    """Return the elements that a selector chooses. ``all_looks``: returns the result of ``count_looks``.

    Each step of the selector is taken for all elements at once: lexbor tries every way to take them, for ``x * * * *
    p`` in nested elements for hours. Raises TooComplex.
    """
    found: list[LexborNode] = []
    for n, (sign, compound, looks) in enumerate(_steps(selector)):
        if looks > meter.bounds.looks or (looks and looks * all_looks() > _MOST_LOOKS):
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


def count_looks(tree: LexborHTMLParser) -> int:
    """Return how many elements are looked at if every element looks at its siblings, or at its ancestors, which count
    twice: few in a table of a thousand rows."""
    depth: dict[int, int] = {}
    beside: Counter[int] = Counter()
    for node in tree.css("*"):  # each comes after its parent
        around = node.parent.mem_id if node.parent is not None else 0
        depth[node.mem_id] = depth.get(around, 0) + 1
        beside[around] += 1
    return 2 * sum(depth.values()) + sum(n * n for n in beside.values())


def _steps(selector: str) -> Iterator[tuple[str, str, int]]:
    """Yield each step of a selector: its combinator, its compound selector, and how often that looks at others for
    each element."""
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
    """Return whether an element has one of ``before`` where this combinator looks (Selectors section 15). ``known``:
    the answers so far, for elements on the way."""
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
    """Return the parent of an element, or for ``+`` and ``~`` the element before it."""
    if sign not in ("+", "~"):
        return node.parent
    at = node.prev
    while at is not None and not at.is_element_node:
        at = at.prev
    return at


def unescaped(text: str) -> str:
    """Undo the escapes of a style sheet (CSS Syntax section 4.3.7)."""
    return _ESCAPE.sub(lambda m: _character(int(m[1], 16)) if m[1] else m[2], text)


def _character(number: int) -> str:
    return chr(number) if 32 <= number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
