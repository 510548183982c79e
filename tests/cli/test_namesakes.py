"""check names addresses that count as a list only because of their name, and the recent mail to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpguard.cli import main
from tests.cli.installing import change, prepared_installation
from tests.guard.house import MEMBERS, FakePassage, House


@pytest.mark.parametrize("indexed", [False, True], ids=["without index", "with index"])
def test_addresses_that_count_as_a_list_by_name_are_shown(tmp_path: Path, indexed: bool) -> None:
    async def happens(home: House) -> None:
        home.clock.at = datetime.now(UTC) - timedelta(days=32)
        intake = home.intake()
        await intake(home.transaction("ramadan@example.com", Message_ID="<old@example.com>"), FakePassage())
        home.clock.pass_(days=31)
        for n in range(3):
            await intake(home.transaction("ramadan@example.com", Message_ID=f"<{n}@example.com>"), FakePassage())
            await intake(home.transaction("bo@example.com", Message_ID=f"<b{n}@example.com>"), FakePassage())
        if indexed:
            while await home.store.journal.write_terms():
                pass

    installed = prepared_installation(tmp_path, happens)
    for name in ("ramadan", "news"):
        (installed / f"{name}.csv").write_text("email\n" + "".join(f"{member}\n" for member in MEMBERS))
    settings = installed / "smtpguard.yaml"
    (installed / "checkpoints").touch()
    result = CliRunner().invoke(main, ["-c", str(settings), "check"])
    lines = result.stdout.splitlines()
    assert "    by the same name also ramadan@example.com" in lines
    assert (
        "odd   ramadan@example.com counts as the list ramadan, and 3 messages name it in 30 days; if it is something else: "
        "addresses_elsewhere: [ramadan@example.com] at the list"
    ) in lines
    assert "ok    as lists count news@example.com, which no message names in 30 days" in lines

    change(installed, ("    addresses: [ramadan@lists.example.com]\n",
                       "    addresses: [ramadan@lists.example.com]\n    addresses_elsewhere: [ramadan@example.com]\n"))  # fmt: skip
    result = CliRunner().invoke(main, ["-c", str(settings), "check"])
    assert "counts as the list ramadan" not in result.stdout
