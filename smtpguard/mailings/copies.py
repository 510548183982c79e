"""Let the stored copies of a mailing follow their primary hold, a slice a commit: sent when it is approved, back to
waiting when it is revoked.

The sweep continues what a crash, a pause between two stages, or a copy in flight has left behind.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from smtpguard.database.errors import LedgerError
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Ledger
from smtpguard.holds import effects
from smtpguard.holds.model import LET_GO, Change, Hold, State
from smtpguard.holds.sending import Sending
from smtpguard.journal.event import Event, Kind
from smtpguard.mailings import revoking
from smtpguard.mailings.model import Mailing
from smtpguard.notices.intents import Notices

log = logging.getLogger(__name__)

SLICE = 100  # copies that follow in one commit


async def follow(ledger: Ledger, lead_id: str, notices: Notices, in_force: InForce, now: datetime) -> int:
    """Returns how many copies followed."""
    followed = 0
    later: list[str] = []  # letters of a sender that came after those that were decided on

    def step(
        lead: Hold, copy: Hold, mailing: Mailing | None, new: int, sending: Sending | None, covered: bool
    ) -> Change | None:
        if copy.state is not State.WAITING:
            return revoking.after_its_lead(lead, copy, sending, in_force, now)
        if not covered and lead.state in LET_GO and lead.queue:
            later.append(copy.hold_id)
            return _later(lead, copy, notices, in_force, now, first=len(later) == 1)
        if not covered and lead.state in LET_GO:
            return _apart(lead, copy, mailing, notices, in_force, now)
        return effects.followed(lead, copy, mailing, new, now)

    while True:
        n = await ledger.holds.follow(lead_id, SLICE, step)
        followed += n
        if n < SLICE:
            return followed


async def begin(ledger: Ledger, lead_id: str, notices: Notices, in_force: InForce, now: datetime) -> None:
    """``follow``, after a committed decision. A busy store raises nothing, since the decision is in force; the sweep goes
    on with the copies."""
    try:
        await follow(ledger, lead_id, notices, in_force, now)
    except LedgerError as error:
        log.warning("copies of hold %s follow later: %s", lead_id, type(error).__name__)


async def sweep(ledger: Ledger, notices: Notices, in_force: InForce, now: datetime) -> int:
    """All copies that have not followed their primary hold. One delivery process calls it every few seconds."""
    return sum(
        [await follow(ledger, lead_id, notices, in_force, now) for lead_id in await ledger.holds.decided_leads()]
    )


def _apart(
    lead: Hold, copy: Hold, mailing: Mailing | None, notices: Notices, in_force: InForce, now: datetime
) -> Change:
    """A copy that the approval does not cover waits for people: the first such becomes primary hold of the others, with
    the lists, rules and writers of the old one."""
    event = Event(kind=Kind.APART, id=copy.hold_id, at=now, data={"with": lead.hold_id})
    if mailing is not None and mailing.entry:
        return Change(hold=copy, events=(event,), apart=True)
    successor = replace(
        copy, primary="", lists=lead.lists, senders=lead.senders, told=lead.told, verdict=lead.verdict, reopened_at=now
    )
    return Change(hold=successor, events=(event,), intents=notices.differs(successor, in_force, now), apart=True)


def _later(lead: Hold, letter: Hold, notices: Notices, in_force: InForce, now: datetime, *, first: bool) -> Change:
    """A sender's letter that was not listed to the deciders: it waits with others like it."""
    event = Event(kind=Kind.APART, id=letter.hold_id, at=now, data={"with": lead.hold_id})
    successor = replace(
        letter,
        primary="",
        lists=lead.lists,
        senders=lead.senders,
        told=lead.told,
        verdict=lead.verdict,
        reopened_at=now,
    )
    return Change(
        hold=successor, events=(event,), intents=notices.later(successor, in_force, now) if first else (), apart=True
    )
