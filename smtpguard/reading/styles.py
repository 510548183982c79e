"""The style that an HTML element sets, from its attributes and declarations, as far as it decides whether text is
seen.

A background picture hides nothing here, since its colours are unknown. What only Outlook hides (``mso-hide``) counts
as hidden. A value that is not known is taken to hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from selectolax.lexbor import LexborNode

from smtpguard.reading.colours import (
    BLACK,
    CLEAR,
    UNKNOWN,
    WHITE,
    Colour,
    colour_in,
    colour_of,
    near,
    of_attribute,
)
from smtpguard.reading.sheets import COMMENT, ROOT, unescaped

_FAR = 120.0  # pixels to the left or above: a layout does not move text so far
_BEYOND = 2_000.0  # pixels to the right or below
_CELLS = frozenset(("body", "table", "tbody", "thead", "tfoot", "tr", "td", "th"))
_DISPLAYS = frozenset({"block", "none", "contents", "flex", "grid", "flow-root", "list-item", "inherit", "initial", "unset", "revert"})  # fmt: skip
_PLACED = frozenset({"absolute", "fixed", "relative", "sticky"})
_NUMBER = re.compile(r"(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*(px|pt|pc|em|rem|ex|ch|%|mm|cm|in|vw|vh|q)?")
_VARIABLE = re.compile(r"var\(\s*(--[\w\-]{1,60})\s*(?:,([^()]{0,100}(?:\([^()]{0,100}\)[^()]{0,40})?))?\)", re.I)
_OPACITY = re.compile(r"opacity\(([^()]*)\)")
_FILTERED = re.compile(r"contrast|brightness|invert|blur")
_TRANSFORM = re.compile(r"([a-z\d]+)\(([^()]{0,80})\)")
_SYNONYMS = {
    "block-size": "height", "inline-size": "width", "max-block-size": "max-height", "max-inline-size": "max-width",
    "margin-inline-start": "margin-left", "inset-block-start": "top", "inset-inline-start": "left",
    "padding-inline-start": "padding-left", "-webkit-clip-path": "clip-path", "-webkit-mask": "mask",
    "-webkit-mask-image": "mask-image", "-webkit-transform": "transform",
}  # fmt: skip # names of one property, for text from left to right
_GONE = ("none", "table-column", "table-column-group")
_SIDES = ("left", "right", "top", "bottom", "inset", "inset-inline", "inset-block")
_SHIFTS = ("text-indent", "margin-left", "margin-top", "margin-right", "margin", "margin-inline", "padding-left", "padding-top", "padding",
          "padding-inline", "translate")  # fmt: skip
_OVERFLOWS = ("overflow", "overflow-x", "overflow-y")
_COVERS = ("clip-path", "mask", "mask-image", "mix-blend-mode", "offset", "offset-path", "-webkit-text-security")
"""Properties by which text may disappear, whatever their value: no mailing needs them for words."""
_HARMLESS = frozenset((None, "none", "normal", "initial", "unset", "inherit"))
_KEYWORDS = frozenset(("auto", "none", "normal", "visible", "hidden", "collapse", "inherit", "initial", "unset", "revert", "currentcolor"))  # fmt: skip
_NUMERIC = ("visibility", "opacity", "height", "font-size")
_PIXELS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 3.78, "cm": 37.8, "in": 96.0, "q": 0.945, "rem": ROOT, "ex": 8.0,
           "ch": 8.0, "em": ROOT, "vw": 6.0, "vh": 8.0}  # fmt: skip
_SIZE_WORDS = {"xx-small": 9.0, "x-small": 10.0, "small": 13.0, "medium": 16.0, "large": 18.0, "x-large": 24.0,
          "xx-large": 32.0}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """A style that one element sets. ``size``: in pixels, or, with ``relative``, a factor of its parent's. ``layer``:
    elements that are put behind within it stay in front of what is around it. ``behind``: it is put behind what is
    around it. ``aside``: it is moved elsewhere, perhaps onto a picture."""

    hides: bool = False
    visible: bool | None = None
    size: float | None = None
    relative: bool = False
    colour: Colour | None = None
    back: Colour | None = None
    layer: bool = False
    behind: bool = False
    aside: bool = False


PLAIN = Style()


def with_variables(text: str, custom: Mapping[str, str]) -> str:
    """Replace the variables in declarations by their values. ``custom``: the value of each variable."""
    return _VARIABLE.sub(lambda m: custom.get(m[1], m[2] or ""), text) if "--" in text else text


def element_style(node: LexborNode, custom: Mapping[str, str], sheet: str = "") -> Style:
    """Return the style of an element: its attributes first, then ``sheet``, then its own style."""
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
    return style_of(with_variables(text, custom).lower()[:4000])


@lru_cache(maxsize=8192)
def style_of(text: str) -> Style:
    """Return the style that declarations in lower case set."""
    said = _declarations(text)
    if not said:
        return PLAIN
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
    return Style(_hides(said), visible, size, relative, colour, back, layer, placed and order.startswith("-"), aside)


def _makes_a_layer(said: Mapping[str, str]) -> bool:
    """Return whether declarations make a stacking context (CSS 2.2 appendix E and later). Properties that are
    themselves used to hide text are left out."""
    if said.get("isolation") == "isolate" or said.get("transform", "none") != "none":
        return True
    return said.get("opacity", "1") not in ("1", "100%", "1.0") or said.get("filter", "none") != "none"


def _declarations(text: str) -> dict[str, str]:
    """Return the value of each property, by precedence: the last value, or the last important one."""
    if "/*" in text:
        text = COMMENT.sub(" ", text)
    if "\\" in text:
        text = unescaped(text).lower()
    said: dict[str, str] = {}
    firm: set[str] = set()
    for declaration in text.split(";"):
        name, colon, value = declaration.partition(":")
        name = name.strip()
        name = _SYNONYMS.get(name, name)
        before, sign, firmly = value.rpartition("!")
        if sign and any(end in firmly for end in "\"')"):  # within a string or an address
            sign = ""
        if not colon or (name in firm and not sign) or (sign and firmly.strip() != "important"):
            continue
        value = (before if sign else value).strip()
        if (name in said or name == "color") and not _may_be_value(name, value):
            continue  # no value of it: the one before stays
        if sign:
            firm.add(name)
        said[name] = value
        if name == "font":
            said["font-size"] = said[name]
        if name == "background":
            said["background-color"] = said[name]
    return said


def _may_be_value(name: str, value: str) -> bool:
    """Return whether a text may be a value of this property."""
    if name == "display":
        return value in _DISPLAYS or value.startswith(("inline", "table", "-"))
    if name in ("color", "background-color"):
        return value in _KEYWORDS or colour_of(value) is not None
    return name not in _NUMERIC or value in _KEYWORDS or value in _SIZE_WORDS or _NUMBER.search(value) is not None


def _size(said: Mapping[str, str]) -> tuple[float | None, bool]:
    """Return the font size, and whether it is a factor of the parent's; None for none."""
    value = said.get("font-size", "")
    if not value:
        return None, False
    numbers = [(float(n), unit) for n, unit in _NUMBER.findall(value)]
    if "font" in said and said["font"] == value:  # the size comes before "/" or the family; weights have no unit
        numbers = [(n, unit) for n, unit in numbers if unit or n == 0][:1]
    if not numbers:
        word = next((_SIZE_WORDS[w] for w in value.split() if w in _SIZE_WORDS), None)
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
    """Return the colour of the background, None for none or a transparent one."""
    value = said.get("background-color", "")
    picture = said.get("background-image", "") + value
    if "url(" in picture or "image-set(" in picture:
        return CLEAR  # above any colour
    of_several = "background" in said or "gradient(" in value
    found = colour_in(value.partition("gradient(")[0]) if of_several else colour_of(value)
    if found is None and "gradient(" in picture:
        found = colour_in(picture.partition("gradient(")[2])
    return None if found == CLEAR else found


