"""Build everything that is written with a verdict: the journal entry, the hold, and the outbox intents.

Pure, and cheap: it runs in the store's writer thread while other admissions wait. An address or name goes into the
private part of an event, or is not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from dataclasses import field, replace
from datetime import datetime, timedelta
from typing import Any

from smtpguard.admission.builtinrules import Writer, writer_of
from smtpguard.admission.mailingverdict import (
    MailingVerdict,
    is_anothers_letter,
    is_by_sender,
    is_for_others,
    refused_by,
    with_additions,
)
from smtpguard.admission.model import Admission, ComparisonMissing, Seen
from smtpguard.admission.packedfacts import pack
from smtpguard.admission.recorded import CONFIRMED, DECIDED, FACTS, REJECTED, REPLY, WAITING
from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.streams import StreamLimit, exceeded
from smtpguard.holds.deadlines import Deadlines, deliver_by
from smtpguard.holds.effects import TEST
from smtpguard.holds.model import Confirmation, Hold, Move, State, lead_data
from smtpguard.journal.event import Event, Kind, new_event
from smtpguard.lists.persons import Person, as_journalled, behind
from smtpguard.lists.recipients import INTERNAL
from smtpguard.mail import reply
from smtpguard.mail.constant import constant, maker
from smtpguard.mail.decoding import header_text
from smtpguard.mail.envelope import Envelope, Recipient, RefusedRecipient
from smtpguard.mail.fields import DkimResult
from smtpguard.mailings.model import Correction
from smtpguard.notices.intents import Notices, alarm_rules, call_events
from smtpguard.notices.noticedata import sentences
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.policy.counted import APPROVED, LET_THROUGH, UNDECIDED, Ask, Asks, Live
from smtpguard.policy.engine import Plan
from smtpguard.policy.facts import OF_MAILINGS, Unknown, Value, named
from smtpguard.policy.verdict import Action, Deferred, Disposition, Held, Hit, Mode, Rejected, Scope, Verdict
from smtpguard.reading.looks import Reading

NOT_SENT = "This message was not sent. {} Its reference is {}."
DEFERRED = "This message cannot be decided on now, try again later."
PERSONAL = named(lambda fact: fact.personal)
MAX_SUBJECT = 500
_MOST_OCTETS = 8_000
"""Of the subject of a message that was not read."""
_new_admission = maker(Admission)
Answers = Mapping[str, Value]
_NOT_COUNTED: Answers = {}


@constant
class Record:
    """What is known before the admission; ``admission`` is its last step. ``questions``: the counts that the plan asks
    for, by slot. ``test``: a preapproval. ``asked``: the count of questions to the writer. ``correction``: the
    people that it goes to, if it is the correction of a mailing."""

    gathered: Gathered
    asks: tuple[Ask, ...]
    term: Deadlines
    notices: Notices
    streams: tuple[StreamLimit, ...] = ()
    questions: Asks = field(default_factory=dict)
    test: bool = False
    asked: tuple[Ask, ...] = ()
    correction: Correction | None = None

    def admission(
        self, stands: MailingVerdict, live: Seen, answers: Answers = _NOT_COUNTED, stops: tuple[Ask, ...] = ()
    ) -> Admission:
        """Build what is written. If a live hold, or one released just now, has the same content and envelope, the
        message is a retry of that hold; a void one waits again. A copy of held content is stored under the primary
        hold. ``answers``: by slot, what was counted. ``stops``: the conversations that rest from now on, whatever
        happens to this message."""
        verdict, duplicate = stands.verdict, live.duplicate
        if (
            duplicate is not None
            and verdict.action <= Action.HOLD
            and (duplicate.state is not State.VOID or verdict.action.waits)
        ):
            return self._retry(stands, live, duplicate, answers)
        hold = self._hold(stands, live) if verdict.action.waits else None
        more = self._grown(stands, live, part=hold is not None and hold.part)
        intents: tuple[Intent, ...] = ()
        if hold is not None or stands.entry is not None:
            intents = self._told(hold, stands.entry, more, live)
        elif verdict.action is Action.REJECT:
            intents = self.notices.at(self.gathered.in_force, live.now).rejected(verdict, self.gathered)
        hold_id, under = (hold.hold_id, hold.primary) if hold is not None else (None, "")
        events = [self._event(verdict, live, answers, hold_id, under=under)]
        if stands.entry is not None and stands.entry.asks_writer and more is not None and not more.asks_writer:
            why = {"why": "something else keeps what waits with it", "by": self.gathered.transaction.id}
            events.append(Event(kind=Kind.UNCONFIRMED, id=stands.entry.hold_id, at=live.now, data=why))
        asked = self.asked if hold is not None and hold.asks_writer else ()
        if verdict.hits:
            events += call_events(verdict, self.gathered, self.questions, live, self.notices.called)
        if self.streams and (over := exceeded(self.streams, live)) is not None:
            alarm, told = self.notices.stream(over, self.gathered.in_force, live.now)
            events += alarm
            intents += told
        return _new_admission(
            verdict=verdict,
            events=tuple(events),
            disposition=self._disposition(verdict, hold),
            hold=hold,
            counted=(*self._counts(verdict, live), *stops, *asked),
            intents=intents,
            mailing=live.mailing.mailing_id if live.mailing is not None else "",
            under=stands.primary,
            named=self._named(live),
            grown=more,
            progress=stands.progress,
            spared=self._spared(verdict),
            shown=self.gathered.shown.pack() if hold is not None and self.gathered.shown is not None else None,
            unfrozen=frozenset().union(*(grant.lists for grant in live.grants if grant.only)),
        )

    def _grown(self, stands: MailingVerdict, live: Seen, *, part: bool) -> Hold | None:
        """The hold that it joins, with what it adds. If this message is not for its writer to confirm, that hold no longer
        is either: approvers decide on all."""
        more = (
            with_additions(stands.entry, stands.verdict, self.gathered, part=part) if stands.entry is not None else None
        )
        if more is None or not more.asks_writer or not is_for_others(stands.verdict):
            return more
        return self.term.asks_others(more, self.gathered.in_force, live.now)

    def _told(self, hold: Hold | None, entry: Hold | None, more: Hold | None, live: Seen) -> tuple[Intent, ...]:
        """What goes out with a hold: the colleagues' part, and notices. ``hold``: None if its client tries again. ``entry``,
        ``more``: the hold that it joins, as it was and as it has grown."""
        notices = self.notices.at(self.gathered.in_force, live.now)
        part = self._part(hold) if hold is not None else ()
        if entry is not None:
            return (*part, *notices.joined(entry, more, hold, self.gathered))
        return (*part, *notices.held(hold, self.gathered)) if hold is not None else ()

    def _counts(self, verdict: Verdict, live: Seen) -> tuple[Ask, ...]:
        """What this message is counted in. Counts of senders and lists include only what passes: a held message does
        not count against its sender again, and customers reached by a stream or an approved mailing do not count for
        their list or its From. A message whose writer is asked counts as if it had passed, since it would otherwise have
        been held for the count."""
        if verdict.action is Action.CONFIRM:
            return self.asks
        if verdict.action is Action.HOLD:
            return tuple(ask for ask in self.asks if ask.fact not in LET_THROUGH)
        if verdict.action is not Action.RELAY:
            return ()
        if live.approved or self.gathered.streams:
            return tuple(ask for ask in self.asks if ask.fact not in UNDECIDED)
        return self.asks

    def _named(self, live: Seen) -> tuple[str, str, str]:
        """The name of a mailing if this is its first message: subject, reverse-path, From; else empty."""
        if live.mailing is None or live.mailing.messages:
            return "", "", ""
        reverse_path = self.gathered.transaction.envelope.reverse_path
        return _subject(self.gathered), str(reverse_path or ""), self.gathered.sender.claimed or ""

    def _disposition(self, verdict: Verdict, hold: Hold | None) -> Disposition | None:
        match verdict.action:
            case Action.RELAY:
                return None
            case Action.CONFIRM | Action.HOLD:
                assert hold is not None
                return Held(hold_id=hold.hold_id, taken=self._taken(hold))
            case Action.DEFER:
                reasons = _because(verdict, Action.DEFER).reasons
                return Deferred(reply=reply.deferred(next((r.public for r in reasons if r.public), DEFERRED)))
            case Action.REJECT:
                why = self._why(_because(verdict, Action.REJECT))
                return Rejected(reply=reply.rejected(NOT_SENT.format(why, self.gathered.transaction.id)))

    def _why(self, hit: Hit) -> str:
        """The reason for an SMTP reply, in English: the rule's purpose, or, if the admin wrote none or only in another
        language, what the rule saw."""
        [told] = sentences([hit], self.gathered.in_force, named=bool(self.gathered.everyone.addressed))
        own, spoken = told["description"], told["descriptions"]
        text = spoken.get("en") or (own if not spoken and own.isascii() else "")
        if not text:
            return " ".join(told["sentences"])
        return text if text[-1] in ".!?" else f"{text}."

    def _retry(self, stands: MailingVerdict, live: Seen, duplicate: Hold, answers: Answers) -> Admission:
        verdict = stands.verdict
        taken = self._taken(duplicate)
        events = [self._event(verdict, live, answers, duplicate.hold_id, retry=True)]
        if taken and verdict.action.waits and verdict.scope is not Scope.CUSTOMERS:
            # The hold exists, and now a freeze or another policy stops the rest as well.
            recalled = Deferred(reply=reply.RECALLED)
            return Admission(verdict=verdict, events=tuple(events), disposition=recalled)
        again = self._again(duplicate, stands, live) if duplicate.state is State.VOID else None
        more: Hold | None = None
        told: tuple[Intent, ...] = ()
        if again is not None:
            more = self._grown(stands, live, part=again.part)
            told = self._told(again, stands.entry, more, live)
            data: dict[str, Any] = {"by": self.gathered.transaction.id}
            if again.primary:
                data["with"] = again.primary
            elif duplicate.primary:
                data |= lead_data(again)
            events.append(Event(kind=Kind.ADOPTED, id=duplicate.hold_id, at=live.now, data=data))
        return Admission(
            verdict=verdict,
            events=tuple(events),
            disposition=Held(hold_id=duplicate.hold_id, taken=taken, released=duplicate.state is State.RELEASED),
            hold=again,
            intents=told,
            under=stands.primary,
            named=self._named(live),
            grown=more,
            spared=self._spared((again or duplicate).verdict),
            counted=tuple(ask for ask in self.asks if ask.fact not in LET_THROUGH),
        )

    def _again(self, void: Hold, stands: MailingVerdict, live: Seen) -> Hold:
        """A void hold as it waits again, with the time of a new one, and what lists and rules ask now: meanwhile its
        client had it."""
        again = void.moved(Move.ADOPT, deliver_by=deliver_by(self.gathered.transaction.message.header, live.now))
        again = with_additions(again, stands.verdict, self.gathered, part=False) or again
        envelope, colleagues = self._parts(again.verdict)
        part = bool(colleagues) or (void.part and void.copies > 0)  # of a copy
        reach, at_least = self._reach(colleagues)
        again = replace(
            again, envelope=envelope, part=part, primary=stands.primary, reach=reach, reach_at_least=at_least
        )
        again = self.term.anew(again, self.gathered.in_force, live.now)
        mailing_id = live.mailing.mailing_id if live.mailing is not None else ""
        again = self._correcting(replace(again, mailing_id=mailing_id, behind=self._behind()))
        return again if again.confirm is None else self._asking(again, live)

    def _hold(self, stands: MailingVerdict, live: Seen) -> Hold:
        verdict = stands.verdict
        gathered, transaction = self.gathered, self.gathered.transaction
        reading = gathered.reading if isinstance(gathered.reading, Reading) else None
        coming = gathered.coming
        if coming is None:
            raise ComparisonMissing("people are to decide on it")
        customers, colleagues = self._parts(verdict)
        asked = deliver_by(transaction.message.header, live.now)
        reach, at_least = self._reach(colleagues)
        by_sender = is_by_sender(verdict)
        hold = Hold(
            hold_id=transaction.id,
            mailing_id=live.mailing.mailing_id if live.mailing is not None else "",
            session=transaction.session,
            envelope=customers,
            content_sha256=transaction.message.sha256,
            size_bytes=transaction.message.size_bytes,
            subject=_subject(gathered),
            message_id=_message_id(gathered),
            verdict=verdict,
            state=State.WAITING,
            votes=(),
            held_at=live.now,
            expires_at=self.term.expires_at(asked, gathered.in_force, live.now),
            deliver_by=asked,
            sender=gathered.sender.told,
            senders=gathered.behind | gathered.sender.unnamed,
            lists=tuple(sorted(gathered.facts.lists)),
            reach=reach,
            reach_at_least=at_least,
            part=bool(colleagues),
            language=reading.language if reading else "",
            thread=gathered.facts.thread,
            primary=stands.primary,
            identity=gathered.facts.identity,
            versions=tuple(sorted((t.name, t.version) for t in gathered.counted.touched.values() if t.by_address)),
            behind=self._behind(),
            letter_from=gathered.facts.sent_by if by_sender else gathered.facts.letter_from,
            by_sender=by_sender,
            exact=coming.exact,
            author=coming.author,
            kind=TEST if self.test else "",
            proofs=coming.proofs,
            by_address=coming.by_address,
        )
        return self._asking(self._correcting(hold), live)

    def _correcting(self, hold: Hold) -> Hold:
        """The hold of a correction, on which others than who wants it sent decide; any other as it is."""
        if (one := self.correction) is None:
            return hold
        mine = self.gathered.in_force.addresses_of(one.by)
        told = hold.told if hold.sender in (None, *mine) or one.by in hold.told else (*hold.told, one.by)
        return replace(hold, correction=one, sender=hold.sender or one.by, told=told, senders=hold.senders | mine)

    def _asking(self, hold: Hold, live: Seen) -> Hold:
        """The hold with the question to its writer, if the verdict asks one."""
        writer = writer_of(self.gathered)
        confirm = None
        if not hold.primary and hold.verdict.action is Action.CONFIRM and isinstance(writer, Writer):
            seconds, expires = self.gathered.in_force.rules.asking(hold.verdict)
            until = min(live.now + timedelta(seconds=seconds), hold.expires_at)
            confirm = Confirmation(writer=writer.address, proof=writer.proof, until=until, expires=expires)
            hold = replace(hold, expires_at=until if expires else hold.expires_at)
        hold = replace(hold, confirm=confirm)
        return replace(hold, attend_at=self.term.attend_at(hold, self.gathered.in_force))

    def _reach(self, colleagues: Sized) -> tuple[int, bool]:
        """How many people it would reach by itself, without the colleagues who get it now, and whether it may be more."""
        if self.correction is not None:
            return self.correction.reach, False
        reach = self.gathered.everyone.reach
        return int(reach.low) - len(colleagues), reach.high > reach.low

    def _parts(self, verdict: Verdict) -> tuple[Envelope, tuple[Recipient, ...]]:
        """The envelope that is held, and the colleagues who get the message now (``scope: customers``)."""
        envelope = self.gathered.transaction.envelope
        if verdict.scope is not Scope.CUSTOMERS:
            return envelope, ()
        pairs = list(zip(envelope.recipients, self.gathered.everyone.recipients, strict=True))
        held = tuple(r for r, c in pairs if c.kind is not INTERNAL)
        if not held:
            return envelope, ()
        return replace(envelope, recipients=held), tuple(r for r, c in pairs if c.kind is INTERNAL)

    def _behind(self) -> Mapping[str, tuple[Person, ...]]:
        everyone, registry = self.gathered.everyone, self.gathered.in_force.registry
        pairs = zip(self.gathered.transaction.envelope.recipients, everyone.recipients, strict=True)
        return {str(r.address): tuple(behind(c, everyone, registry)) for r, c in pairs}

    def _spared(self, verdict: Verdict) -> frozenset[bytes]:
        """The digests of those colleagues."""
        if not verdict.action.waits or not self._parts(verdict)[1]:
            return frozenset()
        return frozenset(c.digest for c in self.gathered.everyone.recipients if c.kind is INTERNAL)

    def _taken(self, hold: Hold) -> tuple[Recipient, ...]:
        """The held recipients, if the wire passes the message on to the others itself."""
        transaction, held = self.gathered.transaction, hold.envelope.recipients
        apart = transaction.pass_rest is not None and len(held) < len(transaction.envelope.recipients)
        return held if apart else ()

    def _part(self, hold: Hold) -> tuple[Intent, ...]:
        _, colleagues = self._parts(hold.verdict)
        if not colleagues or self.gathered.transaction.pass_rest is not None:
            return ()
        return (
            Intent(
                intent_id=f"{hold.hold_id}-part",
                kind=IntentKind.PART,
                reverse_path=hold.envelope.reverse_path,
                recipients=colleagues,
                hold_id=hold.hold_id,
                content_sha256=hold.content_sha256,
            ),
        )

    def _event(
        self,
        verdict: Verdict,
        live: Seen,
        answers: Answers,
        hold_id: str | None = None,
        *,
        retry: bool = False,
        under: str = "",
    ) -> Event:
        """``under``: the primary hold, if this is a copy of it."""
        gathered, everyone, hits = self.gathered, self.gathered.everyone, verdict.hits
        data = _data(gathered, verdict, live.generation)
        data["hold"], data["retry"] = hold_id, retry
        if live.mailing is not None:
            data["mailing"] = live.mailing.mailing_id
        if live.grants and (bound := [grant.only for grant in live.grants if grant.only]):
            data["set"] = bound[0]
        decided = self._decided(live) if live.mailing is not None else []
        confirmed = any(h.mode is Mode.APPROVED and h.action is Action.CONFIRM for h in hits)
        if confirmed and CONFIRMED not in decided:
            decided.append(CONFIRMED)
        if decided:
            data[DECIDED] = decided
        if verdict.action is not Action.RELAY and gathered.began is not None:  # for relayed mail the outcome has it
            data["seconds"] = seconds_since(gathered.began, live.now)
        if under:
            data["with"] = under
        if self.test:
            data["test"] = True
        # they get it whatever is decided on the rest
        if verdict.action.waits and not retry and (apart := len(self._spared(verdict))):
            data["apart"] = apart
            data["apart_at"] = [n for n, c in enumerate(everyone.recipients) if c.kind is INTERNAL]
        return _event(gathered, live.now, data, self.questions, answers)

    def _decided(self, live: Seen) -> list[str]:
        """What people have decided about its mailing, or must decide."""
        gathered, entry, found = self.gathered, live.entry, []
        if live.approved:
            found.append(APPROVED)
        if any(grant.by_writer for grant in live.grants):
            found.append(CONFIRMED)
        if entry is not None and entry.state is State.WAITING and not is_anothers_letter(gathered, entry.senders):
            found.append(WAITING)
        if refused_by(gathered, live) is not None:
            found.append(REJECTED)
        return found


def alone(gathered: Gathered, plan: Plan, live: Live, generation: int) -> Admission | None:
    """The admission of a message that its rules alone decide on: to no list's address, of no mailing, of no stream with a
    limit. It has one entry, a verdict to relay; None if more is to be written. ``generation``: the gate's."""
    answers = plan.answers(live)
    verdict = plan.close(live, answers)
    if verdict.action is not Action.RELAY or (verdict.hits and alarm_rules(verdict, gathered)):
        return None
    event = _event(gathered, live.now, _data(gathered, verdict, generation), plan.questions, answers)
    return _new_admission(verdict=verdict, events=(event,))


