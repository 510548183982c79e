"""The outcome of each message of an incident, how many people have it, and what the report says of the unknown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Report
from smtpguard.journal.chain import ERASED
from smtpguard.journal.distinct import Interval
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Outcome, Sum
from tests.every import every
from tests.incidents.written import LIST, Journal


@pytest.fixture
def journal() -> Journal:
    return Journal()


def ends(report: Report) -> dict[Outcome, tuple[int, Any]]:
    return {end: (some.messages, _number(some.people)) for end, some in report.ends.items()}


def _number(some: Interval) -> Any:
    return some.low if some.exact else tuple(some)


def test_messages_that_were_not_sent(journal: Journal) -> None:
    for outcome in ("recalled", "gone", "unanswered"):
        journal.relayed(outcome, outcome, reach=3)
    journal.verdict("T4", "reject")
    journal.verdict("T5", "defer")
    journal.write(Kind.VERDICT, "T6", action="defer", rules=[], failure="KeyError")
    report = journal.report()
    assert ends(report) == {Outcome.NOT_SENT: (3, 9), Outcome.REJECTED: (1, 1), Outcome.DEFERRED: (2, 1)}
    assert report.open.messages == 0


def test_a_copy_of_a_mailing_that_people_had_rejected_is_rejected_by_people(journal: Journal) -> None:
    reasons = [{"rule": "mailing-rejected", "fact": "mailing.rejected"}]
    journal.verdict("T1", "reject", reach=3, reasons=reasons)
    journal.verdict("T2", "relay", reach=2, reasons=reasons)
    assert ends(journal.report()) == {Outcome.DECLINED: (1, 3), Outcome.IN_DOUBT: (1, 2)}


def test_without_an_outcome_the_fate_is_unknown(journal: Journal) -> None:
    journal.verdict("T1", "relay", reach=7)
    journal.relayed("T2")
    journal.write(Kind.IN_DOUBT, "T2")
    report = journal.report()
    assert ends(report) == {Outcome.IN_DOUBT: (2, 8)}
    assert report.unsettled == ["T1", "T2"]
    assert report.reached == Sum()
    assert report.open == Sum(messages=2, people=Interval(8, 8))


OF_A_HOLD = {
    (Kind.VOIDED,): Outcome.VOID,
    (Kind.VOIDED, Kind.ADOPTED): Outcome.WAITING,
    (Kind.APPROVED, Kind.VOTE, Kind.REJECTED): Outcome.DECLINED,
    (Kind.APPROVED, Kind.WITHDRAWN): Outcome.WITHDRAWN,
    (Kind.APPROVED, Kind.REOPENED): Outcome.WAITING,
    (Kind.APPROVED, Kind.REOPENED, Kind.APPROVED, Kind.RELEASED): Outcome.RELEASED,
}


@every("kinds", OF_A_HOLD)
def test_outcomes_of_a_hold(kinds: tuple[Kind, ...]) -> None:
    journal = Journal()
    journal.verdict("H1", "hold", reach=400_000)
    for kind in kinds:
        journal.write(kind, "H1")
    # the entries do not say for whom the relay took it
    people = (0, 400_000) if OF_A_HOLD[kinds] is Outcome.RELEASED else 400_000
    assert ends(journal.report()) == {OF_A_HOLD[kinds]: (1, people)}


UNDOABLE = {
    (): Outcome.ON_ITS_WAY,
    ("taken-back",): Outcome.WAITING,
    ("lapsed",): Outcome.WAITING,
    ("taken-back", "approve"): Outcome.WAITING,
}


@every("then", UNDOABLE)
def test_what_can_still_be_undone_is_approved(then: tuple[str, ...]) -> None:
    journal = Journal()
    journal.verdict("H1", "hold")
    journal.write(Kind.VOTE, "H1", choice="approve")
    journal.write(Kind.VOTE, "H1", choice="approve", release_at="2026-03-02T09:01:00Z")
    for choice in then:
        journal.write(Kind.VOTE, "H1", choice=choice)
    assert ends(journal.report()) == {UNDOABLE[then]: (1, 1)}


def test_the_colleagues_part_is_no_delivery_of_the_hold(journal: Journal) -> None:
    mine = [f"{n}@example.com" for n in range(30)]
    journal.verdict("H1", "hold", reach=30)
    journal.write(Kind.OUTCOME, "H1", outcome="relayed")
    journal.verdict("H2", "hold", reach=30, recipients=mine, apart=1, apart_at=[0])
    sent: dict[str, Any] = {"intent": "H2-part", "outcome": "sent", "recipients": 1}
    journal.write(Kind.RELEASE, "H2", private={"recipients": mine[:1]}, **sent)
    report = journal.report()
    assert ends(report) == {Outcome.DELIVERED: (1, 1), Outcome.WAITING: (2, 59)}
    assert report.parts == 2
    assert (report.reached.messages, _number(report.reached.people)) == (1, 1)


ATTEMPTS: dict[str, tuple[list[dict[str, Any]], bool, dict[Outcome, tuple[int, int]], tuple[int, int]]] = {
    # the entries of a release to a list of 28 and two others; whether it is over; the expected ends; and what is still
    # open
    "the list in doubt": ([{"outcome": "sent", "recipients": 2, "people": 2}, {"outcome": "failed", "recipients": 1, "people": 28, "why": "in-doubt"}], True, {Outcome.RELEASED: (1, 2), Outcome.IN_DOUBT: (1, 28)}, (1, 28)),
    "two failed, the list in doubt": ([{"outcome": "failed", "recipients": 2, "people": 2, "why": "refused"}, {"outcome": "failed", "recipients": 1, "people": 28, "why": "in-doubt"}], True, {Outcome.IN_DOUBT: (1, 28), Outcome.UNDELIVERED: (1, 2)}, (1, 28)),
    "two delivered, the list deferred": ([{"outcome": "sent", "recipients": 2, "people": 2}, {"outcome": "retry", "recipients": 1}], False, {Outcome.RELEASED: (1, 2), Outcome.ON_ITS_WAY: (1, 28)}, (1, 28)),
    "no answer came, and again": ([{"outcome": "in-doubt", "recipients": 3, "people": 30}, {"outcome": "attempt", "recipients": 3}], False, {Outcome.IN_DOUBT: (1, 30)}, (1, 30)),
    "an earlier version began one": ([{"outcome": "attempt", "recipients": 3, "attempt": 1}], False, {Outcome.IN_DOUBT: (1, 30)}, (1, 30)),
    "two deferred, the list's answer is awaited": ([{"outcome": "attempt", "recipients": 3, "people": 30, "attempt": 1}, {"outcome": "retry", "recipients": 2, "people": 2, "attempt": 1, "in_doubt": False}], False, {Outcome.IN_DOUBT: (1, 28), Outcome.ON_ITS_WAY: (1, 2)}, (1, 30)),
    "in doubt, tried again and deferred": ([{"outcome": "attempt", "recipients": 3, "people": 30, "attempt": 1}, {"outcome": "attempt", "code": "again", "recipients": 3, "people": 30, "attempt": 2}, {"outcome": "retry", "recipients": 3, "people": 30, "attempt": 2, "in_doubt": True}], False, {Outcome.IN_DOUBT: (1, 30)}, (1, 30)),
    "in doubt, and delivered the second time": ([{"outcome": "attempt", "recipients": 3, "people": 30, "attempt": 1}, {"outcome": "attempt", "code": "again", "recipients": 3, "people": 30, "attempt": 2}, {"outcome": "sent", "recipients": 3, "people": 30, "attempt": 2}], True, {Outcome.RELEASED: (1, 30)}, (0, 0)),
    "recalled before its dot": ([{"outcome": "attempt", "recipients": 3, "people": 30, "attempt": 1}, {"outcome": "retry", "code": "recalled", "recipients": 3, "people": 30, "attempt": 1, "in_doubt": False}], False, {Outcome.ON_ITS_WAY: (1, 30)}, (1, 30)),
}  # fmt: skip


@every("name", ATTEMPTS)
def test_approved_is_not_sent_and_settled_is_not_delivered(name: str) -> None:
    journal = Journal()
    attempts, over, wanted, waits = ATTEMPTS[name]
    journal.approved(reach=30)
    for data in attempts:
        journal.write(
            Kind.IN_DOUBT if "in-doubt" in (data.get("why"), data["outcome"]) else Kind.RELEASE,
            "H1",
            intent="H1-release",
            **data,
        )
    if over:
        journal.write(Kind.RELEASED, "H1", intent="H1-release")
    report = journal.report()
    assert ends(report) == wanted
    reached = wanted.get(Outcome.RELEASED, (0, 0))
    assert (report.reached.messages, _number(report.reached.people)) == reached
    assert (report.open.messages, report.open.people.high) == waits
    assert report.reached.people.exact
    assert report.messages == 1
    assert report.unsettled == (["H1"] if Outcome.IN_DOUBT in wanted else [])


def test_without_recorded_recipients_the_number_is_a_bound(journal: Journal) -> None:
    """Entries of an earlier version give bounds: they have the number of recipients, one of which may have been the
    list."""
    journal.approved(reach=30)
    for outcome, recipients in (("sent", 2), ("failed", 1)):
        journal.write(Kind.RELEASE, "H1", intent="H1-release", outcome=outcome, recipients=recipients, why="refused")
    journal.write(Kind.RELEASED, "H1", intent="H1-release")
    report = journal.report()
    assert ends(report) == {Outcome.RELEASED: (1, (0, 29)), Outcome.UNDELIVERED: (1, (1, 30))}
    assert report.reached.people == Interval(0, 29)
    assert report.ends[Outcome.UNDELIVERED].people == Interval(1, 30)


def test_outcomes_of_the_colleagues_part(journal: Journal) -> None:
    for n, outcome in enumerate(("sent", "failed", None)):
        mine = [f"{n}.{m}@example.com" for m in range(30)]
        journal.verdict(f"H{n}", "hold", reach=30, apart=2, apart_at=[0, 1], recipients=mine)
        if outcome is not None:
            said: dict[str, Any] = {
                "intent": f"H{n}-part",
                "outcome": outcome,
                "recipients": 2,
                "people": 2,
                "why": "refused",
            }
            journal.write(Kind.RELEASE, f"H{n}", private={"recipients": mine[:2]}, **said)
        journal.write(Kind.REJECTED, f"H{n}")
    report = journal.report()
    assert ends(report) == {
        Outcome.DELIVERED: (1, 2), Outcome.ON_ITS_WAY: (1, 2), Outcome.DECLINED: (3, 84), Outcome.REFUSED: (1, 2),
    }  # fmt: skip
    assert (report.parts, _number(report.reached.people), report.messages) == (1, 2, 3)


ASKED_FOR = [{"rule": "approval-asked", "fact": "approval.asked", "observed": "true", "limit": ""}]


@pytest.mark.parametrize("how", [{"reasons": ASKED_FOR}, {"test": True}], ids=["earlier version", "by its entry"])
def test_an_approved_preapproval_reaches_no_one(journal: Journal, how: dict[str, Any]) -> None:
    journal.verdict("H1", "hold", reach=1200, **how)
    assert ends(journal.report()) == {Outcome.WAITING: (1, 0)}
    journal.write(Kind.APPROVED, "H1")
    assert ends(journal.report()) == {Outcome.GRANTED: (1, 0)}
    assert journal.report().open.messages == 0


def test_copies_of_a_list_server_count_with_their_original(journal: Journal) -> None:
    journal.relayed("T1", reach=60)
    for n in range(2, 5):
        journal.relayed(f"T{n}", "relayed" if n < 4 else "refused", expanded_from="T1", mailing=None)
    report = journal.report()
    assert (report.messages, _number(report.reached.people)) == (1, 60)
    assert report.copies == {Outcome.DELIVERED: 2, Outcome.REFUSED: 1}
    alone = journal.report(IncidentQuery(ids=frozenset({"T2"}), whole=False))
    assert (alone.messages, _number(alone.reached.people), alone.copies) == (1, 1, {})


def test_people_whose_copies_were_stopped_do_not_have_it(journal: Journal) -> None:
    """A list server sends what it expands back through the guard, and a freeze stops some: they are no longer among the
    people behind the list's address."""
    crowd: dict[str, Any] = {"crowds": {LIST: ["v1", 60, 60]}}
    journal.relayed("T1", reach=60, people=[{"lists": [0]}], **crowd)
    for n in range(40):
        journal.relayed(f"C{n}", "relayed" if n < 10 else "refused", expanded_from="T1", people=[f"p{n} 0"], **crowd)
    report = journal.report()
    assert (report.messages, report.reached.people, report.unreached) == (1, Interval(30, 30), Interval(30, 30))
    assert report.of_lists == {LIST: Interval(30, 30)}
    journal.relayed("C41", expanded_from="T1", people=["p39 0"], **crowd)
    assert journal.report().reached.people == Interval(31, 31), "its client has tried again"
    journal.relayed("T2", reach=60, people=[{"lists": [0]}], **crowd)
    report = journal.report()
    assert (report.messages, report.reached.people, report.unreached) == (2, Interval(60, 60), Interval(0, 0))


