"""Two drafts, to customers and to staff, made of facts alone: nothing is claimed that the report does not mark as one.

What only people can say stands in brackets, to be written. A list of a special category (GDPR Art. 9) is named in neither: who got
the message would be told what they are taken for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    audience: str
    title: str
    text: str


def draft(audience: str, made: Made, page: ReportText, said: Speech) -> Draft:
    """``page``: the report in the language of ``said``."""
    writer = _Writer(made, page, said)
    lines = list(writer.to_customers() if audience == "customers" else writer.to_staff())
    return Draft(audience=audience, title=said(TITLES[audience]), text="\n\n".join(lines))


class _Writer:
    def __init__(self, made: Made, page: ReportText, said: Speech) -> None:
        self._made, self._said = made, said
        every = (*page.paragraph, *(one for part in page.parts for one in part.statements))
        self._facts = [one for one in every if one.mark is Mark.FACT]

    def to_customers(self) -> Iterator[str]:
        said, report = self._said, self._made.report
        yield said("Subject: About a message that came from us")
        if report.reached.messages:
            yield " ".join(self._what_went_out())
        else:
            yield self._nothing()
        if text := " ".join(self._found()):
            yield text
        yield said("[What happened in your own words, and what you do about it: to be written]")
        yield said("[Whom to ask, and how: to be written]")

    def to_staff(self) -> Iterator[str]:
        said, report = self._said, self._made.report
        yield said("Subject: What went out, and what we know")
        if report.reached.messages:
            yield " ".join(self._what_went_out())
        else:
            yield self._nothing()
        if text := " ".join((*self._stopped(), *self._found())):
            yield text
        yield said("This is what our records show, and no more. What they do not show we do not know yet.")
        yield said("Please answer no questions from outside yourself.")
        yield said("[Whom to pass questions on to: to be written]")

    def _what_went_out(self) -> Iterator[str]:
        said, report = self._said, self._made.report
        began, ended = report.went_first, report.went_last
        first, last = (self._at(began), self._at(ended)) if began is not None and ended is not None else ("", "")
        several = first != last
        if several:
            yield said("Between {first} and {last} messages went out from us.", first=first, last=last)
        elif first:
            yield said("On {when} a message went out from us.", when=first)
        else:
            yield said("A message went out from us.")
        names = [self._made.purposes.lists.get(name) for name, people in report.of_lists.items() if people.low]
        if len(names) == 1 and names[0] is not None and not names[0].sensitivity:
            title = plain(names[0].title)
            if several:
                yield said("They reached people on our list {name}.", name=title)
            else:
                yield said("It reached people on our list {name}.", name=title)
        elif names:
            yield (
                said("They reached people on a list of ours.")
                if several
                else said("It reached people on a list of ours.")
            )
        people = report.reached.people
        if not people.exact or report.perhaps.high:
            if several:
                yield said("How many people got any of them we do not know exactly yet.")
            else:
                yield said("How many people got it we do not know exactly yet.")
        elif several:
            yield said.ngettext(
                "{n} person got at least one of them.", "{n} people got at least one of them.", people.low
            )
        else:
            yield said.ngettext("{n} person got it.", "{n} people got it.", people.low)

    def _nothing(self) -> str:
        said = self._said
        if Outcome.IN_DOUBT in self._made.report.ends:
            return said("Whether a message of this went out from us we do not know yet.")
        return said("No message of this has gone out from us.")

    def _stopped(self) -> Iterator[str]:
        report, said = self._made.report, self._said
        if at_once(report):
            yield said("It was stopped at once, as it came.")
        elif report.stopped is not None:
            yield said("It was stopped on {when}.", when=self._at(instant(report.stopped.at)))
        elif report.reached.messages:
            yield said("Nothing stopped it.")

    def _found(self) -> Iterator[str]:
        """Whether others could read one's address, and what there is of an intrusion: where it is known."""
        said, report = self._said, self._made.report
        if report.shown > 1 and report.reached.messages:
            yield said("Those who got it could read one another's addresses.")
        nothing = said("Nothing in the journal points to an intrusion.")
        if any(one.text == nothing for one in self._facts):
            yield said("Nothing in our records points to an intrusion.")

    def _at(self, at: datetime) -> str:
        """To the minute, in the organization's time."""
        return self._said.local(self._made.purposes.zone).whole(at)
