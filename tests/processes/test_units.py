"""The systemd units: hardened, and consistent with each other and with the command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from smtpguard.cli.serve import PARTS
from smtpguard.processes.supervisor import TRY_AGAIN
from tests.every import every

UNITS = Path(__file__).parent.parent.parent / "systemd"
BACKUP = UNITS / "smtpguard-backup.service"
SERVICES = sorted(set(UNITS.glob("*.service")) - {BACKUP})
TIMERS = sorted(UNITS.glob("*.timer"))
SOCKETS = sorted(UNITS.glob("*.socket"))
PAGE = (UNITS.parent / "docs" / "install.md").read_text()
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def test_there_are_units_for_both_deployments() -> None:
    assert {unit.stem for unit in SERVICES} == {
        "smtpguard",
        "smtpguard-console",
        "smtpguard-delivery",
        "smtpguard-milter",
        "smtpguard-proxy",
    }


def test_every_part_has_or_shares_a_unit() -> None:
    """Every part has a unit, except metrics, which run with the proxy to show its connections, and alarms, which run
    with mail."""
    alone = {part for unit in SERVICES for part in re.findall(r"--only (\w+)", _started(unit))}
    assert alone == set(PARTS) - {"metrics", "alarms"}
    assert "serve --only proxy --only metrics" in PAGE


def _started(unit: Path) -> str:
    [line] = re.findall(r"^ExecStart=(.*)$", unit.read_text(), flags=re.M)
    return str(line)


def test_listening_units_have_and_enable_a_socket() -> None:
    for socket in SOCKETS:
        service = (UNITS / f"{socket.stem}.service").read_text()
        assert f"\nSockets={socket.name}\n" in service
        assert f"\nAlso={socket.name}\n" in service
    assert {unit.stem for unit in SERVICES} - {socket.stem for socket in SOCKETS} == {
        "smtpguard-console",
        "smtpguard-delivery",
    }


@every("unit", SERVICES)
def test_all_units_run_as_the_same_user(unit: Path) -> None:
    """All units run as one static user, which can be given read access before the first start. Only the unit of the whole
    guard has a runtime directory: of several units, the first to stop would remove it."""
    text = unit.read_text()
    assert "\nUser=smtpguard\nGroup=smtpguard\n" in text
    assert "DynamicUser" not in text
    assert "\nStateDirectoryMode=0700\n" in text
    assert "\nLogRateLimitIntervalSec=0\n" in text
    assert ("RuntimeDirectory" in text) == (unit.stem == "smtpguard"), "the first of several to stop would remove it"


def test_systemd_retries_all_failures_but_wrong_settings() -> None:
    """systemd gives up on status 2 only: after other statuses, restarts are slower than five in ten seconds."""
    for unit in SERVICES:
        text = unit.read_text()
        assert "\nRestartPreventExitStatus=2\n" in text
        assert f"\nRestartForceExitStatus={TRY_AGAIN}\n" in text
        [seconds] = re.findall(r"^RestartSec=(\d+)s$", text, flags=re.M)
        assert int(seconds) * 4 > 10


def test_systemd_leaves_a_part_that_is_killed_for_memory_to_the_supervisor() -> None:
    assert all("\nOOMPolicy=continue\nOOMScoreAdjust=-200\n" in unit.read_text() for unit in SERVICES)


def test_the_nightly_backup_runs_once_as_the_services_user() -> None:
    text = BACKUP.read_text()
    assert [timer.stem for timer in TIMERS] == [BACKUP.stem]
    assert "\nType=oneshot\n" in text
    assert "\nUser=smtpguard\nGroup=smtpguard\n" in text
    words = _started(BACKUP).split()
    folder = words[-1]
    assert words[:-1] == [
        "/opt/smtpguard/bin/smtpguard",
        "-c",
        "/etc/smtpguard/smtpguard.yaml",
        "backup",
        "--keep",
        "14",
    ]
    assert f"\nReadWritePaths={folder}\n" in text
    assert (
        f"install -d -m 0700 -o smtpguard -g smtpguard {folder}\n"
        in (UNITS.parent / "docs" / "operations.md").read_text()
    )
    assert "cp systemd/*.service systemd/*.socket systemd/*.timer /etc/systemd/system/\n" in PAGE


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd-sysusers is not installed")
def test_the_user_cannot_log_in(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", UNITS / "smtpguard.sysusers"], check=True, capture_output=True
    )
    [line] = (tmp_path / "etc" / "passwd").read_text().splitlines()
    assert line.startswith("smtpguard:")
    assert line.endswith(":/var/lib/smtpguard:/usr/sbin/nologin")


@needs_systemd
@pytest.mark.parametrize("unit", [*SERVICES, BACKUP], ids=lambda unit: unit.stem)
def test_exposure_is_at_most_1_5(unit: Path) -> None:
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told.stdout)
    assert found, told.stderr
    assert float(found[1]) <= 1.5


@needs_systemd
@pytest.mark.parametrize("unit", [*SERVICES, *SOCKETS, BACKUP, *TIMERS], ids=lambda unit: unit.name)
def test_units_are_well_formed(unit: Path) -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    lines = [line for line in told.stderr.splitlines() if unit.name in line and "is not executable" not in line]
    assert lines == []


@every("unit", SERVICES)
def test_parts_stop_within_systemds_timeout(unit: Path) -> None:
    text = unit.read_text()
    assert "KillMode=mixed" in text
    assert "Type=notify" in text
    seconds = re.search(r"TimeoutStopSec=(\d+)s", text)
    assert seconds
    assert int(seconds[1]) > 40  # grace period, plus one heartbeat


FOLDER = Path(__file__).parent.parent.parent / "systemd" / "postfix"
QUEUE_UNITS = ("smtpguard-queue.path", "smtpguard-queue.service")
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
    assert [path.name for path in state.iterdir()] == ["queue.taken"]


def test_a_request_while_one_is_carried_out_stays_for_the_next_start(state: Path) -> None:
    assert f"\nPathExists={STATE}/queue\n" in (FOLDER / QUEUE_UNITS[0]).read_text()
    (state / "queue").write_text("thaw\n")
    (state.parent / "bin" / "postfix").write_text(f"#!/bin/sh\necho freeze > {state}/queue\n")
    assert run("hold-queue", state).returncode == 0
    assert (state / "queue").read_text() == "freeze\n"


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
@pytest.mark.parametrize("unit", QUEUE_UNITS)
def test_units_of_the_queue_are_well_formed(unit: str) -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(FOLDER / name) for name in QUEUE_UNITS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [line for line in told.stderr.splitlines() if unit in line and "is not executable" not in line] == []


def test_all_files_name_the_same_state_file() -> None:
    service = (FOLDER.parent / "smtpguard.service").read_text()
    assert "StateDirectory=smtpguard" in service
    for name in ("freeze-hook", "hold-queue", QUEUE_UNITS[0]):
        assert f"{STATE}/queue" in (FOLDER / name).read_text()
    for name in ("freeze-hook", "hold-queue"):
        assert os.access(FOLDER / name, os.X_OK)
