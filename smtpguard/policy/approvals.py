"""Who decides, as the policy declares it: the members of groups, absences, and who decides as deputy. Pure: the time
is always given.

An absent person and their deputy have one vote together: a deputy never adds a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, tzinfo

LONGEST = timedelta(days=366)
"""The longest absence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """An absence: ``person`` (canonical) is away from the beginning of ``since`` to the end of ``until``, by the
    organization's calendar. ``deputy``: canonical, "" for none. ``confirmed``: an admin has agreed that the deputy
    decides in groups that they are not in. ``ended``: when they came back early, or cancelled it."""

    person: str
    since: date
    until: date
    deputy: str = ""
    confirmed: bool = False
    ended: datetime | None = None

    def covers(self, at: datetime, zone: tzinfo) -> bool:
        on = self.since <= at.astimezone(zone).date() <= self.until
        return on and (self.ended is None or at < self.ended)

    def is_over(self, at: datetime, zone: tzinfo) -> bool:
        return self.until < at.astimezone(zone).date() or (self.ended is not None and self.ended <= at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a group, from a directory or a sign-on. ``addresses``: all of theirs, canonical; the first is the one
    that they vote as."""

    group: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups(Mapping[str, frozenset[str]]):
    """Groups of people who decide, with their absences: group -> canonical addresses of its members. ``aliases``: for
    each address of a person with several, all of theirs. ``elsewhere``: groups whose members others name too.
    ``zone``: the time zone in which days begin."""

    people: Mapping[str, frozenset[str]]
    elsewhere: frozenset[str] = frozenset()
    absences: tuple[Absence, ...] = ()
    aliases: Mapping[str, frozenset[str]] = field(default_factory=dict)
    zone: tzinfo = UTC
    _named: Mapping[str, list[tuple[str, str]]] = field(init=False, repr=False, compare=False)
    """The people with an address of a local part, and its domain, by that local part."""

    def __post_init__(self) -> None:
        named: dict[str, list[tuple[str, str]]] = {}
        for person in frozenset().union(*self.people.values()):
            for address in self.addresses(person):
                name, _, domain = address.rpartition("@")
                named.setdefault(name, []).append((person, domain))
        object.__setattr__(self, "_named", named)

    def __getitem__(self, group: str) -> frozenset[str]:
        return self.people[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.people)

    def __len__(self) -> int:
        return len(self.people)

    def of(self, group: str) -> frozenset[str]:
        """Return the members of a group, present or absent; none for a group that no longer exists."""
        return self.people.get(group, frozenset())

    def besides(self, group: str, without: Set[str]) -> frozenset[str]:
        """Return the members of a group, present or absent, but nobody who is in ``without`` under any address."""
        return frozenset(one for one in self.of(group) if self.addresses(one).isdisjoint(without))

    def named(self, addresses: Iterable[str], ours: Callable[[str], bool], login: str = "") -> frozenset[str]:
        """Return the people one of whose local parts is this login, or that of one of these addresses; both in
        domains that are ``ours``."""
        apart = (one.rpartition("@") for one in addresses)
        names = [name for name, _, domain in apart if name in self._named and ours(domain)]
        found = {person for name in names for person, domain in self._named[name] if ours(domain)}
        return frozenset(found.union(person for person, _ in self._named.get(login, ())))

    def with_members(self, found: Iterable[Member]) -> Groups:
        """Add the members that others name, in groups for which the policy lets them."""
        people, aliases = dict(self.people), dict(self.aliases)
        for member in found:
            if member.group not in self.elsewhere or not member.addresses:
                continue
            everything = frozenset(member.addresses).union(*(aliases.get(a, frozenset()) for a in member.addresses))
            if len(everything) > 1:
                aliases |= dict.fromkeys(everything, everything)
            if everything.isdisjoint(people[member.group]):
                people[member.group] |= {member.addresses[0]}
        return replace(self, people=people, aliases=aliases)

    def with_absences(self, said: Iterable[Absence]) -> Groups:
        """Add the absences that people reported. A person's own replaces every absence for them that begins before its end."""
        own = {absence.person: absence for absence in said}
        kept = (a for a in self.absences if a.person not in own or a.since > own[a.person].until)
        return replace(self, absences=(*kept, *own.values()))

    def with_deputies(self) -> Mapping[str, frozenset[str]]:
        """Return for each group its members, and everybody who may decide as deputy of one at some time."""
        return {
            group: people | {a.deputy for a in self.absences if a.deputy and a.confirmed and a.person in people}
            for group, people in self.people.items()
        }

    def away(self, person: str, at: datetime) -> Absence | None:
        """Return the absence of this person at ``at``; None while they are present."""
        mine = self.addresses(person)
        return next((a for a in self.absences if a.person in mine and a.covers(at, self.zone)), None)

    def deputy(self, person: str, at: datetime, groups: Iterable[str], without: Set[str] = frozenset()) -> str:
        """Return the deputy of an absent person in at least one of these groups. Returns "" for none: the person is
        present, has named no deputy who may decide, or one who is absent too, or one of ``without``: the message's
        writer."""
        absence = self.away(person, at)
        if absence is None or not absence.deputy or self.away(absence.deputy, at) is not None:
            return ""
        theirs = self.addresses(absence.deputy)
        if theirs & without or not any(
            self._may(absence, g) for g in groups if not self.of(g).isdisjoint(self.addresses(person))
        ):
            return ""
        return absence.deputy

    def decided_for(self, deputy: str, at: datetime) -> tuple[Absence, ...]:
        """Return the absences at ``at`` for which this person is the deputy."""
        mine = self.addresses(deputy)
        return tuple(a for a in self.absences if a.deputy in mine and a.covers(at, self.zone))

    def seats(self, who: str, at: datetime) -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
        """Return the groups in which they decide at that time, in parts: their own groups, and the others of each absent
        person whose deputy they are, with that person's addresses. Only as members do they decide on what that person
        wrote."""
        own = self._with(frozenset({who}))
        return (own, frozenset()), *((self._with(absent) - own, absent) for absent in self._represented(who, at))

    def sees(self, who: str, groups: Set[str], at: datetime, wrote: Set[str]) -> bool:
        """Return whether they see what one of these groups decides on, and ``wrote`` wrote: as a member, or now as deputy
        of a member who did not write it."""
        return any(not theirs.isdisjoint(groups) and absent.isdisjoint(wrote) for theirs, absent in self.seats(who, at))

    def decides(self, who: str, groups: Set[str], at: datetime, wrote: Set[str]) -> bool:
        """Return whether they decide on it: if they see it, and did not write it under any address."""
        return self.addresses(who).isdisjoint(wrote) and self.sees(who, groups, at, wrote)

    def _represented(self, who: str, at: datetime) -> Iterator[frozenset[str]]:
        """Yield the addresses of each absent person whose deputy they are at that time."""
        return (self.addresses(absence.person) for absence in self.decided_for(who, at) if absence.confirmed)

    def _with(self, person: frozenset[str]) -> frozenset[str]:
        """Return the groups with a member who has one of these addresses."""
        return frozenset(group for group, members in self.people.items() if not person.isdisjoint(members))

    def of_person(self, who: str, at: datetime) -> frozenset[str]:
        """Return the groups in which they decide at that time: their own, and those of the people whose deputy they
        are."""
        return frozenset().union(*(groups for groups, _ in self.seats(who, at)))

    def present(self, group: str, at: datetime, without: Set[str] = frozenset()) -> frozenset[str]:
        """Return the people of a group who can decide: its present members, and the deputies of the absent ones."""
        found = set()
        for person in self.besides(group, without):
            if self.away(person, at) is None:
                found.add(person)
            elif deputy := self.deputy(person, at, (group,), without):
                found.add(deputy)
        return frozenset(found)

    def votes(
        self, voted: Mapping[str, datetime], groups: Iterable[str], without: Set[str] = frozenset()
    ) -> tuple[frozenset[str], ...]:
        """Return for each vote that counts the groups for which it may count. ``voted``: who voted, and when. Nobody
        in ``without`` votes, and a person has one vote, whatever their addresses.

        A deputy's vote counts as their own and as the absent person's at once: one vote. A vote given before an
        absence stays valid, and then the deputy adds none. A vote given during an absence is shared with the
        deputy's.
        """
        shares, groups_of = self._shared(voted, groups, without)
        return tuple(
            frozenset().union(*(groups_of[who] for who, of in shares.items() if of == one))
            for one in dict.fromkeys(shares.values())
        )

    def together(
        self, voted: Mapping[str, datetime], groups: Iterable[str], without: Set[str] = frozenset()
    ) -> tuple[tuple[str, ...], ...]:
        """Return the voters who have one vote together, since one of them was away and another decides for them: also
        after the absence, until one of them votes again."""
        shares, _ = self._shared(voted, groups, without)
        shared = (tuple(who for who, of in shares.items() if of == one) for one in dict.fromkeys(shares.values()))
        return tuple(some for some in shared if len({self.person(who) for who in some}) > 1)

    def _shared(
        self, voted: Mapping[str, datetime], groups: Iterable[str], without: Set[str]
    ) -> tuple[dict[str, str], dict[str, set[str]]]:
        """Return for each voter one of those who share the vote, and the groups for which it may count."""
        groups = tuple(groups)
        voted = {who: at for who, at in voted.items() if self.addresses(who).isdisjoint(without)}
        shares = {who: self.person(who) for who in voted}  # voter -> one of those who share the vote
        groups_of: dict[str, set[str]] = {}
        for who, at in voted.items():
            groups_of[who] = {g for g in groups if not self.addresses(who).isdisjoint(self.of(g))}
            for absence in self.decided_for(who, at):
                person = self.addresses(absence.person)
                theirs = [one for one in voted if one in person]
                may = {g for g in groups if self._may(absence, g) and not person.isdisjoint(self.of(g))}
                if may and any(absence.covers(voted[one], self.zone) for one in theirs):
                    shared, other = shares[who], shares[theirs[0]]
                    shares.update((one, shared) for one, of in shares.items() if of == other)
                elif not theirs and person.isdisjoint(without):
                    groups_of[who] |= may
        return shares, groups_of

    def _may(self, absence: Absence, group: str) -> bool:
        return absence.confirmed or not self.addresses(absence.deputy).isdisjoint(self.of(group))

    def person(self, address: str) -> str:
        """Return the same address for all addresses of a person."""
        return min(self.addresses(address))

    def addresses(self, person: str) -> frozenset[str]:
        """Return all addresses of the person who has this one."""
        return self.aliases.get(person) or frozenset({person})
