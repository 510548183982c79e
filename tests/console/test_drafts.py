"""The drafts to customers and staff, for any report: only numbers that are known, and no list of a special category."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.console.incident import report_in_words
from smtpguard.console.incidentsections import length_of
from smtpguard.console.notifying import DRAFT_TITLES, draft
from smtpguard.console.reporting import Made, Purposes
from smtpguard.incidents.intrusion import Usual
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Case, Findings, Report
from smtpguard.incidents.statement import Entries, Mark
from smtpguard.journal.chain import GENESIS, Entry, body_of, instant, microseconds
from smtpguard.journal.distinct import Interval
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.outcome import Outcome, Sum
from smtpguard.lists.declared import ListInfo
from smtpguard.locale.speech import Speech
from tests.journal.chaining import SEAL, T0

ID = "T" * 16
KEEPS = timedelta(days=30)
NUMBER = re.compile(r"\d+(?:[,\N{NO-BREAK SPACE}]\d{3})*")
LISTS = {
    "news": ListInfo(name="news", title="News", audience="customers", sensitivity=None, category=None),
    "ramadan": ListInfo(
        name="ramadan",
        title="Ramadan greetings",
        audience="customers",
        sensitivity="special-category",
        category="religion",
    ),
}


def entry(seq: int, event: Event) -> Entry:
    at, body = microseconds(event.at), body_of(event, SEAL)
    return Entry(seq=seq, at=at, kind=event.kind.value, id=event.id, body=body, prev=GENESIS, hash=GENESIS)


@cache
def usual() -> Report:
    """The report on a message that was sent to 60 people."""
    case = Case(IncidentQuery(ids=frozenset({ID})), SEAL)
    data = {"action": "relay", "counts": {"reach": 60}, "lists": ["news"], "client": "192.0.2.1"}
    assert case.add_verdict(entry(1, Event(kind=Kind.VERDICT, id=ID, at=T0, data=data)), None)
    outcome = Event(kind=Kind.OUTCOME, id=ID, at=T0, data={"outcome": "relayed"})
    case.add_entry(entry(2, outcome), None)
    return case.report(Usual(entries=Entries(), shared={}), {})


def made(report: Report, *, special: bool = False, zone: str = "Europe/Stockholm") -> Made:
    found = Findings(
        report=report, mailings=(), journal="j", seq=9, hash=GENESIS, checkpoint=None, proof=None
    )  # fmt: skip
    name = "ramadan" if special else "news"
    purposes = Purposes(zone=zone, lists={"news": LISTS[name]})
    return Made(
        query=IncidentQuery(ids=frozenset({ID})),
        found=found,
        report=report,
        purposes=purposes,
        at=T0,
        names=False,
        keeps=KEEPS,
    )


people = st.builds(
    lambda low, more: Interval(low, None if more is None else low + more),
    st.integers(0, 500_000),
    st.none() | st.integers(0, 9_999),
)
times = st.integers(0, 5_000_000).map(lambda seconds: T0 + timedelta(seconds=seconds))


@st.composite
def reports(draw: st.DrawFn) -> Report:
    begin = usual()
    went = draw(st.none() | st.tuples(times, times).map(sorted))
    stop = draw(st.none() | times)
    reached = Sum(messages=draw(st.integers(1, 9_999)) if went else 0, people=draw(people) if went else Interval(0, 0))
    event = Event(kind=draw(st.sampled_from([Kind.FREEZE, Kind.REJECTED])), id=ID, at=stop or T0)
    changes: dict[str, Any] = {
        "went_first": went[0] if went else None,
        "went_last": went[1] if went else None,
        "reached": reached,
        "perhaps": draw(people | st.just(Interval(0, 0))),
        "ends": draw(st.sampled_from([begin.ends, {Outcome.IN_DOUBT: Sum(messages=1, people=Interval(3, 3))}])),
        "of_lists": {"news": draw(people)},
        "shown": draw(st.integers(0, 99)),
        "stopped": entry(3, event) if stop else None,
        "until": instant(microseconds(max([T0, *(went or ()), *([stop] if stop else [])]))),
    }
    return replace(begin, **changes)


@pytest.mark.parametrize("audience", DRAFT_TITLES)
@given(
    report=reports(),
    special=st.booleans(),
    language=st.sampled_from(["en", "sv"]),
    zone=st.sampled_from(["UTC", "Europe/Stockholm", "Asia/Kolkata"]),
)
def test_only_known_numbers_and_no_special_list_are_named(
    audience: str, report: Report, special: bool, language: str, zone: str
) -> None:
    said = Speech(language)
    one = made(report, special=special, zone=zone)
    page = report_in_words(one, said)
    every = (*page.paragraph, *(each for part in page.parts for each in part.statements))
    facts = {n for each in every if each.mark is Mark.FACT for n in NUMBER.findall(each.text)}
    text = draft(audience, one, page, said)
    assert set(NUMBER.findall(text)) <= facts, text
    assert "Ramadan" not in text
    assert "religion" not in text


def test_what_was_sent_is_described_in_both_languages() -> None:
    one = made(usual())
    english, swedish = Speech("en"), Speech("sv")
    text = draft("customers", one, report_in_words(one, english), english)
    assert "On Monday 2 March 2026 at 10:00 (CET) a message went out from us. It reached people" not in text, (
        "no recipient is known to be on it"
    )
    assert "On Monday 2 March 2026 at 10:00 (CET) a message went out from us. 60 people got it." in text
    assert "Nothing in our records points to an intrusion." in text
    text = draft("staff", one, report_in_words(one, swedish), swedish)
    assert "60 personer fick det." in text
    assert "Inget stoppade det." in text
    assert text.startswith("Ämne: Vad som gick ut")


def test_several_messages_are_named_as_several() -> None:
    english, swedish = Speech("en"), Speech("sv")
    several, later = Sum(messages=3, people=Interval(60, 60)), T0 + timedelta(minutes=5)
    for changes, began in (
        ({"reached": several}, "On Monday 2 March 2026 at 10:00 (CET) messages went out from us. 60 people got at"),
        ({"reached": several, "went_last": later}, "10:05 (CET) messages went out from us. 60 people got at least"),
        ({"went_last": later}, "10:05 (CET) a message went out from us. 60 people got it."),
        ({"reached": several, "went_first": None, "went_last": None}, "Messages went out from us."),
    ):
        one = made(replace(usual(), **changes))
        assert began in draft("customers", one, report_in_words(one, english), english)
    one = made(replace(usual(), reached=several))
    text = draft("staff", one, report_in_words(one, swedish), swedish)
    assert "\n\nMeddelanden gick ut från oss måndag 2 mars 2026" in text, "a sentence begins with a capital letter"
    assert "60 personer fick minst ett av dem." in text


def test_times_around_the_end_of_summer_time_have_their_zones() -> None:
    first = datetime(2026, 10, 25, 0, 50, tzinfo=UTC)
    one = made(replace(usual(), first=first, last=first + timedelta(minutes=20)))
    told = report_in_words(one, Speech("en")).short
    assert "came between Sunday 25 October 2026 at 02:50 (CEST) and Sunday 25 October 2026 at 02:10 (CET)." in told


def test_lengths_leave_out_nothing_of_weight() -> None:
    for seconds, text in (
        (0, "0 seconds"), (59, "59 seconds"), (120, "2 minutes"), (179, "2 minutes 59 seconds"), (7199, "119 minutes 59 seconds"),
        (10_799, "2 hours 59 minutes"), (72 * 3600 - 1, "71 hours 59 minutes"),
    ):  # fmt: skip
        assert length_of(timedelta(seconds=seconds), Speech("en")) == text


def test_mail_that_people_let_go_was_stopped_at_first_only() -> None:
    stop = entry(1, Event(kind=Kind.VERDICT, id=ID, at=T0))
    end = Sum(messages=1, people=Interval(60, 60))
    entries = {**usual().entries, ("end", Outcome.RELEASED.value): Entries.of(2)}
    one = made(replace(usual(), stopped=stop, went_after=Entries.of(2), ends={Outcome.RELEASED: end}, entries=entries))
    said = Speech("en")
    page = report_in_words(one, said)
    assert "At first it was stopped, on arrival: a rule stopped it. 1 message went out after people had" in page.short
    text = draft("staff", one, page, said)
    assert "It was held at once, as it came, and went out after people had let it go." in text


def test_the_draft_to_staff_says_what_was_held() -> None:
    """Held is not stopped: people may let it go yet."""
    for action, word in (("hold", "held"), ("confirm", "held"), ("reject", "stopped")):
        stop = entry(1, Event(kind=Kind.VERDICT, id=ID, at=T0, data={"action": action}))
        for later, text in (
            ({}, f"It was {word} at once, as it came."),
            ({"at": T0 + timedelta(minutes=1)}, f"It was {word} on Monday 2 March 2026 at 10:01 (CET)."),
            (
                {"at": T0 + timedelta(minutes=1), "went_last": T0 + timedelta(minutes=9)},
                f"It was first {word} on Monday 2 March 2026 at 10:01 (CET), and the last of it went out on",
            ),
        ):
            at = replace(stop, at=microseconds(later.get("at", T0)))
            last = later.get("went_last")
            one = made(replace(usual(), stopped=at, went_after=Entries.of(*([2] if last else [])), went_last=last))
            assert text in draft("staff", one, report_in_words(one, Speech("en")), Speech("en"))


def test_mail_that_went_on_after_a_stop_was_first_stopped() -> None:
    """Approved after the twentieth copy, and frozen after the last of 412."""
    stop = entry(3, Event(kind=Kind.VERDICT, id=ID, at=T0 + timedelta(minutes=1)))
    after = Entries.of(*range(4, 397))
    one = made(replace(usual(), stopped=stop, went_after=after, went_last=T0 + timedelta(minutes=9)))
    for language, told, drafted in (
        (
            "en",
            "The first stop was 1 minute after the first message, on Monday 2 March 2026 at 10:01 (CET): a rule stopped it. "
            "In all, 393 messages went out after that, the last on Monday 2 March 2026 at 10:09 (CET).",
            "It was first stopped on Monday 2 March 2026 at 10:01 (CET), and the last of it went out on Monday 2 March 2026 at 10:09 (CET).",
        ),
        (
            "sv",
            "Första gången något stoppades var 1 minut efter det första meddelandet, måndag 2 mars 2026 kl. 10:01 (CET): en regel stoppade det. "
            "Sammanlagt gick 393 meddelanden ut efter det, det sista måndag 2 mars 2026 kl. 10:09 (CET).",
            "Det stoppades en första gång måndag 2 mars 2026 kl. 10:01 (CET), och det sista av det gick ut måndag 2 mars 2026 kl. 10:09 (CET).",
        ),
    ):
        said = Speech(language)
        page = report_in_words(one, said)
        assert told in page.short
        assert drafted in draft("staff", one, page, said)
        speed = next(part.statements for part in page.parts if part.key == "speed")
        assert sum("393" in each.text for each in speed) == 1


def test_a_doubt_may_have_gone_out_after_the_stop() -> None:
    stop = entry(3, Event(kind=Kind.FREEZE, id=ID, at=T0 + timedelta(minutes=1)))
    doubt = {**usual().ends, Outcome.IN_DOUBT: Sum(messages=1, people=Interval(1, 1))}
    for ends, mark, text in (
        (usual().ends, Mark.FACT, "after that nothing more of it went out"),
        (doubt, Mark.UNKNOWN, "whether anything of it went out after that"),
    ):
        one = made(replace(usual(), stopped=stop, ends=ends))
        parts = {part.key: part.statements for part in report_in_words(one, Speech("en")).parts}
        assert [each.mark for each in parts["speed"] if each.text == text] == [mark]


def test_the_paragraph_is_about_all_of_it() -> None:
    [way] = usual().ways
    for known, text in (
        ({True, False}, "Nothing proves who wrote some of it."),
        ({False, None}, "Nothing proves who wrote some of it."),
        ({False}, "Nothing proves who wrote it."),
        ({None}, "It is not on record whether anything proves who wrote it."),
        ({True, None}, "It is not on record whether anything proves who wrote some of it."),
        ({True}, "Nothing in the journal points to an intrusion."),
    ):
        ways = {replace(way, proven=proven): Entries.of(1) for proven in known}
        assert report_in_words(made(replace(usual(), ways=ways)), Speech("en")).short.endswith(text)
    lists = Counter({f"list {n}": 1 for n in range(5)})
    one = replace(made(replace(usual(), lists=lists)), names=True)
    told = report_in_words(one, Speech("en")).short
    assert "list 0, list 1, list 2, and 2 more." in told


def test_what_stopped_it_is_said_of_the_message_that_was_stopped() -> None:
    rules = Counter({("earlier", "enforce"): 1, ("later", "enforce"): 1})
    for data, how in (
        ({"rules": ["later"]}, "a rule stopped it, later."),
        ({"rules": ["freeze"], "freeze": "F1"}, "a freeze stopped it."),
    ):
        stop = entry(3, Event(kind=Kind.VERDICT, id=ID, at=T0 + timedelta(minutes=1), data=data))
        assert how in report_in_words(made(replace(usual(), rules=rules, stopped=stop)), Speech("en")).short


def test_a_rule_that_only_alerts_would_have_stopped_nothing() -> None:
    rules = Counter({("alerts", "observe"): 1})
    for calling, stops in ((frozenset({"alerts"}), False), (frozenset[str](), True)):
        entries = {**usual().entries, ("rule", "observe alerts"): Entries.of(1)}
        one = made(replace(usual(), rules=rules, entries=entries))
        one = replace(one, purposes=replace(one.purposes, calling=calling))
        parts = {part.key: part.statements for part in report_in_words(one, Speech("en")).parts}
        told = [each.text for each in parts["policy"]] if "policy" in parts else []
        assert ("rules that only observed would have stopped it" in told) is stops


def test_addresses_of_lists_are_mentioned_only_if_it_went_to_any() -> None:
    for crowds in (False, True):
        one = made(replace(usual(), crowds=crowds))
        parts = {part.key: part.statements for part in report_in_words(one, Speech("en")).parts}
        assert any("behind a list's address" in each.text for each in parts["unknown"]) is crowds


def test_what_went_out_before_was_not_stopped_as_it_came() -> None:
    """However soon after the first message the stop was."""
    stop = entry(3, Event(kind=Kind.FREEZE, id=ID, at=T0 + timedelta(milliseconds=400)))
    said, one = Speech("en"), made(replace(usual(), stopped=stop, until=T0 + timedelta(seconds=1)))
    page = report_in_words(one, said)
    told = " ".join(each.text for each in page.paragraph)
    assert (
        "The first stop was 1 second after the first message, on Monday 2 March 2026 at 10:00 (CET): a freeze stopped it."
        in told
    )
    assert "It was stopped on Monday 2 March 2026 at 10:00 (CET)." in draft("staff", one, page, said)


def test_the_paragraph_without_names_does_not_name_a_special_list() -> None:
    said, one = Speech("en"), made(usual(), special=True)
    for names, lists in ((False, "a list of a special category (GDPR Art. 9)"), (True, "Ramadan greetings")):
        page = report_in_words(replace(one, names=names), said)
        assert f"Lists that it was for: {lists}." in [each.text for each in page.paragraph]


def test_mail_in_doubt_is_described_as_unknown() -> None:
    doubt = replace(
        usual(),
        reached=Sum(),
        went_first=None,
        went_last=None,
        ends={Outcome.IN_DOUBT: Sum(messages=1, people=Interval(3, 3))},
    )
    said = Speech("en")
    text = draft("customers", made(doubt), report_in_words(made(doubt), said), said)
    assert "Whether a message of this went out from us we do not know yet." in text
    assert "No message" not in text
