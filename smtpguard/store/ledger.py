"""The store's contents by noun: holds, mailings, the outbox, the gate, policies, content, the journal.

Each reads and writes rows through Access. guard.ports documents the methods that it declares.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from smtpguard.accounts import rows as accounts
from smtpguard.accounts.membership import Membership
from smtpguard.accounts.model import Account as Person
from smtpguard.database.access import Access, Open
from smtpguard.database.batch import Batch, read_head
from smtpguard.database.errors import LedgerError
from smtpguard.freezes import rows as gates
from smtpguard.guard import policies
from smtpguard.guard.policies import CurrentPolicy, Put
from smtpguard.holds import approvedcontent, contents, deciding, revoking
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Change, Hold, Over, State
from smtpguard.holds.sending import Outgoing, RevocationResult
from smtpguard.journal import rows as journal
from smtpguard.journal import searchindex
from smtpguard.journal.chain import Clear, Entry, microseconds
from smtpguard.journal.checkpoint import Checkpoint
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.front import FIRST, tail
from smtpguard.journal.outcome import Outcome
from smtpguard.locale.phrase import Phrase
from smtpguard.mail.message import Message
from smtpguard.mailings import rows as mailings
from smtpguard.mailings import sets
from smtpguard.mailings.model import Account, CopyStatus, Mailing
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import AttemptResult, Intent, Lease
from smtpguard.policy.absences import Absence
from smtpguard.policy.breakers import Watched
from smtpguard.policy.freezing import Freeze, Gate
from smtpguard.reading.fingerprint import Sketch
from smtpguard.reading.shown import Shown
from smtpguard.returns import rows as returns
from smtpguard.returns.mentions import Mention
from smtpguard.returns.model import Return, Sort, Spell
from smtpguard.store.writer import Writer

if TYPE_CHECKING:  # slow to import, and not needed to freeze
    from smtpguard.incidents import activityrows
    from smtpguard.incidents import rows as incident
    from smtpguard.incidents.activity import Activity
    from smtpguard.incidents.query import IncidentQuery
    from smtpguard.journal import scan as journalscan
    from smtpguard.journal.distinct import Asked
    from smtpguard.journal.note import Key
    from smtpguard.journal.proof import Proof
    from smtpguard.journal.signing import Inclusion

log = logging.getLogger(__name__)


class Contents:
    """Held content, by its SHA-256. ``spool``: the folder from which large ones are mapped; ``quota_bytes``: 0 for no
    limit."""

    def __init__(self, access: Access, spool: Path, quota_bytes: int) -> None:
        self._access, self._spool, self._quota_bytes = access, spool, quota_bytes

    async def keep(self, message: Message) -> None:
        sha256, size, quota = message.sha256, message.size_bytes, self._quota_bytes
        if not await self._access.write(lambda b: contents.begin(b, sha256, size, quota)):
            return
        for n, data, last in contents.pieces(message.raw):
            await self._access.write(partial(contents.add, sha256=sha256, n=n, data=data, last=last))

    async def load(self, sha256: str) -> Message:
        return await self._access.ask(lambda c: contents.load(c, sha256, self._spool))


class Holds:
    """Holds, and decisions on them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find(self, hold_id: str) -> Hold | None:
        return await self._access.ask(lambda c: holds.find(c, hold_id))

    async def newest(
        self,
        *,
        states: Sequence[State] = (),
        limit: int = 1000,
        before: datetime | None = None,
        after_id: str | None = None,
    ) -> Sequence[Hold]:
        return await self._access.ask(lambda c: holds.newest(c, states, limit, before, after_id))

    async def counts(self) -> Mapping[State, int]:
        return await self._access.ask(holds.counts)

    async def due(self, now: datetime) -> Sequence[Hold]:
        return await self._access.ask(lambda c: holds.due(c, now))

    async def leaving(self) -> Sequence[Hold]:
        return await self._access.ask(holds.leaving)

    async def asked(self) -> Sequence[Hold]:
        return await self._access.ask(holds.asked)

    async def change(self, hold_id: str, step: Callable[[Hold], Change]) -> Change:
        change: Change = await self._access.write(lambda b: deciding.change(b, hold_id, step))
        return change

    async def take_back(self, hold_id: str, step: revoking.Step) -> RevocationResult:
        return await self._access.write(lambda b: revoking.take_back(b, hold_id, step))

    async def outgoing(self, hold_id: str) -> Outgoing:
        now = self._access.now_us()
        return await self._access.ask(lambda c: revoking.outgoing(c, hold_id, now))

    async def letters(self, lead_id: str) -> int:
        return await self._access.ask(lambda c: holds.letters(c, lead_id))

    async def queued(self, hold_id: str, limit: int) -> Sequence[tuple[Hold, Shown | None]]:
        return await self._access.ask(lambda c: holds.queued(c, hold_id, limit))

    async def shown(self, hold_ids: Collection[str]) -> Mapping[str, Shown]:
        return await self._access.ask(lambda c: approvedcontent.of_holds(c, hold_ids)) if hold_ids else {}

    async def under(self, lead_id: str) -> Sequence[tuple[Shown | None, str, frozenset[str]]]:
        return await self._access.ask(lambda c: approvedcontent.under(c, lead_id))

    async def follow(self, lead_id: str, n: int, step: deciding.Follow) -> int:
        done: int = await self._access.write(lambda b: deciding.follow(b, lead_id, n, step))
        return done

    async def decided_leads(self) -> Sequence[str]:
        leads: Sequence[str] = await self._access.ask(deciding.decided_leads)
        return leads

    async def templates(self, names: Collection[str]) -> Mapping[str, str]:
        return await self._access.ask(lambda c: approvedcontent.documents(c, names)) if names else {}


