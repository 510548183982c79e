"""What is held, newest first, a mailing as one row.

Never here: one message (message), or how the rows are found (store.archive).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.console.access import ROLES, for_roles
from smtpguard.console.screen import desk, page
from smtpguard.policy.approval import State


@for_roles(*ROLES)
async def waiting(request: Request) -> Response:
    rows = await desk(request).archive.rows(states=[State.WAITING])
    return await page(request, "waiting.html", rows=rows)


ROUTES = [Route("/", waiting, methods=["GET"])]
