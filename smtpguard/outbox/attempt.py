"""The result of one attempt for each recipient: sent, put off, failed, or in doubt; and the events and DSNs that follow. Pure.

The public data of an event names nobody. A relay's replies often do: without addresses they go into the private part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Hold, State
from smtpguard.journal.chain import utc_text
from smtpguard.journal.deliverystatus import EVENTS, WORDS, DeliveryEvent
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.persons import Person, as_journalled, behind, each_once, expands
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.reply import Reply, Unsendable, nameless
from smtpguard.notices import intents
from smtpguard.notices.dsn import Action
from smtpguard.outbox.model import LONGEST_ATTEMPT, NONE_YET, OF_CONTENT, AttemptResult, Intent, IntentKind, Lease

MAX_DOUBTS = 2
"""The most attempts in doubt: the relay may have the message, and one duplicate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The times of delivery.

    ``first``, ``longest``: the pauses between attempts. ``give_up``: how long a relay's 4xx is retried. ``tell_delay``: when the
    sender is told of a delay. ``recalled``: the pause after a freeze stopped an attempt. ``lease_seconds``: time for a
    connection, MAIL and RCPT. ``doubt``: the longest time of one attempt. The dot is not sent in its last ``reply``, the time in
    which a relay may answer the dot (RFC 5321 section 4.5.3.2.6). ``renderings``: the most attempts to render a notice.
    ``at_once``: the most entries in work. ``idle_seconds``: the pause without work.
    """

    first: timedelta = timedelta(minutes=1)
    longest: timedelta = timedelta(hours=1)
    give_up: timedelta = timedelta(hours=48)
    tell_delay: timedelta = timedelta(hours=4)
    recalled: timedelta = timedelta(seconds=15)
    doubt: timedelta = LONGEST_ATTEMPT
    reply: timedelta = timedelta(minutes=11)
    lease_seconds: int = 600
    renderings: int = 8
    at_once: int = 20
    idle_seconds: float = 0.5

    def again(self, attempts: int, jitter: float) -> timedelta:
        """Return the pause after ``attempts`` attempts. It doubles each time, give or take a fifth, so that retries spread
        out. ``jitter``: 0 to 1."""
        wait: timedelta = min(self.first * 2 ** min(attempts, 20), self.longest)
        return wait * (0.8 + 0.4 * jitter)


PACE = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A recipient to try. ``doubts``: the number of earlier attempts in doubt. ``asks``: it is a list's address; in doubt it is
    not retried, and people are asked."""

    recipient: Recipient
    doubts: int = 0
    asks: bool = False

    def begun(self, at: datetime) -> AttemptResult:
        """Return the mark before the dot: in doubt until it is settled."""
        return self._result(DeliveryEvent.BEGIN, "again" if self.doubts else "attempt", at, more=1)

    def lost(self, at: datetime, code: str) -> AttemptResult:
        """Return that the dot was sent, or may have been, and no answer came."""
        return self._result(DeliveryEvent.LOSE, code, at, more=1)

    def retry(self, code: str, at: datetime, reply: str = "") -> AttemptResult:
        """Return that the relay did not take it, and that it is tried again."""
        return replace(self._result(DeliveryEvent.PUT_OFF, code, at), reply=reply)

    def failed(self, why: str, code: str, reply: Reply | None = None) -> AttemptResult:
        """Return that the relay did not take it, and that it is not tried again. ``why``: refused | expired | unsendable | missing |
        obsolete. It becomes in-doubt if an earlier attempt is in doubt."""
        said = str(reply) if reply is not None else ""
        return replace(self._result(DeliveryEvent.REFUSE, code), why="in-doubt" if self.doubts else why, reply=said)

    def replied(self, reply: Reply, at: datetime, *, patient: bool, reports: bool) -> AttemptResult:
        """Return the result by a reply. ``patient``: a 4xx is retried, ``at`` that time. ``reports``: see mail.envelope.Answers."""
        if isinstance(reply, Unsendable):
            return replace(self.failed("unsendable", reply.text), status=reply.enhanced or "")
        code = f"{reply.code} {reply.enhanced or ''}".strip()
        if reply.positive:
            sent = self._result(DeliveryEvent.TAKE, code)
            return replace(sent, reply=str(reply), reports=reports, doubts=0)
        if reply.permanent:
            return self.failed("refused", code, reply)
        return self.retry(code, at, str(reply)) if patient else self.failed("expired", code, reply)

    def _result(self, event: DeliveryEvent, code: str, at: datetime | None = None, *, more: int = 0) -> AttemptResult:
        return AttemptResult(
            recipient=self.recipient,
            event=event,
            code=code,
            next_at=at,
            doubts=self.doubts + more,
            asks=self.asks and more > 0,
        )


