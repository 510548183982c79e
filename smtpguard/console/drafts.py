"""Drafts to customers and to staff, of the statements of a report that it marks as facts.

What only people can say stands in brackets, to be written. A list of a special category (GDPR Art. 9) is named in no
draft: who got the message would be told what they are taken for.
"""

from __future__ import annotations

from collections.abc import Iterator

from smtpguard.console.incident import ReportText
from smtpguard.console.incidentfurther import at_once
from smtpguard.console.reporting import Made
from smtpguard.incidents.statement import Mark, plain
from smtpguard.journal.chain import instant
from smtpguard.journal.outcome import Outcome
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech

AUDIENCES = ("customers", "staff")
TITLES = {"customers": N_("Draft to customers"), "staff": N_("Draft to staff")}
_CUSTOMERS_LEFT = (
    N_("[What happened in your own words, and what you do about it: to be written]"),
    N_("[Whom to ask, and how: to be written]"),
)
_STAFF_LEFT = (
    N_("This is what our records show, and no more. What they do not show we do not know yet."),
    N_("Please answer no questions from outside yourself."),
    N_("[Whom to pass questions on to: to be written]"),
)


def draft(audience: str, made: Made, page: ReportText, said: Speech) -> str:
    """``page``: the report in the language of ``said``."""
    report = made.report
    customers = audience == "customers"
    subject = (
        said("Subject: About a message that came from us")
        if customers
        else said("Subject: What went out, and what we know")
    )
    went = " ".join(_what_went_out(made, said)) if report.reached.messages else _nothing_went(made, said)
    known = " ".join((*(() if customers else _stopping(made, said)), *_known(made, page, said)))
    left = _CUSTOMERS_LEFT if customers else _STAFF_LEFT
    return "\n\n".join(filter(None, (subject, went, known, *map(said, left))))


def _what_went_out(made: Made, said: Speech) -> Iterator[str]:
    report = made.report
    here = said.local(made.purposes.zone)
    first, last = (here.whole(at) if at is not None else "" for at in (report.went_first, report.went_last))
    several = report.reached.messages > 1
    if first != last:
        text = (
            N_("Between {first} and {last} messages went out from us.")
            if several
            else N_("Between {first} and {last} a message went out from us.")
        )
        yield said(text, first=first, last=last)
    elif first and several:
        yield said("On {when} messages went out from us.", when=first)
    elif first:
        yield said("On {when} a message went out from us.", when=first)
    elif several:
        yield said("Messages went out from us.")
    else:
        yield said("A message went out from us.")
    lists = [made.purposes.lists.get(name) for name, people in report.of_lists.items() if people.low]
    if len(lists) == 1 and lists[0] is not None and not lists[0].sensitivity:
        title = plain(lists[0].title)
        if several:
            yield said("They reached people on our list {name}.", name=title)
        else:
            yield said("It reached people on our list {name}.", name=title)
    elif lists:
        if several:
            yield said("They reached people on a list of ours.")
        else:
            yield said("It reached people on a list of ours.")
    people = report.reached.people
    if not people.exact or report.perhaps.high:
        if several:
            yield said("How many people got any of them we do not know exactly yet.")
        else:
            yield said("How many people got it we do not know exactly yet.")
    elif several:
        yield said.ngettext("{n} person got at least one of them.", "{n} people got at least one of them.", people.low)
    else:
        yield said.ngettext("{n} person got it.", "{n} people got it.", people.low)


def _nothing_went(made: Made, said: Speech) -> str:
    if Outcome.IN_DOUBT in made.report.ends:
        return said("Whether a message of this went out from us we do not know yet.")
    return said("No message of this has gone out from us.")


def _stopping(made: Made, said: Speech) -> Iterator[str]:
    report = made.report
    if at_once(report) and Outcome.RELEASED in report.ends:
        yield said("It was stopped at once, as it came, and went out after people had let it go.")
    elif at_once(report):
        yield said("It was stopped at once, as it came.")
    elif report.stopped is not None:
        when = said.local(made.purposes.zone).whole(instant(report.stopped.at))
        yield said("It was stopped on {when}.", when=when)
    elif report.reached.messages:
        yield said("Nothing stopped it.")


def _known(made: Made, page: ReportText, said: Speech) -> Iterator[str]:
    """Whether others could read one's address, and what there is of an intrusion: where it is known."""
    report = made.report
    if report.shown > 1 and report.reached.messages:
        if report.reached.messages > 1:
            yield said("Some of those who got them could read other recipients' addresses.")
        else:
            yield said("Those who got it could read one another's addresses.")
    nothing = said("Nothing in the journal points to an intrusion.")
    every = (*page.paragraph, *(one for part in page.parts for one in part.statements))
    if any(one.mark is Mark.FACT and one.text == nothing for one in every):
        yield said("Nothing in our records points to an intrusion.")
