"""Timeouts of sources on other machines: for each answer, for all answers together, and none once the sync is
cancelled.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from smtpguard.lists.sources import SourceError, Stop

LOOK_SECONDS = 0.2


class SourceTimeouts:
    """The time starts when it is created."""

    def __init__(
        self, *, wait_seconds: float, limit_seconds: float, stop: Stop, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.wait_seconds = wait_seconds
        self._limit = limit_seconds
        self._stop = stop
        self._now = monotonic
        self._end = monotonic() + limit_seconds

    @classmethod
    def of(cls, declaration: Mapping[str, Any], stop: Stop) -> SourceTimeouts:
        return cls(
            wait_seconds=declaration.get("timeout", 30), limit_seconds=declaration.get("time_limit", 3600), stop=stop
        )

    def spent(self) -> str:
        """Why the time is over, "" before that."""
        if self._stop():
            return "stopped before its end"
        return f"no end within {self._limit:g} s (time_limit)" if self._now() > self._end else ""

    def look(self, label: str) -> None:
        """Called between two answers. Raises SourceError when the time is over."""
        if why := self.spent():
            raise SourceError(f"{label}: {why}")

    @contextmanager
    def cutting(self, cut: Callable[[], object]) -> Iterator[None]:
        """For a wait within a library that cannot check: ``cut`` aborts it, from another thread, when the time is over."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_SECONDS):
                if self.spent():
                    cut()
                    return

        watcher = threading.Thread(target=watch, name="list source watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def shut_down(descriptor: int) -> None:
    """Shut a connection down, so that a wait on it ends even if the network is dead."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        end.shutdown(socket.SHUT_RDWR)
