"""Preapproval: a test message to the guard's own address is held for approvers and never sent on.

A recipient ``approve+LIST@...`` names a list that the mailing is meant for; there may be several. The hold shows the
verdict that the policy would give if the message went to those lists. An approval lets the mailing pass if it has the
same text, goes to those lists, and stays within the approval's time and number of people. All else is decided as usual.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smtpguard.admission.mailingverdict import MailingVerdict
from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.admission.record import Record
from smtpguard.gathering.gather import Gather, Gathered
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import PolicyInForce
from smtpguard.holds.deadlines import Deadlines
from smtpguard.lists.recipients import ONE, Count
from smtpguard.locale.phrase import Phrase
from smtpguard.mail import reply
from smtpguard.mail.address import Address, after_local
from smtpguard.mail.envelope import Recipient
from smtpguard.mail.reply import Reply
from smtpguard.mail.transaction import Onward, Transaction
from smtpguard.notices.intents import Notices
from smtpguard.policy.counted import Ask, list_of
from smtpguard.policy.facts import FACTS, Source
from smtpguard.policy.rule import ASKED
from smtpguard.policy.verdict import Action, Disposition, Hit, Mode, Quorum, Reason, Rejected, Verdict

if TYPE_CHECKING:  # slow to import
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
        gathered = await gathered_for(self.gather, transaction, [info.name for info in known], in_force)
        facts = gathered.facts
        allowed = gathered.sender.internal or all(gathered.sender.claimed in info.writers for info in known)
        if not allowed:
            return _no("Only colleagues and the list's writers may send a mailing for approval.")
        if facts.identity is None or not facts.identity.sketch:
            return _no("Its text is too short to recognize its copies.")
        gathered = await self.gather.compare(gathered)
        await self.store.contents.keep(transaction.message)
        plan = in_force.rules.plan(facts)
        record = Record(gathered=gathered, asks=(), term=self.term, notices=self.notices, test=True)

        why = Phrase("A mailing is looked at before it is sent")
        public = Phrase("It was sent for approval beforehand: it is not relayed.")
        detail = f"for {', '.join(info.called for info in known)}"
        quorum = in_force.rules.quorum({*(info.name for info in known), *gathered.reports_to})

        def step(live: Seen) -> Admission:
            counts, maybe = alone(plan.asks, gathered)
            thought = plan.close(replace(live, counts=counts, maybe=maybe, freezes=(), approved=False, mailing=None))
            return record.admission(MailingVerdict(verdict=asking(thought, why, public, detail, quorum)), live)

        item = Item(
            id=transaction.id,
            key=hashlib.sha256(f"test {transaction.message.sha256} {transaction.envelope.sha256}".encode()).hexdigest(),
            policy_sha256=in_force.policy_sha256,
            content_sha256=transaction.message.sha256,
            identity=facts.identity,
            test=True,
            gone=transaction.gone,
        )
        admission = await self.store.admit(item, step)
        assert admission.disposition is not None
        return admission.disposition


async def gathered_for(gather: Gather, transaction: Transaction, lists: Iterable[str], in_force: InForce) -> Gathered:
    """Gather the message as if it went to the lists."""
    registry, names = in_force.registry, list(dict.fromkeys(lists))
    recipients = tuple(Recipient(address=registry.address_of(registry.lists[name])) for name in names)
    to_lists = replace(transaction, envelope=replace(transaction.envelope, recipients=recipients))
    opened = await gather.open(to_lists, in_force, everyone=registry.of_lists(names))
    return await gather.ask(opened, frozenset({Source.TEXT, Source.ORIGIN}))


def name_at(address: Address, ours: Address) -> str | None:
    """The list that the address names, "" if it names none; None if it is not the guard's address."""
    rest = after_local(address, ours)
    if not rest:
        return rest
    return None if rest[0].isalnum() else rest[1:]


def alone(asks: Iterable[Ask], gathered: Gathered) -> tuple[dict[Ask, int], dict[Ask, int]]:
    """The counts of this message alone, and by how much they may be higher."""
    spans = {ask: _span(ask, gathered) for ask in asks}
    counts = {ask: int(span.low) for ask, span in spans.items()}
    return counts, {ask: int(min(span.high, ENDLESS)) - counts[ask] for ask, span in spans.items()}


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


def asking(thought: Verdict, why: Phrase, public: Phrase, detail: str, quorum: tuple[Quorum, ...]) -> Verdict:
    """The verdict to hold, whatever the policy says. Its reasons have the policy's own verdict."""
    reason = Reason(fact="approval.asked", observed="true", limit="", public=public, detail=detail)
    asked = Hit(rule=ASKED, action=Action.HOLD, description=why, reasons=(reason,))
    hits = tuple(h for h in thought.hits if h.mode is Mode.ENFORCE and h.action.waits)
    return replace(thought, action=Action.HOLD, hits=(asked, *hits), quorum=quorum, freeze_id=None)


def _no(why: str) -> Disposition:
    return Rejected(reply=reply.rejected(why))
