"""The times of entries and checkpoints: stretches without a signature, and entries earlier than those before."""

from __future__ import annotations

from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Kind
from smtpguard.journal.timecheck import MINUTE, TimeCheck

NOON = 1_800_000_000_000_000
FREEZE, VERDICT = Kind.FREEZE.value, Kind.VERDICT.value


def walk(
    times: list[float], *marks: tuple[int, float], kinds: dict[int, str] | None = None, now: float = 10_000
) -> TimeCheck:
    """``times``: of the entries from 1 on, in minutes after noon. ``marks``: (entry, minute of its signature)."""
    made = [Checkpoint(journal="j", seq=seq, at=NOON + int(at * MINUTE), hash=b"") for seq, at in marks]
    check = TimeCheck(made, NOON + int(now * MINUTE))
    rows = [(n, NOON + int(at * MINUTE), (kinds or {}).get(n, VERDICT)) for n, at in enumerate(times, start=1)]
    for start in range(0, len(rows), 3):
        check.add(rows[start : start + 3])
    check.finish()
    return check


def test_regular_checkpoints_leave_no_unsigned_stretch() -> None:
    check = walk([n / 2 for n in range(40)], *((n, n / 2) for n in range(2, 41, 2)))
    assert (check.unsigned, check.backwards, check.backdated) == ([], [], None)


def test_an_idle_guard_signs_with_its_next_entry() -> None:
    assert walk([0, 0.1, 3000, 3000.1, 9000], (3, 3000), (5, 9000)).unsigned == []


def test_removed_checkpoints_leave_an_unsigned_stretch() -> None:
    marks = [(n, n / 2) for n in range(2, 41, 2) if not 10 <= n <= 30]
    [found] = walk([n / 2 for n in range(40)], *marks).unsigned
    assert (found.first, found.last, found.end) == (9, 32, False)
    [found] = walk([n / 2 for n in range(40)], *marks[:4]).unsigned
    assert (found.first, found.last, found.end) == (9, 40, True)


def test_time_going_backwards_is_reported_once() -> None:
    check = walk([0, 30, 2, 3, 4, 31, 32, 1], (8, 33))
    assert [(one.seq, one.entries) for one in check.backwards] == [(3, 3), (8, 1)]
    assert check.backwards[0].before == NOON + 30 * MINUTE
    assert check.backdated is None, "mail is journalled late after a database outage"


def test_an_action_older_than_an_earlier_checkpoint_is_backdated() -> None:
    kinds = {4: FREEZE}
    found = walk([0, 30, 60, 10], (2, 30), (3, 60), kinds=kinds).backdated
    assert found is not None
    assert (found.seq, found.signed_at) == (4, NOON + 60 * MINUTE)
    assert walk([0, 30, 60, 10, 61], (2, 30), (3, 60), (5, 61), kinds=kinds).backdated == found
    assert walk([0, 30, 60, 50], (2, 30), (3, 60), kinds=kinds).backdated is None, (
        "clocks of two hosts may differ so much"
    )


def test_with_a_clock_set_back_checkpoints_agree() -> None:
    check = walk([0, 30, 60, 10, 11], (3, 60), (5, 11), kinds={4: FREEZE})
    assert check.backdated is None
    assert [one.seq for one in check.backwards] == [4]
