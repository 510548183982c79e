"""Fold text so that spellings and disguises of a word compare equal (NFKC, lower case, and more), and detect its language.

Zero-width characters, soft hyphens and strokes through letters are removed. Boxed letters and small capitals become
plain letters. In a Latin word look-alike letters of other scripts become Latin, and digits that stand for letters
become letters. Spaced letters (``p o r k``) are joined. The language is that of the commonest small words: accurate
enough to tell people, and to see that a text is not in a list's language.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from math import lcm
from struct import Struct
from typing import Literal

import re2

_UNSEEN = dict.fromkeys(
    [*range(0x80, 0xA0), 0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFEFF, 0xFFA0,
     *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xFE00, 0xFE10), *range(0xFFF9, 0xFFFC), *range(0xFDD0, 0xFDF0), 0xFFFE, 0xFFFF,
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
# A translation looks up each character of a text; re2 says in a twentieth of the time whether there is anything to translate.
_HAS_UNSEEN, _HAS_UNDONE = (re2.compile(f"[{''.join(map(chr, those))}]").search for those in (_UNSEEN, _UNDONE))
# In most scripts no two marks follow one another: re2 looks for two of what is no ASCII, letter, number or sign.
_MARK = r"(?:[^\x00-\x7f\pL\pN\pP\pS\pZ]|[\x{ff9e}\x{ff9f}])"
_HAS_MARKS = re2.compile(f"{_MARK}{_MARK}").search
_MOST_MARKS = 30
_MARKS = re.compile(rf"(?:[^\w\x00-\x7f\s]|[\uff9e\uff9f]){{{_MOST_MARKS + 1},}}")
# Combining strokes, dots and rings that form no letter of their own.
_OVERLAID = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
# Their first bytes in UTF-8: searching for bytes is many times faster than for any of these characters.
_OVERLAID_LEADS = (b"\xcc", b"\xcd", b"\xe1\xaa", b"\xe1\xab", b"\xe1\xb7", b"\xe2\x83", b"\xef\xb8")
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
    """Fold a text: lower case and composed. Positions may differ from those in ``text``."""
    if text.isascii():
        return text.lower()
    return _fold_cached(text) if _LONG <= len(text) <= _LONGEST else _folded(text)


_LONG, _LONGEST = 1_000, 100_000


def _folded(text: str) -> str:
    octets = text.encode("utf-8", "surrogatepass")
    if _HAS_UNDONE(octets):
        text = text.translate(_UNDONE)
    text = normalized("NFKC", text)
    if any(lead in octets for lead in _OVERLAID_LEADS):
        text = _OVERLAID.sub("", text)
    text = text.lower()
    if not text.isascii() and _FOREIGN.search(text):
        text = _MIXED.sub(_latinized, text)
    return text


def normalized(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """Do as ``unicodedata`` does, which takes quadratic time for one run of marks: so a long run is broken after each
    30 of them, as the Stream-Safe Text Process does (UAX 15 section 13)."""
    if text.isascii() or unicodedata.is_normalized(form, text):
        return text
    if _HAS_MARKS(text.encode("utf-8", "surrogatepass")):
        text = _MARKS.sub(_broken_run, text)
    return unicodedata.normalize(form, text)


def _broken_run(run: re.Match[str]) -> str:
    if not any(map(unicodedata.combining, run[0])):
        return run[0]  # signs, such as a drawn line
    return "\u034f".join(run[0][n : n + _MOST_MARKS] for n in range(0, len(run[0]), _MOST_MARKS))


_fold_cached = lru_cache(maxsize=4)(_folded)
"""A message's text is looked at for topics, for phrases and for copies."""


def without_unseen(text: str) -> str:
    """Return the text without invisible, zero-width characters: where they split words, readers do not see it."""
    if text.isascii() or not _HAS_UNSEEN(text.encode("utf-8", "surrogatepass")):
        return text
    return text.translate(_UNSEEN)


def searched(text: str) -> str:
    """Spell a text as searches compare it, whatever keyboard or program it comes from: case-folded, composed, the
    four letters i of Turkish as one, without what is invisible."""
    if text.isascii():
        return text.lower()
    text = normalized("NFKC", normalized("NFKC", without_unseen(text)).casefold())
    return text.replace("i\u0307", "i").replace("ı", "i")


_QUERY_WORD = re.compile(r'<?"(?:[^"\\]|\\.)*+"@\S+|\S+')


def query_words(text: str) -> list[str]:
    """Return the words of a query. A quoted local part of an address is in one word, with its spaces."""
    return _QUERY_WORD.findall(text)


