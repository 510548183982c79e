"""What belongs to an incident, what became of each message, and what is said of what nobody can know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smtpguard.audit.about import About
from smtpguard.audit.chain import Clear, Entry, Seal, body_of, microseconds
from smtpguard.audit.event import Event, Kind
from smtpguard.audit.report import Case, End, Report, Sum
from smtpguard.audit.timeline import SHOWN

SEAL = Seal(b"a secret of thirty-two bytes, ok", "journal")
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LIST = "ramadan-greetings"
Pair = tuple[Entry, Clear | None]
ALL = About(since=0)


class Journal:
    """Entries in order, a second apart."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def write(self, kind: Kind, id: str, *, after: timedelta = timedelta(seconds=1), private: Mapping[str, Sequence[str]] | None = None, **data: Any) -> None:  # fmt: skip
        before = self.pairs[-1][0] if self.pairs else None
        at = (before.time if before is not None else T0) + after
        event = Event(kind=kind, id=id, at=at, data=data, private={r: tuple(v) for r, v in (private or {}).items()})
        entry = Entry(
            seq=len(self.pairs) + 1,
            at=microseconds(at),
            kind=kind.value,
            id=id,
            body=body_of(event, SEAL),
            prev=b"",
            hash=b"",
        )
        self.pairs.append((entry, private))

    def verdict(self, id: str, action: str, *, sender: str = "kalle@example.com", subject: str = "SV: Dieten", reach: int = 1, **more: Any) -> None:  # fmt: skip
        data = {"action": action, "counts": {"reach": reach}, "lists": [LIST], "mailing": "M1", "policy": "p1"}
        if action == "hold":
            data["hold"] = id
        private = {"from": [sender], "subject": [subject], "reverse_path": [sender]}
        self.write(Kind.VERDICT, id, private=private, **{**data, **more})

    def relayed(self, id: str, outcome: str = "relayed", **more: Any) -> None:
        self.verdict(id, "relay", **more)
        self.write(Kind.OUTCOME, id, outcome=outcome)

    def case(self, about: About = ALL) -> Case:
        case = Case(about, SEAL)
        for entry, clear in self.pairs:
            if entry.kind == Kind.VERDICT.value:
                case.judge(entry, clear)
        for entry, clear in self.pairs:
            if entry.kind != Kind.VERDICT.value and entry.id in case.ids:
                case.add(entry, clear)
        for pair in self.pairs:
            case.around(*pair)
        return case

    def report(self, about: About = ALL) -> Report:
        return self.case(about).report()


@pytest.fixture
def journal() -> Journal:
    return Journal()


def ends(report: Report) -> dict[End, tuple[int, int]]:
    return {end: (some.messages, some.people) for end, some in report.ends.items()}


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        ("relayed", End.DELIVERED),
        ("refused", End.REFUSED),
        ("recalled", End.NOT_SENT),
        ("gone", End.NOT_SENT),
        ("lost", End.NOT_SENT),
        ("unanswered", End.NOT_SENT),
    ],
)
def test_what_became_of_a_verdict_to_relay(journal: Journal, outcome: str, end: End) -> None:
    journal.relayed("T1", outcome, reach=3)
    assert ends(journal.report()) == {end: (1, 3)}


def test_without_an_outcome_nobody_knows(journal: Journal) -> None:
    journal.verdict("T1", "relay", reach=7)
    journal.relayed("T2")
    journal.write(Kind.IN_DOUBT, "T2")
    report = journal.report()
    assert ends(report) == {End.IN_DOUBT: (2, 8)}
    assert report.unsettled == ["T1", "T2"]
    assert report.reached == Sum()
    assert report.open == Sum(messages=2, people=8)


OF_A_HOLD = {
    (): End.WAITING,
    (Kind.VOTE,): End.WAITING,
    (Kind.APPROVED,): End.ON_ITS_WAY,
    (Kind.APPROVED, Kind.RELEASED): End.RELEASED,
    (Kind.VOTE, Kind.REJECTED): End.DECLINED,
    (Kind.WITHDRAWN,): End.WITHDRAWN,
    (Kind.ESCALATED, Kind.EXPIRED): End.EXPIRED,
    (Kind.VOIDED,): End.VOID,
    (Kind.VOIDED, Kind.ADOPTED): End.WAITING,
}


