"""Activity of a period, by rule and by list."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from smtpguard.incidents.activity import Activity, ActivitySums, Decided
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Kind
from tests.clocks import MONDAY
from tests.every import every

HOUR = timedelta(hours=1)


class Journal:
    """Entries one minute apart."""

    def __init__(self) -> None:
        self.sums, self.at = ActivitySums(), MONDAY

    def add(
        self, kind: Kind, id: str, *, after: timedelta = timedelta(minutes=1), under: str = "", **data: Any
    ) -> None:
        """``under``: the primary hold, if it is a copy."""
        self.at += after
        data |= {"with": under} if under else {}
        self.sums.add(microseconds(self.at), kind.value, id, data)

    def held(self, id: str, *rules: str, lists: list[str] | None = None, **data: Any) -> None:
        self.add(Kind.VERDICT, id, action="hold", rules=list(rules), lists=lists or ["news"], **data)

    @property
    def activity(self) -> Activity:
        return self.sums.activity(MONDAY, self.at, UTC)


def test_decisions_are_counted_and_timed() -> None:
    journal = Journal()
    journal.add(Kind.VERDICT, "1", action="relay", counts={"customers": 7})
    journal.add(Kind.VERDICT, "2", action="reject", rules=["no"], lists=["vip"])
    journal.add(Kind.VERDICT, "3", action="defer", rules=[], observed=["watch"])
    journal.held("4", "internal-to-list", "watch-too")
    journal.add(Kind.REJECTED, "4", after=HOUR)
    journal.held("5", "internal-to-list")
    journal.add(Kind.APPROVED, "5", after=3 * HOUR)
    journal.held("6", "internal-to-list")
    found = journal.activity
    assert (found.messages, found.relayed, found.held, found.deferred, found.rejected) == (6, 1, 3, 1, 1)
    assert (found.customers, found.waiting) == (7, 1)
    assert found.decided == Decided(approved=1, rejected=1, seconds=(3600.0, 10800.0))
    assert found.decided.median_seconds == 7200
    assert found.decided.p90_seconds == 10800
    by_rule = {share.name: share for share in found.rules}
    assert [share.name for share in found.rules][:2] == ["internal-to-list", "watch-too"]
    assert (by_rule["internal-to-list"].held, by_rule["internal-to-list"].decided.total) == (3, 2)
    assert by_rule["watch-too"].decided == Decided(rejected=1, seconds=(3600.0,))
    assert (by_rule["watch"].observed, by_rule["no"].rejected) == (1, 1)
    assert {share.name: (share.held, share.rejected) for share in found.lists} == {"news": (3, 0), "vip": (0, 1)}


def test_a_decision_is_timed_by_its_last_vote() -> None:
    journal = Journal()
    journal.held("1", "internal-to-list")
    decided = journal.at + HOUR
    journal.add(Kind.VOTE, "1", after=HOUR, choice="approve", release_at="2026-03-02T11:00:00Z")
    journal.add(Kind.APPROVED, "1", decided_at=decided.isoformat())
    journal.held("2", "internal-to-list")
    journal.add(Kind.APPROVED, "2", decided_at="yesterday")
    assert journal.activity.decided.seconds == (3600.0, 60.0)


def test_a_copy_is_no_separate_decision() -> None:
    journal = Journal()
    journal.held("1", "unapproved-mailing")
    journal.held("2", "unapproved-mailing", under="1")
    journal.add(Kind.APPROVED, "1")
    journal.add(Kind.APPROVED, "2", under="1")
    found = journal.activity
    assert (found.held, found.copies, found.waiting, found.decided.total) == (2, 1, 0, 1)


def test_a_revoked_decision_waits_again_and_counts_once() -> None:
    journal = Journal()
    journal.held("1", "a")
    journal.add(Kind.APPROVED, "1")
    journal.add(Kind.REOPENED, "1")
    assert (journal.activity.waiting, journal.activity.decided.total) == (1, 0)
    journal.add(Kind.REJECTED, "1")
    assert journal.activity.decided == Decided(rejected=1, seconds=(180.0,))


def test_void_holds_retries_and_preapprovals_are_not_counted() -> None:
    journal = Journal()
    journal.held("1", "a")
    journal.add(Kind.VOIDED, "1")
    journal.held("1", "a", retry=True)
    journal.held("2", "a", test=True)
    assert (journal.activity.held, journal.activity.waiting) == (1, 0)


def test_a_decision_on_an_earlier_hold_is_not_counted() -> None:
    journal = Journal()
    journal.add(Kind.APPROVED, "earlier")
    assert journal.activity.decided == Decided()


@every(("approved", "rejected", "strict"), [(3, 2, True), (2, 3, False), (4, 0, False), (5, 5, False), (6, 5, True)])
def test_a_rule_is_too_strict_if_most_of_its_holds_are_approved(approved: int, rejected: int, strict: bool) -> None:
    journal = Journal()
    for n in range(approved + rejected):
        journal.held(str(n), "a")
        journal.add(Kind.APPROVED if n < approved else Kind.REJECTED, str(n))
    [share] = journal.activity.rules
    assert share.decided.too_strict is strict


@every("data", [{}, {"action": 7}, {"action": "hold", "rules": "x", "lists": None}, {"counts": []}])
def test_entries_of_another_version_are_counted_as_far_as_understood(data: dict[str, Any]) -> None:
    journal = Journal()
    journal.add(Kind.VERDICT, "1", **data)
    assert journal.activity.rules == []


def test_confirmations_are_counted_separately() -> None:
    journal = Journal()
    for n in range(6):
        journal.add(Kind.VERDICT, f"{n}", action="confirm", rules=["first-contacts"], lists=["news"])
    journal.add(Kind.VERDICT, "copy", action="confirm", rules=["first-contacts"], lists=["news"], under="0")
    for n in range(4):
        journal.add(Kind.CONFIRMED, f"{n}")
    journal.add(Kind.WITHDRAWN, "4")
    journal.add(Kind.UNCONFIRMED, "5")
    assert journal.activity.waiting == 1
    journal.add(Kind.APPROVED, "5")
    found = journal.activity
    [rule] = found.rules
    assert (found.asked, found.held, found.copies, found.messages) == (7, 0, 1, 7)
    assert (rule.asked, rule.held, rule.decided.confirmed, rule.decided.approved) == (7, 0, 4, 1)
    assert (rule.decided.total, rule.decided.share_approved, rule.decided.too_strict) == (6, 0.5, False)
    assert found.days[0].asked == 7
