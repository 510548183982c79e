"""What the supervisor and the parts tell each other: the channel with its messages, the numbers of the process tree, and
the places of the relay's connections.

``Channel``, used at both ends, has whole messages over a socket pair, and open sockets along with them. SOCK_SEQPACKET
keeps the bounds of messages; SCM_RIGHTS (unix(7)) carries a connection. Messages are small JSON objects with one key that
gives the type:

    supervisor to part    {"take": id, "listener": index} with the socket, and with "client" where a proxy has given the
                          client's address; {"stop": grace seconds}; {"numbers": the tree's}; {"places": as below}
    part to supervisor    {"ready": true}; {"beat": its own numbers}; {"took": [ids]}; {"closed": [ids]}; {"leaving": true};
                          {"places": as below}; {"lost": [ids]}, whose socket did not come along: the part has no
                          descriptor left; {"ends": why it cannot start}

A connection belongs to the supervisor until the part has said "took".

A part sends its own numbers with each heartbeat; app defines them. Numbers of the tree are for metrics and alarms:
connections, refusals, deaths, and the numbers that parts report, from the supervisor's start on; and its state, as in
its file (processes.statusfile).

One limit of connections to a relay holds for all processes: a part asks for places and gives back those that it does
not need. The supervisor grants free places, and takes back the places of a part whose process has ended. Both sides send
totals since the process began, so that messages that cross on their way add up. Each relay has its own limit; ``relay``
is its number:

    part to supervisor    {"places": {"relay": 0, "back": given back, "seen": granted as far as it has heard, "wanted": more than it has}}
    supervisor to part    {"places": {"relay": 0, "granted": in all, "most": come down to so many, or null, "waited": by other parts,
                           "sharers": parts that carry clients' mail}}

Free places go to the part with the fewest; among equals to the one that has waited longest. If none is free, and one
part has more than another that waits would then have, it is told to come down. A part with a cap (delivery) never has
more than its cap.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
_MAX_OCTETS = 65_536


class Channel:
    """One end. ``received`` gets each message and its socket, if one came; ``ended`` is called once, at end of file.

    Messages for an end that does not read wait here, in order; ``waiting`` is their number.
    """

    def __init__(
        self, sock: socket.socket, received: Callable[[Message, socket.socket | None], None], ended: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._received = received
        self._ended = ended
        self._out: deque[tuple[bytes, socket.socket | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = self._full = False
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def waiting(self) -> int:
        return len(self._out)

    def send(self, message: Message, connection: socket.socket | None = None) -> None:
        """Send now, or when the other end reads. ``connection`` must stay open until it is acknowledged."""
        if self._closed:
            return
        self._out.append((json.dumps(message).encode(), connection))
        if len(self._out) == 1:
            self._flush()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._out.clear()

    def _flush(self) -> None:
        while self._out:
            data, connection = self._out[0]
            try:
                if connection is None:
                    self._socket.send(data)
                else:
                    socket.send_fds(self._socket, [data], [connection.fileno()])
            except BlockingIOError:
                self._full = True
                self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:  # the other end is gone: the reader sees it, and handles it
                break
            self._out.popleft()
        self._out.clear()
        if self._full:
            self._full = False
            self._loop.remove_writer(self._socket.fileno())

    def drain(self) -> None:
        """Read what has arrived, without waiting for the loop."""
        self._readable()

    def _readable(self) -> None:
        while not self._closed:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MAX_OCTETS, 1, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionResetError:  # it ended with something of ours unread; what it had sent is still there
                continue
            except OSError:
                data, fds = b"", []
            if not data:
                for fd in fds:
                    os.close(fd)
                self.close()
                self._ended()
                return
            connection = socket.socket(fileno=fds[0]) if fds else None
            self._received(json.loads(data), connection)


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the part's end, neither inherited unless passed."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The numbers of a process. ``counts``: since it began; ``levels``: current values. ``found``: its latest
    observation of something that others observe too, and when, by the machine's monotonic clock."""

    counts: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, beat: Mapping[str, Any]) -> Said:
        """From a message of the channel; empty until the part is ready."""
        found = {what: (float(at), int(value)) for what, (at, value) in beat.get("found", {}).items()}
        return cls(counts=beat.get("counts", {}), levels=beat.get("levels", {}), found=found)


