"""The ledger as everybody is given it: each event is told to the log once it is committed, or noted.

Best effort, after the fact, and never in its way. Never here: what a line looks like (observe).
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from smtpguard.audit.event import Event
from smtpguard.mail.envelope import Recipient
from smtpguard.policy.admission import Admission, Change, Freeze, Gate, Intent, Item, Lease, Live, Outcome, Over
from smtpguard.policy.approval import Hold
from smtpguard.policy.mailing import Mailing
from smtpguard.policy.sending import Outgoing, Sending, Taken
from smtpguard.store import asking, deciding, takingback
from smtpguard.store.store import Store

_MOST_RELAYING = 10_000


class TellingStore:
    """A store that tells; reading goes straight through."""

    def __init__(self, store: Store, tell: Callable[[Event], None]) -> None:
        self._store = store
        self._teller = tell
        self._relaying: OrderedDict[str, Event] = OrderedDict()  # verdicts whose outcome is to stand in the same line
        self.keep = store.keep
        self.content = store.content
        self.gate = store.gate
        self.policy = store.policy
        self.lease = store.lease
        self.hold = store.hold
        self.holds = store.holds
        self.due = store.due
        self.history = store.history
        self.in_flight = store.in_flight
        self.in_doubt = store.in_doubt
        self.asked = store.asked
        self.attempted = store.attempted
        self.taken = store.taken
        self.outcomes = store.outcomes
        self.unsettled = store.unsettled
        self.rejected = store.rejected
        self.observed = store.observed
        self.decided_leads = store.decided_leads
        self.mailing = store.mailing
        self.mailings = store.mailings
        self.mailings_named = store.mailings_named
        self.called = store.called
        self.find = store.find
        self.writers = store.writers
        self.reached_by = store.reached_by
        self.outgoing = store.outgoing
        self.under = store.under
        self.shown = store.shown
        self.letters = store.letters
        self.templates = store.templates

    def _tell(self, event: Event) -> None:
        """A log that cannot be written must not make of what is committed a 451: it is the journal that counts."""
        with contextlib.suppress(Exception):
            self._teller(event)

    def _all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._tell(event)

    async def admit(self, item: Item, step: Callable[[Live], Admission]) -> Admission:
        admission = await self._store.admit(item, step)
        verdict, *others = admission.events
        if admission.disposition is None:
            self._relaying[verdict.id] = verdict
            if len(self._relaying) > _MOST_RELAYING:
                self._tell(self._relaying.popitem(last=False)[1])
        else:
            self._tell(verdict)
        self._all(others)
        return admission

    async def change(self, hold_id: str, step: Callable[[Hold], Change]) -> Change:
        change = await self._store.change(hold_id, step)
        self._all(change.events)
        return change

    async def take_back(self, hold_id: str, step: takingback.Step) -> Taken:
        taken = await self._store.take_back(hold_id, step)
        self._all(event for change in taken.changes for event in change.events)
        return taken

    async def take_back_mailing(
        self, mailing_id: str, decide: takingback.Decide, step: takingback.Step
    ) -> tuple[Mailing | str, Taken]:
        told: list[Event] = []

        def telling(mailing: Mailing, outgoing: Outgoing) -> tuple[Mailing, Change] | str:
            made = decide(mailing, outgoing)
            told.extend(made[1].events if not isinstance(made, str) else ())
            return made

        mailing, taken = await self._store.take_back_mailing(mailing_id, telling, step)
        self._all((*told, *(event for change in taken.changes for event in change.events)))
        return mailing, taken

    async def ask_about(self, hold_id: str, step: asking.Step, over: Over) -> None:
        told: list[Event] = []

        def telling(hold: Hold, recipients: Sequence[Recipient]) -> Change:
            made = step(hold, recipients)
            told.extend(made.events)
            return made

        await self._store.ask_about(hold_id, telling, self._over(over, told))
        self._all(told)

    async def say(self, hold_id: str, step: asking.Step, over: Over, *, sent: bool) -> Change:
        told: list[Event] = []
        made = await self._store.say(hold_id, step, self._over(over, told), sent=sent)
        self._all((*made.events, *told))
        return made

    def _over(self, over: Over, told: list[Event]) -> Over:
        """The same, and what it journals is to be told."""

        def telling(hold: Hold, intent_id: str) -> tuple[tuple[Event, ...], tuple[Intent, ...]]:
            made = over(hold, intent_id)
            told.extend(made[0])
            return made

        return telling

    async def follow(self, lead_id: str, n: int, step: deciding.Follow) -> int:
        told: list[Event] = []

        def telling(
            lead: Hold, copy: Hold, mailing: Mailing | None, new: int, sending: Sending | None, covered: bool
        ) -> Change | None:
            made = step(lead, copy, mailing, new, sending, covered)
            told.extend(made.events if made is not None else ())
            return made

        done = await self._store.follow(lead_id, n, telling)
        self._all(told)
        return done

    async def change_mailing(
        self, mailing_id: str, step: Callable[[Mailing], tuple[Mailing, Change] | str]
    ) -> Mailing | str:
        told: list[Event] = []

        def telling(mailing: Mailing) -> tuple[Mailing, Change] | str:
            made = step(mailing)
            told.extend(made[1].events if not isinstance(made, str) else ())
            return made

        mailing = await self._store.change_mailing(mailing_id, telling)
        self._all(told)
        return mailing

    async def record(self, events: Sequence[Event], intents: Sequence[Intent] = ()) -> None:
        await self._store.record(events, intents)
        self._all(events)

    def note(self, event: Event) -> None:
        self._store.note(event)
        verdict = self._relaying.pop(event.id, None)
        if verdict is not None:  # one line a message: what was decided, and what the relay said
            data = {**verdict.data, **event.data}
            event = Event(kind=verdict.kind, id=event.id, at=event.at, data=data, private=verdict.private)
        self._tell(event)

    async def freeze(self, freeze: Freeze, event: Event) -> Gate:
        gate = await self._store.freeze(freeze, event)
        self._tell(event)
        return gate

    async def thaw(self, freeze_id: str, event: Event) -> Gate:
        gate = await self._store.thaw(freeze_id, event)
        self._tell(event)
        return gate

    async def put_policy(
        self, sha256: str, documents: Mapping[str, bytes], event: Event, before: str | None = None
    ) -> Gate:
        gate = await self._store.put_policy(sha256, documents, event, before)
        self._tell(event)
        return gate

    async def settle(
        self,
        lease: Lease,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        intents: Sequence[Intent] = (),
        over: Over | None = None,
    ) -> bool:
        told = list(events)
        telling = self._over(over, told) if over is not None else None
        settled = await self._store.settle(lease, outcomes, events, intents, telling)
        if settled:
            self._all(told)
        return settled
