"""A mailing shown: its bar, the rate of the moment, and nothing in it that steers a terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.cli.mailingshown import Follower, bar, table, told
from smtpguard.policy.mailing import Mailing, Tally
from tests.guard.house import MONDAY


def mailing(**more: Any) -> Mailing:
    return replace(Mailing(mailing_id="ABC", first_at=MONDAY, last_at=MONDAY + timedelta(minutes=2)), **more)


@pytest.mark.parametrize(
    ("people", "drawn"),
    [
        (Tally(), "          "),
        (Tally(relayed=10), "##########"),
        (Tally(relayed=5, admitted=1, doubted=1, held=1, deferred=1, refused=1), "#####>?=-x"),
        (Tally(admitted=10), ">>>>>>>>>>"),
        (Tally(stopped=10), "xxxxxxxxxx"),
        (Tally(relayed=399_999, held=1), "##########"),
        (Tally(held=3), "=========="),
    ],
)
def test_the_bar(people: Tally, drawn: str) -> None:
    assert bar(mailing(people=people), 10).startswith(f"[{drawn}]")


def test_the_rate_of_the_moment() -> None:
    ticks = iter([0.0, 1.0, 2.0])
    follower = Follower(lambda: next(ticks))
    assert "; 0 a minute;" in follower.line(mailing(people=Tally(relayed=100)))
    assert "; 600 a minute;" in follower.line(mailing(people=Tally(relayed=110)))
    assert "; 1,500 a minute;" in follower.line(mailing(people=Tally(relayed=150)))


def test_what_came_in_a_message_steers_no_terminal() -> None:
    bad = mailing(subject="\x1b[2JSpring\n", people=Tally(relayed=1))
    assert not any("\x1b" in line for line in (*table([bad]), *told(bad, MONDAY)))
