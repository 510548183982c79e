"""API operations that look something up, with their JSON models: the caller's account, lists, the policy in force, what it would
decide about a message, and the proof of the journal."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from smtpguard.accounts.model import Scope
from smtpguard.console.api.operation import (
    MOST_MESSAGE,
    ByValue,
    Call,
    Operation,
    OrNone,
    Refusal,
    Sent,
    Time,
    Wrong,
    error_at,
)
from smtpguard.journal.chain import instant
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.fields import mailboxes
from smtpguard.mail.message import Message, with_crlf
from smtpguard.notices import noticedata

MOST_OCTETS = 50 << 20
"""The most octets of a message."""
Moment = Annotated[Time, BeforeValidator(instant)]
"""Take microseconds, as the journal has times."""
IfAny = Annotated[int | None, OrNone]


class ReasonRow(BaseModel):
    rule: str
    description: str
    sentences: list[str]

    @model_validator(mode="before")
    @classmethod
    def _in_english(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Take the description in English, as the sentences are, if the rule has one."""
        return values | {"description": values["descriptions"].get("en", values["description"])}


class ListRow(BaseModel):
    name: str
    title: str
    audience: str
    sensitivity: str | None
    category: str | None
    people: int | None
    checked_at: Time | None
    state: str
    problem: str | None


class Lists(BaseModel):
    items: list[ListRow]


class PolicyRule(BaseModel):
    id: str = Field(validation_alias="rule_id")
    action: Annotated[str, BeforeValidator(lambda action: action.word)] = Field(validation_alias="then")
    mode: Annotated[str, ByValue]
    description: str


class PolicyShown(BaseModel):
    sha256: str
    enforce: bool
    rules: list[PolicyRule]
    groups: dict[str, int] = Field(description="number of people in each group")


class Explain(Sent):
    """A message to be explained. ``message``: a whole message (RFC 5322) as text; ``message_base64`` if it is not UTF-8. ``sender``:
    the reverse-path, "" for the null one; by default the message's From. Nothing is sent or stored."""

    message: str = ""
    message_base64: str = ""
    sender: Annotated[str, Field(max_length=320)] | None = None
    recipients: Annotated[list[str], Field(min_length=1, max_length=1000)]


class Explained(BaseModel):
    action: Literal["relay", "confirm", "hold", "defer", "reject"]
    looks: str
    reasons: list[ReasonRow]
    marks: list[str]
    unknown: dict[str, str]
    reach: int
    lists: list[str]
    policy_sha256: str


class FirstBad(BaseModel):
    seq: int
    problem: str


class Lost(BaseModel):
    """Entry ``seq`` says that the store was rolled back: entries up to ``through``, signed after ``since`` and until
    ``signed_at``, are not in it. ``through`` 0: it is not known which."""

    seq: int
    at: Moment
    through: int
    signed_at: Moment
    since: Moment | None


class Unsigned(BaseModel):
    """The entries without a checkpoint, from ``first`` to ``last``, with the times of these two."""

    first: int
    last: int
    since: Moment
    until: Moment


class Backwards(BaseModel):
    """An entry that is older than one before it, and how many such entries follow each other."""

    seq: int
    at: Moment
    before: Moment
    entries: int


class Beside(BaseModel):
    """Data that the store has beside the journal, and that disagrees with it."""

    about: str
    id: str
    problem: str


class Witnessed(BaseModel):
    """The last entry of which a witness has a checkpoint, and when that was signed."""

    seq: int
    signed_at: Moment


def _witnessed(given: tuple[int, int] | None) -> object:
    return given and {"seq": given[0], "signed_at": given[1]}


class Verified(BaseModel):  # made from the attributes of journal.proof.Proof
    ok: bool
    entries: int
    first_bad: FirstBad | None
    lost: list[Lost]
    renewed: IfAny = Field(
        description="The entry that put the present secret in force; null if it is the first secret."
    )
    others: list[str] = Field(description="Other journals with checkpoints in the state folder.")
    unreadable: int
    filed: bool = Field(
        description="Whether the file of checkpoints has one of this journal; without it, a missing end of the journal cannot be detected."
    )
    witnessed: Annotated[Witnessed | None, BeforeValidator(_witnessed)] = Field(
        description="Null if there is no witness: then root on this host could rewrite the whole journal undetected."
    )
    trimmed: IfAny = Field(description="The last entry that retention has deleted; null if none.")
    unsigned: list[Unsigned]
    backwards: list[Backwards]
    beside: list[Beside]


class Me(BaseModel):
    """The account that this token acts as, and what it may do."""

    address: str
    name: str
    roles: list[str]
    token: str
    scopes: list[str] = Field(description="the scopes that the account's roles allow")
    expires_at: Time


