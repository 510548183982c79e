"""How far a clock is believed."""

from __future__ import annotations

from copy import copy
from datetime import timedelta

import pytest

from smtpguard.journal.clock import SteadyClock
from tests.clocks import MONDAY, Clock

FAR = timedelta(days=800)


def test_what_began_after_a_jump_ends_by_the_clock_that_it_has() -> None:
    clock = Clock()
    steady = SteadyClock(clock)
    clock.at += FAR
    assert (steady.passed(), steady.ahead) == (MONDAY, FAR)
    hour = timedelta(hours=1)
    assert not steady.has_come(MONDAY + hour, since=MONDAY)
    assert not steady.has_come(clock.at + hour, since=clock.at)
    clock.pass_(hours=1)
    assert steady.has_come(MONDAY + hour, since=MONDAY)
    assert steady.has_come(clock.at, since=clock.at - hour)


@pytest.mark.parametrize("minutes", [10, 50, 20 * 60, 800 * 24 * 60])
def test_what_began_after_any_jump_ends_in_time(minutes: int) -> None:
    clock = Clock()
    steady = SteadyClock(clock)
    clock.at += timedelta(minutes=minutes)
    steady.watch()
    clock.pass_(seconds=2)
    since, until = clock.at, clock.at + timedelta(hours=1)
    clock.pass_(minutes=59)
    assert not steady.has_come(until, since)
    clock.pass_(minutes=1)
    assert steady.has_come(until, since)


def test_a_machine_that_is_paused_each_night_is_no_more_than_a_day_late() -> None:
    """Its clock jumps within the day of the jump before."""
    clock = Clock()
    steady = SteadyClock(clock)
    for _ in range(30):
        clock.pass_(hours=14)
        clock.at += timedelta(hours=10)
        assert steady.passed() >= clock.at - timedelta(days=1)
        assert not steady.jumped


def test_the_day_of_doubt_begins_once(caplog: pytest.LogCaptureFixture) -> None:
    """A part that is started again has a copy."""
    clock = Clock()
    steady = SteadyClock(clock)
    clock.at += FAR
    steady.watch()
    assert not caplog.messages
    clock.pass_(hours=20)
    part = copy(steady)
    assert part.passed() == MONDAY + timedelta(hours=20)
    clock.pass_(hours=4)
    assert not part.jumped
    assert part.passed() == clock.at


def test_a_start_doubts_for_the_rest_of_the_day() -> None:
    clock = Clock(at=MONDAY + FAR)
    for known, since, hours in ((MONDAY, None, 24), (MONDAY, 20, 4), (MONDAY, -5, 24)):
        steady = SteadyClock(clock)
        steady.learn(known, clock.at - timedelta(hours=since) if since is not None else None)
        assert steady.jumped, (known, since)
        assert steady.passed() == known + timedelta(hours=24 - hours)
        clock.pass_(hours=hours - 0.01)
        assert steady.jumped, (known, since)
        clock.pass_(hours=0.01)
        assert not steady.jumped, (known, since)
    for newest in (clock.at - timedelta(days=7), None):
        steady = SteadyClock(clock)
        steady.learn(newest, None)
        assert not steady.jumped


def test_hosts_with_one_database_server_go_by_its_clock() -> None:
    for minutes in (-4, 0, 4):
        clock = Clock(MONDAY + timedelta(minutes=minutes))
        steady = SteadyClock(clock)
        steady.server_said(MONDAY, asked=clock.ticks)
        assert steady.now() == MONDAY
        clock.at += timedelta(minutes=3)  # set by hand
        assert (steady.now(), steady.passed()) == (MONDAY, MONDAY)
        clock.pass_(hours=1)
        assert (steady.now(), steady.passed()) == (MONDAY + timedelta(hours=1), MONDAY + timedelta(hours=1))


def test_the_delay_of_the_servers_answer_is_no_difference() -> None:
    clock = Clock()
    steady = SteadyClock(clock)
    asked, said = clock.ticks, clock.at + timedelta(seconds=5)
    clock.pass_(seconds=20)
    for later in (0, 20):  # the answer took up to 20 seconds, before or after the server looked at its clock
        steady.server_said(said - timedelta(seconds=5) + timedelta(seconds=later), asked)
        assert steady.now() == clock.at
    steady.server_said(clock.at + timedelta(seconds=1), asked)
    assert steady.now() == clock.at + timedelta(seconds=1)


def test_a_server_whose_clock_differs_by_more_than_a_jump_is_not_followed() -> None:
    for difference in (-FAR, FAR):
        clock = Clock()
        steady = SteadyClock(clock)
        steady.server_said(clock.at + difference, asked=clock.ticks)
        assert steady.now() == clock.at
