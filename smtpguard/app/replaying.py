"""Walk through the journal of a period, and judge each message under two policies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
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
from smtpguard.database.access import Progress
from smtpguard.guard.inforce import InForce
from smtpguard.journal.scan import verdicts
from smtpguard.lists.digest import Digester
from smtpguard.policy.parse import Policy
from smtpguard.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One message: the result under the policy in force (recorded if it was in force then), and under the other one."""

    message: Recorded
    was: Judgement
    will: Judgement


class Replaying:
    """Made by ``replaying``; for one walk. Counts the entries that are not compared. ``again``: retries of held
    messages; ``undecided``: internal errors."""

    def __init__(
        self, store: Store, settings: Settings, digester: Digester, before: CompiledPolicy, other: CompiledPolicy
    ) -> None:
        self.again = self.undecided = 0
        self._store, self._settings, self._digester = store, settings, digester
        self._before, self._other = before, other
        self._kept: dict[str, CompiledPolicy | None] = {}
        self._diffs: dict[tuple[str, str], PolicyDiff] = {}

    async def passed(
        self, since: datetime, until: datetime, progress: Progress | None = None
    ) -> AsyncIterator[Compared]:
        """The messages of that period, in order. Raises StoreError."""
        await self._store.journal.catch_up()
        copies = self._settings.hold.copies
        replays = [Replay(compiled, copies=copies) for compiled in (self._before, self._other)]
        async for page in verdicts(self._store, since, until, progress):
            for entry, clear in page:
                message = Recorded(entry, clear)
                sha256 = message.policy
                then = await self._then(sha256)
                if not message.decided or message.again:
                    self.undecided += not message.decided
                    self.again += message.again
                    continue
                was, will = (
                    recorded(message, replay.compiled)
                    if replay.compiled is self._before and sha256 == self._before.policy.sha256
                    else replay.judge(message, self._diff(sha256, then, replay.compiled))
                    for replay in replays
                )
                yield Compared(message=message, was=was, will=will)

    async def _then(self, sha256: str) -> CompiledPolicy | None:
        """The policy that was in force then; None if it is no longer kept, or its version is too old to read."""
        if sha256 not in self._kept:
            try:
                policy = parse_policy(self._settings, dict(await self._store.policies.documents(sha256)))
            except (KeyError, Broken):
                self._kept[sha256] = None
            else:
                self._kept[sha256] = _compiled(self._settings, policy, self._digester)
        return self._kept[sha256]

    def _diff(self, sha256: str, then: CompiledPolicy | None, to: CompiledPolicy) -> PolicyDiff:
        key = sha256, to.policy.sha256
        if key not in self._diffs:
            self._diffs[key] = PolicyDiff(then, to)
        return self._diffs[key]


@asynccontextmanager
async def replaying(
    store: Store, settings: Settings, digester: Digester, before: Policy, other: Policy
) -> AsyncIterator[Replaying]:
    """``before``: the policy in force. Raises CannotStart."""
    async with AsyncExitStack() as undo:
        there, its_digester = indexed(settings, other, undo)
        yield Replaying(
            store, settings, digester, _compiled(settings, before, digester), _compiled(there, other, its_digester)
        )


def _compiled(settings: Settings, policy: Policy, digester: Digester) -> CompiledPolicy:
    return CompiledPolicy(InForce.of(policy, built_registry(settings, policy, digester, SystemClock())))
