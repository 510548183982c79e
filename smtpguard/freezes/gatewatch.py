"""Watch the gate, which is asked before every final dot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smtpguard.database.errors import Outage, StoreError
from smtpguard.journal.clock import Clock
from smtpguard.policy.freezing import Gate, Selectable, freezes_mailings, stopped_by

if TYPE_CHECKING:  # slow to import
    from smtpguard.mail.envelope import Fence
    from smtpguard.policy.facts import Facts
    from smtpguard.store.front import Front
    from smtpguard.store.nouns import Gates

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
FRESH_SECONDS = 1.0
"""The greatest age of the gate, as last read, at which a final dot is sent."""
STALE_SECONDS = 10.0
"""If the last read of the gate is older, the store does not answer this process."""
LOOK_SECONDS = 5.0
"""How long one read of the gate may take."""


@dataclass(eq=False)
class GateWatch:
    """Reads the gate four times a second. ``moved`` is called with each gate that differs from the one before. ``front``: knows
    the gate's generation at every moment."""

    gates: Gates
    clock: Clock
    moved: Callable[[Gate], None] | None = None
    front: Front | None = None
    gate: Gate | None = field(default=None, init=False)
    _read_at: float = field(default=float("-inf"), init=False)

    @property
    def age_seconds(self) -> float:
        """The time since the gate was last read, infinite before the first time."""
        return self.clock.monotonic() - self._read_at

    async def read(self) -> Gate:
        """Read the gate. Returns the newest known one. Raises StoreError; then the last gate stays, and grows stale."""
        asked_at = self.clock.monotonic()  # taken before the read: the answer is at least this new
        gate = await self.gates.read()
        if self.gate is not None and asked_at < self._read_at:  # a later read has returned first
            return self.gate
        before, self.gate = self.gate, gate
        self._read_at = asked_at
        if self.moved is not None and before is not None and before != gate:
            self.moved(gate)
        return gate

    async def run(self) -> None:
        """Watch without end. While the store does not answer, the fences stop all mail: doubt stands still."""
        outage = Outage(log, "the gate: waiting for the store", self.clock.monotonic)
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.read()
            except (StoreError, TimeoutError) as error:
                outage.report(error)
            else:
                outage.end()
            await asyncio.sleep(POLL_SECONDS)

    def stops(self, facts: Facts) -> bool:
        """Return whether a known freeze stops a message with these facts. Then its content is kept first. For a freeze that
        this process does not know yet the admission asks."""
        frozen = facts.identity is not None and self.freezes_mailings  # only the admission knows the mailing
        return frozen or not self.allows(Selectable(facts.lists, facts.senders, "", facts.thread), None)

    @property
    def freezes_mailings(self) -> bool:
        """Whether a mailing is known to be frozen. Then the admission must find the mailing of every message. It asks for one
        that is frozen meanwhile."""
        freezes = self.gate.freezes if self.gate is not None else ()
        return bool(freezes) and freezes_mailings(freezes)

    def allows(self, what: Selectable, policy_sha256: str | None) -> bool:
        """Return whether the gate, as last read, lets a message pass: no freeze stops it, and the policy that decided is in
        force (None: people decided)."""
        gate = self.gate
        if gate is None or (policy_sha256 is not None and gate.policy_sha256 != policy_sha256):
            return False
        return not gate.freezes or not stopped_by(gate.freezes, what)

    def fence(
        self, what: Selectable, policy_sha256: str | None = None, gone: Callable[[], bool] = lambda: False
    ) -> Fence:
        """Return the fence of a message: it says whether the final dot may be sent.

        The gate must have been read less than a second ago, and no freeze may stop the message. The policy that decided must
        be in force (None: people decided, and no policy changes that). The client must be connected (``gone``). A freeze or
        thaw of something else does not matter. Before the fence says no it reads the gate again: the verdict may be newer
        than the last read, and on a busy machine the last read may be old.
        """

        def holds() -> bool:
            if self.clock.monotonic() - self._read_at >= FRESH_SECONDS or gone():
                return False
            return self.allows(what, policy_sha256)

        async def fence() -> bool:
            if holds() and self._is_newest():
                return True
            if not gone():
                await self._look()
            return holds()

        return fence

    def _is_newest(self) -> bool:
        """Return whether the gate that was last read is the newest known."""
        newest = self.front.generation if self.front is not None else None
        return newest is None or (self.gate is not None and self.gate.generation == newest)

    async def _look(self) -> None:
        """Read the gate, and again if the answer took so long that it is stale."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self.read()
                while self.age_seconds >= FRESH_SECONDS:
                    await self.read()
