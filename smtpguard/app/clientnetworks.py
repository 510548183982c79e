"""Warn of networks in a listener's ``clients`` that let in too many: public networks, and bridges of containers.

A container engine may forward a published port through its own proxy. Then every outside client has the bridge's
address, which is in the bridge's network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from smtpguard.config.fields import Network
from smtpguard.config.listeners import network_text

_ROUTES = Path("/proc/net/route")
_IN_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_BRIDGE = re.compile(r"(docker|podman|cni|lxcbr|lxdbr|flannel)\w*\Z|br-[0-9a-f]{12}\Z")
_USUAL: Mapping[str, str] = {
    "172.17.0.0/16": "Docker's",
    "10.88.0.0/16": "Podman's",
    "10.42.0.0/16": "K3s's",
    "10.244.0.0/16": "Kubernetes'",
    "192.168.65.0/24": "Docker Desktop's",
}


def too_open(networks: Sequence[Network], routes: str | None = None, *, inside: bool | None = None) -> Iterator[str]:
    """A sentence for each network that probably admits more than was meant. ``routes``: text of /proc/net/route;
    ``inside``: whether we run in a container."""
    text = _read() if routes is None else routes
    contained = any(path.exists() for path in _IN_CONTAINER) if inside is None else inside
    bridges = dict(_bridges(text, contained=contained))
    for network in networks:
        if whose := _bridge(network, bridges):
            yield (
                f"{network_text(network)} contains {whose}: through a published port anyone can connect from it; name "
                "each container that sends"
            )
        elif network.is_global and network.num_addresses > 1:
            yield f"{network_text(network)} is a network of the Internet: everyone in it may send through this guard"


def _bridge(network: Network, bridges: Mapping[IPv4Network, str]) -> str:
    """The name of the bridge that the network contains, or "". A single address in a bridge is a container, unless it
    is the bridge's own."""
    if not isinstance(network, IPv4Network):
        return ""
    for usual, whose in _USUAL.items():
        if network.subnet_of(IPv4Network(usual)) and (network.num_addresses > 1 or network[0] == IPv4Network(usual)[1]):
            return f"{whose} bridge"
    for bridge, name in bridges.items():
        if network.overlaps(bridge) and (
            network.num_addresses > 1 or bridge.num_addresses == 1 or network[0] == bridge[1]
        ):
            return (
                f"the bridge {name} ({bridge})"
                if bridge.num_addresses > 1
                else f"the gateway of this container ({bridge[0]})"
            )
    return ""


def _bridges(routes: str, *, contained: bool) -> Iterator[tuple[IPv4Network, str]]:
    """The bridges of this machine; in a container also its gateway, through which all clients come."""
    for line in routes.splitlines()[1:]:
        name, destination, gateway, *rest = line.split()
        mask = _address(rest[4])
        if _BRIDGE.match(name) and int(mask):
            yield IPv4Network(f"{_address(destination)}/{mask}"), name
        elif contained and not int(_address(destination)) and int(_address(gateway)):
            yield IPv4Network(_address(gateway)), name


def _address(text: str) -> IPv4Address:
    """Hexadecimal in host byte order, which is little-endian wherever we run."""
    return IPv4Address(int.from_bytes(bytes.fromhex(text), "little"))


def _read() -> str:
    try:
        return _ROUTES.read_text()
    except OSError:
        return ""
