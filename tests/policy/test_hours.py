"""Working hours: open or not, deadlines, and the two nights a year when the clock changes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.policy.hours import FARTHEST, MIDNIGHT, Hours, parse_days, parse_time
from tests.every import every

STOCKHOLM = ZoneInfo("Europe/Stockholm")
OFFICE = Hours(days=parse_days("mon-fri"), opens=time(8), closes=time(18), zone=STOCKHOLM)
ALWAYS = Hours(days=parse_days("mon-sun"), opens=time(0), closes=MIDNIGHT, zone=STOCKHOLM)


def at(text: str) -> datetime:
    """Local time in Stockholm."""
    return datetime.fromisoformat(text).replace(tzinfo=STOCKHOLM)


@every(
    ("moment", "open_then"),
    [
        ("2026-01-14T07:59:59", False),  # a Wednesday
        ("2026-01-14T08:00:00", True),
        ("2026-01-14T17:59:59", True),
        ("2026-01-14T18:00:00", False),
        ("2026-01-17T12:00:00", False),  # a Saturday
    ],
)
def test_open_at_each_moment(moment: str, open_then: bool) -> None:
    assert OFFICE.open_at(at(moment)) is open_then
    assert OFFICE.open_at(at(moment).astimezone(UTC)) is open_then


@every(
    ("start", "hours", "deadline"),
    [
        ("2026-01-14T09:00", 4, "2026-01-14T13:00"),
        ("2026-01-14T16:00", 4, "2026-01-15T10:00"),  # over night
        ("2026-01-16T16:00", 4, "2026-01-19T10:00"),  # over a weekend
        ("2026-01-17T12:00", 1, "2026-01-19T09:00"),  # begins on a Saturday
        ("2026-01-14T05:00", 10, "2026-01-14T18:00"),  # a whole day ends at closing time
        ("2026-01-14T16:00", 24, "2026-01-19T10:00"),  # 2 + 10 + 10 + 2
    ],
)
def test_working_deadlines(start: str, hours: int, deadline: str) -> None:
    assert OFFICE.working_deadline(at(start), timedelta(hours=hours)) == at(deadline)


HOLIDAYS = replace(
    OFFICE,
    holidays=frozenset({date(2026, 1, 15), date(2026, 1, 19)}),
    yearly=frozenset({(1, 16), (1, 1)}),
)


@every(
    ("start", "hours", "deadline"),
    [
        ("2026-01-14T09:00", 4, "2026-01-14T13:00"),
        ("2026-01-14T16:00", 4, "2026-01-20T10:00"),  # Thursday to Monday are free
        ("2026-01-15T12:00", 1, "2026-01-20T09:00"),  # begins on a holiday
        ("2027-12-31T17:00", 2, "2028-01-03T09:00"),  # a Friday; New Year's Day is a Saturday
        ("2026-12-31T17:00", 2, "2027-01-04T09:00"),  # a Thursday; New Year's Day is a holiday every year
    ],
)
def test_holidays_are_not_worked(start: str, hours: int, deadline: str) -> None:
    assert HOLIDAYS.working_deadline(at(start), timedelta(hours=hours)) == at(deadline)
    assert HOLIDAYS.worked(at(start), at(deadline)) == timedelta(hours=hours)
    assert not any(HOLIDAYS.open_at(at(f"{day}T12:00")) for day in ("2026-01-15", "2026-01-16", "2029-01-16"))
    assert HOLIDAYS.open_at(at("2026-01-20T12:00"))


def test_a_zero_or_negative_wait_ends_now() -> None:
    start = at("2026-01-17T12:00")
    assert OFFICE.working_deadline(start, timedelta(0)) == start
    assert OFFICE.working_deadline(start, timedelta(hours=-3)) == start


def working_time(kept: Hours, start: datetime, end: datetime) -> timedelta:
    """The working time between two moments, computed in another way than ``working_deadline`` does."""
    spans = itertools.takewhile(lambda span: span[0] < end, kept._spans(start))
    return sum((min(closes, end) - max(opens, start) for opens, closes in spans), timedelta())


def test_nights_of_a_clock_change_have_their_real_length() -> None:
    """Nights when the clock changes have their real length. 28 March 2027: 02:00 becomes 03:00. 31 October 2027: 03:00
    becomes 02:00."""
    spring, autumn = at("2027-03-28T00:00"), at("2027-10-31T00:00")
    assert working_time(ALWAYS, spring, at("2027-03-29T00:00")) == timedelta(hours=23)
    assert working_time(ALWAYS, autumn, at("2027-11-01T00:00")) == timedelta(hours=25)
    assert ALWAYS.working_deadline(autumn, timedelta(hours=5)) == at("2027-10-31T04:00")
    night = Hours(days=parse_days("sun"), opens=time(1), closes=time(5), zone=STOCKHOLM)
    assert working_time(night, spring, spring + timedelta(days=1)) == timedelta(hours=3)
    assert night.working_deadline(autumn, timedelta(hours=5)) == at("2027-10-31T05:00")


def test_a_date_that_does_not_exist_is_worked_once() -> None:
    """Samoa left out 30 December 2011."""
    kept = replace(OFFICE, days=parse_days("mon-sun"), zone=ZoneInfo("Pacific/Apia"))
    morning = datetime(2011, 12, 29, 8, tzinfo=kept.zone)
    assert kept.working_deadline(morning, timedelta(hours=25)) == datetime(2012, 1, 1, 13, tzinfo=kept.zone)


def test_a_deadline_is_at_most_a_hundred_years_away() -> None:
    """However few the working hours are: a message is held, not answered 451."""
    start, leap = at("2026-01-14T09:00"), date(2024, 1, 1)
    days = (leap + timedelta(days=n) for n in range(366))
    never = replace(OFFICE, yearly=frozenset((day.month, day.day) for day in days))
    few = replace(OFFICE, closes=time(8, 1), days=parse_days("mon"))
    for kept in (few, never):
        assert kept.working_deadline(start, timedelta(hours=100_000)) == start + FARTHEST
    assert never.working_deadline(start, timedelta(0), within=True) == start + FARTHEST


moments = st.datetimes(datetime(2025, 1, 1), datetime(2029, 1, 1)).map(lambda d: d.replace(tzinfo=UTC))
lengths = st.timedeltas(timedelta(0), timedelta(hours=200))
hours = st.builds(
    lambda days, opens, minutes, zone: Hours(
        days=days, opens=time(opens), closes=time((opens + minutes) % 24), zone=ZoneInfo(zone)
    ),
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 22),
    st.just(1) | st.just(2),
    st.sampled_from(["Europe/Stockholm", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "UTC"]),
)


@settings(max_examples=60, deadline=None)
@given(hours, moments, lengths)
def test_a_deadline_is_exactly_the_working_time_away(kept: Hours, start: datetime, length: timedelta) -> None:
    deadline = kept.working_deadline(start, length)
    assert deadline >= start
    assert working_time(kept, start, deadline) == length
    if length:
        assert kept.open_at(deadline - timedelta(microseconds=1))


@settings(max_examples=60, deadline=None)
@given(hours, moments, lengths, lengths)
def test_a_longer_wait_never_ends_earlier(kept: Hours, start: datetime, one: timedelta, two: timedelta) -> None:
    first, second = sorted((one, two))
    assert kept.working_deadline(start, first) <= kept.working_deadline(start, second)


@every(
    ("text", "days"),
    [
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("mon, wed,sat-sun", {0, 2, 5, 6}),
        ("sat-mon", {5, 6, 0}),
        ("Monday-Tuesday", {0, 1}),
        ("thurs", {3}),
    ],
)
def test_days_are_parsed(text: str, days: set[int]) -> None:
    assert parse_days(text) == days


@every("text", ["", "m", "mo-fr", "monx", "mon-tue-wed", "mon;tue", "weekdays"])
def test_invalid_days_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_days(text)


@every("text", ["", "8", "08", "8.00", "25:00", "08:60", "08:0", "-1:00", "08:00:00", "²3:00"])
def test_invalid_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


def test_times_are_parsed() -> None:
    assert (parse_time("8:00"), parse_time("08:30"), parse_time("24:00")) == (time(8), time(8, 30), MIDNIGHT)


def test_hours_without_length_are_refused() -> None:
    for days, opens, closes in (
        (frozenset(), time(8), time(18)),
        (frozenset({0}), time(18), time(8)),
        (frozenset({0}), time(8), time(8)),
    ):
        with pytest.raises(ValueError):
            Hours(days=days, opens=opens, closes=closes, zone=UTC)
