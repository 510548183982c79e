"""Entries of the outbox, leases, and the outcome of an attempt for each recipient."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from smtpguard.journal.outcome import DeliveryEvent
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An entry for the outbox. ``content_sha256`` for RELEASE and PART; NOTICE and DSN are rendered from ``data``
    (JSON).

    An ``intent_id`` that is in the outbox already, settled or not, is not written a second time and is no error. So
    each person gets a digest once, whichever admission and process comes first."""

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
    """Recipients of a release by final result. ``doubted``: the relay may have it for them, for good in doubt."""

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
    """An outbox entry that this owner may carry out for a time. ``token`` fences off an owner that was too slow.

    ``recipients`` are those that are due; ``attempts`` counts earlier ones. ``created_at``: when it entered the outbox.
    """

    token: int
    intent: Intent
    recipients: tuple[Recipient, ...]
    attempts: int
    created_at: datetime
    doubts: tuple[int, ...] = ()
    """For each of ``recipients`` the number of attempts with an unknown result; empty if all are 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """The result for one recipient of a lease. ``reply`` is the relay's, in words; ``next_at`` if it is put off or in doubt.
    ``code`` names nobody; ``why``: as in Due.failed. ``status``: an enhanced code that is not from a reply (RFC 3463).
    ``reports``: False if the relay has it and sends no DSN of success.

    ``doubts``: the number of attempts so far with an unknown result; a later lease repeats it. A recipient that is refused
    after any may have it. ``people``: keyed digests of those behind the recipient; None if not given. ``asks``:
    in doubt, and not retried automatically: at ``next_at`` people are asked, unless the answer has come.
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
