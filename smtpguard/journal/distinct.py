"""Count distinct people among recipients, as an interval: each person counts once over any number of messages, copies
and lists.

A single recipient is one person, known by a keyed digest. An address that the relay expands is a crowd: all members of
that list at that version of its index, of which only the number is known. If the journal says whether a single person was
on the list, the count is exact; if not, that person may be on it or not. Two crowds may overlap: together they are at least as
many as the larger, and at most the sum. For two versions of one list the journal has how many people came and left between
them (Changes), which makes the interval narrow.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Version = tuple[str, str]
"""A list's name, and the version of its index: the same version is the same people."""
Asked = Callable[[str, Version], bool | None]
"""Returns whether a person is on a version of a list; None if that is no longer known."""


class Interval(NamedTuple):
    """At least ``low`` people, and at most ``high``; None if no upper bound is known."""

    low: int
    high: int | None

    @property
    def exact(self) -> bool:
        return self.low == self.high


NOBODY = Interval(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One person. ``on`` and ``off``: the lists that they certainly were on, and not on, when the message came."""

    digest: str
    on: frozenset[Version] = frozenset()
    off: frozenset[Version] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """All people behind an address that the relay expands: at least ``low``, at most ``high``."""

    of: Version
    low: int
    high: int | None


Unit = Single | Crowd


class Changes:
    """The numbers of people who came to lists and left them between versions, as far as the journal has them."""

    def __init__(self) -> None:
        self._steps: dict[
            Version, dict[Version, int]
        ] = {}  # by version, for each other: how many on the other are not on it
        self._beyond: dict[Version, dict[Version, int]] = {}  # the results of _others

    def add(self, name: str, before: str, after: str, *, added: int, removed: int) -> None:
        """Add the numbers of people who came and left between two versions of a list."""
        self._steps.setdefault((name, before), {})[name, after] = added
        self._steps.setdefault((name, after), {})[name, before] = removed
        self._beyond.clear()

    def note(self, name: str, data: Mapping[str, Any]) -> bool:
        """Add the data of a list's journal entry. Returns whether it has the numbers of a change."""
        if data.get("added") is None or not data.get("before"):
            return False
        self.add(name, data["before"], data["version"], added=int(data["added"]), removed=int(data["removed"]))
        return True

    def all_of(self, name: str) -> int:
        """Return how many people came to a list or left it, over all changes."""
        return sum(some for (of, _), others in self._steps.items() if of == name for some in others.values())

    def together(self, sizes: Mapping[Version, Interval]) -> Interval:
        """Return the number of people on any of these versions of one list. ``sizes``: the size of each."""
        low = max(some.low for some in sizes.values())
        for of, some in sizes.items():
            low = max([low, *(some.low + added for other, added in self._steps.get(of, {}).items() if other in sizes)])
        whole = {of: some.high for of, some in sizes.items() if some.high is not None}
        if len(whole) < len(sizes):
            return Interval(low, None)
        high = min(self._from(first, whole) for first in whole)
        return Interval(low, max(low, high))

    def _from(self, first: Version, sizes: Mapping[Version, int]) -> int:
        """Return an upper bound: all on the first version, and for each further one those who are not on the version nearest to
        it."""
        total, left = sizes[first], {of: size for of, size in sizes.items() if of != first}
        last = first
        while left:
            others = self._others(last)
            left = {of: min(more, others.get(of, more)) for of, more in left.items()}
            last = min(left, key=lambda of: (left[of], of))
            total += left.pop(last)
        return total

    def _others(self, of: Version) -> Mapping[Version, int]:
        """Return, for each other version, the most people on it who are not on this one, by the changes between them."""
        if of not in self._beyond:
            found: dict[Version, int] = {}
            ahead = [(0, of)]
            while ahead:
                so_far, at = heapq.heappop(ahead)
                if at in found:
                    continue
                found[at] = so_far
                for other, more in self._steps.get(at, {}).items():
                    if other not in found:
                        heapq.heappush(ahead, (so_far + more, other))
            self._beyond[of] = found
        return self._beyond[of]


NO_CHANGES = Changes()
Where = tuple[frozenset[Version], frozenset[Version]]
"""The versions of lists that a person was on, and not on; for all others it is unknown."""


def interval(singles: Mapping[Where, int], crowds: Mapping[Version, Interval], changes: Changes) -> Interval:
    """Return the number of distinct people. ``singles``: the numbers of persons of whom the same is known.

    The lower bound is the number of singles, or of one list's crowds plus the singles certainly in none of them. The
    upper bound is the sum of all, without singles that are certainly in a crowd.
    """
    alone = sum(singles.values())
    lists: dict[str, dict[Version, Interval]] = {}
    for of, some in crowds.items():
        lists.setdefault(of[0], {})[of] = some
    low, most = alone, sum(n for (on, _), n in singles.items() if on.isdisjoint(crowds))
    high: int | None = most
    for versions in lists.values():
        together = changes.together(versions)
        none_of_them = sum(n for (_, off), n in singles.items() if off >= versions.keys())
        low = max(low, together.low + none_of_them)
        for of, some in versions.items():
            low = max(low, some.low + sum(n for (_, off), n in singles.items() if of in off))
        high = None if high is None or together.high is None else high + together.high
    return Interval(low, None if high is None else max(low, high))


@dataclass(slots=True)
class People:
    """A set of people. A person who is added twice counts once."""

    _singles: dict[str, Where] = field(default_factory=dict)
    _crowds: dict[Version, Interval] = field(default_factory=dict)

    def add(self, unit: Unit) -> None:
        if isinstance(unit, Crowd):
            before = self._crowds.get(unit.of, Interval(unit.low, unit.high))
            high = None if before.high is None or unit.high is None else max(before.high, unit.high)
            self._crowds[unit.of] = Interval(max(before.low, unit.low), high)
            return
        self._add(unit.digest, (unit.on, unit.off))

    def _add(self, digest: str, where: Where) -> None:
        before = self._singles.setdefault(digest, where)
        if before != where:
            self._singles[digest] = before[0] | where[0], before[1] | where[1]

    def update(self, others: People) -> None:
        if not self._singles:
            self._singles = dict(others._singles)
        else:
            for digest, where in others._singles.items():
                self._add(digest, where)
        for of, some in others._crowds.items():
            self.add(Crowd(of=of, low=some.low, high=some.high))

    def count(self, asked: Asked | None = None, changes: Changes = NO_CHANGES) -> Interval:
        """Count the people. ``asked``: answers for persons of whom no list was recorded when their message came. ``changes``: of
        lists between versions."""
        if not self._crowds or asked is None:
            return interval(Counter(self._singles.values()), self._crowds, changes)
        singles: Counter[Where] = Counter()
        for digest, (on, off) in self._singles.items():
            for of in self._crowds.keys() - on - off:
                found = asked(digest, of)
                on, off = on | {of} if found else on, off | {of} if found is False else off
            singles[on, off] += 1
        return interval(singles, self._crowds, changes)


def more(known: Interval, all_of_them: Interval) -> Interval:
    """Return how many of ``all_of_them`` are not among the ``known``, who are a part of them."""
    low = max(all_of_them.low - known.high, 0) if known.high is not None else 0
    return Interval(low, None if all_of_them.high is None else max(all_of_them.high - known.low, 0))


def units(data: Mapping[str, Any], sealed: Sequence[str], id: str) -> Iterator[Sequence[Unit]]:
    """Yield the people behind each recipient of a message, in order, from the data of its verdict.

    ``people`` has the digest of a single recipient, with the lists that it is on, or what is behind an address; ``crowds`` has
    the lists. The entry of an attempt has null for recipients of whom it says nothing. An entry of an earlier version has only the sealed addresses of recipients, and a number behind a list address.
    """
    people = data.get("people")
    if people is None:
        yield from _before(data, sealed, id)
        return
    crowds: Mapping[str, Sequence[Any]] = data.get("crowds", {})
    names = sorted(crowds)
    addressed = {names[n] for one in people if isinstance(one, Mapping) for n in one.get("lists", ())}
    for one in people:
        if one is None:
            yield ()
            continue
        if isinstance(one, Mapping):
            yield [*_crowds((names[n] for n in one.get("lists", ())), crowds), *_behind(one)]
            continue
        digest, _, where = one.partition(" ")
        on = {names[int(n)] for n in where.split() if n != "?"}
        yield [
            Single(
                digest=digest,
                on=frozenset((name, crowds[name][0]) for name in on),
                off=frozenset((name, crowds[name][0]) for name in addressed - on if "?" not in where),
            )
        ]


def _crowds(names: Iterator[str], crowds: Mapping[str, Sequence[Any]]) -> Iterator[Crowd]:
    for name in names:
        version, low, high = crowds[name]
        yield Crowd(of=(name, version), low=int(low), high=None if high is None else int(high))


def _behind(one: Mapping[str, Any]) -> Iterator[Crowd]:
    if one.get("people"):
        n = int(one["people"])
        yield Crowd(of=(f"behind {one['behind']}", str(n)), low=n, high=n)


def _before(data: Mapping[str, Any], sealed: Sequence[str], id: str) -> Iterator[Sequence[Unit]]:
    counts = data.get("counts", {})
    reach, addresses = int(counts.get("reach", 0)), int(counts.get("list_addresses", 0))
    singles = [Single(digest=f"sealed {one}") for one in dict.fromkeys(sealed)]
    if singles and not addresses and reach <= len(singles):
        yield from ([one] for one in singles)
        return
    if not reach:
        yield []
        return
    name = ", ".join(data.get("lists", ())) if addresses else f"message {id}"
    high = None if data.get("reach_at_least") else reach
    yield [Crowd(of=(f"recipients of {name}", str(reach)), low=reach, high=high)]
