"""mailings over a real store: list, show, follow, decide as one, and release in stages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from smtpguard.cli.freeze import command as freeze
from smtpguard.cli.held import command as held
from smtpguard.cli.mailings import Follower, bar, mailing_lines, table
from smtpguard.cli.mailings import command as mailings
from smtpguard.holds.model import Change, State
from smtpguard.lists.digest import Digester
from smtpguard.lists.sync import News, Report
from smtpguard.lists.writing import version_of
from smtpguard.mail.address import Address
from smtpguard.mailings.matching import Matching
from smtpguard.mailings.model import CopyStatus, Grant, Mailing, PeopleCounts, set_of
from smtpguard.notices.listnotices import list_events
from smtpguard.reading.fingerprint import Identity
from tests.cli.stage import ANNA, DPO, EVA, Stage
from tests.clocks import MONDAY
from tests.every import every
from tests.guard.campaign import documents
from tests.guard.house import KEY, MEMBERS, RAMADAN, House, mail
from tests.mailings.correcting import SORRY, TEXT, digest


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
    assert "Held for:  4 people, 4 messages to be decided on" in text
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
    assert f"Frozen:    the mailing {row['id']} (by " in shown
    assert "; what is approved goes out with a thaw\n" in shown
    assert "Sent to:   4 people, 4 more once thawed" in shown
    silent = campaign.run(mailings, "reject", row["id"], "--as", EVA)
    assert (silent.exit_code, "give a reason" in silent.stderr) == (1, True)
    [back] = campaign.rows(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong text")
    assert (back["state"], back["taken_back"], back["gone"], back["being_sent"]) == ("rejected", 4, 0, 0)
    assert campaign.state() == ["rejected"]
    again = campaign.run(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong text")
    assert (again.exit_code, again.stderr) == (1, "smtpguard: it has no decision\n")


def test_all_texts_of_a_mailing_are_rejected(campaign: Stage) -> None:
    campaign.send(RAMADAN, body="To all of you")
    campaign.send(RAMADAN, n=1, body="To all of you, again")
    [row] = campaign.rows(mailings, "list", "--least", "1")
    assert campaign.state() == ["waiting"] * 2
    refused = campaign.run(mailings, "reject", row["id"], "--as", ANNA, "--comment", "Wrong list")
    assert (refused.exit_code, campaign.state()) == (1, ["waiting"] * 2)
    assert campaign.run(mailings, "reject", row["id"], "--as", EVA, "--comment", "Wrong list").exit_code == 0
    assert campaign.state() == ["rejected"] * 2
    assert "Wrong list" in campaign.run(mailings, "show", row["id"]).output


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
    go_on = f"Approved, and its stages wait for a person (A broken link): smtpguard mailings go-on {row['id']} --as ADDRESS\n"
    assert go_on in campaign.run(held, "list").output
    [lead] = campaign.rows(held, "list")
    sent = partial(replace, state=State.RELEASED)
    campaign.ask(lambda store: store.holds.change(lead["id"], lambda hold: Change(hold=sent(hold))))
    assert "released, its mailing is stopped " in campaign.run(held, "list").output
    campaign.run(freeze, "--mailing", row["id"], "--reason", "Wrong text")
    shown = campaign.run(mailings, "show", row["id"]).output
    assert "; after a thaw its stages still wait for a person\n" in shown
    assert "people: stopped (A broken link), until a person lets it go on\n" in shown
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


def mailing(**more: Any) -> Mailing:
    return replace(Mailing(mailing_id="ABC", first_at=MONDAY, last_at=MONDAY + timedelta(minutes=2)), **more)


@every(
    ("people", "drawn"),
    [
        (PeopleCounts(), "          "),
        (PeopleCounts(relayed=10), "##########"),
        (PeopleCounts(relayed=5, admitted=1, doubted=1, held=1, deferred=1, refused=1), "#####>?=-x"),
        (PeopleCounts(admitted=10), ">>>>>>>>>>"),
        (PeopleCounts(stopped=10), "xxxxxxxxxx"),
        (PeopleCounts(relayed=399_999, held=1), "##########"),
        (PeopleCounts(held=3), "=========="),
    ],
)
def test_the_bar_shows_shares(people: PeopleCounts, drawn: str) -> None:
    """``drawn``: one sign for four."""
    assert bar(mailing(people=people)).startswith(f"[{''.join(4 * sign for sign in drawn)}]")


def test_the_current_rate_is_shown() -> None:
    ticks = iter([0.0, 1.0, 2.0])
    follower = Follower(lambda: next(ticks))
    assert "; 0 a minute;" in follower.line(mailing(people=PeopleCounts(relayed=100)))
    assert "; 600 a minute;" in follower.line(mailing(people=PeopleCounts(relayed=110)))
    assert "; 1,500 a minute;" in follower.line(mailing(people=PeopleCounts(relayed=150)))


def test_a_confirmation_is_not_shown_as_an_approval(campaign: Stage) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    for who in (EVA, DPO):
        campaign.run(mailings, "approve", row["id"], "--as", who)
    found = campaign.ask(lambda store: store.mailings.find(row["id"]))
    assert found is not None
    assert found.grant is not None
    confirmed = replace(found, grants=(replace(found.grant, by=(ANNA,), by_writer=True),))
    assert f"Confirmed: by {ANNA} at" in "\n".join(mailing_lines(confirmed))
    assert "Approved:" not in "\n".join(mailing_lines(confirmed))


def test_an_approval_is_shown_with_its_own_number_and_the_whole() -> None:
    a, b = (
        Grant(hold_id=name, approved=Identity(), lists=frozenset({name}), rules=frozenset(), people=people, since=MONDAY,
              until=MONDAY + timedelta(days=days), by=(EVA,))
        for name, people, days in (("a", 100, 1), ("b", 20, 7))
    )  # fmt: skip
    both = mailing().granted(a, None, 0, MONDAY).granted(b, None, 60, MONDAY)
    shown = "\n".join(mailing_lines(both))
    assert "for 20 people, at most 120 in all, to b, until" in shown
    assert "for 100 people, at most 120 in all, to a, until" in shown
    later = MONDAY + timedelta(days=2)
    shown = "\n".join(mailing_lines(both.as_of(later)))
    assert "for 20 people, at most 80 in all, to b, until" in shown
    assert "for at most 100 people, until" in "\n".join(mailing_lines(mailing().granted(a, None, 0, MONDAY)))


def test_uncertain_numbers_are_shown_as_an_interval() -> None:
    doubted = mailing(people=PeopleCounts(relayed=2100, doubted=3, same=900))
    head, line = table([doubted])
    assert head.split()[7:10] == ["SENT", "AT", "MOST"]
    assert line.split()[6:8] == ["1,200", "2,103"]
    assert "Sent to:   at least 1,200, at most 2,103 people" in list(mailing_lines(doubted))
    assert "  sent at least 1,200, at most 2,103, in doubt 3, held 0" in Follower(lambda: 0.0).line(doubted)
    certain = mailing(people=PeopleCounts(relayed=1200))
    assert list(table([certain]))[1].split()[6:8] == ["1,200", "-"]
    assert "Sent to:   1,200 people" in list(mailing_lines(certain))


def test_arrival_and_departure_are_separate_times() -> None:
    out = {"went_first_at": MONDAY + timedelta(hours=1), "went_last_at": MONDAY + timedelta(hours=2, seconds=1)}
    gone = mailing(people=PeopleCounts(relayed=1), **out)
    head, line = table([gone])
    assert head.split()[:7] == ["ID", "STATE", "CAME", "WENT", "OUT", "LAST", "OUT"]
    for name, at in (("CAME", MONDAY), ("WENT OUT", out["went_first_at"]), ("LAST OUT", out["went_last_at"])):
        assert line[head.index(name) :].startswith(f"{at:%Y-%m-%d %H:%M}")
    said = "\n".join(mailing_lines(gone))
    assert f"Came:      first {MONDAY:%Y-%m-%d %H:%M:%S} UTC, last" in said
    assert f"Went out:  first {out['went_first_at']:%Y-%m-%d %H:%M:%S} UTC, last" in said
    waits = mailing(people=PeopleCounts(held=1))
    assert "Went out" not in "\n".join(mailing_lines(waits))
    assert list(table([waits]))[1].split()[4:6] == ["-", "-"]


def test_control_characters_are_not_printed() -> None:
    bad = mailing(subject="\x1b[2JSpring\n", people=PeopleCounts(relayed=1))
    assert not any("\x1b" in line for line in (*table([bad]), *mailing_lines(bad)))


@pytest.fixture
def sorry(campaign: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The id of a mailing that four people got and four did not, and the path of a message."""
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    init = House.__init__

    def reading(house: House, *args: object) -> None:
        init(house, *args)  # type: ignore[arg-type]
        house.reader.sketch = SORRY
        house.ids = iter(f"C{n:015d}" for n in range(100))

    monkeypatch.setattr(House, "__init__", reading)
    file = tmp_path / "sorry.eml"
    file.write_bytes(mail(**TEXT).replace(b"\r\n", b"\n"))
    return row["id"], str(file)


