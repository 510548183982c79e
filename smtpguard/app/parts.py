"""The parts of ``smtpguard serve`` by name, and the life of a process that runs one."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from smtpguard.app.files import CannotStart
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.database.errors import StoreError, Unusable
from smtpguard.observe import log
from smtpguard.processes import part, supervisor
from smtpguard.processes.relayconnections import Allowance

_SHARES = {"milter": "proxy", "metrics": "alarms"}
"""Parts that run in the processes of another one, if the tree has both."""
_ENDED_AT_ONCE = frozenset({"console", "metrics", "alarms"})
_MANY = frozenset({"proxy", "milter"})  # a process for each worker
_COLLECT = (10_000, 20, 20)
"""New objects, and collections of younger generations, before a collection: a message leaves few cycles behind."""
_SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter's lock while others want it. Python's 5 ms would be the longest wait of a
message for the thread that writes a batch."""
_ARENA_MAX = -8
"""M_ARENA_MAX of mallopt(3): how many arenas the C library's allocator may have."""

PARTS: Mapping[str, tuple[str, str]] = {
    "proxy": ("smtpguard.app.proxy", "Proxy"),
    "milter": ("smtpguard.app.milter", "Milter"),
    "delivery": ("smtpguard.app.delivery", "Deliverer"),
    "console": ("smtpguard.app.console", "Console"),
    "metrics": ("smtpguard.app.metrics", "Metrics"),
    "alarms": ("smtpguard.app.alarms", "Alarms"),
}
"""The module and class of each. A module is imported only where its part runs."""


def load(names: Iterable[str]) -> None:
    """Import the code of these parts, which their processes then share. Call it before anything else is prepared, and before
    any thread: classes that are used afterwards are then in the state in which the parts use them, and all memory is in
    one arena."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)  # for all threads, which rarely run at once
    for name in names:
        importlib.import_module(PARTS[name][0])
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")


def keep() -> None:
    """Keep what is there now, which the parts will share, out of every later garbage collection."""
    for value in ("", 0):  # logging asks it: the first time Python asks all subclasses, and writes to them
        isinstance(value, Mapping)
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what only the preparation needed
    gc.freeze()


def processes(kinds: Sequence[str], workers: int) -> list[str]:
    """The names of the processes. One guard in each worker serves both ways in, and the process that watches the others
    shows their numbers too."""
    own = [kind for kind in kinds if _SHARES.get(kind) not in kinds]
    return [name for kind in own for name in [kind] * (workers if kind in _MANY else 1)]


def run(name: str, channel: int, settings: Settings, kinds: Sequence[str], parent: int) -> int:
    """Run a part in this process. ``channel``: the descriptor of its channel to the supervisor, whose pid is
    ``parent``. ``kinds``: all parts of the tree. Returns the exit status."""
    # One that outlives its supervisor would keep its port from the next one. The others finish their work.
    part.die_with_parent(signal.SIGKILL if name in _ENDED_AT_ONCE else signal.SIGTERM)
    if os.getppid() != parent:  # it ended before prctl was called
        return supervisor.TRY_AGAIN
    try:
        one = _made(name, settings, kinds)
        gc.freeze()
        gc.set_threshold(*_COLLECT)
        sys.setswitchinterval(_SWITCH_SECONDS)
        with socket.socket(fileno=channel) as sock, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(part.run(one, sock))
    except (CannotStart, Broken, StoreError) as e:
        passing = e.passing if isinstance(e, CannotStart) else isinstance(e, StoreError) and not isinstance(e, Unusable)
        status = supervisor.TRY_AGAIN if passing else supervisor.CANNOT_RUN
        told = f"{name}: the store: {e or type(e).__name__}" if isinstance(e, StoreError) else f"{name}: {e}"
        log.failure(str(e) if isinstance(e, Broken) else told, status=status)
        return status
    return 0


def _made(name: str, settings: Settings, kinds: Sequence[str]) -> part.Part:
    made = _part(name, settings)
    made.places = [Allowance(relay.connections, n) for n, relay in enumerate(settings.relays.values())]
    if name == "alarms" and "metrics" in kinds:
        made.metrics = _part("metrics", settings)
    return cast("part.Part", made)


def _part(name: str, settings: Settings) -> Any:
    module, kind = PARTS[name]
    return getattr(importlib.import_module(module), kind)(settings)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
