"""The relay's state across sessions: whether the last attempt reached it, and what it offered last.

The log reports when it cannot be reached, and why; again every few minutes while that lasts; and when it answers again.
Its offer is kept in a file, so that a process that has not reached it yet can answer EHLO.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

log = logging.getLogger(__name__)
AGAIN_SECONDS = 300.0


class Reachability:
    """``relay``: its name, for the log and the file. ``kept``: the file of its offer; None: no file."""

    def __init__(
        self, relay: str, monotonic: Callable[[], float] = time.monotonic, *, kept: Path | None = None
    ) -> None:
        self._relay, self._monotonic, self._kept = relay, monotonic, kept
        self._since: float | None = None  # None: it answers, or was never tried
        self._told = 0.0
        self.found: tuple[float, bool] | None = None
        """When the last attempt ended, by ``monotonic``, and whether the relay answered; None: there was none."""
        self.offered = self._read()
        """Its EHLO keywords in the latest session, perhaps of an earlier process; None: there never was one."""
        self.no_chunks = False
        """Whether it refuses BDAT, although it offers CHUNKING."""

    def lost(self, why: str) -> None:
        now = self._monotonic()
        self.found = now, False
        if self._since is None:
            self._since = now
        elif now - self._told < AGAIN_SECONDS:
            return
        self._told = now
        log.error("the relay %s cannot be used, mail is answered 4xx: %s", self._relay, why)

    def reached(self, offered: Mapping[str, str]) -> None:
        self.found = self._monotonic(), True
        if self._since is not None:
            log.warning("the relay %s answers again, after %.0f s", self._relay, self._monotonic() - self._since)
            self._since = None
        if offered != self.offered:
            self.offered = offered
            self._write()

    def refuses_chunks(self) -> None:
        self.no_chunks = True
        log.warning("the relay %s offers CHUNKING and refuses BDAT: content is sent by DATA", self._relay)

    def _read(self) -> Mapping[str, str] | None:
        """Errors are ignored: the relay will offer it again."""
        if self._kept is None:
            return None
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            kept = json.loads(self._kept.read_bytes())
            if kept["relay"] == self._relay:
                return {str(keyword): str(parameters) for keyword, parameters in kept["offered"].items()}
        return None

    def _write(self) -> None:
        if self._kept is None:
            return
        new = self._kept.with_name(f"{self._kept.name}.{os.getpid()}")
        try:
            new.touch(mode=0o600)
            new.write_text(json.dumps({"relay": self._relay, "offered": dict(self.offered or {})}))
            new.replace(self._kept)
        except OSError as e:
            log.warning("cannot save the relay's SMTP extensions in %s: %s", self._kept, e.strerror)
