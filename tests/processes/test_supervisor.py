"""The supervisor with real processes, signals and sockets, and toy parts: ready, stop, reload, death.

For the distribution of connections, see test_connections. For parts that die, see test_child.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from pathlib import Path

import pytest

from tests.processes.tree import PATIENCE, Grow, gone


def test_ready_when_all_parts_are_and_connections_spread(grow: Grow) -> None:
    tree = grow(["proxy", "proxy", "delivery"])
    tree.until("READY=1")
    with contextlib.ExitStack() as undo:
        pids = []
        for _ in range(10):
            sock, pid = tree.connect()
            undo.enter_context(sock)
            pids.append(pid)
        assert sorted(pids.count(pid) for pid in set(pids)) == [5, 5]
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    tree.until("STOPPING=1")


def test_a_graceful_stop_finishes_open_work(grow: Grow) -> None:
    tree = grow(["proxy"])
    tree.until("READY=1")
    idle, _ = tree.connect()
    busy, _ = tree.connect()
    busy.sendall(b"slow")
    assert select.select([busy], [], [], 0.2)[0] == []
    tree.process.send_signal(signal.SIGTERM)
    assert idle.recv(100) == b"421 stopping\r\n"
    assert busy.recv(100).startswith(b"250 done\r\n")
    assert tree.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", tree.port))
    idle.close()
    busy.close()


def test_a_second_signal_ends_at_once(grow: Grow) -> None:
    tree = grow(["proxy"], grace_seconds=60)
    tree.until("READY=1")
    sock, pid = tree.connect()
    sock.sendall(b"freeze")
    tree.process.send_signal(signal.SIGTERM)
    tree.until("STOPPING=1")
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    sock.close()
    assert gone(pid)


def test_parts_end_with_their_supervisor(grow: Grow) -> None:
    tree = grow(["proxy"])
    tree.until("READY=1")
    sock, pid = tree.connect()
    tree.process.kill()
    tree.wait()
    assert sock.recv(100) == b"421 stopping\r\n"
    sock.close()
    assert gone(pid)


def test_a_part_that_does_not_end_is_killed(grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_STUBBORN", "1")
    tree = grow(["proxy"])
    tree.until("READY=1")
    sock, pid = tree.connect()
    sock.close()
    tree.process.kill()
    tree.wait()
    assert gone(pid)


def test_an_inherited_socket_is_used(grow: Grow) -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        given.listen(10)
        port = given.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as early:  # before a part accepts
            tree = grow(["proxy"], given=given, ports=[port])
            assert tree.port == port
            assert early.recv(100).startswith(b"220 ")


def test_watchdog_and_reload(grow: Grow, tmp_path: Path) -> None:
    done = tmp_path / "reloaded"
    tree = grow(["proxy"], silence_seconds=0.5 * 4, reload=["touch", str(done)])
    tree.until("READY=1")
    tree.until("WATCHDOG=1")
    tree.process.send_signal(signal.SIGHUP)
    tree.until("RELOADING=1\nMONOTONIC_USEC=")
    tree.until("READY=1")
    assert done.exists()


def test_a_reload_during_another_is_not_lost(grow: Grow, tmp_path: Path) -> None:
    """A reload requested during another runs after it, since the first may have read the file before the second change."""
    count, go = tmp_path / "count", tmp_path / "go"
    script = f"echo one >>{count}; while ! test -e {go}; do sleep 0.05; done"
    tree = grow(["proxy"], reload=["sh", "-c", script])
    tree.until("READY=1")
    tree.process.send_signal(signal.SIGHUP)
    tree.until("RELOADING=1\nMONOTONIC_USEC=")
    tree.process.send_signal(signal.SIGHUP)
    go.touch()
    tree.until("RELOADING=1\nMONOTONIC_USEC=")
    tree.until("READY=1")  # of the first reload
    tree.until("READY=1")  # of the second reload
    assert count.read_text() == "one\none\n"
