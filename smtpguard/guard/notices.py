"""Who is told what, and when: from a hold or a decision to NOTICE intents. Rendering is mail.notice's, when it is sent.

Never here: words for people, templates, sending; nor anybody who is told because a message says so. A notice goes to the
authenticated user's mailbox, else to an internal From: never to the reverse-path (a VERP handler would unsubscribe the
customer), never to the original recipients, never to outsiders. What nobody would hear of goes to the lists' owners.

A NOTICE intent has ``reverse_path=None``, one recipient, ``hold_id`` where there is a hold, and this ``data`` (JSON; times
are ISO 8601 UTC with "Z"; what is absent is null):

==================  ==================================================================================================
every notice        ``notice``: its kind; ``hold_id``; ``subject``, ``message_id``, ``from`` of the message it is about
                    (as they came: escape them); ``language`` of that message ("" unknown); ``recipients``: how many
                    RCPTs; ``reach``: how many people, ``reach_at_least``: or more; ``lists``: titles that may be named to
                    this reader
held, approve       ``held_at``, ``expires_at``; ``reasons``: [{``rule``, ``description``, ``descriptions``:
                    {language: text}, ``sentences``: [str]}]; ``marks``: [str], phrases found in the message;
                    ``deciders``: [{``each``: int, ``groups``: [{``group``, ``people``: [address]}], ``out_of_hours``:
                    the same or null}]; ``part``: true where only the customers' part is held
approve             and ``excerpt``: the text's beginning, ``recipients_shown``: the first addresses, ``senders``: [address]
decided             ``outcome``: approved | rejected | withdrawn; ``by``: address or null; ``comment``; ``decided_at``
expired             ``held_at``, ``expired_at``
reminder            to approvers: ``held_at``, ``expires_at``, ``percent``: 25 | 50 | 90, ``deciders``
escalation          to owners and out-of-hours approvers: ``held_at``, ``expires_at``, ``deciders``
rejected            to an internal sender, where the rule has ``explain``: ``at``, ``reasons``, ``marks``
question            to its writer: ``by``, ``comment``, ``said_at``; ``held_at``, ``expires_at``, ``deciders``
answer              to approvers: the same, from its writer
digest              ``role``: sender | approver; ``since``, ``until``, ``person``: whose it is
stream              to its owner: ``stream``: its name; ``limit``, ``window_minutes``, ``per_person``; ``at``
owner-digest        ``list``: its title, ``list_name``; ``since``, ``until``, ``person``, ``first``
==================  ==================================================================================================

To the writer's held and question notices the renderer adds ``mine``, the signed link's text, where the console has a url.
A digest has no subject, message_id or hold_id of its own (null). ``digests.fill`` adds, before rendering, ``total``: int,
``states``: {state: int}, and ``messages``: [{``hold_id``, ``subject``, ``from``, ``state``, ``held_at``, ``expires_at``,
``reach``, ``reach_at_least``, ``lists``}], at most 50 of them, newest first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from smtpguard.audit.event import Event
from smtpguard.guard.gather import Gathering
from smtpguard.guard.inforce import InForce
from smtpguard.guard.streams import Alarms, Exceeded, since_of
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.envelope import Recipient
from smtpguard.policy.admission import Intent, IntentKind
from smtpguard.policy.approval import Hold
from smtpguard.policy.verdict import Action, Hit, Mode, Quorum, Scope, Verdict
from smtpguard.reading.looks import Reading
from smtpguard.reading.marks import veiled

MAX_MARKS = 12
MAX_SHOWN = 20
# What a notice says of the message that it is about, where it is about none.
_BLANK: Mapping[str, Any] = {"hold_id": None, "subject": None, "message_id": None, "from": None, "language": "", "recipients": None,
                             "reach": None, "reach_at_least": None, "lists": []}  # fmt: skip


@dataclass(slots=True)
class Flood:
    """How many notices each person was sent in this window: the first few go by themselves, the rest in one digest.

    Kept by each process for itself. It only chooses between a notice and a digest, and the digest's id is the same wherever
    it is written, so nothing is lost by what is forgotten here, and nobody gets two digests of one window.
    """

    singly: int = 3
    window: timedelta = timedelta(minutes=10)
    _start: float = 0
    _sent: dict[str, int] = field(default_factory=dict)

    def since(self, now: datetime) -> datetime:
        seconds = self.window.total_seconds()
        return datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)

    def takes(self, person: str, now: datetime) -> bool:
        """Whether this one goes by itself; counts it."""
        start = self.since(now).timestamp()
        if start != self._start:
            self._start = start
            self._sent.clear()
        sent = self._sent[person] = self._sent.get(person, 0) + 1
        return sent <= self.singly


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """Decides who is told. ``owner_window``: how often an owner hears of what nobody else would.

    Each method gives intents for the commit in which the thing itself is written.
    """

    flood: Flood = field(default_factory=Flood)
    owner_window: timedelta = timedelta(hours=1)
    alarms: Alarms = field(default_factory=Alarms)

    def held(self, hold: Hold, gathering: Gathering) -> tuple[Intent, ...]:
        """The writer hears why, the approvers are asked."""
        in_force, now = gathering.in_force, hold.held_at
        return (
            *self._sender(hold, self._why(hold, gathering) | {"notice": "held"}, in_force, now),
            *self._ask(hold, approvers(hold, in_force, now), gathering, now),
        )

    def joined(self, before: Hold, grown: Hold | None, copy: Hold, gathering: Gathering) -> tuple[Intent, ...]:
        """A copy of what is held already is told of to nobody, but to a writer and to approvers who are new to it."""
        if grown is None:
            return ()
        in_force, now = gathering.in_force, copy.held_at
        grown = replace(grown, copies=before.copies + 1)
        new = sorted(set(approvers(grown, in_force, now)) - set(approvers(before, in_force, now)))
        told: tuple[Intent, ...] = ()
        for writer in grown.told[len(before.told) :]:
            data = self._why(grown, gathering) | {"notice": "held"}
            told = self._to(writer, data, f"{grown.hold_id}-held-{_tag(writer)}", grown.hold_id, now, role="sender")
        return (*told, *self._ask(grown, new, gathering, now))

    def _ask(self, hold: Hold, people: Sequence[str], gathering: Gathering, now: datetime) -> tuple[Intent, ...]:
        """Each sees as much of the text as the policy lets them."""
        blind = [p for p in people if gathering.in_force.preview(hold.lists, p) == "reasons"]
        asked = self._why(hold, gathering) | {
            "notice": "approve",
            "excerpt": gathering.reading.excerpt if isinstance(gathering.reading, Reading) else "",
            "recipients_shown": [str(a) for a in hold.envelope.addresses[:MAX_SHOWN]],
            "senders": sorted(hold.senders),
        }
        return (
            *self._each(hold, [p for p in people if p not in blind], asked, now),
            *self._each(
                hold, blind, asked | {"excerpt": "", "marks": [*dict.fromkeys(map(veiled, asked["marks"]))]}, now
            ),
        )

    def _why(self, hold: Hold, gathering: Gathering) -> dict[str, Any]:
        """What writer and approvers are told alike."""
        in_force = gathering.in_force
        return self._about(hold, in_force) | {
            "held_at": _z(hold.held_at),
            "expires_at": _z(hold.expires_at),
            "reasons": reasons(hold.verdict, in_force),
            "marks": _marks(gathering),
            "deciders": _deciders(hold, in_force),
            "part": hold.verdict.scope is Scope.CUSTOMERS and hold.envelope != gathering.transaction.envelope,
        }

    def said(
        self, hold: Hold, kind: str, said: Mapping[str, Any], id: str, in_force: InForce, now: datetime
    ) -> tuple[Intent, ...]:
        """A question to its writer, or the writer's answer to those who decide. ``said``: ``by`` and ``comment``."""
        data = self._waiting(hold, in_force, now) | {"notice": kind, "said_at": _z(now), **said}
        if kind == "answer":
            return self._each(hold, approvers(hold, in_force, now), data, now, suffix=f"-{id}")
        return self._to(hold.sender or "", data, f"{hold.hold_id}-{kind}-{id}", hold.hold_id, now, role="sender")

    def rejected(self, verdict: Verdict, gathering: Gathering, now: datetime) -> tuple[Intent, ...]:
        """An internal writer hears more than the reply says, where the rule has ``explain``; else nobody is told twice. What
        has no writer who could hear goes to the owners."""
        enforced = [h for h in verdict.hits if h.mode is Mode.ENFORCE and h.action is Action.REJECT]
        told, transaction = gathering.sender.told, gathering.transaction
        if told is None:
            return tuple(self._owners(sorted(gathering.facts.lists), transaction.id, gathering.in_force, now))
        if not any(h.explain for h in enforced):
            return ()
        header = transaction.message.header
        data = {
            "notice": "rejected",
            "hold_id": None,
            "subject": header.get("Subject") or "",
            "message_id": header.get("Message-ID") or "",
            "from": header.get("From") or "",
            "language": gathering.reading.language if isinstance(gathering.reading, Reading) else "",
            "recipients": gathering.everyone.total,
            "reach": int(gathering.everyone.reach.low),
            "reach_at_least": gathering.everyone.reach.high > gathering.everyone.reach.low,
            "lists": [gathering.in_force.registry.lists[n].title or n for n in gathering.everyone.addressed],
            "at": _z(now),
            "reasons": _sentences(enforced, gathering.in_force),
            "marks": _marks(gathering),
        }
        return self._to(told, data, f"{transaction.id}-rejected", None, now, role="sender")

    def decided(
        self, hold: Hold, outcome: str, by: str | None, comment: str, in_force: InForce, now: datetime
    ) -> tuple[Intent, ...]:
        """The writer hears the outcome; the other approvers need not look at it any more."""
        data = self._about(hold, in_force) | {
            "notice": "decided",
            "outcome": outcome,
            "by": by,
            "comment": comment,
            "decided_at": _z(now),
        }
        others = sorted(set(approvers(hold, in_force, now)) - {by})
        return (*self._sender(hold, data, in_force, now), *self._each(hold, others, data, now))

    def expired(self, hold: Hold, in_force: InForce, now: datetime) -> tuple[Intent, ...]:
        data = self._about(hold, in_force) | {
            "notice": "expired",
            "held_at": _z(hold.held_at),
            "expired_at": _z(now),
        }
        return self._sender(hold, data, in_force, now)

    def reminder(self, hold: Hold, percent: int, in_force: InForce, now: datetime) -> tuple[Intent, ...]:
        """To those who have not voted yet."""
        voted = {v.approver for v in hold.votes}
        waiting = [a for a in approvers(hold, in_force, now) if a not in voted]
        data = self._waiting(hold, in_force, now) | {"notice": "reminder", "percent": percent}
        return self._each(hold, waiting, data, now, suffix=str(percent))

    def escalation(self, hold: Hold, in_force: InForce, now: datetime) -> tuple[Intent, ...]:
        """Nobody has answered for an hour: the owners of its lists hear of it, and whoever stands in out of hours."""
        owners = {o for n in hold.lists if n in in_force.registry.lists and (o := in_force.registry.lists[n].owner)}
        spare = {
            person
            for q in hold.verdict.quorum
            if q.out_of_hours is not None
            for group in q.out_of_hours.groups
            for person in in_force.people(group)
        }
        told = sorted((owners | spare) - hold.senders)
        return self._each(hold, told, self._waiting(hold, in_force, now) | {"notice": "escalation"}, now)

    def stream(self, over: Exceeded, now: datetime) -> tuple[list[Event], tuple[Intent, ...]]:
        """A stream is above its limits: the journal's entry and its owner's notice, once a window."""
        event, one = self.alarms.first(over, now), over.watched
        if event is None:
            return [], ()
        recipient = _recipient(one.stream.owner) if one.stream.owner else None
        if recipient is None:
            return [event], ()
        about = {"notice": "stream", "stream": one.stream.name, "limit": one.limit.count, "per_person": one.person,
                 "window_minutes": one.limit.window_seconds / 60, "at": _z(now)}  # fmt: skip
        person = "-person" if one.person else ""
        id = f"stream-{one.stream.name}{person}-{since_of(one, now):%Y%m%dT%H%M%S}-{_tag(one.stream.owner or '')}"
        return [event], (_intent(id, recipient, {**_BLANK, **about}),)

    def _about(self, hold: Hold, in_force: InForce) -> dict[str, Any]:
        return {
            "hold_id": hold.hold_id,
            "subject": hold.subject,
            "message_id": hold.message_id,
            "from": hold.sender or "",
            "language": hold.language,
            "recipients": len(hold.envelope.recipients),
            "reach": hold.reach,
            "reach_at_least": hold.reach_at_least,
            "lists": nameable(hold, in_force),
        }

    def _waiting(self, hold: Hold, in_force: InForce, now: datetime) -> dict[str, Any]:
        return self._about(hold, in_force) | {
            "held_at": _z(hold.held_at),
            "expires_at": _z(hold.expires_at),
            "deciders": _deciders(hold, in_force),
        }

    def _sender(self, hold: Hold, data: Mapping[str, Any], in_force: InForce, now: datetime) -> tuple[Intent, ...]:
        if hold.sender is not None or hold.told:
            stem = f"{hold.hold_id}-{data['notice']}"
            first = self._to(hold.sender, data, stem, hold.hold_id, now, role="sender") if hold.sender else ()
            others = (self._to(one, data, f"{stem}-{_tag(one)}", hold.hold_id, now, role="sender") for one in hold.told)
            return (*first, *(intent for some in others for intent in some))
        return tuple(self._owners(hold.lists, hold.hold_id, in_force, now))

    def _each(
        self, hold: Hold, people: Sequence[str], data: Mapping[str, Any], now: datetime, *, suffix: str = ""
    ) -> tuple[Intent, ...]:
        stem = f"{hold.hold_id}-{data['notice']}{suffix}"
        return tuple(
            intent
            for person in people
            for intent in self._to(person, data, f"{stem}-{_tag(person)}", hold.hold_id, now, role="approver")
        )

    def _to(
        self, person: str, data: Mapping[str, Any], intent_id: str, hold_id: str | None, now: datetime, *, role: str
    ) -> tuple[Intent, ...]:
        """One notice; or, once this person has had a few in this window, the one digest of the window."""
        recipient = _recipient(person)
        if recipient is None:
            return ()
        if self.flood.takes(f"{role} {person}", now):
            return (_intent(intent_id, recipient, data, hold_id=hold_id),)
        since = self.flood.since(now)
        return (self._digest(recipient, {"notice": "digest", "role": role}, since, since + self.flood.window),)

    def _owners(self, lists: Iterable[str], first: str, in_force: InForce, now: datetime) -> Iterable[Intent]:
        """What nobody would hear of: once an hour, in a digest to the owner of each list that it touches. ``first``: the
        transaction it begins with, from which the journal is looked through for what was rejected."""
        seconds = self.owner_window.total_seconds()
        since = datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
        for name in lists:
            info = in_force.registry.lists.get(name)
            recipient = _recipient(info.owner) if info is not None and info.owner else None
            if info is not None and recipient is not None:
                data = {"notice": "owner-digest", "list": info.title or name, "list_name": name, "first": first}
                yield self._digest(recipient, data, since, since + self.owner_window)

    def _digest(self, recipient: Recipient, data: Mapping[str, Any], since: datetime, until: datetime) -> Intent:
        kind = "-".join(filter(None, (data["notice"], data.get("role"), data.get("list_name"))))
        return _intent(
            f"{kind}-{since:%Y%m%dT%H%M}-{_tag(str(recipient.address))}",
            recipient,
            {**_BLANK, **data} | {"since": _z(since), "until": _z(until), "person": str(recipient.address)},
            not_before=until,
        )


