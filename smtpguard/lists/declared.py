"""Lists and streams as the policy declares them, as values that nobody changes.

Never here: the YAML and its errors (policy, config), or who is on a list (index).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from smtpguard.mail.address import Address

Network = IPv4Network | IPv6Network

COLLEAGUES = frozenset({"colleagues", "employees", "internal", "staff"})
"""Audiences that are no customers: such a list counts in reach, never in customers or members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """From where mail must provably come: of each kind that is declared, one must hold."""

    dkim: frozenset[str] = frozenset()  # signing domains, in lower case
    clients: tuple[Network, ...] = ()

    @property
    def declared(self) -> bool:
        return bool(self.dkim or self.clients)

    def proven(self, *, client_ip: str, signed_by: frozenset[str]) -> bool:
        """Whether a message from ``client_ip`` with valid signatures of ``signed_by`` comes from here."""
        if not self.declared or (self.dkim and not self.dkim & signed_by):
            return False
        return not self.clients or within(client_ip, self.clients)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInfo:
    """One customer list. ``writers`` are canonical addresses; ``approvals`` is the policy's own, and opaque here.

    ``members``: declarations of sources (sources.declared), none if nobody can say who is on it. An index with fewer than
    ``at_least`` people, or that has lost more than the share ``max_shrink`` at once, is not taken into use.
    """

    name: str
    title: str = ""
    owner: str | None = None
    addresses: tuple[Address, ...] = ()
    list_ids: frozenset[str] = frozenset()
    audience: str = "customers"
    sensitivity: str | None = None
    writers: frozenset[str] = frozenset()
    origin: Origin = field(default_factory=Origin)
    avoid: frozenset[str] = frozenset()
    approvals: Any = None
    members: tuple[Mapping[str, Any], ...] = ()
    at_least: int = 1
    max_shrink: float = 0.2
    refresh_seconds: int = 900
    stale_after_seconds: int = 86_400

    @property
    def of_customers(self) -> bool:
        return self.audience not in COLLEAGUES


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most ``count`` in any ``window_seconds``."""

    count: int
    window_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Standing approval for one-by-one mail of a system; never for a list's address."""

    name: str
    senders: frozenset[str]  # canonical From
    origin: Origin
    max: Limit | None = None
    max_per_person: Limit | None = None


def within(client_ip: str, networks: Iterable[Network]) -> bool:
    """Whether a client is in one of these networks; an IPv4 address mapped into IPv6 is the IPv4 address."""
    try:
        ip = ip_address(client_ip)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in networks)
