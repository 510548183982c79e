"""Choose the recipients and times of notices: from a hold or a decision to NOTICE intents, each for one person.

A notice goes to the authenticated user's mailbox, else to an internal From. It never goes to the reverse-path (a VERP
handler would unsubscribe the customer), to the original recipients, to outsiders, or to an address only because the
message names it. A notice that would have no recipient goes to the lists' owners.

Rules that call a person have a journal entry for each call, from which the alarms take it (``call_events``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, TypeAlias

from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.streams import Alarms, Exceeded, window_of
from smtpguard.guard.inforce import InForce
from smtpguard.holds import coverage, effects
from smtpguard.holds.model import Choice, Hold, State, have_voted, out_of_reach, standing_votes
from smtpguard.holds.replying import binding_digest
from smtpguard.holds.sending import NOTHING, UNSENT, Outgoing, Sending
from smtpguard.journal.chain import utc_text
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.mailings.model import Mailing
from smtpguard.mailings.staging import At, Progress
from smtpguard.notices import noticedata
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.policy import counted
from smtpguard.policy.approvals import Absence
from smtpguard.policy.condition import NO
from smtpguard.policy.counted import Asks, Live, list_of
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Verdict
from smtpguard.reading.looks import Reading
from smtpguard.reading.marks import veiled

Intents: TypeAlias = tuple[Intent, ...]
MAX_SHOWN = 20
"""The most recipients that a notice lists."""
_ASKING = frozenset({"approve", "reminder", "answer", "plea"})
"""The notices that always ask their reader to decide. A notice of a revoked approval may ask too."""
REVOKED = "-back"
"""The end of the ids of notices that an approval is revoked, which are sent beside those of the approval."""
_WORDS = frozenset({"question", "answer", "plea"})
"""The notices with people's own words. More of them are sent singly, since a digest does not have the words."""
MOST_WORDS = 30
"""The most notices with people's own words that one person is sent singly in a window."""
AGAIN_SECONDS = 30.0
"""The least time between two journal entries of the same call."""
OWNER_WINDOW = timedelta(hours=1)
"""How often an owner gets a digest of messages without another reader."""
LATE = timedelta(minutes=1)
"""The time from the end of a digest's window until it is sent. Notices from the end of the window may be written later, as by a
host whose clock is behind."""


@dataclass(slots=True)
class CallTimes:
    """The time at which each call was last journalled by this process. Another process may have journalled it too."""

    _journalled: dict[tuple[str, ...], datetime] = field(default_factory=dict)

    def is_due(self, key: tuple[str, ...], now: datetime) -> bool:
        """Return whether to journal a call now, and remember that it is. ``key``: the rule and its lists."""
        last = self._journalled.get(key)
        if last is not None and abs((now - last).total_seconds()) < AGAIN_SECONDS:
            return False
        self._journalled[key] = now
        return True


@dataclass(slots=True)
class Flood:
    """The number of notices that each person was sent in this window. The first few are sent singly, the rest in one
    digest.

    Each process counts for itself. The count only chooses between a notice and a digest, and the digest's id is the
    same in every process. So nothing is lost by a restart, and nobody gets two digests of one window.
    """

    singly: int = 3
    window: timedelta = timedelta(minutes=10)
    _start: float = 0
    _sent: dict[str, int] = field(default_factory=dict)

    def since(self, now: datetime) -> datetime:
        return window_of(now, self.window.total_seconds())

    def sends_singly(self, person: str, now: datetime, singly: int | None = None) -> bool:
        """Count a notice. Returns whether it is sent singly. ``singly``: how many are, None for the usual number."""
        start = self.since(now).timestamp()
        if start != self._start:
            self._start = start
            self._sent.clear()
        sent = self._sent[person] = self._sent.get(person, 0) + 1
        return sent <= (self.singly if singly is None else singly)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """What one process remembers of its notices. ``contact``: who is told of holds that nobody can decide; "" for
    nobody."""

    flood: Flood = field(default_factory=Flood)
    alarms: Alarms = field(default_factory=Alarms)
    called: CallTimes = field(default_factory=CallTimes)
    contact: str = ""

    def at(self, in_force: InForce, now: datetime) -> NoticesNow:
        return NoticesNow(self, in_force, now)

    def stream(self, over: Exceeded, in_force: InForce, now: datetime) -> tuple[list[Event], Intents]:
        """Return the journal entry that a stream is above its limits, and its owner's notice; both once a window."""
        event, one = self.alarms.first(over, now), over.watched
        if event is None:
            return [], ()
        owner = one.stream.owner or ""
        about = {"notice": "stream", "stream": one.stream.name, "limit": one.limit.count, "per_person": one.person,
                 "window_minutes": one.limit.window_seconds / 60, "at": utc_text(now)}  # fmt: skip
        person = "-person" if one.person else ""
        since = window_of(now, one.limit.window_seconds)
        id = f"stream-{one.stream.name}{person}-{since:%Y%m%dT%H%M%S}-{tag(owner, in_force)}"
        return [event], notice_to(id, owner, {**noticedata.NONE, **about})


