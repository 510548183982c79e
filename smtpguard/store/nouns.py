"""The store's access to rows, a class for each noun: content, holds, mailings, returns, the outbox, the gate, policies, people.

A method without a docstring is documented with its query or step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from smtpguard.accounts import rows as accounts
from smtpguard.database.access import Access, Rows, asks, asks_now, writes
from smtpguard.database.batch import Batch
from smtpguard.freezes import rows as gates
from smtpguard.guard import policies
from smtpguard.holds import contents, deciding, revoking
from smtpguard.holds import rows as holds
from smtpguard.holds.model import Hold, OnReleaseEnd, State
from smtpguard.journal.event import Event
from smtpguard.mail.message import Message
from smtpguard.mailings import rows as mailings
from smtpguard.mailings import staging
from smtpguard.mailings.model import NoSuch
from smtpguard.outbox import rows as outboxes
from smtpguard.outbox.model import AttemptResult, Intent, Lease
from smtpguard.returns import rows as returns


class Contents:
    """Held content, by its SHA-256. ``spool``: the folder from which large content is mapped; ``quota_bytes``: the most octets that
    are held, 0 for no limit."""

    def __init__(self, access: Access, spool: Path, quota_bytes: int) -> None:
        self._access, self._spool, self._quota_bytes = access, spool, quota_bytes

    async def keep(self, message: Message) -> None:
        """Store a content in chunks. It is idempotent. The content is swept after an hour if nothing refers to it. Raises Full."""
        sha256, size, quota = message.sha256, message.size_bytes, self._quota_bytes
        if not await self._access.write(lambda b: contents.reserve(b, sha256, size, quota)):
            return
        for n, data, last in contents.pieces(message.raw):
            await self._access.write(partial(contents.add, sha256=sha256, n=n, data=data, last=last))

    async def load(self, sha256: str) -> Message:
        """Return a content. Raises ContentMissing."""
        return await self._access.ask(lambda c: contents.load(c, sha256, self._spool))


class Holds(Rows):
    find = asks(holds.find)
    find_all = asks(holds.find_all)
    copy_by = asks(holds.copy_by)
    newest = asks(holds.newest)
    page = asks(holds.page)
    ranked = asks(holds.ranked, snapshot=True)
    count_waiting = asks(holds.count_waiting)
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

    async def every(self, states: Sequence[State] = (), **narrow: Any) -> AsyncIterator[Hold]:
        """Yield holds, newest first, a page in a read. ``states``: none for all. ``narrow``: as for ``newest``."""
        before: tuple[datetime, str] | None = None
        while page := await self.newest(states=states, before=before, **narrow):
            for hold in page:
                yield hold
            before = page[-1].held_at, page[-1].hold_id


class Mailings(Rows):
    find = asks_now(mailings.find, snapshot=True)
    newest = asks_now(mailings.newest, snapshot=True)
    standing = asks_now(mailings.standing, snapshot=True)
    paused = asks_now(mailings.paused, snapshot=True)
    named = asks(mailings.named)
    like = asks(mailings.like, snapshot=True)
    reached_by = asks(mailings.reached_by, snapshot=True)
    reached_people = asks(mailings.reached_people, snapshot=True)
    growth = asks(mailings.growth, snapshot=True)
    change = writes(deciding.change_mailing)
    take_back = writes(revoking.take_back_mailing)

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._begun: dict[str, staging.Progress] = {}

    async def whole_id(self, prefix: str) -> str:
        """Return the only id that begins so. Raises NoSuch if no id does, or several do."""
        wanted = prefix.strip().upper()
        found = await self.named(wanted) if wanted else []
        if wanted in found:
            return wanted
        if not found:
            raise NoSuch(f"there is no mailing {prefix}")
        if len(found) > 1:
            raise NoSuch(f"several mailings begin with {prefix}: {', '.join(found[:5])}")
        return found[0]

    async def prolong_pauses(self) -> None:
        """Prolong pauses between stages that would begin too early: a pause begins when half of the stage before is sent."""
        if ids := await self._access.ask(lambda c: mailings.early(c, self._begun)):
            await self._access.write(lambda b: deciding.prolong_pauses(b, ids))

    async def keep_set(self, people: Collection[bytes]) -> None:
        """Store a set of people, as keyed digests, for an approval that is bound to it (mailings.model.set_of)."""
        name, pieces = mailings.pieces(people)
        for piece in pieces:
            await self._access.write(partial(mailings.put_set, name=name, piece=piece))


class Returns(Rows):
    """Mail that came back after mailings. ``contents``: its content, which may use half of the quota of held content, so that a flood of
    it cannot block holds."""

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
    ask_about = writes(deciding.ask)
    answer = writes(deciding.answer)

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._stopped = outboxes.StoppedEntries()

    async def abandon(self, gone: Callable[[str], bool]) -> int:
        """End the wait for workers that are gone. Returns the number of entries that they had leased."""
        found = await self._access.ask(outboxes.owners)
        leased = {intent_id: owner for intent_id, owner in found.items() if gone(owner)}
        return await self._access.write(lambda b: outboxes.abandon(b, leased)) if leased else 0

    async def hasten(self) -> None:
        """Make entries due now that a clock that was ahead has dated."""
        if ids := await self._access.ask(lambda c: outboxes.misdated(c, self._access.now())):
            await self._access.write(lambda b: outboxes.hasten(b, ids))

    async def lease(self, owner: str, n: int, seconds: int) -> Sequence[Lease]:
        """Lease up to ``n`` due entries whose holds no freeze stops to ``owner``, for so many seconds."""
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
        """Write the outcomes of an attempt, and what follows from them for the hold and for the people behind the recipients. Returns
        False if the lease was lost, and then nothing is written. ``over``: called when no recipient of a release is to be
        tried any more. Raises ValueError for a recipient that was not leased."""

        def write(batch: Batch) -> bool:
            changes = outboxes.changes(batch, lease, outcomes)
            if changes is None:
                return False
            outboxes.record(batch, events, intents)
            deciding.record_attempt(batch, lease, changes, over)
            return True

        return await self._access.write(write)


class Gates(Rows):
    read = asks(gates.read)
    freeze = writes(deciding.freeze)  # once it returns, no verdict to relay what the freeze stops is committed anywhere
    thaw = writes(gates.thaw)


class Policies(Rows):
    documents = asks(policies.policy)
    in_force = asks(policies.documents_in_force)
    put = writes(policies.put_policy)
    named = asks(policies.named)
    history = asks(policies.history)
    current = asks(policies.current)


class People(Rows):
    """Accounts, sessions and tokens, and what people and directories add to the policy in force: absences, and the members of groups.
    The gate moves with each change of absences and groups."""

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
