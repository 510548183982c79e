"""The services and settings that the pages use. One object for each console process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from smtpguard.admission.correcting import Corrections
from smtpguard.console.ports import ActiveAlarm, Archive, Matching, OtherFile, Trial, Waits
from smtpguard.database.errors import LedgerError
from smtpguard.freezes.service import Freezes
from smtpguard.guard.ports import Clock, Ledger, PolicyInForce, Reader
from smtpguard.holds.questions import Questions
from smtpguard.holds.service import Approvals
from smtpguard.lists.declared import ListInfo
from smtpguard.mailings.service import Mailings
from smtpguard.policy.parse import Policy
from smtpguard.returns.service import Returns


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """The guide to the policy for people who write mail. ``policy``: returns the one in force, raises LedgerError.
    ``open``: readable without an account."""

    policy: Callable[[], Policy] | None = None
    approve_at: str = ""
    waits: Waits = field(default_factory=lambda: Waits(length=timedelta(days=1), working=True))
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleServices:
    """``url``: the console's address for people, without a final slash; links use it, never Host."""

    ledger: Ledger
    archive: Archive
    policies: PolicyInForce
    reader: Reader
    approvals: Approvals
    questions: Questions
    freezes: Freezes
    mailings: Mailings
    returns: Returns
    trial: Trial
    matching: Matching
    corrections: Corrections
    clock: Clock
    url: str = ""
    delimiters: str = "+"
    policy_file: Callable[[], Awaitable[OtherFile | None]]
    """How the policy file of this host differs from the policy in force; None if it does not. Raises LedgerError."""
    alarms: Callable[[], Awaitable[Sequence[ActiveAlarm]]]
    """The alarms that a person was told of and that are not over."""
    take_alarm: Callable[[str, str], Awaitable[bool]]
    """Take an alarm, by its key and in a person's name. False: no such alarm stands. Raises LedgerError."""
    keeps: timedelta = timedelta(days=30)
    """For at least so long the content of a hold is kept."""
    approvers: bool = False
    """Whether auditors may see how each approver decides."""
    guide: Guide = field(default_factory=Guide)
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a report is made: one at a time, since it may take a while."""

    @property
    def lists(self) -> Mapping[str, ListInfo]:
        """The lists of the policy in force; none if it cannot be read, so that pages that only name lists still work."""
        try:
            return self.policies.current().registry.lists
        except LedgerError:
            return {}
