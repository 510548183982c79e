"""The incident report through the API: who may ask, which questions are valid, and that it equals the command's report
and delays no other request."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.accounts.model import Role, Scope
from smtpguard.cli import main
from smtpguard.console import reporting
from smtpguard.console.api import incident
from smtpguard.console.api.operation import Long
from smtpguard.console.reporting import Made
from smtpguard.database.errors import Unavailable
from smtpguard.holds.model import Choice
from smtpguard.incidents import report
from tests.cli.installing import install
from tests.console.api.program import Program, held, program
from tests.console.holding import ANNA, EVA, NEWS
from tests.console.stage import Stage, stage
from tests.guard.house import KEY
from tests.store.servers import new_database

OLA = "ola@example.com"
PATH = "/incident/report"
UNNAMED = [scope for scope in Scope if scope is not Scope.INCIDENT_NAMES]


async def operator(here: Stage, **more: Any) -> Program:
    return await program(here, OLA, Role.OPERATOR, **more)


async def last(here: Stage) -> int:
    return await here.home.store.journal.last()


# -- the report


@pytest.fixture(params=["sqlite", "postgresql"])
async def rejected(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Stage, str]]:
    """A stage with a rejected message, and the message's id; the command uses the same store."""
    url = None if request.param == "sqlite" else new_database(request.getfixturevalue("postgresql"))
    install(tmp_path, KEY, (url or "").replace(":@", "@"))  # settings contain no password, not even an empty one
    async with stage(tmp_path, url=url) as here:
        hold_id = await held(here, NEWS)
        await here.home.approvals().vote(hold_id, Choice.REJECT, approver=EVA, by="a test", comment="Not to them")
        yield here, hold_id


@pytest.mark.parametrize("names", [True, False])
async def test_the_report_equals_that_of_the_command(
    rejected: tuple[Stage, str], tmp_path: Path, names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, hold_id = rejected
    monkeypatch.setattr("smtpguard.app.services.SystemClock", lambda: here.home.clock)
    asks = await operator(here)
    answer = await asks("POST", PATH, {"ids": [hold_id], "names": names})
    assert answer.status_code == 200
    command = ["-c", str(tmp_path / "smtpguard.yaml"), "incident", "report", hold_id, "--json"]
    said = await asyncio.to_thread(CliRunner().invoke, main, [*command, *([] if names else ["--no-names"])])
    assert said.exit_code == 0, said.output
    ours, theirs = answer.json(), json.loads(said.stdout)
    assert list(ours) == list(theirs), "the same keys in the same order"
    # a report with names writes one more entry
    same = ours.keys() - {"made_at", *(("journal", "proof") if names else ())}
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    assert theirs["proof"]["entries"] == ours["proof"]["entries"] + names
    assert (ANNA in answer.text, "Not to them" in answer.text, "lunch" in answer.text) == (names, names, names)


async def test_valid_queries_are_answered(here: Stage) -> None:
    await held(here, NEWS)
    asks = await operator(here)
    queries: list[tuple[dict[str, Any], int]] = [
        ({"lists": ["ramadan", "news"]}, 200),
        ({"subject": "lunch", "since": "2026-03-02 10:00+01:00", "until": "2026-03-03"}, 200),
        ({"ids": ["nobody"]}, 404),
        ({"lists": ["news"], "alone": True, "proof": False}, 200),
    ]
    for asked, status in queries:
        answer = await asks("POST", PATH, asked)
        assert answer.status_code == status, asked
        if status == 404:
            assert answer.json()["detail"].startswith("Nothing in the journal matches")
        else:
            assert answer.json()["messages"] == 1, asked
            assert (answer.json()["proof"] is None) is (asked.get("proof") is False)


EXPECTED = 'expected one like "2026-11-26 09:30" in UTC, or "2h" for so long ago'


INVALID: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {"body": "give at least one of ids, lists, senders, subject, since, until"}),
    ({"alone": True, "subject": "  "}, {"body": "give at least one of ids, lists, senders, subject, since, until"}),
    ({"since": "yesterday"}, {"body.since": f'invalid time "yesterday"; {EXPECTED}'}),
    ({"since": "", "until": "2026-13-01"}, {"body.since": f'invalid time ""; {EXPECTED}', "body.until": f'invalid time "2026-13-01"; {EXPECTED}'}),
    ({"until": "9999-12-31T23:59-12:00"}, {"body.until": f'invalid time "9999-12-31T23:59-12:00"; {EXPECTED}'}),
    ({"id": "T1"}, {"body.id": "Extra inputs are not permitted"}),
    ({"ids": ["x" * 101]}, {"body.ids.0": "String should have at most 100 characters"}),
    ({"ids": [""]}, {"body.ids.0": "String should have at least 1 character"}),
    ({"ids": ["x"] * 101}, {"body.ids": "List should have at most 100 items after validation, not 101"}),
    ({"since": 7}, {"body.since": "Input should be a valid string"}),
]  # fmt: skip