def dues(lease: Lease, expands: Callable[[Recipient], bool]) -> list[Due]:
    """Return the recipients of a lease as dues. ``expands``: says whether a recipient is a list's address. Only a release asks
    people in doubt; a colleagues' part is retried.
    """
    asks = lease.intent.kind is IntentKind.RELEASE
    return [
        Due(recipient=r, doubts=n, asks=asks and expands(r))
        for r, n in zip(lease.recipients, lease.doubts, strict=True)
    ]


def release_ended(
    hold: Hold, intent_id: str, in_force: InForce, now: datetime
) -> tuple[tuple[Event, ...], tuple[Intent, ...]]:
    """Return the events and notices of a release that has ended. ``hold``: as it is then."""
    settled = hold.settled or NONE_YET
    data = {"intent": intent_id, **asdict(settled)}
    told = (
        intents.released_after_freeze(hold, in_force, now) if hold.state is State.RELEASED and not hold.stopped else ()
    )
    return (Event(kind=Kind.RELEASED, id=hold.hold_id, at=now, data=data),), told


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """The people behind each recipient of an attempt. ``then``: as the message came; ``now``: by the lists as the attempt begins.
    ``behind``: for recipients that expand now, what a verdict's entry says of them, with its ``crowds``."""

    then: dict[Recipient, Sequence[Person]]
    now: dict[Recipient, Sequence[Person]]
    behind: dict[Recipient, Any]
    crowds: Mapping[str, Any]

    def entry(self, several: Sequence[Recipient]) -> dict[str, Any]:
        """Return what the entry of a beginning attempt says of recipients; empty if none of them expands."""
        people = [self.behind.get(one) for one in several]
        return {"behind": {"people": people, "crowds": self.crowds}} if any(people) else {}

    def number(self, several: Iterable[Recipient]) -> int:
        """Return the number of people behind recipients now, each once."""
        return sum(one.weight for one in each_once(person for one in several for person in self.now.get(one, ())))

    def digests(self, recipient: Recipient) -> tuple[bytes, ...]:
        """Return the digests by which a mailing knows the people behind a recipient."""
        return tuple(one.digest for one in self.then[recipient])


NOBODY = Audience(then={}, now={}, behind={}, crowds={})
"""For notices and DSNs, whose people are not counted."""


def audience(hold: Hold, recipients: Sequence[Recipient], in_force: InForce) -> Audience:
    """Return the people behind recipients. A list without an index says nothing newer of a recipient that expanded as the message
    came; nor does a policy in which its address is no list any more."""
    registry, versions = in_force.registry, dict(hold.versions)
    counted = registry.classify(one.address for one in recipients)
    entry = as_journalled(counted)
    found = Audience(then={}, now={}, behind={}, crowds=entry.get("crowds", {}))
    for recipient, one, said in zip(recipients, counted.recipients, entry["people"], strict=True):
        then = hold.behind.get(str(recipient.address)) or tuple(behind(one, counted, registry, versions))
        now = tuple(behind(one, counted, registry))
        less = any(each.several for each in then) and any(each.unbounded for each in now)
        newer = expands(one) and not less
        found.then[recipient], found.now[recipient] = then, now if newer else then
        if newer:
            found.behind[recipient] = said
    return found


