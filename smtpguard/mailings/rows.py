"""Queries about mailings: a list of them, one of them, and the people that it reached.

An admitted copy counts as relayed once it is no longer in flight.

The sets of people that approvals are bound to are sorted keyed digests in pieces, by the name of the set (model.set_of). A set never
changes. Its pieces are written one by one before anything refers to it, so that a set of millions delays nobody.

Recipients are erased with the retention of addresses, single letters after days, but not while a decision on the mailing is in force. A
mailing without copies for long is over: its keys are deleted, so that the same text begins another. The newest row stays, without its
content, since numbers are given from it on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, or_, select, text, update

from smtpguard.database.access import among
from smtpguard.database.batch import Batch
from smtpguard.database.schema import (
    DECIDED,
    cover,
    entry,
    hold,
    mailing,
    mailing_key,
    peopleset,
    preserved_key,
    reached,
)
from smtpguard.holds.model import HOLD, LIVE
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import instant, microseconds
from smtpguard.journal.distinct import Changes, Interval, Version, Where, interval
from smtpguard.journal.event import Kind
from smtpguard.mailings.inflight import LET_GO, InFlight, going, is_unsent, split
from smtpguard.mailings.mailingbatch import QUIET as OVER
from smtpguard.mailings.mailingrow import (
    COLUMNS,
    CUSTOMER,
    CUSTOMERS,
    MAYBE,
    NOBODY,
    NOTHING,
    KnownMailing,
    Row,
    list_of,
    nearest,
)
from smtpguard.mailings.model import (
    FIELDS,
    LET_THROUGH,
    ON_THE_WAY,
    SUREST,
    Account,
    CopyStatus,
    Crowd,
    Grant,
    Mailing,
    State,
    Tally,
    set_of,
)
from smtpguard.mailings.staging import Progress
from smtpguard.reading.fingerprint import Sketch

_COLUMNS = tuple(mailing.c[name] for name in COLUMNS.split(", "))
_PAUSED = (
    select(*_COLUMNS)
    .where(text(DECIDED), mailing.c.state.in_([State.PAUSED.value, State.HELD.value]))
    .order_by(mailing.c.n)
)
_NAMED = 10
_LIKE = 32
"""The most mailings whose text is compared with one."""
DAY_US = 86_400_000_000
_MAY_BE_THERE = frozenset({CopyStatus.RELAYED, CopyStatus.DOUBTED})
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of ids


def find(connection: Connection, now: datetime, mailing_id: str) -> Mailing | None:
    row = connection.execute(select(*_COLUMNS).where(mailing.c.id == mailing_id)).one_or_none()
    return None if row is None else next(iter(_shown(connection, [row], now)))


def newest(
    connection: Connection,
    now: datetime,
    *,
    least: int = 1,
    state: str | None = None,
    limit: int = 100,
    before: tuple[datetime, str] | None = None,
) -> list[Mailing]:
    """The latest first: mailings with at least ``least`` people, or with a hold or a decision. ``before``: the time and
    id of the last one on the previous page."""
    query = select(*_COLUMNS).order_by(mailing.c.last_at.desc(), mailing.c.n.desc()).limit(limit)
    if state is not None:
        query = query.where(mailing.c.state == state)
    else:
        query = query.where(or_(mailing.c.people >= least, mailing.c.state != State.PASSING.value))
    if before is not None:
        at = microseconds(before[0])
        n = select(mailing.c.n).where(mailing.c.id == before[1]).scalar_subquery()
        query = query.where(mailing.c.last_at <= at, or_(mailing.c.last_at < at, mailing.c.n < n))
    return _shown(connection, connection.execute(query).all(), now)


def standing(connection: Connection, now: datetime) -> list[Mailing]:
    """Those with copies, stored or at their client, that only a person lets go on: the release is stopped, or between
    two stages without a time."""
    rows = connection.execute(_PAUSED).all()
    waiting = [row for row in rows if (at := Row.read(*row).view(now).progress) is not None and at.waits_for_person]
    return [one for one in _shown(connection, waiting, now) if one.people.held or one.people.deferred]


def early(connection: Connection, begun: dict[str, Progress]) -> list[str]:
    """The ids of those whose pause ends by time and is still to begin (staging.Progress.half). ``begun``: those that this
    process knows to have begun, by mailing. They stay so, since nothing more of their stage is let go."""
    paused: dict[str, Progress] = {}
    found: list[str] = []
    for one in (Row.read(*row).mailing for row in connection.execute(_PAUSED)):
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
    """Ids with this prefix, at most ten."""
    query = (
        select(mailing.c.id).where(*prefix_condition(mailing.c.id, prefix.upper())).order_by(mailing.c.id).limit(_NAMED)
    )
    return list(connection.execute(query).scalars())


def like(connection: Connection, sketch: Sketch, since: datetime) -> str:
    """The mailing with messages since then whose text is nearest, if it is near enough; "" for none."""
    shared = func.count()
    keys = select(mailing_key.c.n).where(mailing_key.c.key.in_(sketch.keys)).group_by(mailing_key.c.n)
    near = connection.execute(keys.order_by(shared.desc(), mailing_key.c.n.desc()).limit(_LIKE)).scalars().all()
    rows = connection.execute(
        select(mailing.c.n, mailing.c.id, mailing.c.sketch).where(
            mailing.c.n.in_(near), mailing.c.last_at >= microseconds(since)
        )
    )
    known = [KnownMailing(n=n, mailing_id=id, exact=(), sketch=Sketch.unpack(bytes(made))) for n, id, made in rows]
    found = nearest(known, (), sketch)
    return found.mailing_id if found is not None else ""


def prefix_condition(ids: ColumnElement[str], low: str) -> list[ColumnElement[bool]]:
    """The condition that an id begins with ``low``, by an index. These columns compare by octets."""
    last = low.rstrip(_DIGITS[-1])
    after = _DIGITS.find(last[-1:]) + 1
    end = [ids < last[:-1] + _DIGITS[after]] if last and after else []
    return [ids >= low, *end, ids.startswith(low, autoescape=True)]


def reached_by(connection: Connection, mailing_id: str, digests: Sequence[bytes]) -> dict[bytes, CopyStatus]:
    """The statuses of these people's copies; people who are no recipients are left out."""
    n = connection.execute(select(mailing.c.n).where(mailing.c.id == mailing_id)).scalar()
    if n is None:
        return {}
    now = going(connection, [n], digests)[n]
    query = select(reached.c.person, reached.c.status).where(reached.c.n == n)
    return {
        bytes(person): _became(CopyStatus(status), bytes(person), now)
        for person, status in among(connection, query, reached.c.person, digests)
    }


