"""Console accounts, their roles, sessions and API tokens. Pure.

A role says what an account may do in the console. The policy's groups say which holds it may vote on, by the account's
address.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime

from smtpguard.journal.event import Event


class Role(enum.Enum):
    VIEWER = "viewer"
    APPROVER = "approver"
    OPERATOR = "operator"
    ADMIN = "admin"


class May(enum.Enum):
    """What can be allowed."""

    LOOK = "look"  # what waits, what was decided, mailings, lists, the policy
    DECIDE = "decide"  # vote, where a group of the policy names them
    FREEZE = "freeze"
    THAW = "thaw"
    FEEDBACK = "feedback"  # stop what is being released in stages, or say that it may go on
    AUDIT = "audit"  # verify the journal, and make an incident report of it
    PEOPLE = "people"  # accounts, roles, other people's tokens


_LOOK = frozenset({May.LOOK})
_APPROVE = _LOOK | {May.DECIDE, May.FREEZE, May.THAW, May.FEEDBACK}
_OPERATE = _LOOK | {May.FREEZE, May.THAW, May.FEEDBACK, May.AUDIT}

ALLOWED: Mapping[Role, frozenset[May]] = {
    Role.VIEWER: _LOOK,
    Role.APPROVER: _APPROVE,
    Role.OPERATOR: _OPERATE,
    Role.ADMIN: _OPERATE | {May.PEOPLE},
}
"""What each role allows. Whoever decides can stop everything at once. An admin as such decides on no mail: that takes the
approver's role as well, and that somebody has got it stands in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One person. ``address``: canonical, and what the policy's groups know them by. ``password``: an argon2id hash, "" for
    none. ``totp``: the sealed secret of a second factor, "" for none; ``totp_step``: the last one whose code was used.
    ``recovery``: hashes of codes that each let in once. ``subject``: who single sign-on says they are."""

    account_id: str
    address: str
    created_at: datetime
    name: str = ""
    roles: tuple[Role, ...] = ()
    password: str = field(default="", repr=False)
    totp: str = field(default="", repr=False)
    totp_step: int = 0
    recovery: tuple[str, ...] = field(default=(), repr=False)
    subject: str = ""
    disabled: bool = False
    language: str = ""

    def may(self, what: May) -> bool:
        return not self.disabled and any(what in ALLOWED[role] for role in self.roles)

    def lacks_factor(self, required: Set[Role]) -> bool:
        """Whether one of its roles is ``required`` to have a second factor and it has none. Who comes by single sign-on alone is asked
        for it there."""
        by_password = bool(self.password) or not self.subject
        return by_password and not self.totp and not required.isdisjoint(self.roles)


class Gap(enum.Enum):
    """How accounts and the policy's groups do not fit together."""

    NO_GROUP = "no-group"  # the approver's role, and no group: sees nothing, decides on nothing
    NO_ACCOUNT = "no-account"  # asked to decide, and cannot sign in
    DISABLED = "disabled"
    NO_ROLE = "no-role"  # asked to decide, with an account that may not


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseated:
    """Somebody who does not decide, although an account or the policy says so. ``groups``: those that ask them."""

    address: str
    gap: Gap
    groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        asked = f"{self.address} is asked to decide ({', '.join(self.groups)})"
        return {
            Gap.NO_GROUP: f"{self.address} has the approver's role and is in no group of the policy: nothing is shown to them, and they decide on nothing",
            Gap.NO_ACCOUNT: f"{asked} and has no account: they are written to, and cannot sign in to decide",
            Gap.DISABLED: f"{asked} and has an account that is disabled",
            Gap.NO_ROLE: f"{asked} and has an account without the approver's role",
        }[self.gap]


