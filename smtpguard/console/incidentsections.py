"""The timeline of an incident report, and its later sections.

The sections say how the messages came in and whether anything points to an intrusion, how fast they were stopped, which rules did
not hit and by how much, the policy of that time, and what the voters had viewed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from smtpguard.console import journalwords, labels, rulewords
from smtpguard.console.reporting import Made, Missed
from smtpguard.incidents.breach import texts_of
from smtpguard.incidents.intrusion import COMPARED, Ingress, Sign, signs
from smtpguard.incidents.report import CAME, RULE, Report
from smtpguard.incidents.statement import Entries, Mark, Statement, Step, fact, plain, unknown
from smtpguard.journal.chain import Clear, Entry, first_of, instant
from smtpguard.journal.deliverystatus import DeliveryEvent, delivery_entry
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import Outcome, relayed
from smtpguard.locale.phrase import N_, NN_, span
from smtpguard.locale.speech import Speech
from smtpguard.policy.facts import FACTS, Type

LANES: Mapping[str, int] = {"came": 0, "went": 1, "stopped": 2, "people": 3}
LANE_TITLES = (N_("came"), N_("went out"), N_("stopped"), N_("people"))
"""The lanes of the chart, from the top."""
MODES: Mapping[str, str] = {
    "enforce": N_("rule {name}"),
    "observe": N_("rule {name} (observes)"),
    "approved": N_("rule {name} (approved)"),
}
MOST = 6
"""The most ways in that are listed one by one."""
SIGNS: Mapping[Sign, str] = {
    Sign.CLIENT: N_("none of the {n} earlier messages of its writer came from this client"),
    Sign.LOGIN: N_("none of the {n} earlier messages of its writer came with this login"),
    Sign.HELO: N_("none of the {n} earlier messages of its writer came with this HELO"),
    Sign.UNSIGNED: N_("a DKIM signature did not verify"),
    Sign.REFUSED: N_("{n} sign-ins at the console were refused on that day or the day before"),
    Sign.SECRET: N_("the guard's secret was changed on that day or the day before"),
    Sign.KEY: N_("the key that signs the journal was changed on that day or the day before"),
    Sign.JOURNAL: N_("the journal was altered"),
}
SAME: Mapping[Sign, tuple[str, str]] = {
    Sign.CLIENT: NN_(
        "{n} of its writer's {all} earlier messages came from the same client",
        "{n} of its writer's {all} earlier messages came from the same client",
    ),
    Sign.LOGIN: NN_(
        "{n} of its writer's {all} earlier messages came with the same login",
        "{n} of its writer's {all} earlier messages came with the same login",
    ),
    Sign.HELO: NN_(
        "{n} of its writer's {all} earlier messages came with the same HELO",
        "{n} of its writer's {all} earlier messages came with the same HELO",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the timeline. ``utc``, ``here``: the time in UTC, and in the organization's time zone, "" if that is UTC. ``kind``: its
    lane in the chart; ``what``: the entry's kind. ``then``: how many entries of its kind are left out after it."""

    seq: int
    at: datetime
    utc: str
    here: str
    text: str
    kind: str
    what: str
    then: str = ""


