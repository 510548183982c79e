"""How much of an approved message is sent, and the state of its hold when the approval is revoked. Pure.

The store counts this from the outbox, in the transaction that decides on it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from smtpguard.holds.model import SENDING, Hold, Move, State, after, settles_as
from smtpguard.journal.deliverystatus import DeliveryStatus
from smtpguard.mail.envelope import Recipient
from smtpguard.outbox.model import NONE_YET, Settled


class ReleaseProgress(enum.Enum):
    """How much of a release is sent, in one word."""

    NOTHING = "nothing"  # nobody has it or may have it
    DOUBT = "doubt"  # nobody certainly has it, and somebody may
    PART = "part"  # somebody has it; others are to be tried or in doubt
    ALL = "all"  # all recipients have a final result


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """The state of one hold's release. ``under_way``: a worker has leased it, or the end of an attempt is not known.
    ``settled``: the numbers of recipients with a final result. ``doubtful``: those who may have it, with an
    answer possible. ``left``: those who certainly do not have it, and are to be tried."""

    under_way: bool = False
    settled: Settled = NONE_YET
    doubtful: tuple[Recipient, ...] = ()
    left: tuple[Recipient, ...] = ()

    @property
    def doubt(self) -> int:
        return len(self.doubtful)

    @property
    def row(self) -> dict[str, Any]:
        """The JSON object of it, in numbers of recipients."""
        doubt = self.settled.doubted + self.doubt
        return {"under_way": self.under_way, "has": self.settled.sent, "in_doubt": doubt, "left": len(self.left)}

    @property
    def out(self) -> ReleaseProgress:
        if not self.left and not self.doubt:
            return ReleaseProgress.ALL
        if self.settled.sent:
            return ReleaseProgress.PART
        return ReleaseProgress.DOUBT if self.settled.doubted or self.doubt else ReleaseProgress.NOTHING

    def may_have(self, hold: Hold) -> int:
        """Return how many people may have it without a known result. Of what an earlier version held, only the recipients are known."""
        return sum(one.weight for one in hold.people_behind(self.doubtful)) or self.doubt

    @property
    def stopped(self) -> Settled:
        """The numbers of recipients by outcome if no further attempt is made."""
        return self.settled + Settled(failed=len(self.left), doubted=self.doubt)


def settled_of(status: DeliveryStatus, n: int = 1) -> Settled:
    match status:
        case DeliveryStatus.DELIVERED:
            return Settled(sent=n)
        case DeliveryStatus.ATTEMPTED:
            return Settled(doubted=n)
        case _:
            return Settled(failed=n)


UNSENT = Sending()
"""The state of a release that does not exist."""


def state_after_revocation(state: State, move: Move, sending: Sending) -> State | None:
    """Return the state of a hold after it is rejected, withdrawn or reopened, None if nothing can be revoked. An entry that a worker has leased
    and not begun to send is revoked with the rest, as is an attempt that certainly failed. If somebody has it, or may
    have it since an attempt has begun, it was released, or is in doubt, and the rest is not sent."""
    if state not in SENDING:
        return None
    match sending.out:
        case ReleaseProgress.NOTHING:
            return after(state, move)
        case ReleaseProgress.PART | ReleaseProgress.DOUBT:
            return after(state, settles_as(sending.stopped))
        case _:
            return None


def after_late_outcome(state: State, move: str, settled: Settled) -> State | None:
    """Return the state of a hold that was revoked by ``move`` while somebody may have had it, once the last answer is
    known, or will not come. Returns None if the state does not change."""
    if settled.sent or settled.doubted:
        return after(state, settles_as(settled))
    return after(state, {Move.REJECT.value: Move.REJECT, Move.WITHDRAW.value: Move.WITHDRAW}.get(move, Move.FAIL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """How much of an approval is sent, for a hold and the copies under it. ``own``: the release of the hold itself,
    None if it is not in the outbox. The rest are numbers of messages, the hold among them. ``back``: can be revoked as
    a whole. ``doubt``: nobody certainly has it and somebody may. ``going``: being sent now. ``gone``: somebody has
    it."""

    own: Sending | None = None
    back: int = 0
    going: int = 0
    doubt: int = 0
    gone: int = 0

    @property
    def stoppable(self) -> bool:
        """Whether anything of it can be revoked, or kept from a further attempt."""
        return bool(self.back or self.doubt) or (self.own is not None and self.own.out is ReleaseProgress.PART)


NOTHING = Outgoing()
