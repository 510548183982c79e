"""An incident report in words, on a page that can be read out, in the reader's language.

Times are UTC, so that all copies of a report say the same, with the organization's local time beside them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from smtpguard.console import journalwords, labels, rulewords
from smtpguard.console.chart import Lanes, lanes
from smtpguard.console.incidentsections import LANES, MODES, Row, Sections, in_view
from smtpguard.console.reporting import Made
from smtpguard.incidents.query import NAMES, IncidentQuery
from smtpguard.incidents.report import AGAIN, CAME, LIST, RULE, WENT
from smtpguard.incidents.statement import Entries, Mark, Part, Statement, estimate, fact, plain, sure, unknown
from smtpguard.journal.chain import instant, readable_time
from smtpguard.journal.distinct import NOBODY, Interval
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import OPEN, Outcome, Sum
from smtpguard.locale.phrase import N_, NN_
from smtpguard.locale.speech import Speech
from smtpguard.policy.freezing import FREEZE, Selector

MOST = 10
"""The most addresses, subjects and the like that are shown, those with the most messages first; also the most unknowns
that are named."""
FEW = 4
"""The most values that a rule saw, and contents, that are shown."""
OUTCOMES: Mapping[Outcome, str] = {
    Outcome.DELIVERED: N_("delivered: the relay took it"),
    Outcome.RELEASED: N_("delivered after people had let it go"),
    Outcome.IN_DOUBT: N_("in doubt: it is unknown whether the relay accepted it"),
    Outcome.ON_ITS_WAY: N_("approved, not sent yet"),
    Outcome.WAITING: N_("held: it waits for a decision, or for its stage"),
    Outcome.UNDELIVERED: N_("approved, but not delivered to them"),
    Outcome.GRANTED: N_("a test that people approved, of which nothing is sent"),
    Outcome.DECLINED: N_("rejected by people: not sent"),
    Outcome.WITHDRAWN: N_("held and withdrawn by its writer"),
    Outcome.EXPIRED: N_("held and expired without a decision: not sent"),
    Outcome.VOID: N_("deferred: its client was told to try again"),
    Outcome.REJECTED: N_("rejected by a rule"),
    Outcome.DEFERRED: N_("deferred: its client still has it"),
    Outcome.REFUSED: N_("refused by the relay"),
    Outcome.NOT_SENT: N_("stopped before it was sent"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportText:
    """The report in words, for all formats. ``paragraph``: what to say first, to be read aloud. ``whole``: False if the journal is not
    as it was written. ``timeline``: its rows, with the heading ``when``; ``drawing``: the same as a chart, None if all is at one
    moment."""

    title: str
    made: str
    query: str
    proof: str
    whole: bool
    paragraph: tuple[Statement, ...]
    parts: tuple[Part, ...]
    when: str
    zone: str
    timeline: tuple[Row, ...]
    drawing: Lanes | None
    language: str

    @property
    def short(self) -> str:
        return " ".join(one.text for one in self.paragraph)


def report_in_words(made: Made, said: Speech, by: str = "") -> ReportText:
    found = made.found
    text, hide = _Text(made, said), hiding(made, said)
    parts = (
        ("became", said("Outcome"), text.ends()),
        ("mailings", said("Mailings, in distinct people over their whole time"), text.mailings()),
        ("who", said("Who"), text.who()),
        ("way", said("How it came in, and signs of an intrusion"), text.ways()),
        ("what", said("What"), text.what()),
        ("decided", said("Who decided"), text.decided()),
        ("speed", said("How fast it was stopped"), text.speed()),
        ("why", said("Why"), text.why()),
        ("missed", said("Rules that did not hit, and by how much"), text.missed()),
        ("policy", said("The policy then"), text.policy()),
        ("authority", said("The authority's 72 hours (GDPR Art. 33)"), text.authority()),
        ("unknown", said("What is not known"), map(unknown, not_known(made, said))),
    )
    rows = tuple(replace(row, text=hide(row.text)) for row in text.rows())
    return ReportText(
        title=said("Incident report"),
        made=said("made {when} by {who}", when=f"{made.at:%Y-%m-%d %H:%M:%S} UTC", who=by or "smtpguard"),
        query=hide("; ".join(query_in_words(made.query, said, made.names))),
        proof=journalwords.proof_in_words(found, said),
        whole=found.proof is None or found.proof.ok,
        paragraph=hidden((*text.short(), *text.in_short()), hide),
        parts=tuple(
            Part(key=key, title=title, statements=lines) for key, title, some in parts if (lines := hidden(some, hide))
        ),
        when=text.title(),
        zone=text.zone.key if text.zone else "",
        timeline=rows,
        drawing=lanes(
            [(row.at, LANES[row.kind]) for row in rows if row.kind in LANES], made.report.first, made.report.until
        ),
        language=said.language,
    )


def hiding(made: Made, said: Speech) -> Callable[[str], str]:
    """Return a function that leaves the names and titles of lists of a special category (GDPR Art. 9) out of a text: they would say
    what the lists' people believe or are. It also leaves out lists that no kept policy describes, since nobody knows whether they are
    such lists. In a report with names it leaves out nothing."""
    lists = made.purposes.lists
    special = [name for name, one in lists.items() if one.special]
    words = {*special, *(lists[name].title for name in special), *((made.report.lists.keys() | made.query.lists) - lists.keys())}  # fmt: skip
    if made.names or not words:
        return str
    any_of = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    pattern, left_out = re.compile(rf"(?<!\w)(?:{any_of})(?!\w)", re.IGNORECASE), said("[name left out]")
    return lambda text: pattern.sub(left_out, text)


def hidden(statements: Iterable[Statement], hide: Callable[[str], str]) -> tuple[Statement, ...]:
    return tuple(replace(one, text=hide(one.text)) for one in statements)


class _Text(Sections):
    """The first sections of the report; Sections has the later ones."""

    def short(self) -> Iterator[Statement]:
        report, said = self.report, self.said
        many = said.ngettext("{n} message", "{n} messages", report.messages)
        yield fact(
            said("{messages} came {when}.", messages=many, when=self._aloud(report.first, report.last)), self.of(CAME)
        )
        reached, still = report.reached, report.open
        if reached.messages:
            exact = sure(reached.people.exact)
            text = said("{messages} went out, to {people}.", **self._sum(reached))
            yield Statement(text=text, mark=exact, entries=self.of(WENT))
            yield from (fact(text, self.of(WENT)) for text in self._went_out())
            if report.perhaps.high != 0:
                text = said("It may have reached {people} more.", people=in_people(report.perhaps, said))
                yield estimate(text, self.of("end", Outcome.IN_DOUBT.value))
        elif Outcome.IN_DOUBT in report.ends:
            yield unknown(said("No message is known to have been sent."))
            people = self._sum(report.ends[Outcome.IN_DOUBT])["people"]
            text = said("It may have gone out to {people}: in doubt.", people=people)
            yield estimate(text, self.of("end", Outcome.IN_DOUBT.value))
        else:
            yield fact(said("None of it was sent through this guard."), self.of(CAME))
        if report.unreached.high != 0 and (reached.messages or Outcome.IN_DOUBT in report.ends):
            text = said("It has not reached {people} more.", people=in_people(report.unreached, said))
            yield Statement(text=text, mark=sure(report.unreached.exact), entries=self.of(CAME))
        if still.messages:
            text = said("Still open: {messages}, for {people}.", **self._sum(still))
            yield Statement(text=text, mark=sure(still.people.exact), entries=self._ends(OPEN))

    def _aloud(self, first: datetime, last: datetime) -> str:
        """Return the time to the minute, in the organization's time zone, as one reads it aloud."""
        said = self.said.local(self.made.purposes.zone)
        began, ended = said.whole(first), said.whole(last)
        if began == ended:
            return said("on {when}", when=began)
        here = first.astimezone(said.zone), last.astimezone(said.zone)
        if here[0].date() != here[1].date() or here[0].tzname() != here[1].tzname():  # summer time may end in between
            return said("between {first} and {last}", first=began, last=ended)
        times = {name: f"{at:%H:%M}" for name, at in zip(("first", "last"), here, strict=True)}
        return said(
            "on {day} between {first} and {last} ({zone})", day=said.long_day(last), zone=here[1].tzname(), **times
        )

    def _ends(self, ends: Iterable[Outcome]) -> Entries:
        some = (self.of("end", end.value) for end in ends)
        return Entries.of(*(seq for one in some for seq in one.named))

    def _went_out(self) -> list[str]:
        """Return when it went out, if that differs from when it came."""
        report, said = self.report, self.said
        if report.went_first is None or report.went_last is None:
            return []
        when = self._aloud(report.went_first, report.went_last)
        came = self._aloud(report.first, report.last)
        return [said("The mail server took it {when}.", when=when)] if when != came else []

    def ends(self) -> Iterator[Statement]:
        report, said = self.report, self.said
        for end, some in report.ends.items():
            text = said("{messages}, for {people}: {became}", became=said(OUTCOMES[end]), **self._sum(some))
            mark = Mark.UNKNOWN if end is Outcome.IN_DOUBT else sure(some.people.exact)
            yield Statement(text=text, mark=mark, entries=self.of("end", end.value))
        for end, n in report.copies.items():
            copies = said.ngettext(
                "{n} copy made by a list server, which is not counted as a message",
                "{n} copies made by a list server, which are not counted as messages",
                n,
            )
            yield fact(f"{copies}: {said(OUTCOMES[end])}")
        for code, n in sorted(report.refused.items()):
            refused = said.ngettext(
                "{n} recipient was refused by the relay before there was a message ({code})",
                "{n} recipients were refused by the relay before there was a message ({code})",
                n,
                code=code,
            )
            yield fact(refused)
        again = NN_(
            "one retry of a message that was already held, counted as the same message",
            "{n} retries of messages that were already held, counted as the same message",
        )
        parts = NN_(
            "once colleagues among the recipients received it while the customers' part was held",
            "{n} times colleagues among the recipients received it while the customers' part was held",
        )
        lost = NN_(
            "the relay refused {n} recipient of released messages",
            "the relay refused {n} recipients of released messages",
        )
        counts = (
            (report.again, again, self.of(AGAIN)),
            (report.parts, parts, self.of(WENT)),
            (report.undelivered, lost, self.of("end", Outcome.UNDELIVERED.value)),
        )
        yield from (fact(said.ngettext(*forms, n), entries) for n, forms, entries in counts if n)

    def mailings(self) -> Iterator[Statement]:
        said = self.said
        for one in self.made.found.mailings[:MOST]:
            people = one.people
            counts = (
                (people.amount("relayed"), N_("{n} got it")),
                (people.amount("doubted"), N_("{n} may have got it")),
                (people.amount("admitted"), N_("{n} to be sent")),
                (people.amount("held"), N_("{n} held")),
                (people.amount("deferred"), N_("{n} deferred, still at the client")),
                (people.amount("refused"), N_("{n} refused by the relay")),
                (people.amount("stopped"), N_("{n} did not receive it: it was held and is not sent")),
                (one.bounces, N_("{n} bounces")),
                (one.complaints, N_("{n} complaints")),
            )
            titled = f' "{plain(one.subject)}"' if one.subject and self.made.names else ""
            nobody = [said("no one received it")] if not (people.relayed or people.doubted) else []
            reached = ", ".join([*nobody, *(said(text, n=said.number(n)) for n, text in counts if n)])
            text = f"{one.mailing_id}{titled}: {reached}. {said(labels.mailing_state(one))}"
            mark = sure(people.at_least == people.at_most)
            yield Statement(text=text, mark=mark, entries=self.of("mailing", one.mailing_id))
        if len(self.report.mailings) > MOST:
            yield fact(more(len(self.report.mailings) - MOST, said))

    def who(self) -> Iterator[Statement]:
        if not self.made.names:
            return
        writers = self.report.writers
        for role in dict.fromkeys(role for role, _ in writers):
            some = Counter({a: n for (r, a), n in writers.items() if r == role})
            yield from self._counted(self.said(NAMES[role]), some, role)
        yield from self._counted(self.said("client"), self.report.clients, "client")
        yield from self._counted(
            self.said("relayed without the database, under the bypass"), self.report.bypasses, "bypass"
        )

    def what(self) -> Iterator[Statement]:
        if self.made.names:
            yield from self._counted(self.said("subject"), self.report.subjects, "subject")
        a_list = self.said("list")
        for name, n in self.report.lists.most_common(MOST):
            many = f" ({self.said.number(n)})" if len(self.report.lists) > 1 else ""
            text = plain(f"{a_list}: {name}{self._list(name)}{many}{self._on_it(name)}")
            counts = (self.report.of_lists.get(name, NOBODY), self.report.perhaps_of_lists.get(name, NOBODY))
            exact = all(each.exact for each in counts) and counts[1].high == 0
            yield Statement(text=text, mark=sure(exact), entries=self.of(LIST, name))
        if len(self.report.lists) > MOST:
            yield fact(f"{a_list}: {more(len(self.report.lists) - MOST, self.said)}")
        yield from self._counted(self.said("content, SHA-256"), self.report.contents, "content", most=FEW)
        for id, at in self.report.held:
            until = self.here(at + self.made.keeps)
            kept = self.said("what it said: smtpguard held export {id}, kept until {when} at least", id=id, when=until)
            yield fact(kept, self.of(CAME))
        if (shown := self.report.shown) > 1:
            read = self.said(
                "recipients could read each other's addresses: {n} were in To and Cc", n=self.said.number(shown)
            )
            yield Statement(text=read, mark=sure(bool(self.report.reached.messages)), entries=self.of(CAME))

    def why(self) -> Iterator[Statement]:
        report, said = self.report, self.said
        reasons = report.reasons.most_common()
        for (rule, mode), n in report.rules.most_common():
            many = f" ({said.number(n)})" if report.messages > 1 else ""
            aim = self.made.purposes.of.get(rule) or (said(rulewords.AIMS[rule]) if rule in rulewords.AIMS else "")
            purpose = f": {aim}" if aim else ""
            rests = self.of(RULE, f"{mode} {rule}")
            yield fact(plain(f"{said(MODES[mode], name=rule)}{purpose}{many}"), rests)
            seen = [(one, m) for one, m in reasons if one[0] == rule and mode == "enforce"]
            for (_, name, observed, limit), m in seen[:FEW]:
                observed = observed if self.made.names or name != FREEZE else what_is_frozen(observed)
                value = rulewords.value_in_words(name, observed, said)[:200] or said("not shown")
                limit = rulewords.limit_in_words(name, limit, said)[:200]
                asked = said("{value}, the condition {limit}", value=value, limit=limit) if limit else value
                text = f"  {rulewords.fact_in_words(name, said)}: {asked}" + (f" ({said.number(m)})" if m != n else "")
                yield fact(plain(text), rests)

    def decided(self) -> Iterator[Statement]:
        """Yield people's decisions, each vote with what its voter had viewed; then what passed by an earlier approval, and what nobody
        was asked about."""
        said = self.said
        for step in self.report.steps:
            entry = step.entry
            if journalwords.is_decision(entry):
                yield fact(plain(f"{self.here(instant(entry.at))}: {self.text(step)}"), Entries.of(entry.seq))
                if entry.kind == Kind.VOTE.value:
                    yield in_view(step, self.report.steps, said, self.made.names)
        approved = sum(n for (_, mode), n in self.report.rules.items() if mode == "approved")
        if approved:
            yield fact(said("an earlier approval or confirmation let pass what a rule would have held"), self.of(CAME))
        held = {Outcome.DELIVERED, Outcome.IN_DOUBT} & self.report.ends.keys()
        if held and not any(mode == "enforce" for _, mode in self.report.rules):
            yield fact(said("no decision was needed: no enforced rule stopped it"), self.of(CAME))
        elif not approved and Outcome.DELIVERED in self.report.ends:
            text = said("mail that passed at once needed no decision: no enforced rule stopped it")
            yield fact(text, self.of("end", Outcome.DELIVERED.value))

    def _on_it(self, name: str) -> str:
        """Return how many people on the list have it, or may have it."""
        said, have = self.said, self.report.of_lists.get(name, NOBODY)
        may = self.report.perhaps_of_lists.get(name, NOBODY)
        parts = [said("{people} on it got it", people=in_people(have, said))] if have.high != 0 else []
        parts += [said("{people} more may have it", people=in_people(may, said))] if may.high != 0 else []
        return f": {', '.join(parts)}" if parts else ""

    def _list(self, name: str) -> str:
        """Return the list's title and audience, and its sensitivity."""
        one, said = self.made.purposes.lists.get(name), self.said
        if one is None:
            return ""
        special = one.special
        parts = [one.title] if one.title != name and (self.made.names or not special) else []
        parts.append(said("audience {name}", name=said(labels.AUDIENCES.get(one.audience, one.audience))))
        if special:
            category = labels.CATEGORIES[one.category or "" if self.made.names else ""]
            parts.append(said(category) + " (" + said("GDPR Art. 9") + ")")
        elif one.sensitivity:
            parts.append(one.sensitivity)
        return f" ({'; '.join(parts)})"

    def _sum(self, some: Sum) -> dict[str, str]:
        return {
            "messages": self.said.ngettext("{n} message", "{n} messages", some.messages),
            "people": in_people(some.people, self.said),
        }

    def _counted(self, what: str, counter: Counter[str], key: str, *, most: int = MOST) -> Iterator[Statement]:
        """Yield the values with the most messages. ``key``: under which ``Report.entries`` has them."""
        for value, n in counter.most_common(most):
            text = plain(f"{what}: {value}" + (f" ({self.said.number(n)})" if len(counter) > 1 else ""))
            yield fact(text, self.of(key, value))
        if len(counter) > most:
            yield fact(f"{what}: {more(len(counter) - most, self.said)}")


