"""The folder of fronts beside a SQLite database: one file for each process that has a front, and a page that all
processes map.

The page has the gate's generation, raised before the gate moves, and what holds and counts contain. So a process that
writes to its front sees both without a query. Each front has two files: ``NAME.front``, whose first page tells how far it
is written and moved, and ``NAME.live``, which is locked (flock) as long as its process lives.

Nobody waits for a process that writes its front. It reads the generation again after a write; if that was raised, its
verdicts count only if whoever raised it has moved them.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from smtpguard.config.statefiles import hand_over, sync_folder

log = logging.getLogger(__name__)

ASIDE = ".aside"
_PAGE = 4096
_BITS = 1 << 23
_SIZE = _PAGE + _BITS // 8
_NUMBER = struct.Struct("<Q")
_THREE = struct.Struct("<III")
_WRITTEN = struct.Struct("<QQ")  # where the last synced frame ends, and its number
_WRITTEN_AT, _MOVED_AT = _PAGE - 24, _PAGE - 8
_SETTLED_NS = 3_000_000_000


def scope_key(scope: int) -> bytes:
    """The key under which a scope of counts, given by number, is added."""
    octets = scope.to_bytes(8, "big", signed=True)
    return octets + octets[:4]


class Shared:
    """The shared page. Only the holder of the database's lock writes it; every process reads it at any time.

    ``generation``: the gate's; ahead of it while the gate moves, None before it is set. ``filled``: whether everything
    from before is in it. Keys are never removed: "known" may be wrong, "not known" never is.
    """

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
    def in_place(self) -> bool:
        """Whether this file is still at its path."""
        return inode(self._path) == self._inode

    @property
    def generation(self) -> int | None:
        [known] = _NUMBER.unpack_from(self._map, 0)
        return known - 1 if known else None

    @generation.setter
    def generation(self, generation: int) -> None:
        _NUMBER.pack_into(self._map, 0, generation + 1)

    @property
    def filled(self) -> bool:
        return self._map[8] == 1

    def fill(self, keys: Iterator[bytes], *, anew: bool) -> None:
        """Add all keys. ``anew``: no process reads it yet, so earlier keys are cleared."""
        if anew:
            self._map[8] = 0
            self._map[_PAGE:] = bytes(_SIZE - _PAGE)
        for key in keys:
            self.add(key)
        self._map[8] = 1

    def add(self, key: bytes) -> None:
        """``key``: a digest of at least 12 octets."""
        for n in _THREE.unpack_from(key):
            n %= _BITS
            self._map[_PAGE + (n >> 3)] |= 1 << (n & 7)

    def knows(self, key: bytes) -> bool:
        page = self._map
        for n in _THREE.unpack_from(key):
            n %= _BITS
            if not page[_PAGE + (n >> 3)] & (1 << (n & 7)):
                return False
        return True

    def close(self) -> None:
        self._map.close()


class Progress:
    """How far a front is written and moved. Its process tells what is synced; whoever moves it tells what is committed.
    It saves reading and asking in vain: frames have numbers, and the database knows the last one that is in the chain.
    A commit that moves frames need not be on disk (Fronts.sync).
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
        """Where the last synced frame ends, after the head, and its number. The number is written last and read first,
        so the end is never older."""
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
    def waits(self) -> bool:
        return self.written[1] > self.moved


class Fronts:
    """The fronts of one database, for one process. ``path``: the database's file."""

    def __init__(self, path: Path) -> None:
        self.folder = path.with_name(
            f"front-{path.name.replace('.', '-')}"
        )  # no pattern for the database's own files matches this name
        self._database = path
        self._shared: Shared | None = None
        self._known: dict[str, File] = {}
        self._changed = 0  # when the folder was changed last, as far as they are known

    @property
    def shared(self) -> Shared:
        """The page that is there now. Raises OSError."""
        if self._shared is None or not self._shared.in_place:
            try:
                self.folder.mkdir(mode=0o700)
                hand_over(self.folder, self._database.parent)
            except FileExistsError:
                pass
            if self._shared is not None:
                self._shared.close()
                self._shared = None  # if the next line fails, the file may be the one at its path later on
            self._shared = Shared(self.folder / "shared")
        return self._shared

    def all(self) -> list[File]:
        """The existing fronts."""
        there = {path.stem: path for path in sorted(self.folder.glob("*.front"))}
        known = self._known = {name: self._known.get(name) or File(path) for name, path in there.items()}
        return list(known.values())

    def waiting(self) -> list[File]:
        """Those with frames to move, as far as their progress tells. Cheap."""
        try:
            changed = os.stat(self.folder).st_mtime_ns  # noqa: PTH116 - many times a second
        except FileNotFoundError:
            return []
        if changed != self._changed:
            self.all()
            self._changed = changed if _settled(changed) else 0
        return [file for file in self._known.values() if file.waits]

    def tell(self, moved: Mapping[str, int]) -> None:
        """The last number moved by the name of a front, after the commit."""
        for name, number in moved.items():
            file = self._known.get(name) or File(self.folder / f"{name}.front")
            with suppress(OSError, ValueError):  # it is gone; who moves it next finds out
                file.progress.moved = number

    def sync(self) -> None:
        """Put on disk what has been moved. Call before a moved frame is overwritten or removed. Raises OSError."""
        sync_log(self._database)

    def remove(self, file: File) -> None:
        """Remove one once all of it is in the chain. On return the removal is on disk. Raises OSError."""
        self.sync()
        file.path.unlink(missing_ok=True)
        live(file.path).unlink(missing_ok=True)
        sync_folder(self.folder)

    def aside(self) -> list[Path]:
        """Fronts that did not fit this journal, and were never moved into it."""
        return sorted(self.folder.glob(f"*{ASIDE}"))

    def close(self) -> None:
        self._known = {}
        if self._shared is not None:
            self._shared.close()
            self._shared = None


