"""Retention: erase content first, then the names of people, then the journal itself, and nothing that still waits.

Each step takes a bounded slice, so that it can run beside admissions. Erasing is itself a journal entry. The journal is cut only
just after a signed checkpoint that says so, so that the rest can be proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, select

from smtpguard.accounts import rows as accounts
from smtpguard.counts import sweeping
from smtpguard.database.access import among
from smtpguard.database.batch import FREEZE, Batch
from smtpguard.database.schema import (
    checkpoint,
    clear,
    content,
    entry,
    freeze,
    hold,
    outbox,
    returned,
    underway,
)
from smtpguard.holds import contents
from smtpguard.holds import rows as holds
from smtpguard.holds.model import LIVE, State
from smtpguard.incidents import activityrows, preservation
from smtpguard.journal import rows as journal
from smtpguard.journal import searchindex
from smtpguard.journal.chain import microseconds
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.tree import Tree
from smtpguard.mailings import forgetting
from smtpguard.mailings.mailingbatch import mailings_of
from smtpguard.outbox import rows as outboxes
from smtpguard.returns import rows as returns

_SETTLED = [s.value for s in State if s not in LIVE]
DOUBTS = timedelta(days=7)
"""The time for which a retry of a message in doubt is recognised."""
NOTICE = timedelta(days=1)
"""The delay before a shorter retention takes effect, so that somebody can notice it."""
TURN = timedelta(hours=1)
"""The time between the entries of hosts with different settings, which journal theirs in turn. It is far less than NOTICE, so that the
longest stays in force."""
SLICE = 500
"""The most contents and holds of one slice."""
CUT = 2_000
"""The most entries of one slice: mail that is to be held waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The periods for which content, names of people and the journal are kept."""

    content: timedelta = timedelta(days=30)
    addresses: timedelta = timedelta(days=90)
    journal: timedelta = timedelta(days=400)

    def longest(self, other: Retention) -> Retention:
        """Return the longer of each period."""
        return Retention(**{name: max(getattr(self, name), getattr(other, name)) for name in self.__slots__})

    def row(self) -> dict[str, int]:
        """Return the periods in seconds, as a journal entry has them."""
        return {name: int(getattr(self, name).total_seconds()) for name in self.__slots__}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Retention:
        """Make it from the seconds of each period, as an entry and the settings have them."""
        return cls(**{name: timedelta(seconds=int(row[name])) for name in cls.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The numbers that one slice has erased. ``more``: call again."""

    contents: int = 0
    holds: int = 0
    private: int = 0
    entries: int = 0
    mailings: int = 0
    more: bool = False


def agreed(batch: Batch, wanted: Retention, by: str) -> Retention:
    """Return the retention in force if the settings of host ``by`` want ``wanted``, and journal a change.

    Longer periods take effect at once, shorter ones a day after they were journalled. If none is journalled, as after an
    upgrade, that day begins now. If another host wants something else, the longest of both is in force while both run.
    """
    [*found] = journal.of_kinds(batch.connection, [Kind.RETENTION], 1)
    now = wanted.longest(Retention())
    if found:
        last = found[0][0]
        before, after = Retention.of(last.data["before"]), Retention.of(last.data)
        now = after if last.time <= batch.now - NOTICE else after.longest(before)
        waits = last.data["host"] != by and last.time > batch.now - TURN and now.longest(wanted) == now
        if after == wanted or waits:
            return now
    data = {**wanted.row(), "before": now.row(), "host": by}
    batch.record([Event(kind=Kind.RETENTION, id=str(batch.head.seq + 1), at=batch.now, data=data)])
    return wanted.longest(now)


def erase(batch: Batch, keep: Retention) -> Erased:
    """Erase one slice of what is older than ``keep``."""
    batch.flush()
    sweeping.sweep_next(batch)
    preservation.end_expired(batch)
    orphans = contents.sweep(batch)
    old, stored = _old_contents(batch, batch.now - keep.content)
    contents.drop(batch, old)
    contents.erase_shown(batch, old)
    forgetting.forget_templates(batch, batch.now - keep.content)
    gone = _old_holds(batch, batch.now - keep.addresses)
    private, through, unerased = _private(batch, batch.now - keep.addresses)
    base, entries = _journal(batch, batch.now - keep.journal)
    searchindex.forget(batch, max(through, base.seq if base is not None else 0))
    activityrows.delete_before(batch, batch.now - keep.journal)
    _lifted_freezes(batch, batch.now - keep.addresses)
    accounts.forget_absences(batch)
    forgetting.forget_sets(batch, batch.now - keep.addresses)
    mailings, others = forgetting.forget(batch, batch.now - keep.addresses)
    back = returns.forget(batch, batch.now - keep.addresses, batch.now - keep.journal)
    _forget_doubts(batch, batch.now - DOUBTS)
    taken = {"contents": len(old), "holds": gone, "private": private, "entries": entries}
    if any(taken.values()):
        data = taken | ({"private_through": through} if through else {})
        batch.record([Event(kind=Kind.ERASED, id=str(batch.head.seq + 1), at=batch.now, data=data)])
    more = orphans or stored or others or back or unerased or gone >= SLICE or entries >= CUT
    if base is not None:
        journal.mark(batch, base=base)
    return Erased(**taken, mailings=mailings, more=more)


