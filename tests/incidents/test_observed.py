"""What an observing policy would have held, in decisions that people would have had to make."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from smtpguard.incidents.observed import ObservedSums, enforced_actions

AT = 1_772_442_000_000_000
SINCE, UNTIL = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 15, tzinfo=UTC)
RULES = [
    {"id": "to-list", "then": "hold"},
    {"id": "no-contracts", "then": "reject"},
    {"id": "busy", "then": "hold", "mode": "observe"},
    {"id": "many", "then": "alarm"},
    {"id": "asked", "then": "confirm"},
]


def verdict(*observed: str, action: str = "relay", **more: Any) -> dict[str, Any]:
    reasons = [{"rule": rule, "fact": "mailing.customers", "observed": "25", "limit": ">= 20"} for rule in observed]
    return {
        "action": action,
        "observed": list(observed),
        "reasons": reasons,
        "counts": {"total": 30, "customers": 25},
        **more,
    }


def clear(sender: str = "anna@example.com", subject: str = "Lunch") -> dict[str, tuple[str, ...]]:
    return {"from": (sender,), "subject": (subject,)}


def test_actions_of_rules_without_enforce_false() -> None:
    assert enforced_actions(RULES) == {
        "to-list": "hold",
        "no-contracts": "reject",
        "busy": "",
        "many": "",
        "asked": "hold",
    }


def test_a_mailing_is_one_decision_with_its_strictest_action() -> None:
    sums = ObservedSums(enforced_actions(RULES), examples=2)
    for n in range(4):
        sums.add(AT + n, f"T{n}", verdict("to-list", mailing="M1", lists=["news"]), clear())
    sums.add(AT, "T5", verdict("to-list", "no-contracts"), clear("omar@example.com"))
    sums.add(AT, "T6", verdict("busy", "many"), clear())
    sums.add(AT, "T7", verdict(), clear())
    sums.add(AT, "T8", verdict("of-yesterday"), None)
    found = sums.totals(SINCE, UNTIL)
    assert (found.messages, found.enforced, found.decisions) == (8, 0, 2)
    assert found.weeks == 1, "a shorter time is not multiplied"
    assert found.would == {"hold": 5, "defer": 0, "reject": 1}
    rules = {share.name: share for share in found.rules}
    assert set(rules) == {"to-list", "no-contracts", "of-yesterday"}
    assert (rules["to-list"].messages, rules["to-list"].decisions, rules["to-list"].customers) == (5, 1, 125)
    assert [example.id for example in rules["to-list"].examples] == ["T0", "T5"], "one example for each decision"
    assert rules["to-list"].examples[0].because == (("mailing.customers", "25", ">= 20"),)
    assert [(share.name, share.decisions) for share in found.senders] == [
        ("anna@example.com", 1),
        ("", 1),
        ("omar@example.com", 0),
    ]
    assert [(share.name, share.messages) for share in found.lists] == [("news", 4)]


def test_retries_parts_and_enforced_verdicts_are_separate() -> None:
    sums = ObservedSums(enforced_actions(RULES))
    sums.add(AT, "T1", verdict("to-list", retry=True), clear())
    sums.add(AT, "T2", verdict("to-list", test=True), clear())
    sums.add(AT, "T3", {"action": "defer", "observed": ["to-list"]}, clear())  # it failed inside the guard
    sums.add(AT, "T4", verdict(action="hold"), clear())
    found = sums.totals(SINCE, UNTIL)
    assert (found.messages, found.enforced, found.decisions, found.rules) == (1, 1, 0, [])
