"""Revoke what was approved, in the transaction that finds out how much of it is sent.

A release that has not begun leaves the outbox; of another the rest ends. A primary hold stands for the copies of its
mailing. If it is delivered or in doubt itself, the oldest copy that is not sent is promoted; if there is none, the
oldest that is in doubt. Copies are not leased once their primary hold is revoked (outboxes.leasable), and follow it in
slices of their own (deciding.follow).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, func, or_, select, update

from smtpguard.database.batch import Batch
from smtpguard.database.schema import hold as table
from smtpguard.holds import deciding
from smtpguard.holds import rows as holds
from smtpguard.holds.model import LET_GO, LIVE, SENDING, Change, Conflict, Hold, Refused, State, with_lead_data
from smtpguard.holds.sending import UNSENT, Outgoing, ReleaseProgress, Sending
from smtpguard.journal.chain import microseconds
from smtpguard.mailings.mailingbatch import mailings_of
from smtpguard.mailings.model import Mailing
from smtpguard.outbox import rows as outboxes

Step = Callable[[Hold, Sending, Outgoing, bool], Change]
"""A function that gets a hold, the state of its release, the state of all its messages, and whether it is the one that
is decided on (if not, it follows). It returns the hold's change, and may raise Refused."""
Decide = Callable[[Mailing, Outgoing], tuple[Mailing, Change]]
"""A function that gets a mailing, and how much of it is sent, and returns the mailing as changed and the change to
write."""

