"""The relay's queue, held during a freeze: the hook as the service runs it, and root's part behind the path unit."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "systemd" / "postfix"
UNITS = ("smtpguard-queue.path", "smtpguard-queue.service")
STATE = "/var/lib/smtpguard"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The service's state folder, beside stubs of Postfix's commands that log their calls."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    for name in ("postconf", "postfix", "postqueue"):
        stub = tmp_path / "bin" / name
        stub.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/ran\n[ ! -e {tmp_path}/{name}-fails ]\n')
        stub.chmod(0o755)
    return tmp_path / "state"


def run(name: str, state: Path, **said: str) -> subprocess.CompletedProcess[str]:
    script = state.parent / name
    script.write_text((FOLDER / name).read_text().replace(STATE, str(state)))
    env = {"PATH": f"{state.parent / 'bin'}:{os.environ['PATH']}"} | {f"SMTPGUARD_{k}": v for k, v in said.items()}
    return subprocess.run(["sh", str(script)], env=env, capture_output=True, text=True, check=False)


def ran(state: Path) -> list[str]:
    file = state.parent / "ran"
    return file.read_text().splitlines() if file.exists() else []


def test_freeze_and_thaw_hold_and_release_the_queue(state: Path) -> None:
    assert run("freeze-hook", state, SELECTOR="all", ACTION="freeze").returncode == 0
    assert ran(state) == [], "the hook does not run Postfix commands"
    assert run("hold-queue", state).returncode == 0
    assert ran(state) == ["postconf -e defer_transports = smtp relay", "postfix reload"]
    assert run("freeze-hook", state, SELECTOR="all", ACTION="thaw").returncode == 0
    assert run("hold-queue", state).returncode == 0
    assert ran(state)[2:] == ["postconf -X defer_transports", "postfix reload", "postqueue -f"]
    assert [path.name for path in state.iterdir()] == ["queue"]


@pytest.mark.parametrize("selector", ["list", "sender", "mailing", "thread"])
def test_a_freeze_of_less_leaves_the_queue_alone(state: Path, selector: str) -> None:
    assert run("freeze-hook", state, SELECTOR=selector, ACTION="freeze").returncode == 0
    assert list(state.iterdir()) == []


def test_a_failure_to_write_is_reported(state: Path) -> None:
    state.rmdir()
    told = run("freeze-hook", state, SELECTOR="all", ACTION="freeze")
    assert told.returncode != 0
    assert "queue" in told.stderr


@pytest.mark.parametrize("written", ["", "freeze; rm -rf /", "$(touch x)", "freeze thaw"])
def test_other_content_of_the_file_is_refused(state: Path, written: str) -> None:
    (state / "queue").write_text(written + "\n")
    assert run("hold-queue", state).returncode == 1
    assert ran(state) == []


def test_a_failing_postfix_command_fails_the_unit(state: Path) -> None:
    (state / "queue").write_text("freeze\n")
    (state.parent / "postconf-fails").touch()
    assert run("hold-queue", state).returncode != 0
    assert ran(state) == ["postconf -e defer_transports = smtp relay"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS)
def test_units_are_well_formed(unit: str) -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(FOLDER / name) for name in UNITS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line for line in told.stderr.splitlines() if unit in line and "is not executable" not in line] == []


def test_all_files_name_the_same_state_file() -> None:
    service = (FOLDER.parent / "smtpguard.service").read_text()
    assert "StateDirectory=smtpguard" in service
    for name in ("freeze-hook", "hold-queue", UNITS[0]):
        assert f"{STATE}/queue" in (FOLDER / name).read_text()
    for name in ("freeze-hook", "hold-queue"):
        assert os.access(FOLDER / name, os.X_OK)
