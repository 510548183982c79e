"""Delete rows that no count needs any more: a range of the numbers each minute, all of them within some hours.

Numbers come from digests and are spread evenly, so a range of numbers is a share of the rows, and no index by time is
needed.
"""

from __future__ import annotations

from smtpguard.counts import legacy
from smtpguard.counts.contacts import KNOWN
from smtpguard.counts.entries import LIFE, unpack
from smtpguard.counts.people import rewritten
from smtpguard.database.batch import Batch

PARTS = 240
"""Minutes until each number has had its turn."""
MINUTE = 55 * 1_000_000  # microseconds; several processes may run this
MOST = 5000  # rows at a time, of an earlier version or of people
_LEAST, _NUMBERS = -(1 << 63), 1 << 64


def prune(batch: Batch) -> None:
    """Sweep the next part, unless a process did so within this minute."""
    found = batch.select("SELECT at, part FROM swept")
    last, part = found[0] if found else (0, -1)
    if last <= batch.now_us < last + MINUTE:
        return
    batch.flush()
    part = (part + 1) % PARTS
    batch.rows("swept").append((1, batch.now_us, part))
    first, after = (_LEAST + _NUMBERS * n // PARTS for n in (part, part + 1))
    sweep(batch, first, after - 1)
    legacy.prune(batch, batch.now_us - LIFE, batch.now_us - KNOWN, MOST)
    batch.execute("DELETE FROM tally WHERE made < ?", [(batch.now_us - LIFE,)])
    batch.execute("DELETE FROM reset WHERE at < ?", [(batch.now_us - 2 * KNOWN,)])


def sweep(batch: Batch, first: int, last: int) -> None:
    """Sweep the numbers in this range."""
    over = batch.now_us - LIFE
    _people(batch, first, last, over)
    for table, key in (("again", "content"), ("sent", "message")):
        batch.execute(f"DELETE FROM {table} WHERE {key} BETWEEN ? AND ? AND due < ?", [(first, last, batch.now_us)])
    batch.execute("DELETE FROM moment WHERE scope BETWEEN ? AND ? AND until < ?", [(first, last, over)])


def _people(batch: Batch, first: int, last: int, over: int) -> None:
    """A person who is also counted under another scope keeps that entry."""
    sql = f"SELECT person, doc, weights FROM person WHERE person BETWEEN ? AND ? AND due < ? LIMIT {MOST:d}"
    gone: list[tuple[int]] = []
    for person, doc, weights in batch.select(sql, (first, last, over)):
        left = rewritten(unpack(doc), None if weights is None else unpack(weights), over)
        if left is None:
            gone.append((person,))
        else:
            batch.rows("person").append((person, *left))
    if gone:
        batch.execute("DELETE FROM person WHERE person = ?", gone)
