"""The channel between the supervisor and a part: whole messages over a socket pair, and open sockets along with them.

SOCK_SEQPACKET keeps the bounds of messages; SCM_RIGHTS (unix(7)) carries a connection. Messages are small JSON objects with
one key that gives the type:

    supervisor to part    {"take": id, "listener": index} with the socket, and with "client" where a proxy has given the
                          client's address; {"stop": grace seconds}; {"numbers": of the tree}; {"places": see relaylimit}
    part to supervisor    {"ready": true}; {"beat": its own numbers}; {"took": [ids]}; {"closed": [ids]}; {"leaving": true};
                          {"places": see relaylimit}; {"lost": [ids]}, whose socket did not come along: the part has no
                          descriptor left; {"ends": why it cannot start}

A connection belongs to the supervisor until the part has said "took".
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

Message = Mapping[str, Any]
_MAX_OCTETS = 65_536


class Channel:
    """One end of a channel. ``received`` gets each message, and its socket if one came; ``ended`` is called once, at end of file.

    Messages for an end that does not read wait here, in order; ``waiting`` is their number.
    """

    def __init__(
        self, sock: socket.socket, received: Callable[[Message, socket.socket | None], None], ended: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._received = received
        self._ended = ended
        self._out: deque[tuple[bytes, socket.socket | None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = self._full = False
        self._loop.add_reader(sock.fileno(), self.drain)

    @property
    def waiting(self) -> int:
        return len(self._out)

    def send(self, message: Message, connection: socket.socket | None = None) -> None:
        """Send a message now, or when the other end reads. ``connection`` must stay open until it is acknowledged."""
        if self._closed:
            return
        self._out.append((json.dumps(message).encode(), connection))
        if len(self._out) == 1:
            self._flush()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._out.clear()

    def _flush(self) -> None:
        while self._out:
            data, connection = self._out[0]
            try:
                if connection is None:
                    self._socket.send(data)
                else:
                    socket.send_fds(self._socket, [data], [connection.fileno()])
            except BlockingIOError:
                self._full = True
                self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:  # the other end is gone: the reader sees it, and handles it
                break
            self._out.popleft()
        self._out.clear()
        if self._full:
            self._full = False
            self._loop.remove_writer(self._socket.fileno())

    def drain(self) -> None:
        """Read what has arrived."""
        while not self._closed:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MAX_OCTETS, 1, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionResetError:  # it ended with something of ours unread; what it had sent is still there
                continue
            except OSError:
                data, fds = b"", []
            if not data:
                for fd in fds:
                    os.close(fd)
                self.close()
                self._ended()
                return
            connection = socket.socket(fileno=fds[0]) if fds else None
            self._received(json.loads(data), connection)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's end and the part's end. No child inherits either unless it is passed."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
