"""Text as it sounds, whatever it is spelled with: NFKC, lower case, and the disguises of words undone.

Zero-width characters and soft hyphens go, look-alike letters of other scripts in a Latin word become Latin, digits that
stand for letters within a word become letters, and letters set apart (``p o r k``) are put together. Never here: which
words matter (topics).
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = dict.fromkeys(
    [0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F),
     *range(0x2060, 0x2070), *range(0xFE00, 0xFE10), *range(0xE0000, 0xE0080)]
)  # fmt: skip
_HAS_UNSEEN = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\ufeff\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\U000e0000-\U000e007f]")  # fmt: skip
_ALIKE = str.maketrans(
    "аеорсухіјѕһԁԛԝқвнкмтгпибҡαβεικνορτυχωηγ" + "ıɡɑ",
    "aeopcyxijshdqwkbhkmtrnubkabeiknoptuxwny" + "iga",
)  # fmt: skip
_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f\u0131\u0251\u0261]")
_MIXED = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[a-zà-öø-ÿœß]")
_LEET = re.compile(r"(?<=[^\W\d_])[013457@$](?=[^\W\d_])")
_LEET_TO = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}
_SHORT = re.compile(r"(?<!\S)\S{3,60}(?!\S)")
_APART = re.compile(r"(?<![^\W_])(?:[^\W\d_][ .\-_*·•|/\xa0]){3,30}[^\W\d_](?![^\W_])")
_SPACED = re.compile(r"[ .\-_*·•|/\xa0]")


def fold(text: str) -> str:
    """Lower case and composed; positions may differ from those in ``text``."""
    if not text.isascii():
        if _HAS_UNSEEN.search(text):
            text = text.translate(_UNSEEN)
        if not unicodedata.is_normalized("NFKC", text):
            text = unicodedata.normalize("NFKC", text)
    text = text.lower()
    if not text.isascii() and _FOREIGN.search(text):
        text = _MIXED.sub(_one_script, text)
    return text


def plainly(text: str) -> str:
    """``fold``ed text, with digits for letters and letters set apart undone too. Only for finding words."""
    if _LEET.search(text):
        text = _SHORT.sub(_letters, text)
    if _APART.search(text):
        text = _APART.sub(lambda m: _SPACED.sub("", m[0]), text)
    return text


def _letters(found: re.Match[str]) -> str:
    word = found[0]
    if "@" in word and "." in word:  # an address
        return word
    return _LEET.sub(lambda m: _LEET_TO[m[0]], word)


def _one_script(found: re.Match[str]) -> str:
    word = found[0]
    return word.translate(_ALIKE) if _LATIN.search(word) else word
