"""The times until which people can decide on a held message, and at which they are reminded. Pure.

A hold expires at the earlier of two times: after the configured working hours, or at a date that the message itself
names. It has the first only after the last reminder: if that is late, as when a clock was wrong or nothing ran, people
have the rest of its time from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import Hold
from smtpguard.journal.clock import JUMP
from smtpguard.mail.message import Header

REMINDERS = (25, 50, 90)
"""When people are reminded, in percent of the time from hold to expiry."""
UNACKNOWLEDGED = timedelta(minutes=15)
"""The time after which a hold without a 250 is void. It is longer than any wait for a 250: the client got 451, or has
disconnected."""
DELIVER_BY = ("Latest-Delivery-Time", "Deliver-By", "Expires", "Expiry-Date")
"""The fields that name the date: those of RFC 2156 section 5.3.4 (Latest-Delivery-Time, Expires, Expiry-Date), and a
common field with the same meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The times of the setting ``hold``. ``seconds``: the time from hold to expiry; ``working``: only working hours
    count. ``escalate_after_seconds``: the time without any vote before escalation. ``release_delay_seconds``: how long
    a complete approval can be undone before it takes effect (effects.delay).

    ``copies``: the most copies of a mailing that are stored under one hold; the client keeps the rest.
    ``approval_seconds``: how long an approval covers later copies. ``rejection_seconds``: how long later copies of a
    rejected mailing are rejected.
    """

    seconds: int = 24 * 3600
    working: bool = True
    escalate_after_seconds: int = 3600
    copies: int = 500
    approval_seconds: int = 7 * 86400
    rejection_seconds: int = 86400
    release_delay_seconds: int = 60

    def expires_at(self, deliver_by: datetime | None, in_force: InForce, since: datetime) -> datetime:
        """Return when a hold expires that waits since ``since``. ``deliver_by``: the date that the message itself
        names, if any."""
        length = timedelta(seconds=self.seconds)
        end = in_force.hours.working_deadline(since, length) if self.working else since + length
        return min(end, deliver_by) if deliver_by is not None else end

    def anew(self, hold: Hold, in_force: InForce, now: datetime) -> Hold:
        """Return the hold with a new period for people to decide, as long as that of a new hold."""
        expires_at = self.expires_at(hold.deliver_by, in_force, now)
        again = replace(hold.in_next_turn(now), votes=(), expires_at=expires_at, reminded=0, escalated=False)
        return replace(again, attend_at=self.attend_at(again, in_force))

    def asks_others(self, hold: Hold, in_force: InForce, now: datetime) -> Hold:
        """Return the hold after its writer is no longer asked to confirm. From now on it is an ordinary hold."""
        confirm = replace(hold.confirm, lapsed_at=now) if hold.confirm is not None else None
        return self.anew(replace(hold, confirm=confirm), in_force, now)

    def attend_at(self, hold: Hold, in_force: InForce) -> datetime:
        """Return when the sweep must look at a hold next."""
        times = [hold.expires_at]
        if not hold.acknowledged:
            times.append(hold.waits_since + UNACKNOWLEDGED)
        if (asked := hold.question) is not None:
            last = asked.expires and not hold.reminded
            return min(*times, self.last_reminder_at(hold, in_force) if last else asked.until)
        if hold.reminded < len(REMINDERS):
            times.append(self.reminder_at(hold, REMINDERS[hold.reminded], in_force))
        if not hold.escalated and not hold.votes:
            times.append(self.escalates_at(hold))
        return min(times)

    def escalates_at(self, hold: Hold) -> datetime:
        return hold.waits_since + timedelta(seconds=self.escalate_after_seconds)

    def reminder_at(self, hold: Hold, percent: int, in_force: InForce) -> datetime:
        """Return when ``percent`` of a hold's time has passed: at a working hour, so that somebody is there to read the
        reminder."""
        return self._after(hold, percent, in_force, hold.waits_since, within=True)

    def last_reminder_at(self, hold: Hold, in_force: InForce) -> datetime:
        return self.reminder_at(hold, REMINDERS[-1], in_force)

    def reminded(self, hold: Hold, in_force: InForce, now: datetime) -> Hold:
        """Return the hold whose last reminder goes out now. If that is late, it has the rest of its time from now
        on."""
        at = self.last_reminder_at(hold, in_force)
        if now - at <= min(JUMP, (hold.until - at) / 2):
            return hold
        until = max(hold.until, self._after(hold, 100 - REMINDERS[-1], in_force, now))
        return replace(hold, expires_at=min(until, hold.deliver_by) if hold.deliver_by is not None else until)

    def _after(self, hold: Hold, percent: int, in_force: InForce, start: datetime, *, within: bool = False) -> datetime:
        """Return when ``percent`` of a hold's time has passed since ``start``: of the working hours in it. If it has
        none, since the message itself set the date, of the whole time."""
        since, end, hours = hold.waits_since, hold.until, in_force.hours
        worked = hours.worked(since, end) if self.working else timedelta()
        if not worked:
            return start + (end - since) * percent / 100
        return hours.working_deadline(start, worked * percent / 100, within=within)


def is_over(hold: Hold, now: datetime) -> bool:
    """Return whether nobody can release a hold any more, if it waits."""
    named = hold.deliver_by is not None and now >= hold.deliver_by
    return named or (now >= hold.until and hold.reminded == len(REMINDERS))


def deliver_by(header: Header, now: datetime) -> datetime | None:
    """Return the earliest date by which a message says that it must be delivered. A date in the past is ignored."""
    named = (_date(field.text) for name in DELIVER_BY for field in header.all(name))
    return min((at for at in named if at is not None and at > now), default=None)


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text[:100])
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