def _event(gathered: Gathered, now: datetime, data: Mapping[str, Any], questions: Asks, answers: Answers) -> Event:
    private = _private(gathered, _facts(gathered, questions, answers))
    return new_event(kind=Kind.VERDICT, id=gathered.transaction.id, at=now, data=data, private=private)


def _data(gathered: Gathered, verdict: Verdict, generation: int) -> dict[str, Any]:
    """What every verdict's entry says in clear."""
    transaction, everyone, hits = gathered.transaction, gathered.everyone, verdict.hits
    message, session, looks = transaction.message, transaction.session, gathered.facts.values.get("message.looks")
    counts = {
        "total": everyone.total,
        "internal": everyone.internal.low,
        "outside": everyone.outside.low,
        "members": everyone.members.low,
        "list_addresses": everyone.list_addresses.low,
        "customers": everyone.customers.low,
        "reach": everyone.reach.low,
    }
    data = {
        "action": verdict.action.word,
        "rules": [h.rule for h in hits if h.mode is Mode.ENFORCE] if hits else [],
        "observed": [h.rule for h in hits if h.mode is Mode.OBSERVE] if hits else [],
        "reasons": [r for h in hits for r in _reasons(h)] if hits else [],
        "unknown": [list(pair) for pair in verdict.unknown] if verdict.unknown else [],
        "counts": counts,
        "lists": sorted(gathered.facts.lists),
        "looks": None if isinstance(looks, Unknown) else looks,
        "size_bytes": len(message.raw),
        "policy": verdict.policy_sha256,
        "content": message.sha256,
        "client": session.client_ip,
        "listener": session.listener,
        "tls": session.tls,
        "generation": generation,
        "hold": None,
        "mailing": None,
        "approved": [h.rule for h in hits if h.mode is Mode.APPROVED] if hits else [],
        "retry": False,
        "freeze": verdict.freeze_id,
        "expanded_from": gathered.post.id if gathered.post else None,
        "streams": [s.name for s in gathered.streams] if gathered.streams else [],
        "tellable": gathered.sender.told is not None,
        **as_journalled(everyone),
    }
    if session.peer:  # it named another client
        data["peer"] = session.peer
    if isinstance(gathered.origin, DkimResult):  # the origin was asked for
        failed = {domain for domain, _ in gathered.origin.failed}
        data["dkim"] = {"signed": sorted(gathered.origin.domains), "failed": sorted(failed)}
    if beside := gathered.facts.lists - everyone.lists:  # only reports on it would reach them
        data["reports_to"] = sorted(beside)
    if transaction.refused:
        data["refused_codes"] = refused_at_rcpt(transaction.refused)
    if isinstance(gathered.reading, Reading) and len(gathered.reading.shown) > 1:
        counts["shown"] = len(gathered.reading.shown)  # addresses that every recipient can read
    if everyone.reach.high > everyone.reach.low:  # a list could not say who is on it
        data["reach_at_least"] = True
    return data


