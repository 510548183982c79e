"""The supervisor: it accepts, counts and hands over connections; restarts its parts when they die; stops them in order.

It holds every accepted connection until a part has taken it, so that none is lost with a part. It reads no mail and
opens no database, so it has few ways to fail. Parts are forked from it (fork), with all their code loaded.

    SIGTERM, SIGINT   no more connections; 30 s for what is in DATA; a second one ends everything at once
    SIGHUP            the reload command, in a process of its own
    SIGUSR1, SIGUSR2  ignored by the whole tree (cli)
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import socket
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from smtpguard.mail import reply
from smtpguard.mail.envelope import client_address
from smtpguard.processes.child import Child, Life, Offered, Timing, resident_bytes
from smtpguard.processes.connections import Connections, raise_descriptor_limit
from smtpguard.processes.listeners import Listener
from smtpguard.processes.numbers import Numbers, ProcessNumbers
from smtpguard.processes.proxyheader import Arrival, Introductions
from smtpguard.processes.refusing import Refused, Spare, Strangers, refuse, refuse_backlog
from smtpguard.processes.relaylimit import RelayConnectionLimit
from smtpguard.processes.statusfile import Notifier, StatusFile

_log = structlog.get_logger("smtpguard.supervisor")
_ACCEPTS_A_TURN = 64
_MOST_LINES = 20  # in one look
_FULL_PAUSE_SECONDS = 1.0  # when connections cannot even be refused
_SAID_SECONDS = 60.0  # between two log lines about descriptors
_STARTING_SECONDS = 10.0  # between two extensions of the start timeout
SUPERVISOR = "supervisor"
"""The supervisor's name among the parts in figures of memory."""
CANNOT_RUN = 2
"""The exit status of a part, and of ``serve``, if a restart does not help: wrong use, wrong settings. It ends ``serve`` if the
part was never ready."""
TRY_AGAIN = os.EX_TEMPFAIL
"""The exit status if a restart may help: the store is unavailable, a port is still in use. Such an end does not count as one of
the five deaths."""


