"""Queries about mailings: a list of them, one of them, and the people that it reached.

An admitted copy counts as relayed once it is no longer in flight.

The sets of people that approvals are bound to are sorted keyed digests in pieces, by the name of the set (model.set_of). A set never
changes. Its pieces are written one by one before anything refers to it, so that a set of millions delays nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from math import inf
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, text

from smtpguard.database.access import among
from smtpguard.database.batch import Batch
from smtpguard.database.schema import DECIDED, entry, hold, mailing, peopleset, reached
from smtpguard.database.statements import rows_among
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import instant, instant_or_none, microseconds
from smtpguard.journal.distinct import Changes, Interval, Version, Where, interval
from smtpguard.journal.event import Kind
from smtpguard.mailings.finder import Finder, Memory
from smtpguard.mailings.inflight import IN_FLIGHT_STATUSES, InFlight, in_flight, is_unsent, people_of
from smtpguard.mailings.mailingrow import COLUMNS, CUSTOMER, CUSTOMERS, MAYBE, MailingRow, list_with_bit
from smtpguard.mailings.model import (
    FIELDS,
    LET_THROUGH,
    ON_THE_WAY,
    SUREST,
    CopyStatus,
    Crowd,
    GrowthPoint,
    Mailing,
    PeopleCounts,
    ReachedPeople,
    State,
    set_of,
)
from smtpguard.mailings.staging import Progress
from smtpguard.reading.fingerprint import Identity, Sketch

_COLUMNS = tuple(mailing.c[name] for name in COLUMNS.split(", "))
_PAUSED = (
    select(*_COLUMNS)
    .where(text(DECIDED), mailing.c.state.in_([State.PAUSED.value, State.HELD.value]))
    .order_by(mailing.c.n)
)
_MOST_IDS = 10
"""The most ids that are returned for one prefix."""
DAY_US = 86_400_000_000
_MAY_BE_THERE = frozenset({CopyStatus.RELAYED, CopyStatus.DOUBTED})
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of ids
_STEPS = 99
"""The steps into which the time of a chart is divided; the last point may lie beyond them."""
_BRIEF = 1_000_000
"""Microseconds within which a copy is relayed at once."""
_SENT = frozenset({*IN_FLIGHT_STATUSES, int(CopyStatus.RELAYED)})
PIECE = 4096
"""The most people of one piece of a set."""
OCTETS = 8
"""The octets of a keyed digest."""


def find(connection: Connection, now: datetime, mailing_id: str) -> Mailing | None:
    """Return the mailing of this id as it is now; None if there is none."""
    row = connection.execute(select(*_COLUMNS).where(mailing.c.id == mailing_id)).one_or_none()
    return None if row is None else next(iter(_mailings(connection, [row], now)))


def newest(
    connection: Connection,
    now: datetime,
    *,
    least: int = 1,
    state: str | None = None,
    limit: int = 100,
    before: tuple[datetime, str] | None = None,
) -> list[Mailing]:
    """Return the mailings with at least ``least`` people, or with a hold or a decision, the latest first.

    ``before``: the time and id of the last one on the previous page.
    """
    query = select(*_COLUMNS).order_by(mailing.c.last_at.desc(), mailing.c.n.desc()).limit(limit)
    if state is not None:
        query = query.where(mailing.c.state == state)
    else:
        query = query.where(or_(mailing.c.people >= least, mailing.c.state != State.PASSING.value))
    if before is not None:
        at = microseconds(before[0])
        n = select(mailing.c.n).where(mailing.c.id == before[1]).scalar_subquery()
        query = query.where(mailing.c.last_at <= at, or_(mailing.c.last_at < at, mailing.c.n < n))
    return _mailings(connection, connection.execute(query).all(), now)


def standing(connection: Connection, now: datetime) -> list[Mailing]:
    """Return the mailings with copies, stored or at their client, that only a person lets go on: the release is stopped, or
    between two stages without a time."""
    rows = connection.execute(_PAUSED).all()
    waiting = [
        row for row in rows if (at := MailingRow.read(*row).view(now).progress) is not None and at.waits_for_person
    ]
    return [one for one in _mailings(connection, waiting, now) if one.people.held or one.people.deferred]


def paused(connection: Connection, now: datetime, ids: Collection[str]) -> list[Mailing]:
    """Return those of these mailings whose release is stopped or between two stages."""
    rows = [row for row in connection.execute(_PAUSED).all() if row.id in ids]
    return [one for one in _mailings(connection, rows, now) if one.state is State.PAUSED]


def early(connection: Connection, begun: dict[str, Progress]) -> list[str]:
    """Return the ids of the mailings whose pause ends by time and is still to begin (staging.Progress.half).

    ``begun``: the pauses that this process knows to have begun, by mailing; it is updated. They stay so, since nothing more of
    their stage is let go.
    """
    paused: dict[str, Progress] = {}
    found: list[str] = []
    for one in (MailingRow.read(*row).mailing for row in connection.execute(_PAUSED)):
        if (progress := one.progress) is None or progress.goes_on_at() is None:
            continue
        leads = (grant.hold_id for grant in one.grants)
        if begun.get(one.mailing_id) != progress and is_unsent(connection, one.mailing_id, leads, progress.half):
            found.append(one.mailing_id)
        else:
            paused[one.mailing_id] = progress
    begun.clear()
    begun.update(paused)
    return found


def named(connection: Connection, prefix: str) -> list[str]:
    """Return the ids with this prefix, at most ten."""
    query = (
        select(mailing.c.id)
        .where(*prefix_condition(mailing.c.id, prefix.upper()))
        .order_by(mailing.c.id)
        .limit(_MOST_IDS)
    )
    return list(connection.execute(query).scalars())


def like(connection: Connection, sketch: Sketch, since: datetime) -> str:
    """Return the id of the mailing with messages since then whose text is nearest, if it is near enough; "" for none."""
    finder = Finder(partial(rows_among, connection), b"", Memory(), microseconds(since))
    [found] = finder.find([Identity(sketch=sketch)])
    return found.mailing_id if found is not None else ""


def prefix_condition(ids: ColumnElement[str], low: str) -> list[ColumnElement[bool]]:
    """Return the conditions that an id begins with ``low``. They use an index, since these columns compare by octets."""
    last = low.rstrip(_DIGITS[-1])
    after = _DIGITS.find(last[-1:]) + 1
    end = [ids < last[:-1] + _DIGITS[after]] if last and after else []
    return [ids >= low, *end, ids.startswith(low, autoescape=True)]


def reached_by(connection: Connection, mailing_id: str, digests: Sequence[bytes]) -> dict[bytes, CopyStatus]:
    """Return the statuses of these people's copies. People who are no recipients are left out."""
    n = connection.execute(select(mailing.c.n).where(mailing.c.id == mailing_id)).scalar()
    if n is None:
        return {}
    now = in_flight(connection, [n], digests)[n]
    query = select(reached.c.person, reached.c.status).where(reached.c.n == n)
    return {
        bytes(person): _status_now(CopyStatus(status), bytes(person), now)
        for person, status in among(connection, query, reached.c.person, digests)
    }


