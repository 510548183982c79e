"""Cursors for paged lists, newest first, by time and id. Pure."""

from __future__ import annotations

from datetime import datetime

from smtpguard.journal.chain import instant, microseconds

PAGE = 50


def cursor(at: datetime, id: str) -> str:
    """The cursor of the last item looked at."""
    return f"{microseconds(at)}-{id}"


def cut(after: str) -> tuple[datetime, str] | None:
    """None for an invalid cursor."""
    at, _, id = after.partition("-")
    if not (at.isascii() and at.isdecimal() and len(at) < 18 and id):
        return None
    return instant(int(at)), id
