"""One process of the tree, from both sides. A part reports ready, sends heartbeats, takes connections, and stops when told
or when the supervisor is gone; every part runs in this loop. A child is the supervisor's side: forked, watched by its
heartbeats, killed when silent, and the connections that it has not acknowledged yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import structlog
from setproctitle import setproctitle

from smtpguard.processes.channel import Allowance, Channel, Message, Said, pair
from smtpguard.processes.listeners import Listener

BEAT_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # it makes a class, so it is made once, and forked
GRACE_SECONDS = 30.0
"""For a stop without a given time: a signal, or the end of the supervisor."""

LAST_SECONDS = 8.0
"""Beyond the grace, for closing everything. A part that does not end by then exits by force: there may be no supervisor
left to kill it."""


class Part(ABC):
    """The base of each kind of part. The defaults are for one without connections, numbers, or need of the tree's."""

    places: Sequence[Allowance] = ()
    """Its side of the shared limits of relay connections, one for each relay; empty: not shared."""

    def __init__(self) -> None:
        self._undo = AsyncExitStack()
        """Closes what it has opened."""

    @abstractmethod
    async def start(self) -> None:
        """Ready for work when it returns."""

    @abstractmethod
    async def serve(self) -> None:
        """The part's own work beside connections. Returns or raises only if it cannot go on; cancelled at the end."""

    def take(
        self, connection: socket.socket, listener: int, closed: Callable[[], None], client: str | None = None
    ) -> None:
        """Serve an accepted connection; call ``closed`` once, at its end. ``client``: the client's address, as a proxy
        gave it; "" if it could not. Never raises."""
        connection.close()
        closed()

    def said(self) -> Said:
        """Its numbers for each heartbeat, once it is ready. Never raises."""
        return Said()

    def told(self, numbers: Mapping[str, Any]) -> None:
        """The tree's numbers (channel.Numbers), once a second, for the part that shows them."""
        return

    @abstractmethod
    async def stop(self, grace_seconds: float) -> None:
        """Accept no new work; finish the current work within the grace, then drop it. ``serve`` goes on meanwhile."""

    async def close(self) -> None:
        """Close everything. Always the last call."""
        await self._undo.aclose()


def die_with_parent(number: int) -> None:
    """The kernel sends this signal when the parent process ends (PR_SET_PDEATHSIG, prctl(2)), even if this process is
    too busy to notice. Call it from the main thread, before anything is opened."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))


async def run(part: Part, sock: socket.socket) -> None:
    """The life of a part. Returns after a stop; otherwise raises what ended it."""
    await _Life(part, sock).run()


class _Life:
    def __init__(self, part: Part, sock: socket.socket) -> None:
        self._part = part
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[float] = self._loop.create_future()
        self._took: list[int] = []
        self._over: list[int] = []
        self._lost: list[int] = []
        self._ready = False
        # Without a supervisor no new work can come, and nobody would restart us.
        self._channel = Channel(sock, self._received, partial(self._end, GRACE_SECONDS))
        for allowance in part.places:
            allowance.send = self._channel.send

    async def run(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._leave)
        beating = asyncio.create_task(self._beat())
        try:
            await self._live()
        except Exception as e:
            if not self._ready:
                self._channel.send({"ends": str(e)[:_MOST_SAID]})
            raise
        finally:
            beating.cancel()
            await self._part.close()
            self._channel.close()

    async def _live(self) -> None:
        await self._part.start()
        self._ready = True
        self._channel.send({"ready": True})
        serving = asyncio.create_task(self._part.serve())
        try:
            ends: set[asyncio.Future[Any]] = {serving, self._stop}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                self._leave()
                serving.result()
                raise RuntimeError("the part's work ended by itself")
            await self._part.stop(self._stop.result())
        finally:
            serving.cancel()
            await asyncio.wait({serving})

    async def _beat(self) -> None:
        while True:
            self._channel.send({"beat": asdict(self._part.said()) if self._ready else {}})
            await asyncio.sleep(BEAT_SECONDS)

    def _received(self, message: Message, connection: socket.socket | None) -> None:
        if "stop" in message:
            self._end(float(message["stop"]))
        elif "take" in message and connection is not None:
            if self._stop.done():  # not taken: the supervisor still has it, and gives it to another
                connection.close()
                return
            connection.setblocking(False)
            number = int(message["take"])
            self._say(self._took, "took", number)  # sent before the first reply to the client
            over = partial(self._say, self._over, "closed", number)
            self._part.take(connection, int(message["listener"]), over, message.get("client"))
        elif "take" in message:
            self._say(self._lost, "lost", int(message["take"]))
        elif "places" in message:
            news = message["places"]
            if self._part.places:
                self._part.places[int(news["relay"])].heard(news)
        elif "numbers" in message:
            self._part.told(message["numbers"])

    def _say(self, gathered: list[int], word: str, number: int) -> None:
        """Numbers within one turn of the loop go into one message."""
        if not gathered:
            self._loop.call_soon(self._tell, gathered, word)
        gathered.append(number)

    def _tell(self, gathered: list[int], word: str) -> None:
        self._channel.send({word: gathered[:]})
        gathered.clear()

    def _leave(self) -> None:
        """It ends by itself: no further connection must be sent here."""
        self._channel.send({"leaving": True})
        self._end(GRACE_SECONDS)

    def _end(self, grace_seconds: float) -> None:
        if not self._stop.done():
            self._stop.set_result(grace_seconds)
            last = threading.Timer(grace_seconds + LAST_SECONDS, os._exit, (1,))
            last.daemon = True
            last.start()


MOST_UNACKNOWLEDGED = 64
"""A part with this number of unacknowledged connections gets no more: it is busy, or stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    start_seconds: float = (
        60.0  # without a sign of life before it is ready; doubled each time that a start takes longer
    )
    longest_start_seconds: float = 3600.0  # from start to ready
    silence_seconds: float = 10.0  # between beats
    grace_seconds: float = 30.0
    first_pause_seconds: float = 0.1  # before a restart; doubled each time, reset after a minute without a death
    longest_pause_seconds: float = 10.0
    deaths: int = 5  # this number within the window ends serve
    deaths_seconds: float = 60.0