def approvers(hold: Hold, in_force: InForce, now: datetime) -> list[str]:
    """Who is asked: the people of its quorums, out of hours those of that quorum as well; never its writer."""
    asked: set[str] = set()
    for quorum in hold.verdict.quorum:
        late = quorum.out_of_hours if not in_force.open_at(now) else None
        for q in (quorum, late):
            for group in q.groups if q is not None else ():
                asked |= in_force.people(group)
    return sorted(asked - hold.senders)


def nameable(hold: Hold, in_force: InForce) -> list[str]:
    """Titles of the lists that a notice may name: those whose address was written to. That a single person is on a list is
    nobody's business, least of all where the list is of a special category (GDPR Art. 9)."""
    found = (in_force.registry.list_at(a) for a in hold.envelope.addresses)
    return list(dict.fromkeys(info.title or info.name for info in found if info is not None))


def reasons(verdict: Verdict, in_force: InForce) -> list[dict[str, Any]]:
    """The rules that made it so, in sentences for people."""
    return _sentences([h for h in verdict.hits if h.mode is Mode.ENFORCE], in_force)


def _sentences(hits: Iterable[Hit], in_force: InForce) -> list[dict[str, Any]]:
    spoken = {rule.rule_id: rule.descriptions for rule in in_force.rules.rules}
    return [
        {
            "rule": h.rule,
            "description": h.description,
            "descriptions": dict(spoken.get(h.rule, {})),
            "sentences": list(dict.fromkeys(r.public for r in h.reasons if r.public)),
        }
        for h in hits
    ]


