"""Who brought messages lately, as the journal has it: by the address that connected, and the listener.

The schema may be an older version's, since this is asked before an upgrade: entries have been the same since the first.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select

from smtpguard.database.engine import Database
from smtpguard.database.schema import entry
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Kind

MOST = 500_000
"""Entries that are looked through, the newest."""
_PAGE = 5_000
_SAID = re.compile(r'"(client|listener|peer)":"((?:[^"\\\\]|\\\\.)*)"')


class Caller(NamedTuple):
    """``peer``: who connected, where it told of another client; ``listener``: "" where an earlier version did not say."""

    client: str
    peer: str = ""
    listener: str = ""


def callers_at(url: str, since: datetime) -> Counter[Caller]:
    """Messages by who brought them. Raises LedgerError and ValueError."""
    found: Counter[Caller] = Counter()
    database = Database(url, reads=True)
    try:
        with database.read() as connection:
            last = connection.execute(select(entry.c.seq).order_by(entry.c.seq.desc()).limit(1)).scalar() or 0
        lowest, since_us = last - MOST, microseconds(since)
        while last > max(lowest, 0):
            start = last - _PAGE
            query = select(entry.c.at, entry.c.kind, entry.c.body).where(entry.c.seq > start, entry.c.seq <= last)
            with database.read() as connection:
                rows = connection.execute(query).all()
            found.update(
                Caller(**dict(_SAID.findall(body)))
                for at, kind, body in rows
                if kind == Kind.VERDICT.value and at >= since_us and '"client":"' in body
            )
            if not rows or max(at for at, _, _ in rows) < since_us:
                break
            last = start
    finally:
        database.close()
    return found
