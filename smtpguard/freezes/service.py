"""Freeze and thaw.

A freeze is committed first; from then on no verdict to relay a message that it stops can be committed anywhere. A verdict
that was committed before, and whose final dot is not sent, is recalled by the fence (freezes.gatewatch), at most one second
later. A message that the relay has is past recall; the freeze counts and reports those.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING

from smtpguard.accounts.model import AccountKeys, May
from smtpguard.database.errors import StoreError
from smtpguard.freezes.hooks import Hook, run
from smtpguard.freezes.model import event_of
from smtpguard.holds.model import LET_GO, LIVE, Hold, State, held_up_by
from smtpguard.journal.clock import SteadyClock
from smtpguard.journal.event import Kind
from smtpguard.journal.outcome import STAYED
from smtpguard.policy.freezing import ITSELF, Freeze, Selector, stopped_by

if TYPE_CHECKING:  # a freeze should not wait for these imports
    from smtpguard.mailings.model import Mailing
    from smtpguard.store.store import Store

log = logging.getLogger(__name__)

RECALL_SECONDS = 1.5  # by then all fences stop, and the outcomes of recalled messages are journalled
MOST = 1000
"""The most releases in progress that are looked at before a thaw."""
SHOWN = 20
"""The most messages that are shown before a thaw."""
ASKED_COUNTS = timedelta(days=1)
"""How long one person's request to thaw counts as the first of two."""
LOOK_BACK = timedelta(minutes=15)  # longer than the longest wait for a relay's reply (RFC 5321 section 4.5.3.2.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What a freeze did. ``recalled``: the ids of messages that were admitted before it, and dropped before their final dot.
    ``past_recall``: those that the relay has, or may have; those still without its reply are among them. ``counted``: False if
    the store was lost after the freeze, and these are not known."""

    freeze: Freeze
    recalled: tuple[str, ...]
    past_recall: tuple[str, ...]
    hooks: tuple[Hook, ...]
    counted: bool


UNCOUNTED = "how many messages were stopped on their way is not known: the store was lost after the freeze"


async def thaw_asked(store: Store, freeze_id: str, now: datetime) -> tuple[str, datetime] | None:
    """Return who has asked to thaw it, and when, from the journal; None for nobody. A request counts for a day, and only while the
    account that made it may thaw."""
    for entry, clear in (await store.journal.history(freeze_id, Kind.THAW_ASKED))[-1:]:
        named = clear or {}
        accounts = [await store.people.account(AccountKeys(address=one)) for one in named.get("account", ())]
        if now - entry.time < ASKED_COUNTS and all(one is not None and one.may(May.THAW) for one in accounts):
            return str(named.get("actor", [""])[0]), entry.time
    return None


class SecondPersonNeeded(Exception):
    """Two people must agree to a thaw. The first one's consent is recorded; the freeze stays until another person agrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a thaw releases.

    ``people``: an upper bound; a person who gets several messages counts for each. ``doubt``: recipients who may have the
    message already, and are tried once more. ``kept``: approved messages that other freezes stop too. ``waiting``: messages that
    wait for a decision, which a thaw does not send. ``first``: the newest of those that go, a mailing as one; if it is sent in
    stages, its reach is what goes now.
    """

    messages: int
    people: int
    lists: tuple[str, ...]
    doubt: int
    kept: int
    waiting: int
    first: tuple[Hold, ...]


@dataclass(eq=False)
class Freezes:
    """The service behind ``smtpguard freeze`` and ``thaw``. Hooks are commands that run at once (freezes.hooks). Their environment
    has the event: SMTPGUARD_ACTION, _ID, _SELECTOR, _VALUE, _REASON, _BY. ``loud``: log hooks that fail; the command line reports
    them itself."""

    store: Store
    clock: SteadyClock
    new_id: Callable[[], str]
    freeze_hook: Sequence[Sequence[str]] = ()
    thaw_hook: Sequence[Sequence[str]] = ()
    hook_seconds: float = 30.0
    recall_seconds: float = RECALL_SECONDS
    thaw_two: bool = False
    loud: bool = True

    async def freeze(
        self, selector: Selector, value: str, *, reason: str, by: str, for_: timedelta | None = None
    ) -> Frozen:
        """Freeze. ``value``: see policy.freezing.Freeze. Raises StoreError: then nothing is frozen (CommitUnknown: it is not
        known), and the caller must say so loudly."""
        now = self.clock.now()
        freeze = Freeze(
            freeze_id=self.new_id(),
            selector=selector,
            value=value,
            reason=reason,
            by=by,
            at=now,
            until=now + for_ if for_ else None,
        )
        await self.store.gate.freeze(freeze, event_of(Kind.FREEZE, freeze, by, self.clock.now()))
        hooks, found = await asyncio.gather(self._hooks(self.freeze_hook, "freeze", freeze, by), self._recalled(freeze))
        recalled, past_recall = found or ((), ())
        return Frozen(freeze=freeze, recalled=recalled, past_recall=past_recall, hooks=hooks, counted=found is not None)

    async def told(self, stop: Freeze) -> tuple[Hook, ...]:
        """Run the commands of a freeze that was made in another commit."""
        return await self._hooks(self.freeze_hook, "freeze", stop, stop.by)

    async def thaw(
        self, freeze_id: str, *, by: str, person: str = "", addresses_of: Callable[[str], Set[str]] = lambda one: {one}
    ) -> tuple[Hook, ...]:
        """Lift a freeze. ``person``: the account of who does it, or whose program does; "" for a command. ``addresses_of``: returns all
        addresses of a person. Raises KeyError if there is no such freeze, and SecondPersonNeeded if two people must agree and
        this is the first."""
        gate = await self.store.gate.read()
        freeze = next((f for f in gate.freezes if f.freeze_id == freeze_id), None)
        if freeze is None:
            raise KeyError(freeze_id)
        who = person or by
        if await self.only_asks(freeze_id, addresses_of(who)):
            if not await self.asked_to_thaw(freeze_id):
                asks = event_of(Kind.THAW_ASKED, freeze, who, self.clock.now())
                account = {"account": (person,)} if person else {}
                await self.store.journal.record([replace(asks, private={**asks.private, **account})])
            raise SecondPersonNeeded
        gate = await self.store.gate.thaw(freeze_id, event_of(Kind.THAW, freeze, by, self.clock.now()))
        if any((other.selector, other.value) == (freeze.selector, freeze.value) for other in gate.freezes):
            return ()  # it is still frozen
        return await self._hooks(self.thaw_hook, "thaw", freeze, by)

    async def only_asks(self, freeze_id: str, mine: Collection[str]) -> bool:
        """Return whether a thaw by the person with these addresses lifts nothing, since another one must agree."""
        return self.thaw_two and await self.asked_to_thaw(freeze_id) in ("", *mine)

    async def asked_to_thaw(self, freeze_id: str) -> str:
        """Return the person whose request to thaw it counts, "" for none."""
        asked = await thaw_asked(self.store, freeze_id, self.clock.now())
        return asked[0] if asked is not None else ""

    async def lift_ended(self) -> tuple[Hook, ...]:
        """Lift the freezes whose time is over. If several processes try, one does it. Raises StoreError."""

        async def lift(freeze: Freeze) -> tuple[Hook, ...]:
            with contextlib.suppress(KeyError):  # another process was first
                return await self.thaw(freeze.freeze_id, by=ITSELF)
            return ()

        ends = {one: one.until for one in await self.active() if one.until is not None}
        over = [one for one, until in ends.items() if self.clock.has_come(until, one.at)]
        ran = await asyncio.gather(*map(lift, over))  # the commands of one keep no other frozen
        return tuple(chain.from_iterable(ran))

    async def active(self, selector: Selector | None = None, value: str = "") -> tuple[Freeze, ...]:
        """Return the active freezes: all, or those with this selector and value."""
        freezes = (await self.store.gate.read()).freezes
        return tuple(f for f in freezes if selector is None or (f.selector, f.value) == (selector, value))

    async def holding_up(self, *holds: Hold) -> Mapping[str, tuple[Freeze, ...]]:
        """Return by hold id the freezes that stop each of these holds. Holds that are over, or that no freeze stops, are left
        out."""
        freezes = await self.active()
        found = {hold.hold_id: held_up_by(hold, freezes) for hold in holds if hold.state in LIVE}
        return {hold_id: stopped for hold_id, stopped in found.items() if stopped}

    async def released_by(self, lifted: Collection[Freeze]) -> Released:
        """Return what goes out as soon as these freezes are lifted. Raises StoreError."""
        ids = {f.freeze_id for f in lifted}
        freezes = await self.active()
        # Of a mailing in stages the next copies go too, as many as its stage has room for.
        rest = await self.store.holds.find_all(await self.store.holds.leads_to_follow())
        behind = {lead.hold_id for lead in rest if lead.state in LET_GO}
        found = [await self.store.mailings.find(id) for id in {lead.mailing_id for lead in rest} if id]
        staged = {one.mailing_id: one for one in found if one is not None and one.progress is not None}
        goes, kept, waiting = list[Hold](), 0, 0
        stored: dict[str, list[Hold]] = {mailing_id: [] for mailing_id in staged}
        async for hold in self.store.holds.every(tuple(LIVE), copies=True):
            stopped = {f.freeze_id for f in held_up_by(hold, freezes)}
            if not stopped & ids:
                continue
            if hold.state is State.WAITING:
                waiting += not hold.primary
                if hold.mailing_id in staged and hold.primary in behind and stopped <= ids:
                    stored[hold.mailing_id].append(hold)
            elif stopped - ids:
                kept += 1
            else:
                goes.append(hold)
        for id, mailing in staged.items():
            out = mailing.out
            for copy in reversed(stored[id]):
                if mailing.progress is None or not mailing.progress.fits(out, copy.reach):
                    break
                goes.append(copy)
                out += copy.reach
            reach = mailing.people.admitted + out - mailing.out
            goes = [replace(one, reach=reach) if one.mailing_id == id and not one.primary else one for one in goes]
        leads = {hold.hold_id for hold in goes}
        single = [hold for hold in goes if not hold.primary or hold.primary not in leads]
        begun = [hold for hold in goes if hold.state is State.RELEASING][:MOST]
        sending = [(await self.store.holds.outgoing(hold.hold_id)).own for hold in begun]
        return Released(
            messages=len(goes),
            people=sum(hold.reach for hold in single),
            lists=tuple(sorted({name for hold in goes for name in hold.lists})),
            doubt=sum(own.doubt for own in sending if own is not None),
            kept=kept,
            waiting=waiting,
            first=tuple(single[:SHOWN]),
        )

    async def against(self, mailing: Mailing) -> tuple[Freeze, ...]:
        """Return the freezes that stop further messages of a mailing, or its messages that are approved and not sent."""
        what = mailing.selectable
        bound = frozenset().union(
            *(grant.lists for grant in mailing.grants if grant.only)
        )  # a correction goes all the same
        freezes = await self.active()
        return stopped_by(freezes, what._replace(lists=what.lists - bound))

    async def _recalled(self, freeze: Freeze) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Return what was recalled and what is past recall, None if the store is lost: it is frozen all the same."""
        try:
            return await self._recall(freeze)
        except StoreError as error:
            log.error("it is frozen, and what it stopped cannot be counted: %s", error)
            return None

    async def _recall(self, freeze: Freeze) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Wait until fences stop and outcomes are journalled, at most ``recall_seconds``; then return which messages were
        recalled, and which are past recall. A release counts if an attempt has begun, however long ago: the relay may have it.
        """
        since = freeze.at - LOOK_BACK
        under_way, releases = (
            await self.store.journal.in_flight(freeze, since),
            await self.store.outbox.attempted(freeze),
        )
        if not under_way and not releases:
            return (), ()
        end = self.clock.monotonic() + self.recall_seconds
        while self.clock.monotonic() < end and (  # noqa: ASYNC110
            await self.store.journal.in_flight(freeze, since) or await self.store.outbox.attempted(freeze)
        ):
            await asyncio.sleep(0.1)  # other processes write the outcomes: there is no event to wait for
        outcomes = await self.store.journal.outcomes(under_way)
        recalled = {id for id in under_way if outcomes.get(id) in STAYED}
        taken = {releases[intent] for intent in await self.store.outbox.accepted(list(releases))}
        everybody = tuple(dict.fromkeys((*under_way, *releases.values())))
        recalled |= set(releases.values()) - taken
        return tuple(id for id in everybody if id in recalled), tuple(id for id in everybody if id not in recalled)

    async def _hooks(self, commands: Sequence[Sequence[str]], action: str, freeze: Freeze, by: str) -> tuple[Hook, ...]:
        ran = await asyncio.gather(*(run(argv, action, freeze, by, seconds=self.hook_seconds) for argv in commands))
        for hook in ran:
            if self.loud and hook.problem is not None:
                log.error("%s, run at a %s: %s", hook.program, action, hook.problem)
        return tuple(ran)
