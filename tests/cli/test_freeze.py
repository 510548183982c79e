"""freeze and thaw of everything, a list, a sender, a mailing or a conversation; and the hooks."""

from __future__ import annotations

import asyncio
import itertools
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smtpguard.app.services import opened
from smtpguard.app.start import prepare
from smtpguard.cli import main
from smtpguard.cli.freeze import command as freeze
from smtpguard.cli.freeze import thaw
from smtpguard.cli.held import command as held
from smtpguard.cli.mailings import command as mailings
from smtpguard.config.documents import shipped
from smtpguard.config.settings import read_settings
from smtpguard.database.errors import CommitUnknown, Full
from smtpguard.holds.model import State
from tests import program
from tests.cli.stage import Stage
from tests.every import every
from tests.faults.machine import ANNA, Machine, synced
from tests.faults.mta import Mta
from tests.guard.house import DOCUMENTS, MEMBERS, RAMADAN
from tests.peers.chain import Recorder
from tests.peers.letters import mail
from tests.program import Program


def test_freeze_and_thaw(stage: Stage) -> None:
    [row] = stage.rows(freeze, "--list", "ramadan", "--reason", "an incident", "--for", "2h")
    assert row["id"] == "F1"
    assert (row["selector"], row["value"], row["reason"]) == ("list", "ramadan", "an incident")
    assert row["until"] == "2026-03-02T11:05:00Z"
    assert (row["recalled"], row["past_recall"], row["hooks"]) == (0, 0, [])
    wrong = stage.run(thaw, "--all")
    assert wrong.exit_code == 1
    assert "Still frozen: the list ramadan" in wrong.stderr
    assert "nothing is frozen with exactly this selection" in wrong.stderr
    assert "Lifted: the list ramadan" in stage.run(thaw, "--list", "ramadan").output
    wrong = stage.run(thaw, "--all")
    assert (wrong.exit_code, wrong.stderr.splitlines()[-1]) == (1, "smtpguard: nothing is frozen")


def test_a_reason_cannot_control_a_terminal(stage: Stage) -> None:
    stage.rows(freeze, "--list", "ramadan", "--reason", "\x1b[2J\u202eall\u009b1m\nis well")
    said = stage.run(thaw, "--all").stderr
    assert "09:05 UTC: \ufffd[2J\ufffdall\ufffd1m is well)\n" in said


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Full("no space left for guard.db"), "NOTHING IS FROZEN: the store: no space left for guard.db."),
        (
            PermissionError(13, "Permission denied", "guard.db.lock"),
            "NOTHING IS FROZEN: guard.db.lock: Permission denied",
        ),
        (CommitUnknown("no answer"), "It is not known whether it is frozen: the store: no answer;"),
    ],
)
def test_a_freeze_that_is_none_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("smtpguard.freezes.service.Freezes.freeze", fails)
    failed = stage.run(freeze, "--all", "--reason", "x")
    assert (failed.exit_code, says in failed.stderr) == (2, True), failed.stderr
    assert "Stop the mail server itself." in failed.stderr


def test_a_freeze_of_another_version_than_the_database_names_the_ways_to_stop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smtpguard.database.migrate.SCHEMA", "9999")
    failed = stage.run(freeze, "--all", "--reason", "x")
    assert failed.exit_code == 2
    for words in (
        "NOTHING IS FROZEN: the store: the database has schema",
        "Freeze on the console's page",
        "stop the mail server itself.",
    ):
        assert words in failed.stderr, failed.stderr


def test_a_freeze_holds_new_mail(stage: Stage) -> None:
    text = stage.run(freeze, "--sender", "Anna+lists@Example.com", "--reason", "her account is taken").output
    assert "Frozen: the sender anna@example.com, until it is thawed." in text
    stage.hold(MEMBERS[0])
    assert stage.state() == [State.WAITING.value]


