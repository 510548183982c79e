"""The files of a SQLite database: the lock between writing processes, a copy that cannot be written, the sync of the write-ahead
log, and whether files are still at their paths."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from urllib.parse import quote

from smtpguard.config.statefiles import READ_ONLY, hand_over, read_only
from smtpguard.database.errors import Unavailable
from smtpguard.locale.phrase import Phrase

_SETTLED_NS = 3_000_000_000
"""The age of a change to a folder from which on no other change can have the same time, on any file system."""


class FairLock:
    """A fair lock over all processes that name the same path: a waiting process is next, however busy the holder is. Two threads
    must not share one object.

    Two files are locked with ``flock``: the outer one by the next holder, the inner one by the holder. A process that
    releases the inner one and wants it again finds the outer one taken by the waiting process, so it cannot overtake.
    SQLite alone makes the loser sleep and retry, for a second or two.
    """

    def __init__(self, path: Path) -> None:
        self._outer, self._inner = (_open_lock(path, Path(f"{path}.{name}")) for name in ("next", "lock"))

    def __enter__(self) -> None:
        fcntl.flock(self._outer, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._inner, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._outer, fcntl.LOCK_UN)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._inner, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._outer)
        os.close(self._inner)


def _open_lock(path: Path, file: Path) -> int:
    """Open a lock file; if missing, create it for the owner of ``path``."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        created = os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(file, flags)
    hand_over(file, path)
    return created


class ReadOnlyCopy:
    """A database at ``path`` that this process can only read: on read-only media, or another user's.

    To read it, SQLite would create files beside it. If it has no log, nothing writes it, and the file is read alone. If it has
    a log, the latest writes are only there, and it is read with its index. See https://www.sqlite.org/wal.html, "Read-Only
    Databases".
    """

    def __init__(self, path: Path) -> None:
        """Raises Unavailable if it cannot be read reliably."""
        self._path = path
        log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            logged = _size(log) > 0
        except OSError as e:
            raise Unavailable(f"{path}: {e.strerror}") from None
        if logged and not (os.access(log, os.R_OK) and os.access(index, os.R_OK)):
            raise Unavailable(
                f"{log} contains the last writes, and cannot be read in a read-only folder without {index.name}: "
                f"copy both with {path.name} to a folder that you can write, or make a backup"
            )
        self._unchanged = None if logged else self._state()
        self.why = (
            Phrase(READ_ONLY, file=str(path)) if read_only(path.parent) else f"{path} can only be read by this user"
        )
        """Why nothing is written."""
        self.uri = f"file:{quote(str(path.absolute()))}?mode=ro{'' if logged else '&immutable=1'}"
        """The URI for SQLite. Without a log it has ``immutable``: nothing writes the file."""

    def check(self) -> None:
        """Raises Unavailable if a process writes it after all, so that what was read may be inconsistent."""
        if self._unchanged is not None and self._unchanged != self._state():
            raise Unavailable(f"{self._path} is being written by another process: try again")

    def _state(self) -> tuple[int, int, int]:
        now = self._path.stat()
        return now.st_mtime_ns, now.st_size, _size(Path(f"{self._path}-wal"))


def is_only_readable(path: Path) -> bool:
    """Return whether ``path`` exists, and this process cannot write it or beside it."""
    effective, folder = os.access in os.supports_effective_ids, path.absolute().parent
    if not path.exists():
        return False
    return not all(os.access(p, os.W_OK, effective_ids=effective) for p in (path, folder)) or read_only(folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sync_log(path: Path) -> None:
    """Sync all commits of any process to the database at ``path``. If it has no log, all of them were written back. Raises
    OSError."""
    try:
        file = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:  # to close this file gives up no lock: the locks are on other files
        os.fsync(file)
    finally:
        os.close(file)


def write_log_again(path: Path) -> None:
    """Write the log over itself, and sync it. Call it after a sync of the log has failed, in a transaction that has written
    nothing yet. The kernel marks pages that it could not write as clean, so a later sync would not write them, and after a
    power failure no commit behind them counts. Raises OSError."""
    try:
        file = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        at = 0
        while piece := os.pread(file, 1 << 20, at):
            at += os.pwrite(file, piece, at)
        os.fsync(file)
    finally:
        os.close(file)


def inode(path: Path | str) -> tuple[int, int] | None:
    """Return device and inode number of the file at a path; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - several times a write: a Path costs more than the call
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_settled(changed_ns: int) -> bool:
    """Return whether a change to a folder is so old that no other one can have the same time. ``changed_ns``: since 1970."""
    return time.time_ns() - changed_ns > _SETTLED_NS


class Paths:
    """Tells whether files are still at their paths. It looks at the files only after their folders have changed: once the times
    of a file were asked for, the next write changes them, and its sync writes them too (Linux 6.13)."""

    def __init__(self, *paths: Path) -> None:
        self._paths = [*map(str, paths)]
        self._inodes = [*map(inode, self._paths)]
        self._folders = sorted({str(path.parent) for path in paths})
        self._linked = any(path.is_symlink() for path in paths)  # the file itself is in another folder
        self._unchanged: list[tuple[int, int, int]] = []

    @property
    def are_in_place(self) -> bool:
        """Whether the files are still those that were there at first."""
        try:
            folders = [(f.st_dev, f.st_ino, f.st_ctime_ns) for f in map(os.stat, self._folders)]
        except OSError:
            return False
        if folders == self._unchanged:
            return True
        if [*map(inode, self._paths)] != self._inodes:
            return False
        settled = all(is_settled(changed) for *_, changed in folders)
        self._unchanged = folders if settled and not self._linked else []
        return True
