"""Approval beforehand: of a mailing, by a test message that is held for approvers and never sent on; and of a correction,
which is to go to exactly those who got a mailing, and to nobody else.

The test message goes to the guard's own address. A recipient ``approve+LIST@...`` names a list that the mailing is meant
for; there may be several. The hold shows the verdict that the policy would give if the message went to those lists. An
approval lets the mailing pass if it has the same text, goes to those lists, and stays within the approval's time and
number of people. All else is decided as usual. A correction is held in the same way. Its approval is bound to a set of
people, those of the mailing's account at this moment, and not to a number: copies for them pass, one each, and copies
for anybody else wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from smtpguard.admission.mailingverdict import MailingVerdict
from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.admission.record import Record
from smtpguard.database.errors import PolicyMoved
from smtpguard.gathering.gather import Gather, Gathered
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.effects import canonical
from smtpguard.holds.model import Conflict, Hold, NotEntitled, Refused, out_of_reach
from smtpguard.journal.clock import Clock
from smtpguard.lists.recipients import ONE, Count
from smtpguard.locale.phrase import N_, Phrase
from smtpguard.mail import reply
from smtpguard.mail.address import Address, after_local
from smtpguard.mail.envelope import Envelope, Onward, Recipient, Session, Transaction
from smtpguard.mail.fields import mailboxes
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.mailings.model import MAY_HAVE, CopyStatus, Correction, Mailing, event_of, set_of
from smtpguard.notices.intents import Notices
from smtpguard.policy.counted import Ask, list_of
from smtpguard.policy.facts import FACTS, Source
from smtpguard.policy.rule import ASKED
from smtpguard.policy.verdict import Action, Disposition, Held, Hit, Mode, Quorum, Reason, Rejected, Verdict

if TYPE_CHECKING:
    from smtpguard.store.store import Store


ENDLESS = 1 << 40
"""People, if their number is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preapproval:
    """``address``: the guard's own."""

    address: Address
    store: Store
    policies: PolicyInForce
    gather: Gather
    term: Deadlines
    notices: Notices

    def reply_to(self, address: Address) -> Reply | None:
        """The reply to a recipient; None if it is not the guard's own address."""
        name = name_at(address, self.address)
        if name is None:
            return None
        if not name:
            at = f"{self.address.local}+LIST@{self.address.domain}"
            return reply.no_such_list(f"the address must name a list: {at}")
        if name not in self.policies.current().registry.lists:
            return reply.no_such_list("there is no such list")
        return reply.RECIPIENT_OK

    async def __call__(self, transaction: Transaction, onward: Onward) -> Disposition:
        """Raises subclasses of StoreError."""
        await onward.abandon()
        in_force = self.policies.current()
        names = [name_at(a, self.address) for a in transaction.envelope.addresses]
        if None in names:
            return _no("A mailing sent for approval beforehand must have no other recipient.")
        lists = [in_force.registry.lists.get(name or "") for name in names]
        known = [info for info in lists if info is not None]
        if len(known) < len(names):
            at = f"{self.address.local}+LIST@{self.address.domain}"
            return _no(f"The address must name a list: {at}.")
        gathered = await _gathered_for(self.gather, transaction, [info.name for info in known], in_force)
        allowed = gathered.sender.internal or all(gathered.sender.claimed in info.writers for info in known)
        if not allowed:
            return _no("Only colleagues and the list's writers may send a mailing for approval.")
        if not _is_recognizable(gathered):
            return _no("Its text is too short to recognize its copies.")
        gathered = await self.gather.compare(gathered, to=mailboxes(transaction.message.header, "to"))
        await self.store.contents.keep(transaction.message)
        plan = in_force.rules.plan(gathered.facts)
        record = Record(gathered=gathered, asks=(), term=self.term, notices=self.notices, test=True)

        why = Phrase("A mailing is looked at before it is sent")
        public = Phrase("It was sent for approval beforehand: it is not relayed.")
        detail = f"for {', '.join(info.called for info in known)}"
        quorum = in_force.rules.quorum({*(info.name for info in known), *gathered.reports_to})

        def step(live: Seen) -> Admission:
            thought = plan.close(seen_alone(plan.asks, gathered, live.now))
            return record.admission(MailingVerdict(verdict=_asking(thought, why, public, detail, quorum)), live)

        key = f"test {transaction.message.sha256} {transaction.envelope.sha256}"
        admission = await self.store.admit(_item(gathered, key), step)
        assert admission.disposition is not None
        return admission.disposition


async def _gathered_for(gather: Gather, transaction: Transaction, lists: Iterable[str], in_force: InForce) -> Gathered:
    """Gather the message as if it went to the lists."""
    registry, names = in_force.registry, list(dict.fromkeys(lists))
    recipients = tuple(Recipient(address=registry.address_of(registry.lists[name])) for name in names)
    to_lists = replace(transaction, envelope=replace(transaction.envelope, recipients=recipients))
    opened = await gather.open(to_lists, in_force, everyone=registry.of_lists(names))
    return await gather.ask(opened, frozenset({Source.TEXT, Source.ORIGIN}))


