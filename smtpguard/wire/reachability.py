"""What the log hears of the relay: that it cannot be reached, and why; again every few minutes while that lasts; and that it
answers again. And what the last attempt to reach it found, for who asks.

Each process has its own. Never here: reaching it (handshake), or what clients are told meanwhile (pool).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)
AGAIN_SECONDS = 300.0


class Reachability:
    """``relay``: its name, for the log."""

    def __init__(self, relay: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._relay = relay
        self._monotonic = monotonic
        self._since: float | None = None  # None: it answers, or was never asked
        self._told = 0.0
        self.found: tuple[float, bool] | None = None
        """When the last attempt ended, by the same clock, and whether it answered; None: there was none."""

    def lost(self, why: str) -> None:
        now = self._monotonic()
        self.found = now, False
        if self._since is None:
            self._since = now
        elif now - self._told < AGAIN_SECONDS:
            return
        self._told = now
        log.error("the relay %s cannot be used, mail is answered 4xx: %s", self._relay, why)

    def reached(self) -> None:
        self.found = self._monotonic(), True
        if self._since is not None:
            log.warning("the relay %s answers again, after %.0f s", self._relay, self._monotonic() - self._since)
            self._since = None
