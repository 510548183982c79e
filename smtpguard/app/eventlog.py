"""Write a line of the log for each committed event. A verdict to relay and its outcome are one line."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from smtpguard.journal.chain import Clear, Cursor, Entry
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind, new_event
from smtpguard.locale.phrase import load
from smtpguard.observe import log
from smtpguard.policy.verdict import Action
from smtpguard.store.store import Store

MOST_RELAYING = 10_000
"""The most verdicts that wait for their outcome."""
MOST_EARLY = 1_000
"""The most outcomes that are remembered because they came before their verdict."""
PEOPLE_KINDS = frozenset({
    Kind.VOTE, Kind.APPROVED, Kind.CONFIRMED, Kind.UNCONFIRMED, Kind.REJECTED, Kind.WITHDRAWN, Kind.APART, Kind.REOPENED,
    Kind.STOPPED, Kind.SETTLED, Kind.ASKED, Kind.ANSWERED, Kind.PLEADED, Kind.JUDGED, Kind.VIEWED, Kind.EXPORTED,
    Kind.FREEZE, Kind.THAW, Kind.THAW_ASKED, Kind.BYPASS, Kind.MAILING, Kind.RETURNED, Kind.TRIPPED, Kind.TAKEN,
    Kind.PRESERVED, Kind.INCIDENT, Kind.ERASED, Kind.POLICY, Kind.SECRET, Kind.KEY,
    Kind.ACCOUNT, Kind.ABSENCE, Kind.GROUP, Kind.TOKEN,
})  # fmt: skip
"""The kinds of what people do with a command, and of what another process does about it later, such as the end of a freeze.
``lists sync`` is not among them: the first start reads lists before there is a follower."""

NAME = "(log)"  # the cursor's name; config forbids it for webhooks
LEASE_SECONDS = 60.0
SCAN = 500  # lines at a time


class EventLog:
    """A subscriber that logs one store's committed events (store.store.open_store). It is called in the writer's thread, and in
    that of the front. The actions of people are left to AuditFollower."""

    def __init__(self, tell: Callable[..., None] = log.tell) -> None:
        """``tell`` is called with the events of one commit that are logged, each an argument."""
        self._tell = tell
        self._relaying: OrderedDict[str, Event] = OrderedDict()  # verdicts that wait for their outcome, for one line
        self._early: OrderedDict[str, bool] = OrderedDict()  # outcomes that came before their verdict

    def __call__(self, events: Sequence[Event]) -> None:
        told: list[Event] = []
        for event in events:
            if event.kind is Kind.VERDICT and event.data.get("action") == Action.RELAY.word:
                if self._early.pop(event.id, False):  # the front tells of its verdicts a little later than the writer
                    told.append(event)
                else:
                    self._relaying[event.id] = event
                    if len(self._relaying) > MOST_RELAYING:
                        told.append(self._relaying.popitem(last=False)[1])
                continue
            if event.kind is Kind.OUTCOME or event.kind is Kind.IN_DOUBT:
                verdict = self._relaying.pop(event.id, None)
                if verdict is None:
                    self._early[event.id] = True
                    if len(self._early) > MOST_EARLY:
                        self._early.popitem(last=False)
                elif event.kind is Kind.IN_DOUBT:
                    told.append(verdict)  # a line of its own before the warning: it names the people
                else:  # the verdict, and the relay's reply
                    data = {**verdict.data, **event.data}
                    event = new_event(kind=verdict.kind, id=event.id, at=event.at, data=data, private=verdict.private)
            if event.kind not in PEOPLE_KINDS:
                told.append(event)
        if told:
            self._tell(*told)


class AuditFollower:
    """A follower of the journal that logs the actions of people, whichever process recorded them. A command's standard error is a
    terminal, so votes and freezes from the command line would be in no log. One follower in an installation does it, under a
    lease, and starts where the last one stopped. ``tell`` gets each entry at least once; twice if the process died between the
    line and the cursor."""

    def __init__(self, store: Store, clock: Clock, tell: Callable[[Event], None] = log.tell) -> None:
        self._cursors, self._clock, self._tell = store.cursors, clock, tell

    async def follow(self) -> int:
        """Log the new entries; the first call logs none. Returns how many lines it wrote. Raises StoreError."""
        place = await self._cursors.at(NAME)
        news = await self._cursors.news(place.told, tuple(PEOPLE_KINDS), SCAN)
        if not news.entries:
            if news.through > place.told:
                await self._cursors.pass_over(NAME, place, news.through)
            return 0
        until = self._clock.now() + timedelta(seconds=LEASE_SECONDS)
        if (leased := await self._cursors.lease(NAME, place, until)) is None:
            return 0
        for entry, clear in news.entries:
            with contextlib.suppress(Exception):  # a log that cannot be written must not block the next lines
                self._tell(_event(entry, clear))
        await self._cursors.settle(NAME, Cursor(told=news.through, lease=leased.lease))
        return len(news.entries)


def _event(entry: Entry, clear: Clear | None) -> Event:
    """Return an entry as an event for the log. ``at`` in it: when it was done, since its line may be later; ``entry``: its
    number in the journal."""
    data = {"at": entry.time.isoformat(timespec="seconds"), "entry": entry.seq, **entry.data}
    if isinstance(why := data.get("why"), Mapping):
        data["why"] = str(load(why))
    private = {role: tuple(values) for role, values in (clear or {}).items()}
    return Event(kind=Kind(entry.kind), id=entry.id, at=entry.time, data=data, private=private)
