"""Choose the recipients and times of notices: from a hold or a decision to NOTICE intents, each for one person.

A notice goes to the authenticated user's mailbox, else to an internal From. It never goes to the reverse-path (a VERP
handler would unsubscribe the customer), to the original recipients, to outsiders, or to an address only because the
message names it. A notice that would have no recipient goes to the lists' owners.

Rules that call a person have a journal entry for each call, from which the alarms take it (``calling``).

A list that cannot be refreshed is told of once an outage, not once an attempt, and again when it is over. An outage
begins with the first sync that fails and ends with the first that succeeds. The id of such a notice contains the time
when the outage began, so that no restart, other command or other process sends it twice. Its ``data`` has

==============  ======================================================================================================
all             ``list``: its title, ``list_name``; ``since``: when it began; ``person``: the reader
list-failed     ``problem``: what is wrong, as a sentence; ``size``: number of people in the index in use, null for no
                index; ``checked_at``: when all sources were last found unchanged or read, null for never; ``stale``: as
                list-stale
list-stale      the same, when the index has become too old for a "no" to be relied on
list-well       ``size``
==============  ======================================================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, TypeAlias

from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.streams import Alarms, Exceeded, since_of, window_of
from smtpguard.guard.inforce import InForce
from smtpguard.holds import coverage, effects
from smtpguard.holds.model import Choice, Hold, State, have_voted, out_of_reach, standing_votes
from smtpguard.holds.replying import binding_digest
from smtpguard.holds.sending import NOTHING, UNSENT, Outgoing, Sending
from smtpguard.journal.chain import utc_text
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.sync import News, Report
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
from smtpguard.policy.counted import Live, Questions, list_of
from smtpguard.policy.rule import Rule
from smtpguard.policy.verdict import Action, Mode, Verdict
from smtpguard.reading.looks import Reading, veiled

Intents: TypeAlias = tuple[Intent, ...]
MAX_SHOWN = 20
_ASKING = frozenset({"approve", "reminder", "answer", "plea"})
"""Notices that always ask their reader to decide. A notice of a revoked approval may ask too."""
BACK = "-back"
"""The end of the ids of notices that an approval is revoked: they are additional to those of the approval."""
_WORDS = frozenset({"question", "answer", "plea"})
"""Notices with people's own words. More of them are sent singly, since a digest does not have the words."""
MOST_WORDS = 30
AGAIN_SECONDS = 30.0
OWNER_WINDOW = timedelta(hours=1)
"""How often an owner gets a digest of messages without another reader."""


@dataclass(slots=True)
class CallTimes:
    """When each rule was last journalled, in this process: another may have journalled it too."""

    _said: dict[tuple[str, ...], datetime] = field(default_factory=dict)

    def first(self, key: tuple[str, ...], now: datetime) -> bool:
        last = self._said.get(key)
        if last is not None and abs((now - last).total_seconds()) < AGAIN_SECONDS:
            return False
        self._said[key] = now
        return True


@dataclass(slots=True)
class Flood:
    """How many notices each person was sent in this window: the first few are sent singly, the rest in one digest.

    Each process counts for itself. The count only chooses between a notice and a digest, and the digest's id is the
    same in every process. So nothing is lost by a restart, and nobody gets two digests of one window.
    """

    singly: int = 3
    window: timedelta = timedelta(minutes=10)
    _start: float = 0
    _sent: dict[str, int] = field(default_factory=dict)

    def since(self, now: datetime) -> datetime:
        return window_of(now, self.window.total_seconds())

    def takes(self, person: str, now: datetime, singly: int | None = None) -> bool:
        """Whether this one is sent singly; counts it. ``singly``: another number of them."""
        start = self.since(now).timestamp()
        if start != self._start:
            self._start = start
            self._sent.clear()
        sent = self._sent[person] = self._sent.get(person, 0) + 1
        return sent <= (self.singly if singly is None else singly)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """What one process knows of its notices. ``contact``: told of holds that nobody can decide; "" for none."""

    flood: Flood = field(default_factory=Flood)
    alarms: Alarms = field(default_factory=Alarms)
    called: CallTimes = field(default_factory=CallTimes)
    contact: str = ""

    def at(self, in_force: InForce, now: datetime) -> NoticesNow:
        return NoticesNow(self, in_force, now)

    def stream(self, over: Exceeded, now: datetime) -> tuple[list[Event], Intents]:
        """A stream is above its limits: the journal entry and its owner's notice, once a window."""
        event, one = self.alarms.first(over, now), over.watched
        if event is None:
            return [], ()
        owner = one.stream.owner or ""
        about = {"notice": "stream", "stream": one.stream.name, "limit": one.limit.count, "per_person": one.person,
                 "window_minutes": one.limit.window_seconds / 60, "at": utc_text(now)}  # fmt: skip
        person = "-person" if one.person else ""
        id = f"stream-{one.stream.name}{person}-{since_of(one, now):%Y%m%dT%H%M%S}-{_tag(owner)}"
        return [event], notice_to(id, owner, {**noticedata.NONE, **about})


