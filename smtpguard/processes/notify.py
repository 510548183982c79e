"""Notify systemd (sd_notify(3)): READY, RELOADING, WATCHDOG, STOPPING. Without NOTIFY_SOCKET nothing happens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Datagrams to the service manager. Best effort: an error stops nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "") if watched else ""
        self.watchdog_seconds = int(usec) / 1_000_000 if usec.isdigit() else None
        """How long the manager waits for WATCHDOG=1 before it kills us; None: no watchdog."""

    @property
    def managed(self) -> bool:
        """Whether there is a service manager."""
        return bool(self._address)

    def send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass

    def ready(self, status: str) -> None:
        self.send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def watchdog(self) -> None:
        self.send("WATCHDOG=1")

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=finishing open transactions")

    def not_yet(self, seconds: float, status: str = "preparing database, policy and lists") -> None:
        """Extend the start timeout: the start takes at least ``seconds`` from now on."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", f"STATUS={status}")

    def status(self, text: str) -> None:
        self.send(f"STATUS={text}")
