"""The pool of relay connections: kept and shared, bounded in number and in waiting, fair between clients (RFC 5321
section 4.5.4.1).

A request gets an idle connection at once, or else waits in line while one is opened, and is refused after a while. A
connection is returned clean, or is reset, or is dropped. One that has carried its number of messages is closed, and
replaced before the next message comes. After a failure to reach the relay, all requests fail at once for a moment.

The limit is one for all processes (``Allowance``). An open connection stays with its process; if others wait, idle ones
are closed, and a process that has more than its share closes a connection when its transaction ends. A place counts
until its connection is closed, QUIT and its reply included. Logged-in clients have a connection of their own (login),
for which they wait in the same line.

Next is the client with the fewest connections, and among equals the first that came; a request that has waited for half
the time goes before all. An untrusted client never has more than its share. Trusted clients carry mail of many and are
not limited.

A listener's mail goes to its own relay, and to others for some recipients (``Routing``). A transaction uses one relay
session (RFC 5321 section 3.3), so it has one relay. Recipients of another relay are answered 452 4.5.3, and the client
sends them in a transaction of their own (section 4.5.3.1.10).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from smtpguard.mail.address import Address
from smtpguard.mail.reply import BUSY, RELAY_UNAVAILABLE
from smtpguard.wire.handshake import Route
from smtpguard.wire.relay import RelayConnection, RelayUnavailable
from smtpguard.wire.target import RelayTarget
from smtpguard.wire.turnedaway import Why

LONGEST_DOWN_SECONDS = 30.0
"""A relay that took long to fail is remembered as down for as long, but no longer than this. Who comes meanwhile is refused
at once, and the relay is tried in the background: if it is back, the failure is forgotten."""
SLOW_SECONDS = 1.0
"""From this on it took long; a refused connection fails at once."""


class Allowance(Protocol):
    """How many connections this process may have, of the one limit over all processes."""

    limit: int
    """For all processes together."""
    sharers: int
    """Processes that carry clients' mail, this one included."""
    most: int | None
    """The number to which it must come down, since others have fewer; None: it need not."""
    waited: int
    """How many are waited for in other processes."""
    changed: Callable[[], None]
    """Called when any of this has changed."""

    usable: int
    """How many this process may have now, open or being opened."""

    def closed(self, used: int) -> None:
        """One was closed; ``used`` are left."""

    def tell(self, used: int, wanted: int) -> None:
        """``used`` of the places are in use; ``wanted`` more are needed. Places that are neither are given back."""


class Alone:
    """The allowance of a process that shares its limit with no other."""

    def __init__(self, limit: int) -> None:
        self.limit = self.usable = limit
        self.sharers = 1
        self.most: int | None = None
        self.waited = 0
        self.changed: Callable[[], None] = lambda: None

    def closed(self, used: int) -> None:
        """It is free for the next."""

    def tell(self, used: int, wanted: int) -> None:
        """There is no other process to tell."""


class Reservation:
    """A place in the pool for one connection that its owner opens itself. It counts until it is freed."""

    def __init__(self, pool: RelayPool, client: str) -> None:
        self._pool = pool
        self.client = client

    def belongs_to(self, client: str) -> bool:
        """Count the place as another client's from now on. Return False if that client has its share already."""
        return self._pool.renamed(self, client)

    def free(self) -> None:
        """The connection is closed. Idempotent."""
        self._pool.freed(self)


@dataclass(slots=True, eq=False)
class _Waiter:
    """``own``: it opens the connection itself, so it only gets a place."""

    client: str
    since: float
    own: bool
    given: asyncio.Future[RelayConnection | Reservation]


