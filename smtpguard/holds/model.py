"""The hold of a message: its states and transitions, its votes, and when they complete the quorum. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from smtpguard.journal.chain import microseconds
from smtpguard.journal.event import Event, Kind
from smtpguard.lists.persons import Person, each_once
from smtpguard.mail.codec import Codec
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.mailings.model import Correction, Grant, Rejection
from smtpguard.outbox.model import Intent, Settled
from smtpguard.policy.approvals import Groups
from smtpguard.policy.freezing import Freeze, Selectable, stopped_by
from smtpguard.policy.stages import Stages
from smtpguard.policy.verdict import Mode, Quorum, Verdict
from smtpguard.reading.fingerprint import Identity


class Refused(Exception):
    """A step on a hold or a mailing is refused, and nothing changes. The text gives the reason to the caller."""


class NotEntitled(Refused):
    """The person may not do this to this hold."""


class Unconfirmed(Refused):
    """The number of people that the person gives is not how many the message reaches; or it reaches everybody at once,
    and the policy forbids that."""


class Conflict(Refused):
    """The hold or mailing has changed since the person looked: somebody else decided it, or it changed otherwise (HTTP
    409)."""


class NoAnswer(Conflict):
    """The client of the message has no 250 yet."""


class PolicyChanged(Conflict):
    """The message was shown under another policy."""


class State(enum.Enum):
    """The state of a hold."""

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
    """A step that changes the state of a hold."""

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
    # a person said that it was sent, or the relay's answer came after all
    (State.IN_DOUBT, Move.SETTLE): State.RELEASED,
    (State.IN_DOUBT, Move.FAIL): State.UNDELIVERED,
    (State.IN_DOUBT, Move.DOUBT): State.IN_DOUBT,
    (State.IN_DOUBT, Move.REJECT): State.REJECTED,
    (State.IN_DOUBT, Move.WITHDRAW): State.WITHDRAWN,
    (State.RELEASED, Move.SETTLE): State.RELEASED,  # another recipient's late answer
}
"""The state after a move; moves that are not here are impossible. Undelivered, granted, rejected, withdrawn and expired
are final; released and in doubt are final once nothing of the release is in the outbox any more. To reject, withdraw or
reopen what is approved revokes it, as far as it is not sent (sending.state_after_revocation)."""

LIVE = frozenset({State.WAITING, State.APPROVED, State.RELEASING})
"""The states in which a second message with the same content and envelope is taken as this hold."""
ENDED = frozenset({State.REJECTED, State.WITHDRAWN, State.EXPIRED})
"""The states after an end without a release."""
SENDING = frozenset({State.APPROVED, State.RELEASING, State.IN_DOUBT})
"""The states in which the release may be in the outbox. In doubt, it is there as long as people are asked."""

LET_GO = frozenset({State.APPROVED, State.RELEASING, State.RELEASED, State.UNDELIVERED, State.IN_DOUBT})
"""The states after an approval took effect, whatever the result of the release."""


def settles_as(settled: Settled) -> Move:
    """Return the move of a hold once all recipients of its release are settled."""
    return Move.SETTLE if settled.sent else Move.DOUBT if settled.doubted else Move.FAIL


def after(state: State, move: Move) -> State | None:
    """Return the state after a move, None if the move is impossible."""
    return TRANSITIONS.get((state, move))


class Choice(enum.Enum):
    """What a vote is for."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The vote of one approver. A vote counts only for the message that was voted on, and not after lists or rules were
    added to the hold.

    ``content_sha256``, ``envelope_sha256``: of the message that was voted on. ``seen``: the lists and rules then ("list
    NAME", "rule ID"). ``copies``: the number of copies whose differences were shown to the approver, and so approved.
    ``letters``: for a sender's letters that wait as one hold, how many more were listed to the approver, and so
    approved. ``people``: how many people the mailing may reach in all; 0: as many as its largest list has, or as were
    seen. ``held``: for how many people copies were stored then; None if an earlier version stored it."""

    approver: str  # canonical address
    choice: Choice
    content_sha256: str
    envelope_sha256: str
    at: datetime
    comment: str = ""
    seen: frozenset[str] = frozenset()
    people: int = 0
    held: int | None = None
    copies: int | None = None
    letters: int | None = None
    at_once: int = 0
    """The number of people that the approver confirmed the message reaches at once, if its list declares stages."""

    @classmethod
    def on(cls, hold: Hold, approver: str, choice: Choice, at: datetime, comment: str = "", people: int = 0) -> Vote:
        """Make a vote on a hold as it is now."""
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
    """The question to the writer whether to send the message.

    ``writer``: their canonical address. ``proof``: what proved the writer ("login", "listener", "origin"). ``until``:
    the time until which nobody else decides. ``expires``: whether the hold expires then; its ``expires_at`` is the
    same, except for holds of earlier versions. ``at``, ``people``: when the writer confirmed, and the number of people
    that they typed. ``lapsed_at``: the time since which others decide instead."""

    writer: str
    until: datetime
    proof: str = ""
    expires: bool = False
    at: datetime | None = None
    people: int = 0
    lapsed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One held message. The first held message of a mailing is its primary hold. Further copies are stored under it,
    and their lists, rules, writers and reach are added to it.

    ``sender``: who gets the notices, None for nobody. ``senders``: all addresses of its writer and sender.
    ``acknowledged``: the client was answered 250; until then nobody can release it. ``reach``: the number of people
    that it would have reached; ``reach_at_least``: or more, since the members of a list were unknown. ``part``:
    colleagues among the recipients, who are not in ``envelope``, got it at once (``scope: customers``). ``copies``: the
    number of copies under it; ``primary``: the id of the primary hold of a copy. ``reminded``: the number of reminders
    that were sent. ``attend_at``: when the sweep must look at it next.
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
    reminded: int = 0
    escalated: bool = False
    thread: str = ""
    attend_at: datetime | None = None
    primary: str = ""
    copies: int = 0
    identity: Identity | None = None
    told: tuple[str, ...] = ()
    """The writers of copies, who also get the notices of the outcome."""
    kind: str = ""
    """"test" if it was sent to be approved beforehand, and is never released itself; else ""."""
    versions: tuple[tuple[str, str], ...] = ()
    """The lists whose address is a recipient, each with the version of its index on arrival."""
    behind: Mapping[str, tuple[Person, ...]] = field(default_factory=dict)
    """The people behind the address of each recipient, those of the part too, as they were counted on arrival. The
    policy and its lists may be others when it is sent. Empty if an earlier version held it."""
    settled: Settled | None = None
    """The numbers of its recipients by outcome, once all are settled."""
    stopped_by: str = ""
    """The move that revoked its release when some had it or may have had it: reject, withdraw or reopen. The others
    count as failed, and copies under it are revoked with it."""
    asked_at: datetime | None = None
    """The time since which people are asked whether it was sent. A release to a list address that is in doubt is not
    repeated automatically."""
    held_up: bool = False
    """Whether a freeze stopped it when it was approved. Its writer then gets a notice when it is released."""
    reopened_at: datetime | None = None
    deliver_by: datetime | None = None
    """The date that the message itself names, at which it expires at the latest."""
    exact: str = ""
    """The digest of all that the message shows or links to (reading.shown); "" if an earlier version held it."""
    author: str = ""
    """The one address in its From; "" if there is not exactly one."""
    proofs: frozenset[str] = frozenset()
    """The proofs of its origin (mailings.model.Candidate)."""
    by_address: bool = False
    """Whether a recipient is a list address, or another address that expands. A decision is then on this message
    only."""
    letter_from: tuple[str, ...] = ()
    """The names of its sender, for a letter to customers and for a message that is held for the number of customers."""
    release_at: datetime | None = None
    """When the complete approval takes effect. Until then it waits, and the approval can be undone."""
    grant: Grant | None = None
    """The approval of its mailing that takes effect at ``release_at``."""
    undone: int = 0
    """How often people were asked anew, or an approval was undone before it took effect."""
    by_sender: bool = False
    """Whether it is held only for the number of people its sender writes to. More letters of that sender then wait with
    it, whatever their text."""
    confirm: Confirmation | None = None
    """The question to its writer, if the hold began as one or follows one that did."""
    answered: tuple[str, ...] = ()
    """The tags of the notices that were answered by a vote (holds.replying). Each can be used once, even if the vote
    was revoked."""
    correction: Correction | None = None
    """The people that the correction of a mailing goes to, and nobody else. It is approved beforehand."""

    @property
    def stopped(self) -> bool:
        """Whether its release was revoked when some had it or may have had it."""
        return bool(self.stopped_by)

    @property
    def shown_state(self) -> str:
        """The state that people see. It is also "leaving" while the approval can be undone, and "stopped" when the rest
        of the release was stopped."""
        if self.release_at is not None:
            return "leaving"
        return "stopped" if self.stopped and self.state in LET_GO else self.state.value

    def people_behind(self, recipients: Iterable[Recipient]) -> tuple[Person, ...]:
        """Return the people behind recipients, each once, as they were counted on arrival."""
        return each_once(person for one in recipients for person in self.behind.get(str(one.address), ()))

    @property
    def to_be_sent(self) -> bool:
        """Whether it is approved, and may still have to be sent."""
        return self.state in SENDING or self.release_at is not None

    @property
    def confirm_row(self) -> dict[str, Any] | None:
        """The JSON object of the question to its writer, None if none was asked."""
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
        """Whether its writer is still asked, and therefore nobody else."""
        return self.question is not None

    @property
    def confirmed(self) -> bool:
        """Whether it was released on its writer's confirmation alone, or with a hold that was."""
        at = self.confirm.at if self.confirm is not None else None
        return at is not None and (self.reopened_at is None or at > self.reopened_at)

    @property
    def until(self) -> datetime:
        """The time until which those who are asked now can decide, as notices name it."""
        return self.question.until if self.question is not None else self.expires_at

    @property
    def queue(self) -> str:
        """The name under which more of its sender's letters are stored under this hold; "" for other holds."""
        return self.letter_from[-1] if self.by_sender and self.letter_from and not self.primary else ""

    def moved(self, move: Move, **more: Any) -> Hold:
        """Return the hold after a move, which must be possible, with the fields of ``more`` changed."""
        state = after(self.state, move)
        assert state is not None, f"{self.state.value}: {move.value}"
        return replace(self, state=state, **more)

    def in_place_of(self, lead: Hold) -> Hold:
        """Return this copy with the lists, rules and writers of the primary hold whose place it takes."""
        versions = tuple(sorted({**dict(lead.versions), **dict(self.versions)}.items()))
        own = replace(self, told=self.told_with(lead), versions=versions)
        return replace(own, lists=lead.lists, senders=lead.senders, verdict=lead.verdict)

    def told_with(self, other: Hold) -> tuple[str, ...]:
        """Return who is told of this hold once it stands for the other too."""
        writers = dict.fromkeys((*self.told, other.sender, *other.told))
        return tuple(one for one in writers if one and one != self.sender)

    @property
    def reach_at_most(self) -> bool:
        """Whether ``reach`` may count people twice: as members of the list that it is addressed to, and as recipients
        of its copies."""
        return bool(self.copies and self.by_address) and not self.queue and not self.reach_at_least

    def in_next_turn(self, now: datetime) -> Hold:
        """Return the hold as people are asked anew from ``now`` on."""
        return replace(self, reopened_at=now, undone=self.undone + 1)

    @property
    def turn(self) -> str:
        """What the ids of its outbox entries have after its own: each approval has entries of its own. "" for the first. The
        time tells apart what earlier versions did not count."""
        at = f"-{self.reopened_at:%Y%m%dT%H%M%S}" if self.reopened_at is not None else ""
        return f"{at}-{self.undone}" if self.undone else at

    @property
    def waits_since(self) -> datetime:
        """The time since which people are asked."""
        return self.reopened_at or self.held_at

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of the rules that hold it."""
        return tuple(h.rule for h in self.verdict.hits if h.mode is Mode.ENFORCE)

    @property
    def scope(self) -> frozenset[str]:
        """The lists and rules that a vote is bound to, beside content and envelope; and the people of a correction."""
        bound = (f"set {self.correction.people}",) if self.correction is not None else ()
        return frozenset((*(f"list {n}" for n in self.lists), *(f"rule {r}" for r in self.rules), *bound))

    @property
    def scope_text(self) -> str:
        """The scope as a form has it."""
        return " ".join(sorted(self.scope))


def standing_votes(hold: Hold) -> tuple[Vote, ...]:
    """Return the votes that count: of each person the last, on exactly this content and envelope, and none of the
    writer's own."""
    last: dict[str, Vote] = {}
    for vote in hold.votes:
        bound = (vote.content_sha256, vote.envelope_sha256) == (hold.content_sha256, hold.envelope.sha256)
        bound = bound and (not vote.seen or vote.seen >= hold.scope)
        if bound and vote.approver not in hold.senders:
            last[vote.approver] = vote
    return tuple(last.values())


def have_voted(hold: Hold, groups: Groups) -> set[str]:
    """Return the people (Groups.person) whose votes count."""
    return {groups.person(vote.approver) for vote in standing_votes(hold)}


def entitled(hold: Hold, approver: str, groups: Groups, *, at: datetime, open_now: bool) -> bool:
    """Return whether ``approver`` may decide on a hold: in one of the quorum's groups, or as deputy of an absent
    member; and not as its writer under any address, nor as the writer's deputy."""
    asked = {g for quorum in hold.verdict.quorum for q in _quorums_at(quorum, open_now) for g in q.groups}
    return groups.decides(approver, asked, at, hold.senders)


def missing(hold: Hold, groups: Groups, open_at: Callable[[datetime], bool]) -> tuple[Quorum, ...]:
    """Return the quorums that are not complete yet. Every list's quorum counts by itself; within one, a person counts
    once.

    ``open_at`` says whether a time is in working hours. Votes given out of hours fill an ``out_of_hours`` quorum, and
    all votes the regular one. The vote of a person who has left the group does not count; an absent person and their
    deputy count as one.
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
    """Return the quorums that no votes can fill, because their groups have too few people beside the writer. ``at``:
    count only people who are present then."""

    def can_be(quorum: Quorum) -> bool:
        votes: dict[str, set[str]] = {}  # of each person, in which groups
        for g in quorum.groups:
            for who in groups.besides(g, hold.senders) if at is None else groups.present(g, at, hold.senders):
                votes.setdefault(groups.person(who), set()).add(g)
        return _filled(quorum, list(votes.values()))

    return tuple(
        quorum
        for quorum in hold.verdict.quorum
        if not can_be(quorum) and (quorum.out_of_hours is None or not can_be(quorum.out_of_hours))
    )


def complete(hold: Hold, groups: Groups, open_at: Callable[[datetime], bool]) -> bool:
    """Return whether the votes complete all quorums. A hold that names none is never complete: nobody was asked, so
    nobody has agreed."""
    return bool(hold.verdict.quorum) and not missing(hold, groups, open_at)


def _quorums_at(quorum: Quorum, open_now: bool) -> list[Quorum]:
    return [quorum] if open_now or quorum.out_of_hours is None else [quorum, quorum.out_of_hours]


def _filled(quorum: Quorum, votes: Sequence[Set[str]]) -> bool:
    """Return whether the votes fill a quorum. No group, or zero people from each, is never filled: then nobody has
    decided."""
    return bool(quorum.groups and quorum.each) and not seats_left(quorum, votes)


def seats_left(quorum: Quorum, votes: Sequence[Set[str]]) -> list[str]:
    """Return the group of each seat of a quorum that ``votes`` leave free if they take as many as they can. ``votes``:
    for each person, the groups for which it may count. This is bipartite matching by augmenting paths, over a handful
    of seats."""
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
    """What one commit writes of a hold: the new hold, events and intents.

    ``grant`` or ``rejection``: the decision on its whole mailing; ``stages``: the stages of that; ``at_once``: how many
    people it reaches at once although its list declares stages. ``cover``: the document of a template that ``grant``
    refers to. ``ungranted``: the id of the hold whose approval ends. ``cancelled``: digests of recipients who will not get it, though others have it.
    """

    hold: Hold | None = None
    grant: Grant | None = None
    rejection: Rejection | None = None
    stages: Stages | None = None
    at_once: int = 0
    ungranted: str = ""
    cover: str = ""
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
    """Make an event about a hold. ``actors``: the address that a person acts as, and the caller's login; ``named``:
    recipients that the event names."""
    addresses = tuple(str(one.address) for one in named)
    private = {"actor": actors, "comment": (comment,) if comment else (), "recipients": addresses}
    given = {role: values for role, values in private.items() if values}
    return Event(kind=kind, id=hold.hold_id, at=at, data=data, private=given)


def lead_data(hold: Hold) -> dict[str, Any]:
    """Return the data of an entry by which a copy becomes a primary hold. Figures need no other entry for it
    (incidents.activity)."""
    held_at, rules, lists = microseconds(hold.held_at), list(hold.rules), list(hold.lists)
    return {"leads": {"hold": hold.hold_id, "held_at": held_at, "rules": rules, "lists": lists}}


def with_lead_data(hold: Hold, made: Change) -> Change:
    """Return ``made`` with ``lead_data`` in its last event: by it, the copy ``hold`` becomes a primary hold."""
    *others, event = made.events
    return replace(made, events=(*others, replace(event, data={**event.data, **lead_data(hold)})))


def vote_on(hold: Hold, choice: str, at: datetime, *, actors: tuple[str, ...], comment: str) -> Event:
    """The envelope is that of the hold, whose verdict has keyed digests of its people: anybody could guess them by another digest."""
    return event_on(hold, Kind.VOTE, at, actors=actors, comment=comment, choice=choice, content=hold.content_sha256)


OnReleaseEnd = Callable[[Hold, str], tuple[tuple[Event, ...], tuple[Intent, ...]]]
"""A function that gets a hold whose release has ended, and the id of the release, and returns the events and notices of
that."""


def held_up_by(hold: Hold, freezes: Iterable[Freeze]) -> tuple[Freeze, ...]:
    """Return the freezes that stop a held message, whether it is approved or will be. A freeze of its lists does not
    stop a correction."""
    what = selectable(hold)
    return stopped_by(freezes, what if hold.correction is None else what._replace(lists=frozenset()))


def selectable(hold: Hold) -> Selectable:
    return Selectable(frozenset(hold.lists), hold.senders, hold.mailing_id, hold.thread)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldQuery:
    """A query for primary holds. A hold matches if it has one of ``states``; all ``words``, which are in lower case, in
    its id, subject or sender; all ``marks``, like "list:NAME", "rule:ID", "group:NAME" or "from:ADDRESS"; none of
    ``unmarked``; for one of ``seats``, if there are any, one of its first marks and none of its second; and was held
    from ``since`` on and before ``until``."""

    states: tuple[State, ...]
    words: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    unmarked: tuple[str, ...] = ()
    seats: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    since: datetime | None = None
    until: datetime | None = None


class Rank(NamedTuple):
    """The place of a hold in a list: holds for a preferred list come first, then many people, then little time left.
    ``later``: 0 for a preferred list, else 1. ``fewer``: the number of people, negative. ``expires_at``: in
    microseconds."""

    later: int
    fewer: int
    expires_at: int
    hold_id: str


HOLD = Codec(Hold)
