"""Whether a connection would end at a socket of this guard: a relay that is the guard itself, two listeners at one place.

A listener may stand for all addresses of this machine, and a relay may be named by any name of it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from smtpguard.config.settings import AnyRelay, Relay, Settings
from smtpguard.config.yaml import Place

_LOOPBACK: Mapping[int, IPv4Address | IPv6Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_SYSCTL = Path("/proc/sys/net")
HOSTS = Path("/etc/hosts")


class Bound(NamedTuple):
    """A socket of ours, by the place of its section in the settings. ``alone``: "::" does not stand for IPv4 too."""

    place: Place
    address: str
    port: int
    alone: bool = False


def own_sockets(settings: Settings) -> list[Bound]:
    """Return the sockets that the settings ask for, except Unix sockets."""
    web = (("console", settings.console), ("metrics", settings.metrics))
    return [
        *(Bound(("listen", kind, n), each.address, each.port) for kind, n, each in settings.listen.each() if each.port),
        *(Bound((name,), each.address, each.port) for name, each in web if each is not None and each.port),
    ]


def relays(settings: Settings) -> Iterator[tuple[Place, Relay]]:
    yield ("relay",), settings.relay
    yield from ((("routes", n, "relay"), route.relay) for n, route in enumerate(settings.routes))


def to_itself(settings: Settings, sockets: Iterable[Bound], *, ask: bool) -> Iterator[tuple[Place, str]]:
    """Yield the relays and fallbacks that are one of our sockets: the place, and a sentence. ``ask``: whether DNS is asked;
    if not, only addresses, localhost and the names in /etc/hosts are known."""
    ours = list(sockets)
    for at, relay in relays(settings):
        if said := _itself("the relay", relay, ours, ask=ask):
            yield (*at, "port"), said
        for n, other in enumerate(relay.fallbacks):
            if said := _itself("this fallback", other, ours, ask=ask):
                yield (*at, "fallbacks", n, "host"), said


def own_socket(relay: AnyRelay, sockets: Iterable[Bound], *, ask: bool) -> Place | None:
    """Return the place of the socket of ours at which connections to a relay end; None if it is another's. ``ask``: as above."""
    same = [each for each in sockets if each.port == relay.port]
    reached = addresses(relay.host, ask=ask) if same else frozenset()
    return next((each.place for each in same if _listens_at(each, reached)), None)


def same_server(one: AnyRelay, other: AnyRelay) -> bool:
    """Return whether two relays are one server, as far as that is known without DNS."""
    if one.port != other.port:
        return False
    return one.host.lower() == other.host.lower() or not addresses(one.host, ask=False).isdisjoint(
        addresses(other.host, ask=False)
    )


def _itself(what: str, relay: AnyRelay, sockets: Iterable[Bound], *, ask: bool) -> str:
    place = own_socket(relay, sockets, ask=ask)
    if place is None:
        return ""
    if place[:2] == ("listen", "smtp"):
        return f"{what} is this guard itself: mail would loop"
    return f"{what} is this guard's own {'milter' if place[0] == 'listen' else place[0]}, which takes no mail"


def overlap(one: Bound, other: Bound) -> bool:
    """Return whether two sockets exclude each other."""
    return one.port == other.port and (
        _listens_at(other, addresses(one.address, ask=False)) or _listens_at(one, addresses(other.address, ask=False))
    )


def addresses(host: str, *, ask: bool) -> frozenset[IPv4Address | IPv6Address]:
    """Return the addresses to which connections to a host go, as far as they are known."""
    if host.lower() == "localhost":
        return frozenset(_LOOPBACK.values())
    each: set[IPv4Address | IPv6Address] = set()
    for name in (host,) if ask else (host, *_hosts(host)):
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=0 if ask else socket.AI_NUMERICHOST)
            each |= {_plain(str(entry[4][0])) for entry in found}
    return frozenset(_LOOPBACK[address.version] if address.is_unspecified else address for address in each)


def _hosts(host: str) -> Iterator[str]:
    """Yield the addresses of a name in the file of hosts (hosts(5))."""
    try:
        lines = HOSTS.read_text(encoding="utf-8", errors="replace").lower().splitlines()
    except OSError:
        return
    for line in lines:
        address, *names = line.partition("#")[0].split() or ("",)
        if host.lower() in names:
            yield address


def _listens_at(ours: Bound, reached: Iterable[IPv4Address | IPv6Address]) -> bool:
    """Return whether a socket's address is among these, or stands for one of them."""
    at = _plain(ours.address)
    if not at.is_unspecified:
        return at in reached
    versions = {at.version} if ours.alone else {at.version, 4}
    return any(each.version in versions and _can_be_bound(each) for each in reached)


def _plain(text: str) -> IPv4Address | IPv6Address:
    """Parse an address without a zone; an IPv4 address may be mapped into IPv6."""
    found = ip_address(text.partition("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _can_be_bound(address: IPv4Address | IPv6Address) -> bool:
    """Return whether a socket can be bound to an address, which is then one of this machine."""
    if address.is_loopback:
        return True
    try:
        if (_SYSCTL / f"ipv{address.version}/ip_nonlocal_bind").read_text().strip() != "0":
            return False  # every address can be bound, so this proves nothing
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
