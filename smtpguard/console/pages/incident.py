"""An incident report, made for whoever has to answer: asked for in a form, and shown as a page that prints well.

What is asked may name people, so it comes by POST and stands in no address bar or log. Never here: what a report says
(console.incident), or where it is read (store).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.audit.about import About
from smtpguard.audit.chain import microseconds
from smtpguard.audit.report import TooMany
from smtpguard.console.access import ADMIN, OPERATOR, for_roles, person
from smtpguard.console.desk import Desk
from smtpguard.console.incident import Told, told
from smtpguard.console.screen import desk, form, page, speech
from smtpguard.guard.mailings import whole_ids
from smtpguard.guard.ports import LedgerError

_MOST = 500  # characters of a field
_FIELDS = ("id", "list", "sender", "subject", "since", "until")
Asked = dict[str, str]


@for_roles(OPERATOR, ADMIN)
async def ask(request: Request) -> Response:
    """The form, filled in as far as a link has it."""
    return await _shown(request, {"id": request.query_params.get("id", "")[:_MOST]})


@for_roles(OPERATOR, ADMIN)
async def report(request: Request) -> Response:
    here, who, said = desk(request), person(request), speech(request)
    sent = await form(request)
    asked = {name: _value(sent, name) for name in _FIELDS}
    asked |= {name: "on" for name in ("alone", "names", "proof") if sent.get(name)}
    try:
        about = await _about(here, asked)
    except ValueError:
        return await _shown(request, asked, 422, said("That is no time: write 2026-11-26 09:30, in UTC."))
    if about == About(whole=about.whole):
        return await _shown(request, asked, 422, said("Say what it is about."))
    if here.reporting.locked():
        return await _shown(request, asked, 409, said("Another report is being made: ask again in a minute."))
    names = "names" in asked
    async with here.reporting:
        try:
            if names:
                await here.ledger.record([about.exported(who.address, here.clock.now())])
            found = await here.archive.incident(about, prove="proof" in asked)
        except TooMany:
            return await _shown(request, asked, 422, said("Too many messages fit: ask for less at a time."))
        except LedgerError:
            return await _shown(request, asked, 503, said("The record cannot be read at the moment."))
    if found.report is None:
        return await _shown(request, asked, 404, said("Nothing in the journal fits."))
    purposes = here.policies.current().rules.purposes(said.language)
    made = told(found, found.report, about, purposes, said, names=names)
    return await _shown(request, asked, made=made)


def _value(sent: FormData, name: str) -> str:
    value = sent.get(name, "")
    return value.strip()[:_MOST] if isinstance(value, str) else ""


async def _about(here: Desk, asked: Asked) -> About:
    """Raises ValueError for what is no time. Of a mailing a beginning of its id is enough."""

    def some(name: str) -> frozenset[str]:
        return frozenset(asked[name].split()) if name == "id" else frozenset([asked[name]] if asked[name] else [])

    about = About(
        ids=some("id"),
        lists=some("list"),
        senders=some("sender"),
        subject=asked["subject"],
        since=_time(asked["since"]),
        until=_time(asked["until"]),
        whole="alone" not in asked,
    )
    return replace(about, ids=await whole_ids(here.ledger, about.ids))


def _time(text: str) -> int | None:
    if not text:
        return None
    at = datetime.fromisoformat(text)
    return microseconds(at.replace(tzinfo=UTC) if at.tzinfo is None else at)


async def _shown(
    request: Request, asked: Asked, status: int = 200, problem: str = "", made: Told | None = None
) -> Response:
    lists = desk(request).policies.current().registry.lists
    return await page(
        request,
        "incident.html",
        status,
        asked={name: asked.get(name, "") for name in (*_FIELDS, "alone", "names", "proof")},
        fresh=not asked.keys() - {"id"},
        lists=sorted((info.title or name, name) for name, info in lists.items()),
        problem=problem,
        made=made,
    )


ROUTES = [
    Route("/incident", ask, methods=["GET"]),
    Route("/incident", report, methods=["POST"]),
]
