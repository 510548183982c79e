"""The page of what came back after a mailing: bounces, complaints and replies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console import journalwords
from smtpguard.console.chart import stacked_bars
from smtpguard.console.pages.mailings import mailing_in_path
from smtpguard.console.rendering import page, services_of, speech
from smtpguard.console.services import Routes
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.returns.growth import TRENDS, Deed, Done, Growth
from smtpguard.returns.mentions import by_source
from smtpguard.returns.model import COUNTED, SORTS, By, Sort

ROUTES = Routes()

LATEST = 20
"""How many returns the page lists."""
_BOXES = ("held", "late", "passed", "refused")
"""The colours of the bars."""
_DEEDS: Mapping[Deed, str] = {
    Deed.WENT: N_("The first copy went out"),
    Deed.ENDED: N_("The last copy so far went out"),
    Deed.FIRST: N_("The first thing came back"),
    Deed.FROZEN: N_("Frozen"),
    Deed.THAWED: N_("Thawed"),
    Deed.CHANGED: N_("The mailing"),
}
SINGULAR: Mapping[Sort, str] = {
    Sort.BOUNCE: N_("bounce"),
    Sort.COMPLAINT: N_("complaint"),
    Sort.REPLY: N_("reply"),
    Sort.UNSUBSCRIBE: N_("unsubscribe"),
    Sort.AUTOMATIC: N_("automatic reply"),
    Sort.DELAY: N_("delay"),
    Sort.DELIVERED: N_("delivery report"),
    Sort.MENTION: N_("mention"),
    Sort.UNSORTED: N_("unsorted"),
}
KNOWN_BY: Mapping[By, str] = {
    By.TRACE: N_("the guard's trace"),
    By.ENVID: N_("its envelope id"),
    By.VERP: N_("its reverse-path"),
    By.MESSAGE_ID: N_("its Message-ID"),
    By.LIKENESS: N_("its text or subject: likely"),
    By.NOTHING: N_("nothing"),
}


@ROUTES.get("/mailings/{mailing_id}/returns", *Role)
async def returns(request: Request) -> Response:
    here, said = services_of(request), speech(request)
    mailing = await mailing_in_path(request)
    growth = await here.returns.growth(mailing)
    return await page(
        request,
        "returns.html",
        mailing=mailing,
        growth=growth,
        trend=trend_in_words(growth, said),
        done=[(one.at, deed_in_words(one, said)) for one in growth.done],
        drawn=stacked_bars([(one.at, [one.of(sort) for sort in COUNTED]) for one in growth.stretches]),
        series=[(box, said(SORTS[sort])) for box, sort in zip(_BOXES, COUNTED, strict=True)],
        sorts=SORTS,
        shown=COUNTED,
        one_words=SINGULAR,
        known=KNOWN_BY,
        daily=growth.width >= timedelta(days=1),
        outside=by_source(await here.returns.outside(mailing.first_at)),
        latest=await here.store.returns.newest(mailing=mailing.mailing_id, limit=LATEST),
    )


def trend_in_words(growth: Growth, said: Speech) -> str:
    words = {"span": said.span(growth.span), "now": said.number(growth.now), "before": said.number(growth.before)}
    return said(TRENDS[growth.trend], **words)


def deed_in_words(one: Done, said: Speech) -> str:
    if one.deed in (Deed.STOPPED, Deed.OBSERVED):
        return journalwords.breaker_in_words(one.data, said)
    words = said(_DEEDS[one.deed])
    if one.deed is Deed.CHANGED:
        return f"{words}: {said(journalwords.MAILING_CHANGES.get(one.data['what'], one.data['what']))}"
    return words
