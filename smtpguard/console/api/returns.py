"""API operations on mail that came back after a mailing: take one from its receiver, and list them."""

from __future__ import annotations

from smtpguard.accounts.model import Scope
from smtpguard.console.api.entry import MOST_MESSAGE, Call, Operation
from smtpguard.console.api.mailings import looked_up
from smtpguard.console.api.models import ReturnedMail, ReturnRow, Returns, ReturnsTaken
from smtpguard.console.api.reference import raw_of
from smtpguard.mail.message import Message
from smtpguard.returns.growth import row as course_row
from smtpguard.returns.model import Return
from smtpguard.returns.service import row, unnamed

_MOST = 1_000
_FREEZES = 500


async def take(call: Call) -> ReturnsTaken:
    body: ReturnedMail = call.body
    receipt = await call.console.returns.take(
        Message.of(raw_of(body.message, body.message_base64)), to=tuple(body.recipients)
    )
    return ReturnsTaken(id=receipt.mail, again=receipt.again, items=[_row(one) for one in receipt.returns])


async def rows(call: Call) -> Returns:
    mailing = await looked_up(call)
    found = await call.console.returns.newest(mailing=mailing.mailing_id, limit=_MOST)
    course = await call.console.returns.course(mailing, await call.console.archive.freezes(limit=_FREEZES))
    return Returns.model_validate({**course_row(mailing, course), "items": [_row(unnamed(one)) for one in found]})


def _row(one: Return) -> ReturnRow:
    return ReturnRow.model_validate(row(one))


OPERATIONS = (
    Operation(method="POST", path="/returns", name="takeReturn", summary="Store a mail that came back: a DSN, a complaint, a reply. Answers once it is stored",
              scope=Scope.MAILINGS_FEEDBACK, body=ReturnedMail, answers=ReturnsTaken, do=take, most_body=MOST_MESSAGE),
    Operation(method="GET", path="/mailings/{mailing_id}/returns", name="listReturns", summary="What came back after a mailing: how much, how fast, whether it falls, what was done meanwhile; and the latest",
              scope=Scope.MAILINGS_READ, answers=Returns, do=rows, refuses=(404,)),
)  # fmt: skip
