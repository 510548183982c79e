"""What a crash leaves open: verdicts to relay that never got an outcome. They are reported as in doubt (RFC 1047).

The client was given no 250 for any of them, so it tries again; a retry to a list's address then waits for a person, since the
relay may have taken the first one.
"""

from __future__ import annotations

from datetime import timedelta

from smtpguard.guard.ports import Clock, Ledger
from smtpguard.journal.event import Event, Kind

SETTLED_WITHIN = timedelta(minutes=15)  # past the longest wait for a relay's reply (RFC 5321 section 4.5.3.2.6)


async def report_doubts(ledger: Ledger, clock: Clock) -> tuple[str, ...]:
    """Journal an IN_DOUBT for each verdict that has waited too long for its outcome; their ids. Raises LedgerError."""
    now = clock.now()
    left = tuple(await ledger.journal.unsettled(now - SETTLED_WITHIN))
    if left:
        why = {"why": "no outcome was recorded: the process that relayed it was ended"}
        await ledger.journal.record([Event(kind=Kind.IN_DOUBT, id=id, at=now, data=why) for id in left])
    return left