def may_blend(said: Iterable[Style]) -> bool:
    """Return whether the colour of a text may equal that of some background."""
    said = list(said)
    colours = {look.colour for look in said if look.colour} | {BLACK}
    if CLEAR in colours or UNKNOWN in colours:
        return True
    backs = {look.back for look in said if look.back} | {WHITE}
    return any(near(colour, back) for colour in colours for back in backs)


def _lengths(value: str) -> Iterator[tuple[float, str]]:
    """Yield each length in pixels, or its number of per cent, with the unit."""
    for n, unit in _NUMBER.findall(value):
        yield float(n) * (1.0 if unit == "%" else _PIXELS.get(unit, 1.0)), unit


def _is_off_screen(value: str) -> bool:
    """Return whether text is moved so far that it is off the screen."""
    return any(n <= -_FAR or n >= _BEYOND if unit != "%" else n <= -90 or n >= 300 for n, unit in _lengths(value))


def _is_nothing(value: str, most: float = 1) -> bool:
    """Return whether a length is between zero and ``most`` pixels, or zero per cent."""
    found = next(_lengths(value), None) if value else None
    return found is not None and 0 <= found[0] <= (0 if found[1] == "%" else most)


def _hides(said: Mapping[str, str]) -> bool:
    """Return whether declarations hide the text of an element."""
    get = said.get
    display, place = get("display", ""), get("position")
    if display in _GONE or "(" in display or get("content-visibility") == "hidden" or get("mso-hide") == "all":
        return True
    shades = [said[name] for name in ("opacity", "zoom", "scale") if name in said]
    if any(map(_is_faint, shades + _OPACITY.findall(get("filter", "")))) or " " in get("rotate", ""):
        return True
    if "currentcolor" in get("background-color", "") or not _HARMLESS.issuperset(map(get, _COVERS)):
        return True
    if place == "fixed" and any(_is_off_window(said[name]) for name in _SIDES if name in said):
        return True
    moves = (*_SIDES, *_SHIFTS) if place in ("absolute", "relative") else _SHIFTS
    if any(_is_off_screen(said[name]) for name in moves if name in said):
        return True
    if (spacing := get("letter-spacing")) and any(n <= -5 for n, _ in _lengths(spacing)):
        return True
    return _is_clipped(said) or _is_moved_away(get("transform", "")) or _FILTERED.search(get("filter", "")) is not None


