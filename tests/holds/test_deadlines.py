"""Reminders come in working hours, at shares of the working time that is left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.guard.inforce import InForce
from smtpguard.holds.deadlines import REMINDERS, Deadlines, deliver_by
from smtpguard.holds.model import Hold
from smtpguard.mail.message import parse_header
from smtpguard.policy.hours import Hours, parse_days

STOCKHOLM = ZoneInfo("Europe/Stockholm")
OFFICE = Hours(days=parse_days("mon-fri"), opens=time(8), closes=time(18), zone=STOCKHOLM)


@dataclass(frozen=True)
class FakeHold:
    waits_since: datetime
    until: datetime


@dataclass(frozen=True)
class FakePolicy:
    hours: Hours


def reminders(term: Deadlines, hours: Hours, since: datetime, header: bytes = b"") -> tuple[list[datetime], datetime]:
    in_force = cast(InForce, FakePolicy(hours))
    end = term.expires_at(deliver_by(parse_header(header), since), in_force, since)
    hold = cast(Hold, FakeHold(since, end))
    return [term.reminder_at(hold, percent, in_force) for percent in REMINDERS], end


kept = st.builds(
    lambda days, opens, length, zone: Hours(
        days=days, opens=time(opens), closes=time((opens + length) % 24), zone=ZoneInfo(zone)
    ),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 15),
    st.integers(1, 8),
    st.sampled_from(["Europe/Stockholm", "America/New_York", "Pacific/Apia", "UTC"]),
)
moments = st.datetimes(datetime(2025, 1, 1), datetime(2029, 1, 1)).map(lambda d: d.replace(tzinfo=UTC))


@settings(max_examples=100, deadline=None)
@given(kept, moments, st.integers(60, 100 * 3600))
def test_reminders_are_in_order_in_working_hours_and_before_the_end(
    hours: Hours, since: datetime, seconds: int
) -> None:
    told, end = reminders(Deadlines(seconds=seconds), hours, since)
    assert all(hours.open_at(at) for at in told)
    assert all(a <= b for a, b in pairwise((since, *told, end)))
    assert told[-1] < end


@settings(max_examples=100, deadline=None)
@given(kept, moments, st.integers(1, 100 * 3600))
def test_reminders_are_at_shares_of_the_working_time(hours: Hours, since: datetime, seconds: int) -> None:
    told, end = reminders(Deadlines(seconds=seconds), hours, since)
    for at, percent in zip(told, REMINDERS, strict=True):
        assert hours.worked(since, at) == hours.worked(since, end) * percent / 100


def test_reminders_skip_the_weekend() -> None:
    """Of eight working hours from Friday 16:00 half are over on Monday at 10:00, not on Sunday morning."""
    told, end = reminders(Deadlines(seconds=8 * 3600), OFFICE, datetime(2026, 3, 6, 16, tzinfo=STOCKHOLM))
    assert end == datetime(2026, 3, 9, 14, tzinfo=STOCKHOLM)
    monday = datetime(2026, 3, 9, tzinfo=STOCKHOLM)
    # a quarter is over at the very end of Friday, so the reminder comes on Monday
    assert told == [monday.replace(hour=8), monday.replace(hour=10), monday.replace(hour=13, minute=12)]


@pytest.mark.parametrize(
    ("term", "header"),
    [
        (Deadlines(seconds=20 * 3600, working=False), b""),
        (Deadlines(), b"Expires: Sun, 8 Mar 2026 16:00:00 +0100\r\n\r\n"),
    ],
    ids=["plain hours", "an Expires field"],
)
def test_without_working_hours_all_time_counts(term: Deadlines, header: bytes) -> None:
    since = datetime(2026, 3, 7, 20, tzinfo=STOCKHOLM)
    told, end = reminders(term, OFFICE, since, header)
    assert end == since + timedelta(hours=20)
    assert told == [since + timedelta(hours=hours) for hours in (5, 10, 18)]