def resident_bytes(pid: int | None) -> int:
    """Resident memory of a process, shared pages included. 0 if it has ended, or there is none (proc_pid_statm(5))."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A connection that the part may have taken: it is the supervisor's until the part says so. ``told``: the client,
    as a proxy gave it; "" if it could not."""

    connection: socket.socket
    listener: Listener
    client: str
    told: str | None = None


class Watcher(Protocol):
    """The supervisor, as a child sees it."""

    def became_ready(self, child: Child) -> None: ...

    def took(self, child: Child) -> None: ...

    def closed(self, child: Child, connections: Sequence[int]) -> None: ...

    def said(self, child: Child, said: Said) -> None: ...

    def asks(self, child: Child, places: Mapping[str, int]) -> None: ...

    def lost(self, child: Child, number: int, offered: Offered) -> None: ...

    def exited(self, child: Child, status: int) -> None: ...


Life = Callable[[str, str, int, str], int]
"""The main function of a part's process: the kind of part, the name of the process, the descriptor of its channel, and why
the one before could not start, if that was logged a short time ago. Returns its exit status."""
_MOST_SAID = 4_000  # so that it fits a message of the channel, escaped
SAME_SECONDS = 300.0
"""Between two log lines about a part that cannot start for the same reason again and again."""


class Child:
    """The process of a part, across restarts. ``name`` is the part and its number: "proxy-1"."""

    def __init__(self, *, name: str, part: str, life: Life, watcher: Watcher, timing: Timing) -> None:
        self.name = name
        self.part = part
        self.ready = False
        self.was_ready = False  # at least once, in any of its lives
        self.ended = False  # the same
        self.offered: dict[int, Offered] = {}
        self.pause_seconds = timing.first_pause_seconds
        self._life = life
        self._watcher = watcher
        self._timing = timing
        self.pid: int | None = None
        self._pidfd = -1
        self._channel: Channel | None = None
        self._leaving = False
        self._killed = False
        self.late = False
        """Whether this process was killed because its start took too long."""
        self._start_seconds = timing.start_seconds
        self._heard_at = self._started_at = 0.0
        self._error = self._logged = ""
        self._logged_at = 0.0

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def takes(self) -> bool:
        """Whether it can be given a connection now."""
        return self.ready and not self._leaving and len(self.offered) < MOST_UNACKNOWLEDGED

    def start(self) -> None:
        """Raises OSError if the system has no process or descriptor left; then nothing of it runs."""
        loop = asyncio.get_running_loop()
        ours, theirs = pair()
        pid = None
        try:
            with theirs:
                channel = theirs.fileno()
                if loop.time() - self._logged_at >= SAME_SECONDS:
                    self._logged = ""
                life = partial(self._life, self.part, self.name, channel, self._logged)
                pid = fork(f"smtpguard: {self.name}", channel, life)
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            ours.close()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise
        self.pid = pid
        self._channel = Channel(ours, self._received, lambda: None)  # the end of the process is decisive
        loop.add_reader(self._pidfd, self._reap)
        self._heard_at = self._started_at = loop.time()
        self.ready = self._leaving = self._killed = self.late = False
        self._error = ""

    def ended_as_before(self) -> bool:
        """Whether it cannot start for the reason that is in the log already; if not, the reason is from now on."""
        if self._error and self._error == self._logged:
            return True
        self._logged, self._logged_at = self._error, asyncio.get_running_loop().time()
        return False

    def offer(self, number: int, offered: Offered) -> None:
        assert self._channel is not None
        self.offered[number] = offered
        message: dict[str, Any] = {"take": number, "listener": offered.listener.number}
        if offered.told is not None:
            message["client"] = offered.told
        self._channel.send(message, offered.connection)

    def tell(self, numbers: Mapping[str, Any]) -> None:
        """Newer numbers follow, so they do not queue for a part that does not read."""
        if self._channel is not None and self.ready and not self._channel.waiting:
            self._channel.send({"numbers": numbers})

    def grant(self, places: Mapping[str, Any]) -> None:
        """The answer to its request for places (channel.RelayConnectionLimit)."""
        if self._channel is not None:
            self._channel.send({"places": places})

    def stop(self, grace_seconds: float) -> None:
        self._leaving = True
        if not self.ready:  # it has no connections, and does not read yet
            self.kill()
        elif self._channel is not None:
            self._channel.send({"stop": grace_seconds})

    def kill(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)  # the pid is valid until it is reaped

    def silent(self, now: float) -> str | None:
        """Why it must be killed, or None."""
        if not self.running:
            return None
        if not self.ready and not self._leaving:  # it is silent while it loads its code, which may take a while
            if now - self._heard_at > self._start_seconds:
                return f"no sign of life for {self._start_seconds:g} s of its start"
            longest = self._timing.longest_start_seconds
            return f"not ready after {longest:g} s" if now - self._started_at > longest else None
        if now - self._heard_at > self._timing.silence_seconds:
            return f"no sign of life for {self._timing.silence_seconds:g} s"
        return None

    def give_up(self) -> bool:
        """Kill it for its silence; False if that was done already. After a start that was too slow the next one has
        twice the time, so that it can succeed eventually."""
        if self._killed:
            return False
        self._killed, self.late = True, not self.ready
        if self.late:
            self._start_seconds = min(2 * self._start_seconds, self._timing.longest_start_seconds)
        self.kill()
        return True

    def excuse(self, seconds: float) -> None:
        """For ``seconds`` it could not send, and nobody could receive: a virtual machine was paused, for example."""
        self._heard_at += seconds
        self._started_at += seconds

    def lived_seconds(self, now: float) -> float:
        return now - self._started_at

    def silent_seconds(self, now: float) -> float:
        """Since the last message from it."""
        return max(0.0, now - self._heard_at)

    def _received(self, message: Message, connection: socket.socket | None) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if connection is not None:
            connection.close()  # no part sends one
        for word, value in message.items():
            self._heard(word, value)

    def _heard(self, word: str, value: Any) -> None:
        match word:
            case "ready":
                self.ready = self.was_ready = True
                self._logged = ""
                self._start_seconds = self._timing.start_seconds
                self._watcher.became_ready(self)
            case "leaving":
                self._leaving = True
            case "ends":
                self._error = value
            case "took":
                for number in value:
                    offered = self.offered.pop(number, None)
                    if offered is not None:
                        offered.connection.close()
                self._watcher.took(self)
            case "lost":
                for number in value:
                    lost = self.offered.pop(number, None)
                    if lost is not None:
                        self._watcher.lost(self, number, lost)
            case "closed":
                self._watcher.closed(self, value)
            case "places":
                self._watcher.asks(self, value)
            case "beat":
                self._watcher.said(self, Said.of(value))

    def _reap(self) -> None:
        assert self.pid is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if self._channel is not None:
            self._channel.drain()  # connections that it acknowledged before its end are not given to another
            self._channel.close()
        self.pid = self._channel = None
        self.ready = False
        self._watcher.exited(self, status)


