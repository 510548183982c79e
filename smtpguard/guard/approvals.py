"""What people and time make of a hold: votes, withdrawal, reminders, escalation, expiry.

Every change is one step in the store's serial writer, decided there by the table in policy/approval.py: of two people at
once one is first, and the other is told so. The release goes into the outbox in the commit of the vote that completes the
quorum. Never here: the counting of a quorum (policy.approval), the sending (delivery).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from smtpguard.audit.event import Event, Kind
from smtpguard.guard import granting
from smtpguard.guard.granting import release
from smtpguard.guard.inforce import InForce, Policies
from smtpguard.guard.notices import Notices
from smtpguard.guard.ports import Clock, Ledger
from smtpguard.guard.term import REMINDERS, UNACKNOWLEDGED, Term, reminder_at
from smtpguard.mail.address import Address, BadAddress
from smtpguard.policy.admission import Change, Intent, LedgerError
from smtpguard.policy.approval import (
    Choice,
    Hold,
    Move,
    State,
    Vote,
    after,
    complete,
    entitled,
    missing,
    standing_votes,
)
from smtpguard.policy.mailing import Mailing
from smtpguard.policy.verdict import Quorum

log = logging.getLogger(__name__)

CLOCK_JUMP = timedelta(minutes=5)
FOLLOWING = 100  # copies that go their way in one commit


class Refused(Exception):
    """Nothing changed. The text says why, for whoever asked."""


class NotEntitled(Refused):
    """That person may not do this to this hold."""


class Conflict(Refused):
    """It is not what it was when that person looked: decided by somebody else meanwhile, or changed (HTTP 409)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What somebody had before their eyes when they decided. ``policy_sha256`` None: not compared."""

    content_sha256: str
    envelope_sha256: str
    policy_sha256: str | None = None

    @classmethod
    def of(cls, hold: Hold) -> Seen:
        return cls(content_sha256=hold.content_sha256, envelope_sha256=hold.envelope.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The hold as it is now; ``missing``: the quorums that still wait for somebody."""

    hold: Hold
    missing: tuple[Quorum, ...] = ()


