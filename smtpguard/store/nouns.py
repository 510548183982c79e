"""The store's contents by noun: content, holds, mailings, the outbox, the gate, policies, people, and the journal.

A method without a text here is documented with its query or step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from smtpguard.accounts import rows as accounts
from smtpguard.database.access import Access, Open, Progress, Rows, asks, asks_now, writes
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.errors import StoreError, Unavailable
from smtpguard.database.fronts import File
from smtpguard.database.statements import rows_of
from smtpguard.freezes import rows as gates
from smtpguard.guard import policies
from smtpguard.holds import contents, deciding, revoking
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Hold, OnReleaseEnd, State
from smtpguard.incidents import activityrows
from smtpguard.incidents.activity import Activity, ActivityFilter
from smtpguard.journal import cursors, searchindex, signing
from smtpguard.journal import rows as journal
from smtpguard.journal import scan as journalscan
from smtpguard.journal.chain import Clear, Cursor, Entry, microseconds
from smtpguard.journal.checkpoint import Checkpoint, Key
from smtpguard.journal.distinct import Asked
from smtpguard.journal.event import TOLD, Event, Kind
from smtpguard.journal.linefiles import CHECKPOINTS, lines_of
from smtpguard.journal.proof import Finding, Proof
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.message import Message
from smtpguard.mailings import rows as mailings
from smtpguard.mailings import staging
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import AttemptResult, Intent, Lease
from smtpguard.returns import rows as returns
from smtpguard.store.writer import Writer

if TYPE_CHECKING:  # slow to import, and not needed to freeze
    from smtpguard.incidents.query import IncidentQuery
    from smtpguard.incidents.report import Findings, Report


class Contents:
    """Held content, by its SHA-256. ``spool``: the folder from which large ones are mapped; ``quota_bytes``: 0 for no
    limit."""

    def __init__(self, access: Access, spool: Path, quota_bytes: int) -> None:
        self._access, self._spool, self._quota_bytes = access, spool, quota_bytes

    async def keep(self, message: Message) -> None:
        """In chunks; idempotent. Swept after an hour if nothing refers to it."""
        sha256, size, quota = message.sha256, message.size_bytes, self._quota_bytes
        if not await self._access.write(lambda b: contents.reserve(b, sha256, size, quota)):
            return
        for n, data, last in contents.pieces(message.raw):
            await self._access.write(partial(contents.add, sha256=sha256, n=n, data=data, last=last))

    async def load(self, sha256: str) -> Message:
        """Raises ContentMissing."""
        return await self._access.ask(lambda c: contents.load(c, sha256, self._spool))


class Holds(Rows):
    find = asks(holds.find)
    find_all = asks(holds.find_all)
    copy_by = asks(holds.copy_by)
    newest = asks(holds.newest)
    page = asks(holds.page)
    ranked = asks(holds.ranked, snapshot=True)
    count_by_state = asks(holds.count_by_state)
    due = asks(holds.due)
    leaving = asks(holds.leaving)
    asked_about = asks(holds.asked_about)
    count_letters = asks(holds.count_letters)
    queued = asks(holds.queued)
    shown_of_each = asks(contents.shown_of_each)
    shown_under = asks(contents.shown_under)
    templates = asks(contents.templates)
    leads_to_follow = asks(deciding.leads_to_follow)
    outgoing = asks_now(revoking.outgoing)
    change = writes(deciding.change)
    take_back = writes(revoking.take_back)
    follow = writes(deciding.follow)

    async def every(self, states: Sequence[State] = (), *, copies: bool = False) -> AsyncIterator[Hold]:
        """Newest first, read a page at a time; of all states without ``states``. ``copies``: also those under others."""
        before: datetime | None = None
        after_id: str | None = None
        while page := await self.newest(states=states, before=before, after_id=after_id, copies=copies):
            for hold in page:
                yield hold
            before, after_id = page[-1].held_at, page[-1].hold_id


class Mailings(Rows):
    find = asks_now(mailings.find, snapshot=True)
    newest = asks_now(mailings.newest, snapshot=True)
    standing = asks_now(mailings.standing, snapshot=True)
    named = asks(mailings.named)
    like = asks(mailings.like, snapshot=True)
    reached_by = asks(mailings.reached_by, snapshot=True)
    account = asks(mailings.account, snapshot=True)
    growth = asks(mailings.growth, snapshot=True)
    change = writes(deciding.change_mailing)
    take_back = writes(revoking.take_back_mailing)

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._begun: dict[str, staging.Progress] = {}

    async def prolong_pauses(self) -> None:
        """A pause between two stages begins when half of the stage before is sent."""
        if ids := await self._access.ask(lambda c: mailings.early(c, self._begun)):
            await self._access.write(lambda b: deciding.prolong_pauses(b, ids))

    async def keep_set(self, people: Collection[bytes]) -> None:
        """Keep a set of people, as keyed digests, for an approval that is bound to it (mailings.model.set_of)."""
        name, pieces = mailings.pieces(people)
        for piece in pieces:
            await self._access.write(partial(mailings.put_set, name=name, piece=piece))


class Returns(Rows):
    """Returned mail: bounces and complaints. ``contents``: they may use half of the quota of held content, so that a
    flood of them cannot block holds."""

    take = writes(returns.take)
    mention = writes(returns.mention)
    newest = asks(returns.newest)
    called = asks(returns.mails_by_prefix)
    ends = asks(returns.ends)
    sort_counts = asks(returns.sort_counts)
    between = asks(returns.between)

    def __init__(self, access: Access, contents: Contents) -> None:
        super().__init__(access)
        self.contents = contents


class Outbox(Rows):
    accepted = asks(outboxes.accepted)
    to_ask = asks_now(outboxes.holds_to_ask)
    attempted = asks(outboxes.attempted)
    abandon = writes(outboxes.abandon)
    ask_about = writes(deciding.ask)
    answer = writes(deciding.answer)

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._stopped = outboxes.StoppedEntries()

    async def hasten(self) -> None:
        """What was dated by a clock that was ahead begins now."""
        if ids := await self._access.ask(lambda c: outboxes.misdated(c, self._access.now())):
            await self._access.write(lambda b: outboxes.hasten(b, ids))

    async def lease(self, owner: str, n: int, seconds: int) -> Sequence[Lease]:
        """Lease up to ``n`` due entries, whose holds no freeze stops, to this owner for so many seconds."""
        now = self._access.now_us()
        if not await self._access.ask(lambda c: outboxes.any_due(c, now)):
            return ()
        return await self._access.write(lambda b: outboxes.lease(b, owner, n, seconds, self._stopped))

    async def settle(
        self,
        lease: Lease,
        outcomes: Sequence[AttemptResult],
        events: Sequence[Event],
        intents: Sequence[Intent] = (),
        over: OnReleaseEnd | None = None,
    ) -> bool:
        """Write the outcomes, and what follows from them for the hold and for the people behind the recipients. False:
        the lease was lost meanwhile, and nothing was written. ``over``: called when no recipient of a release is to be
        tried any more. Raises ValueError for a recipient that was not leased."""

        def write(batch: Batch) -> bool:
            sealed = batch.sealed(events)
            rows = [outboxes.rows_of(intent, batch.now_us) for intent in intents]
            changes = outboxes.changes(batch, lease, outcomes)
            if changes is None:
                return False
            batch.append(sealed)
            outboxes.write(batch, rows)
            deciding.record_attempt(batch, lease, changes, over)
            return True

        return await self._access.write(write)


class Gates(Rows):
    read = asks(gates.read)
    freeze = writes(deciding.freeze)  # after it returns, no verdict to relay what it stops can be committed anywhere
    thaw = writes(gates.thaw)


class Policies(Rows):
    documents = asks(policies.policy)
    put = writes(policies.put_policy)
    named = asks(policies.named)
    history = asks(policies.history)
    current = asks(policies.current)


class People(Rows):
    """Accounts, sessions and tokens, and what people and directories add to the policy in force: who is away, and who is in
    its groups. The gate moves with each change of that."""

    turn = writes(accounts.turn)
    account = asks(accounts.account_of)
    everybody = asks(accounts.everybody)
    absences = asks(accounts.absences)
    change_absence = writes(accounts.change_absence)
    memberships = asks(accounts.memberships)
    put_membership = writes(accounts.put_membership)
    drop_membership = writes(accounts.drop_membership)
    session = asks(accounts.session_of)
    seen = writes(accounts.seen)
    token = asks(accounts.token_of)
    tokens = asks(accounts.tokens_of)
    put_token = writes(accounts.put_token)


log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Octets of a front that are moved in one commit, where nobody waits for them: at least one frame (store.front)."""