@dataclass(frozen=True, slots=True)
class Sections:
    """The sections of a report, as statements."""

    made: Made
    said: Speech

    @property
    def report(self) -> Report:
        return self.made.report

    def of(self, what: str, which: str = "") -> Entries:
        """Return the entries that a statement is based on, by the keys of ``Report.entries``."""
        return self.report.entries.get((what, which), Entries())

    @property
    def zone(self) -> ZoneInfo | None:
        """Return the organization's time zone, None if that is UTC or unknown."""
        return ZoneInfo(self.made.purposes.zone) if self.made.purposes.zone not in ("", "UTC") else None

    def here(self, at: datetime) -> str:
        """Return a time in UTC, and in the organization's time zone."""
        zone = self.zone
        return f"{at:%Y-%m-%d %H:%M:%S} UTC" + (f" ({at.astimezone(zone):%Y-%m-%d %H:%M} {zone.key})" if zone else "")

    def title(self) -> str:
        title = self.said("When, in numbers")
        return f"{title} (UTC, {self.zone.key})" if self.zone else title

    def rows(self) -> Iterator[Row]:
        zone = self.zone
        for step in self.report.steps:
            at = instant(step.entry.at)
            left = self.said.number(step.left_out)
            yield Row(
                seq=step.entry.seq,
                at=at,
                utc=f"{at:%Y-%m-%d %H:%M:%S}",
                here=f"{at.astimezone(zone):%H:%M:%S}" if zone else "",
                text=plain(self.text(step)),
                kind=lane(step.entry),
                what=step.entry.kind,
                then=self.said("... and {n} more of this kind, before the next of it", n=left) if step.left_out else "",
            )

    def text(self, step: Step) -> str:
        entry, said = step.entry, self.said
        words = journalwords.entry_in_words(entry, step.clear, said)
        parts = [words.text, *self._details(entry, step.clear or {})]
        if self.made.names and words.who:
            to = entry.kind in (Kind.NOTICE.value, Kind.RELEASE.value)
            parts.append(said("to {who}", who=words.who) if to else said("by {who}", who=words.who))
        text = f"{entry.id}  {', '.join(parts)}"
        return f'{text}: "{words.words}"' if self.made.names and words.words else text

    def _details(self, entry: Entry, clear: Clear) -> Iterator[str]:
        """Yield details that the words for the entry's kind leave out."""
        data, said = entry.data, self.said
        if entry.kind == Kind.VERDICT.value:
            yield said.ngettext("for {n} person", "for {n} people", int(data.get("counts", {}).get("reach", 0)))
            for mode, key in (("enforce", "rules"), ("observe", "observed"), ("approved", "approved")):
                yield from (said(MODES[mode], name=rule) for rule in data.get(key, ()))
        elif entry.kind in (Kind.FREEZE.value, Kind.THAW.value, Kind.THAW_ASKED.value):
            if (selector := str(data.get("selector"))) in labels.SELECTORS:
                sender = first_of(clear, "from") if self.made.names else ""
                yield said(labels.SELECTORS[selector], name=data.get("value") or sender or "…")
        elif entry.kind == Kind.POLICY.value:
            yield str(data.get("sha256", ""))[:12]
            if data.get("enforce") is False:
                yield said("it only observed and stopped nothing")
        elif "with" in data:
            yield said("with {id}", id=data["with"])

    def in_short(self) -> Iterator[Statement]:
        """Yield the statements for the paragraph that is read aloud."""
        report, said = self.report, self.said
        if report.lists:
            lists = ", ".join(self._title(name) for name, _ in report.lists.most_common(3))
            if len(report.lists) > 3:
                lists += ", " + said("and {n} more", n=said.number(len(report.lists) - 3))
            yield fact(said("Lists that it was for: {lists}.", lists=lists), self.of(CAME))
        yield from self._stopping()
        yield from self._verdict()
        proven = {way.proven for way in report.ways}
        if proven > {False}:
            yield unknown(said("Nothing proves who wrote some of it."), self.of(CAME))
        elif False in proven:
            yield unknown(said("Nothing proves who wrote it."), self.of(CAME))
        elif {None, True} == proven:
            yield unknown(said("It is not on record whether anything proves who wrote some of it."), self.of(CAME))
        elif None in proven:
            yield unknown(said("It is not on record whether anything proves who wrote it."), self.of(CAME))

    def _title(self, name: str) -> str:
        """Return the title of a list. In a report without names, a list of a special category has none: it would say what its people
        believe or are."""
        then = self.made.purposes.lists.get(name)
        if then is not None and then.special and not self.made.names:
            return self.said("a list of a special category (GDPR Art. 9)")
        return then.title if then is not None else name

    def ways(self) -> Iterator[Statement]:
        report, said = self.report, self.said
        if self.made.names:
            for way, entries in list(report.ways.items())[:MOST]:
                yield from self._way(way, entries)
            if len(report.ways) > MOST:
                yield fact(said("and {n} other ways in", n=said.number(len(report.ways) - MOST)))
        yield from self._verdict()
        usual = report.usual
        found = self._signs()
        for sign, entries in found.items():
            n = (usual.entries if sign in COMPARED else entries).many
            yield fact(said(SIGNS[sign], n=said.number(n)), entries)
        if usual.entries.many:
            for check, shared in usual.shared.items():
                if shared:
                    same = said.ngettext(*SAME[check], shared, all=said.number(usual.entries.many))
                    yield fact(same, usual.entries)
        elif report.ways:
            yield unknown(
                said("whether it came in like other mail of its writer: the journal has no earlier mail of theirs")
            )
        if report.ways:
            yield unknown(
                said("who was at the keyboard, and whether another person had the password: no journal shows this")
            )

    def _way(self, way: Ingress, entries: Entries) -> Iterator[Statement]:
        said = self.said
        erased = said("erased")
        login = said("no login") if way.login == "" else said("login {name}", name=way.login or erased)
        parts = [login, said("client {address}", address=way.client or "?")]
        if way.peer:
            parts.append(said("told by the server {address}", address=way.peer))
        if way.helo != "":
            parts.append(said("HELO {name}", name=way.helo or erased))
        if way.listener:
            parts.append(said("taken at {listener}", listener=way.listener))
        parts.append(said("with TLS") if way.tls else said("without TLS"))
        yield fact(plain(", ".join(parts)), entries)
        if way.signed is None:
            yield unknown(said("its DKIM signatures: no rule asked for them, so they were not verified"), entries)
        elif way.signed or way.unsigned:
            good = said("DKIM: verified for {domains}", domains=", ".join(way.signed) or "–")
            bad = said("did not verify for {domains}", domains=", ".join(way.unsigned)) if way.unsigned else ""
            yield fact(f"{good}; {bad}" if bad else good, entries)
        else:
            yield fact(said("DKIM: no signature"), entries)
        if way.proven:
            yield fact(
                said(
                    "who wrote it is proven: by their login, by a server that checks senders, or by the origin that the policy declares"
                ),
                entries,
            )
        elif way.proven is False:
            yield fact(said("its writer is not proven: From is only a claim"), entries)
        else:
            yield unknown(said("whether its writer is proven: no rule asked for it, or the answer is erased"), entries)

    def _signs(self) -> dict[Sign, Entries]:
        report, proof = self.report, self.made.found.proof
        whole = proof is None or proof.ok
        return signs(report.usual, report.ways, report.watched, whole=whole)

    def _verdict(self) -> Iterator[Statement]:
        """Yield one sentence on an intrusion, for the paragraph as well."""
        said, found, report = self.said, self._signs(), self.report
        if not report.ways:
            return
        if found:
            text = said.ngettext(
                "{n} finding in the journal must be explained before an intrusion is ruled out.",
                "{n} findings in the journal must be explained before an intrusion is ruled out.",
                len(found),
            )
            yield fact(text, Entries.of(*(seq for one in found.values() for seq in one.named)))
        else:
            yield fact(said("Nothing in the journal points to an intrusion."), self.of(CAME))

    def speed(self) -> Iterator[Statement]:
        report, said = self.report, self.said
        yield from self._stopping()
        if report.stopped is None:
            return
        if not report.went_after.many:
            if Outcome.IN_DOUBT in report.ends:
                yield unknown(said("whether anything of it went out after that"), Entries.of(report.stopped.seq))
            elif report.reached.messages:
                yield fact(said("after that nothing more of it went out"), Entries.of(report.stopped.seq))
        if report.went_last is not None:
            yield fact(
                said("the relay last confirmed any of it at {when}", when=self.here(report.went_last)),
                Entries.of(report.entries["went", ""].last),
            )

    def _stopping(self) -> Iterator[Statement]:
        """Yield when it was first stopped, what people let go all the same, and how much went out after it."""
        report, said = self.report, self.said
        if report.stopped is not None:
            yield self._stopped(report.stopped)
        elif report.reached.messages:
            yield fact(said("Nothing stopped it."), self.of(CAME))
        if (later := report.ends.get(Outcome.RELEASED)) is not None:
            text = said.ngettext(
                "{n} message went out after people had let it go.",
                "{n} messages went out after people had let them go.",
                later.messages,
            )
            yield fact(text, report.entries["end", Outcome.RELEASED.value])
        after = report.went_after
        if report.went_last is not None and after.many > (later.messages if later is not None else 0):
            text = said.ngettext(
                "In all, {n} message went out after that, on {when}.",
                "In all, {n} messages went out after that, the last on {when}.",
                after.many,
                when=said.local(self.made.purposes.zone).whole(report.went_last),
            )
            yield fact(text, after)

    def _stopped(self, stop: Entry) -> Statement:
        report, said = self.report, self.said
        how = self._how(stop)
        took = instant(stop.at) - report.first
        entries = Entries.of(report.entries[CAME, ""].named[0], stop.seq)
        if at_once(report):
            if report.went_after.many:
                return fact(said("At first it was stopped, on arrival: {how}.", how=how), entries)
            return fact(said("It was stopped on arrival: {how}.", how=how), entries)
        text = said(
            "The first stop was {length} after the first message, on {when}: {how}.",
            length=length_of(max(took, timedelta(seconds=1)), said),
            when=said.local(self.made.purposes.zone).whole(instant(stop.at)),
            how=how,
        )
        return fact(text, entries)

    def _how(self, stop: Entry) -> str:
        said, kind, data = self.said, stop.kind, stop.data
        if kind == Kind.VERDICT.value and not data.get("freeze"):
            rules = [str(rule) for rule in data.get("rules", ())]
            if not rules:
                return said("a rule stopped it")
            aim = self.made.purposes.of.get(rules[0], "").rstrip(".")
            return said("a rule stopped it, {rule}", rule=said("“{text}”", text=aim) if aim else rules[0])
        if kind in (Kind.VERDICT.value, Kind.FREEZE.value):
            return said("a freeze stopped it")
        words = said(journalwords.KIND_WORDS[kind].text)
        return words[:1].lower() + words[1:]

    def authority(self) -> Iterator[Statement]:
        """Yield since when the organization is aware of it, and how much of the 72 hours is left."""
        said, now = self.said, self.made.at
        words = texts_of(self.report.steps)
        if words.aware is None or words.due is None:
            yield unknown(
                said("when the organization became aware of it: nobody has said so yet, and the 72 hours do not run")
            )
            return
        since, word = words.aware
        who = word.by if self.made.names and word.by else said("somebody")
        rests = Entries.of(word.seq)
        at, due = self.here(since), self.here(words.due)
        yield fact(
            said("aware of it since {when}, as {who} says; the 72 hours end at {due}", when=at, who=who, due=due), rests
        )
        if since < self.report.first:
            came = self.here(self.report.first)
            yield unknown(said("whether that time is right: the first message came later, at {when}", when=came), rests)
        left = words.due - now
        if left < timedelta(0):
            late = said(
                "they are over since {length}: the authority is to be told why it is late",
                length=length_of(-left, said),
            )
            yield fact(late, rests)
        else:
            yield fact(said("{length} of them are left", length=length_of(left, said)), rests)

    def missed(self) -> Iterator[Statement]:
        if self.report.let_through is None:
            return
        rests = Entries.of(self.report.let_through[0].seq)
        for one in self.made.missed:
            known, text = self._missed(one)
            observes = " (" + self.said("observes") + ")" if one.observes else ""
            mark = Mark.FACT if known else Mark.UNKNOWN
            yield Statement(text=plain(f"{one.rule}{observes}: {text}"), mark=mark, entries=rests)

    def _missed(self, one: Missed) -> tuple[bool, str]:
        said = self.said
        if one.milder:
            return True, said("it would have hit, but could not make the verdict stricter")
        if one.unsaid:
            facts = ", ".join(rulewords.fact_in_words(name, said) for name in one.unsaid)
            return False, said("unknown; not in the journal: {facts}", facts=facts)
        if one.excepted:
            return True, said("its exception applied")
        name = rulewords.fact_in_words(one.fact, said)
        if not one.limit:
            return True, said("{fact}: condition not met", fact=name)
        value = rulewords.value_in_words(one.fact, one.observed, said)
        limit = rulewords.limit_in_words(one.fact, one.limit, said)
        text = said("{fact}: {value}, and it asks for {limit}", fact=name, value=value, limit=limit)
        if one.by:
            share = FACTS[one.fact].type is Type.SHARE
            by = f"{said.number(round(100 * one.by, 1))} %" if share else said.number(one.by)
            text = said("{text}: it missed by {by}", text=text, by=by)
        return True, text

    def policy(self) -> Iterator[Statement]:
        report, said, then = self.report, self.said, self.made.purposes
        begun = [step.entry for step in report.steps if step.entry.kind == Kind.POLICY.value]
        for sha256, n in report.policies.most_common(MOST):
            many = f" ({said.number(n)})" if len(report.policies) > 1 else ""
            watched = ": " + said("it only observed and stopped nothing") if sha256 in then.watching else ""
            yield fact(said("policy") + f": {sha256}{watched}{many}", self.of("policy", sha256))
            since = [one for one in begun if one.data.get("sha256") == sha256]
            before = [one for one in since if instant(one.at) <= report.first] or since[:1]
            if before:
                at = self.here(instant(before[-1].at))
                yield fact(said("in force since {when}", when=at), Entries.of(before[-1].seq))
        for entry in begun:
            if instant(entry.at) > report.first:
                when = self.here(instant(entry.at))
                yield fact(said("another policy was put in force at {when}", when=when), Entries.of(entry.seq))
        observing = [rule for rule, mode in report.rules if mode == "observe" and rule not in then.calling]
        if observing and not any(mode == "enforce" for _, mode in report.rules):
            rests = [seq for rule in observing for seq in report.entries[RULE, f"observe {rule}"].named]
            yield fact(said("rules that only observed would have stopped it"), Entries.of(*rests))


