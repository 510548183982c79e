"""Share the event loop among callers that read messages, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, TypeVar

from smtpguard.reading.request import Steps, finished

T = TypeVar("T")

AT_ONCE_SECONDS = 0.004
"""For how long one round of the event loop reads messages."""

TOGETHER = 32
"""The most callers whose work advances step by step together."""


class Turns:
    """Does the work of a few callers in each round of the event loop. So an ordinary message beside a flood waits for a few
    readings at each of its steps, not for one of every connection. The work of these few advances step by step together."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[tuple[asyncio.Future[Any], Steps[Any]]] = deque()
        self._together: deque[tuple[asyncio.Future[Any], Steps[Any]]] = deque()

    async def of(self, work: Steps[T]) -> T:
        """Return the result of ``work``. Raises what it raises."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._pass_on, loop)
            return finished(work)
        mine: asyncio.Future[T] = loop.create_future()
        self._waiting.append((mine, work))
        return await mine

    def _pass_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting and not self._together:
            self._taken = False
            return
        until = loop.time() + AT_ONCE_SECONDS
        while self._together or self._waiting:
            if not self._together:
                for _ in range(min(TOGETHER, len(self._waiting))):
                    self._together.append(self._waiting.popleft())
            mine, work = self._together.popleft()
            if mine.done():  # cancelled
                continue
            try:
                next(work)
                self._together.append((mine, work))
            except StopIteration as end:
                mine.set_result(end.value)
            except Exception as error:
                mine.set_exception(error)
            if loop.time() >= until:
                break
        loop.call_soon(self._pass_on, loop)
