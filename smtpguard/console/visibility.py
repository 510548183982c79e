"""How much of a held message somebody sees: the policy says it, for each list and for each group of those who decide.

Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

from smtpguard.console.access import ADMIN, APPROVER, OPERATOR, VIEWER
from smtpguard.console.ports import Person
from smtpguard.guard.inforce import InForce
from smtpguard.policy.approval import Hold
from smtpguard.policy.verdict import Quorum

_ALL = frozenset({VIEWER, OPERATOR, ADMIN})


class Visibility(enum.IntEnum):
    """NOTHING: for them the message is not there. REASONS: why it is held and whom it would reach. TEXT: the visible text as
    well. FULL: the HTML, the header and the attachments too."""

    NOTHING = 0
    REASONS = 1
    TEXT = 2
    FULL = 3


def sight(hold: Hold, who: Person, in_force: InForce) -> Visibility:
    """Those who are asked to decide see what the strictest of its lists and the most generous of their groups allow; who
    only looks on sees the reasons."""
    asks = asked(hold) & in_force.groups_of(who.address)
    if not asks or APPROVER not in who.roles or who.address in hold.senders:
        return Visibility.REASONS if who.roles & _ALL else Visibility.NOTHING
    return Visibility[in_force.preview(hold.lists, who.address).upper()]


def sees_all(who: Person) -> bool:
    """Whether every held message is there for them."""
    return bool(who.roles & _ALL)


def asked(hold: Hold) -> frozenset[str]:
    """The groups that may decide on it, at whatever hour."""
    return groups_of(hold.verdict.quorum)


def groups_of(quorums: Iterable[Quorum]) -> frozenset[str]:
    """All that are asked, in hours or out of them."""
    return frozenset(group for quorum in quorums for group in _groups(quorum))


def _groups(quorum: Quorum) -> Iterator[str]:
    yield from quorum.groups
    if quorum.out_of_hours is not None:
        yield from _groups(quorum.out_of_hours)
