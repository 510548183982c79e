"""Copies of a mailing in flight: admitted to be relayed and without an outcome yet, or in the outbox.

Success is implicit: an admitted copy that is no longer in flight counts as delivered. All counts of people use this
query.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from smtpguard.database.schema import delivery, hold, mailing, outbox, underway
from smtpguard.journal.delivery import DeliveryStatus
from smtpguard.mailings.model import ON_THE_WAY
from smtpguard.outbox.model import IntentKind

LET_GO = tuple(int(fate) for fate in sorted(ON_THE_WAY))
"""As in the column: for these fates the entries in flight decide whether the person has it."""
_OF_CONTENT = (IntentKind.RELEASE.value, IntentKind.PART.value)
_APART = bytes(8)
"""Separates, in one column, those for whom a message is held from those who get it now."""


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


def going(connection: Connection, numbers: Collection[int]) -> dict[int, InFlight]:
    """For each of these mailings, by number."""
    found = {n: InFlight() for n in numbers}
    relaying = select(underway.c.mailing, underway.c.people, underway.c.doubt).where(
        underway.c.mailing.in_(numbers), underway.c.people.is_not(None)
    )
    for n, people, doubt in connection.execute(relaying):
        (found[n].doubted if doubt else found[n].people).update(split(bytes(people)))
    sending = (
        select(mailing.c.n, outbox.c.intent_id, outbox.c.kind, hold.c.people)
        .select_from(
            outbox.join(hold, hold.c.hold_id == outbox.c.hold_id).join(mailing, mailing.c.id == hold.c.mailing)
        )
        .where(
            outbox.c.done.is_(False),
            outbox.c.kind.in_(_OF_CONTENT),
            mailing.c.n.in_(numbers),
            hold.c.people.is_not(None),
        )
    )
    for n, intent_id, kind, people in connection.execute(sending).all():
        held, apart = parted(bytes(people))
        _sending(connection, found[n], intent_id, set(apart if kind == IntentKind.PART.value else held))
    return found


def _sending(connection: Connection, into: InFlight, intent_id: str, people: set[bytes]) -> None:
    """By the status of each recipient of one entry. Only an attempt records the people behind a recipient, and an
    earlier version did not. A person known to be behind no recipient is in doubt if a recipient with unknown people is,
    or if no other recipient is left."""
    query = select(delivery.c.state, delivery.c.people).where(delivery.c.intent_id == intent_id)
    known = {status: set[bytes]() for status in DeliveryStatus}
    unsaid = set[DeliveryStatus]()
    for state, behind in connection.execute(query):
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
    """The two parts of a joined value."""
    digests = [people[at : at + 8] for at in range(0, len(people), 8)]
    if _APART not in digests:
        return digests, []
    at = digests.index(_APART)
    return digests[:at], digests[at + 1 :]
