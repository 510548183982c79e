"""How many distinct people some recipients are, as an interval: over any number of messages, copies and lists each person counts once.

A single recipient is one person, known by a keyed digest. An address that the relay expands is a crowd: all who were on that list
at that version of its index, named only by their number. Where a single person is known to have been on the list, or not, that
is exact; else it may be either. Two crowds may be the same people: at least as many as the larger, at most both together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Version = tuple[str, str]
"""A list's name, and the version of its index: the same version is the same people."""
Asked = Callable[[str, Version], bool | None]
"""Whether this person is on that version of that list; None where nobody can say any more."""


class Interval(NamedTuple):
    """At least ``low`` people, at most ``high``; None: nobody can say how many at most."""

    low: int
    high: int | None

    @property
    def exact(self) -> bool:
        return self.low == self.high


NOBODY = Interval(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One person. ``on`` and ``off``: lists that they were certainly on, and not on, when the message came."""

    digest: str
    on: frozenset[Version] = frozenset()
    off: frozenset[Version] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """All behind an address that expands: at least ``low`` people, at most ``high``."""

    of: Version
    low: int
    high: int | None


Unit = Single | Crowd


@dataclass(slots=True)
class People:
    """A set of people. What is added a second time adds nobody."""

    _singles: dict[str, tuple[frozenset[Version], frozenset[Version]]] = field(default_factory=dict)
    _crowds: dict[Version, Interval] = field(default_factory=dict)

    def add(self, unit: Unit) -> None:
        if isinstance(unit, Crowd):
            before = self._crowds.get(unit.of, Interval(unit.low, unit.high))
            high = None if before.high is None or unit.high is None else max(before.high, unit.high)
            self._crowds[unit.of] = Interval(max(before.low, unit.low), high)
            return
        on, off = self._singles.get(unit.digest, (unit.on, unit.off))
        self._singles[unit.digest] = (on | unit.on, off | unit.off)

    def update(self, others: People) -> None:
        for digest, (on, off) in others._singles.items():
            self.add(Single(digest=digest, on=on, off=off))
        for of, some in others._crowds.items():
            self.add(Crowd(of=of, low=some.low, high=some.high))

    def count(self, asked: Asked | None = None) -> Interval:
        """At least as many as the single ones, and as any one crowd with those who are surely not in it; at most all together, save
        those who are surely in one."""
        if not self._crowds:
            return Interval(len(self._singles), len(self._singles))
        least = {of: some.low for of, some in self._crowds.items()}
        most: int | None = 0
        for some in self._crowds.values():
            most = None if most is None or some.high is None else most + some.high
        beside = 0
        for digest, (on, off) in self._singles.items():
            inside = False
            for of in least:
                found = _on(digest, of, on, off, asked)
                inside |= found is True
                least[of] += found is False
            beside += not inside
        low = max(len(self._singles), *least.values())
        return Interval(low, None if most is None else max(low, beside + most))


def _on(digest: str, of: Version, on: frozenset[Version], off: frozenset[Version], asked: Asked | None) -> bool | None:
    if of in on:
        return True
    if of in off:
        return False
    return asked(digest, of) if asked is not None else None


def more(known: Interval, all_of_them: Interval) -> Interval:
    """How many ``all_of_them`` are beyond those who are ``known`` to be among them."""
    low = max(all_of_them.low - known.high, 0) if known.high is not None else 0
    return Interval(low, None if all_of_them.high is None else max(all_of_them.high - known.low, 0))


# as a verdict's entry has them


def units(data: Mapping[str, Any], sealed: Sequence[str], id: str) -> Iterator[Sequence[Unit]]:
    """Of each recipient of a message, in their order, whom it stands for, by its verdict: ``people`` has the digest of a single
    recipient, with the lists that it is on, or says what is behind an address; ``crowds`` the lists. Of an entry of an earlier
    version only as much as it says: recipients by their sealed addresses, and behind a list's address a number."""
    told = data.get("people")
    if told is None:
        yield from _before(data, sealed, id)
        return
    crowds: Mapping[str, Sequence[Any]] = data.get("crowds", {})
    names = sorted(crowds)
    addressed = {names[n] for one in told if isinstance(one, Mapping) for n in one.get("lists", ())}
    for one in told:
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
