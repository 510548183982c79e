"""Detect the language of a text by its commonest small words: accurate enough to tell people, and to see that a text is
not in a list's language.
"""

from __future__ import annotations

from math import lcm
from struct import Struct

from smtpguard.reading.fold import letters

_COMMON: dict[str, str] = {
    "sv": "och att det som är på för med den till inte av har jag ett om var från vi kan ska när men så hej ni du nu",
    "no": "og det som er på for med den til ikke av har jeg et om var fra vi kan skal når men så hei dere du nå etter",
    "da": "og at det som er på for med den til ikke af har jeg et om var fra vi kan skal når men så hej jer du nu efter",
    "fi": "ja on ei että se en ole hän mutta tai kun niin me te ovat oli myös jos voi nyt hei kiitos terveisin olen",
    "de": "und der die das ist nicht ein eine zu mit auf für von den im wir sie ich es dem auch werden bei oder hallo",
    "fr": "et le la les des est un une pas pour que dans qui sur avec vous nous je au plus ne par bonjour du ce cette",
    "es": "y el la los las es un una no para que en con por se su lo del al más como pero hola usted nosotros este esta",
    "en": "and the is of to in that it you for on with this are be not have we was as at or from will can hi your i",
    "it": "e il la di che è un una non per in con sono del della si ma come anche da alla dei ciao questo",
    "nl": "en het een van is niet dat op te voor met zijn wij je aan er om ook als maar bij hallo deze",
    "pt": "e o a os as de que não um uma para com em por se mais como mas dos das ao olá você este",
    "pl": "i w nie na się z do jest to że o jak po co tak za od ale dla przez czy jego",
    "ar": "في من على إلى أن هذا هذه التي الذي مع لا ما عن كان هو هي أو ثم قد كل",
}
LANGUAGES = tuple(sorted(_COMMON))
UNCLEAR = "unclear"
"""For a text that is too short, or in several languages."""
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
    """A code of two letters, or an empty string if it is unclear."""
    tokens = letters(text[:600].lower())
    scores = sum(map(_SCORES.__getitem__, filter(_SCORES.__contains__, tokens)))
    if not scores:
        return ""
    each = _DIGITS.unpack(scores.to_bytes(_DIGITS.size, "little"))
    rest, score = sorted(each)[-2:]
    best = LANGUAGES[each.index(score)]
    return best if score >= _WHOLE and score * 10 > 11 * rest and score * 25 >= len(tokens) * _WHOLE else ""