def _is_off_window(value: str) -> bool:
    return any(n < -20 or n > (90 if unit == "%" else 600) for n, unit in _lengths(value))


def _is_faint(value: str) -> bool:
    return any(float(n) * (0.01 if unit == "%" else 1) < 0.06 for n, unit in _NUMBER.findall(value))


def _is_clipped(said: Mapping[str, str]) -> bool:
    if (
        "rect" in said.get("clip", "")
        or _is_nothing(said.get("max-height", ""))
        or _is_nothing(said.get("max-width", ""))
    ):
        return True
    cut = any(said.get(name, "").startswith(("hidden", "clip", "auto", "scroll")) for name in _OVERFLOWS)
    return (cut or "contain" in said) and (
        any(_is_nothing(said.get(name, ""), 3) for name in ("height", "max-height", "width"))
        or _is_nothing(said.get("line-height", ""), 0)
    )


def _is_moved_away(transform: str) -> bool:
    """Return whether a transform makes text too small to read or moves it off the screen."""
    for name, inside in _TRANSFORM.findall(transform):
        numbers = [n for n, _ in _lengths(inside)]
        if name.startswith("scale"):
            gone = any(abs(n) < 0.06 for n in numbers)
        elif name.startswith("skew"):
            gone = any(abs(n) > 60 or "deg" not in inside for n in numbers if n)
        elif name == "matrix" and len(numbers) == 6:
            a, b, c, d, x, y = numbers
            gone = abs(a * d - b * c) < 0.06 or _is_off_screen(f"{x} {y}")
        else:
            gone = (
                _is_off_screen(inside)
                if name.startswith("translate")
                else name not in ("rotate", "rotatez", "perspective")
            )
        if gone:
            return True
    return False
