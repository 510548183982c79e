"""Send checkpoints to a witness: a host of somebody else that keeps each, so that root on this host cannot revoke it.

Each is a signed note (journal.note), sent in order, at least once, by one process of the installation: by HTTP to a witness, or
to a syslog server. The note is also logged. The cursors are stored beside those of webhooks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from smtpguard import __version__
from smtpguard.database.access import Access, Clock
from smtpguard.database.errors import LedgerError
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.rows import WITNESS, signed_after
from smtpguard.observe.cursor import Cursor
from smtpguard.observe.webhooks.rows import Cursors

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
LEASE_SECONDS = 120.0
SECONDS = 15.0
WARN_SECONDS = 600.0
SLICE = 20
SYSLOG = "(syslog)"
"""The name of the syslog server's cursor; no webhook has this name."""
_NOTHING = -1  # it has none yet, and gets the newest first, which covers all before


class Sending:
    """The loop of one way. ``name``: of its cursor; ``what``: the receiver, as the log calls it; ``send`` returns the problem, "" if
    the receiver accepted it."""

    def __init__(
        self, access: Access, clock: Clock, name: str, what: str, send: Callable[[Checkpoint], Awaitable[str]]
    ) -> None:
        self._access, self._clock, self._name, self._what, self._send = access, clock, name, what, send
        self._cursors = Cursors(access)
        self._failing = 0.0

    async def run(self) -> None:
        """Forever; if the store or the receiver does not answer, it is tried again."""
        while True:
            try:
                given = await self.give()
            except LedgerError as e:
                log.warning("%s: the store does not answer: %s", self._what, type(e).__name__)
                given = 0
            if given < SLICE:
                await asyncio.sleep(POLL_SECONDS)

    async def give(self) -> int:
        """Send what is new; returns how many it accepted. Raises LedgerError."""
        place = await self._cursors.at(self._name, _NOTHING)
        found = await self._access.ask(lambda c: self._new(c, place.told))
        until = self._clock.now() + timedelta(seconds=LEASE_SECONDS)
        if not found or (leased := await self._cursors.taken(self._name, place, until)) is None:
            return 0
        told, taken, failing_since = leased.told, 0, leased.failing_since
        for made in found:
            problem = await self._send(made)
            self._noted(problem)
            if problem:
                failing_since = leased.failing_since or self._clock.now()
                break
            told, taken, failing_since = made.seq, taken + 1, None
        await self._cursors.settle(self._name, Cursor(told=told, lease=leased.lease, failing_since=failing_since))
        return taken

    def _new(self, connection: Connection, told: int) -> Sequence[Checkpoint]:
        """The checkpoints to send next, after that of entry ``told``."""
        return signed_after(connection, told, SLICE)

    def _noted(self, problem: str) -> None:
        """Logged at once, and again while it lasts."""
        now = self._clock.monotonic()
        if not problem:
            if self._failing:
                log.info("%s takes checkpoints again", self._what)
            self._failing = 0.0
        elif not self._failing or now - self._failing >= WARN_SECONDS:
            self._failing = now
            log.warning("%s did not take a checkpoint: %s: until it does, only this host vouches for the journal", self._what, problem)  # fmt: skip


class Witnessing(Sending):
    """``url``: of the witness; "" for none, then checkpoints are only logged. ``token``: a bearer token for it.
    ``http``: a client for tests."""

    def __init__(
        self,
        access: Access,
        clock: Clock,
        url: str,
        *,
        token: str = "",
        http: httpx2.AsyncClient | None = None,
        tell: Callable[[Checkpoint], None] | None = None,
    ) -> None:
        super().__init__(access, clock, WITNESS if url else f"{WITNESS} log", "the witness", self._given)
        self._url, self._token, self._http = url, token, http
        self._tell = tell or _tell

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def _given(self, made: Checkpoint) -> str:
        self._tell(made)
        return await self._post(made.note) if self._url else ""

    async def _post(self, note: str) -> str:
        """The problem; "" if it was accepted."""
        import httpx2

        if self._http is None:
            self._http = httpx2.AsyncClient(timeout=SECONDS, follow_redirects=False)
        headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": f"smtpguard/{__version__}"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            async with asyncio.timeout(SECONDS), self._http.stream("POST", self._url, content=note.encode(), headers=headers) as answer:  # fmt: skip
                return "" if answer.is_success else f"HTTP {answer.status_code}"
        except (TimeoutError, httpx2.TimeoutException):
            return "no answer in time"
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            return type(error).__name__


def line(made: Checkpoint) -> str:
    """A checkpoint with its note, on one line."""
    note = made.note.replace("\n", "\\n")
    return f"checkpoint of entry {made.seq}: {note}"


def _tell(made: Checkpoint) -> None:
    log.info("%s", line(made))
