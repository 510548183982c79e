"""The transition table, every cell of it, and the counting of a quorum."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.holds.model import (
    LIVE,
    TRANSITIONS,
    Choice,
    Hold,
    Move,
    State,
    Vote,
    after,
    complete,
    entitled,
    missing,
    standing_votes,
)
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.policy.verdict import Action, Quorum, Verdict

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 3, 2, 23, 0, tzinfo=UTC)
ENVELOPE = Envelope(
    reverse_path=Address.parse("anna@example.com"),
    recipients=(Recipient(address=Address.parse("list@lists.example.com")),),
)
GROUPS = {
    "communications": frozenset({"eva@example.com", "omar@example.com"}),
    "compliance": frozenset({"dpo@example.com", "eva@example.com"}),
    "duty": frozenset({"duty@example.com"}),
}

# Written out by hand, row by state and column by move, so that the table under test is not compared with itself.
EXPECTED = """
            confirm  lapse   approve  reject   withdraw  expire  void adopt   attempt   settle   fail        doubt    grant   reopen
waiting     approved waiting approved rejected withdrawn expired void -       -         -        -           -        -       -
approved    -        -       -        rejected withdrawn -       -    -       releasing released undelivered in-doubt granted waiting
releasing   -        -       -        rejected withdrawn -       -    -       releasing released undelivered in-doubt -       waiting
released    -        -       -        -        -         -       -    -       -         released -           -        -       -
undelivered -        -       -        -        -         -       -    -       -         -        -           -        -       -
in-doubt    -        -       -        rejected withdrawn -       -    -       releasing released undelivered in-doubt -       -
granted     -        -       -        -        -         -       -    -       -         -        -           -        -       -
rejected    -        -       -        -        -         -       -    -       -         -        -           -        -       -
withdrawn   -        -       -        -        -         -       -    -       -         -        -           -        -       -
expired     -        -       -        -        -         -       -    -       -         -        -           -        -       -
void        -        -       -        -        -         -       -    waiting -         -        -           -        -       -
"""


def open_at(at: datetime) -> bool:
    return 8 <= at.hour < 18


def hold(
    *quorum: Quorum,
    votes: tuple[Vote, ...] = (),
    senders: frozenset[str] = frozenset({"anna@example.com"}),
    **more: Any,
) -> Hold:
    return Hold(
        **{"mailing_id": "", "lists": (), **more},
        hold_id="H",
        session=Session(),
        envelope=ENVELOPE,
        content_sha256="c" * 64,
        size_bytes=1,
        subject="",
        message_id="",
        verdict=Verdict(action=Action.HOLD, quorum=quorum),
        state=State.WAITING,
        votes=votes,
        held_at=NOON,
        expires_at=NOON + timedelta(days=1),
        sender="anna@example.com",
        senders=senders,
        reach=1,
    )


def vote(approver: str, choice: Choice = Choice.APPROVE, *, at: datetime = NOON, content: str = "c" * 64) -> Vote:
    return Vote(
        approver=f"{approver}@example.com",
        choice=choice,
        content_sha256=content,
        envelope_sha256=ENVELOPE.sha256,
        at=at,
    )


def test_every_cell() -> None:
    head, *rows = EXPECTED.strip().splitlines()
    moves = [Move(word) for word in head.split()]
    assert set(moves) == set(Move)
    cells = {}
    for row in rows:
        word, *to = row.split()
        for move, cell in zip(moves, to, strict=True):
            cells[State(word), move] = None if cell == "-" else State(cell)
    assert set(cells) == set(itertools.product(State, Move))
    for (state, move), expected in cells.items():
        assert after(state, move) is expected, (state, move)
    assert {state for state, _ in TRANSITIONS} == LIVE | {State.VOID, State.IN_DOUBT, State.RELEASED}


COMMS = Quorum(groups=("communications",))
BOTH = Quorum(groups=("communications", "compliance"))


@pytest.mark.parametrize(
    ("quorum", "voters", "done"),
    [
        ((COMMS,), [], False),
        ((COMMS,), ["eva"], True),
        ((COMMS,), ["dpo"], False),
        ((COMMS,), ["stranger"], False),
        ((Quorum(groups=("communications",), each=2),), ["eva"], False),
        ((Quorum(groups=("communications",), each=2),), ["eva", "eva"], False),
        ((Quorum(groups=("communications",), each=2),), ["eva", "omar"], True),
        ((BOTH,), ["eva"], False),  # in both groups, but one person
        ((BOTH,), ["eva", "omar"], True),  # eva then stands for compliance
        ((BOTH,), ["omar", "eva"], True),
        ((BOTH,), ["omar", "dpo"], True),
        ((COMMS, COMMS), ["eva"], True),  # two lists with the same approvers: one person may decide for both
        ((COMMS, Quorum(groups=("compliance",))), ["omar"], False),
        ((COMMS, Quorum(groups=("compliance",))), ["eva"], True),
        ((Quorum(groups=("nobody-is-in-it",)),), ["eva"], False),
        ((Quorum(groups=()),), ["eva"], False),
        ((), ["eva"], False),
    ],
)
def test_quorum(quorum: tuple[Quorum, ...], voters: list[str], done: bool) -> None:
    h = hold(*quorum, votes=tuple(vote(v) for v in voters))
    assert complete(h, GROUPS, open_at) is done
    if quorum:
        assert (not missing(h, GROUPS, open_at)) is done


def test_a_vote_on_something_else_does_not_count() -> None:
    assert not complete(hold(COMMS, votes=(vote("eva", content="d" * 64),)), GROUPS, open_at)


def test_a_vote_of_the_writer_does_not_count() -> None:
    h = hold(COMMS, votes=(vote("eva"),), senders=frozenset({"eva@example.com", "anna@example.com"}))
    assert not complete(h, GROUPS, open_at)
    assert not entitled(h, "eva@example.com", GROUPS, open_now=True)
    assert entitled(h, "omar@example.com", GROUPS, open_now=True)


def test_the_last_vote_of_a_person_counts() -> None:
    h = hold(COMMS, votes=(vote("eva"), vote("eva", Choice.REJECT)))
    assert [v.choice for v in standing_votes(h)] == [Choice.REJECT]
    assert not complete(h, GROUPS, open_at)


def test_who_has_left_the_group_no_longer_counts() -> None:
    h = hold(Quorum(groups=("communications",), each=2), votes=(vote("eva"), vote("omar")))
    assert complete(h, GROUPS, open_at)
    assert not complete(h, {**GROUPS, "communications": frozenset({"omar@example.com"})}, open_at)


def test_out_of_hours() -> None:
    quorum = Quorum(groups=("communications", "compliance"), out_of_hours=Quorum(groups=("duty",)))
    assert complete(hold(quorum, votes=(vote("duty", at=NIGHT),)), GROUPS, open_at)
    assert not complete(hold(quorum, votes=(vote("duty", at=NOON),)), GROUPS, open_at)
    assert complete(hold(quorum, votes=(vote("omar", at=NIGHT), vote("dpo", at=NOON))), GROUPS, open_at)
    assert entitled(hold(quorum), "duty@example.com", GROUPS, open_now=False)
    assert not entitled(hold(quorum), "duty@example.com", GROUPS, open_now=True)


PEOPLE = ["a", "b", "c", "d"]


@settings(max_examples=150, deadline=None)
@given(
    groups=st.dictionaries(st.sampled_from(["g", "h", "i"]), st.frozensets(st.sampled_from(PEOPLE)), max_size=3),
    asked=st.lists(st.sampled_from(["g", "h", "i"]), min_size=1, max_size=3, unique=True),
    each=st.integers(1, 2),
    voters=st.lists(st.sampled_from(PEOPLE), unique=True, max_size=4),
)
def test_counting_agrees_with_trying_every_seating(
    groups: dict[str, frozenset[str]], asked: list[str], each: int, voters: list[str]
) -> None:
    named = {g: frozenset(f"{p}@example.com" for p in people) for g, people in groups.items()}
    seats = [g for g in asked for _ in range(each)]
    possible = any(
        all(f"{who}@example.com" in named.get(seat, frozenset()) for who, seat in zip(people, seats, strict=True))
        for people in itertools.permutations(voters, len(seats))
    )
    h = hold(Quorum(groups=tuple(asked), each=each), votes=tuple(vote(v) for v in voters))
    assert complete(h, named, open_at) is possible
