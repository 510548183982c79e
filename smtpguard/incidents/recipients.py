"""The recipients of a message, one by one, with the outcome for each; input to the count of people (journal.distinct).

The verdict names its recipients by sealed digests, and so do the entries on its release. Entries of earlier versions do
not name the recipient; for those only numbers are known, and they are given as bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smtpguard.journal.delivery import reported
from smtpguard.journal.distinct import NO_CHANGES, Asked, Changes, Crowd, Interval, People, Unit, units
from smtpguard.journal.outcome import REACHED, Message, Outcome, delivered


@dataclass(slots=True)
class Counted:
    """Sets of people: those of whom it is certain, and all of whom it is possible."""

    sure: People = field(default_factory=People)
    all: People = field(default_factory=People)

    def add(self, some: Sequence[Unit], *, sure: bool) -> None:
        for unit in some:
            self.all.add(unit)
            if sure:
                self.sure.add(unit)

    def count(self, asked: Asked | None = None, changes: Changes = NO_CHANGES) -> Interval:
        every = self.all.count(asked, changes)
        return Interval(self.sure.count(asked, changes).low, every.high)


@dataclass(slots=True)
class Recipients:
    """The recipients of one message. ``units``: the people of each; ``apart``: which of them are colleagues who get it
    in any case."""

    units: tuple[Sequence[Unit], ...]
    _sealed: tuple[str, ...]
    _apart: frozenset[int]
    _ends: dict[int, Outcome] | None = None
    _id: str = ""

    @classmethod
    def of(cls, id: str, data: Mapping[str, Any], sealed: Mapping[str, Sequence[str]]) -> Recipients:
        """From its verdict. ``sealed``: the private part as the chain has it."""
        recipients = tuple(sealed.get("recipients", ()))
        every = tuple(units(data, recipients, id))
        several = recipients if len(recipients) > 1 and len(recipients) == len(every) else ()
        return cls(units=every, _sealed=several, _apart=frozenset(data.get("apart_at", ())), _id=id)

    def add(self, kind: str, data: Mapping[str, Any], sealed: Mapping[str, Sequence[str]]) -> None:
        """An entry on some of its recipients, in order."""
        one = reported(kind, data)
        if one is None or not self._sealed:
            return
        end = delivered(one.status, part=one.part)
        self._ends = self._ends if self._ends is not None else {}
        some = frozenset(sealed.get("recipients", ()))
        self._ends.update((n, end) for n, one in enumerate(self._sealed) if one in some)

    def ends(self, message: Message) -> Iterator[tuple[Outcome, Sequence[Unit], bool]]:
        """Each end, the people of it, and whether that is certain."""
        shares = list(message.shares())
        if len({share.end for share in shares}) == 1:
            sure = shares[0].end not in REACHED or not any(share.at_most for share in shares)
            yield from ((shares[0].end, some, sure) for some in self.units)
        elif self._sealed and (self._ends or self._apart):
            apart = message.part if isinstance(message.part, Outcome) else Outcome.ON_ITS_WAY
            rest = (
                Outcome.ON_ITS_WAY if message.release is not None and message.end is Outcome.ON_ITS_WAY else message.end
            )
            for n, some in enumerate(self.units):
                usual = apart if n in self._apart else rest
                yield (self._ends or {}).get(n, usual), some, True
        else:
            for share in shares:
                of = (f"message {self._id}", share.end.value)
                low, high = 0 if share.at_most else share.people, message.people if share.at_least else share.people
                yield share.end, [Crowd(of=of, low=low, high=high)], True
