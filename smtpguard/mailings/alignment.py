"""Align two sequences: the stretches in which they are equal, and the operations between them.

Aligning takes bounded time: long sequences by the elements that are unique in both, as patience diff does. ``difflib`` alone takes
quadratic time, and cubic at worst, and the input may be crafted to be slow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher

MOST = 12_000
"""The most pairs that are compared one by one; in a larger stretch without unique elements all of it counts as
different."""
_RUNS = (1, 3, 6)
"""The lengths of the runs that are searched for, in this order."""

Stretch = tuple[int, int, int]
"""An equal stretch: its start in one sequence, its start in the other, and its length."""
Opcode = tuple[str, int, int, int, int]


def opcodes(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[Opcode]:
    """Return the operations that turn one sequence into the other, as ``difflib`` has them: "equal", "replace", "delete" or
    "insert", and the bounds of the two slices."""
    found: list[Opcode] = []
    i = j = 0
    for a, b, n in (*stretches(one, other), (len(one), len(other), 0)):
        if a > i or b > j:
            found.append(("replace" if a > i and b > j else "delete" if a > i else "insert", i, a, j, b))
        if n:
            found.append(("equal", a, a + n, b, b + n))
        i, j = a + n, b + n
    return found


def stretches(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[Stretch]:
    """Return the equal stretches, in order, each as long as possible."""
    made: list[Stretch] = []
    for a, b, n in _stretches_in(one, other, 0, len(one), 0, len(other), 0):
        if made and made[-1][0] + made[-1][2] == a and made[-1][1] + made[-1][2] == b:
            made[-1] = (made[-1][0], made[-1][1], made[-1][2] + n)
        elif n:
            made.append((a, b, n))
    return made


def _stretches_in(
    one: Sequence[Hashable], other: Sequence[Hashable], i1: int, i2: int, j1: int, j2: int, depth: int
) -> Iterator[Stretch]:
    """Yield the equal stretches of two slices, in order. ``depth``: the index in _RUNS of the next length to be tried."""
    start = i1, j1
    while i1 < i2 and j1 < j2 and one[i1] == other[j1]:
        i1, j1 = i1 + 1, j1 + 1
    if i1 > start[0]:
        yield *start, i1 - start[0]
    end = i2
    while i1 < i2 and j1 < j2 and one[i2 - 1] == other[j2 - 1]:
        i2, j2 = i2 - 1, j2 - 1
    if i1 < i2 and j1 < j2:
        if (i2 - i1) * (j2 - j1) <= MOST:
            matcher = SequenceMatcher(None, one[i1:i2], other[j1:j2], autojunk=False)
            for a, b, n in matcher.get_matching_blocks():
                if n:
                    yield i1 + a, j1 + b, n
        elif depth < len(_RUNS):
            yield from _divided(one, other, i1, i2, j1, j2, depth)
    if end > i2:
        yield i2, j2, end - i2


def _divided(
    one: Sequence[Hashable], other: Sequence[Hashable], i1: int, i2: int, j1: int, j2: int, depth: int
) -> Iterator[Stretch]:
    """Yield the equal stretches, after two slices were divided at runs that are unique in each, in the longest common order."""
    size = _RUNS[depth]
    mine, theirs = _unique_runs(one, i1, i2, size), _unique_runs(other, j1, j2, size)
    pairs = _in_order([(i, theirs[run]) for run, i in mine.items() if run in theirs])
    for i, j in (*pairs, (i2, j2)):
        if i < i1 or j < j1:  # within the previous stretch
            continue
        yield from _stretches_in(one, other, i1, i, j1, j, depth + 1)
        i1, j1 = i, j
        while i1 < i2 and j1 < j2 and one[i1] == other[j1]:
            i1, j1 = i1 + 1, j1 + 1
        if i1 > i:
            yield i, j, i1 - i


def _unique_runs(some: Sequence[Hashable], begin: int, end: int, size: int) -> dict[tuple[Hashable, ...], int]:
    runs = [tuple(some[n : n + size]) for n in range(begin, end - size + 1)]
    counted = Counter(runs)
    return {run: begin + n for n, run in enumerate(runs) if counted[run] == 1}


def _in_order(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest subsequence that ascends in both. ``pairs`` ascend in the first."""
    least: list[int] = []  # the least last element for each length
    at: list[int] = []
    before: list[int] = []
    for n, (_, j) in enumerate(pairs):
        place = bisect_left(least, j)
        if place == len(least):
            least.append(j)
            at.append(n)
        else:
            least[place] = j
            at[place] = n
        before.append(at[place - 1] if place else -1)
    found: list[tuple[int, int]] = []
    n = at[-1] if at else -1
    while n >= 0:
        found.append(pairs[n])
        n = before[n]
    return found[::-1]
