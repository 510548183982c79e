"""API operations on held messages: list, show, read, ask and decide. Visibility, quorum and conflicts are those of the pages.

A decision names what its person was shown, and is refused (409) if the hold differs by now. A repeated decision counts once and
gets the same answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from smtpguard.accounts.model import Scope
from smtpguard.console.api import heldmessage as rows
from smtpguard.console.api.operation import Call, Operation, Page, Refusal, error_at
from smtpguard.console.decisionpreview import LARGE, preview_now
from smtpguard.console.filters import Filters, page_of_holds, parse_cursor
from smtpguard.console.journalwords import QUESTIONS_AND_ANSWERS, entry_in_words
from smtpguard.console.messageview import cached_view
from smtpguard.console.services import Visibility, find, view_event, visibility
from smtpguard.database.errors import ContentMissing
from smtpguard.holds import coverage, effects
from smtpguard.holds.coverage import BEGINNING
from smtpguard.holds.model import Choice, Conflict, Hold, State, Unconfirmed, standing_votes
from smtpguard.holds.service import Decided
from smtpguard.journal.event import Kind
from smtpguard.locale.speech import Speech
from smtpguard.notices import noticedata
from smtpguard.policy.freezing import Selector
from smtpguard.policy.verdict import Mode


async def list_held(call: Call) -> Page[rows.Held]:
    query: rows.HeldQuery = call.query
    if query.cursor and parse_cursor(query.cursor) is None:
        raise error_at("query.cursor", "not a cursor of this list")
    who = call.who
    states = [State(query.state)] if query.state else list(State)
    wanted = Filters(list=query.list).wanted(call.console, who, states)
    if wanted is None:
        return Page[rows.Held](items=[])
    found, further = await page_of_holds(call.console, wanted, limit=query.limit, after=query.cursor)
    first: list[Hold] = []
    if query.state in (None, State.WAITING.value, State.IN_DOUBT.value) and not query.cursor:
        asked = await call.console.store.holds.asked_about()
        first = [hold for hold in asked if not query.list or query.list in hold.lists]
    everybody = [*first, *(hold for hold in found if hold.asked_at is None)]
    shown = [hold for hold in everybody if visibility(hold, who, call.console) is not Visibility.NOTHING]
    items = [rows.Held.model_validate(_row(call, hold), from_attributes=True) for hold in shown]
    return Page[rows.Held](items=items, next=further or None)


async def show_held(call: Call) -> rows.HeldDetail:
    hold = await hold_in_path(call)
    await _record_view(call, hold, "reasons")
    return await _detail(call, hold)


async def _record_view(call: Call, hold: Hold, saw: str) -> None:
    view = view_event(hold, saw, "api", call.console.clock.now(), call.who.address, call.holder.by)
    await call.console.store.journal.record([view])


async def approve(call: Call) -> rows.HeldDetail:
    body: rows.Approve = call.body
    hold = await hold_in_path(call)
    ahead = preview_now(call.console, hold, call.who)
    if not _looked_at(body.seen, hold).has_scope_of(hold) and not _has_voted(
        hold, call.who.address, Choice.APPROVE, body.seen
    ):
        raise Refusal(409, effects.OTHER_SCOPE)
    people = 0
    if ahead.may and ahead.sends:
        if body.reach != hold.reach and (hold.reach >= LARGE or body.reach is not None):
            raise error_at("body.reach", f"must be the number of people that it reaches: {hold.reach}")
        least = min(await call.console.approvals.least_people(hold), ahead.people)
        people = least if body.people is None else body.people
        if not least <= people <= ahead.people:
            raise error_at("body.people", f"must be between {least} and {ahead.people}")
        whole = ahead.at_once
        if whole is not None and not whole.refused and body.all_at_once != whole.people:
            raise error_at(
                "body.all_at_once",
                f"must be {whole.people}: it cannot be sent in stages, and goes to all of them at once",
            )
    return await _vote(call, hold, Choice.APPROVE, body.seen, body.comment, people, body.all_at_once)


async def confirm(call: Call) -> rows.HeldDetail:
    """Confirm a message, as its writer."""
    body: rows.Confirm = call.body
    hold = await hold_in_path(call)
    seen = effects.Seen(content_sha256=body.seen.content_sha256, envelope_sha256=body.seen.envelope_sha256)
    act = call.console.approvals.confirm(
        hold.hold_id, writer=call.who.address, by=call.holder.by, people=body.reach, way="token", seen=seen
    )
    try:
        return await _detail_after(
            call, act, lambda now: bool(now.confirm and now.confirm.at and now.confirm.writer == call.who.address)
        )
    except Unconfirmed as refused:
        raise error_at("body.reach", str(refused)) from None


async def _detail_after(call: Call, act: Awaitable[Decided], already: Callable[[Hold], bool]) -> rows.HeldDetail:
    """Do ``act``, and return the hold after it. ``already``: says whether an earlier request has done the same, so that a repeated
    request counts once."""
    try:
        hold = (await act).hold
    except KeyError:
        raise Refusal(404) from None
    except Conflict:
        hold = await hold_in_path(call)
        if not already(hold):
            raise
    return await _detail(call, hold)


async def reject(call: Call) -> rows.HeldDetail:
    body: rows.Reject = call.body
    hold = await hold_in_path(call)
    if hold.state is not State.WAITING and not body.comment.strip():
        raise error_at("body.comment", "give a reason: its writer and the approvers are told")
    return await _vote(call, hold, Choice.REJECT, body.seen, body.comment)


async def unvote(call: Call) -> rows.HeldDetail:
    """Undo a vote, as the approver who cast it. Until the approval takes effect, all who decide on the hold may undo it, and the
    writer."""
    body: rows.Withdraw = call.body
    hold = await hold_in_path(call)
    who = call.who.address
    act = call.console.approvals.unvote(hold.hold_id, approver=who, by=call.holder.by, comment=body.comment)
    return await _detail_after(
        call,
        act,
        lambda now: (
            now.state is State.WAITING and now.release_at is None and who not in {v.approver for v in now.votes}
        ),
    )


async def withdraw(call: Call) -> rows.HeldDetail:
    """Withdraw a message, as its writer."""
    body: rows.Withdraw = call.body
    hold = await hold_in_path(call)
    if call.who.address not in hold.senders:
        raise Refusal(403, "Only its writer can withdraw it.")
    act = call.console.approvals.withdraw(
        hold.hold_id, sender=call.who.address, by=call.holder.by, comment=body.comment
    )
    return await _detail_after(call, act, lambda now: now.state is State.WITHDRAWN)


async def settle(call: Call) -> rows.HeldDetail:
    """Settle a release to a list address that is in doubt: it was sent, or is to be sent again."""
    body: rows.Settle = call.body
    hold = await hold_in_path(call)
    try:
        done = await call.console.approvals.answer_doubt(
            hold.hold_id, sent=body.choice == "sent", approver=call.who.address, by=call.holder.by, comment=body.comment
        )
    except KeyError:
        raise Refusal(404) from None
    return await _detail(call, done)


async def hold_in_path(call: Call) -> Hold:
    """Return the hold in the path. Raises 404 if the caller may not see it, as if it did not exist."""
    found = await find(call.console, call.who, call.path["hold_id"])
    if found is None:
        raise Refusal(404)
    return found[0]


async def _vote(
    call: Call,
    hold: Hold,
    choice: Choice,
    seen: rows.Seen,
    comment: str,
    people: int = 0,
    all_at_once: int | None = None,
) -> rows.HeldDetail:
    looked_at = _looked_at(seen, hold)
    act = call.console.approvals.vote(
        hold.hold_id, choice, approver=call.who.address, by=call.holder.by, seen=looked_at, comment=comment,
        people=people, all_at_once=all_at_once,
    )  # fmt: skip
    return await _detail_after(call, act, lambda now: _has_voted(now, call.who.address, choice, seen))


def _looked_at(seen: rows.Seen, hold: Hold) -> effects.Seen:
    rules = hold.rules if seen.rules is None else seen.rules
    beside = {one for one in hold.scope if one.startswith("set ")}
    return effects.Seen(
        content_sha256=seen.content_sha256,
        envelope_sha256=seen.envelope_sha256,
        scope=frozenset({*(f"list {name}" for name in seen.lists), *(f"rule {id}" for id in rules), *beside}),
        policy_sha256=seen.policy_sha256,
        under=seen.copies,
    )


def _has_voted(hold: Hold, who: str, choice: Choice, seen: rows.Seen) -> bool:
    """Return whether exactly this vote exists already."""
    return any(
        (v.approver, v.choice, v.content_sha256, v.envelope_sha256)
        == (who, choice, seen.content_sha256, seen.envelope_sha256)
        for v in standing_votes(hold)
    )


def _row(call: Call, hold: Hold, lists: Sequence[str] | None = None) -> dict[str, Any]:
    title = call.console.in_force.title
    refs = [{"name": name, "title": title(name)} for name in (hold.lists if lists is None else lists)]
    return {
        "id": hold.hold_id,
        "state": hold.state.value,
        "held_at": hold.held_at,
        "expires_at": hold.expires_at,
        "release_at": hold.release_at,
        "sender": hold.sender,
        "subject": hold.subject,
        "recipients": len(hold.envelope.recipients),
        "reach": hold.reach,
        "lists": refs,
        "rules": [hit.rule for hit in hold.verdict.hits if hit.mode is Mode.ENFORCE],
        "mailing": hold.mailing_id or None,
        "decided_with": hold.primary or None,
        "settled": hold.settled,
        "asked_at": hold.asked_at,
        "confirm": hold.confirm_row,
        "url": f"{url}/held/{hold.hold_id}" if (url := call.console.settings.console_url) else None,
    }


async def _detail(call: Call, hold: Hold) -> rows.HeldDetail:
    """Return the hold as the caller may see it. A writer who otherwise sees nothing gets no more than the notice has."""
    in_force = call.console.in_force
    ahead = preview_now(call.console, hold, call.who)
    outgoing = await call.console.store.holds.outgoing(hold.hold_id)
    frozen = list((await call.console.freezes.holding_up(hold)).get(hold.hold_id, ()))
    covers = coverage.of_hold(hold, await call.console.approvals.learned(hold.hold_id))
    seen = visibility(hold, call.who, call.console)
    blind = seen < Visibility.TEXT
    lists, reasons = list(hold.lists), noticedata.enforced_reasons(hold.verdict, in_force, readable=not blind)
    if seen is Visibility.NOTHING:
        lists = [info.name for info in noticedata.addressed(hold, in_force)]
        frozen = [
            replace(one, value="", reason="") if one.selector is Selector.LIST and one.value not in lists else one
            for one in frozen
        ]
        reasons = noticedata.reasons(hold, in_force)
    row = _row(call, hold, lists) | {
        "rules": [each["rule"] for each in reasons if each["rule"]],
        "reasons": reasons,
        "votes": ahead.votes,
        "missing": ahead.left,
        "may_decide": ahead.may,
        "may_undo": ahead.may_undo,
        "may_take_back": ahead.may_revoke and outgoing.stoppable,
        "sending": outgoing.own and outgoing.own.row,
        "stopped": hold.stopped,
        "frozen_by": frozen,
        "why_not": ahead.why_not,
        "approval_sends": ahead.may and ahead.sends,
        "reach_must_be_said": ahead.may and ahead.sends and hold.reach >= LARGE,
        "people_at_most": ahead.people,
        "at_once": ahead.at_once and ahead.at_once.row,
        "letters": await _letters(call, hold, covers.letters or 0, blind=blind),
        "covers": _covers(covers, blind=blind),
        "seen": {
            "content_sha256": hold.content_sha256,
            "envelope_sha256": hold.envelope.sha256,
            "policy_sha256": in_force.sha256,
            "lists": lists,
            "rules": hold.rules,
            "copies": covers.under,
        },
    }
    return rows.HeldDetail.model_validate(row, from_attributes=True)


async def _letters(call: Call, hold: Hold, most: int, *, blind: bool) -> list[dict[str, Any]]:
    found = await call.console.store.holds.queued(hold.hold_id, most) if most else ()
    return [
        {
            "id": one.hold_id,
            "recipients": len(one.envelope.recipients),
            "subject": one.subject,
            "begins": shown.beginning(BEGINNING) if shown is not None and not blind else "",
        }
        for one, shown in found
    ]


def _covers(covers: coverage.Coverage, *, blind: bool) -> dict[str, Any]:
    row = covers.row | {"text": list(coverage.sentences(covers, blind=blind))}
    if blind:
        row |= {"differs": [{**one, "before": "", "seen": []} for one in row["differs"]], "one_of": []}
    return row


async def show_text(call: Call) -> rows.Text:
    """Return the text. Raises 404 for callers to whom the policy does not show it. The view is journalled first."""
    hold = await hold_in_path(call)
    if visibility(hold, call.who, call.console) < Visibility.TEXT:
        raise Refusal(404)
    try:
        letter = await cached_view(await call.console.store.contents.load(hold.content_sha256))
    except ContentMissing:
        raise Refusal(404, "Its text is not kept any more.") from None
    await _record_view(call, hold, "text")
    return rows.Text.model_validate(letter, from_attributes=True)


async def show_history(call: Call) -> rows.History:
    return await _history(call, await hold_in_path(call))


async def _history(call: Call, hold: Hold, *kinds: Kind) -> rows.History:
    entries = await call.console.store.journal.history(hold.hold_id, *kinds)
    items = [entry_in_words(entry, clear, Speech()) for entry, clear in entries]
    return rows.History.model_validate({"items": items}, from_attributes=True)


async def ask(call: Call) -> rows.History:
    return await _write(call, call.console.questions.ask, call.body.question, approver=call.who.address)


async def answer(call: Call) -> rows.History:
    """Write to the approvers, as the message's writer."""
    return await _write(call, call.console.questions.answer, call.body.words, sender=call.who.address)


