"""mailings correct: a message to exactly the people who got a mailing waits for approval by others."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.cli.held import command as held
from smtpguard.cli.mailings import command as mailings
from smtpguard.mailings.model import set_of
from tests.cli.stage import ANNA, EVA, Stage
from tests.guard.house import MEMBERS, House, mail
from tests.mailings.correcting import SORRY, TEXT, digest


@pytest.fixture
def sorry(campaign: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The id of a mailing that four people got and four did not, and the path of a message."""
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    init = House.__init__

    def reading(house: House, *args: object) -> None:
        init(house, *args)  # type: ignore[arg-type]
        house.reader.sketch = SORRY
        house.ids = iter(f"C{n:015d}" for n in range(100))

    monkeypatch.setattr(House, "__init__", reading)
    file = tmp_path / "sorry.eml"
    file.write_bytes(mail(**TEXT).replace(b"\r\n", b"\n"))
    return row["id"], str(file)


def test_a_correction_waits_for_approval(campaign: Stage, sorry: tuple[str, str]) -> None:
    id, file = sorry
    made = campaign.run(mailings, "correct", id, "--message", file, "--as", EVA, "--comment", "We promised")
    assert made.exit_code == 0, made.output
    hold_id = made.stdout.partition(":")[0]
    assert "held, for the 4 who have it; others approve it" in made.stdout
    shown = campaign.run(held, "show", hold_id)
    assert f"Corrects: for exactly the 4 who have {id}, at 2026-03-02 09:05:00 UTC" in shown.stdout
    [row] = campaign.rows(mailings, "correct", id, "--message", file, "--as", EVA, "--in-doubt")
    assert (row["sent"], row["may_have"], row["set"]) == (4, 0, set_of(map(digest, MEMBERS[:4])))
    assert row["hold"] == hold_id, "the same message for the same people"


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("--as", ANNA), 1, "is not an approver"),
        (("--as", EVA, "--from-csv", "/nowhere.csv"), 2, "/nowhere.csv: no such file"),
    ],
)
def test_a_correction_that_cannot_begin_gives_the_reason(
    campaign: Stage, sorry: tuple[str, str], args: tuple[str, ...], status: int, says: str
) -> None:
    result = campaign.run(mailings, "correct", sorry[0], "--message", sorry[1], *args)
    assert (result.exit_code, says in result.output) == (status, True), result.output
