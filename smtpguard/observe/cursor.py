"""The cursor of an outside receiver in the journal, and the alarms that were sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from smtpguard.journal.chain import Clear, Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """``told``: the last entry that was accepted, or skipped. ``attempts`` at the next one, failing since
    ``failing_since``, to be repeated at ``next_at``. ``lease``: fences off a process that was too slow."""

    told: int
    attempts: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """``entries`` of the wanted kinds, in order: all of them up to entry ``through``. ``end``: the journal's last
    entry."""

    entries: Sequence[tuple[Entry, Clear | None]]
    through: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaisedAlarm:
    """An alarm that was raised and is not known to be over. ``told``: when it was last sent, None: never.
    ``claimed_until``: a process is sending it. ``taken_by``: who takes care of it, "" while nobody does."""

    key: str
    began: datetime
    told: datetime | None = None
    claimed_until: datetime | None = None
    taken_by: str = ""
    taken_at: datetime | None = None