def in_people(some: Interval, said: Speech) -> str:
    """Return "60 people", or a range."""
    if some.exact:
        return said.ngettext("{n} person", "{n} people", some.low)
    if some.high is None:
        return said("at least {people}", people=said.ngettext("{n} person", "{n} people", some.low))
    if not some.low:
        return said("at most {people}", people=said.ngettext("{n} person", "{n} people", some.high))
    return said("{least} to {most} people", least=said.number(some.low), most=said.number(some.high))


def in_numbers(entries: Entries, said: Speech) -> str:
    """Return the numbers of the entries in the journal; of many entries, those of the first few and of the last."""
    named = [str(seq) for seq in entries.named]
    if entries.more:
        return said(
            "{first} … {last}, {n} in all", first=", ".join(named[:-1]), last=named[-1], n=said.number(entries.many)
        )
    return ", ".join(named)


def more(n: int, said: Speech) -> str:
    return said("and {n} more", n=said.number(n))


def query_in_words(query: IncidentQuery, said: Speech, names: bool) -> Iterator[str]:
    yield from sorted(query.ids)
    yield from (said("the list {name}", name=name) for name in sorted(query.lists))
    if names:
        yield from (said("mail from {name}", name=plain(address)) for address in sorted(query.senders))
        if query.subject:
            yield said('a subject with "{words}"', words=plain(query.subject))
    elif query.senders or query.subject:
        yield said("what somebody wrote")
    if query.since is not None:
        yield said("since {when}", when=readable_time(query.since))
    if query.until is not None:
        yield said("until {when}", when=readable_time(query.until))


