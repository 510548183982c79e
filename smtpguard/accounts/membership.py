"""Who is in a group, as a directory or a sign-on says: for how long that counts, and which answers are no answers.

While a directory is away its last answer counts for a day. Then nobody counts whom it alone has named: a quorum never gets smaller, it
waits. A sign-on counts until the next one, and for 30 days at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from smtpguard.accounts.model import Account
from smtpguard.policy.absences import Member

HOLDS = timedelta(hours=24)
SIGNED_ON = timedelta(days=30)
MOST = 200
"""More people than that decide on nothing together: a filter that finds everybody."""

People = tuple[tuple[str, ...], ...]
"""Of each person all of their addresses, canonical, the one that they decide as first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Of one group. ``people``: those who count. ``source``: what was asked (``source_of``). ``read_at``: when it last gave an answer
    that was one; None: never. ``tried_at``: when it was asked last. ``why``: what was wrong then, "" for nothing."""

    group: str
    source: str
    people: People = ()
    read_at: datetime | None = None
    tried_at: datetime | None = None
    why: str = ""

    def read(self, people: People, now: datetime) -> Membership:
        return replace(self, people=people, read_at=now, tried_at=now, why="")

    def failed(self, why: str, now: datetime) -> Membership:
        """Its last answer counts for a while."""
        holds = self.read_at is not None and now - self.read_at < HOLDS
        return replace(self, people=self.people if holds else (), tried_at=now, why=why)


def nonsense(people: Sequence[tuple[str, ...]], least: int) -> str:
    """Why an answer is none; "" where it is one."""
    if len(people) < max(least, 1):
        return f"it names {len(people) or 'nobody'}, and the policy expects at least {max(least, 1)}"
    if len(people) > MOST:
        return f"it names more than {MOST} people"
    addresses = [address for one in people for address in one]
    if len(set(addresses)) != len(addresses):
        return "it names one address for two people"
    return ""


def claimed(account: Account, now: datetime) -> tuple[str, ...]:
    """The groups at the provider that count of somebody's last sign-on."""
    if account.disabled or account.claimed_at is None or now - account.claimed_at >= SIGNED_ON:
        return ()
    return account.claims


def source_of(declaration: Mapping[str, Any]) -> str:
    """By what the declaration of a directory is known again: a digest, without what says only how often and how patiently it is asked."""
    what = {
        key: value
        for key, value in declaration.items()
        if key not in ("refresh", "stale_after", "timeout", "time_limit", "page")
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def members(
    memberships: Iterable[Membership],
    directories: Mapping[str, str],
    accounts: Iterable[Account],
    claims: Mapping[str, frozenset[str]],
    now: datetime,
) -> Iterator[Member]:
    """``directories``: of groups, which directory the policy names (``source_of``): what another has said does not count. ``claims``: of
    groups, which of the provider's groups stand for them."""
    for one in memberships:
        if directories.get(one.group) == one.source:
            yield from (Member(group=one.group, addresses=person) for person in one.people)
    for account in accounts:
        theirs = frozenset(claimed(account, now))
        yield from (
            Member(group=group, addresses=(account.address,)) for group, wanted in claims.items() if wanted & theirs
        )
