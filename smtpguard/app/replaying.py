"""Judge recorded messages again under the policy in force and under another, from the journal alone.

Nothing is decided, counted, sent or written. This file builds each policy with its lists, those of then included, and
gives every verdict of a period to both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from smtpguard.admission.recorded import Recorded
from smtpguard.app.clock import SystemClock
from smtpguard.app.explaining import indexed
from smtpguard.app.files import parse_policy
from smtpguard.app.lists import built_registry
from smtpguard.app.replaydiff import CompiledPolicy, PolicyDiff
from smtpguard.app.replayed import Judgement, Replay, recorded
from smtpguard.config.problem import Broken
from smtpguard.config.settings import Settings
from smtpguard.guard.inforce import InForce
from smtpguard.journal.scan import Progress, verdicts
from smtpguard.lists.digest import Digester
from smtpguard.policy.parse import Policy
from smtpguard.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One message: the result under the policy in force (recorded if it was in force then), and under the other one."""

    message: Recorded
    was: Judgement
    will: Judgement


@dataclass(slots=True)
class Apart:
    """Entries that are not compared. ``again``: retries of held messages; ``undecided``: internal errors."""

    again: int = 0
    undecided: int = 0


@dataclass(slots=True)
class Replaying:
    """Made by ``replaying``; for one walk."""

    apart: Apart = field(default_factory=Apart)
    _store: Store = field(kw_only=True)
    _settings: Settings = field(kw_only=True)
    _digester: Digester = field(kw_only=True)
    _before: CompiledPolicy = field(kw_only=True)
    _other: CompiledPolicy = field(kw_only=True)
    _grounds: dict[str, CompiledPolicy | None] = field(default_factory=dict)
    _shifts: dict[tuple[str, str], PolicyDiff] = field(default_factory=dict)

    async def passed(
        self, since: datetime, until: datetime, progress: Progress | None = None
    ) -> AsyncIterator[Compared]:
        """The messages of that period, in order. Raises LedgerError."""
        await self._store.journal.catch_up()
        copies = self._settings.hold.copies
        courses = [Replay(ground, copies=copies) for ground in (self._before, self._other)]
        async for page in verdicts(self._store, since, until, progress):
            for entry, clear in page:
                message = Recorded(entry, clear)
                sha256 = message.policy
                await self._ground(sha256)
                if not message.decided or message.again:
                    self.apart.undecided += not message.decided
                    self.apart.again += message.again
                    continue
                was, will = (
                    recorded(message, course.ground)
                    if course.ground is self._before and sha256 == self._before.policy.sha256
                    else course.judge(message, self._shift(sha256, course.ground))
                    for course in courses
                )
                yield Compared(message=message, was=was, will=will)

    async def _ground(self, sha256: str) -> CompiledPolicy | None:
        """The policy that was in force then; None if it is no longer kept, or its version is too old to read."""
        if sha256 not in self._grounds:
            try:
                policy = parse_policy(self._settings, dict(await self._store.policies.documents(sha256)))
            except (KeyError, Broken):
                self._grounds[sha256] = None
            else:
                self._grounds[sha256] = _ground(self._settings, policy, self._digester)
        return self._grounds[sha256]

    def _shift(self, sha256: str, to: CompiledPolicy) -> PolicyDiff:
        key = sha256, to.policy.sha256
        if key not in self._shifts:
            self._shifts[key] = PolicyDiff(self._grounds[sha256], to)
        return self._shifts[key]


@asynccontextmanager
async def replaying(
    store: Store, settings: Settings, digester: Digester, before: Policy, other: Policy
) -> AsyncIterator[Replaying]:
    """``before``: the policy in force. Raises CannotStart."""
    async with AsyncExitStack() as undo:
        there, its_digester = indexed(settings, other, undo)
        yield Replaying(
            _store=store,
            _settings=settings,
            _digester=digester,
            _before=_ground(settings, before, digester),
            _other=_ground(there, other, its_digester),
        )


def _ground(settings: Settings, policy: Policy, digester: Digester) -> CompiledPolicy:
    return CompiledPolicy(policy, InForce.of(policy, built_registry(settings, policy, digester, SystemClock())))