def test_a_correction_waits_for_approval(campaign: Stage, sorry: tuple[str, str]) -> None:
    id, file = sorry
    made = campaign.run(mailings, "correct", id, "--message", file, "--as", EVA, "--comment", "We promised")
    assert made.exit_code == 0, made.output
    hold_id = made.stdout.partition(":")[0]
    assert "held, for the 4 who have it; others approve it" in made.stdout
    shown = campaign.run(held, "show", hold_id)
    assert f"Corrects: for exactly the 4 who have {id}, at 2026-03-02 09:05:00 UTC" in shown.stdout
    [row] = campaign.rows(mailings, "correct", id, "--message", file, "--as", EVA, "--in-doubt")
    assert (row["sent"], row["may_have"], row["set"]) == (4, 0, set_of(map(digest, MEMBERS[:4])))
    assert row["hold"] == hold_id, "the same message for the same people"


@every(
    ("args", "status", "says"),
    [
        (("--as", ANNA), 1, "is not an approver"),
        (("--as", EVA, "--from-csv", "/nowhere.csv"), 2, "/nowhere.csv: no such file"),
    ],
)
def test_a_correction_that_cannot_begin_gives_the_reason(
    campaign: Stage, sorry: tuple[str, str], args: tuple[str, ...], status: int, says: str
) -> None:
    result = campaign.run(mailings, "correct", sorry[0], "--message", sorry[1], *args)
    assert (result.exit_code, says in result.output) == (status, True), result.output


