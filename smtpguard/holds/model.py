"""A hold, its votes, its transition table, and the count of the quorum."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.codec import Codec
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.mailings.model import Correction, Grant, Person, Rejection
from smtpguard.outbox.model import Intent, Settled
from smtpguard.policy.approvals import Groups, Stages
from smtpguard.policy.freezing import Freeze, Selectable, stopped_by
from smtpguard.policy.verdict import Mode, Quorum, Verdict
from smtpguard.reading.fingerprint import Identity


class Refused(Exception):
    """A step on a hold or a mailing is refused, and nothing changes. The text gives the reason to the caller."""


class NotEntitled(Refused):
    """That person may not do this to this hold."""


class Unconfirmed(Refused):
    """It reaches everybody at once, and the approver has not confirmed that; or the policy forbids it."""


class Conflict(Refused):
    """It has changed since that person looked: decided by somebody else, or changed otherwise (HTTP 409)."""


class NoAnswer(Conflict):
    """Its client has no 250 yet."""


class PolicyChanged(Conflict):
    """It was shown under another policy."""


class State(enum.Enum):
    WAITING = "waiting"
    APPROVED = "approved"  # the release is in the outbox
    RELEASING = "releasing"  # at least one attempt was made
    RELEASED = "released"  # every recipient is settled, at least one delivered
    UNDELIVERED = "undelivered"  # approved, and the relay accepted it for no recipient
    IN_DOUBT = "in-doubt"  # approved, and it is unknown whether the relay has it: for good, or until people say (Hold.asked_at)
    GRANTED = "granted"  # a test that was approved: its mailing may pass, and the test itself is not sent
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    VOID = "void"  # the client was answered 451: it still has the message


class Move(enum.Enum):
    CONFIRM = "confirm"  # its writer confirms it
    APPROVE = "approve"  # the quorum is complete
    REJECT = "reject"
    WITHDRAW = "withdraw"
    EXPIRE = "expire"
    VOID = "void"
    ADOPT = "adopt"  # a retry of a message that was answered 451
    ATTEMPT = "attempt"  # the delivery worker begins an attempt
    SETTLE = "settle"  # every recipient has it, or has a DSN
    FAIL = "fail"  # none of them has it
    DOUBT = "doubt"  # none certainly has it, and one may have it
    GRANT = "grant"  # the quorum of a test is complete: nothing of it is to be sent
    REOPEN = "reopen"  # its approval has ended, and people decide anew


TRANSITIONS: Mapping[tuple[State, Move], State] = {
    (State.WAITING, Move.CONFIRM): State.APPROVED,
    (State.WAITING, Move.APPROVE): State.APPROVED,
    (State.WAITING, Move.REJECT): State.REJECTED,
    (State.WAITING, Move.WITHDRAW): State.WITHDRAWN,
    (State.WAITING, Move.EXPIRE): State.EXPIRED,
    (State.WAITING, Move.VOID): State.VOID,
    (State.WAITING, Move.GRANT): State.GRANTED,
    (State.VOID, Move.ADOPT): State.WAITING,
    (State.APPROVED, Move.ATTEMPT): State.RELEASING,
    (State.APPROVED, Move.SETTLE): State.RELEASED,
    (State.APPROVED, Move.FAIL): State.UNDELIVERED,
    (State.APPROVED, Move.DOUBT): State.IN_DOUBT,
    (State.APPROVED, Move.REJECT): State.REJECTED,
    (State.APPROVED, Move.WITHDRAW): State.WITHDRAWN,
    (State.APPROVED, Move.REOPEN): State.WAITING,
    (State.RELEASING, Move.ATTEMPT): State.RELEASING,
    (State.RELEASING, Move.SETTLE): State.RELEASED,
    (State.RELEASING, Move.FAIL): State.UNDELIVERED,
    (State.RELEASING, Move.DOUBT): State.IN_DOUBT,
    (State.RELEASING, Move.REJECT): State.REJECTED,
    (State.RELEASING, Move.WITHDRAW): State.WITHDRAWN,
    (State.RELEASING, Move.REOPEN): State.WAITING,
    (State.IN_DOUBT, Move.ATTEMPT): State.RELEASING,  # a person said to send it again
    (
        State.IN_DOUBT,
        Move.SETTLE,
    ): State.RELEASED,  # a person said that it was sent, or the relay's answer came after all
    (State.IN_DOUBT, Move.FAIL): State.UNDELIVERED,
    (State.IN_DOUBT, Move.DOUBT): State.IN_DOUBT,
    (State.IN_DOUBT, Move.REJECT): State.REJECTED,
    (State.IN_DOUBT, Move.WITHDRAW): State.WITHDRAWN,
    (State.RELEASED, Move.SETTLE): State.RELEASED,  # another recipient's late answer
}
"""Moves that are not here are impossible. Undelivered, granted, rejected, withdrawn and expired are final; released and
in doubt are final once nothing of the release is in the outbox any more. An approval is revoked by rejecting,
withdrawing or reopening, as far as it is not sent (sending.taken_back)."""

LIVE = frozenset({State.WAITING, State.APPROVED, State.RELEASING})
"""The states in which a second message with the same content and envelope is this hold."""
SENDING = frozenset({State.APPROVED, State.RELEASING, State.IN_DOUBT})
"""The states in which its release may be in the outbox; in doubt it is there as long as people are asked."""

LET_GO = frozenset({State.APPROVED, State.RELEASING, State.RELEASED, State.UNDELIVERED, State.IN_DOUBT})
"""The states after an approval took effect, whatever the result of the release."""


def settles_as(settled: Settled) -> Move:
    """The move for the recipients of a release once all are settled."""
    return Move.SETTLE if settled.sent else Move.DOUBT if settled.doubted else Move.FAIL


def after(state: State, move: Move) -> State | None:
    """The next state, or None if the move is impossible."""
    return TRANSITIONS.get((state, move))


class Choice(enum.Enum):
    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """``content_sha256`` and ``envelope_sha256``: of the message that was voted on; a vote on any other does not count.
    Nor does a vote given before other lists or rules were added to the hold (``seen``: "list NAME", "rule ID").
    ``copies``: the number of copies whose differences were shown to the approver, and so approved. ``letters``: for a
    sender's letters that wait as one hold, how many more were listed to the approver, and so approved. ``people``: how
    many people the mailing may reach in all; 0: as many as its largest list has, or as were seen."""

    approver: str  # canonical address
    choice: Choice
    content_sha256: str
    envelope_sha256: str
    at: datetime
    comment: str = ""
    seen: frozenset[str] = frozenset()
    people: int = 0
    copies: int | None = None
    letters: int | None = None
    at_once: int = 0
    """The number of people that the approver confirmed it reaches at once, if its list declares stages."""

    @classmethod
    def on(cls, hold: Hold, approver: str, choice: Choice, at: datetime, comment: str = "", people: int = 0) -> Vote:
        """A vote on a hold as it is now."""
        return cls(
            approver=approver,
            choice=choice,
            content_sha256=hold.content_sha256,
            envelope_sha256=hold.envelope.sha256,
            at=at,
            comment=comment,
            seen=hold.scope,
            people=people,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The question to its writer. ``writer``: canonical; ``proof``: what proved the writer ("login", "listener",
    "origin"). ``until``: until then nobody else decides; ``expires``: it expires then, which is also the hold's
    ``expires_at``, except of earlier versions. ``at``, ``people``: when the writer confirmed, and the number that they
    typed. ``lapsed_at``: since when others decide instead."""

    writer: str
    until: datetime
    proof: str = ""
    expires: bool = False
    at: datetime | None = None
    people: int = 0
    lapsed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One held message. ``sender`` gets the notices (None: nobody does). ``senders``: all addresses of its writer and
    sender.

    ``acknowledged``: the client was answered 250; until then nobody can release it. ``reach``: the people that it would
    have reached; ``reach_at_least``: or more, since the members of a list were unknown. ``part``: colleagues among the
    recipients, who are not in ``envelope``, got it at once (``scope: customers``). A mailing's first held message is
    its primary hold: ``copies`` more are stored under it, each with ``primary`` naming it, and their lists, rules, writers
    and reach are added to it.
    """

    hold_id: str
    mailing_id: str
    session: Session
    envelope: Envelope
    content_sha256: str
    size_bytes: int
    subject: str
    message_id: str
    verdict: Verdict
    state: State
    votes: tuple[Vote, ...]
    held_at: datetime
    expires_at: datetime
    sender: str | None
    senders: frozenset[str]
    lists: tuple[str, ...]
    reach: int
    reach_at_least: bool = False
    part: bool = False
    acknowledged: bool = False
    language: str = ""
    reminded: int = 0  # how many reminders those who are asked have had
    escalated: bool = False
    thread: str = ""
    attend_at: datetime | None = None
    primary: str = ""
    copies: int = 0
    identity: Identity | None = None
    told: tuple[str, ...] = ()
    """Other writers, of copies, who also get the notices of the outcome."""
    kind: str = ""
    """"" or "test": sent to be approved beforehand, and never released itself."""
    versions: tuple[tuple[str, str], ...] = ()
    """For each list whose address is a recipient, the version of its index on arrival."""
    behind: Mapping[str, tuple[Person, ...]] = field(default_factory=dict)
    """By recipient, the part's included: the people behind that address as they were counted on arrival. The policy and
    its lists may be others when it is sent. Empty if an earlier version held it."""
    settled: Settled | None = None
    """The totals of its recipients, once all are settled."""
    stopped: bool = False
    """Its release was revoked when some had it, or may have it: the others count as failed."""
    stopped_by: str = ""
    """The move that did so: reject, withdraw or reopen. Copies under it are revoked with it."""
    asked_at: datetime | None = None
    """Since when people are asked whether it was sent: a release to a list address in doubt is not repeated
    automatically."""
    held_up: bool = False
    """A freeze stopped it when it was approved, so its writer gets a notice when it is released."""
    reopened_at: datetime | None = None
    deliver_by: datetime | None = None
    """The date that the message itself names: it expires then at the latest."""
    exact: str = ""
    """The digest of all that it shows or links to (reading.shown); "" if an earlier version held it."""
    author: str = ""
    """The one address in its From; "" if there is not exactly one."""
    proofs: frozenset[str] = frozenset()
    """Proofs of its origin (cover.Coming)."""
    by_address: bool = False
    """A recipient is a list address, or another address that expands: a decision is on this message only."""
    letter_from: tuple[str, ...] = ()
    """For a letter to customers, and for what is held for their number, the names of its sender."""
    release_at: datetime | None = None
    """When the complete approval takes effect; until then it waits, and the approval can be undone."""
    grant: Grant | None = None
    """The approval that takes effect then."""
    undone: int = 0
    """How many approvals were undone before they took effect: the notices of each have ids of their own."""
    by_sender: bool = False
    """It is held only for the number of people its sender writes to: more letters of that sender wait with it, whatever
    their text."""

    confirm: Confirmation | None = None
    """For a hold that began as a question to its writer, or that follows one."""
    answered: tuple[str, ...] = ()
    """The tags of the notices that were answered by a vote (holds.replying): each can be used once, even if the vote was taken back."""
    correction: Correction | None = None
    """For the correction of a mailing: the people that it goes to, and nobody else. It is approved beforehand."""

    @property
    def stands(self) -> str:
        """Its state in one word, for people: also "leaving", approved while that can be undone, and "stopped", when the
        rest of its release was stopped."""
        if self.release_at is not None:
            return "leaving"
        return "stopped" if self.stopped and self.state in LET_GO else self.state.value

    @property
    def confirm_row(self) -> dict[str, Any] | None:
        """The question to its writer, for programs; None if none was asked."""
        if (asked := self.confirm) is None:
            return None
        return {
            "writer": asked.writer, "proof": asked.proof, "until": asked.until, "after": "expire" if asked.expires else "hold",
            "asked": self.asks_writer, "confirmed_at": asked.at, "people": asked.people if asked.at is not None else None,
            "lapsed_at": asked.lapsed_at,
        }  # fmt: skip

    @property
    def question(self) -> Confirmation | None:
        """The question to its writer, while only the writer is asked."""
        asked = self.confirm
        waits = self.state is State.WAITING and asked is not None and asked.at is None and asked.lapsed_at is None
        return asked if waits else None

    @property
    def asks_writer(self) -> bool:
        """Whether its writer is still asked, and so nobody else."""
        return self.question is not None

    @property
    def confirmed(self) -> bool:
        """Whether it was let go on its writer's confirmation alone, or with a hold that was."""
        at = self.confirm.at if self.confirm is not None else None
        return at is not None and (self.reopened_at is None or at > self.reopened_at)

    @property
    def until(self) -> datetime:
        """The end of the time of those who are asked now, as they are told it."""
        return self.question.until if self.question is not None else self.expires_at

    @property
    def queue(self) -> str:
        """The name under which more of its sender's letters are stored under this hold; "" for other holds."""
        return self.letter_from[-1] if self.by_sender and self.letter_from and not self.primary else ""

    def moved(self, move: Move, **more: Any) -> Hold:
        """After a move, which must be possible, with ``more`` of it changed."""
        state = after(self.state, move)
        assert state is not None, f"{self.state.value}: {move.value}"
        return replace(self, state=state, **more)

    def in_place_of(self, lead: Hold) -> Hold:
        """This copy, to be promoted: with the lists, rules and writers of the primary hold."""
        versions = tuple(sorted({**dict(lead.versions), **dict(self.versions)}.items()))
        return replace(self, lists=lead.lists, senders=lead.senders, verdict=lead.verdict, versions=versions)

    @property
    def reach_at_most(self) -> bool:
        """Whether its copies may be for people who are on the list that it is addressed to, and who are counted twice."""
        return bool(self.copies and self.by_address) and not self.by_sender and not self.reach_at_least

    @property
    def waits_since(self) -> datetime:
        """Since when people are asked."""
        return self.reopened_at or self.held_at

    @property
    def rules(self) -> tuple[str, ...]:
        """Those that hold it."""
        return tuple(h.rule for h in self.verdict.hits if h.mode is Mode.ENFORCE)

    @property
    def scope(self) -> frozenset[str]:
        """The lists and rules that a vote on it takes into account, beside content and envelope."""
        bound = (f"set {self.correction.people}",) if self.correction is not None else ()
        return frozenset((*(f"list {n}" for n in self.lists), *(f"rule {r}" for r in self.rules), *bound))