class Cursors(Rows):
    news = asks(cursors.news)
    pass_over = writes(cursors.pass_over, synced=False)  # if power fails, the same entries are passed over again
    lease = writes(cursors.lease)
    settle = writes(cursors.settle)

    async def at(self, name: str, begin: int | None = None) -> Cursor:
        """``begin``: where a new cursor starts; else at the journal's end."""
        found = await self._access.ask(lambda c: cursors.find(c, name))
        return found if found is not None else await self._access.write(lambda batch: cursors.begin(batch, name, begin))


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
        """Record an outcome without waiting. It is written with a later batch, within 50 ms."""
        self._writer.note(event)

    async def last(self) -> int:
        """The number of the journal's last entry."""
        return await self._access.ask(lambda c: read_head(c).seq)

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

    async def matching_ids(self, word: str) -> Sequence[str]:
        """Ids of messages, mailings and freezes with this prefix, at most ten."""
        from smtpguard.incidents import rows as incident

        return await self._access.ask(lambda c: incident.matching_ids(c, word))

    async def find(self, words: Sequence[str], limit: int, progress: Progress | None = None) -> Sequence[str]:
        """The messages that have all of these words, the newest first. Words are addresses, Message-IDs, queue ids, and
        words of the subjects of held or counted messages. ``progress`` is called in a thread, while entries are not indexed."""
        return await self._access.walk(lambda opened: searchindex.find(opened, self._secret, words, limit, progress))

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
        """Index up to that entry, here or in another process. What was read for the index before this is not written after."""

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
        """Actions and decisions of that time (incidents.activityrows). ``progress`` is called in a thread."""
        now = self._access.now()
        return await self._access.walk(
            lambda opened: activityrows.activity(opened, since, until, now, zone, most=most, progress=progress)
        )

    async def verdicts_of(
        self, query: ActivityFilter, before: int, limit: int
    ) -> tuple[Sequence[tuple[Entry, Clear | None]], int]:
        """The newest messages that fit, before an entry, 0 for the last. Also the entry to continue from, 0 if there are
        no more."""
        return await self._access.walk(lambda opened: activityrows.verdicts_of(opened, query, before, limit))

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
            return self._access.fronts.unmoved() if self._access.fronts is not None else ()
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
        """Everything in the journal about it, and with ``prove`` the walk over the whole journal. Long, as ``verify``.
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
