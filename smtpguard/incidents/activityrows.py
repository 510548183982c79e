"""Store hourly sums of activity, built behind the journal, and read them for a period together with the entries that
are not summed yet.

A page asks for a month and must answer at once, so the sums are stored: per hour one row for each rule and list, and
one for each hold. They derive from the journal alone; if the rows are lost, they are built again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from smtpguard.database.access import Open, Progress, among, first_and_last
from smtpguard.database.batch import Batch
from smtpguard.database.schema import ended, entry, hold, summed, summing
from smtpguard.database.statements import rows_of
from smtpguard.incidents.activity import (
    ACTIONS,
    ALL,
    EXACT,
    HOUR,
    WANTED,
    Activity,
    ActivityFilter,
    ActivitySums,
    SummedHold,
)
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Entry, Pair, first_of, instant, may_say, microseconds, parsed, says_only
from smtpguard.journal.event import Kind, happened
from smtpguard.journal.scan import pages

_NEVER = 1 << 62
_KINDS = sorted(kind.value for kind in WANTED)
_VERDICT, _OUTCOME = Kind.VERDICT.value, Kind.OUTCOME.value
_COUNT = (
    "INSERT INTO summed (hour, about, did, n) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (hour, about, did) DO UPDATE SET n = summed.n + excluded.n"
)
_HOLD = "INSERT INTO ended (hold_id, held_at, rules, lists, how, at, said) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hold_id) DO UPDATE SET rules = excluded.rules, lists = excluded.lists, how = excluded.how, at = excluded.at"
_ENDED = "SELECT hold_id, held_at, rules, lists, how, at, said FROM ended WHERE held_at >= ? AND held_at < ?"
_FOUND = "SELECT hold_id, rules, lists FROM ended WHERE hold_id {}"
_GROW = "UPDATE ended SET rules = ?, lists = ? WHERE hold_id = ?"
_SAY = "UPDATE ended SET said = ? WHERE hold_id = ?"
_MOVE = "UPDATE ended SET how = ?, at = ? WHERE hold_id = ?"
_LOOKED_THROUGH = 20
"""The most stretches of the journal that one call of ``verdicts_of`` reads; the caller continues from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The sums of the entries after number ``after``, through number ``through``."""

    after: int
    through: int
    sums: ActivitySums


# writing, behind the journal


def sums_after(connection: Connection, found: journal.Unread, after: int) -> Slice:
    """Return the sums of those entries after number ``after``. An outcome among them that the relay does not have the
    message subtracts its verdict, which may come before."""
    sums, hours, ends = ActivitySums(), dict[int, int](), set[str]()
    for seq, at, kind, id, body, _, _, _, action, observed, lists, _ in found.rows:
        if seq > after and kind == _OUTCOME and journal.may_stay(body):
            ends.add(id)
        if seq <= after or kind not in _KINDS:
            continue
        if kind == _VERDICT and action is observed is lists is None and _counts_once(body):
            hour = at - at % HOUR
            hours[hour] = hours.get(hour, 0) + 1
        else:
            sums.add(at, kind, id, parsed(body)["data"])
    for hour, n in hours.items():
        sums.count(hour, ALL, ACTIONS["relay"], n)
    for end, one in journal.stayed(connection, sorted(ends)):
        if after < end <= found.through:
            sums.count_action(happened(one.at, one.data), one.data, -1)
    return Slice(after=after, through=max(after, found.through), sums=sums)


def _counts_once(body: str) -> bool:
    """Return whether a verdict to relay, of no list or rule, counts as one message and nothing else. Nearly all do, so
    few are decoded."""
    return not any((may_say(body, "retry", "true"), may_say(body, "test"), may_say(body, "happened"))) and says_only(
        body, "customers", "0"
    )


def write(batch: Batch, made: Slice) -> bool:
    """Store a slice. Returns False if another process has written it meanwhile."""
    connection = batch.connection
    batch.flush()
    if summed_until(connection) != made.after:
        return False
    sums = made.sums
    if sums.hours:
        batch.execute(_COUNT, [(*key, n) for key, n in sorted(sums.hours.items())])
    if sums.holds:
        holds = sums.holds.items()
        batch.execute(
            _HOLD,
            [(id, h.held_at, "\n".join(h.rules), "\n".join(h.lists), h.how, h.at, h.judgement) for id, h in holds],
        )
    if sums.grown:
        batch.execute(_GROW, list(_grown(batch, sums.grown)))
    if sums.ends:
        batch.execute(_MOVE, [(how, at, id) for id, (how, at) in sums.ends.items()])
    if sums.judgements:
        batch.execute(_SAY, [(said, id) for id, said in sums.judgements.items()])
    if not connection.execute(update(summing).values(through=made.through)).rowcount:
        connection.execute(summing.insert().values(one=1, through=made.through))
    return True


def _grown(batch: Batch, more: Mapping[str, SummedHold]) -> Iterator[tuple[str, str, str]]:
    """Yield the rules, the lists and the id of each of these holds, with the rules and lists of the copies that joined
    it."""
    for id, rules, lists in list(batch.among(_FOUND, sorted(more))):
        known = SummedHold(0, _names(rules), _names(lists))
        known.grow(more[id].rules, more[id].lists)
        yield "\n".join(known.rules), "\n".join(known.lists), id


@lru_cache(1000)
def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()


def delete_before(batch: Batch, before: datetime) -> None:
    """Delete the sums of hours and holds before this time."""
    batch.connection.execute(delete(summed).where(summed.c.hour < microseconds(before)))
    batch.connection.execute(delete(ended).where(ended.c.held_at < microseconds(before)))


def summed_until(connection: Connection) -> int:
    found = rows_of(connection, "SELECT through FROM summing")
    return found[0][0] if found else 0


# reading


def activity(
    open: Open,
    since: datetime,
    until: datetime | None,
    now: datetime,
    zone: tzinfo,
    *,
    most: int = 0,
    progress: Progress | None = None,
) -> Activity:
    """Return the activity of a period. ``until``: None for up to ``now``. ``most``: if more entries are not summed yet,
    they are left out, and the result says so; 0 for no limit. ``progress`` gets the numbers read and total. Run it in a
    thread: it takes long if many entries are not summed."""
    begin, end = microseconds(since), _NEVER if until is None else microseconds(until)
    with open() as connection:
        sums, parts, whole, uncounted = _stored_sums(connection, begin, end, most, zone)
    done, total, ends = 0, sum(part.through - part.after for part in parts), set[str]()
    for part in parts:
        kinds = _KINDS if part.kept else [*_KINDS, _OUTCOME]
        for page in pages(open, part.through, entry.c.kind.in_(kinds), after=part.after):
            stayed = _stayed_verdicts(open, [one for one, _ in page])
            for one, _ in page:
                at = happened(one.at, one.data)
                if one.kind == _OUTCOME:
                    ends.update([one.id] if journal.may_stay(one.body) else ())
                elif one.seq in stayed or not part.begin <= at < part.end:
                    continue
                elif not part.kept:
                    sums.add(one.at, one.kind, one.id, one.data)
                elif one.kind == _VERDICT:
                    sums.count_action(at, one.data)
            if progress is not None:
                progress(done + page[-1][0].seq - part.after, total)
        done += part.through - part.after
    sums.holds = {id: hold for id, hold in sums.holds.items() if begin <= hold.held_at < end}
    with open() as connection:
        for end_seq, one in journal.stayed(connection, sorted(ends)):
            at = happened(one.at, one.data)
            if one.seq <= whole.through < end_seq and at in whole:
                sums.count_action(at, one.data, -1)
    return sums.activity(since, until or now, zone, ended=until is not None, uncounted=uncounted)


@dataclass(frozen=True, slots=True)
class _Whole:
    """The hours that are read as sums of entries up to number ``through``: from ``low`` to ``high``, without
    ``split``."""

    through: int
    low: int
    high: int
    split: Collection[int]

    def __contains__(self, at: int) -> bool:
        return self.low <= at < self.high and at - at % HOUR not in self.split


def _stayed_verdicts(open: Open, some: Sequence[Entry]) -> set[int]:
    """Return the numbers of the verdicts to relay among these entries whose message the relay does not have."""
    ids = sorted({one.id for one in some if one.kind == _VERDICT and one.data.get("action") == "relay"})
    if not ids:
        return set()
    with open() as connection:
        return {one.seq for _, one in journal.stayed(connection, ids)}


class _Part(NamedTuple):
    """Entries to be read: after number ``after``, through number ``through``, of the time from ``begin`` until ``end``.
    ``kept``: their holds are known, and only their messages are to be counted, since the sum of their hour is of a
    longer time."""

    after: int
    through: int
    begin: int
    end: int
    kept: bool


def _split_hours(connection: Connection, low: int, high: int, zone: tzinfo) -> list[int]:
    """Return the hours within which a day begins: India is five and a half hours ahead. Their sums belong to two
    days."""
    first, last = first_and_last(connection, summed.c.hour)
    if first is None:
        return []
    since, until = max(low, first), min(high, last + HOUR)
    if until <= since:
        return []
    day, end = (instant(at).astimezone(zone).date() for at in (since, until))
    begins = (datetime.combine(day + timedelta(days=n), time(), zone) for n in range((end - day).days + 1))
    hours = (at - at % HOUR for at in map(microseconds, begins) if at % HOUR)
    return [hour for hour in hours if since <= hour < until]


def _stored_sums(
    connection: Connection, begin: int, end: int, most: int, zone: tzinfo
) -> tuple[ActivitySums, list[_Part], _Whole, int]:
    """Return the stored sums of the whole hours of that time, the entries to be read in addition, which hours these
    are, and the number of entries left out."""
    through = summed_until(connection)
    low, high = begin + -begin % HOUR, end - end % HOUR
    sums, apart, split = ActivitySums(EXACT), [(begin, end)], list[int]()
    if low < high:
        split = _split_hours(connection, low, high, zone)
        apart = [(begin, low), *((hour, hour + HOUR) for hour in split), (high, end)]
        _add_hours(connection, sums, low, high, split)
    for id, held_at, rules, lists, how, at, said in rows_of(connection, _ENDED, (begin, end)):
        sums.holds[id] = SummedHold(held_at, _names(rules), _names(lists), how, at, said)
    parts = [
        _Part(first - 1, min(last, through), since, until, kept=True)
        for since, until in apart
        if since < until
        for first, last in journal.spans(connection, since, until)
    ]
    rest = [
        _Part(max(first - 1, through), last, begin, end, kept=False)
        for first, last in journal.spans(connection, begin, end)
    ]
    uncounted = sum(max(0, part.through - part.after) for part in rest)
    if not most or uncounted <= most:
        parts, uncounted = [*parts, *rest], 0
    whole = _Whole(through, low, high, frozenset(split))
    return sums, [part for part in parts if part.through > part.after], whole, uncounted


def _add_hours(connection: Connection, sums: ActivitySums, low: int, high: int, left_out: Sequence[int]) -> None:
    within = summed.c.hour >= low, summed.c.hour < high, summed.c.hour.not_in(left_out)
    by_hour = select(summed.c.hour, summed.c.about, summed.c.did, summed.c.n).where(*within, summed.c.about == ALL)
    in_all = select(summed.c.about, summed.c.did, func.sum(summed.c.n)).where(*within, summed.c.about != ALL)
    for hour, about, did, n in connection.execute(by_hour):
        sums.count(hour, about, did, n)
    for about, did, n in connection.execute(in_all.group_by(summed.c.about, summed.c.did)):
        sums.count(low, about, did, int(n))


def verdicts_of(open: Open, about: ActivityFilter, before: int, limit: int) -> tuple[list[Pair], int]:
    """Return the newest verdicts of a sum, and the entry before which to continue, 0 at the end."""
    since = microseconds(about.since) if about.since is not None else 0
    until = microseconds(about.until) if about.until is not None else _NEVER
    with open() as connection:
        spans = journal.spans(connection, since, until)
    found: list[Pair] = []
    stretches = _LOOKED_THROUGH
    for first, last in reversed(spans):
        end = min(last + 1, before) if before else last + 1
        for page in journal.back(open, end, first, *_conditions(about)):
            stayed = _stayed_verdicts(open, [one for one, _ in page])
            for one, clear in page:
                inside = since <= happened(one.at, one.data) < until
                if inside and one.seq not in stayed and _is_counted(one, about):
                    if len(found) == limit:
                        return found, found[-1][0].seq
                    found.append((one, clear))
            end, stretches = max(first, end - journal.STRETCH), stretches - 1
            if not stretches and (end > first or first > spans[0][0]):
                return found, end
    return found, 0


def _conditions(about: ActivityFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of the columns beside the body."""
    yield journal.VERDICT
    if about.did == "observed":
        yield entry.c.observed.is_(True)
    else:
        action = next((action for action, did in ACTIONS.items() if did == about.did), "")
        yield entry.c.action.is_(None) if action == "relay" else entry.c.action == action
    if about.list:
        yield journal.touches([about.list])


