"""Let the stored copies of a mailing follow their primary hold, a slice a commit: sent when it is approved, back to
waiting when it is revoked.

What an approval covers beside its hold is learned before it: the slots in which the copies differ, or other tests of the
mailing (``learned``). The sweep continues what a crash, a pause between two stages, or a copy in flight has left behind.

The change that revoking an approval makes is here too: by an approver, by the writer, or with the decision on the mailing. If nobody has
it, and nobody may have it, it is rejected, withdrawn, or waits for people again, and was never sent. If somebody has it, or may have it
since an attempt has begun, the rest is not sent, and the result says so. It is run in the transaction that reads the outbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from smtpguard.database.errors import StoreError
from smtpguard.holds import effects
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.effects import NOTHING_LEARNED, Learned
from smtpguard.holds.model import (
    LET_GO,
    Change,
    Choice,
    Conflict,
    Hold,
    Move,
    State,
    Vote,
    after,
    event_on,
    standing_votes,
    vote_on,
)
from smtpguard.holds.sending import NOTHING, UNSENT, Outgoing, Sending, state_after_revocation
from smtpguard.journal.event import Event, Kind
from smtpguard.mailings.model import Mailing
from smtpguard.mailings.model import State as MailingState
from smtpguard.mailings.staging import Progress
from smtpguard.notices.intents import NoticesNow
from smtpguard.outbox.attempt import persons_behind
from smtpguard.outbox.model import Intent
from smtpguard.reading.shown import Shown

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

SLICE = 100  # copies that follow in one commit


async def paused(store: Store, holds: Iterable[Hold]) -> dict[str, Mailing]:
    """By the id of each hold that was sent, its mailing, if copies of that wait for their stage. Raises StoreError."""
    sent = [hold for hold in holds if hold.copies and hold.mailing_id and hold.state is State.RELEASED]
    found = [(hold.hold_id, await store.mailings.find(hold.mailing_id)) for hold in sent]
    return {id: one for id, one in found if one is not None and one.state is MailingState.PAUSED}


async def follow(store: Store, lead_id: str, notices: NoticesNow, term: Deadlines) -> int:
    """Returns how many copies followed."""
    in_force, now = notices.in_force, notices.now
    followed = 0
    later: list[str] = []  # letters of a sender that came after those that were decided on

    def step(
        lead: Hold, copy: Hold, mailing: Mailing | None, new: int, sending: Sending | None, covered: bool
    ) -> Change | None:
        if copy.state is not State.WAITING:
            return after_its_lead(lead, copy, sending, notices)
        if lead.state not in LET_GO or covered:
            return effects.change_of_follower(lead, copy, mailing, new, now)
        ended = mailing is not None and all(grant.hold_id != lead.hold_id for grant in mailing.grants)
        ended = ended and not lead.queue
        kind = Kind.REOPENED if ended else Kind.APART
        event = Event(kind=kind, id=copy.hold_id, at=now, data={"with": lead.hold_id})
        if not lead.queue and mailing is not None and mailing.entry:
            return Change(hold=copy, events=(event,), apart=True)
        # It waits for people, who get a notice of the first such: the primary hold of the others.
        others = tuple(one for one in (lead.sender, *lead.told) if one and one != copy.sender)
        successor = term.anew(replace(copy.in_place_of(lead), primary="", told=others), in_force, now)
        told: tuple[Intent, ...] = ()
        if not lead.queue or not later:
            told = notices.set_apart(successor, lead, "later" if lead.queue else "ended" if ended else "differs")
        if lead.queue:
            later.append(copy.hold_id)
        return Change(hold=successor, events=(event,), intents=told, apart=True)

    while True:
        n = await store.holds.follow(lead_id, SLICE, step)
        followed += n
        if n < SLICE:
            return followed


async def begin(store: Store, lead_id: str, notices: NoticesNow, term: Deadlines) -> None:
    """``follow``, after a committed decision. A busy store raises nothing, since the decision is in force; the sweep goes
    on with the copies."""
    try:
        await follow(store, lead_id, notices, term)
    except StoreError as error:
        log.warning("copies of hold %s follow later: %s", lead_id, error)


async def sweep(store: Store, notices: NoticesNow, term: Deadlines) -> int:
    """All copies that have not followed their primary hold. One delivery process calls it every few seconds."""
    return sum([await follow(store, lead_id, notices, term) for lead_id in await store.holds.leads_to_follow()])


async def tell(store: Store, notices: NoticesNow) -> None:
    """Tell people once that the stages of a mailing wait for one of them. Beyond the first few mailings of a window the
    notice comes in the next one."""
    for one in await store.mailings.standing():
        hold = await store.holds.find(one.grant.hold_id) if one.grant is not None else None
        if hold is None or one.progress is None or one.progress.told:
            continue
        verdict = replace(hold.verdict, quorum=notices.in_force.rules.quorum(one.lists) or hold.verdict.quorum)
        asked = replace(hold, lists=one.lists, senders=hold.senders | one.writers, verdict=verdict)
        if told := notices.stages(asked, one, one.progress):
            await store.mailings.change(one.mailing_id, partial(_told, one.progress, told))


def _told(progress: Progress, told: tuple[Intent, ...], mailing: Mailing) -> tuple[Mailing, Change]:
    """Nothing if it has moved on meanwhile."""
    if mailing.progress != progress:
        return mailing, Change()
    return replace(mailing, progress=replace(progress, told=True)), Change(intents=told)


SAY_WHY = "give a reason: its writer and the approvers are told"
KINDS: Mapping[Move, Kind] = {
    Move.REJECT: Kind.REJECTED,
    Move.WITHDRAW: Kind.WITHDRAWN,
    Move.REOPEN: Kind.REOPENED,
}
"""The entry for each move; its word is the outcome in notices, too."""
_OF_A_LEAD: Mapping[State, Move] = {State.REJECTED: Move.REJECT, State.WITHDRAWN: Move.WITHDRAW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """The end of an approval; or the decision against what waits. ``who``: the address; ``by``: the caller's login."""

    move: Move
    who: str
    by: str
    comment: str
    term: Deadlines
    notices: NoticesNow

    def step(self, hold: Hold, sending: Sending | None, outgoing: Outgoing, leads: bool) -> Change:
        """``leads``: it is the hold that is decided on, with notices to people; else it follows that one. A copy that
        was promoted names the old primary hold in its event."""
        back = _back(hold, sending, self.move, self.notices.now)
        if back is None:
            raise Conflict(_why_not(hold))
        stopped = back.state in LET_GO
        if self.move is Move.REOPEN and not stopped:
            back = self.term.anew(back, self.notices.in_force, self.notices.now)
        back = replace(back, primary="")
        if not leads:
            return _change(hold, back, sending, self.move, self.notices, {"with": hold.primary})
        now, rejected, undecided = self.notices.now, self.move is Move.REJECT, waits(hold, outgoing)
        actors: tuple[str, ...] = (self.who, self.by)
        comment = self.comment
        events: tuple[Event, ...] = ()
        if rejected:
            vote = Vote.on(hold, self.who, Choice.REJECT, now, comment)
            back = replace(back, votes=(*hold.votes, vote))
            events = (vote_on(hold, vote.choice.value, now, actors=actors, comment=comment),)
            actors = ()  # the vote's entry says who
            if undecided:
                comment = ""
        made = _change(hold, back, sending, self.move, self.notices, {}, actors, comment)
        if undecided and hold.release_at is None:  # nobody was told of an approval
            told = self.notices.decided(hold, KINDS[self.move].value, self.who, self.comment)
        else:
            outcome = "stopped" if stopped else KINDS[self.move].value
            told = self.notices.revoked(
                back,
                outcome,
                self.who,
                self.comment,
                sending=sending or UNSENT,
                outgoing=outgoing,
                confirmed=hold.confirmed,
            )
        return replace(
            made,
            events=(*events, *made.events),
            intents=told,
            rejection=effects.rejection(hold, self.comment, now, self.term) if rejected else None,
            ungranted=(hold.primary or hold.hold_id) if self.move is Move.WITHDRAW else "",
        )


