"""Record under an emergency bypass of this host while the store is away: a thread writes this process's front, and a task has it
moved into the chain once the store is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from smtpguard.database.errors import Full, Outage, StoreError, Unavailable, no_space
from smtpguard.database.files import inode
from smtpguard.journal.bypass import Bypass, Bypasses, Front
from smtpguard.journal.chain import Seal, microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import Fronted, fronted

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""The time between two looks at whether the store is back."""
WAIT_SECONDS = 20.0
"""The longest that a message waits for its record."""


class Bypassed:
    """The bypass as one process uses it, made by app.guardline."""

    def __init__(
        self,
        folder: Bypasses,
        *,
        path: str,
        journal: str,
        secret: bytes,
        now: Callable[[], datetime],
        take: Callable[[], Awaitable[object]],
        note: Callable[[Event], None],
    ) -> None:
        """``path``: of a SQLite database, else "". ``take``: moves the fronts into the chain. ``note``: takes an outcome for the journal
        that cannot be recorded here."""
        self._folder, self._path, self._now, self._take, self._note = folder, path, now, take, note
        self._inode = inode(path) if path else None
        self._seal = Seal(secret, journal)
        self._front = Front(folder, journal)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="smtpguard-bypass")
        self._open = 0  # verdicts without an outcome yet

    def in_force(self) -> Bypass | None:
        """Return the bypass in force; None also if the database's file is gone, or is another one."""
        if self._path and inode(self._path) != self._inode:
            return None
        return self._folder.in_force(self._now())

    @property
    def generation(self) -> int:
        """The gate's newest generation that this host knows. Raises OSError."""
        return self._folder.generation

    async def record(self, bypass: Bypass, event: Event, *, key: str, marks: str, generation: int) -> bool:
        """Record a verdict, as Front.record. Raises TimeoutError, Full and Unavailable."""
        verdict = self._line(event, key=key, marks=marks, generation=generation)
        writing = self._thread.submit(self._front.record, bypass, verdict, self._now)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                there = await asyncio.shield(asyncio.wrap_future(writing))
        except TimeoutError:
            writing.add_done_callback(partial(self._note_unanswered, event))
            raise
        except OSError as error:
            log.error("the front of the bypass cannot be written: %s", error.strerror or error)
            raise (Full if no_space(error) else Unavailable)(f"the front of the bypass: {error.strerror}") from None
        self._open += there
        return there

    def _note_unanswered(self, event: Event, writing: Future[bool]) -> None:
        """Record that a verdict that was written too late is not carried out."""
        if writing.exception() is None and writing.result():
            self._write(Event(kind=Kind.OUTCOME, id=event.id, at=self._now(), data={"outcome": "unanswered"}))

    def note(self, event: Event) -> None:
        """Record an outcome. If it can be recorded neither here nor in the journal, its verdict is in doubt once this process has
        ended."""
        self._open -= 1
        self._thread.submit(self._write, event).add_done_callback(
            partial(self._check_noted, event, asyncio.get_running_loop())
        )

    def _write(self, event: Event) -> None:
        self._front.note(self._line(event))

    def _check_noted(self, event: Event, loop: asyncio.AbstractEventLoop, writing: Future[None]) -> None:
        if writing.exception() is not None:
            log.warning("transaction %s: its outcome could not be recorded beside the store", event.id)
            loop.call_soon_threadsafe(self._note, event)

    def _line(self, event: Event, **more: Any) -> Fronted:
        return fronted(replace(event, data={**event.data, "happened": microseconds(event.at)}), self._seal, **more)

    async def run(self) -> None:
        """Settle every so often. It never returns."""
        outage = Outage(log, "what the bypass recorded could not be moved into the journal, tried again")
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.settle()
            except Exception as error:  # mail goes on all the same
                outage.report(error, trace=True)
            else:
                outage.end()

    async def settle(self) -> None:
        """Close a front that is complete, and have all fronts moved into the chain if the store is there."""
        if self._open <= 0 and self.in_force() is None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._front.close)
        if self._folder.has_files:
            try:
                await self._take()
            except (StoreError, TimeoutError):
                return  # it is still away

    def close(self) -> None:
        self._thread.shutdown()
        self._front.close()
