"""Refuse connections that will not be served: with an SMTP reply where the client can read one, then closed.

A client that gets 554 may be sending. A socket that is closed with unread octets is reset, and the reply may be lost
with it; the client would then retry for days. So such a connection stays open for a moment, for its QUIT (RFC 5321
section 3.1).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter

import structlog

from smtpguard.mail import reply
from smtpguard.processes.listeners import Listener

_log = structlog.get_logger("smtpguard.supervisor")
MOST_LINGERING = 200
LINGER_SECONDS = 5.0
LINE_OCTETS = 512
SUM_SECONDS = 60.0
MOST_STRANGERS = 10_000
"""The most addresses that are counted singly in a minute."""
_SHOWN = 10


def refuse(connection: socket.socket, why: reply.Reply, *, clear: bool) -> None:
    with connection:
        if clear:
            connection.setblocking(False)
            try:
                connection.send(why.octets)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass


class Spare:
    """A reserved descriptor for when the process has no other left. It is released to accept a connection and refuse
    it, so that the client gets a reply instead of waiting in the backlog."""

    def __init__(self) -> None:
        self._held = self._taken()

    def refuse(self, listener: Listener) -> bool:
        """False: even that is impossible, or no connection waits any more."""
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
    """Connections in the kernel's backlog get 421 instead of a reset. At a socket of a service manager they stay, for
    the process that it starts next."""
    if listener.given:
        return
    while True:
        try:
            connection, _ = listener.socket.accept()
        except OSError:
            return
        refuse(connection, reply.SHUTTING_DOWN, clear=listener.in_clear)


class Strangers:
    """Clients that a listener does not admit: answered 554, counted, and logged in one line a minute."""

    def __init__(self) -> None:
        self._lingering: dict[socket.socket, tuple[asyncio.TimerHandle, bytearray]] = {}
        self._by_client: Counter[str] = Counter()
        self._by_listener: Counter[str] = Counter()
        self._said_at = float("-inf")

    def refuse(self, connection: socket.socket, listener: Listener) -> None:
        """Refuse without counting: a proxy's own check."""
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

    def turn_away(self, connection: socket.socket, listener: Listener, client: str) -> None:
        """``client``: its address, "" if a proxy did not know it."""
        client = client or "unknown"
        known = client in self._by_client or len(self._by_client) < MOST_STRANGERS
        self._by_client[client if known else "others"] += 1
        self._by_listener[listener.name] += 1
        self.refuse(connection, listener)

    def look(self, now: float) -> None:
        """Log the counts since the last line, at least a minute ago."""
        if self._by_client and now - self._said_at >= SUM_SECONDS:
            self._said_at = now
            self._say()

    def close(self) -> None:
        if self._by_client:
            self._say()
        for connection in tuple(self._lingering):
            self._drop(connection)

    def _say(self) -> None:
        _log.warning(
            "strangers refused",
            refused=self._by_client.total(),
            clients=_most(self._by_client),
            listeners=_most(self._by_listener),
            why="they are not in clients of the listener",
        )
        self._by_client.clear()
        self._by_listener.clear()

    def _readable(self, connection: socket.socket) -> None:
        """Anything but QUIT is out of place now. An overlong command is not waited for."""
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


def _most(counts: Counter[str]) -> str:
    """ "192.0.2.7 (12), 192.0.2.8 (1) and 3 more"."""
    shown = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_SHOWN))
    left = len(counts) - _SHOWN
    return f"{shown} and {left} more" if left > 0 else shown
