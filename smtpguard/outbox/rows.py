"""The tables of the outbox: messages to send, recipient by recipient. One worker at a time leases an entry.

Each recipient has one delivery status (journal.deliverystatus); all other figures of a release are counted from these. A lease has a
token that grows with every lease. A worker that was too slow has an old token, and cannot settle.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from smtpguard.database.access import among
from smtpguard.database.batch import Batch
from smtpguard.database.failpoint import passes
from smtpguard.database.schema import UNSENT, delivery, hold, outbox
from smtpguard.database.statements import rows_of as rows_in
from smtpguard.holds.model import ENDED, HOLD, SENDING, State, held_up_by
from smtpguard.holds.sending import Sending, settled_of
from smtpguard.journal.chain import microseconds
from smtpguard.journal.deliverystatus import DeliveryEvent, DeliveryStatus, Further, after
from smtpguard.journal.event import Event
from smtpguard.outbox.model import (
    INTENT,
    LONGEST_ATTEMPT,
    NONE_YET,
    OF_CONTENT,
    RECIPIENT,
    AttemptResult,
    Intent,
    IntentKind,
    Lease,
    Settled,
)
from smtpguard.policy.freezing import Freeze, Selectable

_OF_CONTENT = [kind.value for kind in OF_CONTENT]
_RELEASE = IntentKind.RELEASE.value
_TRY, _ASK, _ANSWER, _NOTHING = (
    further.value for further in (Further.TRY, Further.ASK, Further.ANSWER, Further.NOTHING)
)
NEVER_US = 253_402_300_799 * 1_000_000
"""The due time of an entry without recipients to try: the year 9999."""
FARTHEST = timedelta(days=2)
"""How far ahead an entry may be due: a retry comes within hours, a digest within a day."""
KEEPS = [state.value for state in (State.WAITING, *ENDED)]
"""The states of a primary hold in which copies under it are not sent. They follow its decision later (deciding.follow)."""
_PAGE = 5_000
_REMEMBERED = 15 * 1_000_000  # microseconds
# The statements of every attempt (Batch.select):
_LEASED = "SELECT token, done FROM outbox WHERE intent_id = ?"
_LEFT = f"SELECT recipient, n, state, further, people FROM delivery WHERE intent_id = ? AND further <> '{_NOTHING}' ORDER BY n"
_TOTALS = f"SELECT state, COUNT(*) FROM delivery WHERE intent_id = ? AND further = '{_NOTHING}' GROUP BY state"
_NEXT = f"SELECT further, MIN(next_at) FROM delivery WHERE intent_id = ? AND further <> '{_NOTHING}' GROUP BY further"
_WAITED = f"""SELECT intent_id, n, recipient, state, doubts, people FROM delivery WHERE intent_id IN (
 SELECT intent_id FROM outbox WHERE hold_id = ? AND kind = '{_RELEASE}') AND further = ? AND next_at <= ? ORDER BY n"""
_SET_DELIVERY = """UPDATE delivery SET state = ?, next_at = ?, reply = ?, doubts = ?, further = ?, people = COALESCE(?, people)
 WHERE intent_id = ? AND n = ?"""
_SET_BEGUN = "UPDATE outbox SET leased_until = 0 WHERE intent_id = ?"
_SET_ANSWERED = "UPDATE outbox SET leased_until = 0, owner = NULL WHERE intent_id = ?"
_SET_NEXT = "UPDATE outbox SET done = ?, next_at = ? WHERE intent_id = ?"


def rows_of(intent: Intent, now_us: int) -> tuple[tuple[object, ...], list[tuple[object, ...]]]:
    """Return the rows of an entry and of its recipients. An entry without recipients is leased once too."""
    at = now_us if intent.not_before is None else microseconds(intent.not_before)
    entry = (intent.intent_id, intent.kind.value, intent.hold_id, intent.content_sha256, INTENT.dumps(intent),
             now_us, at, False, 0, 0, None, 0)  # fmt: skip
    return entry, [
        (intent.intent_id, n, RECIPIENT.dumps(r), DeliveryStatus.PENDING.value, at, "", 0, _TRY, None)
        for n, r in enumerate(intent.recipients)
    ]


def write(batch: Batch, rows: Iterable[tuple[tuple[object, ...], list[tuple[object, ...]]]]) -> None:
    """Write what `rows_of` returned."""
    for entry, recipients in rows:
        batch.rows("outbox").append(entry)
        batch.rows("delivery").extend(recipients)


def record(batch: Batch, events: Sequence[Event], intents: Sequence[Intent] = ()) -> None:
    """Write journal entries and intents. All are encoded before the first is written."""
    sealed, rows = batch.sealed(events), [rows_of(intent, batch.now_us) for intent in intents]
    batch.append(sealed)
    write(batch, rows)


def leasable(now_us: int | ColumnElement[int], *, all_frozen: bool, some: FromClause = outbox) -> ColumnElement[bool]:
    """Return the condition for an entry that may be leased: it is due, nobody has a lease, and its hold (if any) is acknowledged
    and may be sent. ``some``: the outbox, or a part of it."""
    live = and_(hold.c.acknowledged.is_(True), hold.c.state != State.VOID.value)
    released = and_(hold.c.state.in_([s.value for s in SENDING]), ~kept_by_its_lead())
    of_content = or_(
        and_(some.c.kind == IntentKind.RELEASE.value, live, released),
        and_(some.c.kind == IntentKind.PART.value, live),
    )
    told = and_(some.c.kind.not_in(_OF_CONTENT), or_(hold.c.hold_id.is_(None), live))
    return and_(
        some.c.done.is_(False),
        some.c.next_at <= now_us,
        some.c.leased_until <= now_us,
        or_(told, false() if all_frozen else of_content),
    )


def kept_by_its_lead() -> ColumnElement[bool]:
    """Return the condition for a copy that is not sent, since its primary hold waits or was revoked. It is a scalar subquery of
    one row, so that no database scans all holds."""
    lead = hold.alias("lead")
    back = or_(lead.c.state.in_(KEEPS), lead.c.stopped.is_not(None))
    return func.coalesce(select(back).where(lead.c.hold_id == hold.c.lead).scalar_subquery(), false(), type_=Boolean)


def in_outbox(kinds: Collection[IntentKind] = (IntentKind.RELEASE,)) -> ColumnElement[bool]:
    """Return the condition for a hold with an entry of these kinds that is not done."""
    some = outbox.c.kind.in_([kind.value for kind in kinds])
    return exists().where(outbox.c.hold_id == hold.c.hold_id, some, outbox.c.done.is_(False))


def any_due(connection: Connection, now_us: int) -> bool:
    """Return whether there may be an entry to lease. It is asked outside the writer, since the answer is usually no."""
    return connection.execute(_ANY_DUE, {"now": now_us}).first() is not None


def _due(*, all_frozen: bool = False) -> Select[Any]:
    joined = outbox.outerjoin(hold, hold.c.hold_id == outbox.c.hold_id)
    columns = outbox.c.intent_id, outbox.c.kind, outbox.c.next_at, outbox.c.hold_id
    return (
        select(*columns).select_from(joined).where(leasable(bindparam("now", type_=BigInteger), all_frozen=all_frozen))
    )


# Built once: the first runs twice a second, and the others for every few releases.
_ANY_DUE = _due().limit(1)
_DUE = {frozen: _due(all_frozen=frozen).order_by(outbox.c.next_at, outbox.c.intent_id) for frozen in (False, True)}


def lease(batch: Batch, owner: str, n: int, seconds: int, known: StoppedEntries) -> list[Lease]:
    """Lease up to ``n`` due entries that no freeze stops, the longest due first, for ``seconds``."""
    batch.flush()
    chosen = _choose(batch, n, known)
    if not chosen:
        return []
    taken = (
        update(outbox)
        .where(outbox.c.intent_id.in_(chosen))
        .values(
            token=outbox.c.token + 1,
            attempts=outbox.c.attempts + 1,
            leased_until=batch.now_us + seconds * 1_000_000,
            owner=owner,
        )
        .returning(outbox.c.intent_id, outbox.c.doc, outbox.c.token, outbox.c.attempts, outbox.c.created_at)
    )
    rows = {row.intent_id: row for row in batch.connection.execute(taken)}
    pending = select(delivery).where(delivery.c.intent_id.in_(chosen), delivery.c.further == _TRY)
    waiting: dict[str, list[tuple[str, int]]] = {}
    for row in batch.connection.execute(pending.order_by(delivery.c.intent_id, delivery.c.n)):
        if row.next_at <= batch.now_us:
            waiting.setdefault(row.intent_id, []).append((row.recipient, row.doubts))
    leases = []
    for intent_id in chosen:
        row = rows[intent_id]
        due = waiting.get(intent_id, [])
        passes("lease", intent_id)
        leases.append(
            Lease(
                token=row.token,
                intent=INTENT.loads(row.doc),
                recipients=tuple(RECIPIENT.loads(text) for text, _ in due),
                attempts=row.attempts - 1,
                created_at=batch.now - timedelta(microseconds=batch.now_us - row.created_at),
                doubts=tuple(n for _, n in due),
            )
        )
    return leases


@dataclass(slots=True)
class StoppedEntries:
    """The entries that freezes stop, remembered by a process for a while. Thousands may wait for a thaw, and to find them again
    reads their holds inside the writer."""

    freezes: frozenset[str] = frozenset()
    since_us: int = 0
    ids: set[str] = field(default_factory=set)

    def forget_old(self, freezes: Iterable[Freeze], now_us: int) -> None:
        """Forget the entries if the freezes changed, or after a while, since a hold may have changed."""
        names = frozenset(one.freeze_id for one in freezes)
        if names != self.freezes or not self.since_us <= now_us < self.since_us + _REMEMBERED:
            self.freezes, self.since_us, self.ids = names, now_us, set()


def _choose(batch: Batch, n: int, known: StoppedEntries) -> list[str]:
    """Return the ids to lease, the longest due first, without entries that a freeze stops. Many may be stopped, so it reads by
    pages."""
    freezes = batch.freezes
    known.forget_old(freezes, batch.now_us)
    everything = any(freeze.stops(Selectable()) for freeze in freezes)
    query, values = _DUE[everything], {"now": batch.now_us}
    chosen: list[str] = []
    page = _PAGE if known.ids else max(n, 100)
    while len(chosen) < n:
        rows = batch.connection.execute(query.limit(page), values).all()
        if freezes:
            _remember_stopped(batch, [row for row in rows if row.kind in _OF_CONTENT], freezes, known.ids)
        chosen += [row.intent_id for row in rows if row.intent_id not in known.ids]
        if len(rows) < page:
            break
        last = rows[-1]
        after = tuple_(outbox.c.next_at, outbox.c.intent_id) > tuple_(last.next_at, last.intent_id)
        query = _DUE[everything].where(after)
    return chosen[:n]


def _remember_stopped(batch: Batch, rows: Sequence[Any], freezes: Sequence[Freeze], ids: set[str]) -> None:
    of: dict[str, list[str]] = {}
    for row in rows:
        if row.intent_id not in ids:
            of.setdefault(row.hold_id, []).append(row.intent_id)
    for hold_id, doc in among(batch.connection, select(hold.c.hold_id, hold.c.doc), hold.c.hold_id, list(of)):
        if held_up_by(HOLD.loads(doc), freezes):
            ids.update(of[hold_id])


def sendings(connection: Connection, hold_ids: Sequence[str], now_us: int) -> Mapping[str, Sending]:
    """Return the state of the release of each hold that has one. Inside the writer no worker can lease one meanwhile."""
    found: dict[str, list[Any]] = {}
    query = select(outbox.c.hold_id, outbox.c.leased_until, delivery).join(
        delivery, delivery.c.intent_id == outbox.c.intent_id
    )
    query = query.where(outbox.c.kind == _RELEASE).order_by(delivery.c.n)
    for row in among(connection, query, outbox.c.hold_id, hold_ids):
        found.setdefault(row.hold_id, []).append(row)
    return {hold_id: _sending(rows, now_us) for hold_id, rows in found.items()}


def _sending(rows: Sequence[Any], now_us: int) -> Sending:
    over = (_NOTHING, _ANSWER)  # after a revocation an answer adds information only
    left = [row for row in rows if row.further not in over]
    doubtful = [row for row in left if row.state == DeliveryStatus.ATTEMPTED.value]
    return Sending(
        under_way=any(row.next_at > now_us for row in doubtful) or any(row.leased_until > now_us for row in rows),
        settled=sum((settled_of(DeliveryStatus(row.state)) for row in rows if row.further in over), NONE_YET),
        doubtful=tuple(RECIPIENT.loads(row.recipient) for row in doubtful),
        left=tuple(RECIPIENT.loads(row.recipient) for row in left if row not in doubtful),
    )


def remove(batch: Batch, hold_id: str, kind: IntentKind = IntentKind.RELEASE) -> None:
    """Delete entries of a hold: a release that was never attempted, or notices. A worker that has leased one finds it gone."""
    forget(batch, _entries_of(hold_id, kind))


def forget(batch: Batch, entries: Sequence[str] | Select[tuple[str]]) -> None:
    """Delete entries with their recipients."""
    batch.connection.execute(delete(delivery).where(delivery.c.intent_id.in_(entries)))
    batch.connection.execute(delete(outbox).where(outbox.c.intent_id.in_(entries)))


def cancel_rest(batch: Batch, hold_id: str) -> bool:
    """Cancel the rest of a release. The answer to an attempt in progress is written if it comes. A worker that has leased the
    entry without a mark finds it gone. Returns whether no answer is outstanding."""
    release = _entries_of(hold_id)
    left = update(delivery).where(delivery.c.intent_id.in_(release), delivery.c.further != _NOTHING)
    pending = left.where(delivery.c.state == DeliveryStatus.PENDING.value)
    batch.connection.execute(pending.values(state=DeliveryStatus.CANCELLED.value, further=_NOTHING))
    under_way = left.where(delivery.c.further.in_((_TRY, _ASK)), delivery.c.next_at > batch.now_us)
    batch.connection.execute(under_way.values(further=_ANSWER))
    batch.connection.execute(left.where(delivery.c.further != _ANSWER).values(further=_NOTHING))
    fenced = update(outbox).where(outbox.c.intent_id.in_(release), outbox.c.leased_until > batch.now_us)
    batch.connection.execute(fenced.values(token=outbox.c.token + 1, owner=None, leased_until=0))
    over = [_rest(batch, row.intent_id) for row in batch.connection.execute(release).all()]
    return all(over)


def unanswered(connection: Connection, hold_id: str, now_us: int) -> dict[str, list[RecipientChange]]:
    """Return by entry the recipients of a revoked release whose answer will not come any more, as lost."""
    return _waiting(connection, hold_id, now_us, Further.ANSWER, DeliveryEvent.LOSE)


def asked(connection: Connection, hold_id: str, now_us: int) -> dict[str, list[RecipientChange]]:
    """Return by entry the recipients about whom people are asked, each with its change if it was sent."""
    return _waiting(connection, hold_id, now_us, Further.ASK, DeliveryEvent.CONFIRM)


def _waiting(
    connection: Connection, hold_id: str, now_us: int, further: Further, event: DeliveryEvent
) -> dict[str, list[RecipientChange]]:
    """Return by entry the recipients of a release whose wait has ended, each with its change by ``event``."""
    found: dict[str, list[RecipientChange]] = {}
    for intent_id, n, doc, state, doubts, people in rows_in(connection, _WAITED, (hold_id, further.value, now_us)):
        outcome = AttemptResult(recipient=RECIPIENT.loads(doc), event=event, doubts=doubts)
        status = after(DeliveryStatus(state), event)
        change = RecipientChange(
            n=n, outcome=outcome, status=status, further=Further.NOTHING, people=frozenset(digests_in(people))
        )
        found.setdefault(intent_id, []).append(change)
    return found


def _rest(batch: Batch, intent_id: str) -> bool:
    """Set the time at which the entry is due next, by its recipients. Returns whether it is done."""
    left = dict(batch.select(_NEXT, (intent_id,)))
    batch.execute(_SET_NEXT, [(not left, left.get(_TRY, NEVER_US) if left else batch.now_us, intent_id)])
    return not left


def owners(connection: Connection) -> dict[str, str]:
    """Return the worker that leased each unsent entry last. To read all that waits takes long, so it is done outside the writer."""
    query = select(outbox.c.intent_id, outbox.c.owner).where(outbox.c.done.is_(False), outbox.c.owner.is_not(None))
    return {row.intent_id: row.owner for row in connection.execute(query)}


def abandon(batch: Batch, leased: Mapping[str, str]) -> int:
    """End the wait for workers that are gone: people are asked now, and entries that were leased and not marked are due.
    ``leased``: these workers, by entry. Returns how many entries nobody has leased since."""
    query = select(outbox.c.intent_id, outbox.c.owner).where(outbox.c.done.is_(False))
    rows = among(batch.connection, query, outbox.c.intent_id, list(leased))
    left = [intent_id for intent_id, owner in rows if owner == leased[intent_id]]
    waiting = update(delivery).where(
        delivery.c.intent_id.in_(left), delivery.c.further.in_((_ASK, _ANSWER)), delivery.c.next_at > batch.now_us
    )
    if left:
        batch.connection.execute(waiting.values(next_at=batch.now_us))
        batch.connection.execute(update(outbox).where(outbox.c.intent_id.in_(left)).values(leased_until=0))
    return len(left)


def misdated(connection: Connection, now: datetime) -> list[str]:
    """Return the entries dated by a clock that was ahead: they would wait, or be leased, longer than any entry may."""
    far = microseconds(now + FARTHEST)
    asked = exists().where(
        delivery.c.intent_id == outbox.c.intent_id, delivery.c.further != _NOTHING, delivery.c.next_at >= far
    )
    late = or_(
        outbox.c.next_at.between(far, NEVER_US - 1),
        and_(outbox.c.next_at == NEVER_US, asked),
        and_(outbox.c.next_at < far, outbox.c.leased_until >= far),
    )
    return list(connection.execute(select(outbox.c.intent_id).where(outbox.c.done.is_(False), late)).scalars())


def hasten(batch: Batch, ids: Sequence[str]) -> None:
    """Make misdated entries due now. An entry that is leased or marked gets the time of an attempt. Its creation time stays: the
    present clock may be the wrong one, and the entry would be given up early."""
    batch.flush()
    now, far = batch.now_us, microseconds(batch.now + FARTHEST)
    answered = microseconds(batch.now + LONGEST_ATTEMPT)
    marked = delivery.c.state == DeliveryStatus.ATTEMPTED.value
    tried = select(func.min(delivery.c.next_at)).where(
        delivery.c.intent_id == outbox.c.intent_id, delivery.c.further == _TRY
    )
    leased, waits = outbox.c.leased_until >= far, outbox.c.next_at.between(far, NEVER_US - 1)
    for at in range(0, len(ids), _PAGE):
        some = ids[at : at + _PAGE]
        batch.connection.execute(
            update(delivery)
            .where(delivery.c.intent_id.in_(some), delivery.c.further != _NOTHING, delivery.c.next_at >= far)
            .values(next_at=case((marked, answered), else_=now))
        )
        batch.connection.execute(
            update(outbox)
            .where(outbox.c.intent_id.in_(some))
            .values(
                next_at=case((waits, func.coalesce(tried.scalar_subquery(), now)), else_=outbox.c.next_at),
                leased_until=case((leased, answered), else_=outbox.c.leased_until),
            )
        )


def holds_to_ask(connection: Connection, now: datetime) -> list[str]:
    """Return the holds with a recipient about whom people are to be asked now, or whose wait for an answer has ended."""
    query = (
        select(outbox.c.hold_id)
        .select_from(
            outbox.join(delivery, delivery.c.intent_id == outbox.c.intent_id).join(
                hold, hold.c.hold_id == outbox.c.hold_id
            )
        )
        .where(text(UNSENT), outbox.c.kind == _RELEASE, delivery.c.next_at <= microseconds(now))
        .where(or_(and_(delivery.c.further == _ASK, hold.c.asked.is_(None)), delivery.c.further == _ANSWER))
    )
    return sorted({str(id) for id in connection.execute(query).scalars()})


def repeat(batch: Batch, doubts: Mapping[str, Sequence[RecipientChange]]) -> None:
    """Make recipients due for one more attempt, with the doubt of the first: a person said to send it again."""
    status = after(DeliveryStatus.ATTEMPTED, DeliveryEvent.REPEAT)
    for intent_id, some in doubts.items():
        again = update(delivery).where(delivery.c.intent_id == intent_id, delivery.c.n.in_([one.n for one in some]))
        batch.connection.execute(again.values(state=status.value, further=_TRY, next_at=batch.now_us, doubts=1))
        _rest(batch, intent_id)


def _entries_of(hold_id: str, kind: IntentKind = IntentKind.RELEASE) -> Select[tuple[str]]:
    return select(outbox.c.intent_id).where(outbox.c.hold_id == hold_id, outbox.c.kind == kind.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientChange:
    """The change of one recipient of an entry by an outcome. ``n``: its number in the entry; ``people``: the digests of those
    behind it."""

    n: int
    outcome: AttemptResult
    status: DeliveryStatus
    further: Further
    people: frozenset[bytes]

    @property
    def over(self) -> bool:
        return self.further is Further.NOTHING


def changes(batch: Batch, lease: Lease, outcomes: Sequence[AttemptResult]) -> list[RecipientChange] | None:
    """Return the change of each recipient, None if the lease is not the last one or the entry is done: then write nothing.
    Raises ValueError for a recipient that was not leased, and for an impossible transition."""
    batch.flush()
    leased = batch.select(_LEASED, (lease.intent.intent_id,))
    if not leased or leased[0][0] != lease.token or leased[0][1]:
        return None
    known: dict[str, list[Any]] = {}
    for recipient, *rest in batch.select(_LEFT, (lease.intent.intent_id,)):
        known.setdefault(recipient, []).append(rest)
    made: list[RecipientChange] = []
    for outcome in outcomes:
        there = known.get(RECIPIENT.dumps(outcome.recipient))
        if not there:
            raise ValueError("an outcome for a recipient that was not leased")
        n, state, left, behind = there.pop(0)
        status = after(DeliveryStatus(state), outcome.event, earlier=outcome.doubts)
        further = _further(outcome)
        if left == _ANSWER:  # it was revoked meanwhile
            further = Further.NOTHING
            if status is DeliveryStatus.PENDING:
                status = after(status, DeliveryEvent.CANCEL)
        people = outcome.people if outcome.people is not None else digests_in(behind)
        made.append(
            RecipientChange(
                n=n,
                outcome=outcome,
                status=status,
                further=further,
                people=frozenset(people),
            )
        )
    return made


def _further(outcome: AttemptResult) -> Further:
    if outcome.in_doubt or outcome.event is DeliveryEvent.PUT_OFF:
        return Further.ASK if outcome.asks else Further.TRY
    return Further.NOTHING


def digests_in(people: bytes | None) -> list[bytes]:
    """Return the digests of a column of people, in order."""
    return [] if people is None else [bytes(people[at : at + 8]) for at in range(0, len(people), 8)]


def settle(batch: Batch, intent_id: str, changes: Sequence[RecipientChange]) -> bool:
    """Write the changes. Returns whether the entry is done: no recipient needs a further step. The owner of an attempt in
    progress is kept until its answer is written."""
    begun = any(one.outcome.in_doubt and not one.over for one in changes)
    passes("mark" if begun else "settle", intent_id)
    if changes:
        batch.execute(_SET_DELIVERY, [_row(batch, intent_id, one) for one in changes])
    batch.execute(_SET_BEGUN if begun else _SET_ANSWERED, [(intent_id,)])
    return _rest(batch, intent_id)


def _row(batch: Batch, intent_id: str, one: RecipientChange) -> tuple[object, ...]:
    again, people = one.outcome.next_at, one.outcome.people
    return (
        one.status.value,
        batch.now_us if again is None else microseconds(again),
        json.dumps(one.outcome.reply),
        one.outcome.doubts,
        one.further.value,
        None if people is None else b"".join(people),
        intent_id,
        one.n,
    )


def totals(batch: Batch, intent_id: str) -> Settled:
    """Return the totals of an entry's recipients with a final result."""
    found = (settled_of(DeliveryStatus(state), n) for state, n in batch.select(_TOTALS, (intent_id,)))
    return sum(found, NONE_YET)


