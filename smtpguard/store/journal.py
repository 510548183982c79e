"""The store's access to the journal: its entries, fronts, search index, cursors and proof.

A method without a docstring is documented with its query or step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from smtpguard.database.access import Access, Open, Progress, Rows, asks, writes
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.database.fronts import File
from smtpguard.database.statements import rows_of
from smtpguard.freezes import rows as gates
from smtpguard.incidents import activityrows
from smtpguard.incidents.activity import Activity, ActivityFilter
from smtpguard.journal import cursors, searchindex, signing
from smtpguard.journal import rows as journal
from smtpguard.journal import scan as journalscan
from smtpguard.journal.chain import Clear, Cursor, Entry, Pair, microseconds
from smtpguard.journal.checkpoint import Checkpoint, Key
from smtpguard.journal.distinct import Asked
from smtpguard.journal.event import TOLD, Event, Kind
from smtpguard.journal.linefiles import CHECKPOINTS, lines_of
from smtpguard.journal.proof import Finding, Proof
from smtpguard.locale.phrase import Phrase
from smtpguard.outbox import rows as outboxes
from smtpguard.store.writer import Writer

if TYPE_CHECKING:  # slow to import, and not needed to freeze
    from smtpguard.incidents.query import IncidentQuery
    from smtpguard.incidents.report import Findings, Report


log = logging.getLogger(__name__)

PIECE = 1 << 20
"""The octets of a front that one commit moves while nobody waits for them. It is at least the size of a frame (store.front)."""


class Cursors(Rows):
    news = asks(cursors.news)
    pass_over = writes(cursors.pass_over, synced=False)  # if power fails, the same entries are passed over again
    lease = writes(cursors.lease)
    settle = writes(cursors.settle)

    async def at(self, name: str, after: int | None = None) -> Cursor:
        """Return a cursor, and create it if it is missing: after entry ``after``, None for the newest."""
        found = await self._access.ask(lambda c: cursors.find(c, name))
        return found if found is not None else await self._access.write(lambda batch: cursors.begin(batch, name, after))


class Journal(Rows):
    history = asks(journal.history)
    entries = asks(journal.read)
    freezes = asks(journal.freezes)
    signed = asks(journal.signed)
    newest_at = asks(journal.newest_at)
    in_flight = asks(gates.in_flight)
    unsettled = asks(gates.unsettled)
    doubt = writes(gates.doubt)
    outcomes = asks(journal.outcomes)
    checkpoints = asks(journal.signed_after)
    votes = asks(activityrows.votes)
    inclusion = asks(signing.inclusion, snapshot=True)
    record = writes(outboxes.record)

    def __init__(self, access: Access, writer: Writer, secret: bytes, state_dir: Path) -> None:
        super().__init__(access)
        self._writer, self._secret, self._state_dir = writer, secret, state_dir

    def note(self, event: Event) -> None:
        """Record an outcome without waiting. A later batch writes it, usually within 50 ms."""
        self._writer.note(event)

    async def last(self) -> int:
        """Return the number of the last entry."""
        return await self._access.ask(lambda c: read_head(c).seq)

    async def rejected(self, first: str, until: datetime, limit: int) -> Sequence[Event]:
        """Return up to ``limit`` verdicts to reject, from transaction ``first`` on, before ``until``, with names that are not erased."""
        found = await self._access.walk(lambda opened: journalscan.rejected(opened, first, microseconds(until), limit))
        return [_verdict(*pair) for pair in found]

    async def noticed(self, since: datetime, until: datetime) -> Sequence[str]:
        """Return the ids of holds with an event in that period of which people get notices, oldest first."""

        def ask(connection: Connection) -> list[Entry]:
            return journal.happened_to(connection, TOLD, microseconds(since), microseconds(until))

        noticed = (
            one for one in await self._access.ask(ask) if one.kind != Kind.VOTE.value or "release_at" in one.data
        )
        return list(dict.fromkeys(one.id for one in noticed))

    async def observed(self, since: datetime, until: datetime, limit: int) -> tuple[int, Sequence[Event]]:
        """Return the number of verdicts in a period, and up to ``limit`` of those in which a rule only observed, newest first."""
        judged, found = await self._access.walk(
            lambda opened: journalscan.observed(opened, microseconds(since), microseconds(until), limit)
        )
        return judged, [_verdict(*pair) for pair in found]

    async def matching_ids(self, word: str) -> Sequence[str]:
        """Return the ids of messages, mailings and freezes with this prefix, at most ten."""
        from smtpguard.incidents import rows as incident

        return await self._access.ask(lambda c: incident.matching_ids(c, word))

    async def find(self, words: Sequence[str], limit: int, progress: Progress | None = None) -> Sequence[str]:
        """Return the ids of messages that have all of these words, newest first. Words are addresses, Message-IDs, queue ids, and words
        of the subjects of held or counted messages. ``progress`` is called in a thread, for entries that are not indexed."""
        return await self._access.walk(lambda opened: searchindex.find(opened, self._secret, words, limit, progress))

    async def named(self, words: Sequence[str], since: datetime) -> Mapping[str, int]:
        """Count the messages since a time that name each of these addresses."""
        return await self._access.walk(
            lambda opened: searchindex.named(opened, self._secret, words, microseconds(since))
        )

    async def writers(self) -> Sequence[str]:
        """Return the writers of the newest messages, by their addresses in From and reverse-path."""
        from smtpguard.incidents import rows as incident

        return await self._access.ask(incident.writers)

    async def index(self) -> bool:
        """Index the words of the next entries (searchindex), and add them to the sums (incidents.activityrows). Returns whether more
        entries follow."""

        def read(connection: Connection) -> tuple[bool, searchindex.Words, activityrows.Slice] | None:
            head = read_head(connection)
            indexed = searchindex.indexed_until(connection, self._secret, head.journal)
            summed = activityrows.summed_until(connection)
            at_once = searchindex.AT_ONCE[connection.dialect.name]
            found = journal.unread(connection, min(indexed, summed), head.seq, at_once)
            if found is None:
                return None
            words = searchindex.words_after(found, indexed, self._secret, head.journal)
            return found.more, words, activityrows.sums_after(connection, found, summed)

        def write(batch: Batch) -> bool:
            return any([searchindex.write(batch, words, self._secret), activityrows.write(batch, sums)])

        if (made := await self._access.ask(read, snapshot=True)) is None:
            return False
        more, words, sums = made
        return await self._access.write(write, synced=False) and more

    async def index_until(self, seq: int) -> None:
        """Index up to entry ``seq``, here or in another process. Entries that were read for the index before are not written after
        it returns."""

        def indexed(connection: Connection) -> int:
            return searchindex.indexed_until(connection, self._secret, read_head(connection).journal)

        while await self._access.ask(indexed) < seq:
            await self.index()

    async def activity(
        self,
        since: datetime,
        until: datetime | None,
        zone: tzinfo,
        *,
        most: int = 0,
        progress: Progress | None = None,
    ) -> Activity:
        """Return the actions and decisions of a time (incidents.activityrows). ``progress`` is called in a thread."""
        now = self._access.now()
        return await self._access.walk(
            lambda opened: activityrows.activity(opened, since, until, now, zone, most=most, progress=progress)
        )

    async def verdicts_of(self, query: ActivityFilter, before: int, limit: int) -> tuple[Sequence[Pair], int]:
        """Return the newest messages before entry ``before`` that fit, 0 for the newest of all; and the entry to continue from, 0 if
        there are no more."""
        return await self._access.walk(lambda opened: activityrows.verdicts_of(opened, query, before, limit))

    async def move_fronts(self) -> None:
        """Move the synced frames of all fronts into the chain, without waiting for a process that writes one. Many frames take
        several commits, so that admissions come between. The commits are not synced."""
        while waiting := self._unmoved():
            done = await self._access.write(lambda b: [b.move_front(file, PIECE) for file in waiting], synced=False)
            if not any(done) or all(file.rest < PIECE for file in waiting):
                break

    def _unmoved(self) -> Sequence[File]:
        """Return the fronts with frames to move. Raises Unavailable."""
        try:
            return self._access.fronts.unmoved() if self._access.fronts is not None else ()
        except OSError as error:
            raise Unavailable(f"the fronts of the journal: {error.strerror}") from error

    async def take_fronts(self, *, only_ended: bool = False) -> int:
        """Move the entries of all fronts and bypasses into the chain, and remove the fronts of ended processes. Returns the number of
        entries. ``only_ended``: do so only if a process with a front has ended, or there is a bypass."""
        taken = 0
        for _ in range(2):  # only committed frames can be removed
            if not await self._access.ask(partial(self._has_fronts, only_ended=only_ended)):
                break
            taken += await self._access.write(lambda b: b.take_fronts())
        return taken

    def _has_fronts(self, connection: Connection, *, only_ended: bool) -> bool:
        """Return whether a front has entries to move, or its process has ended. With ``only_ended`` also if the database has a row of a
        front without a file, which a reader leaves."""
        if self._writer.bypasses.has_files:
            return True
        fronts = self._access.fronts
        if fronts is None:
            return False
        moved: dict[str, int] = dict(rows_of(connection, "SELECT name, moved FROM front"))
        files = fronts.all()
        if any(not file.is_alive for file in files):
            return True
        if only_ended:
            return bool(moved.keys() - {file.name for file in files})
        for file in files:
            with contextlib.suppress(OSError, ValueError):
                if file.progress.written[1] > moved.get(file.name, 0):
                    return True
        return False

    def fronts_aside(self) -> Sequence[Path]:
        """Return the fronts that were set aside: they did not fit the journal, and were not moved into it."""
        return [
            *(self._access.fronts.aside() if self._access.fronts is not None else ()),
            *self._writer.bypasses.aside(),
        ]

    async def catch_up(self) -> None:
        """Move and sync all fronts before the journal is read as proof, so that a power failure changes nothing of what is read. If the
        database cannot be written, it is read as it is."""
        try:
            await self.take_fronts()
            if self._access.fronts is not None:
                await asyncio.to_thread(self._access.fronts.sync)
        except (StoreError, OSError) as error:
            log.warning("the fronts' entries could not be moved: %s", error)

    async def checkpoint(self) -> Checkpoint | None:
        """Sign the journal's head, as the writer does every minute. Returns None if nothing is new."""
        made = await self._access.write(journal.mark)
        if made is not None:
            await self._access.write(lambda batch: None)  # on return the line of the first write is in the file
        return made

    async def verify(self, progress: Progress | None = None) -> Proof:
        """Prove the whole journal, with the frames of the fronts. It takes long, and delays no mail. ``progress`` is called in a
        thread."""
        await self.catch_up()
        return await self._access.walk(lambda opened: self._walk(opened).prove(progress))

    async def audit(
        self,
        host: str,
        *,
        alone: bool = False,
        against: Sequence[str] = (),
        stamped: Sequence[str] = (),
        progress: Sequence[Progress | None] = (None, None),
    ) -> Proof:
        """Prove the whole journal, and if it holds, compare all tables beside it (crosscheck).

        ``host``: this one; if the guard was started on it, its state folder must have checkpoints. ``alone``: this process does
        nothing else, so that another one may help. ``against``: signed notes that a witness has kept; ``stamped``: signed notes
        with a valid time stamp. ``progress``: for the journal, and for the tables.
        """
        from smtpguard.store import crosscheck

        await self.catch_up()

        def run(opened: Open) -> Proof:
            chain, beside = progress
            walk = self._walk(opened, against, stamped)
            proof = walk.prove(chain, url=self._access.url if alone else "")
            if not proof.ok:
                return proof
            found = crosscheck.check(opened, beside)
            if not proof.filed and crosscheck.written_by(opened, host):
                found.insert(0, Finding(about="checkpoints", id=host, problem=Phrase("missing: the guard was started on this host, and no file of checkpoints of this journal is in its state folder")))  # fmt: skip
            return replace(proof, beside=tuple(found))

        return await self._access.walk(run)

    async def key(self) -> Key:
        """Return the key with which others verify the checkpoints that are signed now."""

        def found(connection: Connection) -> Key:
            name = read_head(connection).journal
            return signing.signer(self._secret, name, signing.generation(connection)).key

        return await self._access.ask(found)

    async def rotate(self, event: Event) -> Key:
        """Change to the next key, which signs from this entry on, and return it. Each of both keys signs a checkpoint at the change."""

        def step(batch: Batch) -> Key:
            journal.mark(batch)
            key = signing.rotate_key(batch, event)
            journal.mark(batch)
            return key

        return await self._access.write(step)

    async def incident(
        self,
        query: IncidentQuery,
        *,
        prove: bool,
        progress: Progress | None = None,
        asked: Asked | None = None,
        may: Callable[[Report], bool] | None = None,
    ) -> Findings:
        """Return all that the journal has about an incident. With ``prove`` the whole journal is proved. It takes long, as ``verify``.
        ``asked``: as in incidents.report; ``may``: as in incidents.rows; both are called in a thread."""
        from smtpguard.incidents import rows as incident

        await self.catch_up()
        now = self._access.now()
        return await self._access.walk(
            lambda opened: incident.find(
                partial(self._walk, opened), query, now, prove=prove, progress=progress, asked=asked, may=may
            )
        )

    def _walk(self, opened: Open, against: Sequence[str] = (), stamped: Sequence[str] = ()) -> journalscan.Walk:
        lines = lines_of(self._state_dir, CHECKPOINTS)
        return journalscan.Walk(opened, self._secret, lines, self._access.now_us(), against, stamped)


def _verdict(entry: Entry, clear: Clear | None) -> Event:
    private = {role: tuple(values) for role, values in (clear or {}).items()}
    return Event(kind=Kind.VERDICT, id=entry.id, at=entry.time, data=entry.data, private=private)