def reached_people(connection: Connection, mailing_id: str) -> ReachedPeople:
    """Return the people that a mailing has reached by now; nobody if there is no such mailing."""
    found = connection.execute(select(*_COLUMNS).where(mailing.c.id == mailing_id)).one_or_none()
    if found is None:
        return ReachedPeople()
    row, n = MailingRow.read(*found), found.n
    still = in_flight(connection, [n])[n]
    people: dict[bool, set[bytes]] = {True: set(), False: set()}
    reaching = reached.c.n == n, reached.c.status.in_([int(status) for status in LET_THROUGH])
    for person, status in connection.execute(select(reached.c.person, reached.c.status).where(*reaching)):
        digest = bytes(person)
        if digest not in row.crowds and digest not in row.unbounded:
            people[_status_now(CopyStatus(status), digest, still) is CopyStatus.RELAYED].add(digest)
    crowds = _crowds(connection, row, still, row.crowds.keys() | row.unbounded)
    let_through = tuple(crowd for crowd in crowds if crowd.status in LET_THROUGH)
    return ReachedPeople(sent=frozenset(people[True]), may=frozenset(people[False]), crowds=let_through)


def _status_now(status: CopyStatus, person: bytes, now: InFlight) -> CopyStatus:
    """Return the current status of a person's copy, from the stored one and the copies in flight."""
    if status not in ON_THE_WAY:
        return status
    if person in now.may_have:
        return CopyStatus.DOUBTED
    return CopyStatus.ADMITTED if person in now.people else CopyStatus.RELAYED


