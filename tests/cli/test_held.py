"""held, freeze and thaw as people type them, over a real store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smtpguard.cli import held
from smtpguard.cli.context import Context
from smtpguard.cli.freeze import command as freeze_command
from smtpguard.cli.freeze import thaw as thaw_command
from smtpguard.cli.shown import tell
from smtpguard.guard.freezes import Freezes
from smtpguard.policy.approval import Hold, State
from tests.guard.house import MEMBERS, RAMADAN, Way, house

DUTY = {"from": ["duty"], "each": 1, "out_of_hours": None}


class Stage:
    """Commands against one store in ``tmp_path``; each opens it anew, as a real one does."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.hooks: tuple[tuple[str, ...], ...] = ()
        self.raw = b""

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Any]:
        async with house(self.tmp_path) as home:
            home.clock.pass_(minutes=5)
            yield SimpleNamespace(
                store=home.store,
                policies=home,
                approvals=home.approvals(),
                freezes=Freezes(home.store, home.clock, new_id=lambda: "F1", freeze_hook=self.hooks, recall_seconds=0),
                clock=home.clock,
                new_id=lambda: "X",
            )

    def hold(self, *to: str, **more: Any) -> None:
        async def work() -> None:
            async with house(self.tmp_path) as home:
                transaction = home.transaction(*(to or (RAMADAN,)), **more)
                self.raw = bytes(transaction.message.raw[:])
                await home.intake()(transaction, Way())

        asyncio.run(work())

    def run(self, command: Any, *args: str) -> Result:
        stage = self

        class Here(Context):
            @asynccontextmanager
            async def services(self) -> AsyncIterator[Any]:
                async with stage.services() as services:
                    yield services

        return CliRunner().invoke(command, args, obj=Here(config=Path("none")))

    def state(self) -> list[str]:
        return [r["state"] for r in rows(self.run(held.command, "list", "--json"))]


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


ID = "T000000000000001"


def test_list(stage: Stage) -> None:
    assert "Nothing is held" in stage.run(held.command, "list").output
    stage.hold()
    [row] = rows(stage.run(held.command, "list", "--json"))
    assert row == {
        "id": ID,
        "state": "waiting",
        "reverse_path": "anna@example.com",
        "recipients": [RAMADAN],
        "reach": 60,
        "reach_at_least": False,
        "lists": ["ramadan"],
        "subject": "SV: lunch",
        "rules": ["internal-to-list", "internal-to-many-customers", "not-a-writer"],
        "held_at": "2026-03-02T09:00:00Z",
        "expires_at": row["expires_at"],
        "mailing": row["mailing"],
        "copies": 0,
        "part_of": None,
        "test": False,
        "votes": [],
    }
    assert row["expires_at"].endswith("Z")
    text = stage.run(held.command, "list").output
    assert ID in text
    assert "anna@example.com" in text
    assert rows(stage.run(held.command, "list", "--json", "--state", "released")) == []
    assert stage.run(held.command, "list", "--state", "nonsense").exit_code == 2


def test_approve_needs_everybody(stage: Stage) -> None:
    stage.hold()
    first = stage.run(held.command, "approve", ID, "--as", "Eva@Example.com", "--comment", "fine")
    assert first.exit_code == 0
    assert first.output == (
        f"{ID}: the vote is counted. It needs 1 of communications and 1 of compliance, or out of hours 1 of duty, and has eva@example.com.\n"
    )
    assert stage.state() == ["waiting"]
    [row] = rows(stage.run(held.command, "approve", ID, "--as", "dpo@example.com", "--json"))
    assert row["state"] == "approved"
    assert row["missing"] == []
    assert [(v["approver"], v["choice"], v["comment"]) for v in row["votes"]] == [
        ("eva@example.com", "approve", "fine"),
        ("dpo@example.com", "approve", ""),
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("approve", ID, "--as", "anna@example.com"), "wrote it"),
        (("approve", ID, "--as", "stranger@example.com"), "not one of those"),
        (("approve", ID, "--as", "nobody"), "no address"),
        (("reject", ID, "--as", "stranger@example.com"), "not one of those"),
        (("withdraw", ID, "--as", "eva@example.com"), "did not write it"),
        (("approve", "T9", "--as", "eva@example.com"), "nothing is held as T9"),
        (("show", "T9"), "nothing is held as T9"),
        (("export", "T9"), "nothing is held as T9"),
    ],
)
def test_what_is_not_allowed_is_one_sentence_and_exit_1(stage: Stage, args: tuple[str, ...], says: str) -> None:
    stage.hold()
    result = stage.run(held.command, *args)
    assert result.exit_code == 1
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert stage.state() == ["waiting"]


def test_reject_and_withdraw(stage: Stage) -> None:
    stage.hold()
    assert "rejected" in stage.run(held.command, "reject", ID, "--as", "dpo@example.com").output
    assert stage.state() == ["rejected"]
    again = stage.run(held.command, "withdraw", ID, "--as", "anna@example.com")
    assert again.exit_code == 1
    assert "rejected already" in again.stderr


def test_withdraw(stage: Stage) -> None:
    stage.hold()
    assert "withdrawn" in stage.run(held.command, "withdraw", ID, "--as", "anna+x@example.com").output
    assert stage.state() == ["withdrawn"]


def test_show(stage: Stage) -> None:
    stage.hold(Subject="SV: \x1b[31mred")
    text = stage.run(held.command, "show", ID).output
    assert "internal-to-list: Mail between colleagues never goes to a customer list" in text
    assert "Waits for 1 of communications and 1 of compliance, or out of hours 1 of duty\n" in text
    assert text.rstrip().endswith("UTC  verdict hold")
    assert "\x1b" not in text
    [row] = rows(stage.run(held.command, "show", ID, "--json"))
    assert row["sender"] == "anna@example.com"
    assert row["missing"] == [{"from": ["communications", "compliance"], "each": 1, "out_of_hours": DUTY}]
    assert [e["what"] for e in row["history"]] == ["verdict"]
    assert row["reasons"][0]["rule"] == "internal-to-list"


