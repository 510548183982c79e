"""Delays of password guesses: by name, by address, in turn, and limited. The test sets the clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.wire.guesses import Guesses, GuessLimits
from tests.clocks import Seconds

HERE, THERE = "192.0.2.1", "192.0.2.2"


def guessed(guesses: Guesses, n: int, address: str = HERE, name: str = "anna") -> None:
    for guess in range(n):
        guesses.wrong(address, name, f"{name} {guess}".encode())


def test_the_first_attempts_are_free() -> None:
    guesses = Guesses(Seconds())
    guessed(guesses, 2)
    assert guesses.wait(HERE, "anna") == 0


def test_delays_grow_to_a_limit() -> None:
    clock = Seconds()
    guesses, waits = Guesses(clock), []
    for n in range(9):
        waits.append(guesses.wait(HERE, "anna"))
        clock.now += waits[-1] or 0
        guesses.wrong(HERE, "anna", str(n).encode())
    assert waits == [0, 0, 0, 1, 2, 4, 8, 15, 15]


def test_the_same_wrong_password_counts_once() -> None:
    guesses = Guesses(Seconds())
    for _ in range(100):
        guesses.wrong(HERE, "anna", b"last year's")
    assert guesses.wait(HERE, "anna") == 0


def test_an_address_is_delayed_for_any_name() -> None:
    guesses = Guesses(Seconds())
    for n in range(20):
        guesses.wrong(HERE, f"user{n}", b"123456")
    assert guesses.wait(HERE, "somebody else") == 15
    assert guesses.wait(THERE, "somebody else") == 0


def test_a_name_is_delayed_for_any_address_and_case() -> None:
    guesses = Guesses(Seconds())
    for n in range(20):
        guesses.wrong(f"198.51.100.{n}", "Anna", str(n).encode())
    assert guesses.wait(THERE, "ANNA") == 15
    assert guesses.wait(THERE, "bo") == 0


def test_attempts_wait_in_turn_and_excess_is_refused() -> None:
    guesses = Guesses(Seconds())
    guessed(guesses, 20)
    assert [guesses.wait(HERE, "anna") for _ in range(5)] == [15, 30, None, None, None]


def test_a_known_address_of_the_owner_is_not_delayed() -> None:
    guesses = Guesses(Seconds())
    guesses.right(HERE, "anna")
    guessed(guesses, 50, address=THERE)
    assert guesses.wait(HERE, "anna") == 0
    assert guesses.wait(THERE, "anna") == 15
    guessed(guesses, 50, name="bo")
    assert guesses.wait(HERE, "anna") == 15, "the address itself has failed attempts"


def test_without_an_address_the_name_counts() -> None:
    guesses = Guesses(Seconds())
    guessed(guesses, 20, address="")
    guesses.right("", "anna")
    assert guesses.wait("", "anna") == 15
    assert guesses.wait("", "bo") == 0


def test_failures_are_forgotten_after_a_time() -> None:
    clock = Seconds()
    guesses = Guesses(clock)
    guessed(guesses, 20)
    clock.now += 3600
    assert guesses.wait(HERE, "anna") == 0
    guessed(guesses, 1)
    assert guesses.wait(HERE, "anna") == 0, "counted from the beginning"


def test_memory_is_bounded() -> None:
    patience = GuessLimits(entries=50)
    guesses = Guesses(Seconds(), patience)
    for n in range(500):
        guesses.wrong(f"address {n}", f"name {n}", b"x")
        guesses.right(f"address {n}", f"name {n}")
    assert len(guesses) <= 2 * patience.entries
    assert "name" not in repr(guesses)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "wrong", "right", "time"]), st.sampled_from(["", HERE, THERE]),
        st.sampled_from(["anna", "bo"]), st.binary(max_size=1), st.floats(0, 2000),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_a_delay_is_always_bounded(actions: list[tuple[str, str, str, bytes, float]]) -> None:
    clock, patience = Seconds(), GuessLimits(entries=3)
    guesses = Guesses(clock, patience)
    for what, address, name, secret, seconds in actions:
        match what:
            case "wait":
                wait = guesses.wait(address, name)
                assert wait is None or 0 <= wait <= patience.longest_wait_seconds
            case "wrong":
                guesses.wrong(address, name, secret)
            case "right":
                guesses.right(address, name)
            case _:
                clock.now += seconds
        assert len(guesses) <= 2 * patience.entries
    clock.now += patience.forget_seconds
    assert guesses.wait(HERE, "anna") == 0
