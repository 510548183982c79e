"""The web server of console and metrics: uvicorn with the limits that a public port needs.

A client that sends nothing, or sends or reads too slowly, is disconnected. One client gets only a share of the connections, so
that nobody can keep approvers from the page that freezes everything.

``/healthz`` and ``/readyz``, for balancers and orchestrators, need no password and answer with fixed words. A request
asks neither the store nor the relay: the answer was found out before, so that frequent requests cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any, cast

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from smtpguard.database.errors import Outage
from smtpguard.processes.connections import Connections

log = logging.getLogger(__name__)

HEAD_SECONDS = 20.0
"""The timeout of a whole header (RFC 9112), from its first byte or from connecting on."""
CLIENT_SECONDS = 120.0
"""The timeout of a whole body, or of PROGRESS in it; and of reading a piece of the answer."""
PROGRESS = 1 << 20
"""The octets of a body that earn more time: a slow line takes minutes for a large message."""
PIECE = 64 << 10
"""The most octets that are written at once. While more wait for a slow line, uvicorn ends the connection as idle, and TLS as
closed."""
BEGIN_SECONDS = 0.1
"""The time at the end for connections that were just accepted, and for their handshakes."""
FULL_SECONDS = 1.0
"""The pause in accepting without a file descriptor."""
CONNECTIONS = 500
EACH = 60
"""The most connections of one client network other than a proxy's: several browsers in it, with six connections each."""
LIVES, READY = "/healthz", "/readyz"
Checks = Callable[[], Mapping[str, str]]
"""Health checks by name: "" if all is well, else the problem in words that may be public."""


