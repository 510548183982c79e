"""Refuse connections that will not be served: with an SMTP reply where the client can read one, and counted.

A client that gets 554 may be sending. A socket that is closed with unread octets is reset, and the reply may be lost with it;
the client would then retry for days. So such a connection stays open for a moment, for its QUIT (RFC 5321 section 3.1).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter

import structlog

from smtpguard.locale.phrase import some_of
from smtpguard.mail import reply
from smtpguard.processes.listeners import Listener

_log = structlog.get_logger("smtpguard.supervisor")
SUM_SECONDS = 60.0
MOST_CLIENTS = 10_000
"""The most addresses that are counted one by one in a minute."""
_SHOWN = 10


class Refused:
    """Counts refused connections, and logs one line a minute for each reason: anybody can open connections without end."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[Counter[str], Counter[str]]] = {}  # by client and by listener
        self._said_at: dict[tuple[str, str], float] = {}

    def add(self, event: str, listener: Listener, client: str, why: str) -> None:
        by_client, by_listener = self._counts.setdefault((event, why), (Counter(), Counter()))
        client = client or "unknown"
        known = client in by_client or len(by_client) < MOST_CLIENTS
        by_client[client if known else "others"] += 1
        by_listener[listener.name] += 1

    def tell(self, now: float) -> None:
        """Log the counts of each reason whose last line is at least a minute old. ``now``: infinite at the end."""
        for reason in [*self._counts]:
            if now - self._said_at.get(reason, float("-inf")) >= SUM_SECONDS:
                self._said_at[reason] = now
                (event, why), (by_client, by_listener) = reason, self._counts.pop(reason)
                total, clients, listeners = by_client.total(), _most(by_client), _most(by_listener)
                _log.warning(event, refused=total, clients=clients, listeners=listeners, why=why)


def _most(counts: Counter[str]) -> str:
    """Return counts as text: "192.0.2.7 (12), 192.0.2.8 (1) and 3 more"."""
    return some_of([f"{name} ({count})" for name, count in counts.most_common()], _SHOWN)


MOST_LINGERING = 200
LINGER_SECONDS = 5.0
LINE_OCTETS = 512


def refuse(connection: socket.socket, why: reply.Reply, *, clear: bool) -> None:
    """Close a connection, after a reply if the client can read one (``clear``)."""
    with connection:
        if clear:
            connection.setblocking(False)
            try:
                connection.send(why.octets)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass


class Spare:
    """A file descriptor in reserve, for when the process has no other left. It is released to accept a connection and refuse it,
    so that the client gets a reply instead of waiting in the backlog."""

    def __init__(self) -> None:
        self._held = self._taken()

    def refuse(self, listener: Listener) -> bool:
        """Refuse one connection. Returns False if that is impossible, or no connection waits."""
        if self._held is None:
            self._held = self._taken()
            return False
        os.close(self._held)
        self._held = None
        try:
            connection, _ = listener.socket.accept()
        except OSError:
            return False
        else:
            refuse(connection, reply.TOO_MANY_CONNECTIONS, clear=listener.in_clear)
            return True
        finally:
            self._held = self._taken()

    def close(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @staticmethod
    def _taken() -> int | None:
        try:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None


def refuse_backlog(listener: Listener) -> None:
    """Answer 421 to connections in the kernel's backlog, instead of a reset. At a socket of a service manager they stay, for the
    process that it starts next."""
    if listener.given:
        return
    while True:
        try:
            connection, _ = listener.socket.accept()
        except OSError:
            return
        refuse(connection, reply.SHUTTING_DOWN, clear=listener.in_clear)


class Strangers:
    """Refuses clients that a listener does not admit, with 554."""

    def __init__(self) -> None:
        self._lingering: dict[socket.socket, tuple[asyncio.TimerHandle, bytearray]] = {}

    def refuse(self, connection: socket.socket, listener: Listener) -> None:
        if not listener.in_clear or len(self._lingering) >= MOST_LINGERING:
            refuse(connection, reply.NOT_A_CLIENT, clear=listener.in_clear)
            return
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            connection.send(reply.NOT_A_CLIENT.octets)
        except OSError:
            connection.close()
            return
        late = loop.call_later(LINGER_SECONDS, self._drop, connection)
        self._lingering[connection] = late, bytearray()
        loop.add_reader(connection.fileno(), self._readable, connection)

    def close(self) -> None:
        for connection in tuple(self._lingering):
            self._drop(connection)

    def _readable(self, connection: socket.socket) -> None:
        """Answer commands: QUIT ends it, any other is out of sequence. An overlong command ends it too."""
        _, held = self._lingering[connection]
        try:
            came = connection.recv(LINE_OCTETS)
            held += came
            *lines, rest = bytes(held).split(b"\n")
            held[:] = rest
            over = not came or len(rest) > LINE_OCTETS
            for line in lines:
                over = over or line.strip().upper() == b"QUIT"
                connection.send((reply.BYE if over else reply.BAD_SEQUENCE).octets)
                if over:
                    break
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            over = True
        if over:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        late, _ = self._lingering.pop(connection)
        late.cancel()
        asyncio.get_running_loop().remove_reader(connection.fileno())
        connection.close()