@pytest.mark.parametrize("kinds", OF_A_HOLD, ids=lambda kinds: "-".join(k.value for k in kinds) or "nothing")
def test_what_became_of_a_hold(journal: Journal, kinds: tuple[Kind, ...]) -> None:
    journal.verdict("H1", "hold", reach=400_000)
    for kind in kinds:
        journal.write(kind, "H1")
    assert ends(journal.report()) == {OF_A_HOLD[kinds]: (1, 400_000)}


@pytest.mark.parametrize(("action", "end"), [("reject", End.REJECTED), ("defer", End.DEFERRED)])
def test_what_never_went_on(journal: Journal, action: str, end: End) -> None:
    journal.verdict("T1", action)
    assert ends(journal.report()) == {end: (1, 1)}
    assert journal.report().open.messages == 0


def test_the_colleagues_part_of_what_is_held_is_not_its_delivery(journal: Journal) -> None:
    journal.verdict("H1", "hold", reach=30)
    journal.write(Kind.OUTCOME, "H1", outcome="relayed")
    journal.verdict("H2", "hold", reach=30)
    journal.write(Kind.RELEASE, "H2", intent="H2-part", outcome="sent", recipients=1)
    report = journal.report()
    assert ends(report) == {End.WAITING: (2, 60)}
    assert report.parts == 2


def test_recipients_whom_the_relay_refused_for_good(journal: Journal) -> None:
    journal.verdict("H1", "hold", reach=30)
    for kind in (Kind.APPROVED, Kind.RELEASED):
        journal.write(Kind.RELEASE, "H1", intent="H1-release", outcome="failed", recipients=2)
        journal.write(kind, "H1")
    assert journal.report().undelivered == 4


def test_what_is_held_and_comes_again_is_one_message(journal: Journal) -> None:
    journal.verdict("H1", "hold", reach=5)
    journal.verdict("T2", "hold", reach=5, hold="H1", retry=True)
    report = journal.report()
    assert (report.messages, report.again, ends(report)) == (1, 1, {End.WAITING: (1, 5)})
    late = journal.report(About(ids=frozenset({"T2"}), whole=False))
    assert (late.messages, late.again) == (1, 0), "its first coming is not what was asked about"


def test_of_a_copy_the_hold_that_people_decide_on_belongs_to_it(journal: Journal) -> None:
    journal.verdict("H1", "hold", mailing="M1")
    journal.verdict("H2", "hold", mailing="M1", **{"with": "H1"})
    journal.write(Kind.VOTE, "H1", private={"actor": ["eva@example.com"]}, choice="reject")
    assert {"H1", "H2", "M1"} <= journal.case(About(ids=frozenset({"H2"}))).ids


