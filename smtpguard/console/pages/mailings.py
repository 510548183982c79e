"""The Mailings pages: numbers, stages and growth of each mailing, people's decisions on it, and the addresses that got it, for
the two people who agreed on that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.admission.preapproval import NotAll
from smtpguard.console.chart import growth_chart
from smtpguard.console.filters import PAGE, page_of_mailings
from smtpguard.console.recipientlist import OlderVersions, list_recipients
from smtpguard.console.rendering import (
    Streamed,
    form,
    not_done,
    page,
    see_other,
    services_of,
    speech,
    text_of,
    uploaded,
)
from smtpguard.console.reporting import Occupied
from smtpguard.console.services import ConsoleServices, Routes, find_mailing, person
from smtpguard.database.errors import StoreError
from smtpguard.holds import coverage
from smtpguard.holds.model import Conflict, NotEntitled, Refused
from smtpguard.mail.message import Message, with_crlf
from smtpguard.mailings.matching import NoAddresses
from smtpguard.mailings.model import Mailing
from smtpguard.mailings.service import Revoked

_MOST_OCTETS = 50 << 20  # of a correction

ROUTES = Routes()


@ROUTES.get("/mailings", *Role)
async def mailings(request: Request) -> Response:
    after = request.query_params.get("after", "")[:100]
    found, further = await page_of_mailings(services_of(request), person(request), limit=PAGE, after=after)
    return await page(request, "mailings.html", mailings=found, further=further)


@ROUTES.post("/mailings/{mailing_id}", Role.APPROVER)
async def act(request: Request) -> Response:
    """Do what a person asks: let the stages go on, stop them, revoke the decision, reject what is not sent, or disclose who got
    it."""
    here, who, said = services_of(request), person(request), speech(request)
    found = await mailing_in_path(request)
    sent = form(request)
    comment = text_of(sent, "comment", 500)
    moves: dict[str, Callable[..., Awaitable[Mailing | Revoked]]] = {
        "go": here.mailings.go_on,
        "stop": here.mailings.stop,
        "reopen": here.mailings.reopen,
        "reject": here.mailings.reject,
        "disclose": here.mailings.disclose,
    }
    move = moves.get(text_of(sent, "move"))
    if move is None:
        raise HTTPException(404)
    if sent.get("move") == "reject" and not comment:
        return await mailing_page(
            request, 422, wrong={"comment": said("Give a reason for the rejection: its writer reads it.")}
        )
    try:
        made = await move(found.mailing_id, approver=who.address, by=who.by, comment=comment)
        if sent.get("move") == "reject":
            left = await here.approvals.reject_waiting(
                found.mailing_id, approver=who.address, by=who.by, comment=comment
            )
            if any(left.values()):
                problem = said("It is rejected. Some messages of it still wait for others to decide.")
                return await mailing_page(request, 409, problem)
    except (Conflict, NotEntitled, StoreError) as error:
        return await mailing_page(request, *not_done(error, said))
    there = made.disclosure if isinstance(made, Mailing) and sent.get("move") == "disclose" else None
    what = "done" if there is None else "people-agreed" if there.agreed_by else "people-asked"
    return see_other(f"/mailings/{found.mailing_id}", done=what)


@ROUTES.post("/mailings/{mailing_id}/people", Role.APPROVER)
async def recipients(request: Request) -> Response:
    """Serve the list of who got it as CSV, to the two who agreed."""
    here, who, said = services_of(request), person(request), speech(request)
    found, sent = await mailing_in_path(request), form(request)
    name, table = text_of(sent, "list"), await uploaded(sent, "file")
    if not name and not table:
        return await mailing_page(request, 422, wrong={"list": said("Choose a list, or a file.")})
    try:
        got = await list_recipients(
            here,
            found,
            approver=who.address,
            by=who.by,
            name=None if table else name,
            table=table,
            column=text_of(sent, "column", 100),
        )
    except NoAddresses as why:
        return await mailing_page(
            request, 422, wrong={"list": said("These addresses cannot be read: {why}.", why=str(why))}
        )
    except OlderVersions as some:
        wrong = said("Not all of them can be matched: it went to {then}. Choose a file exported then.", then=some.older)
        return await mailing_page(request, 422, wrong={"list": wrong})
    except NotEntitled:
        return await mailing_page(request, 403, said("No addresses were shown: two approvers must agree first."))
    except Occupied:
        return await mailing_page(request, 409, said("Another one is being made: ask again in a minute."))
    except StoreError as error:
        return await mailing_page(request, *not_done(error, said))
    headers = {"Content-Disposition": f'attachment; filename="{found.mailing_id}.csv"', "Cache-Control": "no-store"}
    return Streamed(got.pieces(), "text/csv; charset=utf-8; header=present", close=got.close, headers=headers)


@ROUTES.get("/mailings/{mailing_id}", *Role)
async def mailing_page(
    request: Request, status: int = 200, problem: str = "", *, wrong: Mapping[str, str] | None = None
) -> Response:
    here, who = services_of(request), person(request)
    found = await mailing_in_path(request)
    in_force = here.in_force
    is_approver, asked = Role.APPROVER in who.roles, (who.address, found.lists, found.writers, here.clock.now())
    return await page(
        request,
        "mailing.html",
        status,
        mailing=found,
        progress=found.progress,
        stopped_by=await here.freezes.against(found) if found.grant is not None else (),
        covers=[
            [speech(request).say(each) for each in coverage.sentences(one, blind=True)]
            for one in await here.mailings.covers(found)
        ],
        chart=growth_chart(await here.store.mailings.growth(found.mailing_id)),
        may=is_approver and in_force.decides(*asked),
        told=here.mailings.may_see_recipients(found, who.address),
        mine=found.disclosure is not None and found.disclosure.asked_by in in_force.addresses_of(who.address),
        known=_matchable_lists(here, found),
        may_correct=is_approver and in_force.sees(*asked) and found.people.at_most != 0,
        problem=problem,
        wrong=wrong,
    )


@ROUTES.post("/mailings/{mailing_id}/correct", Role.APPROVER)
async def correct(request: Request) -> Response:
    """Begin a correction of the mailing, to exactly those who got it."""
    here, who, said = services_of(request), person(request), speech(request)
    found, sent = await mailing_in_path(request), form(request)
    raw = await uploaded(sent, "file", _MOST_OCTETS + 1)
    if not raw.strip() or len(raw) > _MOST_OCTETS:
        wrong = said("Choose a message of at most 50 MB, saved as a file (.eml).")
        return await mailing_page(request, 422, wrong={"file": wrong})
    message = Message.of(with_crlf(raw))
    try:
        await here.corrections.begin(found, message, starter=who.address, by=who.by, doubt=bool(sent.get("doubt")))
    except NotAll as some:
        wrong = said(
            "It went to the address of {lists}, and the list has changed since. Whoever runs the guard can begin the correction with an export from then.",
            lists=", ".join(some.lists),
        )
        return await mailing_page(request, 422, wrong={"file": wrong})
    except (NotEntitled, StoreError) as error:
        return await mailing_page(request, *not_done(error, said))
    except Refused as why:
        return await mailing_page(
            request, 422, wrong={"file": said("No correction was begun: {why}.", why=said(str(why)))}
        )
    return see_other(f"/mailings/{found.mailing_id}", done="correcting")


def _matchable_lists(here: ConsoleServices, found: Mailing) -> list[tuple[str, str]]:
    """Return the titles and names of lists whose members can be matched; those that the mailing went to come first."""
    matched = [(title, name) for title, name in here.choices if here.lists[name].members]
    return sorted(matched, key=lambda one: one[1] not in found.lists)


async def mailing_in_path(request: Request) -> Mailing:
    found = await find_mailing(services_of(request), person(request), request.path_params["mailing_id"])
    if found is None:
        raise HTTPException(404)
    return found
