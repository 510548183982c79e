"""Reload on SIGHUP: run the reload command in a process of its own, one at a time, and drop no request."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Sequence

import structlog

_log = structlog.get_logger("smtpguard.supervisor")


class Reloads:
    """``begins`` and ``over`` are called around each reload."""

    def __init__(self, command: Sequence[str], *, begins: Callable[[], None], over: Callable[[], None]) -> None:
        self._command = command
        self._begins, self._over = begins, over
        self._running: asyncio.Task[None] | None = None
        self._again = False

    def asked(self) -> None:
        """During a reload another one is queued: the running one may have read the file before it was changed."""
        if not self._command:
            return
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        else:
            self._again = True

    def cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            await self._once()

    async def _once(self) -> None:
        self._begins()
        done = await asyncio.to_thread(
            subprocess.run, self._command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        said = (done.stderr or done.stdout).strip().splitlines()
        if done.returncode == 0:
            _log.info("reloaded", said=said)
        else:
            _log.error("reload failed; the policy in force stays", status=done.returncode, said=said)
        self._over()
