"""API operations on mailings, with their JSON models: progress, feedback, the release in stages, who got them, and what came
back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, Field

from smtpguard.accounts.model import Scope
from smtpguard.console.api.operation import (
    MOST_MESSAGE,
    Call,
    Comment,
    Long,
    Operation,
    OrNone,
    Page,
    PageQuery,
    Refusal,
    Sent,
    Time,
    as_sentence,
    error_at,
)
from smtpguard.console.api.reference import octets_of
from smtpguard.console.filters import page_of_mailings, parse_cursor
from smtpguard.console.recipientlist import OlderVersions, list_recipients
from smtpguard.console.reporting import Occupied
from smtpguard.console.services import find_mailing, sees
from smtpguard.holds.model import Conflict
from smtpguard.mail.message import Message
from smtpguard.mailings.matching import NoAddresses
from smtpguard.mailings.model import Mailing, State
from smtpguard.mailings.service import Revoked, row
from smtpguard.returns.growth import row as growth_row
from smtpguard.returns.model import Match, Return, unnamed
from smtpguard.returns.model import row as return_row

_MOST_RETURNS = 1_000  # in one answer


MailingState = Literal["passing", "held", "approved", "paused", "rejected"]


class GrantRow(BaseModel):
    """An approval, or the writer's confirmation (``by_writer``). It is for ``people`` in all, ``until`` then. ``covers``: one message
    and nothing else, or copies of it as well. ``set``: for a correction, the SHA-256 of its people's keyed digests; else null."""

    hold: str
    people: int
    until: str
    by: list[str]
    by_writer: bool
    covers: Literal["message", "copies"]
    set: str | None


class RejectionRow(BaseModel):
    hold: str
    sentence: str
    until: str


class StageRow(BaseModel):
    """The progress of a release in stages: ``stage`` of ``of``, for at most ``limit`` people so far."""

    at: str
    stage: int
    of: int
    limit: int | None
    goes_on_at: str | None
    why: str | None


class MailingRow(BaseModel):
    """One mailing. Numbers are of distinct people: ``relayed`` have it, as far as is known, and ``doubted`` may; for ``admitted`` it
    is on its way; ``held``: it waits for a decision; ``deferred``: their copies are at the client; ``refused`` by the relay;
    ``stopped``: it was held, and does not go out; ``unbounded``: the names of those numbers that may be higher, since a list had no
    current index. At least ``at_least`` people have it, and at most ``at_most``: they differ if recipients are in doubt, or if people
    of two lists, or of two versions of one, may be the same. ``at_most`` is null if it is unknown for the same reason. ``first_at``,
    ``last_at``: when copies of it came; ``went_first_at``, ``went_last_at``: when the relay took the first and the last one, null if
    it took none. ``release_at``: when the approval of ``hold`` takes effect, if it is approved; until then it can be undone."""

    id: str
    subject: str
    sender: str | None = Field(validation_alias=AliasChoices("from", "sender"))
    lists: list[str]
    at_least: int
    at_most: int | None
    relayed: int
    admitted: int
    held: int
    deferred: int
    refused: int
    doubted: int
    stopped: int
    unbounded: list[str]
    customers: int
    messages: int
    copies: int
    bounces: int
    complaints: int
    first_at: str
    last_at: str
    went_first_at: str | None
    went_last_at: str | None
    state: MailingState
    hold: str | None
    release_at: str | None
    approved: GrantRow | None
    rejected: RejectionRow | None
    stage: StageRow | None


class MailingsQuery(PageQuery):
    """The mailings to list. ``least``: only those with at least so many people, or with a decision made or pending."""

    state: MailingState | None = None
    least: int = Field(default=20, ge=0, le=10_000_000_000)


class Feedback(Sent):
    """How many more bounces and complaints came since the last report."""

    bounces: int = Field(default=0, ge=0, le=10_000_000)
    complaints: int = Field(default=0, ge=0, le=10_000_000)
    comment: Comment = ""


class ReturnedMail(Sent):
    """A mail that came back; the message is given as in Explain. ``recipients``: those of its envelope."""

    message: str = ""
    message_base64: str = ""
    recipients: list[Annotated[str, Field(max_length=320)]] = Field(default=[], max_length=100)


class ReturnRow(BaseModel):
    """A return for one person. ``id``: the SHA-256 of the mail; ``n``: which of the people it is about. ``known_by``: how ``message``
    and ``mailing`` were found; by likeness they are only likely. ``counts``: whether breakers count it. ``kept``: whether the mail
    is still stored."""

    id: str
    n: int
    at: str
    sort: Literal[
        "bounce", "delay", "delivered", "complaint", "reply", "unsubscribe", "automatic", "mention", "unsorted"
    ]
    known_by: Literal["trace", "envid", "verp", "message-id", "likeness", "nothing"]
    message: str | None
    mailing: str | None
    counts: bool
    address: str | None
    sender: str | None = Field(validation_alias=AliasChoices("from", "sender"))
    subject: str
    status: str | None
    said: str | None
    feedback: str | None
    why: str | None
    kept: bool


