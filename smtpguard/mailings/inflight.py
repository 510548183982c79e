"""Copies of a mailing in flight: admitted to be relayed and without an outcome yet, or in the outbox.

Success is implicit: an admitted copy that is no longer in flight counts as delivered. All counts of people use this
query.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from smtpguard.database.schema import SEVERAL, SINGLE, UNSENT
from smtpguard.database.statements import rows_among
from smtpguard.holds.model import SENDING
from smtpguard.journal.deliverystatus import DeliveryStatus
from smtpguard.mailings.model import ON_THE_WAY
from smtpguard.outbox.model import IntentKind
from smtpguard.outbox.rows import digests_in

IN_FLIGHT_STATUSES = tuple(int(status) for status in sorted(ON_THE_WAY))
"""The values of the status column for which the entries in flight decide whether the person has it."""
_APART = bytes(8)
"""The separator in the column of people: before it are the recipients whose copy is held, after it those who get it now.
As long as a digest."""
# In SQL, since every attempt of a release asks them:
_RELAYING = "SELECT mailing, people, doubt FROM underway WHERE people IS NOT NULL AND mailing {}"
_SENDING = f"""SELECT m.n, o.intent_id, o.kind, h.people FROM outbox AS o JOIN hold AS h ON h.hold_id = o.hold_id
 JOIN mailing AS m ON m.id = h.mailing WHERE {UNSENT} AND h.people IS NOT NULL AND """
_SENDING_HOLDS = f"{_SENDING} h.hold_id {{}}"
_SENDING_COPIES = f"{_SENDING} m.n {{}}"
_UNSENT = f"""SELECT sum(n) FROM (SELECT (SELECT count(*) FROM delivery AS d WHERE d.intent_id = o.intent_id
   AND d.state IN ('{DeliveryStatus.PENDING.value}', '{DeliveryStatus.ATTEMPTED.value}')) AS n
  FROM outbox AS o JOIN hold AS h ON h.hold_id = o.hold_id
  WHERE {UNSENT} AND o.kind = '{IntentKind.RELEASE.value}' AND {{}} LIMIT :some) AS waiting"""
_UNSENT_OF = _UNSENT.format("h.mailing = :id")
_UNSENT_UNDER = _UNSENT.format(
    f"""(h.hold_id = :id OR h.lead = :id)
   AND h.state IN ({", ".join(sorted(repr(state.value) for state in SENDING))})"""
)
_FOR_SEVERAL = f"SELECT 1 FROM hold WHERE {SEVERAL} AND mailing IN (SELECT id FROM mailing WHERE n {{}}) LIMIT 1"
_FOR_SINGLE = f"SELECT hold_id FROM hold WHERE {SINGLE} AND people {{}}"
_RESULTS = "SELECT intent_id, state, people FROM delivery WHERE intent_id {}"
_FEW = 100
"""The most people that are named in a query; for more, entries are chosen from all."""
_Result = tuple[str, bytes | None]


@dataclass(slots=True)
class InFlight:
    """The people of one mailing with a copy in flight, as digests. ``people``: their copies are to be sent; ``attempted``: an
    attempt has begun, and its result is not known yet; ``doubted``: its result will never be known."""

    people: set[bytes] = field(default_factory=set)
    attempted: set[bytes] = field(default_factory=set)
    doubted: set[bytes] = field(default_factory=set)

    @property
    def all(self) -> set[bytes]:
        return self.people | self.attempted | self.doubted

    @property
    def may_have(self) -> set[bytes]:
        return self.attempted | self.doubted


def in_flight(
    connection: Connection, numbers: Collection[int], people: Collection[bytes] | None = None
) -> dict[int, InFlight]:
    """Return the people with a copy in flight, by the number of each of these mailings.

    ``people``: only these matter, so that a query takes hardly longer if many copies of the mailing wait in the outbox.
    """
    found = {n: InFlight() for n in numbers}
    wanted = None if people is None else frozenset(people)
    for n, some, doubt in rows_among(connection, _RELAYING, list(found)):
        (found[n].doubted if doubt else found[n].people).update(people_of(bytes(some)))
    entries: dict[str, tuple[int, set[bytes]]] = {}
    for n, intent_id, kind, some in _entries(connection, list(found), wanted):
        held, apart = unpack_people(bytes(some))
        mine = set(apart if kind == IntentKind.PART.value else held)
        if n in found and (wanted is None or not wanted.isdisjoint(mine)):
            entries[intent_id] = n, mine
    results: dict[str, list[_Result]] = {intent_id: [] for intent_id in entries}
    for intent_id, state, behind in rows_among(connection, _RESULTS, list(entries)):
        results[intent_id].append((state, behind))
    for intent_id, (n, mine) in entries.items():
        _sending(results[intent_id], found[n], mine)
    return found


def being_relayed(connection: Connection, number: int) -> Iterator[bytes]:
    """Yield the people of a mailing who have a copy with a verdict to relay and no outcome yet."""
    for _, some, doubt in rows_among(connection, _RELAYING, [number]):
        yield from () if doubt else people_of(bytes(some))


def _entries(connection: Connection, numbers: Sequence[int], wanted: frozenset[bytes] | None) -> Iterator[Any]:
    """Yield the entries of the outbox for copies of these mailings, and perhaps of others.

    For a few people, each the only one of a hold, they are found by the index of those holds: joined in the query, the planner
    would begin with all that waits in the outbox. Holds for several people can only be compared.
    """
    if wanted is None or len(wanted) > _FEW:
        yield from rows_among(connection, _SENDING_COPIES, numbers)
        return
    if any(rows_among(connection, _FOR_SEVERAL, numbers)):
        of = f"{_SENDING} m.n IN ({', '.join(map(str, numbers))})"
        yield from rows_among(
            connection, f"{of} AND (length(h.people) > {len(_APART)} OR h.people {{}})", sorted(wanted)
        )
        return
    holds = [hold_id for (hold_id,) in rows_among(connection, _FOR_SINGLE, sorted(wanted))]
    yield from rows_among(connection, _SENDING_HOLDS, holds)


def _sending(results: Sequence[_Result], into: InFlight, people: set[bytes]) -> None:
    """Sort the people of one entry of the outbox into ``into``, by the status of each recipient.

    Only an attempt records the people behind a recipient, and an earlier version did not. A person known to be behind no recipient is in doubt if a recipient with unknown people is,
    or if no other recipient is left.
    """
    known = {status: set[bytes]() for status in DeliveryStatus}
    unsaid = set[DeliveryStatus]()
    for state, behind in results:
        known[DeliveryStatus(state)].update(digests_in(behind))
        if behind is None or state == DeliveryStatus.PENDING.value:
            unsaid.add(DeliveryStatus(state))
    pending = known.pop(DeliveryStatus.PENDING)
    others = people.difference(pending, *known.values())
    doubted = known[DeliveryStatus.ATTEMPTED]
    in_doubt = DeliveryStatus.ATTEMPTED in unsaid or (doubted and DeliveryStatus.PENDING not in unsaid)
    into.attempted |= people & (doubted | (others if in_doubt else set()))
    into.people |= (people & pending.difference(*known.values())) | (set() if in_doubt else others)


def is_unsent(connection: Connection, mailing_id: str, leads: Iterable[str], most: int) -> bool:
    """Return whether more than ``most`` recipients of a mailing's releases are not settled.

    One more entry is enough to look at: each has such a recipient. The copies under its approved holds (``leads``) are counted
    first, by their index: to count all of the mailing is to read whatever waits in the outbox.
    """

    def over(sql: str, id: str) -> bool:
        return int(connection.execute(text(sql), {"id": id, "some": most + 1}).scalar() or 0) > most

    return any(over(_UNSENT_UNDER, lead) for lead in leads) or over(_UNSENT_OF, mailing_id)


def people_of(people: bytes) -> list[bytes]:
    """Return the digests in a column of people, in order, without the separator."""
    return [one for one in digests_in(people) if one != _APART]


def pack_people(held: Collection[bytes], apart: Collection[bytes]) -> bytes:
    """Return one value of those for whom a copy is held, and those who get it now."""
    return b"".join((*held, _APART, *apart) if apart else held)


def unpack_people(people: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return those for whom a copy is held, and those who get it now."""
    digests = digests_in(people)
    at = digests.index(_APART) if _APART in digests else len(digests)
    return digests[:at], digests[at + 1 :]
