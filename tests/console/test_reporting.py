"""Making an incident report: what is journalled of it, and that only one is made at a time."""

from __future__ import annotations

from typing import Any

import pytest

from smtpguard.console.ports import ConsoleServices
from smtpguard.console.reporting import Made, NothingFits, Occupied, make_once
from smtpguard.incidents import report
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Found, TooMany
from smtpguard.journal.event import Kind
from tests.console.holding import ANNA, NEWS, held
from tests.console.stage import Stage

LUNCH = IncidentQuery(subject="lunch")


async def made(here: Stage, query: IncidentQuery, **how: Any) -> Made:
    console: ConsoleServices = here.app.state.console
    usual: dict[str, Any] = {"prove": False, "names": True, "by": ("ola", "bot"), "language": "en"}
    return await make_once(console, query, **(usual | how))


async def last(here: Stage) -> tuple[str, Any, Any]:
    entry, clear = (await here.home.store.journal.entries(limit=1000))[-1]
    return entry.kind, entry.data, clear


async def test_a_report_with_names_is_journalled_even_if_empty_or_too_large(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held(here, NEWS)
    await made(here, IncidentQuery(senders=frozenset({ANNA})))
    assert await last(here) == (
        Kind.EXPORTED.value, {"what": "incident report", "about": []}, {"actor": ["ola", "bot"], "from": [ANNA]},
    )  # fmt: skip
    with pytest.raises(NothingFits):
        await made(here, IncidentQuery(ids=frozenset({"nobody"})))
    assert (await last(here))[1]["about"] == ["nobody"]
    monkeypatch.setattr(report, "MOST", 0)
    with pytest.raises(TooMany):
        await made(here, IncidentQuery(lists=frozenset({"news"})))
    assert (await last(here))[1]["about"] == ["news"]


async def test_a_report_without_names_is_not_journalled(here: Stage) -> None:
    await held(here, NEWS)
    before = await here.home.store.journal.last()
    await made(here, LUNCH, names=False)
    assert await here.home.store.journal.last() == before


async def test_a_mailing_is_found_by_the_beginning_of_its_id(here: Stage) -> None:
    hold = await held(here, NEWS)
    found = await made(here, IncidentQuery(ids=frozenset({hold.mailing_id[:6].lower()})))
    assert found.query.ids == {hold.mailing_id}
    assert (await last(here))[1]["about"] == [hold.mailing_id]


async def test_one_report_at_a_time_and_a_failed_one_does_not_block(
    here: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held(here, NEWS)
    console: ConsoleServices = here.app.state.console
    find = console.archive.incident

    async def asks_again(query: IncidentQuery, *, prove: bool) -> Found:
        with pytest.raises(Occupied):
            await made(here, LUNCH, names=False)
        raise TooMany("too many")

    monkeypatch.setattr(console.archive, "incident", asks_again)
    with pytest.raises(TooMany):
        await made(here, LUNCH, names=False)
    monkeypatch.setattr(console.archive, "incident", find)
    await made(here, LUNCH, names=False)
