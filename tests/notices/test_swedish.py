"""What is found and decided, said in Swedish: the sentences of every fact, the marks, numbers and spans of time.

That every mark which reading can find is among them: tests/reading/test_told.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from smtpguard.notices import swedish
from smtpguard.policy.facts import FACTS, Count, Type, Unknown
from smtpguard.policy.sentence import sentence


def _values(type_: Type, words: tuple[str, ...]) -> list[Any]:
    match type_:
        case Type.TRUTH:
            return [True, False]
        case Type.NETWORK:
            return ["192.0.2.1"]
        case Type.WORD:
            return list(words) or ["x"]
        case Type.WORDS:
            return [frozenset(), frozenset({"x"})]
        case Type.SHARE:
            return [Count(0.25, 0.25), Count(0.1, 0.5)]
    return [Count.exactly(n) for n in (0, 1, 2, 1234567)] + [Count(0, 3), Count(1, float("inf"))]


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_sentence_of_every_fact_is_said_in_swedish(name: str) -> None:
    fact = FACTS[name]
    for value in [*_values(fact.type, fact.words), Unknown(why="the list secret-list has no index")]:
        for window in ("", "10m"):
            said = sentence(name, value, window)
            swedish_said = swedish.sentence(said)
            assert swedish_said != said, said
            assert "#" not in swedish_said
            assert "secret-list" not in swedish_said


@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("It reaches 1,234,567 customers.", "Det når 1\u00a0234\u00a0567 kunder."),
        ("It reaches between 0 and 3 customers.", "Det når mellan 0 och 3 kunder."),
        ("The same mailing reaches 25 % of a customer list.", "Samma utskick når 25 % av en kundlista."),
        ("Its sender wrote to at least 300 customers in 1h.", "Avsändaren har skrivit till minst 300 kunder på 1 timme."),
        ("Something else entirely in 1h.", "Something else entirely in 1h."),
    ],
)  # fmt: skip
def test_numbers_and_windows_in_swedish(english: str, said: str) -> None:
    assert swedish.sentence(english) == said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("There were 6 messages in this conversation in 10m.", "There were 6 messages in this conversation in 10 minutes."),
        ("There was one message in this conversation.", "There was one message in this conversation."),
    ],
)  # fmt: skip
def test_windows_in_english(written: str, said: str) -> None:
    assert swedish.english(written) == said


@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("it is made from a template (12 tables, 3 pictures)", "det är gjort efter en mall (12 tabeller, 3 bilder)"),
        ('it begins as a letter: "Hi (you)"', 'det börjar som ett personligt brev: "Hi (you)"'),
        ("bo@example.com and 2 more is shown in To or Cc and is a colleague", "bo@example.com och 2 till står i Till eller Kopia och är kollegor"),
        ('"fläsk" (pork, in the text)', '"fläsk" (fläsk, i texten)'),
        ('"tips" (gambling, in the subject)', '"tips" (hasardspel, i ämnesraden)'),
        ('"tips" (horses, in the subject)', '"tips" (horses, i ämnesraden)'),
        ("Mailchimp put a X-MC-User field on it", "Mailchimp har lagt till fältet X-MC-User"),
        ("a platform put a X-SG-EID field on it", "ett utskickssystem har lagt till fältet X-SG-EID"),
        ('the subject begins with "#*"', 'ämnesraden börjar med "#*"'),
        ("unheard of", "unheard of"),
    ],
)  # fmt: skip
def test_what_was_found_is_told_in_swedish(english: str, said: str) -> None:
    assert swedish.mark(english) == said


def test_both_tables_have_as_many_signs_on_both_sides() -> None:
    for english, said in {**swedish.SENTENCES, **swedish.MARKS}.items():
        wanted = re.findall(r"[#*]", english)
        assert re.findall(r"[#*]", said) in (wanted, wanted[1:]), english
