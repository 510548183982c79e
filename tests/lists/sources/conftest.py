"""Reading the members that a declaration names, as the guard does."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from smtpguard.lists.sources import Tally, addresses
from smtpguard.lists.sources.opening import opened
from tests.lists.declaring import source as declared

Members = Callable[..., tuple[list[str], Tally]]


@pytest.fixture
def members(tmp_path: Path) -> Members:
    """A function that reads ``members: {...}`` relative to the test's folder: the addresses, and the tally."""

    def of(declaration: dict[str, Any], **options: Any) -> tuple[list[str], Tally]:
        tally = Tally()
        source = opened(declared(declaration), tmp_path, **options)
        try:
            return [str(a) for a in addresses(source, tally)], tally
        finally:
            source.close()

    return of


@contextmanager
def dripping(*answers: bytes, then: bytes) -> Iterator[int]:
    """A server that gives these answers, one after each thing that it is sent, and then an answer that never ends, octet
    by octet, so that no wait for the next one is long. Its port."""
    over = threading.Event()

    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                for answer in answers:
                    self.request.recv(65536)
                    self.request.sendall(answer)
                self.request.recv(65536)
                while not over.wait(0.01):
                    self.request.sendall(then)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Talk) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            over.set()
            server.shutdown()
            thread.join()
