"""The journal in the store: written, read in order, searched and proved."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from smtpguard.database.access import Access, Open, Progress, Rows, asks, writes
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.engine import rows_of
from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.database.fronts import File
from smtpguard.freezes import rows as gates
from smtpguard.incidents import activityrows
from smtpguard.incidents.activity import Activity, ActivityFilter
from smtpguard.journal import rows as journal
from smtpguard.journal import scan as journalscan
from smtpguard.journal import searchindex, signing
from smtpguard.journal.chain import Clear, Entry, microseconds
from smtpguard.journal.checkpoint import Checkpoint, Key
from smtpguard.journal.distinct import Asked
from smtpguard.journal.event import TOLD, Event, Kind
from smtpguard.journal.proof import Finding, Proof
from smtpguard.locale.phrase import Phrase
from smtpguard.outbox import rows as outboxes
from smtpguard.policy.freezing import Freeze
from smtpguard.store.writer import Writer

if TYPE_CHECKING:  # slow to import, and not needed to freeze
    from smtpguard.incidents.query import IncidentQuery
    from smtpguard.incidents.report import Found

log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Octets of a front that are moved in one commit, where nobody waits for them: at least one frame (store.front)."""


class Journal(Rows):
    history = asks(journal.of)
    of_kinds = asks(journal.of_kinds)
    entries = asks(journal.read)
    freezes = asks(journal.freezes)
    signed = asks(journal.signed)
    unsettled = asks(gates.unsettled)
    outcomes = asks(journal.outcomes)
    checkpoints = asks(journal.signed_after)
    votes = asks(activityrows.votes)
    inclusion = asks(signing.inclusion, snapshot=True)
    record = writes(outboxes.record)

    def __init__(self, access: Access, writer: Writer, secret: bytes, state_dir: Path) -> None:
        super().__init__(access)
        self._writer, self._secret, self._state_dir = writer, secret, state_dir

    def note(self, event: Event) -> None:
        """Record an outcome without waiting. It is written with a later batch, within 50 ms."""
        self._writer.note(event)

    async def last(self) -> int:
        """The number of the journal's last entry."""
        return await self._access.ask(lambda c: read_head(c).seq)

    async def in_flight(self, freeze: Freeze, since: datetime) -> Sequence[str]:
        now = self._access.now()
        return await self._access.ask(lambda c: gates.in_flight(c, freeze, since, now))

    async def rejected(self, first: str, until: datetime, limit: int) -> Sequence[Event]:
        """Verdicts to reject, from the transaction ``first`` up to ``until``, with names that are not erased."""
        found = await self._access.walk(lambda opened: journalscan.rejected(opened, first, microseconds(until), limit))
        return [_verdict(*pair) for pair in found]

    async def noticed(self, since: datetime, until: datetime) -> Sequence[str]:
        """Ids of holds of which something happened in that period that people get notices of, oldest first."""

        def ask(connection: Connection) -> list[Entry]:
            return journal.happened_to(connection, TOLD, microseconds(since), microseconds(until))

        told = (one for one in await self._access.ask(ask) if one.kind != Kind.VOTE.value or "release_at" in one.data)
        return list(dict.fromkeys(one.id for one in told))

    async def observed(self, since: datetime, until: datetime, limit: int) -> tuple[int, Sequence[Event]]:
        """The number of verdicts in that period, and those in which a rule only observed, newest first."""
        judged, found = await self._access.walk(
            lambda opened: journalscan.observed(opened, microseconds(since), microseconds(until), limit)
        )
        return judged, [_verdict(*pair) for pair in found]

    async def called(self, word: str) -> Sequence[str]:
        """Ids of messages, mailings and freezes with this prefix, at most ten."""
        from smtpguard.incidents import rows as incident

        return await self._access.ask(lambda c: incident.called(c, word))

    async def find(self, words: Sequence[str], limit: int) -> Sequence[str]:
        """The messages that have all of these words, the newest first. Words are addresses, Message-IDs, queue ids, and
        words of the subjects of held or counted messages."""
        return await self._access.walk(lambda opened: searchindex.find(opened, self._secret, words, limit))

    async def named(self, words: Sequence[str], since: datetime) -> Mapping[str, int]:
        """How many messages since then name each of these addresses."""
        return await self._access.walk(
            lambda opened: searchindex.named(opened, self._secret, words, microseconds(since))
        )

    async def writers(self) -> Sequence[str]:
        """The writers of the newest messages, by their addresses in From and reverse-path."""
        from smtpguard.incidents import rows as incident

        return await self._access.ask(incident.writers)

    async def index(self) -> bool:
        """Index the next entries by their words (searchindex), and sum them (incidents.activityrows), beside admissions.
        Returns whether there is more."""

        def read(connection: Connection) -> tuple[bool, searchindex.Words, activityrows.Slice] | None:
            head = read_head(connection)
            indexed = searchindex.indexed_until(connection, self._secret, head.journal)
            summed = activityrows.summed_until(connection)
            found = journal.unread(connection, min(indexed, summed), head.seq, searchindex.STRETCH)
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

    async def activity(
        self,
        since: datetime,
        until: datetime | None,
        zone: tzinfo,
        *,
        most: int = 0,
        progress: Progress | None = None,
    ) -> Activity:
        """Actions and decisions of that time (incidents.activityrows). ``progress`` is called in a thread."""
        now = self._access.now()
        return await self._access.walk(
            lambda opened: activityrows.activity(opened, since, until, now, zone, most=most, progress=progress)
        )

    async def judged(
        self, query: ActivityFilter, before: int, limit: int
    ) -> tuple[Sequence[tuple[Entry, Clear | None]], int]:
        """The newest messages that fit, before an entry, 0 for the last. Also the entry to continue from, 0 if there are
        no more."""
        return await self._access.walk(lambda opened: activityrows.judged(opened, query, before, limit))

    async def move_fronts(self) -> None:
        """Move what is synced in all fronts into the chain, without waiting for a process that writes one. In several
        commits if it is much, so that admissions come between. They are not synced."""
        while waiting := self._waiting():
            done = await self._access.write(lambda b: [b.move_front(file, PIECE) for file in waiting], synced=False)
            if not any(done) or all(file.rest < PIECE for file in waiting):
                break

    def _waiting(self) -> Sequence[File]:
        """The fronts with frames to move. Raises Unavailable."""
        try:
            return self._access.fronts.waiting() if self._access.fronts is not None else ()
        except OSError as error:
            raise Unavailable(f"the fronts of the journal: {error.strerror}") from error

    async def take_fronts(self, *, only_ended: bool = False) -> int:
        """Move the entries of all fronts into the chain, also those of a bypass, and remove the fronts of ended processes. Returns the
        number of entries. ``only_ended``: only if there is such a front, or one of a bypass."""
        taken = 0
        for _ in range(2):  # only committed frames can be removed
            if not await self._access.ask(partial(self._fronts_wait, only_ended=only_ended)):
                break
            taken += await self._access.write(lambda b: b.take_fronts())
        return taken

    def _fronts_wait(self, connection: Connection, *, only_ended: bool) -> bool:
        """Whether a front has entries to move, or its process has ended. The database's record of a front without a
        file is removed with ``only_ended``, and not by readers."""
        if self._writer.bypasses.waits:
            return True
        fronts = self._access.fronts
        if fronts is None:
            return False
        moved: dict[str, int] = dict(rows_of(connection, "SELECT name, moved FROM front"))
        files = fronts.all()
        if any(not file.lives for file in files):
            return True
        if only_ended:
            return bool(moved.keys() - {file.name for file in files})
        for file in files:
            with contextlib.suppress(OSError, ValueError):
                if file.progress.written[1] > moved.get(file.name, 0):
                    return True
        return False

    def fronts_aside(self) -> Sequence[Path]:
        """Fronts that did not fit the journal, and were not taken over."""
        return [
            *(self._access.fronts.aside() if self._access.fronts is not None else ()),
            *self._writer.bypasses.aside(),
        ]

    async def catch_up(self) -> None:
        """Called before the journal is read as proof: a power failure changes nothing of what is read. If it cannot be
        written, it is read as it is."""
        try:
            await self.take_fronts()
            if self._access.fronts is not None:
                await asyncio.to_thread(self._access.fronts.sync)
        except (StoreError, OSError) as error:
            log.warning("the fronts' entries could not be moved: %s", error)

    async def checkpoint(self) -> Checkpoint | None:
        """Sign the journal's head; the writer does so every minute by itself. None if nothing is new."""
        made = await self._access.write(journal.mark)
        if made is not None:
            await self._access.write(lambda batch: None)  # its line was written by then
        return made

    async def verify(self, progress: Progress | None = None) -> Proof:
        """Walk over the whole journal, with the frames of the fronts. Long, but delays nobody. ``progress`` is called
        in a thread."""
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
        """The same, and if that holds a comparison of all tables beside the journal (crosscheck). ``progress`` for the
        journal, and for the tables. ``host``: this one; if the guard was started on it, its state folder must
        have checkpoints. ``alone``: this process does nothing else, so further processes may help. ``against``: signed
        notes that a witness has kept; ``stamped``: signed notes with a valid time stamp."""
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
        """The key with which others verify the checkpoints that are signed now."""

        def found(connection: Connection) -> Key:
            name = read_head(connection).journal
            return signing.signer(self._secret, name, signing.generation(connection)).key

        return await self._access.ask(found)

    async def rotate(self, event: Event) -> Key:
        """From this entry on another key signs; a checkpoint of each is at the change."""

        def step(batch: Batch) -> Key:
            journal.mark(batch)
            key = signing.rotated(batch, event)
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
    ) -> Found:
        """Everything in the journal about it, and with ``prove`` the walk over the whole journal. Long, as ``verify``.
        ``asked``: as in incidents.report, called in a thread."""
        from smtpguard.incidents import rows as incident

        await self.catch_up()
        now = self._access.now()
        return await self._access.walk(
            lambda opened: incident.find(
                partial(self._walk, opened), query, now, prove=prove, progress=progress, asked=asked
            )
        )

    def _walk(self, opened: Open, against: Sequence[str] = (), stamped: Sequence[str] = ()) -> journalscan.Walk:
        lines = journal.lines_of(self._state_dir)
        return journalscan.Walk(opened, self._secret, lines, self._access.now_us(), against, stamped)


def _verdict(entry: Entry, clear: Clear | None) -> Event:
    private = {role: tuple(values) for role, values in (clear or {}).items()}
    return Event(kind=Kind.VERDICT, id=entry.id, at=entry.time, data=entry.data, private=private)
