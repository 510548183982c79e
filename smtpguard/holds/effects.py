"""Who may decide on a held message, and the effects of a decision on its mailing: on the copies under it, and on later
ones. Pure.

An approval is bound to the text (its sketch), the lists, the rules that hit, a number of people and a time. A rejection
is bound to a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from smtpguard.guard.inforce import InForce
from smtpguard.holds.deadlines import Deadlines, is_over
from smtpguard.holds.model import (
    ENDED,
    LET_GO,
    Change,
    Choice,
    Conflict,
    Hold,
    Move,
    NoAnswer,
    NotEntitled,
    PolicyChanged,
    State,
    Vote,
    entitled,
    standing_votes,
)
from smtpguard.journal.event import Event, Kind
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mailings.model import ApprovedContent, Grant, Mailing, Rejection
from smtpguard.mailings.slotlearning import learn
from smtpguard.mailings.slots import Template
from smtpguard.outbox.model import Intent, IntentKind
from smtpguard.policy.rule import RETURNS
from smtpguard.policy.stages import Stages
from smtpguard.reading.shown import Shown

SENT = "mailing.sent"
"""The fact of a rule that counts the copies of a mailing."""
MOST_LETTERS = 500
"""The most letters of one sender in one hold that are listed, and so decided on at once."""
MOST_WRITERS = 50
"""The most writers of copies of one mailing that an approval covers."""
FEW = 20
"""The most people whom a message reaches that is released without delay."""
TEST = "test"
"""The kind of a hold that was sent to be approved beforehand."""
OTHER_SCOPE = "a copy for another list, or under another rule, has come since it was shown"
"""Why an approval of what was shown is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The message as the caller saw it before the decision. ``scope``: its lists and rules (Hold.scope), None if they
    are not compared. ``policy_sha256``: None if the policy is not compared. ``under``: how many of the messages that
    wait under it the caller had seen, None for all that wait now."""

    content_sha256: str
    envelope_sha256: str
    scope: frozenset[str] | None = None
    policy_sha256: str | None = None
    under: int | None = None

    @classmethod
    def of(cls, hold: Hold) -> Seen:
        return cls(content_sha256=hold.content_sha256, envelope_sha256=hold.envelope.sha256, scope=hold.scope)

    def is_of(self, hold: Hold) -> bool:
        return (self.content_sha256, self.envelope_sha256) == (hold.content_sha256, hold.envelope.sha256)

    def has_scope_of(self, hold: Hold) -> bool:
        """Return whether no copy has added a list or a rule to a hold since."""
        return self.scope is None or self.scope >= hold.scope


def canonical(address: str, in_force: InForce) -> str:
    """Return the canonical form of a person's address. Raises NotEntitled for an invalid one."""
    try:
        return Address.parse(address).canonical(in_force.registry.digester.delimiters)
    except BadAddress:
        raise NotEntitled(f"invalid address {address!r}") from None


def decided_by(hold: Hold) -> str:
    """Return the end of an error for a later caller: who voted last, "" if nobody did."""
    last = max(standing_votes(hold), key=lambda vote: vote.at, default=None)
    if last is None:
        return ""
    return f", {'approved' if last.choice is Choice.APPROVE else 'rejected'} by {last.approver}"


def check_answered(hold: Hold) -> None:
    """Raise NoAnswer while the client of a hold has no 250. It may never get one, and then still has the message."""
    if not hold.acknowledged:
        raise NoAnswer("its client has had no answer yet, and may have to send it again")


def check_asks(hold: Hold, in_force: InForce, now: datetime) -> None:
    """Raise Conflict if the writer is not asked, or may not confirm the message alone by the policy in force."""
    if hold.state is not State.WAITING:
        raise Conflict(f"it is already {hold.state.value}{decided_by(hold)}")
    asked = hold.question
    if asked is None or (is_over(hold, now) if asked.expires else now >= asked.until):
        raise Conflict("its writer is not asked: the approvers decide on it")
    check_answered(hold)
    if in_force.of_special_category(hold.lists):
        raise Conflict("its writer alone cannot release it")


def check_may_vote(
    hold: Hold, hold_id: str, who: str, choice: Choice, seen: Seen | None, in_force: InForce, now: datetime
) -> None:
    """Raise Conflict or NotEntitled if ``who`` may not give this vote. ``hold_id``: the hold that the caller named, of
    which ``hold`` may be the primary."""
    if seen is not None and hold.hold_id == hold_id and not seen.is_of(hold):
        raise Conflict("it has changed since it was shown")
    if seen is not None and choice is Choice.APPROVE and not seen.has_scope_of(hold):
        raise Conflict(OTHER_SCOPE)
    if seen is not None and seen.policy_sha256 not in (None, in_force.sha256):
        raise PolicyChanged("the policy has changed since it was shown")
    mine = check_decides(hold, who, in_force, now, instead=": its writer withdraws it" * (choice is Choice.REJECT))
    if any(v.approver in mine and v.choice is choice for v in standing_votes(hold)):
        raise Conflict(f"{who} has already given this vote")