async def test_invalid_queries_are_422(here: Stage) -> None:
    asks = await operator(here)
    before = await last(here)
    for asked, wrong in INVALID:
        answer = await asks("POST", PATH, asked)
        assert answer.status_code == 422, asked
        assert {each["at"]: each["problem"] for each in answer.json()["errors"]} == wrong
    assert await last(here) == before


# -- permissions


async def test_a_report_with_names_is_journalled_with_person_and_token(here: Stage) -> None:
    await held(here, NEWS)
    asks = await operator(here)
    before = await last(here)
    assert (await asks("POST", PATH, {"lists": ["news"]})).status_code == 200
    assert await last(here) == before
    assert (await asks("POST", PATH, {"senders": [ANNA], "lists": ["news"], "names": True})).status_code == 200
    [(entry, clear)] = await here.home.store.journal.entries(after=before)
    assert entry.data == {"what": "incident report", "about": ["news"]}
    token = asks.token.split("_")[1]
    assert clear == {"actor": [OLA, f"{OLA} (token {token}: test)"], "from": [ANNA]}
    assert ANNA not in entry.body


async def test_names_need_their_own_scope(here: Stage) -> None:
    await held(here, NEWS)
    asks = await operator(here, scopes=UNNAMED)
    before = await last(here)
    for asked in ({"names": True, "lists": ["news"]}, {"senders": [ANNA]}, {"subject": "lunch"}):
        answer = await asks("POST", PATH, asked)
        assert answer.status_code == 403, asked
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="incident:names"'
    assert await last(here) == before
    assert (await asks("POST", PATH, {"lists": ["news"]})).status_code == 200


# -- other requests meanwhile


async def test_one_report_at_a_time_and_others_are_not_delayed(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await held(here, NEWS)
    asks = await operator(here)
    browser = await here.signed_in(EVA, Role.ADMIN)
    entered, go, made_in = threading.Event(), threading.Event(), []
    find = here.home.store.journal._walk

    def slow(opened: Any) -> Any:
        """Blocks in the thread that reads."""
        entered.set()
        assert go.wait(120)
        return find(opened)

    def row(made: Made) -> Any:
        made_in.append(threading.current_thread())
        return made_row(made)

    made_row = incident.row  # type: ignore[attr-defined]
    monkeypatch.setattr(here.home.store.journal, "_walk", slow)
    monkeypatch.setattr(incident, "row", row)
    first = asyncio.create_task(asks("POST", PATH, {"lists": ["news"], "names": True}))
    await asyncio.to_thread(entered.wait, 30)
    before = await last(here)
    busy = await asks("POST", PATH, {"lists": ["news"], "names": True})
    assert (busy.status_code, busy.headers["retry-after"]) == (409, "60")
    assert await last(here) == before, "nothing was shown"
    await browser.get("/incident")
    assert (await browser.post("/incident", list="news")).status_code == 409
    assert (await asks("GET", "/held")).status_code == 200
    go.set()
    assert (await first).status_code == 200
    assert made_in != [threading.main_thread()]
    assert (await asks("POST", PATH, {"lists": ["news"]})).status_code == 200


async def test_too_many_messages_are_422(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST", 0)
    await held(here, NEWS)
    asks = await operator(here)
    answer = await asks("POST", PATH, {"lists": ["news"]})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "More than 0 messages fit: ask for less at a time."
    monkeypatch.setattr(report, "MOST", 1)
    assert (await asks("POST", PATH, {"lists": ["news"]})).status_code == 200


async def test_a_word_of_too_many_messages_is_given_back_as_it_was_written(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held(here, NEWS, Subject="An Offer")
    monkeypatch.setattr(reporting, "MOST_FOUND", 0)
    answer = await (await operator(here))("POST", PATH, {"ids": ["Offer"]})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("More than 0 messages are found by Offer: ")


async def test_an_unavailable_store_answers_503(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    asks = await operator(here)
    monkeypatch.setattr(here.home.store.journal, "incident", away)
    answer = await asks("POST", PATH, {"lists": ["news"]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


words = st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(words, st.lists(values, max_size=7) | values, max_size=4), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_pieces_of_an_answer_join_to_one_document(value: dict[str, Any], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smtpguard.console.api.operation._PIECE", size)
        assert json.loads(b"".join(Long(value).pieces())) == value


def test_a_long_answer_is_sent_in_short_pieces() -> None:
    pieces = list(Long({"unsettled": [f"{n:016}" for n in range(5000)], "subject": "\ud800"}).pieces())
    assert max(map(len, pieces)) < 5000
    assert json.loads(b"".join(pieces))["subject"] == "\ud800"
