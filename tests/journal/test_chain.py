"""The chain: one encoding for a value, digests that need their key, checkpoints that need the secret."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.journal.chain import GENESIS, Seal, body_of, canonical, link, microseconds
from smtpguard.journal.checkpoint import genuine, parse
from smtpguard.journal.event import Event, Kind
from tests.every import every
from tests.journal.chaining import SEAL, SECRET, T0, chain, mark


def test_digests_depend_on_key_journal_and_role() -> None:
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
def test_a_value_has_one_canonical_text(value: Any) -> None:
    text = canonical(value)
    assert text.isascii()
    assert canonical(value if not isinstance(value, dict) else dict(reversed(value.items()))) == text


@every("value", [{1, 2}, object(), b"bytes", {1: float("nan"), "a": object()}])
def test_values_without_json_are_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical({"x": value})


@given(
    st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)),
    st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)),
)
@settings(max_examples=100, deadline=None)
def test_different_entries_have_different_hashes(a: tuple[str, str, str], b: tuple[str, str, str]) -> None:
    assert (link(GENESIS, 1, 1, *a) == link(GENESIS, 1, 1, *b)) == (a == b)


def test_times_are_exact() -> None:
    at = T0 + timedelta(microseconds=123_457)
    entry = replace(chain(1)[0][0], at=microseconds(at))
    assert entry.time == at
    assert entry.data == {"mood": "calm"}


class TestCheckpoints:
    def test_a_checkpoint_line_reads_back(self) -> None:
        made = mark(chain(3), 2, base=True)
        assert parse(made.line()) == made
        assert genuine(SECRET, parse(made.line()))

    @pytest.mark.parametrize(
        "changed", [{"journal": "x"}, {"seq": 9}, {"at": 9}, {"hash": b"x" * 32}, {"base": True}, {"mac": b""}]
    )
    def test_a_changed_checkpoint_is_not_genuine(self, changed: dict[str, Any]) -> None:
        assert not genuine(SECRET, replace(mark(chain(3), 2), **changed))

    def test_a_checkpoint_of_another_installation_is_not_genuine(self) -> None:
        assert not genuine(b"t" * 32, mark(chain(3), 2))

    @pytest.mark.parametrize("line", ["", "{}", "[]", "null", '{"seq": "x"}', "\x00", '{"journal": "j", "seq": 1}'])
    def test_an_invalid_checkpoint_is_refused(self, line: str) -> None:
        with pytest.raises(ValueError, match="not a checkpoint"):
            parse(line)
