"""Parts of a real tree that die, fall silent or cannot run: started again, killed, or the end of all of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.processes.tree import PATIENCE, Grow, ask


def test_a_killed_part_is_started_again_and_nothing_accepted_is_lost(grow: Grow) -> None:
    tree = grow(["proxy", "proxy"])
    tree.until("READY=1")
    kept, victim = tree.connect()
    other, survivor = tree.connect()
    pending = []
    os.kill(victim, signal.SIGSTOP)  # it takes nothing any more, and what is sent to it waits in its channel
    for _ in range(20):
        pending.append(socket.create_connection(("127.0.0.1", tree.port), timeout=PATIENCE))
    os.kill(victim, signal.SIGKILL)
    greeted = [int(sock.recv(100).split()[1]) for sock in pending]
    assert victim not in greeted
    assert survivor in greeted
    assert kept.recv(100) == b""
    assert ask(other, "hello") == b"250 hello\r\n"
    tree.greets(lambda pid: pid not in (victim, survivor))
    for sock in (kept, other, *pending):
        sock.close()


@pytest.mark.parametrize("word", ["hang", "freeze"])
def test_a_silent_part_is_killed(grow: Grow, word: str) -> None:
    tree = grow(["proxy"], silence_seconds=1.5, first_pause_seconds=0.01)
    tree.until("READY=1")
    sock, before = tree.connect()
    sock.sendall(word.encode())
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(100) == b""
    sock.close()
    again, after = tree.connect()
    again.close()
    assert after not in (0, before)


def test_a_stop_does_not_wait_for_a_part_that_only_begins(grow: Grow, tmp_path: Path) -> None:
    """Two restarts, one after the other: the second comes while the first is not over."""
    tree = grow(["proxy", "booting"], silence_seconds=15)
    tree.greets(bool)
    tree.process.send_signal(signal.SIGTERM)
    before = time.monotonic()
    assert tree.wait() == 0
    assert time.monotonic() - before < 10
    assert "killing a part" not in (tmp_path / "log").read_text()


def test_a_machine_that_stood_still_kills_nobody(grow: Grow) -> None:
    tree = grow(["proxy"], silence_seconds=1.5, first_pause_seconds=0.01)
    tree.until("READY=1")
    sock, part = tree.connect()
    for pid in (tree.process.pid, part):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)  # the kernel's own clock goes on: that is what is tried here
    for pid in (tree.process.pid, part):
        os.kill(pid, signal.SIGCONT)
    tree.until("WATCHDOG=1")
    tree.until("WATCHDOG=1")
    assert ask(sock, "are you there").startswith(b"250")
    sock.close()


def test_five_deaths_end_serve(grow: Grow) -> None:
    tree = grow(["broken"], first_pause_seconds=0.01)
    assert tree.wait() == 1


def test_a_part_whose_work_ends_is_a_death(grow: Grow) -> None:
    tree = grow(["ending", "proxy"], first_pause_seconds=0.01, grace_seconds=1)
    assert tree.wait() == 1


def test_a_part_that_cannot_run_ends_serve_at_once(grow: Grow) -> None:
    tree = grow(["proxy", "wrong"], first_pause_seconds=30)
    assert tree.wait() == 2


def test_a_part_that_is_slow_to_start_is_not_taken_for_a_silent_one(grow: Grow) -> None:
    tree = grow(["proxy", "late"], silence_seconds=2, deaths=1)
    tree.until("READY=1")
    sock, pid = tree.connect()
    with sock:
        assert pid