def test_the_most_visible_addresses_in_sent_mail(journal: Journal) -> None:
    journal.relayed("T1", counts={"reach": 40, "shown": 40})
    journal.relayed("T2", "refused", counts={"reach": 90, "shown": 90})
    assert journal.report().shown == 40


def test_recipients_refused_permanently(journal: Journal) -> None:
    journal.verdict("H1", "hold", reach=30)
    for kind in (Kind.APPROVED, Kind.RELEASED):
        journal.write(Kind.RELEASE, "H1", intent="H1-release", outcome="failed", recipients=2)
        journal.write(kind, "H1")
    assert journal.report().undelivered == 4


@pytest.mark.parametrize(
    ("attempts", "spared", "expected"),
    [
        ([("sent", 10), ("retry", 20)], 20, {Outcome.RELEASED: (1, 10), Outcome.NOT_SENT: (1, 20)}),
        ([("sent", 10), ("failed", 5), ("retry", 15)], 15, {Outcome.RELEASED: (1, 10), Outcome.UNDELIVERED: (1, 5), Outcome.NOT_SENT: (1, 15)}),
        ([("in-doubt", 30)], 0, {Outcome.IN_DOUBT: (1, 30)}),
        ([("retry", 20), ("in-doubt", 10)], 20, {Outcome.IN_DOUBT: (1, 10), Outcome.NOT_SENT: (1, 20)}),
    ],
)  # fmt: skip
def test_a_revocation_after_delivery_to_some(
    journal: Journal, attempts: list[tuple[str, int]], spared: int, expected: dict[Outcome, tuple[int, int]]
) -> None:
    """A rejection or withdrawal during a release leaves those who have it or may have it, and stops the rest."""
    journal.approved(reach=30)
    for outcome, people in attempts:
        kind = Kind.IN_DOUBT if outcome == "in-doubt" else Kind.RELEASE
        journal.tried(outcome, kind=kind, recipients=people, people=people)
    journal.write(Kind.VOTE, "H1", choice="reject")
    journal.write(Kind.STOPPED, "H1", spared=spared, people=spared)
    assert {end: (1, n) for end, (_, n) in ends(journal.report()).items()} == expected


