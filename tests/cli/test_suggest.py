"""report observe and report suggest over a store that only observed: output, written file, and journalled use of names."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from smtpguard.cli.suggest import NotEditable, diff, with_key
from smtpguard.config.documents import policy_documents
from tests.cli.installing import install, running
from tests.every import every
from tests.guard.house import DOCUMENTS, KEY, MEMBERS, POLICY, RAMADAN, FakePassage, house

SINCE = ("--since", "2026-03-01")
OBSERVING = POLICY.replace("enforce: true", "enforce: false")


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """An installation that observed the story, and two weeks of mail of a new system and of a list's writer."""
    install(tmp_path, KEY)
    (tmp_path / "vocabularies").mkdir()
    for name, data in DOCUMENTS.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "policy.yaml").write_text(OBSERVING)
    for name in ("ramadan", "news"):
        (tmp_path / f"{name}.csv").write_text("email\n" + "\n".join(MEMBERS))

    async def work() -> None:
        async with house(tmp_path, documents=policy_documents(tmp_path / "policy.yaml")) as home:
            intake = home.intake()
            await intake(home.transaction(RAMADAN, id="STORY"), FakePassage())
            for day in range(14):
                for n in range(6):
                    letter = home.transaction(
                        MEMBERS[day], id=f"L{day}x{n}", session={"client_ip": "10.9.9.9"}, From="billing@example.com", body=f"{day} {n}",
                        Message_ID=f"<{day}.{n}@example.com>", Subject="Your invoice",
                    )  # fmt: skip
                    await intake(letter, FakePassage())
                if day % 7 == 0:
                    mailing = home.transaction(
                        "news@lists.example.com", id=f"M{day}", From="campaigns@example.com", X_Looks="mailing",
                        Message_ID=f"<m{day}@example.com>", body=f"News {day}",
                    )  # fmt: skip
                    await intake(mailing, FakePassage())
                home.clock.pass_(hours=24)

    asyncio.run(work())
    return tmp_path


run = running()


def exported(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "guard.db")) as connection:
        found = connection.execute("SELECT body FROM entry WHERE kind = 'exported'").fetchall()
    return [json.loads(body)["data"]["what"] for (body,) in found]


def test_observe_reports_what_would_have_been_held(watched: Path) -> None:
    told = json.loads(run(watched, "report", "observe", *SINCE, "--until", "2026-03-16", "--json").stdout)
    assert told["messages"] == 87
    rules = {each["rule"]: each for each in told["rules"]}
    assert rules["internal-to-list"]["examples"][0]["message"] == "STORY"
    assert {each["rule"]: each["action"] for each in told["rules"]}["not-a-writer"] == "hold"
    assert told["decisions"] >= 1
    assert told["would"]["hold"] >= told["decisions"]
    assert exported(watched) == ["observe"]
    text = run(watched, "report", "observe", *SINCE).stdout
    assert "With enforce: true" in text
    assert "smtpguard suggest" in text


def test_without_names_no_person_is_named_and_nothing_journalled(watched: Path) -> None:
    said = run(watched, "report", "observe", *SINCE, "--no-names").stdout
    assert "@" not in said
    assert exported(watched) == []
    assert json.loads(run(watched, "report", "observe", *SINCE, "--no-names", "--json").stdout)["senders"] == []


def test_a_suggestion_is_a_valid_diff_of_the_policy(watched: Path) -> None:
    new = watched / "next.yaml"
    result = run(watched, "suggest", *SINCE, "--write", str(new))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("--- policy.yaml\n+++ policy.yaml, as suggested\n")
    said = yaml.safe_load(new.read_text())
    assert said["streams"]["billing"]["origin"] == {"clients": ["10.9.9.9"]}
    assert said["streams"]["receipts"]["owner"] == "eva@example.com", "the existing text stays"
    assert said["lists"]["news"]["writers"] == ["eva@example.com", "campaigns@example.com"]
    assert said["enforce"] is False
    assert exported(watched) == ["suggest"]
    assert run(watched, "check", str(new)).exit_code == 0
    again = run(watched, "suggest", *SINCE, "--write", str(new))
    assert again.exit_code == 2
    assert "is not overwritten" in again.stderr
    elsewhere = run(watched, "suggest", *SINCE, "--write", str(watched.parent / "other.yaml"))
    assert elsewhere.exit_code == 2
    assert "must be in the folder of the policy" in elsewhere.stderr