class ReturnsTaken(BaseModel):
    """A mail that was taken. ``again``: whether it had been taken before, and nothing was written."""

    id: str
    again: bool
    items: list[ReturnRow]


class SortRow(BaseModel):
    """The returns of one sort. ``counted``: how many people breakers count; ``likely``: how many more are likely, by the subject
    alone."""

    sort: str
    returns: int
    counted: int
    likely: int


class StretchRow(BaseModel):
    at: str
    bounce: int
    delay: int
    delivered: int
    complaint: int
    reply: int
    unsubscribe: int
    automatic: int
    mention: int
    unsorted: int


class DoneRow(BaseModel):
    at: str
    deed: Literal["went", "ended", "first", "stopped", "observed", "frozen", "thawed", "changed"]
    breaker: str | None
    limit: str | None
    counted: int | None
    people: int | None
    what: str | None


class Returns(BaseModel):
    """What came back after a mailing. ``now`` and ``before``: how much came back in the last ``seconds``, and in as many before.
    ``stretches``: each of ``stretch_seconds``, those in which nothing came back left out. ``items``: the latest 1,000.
    ``at_most``: null if it is unknown."""

    mailing: str
    subject: str
    at_least: int
    at_most: int | None
    trend: Literal["nothing", "too few to tell", "grows", "falls", "goes on"]
    seconds: int
    now: int
    before: int
    sorts: list[SortRow]
    stretch_seconds: int
    stretches: list[StretchRow]
    done: list[DoneRow]
    items: list[ReturnRow]


class Moved(Sent):
    comment: Comment = ""


class RejectMailing(Sent):
    """A rejection. ``comment``: the reason. The writers read it, and further messages of the mailing are refused with it."""

    comment: Annotated[str, Field(min_length=1, max_length=2000)]


class Disclosure(BaseModel):
    """The agreement of two people, who decide on the mailing, to list who got it. ``agreed_by``: null until a second person agrees;
    ``until``: the second must agree before this, and then both can get the list up to this time."""

    asked_by: str
    asked_at: Time
    agreed_by: Annotated[str | None, OrNone]
    until: Time


class People(Sent):
    """The addresses to match: the members of ``list``, or those in the ``column`` of a CSV file."""

    list: Annotated[str, Field(max_length=100)] = ""
    csv: str = ""
    column: Annotated[str, Field(max_length=100)] = ""


class PersonRow(BaseModel):
    address: str
    what: Literal["sent", "may have"]


class WhoGot(BaseModel):
    """The people who got a mailing. ``set``: the SHA-256 of their keyed digests, which the journal has."""

    sent: int
    may_have: int
    set: str
    people: list[PersonRow]


async def list_mailings(call: Call) -> Page[MailingRow]:
    query: MailingsQuery = call.query
    state = State(query.state) if query.state is not None else None
    if query.cursor and parse_cursor(query.cursor) is None:
        raise error_at("query.cursor", "not a cursor of this list")
    found, further = await page_of_mailings(
        call.console, call.who, limit=query.limit, after=query.cursor, least=query.least, state=state
    )
    return Page[MailingRow](items=[_row(mailing) for mailing in found], next=further or None)


async def show_mailing(call: Call) -> MailingRow:
    return _row(await mailing_in_path(call))


async def report_feedback(call: Call) -> MailingRow:
    body: Feedback = call.body
    mailing = await mailing_in_path(call)
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


async def agree_to_people(call: Call) -> Disclosure:
    body: Moved = call.body
    mailing = await mailing_in_path(call)
    made = await call.console.mailings.disclose(
        mailing.mailing_id, approver=call.who.address, by=call.holder.by, comment=body.comment
    )
    return Disclosure.model_validate(made.disclosure, from_attributes=True)


async def list_people(call: Call) -> Long:
    body: People = call.body
    mailing = await mailing_in_path(call)
    if bool(body.list) == bool(body.csv):
        raise error_at("body", "give either list or csv")
    try:
        got = await list_recipients(
            call.console,
            mailing,
            approver=call.who.address,
            by=call.holder.by,
            name=body.list or None,
            table=body.csv.encode(),
            column=body.column,
        )
    except (NoAddresses, OlderVersions) as why:
        raise Refusal(422, as_sentence(why)) from None
    except Occupied:
        raise Refusal(409, "Another one is being made: ask again in a minute.", headers={"retry-after": "60"}) from None
    return Long({"sent": got.sent, "may_have": got.may, "set": got.set, "people": got.rows()}, close=got.close)


def _decision(name: str) -> Callable[[Call], Awaitable[MailingRow]]:
    """Return the operation that calls the method ``name`` of the service."""

    async def move(call: Call) -> MailingRow:
        body: Moved | RejectMailing = call.body
        mailing = await mailing_in_path(call)
        act: Callable[..., Awaitable[Mailing | Revoked]] = getattr(call.console.mailings, name)
        made = await act(mailing.mailing_id, approver=call.who.address, by=call.holder.by, comment=body.comment)
        return _row(made.mailing if isinstance(made, Revoked) else made)

    return move