def test_senders_and_reasons_are_counted(journal: Journal) -> None:
    why = [
        {"rule": "no-pork", "fact": "message.topics", "observed": "pork", "limit": "any"},
        {"rule": "watched", "fact": "sender.address", "observed": None, "limit": None},
    ]
    journal.verdict(
        "H1", "hold", rules=["no-pork"], observed=["watched"], reasons=why, client="192.0.2.1", content="c1"
    )
    journal.verdict("H2", "hold", rules=["no-pork"], reasons=why[:1], sender="", reach_at_least=True)
    report = journal.report()
    assert report.writers == {("from", "kalle@example.com"): 1, ("reverse_path", "kalle@example.com"): 1}
    assert report.rules == {("no-pork", "enforce"): 2, ("watched", "observe"): 1}
    assert report.reasons == {("no-pork", "message.topics", "pork", "any"): 2}
    assert (report.clients, report.contents, report.policies) == ({"192.0.2.1": 1}, {"c1": 1}, {"p1": 2})
    assert report.ends[Outcome.WAITING].messages == 2


def test_erased_names_are_reported(journal: Journal) -> None:
    journal.relayed("T1")
    journal.relayed("T2", sender="sara@example.com")
    journal.pairs = [(entry, None if entry.id == "T1" else clear) for entry, clear in journal.pairs]
    report = journal.report()
    assert report.erased == 1
    assert set(report.writers) == {("from", "sara@example.com"), ("reverse_path", "sara@example.com")}


