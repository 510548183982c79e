"""Every cell of the transition table, and the counting of a quorum."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

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
    out_of_reach,
    seats_left,
    standing_votes,
)
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import Envelope, Recipient, Session
from smtpguard.policy.approvals import Absence, Groups
from smtpguard.policy.verdict import Action, Quorum, Verdict
from tests.every import every

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 3, 2, 23, 0, tzinfo=UTC)
ENVELOPE = Envelope(
    reverse_path=Address.parse("anna@example.com"),
    recipients=(Recipient(address=Address.parse("list@lists.example.com")),),
)
GROUPS = Groups(
    people={
        "communications": frozenset({"eva@example.com", "omar@example.com"}),
        "compliance": frozenset({"dpo@example.com", "eva@example.com"}),
        "duty": frozenset({"duty@example.com"}),
    }
)

# Written by hand, row by state and column by move, so that the table is not compared with itself.
EXPECTED = """
            confirm  approve  reject   withdraw  expire  void adopt   attempt   settle   fail        doubt    grant   reopen
waiting     approved approved rejected withdrawn expired void -       -         -        -           -        granted -
approved    -        -        rejected withdrawn -       -    -       releasing released undelivered in-doubt -       waiting
releasing   -        -        rejected withdrawn -       -    -       releasing released undelivered in-doubt -       waiting
released    -        -        -        -         -       -    -       -         released -           -        -       -
undelivered -        -        -        -         -       -    -       -         -        -           -        -       -
in-doubt    -        -        rejected withdrawn -       -    -       releasing released undelivered in-doubt -       -
granted     -        -        -        -         -       -    -       -         -        -           -        -       -
rejected    -        -        -        -         -       -    -       -         -        -           -        -       -
withdrawn   -        -        -        -         -       -    -       -         -        -           -        -       -
expired     -        -        -        -         -       -    -       -         -        -           -        -       -
void        -        -        -        -         -       -    waiting -         -        -           -        -       -
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


def test_every_transition() -> None:
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


