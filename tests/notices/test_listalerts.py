"""Who hears that a list is stale: its owner or its approvers, once, whichever process finds it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from smtpguard.journal.event import Kind
from smtpguard.lists.sync import News, Report, SourceReport
from smtpguard.notices.listnotices import list_events, list_notices, list_readers
from smtpguard.observe.log import _level
from tests.guard.house import House

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SOURCE = SourceReport(key="k", label="ramadan.csv", people=80, rows=82, bad=2)


def report(*news: News, **more: object) -> Report:
    return Report(list="ramadan", at=AT, people=80, sources=(SOURCE,), version="v1", news=frozenset(news), **more)  # type: ignore[arg-type]


FAILED = report(News.FAILED, problem="gone", failing_since=AT, checked_at=AT)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (FAILED, "list-failed"),
        (report(News.FAILED, News.STALE, problem="gone", failing_since=AT, stale=True), "list-failed"),
        (report(News.STALE, problem="gone", failing_since=AT, stale=True), "list-stale"),
        (report(News.WELL, ended=AT), "list-well"),
        (report(News.WELL, News.REPLACED, ended=AT), "list-well"),
        (report(News.OTHERWISE, problem="empty", failing_since=AT), None),
        (report(News.REPLACED), None),
        (report(), None),
    ],
)
async def test_each_kind_of_news_makes_one_notice(home: House, said: Report, kind: str | None) -> None:
    in_force = home.in_force
    made = list(list_notices(said, in_force))
    assert {intent.data["notice"] for intent in made} == ({kind} if kind else set())
    assert [str(intent.recipients[0].address) for intent in made] == (list_readers("ramadan", in_force) if kind else [])
    assert list(list_notices(replace(said, at=AT.replace(hour=20)), in_force)) == made, (
        "found again, it is the same notice"
    )


async def test_stale_and_failed_are_two_notices(home: House) -> None:
    stale = report(News.STALE, problem="gone", failing_since=AT, stale=True)
    ids = [intent.intent_id for said in (FAILED, stale) for intent in list_notices(said, home.in_force)]
    assert len(set(ids)) == len(ids) > 0


async def test_each_host_tells_of_its_own_index(home: House) -> None:
    """A source may fail on one host alone; that it can be read again elsewhere says nothing of this one."""
    two = [replace(FAILED, host=host) for host in ("alpha", "beta")]
    made = [intent for said in two for intent in list_notices(said, home.in_force)]
    assert len({intent.intent_id for intent in made}) == len(made)
    assert {intent.data["host"] for intent in made} == {"alpha", "beta"}
    assert [event.data["host"] for said in two for event in list_events(said)] == ["alpha", "beta"]


def test_the_entry_has_the_news_and_no_address() -> None:
    [event] = list_events(FAILED, by="root")
    assert (event.kind, event.id, event.private) == (Kind.LIST, "ramadan", {"actor": ("root",)})
    assert event.data["problem"] == "gone"
    assert event.data["news"] == ["failed"]
    assert _level(event) == "error"
    [event] = list_events(report(News.REPLACED))
    assert (event.data["problem"], _level(event)) == (None, "info")
    assert "added" not in event.data
    assert list(list_events(report())) == []
    [event] = list_events(report(News.REPLACED, before="v1", added=3, removed=1))
    assert {key: event.data[key] for key in ("before", "added", "removed")} == {
        "before": "v1",
        "added": 3,
        "removed": 1,
    }


async def test_recipients_of_list_alerts(home: House) -> None:
    assert list_readers("no such list", home.in_force), "an unknown list has a recipient"
