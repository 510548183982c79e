"""Connections to the relay, kept and shared: fair, bounded in number and in waiting (RFC 5321 section 4.5.4.1).

Whoever asks gets an idle connection at once, else waits in line while one is opened, and is refused after a while. A
connection comes back clean, or is reset, or is thrown away. That the relay could not be reached is remembered for a
moment, so that everybody is told at once. Never here: the SMTP of opening one (handshake) or of a transaction (relay).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from smtpguard.mail.reply import BUSY, RELAY_UNAVAILABLE, Reply
from smtpguard.wire.handshake import open_connection, tls_context
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget


class RelayPool:
    """All connections of this process to one relay. To be made and used in one event loop; reads the TLS files when made."""

    def __init__(self, target: RelayTarget) -> None:
        self.target = target
        self._context = tls_context(target)
        self._idle: deque[tuple[RelayConnection, float]] = deque()  # the latest used at the right, with since when
        self._waiting: deque[asyncio.Future[RelayConnection]] = deque()
        self._opening: set[asyncio.Task[RelayConnection]] = set()
        self._open: set[RelayConnection] = set()
        self._extensions: Mapping[str, str] | None = None
        self._failure: RelayUnavailable | None = None
        self._failed_until = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Connections that are open or being opened."""
        return len(self._open) + len(self._opening)

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def acquire(self, *, fresh: bool = False) -> RelayConnection:
        """A clean connection; ``fresh``: one that nobody has used, since idle ones may have died unheard.

        Raises RelayUnavailable: at once while the relay is known to be down, else after ``wait_seconds``.
        """
        if fresh:
            while self._idle:
                self._part(self._idle.pop()[0])
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.clean:
                return connection
            connection.abort("not clean while idle")
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RelayUnavailable("the pool is closed")
        waiter: asyncio.Future[RelayConnection] = loop.create_future()
        self._waiting.append(waiter)
        self._open_more()
        try:
            async with asyncio.timeout(self.target.wait_seconds):
                return await waiter
        except TimeoutError:
            self._forgo(waiter)
            why = f"no connection within {self.target.wait_seconds:g} s"
            raise RelayUnavailable(why, BUSY if self._open else RELAY_UNAVAILABLE) from None
        except asyncio.CancelledError:
            self._forgo(waiter)
            raise

    def release(self, connection: RelayConnection) -> None:
        """Give it back after use, in whatever state it is; RSET is sent first if it is not clean."""
        if not connection.usable or connection not in self._open:
            self.discard(connection)
        elif self._closed or connection.messages >= self.target.messages_per_connection:
            self._part(connection)
            self._open_more()
        elif connection.clean:
            self._hand_over(connection)
        else:
            connection.reset().add_done_callback(lambda reply: self._was_reset(connection, reply))

    def discard(self, connection: RelayConnection) -> None:
        """Drop it: nobody can know what state it is in."""
        connection.abort("discarded")
        self._gone(connection)

    async def extensions(self) -> Mapping[str, str]:
        """What the relay offered in the latest session. Raises RelayUnavailable if there never was one."""
        if self._extensions is None:
            connection = await self.acquire()
            self.release(connection)
            return connection.extensions
        return self._extensions

    async def close(self) -> None:
        """Quit the idle, give up the opening, refuse who waits. Connections in use are ended as they come back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._idle:
            self._part(self._idle.pop()[0])
        for task in tuple(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._refuse_all(RelayUnavailable("the pool is closed"))

    # within

    def _open_more(self) -> None:
        """Open as many as are waited for, within the limit; none just after a failure."""
        if self._failure is not None and asyncio.get_running_loop().time() < self._failed_until:
            if not self._open and not self._opening:  # with one that works, the others may wait for it
                self._refuse_all(self._failure)
            return
        while not self._closed and len(self._opening) < len(self._waiting) and self.size < self.target.connections:
            task = asyncio.create_task(open_connection(self.target, self._context))
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[RelayConnection]) -> None:
        self._opening.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            connection = task.result()
            self._failure = None
            self._extensions = connection.extensions
            self._open.add(connection)
            connection.on_lost = self._gone
            self.release(connection)
        else:
            unforeseen = RelayUnavailable(f"opening a session: {type(error).__name__}")
            self._failure = error if isinstance(error, RelayUnavailable) else unforeseen
            self._failed_until = asyncio.get_running_loop().time() + self.target.down_seconds
            if not self._open and not self._opening:  # whoever waited for this is told, not made to wait for another
                self._refuse_all(self._failure)
        self._open_more()

    def _forgo(self, waiter: asyncio.Future[RelayConnection]) -> None:
        """Somebody waits no longer; a connection handed over at that very moment goes to the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self.release(waiter.result())

    def _hand_over(self, connection: RelayConnection) -> None:
        """To the first in line, else to the idle."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        loop = asyncio.get_running_loop()
        self._idle.append((connection, loop.time()))
        if self._sweeper is None:
            self._sweeper = loop.call_later(self.target.idle_seconds, self._sweep)

    def _was_reset(self, connection: RelayConnection, reply: asyncio.Future[Reply | None]) -> None:
        answered = reply.result()
        if answered is None or not answered.positive:
            self.discard(connection)
        else:
            connection.begun(connection.extensions)
            self.release(connection)

    def _gone(self, connection: RelayConnection) -> None:
        self._open.discard(connection)
        self._idle = deque(entry for entry in self._idle if entry[0] is not connection)
        self._open_more()

    def _part(self, connection: RelayConnection) -> None:
        self._open.discard(connection)
        connection.quit()

    def _sweep(self) -> None:
        """Part from those that were idle too long."""
        loop = asyncio.get_running_loop()
        self._sweeper = None
        while self._idle and self._idle[0][1] + self.target.idle_seconds <= loop.time():
            self._part(self._idle.popleft()[0])
        if self._idle:
            self._sweeper = loop.call_at(self._idle[0][1] + self.target.idle_seconds, self._sweep)

    def _refuse_all(self, failure: RelayUnavailable) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(RelayUnavailable(failure.why, failure.reply))