def _is_recognizable(gathered: Gathered) -> bool:
    """Whether its text is long enough for its copies to be recognised."""
    return gathered.facts.identity is not None and bool(gathered.facts.identity.sketch)


def _item(gathered: Gathered, key: str) -> Item:
    """``key``: what it is a retry of is the same."""
    transaction = gathered.transaction
    return Item(
        id=transaction.id,
        key=hashlib.sha256(key.encode()).hexdigest(),
        policy_sha256=gathered.in_force.sha256,
        content_sha256=transaction.message.sha256,
        identity=gathered.facts.identity,
        test=True,
        gone=transaction.gone,
    )


def name_at(address: Address, ours: Address) -> str | None:
    """The list that the address names, "" if it names none; None if it is not the guard's address."""
    rest = after_local(address, ours)
    if not rest:
        return rest
    return None if rest[0].isalnum() else rest[1:]


def seen_alone(
    asks: Iterable[Ask], gathered: Gathered, now: datetime, least: Callable[[Ask], int] = lambda ask: 0
) -> Seen:
    """What an admission sees if this message is the only one: nothing but its own counts, and by how much they may be
    higher. ``least``: of each count, used where the message alone has less."""
    spans = {ask: _span(ask, gathered) for ask in asks}
    counts = {ask: int(span.low) for ask, span in spans.items()}
    maybe = {ask: int(min(span.high, ENDLESS)) - counts[ask] for ask, span in spans.items()}
    return Seen(now=now, counts={ask: max(n, least(ask)) for ask, n in counts.items()}, maybe=maybe)


def _span(ask: Ask, gathered: Gathered) -> Count:
    counted = gathered.counted
    spared = gathered.quoted if gathered.facts.shared else frozenset[bytes]()
    fact = FACTS.get(ask.fact)
    if fact is None:  # messages of a stream, which no rule asks for
        return ONE
    match fact.own:
        case "recipients.customers":
            return counted.customers
        case "recipients.reach":
            return counted.reach
    if fact.by_list and fact.of_letters:
        lists = list_of(ask.key)
        on_it = {r.digest for r in counted.recipients if lists in r.lists}
        return Count(n := len(on_it.intersection(counted.people) - spared), n)
    if fact.by_list or fact.own == "recipients.share":
        touched = counted.touched[ask.key]
        return touched.size if touched.by_address else touched.members
    match ask.fact:
        case "sender.customers":
            return counted.customers
        case "message.answers":
            return Count(n := len(set(counted.people) - gathered.quoted), n)
        case "sender.first_contacts":
            return Count(n := len(set(counted.people) - spared), n)
        case "sender.answers":
            return Count(n := len(gathered.quoted.intersection(counted.people)), n)
    return ONE


def _asking(thought: Verdict, why: Phrase, public: Phrase, detail: str, quorum: tuple[Quorum, ...]) -> Verdict:
    """The verdict to hold, whatever the policy says. Its reasons have the policy's own verdict."""
    reason = Reason(fact="approval.asked", observed="true", limit="", public=public, detail=detail)
    asked = Hit(rule=ASKED, action=Action.HOLD, description=why, reasons=(reason,))
    hits = tuple(h for h in thought.hits if h.mode is Mode.ENFORCE and h.action.waits)
    return replace(thought, action=Action.HOLD, hits=(asked, *hits), quorum=quorum, freeze_id=None)


def _no(why: str) -> Disposition:
    return Rejected(reply=reply.rejected(why))


_ROUNDS = 3
_NOBODY: Mapping[bytes, CopyStatus] = {}


