"""What people at the console ask of the record: lists of holds, a mailing as one, and what was frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from smtpguard.holds import rows as holds
from smtpguard.holds.model import Hold, State
from smtpguard.incidents.about import About
from smtpguard.incidents.rows import Found
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.distinct import Asked
from smtpguard.journal.event import Kind
from smtpguard.mailings.spread import Grown, growth
from smtpguard.reading.shown import Shown
from smtpguard.store.store import Store

_STOOD_STILL = (Kind.FREEZE, Kind.THAW_ASKED, Kind.THAW)


class Archive:
    """Fits console.ports.Archive."""

    def __init__(self, store: Store, asked: Asked | None = None) -> None:
        """``asked``: whether somebody is on a list (incidents.report)."""
        self._store, self._asked = store, asked

    async def rows(
        self,
        *,
        states: Sequence[State],
        words: Sequence[str] = (),
        marks: Sequence[Sequence[str]] = (),
        limit: int = 50,
        before: datetime | None = None,
        after_id: str | None = None,
    ) -> Sequence[Hold]:
        def found(connection: Connection) -> list[Hold]:
            ids = holds.ids(
                connection, states=states, words=words, marks=marks, limit=limit, before=before, after_id=after_id
            )
            return holds.several(connection, ids)

        return await self._store.ask(found)

    async def queued(self, hold_id: str, limit: int) -> Sequence[tuple[Hold, Shown | None]]:
        return await self._store.holds.queued(hold_id, limit)

    async def counts(self) -> Mapping[State, int]:
        return await self._store.holds.counts()

    async def freezes(self, *, limit: int, before: int | None = None) -> Sequence[tuple[Entry, Clear | None]]:
        return await self._store.ask(lambda c: journal.of_kinds(c, _STOOD_STILL, limit, before))

    async def growth(self, mailing_id: str) -> Sequence[Grown]:
        return await self._store.ask(lambda c: growth(c, mailing_id), snapshot=True)

    async def history(self, id: str) -> Sequence[tuple[Entry, Clear | None]]:
        return await self._store.journal.history(id)

    async def incident(self, about: About, *, prove: bool) -> Found:
        return await self._store.journal.incident(about, prove=prove, asked=self._asked)
