"""Conditions as they are written, and their answers: yes, no, or unknown if the limit is inside the interval."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from smtpguard.config.problem import Invalid
from smtpguard.policy import grammar
from smtpguard.policy.approvals import Groups
from smtpguard.policy.condition import UNCHECKED, Answer, sentence
from smtpguard.policy.facts import FACTS, Count, Unknown, Value
from smtpguard.policy.grammar import ConditionNames, condition
from tests.every import every

YES, NO, DOUBT = Answer.YES, Answer.NO, Answer.UNKNOWN
KNOWN = ConditionNames(
    groups=Groups(people={"communications": frozenset({"eva@example.com"})}),
    words={"recipients.lists": ("news", "offers")},
    delimiters="+",
)


def ask(fact: str, raw: object, value: Value, *, every: bool = False) -> Answer:
    return condition(FACTS[fact], raw, every=every, known=KNOWN).test(value)


@every(
    ("raw", "low", "high", "answer"),
    [
        (">= 20", 20, 20, YES), (">= 20", 19, 19, NO), (">= 20", 0, 20, DOUBT), (">= 20", 0, 3, NO), (">= 20", 20, 400_000, YES),
        ("> 20", 20, 20, NO), ("> 20", 21, 21, YES), ("> 20", 20, 21, DOUBT),
        ("< 5", 4, 4, YES), ("< 5", 5, 5, NO), ("< 5", 4, 5, DOUBT), ("<= 5", 5, 5, YES), ("<= 5", 5, 6, DOUBT), ("<= 5", 6, 6, NO),
        ("== 0", 0, 0, YES), ("== 0", 0, 1, DOUBT), ("== 0", 1, 9, NO), ("= 2", 2, 2, YES), (2, 2, 2, YES), (0, 1, 1, NO),
        ("between 3 and 9", 3, 9, YES), ("between 3 and 9", 2, 3, DOUBT), ("between 3 and 9", 10, 10, NO), ("between 3 and 9", 0, 2, NO),
        ("any", 0, 0, NO), ("any", 1, 5, YES), ("any", 0, 1, DOUBT), ("none", 0, 0, YES), ("none", 1, 1, NO), ("none", 0, 1, DOUBT),
        (">= 1_000", 1000, 1000, YES), (">=20", 20, 20, YES),
    ],
)  # fmt: skip
def test_counts_against_a_limit(raw: object, low: int, high: int, answer: Answer) -> None:
    assert ask("recipients.customers", raw, Count(low, high)) is answer


@every(("raw", "share", "answer"), [(">= 0.25", 0.25, YES), (">= 25 %", 0.24, NO), ("> 0", 0, NO), ("any", 0.001, YES)])
def test_shares_against_a_limit(raw: str, share: float, answer: Answer) -> None:
    assert ask("mailing.share", raw, Count(share, share)) is answer


def test_counts_within_a_window() -> None:
    made = condition(FACTS["sender.customers"], ">= 300 in 1h", every=False, known=KNOWN)
    assert (made.window_seconds, made.slot) == (3600, "sender.customers in 3600")
    assert made.test(Count(300, 300)) is YES
    assert "in 1 hour." in made.reason(Count(300, 300)).public


def test_limits_above_the_usual_and_for_some_lists() -> None:
    known = ConditionNames(words={"recipients.lists": ("news", "faith")}, special=frozenset({"faith"}))
    raw = {"at_least": 12, "in": "7d", "usual": "x2.5", "lists": ["special-category", "news"]}
    made = condition(FACTS["sender.list_contacts"], raw, every=False, known=known)
    assert made.limit == ">= 12 in 7d and more than x2.5 the usual on one list of special-category or news"
    assert (made.window_seconds, made.usual, made.lists) == (604_800, (2.5, 12), frozenset({"faith", "news"}))
    assert [made.test(Count(n, n)) for n in (11, 12)] == [NO, YES]
    same = {"at_least": 25, "in": "30d", "mailing": "same"}
    made = condition(FACTS["sender.first_contacts"], same, every=False, known=known)
    assert (made.limit, made.same) == (">= 25 in 30d with the same mailing", True)
    assert made.slot == "sender.first_contacts in 2592000 with the same mailing"
    for fact, value in (("sender.first_contacts", "other"), ("sender.answers", "same")):
        with pytest.raises(Invalid):
            condition(FACTS[fact], same | {"mailing": value}, every=False, known=known)
    share = condition(FACTS["list.share"], {"at_least": "25 %", "in": "1d"}, every=False, known=known)
    assert [share.test(Count(n, n)) for n in (0.24, 0.25)] == [NO, YES]


@every(
    ("raw", "value", "some", "all_of_it"),
    [
        ("any", {"news"}, YES, YES), ("any", set(), NO, NO), ("none", set(), YES, YES), ("none", {"news"}, NO, NO),
        ("news", {"news", "offers"}, YES, NO), ("news", {"news"}, YES, YES), ("news", set(), NO, NO),
        (["news", "offers"], {"offers"}, YES, YES), (["news", "offers"], {"news", "offers"}, YES, YES),
        ({"matches": "^n"}, {"news", "offers"}, YES, NO), ({"matches": "s$"}, {"news", "offers"}, YES, YES),
        ({"matches": "x"}, {"news"}, NO, NO), ({"matches": "."}, set(), NO, NO),
    ],
)  # fmt: skip
def test_sets_match_any_in_when_and_all_in_unless(
    raw: object, value: set[str], some: Answer, all_of_it: Answer
) -> None:
    assert ask("recipients.lists", raw, frozenset(value)) is some
    assert ask("recipients.lists", raw, frozenset(value), every=True) is all_of_it


@every(
    ("raw", "value", "answer"),
    [
        ("EVA+work@Example.COM", "eva@example.com", YES), (["a@example.com", "eva@example.com"], "eva@example.com", YES),
        ("a@example.com", "eva@example.com", NO), ({"matches": "@example[.]com$"}, "eva@example.com", YES),
        ({"matches": "^omar@"}, "eva@example.com", NO), ({"group": "communications"}, "eva@example.com", YES),
        ({"group": "communications"}, "omar@example.com", NO),
    ],
)  # fmt: skip
def test_words_are_compared(raw: object, value: str, answer: Answer) -> None:
    assert ask("sender.address", raw, value) is answer


def test_booleans_are_compared() -> None:
    assert ask("sender.proven", True, True) is YES
    assert ask("sender.proven", False, True) is NO


RAW = {
    "sender.proven": True, "message.looks": "internal", "sender.address": {"matches": "a"}, "recipients.lists": "news",
    "recipients.audience": "any", "message.labels": {"matches": "a"}, "recipients.total": ">= 1", "recipients.members": "< 3",
    "recipients.reach": "between 1 and 3", "mailing.share": "> 0.5",
}  # fmt: skip


@every(("fact", "raw"), RAW.items())
def test_a_value_of_the_wrong_type_is_unknown(fact: str, raw: object) -> None:
    kinds: dict[type, Value] = {bool: True, str: "x", frozenset: frozenset(), Count: Count(1, 1)}
    right = {"truth": bool, "word": str, "words": frozenset, "count": Count, "share": Count}[FACTS[fact].type.value]
    for quantified in (False, True):
        assert ask(fact, raw, Unknown(why="nobody knows"), every=quantified) is DOUBT
        for kind, value in kinds.items():
            if kind is not right:
                assert ask(fact, raw, value, every=quantified) is DOUBT


counts = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda p: Count(min(p), max(p)))
comparisons = st.builds(lambda op, n: f"{op} {n}", st.sampled_from([">=", ">", "<", "<=", "=="]), st.integers(0, 30))


@settings(max_examples=200, deadline=None)
@given(comparisons, counts, st.data())
def test_a_narrower_interval_never_reverses_an_answer(raw: str, wide: Count, data: st.DataObject) -> None:
    low = data.draw(st.integers(int(wide.low), int(wide.high)))
    narrow = Count(low, data.draw(st.integers(low, int(wide.high))))
    before, after = ask("recipients.total", raw, wide), ask("recipients.total", raw, narrow)
    assert before is DOUBT or after is before
    assert ask("recipients.total", raw, Count(low, low)) is not DOUBT


@every("raw", [None, [], ["news", 5], 5, {}, {"matches": 5}, {"matches": "a", "group": "b"}, True])
def test_an_invalid_condition_on_a_set_is_refused(raw: object) -> None:
    with pytest.raises(Invalid):
        ask("recipients.lists", raw, frozenset())


def test_patterns_run_in_linear_time() -> None:
    assert ask("sender.address", {"matches": "^(a+)+$"}, "a" * 5000 + "@") is NO


def test_a_too_long_pattern_is_refused() -> None:
    with pytest.raises(Invalid, match="too long"):
        ask("sender.address", {"matches": "a" * 2001}, "a")


@every("name", list(FACTS))
def test_every_fact_has_a_sentence_without_list_names(name: str) -> None:
    fact = FACTS[name]
    shown: dict[str, list[Value]] = {
        "truth": [True, False], "word": list(fact.words) or ["eva@example.com"], "count": [Count(0, 0), Count(1, 1), Count(2, 9)],
        "words": [frozenset(), frozenset({"ramadan-greetings", "special-category", "pork"})],
        "network": ["192.0.2.1"], "share": [Count(0.5, 0.5), Count(0, 1)],
    }  # fmt: skip
    for value in shown[fact.type.value]:
        said = sentence(name, value)
        assert said != UNCHECKED
        assert said.endswith(".")
        assert not {"ramadan", "special", "pork"} & set(said.lower().replace("-", " ").split())
    assert sentence(name, Unknown(why="the list ramadan-greetings has no index")) == UNCHECKED


def test_large_counts_are_shown_in_full() -> None:
    made = condition(FACTS["recipients.reach"], ">= 1", every=False, known=KNOWN)
    reason = made.reason(Count(1_234_567, 1_234_567))
    assert reason.observed == "1234567"
    assert reason.public == "It reaches 1,234,567 people."


@every(
    ("raw", "client", "answer"),
    [
        ("192.0.2.0/24", "192.0.2.7", YES), ("192.0.2.0/24", "198.51.100.7", NO), ("192.0.2.7", "192.0.2.7", YES),
        ("192.0.2.7", "::ffff:192.0.2.7", YES), ("::ffff:192.0.2.0/120", "192.0.2.7", YES), ("2001:db8::/32", "192.0.2.7", NO),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db8::7", YES), ("0.0.0.0/0", "2001:db8::7", NO),
    ],
)  # fmt: skip
def test_a_client_is_matched_by_network(raw: object, client: str, answer: Answer) -> None:
    assert ask("client", raw, client) is answer
    assert ask("client", raw, Unknown(why="the MTA names no address of its client")) is DOUBT


@every("raw", ["10.0.0.0/33", "mail.example.com", "", {"matches": "10[.]"}, 7, [], "any"])
def test_an_invalid_network_is_refused(raw: object) -> None:
    with pytest.raises(Invalid) as told:
        ask("client", raw, "192.0.2.7")
    assert told.value.expected == 'an address or a network, like "10.1.2.0/24", or a list of them'


def test_a_domain_has_one_spelling() -> None:
    assert ask("recipients.domains", ["Gmail.COM"], frozenset({"gmail.com"})) is YES
    assert ask("recipients.domains", "bücher.example", frozenset({"xn--bcher-kva.example"})) is YES


def test_a_login_is_case_insensitive() -> None:
    assert ask("login", "Anna@Example.com", frozenset({"anna@example.com"})) is YES
    assert ask("login", "any", frozenset({"anna"})) is YES
    assert ask("login", "none", frozenset()) is YES
    assert ask("login", ["anna", "bo"], frozenset()) is NO
    assert ask("login", ["anna", "bo"], frozenset(), every=True) is NO


def test_a_host_without_time_zones_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a small container has none: the name is right."""

    def none(name: str) -> None:
        raise ZoneInfoNotFoundError(name)

    monkeypatch.setattr(grammar, "ZoneInfo", none)
    monkeypatch.setattr(grammar, "available_timezones", set)
    with pytest.raises(ValidationError) as told:
        TypeAdapter(grammar.Zone).validate_python("Europe/Stockholm")
    [problem] = told.value.errors()
    assert problem["ctx"]["error"].hint == "this host has no time zones: install the package tzdata"
    assert TypeAdapter(grammar.Zone).validate_python("UTC") is UTC
