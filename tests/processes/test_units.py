"""The systemd units: hardened, and in agreement with one another and with the command line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent.parent / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def test_there_are_units_for_both_deployments() -> None:
    assert {unit.stem for unit in SERVICES} == {
        "smtpguard",
        "smtpguard-console",
        "smtpguard-delivery",
        "smtpguard-proxy",
    }


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_exposure_is_at_most_1_5(unit: Path) -> None:
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told.stdout)
    assert found, told.stderr
    assert float(found[1]) <= 1.5


@needs_systemd
@pytest.mark.parametrize("unit", [*SERVICES, UNITS / "smtpguard.socket"], ids=lambda unit: unit.name)
def test_units_are_well_formed(unit: Path) -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    lines = [line for line in told.stderr.splitlines() if unit.name in line and "is not executable" not in line]
    assert lines == []


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_parts_are_told_to_stop_by_their_supervisor_within_the_time_that_systemd_gives(unit: Path) -> None:
    text = unit.read_text()
    assert "KillMode=mixed" in text
    assert "Type=notify" in text
    seconds = re.search(r"TimeoutStopSec=(\d+)s", text)
    assert seconds
    assert int(seconds[1]) > 40  # grace and the beat that is waited for after it
