"""A connection that nobody is going to serve: told so in SMTP where that can be read, and closed.

Never here: whether it is served (supervisor).
"""

from __future__ import annotations

import socket

from smtpguard.mail import reply
from smtpguard.processes.listeners import Listener


def refuse(connection: socket.socket, why: reply.Reply, *, clear: bool) -> None:
    with connection:
        if clear:
            connection.setblocking(False)
            try:
                connection.send(why.wire())
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass


def refuse_backlog(listener: Listener) -> None:
    """Those that the kernel had accepted for us hear 421 instead of a reset. At a socket that a manager keeps they wait on, for
    whom it starts next."""
    if listener.given:
        return
    while True:
        try:
            connection, _ = listener.socket.accept()
        except OSError:
            return
        refuse(connection, reply.SHUTTING_DOWN, clear=listener.in_clear)
