"""Fork a part from the supervisor: its code is loaded once, and its memory is shared until it is written to.

The child keeps standard output, standard error and the descriptors that the caller names; standard input is /dev/null.
The supervisor's frames stay alive below the child's own. Otherwise an object of the supervisor could be destroyed in
the child and close a descriptor that the child has opened meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import structlog
from setproctitle import setproctitle

_FAILED = 1


def fork(title: str, keep: int, life: Callable[[], int]) -> int:
    """Returns the child's pid. The child closes every descriptor from 3 on except ``keep``, shows ``title`` in ps(1),
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
