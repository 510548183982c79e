"""Notifications of an incident: the form that GDPR Art. 33(3) asks for, and drafts to customers and to staff.

Both are made of the statements of the report, so that they say nothing that the report does not say; the drafts only of facts.
The form has the facts of the journal and what people wrote. In a draft, what only people can say stands in brackets, to be
written. A list of a special category (GDPR Art. 9) is named in no draft: it would tell recipients what they are taken for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from smtpguard.console import labels
from smtpguard.console.incident import ReportText, hidden, hiding, in_people
from smtpguard.console.incidentsections import at_once
from smtpguard.console.reporting import Made
from smtpguard.incidents.breach import ARTICLES, Field, FieldText, IncidentTexts, texts_of
from smtpguard.incidents.report import CAME, LIST, WENT
from smtpguard.incidents.statement import MARKS, Entries, Mark, Statement, fact, plain, sure, unknown
from smtpguard.journal.chain import instant, utc_text
from smtpguard.journal.distinct import NOBODY
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Outcome
from smtpguard.locale.phrase import N_, NN_
from smtpguard.locale.speech import Speech

TITLES: Mapping[Field, str] = {
    Field.NATURE: N_("The nature of the breach"),
    Field.SUBJECTS: N_("Categories and approximate number of the people concerned"),
    Field.RECORDS: N_("Categories and approximate number of the records concerned"),
    Field.CONTACT: N_("Data protection officer, or other contact: name and contact details"),
    Field.CONSEQUENCES: N_("Likely consequences of the breach"),
    Field.MEASURES: N_("Measures taken or proposed, also to mitigate its effects"),
    Field.DELAY: N_("Reasons for the delay, where it is notified after 72 hours"),
}
"""The titles of the form's fields."""
_MEASURES = frozenset(kind.value for kind in (Kind.FREEZE, Kind.REJECTED, Kind.STOPPED, Kind.REOPENED))
"""The kinds of entries that are measures against the breach."""
DRAFT_TITLES: Mapping[str, str] = {"customers": N_("Draft to customers"), "staff": N_("Draft to staff")}
_TO_CUSTOMERS = (
    N_("[What happened in your own words, and what you do about it: to be written]"),
    N_("[Whom to ask, and how: to be written]"),
)
_TO_STAFF = (
    N_("This is what our records show, and no more. What they do not show we do not know yet."),
    N_("Please answer no questions from outside yourself."),
    N_("[Whom to pass questions on to: to be written]"),
)
"""The ends of the drafts, with what people have to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledField:
    """One field of the form. ``statements``: what the journal has on it; ``word``: what people wrote, None while nobody has."""

    field: Field
    title: str
    article: str
    statements: tuple[Statement, ...]
    word: FieldText | None

    @property
    def empty(self) -> bool:
        """Return whether a person has to write it: neither the journal nor people have said anything."""
        return not self.statements and self.word is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The form of GDPR Art. 33(3). ``id``: under which the journal keeps what people write. ``clock``: the statements on the 72
    hours; ``over``: whether the 72 hours are over. ``special``: the lists of a special category (GDPR Art. 9)."""

    id: str
    words: IncidentTexts
    clock: tuple[Statement, ...]
    over: bool
    special: tuple[Statement, ...]
    rows: tuple[FilledField, ...]


def incident_id(made: Made) -> str:
    """Return the id of an incident, the same for whoever asks for it: the least id that was asked for, else its largest mailing,
    else its first message that was let through."""
    if made.query.ids:
        return min(made.query.ids)
    if made.report.mailings:
        return made.report.mailings.most_common(1)[0][0]
    return made.report.let_through[0].id if made.report.let_through is not None else ""


def filled_form(made: Made, page: ReportText, said: Speech) -> Form:
    words = texts_of(made.report.steps)
    over = words.due is not None and made.at > words.due
    hide = hiding(made, said)
    special = hidden(_special(made, said), hide)
    facts: Mapping[Field, tuple[Statement, ...]] = {
        Field.NATURE: (*page.paragraph, *special),
        Field.SUBJECTS: hidden(_subjects(made, said), hide),
        Field.RECORDS: tuple(_records(made, said)),
        Field.MEASURES: tuple(_measures(made, page, said)),
    }
    rows = [
        FilledField(
            field=one,
            title=said(TITLES[one]),
            article=f"GDPR Art. {ARTICLES[one]}",
            statements=facts.get(one, ()),
            word=words.written.get(one),
        )
        for one in Field
        if one is not Field.DELAY or over or one in words.written
    ]
    clock = next((part.statements for part in page.parts if part.key == "authority"), ())
    return Form(id=incident_id(made), words=words, clock=clock, over=over, special=special, rows=tuple(rows))


