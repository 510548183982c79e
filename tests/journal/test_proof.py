"""The chain and its proof: each kind of tampering is named at its first entry, and permitted erasing is none, even
during a walk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.journal.chain import GENESIS, Entry, body_of, link, microseconds
from smtpguard.journal.checkpoint import Agreement, Checkpoint
from smtpguard.journal.event import Event, Kind
from smtpguard.journal.proof import Bad, Position, Proof, Retention, Sources
from tests.every import every
from tests.journal.chaining import SEAL, T0, ChangingJournal, FixedRetention, Pairs, chain, mark, rehash, verify


def bad(pairs: Pairs, marks: Sequence[Checkpoint] = (), retention: Retention | None = None, **more: Any) -> Bad:
    proof = verify(pairs, Agreement(marks), retention or FixedRetention(), **more)
    assert not proof.ok
    assert proof.first_bad is not None
    return proof.first_bad


def test_a_whole_chain_verifies() -> None:
    pairs = chain(20)
    proof = verify(pairs, Agreement([mark(pairs, 7), mark(pairs, 20)]), FixedRetention())
    assert (proof.ok, proof.entries, proof.first_bad) == (True, 20, None)
    assert verify([], Agreement([]), FixedRetention()).ok


@pytest.mark.parametrize(
    "changed", [{"at": 5}, {"kind": "outcome"}, {"id": "T9"}, {"body": '{"data":{},"private":{}}'}, {"hash": b"x" * 32}]
)
@pytest.mark.parametrize("seq", [1, 10, 20])
def test_an_edited_entry_is_reported(seq: int, changed: dict[str, Any]) -> None:
    pairs = chain(20)
    pairs[seq - 1] = (replace(pairs[seq - 1][0], **changed), pairs[seq - 1][1])
    found = bad(pairs)
    assert found.seq == seq
    assert found.problem.startswith("edited")


def test_an_edited_entry_with_new_hash_is_reported_at_the_next() -> None:
    pairs = chain(20)
    pairs[9] = (rehash(pairs[9][0], body='{"data":{},"private":{}}'), None)
    found = bad(pairs)
    assert found.seq == 11
    assert found.problem.startswith("replaced")


@every("changed", [{"at": "5x"}, {"body": b'{"data":{},"private":{}}'}])
def test_a_value_of_another_type_is_reported(changed: dict[str, Any]) -> None:
    """SQLite stores any type in any column."""
    pairs = chain(20)
    pairs[19] = (rehash(pairs[19][0], **changed), pairs[19][1])
    assert bad(pairs) == Bad(seq=20, problem="edited: the entry does not fit its hash")


@every("seq", [1, 2, 10, 19])
def test_a_missing_entry_is_reported(seq: int) -> None:
    pairs = chain(20)
    del pairs[seq - 1]
    assert bad(pairs) == Bad(seq=seq, problem=f"missing: entry {seq} is gone")


def test_several_missing_entries_are_reported() -> None:
    pairs = chain(20)
    del pairs[4:9]
    assert bad(pairs) == Bad(seq=5, problem="missing: entries 5 to 9 are gone")


def test_a_missing_entry_with_renumbered_followers_is_reported() -> None:
    pairs = chain(20)
    moved = [(replace(e, seq=e.seq - 1), c) for e, c in pairs[10:]]
    found = bad(pairs[:9] + moved)
    assert found.seq == 10


def test_an_inserted_entry_is_reported() -> None:
    pairs = chain(20)
    new = rehash(pairs[9][0], prev=b"y" * 32, seq=10)
    shifted = [(replace(e, seq=e.seq + 1), c) for e, c in pairs[9:]]
    assert bad([*pairs[:9], (new, pairs[9][1]), *shifted]).seq == 10
    junk = replace(new, hash=b"z" * 32)
    found = bad([*pairs[:9], (junk, None), *shifted])
    assert (found.seq, found.problem.split(":")[0]) == (10, "inserted")


def test_an_inserted_chained_entry_is_reported_at_the_next() -> None:
    pairs = chain(20)
    new = rehash(pairs[8][0], prev=pairs[8][0].hash, seq=10)
    shifted = [(replace(e, seq=e.seq + 1), c) for e, c in pairs[9:]]
    assert bad([*pairs[:9], (new, pairs[8][1]), *shifted]).seq == 11


def test_reordered_entries_are_reported() -> None:
    pairs = chain(20)
    a, b = pairs[4], pairs[11]
    pairs[4], pairs[11] = (replace(b[0], seq=5), b[1]), (replace(a[0], seq=12), a[1])
    found = bad(pairs)
    assert (found.seq, found.problem.split(":")[0]) == (5, "reordered")


def test_a_cut_tail_is_found_only_by_a_checkpoint() -> None:
    pairs = chain(20)
    marks = [mark(pairs, 10), mark(pairs, 18)]
    assert verify(pairs[:15], Agreement([]), FixedRetention()).ok
    found = bad(pairs[:15], marks)
    assert found.seq == 16
    assert "tail is cut" in found.problem
    assert "18" in found.problem


def test_a_recomputed_chain_is_found_only_by_a_checkpoint() -> None:
    pairs = chain(20)
    forged = pairs[:5] + chain(15, prev=pairs[4][0].hash, first=6, mood="forged")
    assert verify(forged, Agreement([]), FixedRetention()).ok
    found = bad(forged, [mark(pairs, 4), mark(pairs, 12)])
    assert found.seq == 12
    assert "recomputed" in found.problem
    assert "after 4" in found.problem


def test_a_trimmed_chain_begins_after_its_base() -> None:
    pairs = chain(20)
    assert verify(pairs[10:], Agreement([mark(pairs, 10, base=True)]), FixedRetention()).ok
    assert bad(pairs[10:], [mark(pairs, 10)]) == Bad(seq=1, problem="missing: entries 1 to 10 are gone")
    assert bad(pairs[11:], [mark(pairs, 10, base=True)]).seq == 1


def test_clear_values_are_compared_with_their_digests() -> None:
    pairs = chain(20)
    pairs[4] = (pairs[4][0], {"from": ["somebody.else@example.com"]})
    assert bad(pairs) == Bad(seq=5, problem="edited: private values do not fit their digests")
    pairs[4] = (pairs[4][0], {})
    assert bad(pairs).seq == 5
    without = chain(20)
    without[3] = (without[3][0], {"from": ["invented@example.com"]})
    assert bad(without).seq == 4


def test_clear_values_may_be_missing_only_within_retention() -> None:
    pairs = [(e, None if e.seq <= 9 else c) for e, c in chain(20)]
    assert verify(pairs, Agreement([]), FixedRetention(erased_through=9)).ok
    assert bad(pairs, retention=FixedRetention(erased_through=8)) == Bad(seq=9, problem="private values are missing")


@every("clear", [{"from": [5]}, {"from": 5}, {"": ["rubbish"]}, ["from"], "from", {"from": None}])
def test_invalid_clear_values_are_reported(clear: Any) -> None:
    for seq in (3, 4):
        pairs = chain(6)
        pairs[seq - 1] = (pairs[seq - 1][0], clear)
        assert bad(pairs) == Bad(seq=seq, problem="edited: private values do not fit their digests")


@every("body", ["", "rubbish", "[]", '{"private":7}', "null"])
def test_an_invalid_last_entry_is_reported(body: str) -> None:
    pairs = chain(5)
    pairs[4] = (rehash(pairs[4][0], body=body), pairs[4][1])
    assert bad(pairs).seq == 5


# -- the end


def the_end(pairs: Pairs) -> Position:
    return Position(seq=pairs[-1][0].seq, hash=pairs[-1][0].hash)


def test_entries_after_the_end_are_not_checked() -> None:
    journal = ChangingJournal(chain(10))
    journal.between = lambda page: journal.grow(3)
    assert verify(journal.walk(10), Agreement([]), journal, end=the_end(chain(10))) == Proof(entries=10)


def test_a_walk_that_misses_its_end_is_reported() -> None:
    pairs = chain(20)
    found = bad(pairs[:15], end=the_end(pairs))
    assert found == Bad(seq=16, problem="the tail is cut: the journal had entries up to 20")
    assert bad([], end=the_end(pairs)).seq == 1
    assert bad(pairs[:15], [mark(pairs, 18)], end=the_end(pairs)).problem.startswith(
        "the tail is cut, or this is an older copy: a signed checkpoint"
    )


def test_another_entry_at_the_end_is_reported() -> None:
    pairs = chain(20)
    pairs[19] = (rehash(pairs[19][0], at=1), pairs[19][1])
    assert verify(pairs, Agreement([]), FixedRetention()).ok
    assert bad(pairs, end=the_end(chain(20))).seq == 20


# -- retention during a walk

HEAD = the_end(chain(30))


def walked(between: Callable[[ChangingJournal, int], None], marks: Sequence[Checkpoint] = ()) -> Proof:
    """Walk over thirty entries in pages of four; ``between`` is called after each page."""
    journal = ChangingJournal(chain(30))
    journal.between = lambda page: between(journal, page)
    return verify(journal.walk(30), Agreement(marks), journal, end=HEAD)


@every("through", [1, 3, 4, 5, 8, 9, 20, 29])
def test_a_trim_during_the_walk_is_no_tampering(through: int) -> None:
    proof = walked(lambda journal, page: journal.trim(through) if page == 1 else None)
    assert (proof.first_bad, proof.entries) == (None, 4 + 30 - max(through, 4))


def test_repeated_trims_during_the_walk_are_no_tampering() -> None:
    proof = walked(lambda journal, page: journal.trim(page * 7))
    assert (proof.ok, proof.entries) == (True, 4 * 4 + 2)


def test_a_trim_of_all_remaining_entries_is_no_tampering() -> None:
    def between(journal: ChangingJournal, page: int) -> None:
        journal.grow(5)
        journal.trim(33)

    assert walked(between) == Proof(entries=4)


@every("through", [4, 5, 12, 30])
def test_names_erased_ahead_of_the_walk_are_not_missing(through: int) -> None:
    assert walked(lambda journal, page: journal.erase(through) if page == 1 else None) == Proof(entries=30)


def test_a_gap_without_a_base_is_reported() -> None:
    def between(journal: ChangingJournal, page: int) -> None:
        if page == 1:
            journal.trim(10)
            del journal.pairs[14]

    assert walked(between).first_bad == Bad(seq=14, problem="missing: entry 14 is gone")


@every("left", [1, 4, 12])
def test_a_base_excuses_no_gap_after_existing_entries(left: int) -> None:
    """A base explains no gap while an entry before its end exists: trimming starts at the beginning."""

    def between(journal: ChangingJournal, page: int) -> None:
        if page == 1:
            kept = journal.pairs[left]
            journal.trim(12)
            journal.pairs[left] = kept

    found = walked(between).first_bad
    assert found is not None
    assert found.problem.startswith("missing")


def test_names_missing_without_a_recorded_erasure_are_reported() -> None:
    def between(journal: ChangingJournal, page: int) -> None:
        if page == 1:
            journal.erase(12)
            journal.pairs[15] = (journal.pairs[15][0], None)

    assert walked(between).first_bad == Bad(seq=15, problem="private values are missing")


@every(("seq", "found"), [(3, None), (4, None), (5, 5), (30, 30)])
def test_edits_ahead_of_the_walk_are_found_and_behind_it_by_the_next(seq: int, found: int | None) -> None:
    journals = []

    def between(journal: ChangingJournal, page: int) -> None:
        if page == 1:
            journal.pairs[seq] = (replace(journal.pairs[seq][0], at=5), journal.pairs[seq][1])
            journals.append(journal)

    first = walked(between).first_bad
    assert (first.seq if first is not None else None) == found
    [journal] = journals
    journal.between = lambda page: None
    assert bad(list(journal.walk(30)), end=HEAD).seq == seq


actions = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), st.integers(1, 6)),
        st.tuples(st.just("erase"), st.integers(1, 60)),
        st.tuples(st.just("trim"), st.integers(1, 60)),
        st.just(("", 0)),
    ),
    max_size=12,
)


@given(actions, st.integers(1, 9), st.integers(1, 40), st.none() | st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_mail_and_retention_are_no_tampering_and_edits_are_found(
    done: list[tuple[str, int]], size: int, n: int, tampered: int | None
) -> None:
    """Mail and retention during a walk are no tampering. An edit of the last entry is found, unless the walk has passed
    it."""
    journal = ChangingJournal(chain(n))
    end = the_end(chain(n))
    edited = False

    def between(page: int) -> None:
        nonlocal edited
        name, value = done[page - 1] if page <= len(done) else ("", 0)
        if name:
            getattr(journal, name)(value)
        if page == tampered and n in journal.pairs and journal.at < n:
            journal.pairs[n] = (replace(journal.pairs[n][0], id="other"), journal.pairs[n][1])
            edited = True

    journal.between = between
    proof = verify(journal.walk(n, size), Agreement([]), journal, end=end)
    if not edited or n not in journal.pairs:
        assert proof.ok, proof
    else:
        assert proof.first_bad is not None
        assert proof.first_bad.seq == n


# -- the entries of a report


def report_and_walk(pairs: Pairs, walk: Pairs, retention: Retention | None = None) -> tuple[Proof, bool]:
    """Make a report of ``pairs``, and then walk over ``walk``."""
    sources, kept = Sources(SEAL), retention or FixedRetention()
    for pair in pairs:
        sources.add(*pair)
    proof = verify(walk, Agreement([]), kept, visits=[sources.visit()])
    return sources.proved(proof, kept), sources.has_trimmed


def test_entries_read_for_a_report_are_proved_in_any_order() -> None:
    pairs = chain(20)
    assert report_and_walk([pairs[n] for n in (7, 3, 19, 3, 0)], pairs) == (Proof(entries=20), False)
    assert report_and_walk([], pairs) == (Proof(entries=20), False)


def test_an_entry_changed_after_the_report_is_reported() -> None:
    pairs = chain(20)
    forged = (rehash(pairs[6][0], id="T99"), pairs[6][1])
    proof, _ = report_and_walk([pairs[2], forged, pairs[9]], pairs)
    assert proof.first_bad == Bad(seq=7, problem="edited: the report was made of another entry of this number")


def test_an_entry_wrong_in_the_report_is_reported() -> None:
    pairs = chain(20)
    edited = (replace(pairs[6][0], id="T99"), pairs[6][1])
    named = (pairs[4][0], {"from": ["somebody.else@example.com"]})
    assert report_and_walk([edited], pairs)[0].first_bad == Bad(
        seq=7, problem="edited: the entry does not fit its hash"
    )
    proof = report_and_walk([edited, named], pairs)[0]
    assert proof.first_bad == Bad(seq=5, problem="edited: private values do not fit their digests")


def test_names_missing_from_the_report_must_be_erased() -> None:
    pairs = chain(20)
    without: Pairs = [(entry, None) for entry, _ in pairs]
    assert report_and_walk(without[:9], pairs)[0].first_bad == Bad(seq=9, problem="private values are missing")
    gone = [*without[:9], *pairs[9:]]
    assert report_and_walk(without[:9], gone, FixedRetention(erased_through=9)) == (Proof(entries=20), False)
    assert report_and_walk(pairs[:9], gone, FixedRetention(erased_through=9)) == (Proof(entries=20), False), (
        "erased after the report was made"
    )


def test_entries_trimmed_before_the_walk_are_noted() -> None:
    pairs = chain(20)
    kept = FixedRetention(trimmed=mark(pairs, 10, base=True))
    assert report_and_walk([pairs[5], pairs[15]], pairs[10:], kept) == (Proof(entries=10), True)
    assert report_and_walk([pairs[10], pairs[15]], pairs[10:], kept) == (Proof(entries=10), False)
    late = [*pairs[:3], *pairs[6:]]  # read before the trim, and skipped by the walk
    assert report_and_walk([pairs[7]], late, kept) == (Proof(entries=13), True)


def test_a_broken_chain_is_reported_first() -> None:
    pairs = chain(20)
    edited = (replace(pairs[6][0], id="T99"), pairs[6][1])
    walk = [*pairs[:3], (replace(pairs[3][0], at=1), None), *pairs[4:]]
    found = report_and_walk([edited], walk)[0].first_bad
    assert found is not None
    assert found.seq == 4


def _gate(kind: Kind, generation: int | None) -> Event:
    return Event(kind=kind, id="G", at=T0, data={} if generation is None else {"gate": generation})


def _decided(generation: int) -> Event:
    return Event(kind=Kind.VERDICT, id="T", at=T0, data={"action": "relay", "generation": generation})


def _chained(*events: Event) -> Pairs:
    made: Pairs = []
    prev = GENESIS
    for seq, event in enumerate(events, 1):
        body, at, kind = body_of(event, SEAL), microseconds(T0) + seq, event.kind.value
        hash = link(prev, seq, at, kind, event.id, body)
        made.append((Entry(seq=seq, at=at, kind=kind, id=event.id, body=body, prev=prev, hash=hash), None))
        prev = hash
    return made


@every("kind", [Kind.FREEZE, Kind.THAW, Kind.POLICY, Kind.SECRET])
def test_a_verdict_after_the_end_of_its_generation_is_reported(kind: Kind) -> None:
    late = _chained(_gate(Kind.POLICY, 1), _decided(1), _gate(kind, 2), _decided(2), _decided(1))

    def proved(pairs: Pairs) -> Proof:
        return verify(pairs, Agreement([]), FixedRetention())

    found = proved(late)
    assert found.first_bad is not None
    assert (found.first_bad.seq, str(found.first_bad.problem)[:16]) == (5, "out of its place")
    assert proved(late[:4]).ok
    assert proved(_chained(_gate(kind, None), _decided(3), _gate(kind, None), _decided(2))).ok, "of an earlier version"
