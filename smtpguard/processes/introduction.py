"""Read the PROXY header of connections from proxies in front: without blocking, and within a time limit.

Exactly the header is read from the socket. What follows, TLS or SMTP, is for the part that gets the connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from smtpguard.processes.listeners import Listener
from smtpguard.processes.proxyline import MAX_OCTETS, BadHeader, Header

_log = structlog.get_logger("smtpguard.supervisor")
SECONDS = 5.0
"""A proxy sends it with its first packet."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrival:
    """A connection of the proxy ``peer``."""

    connection: socket.socket
    listener: Listener
    peer: str
    header: Header = field(default_factory=Header)


class Introductions:
    """``told`` gets each arrival with its client: an address, or "" if the proxy speaks for itself."""

    def __init__(self, told: Callable[[Arrival, str], None]) -> None:
        self._told = told
        self._waiting: dict[Arrival, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, arrival: Arrival) -> None:
        loop = asyncio.get_running_loop()
        arrival.connection.setblocking(False)
        late = loop.call_later(SECONDS, self._drop, arrival, f"nothing within {SECONDS:g} s")
        self._waiting[arrival] = late
        loop.add_reader(arrival.connection.fileno(), self._readable, arrival)

    def close(self) -> None:
        for arrival in tuple(self._waiting):
            self._drop(arrival)

    def _readable(self, arrival: Arrival) -> None:
        connection, header = arrival.connection, arrival.header
        try:
            came = connection.recv(MAX_OCTETS, socket.MSG_PEEK)
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
            _log.warning("no PROXY header", peer=arrival.peer, listener=arrival.listener.name, why=why)
