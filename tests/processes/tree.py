"""A real process tree: a supervisor of toy parts in its own process, and a service manager that gets its notifications."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TOY = Path(__file__).parent / "toy.py"
PATIENCE = 120.0
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Tree:
    """A running supervisor. ``notices``: its datagrams to the service manager."""

    def __init__(self, process: subprocess.Popen[str], notices: socket.socket) -> None:
        self.process = process
        self.notices = notices
        assert process.stdout is not None
        self.port: int = (json.loads(process.stdout.readline()) or [0])[0]
        self.seen: list[str] = []

    def until(self, word: str) -> None:
        """Wait until the service manager has been sent ``word``."""
        deadline = time.monotonic() + PATIENCE
        while not any(word in text for text in self.seen):
            self.notices.settimeout(max(0.01, deadline - time.monotonic()))
            self.seen.append(self.notices.recv(4096).decode())
        self.seen = [text for text in self.seen if word not in text]

    def connect(self) -> tuple[socket.socket, int]:
        """Connect; return the socket and the pid of the part that greeted, 0 without a greeting."""
        sock = self.waiting()
        greeting = sock.recv(100)
        return sock, int(greeting.split()[1]) if greeting.startswith(b"220") else 0

    def waiting(self) -> socket.socket:
        """A connection whose greeting is not read."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def greets(self, right: Callable[[int], bool]) -> None:
        """Connect until ``right`` accepts the pid of the part that greets (0: no greeting)."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            sock, pid = self.connect()
            sock.close()
            if right(pid):
                return
        raise AssertionError(f"the last was {pid}")

    def line(self, *words: str) -> str:
        """The next line of its log that has all ``words``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if all(word in line for word in words):
                return line
        raise AssertionError("it has ended")

    def said(self) -> str:
        """Its log. Waits for its end."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


Grow = Callable[..., Tree]


@contextlib.contextmanager
def growing(tmp_path: Path) -> Iterator[Grow]:
    """A function that starts trees: ``parts`` by name, listening on ``ports`` or on the inherited socket ``given``. For
    other options see toy."""
    with contextlib.ExitStack() as undo:

        def start(
            parts: Sequence[str], *, given: socket.socket | None = None, ports: Sequence[int] = (0,), **options: object
        ) -> Tree:
            notices = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notices.bind(str(tmp_path / "notify"))
            log = undo.enter_context((tmp_path / "log").open("w"))
            environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
            command = [sys.executable, str(TOY), json.dumps(ports), json.dumps(parts), json.dumps(options)]
            if given is not None:  # as a service manager does: descriptor 3, and LISTEN_PID
                command = [sys.executable, "-c", ACTIVATE, str(given.fileno()), *command]
            process = undo.enter_context(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ,
                    pass_fds=[given.fileno()] if given else [],
                )
            )  # fmt: skip
            undo.callback(process.kill)
            return Tree(process, notices)

        yield start


def ask(sock: socket.socket, word: str) -> bytes:
    sock.sendall(word.encode())
    return sock.recv(100)


def gone(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        select.select([], [], [], 0.02)
    return False
