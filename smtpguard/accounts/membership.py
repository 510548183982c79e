"""The members of a group, by a directory or a sign-on. Pure.

While a directory is away, its last answer counts for a day. After that, members that only the directory names do not
count. The quorum stays the same, so the decision waits. A sign-on counts until the next one, and for 30 days at most, for groups and
roles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from smtpguard.accounts.model import Account
from smtpguard.policy.approvals import Member

ANSWER_COUNTS = timedelta(hours=24)
"""How long the last answer of a directory counts."""
SIGN_ON_COUNTS = timedelta(days=30)
MOST = 200
"""The most people of a group. A directory that names more has a filter that finds everybody."""

People = tuple[tuple[str, ...], ...]
"""The canonical addresses of each person. The first is the one that they decide as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The members of one group, by its directory. ``people``: those who count. ``source``: the directory (``source_of``).
    ``read_at``: the time of its last valid answer, None for never. ``tried_at``: when it was asked last. ``why``: what was wrong
    then, "" for nothing."""

    group: str
    source: str
    people: People = ()
    read_at: datetime | None = None
    tried_at: datetime | None = None
    why: str = ""

    def read(self, people: People, now: datetime) -> Membership:
        """Return the membership after a valid answer."""
        return replace(self, people=people, read_at=now, tried_at=now, why="")

    def failed(self, why: str, now: datetime) -> Membership:
        """Return the membership after no valid answer. The last one counts for ``ANSWER_COUNTS``."""
        holds = self.read_at is not None and now - self.read_at < ANSWER_COUNTS
        return replace(self, people=self.people if holds else (), tried_at=now, why=why)


def fault_of(people: Sequence[tuple[str, ...]], least: int) -> str:
    """Return why a directory's answer is not valid, "" if it is. ``least``: the fewest people that the policy expects."""
    if len(people) < max(least, 1):
        return f"it names {len(people) or 'nobody'}, and the policy expects at least {max(least, 1)}"
    if len(people) > MOST:
        return f"it names more than {MOST} people"
    addresses = [address for one in people for address in one]
    if len(set(addresses)) != len(addresses):
        return "it names one address for two people"
    return ""


def claimed(account: Account, now: datetime) -> tuple[str, ...]:
    """Return the provider's groups of an account's last sign-on, as long as that counts."""
    if account.disabled or account.claimed_at is None or now - account.claimed_at >= SIGN_ON_COUNTS:
        return ()
    return account.claims


def sign_on_is_over(account: Account, now: datetime) -> bool:
    """Return whether an account still has what a sign-on gave it, and that no longer counts."""
    has = bool(account.claims or (account.roles and account.subject)) and not account.disabled
    return has and account.claimed_at is not None and now - account.claimed_at >= SIGN_ON_COUNTS


def source_of(declaration: Mapping[str, Any]) -> str:
    """Return a digest of a directory's declaration, without how often and how patiently it is asked. It says whether the
    directory has changed."""
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
    """Yield the members of all groups. ``directories``: the directory (``source_of``) of each group in the policy; answers of
    another, or of more than a day ago, do not count. ``claims``: the provider's groups that stand for each group."""
    for one in memberships:
        counts = one.read_at is not None and now - one.read_at < ANSWER_COUNTS
        if counts and directories.get(one.group) == one.source:
            yield from (Member(group=one.group, addresses=person) for person in one.people)
    for account in accounts:
        theirs = frozenset(claimed(account, now))
        yield from (
            Member(group=group, addresses=(account.address,)) for group, wanted in claims.items() if wanted & theirs
        )