def _mailings(connection: Connection, rows: Sequence[Any], now: datetime) -> list[Mailing]:
    """Return the mailings of these rows as they are now, their people each once."""
    under_way = in_flight(connection, [row.n for row in rows])
    read = [MailingRow.read(*columns) for columns in rows]
    entries = [row.mailing.entry for row in read if row.mailing.entry]
    query = select(hold.c.hold_id, hold.c.copies, hold.c.release_at)
    held = {id: (copies or 0, at) for id, copies, at in among(connection, query, hold.c.hold_id, entries)}
    found = []
    for row in read:
        mailing = row.view(now)
        people = mailing.people
        n = row.known.n
        still = under_way[n]
        doubted = _people(connection, n, still.may_have)
        admitted = _people(connection, n, still.people - still.may_have)
        arrived = max(people.admitted - admitted - doubted, 0)
        tally = replace(people, admitted=admitted, doubted=people.doubted + doubted, relayed=people.relayed + arrived)
        if row.crowds:
            tally = _each_once(connection, row, still, tally)
        if row.unbounded:
            more = select(reached.c.person, reached.c.status).where(reached.c.n == n)
            open_ = among(connection, more, reached.c.person, list(row.unbounded))
            became = {_status_now(CopyStatus(s), bytes(p), still) for p, s in open_}
            tally = replace(tally, unbounded=frozenset(FIELDS[one] for one in became if one in FIELDS))
        copies, at = held.get(mailing.entry, (0, None))
        found.append(replace(mailing, people=tally, copies=copies, release_at=instant_or_none(at)))
    return found


def _each_once(connection: Connection, row: MailingRow, still: InFlight, tally: PeopleCounts) -> PeopleCounts:
    """Return the tally with each person counted once.

    A person who had a copy of their own and is on a list that it went to counts once, by the most certain status of both, though
    some may have left the list, or come to it, between the two. A list before and after its members changed counts as at least
    the people of both versions. Lists of one version, as before and after one was renamed, are the same people. So the numbers
    never exceed the real ones; the possible deviation is given beside them. Bounds of approvals count everybody.
    """
    n, names = row.known.n, row.mailing.lists
    counts = {field: getattr(tally, field) for field in FIELDS.values()}
    crowds: list[Crowd] = []
    known = set[str]()
    for crowd in sorted(_crowds(connection, row, still, row.crowds), key=lambda one: -SUREST.index(one.status)):
        if crowd.version not in known:
            known.add(crowd.version)
            crowds.append(crowd)
        elif crowd.status in FIELDS:
            counts[FIELDS[crowd.status]] -= crowd.people
    whole: dict[int, list[Crowd]] = {}  # by the bit of the list, the surest first
    for crowd in crowds:
        if (bit := crowd.kind & ~CUSTOMERS) and not bit & (bit - 1):
            whole.setdefault(bit, []).append(crowd)
    singles = _singles(connection, n, still)
    asked = {bit for bit, versions in whole.items() if singles or len(versions) > 1}
    on = {name for bit in asked if (name := list_with_bit(names, bit))}
    changes = _changes(connection, on, row)
    left: dict[int, list[tuple[CopyStatus, int]]] = {}
    further = 0
    for bit, versions in whole.items():
        sizes: dict[Version, Interval] = {}
        told = 0
        for crowd in versions:
            sizes[crowd.of] = Interval(crowd.people, crowd.people)
            more = changes.together(sizes).low - told
            told += more
            counts[FIELDS[crowd.status]] -= crowd.people - more
            left.setdefault(bit, []).append((crowd.status, more))
        may = {crowd.of: sizes[crowd.of] for crowd in versions if crowd.status in _MAY_BE_THERE}
        if may:
            together = changes.together(may)
            further += (together.high or 0) - together.low
    taken = 0
    for bit, versions_left in sorted(left.items(), key=lambda one: -SUREST.index(one[1][0][0])):
        mine = Counter[CopyStatus]()
        beside = 0
        for (kind, status), some in singles.items():
            if kind & bit and not kind & taken:
                mine[status] += some
        taken |= bit
        for status, some in sorted(mine.items(), key=lambda one: -SUREST.index(one[0])):
            for at, (became, rest) in enumerate(versions_left):
                one = min(some, rest)
                versions_left[at] = became, rest - one
                counts[FIELDS[status if SUREST.index(status) <= SUREST.index(became) else became]] -= one
                some -= one
                beside += one if {status, became} <= _MAY_BE_THERE else 0
        further += min(beside, changes.all_of(list_with_bit(names, bit)))
    counts = {field: max(count, 0) for field, count in counts.items()}
    having = [crowd for crowd in crowds if crowd.status is CopyStatus.RELAYED]
    have = {kind: some for (kind, status), some in singles.items() if status is CopyStatus.RELAYED}
    same = 0
    if having:
        anew = journal.happened_to(connection, [Kind.POLICY], row.first_us + 1, row.last_us + 1)
        least = _least(having, have, changes, inf if anew else sum(map(changes.all_of, on)))
        same = max(counts[FIELDS[CopyStatus.RELAYED]] - least, 0)
    return replace(tally, **counts, same=same, apart=further)


