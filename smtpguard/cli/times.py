"""A moment, as people type it: a date or a time, or how long ago. Never here: how long something lasts (config.quantity)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from smtpguard.cli.context import CannotRun
from smtpguard.config.problem import Invalid
from smtpguard.config.quantity import seconds


def moment(option: str, text: str, now: datetime) -> datetime:
    """In UTC unless it says its offset. Raises CannotRun."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except ValueError:
        pass
    try:
        return now - timedelta(seconds=seconds(text))
    except (Invalid, OverflowError):
        raise CannotRun(
            f'{option}: "{text}" is no time; expected one like "2026-11-26 09:30" in UTC, or "2h" for so long ago'
        ) from None
