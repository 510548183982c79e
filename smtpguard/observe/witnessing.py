"""Send checkpoints out of this host, so that root on it cannot revoke them: to a witness, which keeps each, to a syslog server,
and at intervals the newest to a time-stamp authority (RFC 3161), whose reply is stored.

Each is a signed note (journal.checkpoint), sent in order, at least once, by one process of the installation. The note is also
logged. The cursors are stored beside those of webhooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from smtpguard.journal.chain import Cursor, utc_text
from smtpguard.journal.checkpoint import WITNESS, Checkpoint
from smtpguard.journal.clock import Clock
from smtpguard.journal.linefiles import TIMESTAMPS, write_line
from smtpguard.journal.timestamp import APART, MISSING, Timestamp, Unproven, request, stamped_at
from smtpguard.observe.webhooks import Sender

if TYPE_CHECKING:
    import httpx2
    from cryptography.x509 import Certificate

    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
SECONDS = 15.0
WARN_SECONDS = 600.0
SLICE = 20
SYSLOG = "(syslog)"
"""The name of the syslog server's cursor; no webhook has this name."""
_NOTHING = -1  # it has none yet, and gets the newest first, which covers all before


class Sending(ABC):
    """One way; ``give`` is called every few seconds. ``name``: of its cursor; ``what``: the receiver, as the log calls it.
    ``http``: a client for tests."""

    def __init__(
        self, store: Store, clock: Clock, name: str, what: str, http: httpx2.AsyncClient | None = None
    ) -> None:
        self._store, self._clock, self._name, self.what = store, clock, name, what
        self._sender = Sender(connect_seconds=SECONDS, http=http)
        self._failing = 0.0

    async def close(self) -> None:
        await self._sender.close()

    async def give(self) -> int:
        """Send what is new. Return how many the receiver accepted. Raises StoreError."""
        place = await self._store.cursors.at(self._name, _NOTHING)
        found = await self._new(place.told)
        until = self._clock.now() + timedelta(seconds=LEASE_SECONDS)
        if not found or (leased := await self._store.cursors.lease(self._name, place, until)) is None:
            return 0
        told, taken, failing_since = leased.told, 0, leased.failing_since
        for made in found:
            problem = await self._send(made)
            self._noted(problem)
            if problem:
                failing_since = leased.failing_since or self._clock.now()
                break
            told, taken, failing_since = made.seq, taken + 1, None
        await self._store.cursors.settle(self._name, Cursor(told=told, lease=leased.lease, failing_since=failing_since))
        return taken

    @abstractmethod
    async def _send(self, made: Checkpoint) -> str:
        """Return the problem, "" if the receiver accepted it."""

    async def _new(self, told: int) -> Sequence[Checkpoint]:
        """Return the checkpoints to send next, after that of entry ``told``."""
        return await self._store.journal.checkpoints(told, SLICE)

    def _noted(self, problem: str) -> None:
        """Log a problem at once, and again while it lasts."""
        now = self._clock.monotonic()
        if not problem:
            if self._failing:
                log.info("%s takes checkpoints again", self.what)
            self._failing = 0.0
        elif not self._failing or now - self._failing >= WARN_SECONDS:
            self._failing = now
            log.warning("%s did not take a checkpoint: %s; it is sent again", self.what, problem)


class Witnessing(Sending):
    """``url``: of the witness; "" for none, then checkpoints are only logged. ``token``: a bearer token for it."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        url: str,
        *,
        token: str = "",
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(store, clock, WITNESS if url else f"{WITNESS} log", "the witness", http)
        self._url, self._token = url, token
        self._logged = 0  # the entry of the last checkpoint in the log

    async def _send(self, made: Checkpoint) -> str:
        if made.seq != self._logged:  # it may be sent several times
            log.info("%s", line(made))
            self._logged = made.seq
        if not self._url:
            return ""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return (await self._sender.post(self._url, made.note.encode(), headers)).problem


def line(made: Checkpoint) -> str:
    note = made.note.replace("\n", "\\n")
    return f"checkpoint of entry {made.seq}: {note}"


NAME = "(timestamps)"
"""The name of the authority's cursor; no webhook has this name."""
AGAIN_SECONDS = 60.0
MOST_OCTETS = 100_000
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"  # RFC 3161 section 3.4


