"""freeze and thaw as people type them: everything, a list, a sender, a mailing, a conversation; and the hooks."""

from __future__ import annotations

from typing import Any

import pytest

from smtpguard.cli.freeze import command as freeze
from smtpguard.cli.freeze import thaw
from smtpguard.cli.mailings import command as mailings
from smtpguard.policy.approval import State
from tests.cli.stage import Stage
from tests.guard.house import MEMBERS, RAMADAN


def test_freeze_and_thaw(stage: Stage) -> None:
    [row] = stage.rows(freeze, "--list", "ramadan", "--reason", "an incident", "--for", "2h")
    assert row["id"] == "F1"
    assert (row["selector"], row["value"], row["reason"]) == ("list", "ramadan", "an incident")
    assert row["until"] == "2026-03-02T11:05:00Z"
    assert (row["recalled"], row["past_recall"], row["hooks"]) == (0, 0, [])
    wrong = stage.run(thaw, "--all")
    assert wrong.exit_code == 1
    assert "Frozen still: the list ramadan" in wrong.stderr
    assert "Lifted: the list ramadan" in stage.run(thaw, "--list", "ramadan").output
    assert stage.run(thaw, "--list", "ramadan").exit_code == 1


def test_freeze_holds_what_comes(stage: Stage) -> None:
    text = stage.run(freeze, "--sender", "Anna+lists@Example.com", "--reason", "her account is taken").output
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
        (("--all", "--reason", " "), "say why"),
    ],
)
def test_a_wrong_freeze_freezes_nothing(stage: Stage, args: tuple[str, ...], says: str) -> None:
    result = stage.run(freeze, *args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert stage.run(thaw, "--all").exit_code == 1


def test_a_hook_that_fails_is_said_and_the_freeze_stands(stage: Stage) -> None:
    stage.hooks = (("/bin/sh", "-c", "exit 3"), ("/bin/sh", "-c", 'test "$SMTPGUARD_ACTION" = freeze'))
    result = stage.run(freeze, "--all", "--reason", "x")
    assert result.exit_code == 1
    assert "it ended with status 3" in result.stderr
    assert result.stderr.count("hook") == 1
    assert stage.run(thaw, "--all").exit_code == 0


def test_freeze_a_mailing_by_the_beginning_of_its_id(campaign: Stage) -> None:
    campaign.send(*MEMBERS[:3])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    [frozen] = campaign.rows(freeze, "--mailing", row["id"][:8], "--reason", "oh")
    assert frozen["value"] == row["id"]
    campaign.send(MEMBERS[3], n=3)
    assert campaign.rows(mailings, "show", row["id"])[0]["held"] == 1
    assert "Lifted" in campaign.run(thaw, "--mailing", row["id"][:8]).output
    wrong = campaign.run(freeze, "--mailing", "NOTHING", "--reason", "oh")
    assert (wrong.exit_code, wrong.output) == (2, "smtpguard: --mailing: no mailing is called NOTHING\n")


def test_freeze_a_conversation_by_message_id_or_by_a_held_message_of_it(campaign: Stage) -> None:
    def value(*args: str) -> str:
        [frozen] = campaign.rows(freeze, *args, "--reason", "oh")
        campaign.run(thaw, *args)
        return str(frozen["value"])

    assert value("--thread", "root@example.com") == "<root@example.com>"
    assert value("--thread", "<root@example.com>") == "<root@example.com>"
    campaign.send(RAMADAN, References="<first@example.com>", X_Looks="internal")
    assert value("--thread", "t000000000000000") == "<first@example.com>"
    campaign.send(RAMADAN, n=1, Message_ID="<alone@example.com>", X_Looks="internal", X_Mailing="alone")
    [alone] = [h for h in campaign.ask(lambda store: store.holds()) if h.message_id == "<alone@example.com>"]
    assert value("--thread", alone.hold_id) == "<alone@example.com>", "it begins one"


@pytest.mark.parametrize("command", [(freeze, "--reason", "oh"), (thaw,)])
@pytest.mark.parametrize("selector", ["--mailing", "--thread"])
@pytest.mark.parametrize("value", ["", " ", "01NOTHERE", "<>"])
def test_what_there_is_not_is_not_frozen(campaign: Stage, command: tuple[Any, ...], selector: str, value: str) -> None:
    done = campaign.run(command[0], selector, value, *command[1:])
    assert (done.exit_code, value in done.output) == (2, True)
    assert "Frozen" not in done.output
