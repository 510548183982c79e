"""What came back after a mailing: how much, how fast, whether it falls, and what was done meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smtpguard.console.access import ROLES, for_roles
from smtpguard.console.chart import Bars, stacked
from smtpguard.console.entrywords import DEEDS, tripped
from smtpguard.console.pages.mailings import found_of
from smtpguard.console.rendering import page, services_of, speech
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.returns.growth import TRENDS, Deed, Done, Growth
from smtpguard.returns.mentions import by_source
from smtpguard.returns.model import COUNTED, SORTS, By, Sort

LATEST = 20
_FREEZES = 500
_DONE: Mapping[Deed, str] = {
    Deed.WENT: N_("The first copy went out"),
    Deed.ENDED: N_("The last copy so far went out"),
    Deed.FIRST: N_("The first thing came back"),
    Deed.FROZEN: N_("Frozen"),
    Deed.THAWED: N_("Thawed"),
    Deed.CHANGED: N_("The mailing"),
}
ONE: Mapping[Sort, str] = {
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
KNOWN: Mapping[By, str] = {
    By.TRACE: N_("the guard's trace"),
    By.ENVID: N_("its envelope id"),
    By.VERP: N_("its reverse-path"),
    By.MESSAGE_ID: N_("its Message-ID"),
    By.LIKENESS: N_("its text or subject: likely"),
    By.NOTHING: N_("nothing"),
}


@for_roles(*ROLES)
async def returns(request: Request) -> Response:
    here, said = services_of(request), speech(request)
    mailing = await found_of(request)
    course = await here.returns.course(mailing, await here.archive.freezes(limit=_FREEZES))
    return await page(
        request,
        "returns.html",
        mailing=mailing,
        course=course,
        trend=trend(course, said),
        done=[(one.at, in_words(one, said)) for one in course.done],
        drawn=drawn(course),
        sorts=SORTS,
        shown=COUNTED,
        one_words=ONE,
        known=KNOWN,
        daily=course.width >= timedelta(days=1),
        outside=by_source(await here.returns.outside(mailing.first_at)),
        latest=await here.returns.newest(mailing=mailing.mailing_id, limit=LATEST),
    )


def trend(course: Growth, said: Speech) -> str:
    words = {"span": said.span(course.span), "now": said.number(course.now), "before": said.number(course.before)}
    return said(TRENDS[course.trend], **words)


def in_words(one: Done, said: Speech) -> str:
    """What was done, with the figures of a breaker."""
    if one.deed in (Deed.STOPPED, Deed.OBSERVED):
        return tripped(one.data, said)
    words = said(_DONE[one.deed])
    if one.deed is Deed.CHANGED:
        return f"{words}: {said(DEEDS.get(one.data['what'], one.data['what']))}"
    return words


def drawn(course: Growth) -> Bars[datetime] | None:
    return stacked([(one.at, [one.of(sort) for sort in COUNTED]) for one in course.stretches])


ROUTES = [Route("/mailings/{mailing_id}/returns", returns, methods=["GET"])]
