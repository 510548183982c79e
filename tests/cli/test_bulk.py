"""held approve and reject on several messages: the selection, the confirmed number, and the outcome of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpguard.cli import held
from smtpguard.holds.model import Hold
from tests.cli.stage import DPO, EVA, Stage, rows
from tests.every import every
from tests.guard.house import RAMADAN

NEWS = "news@lists.example.com"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage with two holds of one mailing to one list, and one of another sender to another list."""
    stage = Stage(tmp_path)
    stage.hold(RAMADAN, id="A1", body="Bacon")
    stage.hold(RAMADAN, id="A2", body="Liquor and pork chops", Message_ID="<2@example.com>")
    stage.hold(NEWS, id="B1", body="Lunch at the harbour today", Message_ID="<3@example.com>", From="bo@example.com",
               reverse_path="bo@example.com")  # fmt: skip
    return stage


def states(stage: Stage) -> dict[str, str]:
    return {row["id"]: row["state"] for row in stage.rows(held.command, "list")}


def test_held_list_takes_the_same_filters(stage: Stage) -> None:
    def listed(*words: str) -> set[str]:
        return {row["id"] for row in stage.rows(held.command, "list", *words)}

    assert listed("--list", "ramadan") == {"A1", "A2"}
    assert listed("--sender", "BO@example.com") == {"B1"}
    assert listed("--sender", "anna@example.com") == {"A1", "A2"}
    assert listed("--rule", "not-a-writer", "--list", "news") == {"B1"}
    assert listed("--rule", "no-such-rule") == set()
    assert listed("--since", "1h") == {"A1", "A2", "B1"}
    assert listed("--since", "1m") == set()
    assert listed("--since", "2026-03-02T09:00") == {"A1", "A2", "B1"}
    assert listed("--since", "2026-03-02T09:01") == set()
    mailing = next(row["mailing"] for row in stage.rows(held.command, "list") if row["id"] == "A2")
    assert listed("--mailing", mailing[:8].lower()) == {"A2"}


@every(
    ("words", "says"),
    [
        (("--list", "ramadam"), 'unknown list "ramadam" (did you mean ramadan?)'),
        (("--sender", "nobody"), '--sender: "nobody" is no address'),
        (("--since", "yesterday"), '--since: invalid time "yesterday"'),
    ],
)
def test_an_invalid_filter_is_refused(stage: Stage, words: tuple[str, str], says: str) -> None:
    result = stage.run(held.command, "reject", *words, "--as", EVA, "--count", "1")
    assert result.exit_code == 2
    assert says in result.output
    assert set(states(stage).values()) == {"waiting"}


def test_a_filter_with_the_right_count_decides(stage: Stage) -> None:
    told = stage.rows(held.command, "reject", "--list", "ramadan", "--as", EVA, "--count", "2")
    assert {row["id"]: row["state"] for row in told} == {"A1": "rejected", "A2": "rejected"}
    assert states(stage) == {"A1": "rejected", "A2": "rejected", "B1": "waiting"}


@every("count", [(), ("--count", "1"), ("--count", "3")])
def test_a_wrong_or_missing_count_decides_nothing(stage: Stage, count: tuple[str, ...]) -> None:
    for which in (("--list", "ramadan"), ("A1", "A2")):
        result = stage.run(held.command, "reject", *which, "--as", EVA, *count)
        assert result.exit_code == 2
        assert "nothing was decided" in result.output
    assert set(states(stage).values()) == {"waiting"}
    result = stage.run(held.command, "reject", "--list", "ramadan", "--as", EVA)
    assert "This rejects 2 held messages for 120 people. To agree: --count 2" in result.output


def test_at_a_terminal_the_count_is_typed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "terminal", lambda: True)
    typed = ["1", "2"]
    asked = []

    def prompt(text: str, **_: Any) -> str:
        asked.append(text)
        return typed.pop(0)

    monkeypatch.setattr("smtpguard.cli.held.click.prompt", prompt)
    result = stage.run(held.command, "reject", "A1", "A2", "--as", EVA)
    assert result.exit_code == 2
    assert set(states(stage).values()) == {"waiting"}
    assert "A1" in result.output, "the selection is shown first"
    assert stage.run(held.command, "reject", "A1", "A2", "--as", EVA).exit_code == 0
    assert asked == ["This rejects 2 held messages for 120 people. Type 2"] * 2
    assert states(stage) == {"A1": "rejected", "A2": "rejected", "B1": "waiting"}


def test_the_outcome_of_each_message_is_printed(stage: Stage) -> None:
    """The status is 1 if any fails, and the others are decided."""
    stage.run(held.command, "reject", "A1", "--as", EVA)
    result = stage.run(held.command, "approve", "A1", "A2", "NONE", "A2", "--as", DPO, "--count", "2", "--json")
    assert result.exit_code == 1
    told = {row["id"]: row for row in rows(result)}
    assert told.keys() == {"A1", "A2", "NONE"}
    assert told["A1"]["problem"].startswith("it is already rejected")
    assert told["NONE"]["problem"] == "there is no hold NONE"
    assert told["A2"]["state"] == "waiting"
    assert [vote["approver"] for vote in told["A2"]["votes"]] == [DPO]


def test_a_person_who_may_not_decide_gets_an_error_for_each(stage: Stage) -> None:
    result = stage.run(held.command, "approve", "--list", "ramadan", "--as", "anna@example.com", "--count", "2")
    assert result.exit_code == 1
    assert {line.partition(":")[0] for line in result.output.splitlines()} == {"A1", "A2"}


def test_a_copy_stands_for_its_primary_hold(stage: Stage) -> None:
    stage.hold(RAMADAN, id="COPY", body="Bacon", reverse_path="bounce+2@example.com")
    told = stage.rows(held.command, "reject", "COPY", "A1", "--as", EVA, "--count", "1")
    assert [row["id"] for row in told] == ["A1"]


def test_a_hold_that_changed_since_is_not_decided(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decision is bound to the content that was listed; here it has been replaced since."""
    from dataclasses import replace

    looked = held.select_holds

    async def meant(*given: Any) -> tuple[list[Hold], list[str]]:
        found, missing = await looked(*given)
        return [replace(hold, content_sha256="0" * 64) for hold in found], missing

    monkeypatch.setattr(held, "select_holds", meant)
    result = stage.run(held.command, "reject", "A1", "A2", "--as", EVA, "--count", "2")
    assert result.exit_code == 1
    assert set(states(stage).values()) == {"waiting"}


@every("which", [(), ("A1", "--list", "ramadan")])
def test_either_ids_or_a_filter_must_be_given(stage: Stage, which: tuple[str, ...]) -> None:
    result = stage.run(held.command, "reject", *which, "--as", EVA)
    assert result.exit_code == 2
    assert "give ids, or one of --list" in result.output


def test_a_filter_without_a_match_is_an_error(stage: Stage) -> None:
    result = stage.run(held.command, "reject", "--rule", "no-such-rule", "--as", EVA, "--count", "0")
    assert result.exit_code == 1
    assert "no waiting message matches" in result.output
