"""The entry of a freeze or a thaw in the journal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from smtpguard.journal.chain import utc_text
from smtpguard.journal.event import Event, Kind
from smtpguard.policy.freezing import Freeze, Selector


def event_of(kind: Kind, freeze: Freeze, by: str, at: datetime, **more: Any) -> Event:
    """Return the entry of a freeze or a thaw. A sender's address and the reason are in its private part."""
    personal = freeze.selector is Selector.SENDER
    private = {"actor": (by,), "comment": (str(freeze.reason),)}
    if personal:
        private["from"] = (freeze.value,)
    data = {
        "selector": freeze.selector.value,
        "value": None if personal else freeze.value,
        "until": utc_text(freeze.until, "auto") if freeze.until else None,
    }
    return Event(kind=kind, id=freeze.freeze_id, at=at, data=data | more, private=private)
