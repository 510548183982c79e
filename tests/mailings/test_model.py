"""Approvals of a mailing: for which lists, and what remains in force when another is added."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smtpguard.lists.persons import Person
from smtpguard.mailings.model import Grant, Mailing, Rejection
from smtpguard.mailings.staging import At, Move
from smtpguard.policy.stages import REST, Stages
from smtpguard.reading.fingerprint import Identity
from tests.every import every

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def on(*lists: str) -> Person:
    return Person(digest=b"12345678", customer=True, lists=lists)


TEXT = Identity(exact="campaign spring")
STAGES = Stages(steps=(10, REST))
NEW = Mailing(mailing_id="M", first_at=NOW, last_at=NOW)


def allowed(*lists: str, people: int = 100, days: int = 7, hold_id: str = "H", **more: Any) -> Grant:
    return Grant(
        hold_id=hold_id, approved=TEXT, lists=frozenset(lists), rules=frozenset({"unapproved"}), people=people, since=NOW,
        until=NOW + timedelta(days=days), **more,
    )  # fmt: skip


def test_a_newer_approval_for_the_same_lists_replaces_the_older() -> None:
    first = NEW.granted(allowed("a"), STAGES, 0, NOW)
    again = first.granted(allowed("a", "b", people=50), None, 30, NOW)
    assert [({*g.lists}, g.people) for g in again.grants] == [({"a", "b"}, 50)]
    assert again.progress is None


def test_approvals_for_different_lists_add_up() -> None:
    both = NEW.granted(allowed("a"), None, 0, NOW).granted(allowed("b", people=20), None, 60, NOW)
    assert [({*g.lists}, g.people) for g in both.grants] == [({"b"}, 120), ({"a"}, 120)]
    assert [{*g.lists} for g in both.allowing([on("a")], 1)] == [{"a"}]
    assert [{*g.lists} for g in both.allowing([on("b")], 1)] == [{"b"}]
    assert both.allowing([on("a"), on("b")], 1) == (), "no approval was for one message to both"
    assert both.allowing([on("a")], 121) == ()


def test_a_second_approval_includes_those_already_reached() -> None:
    both = NEW.granted(allowed("a"), None, 0, NOW).granted(allowed("b", people=20), None, 150, NOW)
    assert {g.people for g in both.grants} == {170}


def test_the_rest_of_an_approval_ends_with_it() -> None:
    """Of 100 for one list 60 were reached when 20 of another were approved."""
    both = NEW.granted(allowed("a", days=1, hold_id="A"), None, 0, NOW)
    both = both.granted(allowed("b", people=20, said=True), None, 60, NOW)
    assert [g.people for g in both.grants] == [120, 120]
    over = both.as_of(NOW + timedelta(days=2))
    assert [({*g.lists}, g.people) for g in (*over.grants, *both.ungranted("A").grants)] == [({"b"}, 80)] * 2
    again = over.granted(allowed("a", people=30, hold_id="A"), None, 80, NOW + timedelta(days=2))
    assert [g.people for g in again.grants] == [110, 110]
    for _ in range(3):
        again = again.granted(allowed("a", people=30, hold_id="A"), None, 80, NOW + timedelta(days=2))
    assert [g.people for g in again.grants] == [110, 110], "it replaces itself"
    assert [({*g.lists}, g.people) for g in again.ungranted("H").grants] == [({"a"}, 110)]


def test_the_last_stage_is_for_as_many_as_the_approvals_in_force() -> None:
    both = NEW.granted(allowed("a", days=1, hold_id="A"), STAGES, 0, NOW)
    both = both.granted(allowed("b", people=20, hold_id="B"), STAGES, 5, NOW)
    assert (both.stage_limit, both.grants[0].people) == (10, 120)
    assert both.progress is not None
    last = both.progress.with_reached(10, NOW).moved(Move.GO, NOW)
    assert replace(both, progress=last).stage_limit == 120
    over = replace(both, progress=last).as_of(NOW + timedelta(days=2))
    assert (over.stage_limit, over.grants[0].people) == (25, 25)


def test_approvals_of_an_earlier_version_keep_their_sum() -> None:
    """It stored the sum alone."""
    made = replace(NEW, grants=(allowed("b", people=120), allowed("a", people=120)))
    assert [g.people for g in made.as_of(NOW).as_of(NOW).grants] == [120, 120]
    more = made.granted(allowed("c", people=5), None, 90, NOW)
    assert [g.people for g in more.as_of(NOW).grants] == [125, 125, 125]


@pytest.mark.parametrize(("said", "people"), [(False, 170), (True, 20)])
def test_an_expired_approval_leaves_the_other_its_people(said: bool, people: int) -> None:
    """A new approval adds its people to the 150 who have the mailing, unless it says its own number."""
    made = replace(NEW, lists=("a", "b")).granted(allowed("b", people=20, said=said), None, 150, NOW)
    assert [g.people for g in made.grants] == [people]


def test_each_approval_ends_at_its_time() -> None:
    both = NEW.granted(allowed("a", days=1), STAGES, 0, NOW).granted(allowed("b", people=20), None, 0, NOW)
    later = both.as_of(NOW + timedelta(days=2))
    assert [g.lists for g in later.grants] == [{"b"}]
    assert later.progress is not None
    over = both.as_of(NOW + timedelta(days=8))
    assert (over.grants, over.progress) == ((), None)
    assert both.as_of(NOW + timedelta(days=2)).granted(allowed("c"), None, 0, NOW + timedelta(days=2)).grants[1:] != ()


@every("moves", [(), (Move.FULL,), (Move.STOP,)])
def test_an_unfinished_staged_release_continues(moves: tuple[Move, ...]) -> None:
    first = NEW.granted(allowed("a"), STAGES, 0, NOW)
    for move in moves:
        assert first.progress is not None
        first = replace(first, progress=first.progress.moved(move, NOW))
    both = first.granted(allowed("b"), Stages(steps=(1, REST)), 5, NOW)
    assert both.progress == first.progress


def test_another_approval_does_not_start_a_stopped_release() -> None:
    first = NEW.granted(allowed("a"), STAGES, 0, NOW)
    assert first.progress is not None
    stopped = replace(first, progress=first.progress.moved(Move.STOP, NOW, "3 of 9 reported"))
    both = stopped.granted(allowed("a"), STAGES, 9, NOW)
    assert both.progress is not None
    assert (both.progress.at, both.progress.why, both.progress.limit) == (
        At.STOPPED,
        "3 of 9 reported",
        9 + first.progress.limit,
    )
    resumed = both.progress.moved(Move.GO, NOW)
    assert resumed is not None
    assert (resumed.at, resumed.stage) == (At.RUNNING, 0)


def test_a_finished_staged_release_is_replaced() -> None:
    first = NEW.granted(allowed("a"), Stages(steps=(REST,)), 0, NOW)
    both = first.granted(allowed("b"), STAGES, 60, NOW)
    assert both.progress is not None
    assert both.progress.limit == 70


def test_a_rejection_ends_all_approvals() -> None:
    both = NEW.granted(allowed("a"), STAGES, 0, NOW).granted(allowed("b"), None, 0, NOW)
    no = Rejection(hold_id="H", sentence="No", until=NOW + timedelta(days=1))
    assert both.refused(no).grants == ()
    assert both.refused(no).as_of(NOW + timedelta(days=2)) == replace(NEW)


def test_a_member_of_an_approved_list_is_covered() -> None:
    mailing = NEW.granted(allowed("a"), None, 0, NOW)
    assert mailing.allowing([on("a", "b"), on("a")], 1)
    assert not mailing.allowing([on("a", "b"), on("b")], 1), "somebody is on no list of it"
    assert not mailing.allowing([on("a", "b")], 1, frozenset({"b"})), "b always needs its own approval"
    assert mailing.allowing([on("a", "b")], 1, frozenset({"a"}))
    assert mailing.allowing([on()], 1), "a person on no list is no customer"