def standing_votes(hold: Hold) -> tuple[Vote, ...]:
    """The votes that count: of each person the last, on exactly this content and envelope, and none of the writer's
    own."""
    last: dict[str, Vote] = {}
    for vote in hold.votes:
        bound = (vote.content_sha256, vote.envelope_sha256) == (hold.content_sha256, hold.envelope.sha256)
        bound = bound and (not vote.seen or vote.seen >= hold.scope)
        if bound and vote.approver not in hold.senders:
            last[vote.approver] = vote
    return tuple(last.values())


def have_voted(hold: Hold, groups: Groups) -> set[str]:
    """The people (Groups.person) whose votes count."""
    return {groups.person(vote.approver) for vote in standing_votes(hold)}


def entitled(hold: Hold, approver: str, groups: Groups, *, at: datetime, open_now: bool) -> bool:
    """Whether ``approver`` may decide on it at ``at``: in one of the quorum's groups, or as deputy of an absent member;
    and not its writer under any address, nor the writer's deputy."""
    asked = [q for quorum in hold.verdict.quorum for q in _asked(quorum, open_now)]
    return any(groups.decides(approver, g, at, hold.senders) for q in asked for g in q.groups)


def missing(hold: Hold, groups: Groups, open_at: Callable[[datetime], bool]) -> tuple[Quorum, ...]:
    """The quorums that are not complete yet. Every list's quorum counts by itself; within one, a person counts once.

    ``open_at`` says whether it is working hours. An ``out_of_hours`` quorum is filled by votes given out of hours; the
    regular one by any. The vote of a person who has left the group does not count; an absent person and their deputy
    count as one.
    """
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    some = {v.approver: v.at for v in votes}
    late = {v.approver: v.at for v in votes if not open_at(v.at)}

    def met(quorum: Quorum) -> bool:
        spare = quorum.out_of_hours
        return _filled(quorum, groups.votes(some, quorum.groups, hold.senders)) or (
            spare is not None and _filled(spare, groups.votes(late, spare.groups, hold.senders))
        )

    return tuple(quorum for quorum in hold.verdict.quorum if not met(quorum))