@dataclass(frozen=True, slots=True)
class NoticesNow:
    """Choose who gets notices now, under the policy in force. Each method returns the intents for the commit of the
    event itself."""

    notices: Notices
    in_force: InForce
    now: datetime

    def held(self, hold: Hold, gathered: Gathered) -> Intents:
        """Return the notices of a new hold: the writer gets the reasons, and the approvers are asked; or the writer is
        asked."""
        if hold.asks_writer:
            data = noticedata.held(hold, gathered) | noticedata.confirmation(hold) | {"notice": "confirm"}
            return self._notice(hold.sender or "", data, _stem(hold, data), role="sender", alone=True)
        return (
            *self._to_writers(hold, noticedata.held(hold, gathered) | {"notice": "held"}),
            *self._ask_approvers(hold, self._approvers(hold), gathered),
            *self._nobody_decides(hold),
        )

    def joined(self, before: Hold, grown: Hold | None, copy: Hold | None, gathered: Gathered) -> Intents:
        """Return the notices of a copy under a held message: only to a writer and to approvers who are new to it.
        ``before``, ``grown``: the primary hold before and after; ``grown``: None if it is unchanged. ``copy``: None for one
        whose client tries again."""
        if grown is None:
            return ()
        grown = replace(grown, copies=before.copies + (copy is not None))
        known = () if before.asks_writer else self._approvers(before)
        new = sorted(self._approvers_except(grown, *known)) if not grown.asks_writer else []
        told: Intents = ()
        own = noticedata.of_copy(copy) if copy is not None else {}
        for writer in grown.told[len(before.told) :]:
            data = noticedata.held(grown, gathered) | {"notice": "held"}
            if grown.release_at is not None:  # it is approved, as the others were told
                data |= self._decided(grown, "approved", None, "") | {"writer": True}
            data |= own
            told = self._notice(writer, data, f"{_stem(grown, data)}-{tag(writer, self.in_force)}", role="sender")
        if grown.asks_writer:
            return told
        if before.asks_writer:
            told = (*told, *self._no_longer_asked(grown))
        return (*told, *self._ask_approvers(grown, new, gathered), *self._nobody_decides(grown))

    def asked_anew(self, hold: Hold, person: str) -> Intents:
        """Return a notice to somebody who answered one from before the hold changed: what they are asked now, once for
        each change."""
        since = f"-{tag(binding_digest(hold), self.in_force)}"
        if hold.asks_writer:
            return self._asked_again(hold, person, since)
        same = self.in_force.groups.person
        if hold.state is not State.WAITING or same(person) not in map(same, self._not_voted(hold)):
            return ()
        return self._notices(hold, [person], self._waiting_with_reasons(hold) | _approve_data(hold), alone=since)

    def asked_too(self, before: Hold, grown: Hold) -> Intents:
        """Return the notices to approvers who are new to a held post, since it reaches another list by now."""
        new = self._approvers_except(grown, *self._approvers(before))
        return tuple(intent for person in sorted(new) for intent in self.asked_anew(grown, person))

    def _asked_again(self, hold: Hold, person: str, suffix: str, **more: Any) -> Intents:
        """Return a notice to the writer, who is still asked to confirm the message."""
        data = self._waiting_with_reasons(hold) | noticedata.confirmation(hold) | {"notice": "confirm", **more}
        return self._notice(person, data, f"{_stem(hold, data)}{suffix}", role="sender", alone=True)

    def unconfirmed(self, hold: Hold) -> Intents:
        """Return the notices of a hold whose writer has not confirmed it in time. They are told that others decide now,
        and the approvers are asked."""
        data = self._waiting(hold) | {"notice": "reminder", "percent": 0, "unconfirmed": True}
        return (
            *self._no_longer_asked(hold),
            *self._notices(hold, self._approvers(hold), data, alone="-unconfirmed"),
            *self._nobody_decides(hold),
        )

    def _no_longer_asked(self, hold: Hold) -> Intents:
        """Return a notice to the writer, who was asked, that others decide now."""
        data = self._waiting_with_reasons(hold) | {"notice": "held"}
        return self._notice(hold.sender or "", data, f"{_stem(hold, data)}-now", role="sender", alone=True)

    def _nobody_decides(self, hold: Hold) -> Intents:
        """Return a notice to the contact if only the writer could decide, or everybody who could is away. The contact
        is told at once instead of after an hour. In a flood only the first few are reported, since one remedy helps
        all."""
        if not self.notices.contact or not out_of_reach(hold, self.in_force.groups, self.now):
            return ()
        if not self.notices.flood.sends_singly(f"contact {self.notices.contact}", self.now):
            return ()
        away = not out_of_reach(hold, self.in_force.groups)
        data = self._waiting(hold) | {"notice": "escalation", "contact": True, "away": away, "decides": ""}
        return self._notices(hold, (self.notices.contact,), data, alone="-nobody")

    def _ask_approvers(self, hold: Hold, people: Sequence[str], gathered: Gathered) -> Intents:
        """Return the notices that ask people to decide. Each sees as much of the text as the policy allows them."""
        blind = [p for p in people if self.in_force.preview(hold.lists, p, self.now) == "reasons"]
        excerpt = gathered.reading.excerpt if isinstance(gathered.reading, Reading) else ""
        asked = noticedata.held(hold, gathered) | _approve_data(hold, excerpt, _coverage(hold, gathered))
        quoted = {"reasons": noticedata.reasons(hold, self.in_force, readable=True)}
        less = {"excerpt": "", "marks": [*dict.fromkeys(veiled(mark, hold.subject) for mark in asked["marks"])]}
        return (
            *self._notices(hold, [p for p in people if p not in blind], asked | quoted),
            *self._notices(hold, blind, asked | less),
        )

    def words(self, hold: Hold, kind: str, said: Mapping[str, Any], id: str) -> Intents:
        """Return the notices with people's own words: a question to the writer, or the writer's answer or plea to the
        approvers. ``said``: ``by`` and ``comment``; for an answer also ``question`` and ``asked_by``."""
        asked = {"question": "", "asked_by": ""} if kind == "answer" else {}
        data = self._waiting(hold) | asked | {"notice": kind, "said_at": utc_text(self.now), **said}
        if kind in ("answer", "plea"):
            return self._notices(hold, self._approvers(hold), data, suffix=f"-{id}")
        return self._notice(hold.sender or "", data, f"{hold.hold_id}-{kind}-{id}", role="sender")

    def rejected(self, verdict: Verdict, gathered: Gathered) -> Intents:
        """Return the notices of a rejected message. An internal writer gets more than the SMTP reply if a rule has
        ``explain``; if none has, nobody gets a notice. If there is no writer who can be told, the owners are."""
        enforced = [h for h in verdict.hits if h.mode is Mode.ENFORCE and h.action is Action.REJECT]
        told, transaction = gathered.sender.told, gathered.transaction
        if told is None:
            return self._to_owners(sorted(gathered.facts.lists), transaction.id)
        if not any(h.explain for h in enforced):
            return ()
        data = noticedata.rejected(enforced, gathered, self.now)
        return self._notice(told, data, f"{transaction.id}-rejected", role="sender")

    def decided(self, hold: Hold, outcome: str, by: str | None, comment: str) -> Intents:
        """Return the notices of a decision. The writer gets the outcome; the other approvers learn that it is
        decided."""
        data = self._decided(hold, outcome, by, comment)
        others = self._approvers_except(hold, by) if not hold.asks_writer else set()
        return (*self._to_writers(hold, data), *self._notices(hold, sorted(others), data))

    def _decided(self, hold: Hold, outcome: str, by: str | None, comment: str) -> dict[str, Any]:
        data = noticedata.about(hold, self.in_force) | _decided_data(outcome, by, comment, self.now)
        if outcome == "approved":
            data["voters"] = [vote.approver for vote in standing_votes(hold) if vote.choice is Choice.APPROVE]
            stages = effects.stages(hold, self.in_force)
            data["stages"] = stages.sentence if stages is not None else ""
        return data

    def revoked(
        self,
        hold: Hold,
        outcome: str,
        by: str,
        comment: str,
        *,
        sending: Sending = UNSENT,
        outgoing: Outgoing = NOTHING,
        confirmed: bool = False,
    ) -> Intents:
        """Return the notices of a revoked approval, to everybody who was told of it, regardless of the flood limit.
        ``outcome``: rejected, withdrawn or reopened; stopped, if somebody had it; revoked, of a test or if nothing is left to stop; or lapsed, if it
        lost its quorum before it took effect. Approvers whose vote on ``hold`` counts are not asked again.
        ``confirmed``: its writer alone had released it."""
        data = self._waiting(hold) | _decided_data(outcome, by, comment, self.now)
        data |= {
            "back": outgoing.back,
            "gone": outgoing.gone + outgoing.doubt,
            "has": sending.stopped.sent,
            "doubt": sending.stopped.doubted,
            "left": sending.stopped.failed,
            "confirmed": confirmed,
        }
        others = self._approvers_except(hold, by)
        asked = others.intersection(self._not_voted(hold)) if outcome in ("reopened", "lapsed") else set()
        return (
            *self._to_writers(hold, data, alone=REVOKED),
            *self._notices(hold, sorted(asked), data | {"asked": True}, alone=REVOKED),
            *self._notices(hold, sorted(others - asked), data | {"asked": False}, alone=REVOKED),
        )

    def expired(self, hold: Hold) -> Intents:
        data = noticedata.about(hold, self.in_force) | {
            "notice": "expired",
            "held_at": utc_text(hold.held_at),
            "expired_at": utc_text(self.now),
            "deciders": noticedata.deciders(hold, self.in_force, self.now),
            "unconfirmed": hold.question is not None and hold.question.expires,
        }
        return self._to_writers(hold, data)

    def reminder(self, hold: Hold, percent: int, *, longer: bool = False) -> Intents:
        """Return the reminders of a hold, to those who have not voted yet; or to its writer, while only the writer is
        asked. ``longer``: it waits longer than its writers were told."""
        if hold.asks_writer:
            return self._asked_again(hold, hold.sender or "", f"-{percent}", percent=percent)
        data = self._waiting(hold) | {"notice": "reminder", "percent": percent}
        told = self._waiting_with_reasons(hold) | {"notice": "held", "longer": True}
        return (
            *(self._to_writers(hold, told, alone="-longer") if longer else ()),
            *self._notices(hold, self._not_voted(hold), data, suffix=str(percent)),
        )

    def set_apart(self, hold: Hold, lead: Hold, why: str) -> Intents:
        """Return the notices of a copy that waits by itself, to the approvers and its writers. ``why``: why it does not
        follow ``lead``: "differs", a copy that the decision does not cover; "ended", since the approval ended; or
        "later", a letter of a sender that came after those that were decided on."""
        data = self._waiting(hold) | {"notice": "reminder", "percent": 0, why: True, "confirmed": lead.confirmed}
        return (
            *self._to_writers(
                hold, self._waiting_with_reasons(hold) | {"notice": "held", "apart": why}, alone=f"-{why}"
            ),
            *self._notices(hold, self._approvers(hold), data, alone=f"-{why}"),
        )

    def stages(self, hold: Hold, mailing: Mailing, progress: Progress) -> Intents:
        """Return the notices that the stages of a mailing wait for a person: to those who decide on it, else to the
        contact, and to its writer. Returns none if they were told of a few mailings in this window."""
        people = self._approvers(hold) or [self.notices.contact]
        if not self.notices.flood.sends_singly(f"stages {people}", self.now):
            return ()
        data = self._waiting(hold) | {"notice": "stages", "mailing": mailing.mailing_id, "cause": progress.why}
        data |= {"stopped": progress.at is At.STOPPED, "since": utc_text(progress.since)}
        data |= {"has": mailing.people.at_least, "waits": mailing.people.held + mailing.people.deferred}
        alone = f"-{progress.since:%Y%m%dT%H%M%S%f}"
        return (*self._to_writers(hold, data, alone=alone), *self._notices(hold, people, data, alone=alone))

    def doubt(self, hold: Hold, people: int, since: datetime) -> Intents:
        """Return the notices that it is unknown whether a release to a list address was sent: the approvers are asked,
        and the contact is told, regardless of the flood limit. ``people``: how many may have it; ``since``: when the
        question began."""
        data = self._waiting(hold) | {"notice": "doubt", "people": people}
        data |= {"doubt_since": utc_text(since), "again": self.now > since}
        suffix = f"{self.now:%Y%m%dT%H%M%S}"
        asked, same = self._approvers(hold), self.in_force.groups.person
        contact = (
            [self.notices.contact]
            if self.notices.contact and same(self.notices.contact) not in map(same, asked)
            else []
        )
        return (
            *self._notices(hold, asked, data | {"contact": False}, suffix=suffix, alone="-asked"),
            *self._notices(hold, contact, data | {"contact": True}, suffix=suffix, alone="-contact"),
        )

    def escalation(self, hold: Hold) -> Intents:
        """Return the notices of a hold without a vote for the time of escalation: the owners of its lists are told, and
        the out-of-hours approvers."""
        data = self._waiting(hold) | {"notice": "escalation", "contact": False, "away": False}
        same, told = self.in_force.groups.person, noticedata.escalated_to(hold, self.in_force)
        asked = {same(one): one for one in self._approvers(hold)}
        spare = set(map(same, noticedata.out_of_hours(hold, self.in_force))) - asked.keys()
        owners = told.keys() - asked.keys() - spare
        later, never = ([told[who] for who in told if who in some] for some in (spare, owners))
        return (
            *self._notices(hold, [asked[who] for who in told if who in asked], data | {"decides": "now"}),
            *self._notices(hold, later, data | {"decides": "out-of-hours"}, role="owner"),
            *self._notices(hold, never, data | {"decides": ""}, role="owner"),
            *self._nobody_decides(hold),
        )

    def voted(
        self,
        hold: Hold,
        person: str,
        tag: str,
        choice: str,
        *,
        proof: str = "",
        refused: str = "",
        word: str = "",
    ) -> Intents:
        """Return a notice to an approver whose vote by mail was counted, or why it was ``refused``. There is one mail
        for each notice ``tag`` and reason ``word``, however many answers come."""
        data = noticedata.about(hold, self.in_force) | {
            "notice": "voted",
            "writer": hold.asks_writer,
            "choice": choice,
            "proof": proof,
            "refused": refused,
            "said_at": utc_text(self.now),
        }
        id = "-".join(filter(None, (hold.hold_id, "voted", tag, word)))
        return self._notice(person, data, id, role="approver", alone=True)

    def _approvers(self, hold: Hold) -> list[str]:
        """Return the approvers, each person once, at the first of their addresses."""
        same, everybody = self.in_force.groups.person, noticedata.approvers(hold, self.in_force, self.now)
        return sorted({same(one): one for one in reversed(everybody)}.values())

    def _approvers_except(self, hold: Hold, *people: str | None) -> set[str]:
        """Return the approvers without these people, under any address."""
        same = self.in_force.groups.person
        known = set(map(same, filter(None, people)))
        return {one for one in self._approvers(hold) if same(one) not in known}

    def _not_voted(self, hold: Hold) -> list[str]:
        groups = self.in_force.groups
        voted = have_voted(hold, groups)
        return [a for a in self._approvers(hold) if groups.person(a) not in voted]

    def _waiting(self, hold: Hold) -> dict[str, Any]:
        return noticedata.waiting(hold, self.in_force, self.now)

    def _waiting_with_reasons(self, hold: Hold) -> dict[str, Any]:
        """Return the data of a waiting hold with its reasons, for when its text is not at hand."""
        return self._waiting(hold) | {"reasons": noticedata.reasons(hold, self.in_force), "marks": [], "more_marks": 0}

    def _to_writers(self, hold: Hold, data: Mapping[str, Any], *, alone: str = "") -> Intents:
        """Return a notice to each writer of a hold, or to the owners if there is none. An outcome may be the first that
        its writer reads of the hold, so it has the reasons too. ``alone``: the end of the id of a notice that is sent
        singly, "" for any other."""
        if hold.sender is None and not hold.told:
            return self._to_owners(hold.lists, hold.hold_id)
        stem = _stem(hold, data) + alone
        data = {"reasons": noticedata.reasons(hold, self.in_force), **data, "writer": True}
        told = [(hold.sender, stem, data)] if hold.sender else []
        told += [
            (one, f"{stem}-{tag(one, self.in_force)}", data | {"copy_by": one})
            for one in hold.told
            if one != hold.sender
        ]
        intents = (self._notice(one, own, id, role="sender", alone=bool(alone)) for one, id, own in told)
        return tuple(chain.from_iterable(intents))

    def _notices(
        self,
        hold: Hold,
        people: Sequence[str],
        data: Mapping[str, Any],
        *,
        suffix: str = "",
        alone: str = "",
        role: str = "approver",
    ) -> Intents:
        """Return a notice to each of ``people``. A deputy's notice names the absent person. ``suffix``: the end of the
        ids; ``alone``: the same for notices that are sent singly."""
        stem = f"{_stem(hold, data)}{suffix}{alone}"
        if data["notice"] in _ASKING or data.get("asked"):
            data = {**data, **noticedata.answer_binding(hold, self.in_force)}
        own = {one: {**data, **noticedata.in_place_of(hold, one, self.in_force, self.now)} for one in people}
        intents = (
            self._notice(one, data, f"{stem}-{tag(one, self.in_force)}", role=role, alone=bool(alone))
            for one, data in own.items()
        )
        return tuple(chain.from_iterable(intents))

    def _notice(
        self, person: str, data: Mapping[str, Any], intent_id: str, *, role: str, alone: bool = False
    ) -> Intents:
        """Return one notice; or, once this person has had a few in this window, its one digest, unless it is sent
        alone."""
        words = data["notice"] in _WORDS
        key = f"{'words to ' if words else ''}{role} {person}"
        if alone or self.notices.flood.sends_singly(key, self.now, MOST_WORDS if words else None):
            return notice_to(intent_id, person, data)
        since = self.notices.flood.since(self.now)
        until = since + self.notices.flood.window
        return digest(person, {"notice": "digest", "role": role}, since, until, self.in_force)

    def _to_owners(self, lists: Iterable[str], first: str) -> Intents:
        """Return the digests of messages without another reader: once an hour, to the owner of each list that they
        touch. ``first``: the first transaction, from which the journal is searched for rejections."""
        since, known = window_of(self.now, OWNER_WINDOW.total_seconds()), self.in_force.registry.lists
        about = {"notice": "owner-digest", "first": first}
        intents = (
            digest(
                info.owner, about | {"list": info.called, "list_name": name}, since, since + OWNER_WINDOW, self.in_force
            )
            for name in lists
            if (info := known.get(name)) is not None and info.owner
        )
        return tuple(chain.from_iterable(intents))