def account(connection: Connection, mailing_id: str) -> Account:
    """The people that it has reached by now; none if there is no such mailing."""
    found = connection.execute(select(*_COLUMNS).where(mailing.c.id == mailing_id)).one_or_none()
    if found is None:
        return Account()
    row, n = Row.read(*found), found.n
    still = going(connection, [n])[n]
    people: dict[bool, set[bytes]] = {True: set(), False: set()}
    reaching = reached.c.n == n, reached.c.status.in_([int(status) for status in LET_THROUGH])
    for person, status in connection.execute(select(reached.c.person, reached.c.status).where(*reaching)):
        digest = bytes(person)
        if digest not in row.crowds and digest not in row.unbounded:
            people[_became(CopyStatus(status), digest, still) is CopyStatus.RELAYED].add(digest)
    crowds = (
        Crowd(
            list=name if name in row.mailing.lists else "",
            version=version,
            people=crowd.people,
            sent=crowd.status is CopyStatus.RELAYED,
        )
        for crowd in _crowds(connection, row, still, row.crowds.keys() | row.unbounded)
        if crowd.status in LET_THROUGH
        for name, version in [crowd.of]
    )
    return Account(sent=frozenset(people[True]), may=frozenset(people[False]), crowds=tuple(crowds))


def _became(status: CopyStatus, person: bytes, now: InFlight) -> CopyStatus:
    """The current status of a person who was admitted."""
    if status not in ON_THE_WAY:
        return status
    if person in now.may_have:
        return CopyStatus.DOUBTED
    return CopyStatus.ADMITTED if person in now.people else CopyStatus.RELAYED


