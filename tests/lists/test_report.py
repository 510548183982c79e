"""The news of a sync for each previous state: an outage is reported once, and its end once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from smtpguard.lists.report import News, Report
from tests.every import every

BEGAN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(hours=1)
WELL = Report(list="news", at=NOW, people=100, version="v1")
FAILING = replace(WELL, problem="gone")
OTHER = replace(WELL, problem="empty")
STALE = replace(FAILING, stale=True)
MISSING = replace(STALE, people=0, version="")

BEFORE = {
    "none": None,
    "well": replace(WELL, at=BEGAN),
    "failing": replace(FAILING, at=BEGAN, failing_since=BEGAN),
    "stale": replace(STALE, at=BEGAN, failing_since=BEGAN),
}
TABLE = {
    ("none", "well"): set(),
    ("none", "failing"): {News.FAILED},
    ("none", "other"): {News.FAILED},
    ("none", "stale"): {News.FAILED, News.STALE},
    ("none", "missing"): {News.FAILED, News.STALE},
    ("well", "well"): set(),
    ("well", "failing"): {News.FAILED},
    ("well", "other"): {News.FAILED},
    ("well", "stale"): {News.FAILED, News.STALE},
    ("well", "missing"): {News.FAILED, News.STALE},
    ("failing", "well"): {News.WELL},
    ("failing", "failing"): set(),
    ("failing", "other"): {News.OTHERWISE},
    ("failing", "stale"): {News.STALE},
    ("failing", "missing"): {News.STALE},
    ("stale", "well"): {News.WELL},
    ("stale", "failing"): set(),  # one of several sources was read again: the outage goes on
    ("stale", "other"): {News.OTHERWISE},
    ("stale", "stale"): set(),
    ("stale", "missing"): set(),
}
AFTER = {"well": WELL, "failing": FAILING, "other": OTHER, "stale": STALE, "missing": MISSING}


def test_the_table_has_every_case() -> None:
    assert set(TABLE) == {(before, after) for before in BEFORE for after in AFTER}


@every(("before", "after", "changed"), [(*pair, changed) for pair in sorted(TABLE) for changed in (False, True)])
def test_news_by_previous_and_new_state(before: str, after: str, changed: bool) -> None:
    said = AFTER[after].after(BEFORE[before], changed=changed)
    assert said.news == TABLE[before, after] | ({News.REPLACED} if changed else set())
    assert said.changed is changed
    began = BEGAN if before in ("failing", "stale") else NOW
    assert said.failing_since == (None if after == "well" else began), "an outage has the time at which it began"
    assert said.ended == (BEGAN if News.WELL in said.news else None)
