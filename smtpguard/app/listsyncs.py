"""Sync lists outside their schedule: the first syncs before mail comes, and journal entries and notices for syncs that
people started."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence

from smtpguard.app.clock import SystemClock
from smtpguard.app.lists import built_refresher, built_registry, open_registry
from smtpguard.app.services import opened
from smtpguard.config.settings import Settings
from smtpguard.database.migrate import NotSetUp
from smtpguard.guard.inforce import InForce
from smtpguard.lists.report import Report
from smtpguard.notices.listalerts import events, intents
from smtpguard.policy.parse import Policy
from smtpguard.store.writer import Committed

FIRST_SECONDS = 20.0


async def first_time(
    settings: Settings,
    policy: Policy,
    *,
    by: str,
    seconds: float = FIRST_SECONDS,
    committed: Committed | None = None,
) -> None:
    """Read the lists that have no index yet, before mail comes that would be held without them. At most ``seconds``:
    the rest is read while mail comes. ``committed`` gets the journalled events. Raises CannotStart and LedgerError."""
    registry, clock = open_registry(settings, policy), SystemClock()
    unread = [registry.lists[name] for name, status in registry.statuses.items() if status.index is None]
    if not any(info.members for info in unread):
        return
    stop, loop, done = threading.Event(), asyncio.get_running_loop(), asyncio.Event()
    refresher = built_refresher(settings, policy, registry.digester, stop=stop.is_set)
    reports: list[Report] = []

    def read() -> None:
        try:
            for info in unread:
                if info.members and not stop.is_set():
                    reports.append(refresher.sync(info, clock.now()))
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=read, name="smtpguard-lists", daemon=True).start()  # a source may hang: not waited for
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        pass
    finally:
        stop.set()
    await journal(settings, policy, tuple(r for r in reports if r.news), by=by, committed=committed)


async def journal(
    settings: Settings, policy: Policy, reports: Sequence[Report], *, by: str, committed: Committed | None = None
) -> bool:
    """False: there is no journal yet, since the guard has never served here. Raises CannotStart and LedgerError."""
    try:
        async with opened(settings, committed=committed) as (store, digester):
            in_force = InForce.of(policy, built_registry(settings, policy, digester, SystemClock()))
            await store.journal.record(
                [event for report in reports for event in events(report, by)],
                tuple(intent for report in reports for intent in intents(report, in_force)),
            )
    except NotSetUp:
        return False
    return True
