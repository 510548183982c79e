"""replay over held messages, before a changed policy is put in force."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from smtpguard.cli.replay import IN_FORCE
from smtpguard.config.documents import policy_documents
from tests.cli.installing import change, prepared_installation, printed, running
from tests.every import every
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, House, house

run = running("replay")

LIST, MANY = "T000000000000001", "T000000000000002"
"""The held messages: to the list's address, and single messages of one mailing to a third of its members."""


async def two_held(home: House) -> None:
    intake = home.intake()
    await intake(home.transaction(RAMADAN), FakePassage())
    home.clock.pass_(days=3)
    await intake(home.transaction(*MEMBERS[:30], Subject="SV: Beer", Message_ID="<2@example.com>"), FakePassage())


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    return prepared_installation(tmp_path, two_held)


def output_lines(installed: Path, *args: str) -> list[str]:
    return printed(run(installed, *args))


def rows(installed: Path, *args: str) -> dict[str, Any]:
    return {row["message"]: row for row in map(json.loads, output_lines(installed, *args, "--json"))}


FEWER = ('mailing.customers: ">= 20"', 'mailing.customers: ">= 200"')
SHOWN = ('recipients.undisclosed: ">= 5"', 'recipients.undisclosed: ">= 100"')
OPEN = ("[internal, unclear]", "[unclear]")


def test_an_unchanged_file_changes_nothing(installed: Path) -> None:
    def entries() -> int:
        with closing(sqlite3.connect(installed / "guard.db")) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM entry").fetchone()[0])

    before = entries()
    assert output_lines(installed) == [
        "2 messages: 2 decided as now, 0 by other rules, 0 otherwise",
        "the policy file is the policy in force",
    ]
    assert run(installed, "--expect", "same").exit_code == run(installed, "--no-loosening").exit_code == 0
    assert set(rows(installed, "--since", "2026-03-04")) == {MANY}
    assert entries() == before


def test_messages_no_longer_held_are_listed(installed: Path) -> None:
    change(installed, FEWER, SHOWN)
    told = [
        f'{MANY}: hold -> relay  "SV: Beer"',
        "  - internal-to-hidden-members",
        "  - internal-to-many-customers",
        "2 messages: 1 decided as now, 0 by other rules, 1 otherwise (hold -> relay: 1)",
    ]
    assert output_lines(installed) == told
    for failing in (("--expect", "same"), ("--no-loosening",)):
        result = run(installed, *failing)
        assert (result.exit_code, result.stdout.splitlines()) == (1, told)
    by_id = rows(installed)
    assert {name: row["same"] for name, row in by_id.items()} == {LIST: True, MANY: False}
    assert by_id[MANY]["in_force"]["rules"] == ["internal-to-hidden-members", "internal-to-many-customers"]
    assert (by_id[MANY]["in_force"]["action"], by_id[MANY]["file"]["action"]) == ("hold", "relay")
    assert by_id[LIST]["in_force"]["policy_sha256"] != by_id[LIST]["file"]["policy_sha256"]
    nothing = run(installed, "--expect", "same", "--since", "2100-01-01")
    said = "There was nothing to compare: no held message is kept.\n"
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", said)


def test_messages_held_by_another_rule_are_listed(installed: Path) -> None:
    change(installed, ("id: internal-to-list", "id: never-to-a-list"))
    assert output_lines(installed) == [
        f'{LIST}: hold  "SV: lunch"',
        "  - internal-to-list",
        "  + never-to-a-list",
        "2 messages: 1 decided as now, 1 by other rules, 0 otherwise",
    ]
    change(installed, ("id: internal-to-list", "id: internal-to-list\n    mode: observe"))
    assert "  + internal-to-list (observes)" in output_lines(installed)


def test_a_rule_that_does_something_else_is_listed(installed: Path) -> None:
    policy = installed / "policy.yaml"
    before = policy.read_text()
    place = before.index("- id: internal-to-list")
    policy.write_text(before[:place] + before[place:].replace("then: hold", "then: reject", 1))
    assert output_lines(installed)[:2] == [
        f'{LIST}: hold -> reject  "SV: lunch"',
        "  ~ internal-to-list: hold -> reject",
    ]


def test_a_part_that_would_go_on_is_looser(installed: Path) -> None:
    folder = installed / "mail"
    folder.mkdir()
    for n, to in enumerate(("", ", bo@example.com")):
        (folder / f"{n}.eml").write_text(
            f"From: anna@example.com\nTo: ramadan@lists.example.com{to}\nSubject: SV: x\n\nHej {n}\n"
        )
    change(installed, ("then: hold\n  - ", "then: hold\n    scope: customers\n  - "))
    lines = output_lines(installed, str(folder))
    assert f'{folder}/0.eml: hold  "SV: x"' in lines
    assert f'{folder}/1.eml: hold -> hold the customers\' part  "SV: x"' in lines
    assert "  ~ internal-to-list: scope: all -> customers" in lines
    for asked in (("--expect", "same"), ("--no-loosening",)):
        assert run(installed, *asked, str(folder / "0.eml")).exit_code == 0, asked
        assert run(installed, *asked, str(folder / "1.eml")).exit_code == 1, asked