class File:
    """One front, for those who move it."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self._progress: Progress | None = None
        self._aside = ""  # why it was set aside, as it was logged
        self.at = 0
        """After the head, how far it has been moved, as far as this process knows."""

    @property
    def progress(self) -> Progress:
        """Raises OSError, and ValueError if the file is still empty."""
        if self._progress is None:
            self._progress = Progress(self.path)
        return self._progress

    @property
    def waits(self) -> bool:
        try:
            return self.progress.waits
        except (OSError, ValueError):  # also one that this user may not open: its own process moves it
            return False

    @property
    def rest(self) -> int:
        """Octets of synced frames after ``at``."""
        return self.progress.written[0] - self.at

    def synced(self, most: int) -> Iterator[tuple[int, bytes]]:
        """Its synced frames, without waiting for its process; also if it has no name any more. First up to ``most``
        octets from ``at`` on, then all, with their place after the head. Raises OSError, and as ``progress``."""
        (end, _), file = self.progress.written, self.progress.file
        if 0 < self.at < end:
            yield self.at, os.pread(file, min(most, end - self.at), _PAGE + self.at)
        yield 0, os.pread(file, end, _PAGE)

    @property
    def lives(self) -> bool:
        """Whether its process is still alive."""
        try:
            return is_locked(live(self.path))
        except FileNotFoundError:
            return False

    def read(self) -> bytes:
        """Its content (journal.front), once its process has ended. Raises FileNotFoundError."""
        with self.path.open("rb", buffering=0) as file:
            data = bytearray()
            while (piece := file.read(1 << 20)) and piece.count(0) < len(piece):
                data += piece
            return bytes(data)

    def set_aside(self, why: str) -> None:
        """Rename it, so that it is not read again; people are told. Also in a transaction that fails, and so again."""
        if why != self._aside:
            log.error("%s does not belong to this journal, and was set aside: %s", self.path, why)
        self._aside = why
        with suppress(FileNotFoundError):
            self.path.rename(self.path.with_name(f"{self.path.name}{ASIDE}"))
        live(self.path).unlink(missing_ok=True)


def sync_log(path: Path) -> None:
    """Put on disk what any process has committed to the database at ``path``. Without a log all of it was written back.
    Raises OSError."""
    try:
        file = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:  # the locks are on other files, so closing this one gives none up
        os.fsync(file)
    finally:
        os.close(file)


def write_log_again(path: Path) -> None:
    """After a sync of the log failed, in a transaction that has written nothing yet: write what any process has committed
    to it over itself, and sync it. The kernel takes pages that it could not write for written, so a later sync would not
    write them, and after a power failure no commit behind them counts. Raises OSError."""
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


def is_locked(path: Path) -> bool:
    """Whether the process that made this file is still alive: it holds its lock. Raises FileNotFoundError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def live(path: Path) -> Path:
    return path.with_suffix(".live")


def inode(path: Path | str) -> tuple[int, int] | None:
    """Device and inode number of the file at that path; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - several times a write: a Path costs more than the call
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _settled(changed_ns: int) -> bool:
    """Whether a change to a folder is so old that no other one can have the same time, on any file system."""
    return time.time_ns() - changed_ns > _SETTLED_NS


class Paths:
    """Whether files are still at their paths. They are looked at only after something has changed in their folders: once
    the times of a file were asked for, the next write changes them, and its sync writes them too (Linux 6.13)."""

    def __init__(self, *paths: Path) -> None:
        self._paths = [*map(str, paths)]
        self._inodes = [*map(inode, self._paths)]
        self._folders = sorted({str(path.parent) for path in paths})
        self._linked = any(path.is_symlink() for path in paths)  # what it leads to is in another folder
        self._seen: list[tuple[int, int, int]] = []

    @property
    def same(self) -> bool:
        try:
            folders = [(f.st_dev, f.st_ino, f.st_ctime_ns) for f in map(os.stat, self._folders)]
        except OSError:
            return False
        if folders == self._seen:
            return True
        if [*map(inode, self._paths)] != self._inodes:
            return False
        settled = all(_settled(changed) for *_, changed in folders)
        self._seen = folders if settled and not self._linked else []
        return True