def _shown(connection: Connection, rows: Sequence[Any], now: datetime) -> list[Mailing]:
    under_way = going(connection, [row.n for row in rows])
    leaving = connection.execute(select(hold.c.hold_id, hold.c.release_at).where(hold.c.release_at.is_not(None)))
    due = {hold_id: instant(at) for hold_id, at in leaving}
    found = []
    for columns in rows:
        row = Row.read(*columns)
        mailing = row.view(now)
        people = mailing.people
        still = under_way[columns.n]
        doubted = _people(connection, columns.n, still.may_have)
        admitted = _people(connection, columns.n, still.people - still.may_have)
        arrived = max(people.admitted - admitted - doubted, 0)
        tally = replace(people, admitted=admitted, doubted=people.doubted + doubted, relayed=people.relayed + arrived)
        if row.crowds:
            tally = _each_once(connection, row, still, tally)
        if row.unbounded:
            more = select(reached.c.person, reached.c.status).where(reached.c.n == columns.n)
            open_ = among(connection, more, reached.c.person, list(row.unbounded))
            became = {_became(CopyStatus(s), bytes(p), still) for p, s in open_}
            tally = replace(tally, unbounded=frozenset(FIELDS[one] for one in became if one in FIELDS))
        found.append(replace(mailing, people=tally, release_at=due.get(mailing.entry)))
    return found


@dataclass(slots=True)
class _Crowd:
    """The people behind one address: the list and version, the status of their copy, and their number."""

    of: Version
    kind: int
    status: CopyStatus
    people: int


def _each_once(connection: Connection, row: Row, still: InFlight, tally: Tally) -> Tally:
    """A person who had a copy of their own and is on a list that it went to counts once, by the most certain status of
    both, though some may have left the list, or come to it, between the two. A list before and after its members changed
    counts as at least the people of both versions; lists of one version, as before and after one was renamed, are the same
    people. So the numbers never exceed the real ones; the possible deviation is given beside them. Bounds of approvals
    count everybody."""
    n, names = row.known.n, row.mailing.lists
    counts = {field: getattr(tally, field) for field in FIELDS.values()}
    crowds: list[_Crowd] = []
    known = set[str]()
    for crowd in sorted(_crowds(connection, row, still, row.crowds), key=lambda one: -SUREST.index(one.status)):
        if crowd.of[1] not in known:
            known.add(crowd.of[1])
            crowds.append(crowd)
        elif crowd.status in FIELDS:
            counts[FIELDS[crowd.status]] -= crowd.people
    whole: dict[int, list[_Crowd]] = {}  # by the bit of the list, the surest first
    for crowd in crowds:
        if (bit := crowd.kind & ~CUSTOMERS) and not bit & (bit - 1):
            whole.setdefault(bit, []).append(crowd)
    singles = _singles(connection, n, still)
    asked = {bit for bit, versions in whole.items() if singles or len(versions) > 1}
    on = {name for bit in asked if (name := list_of(names, bit))}
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
        further += min(beside, changes.all_of(list_of(names, bit)))
    counts = {field: max(count, 0) for field, count in counts.items()}
    having = [crowd for crowd in crowds if crowd.status is CopyStatus.RELAYED]
    have = {kind: some for (kind, status), some in singles.items() if status is CopyStatus.RELAYED}
    same = 0
    if having:
        anew = journal.happened_to(connection, [Kind.POLICY], row.first_us + 1, row.last_us + 1)
        least = _least(having, have, changes, inf if anew else sum(map(changes.all_of, on)))
        same = max(counts[FIELDS[CopyStatus.RELAYED]] - least, 0)
    return replace(tally, **counts, same=same, apart=further)


def _least(crowds: Sequence[_Crowd], singles: Mapping[int, int], changes: Changes, moved: float) -> int:
    """The least number of people of these crowds and these single people, by kind. People behind an address and on no
    list are no customers. Of those who were on no such list when their own copy came, ``moved`` may be in a crowd: so many
    came to the lists or left them. ``inf``: the policy changed meanwhile, and with it perhaps which lists there are."""
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
    """Whether, by their kinds, a single person is certainly not in a crowd."""
    if lists := crowd & ~CUSTOMERS:
        return not single & (lists | MAYBE)
    return not crowd & MAYBE and bool(single & CUSTOMER) and not single & MAYBE