def out_of_reach(hold: Hold, groups: Groups, at: datetime | None = None) -> tuple[Quorum, ...]:
    """The quorums that no votes can fill: their groups have too few people beside its writer. ``at``: count only people
    who are present then."""

    def can_be(quorum: Quorum) -> bool:
        votes: dict[str, set[str]] = {}  # of each person, in which groups
        for g in quorum.groups:
            for who in groups.besides(g, hold.senders) if at is None else groups.there(g, at, hold.senders):
                votes.setdefault(groups.person(who), set()).add(g)
        return _filled(quorum, list(votes.values()))

    return tuple(
        quorum
        for quorum in hold.verdict.quorum
        if not can_be(quorum) and (quorum.out_of_hours is None or not can_be(quorum.out_of_hours))
    )


def complete(hold: Hold, groups: Groups, open_at: Callable[[datetime], bool]) -> bool:
    """Whether it may be released. A hold that names no quorum cannot be: nobody was asked, so nobody has agreed."""
    return bool(hold.verdict.quorum) and not missing(hold, groups, open_at)


def _asked(quorum: Quorum, open_now: bool) -> list[Quorum]:
    return [quorum] if open_now or quorum.out_of_hours is None else [quorum, quorum.out_of_hours]


def _filled(quorum: Quorum, votes: Sequence[Set[str]]) -> bool:
    """No group, or zero people from each, is no quorum: then nobody has decided."""
    return bool(quorum.groups and quorum.each) and not seats_left(quorum, votes)


