"""Rate limits: a sliding window for each key, bounded in memory.

Each console process has its own, lost when it ends. They slow down guessing, and prove nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address

from smtpguard.guard.ports import Clock

MOST_KEYS = 20_000


class RateLimit:
    """``most`` attempts in ``seconds`` for each key. A refused attempt does not count, so clients that keep trying do
    not delay those that wait."""

    def __init__(self, clock: Clock, *, most: int, seconds: float) -> None:
        self._clock, self._most, self._seconds = clock, most, seconds
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until this key may try, 0 for now."""
        tries = self._of(key)
        return 0.0 if len(tries) < self._most else tries[0] + self._seconds - self._clock.monotonic()

    def take(self, key: str) -> None:
        """Count an attempt before its result is known, so that many at once gain nothing."""
        self._of(key).append(self._clock.monotonic())
        self._tries.move_to_end(key)
        while len(self._tries) > MOST_KEYS:
            self._tries.popitem(last=False)

    def give_back(self, key: str) -> None:
        """The attempt was right, and does not count."""
        tries = self._tries.get(key)
        if tries:
            tries.pop()

    def _of(self, key: str) -> deque[float]:
        tries = self._tries.setdefault(key, deque())
        end = self._clock.monotonic() - self._seconds
        while tries and tries[0] <= end:
            tries.popleft()
        return tries


def network(client: str) -> str:
    """The key for a client address: for IPv6 the /64, which is one customer's (RFC 6177)."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
