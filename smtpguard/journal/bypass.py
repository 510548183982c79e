"""The emergency bypass of one host: who began it and when it ends, and what was relayed under it, as files in the state
folder.

A message is relayed under a bypass only while the store is away, so its verdict is recorded here first. Each process has a front
of its own: a file of lines, each a verdict or its outcome with a CRC, synced one by one. ``Batch.take_fronts`` moves the lines into
the chain once the store is back. A line enters the chain once, whichever process reads it, since its id does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from smtpguard.config.statefiles import hand_over, replace_file, sync_folder
from smtpguard.database.errors import Outage
from smtpguard.database.failpoint import failpoint, passes
from smtpguard.database.fronts import ASIDE
from smtpguard.journal.chain import canonical, parsed, utc_text
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import Fronted
from smtpguard.mail.codec import Codec

log = logging.getLogger(__name__)

_VERSION = 1
_GENERATION = "generation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypass:
    """A bypass of one host. ``people``: who began it, and who agreed; ``user``: the user of the operating system; ``ended``: when it was
    ended early."""

    id: str
    people: tuple[str, str]
    user: str
    host: str
    reason: str
    begins: datetime
    ends: datetime
    ended: datetime | None = None
    ended_by: str = ""

    def is_in_force(self, now: datetime) -> bool:
        """Return whether mail may be relayed under it."""
        return self.ended is None and self.begins <= now < self.ends

    def is_over(self, now: datetime) -> bool:
        """Return whether it has ended. If the clock was set back to before its beginning, it is neither in force nor over."""
        return self.ended is not None or now >= self.ends

    def beginning(self, at: datetime) -> Event:
        """Return the event of its beginning."""
        data = {
            "change": "begun",
            "host": self.host,
            "begins": utc_text(self.begins, "auto"),
            "ends": utc_text(self.ends, "auto"),
        }
        private = {"actor": (*self.people, self.user), "comment": (self.reason,)}
        return Event(kind=Kind.BYPASS, id=self.id, at=at, data=data, private=private)

    def end(self, at: datetime) -> Event:
        """Return the event of its end. ``data.early``: a person ended it before its time."""
        data = {"change": "ended", "ended": utc_text(self.ended or self.ends, "auto"), "early": self.ended is not None}
        private = {"actor": (self.ended_by,)} if self.ended_by else {}
        return Event(kind=Kind.BYPASS, id=self.id, at=at, data=data, private=private)


_BYPASS = Codec(Bypass)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFront:
    """The content of a front. ``bypass``: as it was when the front was made. ``damaged``: a line before the last one cannot be read."""

    journal: str
    bypass: Bypass
    lines: tuple[Fronted, ...]
    damaged: bool


class Bypasses:
    """The folder of a host's bypasses and their fronts, for one process."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "bypass"

    def newest(self) -> Bypass | None:
        """Return the bypass that was begun last, over or not; None also if its file or the folder cannot be read."""
        try:
            paths = sorted(self.folder.glob("*.json"))
        except OSError:
            return None
        return _read(paths[-1]) if paths else None

    def in_force(self, now: datetime) -> Bypass | None:
        """Return the newest bypass if it is in force."""
        found = self.newest()
        return found if found is not None and found.is_in_force(now) else None

    def all(self) -> list[Bypass]:
        """Return all that can be read, oldest first."""
        found = (_read(path) for path in sorted(self.folder.glob("*.json")))
        return [each for each in found if each is not None]

    def begin(self, bypass: Bypass) -> None:
        """Begin a bypass. It is on disk when this returns. Raises OSError."""
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700)
            hand_over(self.folder, self.folder.parent)
        with self.locked(alone=True):
            replace_file(self.folder / f"{bypass.id}.json", _BYPASS.dumps(bypass), durable=True)

    def end(self, now: datetime, by: str) -> Bypass | None:
        """End the bypass in force, and return it; None if there is none. When this returns, no process of this host records anything
        under it. Raises OSError."""
        if not self.folder.is_dir():
            return None
        with self.locked(alone=True):
            found = self.in_force(now)
            if found is not None:
                found = replace(found, ended=now, ended_by=by)
                replace_file(self.folder / f"{found.id}.json", _BYPASS.dumps(found), durable=True)
            return found

    @property
    def generation(self) -> int:
        """The gate's newest generation that a process of this host has begun. A verdict of an earlier one is not recorded."""
        try:
            return int((self.folder / _GENERATION).read_text())
        except FileNotFoundError:
            return 0

    def begin_generation(self, generation: int) -> None:
        """Record the gate's next generation. Call it before the gate moves. Raises OSError."""
        if self.folder.is_dir():
            with self.locked(alone=True):
                replace_file(self.folder / _GENERATION, str(generation), durable=True)

    @contextmanager
    def locked(self, *, alone: bool = False) -> Iterator[None]:
        """Lock the folder: ``alone`` to change what is in force, else together with others that record under it. Raises OSError."""
        path = self.folder / "lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            hand_over(path, self.folder)
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(file)

    @property
    def has_files(self) -> bool:
        """Whether a bypass or a front is on this host: until the bypass is over, and all of it is in the chain."""
        return any(self.folder.glob("*.json")) or any(self.folder.glob("*.front"))

    def fronts(self) -> list[Path]:
        """Return the paths of all fronts."""
        return sorted(self.folder.glob("*.front"))

    def aside(self) -> list[Path]:
        """Return the fronts that were set aside: damaged ones, and those of another journal."""
        return sorted(self.folder.glob(f"*{ASIDE}"))

    def remove(self, bypass: Bypass) -> None:
        """Remove the file of a bypass that is over, and in the chain as a whole."""
        (self.folder / f"{bypass.id}.json").unlink(missing_ok=True)
        sync_folder(self.folder)