def seats_left(quorum: Quorum, votes: Sequence[Set[str]]) -> list[str]:
    """The group of each seat that distinct votes, each with the groups for which it may count, leave free if they take
    as many as they can: bipartite matching by augmenting paths, over a handful of seats."""
    seats = [group for group in quorum.groups for _ in range(quorum.each)]
    holder: dict[int, int] = {}  # vote -> seat

    def seat(n: int, tried: set[int]) -> bool:
        for vote, stands_for in enumerate(votes):
            if vote in tried or seats[n] not in stands_for:
                continue
            tried.add(vote)
            if vote not in holder or seat(holder[vote], tried):
                holder[vote] = n
                return True
        return False

    return [seats[n] for n in range(len(seats)) if not seat(n, set())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The changes of a hold: the new hold, events and intents, in one commit.

    ``cover``: a template that ``grant`` refers to. ``apart``: a copy that the approval does not cover waits for people
    by itself. ``grant`` or ``rejection``: the decision on its whole mailing, and ``stages``: its stages; ``at_once``:
    how many people it reaches at once although its list declares stages. ``ungranted``: the hold whose approval ends.
    ``confirmed``: it is released on its writer's confirmation, or with a hold that is. ``cancelled``: digests of
    recipients who will not get it, though others have it.
    """

    hold: Hold | None = None
    grant: Grant | None = None
    rejection: Rejection | None = None
    stages: Stages | None = None
    at_once: int = 0
    ungranted: str = ""
    cover: str = ""
    apart: bool = False
    confirmed: bool = False
    cancelled: frozenset[bytes] = frozenset()
    events: tuple[Event, ...] = ()
    intents: tuple[Intent, ...] = ()


def event_on(
    hold: Hold,
    kind: Kind,
    at: datetime,
    *,
    actors: tuple[str, ...] = (),
    comment: str = "",
    named: Sequence[Recipient] = (),
    **data: object,
) -> Event:
    """``actors``: the address that a person acts as, and the caller's login; ``named``: recipients."""
    addresses = tuple(str(one.address) for one in named)
    private = {"actor": actors, "comment": (comment,) if comment else (), "recipients": addresses}
    said = {role: values for role, values in private.items() if values}
    return Event(kind=kind, id=hold.hold_id, at=at, data=data, private=said)


def leads(hold: Hold) -> dict[str, Any]:
    """What an entry says to make a primary hold of a copy: its figures need no other entry (incidents.activity)."""
    held_at, rules, lists = microseconds(hold.held_at), list(hold.rules), list(hold.lists)
    return {"leads": {"hold": hold.hold_id, "held_at": held_at, "rules": rules, "lists": lists}}


def leading(hold: Hold, made: Change) -> Change:
    """The change with which a copy becomes a primary hold: its last entry says so."""
    *others, event = made.events
    return replace(made, events=(*others, replace(event, data={**event.data, **leads(hold)})))


def vote_on(hold: Hold, choice: str, at: datetime, *, actors: tuple[str, ...], comment: str) -> Event:
    on: dict[str, Any] = {"choice": choice, "content": hold.content_sha256, "envelope": hold.envelope.sha256}
    return event_on(hold, Kind.VOTE, at, actors=actors, comment=comment, **on)


Over = Callable[[Hold, str], tuple[tuple[Event, ...], tuple[Intent, ...]]]
"""The events and notices once a release has ended, for the hold as it is then and the id of the release."""


def held_up_by(hold: Hold, freezes: Iterable[Freeze]) -> tuple[Freeze, ...]:
    """The freezes that stop a held message, whether it is approved or will be. A freeze of its lists does not stop a correction."""
    what = selectable(hold)
    return stopped_by(freezes, what if hold.correction is None else what._replace(lists=frozenset()))


def selectable(hold: Hold) -> Selectable:
    return Selectable(frozenset(hold.lists), hold.senders, hold.mailing_id, hold.thread)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldQuery:
    """Which primary holds a list of holds shows. All ``words``, in lower case, are in id, subject or sender. Of each of
    ``marks``, like "list:NAME", "rule:ID", "group:NAME" or "from:ADDRESS", it has one, and none of ``unmarked``. Held
    from ``since`` on, and before ``until``."""

    states: tuple[State, ...]
    words: tuple[str, ...] = ()
    marks: tuple[tuple[str, ...], ...] = ()
    unmarked: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


class Rank(NamedTuple):
    """The rank of a hold in a list: holds for a list of ``first`` before others, then many people, then little time
    left. ``expires_at``: in microseconds."""

    later: int
    fewer: int
    expires_at: int
    hold_id: str


HOLD = Codec(Hold)
