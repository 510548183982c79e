"""Who makes a request, and the one object with the services and settings that the console's pages use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smtpguard.accounts.model import Account, Role
from smtpguard.admission.model import Explained
from smtpguard.admission.preapproval import Corrections
from smtpguard.config.documents import PolicyFile
from smtpguard.config.settings import Settings
from smtpguard.database.errors import StoreError
from smtpguard.freezes.service import Freezes
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Clock, PolicyInForce, Reader
from smtpguard.holds.questions import Questions
from smtpguard.holds.service import Approvals
from smtpguard.journal.distinct import Asked
from smtpguard.lists.declared import ListInfo
from smtpguard.mail.address import Address
from smtpguard.mail.message import Message
from smtpguard.mailings.matching import Matched
from smtpguard.mailings.service import Mailings
from smtpguard.observe.alarms.conditions import RaisedAlarm
from smtpguard.policy.parse import Policy
from smtpguard.returns.service import Returns

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

OPERATING = frozenset({Role.OPERATOR, Role.ADMIN})
ACTING = OPERATING | {Role.APPROVER}
SEEING = OPERATING | {Role.VIEWER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The person who makes the request. ``address``: canonical; votes are under it. ``language``: "" if never chosen.

    ``roles``: a writer may have none, and sees their own messages.
    """

    address: str
    name: str = ""
    roles: frozenset[Role] = frozenset()
    language: str = ""

    @classmethod
    def of(cls, account: Account) -> Person:
        roles = frozenset(account.roles)
        return cls(address=account.address, name=account.name, roles=roles, language=account.language)

    @property
    def sees_all(self) -> bool:
        """Whether the person may see every held message."""
        return not self.roles.isdisjoint(SEEING)

    @property
    def acts(self) -> bool:
        """Whether the person may freeze and thaw, and report on what they may see."""
        return not self.roles.isdisjoint(ACTING)

    @property
    def operates(self) -> bool:
        """Whether the person may report on anything, and on people."""
        return not self.roles.isdisjoint(OPERATING)

    @property
    def by(self) -> str:
        """How the journal names what this person does on a page."""
        return f"console: {self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleServices:
    """``url``: the console's address for people, without a final slash; links use it, never Host."""

    store: Store
    policies: PolicyInForce
    reader: Reader
    approvals: Approvals
    questions: Questions
    freezes: Freezes
    mailings: Mailings
    returns: Returns
    explain: Callable[[Message, Address | None, Sequence[Address]], Awaitable[Explained]]
    """What would happen to a message with this reverse-path to these recipients, under the policy in force."""
    matching: Callable[..., Matched]
    """Match the members of a list, or the addresses in a CSV file, against the recipients of a mailing."""
    corrections: Corrections
    clock: Clock
    settings: Settings
    url: str
    policy: Callable[[], Policy]
    """The policy in force, as it is written. Raises StoreError."""
    policy_file: Callable[[], Awaitable[PolicyFile | None]]
    """The policy file of this host if it differs from the policy in force. Raises StoreError."""
    alarms: Callable[[], Awaitable[Sequence[RaisedAlarm]]]
    """The alarms that a person was told of and that are not over."""
    take_alarm: Callable[[str, str], Awaitable[bool]]
    """Take an alarm, by its key and in a person's name. False: no such alarm stands. Raises StoreError."""
    on_list: Asked | None = None
    """Whether a person is on a list (incidents.report)."""
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a report is made: one at a time, since it may take a while."""

    @property
    def in_force(self) -> InForce:
        """The policy in force. Raises StoreError."""
        return self.policies.current()

    def addresses_of(self, person: str) -> frozenset[str]:
        """All addresses of a person, by the policy in force. Raises StoreError."""
        return self.in_force.addresses_of(person)

    @property
    def lists(self) -> Mapping[str, ListInfo]:
        """The lists of the policy in force; none if it cannot be read, so that pages that only name lists still work."""
        try:
            return self.in_force.registry.lists
        except StoreError:
            return {}

    @property
    def titles(self) -> dict[str, str]:
        """The lists by what people call them: name -> title."""
        return {name: info.called for name, info in self.lists.items()}

    @property
    def choices(self) -> list[tuple[str, str]]:
        """The lists to choose from: (title, name)."""
        return sorted((title, name) for name, title in self.titles.items())
