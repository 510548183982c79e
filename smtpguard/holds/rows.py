"""Write holds as rows, and find them by id, by state, by words and marks, and by the content and envelope that they
were held for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from heapq import merge
from itertools import islice
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from smtpguard.database.access import among, either
from smtpguard.database.batch import Batch
from smtpguard.database.schema import hold as table
from smtpguard.database.statements import rows_of
from smtpguard.holds.model import ENDED, HOLD, LIVE, Hold, HoldQuery, Rank, State
from smtpguard.journal.chain import instant, microseconds
from smtpguard.mail.address import with_ascii_domain
from smtpguard.mailings.inflight import unpack_people
from smtpguard.reading.fold import searched
from smtpguard.reading.shown import Shown

_COLUMNS = tuple(
    table.c[name] for name in ("state", "acknowledged", "doc", "copies", "reach", "lead", "asked", "stopped")
)
_IN_SQL = f"SELECT {', '.join(column.name for column in _COLUMNS)} FROM hold"
_BY_ID = f"{_IN_SQL} WHERE hold_id = ?"
_LEAVING = f"{_IN_SQL} WHERE release_at IS NOT NULL ORDER BY release_at, hold_id"
_PEOPLE = "SELECT people FROM hold WHERE hold_id = ?"
_INSERT = insert(table)
_TWINS = """SELECT key, state, acknowledged, doc, copies, reach, lead, asked, stopped FROM hold WHERE (state IN ('waiting', 'approved', 'releasing', 'void') OR asked IS NOT NULL OR (state IN ('released', 'granted') AND over_at > ? AND NOT EXISTS (
  SELECT 1 FROM outbox JOIN delivery ON delivery.intent_id = outbox.intent_id
  WHERE outbox.hold_id = hold.hold_id AND outbox.kind = 'release' AND delivery.state <> 'delivered'))) AND key {} ORDER BY held_at"""
_FEW = 20
_RELEASED_LATELY = 86_400 * 1_000_000
"""How long after its release a hold is found for a retry, in microseconds."""
_FIRST_LOOK = timedelta(hours=1)
# In octets. PostgreSQL: an entry of an index must be smaller than a third of a page, 2,704.
_MOST_WORDS = 900
_MOST_MARKS = 1600
_LONGEST_MARK = 330
_MOST_SUBJECT = 200
VOTED = "voted"
"""The mark of a hold with a vote."""
ASKED = "asked"
"""The mark of a hold whose writer is asked, and therefore nobody else."""
CONFIRMED = "confirmed"
"""The mark of a hold that was released on its writer's confirmation alone."""


@lru_cache(maxsize=32)
def _read(
    state: str,
    acknowledged: bool,
    text: str,
    copies: int | None,
    reach: int | None,
    lead: str | None,
    asked: int | None,
    stopped: str | None,
) -> Hold:
    """Read a hold from its row. Columns win over the document, since they are changed without it. The last holds are
    kept: the worker and the transaction of an attempt read the same one."""
    document = json.loads(text)
    if state == State.RELEASED.value and document.get("kind") == "test":
        state = State.GRANTED.value  # as an earlier version wrote it
    document["state"], document["acknowledged"], document["primary"] = state, bool(acknowledged), lead or ""
    document["asked_at"] = None if asked is None else instant(asked).isoformat()
    document["stopped_by"] = stopped or ""
    if copies is not None:
        document["copies"] = copies
    if reach is not None:
        document["reach"] = reach
    return HOLD.back(document)


def attend_at(hold: Hold) -> datetime:
    """Return when the sweep must look at a hold next. If the guard has not set it: after a quarter of its time, or an
    hour."""
    if hold.attend_at is not None:
        return hold.attend_at if hold.asked_at is not None else min(hold.attend_at, hold.expires_at)
    return hold.held_at + min((hold.expires_at - hold.held_at) / 4, _FIRST_LOOK)


