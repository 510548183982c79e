"""Fold text so that spellings and disguises of a word compare equal: NFKC, lower case, and more.

Zero-width characters, soft hyphens and strokes through letters are removed. Boxed letters and small capitals become
plain letters. In a Latin word look-alike letters of other scripts become Latin, and digits that stand for letters
become letters. Spaced letters (``p o r k``) are joined.
"""

from __future__ import annotations

import re
import unicodedata

import re2

_UNSEEN = dict.fromkeys(
    [0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFEFF, 0xFFA0,
     *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xFE00, 0xFE10), *range(0xFFF9, 0xFFFC),
     0x1BCA0, 0x1BCA1, 0x1BCA2, 0x1BCA3, 0x1D159, *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE01F0)]
)  # fmt: skip
# Styled letters that NFKC does not change.
_DRAWN = str.maketrans(
    {
        **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘǫʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnopqrstuvwyz", strict=True)),
        **{chr(first + n): chr(97 + n) for first in (0x1F150, 0x1F170) for n in range(26)},
    }
)
_UNDONE = _UNSEEN | _DRAWN
# Combining strokes, dots and rings that form no letter of their own.
_OVERLAID = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_OVERLAID_LEADS = (b"\xcc", b"\xcd", b"\xe1\xaa", b"\xe1\xab", b"\xe1\xb7", b"\xe2\x83", b"\xef\xb8")
# Their first bytes in UTF-8: searching for bytes is many times faster than for any of these characters.
_UNSEEN_LEADS = (b"\xc2\xad", b"\xcd\x8f", b"\xd8\x9c", b"\xe1\x85", b"\xe1\x9e", b"\xe1\xa0", b"\xe2\x80", b"\xe2\x81", b"\xef\xb8",
                 b"\xef\xbb", b"\xf3\xa0", b"\xe2\xa0\x80", b"\xe3\x85\xa4", b"\xef\xbe\xa0", b"\xef\xbf", b"\xf0\x9d\x85", b"\xf0\x9b\xb2",
                 b"\xe1\xb4", b"\xc9", b"\xca", b"\xc7\xab", b"\xea\x9c", b"\xf0\x9f\x85",
                 b"\xf0\x9f\x86")  # fmt: skip
_ALIKE = str.maketrans(
    "аеорсухіјѕһԁԛԝқвнкмтгпибҡαβεικνορτυχωηγ" + "ıɡɑ" + "օոսհց",
    "aeopcyxijshdqwkbhkmtrnubkabeiknoptuxwny" + "iga" + "onuhg",
)  # fmt: skip
_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f\u0131\u0251\u0261\u0561-\u0587]")
_MIXED = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[a-zà-öø-ÿœß]")
_LEET = re.compile(r"[013457@$](?<=[^\W\d_].)(?=[^\W\d_])")
_LEET_TO = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}
_SPACE = r"[ .\-_*·•|/\xa0,+~=:;‐–—]"
_APART = re.compile(rf"(?<![^\W_])(?:[^\W\d_]{_SPACE}){{3,30}}[^\W\d_](?![^\W_])")
_SPACED = re.compile(_SPACE)
# Which disguises a text may have: nearly none has one, and re2 says so in a tenth of the time. Its letters are not Python's:
# so any character that may be one counts.
_DISGUISES = re2.Set.SearchSet()
_DIGITS_IN = _DISGUISES.Add(r"[^\x00-@\[-`{-\x7f][013457@$][^\x00-@\[-`{-\x7f]")
_SPACED_OUT = _DISGUISES.Add(rf"(?:{_SPACE}{_SPACE.replace('[', '[^')}){{3}}(?:[^0-9A-Za-z]|$)")
_DISGUISES.Compile()


def fold(text: str) -> str:
    """Lower case and composed; positions may differ from those in ``text``."""
    if not text.isascii():
        octets = text.encode("utf-8", "surrogatepass")
        if any(lead in octets for lead in _UNSEEN_LEADS):
            text = text.translate(_UNDONE)
        if not unicodedata.is_normalized("NFKC", text):
            text = unicodedata.normalize("NFKC", text)
        if any(lead in octets for lead in _OVERLAID_LEADS):
            text = _OVERLAID.sub("", text)
    text = text.lower()
    if not text.isascii() and _FOREIGN.search(text):
        text = _MIXED.sub(_one_script, text)
    return text


def without_unseen(text: str) -> str:
    """The text without invisible, zero-width characters: where they split words, readers do not see it."""
    if text.isascii() or not any(lead in text.encode("utf-8", "surrogatepass") for lead in _UNSEEN_LEADS):
        return text
    return text.translate(_UNSEEN)


_LETTERS = re.compile(r"[^\W\d_]+")
_NO_LETTERS = {code: " " for code in range(128) if not chr(code).isalpha()}


def letters(text: str) -> list[str]:
    """The runs of letters in it."""
    return text.translate(_NO_LETTERS).split() if text.isascii() else _LETTERS.findall(text)


def skeleton(text: str) -> str:
    """``fold``ed, with look-alike letters of other scripts made Latin in every word: for comparing texts, not for
    reading."""
    folded = fold(text)
    return folded.translate(_ALIKE) if not folded.isascii() and _FOREIGN.search(folded) else folded


def plainly(text: str) -> str:
    """``fold``ed text, with digits for letters and spaced letters undone too. Only for finding words."""
    disguises = _DISGUISES.Match(text.encode("utf-8", "surrogatepass")) or ()
    if _DIGITS_IN in disguises:
        text = _LEET.sub(_letter, text)
    if _SPACED_OUT in disguises:
        text = _APART.sub(lambda m: _SPACED.sub("", m[0]), text)
    return text


def _letter(found: re.Match[str]) -> str:
    if found[0] == "@" and "." in found.string[found.end() : found.end() + 60].partition(" ")[0]:
        return "@"  # an address
    return _LEET_TO[found[0]]


def _one_script(found: re.Match[str]) -> str:
    word = found[0]
    return word.translate(_ALIKE) if _LATIN.search(word) else word
