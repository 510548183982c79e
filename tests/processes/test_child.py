"""Parts of a real process tree that die, hang or cannot start: restarted, killed, or the end of the tree."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smtpguard.processes.channel import Channel, Message, pair
from smtpguard.processes.supervisor import TRY_AGAIN
from tests.processes.tree import PATIENCE, Grow, Tree, ask


def test_a_killed_part_is_restarted_and_loses_nothing_accepted(grow: Grow) -> None:
    tree = grow(["proxy", "proxy"])
    tree.until("READY=1")
    kept, victim = tree.connect()
    other, survivor = tree.connect()
    pending = []
    os.kill(victim, signal.SIGSTOP)  # it accepts nothing more, and connections sent to it wait in its channel
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
    tree = grow(["proxy"], silence_seconds=1.5, first_pause_seconds=0.01, deaths=1000)
    tree.until("READY=1")
    sock, before = tree.connect()
    sock.sendall(word.encode())
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(100) == b""
    sock.close()
    again, after = tree.connect()
    again.close()
    assert after not in (0, before)


def test_the_kernel_kills_a_part_for_memory_before_the_supervisor(grow: Grow) -> None:
    tree = grow(["proxy"])
    tree.until("READY=1")
    sock, part = tree.connect()
    sock.close()
    ours, theirs = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (tree.process.pid, part))
    assert theirs == min(ours + 200, 1000)


def test_a_stop_does_not_wait_for_a_starting_part(grow: Grow) -> None:
    """A stop does not wait for a part that is starting, as in a second restart before the first is complete."""
    tree = grow(["proxy", "booting"], silence_seconds=1000, grace_seconds=1000)
    tree.greets(bool)
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert "killing a part" not in tree.said()


def test_a_suspended_machine_kills_no_part(grow: Grow) -> None:
    tree = grow(["proxy"], silence_seconds=6, first_pause_seconds=0.01)
    tree.until("READY=1")
    sock, part = tree.connect()
    for pid in (tree.process.pid, part):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(7.5)  # the kernel's clock goes on
    for pid in (tree.process.pid, part):
        os.kill(pid, signal.SIGCONT)
    tree.until("WATCHDOG=1")
    tree.until("WATCHDOG=1")
    assert ask(sock, "are you there").startswith(b"250")
    sock.close()


async def test_what_a_part_sent_before_its_end_is_read() -> None:
    """The kernel reports that a part ended with something unread before what the part had sent. A connection that it took
    must not be given to another: its client would take the greeting, 220, for the answer to its message."""
    ours, theirs = pair()
    heard: list[Message] = []
    ends: list[bool] = []
    channel = Channel(ours, lambda message, _: heard.append(message), lambda: ends.append(True))
    channel.send({"numbers": {}})
    theirs.send(b'{"took": [7]}')
    theirs.close()
    channel.drain()
    assert (heard, ends) == ([{"took": [7]}], [True])


def test_five_deaths_end_serve(grow: Grow) -> None:
    tree = grow(["broken"], first_pause_seconds=0.01)
    assert tree.wait() == TRY_AGAIN


def test_a_part_whose_work_ends_counts_as_dead(grow: Grow) -> None:
    """Nor has such a start lasted, although all were ready."""
    tree = grow(["ending", "proxy"], first_pause_seconds=0.01, grace_seconds=1)
    tree.until("READY=1")
    assert tree.wait() == TRY_AGAIN
    assert "started" not in tree.said().splitlines()


@pytest.mark.parametrize("seconds", [0.01, 3600])
def test_a_start_has_lasted_after_a_while_or_with_a_stop(grow: Grow, seconds: float) -> None:
    tree = grow(["proxy"], deaths_seconds=seconds)
    tree.until("READY=1")
    if seconds < 1:
        tree.line("started")
    tree.process.send_signal(signal.SIGTERM)
    assert (tree.wait(), "started" in tree.said().splitlines()) == (0, True)


def test_a_part_that_cannot_run_ends_serve_at_once(grow: Grow) -> None:
    tree = grow(["proxy", "wrong"], first_pause_seconds=30)
    assert tree.wait() == 2


def test_mail_goes_on_without_a_part_that_has_pages_alone(
    grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = tmp_path / "free"
    monkeypatch.setenv("TOY_AWAY", str(free))
    tree = grow(["proxy", "away"], pages="away", first_pause_seconds=0.01, longest_pause_seconds=0.05, deaths=2)
    tree.until("READY=1\nSTATUS=proxy ready; ")
    for _ in range(3):
        tree.line("part died")
    tree.greets(bool)
    free.touch()
    pid = int(re.findall(r"pid\W+(\d+)", tree.line("ready", "away"))[0])
    for _ in range(3):
        os.kill(pid, signal.SIGKILL)
        pid = int(re.findall(r"pid\W+(\d+)", tree.line("ready", "away"))[0])
    tree.greets(bool)
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0


def test_why_a_part_cannot_start_is_logged_once_while_it_lasts(
    grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is in use at five starts, its certificate is away at three, told at length; then it starts."""
    monkeypatch.setenv("TOY_TRIES", str(tmp_path / "tries"))
    tree = grow(["proxy", "refused"], pages="refused", first_pause_seconds=0.01, longest_pause_seconds=0.05)
    lines = [tree.line()]
    while "ready" not in lines[-1] or "refused" not in lines[-1]:
        lines.append(tree.line())
    said = "".join(lines)
    assert said.count("cannot run the port is in use") == said.count("cannot run no certificate") == 1
    assert said.count("part died") == 2