def test_show_speaks_one_language(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The purpose of a rule in English, whichever language the organisation's writers are told it in; evidence line by line."""

    async def work() -> Hold:
        async with stage.services() as services:
            found = await services.store.hold(ID)
        assert isinstance(found, Hold)
        return found

    stage.hold()
    hold = asyncio.run(work())
    tell(hold, (), (), {"internal-to-list": "Never to a list"})
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Rule:     internal-to-list: Never to a list")
    assert lines[at + 1].startswith("          message.looks is ")
    assert lines[at + 2].startswith("            ")
    assert lines[at + 2].strip() not in lines[at + 3 :]


def test_content_is_shown_and_exported_as_it_came_and_that_is_journalled(stage: Stage, tmp_path: Path) -> None:
    stage.hold()
    assert stage.run(held.command, "show", ID, "--content").stdout_bytes == stage.raw
    assert stage.run(held.command, "export", ID).stdout_bytes == stage.raw
    file = tmp_path / "held.eml"
    assert stage.run(held.command, "export", ID, "-o", str(file)).exit_code == 0
    assert file.read_bytes() == stage.raw
    again = stage.run(held.command, "export", ID, "-o", str(file))
    assert (again.exit_code, again.stderr) == (2, f"smtpguard: {file}: is there already\n")
    [row] = rows(stage.run(held.command, "show", ID, "--json"))
    assert [e["what"] for e in row["history"]] == ["verdict", "viewed", "exported", "exported"]


def test_an_export_is_the_message_and_what_is_known_of_it(stage: Stage, tmp_path: Path) -> None:
    stage.hold()
    stage.run(held.command, "export", ID, "-o", str(tmp_path / "held.eml"))
    written = tmp_path / "held.json"
    known = json.loads(written.read_text())
    assert (known["id"], known["state"], known["recipients"]) == (ID, "waiting", ["ramadan@lists.example.com"])
    assert known["content_sha256"] == hashlib.sha256((tmp_path / "held.eml").read_bytes()).hexdigest()
    assert [e["what"] for e in known["history"]] == ["verdict", "exported"]
    assert {path.stat().st_mode & 0o077 for path in (written, tmp_path / "held.eml")} == {0}
    [row] = rows(stage.run(held.command, "export", ID, "--json"))
    assert base64.b64decode(row["content"]) == stage.raw


@pytest.mark.parametrize(
    ("name", "says"),
    [("none/held.eml", "there is no such folder"), ("held.json", "the message itself is no JSON; name it FILE.eml")],
)
def test_an_export_that_has_no_place_is_not_made(stage: Stage, tmp_path: Path, name: str, says: str) -> None:
    stage.hold()
    result = stage.run(held.command, "export", ID, "-o", str(tmp_path / name))
    assert (result.exit_code, result.stderr) == (2, f"smtpguard: {tmp_path / name}: {says}\n")
    [row] = rows(stage.run(held.command, "show", ID, "--json"))
    assert [e["what"] for e in row["history"]] == ["verdict"]


def test_freeze_and_thaw(stage: Stage) -> None:
    [row] = rows(stage.run(freeze_command, "--list", "ramadan", "--reason", "an incident", "--for", "2h", "--json"))
    assert row["id"] == "F1"
    assert (row["selector"], row["value"], row["reason"]) == ("list", "ramadan", "an incident")
    assert row["until"] == "2026-03-02T11:05:00Z"
    assert (row["recalled"], row["past_recall"], row["hooks"]) == (0, 0, [])
    wrong = stage.run(thaw_command, "--all")
    assert wrong.exit_code == 1
    assert "Frozen still: the list ramadan" in wrong.stderr
    assert "Lifted: the list ramadan" in stage.run(thaw_command, "--list", "ramadan").output
    assert stage.run(thaw_command, "--list", "ramadan").exit_code == 1


def test_freeze_holds_what_comes(stage: Stage) -> None:
    text = stage.run(freeze_command, "--sender", "Anna+lists@Example.com", "--reason", "her account is taken").output
    assert "Frozen: the sender anna@example.com, until it is thawed." in text
    stage.hold(MEMBERS[0])
    assert stage.state() == [State.WAITING.value]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--reason", "x"), "one of --all"),
        (("--all", "--list", "ramadan", "--reason", "x"), "one of --all"),
        (("--list", "ramadam", "--reason", "x"), "did you mean ramadan?"),
        (("--sender", "nobody", "--reason", "x"), "no address"),
        (("--all", "--reason", "x", "--for", "soon"), "--for"),
        (("--all",), "--reason"),
    ],
)
def test_a_wrong_freeze_freezes_nothing(stage: Stage, args: tuple[str, ...], says: str) -> None:
    result = stage.run(freeze_command, *args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert stage.run(thaw_command, "--all").exit_code == 1


def test_a_hook_that_fails_is_said_and_the_freeze_stands(stage: Stage) -> None:
    stage.hooks = (("/bin/sh", "-c", "exit 3"), ("/bin/sh", "-c", 'test "$SMTPGUARD_ACTION" = freeze'))
    result = stage.run(freeze_command, "--all", "--reason", "x")
    assert result.exit_code == 1
    assert "it ended with status 3" in result.stderr
    assert result.stderr.count("hook") == 1
    assert stage.run(thaw_command, "--all").exit_code == 0
