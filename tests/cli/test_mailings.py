"""mailings, and freezes of mailings and conversations, as people type them, over a real store."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smtpguard.cli.context import Context
from smtpguard.cli.freeze import command as freeze
from smtpguard.cli.freeze import thaw
from smtpguard.cli.mailings import command as mailings
from smtpguard.cli.mailingshown import Follower, bar, table, told
from smtpguard.guard.freezes import Freezes
from smtpguard.guard.mailings import Mailings
from smtpguard.guard.outages import events
from smtpguard.lists.digest import Digester
from smtpguard.lists.report import News, Report
from smtpguard.lists.writing import version_of
from smtpguard.mail.address import Address
from smtpguard.policy.approval import Hold
from smtpguard.policy.mailing import Mailing, Tally
from tests.guard.campaign import documents
from tests.guard.house import KEY, MEMBERS, MONDAY, RAMADAN, House, Way, house

EVA, DPO, ANNA = "eva@example.com", "dpo@example.com", "anna@example.com"


class Stage:
    """Commands against one store in ``tmp_path``; each opens it anew, as a real one does."""

    def __init__(self, tmp_path: Path, stages: str = "") -> None:
        self.tmp_path = tmp_path
        self.numbers = itertools.count()
        self.documents = documents(stages=stages)
        (tmp_path / "ramadan.csv").write_text("email\n" + "\n".join(f"{m.upper()}" for m in MEMBERS) + "\nno address\n")

    @asynccontextmanager
    async def services(self) -> AsyncIterator[Any]:
        async with house(self.tmp_path, documents=self.documents) as home:
            home.clock.pass_(minutes=5)
            yield SimpleNamespace(
                store=home.store,
                policies=home,
                approvals=home.approvals(),
                mailings=Mailings(home.store, home, home.clock, home.in_force.registry.digester),
                freezes=Freezes(home.store, home.clock, new_id=lambda: f"F{next(self.numbers)}", recall_seconds=0),
                clock=home.clock,
                settings=SimpleNamespace(policy=self.tmp_path / "policy.yaml"),
                new_id=lambda: "X",
            )

    def send(self, *to: str, n: int = 0, **more: Any) -> None:
        """One message to each, of one mailing; ``n`` numbers the first."""

        async def work(home: House) -> None:
            intake = home.intake()
            for number, one in enumerate(to, n):
                home.ids = iter([f"T{number:015d}"])
                headers = {"X_Looks": "mailing", "X_Mailing": "spring", "Message_ID": f"<{number}@example.com>"}
                transaction = home.transaction(
                    one, **headers | {"body": f"Copy {number}", "Subject": "Spring is here"} | more
                )
                await intake(transaction, Way())

        asyncio.run(self._in(work))

    async def _in(self, work: Any) -> None:
        async with house(self.tmp_path, documents=self.documents) as home:
            await work(home)

    def run(self, command: Any, *args: str) -> Result:
        stage = self

        class Here(Context):
            @asynccontextmanager
            async def services(self) -> AsyncIterator[Any]:
                async with stage.services() as services:
                    yield services

        return CliRunner().invoke(command, args, obj=Here(config=Path("none")))

    def rows(self, *args: str) -> list[dict[str, Any]]:
        result = self.run(mailings, *args, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_list_and_show(stage: Stage) -> None:
    assert "No mailings of late." in stage.run(mailings, "list").output
    stage.send(*MEMBERS[:8])
    [row] = stage.rows("list", "--least", "1")
    assert {k: row[k] for k in ("subject", "lists", "relayed", "held", "deferred", "refused", "state")} == {
        "subject": "Spring is here", "lists": ["ramadan"], "relayed": 4, "held": 4, "deferred": 0, "refused": 0, "state": "held",
    }  # fmt: skip
    assert row["reverse_path"] == ANNA
    assert row["first_at"] <= row["last_at"]
    head, line = stage.run(mailings, "list").output.splitlines()
    assert head.split()[:4] == ["ID", "STATE", "SINCE", "SENT"]
    assert line.split()[:2] == [row["id"], "held"]
    assert line.endswith("Spring is here")
    text = stage.run(mailings, "show", row["id"][:6].lower()).output
    assert "Sent to:   4 people" in text
    assert "Held for:  4 people, 4 messages stored" in text
    assert f"waits as {row['hold']}" in text
    assert "[####################====================] 50 % of 8 sent" in text
    assert stage.rows("show", row["id"]) == [row]
    assert stage.rows("list", "--state", "approved") == []


def test_names_that_are_none(stage: Stage) -> None:
    result = stage.run(mailings, "show", "NOTHING")
    assert (result.exit_code, result.output) == (1, "smtpguard: no mailing is called NOTHING\n")
    result = stage.run(mailings, "stop", "", "--as", EVA)
    assert result.exit_code == 1


def test_decided_as_one(stage: Stage) -> None:
    stage.send(*MEMBERS[:8])
    [row] = stage.rows("list", "--least", "1")
    first = stage.run(mailings, "approve", row["id"], "--as", EVA)
    assert "the vote is counted. It needs" in first.output
    assert stage.rows("approve", row["id"], "--as", DPO)[0]["state"] == "approved"
    again = stage.run(mailings, "approve", row["id"], "--as", EVA)
    assert (again.exit_code, again.output) == (1, f"smtpguard: nothing of {row['id']} waits: it is approved\n")
    assert "Approved:  by" in stage.run(mailings, "show", row["id"]).output
    refused = stage.run(mailings, "reopen", row["id"], "--as", "stranger@example.com")
    assert (refused.exit_code, "not one of those who decide" in refused.output) == (1, True)
    assert "passing" in stage.run(mailings, "reopen", row["id"], "--as", EVA).output


def test_rejected_as_one(stage: Stage) -> None:
    stage.send(*MEMBERS[:8])
    [row] = stage.rows("list", "--least", "1")
    assert "rejected" in stage.run(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong list").output
    assert "Wrong list" in stage.run(mailings, "show", row["id"]).output


def test_stages_are_opened_and_stopped_by_people(tmp_path: Path) -> None:
    stage = Stage(tmp_path, stages="[3, rest]")
    stage.send(*MEMBERS[:8])
    [row] = stage.rows("list", "--least", "1")
    for who in (EVA, DPO):
        stage.run(mailings, "approve", row["id"], "--as", who)
    stopped = stage.run(mailings, "stop", row["id"], "--as", EVA, "--comment", "A broken link")
    assert stopped.exit_code == 0, stopped.output
    assert "A broken link" in stage.run(mailings, "show", row["id"]).output
    assert "stopped" in stage.run(mailings, "list", "--least", "1").output
    assert stage.run(mailings, "go-on", row["id"], "--as", EVA).exit_code == 0
    assert stage.run(mailings, "go-on", row["id"], "--as", EVA).exit_code == 1


def test_people_are_matched_and_named_in_no_other_way(stage: Stage, tmp_path: Path) -> None:
    stage.send(*MEMBERS[:8])
    [row] = stage.rows("list", "--least", "1")
    got = stage.run(mailings, "people", row["id"], "--from-list", "ramadan")
    assert got.exit_code == 0, got.output
    assert sorted(got.stdout.split()) == sorted(m.upper() for m in MEMBERS[:4])
    assert "4 people" in got.stderr
    assert "1 row holds no address" in got.stderr
    held = stage.run(mailings, "people", row["id"], "--from-list", "ramadan", "--what", "held")
    assert len(held.stdout.split()) == 4
    everybody = stage.run(mailings, "people", row["id"], "--from-list", "ramadan", "--what", "all", "--json")
    assert {json.loads(line)["what"] for line in everybody.stdout.splitlines()} == {"sent", "held"}
    file = tmp_path / "crm.csv"
    file.write_text(f"name;mail\nOne;{MEMBERS[1]}\nStranger;stranger@example.org\nTwo;{MEMBERS[2]}\n")
    found = stage.run(mailings, "people", row["id"], "--from-csv", str(file), "--column", "mail")
    assert found.stdout.split() == [MEMBERS[1], MEMBERS[2]]
    entries = asyncio.run(history(stage, row["id"]))
    assert entries.count(("exported", {"what": "people", "people": 4})) == 2
    assert MEMBERS[1] not in str(entries)


async def history(stage: Stage, id: str) -> list[tuple[str, Any]]:
    async with stage.services() as services:
        return [(entry.kind, dict(entry.data)) for entry, _ in await services.store.history(id)]


async def held(stage: Stage) -> list[Hold]:
    async with stage.services() as services:
        return list(await services.store.holds())


def test_at_a_lists_address_everybody_on_it_got_it(stage: Stage) -> None:
    stage.documents = {
        k: re.sub(rb"(?s)rules:.*", b"rules: []\n", v) if k == "policy.yaml" else v for k, v in stage.documents.items()
    }
    stage.send(RAMADAN)
    [row] = stage.rows("list")
    assert row["relayed"] == 60
    got = stage.run(mailings, "people", row["id"], "--from-list", "ramadan")
    assert len(got.stdout.split()) == 60


def test_who_was_on_a_list_that_has_changed_since_is_matched_by_its_export(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To exactly those: not to who has joined since, nor without those who have left."""
    stage.documents = {
        k: re.sub(rb"(?s)rules:.*", b"rules: []\n", v) if k == "policy.yaml" else v for k, v in stage.documents.items()
    }
    stage.send(RAMADAN)
    [row] = stage.rows("list")
    then = tmp_path / "then.csv"
    then.write_text(
        "Email,Status\n" + "".join(f"{m},subscribed\n" for m in MEMBERS) + "gone@example.net,unsubscribed\n"
    )

    async def journal() -> None:
        async with stage.services() as services:
            report = Report(
                list="ramadan",
                at=MONDAY,
                people=60,
                version=version_of(map(digest, MEMBERS)),
                news=frozenset({News.REPLACED}),
            )
            await services.store.record(list(events(report)))

    asyncio.run(journal())
    monkeypatch.setattr("tests.guard.house.MEMBERS", [*MEMBERS[1:], "new@example.net"])
    now = stage.run(mailings, "people", row["id"], "--from-list", "ramadan")
    assert (now.exit_code, now.stdout) == (1, "")
    assert "the list ramadan as it was from 2026-03-02 09:00 UTC on, with 60 people" in now.stderr
    assert "--from-csv" in now.stderr
    got = stage.run(mailings, "people", row["id"], "--from-csv", str(then))
    assert (got.exit_code, got.stdout.split()) == (0, MEMBERS)
    then.write_text("Email\n" + "\n".join(MEMBERS[1:]))
    assert stage.run(mailings, "people", row["id"], "--from-csv", str(then)).exit_code == 1, "one is missing"


