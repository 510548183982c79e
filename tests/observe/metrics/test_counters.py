"""The journal's counters: what each event counts as, nothing more, and a limited number of series for any journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpguard.journal.event import Event, Kind
from smtpguard.observe import metrics as room
from smtpguard.observe.metrics import (
    BOUNDS,
    BY_NAME,
    DECISION,
    DECISION_BOUNDS,
    JOURNAL,
    MOST_SERIES,
    OTHER,
    SECONDS,
    Counters,
    Held,
    Spread,
    ends_hold,
)
from tests.every import every

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
WITH_T1: dict[str, Any] = {"with": "T1"}


def event(kind: Kind, id: str = "T1", *, after: float = 0.0, **data: Any) -> Event:
    return Event(kind=kind, id=id, at=T0 + timedelta(seconds=after), data=data,
                 private={"from": ("anna@example.com",), "subject": ("SV: Dieten",)})  # fmt: skip


def verdict(action: str = "relay", id: str = "T1", *, after: float = 0.0, customers: int = 0, **data: Any) -> Event:
    known = {"action": action, "rules": [], "observed": [], "counts": {"customers": customers}, "retry": False}
    return event(Kind.VERDICT, id, after=after, **(known | data))


def counted(*events: Event) -> dict[str, dict[tuple[str, ...], float]]:
    """Counters above zero, without the numbers of entries by kind."""
    tally = Counters()
    for each in events:
        tally.add(each)
    return {
        name.removeprefix("smtpguard_"): grown  # type: ignore[misc]
        for name, series in tally.numbers().items()
        if name not in ("smtpguard_events_total", SECONDS.name, DECISION.name)
        and (grown := {labels: number for labels, number in series.items() if number})
    }


def spread(*events: Event) -> Spread:
    tally = Counters()
    for each in events:
        tally.add(each)
    found = tally.numbers()[SECONDS.name][()]
    assert isinstance(found, Spread)
    return found


def test_known_series_begin_at_zero() -> None:
    tally = Counters()
    tally.expect(rules={"internal-to-list": "hold"}, lists=["news"], hooks=["chat"])
    numbers = tally.numbers()
    assert set(numbers) == {family.name for family in JOURNAL} | {SECONDS.name, DECISION.name}
    assert numbers["smtpguard_rule_messages_total"] == {("internal-to-list", "hold"): 0}
    assert numbers["smtpguard_webhooks_given_up_total"] == {("chat",): 0}
    assert len(numbers["smtpguard_list_news_total"]) == 5
    assert numbers["smtpguard_hold_ends_total"][("expired", "no")] == 0
    counters = [numbers[family.name] for family in JOURNAL]
    assert {number for series in counters for number in series.values()} == {0}
    assert numbers["smtpguard_rule_hold_ends_total"].keys() >= {
        ("internal-to-list", "approved"),
        ("internal-to-list", "void"),
    }
    assert numbers[DECISION.name].keys() == {("approved",), ("confirmed",), ("rejected",), ("withdrawn",), ("expired",)}


def test_decisions_are_timed_and_counted_by_rule() -> None:
    tally = Counters()
    held = Held(T0, ("internal-to-list", "not-a-writer"))
    tally.add(event(Kind.APPROVED, "H1", after=600), held)
    tally.add(event(Kind.REJECTED, "H2", after=-5), held)
    tally.add(event(Kind.VOIDED, "H3", after=9), held)
    tally.add(event(Kind.APPROVED, "H4", after=600))  # the rules that held it are not known any more
    tally.add(event(Kind.APPROVED, "H5", after=600, **WITH_T1), held)  # a copy
    tally.add(event(Kind.REOPENED, "H1", after=900), held)
    numbers = tally.numbers()
    ends = {labels: n for labels, n in numbers["smtpguard_rule_hold_ends_total"].items() if n}
    assert ends == {(rule, end): 1 for rule in held.rules for end in ("approved", "rejected", "void")}
    approved, rejected = numbers[DECISION.name]["approved",], numbers[DECISION.name]["rejected",]
    assert isinstance(approved, Spread)
    assert isinstance(rejected, Spread)
    assert (approved.counts[-1], approved.total) == (1, 600)
    assert dict(zip(DECISION_BOUNDS, approved.counts, strict=False))[300.0] == 0
    assert (rejected.counts[0], rejected.total) == (1, 0), "a clock may be set back"


def test_a_decision_ends_with_its_last_vote() -> None:
    tally = Counters()
    held, decided = Held(T0, ("internal-to-list",)), (T0 + timedelta(seconds=90)).isoformat()
    tally.add(event(Kind.APPROVED, "H1", after=3600, decided_at=decided), held)
    spread = tally.numbers()[DECISION.name]["approved",]
    assert isinstance(spread, Spread)
    assert spread.total == 90


def test_kinds_that_end_a_hold() -> None:
    assert [kind for kind in Kind if ends_hold(event(kind))] == [
        Kind.APPROVED, Kind.CONFIRMED, Kind.REJECTED, Kind.WITHDRAWN, Kind.EXPIRED, Kind.VOIDED,
    ]  # fmt: skip
    assert not ends_hold(event(Kind.APPROVED, **WITH_T1))
    assert ends_hold(event(Kind.REJECTED, **WITH_T1, leads={})), "it is a primary hold from now on"


def test_every_kind_of_entry_is_counted() -> None:
    for kind in Kind:
        tally = Counters()
        tally.add(event(kind))
        grown = {labels for labels, number in tally.numbers()["smtpguard_events_total"].items() if number}
        assert grown == {(kind.value,)}


def test_verdicts_are_counted_by_rule() -> None:
    assert counted(
        verdict("hold", "T1", hold="T1", rules=["internal-to-list", "not-a-writer"], observed=["busy"]),
        verdict("reject", "T2", rules=["automatic-to-list"]),
        verdict("relay", "T3", observed=["busy"], approved=["internal-to-list"]),
        verdict("hold", "T4", hold="T4", rules=["internal-to-list"], **WITH_T1),
    ) == {
        "verdicts_total": {("hold",): 2, ("reject",): 1, ("relay",): 1},
        "holds_total": {("no",): 1, ("yes",): 1},
        "rule_messages_total": {
            ("internal-to-list", "hold"): 2,
            ("not-a-writer", "hold"): 1,
            ("busy", "observed"): 2,
            ("automatic-to-list", "reject"): 1,
            ("internal-to-list", "approved"): 1,
        },
    }


def test_a_retry_is_another_verdict_of_the_same_message() -> None:
    first = verdict("hold", "T1", hold="T1", rules=["internal-to-list"])
    again = verdict("hold", "T2", hold="T1", rules=["internal-to-list"], retry=True)
    assert counted(first, again) == {
        "verdicts_total": {("hold",): 2},
        "holds_total": {("no",): 1},
        "rule_messages_total": {("internal-to-list", "hold"): 1},
    }


@every("outcome", ["relayed", "refused", "lost", "recalled", "gone"])
def test_outcomes_are_counted(outcome: str) -> None:
    told = counted(verdict(customers=40), event(Kind.OUTCOME, outcome=outcome))
    assert told["outcomes_total"] == {(outcome,): 1}
    assert told.get("customers_reached_total") == ({(): 40} if outcome == "relayed" else None)


def test_a_doubt_is_an_outcome() -> None:
    """Doubt counts as an outcome, whether the process that lost the relay journals it or a later one finds it."""
    told = counted(
        verdict(customers=3), event(Kind.IN_DOUBT, outcome="in-doubt"), event(Kind.IN_DOUBT, "T2", why="a crash")
    )
    assert told == {"verdicts_total": {("relay",): 1}, "outcomes_total": {("in-doubt",): 2}}


def test_an_outcome_without_its_verdict_adds_no_customers() -> None:
    assert counted(event(Kind.OUTCOME, outcome="relayed")) == {"outcomes_total": {("relayed",): 1}}
    assert spread(event(Kind.OUTCOME, outcome="relayed")).counts[-1] == 0


def test_the_colleagues_part_adds_no_customers() -> None:
    """The colleagues' part of a hold reaches no customer, although the MTA's outcome for it is journalled."""
    told = counted(verdict("hold", customers=400_000, hold="T1"), event(Kind.OUTCOME, outcome="relayed"))
    assert "customers_reached_total" not in told
    assert told["outcomes_total"] == {("relayed",): 1}


def test_time_from_verdict_to_outcome() -> None:
    found = spread(
        verdict(id="T1"), verdict(id="T2", after=1), verdict(id="T3", after=2), verdict(id="T4", after=3),
        event(Kind.OUTCOME, "T2", after=1.01, outcome="relayed"), event(Kind.OUTCOME, "T1", after=4, outcome="refused"),
        event(Kind.OUTCOME, "T3", after=1, outcome="relayed"),  # a clock was set back
        event(Kind.IN_DOUBT, "T4", after=1003.0, outcome="in-doubt"),
    )  # fmt: skip
    assert found.bounds == BOUNDS
    assert dict(zip((*found.bounds, "all"), found.counts, strict=True)) == {
        0.01: 2, 0.025: 2, 0.05: 2, 0.1: 2, 0.25: 2, 0.5: 2, 1.0: 2, 2.5: 2, 5.0: 3, 10.0: 3, 30.0: 3, 60.0: 3, 300.0: 3,
        600.0: 3, "all": 4,
    }  # fmt: skip
    assert found.total == pytest.approx(0.01 + 4 + 1000)


def test_verdicts_without_an_outcome_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MOST_RELAYING", 2)
    events = [verdict(id=f"T{n}", customers=1) for n in range(3)]
    outcomes = [event(Kind.OUTCOME, f"T{n}", outcome="relayed") for n in range(3)]
    told = counted(*events, *outcomes)
    assert told["customers_reached_total"] == {(): 2}
    assert told["outcomes_total"] == {("relayed",): 3}


def test_ends_of_holds_are_counted() -> None:
    assert counted(
        event(Kind.APPROVED), event(Kind.APPROVED, "T2", **WITH_T1), event(Kind.REJECTED, "T3"),
        event(Kind.WITHDRAWN, "T4"), event(Kind.EXPIRED, "T5"), event(Kind.VOIDED, "T6"), event(Kind.RELEASED),
        event(Kind.ADOPTED, "T6"),
    ) == {"hold_ends_total": {
        ("approved", "no"): 1, ("approved", "yes"): 1, ("rejected", "no"): 1, ("withdrawn", "no"): 1, ("expired", "no"): 1,
        ("void", "no"): 1,
    }}  # fmt: skip


def test_deliveries_of_the_outbox_are_counted() -> None:
    def sent(kind: Kind, outcome: str, recipients: int, **more: Any) -> Event:
        return event(kind, intent="T1-release", outcome=outcome, recipients=recipients, **more)

    assert counted(
        sent(Kind.RELEASE, "attempt", 3),  # the mark before an attempt
        sent(Kind.RELEASE, "sent", 2), sent(Kind.RELEASE, "retry", 1), sent(Kind.IN_DOUBT, "in-doubt", 1),
        sent(Kind.IN_DOUBT, "attempt", 1), sent(Kind.IN_DOUBT, "failed", 1), sent(Kind.RELEASE, "failed", 1),
        sent(Kind.NOTICE, "sent", 1, notice="approve"), sent(Kind.NOTICE, "failed", 2, notice="approve"),
        sent(Kind.NOTICE, "failed", 1, notice="dsn"), sent(Kind.NOTICE, "obsolete", 3, notice="reminder"),
    ) == {
        "release_recipients_total": {("sent",): 2, ("retry",): 1, ("in-doubt",): 1, ("failed",): 2},
        "notice_recipients_total": {
            ("approve", "sent"): 1, ("approve", "failed"): 2, ("dsn", "failed"): 1, ("reminder", "obsolete"): 3,
        },
    }  # fmt: skip


def test_lists_and_webhooks_are_counted() -> None:
    assert counted(
        event(Kind.LIST, "news", news=["failed", "stale"], problem="gone"), event(Kind.LIST, "news", news=["replaced", "well"]),
        event(Kind.WEBHOOK, hook="chat", type="message.held"),
    ) == {
        "list_news_total": {("news", "failed"): 1, ("news", "stale"): 1, ("news", "replaced"): 1, ("news", "well"): 1},
        "webhooks_given_up_total": {("chat",): 1},
    }  # fmt: skip


def test_the_number_of_series_is_bounded() -> None:
    tally = Counters()
    for n in range(MOST_SERIES + 500):
        tally.add(verdict("hold", f"T{n}", hold=f"T{n}", rules=[f"rule-{n}"]))
        tally.add(event(Kind.LIST, f"list-{n}", news=["failed"]))
    numbers = tally.numbers()
    for name, labels in (("rule_messages_total", (OTHER, OTHER)), ("list_news_total", (OTHER, OTHER))):
        series = numbers[f"smtpguard_{name}"]
        assert len(series) == MOST_SERIES + 1
        assert series[labels] == 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("action", "rules", "observed", "approved", "outcome", "recipients", "notice", "news", "hook", "retry", "with", "intent", "counts")  # fmt: skip
SHAPES = st.dictionaries(st.sampled_from(NAMES), JSON)


TOLD = [
    Kind.VERDICT,
    Kind.OUTCOME,
    Kind.IN_DOUBT,
    Kind.RELEASE,
    Kind.NOTICE,
    Kind.LIST,
    Kind.WEBHOOK,
    Kind.EXPIRED,
    Kind.FREEZE,
]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(TOLD), st.sampled_from(["T1", "T2"]), SHAPES), max_size=12))
def test_entries_of_another_version_are_counted_as_far_as_understood(
    entries: list[tuple[Kind, str, dict[str, Any]]],
) -> None:
    """For entries of any version, counters never fall, have all labels of their metric, and contain no private data."""
    tally = Counters()
    before = tally.numbers()
    for kind, id, data in entries:
        tally.add(event(kind, id, **data))
        now = tally.numbers()
        for name, series in now.items():
            if name in (SECONDS.name, DECISION.name):
                continue
            for labels, number in series.items():
                assert number >= before[name].get(labels, 0)  # type: ignore[operator]
                assert len(labels) == len(BY_NAME[name].labels)
                assert not any("anna@" in label or "Dieten" in label for label in labels)
        before = now
    assert sum(before["smtpguard_events_total"].values()) == len(entries)  # type: ignore[arg-type]


def test_asking_about_a_release_is_no_outcome() -> None:
    told = counted(event(Kind.IN_DOUBT, outcome="asked", recipients=1, people=28))
    assert "outcomes_total" not in told
