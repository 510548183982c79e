"""smtpguard bypass: who can begin one, for how long, and how it is shown and ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smtpguard.cli import bypass, freeze
from smtpguard.cli.context import Context
from tests.every import every

EVA, OMAR = "eva@example.com", "omar@example.com"
GIVEN = {"--for": "30m", "--reason": "A fire", "--as": EVA, "--agreed": OMAR}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "smtpguard.yaml"
    (tmp_path / "var").mkdir()
    path.write_text(f"bypass: {{people: [{EVA}, {OMAR}]}}\nstore: {{url: postgresql://127.0.0.1:9/guard}}\n")
    return path


def ran(config: Path, *words: str, command: Any = bypass.command) -> tuple[int, str]:
    result = CliRunner().invoke(command, words, obj=Context(config=config))
    return result.exit_code, result.output


def words(**changed: str | None) -> list[str]:
    given = GIVEN | {f"--{name.rstrip('_')}": value for name, value in changed.items()}
    return [word for option, value in given.items() if value is not None for word in (option, value)]


@every(
    ("changed", "said"),
    [
        ({"reason": None}, "give --for, --reason, --as and --agreed"),
        ({"reason": " "}, "give --for"),
        ({"agreed": None}, "give --for"),
        ({"agreed": "Eva@example.com"}, "another person must agree"),
        ({"agreed": "anna@example.com"}, "the settings do not name anna@example.com"),
        ({"for_": "61m"}, "at most 1h"),
        ({"for_": "soon"}, "invalid duration"),
    ],
)
def test_wrong_use(config: Path, changed: dict[str, str | None], said: str) -> None:
    status, text = ran(config, *words(**changed))
    assert (status, said in text) == (2, True), text
    assert not (config.parent / "var" / "bypass").exists()


def test_without_people_in_the_settings_there_is_none(config: Path) -> None:
    config.write_text("state: var\n")
    status, text = ran(config, *words())
    assert (status, "names nobody" in text) == (2, True)


def test_it_is_begun_shown_and_ended(config: Path) -> None:
    assert ran(config) == (0, "No bypass is in force on this host.\n")
    assert ran(config, "--end")[0] == 1
    begun = json.loads(ran(config, *words(), "--json")[1])
    assert (begun["people"], begun["reason"], begun["ended"]) == ([EVA, OMAR], "A fire", None)
    assert ran(config, *words())[0] == 1, "one at a time"
    assert "A fire" in ran(config)[1]
    assert ran(config, "--end", "--reason", "x")[0] == 2
    assert ran(config, "--end")[0] == 0
    assert ran(config)[1] == "No bypass is in force on this host.\n"


def test_a_freeze_ends_it_even_if_nothing_can_be_frozen(config: Path) -> None:
    ran(config, *words())
    _, text = ran(config, "--all", "--reason", "Stop", command=freeze.command)
    assert "Ended: the emergency bypass" in text
    assert ran(config)[1] == "No bypass is in force on this host.\n"
