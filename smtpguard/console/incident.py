"""An incident report in words, on a page that can be read out, in the reader's language.

Times are UTC, so that all copies of a report say the same, with the organization's local time beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from smtpguard.console import labels, rulewords
from smtpguard.console.ports import Found
from smtpguard.console.proofwords import not_in_it, proved
from smtpguard.console.reporting import Made
from smtpguard.console.telling import told as in_words
from smtpguard.incidents.about import NAMES, About
from smtpguard.incidents.purposes import Purposes
from smtpguard.incidents.report import Report
from smtpguard.incidents.timeline import Step
from smtpguard.journal.chain import Clear, Entry, instant
from smtpguard.journal.distinct import NOBODY, Interval
from smtpguard.journal.event import Kind
from smtpguard.journal.fate import End, Sum
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.policy.freezing import FREEZE, Selector

MOST = 10
"""The most addresses, subjects and the like that are shown, those with the most messages first; also the most unknowns
that are named."""
FEW = 4
"""The most values that a rule saw, and contents, that are shown."""
BECAME: Mapping[End, str] = {
    End.DELIVERED: N_("delivered: the relay took it"),
    End.RELEASED: N_("delivered after people had approved it"),
    End.IN_DOUBT: N_("in doubt: nobody knows whether the relay took it"),
    End.ON_ITS_WAY: N_("approved, and not out yet"),
    End.WAITING: N_("held: people are still to decide"),
    End.UNDELIVERED: N_("approved, and it could not be delivered to them"),
    End.GRANTED: N_("a test that people approved, of which nothing is sent"),
    End.DECLINED: N_("held, and people decided that it does not go out"),
    End.WITHDRAWN: N_("held, and withdrawn by its writer"),
    End.EXPIRED: N_("held, and nobody decided in time: it does not go out"),
    End.VOID: N_("not taken: its client was told to try again"),
    End.REJECTED: N_("rejected by a rule"),
    End.DEFERRED: N_("put off: its client has it still"),
    End.REFUSED: N_("refused by the relay"),
    End.NOT_SENT: N_("stopped before it was sent"),
}
DECISIONS = frozenset(
    kind.value
    for kind in (
        Kind.VOTE,
        Kind.APPROVED,
        Kind.CONFIRMED,
        Kind.UNCONFIRMED,
        Kind.REJECTED,
        Kind.WITHDRAWN,
        Kind.REOPENED,
        Kind.STOPPED,
        Kind.SETTLED,
        Kind.EXPIRED,
        Kind.MAILING,
    )
)
ROLES: Mapping[str, str] = {said: said for said in NAMES.values()}
MODES: Mapping[str, str] = {
    "enforce": N_("rule {name}"),
    "observe": N_("rule {name} (observes)"),
    "approved": N_("rule {name} (approved)"),
}
_SPACES = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"  # group separators in numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """``short``: what to say first. ``sections``: titles with their lines; none is empty. ``whole``: False if the
    journal is not as it was written."""

    about: str
    proof: str
    whole: bool
    short: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]


def told(made: Made, said: Speech) -> Told:
    found = made.found
    telling = _Telling(found, made.report, made.purposes, said, made.names, made.keeps)
    sections = (
        (said("What became of it"), telling.ends()),
        (said("Mailings, in distinct people over all of their time"), telling.mailings()),
        (said("Who"), telling.who()),
        (said("What"), telling.what()),
        (said("Who decided"), telling.decided()),
        (said("Why"), telling.why()),
        (telling.when_title(), telling.when()),
        (said("What is not known"), not_known(made, said)),
    )
    return Told(
        about="; ".join(asked_in_words(made.about, said, made.names)),
        proof=proved(found, said),
        whole=found.proof is None or found.proof.ok,
        short=telling.short(),
        sections=tuple((title, lines) for title, some in sections if (lines := tuple(some))),
    )


@dataclass(frozen=True, slots=True)
class _Telling:
    """The parts of one page."""

    found: Found
    report: Report
    purposes: Purposes
    said: Speech
    names: bool
    keeps: timedelta

    def short(self) -> str:
        report, said = self.report, self.said
        first, last = self._here(report.first), self._here(report.last)
        many = said.ngettext("{n} message", "{n} messages", report.messages)
        parts = [
            said("{messages} came at {when}.", messages=many, when=first)
            if first == last
            else said("{messages} came between {first} and {last}.", messages=many, first=first, last=last)
        ]
        reached, still = report.reached, report.open
        if reached.messages:
            parts.append(said("{messages} went out, to {people}.", **self._sum(reached)))
            parts += self._went_out()
            if report.perhaps.high != 0:
                parts.append(said("It may have reached {people} more.", people=in_people(report.perhaps, said)))
        elif End.IN_DOUBT in report.ends:
            parts.append(said("It is not known that anything went out."))
            people = self._sum(report.ends[End.IN_DOUBT])["people"]
            parts.append(said("It may have gone out to {people}: in doubt.", people=people))
        else:
            parts.append(said("Nothing of it went out through this guard."))
        if still.messages:
            parts.append(said("Still open: {messages}, for {people}.", **self._sum(still)))
        return " ".join(parts)

    def _went_out(self) -> list[str]:
        """When it went out, if that differs from when it came."""
        report, said = self.report, self.said
        if report.went_first is None or report.went_last is None:
            return []
        first, last = self._here(report.went_first), self._here(report.went_last)
        if (first, last) == (self._here(report.first), self._here(report.last)):
            return []
        if first == last:
            return [said("The mail server took it at {when}.", when=first)]
        return [said("The mail server took it between {first} and {last}.", first=first, last=last)]

    def ends(self) -> Iterator[str]:
        report, said = self.report, self.said
        for end, some in report.ends.items():
            yield said("{messages}, for {people}: {became}", became=said(BECAME[end]), **self._sum(some))
        for end, n in report.copies.items():
            copies = said.ngettext(
                "{n} copy that a list server made of them, whose people are counted already",
                "{n} copies that a list server made of them, whose people are counted already",
                n,
            )
            yield f"{copies}: {said(BECAME[end])}"
        for code, n in sorted(report.refused.items()):
            refused = said.ngettext(
                "{n} recipient was refused by the relay before there was a message ({code})",
                "{n} recipients were refused by the relay before there was a message ({code})",
                n,
                code=code,
            )
            yield refused
        if report.again:
            yield said.ngettext(
                "once what was held already came again, which counts as the same message",
                "{n} times what was held already came again, which counts as the same message",
                report.again,
            )
        if report.parts:
            yield said.ngettext(
                "once the colleagues among its recipients got it while the customers' part was held",
                "{n} times the colleagues among its recipients got it while the customers' part was held",
                report.parts,
            )
        if report.undelivered:
            yield said.ngettext(
                "{n} recipient of what was approved was refused by the relay",
                "{n} recipients of what was approved were refused by the relay",
                report.undelivered,
            )

    def mailings(self) -> Iterator[str]:
        said = self.said
        for one in self.found.mailings[:MOST]:
            people = one.people
            counts = (
                (people.relayed, said("{n} got it", n=said.number(people.relayed))),
                (people.doubted, said("{n} may have got it", n=said.number(people.doubted))),
                (people.admitted, said("{n} have it on the way", n=said.number(people.admitted))),
                (people.held, said("{n} held", n=said.number(people.held))),
                (people.deferred, said("{n} wait at the client", n=said.number(people.deferred))),
                (people.refused, said("{n} refused by the relay", n=said.number(people.refused))),
                (
                    people.stopped,
                    said("{n} were spared it: it was held, and does not go out", n=said.number(people.stopped)),
                ),
                (one.bounces, said("{n} bounces", n=said.number(one.bounces))),
                (one.complaints, said("{n} complaints", n=said.number(one.complaints))),
            )
            titled = f' "{_plain(one.subject)}"' if one.subject and self.names else ""
            nobody = [said("nobody got it")] if not (people.relayed or people.doubted) else []
            reached = ", ".join([*nobody, *(text for n, text in counts if n)])
            yield f"{one.mailing_id}{titled}: {reached}. {said(labels.mailing_state(one))}"
        if len(self.report.mailings) > MOST:
            yield said("and {n} more", n=said.number(len(self.report.mailings) - MOST))

    def who(self) -> Iterator[str]:
        if not self.names:
            return
        writers = self.report.writers
        for role in dict.fromkeys(role for role, _ in writers):
            yield from self._counted(
                self.said(ROLES[role]), Counter({a: n for (r, a), n in writers.items() if r == role})
            )
        yield from self._counted(self.said("client"), self.report.clients)

    def what(self) -> Iterator[str]:
        if self.names:
            yield from self._counted(self.said("subject"), self.report.subjects)
        a_list = self.said("list")
        for name, n in self.report.lists.most_common(MOST):
            many = f" ({self.said.number(n)})" if len(self.report.lists) > 1 else ""
            yield _plain(f"{a_list}: {name}{self._list(name)}{many}{self._on_it(name)}")
        if len(self.report.lists) > MOST:
            yield f"{a_list}: {more(len(self.report.lists) - MOST, self.said)}"
        yield from self._counted(self.said("content, SHA-256"), self.report.contents, most=FEW)
        for id, at in self.report.held:
            until = self._here(at + self.keeps)
            yield self.said("what it said: smtpguard held export {id}, kept until {when} at least", id=id, when=until)
        if (shown := self.report.shown) > 1:
            yield self.said(
                "recipients could read one another's addresses: {n} stood in To and Cc", n=self.said.number(shown)
            )

    def why(self) -> Iterator[str]:
        report, said = self.report, self.said
        reasons = report.reasons.most_common()
        for (rule, mode), n in report.rules.most_common():
            many = f" ({said.number(n)})" if report.messages > 1 else ""
            purpose = f": {self.purposes.of[rule]}" if self.purposes.of.get(rule) else ""
            yield _plain(f"{said(MODES[mode], name=rule)}{purpose}{many}")
            seen = [(one, m) for one, m in reasons if one[0] == rule and mode == "enforce"]
            for (_, fact, observed, limit), m in seen[:FEW]:
                observed = observed if self.names or fact != FREEZE else what_is_frozen(observed)
                value = rulewords.observed(fact, observed, said)[:200] or said("not shown")
                limit = rulewords.limit(fact, limit, said)[:200]
                asked = said("{value}, the limit {limit}", value=value, limit=limit) if limit else value
                yield _plain(f"  {rulewords.fact(fact, said)}: {asked}" + (f" ({said.number(m)})" if m != n else ""))
        for sha256, n in report.policies.most_common(MOST):
            many = f" ({said.number(n)})" if len(report.policies) > 1 else ""
            watched = ": " + said("it only observed, and stopped nothing") if sha256 in self.purposes.watching else ""
            yield said("policy") + f": {sha256}{watched}{many}"

    def decided(self) -> Iterator[str]:
        """People's decisions, without reminders; what passed by an earlier approval, and what nobody was asked about."""
        said = self.said
        for step in self.report.steps:
            entry = step.entry
            if entry.kind in DECISIONS and "with" not in entry.data:
                yield _plain(f"{self._here(instant(entry.at))}: {self._step(step)}")
        approved = sum(n for (_, mode), n in self.report.rules.items() if mode == "approved")
        if approved:
            yield said("what people had approved before let pass what a rule would have held")
        held = {End.DELIVERED, End.IN_DOUBT} & self.report.ends.keys()
        if held and not any(mode == "enforce" for _, mode in self.report.rules):
            yield said("nobody was asked: no rule that was enforced stopped it")
        elif not approved and End.DELIVERED in self.report.ends:
            yield said("of what was let through at once nobody was asked: no rule that was enforced stopped it")

    def _on_it(self, name: str) -> str:
        """How many people on the list have it, or may."""
        said, have = self.said, self.report.of_lists.get(name, NOBODY)
        may = self.report.perhaps_of_lists.get(name, NOBODY)
        parts = [said("{people} on it have it", people=in_people(have, said))] if have.high != 0 else []
        parts += [said("{people} more may have it", people=in_people(may, said))] if may.high != 0 else []
        return f": {', '.join(parts)}" if parts else ""

    def _list(self, name: str) -> str:
        """The list's title and audience, and whether that is sensitive data."""
        one, said = self.purposes.lists.get(name), self.said
        if one is None:
            return ""
        parts = [one.title] if one.title != name else []
        parts.append(said("audience {name}", name=one.audience))
        if one.sensitivity == "special-category":
            category = labels.CATEGORIES[one.category or ""]
            parts.append(said(category) + " (" + said("GDPR Art. 9") + ")")
        elif one.sensitivity:
            parts.append(one.sensitivity)
        return f" ({'; '.join(parts)})"

    def _here(self, at: datetime) -> str:
        """In UTC, and in the organization's local time."""
        zone = self._zone()
        return f"{_moment(at)} ({at.astimezone(zone):%Y-%m-%d %H:%M} {self.purposes.zone})" if zone else _moment(at)

    def _zone(self) -> ZoneInfo | None:
        return ZoneInfo(self.purposes.zone) if self.purposes.zone not in ("", "UTC") else None

    def when_title(self) -> str:
        title = self.said("When, by the numbers of the journal")
        return f"{title} (UTC, {self.purposes.zone})" if self._zone() else title

    def when(self) -> Iterator[str]:
        zone = self._zone()
        for step in self.report.steps:
            at = instant(step.entry.at)
            moment = _moment(at, zone=False) + (f"  {at.astimezone(zone):%H:%M:%S}" if zone else "")
            yield _plain(f"{step.entry.seq:>8}  {moment}  {self._step(step)}")
            if step.left_out:
                more = self.said.number(step.left_out)
                yield f"{'':>8}  " + self.said("... and {n} more of this kind, before the next of it", n=more)

    def _sum(self, some: Sum) -> dict[str, str]:
        return {
            "messages": self.said.ngettext("{n} message", "{n} messages", some.messages),
            "people": in_people(some.people, self.said),
        }

    def _counted(self, what: str, counter: Counter[str], *, most: int = MOST) -> Iterator[str]:
        for value, n in counter.most_common(most):
            yield _plain(f"{what}: {value}" + (f" ({self.said.number(n)})" if len(counter) > 1 else ""))
        if len(counter) > most:
            yield f"{what}: {more(len(counter) - most, self.said)}"

    def _step(self, step: Step) -> str:
        entry, said = step.entry, self.said
        words = in_words(entry, step.clear, said)
        parts = [words.text, *self._details(entry, step.clear or {})]
        if self.names and words.who:
            to = entry.kind in (Kind.NOTICE.value, Kind.RELEASE.value)
            parts.append(said("to {who}", who=words.who) if to else said("by {who}", who=words.who))
        text = f"{entry.id}  {', '.join(parts)}"
        return f'{text}: "{words.words}"' if self.names and words.words else text

    def _details(self, entry: Entry, clear: Clear) -> Iterator[str]:
        """Details that the words for its kind leave out."""
        data, said = entry.data, self.said
        if entry.kind == Kind.VERDICT.value:
            yield said("for {n}", n=said.number(data.get("counts", {}).get("reach", 0)))
            for mode, key in (("enforce", "rules"), ("observe", "observed"), ("approved", "approved")):
                yield from (said(MODES[mode], name=rule) for rule in data.get(key, ()))
        elif entry.kind in (Kind.FREEZE.value, Kind.THAW.value, Kind.THAW_ASKED.value):
            if (selector := str(data.get("selector"))) in labels.FROZEN:
                whom = next(iter(clear.get("from", ())), "") if self.names else ""
                yield said(labels.FROZEN[selector], name=data.get("value") or whom or "…")
        elif entry.kind == Kind.POLICY.value:
            yield str(data.get("sha256", ""))[:12]
            if data.get("enforce") is False:
                yield said("it only observed, and stopped nothing")
        elif "with" in data:
            yield said("with {id}", id=data["with"])


