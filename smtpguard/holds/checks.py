"""Who may decide on a hold, and whether it is as they saw it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from smtpguard.guard.inforce import InForce
from smtpguard.holds.model import SENDING, Choice, Conflict, Hold, NotEntitled, State, entitled, standing_votes
from smtpguard.mail.address import Address, BadAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The message as the caller saw it before the decision. ``policy_sha256`` None: not compared."""

    content_sha256: str
    envelope_sha256: str
    policy_sha256: str | None = None
    under: int | None = None
    """How many of the messages that wait under it the caller had seen; None: all that wait now."""

    @classmethod
    def of(cls, hold: Hold) -> Seen:
        return cls(content_sha256=hold.content_sha256, envelope_sha256=hold.envelope.sha256)


def canonical(address: str, in_force: InForce) -> str:
    """Raises NotEntitled."""
    try:
        return Address.parse(address).canonical(in_force.registry.digester.delimiters)
    except BadAddress:
        raise NotEntitled(f"invalid address {address!r}") from None


def decided_by(hold: Hold) -> str:
    """The last approver, for the error of a later caller."""
    last = max(standing_votes(hold), key=lambda vote: vote.at, default=None)
    if last is None:
        return ""
    return f", {'approved' if last.choice is Choice.APPROVE else 'rejected'} by {last.approver}"


def check_asks(hold: Hold, in_force: InForce, now: datetime) -> None:
    """Raises Conflict if its writer is not asked, or may not confirm it alone by the policy in force."""
    if hold.state is not State.WAITING:
        raise Conflict(f"it is already {hold.state.value}{decided_by(hold)}")
    if hold.confirm is None or not hold.asks_writer or now >= min(hold.confirm.until, hold.expires_at):
        raise Conflict("its writer is not asked: the approvers decide on it")
    if in_force.of_special_category(hold.lists):
        raise Conflict("its writer alone cannot release it")


def check_may_vote(
    hold: Hold, hold_id: str, who: str, choice: Choice, seen: Seen | None, in_force: InForce, now: datetime
) -> None:
    """Raises Conflict or NotEntitled."""
    bound = seen is None or (seen.content_sha256, seen.envelope_sha256) == (hold.content_sha256, hold.envelope.sha256)
    if seen is not None and (
        seen.policy_sha256 not in (None, in_force.policy_sha256) or (hold.hold_id == hold_id and not bound)
    ):
        raise Conflict("it has changed since it was shown")
    mine = check_decides(hold, who, in_force, now, instead=": its writer withdraws it" * (choice is Choice.REJECT))
    if any(v.approver in mine and v.choice is choice for v in standing_votes(hold)):
        raise Conflict(f"{who} has already given this vote")


def check_decides(hold: Hold, who: str, in_force: InForce, now: datetime, *, instead: str = "") -> frozenset[str]:
    """All addresses of ``who``, if they may decide on it: an approver of the quorum, or one who approved it. Raises
    NotEntitled. ``instead``: what its writer can do."""
    mine = in_force.addresses_of(who)
    if mine & hold.senders:
        raise NotEntitled(f"{who} wrote it, and no one decides on their own message{instead}")
    approved = (hold.state in SENDING or hold.release_at is not None) and any(
        v.approver in mine for v in standing_votes(hold)
    )
    if not approved and not entitled(hold, who, in_force.groups, at=now, open_now=in_force.open_at(now)):
        raise NotEntitled(f"{who} is not an approver of it")
    return mine
