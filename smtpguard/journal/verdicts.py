"""The verdicts of a time, read on for somebody who works through all of them, however many: what a policy is tried on before it
is put in force.

A stretch at a time, each in a short transaction of its own (walk).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from smtpguard.database.access import Access
from smtpguard.database.schema import entry
from smtpguard.journal import rows as journal
from smtpguard.journal import scan as journalscan
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Kind


async def verdicts(
    access: Access, since: datetime, until: datetime, progress: journalscan.Progress | None = None
) -> AsyncIterator[Sequence[journalscan.Pair]]:
    """In order, with the clear values that are still there; ``until`` itself is after them. Raises LedgerError."""

    def bounds(connection: Connection) -> tuple[int, int]:
        first, end = (journal.first_at(connection, microseconds(at)) for at in (since, until))
        return first - 1, end - 1

    before, last = await access.ask(bounds, snapshot=True)
    after = before
    while after < last:
        rows, after = await access.ask(partial(_stretch, after, last), snapshot=True)
        if rows:
            yield list(map(journal.pair, rows))
        if progress is not None:
            progress(after - before, last - before)


def _stretch(after: int, until: int, connection: Connection) -> tuple[Sequence[Any], int]:
    return journalscan.stretch(connection, after, until, entry.c.kind == Kind.VERDICT.value)
