"""API operations for an incident, with their JSON models: set, list and lift freezes, and make the report.

The report is a POST, since the people asked about must be in no URL and no log. One is made at a time, as for the page and the
command, and its body is sent in pieces.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from smtpguard.accounts.model import Scope
from smtpguard.console.api.mailings import MailingRow
from smtpguard.console.api.operation import (
    ByValue,
    Call,
    Long,
    Operation,
    Refusal,
    Sent,
    Time,
    Wrong,
    as_sentence,
    error_at,
    not_in_scope,
)
from smtpguard.console.api.reference import Verified
from smtpguard.console.incidentfile import row
from smtpguard.console.reporting import NothingFits, Occupied, make_once, query_of
from smtpguard.freezes.hooks import Hook
from smtpguard.freezes.service import UNCOUNTED, SecondPersonNeeded
from smtpguard.incidents.report import TooMany
from smtpguard.incidents.statement import Mark
from smtpguard.journal.outcome import Outcome
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mailings.model import NoSuch
from smtpguard.policy.freezing import Selector

_Name = Annotated[str, Field(min_length=1, max_length=100)]


SelectorName = Literal["all", "list", "sender", "mailing", "thread"]


class FreezeRow(BaseModel):
    id: str = Field(validation_alias="freeze_id")
    selector: Annotated[SelectorName, ByValue]
    value: str
    reason: str
    by: str
    at: Time
    until: Time | None


class Freezes(BaseModel):
    items: list[FreezeRow]


class SetFreeze(Sent):
    """A freeze to set. ``value``: the list's name, the sender's address, the mailing or the thread; "" for all."""

    selector: SelectorName
    value: Annotated[str, Field(max_length=500)] = ""
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    minutes: int | None = Field(default=None, ge=1, le=30 * 1440)


class FreezeSet(BaseModel):
    """A freeze that was set. ``recalled``: how many messages were dropped before their final dot; ``past_recall``: how many the relay
    has, or may have."""

    freeze: FreezeRow
    recalled: int
    past_recall: int
    problems: list[str] = Field(
        description="freeze or thaw commands that failed, and whether the messages could not be counted"
    )


class FreezeLifted(BaseModel):
    """The answer to a request to lift a freeze. If ``lifted`` is false, two people are needed: this one's consent is recorded, and
    the freeze stays until another agrees."""

    id: str
    lifted: bool
    problems: list[str]


class Incident(Sent):
    """What a report is about. All conditions must match. ``ids``: of held messages, of other messages as in the log, of mailings (a
    prefix is enough) or freezes, or SHA-256 of contents; one of them must match. ``senders``: in From, reverse-path or login.
    ``subject``: a part of it. ``since``, ``until``: "2026-11-26 09:30" in UTC or with its own offset, or "2h" for so long ago.
    ``alone``: leave out the other messages of the same mailings. ``names``: include writers, subjects and comments, which is
    journalled. ``proof``: walk the whole journal."""

    ids: list[_Name] = Field(default=[], max_length=100)
    lists: list[_Name] = Field(default=[], max_length=100)
    senders: list[Annotated[str, Field(min_length=1, max_length=320)]] = Field(default=[], max_length=100)
    subject: Annotated[str, Field(max_length=500)] = ""
    since: Annotated[str, Field(max_length=40)] | None = None
    until: Annotated[str, Field(max_length=40)] | None = None
    alone: bool = False
    names: bool = False
    proof: bool = True


class JournalHead(BaseModel):
    """The journal when the report was begun: the last entry that was read, and the last signed checkpoint."""

    id: str
    seq: int
    hash: str
    signed_seq: int | None
    signed_at: Time | None


class PeopleCount(BaseModel):
    """Distinct people, from ``least`` to ``most``; null: no upper bound is known. ``people``: one number for both, with
    ``at_least`` or ``at_most`` if they differ."""

    people: int
    at_least: bool
    at_most: bool
    least: int
    most: int | None


class Sum(PeopleCount):
    messages: int


class RefusedCount(BaseModel):
    code: str
    recipients: int


class EndRow(Sum):
    end: Outcome


class CopyCount(BaseModel):
    end: Outcome
    messages: int


class NameCount(BaseModel):
    name: str
    messages: int


class ListCount(NameCount):
    """A list, as the policy that decided declares it; null if that policy is no longer known."""

    title: str | None
    audience: str | None
    sensitivity: str | None
    category: str | None
    reached: PeopleCount = Field(description="members of the list who received it")
    perhaps: PeopleCount = Field(description="members of the list who may have received it")


class AddressCount(BaseModel):
    address: str
    messages: int


class TextCount(BaseModel):
    text: str
    messages: int


class HeldContent(BaseModel):
    """A hold whose content is stored. ``kept_until``: at least until then."""

    id: str
    kept_until: Time


class ContentCount(BaseModel):
    sha256: str
    messages: int


class Writer(BaseModel):
    role: str
    address: str
    messages: int


class RuleCount(BaseModel):
    """A rule that hit. ``purpose``: from the policy that decided."""

    rule: str
    mode: str
    messages: int
    purpose: str | None


class PolicyCount(BaseModel):
    """A policy that decided. ``known``: whether its documents are kept, and this version can read them. ``enforced``: false if it
    only observed."""

    sha256: str
    messages: int
    known: bool
    enforced: bool | None


class IncidentMailing(MailingRow):
    """A mailing as it is now, over its whole time. In a report without names, values that may name a person are null."""

    reverse_path: str | None
    subject: str | None  # type: ignore[assignment]  # without names
    sender: str | None = Field(validation_alias="from", serialization_alias="from")
    approved: dict[str, Any] | None  # type: ignore[assignment]
    rejected: dict[str, Any] | None  # type: ignore[assignment]


class StepRow(BaseModel):
    """An entry of the journal. ``private``: names and addresses, without recipients; null without names, or once
    erased. ``left_out``: how many entries of its kind follow before the next."""

    seq: int
    at: Time
    kind: str
    id: str
    data: dict[str, Any]
    private: dict[str, list[str]] | None
    text: str
    hash: str
    left_out: int


class StatementRow(BaseModel):
    """A sentence of the report. ``mark``: fact, estimate or unknown. ``entries``: numbers of the journal entries that it is based on:
    the first few and the last of ``entries_in_all``."""

    text: str
    mark: Mark
    entries: list[int]
    entries_in_all: int


class PartRow(BaseModel):
    """A section of the report. ``key``: the same in every language."""

    key: str
    title: str
    statements: list[StatementRow]


class IncidentReport(BaseModel):
    """An incident report: who sent what, when, to how many, what happened to it and who decided. A message with several outcomes is in
    several ``ends``, each with its people. ``copies``: made by a list server of these messages, whose people include theirs.
    ``shown``: the most addresses in To and Cc of one message that went out, which all its recipients can read; null if no more than
    one is on record. ``again``: how many retries of held messages there were. ``undelivered``: how many recipients of approved
    messages the relay refused. ``parts``: how many messages colleagues got while the customers' part was held. ``erased``: how many
    messages have erased names. ``unsettled``: ids of messages of which it is unknown whether the relay took them. ``proof``: null
    if none was asked for."""

    about: list[str]
    made_at: Time
    journal: JournalHead
    proof: Verified | None
    first_at: Time
    last_at: Time
    went_first_at: Time | None = Field(
        description="when the relay accepted the first message; null if it accepted none"
    )
    went_last_at: Time | None = Field(description="when the relay accepted the last message; null if it accepted none")
    messages: int
    again: int
    refused: list[RefusedCount] = Field(
        description="recipients that the relay refused at RCPT: no message was sent to them"
    )
    reached: Sum
    open: Sum
    perhaps: PeopleCount = Field(
        description="people who may have received it: the delivery of their copies is in doubt"
    )
    unreached: PeopleCount = Field(description="recipients without a copy that is delivered or in doubt")
    ends: list[EndRow]
    shown: int | None
    copies: list[CopyCount]
    undelivered: int
    parts: int
    held: list[HeldContent]
    zone: str | None
    lists: list[ListCount]
    decisions: list[StepRow]
    mailings: list[IncidentMailing]
    writers: list[Writer]
    clients: list[AddressCount]
    subjects: list[TextCount]
    contents: list[ContentCount]
    rules: list[RuleCount]
    policies: list[PolicyCount]
    erased: int
    unsettled: list[str]
    timeline: list[StepRow]
    language: str = Field(description="language of the texts in this report")
    paragraph: list[StatementRow] = Field(description="summary of the incident in sentences")
    sections: list[PartRow] = Field(description="the whole report, in sections")


async def make_report(call: Call) -> Long:
    body: Incident = call.body
    if (body.names or body.senders or body.subject.strip()) and not call.holder.may(Scope.INCIDENT_NAMES):
        raise not_in_scope(Scope.INCIDENT_NAMES)
    query, wrong = query_of(
        call.console.clock.now(),
        ids=body.ids,
        lists=body.lists,
        senders=body.senders,
        subject=body.subject.strip(),
        alone=body.alone,
        since=body.since,
        until=body.until,
    )
    if wrong:
        raise Refusal(422, errors=[Wrong(at=f"body.{name}", problem=problem) for name, problem in wrong.items()])
    if query.empty:
        problem = "give at least one of ids, lists, senders, subject, since, until"
        raise error_at("body", problem)
    by = (call.who.address, call.holder.by)
    try:
        made = await make_once(call.console, query, prove=body.proof, names=body.names, by=by, language="en")
    except Occupied:
        raise Refusal(
            409, "Another report is being made: ask again in a minute.", headers={"retry-after": "60"}
        ) from None
    except NothingFits as error:
        raise Refusal(404, as_sentence(error)) from None
    except TooMany as error:
        raise Refusal(422, as_sentence(error)) from None
    return Long(await asyncio.to_thread(row, made))


async def list_freezes(call: Call) -> Freezes:
    return Freezes.model_validate({"items": await call.console.freezes.active()}, from_attributes=True)


async def set_freeze(call: Call) -> FreezeSet:
    """Set a freeze. A repeated request sets another one: a caller in doubt repeats it, and that must not fail."""
    body: SetFreeze = call.body
    selector = Selector(body.selector)
    made = await call.console.freezes.freeze(
        selector,
        await _checked_value(call, selector, body.value.strip()),
        reason=body.reason,
        by=call.holder.by,
        for_=timedelta(minutes=body.minutes) if body.minutes else None,
    )
    return FreezeSet(
        freeze=FreezeRow.model_validate(made.freeze, from_attributes=True),
        recalled=len(made.recalled),
        past_recall=len(made.past_recall),
        problems=_problems(made.hooks) + ([] if made.counted else [UNCOUNTED]),
    )


async def lift_freeze(call: Call) -> FreezeLifted:
    """Lift a freeze. If two people must agree, the first one's consent is recorded. Two programs of one person count as one
    person."""
    freeze_id = call.path["freeze_id"][:100]
    try:
        hooks = await call.console.freezes.thaw(
            freeze_id,
            by=call.holder.by,
            person=call.who.address,
            addresses_of=call.console.addresses_of,
        )
    except KeyError:
        raise Refusal(404, "There is no such freeze.") from None
    except SecondPersonNeeded:
        return FreezeLifted(id=freeze_id, lifted=False, problems=[])
    return FreezeLifted(id=freeze_id, lifted=True, problems=_problems(hooks))


async def _checked_value(call: Call, selector: Selector, value: str) -> str:
    registry = call.console.in_force.registry
    if selector is Selector.ALL and value:
        raise error_at("body.value", "must be empty if the selector is all")
    if selector is not Selector.ALL and not value:
        raise error_at("body.value", f"is required: the {selector.value} to freeze")
    if selector is Selector.LIST and value not in registry.lists:
        raise error_at("body.value", "the policy has no list of this name")
    if selector is Selector.SENDER:
        try:
            return Address.parse(value).canonical(registry.digester.delimiters)
        except BadAddress:
            raise error_at("body.value", "no address") from None
    if selector is Selector.MAILING:
        try:
            return await call.console.store.mailings.whole_id(value)
        except NoSuch:
            raise error_at("body.value", "there is no mailing of this id") from None
    return value


def _problems(hooks: tuple[Hook, ...]) -> list[str]:
    return [f"{hook.program}: {hook.problem}" for hook in hooks if hook.problem]


OPERATIONS = (
    Operation(method="GET", path="/freezes", name="listFreezes", summary="List the freezes in force",
              scope=Scope.FREEZES_READ, answers=Freezes, do=list_freezes),
    Operation(method="POST", path="/freezes", name="freeze", summary="Freeze everything, a list, a sender, a mailing or a thread",
              scope=Scope.FREEZES_SET, body=SetFreeze, answers=FreezeSet, do=set_freeze),
    Operation(method="DELETE", path="/freezes/{freeze_id}", name="liftFreeze", summary="Lift a freeze",
              scope=Scope.FREEZES_LIFT, answers=FreezeLifted, do=lift_freeze, refuses=(404,)),
    Operation(method="POST", path="/incident/report", name="reportIncident", summary="Make an incident report with the proof that the journal is whole; a report with names is journalled",
              scope=Scope.INCIDENT_READ, more=(Scope.INCIDENT_NAMES,), body=Incident, answers=IncidentReport, do=make_report, refuses=(404, 409)),
)  # fmt: skip
