"""smtpguard find, and incident report with the same search words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from smtpguard.cli.audit import _ends
from smtpguard.holds.model import Choice
from smtpguard.mail.reply import Reply
from tests.cli.installing import install, printed, running
from tests.every import every
from tests.guard.house import KEY, RAMADAN, FakePassage, house

run = running()

HELD, PASSED, REFUSED = "T000000000000001", "T000000000000002", "T000000000000003"


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """An installation with a message held and rejected, one that passed, and one that the relay refused."""
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            intake = home.intake()
            await intake(home.transaction(RAMADAN), FakePassage())
            taken = FakePassage(
                replies=(Reply(250, ("2.0.0 In the queue of mx as 4FrontQ1, and queued as 5RelayQ1",)),)
            )
            session = {"ident": "4FrontQ1", "listener": "inside"}
            transaction = home.transaction(
                "otto@partner.example",
                "x@example.org",
                session=session,
                Subject="Drawings",
                Message_ID="<2@example.com>",
            )
            await intake(transaction, taken)
            refused = FakePassage(replies=(Reply(550, ("5.1.1 no such user",)),))
            await intake(home.transaction("nobody@partner.example", Message_ID="<3@example.com>"), refused)
            await home.approvals().vote(HELD, Choice.REJECT, approver="eva@example.com", by="eva", comment="no")
            await home.settled(REFUSED)

    asyncio.run(work())
    return tmp_path


def rows(story: Path, *words: str) -> list[dict[str, Any]]:
    return list(map(json.loads, printed(run(story, "find", "--json", *words))))


@every(
    ("words", "ids"),
    [
        (["4frontq1"], [PASSED]), (["5RelayQ1"], [PASSED]), (["<2@example.com>"], [PASSED]), (["otto@partner.example"], [PASSED]),
        (["anna@example.com"], [REFUSED, PASSED, HELD]), (["lunch"], [HELD]), (["anna@example.com", "lunch"], [HELD]),
        (["anna@example.com lunch"], [HELD]), ([HELD.lower()], [HELD]), (["192.0.2.1", "x@example.org"], [PASSED]),
    ],
)  # fmt: skip
def test_messages_are_found(story: Path, words: list[str], ids: list[str]) -> None:
    assert [each["id"] for each in rows(story, *words)] == ids


def test_results_as_json(story: Path) -> None:
    [row] = rows(story, "4FrontQ1")
    assert row == {
        "at": "2026-03-02T09:00:00Z", "id": PASSED, "ends": ["delivered"], "numbers": {"delivered": 2}, "frozen": [], "hold": None, "mailing": None,
        "reverse_path": "anna@example.com", "from": "anna@example.com", "login": None, "subject": "Drawings", "recipients": 2, "reach": 2,
        "message_id": "<2@example.com>", "queue_ids": ["4FrontQ1", "5RelayQ1"], "client": "192.0.2.1", "listener": "inside",
    }  # fmt: skip
    assert [each["ends"] for each in rows(story, "anna@example.com")] == [["refused"], ["delivered"], ["declined"]]


def test_retried_and_recalled_messages_have_the_last_outcome(tmp_path: Path) -> None:
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            for _ in range(2):
                await home.send(RAMADAN)
            way = FakePassage(before_dot=home.freeze)
            await home.intake()(home.transaction("otto@partner.example", Message_ID="<2@example.com>"), way)
            await home.thaw()
            for id in (HELD, REFUSED):
                await home.approvals().vote(id, Choice.REJECT, approver="eva@example.com", by="eva", comment="no")

    asyncio.run(work())
    for id, hold in ((HELD, HELD), (PASSED, HELD), (REFUSED, REFUSED)):
        [row] = rows(tmp_path, id)
        assert (row["ends"], row["hold"]) == (["declined"], hold), id


def test_results_in_words(story: Path) -> None:
    said = run(story, "find", "anna@example.com", "--most", "2")
    assert said.stdout.splitlines() == [
        f"2026-03-02 09:00:00 UTC  {REFUSED}  refused",
        "    from anna@example.com to 1 recipient",
        "    Message-ID <3@example.com>",
        f"2026-03-02 09:00:00 UTC  {PASSED}  delivered",
        "    from anna@example.com to 2 recipients",
        "    queue ids 4FrontQ1, 5RelayQ1; Message-ID <2@example.com>",
    ]
    assert said.stderr == "There are more: the newest 2 are shown (--most).\n"
    [_, people, called] = run(story, "find", "lunch").stdout.splitlines()
    assert people == "    from anna@example.com to 1 recipient, 60 people"
    assert f"held as {HELD}" in called


def test_an_approved_message_that_a_freeze_stops_is_not_on_its_way(tmp_path: Path) -> None:
    install(tmp_path, KEY)

    async def work() -> None:
        async with house(tmp_path) as home:
            await home.send(RAMADAN)
            await home.freeze()
            for who in ("eva@example.com", "dpo@example.com"):
                await home.approvals().vote(HELD, Choice.APPROVE, approver=who, by="eva")

    asyncio.run(work())
    first, goes, *_ = run(tmp_path, "find", HELD).stdout.splitlines()
    assert first == f"2026-03-02 09:00:00 UTC  {HELD}  approved, frozen"
    assert goes.startswith("    it goes out when this is thawed: everything (by ")
    [row] = rows(tmp_path, HELD)
    assert (row["ends"], [each["selector"] for each in row["frozen"]]) == (["on its way"], ["all"])


def test_several_outcomes_have_their_numbers() -> None:
    each = {"ends": ["released", "undelivered"], "numbers": {"released": 1200, "undelivered": 3}, "frozen": []}
    assert _ends(each) == "released 1,200, undelivered 3"


def test_a_search_without_a_match_fails(story: Path) -> None:
    result = run(story, "find", "nobody@elsewhere.example")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing matches nobody@elsewhere.example" in str(result.exception or "") + result.stderr
    assert run(story, "find", " ").exit_code == 2
    assert run(story, "find").exit_code == 2


def test_a_search_is_journalled_with_its_words_erasable(story: Path) -> None:
    rows(story, "otto@partner.example")
    last = run(story, "audit", "export", "--clear").stdout.splitlines()[-2]  # the last entry is of the export itself
    entry = json.loads(last)
    assert (entry["kind"], entry["data"]) == ("exported", {"what": "find", "found": 1})
    assert entry["private"]["comment"] == ["otto@partner.example"]
    assert "otto" not in entry["body"]


@pytest.mark.parametrize("word", ["4FrontQ1", "5RelayQ1", "2@example.com", "otto@partner.example"])
def test_an_incident_report_takes_the_same_words(story: Path, word: str) -> None:
    made = json.loads(run(story, "incident", "report", "--json", word).stdout)
    assert (made["messages"], made["about"]) == (1, [PASSED])


def test_a_report_of_several_messages_and_of_none(story: Path) -> None:
    made = json.loads(run(story, "incident", "report", "--json", "anna@example.com").stdout)
    assert made["messages"] == 3
    nothing = run(story, "incident", "report", "nobody@elsewhere.example")
    assert nothing.exit_code == 1
    assert "nothing has the name nobody@elsewhere.example" in str(nothing.exception or "") + nothing.stderr
