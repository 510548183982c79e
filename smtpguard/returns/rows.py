"""The table of returns: store each once, count each person once, find returns by mailing, and erase them in time.

The mail itself is stored with held content (holds.contents) and erased with it. Names are erased with addresses. That
something came back stays as long as the journal's entry of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select

from smtpguard.database.batch import Batch
from smtpguard.database.schema import content, returned
from smtpguard.freezes.model import event_of
from smtpguard.holds import deciding
from smtpguard.holds.model import Change
from smtpguard.incidents import preservation
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import instant, microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import Phrase
from smtpguard.mailings.mailingbatch import mailings_of
from smtpguard.mailings.model import Mailing
from smtpguard.policy.freezing import ITSELF, Freeze, Selector
from smtpguard.policy.stages import Breaker, Watched
from smtpguard.returns.mentions import Mention
from smtpguard.returns.model import COUNTED, REASONS, SAID, By, Match, Return, ReturnText, Sort, SortCount

SLICE = 500
"""The most rows that one call of `forget` erases."""
NOBODY = SAID.dumps(ReturnText())
"""The stored form of a return without personal data."""


def take(batch: Batch, returns: Sequence[Return], watched: Watched | None = None) -> tuple[list[Return], list[Freeze]]:
    """Write the returns of one mail, with an entry each. Returns them, with ``counts`` decided, and the freezes that a breaker
    made. Writes nothing, and returns empty lists, if the mail is stored already."""
    batch.flush()
    mail = returns[0].mail
    if batch.connection.execute(select(returned.c.n).where(returned.c.mail == mail).limit(1)).first() is not None:
        return [], []
    made = []
    for one in returns:
        one = replace(one, counts=one.sure and _is_first(batch.connection, one))
        batch.connection.execute(insert(returned).values(**_row(one)))
        made.append(one)
    batch.record([_event(one) for one in made])
    _add_to_mailings(batch, made)
    freezes: list[Freeze] = []
    if watched is not None:
        for mailing in dict.fromkeys(one.match.mailing for one in made if one.counts):
            freezes += _tripped(batch, mailing, watched)
    return made, freezes


def mention(batch: Batch, some: Sequence[Mention]) -> int:
    """Write the mentions that their source has not made before. Returns how many were new."""
    batch.flush()
    new = 0
    for one in some:
        known = batch.connection.execute(select(returned.c.n, returned.c.doc).where(returned.c.mail == one.key)).all()
        if any(SAID.loads(doc).author in (one.source, "") for _, doc in known):  # or their names are erased
            continue
        made = Return(
            mail=one.key, n=len(known), at=one.at, sort=Sort.MENTION, match=Match(),
            said=ReturnText(subject=one.title, author=one.source, said=one.url),
        )  # fmt: skip
        batch.connection.execute(insert(returned).values(**_row(made)))
        batch.record([replace(_event(made), at=batch.now)])
        new += 1
    return new


def _tripped(batch: Batch, mailing: str, watched: Watched) -> Sequence[Freeze]:
    """Trip the first breaker whose limit is reached. Only returns count that came after the last trip, and after a thaw of
    its freezes. Returns the freezes made."""
    since, stands = _last_trip(batch, mailing, watched)
    if stands:
        return ()
    for breaker in watched.breakers.each:
        window = breaker.limit.window_seconds
        begin = max(since, batch.now_us - window * 1_000_000 if window else 0)
        n = _counted(batch.connection, mailing, breaker.sort, begin)
        if breaker.limit.trips(n, watched.people):
            return _trip(batch, mailing, breaker, n, watched)
    return ()


def _last_trip(batch: Batch, mailing: str, watched: Watched) -> tuple[int, bool]:
    """Return the time (microseconds) of the mailing's last trip, or of a later thaw of its freezes, 0 for none; and whether
    one of these freezes stands. A trip while the policy did not enforce is ignored once it does: nobody has decided since that
    the mailing may go on."""
    since = 0
    active = {stop.freeze_id for stop in batch.freezes}
    for one, _ in journal.history(batch.connection, mailing, Kind.TRIPPED):
        if not (watched.enforce and one.data["observed"]):
            ids = [str(id) for id in one.data["freezes"]]
            thawed = [other.at for id in ids for other, _ in journal.history(batch.connection, id, Kind.THAW)]
            since = max(since, one.at, *thawed)
            if not active.isdisjoint(ids):
                return since, True
    return since, False


def _counted(connection: Connection, mailing: str, sort: str, since: int) -> int:
    counts = returned.c.mailing == mailing, returned.c.sort == sort, returned.c.counts.is_(True), returned.c.at > since
    return int(connection.execute(select(func.count()).where(*counts)).scalar_one())


def _trip(batch: Batch, mailing: str, breaker: Breaker, n: int, watched: Watched) -> Sequence[Freeze]:
    row = mailings_of(batch).by_name(mailing)
    lists = row.mailing.lists if row is not None and watched.breakers.lists else ()
    wanted = [(Selector.LIST, name) for name in lists] or [(Selector.MAILING, mailing)]
    reason = Phrase(REASONS[breaker.name], n=n, people=watched.people, limit=breaker.limit.text)
    freezes = [
        Freeze(freeze_id=watched.new_id(), selector=selector, value=value, reason=reason, by=ITSELF, at=batch.now)
        for selector, value in (wanted if watched.enforce else ())
    ]
    data = {
        "breaker": breaker.name,
        "limit": breaker.limit.text,
        "counted": n,
        "people": watched.people,
        "freezes": [stop.freeze_id for stop in freezes],
        "observed": not watched.enforce,
    }
    batch.record([Event(kind=Kind.TRIPPED, id=mailing, at=batch.now, data=data)])
    for stop in freezes:
        deciding.freeze(batch, stop, event_of(Kind.FREEZE, stop, ITSELF, batch.now))
    return freezes


def _add_to_mailings(batch: Batch, made: Sequence[Return]) -> None:
    """Add bounces and complaints that count to their mailings. Too many of these stop a release in stages."""
    counted = Counter((one.match.mailing, one.sort) for one in made if one.counts)
    for mailing in dict.fromkeys(mailing for mailing, _ in counted):
        bounces, complaints = counted[mailing, Sort.BOUNCE], counted[mailing, Sort.COMPLAINT]
        if (bounces or complaints) and mailings_of(batch).by_name(mailing) is not None:  # else retention erased it
            deciding.change_mailing(batch, mailing, partial(_more_returns, bounces=bounces, complaints=complaints))


def _more_returns(mailing: Mailing, *, bounces: int, complaints: int) -> tuple[Mailing, Change]:
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
        kind=Kind.RETURNED, id=one.mail[:16], at=one.at, data=data,
        private={role: (value,) for role, value in private.items() if value},
    )  # fmt: skip


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
    *,
    mailing: str | None = None,
    sort: Sort | None = None,
    limit: int = 100,
    before: tuple[datetime, str] | None = None,
    since: datetime | None = None,
) -> list[Return]:
    """Return returns, the newest first. ``mailing``: an id, "" for returns of no mailing, None for all. ``before``: time and mail
    of the last return on the page before. ``since``: the oldest time."""
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
    if since is not None:
        query = query.where(returned.c.at >= microseconds(since))
    order = returned.c.at.desc(), returned.c.mail.desc(), returned.c.n
    return [_read(row) for row in connection.execute(query.order_by(*order).limit(limit))]


def mails_by_prefix(connection: Connection, prefix: str) -> list[str]:
    """Return the SHA-256s of stored mails that begin with ``prefix``, at most ten."""
    query = select(returned.c.mail).distinct().where(returned.c.mail.startswith(prefix, autoescape=True)).limit(10)
    return list(connection.execute(query).scalars())


def sort_counts(connection: Connection, mailing: str, width: timedelta) -> list[SortCount]:
    """Count the returns of a mailing by stretches of ``width``, in order of time."""
    width_us = width // timedelta(microseconds=1)
    part = (returned.c.at // width_us).label("part")
    likely = (returned.c.known == By.LIKENESS.value).label("likely")
    query = select(part, returned.c.sort, likely, func.count(), func.count().filter(returned.c.counts.is_(True)))
    query = query.where(returned.c.mailing == mailing).group_by(part, returned.c.sort, likely).order_by(part)
    return [
        SortCount(at=instant(int(n) * width_us), sort=Sort(sort), likely=bool(maybe), all=all_, counted=counted)
        for n, sort, maybe, all_, counted in connection.execute(query)
    ]


def ends(connection: Connection, mailing: str) -> tuple[datetime, datetime] | None:
    """Return the times of the first and last return of a mailing, None if it has none."""
    query = select(func.min(returned.c.at), func.max(returned.c.at)).where(returned.c.mailing == mailing)
    first, last = connection.execute(query).one()
    return None if first is None else (instant(first), instant(last))


def between(connection: Connection, mailing: str, begin: datetime, end: datetime) -> int:
    """Count the returns of a mailing after ``begin`` and up to ``end``: sorts of ``COUNTED``, without likely ones."""
    at = returned.c.at > microseconds(begin), returned.c.at <= microseconds(end)
    sorts = returned.c.sort.in_([sort.value for sort in COUNTED]), returned.c.known != By.LIKENESS.value
    query = select(func.count()).where(returned.c.mailing == mailing, *at, *sorts)
    return int(connection.execute(query).scalar_one())


def forget(batch: Batch, addresses: datetime, everything: datetime) -> bool:
    """Erase names in returns before ``addresses``, and returns before ``everything``, at most ``SLICE`` of each. Returns whether
    there is more. Spares what an incident preserves."""
    connection = batch.connection
    spared = (
        ~preservation.is_kept(preservation.ID, returned.c.mailing),
        ~preservation.is_kept(preservation.ID, returned.c.message),
    )
    old = select(returned.c.mail, returned.c.n).where(
        returned.c.at < microseconds(addresses), returned.c.doc != NOBODY, *spared
    )
    named = connection.execute(old.limit(SLICE)).all()
    blank = "UPDATE returned SET doc = ? WHERE mail = ? AND n = ?"
    batch.execute(blank, [(NOBODY, mail, n) for mail, n in named])
    gone = select(returned.c.mail).distinct().where(returned.c.at < microseconds(everything), *spared).limit(SLICE)
    mails = list(connection.execute(gone).scalars())
    if mails:
        connection.execute(delete(returned).where(returned.c.mail.in_(mails)))
    return len(named) >= SLICE or len(mails) >= SLICE