async def mailing_in_path(call: Call) -> Mailing:
    """Return the mailing in the path. Raises 404 if the caller may not see it. A prefix of its id is not enough: it would reveal which
    others exist."""
    wanted = call.path["mailing_id"]
    found = await find_mailing(call.console, call.who, wanted)
    if found is None or found.mailing_id != wanted:
        raise Refusal(404)
    return found


def _row(mailing: Mailing) -> MailingRow:
    return MailingRow.model_validate(row(mailing))


async def take_return(call: Call) -> ReturnsTaken:
    """Take a mail that came back. The answer says what it is about only to callers who may see that: anybody can write a mail that
    names a subject, and the match would reveal which mailings exist."""
    body: ReturnedMail = call.body
    in_force = None if call.who.sees_all else call.console.in_force
    receipt = await call.console.returns.take(
        Message.of(octets_of(body.message, body.message_base64)), to=tuple(body.recipients)
    )
    items = receipt.returns
    if in_force is not None and items:  # they are of one mail, which is about one mailing
        mailing = await call.console.store.mailings.find(items[0].match.mailing)
        if mailing is None or not sees(call.who, mailing, in_force, call.console.clock.now()):
            items = tuple(replace(one, match=Match(), sure=False, counts=False) for one in items)
    return ReturnsTaken(id=receipt.mail, again=receipt.again, items=[_return_row(one) for one in items])


async def list_returns(call: Call) -> Returns:
    mailing = await mailing_in_path(call)
    found = await call.console.store.returns.newest(mailing=mailing.mailing_id, limit=_MOST_RETURNS)
    growth = await call.console.returns.growth(mailing)
    return Returns.model_validate(
        {**growth_row(mailing, growth), "items": [_return_row(unnamed(one)) for one in found]}
    )


def _return_row(one: Return) -> ReturnRow:
    return ReturnRow.model_validate(return_row(one))


_PATH = "/mailings/{mailing_id}"
OPERATIONS = (
    Operation(method="GET", path="/mailings", name="listMailings", summary="List mailings, latest first",
              scope=Scope.MAILINGS_READ, query=MailingsQuery, answers=Page[MailingRow], do=list_mailings),
    Operation(method="GET", path=_PATH, name="showMailing", summary="Show one mailing: how many people it is for, and its state",
              scope=Scope.MAILINGS_READ, answers=MailingRow, do=show_mailing, refuses=(404,)),
    Operation(method="POST", path=f"{_PATH}/feedback", name="reportOnMailing", summary="Report further bounces or complaints; too many stop a release in stages",
              scope=Scope.MAILINGS_FEEDBACK, body=Feedback, answers=MailingRow, do=report_feedback, refuses=(404,)),
    Operation(method="POST", path=f"{_PATH}/stop", name="stopMailing", summary="Stop a release in stages, as the token's account",
              scope=Scope.HELD_DECIDE, body=Moved, answers=MailingRow, do=_decision("stop"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/go-on", name="continueMailing", summary="Open the next stage, or go on after a stop, as the token's account",
              scope=Scope.HELD_DECIDE, body=Moved, answers=MailingRow, do=_decision("go_on"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/reject", name="rejectMailing", summary="Reject what is approved and not yet sent, and all further copies, as the token's account",
              scope=Scope.HELD_DECIDE, body=RejectMailing, answers=MailingRow, do=_decision("reject"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/reopen", name="reopenMailing", summary="Take back the decision, as the token's account: what is not yet sent is held again, and the policy judges the next copy anew",
              scope=Scope.HELD_DECIDE, body=Moved, answers=MailingRow, do=_decision("reopen"), refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/people/agree", name="agreeToPeople", summary="Ask for the addresses of those who received it, or agree to another person's request, as the token's account",
              scope=Scope.MAILINGS_PEOPLE, body=Moved, answers=Disclosure, do=agree_to_people, refuses=(404, 409)),
    Operation(method="POST", path=f"{_PATH}/people", name="listPeople", summary="Show which people of a list or a file received it, to the two who agreed; journalled",
              scope=Scope.MAILINGS_PEOPLE, body=People, answers=WhoGot, do=list_people, refuses=(404, 409), most_body=MOST_MESSAGE),
    Operation(method="POST", path="/returns", name="takeReturn", summary="Store a mail that came back: a DSN, a complaint, a reply. Answers once it is stored",
              scope=Scope.MAILINGS_FEEDBACK, body=ReturnedMail, answers=ReturnsTaken, do=take_return, most_body=MOST_MESSAGE),
    Operation(method="GET", path="/mailings/{mailing_id}/returns", name="listReturns", summary="What came back after a mailing: how much, how fast, whether it falls, what was done meanwhile; and the latest",
              scope=Scope.MAILINGS_READ, answers=Returns, do=list_returns, refuses=(404,)),
)  # fmt: skip
