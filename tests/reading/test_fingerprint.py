"""Sketches: personalised copies are close to each other, different mailings far apart."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.reading.fingerprint import SAME, SIZE, Sketch, distance, same, sketch

WORDS = [
    a + b
    for a in ("ba", "ko", "mi", "ta", "ru", "se", "no", "pe")
    for b in ("lan", "ster", "vik", "dal", "mo", "rin", "tor", "ga")
]


def mailing(seed: int) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(4, 14))) + "." for _ in range(20)]


def copy(sentences: list[str], name: str, n: int) -> str:
    return (
        f"Hej {name}, kundnummer {n}!\n"
        + " ".join(sentences)
        + f"\nhttps://news.example.com/u/{n}?k={name}\n{name}@example.org"
    )


def test_copies_are_near_and_others_far() -> None:
    sketches = [[sketch(copy(mailing(m), f"Kund{c}", 1000 * m + c)) for c in range(4)] for m in range(8)]
    for i, mine in enumerate(sketches):
        for one in mine:
            assert all(distance(one, other) <= 0.2 for other in mine)
            for j, theirs in enumerate(sketches):
                if i != j:
                    assert all(distance(one, other) > SAME for other in theirs)


def test_empty_sketches_are_never_the_same() -> None:
    assert not sketch("")
    assert not sketch("12 34 !!")
    assert distance(Sketch(), sketch("one whole sentence here")) == 1
    assert not same(Sketch(), Sketch())


@given(st.text(max_size=500), st.text(max_size=500))
@settings(max_examples=60, deadline=None)
def test_distance_is_a_bounded_symmetric_measure(a: str, b: str) -> None:
    one, other = sketch(a), sketch(b)
    assert len(one.numbers) <= SIZE
    assert Sketch.of(one.numbers) == Sketch.unpack(one.pack()) == one
    assert set(one.keys) <= set(one.numbers)
    assert distance(one, one) == (0 if one else 1)
    assert distance(one, other) == distance(other, one)
    assert 0 <= distance(one, other) <= 1
