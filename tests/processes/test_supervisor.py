"""The process tree with real processes, signals and sockets, and a toy for a part."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "toy.py"
PATIENCE = 20.0
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="smtp")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Tree:
    """A running supervisor; ``notices`` are its datagrams to the service manager."""

    def __init__(self, process: subprocess.Popen[str], notices: socket.socket) -> None:
        self.process = process
        self.notices = notices
        assert process.stdout is not None
        self.port: int = (json.loads(process.stdout.readline()) or [0])[0]
        self.seen: list[str] = []

    def until(self, word: str) -> None:
        """Wait until the service manager was told ``word``."""
        deadline = time.monotonic() + PATIENCE
        while not any(word in text for text in self.seen):
            self.notices.settimeout(max(0.01, deadline - time.monotonic()))
            self.seen.append(self.notices.recv(4096).decode())
        self.seen = [text for text in self.seen if word not in text]

    def connect(self) -> tuple[socket.socket, int]:
        """A connection and the pid of the part that greeted it."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        greeting = sock.recv(100)
        return sock, int(greeting.split()[1]) if greeting.startswith(b"220") else 0

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def grow(tmp_path: Path) -> Iterator[object]:
    with contextlib.ExitStack() as undo:

        def start(
            parts: Sequence[str], *, given: socket.socket | None = None, ports: Sequence[int] = (0,), **options: object
        ) -> Tree:
            notices = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notices.bind(str(tmp_path / "notify"))
            log = undo.enter_context((tmp_path / "log").open("w"))
            environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
            command = [sys.executable, str(TOY), "serve", json.dumps(ports), json.dumps(parts), json.dumps(options)]
            if given is not None:  # as the service manager does it: descriptor 3, and the pid of who is meant
                command = [sys.executable, "-c", ACTIVATE, str(given.fileno()), *command]
            process = undo.enter_context(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ,
                    pass_fds=[given.fileno()] if given else [],
                )
            )  # fmt: skip
            undo.callback(process.kill)
            return Tree(process, notices)

        yield start


def ask(sock: socket.socket, word: str) -> bytes:
    sock.sendall(word.encode())
    return sock.recv(100)


def test_ready_when_all_are_and_connections_spread(grow) -> None:
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


def test_the_least_loaded_gets_the_next(grow) -> None:
    tree = grow(["proxy", "proxy"])
    tree.until("READY=1")
    with contextlib.ExitStack() as undo:
        opened = [tree.connect() for _ in range(6)]
        emptied = opened[0][1]
        for sock, pid in opened:
            undo.enter_context(sock)
            if pid == emptied:
                sock.close()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:  # "closed" travels beside us; then three in a row go to the same part
            again = [tree.connect() for _ in range(3)]
            for sock, _ in again:
                sock.close()
            if {pid for _, pid in again} == {emptied}:
                break
        assert {pid for _, pid in again} == {emptied}


def test_a_killed_part_is_started_again_and_nothing_accepted_is_lost(grow) -> None:
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
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sock, pid = tree.connect()
        sock.close()
        if pid not in (victim, survivor):
            break
    assert pid not in (victim, survivor)
    for sock in (kept, other, *pending):
        sock.close()


def test_with_no_part_ready_the_backlog_keeps_connections(grow) -> None:
    tree = grow(["proxy"], first_pause_seconds=0.3)
    tree.until("READY=1")
    sock, victim = tree.connect()
    os.kill(victim, signal.SIGKILL)
    with contextlib.suppress(ConnectionResetError):
        sock.recv(1)
    sock.close()
    again, pid = tree.connect()
    again.close()
    assert pid not in (0, victim)


@pytest.mark.parametrize("word", ["hang", "freeze"])
def test_a_silent_part_is_killed(grow, word: str) -> None:
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


def test_a_machine_that_stood_still_kills_nobody(grow) -> None:
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


def test_five_deaths_end_serve(grow) -> None:
    tree = grow(["broken"], first_pause_seconds=0.01)
    assert tree.wait() == 1


def test_a_part_whose_work_ends_is_a_death(grow) -> None:
    tree = grow(["ending", "proxy"], first_pause_seconds=0.01, grace_seconds=1)
    assert tree.wait() == 1


