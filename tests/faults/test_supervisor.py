"""The supervisor of a real guard is killed, or cannot start: no part keeps a port from the next start, and its output
is the log alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpguard.processes.supervisor import TRY_AGAIN
from tests.faults.machine import ANNA, ROOT, Machine, machine
from tests.faults.mta import Mta
from tests.peers.chain import PATIENCE, Recorder, until
from tests.peers.letters import mail
from tests.peers.postfix import free_port

PETER = "peter@partner.example"


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=PATIENCE) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def absent(guard: Machine) -> list[str]:
    found = json.loads(guard.run("--json", "status", exits=None).stdout)
    return [alarm["about"] for alarm in found["alarms"] if alarm["alarm"] == "part-away"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_killed_supervisor_leaves_no_port_in_use(tmp_path: Path) -> None:
    port = free_port()
    settings = {"console": f"{{address: 127.0.0.1, port: {port}}}"}
    with machine(tmp_path, settings=settings) as (guard, _):
        until(lambda: is_up(port), "the console; " + guard.said())
        # a client keeps a connection open
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as browser:
            browser.sendall(b"GET /login HTTP/1.1\r\nHost: x\r\n\r\n")
            browser.recv(100)
            before, [console] = guard.parts(), guard.parts("console")
            os.kill(console, signal.SIGSTOP)  # as a part that is too busy to notice
            os.kill(guard.pid, signal.SIGKILL)
            until(lambda: not any(map(alive, before)), "every part to end")
            guard.keep()
            guard.until(lambda: is_up(port), "the next console")
            until(guard._greets, "mail to be taken")
        assert guard.starts == 2, guard.said()
        assert "in use" not in guard.said()


def test_mail_goes_on_while_the_port_of_the_console_is_taken(tmp_path: Path) -> None:
    port = free_port()
    settings = {"console": f"{{address: 127.0.0.1, port: {port}}}"}
    with socket.create_server(("127.0.0.1", port)) as other, machine(tmp_path, settings=settings) as (guard, _):
        until(lambda: '"serving"' in guard.log.read_text(), "the start to be over")
        until(lambda: absent(guard) == ["console"], "status to say so")
        other.close()
        guard.until(lambda: is_up(port), "the console")


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Any]:
    """Run ``serve`` with its standard error on the journal, as a unit does; the exit status and its log entries."""
    with Recorder() as recorder:
        guard = Machine(tmp_path / "guard", recorder.port, settings={"logging": "{format: auto}"})

        def run(*words: str) -> tuple[int, list[dict[str, Any]]]:
            log = tmp_path / "journal"
            with log.open("w") as out:
                here = os.fstat(out.fileno())
                done = subprocess.run(
                    [sys.executable, "-m", "smtpguard", "-c", str(guard.config), "serve", *words],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, timeout=PATIENCE, check=False,
                    env={**os.environ, "JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino}"},
                )  # fmt: skip
            return done.returncode, [json.loads(line) for line in log.read_text().splitlines()]

        yield guard, run


def test_before_the_settings_are_read_lines_are_json(unit: Any) -> None:
    guard, run = unit
    status, rows = run("--only", "milk")
    assert (status, [row["event"] for row in rows]) == (2, ["cannot run"])
    assert "'milk' is not one of" in rows[0]["problem"]

    with socket.create_server(("127.0.0.1", guard.port)):
        status, rows = run()
    assert (status, [row["event"] for row in rows]) == (TRY_AGAIN, ["cannot run"])
    assert rows[0]["problem"] == f"cannot listen on 127.0.0.1:{guard.port}: the port is in use"

    fine = guard.config.read_text()
    guard.config.write_text(fine + "loging: {}\nlimits: {recipients: 0}\n")
    status, rows = run()
    assert (status, [row["event"] for row in rows]) == (2, ["cannot run"] * 2)
    assert all(row["problem"].startswith(f"{guard.config}:") for row in rows)

    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        away = taken.getsockname()[1]
        guard.config.write_text(fine.replace("sqlite:///var/guard.db", f"postgresql://u@127.0.0.1:{away}/x"))
        status, rows = run()
    assert (status, rows[-1]["event"], rows[-1]["status"]) == (TRY_AGAIN, "cannot run", TRY_AGAIN)


def test_from_start_to_end_every_line_is_json(tmp_path: Path) -> None:
    """Every line of the log is JSON: from the start, with killed parts, until the supervisor gives up."""
    with machine(tmp_path) as (guard, _):
        assert Mta(guard).deliver(mail(to=PETER, message_id="one@example.com"), ANNA, PETER).code == 250
        until(lambda: b'"serving"' in guard.log.read_bytes(), "every part to be ready")
        until(lambda: b'"verdict"' in guard.log.read_bytes(), "the line of the mail")
        for _ in range(5):
            before = guard.parts("proxy")
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            # A killed part is listed until the supervisor has reaped it, so wait for a new one.
            until(
                lambda before=before: (
                    guard._process.poll() is not None  # type: ignore[misc, union-attr]
                    or set(guard.parts("proxy")) - set(before)
                ),
                "the part, or the end",
            )
            if guard._process is not None and guard._process.poll() is not None:
                break
        lines = guard.log.read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert {"starting", "serving", "verdict", "part died"} <= {row["event"] for row in rows}
        guard.keep()
        until(guard._greets, "it to run again")