def test_copies_count_as_their_mailing(installed: Path) -> None:
    """Copies sent one by one count as their mailing, though none alone reaches the rule's number of people."""

    async def work() -> None:
        async with house(installed, documents=policy_documents(installed / "policy.yaml")) as home:
            home.clock.pass_(days=10)
            for n in range(25):
                own = {
                    "Message_ID": f"<w{n}@example.com>",
                    "id": f"W{n:015}",
                    "X_Mailing": "wine",
                    "To": "all@example.com",
                }
                await home.send(MEMBERS[n], Subject="SV: Wine", **own)

    asyncio.run(work())
    told = [row for row in rows(installed).values() if row["subject"] == "SV: Wine"]
    assert [row["in_force"]["rules"] for row in told] == [["internal-to-many-customers"]]


def test_messages_in_files_are_replayed(installed: Path) -> None:
    folder = installed / "mail"
    folder.mkdir()
    (folder / "one.eml").write_bytes(
        b"From: anna@example.com\nTo: ramadan@lists.example.com\nSubject: Re: x\n\nSee you\n"
    )
    (folder / "two.eml").write_bytes(b"From: anna@example.com\nTo: bo@example.com\nSubject: Re: x\n\nSee you\n")
    change(installed, OPEN)
    lines = output_lines(installed, str(folder))
    assert lines[0] == f'{folder}/one.eml: hold  "Re: x"'
    assert lines[-1].startswith("2 messages: 1 decided as now, 1 by other rules")


def test_changes_are_summed_by_sender(installed: Path) -> None:
    folder = installed / "mail"
    folder.mkdir()
    for n in range(3):
        sender = "anna@example.com" if n < 2 else "bo@example.com"
        (folder / f"{n}.eml").write_text(f"From: {sender}\nTo: ramadan@lists.example.com\nSubject: x\n\nHej {n}\n")
    change(
        installed,
        (
            "  - id: internal-to-list",
            "  - id: everything\n    when: {recipients.total: any}\n    then: reject\n  - id: internal-to-list",
        ),
    )
    lines = output_lines(installed, str(folder))
    assert "  hold -> reject, by sender: anna@example.com 2, bo@example.com 1" in lines
    assert run(installed, "--no-loosening", str(folder)).exit_code == 0


def test_an_unreadable_message_does_not_stop_the_others(installed: Path) -> None:
    folder = installed / "mail"
    folder.mkdir()
    (folder / "1.eml").symlink_to("/proc/self/mem")
    (folder / "2.eml").write_text(
        "From: " + "(" * 5000 + ")" * 5000 + " anna@example.com\nTo: bo@example.com\n\nSee you\n"
    )
    result = run(installed, str(folder))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{folder}/1.eml: ")
    assert result.stdout.splitlines() == ["1 message: 1 decided as now, 0 by other rules, 0 otherwise",
                                          IN_FORCE, "1 could not be judged"]  # fmt: skip


def test_erased_content_is_counted(installed: Path) -> None:
    def erase(*ids: str) -> None:
        with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
            for table in ("chunk", "content"):
                some = f"(SELECT content FROM hold WHERE hold_id IN ({', '.join('?' * len(ids))}))"
                connection.execute(f"DELETE FROM {table} WHERE sha256 IN {some}", ids)

    erase(LIST)
    assert output_lines(installed)[-1] == "1 more were held, and their content is no longer kept"
    erase(MANY)
    result = run(installed)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "(2 messages were held, and their content is no longer kept)" in result.stderr


WRONG = {
    ("--since", "2h", "x.eml"): "--since selects held messages, and cannot be used with FILEs",
    ("--since", "soon"): '--since: invalid time "soon"',
    ("nothing.eml",): "nothing.eml: no such file",
}


@every("args", WRONG)
def test_wrong_use_is_an_error(installed: Path, args: tuple[str, ...]) -> None:
    result = run(installed, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert WRONG[args] in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unreadable_policy_is_reported_with_its_place(installed: Path) -> None:
    change(installed, ("then: reject", "then: rejct"))
    result = run(installed)
    assert result.exit_code == 2
    assert "policy.yaml:" in result.stderr
    assert "did you mean reject?" in result.stderr