class Timestamping(Sending):
    """``roots``: certificates that the authority's must lead to."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        url: str,
        roots: Sequence[Certificate],
        state_dir: Path,
        *,
        every_seconds: float,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(store, clock, NAME, "the time-stamp authority", http)
        self._url, self._roots, self._state_dir, self._every = url, roots, state_dir, every_seconds
        self._due = clock.monotonic()

    async def _new(self, told: int) -> Sequence[Checkpoint]:
        """The newest checkpoint, which covers all before it, if a time stamp is due."""
        newest = await self._store.journal.checkpoints(-1, 1) if self._clock.monotonic() >= self._due else ()
        return [made for made in newest if made.seq > told]

    async def _send(self, made: Checkpoint) -> str:
        problem = await self._asked(made)
        self._due = self._clock.monotonic() + (min(AGAIN_SECONDS, self._every) if problem else self._every)
        return problem

    async def _asked(self, made: Checkpoint) -> str:
        """The problem, or "" if the reply is valid and on disk."""
        try:
            asked = request(made.note)
        except ImportError:
            return MISSING
        headers = {"Content-Type": _QUERY, "Accept": _REPLY}
        answered = await self._sender.post(self._url, asked.octets, headers, most=MOST_OCTETS)
        if answered.problem:
            return answered.problem
        one = Timestamp(seq=made.seq, note=made.note, nonce=asked.nonce, reply=answered.reply)
        try:
            at = await asyncio.to_thread(stamped_at, one, self._roots)
            await asyncio.to_thread(write_line, self._state_dir, TIMESTAMPS, one.line())
        except Unproven as error:
            return str(error)
        except OSError as error:
            return f"its reply cannot be kept: {error.strerror}"
        apart = self._clock.now() - at
        if abs(apart) > APART:
            where = "behind" if apart.total_seconds() < 0 else "ahead of"
            minutes = abs(apart).total_seconds() / 60
            log.warning("the clock of this host is %d minutes %s that of the time-stamp authority", minutes, where)
        return ""


PRIORITY = 13 * 8 + 5
"""Facility "log audit", severity "notice" (RFC 5424 section 6.2.1)."""
PORT = 514


class Syslog(Sending):
    """A syslog server, which gets checkpoints as they are (RFC 5424): over a local socket, UDP (RFC 5426) or TCP (RFC 6587, with octet counts).

    ``url``: unix:///dev/log, udp://HOST:PORT or tcp://HOST:PORT. A stream is kept open, and opened anew once it fails.
    """

    def __init__(self, store: Store, clock: Clock, url: str, host: str) -> None:
        super().__init__(store, clock, SYSLOG, "the syslog server")
        parts = urlsplit(url)
        self._kind, self._path = parts.scheme, unquote(parts.path)
        self._place = (parts.hostname or "", parts.port or PORT)
        self._host = host
        self._stream: asyncio.StreamWriter | None = None

    async def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await stream.wait_closed()

    async def _send(self, made: Checkpoint) -> str:
        """No syslog server confirms that it has stored it."""
        text = self._message(made)
        try:
            async with asyncio.timeout(SECONDS):
                await (self._streamed(text) if self._kind == "tcp" else self._datagram(text))
        except TimeoutError:
            problem = "no answer in time"
        except OSError as error:
            problem = error.strerror or type(error).__name__
        else:
            return ""
        await self.close()
        return problem

    def _message(self, made: Checkpoint) -> bytes:
        """One message, without a byte order mark: the note's dash is UTF-8, and receivers look for it as it is."""
        stamp = utc_text(self._clock.now(), "milliseconds")
        return f"<{PRIORITY}>1 {stamp} {self._host or '-'} smtpguard {os.getpid()} checkpoint - {line(made)}".encode()

    async def _streamed(self, text: bytes) -> None:
        if self._stream is not None and self._stream.is_closing():
            await self.close()
        if self._stream is None:
            reader, self._stream = await asyncio.open_connection(*self._place)
            self._reader = reader
        elif self._reader.at_eof():  # the server has left: what is written now would be lost
            raise ConnectionResetError(None, "the server has closed the connection")
        self._stream.write(b"%d %b" % (len(text), text))
        await self._stream.drain()

    async def _datagram(self, text: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._kind == "unix":
            family, place = socket.AF_UNIX, self._path
        else:
            found = await loop.getaddrinfo(*self._place, type=socket.SOCK_DGRAM)
            family, place = found[0][0], found[0][4]  # type: ignore[assignment]
        with socket.socket(family, socket.SOCK_DGRAM) as datagram:
            datagram.setblocking(False)
            await loop.sock_connect(datagram, place)
            await loop.sock_sendall(datagram, text)
