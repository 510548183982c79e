"""The services and settings that the pages use. One object for each console process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from smtpguard.console.ports import Archive, Matching, OtherFile, Standing, Trial, Waits
from smtpguard.database.errors import LedgerError
from smtpguard.freezes.service import Freezes
from smtpguard.guard.ports import Clock, Ledger, PolicyInForce, Reader
from smtpguard.holds.questions import Questions
from smtpguard.holds.service import Approvals
from smtpguard.lists.declared import ListInfo
from smtpguard.mailings.service import Mailings
from smtpguard.policy.parse import Policy
from smtpguard.returns.service import Returns


async def nothing_else() -> OtherFile | None:
    """Where nobody looks at a file."""
    return None


async def no_alarms() -> Sequence[Standing]:
    """Where nobody looks for them."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """Of the policy for those who write mail. ``policy``: the one in force, raises LedgerError. ``open``: without an account too."""

    policy: Callable[[], Policy] | None = None
    approve_at: str = ""
    waits: Waits = field(default_factory=lambda: Waits(length=timedelta(days=1), working=True))
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleServices:
    """``url``: how people reach the console, without a slash at its end; links come from it, never from Host."""

    ledger: Ledger
    archive: Archive
    policies: PolicyInForce
    reader: Reader
    approvals: Approvals
    talks: Questions
    freezes: Freezes
    mailings: Mailings
    returns: Returns
    trial: Trial
    matching: Matching
    clock: Clock
    url: str = ""
    delimiters: str = "+"
    policy_file: Callable[[], Awaitable[OtherFile | None]] = nothing_else
    """How the policy file of this host differs from what is in force; None where it does not. Raises LedgerError."""
    alarms: Callable[[], Awaitable[Sequence[Standing]]] = no_alarms
    """The alarms that a person was told of, and that are not over."""
    keeps: timedelta = timedelta(days=30)
    """For so long at least the content of what was held is kept."""
    guide: Guide = field(default_factory=Guide)
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a report is made: one at a time, since it may take a while."""

    @property
    def lists(self) -> Mapping[str, ListInfo]:
        """Those of the policy in force; none where that cannot be read, so that a page which only names them is there all the same."""
        try:
            return self.policies.current().registry.lists
        except LedgerError:
            return {}