def lane(entry: Entry) -> str:
    """Return the lane of the entry in the chart, "" if it is not drawn."""
    data, kind = entry.data, entry.kind
    if kind == Kind.VERDICT.value:
        return "came" if data.get("action") == "relay" or data.get("retry") else "stopped"
    if kind == Kind.TRIPPED.value:
        return "people" if data.get("observed") else "stopped"
    one = delivery_entry(kind, data)
    if relayed(kind, data) is Outcome.DELIVERED or (one is not None and one.event is DeliveryEvent.TAKE):
        return "went"
    return journalwords.KIND_WORDS[kind].lane if kind in journalwords.KIND_WORDS else ""


def in_view(vote: Step, steps: Sequence[Step], said: Speech, names: bool) -> Statement:
    """Return what the voter had viewed before the vote, by the journal. It knows the voter by a digest of the address, also once the
    address is erased."""
    who = vote.entry.content["private"].get("actor", ())[:1]
    shown = first_of(vote.clear, "actor") if names else ""
    shown = shown or said("the voter")
    seen = [
        step.entry
        for step in steps
        if step.entry.kind == Kind.VIEWED.value
        and step.entry.id == vote.entry.id
        and step.entry.seq < vote.entry.seq
        and step.entry.content["private"].get("actor", ())[:1] == who
    ]
    if not seen:
        text = said("it is not on record that {who} had looked at it before", who=shown)
        return fact("  " + text, Entries.of(vote.entry.seq))
    attachment = N_("an attachment")
    saw = dict.fromkeys(said(journalwords.DETAILS.get(str(one.data.get("saw")), attachment)) for one in seen)
    took = length_of(instant(vote.entry.at) - instant(seen[0].at), said)
    text = said(
        "{who} had looked at {what}, the first time {length} before", who=shown, what=", ".join(saw), length=took
    )
    return fact("  " + text, Entries.of(*(one.seq for one in seen), vote.entry.seq))


def at_once(report: Report) -> bool:
    """Return whether it was stopped as it came, before any of it went out."""
    if report.stopped is None:
        return False
    at = instant(report.stopped.at)
    return at - report.first <= timedelta(seconds=1) and (report.went_first is None or at <= report.went_first)


def length_of(length: timedelta, said: Speech) -> str:
    """Return a length in words: to the second below two hours, to the minute beyond, since "2 hours 59 minutes" is not two hours."""
    seconds = int(length.total_seconds())
    unit, least = (1, 1) if seconds < 120 else (60, 1) if seconds < 7200 else (3600, 60)
    parts = [seconds // unit * unit, seconds % unit // least * least]
    return " ".join(span(some, said) for some in (parts if parts[1] else parts[:1]))
