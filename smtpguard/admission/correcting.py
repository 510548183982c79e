"""Begin the correction of a mailing: a message that is to go to exactly those who got it, approved for them and for nobody else.

It is held as what is sent to be approved beforehand is. Its approval is bound to a set of people, those of the mailing's account at
this moment, and not to a number: copies for them pass, one each, and copies for anybody else wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from smtpguard.admission.mailingverdict import MailingVerdict
from smtpguard.admission.model import Admission, Item, Seen
from smtpguard.admission.preapproval import alone, asking, gathered_for
from smtpguard.admission.record import Record
from smtpguard.database.errors import PolicyMoved
from smtpguard.gathering.gather import Gather
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import Clock, PolicyInForce
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.effects import canonical
from smtpguard.holds.model import Conflict, Hold, NotEntitled, Refused, out_of_reach
from smtpguard.locale.phrase import N_, Phrase
from smtpguard.mail.envelope import Envelope, Session
from smtpguard.mail.message import Message
from smtpguard.mail.transaction import Transaction
from smtpguard.mailings.model import MAY_HAVE, CopyStatus, Correction, Mailing, set_of
from smtpguard.mailings.service import decides, event_of
from smtpguard.notices.intents import Notices
from smtpguard.policy.verdict import Held, Verdict

if TYPE_CHECKING:  # slow to import
    from smtpguard.store.store import Store

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
        if not decides(starter, mailing.lists, in_force, self.clock.now()):
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
        account = await self.store.mailings.account(mailing.mailing_id)
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
                (sent if crowd.sent else may).update(members)
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
        gathered = await gathered_for(self.gather, transaction, names, in_force)
        facts = gathered.facts
        if facts.identity is None or not facts.identity.sketch:
            raise Refused(N_("its text is too short to be known again"))
        gathered = await self.gather.compare(gathered)
        plan = in_force.rules.plan(facts)
        record = Record(
            gathered=gathered, asks=(), term=self.term, notices=self.notices, test=True, correction=correction
        )
        figures = {"set": correction.people, "people": correction.sent, "may": correction.may}
        actors, hold_id = (correction.by, by), gathered.transaction.id
        said = event_of(mailing, self.clock.now(), "correction", actors, comment, hold=hold_id, **figures)

        def step(live: Seen) -> Admission:
            if live.mailing is not None and live.mailing.mailing_id == mailing.mailing_id:
                raise Conflict(N_("it reads like the mailing that it corrects: say it in words of its own"))
            counts, maybe = alone(plan.asks, gathered)
            counts = {
                ask: max(n, correction.reach) for ask, n in counts.items()
            }  # those who approve see every such rule
            seen = replace(
                live, counts=counts, maybe=maybe, freezes=(), approved=False, mailing=None, grants=(), astray=0
            )
            thought = plan.close(seen)
            made = record.admission(MailingVerdict(verdict=_asking(thought, correction, names, in_force)), live)
            if made.hold is None:
                return made
            hold = made.hold
            if not hold.verdict.quorum or out_of_reach(hold, in_force.groups):
                raise Refused(N_("too few approvers are left besides its writer and the person who wants it sent"))
            return replace(made, events=(*made.events, said))

        item = Item(
            id=gathered.transaction.id,
            key=hashlib.sha256(
                f"correction {message.sha256} {correction.people} {mailing.mailing_id}".encode()
            ).hexdigest(),
            policy_sha256=in_force.policy_sha256,
            content_sha256=message.sha256,
            identity=facts.identity,
            test=True,
        )
        return await self.store.admit(item, step)


def _asking(thought: Verdict, correction: Correction, names: list[str], in_force: InForce) -> Verdict:
    public = Phrase(
        "It is the correction of a mailing, for exactly those who got that: {sent} who have it and {may} who may have it, by {time} UTC. Approved, one copy for each of them passes, also while a list of theirs is frozen; a copy for anybody else waits.",
        sent=correction.sent,
        may=correction.may,
        time=f"{correction.as_of:%Y-%m-%d %H:%M:%S}",
    )
    why = Phrase("A correction is looked at before it is sent")
    detail = f"of {correction.mailing_id}, for the set {correction.people}"
    return asking(thought, why, public, detail, in_force.rules.quorum(names))
