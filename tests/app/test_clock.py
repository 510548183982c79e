"""Ids: short, sorted by time, never twice."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.app.clock import SystemClock, ids


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(min_value=0, max_value=2**49), min_size=2, max_size=50))
def test_ids_rise_even_if_the_clock_goes_back(times: list[int]) -> None:
    clock = iter(times)
    new_id = ids(lambda: next(clock))
    made = [new_id() for _ in times]
    assert all(re.fullmatch("[0-9A-Z]{16}", one) for one in made)
    assert made == sorted(set(made))


def test_ids_of_different_processes_sort_by_time() -> None:
    assert ids(lambda: 1000)() < ids(lambda: 1001)()


def test_ids_of_two_processes_in_one_millisecond_differ() -> None:
    assert ids(lambda: 5)() != ids(lambda: 5)()


def test_more_ids_than_fit_a_millisecond_are_distinct() -> None:
    new_id = ids(lambda: 5)
    made = {new_id() for _ in range(5000)}
    assert len(made) == 5000


def test_the_clock_has_a_time_zone() -> None:
    assert SystemClock().now().tzinfo is not None