UNRULED = {k: re.sub(rb"(?s)rules:.*", b"rules: []\n", v) for k, v in documents().items()}
"""Without rules, so that mail to the list passes."""


def test_each_status_of_a_copy_has_a_word(campaign: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that of a second copy on its way to somebody who may have the first."""

    async def people(_: Matching) -> AsyncIterator[tuple[str, CopyStatus]]:
        for status in CopyStatus:
            yield f"{status.name.lower()}@example.net", status

    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    monkeypatch.setattr(Matching, "people", people)
    asked = (mailings, "people", row["id"], "--from-list", "ramadan", "--what")
    told = {one["address"].partition("@")[0]: one["what"] for one in campaign.rows(*asked, "all")}
    assert told.keys() == {status.name.lower() for status in CopyStatus} - {"none"}
    assert told["again"] == "on-the-way"
    on_the_way = {one["address"] for one in campaign.rows(*asked, "on-the-way")}
    assert on_the_way == {"admitted@example.net", "again@example.net"}


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
    campaign.ask(lambda store: store.journal.record(list(list_events(report))))
    monkeypatch.setattr("tests.guard.house.MEMBERS", [*MEMBERS[1:], "new@example.net"])
    now = campaign.run(mailings, "people", row["id"], "--from-list", "ramadan")
    assert (now.exit_code, now.stdout) == (1, "")
    assert "the list ramadan as it was from 2026-03-02 09:00 UTC on, with 60 people" in now.stderr
    assert "--from-csv" in now.stderr
    got = campaign.run(mailings, "people", row["id"], "--from-csv", str(then))
    assert (got.exit_code, got.stdout.split()) == (0, MEMBERS)
    then.write_text("Email\n" + "\n".join(MEMBERS[1:]))
    assert campaign.run(mailings, "people", row["id"], "--from-csv", str(then)).exit_code == 1, "one is missing"


def test_an_unusable_source_of_people_is_refused(campaign: Stage) -> None:
    campaign.send(*MEMBERS[:8])
    [row] = campaign.rows(mailings, "list", "--least", "1")
    for args, says in (
        ((), "--from-list or --from-csv"),
        (("--from-list", "ramadan", "--from-csv", "x.csv"), "--from-list or --from-csv"),
        (("--from-list", "ramadam"), 'unknown list "ramadam" (did you mean ramadan?)'),
        (("--from-csv", "/nowhere/x.csv"), "/nowhere/x.csv: no such file"),
    ):
        result = campaign.run(mailings, "people", row["id"], *args)
        assert (result.exit_code, says in result.output) == (2, True), (args, result.output)