def waits(hold: Hold, outgoing: Outgoing) -> bool:
    """Whether people must still decide on it: False if it only waits for its stage."""
    return hold.state is State.WAITING and outgoing == NOTHING


def after_its_lead(lead: Hold, copy: Hold, sending: Sending | None, notices: NoticesNow) -> Change | None:
    """A copy that was approved with its primary hold is revoked with it, also if it may have been sent: it is not sent
    again. None if it was sent."""
    move = Move(lead.stopped_by) if lead.stopped_by else _OF_A_LEAD.get(lead.state, Move.REOPEN)
    back = _back(copy, sending, move, notices.now)
    if back is None:
        return None
    return _change(copy, back, sending, move, notices, {"with": lead.hold_id})


def _back(hold: Hold, sending: Sending | None, move: Move, now: datetime) -> Hold | None:
    """The hold after the revocation; None if nothing can be revoked."""
    if hold.state is State.WAITING:  # waiting for its stage after an approval
        to = after(hold.state, move) or (hold.state if move is Move.REOPEN else None)
    else:
        to = state_after_revocation(hold.state, move, sending or UNSENT)
    if to is None:
        return None
    if to in LET_GO:
        settled = sending.stopped if sending is not None else None
        return replace(hold, state=to, stopped=True, stopped_by=move.value, settled=settled, asked_at=None)
    reopened_at = now if move is Move.REOPEN else hold.reopened_at
    return replace(
        hold, state=to, held_up=False, reopened_at=reopened_at, asked_at=None, release_at=None, grant=None
    )  # fmt: skip


