"""The progress of a release; the state of a hold after its revocation; and what of a mailing can still be stopped."""

from __future__ import annotations

import itertools

from smtpguard.holds.model import SENDING, Move, State
from smtpguard.holds.sending import Outgoing, ReleaseProgress, Sending, after_late_outcome, state_after_revocation
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.outbox.model import Settled
from tests.every import every

SOMEBODY = (Recipient(address=Address("bo", "example.net")),)
ALL = [
    Sending(under_way=u, settled=Settled(sent=s, failed=f, doubted=d), doubtful=SOMEBODY * p, left=left)
    for u, s, f, d, p, left in itertools.product((False, True), (0, 2), (0, 1), (0, 1), (0, 1), ((), SOMEBODY))
]

# By progress and move: the hold's new state. Over: a recipient has it or may have it, so the state says what happened
# to those.
TAKEN_BACK = """
           reject   withdraw  reopen
nothing    rejected withdrawn waiting
doubt      over     over      over
part       over     over      over
all        -        -         -
"""


@every("sending", ALL)
def test_every_state_of_progress(sending: Sending) -> None:
    """A lease makes no difference: attempted recipients are in doubt, and the others do not have it."""
    if not sending.left and not sending.doubt:
        expected = ReleaseProgress.ALL
    elif sending.settled.sent:
        expected = ReleaseProgress.PART
    else:
        expected = ReleaseProgress.DOUBT if sending.settled.doubted or sending.doubt else ReleaseProgress.NOTHING
    assert sending.out is expected


def test_every_state_after_revocation() -> None:
    head, *rows = TAKEN_BACK.strip().splitlines()
    moves = [Move(word) for word in head.split()]
    cells = {}
    for row in rows:
        word, *to = row.split()
        for move, cell in zip(moves, to, strict=True):
            cells[ReleaseProgress(word.replace("-", " ")), move] = cell
    assert {out for out, _ in cells} == set(ReleaseProgress)
    for state, move, sending in itertools.product(State, moves, ALL):
        cell = cells.get((sending.out, move), "-") if state in SENDING else "-"
        if (state, cell) == (State.IN_DOUBT, "waiting"):
            continue  # a recipient is in doubt, whatever the others are
        over = State.RELEASED if sending.settled.sent else State.IN_DOUBT
        expected = None if cell == "-" else over if cell == "over" else State(cell)
        assert state_after_revocation(state, move, sending) is expected, (state, move, sending)


def test_after_revocation_the_rest_fails_and_doubts_remain() -> None:
    sending = Sending(settled=Settled(sent=1, failed=2), doubtful=SOMEBODY * 3, left=SOMEBODY)
    assert sending.stopped == Settled(sent=1, failed=3, doubted=3)


@every(
    ("outgoing", "stoppable"),
    [
        (Outgoing(), False),
        (Outgoing(gone=3, going=1), False),
        (Outgoing(own=Sending(under_way=True, left=SOMEBODY), going=1, back=1), True),
        (Outgoing(own=Sending(settled=Settled(sent=1)), gone=1), False),
        (Outgoing(own=Sending(left=SOMEBODY), back=1), True),
        (Outgoing(own=Sending(settled=Settled(sent=1), left=SOMEBODY), gone=1), True),
        (Outgoing(own=Sending(doubtful=SOMEBODY), doubt=1), True),
        (Outgoing(gone=1, doubt=1), True),
        (Outgoing(gone=1, back=1), True),
    ],
)
def test_what_can_be_stopped_of_a_mailing(outgoing: Outgoing, stoppable: bool) -> None:
    assert outgoing.stoppable is stoppable


@every(
    ("state", "move", "settled", "becomes"),
    [
        (State.IN_DOUBT, "reject", Settled(sent=1), State.RELEASED),
        (State.IN_DOUBT, "reject", Settled(failed=1), State.REJECTED),
        (State.IN_DOUBT, "withdraw", Settled(failed=1), State.WITHDRAWN),
        (State.IN_DOUBT, "reopen", Settled(failed=1), State.UNDELIVERED),
        (State.IN_DOUBT, "reject", Settled(failed=1, doubted=1), State.IN_DOUBT),
        (State.RELEASED, "reject", Settled(sent=2), State.RELEASED),
    ],
)
def test_the_last_answer_after_a_revocation(state: State, move: str, settled: Settled, becomes: State) -> None:
    assert after_late_outcome(state, move, settled) is becomes
