"""The colours of style sheets, in red, green and blue of the screen, as far as they tell whether a text is seen on them."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from functools import lru_cache

Colour = tuple[int, int, int]
CLEAR: Colour = (-1, -1, -1)
"""Transparent, as the colour of a text; as a background, a picture."""
UNKNOWN: Colour = (-2, -2, -2)
"""A colour that is not worked out here: no proof that a text is seen."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
LINK: Colour = (0, 0, 238)

_NEAR = 24.0
"""The distance of 255 in green below which two colours look the same. Of red and blue a person sees less."""
_FAINT = 0.09
"""The opacity below which black on white looks white."""
_FUNCTION = re.compile(r"(?<![\w-])(rgba?|hsla?|hwb|lab|lch|oklab|oklch|color|color-mix|light-dark)\(")
_OF_COLOURS = ("color-mix", "light-dark")
_LONGEST = 300
_AMOUNT = r"([+-]?(?:\d*\.)?\d+(?:e[+-]?\d{1,3})?|none(?![%a-z]))(%|deg|turn|rad|grad)?"
_WITH_COMMAS = re.compile(r"\s*" + r"\s*,\s*".join(3 * [_AMOUNT]) + rf"\s*(?:,\s*{_AMOUNT}\s*)?")
_WITH_SPACES = re.compile(r"\s*" + r"(?:\s+|(?<=%))".join(3 * [_AMOUNT]) + rf"\s*(?:/\s*{_AMOUNT}\s*)?")
_SPACE = re.compile(r"\s*(srgb|srgb-linear|display-p3|a98-rgb|prophoto-rgb|rec2020)\s+")
_MIXING = re.compile(r"\s*in\s+(?:srgb|srgb-linear|lab|oklab|display-p3|xyz(?:-d50|-d65)?)\s*")
_PART = re.compile(r"(?:(\d+\.?\d*)%\s+)?(.*?)(?:\s+(\d+\.?\d*)%)?", re.S)
_HUE = {"hsl": 0, "hwb": 0, "lch": 2, "oklch": 2}
"""The place of the angle among the three numbers."""
_HEX = re.compile(r"#([0-9a-f]+)")
_NO_DIGIT = re.compile("[^0-9a-f]")
_SINGLE = re.compile(r"#[0-9a-f]+|[\w-]+")
_BARE = re.compile(r"[0-9a-f]{6}|[0-9a-f]{3}")  # as in attributes
_WORD = re.compile(r"(?<![\w-])[a-z]+(?![\w-])")
_TURNS = {"": 1 / 360, "deg": 1 / 360, "turn": 1.0, "rad": 0.159155, "grad": 1 / 400, "%": 1.0}
_WHOLE = {"lab": (100, 125, 125), "lch": (100, 150, 360), "oklab": (1, 0.4, 0.4), "oklch": (1, 0.4, 360)}  # at 100 %
_FROM_XYZ = (
    (3.1338561, -1.6168667, -0.4906146),
    (-0.9787684, 1.9161415, 0.0334540),
    (0.0719453, -0.2289914, 1.4052427),
)
_FROM_LMS = (
    (4.0767417, -3.3077116, 0.2309699),
    (-1.2684380, 2.6097574, -0.3413194),
    (-0.0041961, -0.7034186, 1.7076147),
)
_NAMES = """
aliceblue f0f8ff antiquewhite faebd7 aqua 00ffff aquamarine 7fffd4 azure f0ffff beige f5f5dc bisque ffe4c4 black 000000 blanchedalmond ffebcd
blue 0000ff blueviolet 8a2be2 brown a52a2a burlywood deb887 cadetblue 5f9ea0 chartreuse 7fff00 chocolate d2691e coral ff7f50 cornflowerblue
6495ed cornsilk fff8dc crimson dc143c cyan 00ffff darkblue 00008b darkcyan 008b8b darkgoldenrod b8860b darkgray a9a9a9 darkgreen 006400
darkgrey a9a9a9 darkkhaki bdb76b darkmagenta 8b008b darkolivegreen 556b2f darkorange ff8c00 darkorchid 9932cc darkred 8b0000 darksalmon e9967a
darkseagreen 8fbc8f darkslateblue 483d8b darkslategray 2f4f4f darkslategrey 2f4f4f darkturquoise 00ced1 darkviolet 9400d3 deeppink ff1493
deepskyblue 00bfff dimgray 696969 dimgrey 696969 dodgerblue 1e90ff firebrick b22222 floralwhite fffaf0 forestgreen 228b22 fuchsia ff00ff
gainsboro dcdcdc ghostwhite f8f8ff gold ffd700 goldenrod daa520 gray 808080 green 008000 greenyellow adff2f grey 808080 honeydew f0fff0
hotpink ff69b4 indianred cd5c5c indigo 4b0082 ivory fffff0 khaki f0e68c lavender e6e6fa lavenderblush fff0f5 lawngreen 7cfc00 lemonchiffon
fffacd lightblue add8e6 lightcoral f08080 lightcyan e0ffff lightgoldenrodyellow fafad2 lightgray d3d3d3 lightgreen 90ee90 lightgrey d3d3d3
lightpink ffb6c1 lightsalmon ffa07a lightseagreen 20b2aa lightskyblue 87cefa lightslategray 778899 lightslategrey 778899 lightsteelblue b0c4de
lightyellow ffffe0 lime 00ff00 limegreen 32cd32 linen faf0e6 magenta ff00ff maroon 800000 mediumaquamarine 66cdaa mediumblue 0000cd
mediumorchid ba55d3 mediumpurple 9370db mediumseagreen 3cb371 mediumslateblue 7b68ee mediumspringgreen 00fa9a mediumturquoise 48d1cc
mediumvioletred c71585 midnightblue 191970 mintcream f5fffa mistyrose ffe4e1 moccasin ffe4b5 navajowhite ffdead navy 000080 oldlace fdf5e6
olive 808000 olivedrab 6b8e23 orange ffa500 orangered ff4500 orchid da70d6 palegoldenrod eee8aa palegreen 98fb98 paleturquoise afeeee
palevioletred db7093 papayawhip ffefd5 peachpuff ffdab9 peru cd853f pink ffc0cb plum dda0dd powderblue b0e0e6 purple 800080 rebeccapurple
663399 red ff0000 rosybrown bc8f8f royalblue 4169e1 saddlebrown 8b4513 salmon fa8072 sandybrown f4a460 seagreen 2e8b57 seashell fff5ee sienna
a0522d silver c0c0c0 skyblue 87ceeb slateblue 6a5acd slategray 708090 slategrey 708090 snow fffafa springgreen 00ff7f steelblue 4682b4 tan
d2b48c teal 008080 thistle d8bfd8 tomato ff6347 turquoise 40e0d0 violet ee82ee wheat f5deb3 white ffffff whitesmoke f5f5f5 yellow ffff00
yellowgreen 9acd32 mark ffff00 marktext 000000 graytext 808080 window ffffff windowtext 000000 canvas ffffff canvastext 000000 field ffffff fieldtext 000000 highlighttext ffffff
buttonface efefef buttontext 000000 linktext 0000ee
""".split()  # noqa: SIM905