def digest(person: str, data: Mapping[str, Any], since: datetime, until: datetime, in_force: InForce) -> Intents:
    """Return the one notice of a window, sent at its end."""
    kind = "-".join(filter(None, (data["notice"], data.get("role"), data.get("list_name"))))
    window = {"since": utc_text(since), "until": utc_text(until), "person": person}
    about = {**noticedata.NONE, **data, **window}
    return notice_to(f"{kind}-{since:%Y%m%dT%H%M}-{tag(person, in_force)}", person, about, not_before=until + LATE)


def _approve_data(hold: Hold, excerpt: str = "", covers: Sequence[Phrase] = ()) -> dict[str, Any]:
    shown = [str(a) for a in hold.envelope.addresses[:MAX_SHOWN]]
    asked = {"notice": "approve", "recipients_shown": shown, "senders": sorted(hold.senders)}
    return asked | {"excerpt": excerpt, "covers": list(covers)}


def _coverage(hold: Hold, gathered: Gathered) -> list[Phrase]:
    """Return sentences on what an approval covers before there are copies, and in which stages the message is sent."""
    learned = effects.learned([(gathered.shown, hold.author, hold.proofs)], gathered.in_force.slots)
    stages = effects.stages(hold, gathered.in_force)
    return [*coverage.sentences(coverage.of_hold(hold, learned)), *([stages.sentence] if stages is not None else [])]


