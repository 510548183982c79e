"""The folder of fronts beside a SQLite database: one file for each process that has a front, and a page that all
processes map.

The page has the gate's generation, which is raised before the gate moves, and a Bloom filter of the keys of holds and the scopes
of counts. So a process that writes to its front sees both without a query. Each front has two files: ``NAME.front``, whose first
page has how far it is written and moved, and ``NAME.live``, which is locked (flock) as long as its process lives.

Nobody waits for a process that writes its front. The process reads the generation again after a write. If that was raised, its
verdicts count only if the process that raised it has moved them.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from smtpguard.config.statefiles import hand_over, sync_folder
from smtpguard.database.files import inode, is_settled, sync_log

log = logging.getLogger(__name__)

ASIDE = ".aside"
"""The suffix of a front that was set aside."""
_PAGE = 4096
_BITS = 1 << 23  # of the Bloom filter
_SIZE = _PAGE + _BITS // 8
_NUMBER = struct.Struct("<Q")
_THREE = struct.Struct("<III")
_WRITTEN = struct.Struct("<QQ")  # where the last synced frame ends, and its number
_WRITTEN_AT, _MOVED_AT = _PAGE - 24, _PAGE - 8


def scope_key(scope: int) -> bytes:
    """Return the key of a scope of counts, by its number, for the shared page."""
    octets = scope.to_bytes(8, "big", signed=True)
    return octets + octets[:4]


class Shared:
    """The shared page. Only the holder of the database's lock writes it; every process reads it at any time. Keys are never
    removed from its filter, so ``may_have`` is never wrong when it is False."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # two processes may create it at once
            if os.fstat(file).st_size < _SIZE:
                os.posix_fallocate(file, 0, _SIZE)  # a mapped page without room would kill the process
                hand_over(path, path.parent)
            found = os.fstat(file)
            self._inode = found.st_dev, found.st_ino
            fcntl.flock(file, fcntl.LOCK_UN)  # the map has a file descriptor of its own, and with it the lock
            self._map = mmap.mmap(file, _SIZE)
        finally:
            os.close(file)

    @property
    def is_in_place(self) -> bool:
        """Whether this file is still at its path."""
        return inode(self._path) == self._inode

    @property
    def generation(self) -> int | None:
        """The gate's generation. It is ahead of the gate while that moves, and None before it is set."""
        [known] = _NUMBER.unpack_from(self._map, 0)
        return known - 1 if known else None

    @generation.setter
    def generation(self, generation: int) -> None:
        _NUMBER.pack_into(self._map, 0, generation + 1)

    @property
    def is_filled(self) -> bool:
        """Whether the keys of all existing holds and counts are in it."""
        return self._map[8] == 1

    def fill(self, keys: Iterator[bytes], *, anew: bool) -> None:
        """Add all keys. ``anew``: clear earlier keys first, since no process reads the page yet."""
        if anew:
            self._map[8] = 0
            self._map[_PAGE:] = bytes(_SIZE - _PAGE)
        for key in keys:
            self.add(key)
        self._map[8] = 1

    def add(self, key: bytes) -> None:
        """Add a key. ``key``: a digest of at least 12 octets."""
        for n in _THREE.unpack_from(key):
            n %= _BITS
            self._map[_PAGE + (n >> 3)] |= 1 << (n & 7)

    def may_have(self, key: bytes) -> bool:
        """Return whether the key may have been added."""
        page = self._map
        for n in _THREE.unpack_from(key):
            n %= _BITS
            if not page[_PAGE + (n >> 3)] & (1 << (n & 7)):
                return False
        return True

    def close(self) -> None:
        self._map.close()


class Progress:
    """The progress of a front, in its first page. Its process writes how far it is synced, and the process that moves it how far that
    is committed.

    It only saves reads and queries: frames have numbers, and the database knows the last one that is in the chain. A commit
    that moves frames need not be on disk (Fronts.sync).
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, and ValueError if the file is still empty."""
        self.file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._map = mmap.mmap(self.file, _PAGE)

    def __del__(self) -> None:  # any thread may still use it, so only the last one closes it
        if hasattr(self, "file"):
            os.close(self.file)

    @property
    def written(self) -> tuple[int, int]:
        """The end of the last synced frame, in octets after the head, and its number. The number is written last and read
        first, so the end is never older."""
        [number] = _NUMBER.unpack_from(self._map, _WRITTEN_AT + _NUMBER.size)
        [end] = _NUMBER.unpack_from(self._map, _WRITTEN_AT)
        return end, number

    @written.setter
    def written(self, written: tuple[int, int]) -> None:
        _WRITTEN.pack_into(self._map, _WRITTEN_AT, *written)

    @property
    def moved(self) -> int:
        """The number of the last frame that is in the chain."""
        [number] = _NUMBER.unpack_from(self._map, _MOVED_AT)
        return int(number)

    @moved.setter
    def moved(self, number: int) -> None:
        _NUMBER.pack_into(self._map, _MOVED_AT, max(number, self.moved))

    @property
    def has_unmoved(self) -> bool:
        """Whether synced frames are not in the chain yet."""
        return self.written[1] > self.moved


