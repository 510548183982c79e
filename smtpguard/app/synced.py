"""What became of lists' syncs that people asked for, in the journal, and in notices to whom they concern.

Never here: the sync itself (lists.sync), or who is told (guard.outages).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smtpguard.app.clock import SystemClock
from smtpguard.app.lists import built_registry
from smtpguard.app.services import opened
from smtpguard.config.settings import Settings
from smtpguard.guard.inforce import InForce
from smtpguard.guard.outages import events, intents
from smtpguard.lists.report import Report
from smtpguard.policy.parse import Policy
from smtpguard.store.migrate import NotSetUp


async def journal(settings: Settings, policy: Policy, reports: Sequence[Report], *, by: str) -> bool:
    """False: there is no journal yet, since nothing was ever served here. Raises CannotStart and LedgerError."""
    if _never_made(settings.store.url):
        return False  # to open it would make it
    try:
        async with opened(settings) as (store, digester):
            in_force = InForce.of(policy, built_registry(settings, policy, digester, SystemClock()))
            await store.record(
                [event for report in reports for event in events(report, by)],
                tuple(intent for report in reports for intent in intents(report, in_force)),
            )
    except NotSetUp:
        return False
    return True


def _never_made(url: str) -> bool:
    """A SQLite database whose file is not there."""
    head, _, file = url.partition(":///")
    return head.startswith("sqlite") and not Path(file).exists()