ASKED = {
    "a transaction": (About(ids=frozenset({"T1"})), {"T1"}),
    "a mailing": (About(ids=frozenset({"M2"})), {"T2"}),
    "a content": (About(ids=frozenset({"c3"})), {"T3"}),
    "a freeze": (About(ids=frozenset({"F4"})), {"T4"}),
    "one of several": (About(ids=frozenset({"T1", "M2"})), {"T1", "T2"}),
    "a list": (About(lists=frozenset({"newsletter"})), {"T3"}),
    "a sender": (About(senders=frozenset({"Sara@Example.com"})), {"T2"}),
    "an erased sender": (About(senders=frozenset({"otto@example.com"})), {"T5"}),
    "a subject": (About(subject="MÖTE"), {"T4"}),
    "all must fit": (About(lists=frozenset({LIST}), senders=frozenset({"kalle@example.com"}), subject="diet"), {"T1"}),
    "since": (About(since=microseconds(T0 + timedelta(seconds=4))), {"T4", "T5"}),
    "until": (About(until=microseconds(T0 + timedelta(seconds=2))), {"T1"}),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked(journal: Journal, name: str) -> None:
    about, wanted = ASKED[name]
    journal.verdict("T1", "relay", content="c1")
    journal.verdict("T2", "relay", sender="sara@example.com", mailing="M2")
    journal.verdict("T3", "relay", lists=["newsletter"], content="c3")
    journal.verdict("T4", "defer", subject="Möte kl 6", freeze="F4", lists=[])
    journal.verdict("T5", "relay", sender="otto@example.com", subject="", lists=[])
    journal.pairs[4] = (journal.pairs[4][0], None)
    case = Case(about, SEAL)
    assert {entry.id for entry, clear in journal.pairs if case.judge(entry, clear)} == wanted


def test_nothing_fits(journal: Journal) -> None:
    journal.verdict("T1", "relay")
    with pytest.raises(ValueError, match="no message"):
        journal.report(About(ids=frozenset({"T2"})))


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


@pytest.mark.parametrize("name", AROUND)
def test_what_happened_around_it(journal: Journal, name: str) -> None:
    kind, id, data, wanted = AROUND[name]
    journal.relayed("T1", streams=["shop"])
    journal.write(kind, id, **data)
    assert any(step.entry.id == id for step in journal.report().steps) is wanted


def test_a_freeze_of_its_writer_though_its_name_is_private(journal: Journal) -> None:
    journal.relayed("T1")
    for who in ("kalle@example.com", "sara@example.com"):
        journal.write(Kind.FREEZE, f"F-{who}", private={"from": [who]}, selector="sender", value=None)
    assert [s.entry.id for s in journal.report().steps if s.entry.kind == "freeze"] == ["F-kalle@example.com"]


def test_a_freeze_long_after_is_another_matter_unless_it_stopped_it(journal: Journal) -> None:
    journal.relayed("T1")
    journal.write(Kind.FREEZE, "F1", after=timedelta(days=2), selector="all", value="")
    assert [s.entry.kind for s in journal.report().steps] == ["verdict", "outcome"]


def test_the_policy_that_decided_belongs_to_it_however_old(journal: Journal) -> None:
    for sha256 in ("p0", "p1"):
        journal.write(Kind.POLICY, sha256, sha256=sha256)
    journal.relayed("T1")
    assert [s.entry.id for s in journal.report().steps] == ["p1", "T1", "T1"]


def test_of_masses_the_first_and_the_last_are_told(journal: Journal) -> None:
    for n in range(3 * SHOWN):
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
    assert report.steps[-1].entry.kind == "mailing", "what people did is told whole"


def test_few_are_told_whole(journal: Journal) -> None:
    for n in range(SHOWN + 3):
        journal.relayed(f"T{n}")
    steps = journal.report().steps
    assert len(steps) == 2 * (SHOWN + 3)
    assert not any(step.left_out for step in steps)


def test_who_wrote_it_and_why_it_was_held(journal: Journal) -> None:
    why = [
        {"rule": "no-pork", "fact": "message.topics", "observed": "pork", "limit": "any"},
        {"rule": "watched", "fact": "sender.address", "observed": None, "limit": None},
    ]
    journal.verdict(
        "H1", "hold", rules=["no-pork"], observed=["watched"], reasons=why, client="192.0.2.1", content="c1"
    )
    journal.verdict("H2", "hold", rules=["no-pork"], reasons=why[:1], sender="", reach_at_least=True)
    report = journal.report()
    assert report.writers == {("From", "kalle@example.com"): 1, ("reverse-path", "kalle@example.com"): 1}
    assert report.rules == {("no-pork", "enforce"): 2, ("watched", "observe"): 1}
    assert report.reasons == {("no-pork", "message.topics", "pork", "any"): 2}
    assert (report.clients, report.contents, report.policies) == ({"192.0.2.1": 1}, {"c1": 1}, {"p1": 2})
    assert report.ends[End.WAITING].at_least


def test_what_retention_erased_is_said(journal: Journal) -> None:
    journal.relayed("T1")
    journal.relayed("T2", sender="sara@example.com")
    journal.pairs = [(entry, None if entry.id == "T1" else clear) for entry, clear in journal.pairs]
    report = journal.report()
    assert report.erased == 1
    assert set(report.writers) == {("From", "sara@example.com"), ("reverse-path", "sara@example.com")}


def test_a_verdict_that_failed_says_little_and_breaks_nothing(journal: Journal) -> None:
    journal.write(Kind.VERDICT, "T1", action="defer", rules=[], failure="KeyError")
    assert ends(journal.report()) == {End.DEFERRED: (1, 0)}


def test_the_period_begins_with_the_first_message_and_ends_a_day_after_the_last(journal: Journal) -> None:
    journal.relayed("T1")
    begin, end = journal.case(replace(ALL, ids=frozenset({"T1"}))).period()
    assert (begin, end) == (microseconds(T0 + timedelta(seconds=1)), microseconds(T0 + timedelta(days=1, seconds=2)))