def row_of(hold: Hold, key: str) -> dict[str, Any]:
    own = {"hold_id": hold.hold_id, "key": key, "acknowledged": hold.acknowledged, "lead": hold.primary or None}
    return own | _changing(hold)


def _changing(hold: Hold) -> dict[str, Any]:
    """Return the columns that follow the hold as it changes. ``acknowledged`` and ``lead`` are the store's own."""
    return {
        "mailing": hold.mailing_id,
        "state": hold.state.value,
        "held_at": microseconds(hold.held_at),
        "attend_at": microseconds(attend_at(hold)),
        "content": hold.content_sha256,
        "doc": HOLD.dumps(hold),
        "sought": words_of(hold),
        "marks": marks_of(hold),
        "stopped": hold.stopped_by or None,
        "queue": hold.queue or None,
        "reach": hold.reach,
        "expires_at": microseconds(hold.expires_at),
        "asked": None if hold.asked_at is None else microseconds(hold.asked_at),
        "release_at": None if hold.release_at is None else microseconds(hold.release_at),
    }


def add(connection: Connection, row: Mapping[str, Any]) -> None:
    connection.execute(_INSERT, row)


def replace(connection: Connection, hold: Hold, *, over_at: int | None = None) -> None:
    """Overwrite the row of the same id. ``over_at``: the time in microseconds, if this ends the hold."""
    values = _changing(hold) | ({} if over_at is None else {"over_at": over_at})
    connection.execute(update(table).where(table.c.hold_id == hold.hold_id).values(**values))


def grow(connection: Connection, hold: Hold) -> None:
    """Update the document of a primary hold, and the columns by which it is found, after copies were added."""
    row = _changing(hold)
    values = {name: row[name] for name in ("doc", "sought", "marks", "attend_at", "expires_at")}
    connection.execute(update(table).where(table.c.hold_id == hold.hold_id).values(**values))


