"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from smtpguard.incidents.query import moment

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-26", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-26 09:30", datetime(2026, 11, 26, 9, 30, tzinfo=UTC)),
        ("2026-11-26T09:30:15Z", datetime(2026, 11, 26, 9, 30, 15, tzinfo=UTC)),
        ("2026-11-26 10:30+01:00", datetime(2026, 11, 26, 9, 30, tzinfo=UTC)),
        ("2h", NOW - timedelta(hours=2)),
        ("1d 30m", NOW - timedelta(days=1, minutes=30)),
    ],
)
def test_times_are_parsed(text: str, at: datetime) -> None:
    assert moment(text, NOW) == at
    assert moment(text, NOW).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01", "2", "-2h", "0h", "2026-11-26 25:00", "99999999999w", "100 years",
     "0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00"],
)  # fmt: skip
def test_an_invalid_time_names_the_expected_format(text: str) -> None:
    with pytest.raises(ValueError, match=r'expected one like "2026-11-26 09:30" in UTC, or "2h"'):
        moment(text, NOW)


def test_a_time_before_year_one_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid time"):
        moment("2h", datetime(1, 1, 1, tzinfo=UTC))
