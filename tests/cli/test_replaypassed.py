"""replay --passed over a recorded day, before a changed policy is put in force."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smtpguard.cli import main, replaypassed
from smtpguard.config.documents import policy_documents
from smtpguard.journal.event import Event, Kind
from smtpguard.store.retention import Retention
from tests.cli.installing import change, prepared_installation, printed, running
from tests.every import every
from tests.guard.house import MEMBERS, RAMADAN, FakePassage, House, house

run = running("replay", "--passed")

THEN = ("--since", "2026-03-01")
COLLEAGUES = [f"colleague{n}@example.com" for n in range(12)]


async def a_day(home: House) -> None:
    """Two messages to the list, and one each to all colleagues, to a customer, to an outsider and to nine members in
    Bcc."""
    intake = home.intake()
    for n, (to, more) in enumerate(
        [
            ([RAMADAN], {}),
            ([RAMADAN], {}),
            (COLLEAGUES, {"Subject": "Coffee"}),
            ([MEMBERS[0]], {"Subject": "Your order"}),
            (["peter@partner.example"], {"Subject": "Drawings"}),
            (MEMBERS[:9], {"Subject": "Beer", "X_Looks": "mailing", "To": "bo@example.com"}),
        ]
    ):
        own = {} if to == [RAMADAN] else {"Message_ID": f"<{n}@example.com>", "body": str(n)}
        await intake(home.transaction(*to, id=f"T{n}", **{**own, **more}), FakePassage())
        home.clock.pass_(hours=1)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    return prepared_installation(tmp_path, a_day)


def output_lines(installed: Path, *args: str) -> list[str]:
    return printed(run(installed, *THEN, *args))


def rows(installed: Path, *args: str) -> dict[str, Any]:
    return {row["message"]: row for row in map(json.loads, output_lines(installed, *args, "--json"))}


def exported(installed: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(installed / "guard.db")) as connection:
        found = connection.execute("SELECT body FROM entry WHERE kind = 'exported'").fetchall()
    return [json.loads(body)["data"] for (body,) in found]


TO_MANY = '  - id: to-many\n    when: {recipients.reach: ">= 10"}\n    then: hold\n'
LOOKING = "  - id: outside\n    when: {message.looks: internal, recipients.outside: any}\n    then: hold\n"


def test_an_unchanged_file_changes_nothing(installed: Path) -> None:
    assert output_lines(installed) == [
        "5 messages since 2026-03-01 00:00 UTC: 5 as now, 0 by other rules, 0 otherwise, 0 may be otherwise",
        "left out: 1 retry of what was held already",
        "the policy file is the policy in force",
    ]
    assert exported(installed) == [], "no name was shown"


def test_relayed_messages_that_would_be_held_are_listed(installed: Path) -> None:
    change(installed, more=TO_MANY)
    assert output_lines(installed) == [
        "5 messages since 2026-03-01 00:00 UTC: 3 as now, 1 by other rules, 1 otherwise, 0 may be otherwise",
        "relay -> hold: 1",
        "        1  + to-many",
        "as now, by other rules: 1",
        "        1  + to-many",
        "           lists: ramadan 1",
        "left out: 1 retry of what was held already",
        '2026-03-02 11:00 T2: relay -> hold  "Coffee", from anna@example.com to 12 recipients',
        "  + to-many",
        '2026-03-02 09:00 T0: hold  "SV: lunch", from anna@example.com to 1 recipient',
        "  + to-many",
    ]
    assert exported(installed) == [{"what": "replay"}]


def test_changes_are_summed_by_sender(installed: Path) -> None:
    change(installed, more='  - id: everything\n    when: {recipients.total: ">= 1"}\n    then: reject\n')
    (senders,) = [line for line in output_lines(installed) if line.startswith("           senders: ")][:1]
    assert senders.startswith("           senders: anna@example.com ")
    assert exported(installed) == [{"what": "replay"}]
    assert not any("senders" in line or "anna@" in line for line in output_lines(installed, "--no-names"))


def test_unknown_facts_are_named(installed: Path) -> None:
    change(installed, more=LOOKING)
    lines = output_lines(installed, "--no-names")
    assert lines[0].endswith("4 as now, 0 by other rules, 0 otherwise, 1 may be otherwise")
    assert lines[1:4] == [
        "relay, may be hold: 1",
        "        1  ? outside",
        "        1  hang on message.looks: the text was not read then",
    ]
    assert lines[-3:] == [
        "2026-03-02 13:00 T4: relay, may be hold  to 1 recipient",
        "  ? outside",
        "    message.looks: the text was not read then",
    ]
    assert exported(installed) == []


LOOSER = (
    ("[internal, unclear], recipients.list", "[unclear], recipients.list"),
    ("sender.is_writer: false", "sender.is_writer: true"),
    ('mailing.customers: ">= 20"', 'mailing.customers: ">= 200"'),
    ('recipients.undisclosed: ">= 5"', 'recipients.undisclosed: ">= 500"'),
)


def test_messages_no_longer_held_are_listed(installed: Path) -> None:
    change(installed, *LOOSER)
    lines = output_lines(installed)
    assert lines[1] == "hold -> relay: 1"
    assert lines[2:5] == [f"        1  - {rule}" for rule in ("internal-to-list", "internal-to-many-customers", "not-a-writer")]  # fmt: skip
    assert '2026-03-02 09:00 T0: hold -> relay  "SV: lunch", from anna@example.com to 1 recipient' in lines


def test_a_changed_action_of_a_rule_is_shown(installed: Path) -> None:
    change(installed, ("sender.is_writer: false}\n    then: hold", "sender.is_writer: false}\n    then: reject"))
    assert "        1  ~ not-a-writer: hold -> reject" in output_lines(installed)
    change(installed, ("recipients.list_addresses: any}\n    then: hold", "recipients.list_addresses: any}\n    mode: observe\n    then: hold"))  # fmt: skip
    assert "  ~ internal-to-list: enforced -> observes" in output_lines(installed)
    change(installed, ("recipients.list_addresses: any}\n    then: hold", "recipients.list_addresses: any}\n    scope: customers\n    then: hold"))  # fmt: skip
    assert "  ~ internal-to-list: scope: all -> customers" in output_lines(installed)


def test_an_observing_rule_changes_no_verdict(installed: Path) -> None:
    change(installed, more=LOOKING + "    mode: observe\n")
    assert output_lines(installed)[:2] == [
        "5 messages since 2026-03-01 00:00 UTC: 5 as now, 0 by other rules, 0 otherwise, 0 may be otherwise",
        "outside only observes: whether it would have seen something in 1 message hangs on what was not kept",
    ]


def test_json_rows_have_all_messages(installed: Path) -> None:
    change(installed, more=TO_MANY + LOOKING)
    told = rows(installed)
    assert {name: row["answer"] for name, row in told.items()} == {
        "T0": "other-rules",
        "T2": "otherwise",
        "T4": "maybe",
    }
    assert told["T2"] == {
        "message": "T2",
        "at": "2026-03-02T11:00:00Z",
        "subject": "Coffee",
        "from": "anna@example.com",
        "recipients": 12,
        "lists": [],
        "mailing": None,
        "answer": "otherwise",
        "in_force": {"action": "relay", "actions": ["relay"], "rules": [], "perhaps": []},
        "file": {"action": "hold", "actions": ["hold"], "rules": ["to-many"], "perhaps": []},
        "hangs_on": [],
    }
    assert told["T4"]["file"] == {"action": None, "actions": ["relay", "hold"], "rules": [], "perhaps": ["outside"]}
    assert told["T4"]["hangs_on"] == [{"fact": "message.looks", "why": "the text was not read then"}]
    assert exported(installed) == [{"what": "replay"}]
    nameless = rows(installed, "--no-names")
    assert {(row["subject"], row["from"]) for row in nameless.values()} == {(None, None)}
    assert len(exported(installed)) == 1


def test_since_and_until_limit_the_time(installed: Path) -> None:
    change(installed, more=TO_MANY)
    until = output_lines(installed, "--until", "2026-03-02 10:30")
    assert until[0].startswith("1 message from 2026-03-01 00:00 to 2026-03-02 10:30 UTC: 0 as now")
    result = run(installed, "--since", "2026-03-02 10:30")
    assert result.stdout.startswith("4 messages since 2026-03-02 10:30 UTC")


def test_the_number_of_examples_is_bounded(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(installed, more=TO_MANY + LOOKING)
    for args, shown in ((("--limit", "1"), 1), (("--limit", "2"), 2), (("--all",), 3), ((), 3), (("--limit", "0"), 0)):
        lines = output_lines(installed, *args)
        assert sum(line.startswith("2026-03-02 ") for line in lines) == shown, args
        more = f"{shown} of 3 are shown: --limit N or --all shows more"
        assert (lines[-1] == more) is (shown < 3)
    first = next(line for line in output_lines(installed, "--limit", "1") if line.startswith("2026-03-02 "))
    assert "relay -> hold" in first, "certain changes come first"
    whole = output_lines(installed, "--all")
    monkeypatch.setattr(replaypassed, "_MEMORY", 10)  # so that examples are buffered in a file
    assert output_lines(installed, "--all") == whole


def test_control_characters_of_a_subject_are_not_printed(installed: Path) -> None:
    change(installed, more=LOOKING)
    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        connection.execute("UPDATE clear SET doc = replace(doc, 'Drawings', ?)", ("\\u001b[31mDrawings",))
    assert any('"\N{REPLACEMENT CHARACTER}[31mDrawings"' in line for line in output_lines(installed))


def test_erased_names_are_left_out(installed: Path) -> None:
    async def work() -> None:
        async with house(installed, documents=policy_documents(installed / "policy.yaml")) as home:
            home.clock.pass_(days=100)
            while (await home.store.retain(Retention())).more:
                pass

    asyncio.run(work())
    change(installed, more=TO_MANY)
    assert "2026-03-02 11:00 T2: relay -> hold  to 12 recipients" in output_lines(installed)
    assert rows(installed)["T2"]["from"] is None


def test_expect_same_ignores_uncertain_changes(installed: Path) -> None:
    """``--expect same`` ignores messages that may be decided otherwise."""
    change(installed, more=LOOKING)
    assert run(installed, *THEN, "--expect", "same").exit_code == 0
    change(installed, more=TO_MANY)
    assert run(installed, *THEN, "--expect", "same").exit_code == 1


WRONG = {
    ("--since", "soon"): '--since: invalid time "soon"',
    ("--until", "soon"): '--until: invalid time "soon"',
    ("--since", "2026-03-03", "--until", "2026-03-02"): "--since is not before --until",
    ("--since", "2100-01-01"): "--since is not before now",
    (): "the journal has no verdict from that time",
    ("--since", "2020-01-01", "--until", "2020-01-02", "--json"): "the journal has no verdict from that time",
    ("x.eml",): "--passed reads the journal, and cannot be used with FILEs",
}


@every("args", list(WRONG))
def test_wrong_use_is_an_error(installed: Path, args: tuple[str, ...]) -> None:
    result = run(installed, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert WRONG[args] in result.stderr
    assert len(result.stderr.splitlines()) == 1


@every(
    "option",
    [["--until", "1d"], ["--limit", "3"], ["--all"], ["--no-names"]],
)
def test_options_of_passed_are_refused_without_it(installed: Path, option: list[str]) -> None:
    result = CliRunner().invoke(main, ["-c", str(installed / "smtpguard.yaml"), "replay", *option])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{option[0]} is for --passed" in result.stderr


def test_without_a_policy_in_force_it_fails(tmp_path: Path, installed: Path) -> None:
    with closing(sqlite3.connect(installed / "guard.db")) as connection, connection:
        connection.execute("DELETE FROM document")
    result = run(installed, *THEN)
    assert result.exit_code == 2
    assert "no policy is in force yet" in result.stderr


def test_undecided_messages_are_left_out(installed: Path) -> None:
    async def work() -> None:
        async with house(installed, documents=policy_documents(installed / "policy.yaml")) as home:
            data = {"action": "defer", "rules": [], "failure": "ValueError"}
            await home.store.journal.record([Event(kind=Kind.VERDICT, id="T9", at=home.clock.now(), data=data)])

    asyncio.run(work())
    assert "left out: 1 on which nothing could be decided then" in output_lines(installed)


def test_another_policy_file_can_be_given(installed: Path) -> None:
    other = installed / "other.yaml"
    other.write_text((installed / "policy.yaml").read_text() + TO_MANY)
    assert "5 as now" in output_lines(installed)[0]
    assert "3 as now, 1 by other rules, 1 otherwise" in output_lines(installed, "--policy", str(other))[0]
    assert run(installed, "--policy", str(installed / "absent.yaml")).exit_code == 2
