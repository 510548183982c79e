"""A fair lock between processes on one machine: whoever waits is next, however busy the one before is.

Two files are locked with ``flock``, like the two doors of a lock chamber: the outer one to be next, the inner one to work. A
process that lets go of the inner door and wants in again finds the outer one held by whoever waits, so it cannot overtake.
SQLite alone makes the loser sleep and try again, and lets it wait for a second or two.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from smtpguard.lists.ownership import hand_over


class Chamber:
    """One holder at a time, over all processes that name the same path. Not for two threads of one object."""

    def __init__(self, path: Path) -> None:
        self._outer, self._inner = (_opened(path, Path(f"{path}.{name}")) for name in ("next", "lock"))

    def enter(self) -> None:
        fcntl.flock(self._outer, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._inner, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._outer, fcntl.LOCK_UN)

    def leave(self) -> None:
        fcntl.flock(self._inner, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._outer)
        os.close(self._inner)


def _opened(path: Path, file: Path) -> int:
    """Made where it is not there, for whom ``path`` belongs to."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        made = os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(file, flags)
    hand_over(file, path)
    return made
