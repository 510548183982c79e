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


def said(language: str = "en", **policies: Documents | None) -> Purposes:
    return purposes(policies, delimiters="+", language=language)


def test_as_the_policy_of_then_has_it_in_the_reader_s_language() -> None:
    assert said(p1=OLD).of == {"a": "Never to customers", "gone": "It was for Easter"}
    assert said("sv", p1=OLD).of["a"] == "Aldrig till kunder"


def test_where_several_decided_the_last_one_says_it_and_the_rules_of_all_are_known() -> None:
    assert said(p1=OLD, p2=NEW).of == {"a": "Only with a second look", "gone": "It was for Easter", "b": ""}
    assert said(p2=NEW, p1=OLD).of["a"] == "Never to customers"
    assert said() == Purposes()


@pytest.mark.parametrize(
    "documents",
    [None, {}, {"other.yaml": b""}, {"policy.yaml": b"\x00"}, {"policy.yaml": b"\xff\xfe"}, {"policy.yaml": b""},
     {"policy.yaml": b"version: 99\n"}, {"policy.yaml": b"rules: [{id: a, then: obliterate}]"}],
)  # fmt: skip
def test_what_is_not_kept_or_not_read_any_more_takes_nothing_from_the_others(documents: Documents | None) -> None:
    found = said(p1=documents, p2=NEW)
    assert found.lost == ("p1",)
    assert found.of == {"a": "Only with a second look", "b": ""}
