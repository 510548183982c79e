"""Limits of breakers: when they trip, and which limit is looser."""

from __future__ import annotations

import pytest

from smtpguard.policy.fields import limit
from smtpguard.policy.looser import looser
from smtpguard.policy.parse import parse
from tests.guard.house import DOCUMENTS, POLICY


@pytest.mark.parametrize(
    ("text", "counted", "people", "trips"),
    [
        (">= 0.1% after 500", 1, 499, False), (">= 0.1% after 500", 1, 500, True), (">= 0.1% after 500", 1, 1000, True),
        (">= 0.1% after 500", 1, 1001, False), (">= 0.1%", 400, 400_000, True), (">= 0.1%", 399, 400_000, False),
        (">= 20 in 10m", 19, 10, False), (">= 20 in 10m", 20, 0, True), (">= 20 after 5", 20, 4, False), (">= 5%", 0, 0, False),
    ],
)  # fmt: skip
def test_a_limit_is_exact(text: str, counted: int, people: int, trips: bool) -> None:
    assert limit(text).trips(counted, people) is trips


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("complaints: '>= 0.1% after 500'", "complaints: '>= 0.05% after 400'", []),
        ("complaints: '>= 20 in 10m'", "complaints: '>= 20'", []),
        ("complaints: '>= 20'", "complaints: '>= 20 in 10m'", ["breakers.complaints: >= 20 in 10m, where it was >= 20"]),
        ("complaints: '>= 20'", "complaints: '>= 5%'", ["breakers.complaints: >= 5%, where it was >= 20"]),
        ("complaints: '>= 20'", "bounces: '>= 20'", ["breakers.complaints: removed"]),
        ("complaints: '>= 20', stops: lists", "complaints: '>= 20'", ["breakers.stops: mailing, where it was lists"]),
        ("stops: lists", "replies: '>= 3'", []),
    ],
)  # fmt: skip
def test_a_breaker_that_trips_later_is_looser(before: str, after: str, told: list[str]) -> None:
    old, new = (
        parse({**DOCUMENTS, "policy.yaml": f"{POLICY}breakers: {{{text}}}\n".encode()}) for text in (before, after)
    )
    assert [each.text for each in looser(old, new)] == told


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("{bounces: '>= 5%'}", "{bounces: '>= 3%'}", []),
        ("{bounces: '>= 5%'}", "", ["list ramadan: breakers.bounces: >= 50%, where it was >= 5%"]),
        ("", "{bounces: '>= 60%'}", ["list ramadan: breakers.bounces: >= 60%, where it was >= 50%"]),
        ("{stops: lists}", "{stops: mailing}", ["list ramadan: breakers.stops: mailing, where it was lists"]),
        ("{replies: '>= 3'}", "{bounces: '>= 50%'}", ["list ramadan: breakers.replies: removed"]),
    ],
)
def test_a_lists_breaker_that_trips_later_is_looser(before: str, after: str, told: list[str]) -> None:
    old, new = (parse({**DOCUMENTS, "policy.yaml": of_a_list(text).encode()}) for text in (before, after))
    assert [each.text for each in looser(old, new)] == told


def of_a_list(text: str) -> str:
    own = f"  ramadan:\n    breakers: {text}\n" if text else "  ramadan:\n"
    return POLICY.replace("  ramadan:\n", own) + "breakers: {bounces: '>= 50%'}\n"


def test_a_lists_breaker_replaces_the_policys() -> None:
    policy = parse({**DOCUMENTS, "policy.yaml": of_a_list("{replies: '>= 3', stops: lists}").encode()})
    own = policy.list_breakers["ramadan"]
    assert [(one.name, one.limit.text) for one in own.each] == [("bounces", ">= 50%"), ("replies", ">= 3")]
    assert (own.lists, policy.breakers.lists) == (True, False)
