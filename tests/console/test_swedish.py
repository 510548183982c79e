"""No untranslated English is left in what a reader of another language sees of a journal.

The texts of a made-up language have no letters. So letters on a page are values that the test knows, or English that
was not translated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from smtpguard.console import journalwords, rulewords
from smtpguard.console.incident import report_in_words
from smtpguard.console.reporting import make_once
from smtpguard.freezes.service import Freezes
from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal.checkpoint import Lost
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.proof import Proof
from smtpguard.locale.phrase import Phrase
from smtpguard.locale.speech import Speech
from smtpguard.mailings.staging import At, Move
from smtpguard.policy import grammar
from smtpguard.policy.approvals import Groups
from smtpguard.policy.condition import journal_text
from smtpguard.policy.facts import FACTS, Count, Fact, Type, Unknown, Value
from smtpguard.policy.freezing import FREEZE, Selector
from smtpguard.policy.grammar import ConditionNames
from tests.console.holding import NEWS, held
from tests.console.stage import Stage
from tests.console.test_incident import console
from tests.every import every
from tests.locale.madeup import MadeUp
from tests.messages import used

LETTER = re.compile(r"[^\W\d_]")


@pytest.fixture
def silent(made_up: MadeUp) -> Speech:
    """A made-up language with no letters; the placeholders are kept."""
    made_up("zz", "sv_SE", lambda text: "".join(re.findall(r"\{\w+\}|[^\w{}]|\d", text)) or "-")
    return Speech("zz")


def letters(text: str, *known: str) -> str:
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, "")
    return text if LETTER.search(text) else ""


def values(fact: Fact) -> Iterator[Value]:
    match fact.type:
        case Type.TRUTH:
            yield from (True, False)
        case Type.NETWORK:
            yield "192.0.2.1"
        case Type.WORD:
            yield from fact.words or ("XX",)
        case Type.WORDS:
            words = ("special-category", "normal") if fact.name == "recipients.sensitivity" else ("XX", "YY")
            yield from (frozenset(), frozenset(words[:1]), frozenset(words))
        case _:
            yield from (Count(0, 0), Count(0.5, 0.5), Count(0.25, 1), Count(400_000, 400_000), Count(3, float("inf")))
    yield Unknown(why="XX")


def asked(fact: Fact) -> Iterator[Any]:
    over = " in 15 Minutes" if fact.windowed else ""
    match fact.type:
        case Type.TRUTH:
            yield from (True, False)
        case Type.COUNT | Type.SHARE:
            figures = ("0.25", "20 %") if fact.type is Type.SHARE else ("3", "400_000")
            yield from (f"{sign} {n}{over}" for sign in (">=", "<=", ">", "<", "==", "=") for n in figures)
            yield f"between {figures[0]} and {figures[0]}{over}"
            if not fact.windowed:
                yield from ("any", "none")
        case Type.NETWORK:
            yield from ("192.0.2.0/24", ["192.0.2.1", "198.51.100.0/24"])
        case Type.WORD | Type.WORDS:
            yield from (list(fact.words),) if fact.words else ()
            if not fact.words:
                sensitive = fact.name == "recipients.sensitivity"
                some = ["special-category", "normal"] if sensitive else ["xx@yy.zz", "yy@yy.zz"]
                yield from (some, some[0], {"matches": "XX"})
            if fact.type is Type.WORDS:
                yield from ("any", "none")
            if fact.name == "sender.address":
                yield {"group": "XX"}


@every("name", FACTS)
def test_conditions_and_their_values_are_translated(name: str, silent: Speech) -> None:
    fact, known = FACTS[name], ConditionNames(groups=Groups(people={"XX": frozenset()}))
    names = ("xx@yy.zz", "yy@yy.zz", "XX", "YY")
    for all_ in (False, True):
        for raw in asked(fact):
            condition = grammar.condition(fact, raw, every=all_, known=known)
            assert letters(rulewords.condition_in_words(condition, silent), *names) == "", condition.limit
    for value in values(fact):
        text = journal_text(fact, value)
        assert letters(rulewords.value_in_words(name, text, silent), *names) == "", text


def test_facts_in_words() -> None:
    english, swedish = Speech("en"), Speech("sv")
    assert rulewords.value_in_words("message.looks", "internal", swedish) == "e-post mellan kollegor"
    assert (
        rulewords.limit_in_words("message.looks", "internal or unclear", swedish)
        == "e-post mellan kollegor eller oklart"
    )
    assert rulewords.value_in_words("message.unsuitable_topics", "alcohol, own, pork", swedish) == "alkohol, own, fläsk"
    assert rulewords.limit_in_words("recipients.audience", "only press", swedish) == "bara press"
    assert rulewords.limit_in_words("recipients.lists", "internal or news", swedish) == "internal eller news", (
        "a list's name"
    )
    assert rulewords.limit_in_words("recipients.share", ">= 0.25", english) == "at least 25 %"
    assert rulewords.value_in_words("recipients.share", "between 25 and 100 %", english) == "between 25 % and 100 %"
    assert rulewords.limit_in_words("recipients.share", "between 0.1 and 50 %", english) == "between 10 % and 50 %"
    assert rulewords.value_in_words("recipients.reach", "3 to inf", english) == "at least 3"
    narrowed = ">= 12 in 2h 30m and more than x3 the usual on one list of internal or special-category"
    assert rulewords.limit_in_words("sender.list_contacts", narrowed, swedish) == (
        "minst 12 på 150 minuter på en av listorna internal eller känsliga personuppgifter och mer än 3 gånger det vanliga"
    )
    word = grammar.condition(FACTS["login"], ["none"], every=False, known=ConditionNames())
    assert rulewords.condition_in_words(word, english) == "who logged in: none", "the name of a user, not nobody"
    assert rulewords.limit_in_words("list.customers", ">= 300 in 1h", swedish) == "minst 300 på 1 timme"
    assert rulewords.value_in_words(FREEZE, "list news", swedish) == "listan news"
    assert rulewords.value_in_words("of another version", "seen", swedish) == "seen"


def test_built_in_rules_are_translated(silent: Speech) -> None:
    for name in rulewords.BUILT_IN_FACTS:
        assert letters(rulewords.fact_in_words(name, silent)) == ""
        if name == FREEZE:
            continue
        for text in ("true", "false", "3", "5 in 3600 s", "at rest", *(f"{at.value} after stage 1 of 3" for at in At)):
            assert letters(rulewords.value_in_words(name, text, silent)) == "", text
    for selector in Selector:
        assert letters(rulewords.value_in_words(FREEZE, f"{selector.value} XX", silent), "XX") == ""
        assert letters(rulewords.value_in_words(FREEZE, selector.value, silent)) == ""


def test_every_problem_of_a_proof_is_translated(silent: Speech) -> None:
    """Every problem of a proof has a message in the catalogues, by the sources."""
    texts = {
        message
        for file, message, _ in used()
        if file in ("journal/proof.py", "journal/rows.py", "journal/scan.py") and isinstance(message, str)
    }
    assert len(texts) > 15
    assert [text for text in texts if letters(re.sub(r"\{\w+\}", "", silent(text)))] == []
    gone = Phrase("missing: entries {first} to {last} are gone", first=2000, last=3000)
    assert gone == "missing: entries 2,000 to 3,000 are gone"
    assert Speech("sv").say(gone) == "saknas: posterna 2\u00a0000 till 3\u00a0000 är borta"


PROVED = Proof(
    entries=9,
    lost=(Lost(seq=7, at=9_000_000, through=1200, signed_at=5_000_000, since=1_000_000),
          Lost(seq=8, at=9_000_000, through=9, signed_at=5_000_000, since=None)),
    renewed=3, others=("XX",), unreadable=2,
)  # fmt: skip


def test_notes_of_a_proof_are_translated(silent: Speech) -> None:
    said = list(journalwords.remarks(PROVED, Speech("en")))
    assert said == [
        "the store was put back (entry 7, 1970-01-01 00:00:09 UTC): entries up to 1,200, signed until 1970-01-01 00:00:05 UTC, are not in it",
        "the store was put back (entry 8, 1970-01-01 00:00:09 UTC): entries up to 9, signed until 1970-01-01 00:00:05 UTC, are not in it",
        "another secret is in force since entry 3: names in older entries could not be verified",
        "the state folder also has checkpoints of another store: journal XX",
        "2 lines of the file of checkpoints cannot be read",
        "no witness has a checkpoint of it: root on this host could have rewritten all of it",
    ]
    for text in (
        *journalwords.remarks(PROVED, silent),
        *(journalwords.missing_period(lost, silent) for lost in PROVED.lost),
    ):
        assert letters(text, "UTC", "XX") == ""


async def test_a_report_with_every_statement_is_translated(here: Stage, silent: Speech) -> None:
    hold = await held(here, NEWS, Subject="SUBJECT")
    at, who = here.home.clock.now(), {"actor": ("ACTOR",), "comment": ("COMMENT",)}
    events = [Event(kind=kind, id=hold.hold_id, at=at, data={}, private=who) for kind in Kind]
    for key, words in (
        ("action", ("relay", "hold", "defer", "reject")),
        ("outcome", tuple(journalwords.DETAILS)),
        ("choice", ("approve", "reject")),
        ("saw", ("reasons", "text", "full", "html")),
        ("notice", tuple(journalwords.NOTICES)),
        ("what", tuple(move.value for move in Move)),
        ("what", ("reopened", "feedback", "of another version")),
        ("percent", ("25",)),
        ("with", ("WITH",)),
    ):
        kind = {"what": Kind.MAILING, "notice": Kind.NOTICE, "action": Kind.STREAM}.get(key, Kind.RELEASE)
        events += [Event(kind=kind, id=hold.hold_id, at=at, data={key: word}, private=who) for word in words]
    await here.home.store.journal.record(events)
    freezes = Freezes(
        here.home.store, SteadyClock(here.home.clock), new_id=lambda: f"F{next(here.home.ids)}", recall_seconds=0
    )
    for selector in Selector:
        await freezes.freeze(selector, "FROZEN", reason="COMMENT", by="ACTOR")
    made = await make_once(
        console(here),
        IncidentQuery(ids=frozenset([hold.hold_id])),
        prove=True,
        names=True,
        by=("ACTOR",),
        language="sv",
    )
    assert made is not None
    page = report_in_words(made, silent)
    texts = [
        page.query,
        page.proof,
        page.short,
        *(t for part in page.parts for t in (part.title, *(one.text for one in part.statements))),
        *(t for row in page.timeline for t in (row.text, row.then)),
    ]
    assert len(texts) > 60
    rules = [rule for rule, _ in made.report.rules] + [one.rule for one in made.missed]
    known = (*rules, *made.purposes.of.values(), *made.report.policies, *made.report.contents, made.found.hash.hex())
    known += (
        "ACTOR",
        "COMMENT",
        "SUBJECT",
        "FROZEN",
        "WITH",
        "anna@example.com",
        "news",
        "News",
        "customers",
        "contract",
        "mx.example.com",
        "UTC",
        hold.hold_id,
    )
    known += tuple(one.mailing_id for one in made.found.mailings) + tuple(s.entry.id for s in made.report.steps)
    known += tuple(str(s.entry.data.get("sha256"))[:12] for s in made.report.steps)
    assert [left for text in texts if (left := letters(text, *known))] == []


def test_an_attempt_to_send_says_to_how_many_and_what_the_server_answered() -> None:
    refused = {"outcome": "failed", "recipients": 25, "code": "550 5.1.1"}
    assert list(journalwords._attempted(refused, Speech("en"))) == [
        "for 25 recipients",
        "the mail server answered 550 5.1.1",
    ]
    assert list(journalwords._attempted(refused, Speech("sv"))) == [
        "till 25 mottagare",
        "e-postservern svarade 550 5.1.1",
    ]
    assert list(journalwords._attempted({"outcome": "attempt", "recipients": 1, "code": ""}, Speech("en"))) == [
        "for 1 recipient"
    ]