def _least(crowds: Sequence[Crowd], singles: Mapping[int, int], changes: Changes, moved: float) -> int:
    """Return the least number of people of these crowds and these single people, by kind.

    People behind an address and on no list are no customers. ``moved``: how many came to the lists or left them, so that as many
    who were on no such list when their own copy came may be in a crowd; ``inf`` if the policy changed meanwhile, and with it
    perhaps which lists there are.
    """
    sizes: dict[int, dict[Version, Interval]] = {}
    for crowd in crowds:
        sizes.setdefault(crowd.kind, {})[crowd.of] = Interval(crowd.people, crowd.people)
    known = Counter[Where]()
    for kind, some in singles.items():
        off = frozenset(crowd.of for crowd in crowds if _surely_not_in(kind, crowd.kind))
        known[frozenset(), off] += some
    several = {crowd.of: Interval(crowd.people, crowd.people) for crowd in crowds}
    least = interval(known, several, changes).low
    others = max((crowd.people for crowd in crowds if not crowd.kind), default=0)
    for kind, versions in sizes.items():
        if others and kind & CUSTOMER and kind & ~CUSTOMERS:
            beside = sum(some for of, some in singles.items() if _surely_not_in(of, kind) and _surely_not_in(of, 0))
            least = max(least, changes.together(versions).low + others + beside)
    anywhere = {(frozenset[Version](), frozenset[Version]()): sum(singles.values())}
    return int(max(least - moved, interval(anywhere, several, changes).low)) if moved else least


def _surely_not_in(single: int, crowd: int) -> bool:
    """Return whether, by their kinds, a single person is certainly not in a crowd."""
    if lists := crowd & ~CUSTOMERS:
        return not single & (lists | MAYBE)
    return not crowd & MAYBE and bool(single & CUSTOMER) and not single & MAYBE


def _crowds(connection: Connection, row: MailingRow, still: InFlight, digests: Iterable[bytes]) -> Iterator[Crowd]:
    names = row.mailing.lists
    query = select(reached.c.person, reached.c.kind, reached.c.weight, reached.c.status)
    here = reached.c.n == row.known.n, reached.c.person.in_(list(digests))
    for person, kind, weight, status in connection.execute(query.where(*here)):
        digest, bit = bytes(person), int(kind) & ~CUSTOMERS
        yield Crowd(
            list=list_with_bit(names, bit) if bit and not bit & (bit - 1) else "",
            version=row.crowds.get(digest, "") or digest.hex(),
            kind=int(kind),
            status=_status_now(CopyStatus(status), digest, still),
            people=int(weight),
        )


def _changes(connection: Connection, names: Collection[str], row: MailingRow) -> Changes:
    """Return the changes of these lists while the mailing was sent, from the journal."""
    changes = Changes()
    if not names:
        return changes
    begin, end = (journal.first_at(connection, at) for at in (row.first_us - DAY_US, row.last_us + DAY_US))
    query = journal.ROWS.where(
        entry.c.id.in_(names), entry.c.kind == Kind.LIST.value, entry.c.seq >= begin, entry.c.seq < end
    )
    for one, _ in map(journal.pair, connection.execute(query.order_by(entry.c.seq)).all()):
        changes.note(one.id, one.data)
    return changes


def _singles(connection: Connection, n: int, still: InFlight) -> Counter[tuple[int, CopyStatus]]:
    """Count the single people by kind and status."""
    counted: Counter[tuple[int, CopyStatus]] = Counter()
    mine = reached.c.n == n, reached.c.weight == 1
    query = (
        select(reached.c.kind, reached.c.status, func.count()).where(*mine).group_by(reached.c.kind, reached.c.status)
    )
    for kind, status, some in connection.execute(query):
        counted[int(kind), CopyStatus.RELAYED if CopyStatus(status) in ON_THE_WAY else CopyStatus(status)] += int(some)
    going_on = select(reached.c.person, reached.c.kind, reached.c.status).where(
        *mine, reached.c.status.in_(IN_FLIGHT_STATUSES)
    )
    for person, kind, status in among(connection, going_on, reached.c.person, list(still.all)):
        counted[int(kind), CopyStatus.RELAYED] -= 1
        counted[int(kind), _status_now(CopyStatus(status), bytes(person), still)] += 1
    return Counter(
        {(kind, status): some for (kind, status), some in counted.items() if some > 0 and status is not CopyStatus.NONE}
    )


