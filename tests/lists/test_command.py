"""smtpguard lists, as people type it: what is printed, and the exit status."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smtpguard.app.files import read_settings
from smtpguard.app.start import prepare
from smtpguard.cli import main

POLICY = """\
organization: {name: Example AB, domains: [example.com]}
groups: {communications: [eva@example.com]}
approvals: {from: [communications]}
lists:
  ramadan:
    title: Ramadan greetings
    addresses: [ramadan@lists.example.com]
    members: {csv: ramadan.csv, at_least: 3}
  bare:
    addresses: [bare@lists.example.com]
rules: []
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "smtpguard.yaml").write_text("policy: policy.yaml\n")
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "ramadan.csv").write_text("email\na@kund.se\nb@kund.se\nc@kund.se\neva@example.com\n")
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(folder / "smtpguard.yaml"), "lists", *words])


def rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_sync_show_match(folder: Path) -> None:
    assert "missing" in run(folder, "show").stdout
    done = run(folder, "sync")
    assert (done.exit_code, done.stdout) == (0, "ramadan: 4 people from ramadan.csv\n")
    assert run(folder, "sync", "ramadan").stdout == "ramadan: 4 people from ramadan.csv, as before\n"
    shown = run(folder, "show").stdout.splitlines()
    assert shown[0].split() == ["LIST", "PEOPLE", "READ", "STATE", "SOURCE"]
    assert shown[1].split() == ["ramadan", "4", "0", "min", "ago", "ready", "ramadan.csv"]
    assert shown[2].split() == ["bare", "?", "never", "unlisted", "-"]
    matched = run(
        folder,
        "match",
        "--json",
        "RAMADAN+x@lists.example.com",
        "a@kund.se",
        "x@y.se",
        "eva@example.com",
        "bo@example.com",
    )
    assert matched.exit_code == 0
    assert rows(matched) == [
        {"address": "RAMADAN+x@lists.example.com", "canonical": "ramadan@lists.example.com", "class": "list", "lists": ["ramadan"]},
        {"address": "a@kund.se", "canonical": "a@kund.se", "class": "member", "lists": ["ramadan"]},
        {"address": "x@y.se", "canonical": "x@y.se", "class": "outside", "lists": []},
        {"address": "eva@example.com", "canonical": "eva@example.com", "class": "member", "lists": ["ramadan"]},
        {"address": "bo@example.com", "canonical": "bo@example.com", "class": "internal", "lists": []},
    ]  # fmt: skip
    assert run(folder, "match", "a@kund.se").stdout == "a@kund.se: member (ramadan)\n"
    (row, _) = rows(run(folder, "show", "--json"))
    assert (row["people"], row["state"], row["problem"]) == (4, "ready", None)


def test_a_failed_sync_is_told_and_exits_1(folder: Path) -> None:
    run(folder, "sync")
    (folder / "ramadan.csv").write_text("email\na@kund.se\nnobody\n")
    failed = run(folder, "sync", "--json")
    assert failed.exit_code == 1
    (row,) = rows(failed)
    assert (row["ok"], row["people"], row["bad_rows"]) == (False, 4, 1)
    assert row["first_bad"] == [{"line": 3, "why": "not a mailbox: expected local-part@domain"}]
    failed = run(folder, "sync")
    assert "expects at least 3; the last good index stays in use" in failed.stderr
    assert "line 3: not a mailbox" in failed.stderr


def test_a_failed_sync_is_shown_until_one_succeeds(folder: Path) -> None:
    good = (folder / "ramadan.csv").read_text()
    assert run(folder, "sync").exit_code == 0
    (folder / "ramadan.csv").write_text("email\n")
    run(folder, "sync")
    shown = run(folder, "show")
    assert shown.stdout.splitlines()[1].split()[-2] == "ready", "the last good index is in use"
    assert shown.stderr == (
        "The latest sync of ramadan failed: ramadan.csv holds nobody; the last good index stays in use\n"
    )
    (row, _) = rows(run(folder, "show", "--json"))
    assert "holds nobody" in str(row["failure"])
    (folder / "ramadan.csv").write_text(good)
    run(folder, "sync")
    assert run(folder, "show").stderr == ""


def test_a_sync_is_journalled_with_who_asked_for_it(folder: Path) -> None:
    (folder / "smtpguard.yaml").write_text("policy: policy.yaml\nsecret_file: secret\nstate: state\n")
    assert run(folder, "sync").exit_code == 0
    assert not (folder / "var").exists(), "before the first start there is no store, and none is made"
    settings = read_settings(folder / "smtpguard.yaml")
    asyncio.run(prepare(settings, by="test", parts=()))
    assert run(folder, "sync").exit_code == 0  # nothing has changed: nothing to tell
    with (folder / "ramadan.csv").open("a") as file:
        file.write("d@kund.se\n")
    run(folder, "sync")
    (folder / "ramadan.csv").write_text("email\n")
    assert run(folder, "sync").exit_code == 1
    done = CliRunner().invoke(
        main, ["-c", str(folder / "smtpguard.yaml"), "audit", "export", "--id", "ramadan", "--clear"]
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    data = [row["data"] for row in told if row["kind"] == "list"]
    assert [(d["people"], d["problem"]) for d in data] == [
        (5, None),
        (5, "ramadan.csv holds nobody; the last good index stays in use"),
    ]
    assert "kund.se" not in json.dumps(data)


def test_a_journal_that_cannot_be_written_is_said(folder: Path) -> None:
    (folder / "var").mkdir()
    (folder / "var" / "smtpguard.db").write_text("no database")
    done = run(folder, "sync")
    assert done.exit_code == 0
    assert done.stderr.startswith("This is not in the journal: the store: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_an_index_match_says_that_it_is_not_certain(folder: Path) -> None:
    matched = run(folder, "match", "x@y.se")
    assert matched.stdout == "x@y.se: outside\n"
    assert matched.stderr == "Not certain: the list ramadan has no usable index: it was never synced.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "ramadn"], 'no list is called "ramadn" (did you mean ramadan?)'),
        (["sync", "bare"], "the list bare declares no members to sync"),
        (["match", "nonsense"], "nonsense: not a mailbox"),
        (["match"], "Missing argument"),
    ],
)
def test_wrong_use_exits_2(folder: Path, words: list[str], said: str) -> None:
    result = run(folder, *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