async def show_me(call: Call) -> Me:
    holder = call.holder
    return Me(
        address=holder.account.address,
        name=holder.account.name,
        roles=[role.value for role in holder.account.roles],
        token=holder.token.token_id,
        scopes=[scope.value for scope in holder.token.scopes if holder.may(scope)],
        expires_at=holder.token.expires_at,
    )


async def show_lists(call: Call) -> Lists:
    registry = call.console.in_force.registry
    await asyncio.to_thread(registry.reopen)
    rows = [
        ListRow(
            name=name, title=info.called, audience=info.audience, sensitivity=info.sensitivity,
            category=info.category, people=status.people, checked_at=status.checked_at, state=status.state.value,
            problem=status.why or None,
        )
        for name, info in registry.lists.items()
        for status in [registry.statuses[name]]
    ]  # fmt: skip
    return Lists(items=rows)


async def show_policy(call: Call) -> PolicyShown:
    in_force = call.console.in_force
    purposes = in_force.rules.purposes()
    shown = {
        "sha256": in_force.sha256,
        "enforce": in_force.enforce,
        "rules": [replace(rule, description=purposes[rule.rule_id]) for rule in in_force.rules.rules],
        "groups": {name: len(people) for name, people in in_force.groups.items()},
    }
    return PolicyShown.model_validate(shown, from_attributes=True)


async def verify_journal(call: Call) -> Verified:
    """Verify the whole journal. One caller does it at a time, since it may take a while."""
    running = call.services.verifying
    if running.locked():
        raise Refusal(409, "The journal is being verified already: ask again later.")
    async with running:
        proof = await call.services.verify()
    return Verified.model_validate(proof, from_attributes=True)


async def explain(call: Call) -> Explained:
    body: Explain = call.body
    message = Message.of(octets_of(body.message, body.message_base64))
    wrong: list[Wrong] = []
    sender = _address(body.sender, "body.sender", wrong) if body.sender else None
    if body.sender is None:
        sender = next(iter(mailboxes(message.header, "From")), None)
    recipients = [_address(text, f"body.recipients.{n}", wrong) for n, text in enumerate(body.recipients)]
    if wrong:
        raise Refusal(422, errors=wrong)
    found = await call.console.explain(message, sender, [a for a in recipients if a is not None])
    in_force = call.console.in_force
    values = {
        "action": found.verdict.action.word,
        "looks": found.reading.looks.value,
        "reasons": noticedata.enforced_reasons(found.verdict, in_force),
        "marks": [mark.evidence for mark in found.reading.marks],
        "unknown": dict(found.verdict.unknown),
        "reach": int(found.recipients.reach.low),
        "lists": sorted(found.recipients.lists),
        "policy_sha256": in_force.sha256,
    }
    return Explained.model_validate(values)


def octets_of(text: str, encoded: str) -> bytes:
    """Return the message, given in either encoding, with CRLF. Raises Refusal."""
    if bool(text) == bool(encoded):
        raise error_at("body.message", "give either message or message_base64")
    if text:
        raw = text.encode()
    else:
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise error_at("body.message_base64", "not base64") from None
    if len(raw) > MOST_OCTETS:
        raise Refusal(413, f"The message may have at most {MOST_OCTETS} octets.")
    return with_crlf(raw)


def _address(text: str, at: str, wrong: list[Wrong]) -> Address | None:
    try:
        return Address.parse(text.strip())
    except BadAddress as bad:
        wrong.append(Wrong(at=at, problem=str(bad)))
        return None


OPERATIONS = (
    Operation(method="GET", path="/me", name="showMe", summary="Show the token's account and scopes",
              scope=None, answers=Me, do=show_me),
    Operation(method="GET", path="/lists", name="showLists", summary="List the customer lists with the number of people and the age of each index",
              scope=Scope.LISTS_READ, answers=Lists, do=show_lists),
    Operation(method="GET", path="/policy", name="showPolicy", summary="Show the rules in force",
              scope=Scope.POLICY_READ, answers=PolicyShown, do=show_policy),
    Operation(method="GET", path="/audit/verify", name="verifyJournal", summary="Verify that no journal entry was edited, removed or inserted",
              scope=Scope.AUDIT_READ, answers=Verified, do=verify_journal, refuses=(409,)),
    Operation(method="POST", path="/policy/explain", name="explain", summary="Say what the policy would decide about a message, and why; nothing is sent",
              scope=Scope.POLICY_READ, body=Explain, answers=Explained, do=explain, most_body=MOST_MESSAGE),
)  # fmt: skip
