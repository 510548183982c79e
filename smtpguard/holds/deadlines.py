"""Compute the times of a hold: expiry, reminders and escalation.

A hold expires at the earlier of two times: after the configured working hours, or at a date that the message itself
names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Hold
from smtpguard.mail.message import Header

REMINDERS = (25, 50, 90)  # percent of the time from hold to expiry
UNACKNOWLEDGED = timedelta(minutes=15)  # longer than any wait for a 250: the client got 451, or has disconnected
DELIVER_BY = ("Latest-Delivery-Time", "Deliver-By", "Expires", "Expiry-Date")
"""RFC 2156 section 5.3.4 (Latest-Delivery-Time, Expires, Expiry-Date), and a common field with the same meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """``working``: only working hours count. ``escalate_after_seconds``: time without any vote before escalation.
    ``release_delay_seconds``: how long a complete approval can be undone before it takes effect (effects.delay).

    For a mailing: ``copies`` that are stored under one hold, above which the client keeps the rest; how long its
    approval covers later copies, and how long later copies of a rejected one are rejected.
    """

    seconds: int = 24 * 3600
    working: bool = True
    escalate_after_seconds: int = 3600
    copies: int = 500
    approval_seconds: int = 7 * 86400
    rejection_seconds: int = 86400
    release_delay_seconds: int = 60

    def expires_at(self, deliver_by: datetime | None, in_force: InForce, since: datetime) -> datetime:
        """``deliver_by``: the date that the message itself names, if any."""
        length = timedelta(seconds=self.seconds)
        end = in_force.hours.working_deadline(since, length) if self.working else since + length
        return min(end, deliver_by) if deliver_by is not None else end

    def anew(self, hold: Hold, in_force: InForce, now: datetime) -> Hold:
        """The hold with a new period for people to decide, as long as that of a new hold."""
        expires_at = self.expires_at(hold.deliver_by, in_force, now)
        again = replace(hold, votes=(), reopened_at=now, expires_at=expires_at, reminded=0, escalated=False)
        return replace(again, attend_at=self.attend_at(again, in_force))

    def asks_others(self, hold: Hold, in_force: InForce, now: datetime) -> Hold:
        """The hold after its writer is no longer asked to confirm: from now on an ordinary hold."""
        confirm = replace(hold.confirm, lapsed_at=now) if hold.confirm is not None else None
        return self.anew(replace(hold, confirm=confirm), in_force, now)

    def attend_at(self, hold: Hold, in_force: InForce) -> datetime:
        """When the sweep must look at it next."""
        times = [hold.expires_at]
        if not hold.acknowledged:
            times.append(hold.waits_since + UNACKNOWLEDGED)
        if hold.confirm is not None and hold.asks_writer:
            return min(*times, hold.confirm.until)
        if hold.reminded < len(REMINDERS):
            times.append(self.reminder_at(hold, REMINDERS[hold.reminded], in_force))
        if not hold.escalated and not hold.votes:
            times.append(self.escalates_at(hold))
        return min(times)

    def escalates_at(self, hold: Hold) -> datetime:
        return hold.waits_since + timedelta(seconds=self.escalate_after_seconds)

    def reminder_at(self, hold: Hold, percent: int, in_force: InForce) -> datetime:
        """When ``percent`` of its time has passed: of the working hours in it, and at a working hour, so that somebody
        is there to read the reminder. If it has no working hours, since the message itself set the date, percent of the
        whole time."""
        since, end, hours = hold.waits_since, hold.expires_at, in_force.hours
        worked = hours.worked(since, end) if self.working else timedelta()
        if not worked:
            return since + (end - since) * percent / 100
        return hours.working_deadline(since, worked * percent / 100, within=True)


def deliver_by(header: Header, now: datetime) -> datetime | None:
    """The earliest date that a message names. A date in the past is ignored."""
    named = (_date(field.text) for name in DELIVER_BY for field in header.all(name))
    return min((at for at in named if at is not None and at > now), default=None)


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text[:100])
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