def not_sent(connection: Connection, hold_id: str) -> set[bytes]:
    """Return the digests of the people behind a hold's refused and cancelled recipients, as far as an attempt recorded them."""
    lost = delivery.c.state.in_([DeliveryStatus.REFUSED.value, DeliveryStatus.CANCELLED.value])
    entries = select(outbox.c.intent_id).where(outbox.c.hold_id == hold_id)
    query = select(delivery.c.people).where(delivery.c.intent_id.in_(entries), lost)
    return {digest for people in connection.execute(query).scalars() for digest in digests_in(people)}


def attempted(connection: Connection, stop: Freeze) -> dict[str, str]:
    """Return the entries with held content that ``stop`` selects and that have an attempt in progress, each with its hold."""
    begun = exists().where(
        delivery.c.intent_id == outbox.c.intent_id, delivery.c.state == DeliveryStatus.ATTEMPTED.value
    )
    query = (
        select(outbox.c.intent_id, hold.c.hold_id, hold.c.doc)
        .select_from(outbox.join(hold, hold.c.hold_id == outbox.c.hold_id))
        .where(text(UNSENT), begun)
    )
    rows = sorted(connection.execute(query).all())
    return {row.intent_id: row.hold_id for row in rows if held_up_by(HOLD.loads(row.doc), [stop])}


def accepted(connection: Connection, intents: Sequence[str]) -> list[str]:
    """Return those of these entries that the relay accepted, or may have accepted, for at least one recipient."""
    may = (DeliveryStatus.ATTEMPTED.value, DeliveryStatus.DELIVERED.value)
    query = select(delivery.c.intent_id).where(delivery.c.intent_id.in_(intents), delivery.c.state.in_(may))
    return sorted(set(connection.execute(query).scalars()))