def test_a_part_that_cannot_run_ends_serve_at_once(grow) -> None:
    tree = grow(["proxy", "wrong"], first_pause_seconds=30)
    assert tree.wait() == 2


def test_graceful_stop_finishes_what_is_under_way(grow) -> None:
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


def test_a_second_signal_ends_at_once(grow) -> None:
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


def test_parts_end_with_their_supervisor(grow) -> None:
    tree = grow(["proxy"])
    tree.until("READY=1")
    sock, pid = tree.connect()
    tree.process.kill()
    tree.wait()
    assert sock.recv(100) == b"421 stopping\r\n"
    sock.close()
    assert gone(pid)


def test_a_part_that_cannot_end_is_ended(grow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_STUBBORN", "1")
    tree = grow(["proxy"])
    tree.until("READY=1")
    sock, pid = tree.connect()
    sock.close()
    tree.process.kill()
    tree.wait()
    assert gone(pid)


def gone(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        select.select([], [], [], 0.02)
    return False


def test_limits_are_exact(grow) -> None:
    tree = grow(["proxy", "proxy"], total=5)
    tree.until("READY=1")
    open_ = [tree.connect() for _ in range(5)]
    assert all(pid for _, pid in open_)
    with socket.create_connection(("127.0.0.1", tree.port), timeout=PATIENCE) as one_too_many:
        assert one_too_many.recv(200).startswith(b"421 4.7.0 ")
        assert one_too_many.recv(1) == b""
    open_[0][0].close()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sock, pid = tree.connect()
        sock.close()
        if pid:
            break
    assert pid
    for sock, _ in open_:
        sock.close()


def test_a_limit_a_client(grow) -> None:
    tree = grow(["proxy"], per_client=2)
    tree.until("READY=1")
    open_ = [tree.connect() for _ in range(3)]
    assert [bool(pid) for _, pid in open_] == [True, True, False]
    with socket.socket() as other:
        other.settimeout(PATIENCE)
        other.bind(("127.0.0.2", 0))
        other.connect(("127.0.0.1", tree.port))
        assert other.recv(100).startswith(b"220 ")
    for sock, _ in open_:
        sock.close()


def test_each_kind_of_connection_goes_to_its_own_parts(grow, tmp_path: Path) -> None:
    """And an MTA's milter connections are no client's: they are not counted as one, and hear no SMTP."""
    path = tmp_path / "milter.sock"
    tree = grow(["proxy", "milter"], unix=str(path), per_client=1, total=4)
    tree.until("READY=1")
    with contextlib.ExitStack() as undo:
        smtp, proxy = tree.connect()
        undo.enter_context(smtp)
        said = []
        for _ in range(4):
            mta = undo.enter_context(socket.socket(socket.AF_UNIX))
            mta.settimeout(PATIENCE)
            mta.connect(str(path))
            said.append(mta.recv(100))
    assert len(set(said[:3])) == 1
    assert said[0].startswith(b"220 ")
    assert int(said[0].split()[1]) != proxy
    assert said[3] == b"", "one too many in all is closed, without a word of SMTP"
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    assert not path.exists()


def test_milters_wait_for_their_part_while_smtp_goes_on(grow, tmp_path: Path) -> None:
    path = tmp_path / "milter.sock"
    tree = grow(["proxy", "milter"], unix=str(path))
    tree.until("READY=1")
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for sock in (first, second):
            sock.settimeout(PATIENCE)
        first.connect(str(path))
        before = int(first.recv(100).split()[1])
        os.kill(before, signal.SIGKILL)
        smtp, pid = tree.connect()
        with smtp:
            assert pid
        second.connect(str(path))
        assert int(second.recv(100).split()[1]) != before


def test_an_inherited_socket_is_used(grow) -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        given.listen(10)
        port = given.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as early:  # before anybody accepts
            tree = grow(["proxy"], given=given, ports=[port])
            assert tree.port == port
            assert early.recv(100).startswith(b"220 ")


def test_watchdog_and_reload(grow, tmp_path: Path) -> None:
    done = tmp_path / "reloaded"
    tree = grow(["proxy"], silence_seconds=0.5 * 4, reload=["touch", str(done)])
    tree.until("READY=1")
    tree.until("WATCHDOG=1")
    tree.process.send_signal(signal.SIGHUP)
    tree.until("RELOADING=1\nMONOTONIC_USEC=")
    tree.until("READY=1")
    assert done.exists()


def test_a_reload_that_is_asked_for_during_another_is_not_lost(grow, tmp_path: Path) -> None:
    """The first may have read the file before it was changed again."""
    count, go = tmp_path / "count", tmp_path / "go"
    script = f"echo one >>{count}; while ! test -e {go}; do sleep 0.05; done"
    tree = grow(["proxy"], reload=["sh", "-c", script])
    tree.until("READY=1")
    tree.process.send_signal(signal.SIGHUP)
    tree.until("RELOADING=1\nMONOTONIC_USEC=")
    tree.process.send_signal(signal.SIGHUP)
    go.touch()
    tree.until("RELOADING=1\nMONOTONIC_USEC=")
    tree.until("READY=1")  # of the first
    tree.until("READY=1")  # of the second
    assert count.read_text() == "one\none\n"


def test_a_part_that_is_slow_to_start_is_not_taken_for_a_silent_one(grow) -> None:
    tree = grow(["proxy", "late"], silence_seconds=2, deaths=1)
    tree.until("READY=1")
    sock, pid = tree.connect()
    with sock:
        assert pid


class TestNumbers:
    """What one kind of part is told of the tree."""

    def test_it_is_told_what_happens(self, grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOY_NUMBERS", str(tmp_path / "numbers"))
        tree = grow(
            ["proxy", "proxy", "shows"], shows="shows", silence_seconds=4, first_pause_seconds=0.01, per_client=3
        )
        name = f"127.0.0.1:{tree.port}"

        def told() -> dict[str, object]:
            return json.loads((tmp_path / "numbers").read_text()) if (tmp_path / "numbers").exists() else {}

        def until(**numbers: object) -> None:
            deadline = time.monotonic() + PATIENCE
            while {key: told().get(key) for key in numbers} != numbers:
                assert time.monotonic() < deadline, told()
                time.sleep(0.02)  # another process is to tell a third one

        tree.until("READY=1")
        until(connections={name: 0}, accepted={name: 0}, refused={name: 0}, deaths={"proxy": 0, "shows": 0},
              ready={"proxy": 2, "shows": 1})  # fmt: skip
        first, victim = tree.connect()
        second, _ = tree.connect()
        third, _ = tree.connect()
        for sock, word in ((first, "down"), (second, "up"), (third, "hello")):
            assert ask(sock, word).startswith(b"250")
        one_too_many, _ = tree.connect()
        one_too_many.close()
        until(connections={name: 3}, accepted={name: 3}, refused={name: 1}, counts={"words": 3})
        assert told()["found"]["relay"][1] == 1  # type: ignore[index]
        os.kill(victim, signal.SIGKILL)
        until(deaths={"proxy": 1, "shows": 0}, ready={"proxy": 2, "shows": 1}, counts={"words": 3})
        for sock in (first, second, third):
            sock.close()
        until(connections={name: 0}, accepted={name: 3})

    def test_however_often_it_dies_nothing_else_ends_or_waits(self, grow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOY_NUMBERS", "broken")
        tree = grow(["proxy", "shows"], shows="shows", deaths=2, first_pause_seconds=0.001, longest_pause_seconds=0.01)
        tree.until("READY=1\nSTATUS=proxy ready; ")
        died = 0
        while died < 6:
            line = tree.process.stdout.readline()
            assert line, "it has ended"
            died += "part died" in line
        sock, pid = tree.connect()
        with sock:
            assert pid
        tree.process.send_signal(signal.SIGTERM)
        assert tree.wait() == 0

    def test_it_alone(self, grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a unit of its own there is nothing else to wait for."""
        monkeypatch.setenv("TOY_NUMBERS", str(tmp_path / "numbers"))
        tree = grow(["shows"], shows="shows", ports=[])
        tree.until("READY=1\nSTATUS=shows ready")
        tree.process.send_signal(signal.SIGTERM)
        assert tree.wait() == 0
