"""People's statements about an incident in the journal: the latest of each field, and the 72 hours."""

from __future__ import annotations

from datetime import timedelta

import pytest

from smtpguard.incidents import breach
from smtpguard.incidents.breach import Field, said_of
from smtpguard.incidents.timeline import Step
from smtpguard.journal.chain import GENESIS, Clear, Entry, body_of, microseconds
from smtpguard.journal.event import Event
from tests.journal.chaining import SEAL, T0


def step(seq: int, event: Event, erased: bool = False) -> Step:
    clear: Clear | None = None if erased else {role: list(values) for role, values in event.private.items()}
    at, body = microseconds(event.at), body_of(event, SEAL)
    entry = Entry(seq=seq, at=at, kind=event.kind.value, id=event.id, body=body, prev=GENESIS, hash=GENESIS)
    return Step(entry=entry, clear=clear)


def test_the_latest_statement_of_each_field_counts() -> None:
    later = T0 + timedelta(hours=1)
    words = said_of(
        [
            step(1, breach.wrote("I", Field.CONTACT, " dpo ", by="eva", at=T0)),
            step(2, breach.aware("I", T0 - timedelta(hours=2), by="eva", at=T0)),
            step(3, breach.wrote("I", Field.CONTACT, "dpo@example.com", by="omar", at=later)),
            step(4, breach.aware("I", T0 - timedelta(hours=3), by="omar", at=later)),
        ]
    )
    assert words.due == T0 + timedelta(hours=69)
    contact = words.written[Field.CONTACT]
    assert (contact.text, contact.by, contact.at, contact.seq) == ("dpo@example.com", "omar", later, 3)


def test_an_erased_statement_is_no_missing_statement() -> None:
    words = said_of([step(1, breach.wrote("I", Field.CONTACT, "dpo", by="eva", at=T0), erased=True)])
    assert (words.written[Field.CONTACT].text, Field.MEASURES in words.written, words.due) == (None, False, None)


@pytest.mark.parametrize("text", ["", " \n", "x" * (breach.MOST + 1)])
def test_empty_and_too_long_statements_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"written|longer"):
        breach.wrote("I", Field.CONTACT, text, by="eva", at=T0)


def test_awareness_in_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="still to come"):
        breach.aware("I", T0 + timedelta(seconds=1), by="eva", at=T0)
