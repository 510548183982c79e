"""The page of messages behind those figures of the Overview that are no holds: passed, deferred, rejected, or only
observed, newest first."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.console.access import ADMIN, OPERATOR, VIEWER, for_roles
from smtpguard.console.filters import Filters
from smtpguard.console.pages.history import titles
from smtpguard.console.pages.waiting import ruled
from smtpguard.console.paging import PAGE
from smtpguard.console.rendering import desk, page, speech
from smtpguard.locale.phrase import N_

DID = {
    "relayed": N_("passed"),
    "asked": N_("writer asked"),
    "held": N_("held"),
    "rejected": N_("refused"),
    "deferred": N_("put off"),
    "observed": N_("only observed"),
}


@for_roles(VIEWER, OPERATOR, ADMIN)
async def done(request: Request) -> Response:
    here, said, asks = desk(request), speech(request), Filters.of(request)
    in_force = here.policies.current()
    did = asks.state if asks.state in DID else "rejected"
    since, until = asks.times(in_force.hours.zone)
    before = int(asks.after) if asks.after.isascii() and asks.after.isdecimal() and len(asks.after) < 18 else 0
    found, further = await here.archive.verdicts(
        did, rule=asks.rule, list=asks.list, since=since, until=until, before=before, limit=PAGE
    )
    return await page(
        request,
        "journal.html",
        rows=[(entry, clear or {}) for entry, clear in found],
        did=did,
        wanted=asks,
        kinds=DID,
        lists=sorted((title, name) for name, title in titles(request).items()),
        rules=ruled(in_force, said),
        further=asks.url(str(further), path="/journal") if further else "",
    )


ROUTES = [Route("/journal", done, methods=["GET"])]