def in_people(some: Interval, said: Speech) -> str:
    """ "60 people", or a range."""
    if some.exact:
        return said.ngettext("{n} person", "{n} people", some.low)
    if some.high is None:
        return said("at least {people}", people=said.ngettext("{n} person", "{n} people", some.low))
    if not some.low:
        return said("at most {people}", people=said.ngettext("{n} person", "{n} people", some.high))
    return said("{least} to {most} people", least=said.number(some.low), most=said.number(some.high))


def more(n: int, said: Speech) -> str:
    return said("and {n} more", n=said.number(n))


def asked_in_words(about: About, said: Speech, names: bool) -> Iterator[str]:
    yield from sorted(about.ids)
    yield from (said("the list {name}", name=name) for name in sorted(about.lists))
    if names:
        yield from (said("mail from {name}", name=_plain(address)) for address in sorted(about.senders))
        if about.subject:
            yield said('a subject with "{words}"', words=_plain(about.subject))
    elif about.senders or about.subject:
        yield said("what somebody wrote")
    if about.since is not None:
        yield said("since {when}", when=_moment(instant(about.since)))
    if about.until is not None:
        yield said("until {when}", when=_moment(instant(about.until)))


def _moment(at: datetime, *, zone: bool = True) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}{' UTC' * zone}"


