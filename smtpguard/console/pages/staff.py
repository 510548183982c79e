"""The guide page: for everyone who is signed in, and without an account if the settings allow it."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.console.access import NotSignedIn
from smtpguard.console.guide import told
from smtpguard.console.rendering import desk, page, speech


async def guide(request: Request) -> Response:
    here, said = desk(request), speech(request)
    if not here.guide.open and getattr(request.state, "person", None) is None:
        raise NotSignedIn
    if here.guide.policy is None:
        raise HTTPException(404)
    values = told(
        here.guide.policy(),
        said,
        here.clock.now(),
        approve_at=here.guide.approve_at,
        waits=here.guide.waits,
        groups=here.policies.current().groups,
    )
    return await page(request, "staff.html", **values)


ROUTES = [Route("/guide", guide, methods=["GET"])]
