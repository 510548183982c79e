"""Sockets that listen: bound by us, or inherited from the service manager (sd_listen_fds(3)).

An inherited socket stands for the configured one with its port, and its address where neither is a wildcard; so what is
said of a listener in the settings (TLS, senders_verified) holds for it too. Never here: accepting.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass

_FIRST_FD = 3
_WILDCARDS = frozenset({"", "0.0.0.0", "::", "*"})
BACKLOG = 1024


class CannotListen(Exception):
    """One sentence: the address, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """``index`` is its place in the settings' ``listen.smtp``. ``implicit_tls``: a refusal in clear would be no SMTP there.
    ``proxy``: who connects is a proxy, and says for whom."""

    index: int
    socket: socket.socket
    implicit_tls: bool = False
    proxy: bool = False

    @property
    def name(self) -> str:
        return _name(*self.socket.getsockname()[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One entry of ``listen.smtp``, as far as the socket goes."""

    address: str
    port: int
    implicit_tls: bool = False
    proxy: bool = False


def inherited(environ: MutableMapping[str, str] = os.environ, first: int = _FIRST_FD) -> list[socket.socket]:
    """The sockets that the manager has opened for this very process. The variables are taken away: no child is to see them."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for fd in range(first, first + int(count)):
        os.set_inheritable(fd, False)
        sockets.append(socket.socket(fileno=fd))
    return sockets


def open_all(wanted: Sequence[Wanted], given: Iterable[socket.socket] = ()) -> list[Listener]:
    """A listener for each of ``wanted``. Raises CannotListen, and leaves nothing open then."""
    left = list(given)
    opened: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for sock in left:
            undo.callback(sock.close)
        for index, want in enumerate(wanted):
            found = next((sock for sock in left if _stands_for(sock, want)), None)
            if found is not None:
                left.remove(found)
            else:
                found = _bind(want)
                undo.callback(found.close)
            found.setblocking(False)
            opened.append(Listener(index=index, socket=found, implicit_tls=want.implicit_tls, proxy=want.proxy))
        if left:
            names = ", ".join(_name(*sock.getsockname()[:2]) for sock in left)
            raise CannotListen(f"the inherited socket {names} is in no entry of listen.smtp")
        undo.pop_all()
    return opened


def _stands_for(sock: socket.socket, want: Wanted) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    address, port = sock.getsockname()[:2]
    return port == want.port and (address == want.address or bool({address, want.address} & _WILDCARDS))


def _bind(want: Wanted) -> socket.socket:
    name = _name(want.address, want.port)
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            want.address or None, want.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as e:
        raise CannotListen(f"cannot listen on {name}: {e.strerror}") from None
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if want.address in _WILDCARDS else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        why = {
            errno.EADDRINUSE: "the port is in use",
            errno.EACCES: "not allowed; ports below 1024 need socket activation (systemd/smtpguard.socket)",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(e.errno or 0, e.strerror or "it failed")
        raise CannotListen(f"cannot listen on {name}: {why}") from None
    return sock


def _name(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