@every(
    ("args", "says"),
    [
        (("--reason", "x"), "one of --all"),
        (("--all", "--list", "ramadan", "--reason", "x"), "one of --all"),
        (("--list", "ramadam", "--reason", "x"), "did you mean ramadan?"),
        (("--sender", "nobody", "--reason", "x"), "no address"),
        (("--all", "--reason", "x", "--for", "soon"), "--for"),
        (("--all",), "--reason"),
        (("--all", "--reason", " "), "give a reason"),
    ],
)
def test_an_invalid_freeze_freezes_nothing(stage: Stage, args: tuple[str, ...], says: str) -> None:
    result = stage.run(freeze, *args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert stage.run(thaw, "--all").exit_code == 1


def test_errors_elsewhere_in_the_settings_stop_neither_command(tmp_path: Path) -> None:
    """freeze works with errors in other settings, since it is used in an emergency."""
    with Recorder() as recorder:
        guard = Machine(tmp_path / "guard", recorder.port)
        synced(guard)
        with guard:
            fine = guard.config.read_text()
            for wrong in ("loging: {format: json}\n", "console: {address: [\n", "workers: many\n"):
                guard.config.write_text(fine + wrong)
                said = guard.run("freeze", "--all", "--reason", "Wrong mail", exits=0)
                assert said.stdout.startswith("Frozen: everything")
                assert f"{guard.config}:" in said.stderr
                assert "the settings have errors" in said.stderr
                assert (
                    "Held"
                    in Mta(guard)
                    .once(mail(to="peter@partner.example", message_id=wrong[:6]), ANNA, "peter@partner.example")
                    .text
                )
                assert guard.run("thaw", "--all", exits=0).stdout.startswith("Lifted: everything")
            guard.config.write_text(fine.replace("store:", "stroe:"))
            assert "stroe" in guard.run("freeze", "--all", "--reason", "Wrong mail", exits=2).stderr
            guard.config.write_text(fine + "freeze: {thaw: too}\n")
            guard.run("freeze", "--all", "--reason", "Wrong mail", exits=0)
            assert "too" in guard.run("thaw", "--all", exits=2).stderr, (
                "otherwise one person could lift a freeze that needs two"
            )
            guard.config.write_text(fine)
            guard.run("thaw", "--all")


def test_a_failing_hook_is_reported_and_the_freeze_stays(stage: Stage) -> None:
    stage.hooks = (("/bin/sh", "-c", "exit 3"), ("/bin/sh", "-c", 'test "$SMTPGUARD_ACTION" = freeze'))
    result = stage.run(freeze, "--all", "--reason", "x")
    assert result.exit_code == 1
    assert "it ended with status 3" in result.stderr
    assert result.stderr.count("hook") == 1
    assert stage.run(thaw, "--all").exit_code == 0


def test_a_mailing_is_frozen_by_the_beginning_of_its_id(campaign: Stage) -> None:
    campaign.send(*MEMBERS[:3])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    [frozen] = campaign.rows(freeze, "--mailing", row["id"][:8], "--reason", "oh")
    assert frozen["value"] == row["id"]
    campaign.send(MEMBERS[3], n=3)
    assert campaign.rows(mailings, "show", row["id"])[0]["held"] == 1
    assert "Lifted" in campaign.run(thaw, "--mailing", row["id"][:8]).output
    wrong = campaign.run(freeze, "--mailing", "NOTHING", "--reason", "oh")
    assert (wrong.exit_code, wrong.output) == (2, "smtpguard: --mailing: there is no mailing NOTHING\n")


def test_a_conversation_is_frozen_by_message_id_or_hold(campaign: Stage) -> None:
    def value(*args: str) -> str:
        [frozen] = campaign.rows(freeze, *args, "--reason", "oh")
        campaign.run(thaw, *args)
        return str(frozen["value"])

    assert value("--thread", "root@example.com") == "<root@example.com>"
    assert value("--thread", "<root@example.com>") == "<root@example.com>"
    campaign.send(RAMADAN, References="<first@example.com>", X_Looks="internal")
    assert value("--thread", "t000000000000000") == "<first@example.com>"
    campaign.send(RAMADAN, n=1, Message_ID="<alone@example.com>", X_Looks="internal", X_Mailing="alone")
    [alone] = [h for h in campaign.ask(lambda store: store.holds.newest()) if h.message_id == "<alone@example.com>"]
    assert value("--thread", alone.hold_id) == "<alone@example.com>", "it begins the conversation"


@every(
    ("command", "selector", "value"),
    itertools.product([(freeze, "--reason", "oh"), (thaw,)], ["--mailing", "--thread"], ["", " ", "01NOTHERE", "<>"]),
)
def test_an_unknown_value_is_not_frozen(campaign: Stage, command: tuple[Any, ...], selector: str, value: str) -> None:
    done = campaign.run(command[0], selector, value, *command[1:])
    assert (done.exit_code, value in done.output) == (2, True)
    assert "Frozen" not in done.output


def test_a_list_that_has_a_file_of_its_own_can_be_frozen(tmp_path: Path) -> None:
    """A list may be declared in policy.yaml, or in a file beside it."""
    written = b"{addresses: [offers@lists.example.com], members: {csv: ramadan.csv}}"
    of_part = b"lists: {spring: %b}" % written.replace(b"offers", b"spring")
    stage = Stage(tmp_path, DOCUMENTS | {"lists.d/offers.yaml": written, "policy.d/spring.yaml": of_part})
    for name in ("offers", "spring", "ramadan"):
        done = stage.run(freeze, "--list", name, "--reason", "oh")
        assert (done.exit_code, f"Frozen: the list {name}" in done.stdout) == (0, True), done.output
    wrong = stage.run(freeze, "--list", "ofers", "--reason", "oh")
    assert (wrong.exit_code, "did you mean offers?" in wrong.stderr) == (2, True), wrong.output


def test_without_a_policy_no_list_can_be_frozen(tmp_path: Path) -> None:
    """The first start may have made the store, and refused the policy."""
    config = Path(shutil.copytree(shipped(), tmp_path / "etc")) / "smtpguard.yaml"

    async def refused() -> None:
        async with opened(read_settings(config), migrate=True):
            pass

    asyncio.run(refused())
    done = CliRunner().invoke(main, ["-c", str(config), "freeze", "--list", "ramadan-greetings", "--reason", "oh"])
    assert (done.exit_code, "no policy is in force yet" in done.stderr) == (2, True), done.output


def served(folder: Path) -> Path:
    """A real installation, as after its first start."""
    shutil.copytree(shipped(), folder, dirs_exist_ok=True)
    config = folder / "smtpguard.yaml"
    asyncio.run(prepare(read_settings(config), by="test", parts=()))
    return config


def test_freeze_imports_no_slow_modules(tmp_path: Path) -> None:
    """freeze imports no slow module that it does not need: the policy's rules, mailings, notices, PostgreSQL."""
    config = served(tmp_path / "etc")
    script = """
import sys
from smtpguard.cli import freeze, main
from smtpguard.freezes.service import Freezes
loaded, frozen = [], Freezes.freeze
async def then(self, *args, **more):
    loaded.extend(sorted(sys.modules))
    return await frozen(self, *args, **more)
Freezes.freeze = then
try:
    main(["-c", sys.argv[1], "freeze", *sys.argv[2:], "--reason", "now"])
except SystemExit as end:
    assert end.code == 0, end.code
print(*loaded)
"""
    for words in (("--all",), ("--list", "ramadan-greetings"), ("--sender", "anna@example.com")):
        done = subprocess.run(
            [sys.executable, "-c", script, str(config), *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        loaded = set(done.stdout.split())
        assert "smtpguard.freezes.service" in loaded
        dear = (
            "policy.parse",
            "policy.engine",
            "guard.inforce",
            "mailings.service",
            "notices.intents",
            "guard.ports",
            "lists.registry",
            "incidents.rows",
            "incidents.report",
            "wire",
        )
        others = ("starlette", "uvicorn", "alembic", "psycopg", "sqlalchemy.dialects.postgresql")
        assert not [name for name in (*(f"smtpguard.{name}" for name in dear), *others) if name in loaded]


def approved(stage: Stage, n: int) -> None:
    """Hold and approve ``n`` messages, which a freeze then stops."""
    for number in range(n):
        stage.hold(n=number + 1, Message_ID=f"<{number}@example.com>", body=f"Letter {number}")
    for row in stage.rows(held, "list", "--state", "waiting"):
        for who in ("eva@example.com", "dpo@example.com"):
            stage.run(held, "approve", row["id"], "--as", who, "--people", str(row["reach"]))


def test_a_thaw_lists_what_it_releases(stage: Stage) -> None:
    stage.run(freeze, "--list", "ramadan", "--reason", "x")
    approved(stage, 2)
    stage.hold(n=9, body="waits")
    stage.run(freeze, "--sender", "anna@example.com", "--reason", "y")
    one = stage.run(thaw, "--sender", "anna@example.com")  # the other freeze stops them
    assert "No approved message is sent by it." in one.stderr
    assert "Approved, and also stopped by other freezes: 2." in one.stderr
    both = stage.run(thaw, "--list", "ramadan")  # no terminal to ask at: it thaws
    assert both.exit_code == 0
    assert "Goes out at once: 2 approved messages for up to 120 people, to ramadan." in both.stderr
    assert "Waiting for a decision, and not sent by a thaw: 1." in both.stderr
    assert "Lifted: the list ramadan" in both.stdout


def test_a_thaw_by_two_says_that_it_waits_for_the_second(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.thaw_two = True
    stage.run(freeze, "--list", "ramadan", "--reason", "x")
    approved(stage, 1)
    for _ in range(2):
        first = stage.run(thaw, "--list", "ramadan")
        assert first.exit_code == 1
        assert "Goes out once another person agrees: 1 approved message for up to 60 people" in first.stderr
        assert "is still frozen: another person must agree, by smtpguard thaw --list ramadan\n" in first.stderr
    monkeypatch.setattr("smtpguard.cli.context.Context.user", "another")
    second = stage.run(thaw, "--list", "ramadan")
    assert (second.exit_code, "Goes out at once: 1 approved message" in second.stderr) == (0, True)


@pytest.mark.parametrize(("answer", "status", "words"), [("n", 130, ()), ("y", 0, ()), ("", 0, ("--yes",))])
def test_a_thaw_at_a_terminal_asks(tmp_path: Path, answer: str, status: int, words: tuple[str, ...]) -> None:
    config = served(tmp_path / "etc")
    line = ["-c", str(config)]
    assert program.run([*line, "freeze", "--all", "--reason", "now"], timeout=120).returncode == 0
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "r+b", buffering=0) as terminal, (tmp_path / "out").open("wb") as out:  # noqa: PTH123
            command = Program([*line, "thaw", "--all", *words], stdin=terminal, stderr=terminal, stdout=out)
        said = b""
        while answer and b"Thaw everything?" not in said:
            said += os.read(ours, 4096)
        os.write(ours, answer.encode() + b"\n")
        assert command.wait(120) == status
        assert ("Lifted: everything" in (tmp_path / "out").read_text()) is (status == 0)
    finally:
        os.close(ours)
