"""Write a line of the log for each committed event. A verdict to relay and its outcome are one line."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

from smtpguard.app import auditfollower
from smtpguard.audit.event import Event, Kind
from smtpguard.policy.verdict import Action

MOST_RELAYING = 10_000


class EventLog:
    """A subscriber of one store's committed events (store.opening.open_store): called by the thread that writes."""

    def __init__(self, tell: Callable[[Event], None] = auditfollower.tell) -> None:
        self._tell = tell
        self._relaying: OrderedDict[str, Event] = OrderedDict()  # verdicts whose outcome is to stand in the same line

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind is Kind.VERDICT and event.data.get("action") == Action.RELAY.word:
                self._relaying[event.id] = event
                if len(self._relaying) > MOST_RELAYING:
                    self._line(self._relaying.popitem(last=False)[1])
                continue
            verdict = self._relaying.pop(event.id, None) if event.kind is Kind.OUTCOME else None
            if verdict is not None:  # what was decided, and what the relay said
                data = {**verdict.data, **event.data}
                event = Event(kind=verdict.kind, id=event.id, at=event.at, data=data, private=verdict.private)
            self._line(event)

    def _line(self, event: Event) -> None:
        """A log that cannot be written changes nothing: it is the journal that counts."""
        with contextlib.suppress(Exception):
            self._tell(event)
