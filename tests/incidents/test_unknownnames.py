"""Wrong questions to an incident report, and the suggested corrections."""

from __future__ import annotations

from typing import Any

from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.unknownnames import UnknownNames, unknown_names
from tests.every import every

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
    return {one.word: one.meant for one in asked(IncidentQuery(senders=frozenset(senders)), **known).senders}


def test_lists_of_policy_and_messages_are_known() -> None:
    query = IncidentQuery(lists=frozenset({"ramadan-greetings", "ramadan-greting", "old", "zz"}))
    found = asked(query, lists=("old",)).lists
    assert [(one.word, one.meant) for one in found] == [("ramadan-greting", "ramadan-greetings"), ("zz", "")]


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
    assert ([one.meant for one in found.lists], [one.meant for one in found.senders]) == ([""], [""])
    assert found.bad == {"eva"}
