"""The API operation that tries a message against the policy in force. Nothing is sent, kept, counted or journalled."""

from __future__ import annotations

import base64
import binascii

from smtpguard.accounts.model import Scope
from smtpguard.console.api.entry import MOST_MESSAGE, Call, Operation
from smtpguard.console.api.models import Explain, Explained, ReasonRow
from smtpguard.console.api.problems import Refusal, Wrong
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.mailboxes import mailboxes
from smtpguard.mail.message import Message
from smtpguard.notices import noticedata

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
    found = await call.desk.trial.explain(message, sender, [a for a in recipients if a is not None])
    in_force = call.desk.policies.current()
    return Explained(
        action=found.verdict.action.word,  # type: ignore[arg-type]  # pydantic compares it
        looks=found.reading.looks.value,
        reasons=[
            ReasonRow(rule=each["rule"], description=each["description"] or "", sentences=each["sentences"])
            for each in noticedata.enforced(found.verdict, in_force)
        ],
        marks=[mark.evidence for mark in found.reading.marks],
        unknown=dict(found.verdict.unknown),
        reach=int(found.recipients.reach.low),
        lists=sorted(found.recipients.lists),
        policy_sha256=in_force.policy_sha256,
    )


def raw_of(text: str, encoded: str) -> bytes:
    """The message in either encoding. Raises Refusal."""
    if bool(text) == bool(encoded):
        raise Refusal(422, errors=[Wrong(at="body.message", problem="give either message or message_base64")])
    if text:
        raw = text.encode()
    else:
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(422, errors=[Wrong(at="body.message_base64", problem="not base64")]) from None
    if len(raw) > MOST_OCTETS:
        raise Refusal(413, f"The message may have at most {MOST_OCTETS} octets.")
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # lines in JSON end as in files, in mail with CRLF


def _address(text: str, at: str, wrong: list[Wrong]) -> Address | None:
    try:
        return Address.parse(text.strip())
    except BadAddress as bad:
        wrong.append(Wrong(at=at, problem=str(bad)))
        return None


OPERATIONS = (
    Operation(method="POST", path="/policy/explain", name="explain", summary="Say what the policy would decide about a message, and why; nothing is sent",
              scope=Scope.POLICY_READ, body=Explain, answers=Explained, do=explain, most_body=MOST_MESSAGE),
)  # fmt: skip