def _people(connection: Connection, n: int, digests: Iterable[bytes]) -> int:
    query = select(func.sum(reached.c.weight)).where(reached.c.n == n, reached.c.status.in_(IN_FLIGHT_STATUSES))
    return sum(int(some or 0) for (some,) in among(connection, query, reached.c.person, list(digests)))


def growth(connection: Connection, mailing_id: str) -> list[GrowthPoint]:
    """Return how a mailing grew over time, for a chart of at most a hundred points at equal distances.

    A person who has it counts from the first copy that was sent to them, everybody else from the time when their copy came. A
    copy that went out counts as held until then, unless that was at once. Deferred people, of whom no time is recorded, are
    added at the end.
    """
    row = connection.execute(select(mailing.c.n, mailing.c.last_at).where(mailing.c.id == mailing_id)).one_or_none()
    if row is None:
        return []
    n, last_came = row
    people: Counter[tuple[int, int]] = Counter()  # by (when their copy came, when it went; 0 if they do not have it)
    query = (
        select(reached.c.at, reached.c.went, reached.c.status, func.sum(reached.c.weight))
        .where(reached.c.n == n)
        .group_by(reached.c.at, reached.c.went, reached.c.status)
    )
    for at, went, status, weight in connection.execute(query):
        people[at, (went or at) if status in _SENT else 0] += int(weight)
    still = select(reached.c.at, reached.c.went, reached.c.weight).where(
        reached.c.n == n, reached.c.status.in_(IN_FLIGHT_STATUSES)
    )
    for at, went, weight in among(connection, still, reached.c.person, list(in_flight(connection, [n])[n].all)):
        people[at, went or at] -= weight
        people[at, 0] += weight
    times = [at for pair, some in people.items() if some for at in pair if at] or [int(last_came)]
    first, last = min(times), max(times)
    step = max((last - first) // _STEPS, 1)
    sent, held = Counter[int](), Counter[int]()
    for (came, went), some in people.items():
        waited = not went or (came and went - came > max(step, _BRIEF))
        if waited:
            held[((came or last) - first) // step] += some
        if went:
            sent[(went - first) // step] += some
            held[(went - first) // step] -= some if waited else 0
    grown = []
    has, waits = 0, 0
    for number in sorted({number for each in (sent, held) for number, some in each.items() if some}):
        has, waits = has + sent[number], waits + held[number]
        grown.append(GrowthPoint(at=instant(first + number * step), sent=has, held=waits))
    return grown


def pieces(people: Collection[bytes]) -> tuple[str, Iterator[bytes]]:
    """Return the name of a set of people, and its pieces in order, each of at most ``PIECE`` digests."""
    whole = b"".join(sorted(set(people)))
    step = PIECE * OCTETS
    return set_of(people), (whole[at : at + step] for at in range(0, len(whole), step))


def put_set(batch: Batch, name: str, piece: bytes) -> None:
    """Write one piece of a set. A second write only renews its age."""
    first = piece[:OCTETS]
    batch.connection.execute(delete(peopleset).where(peopleset.c.name == name, peopleset.c.first == first))
    batch.connection.execute(insert(peopleset).values(name=name, first=first, people=piece, made_at=batch.now_us))


class PeopleSets:
    """The sets of people for the items of one run, each piece read once."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._pieces: dict[tuple[str, bytes], frozenset[bytes]] = {}

    def has(self, name: str, digest: bytes) -> bool:
        """Return whether a person is in the set; False if the set is no longer stored."""
        here = peopleset.c.name == name, peopleset.c.first <= digest
        query = select(peopleset.c.first).where(*here).order_by(peopleset.c.first.desc()).limit(1)
        first = self._batch.connection.execute(query).scalar()
        if first is None:
            return False
        key = name, bytes(first)
        if key not in self._pieces:
            people = self._batch.connection.execute(query.with_only_columns(peopleset.c.people)).scalar_one()
            self._pieces[key] = frozenset(people_of(bytes(people)))
        return digest in self._pieces[key]
