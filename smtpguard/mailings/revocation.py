"""The change that revoking an approval makes: by an approver, by the writer, or with the decision on the mailing.

If nobody has the message, and nobody may have it, it is rejected, withdrawn, or waits for people again, and was never sent. If somebody
has it, or may have it since an attempt has begun, the rest is not sent, and the result says so. It is made in the transaction that
reads the outbox. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from smtpguard.holds import effects
from smtpguard.holds.deadlines import Deadlines
from smtpguard.holds.model import (
    LET_GO,
    Change,
    Choice,
    Conflict,
    Hold,
    Move,
    State,
    Vote,
    after,
    event_on,
    vote_on,
)
from smtpguard.holds.sending import NOTHING, Outgoing, Sending, state_after_revocation
from smtpguard.journal.event import Event, Kind
from smtpguard.notices.intents import NoticesNow
from smtpguard.outbox.attempt import audience

NO_REASON = "give a reason: its writer and the approvers are told"
KINDS: Mapping[Move, Kind] = {
    Move.REJECT: Kind.REJECTED,
    Move.WITHDRAW: Kind.WITHDRAWN,
    Move.REOPEN: Kind.REOPENED,
}
"""The kind of the journal's entry on each move; its word is the outcome in notices, too."""
_MOVES_WITH_LEAD: Mapping[State, Move] = {State.REJECTED: Move.REJECT, State.WITHDRAWN: Move.WITHDRAW}
"""The move of a copy whose primary hold is in that state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A revocation of an approval, or a decision against a hold that waits. ``who``: the person's address, "" if its list has grown;
    ``by``: the caller's login."""

    move: Move
    who: str
    by: str
    comment: str
    term: Deadlines
    notices: NoticesNow

    def step(self, hold: Hold, sending: Sending, outgoing: Outgoing, leads: bool) -> Change:
        """Return the change of one hold. Raises Conflict if nothing of it can be revoked.

        ``leads``: it is the hold that is decided on. Else it was promoted to stand for what that one leaves, and names it in
        its event.
        """
        back = _back(hold, sending, self.move)
        if back is None:
            raise Conflict(_why_not(hold))
        stopped = back.state in LET_GO
        if self.move is Move.REOPEN and not stopped:
            back = self.term.anew(back, self.notices.in_force, self.notices.now)
        back = replace(back, primary="")
        undecided = is_undecided(hold, outgoing)
        if undecided and hold.release_at is None:  # nobody was told of an approval
            told = self.notices.decided(hold, KINDS[self.move].value, self.who, self.comment)
        else:
            of_turn = replace(back, reopened_at=hold.reopened_at, undone=hold.undone)
            told = self.notices.revoked(
                of_turn,  # the ids are those of the approval that ends
                "stopped" if stopped else KINDS[self.move].value if self.who else "lapsed",
                self.who,
                self.comment,
                sending=sending,
                outgoing=outgoing,
                confirmed=hold.confirmed,
            )
        if not leads:
            made = _change(hold, back, sending, self.move, self.notices, {"with": hold.primary})
            return replace(made, intents=told)
        now, rejected = self.notices.now, self.move is Move.REJECT
        actors: tuple[str, ...] = (self.who, self.by) if self.who else ()
        data = {} if self.who else {"reach": hold.reach}
        comment = self.comment
        events: tuple[Event, ...] = ()
        if rejected:
            vote = Vote.on(hold, self.who, Choice.REJECT, now, comment)
            back = replace(back, votes=(*hold.votes, vote))
            events = (vote_on(hold, vote.choice.value, now, actors=actors, comment=comment),)
            actors = ()  # the vote's entry says who
            if undecided:
                comment = ""
        made = _change(hold, back, sending, self.move, self.notices, data, actors, comment)
        return replace(
            made,
            events=(*events, *made.events),
            intents=told,
            rejection=effects.rejection(hold, self.comment, now, self.term) if rejected else None,
            ungranted=(hold.primary or hold.hold_id) if self.move is Move.WITHDRAW or not self.who else "",
        )


def is_undecided(hold: Hold, outgoing: Outgoing) -> bool:
    """Return whether people must still decide on a hold; False if it only waits for its stage."""
    return hold.state is State.WAITING and outgoing == NOTHING


def with_its_lead(lead: Hold, copy: Hold, sending: Sending, notices: NoticesNow) -> Change | None:
    """Return the change of a copy that was approved with its primary hold, and is revoked with it; None if it was sent.

    A copy that may have been sent is revoked too: it is not sent again.
    """
    move = Move(lead.stopped_by) if lead.stopped_by else _MOVES_WITH_LEAD.get(lead.state, Move.REOPEN)
    back = _back(copy, sending, move)
    if back is None:
        return None
    if move is Move.REOPEN and back.state not in LET_GO:
        back = back.in_next_turn(notices.now)
    return _change(copy, back, sending, move, notices, {"with": lead.hold_id})


def _back(hold: Hold, sending: Sending, move: Move) -> Hold | None:
    """Return the hold after the revocation; None if nothing can be revoked."""
    if hold.state is State.WAITING:  # waiting for its stage after an approval
        to = after(hold.state, move) or (hold.state if move is Move.REOPEN else None)
    else:
        to = state_after_revocation(hold.state, move, sending)
    if to is None:
        return None
    if to in LET_GO:
        return replace(hold, state=to, stopped_by=move.value, settled=sending.stopped, asked_at=None)
    return replace(hold, state=to, held_up=False, asked_at=None, release_at=None, grant=None)


def _why_not(hold: Hold) -> str:
    if hold.state is State.GRANTED:
        return f"it was only a test: to take back its approval, reject or reopen the mailing {hold.mailing_id}"
    said = f"it is already {hold.state.value}"
    if hold.state not in LET_GO:
        return said
    coming = f"; to stop further copies, reject or reopen the mailing {hold.mailing_id}" if hold.mailing_id else ""
    return f"{said}: sent mail cannot be taken back{coming}"


def _change(
    hold: Hold,
    back: Hold,
    sending: Sending,
    move: Move,
    notices: NoticesNow,
    data: Mapping[str, Any],
    actors: tuple[str, ...] = (),
    comment: str = "",
) -> Change:
    if back.state in LET_GO:
        whom = audience(hold, sending.left, notices.in_force)
        people = whom.number(sending.left)
        data = {**data, **asdict(sending.stopped), "spared": len(sending.left), "people": people}
        event = event_on(hold, Kind.STOPPED, notices.now, actors=actors, comment=comment, named=sending.left, **data)
        return Change(
            hold=back,
            events=(event,),
            cancelled=frozenset(digest for one in sending.left for digest in whom.digests(one)),
        )
    if hold.state is not State.WAITING:
        data = {**data, "was": hold.state.value}
    return Change(hold=back, events=(event_on(hold, KINDS[move], notices.now, actors=actors, comment=comment, **data),))