def _marks(gathering: Gathering) -> list[str]:
    evidence = gathering.facts.evidence
    found = (*evidence.get("message.looks", ()), *evidence.get("message.unsuitable_topics", ()))
    return list(found[:MAX_MARKS])


def _deciders(hold: Hold, in_force: InForce) -> list[dict[str, Any]]:
    """Whatever the hour is: a hold waits through nights and days, and its notice is read when it is read."""

    def said(quorum: Quorum) -> dict[str, Any]:
        return {
            "each": quorum.each,
            "groups": [{"group": g, "people": sorted(in_force.people(g) - hold.senders)} for g in quorum.groups],
            "out_of_hours": None if quorum.out_of_hours is None else said(quorum.out_of_hours),
        }

    return [said(quorum) for quorum in hold.verdict.quorum]


def _intent(
    intent_id: str,
    recipient: Recipient,
    data: Mapping[str, Any],
    *,
    hold_id: str | None = None,
    not_before: datetime | None = None,
) -> Intent:
    return Intent(
        intent_id=intent_id,
        kind=IntentKind.NOTICE,
        reverse_path=None,
        recipients=(recipient,),
        hold_id=hold_id,
        data=data,
        not_before=not_before,
    )


def _recipient(address: str) -> Recipient | None:
    try:
        return Recipient(address=Address.parse(address), notify="NEVER")
    except BadAddress:
        return None


def _tag(person: str) -> str:
    """Short, and the same wherever it is made; the intent itself holds the address anyway."""
    return hashlib.sha256(person.lower().encode()).hexdigest()[:10]


def _z(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