@lru_cache(maxsize=512)
def colour_of(value: str) -> Colour | None:
    """Return the colour that a whole value in lower case is; None if browsers drop it."""
    if "(" not in value:
        return (UNKNOWN if value in _OF_SYSTEMS else colour_in(value)) if _SINGLE.fullmatch(value) else None
    function = _FUNCTION.match(value)
    if function is None:
        return UNKNOWN
    given, rest = _arguments(value[function.end() :])
    return _computed(function[1].rstrip("a"), given) if not rest.strip() else None


def colour_in(value: str) -> Colour | None:
    """Return the first colour in a value in lower case; CLEAR for a transparent one; None for none."""
    function, digits = _FUNCTION.search(value), _HEX.search(value)
    if function is not None and (digits is None or function.start() < digits.start()):
        return _computed(function[1].rstrip("a"), _arguments(value[function.end() :])[0])
    if digits is not None:
        return _hex(digits[1])
    for word in _WORD.findall(value):
        if word == "transparent":
            return CLEAR
        if word in _NAMED:
            return _NAMED[word]
    return _hex(value) if _BARE.fullmatch(value) else None


@lru_cache(maxsize=512)
def of_attribute(value: str) -> str:
    """Return the colour of an attribute as a value of a style sheet. Whatever the attribute says, it is a colour
    (HTML section 2.3.6)."""
    value = value.strip(" \t\n\f\r").lower()
    if value == "transparent":
        return "inherit"  # the one that is none
    if value in _NAMED or re.fullmatch("#[0-9a-f]{3}", value):
        return value
    digits = _NO_DIGIT.sub("0", value.removeprefix("#")[:128]) or "0"
    size = -(-len(digits) // 3)
    digits = digits.ljust(3 * size, "0")
    parts = [digits[n : n + size][-8:] for n in (0, size, 2 * size)]
    while len(parts[0]) > 2 and all(part[0] == "0" for part in parts):
        parts = [part[1:] for part in parts]
    return "#" + "".join(part[:2].rjust(2, "0") for part in parts)


def near(one: Colour, other: Colour) -> bool:
    """Return whether text of the one colour is no longer seen on the other, or that is unknown."""
    if other[0] < 0:
        return other == UNKNOWN
    return (
        abs(one[1] - other[1]) < _NEAR and abs(one[0] - other[0]) < _NEAR / 0.8 and abs(one[2] - other[2]) < _NEAR / 0.6
    )


def _hex(digits: str) -> Colour | None:
    if len(digits) in (3, 4):
        digits = "".join(2 * d for d in digits)
    if len(digits) not in (6, 8):
        return None
    if len(digits) == 8 and int(digits[6:8], 16) < _FAINT * 255:
        return CLEAR
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


_NAMED: dict[str, Colour] = {n: c for n, d in zip(_NAMES[::2], _NAMES[1::2], strict=True) if (c := _hex(d)) is not None}


_OF_SYSTEMS = frozenset(
    """accentcolor accentcolortext activetext visitedtext buttonborder highlight selecteditem selecteditemtext activeborder activecaption
    appworkspace background buttonhighlight buttonshadow captiontext inactiveborder inactivecaption inactivecaptiontext infobackground infotext
    menu menutext scrollbar threeddarkshadow threedface threedhighlight threedlightshadow threedshadow windowframe -webkit-link
    -webkit-activelink -webkit-text -webkit-focus-ring-color""".split()  # noqa: SIM905
)


def _arguments(text: str) -> tuple[list[str], str]:
    """Return the arguments of a function, up to its closing bracket, and what follows it. No arguments if they are
    too long."""
    parts, depth = [""], 0
    for n, sign in enumerate(text):
        if n > _LONGEST:
            return [], ""
        if sign == ")" and not depth:
            return parts, text[n + 1 :]
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts, ""


def _computed(name: str, given: Sequence[str]) -> Colour | None:
    """Return the colour that a function gives (CSS Color 4 and 5); None if it is malformed."""
    text = ",".join(given)
    if (
        not given
        or "currentcolor" in text
        or (name not in _OF_COLOURS and ("(" in text or "from" in text or "xyz" in text))
    ):
        return UNKNOWN
    if name == "light-dark":
        both = [colour_of(one.strip()) for one in given]
        if UNKNOWN in both:
            return UNKNOWN
        return both[0] if len(both) == 2 and None not in both else None
    if name == "color-mix":
        return _mixed(given)
    linear = "linear" in text
    if name == "color":
        if (space := _SPACE.match(text)) is None:
            return None
        text = text[space.end() :]
    found = (_WITH_COMMAS if "," in text else _WITH_SPACES).fullmatch(text)
    if found is None or not _well_formed(name, found):
        return None
    amounts = zip(found.groups()[::2], found.groups()[1::2], strict=True)
    parts = [(0.0 if n == "none" else max(-999.0, min(999.0, float(n))), unit or "") for n, unit in amounts if n]
    if len(parts) > 3 and parts[3][0] * (0.01 if parts[3][1] else 1) < _FAINT:
        return CLEAR
    (x, xu), (y, _), (z, zu) = parts[:3]
    if name == "rgb":
        return _limited([n * (2.55 if unit else 1) / 255 for n, unit in parts[:3]])
    if name == "hsl":
        light, strength = (max(0.0, min(n, 100.0)) / 100 for n in (z, y))
        return _limited(colorsys.hls_to_rgb(x * _TURNS[xu] % 1, light, strength))
    if name == "hwb":
        y, z = max(0.0, y), max(0.0, z)
        white, black = (n / max(100, y + z) for n in (y, z))
        return _limited([c * (1 - white - black) + white for c in colorsys.hls_to_rgb(x * _TURNS[xu] % 1, 0.5, 1)])
    if name == "color":
        channels = [n * (0.01 if unit else 1) for n, unit in parts[:3]]
        return _limited([_gamma(c) for c in channels] if linear else channels)
    x, y, z = (n * (whole / 100 if unit == "%" else 1) for (n, unit), whole in zip(parts, _WHOLE[name], strict=False))
    x = max(0.0, min(x, float(_WHOLE[name][0])))
    if name.endswith("lch"):
        y = max(0.0, y)
        turn = complex(0, 6.283185 * z * _TURNS.get(zu, 1 / 360))
        chroma = y * 2.718281828**turn
        y, z = chroma.real, chroma.imag
    return _of_lab(name, x, y, z)


def _of_lab(name: str, x: float, y: float, z: float) -> Colour:
    if name.startswith("ok"):
        cones = (
            x + 0.3963378 * y + 0.2158038 * z,
            x - 0.1055613 * y - 0.0638542 * z,
            x - 0.0894842 * y - 1.2914855 * z,
        )
        light, matrix = [c**3 for c in cones], _FROM_LMS
    else:
        middle = (x + 16) / 116
        steps = ((middle + y / 500, 0.96422), (middle, 1.0), (middle - z / 200, 0.82521))
        light = [white * (t**3 if t > 6 / 29 else (t - 16 / 116) * 0.128419) for t, white in steps]
        matrix = _FROM_XYZ
    return _limited([_gamma(sum(m * n for m, n in zip(row, light, strict=True))) for row in matrix])


def _gamma(light: float) -> float:
    return 12.92 * light if light <= 0.0031308 else 1.055 * min(light, 1.0) ** (1 / 2.4) - 0.055


def _well_formed(name: str, found: re.Match[str]) -> bool:
    """Return whether browsers take these numbers with these units."""
    units, hue = found.groups()[1::2], _HUE.get(name)
    if any(unit not in (None, "%") if n != hue else unit == "%" for n, unit in enumerate(units)):
        return False
    if found.re is _WITH_SPACES:
        return True
    return "none" not in found[0] and (
        (name == "rgb" and len(set(units[:3])) == 1) or (name == "hsl" and units[1] == units[2] == "%")
    )


def _mixed(given: Sequence[str]) -> Colour | None:
    """Return the colour in the middle between two, or where a percentage says."""
    if len(given) == 2:  # new programs take it without the space in which to mix
        return UNKNOWN
    if len(given) != 3 or not given[0].strip().startswith("in"):
        return None
    parts = [found for one in given[1:] if (found := _PART.fullmatch(one.strip())) is not None]
    colours = [colour_of(part[2]) for part in parts]
    if len(colours) < 2 or None in colours:
        return None
    one, other = (colour or UNKNOWN for colour in colours)
    if min(*one, *other) < 0 or not _MIXING.fullmatch(given[0]):
        return one if one == other == CLEAR else UNKNOWN
    first, second = (float(n) if (n := part[1] or part[3]) else None for part in parts)
    first = first if first is not None else 100 - second if second is not None else 50.0
    second = second if second is not None else 100 - first
    if not (0 <= first <= 100 and 0 <= second <= 100 and first + second >= 100):
        return UNKNOWN  # none, or partly transparent
    share = first / (first + second)
    return _limited([(a * share + b * (1 - share)) / 255 for a, b in zip(one, other, strict=True)])


def _limited(channels: Sequence[float]) -> Colour:
    red, green, blue = (int(max(0.0, min(1.0, c)) * 255 + 0.5) for c in channels)
    return red, green, blue
