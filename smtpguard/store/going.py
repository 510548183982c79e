"""Whose copies of a mailing are on their way now: decided to relay and without an outcome yet, or in the outbox.

What goes well writes nothing: whoever was let through has it once it is on its way no more. So every count of people asks
here, and says the same. Never here: what follows from it (roll, mailings).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from smtpguard.policy.admission import IntentKind
from smtpguard.policy.mailing import ON_THE_WAY
from smtpguard.store.schema import hold, mailing, outbox, underway

LET_GO = tuple(int(fate) for fate in sorted(ON_THE_WAY))
"""As the column has them: of these it depends on what is on its way now whether somebody has it."""
_APART = bytes(8)
"""Stands between those for whom a message is held and those who get it now, in the one column that has both."""


@dataclass(slots=True)
class Going:
    """People of one mailing, as digests. ``doubted``: those of whose copy nobody knows."""

    people: set[bytes] = field(default_factory=set)
    doubted: set[bytes] = field(default_factory=set)


def going(connection: Connection, ns: Collection[int]) -> dict[int, Going]:
    """Of each of these mailings, by their numbers."""
    found = {n: Going() for n in ns}
    relaying = select(underway.c.mailing, underway.c.people, underway.c.doubt).where(
        underway.c.mailing.in_(ns), underway.c.people.is_not(None)
    )
    for n, people, doubt in connection.execute(relaying):
        (found[n].doubted if doubt else found[n].people).update(split(bytes(people)))
    of_content = (IntentKind.RELEASE.value, IntentKind.PART.value)
    waiting = (
        select(mailing.c.n, hold.c.people)
        .select_from(
            outbox.join(hold, hold.c.hold_id == outbox.c.hold_id).join(mailing, mailing.c.id == hold.c.mailing)
        )
        .where(outbox.c.done.is_(False), outbox.c.kind.in_(of_content), mailing.c.n.in_(ns), hold.c.people.is_not(None))
    )
    for n, people in connection.execute(waiting):
        found[n].people.update(split(bytes(people)))
    return found


def split(people: bytes) -> list[bytes]:
    """Each of them once in their order."""
    return [one for at in range(0, len(people), 8) if (one := people[at : at + 8]) != _APART]


def joined(held: Collection[bytes], apart: Collection[bytes]) -> bytes:
    """As one value: those for whom it is held, and those who get it now."""
    return b"".join((*held, _APART, *apart) if apart else held)


def parted(people: bytes) -> tuple[list[bytes], list[bytes]]:
    """The two that were joined."""
    digests = [people[at : at + 8] for at in range(0, len(people), 8)]
    if _APART not in digests:
        return digests, []
    at = digests.index(_APART)
    return digests[:at], digests[at + 1 :]
