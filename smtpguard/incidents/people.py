"""Distinct people by the outcome of the messages that they were sent, as bounds where it is uncertain. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from smtpguard.journal.distinct import Asked, Changes, Crowd, Interval, People, Single, Unit, Version, more
from smtpguard.journal.outcome import REACHED, Message, Outcome

StoppedCopy = tuple[Outcome, Single]
"""The outcome of a person's copies, none of which went out, and the person."""


@dataclass(slots=True)
class _Bounds:
    """Two sets of people: those who certainly count (``sure``), and those who may (``all``)."""

    sure: People = field(default_factory=People)
    all: People = field(default_factory=People)

    def add(self, some: Sequence[Unit], *, sure: bool) -> None:
        for unit in some:
            self.all.add(unit)
            if sure:
                self.sure.add(unit)

    def count(self, asked: Asked | None, changes: Changes) -> Interval:
        every = self.all.count(asked, changes)
        return Interval(self.sure.count(asked, changes).low, every.high)


def _people_by_end(
    id: str, message: Message, people: Sequence[Sequence[Unit]]
) -> Iterator[tuple[Outcome, Sequence[Unit], bool]]:
    """Yield each end of a message, people of it, and whether that is certain. ``people``: the people of each
    recipient."""
    ends, shares = message.ends(), list(message.shares())
    if ends is not None and len(ends) == len(people):
        yield from ((end, some, True) for end, some in zip(ends, people, strict=True))
    elif len({share.end for share in shares}) == 1:
        sure = shares[0].end not in REACHED or not any(share.at_most for share in shares)
        yield from ((shares[0].end, some, sure) for some in people)
    else:
        for share in shares:
            low, high = 0 if share.at_most else share.people, message.people if share.at_least else share.people
            yield share.end, [Crowd(of=(f"message {id}", share.end.value), low=low, high=high)], True


class PeopleByOutcome:
    """Distinct people by the outcome of messages. ``lists``: the lists that are counted; ``asked``: as in ``Case``;
    ``changes``: the changes of lists between versions, to which versions without the people of stopped copies are
    added. ``crowds``: whether a message went, or may have gone, to addresses with several people behind them."""

    def __init__(self, lists: Set[str], asked: Asked | None, changes: Changes) -> None:
        self._known, self._asked, self._changes = lists, asked, changes
        self._people: dict[Outcome, _Bounds] = {}
        self._lists: dict[str, tuple[_Bounds, _Bounds]] = {}
        self.crowds = False

    def add(
        self, id: str, message: Message, people: Sequence[Sequence[Unit]], stopped: Mapping[str, StoppedCopy]
    ) -> None:
        """Add the people of a message. ``people``: those of each recipient; ``stopped``: by digest, those of whose
        copies none went out. A list that the message went to counts as a version that they have left."""
        left: dict[str, Version] = {}
        for end, some, sure in _people_by_end(id, message, people):
            if stopped and end in REACHED:
                some = [self._without(unit, id, stopped, left) if isinstance(unit, Crowd) else unit for unit in some]
            self._add(end, some, sure)
        for end, one in stopped.values() if left else ():
            off = frozenset(left[name] for name, _ in one.on if name in left)
            self._add(end, [Single(digest=one.digest, on=one.on, off=one.off | off)], True)

    def _without(self, unit: Crowd, id: str, stopped: Mapping[str, StoppedCopy], left: dict[str, Version]) -> Crowd:
        name, version = unit.of
        n = sum(any(of == name for of, _ in one.on) for _, one in stopped.values())
        left[name] = name, f"{version} without the stopped of {id}"
        self._changes.add(name, version, left[name][1], added=0, removed=n)
        high = None if unit.high is None else max(unit.high - n, 0)
        return Crowd(of=left[name], low=max(unit.low - n, 0), high=high)

    def _add(self, end: Outcome, some: Sequence[Unit], sure: bool) -> None:
        self._people.setdefault(end, _Bounds()).add(some, sure=sure)
        if end not in REACHED and end is not Outcome.IN_DOUBT:
            return
        for unit in some:
            self.crowds = self.crowds or isinstance(unit, Crowd)
            names = {unit.of[0]} if isinstance(unit, Crowd) else {name for name, _ in unit.on}
            for name in names & self._known:
                have, every = self._lists.setdefault(name, (_Bounds(), _Bounds()))
                every.add([unit], sure=sure)
                if end in REACHED:
                    have.add([unit], sure=sure)

    def count(self, ends: Iterable[Outcome]) -> Interval:
        """Return the number of distinct people of these outcomes."""
        whole = _Bounds()
        for end in ends:
            if (some := self._people.get(end)) is not None:
                whole.sure.update(some.sure)
                whole.all.update(some.all)
        return whole.count(self._asked, self._changes)

    def of_lists(self) -> dict[str, tuple[Interval, Interval]]:
        """Return, for each list, how many members have a message, and how many more may."""
        found = {}
        for name, some in sorted(self._lists.items()):
            got, every = (one.count(self._asked, self._changes) for one in some)
            found[name] = got, more(got, every)
        return found


def stopped_copies(
    copies: Mapping[str, Message], of: Mapping[str, str], whom: Mapping[str, Sequence[Sequence[Unit]]]
) -> dict[str, dict[str, StoppedCopy]]:
    """Return, for each original, the people of whose copies none went out, by digest, with the outcome of the last.
    ``of``: the original of each copy; ``whom``: for each copy, the people of each recipient."""
    found: dict[str, dict[str, StoppedCopy]] = {}
    got: set[tuple[str, str]] = set()
    for id, copy in copies.items():
        for end, some, _ in _people_by_end(id, copy, whom[id]):
            for unit in some:
                if isinstance(unit, Crowd):
                    continue
                if end in REACHED:
                    got.add((of[id], unit.digest))
                else:
                    found.setdefault(of[id], {})[unit.digest] = end, unit
    return {
        original: {who: one for who, one in some.items() if (original, who) not in got}
        for original, some in found.items()
    }
