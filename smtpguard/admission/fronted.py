"""Verdicts that are recorded in a front instead of by an admission: of plain messages in the journal's front, and under the
emergency bypass in the bypass's. The record comes first here too: before the final dot.

A verdict is plain if it and all other admissions are independent of each other. Every rule has answered and lets the
message pass. It touches no list, is a copy of no mailing, and adds to no count. Every count that its rules ask for is
zero. No freeze is active, and no hold has its key. Its place in the order of admissions is the moment of this check. It
adds to nothing, so no other admission can tell.

The bypass relays, while the store is away, what can be judged without it. It is off unless the settings name people who
may begin one. A message passes only if nothing of the store could change its verdict. Its rules let it pass while every
count is unknown. By the indexes at hand it goes to no list and reaches at most three customers. No freeze last seen may
concern it. A message to customers must be correspondence, and none of its authors may have written anything that waits
for people or was rejected when the store was last seen. In any other case the admission decides, and answers 451 while
the store is away.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace

from smtpguard.admission.dispose import Dispose
from smtpguard.admission.model import Admission
from smtpguard.admission.record import alone
from smtpguard.database.errors import StoreError
from smtpguard.freezes.gatewatch import FRESH_SECONDS, GateWatch
from smtpguard.gathering.gather import Gathered
from smtpguard.gathering.streams import watched
from smtpguard.gathering.values import FEW
from smtpguard.holds.model import State
from smtpguard.journal.bypass import Bypass
from smtpguard.journal.chain import canonical
from smtpguard.journal.clock import Clock
from smtpguard.mail.envelope import Fence, Transaction
from smtpguard.policy.counted import OF_EACH_RECIPIENT, Live
from smtpguard.policy.engine import Plan
from smtpguard.policy.facts import Facts
from smtpguard.policy.freezing import Gate, Selectable, freezes_mailings
from smtpguard.store.bypassed import Bypassed
from smtpguard.store.store import Store


def is_plain(gathered: Gathered, plan: Plan) -> bool:
    """Whether nothing of the message is counted or compared, and its rules let it pass whatever their counts are."""
    facts, everyone = gathered.facts, gathered.everyone
    if (
        everyone.touched
        or everyone.crowds
        or everyone.unsure
        or everyone.customers.high
        or everyone.list_addresses.high
    ):
        return False
    if facts.identity is not None or facts.letter_from or gathered.post is not None or gathered.coming is not None:
        return False
    if gathered.streams or facts.lists or gathered.counted.people or plan.pending or plan.pauses:
        return False
    return plan.lets_pass


def is_still(gate: Gate | None, generation: int | None, policy_sha256: str) -> bool:
    """Whether this gate is in force at this moment and has no freezes. ``generation``: the gate's, read now."""
    return (
        gate is not None and not gate.freezes and gate.generation == generation and gate.policy_sha256 == policy_sha256
    )


def key_of(transaction: Transaction) -> str:
    """A digest of content and envelope; a retry has the same."""
    return hashlib.sha256(f"{transaction.message.sha256} {transaction.envelope.sha256}".encode()).hexdigest()


def marks_of(facts: Facts) -> str:
    """What a freeze compares with while the message is under way, in the form that an admission writes."""
    return canonical([sorted(facts.lists), sorted(facts.senders), "", facts.thread])


log = logging.getLogger(__name__)

AWAY_SECONDS = 10.0
"""The store is away when its gate could not be read for so long."""
DECIDED_SECONDS = 30.0
MOST_DECIDED = 1000


def needs_store(gathered: Gathered, plan: Plan, gate: Gate, decided: frozenset[str] | None) -> str:
    """Why it cannot be judged without the store; "" if it can, whatever the counts are. ``decided``: the authors of what
    waits or was rejected, None if they are not known. Pure."""
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
    """The bypass in one process. ``carry_out``: as the disposal of an admission, with the fence and the front of the
    bypass."""

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
        """Messages that were recorded under a bypass by this process."""

    def in_force(self) -> Bypass | None:
        """The bypass, if there is one and the store is away."""
        return self._journal.in_force() if self._watch.age_seconds >= AWAY_SECONDS else None

    async def admit(self, bypass: Bypass, gathered: Gathered, plan: Plan) -> Admission | None:
        """The verdict, synced; None if nothing was written, and the admission is to decide. Raises StoreError and
        TimeoutError if it is unknown whether it was written."""
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
        """As GateWatch.fence, by the gate as last seen: the bypass is still in force, and this host has begun no later
        generation."""

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
        """None if they were read long before the store went away."""
        seen_at = self._clock.monotonic() - self._watch.age_seconds
        return self._decided if seen_at - self._decided_at < 3 * DECIDED_SECONDS else None

    async def run(self) -> None:
        """Follow, while the store is there, the authors of what waits or was rejected. Never returns."""
        while True:
            await self.look()
            await asyncio.sleep(DECIDED_SECONDS)

    async def look(self) -> None:
        if self._watch.age_seconds >= FRESH_SECONDS:
            return
        asked_at = self._clock.monotonic()
        try:
            holds = await self._store.holds.newest(states=(State.WAITING,), limit=MOST_DECIDED)
            mailings = await self._store.mailings.newest(least=1 << 60, limit=MOST_DECIDED)
        except (StoreError, TimeoutError):
            return
        rejected = [found for each in mailings if (found := each.rejected(self._clock.now())) is not None]
        known = all(each.senders for each in rejected) and MOST_DECIDED not in (len(holds), len(mailings))
        senders = [*(hold.senders for hold in holds), *(each.senders for each in rejected)]
        self._decided, self._decided_at = frozenset().union(*senders) if known else None, asked_at