def _special(made: Made, said: Speech) -> Iterator[Statement]:
    for name in made.report.lists:
        one = made.purposes.lists.get(name)
        if one is not None and one.special:
            category = labels.CATEGORIES[one.category or ""]
            text = said("GDPR Art. 9: the list {name} ({category})", name=one.title, category=said(category))
            yield fact(text, made.report.entries[LIST, name])


def _subjects(made: Made, said: Speech) -> Iterator[Statement]:
    report = made.report
    reached = report.reached.people
    for name in report.lists:
        one, have = made.purposes.lists.get(name), report.of_lists.get(name, NOBODY)
        if one is None or have.high == 0:
            continue
        text = said(
            "{people} on the list {name} got it (audience {audience})",
            people=in_people(have, said),
            name=one.title,
            audience=said(labels.AUDIENCES.get(one.audience, one.audience)),
        )
        yield Statement(text=text, mark=sure(have.exact), entries=report.entries[LIST, name])
    if reached.high == 0:
        text = said("nobody is known to have it")
    else:
        text = said("in all {people} got it", people=in_people(reached, said))
    entries = report.entries[(WENT, "") if report.reached.messages else (CAME, "")]
    yield Statement(text=text, mark=sure(reached.exact), entries=entries)
    if report.perhaps.high != 0:
        yield unknown(said("whether {people} more got it", people=in_people(report.perhaps, said)))


def _records(made: Made, said: Speech) -> Iterator[Statement]:
    report = made.report
    went = said.ngettext("{n} message went out", "{n} messages went out", report.reached.messages)
    yield fact(went, report.entries[(WENT, "") if report.reached.messages else (CAME, "")])
    if report.shown > 1:
        text = said("{n} addresses stood in To and Cc, where all who got it can read them", n=said.number(report.shown))
        yield fact(text, report.entries[CAME, ""])


def _measures(made: Made, page: ReportText, said: Speech) -> Iterator[Statement]:
    yield from next((part.statements for part in page.parts if part.key == "speed"), ())
    here = said.local(made.purposes.zone)
    for row in page.timeline:
        if row.what in _MEASURES:
            yield fact(f"{here.whole(row.at)}: {row.text}", Entries.of(row.seq))


def form_row(form: Form, made: Made) -> dict[str, Any]:
    """Return the form as a JSON object."""
    words = form.words
    aware = None
    if words.aware is not None and words.due is not None:
        since, word = words.aware
        said = _written(word, made, "said_at")
        aware = {"since": utc_text(since), **said, "due": utc_text(words.due)}
    return {
        "id": form.id,
        "aware": aware,
        "over": form.over,
        "special_categories": [one.text for one in form.special],
        "fields": [
            {
                "field": row.field.value,
                "article": row.article,
                "title": row.title,
                "facts": [
                    {"text": one.text.strip(), "mark": one.mark.value, "entries": list(one.entries.named)}
                    for one in row.statements
                ],
                "written": {"text": row.word.text, **_written(row.word, made, "at")} if row.word is not None else None,
                "to_be_written": row.empty,
            }
            for row in form.rows
        ],
    }


def _written(word: FieldText, made: Made, at: str) -> dict[str, Any]:
    """Return who wrote it and when, as JSON values. ``at``: the key of the time."""
    return {"by": word.by if made.names else None, at: utc_text(word.at), "entry": word.seq}


def form_lines(form: Form, said: Speech, names: bool) -> Iterator[str]:
    """Yield the form in lines, for a terminal or to be pasted. ``said``: with the organization's zone."""
    for one in form.clock:
        yield one.text
    for row in form.rows:
        yield ""
        yield f"{row.title.upper()} ({row.article})"
        for one in row.statements:
            yield f"  {one.text.strip()}  [{said(MARKS[one.mark])}]"
        if row.word is not None:
            text = row.word.text if row.word.text is not None else said("(erased)")
            yield from (f"  {line}" for line in text.splitlines())
            who = row.word.by if names and row.word.by else said("somebody")
            yield "  " + said("written by {who}, {when}", who=who, when=said.whole(row.word.at))
        elif row.empty:
            yield "  " + said("TO BE WRITTEN: smtpguard incident write {id} {field}", id=form.id, field=row.field.value)


