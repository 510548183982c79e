"""Who may connect to a listener: the real supervisor answers others with 554, and its parts never see them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpguard.mail import reply
from tests.loopback import needs_ipv6
from tests.processes.test_proxyline import binary, everything_received, through
from tests.processes.tree import PATIENCE, Grow

NOT_A_CLIENT = reply.NOT_A_CLIENT.octets


def at(port: int, source: str, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), timeout=PATIENCE, source_address=(source, 0))


def test_other_clients_get_554_and_may_quit(grow: Grow) -> None:
    tree = grow(["proxy"], clients=["127.0.0.1"])
    tree.until("READY=1")
    with at(tree.port, "127.0.0.1") as sock:
        assert sock.recv(100).startswith(b"220")
    with at(tree.port, "127.0.0.2") as sock, sock.makefile("rb") as lines:
        assert lines.readline() == NOT_A_CLIENT
        sock.sendall(b"EHLO stranger.example\r\nQUIT\r\n")
        assert lines.readline() == reply.BAD_SEQUENCE.octets
        assert lines.readline() == reply.BYE.octets
        assert lines.readline() == b""
    with at(tree.port, "127.0.0.2") as sock:
        sock.sendall(b"x" * 5000)  # no complete command
        assert everything_received(sock).startswith(NOT_A_CLIENT)


@needs_ipv6
def test_a_mapped_ipv4_address_counts_as_ipv4(grow: Grow) -> None:
    """``clients`` matches IPv4 on a socket of both families, where the kernel reports ::ffff:127.0.0.1."""
    tree = grow(["proxy"], clients=["127.0.0.1"], address="::")
    tree.until("READY=1")
    with at(tree.port, "127.0.0.1") as sock:
        assert sock.recv(100).startswith(b"220")
    for source, host in (("127.0.0.2", "127.0.0.1"), ("::1", "::1")):
        with at(tree.port, source, host) as sock:
            assert sock.recv(100) == NOT_A_CLIENT


def v1(client: str) -> bytes:
    return f"PROXY TCP4 {client} 192.0.2.8 56324 25\r\n".encode()


HEADERS = [
    (v1("192.0.2.7"), True), (v1("192.0.2.9"), False), (v1("127.0.0.1"), False), (b"PROXY UNKNOWN\r\n", False),
    (binary("192.0.2.7"), True), (binary("::ffff:192.0.2.7"), True), (binary("2001:db8::7"), False),
    (binary("192.0.2.7", command=0x20), False),
]  # fmt: skip


def test_behind_a_proxy_the_named_client_counts(grow: Grow) -> None:
    """``clients`` applies to the address in the PROXY header. The proxy's own counts only if it speaks for itself
    (LOCAL)."""
    tree = grow(["proxy"], proxy=True, trust="127.0.0.0/8", clients=["192.0.2.7"])
    tree.until("READY=1")
    for header, admitted in HEADERS:
        with through(tree, header) as sock:
            assert sock.recv(100).startswith(b"220 for" if admitted else NOT_A_CLIENT), header


def test_a_proxy_that_is_a_client_speaks_for_itself(grow: Grow) -> None:
    tree = grow(["proxy"], proxy=True, trust="127.0.0.0/8", clients=["127.0.0.1"])
    tree.until("READY=1")
    with through(tree, binary("192.0.2.7", command=0x20)) as sock:
        assert sock.recv(100).startswith(b"220 for")
    with through(tree, b"PROXY UNKNOWN\r\n") as sock:
        assert sock.recv(100) == NOT_A_CLIENT


def test_refusals_are_counted_and_summed_in_the_log(
    grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_NUMBERS", str(tmp_path / "numbers"))
    tree = grow(["proxy", "shows"], shows="shows", clients=["127.0.0.1"])
    tree.until("READY=1")
    began = time.monotonic()
    for source in ["127.0.0.2"] * 300 + ["127.0.0.3"] * 2:
        with at(tree.port, source) as sock:
            assert sock.recv(100) == NOT_A_CLIENT
    name = f"127.0.0.1:{tree.port}"
    until(lambda: numbers(tmp_path).get("strangers") == {name: 302})
    assert numbers(tmp_path)["refused"] == {name: 0}
    tree.process.terminate()
    assert tree.wait() == 0
    assert tree.process.stdout is not None
    plain = re.sub(r"\x1b\[[0-9;]*m", "", tree.process.stdout.read())
    lines = [line for line in plain.splitlines() if "strangers refused" in line]
    assert 1 <= len(lines) <= 2 + (time.monotonic() - began) // 60, "one a minute, and one at the end"
    assert sum(int(re.findall(r"refused=(\d+)", line)[0]) for line in lines) == 302
    assert "127.0.0.2 (" in lines[0]


def test_a_milter_listener_closes_silently(grow: Grow, tmp_path: Path) -> None:
    tree = grow(["milter", "proxy"], part="milter", clients=["127.0.0.1"])
    tree.until("READY=1")
    with at(tree.port, "127.0.0.2") as sock:
        assert everything_received(sock) == b""
    with at(tree.port, "127.0.0.1") as sock:
        assert sock.recv(100).startswith(b"220")


def numbers(folder: Path) -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError):
        read: dict[str, object] = json.loads((folder / "numbers").read_text())
        return read
    return {}


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
