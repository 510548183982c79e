"""Retention of mailings: the recipients are erased with the retention of addresses, single letters after days.

A mailing without copies for long is over: its keys are deleted, so that the same text begins another. The newest row
stays, without its content, since numbers are given from it on.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update

from smtpguard.database.batch import Batch
from smtpguard.database.schema import mailing, mailing_key, preserved_key, reached
from smtpguard.journal.chain import microseconds
from smtpguard.mailings.mailingbatch import QUIET as OVER
from smtpguard.mailings.mailingrow import COLUMNS, NOBODY, NOTHING, Row
from smtpguard.mailings.model import State

QUIET = timedelta(microseconds=OVER)
LETTER = timedelta(days=2)
"""For messages to one person."""
LETTERS = timedelta(days=8)
"""For messages to a few people: their writer, who sends the same text every working day, may be away for a weekend or a
week."""
FEW = 20
SLICE = 500
CUT = 10_000


def forget(batch: Batch, before: datetime) -> tuple[int, bool]:
    """One slice. Returns how many mailings were deleted, and whether there are more."""
    batch.flush()
    newest = batch.connection.execute(select(func.max(mailing.c.n))).scalar() or 0

    def quiet(since: timedelta) -> ColumnElement[bool]:
        return mailing.c.last_at < microseconds(batch.now - since)

    of_few = quiet(LETTER), mailing.c.people < FEW, or_(mailing.c.people < 2, quiet(LETTERS))
    letters = _oldest(batch, newest, *of_few, mailing.c.state == State.PASSING.value)
    old = _oldest(batch, newest, mailing.c.last_at < microseconds(before))
    gone, left = _erase(batch, list(dict.fromkeys([*letters, *old])))
    blank, more = _blank(batch, before, newest)
    ended = _oldest(batch, newest, quiet(QUIET), mailing.c.filed.is_(True))  # their keys are deleted
    _unfile(batch, ended)
    return gone + blank, left or more or len(letters) >= SLICE or len(ended) >= SLICE


def _oldest(batch: Batch, newest: int, *wanted: ColumnElement[bool]) -> list[int]:
    """A slice of the matching rows, without the newest row, and without those of preserved incidents
    (incidents.preservation)."""
    needed = exists().where(preserved_key.c.what == "id", preserved_key.c.key == mailing.c.id)
    query = select(mailing.c.n).where(mailing.c.n < newest, *wanted, ~needed).order_by(mailing.c.last_at).limit(SLICE)
    return list(batch.connection.execute(query).scalars())


def _erase(batch: Batch, numbers: list[int], *, but_its_row: bool = False) -> tuple[int, bool]:
    """Delete their people first, in slices."""
    _unfile(batch, numbers)
    room, done = CUT, []
    for n in numbers:
        some = select(reached.c.person).where(reached.c.n == n).limit(room).scalar_subquery()
        room -= batch.connection.execute(delete(reached).where(reached.c.n == n, reached.c.person.in_(some))).rowcount
        if room <= 0:
            break
        done.append(n)
    if done and not but_its_row:
        batch.connection.execute(delete(mailing).where(mailing.c.n.in_(done)))
    return len(done), len(done) < len(numbers)


def _blank(batch: Batch, before: datetime, newest: int) -> tuple[int, bool]:
    """Empty the newest row, if it is old too."""
    needed = exists().where(preserved_key.c.what == "id", preserved_key.c.key == mailing.c.id)
    old = ~needed, mailing.c.n == newest, mailing.c.last_at < microseconds(before), mailing.c.doc != NOTHING
    if batch.connection.execute(select(mailing.c.n).where(*old)).scalar() is None:
        return 0, False
    done, left = _erase(batch, [newest], but_its_row=True)
    if done:
        blank = {"state": State.PASSING.value, "people": 0, "sketch": b"", "counts": NOBODY, "doc": NOTHING}
        batch.connection.execute(update(mailing).where(mailing.c.n == newest).values(**blank))
    return done, left


def _unfile(batch: Batch, numbers: list[int]) -> None:
    for n in numbers:
        for columns in batch.select(f"SELECT {COLUMNS} FROM mailing WHERE n = ?", (n,)):
            for key in Row.read(*columns).known.keys:
                batch.connection.execute(delete(mailing_key).where(mailing_key.c.key == key, mailing_key.c.n == n))
    if numbers:
        batch.connection.execute(update(mailing).where(mailing.c.n.in_(numbers)).values(filed=False))
