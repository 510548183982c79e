"""Entries of the outbox, leases, and the outcome of an attempt for each recipient."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from smtpguard.journal.deliverystatus import DeliveryEvent
from smtpguard.mail.address import Address
from smtpguard.mail.codec import Codec
from smtpguard.mail.envelope import Recipient


class IntentKind(enum.Enum):
    RELEASE = "release"  # the held content, to its recipients
    PART = "part"  # the colleagues' part of a message whose customers' part is held
    NOTICE = "notice"  # to people, rendered when sent; data says which
    DSN = "dsn"  # to the reverse-path, null reverse-path


OF_CONTENT = (IntentKind.RELEASE, IntentKind.PART)
LONGEST_ATTEMPT = timedelta(minutes=30)
"""The longest time from the mark before the dot to the relay's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An entry for the outbox. ``content_sha256``: of a RELEASE or PART. ``data`` (JSON): from which a NOTICE or DSN is rendered.

    An ``intent_id`` that is in the outbox already, settled or not, is not written again and is no error. So each person
    gets a digest once, whichever admission and process comes first.
    """

    intent_id: str
    kind: IntentKind
    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    hold_id: str | None = None
    content_sha256: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The number of recipients of a release by final result. ``doubted``: in doubt for good."""

    sent: int = 0
    failed: int = 0
    doubted: int = 0

    def __add__(self, other: Settled) -> Settled:
        return Settled(
            sent=self.sent + other.sent, failed=self.failed + other.failed, doubted=self.doubted + other.doubted
        )


NONE_YET = Settled()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one owner to carry out an entry, for a time. ``token``: grows with every lease, and fences off an owner that
    was too slow. ``recipients``: those that are due. ``attempts``: the number of earlier attempts. ``created_at``: when the entry
    was written. ``doubts``: for each recipient the number of attempts in doubt."""

    token: int
    intent: Intent
    recipients: tuple[Recipient, ...]
    attempts: int
    created_at: datetime
    doubts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """The result of an attempt for one recipient.

    ``reply``: the relay's, in words. ``next_at``: the time of the next attempt if it is put off or in doubt. ``code``: names
    nobody. ``why``: as in Due.failed. ``status``: an enhanced code that is not from a reply (RFC 3463). ``reports``: False if the
    relay has it and sends no DSN of success. ``doubts``: the number of attempts in doubt, with this one; a recipient that is
    refused after any may have it. ``people``: keyed digests of the people behind the recipient; None if not given. ``asks``: it
    is in doubt, and people are asked at ``next_at`` unless the answer has come.
    """

    recipient: Recipient
    event: DeliveryEvent
    reply: str = ""
    next_at: datetime | None = None
    doubts: int = 0
    people: tuple[bytes, ...] | None = None
    asks: bool = False
    code: str = ""
    why: str = ""
    status: str = ""
    reports: bool = True

    @property
    def in_doubt(self) -> bool:
        """Whether the attempt has begun, or has ended without an answer."""
        return self.event in (DeliveryEvent.BEGIN, DeliveryEvent.LOSE)


INTENT = Codec(Intent)
RECIPIENT = Codec(Recipient)
