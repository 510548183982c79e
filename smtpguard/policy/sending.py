"""How far it has come with what was approved: who has it, who may, who is left; and what becomes of it when that is taken back.

The store counts it from the outbox, in the transaction in which it is decided on. Pure. Never here: the outbox (store), or who
may take something back (guard).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from smtpguard.audit.delivery import DeliveryStatus
from smtpguard.mail.envelope import Recipient
from smtpguard.policy.admission import Change
from smtpguard.policy.approval import NONE_YET, SENDING, Move, Settled, State, after

TAKING_BACK = frozenset({Move.REJECT, Move.WITHDRAW, Move.REOPEN})


class Out(enum.Enum):
    """How far a release is, in a word."""

    NOTHING = "nothing"  # nobody has it, and nobody may have it
    UNDER_WAY = "under way"  # a worker has taken it up: it is being sent, or may be
    PART = "part"  # somebody has it, or may have it, and others are still to be tried
    ALL = "all"  # nobody is left to be tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How far the release of one hold is. ``under_way``: a worker has it, or an attempt is not known to be over. ``settled``: the
    recipients of whom it is known what became of them; ``doubt``: those who may have it, and are to be tried once more;
    ``left``: those who certainly have not got it, and are to be tried."""

    under_way: bool = False
    settled: Settled = NONE_YET
    doubt: int = 0
    left: tuple[Recipient, ...] = ()

    @property
    def out(self) -> Out:
        if self.under_way:
            return Out.UNDER_WAY
        if not self.left and not self.doubt:
            return Out.ALL
        return Out.PART if self.settled.sent or self.settled.doubted or self.doubt else Out.NOTHING

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
    """What becomes of a hold when what was approved is taken back; None where nothing can be. An attempt that failed for certain,
    since a freeze recalled it or the relay was away, has left nothing out. Once somebody has it, or may have it, it was
    released, or is in doubt: the others are spared, and it is over."""
    if state not in SENDING or move not in TAKING_BACK:
        return None
    match sending.out:
        case Out.NOTHING:
            return after(state, move)
        case Out.PART:
            return after(state, sending.stopped.move)
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """How far what was approved is, of a hold and of the copies under it. ``own``: of the hold itself, None where its release is not
    in the outbox. In messages, it among them: ``back`` could be taken back whole, ``going`` are under way, and ``gone`` somebody
    has, or may have."""

    own: Sending | None = None
    back: int = 0
    going: int = 0
    gone: int = 0

    @property
    def stoppable(self) -> bool:
        """Whether anything of it can be taken back."""
        return bool(self.back) or (self.own is not None and self.own.out is Out.PART)


NOTHING = Outgoing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What taking back has come to. ``changes``: of the hold that was named, or of the copy that stands for what is left of its
    mailing, or of both. ``outgoing``: as it was before."""

    changes: tuple[Change, ...]
    outgoing: Outgoing = NOTHING

    @property
    def refused(self) -> str | None:
        return next((change.refused for change in self.changes if change.refused is not None), None)
