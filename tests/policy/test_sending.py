"""How far a release is, in one word; what becomes of what is taken back; and what of a mailing could still be stopped."""

from __future__ import annotations

import itertools

import pytest

from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Recipient
from smtpguard.policy.approval import Move, Settled, State
from smtpguard.policy.sending import Out, Outgoing, Sending, taken_back

SOMEBODY = (Recipient(address=Address("bo", "example.net")),)
ALL = [
    Sending(under_way=u, settled=Settled(sent=s, failed=f, doubted=d), doubt=p, left=left)
    for u, s, f, d, p, left in itertools.product((False, True), (0, 2), (0, 1), (0, 1), (0, 1), ((), SOMEBODY))
]

# By how far it is, and what is done. Who has it, or may, has it: then it is what came of those, and over.
TAKEN_BACK = """
           reject   withdraw  reopen
nothing    rejected withdrawn waiting
under-way  -        -         -
part       over     over      over
all        -        -         -
"""


@pytest.mark.parametrize("sending", ALL, ids=str)
def test_every_cell_of_how_far_it_is(sending: Sending) -> None:
    out = sending.settled.sent or sending.settled.doubted or sending.doubt
    if sending.under_way:
        expected = Out.UNDER_WAY
    elif not sending.left and not sending.doubt:
        expected = Out.ALL
    else:
        expected = Out.PART if out else Out.NOTHING
    assert sending.out is expected


def test_every_cell_of_what_is_taken_back() -> None:
    head, *rows = TAKEN_BACK.strip().splitlines()
    moves = [Move(word) for word in head.split()]
    cells = {}
    for row in rows:
        word, *to = row.split()
        for move, cell in zip(moves, to, strict=True):
            cells[Out(word.replace("-", " ")), move] = cell
    assert {out for out, _ in cells} == set(Out)
    for state, move, sending in itertools.product(State, Move, ALL):
        cell = cells.get((sending.out, move), "-") if state in (State.APPROVED, State.RELEASING) else "-"
        over = State.RELEASED if sending.settled.sent else State.IN_DOUBT
        expected = None if cell == "-" else over if cell == "over" else State(cell)
        assert taken_back(state, move, sending) is expected, (state, move, sending)


def test_who_is_left_fails_and_who_may_have_it_is_in_doubt_for_good() -> None:
    sending = Sending(settled=Settled(sent=1, failed=2), doubt=3, left=SOMEBODY)
    assert sending.stopped == Settled(sent=1, failed=3, doubted=3)


@pytest.mark.parametrize(
    ("outgoing", "stoppable"),
    [
        (Outgoing(), False),
        (Outgoing(gone=3, going=1), False),
        (Outgoing(own=Sending(under_way=True, left=SOMEBODY), going=1), False),
        (Outgoing(own=Sending(settled=Settled(sent=1)), gone=1), False),
        (Outgoing(own=Sending(left=SOMEBODY), back=1), True),
        (Outgoing(own=Sending(settled=Settled(sent=1), left=SOMEBODY), gone=1), True),
        (Outgoing(own=Sending(doubt=1), gone=1), True),
        (Outgoing(gone=1, back=1), True),
    ],
)
def test_what_can_be_stopped(outgoing: Outgoing, stoppable: bool) -> None:
    assert outgoing.stoppable is stoppable
