"""The purposes of rules, from the policies that decided; and what people say of an incident: the latest of each field, and the 72 hours."""

from __future__ import annotations

from datetime import timedelta

import pytest

from smtpguard.console.reporting import Documents, Purposes, purposes
from smtpguard.incidents import breach
from smtpguard.incidents.breach import Field, texts_of
from smtpguard.incidents.statement import Step
from smtpguard.journal.chain import GENESIS, Clear, Entry, body_of, microseconds
from smtpguard.journal.event import Event
from tests.every import every
from tests.journal.chaining import SEAL, T0

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


def purposes_of(language: str = "en", **policies: Documents) -> Purposes:
    return purposes(policies, delimiters="+", language=language)


def test_purposes_come_from_the_policy_of_that_time() -> None:
    assert purposes_of(p1=OLD).of == {"a": "Never to customers", "gone": "It was for Easter"}
    assert purposes_of("sv", p1=OLD).of["a"] == "Aldrig till kunder"


def test_the_last_deciding_policy_gives_the_purpose() -> None:
    assert purposes_of(p1=OLD, p2=NEW).of == {"a": "Only with a second look", "gone": "It was for Easter", "b": ""}
    assert purposes_of(p2=NEW, p1=OLD).of["a"] == "Never to customers"
    assert purposes_of() == Purposes()


def test_rules_that_only_alert_are_known() -> None:
    alerting = policy("a", "b")["policy.yaml"].replace(b"hold}", b"alarm}", 1)
    assert purposes_of(p1={"policy.yaml": alerting}).calling == {"a"}


@every(
    "documents",
    [{}, {"other.yaml": b""}, {"policy.yaml": b"\x00"}, {"policy.yaml": b"\xff\xfe"}, {"policy.yaml": b""},
     {"policy.yaml": b"version: 99\n"}, {"policy.yaml": b"rules: [{id: a, then: obliterate}]"}],
)  # fmt: skip
def test_an_unavailable_policy_does_not_affect_others(documents: Documents) -> None:
    found = purposes_of(p1=documents, p2=NEW)
    assert found.lost == ("p1",)
    assert found.of == {"a": "Only with a second look", "b": ""}


def step(seq: int, event: Event, erased: bool = False) -> Step:
    clear: Clear | None = None if erased else {role: list(values) for role, values in event.private.items()}
    at, body = microseconds(event.at), body_of(event, SEAL)
    entry = Entry(seq=seq, at=at, kind=event.kind.value, id=event.id, body=body, prev=GENESIS, hash=GENESIS)
    return Step(entry=entry, clear=clear)


def test_the_latest_statement_of_each_field_counts() -> None:
    later = T0 + timedelta(hours=1)
    words = texts_of(
        [
            step(1, breach.text_event("I", Field.CONTACT, " dpo ", by="eva", at=T0)),
            step(2, breach.aware_event("I", T0 - timedelta(hours=2), by="eva", at=T0)),
            step(3, breach.text_event("I", Field.CONTACT, "dpo@example.com", by="omar", at=later)),
            step(4, breach.aware_event("I", T0 - timedelta(hours=3), by="omar", at=later)),
        ]
    )
    assert words.due == T0 + timedelta(hours=69)
    contact = words.written[Field.CONTACT]
    assert (contact.text, contact.by, contact.at, contact.seq) == ("dpo@example.com", "omar", later, 3)


def test_an_erased_statement_is_no_missing_statement() -> None:
    words = texts_of([step(1, breach.text_event("I", Field.CONTACT, "dpo", by="eva", at=T0), erased=True)])
    assert (words.written[Field.CONTACT].text, Field.MEASURES in words.written, words.due) == (None, False, None)


@every("text", ["", " \n", "x" * (breach.MOST + 1)])
def test_empty_and_too_long_statements_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"written|longer"):
        breach.text_event("I", Field.CONTACT, text, by="eva", at=T0)


def test_awareness_in_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="still to come"):
        breach.aware_event("I", T0 + timedelta(seconds=1), by="eva", at=T0)
