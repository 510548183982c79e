"""The decisions on one message: approve, reject, undo a vote, ask the writer; and for the writer: confirm, withdraw, answer, ask for
the release.

Every decision is bound to what its page showed: content, recipients, lists, rules and policy. If one of them differs by now, or
another person was faster, nothing is done and the page says so (409).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from smtpguard.accounts.model import Role
from smtpguard.console.decisionpreview import LARGE, accepted_number, preview_now
from smtpguard.console.labels import earlier_decision
from smtpguard.console.pages.message import approver_page, hold_in_path, page_path, writer_page
from smtpguard.console.rendering import (
    CHANGED,
    choice_of,
    form,
    not_done,
    number,
    page,
    see_other,
    services_of,
    speech,
    text_of,
)
from smtpguard.console.services import Routes, Visibility, person
from smtpguard.database.errors import StoreError
from smtpguard.holds import coverage
from smtpguard.holds.effects import Seen, stages
from smtpguard.holds.model import Choice, Conflict, Hold, NotEntitled, Refused, Unconfirmed
from smtpguard.holds.questions import JUDGEMENTS
from smtpguard.holds.summary import summary
from smtpguard.locale.phrase import N_
from smtpguard.locale.speech import Speech
from smtpguard.notices.noticedata import addressees

_CARRIED = ("content", "envelope", "scope", "policy", "copies", "people", "at_once")
"""The form fields with what the page showed for an approval."""
UNCONFIRMED = N_(
    "It was not sent: it cannot be sent in stages, and you did not confirm that it goes to everyone at once."
)

ROUTES = Routes()


@ROUTES.post("/held/{hold_id}/vote", Role.APPROVER)
async def vote(request: Request) -> Response:
    here, who, said = services_of(request), person(request), speech(request)
    hold, seen = await hold_in_path(request)
    sent = form(request)
    choice = choice_of(sent)
    comment = text_of(sent, "comment")
    ahead = preview_now(here, hold, who)
    if choice is Choice.APPROVE and text_of(sent, "scope") != hold.scope_text:  # another list or rule came since
        return await _show_not_done(request, 409, said(CHANGED))
    wrong: dict[str, str] = {}
    unsaid = choice is Choice.REJECT and not comment and ahead.may_revoke  # people were told that it goes
    if unsaid and (await here.store.holds.outgoing(hold.hold_id)).stoppable:
        wrong["comment"] = said("Give a reason for the rejection: its writer reads it.")
    people = 0
    if choice is Choice.APPROVE and ahead.may and ahead.sends:
        large = ahead.people >= LARGE
        least = min(await here.approvals.least_people(hold), ahead.people)
        typed = accepted_number(number(sent, "number" if large else "people"), least, ahead.people)
        if typed is None and not large:  # more copies came than the button said
            return await _show_not_done(request, 409, said(CHANGED))
        if typed is None:
            wrong["number"] = _wrong_number(said, least, ahead.people)
        people = typed or 0
    if wrong:
        return await approver_page(request, hold, seen, 422, wrong=wrong)
    if choice is Choice.APPROVE and ahead.may and not text_of(sent, "number") and text_of(sent, "sure") != "yes":
        return await _confirmation(request, hold, seen, sent)

    act = here.approvals.vote(
        hold.hold_id,
        choice,
        approver=who.address,
        by=who.by,
        seen=Seen(
            content_sha256=text_of(sent, "content"),
            envelope_sha256=text_of(sent, "envelope"),
            scope=hold.scope,
            policy_sha256=text_of(sent, "policy"),
            under=number(sent, "copies"),
        ),
        comment=comment,
        people=people,
        all_at_once=number(sent, "at_once"),
    )
    return await _do(request, act, choice.value)


async def _confirmation(request: Request, hold: Hold, seen: Visibility, sent: FormData) -> Response:
    """Show the approval again with its cover and number of people, to be confirmed. Nothing is decided yet."""
    here, who, said = services_of(request), person(request), speech(request)
    in_force = here.in_force
    ahead = preview_now(here, hold, who)
    covers = coverage.of_hold(hold, await here.approvals.learned(hold.hold_id))
    return await page(
        request,
        "approve.html",
        hold=hold,
        ahead=ahead,
        summary=said.say(summary(hold, addressees(hold, in_force))),
        covers=[said.say(each) for each in coverage.sentences(covers, blind=seen < Visibility.TEXT)],
        stopped_by=(await here.freezes.holding_up(hold)).get(hold.hold_id, ()),
        delay=here.approvals.delay(hold, ahead.people),
        staged=stages(hold, in_force),
        sent=[(name, text_of(sent, name)) for name in _CARRIED if name in sent],
    )


def _wrong_number(said: Speech, least: int, most: int) -> str:
    if least == most:
        return said("It was not sent: the number that was typed is not {number}.", number=most)
    return said(
        "It was not sent: type a number from {least} to {most}.", least=said.number(least), most=said.number(most)
    )


@ROUTES.post("/held/{hold_id}/settle", Role.APPROVER)
async def settle(request: Request) -> Response:
    """Settle a release to a list address that is in doubt: it was sent, or is to be sent again."""
    here, who, said = services_of(request), person(request), speech(request)
    hold, seen = await hold_in_path(request)
    sent = form(request)
    choice = text_of(sent, "choice")
    if choice not in ("sent", "again"):
        return await approver_page(request, hold, seen, 422, said("Choose what happened."))

    act = here.approvals.answer_doubt(
        hold.hold_id, sent=choice == "sent", approver=who.address, by=who.by, comment=text_of(sent, "comment")
    )
    return await _do(request, act, choice)


@ROUTES.post("/held/{hold_id}/ask", Role.APPROVER)
async def ask(request: Request) -> Response:
    here, who, said = services_of(request), person(request), speech(request)
    hold, seen = await hold_in_path(request)
    question = text_of(form(request), "question")
    if not question:
        return await approver_page(request, hold, seen, 422, wrong={"question": said("Write what you want to know.")})

    act = here.questions.ask(hold.hold_id, question, approver=who.address, by=who.by)
    return await _do(request, act, "asked")


@ROUTES.post("/mine/{link}/unvote")
@ROUTES.post("/held/{hold_id}/unvote")
async def unvote(request: Request) -> Response:
    """Undo a vote. Until the approval takes effect, all who decide on the hold may undo it, and the writer."""
    here, who = services_of(request), person(request)
    hold, _ = await hold_in_path(request)
    if Role.APPROVER not in who.roles and who.address not in hold.senders:
        raise HTTPException(403)

    act = here.approvals.unvote(hold.hold_id, approver=who.address, by=who.by)
    return await _do(request, act, "undone" if hold.release_at is not None else "unvoted")


@ROUTES.post("/mine/{link}/confirm")
@ROUTES.post("/held/{hold_id}/confirm")
async def confirm(request: Request) -> Response:
    """Confirm a message, as its writer, by the number of people."""
    here, who, said = services_of(request), person(request), speech(request)
    hold = await _own_hold(request)
    sent = form(request)
    typed = number(sent, "number")
    if hold.asks_writer and typed != hold.reach:
        wrong = {"number": _wrong_number(said, hold.reach, hold.reach)}
        return await writer_page(request, hold, 422, wrong=wrong)

    act = here.approvals.confirm(
        hold.hold_id,
        writer=who.address,
        by=who.by,
        people=-1 if typed is None else typed,
        way="link" if getattr(request.state, "link", None) is not None else "account",
        seen=Seen(content_sha256=text_of(sent, "content"), envelope_sha256=text_of(sent, "envelope")),
    )
    return await _do(request, act, "confirmed")


@ROUTES.post("/mine/{link}/withdraw")
@ROUTES.post("/held/{hold_id}/withdraw")
async def withdraw(request: Request) -> Response:
    here, who = services_of(request), person(request)
    hold = await _own_hold(request)
    comment = text_of(form(request), "comment")

    act = here.approvals.withdraw(hold.hold_id, sender=who.address, by=who.by, comment=comment)
    return await _do(request, act, "withdrawn")


@ROUTES.post("/mine/{link}/answer")
@ROUTES.post("/held/{hold_id}/answer")
async def answer_question(request: Request) -> Response:
    said = speech(request)
    return await _write(request, services_of(request).questions.answer, said("Write your message."), "answered")


@ROUTES.post("/mine/{link}/plea")
@ROUTES.post("/held/{hold_id}/plea")
async def plead(request: Request) -> Response:
    said = speech(request)
    return await _write(request, services_of(request).questions.plead, said("Write why it should be sent."), "pleaded")


@ROUTES.post("/mine/{link}/judge")
@ROUTES.post("/held/{hold_id}/judge")
async def judge(request: Request) -> Response:
    here, who = services_of(request), person(request)
    hold = await _own_hold(request)
    judgement = text_of(form(request), "said")
    if judgement not in JUDGEMENTS:
        return await writer_page(request, hold, 422, speech(request)("Nothing was done: choose one of the two."))

    act = here.questions.judge(hold.hold_id, judgement, sender=who.address, by=who.by)
    return await _do(request, act, "judged")


async def _write(request: Request, send: Callable[..., Awaitable[None]], missing: str, what: str) -> Response:
    """Write to the approvers, as the message's writer. ``missing``: the error if the text is empty."""
    who = person(request)
    hold = await _own_hold(request)
    words = text_of(form(request), "words")
    if not words:
        return await writer_page(request, hold, 422, wrong={"words": missing})

    act = send(hold.hold_id, words, sender=who.address, by=who.by)
    return await _do(request, act, what)


