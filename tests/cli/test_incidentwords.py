"""incident aware, write, authority and draft."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.installing import prepared_installation, running
from tests.cli.test_incident import HOLD, page, story
from tests.guard.house import DOCUMENTS, RAMADAN, House

run = running("incident")

__all__ = ["story"]


def form(story: Path) -> dict[str, Any]:
    result = run(story, "authority", HOLD, "--json")
    made: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == any(row["to_be_written"] for row in made["fields"])
    return made


def test_the_form_has_the_fields_of_the_law_in_order(story: Path) -> None:
    made = form(story)
    assert [(row["field"], row["article"], row["to_be_written"]) for row in made["fields"]] == [
        ("nature", "GDPR Art. 33(3)(a)", False),
        ("subjects", "GDPR Art. 33(3)(a)", False),
        ("records", "GDPR Art. 33(3)(a)", False),
        ("contact", "GDPR Art. 33(3)(b)", True),
        ("consequences", "GDPR Art. 33(3)(c)", True),
        ("measures", "GDPR Art. 33(3)(d)", False),
    ]
    assert made["aware"] is None
    assert made["special_categories"] == ["GDPR Art. 9: the list Ramadan greetings (religion: special category)"]
    assert any("It was stopped on arrival" in one["text"] for one in made["fields"][5]["facts"])
    assert made["fields"][5]["facts"][1]["text"] == f"Monday 2 March 2026 at 09:05 (UTC): {HOLD}  Rejected"
    assert all(one["entries"] for row in made["fields"] for one in row["facts"] if one["mark"] == "fact")


def test_statements_of_people_are_journalled_and_the_last_counts(story: Path) -> None:
    for text in ("dpo", "The DPO: dpo@example.com, +46 8 000 000"):
        assert run(story, "write", HOLD, "contact", "--text", text).exit_code == 0
    assert run(story, "write", HOLD.lower(), "consequences", input="Nobody got it.\n").exit_code == 0
    said = run(story, "aware", HOLD, "2026-03-02 10:00", "--json")
    assert json.loads(said.stdout)["due"].startswith("2026-03-05T10:00:00")
    made = form(story)
    by_field = {row["field"]: row["written"] for row in made["fields"]}
    assert by_field["contact"]["text"] == "The DPO: dpo@example.com, +46 8 000 000"
    assert by_field["consequences"]["text"] == "Nobody got it."
    assert by_field["delay"] is None, "the 72 hours are over, so reasons are asked for"
    assert (made["over"], made["aware"]["since"]) == (True, "2026-03-02T10:00:00Z")
    plain = run(story, "authority", HOLD, "--language", "sv").stdout
    assert "KONTAKTUPPGIFTER (GDPR Art. 33(3)(b))" in plain
    assert "ATT SKRIVA: smtpguard incident write" in plain
    assert re.search(r"skrivet av \S+, \w+dag \d+ \w+ \d{4} kl\. \d\d:\d\d \(UTC\)\n", plain), plain
    exported = running("audit", "export")(story).stdout.splitlines()
    told = [row for row in map(json.loads, exported) if row["kind"] == "incident"]
    assert [row["data"]["change"] for row in told] == ["written", "written", "written", "aware"]
    assert all("dpo" not in json.dumps(row["data"]) for row in told)
    assert HOLD in run(story, "holds").stdout, "data of a notified incident is preserved"
    unnamed = run(story, "authority", HOLD, "--no-names", "--json")
    assert json.loads(unnamed.stdout)["aware"]["by"] is None
    assert "the 72 hours end at 2026-03-05 10:00:00 UTC" in page(story, HOLD)


def test_wrong_use_is_an_error(story: Path) -> None:
    for args, status, words in (
        (("aware", HOLD, "tomorrow"), 2, 'TIME: invalid time "tomorrow"'),
        (("aware", HOLD, "2999-01-01"), 2, "TIME: that time is still to come"),
        (("aware", "nobody", "2h"), 1, "nothing has the name nobody"),
        (("write", HOLD, "contact", "--text", " "), 2, "nothing is written"),
    ):
        result = run(story, *args)
        assert (result.exit_code, words in result.stderr) == (status, True), result.stderr


def test_drafts_are_printed(story: Path) -> None:
    text = run(story, "draft", HOLD, "--to", "customers").stdout
    assert "No message of this has gone out from us." in text
    assert "[Whom to ask, and how: to be written]" in text
    assert "anna" not in text
    made = json.loads(run(story, "draft", HOLD, "--to", "staff", "--language", "sv", "--json").stdout)
    assert "Det hölls kvar genast när det kom." in made["text"]


def test_acknowledging_an_alarm_is_journalled(story: Path) -> None:
    assert run(story, "ack").stdout == "No alarm stands.\n"
    assert "no alarm is called frozen; there are: none" in run(story, "ack", "frozen").stderr
    at = "2026-03-02T09:00:00+00:00"
    stands = [
        {"key": key, "began": at, "told": at, "claimed_until": None}
        for key in ("relay-away", "store-away", "list-stale news")
    ]
    (story / "state").mkdir(exist_ok=True)
    [folder] = {path.parent for path in story.rglob("*") if path.name == "checkpoints"} or {story / "state"}
    (folder / "alarms.json").write_text(json.dumps(stands))
    assert (
        "relay-away: the relay cannot be used, since 2026-03-02 09:00 UTC; nobody has taken it"
        in run(story, "ack").stdout
    )
    assert "; taken by " in run(story, "ack", "relay").stdout
    assert "list-stale news: the list news is stale, since" in run(story, "ack", "list-stale\nnews").stdout
    rows = {row["alarm"]: row["taken_by"] for row in map(json.loads, run(story, "ack", "--json").stdout.splitlines())}
    assert (bool(rows["relay-away"]), rows["store-away"]) == (True, None)
    exported = running("audit", "export")(story).stdout.splitlines()
    told = [row["id"] for row in map(json.loads, exported) if row["kind"] == "taken"]
    assert told == ["relay-away", "list-stale news"]


ID = "T000000000000001"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    async def happens(home: House) -> None:
        await home.send(RAMADAN)

    return prepared_installation(tmp_path, happens)


def test_holds_lists_what_is_kept_and_until_when(prepared: Path) -> None:
    assert run(prepared, "holds").stdout == "Nothing is kept beyond its retention.\n"
    result = run(prepared, "hold", ID, "--reason", "a lawsuit")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{ID}: all its data is kept until ")
    assert re.search(r" UTC, asked for by \S+: a lawsuit\n$", run(prepared, "holds").stdout)
    made = json.loads(run(prepared, "holds", "--json").stdout)
    assert (made["id"], made["reason"], made["renewal_asked_by"]) == (ID, "a lawsuit", None)
    asked = run(prepared, "renew", ID, "--as", "Eva@Example.com")
    assert (asked.exit_code, "eva@example.com asked to keep it longer" in asked.stdout) == (0, True)
    assert json.loads(run(prepared, "holds", "--json").stdout)["until"] == made["until"]
    assert run(prepared, "renew", ID, "--as", "dpo@example.com").exit_code == 0
    longer = json.loads(run(prepared, "holds", "--json").stdout)
    assert (longer["until"] > made["until"], longer["renewal_asked_by"]) == (True, None)


def test_nobody_agrees_with_themselves_from_an_alias(tmp_path: Path) -> None:
    policy = DOCUMENTS["policy.yaml"].replace(
        b"{zone: UTC}}", b"{zone: UTC}, aliases: {eva@example.com: [dpo@example.com]}}"
    )

    async def happens(home: House) -> None:
        await home.put({**DOCUMENTS, "policy.yaml": policy})
        await home.send(RAMADAN)

    prepared = prepared_installation(tmp_path, happens)
    run(prepared, "hold", ID)
    for person, agrees in (("eva@example.com", False), ("dpo@example.com", False), ("omar@example.com", True)):
        result = run(prepared, "renew", ID, "--as", person)
        assert (result.exit_code, "asked to keep it longer" in result.stdout) == (0, not agrees)


def test_unauthorized_or_unknown_holds_are_refused(prepared: Path) -> None:
    result = run(prepared, "hold", "X")
    assert (result.exit_code, "the journal has nothing of X" in result.stderr) == (1, True)
    result = run(prepared, "renew", ID, "--as", "eva@example.com")
    assert (result.exit_code, "is not kept beyond its retention" in result.stderr) == (1, True)
    run(prepared, "hold", ID)
    result = run(prepared, "renew", ID, "--as", "mallory@example.com")
    assert (result.exit_code, "is in no group of the policy in force" in result.stderr) == (1, True)
