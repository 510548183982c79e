"""The person who makes a request, what they may see, and the services and settings that pages use.

Each page checks the access. The person is in ``request.state.person``, None if nobody is signed in. What a person may not see is
answered 404, so that ids cannot be probed.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from smtpguard.accounts.model import Account, Role
from smtpguard.admission.model import Explained
from smtpguard.admission.preapproval import Corrections
from smtpguard.config.documents import PolicyFile
from smtpguard.config.settings import Settings
from smtpguard.database.errors import StoreError
from smtpguard.freezes.service import Freezes
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import PolicyInForce, Reader
from smtpguard.holds.model import Hold
from smtpguard.holds.questions import Questions
from smtpguard.holds.service import Approvals
from smtpguard.incidents.report import Report
from smtpguard.journal.clock import Clock
from smtpguard.journal.distinct import Asked
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.declared import ListInfo
from smtpguard.mail.address import Address
from smtpguard.mail.message import Message
from smtpguard.mailings.matching import Matching
from smtpguard.mailings.model import Mailing, NoSuch
from smtpguard.mailings.service import Mailings
from smtpguard.observe.alarms import RaisedAlarm
from smtpguard.policy.parse import Policy
from smtpguard.returns.service import Returns

if TYPE_CHECKING:  # slow to import
    from smtpguard.console.people.accounts import Accounts
    from smtpguard.console.people.oidc import Provider
    from smtpguard.console.people.signing import Signing
    from smtpguard.store.store import Store

OPERATING = frozenset({Role.OPERATOR, Role.ADMIN})
"""The roles that may report on anything, and on people."""
ACTING = OPERATING | {Role.APPROVER}
"""The roles that may freeze and thaw."""
SEEING = OPERATING | {Role.VIEWER}
"""The roles that may see every held message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The person who makes a request. ``address``: canonical; their votes are recorded under it. ``roles``: a writer may have none,
    and sees their own messages. ``language``: "" if they never chose one."""

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
        """Return whether the person may see every held message."""
        return not self.roles.isdisjoint(SEEING)

    @property
    def acts(self) -> bool:
        """Return whether the person may freeze and thaw, and report on what they may see."""
        return not self.roles.isdisjoint(ACTING)

    @property
    def operates(self) -> bool:
        """Return whether the person may report on anything, and on people."""
        return not self.roles.isdisjoint(OPERATING)

    @property
    def by(self) -> str:
        """Return what the journal says of whoever does something on a page."""
        return f"console: {self.address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleServices:
    """The services and settings that pages and the API use."""

    store: Store
    policies: PolicyInForce
    reader: Reader
    approvals: Approvals
    questions: Questions
    freezes: Freezes
    mailings: Mailings
    returns: Returns
    accounts: Accounts
    signing: Signing
    provider: Provider | None
    """The provider of single sign-on, if there is one."""
    explain: Callable[[Message, Address | None, Sequence[Address]], Awaitable[Explained]]
    """Returns what would happen to a message with this reverse-path to these recipients, under the policy in force."""
    matching: Callable[..., Matching]
    """Matches the members of a list, or the addresses in a CSV file, with the recipients of a mailing."""
    corrections: Corrections
    clock: Clock
    settings: Settings
    policy: Callable[[], Policy]
    """Returns the policy in force, as it is written. Raises StoreError."""
    policy_file: Callable[[], Awaitable[PolicyFile | None]]
    """Returns the policy file of this host if it differs from the policy in force. Raises StoreError."""
    alarms: Callable[[], Awaitable[Sequence[RaisedAlarm]]]
    """Returns the alarms that a person was told of and that are not over."""
    take_alarm: Callable[[str, str], Awaitable[bool]]
    """Takes an alarm, by its key and in a person's name. Returns False if there is no such alarm. Raises StoreError."""
    on_list: Asked | None = None
    """Says whether a person is on a list (incidents.report)."""
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a report is made: one at a time, since it may take a while."""

    @property
    def in_force(self) -> InForce:
        """Return the policy in force. Raises StoreError."""
        return self.policies.current()

    def addresses_of(self, person: str) -> frozenset[str]:
        """Return all addresses of a person, by the policy in force. Raises StoreError."""
        return self.in_force.addresses_of(person)

    @property
    def lists(self) -> Mapping[str, ListInfo]:
        """Return the lists of the policy in force. There are none if it cannot be read, so that pages that only name lists still
        work."""
        try:
            return self.in_force.registry.lists
        except StoreError:
            return {}

    @property
    def titles(self) -> dict[str, str]:
        """Return the titles of lists by name."""
        return {name: info.called for name, info in self.lists.items()}

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Return the lists to choose from, as (title, name), by title."""
        return sorted((title, name) for name, title in self.titles.items())