class RelayPool:
    """All connections of this process to one relay. Made and used in one event loop; reads the TLS files when made."""

    def __init__(self, target: RelayTarget, allowance: Allowance | None = None) -> None:
        self.target = target
        self.waits = 0
        """Requests that did not get a connection at once, since the process began; and how long they waited."""
        self.wait_seconds = 0.0
        self._allowance = allowance or Alone(target.connections)
        self._allowance.changed = self._settle
        self._route = Route(target)
        self.context = self._route.context
        self._idle: deque[tuple[RelayConnection, float]] = deque()  # the latest used at the right, with the time
        self._waiting: deque[_Waiter] = deque()
        self._opening: set[asyncio.Task[RelayConnection]] = set()
        self._open: set[RelayConnection] = set()
        self._leaving: set[RelayConnection] = set()  # QUIT was sent
        self._places: set[Reservation] = set()
        self._lent: dict[RelayConnection, str] = {}  # to clients that are counted
        self._using: dict[str, int] = {}
        self.offered = target.reachability.offered if target.reachability is not None else None
        """The relay's offer in the latest session, perhaps of an earlier process; None if there never was one."""
        self._failure: RelayUnavailable | None = None
        self._failed_until = 0.0
        self._try_at = 0.0  # from then on in the background
        self._trying = False  # in the background, or about to
        self._again: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Connections that are open, being opened or being closed, logged-in clients' included."""
        return len(self._open) + len(self._opening) + len(self._leaving) + len(self._places)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def pressed(self) -> bool:
        """Whether a connection that is not in use is waited for, here or in another process."""
        return bool(self._waiting or self._allowance.waited or self._too_many())

    async def acquire(
        self, client: str = "", *, fresh: bool = False, wait_seconds: float | None = None
    ) -> RelayConnection:
        """A clean connection. ``client``: for whom, "" if it is not counted. ``fresh``: a new one, since idle ones may
        be dead unnoticed.

        Raises RelayUnavailable: at once while the relay is known to be down, else after ``wait_seconds``.
        """
        if fresh:
            while self._idle:
                self._part(self._idle.pop()[0])
        elif (connection := self.at_once(client)) is not None:
            return connection
        given = await self._wait(client, own=False, seconds=wait_seconds)
        assert isinstance(given, RelayConnection)
        return given

    def at_once(self, client: str = "") -> RelayConnection | None:
        """A clean connection, if one is idle and nobody waits."""
        if not self._waiting and self._may_have_more(client):
            while self._idle:
                connection, _ = self._idle.pop()
                if connection.clean:
                    self._lend(connection, client)
                    return connection
                connection.abort("not clean while idle")
        return None

    async def place(self, client: str) -> Reservation:
        """A place for a connection that the caller opens, to be freed when that is closed. Raises RelayUnavailable."""
        given = await self._wait(client, own=True)
        assert isinstance(given, Reservation)
        return given

    def release(self, connection: RelayConnection) -> None:
        """Give it back after use, in any state; RSET is sent first if it is not clean."""
        self._count(self._lent.pop(connection, ""), -1)
        if not connection.usable or connection not in self._open:
            self.discard(connection)
        elif self._closed or connection.messages >= self.target.messages_per_connection:
            self._part(connection)
        elif connection.clean:
            self._hand_over(connection)
        else:
            connection.reset(lambda clean: self.release(connection) if clean else self.discard(connection))

    def discard(self, connection: RelayConnection) -> None:
        """Drop it: its state is unknown."""
        connection.abort("discarded")
        self._gone(connection)

    async def close(self) -> None:
        """Quit idle connections, cancel openings, refuse waiters. Connections in use are closed when they come back."""
        self._closed = True
        for timer in (self._sweeper, self._again):
            if timer is not None:
                timer.cancel()
        while self._idle:
            self._part(self._idle.pop()[0])
        for task in tuple(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._refuse_all(RelayUnavailable("the pool is closed"))

    # places

    def renamed(self, place: Reservation, client: str) -> bool:
        if place not in self._places or not self._may_have_more(client):
            return False
        self._count(place.client, -1)
        place.client = client
        self._count(client, 1)
        return True

    def freed(self, place: Reservation) -> None:
        if place in self._places:
            self._places.remove(place)
            self._count(place.client, -1)
            self._allowance.closed(self.size)
            self._settle()

    # the line

    async def _wait(self, client: str, *, own: bool, seconds: float | None = None) -> RelayConnection | Reservation:
        if self._closed:
            raise RelayUnavailable("the pool is closed")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(client, loop.time(), own, loop.create_future())
        self._waiting.append(waiter)
        self.waits += 1
        self._settle()
        seconds = self.target.wait_seconds if seconds is None else min(seconds, self.target.wait_seconds)
        try:
            async with asyncio.timeout(seconds):
                return await waiter.given
        except TimeoutError:
            self._forgo(waiter)
            raise self._too_late(seconds) from None
        except asyncio.CancelledError:
            self._forgo(waiter)
            raise
        finally:
            self.wait_seconds += loop.time() - waiter.since

    def _too_late(self, seconds: float) -> RelayUnavailable:
        if self._opening and not self._open and not self._places:
            why = f"the relay has not greeted within {seconds:g} s"
            return RelayUnavailable(why, RELAY_UNAVAILABLE, word=Why.RELAY_SLOW)
        if self._failure is not None and not self._open:
            return RelayUnavailable(self._failure.why, self._failure.reply, word=self._failure.word)
        return RelayUnavailable(f"no connection within {seconds:g} s", BUSY, word=Why.RELAY_BUSY)

    def _may_have_more(self, client: str, using: Mapping[str, int] | None = None) -> bool:
        used = (using or self._using).get(client)
        if used is None:  # the first may always, and who is not counted has none
            return True
        allowed = self._allowance.limit / self._allowance.sharers * self.target.client_share
        return used < max(1, int(allowed))

    def _next(self) -> _Waiter | None:
        """The next waiter that may have one now. Not one that waits for a place that is about to be free."""
        leaving = len(self._leaving)
        longest = asyncio.get_running_loop().time() - self.target.wait_seconds / 2 if self._waiting else 0.0
        best: _Waiter | None = None
        for waiter in self._waiting:
            if waiter.given.done() or not self._may_have_more(waiter.client):
                continue
            if waiter.own and leaving:
                leaving -= 1
                continue
            if waiter.since < longest or not self._using.get(waiter.client):
                return waiter
            if best is None or self._using[waiter.client] < self._using[best.client]:
                best = waiter
        return best

    def _wanted(self) -> tuple[int, int]:
        """How many connections and how many places are waited for by waiters that may have them."""
        if not self._waiting:
            return 0, 0
        using, connections, places = Counter(self._using), 0, 0
        for waiter in self._waiting:
            if waiter.given.done() or not self._may_have_more(waiter.client, using):
                continue
            if waiter.client:
                using[waiter.client] += 1
            connections += not waiter.own
            places += waiter.own
        return connections, places

    def _forgo(self, waiter: _Waiter) -> None:
        """A waiter gives up; a connection handed over at that moment goes to the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._settle()
        elif waiter.given.done() and not waiter.given.cancelled() and waiter.given.exception() is None:
            given = waiter.given.result()
            if isinstance(given, Reservation):
                given.free()
            else:
                self.release(given)

    def _refuse_all(self, failure: RelayUnavailable) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.given.done():
                waiter.given.set_exception(RelayUnavailable(failure.why, failure.reply, word=failure.word))

    # connections

    def _settle(self, *, ahead: bool = False) -> None:
        """After any change: give places and idle connections to waiters, or back to other processes; open as many more
        as are waited for and have places; none just after a failure. ``ahead``: open one that nobody waits for yet, if
        none is idle and there is a place that nobody needs."""
        if self._closed:
            self._allowance.tell(self.size, 0)
            return
        down = self._down()
        if self._waiting:
            self._give_places()
            while self._idle and (waiter := self._next()) is not None:
                self._give(self._idle.pop()[0], waiter)
        while self._idle and (self._too_many() or self._allowance.waited > len(self._leaving)):
            self._part(self._idle.popleft()[0])
        connections, places = self._wanted()
        if ahead and not (self._idle or self.pressed) and self.size < self._allowance.usable:
            connections = max(1, connections)
        if down:
            connections = int(self._trying)
        while self.size < self._allowance.usable and len(self._opening) < connections:
            task = asyncio.create_task(self._route.open())
            self._opening.add(task)
            task.add_done_callback(self._opened)
        self._allowance.tell(self.size, max(0, connections - len(self._opening)) + places)

    def _give_places(self) -> None:
        for waiter in tuple(self._waiting):
            if self.size >= self._allowance.usable:
                return
            if waiter.own and not waiter.given.done() and self._may_have_more(waiter.client):
                self._waiting.remove(waiter)
                place = Reservation(self, waiter.client)
                self._places.add(place)
                self._count(place.client, 1)
                waiter.given.set_result(place)

    def _down(self) -> bool:
        """Whether a failure is remembered. Waiters are refused, unless a working connection may become free."""
        loop = asyncio.get_running_loop()
        if self._failure is None or loop.time() >= self._failed_until:
            return False
        if not self._open and (self._trying or not self._opening):
            self._trying |= bool(self._waiting) and loop.time() >= self._try_at
            self._refuse_all(self._failure)
        elif self._waiting and self._again is None:
            self._again = loop.call_at(self._failed_until, self._try_again)
        return True

    def _try_again(self) -> None:
        self._again = None
        self._settle()

    def _too_many(self) -> int:
        """How many connections this process must give up, since others have fewer."""
        most = self._allowance.most
        return 0 if most is None else max(0, self.size - len(self._leaving) - most)

    def _opened(self, task: asyncio.Task[RelayConnection]) -> None:
        self._opening.discard(task)
        if task.cancelled():
            return
        error, self._trying = task.exception(), False
        if error is None:
            connection = task.result()
            self._failure = None
            self.offered = connection.extensions
            self._open.add(connection)
            connection.on_lost = self._gone
            if not connection.usable:
                self._gone(connection)
            elif self._closed:
                self._part(connection)
            else:
                self._hand_over(connection)
        else:
            unforeseen = RelayUnavailable(f"opening a session: {type(error).__name__}")
            self._failure = error if isinstance(error, RelayUnavailable) else unforeseen
            took = min(self._failure.took_seconds, LONGEST_DOWN_SECONDS)
            lasts = max(self.target.down_seconds, took if took >= SLOW_SECONDS else 0)
            now = asyncio.get_running_loop().time()
            self._failed_until, self._try_at = now + lasts, now + self.target.down_seconds
            if not self._open and not self._opening:  # its waiters are refused instead of waiting for another attempt
                self._refuse_all(self._failure)
            self._allowance.closed(self.size)
        self._settle()

    def _hand_over(self, connection: RelayConnection) -> None:
        """Give a connection to the next in line, else keep it idle, or close it for other processes."""
        too_many = self._too_many()
        waiter = self._next() if self._waiting and not too_many else None
        if waiter is not None:
            self._give(connection, waiter)
        elif too_many or self._allowance.waited > len(self._leaving):
            self._part(connection)
        else:
            loop = asyncio.get_running_loop()
            self._idle.append((connection, loop.time()))
            if self._sweeper is None:
                self._sweeper = loop.call_later(self.target.idle_seconds, self._sweep)

    def _give(self, connection: RelayConnection, waiter: _Waiter) -> None:
        if waiter.own:  # it gets the place when this connection is closed
            self._part(connection)
        else:
            self._waiting.remove(waiter)
            self._lend(connection, waiter.client)
            waiter.given.set_result(connection)

    def _lend(self, connection: RelayConnection, client: str) -> None:
        if client:
            self._lent[connection] = client
            self._count(client, 1)

    def _count(self, client: str, by: int) -> None:
        if client:
            using = self._using.get(client, 0) + by
            if using:
                self._using[client] = using
            else:
                del self._using[client]

    def _part(self, connection: RelayConnection) -> None:
        """Close it with QUIT. It keeps its place until the relay has answered."""
        if connection in self._open:
            self._open.remove(connection)
            self._leaving.add(connection)
            connection.quit()

    def _gone(self, connection: RelayConnection) -> None:
        if connection not in self._open and connection not in self._leaving:
            return
        self._count(self._lent.pop(connection, ""), -1)
        self._open.discard(connection)
        self._leaving.discard(connection)
        if self._idle:
            self._idle = deque(entry for entry in self._idle if entry[0] is not connection)
        self._allowance.closed(self.size)
        # one that has carried its number of messages is replaced before the next comes, which needs not wait then
        self._settle(ahead=connection.messages >= self.target.messages_per_connection)

    def _sweep(self) -> None:
        """Close connections that were idle too long."""
        loop = asyncio.get_running_loop()
        self._sweeper = None
        while self._idle and self._idle[0][1] + self.target.idle_seconds <= loop.time():
            self._part(self._idle.popleft()[0])
        if self._idle:
            self._sweeper = loop.call_at(self._idle[0][1] + self.target.idle_seconds, self._sweep)


Choice = Callable[[Address], RelayPool | None]
"""The relay of a recipient; None if it is not known now."""


class Routing:
    """``first``: the listener's relay, at which clients log in. ``choose``: the relay of each recipient; None: all go to
    ``first``. ``others``: the other relays that ``choose`` may return."""

    def __init__(self, first: RelayPool, others: Sequence[RelayPool] = (), choose: Choice | None = None) -> None:
        self.first, self.choose = first, choose
        self._others = tuple(others)

    @property
    def offered(self) -> Mapping[str, str] | None:
        """The extensions that every relay offered in its latest session: EHLO is answered before the recipients are known.
        AUTH is that of ``first``, SIZE the smallest (RFC 1870). A relay that was never reached is left out: if it lacks
        an extension that a message needs, its recipients are answered 4xx. None if ``first`` was never reached."""
        offered = self.first.offered
        if offered is None:
            return None
        for other in self._others:
            if (its := other.offered) is not None:
                offered = _both(offered, its)
        return offered

    async def extensions(self) -> Mapping[str, str]:
        """``offered``; opens a session with ``first`` if there never was one. Raises RelayUnavailable."""
        if self.first.offered is None:
            self.first.release(await self.first.acquire())
        return self.offered or {}


def _both(offered: Mapping[str, str], other: Mapping[str, str]) -> Mapping[str, str]:
    both = {keyword: said for keyword, said in offered.items() if keyword in other or keyword == "AUTH"}
    sizes = [int(said) for each in (offered, other) if (said := each.get("SIZE", "").strip()).isdecimal() and int(said)]
    if sizes:
        both["SIZE"] = str(min(sizes))
    return both
