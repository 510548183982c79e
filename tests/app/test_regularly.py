from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from smtpguard.app.clock import every, slices
from smtpguard.database.errors import MOST_REASONS, OUTAGE_SECONDS, Outage, Unavailable


def work(*outcomes: bool | Exception) -> Callable[[], Awaitable[bool]]:
    left = iter(outcomes)

    async def one() -> bool:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return one


async def test_a_store_that_is_away_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    asked = work(True, Unavailable("busy"), Unavailable("busy"), True, RuntimeError("ours"))
    with pytest.raises(RuntimeError, match="ours"):
        await every(0, "holds", asked)
    assert caplog.messages == ["holds: waiting for the store: busy", "holds: waiting for the store: over, after 0 s"]


async def test_work_goes_on_at_once_while_there_may_be_more() -> None:
    left, done = iter((20, 20, 20, 3)), list[int]()

    async def one() -> int:
        done.append(next(left))
        return done[-1]

    task = asyncio.create_task(every(3600, "the journal", one, full=20))
    for _ in range(100):
        await asyncio.sleep(0)
    assert done == [20, 20, 20, 3]
    assert not task.done()
    task.cancel()


def test_an_outage_that_comes_and_goes_is_logged_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outage = Outage(logging.getLogger("a"), "it", lambda: now)
    for _ in range(100):
        outage.report("one")
        outage.report("two")
        outage.end()
    assert caplog.messages == ["it: one", "it: two", "it: over, after 0 s"]
    for n in range(100):
        outage.report(f"a client's words {n}")
    assert len(caplog.messages) == MOST_REASONS + 1
    now = OUTAGE_SECONDS
    outage.report("one")
    outage.end()
    assert caplog.messages[MOST_REASONS + 1 :] == ["it: one", f"it: over, after {OUTAGE_SECONDS:.0f} s"]


async def test_slices_end_with_the_last_one() -> None:
    asked = work(True, True, False, RuntimeError("one too many"))
    await asyncio.wait_for(slices(asked, 0), 60)
    with pytest.raises(RuntimeError, match="one too many"):
        await asked()
