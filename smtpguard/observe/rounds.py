"""When an alarm is sent: once its condition has lasted for its delay, again while it lasts, and when it is over. The
way by which it is sent needs neither the store nor the guarded relay.

What was sent is recorded outside this process: alarms of the installation in the store, those of a host in its state
folder. So no restart sends an alarm twice, and of several nodes one sends it. A claim that is not settled lapses: the
node that failed tries again, and so do the others.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.observe.alarms import Alarm, RaisedAlarm, Seen, Severity, raised, unknown

log = logging.getLogger(__name__)

AGAIN = {Severity.CRITICAL: timedelta(minutes=15), Severity.WARNING: timedelta(days=1)}
"""An alarm that nobody has taken is sent again after so long."""
TAKEN_AGAIN = {Severity.CRITICAL: timedelta(days=1), Severity.WARNING: timedelta(days=7)}
"""An alarm that somebody has taken is sent again after so long, if it lasts."""
CLAIM = timedelta(minutes=1)
TRIES = 5
"""Others write the same memory: so often ``take`` reads it again."""
PATIENCE_SECONDS = 5.0
"""How long the store is waited for; then an alarm of the installation is sent as one of this host. Also how long
sending is waited for, so that a slow relay does not delay the next alarm."""


class Phase(enum.Enum):
    BEGINS = "begins"
    LASTS = "lasts"
    ENDS = "ends"


class Memory(Protocol):
    """The sent alarms. The caller handles its errors."""

    async def known(self) -> Mapping[str, RaisedAlarm]: ...

    async def swap(self, before: RaisedAlarm | None, after: RaisedAlarm | None) -> bool:
        """Replace ``before`` by ``after``, None for nothing. Return False if it has changed meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmMessage:
    """One message of an alarm. ``alarm``: as it is now; for one that is over, as its key says."""

    alarm: Alarm
    phase: Phase
    began: datetime
    at: datetime


Tell = Callable[[AlarmMessage], Awaitable[bool]]
"""Send a message of an alarm. Returns False if it reached nobody."""


