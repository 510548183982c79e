"""Which attributes of a tag can change what a message shows: those that its style sheets mention, and inline
declarations.

Ids, classes and data-* that no style sheet of the message mentions change nothing, and tools generate new ones for each
copy. If it is not certain that a style sheet ignores them, all of them count.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

_STYLE = re.compile(r"<style\b(?:[^<>]*+>(.*?)(?:</style\s*+>|\Z))?", re.S | re.I)
_PRELUDE = re.compile(r"(?:\A|(?<=[{};]))([^{};]*+)\{(?=([^{}]*+))")
"""With the declarations that follow. It begins where another part ends, so that each part is read once."""
_NAME = re.compile(r"([.#])(-?[_a-z\u0080-\U0010ffff][\w-]*)", re.I)
_ATTRIBUTE = re.compile(r"\[\s*(?:[\w-]*\|)?([\w-]+)")
_UNCERTAIN = re.compile(
    r"<(?:textarea|xmp|plaintext|listing|noembed|noframes|iframe|script)\b|@import|\battr\s*\(|<style\b[^<]*\\",
    re.I,
)
"""Text that looks like tags; remote style sheets; attributes shown as text; escaped names."""
_SOURCE = re.compile(r"""(?<![\w-])src\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]*)""", re.I)
_LINK = re.compile(r"<link\b", re.I)
_REMOTE = re.compile(r"stylesheet", re.I)
_OF_PICTURES = re.compile(r"\bimg\b|[*\[]", re.I)
_SETS_SIZE = re.compile(r"(?<![\w-])(?:min-)?(?:width|height)\s*:", re.I)
_SIZE = re.compile(r"""(?<![\w-])(min-)?(width|height)["']?\s*[=:]\s*["']?\s*([^\s"';>]*)""", re.I)
_NOTHING = frozenset(("0", "1", "0px", "1px"))
_ENLARGES = re.compile(
    r"zoom|transform|padding|border(?!\s*[:=]\s*[\"']?(?:0|none))|background|content|srcset|scale", re.I
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
class Sheets:
    """For one HTML text. ``certain``: all its styles are known. ``names``: classes and ids in its style sheets, in
    lower case, each with a replacement; ``asked``: attributes that selectors name."""

    certain: bool = False
    names: dict[str, str] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    sizes_pictures: bool = False

    @classmethod
    def of(cls, source: str) -> Sheets:
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
                asked.update(name.lower() for name in _ATTRIBUTE.findall(prelude))
                for sign, name in _NAME.findall(prelude):
                    names.setdefault(f"{sign}{name.lower()}", f"{sign}{len(names)}")
        return cls(certain=True, names=names, asked=frozenset(asked), sizes_pictures=sizes)

    def digest(self, sheet: str) -> str:
        """The digest of a style element, independent of the names of its classes and ids."""
        if self.certain:
            sheet = _PRELUDE.sub(lambda prelude: _NAME.sub(self._renamed, prelude[0]), sheet)
        return hashlib.sha256(" ".join(sheet.split()).encode("utf-8", "replace")).hexdigest()

    def _renamed(self, found: re.Match[str]) -> str:
        if ("class" if found[1] == "." else "id") in self.asked:
            return found[0]
        return self.names.get(f"{found[1]}{found[2].lower()}", found[0])

    def attribute(self, key: str, value: str) -> str:
        """In normalized form; "" if it does not change what is shown."""
        if key == "style":
            return f"style={in_order(value)}" if value.strip(" ;") else ""
        if not self.certain or key in self.asked:
            return f"{key}={value}"
        if key in _OURS:
            sign = "." if key == "class" else "#"
            words = [one for one in value.lower().split() if f"{sign}{one}" in self.names or _QUOTES.match(one)]
            known = {self.names.get(f"{sign}{one}", one) for one in words}
            return f"{key}={' '.join(sorted(known))}" if known else ""
        return "" if key.startswith("data-") else f"{key}={value}"

    def is_point(self, attributes: str) -> bool:
        """Whether a picture is too small to be seen. ``attributes``: as in its tag."""
        said = _SOURCE.sub("", attributes)
        known = any(self.attribute(name.lower(), value.strip("\"'")) for name, value in _OURS_GIVEN.findall(said))
        if known or self.sizes_pictures or not self.certain or _ENLARGES.search(said):
            return False
        sizes = _SIZE.findall(said)
        both = {name.lower() for least, name, _ in sizes if not least} == {"width", "height"}
        return both and all(value.lower() in _NOTHING for *_, value in sizes)


NO_SHEETS = Sheets()
"""Every attribute counts."""


def in_order(style: str) -> str:
    """Inline declarations in a fixed order; those that may override each other stay in theirs."""
    if any(sign in style for sign in ("\\", "/*", "{")):
        return style
    said = []
    for declaration in filter(str.strip, style.split(";")):
        name, _, value = declaration.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name in ("", "all") or not value or any(value.count(sign) % 2 for sign in "\"'"):
            return style
        if value.count("(") != value.count(")"):
            return style
        said.append((name, value))
    return ";".join(f"{name}:{value}" for name, value in sorted(said, key=lambda one: _family(one[0])))


def _family(name: str) -> str:
    name = re.sub(r"\A-(?:webkit|moz|ms|o)-", "", name)
    return _TOGETHER.get(name, name.partition("-")[0])
