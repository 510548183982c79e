"""Access to pages and holds, checked by each page. The person is in ``request.state.person``, None if nobody is signed
in.

What a person may not see is answered 404, so that ids cannot be probed.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from functools import wraps
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from smtpguard.accounts.model import Role
from smtpguard.console.services import ConsoleServices, Person
from smtpguard.holds.model import Hold
from smtpguard.journal.event import Event, Kind
from smtpguard.mailings.service import decides

Endpoint = Callable[[Request], Awaitable[Response]]
E = TypeVar("E", bound=Callable[..., Awaitable[Response]])


class NotSignedIn(Exception):
    """Nobody is signed in: redirect to sign-in."""


def person(request: Request) -> Person:
    """The signed-in person. Raises NotSignedIn."""
    found: Person | None = getattr(request.state, "person", None)
    if found is None:
        raise NotSignedIn
    return found


def for_roles(*roles: Role) -> Callable[[Endpoint], Endpoint]:
    """Only for people with one of these roles; for others the page answers 404. Without roles: for everyone signed in."""

    def guarded(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def asked(request: Request) -> Response:
            who = person(request)
            if roles and not who.roles.intersection(roles):
                raise HTTPException(404)
            return await endpoint(request)

        return asked

    return guarded


class Routes(list[BaseRoute]):
    """The pages of one file; each says its path, and who may see it as for_roles does."""

    def get(self, path: str, *roles: Role) -> Callable[[E], E]:
        return self._of("GET", path, roles)

    def post(self, path: str, *roles: Role) -> Callable[[E], E]:
        return self._of("POST", path, roles)

    def _of(self, method: str, path: str, roles: Collection[Role]) -> Callable[[E], E]:
        def added(endpoint: E) -> E:
            self.append(Route(path, for_roles(*roles)(endpoint), methods=[method]))
            return endpoint

        return added


# How much of a held message a person sees: the policy says it for each list and each group of approvers.


class Visibility(enum.IntEnum):
    """NOTHING: the answer is that for a message that does not exist. REASONS: why it is held and whom it would reach.
    TEXT: the visible text as well. FULL: the HTML, the header and the attachments too."""

    NOTHING = 0
    REASONS = 1
    TEXT = 2
    FULL = 3


def visibility(hold: Hold, who: Person, here: ConsoleServices) -> Visibility:
    """Approvers see what the strictest of its lists and the most generous of their groups allow; others who may look
    see the reasons."""
    in_force, at = here.in_force, here.clock.now()
    asks = any(in_force.groups.decides(who.address, group, at, hold.senders) for group in groups_asked(hold))
    if not asks or Role.APPROVER not in who.roles or who.address in hold.senders:
        return Visibility.REASONS if who.sees_all else Visibility.NOTHING
    return Visibility[in_force.preview(hold.lists, who.address, at).upper()]


async def find(here: ConsoleServices, who: Person, hold_id: str) -> tuple[Hold, Visibility] | None:
    """The hold, and how much of it this person sees, who may have written it; None for others, as if it did not exist."""
    hold = await here.store.holds.find(hold_id[:100])
    if hold is None:
        return None
    seen = visibility(hold, who, here)
    return None if seen is Visibility.NOTHING and who.address not in hold.senders else (hold, seen)


def viewed(hold: Hold, saw: str, by: str, at: datetime, *actors: str) -> Event:
    """The entry of a view, which is journalled before it is shown. ``saw``: reasons, text, full, html, or an
    attachment's number; ``by``: console or api."""
    data = {"content": hold.content_sha256, "saw": saw, "by": by}
    return Event(kind=Kind.VIEWED, id=hold.hold_id, at=at, data=data, private={"actor": actors})


def answers_for(who: Person, lists: Collection[str], here: ConsoleServices) -> bool:
    """Whether the person decides on each of these lists, at whatever hour. False without lists."""
    in_force, at = here.in_force, here.clock.now()
    return (
        Role.APPROVER in who.roles
        and bool(lists)
        and all(name in in_force.registry.lists and decides(who.address, [name], in_force, at) for name in lists)
    )


def groups_asked(hold: Hold) -> frozenset[str]:
    """The groups that may decide on it, at whatever hour."""
    return frozenset(group for quorum in hold.verdict.quorum for group in quorum.all_groups)