def _facts(gathered: Gathered, questions: Asks, answers: Answers) -> str:
    """The known facts, for replay. Facts of the text are kept only for mail that touches a list, or is counted as a
    copy."""
    everyone = gathered.everyone
    given = {**answers, REPLY: True} if gathered.facts.threads else answers
    text = bool(
        everyone.touched
        or everyone.crowds
        or gathered.post is not None
        or not OF_MAILINGS.isdisjoint([asks[0].fact for asks in questions.values()])
    )
    return pack(gathered.facts.values, given, text=text)


def refused_at_rcpt(refused: Iterable[RefusedRecipient]) -> dict[str, int]:
    """How many recipients the relay refused before there was a message, by reply code. Names nobody."""
    return dict(sorted(Counter(one.code for one in refused).items()))


def _private(gathered: Gathered, facts: str) -> dict[str, tuple[str, ...]]:
    session, envelope = gathered.transaction.session, gathered.transaction.envelope
    private = {
        "reverse_path": (envelope.reverse_path.text if envelope.reverse_path is not None else "",),
        "recipients": tuple([r.address.text for r in envelope.recipients]),
        "subject": (_subject(gathered),),
        FACTS: (facts,),
    }
    if gathered.sender.claimed:
        private["from"] = (gathered.sender.claimed,)
    if session.auth_user:
        private["actor"] = (session.auth_user,)
    if message_id := _message_id(gathered):
        private["message_id"] = (message_id[:MAX_SUBJECT],)
    if session.ident:
        private["ident"] = (session.ident[:MAX_SUBJECT],)
    if session.helo:
        private["helo"] = (session.helo[:MAX_SUBJECT],)
    if envelope.envid:
        private["envid"] = (envelope.envid[:MAX_SUBJECT],)
    if refused := gathered.transaction.refused:
        private["refused"] = tuple(str(one.address) for one in refused)
    return private


def seconds_since(began: datetime, now: datetime) -> float:
    """Seconds since the final dot, to the millisecond."""
    return round(max(0.0, (now - began).total_seconds()), 3)


def _reasons(hit: Hit) -> list[dict[str, Any]]:
    return [
        {
            "rule": hit.rule,
            "fact": r.fact,
            "observed": None if r.fact in PERSONAL else r.observed,
            "limit": None if r.fact in PERSONAL else r.limit,
            "uncertain": hit.uncertain,
        }
        for r in hit.reasons
    ]


def _because(verdict: Verdict, action: Action) -> Hit:
    return next(h for h in verdict.hits if h.mode is Mode.ENFORCE and h.action is action)


def _subject(gathered: Gathered) -> str:
    if isinstance(gathered.reading, Reading) and gathered.reading.subject:
        return gathered.reading.subject[:MAX_SUBJECT]
    found = gathered.transaction.message.header.all("Subject")
    return header_text(found[0].raw[:_MOST_OCTETS])[:MAX_SUBJECT] if found else ""


def _message_id(gathered: Gathered) -> str:
    if isinstance(gathered.reading, Reading):
        return gathered.reading.message_id
    return (gathered.transaction.message.header.get("Message-ID") or "").strip()
