"""Connections from proxies: the real supervisor reads the PROXY header, counts that client, and hands over what
follows."""

from __future__ import annotations

import contextlib
import signal
import socket

import pytest

from tests.processes.test_proxyline import binary
from tests.processes.tree import PATIENCE, Grow, Tree, ask

LINE = b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 25\r\n"


def through(tree: Tree, header: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", tree.port), timeout=PATIENCE)
    sock.sendall(header)
    return sock


@pytest.fixture
def tree(grow: Grow) -> Tree:
    tree = grow(["proxy"], proxy=True, trust="127.0.0.0/8", per_client=2, total=6)
    tree.until("READY=1")
    return tree


@pytest.mark.parametrize(
    ("header", "client"), [(LINE, "192.0.2.7"), (binary("2001:db8::7"), "2001:db8::7"), (binary(command=0x20), "")]
)
def test_the_part_gets_client_and_following_octets(tree: Tree, header: bytes, client: str) -> None:
    with through(tree, header + b"hello") as sock:
        expected = f"220 for {client}\r\n250 hello\r\n".encode()
        with sock.makefile("rb") as lines:
            assert lines.read(len(expected)) == expected, "exactly the header was taken"
        assert ask(sock, "more") == b"250 more\r\n"


def test_a_header_may_arrive_octet_by_octet(tree: Tree) -> None:
    with through(tree, b"") as sock:
        for octet in LINE:
            sock.sendall(bytes([octet]))
        assert sock.recv(100) == b"220 for 192.0.2.7\r\n"


def test_the_client_is_counted_and_not_the_proxy(tree: Tree) -> None:
    with contextlib.ExitStack() as undo:
        for _ in range(2):
            assert undo.enter_context(through(tree, LINE)).recv(100).startswith(b"220")
        assert undo.enter_context(through(tree, LINE)).recv(100).startswith(b"421 4.7.0 Too many connections")
        for _ in range(3):  # the proxy's own connections: up to the total limit
            assert undo.enter_context(through(tree, binary("192.0.2.8", command=0x20))).recv(100).startswith(b"220")
    with through(tree, LINE) as again:
        assert again.recv(100).startswith((b"220", b"421"))


def test_without_a_header_the_connection_is_closed(tree: Tree) -> None:
    with through(tree, b"EHLO client.example\r\n") as sock:
        assert everything_received(sock) == b""


def test_port_scans_are_tolerated(grow: Grow) -> None:
    tree = grow(["proxy"], proxy=True, trust="127.0.0.0/8")
    tree.until("READY=1")
    for _ in range(20):
        through(tree, b"").close()
    with through(tree, LINE) as sock:
        assert sock.recv(100).startswith(b"220")


def test_a_silent_peer_times_out(grow: Grow) -> None:
    tree = grow(["proxy"], proxy=True, trust="127.0.0.0/8", proxy_seconds=0.1)
    tree.until("READY=1")
    with through(tree, LINE[:-1]) as sock:
        assert everything_received(sock) == b""


def test_an_untrusted_peer_gets_421(grow: Grow) -> None:
    tree = grow(["proxy"], proxy=True, trust="10.0.0.0/8")
    tree.until("READY=1")
    with through(tree, b"") as sock:
        assert everything_received(sock).startswith(b"421 4.7.0 This port is for trusted proxies")


def test_unfinished_headers_are_closed_at_the_end(tree: Tree) -> None:
    with through(tree, b"PROXY ") as sock, through(tree, LINE) as known:
        assert known.recv(100).startswith(b"220")
        tree.process.send_signal(signal.SIGTERM)
        assert everything_received(sock) == b""
        assert tree.wait() == 0


def everything_received(sock: socket.socket) -> bytes:
    """Everything until the other side closes."""
    came = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(100):
            came += piece
    return came
