"""The emergency bypass: relay, while the store is away, what can be judged without it. Each verdict is recorded first, in the
journal of the bypass.

It is off unless the settings name people who may begin one. A message passes only if nothing of the store could change its
verdict. Its rules let it pass while every count is unknown. By the indexes at hand it goes to no list and reaches at most three
customers. No freeze last seen may concern it. A message to customers must be correspondence, and none of its authors may have
written anything that waits for people or was rejected when the store was last seen. In any other case the admission decides,
and answers 451 while the store is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from smtpguard.admission.dispose import Dispose
from smtpguard.admission.fronted import key_of, marks_of
from smtpguard.admission.model import Admission
from smtpguard.admission.record import alone
from smtpguard.database.errors import StoreError
from smtpguard.freezes.gatewatch import FRESH_SECONDS, GateWatch
from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.streams import watched
from smtpguard.gathering.values import FEW
from smtpguard.holds.model import State
from smtpguard.journal.bypass import Bypass
from smtpguard.journal.clock import Clock
from smtpguard.mail.envelope import Fence
from smtpguard.policy.counted import OF_EACH_RECIPIENT, Live
from smtpguard.policy.engine import Plan
from smtpguard.policy.freezing import Gate, Selectable, freezes_mailings
from smtpguard.store.bypassed import Bypassed
from smtpguard.store.store import Store

log = logging.getLogger(__name__)

AWAY_SECONDS = 10.0
"""How long the gate could not be read when the store counts as away."""
DECIDED_SECONDS = 30.0
"""The time between two looks at what people are deciding."""
MOST_DECIDED = 1000


def needs_store(gathered: Gathered, plan: Plan, gate: Gate, decided: frozenset[str] | None) -> str:
    """Return why a message cannot be judged without the store, "" if it can. ``decided``: the authors of what waits or was
    rejected, None if they are not known. Pure."""
    facts, everyone = gathered.facts, gathered.everyone
    by_address = any(t.by_address or t.expanded for t in everyone.touched.values())
    if by_address or everyone.crowds or everyone.addressed or everyone.list_addresses.high or gathered.post is not None:
        return "it goes to a list, or may"
    if gathered.reports_to:
        return "reports on its delivery would go to a list"
    if everyone.customers.high > FEW:
        return f"it reaches more than {FEW} customers, or may"
    if facts.identity is not None and freezes_mailings(gate.freezes):
        return "a mailing is frozen, and it may be a copy of it"
    if gate.policy_sha256 != gathered.in_force.sha256:
        return "another policy is in force"
    if plan.pending or plan.pauses or plan.may_ask_writer or watched(gathered):
        return "it counts against a limit, or its writer may be asked"
    counts = bool(everyone.customers.high or facts.identity is not None)
    if plan.asks and (counts or not OF_EACH_RECIPIENT.isdisjoint([ask.fact for ask in plan.asks])):
        return "a rule counts its recipients over several messages"
    if everyone.customers.high:
        if facts.values.get("message.correspondence") is not True:
            return "it goes to customers, and is no correspondence"
        if decided is None or gathered.behind & decided:
            return "people's decisions may concern it"
    return ""


class BypassPath:
    """The bypass in one process. ``dispose``: carries out a verdict, with the fence and the journal of the bypass. ``relayed``: how
    many messages this process has recorded under a bypass."""

    def __init__(
        self,
        journal: Bypassed,
        store: Store,
        watch: GateWatch,
        clock: Clock,
        *,
        trace_key: bytes,
        hostname: str,
    ) -> None:
        self._journal, self._store, self._watch, self._clock = journal, store, watch, clock
        self._decided: frozenset[str] | None = None
        self._decided_at = float("-inf")
        self.dispose = Dispose(journal.note, self.fence, clock, trace_key=trace_key, hostname=hostname)
        self.relayed = 0

    def in_force(self) -> Bypass | None:
        """Return the bypass, None if there is none or the store is there."""
        return self._journal.in_force() if self._watch.age_seconds >= AWAY_SECONDS else None

    async def admit(self, bypass: Bypass, gathered: Gathered, plan: Plan) -> Admission | None:
        """Record a verdict to relay, and sync it. Returns None if nothing was written: then the admission must decide. Raises
        StoreError and TimeoutError if it is not known whether it was written."""
        gate, id = self._watch.gate, gathered.transaction.id
        if gate is None:
            return None
        try:
            why = needs_store(gathered, plan, gate, self._known_decided())
            if why:
                log.info("transaction %s: the bypass does not relay it: %s", id, why)
                return None
            now = self._clock.now()
            admission = alone(gathered, plan, Live(now=now, freezes=gate.freezes), gate.generation)
            if admission is None:
                log.info("transaction %s: the bypass does not relay it: a rule or a freeze may stop it", id)
                return None
        except Exception:
            log.exception("transaction %s: the bypass does not relay it", id)
            return None
        [event] = admission.events
        event = replace(event, data={**event.data, "bypass": bypass.id})
        key, marks = key_of(gathered.transaction), marks_of(gathered.facts)
        if not await self._journal.record(bypass, event, key=key, marks=marks, generation=gate.generation):
            return None
        self.relayed += 1
        log.warning("transaction %s: relayed under the bypass %s, without the store", id, bypass.id)
        return admission

    def fence(self, what: Selectable, policy_sha256: str, gone: Callable[[], bool]) -> Fence:
        """Return a fence as GateWatch.fence does, by the gate as last seen: the bypass must be in force, and this host must have
        begun no later generation."""

        async def fence() -> bool:
            gate = self._watch.gate
            if gate is None or self._journal.in_force() is None or gone():
                return False
            try:
                known = self._journal.generation
            except (OSError, ValueError):
                return False
            return known <= gate.generation and self._watch.allows(what, policy_sha256)

        return fence

    def _known_decided(self) -> frozenset[str] | None:
        """Return the authors, None if they were read long before the store went away."""
        seen_at = self._clock.monotonic() - self._watch.age_seconds
        return self._decided if seen_at - self._decided_at < 3 * DECIDED_SECONDS else None

    async def run(self) -> None:
        """Keep reading the authors of what waits or was rejected, while the store is there. Never returns."""
        while True:
            await self.look()
            await asyncio.sleep(DECIDED_SECONDS)

    async def look(self) -> None:
        """Read these authors once, if the store is there."""
        if self._watch.age_seconds >= FRESH_SECONDS:
            return
        asked_at = self._clock.monotonic()
        try:
            holds = await self._store.holds.newest(states=(State.WAITING,), limit=MOST_DECIDED)
            mailings = await self._store.mailings.newest(least=1 << 60, limit=MOST_DECIDED)
        except (StoreError, TimeoutError):
            return
        rejected = [each.rejection for each in mailings if each.rejection is not None]
        known = all(each.senders for each in rejected) and MOST_DECIDED not in (len(holds), len(mailings))
        senders = [*(hold.senders for hold in holds), *(each.senders for each in rejected)]
        self._decided, self._decided_at = frozenset().union(*senders) if known else None, asked_at