Endpoint = Callable[[Request], Awaitable[Response]]
E = TypeVar("E", bound=Callable[..., Awaitable[Response]])


class NotSignedIn(Exception):
    """Nobody is signed in: redirect to sign-in."""


def person(request: Request) -> Person:
    """Return the signed-in person. Raises NotSignedIn."""
    found: Person | None = getattr(request.state, "person", None)
    if found is None:
        raise NotSignedIn
    return found


def for_roles(*roles: Role) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator for pages that only people with one of these roles may see; others get 404. If there are no roles,
    everyone who is signed in may see the page."""

    def decorate(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def checked(request: Request) -> Response:
            who = person(request)
            if roles and not who.roles.intersection(roles):
                raise HTTPException(404)
            return await endpoint(request)

        return checked

    return decorate


class Routes(list[BaseRoute]):
    """The routes of one file. Each page gives its path, and the roles that may see it (for_roles). ``anyone``: the page is open, or
    asks itself who may see it."""

    def get(self, path: str, *roles: Role, anyone: bool = False) -> Callable[[E], E]:
        return self._add("GET", path, roles, anyone)

    def post(self, path: str, *roles: Role, anyone: bool = False) -> Callable[[E], E]:
        return self._add("POST", path, roles, anyone)

    def _add(self, method: str, path: str, roles: Collection[Role], anyone: bool) -> Callable[[E], E]:
        def decorate(endpoint: E) -> E:
            self.append(Route(path, endpoint if anyone else for_roles(*roles)(endpoint), methods=[method]))
            return endpoint

        return decorate


class Visibility(enum.IntEnum):
    """How much of a held message a person sees. The policy says it for each list and each group of approvers.

    NOTHING: the answer is that for a message that does not exist. REASONS: why it is held and whom it would reach. TEXT: the
    visible text as well. FULL: the HTML, the header and the attachments too.
    """

    NOTHING = 0
    REASONS = 1
    TEXT = 2
    FULL = 3


def visibility(hold: Hold, who: Person, here: ConsoleServices) -> Visibility:
    """Return how much of a hold the person sees. Approvers see what the strictest list and the most generous of their groups allow;
    others see the reasons, or nothing."""
    if not is_asked(hold, who, here):
        return Visibility.REASONS if who.sees_all else Visibility.NOTHING
    return Visibility[here.in_force.preview(hold.lists, who.address, here.clock.now()).upper()]


def is_asked(hold: Hold, who: Person, here: ConsoleServices) -> bool:
    """Return whether the person may decide on the hold, at whatever hour."""
    if Role.APPROVER not in who.roles:
        return False
    return here.in_force.groups.decides(who.address, hold.verdict.all_groups, here.clock.now(), hold.senders)


async def find(here: ConsoleServices, who: Person, hold_id: str) -> tuple[Hold, Visibility] | None:
    """Return the hold, and how much of it the person sees. Return None if they may not see it and did not write it, as if it did
    not exist."""
    hold = await here.store.holds.find(hold_id[:100])
    if hold is None:
        return None
    seen = visibility(hold, who, here)
    return None if seen is Visibility.NOTHING and who.address not in hold.senders else (hold, seen)


def sees(who: Person, mailing: Mailing, in_force: InForce, at: datetime) -> bool:
    return who.sees_all or in_force.sees(who.address, mailing.lists, mailing.writers, at)


async def find_mailing(here: ConsoleServices, who: Person, mailing_id: str) -> Mailing | None:
    """Return the mailing with this id, or the only one whose id begins so. Return None if they may not see it, as if it did not
    exist."""
    try:
        found = await here.mailings.show(mailing_id[:100])
    except NoSuch:
        return None
    return found if sees(who, found, here.in_force, here.clock.now()) else None


def view_event(hold: Hold, saw: str, by: str, at: datetime, *actors: str) -> Event:
    """Return the entry of a view. It is journalled before the message is shown. ``saw``: reasons, text, full, html, or an
    attachment's number; ``by``: console or api."""
    data = {"content": hold.content_sha256, "saw": saw, "by": by}
    return Event(kind=Kind.VIEWED, id=hold.hold_id, at=at, data=data, private={"actor": actors})


def sees_report(who: Person, found: Report, here: ConsoleServices) -> bool:
    """Return whether the person, who may only decide, sees a report: what went to each of its lists, at whatever hour. If there
    are no lists, they do not."""
    in_force, at, wrote = here.in_force, here.clock.now(), {address for _, address in found.writers}
    return bool(found.lists) and all(
        name in in_force.registry.lists and in_force.sees(who.address, [name], wrote, at) for name in found.lists
    )
