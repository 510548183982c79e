"""A hold, the votes on it, and what may become of it: one transition table.

Never here: who is in a group today (parse), storing a vote (store), telling anybody (guard).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from smtpguard.mail.envelope import Envelope, Session
from smtpguard.policy.verdict import Verdict


class State(enum.Enum):
    WAITING = "waiting"
    APPROVED = "approved"  # the release is in the outbox
    RELEASING = "releasing"  # at least one attempt was made
    RELEASED = "released"  # every recipient is settled
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    VOID = "void"  # the client was answered 451: it has the message still


class Choice(enum.Enum):
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """``content_sha256`` and ``envelope_sha256``: what was voted on; a vote on anything else does not count."""

    approver: str  # canonical address
    choice: Choice
    content_sha256: str
    envelope_sha256: str
    at: datetime
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One held message. ``sender`` is who is told (None: nobody would hear). ``senders``: every address of its writer.

    ``acknowledged``: the client was answered 250; until then nobody can release it. ``reach``: people it would have reached.
    """

    hold_id: str
    mailing_id: str
    session: Session
    envelope: Envelope
    content_sha256: str
    size_bytes: int
    subject: str
    message_id: str
    verdict: Verdict
    state: State
    votes: tuple[Vote, ...]
    held_at: datetime
    expires_at: datetime
    sender: str | None
    senders: frozenset[str]
    lists: tuple[str, ...]
    reach: int
    acknowledged: bool = False
    language: str = ""
    reminded: int = 0  # how many reminders its approvers have had
    escalated: bool = False