async def _own_hold(request: Request) -> Hold:
    """Return the hold in the path, for its writer. Raises 404 for others."""
    hold, _ = await hold_in_path(request)
    if person(request).address not in hold.senders:
        raise HTTPException(404)
    return hold


async def _do(request: Request, act: Awaitable[object], what: str) -> Response:
    """Do ``act``, and redirect to the message with what was done (``what``); or show it as it is now, and why nothing was done."""
    said = speech(request)
    try:
        await act
    except (Conflict, NotEntitled, StoreError) as error:
        return await _show_not_done(request, *not_done(error, said))
    except Unconfirmed:
        return await _show_not_done(request, 422, said(UNCONFIRMED))
    except Refused:
        return await _show_not_done(request, 409, said("Nothing was done: this message has no writer to ask."))
    return see_other(page_path(request), done=what)


async def _show_not_done(request: Request, status: int, problem: str) -> Response:
    """Show the message as it is now, with ``problem``, and who decided earlier."""
    hold, seen = await hold_in_path(request)
    if status == 409:
        problem = f"{problem} {earlier_decision(hold, person(request).address, speech(request))}".strip()
    if seen is Visibility.NOTHING or person(request).address in hold.senders:
        return await writer_page(request, hold, status, problem)
    return await approver_page(request, hold, seen, status, problem)
