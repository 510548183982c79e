"""The web server of console and metrics against silent and slow clients, with real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn

from smtpguard.app.certificates import server_context
from smtpguard.app.webserver import PIECE, PROGRESS, Server, configure, patient_protocol
from smtpguard.config.listeners import Certificate
from tests.app.test_certificates import CA, issued
from tests.every import every

SOON = 0.3
LARGE = 64 << 20  # more than the kernel buffers for a client that does not read


async def application(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(2 * SOON if scope["path"] == "/slow" else 0)
    body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served(**how: Any) -> AsyncIterator[int]:
    async with serving(**how) as (port, _):
        yield port


@asynccontextmanager
async def serving(**how: Any) -> AsyncIterator[tuple[int, Server]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limits = {name: how.pop(name) for name in ("proxies", "each", "tls") if name in how}
        seconds = {"seconds": how["seconds"]} if "seconds" in how else {}
        config = uvicorn.Config(application, http=patient_protocol(**how), lifespan="off", log_config=None, ws="none")
        server = Server(config, listener, **limits, **seconds)
        try:
            yield listener.getsockname()[1], server
        finally:
            server.should_exit = True
            await server.serving


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What the server sent before it closed."""
    try:
        return await asyncio.wait_for(reader.read(), 120)
    except ConnectionError:
        return b""


async def emptied(server: Server) -> None:
    """When it has had a connection, and has it no longer."""
    async with asyncio.timeout(120):
        while not server.server_state.connections:  # noqa: ASYNC110 - the server reports no connections
            await asyncio.sleep(0)
        while server.server_state.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@every("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"])
async def test_a_client_that_sends_no_full_header_is_closed(said: bytes) -> None:
    async with served(seconds=SOON) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        answered = await ended(reader)
        assert answered.count(b"200 OK") == said.count(b"\r\n\r\n")
        writer.close()


@every(
    "said",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\ncut",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\ncut",
        b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
async def test_a_client_that_stops_in_a_body_or_reads_nothing_is_closed(said: bytes) -> None:
    async with serving(client_seconds=SOON) as (port, server):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(said)
            await emptied(server)


class SlowLine(asyncio.Transport):
    """To a client in its own time. ``call_later`` is the loop's."""

    written, aborted = 0, False

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Callable[[], None]] = []

    def call_later(self, _: float, do: Callable[..., None], *given: Any) -> asyncio.TimerHandle:
        self.later.append(partial(do, *given))
        return Mock()

    def create_task(self, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(doing)

    def write(self, data: Any) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


def slow(line: SlowLine) -> Any:
    config = uvicorn.Config(application, lifespan="off", log_config=None)
    protocol = patient_protocol()(config, uvicorn.server.ServerState(), {}, line)
    protocol.connection_made(line)
    return protocol


async def test_a_large_body_on_a_slow_line_is_not_cut() -> None:
    line = SlowLine()
    protocol = slow(line)
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LARGE)
    for _ in range(3):
        protocol.data_received(bytes(PROGRESS))
        line.later[-1]()
        assert not line.aborted
    line.later[-1]()
    assert line.aborted
    protocol.connection_lost(ConnectionAbortedError())


async def test_a_body_that_was_refused_has_no_more_time() -> None:
    line = SlowLine()
    protocol = slow(line)
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % LARGE)
    for message in ({"type": "http.response.start", "status": 413}, {"type": "http.response.body"}):
        await protocol.cycle.send(message)
    protocol.data_received(bytes(PROGRESS))
    line.later[1]()
    assert line.aborted
    protocol.connection_lost(ConnectionAbortedError())


async def test_a_large_answer_is_written_as_the_client_reads() -> None:
    """Its whole is not timed, and little is left to read when it ends."""
    line = SlowLine()
    protocol = slow(line)
    protocol.data_received(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    protocol.pause_writing()
    before = 0
    while not protocol.cycle.response_complete:
        protocol.resume_writing()
        protocol.pause_writing()
        await asyncio.sleep(0)
        assert line.written - before <= PIECE + 200
        before = line.written
    assert line.written > LARGE
    protocol.connection_lost(ConnectionAbortedError())


@every("said", [b"GET /slow HTTP/1.1\r\n", b"POST /slow HTTP/1.1\r\nContent-Length: 2\r\n"])
async def test_an_answer_may_take_longer_than_a_request(said: bytes) -> None:
    async with served(seconds=SOON, client_seconds=SOON) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said + b"Host: x\r\nConnection: close\r\n\r\n" + b"{}" * said.startswith(b"POST"))
        assert (await ended(reader)).endswith(b"ok")
        writer.close()


