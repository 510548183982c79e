"""Figures for operations: how many entries of each kind wait, and since when; and new journal entries, without names of
people.

Every query uses an index and ends after a fixed number of rows: counts stop at ``MOST``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, select, true

from smtpguard.database.batch import read_freezes, read_head
from smtpguard.database.schema import clear, entry, hold, outbox, underway
from smtpguard.database.statements import rows_of
from smtpguard.holds import rows as holds
from smtpguard.holds.model import State
from smtpguard.journal.chain import instant, instant_or_none, microseconds, parsed
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.rows import which
from smtpguard.observe.alarms import RuleCall, Stopped
from smtpguard.observe.metrics import Held, ends_hold
from smtpguard.outbox.rows import leasable
from smtpguard.policy.freezing import Freeze

MOST = 10_000
NEAR = timedelta(hours=2)
LONGEST_WAITING = 1000
"""The most holds whose deadline is looked at."""
_BEHIND = "SELECT name, told, failing_since, (SELECT at FROM entry WHERE seq > told ORDER BY seq LIMIT 1) FROM hook"
_WAITING = and_(hold.c.state == State.WAITING.value, hold.c.lead.is_(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How many journal entries a webhook, or a receiver of checkpoints, has not been sent yet, and the time of the first; None if
    there is none. ``told``: the last entry that it has. ``failing_since``: since when it takes nothing, None if it does."""

    entries: int
    since: datetime | None
    told: int = -1
    failing_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """``entries``: the number of the journal's last entry. ``holds`` that wait for people, the first since ``held_at``;
    those of them whose deadline is ``near``, and ``overdue``. ``due``: entries of the outbox that can be sent and that
    no worker has leased, the first since ``due_at``, and approvals that should have taken effect; during any freeze
    only notices, since frozen entries wait on purpose. ``later``: entries that are not due yet. ``relaying``: verdicts
    to relay without an outcome; ``unsettled``: those without one for too long. ``asked``: holds about which people are
    asked whether they were sent. ``hooks``: by the name of each webhook and receiver of checkpoints with a cursor."""

    entries: int
    policy_sha256: str
    kept_bytes: int
    freezes: tuple[Freeze, ...]
    holds: int
    held_at: datetime | None
    near: int
    overdue: int
    due: int
    due_at: datetime | None
    later: int
    relaying: int
    unsettled: int
    asked: int = 0
    hooks: Mapping[str, Backlog] = field(default_factory=dict)


def look(connection: Connection, now: datetime, *, settled_within: timedelta) -> Waiting:
    head = read_head(connection)
    freezes = read_freezes(connection)
    deadlines = _deadlines(connection, now)
    due, due_at = _due(connection, microseconds(now), frozen=bool(freezes))
    relaying, unsettled = _underway(connection, microseconds(now - settled_within))
    return Waiting(
        entries=head.seq,
        policy_sha256=head.policy,
        kept_bytes=head.kept_bytes,
        freezes=freezes,
        holds=_counted(connection, _WAITING),
        held_at=instant_or_none(connection.execute(select(func.min(hold.c.held_at)).where(_WAITING)).scalar()),
        asked=_counted(connection, hold.c.asked.is_not(None)),
        near=len(deadlines),
        overdue=sum(at <= now for at in deadlines),
        due=due,
        due_at=due_at,
        later=_counted(connection, outbox.c.done.is_(False), outbox.c.next_at > microseconds(now)),
        relaying=relaying,
        unsettled=unsettled,
        hooks=hooks_behind(connection, head.seq),
    )


def news(connection: Connection, after: int, limit: int) -> tuple[Sequence[Event], int]:
    """Return the events after that entry, in order, without names of people; and the number of the last one. Unknown kinds of a
    newer version are skipped."""
    query = select(entry.c.seq, entry.c.at, entry.c.kind, entry.c.id, entry.c.body).where(entry.c.seq > after)
    found, last = [], after
    for seq, at, kind, id, body in connection.execute(query.order_by(entry.c.seq).limit(limit)):
        last = seq
        if kind in _KINDS:
            found.append(Event(kind=_KINDS[kind], id=id, at=instant(at), data=parsed(body)["data"]))
    return found, last


def held(connection: Connection, events: Sequence[Event]) -> dict[str, Held]:
    """Return, for the holds that ``events`` (a page of ``news``) end, when they were held, and by which rules, those of its
    copies included, as in ``report``; by hold id. No test is among them."""
    ended = sorted({event.id for event in events if ends_hold(event)})
    found = holds.find_all(connection, ended) if ended else []
    return {one.hold_id: Held(one.held_at, one.rules) for one in found if not one.kind}


_KINDS = {kind.value: kind for kind in Kind}


CALLED = 60 * 60 * 1_000_000
"""In microseconds: how long a call of a rule is in force after its last entry."""
_LATELY = 20_000
"""The most entries that are searched for writers."""


def called(connection: Connection, now: datetime) -> tuple[RuleCall, ...]:
    """Return the calls of the last hour, by rule and list: a call about another list is a new one."""
    since = microseconds(now) - CALLED
    sql = f"SELECT body FROM entry WHERE {which(Kind.ALARM)} AND at > ? ORDER BY seq DESC LIMIT {LONGEST_WAITING}"
    rules: dict[str, dict[str, int]] = {}
    for (body,) in rows_of(connection, sql, (since,)):
        data = parsed(body)["data"]
        lists: Mapping[str, int] = data["lists"]
        there = rules.setdefault(str(data["rule"]), {})
        for name, people in lists.items():
            there[name] = max(there.get(name, 0), int(people))
    if not rules:
        return ()
    wrote = _wrote(connection, since)
    found = []
    for rule, lists in rules.items():
        for name, people in lists.items() or [("", 0)]:
            senders: Counter[str] = Counter()
            for sender, touched, reached in wrote:
                if not name or name in touched:
                    senders[sender] += reached
            found.append(RuleCall(rule=rule, list=name, people=people, senders=tuple(senders.most_common())))
    return tuple(found)