class Server(uvicorn.Server):
    """A web server that serves from its making on, until ``end``. The part handles signals itself.

    It accepts connections itself: uvicorn learns of a connection after the TLS handshake, and could not limit those before it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        *,
        proxies: Sequence[IPv4Network | IPv6Network] = (),
        each: int = EACH,
        tls: ssl.SSLContext | None = None,
        seconds: float = HEAD_SECONDS,
    ) -> None:
        """``each``: the most connections of one client, other than ``proxies``. ``seconds``: the timeout of a TLS handshake."""
        super().__init__(config)
        self.listener, self._tls, self._seconds = listener, tls, seconds
        # uvicorn answers 503 if they are too many in all
        self._open = Connections(total=sys.maxsize, per_client=each, trusted=proxies)
        self._beginning: set[asyncio.Task[None]] = set()
        self._full = Outage(log, "the web server accepts no connection")
        self.serving = asyncio.create_task(self.serve([listener]))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self.listener.setblocking(False)
        self._listen()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().remove_reader(self.listener)
        if (
            self._beginning
        ):  # uvicorn closes those that have begun; uvloop says nothing of the end of one cancelled at once
            _, handshakes = await asyncio.wait(self._beginning, timeout=BEGIN_SECONDS)
            for handshake in handshakes:
                handshake.cancel()
        await super().shutdown(sockets)

    def _listen(self) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(self.listener, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, address = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            self._full.report(error)
            loop.remove_reader(self.listener)
            loop.call_later(FULL_SECONDS, self._listen)
            return
        self._full.end()
        if not self._open.admits(address[0]):
            connection.close()
            return
        task = loop.create_task(self._begin(connection, self._open.opened("", address[0], "")))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket, number: int) -> None:
        made: Callable[[], Any] = partial(
            cast(Any, self.config.http_protocol_class),
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state,
            over=partial(self._open.closed, number),
        )  # fmt: skip
        timeout = self._seconds if self._tls is not None else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                made, connection, ssl=self._tls, ssl_handshake_timeout=timeout
            )
        except Exception as error:
            self._open.closed(number)
            connection.close()
            if not isinstance(error, OSError):  # ssl.SSLError is one
                log.exception("a connection was not served")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def end(self, grace_seconds: float) -> None:
        self.should_exit = True
        await asyncio.wait({self.serving}, timeout=min(grace_seconds, 5))


def patient_protocol(
    *,
    seconds: float = HEAD_SECONDS,
    client_seconds: float = CLIENT_SECONDS,
    lasts: float | None = None,
) -> type:
    """Return the protocol class for one set of limits: a class, since uvicorn makes an instance for each connection. ``lasts``: the
    longest that a connection may last, whatever it carries, in seconds."""

    full = Outage(log, "the web server answers 503")

    class Patient(H11Protocol):
        _late: asyncio.TimerHandle | None = None
        _end: asyncio.TimerHandle | None = None
        _timed: object = None  # the request whose body is timed
        _received = 0  # octets

        def __init__(self, *args: Any, over: Callable[[], None] = lambda: None, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.app = _in_pieces(self.app)
            self._over = over

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
                full.report(f"{len(self.connections)} connections are open")
            else:
                full.end()
            self._wait(seconds)
            self._end = self.loop.call_later(lasts, transport.abort) if lasts is not None else None

        def data_received(self, data: bytes) -> None:
            self._received += len(data)
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()
            if self.transport.is_closing():
                self._wait(client_seconds)

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._wait(client_seconds)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait(client_seconds)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            if self._end is not None:
                self._end.cancel()
            super().connection_lost(exc)
            self._over()

        def _look(self) -> None:
            """Time what the client has to do now."""
            if self.cycle is None or self.cycle.response_complete:
                if self._late is None and self.timeout_keep_alive_task is None:
                    self._wait(seconds)
            elif self.cycle.more_body:
                if self.cycle is not self._timed:
                    self._timed = self.cycle
                    self._wait(client_seconds)
            elif not self.flow.write_paused:
                self._cancel()

        def _wait(self, seconds: float) -> None:
            self._cancel()
            self._late = self.loop.call_later(seconds, self._give_up, seconds, self._received)

        def _give_up(self, seconds: float, before: int) -> None:
            wanted = self.cycle is not None and not self.cycle.response_complete  # else the body was refused
            if wanted and self._received - before >= PROGRESS:
                self._wait(seconds)
            else:
                self.transport.abort()

        def _cancel(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Patient


def _in_pieces(application: Any) -> ASGIApp:
    """Wrap an application, so that its answers are written at most PIECE at a time."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def pieces(message: Message) -> None:
            body = message.get("body", b"")
            last = max(len(body) - 1, 0) // PIECE * PIECE
            for start in range(0, last, PIECE):
                await send({**message, "body": body[start : start + PIECE], "more_body": True})
            await send({**message, "body": body[last:]} if last else message)

        await application(scope, receive, pieces)

    return answer


def configure(
    application: ASGIApp,
    *,
    connections: int = CONNECTIONS,
    lasts: float | None = None,
) -> uvicorn.Config:
    """Return uvicorn's configuration. Its warnings of clients' mistakes are not logged."""
    return uvicorn.Config(
        application,
        http=patient_protocol(lasts=lasts),
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=3,
        limit_concurrency=connections,
        h11_max_incomplete_event_size=64 << 10,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


class Health:
    """An application around another, which answers ``LIVES`` and ``READY`` itself."""

    def __init__(self, application: ASGIApp, checks: Checks) -> None:
        self._application, self._checks = application, checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (LIVES, READY):
            await self._application(scope, receive, send)
            return
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("GET or HEAD\n", 405, {"allow": "GET, HEAD"})
        checks = dict(self._checks()) if request.url.path == READY else {}
        wrong = {name: why for name, why in checks.items() if why}
        status = 503 if wrong else 200
        headers = {"cache-control": "no-store", "connection": "close"}
        if "application/json" in request.headers.get("accept", ""):
            row = {"ok": not wrong, **({"checks": checks} if request.url.path == READY else {})}
            return Response(json.dumps(row) + "\n", status, headers, "application/json")
        said = "".join(f"{name}: {why}\n" for name, why in wrong.items()) or "ok\n"
        return PlainTextResponse(said, status, headers)
