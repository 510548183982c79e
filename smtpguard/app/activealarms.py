"""List the alarms of this host and of the installation that a person was told of and that are not over. Looks at no
condition anew."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from smtpguard.app.alarmchannels import FileMemory
from smtpguard.config.settings import Settings
from smtpguard.console.ports import ActiveAlarm
from smtpguard.database.access import Access
from smtpguard.journal.event import Event, Kind
from smtpguard.locale.phrase import Phrase
from smtpguard.observe.alarms import rounds
from smtpguard.observe.alarms.conditions import BY_NAME
from smtpguard.observe.alarms.rows import Alarmed
from smtpguard.store.store import Store


async def active(settings: Settings, store: Access) -> Sequence[ActiveAlarm]:
    """Oldest first. The alarms of this host are left out if its state folder cannot be read. Raises LedgerError."""
    try:
        here = await FileMemory(settings.state).known()
    except OSError:
        here = {}
    found = []
    for known in {**await Alarmed(store).known(), **here}.values():
        name, _, about = known.key.partition(" ")
        if (condition := BY_NAME.get(name)) is not None and known.told is not None:
            found.append(
                ActiveAlarm(
                    name=name,
                    title=Phrase(condition.title, what=about),
                    since=known.began,
                    key=known.key,
                    taken_by=known.taken_by,
                    taken_at=known.taken_at,
                )
            )
    return sorted(found, key=lambda each: (each.since, each.name))


async def take(settings: Settings, store: Store, key: str, *, by: str, at: datetime) -> bool:
    """Record that ``by`` takes this alarm, in the journal first. False: no such alarm stands here. Raises LedgerError."""
    if key not in {each.key for each in await active(settings, store)}:
        return False
    await store.journal.record([Event(kind=Kind.TAKEN, id=key, at=at, private={"actor": (by,)})])
    taken = [await rounds.take(memory, key, by, at) for memory in (Alarmed(store), FileMemory(settings.state))]
    return any(taken)
