"""Send checkpoints to a witness: a host of somebody else that keeps each, so that root on this host cannot revoke it.

Each is a POST of the signed note (journal.note), in order, at least once, by one process of the installation. The note
is also logged. The witness's cursor is stored beside the webhooks' cursors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from smtpguard import __version__
from smtpguard.database.access import Access, Clock
from smtpguard.database.errors import LedgerError
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.rows import WITNESS, signed_after
from smtpguard.observe.told import Place
from smtpguard.observe.webhooks.rows import Cursors

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
LEASE_SECONDS = 120.0
SECONDS = 15.0
WARN_SECONDS = 600.0
SLICE = 20
_NOTHING = -1  # it has none yet, and gets the newest first, which covers all before


class Witnessing:
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
        self._access, self._clock, self._url, self._token, self._http = access, clock, url, token, http
        self._cursors = Cursors(access)
        self._tell = tell or _tell
        self._failing = 0.0

    async def run(self) -> None:
        """Forever; if the store or the witness does not answer, it is tried again."""
        while True:
            try:
                given = await self.give()
            except LedgerError as e:
                log.warning("the witness: the store does not answer: %s", type(e).__name__)
                given = 0
            if given < SLICE:
                await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def give(self) -> int:
        """Send what is new; returns how many it accepted. Raises LedgerError."""
        name = WITNESS if self._url else f"{WITNESS} log"
        place = await self._cursors.at(name, _NOTHING)
        found = await self._access.ask(lambda c: signed_after(c, place.told, SLICE))
        if not found:
            return 0
        leased = await self._cursors.lease(name, self._clock.now() + timedelta(seconds=LEASE_SECONDS))
        if leased is None:
            return 0
        if leased.told != place.told:  # another delivery part was faster
            await self._cursors.settle(name, leased)
            return 0
        told, taken = leased.told, 0
        for made in found:
            self._tell(made)
            problem = await self._post(made.note) if self._url else ""
            self._noted(problem)
            if problem:
                break
            told, taken = made.seq, taken + 1
        await self._cursors.settle(name, Place(told=told, lease=leased.lease))
        return taken

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

    def _noted(self, problem: str) -> None:
        """Logged at once, and again while it lasts."""
        now = self._clock.monotonic()
        if not problem:
            if self._failing:
                log.info("the witness takes checkpoints again")
            self._failing = 0.0
        elif not self._failing or now - self._failing >= WARN_SECONDS:
            self._failing = now
            log.warning("the witness did not take a checkpoint: %s: until it does, the journal is this host's word alone", problem)  # fmt: skip


def _tell(made: Checkpoint) -> None:
    log.info("checkpoint of entry %d: %s", made.seq, made.note.replace("\n", "\\n"))
