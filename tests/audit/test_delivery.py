"""The status of a recipient: every cell of the table, legal and not, and what an earlier doubt makes of it."""

from __future__ import annotations

import pytest

from smtpguard.audit.delivery import DeliveryEvent as E
from smtpguard.audit.delivery import DeliveryStatus as S
from smtpguard.audit.delivery import NotPossible, after

LEGAL = {
    (S.PENDING, E.BEGIN): S.ATTEMPTED,
    (S.PENDING, E.TAKE): S.DELIVERED,
    (S.PENDING, E.PUT_OFF): S.PENDING,
    (S.PENDING, E.REFUSE): S.REFUSED,
    (S.PENDING, E.CANCEL): S.CANCELLED,
    (S.ATTEMPTED, E.BEGIN): S.ATTEMPTED,
    (S.ATTEMPTED, E.TAKE): S.DELIVERED,
    (S.ATTEMPTED, E.PUT_OFF): S.PENDING,
    (S.ATTEMPTED, E.REFUSE): S.REFUSED,
    (S.ATTEMPTED, E.LOSE): S.ATTEMPTED,
    (S.ATTEMPTED, E.CANCEL): S.ATTEMPTED,
    (S.ATTEMPTED, E.CONFIRM): S.DELIVERED,
    (S.ATTEMPTED, E.REPEAT): S.ATTEMPTED,
}


@pytest.mark.parametrize("event", E)
@pytest.mark.parametrize("status", S)
def test_every_cell(status: S, event: E) -> None:
    if (status, event) in LEGAL:
        assert after(status, event) is LEGAL[status, event]
    else:
        with pytest.raises(NotPossible, match=f"that is {status.value} cannot {event.value}"):
            after(status, event)


@pytest.mark.parametrize("event", [E.PUT_OFF, E.REFUSE])
def test_that_this_attempt_was_not_taken_does_not_clear_an_earlier_doubt(event: E) -> None:
    assert after(S.ATTEMPTED, event, earlier=1) is S.ATTEMPTED
    assert after(S.ATTEMPTED, E.TAKE, earlier=1) is S.DELIVERED


def test_only_an_answer_or_a_person_moves_on_what_was_attempted() -> None:
    moves = {event for event in E if (S.ATTEMPTED, event) in LEGAL and LEGAL[S.ATTEMPTED, event] is not S.ATTEMPTED}
    assert moves == {E.TAKE, E.PUT_OFF, E.REFUSE, E.CONFIRM}