def test_a_part_that_has_pages_alone_is_waited_for(grow: Grow) -> None:
    tree = grow(["proxy", "late"], pages="late")
    tree.until("READY=1\nSTATUS=proxy, late ready; ")


def test_a_part_that_cannot_run_any_more_is_retried(
    grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that it needs is damaged while it runs, and it dies: the others go on, and later it does too."""
    right = tmp_path / "right"
    monkeypatch.setenv("TOY_RIGHT", str(right))
    right.touch()
    tree = grow(["proxy", "wrong"], first_pause_seconds=0.01, longest_pause_seconds=0.05, deaths=2)
    pid = int(re.findall(r"pid\W+(\d+)", tree.line("ready", "wrong"))[0])
    tree.until("READY=1")
    right.unlink()
    os.kill(pid, signal.SIGKILL)
    for _ in range(5):
        tree.line("part died")
    tree.greets(bool)
    right.touch()
    tree.line("ready", "wrong")
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0


def test_a_slow_start_is_not_taken_for_silence(grow: Grow) -> None:
    tree = grow(["proxy", "late"], silence_seconds=2, deaths=1000)
    tree.until("READY=1")
    sock, pid = tree.connect()
    with sock:
        assert pid
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert not [line for line in tree.said().splitlines() if "killing a part" in line and "late" in line]


def test_a_too_slow_start_gets_twice_the_time(grow: Grow) -> None:
    """A start that is too slow is killed, does not count as a death, and gets twice the time. The service manager gets
    a longer timeout."""
    tree = grow(["proxy", "late"], start_seconds=1, first_pause_seconds=0.01, longest_pause_seconds=0.01, deaths=1)
    tree.until("EXTEND_TIMEOUT_USEC=60000000\nSTATUS=waiting for ")
    tree.until("READY=1")
    sock, pid = tree.connect()
    with sock:
        assert pid
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert "of its start" in tree.said()


def test_a_connection_outlasts_several_deaths(grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.touch()
    monkeypatch.setenv("TOY_AWAY", str(here))
    tree = grow(["away"], part="away", reload=["true"], first_pause_seconds=0.01, longest_pause_seconds=0.05)
    tree.until("READY=1")
    stopped, pid = tree.connect()
    stopped.sendall(b"freeze")
    with stopped, tree.waiting() as offered:
        tree.process.send_signal(signal.SIGHUP)
        tree.until("READY=1")  # so the connection has been accepted
        here.unlink()
        os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            tree.line("part died")
        with tree.waiting() as later:
            here.touch()
            assert offered.recv(100).startswith(b"220")
            assert later.recv(100).startswith(b"220")


def test_a_part_that_cannot_run_yet_is_retried(grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that cannot start yet, for example because its port is in use, is tried again without counting as a death.
    Mail continues."""
    monkeypatch.setenv("TOY_AWAY", str(tmp_path / "there"))
    tree = grow(["proxy", "away"], first_pause_seconds=0.01, longest_pause_seconds=0.05, deaths=2)
    tree.greets(bool)
    for _ in range(4):
        tree.line("part died")
    (tmp_path / "there").touch()
    tree.until("READY=1")
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0


def without_descriptors(tree: Tree, pid: int) -> tuple[int, int]:
    """Lower the limit until all descriptors are in use. Returns the previous limits."""
    had = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    most = max(int(number.name) for number in Path(f"/proc/{pid}/fd").iterdir()) + 1
    greeted = True
    while greeted:  # a descriptor may be in use for a moment, so the first limit may be too high
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, had[1]))
        sock, part = tree.connect()
        sock.close()
        greeted, most = part != 0, most - 1
    return had


