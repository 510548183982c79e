"""A phrase is its English text, keeps its parts, and survives JSON; every fact's value is a sentence, without names of lists."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from smtpguard.locale.phrase import Amount, Listed, Moment, Phrase, Said, Span, dump, load
from smtpguard.locale.speech import Speech
from smtpguard.policy.condition import sentence
from smtpguard.policy.facts import FACTS, Count, Type, Unknown
from tests.every import every

INF = float("inf")
SENTENCES: list[tuple[Said, str, str]] = [
    (Phrase("It has no text."), "It has no text.", "Det har ingen text."),
    (Phrase.counted("It reaches one customer", "It reaches {n} customers", 1), "It reaches one customer", "Det når en kund"),
    (Phrase.counted("It reaches one customer", "It reaches {n} customers", Amount(0, 3)),
     "It reaches between 0 and 3 customers", "Det når mellan 0 och 3 kunder"),
    (Phrase.counted("It reaches one customer", "It reaches {n} customers", Amount(1, INF)),
     "It reaches at least 1 customers", "Det når minst 1 kunder"),
    (Phrase("The same mailing reaches {n} of a customer list", n=Amount(12.3456, 12.3456, percent=True)),
     "The same mailing reaches 12.3 % of a customer list", "Samma utskick når 12,3 % av en kundlista"),
    (Phrase("{observed} in {time}.", observed=Phrase("It has no text."), time=Span(3_600)),
     "It has no text. in 1 hour.", "Det har ingen text. på 1 timme."),
    (Phrase("one of {n} texts: {texts}", n=1_200, texts=Listed((Phrase("nothing"), "{n}"))),
     "one of 1,200 texts: nothing, {n}", "en av 1\u00a0200 texter: inget, {n}"),
    ("Somebody's own {words}", "Somebody's own {words}", "Somebody's own {words}"),
]  # fmt: skip


@every(("said", "english", "swedish"), SENTENCES)
def test_a_phrase_is_translated_and_survives_json(said: Said, english: str, swedish: str) -> None:
    assert said == english
    for one in (said, load(json.loads(json.dumps(dump(said)))), pickle.loads(pickle.dumps(said)), copy.deepcopy(said)):
        assert type(one) is type(said)
        assert (one, Speech("en").say(one), Speech("sv").say(one)) == (english, english, swedish)


@every(
    ("seconds", "english"),
    [(1, "1 second"), (90, "90 seconds"), (600, "10 minutes"), (5_400, "90 minutes"), (86_400, "24 hours"), (172_800, "2 days"),
     (604_800, "7 days"), (0, "0 seconds")],
)  # fmt: skip
def test_a_span_is_exact(seconds: int, english: str) -> None:
    assert Phrase("{time}", time=Span(seconds)) == english


def test_a_moment_is_in_utc_for_logs_and_in_the_zone_for_readers() -> None:
    made = Phrase("{time}", time=Moment(datetime(2026, 3, 2, 9, tzinfo=UTC)))
    for one in (made, load(json.loads(json.dumps(dump(made)))), pickle.loads(pickle.dumps(made))):
        assert one == "2026-03-02 09:00 UTC"
        said = Speech("en").local("Europe/Stockholm").say(one), Speech("sv").local("").say(one)
        assert said == ("Monday 2 March 2026 at 10:00 (CET)", "måndag 2 mars 2026 kl. 09:00 (UTC)")


@every("value", [None, 7, [], {}, {"msgid": 1}, {"msgid": "x", "values": []}, {"msgid": "x", "values": {"a": None}}])
def test_a_value_that_is_no_phrase_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no text"):
        load(value)


def test_placeholders_reach_no_attributes() -> None:
    """Placeholders reach no attributes or conversions, since a message may come from another process or a foreign
    catalogue."""
    assert Phrase("{n.real} {n!r} {0} {missing} {n}", n="x") == "{n.real} {n!r} {0} {missing} x"


def test_quoted_words_are_known() -> None:
    inner = Phrase('the subject begins with "{words}"', words="SV:")
    assert Phrase("{one}, and “{a}” of {b}", one=inner, a="1", b="2").quoted == ("1", "SV:")


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


@every(
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


def test_a_number_on_an_axis_is_not_rounded() -> None:
    assert [Speech(language).short(2_500) for language in ("en", "sv")] == ["2.5K", "2,5\u00a0tn"]
