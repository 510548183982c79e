"""What went otherwise is remembered in a fixed size: nothing is forgotten, and next to nothing is taken for it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.hindsight.divergence import BloomFilter


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=200))
def test_nothing_is_forgotten(words: list[str]) -> None:
    marks = BloomFilter(counting=True)
    for word in words:
        marks.add(word)
    assert all(word in marks for word in words)
    assert all(marks.times(word) >= words.count(word) for word in words)


def test_what_never_came_is_not_found() -> None:
    marks = BloomFilter(counting=True)
    assert "M" not in marks
    for n in range(50_000):
        marks.add(f"M{n}")
    assert sum(f"N{n}" in marks for n in range(50_000)) == 0
    assert sum(marks.times(f"M{n}") > 1 for n in range(50_000)) < 500, "nor is it counted more often than it came"
