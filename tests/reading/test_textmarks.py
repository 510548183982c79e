"""The words around a match, as evidence for people: whole words, exactly as in the text."""

from __future__ import annotations

import random

import pytest

from smtpguard.reading import fold, textmarks, unfinished
from smtpguard.reading.fold import letters
from smtpguard.reading.textmarks import _phrases


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("Bacon och Sprit funkar för mig. Ses vi på mötet\nimorgon? Klicka här för att se", 'Sprit funkar för mig. Ses vi på mötet imorgon? Klicka här för"'),
        ("KLICKA HÄR för att Avregistrera dig", '"KLICKA HÄR för att Avregistrera dig"'),
    ],
)  # fmt: skip
def test_evidence_is_whole_words_in_their_spelling(text: str, evidence: str) -> None:
    assert any(found.endswith(evidence) for _, found in _phrases(text)), dict(_phrases(text))


def test_evidence_of_any_text_is_whole_words() -> None:
    words = "Vi Träffas på Mötet imorgon och pratar om Budgeten. Klicka Här för att Avregistrera dig, Åsa."
    for n in range(40):
        text = f"{'x' * n} {words} {'y' * (40 - n)} Slut"
        for _, found in _phrases(text):
            shown = found.partition(': "')[2].removesuffix('"')
            assert f" {shown} " in f" {text} ", found


def test_plain_words_that_are_searched_first_find_all_that_the_patterns_do() -> None:
    titles = textmarks._TITLED.pattern.removeprefix(r"\b(?:").removesuffix(r")\b").split("|")
    assert all(any(word in title for word in textmarks._TITLES) for title in titles)
    phrases = ("This is a TEST", "please ignore this", "Bortse från det här mejlet", "dies ist ein Test", "tämä on testi", "esto es una prueba")  # fmt: skip
    assert all("test" in dict(unfinished.unfinished("", f"Hello. {phrase}.")) for phrase in phrases)


def test_patterns_tried_at_line_ends_and_brackets_find_all_that_a_search_does() -> None:
    draw = random.Random(0)
    some = ["\n", "Lisa, kolla det", "[check this]", "[insert text here]", "Note to self: ring Bo", ". ", "! ", "Mvh Anna", "Regards,\nBo Ek", "Thanks", "ord och ord", "("]  # fmt: skip
    met = 0
    for _ in range(500):
        text = "".join(draw.choices(some, k=9))
        closings = list(textmarks._CLOSING.finditer(text))
        assert (textmarks._last_closing(text) or [None])[0] == (closings[-1][0] if closings else None)
        for pattern, words in unfinished._LOOKED_FOR:
            assert (unfinished._found(pattern, text) or [None])[0] == (pattern.search(text) or [None])[0]
            met += (pattern.search(text) is not None) + bool(closings)
            assert pattern.search(text) is None or any(word in text.lower() for word in words)
    assert met > 500
    every = [word.lower() for words in (unfinished._STAMPS, unfinished._REMINDERS, *(words for _, words in unfinished._LOOKED_FOR), unfinished._TESTS, unfinished._FILLERS) for word in words]  # fmt: skip
    assert len(every) == len(set(every)), "each word stands for one tuple"


def test_letters_are_the_same_in_ascii_and_beyond() -> None:
    text = "".join(map(chr, range(128)))
    assert letters(text) == letters(f"{text} é")[:-1] == fold._LETTERS.findall(text)
