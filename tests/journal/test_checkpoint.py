"""Whether checkpoints agree with a chain: after a restore, which disagreement is excused and which never is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.journal.chain import GENESIS
from smtpguard.journal.checkpoint import Agreement, Checkpoint, Lost, genuine, parse, sign
from smtpguard.journal.proof import Proof
from tests.every import every
from tests.journal.chaining import SECRET, FixedRetention, Pairs, chain, verify


class Store:
    """A chain that grows, is signed and restored. Every signed line is kept, as in the file of checkpoints."""

    def __init__(self) -> None:
        self.pairs: Pairs = []
        self.lines: list[Checkpoint] = []
        self.times = 0

    def grow(self, n: int) -> None:
        prev = self.pairs[-1][0].hash if self.pairs else GENESIS
        self.times += 1
        self.pairs += chain(n, prev=prev, first=len(self.pairs) + 1, mood=f"of {self.times}")

    def sign(self, **says: int) -> Checkpoint:
        self.times += 1
        last = self.pairs[-1][0]
        unsigned = Checkpoint(
            journal="journal", seq=last.seq, at=self.times, hash=last.hash, put_back=says.get("put_back")
        )
        made = sign(SECRET, unsigned)
        self.lines.append(made)
        return made

    def put_back(self, to: int) -> None:
        """Restore the first ``to`` entries. If a checkpoint shows it, it is journalled and signed."""
        self.pairs = self.pairs[:to]
        agreement = Agreement(self.lines)
        for entry, _ in self.pairs:
            agreement.compare(entry.seq, entry.hash)
        parted, _ = agreement.finish()
        if parted:
            self.grow(1)
            self.sign(put_back=parted[0].agreed)

    def proof(self, pairs: Pairs | None = None) -> Proof:
        return verify(self.pairs if pairs is None else pairs, Agreement(self.lines), FixedRetention())


def restored_once() -> Store:
    store = Store()
    store.grow(10)
    store.sign()
    store.grow(5)
    store.sign()
    store.put_back(12)
    return store


def test_a_lost_tail_that_was_reported_is_excused() -> None:
    store = restored_once()
    first, second, said = store.lines
    assert (said.seq, said.put_back) == (13, 10)
    store.grow(9)
    store.sign()
    proof = store.proof()
    assert (proof.ok, proof.entries) == (True, 22)
    assert proof.lost == (Lost(seq=13, at=said.at, through=15, signed_at=second.at, since=first.at),)


def test_a_restore_is_told_without_checkpoints_of_what_is_lost() -> None:
    store = restored_once()
    first, _, said = store.lines
    store.lines = [first, said]
    assert store.proof().lost == (Lost(seq=13, at=said.at, through=0, signed_at=said.at, since=first.at),)


def test_only_a_signed_report_excuses_it() -> None:
    store = restored_once()
    *others, said = store.lines
    store.lines = [*others, replace(said, mac=b"forged")]
    agreement = Agreement([line for line in store.lines if genuine(SECRET, line)], store.lines[-1:])
    assert not verify(store.pairs, agreement, FixedRetention()).ok


def test_checkpoints_before_the_restored_entry_are_never_excused() -> None:
    """A forgery before the agreed entry is never excused, nor a cut of entries signed after the restore."""
    store = restored_once()
    assert not store.proof(chain(9, mood="forged") + store.pairs[9:]).ok
    store.grow(4)
    store.sign()
    found = store.proof(store.pairs[:15]).first_bad
    assert found is not None
    assert found.problem.startswith("the tail is cut")


def test_a_report_on_a_lost_branch_excuses_nothing() -> None:
    store = restored_once()
    store.grow(6)
    store.sign()
    assert not store.proof(store.pairs[:12]).ok
    store.put_back(12)
    proof = store.proof()
    assert proof.ok
    assert [(lost.seq, lost.through) for lost in proof.lost] == [(13, 19)]


def test_a_checkpoint_of_another_secret_must_still_agree() -> None:
    store = Store()
    store.grow(10)
    made = sign(b"another" * 5, Checkpoint(journal="journal", seq=5, at=1, hash=store.pairs[4][0].hash))
    assert verify(store.pairs, Agreement([], [made]), FixedRetention()).ok
    for wrong in (replace(made, seq=6), replace(made, seq=11)):
        found = verify(store.pairs, Agreement([], [wrong]), FixedRetention()).first_bad
        assert found is not None
        assert "was not signed here" in found.problem


def test_digests_of_another_secret_are_not_compared() -> None:
    pairs = chain(10)
    pairs[4] = (pairs[4][0], {"from": ["somebody.else@example.com"]})
    assert not verify(pairs, Agreement([]), FixedRetention(), renewed=5).ok
    proof = verify(pairs, Agreement([]), FixedRetention(), renewed=6)
    assert (proof.ok, proof.renewed) == (True, 6)
    pairs[2] = (pairs[2][0], None)
    found = verify(pairs, Agreement([]), FixedRetention(), renewed=6).first_bad
    assert found is not None, "its absence is found without the secret"
    assert found.problem == "private values are missing"


@every(
    "says",
    [
        {},
        {"base": True},
        {"put_back": 0},
        {"put_back": 41},
        {"renewed": True},
        {"base": True, "put_back": 3, "renewed": True},
    ],
)
def test_every_field_of_a_checkpoint_is_signed(says: dict[str, int]) -> None:
    made = sign(SECRET, Checkpoint(journal="journal", seq=44, at=7, hash=b"h" * 32, **says))  # type: ignore[arg-type]
    assert parse(made.line()) == made
    assert genuine(SECRET, made)
    for other in ({"base": not made.base}, {"put_back": 42}, {"renewed": not made.renewed}, {"at": 8}):
        assert not genuine(SECRET, replace(made, **other))


@every("line", ["", "{", "[]", "1", '{"journal": "j", "seq": 1, "at"', '{"journal": "j"}'])
def test_a_truncated_line_is_no_checkpoint(line: str) -> None:
    with pytest.raises(ValueError, match="not a checkpoint"):
        parse(line)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), st.integers(1, 6)),
        st.tuples(st.just("sign"), st.just(0)),
        st.tuples(st.just("put back"), st.integers(0, 30)),
    ),
    min_size=1,
    max_size=14,
)


@given(steps, st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_any_series_of_restores_verifies_and_forgeries_do_not(steps: list[tuple[str, int]], where: int) -> None:
    store = Store()
    store.grow(1)
    for what, n in steps:
        if what == "grow":
            store.grow(n)
        elif what == "sign" and store.pairs:
            store.sign()
        elif what == "put back":
            store.put_back(min(n, len(store.pairs)))
    store.grow(1)
    store.sign()
    assert store.proof().ok
    at = where % len(store.pairs)
    assert not store.proof(store.pairs[:at]).ok, "a cut tail"
    forged = store.pairs[:at] + chain(
        len(store.pairs) - at, prev=store.pairs[at - 1][0].hash if at else GENESIS, first=at + 1, mood="forged"
    )
    assert not store.proof(forged).ok, "recomputed from there on"