def _why_not(hold: Hold) -> str:
    if hold.state is State.GRANTED:
        return f"it was only a test: to take back its approval, reject or reopen the mailing {hold.mailing_id}"
    said = f"it is already {hold.state.value}"
    if hold.state not in LET_GO:
        return said
    coming = f"; to stop further copies, reject or reopen the mailing {hold.mailing_id}" if hold.mailing_id else ""
    return f"{said}: sent mail cannot be taken back{coming}"


def _change(
    hold: Hold,
    back: Hold,
    sending: Sending | None,
    move: Move,
    notices: NoticesNow,
    data: Mapping[str, Any],
    actors: tuple[str, ...] = (),
    comment: str = "",
) -> Change:
    if back.state in LET_GO:
        assert sending is not None
        cancelled = persons_behind(hold, sending.left, notices.in_force)
        people = sum(one.weight for one in cancelled)
        data = {**data, **asdict(sending.stopped), "spared": len(sending.left), "people": people}
        event = event_on(hold, Kind.STOPPED, notices.now, actors=actors, comment=comment, named=sending.left, **data)
        return Change(hold=back, events=(event,), cancelled=frozenset(one.digest for one in cancelled))
    if hold.state is not State.WAITING:
        data = {**data, "was": hold.state.value}
    return Change(hold=back, events=(event_on(hold, KINDS[move], notices.now, actors=actors, comment=comment, **data),))


async def learned(store: Store, hold_id: str, under: int | None, slots: float, now: datetime) -> Learned:
    """Learned from no more copies than each approver had seen; ``under``: how many the next one has, None for all.
    Raises StoreError."""
    hold = await store.holds.find(hold_id)
    if hold is None or not (hold.queue or effects.covers_copies(hold)):
        return NOTHING_LEARNED
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    counted = (v.letters if hold.queue else v.copies for v in votes)
    known = [n for n in (*counted, under) if n is not None]
    if hold.queue:
        return Learned(letters=min((*known, await store.holds.count_letters(hold_id), effects.MOST_LETTERS)))
    if hold.kind == effects.TEST:
        own, others = await _versions(store, hold, now)
        return await asyncio.to_thread(effects.learned_from_tests, own, others[: min((*known, len(others)))], slots)
    rows = await store.holds.shown_under(hold_id)
    most = min((*known, len(rows) - 1))
    return await asyncio.to_thread(effects.learned, rows[: most + 1], slots)


async def _versions(store: Store, hold: Hold, now: datetime) -> tuple[Shown | None, list[Shown]]:
    """The content that a test shows, and each other version of its mailing that is approved beforehand for its lists,
    from its author, in the order of approval."""
    mailing = await store.mailings.find(hold.mailing_id) if hold.mailing_id else None
    lists = frozenset(hold.lists)
    covers = {
        grant.hold_id: grant.cover
        for grant in sorted(mailing.grants if mailing is not None else (), key=lambda g: (g.since, g.hold_id))
        if grant.beforehand and grant.cover is not None and now < grant.until and lists <= grant.lists
    }
    same = [i for i, cover in covers.items() if (cover.author, cover.proofs) == (hold.author, hold.proofs)]
    shown = await store.holds.shown_of_each([hold.hold_id, *same])
    others = {shown[i].digest: shown[i] for i in same if i != hold.hold_id and i in shown}
    return shown.get(hold.hold_id), [one for digest, one in others.items() if digest != hold.exact]
