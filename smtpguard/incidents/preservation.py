"""Preserve incidents: keep their data past its retention.

Messages are preserved by the ids of their entries, holds and mailings, with all that the journal still has of them, and
with their contents. Preservation ends by itself unless two people extend it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update

from smtpguard.database.access import Open, sliced
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.schema import hold, preserved, preserved_key
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import instant, microseconds, utc_text
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.scan import pages

LASTS = timedelta(days=180)
"""How long an incident is preserved, and by how much it is extended."""
ID, CONTENT = "id", "content"
"""The kinds of keys by which data is preserved."""
SLICE = 500
"""The most keys that are written or asked for at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """The data that an incident needs. ``first``: the number of its first entry."""

    ids: frozenset[str]
    contents: frozenset[str]
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preserved:
    """A preserved incident. ``asked_by``: who wants an extension, until a second person agrees."""

    id: str
    until: datetime
    by: str
    reason: str
    asked_by: str = ""


def find(open: Open, id: str) -> Needed | None:
    """Return the data on a message, hold, mailing or freeze, with the whole mailings of its messages. Returns None if
    the journal has no entry on it."""
    ids, contents, mailings, first = _named(open, {id})
    if not ids:
        return None
    mailings -= {id}
    if mailings:
        more, others, _, begin = _named(open, mailings)
        ids, contents, first = ids | more, contents | others, min(first, begin or first)
    wanted = sorted(ids | {id} | mailings)
    for some in sliced(wanted, SLICE):
        held = select(hold.c.content).where(hold.c.hold_id.in_(some))
        with open() as connection:
            contents.update(connection.execute(held).scalars())
    return Needed(ids=frozenset(wanted), contents=frozenset(contents), first=first)


def _named(open: Open, names: Collection[str]) -> tuple[set[str], set[str], set[str], int]:
    """Return the ids, contents and mailings in the entries that name one of ``names``, and the number of the first
    entry."""
    ids: set[str] = set()
    contents: set[str] = set()
    mailings: set[str] = set()
    first = 0
    with open() as connection:
        last = read_head(connection).seq
    for page in pages(open, last, journal.named(names)):
        for one, _ in page:
            data = one.data
            ids.add(one.id)
            ids.update(str(data[key]) for key in ("hold", "with") if data.get(key))
            if isinstance(content := data.get("content"), str):
                contents.add(content)
            if one.kind == Kind.VERDICT.value and data.get("mailing"):
                mailings.add(str(data["mailing"]))
            first = first or one.seq
    return ids, contents, mailings, first


def begin(batch: Batch, id: str, needed: Needed, *, by: str, reason: str) -> Preserved:
    """Preserve an incident from now on. Of one that is preserved already, more data is kept, but not for longer
    (``renew``). The caller then calls ``keep`` for its data."""
    there = select(preserved).where(preserved.c.id == id, preserved.c.until > batch.now_us)
    row = batch.connection.execute(there).one_or_none()
    made = _read(row) if row is not None else Preserved(id=id, until=batch.now + LASTS, by=by, reason=reason)
    first = needed.first if row is None else min(needed.first, row.first)
    batch.connection.execute(delete(preserved).where(preserved.c.id == id))
    batch.connection.execute(
        insert(preserved).values(id=id, until=microseconds(made.until), first=first, doc=_doc(made))
    )
    _record(batch, replace(made, reason=reason), "begun", by, messages=len(needed.ids))
    return made


def keep(batch: Batch, id: str, what: str, keys: Sequence[str]) -> None:
    """Preserve some data of an incident. ``what``: the kind of ``keys``, ID or CONTENT."""
    known = select(preserved_key.c.key).where(preserved_key.c.incident == id, preserved_key.c.what == what)
    there = set(batch.connection.execute(known.where(preserved_key.c.key.in_(keys))).scalars())
    rows = [{"incident": id, "what": what, "key": key} for key in keys if key not in there]
    if rows:
        batch.connection.execute(insert(preserved_key), rows)


def renew(batch: Batch, id: str, by: str, also: Collection[str] = ()) -> Preserved:
    """Ask for an extension, or grant it if another person than ``by`` has asked. ``also``: other addresses of the same
    person. Raises KeyError if the incident is not preserved."""
    row = batch.connection.execute(select(preserved).where(preserved.c.id == id)).one_or_none()
    if row is None:
        raise KeyError(id)
    known = _read(row)
    agreed = known.asked_by not in ("", by, *also)
    until = max(known.until, batch.now) + LASTS if agreed else known.until
    made = Preserved(id=id, until=until, by=known.by, reason=known.reason, asked_by="" if agreed else by)
    batch.connection.execute(
        update(preserved).where(preserved.c.id == id).values(until=microseconds(until), doc=_doc(made))
    )
    people = (known.asked_by, by) if agreed else (by,)
    _record(batch, made, "renewed" if agreed else "renewal asked", *people)
    return made


def end_expired(batch: Batch) -> None:
    """End the preservation of incidents whose time is over."""
    over = batch.connection.execute(select(preserved).where(preserved.c.until <= batch.now_us)).all()
    for row in over:
        batch.connection.execute(delete(preserved_key).where(preserved_key.c.incident == row.id))
        batch.connection.execute(delete(preserved).where(preserved.c.id == row.id))
        _record(batch, _read(row), "ended")


def every(connection: Connection) -> list[Preserved]:
    return [_read(row) for row in connection.execute(select(preserved).order_by(preserved.c.until, preserved.c.id))]


def is_any_preserved(connection: Connection) -> bool:
    return connection.execute(select(preserved.c.id).limit(1)).first() is not None


def first_kept(connection: Connection) -> int | None:
    """Return the number of the first entry that any preserved incident needs, None without one."""
    found = connection.execute(select(func.min(preserved.c.first))).scalar()
    return None if found is None else int(found)


def is_kept(what: str, key: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a preserved incident needs this key."""
    return exists().where(preserved_key.c.what == what, preserved_key.c.key == key)


def _record(batch: Batch, one: Preserved, change: str, *people: str, **more: Any) -> None:
    private = {"actor": people} if people else {}
    if change == "begun" and one.reason:
        private["comment"] = (one.reason,)
    data = {"change": change, "until": utc_text(one.until, "auto"), **more}
    batch.record([Event(kind=Kind.PRESERVED, id=one.id, at=batch.now, data=data, private=private)])


def _doc(one: Preserved) -> str:
    return json.dumps({"by": one.by, "reason": one.reason, "asked_by": one.asked_by})


def _read(row: Any) -> Preserved:
    return Preserved(id=row.id, until=instant(row.until), **json.loads(row.doc))
