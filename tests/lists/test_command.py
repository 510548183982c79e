"""smtpguard lists: output and exit status."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpguard.app.start import prepare
from smtpguard.cli import main
from smtpguard.config.settings import read_settings
from tests.cli.installing import running
from tests.cli.stage import rows
from tests.program import Program

FROM = {"ramadan": ["ramadan.csv"]}
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


run = running("lists")


def test_sync_show_and_match(folder: Path) -> None:
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
        {"address": "RAMADAN+x@lists.example.com", "canonical": "ramadan@lists.example.com", "class": "list", "lists": ["ramadan"], "sources": {}},
        {"address": "a@kund.se", "canonical": "a@kund.se", "class": "member", "lists": ["ramadan"], "sources": FROM},
        {"address": "x@y.se", "canonical": "x@y.se", "class": "outside", "lists": [], "sources": {}},
        {"address": "eva@example.com", "canonical": "eva@example.com", "class": "member", "lists": ["ramadan"], "sources": FROM},
        {"address": "bo@example.com", "canonical": "bo@example.com", "class": "internal", "lists": [], "sources": {}},
    ]  # fmt: skip
    assert run(folder, "match", "a@kund.se").stdout == "a@kund.se: member (ramadan, by ramadan.csv)\n"
    (row, _) = rows(run(folder, "show", "--json"))
    assert (row["people"], row["state"], row["problem"]) == (4, "ready", None)


def test_a_failed_sync_exits_with_status_1(folder: Path) -> None:
    run(folder, "sync")
    (folder / "ramadan.csv").write_text("email\na@kund.se\nnobody\n")
    failed = run(folder, "sync", "--json")
    assert failed.exit_code == 1
    (row,) = rows(failed)
    assert (row["ok"], row["people"], row["bad_rows"]) == (False, 4, 1)
    assert row["first_bad"] == [{"unit": "line", "line": 3, "why": "not a mailbox: expected local-part@domain"}]
    failed = run(folder, "sync")
    assert "expects at least 3; the last good index stays in use" in failed.stderr
    assert "line 3: not a mailbox" in failed.stderr


def test_a_failed_sync_is_shown_until_one_succeeds(folder: Path) -> None:
    good = (folder / "ramadan.csv").read_text()
    assert run(folder, "sync").exit_code == 0
    (folder / "ramadan.csv").write_text("email\n")
    run(folder, "sync")
    shown = run(folder, "show")
    assert "ready, failing" in shown.stdout.splitlines()[1], "the last good index is in use"
    assert re.fullmatch(
        r"ramadan cannot be read since \d{4}-\d\d-\d\d \d\d:\d\d UTC: ramadan.csv has no members; "
        r"the last good index stays in use\.\n",
        shown.stderr,
    )
    (row, _) = rows(run(folder, "show", "--json"))
    assert "has no members" in str(row["failure"])
    (folder / "ramadan.csv").write_text(good)
    run(folder, "sync")
    assert run(folder, "show").stderr == ""


def test_a_sync_is_journalled_with_its_user(folder: Path) -> None:
    (folder / "smtpguard.yaml").write_text("policy: policy.yaml\nsecret_file: secret\nstate: state\n")
    assert run(folder, "sync").exit_code == 0
    assert not (folder / "var").exists(), "before the first start there is no store, and none is created"
    settings = read_settings(folder / "smtpguard.yaml")
    asyncio.run(prepare(settings, by="test", parts=()))
    assert run(folder, "sync").exit_code == 0  # nothing changed, so there is nothing to report
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
        (5, "ramadan.csv has no members; the last good index stays in use"),
    ]
    assert "kund.se" not in json.dumps(data)


def test_a_journal_that_cannot_be_written_is_reported(folder: Path) -> None:
    (folder / "var").mkdir()
    (folder / "var" / "smtpguard.db").write_text("no database")
    done = run(folder, "sync")
    assert done.exit_code == 0
    assert done.stderr.startswith("This could not be journalled: the store: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_an_index_match_is_uncertain(folder: Path) -> None:
    matched = run(folder, "match", "x@y.se")
    assert matched.stdout == "x@y.se: outside\n"
    assert matched.stderr == "Not certain: the list ramadan has no usable index: it was never synced.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "ramadn"], 'unknown list "ramadn" (did you mean ramadan?)'),
        (["sync", "bare"], "the list bare has no members to sync"),
        (["match", "nonsense"], '"nonsense" is no address: not a mailbox'),
        (["match"], "Missing argument"),
    ],
)
def test_wrong_use_exits_with_status_2(folder: Path, words: list[str], said: str) -> None:
    result = run(folder, *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def several(folder: Path) -> Path:
    """Three more lists: one of two sources with common members, one without common members, and one without an index."""
    policy = (folder / "policy.yaml").read_text()
    more = """\
  news:
    members: [{csv: news.csv}, {text: more.txt}]
  apart:
    members: {text: apart.txt}
  blind:
    members: {csv: missing.csv}
