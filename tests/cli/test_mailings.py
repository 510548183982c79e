"""mailings over a real store: list, show, follow, decide as one, and release in stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpguard.cli.freeze import command as freeze
from smtpguard.cli.mailings import command as mailings
from tests.cli.stage import ANNA, DPO, EVA, Stage
from tests.guard.campaign import documents
from tests.guard.house import MEMBERS, RAMADAN


def test_mailings_are_listed_and_shown(campaign: Stage) -> None:
    assert "No mailings of late." in campaign.run(mailings, "list").output
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    assert {k: row[k] for k in ("subject", "lists", "relayed", "held", "deferred", "refused", "state")} == {
        "subject": "Spring is here", "lists": ["ramadan"], "relayed": 4, "held": 4, "deferred": 0, "refused": 0, "state": "held",
    }  # fmt: skip
    assert row["reverse_path"] == ANNA
    assert row["first_at"] <= row["last_at"]
    assert row["first_at"] <= row["went_first_at"] <= row["went_last_at"] <= row["last_at"]
    head, line = campaign.run(mailings, "list").output.splitlines()
    assert head.split()[:4] == ["ID", "STATE", "CAME", "WENT"]
    assert line.split()[:2] == [row["id"], "held"]
    assert line.endswith("Spring is here")
    text = campaign.run(mailings, "show", row["id"][:6].lower()).output
    assert "Sent to:   4 people" in text
    assert "Held for:  4 people, 4 messages stored" in text
    assert f"waits as {row['hold']}" in text
    assert "[####################====================] 50 % of 8 sent" in text
    assert campaign.rows(mailings, "show", row["id"]) == [row]
    assert campaign.rows(mailings, "list", "--state", "approved") == []


def test_unknown_mailings_are_an_error(campaign: Stage) -> None:
    result = campaign.run(mailings, "show", "NOTHING")
    assert (result.exit_code, result.output) == (1, "smtpguard: there is no mailing NOTHING\n")
    result = campaign.run(mailings, "stop", "", "--as", EVA)
    assert result.exit_code == 1


def test_a_mailing_is_decided_as_one(campaign: Stage) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    first = campaign.run(mailings, "approve", row["id"], "--as", EVA)
    assert "the vote is counted. It needs" in first.output
    assert campaign.rows(mailings, "approve", row["id"], "--as", DPO)[0]["state"] == "approved"
    again = campaign.run(mailings, "approve", row["id"], "--as", EVA)
    assert (again.exit_code, again.output) == (1, f"smtpguard: nothing of {row['id']} waits: it is approved\n")
    assert "Approved:  by" in campaign.run(mailings, "show", row["id"]).output
    refused = campaign.run(mailings, "reopen", row["id"], "--as", "stranger@example.com")
    assert (refused.exit_code, "not an approver" in refused.output) == (1, True)
    reopened = campaign.run(mailings, "reopen", row["id"], "--as", EVA).output
    assert reopened.startswith(f"{row['id']}: held, taken back: 4 messages\n")
    assert campaign.state() == ["waiting"]
    [row] = campaign.rows(mailings, "list", "--least", "1")
    assert (row["approved"], row["held"], row["copies"]) == (None, 4, 3)


def test_an_approved_mailing_is_rejected(campaign: Stage) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    campaign.run(freeze, "--mailing", row["id"], "--reason", "Wrong text")
    campaign.run(mailings, "approve", row["id"], "--as", EVA)
    approved = campaign.run(mailings, "approve", row["id"], "--as", DPO)
    assert f"approved; it goes out when this is thawed: the mailing {row['id']} (by " in approved.output
    shown = campaign.run(mailings, "show", row["id"]).output
    assert f"Frozen:    what is not out goes out when this is thawed: the mailing {row['id']} (by " in shown
    assert "Sent to:   4 people, 4 more once thawed" in shown
    silent = campaign.run(mailings, "reject", row["id"], "--as", EVA)
    assert (silent.exit_code, "give a reason" in silent.stderr) == (1, True)
    [back] = campaign.rows(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong text")
    assert (back["state"], back["taken_back"], back["gone"], back["being_sent"]) == ("rejected", 4, 0, 0)
    assert campaign.state() == ["rejected"]
    again = campaign.run(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong text")
    assert (again.exit_code, again.stderr) == (1, "smtpguard: it has no decision\n")


def test_a_waiting_mailing_is_rejected(campaign: Stage) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    assert "rejected" in campaign.run(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong list").output
    assert "Wrong list" in campaign.run(mailings, "show", row["id"]).output


def test_all_texts_of_a_mailing_are_rejected(campaign: Stage) -> None:
    campaign.send(RAMADAN, body="To all of you")
    campaign.send(RAMADAN, n=1, body="To all of you, again")
    [row] = campaign.rows(mailings, "list", "--least", "1")
    assert campaign.state() == ["waiting"] * 2
    refused = campaign.run(mailings, "reject", row["id"], "--as", ANNA, "--comment", "Wrong list")
    assert (refused.exit_code, campaign.state()) == (1, ["waiting"] * 2)
    assert campaign.run(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong list").exit_code == 0
    assert campaign.state() == ["rejected"] * 2


def test_stages_are_continued_and_stopped(tmp_path: Path) -> None:
    campaign = Stage(tmp_path, documents(stages="[3, rest]"))
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    for who in (EVA, DPO):
        campaign.run(mailings, "approve", row["id"], "--as", who)
    stopped = campaign.run(mailings, "stop", row["id"], "--as", EVA, "--comment", "A broken link")
    assert stopped.exit_code == 0, stopped.output
    assert "A broken link" in campaign.run(mailings, "show", row["id"]).output
    assert "stopped" in campaign.run(mailings, "list", "--least", "1").output
    assert campaign.run(mailings, "go-on", row["id"], "--as", EVA).exit_code == 0
    assert campaign.run(mailings, "go-on", row["id"], "--as", EVA).exit_code == 1


def test_ctrl_c_ends_follow(campaign: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    looks = 0

    async def wait(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks % 3 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr("smtpguard.cli.mailings.asyncio.sleep", wait)
    shown = campaign.run(mailings, "show", row["id"], "--follow")
    assert shown.exit_code == 0
    assert "# sent   > on the way   ? in doubt   = held" in shown.output
    assert shown.output.count("sent 4, held 4, waits 0, refused 0; 0 a minute; held") == 1  # a line only after a change
    assert len(campaign.rows(mailings, "show", row["id"], "--follow")) == 1
    assert campaign.run(mailings, "list", "--least", "1", "--follow").output.count(row["id"]) == 3
