"""Write a line of the log for each committed event. A verdict to relay and its outcome are one line."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from smtpguard.app.auditfollower import PEOPLES
from smtpguard.journal.event import Event, Kind
from smtpguard.observe import log
from smtpguard.policy.verdict import Action

MOST_RELAYING = 10_000


class EventLog:
    """A subscriber of one store's committed events (store.opening.open_store), called in the writer's thread, and in
    that of the front. The actions of people are logged by auditfollower."""

    def __init__(self, tell: Callable[..., None] = log.tell) -> None:
        """``tell`` is called with the events of one commit that are logged, each an argument."""
        self._tell = tell
        self._relaying: OrderedDict[str, Event] = OrderedDict()  # verdicts that wait for their outcome, for one line

    def __call__(self, events: Sequence[Event]) -> None:
        told: list[Event] = []
        for event in events:
            if event.kind is Kind.VERDICT and event.data.get("action") == Action.RELAY.word:
                self._relaying[event.id] = event
                if len(self._relaying) > MOST_RELAYING:
                    told.append(self._relaying.popitem(last=False)[1])
                continue
            verdict = self._relaying.pop(event.id, None) if event.kind is Kind.OUTCOME else None
            if verdict is not None:  # the verdict, and the relay's reply
                data = {**verdict.data, **event.data}
                event = Event(kind=verdict.kind, id=event.id, at=event.at, data=data, private=verdict.private)
            if event.kind not in PEOPLES:
                told.append(event)
        if told:
            self._tell(*told)
