"""Count the open connections of the tree, and bound them: in all, by client, and by the file descriptors of the parts."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from smtpguard.mail.envelope import Network, client_address, client_network, within

_OWN_DESCRIPTORS = 40  # a part without clients has 30, and a few more while it works


def _descriptors() -> int:
    """Return the most file descriptors that a process may have, once its limit is raised."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 16


def raise_descriptor_limit() -> None:
    """Raise the soft limit of this process, and of those that it forks, to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (_descriptors(), hard))


def most_connections(parts: Sequence[str]) -> int:
    """Return for how many connections these parts have file descriptors. Each connection may take a second one, to the relay or
    for a spool file. If clients held all descriptors, no mail would pass."""
    takers = sum(part in ("proxy", "milter") for part in parts)
    return takers * max(1, (_descriptors() - _OWN_DESCRIPTORS) // 2)


@dataclass(slots=True, kw_only=True)
class Connections:
    """The open connections, by number: at most ``total``, and ``per_client`` (of IPv6 a /64), from which clients in ``trusted`` are exempt: an MTA
    in front carries mail of many. ``part``: any key by which the supervisor knows its parts."""

    total: int
    per_client: int
    trusted: Sequence[Network] = ()
    by_listener: Counter[str] = field(default_factory=Counter)
    _open: dict[int, tuple[Hashable, str, str]] = field(default_factory=dict)
    _by_client: Counter[str] = field(default_factory=Counter)
    _by_part: Counter[Hashable] = field(default_factory=Counter)
    _next: int = 0

    def __len__(self) -> int:
        return len(self._open)

    def trusts(self, client: str) -> bool:
        """Return whether a client is trusted. An MTA on a Unix socket has no address, and is."""
        return client_address(client) is None or within(client, self.trusted)

    def admits(self, client: str, besides: int = 0) -> bool:
        """Return whether a client may have one more connection. ``besides``: open connections that are not counted yet."""
        if len(self._open) + besides >= self.total:
            return False
        return self._by_client[client_network(client)] < self.per_client or self.trusts(client)

    def opened(self, part: Hashable, client: str, listener: str) -> int:
        """Count a connection. Returns its number."""
        client = client_network(client)
        self._next += 1
        self._open[self._next] = (part, client, listener)
        self.by_listener[listener] += 1
        self._by_client[client] += 1
        self._by_part[part] += 1
        return self._next

    def moved(self, connection: int, part: Hashable) -> None:
        """Record that another part gets a connection, or None does: the first died before it had taken it."""
        before, client, listener = self._open[connection]
        self._open[connection] = (part, client, listener)
        self._by_part[before] -= 1
        self._by_part[part] += 1

    def closed(self, connection: int) -> None:
        """Forget a connection. An unknown number is ignored: a part may report it after the supervisor has given it up."""
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
