"""Copies that are stored under a hold go its way, a slice a commit: out with its approval, or back when that is taken back.

What a crash leaves of it, or a pause between two stages, or a copy that was under way, the sweep takes up. Never here: what
becomes of a copy (granting, takingback).
"""

from __future__ import annotations

from datetime import datetime

from smtpguard.guard import granting, takingback
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Ledger
from smtpguard.policy.admission import Change
from smtpguard.policy.approval import Hold, State
from smtpguard.policy.mailing import Mailing
from smtpguard.policy.sending import Sending

SLICE = 100  # copies that go their way in one commit


async def follow(ledger: Ledger, lead_id: str, in_force: InForce, now: datetime) -> int:
    """How many went their way."""
    followed = 0

    def step(lead: Hold, copy: Hold, mailing: Mailing | None, new: int, sending: Sending | None) -> Change | None:
        if copy.state is State.WAITING:
            return granting.followed(lead, copy, mailing, new, now)
        return takingback.after_its_lead(lead, copy, sending, in_force, now)

    while True:
        n = await ledger.follow(lead_id, SLICE, step)
        followed += n
        if n < SLICE:
            return followed


async def sweep(ledger: Ledger, in_force: InForce, now: datetime) -> int:
    """All that have not come after what leads them. Called every few seconds by one delivery process."""
    return sum([await follow(ledger, lead_id, in_force, now) for lead_id in await ledger.decided_leads()])
