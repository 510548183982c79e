"""The straight line of one message: gather, plan, keep the content, admit, dispose. One transaction in, one disposition
out.

The three laws are kept here. The record comes first: without it the answer is 451. 250 follows the commit or the
relay's own 250. Doubt stands still: every failure is answered 4xx, never relayed and never answered 5xx.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smtpguard.admission.builtinrules import asks_of, with_fixed
from smtpguard.admission.bypass import BypassPath
from smtpguard.admission.dispose import Dispose
from smtpguard.admission.fronted import is_plain, key_of, marks_of
from smtpguard.admission.mailingverdict import is_by_sender, mailing_verdict
from smtpguard.admission.model import ADMISSION_SECONDS, Admission, ComparisonMissing, Item, Seen
from smtpguard.admission.record import Record, alone, refused_at_rcpt
from smtpguard.database.errors import (
    Busy,
    ContentMissing,
    Full,
    Gone,
    Outage,
    PolicyMoved,
    PolicyUnreadable,
    StoreError,
)
from smtpguard.freezes.gatewatch import FRESH_SECONDS, GateWatch
from smtpguard.gathering.gather import Gather, Gathered
from smtpguard.gathering.streams import watched
from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds.deadlines import Deadlines
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.declared import ListInfo
from smtpguard.lists.persons import persons
from smtpguard.lists.recipients import Classified
from smtpguard.mail import reply
from smtpguard.mail.address import Address
from smtpguard.mail.constant import maker
from smtpguard.mail.envelope import Envelope, Fence, Onward, Recalled, RefusedRecipient, Session, Transaction
from smtpguard.mail.reply import Reply
from smtpguard.mailings.differences import Approved
from smtpguard.mailings.model import Grant
from smtpguard.mailings.slotlearning import learn
from smtpguard.mailings.slots import Template
from smtpguard.notices.intents import Notices
from smtpguard.policy.counted import OF_EACH_RECIPIENT, Ask, Live
from smtpguard.policy.engine import Plan
from smtpguard.policy.verdict import Deferred, Disposition, Held, Rejected, Relayed, Taken
from smtpguard.reading.fingerprint import Identity
from smtpguard.reading.looks import Reading
from smtpguard.store.front import Front
from smtpguard.store.store import Store

log = logging.getLogger(__name__)

_new_live, _new_record, _new_item = maker(Live), maker(Record), maker(Item)
_NOT_RECORDED = "store", reply.NOT_RECORDED
_UNRECORDED = {
    Full: ("full", reply.DISK_FULL),
    Busy: ("busy", reply.BUSY),
    PolicyUnreadable: ("policy", reply.NOT_RECORDED),
}
ROUNDS = 5  # a new policy, swept content or a recall each take another round
KEEP_SECONDS, ROUNDS_SECONDS = 60.0, 120.0
"""For storing the content; and after which no further round begins. The reader and verifier have their own timeouts
(gather), and so has the store. So the client is answered within the 5 minutes that it waits at least (RFC 5321 section
4.5.3.2.5), and no message needs a timer."""
UNDECIDED = ("full", "busy", "policy", "store", "rounds", "failed")
"""Disk full; too many waiting; a policy in force that this version cannot read; the store unavailable or too slow; a
new policy or a recall in every round; an internal error."""

ANSWERS = ("taken", "deferred", "refused")
"""2xx, ours or the relay's for at least one recipient; 4xx; 5xx."""


def _answer(done: Disposition) -> str:
    if isinstance(done, Relayed):  # first: nearly all mail
        best = done.code
        return "taken" if best < 400 else "deferred" if best < 500 else "refused"
    if isinstance(done, Held | Taken):
        return "taken"
    return "refused" if isinstance(done, Rejected) else "deferred"


class OwnMail(Protocol):
    """What takes mail to addresses of the guard's own: preapprovals, votes by mail, or what comes back."""

    def reply_to(self, address: Address) -> Reply | None:
        """The reply to a recipient; None if it is not one of them."""

    async def __call__(self, transaction: Transaction, onward: Onward) -> Disposition:
        """Raises subclasses of StoreError; the client then keeps the message."""


