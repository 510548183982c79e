"""The result of one attempt for each recipient: sent, to be retried, failed, or in doubt; the time of the next attempt;
and the events.

The public data of an event names nobody: a relay's replies often do, so they go into the private part. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from smtpguard.counts.keys import each_once, persons
from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Hold, State
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.outcome import EVENTS, WORDS, DeliveryEvent
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.reply import Reply, Unsendable
from smtpguard.mailings.model import Person
from smtpguard.notices import intents
from smtpguard.outbox.model import LONGEST_ATTEMPT, NONE_YET, OF_CONTENT, AttemptResult, Intent, IntentKind, Lease

MAX_DOUBTS = 2  # attempts that may have been accepted: the message, and one duplicate


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When to retry, and for how long. ``lease_seconds`` are enough for a connection, MAIL and RCPT. ``doubt`` is how long one attempt may take; the dot is not sent in its last
    ``reply``, which covers the time that a relay may take to answer it (RFC 5321 section 4.5.3.2.6)."""

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
        """The pause after ``attempts`` earlier ones: doubled each time, with a jitter of a fifth, so that retries
        spread out."""
        wait: timedelta = min(self.first * 2 ** min(attempts, 20), self.longest)
        return wait * (0.8 + 0.4 * jitter)


PACE = Pace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A recipient to be tried; ``doubts``: the number of earlier attempts with an unknown result."""

    recipient: Recipient
    doubts: int = 0
    asks: bool = False
    """It is a list address: in doubt it is not retried automatically, and people are asked."""

    def begun(self, at: datetime) -> AttemptResult:
        """The mark before the dot: it is in doubt until it is settled."""
        return self._made(DeliveryEvent.BEGIN, "again" if self.doubts else "attempt", at, more=1)

    def lost(self, at: datetime, code: str) -> AttemptResult:
        """The dot was sent, or may have been, without an answer."""
        return self._made(DeliveryEvent.LOSE, code, at, more=1)

    def retry(self, code: str, at: datetime, reply: str = "") -> AttemptResult:
        """Certainly not accepted."""
        return replace(self._made(DeliveryEvent.PUT_OFF, code, at), reply=reply)

    def failed(self, why: str, code: str, reply: Reply | None = None) -> AttemptResult:
        """Not accepted, and not retried. ``why``: refused | expired | in-doubt | unsendable | obsolete; in-doubt, whatever
        this attempt's result, if an earlier one may have been accepted."""
        said = str(reply) if reply is not None else ""
        return replace(self._made(DeliveryEvent.REFUSE, code), why="in-doubt" if self.doubts else why, reply=said)

    def replied(self, reply: Reply, at: datetime, *, patient: bool, reports: bool) -> AttemptResult:
        """By the relay's reply, if it was asked. ``patient``: a 4xx may be retried ``at`` that time. ``reports``: see
        Answers."""
        if isinstance(reply, Unsendable):
            return replace(self.failed("unsendable", reply.text), status=reply.enhanced or "")
        code = f"{reply.code} {reply.enhanced or ''}".strip()
        if reply.positive:
            sent = self._made(DeliveryEvent.TAKE, code)
            return replace(sent, reply=str(reply), reports=reports, doubts=0)
        if reply.permanent:
            return self.failed("refused", code, reply)
        return self.retry(code, at, str(reply)) if patient else self.failed("expired", code, reply)

    def spent(self) -> AttemptResult:
        """A third attempt could be a second duplicate."""
        return self.failed("in-doubt", "given-up")

    def _made(self, event: DeliveryEvent, code: str, at: datetime | None = None, *, more: int = 0) -> AttemptResult:
        return AttemptResult(
            recipient=self.recipient,
            event=event,
            code=code,
            next_at=at,
            doubts=self.doubts + more,
            asks=self.asks and more > 0,
        )


Behind = Callable[..., Sequence[Person]]
"""The people behind some recipients, each an argument."""


def dues(lease: Lease, expands: Callable[[Recipient], bool]) -> list[Due]:
    """``expands``: whether it is a list address. Only releases ask people: the colleagues' part is retried."""
    doubts = lease.doubts or (0,) * len(lease.recipients)
    asks = lease.intent.kind is IntentKind.RELEASE
    return [Due(recipient=r, doubts=n, asks=asks and expands(r)) for r, n in zip(lease.recipients, doubts, strict=True)]


def over(hold: Hold, intent_id: str, in_force: InForce, now: datetime) -> tuple[tuple[Event, ...], tuple[Intent, ...]]:
    """A release has ended; ``hold`` is as it is then."""
    settled = hold.settled or NONE_YET
    data = {"intent": intent_id, **asdict(settled)}
    told = intents.gone(hold, in_force, now) if hold.state is State.RELEASED and not hold.stopped else ()
    return (Event(kind=Kind.RELEASED, id=hold.hold_id, at=now, data=data),), told


def persons_behind(hold: Hold, recipients: Sequence[Recipient], in_force: InForce) -> tuple[Person, ...]:
    """The people behind some recipients, each once, by the policy and the lists as they were when the message came."""
    if hold.behind:
        return each_once(person for one in recipients for person in hold.behind.get(str(one.address), ()))
    if not recipients:
        return ()
    counted = in_force.registry.classify(r.address for r in recipients)
    return persons(counted, in_force.registry, dict(hold.versions))


def events(
    lease: Lease, results: Sequence[AttemptResult], now: datetime, behind: Behind, *, told: bool
) -> Iterable[Event]:
    """One entry for all recipients with the same result; their addresses are in the private part. ``told``: in a DSN."""
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
            data["people"] = sum(one.weight for one in behind(*(r.recipient for r in several)))
        if of_content and event is DeliveryEvent.PUT_OFF:
            data["in_doubt"] = doubt  # an earlier attempt may have been accepted
        private = {"recipients": tuple(str(r.recipient.address) for r in several)}
        words = tuple(dict.fromkeys(r.reply[:500] for r in several if r.reply))
        if words:
            private["comment"] = words
        yield Event(kind=kind, id=intent.hold_id or intent.intent_id, at=now, data=data, private=private)


def _kind_of(result: AttemptResult) -> tuple[str, str, str, bool]:
    return WORDS[result.event], result.code, result.why, result.doubts > 0
