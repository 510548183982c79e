"""Slow down password guessing (RFC 4954 section 9).

A login name and a client's address each have a count of *different* wrong guesses: a telephone with an old password,
which repeats the same one, slows nobody. Beyond a few, the attempts of one address, and those at one name, are queued,
each a pause after the one before; an attempt that would wait too long is refused for now. A name is not slowed for an
address from which it has logged in before, so that strangers cannot lock its owner out.

Memory is bounded: the oldest counts are dropped. Of each guess only a few octets of a keyed digest are kept, which prove
nothing. Each process counts for itself.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_DIGEST_OCTETS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessLimits:
    """``free``: wrong guesses without a pause. ``entries``: the most addresses and names, and known pairs of them, in
    memory."""

    free: int = 3
    longest_pause_seconds: float = 15
    longest_wait_seconds: float = 30
    forget_seconds: float = 3600  # after the last wrong guess
    guesses: int = 10  # different guesses counted for each address and name
    entries: int = 10_000


@dataclass(slots=True)
class _Count:
    wrong: int = 0
    last: float = 0.0
    turn: float = 0.0
    """The earliest time of the next attempt."""
    guesses: tuple[bytes, ...] = ()


class Guesses:
    """The wrong guesses that one process has seen. ``address`` may be empty: then only the name counts."""

    def __init__(self, monotonic: Callable[[], float], patience: GuessLimits | None = None) -> None:
        self._monotonic, self._patience = monotonic, patience or GuessLimits()
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._key = os.urandom(16)

    def __repr__(self) -> str:
        return f"<Guesses counts={len(self._counts)} known={len(self._known)}>"

    def __len__(self) -> int:
        return len(self._counts) + len(self._known)

    def wait(self, address: str, name: str) -> float | None:
        """Reserve a turn for this attempt, and return the seconds until then; None if that would be too long."""
        now = self._monotonic()
        counts = [count for key in self._keys(address, name) if (count := self._counted(key, now)) is not None]
        pauses = [self._pause(count) for count in counts]
        turn = max((count.turn for count, pause in zip(counts, pauses, strict=True) if pause), default=now)
        if turn - now > self._patience.longest_wait_seconds:
            return None
        for count, pause in zip(counts, pauses, strict=True):
            count.turn = max(turn, now) + pause
        return max(turn - now, 0.0)

    def wrong(self, address: str, name: str, secret: bytes | bytearray) -> None:
        now = self._monotonic()
        guess = hashlib.blake2b(
            _folded(name).encode() + b"\0" + secret, digest_size=_DIGEST_OCTETS, key=self._key
        ).digest()
        for key in self._keys(address, name):
            count = self._counted(key, now) or _Count()
            count.last = now
            if guess not in count.guesses:
                count.guesses = (*count.guesses, guess)[-self._patience.guesses :]
                count.wrong += 1
                count.turn = max(count.turn, now + self._pause(count))
            self._counts[key] = count
            self._counts.move_to_end(key)
        while len(self._counts) > self._patience.entries:
            self._counts.popitem(last=False)

    def right(self, address: str, name: str) -> None:
        """Note a correct password: from this address the name is not slowed any more. Counts against the address stay,
        since it may guess at other names."""
        if not address:
            return
        pair = (address, _folded(name))
        self._known[pair] = None
        self._known.move_to_end(pair)
        while len(self._known) > self._patience.entries:
            self._known.popitem(last=False)

    def _keys(self, address: str, name: str) -> list[str]:
        keys = [f"address {address}"] if address else []
        if (address, _folded(name)) not in self._known:
            keys.append(f"name {_folded(name)}")
        return keys

    def _counted(self, key: str, now: float) -> _Count | None:
        count = self._counts.get(key)
        if count is not None and now - count.last >= self._patience.forget_seconds:
            del self._counts[key]
            return None
        return count

    def _pause(self, count: _Count) -> float:
        over = count.wrong - self._patience.free
        if over < 0:
            return 0.0
        return float(min(2.0 ** min(over, 30), self._patience.longest_pause_seconds))


def _folded(name: str) -> str:
    return name.casefold()
