"""The value of every fact as a sentence, in English and Swedish, without names of lists."""

from __future__ import annotations

from typing import Any

import pytest

from smtpguard.locale.speech import Speech
from smtpguard.policy.condition import sentence
from smtpguard.policy.facts import FACTS, Count, Type, Unknown
from tests.every import every


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


@every("name", sorted(FACTS))
def test_every_sentence_of_every_fact_is_translated(name: str) -> None:
    fact, swedish = FACTS[name], Speech("sv")
    for value in [*_values(fact.type, fact.words), Unknown(why="the list secret-list has no index")]:
        for seconds in (0, 600):
            said = sentence(name, value, seconds)
            assert swedish.say(said) != said, said
            assert "{" not in said + swedish.say(said)
            assert "secret-list" not in said
            assert said.endswith(".")
            assert said.endswith("in 10 minutes.") is bool(seconds and not isinstance(value, Unknown))


@pytest.mark.parametrize(
    ("fact", "value", "seconds", "english", "swedish"),
    [
        ("recipients.customers", Count.exactly(1_234_567), 0, "It reaches 1,234,567 customers.", "Det når 1\u00a0234\u00a0567 kunder."),
        ("recipients.customers", Count(0, 3), 0, "It reaches between 0 and 3 customers.", "Det når mellan 0 och 3 kunder."),
        ("mailing.share", Count(0.25, 0.25), 0, "The same mailing reaches 25 % of a customer list.", "Samma utskick når 25 % av en kundlista."),
        ("mailing.share", Count(0.1, 0.5), 0, "The same mailing reaches between 10 and 50 % of a customer list.",
         "Samma utskick når mellan 10 och 50 % av en kundlista."),
        ("sender.customers", Count(300, float("inf")), 3_600, "Its sender wrote to at least 300 customers in 1 hour.",
         "Avsändaren har skrivit till minst 300 kunder på 1 timme."),
    ],
)  # fmt: skip
def test_numbers_and_windows_are_formatted(fact: str, value: Count, seconds: int, english: str, swedish: str) -> None:
    said = sentence(fact, value, seconds)
    assert (said, Speech("sv").say(said)) == (english, swedish)
