"""The store: the ledger that guard writes in, and what console and command line ask of it. One object a process.

All writing goes through the one writer thread (writer.py); reading has a few threads of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection

from smtpguard.audit.chain import Clear, Entry, microseconds
from smtpguard.audit.checkpoint import Checkpoint
from smtpguard.audit.event import Event, Kind
from smtpguard.audit.fate import End
from smtpguard.mail.message import Message
from smtpguard.policy.admission import (
    Admission,
    Change,
    Freeze,
    Gate,
    Intent,
    Item,
    Lease,
    Live,
    Outcome,
    Over,
    Unavailable,
)
from smtpguard.policy.approval import Hold, State
from smtpguard.policy.mailing import Fate, Mailing
from smtpguard.policy.sending import Outgoing, Taken
from smtpguard.reading.shown import Shown
from smtpguard.store import (
    asking,
    contacts,
    contents,
    covers,
    deciding,
    gates,
    holds,
    journal,
    mailings,
    naming,
    outboxes,
    policies,
    retention,
    revoking,
    terms,
)
from smtpguard.store.batch import Batch, read_head
from smtpguard.store.database import Database
from smtpguard.store.policies import Put, Standing
from smtpguard.store.queued import Clock
from smtpguard.store.retention import Erased, Retention
from smtpguard.store.rollbackcheck import Lookout, PutBack
from smtpguard.store.writer import Committed, Writer

if TYPE_CHECKING:  # what takes long to import, and what who only freezes does without
    from smtpguard.audit.about import About
    from smtpguard.audit.distinct import Asked
    from smtpguard.audit.proof import Proof
    from smtpguard.store import incident, journalscan

T = TypeVar("T")
READ_SECONDS = 10.0


class Store:
    """Fits guard.ports.Ledger. Made by ``opening.open_store``."""

    def __init__(
        self,
        database: Database,
        *,
        secret: bytes,
        state_dir: Path,
        clock: Clock,
        quota_bytes: int = 0,
        put_back: PutBack | None = None,
        renewing: bool = False,
        committed: Committed | None = None,
    ) -> None:
        self.put_back = put_back
        """What was found when it was opened: whoever writes first lets everything stand still for it."""
        self._database = database
        self._secret = secret
        self._state_dir = state_dir
        self._clock = clock
        self._quota = quota_bytes
        lookout = Lookout(secret, state_dir, renewing=renewing)
        self._writer = Writer(
            database, secret=secret, clock=clock, state_dir=state_dir, lookout=lookout, committed=committed
        )
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="smtpguard-read")
        self._closed = False
        self._writer.start()

    @property
    def copy(self) -> Path | None:
        """The file of a database that can only be read here."""
        return self._database.path if self._database.copy is not None else None

    async def close(self) -> None:
        """Write what waits, sign a last checkpoint if anything was written, and end the threads."""
        self._closed = True
        await self._writer.stop()
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _read(self, query: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        def run() -> T:
            with self._database.read(snapshot=snapshot) as connection:
                return query(connection)

        running = asyncio.get_running_loop().run_in_executor(self._readers, run)
        try:
            async with asyncio.timeout(READ_SECONDS):  # wait_for of Python 3.11 may swallow a cancellation
                return await running
        except TimeoutError:
            raise Unavailable("no answer from the database in time") from None

    @contextmanager
    def _open(self) -> Iterator[Connection]:
        """One short transaction of a long read, which ends where the store is closed."""
        if self._closed:
            raise Unavailable("the store is closed")
        with self._database.read(snapshot=True) as connection:
            yield connection

    async def _walk(self, run: Callable[[], T]) -> T:
        """A long read, of many short transactions (``_open``)."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    # -- guard.ports.Ledger

    async def keep(self, message: Message) -> None:
        sha256, size, quota = message.sha256, message.size_bytes, self._quota
        if not await self._writer.submit(lambda b: contents.begin(b, sha256, size, quota)):
            return
        for n, data, last in contents.pieces(message.raw):
            await self._writer.submit(partial(contents.add, sha256=sha256, n=n, data=data, last=last))

    async def content(self, sha256: str) -> Message:
        return await self._read(lambda c: contents.load(c, sha256, self._state_dir / "spool"))

    async def admit(self, item: Item, step: Callable[[Live], Admission]) -> Admission:
        admission: Admission = await self._writer.submit(item=item, admission=step)
        return admission

    async def change(self, hold_id: str, step: Callable[[Hold], Change]) -> Change:
        change: Change = await self._writer.submit(lambda b: deciding.change(b, hold_id, step))
        return change

    async def take_back(self, hold_id: str, step: revoking.Step) -> Taken:
        return await self.write(lambda b: revoking.take_back(b, hold_id, step))

    async def take_back_mailing(
        self, mailing_id: str, decide: revoking.Decide, step: revoking.Step
    ) -> tuple[Mailing, Taken]:
        return await self.write(lambda b: revoking.take_back_mailing(b, mailing_id, decide, step))

    async def in_doubt(self) -> Sequence[str]:
        now = microseconds(self._clock.now())
        return await self._read(lambda c: outboxes.to_ask(c, now))

    async def ask_about(self, hold_id: str, step: asking.Step, over: Over) -> None:
        await self.write(lambda b: asking.ask(b, hold_id, step, over))

    async def say(self, hold_id: str, step: asking.Step, over: Over, *, sent: bool) -> Change:
        return await self.write(lambda b: asking.say(b, hold_id, step, over, sent=sent))

    async def asked(self) -> Sequence[Hold]:
        return await self._read(holds.asked)

    async def abandon(self, gone: Callable[[str], bool]) -> int:
        return await self.write(lambda b: outboxes.abandon(b, gone))

    async def outgoing(self, hold_id: str) -> Outgoing:
        now = microseconds(self._clock.now())
        return await self._read(lambda c: revoking.outgoing(c, hold_id, now))

    async def templates(self, names: Collection[str]) -> Mapping[str, str]:
        return await self._read(lambda c: covers.documents(c, names)) if names else {}

    async def letters(self, lead_id: str) -> int:
        return await self._read(lambda c: holds.letters(c, lead_id))

    async def queued(self, hold_id: str, limit: int) -> Sequence[tuple[Hold, Shown | None]]:
        return await self._read(lambda c: holds.queued(c, hold_id, limit))

    async def shown(self, hold_ids: Collection[str]) -> Mapping[str, Shown]:
        return await self._read(lambda c: covers.of_holds(c, hold_ids)) if hold_ids else {}

    async def under(self, lead_id: str) -> Sequence[tuple[Shown | None, str, frozenset[str]]]:
        return await self._read(lambda c: covers.under(c, lead_id))

    async def follow(self, lead_id: str, n: int, step: deciding.Follow) -> int:
        done: int = await self._writer.submit(lambda b: deciding.follow(b, lead_id, n, step))
        return done

    async def mailing(self, mailing_id: str) -> Mailing | None:
        now = self._clock.now()
        return await self._read(lambda c: mailings.find(c, mailing_id, now), snapshot=True)

    async def mailings(
        self,
        *,
        least: int = 1,
        state: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Mailing]:
        now = self._clock.now()
        return await self._read(lambda c: mailings.newest(c, least, state, limit, now, before), snapshot=True)

    async def mailings_named(self, prefix: str) -> Sequence[str]:
        return await self._read(lambda c: mailings.named(c, prefix))

    async def called(self, word: str) -> Sequence[str]:
        return await self._read(lambda c: naming.called(c, word))

    async def find(self, words: Sequence[str], limit: int) -> Sequence[str]:
        """The messages that have all of these words, the newest first, at most so many (see terms)."""
        return await self._walk(lambda: terms.find(self._open, self._secret, words, limit))

    async def named(self, words: Sequence[str], since: datetime) -> Mapping[str, int]:
        """How many messages since then name each of these addresses (see terms)."""
        return await self._walk(lambda: terms.named(self._open, self._secret, words, microseconds(since)))

    async def write_terms(self) -> bool:
        """What the next entries are found by, beside admissions. Whether there is more."""
        made = await self._read(lambda c: terms.read(c, self._secret), snapshot=True)
        if made is None:
            return False
        written: bool = await self._writer.submit(lambda b: terms.write(b, made, self._secret))
        return written and made.more

    async def writers(self) -> Sequence[str]:
        return await self._read(naming.writers)

    async def reached_by(self, mailing_id: str, digests: Sequence[bytes]) -> Mapping[bytes, Fate]:
        return await self._read(lambda c: mailings.reached_by(c, mailing_id, digests), snapshot=True)

    async def change_mailing(self, mailing_id: str, step: Callable[[Mailing], tuple[Mailing, Change]]) -> Mailing:
        made: Mailing = await self._writer.submit(lambda b: deciding.change_mailing(b, mailing_id, step))
        return made

    async def decided_leads(self) -> Sequence[str]:
        leads: Sequence[str] = await self._read(deciding.decided_leads)
        return leads

    async def record(self, events: Sequence[Event], intents: Sequence[Intent] = ()) -> None:
        def write(batch: Batch) -> None:
            sealed = batch.sealed(events)
            rows = [outboxes.rows_of(intent, batch.now_us) for intent in intents]
            batch.append(sealed)
            outboxes.write(batch, rows)

        await self._writer.submit(write)

    def note(self, event: Event) -> None:
        self._writer.note(event)

    async def freeze(self, freeze: Freeze, event: Event) -> Gate:
        gate: Gate = await self._writer.submit(lambda b: gates.freeze(b, freeze, event))
        return gate

    async def thaw(self, freeze_id: str, event: Event) -> Gate:
        gate: Gate = await self._writer.submit(lambda b: gates.thaw(b, freeze_id, event))
        return gate

    async def gate(self) -> Gate:
        return await self._read(gates.read)

    async def put_policy(
        self, sha256: str, documents: Mapping[str, bytes], event: Event, before: str | None = None
    ) -> Gate:
        gate: Gate = await self._writer.submit(lambda b: policies.put_policy(b, sha256, documents, event, before))
        return gate

    async def policy(self, sha256: str) -> Mapping[str, bytes]:
        return await self._read(lambda c: policies.policy(c, sha256))

    async def policies_named(self, prefix: str) -> Sequence[str]:
        return await self._read(lambda c: policies.named(c, prefix))

    async def policy_history(self, limit: int = 1000) -> Sequence[Put]:
        """The changes of the policy in force, the newest first."""
        return await self._read(lambda c: policies.history(c, limit))

    async def policy_standing(self) -> Standing:
        return await self._read(policies.standing)

    async def lease(self, owner: str, n: int, seconds: int) -> Sequence[Lease]:
        now = microseconds(self._clock.now())
        if not await self._read(lambda c: outboxes.any_due(c, now)):
            return ()
        leases: Sequence[Lease] = await self._writer.submit(lambda b: outboxes.lease(b, owner, n, seconds))
        return leases

    async def settle(
        self,
        lease: Lease,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        intents: Sequence[Intent] = (),
        over: Over | None = None,
    ) -> bool:
        def write(batch: Batch) -> bool:
            sealed = batch.sealed(events)
            rows = [outboxes.rows_of(intent, batch.now_us) for intent in intents]
            changes = outboxes.changes(batch, lease, outcomes)
            if changes is None:
                return False
            batch.append(sealed)
            outboxes.write(batch, rows)
            deciding.delivered(batch, lease, changes, over)
            return True

        settled: bool = await self._writer.submit(write)
        return settled

    async def hold(self, hold_id: str) -> Hold | None:
        return await self._read(lambda c: holds.find(c, hold_id))

    async def holds(
        self,
        *,
        states: Sequence[State] = (),
        limit: int = 1000,
        before: datetime | None = None,
        after_id: str | None = None,
    ) -> Sequence[Hold]:
        return await self._read(lambda c: holds.newest(c, states, limit, before, after_id))

    async def due(self, now: datetime) -> Sequence[Hold]:
        return await self._read(lambda c: holds.due(c, now))

    async def in_flight(self, freeze: Freeze, since: datetime) -> Sequence[str]:
        now = self._clock.now()
        return await self._read(lambda c: gates.in_flight(c, freeze, since, now))

    async def attempted(self, freeze: Freeze) -> Mapping[str, str]:
        now = self._clock.now()
        return await self._read(lambda c: gates.attempted(c, freeze, now))

    async def taken(self, intents: Sequence[str]) -> Sequence[str]:
        return await self._read(lambda c: gates.taken(c, intents))

    async def outcomes(self, ids: Sequence[str]) -> Mapping[str, End]:
        return await self._read(lambda c: journal.outcomes(c, ids))

    async def rejected(self, first: str, until: datetime, limit: int) -> Sequence[Event]:
        from smtpguard.store import journalscan

        found = await self._walk(lambda: journalscan.rejected(self._open, first, microseconds(until), limit))
        return [_verdict(*pair) for pair in found]

    async def observed(self, since: datetime, until: datetime, limit: int) -> tuple[int, Sequence[Event]]:
        from smtpguard.store import journalscan

        judged, found = await self._walk(
            lambda: journalscan.observed(self._open, microseconds(since), microseconds(until), limit)
        )
        return judged, [_verdict(*pair) for pair in found]

    async def unsettled(self, before: datetime) -> Sequence[str]:
        """Verdicts to relay older than ``before`` without an outcome: after a crash, in doubt."""
        return await self._read(lambda c: gates.unsettled(c, before))

    # -- beyond the ledger: for delivery's housekeeping, console and command line

    def now(self) -> datetime:
        """By the clock that the store writes with."""
        return self._clock.now()

    async def ask(self, query: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """For the other answers of this room (archive). ``snapshot``: several statements that must agree."""
        return await self._read(query, snapshot=snapshot)

    async def write(self, step: Callable[[Batch], T]) -> T:
        """What others write beside the ledger (people, hooks): one step in the writer's thread, committed on return."""
        written: T = await self._writer.submit(step)
        return written

    async def hold_counts(self) -> Mapping[State, int]:
        return await self._read(holds.counts)

    async def history(self, id: str) -> Sequence[tuple[Entry, Clear | None]]:
        """The journal's entries on one transaction, hold or freeze, with the clear values that are still there."""
        return await self._read(lambda c: journal.of(c, id))

    async def last(self) -> int:
        """The number of the journal's last entry."""
        return await self._read(lambda c: read_head(c).seq)

    async def entries(
        self, *, after: int = 0, until: int | None = None, limit: int = 1000
    ) -> Sequence[tuple[Entry, Clear | None]]:
        """The journal in order, from the entry after ``after``."""
        return await self._read(lambda c: journal.read(c, after=after, until=until, limit=limit))

    async def checkpoint(self) -> Checkpoint | None:
        """Sign where the journal is now; the writer does so every minute by itself. None where nothing is new."""
        made: Checkpoint | None = await self._writer.submit(journal.mark)
        return made

    async def renew(self, event: Event) -> None:
        """From this entry on the secret that the store was opened with is in force. Who has another one writes nothing more."""

        def step(batch: Batch) -> None:
            batch.record([event])
            journal.mark(batch, renewed=True)
            contacts.forget(batch)
            batch.moved()

        await self._writer.submit(step)

    async def retain(self, keep: Retention) -> Erased:
        """One slice of forgetting and sweeping; ``more`` says to call again."""
        erased: Erased = await self._writer.submit(lambda b: retention.erase(b, keep))
        return erased

    async def verify(self, progress: journalscan.Progress | None = None) -> Proof:
        """Walk over the whole journal. Long, and in nobody's way. ``progress`` is called in a thread."""
        return await self._walk(lambda: self._journal().prove(progress))

    async def incident(
        self, about: About, *, prove: bool, progress: journalscan.Progress | None = None, asked: Asked | None = None
    ) -> incident.Found:
        """All that the journal has on it, and with ``prove`` the walk over the whole journal. Long, as ``verify``. ``asked``: as in
        audit.report, and in a thread."""
        from smtpguard.store import incident

        now = self._clock.now()
        return await self._walk(
            lambda: incident.find(self._journal, about, now, prove=prove, progress=progress, asked=asked)
        )

    def _journal(self) -> journalscan.Walk:
        """In a thread that reads."""
        from smtpguard.store import journalscan

        return journalscan.Walk(self._open, self._secret, journal.lines_of(self._state_dir))


def _verdict(entry: Entry, clear: Clear | None) -> Event:
    private = {role: tuple(values) for role, values in (clear or {}).items()}
    return Event(kind=Kind.VERDICT, id=entry.id, at=entry.time, data=entry.data, private=private)