def check_decides(hold: Hold, who: str, in_force: InForce, now: datetime, *, instead: str = "") -> frozenset[str]:
    """Return all addresses of ``who``. Raises NotEntitled if they may not decide on the hold: only approvers of the
    quorum may, and who approved it. ``instead``: what its writer can do, for the error."""
    mine = in_force.addresses_of(who)
    if mine & hold.senders:
        raise NotEntitled(f"{who} wrote it, and no one decides on their own message{instead}")
    approved = hold.to_be_sent and any(v.approver in mine for v in standing_votes(hold))
    if not approved and not entitled(hold, who, in_force.groups, at=now, open_now=in_force.hours.open_at(now)):
        raise NotEntitled(f"{who} is not an approver of it")
    return mine


def grant(hold: Hold, in_force: InForce, now: datetime, term: Deadlines, learned: Learned) -> Grant | None:
    """Return the approval that the votes on a hold give to its mailing. Returns None if it is in no mailing, or is one
    of a sender's letters that wait as one hold: later letters are held anew. ``learned``: the slots of its copies. If its
    writer confirmed it, the approval is for this writer."""
    if not hold.mailing_id or hold.identity is None or hold.queue:
        return None
    writer = hold.confirm.writer if hold.confirm is not None and hold.confirmed else ""
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    return Grant(
        hold_id=hold.hold_id,
        approved=hold.identity,
        lists=frozenset(hold.lists),
        rules=frozenset(hold.rules),
        people=people_bound(hold, votes, in_force),
        since=now,
        until=now + timedelta(seconds=term.approval_seconds),
        by=(writer,) if writer else tuple(sorted(v.approver for v in votes)),
        beforehand=hold.kind == TEST,
        said=any(v.people for v in votes),
        cover=approved_content(hold, learned),
        by_writer=bool(writer),
        only=hold.correction.people if hold.correction is not None else "",
        waits=_looked_at(hold, votes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The slots that were learned from copies. ``copies``: the number of those copies. ``letters``: for a sender's
    letters that wait as one hold, how many more are listed. ``template``: None if copies are not covered. ``also``: the
    other writers of copies, each with its proofs."""

    copies: int | None = None
    letters: int | None = None
    template: Template | None = None
    also: tuple[tuple[str, frozenset[str]], ...] = ()

    def document(self, grant: Grant | None) -> str:
        """Return the document of the template if the approval covers copies by it, else ""."""
        covers = grant is not None and grant.cover is not None and bool(grant.cover.learned)
        return self.template.dumps() if covers and self.template is not None else ""


NOTHING_LEARNED = Learned()


def learned(rows: Sequence[tuple[Shown | None, str, frozenset[str]]], share: float) -> Learned:
    """Learn the slots of copies. ``rows``: for the hold, and then for each copy: what it shows, its author, and that
    author's proofs. ``share``: how many of the words may be slots (``mailings.slots`` of the policy)."""
    (first, author, proofs), *copies = rows
    if first is None or first.opaque:
        return Learned(copies=len(copies))
    also = dict.fromkeys((who, proof) for _, who, proof in copies if who and (who, proof) != (author, proofs))
    template = learn(first, [shown for shown, *_ in copies if shown is not None], share)
    return Learned(copies=len(copies), template=template, also=tuple(also)[:MOST_WRITERS])


def learned_from_tests(own: Shown | None, others: Sequence[Shown], share: float) -> Learned:
    """Learn the slots of a test that is approved beforehand, together with the versions of its mailing that were
    approved before it. What it lets differ by itself is in ``alone``."""
    if own is None or own.opaque:
        return Learned(copies=0)
    alone, alike = learn(own, (), share), [other for other in others if other.files == own.files]
    if not alike:
        return Learned(copies=0, template=alone)
    return Learned(copies=len(alike), template=replace(learn(own, alike, share), alone=alone))


def covers_copies(hold: Hold) -> bool:
    """Return whether the approval of a hold covers copies. An approval of a message to a list address covers nothing
    else."""
    return bool(hold.exact) and not hold.queue and (not hold.by_address or hold.kind == TEST)


def approved_content(hold: Hold, learned: Learned) -> ApprovedContent:
    """Return the content that the approval of a hold covers."""
    template = learned.template if covers_copies(hold) else None
    return ApprovedContent(
        content=hold.content_sha256,
        exact=hold.exact,
        author=hold.author,
        proofs=hold.proofs,
        learned=template.name if template is not None else "",
        also=learned.also if template is not None else (),
    )


def least_people(hold: Hold, in_force: InForce, mailing: Mailing | None) -> tuple[int, int]:
    """Return the least number of people that a vote may be for, and how many of them have it, or are to get it. They, and
    those who wait, get it by any approval; beside an approval for other lists only the latter count. A vote may be for as
    few as an earlier one. A test goes to nobody."""
    if hold.kind == TEST:
        return 0, 0
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    beside = mailing is None or hold.queue or any(not grant.lists <= set(hold.lists) for grant in mailing.grants)
    out, waiting = 0, hold.reach
    if mailing is not None and not beside:
        out, waiting = mailing.out + mailing.agreed, min(waiting, mailing.people.held - mailing.agreed)
    return min(out + waiting, people_bound(hold, votes, in_force)), out


def check_people(hold: Hold, people: int, in_force: InForce, mailing: Mailing | None) -> None:
    """Raise Conflict if a vote is for too few people; 0 for no number."""
    least, out = least_people(hold, in_force, mailing)
    if people and people < least:
        had = f", with the {out:,} who have it or are to get it" if out else ""
        raise Conflict(f"it goes to {least:,} people{had}, and cannot be approved for fewer")


def _looked_at(hold: Hold, votes: Sequence[Vote]) -> int:
    """Return for how many people copies were stored at the vote that gave the lowest number, or without a number at the
    last."""
    lowest = min((v for v in votes if v.people), key=lambda v: (v.people, v.at), default=None)
    bounding = lowest or max(votes, key=lambda v: v.at, default=None)
    return hold.reach if bounding is None or bounding.held is None else bounding.held


def grown(hold: Hold, in_force: InForce) -> Hold | None:
    """Return a post to a list's address as people are to look at it again, without votes, if it reaches a list by now
    that it is not held for, as when that list's address is a member, or a tenth more people, and more than ``FEW``."""
    if not hold.by_address or hold.kind == TEST:
        return None
    found = in_force.registry.classify(hold.envelope.addresses)
    lists, people = tuple(sorted({*hold.lists, *found.lists})), int(found.reach.low)
    more = not hold.reach_at_least and people > hold.reach + max(FEW, hold.reach // 10)
    if not more and len(lists) == len(hold.lists):
        return None
    quorum = in_force.rules.quorum(lists, hold.verdict.quorum)
    verdict = replace(hold.verdict, quorum=quorum)
    return replace(hold, lists=lists, reach=max(people, hold.reach), votes=(), verdict=verdict)


def has_grown(hold: Hold) -> Conflict:
    """Return the error for who decided on a post that is to be looked at again."""
    lists = ", ".join(hold.lists)
    return Conflict(
        f"it reaches {hold.reach:,} people by now ({lists}): its list has grown, or has come to reach another, since it was held"
    )


def people_bound(hold: Hold, votes: Sequence[Vote], in_force: InForce) -> int:
    """Return how many people a mailing may reach in all: the least that a vote allows. If no vote says so, as many as
    its largest list has, or as were seen; for a single message without earlier copies, only the people seen."""
    if hold.correction is not None:
        return hold.correction.reach
    several = (
        (hold.copies > 0 and not hold.queue)
        or hold.kind == TEST
        or any(r.fact == SENT for h in hold.verdict.hits for r in h.reasons)
    )
    usual = max(hold.reach, _largest(hold, in_force) if several else 0)
    return min((v.people or usual for v in votes), default=usual)


def _largest(hold: Hold, in_force: InForce) -> int:
    """Return the number of people on the largest list of a hold. Lists that only returns of it would go to do not
    count."""
    reasons = (r for h in hold.verdict.hits if h.rule == RETURNS for r in h.reasons)
    returned_to = {name for reason in reasons for name in reason.observed.split(", ")}
    if returned_to:
        returned_to -= in_force.registry.classify(hold.envelope.addresses).lists
    found = (in_force.registry.statuses.get(name) for name in hold.lists if name not in returned_to)
    return max((one.index.people for one in found if one is not None and one.index is not None), default=0)


def delay(hold: Hold, people: int, in_force: InForce, term: Deadlines) -> timedelta:
    """Return how long the approval of a hold can be undone before it takes effect: the longest delay of its lists. A
    test is not released, and a message that reaches few has no delay. ``people``: how many it may reach by that
    approval."""
    if hold.kind == TEST or (max(hold.reach, people) <= FEW and not hold.reach_at_least):
        return timedelta()
    usual = term.release_delay_seconds
    own = [in_force.lists[name].release_delay if name in in_force.lists else None for name in hold.lists]
    return timedelta(seconds=max((usual if each is None else each for each in own), default=usual))


def rejection(hold: Hold, sentence: str, now: datetime, term: Deadlines) -> Rejection | None:
    if not hold.mailing_id or hold.identity is None or hold.kind == TEST:
        return None
    until = now + timedelta(seconds=term.rejection_seconds)
    only = hold.exact if hold.by_address else ""
    return Rejection(hold_id=hold.hold_id, sentence=sentence, until=until, senders=hold.senders, only=only)


def stages(hold: Hold, in_force: InForce) -> Stages | None:
    """Return the stages of the lists of a hold; of several, those that begin with the fewest people. Returns None if it
    is sent all at once: to a list's address, as a correction, or as letters of one sender, whose approval is for no
    mailing."""
    if not hold.mailing_id or hold.queue or hold.correction is not None or at_once(hold, in_force) is not None:
        return None
    return _declared(hold, in_force)


def _declared(hold: Hold, in_force: InForce) -> Stages | None:
    return min(in_force.staged(hold.lists).values(), key=lambda s: (s.steps[0] < 1, s.steps[0]), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtOnce:
    """A held message for ``lists`` that declare ``stages``, which cannot be sent in stages: it, or a copy under it,
    goes to an address that the relay expands. ``people``: how many it reaches; ``more``: or more. ``refused``: the
    policy forbids its approval."""

    lists: tuple[str, ...]
    stages: Stages
    people: int
    more: bool
    refused: bool

    @property
    def row(self) -> dict[str, Any]:
        """The JSON object of it."""
        return {"lists": list(self.lists), "people": self.people, "at_least": self.more, "may": not self.refused}

    def is_confirmed(self, people: int | None) -> bool:
        """Return whether somebody may approve it who says that it reaches ``people`` at once."""
        return not self.refused and people == self.people

    @property
    def sentence(self) -> str:
        """The reason why it cannot be approved without further confirmation."""
        names = ", ".join(self.lists)
        if self.refused:
            return f"it cannot be approved: mail to {names} is sent in stages, and mail to a list's address reaches everyone at once. Send it as single copies"
        least = "at least " if self.more else ""
        return f"it cannot be sent in stages, as mail to {names} is: it goes to a list's address, and so to {least}{self.people:,} people at once. Give that number to approve it"


def at_once(hold: Hold, in_force: InForce) -> AtOnce | None:
    """Return how a held message reaches everybody at once. Returns None if no stages are declared, or it can be sent in
    them."""
    declared = _declared(hold, in_force)
    if declared is None or hold.kind == TEST:
        return None
    if not hold.versions and not in_force.registry.classify(hold.envelope.addresses).list_addresses.high:
        return None
    lists = tuple(in_force.staged(hold.lists))
    refused = any(in_force.lists[name].stages_by_address == "refuse" for name in lists)
    return AtOnce(lists=lists, stages=declared, people=hold.reach, more=hold.reach_at_least, refused=refused)


def change_of_follower(lead: Hold, copy: Hold, mailing: Mailing | None, new: int, now: datetime) -> Change | None:
    """Return the change of a copy that follows its primary hold, None for nothing yet. The primary already had all
    lists and rules of the copy when people decided. An approved copy is sent only when the stages have room. ``new``:
    how many new people the copy would reach."""
    if lead.state in ENDED:
        event = Event(kind=Kind(lead.state.value), id=copy.hold_id, at=now, data={"with": lead.hold_id})
        return Change(hold=replace(copy, state=lead.state), events=(event,))
    if lead.state not in LET_GO:
        return None
    if not lead.queue:
        if mailing is None or mailing.grant is None:
            return None
        if mailing.progress is not None and new and not mailing.progress.fits(mailing.out, new):
            return None
    asked = lead.confirm
    if asked is not None and not lead.confirmed:  # if it was confirmed and reopened, others have decided since
        asked = replace(asked, at=None, people=0, lapsed_at=asked.lapsed_at or lead.reopened_at)
    kind = Kind.CONFIRMED if lead.confirmed else Kind.APPROVED
    event = Event(kind=kind, id=copy.hold_id, at=now, data={"with": lead.hold_id})
    return Change(hold=copy.moved(Move.APPROVE, confirm=asked), events=(event,), intents=(release(copy),))


def release(hold: Hold) -> Intent:
    """Return the outbox entry of the release of a hold, to exactly the recipients of its envelope. The release after a
    second approval has another id, so that a worker still busy with the first does not mistake it for that."""
    return Intent(
        intent_id=f"{hold.hold_id}{hold.turn}-release",
        kind=IntentKind.RELEASE,
        reverse_path=hold.envelope.reverse_path,
        recipients=hold.envelope.recipients,
        hold_id=hold.hold_id,
        content_sha256=hold.content_sha256,
    )
