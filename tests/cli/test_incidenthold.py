"""incident hold, holds and renew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smtpguard.cli import main
from tests.cli.installing import prepared_installation
from tests.guard.house import RAMADAN, FakePassage, House

ID = "T000000000000001"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    async def happens(home: House) -> None:
        await home.intake()(home.transaction(RAMADAN), FakePassage())

    return prepared_installation(tmp_path, happens)


def run(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(folder / "smtpguard.yaml"), "incident", *args])


def test_holds_lists_what_is_kept_and_until_when(prepared: Path) -> None:
    assert run(prepared, "holds").stdout == "Nothing is kept beyond its retention.\n"
    result = run(prepared, "hold", ID, "--reason", "a lawsuit")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{ID}: all its data is kept until ")
    made = json.loads(run(prepared, "holds", "--json").stdout)
    assert (made["id"], made["reason"], made["renewal_asked_by"]) == (ID, "a lawsuit", None)
    asked = run(prepared, "renew", ID, "--as", "eva@example.com")
    assert (asked.exit_code, "eva@example.com asked to keep it longer" in asked.stdout) == (0, True)
    assert json.loads(run(prepared, "holds", "--json").stdout)["until"] == made["until"]
    assert run(prepared, "renew", ID, "--as", "dpo@example.com").exit_code == 0
    longer = json.loads(run(prepared, "holds", "--json").stdout)
    assert (longer["until"] > made["until"], longer["renewal_asked_by"]) == (True, None)


def test_unauthorized_or_unknown_holds_are_refused(prepared: Path) -> None:
    result = run(prepared, "hold", "X")
    assert (result.exit_code, "the journal has nothing of X" in result.stderr) == (1, True)
    result = run(prepared, "renew", ID, "--as", "eva@example.com")
    assert (result.exit_code, "is not kept beyond its retention" in result.stderr) == (1, True)
    run(prepared, "hold", ID)
    result = run(prepared, "renew", ID, "--as", "mallory@example.com")
    assert (result.exit_code, "is in no group of the policy in force" in result.stderr) == (1, True)
