"""A forked part: what it inherits from the supervisor, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

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
