"""The chain and its proof: every single tampering is named where it begins, and erasing what may be erased is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.audit.chain import GENESIS, Bad, Clear, Entry, Seal, body_of, canonical, link, microseconds, verify
from smtpguard.audit.checkpoint import Checkpoint, genuine, parse, sign
from smtpguard.audit.event import Event, Kind

SECRET = b"s" * 32
SEAL = Seal(SECRET, "journal")
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
Pairs = list[tuple[Entry, Clear | None]]


def chain(n: int, *, prev: bytes = GENESIS, first: int = 1, mood: str = "calm") -> Pairs:
    made: Pairs = []
    for seq in range(first, first + n):
        private: dict[str, tuple[str, ...]] = {"from": (f"user{seq}@example.com",)} if seq % 2 else {}
        event = Event(kind=Kind.VERDICT, id=f"T{seq}", at=T0, data={"mood": mood}, private=private)
        body = body_of(event, SEAL)
        at = microseconds(T0) + seq
        hash = link(prev, seq, at, "verdict", event.id, body)
        entry = Entry(seq=seq, at=at, kind="verdict", id=event.id, body=body, prev=prev, hash=hash)
        made.append((entry, {"from": list(private["from"])} if private else None))
        prev = hash
    return made


def mark(pairs: Pairs, seq: int, *, base: bool = False) -> Checkpoint:
    entry = next(e for e, _ in pairs if e.seq == seq)
    return sign(SECRET, Checkpoint(journal="journal", seq=seq, at=0, hash=entry.hash, base=base))


def bad(pairs: Pairs, marks: Sequence[Checkpoint] = (), **more: Any) -> Bad:
    proof = verify(pairs, marks, SEAL, **more)
    assert not proof.ok
    assert proof.first_bad is not None
    return proof.first_bad


def rehash(entry: Entry, **changed: Any) -> Entry:
    new = replace(entry, **changed)
    return replace(new, hash=link(new.prev, new.seq, new.at, new.kind, new.id, new.body))


def test_a_whole_chain_is_whole() -> None:
    pairs = chain(20)
    proof = verify(pairs, [mark(pairs, 7), mark(pairs, 20)], SEAL)
    assert (proof.ok, proof.entries, proof.first_bad) == (True, 20, None)
    assert verify([], [], SEAL).ok


@pytest.mark.parametrize(
    "changed", [{"at": 5}, {"kind": "outcome"}, {"id": "T9"}, {"body": '{"data":{},"private":{}}'}, {"hash": b"x" * 32}]
)
@pytest.mark.parametrize("seq", [1, 10, 20])
def test_an_edited_entry_is_named(seq: int, changed: dict[str, Any]) -> None:
    pairs = chain(20)
    pairs[seq - 1] = (replace(pairs[seq - 1][0], **changed), pairs[seq - 1][1])
    found = bad(pairs)
    assert found.seq == seq
    assert found.problem.startswith("edited")


def test_an_entry_edited_with_its_hash_is_named_by_the_next() -> None:
    pairs = chain(20)
    pairs[9] = (rehash(pairs[9][0], body='{"data":{},"private":{}}'), None)
    found = bad(pairs)
    assert found.seq == 11
    assert found.problem.startswith("replaced")


@pytest.mark.parametrize("seq", [1, 2, 10, 19])
def test_a_missing_entry_is_named(seq: int) -> None:
    pairs = chain(20)
    del pairs[seq - 1]
    assert bad(pairs) == Bad(seq=seq, problem=f"missing: entry {seq} is gone")


def test_missing_entries_are_named() -> None:
    pairs = chain(20)
    del pairs[4:9]
    assert bad(pairs) == Bad(seq=5, problem="missing: entries 5 to 9 are gone")


def test_a_missing_entry_whose_gap_is_closed_is_named() -> None:
    pairs = chain(20)
    moved = [(replace(e, seq=e.seq - 1), c) for e, c in pairs[10:]]
    found = bad(pairs[:9] + moved)
    assert found.seq == 10


def test_an_inserted_entry_is_named() -> None:
    pairs = chain(20)
    new = rehash(pairs[9][0], prev=b"y" * 32, seq=10)
    shifted = [(replace(e, seq=e.seq + 1), c) for e, c in pairs[9:]]
    assert bad([*pairs[:9], (new, pairs[9][1]), *shifted]).seq == 10
    junk = replace(new, hash=b"z" * 32)
    found = bad([*pairs[:9], (junk, None), *shifted])
    assert (found.seq, found.problem.split(":")[0]) == (10, "inserted")


def test_an_inserted_entry_that_continues_the_chain_is_named_by_the_next() -> None:
    pairs = chain(20)
    new = rehash(pairs[8][0], prev=pairs[8][0].hash, seq=10)
    shifted = [(replace(e, seq=e.seq + 1), c) for e, c in pairs[9:]]
    assert bad([*pairs[:9], (new, pairs[8][1]), *shifted]).seq == 11


def test_reordered_entries_are_named() -> None:
    pairs = chain(20)
    a, b = pairs[4], pairs[11]
    pairs[4], pairs[11] = (replace(b[0], seq=5), b[1]), (replace(a[0], seq=12), a[1])
    found = bad(pairs)
    assert (found.seq, found.problem.split(":")[0]) == (5, "reordered")


def test_a_cut_tail_is_found_by_a_checkpoint_only() -> None:
    pairs = chain(20)
    marks = [mark(pairs, 10), mark(pairs, 18)]
    assert verify(pairs[:15], [], SEAL).ok
    found = bad(pairs[:15], marks)
    assert found.seq == 16
    assert "tail is cut" in found.problem
    assert "18" in found.problem


def test_a_whole_chain_recomputed_is_found_by_a_checkpoint_only() -> None:
    pairs = chain(20)
    forged = pairs[:5] + chain(15, prev=pairs[4][0].hash, first=6, mood="forged")
    assert verify(forged, [], SEAL).ok
    found = bad(forged, [mark(pairs, 4), mark(pairs, 12)])
    assert found.seq == 12
    assert "recomputed" in found.problem
    assert "after 4" in found.problem


def test_a_trimmed_chain_begins_after_its_base() -> None:
    pairs = chain(20)
    assert verify(pairs[10:], [mark(pairs, 10, base=True)], SEAL).ok
    assert bad(pairs[10:], [mark(pairs, 10)]) == Bad(seq=1, problem="missing: entries 1 to 10 are gone")
    assert bad(pairs[11:], [mark(pairs, 10, base=True)]).seq == 1


def test_clear_values_are_held_against_their_digests() -> None:
    pairs = chain(20)
    pairs[4] = (pairs[4][0], {"from": ["somebody.else@example.com"]})
    assert bad(pairs) == Bad(seq=5, problem="edited: private values do not fit their digests")
    pairs[4] = (pairs[4][0], {})
    assert bad(pairs).seq == 5
    without = chain(20)
    without[3] = (without[3][0], {"from": ["invented@example.com"]})
    assert bad(without).seq == 4


def test_erasing_clear_values_leaves_the_chain_whole_and_only_as_far_as_retention_says() -> None:
    pairs = [(e, None if e.seq <= 9 else c) for e, c in chain(20)]
    assert verify(pairs, [], SEAL, erased_through=9).ok
    assert bad(pairs, erased_through=8) == Bad(seq=9, problem="private values are missing")


def test_digests_need_the_key_the_journal_and_the_role() -> None:
    assert Seal(SECRET, "journal").of("from", "a@b.c") == SEAL.of("from", "a@b.c")
    others = [Seal(b"t" * 32, "journal").of("from", "a@b.c"), Seal(SECRET, "other").of("from", "a@b.c")]
    others.append(SEAL.of("recipients", "a@b.c"))
    assert SEAL.of("from", "a@b.c") not in others
    assert "a@b.c" not in body_of(chain_event(), SEAL)


def chain_event() -> Event:
    return Event(kind=Kind.VOTE, id="H1", at=T0, data={"a": 1}, private={"actor": ("a@b.c",)})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
@settings(max_examples=60, deadline=None)
def test_canonical_is_one_text_a_value(value: Any) -> None:
    text = canonical(value)
    assert text.isascii()
    assert canonical(value if not isinstance(value, dict) else dict(reversed(value.items()))) == text


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", {1: float("nan"), "a": object()}])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical({"x": value})


@given(
    st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)),
    st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)),
)
@settings(max_examples=100, deadline=None)
def test_no_two_entries_share_a_text(a: tuple[str, str, str], b: tuple[str, str, str]) -> None:
    assert (link(GENESIS, 1, 1, *a) == link(GENESIS, 1, 1, *b)) == (a == b)


def test_times_are_exact() -> None:
    at = T0 + timedelta(microseconds=123_457)
    entry = replace(chain(1)[0][0], at=microseconds(at))
    assert entry.time == at
    assert entry.data == {"mood": "calm"}


class TestCheckpoints:
    def test_a_line_comes_back(self) -> None:
        made = mark(chain(3), 2, base=True)
        assert parse(made.line()) == made
        assert genuine(SECRET, parse(made.line()))

    @pytest.mark.parametrize(
        "changed", [{"journal": "x"}, {"seq": 9}, {"at": 9}, {"hash": b"x" * 32}, {"base": True}, {"mac": b""}]
    )
    def test_nothing_in_it_can_be_changed(self, changed: dict[str, Any]) -> None:
        assert not genuine(SECRET, replace(mark(chain(3), 2), **changed))

    def test_another_installation_did_not_sign_it(self) -> None:
        assert not genuine(b"t" * 32, mark(chain(3), 2))

    @pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"seq": "x"}', "\x00", '{"journal": "j", "seq": 1}'])
    def test_what_is_none_is_refused(self, line: str) -> None:
        with pytest.raises(ValueError, match="not a checkpoint"):
            parse(line)
