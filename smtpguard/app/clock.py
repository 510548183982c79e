"""The real clock and the ids made from it. Tests inject others."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # without I, L, O, U: an id is read over the telephone
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_TIME_DIGITS = 10
_RANDOM_DIGITS = 6
_RANDOM = 32**_RANDOM_DIGITS


class SystemClock:
    """Implements guard.ports.Clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def ids(now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> Callable[[], str]:
    """A maker of ids: 16 digits, sorted by the millisecond of creation. Those of one process strictly increase.

    Ids of two processes in the same millisecond differ in 30 random bits.
    """
    last = [0, 0]

    def new_id() -> str:
        ms = now_ms()
        if ms > last[0]:
            last[:] = ms, secrets.randbelow(_RANDOM - _RANDOM // 4)
        else:  # the same millisecond, or a clock that was set back
            last[1] += 1
            if last[1] >= _RANDOM:
                last[:] = last[0] + 1, 0
        return _text(last[0], _TIME_DIGITS) + _text(last[1], _RANDOM_DIGITS)

    return new_id


def _text(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits // 2):
        text = _PAIRS[number & 1023] + text
        number >>= 10
    return text


def host_name() -> str:
    """Our name in a greeting: the machine's if it is fully qualified. No server is asked."""
    name = socket.gethostname()
    return name if "." in name else f"{name}.localdomain"