def _forget_doubts(batch: Batch, before: datetime) -> None:
    """Forget the keys by which a retry of a message in doubt is recognised. The people of these messages stay in doubt."""
    old = underway.c.at < microseconds(before)
    mailings_of(batch).record_doubt(list(batch.connection.execute(select(underway.c.id).where(old)).scalars()))
    batch.connection.execute(delete(underway).where(old))


def _old_contents(batch: Batch, before: datetime) -> tuple[list[str], bool]:
    """Return some contents whose holds are all settled and old, and that no outbox entry needs; and whether there may be more."""
    needed = exists().where(
        hold.c.content == content.c.sha256,
        hold.c.state.not_in(_SETTLED) | (hold.c.held_at >= microseconds(before)),
    )
    going = exists().where(outbox.c.content == content.c.sha256, outbox.c.done.is_(False))
    kept = preservation.is_kept(preservation.CONTENT, content.c.sha256)
    back = exists().where(
        returned.c.mail == content.c.sha256, preservation.is_kept(preservation.ID, returned.c.mailing)
    )
    old = content.c.kept_at < microseconds(before)
    return contents.droppable(batch, old, ~needed, ~going, ~kept, ~back, most=SLICE)


def _old_holds(batch: Batch, before: datetime) -> int:
    """Delete some settled holds, and done outbox entries without a hold. Returns the number of holds."""
    query = select(hold.c.hold_id).where(
        hold.c.held_at < microseconds(before),
        hold.c.state.in_(_SETTLED),
        (hold.c.state == State.VOID.value)
        | hold.c.acknowledged.is_(False)
        | ~exists().where(outbox.c.hold_id == hold.c.hold_id, outbox.c.done.is_(False)),
        ~preservation.is_kept(preservation.ID, hold.c.hold_id),
        ~holds.is_followed(hold.c.hold_id),
    )
    ids = list(batch.connection.execute(query.limit(SLICE)).scalars())
    if ids:  # with the outbox entries that earlier versions left of holds whose clients got no 250: they are never sent
        entries = among(batch.connection, select(outbox.c.intent_id, outbox.c.done), outbox.c.hold_id, ids)
        outboxes.forget(batch, [intent_id for intent_id, done in entries if not done])
        batch.connection.execute(delete(hold).where(hold.c.hold_id.in_(ids)))
    # ``next_at`` of a done entry is when it was done, and indexed; an entry of a hold stays, so that its end is reported once
    old = outbox.c.next_at < microseconds(before)
    needed = exists().where(hold.c.hold_id == outbox.c.hold_id)
    sent = select(outbox.c.intent_id).where(outbox.c.done.is_(True), old, ~needed)
    if gone := list(batch.connection.execute(sent.limit(SLICE)).scalars()):
        outboxes.forget(batch, gone)
    return len(ids)


def _lifted_freezes(batch: Batch, before: datetime) -> None:
    """Delete old lifted freezes, which may name people. The journal keeps their entries."""
    lifted = select(freeze.c.freeze_id, freeze.c.doc).where(freeze.c.lifted.is_(True))
    old = [id for id, doc in batch.connection.execute(lifted) if FREEZE.loads(doc).at < before]
    if old:
        batch.connection.execute(delete(freeze).where(freeze.c.freeze_id.in_(old)))


def _private(batch: Batch, before: datetime) -> tuple[int, int, bool]:
    """Clear values of old entries, oldest first. Returns the number, the last entry that may lack them from now on, and
    whether more may be left. Only verdicts have them, so fewer than CUT are erased."""
    spared: list[ColumnElement[bool]] = []
    if preservation.is_any_preserved(batch.connection):
        needed = exists().where(entry.c.seq == clear.c.seq, preservation.is_kept(preservation.ID, entry.c.id))
        spared = [~needed]
    first = select(func.min(clear.c.seq)).where(*spared).scalar_subquery()
    query = select(entry.c.seq, entry.c.at).where(entry.c.seq >= first, entry.c.seq < first + CUT).order_by(entry.c.seq)
    through = looked = 0
    for seq, at in batch.connection.execute(query):
        if at >= microseconds(before):
            break
        through, looked = seq, looked + 1
    if not through:
        return 0, 0, False
    done = batch.connection.execute(delete(clear).where(clear.c.seq <= through, *spared))
    return done.rowcount, through, looked == CUT


def _journal(batch: Batch, before: datetime) -> tuple[Checkpoint | None, int]:
    """Cut the oldest entries. Returns a base checkpoint of the last of them, and their number."""
    lowest = select(func.min(entry.c.seq)).scalar_subquery()
    query = select(entry.c.seq, entry.c.at, entry.c.hash).where(entry.c.seq >= lowest, entry.c.seq < lowest + CUT)
    last, needed = None, preservation.first_kept(batch.connection)
    for row in batch.connection.execute(query.order_by(entry.c.seq)):
        if row.at >= microseconds(before) or (needed is not None and row.seq >= needed):
            break
        last = row
    if last is None or last.seq >= batch.head.seq:
        return None, 0
    base = Checkpoint(journal=batch.head.journal, seq=last.seq, at=batch.now_us, hash=bytes(last.hash), base=True)
    Tree(batch.connection).trim(last.seq)
    batch.connection.execute(delete(clear).where(clear.c.seq <= last.seq))
    batch.connection.execute(delete(checkpoint).where(checkpoint.c.seq < last.seq, checkpoint.c.notable.is_(None)))
    done = batch.connection.execute(delete(entry).where(entry.c.seq <= last.seq))
    return base, done.rowcount
