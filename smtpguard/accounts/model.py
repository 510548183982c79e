"""Console accounts, their roles, sessions and API tokens. Pure.

A role says what an account may do in the console. The policy's groups say which holds it may vote on, by the account's
address.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime

from smtpguard.journal.event import Event, Kind


class Role(enum.StrEnum):
    """A role of an account: a set of permissions (``ALLOWED``)."""

    VIEWER = "viewer"
    APPROVER = "approver"
    OPERATOR = "operator"
    ADMIN = "admin"


class May(enum.Enum):
    """A permission."""

    LOOK = "look"  # waiting holds, decisions, mailings, lists, the policy
    DECIDE = "decide"  # vote, if a group of the policy names the person
    FREEZE = "freeze"
    THAW = "thaw"
    FEEDBACK = "feedback"  # stop a release in stages, or let it continue
    AUDIT = "audit"  # verify the journal, and make incident reports
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
"""The permissions of each role. An approver can freeze everything at once. An admin as such cannot vote: that takes the
approver's role as well, and the journal records who was given it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account of one person.

    ``address``: canonical, as in the policy's groups. ``password``: an argon2id hash, "" for none. ``totp``: the sealed secret of
    a second factor, "" for none; ``totp_step``: the time step of the last code used. ``recovery``: hashes of codes that can each
    be used once. ``subject``: the person's id at single sign-on. ``claims``: the provider's groups in the last sign-on, of
    those that the policy asks for.
    """

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
    claims: tuple[str, ...] = ()
    claimed_at: datetime | None = None

    def may(self, what: May) -> bool:
        return not self.disabled and any(what in ALLOWED[role] for role in self.roles)

    def lacks_factor(self, required: Set[Role]) -> bool:
        """Return whether a role needs a second factor and the account has none. An account with single sign-on alone is
        exempt: its provider asks for the factor."""
        by_password = bool(self.password) or not self.subject
        return by_password and not self.totp and not required.isdisjoint(self.roles)


class Gap(enum.Enum):
    """A mismatch between accounts and the policy's groups."""

    NO_GROUP = "no-group"  # the approver's role without a group: sees nothing, cannot vote
    NO_ACCOUNT = "no-account"  # is asked to vote, and cannot sign in
    DISABLED = "disabled"
    NO_ROLE = "no-role"  # is asked to vote, with an account that may not


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseated:
    """A person who cannot vote, although an account or the policy says that they may. ``groups``: the groups that name them."""

    address: str
    gap: Gap
    groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        asked = f"{self.address} is asked to decide ({', '.join(self.groups)})"
        return {
            Gap.NO_GROUP: f"{self.address} has the approver's role and is in no group of the policy: they see no holds, and can decide on none",
            Gap.NO_ACCOUNT: f"{asked} and has no account: they get notices, and cannot sign in to decide",
            Gap.DISABLED: f"{asked} and has an account that is disabled",
            Gap.NO_ROLE: f"{asked} and has an account without the approver's role",
        }[self.gap]


def unseated(
    accounts: Iterable[Account], groups: Mapping[str, frozenset[str]], asked: Collection[str]
) -> tuple[Unseated, ...]:
    """Return the people who cannot vote. ``groups``: the policy's, with canonical addresses; ``asked``: the groups that may be
    asked to vote."""
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
    """A sign-in. ``token``: the SHA-256 of the browser's token. ``how``: "password" or "sso"."""

    token: str = field(repr=False)
    account_id: str
    started_at: datetime
    seen_at: datetime
    how: str = "password"


class Scope(enum.Enum):
    """What a token may be used for. ``asks``: the permission that the account needs for it to have effect, LOOK at least."""

    _value_: str
    asks: May

    def __new__(cls, value: str, asks: May = May.LOOK) -> Scope:
        made = object.__new__(cls)
        made._value_, made.asks = value, asks
        return made

    HELD_READ = "held:read"
    HELD_TEXT = "held:text"  # the message's text, as far as the policy shows it to the account
    HELD_DECIDE = "held:decide", May.DECIDE
    HELD_CONFIRM = "held:confirm"  # the account's own messages, when it is asked to confirm
    HELD_WITHDRAW = "held:withdraw"  # the account's own messages
    MAILINGS_READ = "mailings:read"
    MAILINGS_FEEDBACK = "mailings:feedback", May.FEEDBACK
    MAILINGS_PEOPLE = "mailings:people", May.DECIDE  # recipients of a mailing by their addresses, once two people agree
    FREEZES_READ = "freezes:read"
    FREEZES_SET = "freezes:set", May.FREEZE
    FREEZES_LIFT = "freezes:lift", May.THAW
    LISTS_READ = "lists:read"
    POLICY_READ = "policy:read"
    AUDIT_READ = "audit:read", May.AUDIT
    INCIDENT_READ = "incident:read", May.AUDIT
    INCIDENT_NAMES = "incident:names", May.AUDIT  # writers, subjects and comments; and queries by them


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An API token, by which a program acts as an account. ``secret``: the SHA-256 of the part that only the holder has."""

    token_id: str
    account_id: str
    name: str
    secret: str = field(repr=False)
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime
    revoked: bool = False

    def is_valid(self, now: datetime) -> bool:
        return not self.revoked and now < self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKeys:
    """Keys to find accounts. An account that fits any of them is found; "" fits none."""

    account_id: str = ""
    address: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountChange:
    """A change of an account, committed with its events. ``begins``: a session to start. ``ends``: the token of a session to
    end. ``ends_all``: end all sessions but the one in ``begins``. ``deletes``: delete the account with its sessions and tokens.
    ``refused``: why the caller did not get what they asked for."""

    account: Account | None = None
    events: tuple[Event, ...] = ()
    begins: Session | None = None
    ends: str = ""
    ends_all: bool = False
    deletes: bool = False
    refused: str = ""


def role_change(account: Account, change: str, roles: Sequence[Role], by: str, at: datetime) -> Event:
    """Return the entry of a change of roles that no admin made."""
    return Event(
        kind=Kind.ACCOUNT,
        id=account.account_id,
        at=at,
        data={"change": change, "roles": [r.value for r in roles], "before": [r.value for r in account.roles]},
        private={"account": (account.address,), "actor": (by,)},
    )


TurnStep = Callable[[Sequence[Account]], AccountChange]
"""Makes a change from the accounts that were found. It runs in the store's writer, so it must be fast."""
