"""A moment, as an option of a command has it. Beside context, since a freeze is not to wait for what this imports."""

from __future__ import annotations

from datetime import datetime

from smtpguard.cli.context import CannotRun
from smtpguard.incidents import about


def moment(option: str, text: str, now: datetime) -> datetime:
    """Raises CannotRun."""
    try:
        return about.moment(text, now)
    except ValueError as error:
        raise CannotRun(f"{option}: {error}") from None