def unseated(
    accounts: Iterable[Account], groups: Mapping[str, frozenset[str]], asked: Collection[str]
) -> tuple[Unseated, ...]:
    """``groups``: the policy's, by canonical address; ``asked``: those of them that may be asked to decide."""
    known = {account.address: account for account in accounts}
    wanted: dict[str, list[str]] = {}
    for name in sorted(asked):
        for address in groups.get(name, ()):
            wanted.setdefault(address, []).append(name)
    found = [
        Unseated(address=account.address, gap=Gap.NO_GROUP)
        for account in known.values()
        if account.may(May.DECIDE) and not any(account.address in people for people in groups.values())
    ]
    for address, names in sorted(wanted.items()):
        account = known.get(address)
        gap = (
            Gap.NO_ACCOUNT if account is None else Gap.DISABLED if account.disabled
            else None if account.may(May.DECIDE) else Gap.NO_ROLE
        )  # fmt: skip
        if gap is not None:
            found.append(Unseated(address=address, gap=gap, groups=tuple(names)))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody is signed in. ``token``: SHA-256 of what their browser holds. ``how``: password or sso."""

    token: str = field(repr=False)
    account_id: str
    started_at: datetime
    seen_at: datetime
    how: str = "password"


class Scope(enum.Enum):
    """What a token may be used for, as far as its account may do it itself."""

    HELD_READ = "held:read"
    HELD_TEXT = "held:text"  # what it says, as far as the policy shows it to its account
    HELD_DECIDE = "held:decide"
    HELD_CONFIRM = "held:confirm"  # what one wrote oneself, where one is asked
    HELD_WITHDRAW = "held:withdraw"  # what one wrote oneself
    MAILINGS_READ = "mailings:read"
    MAILINGS_FEEDBACK = "mailings:feedback"
    FREEZES_READ = "freezes:read"
    FREEZES_SET = "freezes:set"
    FREEZES_LIFT = "freezes:lift"
    LISTS_READ = "lists:read"
    POLICY_READ = "policy:read"
    AUDIT_READ = "audit:read"
    INCIDENT_READ = "incident:read"
    INCIDENT_NAMES = "incident:names"  # who wrote it, subjects, comments; and asking by them


SCOPE_ASKS: Mapping[Scope, May] = {
    Scope.HELD_READ: May.LOOK,
    Scope.HELD_TEXT: May.LOOK,
    Scope.HELD_DECIDE: May.DECIDE,
    Scope.HELD_CONFIRM: May.LOOK,
    Scope.HELD_WITHDRAW: May.LOOK,
    Scope.MAILINGS_READ: May.LOOK,
    Scope.MAILINGS_FEEDBACK: May.FEEDBACK,
    Scope.FREEZES_READ: May.LOOK,
    Scope.FREEZES_SET: May.FREEZE,
    Scope.FREEZES_LIFT: May.THAW,
    Scope.LISTS_READ: May.LOOK,
    Scope.POLICY_READ: May.LOOK,
    Scope.AUDIT_READ: May.AUDIT,
    Scope.INCIDENT_READ: May.AUDIT,
    Scope.INCIDENT_NAMES: May.AUDIT,
}
"""What its account must be allowed for a scope to be worth anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Lets a program act as an account. ``secret``: SHA-256 of the part that only its holder has."""

    token_id: str
    account_id: str
    name: str
    secret: str = field(repr=False)
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime
    revoked: bool = False

    def stands(self, now: datetime) -> bool:
        return not self.revoked and now < self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """By what accounts are looked for; one that fits any of these is found. "" fits none."""

    account_id: str = ""
    address: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What becomes of a person, in one commit with its events. ``begins``: a session of theirs. ``ends``: one of their
    sessions, by its token; ``ends_all``: every one of them but what begins here. ``deletes``: the account is no more, with its sessions and tokens. With ``refused`` only the events are written."""

    account: Account | None = None
    events: tuple[Event, ...] = ()
    begins: Session | None = None
    ends: str = ""
    ends_all: bool = False
    deletes: bool = False
    refused: str = ""


TurnStep = Callable[[Sequence[Account]], Turn]
"""Pure and quick: it runs in the store's writer, with the accounts that were looked for as they are there."""