class Fronts:
    """The fronts of one database, for one process. ``path``: the database's file."""

    def __init__(self, path: Path) -> None:
        # no pattern for the database's own files matches this name
        self.folder = path.with_name(f"front-{path.name.replace('.', '-')}")
        self._database = path
        self._shared: Shared | None = None
        self._known: dict[str, File] = {}
        self._changed = 0  # the time of the folder's last change that is in _known

    @property
    def shared(self) -> Shared:
        """The page that is at its path now. Raises OSError."""
        if self._shared is None or not self._shared.is_in_place:
            try:
                self.folder.mkdir(mode=0o700)
                hand_over(self.folder, self._database.parent)
            except FileExistsError:
                pass
            if self._shared is not None:
                self._shared.close()
                self._shared = None  # before the next line, which may fail: the file may be back at its path later
            self._shared = Shared(self.folder / "shared")
        return self._shared

    def all(self) -> list[File]:
        """Return the existing fronts."""
        there = {path.stem: path for path in sorted(self.folder.glob("*.front"))}
        known = self._known = {name: self._known.get(name) or File(path) for name, path in there.items()}
        return list(known.values())

    def unmoved(self) -> list[File]:
        """Return the fronts with frames to move, by their progress. It takes a few system calls."""
        try:
            changed = os.stat(self.folder).st_mtime_ns  # noqa: PTH116 - many times a second
        except FileNotFoundError:
            return []
        if changed != self._changed:
            self.all()
            self._changed = changed if is_settled(changed) else 0
        return [file for file in self._known.values() if file.has_unmoved]

    def note_moved(self, moved: Mapping[str, int]) -> None:
        """Write to each front how far it is moved, after the commit. ``moved``: the number of the last frame by the front's
        name."""
        for name, number in moved.items():
            file = self._known.get(name) or File(self.folder / f"{name}.front")
            with suppress(OSError, ValueError):  # it is gone, which its next mover finds out
                file.progress.moved = number

    def sync(self) -> None:
        """Sync what has been moved. Call it before a moved frame is overwritten or removed. Raises OSError."""
        sync_log(self._database)

    def remove(self, file: File) -> None:
        """Remove a front that is in the chain as a whole. On return the removal is on disk. Raises OSError."""
        self.sync()
        live_file(file.path).unlink(missing_ok=True)  # first: nobody looks for it without a front
        file.path.unlink(missing_ok=True)
        sync_folder(self.folder)

    def aside(self) -> list[Path]:
        """Return the fronts that were set aside: they did not fit this journal, and were not moved into it."""
        return sorted(self.folder.glob(f"*{ASIDE}"))

    def close(self) -> None:
        self._known = {}
        if self._shared is not None:
            self._shared.close()
            self._shared = None


class File:
    """One front, for the processes that move it."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self._progress: Progress | None = None
        self._aside = ""  # the reason that was logged for setting it aside
        self.at = 0
        """How far it has been moved, in octets after the head, as far as this process knows."""

    @property
    def progress(self) -> Progress:
        """Its progress. Raises OSError, and ValueError if the file is still empty."""
        if self._progress is None:
            self._progress = Progress(self.path)
        return self._progress

    @property
    def has_unmoved(self) -> bool:
        """Whether synced frames are not in the chain yet. False if it cannot be opened: its own process moves it."""
        try:
            return self.progress.has_unmoved
        except (OSError, ValueError):
            return False

    @property
    def rest(self) -> int:
        """The octets of synced frames after ``at``."""
        return self.progress.written[0] - self.at

    def synced(self, most: int) -> Iterator[tuple[int, bytes]]:
        """Yield synced frames and the octet after the head at which they begin: first up to ``most`` octets from ``at`` on, then
        all. It does not wait for its process, and works without a name of the file too. Raises OSError, and as
        ``progress``."""
        (end, _), file = self.progress.written, self.progress.file
        if 0 < self.at < end:
            yield self.at, os.pread(file, min(most, end - self.at), _PAGE + self.at)
        yield 0, os.pread(file, end, _PAGE)

    @property
    def is_alive(self) -> bool:
        """Whether its process is still alive."""
        try:
            return is_locked(live_file(self.path))
        except FileNotFoundError:
            return False

    def read(self) -> bytes:
        """Return its content (journal.front). Call it once its process has ended. Raises FileNotFoundError."""
        with self.path.open("rb", buffering=0) as file:
            data = bytearray()
            while (piece := file.read(1 << 20)) and piece.count(0) < len(piece):
                data += piece
            return bytes(data)

    def set_aside(self, why: str) -> None:
        """Rename it, so that it is not read again, and log why, once: a transaction that fails sets it aside again."""
        if why != self._aside:
            log.error("%s does not belong to this journal, and was set aside: %s", self.path, why)
        self._aside = why
        live_file(self.path).unlink(missing_ok=True)  # first, as in ``Fronts.remove``
        with suppress(FileNotFoundError):
            self.path.rename(self.path.with_name(f"{self.path.name}{ASIDE}"))


def is_locked(path: Path) -> bool:
    """Return whether the process that made this file is still alive, and so holds its lock. Raises FileNotFoundError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def live_file(path: Path) -> Path:
    """Return the path of the file that the process of the front at ``path`` locks."""
    return path.with_suffix(".live")
