"""How many distinct people: laws of the interval, over any recipients in any order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.audit.distinct import Crowd, Interval, People, Single, Unit, more

LISTS = ("a", "b")
VERSIONS = st.tuples(st.sampled_from(LISTS), st.sampled_from(("1", "2")))
SIZES = {(name, version): 3 + 2 * n + m for n, name in enumerate(LISTS) for m, version in enumerate(("1", "2"))}


def crowd(of: tuple[str, str]) -> Crowd:
    return Crowd(of=of, low=SIZES[of], high=SIZES[of])


@st.composite
def singles(draw: st.DrawFn) -> Single:
    """Of a world in which the persons 0 to 2 are on every version of every list, and the others on none."""
    n = draw(st.integers(0, 5))
    known = draw(st.frozensets(VERSIONS, max_size=3))
    on, off = (known, frozenset()) if n < 3 else (frozenset(), known)
    return Single(digest=str(n), on=on, off=off)


UNITS: st.SearchStrategy[Unit] = st.one_of(singles(), VERSIONS.map(crowd))


def counted(units: list[Unit]) -> Interval:
    people = People()
    for unit in units:
        people.add(unit)
    return people.count()


def size(unit: Unit) -> int:
    return 1 if isinstance(unit, Single) else SIZES[unit.of]


@settings(max_examples=200, deadline=None)
@given(st.lists(UNITS, max_size=8))
def test_it_is_an_interval_below_the_sum_of_all(units: list[Unit]) -> None:
    low, high = counted(units)
    assert high is not None
    assert 0 <= low <= high <= sum(map(size, units))
    assert low >= max(map(size, units), default=0)


@settings(max_examples=200, deadline=None)
@given(st.lists(UNITS, max_size=8), UNITS)
def test_another_message_never_makes_them_fewer(units: list[Unit], another: Unit) -> None:
    before, after = counted(units), counted([*units, another])
    assert after.low >= before.low
    assert after.high is not None
    assert before.high is not None
    learnt = isinstance(another, Single) and (another.on or another.off)  # it may say where somebody known is
    assert after.high >= before.high or learnt


@settings(max_examples=200, deadline=None)
@given(st.lists(UNITS, max_size=8), st.randoms())
def test_a_message_again_and_another_order_change_nothing(units: list[Unit], random: st.Random) -> None:
    again = [*units, *units]
    random.shuffle(again)
    assert counted(again) == counted(units)


@settings(max_examples=200, deadline=None)
@given(st.lists(UNITS, max_size=8))
def test_what_is_known_of_more_people_only_narrows_it(units: list[Unit]) -> None:
    """Whoever can ask the indexes knows more."""
    people = People()
    for unit in units:
        people.add(unit)
    wide, narrow = people.count(), people.count(lambda digest, of: int(digest) < 3)
    assert wide.high is not None
    assert narrow.high is not None
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_a_crowd_that_nobody_can_count_has_no_upper_end() -> None:
    assert counted([Crowd(of=("a", ""), low=10, high=None)]) == Interval(10, None)
    assert more(Interval(5, 5), Interval(10, None)) == Interval(5, None)
    assert more(Interval(10, 20), Interval(10, 20)) == Interval(0, 10)