@dataclass(eq=False)
class Intake:
    """What the wire calls with every whole message (``Admit``)."""

    store: Store
    policies: PolicyInForce
    gather: Gather
    dispose: Dispose
    watch: GateWatch
    clock: Clock
    term: Deadlines
    notices: Notices
    own: Sequence[OwnMail] = ()
    front: Front | None = None
    bypass: BypassPath | None = None
    undecided: Counter[str] = field(default_factory=Counter, init=False)
    """Messages that were answered 451 or 452 without a verdict, by reason (``UNDECIDED``)."""
    answered: Counter[str] = field(default_factory=Counter, init=False)
    """Messages by the answer to the client (``ANSWERS``)."""
    admissions: list[int] = field(default_factory=lambda: [0] * (len(ADMISSION_SECONDS) + 1), init=False)
    """Verdicts by the time from the whole message to the commit, one number for each bound in ``ADMISSION_SECONDS``,
    and a last one for longer times."""
    admission_microseconds: int = field(default=0, init=False)
    """The sum of those times."""
    _running: int = field(default=0, init=False)
    _idle: asyncio.Future[None] | None = field(default=None, init=False)
    _unrecorded: Outage = field(init=False)
    """A line for each message is in the log anyway: that it was turned away."""
    _held: _Lately = field(default_factory=lambda: _Lately(), init=False)
    _approved: _Lately = field(default_factory=lambda: _Lately(), init=False)
    _templates: OrderedDict[str, Template] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        self._unrecorded = Outage(log, "not recorded", self.clock.monotonic)

    async def __call__(self, transaction: Transaction, onward: Onward) -> Disposition:
        """Do not cancel this, even if the client disconnects (``Transaction.gone``): the batch completes, and the final
        dot is not sent. If cancelled, the outcome is in doubt. On any error the client is answered by us, and the relay
        gets no message."""
        self._running += 1
        way = _Once(onward)
        try:
            try:
                done = await self._straight(transaction, way)
            except Exception as error:
                done = await self._undecided(transaction, way, error)
            self.answered[_answer(done)] += 1
            return done
        finally:
            self._running -= 1
            if not self._running and self._idle is not None:
                self._idle.set_result(None)
                self._idle = None

    def here(self, address: Address) -> Reply | None:
        """The reply to a recipient that is an address of the guard's own."""
        for own in self.own:
            if (found := own.reply_to(address)) is not None:
                return found
        return None

    async def drain(self) -> None:
        """Wait for running transactions, whose clients may have disconnected."""
        if self._running:
            self._idle = self._idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    async def _undecided(self, transaction: Transaction, way: _Once, error: Exception) -> Disposition:
        if isinstance(error, StoreError | TimeoutError):
            self._unrecorded.report(f"{type(error).__name__}: {str(error) or 'no answer in time'}")
            why, answer = next((told for kind, told in _UNRECORDED.items() if isinstance(error, kind)), _NOT_RECORDED)
        else:
            log.error("transaction %s: unexpected error", transaction.id, exc_info=error)
            self._failed(transaction, error)
            why, answer = "failed", reply.INTERNAL_ERROR
        self.undecided[why] += 1
        await way.abandon()
        return Deferred(reply=answer, undecided=True)

    async def _straight(self, transaction: Transaction, onward: _Once) -> Disposition:
        for own in self.own:
            if any(own.reply_to(address) is not None for address in transaction.envelope.addresses):
                async with asyncio.timeout(ROUNDS_SECONDS):
                    return await own(transaction, onward)
        keep = compare = recalled = False
        approved: dict[str, Approved] = {}
        came, began = self.clock.now(), self.clock.monotonic()
        whole = began
        for attempt in range(ROUNDS):
            if attempt and self.clock.monotonic() - began > ROUNDS_SECONDS:
                break
            in_force = self.policies.current()
            text = compare or self.watch.freezes_mailings
            gathered, plan = await self.gather.planned(transaction, in_force, came, text=text)
            if not attempt and (fronted := await self._fronted(gathered, plan, onward)) is not None:
                self._unrecorded.end()
                self._timed(self.clock.monotonic() - whole)
                done = await self.dispose.carry_out(gathered, fronted, onward)
                if done is not None:
                    return done
                recalled, began = True, self.clock.monotonic()
                continue
            if not attempt and (done := await self._bypassed(gathered, plan, onward)) is not None:
                return done
            likely = plan.expects_hold or self._held.knows(gathered.facts.identity)
            likely = likely or bool(gathered.reports_to) or self._held.knows(_sender_of(gathered))
            if keep or likely or self.watch.stops(gathered.facts):
                async with asyncio.timeout(KEEP_SECONDS):
                    await self.store.contents.keep(transaction.message)
                compare = True
            if compare or self._approved.knows(gathered.facts.identity):
                names = self._approved.names(gathered.facts.identity)
                templates = {name: self._templates[name] for name in names if name in self._templates}
                gathered = await self.gather.compare(gathered, templates, approved)
            try:
                admission = await self._admitted(gathered, plan)
            except PolicyMoved:
                await self.policies.follow()
                continue
            except ContentMissing:
                keep = True
                continue
            except ComparisonMissing as missing:
                compare = True
                if missing.approved:
                    approved = await self._seen(missing.approved, by_address=gathered.by_address)
                elif missing.templates is not None:
                    self._note_approved(gathered.facts.identity, missing.templates)
                continue
            except Gone:
                await onward.abandon()
                return Deferred(reply=reply.NOT_RECORDED)
            self._unrecorded.end()
            if not recalled:  # after a recall the time includes the relay's
                self._timed(self.clock.monotonic() - whole)
            done = await self.dispose.carry_out(gathered, admission, onward)
            if done is not None:
                return done
            if recalled:
                return Deferred(reply=reply.RECALLED)
            recalled, began = True, self.clock.monotonic()
        self._unrecorded.report("several rounds gave no verdict")
        self.undecided["rounds"] += 1
        await onward.abandon()
        return Deferred(reply=reply.NOT_RECORDED, undecided=True)

    def _timed(self, seconds: float) -> None:
        self.admissions[bisect_left(ADMISSION_SECONDS, seconds)] += 1
        self.admission_microseconds += int(seconds * 1_000_000)

    async def _seen(self, grants: Sequence[Grant], *, by_address: bool) -> dict[str, Approved]:
        """What people approved, as they saw it; a template of None where it is no longer kept. Of what was approved
        beforehand the very content alone may go to a list's address (``by_address``). It is only for the wording of
        reasons, so an unavailable store delays no message."""
        names = {
            grant.hold_id: "" if grant.cover is None or (by_address and grant.beforehand) else grant.cover.learned
            for grant in grants
        }
        try:
            documents = await self.store.holds.templates(set(filter(None, names.values())))
            shown = await self.store.holds.shown_of_each([hold_id for hold_id, name in names.items() if not name])
        except StoreError as error:
            log.warning("the content of an approved hold could not be read: %s", error)
            documents, shown = {}, {}
        found = dict.fromkeys(names, Approved(template=None))
        for hold_id, name in names.items():
            if name in documents:
                found[hold_id] = Approved(template=Template.loads(documents[name]))
            elif hold_id in shown:
                found[hold_id] = Approved(template=learn(shown[hold_id], ()), exact=True)
        return found

    async def _fronted(self, gathered: Gathered, plan: Plan, onward: _Once) -> Admission | None:
        """The verdict, synced in the journal's front; None if nothing was written and the admission is to decide.
        Raises StoreError and TimeoutError if it is unknown whether it was written. The relay is asked meanwhile
        whether it takes the content."""
        front, transaction = self.front, gathered.transaction
        if front is None or transaction.gone():
            return None
        try:
            gate, generation = self.watch.gate, front.generation
            if not is_plain(gathered, plan) or self.watch.age_seconds >= FRESH_SECONDS:
                return None
            if gate is None or generation is None or gate.generation != generation:  # another is in force by now
                return None
            if gate.freezes or gate.policy_sha256 != gathered.in_force.sha256:
                return None
            asks, key = plan.asks, key_of(transaction)
            if not all(map(front.counts_nobody, asks)) or front.may_hold(key):
                return None
            live = _new_live(now=self.clock.now(), counts=dict.fromkeys(asks, 0))
            admission = alone(gathered, plan, live, generation)
            if admission is None:
                return None
        except Exception:
            log.exception("transaction %s: not recorded in the journal's front", transaction.id)
            return None
        [event] = admission.events
        onward.begin()
        there = await front.record(event, key=key, marks=marks_of(gathered.facts), generation=generation)
        return admission if there else None

    async def _bypassed(self, gathered: Gathered, plan: Plan, onward: Onward) -> Disposition | None:
        """The disposition under the emergency bypass; None if there is none, or the admission is to decide. What the
        bypass recalls is not admitted again: its verdict is recorded."""
        bypass = self.bypass.in_force() if self.bypass is not None else None
        if self.bypass is None or bypass is None or gathered.transaction.gone():
            return None
        admission = await self.bypass.admit(bypass, gathered, plan)
        if admission is None:
            return None
        return await self.bypass.dispose.carry_out(gathered, admission, onward) or Deferred(reply=reply.RECALLED)

    async def _admitted(self, gathered: Gathered, plan: Plan) -> Admission:
        streams = watched(gathered)
        asked = asks_of(gathered) if plan.may_ask_writer else ()
        asks = (*plan.asks, *[one.ask for one in streams]) if streams else plan.asks
        record = _new_record(
            gathered=gathered,
            asks=asks,
            term=self.term,
            notices=self.notices,
            streams=streams,
            questions=plan.questions,
            asked=asked[:1],
        )

        def step(live: Seen) -> Admission:
            """Decide with what is seen of other messages."""
            answers = plan.answers(live)
            verdict = with_fixed(plan.close(live, answers), gathered, live, streams)
            stands = mailing_verdict(verdict, gathered, live, self.term)
            return record.admission(stands, live, answers, plan.stops(verdict, live))

        admission = await self.store.admit(_item(gathered, (*asks, *plan.rests, *asked)), step)
        held = admission.verdict.action.waits
        note = self._held.note if held else self._held.forget
        note(gathered.facts.identity)
        if not held or is_by_sender(admission.verdict):
            note(_sender_of(gathered))
        return admission

    def _note_approved(self, identity: Identity | None, documents: Mapping[str, str]) -> None:
        """So that the next message is compared before the admission asks for it."""
        for name, document in documents.items():
            if name not in self._templates:
                self._templates[name] = Template.loads(document)
            self._templates.move_to_end(name)
        while len(self._templates) > _MOST_TEMPLATES:
            self._templates.popitem(last=False)
        self._approved.note(identity, tuple(documents))

    def note_refused(
        self, id: str, session: Session, envelope: Envelope, refused: tuple[RefusedRecipient, ...]
    ) -> None:
        """Journal a transaction that ended without a message after the relay had refused recipients. Does not wait."""
        data = {
            "refused_codes": refused_at_rcpt(refused),
            "accepted": len(envelope.recipients),
            "client": session.client_ip,
        }
        private = {
            "reverse_path": (str(envelope.reverse_path or ""),),
            "recipients": tuple(str(a) for a in envelope.addresses),
            "refused": tuple(str(one.address) for one in refused),
            "actor": (session.auth_user,) if session.auth_user else (),
        }
        event = Event(
            kind=Kind.REFUSED, id=id, at=self.clock.now(), data=data, private={r: v for r, v in private.items() if v}
        )
        try:
            self.store.journal.note(event)
        except Exception:
            log.exception("transaction %s: refused recipients could not be recorded", id)

    def _failed(self, transaction: Transaction, error: Exception) -> None:
        """Journal a transaction that failed with an internal error, if possible; the answer is the same without."""
        data = {"action": "defer", "rules": [], "failure": type(error).__name__}
        try:
            self.store.journal.note(Event(kind=Kind.VERDICT, id=transaction.id, at=self.clock.now(), data=data))
        except Exception:
            log.exception("transaction %s: the error could not be recorded either", transaction.id)