def events(
    lease: Lease,
    results: Sequence[AttemptResult],
    now: datetime,
    audience: Audience,
    *,
    told: bool,
) -> Iterable[Event]:
    """Yield an event for all recipients with the same result. ``told``: the sender gets a DSN."""
    intent = lease.intent
    of_content = intent.kind in OF_CONTENT
    for (word, code, why, doubt), group in groupby(sorted(results, key=_kind_of), key=_kind_of):
        several, event = list(group), EVENTS[word]
        data = {
            "intent": intent.intent_id,
            "attempt": lease.attempts + 1,
            "outcome": why if why == "obsolete" else word,
            "code": code,
            "recipients": len(several),
        }
        if intent.kind is IntentKind.PART:
            data["part"] = True
        if event is DeliveryEvent.REFUSE:
            data |= {"why": why, "dsn": told and any(r.recipient.wants_failure for r in several)}
        if not of_content:
            if event is DeliveryEvent.BEGIN:
                continue  # for notices and DSNs an attempt needs no entry
            kind, data["notice"] = Kind.NOTICE, intent.data.get("notice", "dsn")
        elif code == "again" or why == "in-doubt" or event is DeliveryEvent.LOSE:
            kind = Kind.IN_DOUBT
        else:
            kind = Kind.RELEASE
        if of_content:
            whom = [r.recipient for r in several]
            data["people"] = audience.number(whom)
            data |= audience.entry(whom) if event is DeliveryEvent.BEGIN else {}
        if of_content and event is DeliveryEvent.PUT_OFF:
            data["in_doubt"] = doubt  # an earlier attempt may have been accepted
        private = {"recipients": tuple(str(r.recipient.address) for r in several)}
        words = tuple(dict.fromkeys(nameless(r.reply, (r.recipient.address,))[:500] for r in several if r.reply))
        if words:
            private["comment"] = words
        yield Event(kind=kind, id=intent.hold_id or intent.intent_id, at=now, data=data, private=private)


def _kind_of(result: AttemptResult) -> tuple[str, str, str, bool]:
    return WORDS[result.event], result.code, result.why, result.doubts > 0


def reports(
    lease: Lease, hold: Hold | None, results: Sequence[AttemptResult], now: datetime, *, late: bool
) -> tuple[Intent, ...]:
    """Return the DSNs that are due after an attempt (RFC 3461, RFC 3464). ``late``: the message takes so long that its sender is
    told.

    There is none for a null reverse-path (a DSN is never answered), for a recipient whose NOTIFY does not want it, and for mail
    of smtpguard itself. A delay is reported once. For a relay without DSN the sender is told that no further reports will come
    (RFC 3461 section 5.2.2).
    """
    if hold is None or lease.intent.kind not in OF_CONTENT or lease.intent.reverse_path is None:
        return ()
    failed = [r for r in results if r.event is DeliveryEvent.REFUSE and Action.FAILED.wanted_by(r.recipient)]
    again = DeliveryEvent.PUT_OFF, DeliveryEvent.LOSE
    delayed = [r for r in results if late and r.event in again and Action.DELAYED.wanted_by(r.recipient)]
    relayed = [r for r in results if r.event is DeliveryEvent.TAKE and not r.reports]
    relayed = [r for r in relayed if Action.RELAYED.wanted_by(r.recipient)]
    found = []
    if failed:
        found.append(_dsn(lease, hold, failed, Action.FAILED, f"failed-{lease.token}", now))
    if relayed:
        found.append(_dsn(lease, hold, relayed, Action.RELAYED, f"relayed-{lease.token}", now))
    if delayed:
        until = lease.created_at + PACE.give_up
        more = {"retry_until": utc_text(until)} if now < until else {}  # later, until the relay is reached
        found.append(_dsn(lease, hold, delayed, Action.DELAYED, "delayed", now, **more))
    return tuple(found)


def _dsn(
    lease: Lease, hold: Hold, results: Sequence[AttemptResult], action: Action, suffix: str, now: datetime, **more: Any
) -> Intent:
    sender = lease.intent.reverse_path
    assert sender is not None
    data = {
        "action": action.value,
        "recipients": [
            {
                "address": str(r.recipient.address),
                "notify": r.recipient.notify,
                "orcpt": r.recipient.orcpt,
                "reply": r.reply or "",
                "status": r.status if r.why == "unsendable" else "",
                "why": r.why,
                "at": utc_text(now),
            }
            for r in results
        ],
        "envid": hold.envelope.envid,
        "ret": hold.envelope.ret,
        "smtputf8": hold.envelope.smtputf8,
        "arrived_at": utc_text(hold.held_at),
        "language": hold.language,
        "subject": hold.subject,
        "part": lease.intent.kind is IntentKind.PART,
    }
    return Intent(
        intent_id=f"{lease.intent.intent_id}-{suffix}",
        kind=IntentKind.DSN,
        reverse_path=None,
        recipients=(Recipient(address=sender, notify="NEVER"),),
        hold_id=hold.hold_id,
        content_sha256=lease.intent.content_sha256,
        data=data | more,
    )
