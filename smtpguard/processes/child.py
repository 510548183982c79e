"""A part as the supervisor sees it: forked, watched by its heartbeats, killed when silent, with the connections that it has
not acknowledged yet. The part's own side is processes.part.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import structlog
from setproctitle import setproctitle

from smtpguard.processes.channel import Channel, Message, pair
from smtpguard.processes.listeners import Listener
from smtpguard.processes.numbers import ProcessNumbers

MOST_UNACKNOWLEDGED = 64
"""The most connections of a part that it has not acknowledged. With so many it is busy, or stuck, and gets no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a part is killed, and when it is started again."""

    start_seconds: float = 60.0  # without a sign of life before it is ready; doubled when a start takes longer
    longest_start_seconds: float = 3600.0  # from start to ready
    silence_seconds: float = 10.0  # between beats
    grace_seconds: float = 30.0
    first_pause_seconds: float = 0.1  # before a restart; doubled each time, reset after a minute without a death
    longest_pause_seconds: float = 10.0
    deaths: int = 5  # this number within the window ends serve
    deaths_seconds: float = 60.0


def resident_bytes(pid: int | None) -> int:
    """Return the resident memory of a process, shared pages included (proc_pid_statm(5)). 0 if it has ended, or for None."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A connection that was sent to a part. It is the supervisor's until the part says "took". ``told``: the client that a proxy
    named, "" if it named none, None without a proxy."""

    connection: socket.socket
    listener: Listener
    client: str
    told: str | None = None


class Watcher(Protocol):
    """The supervisor, as a child sees it."""

    def became_ready(self, child: Child) -> None: ...

    def ready_for_more(self, child: Child) -> None: ...

    def closed(self, connections: Sequence[int]) -> None: ...

    def said(self, child: Child, said: ProcessNumbers) -> None: ...

    def asks(self, child: Child, places: Mapping[str, int]) -> None: ...

    def lost(self, child: Child, number: int, offered: Offered) -> None: ...

    def exited(self, child: Child, status: int) -> None: ...


Life = Callable[[str, str, int, str], int]
"""The main function of a part's process. Takes the kind of part, the name of the process, the descriptor of its channel, and why
the process before could not start, if that was logged lately. Returns the exit status."""
SAME_SECONDS = 300.0
"""The time between two log lines about a part that again cannot start for the same reason."""


class Child:
    """The process of a part, across restarts. ``name``: the kind of part and its number, "proxy-1". ``was_ready``, ``ended``: in
    any of its lives. ``late``: it was killed because its start took too long."""

    def __init__(self, *, name: str, part: str, life: Life, watcher: Watcher, timing: Timing) -> None:
        self.name = name
        self.part = part
        self.ready = False
        self.was_ready = False
        self.ended = False
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
        self._start_seconds = timing.start_seconds
        self._heard_at = self._started_at = 0.0
        self._error = self._logged = ""
        self._logged_at = 0.0

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def takes(self) -> bool:
        """Whether it takes a connection now."""
        return self.ready and not self._leaving and len(self.offered) < MOST_UNACKNOWLEDGED

    def start(self) -> None:
        """Start the process. Raises OSError if the system has no process or descriptor left; then nothing runs."""
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
        """Return whether it cannot start for the reason that is in the log already. Another reason is remembered as logged."""
        if self._error and self._error == self._logged:
            return True
        self._logged, self._logged_at = self._error, asyncio.get_running_loop().time()
        return False

    def offer(self, number: int, offered: Offered) -> None:
        """Send it a connection."""
        assert self._channel is not None
        self.offered[number] = offered
        message: dict[str, Any] = {"take": number, "listener": offered.listener.number}
        if offered.told is not None:
            message["client"] = offered.told
        self._channel.send(message, offered.connection)

    def tell(self, numbers: Mapping[str, Any]) -> None:
        """Send it the tree's numbers, unless it does not read: newer ones follow."""
        if self._channel is not None and self.ready and not self._channel.waiting:
            self._channel.send({"numbers": numbers})

    def grant(self, places: Mapping[str, Any]) -> None:
        """Send it places of a relay (relaylimit)."""
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
        """Return why it must be killed, None if it need not."""
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
        """Kill it for its silence. Returns False if that was done already. After a start that was too slow the next one has
        twice the time, so that it can succeed eventually."""
        if self._killed:
            return False
        self._killed, self.late = True, not self.ready
        if self.late:
            self._start_seconds = min(2 * self._start_seconds, self._timing.longest_start_seconds)
        self.kill()
        return True

    def excuse(self, seconds: float) -> None:
        """Do not count ``seconds`` in which nobody could send or receive: a virtual machine was paused, for example."""
        self._heard_at += seconds
        self._started_at += seconds

    def lived_seconds(self, now: float) -> float:
        return now - self._started_at

    def silent_seconds(self, now: float) -> float:
        """Return the time since its last message."""
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
                self._watcher.ready_for_more(self)
            case "lost":
                for number in value:
                    lost = self.offered.pop(number, None)
                    if lost is not None:
                        self._watcher.lost(self, number, lost)
            case "closed":
                self._watcher.closed(value)
            case "places":
                self._watcher.asks(self, value)
            case "beat":
                self._watcher.said(self, ProcessNumbers.of(value))

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
    """Fork a part from the supervisor. Its code is loaded once, and its memory is shared until it is written to. Returns the
    child's pid. The supervisor's frames stay alive below the child's own. Otherwise an object of the supervisor could be
    destroyed in the child, and close a descriptor that the child has opened meanwhile.

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
"""What a part adds to its oom_score_adj, in thousandths of the memory."""


def _yield_memory() -> None:
    """Make the kernel kill a part before the supervisor when memory runs out (proc_pid_oom_score_adj(5)): the end of the supervisor
    ends all parts."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        score.write_text(str(min(int(score.read_text()) + YIELDS, 1000)))


def _forget(keep: int) -> None:
    """Drop the supervisor's state: signals, event loop, descriptors."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):  # for the supervisor, but a terminal sends them to the whole group
        signal.signal(number, signal.SIG_IGN)
    asyncio._set_running_loop(None)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 1  # noqa: PTH208
    os.closerange(3, keep)
    os.closerange(keep + 1, most)
