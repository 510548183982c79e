"""Look up ids by unique prefix. terms looks up what others call a message."""

from __future__ import annotations

import json
from itertools import chain

from sqlalchemy import Connection, select

from smtpguard.database.schema import clear, entry
from smtpguard.journal.event import Kind
from smtpguard.mailings import rows as mailings

MOST = 10
_LATELY = 5000
_NAMED = (Kind.VERDICT.value, Kind.FREEZE.value)


def called(connection: Connection, word: str) -> list[str]:
    """The ids of messages, mailings and freezes that may be called so, at most ten; where one is called exactly so, that alone."""
    low = word.strip().upper()
    if not low:
        return []
    for exactly in dict.fromkeys((word, low)):
        if connection.execute(select(entry.c.seq).where(entry.c.id == exactly).limit(1)).first() is not None:
            return [exactly]
    begins = mailings.begin_so(entry.c.id, low)
    ids = connection.execute(
        select(entry.c.id).where(*begins, entry.c.kind.in_(_NAMED)).distinct().order_by(entry.c.id).limit(MOST)
    ).scalars()
    found = sorted({*ids, *mailings.named(connection, low)})
    return [low] if low in found else found[:MOST]


def writers(connection: Connection) -> list[str]:
    """Who wrote, of the newest messages, as far as that is not erased."""
    query = select(clear.c.doc).join(entry, entry.c.seq == clear.c.seq).where(entry.c.kind == Kind.VERDICT.value)
    rows = connection.execute(query.order_by(entry.c.seq.desc()).limit(_LATELY)).scalars()
    who = (json.loads(row) for row in rows)
    return list(dict.fromkeys(chain.from_iterable((*one.get("from", ()), *one.get("reverse_path", ())) for one in who)))