def what_is_frozen(observed: str) -> str:
    """Return what a freeze stops, without the address that follows "sender" in entries of earlier versions."""
    return observed.partition(" ")[0] if observed.startswith(f"{Selector.SENDER.value} ") else observed


def not_known(made: Made, said: Speech) -> Iterator[str]:
    """Yield what an incident report cannot know. It is the last section, so that silence is not read as "no"."""
    report, proof = made.report, made.found.proof
    if report.unsettled:
        shown = ", ".join(report.unsettled[:MOST])
        if len(report.unsettled) > MOST:
            shown += " " + more(len(report.unsettled) - MOST, said)
        yield said("whether the relay accepted {ids}: look in its own log", ids=shown)
    if not all(some.people.exact for some in (*report.ends.values(), report.reached, report.open)):
        yield said(
            "the exact number of people: for some it is unknown whether they are on a list that it went to, whether they are on two lists, or which recipients of a message received it"
        )
    if report.shown <= 1 and (report.reached.messages or Outcome.IN_DOUBT in report.ends):
        yield said(
            "whether recipients could read each other's addresses: no message with several recipients in To and Cc is on record"
        )
    if report.crowds:
        yield said("which people behind a list's address it reached: only the relay's answer for the address is known")
    if report.erased:
        yield said.ngettext(
            "the writer or the subject of {n} message, which is erased",
            "the writers or the subjects of {n} messages, which are erased",
            report.erased,
        )
    for sha256 in made.purposes.lost[:MOST]:
        yield said(
            "the purposes of the rules of policy {sha256}: it is no longer kept, or this version cannot read it",
            sha256=sha256[:12],
        )
    for lost in proof.lost if proof is not None else ():
        yield journalwords.missing_period(lost, said)
    if proof is None:
        yield said("whether the journal is whole: the proof was not requested")
    if Outcome.DEFERRED in report.ends:
        yield said("the final outcome of deferred messages: a retry is counted again, by its own outcome")
    yield said("mail that did not go through this guard, and who read the delivered mail")
