"""Counting distinct people: laws of the interval, for any recipients in any order."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.journal.distinct import Changes, Crowd, Interval, People, Single, Unit, more

LISTS = ("a", "b")
VERSIONS = st.tuples(st.sampled_from(LISTS), st.sampled_from(("1", "2")))
SIZES = {(name, version): 3 + 2 * n + m for n, name in enumerate(LISTS) for m, version in enumerate(("1", "2"))}


def crowd(of: tuple[str, str]) -> Crowd:
    return Crowd(of=of, low=SIZES[of], high=SIZES[of])


@st.composite
def singles(draw: st.DrawFn) -> Single:
    """In a world where persons 0 to 2 are on every version of every list, and the others on none."""
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
def test_the_count_is_an_interval_below_the_sum(units: list[Unit]) -> None:
    low, high = counted(units)
    assert high is not None
    assert 0 <= low <= high <= sum(map(size, units))
    assert low >= max(map(size, units), default=0)


@settings(max_examples=200, deadline=None)
@given(st.lists(UNITS, max_size=8), UNITS)
def test_another_message_never_lowers_the_count(units: list[Unit], another: Unit) -> None:
    before, after = counted(units), counted([*units, another])
    assert after.low >= before.low
    assert after.high is not None
    assert before.high is not None
    learnt = isinstance(another, Single) and (another.on or another.off)  # it may say on which list a known person is
    assert after.high >= before.high or learnt


@settings(max_examples=200, deadline=None)
@given(st.lists(UNITS, max_size=8), st.randoms())
def test_repetition_and_order_do_not_matter(units: list[Unit], random: Random) -> None:
    again = [*units, *units]
    random.shuffle(again)
    assert counted(again) == counted(units)


@settings(max_examples=200, deadline=None)
@given(st.lists(UNITS, max_size=8))
def test_more_knowledge_only_narrows(units: list[Unit]) -> None:
    """Asking the indexes only narrows the interval."""
    people = People()
    for unit in units:
        people.add(unit)
    wide, narrow = people.count(), people.count(lambda digest, of: int(digest) < 3)
    assert wide.high is not None
    assert narrow.high is not None
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_an_uncountable_crowd_has_no_upper_bound() -> None:
    assert counted([Crowd(of=("a", ""), low=10, high=None)]) == Interval(10, None)
    assert more(Interval(5, 5), Interval(10, None)) == Interval(5, None)
    assert more(Interval(10, 20), Interval(10, 20)) == Interval(0, 10)


# two versions of one list

HISTORIES = st.lists(st.frozensets(st.integers(0, 9)), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(HISTORIES, st.data())
def test_changes_between_versions_bound_the_count(history: list[frozenset[int]], data: st.DataObject) -> None:
    """Versions of a list count as the changes between them allow, for any versions in any order. Equal sets of people
    are one version."""
    name = {people: str(n) for n, people in reversed(list(enumerate(history)))}
    changes = Changes()
    for before, after in pairwise(history):
        changes.add("a", name[before], name[after], added=len(after - before), removed=len(before - after))
    sent = data.draw(st.lists(st.sampled_from(history), min_size=1, max_size=4))
    people = People()
    for one in sent:
        people.add(Crowd(of=("a", name[one]), low=len(one), high=len(one)))
    there = len(frozenset[int]().union(*sent))
    low, high = people.count(changes=changes)
    assert high is not None
    assert low <= there <= high <= sum(map(len, set(sent)))
    if len(history) == 2:
        assert low == there == high, "one step is known exactly"


def test_without_known_changes_both_versions_count() -> None:
    people = People()
    for version, size in (("v1", 10_000), ("v2", 10_003)):
        people.add(Crowd(of=("a", version), low=size, high=size))
    assert people.count() == Interval(10_003, 20_003)
    changes = Changes()
    assert not changes.note("a", {"version": "v2", "people": 10_003})
    assert not changes.note("a", {"version": "v2", "before": "", "added": None, "removed": None})
    assert changes.note("a", {"version": "v2", "before": "v1", "added": 5, "removed": 2})
    assert people.count(changes=changes) == Interval(10_005, 10_005)
    people.add(Single(digest="kim", off=frozenset({("a", "v1"), ("a", "v2")})))
    people.add(Single(digest="bo", on=frozenset({("a", "v1")})))
    people.add(Single(digest="ada", off=frozenset({("a", "v1")})))
    assert people.count(changes=changes) == Interval(10_006, 10_007)
    asked = {("ada", ("a", "v2")): True}
    assert people.count(lambda digest, of: asked.get((digest, of)), changes) == Interval(10_006, 10_006)
