"""The client's IP address, as a peer or a trusted proxy gives it, and the networks that contain it.

An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is the IPv4 address, and a zone (RFC 4007) is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


@lru_cache(maxsize=4096)
def client_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address without zone, an IPv4-mapped one as IPv4; None for a client without one."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def within(text: str, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks."""
    if not networks:
        return False
    address = client_address(text)
    return address is not None and any(address in network for network in networks)
