"""Which messages and which other entries belong to an incident."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Case
from smtpguard.incidents.statement import SHOWN
from smtpguard.journal.chain import microseconds
from smtpguard.journal.distinct import Interval
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Outcome
from tests.every import every
from tests.incidents.written import ALL, LIST, SEAL, T0, Journal


@pytest.fixture
def journal() -> Journal:
    return Journal()


def test_a_retry_of_a_hold_is_one_message(journal: Journal) -> None:
    journal.verdict("H1", "hold", reach=5)
    journal.verdict("T2", "hold", reach=5, hold="H1", retry=True)
    report = journal.report()
    assert (report.messages, report.again, report.ends[Outcome.WAITING].people) == (1, 1, Interval(5, 5))
    late = journal.report(IncidentQuery(ids=frozenset({"T2"}), whole=False))
    assert (late.messages, late.again) == (1, 0), "the first attempt is outside the query"


def test_a_copy_includes_its_primary_hold(journal: Journal) -> None:
    journal.verdict("H1", "hold", mailing="M1")
    first: dict[str, Any] = {"with": "H1"}
    journal.verdict("H2", "hold", mailing="M1", **first)
    journal.write(Kind.VOTE, "H1", private={"actor": ["eva@example.com"]}, choice="reject")
    assert {"H1", "H2", "M1"} <= journal.case(IncidentQuery(ids=frozenset({"H2"}))).ids


ASKED = {
    "a transaction": (IncidentQuery(ids=frozenset({"T1"})), {"T1"}),
    "a mailing": (IncidentQuery(ids=frozenset({"M2"})), {"T2"}),
    "a content": (IncidentQuery(ids=frozenset({"c3"})), {"T3"}),
    "a freeze": (IncidentQuery(ids=frozenset({"F4"})), {"T4"}),
    "one of several": (IncidentQuery(ids=frozenset({"T1", "M2"})), {"T1", "T2"}),
    "a list": (IncidentQuery(lists=frozenset({"newsletter"})), {"T3"}),
    "a sender": (IncidentQuery(senders=frozenset({"Sara@Example.com"})), {"T2"}),
    "an erased sender": (IncidentQuery(senders=frozenset({"otto@example.com"})), {"T5"}),
    "a subject": (IncidentQuery(subject="MÖTE"), {"T4"}),
    "a subject in another spelling": (IncidentQuery(subject="Mo\u0308te"), {"T4"}),
    "all must fit": (
        IncidentQuery(lists=frozenset({LIST}), senders=frozenset({"kalle@example.com"}), subject="diet"),
        {"T1"},
    ),
    "since": (IncidentQuery(since=microseconds(T0 + timedelta(seconds=4))), {"T4", "T5"}),
    "until": (IncidentQuery(until=microseconds(T0 + timedelta(seconds=2))), {"T1"}),
}


@every("name", ASKED)
def test_queries_select_messages(name: str) -> None:
    journal = Journal()
    query, wanted = ASKED[name]
    journal.verdict("T1", "relay", content="c1")
    journal.verdict("T2", "relay", sender="sara@example.com", mailing="M2")
    journal.verdict("T3", "relay", lists=["newsletter"], content="c3")
    journal.verdict("T4", "defer", subject="Möte kl 6", freeze="F4", lists=[])
    journal.verdict("T5", "relay", sender="otto@example.com", subject="", lists=[])
    journal.pairs[4] = (journal.pairs[4][0], None)
    case = Case(query, SEAL)
    assert {entry.id for entry, clear in journal.pairs if case.add_verdict(entry, clear)} == wanted


AROUND: dict[str, tuple[Kind, str, dict[str, Any], bool]] = {
    "everything frozen": (Kind.FREEZE, "F1", {"selector": "all", "value": ""}, True),
    "its list frozen": (Kind.FREEZE, "F1", {"selector": "list", "value": LIST}, True),
    "another list frozen": (Kind.FREEZE, "F1", {"selector": "list", "value": "newsletter"}, False),
    "its mailing thawed": (Kind.THAW, "F1", {"selector": "mailing", "value": "M1"}, True),
    "a conversation": (Kind.FREEZE, "F1", {"selector": "thread", "value": "<1@example.com>"}, False),
    "its list read": (Kind.LIST, LIST, {}, True),
    "another list read": (Kind.LIST, "newsletter", {}, False),
    "a policy": (Kind.POLICY, "P2", {"sha256": "p2"}, True),
    "its stream": (Kind.STREAM, "shop", {}, True),
    "another stream": (Kind.STREAM, "hr", {}, False),
    "a start": (Kind.START, "S1", {}, False),
}


@every("name", AROUND)
def test_related_events_are_included(name: str) -> None:
    journal = Journal()
    kind, id, data, wanted = AROUND[name]
    journal.relayed("T1", streams=["shop"])
    journal.write(kind, id, **data)
    assert any(step.entry.id == id for step in journal.report().steps) is wanted


def test_a_breaker_that_stopped_the_list_is_included(journal: Journal) -> None:
    """It is there once, with the freeze that it made; one that stopped something else is not."""
    figures: dict[str, Any] = {"breaker": "bounces", "limit": ">= 1", "counted": 1, "people": 9, "observed": False}
    journal.relayed("T1")
    journal.write(Kind.TRIPPED, "M2", freezes=["F1", "F2"], **figures)
    for id, name in (("F1", LIST), ("F2", "newsletter")):
        journal.write(Kind.FREEZE, id, selector="list", value=name)
    journal.write(Kind.TRIPPED, "M3", freezes=["F3"], **figures)
    journal.write(Kind.FREEZE, "F3", selector="mailing", value="M3")
    journal.write(Kind.TRIPPED, "M1", freezes=[], **{**figures, "observed": True})
    journal.verdict("H1", "hold")
    report = journal.report()
    seen = [(step.entry.kind, step.entry.id) for step in report.steps if step.entry.kind in ("tripped", "freeze")]
    assert seen == [("tripped", "M2"), ("freeze", "F1"), ("tripped", "M1")]


def test_a_freeze_of_the_sender_is_included(journal: Journal) -> None:
    journal.relayed("T1")
    for who in ("kalle@example.com", "sara@example.com"):
        journal.write(Kind.FREEZE, f"F-{who}", private={"from": [who]}, selector="sender", value=None)
    assert [s.entry.id for s in journal.report().steps if s.entry.kind == "freeze"] == ["F-kalle@example.com"]


def test_a_much_later_freeze_is_included_only_if_it_stopped_mail(journal: Journal) -> None:
    journal.relayed("T1")
    journal.write(Kind.FREEZE, "F1", after=timedelta(days=2), selector="all", value="")
    assert [s.entry.kind for s in journal.report().steps] == ["verdict", "outcome"]


def test_the_deciding_policy_is_included_however_old(journal: Journal) -> None:
    for sha256 in ("p0", "p1"):
        journal.write(Kind.POLICY, sha256, sha256=sha256)
    journal.relayed("T1")
    assert [s.entry.id for s in journal.report().steps] == ["p1", "T1", "T1"]


def test_of_many_messages_the_first_and_last_are_shown(journal: Journal) -> None:
    for n in range(SHOWN + 3):
        journal.relayed(f"T{n}")
    assert [step.left_out for step in journal.report().steps] == [0] * 2 * (SHOWN + 3), "of a few all are shown"
    for n in range(SHOWN + 3, 3 * SHOWN):
        journal.relayed(f"T{n}")
    journal.write(Kind.MAILING, "M1", what="stop")
    report = journal.report()
    assert report.messages == 3 * SHOWN
    assert [s.entry.seq for s in report.steps] == sorted({s.entry.seq for s in report.steps})
    verdicts = [s for s in report.steps if s.entry.kind == "verdict"]
    assert len(verdicts) == 2 * SHOWN
    assert [s.entry.id for s in verdicts][:2] + [s.entry.id for s in verdicts][-1:] == ["T0", "T1", f"T{3 * SHOWN - 1}"]
    assert [n for n, s in enumerate(verdicts) if s.left_out] == [SHOWN - 1]
    assert verdicts[SHOWN - 1].left_out == SHOWN
    assert report.steps[-1].entry.kind == "mailing", "actions of people are all shown"


def test_the_period_ends_a_day_after_the_last_message(journal: Journal) -> None:
    journal.relayed("T1")
    begin, end = journal.case(replace(ALL, ids=frozenset({"T1"}))).period()
    assert (begin, end) == (microseconds(T0 + timedelta(seconds=1)), microseconds(T0 + timedelta(days=1, seconds=2)))


def test_the_time_of_a_message_is_when_it_came(journal: Journal) -> None:
    """What a bypass relayed enters the journal once the store is back, an hour later."""
    journal.verdict("T1", "relay", happened=microseconds(T0))
    journal.verdict("T2", "relay", after=timedelta(hours=1))
    noon = microseconds(T0 + timedelta(minutes=30))
    assert journal.report(IncidentQuery(since=microseconds(T0), until=noon)).first == T0
    assert journal.report(IncidentQuery(since=noon)).messages == 1