class Front:
    """The front of one process, created with its first line, and again after a failed write. One thread at a time may use it."""

    def __init__(self, folder: Bypasses, journal: str) -> None:
        self._folder, self._journal = folder, journal
        self._file, self._files = -1, 0
        self._bypass = ""

    def record(self, bypass: Bypass, verdict: Fronted, now: Callable[[], datetime]) -> bool:
        """Record a verdict. Returns True if it is on disk, under this bypass and the newest generation that this host knows, and
        False if nothing was written. Raises OSError."""
        with self._folder.locked():
            current = self._folder.in_force(now())
            if current is None or current.id != bypass.id or self._folder.generation > verdict.generation:
                return False
            if self._bypass != bypass.id:
                self.close()
                self._make(bypass)
            self._append(verdict)
        return True

    def note(self, outcome: Fronted) -> None:
        """Record the outcome of a verdict that is recorded here. Raises OSError: then the verdict is in doubt."""
        if self._file < 0:
            raise OSError(errno.EIO, "the front of the bypass is closed")
        self._append(outcome)

    def close(self) -> None:
        """Close the file, which then can be removed once all of it is in the chain."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._bypass = -1, ""

    def _make(self, bypass: Bypass) -> None:
        self._files += 1  # they are read in this order: an outcome may be in a later file than its verdict
        path = self._folder.folder / f"{bypass.id}-{self._files:06}-{secrets.token_hex(8)}.front"
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_DSYNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hand_over(path, self._folder.folder)
            _write_all(file, _with_crc(canonical([_VERSION, self._journal, _BYPASS.to(bypass)])))
            sync_folder(self._folder.folder)
        except BaseException:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._file, self._bypass = file, bypass.id

    def _append(self, line: Fronted) -> None:
        before = os.fstat(self._file).st_size
        failpoint("begin")
        passes("bypass", str(next(iter(parsed(line.clear or "{}").get("message_id", ())), line.id)))
        failpoint("before-sync")
        try:
            fields = [line.kind, line.id, line.at, line.body, line.clear, line.key, line.marks, line.generation]
            _write_all(self._file, _with_crc(canonical(fields)))
        except OSError:
            with contextlib.suppress(OSError):  # the client gets 451; if the line stays, the verdict is in doubt
                os.ftruncate(self._file, before)
            self.close()  # no sync is retried after a failure: the next line goes to another file
            raise
        failpoint("after-sync")


def read(path: Path) -> ReadFront | None:
    """Read a front; None if its head cannot be read. A line without its end is left out: its process is writing it, or was killed
    while it did. Raises OSError."""
    head, *rows = [_row_of(octets) for octets in path.read_bytes().split(b"\n")[:-1]] or [None]
    if head is None or head[0] != _VERSION:
        return None
    whole = [row for row in rows if row is not None]
    lines = tuple(
        Fronted(number=0, kind=kind, id=id, at=at, body=body, clear=clear, key=key, marks=marks, generation=generation)
        for kind, id, at, body, clear, key, marks, generation in whole
    )
    damaged = None in rows and rows.index(None) < len(whole)
    return ReadFront(journal=head[1], bypass=_BYPASS.back(head[2]), lines=lines, damaged=damaged)


def remove(path: Path, *, damaged: bool) -> None:
    """Remove a front that is in the chain as a whole, after the commit. ``damaged``: set it aside for people to look at."""
    if damaged:
        set_aside(path, "a line of it cannot be read; the others are in the journal")
    else:
        path.unlink(missing_ok=True)
    sync_folder(path.parent)


def set_aside(path: Path, why: str) -> None:
    """Rename a front so that it is not read again, and log why."""
    log.error("%s was set aside: %s", path, why)
    path.rename(path.with_name(f"{path.name}{ASIDE}"))


def _write_all(file: int, octets: bytes) -> None:
    if os.write(file, octets) != len(octets):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _with_crc(text: str) -> bytes:
    octets = text.encode()
    return b"%08x %s\n" % (zlib.crc32(octets), octets)


def _row_of(octets: bytes) -> Any:
    """Return the fields of a line; None if its CRC does not fit."""
    crc, _, text = octets.partition(b" ")
    return parsed(text.decode()) if crc == b"%08x" % zlib.crc32(text) else None


_UNREAD = Outage(log, "the file of a bypass cannot be read", level=logging.ERROR)
"""One for the process, since the file is read every few seconds."""


def _read(path: Path) -> Bypass | None:
    try:
        return _BYPASS.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        _UNREAD.report(f"{path}: {error}")
        return None
