"""The purposes of rules, from the policies that decided."""

from __future__ import annotations

import pytest

from smtpguard.incidents.purposes import Documents, Purposes, purposes

HEAD = """\
version: 1
organization: {name: Example AB, domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: [communications]}
lists: {news: {title: News, addresses: [news@lists.example.com]}}
"""


def policy(*rules: str) -> Documents:
    lines = "\n".join(f"  - {{id: {rule}, when: {{recipients.list_addresses: any}}, then: hold}}" for rule in rules)
    return {"policy.yaml": f"{HEAD}rules:\n{lines}\n".encode()}


OLD = policy("a, description: {en: Never to customers, sv: Aldrig till kunder}", "gone, description: It was for Easter")
NEW = policy("a, description: {en: Only with a second look, sv: Bara med en andra blick}", "b")


def purposes_of(language: str = "en", **policies: Documents | None) -> Purposes:
    return purposes(policies, delimiters="+", language=language)


def test_purposes_come_from_the_policy_of_that_time() -> None:
    assert purposes_of(p1=OLD).of == {"a": "Never to customers", "gone": "It was for Easter"}
    assert purposes_of("sv", p1=OLD).of["a"] == "Aldrig till kunder"


def test_the_last_deciding_policy_gives_the_purpose() -> None:
    assert purposes_of(p1=OLD, p2=NEW).of == {"a": "Only with a second look", "gone": "It was for Easter", "b": ""}
    assert purposes_of(p2=NEW, p1=OLD).of["a"] == "Never to customers"
    assert purposes_of() == Purposes()


@pytest.mark.parametrize(
    "documents",
    [None, {}, {"other.yaml": b""}, {"policy.yaml": b"\x00"}, {"policy.yaml": b"\xff\xfe"}, {"policy.yaml": b""},
     {"policy.yaml": b"version: 99\n"}, {"policy.yaml": b"rules: [{id: a, then: obliterate}]"}],
)  # fmt: skip
def test_an_unavailable_policy_does_not_affect_others(documents: Documents | None) -> None:
    found = purposes_of(p1=documents, p2=NEW)
    assert found.lost == ("p1",)
    assert found.of == {"a": "Only with a second look", "b": ""}
