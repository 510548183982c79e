"""Learn contacts from the journal, at the first start of a version that records them.

The verdicts of 90 days are read, newest first and a stretch at a time, as far as their addresses are not erased. A message that
passed makes its recipients known to its sender, and so does one that was held and approved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, select

from smtpguard.counts.contacts import KNOWN, PastMessage, record
from smtpguard.database.access import Access, Open
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.schema import contact_since
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry, Pair, instant
from smtpguard.journal.event import Kind

MOST = 300_000
"""The most verdicts that are read, so that a start takes a minute or two at most."""

Read = Callable[[Entry, Clear], PastMessage | None]
"""A function that reads a verdict's entry. It returns None if the message is no letter, or has no sender."""


async def known_since(access: Access) -> datetime | None:
    """Return the time from which on contacts are known; None if the earlier journal has not been read yet.

    Raises StoreError.
    """
    at = await access.ask(_since)
    return None if at is None else instant(at)


async def recall(access: Access, read: Read, most: int = MOST) -> int:
    """Read the journal if that was not done yet. Return the number of verdicts that made contacts known.

    Raises StoreError.
    """
    if await access.ask(_since) is not None:
        return 0
    found = taken = 0
    since: int | None = None
    approved: set[str] = set()
    before = await access.ask(lambda c: read_head(c).seq) + 1
    while before > 1 and taken < most:
        pairs = await access.walk(partial(_newest, before))
        before -= journal.STRETCH
        letters: list[PastMessage] = []
        told = erased = 0
        for made, clear in pairs:
            if made.kind in (Kind.APPROVED.value, Kind.CONFIRMED.value):
                approved.add(made.id)
                continue
            if clear is None:
                erased += 1
                continue
            told, since = told + 1, made.at
            if (made.data.get("action") == "relay" or made.id in approved) and (letter := read(made, clear)):
                letters.append(letter)
        taken += told + erased
        found += len(letters)
        oldest = min((made.at for made, _ in pairs), default=None)
        if await access.write(partial(_write, letters, oldest)) or (erased and not told):
            break
    await access.write(partial(_done, since))
    return found


def _since(connection: Connection) -> int | None:
    return connection.execute(select(contact_since.c.at)).scalar()


def _newest(before: int, open: Open) -> list[Pair]:
    return next(journal.back(open, before, 1, journal.of_kind(Kind.VERDICT, Kind.APPROVED, Kind.CONFIRMED)))


def _write(letters: Sequence[PastMessage], oldest: int | None, batch: Batch) -> bool:
    """Record the contacts of letters. Return whether everything earlier is too old."""
    floor = batch.now_us - KNOWN
    record(batch, [letter for letter in letters if letter.at_us > floor])
    return oldest is not None and oldest <= floor


def _done(since: int | None, batch: Batch) -> None:
    """Record that the journal was read. The first process that is done does so; others beside it have read the same."""
    at = batch.now_us if since is None else max(since, batch.now_us - KNOWN)
    if not batch.select("SELECT at FROM contact_since"):
        batch.rows("contact_since").append((1, at))