def _is_counted(one: Entry, about: ActivityFilter) -> bool:
    data = one.data
    if data.get("retry") or data.get("test"):
        return False
    rules = data.get("observed" if about.did == "observed" else "rules")
    return not about.rule or (isinstance(rules, list) and about.rule in rules)


def votes(connection: Connection, since: datetime, until: datetime) -> list[tuple[str, str, float | None]]:
    """Return the votes between the two times: the approver, "" once erased; approve or reject; and the seconds since
    the hold, None once the hold is erased."""
    begin, end = microseconds(since), microseconds(until)
    there = journal.ROWS.where(journal.of_kind(Kind.VOTE), entry.c.seq.between(*journal.span(connection, begin, end)))
    given = [journal.pair(row) for row in connection.execute(there.order_by(entry.c.seq))]
    given = [(one, clear) for one, clear in given if begin <= one.at < end]
    ids = sorted({one.id for one, _ in given})
    of_holds = among(connection, select(hold.c.hold_id, hold.c.held_at), hold.c.hold_id, ids)
    held = {row.hold_id: row.held_at for row in of_holds}
    return [
        (
            first_of(clear, "actor"),
            str(one.data["choice"]),
            (one.at - held[one.id]) / 1_000_000 if one.id in held else None,
        )
        for one, clear in given
        if one.data.get("choice") in ("approve", "reject")
    ]
