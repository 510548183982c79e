"""Stages of a release: every cell of the table, and the progress of a release."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.mailings.staging import LEAST, TRANSITIONS, At, Move, Progress, after
from smtpguard.policy.approvals import REST, Stages
from tests.every import every

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
STAGES = Stages(steps=(50, 0.01, REST), pause_seconds=1800)
BEGUN = Progress.begun(STAGES, 400_000, NOW, reached=7)

LEGAL = {
    (At.RUNNING, Move.FULL): At.PAUSED,
    (At.RUNNING, Move.ALL): At.RUNNING,
    (At.RUNNING, Move.STOP): At.STOPPED,
    (At.PAUSED, Move.TIME): At.RUNNING,
    (At.PAUSED, Move.GO): At.RUNNING,
    (At.PAUSED, Move.STOP): At.STOPPED,
    (At.STOPPED, Move.GO): At.RUNNING,
}


@every(("at", "move"), list(product(At, Move)))
def test_every_transition(at: At, move: Move) -> None:
    assert after(at, move) is LEGAL.get((at, move))
    moved = replace(BEGUN, at=at).moved(move, NOW)
    assert (moved.at if moved else None) is LEGAL.get((at, move))
    assert set(TRANSITIONS) == set(LEGAL)


def test_progress_of_a_release() -> None:
    """A release goes through its stages: fifty more than the seven who had it before, one percent more, the rest."""
    assert (BEGUN.limit, BEGUN.stage, BEGUN.waits) == (57, 0, False)
    assert BEGUN.with_reached(56, NOW) is BEGUN
    paused = BEGUN.with_reached(57, NOW)
    assert (paused.at, paused.full, paused.goes_on_at()) == (At.PAUSED, True, NOW + timedelta(minutes=30))
    assert paused.timely(NOW + timedelta(minutes=29)) is paused
    second = paused.timely(NOW + timedelta(minutes=30))
    assert (second.at, second.stage, second.limit) == (At.RUNNING, 1, 57 + 4000)
    last = second.with_reached(5000, NOW).moved(Move.GO, NOW)
    assert last is not None
    assert (last.stage, last.limit, last.last) == (2, 400_000, True)
    assert last.with_reached(400_000, NOW).at is At.RUNNING, "nothing follows the rest"


def test_after_a_stop_it_continues_with_the_right_stage() -> None:
    running = BEGUN.moved(Move.STOP, NOW, "a person")
    assert running is not None
    assert (running.why, running.goes_on_at()) == ("a person", None)
    again = running.moved(Move.GO, NOW)
    assert again is not None
    assert (again.stage, again.limit, again.why) == (0, 57, "")
    paused = BEGUN.with_reached(60, NOW).moved(Move.STOP, NOW)
    assert paused is not None
    further = paused.moved(Move.GO, NOW)
    assert further is not None
    assert further.stage == 1


def test_a_pause_without_a_time_is_ended_by_a_person() -> None:
    paused = Progress.begun(replace(STAGES, pause_seconds=None), 400_000, NOW).with_reached(50, NOW)
    assert paused.timely(NOW + timedelta(days=400)) is paused


def test_without_remaining_people_there_is_no_pause() -> None:
    """There is no pause once everybody has it, as after a message that cannot be divided."""
    all_out = BEGUN.with_reached(400_000, NOW)
    assert (all_out.at, all_out.last, all_out.limit, all_out.full) == (At.RUNNING, True, 400_000, False)
    assert BEGUN.with_reached(399_999, NOW).at is At.PAUSED


def test_additional_people_raise_the_limit() -> None:
    more = BEGUN.with_more(1000)
    assert (more.limit, more.whole) == (1057, 401_000)
    assert more.with_reached(1056, NOW).at is At.RUNNING


@pytest.mark.parametrize(
    ("refused", "reported", "stops"),
    [(LEAST - 1, 0, False), (LEAST, 0, False), (6, 0, True), (0, LEAST, True), (0, LEAST - 1, False)],
)
def test_refusals_and_reports_stop_it(refused: int, reported: int, stops: bool) -> None:
    judged = BEGUN.judged(reached=100, refused=refused, reported=reported, now=NOW)
    assert (judged.at is At.STOPPED) is stops
    assert bool(judged.why) is stops
    assert judged.judged(reached=0, refused=99, reported=99, now=NOW) is judged or not stops


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Move)), st.integers(0, 500)), max_size=30))
def test_limits_are_never_exceeded_and_stages_never_go_back(script: list[tuple[Move, int]]) -> None:
    one = Progress.begun(Stages(steps=(10, 0.1, REST)), 300, NOW)
    for move, reached in script:
        before, one = one, one.moved(move, NOW) or one.with_reached(reached, NOW)
        assert one.limit >= before.limit
        assert one.stage - before.stage in (0, 1) or (one.last and reached >= 300) or move is Move.ALL
        assert one.limit == (10, 40, 300)[one.stage]
