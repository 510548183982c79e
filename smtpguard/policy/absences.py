"""Who is away, who decides for them meanwhile, and so who decides of a group at some moment. Pure: the time is always given.

While somebody is away they and their deputy are one vote: a deputy never adds a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, tzinfo

LONGEST = timedelta(days=366)
"""Nobody is away for longer at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """``person`` (canonical) is away from the beginning of ``since`` to the end of ``until``, by the organization's calendar. ``deputy``:
    canonical, "" for nobody. ``confirmed``: an admin has agreed that the deputy decides in groups that they are not in. ``ended``: since
    when they are there again, or that they do not go after all."""

    person: str
    since: date
    until: date
    deputy: str = ""
    confirmed: bool = False
    ended: datetime | None = None

    def covers(self, at: datetime, zone: tzinfo) -> bool:
        on = self.since <= at.astimezone(zone).date() <= self.until
        return on and (self.ended is None or at < self.ended)

    def over(self, at: datetime, zone: tzinfo) -> bool:
        return self.until < at.astimezone(zone).date() or (self.ended is not None and self.ended <= at)


def together(policy: Iterable[Absence], said: Iterable[Absence]) -> tuple[Absence, ...]:
    """What the policy declares, and what people said themselves: that wins over every absence of the policy that begins before its end."""
    own = {absence.person: absence for absence in said}
    kept = (a for a in policy if a.person not in own or a.since > own[a.person].until)
    return (*kept, *own.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups(Mapping[str, frozenset[str]]):
    """Group -> canonical addresses of its people; and who of them is away when. ``aliases``: of each address of somebody with several,
    all of theirs. ``zone``: where a day begins."""

    people: Mapping[str, frozenset[str]]
    absences: tuple[Absence, ...] = ()
    aliases: Mapping[str, frozenset[str]] = field(default_factory=dict)
    zone: tzinfo = UTC

    def __getitem__(self, group: str) -> frozenset[str]:
        return self.people[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.people)

    def __len__(self) -> int:
        return len(self.people)

    def of(self, group: str) -> frozenset[str]:
        """Its people, whether they are there or away; nobody of a group that is no more."""
        return self.people.get(group, frozenset())

    def with_absences(self, absences: Iterable[Absence]) -> Groups:
        return replace(self, absences=tuple(absences))

    def with_deputies(self) -> Mapping[str, frozenset[str]]:
        """Group -> its people, and whoever may decide for one of them at some time."""
        return {
            group: people | {a.deputy for a in self.absences if a.deputy and a.confirmed and a.person in people}
            for group, people in self.people.items()
        }

    def away(self, person: str, at: datetime) -> Absence | None:
        """The absence of this person at ``at``; None while they are there."""
        mine = self._addresses(person)
        return next((a for a in self.absences if a.person in mine and a.covers(at, self.zone)), None)

    def deputy(self, person: str, at: datetime, groups: Iterable[str], without: Set[str] = frozenset()) -> str:
        """Who decides for somebody who is away, in one of these groups at least; "" for nobody: then they are there, or have named nobody
        who may, or one who is away as well, or one of ``without``: who wrote the message."""
        absence = self.away(person, at)
        if absence is None or not absence.deputy or self.away(absence.deputy, at) is not None:
            return ""
        theirs = self._addresses(absence.deputy)
        if theirs & without or not any(
            self._may(absence, g) for g in groups if not self.of(g).isdisjoint(self._addresses(person))
        ):
            return ""
        return absence.deputy

    def decided_for(self, deputy: str, at: datetime) -> tuple[Absence, ...]:
        """The absences in which this one is the deputy of somebody at ``at``."""
        mine = self._addresses(deputy)
        return tuple(a for a in self.absences if a.deputy in mine and a.covers(at, self.zone))

    def decides(self, who: str, group: str, at: datetime, without: Set[str] = frozenset()) -> bool:
        """Whether they decide in a group: they are in it, or somebody is for whom they do so now. Nobody does for ``without``: what
        somebody wrote their deputy does not decide on in their place."""
        return who in self.of(group) or any(
            a.confirmed and not self._addresses(a.person).isdisjoint(self.of(group) - without)
            for a in self.decided_for(who, at)
            if self._addresses(a.person).isdisjoint(without)
        )

    def of_person(self, who: str, at: datetime) -> frozenset[str]:
        """The groups in which they decide."""
        return frozenset(group for group in self.people if self.decides(who, group, at))

    def there(self, group: str, at: datetime, without: Set[str] = frozenset()) -> frozenset[str]:
        """Who of a group is there to decide: its people who are not away, and whoever decides for those."""
        found = set()
        for person in self.of(group) - without:
            if self.away(person, at) is None:
                found.add(person)
            elif deputy := self.deputy(person, at, (group,), without):
                found.add(deputy)
        return frozenset(found)

    def votes(
        self, voted: Mapping[str, datetime], groups: Iterable[str], without: Set[str] = frozenset()
    ) -> tuple[frozenset[str], ...]:
        """What the votes of these people, given then, come to: of each vote that counts the groups that it may stand for.

        A deputy's vote is their own, and that of whoever they decide for, at once: one vote. Who voted before they went keeps their
        vote, and nobody decides for them. Who votes while they are away shares one with their deputy.
        """
        groups = tuple(groups)
        alone: dict[str, str] = {who: who for who in voted}  # voter -> of those who share a vote one
        stands: dict[str, set[str]] = {}
        for who, at in voted.items():
            stands[who] = {g for g in groups if who in self.of(g)}
            for absence in self.decided_for(who, at):
                person = self._addresses(absence.person)
                itself = next((one for one in voted if one in person), None)
                may = {g for g in groups if self._may(absence, g) and not person.isdisjoint(self.of(g))}
                if itself is not None and may and absence.covers(voted[itself], self.zone):
                    shared, other = alone[who], alone[itself]
                    alone.update((one, shared) for one, of in alone.items() if of == other)
                elif itself is None and person.isdisjoint(without):
                    stands[who] |= may
        return tuple(
            frozenset().union(*(stands[who] for who, of in alone.items() if of == one))
            for one in dict.fromkeys(alone.values())
        )

    def _may(self, absence: Absence, group: str) -> bool:
        return absence.confirmed or not self._addresses(absence.deputy).isdisjoint(self.of(group))

    def _addresses(self, person: str) -> frozenset[str]:
        return self.aliases.get(person) or frozenset({person})
