"""Returned mail as rows: written once, counted once a person, found by mailing, and erased by retention.

The mail itself is stored with held content (holds.contents) and erased with it; personal data is erased with addresses;
the rows stay as long as their journal entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from smtpguard.database.batch import Batch
from smtpguard.database.schema import content, returned
from smtpguard.holds import deciding
from smtpguard.holds.model import Change
from smtpguard.incidents import preserving
from smtpguard.journal.chain import instant, microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.mailings.model import Mailing
from smtpguard.returns.model import SAID, By, Match, Return, Said, Sort

SLICE = 500
NOBODY = SAID.dumps(Said())


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """``returns``: the rows written, with ``counts`` set; none if the mail was stored before."""

    returns: tuple[Return, ...] = ()


def take(batch: Batch, returns: Sequence[Return]) -> Taken:
    """Write all statements of one mail, with an entry each. A mail that was stored before writes nothing."""
    batch.flush()
    mail = returns[0].mail
    if batch.connection.execute(select(returned.c.n).where(returned.c.mail == mail).limit(1)).first() is not None:
        return Taken()
    made = []
    for one in returns:
        one = replace(one, counts=one.sure and _is_first(batch.connection, one))
        batch.connection.execute(insert(returned).values(**_row(one)))
        made.append(one)
    batch.record([_event(one) for one in made])
    _reported(batch, made)
    return Taken(returns=tuple(made))


def _reported(batch: Batch, made: Sequence[Return]) -> None:
    """Report bounces and complaints to the mailing, as a person could: too many of them stop a release in stages."""
    counted = Counter((one.match.mailing, one.sort) for one in made if one.counts)
    for mailing in dict.fromkeys(mailing for mailing, _ in counted):
        bounces, complaints = counted[mailing, Sort.BOUNCE], counted[mailing, Sort.COMPLAINT]
        if bounces or complaints:
            deciding.change_mailing(batch, mailing, partial(_told, bounces=bounces, complaints=complaints))


def _told(mailing: Mailing, *, bounces: int, complaints: int) -> tuple[Mailing, Change]:
    more = replace(mailing, bounces=mailing.bounces + bounces, complaints=mailing.complaints + complaints)
    return more, Change()


def _is_first(connection: Connection, one: Return) -> bool:
    known = returned.c.mailing == one.match.mailing, returned.c.sort == one.sort.value, returned.c.person == one.person
    return not connection.execute(select(exists().where(*known, returned.c.counts.is_(True)))).scalar()


def _event(one: Return) -> Event:
    data = {
        "sort": one.sort.value,
        "known_by": one.match.by.value,
        "message": one.match.message or None,
        "mailing": one.match.mailing or None,
        "counts": one.counts,
        "status": one.said.status or None,
    }
    private = {"subject": one.said.subject, "from": one.said.author, "recipients": one.said.address}
    return Event(
        kind=Kind.RETURNED, id=id_of(one.mail), at=one.at, data=data,
        private={role: (value,) for role, value in private.items() if value},
    )  # fmt: skip


def id_of(mail: str) -> str:
    """The id of a returned mail in the journal and for people."""
    return mail[:16]


def _row(one: Return) -> dict[str, Any]:
    return {
        "mail": one.mail,
        "n": one.n,
        "at": microseconds(one.at),
        "sort": one.sort.value,
        "known": one.match.by.value,
        "message": one.match.message,
        "mailing": one.match.mailing,
        "person": one.person,
        "sure": one.sure,
        "counts": one.counts,
        "doc": SAID.dumps(one.said),
    }


def _read(row: Any) -> Return:
    return Return(
        mail=row.mail,
        n=row.n,
        at=instant(row.at),
        sort=Sort(row.sort),
        match=Match(by=By(row.known), message=row.message, mailing=row.mailing),
        person=None if row.person is None else bytes(row.person),
        sure=row.sure,
        counts=row.counts,
        kept=row.kept is not None,
        said=SAID.loads(row.doc),
    )


def newest(
    connection: Connection,
    mailing: str | None,
    sort: Sort | None,
    limit: int,
    before: tuple[datetime, str] | None = None,
) -> list[Return]:
    """The latest first. ``mailing``: "" for returns without one, None for all. ``before``: time and mail of the last
    one on the previous page."""  # fmt: skip
    query = select(returned, content.c.sha256.label("kept")).select_from(
        returned.outerjoin(content, (content.c.sha256 == returned.c.mail) & content.c.whole.is_(True))
    )
    if mailing is not None:
        query = query.where(returned.c.mailing == mailing)
    if sort is not None:
        query = query.where(returned.c.sort == sort.value)
    if before is not None:
        at = microseconds(before[0])
        query = query.where(returned.c.at <= at, (returned.c.at < at) | (returned.c.mail < before[1]))
    order = returned.c.at.desc(), returned.c.mail.desc(), returned.c.n
    return [_read(row) for row in connection.execute(query.order_by(*order).limit(limit))]


def begins_so(connection: Connection, prefix: str) -> list[str]:
    """Returned mails whose SHA-256 begins so, at most ten."""
    query = select(returned.c.mail).distinct().where(returned.c.mail.startswith(prefix, autoescape=True)).limit(10)
    return list(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """The numbers of one sort in one interval: all, and those that count."""

    at: datetime
    sort: Sort
    likely: bool
    all: int
    counted: int


def spells(connection: Connection, mailing: str, width_us: int) -> list[Spell]:
    """For a mailing, by intervals of ``width_us``, in order."""
    part = (returned.c.at // width_us).label("part")
    likely = (returned.c.known == By.LIKENESS.value).label("likely")
    query = select(part, returned.c.sort, likely, func.count(), func.count().filter(returned.c.counts.is_(True)))
    query = query.where(returned.c.mailing == mailing).group_by(part, returned.c.sort, likely).order_by(part)
    return [
        Spell(at=instant(int(n) * width_us), sort=Sort(sort), likely=bool(maybe), all=all_, counted=counted)
        for n, sort, maybe, all_, counted in connection.execute(query)
    ]


def ends(connection: Connection, mailing: str) -> tuple[datetime, datetime] | None:
    """When the first and the last return of a mailing came."""
    query = select(func.min(returned.c.at), func.max(returned.c.at)).where(returned.c.mailing == mailing)
    first, last = connection.execute(query).one()
    return None if first is None else (instant(first), instant(last))


def by_mailing(connection: Connection, since: datetime, limit: int) -> Mapping[str, int]:
    """The mailings with returns since then, "" for none, with their number, the most first."""
    n = func.count()
    query = select(returned.c.mailing, n).where(returned.c.at >= microseconds(since)).group_by(returned.c.mailing)
    rows = connection.execute(query.order_by(n.desc()).limit(limit))
    return {row[0]: int(row[1]) for row in rows}


def forget(batch: Batch, addresses: datetime, journal: datetime) -> bool:
    """Erase personal data older than ``addresses``, and delete rows older than ``journal``, a slice of each; returns
    whether there is more."""
    connection = batch.connection
    spared = (
        ~preserving.is_kept(preserving.ID, returned.c.mailing),
        ~preserving.is_kept(preserving.ID, returned.c.message),
    )
    old = select(returned.c.mail, returned.c.n).where(
        returned.c.at < microseconds(addresses), returned.c.doc != NOBODY, *spared
    )
    named = connection.execute(old.limit(SLICE)).all()
    for mail, n in named:
        connection.execute(update(returned).where(returned.c.mail == mail, returned.c.n == n).values(doc=NOBODY))
    gone = select(returned.c.mail).distinct().where(returned.c.at < microseconds(journal), *spared).limit(SLICE)
    mails = list(connection.execute(gone).scalars())
    if mails:
        connection.execute(delete(returned).where(returned.c.mail.in_(mails)))
    return len(named) >= SLICE or len(mails) >= SLICE
