"""privacy show and privacy erase."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cli.installing import install, running
from tests.guard.house import KEY, MEMBERS, house
from tests.store.test_privacy import ANNA, story

run = running()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            await story(home)

    asyncio.run(work())
    return tmp_path


def test_a_persons_data_is_shown_and_erased(prepared: Path) -> None:
    shown = run(prepared, "privacy", "show", MEMBERS[0])
    assert shown.exit_code == 0, shown.output
    for line in (
        "2 entries of the journal name them:",
        "1 held message:",
        "2 mailings:",
        "2 verdicts have their keyed digest",
    ):
        assert line in shown.stdout, shown.stdout
    asked = run(prepared, "privacy", "erase", MEMBERS[0])
    assert asked.exit_code != 0, "not confirmed"
    done = run(prepared, "privacy", "erase", MEMBERS[0], "--yes")
    assert done.exit_code == 0, done.output
    assert "Erased: values in the journal: 3, in entries: 2; holds: 1; digests in mailings: " in done.stdout
    rows = [json.loads(line) for line in run(prepared, "privacy", "show", MEMBERS[0], "--json").stdout.splitlines()]
    assert [row["what"] for row in rows] == ["digest", "list"], "the list's source still has it"
    verified = run(prepared, "audit", "verify")
    assert (verified.exit_code, "The journal is whole" in verified.stdout) == (0, True), verified.output
    journal = run(prepared, "audit", "export", "--clear").stdout
    assert MEMBERS[0] not in journal
    assert run(prepared, "privacy", "show", "nobody").exit_code == 2


def test_a_clock_that_may_be_wrong_ends_no_rejection(prepared: Path) -> None:
    """The journal is months old."""
    done = run(prepared, "privacy", "erase", ANNA, "--yes")
    assert "decision on the mailing" in done.stdout, done.output
