"""API operations that look things up: the caller's account, lists, the policy in force and what it would decide about a
message, and verification of the journal."""

from __future__ import annotations

import asyncio
import base64
import binascii

from smtpguard.accounts.model import Scope
from smtpguard.console.api.entry import MOST_MESSAGE, Call, Operation, Refusal, Wrong, error_at
from smtpguard.console.api.models import (
    Explain,
    Explained,
    ListRow,
    Lists,
    Me,
    PolicyShown,
    Verified,
)
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.mailboxes import mailboxes
from smtpguard.mail.message import Message, with_crlf
from smtpguard.notices import noticedata


async def me(call: Call) -> Me:
    holder = call.holder
    return Me(
        address=holder.account.address,
        name=holder.account.name,
        roles=[role.value for role in holder.account.roles],
        token=holder.token.token_id,
        scopes=[scope.value for scope in holder.token.scopes if holder.may(scope)],
        expires_at=holder.token.expires_at,
    )


async def lists(call: Call) -> Lists:
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


async def policy(call: Call) -> PolicyShown:
    in_force = call.console.in_force
    shown = {
        "sha256": in_force.policy_sha256,
        "enforce": in_force.enforce,
        "rules": in_force.rules.rules,
        "groups": {name: len(people) for name, people in in_force.groups.items()},
    }
    return PolicyShown.model_validate(shown, from_attributes=True)


async def verify(call: Call) -> Verified:
    """Walks the whole journal: one at a time, since it may take a while."""
    running = call.services.verifying
    if running.locked():
        raise Refusal(409, "The journal is being verified already: ask again later.")
    async with running:
        proof = await call.services.verify()
    return Verified.model_validate(proof, from_attributes=True)


MOST_OCTETS = 50 << 20


async def explain(call: Call) -> Explained:
    body: Explain = call.body
    message = Message.of(raw_of(body.message, body.message_base64))
    wrong: list[Wrong] = []
    sender = _address(body.sender, "body.sender", wrong) if body.sender else None
    if body.sender is None:
        sender = next(iter(mailboxes(message.header, "From")), None)
    recipients = [_address(text, f"body.recipients.{n}", wrong) for n, text in enumerate(body.recipients)]
    if wrong:
        raise Refusal(422, errors=wrong)
    found = await call.console.explain(message, sender, [a for a in recipients if a is not None])
    in_force = call.console.in_force
    told = {
        "action": found.verdict.action.word,
        "looks": found.reading.looks.value,
        "reasons": noticedata.enforced(found.verdict, in_force),
        "marks": [mark.evidence for mark in found.reading.marks],
        "unknown": dict(found.verdict.unknown),
        "reach": int(found.recipients.reach.low),
        "lists": sorted(found.recipients.lists),
        "policy_sha256": in_force.policy_sha256,
    }
    return Explained.model_validate(told)


def raw_of(text: str, encoded: str) -> bytes:
    """The message in either encoding. Raises Refusal."""
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
              scope=None, answers=Me, do=me),
    Operation(method="GET", path="/lists", name="showLists", summary="List the customer lists with the number of people and the age of each index",
              scope=Scope.LISTS_READ, answers=Lists, do=lists),
    Operation(method="GET", path="/policy", name="showPolicy", summary="Show the rules in force",
              scope=Scope.POLICY_READ, answers=PolicyShown, do=policy),
    Operation(method="GET", path="/audit/verify", name="verifyJournal", summary="Verify that no journal entry was edited, removed or inserted",
              scope=Scope.AUDIT_READ, answers=Verified, do=verify, refuses=(409,)),
    Operation(method="POST", path="/policy/explain", name="explain", summary="Say what the policy would decide about a message, and why; nothing is sent",
              scope=Scope.POLICY_READ, body=Explain, answers=Explained, do=explain, most_body=MOST_MESSAGE),
)  # fmt: skip