def deputy_waits(absence: Absence, groups: Sequence[str], admins: Iterable[str], in_force: InForce) -> Intents:
    """Return a notice to each admin that a deputy decides in ``groups`` only once one of them agrees. There is one mail
    for the same days and deputy."""
    about = {
        **noticedata.NONE,
        "notice": "deputy",
        "person": absence.person,
        "deputy": absence.deputy,
        "first": absence.since.isoformat(),
        "last": absence.until.isoformat(),
        "groups": list(groups),
    }
    two = f"{absence.person} {absence.deputy}"
    stem = f"deputy-{tag(two, in_force)}-{absence.since:%Y%m%d}-{absence.until:%Y%m%d}"
    return tuple(chain.from_iterable(notice_to(f"{stem}-{tag(one, in_force)}", one, about) for one in admins))


def released_after_freeze(hold: Hold, in_force: InForce, now: datetime) -> Intents:
    """Return the notices that a message approved during a freeze has been sent, since its writers knew that it waits.
    Copies have none."""
    if not hold.held_up or hold.primary:
        return ()
    data = noticedata.about(hold, in_force) | _decided_data("released", None, "", now) | {"writer": True}
    own = {hold.sender: data} if hold.sender else {}
    own |= {one: data | {"copy_by": one} for one in hold.told if one not in own}
    intents = (notice_to(f"{hold.hold_id}-gone-{tag(one, in_force)}", one, own[one]) for one in own)
    return tuple(chain.from_iterable(intents))


