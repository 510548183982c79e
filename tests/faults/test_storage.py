"""A full disk, a failing fsync, a database that is stopped or cut off: 4xx meanwhile, and normal service afterwards.

Never a 5xx for a failure of ours, never a 250 without a commit, and no queue in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.machine import ANNA, RAMADAN, Machine, machine, synced
from tests.faults.mta import Attempt, Mta
from tests.faults.test_status import alarms, status_of
from tests.peers.chain import Recorder, until
from tests.peers.letters import mail, story
from tests.store.servers import a_server

PETER = "peter@partner.example"


def ordinary(id: str, size: int = 0) -> bytes:
    return mail(to=PETER, message_id=id, text="Hello\n" + ("x" * 70 + "\n") * (size // 71))


def tries(guard: Machine, n: int = 3, size: int = 0) -> list[Attempt]:
    """Send ordinary mail and mail to be held, all at once; the attempts."""
    done: list[Attempt] = []
    letters: list[tuple[bytes, str]] = []
    for i in range(n):
        letters += [
            (ordinary(f"o{i}-{time.monotonic_ns()}@x", size), PETER),
            (story(f"s{i}-{time.monotonic_ns()}@x"), RAMADAN),
        ]
    threads = [
        threading.Thread(target=lambda m=m, to=to: done.append(Mta(guard).once(m, ANNA, to))) for m, to in letters
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def relays_again(guard: Machine, recorder: Recorder, id: str) -> None:
    """Assert that mail is relayed and held again. The journal is verified at the end."""
    assert Mta(guard).deliver(ordinary(f"o-{id}"), ANNA, PETER).code == 250
    assert len(recorder.with_id(f"o-{id}")) == 1
    assert "Held" in Mta(guard).deliver(story(f"s-{id}"), ANNA, RAMADAN).text


# a full disk


class OnADisk(Machine):
    """A machine whose state and database are on a small file system of its own mount namespace."""

    def _inside(self) -> list[str]:
        if self._process is None:
            return []
        return ["nsenter", "-U", "-m", "--preserve-credentials", "-t", str(self.pid)]

    @property
    def disk(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.root}/var")


@pytest.fixture
def on_a_disk(tmp_path: Path) -> Iterator[tuple[OnADisk, Recorder]]:
    var = tmp_path / "guard" / "var"
    var.mkdir(parents=True)
    wrap = ["unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size=6m none {var} && exec "$@"', "sh"]
    tried = subprocess.run([*wrap, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no disk of one's own to fill: {tried.stderr.strip()}")
    with Recorder() as recorder:
        guard = OnADisk(tmp_path / "guard", recorder.port, wrap=wrap)
        with guard:
            synced(guard)
            yield guard, recorder


def test_a_full_disk_defers_mail(on_a_disk: tuple[OnADisk, Recorder]) -> None:
    guard, recorder = on_a_disk
    relays_again(guard, recorder, "before")
    until(lambda: [*guard.disk.glob("trees/*.json")], "the state of the processes, which has room from then on")
    ballast = guard.disk / "ballast"
    for size in (1 << 16, 1 << 12, 1 << 8):
        with ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    there = len(recorder.messages)
    done: list[Attempt] = []

    def used_up() -> bool:
        done.extend(tries(guard))
        return done[-1].code == 452

    until(used_up, "the last room in the database to be used up")
    done = tries(guard)
    assert {a.code for a in done} == {452}, done
    assert all(a.text.startswith("4.3.1 ") for a in done)
    found = json.loads(guard.run("--json", "status", exits=1).stdout)
    assert found["serves"], found
    assert found["store"]["problem"].startswith("no space left for "), found["store"]
    assert "store-away" in [alarm["alarm"] for alarm in found["alarms"]]
    large = Mta(guard).once(ordinary("large@x", 3_000_000), ANNA, PETER)
    assert large.code // 100 == 4, "content spooled to that disk"
    assert len([m for m in recorder.messages[there:] if b"large@x" in m.content]) == 0
    ballast.unlink()
    relays_again(guard, recorder, "after")
    assert '"ok": true' in guard.run("--json", "audit", "verify").stdout


# an fsync that fails


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build what makes fsync fail")
    library = tmp_path_factory.mktemp("shim") / "fsync.so"
    source = Path(__file__).with_name("fsync.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.parametrize("front", ["off", "on"])
def test_a_failing_fsync_defers_mail(shim: Path, tmp_path: Path, front: str) -> None:
    fault = tmp_path / "fault"
    environment = {"LD_PRELOAD": str(shim), "FAULT_FSYNC": str(fault)}
    with machine(tmp_path, environment=environment, settings={"journal": f"{{front: {front}}}"}) as (guard, recorder):
        relays_again(guard, recorder, "before")
        guard.idle()
        there = len(recorder.messages)
        fault.touch()
        done = tries(guard)
        assert {a.code for a in done} == {451}, done
        assert len(recorder.messages) == there, "nothing was sent without a record"
        until(lambda: "store-away" in alarms(status_of(guard)), "status to say so")  # though it can be read
        held = {h.hold_id for h in guard.holds() if h.acknowledged}
        assert len(held) == 1
        fault.unlink()
        relays_again(guard, recorder, "after")
        assert fault.with_name("fault.failed").exists()
        assert fault.with_name("fault.front").exists() is (front == "on")
        assert not fault.with_name("fault.again").exists(), "a file was synced again over a failure"


# a database that is away


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with a_server() as running:
        yield running


def test_a_stopped_or_unreachable_database_defers_mail(server: Any, tmp_path: Path) -> None:
    with machine(tmp_path, store=server.get_uri().replace(":@", "@")) as (guard, recorder):
        relays_again(guard, recorder, "before")
        guard.idle()

        all_deferred(guard, recorder, lambda: stop(server))
        server.ensure_postgres_running()
        relays_again(guard, recorder, "stopped")
        guard.idle()

        pid = server.get_pid()

        def hang() -> None:
            os.kill(pid, signal.SIGSTOP)  # first, so that it starts no other
            for child in children(pid):
                os.kill(child, signal.SIGSTOP)

        all_deferred(guard, recorder, hang)
        for stopped in (*children(pid), pid):
            os.kill(stopped, signal.SIGCONT)
        relays_again(guard, recorder, "cut")


def all_deferred(guard: Machine, recorder: Recorder, fault: Callable[[], Any]) -> None:
    """Assert that all get 451 in time, before a client would give up."""
    there = len(recorder.messages)
    fault()
    done = tries(guard)
    assert {a.code for a in done} == {451}, done
    assert len(recorder.messages) == there


def stop(server: Any) -> None:
    pid = server.get_pid()
    os.kill(pid, signal.SIGQUIT)
    until(lambda: not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
