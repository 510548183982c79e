"""Alignment of two sequences: stretches are equal and in order, and the time grows with the length."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.mailings import alignment
from smtpguard.mailings.alignment import opcodes, stretches

some = st.lists(st.integers(0, 6), max_size=60)


@pytest.mark.parametrize("most", [0, 20, alignment.MOST])
@given(one=some, other=some)
def test_stretches_are_equal_and_in_order(most: int, one: list[int], other: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "MOST", most)
        found = stretches(one, other)
        codes = opcodes(one, other)
    i = j = 0
    for a, b, n in found:
        assert a >= i
        assert b >= j
        assert n > 0
        assert one[a : a + n] == other[b : b + n]
        i, j = a + n, b + n
    assert [code[1:] for code in codes][:1] == ([(0, *codes[0][2:3], 0, *codes[0][4:])] if codes else [])
    assert all(x[2] == y[1] and x[4] == y[3] for x, y in itertools.pairwise(codes)), "nothing is left out"
    assert (codes[-1][2], codes[-1][4]) == (len(one), len(other)) if codes else not one and not other
    for op, i1, i2, j1, j2 in codes:
        assert (op == "equal") == (one[i1:i2] == other[j1:j2])


@given(some)
def test_equal_sequences_are_one_stretch(one: list[int]) -> None:
    assert stretches(one, one) == ([(0, 0, len(one))] if one else [])


def test_single_differences_in_a_long_text_are_found() -> None:
    draw = random.Random(3)
    one = [draw.choice("abcdefghijklmnopqrstuvwxyz") + draw.choice("abcdef") for _ in range(20_000)]
    other = list(one)
    for at in range(500, 20_000, 1_000):
        other[at] = "!"
    assert [code[1:3] for code in opcodes(one, other) if code[0] != "equal"] == [
        (at, at + 1) for at in range(500, 20_000, 1_000)
    ]


@pytest.mark.parametrize("kind", ["of two", "of one", "of none"])
def test_time_grows_about_linearly(kind: str) -> None:
    """The time grows with the length: ten times the length takes less than 60 times the processor time, with room for a
    slow machine."""

    def taken(n: int) -> float:
        draw = random.Random(n)
        letters = {"of two": ("ab", "ab"), "of one": ("a", "a"), "of none": ("a", "b")}[kind]
        one, other = ([draw.choice(these) for _ in range(n)] for these in letters)
        one[0], other[0], one[-1], other[-1] = "x", "y", "x", "y"
        began = time.process_time()
        stretches(one, other)
        return time.process_time() - began

    taken(1_000)
    assert taken(40_000) < 60 * (taken(4_000) + 0.05)
