"""The store by noun, one object a process; and how it is opened: the right database, at this version, or one sentence
that says why not.

All writes go through the one writer thread (writer.py); reads have a few threads of their own (access.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.counts import contacts
from smtpguard.database.access import Access, sliced
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.engine import Database, is_there
from smtpguard.database.migrate import NotSetUp, check, migrate_open, revision
from smtpguard.database.schema import SCHEMA, head
from smtpguard.incidents import preservation
from smtpguard.incidents.preservation import Preserved
from smtpguard.journal import front as front_model
from smtpguard.journal import rows as journal
from smtpguard.journal import signing
from smtpguard.journal.clock import Clock, SteadyClock
from smtpguard.journal.event import Event
from smtpguard.locale.phrase import Said
from smtpguard.store import retention, rollbackcheck
from smtpguard.store.front import Front
from smtpguard.store.journal import Cursors, Journal
from smtpguard.store.nouns import Contents, Gates, Holds, Mailings, Outbox, People, Policies, Returns
from smtpguard.store.retention import Erased, Retention
from smtpguard.store.rollbackcheck import Rollback, RollbackCheck
from smtpguard.store.writer import Committed, Writer

log = logging.getLogger(__name__)


class Store(Access):
    """The open store, made by ``open_store``. A method that writes commits durably before it returns, except ``journal.note``, and
    those that say so."""

    _writer: Writer
    _front: Front | None

    def __init__(
        self,
        database: Database,
        *,
        secret: bytes,
        state_dir: Path,
        clock: Clock,
        quota_bytes: int = 0,
        put_back: Rollback | None = None,
        renewing: bytes | None = None,
        committed: Committed | None = None,
    ) -> None:
        self.put_back = put_back
        """The rollback that was found when it was opened. The first write freezes everything because of it."""
        self._secret, self._before, self._front = secret, renewing or b"", None
        lookout = RollbackCheck(secret, state_dir, renewing=renewing)
        writer = Writer(database, secret=secret, clock=clock, state_dir=state_dir, lookout=lookout, committed=committed)
        super().__init__(database, writer, clock)
        self.contents = Contents(self, state_dir / "spool", quota_bytes)
        self.holds = Holds(self)
        self.mailings = Mailings(self)
        self.returns = Returns(self, Contents(self, state_dir / "spool", quota_bytes // 2))
        self.outbox = Outbox(self)
        self.gate = Gates(self)
        self.policies = Policies(self)
        self.people = People(self)
        self.cursors = Cursors(self)
        self.journal = Journal(self, writer, secret, state_dir)
        writer.start()

    @property
    def unwritable(self) -> Said:
        """Why a SQLite database can only be read here; else ""."""
        return self._database.copy.why if self._database.copy is not None else ""

    @property
    def file(self) -> str:
        """The path of a SQLite database; "" for PostgreSQL."""
        return str(self._database.path) if self._database.sqlite else ""

    @property
    def fails(self) -> Said:
        """Why this process cannot write now, "" if it can (queue.Waiting)."""
        return self._writer.waiting.fails

    @property
    def problem(self) -> str:
        """Why the last transaction of this process failed, however long ago; "" if it was committed."""
        return self._writer.waiting.problem

    async def admit(self, item: Item, step: Callable[[Seen], Admission]) -> Admission:
        """Run the one transaction that decides on a message (admission.rows). ``step`` is pure and cheap, and runs in the writer's
        thread. It returns, or raises a subclass of StoreError, within half a minute."""
        admission: Admission = await self._writer.submit(item=item, admission=step)
        return admission

    async def try_write(self) -> None:
        """Run a write transaction that changes nothing. Raises StoreError if nothing can be written: another program locks the file, or
        the server became read-only."""
        await self.write(lambda batch: batch.connection.execute(head.select().with_for_update()).all(), synced=False)

    async def open_front(self) -> Front | None:
        """Create the journal's front of this process, after the fronts of ended processes are moved into the chain. Returns None if it
        is impossible: the database is not a file on this machine, or there is no room."""
        fronts = self._database.fronts
        if fronts is None:
            return None
        await self.journal.take_fronts()
        head = await self.ask(read_head)
        writer = self._writer
        front = Front(
            self._database, fronts, self._secret,
            wake=writer.move_soon, note=writer.note, publish=writer.publish, write=self.write,
        )  # fmt: skip
        begins = front_model.Head(journal=head.journal, name=front.name, seq=head.seq, hash=head.hash.hex())
        try:
            await asyncio.get_running_loop().run_in_executor(None, front.make, begins)
        except OSError as error:
            log.warning("no front of the journal, so every message waits for the database: %s", error.strerror)
            return None
        await self.write(front.announce)
        front.start()
        self._front = self._writer.front = front
        return front

    async def close(self) -> None:
        """Write what waits, sign a last checkpoint if anything was written, and end the threads."""
        if self._front is not None:
            await self._front.stop()
        await super().close()
        if self._front is not None:
            self._front.close()

    async def retain(self, keep: Retention) -> Erased:
        """Erase one slice of what is older than ``keep``. ``more`` of the result says to call again."""
        return await self.write(lambda b: retention.erase(b, keep))

    async def agree(self, wanted: Retention, by: str) -> Retention:
        """Return the retention in force if the settings on host ``by`` want this one (retention.agreed)."""
        return await self.write(lambda b: retention.agreed(b, wanted, by))

    async def preserve(self, id: str, *, by: str, reason: str) -> Preserved | None:
        """Keep all data of an incident past its retention (incidents.preservation). Returns None if the journal knows no such id."""
        needed = await self.walk(lambda opened: preservation.find(opened, id))
        if needed is None:
            return None
        for what, keys in ((preservation.ID, sorted(needed.ids)), (preservation.CONTENT, sorted(needed.contents))):
            for some in sliced(keys, preservation.SLICE):
                await self.write(partial(preservation.keep, id=id, what=what, keys=some))
        return await self.write(lambda b: preservation.begin(b, id, needed, by=by, reason=reason))

    async def preserve_longer(self, id: str, by: str, *, also: Collection[str] = ()) -> Preserved:
        """Ask for an extension in the name of ``by``; ``also``: their other addresses. Raises KeyError if the incident is not
        preserved."""
        return await self.write(lambda b: preservation.renew(b, id, by, also))

    async def preserved(self) -> Sequence[Preserved]:
        return await self.ask(preservation.every)

    async def renew(self, event: Event) -> None:
        """Put the secret in force that the store was opened with, from this entry on. Processes with another one can no longer write.
        The checkpoints of the old secret are signed anew, and its key signs that the new key follows, unless the old secret is
        lost. Raises StoreError."""

        def step(batch: Batch) -> None:
            before = self._before
            if not journal.sign_anew(batch, before):  # the old secret is lost, or no longer the one in force
                before = b""
                journal.sign_anew(batch, before)
            batch.move_gate(signing.renewal(batch, event, before))
            journal.mark(batch, renewed=True)
            contacts.forget(batch)

        await self.write(step)


def _check_known(
    connection: Connection, secret: bytes, state_dir: Path, *, renewing: Sequence[bytes] | None
) -> tuple[bytes | None, Rollback | None]:
    """Compare the database with the state folder before it is migrated. Return that of ``renewing`` which is in force, b"" if none is,
    and what was found. Raises Foreign and OtherSecret."""
    found = revision(connection)
    if found is not None:
        before = None if renewing is None else rollbackcheck.in_force(connection, renewing)
        return before, rollbackcheck.look(connection, secret, state_dir, renewing=before, older=found != SCHEMA)
    rollbackcheck.check_uncreated(secret, state_dir)
    return None, None


def _close_opened(opening: asyncio.Future[tuple[Database, bytes | None, Rollback | None]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


@asynccontextmanager
async def open_store(
    url: str,
    *,
    secret: bytes,
    state_dir: Path,
    clock: Clock,
    quota_bytes: int = 0,
    migrate: bool = False,
    hot: bool = False,
    renewing: Sequence[bytes] | None = None,
    reads: bool = False,
    committed: Committed | None = None,
) -> AsyncIterator[Store]:
    """Open the store at ``url`` (sqlite:///path or postgresql://...).

    ``quota_bytes``: of held content, 0 for no limit. ``migrate``: create the database, or migrate it to this version; without it
    SchemaError says what to do. ``hot``: mail waits for its writes. ``renewing``: secrets of which one is in force, unless it is lost;
    ``secret`` is then a new one, which ``renew`` puts in force. ``reads``: nothing will be written, so a read-only store is
    enough. ``clock``: if it is a SteadyClock, it goes by the database server's. ``committed``: called in the writer thread with the
    events of each commit of this process.

    Raises Foreign and OtherSecret, before anything is written, if ``state_dir`` or ``secret`` is another store's.
    """

    def connect() -> tuple[Database, bytes | None, Rollback | None]:
        if not is_there(url):
            rollbackcheck.check_uncreated(secret, state_dir)
            if not migrate:
                raise NotSetUp
        steady = clock if isinstance(clock, SteadyClock) else None
        database = Database(url, hot=hot, reads=reads, clock=steady)
        try:
            with database.read() as connection:
                before, put_back = _check_known(connection, secret, state_dir, renewing=renewing)
            if migrate:
                migrate_open(database)
            with database.read() as connection:
                check(connection)
        except BaseException:
            database.close()
            raise
        return database, before, put_back

    opening = asyncio.get_running_loop().run_in_executor(None, connect)
    try:
        database, before, put_back = await asyncio.shield(opening)
    except asyncio.CancelledError:  # the thread goes on; close the database once it is open
        opening.add_done_callback(_close_opened)
        raise
    store = Store(
        database, secret=secret, state_dir=state_dir, clock=clock, quota_bytes=quota_bytes, put_back=put_back,
        renewing=before, committed=committed,
    )  # fmt: skip
    try:
        yield store
    finally:
        await store.close()
