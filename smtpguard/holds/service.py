"""Approvals: votes, withdrawal, confirmation, reminders, escalation and expiry of holds.

Every change is one step in the store's serial writer, and the table in holds/model.py decides it there. If two people
act at once, the first wins and the second is told so. The commit of the vote that completes the quorum also puts the
release into the outbox. If the release reaches many people, that happens after the release delay, so that the decision
can be undone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from smtpguard.database.errors import Outage
from smtpguard.database.failpoint import passes
from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds import effects
from smtpguard.holds.deadlines import REMINDERS, UNACKNOWLEDGED, Deadlines, is_over
from smtpguard.holds.effects import (
    NOTHING_LEARNED,
    Learned,
    Seen,
    canonical,
    check_asks,
    check_decides,
    check_may_vote,
    decided_by,
    release,
)
from smtpguard.holds.model import (
    ENDED,
    Change,
    Choice,
    Confirmation,
    Conflict,
    Hold,
    Move,
    NotEntitled,
    Refused,
    State,
    Unconfirmed,
    Vote,
    after,
    complete,
    event_on,
    held_up_by,
    missing,
    standing_votes,
    vote_on,
)
from smtpguard.holds.sending import NOTHING, Outgoing, ReleaseProgress, Sending
from smtpguard.journal.chain import utc_text
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.envelope import Recipient
from smtpguard.mailings import copies
from smtpguard.mailings.model import Grant, Mailing
from smtpguard.mailings.revocation import NO_REASON, Revocation, is_undecided
from smtpguard.notices.intents import Notices, NoticesNow
from smtpguard.outbox import asking
from smtpguard.outbox.attempt import release_ended
from smtpguard.outbox.model import Intent
from smtpguard.policy.freezing import Freeze
from smtpguard.policy.verdict import Quorum

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

TAKEN_BACK = "taken-back"
"""The choice in the journal entry of a vote that is revoked."""
LAPSED = "lapsed"
"""The choice in the journal entry of an approval that lost its quorum before it took effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The result of a decision. ``hold``: as it is now; ``missing``: the quorums that are not complete. ``frozen``: the
    freezes that stop it though it is approved. ``outgoing``: after a revocation, how much of it was sent."""

    hold: Hold
    missing: tuple[Quorum, ...] = ()
    frozen: tuple[Freeze, ...] = ()
    outgoing: Outgoing = NOTHING


@dataclass(eq=False)
class Approvals:
    """The service behind ``held approve|reject|withdraw``, the console, and the sweep of the delivery process."""

    store: Store
    policies: PolicyInForce
    clock: SteadyClock
    notices: Notices = field(default_factory=Notices)
    term: Deadlines = field(default_factory=Deadlines)
    _leaving: Mapping[tuple[str, datetime], float] = field(init=False, default_factory=dict)
    """When the delay of each approval is over, by the monotonic clock, since setting a clock must not end it. If the
    clock is before the votes when an approval is first seen, as at a boot, its delay begins then."""
    _unsent: Outage = field(init=False)
    _unasked: Outage = field(init=False)
    _undue: Outage = field(init=False)

    def __post_init__(self) -> None:
        self._unsent = Outage(log, "approved and not sent yet, tried again", self.clock.monotonic)
        self._unasked = Outage(log, "people are asked later about what is in doubt", self.clock.monotonic)
        self._undue = Outage(log, "deadlines are looked at again", self.clock.monotonic)

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
        most: int = 0,
        all_at_once: int | None = None,
        amend: Callable[[Hold, Change], Change] = lambda hold, made: made,
    ) -> Decided:
        """Vote on a hold. A vote on a copy is one on its primary hold; a rejection revokes what is approved, as far as
        it is not sent. Raises NoSuch, NotEntitled, Unconfirmed, Conflict, StoreError.

        ``approver``: the address they vote as; ``by``: the caller's login, journalled beside it. ``seen``: the message
        that they vote on, None for the hold as it is. ``people``: how many people the mailing may reach in all, no fewer
        than ``least_people``, or 0 for the default (effects.people_bound); ``most``: an upper limit of that number, also of the default.
        ``all_at_once``: the number of people that the approver confirms it reaches at once; the vote that completes the
        quorum needs it if the list declares stages and the message cannot be sent in them. ``amend``: gets the hold
        before the vote and the change, and returns the change with additions to the same commit; it may raise Refused.
        """
        hold_id = await self._lead_id(hold_id)
        notices = self._notices_now() if choice is Choice.REJECT else await self._notices_newest()
        in_force, now = notices.in_force, notices.now
        who = canonical(approver, in_force)
        learned = await self.learned(hold_id, seen) if choice is Choice.APPROVE else NOTHING_LEARNED
        mailing = await self._mailing(hold_id) if choice is Choice.APPROVE else None
        held = mailing.people.held - mailing.agreed if mailing is not None else 0

        def approve(hold: Hold) -> Change:
            if after(hold.state, Move.APPROVE) is None:
                raise Conflict(f"it is already {hold.state.value}{decided_by(hold)}")
            if self.is_over(hold):
                raise Conflict("it has expired, and will not be sent")
            if hold.release_at is not None:
                raise Conflict(f"it is already approved, and will be sent{decided_by(hold)}")
            if hold.question is not None:
                until = f"{hold.question.until:%Y-%m-%d %H:%M} UTC"
                raise Conflict(
                    f"only its writer can let it go until {until} (smtpguard held confirm); others can only reject it"
                )
            effects.check_answered(hold)
            check_may_vote(hold, hold_id, who, Choice.APPROVE, seen, in_force, now)
            if (new := effects.grown(hold, in_force)) is not None:
                if hold.votes:
                    return self._undo(new, notices)
                return Change(hold=new, intents=notices.asked_too(hold, new))
            effects.check_people(hold, people, in_force, mailing)
            bound = people or effects.people_bound(hold, (), in_force)
            vote = Vote.on(hold, who, Choice.APPROVE, now, comment, min(bound, most) if most else people)
            vote = replace(
                vote,
                copies=learned.copies,
                letters=learned.letters,
                at_once=all_at_once or 0,
                held=min(hold.reach, held),
            )
            return amend(hold, self._with_vote(hold, vote, by, notices, all_at_once, learned))

        def reject(hold: Hold, sending: Sending, outgoing: Outgoing, leads: bool) -> Change:
            decides = leads and hold.state not in (*ENDED, State.VOID)  # else it follows, or is refused for its state
            if decides:
                check_may_vote(hold, hold_id, who, Choice.REJECT, seen, in_force, now)
            made = back.step(hold, sending, outgoing, leads)
            if decides and not comment.strip() and not is_undecided(hold, outgoing):
                raise Refused(NO_REASON)
            return amend(hold, made) if decides else made

        if choice is Choice.REJECT:
            back = Revocation(move=Move.REJECT, who=who, by=by, comment=comment, term=self.term, notices=notices)
            return await self._revoke(hold_id, reject, notices)
        hold = await self._change(hold_id, approve, in_force.sha256)
        if not hold.votes:
            raise effects.has_grown(hold)
        if hold.state is State.WAITING:
            left = missing(hold, in_force.groups, in_force.hours.open_at)
            return Decided(hold=hold, missing=left, frozen=await self._freezes_on(hold) if not left else ())
        await copies.begin(self.store, hold.hold_id, notices, self.term)
        return Decided(hold=hold, frozen=await self._freezes_on(hold))

    async def _mailing(self, hold_id: str) -> Mailing | None:
        hold = await self.store.holds.find(hold_id)
        return await self.store.mailings.find(hold.mailing_id) if hold is not None and hold.mailing_id else None

    async def least_people(self, hold: Hold) -> int:
        """Return the least number of people that a hold can be approved for."""
        return effects.least_people(hold, self.policies.current(), await self._mailing(hold.hold_id))[0]

    async def reject_waiting(
        self, mailing_id: str, *, approver: str, by: str, comment: str, but: str = ""
    ) -> dict[str, Refused | None]:
        """Reject all messages of a mailing that wait, except ``but``. Returns the id of each, with why it still waits,
        None if it does not. Raises StoreError."""
        done: dict[str, Refused | None] = {}
        async for hold in self.store.holds.every((State.WAITING,), mailing=mailing_id.upper()):
            if hold.mailing_id == mailing_id and not hold.primary and not hold.queue and hold.hold_id != but:
                try:
                    await self.vote(hold.hold_id, Choice.REJECT, approver=approver, by=by, comment=comment)
                    done[hold.hold_id] = None
                except Refused as refused:
                    done[hold.hold_id] = refused
        return done

    async def confirm(
        self, hold_id: str, *, writer: str, by: str, people: int, way: str = "command", seen: Seen | None = None
    ) -> Decided:
        """Confirm a message as its writer, by which it is released. A copy is confirmed with its primary hold.
        ``people``: how many it reaches, as typed by the writer; it must be right. ``by``: the caller's login,
        journalled beside it; ``way``: how the caller is known: a signed "link", an "account", a "token", a "command".
        Raises NoSuch, NotEntitled, Unconfirmed, Conflict, StoreError."""
        hold_id = await self._lead_id(hold_id)
        notices = await self._notices_newest()
        in_force, now = notices.in_force, notices.now
        who = canonical(writer, in_force)
        learned = await self.learned(hold_id, seen)

        def step(hold: Hold) -> Change:
            if who not in hold.senders:
                raise NotEntitled(f"{who} did not write it")
            check_asks(hold, in_force, self.clock.passed())
            if seen is not None and not seen.is_of(hold):
                raise Conflict("it has changed since it was shown")
            asked = hold.confirm
            if asked is None or who not in in_force.addresses_of(asked.writer):
                raise NotEntitled(f"{who} is not the writer who is asked")
            if (new := effects.grown(hold, in_force)) is not None:
                return Change(hold=new)
            if people != hold.reach:
                raise Unconfirmed(f"it goes to {hold.reach:,} people, and the number given is {people:,}")
            confirmed = hold.moved(Move.CONFIRM, confirm=replace(asked, at=now, people=people))
            grant = effects.grant(confirmed, in_force, now, self.term, learned)
            data: dict[str, Any] = {"people": people, "way": way, "proof": asked.proof, "content": hold.content_sha256,
                    "policy": in_force.sha256}  # fmt: skip
            return Change(
                hold=confirmed,
                events=(event_on(hold, Kind.CONFIRMED, now, actors=(who, by), **data),),
                grant=grant,
                cover=learned.document(grant),
                intents=(release(hold), *notices.decided(hold, "confirmed", who, "")),
            )

        hold = await self._change(hold_id, step, in_force.sha256)
        if not hold.confirmed:
            raise effects.has_grown(hold)
        await copies.begin(self.store, hold.hold_id, notices, self.term)
        return Decided(hold=hold, frozen=await self._freezes_on(hold))

    async def unvote(self, hold_id: str, *, approver: str, by: str, comment: str = "") -> Decided:
        """Revoke the vote of an approver, while other votes are missing. Until a complete approval takes effect, any of
        its approvers or its writer can undo it, which removes their own vote, or else the last one. Raises NoSuch,
        NotEntitled, Conflict, StoreError."""
        hold_id = await self._lead_id(hold_id)
        notices = self._notices_now()
        in_force, now = notices.in_force, notices.now
        who = canonical(approver, in_force)

        def step(hold: Hold) -> Change:
            if hold.state is not State.WAITING:
                raise Conflict(f"it is already {hold.state.value}{decided_by(hold)}")
            mine = in_force.addresses_of(who)
            if hold.release_at is not None:
                if not mine & hold.senders:
                    check_decides(hold, who, in_force, now)
                return self._undo(hold, notices, mine, (who, by), comment)
            if not any(vote.approver in mine for vote in hold.votes):
                raise Conflict(f"{who} has not voted on it")
            return Change(
                hold=replace(hold, votes=tuple(vote for vote in hold.votes if vote.approver not in mine)),
                events=(vote_on(hold, TAKEN_BACK, now, actors=(who, by), comment=comment),),
            )

        hold = await self._change(hold_id, step)
        return Decided(hold=hold, missing=missing(hold, in_force.groups, in_force.hours.open_at))

    def _undo(
        self,
        hold: Hold,
        notices: NoticesNow,
        mine: frozenset[str] = frozenset(),
        actors: tuple[str, ...] = (),
        comment: str = "",
    ) -> Change:
        """Return the change by which a hold waits for people again. It removes the votes of ``mine``, and the last ones
        as long as the rest are a quorum. ``actors``: who undoes it; () if the approval has lapsed."""
        in_force = notices.in_force
        choice, outcome, who = (TAKEN_BACK, "reopened", actors[0]) if actors else (LAPSED, "lapsed", "")
        left = replace(hold, votes=tuple(vote for vote in hold.votes if vote.approver not in mine))
        while complete(left, in_force.groups, in_force.hours.open_at):
            last = max(standing_votes(left), key=lambda vote: (vote.at, left.votes.index(vote)))
            left = replace(left, votes=tuple(vote for vote in left.votes if vote.approver != last.approver))
        back = replace(left, release_at=None, grant=None, held_up=False, undone=hold.undone + 1)
        return Change(
            hold=replace(back, attend_at=self.term.attend_at(back, in_force)),
            events=(vote_on(hold, choice, notices.now, actors=actors, comment=comment),),
            intents=notices.revoked(replace(hold, votes=left.votes), outcome, who, comment),
        )

    def _notices_now(self) -> NoticesNow:
        return self.notices.at(self.policies.current(), self.clock.now())

    async def _notices_newest(self) -> NoticesNow:
        """For what lets mail go: by the policy that the store has now, so that nobody decides who may no longer."""
        return self.notices.at(await self.policies.follow(), self.clock.now())

    def delay(self, hold: Hold, people: int) -> timedelta:
        """Return how long an approval can be undone before it takes effect, if it may reach ``people``."""
        return effects.delay(hold, people, self.policies.current(), self.term)

    async def enact(self) -> int:
        """Let approvals whose delay is over take effect, each in a commit of its own, and those without a quorum lapse.
        Returns how many did. One delivery process calls it every second or so; of several at once one does it."""
        notices = await self._notices_newest()
        in_force, now, tick = notices.in_force, notices.now, self.clock.monotonic()
        leaving = {(hold.hold_id, hold.release_at or now): hold for hold in await self.store.holds.leaving()}
        begun = {key: max([self.clock.passed(), *(vote.at for vote in hold.votes)]) for key, hold in leaving.items()}
        self._leaving = {
            (id, at): self._leaving.get((id, at), tick + (at - begun[id, at]).total_seconds()) for id, at in leaving
        }
        due = [
            id
            for (id, at), hold in leaving.items()
            if (now >= at and tick >= self._leaving[id, at])
            or not complete(hold, in_force.groups, in_force.hours.open_at)
        ]

        async def enact(hold_id: str) -> None:
            await self._change(hold_id, partial(self._enact, notices=notices), in_force.sha256)
            await copies.begin(self.store, hold_id, notices, self.term)

        return await asking.each(due, enact, self._unsent)

    def _enact(self, hold: Hold, notices: NoticesNow) -> Change:
        """Return the change that the last vote would have made without a delay, or the one by which the approval
        lapses."""
        in_force, now = notices.in_force, notices.now
        passes("enact", hold.hold_id)
        if hold.state is not State.WAITING or hold.release_at is None:
            raise Conflict("undone or decided meanwhile")
        last = max(standing_votes(hold), key=lambda vote: vote.at, default=None)
        if last is None or not complete(hold, in_force.groups, in_force.hours.open_at):
            return self._undo(hold, notices)
        if (new := effects.grown(hold, in_force)) is not None:
            return self._undo(new, notices)
        if now < hold.release_at:
            raise Conflict("it is not due yet")
        whole = effects.at_once(hold, in_force)
        if whole is not None and not whole.is_confirmed(last.at_once):
            return self._undo(hold, notices)
        grant = hold.grant
        if grant is not None:
            grant = replace(grant, since=now, until=now + timedelta(seconds=self.term.approval_seconds))
        return self._take_effect(replace(hold, release_at=None, grant=None), grant, last, notices)

    async def still_agreed(self, hold: Hold) -> bool:
        """Return whether a post that is about to be released goes to those for whom it was approved. If its list has grown since,
        the approval ends, and people are asked anew; if somebody has it already, the rest is not sent. Raises StoreError."""
        notices = self._notices_now()
        if effects.grown(hold, notices.in_force) is None:
            return True
        back = Revocation(move=Move.REOPEN, who="", by="", comment="", term=self.term, notices=notices)

        def step(hold: Hold, sending: Sending, outgoing: Outgoing, leads: bool) -> Change:
            unsent = sending.out is ReleaseProgress.NOTHING
            new = effects.grown(hold, notices.in_force) if unsent else None
            return back.step(new or hold, sending, outgoing, leads)

        ended = [hold.hold_id]
        lead = await self.store.holds.find(hold.primary) if hold.primary else None
        if lead is not None and effects.grown(lead, notices.in_force) is not None:
            own = (await self.store.holds.outgoing(lead.hold_id)).own
            if own is not None and own.out is ReleaseProgress.NOTHING:  # a copy waits under its post, if that waits
                ended.insert(0, lead.hold_id)
        for hold_id in ended:
            with suppress(Conflict):  # it was revoked meanwhile
                await self._revoke(hold_id, step, notices)
        return False

    async def withdraw(self, hold_id: str, *, sender: str, by: str, comment: str = "") -> Decided:
        """Withdraw a message as its writer, with all copies of it, as far as they are not sent. Raises NoSuch,
        NotEntitled, Conflict, StoreError."""
        hold_id = await self._lead_id(hold_id)
        notices = self._notices_now()
        who = canonical(sender, notices.in_force)
        back = Revocation(move=Move.WITHDRAW, who=who, by=by, comment=comment, term=self.term, notices=notices)

        def step(hold: Hold, sending: Sending, outgoing: Outgoing, leads: bool) -> Change:
            if who not in hold.senders and leads:
                raise NotEntitled(f"{who} did not write it")
            return back.step(hold, sending, outgoing, leads)

        return await self._revoke(hold_id, step, notices)

    async def _revoke(
        self, hold_id: str, step: Callable[[Hold, Sending, Outgoing, bool], Change], notices: NoticesNow
    ) -> Decided:
        changes, outgoing = await self.store.holds.take_back(hold_id, step)
        holds = [change.hold for change in changes if change.hold is not None]
        for hold in holds:
            await copies.begin(self.store, hold.hold_id, notices, self.term)
        return Decided(hold=holds[0], outgoing=outgoing)

    async def _freezes_on(self, hold: Hold) -> tuple[Freeze, ...]:
        if not hold.to_be_sent:
            return ()
        return held_up_by(hold, (await self.store.gate.read()).freezes)

    async def _lead_id(self, hold_id: str) -> str:
        hold = await self.store.holds.find(hold_id)
        return hold.primary if hold is not None and hold.primary else hold_id

    def is_over(self, hold: Hold) -> bool:
        """Return whether nobody can release a hold any more, if it waits. The sweep that expires it may be late."""
        return is_over(hold, self.clock.passed())

    async def sweep(self) -> int:
        """Remind, escalate and expire the holds that are due. Returns how many changed; one that fails is left for the
        next sweep. One delivery process calls it every minute or so."""
        notices = replace(self._notices_now(), now=self.clock.passed())
        step = partial(self._due_change, notices=notices)
        asked, due = await self.ask(), await self.store.holds.due(notices.now)
        again = {hold.hold_id for hold in due if hold.asked_at is not None}

        async def change(hold_id: str) -> None:
            if hold_id in again:
                await asking.remind(hold_id, self.store, notices)
            else:
                await self.store.holds.change(hold_id, step)

        return asked + await asking.each([hold.hold_id for hold in due], change, self._undue)

    async def ask(self) -> int:
        """Ask people about releases in doubt that are not repeated automatically. One delivery process calls it every
        few seconds."""
        return await asking.sweep(self.store, self._notices_now(), self._unasked)

    async def answer_doubt(self, hold_id: str, *, sent: bool, approver: str, by: str, comment: str = "") -> Hold:
        """Take an approver's answer about a release to a list address in doubt: it was ``sent``, or is to be sent
        again. Raises NoSuch, NotEntitled, Conflict, StoreError."""
        notices = await self._notices_newest()
        in_force, now = notices.in_force, notices.now
        who = canonical(approver, in_force)

        def step(hold: Hold, recipients: Sequence[Recipient]) -> Change:
            check_decides(hold, who, in_force, now)
            if hold.asked_at is None or not recipients:
                raise Conflict(asking.NOBODY_ASKED)
            if not sent and (new := effects.grown(hold, in_force)) is not None:
                raise effects.has_grown(new)
            return asking.answered(hold, recipients, sent=sent, actors=(who, by), comment=comment, notices=notices)

        made = await self.store.outbox.answer(
            hold_id, step, partial(release_ended, in_force=in_force, now=now), sent=sent
        )
        assert made.hold is not None
        return made.hold

    async def follow(self) -> int:
        """Let copies follow their primary holds, and tell people of stages that wait for them. Returns how many copies
        followed. One delivery process calls it every few seconds."""
        await self.store.mailings.prolong_pauses()
        followed = await copies.sweep(self.store, self._notices_now(), self.term)
        await copies.notify_of_stages(self.store, self._notices_now())
        return followed

    async def learned(self, hold_id: str, seen: Seen | None = None) -> Learned:
        """Return the slots in which the copies under a hold differ, and so what its approval covers beside it. Raises
        StoreError."""
        slots = self.policies.current().slots
        return await copies.learned(self.store, hold_id, seen.under if seen is not None else None, slots)

    def _with_vote(
        self, hold: Hold, vote: Vote, by: str, notices: NoticesNow, all_at_once: int | None, learned: Learned
    ) -> Change:
        """Return the change of a hold by one more vote to approve it. Raises Unconfirmed."""
        in_force, now = notices.in_force, notices.now
        voted = replace(hold, votes=(*hold.votes, vote))
        event = vote_on(hold, vote.choice.value, now, actors=(vote.approver, by), comment=vote.comment)
        if not complete(voted, in_force.groups, in_force.hours.open_at):
            return Change(hold=voted, events=(event,))
        whole = effects.at_once(hold, in_force)
        if whole is not None and not whole.is_confirmed(all_at_once):
            raise Unconfirmed(whole.sentence)
        grant = effects.grant(voted, in_force, now, self.term, learned)
        cover = learned.document(grant)
        told = notices.decided(voted, "approved", vote.approver, vote.comment)
        if delay := effects.delay(voted, grant.people if grant is not None else 0, in_force, self.term):
            leaving = replace(voted, release_at=now + delay, grant=grant)
            event = replace(event, data={**event.data, "release_at": utc_text(now + delay)})
            return Change(hold=leaving, events=(event,), cover=cover, intents=told)
        made = self._take_effect(voted, grant, vote, notices)
        return replace(made, events=(event, *made.events), cover=cover, intents=(*made.intents, *told))

    def _take_effect(self, hold: Hold, grant: Grant | None, last: Vote, notices: NoticesNow) -> Change:
        """Return the change by which an approval takes effect. ``last``: the vote that completed it."""
        in_force, now = notices.in_force, notices.now
        people = grant.people if grant is not None else None
        whole = effects.at_once(hold, in_force)
        data: dict[str, Any] = {"at_once": whole.people} if whole is not None else {}
        if last.at < now:
            data["decided_at"] = utc_text(last.at)
        test = hold.kind == effects.TEST  # it has nothing to release: its approval ends it
        return Change(
            hold=hold.moved(Move.GRANT if test else Move.APPROVE),
            events=(event_on(hold, Kind.APPROVED, now, policy=in_force.sha256, people=people, **data),),
            grant=grant,
            stages=effects.stages(hold, in_force) if grant is not None else None,
            at_once=whole.people if whole is not None else 0,
            intents=() if test else (release(hold),),
        )

    def _due_change(self, hold: Hold, notices: NoticesNow) -> Change:
        """Return the change by what is due now. Missed actions are not made up for, except the latest reminder."""
        in_force, now = notices.in_force, notices.now
        if hold.state is not State.WAITING:
            raise Conflict("decided meanwhile")
        if hold.release_at is not None:
            raise Conflict("it is approved and will be sent")
        if hold.primary and hold.acknowledged:
            raise Conflict("it is decided with its primary hold")
        if not hold.acknowledged and now >= hold.waits_since + UNACKNOWLEDGED:
            return Change(
                hold=hold.moved(Move.VOID),
                events=(event_on(hold, Kind.VOIDED, now, why="its client never got a 250 reply"),),
            )
        asked = hold.question
        if is_over(hold, now):
            lapsed = replace(asked, lapsed_at=now) if asked is not None else hold.confirm
            unconfirmed: dict[str, Any] = {"unconfirmed": True} if asked is not None else {}
            return Change(
                hold=hold.moved(Move.EXPIRE, confirm=lapsed),
                events=(event_on(hold, Kind.EXPIRED, now, **unconfirmed),),
                intents=notices.expired(hold),
            )
        if asked is not None:
            return self._due_question(hold, asked, notices)
        events: list[Event] = []
        intents: list[Intent] = []
        due = [
            n
            for n, percent in enumerate(REMINDERS)
            if n >= hold.reminded and now >= self.term.reminder_at(hold, percent, in_force)
        ]
        if due:
            percent, until = REMINDERS[due[-1]], hold.expires_at
            hold = self.term.reminded(hold, in_force, now) if percent == REMINDERS[-1] else hold
            events.append(event_on(hold, Kind.REMINDED, now, percent=percent))
            intents += notices.reminder(hold, percent, longer=hold.expires_at > until)
        escalate = not hold.escalated and not hold.votes and now >= self.term.escalates_at(hold)
        if escalate:
            events.append(event_on(hold, Kind.ESCALATED, now))
            intents += notices.escalation(hold)
        after_it = replace(hold, reminded=due[-1] + 1 if due else hold.reminded, escalated=hold.escalated or escalate)
        return Change(
            hold=replace(after_it, attend_at=self.term.attend_at(after_it, in_force)),
            events=tuple(events),
            intents=tuple(intents),
        )

    def _due_question(self, hold: Hold, asked: Confirmation, notices: NoticesNow) -> Change:
        """Return the change of a hold whose writer has not answered. They are reminded once if it is to expire; else
        others decide."""
        in_force, now = notices.in_force, notices.now
        if asked.expires and not hold.reminded and now >= self.term.last_reminder_at(hold, in_force):
            again = replace(self.term.reminded(hold, in_force, now), reminded=len(REMINDERS))
            again = replace(again, confirm=replace(asked, until=again.expires_at))
            return Change(
                hold=replace(again, attend_at=self.term.attend_at(again, in_force)),
                events=(event_on(hold, Kind.REMINDED, now, percent=REMINDERS[-1]),),
                intents=notices.reminder(again, REMINDERS[-1]),
            )
        if asked.expires or now < asked.until:
            return Change(hold=replace(hold, attend_at=self.term.attend_at(hold, in_force)))
        others = self.term.asks_others(hold, in_force, now)
        return Change(
            hold=others,
            events=(event_on(hold, Kind.UNCONFIRMED, now, why="its time is over"),),
            intents=notices.unconfirmed(others),
        )

    async def _change(self, hold_id: str, step: Callable[[Hold], Change], policy: str = "") -> Hold:
        made = await self.store.holds.change(hold_id, step, policy)
        assert made.hold is not None
        return made.hold
