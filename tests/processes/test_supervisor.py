"""The supervisor with real processes, signals and sockets, and toy parts: ready, stop, reload, death.

For parts that die, see test_child.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from smtpguard.processes.numbers import Numbers, ProcessNumbers
from smtpguard.processes.statusfile import Notifier, StatusFile, trees
from tests.processes.tree import PATIENCE, Grow, ask, gone


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
    assert ask(busy, "slow") == b"150 begun\r\n"
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


def test_a_reload_before_it_is_ready_makes_nothing_ready(
    grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, done = tmp_path / "right", tmp_path / "reloaded"
    monkeypatch.setenv("TOY_AWAY", str(right))
    tree = grow(["proxy", "away"], reload=["touch", str(done)])
    tree.until("waiting for away")
    tree.process.send_signal(signal.SIGHUP)
    tree.line("reloaded")
    right.touch()
    tree.line("serving")
    tree.until("READY=1")
    assert not any("RELOADING=1" in text for text in tree.seen)


def test_a_reload_during_the_start_is_carried_out(grow: Grow, tmp_path: Path) -> None:
    done = tmp_path / "reloaded"
    tree = grow(["proxy"], reload=["touch", str(done)], told=True)
    tree.line("reloaded")
    tree.process.send_signal(signal.SIGHUP)  # as any later one
    tree.line("reloaded")
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0


def test_a_reload_that_hangs_delays_no_stop(grow: Grow) -> None:
    tree = grow(["proxy"], reload=["sleep", str(10 * PATIENCE)])
    tree.until("READY=1")
    tree.process.send_signal(signal.SIGHUP)
    tree.until("RELOADING=1")
    tree.process.send_signal(signal.SIGTERM)
    assert tree.wait() == 0
    tree.until("STOPPING=1")
    assert not any("READY=1" in text for text in tree.seen)


def test_a_reload_that_cannot_be_started_ends(grow: Grow) -> None:
    tree = grow(["proxy"], reload=["/nowhere/smtpguard"])
    tree.until("READY=1")
    tree.process.send_signal(signal.SIGHUP)
    tree.until("RELOADING=1")
    tree.line("reload failed", "No such file")
    tree.until("READY=1")


def test_a_manager_that_takes_nothing_now_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    notifier = Notifier()
    notifier.ready("proxy ready")  # it is restarted just now
    notifier.watchdog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        notifier.watchdog()
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1\nSTATUS=proxy ready", b"WATCHDOG=1"]
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_the_least_loaded_part_gets_the_next_connection(grow: Grow) -> None:
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
        while (
            time.monotonic() < deadline
        ):  # the report of the closed connections takes a moment; then three in a row go to the same part
            again = [tree.connect() for _ in range(3)]
            for sock, _ in again:
                sock.close()
            if {pid for _, pid in again} == {emptied}:
                break
        assert {pid for _, pid in again} == {emptied}


def test_without_a_ready_part_connections_wait_in_the_backlog(grow: Grow) -> None:
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


def test_the_total_limit_is_exact(grow: Grow) -> None:
    tree = grow(["proxy", "proxy"], total=5)
    tree.until("READY=1")
    open_ = [tree.connect() for _ in range(5)]
    assert all(pid for _, pid in open_)
    with socket.create_connection(("127.0.0.1", tree.port), timeout=PATIENCE) as one_too_many:
        assert one_too_many.recv(200).startswith(b"421 4.7.0 ")
        assert one_too_many.recv(1) == b""
    open_[0][0].close()
    tree.greets(bool)
    for sock, _ in open_:
        sock.close()


def test_the_limit_per_client(grow: Grow) -> None:
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


def test_each_kind_of_connection_goes_to_its_parts(grow: Grow, tmp_path: Path) -> None:
    """Each listener's connections go to its own parts. Milter connections do not count as a client's, and get no SMTP
    reply."""
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


def test_a_proxy_takes_milter_connections_if_no_part_is_theirs_alone(grow: Grow, tmp_path: Path) -> None:
    path = tmp_path / "milter.sock"
    tree = grow(["proxy", "proxy"], unix=str(path), per_client=1)
    tree.until("READY=1")
    with contextlib.ExitStack() as undo:
        smtp, proxy = tree.connect()
        undo.enter_context(smtp)
        mta = undo.enter_context(socket.socket(socket.AF_UNIX))
        mta.settimeout(PATIENCE)
        mta.connect(str(path))
        said = mta.recv(100)
        assert said.startswith(b"220 ")
        assert int(said.split()[1]) != proxy, "the least loaded one"


def test_milter_connections_wait_while_smtp_continues(grow: Grow, tmp_path: Path) -> None:
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


def counted(answered: int) -> Numbers:
    numbers = Numbers()
    numbers.heard("proxy", ProcessNumbers(counts={"answered": answered}))
    return numbers


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "no space left")


def test_on_a_full_disk_the_state_of_the_tree_is_written_over_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StatusFile(tmp_path)
    file.write(0.0, file.row(0.0, (), counted(10), stopping=False))
    monkeypatch.setattr("smtpguard.processes.statusfile.replace_file", _full)
    file.write(10.0, file.row(10.0, (), counted(2), stopping=True))
    (tree,) = trees(tmp_path)
    assert (tree.alive, tree.row["counts"], tree.row["stopping"]) == (True, {"answered": 2}, True)
    file.remove()
    file.write(20.0, file.row(20.0, (), Numbers(), stopping=True))
    assert not list(trees(tmp_path)), "there is no file to write over"


def test_a_start_on_a_full_disk_writes_over_the_file_of_a_tree_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else status would say that nothing serves."""

    killed = StatusFile(tmp_path)
    killed.write(0.0, {**killed.row(0.0, (), Numbers(), stopping=False), "pid": 2**22})  # beyond every process
    (dead,) = trees(tmp_path)
    dead.path.rename(dead.path.with_name("another.json"))
    monkeypatch.setattr("smtpguard.processes.statusfile.replace_file", _full)
    file = StatusFile(tmp_path)
    file.write(0.0, file.row(0.0, (), counted(1), stopping=False))
    (tree,) = trees(tmp_path)
    assert (tree.alive, tree.row["counts"]) == (True, {"answered": 1})


def test_a_tree_whose_file_cannot_be_written_is_silent_and_no_ended_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that became read-only. Its own processes know its state from their supervisor."""
    file, past = StatusFile(tmp_path), time.time() - 60
    old = {**file.row(0.0, (), counted(10), stopping=False), "at": past}
    file.write(0.0, old)

    def named(path: Path) -> bytes:
        return b"python\0-m\0smtpguard\0serve\0"

    monkeypatch.setattr(Path, "read_bytes", named)
    [(alive, silent)] = [(tree.alive, tree.silent) for tree in trees(tmp_path)]
    assert (alive, silent) == (False, True)
    (tree,) = trees(tmp_path, file.row(0.0, (), counted(11), stopping=False))
    assert (tree.alive, tree.silent, tree.row["counts"]) == (True, False, {"answered": 11})
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"another\0program\0")
    [(alive, silent)] = [(tree.alive, tree.silent) for tree in trees(tmp_path)]
    assert (alive, silent) == (False, False), "its number was given to another program"