# each person once

TO_A_LIST: dict[str, Any] = {"crowds": {LIST: ["v1", 28, 28]}, "reach": 28}


def to_the_list(journal: Journal, id: str, version: str = "v1") -> None:
    crowds = {LIST: [version, 10_000, 10_000]}
    journal.relayed(id, reach=10_000, recipients=["list@x"], people=[{"lists": [0]}], crowds=crowds)


def test_people_never_exceed_the_lists_size(journal: Journal) -> None:
    """Mail to the list's address and to 136 single members, some of them twice, counts the list's people once."""
    to_the_list(journal, "T0")
    for n in range(140):
        member = f"m{n % 136}"
        journal.relayed(f"S{n}", people=[f"{member} 0"], crowds={LIST: ["v1", 10_000, 10_000]})
    report = journal.report()
    assert report.reached == Sum(messages=141, people=Interval(10_000, 10_000))
    assert report.of_lists == {LIST: Interval(10_000, 10_000)}


@pytest.mark.parametrize("read_before", [True, False])
def test_a_list_that_changed_between_two_messages(journal: Journal, read_before: bool) -> None:
    """Changes of a list between two messages count, also if the list was read before the first and came into use after
    it."""
    change: dict[str, Any] = {
        "version": "v2",
        "before": "v1",
        "people": 10_000,
        "added": 3,
        "removed": 3,
        "problem": None,
    }
    if read_before:
        journal.write(Kind.LIST, LIST, **change)
    to_the_list(journal, "T1")
    if not read_before:
        journal.write(Kind.LIST, LIST, **change)
    to_the_list(journal, "T2", version="v2")
    report = journal.report()
    assert report.reached == Sum(messages=2, people=Interval(10_003, 10_003))
    assert report.of_lists == {LIST: Interval(10_003, 10_003)}
    assert (Kind.LIST.value in [step.entry.kind for step in report.steps]) is not read_before