def draft(audience: str, made: Made, page: ReportText, said: Speech) -> str:
    """Return a draft to "customers" or "staff". ``page``: the report in the language of ``said``."""
    report = made.report
    customers = audience == "customers"
    subject = (
        said("Subject: About a message that came from us")
        if customers
        else said("Subject: What went out, and what we know")
    )
    went = " ".join(_what_went_out(made, said)) if report.reached.messages else _nothing_went(made, said)
    known = " ".join((*(() if customers else _stopping(made, said)), *_known(made, page, said)))
    left = _TO_CUSTOMERS if customers else _TO_STAFF
    return "\n\n".join(filter(None, (subject, went, known, *map(said, left))))


def _what_went_out(made: Made, said: Speech) -> Iterator[str]:
    report = made.report
    here, n = said.local(made.purposes.zone), report.reached.messages
    first, last = (here.whole(at) if at is not None else "" for at in (report.went_first, report.went_last))
    if first != last:
        forms = NN_(
            "Between {first} and {last} a message went out from us.",
            "Between {first} and {last} messages went out from us.",
        )
    elif first:
        forms = NN_("On {first} a message went out from us.", "On {first} messages went out from us.")
    else:
        forms = NN_("A message went out from us.", "Messages went out from us.")
    yield said.ngettext(*forms, n, first=first, last=last)
    lists = [made.purposes.lists.get(name) for name, people in report.of_lists.items() if people.low]
    if len(lists) == 1 and lists[0] is not None and not lists[0].sensitivity:
        forms = NN_("It reached people on our list {name}.", "They reached people on our list {name}.")
        yield said.ngettext(*forms, n, name=plain(lists[0].title))
    elif lists:
        yield said.ngettext("It reached people on a list of ours.", "They reached people on a list of ours.", n)
    people = report.reached.people
    if not people.exact or report.perhaps.high:
        yield said.ngettext(
            "How many people got it we do not know exactly yet.",
            "How many people got any of them we do not know exactly yet.",
            n,
        )
    elif n > 1:
        yield said.ngettext("{n} person got at least one of them.", "{n} people got at least one of them.", people.low)
    else:
        yield said.ngettext("{n} person got it.", "{n} people got it.", people.low)


def _nothing_went(made: Made, said: Speech) -> str:
    if Outcome.IN_DOUBT in made.report.ends:
        return said("Whether a message of this went out from us we do not know yet.")
    return said("No message of this has gone out from us.")


def _stopping(made: Made, said: Speech) -> Iterator[str]:
    report, here = made.report, said.local(made.purposes.zone)
    held = report.stopped is not None and report.stopped.data.get("action") in ("hold", "confirm")
    if at_once(report) and Outcome.RELEASED in report.ends:
        yield said("It was held at once, as it came, and went out after people had let it go.")
    elif report.stopped is not None and report.went_after.many and report.went_last is not None:
        when, last = here.whole(instant(report.stopped.at)), here.whole(report.went_last)
        if held:
            yield said("It was first held on {when}, and the last of it went out on {last}.", when=when, last=last)
        else:
            yield said("It was first stopped on {when}, and the last of it went out on {last}.", when=when, last=last)
    elif at_once(report):
        yield said("It was held at once, as it came.") if held else said("It was stopped at once, as it came.")
    elif report.stopped is not None:
        when = here.whole(instant(report.stopped.at))
        yield said("It was held on {when}.", when=when) if held else said("It was stopped on {when}.", when=when)
    elif report.reached.messages:
        yield said("Nothing stopped it.")


def _known(made: Made, page: ReportText, said: Speech) -> Iterator[str]:
    """Yield whether recipients could read one another's addresses, and that nothing points to an intrusion, as far as it is
    known."""
    report = made.report
    if report.shown > 1 and report.reached.messages:
        yield said.ngettext(
            "Those who got it could read one another's addresses.",
            "Some of those who got them could read other recipients' addresses.",
            report.reached.messages,
        )
    nothing = said("Nothing in the journal points to an intrusion.")
    every = (*page.paragraph, *(one for part in page.parts for one in part.statements))
    if any(one.mark is Mark.FACT and one.text == nothing for one in every):
        yield said("Nothing in our records points to an intrusion.")
