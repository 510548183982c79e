"""The decisions on a held message: who has decided, who still may, and what the next decision would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from smtpguard.accounts.model import Role
from smtpguard.console.services import ConsoleServices, Person
from smtpguard.guard.inforce import InForce
from smtpguard.holds.effects import AtOnce, at_once, people_bound
from smtpguard.holds.model import (
    LET_GO,
    Choice,
    Hold,
    State,
    Vote,
    complete,
    entitled,
    missing,
    seats_left,
    standing_votes,
)
from smtpguard.notices.noticedata import approvers
from smtpguard.policy.verdict import Quorum

LARGE = 1000
"""From this number of people on, the approver types the number."""


def accepted_number(typed: int | None, reach: int, people: int) -> int | None:
    """Return the typed number of people if it lies between the hold's own reach and ``people``, else None."""
    return typed if typed is not None and min(reach, people) <= typed <= people else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The votes that a quorum still needs: (number, group) each. ``late``: the votes that it needs out of hours instead."""

    groups: tuple[tuple[int, str], ...]
    late: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """An approver who is away; ``deputy``: who decides for them, "" for nobody."""

    person: str
    until: date
    deputy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPreview:
    """What one person can do about a hold, and what comes of it.

    ``may``: whether this person may decide now; ``why_not``: own | voted | leaving | over | decided | role | group |
    writer. ``may_revoke``: whether they may revoke an approval, as far as it is not sent. ``may_undo``: whether they may
    undo one that has not taken effect. ``sends``: whether their approval sends it, and ``people``: how many it may then
    reach, further copies of its mailing included. ``at_once``: why it cannot be sent in stages, if its list declares
    some. ``left``: the incomplete quorums; ``needs``: what they need; ``then``: what they need after this person's
    approval; ``others``: who else may vote; ``away``: approvers who are away; ``together``: voters who have one vote
    together, one of them as deputy; ``idle``: voters whose approval does not count now.
    """

    votes: tuple[Vote, ...]
    others: tuple[str, ...]
    left: tuple[Quorum, ...]
    needs: tuple[Need, ...]
    may_revoke: bool
    may_undo: bool
    why_not: str
    sends: bool
    people: int
    then: tuple[Need, ...]
    at_once: AtOnce | None = None
    away: tuple[Away, ...]
    together: tuple[tuple[str, ...], ...]
    idle: frozenset[str]

    @property
    def may(self) -> bool:
        return not self.why_not


def preview_now(here: ConsoleServices, hold: Hold, who: Person) -> DecisionPreview:
    return preview(hold, who, here.in_force, here.clock.now(), over=here.approvals.is_over(hold))


def preview(hold: Hold, who: Person, in_force: InForce, now: datetime, *, over: bool) -> DecisionPreview:
    """Return what ``who`` can do about the hold. ``over``: whether its time is over (Approvals.is_over)."""
    votes = standing_votes(hold)
    waiting = hold.state is State.WAITING
    mine, is_approver = in_force.addresses_of(who.address), Role.APPROVER in who.roles
    own, voted = bool(mine & hold.senders), [vote.choice for vote in votes if vote.approver in mine]
    asked = entitled(hold, who.address, in_force.groups, at=now, open_now=in_force.hours.open_at(now))
    may_end = is_approver and (bool(voted) or asked)
    if not waiting:
        why_not = "decided"
    elif own:
        why_not = "own"
    elif not is_approver:
        why_not = "role"
    elif not asked:
        why_not = "group"
    elif hold.asks_writer:
        why_not = "writer"
    elif hold.release_at is not None:
        why_not = "leaving"
    elif over:  # until the next sweep
        why_not = "over"
    else:
        why_not = "voted" if Choice.APPROVE in voted else ""
    approval = Vote(
        approver=who.address,
        choice=Choice.APPROVE,
        content_sha256=hold.content_sha256,
        envelope_sha256=hold.envelope.sha256,
        at=now,
    )
    after = replace(hold, votes=(*hold.votes, approval))
    approved = {vote.approver: vote.at for vote in votes if vote.choice is Choice.APPROVE}
    quorums = (q for quorum in hold.verdict.quorum for q in (quorum, quorum.out_of_hours) if q is not None)
    asking = sorted({group for quorum in quorums for group in quorum.groups})
    needed = needs(hold, in_force) if waiting else ()
    groups = tuple(dict.fromkeys(group for need in needed for _, group in (*need.groups, *need.late)))
    return DecisionPreview(
        votes=votes,
        others=_others(hold, groups, votes, in_force, now) if waiting else (),
        left=missing(hold, in_force.groups, in_force.hours.open_at) if waiting else (),
        needs=needed,
        may_revoke=hold.state in LET_GO and not own and may_end,
        may_undo=waiting and hold.release_at is not None and (own or may_end),
        why_not=why_not,
        sends=complete(after, in_force.groups, in_force.hours.open_at),
        people=_people(after, in_force),
        then=needs(after, in_force),
        at_once=at_once(hold, in_force) if waiting else None,
        away=_away(hold, groups, in_force, now),
        together=in_force.groups.together(approved, asking, hold.senders) if waiting else (),
        idle=frozenset(
            who
            for who, at in approved.items()
            if waiting and not any(in_force.groups.votes({who: at}, asking, hold.senders))
        ),
    )


def _people(hold: Hold, in_force: InForce) -> int:
    if not hold.mailing_id or hold.identity is None:
        return hold.reach
    return people_bound(hold, [v for v in standing_votes(hold) if v.choice is Choice.APPROVE], in_force)


def _others(
    hold: Hold, groups: Sequence[str], votes: Sequence[Vote], in_force: InForce, now: datetime
) -> tuple[str, ...]:
    """Return the people of these groups who may vote now and have not."""
    voted = in_force.addresses_of(*(vote.approver for vote in votes))
    return tuple(
        a
        for a in approvers(hold, in_force, now)
        if a not in voted and not in_force.groups.of_person(a, now).isdisjoint(groups)
    )


def needs(hold: Hold, in_force: InForce) -> tuple[Need, ...]:
    """Return what each incomplete quorum still needs."""
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    late = {v.approver: v.at for v in votes if not in_force.hours.open_at(v.at)}
    everybody = {v.approver: v.at for v in votes}
    return tuple(
        Need(
            groups=_missing_votes(quorum, everybody, hold, in_force),
            late=_missing_votes(quorum.out_of_hours, late, hold, in_force) if quorum.out_of_hours is not None else (),
        )
        for quorum in missing(hold, in_force.groups, in_force.hours.open_at)
    )


def _missing_votes(
    quorum: Quorum, voted: Mapping[str, datetime], hold: Hold, in_force: InForce
) -> tuple[tuple[int, str], ...]:
    """Return how many votes each group still needs, as (number, group)."""
    free = Counter(seats_left(quorum, in_force.groups.votes(voted, quorum.groups, hold.senders)))
    return tuple((free[group], group) for group in quorum.groups if free[group])


def _away(hold: Hold, groups: Sequence[str], in_force: InForce, now: datetime) -> tuple[Away, ...]:
    """Return the people of these groups who are away."""
    people = sorted(frozenset().union(*(in_force.groups.besides(group, hold.senders) for group in groups)))
    return tuple(
        Away(person=one, until=absence.until, deputy=in_force.groups.deputy(one, now, groups, hold.senders))
        for one in people
        if (absence := in_force.groups.away(one, now)) is not None
    )