@pytest.mark.parametrize(("proxies", "let_in"), [((), 3), ((ip_network("127.0.0.0/8"),), 5)])
async def test_one_address_has_a_limit_and_a_trusted_proxy_none(proxies: Any, let_in: int) -> None:
    async with served(each=3, proxies=proxies) as port:
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for _, writer in pairs:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

        async def answered(reader: asyncio.StreamReader) -> bool:
            try:
                return (await asyncio.wait_for(reader.read(15), 120)).startswith(b"HTTP/1.1 200")
            except ConnectionError:
                return False

        assert sum([await answered(reader) for reader, _ in pairs]) == let_in
        for _, writer in pairs:
            writer.close()


async def test_a_connection_counts_and_ends_before_its_tls_handshake(tmp_path: Path) -> None:
    certificate, key, _ = issued(tmp_path)
    tls = server_context(Certificate(certificate=certificate, key=key))
    trusting = ssl.create_default_context()
    CA.configure_trust(trusting)
    async with served(each=2, tls=tls) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await asyncio.wait_for(silent[2][0].read(), 120) == b"", "there are two already"
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await ended(reader)).endswith(b"ok")
        for _, each in (*silent, (reader, writer)):
            each.close()
    async with served(seconds=SOON, tls=tls) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader) == b""
        writer.close()


async def test_a_connection_that_cannot_be_served_is_closed_and_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(port: int, request: bytes = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        with contextlib.closing(writer):
            return await ended(reader)

    async with serving(each=1) as (port, server):
        assert (await answer(port)).endswith(b"ok")
        protocol = server.config.http_protocol_class
        server.config.http_protocol_class = Mock(side_effect=ValueError)
        for _ in range(3):
            assert await answer(port, b"") == b""
        assert caplog.text.count("a connection was not served") == 3
        server.config.http_protocol_class = protocol
        assert (await answer(port)).endswith(b"ok")


async def test_a_connection_that_was_just_accepted_ends_with_the_server() -> None:
    async with serving() as (port, server):
        with contextlib.ExitStack() as clients:
            for _ in range(20):
                clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            async with asyncio.timeout(120):
                while len(server._beginning) < 2:  # noqa: ASYNC110 - the server reports no connections
                    await asyncio.sleep(0)
                await server.shutdown()
            assert not server.server_state.connections
            assert not server._beginning


@pytest.mark.parametrize("said", [b"", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["idle", "does not read"])
async def test_connections_end_after_their_time(said: bytes) -> None:
    async with serving(lasts=SOON) as (port, server):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(said)
            client.settimeout(120)
            await emptied(server)
            read = 0  # only what the kernel had buffered
            with contextlib.suppress(ConnectionResetError):
                while more := await asyncio.to_thread(client.recv, 1 << 20):
                    read += len(more)
            assert read < LARGE
        answered = b""
        async with asyncio.timeout(120):
            while not answered:  # on a busy machine this connection may exceed its time too
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answered = await ended(reader)
                writer.close()
        assert answered.endswith(b"ok"), "others are not delayed"


async def test_mistakes_of_clients_are_not_logged_and_a_full_server_is(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(configure(application, connections=2), listener)
        port = listener.getsockname()[1]
        wrong = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
        for said in (b"\x16\x03\x01 no HTTP\r\n\r\n", wrong):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert (await ended(reader)).startswith(b"HTTP/1.1")
            writer.close()
        assert caplog.messages == []
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        pairs[-1][1].write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await ended(pairs[-1][0])).startswith(b"HTTP/1.1 503")
        assert caplog.messages[0] == "the web server answers 503: 2 connections are open"
        for _, writer in pairs:
            writer.close()
        server.should_exit = True
        await server.serving


def test_the_settings_configure_the_server() -> None:
    config = configure(application, connections=7)
    config.load()
    assert config.http_protocol_class.__name__ == "Patient"
    assert config.limit_concurrency == 7
