"""How much of an approved message is sent: who has it, who may have it, who is left; and the result when the approval
is revoked.

The store counts this from the outbox, in the transaction that decides on it. Pure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from smtpguard.holds.model import SENDING, Change, Move, State, after, settles_as
from smtpguard.journal.delivery import DeliveryStatus
from smtpguard.mail.envelope import Recipient
from smtpguard.outbox.model import NONE_YET, Settled

TAKING_BACK = frozenset({Move.REJECT, Move.WITHDRAW, Move.REOPEN})


class Out(enum.Enum):
    """How far a release is, in a word."""

    NOTHING = "nothing"  # nobody has it, and nobody may have it
    DOUBT = "doubt"  # nobody is known to have it, and somebody may
    PART = "part"  # somebody has it, and others are still to be tried, or in doubt
    ALL = "all"  # nothing is to be done about anybody any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How far the release of one hold is. ``under_way``: a worker has it, or an attempt is not known to be over. ``settled``: the
    recipients about whom nothing is to be done any more; ``doubt``: those who may have it, of whom it may still become known;
    ``asked``: those of them about whom people are asked; ``left``: those who certainly have not got it, and are to be tried."""

    under_way: bool = False
    settled: Settled = NONE_YET
    doubt: int = 0
    asked: int = 0
    left: tuple[Recipient, ...] = ()

    @property
    def out(self) -> Out:
        if not self.left and not self.doubt:
            return Out.ALL
        if self.settled.sent:
            return Out.PART
        return Out.DOUBT if self.settled.doubted or self.doubt else Out.NOTHING

    def may_have(self, reach: int) -> int:
        """How many people may have it of whom nobody knows yet, where the message reaches so many in all: a list's address is one
        recipient. Where some recipients are not in doubt, it is only known how many are."""
        whole = self.doubt > 0 and not self.left and self.settled == NONE_YET
        return reach if whole else self.doubt

    @property
    def stopped(self) -> Settled:
        """What all recipients come to if nobody is tried any more."""
        return self.settled + Settled(failed=len(self.left), doubted=self.doubt)


def total(status: DeliveryStatus, n: int = 1) -> Settled:
    """So many recipients of this status, once nothing more is to be done about them."""
    match status:
        case DeliveryStatus.DELIVERED:
            return Settled(sent=n)
        case DeliveryStatus.ATTEMPTED:
            return Settled(doubted=n)
        case _:
            return Settled(failed=n)


UNSENT = Sending()
"""Of what has no release."""


def taken_back(state: State, move: Move, sending: Sending) -> State | None:
    """What becomes of a hold when what was approved is taken back; None where nothing can be. What a worker has leased and not begun
    to send goes with the rest, as does an attempt that failed for certain. Once somebody has it, or may have it, since an attempt
    has begun, it was released, or is in doubt: nothing more of it is sent."""
    if state not in SENDING or move not in TAKING_BACK:
        return None
    match sending.out:
        case Out.NOTHING:
            return after(state, move)
        case Out.PART | Out.DOUBT:
            return after(state, settles_as(sending.stopped))
        case _:
            return None


def late(state: State, move: str, settled: Settled) -> State | None:
    """What becomes of a hold that was taken back by ``move`` while somebody may have had it, once the last answer is known, or will
    not come; None where that makes nothing else of it."""
    if settled.sent or settled.doubted:
        return after(state, settles_as(settled))
    return after(state, {Move.REJECT.value: Move.REJECT, Move.WITHDRAW.value: Move.WITHDRAW}.get(move, Move.FAIL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """How far what was approved is, of a hold and of the copies under it. ``own``: of the hold itself, None where its release is not
    in the outbox. In messages, it among them: ``back`` could be taken back whole; of ``doubt`` nobody is known to have it and
    somebody may, ``going`` of them, or of the others, are being sent; and ``gone`` somebody has."""

    own: Sending | None = None
    back: int = 0
    going: int = 0
    doubt: int = 0
    gone: int = 0

    @property
    def stoppable(self) -> bool:
        """Whether anything of it can be taken back, or kept from being sent once more."""
        return bool(self.back or self.doubt) or (self.own is not None and self.own.out is Out.PART)


NOTHING = Outgoing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What taking back has come to. ``changes``: of the hold that was named, or of the copy that stands for what is left of its
    mailing, or of both. ``outgoing``: as it was before."""

    changes: tuple[Change, ...]
    outgoing: Outgoing = NOTHING