def is_followed(hold_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that copies under a hold are not settled. Without the hold none of them would ever be sent,
    or end; nor would anybody decide on one in doubt about which people are asked."""
    copy = table.alias("copy")
    unsettled = or_(copy.c.state.in_([state.value for state in LIVE]), copy.c.asked.is_not(None))
    return exists().where(copy.c.lead == hold_id, unsettled)


def people(connection: Connection, hold_id: str) -> tuple[list[bytes], list[bytes]]:
    """Return, for a hold of a mailing, the digests of those for whom it is held, and of those who get it whatever is
    decided."""
    found = rows_of(connection, _PEOPLE, (hold_id,))
    return unpack_people(bytes(found[0][0])) if found and found[0][0] is not None else ([], [])


def people_under(connection: Connection, lead_id: str) -> set[bytes]:
    """Return the digests of those for whom a primary hold, or a copy under it, waits."""
    query = select(table.c.people).where(or_(table.c.hold_id == lead_id, table.c.lead == lead_id))
    query = query.where(table.c.state == State.WAITING.value)
    blobs = connection.execute(query.where(table.c.people.is_not(None))).scalars()
    return {digest for blob in blobs for digest in unpack_people(bytes(blob))[0]}


def people_of(connection: Connection, ids: Sequence[str]) -> list[bytes]:
    """Return the digests of those for whom several holds are held, each once."""
    found: dict[bytes, None] = {}
    for (blob,) in among(connection, select(table.c.people), table.c.hold_id, ids):
        found.update(dict.fromkeys(unpack_people(bytes(blob))[0] if blob is not None else ()))
    return list(found)


def write_attempt(batch: Batch, hold: Hold) -> None:
    """Write the state after an attempt to release it."""
    asked = None if hold.asked_at is None else microseconds(hold.asked_at)
    values: dict[str, Any] = {"state": hold.state.value, "asked": asked}
    if hold.settled is not None:
        values |= {"over_at": batch.now_us, "doc": HOLD.dumps(hold)}
    sql = f"UPDATE hold SET {', '.join(f'{name} = ?' for name in values)} WHERE hold_id = ?"
    batch.execute(sql, [(*values.values(), hold.hold_id)])


def acknowledge(connection: Connection, hold_ids: Iterable[str], answered: bool = True) -> int:
    """Record that the clients of these holds were answered 250, or in the end were not. Returns how many of the holds
    there are. One that ended before its 250 does not count: nothing of it is ever to be sent (deciding.apply), so its
    client must not get a 250. Nor does a void one."""
    ended = and_(table.c.acknowledged.is_(False), table.c.state.in_([state.value for state in ENDED]))
    these = table.c.hold_id.in_(list(hold_ids)), table.c.state != State.VOID.value, ~ended
    done = connection.execute(update(table).where(*these).values(acknowledged=answered))
    return done.rowcount


def acknowledge_all(connection: Connection) -> None:
    """Acknowledge all holds that wait, if it is not known whose clients were answered 250."""
    unheard = table.c.acknowledged.is_(False), table.c.state == State.WAITING.value
    connection.execute(update(table).where(*unheard).values(acknowledged=True))


def find(connection: Connection, hold_id: str) -> Hold | None:
    found = rows_of(connection, _BY_ID, (hold_id,))
    return _read(*found[0]) if found else None


def find_all(connection: Connection, ids: Sequence[str]) -> list[Hold]:
    """Return holds in the order of their ids. Ids that do not exist are left out."""
    query = select(table.c.hold_id, *_COLUMNS).where(table.c.hold_id.in_(list(ids)))
    found = {hold_id: _read(*row) for hold_id, *row in connection.execute(query)}
    return [found[id] for id in ids if id in found]


def copy_by(connection: Connection, lead_id: str, writer: str) -> Hold | None:
    """Return the first copy of this writer under another hold, None if there is none among the oldest ``_FEW`` that
    match."""
    own = table.c.sought.contains(f" {writer.casefold()} ", autoescape=True)  # as words_of has the sender
    query = select(*_COLUMNS).where(table.c.lead == lead_id, own).order_by(table.c.held_at, table.c.hold_id)
    found = (_read(*row) for row in connection.execute(query.limit(_FEW)))
    return next((hold for hold in found if hold.sender == writer), None)


def queues(batch: Batch, names: Sequence[str]) -> dict[str, str]:
    """Return, for each queue (Hold.queue), the id of the hold under which its letters wait."""
    sql = "SELECT queue, hold_id FROM hold WHERE queue {} AND state = 'waiting' AND lead IS NULL ORDER BY held_at DESC"
    return {queue: hold_id for queue, hold_id in batch.among(sql, names)}  # noqa: C416


def queued(connection: Connection, hold_id: str, limit: int) -> list[tuple[Hold, Shown | None]]:
    """Return the letters of its sender that wait under a hold, the oldest first, each with what it shows, if known."""
    query = select(*_COLUMNS, table.c.shown).where(table.c.lead == hold_id).order_by(table.c.held_at, table.c.hold_id)
    return [
        (_read(*row), Shown.unpack(bytes(shown)) if shown is not None else None)
        for *row, shown in connection.execute(query.limit(limit))
    ]


def count_letters(connection: Connection, lead_id: str) -> int:
    """Return how many letters of the same sender wait under a hold."""
    return connection.execute(select(func.count()).where(table.c.lead == lead_id)).scalar_one()


def is_listed(connection: Connection, lead_id: str, most: int, hold_id: str) -> bool:
    """Return whether a hold is one of the first ``most`` letters under another."""
    query = select(table.c.hold_id).where(table.c.lead == lead_id).order_by(table.c.held_at, table.c.hold_id)
    return hold_id in connection.execute(query.limit(most)).scalars().all()


def duplicates(batch: Batch, keys: Sequence[str]) -> dict[str, Hold]:
    """Return, for each key, the hold that a retry belongs to: a live one before a void one, the newest first; or one
    that was released within a day, before its client tried again, and reached everybody. Recipients whom a release did
    not reach do not have the message, so such a hold is no duplicate."""
    found: dict[str, Hold] = {}
    for key, *row in batch.among(_TWINS, keys, (batch.now_us - _RELEASED_LATELY,)):
        hold, before = _read(*row), found.get(key)
        if before is None or before.state is State.VOID or hold.state is not State.VOID:
            found[key] = hold
    return found


def newest(
    connection: Connection,
    *,
    states: Sequence[State] = (),
    limit: int = 1000,
    before: tuple[datetime, str] | None = None,
    copies: bool = False,
    since: datetime | None = None,
    mailing: str = "",
    marks: Sequence[str] = (),
) -> list[Hold]:
    """Return a page of holds, the newest first. ``before``: ``held_at`` and id of the last hold on the page before; "" as
    the id for all before that time. ``copies``: include copies, which otherwise are shown with their primary hold.
    ``mailing``: a beginning of the id of their mailing, in capitals. ``marks``: as in ``HoldQuery``; a hold with so many
    marks that not all are stored is included too."""
    query = select(*_COLUMNS).order_by(table.c.held_at.desc(), table.c.hold_id.desc()).limit(limit)
    lacks = func.length(table.c.marks) >= (_MOST_MARKS - _LONGEST_MARK) // 4  # a character has up to 4 octets
    query = query.where(*(has_mark(mark) | lacks for mark in marks))
    if since is not None:
        query = query.where(table.c.held_at >= microseconds(since))
    if mailing:
        query = query.where(func.upper(table.c.mailing).startswith(mailing, autoescape=True))
    if not copies:
        query = query.where(table.c.lead.is_(None) | table.c.asked.is_not(None))
    if states:
        query = query.where(table.c.state.in_([s.value for s in states]))
    if before is not None:
        query = query.where(_earlier(*before))
    return [_read(*row) for row in connection.execute(query)]


def due(connection: Connection, now: datetime) -> list[Hold]:
    """Return the holds that the sweep must look at. A copy follows its primary hold, and is due itself only until its
    client was answered, or if people are asked whether it was sent."""
    waits = and_(table.c.state == State.WAITING.value, table.c.lead.is_(None) | table.c.acknowledged.is_(False))
    found = {
        hold.hold_id: hold
        for some in (waits, table.c.asked.is_not(None))  # SQLite scans all holds for either
        for row in connection.execute(select(*_COLUMNS).where(some, table.c.attend_at <= microseconds(now)))
        for hold in [_read(*row)]
    }
    return sorted(found.values(), key=lambda h: (h.expires_at, h.hold_id))


def leaving(connection: Connection) -> list[Hold]:
    """Return the holds whose approval takes effect after a delay, the next first."""
    return [_read(*row) for row in rows_of(connection, _LEAVING)]


def asked_about(connection: Connection) -> list[Hold]:
    """Return the holds about which people are asked whether they were sent, those that were asked about first in
    front."""
    query = select(*_COLUMNS).where(table.c.asked.is_not(None)).order_by(table.c.asked, table.c.hold_id)
    return [_read(*row) for row in connection.execute(query)]


def count_waiting(connection: Connection) -> int:
    """Return the number of holds that wait. A mailing counts as one."""
    waits = table.c.lead.is_(None), table.c.state == State.WAITING.value
    return connection.execute(select(func.count()).where(*waits)).scalar_one()


def words_of(hold: Hold) -> str:
    """Return the text in which words of a query are searched, in every spelling."""
    said = " ".join((hold.hold_id, hold.subject[:_MOST_SUBJECT], hold.sender or "", *sorted(hold.senders))).casefold()
    if (also := searched(said)) != said:
        said = f"{said} {also}"
    return said.encode(errors="ignore")[:_MOST_WORDS].decode(errors="ignore")


def marks_of(hold: Hold) -> str:
    """Return the marks of a hold by which it is found, each on a line of its own; as many whole lines as fit. The last
    are those that its writer can add to."""
    groups = sorted(hold.verdict.all_groups)
    made, left = "\n", _MOST_MARKS - 1
    for mark in (
        *((VOTED,) if hold.votes else ()),
        *((ASKED,) if hold.asks_writer else ()),
        *((CONFIRMED,) if hold.confirmed else ()),
        *(f"group:{group}" for group in groups),
        *(f"list:{name}" for name in hold.lists),
        *(f"to:{name}" for name, _ in hold.versions),
        *(f"rule:{rule}" for rule in hold.rules),
        *(f"from:{address}" for address in sorted(hold.senders)),
    ):
        length = len(mark.encode(errors="ignore")) + 1
        if length <= left:
            made, left = f"{made}{mark}\n", left - length
    return made


def page(
    connection: Connection, wanted: HoldQuery, *, limit: int = 50, before: tuple[datetime, str] | None = None
) -> list[Hold]:
    """Return a page of primary holds, the newest first. There is one query for each state, so that the index gives them
    in order. ``before``: as in ``newest``."""
    found = []
    narrow = _conditions(wanted)
    if before is not None:
        narrow.append(_earlier(*before))
    for state in wanted.states:
        query = (
            select(table.c.held_at, table.c.hold_id)
            .where(table.c.state == state.value, table.c.lead.is_(None), *narrow)
            .order_by(table.c.held_at.desc(), table.c.hold_id.desc())
            .limit(limit)
        )
        found.append([(int(at), str(id)) for at, id in connection.execute(query)])
    return find_all(connection, [id for _, id in islice(merge(*found, reverse=True), limit)])


def ranked(
    connection: Connection, wanted: HoldQuery, *, first: Collection[str], limit: int, after: Rank | None = None
) -> tuple[list[Hold], int, Rank | None]:
    """Return a page of primary holds by rank; the number of all that match; and the rank of the last one, None on the
    last page. ``first``: the lists that come before others, if their address is a recipient. ``after``: the rank that
    the page before returned."""
    marked = [table.c.marks.contains(f"\nto:{name}\n", autoescape=True) for name in sorted(first)]
    later = case(*((mark, 0) for mark in marked), else_=1) if marked else literal_column("1")
    order = later, -func.coalesce(table.c.reach, 0), func.coalesce(table.c.expires_at, 0), table.c.hold_id
    states = table.c.state.in_([state.value for state in wanted.states])
    these = table.c.lead.is_(None), states, *_conditions(wanted)
    query = select(*order).where(*these).order_by(*order).limit(limit + 1)
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    places = [Rank(*row) for row in connection.execute(query)]
    last = places[limit - 1] if len(places) > limit else None
    number = connection.execute(select(func.count()).where(*these)).scalar_one()
    return find_all(connection, [place.hold_id for place in places[:limit]]), number, last


def _earlier(at: datetime, hold_id: str) -> ColumnElement[bool]:
    return tuple_(table.c.held_at, table.c.hold_id) < tuple_(microseconds(at), hold_id)


def _conditions(wanted: HoldQuery) -> list[ColumnElement[bool]]:
    narrow: list[ColumnElement[bool]] = []
    for word in wanted.words:
        spelled = {word, searched(word), with_ascii_domain(searched(word))}
        narrow.append(or_(*(table.c.sought.contains(each, autoescape=True) for each in sorted(spelled))))
    narrow += map(has_mark, wanted.marks)
    narrow += [~has_mark(mark) for mark in wanted.unmarked]
    if wanted.seats:
        narrow.append(
            or_(*(and_(either(map(has_mark, some)), *(~has_mark(m) for m in none)) for some, none in wanted.seats))
        )
    if wanted.since is not None:
        narrow.append(table.c.held_at >= microseconds(wanted.since))
    if wanted.until is not None:
        narrow.append(table.c.held_at < microseconds(wanted.until))
    return narrow


def has_mark(mark: str) -> ColumnElement[bool]:
    return table.c.marks.contains(f"\n{mark}\n", autoescape=True)