class Approvals:
    """The service behind ``held approve|reject|withdraw``, the console, and the sweep of the delivery process."""

    def __init__(
        self,
        ledger: Ledger,
        policies: Policies,
        clock: Clock,
        *,
        notices: Notices | None = None,
        term: Term | None = None,
    ) -> None:
        self._ledger = ledger
        self._policies = policies
        self._clock = clock
        self._notices = notices or Notices()
        self._term = term or Term()
        self._steady = (clock.now(), clock.monotonic())

    async def vote(
        self,
        hold_id: str,
        choice: Choice,
        *,
        approver: str,
        by: str,
        seen: Seen | None = None,
        comment: str = "",
        people: int = 0,
    ) -> Decided:
        """``approver``: the address they vote as; ``by``: who the system says they are, journalled beside it. ``people``: how many
        the mailing may reach in all, 0 for the usual (granting.bound).

        A vote on a copy is one on the hold that it is stored under. Without ``seen`` the vote is on the hold as it is. Raises
        KeyError, NotEntitled, Conflict, LedgerError.
        """
        hold_id = await self._lead(hold_id)
        in_force = self._policies.current()
        who = self._canonical(approver, in_force)
        now = self._clock.now()

        mine = in_force.addresses_of(who)

        def step(hold: Hold) -> Change:
            move = Move.APPROVE if choice is Choice.APPROVE else Move.REJECT
            if after(hold.state, move) is None:
                return _refuse(Conflict, f"it is {hold.state.value} already")
            if (
                choice is Choice.APPROVE and self._passed() >= hold.expires_at
            ):  # whoever sees to what expires may be late
                return _refuse(Conflict, "its time is over, it will not be sent")
            if seen is not None and (
                (seen.content_sha256, seen.envelope_sha256) != (hold.content_sha256, hold.envelope.sha256)
                or seen.policy_sha256 not in (None, in_force.policy_sha256)
            ):
                return _refuse(Conflict, "it has changed since it was looked at")
            if mine & hold.senders:
                return _refuse(NotEntitled, f"{who} wrote it, and nobody decides on their own message")
            if not entitled(hold, who, in_force.groups, open_now=in_force.open_at(now)):
                return _refuse(NotEntitled, f"{who} is not one of those who decide on it")
            if any(v.approver in mine and v.choice is choice for v in standing_votes(hold)):
                return _refuse(Conflict, f"{who} has voted so already")
            return self._voted(hold, _vote(hold, who, choice, now, comment, people), by, in_force, now)

        hold = await self._change(hold_id, step)
        await self._follow(hold)
        left = missing(hold, in_force.groups, in_force.open_at) if hold.state is State.WAITING else ()
        return Decided(hold=hold, missing=left)

    async def withdraw(self, hold_id: str, *, sender: str, by: str, comment: str = "") -> Decided:
        """Its writer takes it back, with all copies of it. Raises KeyError, NotEntitled, Conflict, LedgerError."""
        hold_id = await self._lead(hold_id)
        in_force = self._policies.current()
        who = self._canonical(sender, in_force)
        now = self._clock.now()

        def step(hold: Hold) -> Change:
            to = after(hold.state, Move.WITHDRAW)
            if who not in hold.senders:
                return _refuse(NotEntitled, f"{who} did not write it")
            if to is None:
                return _refuse(Conflict, f"it is {hold.state.value} already")
            return Change(
                hold=replace(hold, state=to),
                events=(_event(Kind.WITHDRAWN, hold, now, actors=(who, by), comment=comment),),
                intents=self._notices.decided(hold, "withdrawn", who, comment, in_force, now),
            )

        hold = await self._change(hold_id, step)
        await self._follow(hold)
        return Decided(hold=hold)

    async def _lead(self, hold_id: str) -> str:
        hold = await self._ledger.hold(hold_id)
        return hold.lead if hold is not None and hold.lead else hold_id

    async def _follow(self, lead: Hold) -> int:
        """What is stored under it goes its way, a slice a commit. What a crash leaves of it, or a pause between two stages,
        the sweep takes up."""
        followed = 0
        if lead.state is State.WAITING:
            return followed
        now = self._clock.now()

        def step(lead: Hold, copy: Hold, mailing: Mailing | None, new: int) -> Change | None:
            return granting.followed(lead, copy, mailing, new, now)

        while True:
            n = await self._ledger.follow(lead.hold_id, FOLLOWING, step)
            followed += n
            if n < FOLLOWING:
                return followed

    async def sweep(self) -> int:
        """Everything that time does to holds, for those that are due. Returns how many changed; one that fails is left for
        the next sweep. Called every minute or so by one delivery process."""
        in_force = self._policies.current()
        now = self._passed()
        changed = 0
        for hold in await self._ledger.due(now):
            try:
                made = await self._ledger.change(hold.hold_id, lambda h: self._in_time(h, in_force, now))
            except (LedgerError, KeyError) as error:
                log.warning("hold %s could not be looked at: %s", hold.hold_id, type(error).__name__)
                continue
            changed += made.refused is None
        return changed

    async def follow(self) -> int:
        """Copies of what was decided on; every few seconds by one delivery process. How many went their way."""
        followed = 0
        for lead_id in await self._ledger.decided_leads():
            lead = await self._ledger.hold(lead_id)
            followed += await self._follow(lead) if lead is not None else 0
        return followed

    def _voted(self, hold: Hold, vote: Vote, by: str, in_force: InForce, now: datetime) -> Change:
        voted = replace(hold, votes=(*hold.votes, vote))
        data = {"choice": vote.choice.value, "content": vote.content_sha256, "envelope": vote.envelope_sha256}
        event = _event(Kind.VOTE, hold, now, actors=(vote.approver, by), comment=vote.comment, **data)
        if vote.choice is Choice.REJECT:
            return Change(
                hold=replace(voted, state=State.REJECTED),
                events=(event, _event(Kind.REJECTED, hold, now)),
                intents=self._notices.decided(hold, "rejected", vote.approver, vote.comment, in_force, now),
                rejection=granting.rejection(hold, vote.comment, now, self._term),
            )
        if not complete(voted, in_force.groups, in_force.open_at):
            return Change(hold=voted, events=(event,))
        grant = granting.grant(voted, in_force, now, self._term)
        people = grant.people if grant is not None else None
        return Change(
            hold=replace(voted, state=granting.approved_state(hold)),
            events=(event, _event(Kind.APPROVED, hold, now, policy=in_force.policy_sha256, people=people)),
            grant=grant,
            stages=granting.stages(hold, in_force) if grant is not None else None,
            intents=(
                *((release(hold),) if hold.kind != granting.TEST else ()),
                *self._notices.decided(hold, "approved", vote.approver, vote.comment, in_force, now),
            ),
        )

    def _in_time(self, hold: Hold, in_force: InForce, now: datetime) -> Change:
        """What is due for it now; what was missed is not made up for, the latest reminder aside."""
        if hold.state is not State.WAITING:
            return Change(refused="decided meanwhile")
        if hold.lead and hold.acknowledged:
            return Change(refused="it goes the way of what it is stored under")
        if not hold.acknowledged and now >= hold.held_at + UNACKNOWLEDGED:
            return Change(
                hold=replace(hold, state=State.VOID),
                events=(_event(Kind.VOIDED, hold, now, why="its client was never answered 250"),),
            )
        if now >= hold.expires_at:
            return Change(
                hold=replace(hold, state=State.EXPIRED),
                events=(_event(Kind.EXPIRED, hold, now),),
                intents=self._notices.expired(hold, in_force, now),
            )
        events: list[Event] = []
        intents: list[Intent] = []
        due = [n for n, percent in enumerate(REMINDERS) if n >= hold.reminded and now >= reminder_at(hold, percent)]
        if due:
            percent = REMINDERS[due[-1]]
            events.append(_event(Kind.REMINDED, hold, now, percent=percent))
            intents += self._notices.reminder(hold, percent, in_force, now)
        escalate = not hold.escalated and not hold.votes and now >= self._term.escalates_at(hold)
        if escalate:
            events.append(_event(Kind.ESCALATED, hold, now))
            intents += self._notices.escalation(hold, in_force, now)
        after_it = replace(hold, reminded=due[-1] + 1 if due else hold.reminded, escalated=hold.escalated or escalate)
        return Change(
            hold=replace(after_it, attend_at=self._term.attend_at(after_it)),
            events=tuple(events),
            intents=tuple(intents),
        )

    async def _change(self, hold_id: str, step: Callable[[Hold], Change]) -> Hold:
        """The hold after the step, or the refusal that it made raised."""
        made = await self._ledger.change(hold_id, step)
        if made.refused is not None:
            kind, _, why = made.refused.partition(": ")
            raise {c.__name__: c for c in (Conflict, NotEntitled)}.get(kind, Refused)(why)
        assert made.hold is not None
        return made.hold

    def _canonical(self, address: str, in_force: InForce) -> str:
        try:
            return Address.parse(address).canonical(in_force.registry.digester.delimiters)
        except BadAddress:
            raise NotEntitled(f"{address!r} is no address") from None

    def _passed(self) -> datetime:
        """The time, unless the clock was put forward: then what has passed by the monotonic one, so that no hold expires
        because somebody set a clock."""
        wall, tick = self._clock.now(), self._clock.monotonic()
        then, at = self._steady
        expected = then + timedelta(seconds=tick - at)
        if wall > expected + CLOCK_JUMP:
            log.warning("the clock has jumped by %s: nothing expires by it until a restart", wall - expected)
            return expected
        self._steady = (wall, tick)
        return wall


def _vote(hold: Hold, who: str, choice: Choice, now: datetime, comment: str, people: int) -> Vote:
    return Vote(
        approver=who,
        choice=choice,
        content_sha256=hold.content_sha256,
        envelope_sha256=hold.envelope.sha256,
        at=now,
        comment=comment,
        seen=hold.scope,
        people=people,
    )


def _refuse(kind: type[Refused], why: str) -> Change:
    return Change(refused=f"{kind.__name__}: {why}")


def _event(
    kind: Kind, hold: Hold, now: datetime, *, actors: tuple[str, ...] = (), comment: str = "", **data: object
) -> Event:
    private = {
        role: values for role, values in (("actor", actors), ("comment", (comment,) if comment else ())) if values
    }
    return Event(kind=kind, id=hold.hold_id, at=now, data=data, private=private)