PUT_OFF = "turned away 4xx"
"""The count of 4xx answers that no other count of answers includes."""


STORE_FAILS = "store fails"
"""The level of processes that take mail or deliver it, and cannot write to the store or wait for it in vain (queue.Waiting),
and of the alarms while they cannot use it."""
CLOCK_AHEAD = "clock ahead"
"""The level of the delivery: by how many seconds the clock jumped forward, while it is not believed."""
STORE_SERVES = "store serves"
"""The level of processes that take mail, can read the store, and committed their last transaction with it. One that failed
serves again when one is committed: while a balancer sends it no mail, nobody tries."""


def of_relay(what: str, route: str) -> str:
    """The name of a number of a relay. ``route``: the name of its route, "" for the default relay."""
    return " ".join(filter(None, ("relay", what, route)))


@dataclass(slots=True, kw_only=True)
class Numbers:
    """``accepted``, ``refused`` (at the limits), ``strangers`` (not admitted) and ``without_descriptor`` (the process
    had none left) by the listener's name, ``deaths`` by the kind of part."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)
    without_descriptor: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    _ended: Counter[str] = field(default_factory=Counter)  # counts of ended processes
    _living: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _levels: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _found: dict[str, tuple[float, int]] = field(default_factory=dict)

    def heard(self, process: str, said: Said) -> None:
        self._living[process], self._levels[process] = said.counts, said.levels
        for what, found in said.found.items():
            self._found[what] = max(found, self._found.get(what, found))

    def ended(self, process: str, part: str, *, died: bool) -> None:
        """Its counts stay; what it counted after its last heartbeat is lost, and its levels are dropped."""
        self._levels.pop(process, None)
        self._ended.update(self._living.pop(process, {}))
        self.deaths[part] += died

    @property
    def counts(self) -> Counter[str]:
        """Over all processes, ended ones included."""
        counts = Counter(self._ended)
        for living in self._living.values():
            counts.update(living)
        return counts

    @property
    def levels(self) -> Counter[str]:
        """Over all living processes."""
        levels: Counter[str] = Counter()
        for each in self._levels.values():
            levels.update(each)
        return levels

    @property
    def with_refusals(self) -> Mapping[str, int]:
        """The same for the share of 4xx answers: with the connections refused here."""
        return self.counts + Counter({PUT_OFF: self.refused.total() + self.without_descriptor.total()})

    def told(
        self,
        connections: Mapping[str, int],
        listeners: Iterable[str],
        ready: Mapping[str, int],
        memory: Mapping[str, int],
    ) -> dict[str, Any]:
        """As JSON. ``connections``: open ones, by listener; ``ready``: ready processes by kind of part; ``memory``:
        bytes by kind of part."""
        names = list(listeners)
        return {
            "connections": {name: connections.get(name, 0) for name in names},
            "accepted": {name: self.accepted[name] for name in names},
            "refused": {name: self.refused[name] for name in names},
            "strangers": {name: self.strangers[name] for name in names},
            "without_descriptor": {name: self.without_descriptor[name] for name in names},
            "ready": dict(ready),
            "memory": dict(memory),
            "deaths": {part: self.deaths[part] for part in ready},
            "counts": dict(self.counts),
            "levels": dict(self.levels),
            "found": dict(self._found),
        }


@dataclass(slots=True)
class _PartUse:
    """For one part's process. ``since``: its turn among those that wait."""

    cap: int
    granted: int = 0
    back: int = 0
    wanted: int = 0
    since: int = 0
    told: tuple[int, int | None, int] | None = None

    @property
    def held(self) -> int:
        return self.granted - self.back

    @property
    def short(self) -> int:
        return max(0, min(self.wanted, self.cap - self.held))


