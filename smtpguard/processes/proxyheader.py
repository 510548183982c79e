"""Read the PROXY header of a connection, versions 1 and 2 (HAProxy's proxy-protocol.txt), which names the proxy's client.

It is read without blocking, within a time limit, strictly, and without an octet of what follows: TLS or SMTP is for the
part that gets the connection. LOCAL and UNKNOWN, and families that are not TCP over IP, give no address. TLVs are skipped.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from smtpguard.processes.listeners import Listener
from smtpguard.processes.refusing import Refused

MAX_HEADER_LINE_OCTETS = 107  # version 1, section 2.1
MAX_HEADER_OCTETS = 16 + 4096  # version 2: addresses, and TLVs with a certificate's names

_LINE = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_OCTETS = len(_SIGNATURE) + 4
_TCP = re.compile(rb"PROXY TCP(4|6) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n\Z")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n\Z")
_LOCAL, _PROXY = 0, 1
_FAMILIES = {0x11: 4, 0x21: 16}  # STREAM over INET and INET6: octets of an address


class BadHeader(Exception):
    """The input is no PROXY header. The text contains none of it."""


class Header:
    """A parser of one header. ``client``: None until the header is complete, then an address, or "" for none. ``local``: the proxy
    speaks for itself, as in its checks (LOCAL)."""

    def __init__(self) -> None:
        self.client: str | None = None
        self.local = False
        self._held = b""

    def feed(self, data: bytes) -> int:
        """Take input. Returns how many of these octets belong to the header; the rest is the client's. Raises BadHeader; do not
        call it after that."""
        before = len(self._held)
        self._held += data
        end = self._end()
        if end is None:
            return len(data)
        header = self._held[:end]
        if header.startswith(_LINE):
            self.client = _line(header)
        else:
            self.client = _binary(header)
            self.local = header[12] & 0xF == _LOCAL
        return end - before

    def _end(self) -> int | None:
        held = self._held
        if _LINE.startswith(held[: len(_LINE)]):
            end = held.find(b"\n", 0, MAX_HEADER_LINE_OCTETS) + 1
            if not end and len(held) >= MAX_HEADER_LINE_OCTETS:
                raise BadHeader("the line does not end")
            return end or None
        if not _SIGNATURE.startswith(held[: len(_SIGNATURE)]):
            raise BadHeader("it does not begin with one")
        if len(held) < _FIXED_OCTETS:
            return None
        end = _FIXED_OCTETS + int.from_bytes(held[14:16], "big")
        if end > MAX_HEADER_OCTETS:
            raise BadHeader("it is too long")
        return end if len(held) >= end else None


def _line(header: bytes) -> str:
    if _UNKNOWN.match(header):
        return ""
    found = _TCP.match(header)
    if not found:
        raise BadHeader("the line is none of the protocol's")
    try:
        source, destination = (ip_address(found[n].decode("ascii")) for n in (2, 3))
    except ValueError:
        raise BadHeader("an address is none") from None
    if {source.version, destination.version} != {int(found[1])}:
        raise BadHeader("an address is of another family")
    if max(int(found[4]), int(found[5])) > 0xFFFF:
        raise BadHeader("a port is none")
    return _named(source)


def _binary(header: bytes) -> str:
    version, command = header[12] >> 4, header[12] & 0xF
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise BadHeader("the version or the command is unknown")
    octets = _FAMILIES.get(header[13])
    if command == _LOCAL or octets is None:
        return ""
    source = header[_FIXED_OCTETS : _FIXED_OCTETS + octets]
    if len(header) < _FIXED_OCTETS + 2 * octets + 4:
        raise BadHeader("the addresses are cut off")
    return _named(ip_address(source))


def _named(address: IPv4Address | IPv6Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


HEADER_SECONDS = 5.0
"""How long a header may take. A proxy sends it with its first packet."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrival:
    """A connection of the proxy ``peer`` whose header is read."""

    connection: socket.socket
    listener: Listener
    peer: str
    header: Header = field(default_factory=Header)


class Introductions:
    """Reads the headers of connections. ``told`` gets each arrival with its client: an address, or "" if the proxy names none."""

    def __init__(self, told: Callable[[Arrival, str], None], refused: Refused) -> None:
        self._told, self._refused = told, refused
        self._waiting: dict[Arrival, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, arrival: Arrival) -> None:
        loop = asyncio.get_running_loop()
        arrival.connection.setblocking(False)
        late = loop.call_later(HEADER_SECONDS, self._drop, arrival, f"nothing within {HEADER_SECONDS:g} s")
        self._waiting[arrival] = late
        loop.add_reader(arrival.connection.fileno(), self._readable, arrival)

    def close(self) -> None:
        for arrival in tuple(self._waiting):
            self._drop(arrival)

    def _readable(self, arrival: Arrival) -> None:
        connection, header = arrival.connection, arrival.header
        try:
            came = connection.recv(MAX_HEADER_OCTETS, socket.MSG_PEEK)
            if not came:
                self._drop(arrival)  # a port check, as by a proxy
                return
            connection.recv(header.feed(came))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            self._drop(arrival, os.strerror(e.errno or 0))
            return
        except BadHeader as e:
            self._drop(arrival, str(e))
            return
        if header.client is not None:
            self._forget(arrival)
            self._told(arrival, header.client)

    def _forget(self, arrival: Arrival) -> None:
        self._waiting.pop(arrival).cancel()
        asyncio.get_running_loop().remove_reader(arrival.connection.fileno())

    def _drop(self, arrival: Arrival, why: str = "") -> None:
        self._forget(arrival)
        arrival.connection.close()
        if why:
            self._refused.add("no PROXY header", arrival.listener, arrival.peer, why)