def _decided_data(outcome: str, by: str | None, comment: str, now: datetime) -> dict[str, Any]:
    of: dict[str, Any] = {"outcome": outcome, "by": by, "comment": comment, "voters": [], "stages": ""}
    return {"notice": "decided", "decided_at": utc_text(now), **of}


def _stem(hold: Hold, data: Mapping[str, Any]) -> str:
    """Return the beginning of the ids of a hold's notices of a kind. A hold that waits again, or is approved again,
    gets new ids."""
    return f"{hold.hold_id}{hold.turn}-{data['notice']}"


def notice_to(intent_id: str, person: str, data: Mapping[str, Any], *, not_before: datetime | None = None) -> Intents:
    """Return a NOTICE intent, none for a person whose address cannot be parsed."""
    if (to := Address.parse_any(person)) is None:
        return ()
    made = Intent(
        intent_id=intent_id,
        kind=IntentKind.NOTICE,
        reverse_path=None,
        recipients=(Recipient(address=to, notify="NEVER"),),
        hold_id=data["hold_id"],
        data=data,
        not_before=not_before,
    )
    return (made,)


def tag(text: str, in_force: InForce) -> str:
    """Return a keyed digest of an address, or of what else nobody may guess, for ids: the journal keeps them. It is the same in every
    process."""
    return in_force.registry.digester.of_person(text.lower()).hex()


