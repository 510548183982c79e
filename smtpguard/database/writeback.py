"""Write the write-ahead log of a SQLite database back in the background, so that no commit waits for it.

A PASSIVE checkpoint waits for no lock, and leaves what others commit meanwhile; the log starts again only if nothing is left. So
the rest is written back under the lock of the writers. See https://www.sqlite.org/wal.html, section 3.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from smtpguard.database.files import FairLock

log = logging.getLogger(__name__)

_HEAD, _FRAME_HEAD = 32, 24  # octets, https://www.sqlite.org/fileformat2.html section 4.1
_EACH = 16  # commits between two checks of the log's length
_REST_SECONDS = 1.0  # between two runs: a long read may prevent the log from starting again
_ROUNDS = 4  # the most checkpoints before the one under the lock


class WriteBack:
    """Writes the log back for one process, in a thread. ``connect``: returns a new connection without a transaction, which is
    closed after use. ``pages``: the length from which on the log is long."""

    def __init__(self, path: Path, connect: Callable[[], Any], pages: int) -> None:
        self._path, self._connect, self._pages = path, connect, pages
        self._commits, self._next = 0, 0.0
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """Start a run if the log is long. Call it in the writer's thread after a commit."""
        self._commits += 1
        if self._commits % _EACH or (self._thread is not None and self._thread.is_alive()):
            return
        if time.monotonic() >= self._next and self.is_long():
            self._thread = threading.Thread(target=self.run, name="smtpguard-log", daemon=True)
            self._thread.start()

    def is_long(self) -> bool:
        """Return whether the current log has ``pages`` frames: whether that frame has the salts of the log's header."""
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
                    left = _checkpoint(connection)
                if left:
                    with closing(FairLock(self._path)) as lock, lock:
                        _checkpoint(connection)
            finally:
                connection.close()
        except (sqlite3.Error, SQLAlchemyError, OSError) as error:
            log.warning("the write-ahead log could not be written back in the background: %s", error)
        self._next = time.monotonic() + _REST_SECONDS

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()


def _checkpoint(connection: Any) -> int:
    """Write back what is possible. Returns the number of pages that are left."""
    _, pages, written = connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages) - int(written)
