"""Ask a time-stamp authority (RFC 3161) at intervals for a time stamp of the newest checkpoint, and store the reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from smtpguard import __version__
from smtpguard.database.access import Access, Clock
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.rows import signed_after, write_line
from smtpguard.journal.timestamp import APART, FILE, MISSING, Timestamp, Unproven, request, stamped_at
from smtpguard.observe.witnessing import SECONDS, Sending

if TYPE_CHECKING:
    import httpx2
    from cryptography.x509 import Certificate

log = logging.getLogger(__name__)

NAME = "(timestamps)"
"""The name of the authority's cursor; no webhook has this name."""
AGAIN_SECONDS = 60.0
MOST_OCTETS = 100_000
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"  # RFC 3161 section 3.4


class Timestamping(Sending):
    """``roots``: certificates that the authority's must lead to. ``http``: a client for tests."""

    def __init__(
        self,
        access: Access,
        clock: Clock,
        url: str,
        roots: Sequence[Certificate],
        state_dir: Path,
        *,
        every_seconds: float,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(access, clock, NAME, "the time-stamp authority", self._stamp)
        self._url, self._roots, self._state_dir, self._every = url, roots, state_dir, every_seconds
        self._http = http
        self._due = clock.monotonic()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    def _new(self, connection: Connection, told: int) -> Sequence[Checkpoint]:
        """The newest checkpoint, which covers all before it, if a time stamp is due."""
        newest = signed_after(connection, -1, 1) if self._clock.monotonic() >= self._due else ()
        return [made for made in newest if made.seq > told]

    async def _stamp(self, made: Checkpoint) -> str:
        problem = await self._asked(made)
        self._due = self._clock.monotonic() + (min(AGAIN_SECONDS, self._every) if problem else self._every)
        return problem

    async def _asked(self, made: Checkpoint) -> str:
        """The problem, or "" if the reply is valid and on disk."""
        try:
            asked = request(made.note)
        except ImportError:
            return MISSING
        reply = await self._post(asked.octets)
        if isinstance(reply, str):
            return reply
        one = Timestamp(seq=made.seq, note=made.note, nonce=asked.nonce, reply=reply)
        try:
            at = await asyncio.to_thread(stamped_at, one, self._roots)
            await asyncio.to_thread(write_line, self._state_dir, one.line(), FILE)
        except Unproven as problem:
            return str(problem)
        except OSError as error:
            return f"its reply cannot be kept: {error.strerror}"
        apart = self._clock.now() - at
        if abs(apart) > APART:
            where = "behind" if apart.total_seconds() < 0 else "ahead of"
            minutes = abs(apart).total_seconds() / 60
            log.warning("the clock of this host is %d minutes %s that of the time-stamp authority", minutes, where)
        return ""

    async def _post(self, query: bytes) -> bytes | str:
        """The reply, or the problem."""
        import httpx2

        if self._http is None:
            self._http = httpx2.AsyncClient(timeout=SECONDS, follow_redirects=False)
        headers = {"Content-Type": _QUERY, "Accept": _REPLY, "User-Agent": f"smtpguard/{__version__}"}
        reply = b""
        try:
            async with asyncio.timeout(SECONDS), self._http.stream("POST", self._url, content=query, headers=headers) as answer:  # fmt: skip
                if not answer.is_success:
                    return f"HTTP {answer.status_code}"
                async for some in answer.aiter_bytes():
                    reply += some
                    if len(reply) > MOST_OCTETS:
                        return "its reply is too long"
        except (TimeoutError, httpx2.TimeoutException):
            return "no answer in time"
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            return type(error).__name__
        return reply