def alarm_rules(verdict: Verdict, gathered: Gathered) -> list[Rule]:
    """Return the rules with ``then: alarm`` that hit."""
    hits = {hit.rule for hit in verdict.hits}
    return [rule for rule in gathered.in_force.rules.alarms if rule.rule_id in hits]


def call_events(
    verdict: Verdict, gathered: Gathered, questions: Asks, live: Live, called: CallTimes
) -> Iterator[Event]:
    """Yield an event for each rule with ``then: alarm`` that hit, at most one in half a minute. Its data has, for each
    list that the rule is about, the number of people that were counted."""
    for rule in alarm_rules(verdict, gathered):
        lists = _people_by_list(rule, questions, live, gathered)
        if called.is_due((rule.rule_id, *sorted(lists)), live.now):
            data = {"rule": rule.rule_id, "lists": lists}
            private = {"from": (gathered.sender.claimed,)} if gathered.sender.claimed else {}
            yield Event(kind=Kind.ALARM, id=gathered.transaction.id, at=live.now, data=data, private=private)


def _people_by_list(rule: Rule, questions: Asks, live: Live, gathered: Gathered) -> dict[str, int]:
    found: dict[str, int] = {}
    for condition in rule.when:
        for ask in questions.get(condition.slot, ()) if condition.fact.by_list else ():
            if condition.test(counted.value_of([ask], live, gathered.facts)) is not NO:
                name = list_of(ask.key)
                found[name] = max(found.get(name, 0), live.counts.get(ask, 0))
    return found
