"""Style sheets of an HTML tree, as far as reading needs them: their rules for a large screen, one after the other.

CSS is read as browsers do where mail uses it: comments, strings, rules within conditions and within each other, signs
too many. What is not known is taken to hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser

_LONGEST_SHEET = 60_000
_LONGEST_SELECTOR = 500
_SCREEN = 1_000
"""The width in pixels of the screen for which they are read."""
_ROOT = 16.0  # pixels of an em there
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.S)
_STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_WITHIN = r"\s*([^{};@]{0,300})\{((?:[^{}]*\{[^{}]*\})*)[^{}]*\}"
_ON_SCREENS = re.compile(rf"@(media)\b{_WITHIN}|@(?:supports|layer)\b{_WITHIN}", re.I)
_FEATURE = re.compile(
    r"(min|max)-(?:device-)?width\s*:\s*(\d+\.?\d*)\s*(px|em|rem)?|width\s*([<>]=?)\s*(\d+\.?\d*)\s*(px|em|rem)?"
)
_AT_RULE = re.compile(r"@[^{};@]+\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_STATEMENT = re.compile(r"@[^{};]{0,500};")
_BRACKET = re.compile(r"([{}])")
_NO_SELECTOR = ";"
_ELEMENT = re.compile(r"(?<![\w.#:\[=-])[a-zA-Z]")


def sheets_of(tree: LexborHTMLParser) -> list[str]:
    """The style sheets for large screens."""
    found = []
    for node in tree.css("style")[:20]:
        given = node.attributes
        kind, media = given.get("type") or "text/css", given.get("media") or ""
        if kind.strip().lower() == "text/css" and any(map(_is_for_screens, media.lower().split(","))):
            found.append(node.text()[:_LONGEST_SHEET])
    return found


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


def weight(rule: tuple[str, str]) -> tuple[int, int, int]:
    """The specificity of a selector, nearly: its ids, classes and elements (Selectors section 17)."""
    selector = rule[0]
    return selector.count("#"), sum(map(selector.count, ".[:")), len(_ELEMENT.findall(selector))


def _opened(found: re.Match[str]) -> str:
    """The rules within a condition, if they are for a large screen."""
    if not found[1]:
        return found[5] or ""
    return found[3] if any(map(_is_for_screens, found[2].lower().split(","))) else ""


def _is_for_screens(query: str) -> bool:
    """Whether a media query holds on a large screen with light colours. What is not known is taken to hold."""
    kinds = query.partition("(")[0].split()
    elsewhere = any(kind not in ("all", "screen", "only", "not", "and") for kind in kinds) or "dark" in query
    return ("not" in kinds) == (elsewhere or any(map(_is_off, _FEATURE.findall(query))))


def _is_off(width: tuple[str, ...]) -> bool:
    """Whether a large screen is outside a bound of the width."""
    bound, value, unit, sign, number, measure = width
    pixels = float(value or number) * (_ROOT if (unit or measure) in ("em", "rem") else 1)
    return pixels < _SCREEN if bound == "max" or sign.startswith("<") else pixels > _SCREEN
