"""A web server on loopback with answers set by a test, TLS if it has a certificate, and a record of requests."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Website:
    """``answer``: handles each request. ``asked``: headers and path of each."""

    context: ssl.SSLContext | None = None
    answer: Answer = field(default=lambda request: say(request, b""))
    asked: list[dict[str, str]] = field(default_factory=list)

    def __enter__(self) -> Website:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                site.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
                site.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """No output on standard error."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Some tests disconnect on purpose."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if self.context is not None:
            self._server.socket = self.context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        scheme, host = ("https", "localhost") if self.context is not None else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self._server.server_address[1]}"


def say(request: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)
