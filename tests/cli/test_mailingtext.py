"""The display of a mailing: its bar, its current rate, and no control characters for the terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from smtpguard.cli.mailingtext import Follower, bar, table, told
from smtpguard.mailings.model import Mailing, Tally
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
def test_the_bar_shows_shares(people: Tally, drawn: str) -> None:
    assert bar(mailing(people=people), 10).startswith(f"[{drawn}]")


def test_the_current_rate_is_shown() -> None:
    ticks = iter([0.0, 1.0, 2.0])
    follower = Follower(lambda: next(ticks))
    assert "; 0 a minute;" in follower.line(mailing(people=Tally(relayed=100)))
    assert "; 600 a minute;" in follower.line(mailing(people=Tally(relayed=110)))
    assert "; 1,500 a minute;" in follower.line(mailing(people=Tally(relayed=150)))


def test_uncertain_numbers_are_shown_as_an_interval() -> None:
    doubted = mailing(people=Tally(relayed=2100, doubted=3, same=900))
    head, line = table([doubted])
    assert head.split()[7:10] == ["SENT", "AT", "MOST"]
    assert line.split()[6:8] == ["1,200", "2,103"]
    assert "Sent to:   at least 1,200, at most 2,103 people" in list(told(doubted, MONDAY))
    assert "  sent at least 1,200, at most 2,103, in doubt 3, held 0" in Follower(lambda: 0.0).line(doubted)
    certain = mailing(people=Tally(relayed=1200))
    assert list(table([certain]))[1].split()[6:8] == ["1,200", "-"]
    assert "Sent to:   1,200 people" in list(told(certain, MONDAY))


def test_arrival_and_departure_are_separate_times() -> None:
    out = {"went_first_at": MONDAY + timedelta(hours=1), "went_last_at": MONDAY + timedelta(hours=2, seconds=1)}
    gone = mailing(people=Tally(relayed=1), **out)
    head, line = table([gone])
    assert head.split()[:7] == ["ID", "STATE", "CAME", "WENT", "OUT", "LAST", "OUT"]
    for name, at in (("CAME", MONDAY), ("WENT OUT", out["went_first_at"]), ("LAST OUT", out["went_last_at"])):
        assert line[head.index(name) :].startswith(f"{at:%Y-%m-%d %H:%M}")
    said = "\n".join(told(gone, MONDAY))
    assert f"Came:      first {MONDAY:%Y-%m-%d %H:%M:%S} UTC, last" in said
    assert f"Went out:  first {out['went_first_at']:%Y-%m-%d %H:%M:%S} UTC, last" in said
    waits = mailing(people=Tally(held=1))
    assert "Went out" not in "\n".join(told(waits, MONDAY))
    assert list(table([waits]))[1].split()[4:6] == ["-", "-"]


def test_control_characters_are_not_printed() -> None:
    bad = mailing(subject="\x1b[2JSpring\n", people=Tally(relayed=1))
    assert not any("\x1b" in line for line in (*table([bad]), *told(bad, MONDAY)))
