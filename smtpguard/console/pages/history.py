"""The History pages: decisions, freezes, and all entries of one message, from the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console import labels
from smtpguard.console.filters import ANY, DECIDED, ENDS, PAGE, Filters, holds_of
from smtpguard.console.labels import entry_in_words
from smtpguard.console.pages.message import looked_up
from smtpguard.console.pages.waiting import ruled
from smtpguard.console.rendering import page, services_of, speech
from smtpguard.console.services import Routes, person
from smtpguard.holds.model import State
from smtpguard.locale.phrase import N_

ROUTES = Routes()


@ROUTES.get("/history", *Role)
async def history(request: Request) -> Response:
    here, who, said = services_of(request), person(request), speech(request)
    asks, in_force = Filters.of(request), here.in_force
    states = (*DECIDED, State.WAITING) if asks.state == ANY else ENDS.get(asks.state, DECIDED)
    found, further = await holds_of(here, asks.wanted(here, who, states), limit=PAGE, after=asks.after)
    return await page(
        request,
        "history.html",
        rows=found,
        frozen_ones=await here.freezes.holding_up(*found),
        wanted=asks,
        further=asks.url(further, path="/history") if further else "",
        lists=here.choices,
        rules=ruled(in_force, said),
        kinds={**{end: labels.SHORT_STATES[end] for end in ENDS}, ANY: N_("any outcome")},
        states=labels.SHORT_STATES,
    )


@ROUTES.get("/history/freezes", *Role)
async def frozen(request: Request) -> Response:
    """Freezes and thaws, by whom and why."""
    after = request.query_params.get("after", "")[:20]
    before = int(after) if after.isascii() and after.isdecimal() else None
    entries = await services_of(request).store.journal.freezes(limit=PAGE + 1, before=before)
    more = len(entries) > PAGE
    entries = entries[:PAGE]
    said, names = speech(request), services_of(request).titles
    return await page(
        request,
        "freezes.html",
        entries=[(entry_in_words(e, clear, said), _what(e.data, names), e) for e, clear in entries],
        further=entries[-1][0].seq if more else "",
    )


@ROUTES.get("/history/{hold_id}")
async def one(request: Request) -> Response:
    """The journal of one message, as a timeline."""
    hold, _ = await looked_up(request)
    entries = await services_of(request).store.journal.history(hold.hold_id)
    said = speech(request)
    return await page(
        request, "timeline.html", hold=hold, entries=[entry_in_words(entry, clear, said) for entry, clear in entries]
    )


def _what(data: Mapping[str, Any], names: Mapping[str, str]) -> str:
    selector, value = data.get("selector"), data.get("value")
    return names.get(str(value), str(value)) if selector == "list" else str(value or selector or "")