@dataclass(frozen=True, slots=True)
class NoticesNow:
    """Chooses who gets notices now, under the policy in force. Each method returns intents for the commit of the event itself."""

    of: Notices
    in_force: InForce
    now: datetime

    def held(self, hold: Hold, gathered: Gathered) -> Intents:
        """The writer gets the reasons, the approvers are asked."""
        if hold.asks_writer:
            data = noticedata.held(hold, gathered) | noticedata.asked(hold) | {"notice": "confirm"}
            return self._to(hold.sender or "", data, _stem(hold, data), hold.hold_id, role="sender", alone=True)
        return (
            *self._sender(hold, noticedata.held(hold, gathered) | {"notice": "held"}),
            *self._ask(hold, self._approvers(hold), gathered),
            *self._stuck(hold),
        )

    def joined(self, before: Hold, grown: Hold | None, copy: Hold, gathered: Gathered) -> Intents:
        """A copy of a held message causes no notice, except to a writer and to approvers who are new to it."""
        if grown is None:
            return ()
        grown = replace(grown, copies=before.copies + 1)
        known = () if before.asks_writer else self._approvers(before)
        new = sorted(self._besides(grown, *known)) if not grown.asks_writer else []
        told: Intents = ()
        for writer in grown.told[len(before.told) :]:
            data = noticedata.held(grown, gathered) | noticedata.of_copy(copy) | {"notice": "held"}
            told = self._to(writer, data, f"{grown.hold_id}-held-{_tag(writer)}", grown.hold_id, role="sender")
        if grown.asks_writer:
            return told
        if before.asks_writer:
            told = (*told, *self._not_any_more(grown))
        return (*told, *self._ask(grown, new, gathered), *self._stuck(grown))

    def anew(self, hold: Hold, person: str) -> Intents:
        """To somebody who answered a notice from before the message changed: what they are asked now, once for each
        change."""
        since = f"-{binding_digest(hold)[:8]}"
        if hold.asks_writer:
            return self._asked_again(hold, person, since)
        same = self.in_force.groups.person
        if hold.state is not State.WAITING or same(person) not in map(same, self._unvoted(hold)):
            return ()
        return self._each(hold, [person], self._reasoned(hold) | _asked(hold), alone=since)

    def _asked_again(self, hold: Hold, person: str, suffix: str, **more: Any) -> Intents:
        """To its writer, who is still asked to confirm it."""
        data = self._reasoned(hold) | noticedata.asked(hold) | {"notice": "confirm", **more}
        return self._to(person, data, f"{_stem(hold, data)}{suffix}", hold.hold_id, role="sender", alone=True)

    def unconfirmed(self, hold: Hold) -> Intents:
        """Its writer has not confirmed it in time: they are told that others decide now, and the approvers are asked."""
        data = self._waiting(hold) | {"notice": "reminder", "percent": 0, "unconfirmed": True}
        return (
            *self._not_any_more(hold),
            *self._each(hold, self._approvers(hold), data, alone="-unconfirmed"),
            *self._stuck(hold),
        )

    def _not_any_more(self, hold: Hold) -> Intents:
        """To its writer, who was asked: others decide now."""
        data = self._reasoned(hold) | {"notice": "held"}
        return self._to(hold.sender or "", data, f"{_stem(hold, data)}-now", hold.hold_id, role="sender", alone=True)

    def _stuck(self, hold: Hold) -> Intents:
        """Only its writer could decide, or everybody who could is away: the contact is told at once instead of after an
        hour. In a flood only the first few are reported, since one remedy helps all."""
        if not self.of.contact or not out_of_reach(hold, self.in_force.groups, self.now):
            return ()
        if not self.of.flood.takes(f"contact {self.of.contact}", self.now):
            return ()
        away = not out_of_reach(hold, self.in_force.groups)
        data = self._waiting(hold) | {"notice": "escalation", "contact": True, "away": away, "decides": ""}
        return self._each(hold, (self.of.contact,), data, alone="-nobody")

    def _ask(self, hold: Hold, people: Sequence[str], gathered: Gathered) -> Intents:
        """Each sees as much of the text as the policy allows them."""
        blind = [p for p in people if self.in_force.preview(hold.lists, p, self.now) == "reasons"]
        excerpt = gathered.reading.excerpt if isinstance(gathered.reading, Reading) else ""
        asked = noticedata.held(hold, gathered) | _asked(hold, excerpt, _covers(hold, gathered))
        quoted = {"reasons": noticedata.reasons(hold, self.in_force, readable=True)}
        less = {"excerpt": "", "marks": [*dict.fromkeys(veiled(mark, hold.subject) for mark in asked["marks"])]}
        return (
            *self._each(hold, [p for p in people if p not in blind], asked | quoted),
            *self._each(hold, blind, asked | less),
        )

    def said(self, hold: Hold, kind: str, said: Mapping[str, Any], id: str) -> Intents:
        """A question to its writer, or the writer's answer or plea to the approvers. ``said``: ``by`` and ``comment``;
        for an answer also ``question`` and ``asked_by``."""
        asked = {"question": "", "asked_by": ""} if kind == "answer" else {}
        data = self._waiting(hold) | asked | {"notice": kind, "said_at": utc_text(self.now), **said}
        if kind in ("answer", "plea"):
            return self._each(hold, self._approvers(hold), data, suffix=f"-{id}")
        return self._to(hold.sender or "", data, f"{hold.hold_id}-{kind}-{id}", hold.hold_id, role="sender")

    def rejected(self, verdict: Verdict, gathered: Gathered) -> Intents:
        """An internal writer gets more than the SMTP reply, if the rule has ``explain``; else nobody gets a notice.
        Without a writer who can be told, the owners are."""
        enforced = [h for h in verdict.hits if h.mode is Mode.ENFORCE and h.action is Action.REJECT]
        told, transaction = gathered.sender.told, gathered.transaction
        if told is None:
            return self._owners(sorted(gathered.facts.lists), transaction.id)
        if not any(h.explain for h in enforced):
            return ()
        data = noticedata.rejected(enforced, gathered, self.now)
        return self._to(told, data, f"{transaction.id}-rejected", None, role="sender")

    def decided(self, hold: Hold, outcome: str, by: str | None, comment: str) -> Intents:
        """The writer gets the outcome; the other approvers learn that it is decided."""
        data = noticedata.about(hold, self.in_force) | _outcome(outcome, by, comment, self.now)
        if outcome == "approved":
            data["voters"] = [vote.approver for vote in standing_votes(hold) if vote.choice is Choice.APPROVE]
            stages = effects.stages(hold, self.in_force)
            data["stages"] = stages.sentence if stages is not None else ""
        others = self._besides(hold, by) if not hold.asks_writer else set()
        return (*self._sender(hold, data), *self._each(hold, sorted(others), data))

    def taken_back(
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
        """Everybody who was told of the approval is told that it is revoked, regardless of the flood limit.
        ``outcome``: rejected, withdrawn or reopened; stopped, if somebody had it; revoked, of a test; or lapsed, if it
        lost its quorum before it took effect. Of those who decide, the ones whose vote on ``hold`` stands are not asked again. ``confirmed``: its
        writer had let it go alone."""
        data = self._waiting(hold) | _outcome(outcome, by, comment, self.now)
        data |= {
            "back": outgoing.back,
            "gone": outgoing.gone + outgoing.doubt,
            "has": sending.stopped.sent,
            "doubt": sending.stopped.doubted,
            "left": sending.stopped.failed,
            "confirmed": confirmed,
        }
        others = self._besides(hold, by)
        asked = others.intersection(self._unvoted(hold)) if outcome in ("reopened", "lapsed") else set()
        return (
            *self._sender(hold, data, alone=BACK),
            *self._each(hold, sorted(asked), data | {"asked": True}, alone=BACK),
            *self._each(hold, sorted(others - asked), data | {"asked": False}, alone=BACK),
        )

    def expired(self, hold: Hold) -> Intents:
        data = noticedata.about(hold, self.in_force) | {
            "notice": "expired",
            "held_at": utc_text(hold.held_at),
            "expired_at": utc_text(self.now),
            "deciders": noticedata.deciders(hold, self.in_force, self.now),
            "unconfirmed": hold.question is not None and hold.question.expires,
        }
        return self._sender(hold, data)

    def reminder(self, hold: Hold, percent: int, *, longer: bool = False) -> Intents:
        """To those who have not voted yet; or to its writer, while only the writer is asked. ``longer``: it waits longer than
        its writers were told."""
        if hold.asks_writer:
            return self._asked_again(hold, hold.sender or "", f"-{percent}", percent=percent)
        data = self._waiting(hold) | {"notice": "reminder", "percent": percent}
        told = self._reasoned(hold) | {"notice": "held", "longer": True}
        return (
            *(self._sender(hold, told, alone="-longer") if longer else ()),
            *self._each(hold, self._unvoted(hold), data, suffix=str(percent)),
        )

    def apart(self, hold: Hold, lead: Hold, why: str) -> Intents:
        """To the approvers and its writers. ``why`` it does not follow ``lead``: "differs", a copy that the decision
        does not cover; "ended", since the approval ended; or "later", a letter of a sender that came after those that
        were decided on."""
        data = self._waiting(hold) | {"notice": "reminder", "percent": 0, why: True, "confirmed": lead.confirmed}
        return (
            *self._sender(hold, self._reasoned(hold) | {"notice": "held", "apart": why}, alone=f"-{why}"),
            *self._each(hold, self._approvers(hold), data, alone=f"-{why}"),
        )

    def stages(self, hold: Hold, mailing: Mailing, progress: Progress) -> Intents:
        """The stages of its mailing wait for a person: to those who decide on it, else to the contact, and to its writer.
        None if they were told of a few mailings in this window."""
        people = self._approvers(hold) or [self.of.contact]
        if not self.of.flood.takes(f"stages {people}", self.now):
            return ()
        data = self._waiting(hold) | {"notice": "stages", "mailing": mailing.mailing_id, "cause": progress.why}
        data |= {"stopped": progress.at is At.STOPPED, "since": utc_text(progress.since)}
        data |= {"has": mailing.people.at_least, "waits": mailing.people.held + mailing.people.deferred}
        alone = f"-{progress.since:%Y%m%dT%H%M%S%f}"
        return (*self._sender(hold, data, alone=alone), *self._each(hold, people, data, alone=alone))

    def doubt(self, hold: Hold, people: int, since: datetime) -> Intents:
        """Whether a release to a list address was sent is unknown: the approvers are asked, and the contact is told,
        regardless of the flood limit. ``people``: how many may have it; ``since``: when the question began."""
        data = self._waiting(hold) | {"notice": "doubt", "people": people}
        data |= {"doubt_since": utc_text(since), "again": self.now > since}
        suffix = f"{self.now:%Y%m%dT%H%M%S}"
        asked, same = self._approvers(hold), self.in_force.groups.person
        contact = [self.of.contact] if self.of.contact and same(self.of.contact) not in map(same, asked) else []
        return (
            *self._each(hold, asked, data | {"contact": False}, suffix=suffix, alone="-asked"),
            *self._each(hold, contact, data | {"contact": True}, suffix=suffix, alone="-contact"),
        )

    def escalation(self, hold: Hold) -> Intents:
        """No answer for an hour: the owners of its lists are told, and the out-of-hours approvers."""
        data = self._waiting(hold) | {"notice": "escalation", "contact": False, "away": False}
        same, told = self.in_force.groups.person, noticedata.escalated_to(hold, self.in_force)
        asked = {same(one): one for one in self._approvers(hold)}
        spare = set(map(same, noticedata.out_of_hours(hold, self.in_force))) - asked.keys()
        owners = told.keys() - asked.keys() - spare
        later, never = ([told[who] for who in told if who in some] for some in (spare, owners))
        return (
            *self._each(hold, [asked[who] for who in told if who in asked], data | {"decides": "now"}),
            *self._each(hold, later, data | {"decides": "out-of-hours"}, role="owner"),
            *self._each(hold, never, data | {"decides": ""}, role="owner"),
            *self._stuck(hold),
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
        """To an approver whose vote by mail was counted, or ``refused``. One mail for each notice ``tag`` and reason
        ``word``, however many answers come."""
        data = noticedata.about(hold, self.in_force) | {
            "notice": "voted",
            "writer": hold.asks_writer,
            "choice": choice,
            "proof": proof,
            "refused": refused,
            "said_at": utc_text(self.now),
        }
        id = "-".join(filter(None, (hold.hold_id, "voted", tag, word)))
        return self._to(person, data, id, hold.hold_id, role="approver", alone=True)

    def _approvers(self, hold: Hold) -> list[str]:
        """Each person once, at the first of their addresses."""
        same, everybody = self.in_force.groups.person, noticedata.approvers(hold, self.in_force, self.now)
        return sorted({same(one): one for one in reversed(everybody)}.values())

    def _besides(self, hold: Hold, *people: str | None) -> set[str]:
        """The approvers but these people, under any address."""
        same = self.in_force.groups.person
        known = set(map(same, filter(None, people)))
        return {one for one in self._approvers(hold) if same(one) not in known}

    def _unvoted(self, hold: Hold) -> list[str]:
        groups = self.in_force.groups
        voted = have_voted(hold, groups)
        return [a for a in self._approvers(hold) if groups.person(a) not in voted]

    def _waiting(self, hold: Hold) -> dict[str, Any]:
        return noticedata.waiting(hold, self.in_force, self.now)

    def _reasoned(self, hold: Hold) -> dict[str, Any]:
        """The same with its reasons, when its text is not at hand."""
        return self._waiting(hold) | {"reasons": noticedata.reasons(hold, self.in_force), "marks": [], "more_marks": 0}

    def _sender(self, hold: Hold, data: Mapping[str, Any], *, alone: str = "") -> Intents:
        """``alone``: it is sent singly, under an id of its own. An outcome may be the first that its writer reads of the hold, so it
        has the reasons too."""
        if hold.sender is None and not hold.told:
            return self._owners(hold.lists, hold.hold_id)
        stem = _stem(hold, data) + alone
        data = {"reasons": noticedata.reasons(hold, self.in_force), **data, "writer": True}
        told = [(hold.sender, stem, data)] if hold.sender else []
        told += [(one, f"{stem}-{_tag(one)}", data | {"copy_by": one}) for one in hold.told if one != hold.sender]
        intents = (self._to(one, own, id, hold.hold_id, role="sender", alone=bool(alone)) for one, id, own in told)
        return tuple(chain.from_iterable(intents))

    def _each(
        self,
        hold: Hold,
        people: Sequence[str],
        data: Mapping[str, Any],
        *,
        suffix: str = "",
        alone: str = "",
        role: str = "approver",
    ) -> Intents:
        """A deputy's notice names the absent person."""
        stem = f"{_stem(hold, data)}{suffix}{alone}"
        if data["notice"] in _ASKING or data.get("asked"):
            data = {**data, **noticedata.bound(hold, self.in_force)}
        own = {one: {**data, **noticedata.in_place(hold, one, self.in_force, self.now)} for one in people}
        intents = (
            self._to(one, data, f"{stem}-{_tag(one)}", hold.hold_id, role=role, alone=bool(alone))
            for one, data in own.items()
        )
        return tuple(chain.from_iterable(intents))

    def _to(
        self,
        person: str,
        data: Mapping[str, Any],
        intent_id: str,
        hold_id: str | None,
        *,
        role: str,
        alone: bool = False,
    ) -> Intents:
        """One notice; or, once this person has had a few in this window, its one digest, unless it is sent alone."""
        words = data["notice"] in _WORDS
        key = f"{'words to ' if words else ''}{role} {person}"
        if alone or self.of.flood.takes(key, self.now, MOST_WORDS if words else None):
            return notice_to(intent_id, person, data, hold_id=hold_id)
        since = self.of.flood.since(self.now)
        return digest(person, {"notice": "digest", "role": role}, since, since + self.of.flood.window)

    def _owners(self, lists: Iterable[str], first: str) -> Intents:
        """Messages without another reader: once an hour, in a digest to the owner of each list that they touch.
        ``first``: the first transaction, from which the journal is searched for rejections."""
        since, known = window_of(self.now, OWNER_WINDOW.total_seconds()), self.in_force.registry.lists
        about = {"notice": "owner-digest", "first": first}
        intents = (
            digest(info.owner, about | {"list": info.called, "list_name": name}, since, since + OWNER_WINDOW)
            for name in lists
            if (info := known.get(name)) is not None and info.owner
        )
        return tuple(chain.from_iterable(intents))


def digest(person: str, data: Mapping[str, Any], since: datetime, until: datetime) -> Intents:
    """The one notice of a window, sent at its end."""
    kind = "-".join(filter(None, (data["notice"], data.get("role"), data.get("list_name"))))
    window = {"since": utc_text(since), "until": utc_text(until), "person": person}
    about = {**noticedata.NONE, **data, **window}
    return notice_to(f"{kind}-{since:%Y%m%dT%H%M}-{_tag(person)}", person, about, not_before=until)


def _asked(hold: Hold, excerpt: str = "", covers: Sequence[Phrase] = ()) -> dict[str, Any]:
    shown = [str(a) for a in hold.envelope.addresses[:MAX_SHOWN]]
    asked = {"notice": "approve", "recipients_shown": shown, "senders": sorted(hold.senders)}
    return asked | {"excerpt": excerpt, "covers": list(covers)}


def _covers(hold: Hold, gathered: Gathered) -> list[Phrase]:
    """The coverage of an approval before there are copies, and in which stages it is sent."""
    learned = effects.learned([(gathered.shown, hold.author, hold.proofs)], gathered.in_force.slots)
    stages = effects.stages(hold, gathered.in_force)
    return [*coverage.sentences(coverage.of_hold(hold, learned)), *([stages.sentence] if stages is not None else [])]


def deputy_waits(absence: Absence, groups: Sequence[str], admins: Iterable[str]) -> Intents:
    """To each admin: a deputy decides in ``groups`` only once one of them agrees. One mail for the same days and deputy."""
    about = {
        **noticedata.NONE,
        "notice": "deputy",
        "person": absence.person,
        "deputy": absence.deputy,
        "first": absence.since.isoformat(),
        "last": absence.until.isoformat(),
        "groups": list(groups),
    }
    stem = f"deputy-{_tag(absence.person)}-{absence.since:%Y%m%d}-{absence.until:%Y%m%d}-{_tag(absence.deputy)}"
    return tuple(chain.from_iterable(notice_to(f"{stem}-{_tag(one)}", one, about) for one in admins))


def gone(hold: Hold, in_force: InForce, now: datetime) -> Intents:
    """A message approved during a freeze has been sent: its writers knew that it waits. Not for copies."""
    if not hold.held_up or hold.primary:
        return ()
    data = noticedata.about(hold, in_force) | _outcome("released", None, "", now) | {"writer": True}
    own = {hold.sender: data} if hold.sender else {}
    own |= {one: data | {"copy_by": one} for one in hold.told if one not in own}
    intents = (notice_to(f"{hold.hold_id}-gone-{_tag(one)}", one, own[one], hold_id=hold.hold_id) for one in own)
    return tuple(chain.from_iterable(intents))


def _outcome(outcome: str, by: str | None, comment: str, now: datetime) -> dict[str, Any]:
    of: dict[str, Any] = {"outcome": outcome, "by": by, "comment": comment, "voters": [], "stages": ""}
    return {"notice": "decided", "decided_at": utc_text(now), **of}


def _stem(hold: Hold, data: Mapping[str, Any]) -> str:
    """The beginning of the ids of its notices of a kind. A hold that waits again, or is approved again, gets new ids."""
    again = f"-{hold.reopened_at:%Y%m%dT%H%M%S}" if hold.reopened_at is not None else ""
    undone = f"-{hold.undone}" if hold.undone else ""
    return f"{hold.hold_id}{again}{undone}-{data['notice']}"


def notice_to(
    intent_id: str,
    person: str,
    data: Mapping[str, Any],
    *,
    hold_id: str | None = None,
    not_before: datetime | None = None,
) -> Intents:
    """Nothing for a person whose address cannot be read."""
    if (to := Address.parse_any(person)) is None:
        return ()
    made = Intent(
        intent_id=intent_id,
        kind=IntentKind.NOTICE,
        reverse_path=None,
        recipients=(Recipient(address=to, notify="NEVER"),),
        hold_id=hold_id,
        data=data,
        not_before=not_before,
    )
    return (made,)


def _tag(person: str) -> str:
    """Short, and the same in every process; the intent itself has the address."""
    return hashlib.sha256(person.lower().encode()).hexdigest()[:10]


def alarms_of(verdict: Verdict, gathered: Gathered) -> list[Rule]:
    """The rules with ``then: alarm`` that hit."""
    hits = {hit.rule for hit in verdict.hits}
    return [rule for rule in gathered.in_force.rules.alarms if rule.rule_id in hits]


def calling(
    verdict: Verdict, gathered: Gathered, questions: Questions, live: Live, called: CallTimes
) -> Iterator[Event]:
    """An entry for each rule with ``then: alarm`` that hit, at most one in half a minute: for each list that it is
    about, the number of its people that were counted."""
    for rule in alarms_of(verdict, gathered):
        lists = _lists(rule, questions, live, gathered)
        if called.first((rule.rule_id, *sorted(lists)), live.now):
            data = {"rule": rule.rule_id, "lists": lists}
            private = {"from": (gathered.sender.claimed,)} if gathered.sender.claimed else {}
            yield Event(kind=Kind.ALARM, id=gathered.transaction.id, at=live.now, data=data, private=private)


def _lists(rule: Rule, questions: Questions, live: Live, gathered: Gathered) -> dict[str, int]:
    found: dict[str, int] = {}
    for condition in rule.when:
        for ask in questions.get(condition.slot, ()) if condition.fact.by_list else ():
            if condition.test(counted.answered([ask], live, gathered.facts)) is not NO:
                name = list_of(ask.key)
                found[name] = max(found.get(name, 0), live.counts.get(ask, 0))
    return found


def list_events(report: Report, by: str = "") -> Iterator[Event]:
    """The journal entry of a sync; none if nothing has changed. ``by``: the person who asked for it."""
    if not report.news:
        return
    data = {"people": report.people, "version": report.version, "news": sorted(n.value for n in report.news),
            "problem": report.problem or None, "failing_since": _z(report.failing_since), "stale": report.stale,
            "rows": report.rows, "bad_rows": report.bad, "source": report.source}  # fmt: skip
    if report.before:
        data |= {"before": report.before, "added": report.added, "removed": report.removed}
    yield Event(kind=Kind.LIST, id=report.list, at=report.at, data=data, private={"actor": (by,)} if by else {})


def list_notices(report: Report, in_force: InForce) -> Iterator[Intent]:
    """The notices of a sync, to the owner of the list, or without one to its approvers."""
    since = report.failing_since or report.ended
    if since is None:
        return
    for news, notice in _NOTICES:
        if news in report.news:
            for person in list_readers(report.list, in_force):
                yield from _list_notice(notice, report, since, person, in_force)
            return


def list_readers(name: str, in_force: InForce) -> list[str]:
    """The owner of a list, or without one its approvers; in order."""
    info = in_force.registry.lists.get(name)
    if info is not None and info.owner:
        return [info.owner]
    quorums = in_force.rules.quorum((name,) if info is not None else ())
    return sorted({person for quorum in quorums for group in quorum.groups for person in in_force.groups.of(group)})


# of several news of one sync the first is sent; list-failed also says whether it is stale
_NOTICES = ((News.FAILED, "list-failed"), (News.STALE, "list-stale"), (News.WELL, "list-well"))


def _list_notice(notice: str, report: Report, since: datetime, person: str, in_force: InForce) -> Intents:
    info = in_force.registry.lists.get(report.list)
    tag = hashlib.sha256(f"{report.list}\0{person.lower()}".encode()).hexdigest()[:16]
    data: dict[str, Any] = {
        **noticedata.NONE, "notice": notice,
        "list": (info.title if info is not None else "") or report.list, "list_name": report.list,
        "since": _z(since), "person": person, "problem": report.problem, "stale": report.stale,
        "size": report.people if report.version else None, "checked_at": _z(report.checked_at),
    }  # fmt: skip
    return notice_to(f"{notice}-{since.astimezone(UTC):%Y%m%dT%H%M%S}-{tag}", person, data)


def _z(at: datetime | None) -> str | None:
    return utc_text(at) if at is not None else None
