"""Erase mailings, sets of people and templates that are no longer needed.

Recipients are erased with the retention of addresses, single letters after days, but not while a decision on the mailing is in force. A
mailing without copies for long is over: its keys are deleted, so that the same text begins another. The newest row stays, without its
content, since numbers are given from it on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update

from smtpguard.database.batch import Batch
from smtpguard.database.schema import DECIDED, cover, hold, mailing, peopleset, preserved_key
from smtpguard.holds.model import HOLD, LIVE
from smtpguard.journal.chain import microseconds
from smtpguard.mailings.mailingbatch import QUIET as OVER
from smtpguard.mailings.mailingrow import COLUMNS, ERASED, NO_COUNTS, MailingRow
from smtpguard.mailings.model import Grant, State

QUIET = timedelta(microseconds=OVER)
LETTER = timedelta(days=2)
"""The time after which a message to one person is erased."""
LETTERS = timedelta(days=8)
"""The time after which messages to a few people are erased: their writer, who sends the same text every working day, may be away for a
weekend or a week."""
FEW = 20
"""The number of people from which a mailing is more than a few letters."""
SLICE = 500
"""The most mailings of one kind that are erased at once."""
CUT = 2_000
"""The most recipients that are erased at once."""
_LIVE = [state.value for state in LIVE]


def forget(batch: Batch, before: datetime) -> tuple[int, bool]:
    """Erase one slice of what is no longer needed. Return how many mailings were deleted, and whether there are more.

    ``before``: mailings without copies since then are erased.
    """
    batch.flush()
    newest = batch.connection.execute(select(func.max(mailing.c.n))).scalar() or 0

    def quiet(since: timedelta) -> ColumnElement[bool]:
        return mailing.c.last_at < microseconds(batch.now - since)

    of_few = *_over(batch.now - LETTER), mailing.c.people < FEW, or_(mailing.c.people < 2, quiet(LETTERS))
    letters = _undecided(batch, *of_few, mailing.c.state == State.PASSING.value, mailing.c.n < newest)
    old = _undecided(batch, *_over(before), mailing.c.doc != ERASED)
    gone, left = _erase(batch, list(dict.fromkeys([*letters, *old])), newest)
    ended = _oldest(batch, quiet(QUIET), mailing.c.filed.is_(True))
    _delete_keys(batch, ended)
    return gone, left or any(len(some) >= SLICE for some in (letters, old, ended))


def _over(before: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a mailing has had no copies since then, and that none of its holds waits or is to be sent, since
    they follow its approval."""
    held = select(hold.c.mailing).where(hold.c.state.in_(_LIVE), hold.c.held_at < microseconds(before))
    return mailing.c.last_at < microseconds(before), mailing.c.id.not_in(held)


def _oldest(batch: Batch, *wanted: ColumnElement[bool], skip: int = 0) -> list[int]:
    """Return the numbers of a slice of the matching rows, without those of preserved incidents (incidents.preservation)."""
    needed = exists().where(preserved_key.c.what == "id", preserved_key.c.key == mailing.c.id)
    query = select(mailing.c.n).where(*wanted, ~needed)
    return list(
        batch.connection.execute(query.order_by(mailing.c.last_at, mailing.c.n).limit(SLICE).offset(skip)).scalars()
    )


def _undecided(batch: Batch, *wanted: ColumnElement[bool]) -> list[int]:
    """Return the numbers of a slice or two of the matching rows without a decision in force, however many older ones have one:
    later copies go by it."""
    found: list[int] = []
    seen = 0
    while len(found) < SLICE and (some := _oldest(batch, *wanted, skip=seen)):
        found += [row.known.n for row in _read(batch, some) if not row.view(batch.now).decided]
        seen += len(some)
    return found


def _erase(batch: Batch, numbers: list[int], newest: int) -> tuple[int, bool]:
    """Delete these mailings, their people first. Return how many were deleted, and whether some are left.

    The newest row is emptied instead.
    """
    _delete_keys(batch, numbers)
    room, done = CUT, []
    some = "SELECT person FROM reached WHERE n = ? LIMIT ?"
    for n in numbers:
        room -= batch.delete(f"DELETE FROM reached WHERE n = ? AND person IN ({some})", (n, n, room))
        if room <= 0:
            break
        done.append(n)
    if done:
        gone = mailing.c.n.in_(done)
        batch.connection.execute(delete(mailing).where(gone, mailing.c.n != newest))
        blank = {"state": State.PASSING.value, "people": 0, "sketch": b"", "counts": NO_COUNTS, "doc": ERASED}
        batch.connection.execute(update(mailing).where(gone).values(**blank))
    return len(done), len(done) < len(numbers)


def _read(batch: Batch, numbers: list[int]) -> Iterator[MailingRow]:
    return (
        MailingRow.read(*columns) for columns in batch.among(f"SELECT {COLUMNS} FROM mailing WHERE n {{}}", numbers)
    )


def _delete_keys(batch: Batch, numbers: list[int]) -> None:
    """Delete the keys by which these mailings are found."""
    keys = [(key, row.known.n) for row in _read(batch, numbers) for key in row.known.keys]
    batch.execute("DELETE FROM mailing_key WHERE key = ? AND n = ?", keys)
    if numbers:
        batch.connection.execute(update(mailing).where(mailing.c.n.in_(numbers)).values(filed=False))


def forget_sets(batch: Batch, before: datetime) -> None:
    """Delete sets of people made before then, but for those of corrections that wait for people, or are approved."""
    made = peopleset.c.made_at < microseconds(before)
    old = set(batch.connection.execute(select(peopleset.c.name).where(made).distinct()).scalars())
    if not old:
        return
    waiting = select(hold.c.doc).where(hold.c.state.in_(_LIVE))
    holds = map(HOLD.loads, batch.connection.execute(waiting).scalars())
    needed = {one.correction.people for one in holds if one.correction is not None}
    needed |= {grant.only for grant in _in_force(batch)}
    batch.connection.execute(delete(peopleset).where(made, peopleset.c.name.in_(old - needed)))


def forget_templates(batch: Batch, before: datetime) -> None:
    """Delete templates of approvals made before then, but for those of an approval in force."""
    old = set(batch.connection.execute(select(cover.c.cover).where(cover.c.made_at < microseconds(before))).scalars())
    needed = {grant.cover.learned for grant in _in_force(batch) if grant.cover is not None} if old else old
    batch.connection.execute(delete(cover).where(cover.c.cover.in_(old - needed)))


def _in_force(batch: Batch) -> Iterator[Grant]:
    """Yield the approvals in force, but for those of mailings that only writers approved."""
    for row in batch.select(f"SELECT {COLUMNS} FROM mailing WHERE {DECIDED}"):
        yield from MailingRow.read(*row).view(batch.now).grants
