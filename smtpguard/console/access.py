"""Who may come in where: asked at each page's door. The person is in ``request.state.person``, None for nobody.

What somebody may not see is not there: 404, so that nobody learns which ids exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.console.ports import Person

Endpoint = Callable[[Request], Awaitable[Response]]

VIEWER, APPROVER, OPERATOR, ADMIN = "viewer", "approver", "operator", "admin"
ROLES = (VIEWER, APPROVER, OPERATOR, ADMIN)


class NotSignedIn(Exception):
    """Nobody is asking: to the door."""


def person(request: Request) -> Person:
    """Who is asking. Raises NotSignedIn."""
    found: Person | None = getattr(request.state, "person", None)
    if found is None:
        raise NotSignedIn
    return found


def for_roles(*roles: str) -> Callable[[Endpoint], Endpoint]:
    """For people with one of these roles; for nobody else is the page there. Without any: for all who are signed in."""

    def guarded(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def asked(request: Request) -> Response:
            who = person(request)
            if roles and not who.roles & set(roles):
                raise HTTPException(404)
            return await endpoint(request)

        return asked

    return guarded
