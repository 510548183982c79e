"""What somebody wrote that is or was held: for writers who sign in. By a signed link there is one message (message).

Never here: what they can do about it (deciding).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.console import sayings
from smtpguard.console.access import for_roles, person
from smtpguard.console.screen import desk, page
from smtpguard.policy.approval import State

_MOST = 100


@for_roles()
async def mine(request: Request) -> Response:
    """The newest, whatever became of them. What was never taken is not theirs to see to."""
    states = [state for state in State if state is not State.VOID]
    marks = [[f"from:{person(request).address}"]]
    rows = await desk(request).archive.rows(states=states, marks=marks, limit=_MOST)
    return await page(request, "mine.html", rows=rows, states=sayings.SHORT_STATES)


ROUTES = [Route("/mine", mine, methods=["GET"])]
