"""An incident report, made for whoever asks: written down where it names people, found in the journal, and its rules named in the
words of the policies that decided. One way for the page, the API and the command line.

Never here: what a report says (incident, incidentrow), or who may have one (pages, api, cli).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from smtpguard.audit.about import About
from smtpguard.audit.report import Report
from smtpguard.console.desk import Desk
from smtpguard.console.ports import Found
from smtpguard.guard.mailings import whole_ids
from smtpguard.guard.ports import Ledger
from smtpguard.policy.purposes import Documents, Purposes, purposes

Find = Callable[[About], Awaitable[Found]]


class Occupied(Exception):
    """Another report is being made here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """``about``: as it was asked, with whole ids. ``report``: that of ``found``. ``at``: when it was asked for. ``names``: with
    what names people."""

    about: About
    found: Found
    report: Report
    purposes: Purposes
    at: datetime
    names: bool
    keeps: timedelta
    """For so long at least the content of what was held is kept."""


async def make(
    about: About,
    find: Find,
    ledger: Ledger,
    *,
    at: datetime,
    names: bool,
    by: tuple[str, ...],
    language: str,
    delimiters: str,
    keeps: timedelta,
) -> Made | None:
    """None where nothing in the journal fits. ``by``: who asks, as journalled. Raises TooMany and LedgerError."""
    about = replace(about, ids=await whole_ids(ledger, about.ids))
    if names:
        await ledger.record([about.exported(at, *by)])
    found = await find(about)
    if found.report is None:
        return None
    documents = {sha256: await _documents(ledger, sha256) for sha256 in found.report.policies}
    said = await asyncio.to_thread(purposes, documents, delimiters=delimiters, language=language)
    return Made(about=about, found=found, report=found.report, purposes=said, at=at, names=names, keeps=keeps)


async def at_the_desk(
    desk: Desk, about: About, *, prove: bool, names: bool, by: tuple[str, ...], language: str
) -> Made | None:
    """One at a time, since it takes memory and the time of a processor. Raises Occupied, TooMany and LedgerError."""
    if desk.reporting.locked():
        raise Occupied
    async with desk.reporting:
        return await make(
            about,
            partial(desk.archive.incident, prove=prove),
            desk.ledger,
            at=desk.clock.now(),
            names=names,
            by=by,
            language=language,
            delimiters=desk.policies.current().registry.digester.delimiters,
            keeps=desk.keeps,
        )


async def _documents(ledger: Ledger, sha256: str) -> Documents | None:
    try:
        return await ledger.policy(sha256)
    except KeyError:
        return None
