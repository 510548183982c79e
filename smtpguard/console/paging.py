"""Cursors for paged lists, newest first, by time and id. Pure."""

from __future__ import annotations

from datetime import datetime

from smtpguard.journal.chain import instant, microseconds

PAGE = 50


def cursor(at: datetime, id: str) -> str:
    """Of the last one looked at."""
    return f"{microseconds(at)}-{id}"


def cut(after: str) -> tuple[datetime, str] | None:
    """None for what is no cursor of ours."""
    at, _, id = after.partition("-")
    if not (at.isascii() and at.isdecimal() and len(at) < 18 and id):
        return None
    return instant(int(at)), id
