"""Rows for the exact content of held messages, and for the templates that approvals of copies refer to."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from smtpguard.database.batch import Batch
from smtpguard.database.schema import cover as table
from smtpguard.database.schema import hold
from smtpguard.holds.model import State
from smtpguard.mailings.slots import Template
from smtpguard.reading.shown import Shown

_GONE = [state.value for state in (State.VOID, State.WITHDRAWN)]


def keep(batch: Batch, document: str) -> None:
    """Store a template under its name, once."""
    name = Template.loads(document).name
    if batch.connection.execute(select(table.c.cover).where(table.c.cover == name)).scalar() is None:
        batch.connection.execute(insert(table).values(cover=name, made_at=batch.now_us, doc=document))


def documents(connection: Connection, names: Collection[str]) -> dict[str, str]:
    query = select(table.c.cover, table.c.doc).where(table.c.cover.in_(list(names)))
    return {name: doc for name, doc in connection.execute(query).all()}  # noqa: C416


def of_hold(connection: Connection, hold_id: str) -> Shown | None:
    """None if an earlier version held it, or its content is erased."""
    found = connection.execute(select(hold.c.shown).where(hold.c.hold_id == hold_id)).scalar()
    return None if found is None else Shown.unpack(bytes(found))


def of_holds(connection: Connection, hold_ids: Collection[str]) -> dict[str, Shown]:
    return {id: shown for id in hold_ids if (shown := of_hold(connection, id)) is not None}


def under(connection: Connection, lead_id: str) -> list[tuple[Shown | None, str, frozenset[str]]]:
    """For a hold, and then each copy under it in order of arrival: the content that it shows, if known, its author, and
    the proof of that author."""
    mailing = select(hold.c.mailing).where(hold.c.hold_id == lead_id).scalar_subquery()
    first = select(hold.c.shown, hold.c.doc).where(hold.c.hold_id == lead_id)
    copies = select(hold.c.shown, hold.c.doc).where(
        hold.c.lead == lead_id, hold.c.mailing == mailing, hold.c.state.not_in(_GONE)
    )
    rows = [*connection.execute(first), *connection.execute(copies.order_by(hold.c.held_at, hold.c.hold_id))]
    found = []
    for shown, doc in rows:
        document = json.loads(doc)
        made = Shown.unpack(bytes(shown)) if shown is not None else None
        found.append((made, document.get("author", ""), frozenset(document.get("proofs", ()))))
    return found


def learned_from(connection: Connection, name: str, hold_id: str) -> bool:
    """Whether a held copy is one of those that the template was learned from."""
    document, shown = documents(connection, [name]).get(name), of_hold(connection, hold_id)
    return document is not None and shown is not None and Template.loads(document).matches(shown)


def forget(batch: Batch, contents: Sequence[str], before_us: int) -> None:
    """Erase exact content together with ``contents``, and templates older than ``before_us``."""
    if contents:
        batch.connection.execute(update(hold).where(hold.c.content.in_(contents)).values(shown=None))
    batch.connection.execute(delete(table).where(table.c.made_at < before_us))