class _Once:
    """The connection to the relay, usable once: after a send there is nothing to abandon, and no second send."""

    def __init__(self, onward: Onward) -> None:
        self._onward: Onward | None = onward

    def begin(self) -> None:
        if self._onward is not None:
            self._onward.begin()

    def send(self, prepend: bytes, fence: Fence) -> Awaitable[tuple[reply.Reply, ...]]:
        onward, self._onward = self._onward, None
        if onward is None:
            raise Recalled
        return onward.send(prepend, fence)

    async def abandon(self) -> None:
        onward, self._onward = self._onward, None
        if onward is not None:
            await onward.abandon()


_MOST_KNOWN, _MOST_TEMPLATES = 10_000, 64


class _Lately:
    """Mailings that this process has lately met held, or approved, each with the names of templates. A hint: a miss costs
    another round."""

    def __init__(self) -> None:
        self._names: OrderedDict[int | str, tuple[str, ...]] = OrderedDict()

    def knows(self, identity: Identity | None) -> bool:
        return not self._names.keys().isdisjoint(_keys(identity))

    def names(self, identity: Identity | None) -> set[str]:
        return {name for key in _keys(identity) for name in self._names.get(key, ())}

    def note(self, identity: Identity | None, names: tuple[str, ...] = ()) -> None:
        for key in _keys(identity):
            self._names[key] = names
            self._names.move_to_end(key)
        while len(self._names) > _MOST_KNOWN:
            self._names.popitem(last=False)

    def forget(self, identity: Identity | None) -> None:
        if self.knows(identity):
            for key in _keys(identity):
                self._names.pop(key, None)