def digest(address: str) -> bytes:
    return Digester(KEY, "+").of(Address.parse(address))


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        ((), 2, "--from-list or --from-csv"),
        (("--from-list", "ramadan", "--from-csv", "x.csv"), 2, "--from-list or --from-csv"),
        (("--from-list", "ramadam"), 2, 'unknown list "ramadam" (did you mean ramadan?)'),
        (("--from-csv", "/nowhere/x.csv"), 2, "/nowhere/x.csv: no such file"),
    ],
)
def test_people_from_nowhere(stage: Stage, args: tuple[str, ...], status: int, says: str) -> None:
    stage.send(*MEMBERS[:8])
    [row] = stage.rows("list", "--least", "1")
    result = stage.run(mailings, "people", row["id"], *args)
    assert (result.exit_code, says in result.output) == (status, True)


def test_freeze_a_mailing_by_the_beginning_of_its_id(stage: Stage) -> None:
    stage.send(*MEMBERS[:3])
    [row] = stage.rows("list", "--least", "1")
    done = stage.run(freeze, "--mailing", row["id"][:8], "--reason", "oh", "--json")
    assert json.loads(done.stdout)["value"] == row["id"]
    stage.send(MEMBERS[3], n=3)
    assert stage.rows("show", row["id"])[0]["held"] == 1
    assert "Lifted" in stage.run(thaw, "--mailing", row["id"][:8]).output
    wrong = stage.run(freeze, "--mailing", "NOTHING", "--reason", "oh")
    assert (wrong.exit_code, wrong.output) == (2, "smtpguard: --mailing: no mailing is called NOTHING\n")


