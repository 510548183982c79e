"""Delete the rows that no count needs any more: a range of the numbers each minute, all of them within some hours.

Numbers come from digests and are spread evenly, so a range of numbers is a share of the rows, and no index by time is needed.
"""

from __future__ import annotations

from smtpguard.counts.contacts import KNOWN
from smtpguard.counts.people import LIFE, rewritten, unpack
from smtpguard.database.batch import Batch

PARTS = 240
"""The number of ranges, and so the minutes until each number has had its turn."""
MINUTE = 55 * 1_000_000
"""The least microseconds between two sweeps, whichever processes do them."""
MOST = 5000
"""The most people that one sweep deletes or rewrites."""
_LEAST, _NUMBERS = -(1 << 63), 1 << 64


def sweep_next(batch: Batch) -> None:
    """Sweep the next range, unless a process did so within this minute."""
    found = batch.select("SELECT at, part FROM swept")
    last, part = found[0] if found else (0, -1)
    if last <= batch.now_us < last + MINUTE:
        return
    batch.flush()
    part = (part + 1) % PARTS
    batch.rows("swept").append((1, batch.now_us, part))
    first, after = (_LEAST + _NUMBERS * n // PARTS for n in (part, part + 1))
    sweep(batch, first, after - 1)
    batch.execute("DELETE FROM tally WHERE made < ?", [(batch.now_us - LIFE,)])
    batch.execute("DELETE FROM reset WHERE at < ?", [(batch.now_us - 2 * KNOWN,)])


def sweep(batch: Batch, first: int, last: int) -> None:
    """Delete the rows of these numbers that no count needs any more. ``last`` is among the numbers."""
    over = batch.now_us - LIFE
    sql = f"SELECT person, doc, weights FROM person WHERE person BETWEEN ? AND ? AND due < ? LIMIT {MOST:d}"
    gone: list[tuple[int]] = []
    for person, doc, weights in batch.select(sql, (first, last, over)):
        left = rewritten(unpack(doc), None if weights is None else unpack(weights), over)
        if left is None:
            gone.append((person,))
        else:  # also counted under another scope
            batch.rows("person").append((person, *left))
    if gone:
        batch.execute("DELETE FROM person WHERE person = ?", gone)
    for table, key in (("again", "content"), ("sent", "message")):
        batch.execute(f"DELETE FROM {table} WHERE {key} BETWEEN ? AND ? AND due < ?", [(first, last, batch.now_us)])
    batch.execute("DELETE FROM moment WHERE scope BETWEEN ? AND ? AND until < ?", [(first, last, over)])
