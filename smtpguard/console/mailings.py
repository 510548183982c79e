"""List the mailings that a person may see: all for some roles, those of their groups for approvers. For the pages and
the API."""

from __future__ import annotations

from datetime import datetime

from smtpguard.console.access import groups_of, sees_all
from smtpguard.console.filters import cursor, cut
from smtpguard.console.ports import Person
from smtpguard.console.services import ConsoleServices
from smtpguard.guard.inforce import InForce
from smtpguard.mailings.model import Mailing, State
from smtpguard.mailings.service import FEW

_LOOKS = 20
"""The most pages of other people's mailings that are skipped for one page of the person's own."""


def sees(who: Person, mailing: Mailing, in_force: InForce, at: datetime) -> bool:
    return sees_all(who) or decides(who, mailing, in_force, at)


def decides(who: Person, mailing: Mailing, in_force: InForce, at: datetime) -> bool:
    """Whether the person is in a group that decides on mailings to these lists, at whatever hour."""
    asked = groups_of(in_force.rules.quorum(mailing.lists))
    return bool(asked & in_force.groups_of(who.address, at))


async def listed(
    here: ConsoleServices, who: Person, *, limit: int, after: str = "", least: int = FEW, state: State | None = None
) -> tuple[list[Mailing], str]:
    """A page of at most ``limit``, latest first, and the cursor of the next one: "" on the last. A page may be short
    although more follow, if many mailings of others are in between."""
    in_force, last = here.policies.current(), cut(after)
    found: list[Mailing] = []
    for _ in range(_LOOKS):
        some = await here.mailings.list(least=least, state=state, limit=limit + 1, before=last)
        for mailing in some:
            if len(found) == limit and last is not None:
                return found, cursor(*last)
            last = mailing.last_at, mailing.mailing_id
            if sees(who, mailing, in_force, here.clock.now()):
                found.append(mailing)
        if len(some) <= limit:
            return found, ""
    return found, cursor(*last) if last is not None else ""
