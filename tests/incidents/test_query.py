"""Times as people type them, wrong questions to an incident report, and the suggested corrections."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smtpguard.incidents.query import IncidentQuery, UnknownNames, moment, unknown_names
from tests.every import every

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@every(
    ("text", "at"),
    [
        ("2026-11-26", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-26 09:30", datetime(2026, 11, 26, 9, 30, tzinfo=UTC)),
        ("2026-11-26T09:30:15Z", datetime(2026, 11, 26, 9, 30, 15, tzinfo=UTC)),
        ("2026-11-26 10:30+01:00", datetime(2026, 11, 26, 9, 30, tzinfo=UTC)),
        ("2h", NOW - timedelta(hours=2)),
        ("1d 30m", NOW - timedelta(days=1, minutes=30)),
    ],
)
def test_times_are_parsed(text: str, at: datetime) -> None:
    assert moment(text, NOW) == at
    assert moment(text, NOW).tzinfo is UTC


@every(
    "text",
    ["", "yesterday", "2026-13-01", "2", "-2h", "0h", "2026-11-26 25:00", "99999999999w", "100 years",
     "0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00"],
)  # fmt: skip
def test_an_invalid_time_names_the_expected_format(text: str) -> None:
    with pytest.raises(ValueError, match=r'expected one like "2026-11-26 09:30" in UTC, or "2h"'):
        moment(text, NOW)


def test_a_time_before_year_one_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid time"):
        moment("2h", datetime(1, 1, 1, tzinfo=UTC))


POLICY = b"""
version: 1
organization: {name: Example AB, domains: ['*.a.example', example.com], languages: [en]}
groups: {communications: [eva@example.com]}
approvals: {from: [communications]}
lists:
  ramadan-greetings: {addresses: [ramadan@lists.example.com], audience: customers}
rules:
  - {id: internal-to-list, when: {recipients.list_addresses: any}, then: hold}
"""


def asked(query: IncidentQuery, policy: bytes = POLICY, **known: tuple[str, ...]) -> UnknownNames:
    return unknown_names(query, {"policy.yaml": policy}, delimiters="+", **known)


def of_senders(*senders: str, **known: Any) -> dict[str, str]:
    return dict(asked(IncidentQuery(senders=frozenset(senders)), **known).senders)


def test_lists_of_policy_and_messages_are_known() -> None:
    query = IncidentQuery(lists=frozenset({"ramadan-greetings", "ramadan-greting", "old", "zz"}))
    found = asked(query, lists=("old",)).lists
    assert found == {"ramadan-greting": "ramadan-greetings", "zz": ""}


@every(
    ("sender", "meant"),
    [
        ("kale@example.com", "kalle@example.com"),
        ("KALLE@EXAMPLE.ORG", "kalle@example.com"),
        ("eva@exampel.com", "eva@example.com"),
        ("eva", "eva@example.com"),
        ("<kalle>", "kalle@example.com"),
        ("new.name", "new.name@example.com"),
        ("eva@example.com", ""),  # she has written no mail
        ("two words", ""),
        ("", ""),
        ("post.office@elsewhere.test", ""),
        ("new.name@exmaple.com", "new.name@example.com"),
        ("new.name@example.com", ""),
    ],
)
def test_an_unknown_sender_gets_a_suggestion(sender: str, meant: str) -> None:
    assert of_senders(sender, writers=("kalle@example.com",)) == {sender: meant}


def test_a_known_sender_gets_no_suggestion() -> None:
    assert of_senders("Kalle@Example.com", writers=("kalle@example.com",)) == {}


def test_an_unreadable_policy_suggests_nothing() -> None:
    query = IncidentQuery(lists=frozenset({"x"}), senders=frozenset({"eva"}))
    found = asked(query, b"version: 99\n")
    assert (found.lists, found.senders) == ({"x": ""}, {"eva": ""})
    assert found.bad == {"eva"}