def test_freeze_a_conversation_by_message_id_or_by_a_held_message_of_it(stage: Stage) -> None:
    def value(*args: str) -> str:
        done = stage.run(freeze, *args, "--reason", "oh", "--json")
        stage.run(thaw, *args)
        return str(json.loads(done.stdout)["value"])

    assert value("--thread", "root@example.com") == "<root@example.com>"
    assert value("--thread", "<root@example.com>") == "<root@example.com>"
    stage.send(RAMADAN, References="<first@example.com>", X_Looks="internal")
    assert value("--thread", "t000000000000000") == "<first@example.com>"
    stage.send(RAMADAN, n=1, Message_ID="<alone@example.com>", X_Looks="internal", X_Mailing="alone")
    [alone] = [h for h in asyncio.run(held(stage)) if h.message_id == "<alone@example.com>"]
    assert value("--thread", alone.hold_id) == "<alone@example.com>", "it begins one"


@pytest.mark.parametrize("command", [(freeze, "--reason", "oh"), (thaw,)])
@pytest.mark.parametrize("selector", ["--mailing", "--thread"])
@pytest.mark.parametrize("value", ["", " ", "01NOTHERE", "<>"])
def test_what_there_is_not_is_not_frozen(stage: Stage, command: tuple[Any, ...], selector: str, value: str) -> None:
    done = stage.run(command[0], selector, value, *command[1:])
    assert (done.exit_code, value in done.output) == (2, True)
    assert "Frozen" not in done.output