@every(
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
        ((BOTH,), ["eva", "omar"], True),  # eva counts for compliance then
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


def test_a_vote_on_other_content_does_not_count() -> None:
    assert not complete(hold(COMMS, votes=(vote("eva", content="d" * 64),)), GROUPS, open_at)


def test_a_vote_of_the_writer_does_not_count() -> None:
    h = hold(COMMS, votes=(vote("eva"),), senders=frozenset({"eva@example.com", "anna@example.com"}))
    assert standing_votes(h) == ()  # else it would limit the people, and be named with those who approved
    assert not complete(h, GROUPS, open_at)
    assert not entitled(h, "eva@example.com", GROUPS, at=NOON, open_now=True)
    assert entitled(h, "omar@example.com", GROUPS, at=NOON, open_now=True)


def test_the_last_vote_of_a_person_counts() -> None:
    h = hold(COMMS, votes=(vote("eva"), vote("eva", Choice.REJECT)))
    assert [v.choice for v in standing_votes(h)] == [Choice.REJECT]
    assert not complete(h, GROUPS, open_at)


def test_an_approver_who_left_the_group_does_not_count() -> None:
    h = hold(Quorum(groups=("communications",), each=2), votes=(vote("eva"), vote("omar")))
    assert complete(h, GROUPS, open_at)
    left = Groups(people={**GROUPS, "communications": frozenset({"omar@example.com"})})
    assert not complete(h, left, open_at)


def test_out_of_hours_another_group_decides() -> None:
    quorum = Quorum(groups=("communications", "compliance"), out_of_hours=Quorum(groups=("duty",)))
    assert complete(hold(quorum, votes=(vote("duty", at=NIGHT),)), GROUPS, open_at)
    assert not complete(hold(quorum, votes=(vote("duty", at=NOON),)), GROUPS, open_at)
    assert complete(hold(quorum, votes=(vote("omar", at=NIGHT), vote("dpo", at=NOON))), GROUPS, open_at)
    assert entitled(hold(quorum), "duty@example.com", GROUPS, at=NIGHT, open_now=False)
    assert not entitled(hold(quorum), "duty@example.com", GROUPS, at=NOON, open_now=True)


def away(person: str, deputy: str = "", **more: Any) -> Absence:
    """An absence on the day of NOON."""
    days = {"since": NOON.date(), "until": NOON.date()}
    return Absence(**{**days, **more}, person=f"{person}@example.com", deputy=f"{deputy}@example.com" if deputy else "")


TWO = Quorum(groups=("communications",), each=2)
BEFORE = NOON - timedelta(days=1)


@every(
    ("absence", "quorum", "votes", "done"),
    [
        (away("eva", "omar"), COMMS, [("omar", NOON)], True),
        (away("eva", "omar"), TWO, [("omar", NOON), ("eva", NOON)], False),  # together one vote
        (away("eva", "omar"), TWO, [("omar", NOON), ("eva", BEFORE)], True),  # she voted before her absence
        (away("eva", "omar"), BOTH, [("omar", NOON)], False),  # omar counts in her place, with one vote
        (away("eva", "sten", confirmed=True), COMMS, [("sten", NOON)], True),
        # sten is in none of her groups, and no admin has confirmed him
        (away("eva", "sten"), COMMS, [("sten", NOON)], False),
        (away("eva", "sten", confirmed=True), COMMS, [("sten", BEFORE)], False),
        (away("eva", "sten", confirmed=True), TWO, [("sten", NOON), ("omar", NOON)], True),
        (away("eva", "sten", confirmed=True), TWO, [("sten", NOON), ("eva", NOON)], False),
        # her own vote counts already
        (away("eva", "sten", confirmed=True), TWO, [("sten", NOON), ("eva", BEFORE)], False),
        (away("eva", "sten", confirmed=True, ended=BEFORE), COMMS, [("sten", NOON)], False),  # she is back
        (away("anna", "sten", confirmed=True), COMMS, [("sten", NOON)], False),  # for a person who is no approver
        (away("eva", "dpo"), BOTH, [("dpo", NOON), ("eva", NOON)], False),
        (away("eva", "omar"), BOTH, [("omar", NOON), ("dpo", NOON)], True),
        # she is back, and votes again
        (away("eva", "omar"), TWO, [("omar", NOON), ("eva", NOON), ("eva", NOON + timedelta(days=1))], True),
    ],
)
def test_an_absent_approver_and_the_deputy_are_one_vote(
    absence: Absence, quorum: Quorum, votes: list[tuple[str, datetime]], done: bool
) -> None:
    h = hold(quorum, votes=tuple(vote(who, at=at) for who, at in votes))
    assert complete(h, GROUPS.with_absences([absence]), open_at) is done


def test_no_deputy_decides_for_the_writer() -> None:
    groups = GROUPS.with_absences([away("eva", "sten", confirmed=True)])
    own = hold(COMMS, votes=(vote("sten"),), senders=frozenset({"eva@example.com"}))
    assert not entitled(own, "sten@example.com", groups, at=NOON, open_now=True)
    assert not complete(own, groups, open_at)
    others = hold(COMMS)
    assert entitled(others, "sten@example.com", groups, at=NOON, open_now=True)
    assert not entitled(others, "sten@example.com", groups, at=NOON + timedelta(days=1), open_now=True)
    assert not entitled(
        hold(COMMS, senders=frozenset({"sten@example.com"})), "sten@example.com", groups, at=NOON, open_now=True
    )


def test_a_deputy_of_two_approvers_has_one_vote() -> None:
    groups = GROUPS.with_absences([away("eva", "sten", confirmed=True), away("omar", "sten", confirmed=True)])
    assert not complete(hold(TWO, votes=(vote("sten"),)), groups, open_at)
    assert not complete(hold(TWO, votes=(vote("sten"), vote("eva"), vote("omar"))), groups, open_at)


def test_addresses_that_are_one_person_by_now_are_one_vote() -> None:
    """Also if they voted before the policy, or a directory, said so. The vote counts in all groups of the person."""
    one = frozenset({"eva@example.com", "dpo@example.com"})
    groups = replace(GROUPS, aliases=dict.fromkeys(one, one))
    assert complete(hold(BOTH, votes=(vote("eva"), vote("dpo"))), GROUPS, open_at)
    assert not complete(hold(BOTH, votes=(vote("eva"), vote("dpo"))), groups, open_at)
    assert complete(hold(BOTH, votes=(vote("eva"), vote("omar"))), groups, open_at)
    assert out_of_reach(hold(Quorum(groups=("compliance", "communications"), each=2)), groups)
    by_dpo = hold(COMMS, votes=(vote("eva"),), senders=frozenset({"dpo@example.com"}))
    assert not complete(by_dpo, groups, open_at), "they wrote it"
    assert not entitled(by_dpo, "eva@example.com", groups, at=NOON, open_now=True)


def test_votes_are_counted_for_the_groups_that_leave_the_fewest_seats() -> None:
    votes = [{"a", "b"}, {"a", "c"}, {"a", "c"}]
    assert seats_left(Quorum(groups=("a", "b", "c", "d")), votes) == ["d"]


def test_too_few_approvers_are_recognized() -> None:
    """Two can be found with everyone present. While Eva is away, only with a confirmed deputy from outside the groups."""
    h = hold(TWO)
    assert not out_of_reach(h, GROUPS, NOON)
    for absence, short in (
        (away("eva"), True),
        (away("eva", "omar"), True),
        (away("eva", "sten"), True),
        (away("eva", "sten", confirmed=True), False),
        (away("eva", "anna", confirmed=True), True),  # anna wrote it
        (away("eva", ended=BEFORE), False),
    ):
        groups = GROUPS.with_absences([absence])
        assert bool(out_of_reach(h, groups, NOON)) is short, absence
        assert not out_of_reach(h, groups), "anyone who returns can"


PEOPLE = ["a", "b", "c", "d"]


@settings(max_examples=150, deadline=None)
@given(
    groups=st.dictionaries(st.sampled_from(["g", "h"]), st.frozensets(st.sampled_from(PEOPLE), min_size=1), min_size=1),
    absences=st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(PEOPLE), st.booleans()), max_size=4),
    voters=st.lists(st.sampled_from(PEOPLE), unique=True),
    each=st.integers(1, 3),
)
def test_deputies_never_reduce_the_number_of_people(
    groups: dict[str, frozenset[str]], absences: list[tuple[str, str, bool]], voters: list[str], each: int
) -> None:
    """A complete quorum always has as many distinct people as it requires, and an absent person and their deputy count
    once."""
    named = Groups(
        people={g: frozenset(f"{p}@example.com" for p in people) for g, people in groups.items()},
        absences=tuple(away(a, b, confirmed=yes) for a, b, yes in absences if a != b),
    )
    quorum = Quorum(groups=tuple(groups), each=each)
    if complete(hold(quorum, votes=tuple(map(vote, voters))), named, open_at):
        assert len(voters) >= each * len(groups)
        for a, b, yes in absences:
            both = {a, b} <= set(voters) and a != b
            theirs = [g for g in groups if a in groups[g] and (yes or b in groups[g])]
            if both and theirs:
                assert len(voters) > each * len(groups)


