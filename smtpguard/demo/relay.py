"""A relay that accepts every message and forwards none: what it has would have gone out (RFC 5321, a small part)."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_PATH = re.compile(rb"<([^>]*)>")
_OFFERED = (b"relay.demo", b"PIPELINING", b"SIZE 52428800", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES", b"DSN")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """One message. ``content``: without dot-stuffing, with the guard's trace headers."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes


class RecordingRelay:
    """Listens on loopback between ``up`` and ``down``, always on the same port."""

    def __init__(self) -> None:
        self.taken: list[ReceivedMessage] = []
        self._server: _Server | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def up(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self.taken.append)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
            self._server = None


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], take: Callable[[ReceivedMessage], None]) -> None:
        self.take = take
        self._open: set[socket.socket] = set()
        super().__init__(address, _Session)

    def process_request(self, request: Any, client_address: Any) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Close the open connections, as if the relay had died."""
        for connection in tuple(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            self._talk()
        except OSError:
            pass

    def _talk(self) -> None:
        self._say(b"220 relay.demo ESMTP")
        reverse_path, recipients = "", list[str]()
        while line := self.rfile.readline(4096):
            verb = line[:4].upper()
            if verb == b"EHLO":
                last = len(_OFFERED) - 1
                for at, word in enumerate(_OFFERED):
                    self._say(b"250" + (b" " if at == last else b"-") + word)
            elif verb == b"MAIL":
                reverse_path, recipients = _path(line), []
                self._say(b"250 2.1.0 Ok")
            elif verb == b"RCPT":
                recipients.append(_path(line))
                self._say(b"250 2.1.5 Ok")
            elif verb == b"DATA":
                self._say(b"354 Go on")
                content = self._content()
                self.server.take(
                    ReceivedMessage(reverse_path=reverse_path, recipients=tuple(recipients), content=content)
                )
                self._say(b"250 2.0.0 Ok: recorded")
                recipients = []
            elif verb == b"QUIT":
                self._say(b"221 2.0.0 Bye")
                return
            else:  # HELO, RSET, NOOP
                self._say(b"250 2.0.0 Ok")

    def _content(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) and line != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _say(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")


def _path(line: bytes) -> str:
    found = _PATH.search(line)
    return found[1].decode("utf-8", "replace") if found else ""