class Shared:
    """The store's memory: None while the store is not open. With a time limit: a store that can be read but not written
    must not delay alarms. Raises TimeoutError and StoreError."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory

    async def known(self) -> Mapping[str, RaisedAlarm]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._there.known()

    async def swap(self, before: RaisedAlarm | None, after: RaisedAlarm | None) -> bool:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._there.swap(before, after)

    @property
    def _there(self) -> Memory:
        if self.memory is None:
            raise Unavailable("the store is not open")
        return self.memory


class Rounds:
    def __init__(self, *, shared: Shared, own: Memory, tell: Tell) -> None:
        self._shared, self._own, self._tell = shared, own, tell
        self._first: dict[str, datetime] = {}  # since when each is true without a break
        self._telling: dict[str, asyncio.Task[None]] = {}
        self.active: tuple[Alarm, ...] = ()
        """Alarms that have lasted for their delay."""

    async def round(self, seen: Seen) -> None:
        """Send what is due. Raises no error of an unavailable store."""
        alarms = {alarm.key: alarm for alarm in raised(seen)}
        self._first = {key: min(self._first.get(key, seen.at), seen.at) for key in alarms}  # a clock may be set back
        lasting = {
            key: alarm
            for key, alarm in alarms.items()
            if (seen.at - self._first[key]).total_seconds() >= alarm.condition.after_seconds
        }
        self.active = tuple(lasting.values())
        dark = unknown(seen)
        ours = {key: alarm for key, alarm in lasting.items() if not alarm.condition.shared}
        await self._of(self._own, ours, alarms, dark, seen.at)
        shared = {key: alarm for key, alarm in lasting.items() if alarm.condition.shared}
        known: Mapping[str, RaisedAlarm] | None = None
        try:
            known = await self._shared.known()
            await self._hand_over(known, shared)
            await self._of(self._shared, shared, alarms, dark, seen.at)
        except (TimeoutError, StoreError):
            if known is not None:  # it cannot be written: sending twice is better than never
                alone = {
                    key: alarm for key, alarm in shared.items() if (past := known.get(key)) is None or not past.told
                }
                await self._of(self._own, alone, alarms, dark, seen.at)

    async def _hand_over(self, known: Mapping[str, RaisedAlarm], shared: Mapping[str, Alarm]) -> None:
        """Give the installation the alarms that this host sent alone while the store could not be written."""
        for key, past in (await self._own.known()).items():
            if key not in shared or past.told is None:
                continue
            before = known.get(key)
            if before is None or before.told is None:
                await self._shared.swap(before, replace(past, claimed_until=None))
            await self._own.swap(past, None)

    async def _of(
        self, memory: Memory, due: Mapping[str, Alarm], alarms: Mapping[str, Alarm], dark: frozenset[str], now: datetime
    ) -> None:
        """``due``: those to be sent now."""
        known = await memory.known()
        steps = {key: self._due(memory, known.get(key), alarm, now) for key, alarm in due.items()}
        for key, past in known.items():
            if key not in alarms and dark.isdisjoint((key, past.name)) and (alarm := past.alarm) is not None:
                steps[key] = self._over(memory, past, alarm, now)
        await self._all(steps)

    async def _all(self, steps: Mapping[str, Coroutine[Any, Any, None]]) -> None:
        """Run steps concurrently. A step that takes over ``PATIENCE_SECONDS`` goes on, and is not started again meanwhile."""
        begun = []
        for key, step in steps.items():
            if key in self._telling:
                step.close()
                continue
            task = asyncio.create_task(step)
            self._telling[key] = task
            task.add_done_callback(partial(self._ended, key))
            begun.append(task)
        if not begun:
            return
        done, late = await asyncio.wait(begun, timeout=2 * PATIENCE_SECONDS)
        for task in late:
            task.add_done_callback(_logged)
        for task in done:
            task.result()

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        if self._telling.get(key) is task:
            del self._telling[key]

    async def _due(self, memory: Memory, before: RaisedAlarm | None, alarm: Alarm, now: datetime) -> None:
        if before is not None and _claimed(before, now):
            return
        if before is not None and before.told is not None:
            usual = (TAKEN_AGAIN if before.taken_by else AGAIN)[alarm.condition.severity]
            again = usual if alarm.condition.again is None else alarm.condition.again
            if now - before.told < again:
                return
        phase = Phase.BEGINS if before is None or before.told is None else Phase.LASTS
        began = before.began if before is not None else self._first[alarm.key]
        claim = replace(before or RaisedAlarm(key=alarm.key, began=began), claimed_until=now + CLAIM)
        if await memory.swap(before, claim) and await self._tell(
            AlarmMessage(alarm=alarm, phase=phase, began=began, at=now)
        ):
            settled = replace(claim, told=now, claimed_until=None)
            try:
                if not await memory.swap(claim, settled):
                    await _settle_taken(memory, claim, settled)
            except Exception:
                if memory is self._shared:  # record it here, so that it is not sent twice
                    await self._own.swap(None, settled)
                raise

    async def _over(self, memory: Memory, past: RaisedAlarm, alarm: Alarm, now: datetime) -> None:
        if _claimed(past, now):
            return
        if past.told is None:  # it was never sent
            await memory.swap(past, None)
            return
        claim = replace(past, claimed_until=now + CLAIM)
        told = AlarmMessage(alarm=alarm, phase=Phase.ENDS, began=past.began, at=now)
        if await memory.swap(past, claim) and await self._tell(told):
            await memory.swap(claim, None)


async def _settle_taken(memory: Memory, claim: RaisedAlarm, settled: RaisedAlarm) -> None:
    """If somebody took the alarm while it was being sent, keep that, and record that it was sent."""
    now = (await memory.known()).get(claim.key)
    if now is not None and now.taken_by and now.claimed_until == claim.claimed_until:
        await memory.swap(now, replace(settled, taken_by=now.taken_by, taken_at=now.taken_at))


async def take(memory: Memory, key: str, by: str, at: datetime) -> bool:
    """Record that ``by`` takes this alarm. False: somebody has, or it does not stand. Errors: those of ``memory``."""
    for _ in range(TRIES):
        before = (await memory.known()).get(key)
        if before is None or before.told is None:
            return False
        if before.taken_by or await memory.swap(before, replace(before, taken_by=by, taken_at=at)):
            return True
    return False


def _logged(task: asyncio.Task[None]) -> None:
    """Log that a background step failed: the next round tries again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("an alarm's round failed, the next one tries again: %s", str(error) or type(error).__name__)


def _claimed(known: RaisedAlarm, now: datetime) -> bool:
    return known.claimed_until is not None and now < known.claimed_until <= now + CLAIM  # a clock may be set back
