"""The Incident page: a form for the query, and the report as a page that prints well.

The query may name people. So it is sent by POST and is in no URL and no log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.console.access import ADMIN, OPERATOR, for_roles, person
from smtpguard.console.incident import Told, told
from smtpguard.console.rendering import desk, form, page, speech
from smtpguard.console.reporting import NothingFits, Occupied, at_the_desk
from smtpguard.database.errors import LedgerError
from smtpguard.incidents.about import About, moment
from smtpguard.incidents.report import TooMany
from smtpguard.journal.chain import microseconds
from smtpguard.locale.phrase import N_

_MOST = 500  # characters of a field
_FIELDS = ("id", "list", "sender", "subject", "since", "until")
Asked = dict[str, str]


@for_roles(OPERATOR, ADMIN)
async def ask(request: Request) -> Response:
    """The form, filled in from a link."""
    return await _shown(request, {"id": request.query_params.get("id", "")[:_MOST]})


@for_roles(OPERATOR, ADMIN)
async def report(request: Request) -> Response:
    here, who, said = desk(request), person(request), speech(request)
    sent = await form(request)
    asked = {name: _value(sent, name) for name in _FIELDS}
    asked |= {name: "on" for name in ("alone", "names", "proof") if sent.get(name)}
    wrong = {
        name: said("That is no time: write 2026-11-26 09:30, in UTC, or 2h for so long ago.")
        for name in ("since", "until")
        if not _is_time(asked[name], here.clock.now())
    }
    if wrong:
        return await _shown(request, asked, 422, wrong=wrong)
    about = _about(asked, here.clock.now())
    if about == About(whole=about.whole):
        return await _shown(request, asked, 422, wrong={"id": said("Say what it is about.")})
    try:
        made = await at_the_desk(
            here, about, prove="proof" in asked, names="names" in asked, by=(who.address,), language=said.language
        )
    except Occupied:
        return await _shown(request, asked, 409, said("Another report is being made: ask again in a minute."))
    except NothingFits as error:
        why = [f"{each[:1].upper()}{each[1:]}." for each in error.why]
        nothing = [] if error.rest else [said("Nothing in the journal fits.")]
        return await _shown(request, asked, 404, " ".join([*nothing, *why]))
    except TooMany:
        return await _shown(request, asked, 422, said("Too many messages fit: ask for less at a time."))
    except LedgerError:
        return await _shown(request, asked, 503, said("The record cannot be read at the moment."))
    return await _shown(request, asked, made=await asyncio.to_thread(told, made, said))


def _value(sent: FormData, name: str) -> str:
    value = sent.get(name, "")
    return value.strip()[:_MOST] if isinstance(value, str) else ""


def _is_time(text: str, now: datetime) -> bool:
    try:
        return not text or bool(moment(text, now))
    except ValueError:
        return False


def _about(asked: Asked, now: datetime) -> About:

    def some(name: str) -> frozenset[str]:
        return frozenset(asked[name].split()) if name == "id" else frozenset([asked[name]] if asked[name] else [])

    def time(name: str) -> int | None:
        return microseconds(moment(asked[name], now)) if asked[name] else None

    return About(
        ids=some("id"),
        lists=some("list"),
        senders=some("sender"),
        subject=asked["subject"],
        since=time("since"),
        until=time("until"),
        whole="alone" not in asked,
    )


async def _shown(
    request: Request,
    asked: Asked,
    status: int = 200,
    problem: str = "",
    made: Told | None = None,
    *,
    wrong: Mapping[str, str] | None = None,
) -> Response:
    lists = desk(request).policies.current().registry.lists
    return await page(
        request,
        "incident.html",
        status,
        asked={name: asked.get(name, "") for name in (*_FIELDS, "alone", "names", "proof")},
        fresh=not asked.keys() - {"id"},
        lists=sorted((info.title or name, name) for name, info in lists.items()),
        problem=problem or (speech(request)(N_("No report was made: see below what is missing.")) if wrong else ""),
        wrong=wrong,
        made=made,
    )


ROUTES = [
    Route("/incident", ask, methods=["GET"]),
    Route("/incident", report, methods=["POST"]),
]
