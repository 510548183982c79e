"""Run a third-party program until the test stops it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.peers.chain import until


class Server:
    """``port``: on 127.0.0.1, listening once the program is ready. ``log``: its output."""

    def __init__(self, words: Sequence[str], port: int, log: Path) -> None:
        self._words, self._port, self.log = words, port, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(self._listens, f"{self._words[0]} to listen")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=120):
            return True
        return False

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            ended(self._process)


def ended(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process; kill it if it does not end."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(120)
    if process.poll() is None:
        process.kill()
        process.wait(120)