_FAILED = 1


def fork(title: str, keep: int, life: Callable[[], int]) -> int:
    """Fork a part from the supervisor: its code is loaded once, and its memory is shared until it is written to. Returns
    the child's pid. The supervisor's frames stay alive below the child's own; otherwise an object of the supervisor could
    be destroyed in the child and close a descriptor that the child has opened meanwhile.

    The child closes every descriptor from 3 on except ``keep``, has /dev/null as standard input, shows ``title`` in ps(1),
    calls ``life`` and exits with the status that it returns. Call it from the main thread, outside a task. Raises
    OSError if the system has no process left."""
    for stream in (sys.stdout, sys.stderr):  # else the child would write buffered output again
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # A signal between fork and the reset of handlers would be written to the supervisor's own wakeup descriptor.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _live(title, keep, life, before)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live(title: str, keep: int, life: Callable[[], int], mask: set[int] | set[signal.Signals]) -> NoReturn:
    status = _FAILED
    try:
        _forget(keep)
        _yield_memory()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        setproctitle(title)
        status = life()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else _FAILED
    except BaseException as e:
        structlog.get_logger("smtpguard").critical("an error ends the process", error=type(e).__name__, exc_info=e)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)  # the supervisor's exit handlers do not run here


YIELDS = 200
"""Thousandths of the memory."""


def _yield_memory() -> None:
    """Where memory runs out, the kernel kills a part before the supervisor, which would end all of them: it counts what they
    share for each (proc_pid_oom_score_adj(5))."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        score.write_text(str(min(int(score.read_text()) + YIELDS, 1000)))


def _forget(keep: int) -> None:
    """Drop the supervisor's state: signals, event loop, descriptors."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
    ):  # meant for the supervisor, but a terminal sends them to the whole group
        signal.signal(number, signal.SIG_IGN)
    asyncio._set_running_loop(None)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 1  # noqa: PTH208
    os.closerange(3, keep)
    os.closerange(keep + 1, most)