def test_an_uncounted_change_leaves_both_versions_possible(journal: Journal) -> None:
    to_the_list(journal, "T1")
    journal.write(Kind.LIST, LIST, version="v2", people=10_000, problem=None)
    journal.write(Kind.LIST, "another", version="v2", before="v1", added=0, removed=0)
    to_the_list(journal, "T2", version="v2")
    assert journal.report().reached.people == Interval(10_000, 20_000)


def test_a_retry_after_a_doubt_adds_no_people(journal: Journal) -> None:
    journal.relayed("T1", "in-doubt", people=["kim"])
    journal.write(Kind.IN_DOUBT, "T1")
    journal.relayed("T2", people=["kim"])
    report = journal.report()
    assert report.reached == Sum(messages=1, people=Interval(1, 1))
    assert report.perhaps == Interval(0, 0)
    assert report.unsettled == ["T1"]


def test_people_in_doubt_are_separate(journal: Journal) -> None:
    journal.relayed("T1", people=["kim"])
    journal.verdict("T2", "relay", people=["kim", "bo"], recipients=["kim@x", "bo@x"], reach=2)
    report = journal.report()
    assert (report.reached.people, report.perhaps) == (Interval(1, 1), Interval(1, 1))


def test_a_person_with_one_delivered_copy_counts_as_reached(journal: Journal) -> None:
    """A client that heard no answer sent it once more, behind the stop."""
    journal.relayed("T1", people=["kim"])
    journal.verdict("T2", "relay", people=["bo"])
    journal.verdict("H1", "hold", people=["kim", "bo", "eve"], reach=3)
    report = journal.report()
    assert report.ends[Outcome.WAITING].people == Interval(3, 3)
    assert (report.reached.people, report.perhaps, report.unreached) == (Interval(1, 1),) * 3


def test_each_recipient_has_its_own_outcome(journal: Journal) -> None:
    journal.approved(recipients=["list@x", "kim@y"], people=[{"lists": [0]}, "kim"], **TO_A_LIST | {"reach": 29})
    journal.tried("sent", "list@x", people=28)
    journal.tried("failed", "kim@y", why="refused")
    journal.write(Kind.RELEASED, "H1", intent="H1-release")
    report = journal.report()
    assert ends(report) == {Outcome.RELEASED: (1, 28), Outcome.UNDELIVERED: (1, 1)}
    assert report.of_lists == {LIST: Interval(28, 28)}


