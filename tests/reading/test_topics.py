"""The grammar of vocabularies, and matching: inflections, compounds, exceptions, disguises."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from smtpguard.reading.topics import MOST, BadVocabulary, Vocabularies, compile_vocabularies


def made(**group: object) -> Vocabularies:
    return compile_vocabularies({"v": {"groups": [group]}})


def found(vocabulary: Vocabularies, text: str) -> list[str]:
    return [t.term for t in vocabulary.find([("text", text)])]


def test_a_term_matches_at_word_edges() -> None:
    v = made(terms=["öl"])
    assert found(v, "ett öl, tack") == ["öl"]
    assert found(v, "mjöl öland") == []
    assert found(v, "ÖL!") == ["öl"]


def test_only_declared_endings_match() -> None:
    v = made(terms=["öl"], inflect="et en")
    assert found(v, "ölet") == found(v, "ölen") == ["öl"]
    assert found(v, "ölen" + "s") == []


@pytest.mark.parametrize(
    ("compound", "hits"),
    [
        ("none", []),
        ("first", ["baconsvarv"]),
        ("last", ["frukostbacon"]),
        ("both", ["baconsvarv", "frukostbacon"]),
        (True, ["baconsvarv", "frukostbacon"]),
        (False, []),
    ],
)
def test_compounds_match_as_declared(compound: object, hits: list[str]) -> None:
    v = made(terms=["bacon"], compound=compound)
    assert [w for w in ("baconsvarv", "frukostbacon") if found(v, w)] == hits


def test_exceptions_before_after_and_with_stars() -> None:
    v = made(terms=["ham", "gris"], compound="both", **{"except": ["west ham", "*gatan", "ham radio*"]})
    assert found(v, "West  Ham won") == []
    assert found(v, "Grisgatan") == []
    assert found(v, "ham radios") == []
    assert found(v, "west of here, ham") == ["ham"]
    assert found(v, "Grisgatan och en gris") == ["gris"]


def test_a_term_of_several_words_spans_lines() -> None:
    assert found(made(terms=["gin & tonic"]), "en gin &\n  tonic") == ["gin & tonic"]


def test_a_topic_has_its_place_and_context() -> None:
    (topic,) = made(terms=["bacon"]).find([("subject", "Hej"), ("attachment name", "mycket bacon.pdf")])
    assert (topic.vocabulary, topic.term, topic.where) == ("v", "bacon", "attachment name")
    assert "mycket bacon.pdf" in topic.context


def test_a_long_context_is_cut() -> None:
    (topic,) = made(terms=["bacon"]).find([("text", "x " * 500 + "bacon" + " y" * 500)])
    assert len(topic.context) < 100
    assert topic.context.startswith("…")


def test_without_a_vocabulary_nothing_is_found() -> None:
    assert Vocabularies().find([("text", "bacon")]) == ()


def test_a_very_long_word_is_searched_in_time() -> None:
    assert found(made(terms=["a"], **{"except": ["*b*c"]}), "a" * 200_000) == []


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], ()),
        ({}, ("groups",)),
        ({"groups": []}, ("groups",)),
        ({"groups": ["x"]}, ("groups", 0)),
        ({"groups": [{"terms": []}]}, ("groups", 0, "terms")),
        ({"groups": [{"terms": [1]}]}, ("groups", 0, "terms")),
        ({"groups": [{"terms": ["a"], "compound": "maybe"}]}, ("groups", 0, "compound")),
        ({"groups": [{"terms": ["a"], "compounds": "both"}]}, ("groups", 0, "compounds")),
        ({"groups": [{"terms": ["a"]}], "group": 1}, ("group",)),
        ({"groups": [{"terms": ["a"], "inflect": 3}]}, ("groups", 0, "inflect")),
        ({"groups": [{"terms": ["a"], "compound": [1]}]}, ("groups", 0, "compound")),
    ],
)
def test_errors_are_reported_with_their_place(document: Mapping[str, object], path: tuple[str | int, ...]) -> None:
    with pytest.raises(BadVocabulary) as caught:
        compile_vocabularies({"v": document})
    assert caught.value.path == path
    assert caught.value.expected or caught.value.text


def test_a_topic_has_the_word_as_written() -> None:
    v = compile_vocabularies(
        {"v": {"groups": [{"terms": ["skink", "gin & tonic"], "compound": "both", "inflect": "a an"}]}}
    )
    assert [t.word for t in v.find([("text", "Julskinkan är slut. En Gin  & Tonic?")])] == ["julskinkan", "gin & tonic"]


def test_an_exception_covers_only_its_place() -> None:
    v = made(terms=["ham"], **{"except": ["west ham", "ham radio*"]})
    assert found(v, "west ham, ham radios, " * 20 + "and ham") == ["ham"]
    assert found(v, "west ham, ham radios, " * 20) == []


def test_a_words_cached_result_depends_on_its_place() -> None:
    v = made(terms=["ham"], **{"except": ["west ham"]})
    assert [found(v, t) for t in ("west ham", "ham", "west ham", "a ham")] == [[], ["ham"], [], ["ham"]]


def test_topics_are_in_the_order_of_the_text() -> None:
    v = made(terms=["bacon", "gris", "fläsk"])
    text = "gris, fläsk och bacon"
    assert found(v, text) == found(v, text) == ["gris", "fläsk", "bacon"]


def test_many_topics_of_one_vocabulary_do_not_hide_another() -> None:
    many = [f"{a}{b}{c}x" for a in "bcdfg" for b in "aeiou" for c in "klmnprstvz"]
    crowd = {"groups": [{"language": "en", "terms": many}]}
    pork = {"groups": [{"language": "en", "terms": ["bacon", "ham"]}]}
    found = compile_vocabularies({"crowd": crowd, "pork": pork}).find([("text", " ".join((*many, "ham", "bacon")))])
    assert len(many) > MOST
    assert [t.term for t in found if t.vocabulary == "pork"] == ["ham"]
    assert len(found) == MOST + 1
