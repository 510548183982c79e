"""The delivery worker: sends the outbox's releases, colleagues' parts, notices and DSNs, recipient by recipient.

The worker leases an entry, prepares it, sends all but the final dot, marks it, sends the dot, and settles it. The mark is a
commit right before the dot: the entry is in doubt for a time. After a crash a marked entry may be at the relay (RFC 1047); an
entry that was leased and not marked was never sent. An entry to single people in doubt is retried once, with the same
Message-ID and release id. A release to a list's address in doubt waits for people (asking).

A worker that was too slow cannot mark: its lease's token is old. The fence holds the dot back without a mark, when the mark's
time is nearly over, and when a freeze stops the message. A relay that cannot be reached is retried without limit; only its
4xx replies expire.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Protocol

from smtpguard.database.errors import ContentMissing, Outage, StoreError
from smtpguard.freezes.gatewatch import GateWatch
from smtpguard.gathering.gather import trace_text
from smtpguard.gathering.reader import NARROW
from smtpguard.guard.ports import PolicyInForce, Relay
from smtpguard.holds.model import Hold, selectable
from smtpguard.journal.clock import SteadyClock
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Fence, Lost, Recalled, Recipient, Transaction, open_fence
from smtpguard.mail.message import Message
from smtpguard.mail.trace import prepend
from smtpguard.outbox.attempt import (
    MAX_DOUBTS,
    NOBODY,
    PACE,
    Audience,
    Due,
    audience,
    dues,
    events,
    release_ended,
    reports,
)
from smtpguard.outbox.model import OF_CONTENT, AttemptResult, Intent, Lease
from smtpguard.reading.read import read
from smtpguard.store.store import Store

log = logging.getLogger(__name__)

MOST = 100
"""The most recipients of a transaction: so many every server takes (RFC 5321 section 4.5.3.1.8), and a relay that takes seconds for
each can answer before the lease ends."""
RELEASE_FIELD = "X-Smtpguard-Release"
OF_FORM = frozenset({"5.6.3", "5.6.7", "5.6.9"})
"""The status of a refusal for the encoding (RFC 3463 section 3.7, RFC 6531 section 4.2): the relay may take the 7-bit form."""


class Renderer(Protocol):
    """Renders a notice or DSN from its intent, signed if a key is set; app binds it to notices.notice and notices.dsn."""

    async def render(self, intent: Intent) -> Sequence[tuple[Envelope, bytes]]:
        """Return the forms of a message: if the relay refuses one for its encoding, the next is tried. No form: it is
        obsolete. After an exception it is tried a few times, after StoreError without limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parcel:
    """A message to send. ``stands``: says whether no freeze stops it."""

    forms: Sequence[tuple[Envelope, Message]]
    prepend: bytes
    stands: Fence


@dataclass(slots=True)
class _Mark:
    """The mark of an attempt. ``at``: its time (monotonic), None before it. ``refused``: the lease was lost, or the release revoked.
    ``whom``: the people behind the recipients as it is set."""

    at: float | None = None
    refused: bool = False
    whom: Audience = NOBODY


class _Unsendable(Exception):
    """A message cannot be sent, now or later. The text says why. ``why``: as in Due.failed."""

    def __init__(self, text: str, why: str = "unsendable") -> None:
        super().__init__(text)
        self.why = why


