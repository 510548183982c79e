"""Membership by the index in use; and people counted over two versions of a list, from the index to the report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smtpguard.app.files import indexes
from smtpguard.app.lists import on_list
from smtpguard.config.settings import Settings
from smtpguard.incidents.query import IncidentQuery
from smtpguard.journal.distinct import Interval
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.digest import Digester
from smtpguard.lists.members import CsvMembers
from smtpguard.lists.sync import Refresher
from smtpguard.notices.listnotices import list_events
from smtpguard.store.store import Store
from tests.clocks import Clock

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
KEY = b"k" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "state").mkdir()
    return Settings(state=tmp_path / "state", policy=tmp_path / "policy.yaml")


def read(settings: Settings, digester: Digester, people: list[str], now: datetime) -> list[Event]:
    """The journal events of a sync of the list with these people."""
    base = settings.policy.parent
    (base / "news.csv").write_text("\n".join(["email", *people]) + "\n")
    info = ListInfo(name="news", members=(CsvMembers(csv="news.csv", column="email"),))
    indexes(settings).mkdir(parents=True, exist_ok=True)
    report = Refresher({"news": info}, folder=indexes(settings), base=base, digester=digester).sync(info, now)
    assert report.ok, report.problem
    return list(list_events(report))


def test_membership_is_known_of_the_current_version_only(settings: Settings) -> None:
    digester = Digester(KEY)
    asked = on_list(settings, digester)
    kim, bo = (digester.of_canonical(f"{name}@kund.se").hex() for name in ("kim", "bo"))
    assert asked(kim, ("news", "v1")) is None, "there is no index"
    [first] = read(settings, digester, ["kim@kund.se"], NOW)
    before = str(first.data["version"])
    assert (asked(kim, ("news", before)), asked(bo, ("news", before))) == (True, False)
    [then] = read(settings, digester, ["kim@kund.se", "bo@kund.se"], NOW + timedelta(hours=1))
    after = str(then.data["version"])
    assert (asked(bo, ("news", before)), asked(bo, ("news", after))) == (None, True)
    assert asked("sealed 1", ("news", after)) is None


async def test_a_report_counts_people_over_two_versions_of_a_list(
    settings: Settings, store: Store, clock: Clock
) -> None:
    """A report counts people over two versions of a list. Of single people after that, only members of the current
    version are known as counted."""
    digester = Digester(KEY)
    people = [f"p{n}@kund.se" for n in range(100)]
    sizes: dict[str, int] = {}

    async def went(id: str, *recipients: object) -> None:
        version, size = list(sizes.items())[-1]
        data = {"action": "relay", "lists": ["news"], "counts": {"reach": size}, "people": list(recipients),
                "crowds": {"news": [version, size, size]}}  # fmt: skip
        outcome = Event(kind=Kind.OUTCOME, id=id, at=clock.now(), data={"outcome": "relayed"})
        await store.journal.record([Event(kind=Kind.VERDICT, id=id, at=clock.now(), data=data), outcome])

    async def is_read(people: list[str]) -> None:
        found = read(settings, digester, people, clock.now())
        sizes[str(found[0].data["version"])] = len(people)
        await store.journal.record(found)
        clock.pass_(minutes=1)

    await is_read(people)
    await went("T1", {"lists": [0]})
    clock.pass_(minutes=1)
    now = [*people[2:], *(f"new{n}@kund.se" for n in range(3))]
    await is_read(now)
    await went("T2", {"lists": [0]})
    asked = on_list(settings, digester)
    report = (await store.journal.incident(IncidentQuery(lists=frozenset({"news"})), prove=True, asked=asked)).report
    assert report is not None
    assert report.reached.people == Interval(103, 103)
    stranger, member = (digester.of_canonical(key).hex() for key in ("stranger@kund.se", "new1@kund.se"))
    await went("T3", stranger)
    await went("T4", member)
    report = (await store.journal.incident(IncidentQuery(lists=frozenset({"news"})), prove=True, asked=asked)).report
    assert report is not None
    assert report.reached.people == Interval(103, 104), (
        "the new member is one of them; whether the other was on v1 is unknown"
    )
