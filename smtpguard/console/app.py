"""The console as an ASGI application: the routes of its pages and of its API, and its error pages.

``build`` gets its surroundings from outside, so that the pages can be built alone: the routes of the API, and the middleware. The middleware authenticates the person, sets ``request.state.person`` and
``request.state.csrf``, checks the token of a POST, and sets the security headers that a response lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from smtpguard.console import rendering
from smtpguard.console.api.held import OPERATIONS as HELD
from smtpguard.console.api.incident import OPERATIONS as INCIDENT
from smtpguard.console.api.mailings import OPERATIONS as MAILINGS
from smtpguard.console.api.operation import Operation, answer
from smtpguard.console.api.reference import OPERATIONS as REFERENCE
from smtpguard.console.pages import (
    account,
    away,
    deciding,
    holds,
    incident,
    mailings,
    message,
    overview,
    people,
    policy,
    returns,
)
from smtpguard.console.people.middleware import API, MINE, SAFE, safe_path
from smtpguard.console.services import ConsoleServices, NotSignedIn

_ALL = (account, people, away, overview, holds, message, deciding, incident, mailings, returns, policy)
PAGES = tuple(route for page in _ALL for route in page.ROUTES)
OPERATIONS: tuple[Operation, ...] = (*REFERENCE, *HELD, *MAILINGS, *INCIDENT)
_STATIC = Path(__file__).parent / "static"


def build(
    console: ConsoleServices, *, middleware: Sequence[Middleware] = (), routes: Sequence[BaseRoute] = ()
) -> Starlette:
    app = Starlette(
        routes=[Mount("/static", StaticFiles(directory=_STATIC), name="static"), *routes, *PAGES],
        middleware=list(middleware),
        exception_handlers={NotSignedIn: _to_sign_in, 404: _error, 403: _error, 405: _error, 400: _error},
    )
    app.router.redirect_slashes = False  # it redirects to the scheme of this connection: behind a proxy, out of TLS
    app.state.console = console
    return app


async def _to_sign_in(request: Request, error: Exception) -> Response:
    """Redirect to sign-in, and back to the requested page afterwards; not to the page of a link that is not valid. A
    page that refreshes itself gets one line in place."""
    if request.headers.get("hx-request") == "true":
        return await rendering.page(request, "ended.html")
    if request.url.path.startswith(MINE):
        return rendering.see_other("/login", next="/mine", link="1")
    there = request.url.path if request.method in SAFE else safe_path(urlsplit(request.headers.get("referer", "")).path)
    return rendering.see_other(f"/login?next={quote(there)}")


_FORMS = {"decide": "/held", "decided": "/held", "freeze": "/still", "logout": "/", "alarms": "/", "people": "/people"}
"""The pages of forms whose address is not directly below that of their page, by the first word of it."""


async def _error(request: Request, error: Exception) -> Response:
    """Answer an error. A program that asks for a version of the API that does not exist gets the API's answer. A browser that asks
    for the address of a form (it stood above the answer to the form) gets the form's page."""
    status, path = error.status_code if isinstance(error, HTTPException) else 500, request.url.path
    if path.startswith(API):
        return answer(status)
    if status == 405 and request.method in SAFE:
        return rendering.see_other(_FORMS.get(path.split("/")[1]) or path.rpartition("/")[0])
    return await rendering.page(request, "error.html", status, problem=status)