def _keys(identity: Identity | None) -> tuple[int | str, ...]:
    if identity is None:
        return ()
    return identity.names or identity.sketch.keys


def _sender_of(gathered: Gathered) -> Identity | None:
    """An identity for the mail of one sender, which waits as one."""
    names = gathered.facts.sent_by
    return Identity(exact=f"letters of {names[-1]}") if names else None


def _item(gathered: Gathered, asks: tuple[Ask, ...]) -> Item:
    transaction, facts = gathered.transaction, gathered.facts
    reading = gathered.reading
    return _new_item(
        id=transaction.id,
        key=key_of(transaction),
        policy_sha256=gathered.in_force.sha256,
        content_sha256=transaction.message.sha256,
        message_id=reading.message_id if isinstance(reading, Reading) else "",
        asks=asks,
        people=gathered.counted.people,
        everybody=(
            persons(gathered.counted, gathered.in_force.registry)
            if facts.identity is not None or not OF_EACH_RECIPIENT.isdisjoint([ask.fact for ask in asks])
            else ()
        ),
        lists=tuple(_whole(gathered.counted, gathered.in_force.registry.lists)),
        touches=facts.lists,
        senders=facts.senders,
        thread=facts.thread,
        identity=facts.identity,
        always=gathered.in_force.approved_always,
        coming=gathered.coming,
        doubled=len({r.digest for r in gathered.counted.recipients}) < len(gathered.counted.recipients),
        sent_by=facts.sent_by,
        letter_from=facts.letter_from,
        quoted=gathered.quoted if facts.letter_from else frozenset(),
        shared=facts.shared,
        refers_to=reading.refers_to if isinstance(reading, Reading) else (),
        gone=transaction.gone,
    )


def _whole(counted: Classified, lists: Mapping[str, ListInfo]) -> Iterator[tuple[str, str, int]]:
    """The customers who count as a whole, once however often they are addressed: those of lists by their address, and
    those behind other addresses."""
    for touched in counted.touched.values():
        if touched.by_address and lists[touched.name].of_customers:
            yield touched.name, touched.version, int(touched.size.low)
    for behind in counted.crowds:
        yield behind.key.hex(), str(behind.customers), behind.customers