def test_a_suggestion_for_a_policy_that_holds_is_checked_with_the_story(watched: Path) -> None:
    (watched / "policy.yaml").write_text(POLICY)
    result = run(watched, "suggest", *SINCE, "--write", str(watched / "next.yaml"))
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((watched / "next.yaml").read_text())["enforce"] is True


def test_suggestions_as_json(watched: Path) -> None:
    rows = [json.loads(line) for line in run(watched, "suggest", *SINCE, "--json").stdout.splitlines()]
    assert {(".".join(row["path"]), row["key"]) for row in rows if "key" in row} >= {
        ("streams", "billing"),
        ("lists.news", "writers"),
    }
    assert all(row["reason"] for row in rows if "key" in row)


def test_without_observed_holds_there_are_no_suggestions(watched: Path) -> None:
    result = run(watched, "suggest", "--since", "1h")
    assert result.exit_code == 2
    assert "the journal has no verdict from that time" in result.stderr
    told = run(watched, "report", "observe", "--since", "1h").stdout
    assert "Nothing would have been held." in told
    assert run(watched, "report", "observe", "--since", "1h", "--until", "2h").exit_code == 2


ROOT = Path(__file__).parent.parent.parent
TEXT = """\
# mine
organization:
  name: Example AB   # ours
  domains: [example.com]
lists:
  news:
    # of the web shop
    addresses: [news@lists.example.com]
    writers:
      - eva@example.com
      - omar@example.com
  short: {addresses: [s@lists.example.com]}
streams: {}          # none yet
rules:
  - {id: one, when: {mailing.customers: ">= 20", message.looks: [internal]}, then: hold}
  - id: two
    when:
      mailing.customers: ">= 30"
    then: hold
"""


@every(
    ("path", "key", "value"),
    [
        (["organization"], "customers_here", False),
        (["organization"], "domains", ["example.com", "example.se"]),
        (["lists", "news"], "origin", {"dkim": "example.com"}),
        (["lists", "news"], "writers", ["a@example.com"]),
        (["lists", "short"], "writers", ["a@example.com", "b@example.com"]),
        (["streams"], "noreply", {"from": ["noreply@example.com"], "max": "3 in 1h"}),
        (["rules", 0, "when"], "mailing.customers", ">= 40"),
        (["rules", 1, "when"], "mailing.customers", ">= 60"),
        (["rules", 1], "mode", "observe"),
        (["groups"], "duty", ["x@example.com"]),
    ],
)
def test_only_the_key_changes(path: Sequence[str | int], key: str, value: Any) -> None:
    made = with_key(TEXT, path, key, value, "twelve of\nthem: yes")
    wanted = yaml.safe_load(TEXT)
    place = wanted
    for step in path:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    place[key] = value
    assert yaml.safe_load(made) == wanted
    assert "# twelve of them: yes" in made
    for comment in ("# mine", "# ours", "# of the web shop", "# none yet"):
        assert comment in made


def test_a_second_stream_is_added() -> None:
    made = with_key(
        with_key(TEXT, ["streams"], "a", {"max": "1 in 1h"}, "one"), ["streams"], "b", {"max": "2 in 1h"}, "two"
    )
    assert yaml.safe_load(made)["streams"] == {"a": {"max": "1 in 1h"}, "b": {"max": "2 in 1h"}}


def test_the_sample_policy_can_be_edited(tmp_path: Path) -> None:
    text = (ROOT / "config" / "policy.yaml").read_text()
    made = with_key(text, ["lists", "newsletter"], "writers", ["campaigns@example.com"], "why")
    made = with_key(made, ["streams"], "help-desk", {"from": ["help@example.com"]}, "why")
    assert yaml.safe_load(made)["lists"]["newsletter"]["writers"] == ["campaigns@example.com"]
    changed = diff(text, made, "policy.yaml").splitlines()
    assert [line for line in changed if line.startswith("-") and not line.startswith("---")] == [
        "-    writers: [campaigns@example.com, eva@example.com]"
    ]


@every("path", [["lists", "absent"], ["rules", 7, "when"], ["organization", "name"]])
def test_a_missing_place_is_an_error(path: Sequence[str | int]) -> None:
    with pytest.raises(NotEditable):
        with_key(TEXT, path, "key", 1, "why")


def test_a_value_with_comments_is_not_replaced() -> None:
    with pytest.raises(NotEditable, match="comments of its own"):
        with_key("lists:\n  a:\n    writers:\n      - x   # who\n      - y\n", ["lists", "a"], "writers", ["z"], "why")
