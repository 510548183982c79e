"""Copies of a mailing in flight: admitted to be relayed and without an outcome yet, or in the outbox.

Success is implicit: an admitted copy that is no longer in flight counts as delivered. All counts of people use this
query.

``growth`` says how a mailing grew, for a chart: over time, the people to whom it was sent, and those for whom it came but who do not have
it. A person who has it counts from the first copy that was sent to them; everybody else from the time when their copy came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, func, or_, select, text

from smtpguard.database.access import among
from smtpguard.database.schema import SEVERAL, SINGLE, delivery, hold, mailing, outbox, reached, underway
from smtpguard.journal.chain import instant
from smtpguard.journal.delivery import DeliveryStatus
from smtpguard.mailings.model import ON_THE_WAY, CopyStatus, Grown
from smtpguard.outbox.model import OF_CONTENT, IntentKind

LET_GO = tuple(int(status) for status in sorted(ON_THE_WAY))
"""As in the column: for these statuses the entries in flight decide whether the person has it."""
_OF_CONTENT = [kind.value for kind in OF_CONTENT]
_APART = bytes(8)
"""The separator in the column of people: before it are the recipients whose copy is held, after it those who get it now.
As long as a digest."""
_MANY = 500
# Made once, since every attempt of a release asks them.
_NUMBERS: BindParameter[int] = bindparam("numbers", expanding=True)
_PEOPLE: BindParameter[bytes] = bindparam("people", expanding=True)
_RELAYING = select(underway.c.mailing, underway.c.people, underway.c.doubt).where(
    underway.c.mailing.in_(_NUMBERS), underway.c.people.is_not(None)
)
_SENDING = (
    select(mailing.c.n, outbox.c.intent_id, outbox.c.kind, hold.c.people)
    .select_from(outbox.join(hold, hold.c.hold_id == outbox.c.hold_id).join(mailing, mailing.c.id == hold.c.mailing))
    .where(
        outbox.c.done.is_(False),
        outbox.c.kind.in_(_OF_CONTENT),
        mailing.c.n.in_(_NUMBERS),
        hold.c.people.is_not(None),
    )
)
_SENDING_THEM = _SENDING.where(or_(hold.c.people.in_(_PEOPLE), func.length(hold.c.people) > len(_APART)))
_SENDING_HOLDS = _SENDING.where(hold.c.hold_id.in_(bindparam("holds", expanding=True)))
_FOR_SEVERAL = (
    select(hold.c.hold_id)
    .where(hold.c.mailing.in_(select(mailing.c.id).where(mailing.c.n.in_(_NUMBERS))), text(SEVERAL))
    .limit(1)
)
_FOR_SINGLE = select(hold.c.hold_id).where(hold.c.people.in_(_PEOPLE), text(SINGLE))
_RESULTS = select(delivery.c.intent_id, delivery.c.state, delivery.c.people).where(
    delivery.c.intent_id.in_(bindparam("entries", expanding=True))
)
_FEW = 100
"""Up to so many people are named in the query; for more, entries are chosen from all."""
_Result = tuple[str, bytes | None]


@dataclass(slots=True)
class InFlight:
    """People of one mailing, as digests. ``people``: their copies are to be sent; ``attempted``: an attempt has begun,
    and its result is not known yet; ``doubted``: its result will never be known."""

    people: set[bytes] = field(default_factory=set)
    attempted: set[bytes] = field(default_factory=set)
    doubted: set[bytes] = field(default_factory=set)

    @property
    def all(self) -> set[bytes]:
        return self.people | self.attempted | self.doubted

    @property
    def may_have(self) -> set[bytes]:
        return self.attempted | self.doubted


def going(
    connection: Connection, numbers: Collection[int], people: Collection[bytes] | None = None
) -> dict[int, InFlight]:
    """The people of these mailings, by number. ``people``: only these matter, so that a query takes hardly longer if many
    copies of the mailing wait in the outbox."""
    found = {n: InFlight() for n in numbers}
    wanted = None if people is None else frozenset(people)
    values: dict[str, Any] = {"numbers": list(found)}
    for n, some, doubt in connection.execute(_RELAYING, values):
        (found[n].doubted if doubt else found[n].people).update(split(bytes(some)))
    sending = _SENDING
    if wanted is not None and len(wanted) <= _FEW:
        holds = _of_single(connection, list(found), sorted(wanted))
        if holds is None:
            sending, values["people"] = _SENDING_THEM, sorted(wanted)
        elif not holds:
            return found
        else:
            sending, values["holds"] = _SENDING_HOLDS, holds
    entries: dict[str, tuple[int, set[bytes]]] = {}
    for n, intent_id, kind, some in connection.execute(sending, values):
        held, apart = parted(bytes(some))
        mine = set(apart if kind == IntentKind.PART.value else held)
        if wanted is None or not wanted.isdisjoint(mine):
            entries[intent_id] = n, mine
    for intent_id, results in _results(connection, list(entries)):
        n, mine = entries[intent_id]
        _sending(results, found[n], mine)
    return found


def _of_single(connection: Connection, numbers: Sequence[int], wanted: Sequence[bytes]) -> list[str] | None:
    """The holds for one of these people alone, by an index: joined in the query, the planner would begin with all that
    waits in the outbox. None if the mailings also have holds for several people, who can only be compared."""
    if connection.execute(_FOR_SEVERAL, {"numbers": numbers}).first():
        return None
    return list(connection.execute(_FOR_SINGLE, {"people": wanted}).scalars())


def _results(connection: Connection, intents: Sequence[str]) -> Iterator[tuple[str, Sequence[_Result]]]:
    """For each entry the status of each recipient, with the people behind it if they are known."""
    for start in range(0, len(intents), _MANY):
        some = intents[start : start + _MANY]
        results: dict[str, list[_Result]] = {intent_id: [] for intent_id in some}
        for intent_id, state, behind in connection.execute(_RESULTS, {"entries": some}):
            results[intent_id].append((state, behind))
        yield from results.items()


def _sending(results: Sequence[_Result], into: InFlight, people: set[bytes]) -> None:
    """By the status of each recipient of one entry. Only an attempt records the people behind a recipient, and an
    earlier version did not. A person known to be behind no recipient is in doubt if a recipient with unknown people is,
    or if no other recipient is left."""
    known = {status: set[bytes]() for status in DeliveryStatus}
    unsaid = set[DeliveryStatus]()
    for state, behind in results:
        known[DeliveryStatus(state)].update(split(bytes(behind or b"")))
        if behind is None or state == DeliveryStatus.PENDING.value:
            unsaid.add(DeliveryStatus(state))
    pending = known.pop(DeliveryStatus.PENDING)
    others = people.difference(pending, *known.values())
    doubted = known[DeliveryStatus.ATTEMPTED]
    in_doubt = DeliveryStatus.ATTEMPTED in unsaid or (doubted and DeliveryStatus.PENDING not in unsaid)
    into.attempted |= people & (doubted | (others if in_doubt else set()))
    into.people |= (people & pending.difference(*known.values())) | (set() if in_doubt else others)


def split(people: bytes) -> list[bytes]:
    """Each digest once, in order."""
    return [one for at in range(0, len(people), 8) if (one := people[at : at + 8]) != _APART]


def joined(held: Collection[bytes], apart: Collection[bytes]) -> bytes:
    """One value of those for whom it is held, and those who get it now."""
    return b"".join((*held, _APART, *apart) if apart else held)


def parted(people: bytes) -> tuple[list[bytes], list[bytes]]:
    digests = [people[at : at + 8] for at in range(0, len(people), 8)]
    if _APART not in digests:
        return digests, []
    at = digests.index(_APART)
    return digests[:at], digests[at + 1 :]


_POINTS = 99
_SENT = frozenset({*LET_GO, int(CopyStatus.RELAYED)})


def growth(connection: Connection, mailing_id: str) -> list[Grown]:
    """In at most a hundred steps of equal length. Deferred people, of whom no time is recorded, are added at the end."""
    row = connection.execute(select(mailing.c.n, mailing.c.last_at).where(mailing.c.id == mailing_id)).one_or_none()
    if row is None:
        return []
    n, last_came = row
    people: Counter[tuple[int, bool]] = Counter()
    """Number of people by (time when it was sent, or came; whether they have it)."""
    query = (
        select(reached.c.at, reached.c.went, reached.c.status, func.sum(reached.c.weight))
        .where(reached.c.n == n)
        .group_by(reached.c.at, reached.c.went, reached.c.status)
    )
    for at, went, status, weight in connection.execute(query):
        has_it = status in _SENT
        people[(went or at) if has_it else at, has_it] += int(weight)
    for at, went, weight in _still(connection, n):
        people[went or at, True] -= weight
        people[at, False] += weight
    times = [at for (at, _), some in people.items() if at and some] or [int(last_came)]
    first, last = min(times), max(times)
    step = max((last - first) // _POINTS, 1)
    steps: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    for (at, has_it), some in people.items():
        if some:
            steps[has_it][((at or last) - first) // step] += some
    grown = []
    sent = held = 0
    for number in sorted({*steps[True], *steps[False]}):
        sent, held = sent + steps[True][number], held + steps[False][number]
        grown.append(Grown(at=instant(first + number * step), sent=sent, held=held))
    return grown


def _still(connection: Connection, n: int) -> Iterator[tuple[int, int, int]]:
    """People with copies in flight: when their copy came, when that was decided, and their number."""
    now = going(connection, [n])[n]
    query = select(reached.c.at, reached.c.went, reached.c.weight).where(reached.c.n == n, reached.c.status.in_(LET_GO))
    for at, went, weight in among(connection, query, reached.c.person, list(now.all)):
        yield int(at), int(went), int(weight)
