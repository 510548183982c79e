"""Until when a hold waits: the organisation's working hours, or what the message itself says, whichever is earlier.

Never here: what happens then (approvals).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from smtpguard.guard.inforce import InForce
from smtpguard.mail.message import Header

DELIVER_BY = ("Latest-Delivery-Time", "Deliver-By", "Expires", "Expiry-Date")
"""RFC 2156 section 5.3.4 (Latest-Delivery-Time, Expires, Expiry-Date), and what others write for the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """``working``: only working hours count."""

    seconds: int = 24 * 3600
    working: bool = True

    def expires_at(self, header: Header, in_force: InForce, held_at: datetime) -> datetime:
        """A deliver-by that has passed already says nothing about how long people may think: it is left out."""
        if self.working:
            end = in_force.hours.working_deadline(held_at, timedelta(seconds=self.seconds))
        else:
            end = held_at + timedelta(seconds=self.seconds)
        asked = (_date(field.text) for name in DELIVER_BY for field in header.all(name))
        return min([end, *(at for at in asked if at is not None and at > held_at)])


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text[:100])
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