class Supervisor:
    """Runs ``smtpguard serve``. ``run()`` returns the exit status."""

    def __init__(
        self,
        *,
        parts: Sequence[str],
        life: Life,
        listeners: Sequence[Listener],
        connections: Connections,
        notifier: Notifier,
        reload: Sequence[str],
        timing: Timing | None = None,
        shows: Collection[str],
        pages: Collection[str],
        places: Sequence[int] = (),
        caps: Sequence[Mapping[str, int]] = (),
        status_file: StatusFile,
        started: Callable[[], None],
        ticks: Callable[[], object] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``life``: the main function of a part's process. ``places``: for each relay, the connections of all parts together;
        ``caps``: the most of one part, by its kind. ``shows``: the kinds of parts that get the tree's numbers; READY=1 does not
        wait for them. ``pages``: the kinds of parts for which it waits until one has ended. However often a part of either dies,
        mail goes on. ``status_file``: the file of the tree's state. ``started`` is called when all that it waits for were ready,
        and the tree has lasted for as long as deaths are counted, or until a stop. ``ticks`` is called every second or more
        often. ``monotonic``: the clock for the rate of log lines."""
        self._monotonic = monotonic
        self._timing = timing or Timing()
        self._shows, self._pages = frozenset(shows), frozenset(pages)
        self._status_file = status_file
        self._started, self._ticks = started, ticks
        self._numbers = Numbers()
        self._caps = caps
        sharers = max(1, list(parts).count("proxy"))
        self._places = [RelayConnectionLimit(limit, sharers, partial(self._grant, n)) for n, limit in enumerate(places)]
        self._listeners = listeners
        self._connections = connections
        self._refused_clients = Refused()
        self._introductions = Introductions(self._introduced, self._refused_clients)
        self._strangers = Strangers()
        self._spare = Spare()
        self._no_descriptor = 0  # connections refused without one, and not logged yet
        self._said_at = float("-inf")
        self._extended_at = -_STARTING_SECONDS
        self._notifier = notifier
        self._reloads = Reloads(reload, begins=self._reload_begins, over=self._reload_over)
        self._children = [
            Child(name=_name(parts, index), part=part, life=life, watcher=self, timing=self._timing)
            for index, part in enumerate(parts)
        ]
        self._takers = {
            part: deque(child for child in self._children if child.part == part)
            for part in {listener.taker for listener in listeners}
        }
        self._homeless: deque[tuple[int | None, Offered]] = deque()  # taken back from dead parts; no part is ready yet
        self._deaths: deque[float] = deque()
        self._listening: set[str] = set()  # parts
        self._announced = False
        self._lasting: asyncio.TimerHandle | None = None
        self._stopping = False
        self._status = 0
        self._refused = Counter[tuple[str, str]]()  # at the limits, since the last round: by client and listener

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        raise_descriptor_limit()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._told_to_stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # what came during the start is carried out now
        for child in self._children:
            self._loop.call_soon(self._start, child)  # not from within this task, which the child would inherit
        ticking = asyncio.create_task(self._tick())
        try:
            await self._done.wait()
        finally:
            # Nobody takes it now: ignored, also by a thread that waits for a reload and has no such mask.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
            self._loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            ticking.cancel()
            self._reloads.cancel()
            self._deaf()
            for child in self._children:
                child.kill()
            for listener in self._listeners:
                listener.close()
            self._status_file.remove()
            self._spare.close()
        return self._status

    # connections

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if not self._taken(listener.taker):
                self._listen(listener.taker, False)  # they wait in the kernel's backlog
                return
            try:
                connection, address = listener.socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as e:
                if self._spare.refuse(listener):
                    self._refused_for_descriptors(listener)
                    continue
                self._look_at_descriptors(os.strerror(e.errno or 0))
                self._listen(listener.taker, False)
                self._loop.call_later(_FULL_PAUSE_SECONDS, self._listen, listener.taker, True)
                return
            peer = str(address[0]) if isinstance(address, tuple) else ""
            # An MTA with a milter carries mail of many clients: it is not counted as one.
            client = peer if listener.part == "proxy" else ""
            if not listener.proxy:
                self._admit(Offered(connection=connection, listener=listener, client=client), peer)
            elif not self._connections.trusts(client):
                why = "the address is not in trust of the settings"
                self._refused_clients.add("not from a trusted proxy", listener, client, why)
                refuse(connection, reply.NOT_FROM_A_PROXY, clear=listener.in_clear)
            elif self._connections.admits(client, len(self._introductions)):
                self._introductions.begin(Arrival(connection=connection, listener=listener, peer=client))
            else:
                self._turn_away(connection, listener, client)

    def _introduced(self, arrival: Arrival, client: str) -> None:
        """Admit a connection whose proxy has named the client. The client is counted, or the proxy if it named none."""
        connection, listener, peer = arrival.connection, arrival.listener, arrival.peer
        offered = Offered(connection=connection, listener=listener, client=client or peer, told=client)
        if not arrival.header.local:
            self._admit(offered, client)
        elif listener.admits(peer):
            self._admit(offered, peer)
        else:  # the proxy's check sees that we listen; no client was turned away
            self._strangers.refuse(connection, listener)

    def _admit(self, offered: Offered, address: str) -> None:
        """``address``: the one that must be among the listener's clients, "" for none or an unknown one."""
        connection, listener, client = offered.connection, offered.listener, offered.client
        if not listener.admits(address):
            self._numbers.strangers[listener.name] += 1
            why = "they are not in clients of the listener"
            self._refused_clients.add("strangers refused", listener, str(client_address(address) or ""), why)
            self._strangers.refuse(connection, listener)
        elif not self._connections.admits(client, len(self._introductions)):
            self._turn_away(connection, listener, client)
        elif self._taken(listener.taker):
            self._hand_over(None, offered)
        else:
            self._homeless.append((None, offered))

    def _turn_away(self, connection: socket.socket, listener: Listener, client: str) -> None:
        self._refused[client or "unknown", listener.name] += 1
        self._numbers.refused[listener.name] += 1
        refuse(connection, reply.TOO_MANY_CONNECTIONS, clear=listener.in_clear)

    def _refused_for_descriptors(self, listener: Listener) -> None:
        self._numbers.without_descriptor[listener.name] += 1
        self._no_descriptor += 1
        self._look_at_descriptors(os.strerror(errno.EMFILE))

    def _look_at_descriptors(self, why: str) -> None:
        """Log the lack of descriptors, at most once a minute."""
        now = self._monotonic()
        if now - self._said_at < _SAID_SECONDS:
            return
        self._said_at = now
        refused, self._no_descriptor, now_open = self._no_descriptor, 0, len(self._connections)
        _log.error("no file descriptor for a connection", error=why, refused=refused, connections=now_open)

    def _hand_over(self, number: int | None, offered: Offered) -> None:
        """Hand a connection to the least loaded part, the next of equals. ``number``: the one it has, if its first part died."""
        takers = self._takers[offered.listener.taker]
        takers.rotate(-1)
        child = min((child for child in takers if child.takes), key=self._connections.load)
        if number is None:
            number = self._connections.opened(child, offered.client, offered.listener.name)
            self._numbers.accepted[offered.listener.name] += 1
        else:
            self._connections.moved(number, child)
        child.offer(number, offered)

    def _taken(self, part: str) -> bool:
        return any(child.takes for child in self._takers[part])

    def _listen(self, part: str, on: bool) -> None:
        if on == (part in self._listening) or (on and (self._stopping or not self._taken(part))):
            return
        (self._listening.add if on else self._listening.discard)(part)
        for listener in self._listeners:
            if listener.taker != part:
                continue
            if on:
                self._loop.add_reader(listener.socket.fileno(), self._accept, listener)
            else:
                self._loop.remove_reader(listener.socket.fileno())

    def _deaf(self) -> None:
        for part in self._takers:
            self._listen(part, False)

    def _settle_homeless(self) -> None:
        for _ in range(len(self._homeless)):
            number, offered = self._homeless.popleft()
            if self._taken(offered.listener.taker):
                self._hand_over(number, offered)
            else:
                self._homeless.append((number, offered))

    # messages of the children

    def became_ready(self, child: Child) -> None:
        _log.info("ready", part=child.name, pid=child.pid)
        self.ready_for_more(child)
        self._announce_if_ready()

    def ready_for_more(self, child: Child) -> None:
        self._settle_homeless()
        if child.part in self._takers:
            self._listen(child.part, True)

    def closed(self, connections: Sequence[int]) -> None:
        for number in connections:
            self._connections.closed(number)

    def lost(self, child: Child, number: int, offered: Offered) -> None:
        """Refuse a connection for which the part had no descriptor: the supervisor still has it."""
        self._connections.closed(number)
        refuse(offered.connection, reply.TOO_MANY_CONNECTIONS, clear=offered.listener.in_clear)
        self._refused_for_descriptors(offered.listener)
        self.ready_for_more(child)

    def said(self, child: Child, said: ProcessNumbers) -> None:
        self._numbers.heard(child.name, said)

    def asks(self, child: Child, places: Mapping[str, int]) -> None:
        relay = int(places["relay"])
        of_relay = self._places[relay]
        of_relay.said(child.name, places, cap=self._caps[relay].get(child.part, of_relay.limit))

    def _grant(self, relay: int, name: str, places: Mapping[str, Any]) -> None:
        next(child for child in self._children if child.name == name).grant({"relay": relay, **places})

    def _waits_for(self, child: Child) -> bool:
        return not (child.ready or child.part in self._shows or (child.part in self._pages and child.ended))

    def _announce_if_ready(self) -> None:
        if not self._announced and not any(map(self._waits_for, self._children)):
            self._announced = True
            self._lasting = self._loop.call_later(self._timing.deaths_seconds, self._started)
            self._announce()

    def exited(self, child: Child, status: int) -> None:
        for places in self._places:
            places.ended(child.name)
        offered, child.offered = child.offered, {}
        for number in self._connections.of(child):
            if number in offered:
                self._connections.moved(number, None)  # no part's, until one takes it: this one may die again
            else:
                self._connections.closed(number)
        self._homeless.extend(offered.items())
        self._numbers.ended(child.name, child.part, died=not self._stopping)
        if self._stopping:
            if not any(each.running for each in self._children):
                self._refuse_homeless()
                self._done.set()
            return
        again, child.ended = child.ended and child.part in self._pages, True
        if status == CANNOT_RUN and not child.was_ready and not again:
            self._end(CANNOT_RUN)  # it has logged why
            return
        self._announce_if_ready()
        now = self._loop.time()
        if status not in (TRY_AGAIN, CANNOT_RUN) or not child.ended_as_before():
            _log.error("part died", part=child.name, status=status, connections=self._connections.load(child))
        # What a part cannot run with now, such as half of a renewed certificate, does not stop those that run.
        if child.part not in self._shows | self._pages and not child.late and status not in (TRY_AGAIN, CANNOT_RUN):
            self._deaths.append(now)
        while self._deaths and now - self._deaths[0] > self._timing.deaths_seconds:
            self._deaths.popleft()
        if len(self._deaths) >= self._timing.deaths:
            _log.critical("giving up", deaths=len(self._deaths), within_seconds=self._timing.deaths_seconds)
            self._end(TRY_AGAIN)
            return
        if child.lived_seconds(now) > self._timing.deaths_seconds:
            child.pause_seconds = self._timing.first_pause_seconds
        self._loop.call_later(child.pause_seconds, self._start, child)
        child.pause_seconds = min(child.pause_seconds * 2, self._timing.longest_pause_seconds)
        self._settle_homeless()

    def _start(self, child: Child) -> None:
        if self._stopping:
            return
        try:
            child.start()
        except OSError as e:
            _log.error("a part cannot be started now", part=child.name, error=os.strerror(e.errno or 0))
            self._loop.call_later(self._timing.longest_pause_seconds, self._start, child)

    # time

    async def _tick(self) -> None:
        period = min(1.0, self._timing.silence_seconds / 4, (self._notifier.watchdog_seconds or 4.0) / 4)
        while True:
            asked_at = self._loop.time()
            await asyncio.sleep(period)
            now = self._loop.time()
            self._ticks()
            if now - asked_at > 2 * period:  # the machine was paused or overloaded: excuse the children too
                for child in self._children:
                    child.excuse(now - asked_at - period)
            for child in self._children:
                why = child.silent(now)
                if why is not None and child.give_up():
                    _log.error("killing a part", part=child.name, pid=child.pid, why=why)
            if not self._announced and now - self._extended_at >= _STARTING_SECONDS:
                self._extended_at = now
                absent = ", ".join(child.name for child in self._children if self._waits_for(child))
                self._notifier.not_yet(6 * _STARTING_SECONDS, f"waiting for {absent}")
            if self._announced and not any(child.silent(now) for child in self._children):
                self._notifier.watchdog()
            row = self._status_file.row(now, self._children, self._numbers, stopping=self._stopping)
            self._tell_numbers(row)
            self._refused_clients.tell(now)
            if self._no_descriptor:  # the last of a burst
                self._look_at_descriptors(os.strerror(errno.EMFILE))
            self._status_file.write(now, row)
            self._tell_refused()

    def _tell_refused(self) -> None:
        """Log a line for each client and listener; in a flood from many addresses one line for the rest."""
        refused, self._refused = self._refused.most_common(), Counter()
        for (client, listener), times in refused[:_MOST_LINES]:
            _log.warning("turned-away", why="connections", client=client, listener=listener, times=times)
        if rest := refused[_MOST_LINES:]:
            times = sum(times for _, times in rest)
            _log.warning(
                "turned-away", why="connections", clients=len({client for (client, _), _ in rest}), times=times
            )

    def _tell_numbers(self, row: Mapping[str, Any]) -> None:
        if not self._shows:
            return
        ready = Counter({child.part: 0 for child in self._children})
        ready.update(child.part for child in self._children if child.ready)
        names = [listener.name for listener in self._listeners]
        memory = Counter({SUPERVISOR: resident_bytes(os.getpid())})
        for child in self._children:
            memory[child.part] += resident_bytes(child.pid)
        numbers = {**self._numbers.told(self._connections.by_listener, names, ready, memory), "tree": row}
        for child in self._children:
            if child.part in self._shows:
                child.tell(numbers)

    def _announce(self) -> None:
        smtp = [listener.name for listener in self._listeners if listener.part == "proxy"]
        milter = [listener.name for listener in self._listeners if listener.part == "milter"]
        where = [f"{what} on {', '.join(names)}" for what, names in (("SMTP", smtp), ("milter", milter)) if names]
        ready = ", ".join(child.name for child in self._children if child.ready)
        self._notifier.ready("; ".join([f"{ready} ready", *where]))
        _log.info("serving", smtp=smtp, **({"milter": milter} if milter else {}), parts=len(self._children))

    # signals

    def _told_to_stop(self, number: int) -> None:
        if self._stopping:
            _log.warning("ending at once", signal=signal.Signals(number).name)
            self._done.set()
            return
        self._end(0)

    def _end(self, status: int) -> None:
        """Accept no more connections, and let the parts finish their work."""
        self._status = status
        self._stopping = True
        if self._lasting is not None:
            self._lasting.cancel()
            if not status:
                self._started()
        self._notifier.stopping()
        _log.info("stopping", connections=len(self._connections))
        self._deaf()
        for listener in self._listeners:
            refuse_backlog(listener)
        self._introductions.close()
        self._strangers.close()
        self._refused_clients.tell(math.inf)
        if self._no_descriptor:
            self._said_at = float("-inf")
            self._look_at_descriptors(os.strerror(errno.EMFILE))
        for child in self._children:
            child.stop(self._timing.grace_seconds)
        if not any(child.running for child in self._children):
            self._refuse_homeless()
            self._done.set()
        self._loop.call_later(self._timing.grace_seconds + self._timing.silence_seconds, self._done.set)

    def _refuse_homeless(self) -> None:
        while self._homeless:
            _, offered = self._homeless.popleft()
            refuse(offered.connection, reply.SHUTTING_DOWN, clear=offered.listener.in_clear)

    def _told_to_reload(self) -> None:
        if not self._stopping:
            self._reloads.asked()

    def _reload_begins(self) -> None:
        if self._announced:
            self._notifier.reloading()

    def _reload_over(self) -> None:
        if self._announced and not self._stopping:
            self._announce()


def _name(parts: Sequence[str], index: int) -> str:
    same = [at for at, part in enumerate(parts) if part == parts[index]]
    return parts[index] if len(same) == 1 else f"{parts[index]}-{same.index(index) + 1}"


class Reloads:
    """Runs the reload command. ``begins`` and ``over`` are called around each run."""

    def __init__(self, command: Sequence[str], *, begins: Callable[[], None], over: Callable[[], None]) -> None:
        self._command = command
        self._begins, self._over = begins, over
        self._running: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._again = False

    def asked(self) -> None:
        """Reload, or reload again after the running one, which may have read the file before it was changed."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        else:
            self._again = True

    def cancel(self) -> None:
        """Kill the command, which may wait for a database: it must not keep the tree from ending."""
        if self._running is not None:
            self._running.cancel()
        if self._process is not None:
            self._process.kill()

    async def _run(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            await self._once()

    async def _once(self) -> None:
        self._begins()
        try:
            self._process = self._begun()
            out, err = await asyncio.to_thread(self._process.communicate)
        except OSError as e:  # no process or descriptor left
            _log.error("reload failed; the policy in force stays", error=os.strerror(e.errno or 0))
        else:
            said = (err or out).strip().splitlines()
            if self._process.returncode == 0:
                _log.info("reloaded", said=said)
            else:
                _log.error("reload failed; the policy in force stays", status=self._process.returncode, said=said)
        self._process = None
        self._over()

    def _begun(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