def _crowds(connection: Connection, row: Row, still: InFlight, digests: Iterable[bytes]) -> Iterator[_Crowd]:
    names = row.mailing.lists
    query = select(reached.c.person, reached.c.kind, reached.c.weight, reached.c.status)
    here = reached.c.n == row.known.n, reached.c.person.in_(list(digests))
    for person, kind, weight, status in connection.execute(query.where(*here)):
        digest, bit = bytes(person), int(kind) & ~CUSTOMERS
        name = list_of(names, bit) if bit and not bit & (bit - 1) else ""
        version = row.crowds.get(digest, "") or digest.hex()
        yield _Crowd(
            of=(name or f"kind {kind}", version),
            kind=int(kind),
            status=_became(CopyStatus(status), digest, still),
            people=int(weight),
        )


def _changes(connection: Connection, names: Collection[str], row: Row) -> Changes:
    """Changes of these lists while the mailing was sent, from the journal."""
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
    """The numbers of single people by kind and status."""
    counted: Counter[tuple[int, CopyStatus]] = Counter()
    mine = reached.c.n == n, reached.c.weight == 1
    query = (
        select(reached.c.kind, reached.c.status, func.count()).where(*mine).group_by(reached.c.kind, reached.c.status)
    )
    for kind, status, some in connection.execute(query):
        counted[int(kind), CopyStatus.RELAYED if CopyStatus(status) in ON_THE_WAY else CopyStatus(status)] += int(some)
    going_on = select(reached.c.person, reached.c.kind, reached.c.status).where(*mine, reached.c.status.in_(LET_GO))
    for person, kind, status in among(connection, going_on, reached.c.person, list(still.all)):
        counted[int(kind), CopyStatus.RELAYED] -= 1
        counted[int(kind), _became(CopyStatus(status), bytes(person), still)] += 1
    return Counter(
        {(kind, status): some for (kind, status), some in counted.items() if some > 0 and status is not CopyStatus.NONE}
    )


def _people(connection: Connection, n: int, digests: Iterable[bytes]) -> int:
    query = select(func.sum(reached.c.weight)).where(reached.c.n == n, reached.c.status.in_(LET_GO))
    return sum(int(some or 0) for (some,) in among(connection, query, reached.c.person, list(digests)))


PIECE = 4096
"""The people of one piece."""
OCTETS = 8


def pieces(people: Collection[bytes]) -> tuple[str, Iterator[bytes]]:
    """The name of a set and its pieces, each of at most ``PIECE`` digests, in order."""
    whole = b"".join(sorted(set(people)))
    step = PIECE * OCTETS
    return set_of(people), (whole[at : at + step] for at in range(0, len(whole), step))


def put_set(batch: Batch, name: str, piece: bytes) -> None:
    """Write one piece. A second write only renews its age."""
    first = piece[:OCTETS]
    batch.connection.execute(delete(peopleset).where(peopleset.c.name == name, peopleset.c.first == first))
    batch.connection.execute(insert(peopleset).values(name=name, first=first, people=piece, made_at=batch.now_us))


