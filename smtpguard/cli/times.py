"""Parse a time in a command's option. Not in context.py, since a freeze should not wait for these imports."""

from __future__ import annotations

from datetime import datetime

from smtpguard.cli.context import CannotRun
from smtpguard.incidents import query


def moment(option: str, text: str, now: datetime) -> datetime:
    """Raises CannotRun."""
    try:
        return query.moment(text, now)
    except ValueError as error:
        raise CannotRun(f"{option}: {error}") from None
