"""A maker makes what the class makes."""

from __future__ import annotations

from dataclasses import field

import pytest

from smtpguard.mail.constant import changed, computed, constant, maker


@constant
class Letter:
    words: tuple[str, ...]
    language: str = "sv"
    counts: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.known["words"] = len(self.words)


def test_a_maker_takes_the_keywords_and_defaults_of_its_class() -> None:
    make = maker(Letter)
    assert make(words=("a",)) == Letter(words=("a",))
    assert make(language="en", words=(), counts={"x": 1}) == Letter(language="en", words=(), counts={"x": 1})
    one, other = make(words=("a", "b")), make(words=())
    assert one.counts is not other.counts
    assert (one.known, other.known) == ({"words": 2}, {"words": 0})
    with pytest.raises(TypeError):
        make(language="sv")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        make(words=(), colour="red")  # type: ignore[call-arg]


def test_a_changed_constant_is_a_copy_with_other_values() -> None:
    one = Letter(words=("a",), counts={"x": 1})
    other = changed(one, language="en", counts={})
    assert other == Letter(words=("a",), language="en", counts={})
    assert one == Letter(words=("a",), counts={"x": 1})
    with pytest.raises(AttributeError):
        changed(one, colour="red")


def test_a_computed_value_is_computed_once() -> None:
    asked = []

    class Sum:
        @computed
        def value(self) -> int:
            asked.append(self)
            return 3

    one = Sum()
    assert one.value + one.value == 6
    assert len(asked) == 1
