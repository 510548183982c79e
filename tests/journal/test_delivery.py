"""The status of a recipient: every cell of the table, legal or not, and the effect of an earlier doubt."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from smtpguard.journal.deliverystatus import DeliveryEvent as E
from smtpguard.journal.deliverystatus import DeliveryStatus as S
from smtpguard.journal.deliverystatus import NotPossible, after, delivery_entry
from smtpguard.journal.event import Kind
from tests.every import every

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


@every(("status", "event"), itertools.product(S, E))
def test_every_transition(status: S, event: E) -> None:
    if (status, event) in LEGAL:
        assert after(status, event) is LEGAL[status, event]
    else:
        with pytest.raises(NotPossible, match=f"that is {status.value} cannot {event.value}"):
            after(status, event)


@pytest.mark.parametrize("event", [E.PUT_OFF, E.REFUSE])
def test_a_later_failure_does_not_clear_an_earlier_doubt(event: E) -> None:
    assert after(S.ATTEMPTED, event, earlier=1) is S.ATTEMPTED
    assert after(S.ATTEMPTED, E.TAKE, earlier=1) is S.DELIVERED


def test_only_an_answer_or_a_person_ends_an_attempt() -> None:
    moves = {event for event in E if (S.ATTEMPTED, event) in LEGAL and LEGAL[S.ATTEMPTED, event] is not S.ATTEMPTED}
    assert moves == {E.TAKE, E.PUT_OFF, E.REFUSE, E.CONFIRM}


SAID: list[tuple[Kind, dict[str, Any], S | None, bool]] = [
    (Kind.RELEASE, {"outcome": "attempt"}, S.ATTEMPTED, False),
    (Kind.RELEASE, {"outcome": "sent"}, S.DELIVERED, True),
    (Kind.RELEASE, {"outcome": "failed", "why": "refused"}, S.REFUSED, True),
    (Kind.IN_DOUBT, {"outcome": "failed", "why": "in-doubt"}, S.ATTEMPTED, True),
    (Kind.IN_DOUBT, {"outcome": "in-doubt"}, S.ATTEMPTED, False),
    (Kind.RELEASE, {"outcome": "retry", "in_doubt": False}, S.PENDING, False),
    (Kind.RELEASE, {"outcome": "retry", "in_doubt": True}, S.ATTEMPTED, False),
    (Kind.RELEASE, {"outcome": "of a later version"}, None, False),
    (Kind.IN_DOUBT, {"outcome": "asked"}, None, False),
    (Kind.SETTLED, {"choice": "sent"}, S.DELIVERED, False),
    (Kind.SETTLED, {"choice": "again"}, S.ATTEMPTED, False),
    (Kind.STOPPED, {}, S.CANCELLED, True),
    (Kind.NOTICE, {"outcome": "sent"}, None, False),
    (Kind.APPROVED, {}, None, False),
]


@every(("kind", "data", "status", "over"), SAID)
def test_statuses_reported_by_entries(kind: Kind, data: dict[str, Any], status: S | None, over: bool) -> None:
    one = delivery_entry(kind.value, data)
    assert (one.status, one.over) == (status, over) if one is not None else status is None
