"""What the console's pages read from the store beyond its nouns: lists of holds, activity, and the messages that freezes stopped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, tzinfo

from sqlalchemy import Connection

from smtpguard.holds import rows as holds
from smtpguard.holds.model import Hold, HoldQuery, Rank
from smtpguard.incidents import activityrows
from smtpguard.incidents.activity import Activity
from smtpguard.incidents.preservation import Preserved
from smtpguard.incidents.query import IncidentQuery
from smtpguard.incidents.report import Found
from smtpguard.journal import rows as journal
from smtpguard.journal.chain import Clear, Entry
from smtpguard.journal.distinct import Asked
from smtpguard.journal.event import Kind
from smtpguard.mailings.inflight import growth
from smtpguard.mailings.model import Grown
from smtpguard.store.store import Store

_STOOD_STILL = (Kind.FREEZE, Kind.THAW_ASKED, Kind.THAW)

UNCOUNTED = 10_000
"""The most entries without sums that a page reads."""


class Archive:
    def __init__(self, store: Store, asked: Asked | None = None) -> None:
        """``asked``: whether a person is on a list (incidents.report)."""
        self._store, self._asked = store, asked

    async def rows(
        self, wanted: HoldQuery, *, limit: int = 50, before: datetime | None = None, after_id: str | None = None
    ) -> Sequence[Hold]:
        """Newest first, a mailing as one: its primary hold."""

        def found(connection: Connection) -> list[Hold]:
            return holds.several(
                connection, holds.ids(connection, wanted, limit=limit, before=before, after_id=after_id)
            )

        return await self._store.ask(found)

    async def ranked(
        self, wanted: HoldQuery, *, first: Collection[str], limit: int, after: Rank | None = None
    ) -> tuple[Sequence[Hold], int, Rank | None]:
        """By priority, a mailing as one; the number of all, and the place of the next page, None on the last.
        ``first``: the lists that come before others."""

        def found(connection: Connection) -> tuple[list[Hold], int, Rank | None]:
            places = holds.ranked(connection, wanted, first=first, limit=limit + 1, after=after)
            ids = [place.hold_id for place in places[:limit]]
            last = places[limit - 1] if len(places) > limit else None
            return holds.several(connection, ids), holds.number(connection, wanted), last

        return await self._store.ask(found, snapshot=True)

    async def votes(self, since: datetime, until: datetime) -> Sequence[tuple[str, str, float | None]]:
        """The votes between the two times: approver, choice, seconds since the hold."""
        return await self._store.journal.votes(since, until)

    async def activity(self, since: datetime, until: datetime | None, zone: tzinfo) -> Activity:
        """What was done and decided in that period; ``until`` None: now."""
        return await self._store.journal.activity(since, until, zone, most=UNCOUNTED)

    async def verdicts(
        self, did: str, *, rule: str, list: str, since: datetime | None, until: datetime | None, before: int, limit: int
    ) -> tuple[Sequence[tuple[Entry, Clear | None]], int]:
        """The newest messages with this action (relayed, held, deferred, rejected, observed), by this rule and to this
        list, "" for any, before an entry, 0 for the last. Also the entry to continue from, 0 if there are no more."""
        query = activityrows.ActivityFilter(did=did, rule=rule, list=list, since=since, until=until)
        return await self._store.journal.judged(query, before, limit)

    async def record(self) -> tuple[int, datetime | None]:
        """The number of the journal's entries so far, and up to when it is signed."""
        return await self._store.ask(journal.signed)

    async def freezes(self, *, limit: int, before: int | None = None) -> Sequence[tuple[Entry, Clear | None]]:
        """The newest entries of freezes and thaws; with ``before`` those before that entry's number."""
        return await self._store.ask(lambda c: journal.of_kinds(c, _STOOD_STILL, limit, before))

    async def growth(self, mailing_id: str) -> Sequence[Grown]:
        """How many people a mailing had come for at which time, in at most a hundred points."""
        return await self._store.ask(lambda c: growth(c, mailing_id), snapshot=True)

    async def preserve(self, id: str, *, by: str, reason: str) -> Preserved | None:
        """Keep all that this incident needs past its time."""
        return await self._store.preserve(id, by=by, reason=reason)

    async def incident(self, query: IncidentQuery, *, prove: bool) -> Found:
        """Everything that the journal has on it. Slow, and slower with ``prove``, which walks the whole journal."""
        return await self._store.journal.incident(query, prove=prove, asked=self._asked)
