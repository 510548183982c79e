"""The replies that a session with the relay waits for: in the order of the commands (RFC 2920 section 3.1), and until when
(RFC 5321 section 4.5.3.2).

One timer serves them all: what was asked last says how long all is waited for, and the timer is set anew only when it would
go off too late.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from smtpguard.mail.reply import Reply


class Awaited:
    """Of one connection. ``places``: whoever waits, the oldest command first. ``deadline``: as the loop's time; infinite while
    nothing is waited for, or as long as it takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Callable[[], None]) -> None:
        """``late``: called when the deadline has passed."""
        self.places: deque[asyncio.Future[Reply | None]] = deque()
        self.deadline = math.inf
        self._loop, self._late = loop, late
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def expect(self, timeout: float) -> asyncio.Future[Reply | None]:
        """A place in the queue; its result is None if the connection is lost. Seconds."""
        future: asyncio.Future[Reply | None] = self._loop.create_future()
        if self._ended:
            future.set_result(None)
            return future
        self.places.append(future)
        self.arm(timeout)
        return future

    def arm(self, timeout: float) -> None:
        self.deadline = self._loop.time() + timeout
        if self.deadline == math.inf or (self._timer is not None and self._timer.when() <= self.deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self.deadline, self._tick)

    def end(self) -> None:
        """Nothing comes any more."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.places:
            waiting = self.places.popleft()
            if not waiting.done():
                waiting.set_result(None)

    def _tick(self) -> None:
        self._timer = None
        if self.deadline == math.inf:
            return
        if self._loop.time() >= self.deadline:
            self._late()
        else:
            self._timer = self._loop.call_at(self.deadline, self._tick)
