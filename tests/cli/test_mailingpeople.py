"""mailings people: recipients of a mailing, matched against a list or a file, and named in no other way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smtpguard.cli.mailings import command as mailings
from smtpguard.lists.digest import Digester
from smtpguard.lists.report import News, Report
from smtpguard.lists.writing import version_of
from smtpguard.mail.address import Address
from smtpguard.notices.listalerts import events
from tests.cli.stage import Stage
from tests.guard.campaign import documents
from tests.guard.house import KEY, MEMBERS, MONDAY, RAMADAN

UNRULED = {k: re.sub(rb"(?s)rules:.*", b"rules: []\n", v) for k, v in documents().items()}
"""Without rules, so that mail to the list passes."""


def test_recipients_are_only_named_if_they_match(campaign: Stage, tmp_path: Path) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    got = campaign.run(mailings, "people", row["id"], "--from-list", "ramadan")
    assert got.exit_code == 0, got.output
    assert sorted(got.stdout.split()) == sorted(m.upper() for m in MEMBERS[:4])
    assert "4 people" in got.stderr
    assert "1 row holds no address" in got.stderr
    held = campaign.run(mailings, "people", row["id"], "--from-list", "ramadan", "--what", "held")
    assert len(held.stdout.split()) == 4
    everybody = campaign.rows(mailings, "people", row["id"], "--from-list", "ramadan", "--what", "all")
    assert {person["what"] for person in everybody} == {"sent", "held"}
    file = tmp_path / "crm.csv"
    file.write_text(f"name;mail\nOne;{MEMBERS[1]}\nStranger;stranger@example.org\nTwo;{MEMBERS[2]}\n")
    found = campaign.run(mailings, "people", row["id"], "--from-csv", str(file), "--column", "mail")
    assert found.stdout.split() == [MEMBERS[1], MEMBERS[2]]
    entries = [
        (entry.kind, dict(entry.data)) for entry, _ in campaign.ask(lambda store: store.journal.history(row["id"]))
    ]
    assert entries.count(("exported", {"what": "people", "people": 4})) == 2
    assert MEMBERS[1] not in str(entries)


def test_at_a_lists_address_all_members_got_it(campaign: Stage) -> None:
    campaign.documents = UNRULED
    campaign.send(RAMADAN)
    [row] = campaign.rows(mailings, "list")
    assert row["relayed"] == 60
    got = campaign.run(mailings, "people", row["id"], "--from-list", "ramadan")
    assert len(got.stdout.split()) == 60


def test_a_changed_list_is_matched_by_its_old_export(
    campaign: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that changed since is matched by its export of that time, to exactly its members."""
    campaign.documents = UNRULED
    campaign.send(RAMADAN)
    [row] = campaign.rows(mailings, "list")
    then = tmp_path / "then.csv"
    then.write_text(
        "Email,Status\n" + "".join(f"{m},subscribed\n" for m in MEMBERS) + "gone@example.net,unsubscribed\n"
    )

    version = version_of(map(Digester(KEY, "+").of, map(Address.parse, MEMBERS)))
    report = Report(list="ramadan", at=MONDAY, people=60, version=version, news=frozenset({News.REPLACED}))
    campaign.ask(lambda store: store.journal.record(list(events(report))))
    monkeypatch.setattr("tests.guard.house.MEMBERS", [*MEMBERS[1:], "new@example.net"])
    now = campaign.run(mailings, "people", row["id"], "--from-list", "ramadan")
    assert (now.exit_code, now.stdout) == (1, "")
    assert "the list ramadan as it was from 2026-03-02 09:00 UTC on, with 60 people" in now.stderr
    assert "--from-csv" in now.stderr
    got = campaign.run(mailings, "people", row["id"], "--from-csv", str(then))
    assert (got.exit_code, got.stdout.split()) == (0, MEMBERS)
    then.write_text("Email\n" + "\n".join(MEMBERS[1:]))
    assert campaign.run(mailings, "people", row["id"], "--from-csv", str(then)).exit_code == 1, "one is missing"


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        ((), 2, "--from-list or --from-csv"),
        (("--from-list", "ramadan", "--from-csv", "x.csv"), 2, "--from-list or --from-csv"),
        (("--from-list", "ramadam"), 2, 'unknown list "ramadam" (did you mean ramadan?)'),
        (("--from-csv", "/nowhere/x.csv"), 2, "/nowhere/x.csv: no such file"),
    ],
)
def test_an_unusable_source_of_people_is_refused(
    campaign: Stage, args: tuple[str, ...], status: int, says: str
) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    result = campaign.run(mailings, "people", row["id"], *args)
    assert (result.exit_code, says in result.output) == (status, True)