class Sets:
    """The sets for the items of one run, each piece read once."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._pieces: dict[tuple[str, bytes], frozenset[bytes]] = {}

    def has(self, name: str, digest: bytes) -> bool:
        """Whether a person is in the set; False if the set is no longer stored."""
        here = peopleset.c.name == name, peopleset.c.first <= digest
        query = select(peopleset.c.first).where(*here).order_by(peopleset.c.first.desc()).limit(1)
        first = self._batch.connection.execute(query).scalar()
        if first is None:
            return False
        key = name, bytes(first)
        if key not in self._pieces:
            people = self._batch.connection.execute(query.with_only_columns(peopleset.c.people)).scalar_one()
            self._pieces[key] = frozenset(split(bytes(people)))
        return digest in self._pieces[key]


def forget_sets(batch: Batch, before: datetime) -> None:
    """Delete sets made before then, but for those of corrections that wait for people, or are approved."""
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
    """The approvals in force, but for those by a writer alone."""
    for row in batch.connection.execute(select(*_COLUMNS).where(text(DECIDED))).all():
        yield from Row.read(*row).view(batch.now).grants


QUIET = timedelta(microseconds=OVER)
LETTER = timedelta(days=2)
"""For messages to one person."""
LETTERS = timedelta(days=8)
"""For messages to a few people: their writer, who sends the same text every working day, may be away for a weekend or a
week."""
FEW = 20
_LIVE = [state.value for state in LIVE]
SLICE = 500
CUT = 2_000


def forget(batch: Batch, before: datetime) -> tuple[int, bool]:
    """One slice. Returns how many mailings were deleted, and whether there are more."""
    batch.flush()
    newest = batch.connection.execute(select(func.max(mailing.c.n))).scalar() or 0

    def quiet(since: timedelta) -> ColumnElement[bool]:
        return mailing.c.last_at < microseconds(batch.now - since)

    of_few = quiet(LETTER), mailing.c.people < FEW, or_(mailing.c.people < 2, quiet(LETTERS))
    letters = _undecided(batch, *of_few, mailing.c.state == State.PASSING.value, mailing.c.n < newest)
    old = _undecided(batch, *_over(before), mailing.c.doc != NOTHING)
    gone, left = _erase(batch, list(dict.fromkeys([*letters, *old])), newest)
    ended = _oldest(batch, quiet(QUIET), mailing.c.filed.is_(True))  # their keys are deleted
    _unfile(batch, ended)
    return gone, left or any(len(some) >= SLICE for some in (letters, old, ended))


def _over(before: datetime) -> tuple[ColumnElement[bool], ...]:
    """Without copies since then, and none of its holds waits, or is to be sent: they follow its approval."""
    held = select(hold.c.mailing).where(hold.c.state.in_(_LIVE), hold.c.held_at < microseconds(before))
    return mailing.c.last_at < microseconds(before), mailing.c.id.not_in(held)


def _oldest(batch: Batch, *wanted: ColumnElement[bool], skip: int = 0) -> list[int]:
    """A slice of the matching rows, without those of preserved incidents (incidents.preservation)."""
    needed = exists().where(preserved_key.c.what == "id", preserved_key.c.key == mailing.c.id)
    query = select(mailing.c.n).where(*wanted, ~needed)
    return list(
        batch.connection.execute(query.order_by(mailing.c.last_at, mailing.c.n).limit(SLICE).offset(skip)).scalars()
    )


def _undecided(batch: Batch, *wanted: ColumnElement[bool]) -> list[int]:
    """A slice or two of the matching rows that no decision in force keeps, however many older ones are kept: later copies
    go by it."""
    found: list[int] = []
    seen = 0
    while len(found) < SLICE and (some := _oldest(batch, *wanted, skip=seen)):
        found += [row.known.n for row in _read(batch, some) if not row.view(batch.now).decided]
        seen += len(some)
    return found


def _erase(batch: Batch, numbers: list[int], newest: int) -> tuple[int, bool]:
    """Delete their people first, in slices. The newest row is emptied."""
    _unfile(batch, numbers)
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
        blank = {"state": State.PASSING.value, "people": 0, "sketch": b"", "counts": NOBODY, "doc": NOTHING}
        batch.connection.execute(update(mailing).where(gone).values(**blank))
    return len(done), len(done) < len(numbers)


def _read(batch: Batch, numbers: list[int]) -> Iterator[Row]:
    return (Row.read(*columns) for columns in batch.among(f"SELECT {COLUMNS} FROM mailing WHERE n {{}}", numbers))


def _unfile(batch: Batch, numbers: list[int]) -> None:
    keys = [(key, row.known.n) for row in _read(batch, numbers) for key in row.known.keys]
    batch.execute("DELETE FROM mailing_key WHERE key = ? AND n = ?", keys)
    if numbers:
        batch.connection.execute(update(mailing).where(mailing.c.n.in_(numbers)).values(filed=False))
