"""The store's contents by noun: content, holds, mailings, the outbox, the gate, policies, people. The journal: journal.py.

A method without a text here is documented with its query or step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from smtpguard.accounts import rows as accounts
from smtpguard.database.access import Access, Rows, asks, writes
from smtpguard.database.batch import Batch
from smtpguard.freezes import rows as gates
from smtpguard.guard import policies
from smtpguard.holds import contents, deciding, revoking
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Hold, Over, State
from smtpguard.holds.sending import Outgoing
from smtpguard.journal.event import Event
from smtpguard.mail.message import Message
from smtpguard.mailings import inflight
from smtpguard.mailings import rows as mailings
from smtpguard.mailings.model import Mailing
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import AttemptResult, Intent, Lease
from smtpguard.policy.freezing import Freeze
from smtpguard.returns import rows as returns


class Contents:
    """Held content, by its SHA-256. ``spool``: the folder from which large ones are mapped; ``quota_bytes``: 0 for no
    limit."""

    def __init__(self, access: Access, spool: Path, quota_bytes: int) -> None:
        self._access, self._spool, self._quota_bytes = access, spool, quota_bytes

    async def keep(self, message: Message) -> None:
        """In chunks; idempotent. Swept after an hour if nothing refers to it."""
        sha256, size, quota = message.sha256, message.size_bytes, self._quota_bytes
        if not await self._access.write(lambda b: contents.begin(b, sha256, size, quota)):
            return
        for n, data, last in contents.pieces(message.raw):
            await self._access.write(partial(contents.add, sha256=sha256, n=n, data=data, last=last))

    async def load(self, sha256: str) -> Message:
        """Raises ContentMissing."""
        return await self._access.ask(lambda c: contents.load(c, sha256, self._spool))


class Holds(Rows):
    find = asks(holds.find)
    several = asks(holds.several)
    copy_by = asks(holds.copy_by)
    newest = asks(holds.newest)
    page = asks(holds.page)
    ranked = asks(holds.ranked, snapshot=True)
    counts = asks(holds.counts)
    due = asks(holds.due)
    leaving = asks(holds.leaving)
    asked = asks(holds.asked)
    letters = asks(holds.letters)
    queued = asks(holds.queued)
    shown = asks(contents.of_holds)
    under = asks(contents.under)
    templates = asks(contents.documents)
    decided_leads = asks(deciding.decided_leads)
    change = writes(deciding.change)
    take_back = writes(revoking.take_back)
    follow = writes(deciding.follow)

    async def every(self, states: Sequence[State] = ()) -> AsyncIterator[Hold]:
        """Newest first, read a page at a time; of all states without ``states``."""
        before: datetime | None = None
        after_id: str | None = None
        while page := await self.newest(states=states, before=before, after_id=after_id):
            for hold in page:
                yield hold
            before, after_id = page[-1].held_at, page[-1].hold_id

    async def outgoing(self, hold_id: str) -> Outgoing:
        """How far the release of a hold and of its approved copies has come."""
        now = self._access.now_us()
        return await self._access.ask(lambda c: revoking.outgoing(c, hold_id, now))


class Mailings(Rows):
    named = asks(mailings.named)
    like = asks(mailings.like, snapshot=True)
    reached_by = asks(mailings.reached_by, snapshot=True)
    account = asks(mailings.account, snapshot=True)
    growth = asks(inflight.growth, snapshot=True)
    change = writes(deciding.change_mailing)
    take_back = writes(revoking.take_back_mailing)

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
        """The latest first (mailings.rows.newest)."""
        now = self._access.now()
        return await self._access.ask(lambda c: mailings.newest(c, least, state, limit, now, before), snapshot=True)

    async def keep_set(self, people: Collection[bytes]) -> str:
        """Keep a set of people, as keyed digests, for an approval that is bound to it. Its name (mailings.model.set_of)."""
        name, pieces = mailings.pieces(people)
        for piece in pieces:
            await self._access.write(partial(mailings.put_set, name=name, piece=piece))
        return name


class Returns(Rows):
    """Returned mail: bounces and complaints. ``contents``: they may use half of the quota of held content, so that a
    flood of them cannot block holds."""

    take = writes(returns.take)
    mention = writes(returns.mention)
    newest = asks(returns.newest)
    called = asks(returns.mails_by_prefix)
    ends = asks(returns.ends)
    spells = asks(returns.spells)
    between = asks(returns.between)
    by_mailing = asks(returns.by_mailing)

    def __init__(self, access: Access, contents: Contents) -> None:
        super().__init__(access)
        self.contents = contents


class Outbox(Rows):
    taken = asks(outboxes.taken)
    abandon = writes(outboxes.abandon)
    ask_about = writes(deciding.ask)
    say = writes(deciding.say)

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._stopped = outboxes.StoppedEntries()

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
        over: Over | None = None,
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
            deciding.delivered(batch, lease, changes, over)
            return True

        return await self._access.write(write)

    async def in_doubt(self) -> Sequence[str]:
        """Holds about a recipient of which people must be asked now (outbox.rows.to_ask)."""
        now = self._access.now_us()
        return await self._access.ask(lambda c: outboxes.to_ask(c, now))

    async def attempted(self, freeze: Freeze) -> Mapping[str, str]:
        """Releases and colleagues' parts that ``freeze`` stops and that have an attempt without a known outcome: entry of the
        outbox -> hold."""
        now = self._access.now()
        return await self._access.ask(lambda c: outboxes.attempted(c, freeze, now))


class Gates(Rows):
    read = asks(gates.read)
    freeze = writes(deciding.freeze)  # after it returns, no verdict to relay what it stops can be committed anywhere
    thaw = writes(gates.thaw)


class Policies(Rows):
    """The stored policies."""

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
    session = asks(accounts.session_of)
    seen = writes(accounts.seen)
    token = asks(accounts.token_of)
    tokens = asks(accounts.tokens_of)
    put_token = writes(accounts.put_token)
