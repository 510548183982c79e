"""The page of a writer's own messages that are or were held, for writers who sign in. A signed link shows one message
(message.py)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.console import labels
from smtpguard.console.access import for_roles, person
from smtpguard.console.paging import PAGE, cursor, cut
from smtpguard.console.rendering import desk, page
from smtpguard.holds.model import State, Wanted


@for_roles()
async def mine(request: Request) -> Response:
    """Newest first, in whatever state. Void holds are left out: the client still has those messages."""
    states = tuple(state for state in State if state is not State.VOID)
    wanted = Wanted(states=states, marks=((f"from:{person(request).address}",),))
    before, after_id = cut(request.query_params.get("after", "")[:100]) or (None, None)
    rows = await desk(request).archive.rows(wanted, limit=PAGE + 1, before=before, after_id=after_id)
    frozen = await desk(request).freezes.holding_up(*rows[:PAGE])
    further = cursor(rows[PAGE - 1].held_at, rows[PAGE - 1].hold_id) if len(rows) > PAGE else ""
    return await page(
        request, "mine.html", rows=rows[:PAGE], further=further, states=labels.SHORT_STATES, frozen_ones=frozen
    )


ROUTES = [Route("/mine", mine, methods=["GET"])]