@pytest.mark.parametrize(
    ("people", "words", "expected"),
    [
        (["kim 0", {"lists": [0]}], {"kim": ("sent", 1), "other": ("failed", 28)}, {Outcome.RELEASED: (1, 1), Outcome.UNDELIVERED: (1, 28)}),
        (["kim 0", {"lists": [0]}], {"kim": ("sent", 1), "other": ("attempt", 28)}, {Outcome.RELEASED: (1, 1), Outcome.IN_DOUBT: (1, 28)}),
        (["kim 0", "kim 0"], {"kim": ("sent", 1), "other": ("failed", 1)}, {Outcome.RELEASED: (1, 1), Outcome.UNDELIVERED: (1, 1)}),
    ],
)  # fmt: skip
def test_a_person_counts_by_each_recipient_that_they_are_behind(
    journal: Journal, people: list[Any], words: dict[str, tuple[str, int]], expected: dict[Outcome, Any]
) -> None:
    """A member who is addressed beside their list, or twice, is one person of the message's reach: the relay's answers
    for the two are counted all the same."""
    journal.approved(recipients=["kim", "other"], people=people, **TO_A_LIST)
    for who, (outcome, n) in words.items():
        journal.tried(outcome, who, people=n, why="refused")
    report = journal.report()
    assert report.reached == Sum(messages=1, people=Interval(1, 1))
    assert ends(report) == expected


def test_a_list_that_changes_during_its_delivery_has_one_outcome(journal: Journal) -> None:
    """Entries on a release count the people who are on the list then: the answer is for all of them."""
    journal.approved(recipients=["list@x"], people=[{"lists": [0]}], **TO_A_LIST)
    for outcome, n, end in (
        ("attempt", 30, Outcome.IN_DOUBT),
        ("retry", 26, Outcome.ON_ITS_WAY),
        ("attempt", 26, Outcome.IN_DOUBT),
        ("sent", 20, Outcome.RELEASED),
    ):
        journal.tried(outcome, "list@x", people=n, in_doubt=False)
        assert ends(journal.report()) == {end: (1, 28)}
    assert journal.report().unsettled == []


def test_who_is_put_off_after_a_revocation_is_not_on_the_way(journal: Journal) -> None:
    journal.approved(recipients=["kim@y", "bo@y"], reach=2)
    journal.tried("attempt", "kim@y", "bo@y", people=2)
    journal.write(Kind.STOPPED, "H1", spared=0, people=0)
    journal.tried("sent", "kim@y", in_doubt=False)
    journal.tried("retry", "bo@y", in_doubt=False)
    report = journal.report()
    assert ends(report) == {Outcome.RELEASED: (1, 1), Outcome.NOT_SENT: (1, 1)}
    assert report.open == Sum()


def test_a_deferral_stops_nothing(journal: Journal) -> None:
    """Its client sends it again, and then it passes; unless a freeze is why."""
    journal.verdict("T1", "defer", rules=["unreadable"])
    journal.relayed("T2", recipients=["kim@y"])
    report = journal.report()
    assert (report.stopped, report.reached.messages) == (None, 1)
    journal.verdict("T3", "defer", rules=["freeze"], freeze="F1")
    stopped = journal.report().stopped
    assert stopped is not None
    assert stopped.id == "T3"


def test_what_went_out_after_the_stop_is_counted_in_messages(journal: Journal) -> None:
    """One message that the relay took in two attempts is one."""
    journal.approved(recipients=["kim@y", "bo@y"], reach=2)
    for who in ("kim@y", "bo@y"):
        journal.tried("sent", who)
    report = journal.report()
    assert (report.went_after.many, report.entries["went", ""].many) == (1, 2)


def test_a_name_that_was_erased_for_its_person_is_none(journal: Journal) -> None:
    journal.verdict("T1", "relay", sender="otto@example.com")
    entry, clear = journal.pairs.pop()
    named = {role: [ERASED] if role in ("from", "reverse_path") else list(some) for role, some in (clear or {}).items()}
    journal.pairs.append((entry, named))
    report = journal.report(IncidentQuery(senders=frozenset({"otto@example.com"})))
    assert (report.messages, report.erased, dict(report.writers)) == (1, 1, {})
    assert list(report.subjects) == ["SV: Dieten"]


