"""Votes by mail: count or refuse an answer to a notice, sent to an address of the guard. It is never sent on.

The address is ``decisions+TOKEN@...``. holds/replying.py says what an answer may decide. holds/service.py counts the vote,
as for the console. One commit has the vote, the mark that the notice was answered, and a mail to the voter. A refusal is the
SMTP reply. The person also gets a mail about it, but only if it is proven that they wrote the answer: so an answer with a
forged From causes no mail.

Bounces, complaints and replies come to addresses of the guard too (``ReturnedMail``): they are stored before the 250.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from smtpguard.accounts.model import Role
from smtpguard.gathering.sender import Sender
from smtpguard.guard.inforce import InForce
from smtpguard.guard.ports import PolicyInForce, Reader, Verifier
from smtpguard.holds.effects import Seen
from smtpguard.holds.model import Change, Choice, Hold, Refused, event_on
from smtpguard.holds.replying import (
    Answer,
    Proof,
    Tokens,
    Uncounted,
    decide,
    full_signatures,
    may_confirm,
    people_asked,
    proof_of,
    read_confirmation,
    read_vote,
    sent_by_program,
    token_parts,
    why_barred,
)
from smtpguard.holds.service import Approvals
from smtpguard.journal.clock import Clock
from smtpguard.journal.event import Kind
from smtpguard.locale.phrase import Phrase
from smtpguard.mail import reply
from smtpguard.mail.address import Address, after_local
from smtpguard.mail.envelope import Onward, Transaction
from smtpguard.mail.fields import DkimResult
from smtpguard.mail.message import Message
from smtpguard.mail.reply import Reply
from smtpguard.notices.intents import Notices
from smtpguard.policy.facts import Unknown
from smtpguard.policy.verdict import Deferred, Disposition, Rejected, Taken
from smtpguard.reading.looks import Readable, Reading
from smtpguard.reading.request import Depth
from smtpguard.store.store import Store

log = logging.getLogger(__name__)

MOST_OCTETS = 1 << 20
"""Enough for a short answer with pictures in its signature."""
ALONE = "A vote by mail must have no other recipient."
NOT_NOW = Phrase("It was not counted: the message was decided on already, or this person cannot decide on it now.")
UNSURE = "Its signature could not be checked, try again later"


class _NotCounted(Refused):
    def __init__(self, no: Uncounted) -> None:
        super().__init__(str(no.value))
        self.no = no


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vote:
    """One answer to one notice. ``person``: the recipient of the notice; ``tag``: the notice's; ``outdated``: the address
    is not valid for this hold, and ``person`` is who claims to answer; ``unsure``: its signatures could not be checked."""

    hold: Hold
    person: str
    tag: str
    answer: Answer
    outdated: bool
    unsure: bool = False

    def proof(self, in_force: InForce, now: datetime) -> Proof:
        return proof_of(self.answer, in_force.addresses_of(self.person), in_force.reply_votes, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class VotesByMail:
    """``address``: the guard's own, without a token. ``required``: the roles that need a second factor."""

    address: Address
    tokens: Tokens
    store: Store
    policies: PolicyInForce
    reader: Reader
    verifier: Verifier
    approvals: Approvals
    notices: Notices
    clock: Clock
    required: frozenset[Role] = frozenset()

    def reply_to(self, address: Address) -> Reply | None:
        """The reply to a recipient; None if it is not the guard's own address."""
        token = _detail(address, self.address)
        if token is None:
            return None
        return reply.RECIPIENT_OK if token_parts(token)[0] else reply.no_such_notice()

    async def __call__(self, transaction: Transaction, onward: Onward) -> Disposition:
        """Raises subclasses of StoreError."""
        await onward.abandon()
        [first, *others] = transaction.envelope.addresses
        if others:
            return Rejected(reply=reply.rejected(ALONE))
        if transaction.message.size_bytes > MOST_OCTETS:
            return Rejected(reply=reply.TOO_BIG)
        in_force = self.policies.current()
        vote = await self._find_vote(_detail(first, self.address) or "", first, transaction, in_force)
        if vote is None or (vote.outdated and vote.proof(in_force, self.clock.now()) is Proof.TOKEN):
            log.info("transaction %s: a vote by mail with a token that is not valid", transaction.id)
            return Rejected(reply=reply.rejected(str(Uncounted.TOKEN.value)))
        if vote.hold.asks_writer:
            return await self._confirmed(vote, in_force)
        try:
            choice, proof = self._decide(vote, vote.hold, in_force, await self._barred(vote.person, in_force))
            await self._count(vote, choice, proof, in_force)
        except _NotCounted as refused:
            return await self._refused(vote, refused.no, in_force)
        except Refused as refused:
            return await self._refused(vote, str(refused), in_force)
        return Taken(reply=reply.counted(vote.hold.hold_id, choice.value))

    async def _find_vote(
        self, token: str, address: Address, transaction: Transaction, in_force: InForce
    ) -> _Vote | None:
        """Return the vote that a token stands for, None if the token is not valid and the sender is not asked about its hold: then
        nothing more is read."""
        hold_id, tag, _ = token_parts(token)
        hold = await self.store.holds.find(hold_id) if hold_id else None
        if hold is None or hold.primary:
            return None
        header, envelope = transaction.message.header, transaction.envelope
        sender = Sender.of(transaction, in_force.registry)
        asked = people_asked(hold, in_force, self.clock.now())
        person = self.tokens.person(token, hold, asked)
        outdated = not person
        if outdated:
            person = next((one for one in sorted(asked) if sender.claimed in in_force.addresses_of(one)), "")
        if not person:
            return None
        answer = Answer(
            claimed=sender.claimed,
            login=sender.login,
            automatic=sent_by_program(header, null_sender=envelope.reverse_path is None),
        )
        if answer.automatic:
            return _Vote(hold=hold, person=person, tag=tag, answer=answer, outdated=outdated)
        text = await self._read(transaction)
        if text is not None:
            word, comment = read_vote(text.excerpt)
            claimed = sender.read_as(text.from_address, text.from_ambiguous).claimed
            people = read_confirmation(text.excerpt)
            answer = replace(answer, claimed=claimed, word=word, comment=comment, people=people)
        allowed = in_force.reply_votes
        origin: DkimResult | Unknown = DkimResult()
        by_login = answer.login in in_force.addresses_of(person)
        if allowed is not None and allowed.senders_verified and not by_login and answer.word is not None:
            origin = await self.verifier.origin(transaction.message)
        unsure = isinstance(origin, Unknown) or bool(origin.unresolved)
        signed = full_signatures(header, origin.signatures, address) if isinstance(origin, DkimResult) else ()
        answer = replace(answer, signed=signed)
        return _Vote(hold=hold, person=person, tag=tag, answer=answer, outdated=outdated, unsure=unsure)

    async def _read(self, transaction: Transaction) -> Reading | None:
        found = await self.reader.read(transaction.message, Depth.TEXT)
        return found if isinstance(found, Reading) and found.readable is Readable.YES else None

    async def _barred(self, person: str, in_force: InForce) -> Uncounted | None:
        mine = in_force.addresses_of(person)
        accounts = await self.store.people.everybody()
        return why_barred((one for one in accounts if one.address in mine), self.required)

    def _decide(self, vote: _Vote, hold: Hold, in_force: InForce, bar: Uncounted | None) -> tuple[Choice, Proof]:
        """Raises _NotCounted."""
        decided = decide(
            vote.answer,
            hold,
            "" if vote.outdated else vote.person,
            addresses=in_force.addresses_of(vote.person),
            used=vote.tag in hold.answered,
            barred=bar,
            special=in_force.of_special_category(hold.lists),
            allowed=in_force.reply_votes,
            now=self.clock.now(),
        )
        if isinstance(decided, Uncounted):
            raise _NotCounted(decided)
        return decided

    async def _count(self, vote: _Vote, choice: Choice, proof: Proof, in_force: InForce) -> None:
        """Raises what ``Approvals.vote`` raises. An approval covers what the notice showed, and no copies that wait under
        the hold."""
        answer, now = vote.answer, self.clock.now()

        def amend(hold: Hold, made: Change) -> Change:
            if vote.tag in hold.answered:
                raise _NotCounted(Uncounted.USED)
            if choice is Choice.APPROVE:
                self._decide(vote, hold, in_force, None)
            way: Mapping[str, Any] = {"way": "mail", "proof": proof.value, "answers": vote.tag}
            events = tuple(
                replace(event, data={**event.data, **way}) if event.kind is Kind.VOTE else event
                for event in made.events
            )
            marked = replace(made.hold, answered=(*hold.answered, vote.tag)) if made.hold is not None else None
            told = self.notices.at(in_force, now).voted(hold, vote.person, vote.tag, choice.value, proof=proof.value)
            return replace(made, hold=marked, events=events, intents=(*made.intents, *told))

        allowed = in_force.reply_votes
        await self.approvals.vote(
            vote.hold.hold_id,
            choice,
            approver=vote.person,
            by=answer.login or vote.person,
            seen=replace(Seen.of(vote.hold), under=0),
            comment=answer.comment,
            most=allowed.people if allowed is not None else 0,
            amend=amend,
        )

    async def _confirmed(self, vote: _Vote, in_force: InForce) -> Disposition:
        """An answer of the writer, who is asked first. They get the notice of the outcome, and no other mail."""
        number = may_confirm(vote.answer, addresses=in_force.addresses_of(vote.person))
        if vote.outdated:
            number = Uncounted.TOKEN
        if isinstance(number, Uncounted):
            return await self._refused(vote, number, in_force)
        try:
            await self.approvals.confirm(
                vote.hold.hold_id, writer=vote.person, by=vote.answer.login, people=number, way="mail",
                seen=replace(Seen.of(vote.hold), under=0),
            )  # fmt: skip
        except Refused as refused:
            return await self._refused(vote, str(refused), in_force)
        return Taken(reply=reply.counted(vote.hold.hold_id, "confirm"))

    async def _refused(self, vote: _Vote, why: Uncounted | str, in_force: InForce) -> Disposition:
        """``why``: a rule of votes by mail, or the text of the error that the vote raised. Somebody who answered a notice from
        before the hold changed gets one that can be answered."""
        if why is Uncounted.UNPROVEN and vote.unsure:
            return Deferred(reply=reply.deferred(UNSURE), undecided=True)
        hold, now = vote.hold, self.clock.now()
        said = why.value if isinstance(why, Uncounted) else Phrase("It was not counted: {why}.", why=why)
        word = why.name.lower() if isinstance(why, Uncounted) else "vote"
        proof = vote.proof(in_force, now)
        choice = vote.answer.word.value if vote.answer.word is not None else ""
        if hold.asks_writer:
            choice = "confirm" if vote.answer.people is not None else ""
        data: dict[str, Any] = {"why": word, "choice": choice, "proof": proof.value, "answers": vote.tag}
        actors = (vote.answer.claimed or "", vote.answer.login)
        event = event_on(hold, Kind.VOTE_REFUSED, now, actors=actors, **data)
        proven = proof is not Proof.TOKEN and not vote.answer.automatic and why is not Uncounted.OTHER
        if not proven and isinstance(why, str):
            said = NOT_NOW  # do not tell an unproven sender who decided
        notices = self.notices.at(in_force, now)
        told = notices.voted(hold, vote.person, vote.tag, choice, refused=said, word=word) if proven else ()
        if proven and why is Uncounted.TOKEN:
            told = (*told, *notices.asked_anew(hold, vote.person))
        await self.store.journal.record((event,), told)
        return Rejected(reply=reply.rejected(str(said)))


