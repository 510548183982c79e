"""What is in force: one policy with everything that is built of it, swapped as a whole on reload.

Never here: the building (app), or the reading of YAML (policy.parse).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from smtpguard.lists.registry import Registry
from smtpguard.policy.parse import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A transaction is planned, closed and disposed of under one of these, whatever is swapped meanwhile."""

    policy: Policy
    registry: Registry

    def open_at(self, at: datetime) -> bool:
        """Whether it is working hours."""
        return self.policy.organization.hours.open_at(at)

    def people(self, group: str) -> frozenset[str]:
        """Canonical addresses of a group, empty if there is no such group any more."""
        return self.policy.groups.get(group, frozenset())


class Policies(Protocol):
    """Where the policy in force comes from; app implements it, and swaps it when the gate moves."""

    def current(self) -> InForce: ...

    async def follow(self) -> InForce:
        """Read the gate and take what is in force there into use, now. Raises LedgerError, or what building it raises."""
