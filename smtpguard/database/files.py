"""The files of a SQLite database: the lock between writing processes, reading a database that cannot be written, and writing its
write-ahead log back in the background, so that no commit waits for it.

A PASSIVE checkpoint waits for no lock and leaves what others commit meanwhile, and the log starts again only if nothing
is left. So the rest is written back a second time, under the lock of the writers. See https://www.sqlite.org/wal.html,
section 3.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.exc import SQLAlchemyError

from smtpguard.config.statefiles import hand_over, read_only
from smtpguard.database.errors import Unavailable


class FairLock:
    """A fair lock over all processes that name the same path: a waiting process is next, however busy the holder is.
    Not for two threads with one object.

    Two files are locked with ``flock``: the outer one by the next holder, the inner one by the holder. A process that
    releases the inner one and wants it again finds the outer one taken by the waiting process, so it cannot overtake.
    SQLite alone makes the loser sleep and retry, for a second or two.
    """

    def __init__(self, path: Path) -> None:
        self._outer, self._inner = (_opened(path, Path(f"{path}.{name}")) for name in ("next", "lock"))

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


def _opened(path: Path, file: Path) -> int:
    """Open it; if missing, create it for the owner of ``path``."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        made = os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(file, flags)
    hand_over(file, path)
    return made


class ReadOnlyCopy:
    """How to open a database at ``path`` that this process can only read: a copy on read-only media, or one of another
    user. Found out once. Raises Unavailable if it cannot be read reliably.

    SQLite would create files beside it, even to read. Without a log beside it nothing writes it, and the file is read
    alone. With a log, the latest writes are only there, and it is read with its index. https://www.sqlite.org/wal.html,
    "Read-Only Databases".
    """

    def __init__(self, path: Path) -> None:
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
        self._still = None if logged else self._seen()
        self.uri = f"file:{quote(str(path.absolute()))}?mode=ro{'' if logged else '&immutable=1'}"
        """For SQLite; without a log ``immutable`` says that nothing writes it."""

    def check(self) -> None:
        """Raises Unavailable if a process has begun to write it after all, so that the data read may be inconsistent."""
        if self._still is not None and self._still != self._seen():
            raise Unavailable(f"{self._path} is being written by another process: try again")

    def _seen(self) -> tuple[int, int, int]:
        now = self._path.stat()
        return now.st_mtime_ns, now.st_size, _size(Path(f"{self._path}-wal"))


def only_readable(path: Path) -> bool:
    """Whether ``path`` exists, and this process cannot write it or beside it."""
    effective, folder = os.access in os.supports_effective_ids, path.absolute().parent
    if not path.exists():
        return False
    return not all(os.access(p, os.W_OK, effective_ids=effective) for p in (path, folder)) or read_only(folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


log = logging.getLogger(__name__)

_HEAD, _FRAME_HEAD = 32, 24  # octets, https://www.sqlite.org/fileformat2.html section 4.1
_EACH = 16  # commits between two checks
_REST_SECONDS = 1.0  # between two runs: a long read may prevent the log from starting again
_ROUNDS = 4


class WriteBack:
    """For one process. ``connect`` returns a connection of its own, without a transaction; it is closed after use.
    ``pages``: the length from which the log is long."""

    def __init__(self, path: Path, connect: Callable[[], Any], pages: int) -> None:
        self._path, self._connect, self._pages = path, connect, pages
        self._commits, self._next = 0, 0.0
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """Call in the writer's thread after a commit. Starts a run if the log is long."""
        self._commits += 1
        if self._commits % _EACH or (self._thread is not None and self._thread.is_alive()):
            return
        if time.monotonic() >= self._next and self.is_long():
            self._thread = threading.Thread(target=self.run, name="smtpguard-log", daemon=True)
            self._thread.start()

    def is_long(self) -> bool:
        """Whether frame number ``pages`` belongs to the current log: it has the salts of the log's header."""
        try:
            with Path(f"{self._path}-wal").open("rb", buffering=0) as file:
                head = file.read(_HEAD)
                page = int.from_bytes(head[8:12], "big")
                file.seek(_HEAD + (self._pages - 1) * (_FRAME_HEAD + page))
                return len(head) == _HEAD and file.read(_FRAME_HEAD)[8:16] == head[16:24]
        except OSError:
            return False

    def run(self) -> None:
        try:
            connection = self._connect()
            try:
                left = self._pages
                for _ in range(_ROUNDS):
                    if left < self._pages // 8:
                        break
                    left = _left(connection)
                if left:
                    with closing(FairLock(self._path)) as lock, lock:
                        _left(connection)
            finally:
                connection.close()
        except (sqlite3.Error, SQLAlchemyError, OSError) as error:
            log.warning("the write-ahead log could not be written back in the background: %s", error)
        self._next = time.monotonic() + _REST_SECONDS

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()


def _left(connection: Any) -> int:
    """Write back what is possible. Returns the number of pages left."""
    _, there, written = connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(there) - int(written)