@pytest.mark.parametrize("who", ["supervisor", "part"])
def test_without_a_file_descriptor_a_connection_is_refused(grow: Grow, who: str) -> None:
    began = time.monotonic()
    tree = grow(["proxy"], still=True)
    tree.until("READY=1")
    kept, part = tree.connect()
    pid = tree.process.pid if who == "supervisor" else part
    had = without_descriptors(tree, pid)
    refused = 0
    while refused < 5:  # it may pause for a second before each
        with socket.create_connection(("127.0.0.1", tree.port), timeout=PATIENCE) as sock:
            said = sock.recv(100)
            if said.startswith(b"220 "):  # a descriptor that was in use is free again
                without_descriptors(tree, pid)
                continue
            assert said.startswith(b"421 ")
            assert sock.recv(100) == b""
            refused += 1
    assert ask(kept, "hello") == b"250 hello\r\n", "open connections stay"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, had)
    tree.greets(lambda greeted: greeted == part)
    kept.close()
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", tree.said())
    lines = [line for line in plain.splitlines() if "no file descriptor for a connection" in line]
    assert 1 <= len(lines) <= 2 + (time.monotonic() - began) // 60, "one a minute, and one at the end"
    assert sum(int(re.findall(r"refused\W+(\d+)", line)[0]) for line in lines) >= refused, lines


PROGRAM = """
import asyncio, json, os, signal, sys
from smtpguard.processes.child import fork

def life():
    {life}

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, print, "told the parent")
    keep, write = os.pipe()
    print("said once", end=" ")
    def start():
        pid = fork("smtpguard: toy", write, life)
        os.close(write)
        print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.read(keep, 10_000).decode())
        done.set()
    done = asyncio.Event()
    loop.call_soon(start)
    await done.wait()

asyncio.run(main())
"""


def run_child(life: str) -> subprocess.CompletedProcess[str]:
    code = PROGRAM.format(life=life)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)


def test_a_child_has_only_its_channel_and_standard_streams() -> None:
    life = """
    fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
    null = os.readlink("/proc/self/fd/0")
    title = open("/proc/self/cmdline").read().strip("\\0")
    os.write(write_fd(), json.dumps([fds, null, title]).encode())
    return 7

def write_fd():
    return max(fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}"))
"""
    done = run_child(life)
    start, _, rest = done.stdout.partition("status ")
    status, _, said = rest.partition(" ")
    fds, null, title = json.loads(said)
    assert start == "said once ", "the parent's buffered output is written once"
    assert status == "7"
    assert fds[:3] == [0, 1, 2]
    assert len(fds) == 5, "its channel, and what listdir itself had open"
    assert null == "/dev/null"
    assert title == "smtpguard: toy"


def test_a_child_has_its_own_event_loop_and_ends_by_a_signal() -> None:
    done = run_child("""
    async def own():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
    asyncio.run(own())
""")
    assert f"status {-signal.SIGTERM}" in done.stdout
    assert "told the parent" not in done.stdout


def test_an_uncaught_error_ends_a_child_with_1() -> None:
    done = run_child('raise RuntimeError("that is the fault")')
    assert "status 1" in done.stdout
    assert "that is the fault" in done.stdout + done.stderr


@pytest.mark.parametrize("life", ["sys.exit(75)", "raise SystemExit(75)"])
def test_a_child_exits_with_its_status(life: str) -> None:
    assert "status 75" in run_child(life).stdout


def test_a_failed_fork_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from smtpguard.processes.child import fork

    def none_left() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", none_left)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(BlockingIOError):
        fork("smtpguard: toy", 9, lambda: 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