_LETTERS = re.compile(r"[^\W\d_]+")
_NO_LETTERS = {code: " " for code in range(128) if not chr(code).isalpha()}


def letters(text: str) -> list[str]:
    """Return the runs of letters in a text."""
    return text.translate(_NO_LETTERS).split() if text.isascii() else _LETTERS.findall(text)


def skeleton(text: str) -> str:
    """Fold a text, and make look-alike letters of other scripts Latin in every word: for comparing texts, not for
    reading."""
    folded = fold(text)
    return folded.translate(_ALIKE) if not folded.isascii() and _FOREIGN.search(folded) else folded


def undisguised(text: str) -> str:
    """Undo digits for letters and spaced letters in ``fold``ed text. Only for finding words."""
    disguises = _DISGUISES.Match(text.encode("utf-8", "surrogatepass")) or ()
    if _DIGITS_IN in disguises:
        text = _LEET.sub(_letter_meant, text)
    if _SPACED_OUT in disguises:
        text = _APART.sub(lambda m: _SPACED.sub("", m[0]), text)
    return text


def _letter_meant(found: re.Match[str]) -> str:
    if found[0] == "@" and "." in found.string[found.end() : found.end() + 60].partition(" ")[0]:
        return "@"  # an address
    return _LEET_TO[found[0]]


def _latinized(found: re.Match[str]) -> str:
    word = found[0]
    return word.translate(_ALIKE) if _LATIN.search(word) else word


_DOMAIN = re.compile(r"\.[a-z]{2,}")
"""The end of a domain. Its letters are no word: "com" is one in Portuguese, "se" in Spanish."""
_COMMON: dict[str, str] = {
    "sv": "och att det de som är på för med den till inte av har jag ett om var från vi kan ska när men så hej ni du nu",
    "no": "og det som er på for med den til ikke av har jeg et om var fra vi kan skal når men så hei dere du nå etter",
    "da": "og at det som er på for med den til ikke af har jeg et om var fra vi kan skal når men så hej jer du nu efter",
    "fi": "ja on ei että se en ole hän mutta tai kun niin me te ovat oli myös jos voi nyt hei kiitos terveisin olen",
    "de": "und der die das ist nicht ein eine zu mit auf für von den im wir sie ich es dem auch werden bei oder hallo",
    "fr": "et le la les a de des est un une pas pour que dans qui sur avec vous nous je au plus ne par bonjour du ce cette",
    "es": "y el la los las a de es un una no para que en con por se su lo del al más como pero hola usted nosotros este esta",
    "en": "and the a is of to in that it you for on with this are be not have we was as at or from will can hi your i",
    "it": "e il la a di che è un una non per in con sono del della si ma come anche da alla dei ciao questo",
    "nl": "en de het een van is niet dat op te voor met zijn wij je aan er om ook als maar bij hallo deze",
    "pt": "e o a os as de que não um uma para com em por se mais como mas dos das ao olá você este",
    "pl": "i w nie na się z do jest to że o jak po co tak za od ale dla przez czy jego",
    "ar": "في من على إلى أن هذا هذه التي الذي مع لا ما عن كان هو هي أو ثم قد كل",
}
LANGUAGES = tuple(sorted(_COMMON))
UNCLEAR = "unclear"
"""The language of a text that is too short, or in several languages."""
_WORDS = {language: frozenset(words.split()) for language, words in _COMMON.items()}
_OWNERS: dict[str, list[str]] = {}
for _language, _set in _WORDS.items():
    for _word in _set:
        _OWNERS.setdefault(_word, []).append(_language)
# A word of four languages is weak evidence for each. All languages' scores are digits of one number, so that one sum
# adds them up.
_WHOLE = lcm(*map(len, _OWNERS.values()))
_DIGIT = 32  # bits
_DIGITS = Struct(f"<{len(LANGUAGES)}I")
_SCORES = {
    word: sum(_WHOLE // len(those) << _DIGIT * LANGUAGES.index(one) for one in those) for word, those in _OWNERS.items()
}


def language_of(text: str) -> str:
    """Return a code of two letters, or an empty string if it is unclear."""
    tokens = letters(_DOMAIN.sub(" ", text[:600].lower()))
    scores = sum(map(_SCORES.__getitem__, filter(_SCORES.__contains__, tokens)))
    if not scores:
        return ""
    each = _DIGITS.unpack(scores.to_bytes(_DIGITS.size, "little"))
    rest, score = sorted(each)[-2:]
    best = LANGUAGES[each.index(score)]
    return best if score >= _WHOLE and score * 10 > 11 * rest and score * 25 >= len(tokens) * _WHOLE else ""
