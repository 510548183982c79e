"""What people say of an incident: when they became aware of it, and the fields of GDPR Art. 33(3) that only they can fill. Pure.

It stands in the journal, each word with who wrote it and when; the last word of a field is the one that counts.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from smtpguard.incidents.statement import Step
from smtpguard.journal.chain import instant, utc_text
from smtpguard.journal.event import Event, Kind

HOURS = timedelta(hours=72)
"""GDPR Art. 33(1): from having become aware of it."""
MOST = 20_000
"""Characters of a field."""


class Field(enum.Enum):
    """In the order of GDPR Art. 33(3); DELAY is that of Art. 33(1)."""

    NATURE = "nature"  # (a)
    SUBJECTS = "subjects"  # (a) categories and number of the people
    RECORDS = "records"  # (a) categories and number of the records
    CONTACT = "contact"  # (b)
    CONSEQUENCES = "consequences"  # (c)
    MEASURES = "measures"  # (d)
    DELAY = "delay"


ARTICLES: Mapping[Field, str] = {
    Field.NATURE: "33(3)(a)",
    Field.SUBJECTS: "33(3)(a)",
    Field.RECORDS: "33(3)(a)",
    Field.CONTACT: "33(3)(b)",
    Field.CONSEQUENCES: "33(3)(c)",
    Field.MEASURES: "33(3)(d)",
    Field.DELAY: "33(1)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldText:
    """``text``, ``by``: None where retention has erased them. ``at``: when it was written; ``seq``: the entry."""

    text: str | None
    by: str | None
    at: datetime
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentTexts:
    """``aware``: since when they are, and who said so; None while nobody has. ``written``: the last word of each field."""

    aware: tuple[datetime, FieldText] | None
    written: Mapping[Field, FieldText]

    @property
    def due(self) -> datetime | None:
        return self.aware[0] + HOURS if self.aware is not None else None


def aware(id: str, since: datetime, *, by: str, at: datetime) -> Event:
    """That they are, as a person says. Raises ValueError for a time to come."""
    if since > at:
        raise ValueError("that time is still to come")
    data = {"change": "aware", "since": utc_text(since)}
    return Event(kind=Kind.INCIDENT, id=id, at=at, data=data, private={"actor": (by,)})


def wrote(id: str, what: Field, text: str, *, by: str, at: datetime) -> Event:
    """Raises ValueError for what is empty or too long."""
    if not text.strip():
        raise ValueError("nothing is written")
    if len(text) > MOST:
        raise ValueError(f"it is longer than {MOST:,} characters")
    private = {"actor": (by,), "comment": (text.strip(),)}
    return Event(kind=Kind.INCIDENT, id=id, at=at, data={"change": "written", "field": what.value}, private=private)


def said_of(steps: Iterable[Step]) -> IncidentTexts:
    """``steps``: of the case, in order."""
    since: tuple[datetime, FieldText] | None = None
    written: dict[Field, FieldText] = {}
    for step in steps:
        entry, clear = step.entry, step.clear or {}
        if entry.kind != Kind.INCIDENT.value:
            continue
        data = entry.data
        texts, people = clear.get("comment", ()), clear.get("actor", ())
        word = FieldText(
            text=texts[0] if texts else None,
            by=people[0] if people else None,
            at=instant(entry.at),
            seq=entry.seq,
        )
        if data.get("change") == "aware":
            since = datetime.fromisoformat(data["since"]), word
        elif data.get("field") in _FIELDS:
            written[Field(data["field"])] = word
    return IncidentTexts(aware=since, written=written)


_FIELDS = frozenset(each.value for each in Field)
