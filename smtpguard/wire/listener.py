"""A listener: its settings (limits, TLS, trusted peers), which app makes from the configuration; and its open connections:
counted, looked at for time, and closed.

The size of a command line is the grammar's (RFC 5321 section 4.5.3.1); all other limits are here. A connection comes as
an accepted socket from the supervisor. One timer checks all of them. The guard's decision on a message runs here, so that
it is recorded to its end even if the connection is gone. So the listener is quiet only when no connection is open and
nothing is being decided.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Network, Onward, Session, Transaction
from smtpguard.mail.reply import Reply
from smtpguard.wire.carried import Admit, Carried, TurnedAway, carry

RateCheck = Callable[[Session, bool], Reply | None]
"""Count a recipient of this session, and a message if it is the first one. Returns the reply to RCPT above a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on a client. Octets, seconds and counts; every default is safe."""

    recipients: int = 1000  # RFC 5321 section 4.5.3.1.8 asks for 100 at least
    message_octets: int = 50 << 20
    line_octets: int = 1 << 20  # RFC 5321 section 4.5.3.1.6 says 1000; many mailings have all on one line
    header_octets: int = 1 << 20
    header_lines: int = 10_000
    hops: int = 50  # Received fields; RFC 5321 section 6.3
    spool_octets: int = 1 << 20  # larger content goes to a file
    connections: int = 2000
    connections_per_client: int = 100  # not for the trusted
    errors: int = 20  # wrong commands since the last message
    idle_seconds: float = 300  # RFC 5321 section 4.5.3.2.7: for a command, and for each piece of content
    transaction_seconds: float = 1200  # from MAIL to the final dot
    dawdle_seconds: float = 3  # how long a waiting client may keep a relay connection
    pressed_seconds: float = 1  # the same while others wait for one
    quiet_login_seconds: float = 20  # how long a logged-in client may be silent while others wait for one
    closing_seconds: float = 10  # how long a last reply may take to be read


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Our own certificate. ``implicit``: TLS from the first octet; ``required``: no mail before STARTTLS."""

    context: ssl.SSLContext
    implicit: bool = False
    required: bool = False
    handshake_seconds: float = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAuth:
    """Clients may log in, at the relay. ``required``: no mail before that; ``without_tls``: in clear, too."""

    required: bool = True
    without_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """``name``: from the settings. ``trust``: peers that may use XFORWARD and XCLIENT and are not counted per client.
    ``spool``: the folder for large content."""

    name: str = ""
    hostname: str = "localhost"
    spool: Path
    tls: ServerTls | None = None
    auth: ServerAuth | None = None
    trust: tuple[Network, ...] = ()
    expanders: tuple[Network, ...] = ()
    senders_verified: bool = False
    here: Callable[[Address], Reply | None] = lambda address: None
    """The reply for addresses of the guard itself, which are not passed to the relay."""
    rate_check: RateCheck | None = None
    """The rate limits of clients and logins; None if there are none."""
    limits: Limits = field(default_factory=Limits)


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
        return carry(self._admit, transaction, onward, self._decided)

    def _decided(self) -> None:
        self._deciding -= 1
        if not self._deciding:
            self._perhaps_quiet()

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
