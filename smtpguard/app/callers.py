"""Who sent the newest messages: the clients and listeners in the verdicts of a journal."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select

from smtpguard.database.engine import Database
from smtpguard.database.schema import entry
from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Kind

_MOST = 500_000  # newest entries are read
_PAGE = 5_000  # entries are read at a time
_CALLER = re.compile(r'"(client|listener|peer)":"([^"\\]*)"')


class Caller(NamedTuple):
    """A client of a message. ``peer``: the address that connected, if it named another client; ``listener``: "" if an earlier
    version did not record it."""

    client: str
    peer: str = ""
    listener: str = ""


def callers_at(url: str, since: datetime) -> Counter[Caller]:
    """Count the messages since a time by their caller. The schema may be an older version's, since this runs before an upgrade:
    these columns have been the same since the first. Raises StoreError and ValueError."""
    found: Counter[Caller] = Counter()
    with closing(Database(url, reads=True)) as database:
        with database.read() as connection:
            last = connection.execute(select(entry.c.seq).order_by(entry.c.seq.desc()).limit(1)).scalar() or 0
        lowest, since_us = last - _MOST, microseconds(since)
        while last > max(lowest, 0):
            start = last - _PAGE
            query = select(entry.c.at, entry.c.kind, entry.c.body).where(entry.c.seq > start, entry.c.seq <= last)
            with database.read() as connection:
                rows = connection.execute(query).all()
            found.update(
                Caller(**dict(_CALLER.findall(body)))
                for at, kind, body in rows
                if kind == Kind.VERDICT.value and at >= since_us and '"client":"' in body
            )
            if not rows or max(at for at, _, _ in rows) < since_us:
                break
            last = start
    return found
