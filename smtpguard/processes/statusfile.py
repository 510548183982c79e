"""The state of a process tree, for systemd (sd_notify(3)) and in a file in the state folder, rewritten every few seconds while the tree lives.

It needs no part of the tree, no store and no port, so it can be read when nothing else answers. If a file is old, or
its process is gone, the tree has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smtpguard.config.statefiles import overwrite_file, replace_file
from smtpguard.processes.numbers import CLOCK_AHEAD, Numbers

if TYPE_CHECKING:
    from smtpguard.processes.child import Child

FOLDER = "trees"
EVERY_SECONDS = 2.0
OLD_SECONDS = 30.0
_OCTETS = 4096
"""The length of the file, with room for later states of the same tree."""


class StatusFile:
    """Writes the state of this process and its children. No error here stops the tree."""

    def __init__(self, state: Path) -> None:
        self._path = _place(state, socket.gethostname(), os.getpid())
        self._began = time.time()
        self._written = float("-inf")
        for tree in trees(state):  # files of trees that were killed: one has room for this one's on a full disk
            if not tree.alive and tree.row.get("host") == socket.gethostname():
                with contextlib.suppress(OSError):
                    tree.path.replace(self._path)

    def row(self, now: float, children: Iterable[Child], numbers: Numbers, *, stopping: bool) -> dict[str, Any]:
        """The state, for ``write``. ``now``: by the loop's clock."""
        return {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "began": self._began,
            "at": time.time(),
            "stopping": stopping,
            "counts": dict(numbers.with_refusals),
            "store": numbers.store,
            "clock_ahead": numbers.levels[CLOCK_AHEAD],
            "parts": [
                {
                    "name": child.name,
                    "part": child.part,
                    "pid": child.pid,
                    "ready": child.ready,
                    "seconds": round(child.lived_seconds(now), 1) if child.pid is not None else None,
                    "silent_seconds": round(child.silent_seconds(now), 1) if child.pid is not None else None,
                }
                for child in children
            ],
        }

    def write(self, now: float, row: Mapping[str, Any]) -> None:
        """Write the state if it is due."""
        if now - self._written < EVERY_SECONDS:
            return
        self._written = now
        text = json.dumps(row) + "\n"
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(self._path, text.ljust(_OCTETS), durable=False)
        except OSError:  # a full disk has no room for another file; this one keeps its own
            with contextlib.suppress(OSError):
                overwrite_file(self._path, text)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The state of a tree from its file. ``alive``: it was written lately, by a process that exists. ``silent``: that process exists
    and has not written for long: it hangs, or cannot write there. ``row``: as in the file."""

    path: Path
    alive: bool
    row: Mapping[str, Any]
    silent: bool = False

    @property
    def serves(self) -> bool:
        return self.alive and not self.row.get("stopping")

    @property
    def parts(self) -> Sequence[Mapping[str, Any]]:
        parts: Sequence[Mapping[str, Any]] = self.row.get("parts", ())
        return parts


def trees(state: Path, own: Mapping[str, Any] | None = None) -> Iterator[Tree]:
    """Return the trees with a file, the newest first, none if the folder cannot be read. ``own``: the state of the caller's tree,
    which its supervisor told it, since a read-only disk keeps an old file."""
    rows: dict[Path, Mapping[str, Any]] = {}
    with contextlib.suppress(OSError):
        for file in (state / FOLDER).iterdir():
            if file.suffix == ".json":
                with contextlib.suppress(OSError, ValueError):  # deleted meanwhile, or of another version
                    rows[file] = json.loads(file.read_text(encoding="utf-8"))
    if own:
        rows[_place(state, own["host"], own["pid"])] = own
    found = []
    for file, row in rows.items():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # of another version
            new = abs(time.time() - row["at"]) < OLD_SECONDS
            there = row["host"] != socket.gethostname() or runs(int(row["pid"]))  # of another host only the time counts
            found.append(Tree(path=file, alive=new and there, row=row, silent=there and not new and _is_ours(row)))
    yield from sorted(found, key=lambda tree: -float(tree.row["at"]))


def hidden(state: Path) -> str:
    """Return why this user cannot read the files, "" if he can or there are none."""
    try:
        os.scandir(state / FOLDER).close()
    except FileNotFoundError:
        return ""
    except OSError as error:
        advice = "; run status as root, or as the user of smtpguard serve" if isinstance(error, PermissionError) else ""
        return f"{error.filename}: {error.strerror}{advice}"
    return ""


def _place(state: Path, host: str, pid: int) -> Path:
    return state / FOLDER / f"{host}-{pid}.json"


def runs(pid: int) -> bool:
    """Return whether this host has such a process, of whichever user."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _is_ours(row: Mapping[str, Any]) -> bool:
    """Return whether the process of a file is on this host, and no other that has got its number since."""
    try:
        return row["host"] == socket.gethostname() and b"smtpguard" in Path(f"/proc/{row['pid']}/cmdline").read_bytes()
    except OSError:
        return False


class Notifier:
    """Sends datagrams to the service manager. An error stops nothing. A change of state that the manager cannot take now,
    because its queue is full or it starts anew, is sent again before the next datagram: the manager waits for READY=1."""

    def __init__(self) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = os.environ.get("WATCHDOG_USEC", "") if watched else ""
        self.watchdog_seconds = int(usec) / 1_000_000 if usec.isdigit() else None
        """How long the manager waits for WATCHDOG=1 before it kills the tree; None without a watchdog."""
        self._unsent = deque[bytes]()

    @property
    def managed(self) -> bool:
        return bool(self._address)

    def send(self, *lines: str, kept: bool = False) -> None:
        """Send a datagram. ``kept``: try again until it is sent."""
        if not self._address:
            return
        self._unsent.append("\n".join(lines).encode())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                while self._unsent:
                    sock.sendto(self._unsent[0], self._address)
                    self._unsent.popleft()
        except OSError:
            if not kept:
                self._unsent.pop()

    def ready(self, status: str) -> None:
        self.send("READY=1", f"STATUS={status}", kept=True)

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={now}", kept=True)

    def watchdog(self) -> None:
        self.send("WATCHDOG=1")

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=finishing open transactions", kept=True)

    def not_yet(self, seconds: float, status: str = "preparing database, policy and lists") -> None:
        """Extend the start timeout to ``seconds`` from now."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", f"STATUS={status}")
