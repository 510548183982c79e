"""What became of a list's sync, in the journal: for the guard that refreshes by itself, and for people who ask for it.

Never here: the sync itself (lists.sync).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smtpguard.app.services import opened
from smtpguard.audit.event import Event, Kind
from smtpguard.config.settings import Settings
from smtpguard.lists.report import Report
from smtpguard.store.migrate import NotSetUp


def event(report: Report, by: str = "") -> Event:
    """A list's index was replaced, or its source failed. ``by``: the person who asked for it."""
    data = {"people": report.people, "version": report.version, "problem": report.problem or None,
            "rows": report.rows, "bad_rows": report.bad, "source": report.source}  # fmt: skip
    return Event(kind=Kind.LIST, id=report.list, at=report.at, data=data, private={"actor": (by,)} if by else {})


async def journal(settings: Settings, reports: Sequence[Report], *, by: str) -> bool:
    """False: there is no journal yet, since nothing was ever served here. Raises CannotStart and LedgerError."""
    if _never_made(settings.store.url):
        return False  # to open it would make it
    try:
        async with opened(settings) as (store, _):
            await store.record([event(report, by) for report in reports])
    except NotSetUp:
        return False
    return True


def _never_made(url: str) -> bool:
    """A SQLite database whose file is not there."""
    head, _, file = url.partition(":///")
    return head.startswith("sqlite") and not Path(file).exists()
