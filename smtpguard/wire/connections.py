"""The open connections of one listener: counted, looked at for time, and closed.

A connection comes as an accepted socket from the supervisor. One timer checks all of them. The guard's decision on a
message runs here, so that it is recorded to its end even if the connection is gone. So the listener is quiet only when no
connection is open and nothing is being decided.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from smtpguard.mail import reply
from smtpguard.mail.constant import maker
from smtpguard.mail.envelope import Lost, Onward, Recalled, Transaction
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Relayed, Taken
from smtpguard.wire.events import Carried
from smtpguard.wire.listener import Listener
from smtpguard.wire.turnedaway import TurnedAway, Why

log = logging.getLogger("smtpguard.wire")

Admit = Callable[[Transaction, Onward], Awaitable[Disposition]]
"""Decide on a message and act: the guard."""
_new_carried = maker(Carried)


class Connection(Protocol):
    def look(self, now: float) -> None:
        """Close it if the other side took too long."""

    def stop(self) -> None:
        """Close it if it is idle; let a message in progress finish."""

    def cut_off(self) -> None: ...


C = TypeVar("C", bound=Connection)


class Connections(ABC, Generic[C]):
    """Made and used in one event loop."""

    look_seconds = 1.0
    """How often they are looked at."""

    def __init__(
        self,
        listener: Listener,
        admit: Admit,
        *,
        new_id: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
        turned_away: Callable[[TurnedAway], None] = lambda mail: None,
    ) -> None:
        """``turned_away``: called for each message that is refused without a verdict."""
        self.listener, self.new_id, self.monotonic, self.turned_away = listener, new_id, monotonic, turned_away
        self.loop = asyncio.get_running_loop()
        self._admit = admit
        tls = listener.tls
        self._from_the_start: dict[str, Any] = {}
        if tls is not None and tls.implicit:
            self._from_the_start = {"ssl": tls.context, "ssl_handshake_timeout": tls.handshake_seconds}
        self._open: dict[C, Callable[[], None] | None] = {}
        self._deciding = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._timer: asyncio.TimerHandle | None = None
        self.stopping = False

    @property
    def connections(self) -> int:
        return len(self._open)

    def arrived(self, one: C) -> None:
        self._open[one] = None
        self._quiet.clear()
        if self._timer is None:
            self._timer = self.loop.call_later(self.look_seconds, self._tick)

    async def serve_connection(
        self, sock: socket.socket, over: Callable[[], None] | None = None, client: str | None = None
    ) -> None:
        """Take over an accepted connection; returns when it is set up, and calls ``over`` when it has ended. ``client``: the
        client's address, as a proxy in front gave it; "" if it could not.

        Raises OSError if the TLS handshake fails; then ``over`` is not called.
        """
        made: Callable[[], Any] = partial(self._made, client)
        _, one = await self.loop.connect_accepted_socket(made, sock, **self._from_the_start)
        if over is not None and one in self._open:
            self._open[one] = over
        elif over is not None:  # it has ended meanwhile
            over()

    @abstractmethod
    def _made(self, client: str | None) -> C:
        """A new connection of this listener's protocol. ``client``: see ``serve_connection``."""

    def parted(self, one: C) -> None:
        over = self._open.pop(one, None)
        if over is not None:
            over()
        self._perhaps_quiet()

    def carry(self, transaction: Transaction, onward: Onward) -> Coroutine[Any, Any, Carried]:
        """Let the guard decide and act. The coroutine must run to its end."""
        self._deciding += 1
        return self._carry(transaction, onward)

    async def _carry(self, transaction: Transaction, onward: Onward) -> Carried:
        """Return the reply (RFC 5321 section 4.2). Raises nothing but CancelledError. In any case ``onward`` is over then."""
        try:
            disposition = await self._admit(transaction, onward)
        except Lost as lost:
            return Carried(reply=lost.reply, why=Why.RELAY_LOST)
        except Recalled:
            return Carried(reply=reply.RECALLED, why=Why.UNDECIDED)
        except Exception as error:
            log.error("error in deciding %s: %s", transaction.id, type(error).__name__, exc_info=error)
            return Carried(reply=reply.INTERNAL_ERROR, why=Why.FAILED)
        finally:
            await onward.abandon()
            self._deciding -= 1
            self._perhaps_quiet()
        match disposition:
            case Relayed(replies=(first, *_)):
                return _new_carried(reply=first)
            case Held(hold_id=hold_id, released=released):
                return Carried(reply=reply.released(hold_id) if released else reply.held(hold_id), held=True)
            case Taken(reply=answer):
                return Carried(reply=answer, held=True)
            case Rejected(reply=answer):
                return Carried(reply=answer)
            case Deferred(reply=answer, undecided=undecided):
                return Carried(reply=answer, why=Why.UNDECIDED if undecided else None)
        log.error("no reply to %s: %s", transaction.id, disposition)
        return Carried(reply=reply.INTERNAL_ERROR, why=Why.FAILED)

    def _perhaps_quiet(self) -> None:
        if not self._open and not self._deciding:
            self._quiet.set()

    def look(self) -> None:
        """Close connections whose other side took too long."""
        now = self.monotonic()
        for one in tuple(self._open):
            one.look(now)

    def _tick(self) -> None:
        self._timer = None
        self.look()
        if self._open:
            self._timer = self.loop.call_later(self.look_seconds, self._tick)

    async def stop(self, grace_seconds: float = 30) -> int:
        """Accept no more, close idle connections, let those with a message in progress finish; returns how many were cut
        off after that."""
        self.stopping = True
        for one in tuple(self._open):
            one.stop()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._quiet.wait()
        except TimeoutError:
            pass
        left = len(self._open)
        for one in tuple(self._open):
            one.cut_off()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return left