def _detail(address: Address, ours: Address) -> str | None:
    """The text behind the guard's local part and "+", "" without any; None if it is not the guard's address."""
    rest = after_local(address, ours)
    if not rest:
        return rest
    return rest[1:] if rest[0] == "+" else None


MOST_RETURNED_OCTETS = 10 << 20
"""A bounce may return the whole message."""
_NO_OTHER = "Mail to this address must have no other recipient."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedMail:
    """``addresses``: the guard's own; ``+`` and a word may follow the local part (VERP). ``take``: stores a message and its
    recipients; raises subclasses of StoreError (returns/service.py)."""

    addresses: Sequence[Address]
    take: Callable[[Message, Sequence[str]], Awaitable[object]]

    def reply_to(self, address: Address) -> Reply | None:
        """The reply to a recipient; None if it is not one of them."""
        return reply.RECIPIENT_OK if self._ours(address) else None

    async def __call__(self, transaction: Transaction, onward: Onward) -> Disposition:
        """Raises subclasses of StoreError; the client then keeps the message."""
        await onward.abandon()
        to = transaction.envelope.addresses
        if not all(map(self._ours, to)):
            return Rejected(reply=reply.rejected(_NO_OTHER))
        if transaction.message.size_bytes > MOST_RETURNED_OCTETS:
            return Rejected(reply=reply.TOO_BIG)
        await self.take(transaction.message, [str(address) for address in to])
        return Taken(reply=reply.STORED)

    def _ours(self, address: Address) -> bool:
        return any(_detail(address, ours) is not None for ours in self.addresses)
