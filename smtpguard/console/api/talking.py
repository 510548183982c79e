"""API operations on a held message's text, its questions and answers, and its history. Visibility is that of the pages."""

from __future__ import annotations

from collections.abc import Awaitable

from smtpguard.accounts.model import Scope
from smtpguard.console.access import Visibility, visibility
from smtpguard.console.api.entry import Call, Operation
from smtpguard.console.api.held import looked_up, viewed
from smtpguard.console.api.heldmessage import Answer, AttachmentRow, Happened, History, Question, Text
from smtpguard.console.api.problems import Refusal
from smtpguard.console.entrywords import entry_in_words
from smtpguard.console.pages.message import SPOKEN, letter_of
from smtpguard.database.errors import ContentMissing
from smtpguard.locale.speech import Speech


async def text(call: Call) -> Text:
    """404 for callers to whom the policy does not show it. Journalled before it is shown."""
    hold = await looked_up(call)
    if visibility(hold, call.who, call.desk.policies.current(), call.desk.clock.now()) < Visibility.TEXT:
        raise Refusal(404)
    try:
        letter = await letter_of(await call.desk.ledger.contents.load(hold.content_sha256))
    except ContentMissing:
        raise Refusal(404, "Its text is not kept any more.") from None
    await viewed(call, hold, "text")
    attachments = [AttachmentRow(name=a.name, type=a.kind, size_bytes=a.size_bytes) for a in letter.attachments]
    return Text(
        text=letter.new,
        quoted=letter.quoted,
        plain=letter.plain,
        hidden=letter.hidden,
        cut=letter.cut,
        problem=letter.why or None,
        attachments=attachments,
    )


async def history(call: Call) -> History:
    hold = await looked_up(call)
    entries = [
        (e.kind, entry_in_words(e, clear, Speech())) for e, clear in await call.desk.archive.history(hold.hold_id)
    ]
    return History(items=[Happened(at=t.at, kind=kind, text=t.text, who=t.who, words=t.words) for kind, t in entries])


async def ask(call: Call) -> History:
    body: Question = call.body
    hold = await looked_up(call)
    by = call.holder.by
    return await _said(call, call.desk.talks.ask(hold.hold_id, body.question, approver=call.who.address, by=by))


async def answer(call: Call) -> History:
    """For the message's writer, as the token's account."""
    body: Answer = call.body
    hold = await looked_up(call)
    by = call.holder.by
    return await _said(call, call.desk.talks.answer(hold.hold_id, body.words, sender=call.who.address, by=by))


async def plead(call: Call) -> History:
    """The same; it asks for the message's release."""
    body: Answer = call.body
    hold = await looked_up(call)
    by = call.holder.by
    return await _said(call, call.desk.talks.plead(hold.hold_id, body.words, sender=call.who.address, by=by))


async def _said(call: Call, saying: Awaitable[None]) -> History:
    await saying
    found = await history(call)
    return History(items=[one for one in found.items if one.kind in SPOKEN])


_ONE = "/held/{hold_id}"
OPERATIONS = (
    Operation(method="GET", path=f"{_ONE}/text", name="readHeld", summary="Show its text, if the policy allows it to this account; journalled",
              scope=Scope.HELD_TEXT, answers=Text, do=text, refuses=(404,)),
    Operation(method="GET", path=f"{_ONE}/history", name="historyOfHeld", summary="Show all that happened to it, from the journal, oldest first",
              scope=Scope.HELD_READ, answers=History, do=history, refuses=(404,)),
    Operation(method="POST", path=f"{_ONE}/ask", name="askAboutHeld", summary="Ask its writer a question, as the token's account",
              scope=Scope.HELD_DECIDE, body=Question, answers=History, do=ask, refuses=(404, 409)),
    Operation(method="POST", path=f"{_ONE}/answer", name="answerAboutHeld", summary="Answer a question about one's own message, or write to the approvers",
              scope=Scope.HELD_WITHDRAW, body=Answer, answers=History, do=answer, refuses=(404, 409)),
    Operation(method="POST", path=f"{_ONE}/plea", name="pleadForHeld", summary="Ask for the release of a message of one's own",
              scope=Scope.HELD_WITHDRAW, body=Answer, answers=History, do=plead, refuses=(404, 409)),
)  # fmt: skip
