"""Open connections, the part that has each, and the limits on new ones. The limits are exact, since the supervisor
accepts every connection. Pure bookkeeping.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from smtpguard.mail.envelope import Network, client_address, within


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``per_client`` does not apply to clients in ``trusted``: the MTA in front carries mail of many."""

    total: int
    per_client: int
    trusted: Sequence[Network] = ()

    def trusts(self, client: str) -> bool:
        """An MTA on a Unix socket has no address, and is trusted."""
        return client_address(client) is None or within(client, self.trusted)


@dataclass(slots=True)
class Connections:
    """Open connections by id. ``part``: any key by which the supervisor knows its parts."""

    limits: Limits
    by_listener: Counter[str] = field(default_factory=Counter)
    _open: dict[int, tuple[Hashable, str, str]] = field(default_factory=dict)
    _by_client: Counter[str] = field(default_factory=Counter)
    _by_part: Counter[Hashable] = field(default_factory=Counter)
    _next: int = 0

    def __len__(self) -> int:
        return len(self._open)

    def admits(self, client: str, besides: int = 0) -> bool:
        """``besides``: open connections that are not counted yet."""
        if len(self._open) + besides >= self.limits.total:
            return False
        return self._by_client[client] < self.limits.per_client or self.limits.trusts(client)

    def least_loaded(self, parts: Iterable[Hashable]) -> Hashable | None:
        """The one with the fewest open connections; the first of equals, so the caller rotates them."""
        return min(parts, key=lambda part: self._by_part[part], default=None)

    def opened(self, part: Hashable, client: str, listener: str) -> int:
        self._next += 1
        self._open[self._next] = (part, client, listener)
        self.by_listener[listener] += 1
        self._by_client[client] += 1
        self._by_part[part] += 1
        return self._next

    def moved(self, connection: int, part: Hashable) -> None:
        """Handed to another part: the first one died before it had taken it."""
        before, client, listener = self._open[connection]
        self._open[connection] = (part, client, listener)
        self._by_part[before] -= 1
        self._by_part[part] += 1

    def closed(self, connection: int) -> None:
        """Forget it. An unknown id is ignored: a part may report it after the supervisor has given it up."""
        found = self._open.pop(connection, None)
        if found is None:
            return
        part, client, listener = found
        self.by_listener[listener] -= 1
        self._by_part[part] -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]

    def of(self, part: Hashable) -> list[int]:
        return [connection for connection, (its, _, _) in self._open.items() if its == part]

    def load(self, part: Hashable) -> int:
        return self._by_part[part]