def _plain(text: str) -> str:
    """Without control characters: text from a message must not control a terminal."""
    return "".join(c if c.isprintable() or c in _SPACES else "\N{REPLACEMENT CHARACTER}" for c in text)


def what_is_frozen(observed: str) -> str:
    """In entries of earlier versions an address follows "sender"."""
    return observed.partition(" ")[0] if observed.startswith(f"{Selector.SENDER.value} ") else observed


# What an incident report cannot know, as its last section, so that silence is not read as "no".


def not_known(made: Made, said: Speech) -> Iterator[str]:
    report, proof = made.report, made.found.proof
    if report.unsettled:
        shown = ", ".join(report.unsettled[:MOST])
        if len(report.unsettled) > MOST:
            shown += " " + more(len(report.unsettled) - MOST, said)
        yield said("whether the relay took {ids}: look in its own log", ids=shown)
    if not all(some.people.exact for some in (*report.ends.values(), report.reached, report.open)):
        yield said(
            "how many people exactly: of some it is not known whether they are on a list, or on two lists, that it went to, or which of a message's recipients had it"
        )
    if report.shown <= 1 and (report.reached.messages or End.IN_DOUBT in report.ends):
        yield said(
            "whether recipients could read one another's addresses: of no message are several in To and Cc on record"
        )
    if report.reached.messages and report.lists:
        yield said(
            "whom of those behind a list's address it then reached: the relay's word for the address is all there is"
        )
    if report.erased:
        yield said.ngettext(
            "who wrote {n} of the messages, and its subject: retention has erased it",
            "who wrote {n} of the messages, and their subjects: retention has erased it",
            report.erased,
        )
    for sha256 in made.purposes.lost[:MOST]:
        yield said(
            "what the rules of the policy {sha256} are for: it is not kept any more, or this version does not read it",
            sha256=sha256[:12],
        )
    for lost in proof.lost if proof is not None else ():
        yield not_in_it(lost, said)
    if proof is None:
        yield said("whether the journal is whole: nobody asked for the proof")
    if End.DEFERRED in report.ends:
        yield said(
            "what became of what was put off: a client that came again with it is counted once more, by what became of that"
        )
    yield said("what went another way than through this guard, and who read what was delivered")
