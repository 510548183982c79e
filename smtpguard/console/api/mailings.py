"""API operations on mailings: progress, bounce and complaint feedback, the release in stages, and what came back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from smtpguard.accounts.model import Scope
from smtpguard.console.api import models
from smtpguard.console.api.entry import MOST_MESSAGE, Call, Long, Operation, Refusal, error_at
from smtpguard.console.api.reference import raw_of
from smtpguard.console.filters import cut, listed, sees
from smtpguard.console.pages.mailings import OlderVersions, listing
from smtpguard.console.reporting import Occupied
from smtpguard.holds.model import Conflict
from smtpguard.mail.message import Message
from smtpguard.mailings.model import Mailing, NoSuch, State
from smtpguard.mailings.service import Back, NoAddresses, row
from smtpguard.returns.growth import row as course_row
from smtpguard.returns.model import Return
from smtpguard.returns.service import row as return_row
from smtpguard.returns.service import unnamed

_MOST = 1_000
_FREEZES = 500


async def rows(call: Call) -> models.Page[models.MailingRow]:
    query: models.MailingsQuery = call.query
    state = State(query.state) if query.state is not None else None
    if query.cursor and cut(query.cursor) is None:
        raise error_at("query.cursor", "not a cursor of this list")
    found, further = await listed(
        call.console, call.who, limit=query.limit, after=query.cursor, least=query.least, state=state
    )
    return models.Page[models.MailingRow](items=[_row(mailing) for mailing in found], next=further or None)


async def shown(call: Call) -> models.MailingRow:
    return _row(await looked_up(call))


async def feedback(call: Call) -> models.MailingRow:
    body: models.Feedback = call.body
    mailing = await looked_up(call)
    try:
        made = await call.console.mailings.feedback(
            mailing.mailing_id,
            bounces=body.bounces,
            complaints=body.complaints,
            by=call.holder.by,
            comment=body.comment,
        )
    except Conflict as conflict:
        raise Refusal(422, str(conflict)) from None
    return _row(made)


async def agree(call: Call) -> models.Disclosure:
    body: models.Moved = call.body
    mailing = await looked_up(call)
    made = await call.console.mailings.disclose(
        mailing.mailing_id, approver=call.who.address, by=call.holder.by, comment=body.comment
    )
    return models.Disclosure.model_validate(made.disclosure, from_attributes=True)


async def people(call: Call) -> Long:
    body: models.People = call.body
    mailing = await looked_up(call)
    if bool(body.list) == bool(body.csv):
        raise error_at("body", "give either list or csv")
    try:
        got = await listing(
            call.console,
            mailing,
            approver=call.who.address,
            by=call.holder.by,
            name=body.list or None,
            table=body.csv.encode(),
            column=body.column,
        )
    except (NoAddresses, OlderVersions) as why:
        raise Refusal(422, f"{str(why)[:1].upper()}{str(why)[1:]}.") from None
    except Occupied:
        raise Refusal(409, "Another one is being made: ask again in a minute.", headers={"retry-after": "60"}) from None
    return Long({"sent": got.sent, "may_have": got.may, "set": got.set, "people": got.rows()})


def _moving(name: str) -> Callable[[Call], Awaitable[models.MailingRow]]:
    """The operation that is this method of the service."""

    async def move(call: Call) -> models.MailingRow:
        body: models.Moved | models.RejectMailing = call.body
        mailing = await looked_up(call)
        act: Callable[..., Awaitable[Mailing | Back]] = getattr(call.console.mailings, name)
        made = await act(mailing.mailing_id, approver=call.who.address, by=call.holder.by, comment=body.comment)
        return _row(made.mailing if isinstance(made, Back) else made)

    return move


async def looked_up(call: Call) -> Mailing:
    """By its whole id only: a prefix would reveal which others exist."""
    wanted = call.path["mailing_id"][:100]
    try:
        mailing = await call.console.mailings.show(wanted)
    except NoSuch:
        raise Refusal(404) from None
    if mailing.mailing_id != wanted or not sees(call.who, mailing, call.console.in_force, call.console.clock.now()):
        raise Refusal(404)
    return mailing


def _row(mailing: Mailing) -> models.MailingRow:
    return models.MailingRow.model_validate(row(mailing))


async def take(call: Call) -> models.ReturnsTaken:
    body: models.ReturnedMail = call.body
    receipt = await call.console.returns.take(
        Message.of(raw_of(body.message, body.message_base64)), to=tuple(body.recipients)
    )
    return models.ReturnsTaken(
        id=receipt.mail, again=receipt.again, items=[_return_row(one) for one in receipt.returns]
    )


async def returned(call: Call) -> models.Returns:
    mailing = await looked_up(call)
    found = await call.console.store.returns.newest(mailing=mailing.mailing_id, limit=_MOST)
    course = await call.console.returns.course(mailing, await call.console.store.journal.freezes(limit=_FREEZES))
    return models.Returns.model_validate(
        {**course_row(mailing, course), "items": [_return_row(unnamed(one)) for one in found]}
    )


def _return_row(one: Return) -> models.ReturnRow:
    return models.ReturnRow.model_validate(return_row(one))


_ONE = "/mailings/{mailing_id}"
OPERATIONS = (
    Operation(method="GET", path="/mailings", name="listMailings", summary="List mailings, latest first",
              scope=Scope.MAILINGS_READ, query=models.MailingsQuery, answers=models.Page[models.MailingRow], do=rows),
    Operation(method="GET", path=_ONE, name="showMailing", summary="Show one mailing: how many people it is for, and its state",
              scope=Scope.MAILINGS_READ, answers=models.MailingRow, do=shown, refuses=(404,)),
    Operation(method="POST", path=f"{_ONE}/feedback", name="reportOnMailing", summary="Report further bounces or complaints; too many stop a release in stages",
              scope=Scope.MAILINGS_FEEDBACK, body=models.Feedback, answers=models.MailingRow, do=feedback, refuses=(404,)),
    Operation(method="POST", path=f"{_ONE}/stop", name="stopMailing", summary="Stop a release in stages, as the token's account",
              scope=Scope.HELD_DECIDE, body=models.Moved, answers=models.MailingRow, do=_moving("stop"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_ONE}/go-on", name="continueMailing", summary="Open the next stage, or go on after a stop, as the token's account",
              scope=Scope.HELD_DECIDE, body=models.Moved, answers=models.MailingRow, do=_moving("go_on"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_ONE}/reject", name="rejectMailing", summary="Reject what is approved and not yet sent, and all further copies, as the token's account",
              scope=Scope.HELD_DECIDE, body=models.RejectMailing, answers=models.MailingRow, do=_moving("reject"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_ONE}/reopen", name="reopenMailing", summary="Take back the decision, as the token's account: what is not yet sent is held again, and the policy judges the next copy anew",
              scope=Scope.HELD_DECIDE, body=models.Moved, answers=models.MailingRow, do=_moving("reopen"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_ONE}/people/agree", name="agreeToPeople", summary="Ask for the addresses of those who received it, or agree to another person's request, as the token's account",
              scope=Scope.MAILINGS_PEOPLE, body=models.Moved, answers=models.Disclosure, do=agree, refuses=(404, 409)),
    Operation(method="POST", path=f"{_ONE}/people", name="listPeople", summary="Show which people of a list or a file received it, to the two who agreed; journalled",
              scope=Scope.MAILINGS_PEOPLE, body=models.People, answers=models.WhoGot, do=people, refuses=(404, 409), most_body=MOST_MESSAGE),
    Operation(method="POST", path="/returns", name="takeReturn", summary="Store a mail that came back: a DSN, a complaint, a reply. Answers once it is stored",
              scope=Scope.MAILINGS_FEEDBACK, body=models.ReturnedMail, answers=models.ReturnsTaken, do=take, most_body=MOST_MESSAGE),
    Operation(method="GET", path="/mailings/{mailing_id}/returns", name="listReturns", summary="What came back after a mailing: how much, how fast, whether it falls, what was done meanwhile; and the latest",
              scope=Scope.MAILINGS_READ, answers=models.Returns, do=returned, refuses=(404,)),
)  # fmt: skip
