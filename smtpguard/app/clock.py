"""The system clock, ids made from it, and loops for the periodic work of a part. Tests inject other clocks."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

from smtpguard.database.errors import Outage, StoreError
from smtpguard.journal.clock import DOUBT, PAUSE, Clock, SteadyClock

if TYPE_CHECKING:
    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # without I, L, O, U: an id is read over the telephone
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_RANDOM_BITS = 30  # six digits; ten for the time


class SystemClock:
    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))  # it runs on while the machine sleeps


STEADY = SteadyClock(SystemClock())
"""The clock of ``serve`` and its parts, which are forked from it with what it has learned by then."""


def steady(clock: Clock) -> SteadyClock:
    """Return ``STEADY`` for the system clock, and a new steady clock for any other that is none."""
    if isinstance(clock, SteadyClock):
        return clock
    return STEADY if isinstance(clock, SystemClock) else SteadyClock(clock)


async def learned_clock(clock: Clock, store: Store) -> SteadyClock:
    """Return the steady clock of a command, which has learned from the journal. Raises StoreError."""
    made = SteadyClock(clock)
    await learn(made, store)
    return made


async def learn(clock: SteadyClock, store: Store) -> None:
    """Teach a clock, at a start, whether the journal doubts it. Raises StoreError."""
    now = store.now()
    clock.learn(*await store.journal.newest_at(now - DOUBT, now - PAUSE))


def ids(now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> Callable[[], str]:
    """Return a maker of ids: 16 digits, sorted by the millisecond of creation. Those of one process strictly increase.

    Ids of two processes in the same millisecond differ in 30 random bits; each has a maker of its own.
    """
    last, drawn = 0, chain.from_iterable(iter(_drawn, ()))

    def new_id() -> str:
        nonlocal last
        ms = now_ms()
        later = ms > last >> _RANDOM_BITS  # else it is the same millisecond, or the clock was set back
        n = last = ms << _RANDOM_BITS | next(drawn) >> 2 if later else last + 1
        pairs = _PAIRS
        return (
            f"{pairs[n >> 70 & 1023]}{pairs[n >> 60 & 1023]}{pairs[n >> 50 & 1023]}{pairs[n >> 40 & 1023]}"
            f"{pairs[n >> 30 & 1023]}{pairs[n >> 20 & 1023]}{pairs[n >> 10 & 1023]}{pairs[n & 1023]}"
        )

    return new_id


def _drawn() -> Sequence[int]:
    """Draw random numbers of 32 bits; many at once, since each draw lets go of the interpreter's lock."""
    return memoryview(os.urandom(1024)).cast("I")


def host_name() -> str:
    """Return our name in a greeting: the machine's name if it is fully qualified. No server is asked."""
    name = socket.gethostname()
    return name if "." in name else f"{name}.localdomain"


async def every(
    seconds: float,
    what: str,
    work: Callable[[], Awaitable[object]],
    logged: dict[str, float] | None = None,
    *,
    full: int = 0,
) -> NoReturn:
    """Do ``work`` every so many seconds, for ever. If the store does not answer it is tried again the next time. ``logged``:
    when each reason was logged, shared by outages (Outage). ``full``: the number returned by ``work`` if there may be more, which
    is done at once."""
    outage = Outage(log, f"{what}: waiting for the store", logged={} if logged is None else logged)
    while True:
        done: object = None
        try:
            done = await work()
        except StoreError as e:
            outage.report(e)
        else:
            outage.end()
        if not full or done != full:
            await asyncio.sleep(seconds)


async def slices(work: Callable[[], Awaitable[bool]], pause_seconds: float = 0.05) -> None:
    """Do ``work``, a slice at a time, between admissions, until it returns that there is no more. The pause after a slice is at
    least as long as the slice: on a slow disk mail has half of the time."""
    more, loop = True, asyncio.get_running_loop()
    while more:
        begun = loop.time()
        more = await work()
        await asyncio.sleep(max(pause_seconds, loop.time() - begun))
