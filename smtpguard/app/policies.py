"""The policy in force, followed: when the gate moves, the new one is built beside the old and swapped in as a whole.

The documents come from the store by their SHA-256, so that every process of every node has the same. A transaction goes on
under what it began with; the store lets it be admitted only if that is still in force. Never here: putting one in force.
"""

from __future__ import annotations

import asyncio
import logging

from smtpguard.app.files import parse_policy
from smtpguard.app.lists import built_registry
from smtpguard.app.reading import surroundings
from smtpguard.config.settings import Settings
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Clock, Ledger
from smtpguard.lists.digest import Digester
from smtpguard.policy.admission import Gate, Unavailable
from smtpguard.policy.parse import Policy
from smtpguard.reading.surroundings import Surroundings

log = logging.getLogger(__name__)


class Following:
    """guard.inforce.Policies. ``follow`` once before ``current``. ``reading``: what a reader needs is built as well."""

    def __init__(
        self, ledger: Ledger, settings: Settings, digester: Digester, clock: Clock, *, reading: bool = False
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._digester = digester
        self._clock = clock
        self._reading = reading
        self._current: InForce | None = None
        self._policy: Policy | None = None
        self._surroundings: Surroundings | None = None
        self._one_at_a_time = asyncio.Lock()
        self._following: asyncio.Task[InForce] | None = None

    def current(self) -> InForce:
        if self._current is None:
            raise Unavailable("no policy is in force yet")
        return self._current

    @property
    def policy(self) -> Policy:
        """The whole of it, for those who work with more than its rules."""
        if self._policy is None:
            raise Unavailable("no policy is in force yet")
        return self._policy

    def around(self) -> tuple[str, Surroundings]:
        """For a reader: the policy's SHA-256, and what is to be known under it."""
        if self._surroundings is None:
            raise Unavailable("no policy is in force yet")
        return self.current().policy_sha256, self._surroundings

    async def follow(self) -> InForce:
        async with self._one_at_a_time:
            gate = await self._ledger.gate()
            if self._current is not None and self._current.policy_sha256 == gate.policy_sha256:
                return self._current
            if not gate.policy_sha256:
                raise Unavailable("no policy is in force: smtpguard serve puts one there")
            documents = dict(await self._ledger.policy(gate.policy_sha256))
            policy, in_force, around = await asyncio.to_thread(self._built, documents)
            self._policy, self._current, self._surroundings = policy, in_force, around
            return in_force

    def moved(self, gate: Gate) -> None:
        """For the watch over the gate: follow, without keeping the watch waiting."""
        if self._current is None or gate.policy_sha256 == self._current.policy_sha256:
            return
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self.follow())
            self._following.add_done_callback(_followed)

    def _built(self, documents: dict[str, bytes]) -> tuple[Policy, InForce, Surroundings | None]:
        policy = parse_policy(self._settings, documents)
        registry = built_registry(self._settings, policy, self._digester, self._clock)
        around = surroundings(self._settings, policy) if self._reading else None
        return policy, InForce.of(policy, registry), around


def _followed(task: asyncio.Task[InForce]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        log.info("policy %s is in force", task.result().policy_sha256[:12])
    else:  # mail planned under the old one is not admitted: 451 until this is mended
        log.error("the policy in force cannot be taken into use: %s", error)
