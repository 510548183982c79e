"""A moment, as people type it: a date or a time, or how long ago. For whoever asks what was decided then.

Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from smtpguard.config.problem import Invalid
from smtpguard.config.quantity import seconds

EXPECTED = 'one like "2026-11-26 09:30" in UTC, or "2h" for so long ago'


def moment(text: str, now: datetime) -> datetime:
    """In UTC, unless it says an offset of its own. Raises ValueError, which says what was expected."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return now - timedelta(seconds=seconds(text))
    except (Invalid, OverflowError):
        raise ValueError(f'"{text}" is no time; expected {EXPECTED}') from None
