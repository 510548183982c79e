"""The ports, and each connection until a part gets it.

Listening sockets are bound here, or inherited from the service manager (sd_listen_fds(3)). An inherited socket matches
the configured listener with its port, and with its address if neither is a wildcard. So the settings of a listener (TLS,
senders_verified) apply to it too.

From proxies in front the PROXY header is read, versions 1 and 2 (HAProxy's proxy-protocol.txt): the client's address.
Without blocking, and within a time limit. Strict; it consumes exactly the octets of the header. What follows, TLS or
SMTP, is for the part that gets the connection. LOCAL and UNKNOWN, and families that are not TCP over IP, give no
address. TLVs are skipped.

Connections that will not be served are refused with an SMTP reply where the client can read one, then closed. A client
that gets 554 may be sending. A socket that is closed with unread octets is reset, and the reply may be lost with it; the
client would then retry for days. So such a connection stays open for a moment, for its QUIT (RFC 5321 section 3.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import structlog

from smtpguard.mail import reply
from smtpguard.mail.envelope import Network, within

_log = structlog.get_logger("smtpguard.supervisor")
_FIRST_FD = 3
_WILDCARDS = frozenset({"", "0.0.0.0", "::", "*"})
BACKLOG = 1024
_PASSING = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class CannotListen(Exception):
    """One sentence: the address, and why. ``passing``: it may succeed soon."""

    def __init__(self, sentence: str, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One entry of ``listen.smtp`` or, if ``part`` is milter, of ``listen.milter``, as far as the socket needs it.
    ``taker``: the part that takes its connections, "" for ``part`` itself. ``implicit_tls``: no SMTP reply can be sent in
    clear. ``proxy``: clients are proxies, with a PROXY header. ``clients``: who may connect, None for everybody.
    ``unix``: the path of a Unix socket, with ``mode`` and ``group``, instead of address and port."""

    address: str = ""
    port: int = 0
    part: str = "proxy"
    taker: str = ""
    implicit_tls: bool = False
    proxy: bool = False
    clients: Sequence[Network] | None = None
    unix: Path | None = None
    mode: int = 0o660
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener(Wanted):
    """What was wanted, open. ``index``: its place in the settings' ``listen.smtp`` or ``listen.milter``; ``number``: its
    place among the listeners of its ``taker``. ``name``: its address. ``made``: the inode of a Unix socket that we
    created. ``given``: by a service manager, which keeps it open when we close it."""

    index: int
    number: int
    socket: socket.socket
    name: str
    made: int | None = None
    given: bool = False

    def admits(self, client: str) -> bool:
        """``client``: an address; "" for none, or an unknown one."""
        return self.clients is None or within(client, self.clients)

    @property
    def in_clear(self) -> bool:
        """Whether a client could read an SMTP reply."""
        return self.part == "proxy" and not self.implicit_tls

    def close(self) -> None:
        """Remove a Unix socket, unless another process has replaced it: so clients notice at once."""
        path = Path(self.socket.getsockname()) if self.made is not None and self.socket.fileno() >= 0 else None
        self.socket.close()
        with contextlib.suppress(OSError):
            if path is not None and path.stat().st_ino == self.made:
                path.unlink()


def inherited(environ: MutableMapping[str, str] = os.environ, first: int = _FIRST_FD) -> list[socket.socket]:
    """The sockets that the service manager has opened for this process. No child sees the variables."""
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
    """A listener for each of ``wanted``. Raises CannotListen, and then leaves nothing open."""
    left = list(given)
    opened: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for sock in left:
            undo.callback(sock.close)
        places, numbers = Counter[str](), Counter[str]()
        for want in wanted:
            want = replace(want, taker=want.taker or want.part)
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
    """A stale socket of a process that has ended is replaced."""
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


MAX_HEADER_LINE_OCTETS = 107  # section 2.1
MAX_HEADER_OCTETS = 16 + 4096  # addresses, and TLVs with a certificate's names

_LINE = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_OCTETS = len(_SIGNATURE) + 4
_TCP = re.compile(rb"PROXY TCP(4|6) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n\Z")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n\Z")
_LOCAL, _PROXY = 0, 1
_FAMILIES = {0x11: 4, 0x21: 16}  # STREAM over INET and INET6: octets of an address


class BadHeader(Exception):
    """No PROXY header. The text contains none of the input."""


class Header:
    """Feed it the input. ``client``: None until it is complete, then an address, or "" for none. ``local``: the proxy
    speaks for itself, as in its checks (LOCAL)."""

    def __init__(self) -> None:
        self.client: str | None = None
        self.local = False
        self._held = b""

    def feed(self, data: bytes) -> int:
        """How many of these octets belong to the header; the rest is the client's. Raises BadHeader; do not feed it
        after that."""
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


SUM_SECONDS = 60.0
MOST_CLIENTS = 10_000
"""The most addresses that are counted singly in a minute."""
_SHOWN = 10


class Refused:
    """Refused connections, which anybody can open without end: counted, and one log line a minute for each reason."""

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
        """Log the counts of each reason since its last line, at least a minute ago. ``now``: infinite at the end."""
        for reason in [*self._counts]:
            if now - self._said_at.get(reason, float("-inf")) >= SUM_SECONDS:
                self._said_at[reason] = now
                (event, why), (by_client, by_listener) = reason, self._counts.pop(reason)
                total, clients, listeners = by_client.total(), _most(by_client), _most(by_listener)
                _log.warning(event, refused=total, clients=clients, listeners=listeners, why=why)


def _most(counts: Counter[str]) -> str:
    """ "192.0.2.7 (12), 192.0.2.8 (1) and 3 more"."""
    shown = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_SHOWN))
    left = len(counts) - _SHOWN
    return f"{shown} and {left} more" if left > 0 else shown


HEADER_SECONDS = 5.0
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


MOST_LINGERING = 200
LINGER_SECONDS = 5.0
LINE_OCTETS = 512


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
    """Clients that a listener does not admit: answered 554, and counted."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused
        self._lingering: dict[socket.socket, tuple[asyncio.TimerHandle, bytearray]] = {}

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
        self._refused.add("strangers refused", listener, client, "they are not in clients of the listener")
        self.refuse(connection, listener)

    def close(self) -> None:
        for connection in tuple(self._lingering):
            self._drop(connection)

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
