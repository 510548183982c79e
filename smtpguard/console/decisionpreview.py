"""Preview the decisions on a held message: who has decided, who still may, and what the next decision would do. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from smtpguard.accounts.model import Role
from smtpguard.console.services import Person
from smtpguard.guard.inforce import InForce
from smtpguard.holds.effects import AtOnce, at_once, bound
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
from smtpguard.notices.intents import approvers
from smtpguard.policy.verdict import Quorum

LARGE = 1000
"""From this number of people on, the approver types the number."""


def confirmed(typed: int | None, reach: int, people: int) -> int | None:
    """The number of people that was typed: at least those whom it waits for, and at most ``people``. None for any other
    number, and for none."""
    return typed if typed is not None and min(reach, people) <= typed <= people else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """So many of each of these groups; out of hours, of those in ``late``."""

    groups: tuple[tuple[int, str], ...]
    late: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """An approver who is away; ``deputy``: who decides for them, "" for nobody."""

    person: str
    until: date
    deputy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPreview:
    """``may``: whether this person may decide now; ``why_not``: own | voted | leaving | decided | role | group |
    writer. ``may_back``: whether they may revoke an approval, as far as it is not sent. ``may_undo``: whether they may
    undo one that has not taken effect. ``sends``: whether their approval sends it, and ``people``: how many it may then
    reach, further copies of its mailing included. ``at_once``: why it cannot be sent in stages, if its list declares
    some. ``left``: the incomplete quorums; ``needs``: what they need; ``then``: what they need after this person's
    approval; ``others``: who else may vote; ``away``: approvers who are away."""

    votes: tuple[Vote, ...]
    others: tuple[str, ...]
    left: tuple[Quorum, ...]
    needs: tuple[Need, ...]
    may: bool
    may_back: bool
    may_undo: bool
    why_not: str
    sends: bool
    people: int
    then: tuple[Need, ...]
    at_once: AtOnce | None = None
    away: tuple[Away, ...] = ()


def outlook(hold: Hold, who: Person, in_force: InForce, now: datetime) -> DecisionPreview:
    votes = standing_votes(hold)
    waiting = hold.state is State.WAITING
    mine, is_approver = in_force.addresses_of(who.address), Role.APPROVER in who.roles
    own, voted = bool(mine & hold.senders), [vote.choice for vote in votes if vote.approver in mine]
    asked = entitled(hold, who.address, in_force.groups, at=now, open_now=in_force.open_at(now))
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
    elif Choice.APPROVE in voted:
        why_not = "voted"
    else:
        why_not = "leaving" if hold.release_at is not None else ""
    approval = Vote(
        approver=who.address,
        choice=Choice.APPROVE,
        content_sha256=hold.content_sha256,
        envelope_sha256=hold.envelope.sha256,
        at=now,
    )
    after = replace(hold, votes=(*hold.votes, approval))
    needed = needs(hold, in_force) if waiting else ()
    groups = tuple(dict.fromkeys(group for need in needed for _, group in (*need.groups, *need.late)))
    return DecisionPreview(
        votes=votes,
        others=_others(hold, groups, votes, in_force, now) if waiting else (),
        left=missing(hold, in_force.groups, in_force.open_at) if waiting else (),
        needs=needed,
        may=not why_not,
        may_back=hold.state in LET_GO and not own and may_end,
        may_undo=waiting and hold.release_at is not None and (own or may_end),
        why_not=why_not,
        sends=complete(after, in_force.groups, in_force.open_at),
        people=_people(after, in_force),
        then=needs(after, in_force),
        at_once=at_once(hold, in_force) if waiting else None,
        away=_away(hold, groups, in_force, now),
    )


def _people(hold: Hold, in_force: InForce) -> int:
    if not hold.mailing_id or hold.identity is None:
        return hold.reach
    return bound(hold, [v for v in standing_votes(hold) if v.choice is Choice.APPROVE], in_force)


def _others(
    hold: Hold, groups: Sequence[str], votes: Sequence[Vote], in_force: InForce, now: datetime
) -> tuple[str, ...]:
    """People who may vote now, have not, and are in one of these groups."""
    voted = in_force.addresses_of(*(vote.approver for vote in votes))
    return tuple(
        a
        for a in approvers(hold, in_force, now)
        if a not in voted and not in_force.groups_of(a, now).isdisjoint(groups)
    )


def needs(hold: Hold, in_force: InForce) -> tuple[Need, ...]:
    """What each incomplete quorum still needs."""
    votes = [v for v in standing_votes(hold) if v.choice is Choice.APPROVE]
    late = {v.approver: v.at for v in votes if not in_force.open_at(v.at)}
    everybody = {v.approver: v.at for v in votes}
    return tuple(
        Need(
            groups=_short(quorum, everybody, hold, in_force),
            late=_short(quorum.out_of_hours, late, hold, in_force) if quorum.out_of_hours is not None else (),
        )
        for quorum in missing(hold, in_force.groups, in_force.open_at)
    )


def _short(quorum: Quorum, voted: Mapping[str, datetime], hold: Hold, in_force: InForce) -> tuple[tuple[int, str], ...]:
    """How many votes each group still needs."""
    free = Counter(seats_left(quorum, in_force.groups.votes(voted, quorum.groups, hold.senders)))
    return tuple((free[group], group) for group in quorum.groups if free[group])


def _away(hold: Hold, groups: Sequence[str], in_force: InForce, now: datetime) -> tuple[Away, ...]:
    """People of these groups who are away."""
    people = sorted(frozenset().union(*(in_force.groups.besides(group, hold.senders) for group in groups)))
    return tuple(
        Away(person=one, until=absence.until, deputy=in_force.groups.deputy(one, now, groups, hold.senders))
        for one in people
        if (absence := in_force.groups.away(one, now)) is not None
    )
