"""PROXY headers: which are valid, with equal results for all octets at once and one at a time."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import signal
import socket
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.processes.proxyheader import MAX_HEADER_LINE_OCTETS, MAX_HEADER_OCTETS, BadHeader, Header
from tests.every import every
from tests.processes.tree import PATIENCE, Grow, Tree, ask

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def binary(source: str = "192.0.2.7", *, command: int = 0x21, family: int | None = None, tlvs: bytes = b"") -> bytes:
    address = ipaddress.ip_address(source)
    family = family if family is not None else {4: 0x11, 6: 0x21}[address.version]
    body = address.packed + address.packed + struct.pack(">HH", 1234, 25) + tlvs
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


GOOD = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 25\r\n", "192.0.2.7"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::8 56324 25\r\n", "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 25\r\n", "192.0.2.7"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN ffff:f...f:ffff what ever 65535\r\n", ""),
    (binary(), "192.0.2.7"),
    (binary("2001:db8::7"), "2001:db8::7"),
    (binary("::ffff:192.0.2.7"), "192.0.2.7"),
    (binary(tlvs=b"\x01\x00\x04smtp\x20\x00\x09" + b"\xff" * 9), "192.0.2.7"),
    (binary(command=0x20), ""),
    (SIGNATURE + b"\x20\x00\x00\x00", ""),
    (SIGNATURE + b"\x21\x00\x00\x00", ""),
    (binary(family=0x12), ""),
    (SIGNATURE + b"\x21\x31\x00\xd8" + b"/run/x".ljust(216, b"\0"), ""),
]
BAD = [
    b"EHLO client.example\r\n",
    b"\x16\x03\x01\x02\x00",
    b"proxy TCP4 192.0.2.7 192.0.2.8 56324 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 25\n",
    b"PROXY TCP4 192.0.2.7  192.0.2.8 56324 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 56324\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 65536 25\r\n",
    b"PROXY TCP4 192.0.2.700 192.0.2.8 1 25\r\n",
    b"PROXY TCP4 ::1 ::1 1 25\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.8 1 25\r\n",
    b"PROXY TCP6 ::1 192.0.2.8 1 25\r\n",
    b"PROXY UDP4 192.0.2.7 192.0.2.8 1 25\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_HEADER_LINE_OCTETS,
    SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
    SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
    SIGNATURE + b"\x21\x21\x00\x23" + bytes(35),
    SIGNATURE + b"\x21\x11\xff\xff",
    SIGNATURE[:-1] + b"X",
]


@every(("octets", "client"), GOOD)
def test_valid_headers_name_the_client(octets: bytes, client: str) -> None:
    header = Header()
    assert header.feed(octets + b"EHLO client.example\r\n") == len(octets)
    assert header.client == client


@every("octets", BAD)
def test_invalid_headers_are_refused(octets: bytes) -> None:
    header = Header()
    with pytest.raises(BadHeader):
        header.feed(octets)


@every(("octets", "client"), GOOD)
def test_an_incomplete_header_waits(octets: bytes, client: str) -> None:
    for at in range(len(octets)):
        header = Header()
        assert header.feed(octets[:at]) == at
        assert header.client is None
        assert header.feed(octets[at:] + b"x") == len(octets) - at
        assert header.client == client


def outcome(*pieces: bytes) -> tuple[str | None, int] | str:
    header, taken = Header(), 0
    try:
        for piece in pieces:
            if header.client is None:
                taken += header.feed(piece)
    except BadHeader:
        return "bad"
    return header.client, taken


MUTATED = st.builds(
    lambda octets, at, octet: octets[: at % len(octets)] + octet + octets[at % len(octets) + 1 :],
    st.sampled_from([octets for octets, _ in GOOD]), st.integers(0, 300), st.binary(max_size=2),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    MUTATED | st.binary(max_size=200) | st.binary(max_size=60).map(lambda rest: SIGNATURE + rest),
    st.binary(max_size=20),
)
def test_splitting_a_header_makes_no_difference(octets: bytes, rest: bytes) -> None:
    sent = octets + rest
    at_once = outcome(sent)
    assert outcome(*(sent[n : n + 1] for n in range(len(sent)))) == at_once
    if not isinstance(at_once, str):
        client, taken = at_once
        assert taken <= min(len(sent), MAX_HEADER_OCTETS)
        assert client is None or client == "" or ipaddress.ip_address(str(client))


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
    began = time.monotonic()
    for _ in range(30):
        with through(tree, b"EHLO client.example\r\n") as sock:
            assert everything_received(sock) == b""
    assert_summed(tree, "no PROXY header", 30, began)


def assert_summed(tree: Tree, event: str, times: int, began: float) -> None:
    """The log has one line a minute for all of them, and the last at the end."""
    tree.process.terminate()
    assert tree.wait() == 0
    assert tree.process.stdout is not None
    lines = [line for line in plain(tree.process.stdout.read()).splitlines() if event in line]
    assert len(lines) <= 2 + (time.monotonic() - began) // 60
    assert sum(int(re.findall(r"refused=(\d+)", line)[0]) for line in lines) == times
    assert "127.0.0.1 (" in lines[0]


def plain(said: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", said)


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
    began = time.monotonic()
    for _ in range(30):
        with through(tree, b"") as sock:
            assert everything_received(sock).startswith(b"421 4.7.0 This port is for trusted proxies")
    assert_summed(tree, "not from a trusted proxy", 30, began)


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