async def plead(call: Call) -> rows.History:
    """Ask the approvers for the message's release, as its writer."""
    return await _write(call, call.console.questions.plead, call.body.words, sender=call.who.address)


async def _write(call: Call, say: Callable[..., Awaitable[None]], words: str, **who: str) -> rows.History:
    """Write ``words``, and return the conversation with them."""
    hold = await hold_in_path(call)
    await say(hold.hold_id, words, **who, by=call.holder.by)
    return await _history(call, hold, *QUESTIONS_AND_ANSWERS)


_PATH = "/held/{hold_id}"
OPERATIONS = (
    Operation(method="GET", path="/held", name="listHeld", summary="List held messages, newest first",
              scope=Scope.HELD_READ, query=rows.HeldQuery, answers=Page[rows.Held], do=list_held),
    Operation(method="GET", path=_PATH, name="showHeld", summary="Show one held message: why, who decides, what a decision would do. Journalled as viewed",
              scope=Scope.HELD_READ, answers=rows.HeldDetail, do=show_held, refuses=(404,)),
    Operation(method="POST", path=f"{_PATH}/approve", name="approveHeld", summary="Approve it, as the token's account",
              scope=Scope.HELD_DECIDE, body=rows.Approve, answers=rows.HeldDetail, do=approve, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/unvote", name="unvoteHeld", summary="Take back one's own approval of a waiting message, or undo an approval before the release",
              scope=Scope.HELD_DECIDE, body=rows.Withdraw, answers=rows.HeldDetail, do=unvote, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/reject", name="rejectHeld", summary="Reject it, as the token's account",
              scope=Scope.HELD_DECIDE, body=rows.Reject, answers=rows.HeldDetail, do=reject, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/settle", name="settleHeld", summary="Settle a post to a list that is in doubt: it was sent, or is to be sent again",
              scope=Scope.HELD_DECIDE, body=rows.Settle, answers=rows.HeldDetail, do=settle, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/confirm", name="confirmHeld", summary="Confirm a message of one's own about which the writer is asked; then it is released",
              scope=Scope.HELD_CONFIRM, body=rows.Confirm, answers=rows.HeldDetail, do=confirm, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/withdraw", name="withdrawHeld", summary="Withdraw a message that the token's account wrote",
              scope=Scope.HELD_WITHDRAW, body=rows.Withdraw, answers=rows.HeldDetail, do=withdraw, refuses=(404, 409)),
    Operation(method="GET", path=f"{_PATH}/text", name="readHeld", summary="Show its text, if the policy allows it to this account; journalled",
              scope=Scope.HELD_TEXT, answers=rows.Text, do=show_text, refuses=(404,)),
    Operation(method="GET", path=f"{_PATH}/history", name="historyOfHeld", summary="Show all that happened to it, from the journal, oldest first",
              scope=Scope.HELD_READ, answers=rows.History, do=show_history, refuses=(404,)),
    Operation(method="POST", path=f"{_PATH}/ask", name="askAboutHeld", summary="Ask its writer a question, as the token's account",
              scope=Scope.HELD_DECIDE, body=rows.Question, answers=rows.History, do=ask, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/answer", name="answerAboutHeld", summary="Answer a question about one's own message, or write to the approvers",
              scope=Scope.HELD_WITHDRAW, body=rows.Answer, answers=rows.History, do=answer, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/plea", name="pleadForHeld", summary="Ask for the release of a message of one's own",
              scope=Scope.HELD_WITHDRAW, body=rows.Answer, answers=rows.History, do=plead, refuses=(404, 409)),
)  # fmt: skip