@pytest.mark.parametrize("late", [False, True], ids=["in order", "the outcome comes late"])
def test_a_recalled_message_has_the_outcome_of_its_last_verdict(journal: Journal, late: bool) -> None:
    """A freeze recalls it before its final dot: it is admitted again under its id, held, and goes out after the thaw."""
    journal.verdict("T1", "relay", recipients=["kim@y"])
    if not late:
        journal.write(Kind.OUTCOME, "T1", outcome="recalled")
    journal.verdict("T1", "hold", recipients=["kim@y"], rules=["freeze"], freeze="F1")
    if late:
        journal.write(Kind.OUTCOME, "T1", outcome="recalled")
    assert ends(journal.report()) == {Outcome.WAITING: (1, 1)}
    journal.write(Kind.APPROVED, "T1")
    said: dict[str, Any] = {"intent": "T1-release", "outcome": "sent", "recipients": 1, "people": 1}
    journal.write(Kind.RELEASE, "T1", private={"recipients": ["kim@y"]}, **said)
    report = journal.report()
    assert ends(report) == {Outcome.RELEASED: (1, 1)}
    assert (report.messages, report.again, report.rules) == (1, 0, {("freeze", "enforce"): 1})
    assert report.lists == {LIST: 1}


@pytest.mark.parametrize(("choice", "kim"), [("sent", Outcome.RELEASED), ("again", Outcome.IN_DOUBT)])
def test_a_persons_answer_applies_to_its_recipient(journal: Journal, choice: str, kim: Outcome) -> None:
    """The list's delivery failed, so a person's decision about the doubt applies only to the other recipient."""
    journal.approved(recipients=["list@x", "kim@y"], people=[{"lists": [0]}, "kim"], **TO_A_LIST | {"reach": 29})
    journal.tried("attempt", "list@x", "kim@y", people=29)
    journal.tried("failed", "list@x", people=28, why="refused")
    journal.tried("asked", "kim@y", kind=Kind.IN_DOUBT)
    journal.write(Kind.SETTLED, "H1", private={"recipients": ["kim@y"]}, choice=choice, recipients=1, people=1)
    assert ends(journal.report()) == {kim: (1, 1), Outcome.UNDELIVERED: (1, 28)}


@pytest.mark.parametrize("part", [{"intent": "H1-part"}, {"intent": "any", "part": True}])
def test_a_part_is_recognized_by_its_entry(journal: Journal, part: dict[str, Any]) -> None:
    """The colleagues' part is recognised by its entry, or in entries of an earlier version by its id."""
    journal.verdict("H1", "hold", reach=3, apart=1, apart_at=[0], recipients=["a@x", "b@x", "c@x"])
    journal.write(Kind.RELEASE, "H1", private={"recipients": ["a@x"]}, outcome="sent", recipients=1, people=1, **part)
    assert ends(journal.report()) == {Outcome.DELIVERED: (1, 1), Outcome.WAITING: (1, 2)}


def test_entries_of_an_earlier_version_are_counted(journal: Journal) -> None:
    """In entries of an earlier version, a single recipient counts by its sealed address, and a list's address by its
    number of people."""
    for n in range(3):
        journal.relayed(f"T{n}", people=None, recipients=["kim@x"])
        journal.relayed(
            f"L{n}", people=None, recipients=["list@x"], reach=60, counts={"reach": 60, "list_addresses": 1}
        )
    report = journal.report()
    assert (report.reached.messages, report.reached.people) == (6, Interval(60, 61))


def test_arrival_and_departure_are_separate_times(journal: Journal) -> None:
    journal.verdict("H1", "hold", recipients=["a@x", "b@x"], reach=2)
    journal.write(Kind.APPROVED, "H1", after=timedelta(hours=1))
    said = {"intent": "H1-release", "outcome": "sent", "recipients": 2, "people": 2}
    journal.write(Kind.RELEASE, "H1", after=timedelta(minutes=5), private={"recipients": ["a@x", "b@x"]}, **said)
    journal.write(Kind.RELEASED, "H1", intent="H1-release")
    report = journal.report()
    assert report.went_first == report.went_last == report.last + timedelta(hours=1, minutes=5)
    journal.verdict("H2", "hold")
    assert journal.report(IncidentQuery(ids=frozenset({"H2"}), whole=False)).went_first is None
