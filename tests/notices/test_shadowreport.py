"""The daily report of a guard that only observes: its recipients, its content, and once a day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smtpguard.notices.daily import Daily, day_of, observed_reports
from smtpguard.notices.daily import fill_observed as fill
from smtpguard.outbox.model import Intent
from tests.guard.house import DOCUMENTS, MEMBERS, POLICY, RAMADAN, FakePassage, House, house

ZONE = "Europe/Stockholm"


def observing(text: str = POLICY) -> dict[str, bytes]:
    return {**DOCUMENTS, "policy.yaml": text.replace("enforce: true", "enforce: false").encode()}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, documents=observing()) as made:
        yield made


async def due(home: House) -> list[Intent]:
    return [i for i in await home.outbox() if i.data["notice"] == "observed"]


async def sent(home: House, *to: str, **more: Any) -> None:
    way = FakePassage()
    await home.intake()(home.transaction(*to, **more), way)
    assert way.sent, "it only observes"


async def test_owners_and_approvers_get_one_report_a_day(home: House) -> None:
    reports = Daily(home.given_store, home, home.clock, observed_reports)
    for _ in range(3):
        await reports.write()
        await Daily(home.given_store, home, home.clock, observed_reports).write()  # another node
    assert await due(home) == [], "not before the day is over"
    home.clock.pass_(days=1)
    told = await due(home)
    assert sorted(str(i.recipients[0].address) for i in told) == ["eva@example.com", "omar@example.com"]
    assert all(i.reverse_path is None and i.recipients[0].notify == "NEVER" for i in told)
    await reports.write()
    home.clock.pass_(days=1)
    assert len(await due(home)) == 4


async def test_an_enforcing_policy_reports_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await Daily(home.given_store, home, home.clock, observed_reports).write()
        home.clock.pass_(days=2)
        assert await due(home) == []


async def test_the_report_lists_what_would_have_been_held(home: House) -> None:
    await sent(home, RAMADAN, Subject="the day before", Message_ID="<0@example.com>")
    home.clock.pass_(days=1)
    await Daily(home.given_store, home, home.clock, observed_reports).write()
    for n in range(60):
        await sent(home, RAMADAN, body=str(n), Subject=f"number {n}", Message_ID=f"<{n}.1@example.com>")
    await sent(home, "bob@partner.example", Subject="ordinary")
    await sent(home, *MEMBERS[:6], Subject="hidden", To="lotta@example.com")
    await sent(home, RAMADAN, Subject="away", reverse_path="")
    home.clock.pass_(days=1)
    await sent(home, RAMADAN, Subject="the day after", Message_ID="<2@example.com>")
    [intent, _] = await due(home)
    data = await fill(home.given_store, intent.data, home.in_force)
    assert (data["judged"], data["total"], data["at_least"]) == (63, 62, False)
    by_rule = {r["rule"]: (r["would"], r["count"]) for r in data["rules"]}
    assert by_rule["internal-to-list"] == ("hold", 61)
    assert by_rule["internal-to-hidden-members"] == ("hold", 1)
    assert by_rule["automatic-to-list"] == ("reject", 1)
    assert data["rules"][0]["description"] == "Mail between colleagues never goes to a customer list"
    assert len(data["messages"]) == 50
    first, second, third = data["messages"][:3]
    assert [m["subject"] for m in (first, second, third)] == ["away", "hidden", "number 59"]
    assert third["from"] == "anna@example.com"
    assert third["reach"] == len(MEMBERS)
    assert third["lists"] == ["Ramadan greetings"]
    assert second["lists"] == [], "the list of a single recipient is not named"
    assert not any("the day" in m["subject"] for m in data["messages"])


async def test_a_day_without_holds_is_reported(home: House) -> None:
    await Daily(home.given_store, home, home.clock, observed_reports).write()
    await sent(home, "bob@partner.example")
    home.clock.pass_(days=1)
    [intent, _] = await due(home)
    data = await fill(home.given_store, intent.data, home.in_force)
    assert (data["judged"], data["total"], data["rules"], data["messages"]) == (1, 0, [], [])


@pytest.mark.parametrize(
    ("at", "since", "hours"),
    [
        (datetime(2026, 3, 2, 22, 59, tzinfo=UTC), datetime(2026, 3, 1, 23, 0, tzinfo=UTC), 24),
        (datetime(2026, 3, 2, 23, 0, tzinfo=UTC), datetime(2026, 3, 2, 23, 0, tzinfo=UTC), 24),
        (datetime(2026, 3, 29, 12, 0, tzinfo=UTC), datetime(2026, 3, 28, 23, 0, tzinfo=UTC), 23),
        (datetime(2026, 10, 25, 12, 0, tzinfo=UTC), datetime(2026, 10, 24, 22, 0, tzinfo=UTC), 25),
    ],
)
async def test_a_day_is_in_the_organizations_zone(tmp_path: Path, at: datetime, since: datetime, hours: int) -> None:
    async with house(tmp_path, documents=observing(POLICY.replace("zone: UTC", f"zone: {ZONE}"))) as home:
        assert day_of(at, home.in_force) == (since, since + timedelta(hours=hours))
