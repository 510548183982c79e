"""Tell a person when ``serve`` fails to start again and again: the alarms part does not run then.

A file in the state folder has the time of the first failure. It has a fixed size and is overwritten in place, so that
it can be written on a full disk. The recipients and ways are those of every alarm.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from smtpguard.app.alarmchannels import AlarmChannels, FileMemory, Organization
from smtpguard.app.files import CannotStart
from smtpguard.config.settings import Settings
from smtpguard.config.statefiles import hand_over
from smtpguard.database.codec import Codec
from smtpguard.observe.alarms.conditions import BY_NAME, Alarm, RaisedAlarm, Seen, raised
from smtpguard.observe.alarms.rounds import AGAIN, AlarmMessage, Phase
from smtpguard.processes.statusfile import Notifier, trees

log = logging.getLogger(__name__)

FILE = "starts.json"
NAME = "start-fails"
OCTETS = 2048
APART = timedelta(minutes=10)
"""A failed start later than this begins a new series: no start was tried in between."""
TELL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """``since``: the first of consecutive failures; ``last``: the latest, with its ``why``. ``told``: when a person was
    told."""

    since: datetime
    last: datetime
    why: str
    told: datetime | None = None


_FAILING = Codec(Failing)


def failing(state: Path, now: datetime) -> Failing | None:
    """None if the last start succeeded, or nobody tries any more."""
    try:
        found = _FAILING.loads((state / FILE).read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if now - found.last <= APART else None


def succeeded(settings: Settings) -> None:
    """The start succeeded. Makes the file, with room for a later failure."""
    with suppress(OSError):
        _write(settings.state, "{}")


async def failed(settings: Settings, why: str, now: datetime, *, last: bool = False) -> None:
    """One more start has failed. Tells a person if that has lasted long enough, or if this is the ``last`` attempt. If
    other processes of this host send alarms, they report what is wrong."""
    known = failing(settings.state, now)
    here = replace(known or Failing(since=now, last=now, why=""), last=now, why=why[:500])
    condition = BY_NAME[NAME]
    lasts = (now - here.since).total_seconds() >= condition.after_seconds
    due = here.told is None or now - here.told >= AGAIN[condition.severity]
    tells = (last or lasts) and due and not _others_tell(settings.state)
    try:
        _write(settings.state, _FAILING.dumps(replace(here, told=now) if tells else here))
    except OSError as e:  # if it were not remembered, a person would be told every few seconds
        if tells:
            log.error("%s: %s: the alarm about failed starts is not sent", settings.state / FILE, e.strerror)
        return
    if not tells:
        return
    alarm = next(raised(Seen(at=now, starts=why)))
    if not await _tell(settings, alarm, here, now):
        with suppress(OSError):
            _write(settings.state, _FAILING.dumps(here))


async def _tell(settings: Settings, alarm: Alarm, here: Failing, now: datetime) -> bool:
    from smtpguard.app.delivery import signer

    try:
        sign = signer(settings)
    except (CannotStart, OSError):
        sign = None
    ways = AlarmChannels(settings, Organization, sign)
    phase = Phase.BEGINS if here.told is None else Phase.LASTS
    Notifier().not_yet(2 * TELL_SECONDS)
    try:
        async with asyncio.timeout(TELL_SECONDS):
            heard = await ways.tell(AlarmMessage(alarm=alarm, phase=phase, began=here.since, at=now))
    except TimeoutError:
        return False
    finally:
        await ways.sender.close()
    if heard:  # the alarms part reports when it is over
        memory = FileMemory(settings.state)
        before = (await memory.known()).get(alarm.key)
        await memory.swap(before, RaisedAlarm(key=alarm.key, began=here.since, told=now))
    return heard


def _others_tell(state: Path) -> bool:
    return any(
        process["part"] == "alarms" and process["ready"]
        for tree in trees(state)
        if tree.alive and not tree.row.get("stopping")
        for process in tree.row.get("parts", ())
    )


def _write(state: Path, text: str) -> None:
    """Raises OSError."""
    path = state / FILE
    new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, text.encode().ljust(OCTETS), 0)
        os.ftruncate(descriptor, OCTETS)
    finally:
        os.close(descriptor)
    if new:
        hand_over(path, state)
