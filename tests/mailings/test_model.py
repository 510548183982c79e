"""Approvals of a mailing: for which lists, and what remains in force when another is added."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smtpguard.mailings.model import Grant, Mailing, Person, Rejection
from smtpguard.mailings.staging import Move
from smtpguard.policy.approvals import REST, Stages
from smtpguard.reading.fingerprint import Identity

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def on(*lists: str) -> Person:
    return Person(digest=b"12345678", customer=True, lists=lists)


TEXT = Identity(exact="campaign spring")
STAGES = Stages(steps=(10, REST))
NEW = Mailing(mailing_id="M", first_at=NOW, last_at=NOW)


def allowed(*lists: str, people: int = 100, days: int = 7, **more: Any) -> Grant:
    return Grant(
        hold_id="H", approved=TEXT, lists=frozenset(lists), rules=frozenset({"unapproved"}), people=people, since=NOW,
        until=NOW + timedelta(days=days), **more,
    )  # fmt: skip


def test_for_the_same_lists_or_more_the_newest_stands_alone() -> None:
    first = NEW.granted(allowed("a"), STAGES, 0, NOW)
    again = first.granted(allowed("a", "b", people=50), None, 30, NOW)
    assert again.grants == (allowed("a", "b", people=50),)
    assert again.progress is None


def test_for_another_list_both_stand_and_their_people_are_added() -> None:
    both = NEW.granted(allowed("a"), None, 0, NOW).granted(allowed("b", people=20), None, 60, NOW)
    assert both.grants == (allowed("b", people=120), allowed("a", people=120))
    assert both.allowing([on("a")], 1, NOW) == (allowed("a", people=120),)
    assert both.allowing([on("b")], 1, NOW) == (allowed("b", people=120),)
    assert both.allowing([on("a"), on("b")], 1, NOW) == (), "nobody looked at one message to both"
    assert both.allowing([on("a")], 121, NOW) == ()


def test_where_more_had_got_it_already_those_are_the_beginning() -> None:
    both = NEW.granted(allowed("a"), None, 0, NOW).granted(allowed("b", people=20), None, 150, NOW)
    assert {g.people for g in both.grants} == {170}


@pytest.mark.parametrize(("said", "people"), [(False, 170), (True, 20)])
def test_an_approval_lets_somebody_through_unless_it_says_for_how_many(said: bool, people: int) -> None:
    """A new approval adds its people to the 150 who have the mailing, unless it says its own number."""
    made = replace(NEW, lists=("a", "b")).granted(allowed("b", people=20, said=said), None, 150, NOW)
    assert [g.people for g in made.grants] == [people]


def test_each_ends_at_its_own_time() -> None:
    both = NEW.granted(allowed("a", days=1), STAGES, 0, NOW).granted(allowed("b", people=20), None, 0, NOW)
    later = both.standing(NOW + timedelta(days=2))
    assert [g.lists for g in later.grants] == [{"b"}]
    assert later.progress is not None
    over = both.standing(NOW + timedelta(days=8))
    assert (over.grants, over.progress) == ((), None)
    assert (
        both.standing(NOW + timedelta(days=2)).granted(allowed("c"), None, 0, NOW + timedelta(days=2)).grants[1:] != ()
    )


@pytest.mark.parametrize("moves", [(), (Move.FULL,), (Move.STOP,)])
def test_a_release_in_stages_that_is_not_through_goes_on_as_it_is(moves: tuple[Move, ...]) -> None:
    first = NEW.granted(allowed("a"), STAGES, 0, NOW)
    for move in moves:
        assert first.progress is not None
        first = replace(first, progress=first.progress.moved(move, NOW))
    both = first.granted(allowed("b"), Stages(steps=(1, REST)), 5, NOW)
    assert both.progress == first.progress


def test_one_that_is_through_gives_way_to_the_other_lists_stages() -> None:
    first = NEW.granted(allowed("a"), Stages(steps=(REST,)), 0, NOW)
    both = first.granted(allowed("b"), STAGES, 60, NOW)
    assert both.progress is not None
    assert both.progress.limit == 70


def test_a_rejection_ends_all_of_them() -> None:
    both = NEW.granted(allowed("a"), STAGES, 0, NOW).granted(allowed("b"), None, 0, NOW)
    no = Rejection(hold_id="H", sentence="No", until=NOW + timedelta(days=1))
    assert both.refused(no).grants == ()
    assert both.refused(no).standing(NOW + timedelta(days=2)) == replace(NEW)


def test_who_is_on_a_list_that_it_was_allowed_for_is_covered_whatever_else_they_are_on() -> None:
    mailing = NEW.granted(allowed("a"), None, 0, NOW)
    assert mailing.allowing([on("a", "b"), on("a")], 1, NOW)
    assert not mailing.allowing([on("a", "b"), on("b")], 1, NOW), "somebody is on no list of it"
    assert not mailing.allowing([on("a", "b")], 1, NOW, frozenset({"b"})), "b is always asked"
    assert mailing.allowing([on("a", "b")], 1, NOW, frozenset({"a"}))
    assert mailing.allowing([on()], 1, NOW), "who is on no list at all is nobody's customer"
