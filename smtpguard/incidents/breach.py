"""The texts that people write on an incident: when they became aware of it, and the fields of GDPR Art. 33(3) that only
they can fill. Pure.

The journal has each text, with who wrote it and when. The last text of a field counts.
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
"""The time to notify the authority after having become aware of a breach (GDPR Art. 33(1))."""
MOST = 20_000
"""The most characters of a field."""


class Field(enum.Enum):
    """A field of the notification, in the order of GDPR Art. 33(3). DELAY is that of Art. 33(1)."""

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
_FIELD_NAMES = frozenset(each.value for each in Field)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldText:
    """The text of a field. ``text``, ``by``: None if retention has erased them. ``at``: when it was written; ``seq``:
    its entry."""

    text: str | None
    by: str | None
    at: datetime
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentTexts:
    """The texts on an incident. ``aware``: since when people are aware of it, and who said so; None while nobody has.
    ``written``: the last text of each field."""

    aware: tuple[datetime, FieldText] | None
    written: Mapping[Field, FieldText]

    @property
    def due(self) -> datetime | None:
        return self.aware[0] + HOURS if self.aware is not None else None


def aware_event(id: str, since: datetime, *, by: str, at: datetime) -> Event:
    """Make the event that people are aware of an incident since then. Raises ValueError for a time to come."""
    if since > at:
        raise ValueError("that time is still to come")
    data = {"change": "aware", "since": utc_text(since)}
    return Event(kind=Kind.INCIDENT, id=id, at=at, data=data, private={"actor": (by,)})


def text_event(id: str, what: Field, text: str, *, by: str, at: datetime) -> Event:
    """Make the event that a person wrote the text of a field. Raises ValueError for an empty or too long text."""
    if not text.strip():
        raise ValueError("nothing is written")
    if len(text) > MOST:
        raise ValueError(f"it is longer than {MOST:,} characters")
    private = {"actor": (by,), "comment": (text.strip(),)}
    return Event(kind=Kind.INCIDENT, id=id, at=at, data={"change": "written", "field": what.value}, private=private)


def texts_of(steps: Iterable[Step]) -> IncidentTexts:
    """Return the texts on an incident. ``steps``: the timeline of the case, in order."""
    since: tuple[datetime, FieldText] | None = None
    written: dict[Field, FieldText] = {}
    for step in steps:
        entry, clear = step.entry, step.clear or {}
        if entry.kind != Kind.INCIDENT.value:
            continue
        data = entry.data
        texts, people = clear.get("comment", ()), clear.get("actor", ())
        written_text = FieldText(
            text=texts[0] if texts else None,
            by=people[0] if people else None,
            at=instant(entry.at),
            seq=entry.seq,
        )
        if data.get("change") == "aware":
            since = datetime.fromisoformat(data["since"]), written_text
        elif data.get("field") in _FIELD_NAMES:
            written[Field(data["field"])] = written_text
    return IncidentTexts(aware=since, written=written)
