"""Find clients of the last 30 days that no listener would admit under the current settings.

Read from the journal, whose entries another version may have written. An entry that does not say who connected is
skipped, since a trusted MTA may have named the client.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta

from smtpguard.app.files import store_url
from smtpguard.app.finding import Finding, State
from smtpguard.app.storestatus import unreadable
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.database.errors import LedgerError
from smtpguard.journal.scan import Caller, callers_at
from smtpguard.mail.envelope import within

CAME = timedelta(days=30)
MOST = 20
"""Clients that are named."""


async def turned_away(settings: Settings, now: datetime) -> list[Finding]:
    """Clients with the most messages first. Nothing if the store cannot be read, which is reported elsewhere."""
    if unreadable(settings) is not None or not settings.secret_file.exists():
        return []
    try:
        came = await asyncio.to_thread(callers_at, store_url(settings), now - CAME)
    except (LedgerError, Broken, ValueError):
        return []
    away: Counter[tuple[str, str]] = Counter()
    for caller, messages in came.items():
        if not _admitted(settings, caller):
            away[caller.peer or caller.client, caller.listener or "every listener"] += messages
    named = away.most_common(MOST)
    found = [_finding(f"{client} would be refused by {by}", n) for (client, by), n in named]
    if rest := len(away) - len(named):
        found.append(_finding(f"{rest:,} more clients would be refused", away.total() - sum(n for _, n in named)))
    return found


def _admitted(settings: Settings, caller: Caller) -> bool:
    """A listener that no longer exists may have been renamed: any listener may admit the client."""
    if not caller.listener and settings.trust:  # of an earlier version: it may not be who connected
        return True
    every = [each for _, _, each in settings.listen.each()]
    some = [each for each in every if each.called == caller.listener] or every
    address = caller.peer or caller.client
    return any(each.admitted is None or not address or within(address, each.admitted) for each in some)


def _finding(text: str, messages: int) -> Finding:
    number = f"{messages:,} {'message' if messages == 1 else 'messages'} of the last 30 days"
    return Finding(about="clients", state=State.UNKNOWN, text=f"{text}: {number}")
