"""Follow the journal in the delivery part and log the actions of people, whichever process recorded them.

A command's standard error is a terminal, so votes and freezes from the command line would be in no log. Therefore no
process logs the actions of people itself. One follower in an installation does, under a lease. It starts where the last
one stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import timedelta

from smtpguard.database.errors import LedgerError
from smtpguard.guard.ports import Clock
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.event import Event, Kind
from smtpguard.observe import log as lines
from smtpguard.observe.cursor import Cursor
from smtpguard.observe.webhooks.rows import Cursors

log = logging.getLogger(__name__)

PEOPLES = frozenset(
    {
        Kind.VOTE,
        Kind.APPROVED,
        Kind.CONFIRMED,
        Kind.REJECTED,
        Kind.WITHDRAWN,
        Kind.FREEZE,
        Kind.THAW,
        Kind.THAW_ASKED,
        Kind.BYPASS,
        Kind.MAILING,
        Kind.POLICY,
        Kind.VIEWED,
        Kind.ASKED,
        Kind.ANSWERED,
        Kind.PLEADED,
        Kind.JUDGED,
        Kind.EXPORTED,
        Kind.ACCOUNT,
        Kind.ABSENCE,
        Kind.GROUP,
        Kind.TOKEN,
    }
)
"""Kinds of what a command can do, and what another process does about it later, such as the end of a freeze."""

NAME = "(log)"  # the cursor's name; config forbids it for webhooks
POLL_SECONDS = 1.0
LEASE_SECONDS = 60.0
SCAN = 500  # lines at a time


class AuditFollower:
    """``tell`` gets each entry at least once; twice if the process died between the line and the cursor."""

    def __init__(self, cursors: Cursors, clock: Clock, tell: Callable[[Event], None] = lines.tell) -> None:
        self._cursors, self._clock, self._tell = cursors, clock, tell

    async def run(self) -> None:
        """Never returns. If the store does not answer it tries again."""
        while True:
            try:
                told = await self.told()
            except LedgerError as e:
                log.warning("audit log: the store does not answer: %s", type(e).__name__)
                told = 0
            if told < SCAN:
                await asyncio.sleep(POLL_SECONDS)

    async def told(self) -> int:
        """Log the entries that are there, and return how many lines. The first time it begins with the next entry.
        Raises LedgerError."""
        place = await self._cursors.at(NAME)
        news = await self._cursors.news(place.told, tuple(PEOPLES), SCAN)
        if not news.entries:
            if news.through > place.told:
                await self._cursors.pass_over(NAME, place, news.through)
            return 0
        until = self._clock.now() + timedelta(seconds=LEASE_SECONDS)
        if (leased := await self._cursors.taken(NAME, place, until)) is None:
            return 0
        for entry, clear in news.entries:
            with contextlib.suppress(Exception):  # a log that cannot be written must not block the next lines
                self._tell(_event(entry, clear))
        await self._cursors.settle(NAME, Cursor(told=news.through, lease=leased.lease))
        return len(news.entries)


def _event(entry: Entry, clear: Clear | None) -> Event:
    """``at``: when it was done, since its line may be later; ``entry``: its number in the journal."""
    data = {"at": entry.time.isoformat(timespec="seconds"), "entry": entry.seq, **entry.data}
    private = {role: tuple(values) for role, values in (clear or {}).items()}
    return Event(kind=Kind(entry.kind), id=entry.id, at=entry.time, data=data, private=private)
