"""What people at the console ask of the record: lists of holds with the messages of one mailing together.

Never here: writing anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from smtpguard.audit.chain import Clear, Entry
from smtpguard.policy.approval import Hold, State
from smtpguard.store import holds
from smtpguard.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The newest of a mailing, how many messages are with it, and how many people they reach."""

    hold: Hold
    messages: int = 1
    reach: int = 0


class Archive:
    """Fits console.ports.Archive."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def rows(
        self,
        *,
        states: Sequence[State],
        words: Sequence[str] = (),
        marks: Sequence[Sequence[str]] = (),
        together: bool = True,
        limit: int = 50,
        before: datetime | None = None,
        after_id: str | None = None,
    ) -> Sequence[Row]:
        found = await self._store.ask(lambda c: holds.newest(c, states, limit, before, after_id))
        return [Row(hold=hold, messages=1, reach=hold.reach) for hold in found]

    async def counts(self) -> Mapping[State, int]:
        return await self._store.hold_counts()

    async def history(self, id: str) -> Sequence[tuple[Entry, Clear | None]]:
        return await self._store.history(id)