rules"""
    (folder / "policy.yaml").write_text(policy.replace("rules", more))
    (folder / "news.csv").write_text("email\na@kund.se\nb@kund.se\nn@kund.se\nnobody\n")
    (folder / "more.txt").write_text("b@kund.se\nm@kund.se\n# a comment\n?\n")
    (folder / "apart.txt").write_text("x@kund.se\n")
    assert run(folder, "sync").exit_code == 1
    return folder


def test_match_names_the_source_of_a_member(several: Path) -> None:
    matched = run(several, "match", "m@kund.se", "B@Kund.se.", "a+shop@kund.se", "x@kund.se")
    assert matched.stdout.splitlines() == [
        "m@kund.se: member (news, by more.txt)",
        "B@Kund.se.: member (ramadan, by ramadan.csv; news, by news.csv and more.txt)",
        "a+shop@kund.se: member (ramadan, by ramadan.csv; news, by news.csv)",
        "x@kund.se: member (apart, by apart.txt)",
    ]
    (row,) = rows(run(several, "match", "--json", "m@kund.se"))
    assert row["sources"] == {"news": ["more.txt"]}


def test_show_lists_each_source_and_its_bad_rows(several: Path) -> None:
    shown = run(several, "show", "news")
    assert [line.split()[-1] for line in shown.stdout.splitlines()] == ["SOURCE", "sources", "news.csv", "more.txt"]
    assert shown.stdout.splitlines()[2].split()[:6] == ["3", "0", "min", "ago", "well", "news.csv"]
    assert shown.stderr.splitlines() == [
        "news: 1 of 4 rows of news.csv hold no address.",
        "  line 5: not a mailbox: expected local-part@domain",
        "news: 1 of 3 rows of more.txt hold no address.",
        "  line 4: not a mailbox: expected local-part@domain",
    ]
    (row,) = rows(run(several, "show", "news", "--json"))
    assert (row["people"], row["rows"], row["bad_rows"]) == (4, 7, 2)
    assert [source["people"] for source in row["sources"]] == [3, 2]
    assert "missing.csv" in run(several, "show", "blind").stderr
    assert "did you mean news?" in run(several, "show", "newz").stderr


def test_overlap_counts_shared_addresses(several: Path) -> None:
    done = run(several, "overlap")
    assert done.exit_code == 1, "one list cannot be compared, which is reported"
    assert done.stdout.splitlines() == [
        "ramadan and news: 2 people on both (50% of ramadan, 50% of news)",
        "2 pairs of lists have no one in common",
    ]
    assert done.stderr == "smtpguard: not compared: the list blind has no usable index: it was never synced\n"
    assert run(several, "overlap", "ramadan", "apart").stdout == "1 pair of lists has no one in common\n"
    assert run(several, "overlap", "apart", "news", "ramadan").exit_code == 0
    one = run(several, "overlap", "apart")
    assert one.stdout == "2 pairs of lists have no one in common\n", "one list is compared with every other"
    (row,) = rows(run(several, "overlap", "news", "ramadan", "--json"))
    assert row == {"lists": ["news", "ramadan"], "both": 2, "people": [4, 4]}
    assert run(several, "overlap", "bare", "news").exit_code == 1
    wrong = run(several, "overlap", "newz")
    assert (wrong.exit_code, wrong.stderr) == (2, 'smtpguard: unknown list "newz" (did you mean news?)\n')


def test_overlap_of_one_list_says_so(folder: Path) -> None:
    run(folder, "sync")
    alone = run(folder, "overlap")
    assert (alone.exit_code, alone.stdout) == (0, "There are fewer than two lists to compare.\n")
    assert run(folder, "overlap", "--json").stdout == ""


def on_a_terminal(folder: Path, *words: str) -> tuple[str, str]:
    """Standard output, and what a person at the terminal sees besides."""
    leader, follower = os.openpty()
    with open(follower, "r+b", buffering=0) as terminal, (folder / "out").open("wb") as out:  # noqa: PTH123
        argv = ["-c", str(folder / "smtpguard.yaml"), "lists", "sync", *words]
        assert Program(argv, stdout=out, stderr=terminal).wait(120) == 0
        terminal.write(b"\0")  # behind all that was written to it, which comes in pieces
        seen = b""
        while not seen.endswith(b"\0"):
            seen += os.read(leader, 100_000)
    os.close(leader)
    return (folder / "out").read_text(), seen.removesuffix(b"\0").decode()


def test_at_a_terminal_a_progress_bar_is_shown(folder: Path) -> None:
    (folder / "ramadan.csv").write_text("email\n" + "".join(f"person{n}@kund.se\n" for n in range(9000)))
    said, seen = on_a_terminal(folder, "ramadan")
    assert said == "ramadan: 9,000 people from ramadan.csv\n"
    assert "ramadan  [" in seen
    assert "100%  9,000 rows" in seen
    said, seen = on_a_terminal(folder, "ramadan")
    assert said == "ramadan: 9,000 people from ramadan.csv, as before\n"
    assert seen.endswith("\x1b[1A\x1b[2K"), "an unchanged list leaves no bar"


def test_a_source_of_unknown_size_shows_rows(folder: Path) -> None:
    (folder / "policy.yaml").write_text(POLICY.replace("{csv: ramadan.csv,", "{aliases: aliases, name: all,"))
    (folder / "aliases").write_text("all: a@kund.se, b@kund.se, c@kund.se\n")
    _, seen = on_a_terminal(folder, "ramadan")
    last = seen.rpartition("\r\x1b[?25l")[2]
    assert "3 rows" in last
    assert "%" not in last


def test_a_source_that_cannot_be_opened_is_named(folder: Path) -> None:
    source = '{http: "https://crm.example.com/members?segment=vip", token_file: "$CREDENTIALS_DIRECTORY/token",'
    (folder / "policy.yaml").write_text(POLICY.replace("{csv: ramadan.csv,", source))
    assert run(folder, "sync").exit_code == 1
    shown = run(folder, "show")
    assert shown.stdout.splitlines()[1].endswith("missing, failing  https://crm.example.com/members")
    (said,) = shown.stderr.splitlines()
    assert said.startswith("ramadan cannot be read since ")
    assert (
        "CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with LoadCredential=; for a command set" in said
    )
    assert said.endswith("; no index is in use.")