class RelayConnectionLimit:
    """The supervisor's side. Pure bookkeeping; ``tell`` is called with a part's name and a message for it."""

    def __init__(self, limit: int, sharers: int, tell: Callable[[str, Mapping[str, Any]], None]) -> None:
        """``sharers``: the number of parts that carry clients' mail."""
        self.limit, self.sharers = limit, sharers
        self._tell = tell
        self._accounts: dict[str, _PartUse] = {}
        self._turns = 0

    @property
    def held(self) -> int:
        """By all parts together; never more than the limit."""
        return sum(account.held for account in self._accounts.values())

    def said(self, name: str, said: Mapping[str, int], *, cap: int) -> None:
        """A message of a part. ``cap``: the most that it may have."""
        account = self._accounts.setdefault(name, _PartUse(cap))
        wanted = max(0, int(said["wanted"]) - (account.granted - int(said["seen"])))
        if account.back != int(said["back"]) or (wanted and not account.wanted):
            account.since = self._turn()
        account.back = int(said["back"])
        account.wanted = wanted
        self._settle()

    def ended(self, name: str) -> None:
        """Its process has ended, and its connections with it."""
        if self._accounts.pop(name, None) is not None:
            self._settle()

    def _turn(self) -> int:
        self._turns += 1
        return self._turns

    def _settle(self) -> None:
        accounts = self._accounts
        free = self.limit - self.held
        while free > 0 and (waiting := [a for a in accounts.values() if a.short]):
            first = min(waiting, key=lambda a: (a.held, a.since))
            first.granted += 1
            first.wanted -= 1
            first.since = self._turn()
            free -= 1
        most = self._levelled()
        short = sum(account.short for account in accounts.values())
        for name, account in accounts.items():
            waited = short - account.short
            news = account.granted, most.get(name), waited
            if news != account.told:
                account.told = news
                self._tell(
                    name,
                    {"granted": account.granted, "most": most.get(name), "waited": waited, "sharers": self.sharers},
                )

    def _levelled(self) -> dict[str, int]:
        """The new limit of each part that has more than a waiting part would have with one more."""
        accounts = self._accounts
        held = {name: account.held for name, account in accounts.items()}
        short = {name: account.short for name, account in accounts.items()}
        while True:  # each round moves one place from one part to another
            takers = [name for name in held if short[name] and held[name] >= accounts[name].held]
            givers = [name for name in held if held[name] <= accounts[name].held]
            to = min(takers, key=lambda name: (held[name], accounts[name].since), default=None)
            of = max((name for name in givers if name != to), key=lambda name: held[name], default=None)
            if to is None or of is None or held[of] <= min(held[to], 1) * (held[to] + 1):
                return {name: n for name, n in held.items() if n < accounts[name].held}
            held[of] -= 1
            held[to] += 1
            short[to] -= 1


class Allowance:
    """A part's side (wire.pool.Allowance). ``relay``: the number of the relay. ``changed`` is the pool's; ``send`` is
    set by the part's life."""

    def __init__(self, limit: int, relay: int = 0) -> None:
        self.limit, self.sharers, self.relay = limit, 1, relay
        self.usable = 0
        self.most: int | None = None
        self.waited = 0
        self.changed: Callable[[], None] = lambda: None
        self.send: Callable[[Mapping[str, Any]], None] = lambda message: None
        self._granted = self._back = 0
        self._told = (0, 0, 0)

    def closed(self, used: int) -> None:
        """A place is free again. It is given back if the part must come down; but each is used once before."""
        if self.most is not None and self.usable > max(self.most, used):
            self._back += 1
            self.usable -= 1

    def tell(self, used: int, wanted: int) -> None:
        if not wanted:
            self._back += self.usable - used
            self.usable = used
        news = self._back, self._granted, wanted
        if news != self._told and (news[0] != self._told[0] or wanted or self._told[2]):
            self._told = news
            self.send({"places": {"relay": self.relay, "back": self._back, "seen": self._granted, "wanted": wanted}})

    def heard(self, news: Mapping[str, Any]) -> None:
        self.usable += int(news["granted"]) - self._granted
        self._granted = int(news["granted"])
        self.most, self.waited, self.sharers = news["most"], int(news["waited"]), int(news["sharers"])
        self.changed()