_LEFT = [state.value for state in LIVE]
_SENDING = [state.value for state in SENDING]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A primary hold with the copies under it, the oldest first. ``free``: the copies that are not sent. ``begun``: the
    copies that are in doubt or partly sent. ``sendings``: the releases by hold id."""

    lead: Hold
    free: tuple[str, ...]
    begun: tuple[str, ...]
    sendings: Mapping[str, Sending]
    outgoing: Outgoing

    @classmethod
    def look(cls, connection: Connection, lead: Hold, now_us: int) -> _Group:
        copies: list[tuple[str, State]] = []
        if lead.state in LET_GO:
            states = table.c.state.in_([*_LEFT, State.RELEASED.value, State.IN_DOUBT.value])
            query = select(table.c.hold_id, table.c.state).where(table.c.lead == lead.hold_id, states)
            rows = connection.execute(query.order_by(table.c.held_at, table.c.hold_id))
            copies = [(hold_id, State(state)) for hold_id, state in rows]
        sent = [(lead.hold_id, lead.state), *copies]
        going = [hold_id for hold_id, state in sent if state in SENDING]
        sendings = outboxes.sendings(connection, going, now_us)
        outs = {id: sendings.get(id, UNSENT).out for id in going}
        outs |= {id: ReleaseProgress.ALL for id, state in sent if state is State.RELEASED}
        counts = Counter(outs.values())
        free = [id for id, state in copies if state is State.WAITING or outs.get(id) is ReleaseProgress.NOTHING]
        return cls(
            lead=lead,
            free=tuple(free),
            begun=tuple(id for id, _ in copies if outs.get(id) in (ReleaseProgress.DOUBT, ReleaseProgress.PART)),
            sendings=sendings,
            outgoing=Outgoing(
                own=sendings.get(lead.hold_id),
                back=len(free) + (outs.get(lead.hold_id) is ReleaseProgress.NOTHING),
                going=sum(one.under_way for one in sendings.values()),
                doubt=counts[ReleaseProgress.DOUBT],
                gone=counts[ReleaseProgress.ALL] + counts[ReleaseProgress.PART],
            ),
        )


def outgoing(connection: Connection, now: datetime, hold_id: str) -> Outgoing:
    """Return how much is sent of a hold and of its approved copies."""
    lead = holds.find(connection, hold_id)
    return Outgoing() if lead is None else _Group.look(connection, lead, microseconds(now)).outgoing


def take_back(batch: Batch, hold_id: str, step: Step) -> tuple[list[Change], Outgoing]:
    """Apply ``step`` to a hold, approved or not, with the copies under it. Returns the changes of the hold, or of the
    copy that was promoted in its place, or of both; and how much was sent before. Raises NoSuch if there is no such
    hold, and Refused."""
    hold = deciding.existing(batch, hold_id)
    if hold.primary and deciding.existing(batch, hold.primary).state not in LET_GO:
        raise Conflict(f"it follows {hold.primary}")
    group = _Group.look(batch.connection, hold, batch.now_us)
    return _revoke(batch, group, step), group.outgoing


def take_back_mailing(
    batch: Batch, mailing_id: str, decide: Decide, step: Step
) -> tuple[Mailing, list[Change], Outgoing]:
    """Apply ``decide`` to a mailing, and ``step`` to all of it that is approved and not sent, in one commit. Returns
    the mailing, the changes, and how much was sent before. Raises NoSuch if there is no such mailing."""
    row = deciding.existing_mailing(batch, mailing_id)
    before = mailings_of(batch).view(row)
    ids = _leads_to_revoke(batch.connection, mailing_id).union(grant.hold_id for grant in before.grants)
    leads = (holds.find(batch.connection, id) for id in sorted(ids))
    groups = [_Group.look(batch.connection, lead, batch.now_us) for lead in leads if lead is not None]
    partly = (one for group in groups if (one := group.outgoing.own) is not None and one.out is ReleaseProgress.PART)
    whole = Outgoing(
        own=next(partly, None),
        back=sum(group.outgoing.back or group.lead.release_at is not None for group in groups),
        going=sum(group.outgoing.going for group in groups),
        doubt=sum(group.outgoing.doubt for group in groups),
        gone=sum(group.outgoing.gone for group in groups),
    )
    mailing, change = decide(before, whole)
    outboxes.record(batch, change.events, change.intents)
    mailings_of(batch).change(row, mailing)
    changes: list[Change] = []
    for group in groups:
        if group.outgoing.stoppable or group.lead.release_at is not None:
            with suppress(Refused):  # nothing of it can be revoked; the others are
                changes += _revoke(batch, group, step)
    return mailings_of(batch).view(row), changes, whole


def _leads_to_revoke(connection: Connection, mailing_id: str) -> frozenset[str]:
    """Return the primary holds of a mailing with approved copies that are not sent or wait for their stage, or whose
    approval has not taken effect yet."""
    sent = select(func.coalesce(table.c.lead, table.c.hold_id)).where(
        table.c.mailing == mailing_id, table.c.state.in_(_SENDING), outboxes.in_outbox()
    )
    lead = table.alias("lead")
    turn = (
        select(table.c.lead)
        .join(lead, lead.c.hold_id == table.c.lead)
        .where(table.c.mailing == mailing_id, table.c.state == State.WAITING.value)
        .where(lead.c.state.in_([state.value for state in LET_GO]))
    )
    leaving = select(table.c.hold_id).where(table.c.mailing == mailing_id, table.c.release_at.is_not(None))
    return frozenset(connection.execute(sent.union(turn, leaving)).scalars())


def _revoke(batch: Batch, group: _Group, step: Step) -> list[Change]:
    """Apply ``step`` to a group: to the hold, to a copy that is promoted in its place, or to both. Raises Refused, and
    has then written nothing."""
    made: list[tuple[Hold, Change]] = []
    lead, own = group.lead, group.outgoing.own or UNSENT
    out = own.out
    left = group.free or group.begun
    if lead.state in LET_GO and out is ReleaseProgress.NOTHING:
        lead = _as_left(batch, lead, lead)
    if out is not ReleaseProgress.ALL or not left:
        made.append((lead, step(lead, own, group.outgoing, True)))
    # copies that are begun follow the hold
    is_lead = out is ReleaseProgress.NOTHING or (out is not ReleaseProgress.ALL and not group.free)
    if left and not is_lead:
        successor = deciding.existing(batch, left[0]).in_place_of(lead)
        if group.free:
            successor = _as_left(batch, lead, successor)
        try:
            change = step(successor, group.sendings.get(successor.hold_id, UNSENT), group.outgoing, not made)
            made.append((successor, with_lead_data(successor, change)))
        except Refused:
            if not made:
                raise
        else:
            _hand_on(batch, lead, successor)
    changes = [deciding.apply(batch, hold, change) for hold, change in made]
    for change in changes if lead.state in LET_GO else ():
        if change.hold is not None and change.hold.state not in LET_GO:
            _lead(batch, change.hold)
    return changes


def _hand_on(batch: Batch, lead: Hold, successor: Hold) -> None:
    """Move the copies under the new primary hold, also those in flight: once they are revoked, they follow it."""
    batch.connection.execute(update(table).where(table.c.hold_id == successor.hold_id).values(lead=None))
    left = update(table).where(table.c.lead == lead.hold_id, or_(table.c.state.in_(_LEFT), table.c.asked.is_not(None)))
    batch.connection.execute(left.values(lead=successor.hold_id))


def _as_left(batch: Batch, lead: Hold, hold: Hold) -> Hold:
    """Return a hold with the number of copies and people that it stands for from now on: those under ``lead`` that are
    not sent, and its own."""
    ids = select(table.c.hold_id).where(table.c.lead == lead.hold_id, table.c.state.in_(_LEFT))
    copies = [id for id in batch.connection.execute(ids).scalars() if id != hold.hold_id]
    row = mailings_of(batch).by_name(hold.mailing_id) if hold.mailing_id else None
    reach = 0
    if row is not None:
        reach = mailings_of(batch).weight(row, holds.people_of(batch.connection, [hold.hold_id, *copies]))
    return replace(hold, copies=len(copies), reach=reach or hold.reach)


def _lead(batch: Batch, hold: Hold) -> None:
    """Store the number of copies under a hold that is not sent. It stands for itself, also if it was a copy. If it waits, its mailing
    waits for it."""
    own = update(table).where(table.c.hold_id == hold.hold_id)
    batch.connection.execute(own.values(copies=hold.copies, lead=None))
    row = mailings_of(batch).by_name(hold.mailing_id) if hold.mailing_id else None
    if row is not None and hold.state is State.WAITING and row.mailing.entry in ("", hold.hold_id):
        mailings_of(batch).change(row, replace(row.mailing, entry=hold.hold_id))
