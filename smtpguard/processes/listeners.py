"""Open the listening sockets: bind them, or inherit them from the service manager (sd_listen_fds(3)).

An inherited socket matches the configured listener with its port, and with its address if neither is a wildcard. So the
settings of a listener (TLS, senders_verified) apply to it too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from smtpguard.mail.envelope import Network, within

_FIRST_FD = 3
_WILDCARDS = frozenset({"", "0.0.0.0", "::", "*"})
BACKLOG = 1024
_PASSING = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class CannotListen(Exception):
    """A socket cannot be opened. The message is one sentence: the address, and why. ``passing``: it may succeed soon."""

    def __init__(self, sentence: str, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An entry of ``listen.smtp`` or, if ``part`` is "milter", of ``listen.milter``, as far as the socket needs it.

    ``taker``: the part that takes its connections. ``implicit_tls``: no SMTP reply can be sent in clear.
    ``proxy``: clients are proxies, and send a PROXY header. ``clients``: who may connect, None for everybody. ``unix``: the path of
    a Unix socket, with ``mode`` and ``group``, instead of address and port.
    """

    address: str = ""
    port: int = 0
    part: str = "proxy"
    taker: str = "proxy"
    implicit_tls: bool = False
    proxy: bool = False
    clients: Sequence[Network] | None = None
    unix: Path | None = None
    mode: int = 0o660
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener(Wanted):
    """An open listener.

    ``index``: its place in ``listen.smtp`` or ``listen.milter``. ``number``: its place among the listeners of its ``taker``.
    ``name``: its address. ``made``: the inode of a Unix socket that this process created. ``given``: a service manager opened
    it, and keeps it open when this process closes it.
    """

    index: int
    number: int
    socket: socket.socket
    name: str
    made: int | None = None
    given: bool = False

    def admits(self, client: str) -> bool:
        """Return whether a client may connect. ``client``: an address, "" for none or an unknown one."""
        return self.clients is None or within(client, self.clients)

    @property
    def in_clear(self) -> bool:
        """Whether a client could read an SMTP reply."""
        return self.part == "proxy" and not self.implicit_tls

    def close(self) -> None:
        """Close the socket. Remove a Unix socket, so that clients notice at once, unless another process has replaced it."""
        path = Path(self.socket.getsockname()) if self.made is not None and self.socket.fileno() >= 0 else None
        self.socket.close()
        with contextlib.suppress(OSError):
            if path is not None and path.stat().st_ino == self.made:
                path.unlink()


def inherited(environ: MutableMapping[str, str] = os.environ, first: int = _FIRST_FD) -> list[socket.socket]:
    """Return the sockets that the service manager has opened for this process. Removes the variables, so that no child sees
    them."""
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
    """Open a listener for each of ``wanted``. ``given``: inherited sockets. Raises CannotListen, and then leaves nothing open."""
    left = list(given)
    opened: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for sock in left:
            undo.callback(sock.close)
        places, numbers = Counter[str](), Counter[str]()
        for want in wanted:
            found = next((sock for sock in left if _stands_for(sock, want)), None)
            made, is_given = None, found is not None
            if found is not None:
                left.remove(found)
            elif want.unix is not None:
                found = _bind_unix(want.unix, want.mode, want.group)
                made = want.unix.stat().st_ino
            else:
                found = _bind(want)
            found.setblocking(False)
            listener = Listener(
                **{each.name: getattr(want, each.name) for each in fields(want)},
                index=places[want.part],
                number=numbers[want.taker],
                socket=found,
                name=_name_of(found),
                made=made,
                given=is_given,
            )
            undo.callback(listener.close)
            opened.append(listener)
            places[want.part] += 1
            numbers[want.taker] += 1
        if left:
            names = ", ".join(map(_name_of, left))
            raise CannotListen(f"the inherited socket {names} matches no entry of listen.smtp or listen.milter")
        undo.pop_all()
    return opened


def _stands_for(sock: socket.socket, want: Wanted) -> bool:
    if sock.family == socket.AF_UNIX or want.unix is not None:
        return sock.family == socket.AF_UNIX and sock.getsockname() == str(want.unix)
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
        raise CannotListen(f"cannot listen on {name}: {why}", passing=e.errno in _PASSING) from None
    return sock


def _bind_unix(path: Path, mode: int, group: str | None) -> socket.socket:
    """Bind a Unix socket. A stale one of a process that has ended is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                try:
                    other.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink()
                else:
                    raise CannotListen(f"cannot listen on {path}: another process does", passing=True)
        before = os.umask(0o177)  # no connection before mode and group are set
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        if group is not None:
            shutil.chown(path, group=group)
        path.chmod(mode)
        sock.listen(BACKLOG)
    except (OSError, LookupError) as e:
        sock.close()
        why = e.strerror or str(e) if isinstance(e, OSError) else f"there is no group {group}"
        raise CannotListen(f"cannot listen on {path}: {why}") from None
    except CannotListen:
        sock.close()
        raise
    return sock


def _name_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    return _name(*name[:2]) if isinstance(name, tuple) else str(name)


def _name(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