class Mailings:
    """Mailings, and decisions on them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find(self, mailing_id: str) -> Mailing | None:
        now = self._access.now()
        return await self._access.ask(lambda c: mailings.find(c, mailing_id, now), snapshot=True)

    async def newest(
        self,
        *,
        least: int = 1,
        state: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Mailing]:
        now = self._access.now()
        return await self._access.ask(lambda c: mailings.newest(c, least, state, limit, now, before), snapshot=True)

    async def named(self, prefix: str) -> Sequence[str]:
        return await self._access.ask(lambda c: mailings.named(c, prefix))

    async def like(self, sketch: Sketch, since: datetime) -> str:
        return await self._access.ask(lambda c: mailings.like(c, sketch, since), snapshot=True)

    async def reached_by(self, mailing_id: str, digests: Sequence[bytes]) -> Mapping[bytes, CopyStatus]:
        return await self._access.ask(lambda c: mailings.reached_by(c, mailing_id, digests), snapshot=True)

    async def account(self, mailing_id: str) -> Account:
        return await self._access.ask(lambda c: mailings.account(c, mailing_id), snapshot=True)

    async def keep_set(self, people: Collection[bytes]) -> str:
        name, pieces = sets.pieces(people)
        for piece in pieces:
            await self._access.write(partial(sets.put, name=name, piece=piece))
        return name

    async def change(self, mailing_id: str, step: Callable[[Mailing], tuple[Mailing, Change]]) -> Mailing:
        made: Mailing = await self._access.write(lambda b: deciding.change_mailing(b, mailing_id, step))
        return made

    async def take_back(
        self, mailing_id: str, decide: revoking.Decide, step: revoking.Step
    ) -> tuple[Mailing, RevocationResult]:
        return await self._access.write(lambda b: revoking.take_back_mailing(b, mailing_id, decide, step))


class Returns:
    """Returned mail: bounces and complaints. ``contents``: they may use half of the quota of held content, so that a
    flood of them cannot block holds."""

    def __init__(self, access: Access, contents: Contents) -> None:
        self._access, self.contents = access, contents

    async def take(self, some: Sequence[Return], watched: Watched | None = None) -> returns.StoredReturns:
        return await self._access.write(lambda b: returns.take(b, some, watched))

    async def newest(
        self,
        *,
        mailing: str | None = None,
        sort: Sort | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
        since: datetime | None = None,
    ) -> Sequence[Return]:
        return await self._access.ask(lambda c: returns.newest(c, mailing, sort, limit, before, since))

    async def mention(self, some: Sequence[Mention]) -> int:
        return await self._access.write(lambda b: returns.mention(b, some))

    async def called(self, prefix: str) -> Sequence[str]:
        return await self._access.ask(lambda c: returns.mails_by_prefix(c, prefix))

    async def ends(self, mailing_id: str) -> tuple[datetime, datetime] | None:
        return await self._access.ask(lambda c: returns.ends(c, mailing_id))

    async def spells(self, mailing_id: str, width: timedelta) -> Sequence[Spell]:
        width_us = int(width.total_seconds() * 1_000_000)
        return await self._access.ask(lambda c: returns.spells(c, mailing_id, width_us))

    async def between(self, mailing_id: str, begin: datetime, end: datetime) -> int:
        return await self._access.ask(lambda c: returns.between(c, mailing_id, begin, end))

    async def by_mailing(self, since: datetime, limit: int) -> Mapping[str, int]:
        return await self._access.ask(lambda c: returns.by_mailing(c, since, limit))


class Outbox:
    """The outbox, recipient by recipient."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._stopped = outboxes.StoppedEntries()

    async def lease(self, owner: str, n: int, seconds: int) -> Sequence[Lease]:
        now = self._access.now_us()
        if not await self._access.ask(lambda c: outboxes.any_due(c, now)):
            return ()
        leases: Sequence[Lease] = await self._access.write(
            lambda b: outboxes.lease(b, owner, n, seconds, self._stopped)
        )
        return leases

    async def settle(
        self,
        lease: Lease,
        outcomes: Sequence[AttemptResult],
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

        settled: bool = await self._access.write(write)
        return settled

    async def abandon(self, gone: Callable[[str], bool]) -> int:
        return await self._access.write(lambda b: outboxes.abandon(b, gone))

    async def in_doubt(self) -> Sequence[str]:
        now = self._access.now_us()
        return await self._access.ask(lambda c: outboxes.to_ask(c, now))

    async def ask_about(self, hold_id: str, step: deciding.Asking, over: Over) -> None:
        await self._access.write(lambda b: deciding.ask(b, hold_id, step, over))

    async def say(self, hold_id: str, step: deciding.Asking, over: Over, *, sent: bool) -> Change:
        return await self._access.write(lambda b: deciding.say(b, hold_id, step, over, sent=sent))

    async def attempted(self, freeze: Freeze) -> Mapping[str, str]:
        now = self._access.now()
        return await self._access.ask(lambda c: outboxes.attempted(c, freeze, now))

    async def taken(self, intents: Sequence[str]) -> Sequence[str]:
        return await self._access.ask(lambda c: outboxes.taken(c, intents))


class Gates:
    """The gate: freezes, and the policy in force."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def read(self) -> Gate:
        return await self._access.ask(gates.read)

    async def freeze(self, freeze: Freeze, event: Event) -> Gate:
        gate: Gate = await self._access.write(lambda b: deciding.freeze(b, freeze, event))
        return gate

    async def thaw(self, freeze_id: str, event: Event) -> Gate:
        gate: Gate = await self._access.write(lambda b: gates.thaw(b, freeze_id, event))
        return gate


class Policies:
    """The stored policies."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def documents(self, sha256: str) -> Mapping[str, bytes]:
        return await self._access.ask(lambda c: policies.policy(c, sha256))

    async def put(self, sha256: str, documents: Mapping[str, bytes], event: Event, before: str | None = None) -> Gate:
        gate: Gate = await self._access.write(lambda b: policies.put_policy(b, sha256, documents, event, before))
        return gate

    async def absences(self) -> Sequence[Absence]:
        return await self._access.ask(accounts.absences)

    async def memberships(self) -> Sequence[Membership]:
        return await self._access.ask(accounts.memberships)

    async def put_membership(self, made: Membership) -> None:
        await self._access.write(lambda batch: accounts.put_membership(batch, made))

    async def accounts(self) -> Sequence[Person]:
        return await self._access.ask(accounts.everybody)

    async def named(self, prefix: str) -> Sequence[str]:
        return await self._access.ask(lambda c: policies.named(c, prefix))

    async def history(self, limit: int = 1000) -> Sequence[Put]:
        """The changes of the policy in force, the newest first."""
        return await self._access.ask(lambda c: policies.history(c, limit))

    async def current(self) -> CurrentPolicy:
        return await self._access.ask(policies.current)


class Journal:
    """The journal: written, read in order, searched and proved."""

    def __init__(self, access: Access, writer: Writer, secret: bytes, state_dir: Path) -> None:
        self._access, self._writer, self._secret, self._state_dir = access, writer, secret, state_dir

    async def record(self, events: Sequence[Event], intents: Sequence[Intent] = ()) -> None:
        def write(batch: Batch) -> None:
            sealed = batch.sealed(events)
            rows = [outboxes.rows_of(intent, batch.now_us) for intent in intents]
            batch.append(sealed)
            outboxes.write(batch, rows)

        await self._access.write(write)

    def note(self, event: Event) -> None:
        self._writer.note(event)

    async def history(self, id: str) -> Sequence[tuple[Entry, Clear | None]]:
        """The journal's entries on one transaction, hold or freeze, with the clear values that still exist."""
        return await self._access.ask(lambda c: journal.of(c, id))

    async def of_kinds(self, kinds: Sequence[Kind], limit: int) -> Sequence[tuple[Entry, Clear | None]]:
        """The newest entries of these kinds."""
        return await self._access.ask(lambda c: journal.of_kinds(c, kinds, limit))

    async def last(self) -> int:
        """The number of the journal's last entry."""
        return await self._access.ask(lambda c: read_head(c).seq)

    async def entries(
        self, *, after: int = 0, until: int | None = None, limit: int = 1000
    ) -> Sequence[tuple[Entry, Clear | None]]:
        """The journal in order, from the entry after ``after``."""
        return await self._access.ask(lambda c: journal.read(c, after=after, until=until, limit=limit))

    async def in_flight(self, freeze: Freeze, since: datetime) -> Sequence[str]:
        now = self._access.now()
        return await self._access.ask(lambda c: gates.in_flight(c, freeze, since, now))

    async def unsettled(self, before: datetime) -> Sequence[str]:
        """Verdicts to relay older than ``before`` without an outcome: after a crash, in doubt."""
        return await self._access.ask(lambda c: gates.unsettled(c, before))

    async def outcomes(self, ids: Sequence[str]) -> Mapping[str, Outcome]:
        return await self._access.ask(lambda c: journal.outcomes(c, ids))

    async def rejected(self, first: str, until: datetime, limit: int) -> Sequence[Event]:
        from smtpguard.journal import scan as journalscan

        found = await self._access.walk(lambda opened: journalscan.rejected(opened, first, microseconds(until), limit))
        return [_verdict(*pair) for pair in found]

    async def observed(self, since: datetime, until: datetime, limit: int) -> tuple[int, Sequence[Event]]:
        from smtpguard.journal import scan as journalscan

        judged, found = await self._access.walk(
            lambda opened: journalscan.observed(opened, microseconds(since), microseconds(until), limit)
        )
        return judged, [_verdict(*pair) for pair in found]

    async def called(self, word: str) -> Sequence[str]:
        from smtpguard.incidents import rows as incident

        return await self._access.ask(lambda c: incident.called(c, word))

    async def find(self, words: Sequence[str], limit: int) -> Sequence[str]:
        """The messages that have all of these words, the newest first, at most ``limit`` (see terms)."""
        return await self._access.walk(lambda opened: searchindex.find(opened, self._secret, words, limit))

    async def named(self, words: Sequence[str], since: datetime) -> Mapping[str, int]:
        """How many messages since then name each of these addresses (see terms)."""
        return await self._access.walk(
            lambda opened: searchindex.named(opened, self._secret, words, microseconds(since))
        )

    async def writers(self) -> Sequence[str]:
        from smtpguard.incidents import rows as incident

        return await self._access.ask(incident.writers)

    async def write_terms(self) -> bool:
        """Index the next entries, beside admissions. Returns whether there is more."""
        made = await self._access.ask(lambda c: searchindex.read(c, self._secret), snapshot=True)
        if made is None:
            return False
        written: bool = await self._access.write(lambda b: searchindex.write(b, made, self._secret))
        return written and made.more

    async def sum_up(self) -> bool:
        """Sum the next entries (incidents.activityrows), beside admissions. Returns whether there is more."""
        from smtpguard.incidents import activityrows

        made = await self._access.ask(activityrows.read, snapshot=True)
        if made is None:
            return False
        written: bool = await self._access.write(lambda b: activityrows.write(b, made))
        return written and made.more

    async def activity(
        self,
        since: datetime,
        until: datetime | None,
        zone: tzinfo,
        *,
        most: int = 0,
        progress: journalscan.Progress | None = None,
    ) -> Activity:
        """Actions and decisions of that time (incidents.activityrows). ``progress`` is called in a thread."""
        from smtpguard.incidents import activityrows

        now = self._access.now()
        return await self._access.walk(
            lambda opened: activityrows.activity(opened, since, until, now, zone, most=most, progress=progress)
        )

    async def votes(self, since: datetime, until: datetime) -> Sequence[tuple[str, str, float | None]]:
        """The votes between the two times (incidents.activityrows)."""
        from smtpguard.incidents import activityrows

        return await self._access.ask(lambda connection: activityrows.votes(connection, since, until))

    async def judged(
        self, query: activityrows.ActivityFilter, before: int, limit: int
    ) -> tuple[Sequence[tuple[Entry, Clear | None]], int]:
        """The newest verdicts of a sum (incidents.activityrows)."""
        from smtpguard.incidents import activityrows

        return await self._access.walk(lambda opened: activityrows.judged(opened, query, before, limit))

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
        moved: dict[str, int] = {name: n for name, n in connection.execute(text("SELECT name, moved FROM front"))}  # noqa: C416 - rows
        files = fronts.all()
        if any(not file.lives for file in files):
            return True
        if only_ended:
            return bool(moved.keys() - {file.name for file in files})
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                if tail(file.read()[FIRST:], moved.get(file.name, 0)).fronted:
                    return True
        return False

    def fronts_aside(self) -> Sequence[Path]:
        """Fronts that did not fit the journal, and were not taken over."""
        return [
            *(self._access.fronts.aside() if self._access.fronts is not None else ()),
            *self._writer.bypasses.aside(),
        ]

    async def catch_up(self) -> None:
        """Called before the journal is read as proof. If it cannot be written, it is read as it is."""
        try:
            await self.take_fronts()
        except LedgerError as error:
            log.warning("the fronts' entries could not be moved: %s", error)

    async def checkpoint(self) -> Checkpoint | None:
        """Sign the journal's head; the writer does so every minute by itself. None if nothing is new."""
        made: Checkpoint | None = await self._access.write(journal.mark)
        if made is not None:
            await self._access.write(lambda batch: None)  # its line was written by then
        return made

    async def verify(self, progress: journalscan.Progress | None = None) -> Proof:
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
        progress: Sequence[journalscan.Progress | None] = (None, None),
    ) -> Proof:
        """The same, and if that holds a comparison of all tables beside the journal (crosscheck). ``progress`` for the
        journal, and for the tables. ``host``: this one; if the guard was started on it, its state folder must
        have checkpoints. ``alone``: this process does nothing else, so further processes may help. ``against``: signed
        notes that a witness has kept; ``stamped``: signed notes with a valid time stamp."""
        from smtpguard.journal.proof import Finding
        from smtpguard.store import crosscheck

        await self.catch_up()

        def run(opened: Open) -> Proof:
            chain, beside = progress
            walk = self._walk(opened, against, stamped)
            proof = walk.quick(self._access.url if alone else "", chain) or walk.prove(chain)
            if not proof.ok:
                return proof
            found = crosscheck.check(opened, beside)
            if not proof.filed and crosscheck.written_by(opened, host):
                found.insert(0, Finding(about="checkpoints", id=host, problem=Phrase("missing: the guard was started on this host, and no file of checkpoints of this journal is in its state folder")))  # fmt: skip
            return replace(proof, beside=tuple(found))

        return await self._access.walk(run)

    async def key(self) -> Key:
        """The key with which others verify the checkpoints that are signed now."""
        from smtpguard.journal import signing

        def found(connection: Connection) -> Key:
            name = read_head(connection).journal
            return signing.signer(self._secret, name, signing.generation(connection)).key

        return await self._access.ask(found)

    async def rotate(self, event: Event) -> Key:
        """From this entry on another key signs; a checkpoint of each is at the change."""
        from smtpguard.journal import signing

        def step(batch: Batch) -> Key:
            journal.mark(batch)
            key = signing.rotated(batch, event)
            journal.mark(batch)
            return key

        return await self._access.write(step)

    async def checkpoints(self, after: int, limit: int = 1000) -> Sequence[Checkpoint]:
        """Those with a signed note, in order, after that of entry ``after``."""
        return await self._access.ask(lambda c: journal.signed_after(c, after, limit))

    async def inclusion(self, seq: int) -> Inclusion | None:
        """The proof that an entry is in the tree of the newest checkpoint. None if it is in none, or trimmed."""
        from smtpguard.journal import signing

        return await self._access.ask(lambda c: signing.inclusion(c, seq), snapshot=True)

    async def incident(
        self,
        query: IncidentQuery,
        *,
        prove: bool,
        progress: journalscan.Progress | None = None,
        asked: Asked | None = None,
    ) -> incident.Found:
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
        """In a thread that reads."""
        from smtpguard.journal import scan as journalscan

        lines = journal.lines_of(self._state_dir)
        return journalscan.Walk(opened, self._secret, lines, self._access.now_us(), against, stamped)


def _verdict(entry: Entry, clear: Clear | None) -> Event:
    private = {role: tuple(values) for role, values in (clear or {}).items()}
    return Event(kind=Kind.VERDICT, id=entry.id, at=entry.time, data=entry.data, private=private)