class NotAll(Exception):
    """Some cannot be told: it went to the addresses of ``lists``, which have changed since, so that an export from then is needed."""

    def __init__(self, lists: tuple[str, ...]) -> None:
        super().__init__(
            f"not all who got it are known: it went to the address of {', '.join(lists)}, and the list has changed since. Match an export from then"
        )
        self.lists = lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """The service behind ``smtpguard mailings correct`` and the console's page."""

    store: Store
    policies: PolicyInForce
    gather: Gather
    clock: Clock
    new_id: Callable[[], str]
    term: Deadlines
    notices: Notices

    async def begin(
        self,
        mailing: Mailing,
        message: Message,
        *,
        starter: str,
        by: str,
        doubt: bool = False,
        matched: Mapping[bytes, CopyStatus] | None = None,
        comment: str = "",
    ) -> Hold:
        """The hold that people decide on: others than ``starter``, an address of one who decides on such mailings. ``by``: who
        the system says that is. ``doubt``: with those who may have it, too. ``matched``: what became of whose copy, where an export says
        who was behind a list's address. Raises NotEntitled, Conflict, Refused, NotAll and StoreError."""
        in_force = self.policies.current()
        starter = canonical(starter, in_force)
        if not in_force.sees(starter, mailing.lists, mailing.writers, self.clock.now()):
            raise NotEntitled(f"{starter} is not an approver of mailings to these lists")
        correction, people = await self._people(mailing, in_force, starter, doubt, matched)
        if not people:
            raise Conflict(N_("nobody is known to have got it"))
        await self.store.contents.keep(message)
        await self.store.mailings.keep_set(people)
        for _ in range(_ROUNDS):
            try:
                admission = await self._admit(mailing, message, correction, self.policies.current(), by, comment)
                break
            except PolicyMoved:
                await self.policies.follow()
        else:
            raise Conflict(N_("the policy in force changes: try again"))
        done = admission.disposition
        hold = await self.store.holds.find(done.hold_id) if isinstance(done, Held) else None
        assert hold is not None
        return hold

    async def _people(
        self, mailing: Mailing, in_force: InForce, starter: str, doubt: bool, matched: Mapping[bytes, CopyStatus] | None
    ) -> tuple[Correction, set[bytes]]:
        as_of = self.clock.now()
        account = await self.store.mailings.reached_people(mailing.mailing_id)
        sent, may = set(account.sent), set(account.may)
        for digest, status in (matched or _NOBODY).items():
            if status is CopyStatus.RELAYED:
                sent.add(digest)
            elif status in MAY_HAVE:
                may.add(digest)
        beyond, changed = 0, list[str]()
        for crowd in account.crowds:
            here = in_force.registry.statuses.get(crowd.list)
            index = here.index if here is not None else None
            if not crowd.list:
                beyond += crowd.people
            elif index is not None and index.version == crowd.version:
                members = (number.to_bytes(8, "big") for octet in range(256) for number in index.numbers(octet))
                (sent if crowd.status is CopyStatus.RELAYED else may).update(members)
            elif matched is None:
                changed.append(crowd.list)
        if changed:
            raise NotAll(tuple(sorted(set(changed))))
        may -= sent
        people = sent | may if doubt else sent
        made = Correction(
            mailing_id=mailing.mailing_id,
            people=set_of(people),
            as_of=as_of,
            sent=len(sent),
            may=len(may) if doubt else 0,
            beyond=beyond,
            by=starter,
        )
        return made, people

    async def _admit(
        self, mailing: Mailing, message: Message, correction: Correction, in_force: InForce, by: str, comment: str
    ) -> Admission:
        names = [name for name in mailing.lists if name in in_force.registry.lists]
        envelope = Envelope(reverse_path=None, recipients=())
        transaction = Transaction(id=self.new_id(), session=Session(), envelope=envelope, message=message)
        gathered = await _gathered_for(self.gather, transaction, names, in_force)
        if not _is_recognizable(gathered):
            raise Refused(N_("its text is too short to be known again"))
        gathered = await self.gather.compare(gathered, to=mailboxes(transaction.message.header, "to"))
        plan = in_force.rules.plan(gathered.facts)
        record = Record(
            gathered=gathered, asks=(), term=self.term, notices=self.notices, test=True, correction=correction
        )
        figures = {"set": correction.people, "people": correction.sent, "may": correction.may}

        def step(live: Seen) -> Admission:
            if live.mailing is not None and live.mailing.mailing_id == mailing.mailing_id:
                raise Conflict(N_("it reads like the mailing that it corrects: say it in words of its own"))
            # those who approve see every rule that so many people would hit
            thought = plan.close(seen_alone(plan.asks, gathered, live.now, lambda ask: correction.reach))
            made = record.admission(MailingVerdict(verdict=_to_correct(thought, correction, names, in_force)), live)
            if made.hold is None:
                return made
            hold = made.hold
            if not hold.verdict.quorum or out_of_reach(hold, in_force.groups):
                raise Refused(N_("too few approvers are left besides its writer and the person who wants it sent"))
            actors = correction.by, by
            said = event_of(mailing, live.now, "correction", actors, comment, hold=hold.hold_id, **figures)
            return replace(made, events=(*made.events, said))

        key = f"correction {message.sha256} {correction.people} {mailing.mailing_id}"
        return await self.store.admit(_item(gathered, key), step)


def _to_correct(thought: Verdict, correction: Correction, names: list[str], in_force: InForce) -> Verdict:
    public = Phrase(
        "It is the correction of a mailing, for exactly those who got that: {sent} who have it and {may} who may have it, by {time} UTC. Approved, one copy for each of them passes, also while a list of theirs is frozen; a copy for anybody else waits.",
        sent=correction.sent,
        may=correction.may,
        time=f"{correction.as_of:%Y-%m-%d %H:%M:%S}",
    )
    why = Phrase("A correction is looked at before it is sent")
    detail = f"of {correction.mailing_id}, for the set {correction.people}"
    return _asking(thought, why, public, detail, in_force.rules.quorum(names))