@dataclass(eq=False)
class Delivery:
    """A delivery worker; each node may run one. ``agreed``: says whether a release to a list's address may go to those who are on
    the list by now, and else asks people about it. ``jitter``: returns 0 to 1. ``route``: returns the relay for a listener ("" for
    smtpguard's own mail) and a recipient, and may raise StoreError; None: ``relay`` for all."""

    store: Store
    relay: Relay
    renderer: Renderer
    watch: GateWatch
    policies: PolicyInForce
    clock: SteadyClock
    owner: str
    trace_key: bytes = field(repr=False)
    hostname: str
    agreed: Callable[[Hold], Awaitable[bool]]
    route: Callable[[str, Address], Relay] | None = None
    jitter: Callable[[], float] = random.random
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    _stopping: bool = field(default=False, init=False)
    _outage: Outage = field(init=False)

    def __post_init__(self) -> None:
        self._outage = Outage(log, "the outbox: waiting for the store", self.clock.monotonic)

    async def run(self) -> None:
        """Deliver until ``stop``, then finish attempts in progress. If it is cancelled, they are in doubt."""
        running: set[asyncio.Task[None]] = set()
        try:
            while not self._stopping:
                for lease in await self._lease(PACE.at_once - len(running)):
                    task = asyncio.create_task(self.carry_out(lease))
                    running.add(task)
                    task.add_done_callback(running.discard)
                if len(running) >= PACE.at_once:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await self.pause(PACE.idle_seconds)
            if running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()

    def stop(self) -> None:
        self._stopping = True

    async def step(self) -> int:
        """Carry out the entries that are due now. Returns their number."""
        leases = await self._lease(PACE.at_once)
        await asyncio.gather(*(self.carry_out(lease) for lease in leases))
        return len(leases)

    async def carry_out(self, lease: Lease) -> None:
        """Carry out one entry. An unexpected error is logged; the entry is tried again when its lease ends."""
        try:
            await self._carry_out(lease)
        except StoreError as error:
            log.warning("outbox %s: tried again when its lease ends: %s", lease.intent.intent_id, error)
        except Exception:
            log.exception("outbox %s: failed", lease.intent.intent_id)

    async def _lease(self, n: int) -> Sequence[Lease]:
        try:
            leases = await self.store.outbox.lease(self.owner, n, PACE.lease_seconds)
        except StoreError as error:
            self._outage.report(error)
            return ()
        self._outage.end()
        return leases

    # one entry

    async def _carry_out(self, lease: Lease) -> None:
        hold = await self.store.holds.find(lease.intent.hold_id) if lease.intent.hold_id is not None else None
        all_due, mark = dues(lease, partial(self._expands, hold)), _Mark()
        due = [d for d in all_due if d.doubts < MAX_DOUBTS]
        if hold is not None and any(d.asks for d in due) and not await self.agreed(hold):
            return
        # a third attempt could be a second duplicate
        spent = [d.failed("in-doubt", "given-up") for d in all_due if d.doubts >= MAX_DOUBTS]
        try:
            parcel = await self._parcel(lease, hold, [d.recipient for d in due]) if due else None
        except _Unsendable as e:
            await self._settle(lease, hold, [*(d.failed(e.why, str(e)) for d in due), *spent], mark)
            return
        except StoreError:
            raise
        except Exception as error:
            log.exception("outbox %s: could not be rendered", lease.intent.intent_id)
            await self._settle(lease, hold, [*self._unrendered(lease, due, error), *spent], mark)
            return
        if parcel is None:
            await self._settle(lease, hold, spent, mark)
        elif not await parcel.stands():
            await self._settle(lease, hold, [*self._recalled(due), *spent], mark)
        else:
            routes = self._by_route(lease, hold, due)
            fence = partial(self._fence, lease, hold, due, parcel.stands, mark)
            sent = [result for route in routes for result in await self._send(lease, parcel, fence, mark, *route)]
            if not mark.refused:
                await self._settle(lease, hold, [*sent, *spent], mark, persist=True)

    async def _fence(self, lease: Lease, hold: Hold | None, due: Sequence[Due], stands: Fence, mark: _Mark) -> bool:
        """Return whether the final dot may be sent: the entry is marked, in time, and no freeze stops it. The first caller marks
        the recipients of all routes."""
        if mark.at is None and await stands():
            until, now = self.clock.now() + PACE.doubt, self.clock.monotonic()
            begun = [d.begun(until) for d in due]
            try:
                mark.refused = not await self._settle(lease, hold, begun, mark)
            except StoreError as error:  # it may be marked nevertheless, which the retry takes back
                log.warning("outbox %s: not marked, so not sent: %s", lease.intent.intent_id, error)
                return False
            except ValueError:  # revoked meanwhile
                mark.refused = True
            mark.at = None if mark.refused else now
        in_time = (PACE.doubt - PACE.reply).total_seconds()
        return mark.at is not None and await stands() and self.clock.monotonic() - mark.at < in_time

    def _by_route(self, lease: Lease, hold: Hold | None, due: Sequence[Due]) -> list[tuple[Relay, list[Due]]]:
        """Return the recipients of each transaction, and its relay. Raises StoreError."""
        listener = hold.session.listener if hold is not None and lease.intent.kind in OF_CONTENT else ""
        routes: dict[int, tuple[Relay, list[Due]]] = {}
        for one in due:
            relay = self.relay if self.route is None else self.route(listener, one.recipient.address)
            routes.setdefault(id(relay), (relay, []))[1].append(one)
        return [(relay, some[n : n + MOST]) for relay, some in routes.values() for n in range(0, len(some), MOST)]

    async def _parcel(self, lease: Lease, hold: Hold | None, due: Sequence[Recipient]) -> _Parcel:
        """Return the message to send. Raises _Unsendable, StoreError, and what rendering raises."""
        intent = lease.intent
        if intent.kind not in OF_CONTENT:
            made = await self.renderer.render(intent)
            if not made:
                raise _Unsendable("nothing to say", "obsolete")
            forms = [(replace(envelope, recipients=tuple(due)), Message.of(raw)) for envelope, raw in made]
            return _Parcel(forms=forms, prepend=b"", stands=open_fence)
        if hold is None or intent.content_sha256 is None:
            raise _Unsendable("the hold is gone")
        try:
            content = await self.store.contents.load(intent.content_sha256)
        except ContentMissing:
            raise _Unsendable("the content is not kept any more", "missing") from None
        envelope = replace(hold.envelope, recipients=tuple(due))
        return _Parcel(
            forms=[(envelope, content)],
            prepend=self._trace(intent, hold, envelope, content),
            stands=self.watch.fence(selectable(hold)),
        )

    def _trace(self, intent: Intent, hold: Hold, envelope: Envelope, content: Message) -> bytes:
        """Return the trace fields of every relayed message, and the release id, which is the same at every attempt."""
        registry = self.policies.current().registry
        lists = {info.name for a in envelope.addresses if (info := registry.list_at(a)) is not None}
        transaction = Transaction(id=hold.hold_id, session=hold.session, envelope=envelope, message=content)
        trace = prepend(
            transaction,
            hold.verdict.policy_sha256,
            self.trace_key,
            self.hostname,
            self.clock.now(),
            lists,
            _text_of(hold, content) if lists else (),
        )
        return trace + f"{RELEASE_FIELD}: {intent.intent_id}\r\n".encode("ascii")

    async def _send(
        self, lease: Lease, parcel: _Parcel, fence: Fence, mark: _Mark, relay: Relay, due: Sequence[Due]
    ) -> list[AttemptResult]:
        """Send to recipients of one relay. Returns their results."""
        recipients = tuple(d.recipient for d in due)
        patient = not self.clock.has_come(lease.created_at + PACE.give_up, lease.created_at)
        try:
            for envelope, content in parcel.forms:
                envelope = replace(envelope, recipients=recipients)
                said = await relay.deliver(envelope, content, parcel.prepend, fence)
                if not all(reply.permanent and reply.enhanced in OF_FORM for reply in said.replies):
                    break
            again = self._again(lease)
            # too many recipients: the others have the next transaction (RFC 5321 section 4.5.3.1.10)
            others = self.clock.now() if any(reply.positive for reply in said.replies) else again
            return [
                d.replied(reply, others if reply.code == 452 else again, patient=patient, reports=said.reports)
                for d, reply in zip(due, said.replies, strict=True)
            ]
        except Recalled:
            return self._recalled(due)
        except Lost as lost:
            if not lost.after_dot:
                again = self._again(lease)
                # without those whom it refused, the relay takes the others
                others = self.clock.now() if lost.heard else again
                return [
                    d.retry("lost", others, str(reply))
                    if reply is lost.reply
                    else d.replied(reply, again, patient=patient, reports=True)
                    for d, reply in zip(due, lost.heard or [lost.reply] * len(due), strict=True)
                ]
            code = "lost"
        except Exception as error:
            log.exception("outbox %s: the connection to the relay failed", lease.intent.intent_id)
            code = type(error).__name__
            if mark.at is None:  # else it is unknown how much was sent
                again = self._again(lease)
                return [d.retry(code, again) for d in due]
        now = self.clock.now()  # people are asked at once
        return [d.lost(now if d.asks else now + PACE.doubt, code) for d in due]

    def _recalled(self, due: Sequence[Due]) -> list[AttemptResult]:
        """Return the results if a freeze stopped the attempt, or the gate could not be read."""
        return [d.retry("recalled", self.clock.now() + PACE.recalled) for d in due]

    def _unrendered(self, lease: Lease, due: Sequence[Due], error: Exception) -> list[AttemptResult]:
        code = f"not rendered: {type(error).__name__}"
        if lease.attempts + 1 >= PACE.renderings:
            return [d.failed("unsendable", code) for d in due]
        return [d.retry(code, self._again(lease)) for d in due]

    def _again(self, lease: Lease) -> datetime:
        """Return the time of the next attempt. Call it when the attempt is over, since a relay may take long to fail."""
        return self.clock.now() + PACE.again(lease.attempts, self.jitter())

    # writing it down

    async def _settle(
        self,
        lease: Lease,
        hold: Hold | None,
        results: Sequence[AttemptResult],
        mark: _Mark,
        *,
        persist: bool = False,
    ) -> bool:
        """Write results, events, DSNs and the hold's state in one commit. Returns False if another worker has the lease now.

        ``persist``: the relay has answered. Its answer is written as soon as the store can; the mark keeps other workers away.
        """
        now = self.clock.now()
        late = self.clock.has_come(lease.created_at + PACE.tell_delay, lease.created_at)
        told = reports(lease, hold, results, now, late=late)
        # everybody on a list would get the DSN
        told = tuple(dsn for dsn in told if not any(self._expands(hold, one) for one in dsn.recipients))
        in_force = self.policies.current()

        whom = mark.whom
        if whom is NOBODY and hold is not None and lease.intent.kind in OF_CONTENT:
            mark.whom = whom = audience(hold, lease.recipients, in_force)
        if whom is not NOBODY:
            results = [replace(r, people=whom.digests(r.recipient)) for r in results]
        journal = [*events(lease, results, now, whom, told=bool(told))]
        over = partial(release_ended, in_force=in_force, now=now)
        end = self.clock.monotonic() + (PACE.doubt.total_seconds() / 2 if persist else 0)
        outage = Outage(log, f"outbox {lease.intent.intent_id}: waiting for the store", self.clock.monotonic)
        unsure = False
        while True:
            try:
                settled = await self.store.outbox.settle(lease, results, journal, told, over)
                outage.end()
                return settled
            except StoreError as error:
                if self.clock.monotonic() >= end:
                    raise
                outage.report(error)
            except ValueError:
                if not unsure:
                    raise
                return True  # the first commit was written although the store failed to answer
            unsure = True
            await self.pause(1.0)

    def _expands(self, hold: Hold | None, recipient: Recipient) -> bool:
        """Return whether more than one person is behind a recipient, now or when the message came."""
        then = hold.behind.get(str(recipient.address), ()) if hold is not None else ()
        if len(then) > 1 or any(one.several for one in then):
            return True
        registry = self.policies.current().registry
        if registry.list_at(recipient.address) is not None:
            return True
        return any(one.behind is not None for one in registry.classify([recipient.address]).recipients)


def _text_of(hold: Hold, content: Message) -> tuple[int, ...]:
    """Return what the trace says of the text. A hold stores nothing of a short text, which is read again."""
    known = hold.identity.sketch.numbers if hold.identity is not None else ()
    return known or trace_text(read(content, bounds=NARROW))