@settings(max_examples=150, deadline=None)
@given(
    groups=st.dictionaries(st.sampled_from(["g", "h", "i"]), st.frozensets(st.sampled_from(PEOPLE)), max_size=3),
    asked=st.lists(st.sampled_from(["g", "h", "i"]), min_size=1, max_size=3, unique=True),
    each=st.integers(1, 2),
    voters=st.lists(st.sampled_from(PEOPLE), unique=True, max_size=4),
    one=st.frozensets(st.sampled_from(PEOPLE), max_size=2),
)
def test_counting_equals_trying_every_assignment(
    groups: dict[str, frozenset[str]], asked: list[str], each: int, voters: list[str], one: frozenset[str]
) -> None:
    """``one``: addresses that are one person."""
    named = {g: frozenset(f"{p}@example.com" for p in people) for g, people in groups.items()}
    seats = [g for g in asked for _ in range(each)]
    persons = {one if who in one else frozenset({who}) for who in voters}
    possible = any(
        all(not who.isdisjoint(groups.get(seat, ())) for who, seat in zip(people, seats, strict=True))
        for people in itertools.permutations(persons, len(seats))
    )
    both = frozenset(f"{p}@example.com" for p in one)
    h = hold(Quorum(groups=tuple(asked), each=each), votes=tuple(vote(v) for v in voters))
    assert complete(h, Groups(people=named, aliases=dict.fromkeys(both, both)), open_at) is possible