def tripped(connection: Connection, active: Collection[str], now: datetime) -> tuple[Stopped, ...]:
    """Breakers that stopped the rest of a mailing, and whose freezes stand; or would have, within the last hour. The newest of each
    mailing. ``active``: the ids of freezes that stand."""
    sql = f"SELECT id, at, body FROM entry WHERE {which(Kind.TRIPPED)} ORDER BY seq DESC LIMIT {LONGEST_WAITING}"
    found: dict[str, Stopped] = {}
    for mailing, at, body in rows_of(connection, sql):
        data: Mapping[str, Any] = parsed(body)["data"]
        lasts = at > microseconds(now) - CALLED if data["observed"] else not set(active).isdisjoint(data["freezes"])
        if lasts and mailing not in found:
            found[mailing] = Stopped(
                mailing=mailing, breaker=data["breaker"], limit=data["limit"], counted=data["counted"],
                people=data["people"], observed=data["observed"],
            )  # fmt: skip
    return tuple(found.values())


def _wrote(connection: Connection, since: int) -> list[tuple[str, list[str], int]]:
    """Return recent senders of admitted messages, with lists and numbers of customers."""
    first = read_head(connection).seq - _LATELY
    query = (
        select(entry.c.body, clear.c.doc)
        .join(clear, clear.c.seq == entry.c.seq)
        .where(entry.c.seq > first, entry.c.at > since, entry.c.kind == Kind.VERDICT.value)
    )
    found = []
    for body, doc in connection.execute(query):
        data = parsed(body)["data"]
        who = json.loads(doc)
        names = who.get("from") or who.get("reverse_path") or ["?"]
        if data["action"] == "relay" and data["lists"]:
            counts: Mapping[str, int] = data["counts"]
            lists: list[str] = data["lists"]
            found.append((str(names[0]), lists, int(counts["customers"])))
    return found


def _deadlines(connection: Connection, now: datetime) -> list[datetime]:
    """The deadlines that are near or over, of those that have waited longest. While its writer is asked there is nobody
    to call, so that of a question counts once it is over."""
    near = case((holds.has_mark(holds.ASKED), microseconds(now)), else_=microseconds(now + NEAR))
    longest = (
        select(hold.c.expires_at, near.label("near"))
        .where(_WAITING)
        .order_by(hold.c.held_at, hold.c.hold_id)
        .limit(LONGEST_WAITING)
        .subquery()
    )
    query = select(longest.c.expires_at).where(longest.c.expires_at <= longest.c.near)
    return [instant(at) for at in connection.execute(query).scalars()]


def _due(connection: Connection, now_us: int, *, frozen: bool) -> tuple[int, datetime | None]:
    first = (
        select(outbox.c.kind, outbox.c.hold_id, outbox.c.done, outbox.c.next_at, outbox.c.leased_until)
        .where(outbox.c.done.is_(False), outbox.c.next_at <= now_us)
        .order_by(outbox.c.next_at, outbox.c.intent_id)
        .limit(MOST)
        .subquery()
    )
    joined = first.outerjoin(hold, hold.c.hold_id == first.c.hold_id)
    query = select(func.count(), func.min(first.c.next_at)).select_from(joined)
    count, at = connection.execute(query.where(leasable(now_us, all_frozen=frozen, some=first))).one()
    leaving = select(func.count(), func.min(hold.c.release_at)).where(hold.c.release_at <= now_us)
    late, late_at = connection.execute(leaving).one() if not frozen else (0, None)
    return count + late, instant_or_none(min((one for one in (at, late_at) if one is not None), default=None))


def _underway(connection: Connection, before: int) -> tuple[int, int]:
    """Doubts stay in the table for a while, and count towards the same bound."""
    some = select(underway.c.at, underway.c.doubt).limit(MOST).subquery()
    open_ = some.c.doubt.is_(False)
    query = select(func.count().filter(open_), func.count().filter(open_, some.c.at < before)).select_from(some)
    relaying, unsettled = connection.execute(query).one()
    return relaying, unsettled


def hooks_behind(connection: Connection, end: int | None = None) -> dict[str, Backlog]:
    """Return the backlog by the name of each webhook and receiver of checkpoints with a cursor. ``end``: the journal's
    last entry, if known."""
    end = read_head(connection).seq if end is None else end
    return {
        name: Backlog(
            entries=max(0, end - told), since=instant_or_none(at), told=told, failing_since=instant_or_none(failing)
        )
        for name, told, failing, at in rows_of(connection, _BEHIND)
    }


def _counted(connection: Connection, *wanted: ColumnElement[bool]) -> int:
    some = select(true()).where(*wanted).limit(MOST).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one()


def seconds_since(at: datetime | None, now: datetime) -> float:
    return max(0.0, (now - at).total_seconds()) if at is not None else 0.0


def refusing(hooks: Mapping[str, Backlog], receivers: Iterable[str], now: datetime) -> dict[str, float]:
    """Return for how many seconds each receiver of checkpoints has taken none; those that were never sent one are left out."""
    found = {key: hooks.get(f"({key})") for key in receivers}
    return {key: seconds_since(at.failing_since, now) for key, at in found.items() if at is not None}