def test_ctrl_c_ends_following(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.send(*MEMBERS[:8])
    [row] = stage.rows("list", "--least", "1")
    looks = 0

    async def wait(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks % 3 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr("smtpguard.cli.mailings.asyncio.sleep", wait)
    shown = stage.run(mailings, "show", row["id"], "--follow")
    assert shown.exit_code == 0
    assert "# sent   = held" in shown.output
    assert (
        shown.output.count("sent 4, held 4, waits 0, refused 0; 0 a minute; held") == 1
    )  # a line for what has changed
    assert len(stage.rows("show", row["id"], "--follow")) == 1
    assert stage.run(mailings, "list", "--least", "1", "--follow").output.count(row["id"]) == 3


def mailing(**more: Any) -> Mailing:
    return replace(Mailing(mailing_id="ABC", first_at=MONDAY, last_at=MONDAY + timedelta(minutes=2)), **more)


@pytest.mark.parametrize(
    ("people", "drawn"),
    [
        (Tally(), "          "),
        (Tally(relayed=10), "##########"),
        (Tally(relayed=5, admitted=2, held=1, deferred=1, refused=1), "#######=-x"),
        (Tally(relayed=399_999, held=1), "##########"),
        (Tally(held=3), "=========="),
    ],
)
def test_the_bar(people: Tally, drawn: str) -> None:
    assert bar(mailing(people=people), 10).startswith(f"[{drawn}]")


def test_the_rate_of_the_moment() -> None:
    ticks = iter([0.0, 1.0, 2.0])
    follower = Follower(lambda: next(ticks))
    assert "; 0 a minute;" in follower.line(mailing(people=Tally(relayed=100)))
    assert "; 600 a minute;" in follower.line(mailing(people=Tally(relayed=110)))
    assert "; 1,500 a minute;" in follower.line(mailing(people=Tally(relayed=150)))


def test_what_came_in_a_message_steers_no_terminal() -> None:
    bad = mailing(subject="\x1b[2JSpring\n", people=Tally(relayed=1))
    assert not any("\x1b" in line for line in (*table([bad]), *told(bad, MONDAY)))
