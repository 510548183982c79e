"""How far somebody outside was told what stands in the journal. Pure. Never here: the telling (observe), or the row (store)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """``told``: the last entry that they have, or that was nothing for them. ``attempts`` at the next one, failing since then,
    to be tried again at ``next_at``. ``lease``: fences off who was too slow."""

    told: int
    attempts: int = 0
    failing_since: datetime | None = None
    next_at: datetime | None = None
    lease: int = 0
