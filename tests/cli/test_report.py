"""smtpguard report over a store with the story."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from smtpguard.holds.model import Choice
from tests.cli.installing import install, running
from tests.guard.house import KEY, RAMADAN, FakePassage, house

HELD = "T000000000000001"


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """An installation with a message held and rejected, and one that passed."""
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            await home.send(RAMADAN)
            passed = home.transaction("x@example.org", Message_ID="<2@example.com>")
            await home.intake()(passed, FakePassage())
            home.clock.pass_(minutes=12)
            await home.approvals().vote(HELD, Choice.REJECT, approver="eva@example.com", by="eva", comment="no")
            await home.settled(passed.id)

    asyncio.run(work())
    return tmp_path


run = running("report")


def test_a_period_as_json(story: Path) -> None:
    result = run(story, "--since", "2026-03-01", "--until", "2026-03-08", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["since"].startswith("2026-03-01T00:00")
    assert told["messages"] == {"relayed": 1, "asked": 0, "held": 1, "deferred": 0, "rejected": 0, "copies": 0}
    assert (told["waiting"], told["decisions"]["rejected"], told["decisions"]["median_seconds"]) == (0, 1, 720.0)
    rule = next(rule for rule in told["rules"] if rule["rule"] == "internal-to-list")
    assert (rule["held"], rule["decisions"]["rejected"], rule["too_strict"]) == (1, 1, False)
    assert [each["list"] for each in told["lists"]] == ["ramadan"]


def test_a_period_in_words(story: Path) -> None:
    said = run(story, "--since", "2026-03-01", "--until", "2026-03-08").stdout
    assert "2026-03-01 00:00 to 2026-03-08 00:00 UTC, 7 d: 2 messages." in said
    assert "Passed 1 (0 copies to customers), held 1, deferred 0, rejected on arrival 0." in said
    assert "Of 1 to be decided on: 0 approved, 1 rejected, 0 withdrawn, 0 expired, 0 waiting." in said
    assert "Half were decided within 12 min, nine of ten within 12 min." in said
    assert "Rule held rejected share median internal-to-list 1 1 0% 12 min" in " ".join(said.split())
    assert "example.com" not in said, "no person is named"


def test_a_period_without_messages(story: Path) -> None:
    said = run(story, "--since", "2025-01-01", "--until", "2025-01-02").stdout
    assert said.splitlines()[0] == "2025-01-01 00:00 to 2025-01-02 00:00 UTC, 1 d: 0 messages."


@pytest.mark.parametrize(
    ("args", "says"),
    [(("--since", "soon"), "--since: "), (("--since", "2026-03-02", "--until", "2026-03-01"), "is not after --since")],
)
def test_a_wrong_time_is_an_error(story: Path, args: tuple[str, ...], says: str) -> None:
    result = run(story, *args)
    assert result.exit_code == 2
    assert says in result.stderr


def test_approvers_are_counted_only_if_the_settings_allow_it(story: Path) -> None:
    period = ("--since", "2026-03-01", "--until", "2026-03-08")
    refused = run(story, "approvers", *period)
    assert refused.exit_code == 2
    assert "it monitors employees" in refused.stderr
    with (story / "smtpguard.yaml").open("a") as settings:
        settings.write("\naudit: {approvers: true}\n")
    result = run(story, "approvers", *period, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "approver": "eva@example.com", "approved": 0, "rejected": 1, "share_approved": 0.0, "median_seconds": 720.0,
    }  # fmt: skip
    said = run(story, "approvers", *period).stdout
    assert "7 d: 1 vote." in said
    assert "12 min" in said
    assert run(story, "approvers", "--since", "2026-03-03", "--until", "2026-03-08", "--json").stdout == ""
    exported = running("audit", "export")(story).stdout
    assert exported.count('"what": "approvers"') == 3
