from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from smtpguard.app.clock import every, slices
from smtpguard.database.errors import Unavailable


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
    assert caplog.messages == ["holds: waiting for the store: busy"]


async def test_slices_end_with_the_last_one() -> None:
    asked = work(True, True, False, RuntimeError("one too many"))
    await asyncio.wait_for(slices(asked, 0), 60)
